//! Training and use of the caption models, image level and region level.

mod captioner;
mod endings;
mod items;
mod learner;
mod reward;
mod rivals;

use sightline_data::store::FeatureStore;
use sightline_data::{Dataset, Split};
use sightline_model::caption::GeneratorKind;
use sightline_model::random;

pub use captioner::{Caption, Captioner, Decoding, USUAL_CONTRAST, a_token};

use crate::checkpoint::{Checkpoint, Header, Kind, Progress};
use crate::corpus::{Corpus, check_features, digest, training_vocabulary};
use crate::phrases::Phrases;
use crate::run::RunFolder;
use crate::settings::{Baseline, CaptionObjective, CaptionRunSettings, KeepBestBy, at_least_one, shares};
use crate::trainer::{self, Plan, WEIGHTS_STREAM, weights_of};
use crate::{Control, Error, Outcome, Result};
use items::{Sight, log_frequencies, phrase_items, sentence_items};
use learner::{CaptionLearner, Checks, Lessons};

/// What a caption model learns from.
#[derive(Debug, Clone, Copy)]
pub struct CaptionData<'a> {
    /// Photos and their sentences.
    pub dataset: &'a Dataset,
    /// Their vectors.
    pub store: &'a FeatureStore,
    /// With them, regions are described; without, whole photos.
    pub phrases: Option<&'a Phrases>,
}

/// Trains a caption model on the training split, keeping the best on the validation split.
///
/// `start` gives the first weights instead of chance; all but training by likelihood needs them. With `resume`, the run's
/// last checkpoint gives them.
pub fn train(
    data: CaptionData<'_>,
    start: Option<Checkpoint>,
    settings: &CaptionRunSettings,
    run: &RunFolder,
    resume: bool,
    control: &mut Control<'_>,
) -> Result<Outcome> {
    let start = run.begin_with(start)?;
    check(settings, start.is_some() || (resume && run.last().exists()))?;
    let CaptionData { dataset, store, phrases } = data;
    let vocabulary = training_vocabulary(dataset, settings.min_count)?;
    let (kind, items, validation) = match phrases {
        None => (
            Kind::Caption,
            sentence_items(&Corpus::new(dataset, Split::Train, store, &vocabulary)?),
            sentence_items(&Corpus::new(dataset, Split::Val, store, &vocabulary)?),
        ),
        Some(phrases) => (
            Kind::RegionCaption,
            phrase_items(phrases, dataset, Split::Train, store, &vocabulary, settings)?,
            phrase_items(phrases, dataset, Split::Val, store, &vocabulary, settings)?,
        ),
    };
    let sight = Sight::of(kind, settings);
    let frequencies = log_frequencies(&items, vocabulary.len());
    let mut rng = random::stream(settings.seed, WEIGHTS_STREAM);
    let mut weights = settings.model.initial_weights(sight.features(store.dim()), &frequencies, &mut rng);
    let keys: Vec<&str> = store.keys().collect();
    let of_run = serde_json::to_value(settings).expect("settings are plain data");
    if let Some(start) = start {
        check_features(&start.header.features, store)?;
        if start.header.vocabulary != vocabulary {
            return Err(Error::Mismatch(
                "the model to start from knows other words than this training split has; use its dataset and min_count"
                    .into(),
            ));
        }
        weights = weights_of(start, "model", &of_run, &["dropout", "initial_scale"], &weights)?;
    }
    let header = Header {
        kind,
        settings: of_run,
        vocabulary: vocabulary.clone(),
        relations: Vec::new(),
        teachers: Vec::new(),
        phrases: phrases.map(Phrases::digest),
        photos: [&items, &validation].map(|items| digest(items.iter().map(|item| keys[item.position]))).to_vec(),
        features: store.settings().clone(),
        progress: Progress::default(),
    };
    let plan = Plan {
        seed: settings.seed,
        epochs: settings.epochs,
        dropout: settings.model.dropout,
        optimizer: &settings.optimizer,
        run,
        header,
        resume,
    };
    let training = Lessons::new(&items, store, kind, settings);
    let validation = Checks::new(&validation, store, kind, settings);
    let mut learner = CaptionLearner::new(weights, settings, &vocabulary, sight, store, training, validation);
    trainer::run(&mut learner, plan, control)
}

/// Settings that no training can follow.
fn check(settings: &CaptionRunSettings, has_start: bool) -> Result<()> {
    let model = &settings.model;
    let wrong = |message: String| Err(Error::Setting(message));
    let attends = model.generator == GeneratorKind::Attention;
    if attends && (model.heads == 0 || !model.hidden.is_multiple_of(model.heads)) {
        return wrong(format!("model.heads = {} does not divide model.hidden = {}", model.heads, model.hidden));
    }
    settings.optimizer.check()?;
    at_least_one(&[
        ("epochs", settings.epochs as usize),
        ("batch", settings.batch),
        ("model.hidden", model.hidden),
        ("model.word_dim", model.word_dim),
        ("model.feed_forward", model.feed_forward),
        ("self_critical.max_words", settings.self_critical.max_words), // validation decodes too
    ])?;
    shares(&[
        ("model.dropout", model.dropout),
        ("label_smoothing", settings.label_smoothing),
        ("average", settings.average),
    ])?;
    if settings.objective == CaptionObjective::SelfCritical {
        let least = if settings.self_critical.baseline == Baseline::OtherSamples { 2 } else { 1 };
        if settings.self_critical.samples < least {
            return wrong(format!(
                "self_critical.samples = {}: expected {least} or more",
                settings.self_critical.samples
            ));
        }
    }
    if settings.objective == CaptionObjective::MutualInformation {
        let own = &settings.mutual_information;
        if own.rivals == 0 || own.nearest < own.rivals {
            return wrong(format!(
                "mutual_information.rivals = {} of nearest = {}: expected 1 or more, and as many near ones at least",
                own.rivals, own.nearest
            ));
        }
        for (name, value, least) in
            [("sharpness", own.sharpness, f32::MIN_POSITIVE), ("likelihood", own.likelihood, 0.0)]
        {
            if !(least..f32::INFINITY).contains(&value) {
                return wrong(format!(
                    "mutual_information.{name} = {value}: expected a number above 0, or 0 for likelihood"
                ));
            }
        }
    } else if settings.keep_best_by == KeepBestBy::Choice {
        return wrong(
            "keep_best_by = choice goes with objective = mutual_information; keep by perplexity or cider".into(),
        );
    }
    if settings.objective != CaptionObjective::Likelihood && settings.label_smoothing > 0.0 {
        return wrong(format!(
            "label_smoothing = {} goes with objective = likelihood; set it to 0",
            settings.label_smoothing
        ));
    }
    let name = match settings.objective {
        CaptionObjective::Likelihood => return Ok(()),
        CaptionObjective::SelfCritical => "self_critical",
        CaptionObjective::MutualInformation => "mutual_information",
    };
    if !has_start {
        return wrong(format!(
            "objective = {name} needs a model to start from; train one by likelihood and give it with --start"
        ));
    }
    Ok(())
}
