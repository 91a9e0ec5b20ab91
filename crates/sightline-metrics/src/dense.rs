//! Dense captioning (Johnson et al. 2016): mean average precision over thresholds of overlap and of METEOR.
//!
//! A described region is right when it overlaps a true region by at least the one threshold and its sentence scores more
//! than the other, so that a place without a right word is never right; average precision is taken for every pair of thresholds and then averaged. Every description is
//! compared with the true region it overlaps most, and only the most confident one of each true region can be right.

use crate::grounding::{BoxXyxy, iou};

/// Thresholds of overlap.
pub const IOU_THRESHOLDS: [f32; 5] = [0.3, 0.4, 0.5, 0.6, 0.7];
/// Thresholds of METEOR.
pub const METEOR_THRESHOLDS: [f64; 6] = [0.0, 0.05, 0.1, 0.15, 0.2, 0.25];
/// True regions that overlap more than this are one region with several sentences.
const SAME_REGION: f32 = 0.7;

/// A region that a system describes.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// The region.
    pub region: BoxXyxy,
    /// How sure the system is; larger is surer.
    pub confidence: f64,
    /// Its sentence.
    pub caption: String,
}

/// A region of the truth with its sentences.
#[derive(Debug, Clone, PartialEq)]
pub struct TrueRegion {
    /// The region.
    pub region: BoxXyxy,
    /// Its sentences.
    pub captions: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Described {
    confidence: f64,
    overlap: f32,
    meteor: f64,
    /// Whether it is the most confident one at its true region.
    is_first: bool,
}

/// What the metric keeps of images; [`merge`](Self::merge) adds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DenseCounts {
    described: Vec<Described>,
    truths: u64,
}

/// True regions that overlap by more than 0.7 made one, with the mean box and all sentences: the region with the most
/// such neighbours first, until none is left.
pub fn merge_true_regions(regions: &[TrueRegion]) -> Vec<TrueRegion> {
    let mut left: Vec<&TrueRegion> = regions.iter().collect();
    let mut merged = Vec::new();
    while !left.is_empty() {
        let neighbours = |of: &TrueRegion| -> Vec<usize> {
            (0..left.len()).filter(|&i| iou(&left[i].region, &of.region) > SAME_REGION).collect()
        };
        // The first of the largest groups; a region without an area is no neighbour even of itself.
        let mut group = vec![0];
        for region in &left {
            let found = neighbours(region);
            if found.len() > group.len() {
                group = found;
            }
        }
        let count = group.len() as f32;
        let region = std::array::from_fn(|side| group.iter().map(|&i| left[i].region[side]).sum::<f32>() / count);
        let captions = group.iter().flat_map(|&i| left[i].captions.iter().cloned()).collect();
        merged.push(TrueRegion { region, captions });
        let mut place = 0;
        left.retain(|_| {
            place += 1;
            !group.contains(&(place - 1))
        });
    }
    merged
}

impl DenseCounts {
    /// Counts one image. `meteor` scores a sentence against the sentences of a true region.
    pub fn push(
        &mut self,
        detections: &[Detection],
        truth: &[TrueRegion],
        mut meteor: impl FnMut(&str, &[String]) -> f64,
    ) {
        let truth = merge_true_regions(truth);
        let mut order: Vec<&Detection> = detections.iter().collect();
        order.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        let mut taken = vec![false; truth.len()];
        for detection in order {
            let best = truth.iter().enumerate().map(|(i, t)| (i, iou(&detection.region, &t.region))).fold(
                None,
                |best: Option<(usize, f32)>, (i, overlap)| match best {
                    Some((_, most)) if most >= overlap => best,
                    _ if overlap > 0.0 => Some((i, overlap)),
                    _ => best,
                },
            );
            let mut described =
                Described { confidence: detection.confidence, overlap: 0.0, meteor: 0.0, is_first: false };
            if let Some((i, overlap)) = best {
                described.overlap = overlap;
                described.meteor = meteor(&detection.caption, &truth[i].captions);
                described.is_first = !taken[i];
                taken[i] = true;
            }
            self.described.push(described);
        }
        self.truths += truth.len() as u64;
    }

    /// Adds the images of another part.
    pub fn merge(&mut self, other: &Self) {
        self.described.extend_from_slice(&other.described);
        self.truths += other.truths;
    }

    /// Average precision at one pair of thresholds, 0..1: precision at 101 points of recall, each the best from there on.
    pub fn average_precision(&self, overlap: f32, meteor: f64) -> f64 {
        if self.truths == 0 {
            return 0.0;
        }
        let mut order: Vec<&Described> = self.described.iter().collect();
        order.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        let mut right = 0_u64;
        let mut curve: Vec<(f64, f64)> = Vec::with_capacity(order.len()); // recall, precision
        for (i, described) in order.iter().enumerate() {
            let is_right = described.is_first && described.overlap >= overlap && described.meteor > meteor;
            right += u64::from(is_right);
            curve.push((right as f64 / self.truths as f64, right as f64 / (i + 1) as f64));
        }
        for i in (1..curve.len()).rev() {
            curve[i - 1].1 = curve[i - 1].1.max(curve[i].1);
        }
        let at = |recall: f64| curve.iter().find(|point| point.0 >= recall).map_or(0.0, |point| point.1);
        (0..=100).map(|hundredth| at(f64::from(hundredth) / 100.0)).sum::<f64>() / 101.0
    }

    /// Mean average precision over [`IOU_THRESHOLDS`] and [`METEOR_THRESHOLDS`], 0..1.
    pub fn mean_average_precision(&self) -> f64 {
        let all = IOU_THRESHOLDS.iter().flat_map(|&o| METEOR_THRESHOLDS.iter().map(move |&m| (o, m)));
        let count = (IOU_THRESHOLDS.len() * METEOR_THRESHOLDS.len()) as f64;
        all.map(|(overlap, meteor)| self.average_precision(overlap, meteor)).sum::<f64>() / count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detection(region: BoxXyxy, confidence: f64, caption: &str) -> Detection {
        Detection { region, confidence, caption: caption.to_owned() }
    }

    fn truth(region: BoxXyxy, caption: &str) -> TrueRegion {
        TrueRegion { region, captions: vec![caption.to_owned()] }
    }

    fn same(caption: &str, truth: &[String]) -> f64 {
        f64::from(truth.iter().any(|t| t == caption))
    }

    const A: BoxXyxy = [0.0, 0.0, 10.0, 10.0];
    const B: BoxXyxy = [20.0, 20.0, 30.0, 30.0];

    #[test]
    fn perfect_output_scores_one_and_wrong_words_do_not() {
        let mut counts = DenseCounts::default();
        let regions = [truth(A, "dog"), truth(B, "cat")];
        counts.push(&[detection(A, 0.9, "dog"), detection(B, 0.8, "cat")], &regions, same);
        assert!((counts.mean_average_precision() - 1.0).abs() < 1e-12);
        let mut wrong = DenseCounts::default();
        wrong.push(&[detection(A, 0.9, "cat"), detection(B, 0.8, "dog")], &regions, same);
        // Not even where any METEOR above nothing will do.
        assert_eq!(wrong.mean_average_precision(), 0.0);
    }

    #[test]
    fn a_second_description_of_a_region_is_wrong() {
        let mut counts = DenseCounts::default();
        counts.push(&[detection(A, 0.5, "dog"), detection(A, 0.9, "dog")], &[truth(A, "dog"), truth(B, "cat")], same);
        // One of two found, at the first place: precision 1 up to recall 0.5, which are 51 of 101 points.
        assert!((counts.average_precision(0.5, 0.1) - 51.0 / 101.0).abs() < 1e-12);
    }

    #[test]
    fn parts_merge_and_near_truths_become_one() {
        let near = [0.0, 0.0, 10.0, 9.0];
        let merged = merge_true_regions(&[truth(A, "dog"), truth(B, "cat"), truth(near, "puppy")]);
        assert_eq!(merged.len(), 2);
        assert_eq!(merged[0].captions, ["dog", "puppy"]);
        assert_eq!(merged[0].region, [0.0, 0.0, 10.0, 9.5]);
        let (mut first, mut second, mut whole): (DenseCounts, DenseCounts, DenseCounts) = Default::default();
        let images = [([detection(A, 0.3, "dog")], [truth(A, "dog")]), ([detection(B, 0.7, "x")], [truth(A, "cat")])];
        DenseCounts::push(&mut first, &images[0].0, &images[0].1, same);
        second.push(&images[1].0, &images[1].1, same);
        for (detections, truths) in &images {
            DenseCounts::push(&mut whole, detections, truths, same);
        }
        first.merge(&second);
        assert_eq!(first.mean_average_precision(), whole.mean_average_precision());
    }
}
