//! The loop over batches that all models share: schedule, optimiser, validation, checkpoints, log, stopping.
//!
//! Every random number of step `n` comes from the seed and `n`, and the order of batches from the seed and the pass;
//! so a resumed run goes on exactly as if it had never stopped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::json;
use sightline_model::random::{self, Dropout};
use sightline_model::weights::Weights;

use crate::checkpoint::{Checkpoint, Findings, Header, Progress};
use crate::optimizer::{OptimizerSettings, same_sizes};
use crate::run::RunFolder;
use crate::unread::Missing;
use crate::{Error, Result};

/// What a trainer tells while it works.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// What is learnt from was prepared for some photos.
    Prepared {
        /// Photos done.
        photos: u64,
        /// All of them.
        total: u64,
    },
    /// A photo was left out.
    Unread {
        /// Its name in the dataset.
        photo: String,
        /// Why.
        reason: String,
    },
    /// A step was taken.
    Step {
        /// Steps taken in the whole run.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
        /// Loss of the batch, a pair or sentence.
        loss: f64,
    },
    /// A pass over the data is done and was validated.
    Epoch {
        /// Passes done.
        epoch: u64,
        /// Passes of the run.
        epochs: u64,
        /// Mean loss a pair or sentence over the pass.
        loss: f64,
        /// What validation says, in words.
        validation: String,
        /// Whether it is the best so far.
        best: bool,
    },
}

/// The caller's side of a long job: it listens, and it may ask for a stop.
pub struct Control<'a> {
    /// Called for every event.
    pub on_event: &'a mut dyn FnMut(&Event),
    /// Once true, the job saves what it has and returns.
    pub stop: &'a AtomicBool,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Where it stands.
    pub progress: Progress,
    /// Whether a stop was asked for before the end.
    pub stopped: bool,
}

/// What validation found.
pub(crate) struct Validation {
    /// Higher is better; the best is kept.
    pub(crate) score: f64,
    /// For people.
    pub(crate) text: String,
    /// For the log.
    pub(crate) record: serde_json::Value,
    /// [`Progress::findings`].
    pub(crate) findings: Findings,
}

/// What the loop below trains: it owns the model and what its optimiser remembers.
pub(crate) trait Learner {
    /// One step's data.
    type Batch;

    /// The batches of one pass, in order; the same for the same pass.
    fn batches(&self, epoch: u64) -> Vec<Self::Batch>;
    /// One step: the loss of the batch before it, and what to divide it by for a figure a pair or sentence. Where the
    /// loss is not finite, nothing needs to be learnt from it.
    fn step(&mut self, batch: &Self::Batch, dropout: &mut Dropout, rate: f64, step: u64) -> (f64, f64);
    /// Photos that could not be read since this was asked last.
    fn unread(&self) -> Vec<Missing> {
        Vec::new()
    }
    /// Quality on the validation split.
    fn validate(&self) -> Result<Validation>;
    /// Weights and what the optimiser remembers, to go on from.
    fn export(&self) -> (Weights, Weights);
    /// Goes on from what [`Learner::export`] gave, or says what does not fit.
    fn import(&mut self, model: Weights, optimizer: Weights) -> Result<(), String>;
    /// The weights that were validated, to use.
    fn export_for_use(&self) -> Weights {
        self.export().0
    }
    /// Writes what was validated, to use.
    fn save_for_use(&self, header: Header, run: &RunFolder) -> Result<()> {
        Checkpoint { header, model: self.export_for_use(), optimizer: Weights::new() }.save(&run.best())
    }
}

/// What stays the same over a run.
pub(crate) struct Plan<'a> {
    pub(crate) seed: u64,
    pub(crate) epochs: u64,
    pub(crate) dropout: f32,
    pub(crate) optimizer: &'a OptimizerSettings,
    pub(crate) run: &'a RunFolder,
    /// Header of the checkpoints; its progress is filled in.
    pub(crate) header: Header,
    /// Continue from `last.ckpt`.
    pub(crate) resume: bool,
}

/// Random streams of a run, by purpose; steps count up from the last.
pub(crate) const WEIGHTS_STREAM: u64 = 0;
pub(crate) const BATCHES_STREAM: u64 = 1 << 32;
const DROPOUT_STREAM: u64 = 1 << 33;

/// Records of steps are this far apart in the log.
const LOG_EVERY: u64 = 20;

/// The weights of a model to begin with, `what` it is.
///
/// # Errors
/// It is another network than the settings of the run say, all `but` some of them, or its weights are no `like` ones.
pub(crate) fn weights_of(
    start: Checkpoint,
    what: &str,
    settings: &serde_json::Value,
    but: &[&str],
    like: &Weights,
) -> Result<Weights> {
    if !same_network(settings, &start.header.settings, but) || !same_sizes(&start.model, like) {
        return Err(Error::Mismatch(format!(
            "the {what} to start from is another network than the settings say; give it the same [model] settings"
        )));
    }
    Ok(start.model)
}

/// Whether two models' settings describe one network, all `but` some of them; what tells of none may be any.
fn same_network(now: &serde_json::Value, then: &serde_json::Value, but: &[&str]) -> bool {
    let network = |settings: &serde_json::Value| {
        let mut model = settings["model"].clone();
        if let Some(model) = model.as_object_mut() {
            but.iter().for_each(|key| drop(model.remove(*key)));
        }
        model
    };
    let (now, then) = (network(now), network(then));
    then.is_null() || agree(&now, &then)
}

/// Whether settings are the same as far as both are there: older runs lack what was added since.
fn agree(now: &serde_json::Value, then: &serde_json::Value) -> bool {
    use serde_json::Value::Object;
    match (now, then) {
        (Object(now), Object(then)) => now.iter().all(|(key, now)| then.get(key).is_none_or(|then| agree(now, then))),
        _ => now == then,
    }
}

/// Names the photos that a training has to do without.
fn tell_unread(learner: &impl Learner, control: &mut Control<'_>) {
    for (photo, reason) in learner.unread() {
        (control.on_event)(&Event::Unread { photo, reason });
    }
}

/// The loop.
pub(crate) fn run<L: Learner>(learner: &mut L, plan: Plan<'_>, control: &mut Control<'_>) -> Result<Outcome> {
    let Plan { seed, epochs, dropout, optimizer: settings, run, mut header, resume, .. } = plan;
    if resume && run.last().exists() {
        let checkpoint = Checkpoint::load(&run.last())?;
        let damaged = |message: String| Error::Checkpoint { path: run.last(), message };
        let same_words = header.vocabulary == checkpoint.header.vocabulary;
        let mut differences = header.features.differences(&checkpoint.header.features);
        if header.relations != checkpoint.header.relations {
            differences.push("other relations in the dependency trees".into());
        }
        if header.teachers != checkpoint.header.teachers {
            differences.push("other teachers or boxes".into());
        }
        if header.kind != checkpoint.header.kind {
            let (expected, got) = (checkpoint.header.kind, header.kind);
            differences.push(format!("{} there, {} now", expected.name(), got.name()));
        } else if checkpoint.header.phrases.is_some() && header.phrases != checkpoint.header.phrases {
            differences.push("other phrases".into());
        }
        if !checkpoint.header.photos.is_empty() && header.photos != checkpoint.header.photos {
            differences.push("other photos have vectors".into());
        }
        // Of tuned models it is that of the model they began with.
        if !agree(&header.settings["model"], &checkpoint.header.settings["model"]) {
            differences.push("another model".into());
        }
        if !same_words || !differences.is_empty() {
            let what = if same_words { differences.join("; ") } else { "other words in the training split".into() };
            return Err(damaged(format!("this run was started with other data: {what}")));
        }
        learner.import(checkpoint.model, checkpoint.optimizer).map_err(damaged)?;
        header.progress = checkpoint.header.progress;
    }
    let mut progress = header.progress.clone();
    let mut log = run.log(progress.step)?;
    let save = |learner: &L, progress: &Progress, best: bool| {
        let header = Header { progress: progress.clone(), ..header.clone() };
        if best {
            learner.save_for_use(header.clone(), run)?;
        }
        let (model, optimizer) = learner.export();
        Checkpoint { header, model, optimizer }.save(&run.last())
    };

    let mut stopped = false;
    'passes: while progress.epoch < epochs {
        let batches = learner.batches(progress.epoch);
        let steps = (batches.len() as u64).saturating_mul(epochs);
        let started = Instant::now();
        for batch in batches.iter().skip(progress.batch as usize) {
            if control.stop.load(Ordering::Relaxed) {
                stopped = true;
                save(learner, &progress, false)?;
                break 'passes;
            }
            let rate = settings.rate(progress.step, steps);
            let mut dropout = Dropout::new(random::stream(seed, DROPOUT_STREAM + progress.step), dropout);
            let (loss, divisor) = learner.step(batch, &mut dropout, rate, progress.step);
            if !loss.is_finite() {
                return Err(Error::Diverged { step: progress.step, loss, learning_rate: rate });
            }
            progress.step += 1;
            progress.batch += 1;
            let loss = loss / divisor;
            progress.losses += loss;
            tell_unread(learner, control);
            (control.on_event)(&Event::Step { step: progress.step, steps, loss });
            if progress.step.is_multiple_of(LOG_EVERY) {
                let record = json!({"step": progress.step, "loss": loss, "learning_rate": rate});
                log.write(&record)?;
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let validation = learner.validate();
        tell_unread(learner, control);
        let validation = validation?;
        let loss = progress.losses / (progress.batch as f64).max(1.0);
        progress.epoch += 1;
        (progress.batch, progress.losses) = (0, 0.0);
        let best = progress.best.is_none_or(|best| best.is_nan() || validation.score > best);
        if best {
            progress.best = Some(validation.score);
            progress.best_epoch = progress.epoch;
            progress.findings = validation.findings;
        }
        // Before the checkpoint: a run that goes on from the one before cuts the record off and writes it again.
        log.write(&json!({
            "step": progress.step, "epoch": progress.epoch, "loss": loss, "seconds": seconds,
            "validation": validation.record, "best": best,
        }))?;
        save(learner, &progress, best)?;
        (control.on_event)(&Event::Epoch { epoch: progress.epoch, epochs, loss, validation: validation.text, best });
    }
    Ok(Outcome { progress, stopped })
}
