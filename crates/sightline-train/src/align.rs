//! Training and use of the alignment model.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use sightline_data::store::{FeatureStore, PhotoFeatures, StoreSettings, StoreWriter};
use sightline_data::{Dataset, Split, Vocabulary};
use sightline_model::SentenceBatch;
use sightline_model::alignment::{AlignmentModel, Objective, RegionEncoder, Score, features_tensor};
use sightline_model::random::{self, Dropout};
use sightline_model::weights;
use sightline_search::{Reduction, VectorSets};

use crate::checkpoint::{Checkpoint, Header, Kind, Progress};
use crate::corpus::{Corpus, gather, training_vocabulary};
use crate::evaluate;
use crate::run::RunFolder;
use crate::settings::AlignSettings;
use crate::trainer::{self, Plan, Task, Validation, WEIGHTS_STREAM};
use crate::{Control, Error, Outcome, Result};

/// Trains an alignment model on the training split, keeping the best by rsum on the validation split.
///
/// With `resume`, goes on from the run's last checkpoint, bit for bit as if it had never stopped.
pub fn train(
    dataset: &Dataset,
    store: &FeatureStore,
    settings: &AlignSettings,
    run: &RunFolder,
    resume: bool,
    device: &Device,
    control: &mut Control<'_>,
) -> Result<Outcome> {
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
    let corpus = Corpus::new(dataset, Split::Train, store, &vocabulary)?;
    let validation = Corpus::new(dataset, Split::Val, store, &vocabulary)?;
    let device = device.clone().autodiff();
    let mut rng = random::stream(settings.seed, WEIGHTS_STREAM);
    let model = AlignmentModel::new(&settings.model, store.dim(), vocabulary.len(), &mut rng, &device);
    let header = Header {
        kind: Kind::Alignment,
        settings: serde_json::to_value(settings).expect("settings are plain data"),
        vocabulary,
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
        device: &device,
    };
    trainer::train(&task, model, plan, control)
}

struct AlignTask<'a> {
    corpus: &'a Corpus<'a>,
    validation: &'a Corpus<'a>,
    settings: &'a AlignSettings,
    device: &'a Device,
}

impl Task for AlignTask<'_> {
    type Model = AlignmentModel;
    type Batch = Vec<(usize, usize)>;

    fn batches(&self, epoch: u64) -> Vec<Self::Batch> {
        self.corpus.pair_batches(self.settings.batch, self.settings.seed, epoch)
    }

    fn loss(&self, model: &AlignmentModel, batch: &Self::Batch, dropout: &mut Dropout) -> (Tensor<1>, f64) {
        let (values, counts) = self.corpus.regions(batch.iter().map(|&(photo, _)| photo));
        let features = features_tensor(values, self.corpus.store.dim(), &self.device.clone().without_autodiff());
        let sentences: Vec<&[u32]> =
            batch.iter().map(|&(photo, s)| self.corpus.photos[photo].sentences[s].as_slice()).collect();
        let sentences = SentenceBatch::new(&sentences);
        let loss = model.loss(&self.settings.model, features, &counts, &sentences, Some(dropout));
        let divisor = match self.settings.model.objective {
            Objective::SumHinge => batch.len() as f64,
            Objective::Contrastive => 1.0,
        };
        (loss, divisor)
    }

    fn validate(&self, model: &AlignmentModel) -> Result<Validation> {
        let report = evaluate::retrieval_of(model, self.settings.model.score, self.validation);
        let (i2s, s2i) = (&report.image_to_sentence, &report.sentence_to_image);
        let text = format!(
            "image→sentence R@1 {:.1} R@10 {:.1}, sentence→image R@1 {:.1} R@10 {:.1}, rsum {:.1}",
            i2s.r1, i2s.r10, s2i.r1, s2i.r10, report.rsum
        );
        let score = report.rsum;
        let record = serde_json::to_value(report).expect("a report is plain data");
        Ok(Validation { score, text, record })
    }
}

/// A trained alignment model, ready for use.
#[derive(Debug)]
pub struct Aligner {
    /// Regions and words to vectors.
    pub model: AlignmentModel,
    /// How its scores are made.
    pub score: Score,
    /// Its words.
    pub vocabulary: Vocabulary,
    /// Whose region vectors it reads.
    pub features: StoreSettings,
    /// Length of its vectors.
    pub dim: usize,
    device: Device,
}

/// Photos or sentences encoded at once: enough to keep the matrix product busy, few enough for any memory.
const CHUNK: usize = 128;

impl Aligner {
    /// From a checkpoint of [`Kind::Alignment`].
    pub fn new(checkpoint: Checkpoint, device: &Device) -> Result<Self> {
        let Header { settings, vocabulary, features, .. } = checkpoint.header;
        let settings: AlignSettings = serde_json::from_value(settings)
            .map_err(|e| Error::Mismatch(format!("settings of the alignment model: {e}")))?;
        let mut rng = random::stream(settings.seed, WEIGHTS_STREAM);
        let model = AlignmentModel::new(&settings.model, features.dim, vocabulary.len(), &mut rng, device);
        let model = weights::import(model, checkpoint.model)
            .map_err(|e| Error::Mismatch(format!("weights of the alignment model: {e}")))?;
        let (score, dim) = (settings.model.score, settings.model.dim);
        Ok(Self { model: model.valid(), score, vocabulary, features, dim, device: device.clone() })
    }

    /// An error that names the differences where the store's vectors are not what the model was trained on.
    pub fn check(&self, store: &FeatureStore) -> Result<()> {
        check_features(&self.features, store)
    }

    /// Region vectors of photos of a store, one set a photo.
    pub fn regions(&self, store: &FeatureStore, positions: &[usize]) -> VectorSets {
        encode_regions(&self.model, store, positions, &self.device)
    }

    /// Region vectors of features that lie in no store: `[regions, features] -> [regions, dim]`, row-major.
    pub fn project(&self, features: Vec<f32>) -> Vec<f32> {
        if features.is_empty() {
            return Vec::new();
        }
        let vectors = self.model.regions(features_tensor(features, self.features.dim, &self.device), None);
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

    /// Word vectors of sentences (known words as indices), one set a sentence.
    pub fn words<S: AsRef<[u32]>>(&self, sentences: &[S]) -> VectorSets {
        encode_words(&self.model, sentences)
    }

    /// How scores of sets are reduced.
    pub fn reduction(&self) -> Reduction {
        reduction(self.score)
    }
}

pub(crate) fn reduction(score: Score) -> Reduction {
    match score {
        Score::MaxOverRegions => Reduction::Sum,
        Score::MeanOfMax => Reduction::Mean,
    }
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
    store: &FeatureStore,
    positions: &[usize],
    device: &Device,
) -> VectorSets {
    let mut sets: Option<VectorSets> = None;
    for chunk in positions.chunks(CHUNK) {
        let (values, _) = gather(store, chunk.iter().copied());
        let vectors = model.regions(features_tensor(values, store.dim(), device), None);
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

pub(crate) fn encode_words<S: AsRef<[u32]>>(model: &AlignmentModel, sentences: &[S]) -> VectorSets {
    let mut sets: Option<VectorSets> = None;
    // Sentences of like length share a chunk, so that little padding is computed.
    let mut order: Vec<usize> = (0..sentences.len()).collect();
    order.sort_by_key(|&i| sentences[i].as_ref().len());
    let mut encoded: Vec<Vec<f32>> = vec![Vec::new(); sentences.len()];
    for chunk in order.chunks(CHUNK) {
        let own: Vec<&[u32]> = chunk.iter().map(|&i| sentences[i].as_ref()).collect();
        let batch = SentenceBatch::new(&own);
        if batch.n_words() == 0 {
            continue;
        }
        let vectors = model.words(&batch, None);
        let [_, dim] = vectors.dims();
        sets.get_or_insert_with(|| VectorSets::new(dim));
        let vectors = vectors.into_data().try_into_vec::<f32>().expect("vectors are f32");
        let mut start = 0;
        for &i in chunk {
            let end = start + sentences[i].as_ref().len() * dim;
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
