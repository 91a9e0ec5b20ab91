//! What trainings have in common.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use clap::Args;
use sightline_train::run::RunFolder;
use sightline_train::settings::resolve;
use sightline_train::{Control, Event, Outcome};

use crate::sources::DeviceKind;
use crate::ui::Ui;

/// What every training reads and writes.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// A dataset of `dataset import`
    #[arg(long)]
    pub(super) dataset: PathBuf,
    /// A feature store of `features`
    #[arg(long)]
    pub(super) features: PathBuf,
    /// The run's folder
    #[arg(short, long, value_name = "RUN")]
    pub(super) output: PathBuf,
    /// Settings in TOML
    #[arg(long)]
    pub(super) recipe: Option<PathBuf>,
    /// One setting, over the recipe's; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) assignments: Vec<String>,
    /// Go on with the run in the folder, with its own settings
    #[arg(long, conflicts_with_all = ["recipe", "assignments"])]
    pub(super) resume: bool,
    /// Where the numbers are computed; caption models, and backbones that are tuned, always use the processor
    #[arg(long, default_value = "cpu")]
    pub(super) device: DeviceKind,
}

impl Common {
    /// The run's folder with its settings: new ones, or those it was started with.
    pub(super) fn open<S>(&self) -> anyhow::Result<(RunFolder, S)>
    where
        S: Default + serde::Serialize + serde::de::DeserializeOwned,
    {
        if self.resume {
            return Ok(RunFolder::open(&self.output)?);
        }
        let settings: S = resolve(self.recipe.as_deref(), &self.assignments)?;
        Ok((RunFolder::create(&self.output, &settings)?, settings))
    }
}

/// What is said of a training that was stopped.
pub(super) fn stopped(run: &Path, step: u64) -> anyhow::Error {
    anyhow::anyhow!("stopped at step {step}; `--resume` with -o {} goes on from here", run.display())
}

/// Runs a training with a bar and a line a pass.
pub fn train(
    ui: &Ui,
    stop: &AtomicBool,
    job: impl FnOnce(&mut Control<'_>) -> sightline_train::Result<Outcome>,
) -> anyhow::Result<Outcome> {
    let bar = ui.bar(0, "steps");
    let mut on_event = |event: &Event| match event {
        Event::Prepared { photos, total } => {
            bar.set_length(*total);
            bar.set_position(*photos);
            bar.set_message("photos prepared");
        }
        Event::Unread { photo, reason } => bar.suspend(|| ui.say(format_args!("{photo} left out: {reason}"))),
        Event::Step { step, steps, loss } => {
            bar.set_length(*steps);
            bar.set_position(*step);
            bar.set_message(format!("loss {loss:.3}"));
        }
        Event::Epoch { epoch, epochs, loss, validation, best } => {
            let star = if *best { ", the best so far" } else { "" };
            bar.suspend(|| ui.say(format_args!("pass {epoch} of {epochs}: loss {loss:.3}, {validation}{star}")));
        }
    };
    let outcome = job(&mut Control { on_event: &mut on_event, stop })?;
    bar.finish_and_clear();
    Ok(outcome)
}
