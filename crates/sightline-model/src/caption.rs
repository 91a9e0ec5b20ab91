//! The caption models: networks that start from a picture's vectors and say words until they say END (paper, section
//! 3.2, equations 13 to 15, and what came after). One architecture, trained twice: on whole photos with their
//! sentences, and on regions with the phrases that the alignment model found for them.
//!
//! A model is a [`Generator`] over named [`Weights`]; both run on the [`tape`](crate::tape), in training and in decoding.

pub mod beam;
pub mod generator;
mod recurrent;
mod rounded;
mod sample;
pub mod search;
mod transformer;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::bf16::Precision;
use crate::random::{self, Dropout};
use crate::weights::{Weight, Weights};

pub use crate::matrix::Matrix;
pub use crate::tape::Loss;
pub use beam::{BeamSettings, beam_search};
pub use generator::{Generator, Pictures, State, Step};
pub use rounded::Rounded;
pub use sample::{SampleSettings, sample};
pub use search::{Decoder, Hypothesis, Shortcut, in_chunks};

use crate::tape::{Squash, Tape};
use recurrent::{Lstm, Rnn};
use transformer::Transformer;

/// Index of the token that starts a sentence on input and ends it on output.
pub const END: u32 = 0;

/// Which network says the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GeneratorKind {
    /// The paper's network; the picture enters at the first step only.
    Rnn,
    /// The same, the picture at every step.
    RnnEveryStep,
    /// NeuralTalk's LSTM: the picture is read as step −1, the cell is shown as it is.
    NeuraltalkLstm,
    /// NeuralTalk2's LSTM: the rectified picture is its first input, the cell is shown through a hyperbolic tangent.
    Neuraltalk2Lstm,
    /// A small transformer that attends to the regions at every word.
    Attention,
}

/// Settings of the caption model; saved beside its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptionSettings {
    /// Which network.
    pub generator: GeneratorKind,
    /// Length of the recurrent state, and of every row of the attention generator (paper: 512).
    pub hidden: usize,
    /// Length of the recurrent generators' word vectors.
    pub word_dim: usize,
    /// Attention: heads; they divide `hidden`.
    pub heads: usize,
    /// Attention: layers over the regions.
    pub encoder_layers: usize,
    /// Attention: layers over the words.
    pub decoder_layers: usize,
    /// Attention: length of the rows inside each layer's feed-forward part.
    pub feed_forward: usize,
    /// Dropout probability of the picture's vectors, the word vectors, the rows that words are read from, and in the
    /// attention generator of every part of a layer.
    pub dropout: f32,
    /// Standard deviation of initial weights, in units of `1 / sqrt(inputs)`.
    pub initial_scale: f32,
}

impl Default for CaptionSettings {
    fn default() -> Self {
        Self {
            generator: GeneratorKind::Rnn,
            hidden: 512,
            word_dim: 512,
            heads: 8,
            encoder_layers: 1,
            decoder_layers: 2,
            feed_forward: 1024,
            dropout: 0.5,
            initial_scale: 1.0,
        }
    }
}

impl CaptionSettings {
    /// The network.
    pub fn generator(&self) -> Box<dyn Generator> {
        let lstm = |squash, rectifies| Lstm { hidden: self.hidden, squash, rectifies };
        match self.generator {
            GeneratorKind::Rnn => Box::new(Rnn { every_step: false }),
            GeneratorKind::RnnEveryStep => Box::new(Rnn { every_step: true }),
            GeneratorKind::NeuraltalkLstm => Box::new(lstm(Squash::None, false)),
            GeneratorKind::Neuraltalk2Lstm => Box::new(lstm(Squash::Tanh, true)),
            GeneratorKind::Attention => Box::new(Transformer {
                dim: self.hidden,
                heads: self.heads,
                encoder_layers: self.encoder_layers,
                decoder_layers: self.decoder_layers,
            }),
        }
    }

    /// Random weights. `log_frequencies` has one number a token and becomes the output bias, so that training starts from
    /// the words' own frequencies.
    pub fn initial_weights(&self, features: usize, log_frequencies: &[f32], rng: &mut ChaCha8Rng) -> Weights {
        let mut weights = Weights::new();
        for Planned { name, shape, fill } in self.plan(features, log_frequencies.len()) {
            let n = shape.iter().product();
            let values = match fill {
                Fill::Uniform { inputs } => {
                    random::uniform_values(rng, n, self.initial_scale * (3.0 / inputs as f32).sqrt())
                }
                Fill::Constant(value) => vec![value; n],
                Fill::LogFrequencies => log_frequencies.to_vec(),
            };
            weights.insert(name, Weight { shape, values });
        }
        weights
    }

    /// Names and shapes of the weights, for vectors of `features` numbers and `vocab` tokens.
    pub fn shapes(&self, features: usize, vocab: usize) -> impl Iterator<Item = (String, Vec<usize>)> {
        self.plan(features, vocab).into_iter().map(|planned| (planned.name, planned.shape))
    }

    /// All weights, in the order in which random numbers are drawn for them.
    fn plan(&self, features: usize, vocab: usize) -> Vec<Planned> {
        let mut new = Plan::default();
        let hidden = self.hidden;
        match self.generator {
            GeneratorKind::Attention => {
                new.norm("image_norm", features);
                new.linear("image", features, hidden);
                for layer in 0..self.encoder_layers {
                    let layer = format!("encoder.{layer}");
                    new.attention(&layer, hidden);
                    new.feed_forward(&layer, hidden, self.feed_forward);
                }
                new.norm("encoder_norm", hidden);
                for layer in 0..self.decoder_layers {
                    let layer = format!("decoder.{layer}");
                    new.attention(&layer, hidden);
                    new.norm(&format!("{layer}.cross_norm"), hidden);
                    new.linear(&format!("{layer}.cross_query"), hidden, hidden);
                    new.linear(&format!("{layer}.cross_key_value"), hidden, 2 * hidden);
                    new.linear(&format!("{layer}.cross_out"), hidden, hidden);
                    new.feed_forward(&layer, hidden, self.feed_forward);
                }
                new.norm("decoder_norm", hidden);
                new.uniform("word_vectors", [vocab, hidden], hidden);
            }
            GeneratorKind::Rnn | GeneratorKind::RnnEveryStep => {
                new.uniform("image.weight", [features, hidden], features);
                new.uniform("word_vectors", [vocab, self.word_dim], 4);
                new.linear("input", self.word_dim, hidden);
                new.uniform("recurrence.weight", [hidden, hidden], hidden);
                new.uniform("output.weight", [vocab, hidden], hidden);
            }
            GeneratorKind::NeuraltalkLstm | GeneratorKind::Neuraltalk2Lstm => {
                new.linear("image", features, self.word_dim);
                new.uniform("word_vectors", [vocab, self.word_dim], 4);
                new.linear("input", self.word_dim, 4 * hidden);
                new.uniform("recurrence.weight", [hidden, 4 * hidden], hidden);
                new.uniform("output.weight", [vocab, hidden], hidden);
            }
        }
        new.add("output.bias".into(), vec![vocab], Fill::LogFrequencies);
        new.weights
    }
}

/// A weight before it has values.
struct Planned {
    name: String,
    shape: Vec<usize>,
    fill: Fill,
}

/// What a weight's values are at first.
enum Fill {
    /// Uniform with variance `initial_scale² / inputs`.
    Uniform { inputs: usize },
    /// All the same.
    Constant(f32),
    /// The words' own frequencies.
    LogFrequencies,
}

/// The weights of a network, as they are listed.
#[derive(Default)]
struct Plan {
    weights: Vec<Planned>,
}

impl Plan {
    fn add(&mut self, name: String, shape: Vec<usize>, fill: Fill) {
        self.weights.push(Planned { name, shape, fill });
    }

    fn uniform(&mut self, name: &str, shape: [usize; 2], inputs: usize) {
        self.add(name.into(), shape.to_vec(), Fill::Uniform { inputs });
    }

    fn constant(&mut self, name: String, n: usize, value: f32) {
        self.add(name, vec![n], Fill::Constant(value));
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.uniform(&format!("{name}.weight"), [inputs, outputs], inputs);
        self.constant(format!("{name}.bias"), outputs, 0.0);
    }

    fn norm(&mut self, name: &str, columns: usize) {
        self.constant(format!("{name}.weight"), columns, 1.0);
        self.constant(format!("{name}.bias"), columns, 0.0);
    }

    fn attention(&mut self, layer: &str, dim: usize) {
        self.norm(&format!("{layer}.self_norm"), dim);
        self.linear(&format!("{layer}.self_query_key_value"), dim, 3 * dim);
        self.linear(&format!("{layer}.self_out"), dim, dim);
    }

    fn feed_forward(&mut self, layer: &str, dim: usize, inner: usize) {
        self.norm(&format!("{layer}.feed_norm"), dim);
        self.linear(&format!("{layer}.feed_in"), dim, inner);
        self.linear(&format!("{layer}.feed_out"), inner, dim);
    }
}

/// Sentences about pictures, to learn from or to be scored.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// The words of each sentence.
    pub sentences: &'a [&'a [u32]],
    /// The picture of each sentence.
    pub pictures: &'a [usize],
}

impl Said<'_> {
    /// The tokens to be said, END behind each sentence.
    fn targets(&self) -> Vec<u32> {
        self.sentences.iter().flat_map(|s| s.iter().copied().chain([END])).collect()
    }

    /// Sum of the values of each sentence's tokens, END's included: of log probabilities, the sentence's.
    pub fn sums(&self, of_tokens: &[f32]) -> Vec<f32> {
        let mut rest = of_tokens;
        let sum_of = |words: &&[u32]| {
            let (own, others) = rest.split_at(words.len() + 1);
            rest = others;
            own.iter().sum()
        };
        self.sentences.iter().map(sum_of).collect()
    }
}

/// Log probabilities of the right next tokens, sentence after sentence: `[words and ENDs of all sentences]`.
pub fn log_likelihoods(generator: &dyn Generator, weights: &Weights, pictures: &Pictures, said: Said<'_>) -> Vec<f32> {
    let mut tape = Tape::forward_only(weights);
    let state = generator.start(&mut tape, pictures).select(&mut tape, said.pictures);
    let hidden = generator.read(&mut tape, &state, said.sentences);
    tape.log_likelihoods(hidden, generator.output(), &said.targets())
}

/// The loss of a batch, summed over targets, and its gradients. `loss` has a factor a target.
pub fn gradients(
    generator: &dyn Generator,
    weights: &Weights,
    pictures: &Pictures,
    said: Said<'_>,
    loss: &Loss<'_>,
    dropout: &mut Dropout,
    precision: Precision,
) -> (f64, Weights) {
    let mut tape = Tape::training(weights, dropout, precision);
    let state = generator.start(&mut tape, pictures).select(&mut tape, said.pictures);
    let hidden = generator.read(&mut tape, &state, said.sentences);
    let sum = tape.cross_entropy(hidden, generator.output(), &said.targets(), loss);
    (sum, tape.backward())
}

/// Gradients of a loss that is a function of all log probabilities of the right next tokens: `weigh` is given these, as
/// [`log_likelihoods`] gives them but under dropout, and says what each weighs, minus the loss's derivative by it.
pub fn gradients_of(
    generator: &dyn Generator,
    weights: &Weights,
    pictures: &Pictures,
    said: Said<'_>,
    weigh: impl FnOnce(&[f32]) -> Vec<f32>,
    dropout: &mut Dropout,
    precision: Precision,
) -> Weights {
    let mut tape = Tape::training(weights, dropout, precision);
    let state = generator.start(&mut tape, pictures).select(&mut tape, said.pictures);
    let hidden = generator.read(&mut tape, &state, said.sentences);
    let targets = said.targets();
    let weights = weigh(&tape.log_likelihoods(hidden, generator.output(), &targets));
    tape.cross_entropy(hidden, generator.output(), &targets, &Loss { weights: Some(&weights), smoothing: 0.0 });
    tape.backward()
}

#[cfg(test)]
mod tests;
