//! What happens over time: settings and recipes, the trainer, checkpoints, run folders, evaluation.
//!
//! Dimensions, everywhere by these names: `batch images sentences regions words dim hidden vocab`.

pub mod align;
pub mod aligner;
pub mod backbone;
pub mod bank;
pub mod caption;
pub mod checkpoint;
pub mod committee;
pub mod corpus;
pub mod describe;
mod error;
pub mod evaluate;
mod framed;
pub mod grounding;
pub mod optimizer;
pub mod pack;
pub mod phrases;
pub mod pointing;
pub mod region_phrases;
pub mod reread;
pub mod run;
pub mod settings;
pub mod teachers;
mod trainer;
pub mod tune;
mod unread;
mod view;

pub use error::{Error, Result};
pub use trainer::{Control, Event, Outcome};
