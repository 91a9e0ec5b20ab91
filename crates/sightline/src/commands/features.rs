//! `features`: photos to a feature store; `features import`: vectors made elsewhere; `features join`: several stores as one.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use serde_json::json;
use sightline_data::import::features::{self as imports, FeatureImportOptions};
use sightline_data::import::is_photo_name;
use sightline_data::{Dataset, FeatureStore, StoreWriter, VectorMode, store};
use sightline_vision::Photo;
use sightline_vision::backbone::{Context, Pixels};
use sightline_vision::extract::{ExtractOptions, ExtractReport, extract};

use super::dataset::problems_text;
use crate::interrupt;
use crate::sources::{self, DeviceKind};
use crate::ui::{Ui, Usage, count};

/// Turn photos into boxes and vectors: the feature store that models are trained on
///
/// Resumable: what an interrupted run has done is not done again. Photos that cannot be read are listed and skipped.
#[derive(Debug, ClapArgs)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  sightline features flickr8k.json -o flickr8k.features --backbone vit_tiny_patch16_224.safetensors \\
      --regions nanodet=nanodet_plus_m_416.onnx
  sightline features my_photos -o mine.features --backbone builtin --regions builtin --context class
  sightline features my_photos -o mine.features --backbone dinov2_small.safetensors --vectors crop
  sightline features import vgg_feats.mat -o vgg.features --names tasks.txt
  sightline features join vit.features dino.features -o both.features"
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// A dataset of `dataset import`, or a folder of photos
    #[arg(required = true)]
    source: Option<PathBuf>,
    /// The feature store to write
    #[arg(short, long, value_name = "FEATURES", required = true)]
    output: Option<PathBuf>,
    /// `builtin`, weights of a vision transformer or MobileNetV2 (.safetensors), a network (.onnx), a name of
    /// `sightline pull`, a run of `train backbone`, a pack, or `pixels` for models with an own encoder
    #[arg(long, value_name = "FILE|NAME|RUN", required = true)]
    backbone: Option<String>,
    /// Where boxes come from: selective_search, builtin, compact=RUN|PACK, nanodet=FILE.onnx or boxes=FILE.json
    #[arg(long, default_value = "selective_search")]
    regions: String,
    /// How a box becomes a vector
    #[arg(long, default_value = "pool")]
    vectors: VectorsName,
    /// Whether the whole photo's vector follows each region's
    #[arg(long, default_value = "none")]
    context: ContextName,
    /// Most regions a photo, the whole photo among them
    #[arg(long, default_value_t = 20)]
    max_regions: usize,
    /// Photos that a worker encodes in one pass; the vectors do not depend on it
    #[arg(long, value_name = "N", default_value_t = ExtractOptions::default().batch as u64, value_parser = clap::value_parser!(u64).range(1..=1024))]
    batch: u64,
    /// Workers; 0 takes one for each core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Where the network runs
    #[arg(long, default_value = "cpu")]
    device: DeviceKind,
}

#[derive(Debug, Subcommand)]
enum Command {
    Import(ImportArgs),
    Join(JoinArgs),
}

/// Put the vectors of several stores side by side: what one backbone sees of each region beside what another does
///
/// The stores hold the same photos with the same boxes. Train with --set model.standardize=true, since backbones differ in
/// scale; evaluate on a store joined of the same ones in the same order.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  sightline features flickr8k.json -o vit.features --backbone vit.safetensors --regions nanodet=nanodet.onnx
  sightline features flickr8k.json -o dino.features --backbone dinov2.safetensors --regions nanodet=nanodet.onnx
  sightline features join vit.features dino.features -o both.features")]
struct JoinArgs {
    /// Two feature stores or more
    #[arg(required = true, num_args = 2..)]
    stores: Vec<PathBuf>,
    /// The feature store to write
    #[arg(short, long, value_name = "FEATURES")]
    output: PathBuf,
}

/// Read vectors made elsewhere: NeuralTalk's vgg_feats.mat, NumPy .npy or .npz of [photos, regions, dim]
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  sightline features import vgg_feats.mat -o vgg.features --names tasks.txt
  sightline features import train_ims.npy dev_ims.npy -o butd.features --dataset flickr30k.json")]
struct ImportArgs {
    /// One or several files of vectors
    #[arg(required = true)]
    sources: Vec<PathBuf>,
    /// The feature store to write
    #[arg(short, long, value_name = "FEATURES")]
    output: PathBuf,
    /// The dataset whose photos these are
    #[arg(long)]
    dataset: Option<PathBuf>,
    /// What made the vectors
    #[arg(long)]
    backbone: Option<String>,
    /// The variable of a .mat or .npz that holds the vectors
    #[arg(long)]
    variable: Option<String>,
    /// A list of photos, one a line, in the order of the rows
    #[arg(long)]
    names: Option<PathBuf>,
    /// A .npy of boxes, [photos, regions, 4]
    #[arg(long)]
    boxes: Option<PathBuf>,
    /// A .npy of photo sizes, [photos, 2]
    #[arg(long)]
    sizes: Option<PathBuf>,
    /// The rows are this split's photos
    #[arg(long)]
    split: Option<sightline_data::Split>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum VectorsName {
    /// One pass over the photo, averaged over each box
    Pool,
    /// Each box cut out and encoded on its own: the paper's way, and 20 times the work
    Crop,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ContextName {
    /// No
    None,
    /// Yes, as its class token
    Class,
}

/// Runs one of them.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    match &args.command {
        Some(Command::Import(args)) => return import(args, ui),
        Some(Command::Join(args)) => return join(args, ui),
        None => {}
    }
    let (Some(source), Some(output), Some(backbone_spec)) = (&args.source, &args.output, &args.backbone) else {
        return Err(Usage("features needs a source, -o and --backbone; see `sightline features --help`".into()).into());
    };
    let photos = photos_of(source)?;
    let device = args.device.open()?;
    let (backbone, proposer) = sources::networks(backbone_spec, &args.regions, &device, ui)?;
    let mode = match args.vectors {
        _ if backbone_spec == Pixels::NAME => VectorMode::Crop,
        VectorsName::Pool => VectorMode::Pool,
        VectorsName::Crop => VectorMode::Crop,
    };
    let context = match args.context {
        ContextName::None => Context::None,
        ContextName::Class => Context::Class,
    };
    let (max_regions, batch, threads) = (args.max_regions, args.batch as usize, args.threads);
    let options = ExtractOptions { max_regions, mode, context, batch, threads };
    let mut settings = options.store_settings(&*backbone, &*proposer);
    settings.sources.insert("backbone".into(), sources::absolute(backbone_spec));
    settings.sources.insert("regions".into(), sources::absolute(&args.regions));

    let writer = StoreWriter::create_or_resume(output, &settings)?;
    let bar = ui.bar(photos.len() as u64, "photos");
    let progress = |p: sightline_vision::extract::Progress| {
        bar.set_position((p.done + p.skipped + p.failed) as u64);
        if p.failed > 0 {
            bar.set_message(format!("({} unreadable)", p.failed));
        }
    };
    let report = extract(&photos, &*backbone, &*proposer, &options, &writer, &progress, interrupt::flag())?;
    bar.finish_and_clear();
    if report.cancelled {
        anyhow::bail!(
            "stopped after {} of {}; the same command goes on from here",
            report.done + report.skipped,
            count(photos.len(), "photo")
        );
    }
    if report.done + report.skipped == 0 {
        let (key, reason) = report.failed.first().context("there is no photo to read")?;
        anyhow::bail!("none of the {} could be read; the first, {key}: {reason}", count(photos.len(), "photo"));
    }
    let order: Vec<String> = photos.iter().map(|(key, _)| key.clone()).collect();
    let n_photos = writer.finish(&order)?;
    tell_failures(&report, ui);
    let record = json!({
        "features": output, "photos": n_photos, "done": report.done, "skipped": report.skipped,
        "failed": report.failed.iter().map(|(key, reason)| json!({"image": key, "reason": reason})).collect::<Vec<_>>(),
        "seconds": report.seconds, "settings": settings,
    });
    ui.result(&record, || {
        let rate = report.done as f64 / report.seconds.max(1e-9);
        format!(
            "{}: {} with {} numbers a region; {} now ({rate:.1} a second), {} before, {} unreadable",
            output.display(),
            count(n_photos, "photo"),
            settings.dim,
            report.done,
            report.skipped,
            report.failed.len()
        )
    })
}

fn tell_failures(report: &ExtractReport, ui: &Ui) {
    const SHOWN: usize = 10;
    for (key, reason) in report.failed.iter().take(SHOWN) {
        ui.say(format_args!("skipped {key}: {reason}"));
    }
    if report.failed.len() > SHOWN {
        ui.say(format_args!("and {} more; --json lists them all", report.failed.len() - SHOWN));
    }
}

/// Keys and paths of a dataset's photos, or of all photos below a folder.
pub fn photos_of(source: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    if !source.is_dir() || source.join("dataset.json").exists() {
        let dataset = Dataset::load(source)?;
        let path = |key: &String| dataset.root.join(key);
        return Ok(dataset.images.iter().map(|image| (image.path.clone(), path(&image.path))).collect());
    }
    let mut photos = Vec::new();
    let mut folders = vec![source.to_owned()];
    let mut seen = std::collections::HashSet::new();
    while let Some(folder) = folders.pop() {
        // A folder reached twice, by a symbolic link say, is read once.
        let real = folder.canonicalize().with_context(|| format!("cannot open {}", folder.display()))?;
        if !seen.insert(real) {
            continue;
        }
        let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if path.is_dir() && !hidden {
                folders.push(path);
            } else if path.is_file() && !hidden && is_photo_name(&path.to_string_lossy()) {
                let key = path.strip_prefix(source).unwrap_or(&path);
                let parts: Vec<_> = key.components().map(|part| part.as_os_str().to_string_lossy()).collect();
                photos.push((parts.join("/"), path));
            }
        }
    }
    photos.sort();
    anyhow::ensure!(!photos.is_empty(), "{} holds no photo (JPEG, PNG, WebP, GIF, TIFF or BMP)", source.display());
    Ok(photos)
}

fn import(args: &ImportArgs, ui: &Ui) -> anyhow::Result<()> {
    let dataset = args.dataset.as_deref().map(Dataset::load).transpose()?;
    let options = FeatureImportOptions {
        backbone: args.backbone.clone(),
        variable: args.variable.clone(),
        names: args.names.clone(),
        boxes: args.boxes.clone(),
        sizes: args.sizes.clone(),
        split: args.split,
        ..FeatureImportOptions::default()
    };
    let import = imports::open(&args.sources, &options, dataset.as_ref())?;
    let settings = import.settings().clone();
    let bar = ui.bar(import.len() as u64, "photos");
    // The picture lies in the dataset's folder, or beside the vectors.
    let beside = args.sources[0].parent().unwrap_or(Path::new("")).to_owned();
    let root = dataset.as_ref().map_or(beside, |dataset| dataset.root.clone());
    let size_of = |key: &str| Photo::open(root.join(key)).ok().map(|photo| (photo.width, photo.height));
    let imported = import.write(&args.output, &size_of, |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    let record = json!({
        "features": args.output, "photos": imported.photos, "explanation": imported.explanation,
        "problems": imported.problems, "settings": settings,
    });
    ui.result(&record, || {
        let mut text = imported.explanation.iter().map(|line| format!("  {line}\n")).collect::<String>();
        text.push_str(&problems_text(&imported.problems));
        let photos = count(imported.photos, "photo");
        text + &format!("{}: {photos} with {} numbers a region", args.output.display(), settings.dim)
    })
}

fn join(args: &JoinArgs, ui: &Ui) -> anyhow::Result<()> {
    let stores = args.stores.iter().map(FeatureStore::open).collect::<sightline_data::Result<Vec<_>>>()?;
    let bar = ui.bar(stores[0].len() as u64, "photos");
    let n_photos = store::join(&stores, &args.output, |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    let joined = FeatureStore::open(&args.output)?;
    let record = json!({"features": args.output, "photos": n_photos, "settings": joined.settings()});
    ui.result(&record, || {
        let photos = count(n_photos, "photo");
        format!("{}: {photos} with {} numbers a region", args.output.display(), joined.dim())
    })
}
