//! The alignment model: photos and sentences as sets of vectors in one space (paper, section 3.1, equations 1 to 9).

mod attention;
mod image;
mod objective;
mod score;
mod sentence;

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::SentenceBatch;
use crate::conv::ConvSettings;
use crate::random::{self, Dropout, drop_out};

pub use image::{GEOMETRY, ImageSide, geometry};
pub use objective::{Objective, Pairing, Teaching};
pub use score::{RegionCounts, Score, Scoring};
pub use sentence::{Encoder, SentenceEncoder};

/// Where word vectors come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WordVectors {
    /// Random at the start and trained with the rest. The paper: "changes little" against word2vec.
    Learned,
    /// Left as they are at the start.
    Frozen,
}

/// What turns region features into the vectors that are projected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegionEncoder {
    /// They are vectors already.
    None,
    /// They are the pixels of a crop; a convolutional encoder is trained with the model.
    Conv,
}

/// Settings of the alignment model; saved beside its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlignmentSettings {
    /// Length of the shared vectors, `h` in equation 1 (paper: 1000 to 1600).
    pub dim: usize,
    /// Length of the recurrent states (paper: 300 to 600).
    pub hidden: usize,
    /// Length of the word vectors (paper: 300).
    pub word_dim: usize,
    /// What makes a word's vector know its neighbours.
    pub sentence_encoder: SentenceEncoder,
    /// What comes before the projection.
    pub encoder: RegionEncoder,
    /// Sizes of the convolutional encoder, where there is one.
    pub conv: ConvSettings,
    /// Where word vectors come from.
    pub word_vectors: WordVectors,
    /// Whether each region feature is brought to mean 0 and deviation 1 over the training photos (the paper: no).
    pub standardize: bool,
    /// Whether the place and size of its box stand beside a region's features.
    pub geometry: bool,
    /// Whether the whole photo's features add to every region's vector.
    pub context: bool,
    /// Whether the regions of a photo pass through one layer of self-attention.
    pub region_attention: bool,
    /// Whether photo and sentence have a vector of their own beside their parts' vectors; its product adds to the score.
    pub whole: bool,
    /// Dropout probability of region features, word vectors and summed states; never inside the recurrence.
    pub dropout: f32,
    /// Probability that a word of a training sentence is left blank.
    pub word_dropout: f32,
    /// Standard deviation of initial weights, in units of `1 / sqrt(inputs)`.
    pub initial_scale: f32,
    /// Whether region and word vectors are scaled to length 1 (the paper: no).
    pub unit_vectors: bool,
    /// How word and region products become one number for a photo and a sentence.
    pub score: Score,
    /// How sharply a score with attention looks, `λ`: one by the temperature of its softmax. None is its authors', 9 from
    /// words to regions and 4 from regions to words.
    pub attention_sharpness: Option<f32>,
    /// What training minimises.
    pub objective: Objective,
    /// Margin of the hinge (paper: 1).
    pub margin: f32,
    /// Starting factor on scores in the contrastive objective; learned from there.
    pub logit_scale: f32,
}

impl Default for AlignmentSettings {
    fn default() -> Self {
        Self {
            dim: 1000,
            hidden: 300,
            word_dim: 300,
            sentence_encoder: SentenceEncoder::Brnn,
            encoder: RegionEncoder::None,
            conv: ConvSettings::default(),
            word_vectors: WordVectors::Learned,
            standardize: false,
            geometry: false,
            context: false,
            region_attention: false,
            whole: false,
            dropout: 0.2,
            word_dropout: 0.0,
            initial_scale: 1.0,
            unit_vectors: false,
            score: Score::MaxOverRegions,
            attention_sharpness: None,
            objective: Objective::SumHinge,
            margin: 1.0,
            logit_scale: 10.0,
        }
    }
}

impl AlignmentSettings {
    /// How photos and sentences are scored.
    pub fn scoring(&self) -> Scoring {
        Scoring { score: self.score, sharpness: self.attention_sharpness }
    }
}

/// Region projection (equation 1) and sentence encoder (equations 2 to 6), with their variants.
#[derive(Module, Debug)]
pub struct AlignmentModel {
    image: ImageSide,
    /// `W_w`: `[vocab, word_dim]`.
    word_vectors: Param<Tensor<2>>,
    sentence: Encoder,
    /// Mean word vector to the vector of the whole sentence: `[dim] -> [dim]`.
    whole_sentence: Option<Linear>,
    /// One class a training photo: `[dim] -> [photos]`.
    classifier: Option<Linear>,
    /// Natural logarithm of the factor on scores; used by the contrastive objectives alone.
    log_logit_scale: Param<Tensor<1>>,
    #[module(skip)]
    unit_vectors: bool,
}

/// What the data decides of a model's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Length of a region's features.
    pub features: usize,
    /// Words, the end token counted.
    pub vocab: usize,
    /// Training photos: classes of [`Objective::Instance`], and read by it alone.
    pub photos: usize,
    /// Relations of dependency trees with weights of their own, the shared ones counted; read by
    /// [`SentenceEncoder::DependencyEdges`] alone.
    pub relations: usize,
}

/// Vectors of the parts of photos or sentences, and of the wholes where the model has such.
struct Encoded {
    /// `[parts of all, dim]`.
    parts: Tensor<2>,
    /// `[photos or sentences, dim]`.
    wholes: Option<Tensor<2>>,
}

impl Encoded {
    /// One vector a part that holds both: `⟨[v g], [s t]⟩ = ⟨v, s⟩ + ⟨g, t⟩`.
    fn joined(self, owners: Vec<i64>) -> Tensor<2> {
        match self.wholes {
            Some(wholes) => {
                let wholes = wholes.clone().select(0, attention::indices(owners, &wholes.device()));
                Tensor::cat(vec![self.parts, wholes], 1)
            }
            None => self.parts,
        }
    }
}

/// Regions of several photos as the model reads them.
#[derive(Debug, Clone)]
pub struct RegionBatch {
    /// `[regions of all photos, features]`, photo by photo, the whole photo first.
    pub features: Tensor<2>,
    /// `[regions of all photos, GEOMETRY]`, where the settings ask for it.
    pub geometry: Option<Tensor<2>>,
    /// Regions of each photo.
    pub counts: RegionCounts,
}

/// What training disturbs a batch with.
#[derive(Debug)]
pub struct Noise<'a> {
    /// Of region features, word vectors and states.
    pub dropout: &'a mut Dropout,
    /// Of whole words.
    pub blank: Option<&'a mut Dropout>,
}

/// What the loss of a batch needs to know of its photos and sentences besides their vectors.
#[derive(Debug, Clone)]
pub struct BatchTruth {
    /// Which sentence belongs to which photo.
    pub pairing: Pairing,
    /// Each photo's class: its index among the training photos. Read by [`Objective::Instance`] alone.
    pub classes: Vec<i64>,
    /// Sentences of the batch with classes of photos that they describe as well, `[sentence, class]`. Read by
    /// [`Objective::Instance`] alone.
    pub other_classes: Vec<[usize; 2]>,
    /// What teachers say of it, for objectives that take teaching.
    pub teaching: Option<Teaching>,
}

impl AlignmentModel {
    /// A model with random weights.
    pub fn new(settings: &AlignmentSettings, sizes: Sizes, rng: &mut ChaCha8Rng, device: &Device) -> Self {
        let Sizes { features, vocab, photos, relations } = sizes;
        let AlignmentSettings { dim, word_dim, initial_scale: scale, .. } = *settings;
        let learned = settings.word_vectors == WordVectors::Learned;
        let word_vectors = random::uniform(rng, [vocab, word_dim], (3.0 / word_dim as f32).sqrt(), device);
        let classes = settings.objective == Objective::Instance;
        Self {
            image: ImageSide::new(settings, features, rng, device),
            word_vectors: word_vectors.set_require_grad(learned),
            sentence: Encoder::new(settings, relations, rng, device),
            whole_sentence: settings.whole.then(|| random::linear(rng, dim, dim, scale, device)),
            classifier: classes.then(|| random::linear(rng, dim, photos, scale, device)),
            log_logit_scale: random::constant([1], settings.logit_scale.ln(), device),
            unit_vectors: settings.unit_vectors,
        }
    }

    /// Sets mean and deviation of each feature over the training photos; [`AlignmentSettings::standardize`] asks for it.
    pub fn set_standard(&mut self, mean: &[f32], deviation: &[f32]) {
        self.image.set_standard(mean, deviation);
    }

    /// Puts given vectors in place of those of some words.
    pub fn set_word_vectors<'a>(&mut self, rows: impl Iterator<Item = (u32, &'a [f32])>) {
        let old = self.word_vectors.val();
        let ([vocab, word_dim], device) = (old.dims(), old.device());
        let mut values = old.into_data().try_into_vec::<f32>().expect("weights are f32");
        for (word, vector) in rows {
            values[word as usize * word_dim..][..word_dim].copy_from_slice(vector);
        }
        self.word_vectors = self.word_vectors.clone().map(|old| {
            let new = Tensor::from_data(TensorData::new(values, [vocab, word_dim]), &device);
            new.set_require_grad(old.is_require_grad())
        });
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.word_vectors.val().device()
    }

    /// What the encoder makes of region features: `[regions, features] -> [regions, encoded]`, as they are without one.
    pub fn encode(&self, features: Tensor<2>) -> Tensor<2> {
        self.image.encode(features)
    }

    /// Region vectors `v = W_m x + b_m` (equation 1): `[regions of all photos, dim]`; twice `dim` where photos have a
    /// vector of their own, which stands behind each of their regions'.
    pub fn regions(&self, batch: RegionBatch) -> Tensor<2> {
        let owners = batch.counts.owners();
        self.encode_regions(batch, None).joined(owners)
    }

    /// Word vectors in context `s_t` (equations 2 to 6), sentence by sentence: `[words of all sentences, dim]`; twice
    /// `dim` where sentences have a vector of their own, which stands behind each of their words'.
    pub fn words(&self, sentences: &SentenceBatch) -> Tensor<2> {
        let owners = sentences.owners();
        self.encode_words(sentences, None, None).joined(owners)
    }

    fn encode_regions(&self, batch: RegionBatch, dropout: Option<&mut Dropout>) -> Encoded {
        let RegionBatch { features, geometry, counts } = batch;
        let (parts, wholes) = self.image.forward(features, geometry, &counts, dropout);
        Encoded { parts: self.scaled(parts), wholes: wholes.map(unit) }
    }

    fn encode_words(
        &self,
        sentences: &SentenceBatch,
        mut dropout: Option<&mut Dropout>,
        mut blank: Option<&mut Dropout>,
    ) -> Encoded {
        let mut vectors = |words: Tensor<1, Int>| {
            let mut x = self.word_vectors.val().select(0, words); // [words, word_dim]
            if let Some(blank) = blank.as_deref_mut() {
                let [words, _] = x.dims();
                // Whole words go, and the others are not scaled up for it.
                let kept = blank.apply(Tensor::ones([words, 1], &self.device().without_autodiff())).greater_elem(0.0);
                x = x * kept.float();
            }
            drop_out(dropout.as_deref_mut(), x)
        };
        let mut x = vectors(sentences.indices(&self.device()));
        if self.sentence.reads_edges() {
            x = Tensor::cat(vec![vectors(sentences.heads(&self.device())), x], 1);
        }
        let s = self.sentence.forward(x, sentences, dropout);
        let wholes =
            self.whole_sentence.as_ref().map(|whole| unit(whole.forward(score::means(s.clone(), sentences.lengths()))));
        Encoded { parts: self.scaled(s), wholes }
    }

    fn scaled(&self, x: Tensor<2>) -> Tensor<2> {
        if self.unit_vectors { unit(x) } else { x }
    }

    /// The loss of one batch of photos and sentences; without noise where there is none.
    pub fn loss(
        &self,
        settings: &AlignmentSettings,
        objective: Objective,
        batch: RegionBatch,
        sentences: &SentenceBatch,
        truth: &BatchTruth,
        noise: Option<Noise<'_>>,
    ) -> Tensor<1> {
        let (mut dropout, blank) = noise.map_or((None, None), |noise| (Some(noise.dropout), noise.blank));
        let counts = batch.counts.clone();
        let regions = self.encode_regions(batch, dropout.as_deref_mut());
        let words = self.encode_words(sentences, dropout, blank);
        let lengths = sentences.lengths();
        let instance = self.classifier.as_ref().map(|classifier| {
            let of_images = classifier.forward(counts.means(regions.parts.clone()));
            let of_sentences = classifier.forward(score::means(words.parts.clone(), lengths));
            let of_sentences = objective::without(of_sentences, &truth.other_classes);
            let classes: Vec<i64> =
                truth.pairing.image_of_sentence().iter().map(|&image| truth.classes[image]).collect();
            (cross_entropy(of_images, &truth.classes) + cross_entropy(of_sentences, &classes)) / 2.0
        });
        let local = (objective == Objective::Fragments).then(|| {
            let products = regions.parts.clone().matmul(words.parts.clone().transpose());
            objective::fragment_alignment(products, counts.counts(), &truth.pairing, &sentences.owners())
        });
        let mut scores = settings.scoring().scores(regions.parts, &counts, words.parts, lengths); // [images, sentences]
        if let (Some(images), Some(whole_sentences)) = (regions.wholes, words.wholes) {
            // Each word's product has the whole's in it.
            let factors =
                settings.scoring().factors(lengths).into_iter().zip(lengths).map(|(factor, &n)| factor * n as f32);
            let factors: Vec<f32> = factors.collect();
            let factors = Tensor::<1>::from_floats(factors.as_slice(), &self.device().without_autodiff());
            scores = scores + images.matmul(whole_sentences.transpose()) * factors.unsqueeze::<2>();
        }
        let BatchTruth { pairing, teaching, .. } = truth;
        let loss = objective.loss(scores, pairing, teaching.as_ref(), settings.margin, self.log_logit_scale.val());
        [instance, local].into_iter().flatten().fold(loss, |loss, part| loss + part)
    }
}

/// Mean negative log probability of the right classes; `logits` is `[n, classes]`.
fn cross_entropy(logits: Tensor<2>, classes: &[i64]) -> Tensor<1> {
    let n = classes.len();
    let classes = Tensor::<2, Int>::from_data(TensorData::new(classes.to_vec(), [n, 1]), &logits.device());
    log_softmax(logits, 1).gather(1, classes).sum().neg() / n as f32
}

/// Rows scaled to length 1; a zero row stays zero.
fn unit(x: Tensor<2>) -> Tensor<2> {
    let norm = (x.clone().square().sum_dim(1) + 1e-12).sqrt();
    x / norm
}

/// Rows of features as a tensor: `[rows, features]`.
pub fn features_tensor(values: Vec<f32>, features: usize, device: &Device) -> Tensor<2> {
    let rows = values.len() / features;
    Tensor::from_data(TensorData::new(values, [rows, features]), device)
}

#[cfg(test)]
mod tests;
