//! What caption models and their baselines say of a split.

use sightline_search::VectorSets;

use crate::aligner::Aligner;
use crate::caption::{Caption, Captioner, Decoding};
use crate::corpus::Corpus;

/// Photos read at once.
const CHUNK: usize = 64;

/// Captions of every photo of a split, best first.
pub fn captions(captioner: &Captioner, corpus: &Corpus<'_>, decoding: Decoding) -> Vec<Vec<Caption>> {
    let vectors: Vec<Vec<f32>> = corpus.photos.iter().map(|photo| corpus.store.get(photo.position).vectors()).collect();
    let pictures = captioner.pictures(vectors.iter().map(|photo| (photo.as_slice(), 0)));
    captioner.captions(&pictures, decoding)
}

/// Perplexity of people's sentences a token, ENDs included; unknown words are left out, as in training.
pub fn perplexity(captioner: &Captioner, corpus: &Corpus<'_>) -> f64 {
    let (mut sum, mut tokens) = (0.0, 0);
    for photos in corpus.photos.chunks(CHUNK) {
        let vectors: Vec<Vec<f32>> = photos.iter().map(|photo| corpus.store.get(photo.position).vectors()).collect();
        let pictures = captioner.pictures(vectors.iter().map(|photo| (photo.as_slice(), 0)));
        let said =
            photos.iter().enumerate().flat_map(|(i, photo)| photo.sentences.iter().map(move |s| (s.as_slice(), i)));
        let (sentences, of): (Vec<&[u32]>, Vec<usize>) = said.filter(|(words, _)| !words.is_empty()).unzip();
        let found = captioner.log_likelihoods(&pictures, &sentences, &of);
        sum += found.into_iter().map(f64::from).sum::<f64>();
        tokens += sentences.iter().map(|words| words.len() + 1).sum::<usize>();
    }
    (-sum / tokens.max(1) as f64).exp()
}

/// A baseline: for every photo the first sentence of the training photo whose whole-image vector is nearest (paper,
/// section 4.2); the first among equals.
pub fn nearest_captions(training: &Corpus<'_>, corpus: &Corpus<'_>) -> Vec<String> {
    let whole = |corpus: &Corpus<'_>, position: usize| -> Vec<f32> {
        corpus.store.get(position).vector_f16(0).iter().map(|x| x.to_f32()).collect()
    };
    let known: Vec<(Vec<f32>, &str)> = training
        .photos
        .iter()
        .filter_map(|photo| {
            let first = training.dataset.images[photo.image].sentences.first()?;
            Some((whole(training, photo.position), first.raw.as_str()))
        })
        .collect();
    let nearest = |vector: &[f32]| {
        let distance = |other: &[f32]| vector.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        known.iter().map(|(other, text)| (distance(other), *text)).min_by(|a, b| a.0.total_cmp(&b.0))
    };
    let of_photo = |photo: &crate::corpus::CorpusPhoto| {
        nearest(&whole(corpus, photo.position)).map_or_else(String::new, |(_, text)| text.to_owned())
    };
    corpus.photos.iter().map(of_photo).collect()
}

/// The paper's ranking baseline for regions: of some phrases the one that fits a region best by the alignment score.
#[derive(Debug)]
pub struct PhraseRanking<'a> {
    aligner: &'a Aligner,
    phrases: Vec<String>,
    words: VectorSets,
}

impl<'a> PhraseRanking<'a> {
    /// Over the distinct phrases, as lists of words; words that the aligner does not know are left out. None where no
    /// phrase has a word that it knows.
    pub fn new(aligner: &'a Aligner, phrases: impl Iterator<Item = &'a [String]>) -> Option<Self> {
        let mut distinct: Vec<&[String]> = phrases.collect();
        distinct.sort_unstable();
        distinct.dedup();
        let encoded = distinct.into_iter().map(|words| (words.join(" "), aligner.vocabulary.encode(words)));
        let (phrases, indices): (Vec<String>, Vec<Vec<u32>>) = encoded.filter(|(_, words)| !words.is_empty()).unzip();
        let words = aligner.words(&indices);
        (!phrases.is_empty()).then_some(Self { aligner, phrases, words })
    }

    /// The best phrase of each region vector `[regions, dim]` of the aligner's own; the first among equals.
    pub fn best(&self, regions: &[f32]) -> Vec<&str> {
        let mut single = VectorSets::new(self.words.dim());
        regions.chunks(self.words.dim()).for_each(|region| single.push(region));
        let scores = self.aligner.scores(&single, &self.words);
        let best = |row: &[f32]| (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        scores.chunks(self.phrases.len()).map(|row| self.phrases[best(row)].as_str()).collect()
    }
}
