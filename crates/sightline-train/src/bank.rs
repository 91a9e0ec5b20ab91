//! A bank of other photos and sentences, against which scores are measured.
//!
//! Among many vectors some are near everything: photos that every sentence finds, sentences that suit every photo (hubs,
//! Radovanović et al. 2010). How near a photo is to the sentences of a bank, none of which is about it, tells how much of
//! a score is the photo's own doing, and likewise for a sentence and the photos of the bank. That is taken off: the
//! inverted softmax of Smith et al. (2017) with a bank of queries in place of the ones that are asked (Bogolin et al.
//! 2022). The bank is training data, so each query is still answered as if it were the only one.

use crate::aligner::{self, Aligner};
use crate::corpus::Corpus;
use crate::evaluate::{Encoded, Scores, log_sum};

/// Scores are brought to this deviation before they are exponents. On Flickr8k's validation photos 2 to 4 are alike.
const SHARPNESS: f64 = 3.0;

/// `photos` photos of a corpus, evenly spread, with their sentences; all where there are fewer.
pub fn evenly(mut corpus: Corpus<'_>, photos: usize) -> Corpus<'_> {
    let n = corpus.photos.len();
    let kept = photos.min(n);
    corpus.keep(&(0..kept).map(|i| i * n / kept).collect());
    corpus
}

/// A split's scores, and those of its photos and sentences with a bank.
#[derive(Debug, Clone)]
pub struct Banked {
    /// Among themselves.
    pub scores: Scores,
    /// Of the split's photos with the bank's sentences, `[images, bank sentences]`.
    of_images: Vec<f32>,
    /// Of the bank's photos with the split's sentences, `[bank images, sentences]`.
    of_sentences: Vec<f32>,
}

impl Banked {
    /// Scores of `corpus` and of a bank, both as `aligner` reads them.
    pub fn new(aligner: &Aligner, corpus: &Corpus<'_>, bank: &Corpus<'_>) -> Self {
        let device = aligner.model.device();
        let encoded = |corpus| Encoded::new(&aligner.model, &aligner.settings, corpus);
        let (own, others) = (encoded(corpus), encoded(bank));
        let scoring = aligner.settings.scoring();
        Self {
            scores: own.scores(scoring, corpus, &device),
            of_images: aligner::scores(scoring, &own.regions, &others.words, &device),
            of_sentences: aligner::scores(scoring, &others.regions, &own.words, &device),
        }
    }

    /// Several models' as one, as [`Scores::ensemble`]: all of the same split, with the same bank.
    pub fn ensemble(members: &[Self]) -> Self {
        let standard: Vec<[f64; 2]> = members.iter().map(|member| member.scores.mean_and_deviation()).collect();
        let add = |of: &dyn Fn(&Self) -> &Vec<f32>| {
            let mut sum = vec![0.0f64; of(&members[0]).len()];
            for (member, [mean, deviation]) in members.iter().zip(&standard) {
                assert_eq!(of(member).len(), sum.len(), "members know the same bank");
                sum.iter_mut().zip(of(member)).for_each(|(sum, &s)| *sum += (f64::from(s) - mean) / deviation);
            }
            sum.into_iter().map(|s| (s / members.len() as f64) as f32).collect()
        };
        let of_scores: Vec<Scores> = members.iter().map(|member| member.scores.clone()).collect();
        Self {
            scores: Scores::ensemble(&of_scores),
            of_images: add(&|member| &member.of_images),
            of_sentences: add(&|member| &member.of_sentences),
        }
    }

    /// The scores, in their deviations, less what of each is its photo's and its sentence's with whatever they meet:
    /// `s - ln Σ exp(c s') / c` over the bank's `s'` of the photo, and as much of the sentence.
    pub fn without_hubs(&self) -> Scores {
        let [mean, deviation] = self.scores.mean_and_deviation();
        let sharp = |score: &f32| (f64::from(*score) - mean) / deviation * SHARPNESS;
        let sentences = self.scores.image_of_sentence.len();
        let of_bank = self.of_images.len() / self.scores.images;
        let of_image: Vec<f64> =
            self.of_images.chunks_exact(of_bank).map(|row| log_sum(row.iter().map(sharp))).collect();
        let column = |s: usize| self.of_sentences.iter().skip(s).step_by(sentences).map(sharp);
        let of_sentence: Vec<f64> = (0..sentences).map(|s| log_sum(column(s))).collect();
        let mut scores = self.scores.clone();
        for (row, of_image) in scores.scores.chunks_exact_mut(sentences).zip(&of_image) {
            for (score, of_sentence) in row.iter_mut().zip(&of_sentence) {
                *score = ((sharp(score) - of_image - of_sentence) / SHARPNESS) as f32;
            }
        }
        scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two photos with a sentence each, and a bank of two photos and three sentences.
    fn banked(scores: [f32; 4], of_images: [f32; 6], of_sentences: [f32; 4]) -> Banked {
        let scores = Scores { scores: scores.to_vec(), image_of_sentence: vec![0, 1], others: Vec::new(), images: 2 };
        Banked { scores, of_images: of_images.to_vec(), of_sentences: of_sentences.to_vec() }
    }

    #[test]
    fn what_is_near_everything_is_nearer_to_nothing() {
        // Photo 1 is near all sentences, those of the bank too; sentence 1 finds it for that alone.
        let scores = [0.9, 0.6, 0.7, 0.8];
        let plain = banked(scores, [0.1; 6], [0.1; 4]).without_hubs();
        let first_of = |scores: &Scores, sentence: usize| {
            if scores.scores[sentence] > scores.scores[2 + sentence] { 0 } else { 1 }
        };
        assert_eq!([first_of(&plain, 0), first_of(&plain, 1)], [0, 1]);
        let hub = banked(scores, [0.1, 0.1, 0.1, 0.6, 0.5, 0.7], [0.1; 4]).without_hubs();
        assert_eq!([first_of(&hub, 0), first_of(&hub, 1)], [0, 0]);
        // And a sentence that suits every photo.
        assert_eq!(plain.best_sentences(), [0, 1]);
        let hub = banked(scores, [0.1; 6], [0.1, 0.7, 0.1, 0.6]).without_hubs();
        assert_eq!(hub.best_sentences(), [0, 0]);
    }

    #[test]
    fn a_bank_that_tells_nothing_changes_no_difference() {
        let scores = [0.9, 0.6, 0.7, 0.8];
        let same = banked(scores, [0.3; 6], [0.2; 4]).without_hubs();
        let deviation =
            Scores { scores: scores.to_vec(), image_of_sentence: vec![0, 1], others: Vec::new(), images: 2 }
                .mean_and_deviation()[1];
        for (i, j) in [(0, 1), (1, 2), (2, 3)] {
            let expected = (f64::from(scores[i]) - f64::from(scores[j])) / deviation;
            assert!((f64::from(same.scores[i] - same.scores[j]) - expected).abs() < 1e-5, "{same:?}");
        }
    }

    #[test]
    fn members_count_the_same_whatever_their_scale() {
        let small = banked([0.9, 0.6, 0.7, 0.8], [0.1, 0.2, 0.3, 0.6, 0.5, 0.7], [0.1, 0.2, 0.3, 0.4]);
        let scaled = |values: &Vec<f32>| values.iter().map(|v| 40.0 * v + 7.0).collect();
        let large = Banked {
            scores: Scores { scores: scaled(&small.scores.scores), ..small.scores.clone() },
            of_images: scaled(&small.of_images),
            of_sentences: scaled(&small.of_sentences),
        };
        let (one, both) = (small.without_hubs(), Banked::ensemble(&[small, large]).without_hubs());
        for (one, both) in one.scores.iter().zip(&both.scores) {
            assert!((one - both).abs() < 1e-4, "{one} {both}");
        }
    }
}
