//! Vectors in, ranked ids and the products of words and regions out. No tensor framework, no async, nothing of ours beneath.
//!
//! A photo is a set of region vectors, a sentence is a set of word vectors; their score is the sum over words of the
//! best product with any region (paper, equation 8).
//!
//! [`scores`] computes all pairs of photos and sentences in memory, [`products`] all words and regions of one pair.
//! [`Index`] searches a [`Collection`], vectors in memory-mapped files, for one query: [`Exact`] looks at all of it,
//! [`Pruned`] at the part that its centroids point to.
//!
//! Dimensions, everywhere by these names: `images sentences regions words dim`.

mod best;
pub mod bytes;
mod collection;
mod dots;
mod error;
mod exact;
mod file;
mod index;
pub mod matrix;
mod pruned;
mod query;
mod reduction;
mod screened;
mod sets;
pub mod simd;
pub mod vectors;

pub use best::{BestRegions, best_regions, chosen_gradients};
pub use collection::{Collection, Place};
pub use error::{Error, Result};
pub use exact::{products, scores};
pub use index::{Exact, Hit, Index};
pub use pruned::{Pruned, PrunedSettings};
pub use query::{Measure, Query};
pub use reduction::Reduction;
pub use sets::VectorSets;
pub use vectors::Vectors;
