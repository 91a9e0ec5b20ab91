//! From a photo and its boxes to one vector a box, by cropping (the paper's way) or by pooling (one pass a photo).

use serde::{Deserialize, Serialize};
use sightline_data::{BoxXyxy, VectorMode};

use super::{Backbone, FeatureMap};
use crate::{Error, Photo, Result};

/// What stands in a region's vector beside the region.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Context {
    /// Nothing: the whole photo's vector is its class token, a box's the box's own.
    #[default]
    None,
    /// The photo's class token follows every region's vector, which doubles its length; the whole photo's vector is
    /// the mean of its patches and then the class token.
    Class,
}

impl Context {
    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Class => "class",
        }
    }

    /// Length of a region's vector for a backbone's.
    pub fn region_dim(self, backbone_dim: usize) -> usize {
        match self {
            Self::None => backbone_dim,
            Self::Class => 2 * backbone_dim,
        }
    }
}

/// The vectors of each photo's regions, `[photos][regions * dim]` with `dim` from [`Context::region_dim`].
///
/// The first region of every photo is the whole photo, whatever its box says. With [`VectorMode::Crop`] each box is cut from the
/// photo's own pixels and encoded (paper, section 3.1.1); with [`VectorMode::Pool`] the photo is encoded once and its
/// grid averaged over each box ([`pool`]). Fails where the backbone fails, or the mode is neither.
pub fn region_vectors(
    backbone: &dyn Backbone,
    photos: &[Photo],
    regions: &[Vec<BoxXyxy>],
    mode: VectorMode,
    context: Context,
) -> Result<Vec<Vec<f32>>> {
    assert_eq!(photos.len(), regions.len(), "one list of boxes a photo");
    let maps = backbone.encode_map(photos)?;
    let mut vectors = Vec::with_capacity(photos.len());
    for ((photo, boxes), map) in photos.iter().zip(regions).zip(&maps) {
        let rest = boxes.get(1..).unwrap_or_default();
        let own: Vec<Vec<f32>> = match mode {
            VectorMode::Pool => rest.iter().map(|region| pool(map, photo.width, photo.height, region)).collect(),
            VectorMode::Crop => {
                let crops: Vec<Photo> = rest.iter().map(|region| photo.crop(region)).collect();
                backbone.encode_map(&crops)?.into_iter().map(|map| map.global).collect()
            }
            VectorMode::Imported | VectorMode::Joined => {
                return Err(Error::setting("vectors = imported or joined cannot be computed; use `pool` or `crop`"));
            }
        };
        let mut values = Vec::with_capacity(boxes.len() * context.region_dim(map.dim));
        for region_idx in 0..boxes.len() {
            match (region_idx.checked_sub(1), context) {
                (None, Context::None) => values.extend_from_slice(&map.global),
                (None, Context::Class) => values.extend(pool(map, photo.width, photo.height, &photo.whole())),
                (Some(idx), _) => values.extend_from_slice(&own[idx]),
            }
            if context == Context::Class {
                values.extend_from_slice(&map.global);
            }
        }
        vectors.push(values);
    }
    Ok(vectors)
}

/// The mean of the patches under a box, each weighted by the fraction of its area that the box covers: `[dim]`.
///
/// `width` and `height` are the photo's, in whose pixels the box lies. A box without area takes the patch it lies in.
pub fn pool(map: &FeatureMap, width: u32, height: u32, region: &BoxXyxy) -> Vec<f32> {
    let mut mean = vec![0.0; map.dim];
    for (patch, share) in shares([map.grid_h, map.grid_w], width, height, region) {
        let patch = &map.patches[patch * map.dim..][..map.dim];
        mean.iter_mut().zip(patch).for_each(|(m, p)| *m += share * p);
    }
    mean
}

/// The patches under a box and what share of its mean each has, for a grid of so many rows and columns; never empty.
pub fn shares([grid_h, grid_w]: [usize; 2], width: u32, height: u32, region: &BoxXyxy) -> Vec<(usize, f32)> {
    let rows = coverage(region.y1, region.y2, height, grid_h);
    let columns = coverage(region.x1, region.x2, width, grid_w);
    let total: f32 = rows.iter().map(|(_, r)| r).sum::<f32>() * columns.iter().map(|(_, c)| c).sum::<f32>();
    let of_row = |&(row, row_share): &(usize, f32)| {
        let patch = move |&(column, share): &(usize, f32)| (row * grid_w + column, row_share * share / total);
        columns.iter().map(patch).collect::<Vec<_>>()
    };
    rows.iter().flat_map(of_row).collect()
}

/// The cells of one axis that `from..to` touches, and the fraction of each that it covers; never empty.
fn coverage(from: f32, to: f32, pixels: u32, cells: usize) -> Vec<(usize, f32)> {
    let scale = cells as f32 / pixels as f32;
    let (from, to) = ((from * scale).clamp(0.0, cells as f32), (to * scale).clamp(0.0, cells as f32));
    let shares: Vec<(usize, f32)> = (from.floor() as usize..cells)
        .map(|cell| (cell, to.min(cell as f32 + 1.0) - from.max(cell as f32)))
        .take_while(|&(cell, _)| (cell as f32) < to)
        .filter(|&(_, share)| share > 0.0)
        .collect();
    if shares.is_empty() { vec![((from as usize).min(cells - 1), 1.0)] } else { shares }
}
