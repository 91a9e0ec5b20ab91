//! The one error of this crate.

use std::path::{Path, PathBuf};

/// What can go wrong while training or evaluating.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing a dataset, a store or any file through the data crate.
    #[error(transparent)]
    Data(#[from] sightline_data::Error),
    /// Reading a photo, or running a backbone on it.
    #[error(transparent)]
    Vision(#[from] sightline_vision::Error),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A setting is unknown or has a value of the wrong kind.
    #[error("{0}")]
    Setting(String),
    /// A checkpoint is damaged or of another kind.
    #[error("{}: {message}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        message: String,
    },
    /// Dataset, feature store and model do not belong together.
    #[error("{0}")]
    Mismatch(String),
    /// Training left the numbers: the loss is no longer finite.
    #[error(
        "the loss became {loss} at step {step}; try a smaller learning rate or initial scale (now {learning_rate:e})"
    )]
    Diverged {
        /// Step of the optimiser.
        step: u64,
        /// What it became.
        loss: f64,
        /// The rate at that step.
        learning_rate: f64,
    },
}

/// [`std::result::Result`] with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Io`] for `path`; shaped for `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
