//! Backbones: photos in, a grid of patch vectors and one global vector out.

pub mod compact;
pub mod mobilenet;
pub mod onnx;
pub mod pixels;
pub mod vectors;
pub mod vit;
pub mod weights;

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;

use crate::{Error, Photo, Result};

pub use compact::Compact;
pub use mobilenet::MobileNetV2;
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

impl FeatureMap {
    /// A convolutional network's map, `[dim, grid_h, grid_w]`: its cells, and their mean for all of the photo.
    fn of_planes(grid_h: usize, grid_w: usize, planes: &[f32]) -> Self {
        let cells = grid_h * grid_w;
        let dim = planes.len() / cells;
        let mut patches = vec![0.0; planes.len()];
        for (channel, plane) in planes.chunks_exact(cells).enumerate() {
            for (cell, value) in plane.iter().enumerate() {
                patches[cell * dim + channel] = *value;
            }
        }
        Self { grid_h, grid_w, dim, global: mean_of(&patches, dim), patches }
    }
}

/// The mean of rows of `dim` numbers.
fn mean_of(patches: &[f32], dim: usize) -> Vec<f32> {
    let cells = patches.len() / dim;
    let mut mean = vec![0.0; dim];
    for patch in patches.chunks_exact(dim) {
        mean.iter_mut().zip(patch).for_each(|(m, p)| *m += p / cells as f32);
    }
    mean
}

/// Appends a picture as a convolution reads it, `[3, height, width]`: the colours in `0..=1` less `mean`, over `std`.
fn write_planes(picture: &Photo, mean: [f32; 3], std: [f32; 3], values: &mut Vec<f32>) {
    for channel in 0..3 {
        let line = picture.pixels.iter().skip(channel).step_by(3);
        values.extend(line.map(|&level| (f32::from(level) / 255.0 - mean[channel]) / std[channel]));
    }
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

/// Opens a safetensors file: a [`MobileNetV2`], else a [`Vit`] with its family's settings.
///
/// Fails as they do.
pub fn open(path: &Path, device: &Device) -> Result<Box<dyn Backbone>> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    if MobileNetV2::is_in(&weights::tensors(path, &bytes)?) {
        return Ok(Box::new(MobileNetV2::of_file(path, &bytes, mobilenet::CELL, device)?));
    }
    Ok(Box::new(Vit::of_file(path, &bytes, &VitOptions::default(), device)?))
}

fn file_stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| path.display().to_string(), |stem| stem.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
