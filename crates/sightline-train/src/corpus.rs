//! One split of a dataset joined with its feature store: which vectors and which words belong together.

use rand::seq::SliceRandom;
use sightline_data::store::FeatureStore;
use sightline_data::{Dataset, Split, Vocabulary};
use sightline_model::alignment::RegionCounts;
use sightline_model::random;

use crate::trainer::BATCHES_STREAM;
use crate::{Error, Result};

/// A photo with vectors and sentences.
#[derive(Debug, Clone)]
pub struct CorpusPhoto {
    /// Index in the dataset's list of photos.
    pub image: usize,
    /// Index in the feature store.
    pub position: usize,
    /// Known words of each sentence, in the dataset's order; a sentence may have none.
    pub sentences: Vec<Vec<u32>>,
}

/// The photos of one split that have vectors.
#[derive(Debug)]
pub struct Corpus<'a> {
    /// The dataset.
    pub dataset: &'a Dataset,
    /// The vectors.
    pub store: &'a FeatureStore,
    /// In the dataset's order.
    pub photos: Vec<CorpusPhoto>,
    /// Keys of photos of the split that the store lacks.
    pub missing: Vec<String>,
    /// Sentences without any known word.
    pub wordless_sentences: usize,
}

impl<'a> Corpus<'a> {
    /// Joins a split with the store; an error if no photo of the split has vectors.
    pub fn new(dataset: &'a Dataset, split: Split, store: &'a FeatureStore, vocabulary: &Vocabulary) -> Result<Self> {
        let (mut photos, mut missing, mut wordless_sentences) = (Vec::new(), Vec::new(), 0);
        for (image_idx, image) in dataset.images.iter().enumerate().filter(|(_, image)| image.split == split) {
            let Some(position) = store.position(&image.path) else {
                missing.push(image.path.clone());
                continue;
            };
            let sentences: Vec<Vec<u32>> = image.sentences.iter().map(|s| vocabulary.encode(&s.tokens)).collect();
            wordless_sentences += sentences.iter().filter(|words| words.is_empty()).count();
            photos.push(CorpusPhoto { image: image_idx, position, sentences });
        }
        if photos.is_empty() {
            let split_name = split.name();
            return Err(Error::Mismatch(if missing.is_empty() {
                format!("the dataset {} has no photo in its {split_name} split", dataset.name)
            } else {
                format!(
                    "none of the {} photos of the {split_name} split has vectors in {}; extract them with `sightline features`",
                    missing.len(),
                    store.path().display()
                )
            }));
        }
        Ok(Self { dataset, store, photos, missing, wordless_sentences })
    }

    /// Key of a photo.
    pub fn key(&self, photo: &CorpusPhoto) -> &'a str {
        &self.dataset.images[photo.image].path
    }

    /// Region vectors of several photos, end to end: `[regions of all photos, features]`.
    pub fn regions(&self, photos: impl Iterator<Item = usize>) -> (Vec<f32>, RegionCounts) {
        gather(self.store, photos.map(|photo| self.photos[photo].position))
    }

    /// One pass over all pairs: batches of `(photo, sentence)`, no photo twice in a batch.
    ///
    /// Every photo's sentences are shuffled; round `r` takes the `r`-th of each photo, the photos shuffled anew. The
    /// last batch of a round joins the one before if it is too small to rank anything.
    pub fn pair_batches(&self, batch: usize, seed: u64, epoch: u64) -> Vec<Vec<(usize, usize)>> {
        let mut rng = random::stream(seed, BATCHES_STREAM + epoch);
        let mut queues: Vec<Vec<usize>> = self
            .photos
            .iter()
            .map(|photo| {
                let mut own: Vec<usize> =
                    (0..photo.sentences.len()).filter(|&s| !photo.sentences[s].is_empty()).collect();
                own.shuffle(&mut rng);
                own
            })
            .collect();
        let mut batches: Vec<Vec<(usize, usize)>> = Vec::new();
        loop {
            let mut round: Vec<(usize, usize)> =
                queues.iter_mut().enumerate().filter_map(|(photo, queue)| Some((photo, queue.pop()?))).collect();
            if round.is_empty() {
                return batches;
            }
            round.shuffle(&mut rng);
            let mut chunks: Vec<Vec<(usize, usize)>> = round.chunks(batch.max(2)).map(<[_]>::to_vec).collect();
            if chunks.len() > 1 && chunks[chunks.len() - 1].len() < 2 {
                let last = chunks.pop().unwrap_or_default();
                chunks.last_mut().expect("more than one chunk").extend(last);
            }
            batches.extend(chunks);
        }
    }
}

/// The words of the training split seen at least `min_count` times; an error if there is none.
pub(crate) fn training_vocabulary(dataset: &Dataset, min_count: u64) -> Result<Vocabulary> {
    let vocabulary = dataset.vocabulary(min_count);
    if vocabulary.is_empty() {
        return Err(Error::Mismatch(format!(
            "no word stands {min_count} times in the training sentences; lower min_count (--set min_count=1)"
        )));
    }
    Ok(vocabulary)
}

/// Region vectors of photos of a store, end to end, as f32: `[regions of all photos, dim]`.
pub fn gather(store: &FeatureStore, positions: impl Iterator<Item = usize>) -> (Vec<f32>, RegionCounts) {
    let dim = store.dim();
    let (mut values, mut counts) = (Vec::new(), Vec::new());
    for position in positions {
        let photo = store.get(position);
        let start = values.len();
        values.resize(start + photo.n_regions() * dim, 0.0);
        photo.write_vectors(&mut values[start..]);
        counts.push(photo.n_regions());
    }
    (values, RegionCounts::new(counts))
}
