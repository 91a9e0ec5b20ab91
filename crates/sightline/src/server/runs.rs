//! A folder of runs as the evaluation tab shows it: what `train` logs, while it does; what `eval --json` printed; and
//! the paper's rows beside both. Everything is read anew when asked for, and nothing is written.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Runs shown at most.
const MOST_RUNS: usize = 500;

/// Of a longer log the end is read.
const MAX_LOG_BYTES: u64 = 64 << 20;

/// Larger settings and records of `eval` are passed over.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Steps of a run that an answer holds at most; of more, every second, third, ….
const MOST_STEPS: usize = 2000;

/// A run that has passes left and logged nothing for longer is said to have stopped.
const SILENCE: Duration = Duration::from_secs(600);

/// Columns of the retrieval table: recalls in percent, photo to sentence and back, and their sum.
pub const RETRIEVAL: [&str; 7] = ["p→s R@1", "R@5", "R@10", "s→p R@1", "R@5", "R@10", "rsum"];

/// Columns of the caption table, times 100.
pub const CAPTIONS: [&str; 7] = ["B-1", "B-2", "B-3", "B-4", "METEOR", "ROUGE-L", "CIDEr"];

/// The paper's table 1, BRNN and dependency-tree rows; its recalls, and the collection they are of.
const PAPER_RETRIEVAL: [(&str, &str, [f64; 6]); 6] = [
    ("flickr8k", "the paper, dependency trees", [14.8, 37.9, 50.0, 11.6, 31.4, 43.8]),
    ("flickr8k", "the paper, BRNN", [16.5, 40.6, 54.2, 11.8, 32.1, 44.7]),
    ("flickr30k", "the paper, dependency trees", [20.0, 46.6, 59.4, 15.0, 36.5, 48.2]),
    ("flickr30k", "the paper, BRNN", [22.2, 48.2, 61.4, 15.2, 37.7, 50.5]),
    ("coco", "the paper, BRNN, 1,000 photos", [38.4, 69.9, 80.5, 27.4, 60.2, 74.8]),
    ("coco", "the paper, BRNN, 5,000 photos", [16.5, 39.2, 52.0, 10.7, 29.6, 42.2]),
];

/// The paper's table 2; it has no ROUGE-L.
const PAPER_CAPTIONS: [(&str, [f64; 6]); 3] = [
    ("flickr8k", [57.9, 38.3, 24.5, 16.0, 16.7, 31.8]),
    ("flickr30k", [57.3, 36.9, 24.0, 15.7, 15.3, 24.7]),
    ("coco", [62.5, 45.0, 32.1, 23.0, 19.5, 66.0]),
];

/// A folder of runs, of folders of runs (the seeds of a row, say), and of records of `eval --json`.
#[derive(Debug, Clone)]
pub struct Runs {
    folder: PathBuf,
}

/// Everything in the folder.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RunsRecord {
    /// The folder.
    pub folder: String,
    /// Its runs, by name.
    pub runs: Vec<RunSummary>,
    /// Retrieval: the paper's rows, records of `eval retrieval` and `eval ablation`, validation of runs.
    pub retrieval: TableRecord,
    /// Captions: the paper's rows, records of `eval caption` and `eval captions`.
    pub captions: TableRecord,
}

/// A table of figures.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TableRecord {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Its rows.
    pub rows: Vec<RowRecord>,
}

/// A row of a table.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RowRecord {
    /// The run's, the record's or the paper's name.
    pub name: String,
    /// Where its figures come from.
    pub source: Source,
    /// The collection, where it is known.
    pub set: Option<String>,
    /// Runs (seeds) that the row is the mean of.
    pub runs: usize,
    /// By the table's columns; none where there is no such figure.
    pub values: Vec<Option<f64>>,
    /// Their standard deviation over runs, of two and more.
    pub deviations: Option<Vec<f64>>,
}

/// Where a row's figures come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The paper, its test split.
    Paper,
    /// A record of `eval`.
    Evaluation,
    /// The best pass of a run, on the validation split.
    Validation,
}

/// What a run trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// Regions and words to one space.
    Alignment,
    /// Sentences for photos or regions.
    Caption,
    /// Not told by its settings.
    Unknown,
}

/// A run at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RunSummary {
    /// Below the folder.
    pub name: String,
    /// What it trains.
    pub kind: RunKind,
    /// What its settings choose: encoder, objective and so on.
    pub about: String,
    /// Passes that it is to make.
    pub epochs: Option<u64>,
    /// Passes that it made.
    pub epoch: u64,
    /// Steps that it made.
    pub step: u64,
    /// Loss at the last step that was logged.
    pub loss: Option<f64>,
    /// Time of its passes.
    pub seconds: f64,
    /// Whether it goes on: it has passes left and logged something in the last ten minutes.
    pub training: bool,
    /// Validation of its best pass, as `train` logged it.
    pub best: Option<Value>,
}

/// A run with its curves.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RunRecord {
    /// At a glance.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// The text of its settings.
    pub settings: String,
    /// Steps that were logged, in their order.
    pub steps: Vec<StepRecord>,
    /// Passes, in their order.
    pub passes: Vec<PassRecord>,
}

/// One logged step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepRecord {
    /// Steps made, this one too.
    pub step: u64,
    /// None where it was no number.
    pub loss: Option<f64>,
    /// Of the optimiser.
    pub learning_rate: Option<f64>,
}

/// One logged pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PassRecord {
    /// Passes made, this one too.
    pub epoch: u64,
    /// Steps made.
    pub step: u64,
    /// Mean over the pass; none where it was no number.
    pub loss: Option<f64>,
    /// Time that it took.
    #[serde(default)]
    pub seconds: f64,
    /// Whether it is the best so far.
    #[serde(default)]
    pub best: bool,
    /// As `train` logged it.
    #[serde(default)]
    pub validation: Value,
}

impl Runs {
    /// The runs in `folder`.
    ///
    /// # Errors
    /// No such folder.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        ensure!(folder.is_dir(), "{} is no folder; name one that holds runs of `train`", folder.display());
        let folder = folder.canonicalize().with_context(|| format!("cannot open {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// Everything in the folder.
    pub fn all(&self) -> RunsRecord {
        let runs: Vec<RunSummary> = self.found().iter().map(|(name, path)| read(name, path).summary).collect();
        let set = |set: &str| Some(set.to_owned());
        let mut retrieval: Vec<RowRecord> = (PAPER_RETRIEVAL.iter())
            .map(|(of, name, recalls)| {
                let values = recalls.iter().copied().chain([recalls.iter().sum()]).map(Some).collect();
                RowRecord { set: set(of), ..RowRecord::new(*name, Source::Paper, values) }
            })
            .collect();
        let mut captions: Vec<RowRecord> = (PAPER_CAPTIONS.iter())
            .map(|(of, [b1, b2, b3, b4, meteor, cider])| {
                let values = [Some(b1), Some(b2), Some(b3), Some(b4), Some(meteor), None, Some(cider)];
                let values = values.map(Option::<&f64>::copied).into();
                RowRecord { set: set(of), ..RowRecord::new("the paper", Source::Paper, values) }
            })
            .collect();
        for (name, record) in self.records() {
            retrieval.extend(retrieval_rows(&name, &record));
            captions.extend(caption_row(&name, &record));
        }
        retrieval.extend(validation_rows(&runs));
        let table = |columns: [&str; 7], rows| TableRecord { columns: columns.map(str::to_owned).into(), rows };
        RunsRecord {
            folder: self.folder.display().to_string(),
            runs,
            retrieval: table(RETRIEVAL, retrieval),
            captions: table(CAPTIONS, captions),
        }
    }

    /// One run by its name, if there is one. The name is looked for among those that are there, never made into a path.
    pub fn one(&self, name: &str) -> Option<RunRecord> {
        self.found().into_iter().find(|(own, _)| own == name).map(|(name, path)| read(&name, &path))
    }

    /// Runs in the folder and in the folders in it, by name.
    fn found(&self) -> Vec<(String, PathBuf)> {
        let mut found = Vec::new();
        for (name, path) in entries(&self.folder) {
            if is_run(&path) {
                found.push((name, path));
            } else {
                let inside = entries(&path).into_iter().filter(|(_, path)| is_run(path));
                found.extend(inside.map(|(own, path)| (format!("{name}/{own}"), path)));
            }
            if found.len() >= MOST_RUNS {
                found.truncate(MOST_RUNS);
                break;
            }
        }
        found
    }

    /// Records of `eval --json` that lie in the folder, by name.
    fn records(&self) -> Vec<(String, Value)> {
        let json = entries(&self.folder).into_iter().filter_map(|(name, path)| {
            let name = name.strip_suffix(".json")?;
            Some((name.to_owned(), serde_json::from_str(&small(&path)?).ok()?))
        });
        json.take(MOST_RUNS).collect()
    }
}

/// What is in a folder, by name, hidden things left out; nothing where it cannot be read.
fn entries(folder: &Path) -> Vec<(String, PathBuf)> {
    let mut found: Vec<(String, PathBuf)> = (std::fs::read_dir(folder).into_iter().flatten().flatten())
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .filter(|(name, _)| !name.starts_with('.'))
        .collect();
    found.sort();
    found
}

fn is_run(path: &Path) -> bool {
    ["log.jsonl", "settings.toml"].iter().any(|name| path.join(name).is_file())
}

/// A small regular file of text.
fn small(path: &Path) -> Option<String> {
    let facts = std::fs::metadata(path).ok()?;
    (facts.is_file() && facts.len() <= MAX_FILE_BYTES).then(|| std::fs::read_to_string(path).ok())?
}

/// The log's text, of a long one its end, and when it was written to last.
fn log(path: &Path) -> Option<(String, SystemTime)> {
    let mut file = File::open(path).ok()?;
    let facts = file.metadata().ok()?;
    if !facts.is_file() {
        return None;
    }
    file.seek(SeekFrom::Start(facts.len().saturating_sub(MAX_LOG_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_LOG_BYTES).read_to_end(&mut bytes).ok()?;
    Some((String::from_utf8_lossy(&bytes).into_owned(), facts.modified().ok()?))
}

fn read(name: &str, path: &Path) -> RunRecord {
    let settings = small(&path.join("settings.toml")).unwrap_or_default();
    let (text, changed) = log(&path.join("log.jsonl")).unwrap_or((String::new(), SystemTime::UNIX_EPOCH));
    let silent = changed.elapsed().unwrap_or_default();
    RunRecord::new(name, settings, &text, silent)
}

/// One line of a log.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Pass(PassRecord),
    Step(StepRecord),
}

impl RunRecord {
    /// From the text of settings and log. Lines that are no record are passed over: the last may be half written.
    fn new(name: &str, settings: String, log: &str, silent: Duration) -> Self {
        let (mut steps, mut passes): (Vec<StepRecord>, Vec<PassRecord>) = (Vec::new(), Vec::new());
        for line in log.lines().filter_map(|line| serde_json::from_str(line).ok()) {
            match line {
                Line::Step(step) => steps.push(step),
                Line::Pass(pass) => passes.push(pass),
            }
        }
        let chosen: toml::Table = toml::from_str(&settings).unwrap_or_default();
        let epochs = chosen.get("epochs").and_then(toml::Value::as_integer).and_then(|n| u64::try_from(n).ok());
        let epoch = passes.last().map_or(0, |pass| pass.epoch);
        let best = passes.iter().rev().find(|pass| pass.best).or(passes.last());
        let (kind, about) = about(&chosen);
        let summary = RunSummary {
            name: name.to_owned(),
            kind,
            about,
            epochs,
            epoch,
            step: steps.last().map_or(0, |step| step.step).max(passes.last().map_or(0, |pass| pass.step)),
            loss: steps.last().and_then(|step| step.loss),
            seconds: passes.iter().map(|pass| pass.seconds).sum(),
            training: epochs.is_none_or(|epochs| epoch < epochs) && silent < SILENCE,
            best: best.map(|pass| pass.validation.clone()),
        };
        let stride = steps.len().div_ceil(MOST_STEPS).max(1);
        let last = steps.len().wrapping_sub(1);
        let kept = steps.into_iter().enumerate().filter(|(at, _)| at.is_multiple_of(stride) || *at == last);
        let steps = kept.map(|(_, step)| step).collect();
        Self { summary, settings, steps, passes }
    }
}

/// What settings train, and their choices in a few words.
fn about(settings: &toml::Table) -> (RunKind, String) {
    let empty = toml::Table::new();
    let model = settings.get("model").and_then(toml::Value::as_table).unwrap_or(&empty);
    let kind = match model {
        model if model.contains_key("score") || model.contains_key("sentence_encoder") => RunKind::Alignment,
        model if model.contains_key("hidden") => RunKind::Caption,
        _ => RunKind::Unknown,
    };
    let of = |table: &toml::Table, name: &str| table.get(name).and_then(toml::Value::as_str).map(str::to_owned);
    let is_on = |name: &str| model.get(name).and_then(toml::Value::as_bool).unwrap_or(false);
    let mut words: Vec<String> = match kind {
        RunKind::Alignment => ["sentence_encoder", "score", "objective"].iter().filter_map(|n| of(model, n)).collect(),
        _ => [of(model, "generator"), of(settings, "objective")].into_iter().flatten().collect(),
    };
    words.extend(
        ["geometry", "whole", "context", "region_attention"].iter().filter(|n| is_on(n)).map(|&n| n.to_owned()),
    );
    (kind, words.join(", ").replace('_', " "))
}

impl RowRecord {
    fn new(name: impl Into<String>, source: Source, values: Vec<Option<f64>>) -> Self {
        Self { name: name.into(), source, set: None, runs: 1, values, deviations: None }
    }
}

/// The recalls of an evaluation, by [`RETRIEVAL`].
fn recalls(report: &Value) -> Option<[f64; 7]> {
    let mut values = [0.0; 7];
    let directions = ["image_to_sentence", "sentence_to_image"];
    let cells = directions.iter().flat_map(|direction| ["r1", "r5", "r10"].map(|recall| &report[direction][recall]));
    for (value, cell) in values.iter_mut().zip(cells) {
        *value = cell.as_f64()?;
    }
    values[6] = values[..6].iter().sum();
    Some(values)
}

/// Rows of a record of `eval retrieval` or `eval ablation`.
fn retrieval_rows(name: &str, record: &Value) -> Vec<RowRecord> {
    if let Some(values) = recalls(record) {
        return vec![RowRecord::new(name, Source::Evaluation, values.map(Some).into())];
    }
    let numbers = |list: &Value| -> Option<Vec<f64>> {
        let numbers: Option<Vec<f64>> = list.as_array()?.iter().map(Value::as_f64).collect();
        numbers.filter(|numbers| numbers.len() == RETRIEVAL.len())
    };
    let row = |row: &Value| {
        let values = numbers(&row["mean"])?.into_iter().map(Some).collect();
        let runs = row["runs"].as_u64().map_or(1, |runs| runs as usize);
        let name = format!("{name}: {}", row["name"].as_str()?);
        Some(RowRecord {
            runs,
            deviations: numbers(&row["deviation"]),
            ..RowRecord::new(name, Source::Evaluation, values)
        })
    };
    record.as_array().into_iter().flatten().filter_map(row).collect()
}

/// The row of a record of `eval caption` or `eval captions`.
fn caption_row(name: &str, record: &Value) -> Option<RowRecord> {
    let names = ["bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge_l", "cider"];
    let values: Vec<Option<f64>> = names.iter().map(|name| record[name].as_f64().map(|value| 100.0 * value)).collect();
    values[0].is_some().then(|| RowRecord::new(name, Source::Evaluation, values))
}

/// A row for each alignment run that made a pass, and for each folder of such runs their mean and deviation.
fn validation_rows(runs: &[RunSummary]) -> Vec<RowRecord> {
    let mut rows: Vec<(String, Vec<[f64; 7]>)> = Vec::new();
    for run in runs {
        let Some(values) = run.best.as_ref().and_then(recalls) else { continue };
        let name = run.name.split('/').next().unwrap_or_default();
        match rows.last_mut() {
            Some((own, all)) if *own == name => all.push(values),
            _ => rows.push((name.to_owned(), vec![values])),
        }
    }
    let row = |(name, all): (String, Vec<[f64; 7]>)| {
        let n = all.len() as f64;
        let mean: Vec<f64> = (0..7).map(|c| all.iter().map(|run| run[c]).sum::<f64>() / n).collect();
        let deviations = (all.len() > 1).then(|| {
            let squares = |c: usize| all.iter().map(|run| (run[c] - mean[c]).powi(2)).sum::<f64>();
            (0..7).map(|c| (squares(c) / (n - 1.0)).sqrt()).collect()
        });
        let values = mean.into_iter().map(Some).collect();
        RowRecord { runs: all.len(), deviations, ..RowRecord::new(name, Source::Validation, values) }
    };
    rows.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &str = "epochs = 2\n[model]\nsentence_encoder = \"gru\"\nscore = \"mean_of_max\"\nwhole = true\n";

    fn pass(epoch: u64, best: bool, recall: f64) -> String {
        let side = format!("{{\"r1\":{recall},\"r5\":20.0,\"r10\":30.0}}");
        format!(
            "{{\"best\":{best},\"epoch\":{epoch},\"loss\":0.5,\"seconds\":10.0,\"step\":{},\"validation\":{{\"image_to_sentence\":{side},\"sentence_to_image\":{side}}}}}\n",
            40 * epoch
        )
    }

    #[test]
    fn a_log_is_read_while_it_is_written() {
        let log = format!(
            "{{\"learning_rate\":0.1,\"loss\":4.5,\"step\":20}}\n{{\"learning_rate\":0.2,\"loss\":null,\"step\":40}}\n{}no record\n{{\"learning_rate\":0.1,\"lo",
            pass(1, true, 10.0)
        );
        let run = RunRecord::new("a", SETTINGS.to_owned(), &log, Duration::ZERO);
        assert_eq!(run.steps.len(), 2);
        assert_eq!((run.steps[0].loss, run.steps[1].loss), (Some(4.5), None));
        assert_eq!((run.passes.len(), run.passes[0].epoch), (1, 1));
        let RunSummary { kind, about, epochs, epoch, step, training, seconds, .. } = run.summary;
        assert_eq!((kind, about.as_str()), (RunKind::Alignment, "gru, mean of max, whole"));
        assert_eq!((epochs, epoch, step, training, seconds), (Some(2), 1, 40, true, 10.0));
        // Silent for long, or at its end, it trains no more; the best pass counts, not the last.
        assert!(!RunRecord::new("a", SETTINGS.to_owned(), &log, 2 * SILENCE).summary.training);
        let log = pass(1, true, 12.0) + &pass(2, false, 11.0);
        let summary = RunRecord::new("a", SETTINGS.to_owned(), &log, Duration::ZERO).summary;
        assert!(!summary.training);
        assert_eq!(recalls(&summary.best.unwrap()).unwrap()[0], 12.0);
        // Nothing at all is a run without anything.
        let nothing = RunRecord::new("a", "no = toml = at all".to_owned(), "\0\0", Duration::ZERO);
        assert_eq!((nothing.summary.kind, nothing.steps.len(), nothing.passes.len()), (RunKind::Unknown, 0, 0));
    }

    #[test]
    fn a_long_log_keeps_its_ends() {
        let log: String =
            (1..=9001).map(|step| format!("{{\"learning_rate\":0.1,\"loss\":1.0,\"step\":{step}}}\n")).collect();
        let steps = RunRecord::new("a", String::new(), &log, Duration::ZERO).steps;
        assert!(steps.len() <= MOST_STEPS + 1);
        assert_eq!((steps[0].step, steps[steps.len() - 1].step), (1, 9001));
    }

    #[test]
    fn a_folder_becomes_tables() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("one/settings.toml", SETTINGS);
        put("one/log.jsonl", &pass(1, true, 10.0));
        put("seeds/1/log.jsonl", &pass(1, true, 10.0));
        put("seeds/2/log.jsonl", &pass(1, true, 14.0));
        put("new/settings.toml", "[model]\ngenerator = \"attention\"\nhidden = 8\n");
        put(".hidden/log.jsonl", "");
        put("other/notes.txt", "");
        put("table.json", "[{\"name\":\"gru\",\"runs\":3,\"mean\":[1,2,3,4,5,6,21],\"deviation\":[1,1,1,1,1,1,2]}]");
        put("captions.json", "{\"bleu1\":0.5,\"bleu2\":0.4,\"bleu3\":0.3,\"bleu4\":0.2,\"cider\":0.349}");
        put("broken.json", "{\"bleu1\":");
        let runs = Runs::new(folder.path()).unwrap();
        let all = runs.all();
        let names: Vec<&str> = all.runs.iter().map(|run| run.name.as_str()).collect();
        assert_eq!(names, ["new", "one", "seeds/1", "seeds/2"]);
        let ours = |table: &TableRecord| -> Vec<(String, Source, usize, Option<f64>)> {
            let rows = table.rows.iter().filter(|row| row.source != Source::Paper);
            rows.map(|row| (row.name.clone(), row.source, row.runs, row.values[0])).collect()
        };
        assert_eq!(
            ours(&all.retrieval),
            [
                ("table: gru".to_owned(), Source::Evaluation, 3, Some(1.0)),
                ("one".to_owned(), Source::Validation, 1, Some(10.0)),
                ("seeds".to_owned(), Source::Validation, 2, Some(12.0)),
            ]
        );
        let seeds = &all.retrieval.rows[all.retrieval.rows.len() - 1];
        assert!((seeds.deviations.as_ref().unwrap()[0] - 8f64.sqrt()).abs() < 1e-12);
        assert_eq!(ours(&all.captions), [("captions".to_owned(), Source::Evaluation, 1, Some(50.0))]);
        let paper = all.retrieval.rows.iter().find(|row| row.set.as_deref() == Some("flickr8k")).unwrap();
        assert_eq!((paper.values[0], paper.values.len(), all.captions.rows[0].values[5]), (Some(14.8), 7, None));

        assert_eq!(runs.one("seeds/2").unwrap().passes.len(), 1);
        for name in ["", ".", "..", "seeds", "../one", "one/", "/one", "one/../one", ".hidden", "one\0"] {
            assert!(runs.one(name).is_none(), "{name:?}");
        }
        assert!(Runs::new(&folder.path().join("absent")).unwrap_err().to_string().contains("is no folder"));
    }
}
