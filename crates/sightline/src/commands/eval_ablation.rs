//! `eval ablation`: many runs of `train align` in one table, seeds as mean and spread.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use sightline_metrics::retrieval::RetrievalReport;
use sightline_train::aligner::Aligner;
use sightline_train::checkpoint::Kind;
use sightline_train::evaluate::{self, Scores};
use sightline_train::run::RunFolder;

use super::eval_split::{Common, sharpness};
use crate::models;
use crate::sources::ParsesFile;
use crate::ui::{Ui, count, table};

/// One table of many alignment runs: a row a folder, its runs (seeds) as mean and spread, and as an ensemble
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: runs/paper/seed-1, runs/paper/seed-2, runs/gru/seed-1, runs/gru/seed-2, …
  sightline eval ablation runs --dataset flickr8k.json --features flickr8k.features --split val
  sightline eval ablation runs/gru --dataset flickr8k.json --features flickr8k.features --split val")]
pub struct Args {
    /// A folder with one folder a row; a row is a run of `train align`, or a folder of such runs (`train align --seeds`),
    /// which may also be named by itself
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    parses: ParsesFile,
    /// A row more for each ensemble, re-ranked by reciprocal neighbours with this sharpness
    #[arg(long, value_name = "SHARPNESS", value_parser = sharpness, allow_negative_numbers = true)]
    rerank: Option<f64>,
}

/// What the columns hold, in percent.
const COLUMNS: [&str; 7] = ["i→s R@1", "R@5", "R@10", "s→i R@1", "R@5", "R@10", "rsum"];

/// Runs that differ in their seed alone, or one run.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: String,
    runs: usize,
    /// Mean over runs, by [`COLUMNS`].
    mean: [f64; 7],
    /// Standard deviation over runs (n - 1); absent for one run.
    deviation: Option<[f64; 7]>,
}

impl Row {
    /// From each run's [`columns`].
    pub(super) fn new(name: String, runs: &[[f64; 7]]) -> Self {
        let n = runs.len() as f64;
        let mean = std::array::from_fn(|c| runs.iter().map(|run| run[c]).sum::<f64>() / n);
        let deviation = (runs.len() > 1).then(|| {
            std::array::from_fn(|c| {
                let squares = runs.iter().map(|run| (run[c] - mean[c]) * (run[c] - mean[c]));
                (squares.sum::<f64>() / (n - 1.0)).sqrt()
            })
        });
        Self { name, runs: runs.len(), mean, deviation }
    }
}

/// A report by [`COLUMNS`].
pub(super) fn columns(report: &RetrievalReport) -> [f64; 7] {
    let (a, b) = (&report.image_to_sentence, &report.sentence_to_image);
    [a.r1, a.r5, a.r10, b.r1, b.r5, b.r10, report.rsum]
}

pub(super) fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let data = args.common.open(ui)?;
    let parses = args.parses.read(&data.dataset, &[data.split], ui)?;
    let mut rows = Vec::new();
    // A folder of seeds is one row, any other holds the rows.
    let seeds = !RunFolder::seeds(&args.folder).is_empty();
    let folders_of_rows = if seeds { vec![args.folder.clone()] } else { folders(&args.folder)? };
    for folder in folders_of_rows {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let runs = if is_run(&folder) {
            vec![folder]
        } else {
            folders(&folder)?.into_iter().filter(|run| is_run(run)).collect()
        };
        let mut members = Vec::new();
        for run in &runs {
            // A row may be a caption model's, read other vectors than the rest, or trees that are not there: it is named and
            // the others go on.
            let scores = || -> anyhow::Result<Scores> {
                let aligner = Aligner::new(models::checkpoint(run, &[Kind::Alignment])?, &data.device)?;
                let corpus = aligner.corpus(&data.dataset, data.split, &data.store, parses.as_ref())?;
                Ok(evaluate::scores(&aligner, &corpus))
            };
            match scores() {
                Ok(scores) => members.push(scores),
                Err(error) => ui.say(format_args!("{} left out: {error}", run.display())),
            }
        }
        if members.is_empty() {
            continue;
        }
        let reports: Vec<[f64; 7]> = members.iter().map(|member| columns(&member.report())).collect();
        rows.push(Row::new(name.clone(), &reports));
        let whole = if members.len() > 1 { Scores::ensemble(&members) } else { members.swap_remove(0) };
        if reports.len() > 1 {
            rows.push(Row::new(format!("{name}, ensemble"), &[columns(&whole.report())]));
        }
        if let Some(sharpness) = args.rerank {
            let reranked = whole.sharpened(sharpness).reciprocal();
            rows.push(Row::new(format!("{name}, re-ranked"), &[columns(&reranked.report())]));
        }
    }
    anyhow::ensure!(
        !rows.is_empty(),
        "{}: no run of `train align` in its folders that fits the vectors",
        args.folder.display()
    );
    ui.result(&rows, || text(&rows))
}

fn is_run(folder: &Path) -> bool {
    folder.join("best.ckpt").is_file()
}

/// The folders in a folder, by name.
fn folders(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The table for a terminal.
pub(super) fn text(rows: &[Row]) -> String {
    let header = ["", "runs"].into_iter().chain(COLUMNS).map(str::to_owned).collect();
    let lines = rows.iter().map(|row| {
        let cell = |c: usize| match row.deviation {
            Some(deviation) => format!("{:.1} ± {:.1}", row.mean[c], deviation[c]),
            None => format!("{:.1}", row.mean[c]),
        };
        [row.name.clone(), row.runs.to_string()].into_iter().chain((0..COLUMNS.len()).map(cell)).collect()
    });
    let n: usize = rows.iter().map(|row| row.runs).max().unwrap_or(0);
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(lines).collect();
    format!("{}mean ± standard deviation over runs; at most {} a row", table(&rows), count(n, "run"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_over_runs() {
        let row = Row::new("a".into(), &[[1.0; 7], [3.0; 7]]);
        assert_eq!(row.mean, [2.0; 7]);
        assert!(row.deviation.is_some_and(|d| (d[0] - 2f64.sqrt()).abs() < 1e-12));
        let text = text(&[row, Row::new("b".into(), &[[5.0; 7]])]);
        assert!(text.contains("2.0 ± 1.4") && text.contains("5.0"), "{text}");
    }
}
