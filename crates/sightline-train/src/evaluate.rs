//! Evaluation of trained models on one split.

use sightline_metrics::retrieval::{self, RetrievalReport, Truth};
use sightline_model::Device;
use sightline_model::alignment::{AlignmentModel, AlignmentSettings, Scoring};
use sightline_search::VectorSets;

use crate::aligner::{self, Aligner, encode_regions, encode_words};
use crate::corpus::{Corpus, CorpusPhoto};

/// All scores of a split, and which photo each sentence belongs to.
#[derive(Debug, Clone)]
pub struct Scores {
    /// `[images, sentences]`, row-major.
    pub scores: Vec<f32>,
    /// Index of its photo, a sentence.
    pub image_of_sentence: Vec<usize>,
    /// Pairs `[image, sentence]` that are right besides.
    pub others: Vec<[usize; 2]>,
    /// Number of photos.
    pub images: usize,
}

impl Scores {
    /// The retrieval table.
    pub fn report(&self) -> RetrievalReport {
        let truth = Truth { image_of_sentence: &self.image_of_sentence, others: &self.others };
        retrieval::evaluate(&self.scores, self.images, self.image_of_sentence.len(), truth)
    }

    /// Several models' scores as one: each model's brought to mean 0 and deviation 1, then added. All of the same split.
    pub fn ensemble(members: &[Self]) -> Self {
        let first = &members[0];
        let mut sum = vec![0.0f64; first.scores.len()];
        for member in members {
            assert_eq!(member.image_of_sentence, first.image_of_sentence, "members score the same split");
            let [mean, deviation] = member.mean_and_deviation();
            sum.iter_mut().zip(&member.scores).for_each(|(sum, &s)| *sum += (f64::from(s) - mean) / deviation);
        }
        let scores = sum.into_iter().map(|s| (s / members.len() as f64) as f32).collect();
        Self { scores, ..first.clone() }
    }

    /// Mean and standard deviation of all scores.
    pub(crate) fn mean_and_deviation(&self) -> [f64; 2] {
        let n = self.scores.len() as f64;
        let mean = self.scores.iter().map(|&s| f64::from(s)).sum::<f64>() / n;
        let variance = self.scores.iter().map(|&s| (f64::from(s) - mean).powi(2)).sum::<f64>() / n;
        [mean, variance.sqrt().max(f64::MIN_POSITIVE)]
    }

    /// Brought to mean 0 and this deviation.
    pub fn sharpened(&self, sharpness: f64) -> Self {
        let mut standard = Self::ensemble(std::slice::from_ref(self));
        standard.scores.iter_mut().for_each(|score| *score = (f64::from(*score) * sharpness) as f32);
        standard
    }

    /// Re-ranking by reciprocal neighbours: a photo and a sentence are near if each is among the other's nearest.
    ///
    /// The new score is `log p(sentence | photo) + log p(photo | sentence)`, both softmaxes of the scores, over all
    /// sentences and all photos of the split: unlike [`Scores::scores`] it needs all queries at once.
    pub fn reciprocal(&self) -> Self {
        let (images, sentences) = (self.images, self.image_of_sentence.len());
        let at = |image: usize, sentence: usize| f64::from(self.scores[image * sentences + sentence]);
        let of_images: Vec<f64> = (0..images).map(|i| log_sum((0..sentences).map(|s| at(i, s)))).collect();
        let of_sentences: Vec<f64> = (0..sentences).map(|s| log_sum((0..images).map(|i| at(i, s)))).collect();
        let scores = (0..images * sentences)
            .map(|k| {
                let (image, sentence) = (k / sentences, k % sentences);
                (2.0 * at(image, sentence) - of_images[image] - of_sentences[sentence]) as f32
            })
            .collect();
        Self { scores, ..self.clone() }
    }

    /// [`Scores::reciprocal`] with more turns: the exponentials are scaled, photo by photo and sentence by sentence, until
    /// every photo has as much of them as every other, and every sentence too (Sinkhorn and Knopp 1967).
    ///
    /// It needs all queries at once, and supposes that all photos are meant equally often, as in the evaluation sets of
    /// the field.
    pub fn balanced(&self, rounds: usize) -> Self {
        let (images, sentences) = (self.images, self.image_of_sentence.len());
        let at = |image: usize, sentence: usize| f64::from(self.scores[image * sentences + sentence]);
        let (mut of_images, mut of_sentences) = (vec![0.0; images], vec![0.0; sentences]);
        for round in 0..=rounds {
            of_sentences = (0..sentences).map(|s| log_sum((0..images).map(|i| at(i, s) - of_images[i]))).collect();
            if round < rounds {
                of_images = (0..images).map(|i| log_sum((0..sentences).map(|s| at(i, s) - of_sentences[s]))).collect();
            }
        }
        let scores = (0..images * sentences)
            .map(|k| (at(k / sentences, k % sentences) - of_images[k / sentences] - of_sentences[k % sentences]) as f32)
            .collect();
        Self { scores, ..self.clone() }
    }

    /// Index of the best sentence of each photo; the first among equals.
    pub fn best_sentences(&self) -> Vec<usize> {
        let sentences = self.image_of_sentence.len();
        let best = |row: &[f32]| (1..row.len()).fold(0, |best, s| if row[s] > row[best] { s } else { best });
        self.scores.chunks(sentences).map(best).collect()
    }
}

/// Scores of all photos with all sentences of a split.
pub fn scores(aligner: &Aligner, corpus: &Corpus<'_>) -> Scores {
    Encoded::new(&aligner.model, &aligner.settings, corpus).scores(
        aligner.settings.scoring(),
        corpus,
        &aligner.model.device(),
    )
}

/// A corpus as a model sees it.
pub(crate) struct Encoded {
    /// Vectors of regions, one set a photo.
    pub(crate) regions: VectorSets,
    /// Vectors of words, one set a sentence.
    pub(crate) words: VectorSets,
}

impl Encoded {
    pub(crate) fn new(model: &AlignmentModel, settings: &AlignmentSettings, corpus: &Corpus<'_>) -> Self {
        let positions: Vec<usize> = corpus.photos.iter().map(|photo| photo.position).collect();
        let sentences: Vec<_> = corpus.photos.iter().flat_map(CorpusPhoto::encoder_sentences).collect();
        Self {
            regions: encode_regions(model, settings, corpus.store, &positions, &model.device()),
            words: encode_words(model, &sentences),
        }
    }

    /// Scores of all its photos with all its sentences.
    pub(crate) fn scores(&self, scoring: Scoring, corpus: &Corpus<'_>, device: &Device) -> Scores {
        let pairs = || corpus.photos.iter().enumerate().flat_map(|(i, p)| (0..p.sentences.len()).map(move |s| (i, s)));
        let of_sentence = |(sentence, (i, s))| corpus.others_of(i, s).map(move |image| [image, sentence]);
        Scores {
            scores: aligner::scores(scoring, &self.regions, &self.words, device),
            image_of_sentence: pairs().map(|(i, _)| i).collect(),
            others: pairs().enumerate().flat_map(of_sentence).collect(),
            images: corpus.photos.len(),
        }
    }
}

/// `ln Σ exp`.
pub(crate) fn log_sum(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = values.clone().fold(f64::NEG_INFINITY, f64::max);
    most + values.map(|v| (v - most).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reciprocal_neighbours_beat_a_hub() {
        // Sentence 0 is near every photo, but photo 0 is its own nearest; photo 1 has sentence 1 close behind.
        let scores =
            Scores { scores: vec![0.95, 0.1, 0.9, 0.85], image_of_sentence: vec![0, 1], others: Vec::new(), images: 2 };
        assert_eq!(scores.best_sentences(), [0, 0]);
        assert_eq!(scores.sharpened(5.0).reciprocal().best_sentences(), [0, 1]);
    }

    #[test]
    fn a_balance_gives_every_photo_and_sentence_as_much() {
        // Photo 0 is the nearest of all sentences but has one of three.
        let scores = vec![0.95, 0.9, 0.8, 0.2, 0.85, 0.3, 0.1, 0.2, 0.75];
        let scores = Scores { scores, image_of_sentence: vec![0, 1, 2], others: Vec::new(), images: 3 }.sharpened(3.0);
        let balanced = scores.balanced(50);
        let share = |i: usize, s: usize| f64::from(balanced.scores[i * 3 + s]).exp();
        for k in 0..3 {
            let (row, column) = ((0..3).map(|s| share(k, s)).sum::<f64>(), (0..3).map(|i| share(i, k)).sum::<f64>());
            assert!((row - 1.0).abs() < 1e-3 && (column - 1.0).abs() < 1e-3, "{k}: {row} {column}");
        }
        let best = |scores: &Scores, s: usize| {
            (0..3).max_by(|&a, &b| scores.scores[a * 3 + s].total_cmp(&scores.scores[b * 3 + s]))
        };
        assert_eq!([0, 1, 2].map(|s| best(&scores, s)), [Some(0); 3]);
        assert_eq!([0, 1, 2].map(|s| best(&balanced, s)), [Some(0), Some(1), Some(2)]);
        // None of it is a softmax over photos.
        let none = scores.balanced(0);
        assert!(((0..3).map(|i| f64::from(none.scores[i * 3]).exp()).sum::<f64>() - 1.0).abs() < 1e-5);
    }

    #[test]
    fn members_of_an_ensemble_count_the_same_whatever_their_scale() {
        let member = |scores: Vec<f32>| Scores { scores, image_of_sentence: vec![0, 1], others: Vec::new(), images: 2 };
        let (small, large) = (member(vec![1.0, 0.0, 0.0, 1.0]), member(vec![0.0, 300.0, 300.0, 0.0]));
        let both = Scores::ensemble(&[small.clone(), large]);
        assert!(both.scores.iter().all(|s| s.abs() < 1e-6), "{both:?}");
        let twice = Scores::ensemble(&[small.clone(), small]);
        assert_eq!(twice.best_sentences(), [0, 1]);
    }
}
