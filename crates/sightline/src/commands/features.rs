//! `features`: photos to a feature store; `features import`: vectors made elsewhere; `features join`: several stores as one.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use serde_json::json;
use sightline_data::import::features::{self as imports, FeatureImportOptions};
use sightline_data::import::is_photo_name;
use sightline_data::walk::walk;
use sightline_data::{Dataset, FeatureStore, StoreWriter, VectorMode, store};
use sightline_vision::Photo;
use sightline_vision::backbone::{Context, Pixels};
use sightline_vision::extract::{ExtractOptions, ExtractReport, extract};

use super::dataset::problems_text;
use crate::interrupt;
use crate::sources::{self, DeviceKind};
use crate::ui::{Ui, Usage, count, visible};

/// Turn photos into boxes and vectors: the feature store that models are trained on
///
/// Resumable: what an interrupted run has done is not done again. Photos whose files are newer than the store are read
/// again (`touch` the store to keep its vectors); photos of the store that the source has no more stay in it and are
/// counted. Photos that cannot be read are listed and skipped.
#[derive(Debug, ClapArgs)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  sightline features flickr8k.json -o flickr8k.features --backbone vit_tiny_patch16_224.safetensors \\
      --regions nanodet=nanodet_plus_m_416.onnx --context class
  sightline features my_photos -o mine.features --backbone builtin --regions builtin
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
    /// Whether the whole photo's vector follows each region's: better with large backbones, worse with `builtin`
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
    let Found { mut photos, unreadable } = find_photos(source)?;
    let inside = source.join("dataset.json");
    if inside.is_file() && !Dataset::is_ours(&inside) {
        ui.say(format_args!(
            "{} is no dataset of Sightline: all photos of the folder are taken; import it to take those it names",
            inside.display()
        ));
    }
    let namesakes = take_namesakes(&mut photos);
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

    let mut writer = StoreWriter::create_or_resume(output, &settings)?;
    let asked: HashSet<&str> = photos.iter().map(|(key, _)| key.as_str()).collect();
    let mut others: Vec<String> = writer.done().iter().filter(|key| !asked.contains(key.as_str())).cloned().collect();
    others.sort_unstable();
    let modified = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let times = photos.iter().filter_map(|(key, path)| Some((key.as_str(), modified(path)?)));
    let changed = writer.forget_changed(times);
    if changed > 0 {
        let photos = count(changed, "photo");
        ui.say(format_args!("{photos} changed after {} was written: read again", output.display()));
    }
    let bar = ui.bar(photos.len() as u64, "photos");
    let progress = |p: sightline_vision::extract::Progress| {
        bar.set_position((p.done + p.skipped + p.failed) as u64);
        if p.failed > 0 {
            bar.set_message(format!("({} unreadable)", p.failed));
        }
    };
    let mut report = extract(&photos, &*backbone, &*proposer, &options, &writer, &progress, interrupt::flag())?;
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
    let unreadable = unreadable.into_iter().map(|(place, reason)| (place.display().to_string(), reason));
    report.failed.extend(namesakes.into_iter().chain(unreadable));
    tell_failures(&report, ui);
    if let Some(first) = others.first() {
        ui.say(format_args!(
            "{} of {} that {} does not have, {first} for one, stay in it; write to another file to leave them out",
            count(others.len(), "photo"),
            output.display(),
            source.display()
        ));
    }
    let record = json!({
        "features": output, "photos": n_photos, "done": report.done, "skipped": report.skipped,
        "changed": changed, "others": others.len(),
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
        ui.say(format_args!("skipped {}: {}", visible(key), visible(reason)));
    }
    if report.failed.len() > SHOWN {
        ui.say(format_args!("and {} more; --json lists them all", report.failed.len() - SHOWN));
    }
}

/// Photos, and what could not be looked at on the way to them.
#[derive(Debug, Default)]
pub struct Found {
    /// Key and path of each.
    pub photos: Vec<(String, PathBuf)>,
    /// Folders and photos that the system would not let us see, and why.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// The photos of a dataset, or all below a folder. A folder's own `dataset.json` counts where Sightline wrote it.
pub fn find_photos(source: &Path) -> anyhow::Result<Found> {
    let inside = source.join("dataset.json");
    if !source.is_dir() || Dataset::is_ours(&inside) {
        let dataset = Dataset::load(source)?;
        let path = |key: &String| dataset.root.join(key);
        let photos = dataset.images.iter().map(|image| (image.path.clone(), path(&image.path))).collect();
        return Ok(Found { photos, unreadable: Vec::new() });
    }
    let below = walk(source, |path| is_photo_name(&path.to_string_lossy()))?;
    let key = |path: &Path| {
        let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
        parts.join("/")
    };
    let mut photos: Vec<_> = below.files.iter().map(|file| (key(&file.path), source.join(&file.path))).collect();
    photos.sort();
    let unreadable: Vec<_> =
        below.unreadable.into_iter().map(|place| (source.join(place.path), place.reason)).collect();
    if photos.is_empty() {
        // Of another layout, it says more than that there is no photo.
        if inside.is_file() {
            Dataset::load(source)?;
        }
        let hint = unreadable
            .first()
            .map_or_else(String::new, |(place, reason)| format!("; {} cannot be read: {reason}", place.display()));
        anyhow::bail!("{} holds no photo (JPEG, PNG, WebP, GIF, TIFF or BMP){hint}", source.display());
    }
    Ok(Found { photos, unreadable })
}

/// Takes out photos whose key another one has, with the reason: names that are not UTF-8 can look the same.
fn take_namesakes(photos: &mut Vec<(String, PathBuf)>) -> Vec<(String, String)> {
    let mut first: HashMap<String, PathBuf> = HashMap::new();
    let mut namesakes = Vec::new();
    photos.retain(|(key, path)| {
        let other = first.entry(key.clone()).or_insert_with(|| path.clone());
        if other != path {
            namesakes.push((key.clone(), format!("the name {path:?} looks the same as {other:?}: rename one")));
        }
        other == path
    });
    namesakes
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

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        folder
    }

    fn keys(found: &Found) -> Vec<&str> {
        found.photos.iter().map(|(key, _)| key.as_str()).collect()
    }

    #[test]
    fn a_foreign_dataset_leaves_a_folder_of_photos_one() {
        let foreign = r#"{"images": [{"filename": "a.jpg", "sentences": [{"raw": "A dog"}]}]}"#;
        for content in [foreign, "[1, 2]", "{\"half"] {
            let folder = folder(&[("dataset.json", content), ("b.jpg", "x"), ("deep/a.jpg", "x")]);
            assert_eq!(keys(&find_photos(folder.path()).unwrap()), ["b.jpg", "deep/a.jpg"]);
        }
        let without = folder(&[("dataset.json", foreign)]);
        let error = find_photos(without.path()).unwrap_err().to_string();
        assert!(error.contains("import it first"), "{error}");
        let torn = folder(&[("dataset.json", "{\"sightline\":{\"version\":1"), ("b.jpg", "x")]);
        let error = find_photos(torn.path()).unwrap_err().to_string();
        assert!(error.contains("broken dataset"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn what_cannot_be_seen_is_named_and_the_rest_is_found() {
        use std::os::unix::fs::{PermissionsExt, symlink};

        let folder = folder(&[("a.jpg", "x"), ("closed/b.jpg", "x"), ("note.txt", "x")]);
        symlink("nowhere", folder.path().join("gone.jpg")).unwrap();
        symlink("nowhere", folder.path().join("gone.txt")).unwrap();
        let closed = folder.path().join("closed");
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
        let found = find_photos(folder.path()).unwrap();
        // The system keeps nothing from its administrator.
        let sees_all = std::fs::read_dir(&closed).is_ok();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o755)).unwrap();
        let places: Vec<&Path> = found.unreadable.iter().map(|(place, _)| place.as_path()).collect();
        let gone = folder.path().join("gone.jpg");
        if sees_all {
            assert_eq!((keys(&found), places), (vec!["a.jpg", "closed/b.jpg"], vec![gone.as_path()]));
        } else {
            assert_eq!((keys(&found), places), (vec!["a.jpg"], vec![closed.as_path(), gone.as_path()]));
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_lies_inside_goes_by_its_own_name() {
        use std::os::unix::fs::symlink;

        let folder = folder(&[("photos/real/a.jpg", "x"), ("photos/real/deep/b.jpg", "x"), ("outside/c.jpg", "x")]);
        let source = folder.path().join("photos");
        for (target, link) in
            [("real", "another"), ("real", "z"), ("real/deep", "deep"), ("..", "around"), (".", "loop")]
        {
            symlink(target, source.join(link)).unwrap();
        }
        for link in ["y", "outside"] {
            symlink("../outside", source.join(link)).unwrap();
        }
        let found = find_photos(&source).unwrap();
        assert_eq!(keys(&found), ["outside/c.jpg", "real/a.jpg", "real/deep/b.jpg"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn names_that_look_the_same_are_told_apart() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;

        let folder = folder(&[("a.jpg", "x")]);
        for name in [&b"\xfe.jpg"[..], b"\xff.jpg"] {
            std::fs::write(folder.path().join(OsStr::from_bytes(name)), "x").unwrap();
        }
        let mut kept = find_photos(folder.path()).unwrap().photos;
        let namesakes = take_namesakes(&mut kept);
        assert_eq!(kept.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["a.jpg", "\u{fffd}.jpg"]);
        let [(key, reason)] = &namesakes[..] else { panic!("{namesakes:?}") };
        assert_eq!(key, "\u{fffd}.jpg");
        assert!(reason.contains("\\xFE.jpg") && reason.contains("\\xFF.jpg"), "{reason}");
    }
}
