//! A trained alignment model, ready for use: regions and words to vectors, and vectors to scores.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use sightline_data::parses::Parses;
use sightline_data::store::{FeatureStore, PhotoFeatures, StoreSettings, StoreWriter};
use sightline_data::{BoxXyxy, Dataset, Split, Vocabulary};
use sightline_model::alignment::{
    AlignmentModel, AlignmentSettings, GEOMETRY, RegionBatch, RegionCounts, Score, Scoring, SentenceEncoder, Sizes,
    features_tensor,
};
use sightline_model::decode::Prior;
use sightline_model::random;
use sightline_model::weights::{self, Weights};
use sightline_model::{Sentence, SentenceBatch};
use sightline_search::{Reduction, VectorSets};

use crate::checkpoint::{Checkpoint, Findings, Header, MatchFloors};
use crate::corpus::{self, Corpus, check_features, region_batch};
use crate::pointing::{AttachSettings, PriorWeights};
use crate::settings::AlignSettings;
use crate::trainer::WEIGHTS_STREAM;
use crate::{Error, Result};

/// A trained alignment model, ready for use.
#[derive(Debug)]
pub struct Aligner {
    /// Regions and words to vectors.
    pub model: AlignmentModel,
    /// How it is built and scored.
    pub settings: AlignmentSettings,
    /// Its words.
    pub vocabulary: Vocabulary,
    /// Relations of dependency trees that it has weights for, where it reads such.
    pub relations: Vec<String>,
    /// Whose region vectors it reads.
    pub features: StoreSettings,
    /// What tells its weights from others.
    pub checksum: String,
    /// What the best photo scores a word in nearly all queries that have an answer.
    pub match_floors: MatchFloors,
    /// Which words are of things.
    pub prior_weights: PriorWeights,
    device: Device,
}

/// Photos or sentences encoded at once: enough to keep the matrix product busy, few enough for any memory.
const CHUNK: usize = 128;

impl Aligner {
    /// From a checkpoint of [`Kind::Alignment`](crate::checkpoint::Kind::Alignment).
    pub fn new(checkpoint: Checkpoint, device: &Device) -> Result<Self> {
        let checksum = checkpoint.checksum();
        let (model, settings) = model_of(&checkpoint.header, checkpoint.model, device)?;
        let Header { vocabulary, relations, features, progress, .. } = checkpoint.header;
        let Findings { match_floors, prior_weights } = progress.findings;
        Ok(Self {
            model: model.valid(),
            settings: settings.model,
            vocabulary,
            relations,
            features,
            checksum,
            match_floors,
            prior_weights,
            device: device.clone(),
        })
    }

    /// An error that names the differences where the store's vectors are not what the model was trained on.
    pub fn check(&self, store: &FeatureStore) -> Result<()> {
        check_features(&self.features, store)
    }

    /// One split as this model reads it, with dependency trees where it needs them.
    pub fn corpus<'a>(
        &self,
        dataset: &'a Dataset,
        split: Split,
        store: &'a FeatureStore,
        parses: Option<&Parses>,
    ) -> Result<Corpus<'a>> {
        self.check(store)?;
        let corpus = Corpus::new(dataset, split, store, &self.vocabulary)?;
        if self.settings.sentence_encoder != SentenceEncoder::DependencyEdges {
            return Ok(corpus);
        }
        corpus.with_parses(parses.ok_or_else(parses_wanted)?, &self.relations, &self.vocabulary)
    }

    /// An error where sentences must come with their trees: what has only words, a query say, is not for this model.
    pub fn check_reads_words(&self) -> Result<()> {
        if self.settings.sentence_encoder != SentenceEncoder::DependencyEdges {
            return Ok(());
        }
        Err(Error::Mismatch(
            "the alignment model reads dependency trees (sentence_encoder = dependency_edges), and these sentences have none; \
             use a model of another sentence encoder"
                .into(),
        ))
    }

    /// Region vectors of photos of a store, one set a photo.
    pub fn regions(&self, store: &FeatureStore, positions: &[usize]) -> VectorSets {
        encode_regions(&self.model, &self.settings, store, positions, &self.device)
    }

    /// Length of the vectors of regions and of words. Where photos have a vector of their own
    /// ([`AlignmentSettings::whole`]), it stands behind [`AlignmentSettings::dim`] numbers of the region alone.
    pub fn dim(&self) -> usize {
        if self.settings.whole { 2 * self.settings.dim } else { self.settings.dim }
    }

    /// Takes out of word vectors, `[words, dim]`, what stands for the whole sentence, which says nothing about a region.
    pub fn take_out_whole(&self, words: &mut [f32]) {
        words.chunks_exact_mut(self.dim()).for_each(|word| word[self.settings.dim..].fill(0.0));
    }

    /// What [`viterbi`](sightline_model::decode::viterbi) assigns where words point ([`AttachSettings::pointing`]): the
    /// products `[words, regions]` of these known words with a photo's regions, which lie in their proposer's order, the
    /// whole photo first, and have these `areas`.
    pub fn pointing(&self, words: &[u32], products: &[f32], areas: impl Iterator<Item = f32>) -> Vec<f32> {
        let (prior, weights) = (Prior::in_order(areas), self.prior_weights.of(words));
        AttachSettings::pointing(&self.features).rewards(products, &prior, &weights)
    }

    /// Region vectors of a photo that lies in no store: `[regions, features] -> [regions, dim]`, row-major, the whole
    /// photo first. Boxes are in pixels of the photo, whose `size` is width and height.
    pub fn regions_of(&self, features: Vec<f32>, boxes: &[BoxXyxy], size: [u32; 2]) -> Vec<f32> {
        if boxes.is_empty() {
            return Vec::new();
        }
        let places = || features_tensor(corpus::places(boxes.iter().copied(), size).collect(), GEOMETRY, &self.device);
        let vectors = self.model.regions(RegionBatch {
            features: features_tensor(features, self.features.dim, &self.device),
            geometry: self.settings.geometry.then(places),
            counts: RegionCounts::new(vec![boxes.len()]),
        });
        vectors.into_data().try_into_vec::<f32>().expect("vectors are f32")
    }

    /// A store of what the model's own encoder makes of another store's regions, for models that read vectors.
    ///
    /// The whole image's vector becomes the element-wise maximum over all of the photo's regions: the encoder learnt from
    /// single regions and sees little in a whole image, but together its regions say what is there.
    pub fn encode_store(&self, store: &FeatureStore, path: &Path) -> Result<FeatureStore> {
        self.check(store)?;
        let mut writer: Option<StoreWriter> = None;
        for position in 0..store.len() {
            let photo = store.get(position);
            let encoded = self.model.encode(features_tensor(photo.vectors(), store.dim(), &self.device));
            let [_, dim] = encoded.dims();
            let mut vectors = encoded.into_data().try_into_vec::<f32>().expect("vectors are f32");
            let (whole, regions) = vectors.split_at_mut(dim);
            for region in regions.chunks(dim) {
                whole.iter_mut().zip(region).for_each(|(most, &value)| *most = most.max(value));
            }
            let writer = match &mut writer {
                Some(writer) => writer,
                None => {
                    let mut settings = store.settings().clone();
                    settings.backbone = format!("{}, encoded by an alignment model", settings.backbone);
                    settings.dim = dim;
                    writer.insert(StoreWriter::create_or_resume(path, &settings)?)
                }
            };
            writer.append(&PhotoFeatures { vectors, ..photo.to_features() })?;
        }
        let order: Vec<String> = store.keys().map(str::to_owned).collect();
        if let Some(writer) = writer {
            writer.finish(&order)?;
        }
        Ok(FeatureStore::open(path)?)
    }

    /// Word vectors of sentences (known words as indices), one set a sentence. Where the model reads dependency trees, the
    /// sentences are those of [`Aligner::corpus`].
    pub fn words<'a, S: Into<Sentence<'a>>>(&self, sentences: impl IntoIterator<Item = S>) -> VectorSets {
        encode_words(&self.model, &sentences.into_iter().map(Into::into).collect::<Vec<_>>())
    }

    /// Scores of all photos with all sentences, from their sets of vectors: `[images, sentences]`, row-major.
    pub fn scores(&self, regions: &VectorSets, words: &VectorSets) -> Vec<f32> {
        scores(self.settings.scoring(), regions, words, &self.device)
    }
}

/// Sets scored at once where tensors do the work: their products stay below a hundred megabytes.
const SCORED_IMAGES: usize = 64;
const SCORED_SENTENCES: usize = 128;

/// No score has anything to say of sentences without a word; where none has one, there are no vectors to multiply.
pub(crate) fn scores(scoring: Scoring, regions: &VectorSets, words: &VectorSets, device: &Device) -> Vec<f32> {
    if words.vectors(0..words.len()).is_empty() {
        return vec![0.0; regions.len() * words.len()];
    }
    match scoring.score {
        Score::MaxOverRegions => sightline_search::scores(regions, words, Reduction::Sum),
        Score::MeanOfMax => sightline_search::scores(regions, words, Reduction::Mean),
        Score::SumOfPositive | Score::SmoothedSumOfPositive | Score::SoftAttention | Score::SoftAttentionOverWords => {
            let mut out = vec![0.0; regions.len() * words.len()];
            for images in chunks(regions.len(), SCORED_IMAGES) {
                let counts = RegionCounts::new(images.clone().map(|i| regions.count(i)).collect());
                let v = features_tensor(regions.vectors(images.clone()).to_vec(), regions.dim(), device);
                for sentences in chunks(words.len(), SCORED_SENTENCES) {
                    let lengths: Vec<usize> = sentences.clone().map(|s| words.count(s)).collect();
                    if lengths.iter().all(|&length| length == 0) {
                        continue;
                    }
                    let s = features_tensor(words.vectors(sentences.clone()).to_vec(), words.dim(), device);
                    let tile = scoring.scores(v.clone(), &counts, s, &lengths);
                    let tile = tile.into_data().try_into_vec::<f32>().expect("scores are f32");
                    for (image, row) in images.clone().zip(tile.chunks_exact(lengths.len())) {
                        out[image * words.len() + sentences.start..][..row.len()].copy_from_slice(row);
                    }
                }
            }
            out
        }
    }
}

fn chunks(n: usize, most: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..n).step_by(most).map(move |start| start..n.min(start + most))
}

pub(crate) fn encode_regions(
    model: &AlignmentModel,
    settings: &AlignmentSettings,
    store: &FeatureStore,
    positions: &[usize],
    device: &Device,
) -> VectorSets {
    let mut sets: Option<VectorSets> = None;
    for chunk in positions.chunks(CHUNK) {
        let vectors = model.regions(region_batch(store, chunk.iter().copied(), settings, device));
        let [_, dim] = vectors.dims();
        let vectors = vectors.into_data().try_into_vec::<f32>().expect("vectors are f32");
        let sets = sets.get_or_insert_with(|| VectorSets::new(dim));
        let mut start = 0;
        for &position in chunk {
            let end = start + store.get(position).n_regions() * dim;
            sets.push(&vectors[start..end]);
            start = end;
        }
    }
    sets.unwrap_or_else(|| VectorSets::new(1))
}

pub(crate) fn encode_words(model: &AlignmentModel, sentences: &[Sentence<'_>]) -> VectorSets {
    let mut sets: Option<VectorSets> = None;
    // Sentences of like length share a chunk, so that little padding is computed.
    let mut order: Vec<usize> = (0..sentences.len()).collect();
    order.sort_by_key(|&i| sentences[i].words.len());
    let mut encoded: Vec<Vec<f32>> = vec![Vec::new(); sentences.len()];
    for chunk in order.chunks(CHUNK) {
        let batch = SentenceBatch::new(chunk.iter().map(|&i| sentences[i]));
        if batch.n_words() == 0 {
            continue;
        }
        let vectors = model.words(&batch);
        let [_, dim] = vectors.dims();
        sets.get_or_insert_with(|| VectorSets::new(dim));
        let vectors = vectors.into_data().try_into_vec::<f32>().expect("vectors are f32");
        let mut start = 0;
        for &i in chunk {
            let end = start + sentences[i].words.len() * dim;
            encoded[i] = vectors[start..end].to_vec();
            start = end;
        }
    }
    let mut sets = sets.unwrap_or_else(|| VectorSets::new(1));
    for vectors in &encoded {
        sets.push(vectors);
    }
    sets
}

/// The model of a checkpoint of [`Kind::Alignment`](crate::checkpoint::Kind::Alignment) and the settings of its run.
pub(crate) fn model_of(header: &Header, weights: Weights, device: &Device) -> Result<(AlignmentModel, AlignSettings)> {
    let settings: AlignSettings = serde_json::from_value(header.settings.clone())
        .map_err(|e| Error::Mismatch(format!("settings of the alignment model: {e}")))?;
    let mut rng = random::stream(settings.seed, WEIGHTS_STREAM);
    let sizes = Sizes {
        features: header.features.dim,
        vocab: header.vocabulary.len(),
        photos: weights.get("classifier.weight").map_or(0, |classifier| classifier.shape[1]),
        relations: header.relations.len() + 1,
    };
    let model = AlignmentModel::new(&settings.model, sizes, &mut rng, device);
    let model =
        weights::import(model, weights).map_err(|e| Error::Mismatch(format!("weights of the alignment model: {e}")))?;
    Ok((model, settings))
}

pub(crate) fn parses_wanted() -> Error {
    Error::Mismatch(
        "this alignment model reads dependency trees (sentence_encoder = dependency_edges); name their file with --parses \
         FILE.conllu"
            .into(),
    )
}
