//! Pixels to boxes and vectors: photos, region proposals and backbones.
//!
//! Dimensions, everywhere by these names: `batch images sentences regions words dim hidden vocab`.

pub mod backbone;
pub mod error;
pub mod extract;
pub mod onnx;
pub mod photo;
pub mod regions;

pub use error::{Error, Result};
pub use photo::{Filter, Photo};
