//! A run folder: `settings.toml` (saved first), `log.jsonl` (one record a line), `last.ckpt` (to resume from) and
//! `best.ckpt` (to use); `start` names the model that it began with, if it did; `lock` keeps a second training out.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::checkpoint::{Checkpoint, Kind, Outline};
use crate::{Error, Result};

/// The folder of one run.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Held while it is written to.
    _lock: File,
}

impl RunFolder {
    /// A new run. Refuses a folder in which something was trained already, so that it is not lost.
    pub fn create(path: &Path, settings: &impl Serialize) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(Error::io("create the run folder", path))?;
        let run = Self::claim(path)?;
        if run.last().exists() || run.best().exists() {
            return Err(Error::Mismatch(format!(
                "{} already holds a run; add --resume to go on with it, or name another folder",
                path.display()
            )));
        }
        if !Self::seeds(path).is_empty() {
            return Err(Error::Mismatch(format!(
                "{} already holds one run a seed; add --resume to go on with them, or name another folder",
                path.display()
            )));
        }
        let text = toml::to_string(settings).expect("settings are plain data");
        sightline_data::write::atomically(&settings_path(path), |file| file.write_all(text.as_bytes()))?;
        Ok(run)
    }

    /// A run that was started before, and the settings it was started with.
    pub fn open<S: DeserializeOwned>(path: &Path) -> Result<(Self, S)> {
        let settings = settings_path(path);
        let text = std::fs::read_to_string(&settings).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                Error::Mismatch(format!("{} holds no run to resume (no settings.toml)", path.display()))
            }
            _ => Error::io("read the settings of the run", &settings)(error),
        })?;
        let settings = toml::from_str(&text).map_err(|e| {
            let reason = format!("{}: {}", settings.display(), e.message());
            // Settings of another kind of run make no sense to this command, and that is all there is to say.
            let wrong = Outline::read(&path.join("last.ckpt")).ok().map(|last| last.header.kind.name());
            Error::Setting(wrong.map_or_else(
                || reason.clone(),
                |kind| {
                    format!(
                        "{} was begun as the run of {kind}; resume it by the command that made it ({reason})",
                        path.display()
                    )
                },
            ))
        })?;
        Ok((Self::claim(path)?, settings))
    }

    /// The folder for this process alone, until the value is dropped.
    fn claim(path: &Path) -> Result<Self> {
        let lock = path.join("lock");
        let file = File::options().create(true).append(true).open(&lock).map_err(Error::io("open", &lock))?;
        match sightline_data::write::lock(&file) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: file }),
            Err(TryLockError::WouldBlock) => {
                Err(Error::Mismatch(format!("another training writes to {}: wait for it, or end it", path.display())))
            }
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &lock)(error)),
        }
    }

    /// The model to begin with, where a run that begins has one: remembered, so that it is not gone on with without it.
    ///
    /// # Errors
    /// The run began with a model, kept nothing yet, and now gets none or another one.
    pub(crate) fn begin_with(&self, start: Option<Checkpoint>) -> Result<Option<Checkpoint>> {
        if self.last().exists() {
            return Ok(None);
        }
        let note = self.path.join("start");
        let began_with = match std::fs::read_to_string(&note) {
            Ok(checksum) => Some(checksum.trim().to_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io("read", &note)(error)),
        };
        let given = start.as_ref().map(Checkpoint::checksum);
        if began_with.is_some() && began_with != given {
            return Err(Error::Mismatch(format!(
                "{} began with the weights of a model and has kept nothing yet; give the same one again with --start",
                self.path.display()
            )));
        }
        if let Some(given) = given {
            sightline_data::write::atomically(&note, |file| writeln!(file, "{given}"))?;
        }
        Ok(start)
    }

    /// The best model of a run, or a checkpoint file given directly.
    pub fn model(path: &Path, kinds: &[Kind]) -> Result<Checkpoint> {
        let file = Self::model_file(path)?;
        let checkpoint = Checkpoint::load(&file)?;
        check_kind(file, checkpoint.header.kind, kinds)?;
        Ok(checkpoint)
    }

    /// The same without its weights, but no less checked.
    pub fn outline(path: &Path, kinds: &[Kind]) -> Result<Outline> {
        let file = Self::model_file(path)?;
        let outline = Outline::read(&file)?;
        check_kind(file, outline.header.kind, kinds)?;
        Ok(outline)
    }

    fn model_file(path: &Path) -> Result<PathBuf> {
        let file = if path.is_dir() { path.join("best.ckpt") } else { path.to_owned() };
        if path.is_dir() && !file.exists() {
            if let [first, ..] = Self::seeds(path)[..] {
                return Err(Error::Mismatch(format!(
                    "{} holds one run a seed; name one of them, {} say",
                    path.display(),
                    Self::of_seed(path, first).display()
                )));
            }
            return Err(Error::Mismatch(format!(
                "{} holds no trained model yet (no best.ckpt); let `train` finish one pass first",
                path.display()
            )));
        }
        Ok(file)
    }

    /// The folder of one seed's run in the folder of several.
    pub fn of_seed(path: &Path, seed: u64) -> PathBuf {
        path.join(format!("seed-{seed}"))
    }

    /// The seeds whose runs were started in a folder, in order; none where it is no folder of seeds.
    pub fn seeds(path: &Path) -> Vec<u64> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut seeds: Vec<u64> = entries
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("seed-")?.parse().ok())
            .filter(|&seed| settings_path(&Self::of_seed(path, seed)).is_file())
            .collect();
        seeds.sort_unstable();
        seeds
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the checkpoint to resume from lies.
    pub fn last(&self) -> PathBuf {
        self.path.join("last.ckpt")
    }

    /// Where the best model lies.
    pub fn best(&self) -> PathBuf {
        self.path.join("best.ckpt")
    }

    /// The log, to append to; records of steps after `step` (written before a kill) are taken out first.
    pub fn log(&self, step: u64) -> Result<Log> {
        let path = self.path.join("log.jsonl");
        if path.exists() {
            let text = std::fs::read_to_string(&path).map_err(Error::io("read the log", &path))?;
            let of_step = |line: &&str| {
                let record: Option<serde_json::Value> = serde_json::from_str(line).ok();
                record.and_then(|r| r["step"].as_u64()).is_some_and(|s| s <= step)
            };
            let kept: Vec<&str> = text.lines().filter(of_step).collect();
            sightline_data::write::atomically(&path, |file| kept.iter().try_for_each(|line| writeln!(file, "{line}")))?;
        }
        let file = File::options().create(true).append(true).open(&path).map_err(Error::io("open the log", &path))?;
        Ok(Log { file, path })
    }
}

fn settings_path(folder: &Path) -> PathBuf {
    folder.join("settings.toml")
}

fn check_kind(file: PathBuf, found: Kind, kinds: &[Kind]) -> Result<()> {
    if kinds.contains(&found) {
        return Ok(());
    }
    let wanted: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    Err(Error::Checkpoint { path: file, message: format!("{}, expected {}", found.name(), wanted.join(" or ")) })
}

/// An append-only file of JSON records.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
}

impl Log {
    /// Writes one record.
    pub fn write(&mut self, record: &serde_json::Value) -> Result<()> {
        writeln!(self.file, "{record}").map_err(Error::io("write the log", &self.path))
    }
}
