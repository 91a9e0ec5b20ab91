//! The metrics of captioning, retrieval and grounding, exact and without Java or Python.
//!
//! Every corpus metric is a set of counts that add and merge, scored once at the end; per-image values come from the
//! same pass. The crate knows no tensor framework, no async and no other crate of this project.

pub mod auroc;
pub mod bleu;
pub mod caption;
pub mod cider;
pub mod dense;
pub mod diversity;
mod error;
pub mod files;
pub mod grounding;
pub mod meteor;
pub mod ptb;
pub mod retrieval;
pub mod rouge;
pub mod significance;
pub mod text;

pub use error::{Error, HOW_TO_GET_METEOR_DATA, Result};
