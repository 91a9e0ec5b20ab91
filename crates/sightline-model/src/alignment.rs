//! The alignment model: photos and sentences as sets of vectors in one space (paper, section 3.1, equations 1 to 9).

mod objective;
mod score;

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::SentenceBatch;
use crate::conv::{ConvEncoder, ConvSettings};
use crate::random::{self, Dropout, drop_out};

pub use objective::Objective;
pub use score::{RegionCounts, Score};

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
    /// What comes before the projection.
    pub encoder: RegionEncoder,
    /// Sizes of the convolutional encoder, where there is one.
    pub conv: ConvSettings,
    /// Where word vectors come from.
    pub word_vectors: WordVectors,
    /// Dropout probability of region features, word vectors and summed states; never inside the recurrence.
    pub dropout: f32,
    /// Standard deviation of initial weights, in units of `1 / sqrt(inputs)`.
    pub initial_scale: f32,
    /// Whether region and word vectors are scaled to length 1 (the paper: no).
    pub unit_vectors: bool,
    /// How word and region products become one number for a photo and a sentence.
    pub score: Score,
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
            encoder: RegionEncoder::None,
            conv: ConvSettings::default(),
            word_vectors: WordVectors::Learned,
            dropout: 0.2,
            initial_scale: 1.0,
            unit_vectors: false,
            score: Score::MaxOverRegions,
            objective: Objective::SumHinge,
            margin: 1.0,
            logit_scale: 10.0,
        }
    }
}

/// Region projection (equation 1) and sentence encoder (equations 2 to 6).
#[derive(Module, Debug)]
pub struct AlignmentModel {
    /// Pixels to vectors, where region features are pixels.
    encoder: Option<ConvEncoder>,
    /// `W_m`, `b_m`: `[features] -> [dim]`.
    regions: Linear,
    /// `W_w`: `[vocab, word_dim]`.
    word_vectors: Param<Tensor<2>>,
    /// `W_e`, `b_e`: `[word_dim] -> [hidden]`.
    input: Linear,
    /// `W_f`, `b_f`: `[hidden] -> [hidden]`.
    left_to_right: Linear,
    /// `W_b`, `b_b`: `[hidden] -> [hidden]`.
    right_to_left: Linear,
    /// `W_d`, `b_d`: `[hidden] -> [dim]`.
    output: Linear,
    /// Natural logarithm of the factor on scores; used by the contrastive objective alone.
    log_logit_scale: Param<Tensor<1>>,
    #[module(skip)]
    unit_vectors: bool,
}

impl AlignmentModel {
    /// A model with random weights for vectors of length `features` and `vocab` words (the end token counted).
    pub fn new(
        settings: &AlignmentSettings,
        features: usize,
        vocab: usize,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        let AlignmentSettings { dim, hidden, word_dim, initial_scale: scale, .. } = *settings;
        let learned = settings.word_vectors == WordVectors::Learned;
        let word_vectors = random::uniform(rng, [vocab, word_dim], (3.0 / word_dim as f32).sqrt(), device);
        let (encoder, encoded) = match settings.encoder {
            RegionEncoder::None => (None, features),
            RegionEncoder::Conv => (Some(ConvEncoder::new(&settings.conv, rng, device)), settings.conv.dim),
        };
        Self {
            encoder,
            regions: random::linear(rng, encoded, dim, scale, device),
            word_vectors: word_vectors.set_require_grad(learned),
            input: random::linear(rng, word_dim, hidden, scale, device),
            left_to_right: random::linear(rng, hidden, hidden, scale, device),
            right_to_left: random::linear(rng, hidden, hidden, scale, device),
            output: random::linear(rng, hidden, dim, scale, device),
            log_logit_scale: random::constant([1], settings.logit_scale.ln(), device),
            unit_vectors: settings.unit_vectors,
        }
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.word_vectors.val().device()
    }

    /// What the encoder makes of region features: `[regions, features] -> [regions, encoded]`, as they are without one.
    pub fn encode(&self, features: Tensor<2>) -> Tensor<2> {
        match &self.encoder {
            Some(encoder) => encoder.forward(features),
            None => features,
        }
    }

    /// Region vectors `v = W_m x + b_m` (equation 1): `[regions, features] -> [regions, dim]`.
    pub fn regions(&self, features: Tensor<2>, dropout: Option<&mut Dropout>) -> Tensor<2> {
        let features = self.encode(features);
        let v = self.regions.forward(drop_out(dropout, features));
        if self.unit_vectors { unit(v) } else { v }
    }

    /// Word vectors in context `s_t` (equations 2 to 6), sentence by sentence: `[words of all sentences, dim]`.
    pub fn words(&self, sentences: &SentenceBatch, mut dropout: Option<&mut Dropout>) -> Tensor<2> {
        let device = self.device();
        let n_sentences = sentences.len();
        let [_, word_dim] = self.word_vectors.val().dims();
        let x = self.word_vectors.val().select(0, sentences.indices(&device)); // [steps * sentences, word_dim]
        debug_assert_eq!(x.dims(), [sentences.steps() * n_sentences, word_dim]);
        let x = drop_out(dropout.as_deref_mut(), x);
        let e = relu(self.input.forward(x)).split(n_sentences, 0); // steps of [sentences, hidden]
        let masks = sentences.masks(&device);

        let left_to_right = recur(&self.left_to_right, e.iter().zip(&masks));
        let mut right_to_left = recur(&self.right_to_left, e.iter().zip(&masks).rev());
        right_to_left.reverse();
        let sums = left_to_right.into_iter().zip(right_to_left).map(|(f, b)| f + b).collect();
        let h = Tensor::cat(sums, 0).select(0, sentences.packed_rows(&device)); // [words of all sentences, hidden]
        let s = relu(self.output.forward(drop_out(dropout, h)));
        if self.unit_vectors { unit(s) } else { s }
    }

    /// The loss of one batch of pairs: photo `k` belongs to sentence `k`, all other combinations are negatives.
    ///
    /// `features` is `[regions of all photos, features]`, photo by photo, as `counts` says.
    pub fn loss(
        &self,
        settings: &AlignmentSettings,
        features: Tensor<2>,
        counts: &RegionCounts,
        sentences: &SentenceBatch,
        mut dropout: Option<&mut Dropout>,
    ) -> Tensor<1> {
        let regions = self.regions(features, dropout.as_deref_mut());
        let words = self.words(sentences, dropout);
        let scores = settings.score.scores(regions, counts, words, sentences.lengths()); // [images, sentences]
        settings.objective.loss(scores, settings.margin, self.log_logit_scale.val())
    }
}

/// Equations 4 and 5: `h_t = f(e_t + W h_{t-1} + b)` along the given steps, in their order.
///
/// The state of a sentence is held at zero where it has no word, so the backward pass starts at its own last word.
fn recur<'a>(
    recurrence: &Linear,
    steps: impl Iterator<Item = (&'a Tensor<2>, &'a Option<Tensor<2>>)>,
) -> Vec<Tensor<2>> {
    let mut states: Vec<Tensor<2>> = Vec::new();
    for (e, mask) in steps {
        let carried = match states.last() {
            Some(previous) => recurrence.forward(previous.clone()),
            None => {
                let bias = recurrence.bias.as_ref().expect("the recurrence has a bias").val();
                let [_, hidden] = e.dims();
                bias.reshape([1, hidden]).expand(e.dims())
            }
        };
        let h = relu(e.clone() + carried);
        states.push(match mask {
            Some(mask) => h * mask.clone(),
            None => h,
        });
    }
    states
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
