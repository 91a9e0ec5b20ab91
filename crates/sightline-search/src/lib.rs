//! Vectors in, ranked ids and word-to-region evidence out. No tensor framework, no async, nothing of ours beneath.
//!
//! A photo is a set of region vectors, a sentence is a set of word vectors; their score is the sum over words of the
//! best product with any region (paper, equation 8), and the region that won is the evidence for the word.
//!
//! Dimensions, everywhere by these names: `images sentences regions words dim`.

mod best;
mod exact;
pub mod matrix;
mod sets;
mod simd;

pub use best::{BestRegions, best_regions, chosen_gradients};
pub use exact::{Evidence, Reduction, evidence, products, scores};
pub use sets::VectorSets;
