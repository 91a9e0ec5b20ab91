//! How varied captions are: distinct n-grams, vocabulary, and what is only repeated from training.

use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::text::words;

/// What diversity keeps of captions; [`merge`](Self::merge) adds. N-grams are kept as 128-bit hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiversityCounts {
    captions: u64,
    verbatim: u64,
    words: u64,
    ngrams: [u64; 4],
    distinct: [FxHashSet<u128>; 4],
    distinct_captions: FxHashSet<u128>,
}

/// How varied captions are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct DiversityReport {
    /// Captions counted.
    pub captions: u64,
    /// Different words.
    pub vocabulary: u64,
    /// Words a caption on average.
    pub mean_length: f64,
    /// Different 1-, 2-, 3- and 4-grams over all of them, 0..1.
    pub distinct: [f64; 4],
    /// Share of captions that differ from all before, 0..1.
    pub unique: f64,
    /// Share of captions that stand word by word in the training captions, 0..1; none where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verbatim: Option<f64>,
}

/// The captions of a training split, to find repeats.
#[derive(Debug, Clone, Default)]
pub struct TrainingCaptions(FxHashSet<u128>);

fn hash(words: &[&str]) -> u128 {
    xxh3_128(words.join(" ").as_bytes())
}

impl TrainingCaptions {
    /// Of tokenised captions.
    pub fn of<S: AsRef<str>>(captions: &[S]) -> Self {
        Self(captions.iter().map(|c| hash(&words(c.as_ref()).collect::<Vec<_>>())).collect())
    }

    /// Whether this tokenised caption is one of them, blanks aside.
    pub fn contains(&self, caption: &str) -> bool {
        self.0.contains(&hash(&words(caption).collect::<Vec<_>>()))
    }
}

impl DiversityCounts {
    /// Counts one tokenised caption.
    pub fn push(&mut self, caption: &str, training: &TrainingCaptions) {
        let words: Vec<&str> = words(caption).collect();
        self.captions += 1;
        self.words += words.len() as u64;
        for n in 0..4 {
            for gram in words.windows(n + 1) {
                self.ngrams[n] += 1;
                self.distinct[n].insert(hash(gram));
            }
        }
        let whole = hash(&words);
        self.verbatim += u64::from(training.0.contains(&whole));
        self.distinct_captions.insert(whole);
    }

    /// Adds the captions of another part.
    pub fn merge(&mut self, other: &Self) {
        self.captions += other.captions;
        self.verbatim += other.verbatim;
        self.words += other.words;
        for n in 0..4 {
            self.ngrams[n] += other.ngrams[n];
            self.distinct[n].extend(&other.distinct[n]);
        }
        self.distinct_captions.extend(&other.distinct_captions);
    }

    /// The report; zeros of nothing. `training` is what the captions were compared with.
    pub fn report(&self, training: &TrainingCaptions) -> DiversityReport {
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        DiversityReport {
            captions: self.captions,
            vocabulary: self.distinct[0].len() as u64,
            mean_length: share(self.words, self.captions),
            distinct: std::array::from_fn(|n| share(self.distinct[n].len() as u64, self.ngrams[n])),
            unique: share(self.distinct_captions.len() as u64, self.captions),
            verbatim: (!training.0.is_empty()).then(|| share(self.verbatim, self.captions)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_hand() {
        let training = TrainingCaptions::of(&["a dog  runs"]);
        let mut first = DiversityCounts::default();
        first.push("a dog runs", &training);
        let mut second = DiversityCounts::default();
        second.push("a dog runs", &training);
        second.push("a cat", &training);
        first.merge(&second);
        let report = first.report(&training);
        assert_eq!((report.captions, report.vocabulary), (3, 4));
        assert_eq!(report.distinct, [4.0 / 8.0, 3.0 / 5.0, 1.0 / 2.0, 0.0]);
        assert_eq!((report.unique, report.verbatim), (2.0 / 3.0, Some(2.0 / 3.0)));
        assert!((report.mean_length - 8.0 / 3.0).abs() < 1e-12);
        assert_eq!(DiversityCounts::default().report(&TrainingCaptions::default()), DiversityReport::default());
    }
}
