//! Grounding: does a word or phrase point at the right place of the photo?
//!
//! - pointing game (Zhang et al. 2016): the point lies in a true box;
//! - IoU accuracy: the chosen box overlaps a true box by at least a threshold, 0.5 unless said otherwise;
//! - phrase recall@k (Plummer et al. 2015): one of the first k boxes does.
//!
//! A phrase may have several true boxes (all of a category, say); any of them counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A box `[x1, y1, x2, y2]` in pixels, `x1 <= x2`, `y1 <= y2`.
pub type BoxXyxy = [f32; 4];

/// Intersection over union of two boxes, 0..1; 0 where both are empty.
pub fn iou(a: &BoxXyxy, b: &BoxXyxy) -> f32 {
    let side = |low_a: f32, high_a: f32, low_b: f32, high_b: f32| (high_a.min(high_b) - low_a.max(low_b)).max(0.0);
    let area = |b: &BoxXyxy| (b[2] - b[0]).max(0.0) * (b[3] - b[1]).max(0.0);
    let intersection = side(a[0], a[2], b[0], b[2]) * side(a[1], a[3], b[1], b[3]);
    let union = area(a) + area(b) - intersection;
    if union > 0.0 { intersection / union } else { 0.0 }
}

/// The centre of a box.
pub fn centre(b: &BoxXyxy) -> [f32; 2] {
    [(b[0] + b[2]) / 2.0, (b[1] + b[3]) / 2.0]
}

/// Whether a point `[x, y]` lies in one of the boxes, borders included.
pub fn points_at(point: [f32; 2], truth: &[BoxXyxy]) -> bool {
    truth.iter().any(|b| (b[0]..=b[2]).contains(&point[0]) && (b[1]..=b[3]).contains(&point[1]))
}

/// Whether a box overlaps one of the true boxes by at least `threshold`.
pub fn overlaps(found: &BoxXyxy, truth: &[BoxXyxy], threshold: f32) -> bool {
    truth.iter().any(|b| iou(found, b) >= threshold)
}

/// The ks of phrase recall.
pub const RECALL_AT: [usize; 3] = [1, 5, 10];

/// Counts of grounded nouns or phrases; they add.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroundingCounts {
    /// Nouns counted.
    pub nouns: u64,
    /// Nouns whose point lies in a true box.
    pub pointing: u64,
    /// Nouns whose first box overlaps a true one by half.
    pub box_iou50: u64,
    /// Nouns of which one of the first k boxes does, k by [`RECALL_AT`].
    pub recall: [u64; 3],
    /// Nouns of which any box does: the bound that the proposals set.
    pub covered: u64,
}

impl GroundingCounts {
    /// Counts one noun: the point it is said to be at, its boxes best first, and the true boxes.
    pub fn push(&mut self, point: [f32; 2], ranked: &[BoxXyxy], truth: &[BoxXyxy]) {
        let first_hit = ranked.iter().position(|b| overlaps(b, truth, 0.5));
        self.nouns += 1;
        self.pointing += u64::from(points_at(point, truth));
        self.box_iou50 += u64::from(first_hit == Some(0));
        for (count, k) in self.recall.iter_mut().zip(RECALL_AT) {
            *count += u64::from(first_hit.is_some_and(|hit| hit < k));
        }
        self.covered += u64::from(first_hit.is_some());
    }

    /// Adds the nouns of another part.
    pub fn merge(&mut self, other: &Self) {
        self.nouns += other.nouns;
        self.pointing += other.pointing;
        self.box_iou50 += other.box_iou50;
        for (mine, theirs) in self.recall.iter_mut().zip(other.recall) {
            *mine += theirs;
        }
        self.covered += other.covered;
    }

    /// The fractions; zeros of nothing.
    pub fn score(&self) -> GroundingScore {
        let share = |count: u64| if self.nouns == 0 { 0.0 } else { count as f64 / self.nouns as f64 };
        GroundingScore {
            nouns: self.nouns,
            pointing: share(self.pointing),
            box_iou50: share(self.box_iou50),
            recall1: share(self.recall[0]),
            recall5: share(self.recall[1]),
            recall10: share(self.recall[2]),
            covered: share(self.covered),
        }
    }
}

/// Fractions of nouns, 0..1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct GroundingScore {
    /// Nouns counted.
    pub nouns: u64,
    /// Pointing game.
    pub pointing: f64,
    /// The chosen box overlaps a true one by half.
    pub box_iou50: f64,
    /// Phrase recall@1.
    pub recall1: f64,
    /// Phrase recall@5.
    pub recall5: f64,
    /// Phrase recall@10.
    pub recall10: f64,
    /// Share that any box overlaps by half: what no choice among these boxes can exceed.
    pub covered: f64,
}

/// A grounding evaluation, serialised as the project's record of it: fractions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GroundingReport {
    /// The system's scores.
    #[serde(flatten)]
    pub score: GroundingScore,
    /// What choosing without reading the noun gives: `random`, `largest`, `whole`, `surest`.
    pub baselines: BTreeMap<String, GroundingScore>,
    /// The system's scores by category of the noun.
    pub categories: BTreeMap<String, GroundingScore>,
}

/// Collects a grounding evaluation; parts merge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grounding {
    /// The system's counts.
    pub counts: GroundingCounts,
    /// Counts of the baselines by name.
    pub baselines: BTreeMap<String, GroundingCounts>,
    /// Counts by category.
    pub categories: BTreeMap<String, GroundingCounts>,
}

impl Grounding {
    /// Counts one noun of a category: see [`GroundingCounts::push`].
    pub fn push(&mut self, category: &str, point: [f32; 2], ranked: &[BoxXyxy], truth: &[BoxXyxy]) {
        self.counts.push(point, ranked, truth);
        self.categories.entry(category.to_owned()).or_default().push(point, ranked, truth);
    }

    /// Counts the same noun for a baseline that points at the centre of its first box.
    pub fn push_baseline(&mut self, name: &str, ranked: &[BoxXyxy], truth: &[BoxXyxy]) {
        let point = ranked.first().map_or([f32::NAN; 2], centre);
        self.baselines.entry(name.to_owned()).or_default().push(point, ranked, truth);
    }

    /// Adds another part.
    pub fn merge(&mut self, other: &Self) {
        self.counts.merge(&other.counts);
        for (mine, theirs) in [(&mut self.baselines, &other.baselines), (&mut self.categories, &other.categories)] {
            for (name, counts) in theirs {
                mine.entry(name.clone()).or_default().merge(counts);
            }
        }
    }

    /// The record.
    pub fn report(&self) -> GroundingReport {
        let scores = |counts: &BTreeMap<String, GroundingCounts>| {
            counts.iter().map(|(name, counts)| (name.clone(), counts.score())).collect()
        };
        GroundingReport {
            score: self.counts.score(),
            baselines: scores(&self.baselines),
            categories: scores(&self.categories),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_by_hand() {
        assert_eq!(iou(&[0.0, 0.0, 2.0, 2.0], &[1.0, 0.0, 3.0, 2.0]), 1.0 / 3.0);
        assert_eq!(iou(&[0.0; 4], &[0.0; 4]), 0.0);
        assert_eq!(iou(&[0.0, 0.0, 1.0, 1.0], &[2.0, 2.0, 3.0, 3.0]), 0.0);
    }

    #[test]
    fn counts_and_record() {
        let truth = [[0.0, 0.0, 10.0, 10.0]];
        let far = [50.0, 50.0, 60.0, 60.0];
        let mut all = Grounding::default();
        all.push("dog", [5.0, 5.0], &[truth[0], far], &truth);
        let mut part = Grounding::default();
        part.push("dog", [10.0, 11.0], &[far, truth[0]], &truth);
        part.push("ball", [0.0, 0.0], &[far], &truth);
        part.push_baseline("whole", &[[0.0, 0.0, 12.0, 12.0]], &truth);
        all.merge(&part);
        let report = all.report();
        assert_eq!(report.score.nouns, 3);
        assert_eq!((report.score.pointing, report.score.box_iou50), (2.0 / 3.0, 1.0 / 3.0));
        assert_eq!((report.score.recall1, report.score.recall5), (1.0 / 3.0, 2.0 / 3.0));
        assert_eq!(report.score.covered, 2.0 / 3.0);
        assert_eq!(report.baselines["whole"].box_iou50, 1.0);
        assert_eq!(report.categories["ball"].pointing, 1.0);
        let json = serde_json::to_value(&report).unwrap();
        for key in ["nouns", "pointing", "box_iou50", "baselines", "categories"] {
            assert!(json.get(key).is_some(), "{key}");
        }
    }
}
