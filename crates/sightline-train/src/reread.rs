//! Reading again: caption models have a say in which photos and sentences belong together. An alignment model scores all
//! pairs fast, word by word; a caption model reads a sentence as a whole, each word after the words before it, and is far
//! too slow for all pairs, but not for those that are near.

use rayon::prelude::*;

use crate::caption::Captioner;
use crate::corpus::{Corpus, CorpusPhoto};
use crate::evaluate::Scores;

/// Sentences read at once.
const CHUNK: usize = 128;

/// A weight that was good for one and for several readers (docs/log.md).
pub const USUAL_WEIGHT: f64 = 0.4;

/// Pairs worth reading again.
#[derive(Debug, Clone, PartialEq)]
pub struct Near {
    /// Of each photo, in order of the sentences.
    sentences: Vec<Vec<usize>>,
}

impl Near {
    /// Of every sentence the `photos` best photos, and of every photo as many more sentences as there are more sentences
    /// than photos; the first among equals.
    pub fn of(scores: &Scores, photos: usize) -> Self {
        let (images, sentences) = (scores.images, scores.image_of_sentence.len());
        let at = |image: usize, sentence: usize| scores.scores[image * sentences + sentence];
        let best = |n: usize, most: usize, score: &dyn Fn(usize) -> f32| {
            let mut all: Vec<usize> = (0..n).collect();
            let order = |a: &usize, b: &usize| score(*b).total_cmp(&score(*a)).then(a.cmp(b));
            if most < n {
                all.select_nth_unstable_by(most, order);
                all.truncate(most);
            }
            all
        };
        let of_each = photos.saturating_mul(sentences).div_ceil(images.max(1));
        let mut near: Vec<Vec<usize>> =
            (0..images).map(|image| best(sentences, of_each, &|sentence| at(image, sentence))).collect();
        for sentence in 0..sentences {
            best(images, photos, &|image| at(image, sentence)).into_iter().for_each(|image| near[image].push(sentence));
        }
        near.iter_mut().for_each(|own| {
            own.sort_unstable();
            own.dedup();
        });
        Self { sentences: near }
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.sentences.iter().map(Vec::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Log probability of each pair's sentence given its photo, END included, photo after photo. `corpus` holds the photos
    /// and sentences that were scored, by the captioner's own words and vectors.
    pub fn read(&self, captioner: &Captioner, corpus: &Corpus<'_>) -> Vec<f32> {
        let sentences: Vec<&[u32]> =
            corpus.photos.iter().flat_map(|photo| photo.sentences.iter().map(Vec::as_slice)).collect();
        let of_photo = |(photo, near): (&CorpusPhoto, &Vec<usize>)| -> Vec<f32> {
            let vectors = corpus.store.get(photo.position).vectors();
            let picture = captioner.pictures(std::iter::once((vectors.as_slice(), 0)));
            let read = |near: &[usize]| {
                let near: Vec<&[u32]> = near.iter().map(|&sentence| sentences[sentence]).collect();
                captioner.log_likelihoods(&picture, &near, &vec![0; near.len()])
            };
            near.chunks(CHUNK).flat_map(read).collect()
        };
        let read: Vec<Vec<f32>> = corpus.photos.par_iter().zip(&self.sentences).map(of_photo).collect();
        read.concat()
    }

    /// The scores and `weight` times what was read, less what the sentence's likeliest photo has: a sentence may be
    /// unlikely of any photo. A pair that was not read counts as its sentence's least likely.
    pub fn add(&self, scores: &Scores, read: &[f32], weight: f64) -> Scores {
        assert_eq!(read.len(), self.len(), "one log probability a pair");
        let n = scores.image_of_sentence.len();
        let pairs = || {
            let pairs = self.sentences.iter().enumerate().flat_map(|(i, own)| own.iter().map(move |&s| (i, s)));
            pairs.zip(read)
        };
        let (mut most, mut least) = (vec![f32::NEG_INFINITY; n], vec![f32::INFINITY; n]);
        for ((_, sentence), &read) in pairs() {
            most[sentence] = most[sentence].max(read);
            least[sentence] = least[sentence].min(read);
        }
        let more = |sentence: usize, read: f32| (weight * f64::from(read - most[sentence])) as f32;
        let unread: Vec<f32> = (0..n).map(|s| if least[s] <= most[s] { more(s, least[s]) } else { 0.0 }).collect();
        let mut added = scores.clone();
        added.scores.chunks_mut(n).for_each(|row| row.iter_mut().zip(&unread).for_each(|(score, more)| *score += more));
        for ((image, sentence), &read) in pairs() {
            added.scores[image * n + sentence] = scores.scores[image * n + sentence] + more(sentence, read);
        }
        added
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores() -> Scores {
        #[rustfmt::skip]
        let scores = vec![
            0.9, 0.1, 0.5, 0.2,
            0.8, 0.7, 0.6, 0.3,
        ];
        Scores { scores, image_of_sentence: vec![0, 0, 1, 1], others: Vec::new(), images: 2 }
    }

    #[test]
    fn near_is_what_either_side_finds() {
        let near = Near::of(&scores(), 1);
        // Photo 0 finds 0 and 2, photo 1 finds 0 and 1; sentences 1, 2 and 3 find photo 1.
        assert_eq!(near.sentences, [vec![0, 2], vec![0, 1, 2, 3]]);
        assert_eq!(Near::of(&scores(), 5).len(), 8);
    }

    #[test]
    fn what_was_read_counts_by_sentence() {
        let near = Near::of(&scores(), 1);
        let added = near.add(&scores(), &[-20.0, -9.0, -10.0, -30.0, -8.0, -7.0], 0.1);
        // Sentence 0: likelier of photo 1 by 10. Sentence 1 was read with photo 1 alone. Sentence 2: by 1.
        let expected = [0.9 - 1.0, 0.1, 0.5 - 0.1, 0.2, 0.8, 0.7, 0.6, 0.3];
        for (got, expected) in added.scores.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-6, "{got} {expected}");
        }
        let none = Near { sentences: vec![Vec::new(), Vec::new()] };
        assert!(none.is_empty());
        assert_eq!(none.add(&scores(), &[], 0.1).scores, scores().scores);
    }
}
