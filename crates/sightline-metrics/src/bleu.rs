//! BLEU-1..4 (Papineni et al. 2002) with the closest reference length, as coco-caption computes it.
//!
//! A sentence is reduced to [`BleuCounts`]; counts add, and a corpus is scored once from its sum. The corpus score is
//! not the mean of sentence scores.

use crate::text::{Interner, pack, words};

const TINY: f64 = 1e-15;
const SMALL: f64 = 1e-9;

/// What BLEU keeps of one or of many hypotheses; [`merge`](Self::merge) adds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BleuCounts {
    /// N-grams of the hypothesis that a reference holds too, clipped by the largest count in one reference; n = 1..4.
    pub correct: [u64; 4],
    /// N-grams of the hypothesis; n = 1..4.
    pub guess: [u64; 4],
    /// Words of the hypothesis.
    pub hypothesis_length: u64,
    /// Words of the reference whose length is closest; the shorter one wins a tie.
    pub reference_length: u64,
}

impl BleuCounts {
    /// Counts of one hypothesis against its references, given as words.
    pub fn of(hypothesis: &[&str], references: &[&[&str]]) -> Self {
        let mut interner = Interner::default();
        let hypothesis: Vec<u32> = hypothesis.iter().map(|w| interner.id(w)).collect();
        let references: Vec<Vec<u32>> = references.iter().map(|r| r.iter().map(|w| interner.id(w)).collect()).collect();
        Self::of_ids(&hypothesis, &references)
    }

    /// Counts of one hypothesis against its references, given as text that is split at white space.
    pub fn of_text(hypothesis: &str, references: &[impl AsRef<str>]) -> Self {
        let hypothesis: Vec<&str> = words(hypothesis).collect();
        let references: Vec<Vec<&str>> = references.iter().map(|r| words(r.as_ref()).collect()).collect();
        let references: Vec<&[&str]> = references.iter().map(Vec::as_slice).collect();
        Self::of(&hypothesis, &references)
    }

    /// Counts of one hypothesis against its references, given as numbers of words (any injective numbering).
    pub fn of_ids(hypothesis: &[u32], references: &[impl AsRef<[u32]>]) -> Self {
        let length = hypothesis.len();
        let reference_length =
            references.iter().map(|r| r.as_ref().len()).min_by_key(|&l| (l.abs_diff(length), l)).unwrap_or(0);
        let mut counts =
            Self { hypothesis_length: length as u64, reference_length: reference_length as u64, ..Self::default() };
        let mut seen: Vec<(u128, u32, u32, u32)> = Vec::with_capacity(length); // n-gram, here, this ref, best ref
        for n in 1..=4 {
            counts.guess[n - 1] = (length + 1).saturating_sub(n) as u64;
            let mut grams: Vec<u128> = hypothesis.windows(n).map(pack).collect();
            grams.sort_unstable();
            seen.clear();
            for gram in grams {
                match seen.last_mut() {
                    Some(last) if last.0 == gram => last.1 += 1,
                    _ => seen.push((gram, 1, 0, 0)),
                }
            }
            for reference in references {
                for gram in reference.as_ref().windows(n).map(pack) {
                    if let Ok(at) = seen.binary_search_by_key(&gram, |s| s.0) {
                        seen[at].2 += 1;
                    }
                }
                for s in &mut seen {
                    s.3 = s.3.max(s.2);
                    s.2 = 0;
                }
            }
            counts.correct[n - 1] = seen.iter().map(|s| u64::from(s.1.min(s.3))).sum();
        }
        counts
    }

    /// Adds the counts of other hypotheses.
    pub fn merge(&mut self, other: &Self) {
        for n in 0..4 {
            self.correct[n] += other.correct[n];
            self.guess[n] += other.guess[n];
        }
        self.hypothesis_length += other.hypothesis_length;
        self.reference_length += other.reference_length;
    }

    /// BLEU-1, -2, -3 and -4 of these counts, 0..1: a sentence's score or, from a sum of counts, the corpus score.
    ///
    /// The tiny terms of the reference keep a sentence without a match at a hair above zero.
    pub fn scores(&self) -> [f64; 4] {
        let ratio = (self.hypothesis_length as f64 + TINY) / (self.reference_length as f64 + SMALL);
        let brevity = if ratio < 1.0 { (1.0 - 1.0 / ratio).exp() } else { 1.0 };
        let mut product = 1.0;
        std::array::from_fn(|n| {
            product *= (self.correct[n] as f64 + TINY) / (self.guess[n] as f64 + SMALL);
            f64::powf(product, 1.0 / (n + 1) as f64) * brevity
        })
    }
}

impl std::ops::AddAssign for BleuCounts {
    fn add_assign(&mut self, other: Self) {
        self.merge(&other);
    }
}

impl std::iter::Sum for BleuCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |mut sum, c| {
            sum += c;
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_and_takes_the_closest_length() {
        // Papineni et al., section 2.1, example 2: modified unigram precision 2/7.
        let counts =
            BleuCounts::of_text("the the the the the the the", &["the cat is on the mat", "there is a cat on the mat"]);
        assert_eq!(counts.correct, [2, 0, 0, 0]);
        assert_eq!(counts.guess, [7, 6, 5, 4]);
        assert_eq!((counts.hypothesis_length, counts.reference_length), (7, 7));
        assert_eq!(BleuCounts::of_text("a b c", &["a b", "a b c d"]).reference_length, 2, "a tie takes the shorter");
    }

    #[test]
    fn empty_hypothesis_scores_exactly_zero() {
        assert_eq!(BleuCounts::of_text("", &["a dog"]).scores(), [0.0; 4]);
    }

    #[test]
    fn a_hypothesis_equal_to_a_reference_scores_one() {
        for score in BleuCounts::of_text("a dog runs in the park", &["a cat", "a dog runs in the park"]).scores() {
            assert!((score - 1.0).abs() < 1e-8, "{score}");
        }
    }
}
