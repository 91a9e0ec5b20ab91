//! `dataset import` and `dataset show`.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use sightline_data::import::{self, Columns, ImportOptions, Layout, MakeSplit};
use sightline_data::{Dataset, Problems, Split, Summary, summary};

use crate::places;
use crate::ui::{Ui, count, table};

/// Read a captioned collection, or look at one
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "each command's help stands at its arguments")]
pub enum Command {
    Import(Box<ImportArgs>),
    Show(ShowArgs),
}

/// Read a captioned collection of any known layout and write it as a dataset
///
/// Known layouts: Karpathy's dataset.json, COCO captions JSON, a Flickr token file with split lists, CSV or TSV
/// (separator and header guessed), and a folder of photos with a .txt beside each. The layout is detected and explained.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sightline dataset import flickr8k/dataset.json -o flickr8k.json
  sightline dataset import captions_train2017.json --photos train2017 -o coco.json
  sightline dataset import dataset_coco.json --photos coco --train-on-restval -o coco.json
  sightline dataset import my_photos -o mine.json --make-split train-only")]
pub struct ImportArgs {
    /// A file, or a folder that holds one
    source: PathBuf,
    /// The dataset to write
    #[arg(short, long, value_name = "DATASET")]
    output: PathBuf,
    /// The folder of photos, where it is not found beside the source
    #[arg(long, value_name = "FOLDER")]
    photos: Option<PathBuf>,
    /// The source's layout, where the guess is wrong
    #[arg(long)]
    layout: Option<LayoutName>,
    /// The dataset's name
    #[arg(long)]
    name: Option<String>,
    /// Put all photos into this split
    #[arg(long)]
    split: Option<Split>,
    /// Put the photos of restval, COCO's left-over validation photos, into training, as the paper does
    #[arg(long, conflicts_with = "split")]
    train_on_restval: bool,
    /// A list of photos of a split, one a line; may be given several times
    #[arg(long, value_name = "SPLIT=FILE", value_parser = split_list)]
    split_list: Vec<(Split, PathBuf)>,
    /// What to do where the source brings no split
    #[arg(long, default_value = "eighty-ten-ten")]
    make_split: MakeSplitName,
    /// Decides which photos go where in a split made here
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep photos that are not on the disk, for vectors made elsewhere
    #[arg(long)]
    keep_missing: bool,
    /// Boxes that belong to the photos: COCO's instances JSON, or {"photo": [[x1, y1, x2, y2], …]}
    #[arg(long, value_name = "FILE")]
    boxes: Option<PathBuf>,
    /// True pairs besides each photo's own sentences: a JSON list of [sentence id, image id]
    #[arg(long, value_name = "FILE")]
    pairing: Option<PathBuf>,
    /// Column of a table that names the photo
    #[arg(long, value_name = "HEADER")]
    image_column: Option<String>,
    /// Column of a table that holds the sentence
    #[arg(long, value_name = "HEADER")]
    sentence_column: Option<String>,
    /// Column of a table that names the split
    #[arg(long, value_name = "HEADER")]
    split_column: Option<String>,
    /// Examples shown of each kind of problem
    #[arg(long, default_value_t = 3)]
    examples: usize,
}

/// Show what is in a dataset
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sightline dataset show flickr8k.json")]
pub struct ShowArgs {
    /// A dataset that `dataset import` wrote
    dataset: PathBuf,
    /// Count words seen at least this often in the training split
    #[arg(long, default_value_t = 5)]
    min_count: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LayoutName {
    Karpathy,
    CocoCaptions,
    FlickrTokens,
    Table,
    PhotoFolder,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MakeSplitName {
    EightyTenTen,
    TrainOnly,
}

/// A split by any of its usual names.
pub fn split(text: &str) -> Result<Split, String> {
    text.parse()
}

fn split_list(text: &str) -> Result<(Split, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("expected SPLIT=FILE, val=dev.txt for example")?;
    Ok((name.parse()?, file.into()))
}

/// Runs either.
pub fn run(command: Command, ui: &Ui) -> anyhow::Result<()> {
    match command {
        Command::Import(args) => import(*args, ui),
        Command::Show(args) => {
            let dataset = Dataset::load(&args.dataset)?;
            let summary = summary(&dataset, args.min_count);
            ui.result(&summary, || show(&summary))
        }
    }
}

fn import(args: ImportArgs, ui: &Ui) -> anyhow::Result<()> {
    let inputs = [Some(&args.source), args.boxes.as_ref(), args.pairing.as_ref()].into_iter().flatten();
    places::check_for(places::Own::Dataset, inputs, [&args.output])?;
    if args.output.exists() {
        Dataset::load(&args.output).context("the output would be written over what is no dataset of ours")?;
    }
    let options = ImportOptions {
        layout: args.layout.map(|layout| match layout {
            LayoutName::Karpathy => Layout::Karpathy,
            LayoutName::CocoCaptions => Layout::CocoCaptions,
            LayoutName::FlickrTokens => Layout::FlickrTokens,
            LayoutName::Table => Layout::Table,
            LayoutName::PhotoFolder => Layout::PhotoFolder,
        }),
        name: args.name,
        photos: args.photos,
        split: args.split,
        train_on_restval: args.train_on_restval,
        split_lists: args.split_list,
        make_split: match args.make_split {
            MakeSplitName::EightyTenTen => MakeSplit::EightyTenTen,
            MakeSplitName::TrainOnly => MakeSplit::TrainOnly,
        },
        seed: args.seed,
        keep_missing: args.keep_missing,
        boxes: args.boxes,
        pairing: args.pairing,
        columns: Columns { image: args.image_column, sentence: args.sentence_column, split: args.split_column },
        examples: args.examples,
        ..ImportOptions::default()
    };
    let imported = import::import(&args.source, &options)?;
    imported.dataset.save(&args.output)?;
    let summary = summary(&imported.dataset, 5);
    let record = json!({
        "dataset": args.output,
        "layout": imported.layout,
        "explanation": imported.explanation,
        "problems": imported.problems,
        "summary": summary,
    });
    ui.result(&record, || {
        let mut text = format!("read {} as {}\n", args.source.display(), imported.layout.name());
        for line in &imported.explanation {
            let _ = writeln!(text, "  {line}");
        }
        text.push_str(&show(&summary));
        text.push_str(&problems_text(&imported.problems));
        let _ = writeln!(text, "written to {}", args.output.display());
        text
    })
}

/// Problems as a paragraph of a report.
pub fn problems_text(problems: &Problems) -> String {
    if problems.is_empty() { "no problems\n".to_owned() } else { format!("problems\n{problems}") }
}

fn show(summary: &Summary) -> String {
    let mut text = format!(
        "{}: {}, {}, photos in {}\n",
        summary.name,
        count(summary.photos, "photo"),
        count(summary.sentences, "sentence"),
        summary.root
    );
    let mut rows = vec![["split", "photos", "sentences"].map(str::to_owned).to_vec()];
    for (split, s) in &summary.splits {
        rows.push(vec![split.name().to_owned(), s.photos.to_string(), s.sentences.to_string()]);
    }
    text.push_str(&table(&rows));
    let _ = writeln!(
        text,
        "{} words, {} different; vocabulary {} with the end token (words seen {} times or more in training)",
        summary.words, summary.distinct_words, summary.vocabulary, summary.min_count
    );
    if let Some([least, lower, median, upper, most]) = summary.sentence_length {
        let _ = writeln!(text, "words a sentence: {least} to {most}, quartiles {lower}, {median}, {upper}");
    }
    if summary.boxes > 0 {
        let _ = writeln!(text, "{} boxes came with it", summary.boxes);
    }
    for pair in &summary.pairs {
        let _ = writeln!(text, "  {} ({}): {}", pair.image, pair.split.name(), pair.sentence);
        let _ = writeln!(text, "      {}", pair.tokens.join(" "));
    }
    text
}
