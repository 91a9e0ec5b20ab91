//! Training of the small backbone: it learns to see what a larger one sees (distillation, Hinton et al. 2015; of every
//! cell, as in feature distillation), and where a detector finds objects, on parts of photos. Nothing but photos is
//! needed; no sentence, no label, no person's box.

mod learner;
mod network;
mod objects;
mod views;

use sightline_data::store::FeatureStore;
use sightline_data::{Dataset, Split, Vocabulary};
use sightline_model::backbone::{CELL, INPUT, OBJECTS};
use sightline_model::random;
use sightline_model::workers::Workers;
use sightline_vision::backbone::Backbone;

use crate::checkpoint::{Checkpoint, Header, Kind, Progress};
use crate::corpus::digest;
use crate::run::RunFolder;
use crate::settings::{BackboneRunSettings, at_least_one, shares, weights};
use crate::trainer::{self, Plan, WEIGHTS_STREAM, weights_of};
use crate::{Control, Error, Outcome, Result};
use learner::BackboneLearner;
pub(crate) use network::{Global, assemble, network_of};
pub use network::{Named, Network, Opened, open};

/// What a backbone learns from.
#[derive(Clone, Copy)]
pub struct BackboneData<'a> {
    /// Photos; their sentences are not read.
    pub dataset: &'a Dataset,
    /// Whose vectors it learns to give.
    pub teacher: &'a dyn Backbone,
    /// Whose boxes it learns to propose: those of this store, of the same photos.
    pub boxes: &'a FeatureStore,
}

/// Trains a backbone on the photos of the training split, keeping the best on those of the validation split.
///
/// What the teacher sees in each view of a photo is computed first and kept beside the run (`views.features`); a stopped
/// run goes on from there. Photos that cannot be read are left out and returned, by name. `start` gives the first weights
/// instead of chance, but for those of the part that looks for objects where it had fewer blocks.
pub fn train(
    data: BackboneData<'_>,
    start: Option<Checkpoint>,
    settings: &BackboneRunSettings,
    run: &RunFolder,
    resume: bool,
    control: &mut Control<'_>,
) -> Result<(Outcome, Vec<String>)> {
    check(settings, data.teacher)?;
    let start = run.begin_with(start)?;
    let (views, mut unread) = views::prepare(data, settings, &run.path().join("views.features"), control)?;
    let Some(views) = views else {
        return Ok((Outcome { progress: Progress::default(), stopped: true }, unread));
    };
    let mut rng = random::stream(settings.seed, WEIGHTS_STREAM);
    let mut model = settings.model.initial_weights(&mut rng);
    let of_run = serde_json::to_value(settings).expect("settings are plain data");
    if let Some(mut start) = start {
        // How photos are read in use may change.
        let mut free = vec!["photo_side", "levels"];
        let last_block = settings.model.object_blocks.checked_sub(1).map(|block| format!("{OBJECTS}{block}.in.weight"));
        if last_block.is_some_and(|name| !start.model.contains_key(&name)) {
            start.model.retain(|name, _| !name.starts_with(OBJECTS));
            let new = model.iter().filter(|(name, _)| name.starts_with(OBJECTS));
            start.model.extend(new.map(|(name, weight)| (name.clone(), weight.clone())));
            free.extend(["objects", "object_blocks"]);
        }
        model = weights_of(start, "backbone", &of_run, &free, &model)?;
    }
    let header = Header {
        kind: Kind::Backbone,
        settings: of_run,
        vocabulary: Vocabulary::from_sentences(std::iter::empty::<&[String]>(), 1),
        relations: Vec::new(),
        teachers: vec![data.boxes.checksum()],
        phrases: None,
        photos: vec![digest(views.keys())],
        features: views.settings().clone(),
        progress: Progress::default(),
    };
    let mut learner = BackboneLearner::new(model, settings, data, &views)?;
    let plan = Plan {
        seed: settings.seed,
        epochs: settings.epochs,
        dropout: 0.0,
        optimizer: &settings.optimizer,
        run,
        header,
        resume,
    };
    let outcome = trainer::run(&mut learner, plan, control)?;
    unread.extend(learner.into_unread());
    unread.sort_unstable();
    unread.dedup();
    Ok((outcome, unread))
}

/// Settings that no training can follow.
fn check(settings: &BackboneRunSettings, teacher: &dyn Backbone) -> Result<()> {
    let wrong = |message: String| Err(Error::Setting(message));
    if let Some(problem) = settings.model.problem() {
        return wrong(format!("model: {problem}"));
    }
    if settings.model.dim != teacher.dim() {
        return wrong(format!(
            "model.dim = {0}, but the teacher {1} gives vectors of {2}; set model.dim={2}",
            settings.model.dim,
            teacher.name(),
            teacher.dim()
        ));
    }
    let BackboneRunSettings { batch, views, epochs, mosaics, colour, average, .. } = *settings;
    settings.optimizer.check()?;
    at_least_one(&[("batch", batch), ("views", views), ("epochs", epochs as usize)])?;
    shares(&[("mosaics", mosaics), ("colour", colour), ("average", average)])?;
    let of_loss = [("global_weight", settings.global_weight), ("objects_weight", settings.objects_weight)];
    weights(&of_loss.map(|(name, weight)| (name, f64::from(weight))))?;
    let (side, multiple) = (settings.small_side, settings.model.multiple());
    if !(multiple..=INPUT).contains(&side) || !side.is_multiple_of(multiple) {
        return wrong(format!("small_side = {side} must be a multiple of {multiple} up to {INPUT}; 160 for example"));
    }
    let (side_of_four, multiple_of_four) = (settings.mosaic_side, 2 * multiple);
    if side_of_four == 0 || !side_of_four.is_multiple_of(multiple_of_four) || side_of_four > 2 * INPUT {
        return wrong(format!(
            "mosaic_side = {side_of_four} must be a multiple of {multiple_of_four} up to {}; 256 for example",
            2 * INPUT
        ));
    }
    if settings.model.kernel >= side / CELL {
        let kernel = settings.model.kernel;
        return wrong(format!("small_side = {side} is too small for windows of {kernel} cells of {CELL} pixels"));
    }
    Ok(())
}

/// A worker for each processor, no more than there are jobs.
pub(crate) fn workers(jobs: usize) -> Result<Workers> {
    Workers::new(0, jobs).map_err(|e| Error::Setting(format!("cannot start the workers: {e}")))
}

/// Photos of a split.
fn photos_of(dataset: &Dataset, split: Split) -> impl Iterator<Item = &str> {
    dataset.split(split).map(|image| image.path.as_str())
}
