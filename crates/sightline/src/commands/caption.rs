//! `caption`: sentences for photos, and with `--regions` for their regions.

mod output;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use clap::Args as ClapArgs;
use sightline_data::StoreSettings;
use sightline_model::Device;
use sightline_model::caption::{BeamSettings, SampleSettings};
use sightline_train::aligner::Aligner;
use sightline_train::caption::{Caption, Captioner, Decoding};
use sightline_train::checkpoint::Kind;
use sightline_train::committee::{self, Judge, USUAL_FIT_WEIGHT};
use sightline_vision::Photo;

use super::features::{Found, find_photos};
use crate::describe::{Beams, Choose, Describer, Seen};
use crate::interrupt;
use crate::models;
use crate::panels::MostRegions;
use crate::sources::{DeviceKind, Extraction};
use crate::ui::{Ui, Usage, count, is_closed_pipe, one_line, visible};
use output::Outputs;

/// Describe photos in new sentences
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  sightline caption photo.jpg                                       # with the program's own models
  sightline caption holiday --regions --html regions.html
  sightline caption photo.jpg --model runs/caption
  sightline caption photo.jpg --model runs/cider --model runs/caption --fit-model runs/align
  sightline caption holiday --model runs/caption --n-best 3 --json
  sightline caption holiday --model runs/caption --texts captions --csv captions.csv
  sightline caption photo.jpg --model runs/caption --sample 5 --temperature 0.8 --top-p 0.9
  sightline caption holiday --model runs/caption --regions --region-model runs/regions --html regions.html

Photos that a folder of texts or a CSV file already has are skipped, so a run that was stopped goes on.")]
pub struct Args {
    /// Photos, or folders of photos
    #[arg(required = true)]
    photos: Vec<PathBuf>,
    /// A run of `train caption`, or a pack; several are a committee: each proposes sentences, and how likely one is, is
    /// their mean
    #[arg(long, value_name = "RUN", default_value = models::BUILTIN)]
    model: Vec<PathBuf>,
    /// Describe the photo's regions too
    #[arg(long)]
    regions: bool,
    /// A run of `train caption --phrases`; unless given, the one of --model where that is a pack
    #[arg(long, value_name = "RUN", requires = "regions")]
    region_model: Option<PathBuf>,
    /// Most regions described a photo, the surest first: by log probability a word and the order of the proposed regions
    #[arg(long, default_value_t = MostRegions::default().captions, requires = "regions")]
    most_regions: usize,
    /// Leave out a region whose box overlaps a surer one's by more than this IoU, 0 to 1
    #[arg(long, default_value_t = MostRegions::default().box_iou, requires = "regions")]
    region_iou: f32,
    #[command(flatten)]
    beam: BeamArgs,
    #[command(flatten)]
    fit: FitArgs,
    /// Sentences a photo
    #[arg(long, default_value_t = 1)]
    n_best: usize,
    /// Draw this many sentences a photo at random instead of searching for the likeliest
    #[arg(
        long,
        value_name = "N",
        conflicts_with_all = ["beam", "n_best", "length_penalty", "repeats", "groups", "diversity", "fit_model", "fit"]
    )]
    sample: Option<usize>,
    /// Below 1, likely words are drawn more often
    #[arg(long, default_value_t = 1.0, requires = "sample")]
    temperature: f32,
    /// Only the likeliest words that together have this probability are drawn
    #[arg(long, default_value_t = 1.0, requires = "sample")]
    top_p: f32,
    /// The seed of the draws
    #[arg(long, default_value_t = 1, requires = "sample")]
    seed: u64,
    /// Write each photo's sentences into a .txt file of its name in this folder; those of regions are not among them
    #[arg(long, value_name = "FOLDER")]
    texts: Option<PathBuf>,
    /// Add a line a sentence to this file: image, rank, caption, log_probability; with --regions those of regions too, and
    /// in all lines x1, y1, x2, y2, empty for the whole photo
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draw photos, captions and region captions (the paper's figure 7) into this page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Where the backbone's file lies now, if it has moved since `features`
    #[arg(long, value_name = "FILE")]
    backbone: Option<String>,
    /// Where the regions come from (as `features --regions`), if the file has moved
    #[arg(long, value_name = "REGIONS")]
    proposals: Option<String>,
    /// Where the backbone computes; caption models always use the processor
    #[arg(long, default_value = "cpu")]
    device: DeviceKind,
}

/// How captions are searched for.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub struct BeamArgs {
    /// Hypotheses kept at every word; 1 is greedy [default: 3, 6 where an alignment model chooses among them, and the
    /// paper's 7 in evaluations]
    #[arg(long)]
    beam: Option<usize>,
    /// Most words a sentence
    #[arg(long, default_value_t = 20)]
    max_words: usize,
    /// Sentences compete by log probability over their length to this power; 0 favours short ones as the paper does
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    length_penalty: f32,
    /// Three words in a row may stand in a sentence twice
    #[arg(long)]
    repeats: bool,
    /// Cut the beam into groups that avoid each other's words
    #[arg(long, default_value_t = 1)]
    groups: usize,
    /// What a word costs later groups
    #[arg(long, default_value_t = 0.5, requires = "groups")]
    diversity: f32,
}

/// How the best of the beam's sentences is chosen.
#[derive(Debug, Clone, ClapArgs)]
pub struct FitArgs {
    /// An alignment model that has a say in which sentence of the beam is best; unless given, the one of --model where
    /// that is a pack
    #[arg(long, value_name = "RUN")]
    fit_model: Option<PathBuf>,
    /// Its say: this times its score is added to the log probability a word; 0 leaves the choice to the likelihood
    /// [default: 3]
    #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
    fit: Option<f32>,
}

/// An error for what is no weight of a score.
pub fn check_fit(weight: f32) -> anyhow::Result<()> {
    match weight >= 0.0 && weight.is_finite() {
        true => Ok(()),
        false => Err(Usage(format!("--fit {weight}: expected a number of 0 or more")).into()),
    }
}

/// An error for a weight of nobody's.
pub fn check_chosen(weight: Option<f32>) -> anyhow::Result<()> {
    match weight.filter(|weight| *weight > 0.0) {
        None => Ok(()),
        Some(weight) => {
            let reason = "no alignment model chooses here; name one with --fit-model";
            Err(Usage(format!("--fit {weight}: {reason}")).into())
        }
    }
}

impl FitArgs {
    /// What its say weighs.
    pub fn weight(&self) -> f32 {
        const { assert!(USUAL_FIT_WEIGHT == 3.0, "the help of --fit says so") };
        self.fit.unwrap_or(USUAL_FIT_WEIGHT)
    }

    /// Whether an alignment model chooses beside the caption model `model`.
    pub fn is_wanted(&self, model: &Path) -> bool {
        self.weight() > 0.0 && (self.fit_model.is_some() || models::is_pack(model))
    }

    /// The model that chooses beside the caption model `model`, which reads `features`; none where nobody asks for one.
    pub fn open(&self, model: &Path, features: &StoreSettings) -> anyhow::Result<Option<Aligner>> {
        check_fit(self.weight())?;
        if !self.is_wanted(model) {
            check_chosen(self.fit)?;
            return Ok(None);
        }
        let run = self.fit_model.as_deref().unwrap_or(model);
        let aligner = Aligner::new(models::checkpoint(run, &[Kind::Alignment])?, &Device::flex())?;
        aligner.check_reads_words()?;
        let differences = aligner.features.differences(features);
        anyhow::ensure!(
            differences.is_empty(),
            "{} reads other vectors than {}: {}; choose with a model of the same feature store, or not (--fit 0)",
            run.display(),
            model.display(),
            differences.join("; ")
        );
        Ok(Some(aligner))
    }
}

/// Beam where photos are described for people: models that are sure of their words say more with a narrow one
/// (docs/log.md).
pub const USUAL_BEAM: usize = 3;
/// The same where an alignment model chooses among the beam's sentences: enough to choose from.
pub const CHOOSING_BEAM: usize = 6;
/// Beam of evaluations: the paper's.
pub const PAPER_BEAM: usize = 7;

impl BeamArgs {
    /// The settings of the search in regions.
    pub fn of_regions(self) -> anyhow::Result<BeamSettings> {
        self.widened(USUAL_BEAM)
    }

    /// The settings of a search for people: where nobody asks for a beam, the `usual` one, widened to whole groups.
    fn widened(self, usual: usize) -> anyhow::Result<BeamSettings> {
        self.settings(usual.next_multiple_of(self.groups.max(1)))
    }

    /// The settings of the search, one sentence a picture; `usual` is the beam where nobody asks for one.
    pub fn settings(self, usual: usize) -> anyhow::Result<BeamSettings> {
        let beam = self.beam.unwrap_or(usual);
        for (name, value) in [("--beam", beam), ("--max-words", self.max_words), ("--groups", self.groups)] {
            if value == 0 {
                return Err(Usage(format!("{name} 0: expected 1 or more")).into());
            }
        }
        if !beam.is_multiple_of(self.groups) {
            let reason = format!("--groups {}: expected a divisor of the beam's width, {beam}", self.groups);
            return Err(Usage(reason).into());
        }
        for (name, value) in [("--length-penalty", self.length_penalty), ("--diversity", self.diversity)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Usage(format!("{name} {value}: expected a number of 0 or more")).into());
            }
        }
        Ok(BeamSettings {
            beam,
            max_words: self.max_words,
            n_best: 1,
            length_penalty: self.length_penalty,
            repeats_trigrams: self.repeats,
            groups: self.groups,
            diversity: self.diversity,
        })
    }
}

impl Args {
    /// How whole photos are described.
    fn decoding(&self, beam: BeamSettings) -> anyhow::Result<Decoding> {
        let Some(samples) = self.sample else {
            if self.n_best == 0 || self.n_best > beam.beam {
                let reason = format!("--n-best {}: expected 1 to the beam's width, {}", self.n_best, beam.beam);
                return Err(Usage(reason).into());
            }
            return Ok(Decoding::Beam(BeamSettings { n_best: self.n_best, ..beam }));
        };
        if samples == 0 {
            return Err(Usage("--sample 0: expected 1 or more".into()).into());
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return Err(Usage(format!("--temperature {}: expected a number above 0", self.temperature)).into());
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Usage(format!("--top-p {}: expected a probability above 0, at most 1", self.top_p)).into());
        }
        let (temperature, top_p) = (self.temperature, self.top_p);
        Ok(Decoding::Sample(SampleSettings { samples, max_words: beam.max_words, temperature, top_p }, self.seed))
    }
}

/// Photos whose vectors wait for the captioner together.
const BATCH: usize = 16;

/// Describes every photo; one that cannot be read is named and counted, and the others go on.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let (model, others) = args.model.split_first().expect("clap gives one at least");
    let chooses = args.fit.is_wanted(model) || !others.is_empty();
    let usual = if chooses { CHOOSING_BEAM } else { USUAL_BEAM };
    let photos_beam = args.beam.widened(usual.max(args.n_best))?;
    let beams = Beams { photos: photos_beam, regions: args.beam.of_regions()? };
    let decoding = args.decoding(photos_beam)?;
    if !(0.0..=1.0).contains(&args.region_iou) {
        return Err(Usage(format!("--region-iou {}: expected a number of 0 to 1", args.region_iou)).into());
    }
    let Found { mut photos, mut unreadable } = Found::default();
    for path in &args.photos {
        let found = expand(path)?;
        photos.extend(found.photos);
        unreadable.extend(found.unreadable);
    }
    output::check_apart(&photos, args.texts.as_deref(), args.csv.is_some())?;
    for (place, reason) in &unreadable {
        ui.say(format_args!("skipped {}: {}", visible(&place.display().to_string()), visible(reason)));
    }
    let device = args.device.open()?;
    let open = |run: &PathBuf| anyhow::Ok(Captioner::new(models::checkpoint(run, &[Kind::Caption])?)?);
    let photos_model = open(model)?;
    let others = others.iter().map(|run| Ok((run, open(run)?))).collect::<anyhow::Result<Vec<_>>>()?;
    let of_regions = args.region_model.as_ref().or(Some(model).filter(|model| models::is_pack(model)));
    let regions_model = match (args.regions, of_regions) {
        (false, _) => None,
        (true, Some(run)) => Some(Captioner::new(models::checkpoint(run, &[Kind::RegionCaption])?)?),
        (true, None) => {
            let reason =
                "--regions needs a model of regions; name a run of `train caption --phrases` with --region-model";
            return Err(Usage(reason.into()).into());
        }
    };
    let features = photos_model.features.clone();
    let chooser = match decoding {
        Decoding::Beam(_) => args.fit.open(model, &features)?,
        Decoding::Sample(..) if others.is_empty() => None,
        Decoding::Sample(..) => return Err(Usage("--sample draws from one model; name one --model".into()).into()),
    };
    for (run, other) in &others {
        let differences = other.features.differences(&features);
        anyhow::ensure!(
            differences.is_empty(),
            "{} reads other vectors than {}: {}; a committee needs models of the same feature store",
            run.display(),
            model.display(),
            differences.join("; ")
        );
        models::same_words(model, &photos_model, run, other)?;
    }
    let describer = Describer::new(photos_model, regions_model, beams)?;
    let extraction = Extraction::like(&features, args.backbone.as_deref(), args.proposals.as_deref(), &device, ui)?;
    let most = args.regions.then(|| MostRegions {
        captions: args.most_regions,
        box_iou: args.region_iou,
        ..MostRegions::default()
    });

    let choose = |own: &Seen, captions: &mut Vec<Caption>| {
        if !others.is_empty() {
            let all = Decoding::Beam(BeamSettings { n_best: photos_beam.beam, ..photos_beam });
            for (_, other) in &others {
                let picture = other.pictures(std::iter::once((own.vectors.as_slice(), 0)));
                committee::add_new(captions, other.captions(&picture, all).swap_remove(0));
            }
            let members: Vec<&Captioner> =
                std::iter::once(describer.of_photos()).chain(others.iter().map(|(_, other)| other)).collect();
            committee::read_by_all(members.into_iter().map(|member| (member, own.vectors.as_slice())), captions);
        }
        let judge = chooser.as_ref().map(|aligner| Judge::of_photo(aligner, &own.vectors_of(aligner)));
        committee::order(judge.as_slice(), args.fit.weight(), captions);
    };
    let choose: Option<&Choose<'_>> = chooses.then_some(&choose);

    let models = args.model.iter().chain(&args.fit.fit_model).chain(&args.region_model);
    let read: Vec<PathBuf> = models::files(models).collect();
    let (texts, csv, html) = (args.texts.as_deref(), args.csv.as_deref(), args.html.as_deref());
    let mut outputs = Outputs::open(&read, texts, csv, html, args.regions, ui)?;
    let (done, left): (Vec<_>, Vec<_>) = photos.iter().partition(|(key, path)| outputs.has(key, path));
    if !done.is_empty() {
        ui.say(format_args!("{} described already: {}", count(done.len(), "photo"), outputs.places()));
    }
    let with_regions = args.regions || chooser.is_some() || others.iter().any(|(_, other)| other.looks_at_regions());
    let (mut failed, mut first_failure) = (0, String::new());
    let mut fail = |error: &anyhow::Error| {
        let reason = one_line(error);
        ui.say(format_args!("skipped {}", visible(&reason)));
        if failed == 0 {
            first_failure = reason;
        }
        failed += 1;
    };
    for batch in left.chunks(BATCH) {
        if interrupt::flag().load(Ordering::Relaxed) {
            anyhow::bail!(match args.html {
                None => "stopped; the same command goes on where it has --texts or --csv",
                Some(_) => "stopped before the page was drawn; the same command describes all photos again",
            });
        }
        let mut names = Vec::new();
        let mut seen = Vec::new();
        for (key, path) in batch {
            let photo = Photo::open(path).map_err(anyhow::Error::from);
            match photo.and_then(|photo| describer.see(&path.to_string_lossy(), photo, &extraction, with_regions)) {
                Ok(own) => {
                    if args.regions && own.boxes.len() < 2 {
                        ui.say(format_args!("{}: no region was found in it", path.display()));
                    }
                    names.push((key, path.display().to_string()));
                    seen.push(own);
                }
                Err(error) => fail(&error),
            }
        }
        let images = names.iter().map(|(_, image)| image.clone());
        let described = describer.describe(images, &seen, decoding, most, choose);
        for (((key, _), own), described) in names.iter().zip(&seen).zip(described) {
            match outputs.add(key, &described, &own.photo) {
                // Of this photo's name alone; a full disk ends the run.
                Err(error) if is_name_refused(&error) => fail(&error),
                added => added?,
            }
            match ui.result(&described, || described.text()) {
                // Whoever listened has gone; the files are wanted all the same.
                Err(error) if is_closed_pipe(&error) && outputs.are_wanted() => {}
                said => said?,
            }
        }
    }
    outputs.finish(ui)?;
    let mut left_out = Vec::new();
    if failed > 0 {
        let photos = count(photos.len(), "photo");
        left_out.push(format!("{failed} of {photos} could not be described, the first: {first_failure}"));
    }
    if !unreadable.is_empty() {
        left_out.push(format!("{} could not be looked into", count(unreadable.len(), "place")));
    }
    anyhow::ensure!(left_out.is_empty(), "{}", left_out.join(", and "));
    Ok(())
}

/// Whether the system takes no file of that name, which is too long for it say.
fn is_name_refused(error: &anyhow::Error) -> bool {
    let mut kinds = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    kinds.any(|kind| matches!(kind, ErrorKind::InvalidFilename | ErrorKind::NotADirectory))
}

/// A photo as it is; a folder as the photos in it. Keys name the files that are written.
fn expand(path: &Path) -> anyhow::Result<Found> {
    if path.is_dir() {
        return find_photos(path);
    }
    let name = path.file_name().map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy());
    Ok(Found { photos: vec![(name.into_owned(), path.to_owned())], unreadable: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_widen_the_usual_beam_to_whole_groups() {
        let of_regions = |beam, groups| {
            let (max_words, length_penalty, repeats, diversity) = (20, 0.0, false, 0.5);
            BeamArgs { beam, max_words, length_penalty, repeats, groups, diversity }.of_regions()
        };
        for (beam, groups, expected) in [(None, 1, USUAL_BEAM), (None, 2, 4), (Some(6), 2, 6)] {
            assert_eq!(of_regions(beam, groups).unwrap().beam, expected);
        }
        assert!(of_regions(Some(5), 2).is_err() && of_regions(None, 0).is_err());
    }
}
