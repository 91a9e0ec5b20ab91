//! Training and use of the caption models, image level and region level.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use sightline_data::store::{FeatureStore, StoreSettings};
use sightline_data::{Dataset, Split, Vocabulary};
use sightline_model::SentenceBatch;
use sightline_model::alignment::features_tensor;
use sightline_model::caption::{BeamSettings, CaptionModel, beam_search};
use sightline_model::random::{self, Dropout};
use sightline_model::weights;

use crate::align::check_features;
use crate::checkpoint::{Checkpoint, Header, Kind, Progress};
use crate::corpus::{Corpus, training_vocabulary};
use crate::phrases::Phrases;
use crate::run::RunFolder;
use crate::settings::CaptionRunSettings;
use crate::trainer::{self, BATCHES_STREAM, Plan, Task, Validation, WEIGHTS_STREAM};
use crate::{Control, Error, Outcome, Result};

/// Trains a caption model on the training split, keeping the best by perplexity on the validation split.
///
/// Without `phrases` on whole photos and their sentences; with them on regions and their phrases.
#[expect(clippy::too_many_arguments, reason = "the alignment trainer's arguments and the phrases")]
pub fn train(
    dataset: &Dataset,
    store: &FeatureStore,
    phrases: Option<&Phrases>,
    settings: &CaptionRunSettings,
    run: &RunFolder,
    resume: bool,
    device: &Device,
    control: &mut Control<'_>,
) -> Result<Outcome> {
    let vocabulary = training_vocabulary(dataset, settings.min_count)?;
    let (kind, items, validation) = match phrases {
        None => (
            Kind::Caption,
            sentence_items(&Corpus::new(dataset, Split::Train, store, &vocabulary)?),
            sentence_items(&Corpus::new(dataset, Split::Val, store, &vocabulary)?),
        ),
        Some(phrases) => (
            Kind::RegionCaption,
            phrase_items(phrases, dataset, Split::Train, store, &vocabulary, settings)?,
            phrase_items(phrases, dataset, Split::Val, store, &vocabulary, settings)?,
        ),
    };
    let device = device.clone().autodiff();
    let mut rng = random::stream(settings.seed, WEIGHTS_STREAM);
    let frequencies = log_frequencies(&items, vocabulary.len());
    let model = CaptionModel::new(&settings.model, store.dim(), &frequencies, &mut rng, &device);
    let header = Header {
        kind,
        settings: serde_json::to_value(settings).expect("settings are plain data"),
        vocabulary,
        features: store.settings().clone(),
        progress: Progress::default(),
    };
    let task = CaptionTask { store, items: &items, validation: &validation, settings, device: &device };
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

/// One region and what is said of it.
#[derive(Debug, Clone, PartialEq)]
struct Item {
    /// Index of the photo in the store.
    position: usize,
    /// Index of the region in the photo; 0 is the whole image.
    region: usize,
    words: Vec<u32>,
}

/// Whole photos with their sentences.
fn sentence_items(corpus: &Corpus<'_>) -> Vec<Item> {
    let of_photo = |photo: &crate::corpus::CorpusPhoto| {
        let position = photo.position;
        let words = photo.sentences.iter().filter(|words| !words.is_empty());
        words.map(|words| Item { position, region: 0, words: words.clone() }).collect::<Vec<_>>()
    };
    corpus.photos.iter().flat_map(of_photo).collect()
}

/// Regions with the phrases that the alignment model found for them.
fn phrase_items(
    phrases: &Phrases,
    dataset: &Dataset,
    split: Split,
    store: &FeatureStore,
    vocabulary: &Vocabulary,
    settings: &CaptionRunSettings,
) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for image in dataset.split(split) {
        let (Some(position), Some(own)) = (store.position(&image.path), phrases.photos.get(&image.path)) else {
            continue;
        };
        let n_regions = store.get(position).n_regions();
        for phrase in own {
            if phrase.region >= n_regions {
                return Err(Error::Mismatch(format!(
                    "the phrases name region {} of {}, which has {n_regions} in {}; decode them from this store",
                    phrase.region,
                    image.path,
                    store.path().display()
                )));
            }
            let words = vocabulary.encode(&phrase.words);
            if words.len() >= settings.min_phrase_words.max(1) && phrase.score >= settings.min_phrase_score {
                items.push(Item { position, region: phrase.region, words });
            }
        }
    }
    if items.is_empty() {
        return Err(Error::Mismatch(format!(
            "no phrase of the {} split is left; lower min_phrase_words or min_phrase_score, or decode that split",
            split.name()
        )));
    }
    Ok(items)
}

/// Log frequency of every token among the targets, the end token once an item; one added to each count.
fn log_frequencies(items: &[Item], vocab: usize) -> Vec<f32> {
    let mut counts = vec![1u64; vocab];
    counts[0] += items.len() as u64;
    for word in items.iter().flat_map(|item| &item.words) {
        counts[*word as usize] += 1;
    }
    let total: u64 = counts.iter().sum();
    counts.iter().map(|&count| (count as f64 / total as f64).ln() as f32).collect()
}

struct CaptionTask<'a> {
    store: &'a FeatureStore,
    items: &'a [Item],
    validation: &'a [Item],
    settings: &'a CaptionRunSettings,
    device: &'a Device,
}

impl CaptionTask<'_> {
    fn batch(&self, items: &[&Item], device: &Device) -> (Tensor<2>, SentenceBatch) {
        let regions: Vec<(usize, usize)> = items.iter().map(|item| (item.position, item.region)).collect();
        let words: Vec<&[u32]> = items.iter().map(|item| item.words.as_slice()).collect();
        (region_features(self.store, &regions, device), SentenceBatch::new(&words))
    }
}

/// Vectors of single regions, `(photo, region)`: `[n, dim]`.
fn region_features(store: &FeatureStore, regions: &[(usize, usize)], device: &Device) -> Tensor<2> {
    let mut values = Vec::with_capacity(regions.len() * store.dim());
    for &(position, region) in regions {
        values.extend(store.get(position).vector_f16(region).iter().map(|x| x.to_f32()));
    }
    features_tensor(values, store.dim(), device)
}

impl Task for CaptionTask<'_> {
    type Model = CaptionModel;
    type Batch = Vec<usize>;

    fn batches(&self, epoch: u64) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.items.len()).collect();
        order.shuffle(&mut random::stream(self.settings.seed, BATCHES_STREAM + epoch));
        order.chunks(self.settings.batch.max(1)).map(<[_]>::to_vec).collect()
    }

    fn loss(&self, model: &CaptionModel, batch: &Vec<usize>, dropout: &mut Dropout) -> (Tensor<1>, f64) {
        let items: Vec<&Item> = batch.iter().map(|&i| &self.items[i]).collect();
        let (images, sentences) = self.batch(&items, &self.device.clone().without_autodiff());
        (model.loss(images, &sentences, Some(dropout)), 1.0)
    }

    fn validate(&self, model: &CaptionModel) -> Result<Validation> {
        let device = self.device.clone().without_autodiff();
        let mut items: Vec<&Item> = self.validation.iter().collect();
        items.sort_by_key(|item| item.words.len());
        let (mut log_likelihood, mut tokens) = (0.0, 0usize);
        for chunk in items.chunks(256) {
            let (images, sentences) = self.batch(chunk, &device);
            let sum = model.log_likelihoods(images, &sentences, None).sum().into_scalar::<f32>();
            log_likelihood += f64::from(sum);
            tokens += sentences.n_words() + sentences.len();
        }
        let perplexity = (-log_likelihood / tokens.max(1) as f64).exp();
        Ok(Validation {
            score: -perplexity,
            text: format!("perplexity {perplexity:.2}"),
            record: serde_json::json!({ "perplexity": perplexity }),
        })
    }
}

/// A caption with its probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Caption {
    /// The words, blanks between.
    pub text: String,
    /// Natural logarithm, END included.
    pub log_probability: f64,
}

/// A trained caption model, ready for use.
#[derive(Debug)]
pub struct Captioner {
    model: CaptionModel,
    /// Its words.
    pub vocabulary: Vocabulary,
    /// Whose region vectors it reads.
    pub features: StoreSettings,
    /// Whole photos or regions.
    pub kind: Kind,
    device: Device,
}

/// Pictures decoded at once.
const CHUNK: usize = 64;

impl Captioner {
    /// From a checkpoint of [`Kind::Caption`] or [`Kind::RegionCaption`].
    pub fn new(checkpoint: Checkpoint, device: &Device) -> Result<Self> {
        let Header { settings, vocabulary, features, kind, .. } = checkpoint.header;
        let settings: CaptionRunSettings = serde_json::from_value(settings)
            .map_err(|e| Error::Mismatch(format!("settings of the caption model: {e}")))?;
        let mut rng = random::stream(settings.seed, WEIGHTS_STREAM);
        let frequencies = vec![0.0; vocabulary.len()];
        let model = CaptionModel::new(&settings.model, features.dim, &frequencies, &mut rng, device);
        let model = weights::import(model, checkpoint.model)
            .map_err(|e| Error::Mismatch(format!("weights of the caption model: {e}")))?;
        Ok(Self { model: model.valid(), vocabulary, features, kind, device: device.clone() })
    }

    /// An error that names the differences where the store's vectors are not what the model was trained on.
    pub fn check(&self, store: &FeatureStore) -> Result<()> {
        check_features(&self.features, store)
    }

    /// The best captions of vectors `[n, dim]`, best first, one list a vector.
    pub fn captions(&self, vectors: &[f32], beam: BeamSettings) -> Vec<Vec<Caption>> {
        let dim = self.features.dim;
        let mut captions = Vec::with_capacity(vectors.len() / dim);
        for chunk in vectors.chunks(CHUNK * dim) {
            let start = self.model.start(features_tensor(chunk.to_vec(), dim, &self.device));
            for hypotheses in beam_search(&self.model, start, chunk.len() / dim, beam) {
                let caption = |h: sightline_model::caption::Hypothesis| Caption {
                    text: self.vocabulary.decode(&h.words),
                    log_probability: h.log_probability,
                };
                captions.push(hypotheses.into_iter().map(caption).collect());
            }
        }
        captions
    }
}
