//! A recurrence over sentences of different lengths, forward and backward, with no padding computed: sentences lie packed,
//! one after the other; at each step the product is over the sentences that still have a word.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use burn::tensor::Tensor;
use rayon::prelude::*;
use sightline_search::matrix::{self, Layout};

use super::{Kernel, cells, triple};

/// What a step does with its input and the state before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    /// `h_t = max(0, x_t + h_{t-1} W + b)` (equations 4 and 5). One gate.
    Relu,
    /// Gated recurrent unit (Cho et al. 2014, with the reset gate behind the product): gates r, z and the candidate n.
    Gru,
}

impl Cell {
    /// Numbers a word in `x`, and columns of the recurrent weights, in units of `hidden`.
    pub(crate) fn gates(self) -> usize {
        match self {
            Self::Relu => 1,
            Self::Gru => 3,
        }
    }
}

/// Which word comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The sentence's first.
    LeftToRight,
    /// The sentence's last.
    RightToLeft,
}

/// States of every word, `[words of all sentences, hidden]`.
///
/// `x` is `[words of all sentences, gates · hidden]`, the input's share of each gate; `weights` is
/// `[hidden, gates · hidden]`, `bias` `[gates · hidden]`; `lengths` has the words of each sentence.
pub(crate) fn recur(
    cell: Cell,
    direction: Direction,
    x: Tensor<2>,
    weights: Tensor<2>,
    bias: Tensor<1>,
    lengths: &[usize],
) -> Tensor<2> {
    let [hidden, _] = weights.dims();
    let kernel = RecurrenceKernel { cell, direction, hidden, lengths: lengths.to_vec(), saved: OnceLock::new() };
    triple(Arc::new(kernel), x, weights, bias)
}

#[derive(Debug)]
struct RecurrenceKernel {
    cell: Cell,
    direction: Direction,
    hidden: usize,
    lengths: Vec<usize>,
    saved: OnceLock<Vec<Saved>>,
}

/// What one part of the sentences keeps for backward, rows in the order of [`Part::rows`].
#[derive(Debug)]
struct Saved {
    /// `[rows, hidden]`.
    states: Vec<f32>,
    /// After their nonlinearities, `[rows, gates · hidden]`; empty for a ReLU.
    gates: Vec<f32>,
    /// The candidate's share of the recurrence before the reset gate, `[rows, hidden]`; a GRU's alone.
    recurrent: Vec<f32>,
}

/// Sentences are cut into this many parts, each a job of its own: the same for any number of threads, so that sums are
/// taken in the same order.
const PARTS: usize = 4;

/// Some of the sentences, longest first, laid out step by step.
struct Part {
    /// Position of each row among the packed words; the rows of step 0 first.
    rows: Vec<usize>,
    /// The rows of each step; `k` of them belong to the `k` longest sentences.
    steps: Vec<Range<usize>>,
}

impl RecurrenceKernel {
    fn parts(&self) -> Vec<Part> {
        let mut starts = Vec::with_capacity(self.lengths.len());
        let mut words = 0;
        for &length in &self.lengths {
            starts.push(words);
            words += length;
        }
        let mut order: Vec<usize> = (0..self.lengths.len()).filter(|&s| self.lengths[s] > 0).collect();
        order.sort_by_key(|&s| (std::cmp::Reverse(self.lengths[s]), s));
        (0..PARTS.min(order.len()))
            .map(|part| {
                // Every fourth of the sorted sentences, so that parts cost the same.
                let own: Vec<usize> = order.iter().copied().skip(part).step_by(PARTS).collect();
                let (mut rows, mut steps) = (Vec::new(), Vec::new());
                for t in 0..self.lengths[own[0]] {
                    let first = rows.len();
                    rows.extend(own.iter().take_while(|&&s| self.lengths[s] > t).map(|&s| match self.direction {
                        Direction::LeftToRight => starts[s] + t,
                        Direction::RightToLeft => starts[s] + self.lengths[s] - 1 - t,
                    }));
                    steps.push(first..rows.len());
                }
                Part { rows, steps }
            })
            .collect()
    }

    fn forward_part(&self, part: &Part, x: &[f32], weights: &[f32], bias: &[f32]) -> Saved {
        let (hidden, wide) = (self.hidden, self.cell.gates() * self.hidden);
        let n_rows = part.rows.len();
        let mut states = vec![0.0; n_rows * hidden];
        let kept = if self.cell == Cell::Gru { n_rows } else { 0 };
        let (mut gates, mut recurrent) = (vec![0.0; kept * wide], vec![0.0; kept * hidden]);
        let mut sums = vec![0.0; part.steps.first().map_or(0, Range::len) * wide];
        let mut before: Option<Range<usize>> = None;
        for step in &part.steps {
            let (past, now) = states.split_at_mut(step.start * hidden);
            // The sentences of this step are the first of those before it.
            let previous =
                before.as_ref().map(|before| &past[before.start * hidden..(before.start + step.len()) * hidden]);
            let sums = &mut sums[..step.len() * wide];
            match previous {
                Some(previous) => matrix::multiply(previous, weights, sums, hidden, Layout::Plain),
                None => sums.fill(0.0),
            }
            for (k, row) in step.clone().enumerate() {
                let x = &x[part.rows[row] * wide..][..wide];
                let sums = &sums[k * wide..][..wide];
                let h = &mut now[k * hidden..][..hidden];
                match self.cell {
                    Cell::Relu => cells::relu_step(x, sums, bias, h),
                    Cell::Gru => cells::gru_step(
                        x,
                        sums,
                        bias,
                        previous.map(|previous| &previous[k * hidden..][..hidden]),
                        h,
                        &mut gates[row * wide..][..wide],
                        &mut recurrent[row * hidden..][..hidden],
                    ),
                }
            }
            before = Some(step.clone());
        }
        Saved { states, gates, recurrent }
    }

    /// Gradients of the part's rows of `x`, of the recurrent weights and of the bias.
    fn backward_part(&self, part: &Part, saved: &Saved, weights: &[f32], gradient: &[f32]) -> PartGradients {
        let (hidden, wide) = (self.hidden, self.cell.gates() * self.hidden);
        let n_rows = part.rows.len();
        // Of what goes into the gates: from `x`, and from the recurrent product (the same but for a GRU's candidate).
        let mut of_x = vec![0.0; n_rows * wide];
        let mut of_product = vec![0.0; if self.cell == Cell::Gru { n_rows * wide } else { 0 }];
        let first = part.steps.first().map_or(0, Range::len);
        let mut carried = vec![0.0; first * hidden];
        let mut from_product = vec![0.0; first * hidden];
        let zero = vec![0.0; hidden];
        for (t, step) in part.steps.iter().enumerate().rev() {
            let previous = t.checked_sub(1).map(|t| part.steps[t].start);
            for (k, row) in step.clone().enumerate() {
                let carried = &mut carried[k * hidden..][..hidden];
                cells::add(carried, &gradient[part.rows[row] * hidden..][..hidden]);
                let of_x = &mut of_x[row * wide..][..wide];
                match self.cell {
                    Cell::Relu => cells::relu_back(&saved.states[row * hidden..][..hidden], carried, of_x),
                    Cell::Gru => cells::gru_back(
                        &saved.gates[row * wide..][..wide],
                        &saved.recurrent[row * hidden..][..hidden],
                        previous.map_or(&zero[..], |start| &saved.states[(start + k) * hidden..][..hidden]),
                        carried,
                        of_x,
                        &mut of_product[row * wide..][..wide],
                    ),
                }
            }
            if t > 0 {
                let product = if self.cell == Cell::Gru { &of_product } else { &of_x };
                let own = &product[step.start * wide..step.end * wide];
                let carried = &mut carried[..step.len() * hidden];
                if self.cell == Cell::Gru {
                    // What the update gate let through is in `carried` already.
                    let from_product = &mut from_product[..carried.len()];
                    matrix::multiply(own, weights, from_product, wide, Layout::RightTransposed);
                    cells::add(carried, from_product);
                } else {
                    matrix::multiply(own, weights, carried, wide, Layout::RightTransposed);
                }
            }
        }
        let product = if self.cell == Cell::Gru { &of_product } else { &of_x };
        let mut before = Vec::with_capacity(n_rows * hidden); // the state before each row from the second step on
        for pair in part.steps.windows(2) {
            before.extend_from_slice(&saved.states[pair[0].start * hidden..][..pair[1].len() * hidden]);
        }
        let later = &product[first * wide..];
        let mut of_weights = vec![0.0; hidden * wide];
        if !before.is_empty() {
            matrix::multiply(&before, later, &mut of_weights, n_rows - first, Layout::LeftTransposed);
        }
        let mut of_bias = vec![0.0; wide];
        product.chunks_exact(wide).for_each(|row| cells::add(&mut of_bias, row));
        PartGradients { of_x, of_weights, of_bias }
    }
}

struct PartGradients {
    of_x: Vec<f32>,
    of_weights: Vec<f32>,
    of_bias: Vec<f32>,
}

impl Kernel for RecurrenceKernel {
    fn shape(&self) -> [usize; 2] {
        [self.lengths.iter().sum(), self.hidden]
    }

    fn forward(&self, inputs: &[&[f32]]) -> Vec<f32> {
        let &[x, weights, bias] = inputs else { panic!("x, weights and bias") };
        let parts = self.parts();
        let saved: Vec<Saved> = parts.par_iter().map(|part| self.forward_part(part, x, weights, bias)).collect();
        let [n_words, hidden] = self.shape();
        let mut out = vec![0.0; n_words * hidden];
        for (part, saved) in parts.iter().zip(&saved) {
            for (&row, state) in part.rows.iter().zip(saved.states.chunks_exact(hidden)) {
                out[row * hidden..][..hidden].copy_from_slice(state);
            }
        }
        // Backward runs once a forward pass; a second forward would save the same.
        let _ = self.saved.set(saved);
        out
    }

    fn backward(&self, inputs: &[&[f32]], gradient: &[f32]) -> Vec<Vec<f32>> {
        let &[x, weights, bias] = inputs else { panic!("x, weights and bias") };
        let wide = self.cell.gates() * self.hidden;
        let parts = self.parts();
        let gradients: Vec<PartGradients> = parts
            .par_iter()
            .zip(self.saved.get().expect("forward ran"))
            .map(|(part, saved)| self.backward_part(part, saved, weights, gradient))
            .collect();
        let mut of_x = vec![0.0; x.len()];
        let (mut of_weights, mut of_bias) = (vec![0.0; weights.len()], vec![0.0; bias.len()]);
        for (part, own) in parts.iter().zip(&gradients) {
            for (&row, gradient) in part.rows.iter().zip(own.of_x.chunks_exact(wide)) {
                of_x[row * wide..][..wide].copy_from_slice(gradient);
            }
            cells::add(&mut of_weights, &own.of_weights);
            cells::add(&mut of_bias, &own.of_bias);
        }
        vec![of_x, of_weights, of_bias]
    }
}
