//! `index`: a folder of photos to an index that `search` and `serve` ask.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use clap::Args as ClapArgs;
use serde_json::json;
use sightline_data::{StoreSettings, checksum};
use sightline_metrics::meteor::cache_folder;
use sightline_model::alignment::Score;
use sightline_train::aligner::Aligner;
use sightline_train::checkpoint::Kind;

use crate::index::build::{self, Lock, Networks, Plan, Report};
use crate::index::catalogue::{Catalogue, Encoding, Settings};
use crate::index::take_sources_of_pack;
use crate::index::walk::{self, Found};
use crate::interrupt;
use crate::models;
use crate::sources::{self, DeviceKind, Extraction};
use crate::ui::{Ui, count, visible};

/// Make a folder of photos searchable, or bring its index up to date
///
/// Reads photos and never changes them. The same command again does only what is new: photos that were added,
/// changed, renamed, moved or deleted are noticed. Stopped or killed, it goes on where it was.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  sightline index ~/Pictures                                        # with the program's own models
  sightline index ~/Pictures                                        # later: only what is new
  sightline index ~/Pictures -o pictures.index --model runs/align")]
pub struct Args {
    /// The folder of photos
    folder: PathBuf,
    /// The index, a folder; unless given, one of this folder of photos and this model among the user's caches, where `search`
    /// and `serve` find it when they are given the same two
    #[arg(short, long, value_name = "INDEX")]
    output: Option<PathBuf>,
    /// A run of `train align`, or a pack; remembered by the index, the program's own where a new index is given none
    #[arg(long, value_name = "RUN")]
    model: Option<PathBuf>,
    /// How vectors are stored in a new index
    #[arg(long)]
    encoding: Option<Encoding>,
    /// Where the backbone's file lies now, if it has moved since `features`
    #[arg(long, value_name = "FILE")]
    backbone: Option<String>,
    /// Where the regions come from (as `features --regions`), if the file has moved
    #[arg(long, value_name = "REGIONS")]
    proposals: Option<String>,
    /// Where the numbers are computed
    #[arg(long, default_value = "cpu")]
    device: DeviceKind,
}

/// The networks that `search` and `serve` were told to use.
#[derive(Debug, ClapArgs)]
pub struct NetworkArgs {
    /// With a folder, a run of `train align`, or a pack, in place of the program's own; with --index, its model, if it has moved
    #[arg(long, value_name = "RUN")]
    pub model: Option<PathBuf>,
    /// Where the backbone's file lies now, if it has moved
    #[arg(long, value_name = "FILE")]
    pub backbone: Option<String>,
    /// Where the regions come from (as `features --regions`), if the file has moved
    #[arg(long, value_name = "REGIONS")]
    pub proposals: Option<String>,
    /// Where the numbers are computed
    #[arg(long, default_value = "cpu")]
    pub device: DeviceKind,
}

impl Args {
    /// The index of a folder where nobody names one.
    pub fn of_folder(folder: &Path, networks: &NetworkArgs) -> Self {
        let NetworkArgs { model, backbone, proposals, device } = networks;
        Self {
            folder: folder.to_owned(),
            output: None,
            model: model.clone(),
            encoding: None,
            backbone: backbone.clone(),
            proposals: proposals.clone(),
            device: *device,
        }
    }

    /// Where the index lies: unless it was named, below the user's caches, by the folder's name and place and by the model,
    /// so that a program with other models makes another.
    pub fn index(&self) -> anyhow::Result<PathBuf> {
        if let Some(output) = &self.output {
            return Ok(output.clone());
        }
        let folder = &self.folder;
        let place = folder.canonicalize().with_context(|| format!("cannot open {}", folder.display()))?;
        let name = place.file_name().map_or_else(|| "root".into(), |name| name.to_string_lossy().into_owned());
        let tag = checksum::of_bytes(place.as_os_str().as_encoded_bytes());
        Ok(cache_folder().join("indexes").join(format!("{name}-{tag}")).join(models::checksum_of(self.model())?))
    }

    /// The model of a new index.
    fn model(&self) -> &Path {
        self.model.as_deref().unwrap_or(Path::new(models::BUILTIN))
    }

    /// The model that an index must be of; none where it is the index that knows it.
    fn required_model(&self) -> Option<&Path> {
        // The index of a folder lies where it does because of its model.
        if self.output.is_none() { Some(self.model()) } else { self.model.as_deref() }
    }
}

/// Removes the indexes of the same folder that an earlier program made with its own models: nobody will ask them again.
fn remove_outdated(index: &Path) -> anyhow::Result<()> {
    let folder = index.parent().context("an index among the caches lies in a folder")?;
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let other = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        let is_outdated = || -> anyhow::Result<bool> {
            Ok(Catalogue::exists(&other) && Catalogue::open(&other)?.settings().model == Path::new(models::BUILTIN))
        };
        if other != index && is_outdated().unwrap_or(false) {
            std::fs::remove_dir_all(&other).with_context(|| format!("cannot remove {}", other.display()))?;
        }
    }
    Ok(())
}

/// What became of the index.
#[derive(Debug)]
pub struct Updated {
    /// Where it lies.
    pub index: PathBuf,
    photos: usize,
    report: Report,
    /// Files that were passed over, and why.
    passed_over: Vec<String>,
    seconds: f64,
}

impl Updated {
    /// Whether anything was done.
    pub fn is_news(&self) -> bool {
        let Report { added, changed, moved, deleted, .. } = &self.report;
        added + changed + moved + deleted > 0
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let Report { added, changed, moved, deleted, unchanged, failed, cancelled: _ } = &self.report;
        let failed = failed.len();
        format!(
            "{}: {}; {added} added, {changed} changed, {moved} moved, {deleted} deleted, {unchanged} as before, {failed} \
             unreadable; {:.1} s",
            self.index.display(),
            count(self.photos, "photo"),
            self.seconds
        )
    }
}

/// Brings the index up to date and says what was done.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let updated = update(args, ui)?;
    let Report { added, changed, moved, deleted, unchanged, failed, cancelled: _ } = &updated.report;
    let failed: Vec<_> = failed.iter().map(|(path, reason)| json!({ "image": path, "reason": reason })).collect();
    let record = json!({
        "index": updated.index, "photos": updated.photos, "added": added, "changed": changed, "moved": moved,
        "deleted": deleted, "unchanged": unchanged, "failed": failed, "passed_over": updated.passed_over,
        "seconds": updated.seconds,
    });
    ui.result(&record, || updated.text())
}

/// Compares, reads, writes.
pub fn update(args: &Args, ui: &Ui) -> anyhow::Result<Updated> {
    let start = Instant::now();
    let index = args.index()?;
    let (found, problems) = walk::photos(&args.folder)?;
    let root = args.folder.canonicalize().with_context(|| format!("cannot open {}", args.folder.display()))?;
    if !Catalogue::exists(&index) {
        anyhow::ensure!(!found.is_empty(), "{} holds no photo (JPEG, PNG, WebP, GIF, TIFF or BMP)", root.display());
    }
    let created = !index.exists();
    std::fs::create_dir_all(&index).with_context(|| format!("cannot make {}", index.display()))?;
    let lock = Lock::take(&index)?;
    let (mut catalogue, networks) = match open(args, &index, root, &found, ui) {
        Err(error) if created => {
            // Nothing was written yet but the lock; an empty folder would only confuse.
            drop(lock);
            let _ = std::fs::remove_file(index.join("lock"));
            let _ = std::fs::remove_dir(&index);
            return Err(error);
        }
        opened => opened?,
    };

    if found.is_empty() {
        // A disk that is not there leaves its folder behind, empty.
        let known = catalogue.photos()?.len();
        anyhow::ensure!(
            known == 0,
            "{} holds no photo, and {} knows {} of it; bring back its disk, or delete the index if they are gone",
            catalogue.settings().root.display(),
            index.display(),
            count(known, "photo"),
        );
    }
    let lost = build::lost_files(&catalogue, &index)?;
    let plan = Plan::new(found, &problems, &lost, &catalogue)?;
    for file in &lost {
        ui.say(visible(&file.reason));
    }
    if !lost.is_empty() {
        ui.say(format_args!("the vectors of {} are lost; they are computed again", count(plan.n_lost(), "photo")));
    }
    let n_unseen = plan.n_unseen();
    let n_files = plan.n_files();
    let networks = match networks {
        None if plan.n_todo() > 0 => {
            let settings = catalogue.settings();
            let networks = self::networks(args, &settings.model, &settings.features.sources, ui)?;
            settings.check_model(&networks.aligner)?;
            Some(networks)
        }
        opened => opened,
    };
    let bar = ui.bar(plan.n_todo() as u64, "photos");
    let skipped = n_files - plan.n_todo();
    let progress = |p: build::Progress| {
        bar.set_position(p.done as u64);
        bar.set_message(format!("({skipped} as before, {} unreadable)", p.failed));
    };
    let report = build::run(&mut catalogue, &index, plan, networks.as_ref(), &progress, interrupt::flag())?;
    bar.finish_and_clear();
    let passed_over: Vec<String> = problems.into_iter().map(|problem| problem.reason).collect();
    for problem in &passed_over {
        ui.say(format_args!("passed over {}", visible(problem)));
    }
    if n_unseen > 0 {
        ui.say(format_args!("{} there stay in the index as they were", count(n_unseen, "photo")));
    }
    tell_failures(&report, ui);
    anyhow::ensure!(!report.cancelled, "stopped; the same command goes on from here");
    let photos = catalogue.photos()?.len();
    if args.output.is_none() && args.model() == Path::new(models::BUILTIN) {
        remove_outdated(&index)?;
    }
    Ok(Updated { index, photos, report, passed_over, seconds: start.elapsed().as_secs_f64() })
}

/// The catalogue, new or as it is, and the networks where they had to be opened for that. What the command line says is
/// remembered when it was found to be right.
fn open(
    args: &Args,
    index: &Path,
    root: PathBuf,
    found: &[Found],
    ui: &Ui,
) -> anyhow::Result<(Catalogue, Option<Networks>)> {
    if !Catalogue::exists(index) {
        let model = models::absolute(args.model())?;
        let networks = networks(args, &model, &BTreeMap::new(), ui)?;
        let score = networks.aligner.settings.score;
        anyhow::ensure!(
            matches!(score, Score::MaxOverRegions | Score::MeanOfMax),
            "{} scores by {score:?}, which an index cannot search by; train with max_over_regions or mean_of_max",
            model.display()
        );
        let settings = Settings {
            root,
            model_checksum: networks.aligner.checksum.clone(),
            model,
            features: with_sources(&networks.aligner.features, args),
            dim: networks.aligner.dim(),
            encoding: args.encoding.unwrap_or_default(),
        };
        return Ok((Catalogue::create(index, &settings)?, Some(networks)));
    }
    let mut catalogue = Catalogue::open(index)?;
    let mut settings = catalogue.settings().clone();
    if let Some(encoding) = args.encoding.filter(|encoding| *encoding != settings.encoding) {
        anyhow::bail!(
            "{} stores its vectors as {:?}, not {encoding:?}; name another index",
            index.display(),
            settings.encoding
        );
    }
    if settings.root != root {
        ensure_same_photos(&catalogue, index, &root, found)?;
        settings.root = root;
    }
    if let Some(model) = args.required_model() {
        let model = models::absolute(model)?;
        let checkpoint = models::checkpoint(&model, &[Kind::Alignment])?;
        anyhow::ensure!(
            checkpoint.checksum() == settings.model_checksum,
            "{} was made with another model ({}); name another index",
            index.display(),
            settings.model.display()
        );
        take_sources_of_pack(&mut settings.features, &checkpoint.header.features, &model);
        settings.model = model;
    }
    settings.features = with_sources(&settings.features, args);
    let mut networks = None;
    if settings.features != catalogue.settings().features {
        let opened = self::networks(args, &settings.model, &settings.features.sources, ui)?;
        settings.check_model(&opened.aligner)?;
        networks = Some(opened);
    }
    if settings != *catalogue.settings() {
        catalogue.set_settings(settings)?;
    }
    Ok((catalogue, networks))
}

/// An error where a folder is another one than that which was indexed: one that moved holds most of its photos still, by
/// their names and lengths.
fn ensure_same_photos(catalogue: &Catalogue, index: &Path, root: &Path, found: &[Found]) -> anyhow::Result<()> {
    let rows = catalogue.photos()?;
    let here: HashMap<&[u8], u64> = found.iter().map(|found| (found.path.as_slice(), found.stamp.bytes)).collect();
    let same = rows.iter().filter(|row| here.get(row.path.as_slice()) == Some(&row.stamp.bytes)).count();
    anyhow::ensure!(
        2 * same >= rows.len(),
        "{} is the index of {}, and {same} of its {} are in {}; name another index with -o, or delete this one to make it anew",
        index.display(),
        catalogue.settings().root.display(),
        count(rows.len(), "photo"),
        root.display()
    );
    Ok(())
}

/// The same settings, with the files that were named on the command line as their sources.
fn with_sources(features: &StoreSettings, args: &Args) -> StoreSettings {
    let mut features = features.clone();
    for (name, given) in [("backbone", &args.backbone), ("regions", &args.proposals)] {
        if let Some(given) = given {
            features.sources.insert(name.to_owned(), sources::absolute(given));
        }
    }
    features
}

/// Opens the model, and what makes its features from the command line, the index's memory, or the model's.
fn networks(args: &Args, model: &Path, remembered: &BTreeMap<String, String>, ui: &Ui) -> anyhow::Result<Networks> {
    let device = args.device.open()?;
    let aligner = Aligner::new(models::checkpoint(model, &[Kind::Alignment])?, &device)?;
    aligner.check_reads_words()?;
    let mut features = aligner.features.clone();
    features.sources.extend(remembered.clone());
    let (backbone, proposals) = (args.backbone.as_deref(), args.proposals.as_deref());
    let extraction = Extraction::like(&features, backbone, proposals, &device, ui)?;
    Ok(Networks { aligner, extraction })
}

fn tell_failures(report: &Report, ui: &Ui) {
    const SHOWN: usize = 10;
    for (path, reason) in report.failed.iter().take(SHOWN) {
        ui.say(format_args!("skipped {}: {}", visible(path), visible(reason)));
    }
    if report.failed.len() > SHOWN {
        ui.say(format_args!("and {} more; --json lists them all", report.failed.len() - SHOWN));
    }
}
