//! What `dataset show` tells of a dataset.

use std::collections::BTreeMap;

use rustc_hash::FxHashSet;
use serde::Serialize;

use crate::{Dataset, Split};

/// A dataset in numbers, and five of its pairs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// [`Dataset::name`].
    pub name: String,
    /// The folder of photos.
    pub root: String,
    /// Photos in all.
    pub photos: usize,
    /// Sentences in all.
    pub sentences: usize,
    /// By split; splits without a photo are left out.
    pub splits: BTreeMap<Split, SplitSummary>,
    /// Words in all, repetitions counted.
    pub words: u64,
    /// Different words in all.
    pub distinct_words: usize,
    /// Words seen at least [`Summary::min_count`] times in the training split, and the end token: 2,538 on Flickr8K.
    pub vocabulary: usize,
    /// Times a word must be seen.
    pub min_count: u64,
    /// Words in a sentence: least, lower quartile, median, upper quartile, most; absent where there is no sentence.
    pub sentence_length: Option<[usize; 5]>,
    /// Fewest and most sentences that a photo has; absent where there is no photo.
    pub sentences_per_photo: Option<[usize; 2]>,
    /// Boxes that came with the dataset.
    pub boxes: usize,
    /// True pairs besides the nesting.
    pub pairing: usize,
    /// Some photos, evenly spread, each with its first sentence as it was read.
    pub pairs: Vec<ParsedPair>,
}

/// One split in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SplitSummary {
    /// Its photos.
    pub photos: usize,
    /// Their sentences.
    pub sentences: usize,
}

/// A photo with a sentence, as it was read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ParsedPair {
    /// [`crate::Image::path`].
    pub image: String,
    /// Its split.
    pub split: Split,
    /// As a person wrote it.
    pub sentence: String,
    /// As the models see it.
    pub tokens: Vec<String>,
}

/// Counts everything once. The vocabulary takes words seen at least `min_count` times.
pub fn summary(dataset: &Dataset, min_count: u64) -> Summary {
    let mut splits: BTreeMap<Split, SplitSummary> = BTreeMap::new();
    let mut lengths = Vec::new();
    let mut distinct: FxHashSet<&str> = FxHashSet::default();
    for image in &dataset.images {
        let split = splits.entry(image.split).or_default();
        split.photos += 1;
        split.sentences += image.sentences.len();
        for sentence in &image.sentences {
            lengths.push(sentence.tokens.len());
            distinct.extend(sentence.tokens.iter().map(String::as_str));
        }
    }
    lengths.sort_unstable();
    // The nearest rank: a length that some sentence has.
    let quartile = |q: usize| lengths.get((lengths.len().saturating_sub(1) * q + 2) / 4).copied();
    let sentence_length = quartile(0).map(|least| [0, 1, 2, 3, 4].map(|q| quartile(q).unwrap_or(least)));
    let per_photo = || dataset.images.iter().map(|image| image.sentences.len());
    let told: Vec<_> = dataset.images.iter().filter(|image| !image.sentences.is_empty()).collect();
    let n_pairs = told.len().min(5);
    let pairs = (0..n_pairs).map(|i| told[i * told.len() / n_pairs]).map(|image| ParsedPair {
        image: image.path.clone(),
        split: image.split,
        sentence: image.sentences[0].raw.clone(),
        tokens: image.sentences[0].tokens.clone(),
    });
    Summary {
        name: dataset.name.clone(),
        root: dataset.root.display().to_string(),
        photos: dataset.images.len(),
        sentences: lengths.len(),
        splits,
        words: lengths.iter().map(|&n| n as u64).sum(),
        distinct_words: distinct.len(),
        vocabulary: dataset.vocabulary(min_count).len(),
        min_count,
        sentence_length,
        sentences_per_photo: per_photo().min().zip(per_photo().max()).map(|(least, most)| [least, most]),
        boxes: dataset.images.iter().map(|image| image.boxes.len()).sum(),
        pairing: dataset.pairing.len(),
        pairs: pairs.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tokenize;
    use crate::{Image, Sentence};

    #[test]
    fn numbers_of_a_small_dataset() {
        let image = |id: u64, split, raws: &[&str]| Image {
            id,
            path: format!("{id}.jpg"),
            split,
            sentences: raws.iter().map(|raw| Sentence { id: 0, raw: (*raw).into(), tokens: tokenize(raw) }).collect(),
            boxes: vec![[0., 0., 1., 1.].into(); id as usize],
        };
        let dataset = Dataset {
            images: vec![
                image(0, Split::Train, &["a dog", "a dog runs"]),
                image(1, Split::Val, &["one two three four five six"]),
                image(2, Split::Train, &["a cat", "a b c d"]),
            ],
            ..Dataset::default()
        };
        let s = summary(&dataset, 2);
        assert_eq!((s.photos, s.sentences, s.words, s.distinct_words, s.vocabulary, s.boxes), (3, 5, 17, 13, 3, 3));
        assert_eq!(s.splits[&Split::Train], SplitSummary { photos: 2, sentences: 4 });
        assert_eq!(s.sentence_length, Some([2, 2, 3, 4, 6]));
        assert_eq!(s.sentences_per_photo, Some([1, 2]));
        assert_eq!(s.pairs.len(), 3);
        assert_eq!(s.pairs[0].tokens, ["a", "dog"]);
        assert_eq!(serde_json::to_value(&s).unwrap()["splits"]["val"]["photos"], 1);
        let empty = summary(&Dataset::default(), 5);
        assert_eq!((empty.sentence_length, empty.sentences_per_photo, empty.vocabulary), (None, None, 1));
    }
}
