//! `eval regions`: captions of regions against people's phrases for them (the paper's table 3), and dense captioning.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;
use sightline_data::categories::{self, CategoryWords};
use sightline_data::{Dataset, FeatureStore, tokens};
use sightline_metrics::caption::{self as metrics, CaptionReport};
use sightline_metrics::dense::{DenseCounts, Detection, TrueRegion};
use sightline_metrics::meteor::{Meteor, Task};
use sightline_model::Device;
use sightline_model::caption::BeamSettings;
use sightline_train::aligner::Aligner;
use sightline_train::caption::{Captioner, USUAL_CONTRAST};
use sightline_train::checkpoint::Kind;
use sightline_train::describe::PhraseRanking;
use sightline_train::phrases::Phrases;
use sightline_train::region_phrases::{Covering, DescribedRegion, RegionPhrases, covering};

use super::caption::{BeamArgs, PAPER_BEAM};
use super::eval_captions;
use crate::models;
use crate::panels::{MostRegions, region_captions};
use crate::ui::{Ui, Usage, count, table};

/// Compare captions of regions with people's phrases (the paper's table 3), in percent
#[derive(Debug, clap::Args)]
#[command(after_help = "The phrases are JSON: {\"version\": 1, \"images\": [{\"image\": \"dog.jpg\", \"regions\": \
[{\"box\": [x1, y1, x2, y2], \"phrases\": [\"a black dog\", …]}]}]}, boxes in pixels of the original picture.
Each is described by the region of the store that covers it best.

Examples:
  sightline eval regions --model runs/regions --phrases human.json --features photos.features
  sightline eval regions --model runs/regions --instances instances.json --features photos.features \\
      --caption-model runs/caption
  sightline eval regions --model runs/regions --phrases human.json --features photos.features \\
      --caption-model runs/caption --align-model runs/align --training-phrases phrases.json")]
pub struct Args {
    /// A run of `train caption --phrases`
    #[arg(long, value_name = "RUN")]
    model: PathBuf,
    /// People's phrases
    #[arg(long, value_name = "FILE", required_unless_present = "instances", conflicts_with = "instances")]
    phrases: Option<PathBuf>,
    /// COCO's boxes instead: are things called by their names?
    #[arg(long, value_name = "FILE")]
    instances: Option<PathBuf>,
    /// A feature store of `features` with the photos
    #[arg(long)]
    features: PathBuf,
    /// Let this model of whole photos describe the regions too
    #[arg(long, value_name = "RUN")]
    caption_model: Option<PathBuf>,
    /// The ranking baseline: the training phrase that this alignment model finds best
    #[arg(long, value_name = "RUN", requires = "training_phrases")]
    align_model: Option<PathBuf>,
    /// The phrases it chooses from, as `sightline align` wrote them
    #[arg(long, value_name = "PHRASES", requires = "align_model")]
    training_phrases: Option<PathBuf>,
    /// Choose from the phrases of the dataset's training split alone
    #[arg(long, requires = "training_phrases")]
    dataset: Option<PathBuf>,
    /// Boxes that no region of the store covers with this IoU are left out
    #[arg(long, default_value_t = 0.5)]
    min_iou: f32,
    /// The model of regions says what they show rather than their photo: of the beam's sentences the best by log
    /// probability, less this much of that of the whole photo; 0 is the likeliest sentence
    #[arg(long, default_value_t = USUAL_CONTRAST, allow_negative_numbers = true)]
    contrast: f32,
    #[command(flatten)]
    beam: BeamArgs,
}

/// One row of the table.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    report: CaptionReport,
    regions: usize,
    /// Share of regions whose caption names the thing: it has the last word of one of the phrases, or another word for
    /// the category that a phrase is.
    name_recall: f64,
    /// Of boxes with categories: the mean over categories of that share among their boxes.
    #[serde(skip_serializing_if = "Option::is_none")]
    category_recall: Option<f64>,
}

/// What came out.
#[derive(Debug, Serialize)]
struct Record {
    /// Boxes with phrases.
    described: usize,
    /// Those that a region of the store covers.
    covered: usize,
    /// By name: human, ranking, full_frame, region_level.
    rows: BTreeMap<&'static str, Row>,
    /// Dense captioning's mean average precision of the region-level model, 0..1.
    dense_map: f64,
}

/// A box with phrases and the region that stands for it.
struct Target<'a> {
    region: &'a DescribedRegion,
    covering: Covering,
}

/// Describes, scores, prints.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let beam = args.beam.settings(PAPER_BEAM)?;
    if !(0.0..=1.0).contains(&args.min_iou) {
        return Err(Usage(format!("--min-iou {}: expected 0 to 1", args.min_iou)).into());
    }
    if !(args.contrast >= 0.0 && args.contrast.is_finite()) {
        return Err(Usage(format!("--contrast {}: expected a number of 0 or more", args.contrast)).into());
    }
    let store = FeatureStore::open(&args.features)?;
    let (record, file) = match (&args.phrases, &args.instances) {
        (Some(file), _) => (RegionPhrases::load(file)?, file),
        (None, Some(file)) => (RegionPhrases::of_instances(&categories::read_instances(file)?, &store), file),
        (None, None) => unreachable!("one of the two is required"),
    };
    let regional = open(&args.model, Kind::RegionCaption, &store)?;
    let described = record.images.iter().map(|image| image.regions.len()).sum();
    let absent: Vec<&str> = record
        .images
        .iter()
        .map(|image| image.image.as_str())
        .filter(|image| store.position(image).is_none())
        .collect();
    if let Some(first) = absent.first() {
        ui.say(format_args!(
            "left out: {} of {} that {} does not have, {first} for one",
            count(absent.len(), "photo"),
            file.display(),
            args.features.display()
        ));
    }
    let targets = targets(&record, &store, args.min_iou);
    anyhow::ensure!(
        !targets.is_empty(),
        "{} covers none of the {described} boxes of {} with an IoU of {} or more; extract features with \
         `--regions boxes=FILE` or lower --min-iou",
        args.features.display(),
        file.display(),
        args.min_iou
    );
    if targets.len() < described {
        let boxes = count(described - targets.len(), "box");
        ui.say(format_args!(
            "left out: {boxes} that no region but the whole photo covers, or whose photo is not there"
        ));
    }
    let meteor = eval_captions::meteor(None, Task::Rank, ui)?;
    let references: Vec<&[String]> = targets.iter().map(|target| target.region.phrases.as_slice()).collect();
    let row = |captions: &[String]| -> anyhow::Result<Row> {
        let row = score(captions, &references, &meteor)?;
        let category_recall = args.instances.is_some().then(|| category_recall(captions, &references));
        Ok(Row { category_recall, ..row })
    };

    let mut rows = BTreeMap::new();
    rows.extend(human(&targets, &meteor)?.map(|row| ("human", row)));
    if let (Some(run), Some(path)) = (&args.align_model, &args.training_phrases) {
        let aligner = Aligner::new(models::checkpoint(run, &[Kind::Alignment])?, &Device::flex())?;
        aligner.check(&store)?;
        aligner.check_reads_words()?;
        let phrases = Phrases::load(path)?;
        let dataset = args.dataset.as_deref().map(Dataset::load).transpose()?;
        let captions = ranked(&aligner, &phrases, dataset.as_ref(), &store, &targets).with_context(|| {
            let of = if dataset.is_some() { "of the dataset's training photos in it " } else { "" };
            format!("{}: no phrase {of}has a word that {} knows", path.display(), run.display())
        })?;
        rows.insert("ranking", row(&captions)?);
    }
    if let Some(run) = &args.caption_model {
        let whole = open(run, Kind::Caption, &store)?;
        rows.insert("full_frame", row(&captions(&whole, &store, &targets, beam, 0.0))?);
    }
    rows.insert("region_level", row(&captions(&regional, &store, &targets, beam, args.contrast))?);
    let dense_map = dense(&regional, &record, &store, beam, args.contrast, &meteor);
    let record = Record { described, covered: targets.len(), rows, dense_map };
    ui.result(&record, || text(&record))
}

fn open(run: &std::path::Path, kind: Kind, store: &FeatureStore) -> anyhow::Result<Captioner> {
    let captioner = Captioner::new(models::checkpoint(run, &[kind])?)?;
    captioner.check(store)?;
    Ok(captioner)
}

fn targets<'a>(record: &'a RegionPhrases, store: &FeatureStore, min_iou: f32) -> Vec<Target<'a>> {
    let of_image = |image: &'a sightline_train::region_phrases::DescribedImage| {
        let position = store.position(&image.image);
        image.regions.iter().filter_map(move |region| {
            let covering = covering(store, position?, &region.region_box)?;
            (covering.iou >= min_iou).then_some(Target { region, covering })
        })
    };
    record.images.iter().flat_map(of_image).collect()
}

/// The best caption of each target.
fn captions(
    captioner: &Captioner,
    store: &FeatureStore,
    targets: &[Target<'_>],
    beam: BeamSettings,
    contrast: f32,
) -> Vec<String> {
    let photos: Vec<Vec<f32>> = targets.iter().map(|target| store.get(target.covering.position).vectors()).collect();
    let regions = photos.iter().zip(targets).map(|(photo, target)| (photo.as_slice(), target.covering.region));
    let found = captioner.region_captions(regions, beam, contrast);
    found.into_iter().map(|best| best.map_or_else(String::new, |best| best.text)).collect()
}

/// The best training phrase of each target; none where there is no phrase to choose from.
fn ranked(
    aligner: &Aligner,
    phrases: &Phrases,
    dataset: Option<&Dataset>,
    store: &FeatureStore,
    targets: &[Target<'_>],
) -> Option<Vec<String>> {
    let training: Option<std::collections::HashSet<&str>> =
        dataset.map(|d| d.split(sightline_data::Split::Train).map(|image| image.path.as_str()).collect());
    let allowed = phrases.photos.iter().filter(|(key, _)| training.as_ref().is_none_or(|t| t.contains(key.as_str())));
    let ranking = PhraseRanking::new(aligner, allowed.flat_map(|(_, own)| own).map(|phrase| phrase.words.as_slice()))?;
    // A photo has several targets.
    let positions: BTreeSet<usize> = targets.iter().map(|target| target.covering.position).collect();
    let positions: Vec<usize> = positions.into_iter().collect();
    let regions = aligner.regions(store, &positions);
    let of_target = |target: &Target<'_>| {
        let photo = positions.binary_search(&target.covering.position).expect("the photos of all targets");
        let (dim, region) = (regions.dim(), target.covering.region);
        ranking.best(&regions.get(photo)[region * dim..(region + 1) * dim])[0].to_owned()
    };
    Some(targets.iter().map(of_target).collect())
}

/// People against each other: the first phrase of every region that has several, against the others.
fn human(targets: &[Target<'_>], meteor: &Meteor) -> anyhow::Result<Option<Row>> {
    let several: Vec<(&String, &[String])> = targets
        .iter()
        .filter_map(|target| target.region.phrases.split_first().filter(|(_, rest)| !rest.is_empty()))
        .collect();
    if several.is_empty() {
        return Ok(None);
    }
    let (first, others): (Vec<String>, Vec<&[String]>) = several.into_iter().map(|(f, o)| (f.clone(), o)).unzip();
    Ok(Some(score(&first, &others, meteor)?))
}

fn score(captions: &[String], references: &[&[String]], meteor: &Meteor) -> anyhow::Result<Row> {
    let settings = metrics::Settings { meteor: Some(meteor), ..metrics::Settings::default() };
    let report = metrics::evaluate(captions, references, &settings)?.report;
    let named = share_that_is_named(captions.iter().zip(references));
    Ok(Row { report, regions: captions.len(), name_recall: named, category_recall: None })
}

/// Share of captions that name the thing: by the last word of one of its phrases, or another word for the category that a
/// phrase is.
fn share_that_is_named<'a>(captions: impl Iterator<Item = (&'a String, &'a &'a [String])>) -> f64 {
    let table = CategoryWords::coco();
    let named = |caption: &str, phrases: &[String]| {
        let name = |phrase: &String| tokens::tokenize(phrase).pop();
        let words = tokens::tokenize(caption);
        let categories = table.find(&words);
        let is_named = |phrase: &String| {
            categories.iter().any(|(_, category)| category == phrase)
                || name(phrase).is_some_and(|name| words.contains(&name))
        };
        phrases.iter().any(is_named)
    };
    let (mut hits, mut n) = (0usize, 0usize);
    for (caption, phrases) in captions {
        hits += usize::from(named(caption, phrases));
        n += 1;
    }
    hits as f64 / n.max(1) as f64
}

/// The mean over categories of the share of their boxes that is named, so that persons, of whom there are most, count as
/// much as bears.
fn category_recall(captions: &[String], references: &[&[String]]) -> f64 {
    let mut categories: BTreeMap<&[String], Vec<_>> = BTreeMap::new();
    for said in captions.iter().zip(references) {
        categories.entry(said.1).or_default().push(said);
    }
    categories.values().map(|own| share_that_is_named(own.iter().copied())).sum::<f64>()
        / categories.len().max(1) as f64
}

/// Every region of every photo described, near-duplicates left out, against all boxes with phrases.
fn dense(
    captioner: &Captioner,
    record: &RegionPhrases,
    store: &FeatureStore,
    beam: BeamSettings,
    contrast: f32,
    meteor: &Meteor,
) -> f64 {
    let mut counts = DenseCounts::default();
    for image in &record.images {
        let Some(photo) = store.find(&image.image) else { continue };
        let boxes: Vec<_> = photo.boxes().collect();
        let most = MostRegions { captions: usize::MAX, ..MostRegions::default() };
        let detections: Vec<Detection> = region_captions(captioner, &photo.vectors(), &boxes, beam, contrast, most)
            .into_iter()
            .map(|(confidence, c)| Detection { region: c.region_box.into(), confidence, caption: c.text })
            .collect();
        let truth: Vec<TrueRegion> = image
            .regions
            .iter()
            .map(|region| TrueRegion { region: region.region_box.into(), captions: region.phrases.clone() })
            .collect();
        counts.push(&detections, &truth, |caption, phrases| meteor.segment(caption, phrases).score);
    }
    counts.mean_average_precision()
}

fn text(record: &Record) -> String {
    let titles = [
        ("human", "human agreement"),
        ("ranking", "ranking of training phrases"),
        ("full_frame", "full-frame model"),
        ("region_level", "region-level model"),
    ];
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (key, title) in titles {
        let Some(row) = record.rows.get(key) else { continue };
        let named = row.report.named();
        if rows.is_empty() {
            let metrics = named.iter().map(|(name, _)| (*name).to_owned());
            let recalls = ["name recall"].into_iter().chain(row.category_recall.map(|_| "a category"));
            rows.push(std::iter::once(String::new()).chain(metrics).chain(recalls.map(str::to_owned)).collect());
        }
        let values = named.iter().map(|(_, value)| *value).chain([row.name_recall]).chain(row.category_recall);
        rows.push(std::iter::once(title.to_owned()).chain(values.map(|v| format!("{:.1}", 100.0 * v))).collect());
    }
    format!(
        "{} of {} covered\n{}dense captioning mAP {:.2}",
        record.covered,
        count(record.described, "box"),
        table(&rows),
        100.0 * record.dense_map
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_categories_count_as_much_as_persons() {
        let said = ["a man on a bench", "two women", "a bench", "a boy"].map(str::to_owned);
        let names = ["person", "person", "person", "bench"].map(|name| [name.to_owned()]);
        let references: Vec<&[String]> = names.iter().map(|own| own.as_slice()).collect();
        // Two persons of three are named, and the bench is not.
        assert!((share_that_is_named(said.iter().zip(&references)) - 0.5).abs() < 1e-12);
        assert!((category_recall(&said, &references) - 1.0 / 3.0).abs() < 1e-12);
    }
}
