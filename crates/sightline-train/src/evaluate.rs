//! Evaluation of trained models on one split.

use sightline_metrics::retrieval::{self, RetrievalReport};
use sightline_model::alignment::{AlignmentModel, Score};

use crate::align::{Aligner, encode_regions, encode_words, reduction};
use crate::corpus::Corpus;

/// All scores of a split, and which photo each sentence belongs to.
#[derive(Debug, Clone)]
pub struct Scores {
    /// `[images, sentences]`, row-major.
    pub scores: Vec<f32>,
    /// Index of its photo, a sentence.
    pub image_of_sentence: Vec<usize>,
    /// Number of photos.
    pub images: usize,
}

impl Scores {
    /// The retrieval table.
    pub fn report(&self) -> RetrievalReport {
        retrieval::evaluate(&self.scores, self.images, self.image_of_sentence.len(), &self.image_of_sentence)
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
    scores_of(&aligner.model, aligner.score, corpus)
}

fn scores_of(model: &AlignmentModel, score: Score, corpus: &Corpus<'_>) -> Scores {
    let positions: Vec<usize> = corpus.photos.iter().map(|photo| photo.position).collect();
    let regions = encode_regions(model, corpus.store, &positions, &model.device());
    let sentences: Vec<&[u32]> = corpus.photos.iter().flat_map(|p| p.sentences.iter().map(Vec::as_slice)).collect();
    let words = encode_words(model, &sentences);
    let image_of_sentence =
        corpus.photos.iter().enumerate().flat_map(|(i, photo)| photo.sentences.iter().map(move |_| i)).collect();
    Scores {
        scores: sightline_search::scores(&regions, &words, reduction(score)),
        image_of_sentence,
        images: corpus.photos.len(),
    }
}

pub(crate) fn retrieval_of(model: &AlignmentModel, score: Score, corpus: &Corpus<'_>) -> RetrievalReport {
    scores_of(model, score, corpus).report()
}
