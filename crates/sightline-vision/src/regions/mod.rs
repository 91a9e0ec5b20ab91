//! Region proposals: the boxes of a photo that are worth a vector.
//!
//! [`RegionProposer`] is the one door; behind it stand a detector, Selective Search, and boxes read from a file.

pub mod boxes_json;
pub mod nanodet;
pub mod selective_search;

use std::sync::Arc;

use sightline_data::BoxXyxy;

pub use boxes_json::BoxesFile;
pub use nanodet::NanoDet;
pub use selective_search::SelectiveSearch;

use crate::{Photo, Result};

/// A box of a photo and how likely it holds an object; scores of different proposers cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proposal {
    /// The box, in pixels of the photo, clipped to it, never empty.
    pub region: BoxXyxy,
    /// Higher is better.
    pub score: f32,
}

/// Finds the boxes of a photo that are worth a vector.
pub trait RegionProposer: Send + Sync {
    /// The name under which settings and the feature store know it.
    fn name(&self) -> &'static str;

    /// What, beside the name, decides the boxes: settings and weights, so that stores of different ones never mix.
    fn checksum(&self) -> String;

    /// At most `max` boxes, best first, clipped to the photo, none empty; the whole photo is not among them on purpose.
    /// `key` is the photo's name in its dataset, for proposers that look boxes up.
    fn propose(&self, key: &str, photo: &Photo, max: usize) -> Result<Vec<Proposal>>;
}

impl<P: RegionProposer + ?Sized> RegionProposer for Arc<P> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn checksum(&self) -> String {
        (**self).checksum()
    }

    fn propose(&self, key: &str, photo: &Photo, max: usize) -> Result<Vec<Proposal>> {
        (**self).propose(key, photo, max)
    }
}

/// How many of the true boxes a proposal covers with at least this IoU.
pub fn n_covered(proposals: &[Proposal], truth: &[BoxXyxy], iou: f32) -> usize {
    truth.iter().filter(|object| proposals.iter().any(|proposal| proposal.region.iou(object) >= iou)).count()
}
