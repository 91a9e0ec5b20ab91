//! Backbones: photos in, a grid of patch vectors and one global vector out.

pub mod compact;
pub mod onnx;
pub mod pixels;
pub mod vectors;
pub mod vit;
pub mod weights;

use std::path::Path;
use std::sync::Arc;

use crate::{Photo, Result};

pub use compact::Compact;
pub use onnx::{OnnxBackbone, OnnxOptions};
pub use pixels::Pixels;
pub use vectors::{Context, region_vectors};
pub use vit::{Activation, Vit, VitConfig, VitOptions};
pub use weights::Layout;

/// What a backbone sees in one photo: a vector for each cell of a grid laid over the whole photo, and one for all.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureMap {
    /// Rows of the grid.
    pub grid_h: usize,
    /// Columns of the grid.
    pub grid_w: usize,
    /// Length of each vector.
    pub dim: usize,
    /// `[grid_h * grid_w, dim]`, row by row.
    pub patches: Vec<f32>,
    /// The class token, or the mean of the grid where the network has none: `[dim]`.
    pub global: Vec<f32>,
}

/// A network that turns photos into vectors.
pub trait Backbone: Send + Sync {
    /// The name under which settings and the feature store know it: the weights file's, without its ending.
    fn name(&self) -> &str;

    /// [`sightline_data::checksum::of_bytes`] of the weights file.
    fn checksum(&self) -> &str;

    /// Length of its vectors.
    fn dim(&self) -> usize;

    /// Everything beside the weights that decides the vectors, so that stores of different settings never mix.
    fn settings(&self) -> Vec<(String, String)>;

    /// Encodes all photos in one pass, in their order.
    ///
    /// Each photo is squashed to the network's input, its aspect ratio lost, so that the grid covers the whole photo
    /// and each cell is a fixed fraction of its width and height. The vectors of a photo do not depend on its company.
    fn encode_map(&self, photos: &[Photo]) -> Result<Vec<FeatureMap>>;
}

impl<B: Backbone + ?Sized> Backbone for Arc<B> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn checksum(&self) -> &str {
        (**self).checksum()
    }

    fn dim(&self) -> usize {
        (**self).dim()
    }

    fn settings(&self) -> Vec<(String, String)> {
        (**self).settings()
    }

    fn encode_map(&self, photos: &[Photo]) -> Result<Vec<FeatureMap>> {
        (**self).encode_map(photos)
    }
}

fn file_stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| path.display().to_string(), |stem| stem.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
