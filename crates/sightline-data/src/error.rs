//! The one error of this crate: facts as fields, the file always among them.

use std::path::{Path, PathBuf};

/// What can go wrong while reading or writing a dataset or a feature store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `write`, `open`, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The content is not what the format asks for.
    #[error("{}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected, what was found, and what to do.
        message: String,
    },
    /// A feature store made with other settings than those asked for.
    #[error(
        "{}: made with other settings ({}): ask for the same ones, or write to another file",
        path.display(),
        differences.join("; ")
    )]
    Settings {
        /// The store or its journal.
        path: PathBuf,
        /// Each setting that differs, with both values; never empty.
        differences: Vec<String>,
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

    /// An [`Error::Format`] for `path`.
    pub fn format(path: &Path, message: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), message: message.into() }
    }
}
