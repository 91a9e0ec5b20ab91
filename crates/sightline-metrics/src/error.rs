//! What can go wrong: files that are missing or malformed, and lists that do not fit together.

use std::path::{Path, PathBuf};

/// How to get METEOR's data, in one line.
pub const HOW_TO_GET_METEOR_DATA: &str = "run `sightline meteor-data fetch`, or `pip download --no-deps \
     pycocoevalcap==1.2` and set SIGHTLINE_METEOR_DATA to the wheel";

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused to read or write a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A zip archive (jar or wheel) that cannot be read.
    #[error("cannot read the archive {}: {source}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What the reader found.
        source: zip::result::ZipError,
    },
    /// METEOR's data is nowhere to be found.
    #[error("METEOR's data is missing; to get it, {HOW_TO_GET_METEOR_DATA}")]
    MeteorDataMissing,
    /// A source of METEOR's data lacks one of its parts.
    #[error(
        "{} holds no {resource} of METEOR 1.5; expected a METEOR data folder, its jar beside data/paraphrase-en.gz, or \
         the wheel of pycocoevalcap 1.2; to get one, {HOW_TO_GET_METEOR_DATA}",
        path.display()
    )]
    MeteorPart {
        /// The folder, jar or wheel.
        path: PathBuf,
        /// The part that is not there.
        resource: &'static str,
    },
    /// A file whose content is not what it should be.
    #[error("{}: {what}: expected {expected}, got {got}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and what in it.
        what: String,
        /// What should be there.
        expected: String,
        /// What is there.
        got: String,
    },
    /// A compiled cache that is damaged or of another version.
    #[error("{} is not a METEOR cache of this version ({why}); delete it and it is compiled anew", path.display())]
    Cache {
        /// The cache.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// As many hypotheses as lists of references are needed.
    #[error("{hypotheses} hypotheses but {references} lists of references; give one list for every hypothesis")]
    Lengths {
        /// How many hypotheses there are.
        hypotheses: usize,
        /// How many lists of references there are.
        references: usize,
    },
    /// An image without a reference cannot be scored.
    #[error("image {index} has no reference; leave it out or give it one")]
    NoReference {
        /// Its place in the list, from 0.
        index: usize,
    },
    /// The two files of captions stand in each other's place.
    #[error(
        "the files look swapped: {} holds references ({hypotheses_kind}) and {} holds {references_kind}; give \
         --hypotheses {} --references {}",
        hypotheses.display(), references.display(), references.display(), hypotheses.display()
    )]
    Swapped {
        /// What was given as hypotheses.
        hypotheses: PathBuf,
        /// What it holds.
        hypotheses_kind: &'static str,
        /// What was given as references.
        references: PathBuf,
        /// What it holds.
        references_kind: &'static str,
    },
    /// More than one hypothesis for an image.
    #[error(
        "{} has more than one caption for {count} of its images, image {first} for one; a file of hypotheses holds one \
         caption an image",
        path.display()
    )]
    DuplicateIds {
        /// The hypotheses.
        path: PathBuf,
        /// How many images.
        count: usize,
        /// The first of them.
        first: String,
    },
    /// Images with references but without a hypothesis.
    #[error(
        "{} has no caption for {count} of the {total} images of {}, image {first} for one; add them (an empty caption \
         counts), or give --partial to score the others alone",
        path.display(), references.display()
    )]
    MissingHypotheses {
        /// The hypotheses.
        path: PathBuf,
        /// The references.
        references: PathBuf,
        /// How many images.
        count: usize,
        /// Of how many.
        total: usize,
        /// The first of them.
        first: String,
    },
    /// Images with a hypothesis but without references.
    #[error(
        "{} has no reference for {count} of the {total} images of {}, image {first} for one; add them, or give \
         --partial to score the others alone",
        path.display(), hypotheses.display()
    )]
    MissingReferences {
        /// The references.
        path: PathBuf,
        /// The hypotheses.
        hypotheses: PathBuf,
        /// How many images.
        count: usize,
        /// Of how many.
        total: usize,
        /// The first of them.
        first: String,
    },
    /// A name that stands for nothing known.
    #[error("unknown {what} {name:?}; expected one of {expected}")]
    Unknown {
        /// What kind of name.
        what: &'static str,
        /// The name.
        name: String,
        /// The known ones.
        expected: &'static str,
    },
}

impl Error {
    /// For `map_err` on a system call about `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
