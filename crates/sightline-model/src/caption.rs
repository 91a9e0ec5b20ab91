//! The caption model: a recurrent network that starts from a picture's vector and says words until it says END
//! (paper, section 3.2, equations 13 to 15). One architecture, trained twice: on whole photos with their sentences,
//! and on regions with the phrases that the alignment model found for them.

pub mod beam;

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::SentenceBatch;
use crate::random::{self, Dropout, drop_out};

pub use beam::{BeamSettings, Generator, Hypothesis, beam_search};

/// Index of the token that starts a sentence on input and ends it on output.
pub const END: u32 = 0;

/// Settings of the caption model; saved beside its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptionSettings {
    /// Length of the recurrent state (paper: 512).
    pub hidden: usize,
    /// Length of the word vectors.
    pub word_dim: usize,
    /// Dropout probability of the picture's vector, the word vectors and the states that words are read from.
    pub dropout: f32,
    /// Standard deviation of initial weights, in units of `1 / sqrt(inputs)`.
    pub initial_scale: f32,
}

impl Default for CaptionSettings {
    fn default() -> Self {
        Self { hidden: 512, word_dim: 512, dropout: 0.5, initial_scale: 1.0 }
    }
}

/// The multimodal recurrent network of equations 13 to 15.
#[derive(Module, Debug)]
pub struct CaptionModel {
    /// `W_hi`: `[features] -> [hidden]`, no bias (equation 13).
    image: Linear,
    /// Word vectors `x_t`, START's in row 0: `[vocab, word_dim]`.
    word_vectors: Param<Tensor<2>>,
    /// `W_hx`, `b_h`: `[word_dim] -> [hidden]`.
    input: Linear,
    /// `W_hh`: `[hidden, hidden]`.
    recurrence: Param<Tensor<2>>,
    /// `W_oh`, `b_o`: `[hidden] -> [vocab]`.
    output: Linear,
}

impl CaptionModel {
    /// A model with random weights. `log_frequencies` has one number a token and becomes the output bias, so that
    /// training starts from the words' own frequencies.
    pub fn new(
        settings: &CaptionSettings,
        features: usize,
        log_frequencies: &[f32],
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        let CaptionSettings { hidden, word_dim, initial_scale: scale, .. } = *settings;
        let vocab = log_frequencies.len();
        let image = random::linear(rng, features, hidden, scale, device);
        let bound = |inputs: usize| scale * (3.0 / inputs as f32).sqrt();
        let output = random::linear(rng, hidden, vocab, scale, device);
        Self {
            image: Linear { bias: None, ..image },
            word_vectors: random::uniform(rng, [vocab, word_dim], 3f32.sqrt() * 0.5, device),
            input: random::linear(rng, word_dim, hidden, scale, device),
            recurrence: random::uniform(rng, [hidden, hidden], bound(hidden), device),
            output: Linear { bias: Some(random::parameter(log_frequencies.to_vec(), [vocab], device)), ..output },
        }
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.word_vectors.val().device()
    }

    /// Number of tokens, END included.
    pub fn vocab(&self) -> usize {
        self.word_vectors.val().dims()[0]
    }

    /// Log probabilities of the right next tokens, all sentences packed: `[words and ENDs of all sentences]`.
    ///
    /// `images` is `[sentences, features]`; sentence `k` is said of picture `k`.
    pub fn log_likelihoods(
        &self,
        images: Tensor<2>,
        sentences: &SentenceBatch,
        mut dropout: Option<&mut Dropout>,
    ) -> Tensor<1> {
        let device = self.device();
        let n_sentences = sentences.len();
        let (inputs, targets) = sentences.shifted();
        let b_v = self.image.forward(drop_out(dropout.as_deref_mut(), images)); // [sentences, hidden], equation 13
        let x = self.word_vectors.val().select(0, inputs.indices(&device)); // [steps * sentences, word_dim]
        let x = self.input.forward(drop_out(dropout.as_deref_mut(), x));

        let mut states: Vec<Tensor<2>> = Vec::with_capacity(inputs.steps());
        for x_t in x.split(n_sentences, 0) {
            let h = match states.last() {
                None => x_t + b_v.clone(), // the picture enters at the first step only
                Some(previous) => x_t + previous.clone().matmul(self.recurrence.val()),
            };
            states.push(relu(h)); // equation 14
        }
        let h = Tensor::cat(states, 0).select(0, inputs.packed_rows(&device)); // [tokens of all sentences, hidden]
        let y = log_softmax(self.output.forward(drop_out(dropout, h)), 1); // equation 15
        let [n_tokens, _] = y.dims();
        let targets: Tensor<2, Int> = Tensor::from_data(TensorData::new(targets, [n_tokens, 1]), &device);
        y.gather(1, targets).reshape([n_tokens])
    }

    /// The loss of a batch: negative log likelihood of the targets, summed over words, averaged over sentences.
    pub fn loss(&self, images: Tensor<2>, sentences: &SentenceBatch, dropout: Option<&mut Dropout>) -> Tensor<1> {
        self.log_likelihoods(images, sentences, dropout).sum().neg() / sentences.len() as f32
    }

    /// The state before the first word, one row a picture: `[images, features]`.
    pub fn start(&self, images: Tensor<2>) -> State {
        State { image: Some(self.image.forward(images)), hidden: None }
    }
}

/// What the network carries from word to word, one row a sentence.
#[derive(Debug, Clone)]
pub struct State {
    /// `b_v`, `[rows, hidden]`, until the first step has used it.
    image: Option<Tensor<2>>,
    /// `h`, `[rows, hidden]`, from the first step on.
    hidden: Option<Tensor<2>>,
}

impl Generator for CaptionModel {
    type State = State;

    fn step(&self, state: &State, tokens: &[u32]) -> (State, Vec<f32>) {
        let device = self.device();
        let tokens: Vec<i64> = tokens.iter().map(|&t| i64::from(t)).collect();
        let rows = tokens.len();
        let x = self.word_vectors.val().select(0, Tensor::from_data(TensorData::new(tokens, [rows]), &device));
        let mut h = self.input.forward(x);
        if let Some(previous) = &state.hidden {
            h = h + previous.clone().matmul(self.recurrence.val());
        }
        if let Some(image) = &state.image {
            h = h + image.clone();
        }
        let h = relu(h);
        let y = log_softmax(self.output.forward(h.clone()), 1);
        let log_probabilities = y.into_data().try_into_vec::<f32>().expect("log probabilities are f32");
        (State { image: None, hidden: Some(h) }, log_probabilities)
    }

    fn select(&self, state: &State, rows: &[usize]) -> State {
        let indices: Vec<i64> = rows.iter().map(|&r| r as i64).collect();
        let indices: Tensor<1, Int> = Tensor::from_data(TensorData::new(indices, [rows.len()]), &self.device());
        let pick = |x: &Option<Tensor<2>>| x.as_ref().map(|x| x.clone().select(0, indices.clone()));
        State { image: pick(&state.image), hidden: pick(&state.hidden) }
    }
}

#[cfg(test)]
mod tests;
