//! Training and use of the alignment model.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use sightline_data::parses::Parses;
use sightline_data::store::{FeatureStore, PhotoFeatures, StoreSettings, StoreWriter};
use sightline_data::{BoxXyxy, Dataset, Split, Vocabulary};
use sightline_model::alignment::{
    AlignmentModel, AlignmentSettings, BatchTruth, GEOMETRY, Noise, Objective, Pairing, RegionBatch, RegionCounts,
    RegionEncoder, Score, SentenceEncoder, Sizes, features_tensor,
};
use sightline_model::random::{self, Dropout};
use sightline_model::weights::{self, Weights};
use sightline_model::{Sentence, SentenceBatch};
use sightline_search::{Reduction, VectorSets};

use crate::checkpoint::{Checkpoint, Header, Kind, MatchFloors, Progress};
use crate::corpus::{self, Corpus, CorpusPhoto, Hand, region_batch, training_vocabulary};
use crate::evaluate::{self, Scores};
use crate::run::RunFolder;
use crate::settings::AlignSettings;
use crate::trainer::{self, Plan, Task, Validation, WEIGHTS_STREAM};
use crate::{Control, Error, Outcome, Result};

/// What an alignment model is trained on.
#[derive(Debug, Clone, Copy)]
pub struct AlignData<'a> {
    /// Photos and what is said of them.
    pub dataset: &'a Dataset,
    /// Vectors of the photos' regions.
    pub store: &'a FeatureStore,
    /// Dependency trees of the sentences, for [`SentenceEncoder::DependencyEdges`] and no other encoder.
    pub parses: Option<&'a Parses>,
}

impl<'a> AlignData<'a> {
    /// Without dependency trees.
    pub fn new(dataset: &'a Dataset, store: &'a FeatureStore) -> Self {
        Self { dataset, store, parses: None }
    }
}

/// Trains an alignment model on the training split, keeping the best by rsum on the validation split.
///
/// With `resume`, goes on from the run's last checkpoint, bit for bit as if it had never stopped.
pub fn train(
    data: AlignData<'_>,
    settings: &AlignSettings,
    run: &RunFolder,
    resume: bool,
    device: &Device,
    control: &mut Control<'_>,
) -> Result<Outcome> {
    let AlignData { dataset, store, parses } = data;
    let vocabulary = training_vocabulary(dataset, settings.min_count)?;
    let conv = &settings.model.conv;
    if settings.model.encoder == RegionEncoder::Conv && store.dim() != conv.pixels() {
        return Err(Error::Mismatch(format!(
            "model.encoder = conv reads crops of {0}x{0} pixels, {1} numbers a region, but {2} has {3}; extract them with \
             `features --backbone pixels`, or leave model.encoder at none",
            conv.side,
            conv.pixels(),
            store.path().display(),
            store.dim()
        )));
    }
    if settings.model.whole && !matches!(settings.model.score, Score::MaxOverRegions | Score::MeanOfMax) {
        return Err(Error::Setting(
            "model.whole adds to the scores max_over_regions and mean_of_max alone; set model.whole=false".into(),
        ));
    }
    let mut corpus = Corpus::new(dataset, Split::Train, store, &vocabulary)?;
    let mut validation = Corpus::new(dataset, Split::Val, store, &vocabulary)?;
    let mut relations = Vec::new();
    match (parses, settings.model.sentence_encoder) {
        (Some(parses), SentenceEncoder::DependencyEdges) => {
            relations = corpus.frequent_relations(parses, settings.min_relation_count);
            corpus = corpus.with_parses(parses, &relations, &vocabulary)?;
            validation = validation.with_parses(parses, &relations, &vocabulary)?;
        }
        (None, SentenceEncoder::DependencyEdges) => return Err(parses_wanted()),
        (Some(parses), _) => {
            return Err(Error::Setting(format!(
                "{} is read by model.sentence_encoder = dependency_edges alone; set that, or leave --parses out",
                parses.path().display()
            )));
        }
        (None, _) => {}
    }
    let device = device.clone().autodiff();
    let mut rng = random::stream(settings.seed, WEIGHTS_STREAM);
    let sizes = Sizes {
        features: store.dim(),
        vocab: vocabulary.len(),
        photos: corpus.photos.len(),
        relations: relations.len() + 1,
    };
    let mut model = AlignmentModel::new(&settings.model, sizes, &mut rng, &device);
    if settings.model.standardize {
        let (mean, deviation) = corpus.feature_statistics();
        model.set_standard(&mean, &deviation);
    }
    if !settings.word_vectors_from.is_empty() {
        start_word_vectors(&mut model, settings, &vocabulary)?;
    }
    let header = Header {
        kind: Kind::Alignment,
        settings: serde_json::to_value(settings).expect("settings are plain data"),
        vocabulary,
        relations,
        features: store.settings().clone(),
        progress: Progress::default(),
    };
    let task = AlignTask { corpus: &corpus, validation: &validation, settings, device: &device };
    let plan = Plan {
        seed: settings.seed,
        epochs: settings.epochs,
        dropout: settings.model.dropout,
        optimizer: &settings.optimizer,
        run,
        header,
        resume,
    };
    trainer::train(&task, model, settings.average, &device, plan, control)
}

fn parses_wanted() -> Error {
    Error::Mismatch(
        "this alignment model reads dependency trees (sentence_encoder = dependency_edges); name their file with --parses \
         FILE.conllu"
            .into(),
    )
}

/// Puts the vectors of a file in place of the random ones.
fn start_word_vectors(model: &mut AlignmentModel, settings: &AlignSettings, vocabulary: &Vocabulary) -> Result<()> {
    let path = Path::new(&settings.word_vectors_from);
    let vectors = sightline_data::word_vectors::read_word_vectors(path, vocabulary)?;
    if vectors.dim != settings.model.word_dim {
        return Err(Error::Mismatch(format!(
            "{}: vectors of {dim} numbers, and model.word_dim is {}; set model.word_dim={dim}",
            path.display(),
            settings.model.word_dim,
            dim = vectors.dim
        )));
    }
    if vectors.by_word.is_empty() {
        return Err(Error::Mismatch(format!("{}: none of the training sentences' words is in it", path.display())));
    }
    let rows = vectors.by_word.iter().filter_map(|(word, vector)| Some((vocabulary.get(word)?, vector.as_slice())));
    model.set_word_vectors(rows);
    Ok(())
}

struct AlignTask<'a> {
    corpus: &'a Corpus<'a>,
    validation: &'a Corpus<'a>,
    settings: &'a AlignSettings,
    device: &'a Device,
}

impl Task for AlignTask<'_> {
    type Model = AlignmentModel;
    type Batch = AlignBatch;

    fn batches(&self, epoch: u64) -> Vec<AlignBatch> {
        let AlignSettings { batch, captions_per_photo, seed, .. } = *self.settings;
        let objective = match self.settings.model.objective {
            Objective::HardestNegative if epoch == 0 => Objective::SumHinge,
            objective => objective,
        };
        let batches = self.corpus.pair_batches(batch, captions_per_photo, seed, epoch);
        batches.into_iter().map(|hands| AlignBatch { hands, objective }).collect()
    }

    fn loss(&self, model: &AlignmentModel, batch: &AlignBatch, dropout: &mut Dropout) -> (Tensor<1>, f64) {
        let AlignBatch { hands, objective } = batch;
        let (settings, photos) = (&self.settings.model, &self.corpus.photos);
        let positions = hands.iter().map(|hand| photos[hand.photo].position);
        let regions = region_batch(self.corpus.store, positions, settings, &self.device.clone().without_autodiff());
        loss_of(model, settings, *objective, photos, hands, regions, dropout)
    }

    fn validate(&self, model: &AlignmentModel) -> Result<Validation> {
        Ok(validation_of(model, &self.settings.model, self.validation))
    }
}

/// The loss of some photos, given their regions, and sentences, and what to divide it by for a figure a sentence.
pub(crate) fn loss_of(
    model: &AlignmentModel,
    settings: &AlignmentSettings,
    objective: Objective,
    photos: &[CorpusPhoto],
    hands: &[Hand],
    regions: RegionBatch,
    dropout: &mut Dropout,
) -> (Tensor<1>, f64) {
    let pairs = || hands.iter().enumerate().flat_map(|(i, hand)| hand.sentences.iter().map(move |&s| (i, hand, s)));
    let sentences = SentenceBatch::new(pairs().map(|(_, hand, s)| photos[hand.photo].sentence(s)));
    let truth = BatchTruth {
        pairing: Pairing::new(hands.len(), pairs().map(|(image, ..)| image).collect()),
        classes: hands.iter().map(|hand| hand.photo as i64).collect(),
    };
    let mut blank = (settings.word_dropout > 0.0).then(|| dropout.fork(settings.word_dropout));
    let noise = Noise { dropout, blank: blank.as_mut() };
    let loss = model.loss(settings, objective, regions, &sentences, &truth, Some(noise));
    let divisor = match objective {
        Objective::SumHinge | Objective::HardestNegative | Objective::Fragments => sentences.len() as f64,
        Objective::Contrastive | Objective::Instance => 1.0,
    };
    (loss, divisor)
}

/// What validation says of a model, in words and for the log.
pub(crate) fn validation_of(model: &AlignmentModel, settings: &AlignmentSettings, corpus: &Corpus<'_>) -> Validation {
    let scores = evaluate::scores_of(model, settings, corpus);
    let report = scores.report();
    let (i2s, s2i) = (&report.image_to_sentence, &report.sentence_to_image);
    let text = format!(
        "image→sentence R@1 {:.1} R@10 {:.1}, sentence→image R@1 {:.1} R@10 {:.1}, rsum {:.1}",
        i2s.r1, i2s.r10, s2i.r1, s2i.r10, report.rsum
    );
    let score = report.rsum;
    let lengths: Vec<usize> = corpus.photos.iter().flat_map(|photo| &photo.sentences).map(Vec::len).collect();
    let record = serde_json::to_value(report).expect("a report is plain data");
    Validation { score, text, record, match_floors: match_floors(&scores, settings.score, &lengths) }
}

/// Sizes of collections whose floors are known.
const COLLECTIONS: [usize; 6] = [10, 30, 100, 300, 1000, 3000];

/// What the best photo scores a word in 95 of 100 queries whose own photo is there, in collections of several sizes drawn
/// from the split; `lengths` are the sentences' in words. Empty where scores are no sum or mean over words.
fn match_floors(scores: &Scores, score: Score, lengths: &[usize]) -> MatchFloors {
    if !matches!(score, Score::MaxOverRegions | Score::MeanOfMax) {
        return MatchFloors::default();
    }
    let (images, sentences) = (scores.images, scores.image_of_sentence.len());
    let floor = |size: usize| {
        let mut best: Vec<f64> = Vec::with_capacity(sentences);
        for (sentence, (&length, &own)) in lengths.iter().zip(&scores.image_of_sentence).enumerate() {
            // The own photo and others, spread over the split.
            let photos = (0..size).map(|i| (own + i * images / size) % images);
            let most =
                photos.map(|photo| scores.scores[photo * sentences + sentence]).fold(f32::NEG_INFINITY, f32::max);
            let words = if score == Score::MaxOverRegions { length } else { 1 };
            if length > 0 {
                best.push(f64::from(most) / words as f64);
            }
        }
        best.sort_unstable_by(f64::total_cmp);
        best.get(best.len() / 20).map(|&floor| (size, floor))
    };
    MatchFloors(COLLECTIONS.into_iter().filter(|&size| size <= images).filter_map(floor).collect())
}

/// The model of a checkpoint of [`Kind::Alignment`] and the settings of its run.
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

/// One step's photos and sentences, and what the step minimises over them.
struct AlignBatch {
    hands: Vec<Hand>,
    objective: Objective,
}

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
    /// What the best photo scores a word in nearly all queries that have an answer.
    pub match_floors: MatchFloors,
    device: Device,
}

/// Photos or sentences encoded at once: enough to keep the matrix product busy, few enough for any memory.
const CHUNK: usize = 128;

impl Aligner {
    /// From a checkpoint of [`Kind::Alignment`].
    pub fn new(checkpoint: Checkpoint, device: &Device) -> Result<Self> {
        let (model, settings) = model_of(&checkpoint.header, checkpoint.model, device)?;
        let Header { vocabulary, relations, features, progress, .. } = checkpoint.header;
        let (match_floors, device) = (progress.match_floors, device.clone());
        Ok(Self {
            model: model.valid(),
            settings: settings.model,
            vocabulary,
            relations,
            features,
            match_floors,
            device,
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
        scores(self.settings.score, regions, words, &self.device)
    }
}

/// Sets scored at once where tensors do the work: their products stay below a hundred megabytes.
const SCORED_IMAGES: usize = 64;
const SCORED_SENTENCES: usize = 128;

pub(crate) fn scores(score: Score, regions: &VectorSets, words: &VectorSets, device: &Device) -> Vec<f32> {
    match score {
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
                    let tile = score.scores(v.clone(), &counts, s, &lengths);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_are_what_the_best_of_so_many_score() {
        // Twenty photos with a sentence of two words each; a photo scores less the farther it is from the sentence's own.
        let n = 20;
        let score = |photo: usize, sentence: usize| 10.0 - photo.abs_diff(sentence) as f32 + sentence as f32;
        let scores = Scores {
            scores: (0..n).flat_map(|photo| (0..n).map(move |sentence| score(photo, sentence))).collect(),
            image_of_sentence: (0..n).collect(),
            images: n,
        };
        // The own photo is the best, so a sentence's best is 10 and its number; one in twenty is below the second least.
        assert_eq!(match_floors(&scores, Score::MeanOfMax, &[2; 20]), MatchFloors(vec![(10, 11.0)]));
        assert_eq!(match_floors(&scores, Score::MaxOverRegions, &[2; 20]), MatchFloors(vec![(10, 5.5)]));
        assert!(match_floors(&scores, Score::SoftAttention, &[2; 20]).is_empty());
    }
}
