//! `align`: the phrases of every sentence, a region and contiguous words each.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::json;
use sightline_data::{Dataset, FeatureStore, Split};
use sightline_train::aligner::Aligner;
use sightline_train::checkpoint::Kind;
use sightline_train::phrases::Phrases;
use sightline_train::pointing::AttachSettings;

use crate::models;
use crate::places;
use crate::sources::{DeviceKind, ParsesFile};
use crate::ui::{Ui, Usage, count};

/// Attach every word of every sentence to a region, neighbouring words together
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  sightline align --model runs/align --dataset flickr8k.json --features flickr8k.features -o phrases.json --affinity 0.5")]
pub struct Args {
    /// A run of `train align`
    #[arg(long, value_name = "RUN")]
    model: PathBuf,
    /// A dataset of `dataset import`
    #[arg(long)]
    dataset: PathBuf,
    /// A feature store of `features`
    #[arg(long)]
    features: PathBuf,
    #[command(flatten)]
    parses: ParsesFile,
    /// The phrases to write
    #[arg(short, long, value_name = "PHRASES")]
    output: PathBuf,
    /// What a pair of neighbouring words gains on the same region (β); 0 attaches each word on its own
    #[arg(long, default_value_t = 0.5)]
    affinity: f32,
    /// How much the proposer's own order of the regions counts beside a word's scores, for words of scenes the regions' size; 0
    /// as in the paper, 1 as in answers and on pages
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    prior: f32,
    /// Which photos; may be given several times
    #[arg(long, value_parser = super::dataset::split, default_values = ["train", "val"])]
    split: Vec<Split>,
    /// Where the numbers are computed
    #[arg(long, default_value = "cpu")]
    device: DeviceKind,
}

/// Decodes and writes the phrases.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let settings = AttachSettings { affinity: args.affinity, prior: args.prior };
    for (name, value) in [("affinity", settings.affinity), ("prior", settings.prior)] {
        if !(value >= 0.0 && value.is_finite()) {
            return Err(Usage(format!("--{name} {value}: expected a number of 0 or more")).into());
        }
    }
    let read = [&args.dataset, &args.features].into_iter().chain(args.parses.path()).cloned();
    places::check(read.chain(models::files([&args.model])), [&args.output])?;
    let dataset = Dataset::load(&args.dataset)?;
    let store = FeatureStore::open(&args.features)?;
    let aligner = Aligner::new(models::checkpoint(&args.model, &[Kind::Alignment])?, &args.device.open()?)?;
    let parses = args.parses.read(&dataset, &args.split, ui)?;
    let bar = ui.bar(0, "photos");
    let phrases =
        Phrases::decode(&aligner, &dataset, &store, parses.as_ref(), &args.split, settings, |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        })?;
    bar.finish_and_clear();
    phrases.save(&args.output)?;
    let words: usize = phrases.photos.values().flatten().map(|phrase| phrase.words.len()).sum();
    let mean = words as f64 / phrases.len().max(1) as f64;
    let record = json!({
        "phrases": args.output, "photos": phrases.photos.len(), "count": phrases.len(), "mean_words": mean,
        "affinity": settings.affinity, "prior": settings.prior,
    });
    ui.result(&record, || {
        let photos = count(phrases.photos.len(), "photo");
        format!("{}: {} of {photos}, {mean:.1} words each", args.output.display(), count(phrases.len(), "phrase"))
    })
}
