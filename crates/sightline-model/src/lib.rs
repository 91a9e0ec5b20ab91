//! The mathematics of Sightline: the alignment model (paper, equations 1 to 9), its decoding (10 to 12), and the
//! caption model (13 to 15). No files, no clock, no printing; every random number comes from a seeded generator
//! that the caller hands in, so the same seed gives the same bytes on the same number of threads.
//!
//! Dimensions, everywhere by these names: `batch images sentences regions words dim hidden vocab`.

pub mod alignment;
mod attended;
pub mod backbone;
mod bf16;
pub mod caption;
pub mod conv;
pub mod decode;
mod kernel;
mod matrix;
pub mod orthogonal;
mod products;
pub mod random;
pub mod sentences;
pub mod tape;
pub mod vit;
pub mod weights;
pub mod workers;

pub use attended::attended;
pub use bf16::Precision;
pub use burn::tensor::Device;
pub use matrix::Matrix;
pub use sentences::{Edge, Sentence, SentenceBatch};
