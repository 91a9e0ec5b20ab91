//! Regions by Selective Search in its fast mode (Uijlings, van de Sande, Gevers, Smeulders 2013): no weights at all.
//!
//! A photo is segmented in two colour spaces at two scales; from each segmentation two hierarchies grow, and every
//! region on the way gives a box. Written from the paper, with two liberties: hue and saturation are laid out as a
//! disc, so that red has no seam, and the boxes are ranked by [`Ranking`].

mod grouping;
mod planes;
mod segmentation;

use std::borrow::Cow;
use std::collections::BTreeMap;

use sightline_data::BoxXyxy;
use sightline_data::boxes::non_maximum_suppression;

use self::grouping::{Bins, PixelBox, Regions, Strategy};
use self::planes::{ColourSpace, smooth};
use self::segmentation::Graph;
use super::{Proposal, RegionProposer};
use crate::error::Result;
use crate::photo::{Filter, Photo};

/// Which boxes come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranking {
    /// Boxes that other hierarchies found too, late in their growth: the sum over all boxes of IoU⁶ / √position, where
    /// a hierarchy's last region has position one. The first 19 cover more objects than in the paper's order.
    Agreement,
    /// The paper's section 4: a random number times the position, lowest first.
    Paper {
        /// Where the random numbers begin.
        seed: u64,
    },
}

/// Selective Search; [`SelectiveSearch::default`] is the fast mode.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectiveSearch {
    /// Larger photos are scaled down to this many pixels on their longest side.
    pub longest_side: u32,
    /// Scales `k` of the first segmentations; a region there has at least `k` pixels.
    pub scales: Vec<u32>,
    /// Boxes narrower than this share of the photo's width, or lower than this share of its height, are dropped.
    pub thinnest: f32,
    /// Which boxes come first.
    pub ranking: Ranking,
    /// A box whose IoU with a better one exceeds this is dropped.
    pub suppression_iou: f32,
}

impl Default for SelectiveSearch {
    fn default() -> Self {
        Self {
            longest_side: 256,
            scales: vec![50, 100],
            thinnest: 0.05,
            ranking: Ranking::Agreement,
            suppression_iou: 0.5,
        }
    }
}

/// Smoothing before segmentation, Felzenszwalb and Huttenlocher's own figure.
const SMOOTHING_SIGMA: f32 = 0.8;

impl RegionProposer for SelectiveSearch {
    fn name(&self) -> &'static str {
        "selective-search"
    }

    fn checksum(&self) -> String {
        // The number in front goes up whenever the same settings give other boxes.
        let settings = format!("1 {self:?}");
        sightline_data::checksum::of_bytes(settings.as_bytes())
    }

    fn propose(&self, _key: &str, photo: &Photo, max: usize) -> Result<Vec<Proposal>> {
        let small = self.scale_down(photo);
        let hierarchies = self.hierarchies(&small);
        let ranked = self.rank(&hierarchies, small.width, small.height);
        let (boxes, scores): (Vec<BoxXyxy>, Vec<f32>) = ranked.into_iter().unzip();
        let kept = non_maximum_suppression(&boxes, &scores, self.suppression_iou);
        let (scale_x, scale_y) = (photo.width as f32 / small.width as f32, photo.height as f32 / small.height as f32);
        let proposals = kept.into_iter().take(max).map(|at| {
            let BoxXyxy { x1, y1, x2, y2 } = boxes[at];
            let region = BoxXyxy { x1: x1 * scale_x, y1: y1 * scale_y, x2: x2 * scale_x, y2: y2 * scale_y };
            Proposal { region: region.clip(photo.width, photo.height), score: scores[at] }
        });
        Ok(proposals.collect())
    }
}

impl SelectiveSearch {
    fn scale_down<'a>(&self, photo: &'a Photo) -> Cow<'a, Photo> {
        let longest = photo.width.max(photo.height);
        if longest <= self.longest_side {
            return Cow::Borrowed(photo);
        }
        let scaled = |side: u32| {
            let side = f64::from(side) * f64::from(self.longest_side) / f64::from(longest);
            (side.round() as u32).max(1)
        };
        Cow::Owned(photo.resize(scaled(photo.width), scaled(photo.height), Filter::Bilinear))
    }

    /// The boxes of every hierarchy, the whole photo last.
    fn hierarchies(&self, photo: &Photo) -> Vec<Vec<PixelBox>> {
        let (width, height) = (photo.width as usize, photo.height as usize);
        let mut hierarchies = Vec::new();
        for space in [ColourSpace::Hsv, ColourSpace::Lab] {
            let planes = space.planes(photo);
            let bins = Bins::new(&planes, width, height);
            let graph = Graph::new(&smooth(&planes, width, height, SMOOTHING_SIGMA), width, height);
            for &k in &self.scales {
                let regions = Regions::new(&graph.segment(k as f32, k), &bins, width);
                hierarchies.push(regions.clone().group(Strategy::Ctsf));
                hierarchies.push(regions.group(Strategy::Tsf));
            }
        }
        hierarchies
    }

    /// Every box once with its score, in an order that depends on nothing but the hierarchies; without the whole photo.
    fn rank(&self, hierarchies: &[Vec<PixelBox>], width: u32, height: u32) -> Vec<(BoxXyxy, f32)> {
        let (least_width, least_height) = (self.thinnest * width as f32, self.thinnest * height as f32);
        let whole = PixelBox { x1: 0, y1: 0, x2: width, y2: height };
        // The weights of each box's finds; a map in order, so that sums and ties are the same every time.
        let mut found: BTreeMap<PixelBox, Vec<f64>> = BTreeMap::new();
        let mut n_drawn = 0;
        for hierarchy in hierarchies {
            for (index, region) in hierarchy.iter().enumerate() {
                let position = (hierarchy.len() - index) as f64;
                let weight = match self.ranking {
                    Ranking::Agreement => 1.0 / position.sqrt(),
                    Ranking::Paper { seed } => {
                        n_drawn += 1;
                        1.0 / (1.0 + uniform(seed, n_drawn) * position)
                    }
                };
                let is_thin =
                    ((region.x2 - region.x1) as f32) < least_width || ((region.y2 - region.y1) as f32) < least_height;
                if *region != whole && !is_thin {
                    found.entry(*region).or_default().push(weight);
                }
            }
        }
        let boxes: Vec<BoxXyxy> = found.keys().map(|b| [b.x1, b.y1, b.x2, b.y2].map(|v| v as f32).into()).collect();
        let scores: Vec<f32> = match self.ranking {
            Ranking::Agreement => {
                let weights: Vec<f32> = found.values().map(|finds| finds.iter().sum::<f64>() as f32).collect();
                agreement(&boxes, &weights)
            }
            Ranking::Paper { .. } => {
                found.values().map(|finds| finds.iter().copied().fold(0.0, f64::max) as f32).collect()
            }
        };
        boxes.into_iter().zip(scores).collect()
    }
}

/// Each box's own weight and those of all others by the sixth power of the IoU.
fn agreement(boxes: &[BoxXyxy], weights: &[f32]) -> Vec<f32> {
    let mut scores = weights.to_vec();
    for a in 0..boxes.len() {
        for b in a + 1..boxes.len() {
            let iou = boxes[a].iou(&boxes[b]);
            let cube = iou * iou * iou;
            scores[a] += cube * cube * weights[b];
            scores[b] += cube * cube * weights[a];
        }
    }
    scores
}

/// The `index`-th number in `0..1` of a stream, by SplitMix64 (Steele, Lea, Flood 2014).
fn uniform(seed: u64, index: u64) -> f64 {
    let mut z = seed.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A coloured rectangle on a plain ground.
    fn scene(width: u32, height: u32, object: [u32; 4], ground: [u8; 3], colour: [u8; 3]) -> Photo {
        let mut pixels = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let inside = x >= object[0] && y >= object[1] && x < object[2] && y < object[3];
                pixels.extend(if inside { colour } else { ground });
            }
        }
        Photo::from_rgb(width, height, pixels)
    }

    #[test]
    fn the_object_of_two_colours_is_found() {
        let check = |photo: &Photo, object: [u32; 4]| {
            let truth = BoxXyxy::from(object.map(|v| v as f32));
            for ranking in [Ranking::Agreement, Ranking::Paper { seed: 7 }] {
                let proposals =
                    SelectiveSearch { ranking, ..SelectiveSearch::default() }.propose("", photo, 19).unwrap();
                let best = proposals.iter().map(|p| p.region.iou(&truth)).fold(0.0, f32::max);
                assert!(best > 0.8, "{ranking:?}: {object:?} in {photo:?}, got {proposals:?}");
            }
        };
        let object = [40, 30, 90, 100];
        check(&scene(128, 128, object, [40, 120, 60], [200, 40, 30]), object);
        check(&scene(128, 120, object, [200, 40, 30], [200, 40, 160]), object);
        check(&scene(160, 120, object, [90, 90, 90], [180, 180, 180]), object);
        // Twice the size at which it is looked for: boxes come back in the photo's own pixels.
        let object = [100, 60, 300, 280];
        check(&scene(512, 400, object, [20, 30, 140], [220, 210, 40]), object);
    }

    #[test]
    fn photos_without_anything_in_them() {
        let search = SelectiveSearch::default();
        for (width, height) in [(1, 1), (1, 9), (9, 1), (200, 1), (1, 3000), (64, 48), (3000, 2)] {
            assert_eq!(search.propose("", &Photo::uniform(width, height, [90, 10, 10]), 19).unwrap(), []);
        }
    }

    #[test]
    fn a_line_of_pixels_has_parts() {
        let photo = scene(400, 1, [0, 0, 180, 1], [250, 250, 250], [0, 0, 0]);
        let proposals = SelectiveSearch::default().propose("", &photo, 19).unwrap();
        let truth = BoxXyxy { x1: 0.0, y1: 0.0, x2: 180.0, y2: 1.0 };
        assert!(proposals.iter().any(|p| p.region.iou(&truth) > 0.9), "{proposals:?}");
    }

    #[test]
    fn agreement_by_hand() {
        let boxes = [[0., 0., 2., 2.], [0., 0., 2., 1.], [5., 5., 6., 6.]].map(BoxXyxy::from);
        let shared = 0.5f32.powi(6);
        assert_eq!(agreement(&boxes, &[1.0, 3.0, 0.5]), [1.0 + 3.0 * shared, 3.0 + shared, 0.5]);
    }

    #[test]
    fn settings_show_in_the_checksum() {
        let search = SelectiveSearch::default();
        let other = SelectiveSearch { thinnest: 0.1, ..search.clone() };
        assert_eq!(search.checksum(), SelectiveSearch::default().checksum());
        assert_ne!(search.checksum(), other.checksum());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn proposals_are_valid_and_always_the_same(
            width in 1u32..70,
            height in 1u32..70,
            seed: u64,
            block in 1u32..20,
            max in 0usize..30,
            is_paper: bool,
        ) {
            let mut pixels = Vec::new();
            for y in 0..height {
                for x in 0..width {
                    let tile = u64::from(y / block * 1000 + x / block);
                    pixels.extend((0..3).map(|c| (uniform(seed, tile * 3 + c) * 256.0) as u8));
                }
            }
            let photo = Photo::from_rgb(width, height, pixels);
            let ranking = if is_paper { Ranking::Paper { seed } } else { Ranking::Agreement };
            let search = SelectiveSearch { longest_side: 48, scales: vec![5, 20], ranking, ..SelectiveSearch::default() };
            let proposals = search.propose("", &photo, max).unwrap();
            prop_assert_eq!(&proposals, &search.propose("", &photo, max).unwrap());
            prop_assert!(proposals.len() <= max);
            prop_assert!(proposals.is_sorted_by(|a, b| a.score >= b.score));
            for (at, Proposal { region, .. }) in proposals.iter().enumerate() {
                prop_assert!(region.area() > 0.0 && *region == region.clip(width, height), "{:?}", region);
                for better in &proposals[..at] {
                    prop_assert!(better.region.iou(region) <= search.suppression_iou + 1e-4);
                }
            }
        }
    }
}
