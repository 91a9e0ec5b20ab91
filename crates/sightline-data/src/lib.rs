//! What a dataset is, on disk and in memory: photos with sentences, splits, tokens, the vocabulary,
//! boxes and the feature store. No tensors, no network.
//!
//! Dimensions, everywhere in Sightline by these names: `batch images sentences regions words dim hidden vocab`.

pub mod boxes;
pub mod categories;
pub mod checksum;
pub mod dataset;
mod error;
pub mod import;
mod map;
pub mod parses;
pub mod problems;
mod record;
pub mod store;
pub mod summary;
pub mod tokens;
pub mod vocabulary;
pub mod walk;
pub mod word_vectors;
pub mod write;

pub use boxes::BoxXyxy;
pub use dataset::{Dataset, Image, Pair, Sentence, Split};
pub use error::{Error, Result};
pub use problems::{ProblemKind, Problems};
pub use store::{FeatureStore, PhotoFeatures, StoreSettings, StoreWriter, VectorMode};
pub use summary::{Summary, summary};
pub use vocabulary::Vocabulary;
