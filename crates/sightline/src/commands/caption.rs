//! `caption`: sentences for photos, and with `--regions` for their regions.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use serde::Serialize;
use sightline_data::BoxXyxy;
use sightline_model::caption::BeamSettings;
use sightline_train::caption::{Caption, Captioner};
use sightline_train::checkpoint::Kind;
use sightline_train::run::RunFolder;
use sightline_vision::Photo;

use crate::interrupt;
use crate::panels::region_captions;
use crate::sources::{DeviceKind, Extraction};
use crate::ui::{Ui, Usage, count};

/// Describe photos in new sentences
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  sightline caption photo.jpg --model runs/caption
  sightline caption holiday/*.jpg --model runs/caption --n-best 3 --json
  sightline caption photo.jpg --model runs/caption --regions --region-model runs/regions")]
pub struct Args {
    /// Photos, or folders of photos
    #[arg(required = true)]
    photos: Vec<PathBuf>,
    /// A run of `train caption`
    #[arg(long, value_name = "RUN")]
    model: PathBuf,
    /// Describe the photo's regions too
    #[arg(long, requires = "region_model")]
    regions: bool,
    /// A run of `train caption --phrases`
    #[arg(long, value_name = "RUN")]
    region_model: Option<PathBuf>,
    /// Most regions described a photo
    #[arg(long, default_value_t = 8)]
    most_regions: usize,
    #[command(flatten)]
    beam: BeamArgs,
    /// Sentences a photo
    #[arg(long, default_value_t = 1)]
    n_best: usize,
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

/// How captions are searched for.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub struct BeamArgs {
    /// Hypotheses kept at every word; 1 is greedy
    #[arg(long, default_value_t = 7)]
    beam: usize,
    /// Most words a sentence
    #[arg(long, default_value_t = 20)]
    max_words: usize,
}

impl BeamArgs {
    /// The settings of the search, one sentence a picture.
    pub fn settings(self) -> anyhow::Result<BeamSettings> {
        for (name, value) in [("--beam", self.beam), ("--max-words", self.max_words)] {
            if value == 0 {
                return Err(Usage(format!("{name} 0: expected 1 or more")).into());
            }
        }
        Ok(BeamSettings { beam: self.beam, max_words: self.max_words, n_best: 1 })
    }
}

/// The record of one photo.
#[derive(Debug, Serialize)]
pub struct Record {
    /// Its path.
    pub image: String,
    /// Sentences for the whole photo, likeliest first.
    pub captions: Vec<Caption>,
    /// Captions of its regions, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regions: Option<Vec<RegionRecord>>,
}

/// A region and its caption.
#[derive(Debug, Serialize)]
pub struct RegionRecord {
    /// Its box, in pixels of the upright picture.
    #[serde(rename = "box")]
    pub region_box: BoxXyxy,
    /// The caption.
    pub text: String,
    /// Natural logarithm of its probability.
    pub log_probability: f32,
}

/// Describes every photo; one that cannot be read is named and counted, and the others go on.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let beam = args.beam.settings()?;
    if args.n_best == 0 || args.n_best > beam.beam {
        let reason = format!("--n-best {}: expected 1 to the beam's width, {}", args.n_best, beam.beam);
        return Err(Usage(reason).into());
    }
    let beam = BeamSettings { n_best: args.n_best, ..beam };
    let photos = args.photos.iter().map(|path| expand(path)).collect::<anyhow::Result<Vec<_>>>()?.concat();
    let device = args.device.open()?;
    let captioner = Captioner::new(RunFolder::model(&args.model, &[Kind::Caption])?, &device)?;
    let region_captioner = match &args.region_model {
        Some(run) if args.regions => Some(Captioner::new(RunFolder::model(run, &[Kind::RegionCaption])?, &device)?),
        _ => None,
    };
    if let Some(regions) = &region_captioner {
        let differences = regions.features.differences(&captioner.features);
        anyhow::ensure!(differences.is_empty(), "the two models read different vectors: {}", differences.join("; "));
    }
    let extraction =
        Extraction::like(&captioner.features, args.backbone.as_deref(), args.proposals.as_deref(), &device, ui)?;

    let mut failed = 0;
    for path in &photos {
        if interrupt::flag().load(std::sync::atomic::Ordering::Relaxed) {
            anyhow::bail!("stopped");
        }
        match open_and_describe(path, &extraction, &captioner, region_captioner.as_ref(), beam, args.most_regions) {
            Ok(record) => ui.result(&record, || text(&record))?,
            Err(error) => {
                failed += 1;
                ui.say(format_args!("skipped {error:#}"));
            }
        }
    }
    anyhow::ensure!(failed == 0, "{} of {} could not be described", failed, count(photos.len(), "photo"));
    Ok(())
}

/// A photo as it is; a folder as the photos in it.
fn expand(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    Ok(super::features::photos_of(path)?.into_iter().map(|(_, path)| path).collect())
}

fn open_and_describe(
    path: &Path,
    extraction: &Extraction,
    captioner: &Captioner,
    region_captioner: Option<&Captioner>,
    beam: BeamSettings,
    most_regions: usize,
) -> anyhow::Result<Record> {
    let photo = Photo::open(path)?;
    describe(path.display().to_string(), photo, extraction, captioner, region_captioner, beam, most_regions)
}

/// Sentences for a photo, and with a `region_captioner` for at most `most_regions` of its regions. `image` names the
/// photo in the record, and to proposers that look boxes up by name.
pub fn describe(
    image: String,
    photo: Photo,
    extraction: &Extraction,
    captioner: &Captioner,
    region_captioner: Option<&Captioner>,
    beam: BeamSettings,
    most_regions: usize,
) -> anyhow::Result<Record> {
    let boxes = match region_captioner {
        Some(_) => extraction.boxes(&image, &photo)?,
        None => vec![photo.whole()],
    };
    let all_boxes = [boxes];
    let vectors = extraction.features(&[photo], &all_boxes)?.swap_remove(0);
    let (whole, rest) = vectors.split_at(captioner.features.dim);
    let regions = region_captioner.map(|captioner| {
        region_captions(captioner, rest, &all_boxes[0][1..], beam, most_regions)
            .into_iter()
            .map(|c| RegionRecord { region_box: c.region_box, text: c.text, log_probability: c.log_probability })
            .collect()
    });
    Ok(Record { image, captions: captioner.captions(whole, beam).swap_remove(0), regions })
}

fn text(record: &Record) -> String {
    let mut text = format!("{}\n", record.image);
    for caption in &record.captions {
        text.push_str(&format!("  {} ({:.2})\n", caption.text, caption.log_probability));
    }
    for region in record.regions.iter().flatten() {
        let [x1, y1, x2, y2] = <[f32; 4]>::from(region.region_box).map(|x| x.round() as i64);
        text.push_str(&format!("    [{x1}, {y1}, {x2}, {y2}] {} ({:.2})\n", region.text, region.log_probability));
    }
    text
}
