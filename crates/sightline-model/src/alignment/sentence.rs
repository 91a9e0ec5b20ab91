//! Sentence encoders: from words to vectors in context, one a word.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::{relu, sigmoid};
use burn::tensor::{Device, Tensor};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::AlignmentSettings;
use super::attention::{AttentionLayer, indices};
use crate::SentenceBatch;
use crate::kernel::{self, Cell, Direction};
use crate::random::{self, Dropout, drop_out};

/// How a word's vector comes to know its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SentenceEncoder {
    /// Bidirectional recurrent network with ReLU (equations 2 to 6).
    Brnn,
    /// Bidirectional gated recurrent units.
    Gru,
    /// Each word for itself.
    BagOfWords,
    /// Each word with the one before and the one behind it, as Dual-Path's word-level convolutions.
    Convolution,
    /// One layer of self-attention over the sentence, with learned positions.
    SelfAttention,
    /// Each word with the one above it in the sentence's dependency tree, by weights of their relation (the fragment
    /// embeddings of Karpathy et al. 2014; the paper's "DepTree edges"). Reads sentences with their edges.
    DependencyEdges,
}

/// Weights of a sentence encoder: word vectors `[words of all sentences, word_dim] -> [words of all sentences, dim]`.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a model has one; they are never kept in numbers")]
pub enum Encoder {
    /// Equations 3 to 6.
    Brnn(Brnn),
    /// Two gated recurrences, added.
    Gru(Gru),
    /// An affine map.
    BagOfWords(Linear),
    /// Three affine maps, one a neighbour.
    Convolution(Convolution),
    /// An affine map, positions, attention.
    SelfAttention(SelfAttention),
    /// An affine map a relation.
    DependencyEdges(DependencyEdges),
}

impl Encoder {
    /// `relations` counts those of dependency trees with weights of their own.
    pub(super) fn new(settings: &AlignmentSettings, relations: usize, rng: &mut ChaCha8Rng, device: &Device) -> Self {
        let AlignmentSettings { dim, hidden, word_dim, initial_scale: scale, .. } = *settings;
        let mut linear = |inputs, outputs| random::linear(rng, inputs, outputs, scale, device);
        match settings.sentence_encoder {
            SentenceEncoder::Brnn => Self::Brnn(Brnn {
                input: linear(word_dim, hidden),
                left_to_right: linear(hidden, hidden),
                right_to_left: linear(hidden, hidden),
                output: linear(hidden, dim),
            }),
            SentenceEncoder::Gru => Self::Gru(Gru {
                input_left_to_right: linear(word_dim, 3 * hidden),
                left_to_right: linear(hidden, 3 * hidden),
                input_right_to_left: linear(word_dim, 3 * hidden),
                right_to_left: linear(hidden, 3 * hidden),
                output: linear(hidden, dim),
            }),
            SentenceEncoder::BagOfWords => Self::BagOfWords(linear(word_dim, dim)),
            SentenceEncoder::Convolution => Self::Convolution(Convolution {
                own: linear(word_dim, dim),
                before: Linear { bias: None, ..linear(word_dim, dim) },
                behind: Linear { bias: None, ..linear(word_dim, dim) },
                output: linear(dim, dim),
            }),
            SentenceEncoder::SelfAttention => Self::SelfAttention(SelfAttention {
                input: linear(word_dim, dim),
                positions: random::uniform(rng, [MAX_POSITIONS, dim], 0.02, device),
                layer: AttentionLayer::new(rng, dim, device),
            }),
            SentenceEncoder::DependencyEdges => Self::DependencyEdges(DependencyEdges {
                relations: (0..relations).map(|_| linear(2 * word_dim, dim)).collect(),
            }),
        }
    }

    /// Whether it reads edges, and both words of each: `[words of all sentences, 2 * word_dim]`, the one above first.
    pub(super) fn reads_edges(&self) -> bool {
        matches!(self, Self::DependencyEdges(_))
    }

    /// Vectors of words in context, sentence by sentence.
    pub(super) fn forward(
        &self,
        x: Tensor<2>,
        sentences: &SentenceBatch,
        mut dropout: Option<&mut Dropout>,
    ) -> Tensor<2> {
        let lengths = sentences.lengths();
        let device = x.device();
        match self {
            Self::Brnn(Brnn { input, left_to_right, right_to_left, output }) => {
                let e = relu(input.forward(x)); // equation 3
                let f = recur(Cell::Relu, Direction::LeftToRight, e.clone(), left_to_right, lengths); // equation 4
                let b = recur(Cell::Relu, Direction::RightToLeft, e, right_to_left, lengths); // equation 5
                relu(output.forward(drop_out(dropout, f + b))) // equation 6
            }
            Self::Gru(gru) => {
                let f = gru.input_left_to_right.forward(x.clone());
                let f = recur(Cell::Gru, Direction::LeftToRight, f, &gru.left_to_right, lengths);
                let b = gru.input_right_to_left.forward(x);
                let b = recur(Cell::Gru, Direction::RightToLeft, b, &gru.right_to_left, lengths);
                gru.output.forward(drop_out(dropout, f + b))
            }
            Self::BagOfWords(linear) => linear.forward(x),
            Self::Convolution(Convolution { own, before, behind, output }) => {
                let [n, word_dim] = x.dims();
                // A row of zeros stands before the first word and behind the last.
                let padded = Tensor::cat(vec![x.clone(), Tensor::zeros([1, word_dim], &device)], 0);
                let (mut rows_before, mut rows_behind) = (Vec::with_capacity(n), Vec::with_capacity(n));
                let mut first = 0;
                for &length in lengths {
                    for t in first..first + length {
                        rows_before.push(if t > first { t - 1 } else { n } as i64);
                        rows_behind.push(if t + 1 < first + length { t + 1 } else { n } as i64);
                    }
                    first += length;
                }
                let left = before.forward(padded.clone().select(0, indices(rows_before, &device)));
                let right = behind.forward(padded.select(0, indices(rows_behind, &device)));
                output.forward(drop_out(dropout, relu(own.forward(x) + left + right)))
            }
            Self::SelfAttention(SelfAttention { input, positions, layer }) => {
                // Later words than the last position share it.
                let places = lengths.iter().flat_map(|&n| (0..n).map(|t| t.min(MAX_POSITIONS - 1) as i64)).collect();
                let x = input.forward(x) + positions.val().select(0, indices(places, &device));
                layer.forward(drop_out(dropout.as_deref_mut(), x), lengths, dropout)
            }
            Self::DependencyEdges(DependencyEdges { relations }) => {
                let relation = |word: &usize| sentences.edges()[*word].relation;
                let mut order: Vec<usize> = (0..sentences.n_words()).collect();
                order.sort_by_key(relation);
                // Edges of one relation go through its weights together, and then back to their places.
                let of_relation = |words: &[usize]| {
                    let rows = indices(words.iter().map(|&word| word as i64).collect(), &device);
                    relations[relation(&words[0]) as usize].forward(x.clone().select(0, rows))
                };
                let parts = order.chunk_by(|a, b| relation(a) == relation(b)).map(of_relation).collect();
                let mut places = vec![0; order.len()];
                order.iter().enumerate().for_each(|(place, &word)| places[word] = place as i64);
                relu(Tensor::cat(parts, 0).select(0, indices(places, &device)))
            }
        }
    }
}

/// Positions with a vector of their own.
const MAX_POSITIONS: usize = 40;

/// Weights of the bidirectional recurrent network.
#[derive(Module, Debug)]
pub struct Brnn {
    /// `W_e`, `b_e`: `[word_dim] -> [hidden]`.
    input: Linear,
    /// `W_f`, `b_f`: `[hidden] -> [hidden]`.
    left_to_right: Linear,
    /// `W_b`, `b_b`: `[hidden] -> [hidden]`.
    right_to_left: Linear,
    /// `W_d`, `b_d`: `[hidden] -> [dim]`.
    output: Linear,
}

/// Weights of the gated recurrences; gates lie r, z, n.
#[derive(Module, Debug)]
pub struct Gru {
    input_left_to_right: Linear,
    left_to_right: Linear,
    input_right_to_left: Linear,
    right_to_left: Linear,
    output: Linear,
}

/// Weights of the word-level convolution of width three.
#[derive(Module, Debug)]
pub struct Convolution {
    own: Linear,
    before: Linear,
    behind: Linear,
    output: Linear,
}

/// Weights of the self-attention encoder.
#[derive(Module, Debug)]
pub struct SelfAttention {
    input: Linear,
    positions: Param<Tensor<2>>,
    layer: AttentionLayer,
}

/// Weights of dependency edges.
#[derive(Module, Debug)]
pub struct DependencyEdges {
    /// `W_R`, `b_R`: `[2 * word_dim] -> [dim]`, one a relation; the first is shared by the rare ones.
    relations: Vec<Linear>,
}

/// States of all words, `[words of all sentences, hidden]`, from the input's share of the gates.
fn recur(cell: Cell, direction: Direction, x: Tensor<2>, recurrence: &Linear, lengths: &[usize]) -> Tensor<2> {
    let weights = recurrence.weight.val();
    let bias = recurrence.bias.as_ref().expect("the recurrence has a bias").val();
    if kernel::available(&x.device()) {
        kernel::recur(cell, direction, x, weights, bias, lengths)
    } else {
        recur_by_steps(cell, direction, &x, &weights, bias, lengths)
    }
}

/// As [`kernel::recur`], in tensor operations: all sentences take every step, and the state of one that has no word at a
/// step is held at zero, so that the right-to-left pass starts at its own last word.
fn recur_by_steps(
    cell: Cell,
    direction: Direction,
    x: &Tensor<2>,
    weights: &Tensor<2>,
    bias: Tensor<1>,
    lengths: &[usize],
) -> Tensor<2> {
    let device = x.device();
    let [hidden, _] = weights.dims();
    let sentences = lengths.len();
    let steps = lengths.iter().copied().max().unwrap_or(0);
    let mut starts = Vec::with_capacity(sentences);
    let mut words = 0;
    for &length in lengths {
        starts.push(words);
        words += length;
    }
    let bias = bias.unsqueeze::<2>();
    let mut h = Tensor::<2>::zeros([sentences, hidden], &device);
    let mut states = Vec::with_capacity(steps);
    for step in 0..steps {
        let t = if direction == Direction::LeftToRight { step } else { steps - 1 - step };
        // A sentence without a word here reads any row; its state is masked.
        let rows = (0..sentences).map(|s| (starts[s] + t.min(lengths[s].saturating_sub(1))).min(words - 1) as i64);
        let x_t = x.clone().select(0, indices(rows.collect(), &device));
        let u = h.clone().matmul(weights.clone()) + bias.clone();
        let next = match cell {
            Cell::Relu => relu(x_t + u),
            Cell::Gru => {
                let third = |tensor: &Tensor<2>, gate: usize| tensor.clone().narrow(1, gate * hidden, hidden);
                let r = sigmoid(third(&x_t, 0) + third(&u, 0));
                let z = sigmoid(third(&x_t, 1) + third(&u, 1));
                let n = (third(&x_t, 2) + r * third(&u, 2)).tanh();
                n.clone() + z * (h - n)
            }
        };
        let mask: Vec<f32> = lengths.iter().map(|&length| f32::from(t < length)).collect();
        let mask =
            Tensor::<1>::from_floats(mask.as_slice(), &device.clone().without_autodiff()).reshape([sentences, 1]);
        h = next * mask;
        states.push(h.clone());
    }
    if direction == Direction::RightToLeft {
        states.reverse();
    }
    let rows = (0..sentences).flat_map(|s| (0..lengths[s]).map(move |t| (t * sentences + s) as i64));
    Tensor::cat(states, 0).select(0, indices(rows.collect(), &device))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::values;

    /// The kernels against the tensor framework: states, and gradients of all three inputs.
    #[test]
    fn recurrences_agree_with_tensor_operations() {
        let device = Device::flex().autodiff();
        let (hidden, lengths) = (5, [3, 1, 0, 7, 7, 2]);
        let words: usize = lengths.iter().sum();
        for cell in [Cell::Relu, Cell::Gru] {
            for direction in [Direction::LeftToRight, Direction::RightToLeft] {
                let mut rng = random::stream(3, 0);
                let wide = cell.gates() * hidden;
                let x = random::uniform(&mut rng, [words, wide], 1.5, &device);
                let weights = random::uniform(&mut rng, [hidden, wide], 0.8, &device);
                let bias = random::uniform(&mut rng, [wide], 0.5, &device);
                let factors = random::uniform(&mut rng, [words, hidden], 1.0, &device).val().detach();
                let run = |kernel: bool| {
                    let (x, weights, bias) = (x.val(), weights.val(), bias.val());
                    let states = if kernel {
                        kernel::recur(cell, direction, x.clone(), weights.clone(), bias.clone(), &lengths)
                    } else {
                        recur_by_steps(cell, direction, &x, &weights, bias.clone(), &lengths)
                    };
                    let gradients = (states.clone() * factors.clone()).sum().backward();
                    let of = |g: Option<Tensor<2>>| values(g.expect("every input has a gradient"));
                    vec![
                        values(states),
                        of(x.grad(&gradients)),
                        of(weights.grad(&gradients)),
                        values(bias.grad(&gradients).expect("the bias has a gradient")),
                    ]
                };
                for (what, (ours, theirs)) in run(true).into_iter().zip(run(false)).enumerate() {
                    assert_eq!(ours.len(), theirs.len());
                    for (a, b) in ours.iter().zip(&theirs) {
                        assert!((a - b).abs() < 1e-5 * (1.0 + b.abs()), "{cell:?} {direction:?} {what}: {a} {b}");
                    }
                }
            }
        }
    }
}
