//! `train align`, `train caption`, `train backbone` and `train tune`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use sightline_data::{Dataset, FeatureStore, Split};
use sightline_model::Device;
use sightline_train::align::AlignData;
use sightline_train::aligner::Aligner;
use sightline_train::backbone::BackboneData;
use sightline_train::caption::CaptionData;
use sightline_train::checkpoint::Kind;
use sightline_train::phrases::Phrases;
use sightline_train::run::RunFolder;
use sightline_train::settings::{AlignSettings, BackboneRunSettings, CaptionRunSettings, TuneRunSettings};
use sightline_train::teachers::Teacher;
use sightline_train::tune::TuneData;
use sightline_train::{align, backbone, caption, tune};

use super::train_seeds::{self, Seeds};
use super::training::{Common, stopped, train};
use crate::interrupt;
use crate::models::{self, Reads};
use crate::sources::{self, ParsesFile};
use crate::ui::{Ui, count};

/// Train a model
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "each command's help stands at its arguments")]
pub enum Command {
    Align(AlignArgs),
    Caption(CaptionArgs),
    Backbone(BackboneArgs),
    Tune(TuneArgs),
}

/// Learn which words talk about which region, from photos and sentences alone
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sightline train align --dataset flickr8k.json --features flickr8k.features -o runs/align
  sightline train align --dataset d.json --features f.features -o runs/a --recipe recipes/flickr8k-align.toml \\
      --set optimizer.learning_rate=3e-4 --set epochs=20
  sightline train align --dataset d.json --features f.features -o runs/a --resume
  sightline train align --dataset d.json --features f.features -o runs/b --seeds 3
  sightline train align --dataset d.json --features f.features -o runs/c --parses d.conllu \\
      --set model.sentence_encoder=dependency_edges
  sightline train align --dataset d.json --features small.features -o runs/d --teacher runs/a \\
      --more-features f.features --set teaching.share=0.5")]
pub struct AlignArgs {
    #[command(flatten)]
    common: Common,
    /// One run a seed, in RUN/seed-1, RUN/seed-2 and so on: how many, or which (1,2,5). Prints mean and spread of the
    /// validation table; `eval ablation RUN` prints it again. With --resume, seeds that are not there yet are added
    #[arg(long, value_name = "SEEDS")]
    seeds: Option<Seeds>,
    #[command(flatten)]
    parses: ParsesFile,
    #[command(flatten)]
    teachers: TeacherArgs,
}

/// Trained models to learn from.
#[derive(Debug, Args)]
struct TeacherArgs {
    /// Learn from what this alignment model says of which sentence suits which photo, besides the truth; several are
    /// heard together. How much they count: --set teaching.share=0.5
    #[arg(long, value_name = "RUN")]
    teacher: Vec<PathBuf>,
    /// A store for teachers that do not read the vectors of --features
    #[arg(long, value_name = "FEATURES", requires = "teacher")]
    more_features: Vec<PathBuf>,
}

/// Teachers, ready for use, and their stores.
struct OpenTeachers<'a> {
    runs: &'a [PathBuf],
    aligners: Vec<Aligner>,
    more: Vec<FeatureStore>,
}

impl TeacherArgs {
    fn open(&self, device: &Device) -> anyhow::Result<OpenTeachers<'_>> {
        let open = |run: &PathBuf| anyhow::Ok(Aligner::new(models::checkpoint(run, &[Kind::Alignment])?, device)?);
        let aligners = self.teacher.iter().map(open).collect::<Result<_, _>>()?;
        let more = self.more_features.iter().map(FeatureStore::open).collect::<Result<_, _>>()?;
        Ok(OpenTeachers { runs: &self.teacher, aligners, more })
    }
}

impl OpenTeachers<'_> {
    /// Each with the store whose vectors it reads.
    fn with_stores<'a>(&'a self, first: &'a FeatureStore) -> anyhow::Result<Vec<Teacher<'a>>> {
        let readers: Vec<_> = (self.runs.iter().map(PathBuf::as_path))
            .zip(self.aligners.iter().map(|aligner| aligner as &dyn Reads))
            .collect();
        let stores = models::stores_of(&readers, first, &self.more)?;
        Ok(self.aligners.iter().zip(stores).map(|(aligner, store)| Teacher { aligner, store }).collect())
    }
}

/// Learn to describe whole photos, or regions where phrases are given
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sightline train caption --dataset flickr8k.json --features flickr8k.features -o runs/caption
  sightline train caption --dataset flickr8k.json --features flickr8k.features -o runs/regions --phrases phrases.json
  sightline train caption --dataset flickr8k.json --features flickr8k.features -o runs/cider --start runs/caption \\
      --recipe recipes/flickr8k-caption-cider.toml")]
pub struct CaptionArgs {
    #[command(flatten)]
    common: Common,
    /// Train at region level, on the phrases that `sightline align` wrote
    #[arg(long)]
    phrases: Option<PathBuf>,
    /// Begin with the weights of this run of the same sizes, where regions are described one of whole photos if need be;
    /// all but training by likelihood needs one. With --resume it is read where nothing was kept yet
    #[arg(long, value_name = "RUN")]
    start: Option<PathBuf>,
}

/// Learn a small backbone from a larger one, on photos alone: it learns to give the teacher's vectors, and to propose the
/// feature store's boxes
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sightline train backbone --dataset flickr8k.json --features flickr8k.features -o runs/backbone \\
      --teacher vit_tiny_patch16_224.safetensors
  sightline features flickr8k.json -o small.features --backbone runs/backbone --regions compact=runs/backbone")]
pub struct BackboneArgs {
    #[command(flatten)]
    common: Common,
    /// The larger backbone: weights of a vision transformer or MobileNetV2 (.safetensors), or a network (.onnx) with
    /// 14 by 14 cells
    #[arg(long, value_name = "FILE")]
    teacher: String,
    /// Begin with the weights of this run of the same sizes; the part that looks for objects begins anew where it had fewer
    /// blocks. With --resume it is read where nothing was kept yet
    #[arg(long, value_name = "RUN")]
    start: Option<PathBuf>,
}

/// Tune a backbone end to end, together with the alignment model that was trained on its vectors
#[derive(Debug, Args)]
#[command(after_help = "The run holds the alignment model, and the backbone as backbone.ckpt. Example:
  sightline train align --dataset flickr8k.json --features flickr8k.features -o runs/align
  sightline train tune --dataset flickr8k.json --features flickr8k.features -o runs/tuned --start runs/align \\
      --backbone vit_tiny_patch16_224.safetensors
  sightline features flickr8k.json -o tuned.features --backbone runs/tuned/backbone.ckpt \\
      --regions nanodet=nanodet.onnx --context class
  sightline eval retrieval --model runs/tuned --dataset flickr8k.json --features tuned.features")]
pub struct TuneArgs {
    #[command(flatten)]
    common: Common,
    /// The alignment model to go on from
    #[arg(long, value_name = "RUN")]
    start: PathBuf,
    /// The backbone to go on from, which made the features: weights of a vision transformer (.safetensors), a run of
    /// `train backbone`, a pack, or `builtin`
    #[arg(long, value_name = "FILE")]
    backbone: String,
    #[command(flatten)]
    teachers: TeacherArgs,
}

/// Runs one of them.
pub fn run(command: &Command, ui: &Ui) -> anyhow::Result<()> {
    let common = match command {
        Command::Align(args) => &args.common,
        Command::Caption(args) => &args.common,
        Command::Backbone(args) => &args.common,
        Command::Tune(args) => &args.common,
    };
    let dataset = Dataset::load(&common.dataset)?;
    let store = FeatureStore::open(&common.features)?;
    let outcome = match command {
        Command::Align(args) => {
            let parses = args.parses.read(&dataset, &[Split::Train, Split::Val], ui)?;
            let device = common.device.open()?;
            let teachers = args.teachers.open(&device)?;
            let teachers = teachers.with_stores(&store)?;
            let data = AlignData { dataset: &dataset, store: &store, parses: parses.as_ref(), teachers: &teachers };
            if let Some(seeds) = Seeds::of(args.seeds.as_ref(), common) {
                return train_seeds::run(&seeds, common, data, ui);
            }
            let (folder, settings) = common.open::<AlignSettings>()?;
            train(ui, interrupt::flag(), |control| {
                align::train(data, &settings, &folder, common.resume, &device, control)
            })?
        }
        Command::Caption(args) => {
            let phrases = args.phrases.as_deref().map(Phrases::load).transpose()?;
            // Who describes photos has much to start from for their regions.
            let kinds: &[Kind] =
                if phrases.is_some() { &[Kind::RegionCaption, Kind::Caption] } else { &[Kind::Caption] };
            let mut start = args.start.as_deref().map(|run| RunFolder::model(run, kinds)).transpose()?;
            let (folder, settings) = common.open::<CaptionRunSettings>()?;
            train(ui, interrupt::flag(), |control| {
                let data = CaptionData { dataset: &dataset, store: &store, phrases: phrases.as_ref() };
                caption::train(data, start.take(), &settings, &folder, common.resume, control)
            })?
        }
        Command::Backbone(args) => {
            let teacher = sources::backbone(&args.teacher, &common.device.open()?)?;
            let mut start = args.start.as_deref().map(|run| models::checkpoint(run, &[Kind::Backbone])).transpose()?;
            let (folder, settings) = common.open::<BackboneRunSettings>()?;
            let data = BackboneData { dataset: &dataset, teacher: &*teacher, boxes: &store };
            let mut unread = Vec::new();
            let outcome = train(ui, interrupt::flag(), |control| {
                let (outcome, left_out) =
                    backbone::train(data, start.take(), &settings, &folder, common.resume, control)?;
                unread = left_out;
                Ok(outcome)
            })?;
            say_unread(&unread, ui);
            outcome
        }
        Command::Tune(args) => {
            let device = common.device.open()?;
            let alignment = models::checkpoint(&args.start, &[Kind::Alignment])?;
            let backbone = sources::tunable(&args.backbone, &device)?;
            let teachers = args.teachers.open(&device)?;
            let teachers = teachers.with_stores(&store)?;
            let mut data =
                Some(TuneData { dataset: &dataset, store: &store, alignment, backbone, teachers: &teachers });
            let (folder, settings) = common.open::<TuneRunSettings>()?;
            let mut unread = Vec::new();
            let outcome = train(ui, interrupt::flag(), |control| {
                let data = data.take().expect("one training");
                let (outcome, left_out) = tune::train(data, &settings, &folder, common.resume, control)?;
                unread = left_out;
                Ok(outcome)
            })?;
            say_unread(&unread, ui);
            outcome
        }
    };
    let progress = &outcome.progress;
    if outcome.stopped {
        return Err(stopped(&common.output, progress.step));
    }
    let record = json!({
        "run": common.output, "steps": progress.step, "epochs": progress.epoch,
        "best_epoch": progress.best_epoch, "best_score": progress.best,
    });
    ui.result(&record, || {
        format!(
            "{}: {} steps, {} passes; the best model is that of pass {}",
            common.output.display(),
            progress.step,
            progress.epoch,
            progress.best_epoch
        )
    })
}

/// Names the photos that were left out.
fn say_unread(unread: &[String], ui: &Ui) {
    if let Some(first) = unread.first() {
        ui.say(format_args!("{} could not be read and left out, {first} for one", count(unread.len(), "photo")));
    }
}
