//! CIDEr-D (what coco-caption calls CIDEr) and plain CIDEr (Vedantam et al. 2015), without stemming.
//!
//! Weights need to know in how many images an n-gram occurs, so scoring has two passes: collect
//! [`DocumentFrequencies`] (they merge) over all references of the split, or read them from a file; then score every
//! image. One image alone has log(1) = 0 as its weight and scores 0 by definition.

use std::path::Path;

use rayon::prelude::*;
use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_64;

use crate::text::{Interner, pack, words};
use crate::{Error, Result};

/// Variance of the length penalty of CIDEr-D.
const SIGMA: f64 = 6.0;
const HEADER: &str = "sightline-document-frequencies 2";

/// In how many images every n-gram of up to four words occurs in some reference.
#[derive(Debug, Clone, Default)]
pub struct DocumentFrequencies {
    words: FxHashMap<String, u32>,
    counts: FxHashMap<u128, u32>,
    images: u64,
}

impl DocumentFrequencies {
    /// Counts one image by its tokenised references.
    pub fn push(&mut self, references: &[impl AsRef<str>]) {
        self.images += 1;
        let mut grams: Vec<u128> = Vec::new();
        for reference in references {
            let ids: Vec<u32> = words(reference.as_ref()).map(|w| self.id(w)).collect();
            for n in 1..=4 {
                grams.extend(ids.windows(n).map(pack));
            }
        }
        grams.sort_unstable();
        grams.dedup();
        for gram in grams {
            *self.counts.entry(gram).or_default() += 1;
        }
    }

    /// Counts of every image's tokenised references, in parallel.
    pub fn of<R: AsRef<[S]> + Sync, S: AsRef<str> + Sync>(references: &[R]) -> Self {
        let mut interner = Interner::default();
        let ids: Vec<Vec<Vec<u32>>> = references
            .iter()
            .map(|references| references.as_ref().iter().map(|r| interner.ids(r.as_ref())).collect())
            .collect();
        // Sorting the n-grams of all images is faster than counting them in a table, and sorts in parallel.
        let mut all: Vec<u128> = ids
            .par_iter()
            .with_min_len(64)
            .flat_map_iter(|references| {
                let grams = |n: usize| references.iter().flat_map(move |ids| ids.windows(n).map(pack));
                let mut grams: Vec<u128> = (1..=4).flat_map(grams).collect();
                grams.sort_unstable();
                grams.dedup();
                grams
            })
            .collect();
        all.par_sort_unstable();
        let runs = || all.chunk_by(|a, b| a == b);
        let mut counts = FxHashMap::with_capacity_and_hasher(runs().count(), Default::default());
        counts.extend(runs().map(|run| (run[0], run.len() as u32)));
        Self { words: interner.into_owned(), counts, images: references.len() as u64 }
    }

    /// Adds the images of another part.
    pub fn merge(&mut self, other: &Self) {
        let mut translation = vec![0; other.words.len()];
        for (word, &id) in &other.words {
            translation[id as usize] = self.id(word);
        }
        for (&gram, &count) in &other.counts {
            let translated: Vec<u32> = unpack(gram).into_iter().map(|id| translation[id as usize]).collect();
            *self.counts.entry(pack(&translated)).or_default() += count;
        }
        self.images += other.images;
    }

    /// How many images were counted.
    pub fn images(&self) -> u64 {
        self.images
    }

    /// In how many images this n-gram of one to four words occurs.
    pub fn count(&self, ngram: &str) -> u32 {
        let ids: Option<Vec<u32>> = words(ngram).map(|w| self.words.get(w).copied()).collect();
        ids.filter(|ids| (1..=4).contains(&ids.len()))
            .and_then(|ids| self.counts.get(&pack(&ids)).copied())
            .unwrap_or(0)
    }

    fn id(&mut self, word: &str) -> u32 {
        if let Some(&id) = self.words.get(word) {
            return id;
        }
        let id = self.words.len() as u32;
        self.words.insert(word.to_owned(), id);
        id
    }

    /// Writes the counts as text: a header with the number of images and the XXH3-64 of the lines behind it, then `count`,
    /// a tab and the n-gram a line.
    pub fn write(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        let mut names = vec![""; self.words.len()];
        for (word, &id) in &self.words {
            names[id as usize] = word;
        }
        let mut lines: Vec<(String, u32)> = self
            .counts
            .iter()
            .map(|(&gram, &count)| {
                (unpack(gram).into_iter().map(|id| names[id as usize]).collect::<Vec<_>>().join(" "), count)
            })
            .collect();
        lines.sort_unstable();
        let lines: String = lines.iter().map(|(gram, count)| format!("{count}\t{gram}\n")).collect();
        writeln!(out, "{HEADER}\t{}\t{:016x}", self.images, xxh3_64(lines.as_bytes()))?;
        out.write_all(lines.as_bytes())
    }

    /// Reads what [`write`](Self::write) wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let malformed = |what: &str, expected: &str, got: &str| Error::Malformed {
            path: path.to_owned(),
            what: what.to_owned(),
            expected: expected.to_owned(),
            got: format!("{got:?}"),
        };
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let (first, lines) = text.split_once('\n').unwrap_or((&text, ""));
        let header = first.strip_prefix(HEADER).and_then(|rest| {
            let (images, checksum) = rest.strip_prefix('\t')?.split_once('\t')?;
            Some((images.parse().ok()?, u64::from_str_radix(checksum, 16).ok()?))
        });
        let Some((images, checksum)) = header else {
            return Err(malformed(
                "line 1",
                &format!("{HEADER:?}, the number of images and a checksum, by tabs"),
                first,
            ));
        };
        let found = xxh3_64(lines.as_bytes());
        if found != checksum {
            let (expected, got) = (format!("the checksum {checksum:016x}"), format!("{found:016x}"));
            return Err(malformed("the lines (cut short or changed since they were written)", &expected, &got));
        }
        let mut frequencies = Self { images, ..Self::default() };
        for (number, line) in lines.lines().enumerate() {
            let parsed = line.split_once('\t').and_then(|(count, gram)| Some((count.parse::<u32>().ok()?, gram)));
            let Some((count, gram)) = parsed else {
                return Err(malformed(&format!("line {}", number + 2), "a count, a tab and an n-gram", line));
            };
            let ids: Vec<u32> = words(gram).map(|w| frequencies.id(w)).collect();
            if ids.is_empty() || ids.len() > 4 {
                return Err(malformed(&format!("line {}", number + 2), "one to four words", gram));
            }
            frequencies.counts.insert(pack(&ids), count);
        }
        Ok(frequencies)
    }
}

fn unpack(mut gram: u128) -> Vec<u32> {
    let mut ids = Vec::new();
    while gram != 0 {
        ids.push((gram as u32).wrapping_sub(1));
        gram >>= 32;
    }
    ids.reverse();
    ids
}

/// Both CIDEr scores of an image.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CiderScore {
    /// CIDEr-D, 0..10: clipped, with a penalty on differing length.
    pub cider_d: f64,
    /// Plain CIDEr, 0..10.
    pub cider: f64,
}

/// A sum of CIDEr scores; the corpus score is their mean.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CiderSum {
    /// Sums of the scores.
    pub sum: CiderScore,
    /// Images scored.
    pub images: u64,
}

impl CiderSum {
    /// Adds one image's score.
    pub fn push(&mut self, score: CiderScore) {
        self.sum.cider_d += score.cider_d;
        self.sum.cider += score.cider;
        self.images += 1;
    }

    /// Adds the images of another part.
    pub fn merge(&mut self, other: &Self) {
        self.sum.cider_d += other.sum.cider_d;
        self.sum.cider += other.sum.cider;
        self.images += other.images;
    }

    /// The means; 0 of nothing.
    pub fn score(&self) -> CiderScore {
        if self.images == 0 {
            return CiderScore::default();
        }
        let n = self.images as f64;
        CiderScore { cider_d: self.sum.cider_d / n, cider: self.sum.cider / n }
    }
}

/// The n-grams of one sentence with their weights, and the lengths of the four vectors.
struct Vector {
    /// N-gram and weight, in the order of the n-grams; one list for n = 1..4.
    weights: [Vec<(u128, f64)>; 4],
    norms: [f64; 4],
    /// What coco-caption takes for the length: the number of bigrams.
    length: f64,
}

/// Scores sentences with fixed document frequencies.
#[derive(Debug, Clone, Copy)]
pub struct Cider<'a> {
    frequencies: &'a DocumentFrequencies,
    log_images: f64,
}

impl<'a> Cider<'a> {
    /// A scorer with these frequencies.
    pub fn new(frequencies: &'a DocumentFrequencies) -> Self {
        Self { frequencies, log_images: (frequencies.images as f64).ln() }
    }

    /// Both scores of a tokenised hypothesis against its tokenised references; 0 without references.
    pub fn score(&self, hypothesis: &str, references: &[impl AsRef<str>]) -> CiderScore {
        if references.is_empty() {
            return CiderScore::default();
        }
        let mut unknown = FxHashMap::default();
        let hypothesis = self.vector(hypothesis, &mut unknown);
        let mut score = CiderScore::default();
        for reference in references {
            let reference = self.vector(reference.as_ref(), &mut unknown);
            let (clipped, plain) = similarity(&hypothesis, &reference);
            score.cider_d += clipped;
            score.cider += plain;
        }
        let scale = 10.0 / references.len() as f64;
        CiderScore { cider_d: score.cider_d * scale, cider: score.cider * scale }
    }

    fn vector<'t>(&self, text: &'t str, unknown: &mut FxHashMap<&'t str, u32>) -> Vector {
        let known = self.frequencies.words.len() as u32;
        let ids: Vec<u32> = words(text)
            .map(|word| match self.frequencies.words.get(word) {
                Some(&id) => id,
                None => {
                    let next = known + unknown.len() as u32;
                    *unknown.entry(word).or_insert(next)
                }
            })
            .collect();
        let mut norms = [0.0; 4];
        let weights = std::array::from_fn(|n| {
            let mut grams: Vec<u128> = ids.windows(n + 1).map(pack).collect();
            grams.sort_unstable();
            let mut weights: Vec<(u128, f64)> = Vec::with_capacity(grams.len());
            for same in grams.chunk_by(|a, b| a == b) {
                let frequency = self.frequencies.counts.get(&same[0]).copied().unwrap_or(0);
                let weight = same.len() as f64 * (self.log_images - f64::from(frequency.max(1)).ln());
                norms[n] += weight * weight;
                weights.push((same[0], weight));
            }
            norms[n] = norms[n].sqrt();
            weights
        });
        Vector { weights, norms, length: ids.len().saturating_sub(1) as f64 }
    }
}

/// Means over n of the clipped similarity with its length penalty, and of the plain one.
fn similarity(hypothesis: &Vector, reference: &Vector) -> (f64, f64) {
    let difference = hypothesis.length - reference.length;
    let penalty = (-(difference * difference) / (2.0 * SIGMA * SIGMA)).exp();
    let (mut clipped_mean, mut plain_mean) = (0.0, 0.0);
    for n in 0..4 {
        let (mut clipped, mut plain) = (0.0, 0.0);
        let mut theirs = reference.weights[n].iter().peekable();
        for &(gram, mine) in &hypothesis.weights[n] {
            while theirs.next_if(|(other, _)| *other < gram).is_some() {}
            if let Some(&&(other, weight)) = theirs.peek()
                && other == gram
            {
                clipped += mine.min(weight) * weight;
                plain += mine * weight;
            }
        }
        let norm = hypothesis.norms[n] * reference.norms[n];
        if norm != 0.0 {
            clipped /= norm;
            plain /= norm;
        }
        clipped_mean += clipped * penalty / 4.0;
        plain_mean += plain / 4.0;
    }
    (clipped_mean, plain_mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_image_alone_scores_zero() {
        let frequencies = DocumentFrequencies::of(&[["a dog runs"]]);
        assert_eq!(Cider::new(&frequencies).score("a dog runs", &["a dog runs"]), CiderScore::default());
    }

    #[test]
    fn merged_frequencies_equal_one_pass() {
        let images = [vec!["a dog runs", "the dog"], vec!["a cat"], vec!["the dog runs away", "a dog runs"]];
        let whole = DocumentFrequencies::of(&images);
        let mut parts = DocumentFrequencies::of(&images[2..]);
        parts.merge(&DocumentFrequencies::of(&images[..2]));
        assert_eq!((whole.images(), whole.count("dog"), whole.count("a dog runs")), (3, 2, 2));
        for gram in ["a", "dog", "dog runs", "the dog runs away", "cat", "nothing"] {
            assert_eq!(whole.count(gram), parts.count(gram), "{gram}");
        }
    }

    #[test]
    fn frequencies_survive_a_file() {
        let path = std::env::temp_dir().join(format!("sightline-df-{}", std::process::id()));
        let whole = DocumentFrequencies::of(&[vec!["a dog runs", "é dog"], vec!["a cat"]]);
        let mut text = Vec::new();
        whole.write(&mut text).unwrap();
        std::fs::write(&path, &text).unwrap();
        let read = DocumentFrequencies::read(&path).unwrap();
        assert_eq!((read.images(), read.count("a"), read.count("é dog")), (2, 2, 1));
        let error = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            DocumentFrequencies::read(&path).unwrap_err().to_string()
        };
        let nonsense = error(b"nonsense\n");
        assert!(nonsense.contains("line 1") && nonsense.contains("nonsense"), "{nonsense}");
        let whole_lines = text.len() - text.iter().rev().skip(1).position(|&byte| byte == b'\n').unwrap() - 1;
        for cut in [text.len() - 1, whole_lines] {
            let cut_short = error(&text[..cut]);
            assert!(cut_short.contains("cut short") && cut_short.contains("checksum"), "{cut_short}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
