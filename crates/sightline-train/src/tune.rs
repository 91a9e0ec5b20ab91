//! Tuning end to end: a backbone and the alignment model that was trained on its vectors learn on together, from photos
//! and sentences alone. A photo passes the backbone once a step, its boxes pool its cells, and what the alignment model
//! wants of a region's vector goes back into the cells.

mod example;
mod learner;

use sightline_data::{BoxXyxy, Dataset, FeatureStore, Split, StoreSettings, VectorMode};
use sightline_model::Device;
use sightline_model::alignment::Objective;
use sightline_model::weights::Weights;
use sightline_vision::backbone::{Backbone, Context, Vit};

use crate::aligner::model_of;
use crate::backbone::{Named, Network, network_of};
use crate::checkpoint::{Checkpoint, Header, Kind, Progress};
use crate::corpus::{Corpus, check_features};
use crate::run::RunFolder;
use crate::settings::{TuneRunSettings, at_least_one, shares, weights};
use crate::teachers::{Teacher, Teachers};
use crate::trainer::{self, Plan};
use crate::view::shown;
use crate::{Control, Error, Outcome, Result};
use learner::TuneLearner;

/// The file of a run's folder that holds the tuned backbone; the alignment model is the run's own.
pub const BACKBONE_FILE: &str = "backbone.ckpt";

/// A backbone to go on from.
#[derive(Debug)]
pub struct Start {
    /// Its network.
    pub named: Named,
    /// Its weights.
    pub weights: Weights,
    /// What tells them from others.
    pub checksum: String,
}

impl Start {
    /// A small backbone, or one that was tuned before.
    pub fn of_checkpoint(checkpoint: Checkpoint) -> Result<Self> {
        let named = network_of(&checkpoint.header)?;
        let checksum = crate::backbone::open(checkpoint.clone(), &Device::flex())?.backbone().checksum().to_owned();
        Ok(Self { named, weights: checkpoint.model, checksum })
    }

    /// A vision transformer. Its tuned form is known by another name.
    pub fn of_vit(vit: &Vit) -> Result<Self> {
        let (_, weights) = vit.learnable()?;
        let grid = vit.config().grid();
        let mut config = vit.config().clone();
        config.trained_grid = grid;
        let named = Named { name: format!("{}-tuned", vit.name()), network: Network::Vit(config) };
        Ok(Self { named, weights, checksum: vit.checksum().to_owned() })
    }
}

/// What is tuned, and on what.
#[derive(Debug)]
pub struct TuneData<'a> {
    /// Photos and what is said of them.
    pub dataset: &'a Dataset,
    /// The backbone's vectors of the photos, of which the boxes are read.
    pub store: &'a FeatureStore,
    /// The alignment model to go on from, trained on these vectors.
    pub alignment: Checkpoint,
    /// The backbone that gave them.
    pub backbone: Start,
    /// Trained models that they learn from besides; [`TuneRunSettings::teaching`] says how.
    pub teachers: &'a [Teacher<'a>],
}

/// Tunes both on the training split, keeping the best by rsum on the validation split: the alignment model as the run's,
/// the backbone in [`BACKBONE_FILE`] beside it. Also the photos that could not be read, by name.
///
/// With `resume`, goes on from the run's last checkpoint, on as many threads bit for bit as if it had never stopped.
pub fn train(
    data: TuneData<'_>,
    settings: &TuneRunSettings,
    run: &RunFolder,
    resume: bool,
    control: &mut Control<'_>,
) -> Result<(Outcome, Vec<String>)> {
    let TuneData { dataset, store, alignment, backbone, teachers } = data;
    check(settings, store, &alignment.header, &backbone)?;
    let device = Device::flex().autodiff();
    let Checkpoint { header, model, .. } = alignment;
    let (model, align_settings) = model_of(&header, model, &device)?;
    let corpus = Corpus::new(dataset, Split::Train, store, &header.vocabulary)?;
    let validation = Corpus::new(dataset, Split::Val, store, &header.vocabulary)?;
    let align_settings = align_settings.model;
    let photos = vec![corpus.digest(), validation.digest()];
    if align_settings.objective == Objective::Instance && header.photos.first().is_some_and(|own| *own != photos[0]) {
        return Err(Error::Mismatch(
            "the alignment model has a class for every photo that it learned from (objective = instance), and other photos \
             have vectors now; train it again"
                .into(),
        ));
    }
    // What the alignment model heard before stays heard.
    let now = teachers.iter().map(|teacher| teacher.aligner.checksum.clone());
    let all_teachers = header.teachers.iter().cloned().chain(now).collect();
    let teachers = Teachers::new(teachers, &corpus, &settings.teaching, align_settings.objective)?;
    let header =
        Header { kind: Kind::Alignment, teachers: all_teachers, photos, progress: Progress::default(), ..header };
    let mut learner =
        TuneLearner::new((model, align_settings), backbone, teachers, settings, [corpus, validation], run)?;
    let plan = Plan {
        seed: settings.seed,
        epochs: settings.epochs,
        dropout: learner.dropout(),
        optimizer: &settings.optimizer,
        run,
        header,
        resume,
    };
    let outcome = trainer::run(&mut learner, plan, control)?;
    Ok((outcome, learner.into_unread()))
}

/// What stands in a region's vector beside the region.
fn context(settings: &StoreSettings) -> Context {
    match settings.extra.get("context").map(String::as_str) {
        Some("class") => Context::Class,
        _ => Context::None,
    }
}

/// What no tuning can follow.
fn check(settings: &TuneRunSettings, store: &FeatureStore, header: &Header, backbone: &Start) -> Result<()> {
    let wrong = |message: String| Err(Error::Setting(message));
    check_features(&header.features, store)?;
    if store.settings().vectors != VectorMode::Pool {
        return wrong(format!(
            "{} has a vector of its own for each crop; tuning needs those that are pooled from the photo's cells: make \
             them with `features --vectors pool`",
            store.path().display()
        ));
    }
    if store.settings().backbone_checksum != backbone.checksum {
        return Err(Error::Mismatch(format!(
            "the vectors of {} were made with another backbone ({}) than the one to tune; name that one",
            store.path().display(),
            store.settings().backbone
        )));
    }
    if !header.relations.is_empty() {
        return wrong("a model that reads dependency trees cannot be tuned with its backbone".into());
    }
    let TuneRunSettings { batch, epochs, captions_per_photo, colour, drop_path, average, .. } = *settings;
    settings.optimizer.check()?;
    at_least_one(&[("batch", batch), ("epochs", epochs as usize), ("captions_per_photo", captions_per_photo)])?;
    shares(&[("colour", colour), ("drop_path", drop_path), ("average", average)])?;
    weights(&[("objects_weight", f64::from(settings.objects_weight)), ("backbone_rate", settings.backbone_rate)])?;
    if batch < 2 * captions_per_photo {
        return wrong(format!(
            "batch = {batch} sentences are fewer than two photos with captions_per_photo = {captions_per_photo}; nothing \
             could be told apart"
        ));
    }
    if !(settings.least_area > 0.0 && settings.least_area <= 1.0) {
        return wrong(format!("least_area = {} must lie above 0 and at most at 1", settings.least_area));
    }
    Ok(())
}

/// The whole of a picture, and of the boxes those that a part of it shows for the most part, in pixels of the part.
fn boxes_in(part: &BoxXyxy, boxes: impl Iterator<Item = BoxXyxy>, flipped: bool) -> Vec<BoxXyxy> {
    let whole = BoxXyxy { x1: 0.0, y1: 0.0, x2: part.width(), y2: part.height() };
    std::iter::once(whole).chain(boxes.filter_map(|b| shown(&b, part, flipped))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_move_into_the_part() {
        let part = BoxXyxy { x1: 50.0, y1: 20.0, x2: 150.0, y2: 70.0 };
        let all = [[60.0, 30.0, 80.0, 60.0], [0.0, 0.0, 60.0, 60.0], [140.0, 20.0, 160.0, 30.0]];
        let all = || all.into_iter().map(|[x1, y1, x2, y2]| BoxXyxy { x1, y1, x2, y2 });
        let inside = boxes_in(&part, all(), false);
        assert_eq!(inside.len(), 3, "the second box lies outside for the most part");
        assert_eq!(inside[0], BoxXyxy { x1: 0.0, y1: 0.0, x2: 100.0, y2: 50.0 });
        assert_eq!(inside[1], BoxXyxy { x1: 10.0, y1: 10.0, x2: 30.0, y2: 40.0 });
        assert_eq!(inside[2], BoxXyxy { x1: 90.0, y1: 0.0, x2: 100.0, y2: 10.0 });
        let flipped = boxes_in(&part, all(), true);
        assert_eq!(flipped[1], BoxXyxy { x1: 70.0, y1: 10.0, x2: 90.0, y2: 40.0 });
    }
}
