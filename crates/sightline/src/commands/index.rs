//! `index`: a folder of photos to an index that `search` and `serve` ask.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use clap::Args as ClapArgs;
use serde_json::json;
use sightline_data::{StoreSettings, checksum};
use sightline_model::alignment::Score;
use sightline_train::align::Aligner;
use sightline_train::checkpoint::Kind;
use sightline_train::run::RunFolder;

use crate::index::build::{self, Lock, Networks, Plan, Report};
use crate::index::catalogue::{Catalogue, Encoding, Settings};
use crate::index::walk;
use crate::interrupt;
use crate::sources::{self, DeviceKind, Extraction};
use crate::ui::{Ui, Usage, count};

/// Make a folder of photos searchable, or bring its index up to date
///
/// Reads photos and never changes them. The same command again does only what is new: photos that were added,
/// changed, renamed, moved or deleted are noticed. Stopped or killed, it goes on where it was.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  sightline index ~/Pictures -o pictures.index --model runs/align
  sightline index ~/Pictures -o pictures.index                      # later: only what is new")]
pub struct Args {
    /// The folder of photos
    folder: PathBuf,
    /// The index, a folder
    #[arg(short, long, value_name = "INDEX")]
    output: PathBuf,
    /// A run of `train align`; remembered by the index
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

/// Compares, reads, writes.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let start = Instant::now();
    let (found, problems) = walk::walk(&args.folder)?;
    let root = args.folder.canonicalize().with_context(|| format!("cannot open {}", args.folder.display()))?;
    if !Catalogue::exists(&args.output) {
        anyhow::ensure!(!found.is_empty(), "{} holds no photo (JPEG, PNG, WebP, GIF, TIFF or BMP)", root.display());
    }
    let created = !args.output.exists();
    std::fs::create_dir_all(&args.output).with_context(|| format!("cannot make {}", args.output.display()))?;
    let lock = Lock::take(&args.output)?;
    let opened = open(args, root, ui);
    if opened.is_err() && created {
        // Nothing was written yet but the lock; an empty folder would only confuse.
        drop(lock);
        let _ = std::fs::remove_file(args.output.join("lock"));
        let _ = std::fs::remove_dir(&args.output);
        return opened.map(|_| ());
    }
    let (mut catalogue, networks) = opened?;

    let plan = Plan::new(found, &catalogue)?;
    let n_files = plan.n_files();
    let networks = match networks {
        None if plan.n_todo() > 0 => {
            catalogue.settings().check_model()?;
            Some(self::networks(args, &catalogue.settings().model, &catalogue.settings().features.sources, ui)?)
        }
        opened => opened,
    };
    let bar = ui.bar(plan.n_todo() as u64, "photos");
    let skipped = n_files - plan.n_todo();
    let progress = |p: build::Progress| {
        bar.set_position(p.done as u64);
        bar.set_message(format!("({skipped} as before, {} unreadable)", p.failed));
    };
    let report = build::run(&mut catalogue, &args.output, plan, networks.as_ref(), &progress, interrupt::flag())?;
    bar.finish_and_clear();
    for problem in &problems {
        ui.say(format_args!("passed over {problem}"));
    }
    tell_failures(&report, ui);
    anyhow::ensure!(!report.cancelled, "stopped; the same command goes on from here");
    let photos = catalogue.photos()?.len();
    let seconds = start.elapsed().as_secs_f64();
    let Report { added, changed, moved, deleted, unchanged, failed, cancelled: _ } = &report;
    let failed_records: Vec<_> =
        failed.iter().map(|(path, reason)| json!({ "image": path, "reason": reason })).collect();
    let record = json!({
        "index": args.output, "photos": photos, "added": added, "changed": changed, "moved": moved,
        "deleted": deleted, "unchanged": unchanged, "failed": failed_records, "passed_over": problems,
        "seconds": seconds,
    });
    ui.result(&record, || {
        let failed = failed.len();
        format!(
            "{}: {}; {added} added, {changed} changed, {moved} moved, {deleted} deleted, {unchanged} as before, {failed} \
             unreadable; {seconds:.1} s",
            args.output.display(),
            count(photos, "photo"),
        )
    })
}

/// The catalogue, new or as it is, and the networks where they had to be opened for that.
fn open(args: &Args, root: PathBuf, ui: &Ui) -> anyhow::Result<(Catalogue, Option<Networks>)> {
    if !Catalogue::exists(&args.output) {
        let Some(run) = &args.model else {
            return Err(Usage("a new index needs an alignment model; name its run with --model".into()).into());
        };
        let model = std::path::absolute(model_file(run)).context("cannot tell where the model lies")?;
        let networks = networks(args, &model, &BTreeMap::new(), ui)?;
        let score = networks.aligner.settings.score;
        anyhow::ensure!(
            matches!(score, Score::MaxOverRegions | Score::MeanOfMax),
            "{} scores by {score:?}, which an index cannot search by; train with max_over_regions or mean_of_max",
            model.display()
        );
        let settings = Settings {
            root,
            model_checksum: checksum::of_file(&model)?,
            model,
            features: with_sources(&networks.aligner.features, args),
            dim: networks.aligner.dim(),
            encoding: args.encoding.unwrap_or_default(),
        };
        return Ok((Catalogue::create(&args.output, &settings)?, Some(networks)));
    }
    let mut catalogue = Catalogue::open(&args.output)?;
    let mut settings = catalogue.settings().clone();
    if let Some(encoding) = args.encoding.filter(|encoding| *encoding != settings.encoding) {
        anyhow::bail!(
            "{} stores its vectors as {:?}, not {encoding:?}; name another index",
            args.output.display(),
            settings.encoding
        );
    }
    if let Some(run) = &args.model {
        let model = std::path::absolute(model_file(run)).context("cannot tell where the model lies")?;
        anyhow::ensure!(
            checksum::of_file(&model)? == settings.model_checksum,
            "{} was made with another model ({}); name another index",
            args.output.display(),
            settings.model.display()
        );
        settings.model = model;
    }
    settings.root = root;
    settings.features = with_sources(&settings.features, args);
    if settings != *catalogue.settings() {
        catalogue.set_settings(settings)?;
    }
    Ok((catalogue, None))
}

/// The checkpoint of a run, or the checkpoint itself.
fn model_file(run: &Path) -> PathBuf {
    if run.is_dir() { run.join("best.ckpt") } else { run.to_owned() }
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
    let aligner = Aligner::new(RunFolder::model(model, &[Kind::Alignment])?, &device)?;
    aligner.check_reads_words()?;
    let mut features = with_sources(&aligner.features, args);
    features.sources.extend(remembered.clone());
    let (backbone, proposals) = (args.backbone.as_deref(), args.proposals.as_deref());
    let extraction = Extraction::like(&features, backbone, proposals, &device, ui)?;
    Ok(Networks { aligner, extraction })
}

fn tell_failures(report: &Report, ui: &Ui) {
    const SHOWN: usize = 10;
    for (path, reason) in report.failed.iter().take(SHOWN) {
        ui.say(format_args!("skipped {path}: {reason}"));
    }
    if report.failed.len() > SHOWN {
        ui.say(format_args!("and {} more; --json lists them all", report.failed.len() - SHOWN));
    }
}
