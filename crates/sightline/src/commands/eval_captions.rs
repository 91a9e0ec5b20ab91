//! `eval captions`: the caption metrics alone, for anybody's captions.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use sightline_metrics::caption::{self, CaptionReport, Evaluation, Settings, Tokenization};
use sightline_metrics::cider::DocumentFrequencies;
use sightline_metrics::files::{self, Layout, Pairs};
use sightline_metrics::meteor::{Meteor, MeteorData, Task};
use sightline_metrics::significance::{self, CAPTION_METRICS, Draws, Interval, Paired};
use sightline_metrics::{Error, HOW_TO_GET_METEOR_DATA};

use crate::places;
use crate::ui::{Ui, Usage, count, table};

/// Measure anybody's captions as coco-caption does: BLEU, METEOR, ROUGE-L, CIDEr
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("drawn").multiple(true))]
#[command(after_help = "Files are COCO results, COCO annotations, a Karpathy dataset, caption records of this program,
or plain lines (one image a line, several references parted by tabs or in several files).

Examples:
  sightline eval captions --hypotheses results.json --references captions_val2014.json
  sightline eval captions --hypotheses mine.txt --references r1.txt r2.txt r3.txt --per-image scores.csv
  sightline eval captions --hypotheses new.json --compare old.json --references dataset_coco.json")]
pub struct Args {
    /// One caption an image
    #[arg(long, value_name = "FILE")]
    hypotheses: PathBuf,
    /// The true captions
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    references: Vec<PathBuf>,
    /// Captions of another system to test against, on the same images
    #[arg(long, value_name = "FILE", group = "drawn")]
    compare: Option<PathBuf>,
    /// Write every image's scores as CSV
    #[arg(long, value_name = "FILE")]
    per_image: Option<PathBuf>,
    /// Add bootstrap confidence intervals
    #[arg(long, group = "drawn")]
    intervals: bool,
    /// How many corpora to draw for intervals and tests
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "drawn", value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    samples: u32,
    /// The seed of the draws
    #[arg(long, value_name = "N", default_value_t = 1, requires = "drawn")]
    seed: u64,
    /// Which images of a Karpathy dataset; the test split if there is one, else all
    #[arg(long)]
    split: Option<String>,
    /// Score only the images that both files have, and say how many were left out
    #[arg(long)]
    partial: bool,
    /// How captions become tokens
    #[arg(long, value_enum, default_value_t = Tokens::Joined)]
    tokens: Tokens,
    /// Document frequencies for CIDEr from this file, not from the references
    #[arg(long, value_name = "FILE")]
    document_frequencies: Option<PathBuf>,
    /// Write the document frequencies of the references to this file
    #[arg(long, value_name = "FILE")]
    write_document_frequencies: Option<PathBuf>,
    /// METEOR's data: its folder, its jar, or the wheel of pycocoevalcap 1.2 [default: SIGHTLINE_METEOR_DATA, else what
    /// `sightline meteor-data fetch` got]
    #[arg(long, value_name = "PATH")]
    meteor_data: Option<PathBuf>,
    /// METEOR's parameters: rank (coco-caption's), adq, hter, li, universal
    #[arg(long, value_name = "TASK", default_value = "rank")]
    meteor_task: Task,
    /// Leave METEOR out
    #[arg(long, conflicts_with_all = ["meteor_data", "meteor_task"])]
    no_meteor: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Tokens {
    /// PTB over all captions joined, as coco-caption does
    Joined,
    /// PTB, every caption by itself
    Alone,
    /// Tokenised already
    Blanks,
}

/// The record, and what was asked for besides.
#[derive(Debug, Serialize)]
struct Record {
    #[serde(flatten)]
    report: CaptionReport,
    images: u64,
    empty_hypotheses: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    intervals: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compare: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Reads, scores, prints.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let inputs =
        args.references.iter().chain(&args.compare).chain(&args.document_frequencies).chain([&args.hypotheses]);
    let outputs = args.per_image.iter().chain(&args.write_document_frequencies);
    places::check(inputs, outputs)?;
    let pairs = read(args, &args.hypotheses, ui)?;
    let other = args.compare.as_deref().map(|path| read(args, path, ui)).transpose()?;
    let meteor = match args.no_meteor {
        true => None,
        false => Some(meteor(args.meteor_data.as_deref(), args.meteor_task, ui)?),
    };
    let frequencies = args.document_frequencies.as_deref().map(DocumentFrequencies::read).transpose()?;
    let settings = Settings {
        tokenization: match args.tokens {
            Tokens::Joined => Tokenization::Joined,
            Tokens::Alone => Tokenization::Alone,
            Tokens::Blanks => Tokenization::Blanks,
        },
        frequencies: frequencies.as_ref(),
        meteor: meteor.as_ref(),
    };
    let found = caption::evaluate(&pairs.hypotheses, &pairs.references, &settings)?;
    tell(&found, frequencies.is_some(), ui);
    if let Some(path) = &args.write_document_frequencies {
        write_frequencies(path, &pairs, settings.tokenization)?;
    }

    let parameters = meteor.as_ref().map(|m| *m.parameters());
    let draws = Draws { samples: args.samples as usize, seed: args.seed, ..Draws::default() };
    let intervals =
        args.intervals.then(|| significance::bootstrap_captions(&found.images, parameters.as_ref(), &draws));
    let compared = match &other {
        Some(other) => {
            let aligned = align(&pairs, other, args)?;
            let theirs = caption::evaluate(&aligned, &pairs.references, &settings)?;
            Some(significance::compare_captions(&theirs.images, &found.images, parameters.as_ref(), &draws))
        }
        None => None,
    };
    if let Some(path) = &args.per_image {
        let is_complete = meteor.as_ref().is_some_and(Meteor::is_complete);
        let csv = per_image(&pairs.names, &pairs.hypotheses, &found, is_complete);
        sightline_data::write::atomically(path, |writer| std::io::Write::write_all(writer, csv.as_bytes()))?;
    }

    let record = Record {
        report: found.report,
        images: found.counts.images,
        empty_hypotheses: found.counts.empty_hypotheses,
        intervals: intervals.as_ref().map(|i| by_name(&found.report, i)).transpose()?,
        compare: compared.as_ref().map(|c| by_name(&found.report, c)).transpose()?,
    };
    ui.result(&record, || text(&found.report, intervals.as_ref(), compared.as_ref(), &draws))
}

fn read(args: &Args, hypotheses: &Path, ui: &Ui) -> anyhow::Result<Pairs> {
    let hypotheses = files::read(hypotheses, args.split.as_deref())?;
    let references: Vec<_> =
        args.references.iter().map(|path| files::read(path, args.split.as_deref())).collect::<Result<_, _>>()?;
    if let Some(split) = &args.split
        && references.iter().chain([&hypotheses]).all(|file| file.layout != Layout::Dataset)
    {
        let reason = format!("--split {split}: none of these files is a Karpathy dataset, whose images have splits");
        return Err(Usage(reason).into());
    }
    let pairs = files::pair(&hypotheses, &references, args.partial)?;
    if pairs.without_hypothesis > 0 {
        let images = count(pairs.without_hypothesis, "image");
        ui.say(format_args!("left out: {images} without a caption in {}", hypotheses.path.display()));
    }
    if pairs.without_reference > 0 {
        ui.say(format_args!("left out: {} without a reference", count(pairs.without_reference, "image")));
    }
    if pairs.names.is_empty() {
        anyhow::bail!(Usage(format!("{} holds no captions; there is nothing to score", hypotheses.path.display())));
    }
    Ok(pairs)
}

/// METEOR if its data can be had, else its reduced form, and why.
pub(super) fn meteor(path: Option<&Path>, task: Task, ui: &Ui) -> anyhow::Result<Meteor> {
    let data = match path {
        Some(path) => MeteorData::open(path),
        None => MeteorData::find(),
    };
    match data {
        Ok(data) => Ok(Meteor::new(data, task)),
        Err(Error::MeteorDataMissing) => {
            ui.say(format_args!(
                "no METEOR: its data is missing, so meteor_exact_stem (another metric) stands in; to get it, \
                 {HOW_TO_GET_METEOR_DATA}"
            ));
            Ok(Meteor::exact_stem())
        }
        Err(error) => Err(error.into()),
    }
}

/// Says what a reader of the numbers should know.
fn tell(found: &Evaluation, own_frequencies: bool, ui: &Ui) {
    if found.counts.empty_hypotheses > 0 {
        let captions = count(found.counts.empty_hypotheses as usize, "caption");
        ui.say(format_args!("{captions} without any word: scored, with zeros"));
    }
    if found.counts.images == 1 && !own_frequencies {
        ui.say("one image alone: CIDEr is 0 by definition, because it weighs words by how few images have them");
    }
}

fn write_frequencies(path: &Path, pairs: &Pairs, tokenization: Tokenization) -> anyhow::Result<()> {
    let tokenizer = sightline_metrics::ptb::Tokenizer::shared();
    let flat: Vec<&String> = pairs.references.iter().flatten().collect();
    let mut tokens = match tokenization {
        Tokenization::Blanks => flat.into_iter().cloned().collect(),
        Tokenization::Joined => tokenizer.coco(&flat),
        Tokenization::Alone => flat.into_iter().map(|caption| tokenizer.coco_one(caption)).collect::<Vec<_>>(),
    }
    .into_iter();
    let references = pairs.references.iter().map(|own| tokens.by_ref().take(own.len()).collect::<Vec<String>>());
    let frequencies = DocumentFrequencies::of(&references.collect::<Vec<_>>());
    Ok(sightline_data::write::atomically(path, |file| frequencies.write(file))?)
}

/// The other system's captions in the order of ours.
fn align(pairs: &Pairs, other: &Pairs, args: &Args) -> anyhow::Result<Vec<String>> {
    if pairs.images == other.images {
        return Ok(other.hypotheses.clone());
    }
    let by_image: std::collections::HashMap<&str, &String> =
        other.images.iter().map(String::as_str).zip(&other.hypotheses).collect();
    let aligned = pairs.images.iter().zip(&pairs.names).map(|(image, name)| {
        by_image.get(image.as_str()).map(|c| (*c).clone()).with_context(|| {
            let path = args.compare.as_deref().unwrap_or(Path::new(""));
            format!("{} has no caption for image {name}; both systems must describe the same images", path.display())
        })
    });
    aligned.collect()
}

/// The metrics of the report with what was computed for each.
fn by_name<T: Serialize>(
    report: &CaptionReport,
    values: &[T; 7],
) -> serde_json::Result<serde_json::Map<String, serde_json::Value>> {
    metrics(report).map(|(name, place)| Ok((name.to_owned(), serde_json::to_value(&values[place])?))).collect()
}

/// Names of the metrics of the report and their places in [`CAPTION_METRICS`].
fn metrics(report: &CaptionReport) -> impl Iterator<Item = (&'static str, usize)> {
    report.named().into_iter().filter_map(|(name, _)| {
        let listed = if name == "meteor_exact_stem" { "meteor" } else { name };
        CAPTION_METRICS.iter().position(|m| *m == listed).map(|place| (name, place))
    })
}

fn title(name: &str) -> String {
    match name {
        "bleu1" | "bleu2" | "bleu3" | "bleu4" => format!("BLEU-{}", &name[4..]),
        "meteor" => "METEOR".to_owned(),
        "rouge_l" => "ROUGE-L".to_owned(),
        "cider" => "CIDEr".to_owned(),
        other => other.to_owned(),
    }
}

/// The table.
fn text(
    report: &CaptionReport,
    intervals: Option<&[Interval; 7]>,
    compared: Option<&[Paired; 7]>,
    draws: &Draws,
) -> String {
    let number = |value: f64| format!("{value:.4}");
    let mut heads = vec!["metric".to_owned(), "score".to_owned()];
    if intervals.is_some() {
        heads.push("95 % interval".to_owned());
    }
    if compared.is_some() {
        heads.extend(["compared".to_owned(), "difference".to_owned(), "95 % interval".to_owned(), "p".to_owned()]);
    }
    let mut rows = vec![heads];
    let range = |i: &Interval| format!("{:.4} to {:.4}", i.low, i.high);
    for ((name, place), (_, value)) in metrics(report).zip(report.named()) {
        let mut row = vec![title(name), number(value)];
        if let Some(intervals) = intervals {
            row.push(range(&intervals[place]));
        }
        if let Some(compared) = compared {
            let Paired { first, difference, p, .. } = &compared[place];
            row.extend([number(*first), format!("{:+.4}", difference.value), range(difference), format!("{p:.4}")]);
        }
        rows.push(row);
    }
    let mut text = table(&rows);
    if compared.is_some() {
        let samples = draws.samples;
        let _ =
            writeln!(text, "\np: approximate randomisation, {samples} draws; intervals: bootstrap, {samples} draws");
    }
    text
}

/// Every image's scores as CSV.
pub(super) fn per_image<S: AsRef<str>>(
    names: &[S],
    hypotheses: &[S],
    found: &Evaluation,
    meteor_is_complete: bool,
) -> String {
    let mut csv = String::from("image");
    for (name, _) in found.report.named() {
        csv.push(',');
        csv.push_str(name);
    }
    csv.push_str(",hypothesis\n");
    for ((name, hypothesis), image) in names.iter().zip(hypotheses).zip(&found.images) {
        csv.push_str(&quoted(name.as_ref()));
        for (_, value) in image.report(meteor_is_complete).named() {
            let _ = write!(csv, ",{value}");
        }
        csv.push(',');
        csv.push_str(&quoted(hypothesis.as_ref()));
        csv.push('\n');
    }
    csv
}

/// A field of CSV: in quotes where it holds a comma, a quote or a line break.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Wrapper {
        #[command(flatten)]
        args: Args,
    }

    const RESULTS: &str = r#"[{"image_id": 1, "caption": "A dog runs, fast."}, {"image_id": 2, "caption": "a cat"}]"#;
    const OTHER: &str = r#"[{"image_id": 2, "caption": "a cat sits"}, {"image_id": 1, "caption": ""}]"#;
    const REFERENCES: &str = r#"{"images": [{"id": 1}, {"id": 2}], "annotations": [
        {"image_id": 1, "caption": "A dog runs"}, {"image_id": 1, "caption": "The dog is running fast."},
        {"image_id": 2, "caption": "A cat sits on a mat"}]}"#;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn file(&self, name: &str, content: &[u8]) -> String {
            let path = self.0.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.to_string_lossy().into_owned()
        }

        fn args(&self, hypotheses: &[u8], references: &[u8], more: &[&str]) -> Args {
            let (h, r) = (self.file("h", hypotheses), self.file("r", references));
            let words = ["x", "--hypotheses", &h, "--references", &r, "--no-meteor"];
            Wrapper::try_parse_from(words.iter().chain(more)).unwrap().args
        }

        fn error(&self, hypotheses: &[u8], references: &[u8]) -> String {
            let ui = Ui { json: true, quiet: true };
            let error = run(&self.args(hypotheses, references, &[]), &ui).unwrap_err();
            crate::ui::one_line(&error).replace(&format!("{}/", self.0.path().display()), "")
        }
    }

    #[test]
    fn prints_a_table() {
        let folder = Folder::new();
        let args = folder.args(RESULTS.as_bytes(), REFERENCES.as_bytes(), &[]);
        let pairs = read(&args, &args.hypotheses, &Ui { quiet: true, ..Ui::default() }).unwrap();
        let found = caption::evaluate(&pairs.hypotheses, &pairs.references, &Settings::default()).unwrap();
        // pycocoevalcap 1.2 on the same tokens: 0.60653, 0.52527, 0.43738, 0.00008; 0.66923; 2.70877.
        let text = text(&found.report, None, None, &Draws::default());
        let expected = [
            "metric    score",
            "BLEU-1   0.6065",
            "BLEU-2   0.5253",
            "BLEU-3   0.4374",
            "BLEU-4   0.0001",
            "ROUGE-L  0.6692",
            "CIDEr    2.7088",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn compares_two_systems_whatever_their_order() {
        let folder = Folder::new();
        let other = folder.file("other", OTHER.as_bytes());
        let args = folder.args(RESULTS.as_bytes(), REFERENCES.as_bytes(), &["--compare", &other, "--intervals"]);
        run(&args, &Ui { json: true, quiet: true }).unwrap();
        let quiet = Ui { quiet: true, ..Ui::default() };
        let pairs = read(&args, &args.hypotheses, &quiet).unwrap();
        let theirs = read(&args, args.compare.as_deref().unwrap(), &quiet).unwrap();
        assert_eq!(align(&pairs, &theirs, &args).unwrap(), ["", "a cat sits"]);
    }

    #[test]
    fn mistakes_are_one_line() {
        let folder = Folder::new();
        let check = |hypotheses: &[u8], references: &[u8], expected: &str| {
            let error = folder.error(hypotheses, references);
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        };
        let (h, r) = (RESULTS.as_bytes(), REFERENCES.as_bytes());
        check(br#"[{"image_id": 1, "caption": "x"}]"#, r, "h has no caption for 1 of the 2 images of r, image 2");
        check(br#"[{"image_id": 1, "caption": "x"}, {"image_id": 1, "caption": "y"}]"#, r, "more than one caption");
        check(h, br#"{"images": [], "annotations": [{"image_id": 1, "caption": "x"}]}"#, "r has no reference for 1 of");
        check(r, h, "the files look swapped");
        check(b"\xff\xfe", r, "expected UTF-8");
        check(b"", b"", "nothing to score");
        check(b"[{", r, "JSON");
    }

    #[test]
    fn writes_scores_of_every_image() {
        let folder = Folder::new();
        let csv = folder.0.path().join("out.csv");
        let args = folder.args(RESULTS.as_bytes(), REFERENCES.as_bytes(), &["--per-image", &csv.to_string_lossy()]);
        run(&args, &Ui { json: true, quiet: true }).unwrap();
        let written = std::fs::read_to_string(csv).unwrap();
        assert_eq!(written.lines().count(), 3);
        assert_eq!(written.lines().next(), Some("image,bleu1,bleu2,bleu3,bleu4,rouge_l,cider,hypothesis"));
        assert!(written.contains("\"A dog runs, fast.\""), "{written}");
    }
}
