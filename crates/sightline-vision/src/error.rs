//! The one error of this crate: facts as fields, the file always among them, one line each.

use std::path::{Path, PathBuf};

/// What can go wrong between a picture's file and its boxes and vectors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `open`, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A picture that cannot be read, or is not one.
    #[error("{photo}: {message}")]
    Photo {
        /// The file, or the name the bytes came under.
        photo: String,
        /// What was expected, what was found, and what to do.
        message: String,
    },
    /// Weights of another format, shape or name than the network asks for.
    #[error("{}: {message}", path.display())]
    Weights {
        /// The weights file.
        path: PathBuf,
        /// What was expected, what was found, and what to do.
        message: String,
    },
    /// An ONNX network that cannot be loaded, or that fails while it runs.
    #[error("{}: {message}", path.display())]
    Onnx {
        /// The ONNX file.
        path: PathBuf,
        /// The stage that failed and the runtime's reason.
        message: String,
    },
    /// A file of boxes in no layout that is known.
    #[error("{}: {message}", path.display())]
    Boxes {
        /// The file of boxes.
        path: PathBuf,
        /// What was expected, what was found, and what to do.
        message: String,
    },
    /// A setting that cannot be used.
    #[error("{message}")]
    Setting {
        /// The setting, its value, and what it may be.
        message: String,
    },
    /// Anything `sightline-data` reports: the feature store, datasets.
    #[error(transparent)]
    Data(#[from] sightline_data::Error),
}

/// [`std::result::Result`] with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Io`] for `path`; shaped for `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// An [`Error::Photo`].
    pub fn photo(photo: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Photo { photo: photo.into(), message: message.into() }
    }

    /// An [`Error::Weights`] for `path`.
    pub fn weights(path: &Path, message: impl Into<String>) -> Self {
        Self::Weights { path: path.to_owned(), message: message.into() }
    }

    /// An [`Error::Onnx`] for `path`.
    pub fn onnx(path: &Path, message: impl Into<String>) -> Self {
        Self::Onnx { path: path.to_owned(), message: message.into() }
    }

    /// An [`Error::Boxes`] for `path`.
    pub fn boxes(path: &Path, message: impl Into<String>) -> Self {
        Self::Boxes { path: path.to_owned(), message: message.into() }
    }

    /// An [`Error::Setting`].
    pub fn setting(message: impl Into<String>) -> Self {
        Self::Setting { message: message.into() }
    }
}
