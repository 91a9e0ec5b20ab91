//! What the tests of several trainings need.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sightline_train::run::RunFolder;
use sightline_train::{Control, Event};

/// Trains by `train` in a folder, or goes on there, and stops after step `stop_at`. Also the run, and the loss of each
/// step.
pub(crate) fn run_until<S: Serialize + DeserializeOwned, T>(
    folder: &Path,
    settings: &S,
    resume: bool,
    stop_at: u64,
    train: impl FnOnce(&RunFolder, &mut Control<'_>) -> T,
) -> (T, RunFolder, Vec<f64>) {
    let run =
        if resume { RunFolder::open::<S>(folder).unwrap().0 } else { RunFolder::create(folder, settings).unwrap() };
    let (stop, mut losses) = (AtomicBool::new(false), Vec::new());
    let mut on_event = |event: &Event| {
        if let Event::Step { step, loss, .. } = event {
            losses.push(*loss);
            stop.store(*step >= stop_at, Ordering::Relaxed);
        }
    };
    let result = train(&run, &mut Control { on_event: &mut on_event, stop: &stop });
    (result, run, losses)
}
