//! `eval grounding`: nouns against the boxes of what they name.

use std::path::PathBuf;

use serde::Serialize;
use sightline_data::categories;
use sightline_metrics::grounding::{GroundingReport, GroundingScore};
use sightline_train::align::Aligner;
use sightline_train::checkpoint::Kind;
use sightline_train::grounding::GroundingSet;

use super::eval_split::{Common, tell_gaps};
use crate::models;
use crate::sources::ParsesFile;
use crate::ui::{Ui, count, table};

/// Whether a noun's region lies on what the noun names (pointing game, and IoU of one half), beside three baselines
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sightline dataset import coco -o coco.json
  sightline features coco.json -o coco.features --backbone vit.safetensors --regions nanodet=nanodet.onnx --context class
  sightline eval grounding --model runs/align --dataset coco.json --features coco.features --instances instances.json")]
pub struct Args {
    /// A run of `train align`
    #[arg(long, value_name = "RUN")]
    model: PathBuf,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    parses: ParsesFile,
    /// Boxes with category names, as COCO's instances JSON; only this evaluation reads them
    #[arg(long, value_name = "FILE")]
    instances: PathBuf,
    /// Affinities β to decode with; the best on one half of the photos is measured on the other
    #[arg(long, value_name = "β", value_delimiter = ',', default_value = "0,0.02,0.05,0.1,0.2,0.4,0.8")]
    affinity: Vec<f32>,
    /// Seed of the random baseline
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What one affinity reaches.
#[derive(Debug, Serialize)]
struct AtAffinity {
    affinity: f32,
    pointing: f64,
    box_iou50: f64,
}

#[derive(Debug, Serialize)]
struct Record {
    /// Each word to its best region: β = 0.
    #[serde(flatten)]
    report: GroundingReport,
    affinities: Vec<AtAffinity>,
    /// Each half of the photos with the affinity that points best on the other half.
    chosen: Chosen,
    nouns_without_box: usize,
    unknown_nouns: usize,
}

#[derive(Debug, Serialize)]
struct Chosen {
    affinities: [f32; 2],
    pointing: f64,
    box_iou50: f64,
}

pub(super) fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    if let Some(wrong) = args.affinity.iter().find(|&&beta| beta.is_nan() || beta < 0.0) {
        anyhow::bail!(crate::ui::Usage(format!("an affinity is zero or more, not {wrong}")));
    }
    let data = args.common.open(ui)?;
    let aligner = Aligner::new(models::checkpoint(&args.model, &[Kind::Alignment])?, &data.device)?;
    aligner.check(&data.store)?;
    let named = categories::read_instances(&args.instances)?;
    let parses = args.parses.read(&data.dataset, &[data.split], ui)?;
    let corpus = aligner.corpus(&data.dataset, data.split, &data.store, parses.as_ref())?;
    tell_gaps(&corpus, ui);
    let set = GroundingSet::new(&aligner, &corpus, &named)?;
    let at = |affinity: f32, report: &GroundingReport| AtAffinity {
        affinity,
        pointing: report.score.pointing,
        box_iou50: report.score.box_iou50,
    };
    let affinities = args.affinity.iter().map(|&beta| at(beta, &set.evaluate(beta, args.seed, |_| true))).collect();
    let record = Record {
        report: set.evaluate(0.0, args.seed, |_| true),
        affinities,
        chosen: choose(&set, &args.affinity, args.seed),
        nouns_without_box: set.without_box,
        unknown_nouns: set.unknown,
    };
    ui.result(&record, || text(&record))
}

/// Chooses β on one half of the photos, by pointing, and measures it on the other; both ways.
fn choose(set: &GroundingSet, affinities: &[f32], seed: u64) -> Chosen {
    let halves = [0, 1].map(|half| {
        let pointing = |beta: f32| set.evaluate(beta, seed, |photo| photo % 2 == half).score.pointing;
        let first = affinities.first().copied().unwrap_or(0.0);
        let better = |best: (f32, f64), &beta: &f32| {
            let found = pointing(beta);
            if found > best.1 { (beta, found) } else { best }
        };
        let (beta, _) = affinities.iter().skip(1).fold((first, pointing(first)), better);
        (beta, set.evaluate(beta, seed, |photo| photo % 2 != half).score)
    });
    let nouns: u64 = halves.iter().map(|(_, score)| score.nouns).sum();
    let mean = |of: fn(&GroundingScore) -> f64| {
        halves.iter().map(|(_, score)| of(score) * score.nouns as f64).sum::<f64>() / nouns.max(1) as f64
    };
    Chosen {
        affinities: halves.map(|(beta, _)| beta),
        pointing: mean(|score| score.pointing),
        box_iou50: mean(|score| score.box_iou50),
    }
}

fn text(record: &Record) -> String {
    let percent = |share: f64| format!("{:.1}", 100.0 * share);
    let mut rows = vec![["", "nouns", "pointing", "IoU ≥ 0.5", "some region ≥ 0.5"].map(str::to_owned).to_vec()];
    let line = |name: &str, score: &GroundingScore| {
        vec![
            name.to_owned(),
            score.nouns.to_string(),
            percent(score.pointing),
            percent(score.box_iou50),
            percent(score.covered),
        ]
    };
    rows.push(line("Sightline", &record.report.score));
    for (name, score) in &record.report.baselines {
        let mut row = line(&format!("{name} region"), score);
        row.truncate(4);
        row.push(String::new());
        rows.push(row);
    }
    let mut by_affinity = vec![["affinity β", "pointing", "IoU ≥ 0.5"].map(str::to_owned).to_vec()];
    for AtAffinity { affinity, pointing, box_iou50 } in &record.affinities {
        by_affinity.push(vec![affinity.to_string(), percent(*pointing), percent(*box_iou50)]);
    }
    let Chosen { affinities: [a, b], pointing, box_iou50 } = record.chosen;
    by_affinity.push(vec![format!("chosen ({a}, {b})"), percent(pointing), percent(box_iou50)]);
    let mut categories: Vec<_> = record.report.categories.iter().collect();
    categories.sort_by_key(|(name, score)| (std::cmp::Reverse(score.nouns), name.as_str()));
    let mut by_category = vec![["category", "nouns", "pointing", "IoU ≥ 0.5", ""].map(str::to_owned).to_vec()];
    by_category.extend(categories.into_iter().map(|(name, score)| {
        let mut row = line(name, score);
        row[4].clear();
        row
    }));
    format!(
        "{}{}, {} left out: what they name has no box; {} unknown to the model\n\n{}\n{}",
        table(&rows),
        count(record.report.score.nouns as usize, "noun"),
        record.nouns_without_box,
        record.unknown_nouns,
        table(&by_affinity),
        table(&by_category)
    )
}
