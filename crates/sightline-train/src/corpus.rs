//! One split of a dataset joined with its feature store: which vectors and which words belong together.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::SliceRandom;
use sightline_data::parses::{Parses, WordEdge};
use sightline_data::store::{FeatureStore, StoreSettings};
use sightline_data::vocabulary::END;
use sightline_data::{BoxXyxy, Dataset, Split, Vocabulary, checksum};
use sightline_model::Device;
use sightline_model::alignment::{AlignmentSettings, GEOMETRY, RegionBatch, RegionCounts, features_tensor, geometry};
use sightline_model::random;
use sightline_model::{Edge, Sentence};

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
    /// The edge that ends at each of these words, in a corpus with dependency trees; else empty.
    pub edges: Vec<Vec<Edge>>,
}

impl CorpusPhoto {
    /// A sentence as encoders read it.
    pub fn sentence(&self, sentence: usize) -> Sentence<'_> {
        let edges = self.edges.get(sentence).map_or(&[][..], Vec::as_slice);
        Sentence { words: &self.sentences[sentence], edges }
    }

    /// All sentences as encoders read them.
    pub fn encoder_sentences(&self) -> impl Iterator<Item = Sentence<'_>> {
        (0..self.sentences.len()).map(|sentence| self.sentence(sentence))
    }
}

/// A checksum of names in order.
pub(crate) fn digest<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let bytes: Vec<u8> = names.flat_map(|name| name.bytes().chain([0])).collect();
    checksum::of_bytes(&bytes)
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
    /// Ids of sentences without a dependency tree, in a corpus with such; they have no words here.
    pub unparsed: Vec<u64>,
    /// Other photos that a sentence describes, by photo and sentence ([`Dataset::pairing`]); all indices in `photos`.
    others: BTreeMap<(usize, usize), BTreeSet<usize>>,
}

impl<'a> Corpus<'a> {
    /// A checksum of the names of the photos, in order.
    pub fn digest(&self) -> String {
        digest(self.photos.iter().map(|photo| self.dataset.images[photo.image].path.as_str()))
    }

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
            photos.push(CorpusPhoto { image: image_idx, position, sentences, edges: Vec::new() });
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
        if photos.iter().all(|photo| photo.sentences.is_empty()) {
            let split = split.name();
            return Err(Error::Mismatch(format!("no photo of the {split} split of {} has a sentence", dataset.name)));
        }
        let others = others(dataset, &photos);
        Ok(Self { dataset, store, photos, missing, wordless_sentences, unparsed: Vec::new(), others })
    }

    /// The photos that another store has vectors of.
    pub(crate) fn in_store<'b>(&self, store: &'b FeatureStore) -> Corpus<'b>
    where
        'a: 'b,
    {
        let of_photo =
            |photo: &CorpusPhoto| Some(CorpusPhoto { position: store.position(self.key(photo))?, ..photo.clone() });
        let photos: Vec<CorpusPhoto> = self.photos.iter().filter_map(of_photo).collect();
        let others = others(self.dataset, &photos);
        Corpus { store, photos, others, missing: Vec::new(), unparsed: Vec::new(), ..*self }
    }

    /// Keeps these photos alone, by index.
    pub(crate) fn keep(&mut self, photos: &BTreeSet<usize>) {
        let mut at = 0..;
        self.photos.retain(|_| at.next().is_some_and(|photo| photos.contains(&photo)));
        self.others = others(self.dataset, &self.photos);
    }

    /// Other photos of the corpus that a photo's sentence describes as well, in order.
    pub fn others_of(&self, photo: usize, sentence: usize) -> impl Iterator<Item = usize> {
        self.others.get(&(photo, sentence)).into_iter().flatten().copied()
    }

    /// The relations that stand at `min_count` words or more, the most frequent first.
    pub fn frequent_relations(&self, parses: &Parses, min_count: u64) -> Vec<String> {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        let sentences = self.photos.iter().flat_map(|photo| &self.dataset.images[photo.image].sentences);
        for edge in sentences.filter_map(|s| parses.edges(s.id, &s.tokens)).flatten() {
            *counts.entry(edge.relation).or_default() += 1;
        }
        let mut kept: Vec<(&str, u64)> = counts.into_iter().filter(|&(_, count)| count >= min_count).collect();
        kept.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        kept.into_iter().map(|(relation, _)| relation.to_owned()).collect()
    }

    /// With the edge that ends at each known word. Sentences without a dependency tree lose their words; an error if none
    /// has one. A relation that is not among `relations` has index 0, the others theirs and one more.
    pub fn with_parses(mut self, parses: &Parses, relations: &[String], vocabulary: &Vocabulary) -> Result<Self> {
        let relations: BTreeMap<&str, u32> = (1..).zip(relations).map(|(i, name)| (name.as_str(), i)).collect();
        let mut parsed = 0;
        for photo in &mut self.photos {
            photo.edges.clear();
            for (known, sentence) in photo.sentences.iter_mut().zip(&self.dataset.images[photo.image].sentences) {
                let known_words: Vec<Option<u32>> = sentence.tokens.iter().map(|word| vocabulary.get(word)).collect();
                let Some(edges) = parses.edges(sentence.id, &sentence.tokens) else {
                    self.unparsed.push(sentence.id);
                    known.clear();
                    photo.edges.push(Vec::new());
                    continue;
                };
                parsed += 1;
                let edge = |WordEdge { head, relation }: WordEdge<'_>| Edge {
                    head: head.and_then(|word| known_words[word]).unwrap_or(END),
                    relation: relations.get(relation).copied().unwrap_or(0),
                };
                let own = edges.into_iter().zip(&known_words).filter(|(_, word)| word.is_some());
                photo.edges.push(own.map(|(e, _)| edge(e)).collect());
            }
        }
        if parsed == 0 {
            return Err(Error::Mismatch(format!(
                "{} has a dependency tree of none of the {} sentences; is each sent_id the sentence's sentid in the dataset?",
                parses.path().display(),
                self.unparsed.len()
            )));
        }
        Ok(self)
    }

    /// Key of a photo.
    pub fn key(&self, photo: &CorpusPhoto) -> &'a str {
        &self.dataset.images[photo.image].path
    }

    /// One pass over all pairs: batches of photos with some of their sentences each, no photo twice in a batch.
    ///
    /// Every photo's sentences are shuffled and dealt out in hands of `captions_per_photo`; round `r` takes the `r`-th hand
    /// of each photo, the photos shuffled anew. The last batch of a round joins the one before if it is too small to
    /// rank anything. A batch has about `batch` sentences.
    pub fn pair_batches(&self, batch: usize, captions_per_photo: usize, seed: u64, epoch: u64) -> Vec<Vec<Hand>> {
        let mut rng = random::stream(seed, BATCHES_STREAM + epoch);
        let per_photo = captions_per_photo.max(1);
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
        let photos_a_batch = (batch / per_photo).max(2);
        let mut batches: Vec<Vec<Hand>> = Vec::new();
        loop {
            let hands = queues.iter_mut().enumerate().filter(|(_, queue)| !queue.is_empty());
            let mut round: Vec<Hand> = hands
                .map(|(photo, queue)| {
                    let rest = queue.len().saturating_sub(per_photo);
                    // The last is taken first, as one pop after the other.
                    Hand { photo, sentences: queue.drain(rest..).rev().collect() }
                })
                .collect();
            if round.is_empty() {
                return batches;
            }
            round.shuffle(&mut rng);
            let mut chunks: Vec<Vec<Hand>> = round.chunks(photos_a_batch).map(<[_]>::to_vec).collect();
            if chunks.len() > 1 && chunks[chunks.len() - 1].len() < 2 {
                let last = chunks.pop().unwrap_or_default();
                chunks.last_mut().expect("more than one chunk").extend(last);
            }
            batches.extend(chunks);
        }
    }

    /// Mean and deviation of each feature over all regions of the photos.
    pub fn feature_statistics(&self) -> (Vec<f32>, Vec<f32>) {
        let dim = self.store.dim();
        let (mut sums, mut squares, mut rows) = (vec![0.0f64; dim], vec![0.0f64; dim], 0.0);
        for photo in &self.photos {
            for row in self.store.get(photo.position).vectors().chunks_exact(dim) {
                rows += 1.0;
                for ((sum, square), &x) in sums.iter_mut().zip(&mut squares).zip(row) {
                    *sum += f64::from(x);
                    *square += f64::from(x) * f64::from(x);
                }
            }
        }
        let deviation = |(sum, square): (&f64, &f64)| (square / rows - (sum / rows).powi(2)).max(0.0).sqrt() as f32;
        let deviations = sums.iter().zip(&squares).map(deviation).collect();
        (sums.iter().map(|sum| (sum / rows) as f32).collect(), deviations)
    }
}

/// The pairs of [`Dataset::pairing`] whose photos are both among these and differ.
fn others(dataset: &Dataset, photos: &[CorpusPhoto]) -> BTreeMap<(usize, usize), BTreeSet<usize>> {
    let mut others: BTreeMap<_, BTreeSet<usize>> = BTreeMap::new();
    if dataset.pairing.is_empty() {
        return others;
    }
    let (mut by_image, mut by_sentence) = (BTreeMap::new(), BTreeMap::new());
    for (i, photo) in photos.iter().enumerate() {
        let image = &dataset.images[photo.image];
        by_image.insert(image.id, i);
        by_sentence.extend(image.sentences.iter().enumerate().map(|(s, sentence)| (sentence.id, (i, s))));
    }
    for pair in &dataset.pairing {
        if let (Some(&photo), Some(&own)) = (by_image.get(&pair.image), by_sentence.get(&pair.sentence))
            && own.0 != photo
        {
            others.entry(own).or_default().insert(photo);
        }
    }
    others
}

/// A photo of a batch and those of its sentences that are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hand {
    /// Index in [`Corpus::photos`].
    pub photo: usize,
    /// Indices in the photo's sentences.
    pub sentences: Vec<usize>,
}

/// An error that names the differences between the vectors a model reads and those of a store.
pub fn check_features(expected: &StoreSettings, store: &FeatureStore) -> Result<()> {
    let differences = store.settings().differences(expected);
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::Mismatch(format!(
        "{} does not fit the model, which was trained on other vectors: {}; extract them with the model's settings",
        store.path().display(),
        differences.join("; ")
    )))
}

/// The words of the training split seen at least `min_count` times; an error if there is none.
pub(crate) fn training_vocabulary(dataset: &Dataset, min_count: u64) -> Result<Vocabulary> {
    let vocabulary = dataset.vocabulary(min_count);
    if dataset.split(Split::Train).next().is_none() {
        return Err(Error::Mismatch(format!("the dataset {} has no photo in its train split", dataset.name)));
    }
    if vocabulary.is_empty() {
        return Err(Error::Mismatch(format!(
            "no word stands {min_count} times in the training sentences; lower min_count (--set min_count=1)"
        )));
    }
    Ok(vocabulary)
}

/// Where boxes lie in a photo of the given width and height: [`GEOMETRY`] numbers a box.
pub(crate) fn places(boxes: impl Iterator<Item = BoxXyxy>, size: [u32; 2]) -> impl Iterator<Item = f32> {
    let size = size.map(|pixels| pixels as f32);
    boxes.flat_map(move |b| geometry(b.into(), size))
}

/// The regions of photos of a store, end to end, as a model with these settings reads them.
pub(crate) fn region_batch(
    store: &FeatureStore,
    positions: impl Iterator<Item = usize>,
    settings: &AlignmentSettings,
    device: &Device,
) -> RegionBatch {
    let dim = store.dim();
    let (mut values, mut places, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    for position in positions {
        let photo = store.get(position);
        let start = values.len();
        values.resize(start + photo.n_regions() * dim, 0.0);
        photo.write_vectors(&mut values[start..]);
        if settings.geometry {
            places.extend(self::places(photo.boxes(), [photo.width, photo.height]));
        }
        counts.push(photo.n_regions());
    }
    RegionBatch {
        features: features_tensor(values, dim, device),
        geometry: settings.geometry.then(|| features_tensor(places, GEOMETRY, device)),
        counts: RegionCounts::new(counts),
    }
}
