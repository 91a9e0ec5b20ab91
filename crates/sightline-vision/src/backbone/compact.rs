//! The small backbone that this project trains itself (`sightline_model::backbone`), for photos: one network that gives
//! vectors and proposes regions.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use sightline_data::{BoxXyxy, boxes::non_maximum_suppression};
use sightline_model::Matrix;
use sightline_model::attended;
use sightline_model::backbone::{BackboneSettings, CELL, OBJECT_NUMBERS};
use sightline_model::tape::Tape;
use sightline_model::weights::Weights;

use super::{Backbone, FeatureMap};
use crate::photo::Filter;
use crate::regions::{Proposal, RegionProposer};
use crate::{Error, Photo, Result};

/// Boxes that overlap more are one. Less or more than this covers fewer objects of coco_mini (docs/log.md, 2026-11-24).
const SUPPRESSION_IOU: f32 = 0.5;
/// Distances from a cell to a border lie below this many sides of the photo, whatever the network says.
const MOST_SIDES: f32 = 2.0;

/// A trained small backbone.
///
/// It remembers what it saw of the last few photos, since regions and vectors of a photo are asked for one after the
/// other and come from the same pass.
#[derive(Debug)]
pub struct Compact {
    name: String,
    checksum: String,
    settings: BackboneSettings,
    weights: Weights,
    /// By the checksum of the pixels, the last one at the end.
    memory: Mutex<VecDeque<(String, Arc<Seen>)>>,
}

/// Photos that are remembered: those of a few workers' batches.
const REMEMBERED: usize = 16;

/// What the network says of one photo.
#[derive(Debug)]
struct Seen {
    map: FeatureMap,
    /// `[fine grid², OBJECT_NUMBERS]`.
    objects: Vec<f32>,
}

impl Compact {
    /// The name under which settings and the feature store know the regions it proposes.
    pub const REGIONS: &str = "compact";

    /// The network of these weights; `checksum` tells them from others.
    ///
    /// Fails where the weights have other names or sizes than the settings say.
    pub fn new(
        name: impl Into<String>,
        checksum: impl Into<String>,
        settings: BackboneSettings,
        weights: Weights,
    ) -> Result<Self> {
        if let Some(problem) = settings.problem() {
            return Err(Error::setting(problem));
        }
        let mut expected = settings.shapes();
        expected.sort_unstable();
        if !weights.iter().map(|(name, weight)| (name, &weight.shape)).eq(expected.iter().map(|(n, s)| (n, s))) {
            return Err(Error::setting("the backbone's weights have other names or sizes than its settings say"));
        }
        let memory = Mutex::new(VecDeque::with_capacity(REMEMBERED));
        Ok(Self { name: name.into(), checksum: checksum.into(), settings, weights, memory })
    }

    /// Runs the network over one photo; a photo never meets others in a product, so that its numbers are always the same.
    fn see(&self, photo: &Photo) -> Arc<Seen> {
        let input = input(photo, self.settings.photo_side);
        let key = sightline_data::checksum::of_bytes(&input.pixels);
        let memory = || self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let known = memory().iter().find(|(own, _)| *own == key).map(|(_, seen)| seen.clone());
        if let Some(seen) = known {
            return seen;
        }
        let side = self.settings.photo_side;
        let [patches, global, objects] = attended(|| {
            let mut tape = Tape::forward_only(&self.weights);
            let seen = self.settings.forward(&mut tape, Matrix::new(side * side, 3, input.signed()), side);
            let [cells, global] = self.settings.vectors(&mut tape, &seen);
            [cells, global, seen.objects].map(|var| tape.value(var).values.clone())
        });
        let map = FeatureMap { grid_h: side / CELL, grid_w: side / CELL, dim: self.settings.width(), patches, global };
        let seen = Arc::new(Seen { map, objects });
        let mut memory = memory();
        if memory.len() == REMEMBERED {
            memory.pop_front();
        }
        memory.push_back((key, seen.clone()));
        seen
    }
}

/// A photo as the network sees it: squashed to a square of `side` pixels.
pub fn input(photo: &Photo, side: usize) -> Photo {
    photo.resize(side as u32, side as u32, Filter::Bicubic)
}

/// The boxes that lie in what the network says about objects, `[grid², OBJECT_NUMBERS]`: at most `max`, best first,
/// in pixels of a photo of `width` × `height`.
pub fn proposals(objects: &[f32], width: u32, height: u32, max: usize) -> Vec<Proposal> {
    let grid = (objects.len() / OBJECT_NUMBERS).isqrt();
    let cell = [width as f32 / grid as f32, height as f32 / grid as f32];
    let (mut boxes, mut scores) = (Vec::new(), Vec::new());
    for (i, numbers) in objects.chunks_exact(OBJECT_NUMBERS).enumerate() {
        let (x, y) = ((i % grid) as f32 + 0.5, (i / grid) as f32 + 0.5);
        let distance = |side: usize| numbers[1 + side].exp().min(MOST_SIDES * grid as f32);
        let region = BoxXyxy {
            x1: (x - distance(0)) * cell[0],
            y1: (y - distance(1)) * cell[1],
            x2: (x + distance(2)) * cell[0],
            y2: (y + distance(3)) * cell[1],
        };
        let region = region.clip(width, height);
        if region.area() > 0.0 {
            boxes.push(region);
            scores.push(1.0 / (1.0 + (-numbers[0]).exp()));
        }
    }
    let kept = non_maximum_suppression(&boxes, &scores, SUPPRESSION_IOU);
    kept.into_iter().take(max).map(|i| Proposal { region: boxes[i], score: scores[i] }).collect()
}

impl Backbone for Compact {
    fn name(&self) -> &str {
        &self.name
    }

    fn checksum(&self) -> &str {
        &self.checksum
    }

    fn dim(&self) -> usize {
        self.settings.width()
    }

    fn settings(&self) -> Vec<(String, String)> {
        let side = self.settings.photo_side;
        vec![("compact".to_owned(), format!("input {side}, grid {}", side / CELL))]
    }

    fn encode_map(&self, photos: &[Photo]) -> Result<Vec<FeatureMap>> {
        Ok(photos.iter().map(|photo| self.see(photo).map.clone()).collect())
    }
}

impl RegionProposer for Compact {
    fn name(&self) -> &'static str {
        Self::REGIONS
    }

    fn checksum(&self) -> String {
        self.checksum.clone()
    }

    fn propose(&self, _key: &str, photo: &Photo, max: usize) -> Result<Vec<Proposal>> {
        Ok(proposals(&self.see(photo).objects, photo.width, photo.height, max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_are_cells_with_distances() {
        // Nothing anywhere, but at the cell (3, 5): two cells to the left and right, one up, four down.
        let mut objects: Vec<f32> = [-9.0, 0.0, 0.0, 0.0, 0.0].repeat(28 * 28);
        let at = (5 * 28 + 3) * OBJECT_NUMBERS;
        objects[at..at + 5].copy_from_slice(&[2.0, 2.0f32.ln(), 0.0, 2.0f32.ln(), 4.0f32.ln()]);
        let best = proposals(&objects, 280, 56, 1);
        let expected = BoxXyxy { x1: 15.0, y1: 9.0, x2: 55.0, y2: 19.0 };
        assert_eq!(best.len(), 1);
        assert!(best[0].region.iou(&expected) > 0.999, "{:?}", best[0].region);
        assert!((best[0].score - 0.8808).abs() < 1e-3);
        let all = proposals(&objects, 280, 56, 2000);
        assert!(all.len() > 100 && all.windows(2).all(|pair| pair[0].score >= pair[1].score));
        assert!(all.iter().all(|p| p.region == p.region.clip(280, 56) && p.region.area() > 0.0));
    }

    #[test]
    fn numbers_without_measure_are_clipped() {
        let objects = [9.0, 80.0, f32::MAX, 80.0, 80.0].repeat(28 * 28);
        let found = proposals(&objects, 100, 50, 19);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].region, BoxXyxy::whole(100, 50));
    }

    #[test]
    fn what_is_remembered_is_what_would_be_seen() {
        let settings =
            BackboneSettings { stem: 8, fine: 8, coarse: 12, dim: 6, objects: 4, ..BackboneSettings::default() };
        let weights = settings.initial_weights(&mut sightline_model::random::stream(1, 0));
        let fresh = || Compact::new("x", "", settings.clone(), weights.clone()).unwrap();
        let photos: Vec<Photo> = (0..20).map(|i| Photo::uniform(40, 30, [i * 10, 100, 255 - i * 10])).collect();
        let compact = fresh();
        let maps = compact.encode_map(&photos).unwrap();
        assert_eq!(compact.memory.lock().unwrap().len(), REMEMBERED);
        for i in [19, 0, 7] {
            assert_eq!(compact.encode_map(&photos[i..=i]).unwrap()[0], maps[i], "{i}, remembered or seen again");
            assert_eq!(fresh().encode_map(&photos[i..=i]).unwrap()[0], maps[i], "{i}, by another");
            assert_eq!(compact.propose("", &photos[i], 5).unwrap(), fresh().propose("", &photos[i], 5).unwrap());
        }
    }

    #[test]
    fn foreign_weights_are_refused() {
        let settings = BackboneSettings::default();
        let error = Compact::new("x", "", settings, Weights::new()).unwrap_err().to_string();
        assert!(error.contains("other names or sizes"), "{error}");
    }
}
