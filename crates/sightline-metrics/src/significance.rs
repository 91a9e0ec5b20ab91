//! How sure a score is: bootstrap confidence intervals, and a paired test between two systems.
//!
//! Metrics of a corpus are not means of images, so whole corpora are drawn again: images with replacement, scores from
//! the sums of their counts (Koehn 2004). The p-value is that of approximate randomisation (Riezler and Maxwell 2005):
//! how often exchanging the two systems' outputs on random images makes a difference at least as large.
//!
//! Everything is repeatable: the same seed gives the same numbers on any number of threads.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::caption::{CaptionCounts, ImageCounts};
use crate::meteor::Parameters;

/// A score with the range that holds it at the given confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The score of the whole corpus.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// One metric of two systems.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// The first system's score.
    pub first: f64,
    /// The second system's score.
    pub second: f64,
    /// Second minus first, with its confidence interval.
    pub difference: Interval,
    /// Two-sided p-value of no difference.
    pub p: f64,
}

/// How to draw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draws {
    /// How many corpora are drawn.
    pub samples: usize,
    /// The confidence of the intervals, 0..1.
    pub confidence: f64,
    /// The seed of the draws.
    pub seed: u64,
}

impl Default for Draws {
    fn default() -> Self {
        Self { samples: 1000, confidence: 0.95, seed: 1 }
    }
}

/// SplitMix64 (Steele et al. 2014): small, and good enough to pick images.
struct Generator(u64);

impl Generator {
    fn new(seed: u64, stream: usize) -> Self {
        let mut generator = Self(seed ^ (stream as u64).wrapping_mul(0xd134_2543_de82_ef95));
        generator.next();
        generator
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

/// Intervals of any metrics of `images` items: `score` gives the metrics of the corpus of these items, repeats included.
pub fn bootstrap<const M: usize>(
    images: usize,
    draws: &Draws,
    score: impl Fn(&[usize]) -> [f64; M] + Sync,
) -> [Interval; M] {
    let all: Vec<usize> = (0..images).collect();
    let value = score(&all);
    let samples: Vec<[f64; M]> =
        (0..draws.samples).into_par_iter().map(|sample| score(&drawn(images, draws.seed, sample))).collect();
    std::array::from_fn(|m| interval(value[m], samples.iter().map(|s| s[m]).collect(), draws.confidence))
}

/// A paired comparison of two systems on the same `images` items: `score` gives the metrics of a corpus in which item
/// `i` comes from the second system where the flag is set, from the first where it is not.
pub fn paired<const M: usize>(
    images: usize,
    draws: &Draws,
    score: impl Fn(&mut dyn Iterator<Item = (usize, bool)>) -> [f64; M] + Sync,
) -> [Paired; M] {
    let of = |second: bool, items: &[usize]| score(&mut items.iter().map(|&i| (i, second)));
    let all: Vec<usize> = (0..images).collect();
    let (first, second) = (of(false, &all), of(true, &all));
    let differences: Vec<[f64; M]> = (0..draws.samples)
        .into_par_iter()
        .map(|sample| {
            let items = drawn(images, draws.seed, sample);
            let (a, b) = (of(false, &items), of(true, &items));
            std::array::from_fn(|m| b[m] - a[m])
        })
        .collect();
    let exchanged: Vec<[f64; M]> = (0..draws.samples)
        .into_par_iter()
        .map(|sample| {
            let mut generator = Generator::new(!draws.seed, sample);
            let swapped: Vec<bool> = (0..images).map(|_| generator.next() >> 63 == 1).collect();
            let a = score(&mut (0..images).map(|i| (i, swapped[i])));
            let b = score(&mut (0..images).map(|i| (i, !swapped[i])));
            std::array::from_fn(|m| b[m] - a[m])
        })
        .collect();
    std::array::from_fn(|m| {
        let difference = second[m] - first[m];
        // A hair of tolerance: sums in another order differ in their last digits.
        let as_large = exchanged.iter().filter(|d| d[m].abs() >= difference.abs() - 1e-12).count();
        Paired {
            first: first[m],
            second: second[m],
            difference: interval(difference, differences.iter().map(|d| d[m]).collect(), draws.confidence),
            p: (as_large + 1) as f64 / (draws.samples + 1) as f64,
        }
    })
}

fn drawn(images: usize, seed: u64, sample: usize) -> Vec<usize> {
    let mut generator = Generator::new(seed, sample);
    (0..images).map(|_| generator.below(images)).collect()
}

/// The percentile interval.
fn interval(value: f64, mut samples: Vec<f64>, confidence: f64) -> Interval {
    if samples.is_empty() {
        return Interval { value, low: value, high: value };
    }
    samples.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share).round() as usize];
    Interval { value, low: at(tail), high: at(1.0 - tail) }
}

/// The metrics of a caption evaluation, in the order of [`caption_metrics`].
pub const CAPTION_METRICS: [&str; 7] = ["bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge_l", "cider"];

/// The scores of a caption evaluation from its counts; METEOR is 0 where it was left out.
pub fn caption_metrics(counts: &CaptionCounts, meteor: Option<&Parameters>) -> [f64; 7] {
    let [bleu1, bleu2, bleu3, bleu4] = counts.bleu.scores();
    let meteor = meteor.map_or(0.0, |parameters| counts.meteor.score(parameters));
    [bleu1, bleu2, bleu3, bleu4, meteor, counts.rouge.score(), counts.cider.score().cider_d]
}

/// Intervals of [`CAPTION_METRICS`] over the images of one system.
pub fn bootstrap_captions(images: &[ImageCounts], meteor: Option<&Parameters>, draws: &Draws) -> [Interval; 7] {
    bootstrap(images.len(), draws, |items| {
        let mut counts = CaptionCounts::default();
        items.iter().for_each(|&i| counts.push(&images[i]));
        caption_metrics(&counts, meteor)
    })
}

/// A paired comparison of [`CAPTION_METRICS`] of two systems on the same images, in the same order.
///
/// Panics when the lists differ in length.
pub fn compare_captions(
    first: &[ImageCounts],
    second: &[ImageCounts],
    meteor: Option<&Parameters>,
    draws: &Draws,
) -> [Paired; 7] {
    assert_eq!(first.len(), second.len(), "both systems on the same images");
    paired(first.len(), draws, |items| {
        let mut counts = CaptionCounts::default();
        items.for_each(|(i, is_second)| counts.push(if is_second { &second[i] } else { &first[i] }));
        caption_metrics(&counts, meteor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn intervals_of_a_mean_are_those_of_the_normal_law() {
        // 400 coins: the mean is 0.5 and its standard error 0.025, so 95 % lie within 0.049.
        let coins: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
        let draws = Draws { samples: 4000, ..Draws::default() };
        let [found] = bootstrap(400, &draws, |items| [items.iter().map(|&i| coins[i]).sum::<f64>() / 400.0]);
        assert_eq!(found.value, 0.5);
        assert!((found.low - 0.451).abs() < 0.006 && (found.high - 0.549).abs() < 0.006, "{found:?}");
        let [again] = bootstrap(400, &draws, |items| [items.iter().map(|&i| coins[i]).sum::<f64>() / 400.0]);
        assert_eq!(found, again, "repeatable");
    }

    #[test]
    fn equal_systems_do_not_differ_and_a_better_one_does() {
        let first: Vec<f64> = (0..200).map(|i| f64::from(i % 10)).collect();
        let better: Vec<f64> = first.iter().enumerate().map(|(i, v)| v + f64::from(i % 3 == 0)).collect();
        let compare = |second: &[f64]| {
            let [found] = paired(200, &Draws::default(), |items| {
                [mean(&items.map(|(i, is_second)| if is_second { second[i] } else { first[i] }).collect::<Vec<_>>())]
            });
            found
        };
        let same = compare(&first);
        assert_eq!((same.difference.value, same.p), (0.0, 1.0));
        let found = compare(&better);
        assert!(found.p < 0.01 && found.difference.low > 0.0, "{found:?}");
        assert!((found.difference.value - 0.335).abs() < 1e-9, "{found:?}");
    }
}
