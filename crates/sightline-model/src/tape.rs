//! A tape of matrix operations: computes forward at once, and remembers in training how to go back.
//!
//! The caption models and the small backbone run on this instead of the tensor framework: one forward serves training and decoding, sentences
//! are packed without padding, and every elementwise chain is one loop. Rows are words, regions or hypotheses.

mod activation;
mod depthwise;
mod image;
mod windows;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

pub use activation::Activation;
pub use windows::Windows;

use crate::bf16::Precision;
use crate::matrix::{Factor, Matrix, add_scaled, dot, in_parts, sigmoid, softmax, sum_of, tanh, vectorised};
use crate::products::Products;
use crate::random::Dropout;
use crate::weights::{Weight, Weights};

/// A matrix on the tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Var(usize);

/// How the output layer's weights are called: a matrix `[vocab, hidden]` and a bias `[vocab]`.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// Name of the matrix.
    pub matrix: &'a str,
    /// Name of the bias.
    pub bias: &'a str,
}

/// What attention looks at.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Number of heads; each has an equal part of the columns.
    pub heads: usize,
    /// Columns of a query, a key and a value.
    pub dim: usize,
    /// First column of the keys; the values stand right behind them.
    pub key_column: usize,
    /// Numbers from one key to the next; a multiple of it is a row of the keys' matrix.
    pub key_stride: usize,
    /// Keys that each query sees.
    pub seen: Arc<[Range<usize>]>,
}

/// What an LSTM shows of its cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Squash {
    /// The cell as it is, as NeuralTalk.
    None,
    /// Its hyperbolic tangent, as NeuralTalk2.
    Tanh,
}

/// Gradients on the way back, and what both ways multiply by.
#[derive(Default)]
struct Gradients {
    of_values: Vec<Option<Vec<f32>>>,
    of_weights: BTreeMap<String, Vec<f32>>,
    products: Products,
}

type Backward = Box<dyn FnOnce(&[Matrix], &Weights, &mut Gradients)>;

/// The record of a computation over named weights.
pub struct Tape<'a> {
    weights: &'a Weights,
    values: Vec<Matrix>,
    /// Whether a gradient must reach the value.
    wanted: Vec<bool>,
    backward: Vec<Backward>,
    gradients: Gradients,
    /// None where nothing is trained.
    dropout: Option<&'a mut Dropout>,
}

impl<'a> Tape<'a> {
    /// A tape that only computes.
    pub fn forward_only(weights: &'a Weights) -> Self {
        let (values, wanted, backward) = (Vec::new(), Vec::new(), Vec::new());
        Self { weights, values, wanted, backward, gradients: Gradients::default(), dropout: None }
    }

    /// A tape to train with, its large products taken at this precision.
    pub fn training(weights: &'a Weights, dropout: &'a mut Dropout, precision: Precision) -> Self {
        let mut tape = Self { dropout: Some(dropout), ..Self::forward_only(weights) };
        tape.gradients.products = Products::at(precision);
        tape
    }

    /// The value of a variable.
    pub fn value(&self, x: Var) -> &Matrix {
        &self.values[x.0]
    }

    /// A matrix that nothing is learnt about.
    pub fn constant(&mut self, value: Matrix) -> Var {
        self.push(value, false)
    }

    /// Whether there is a weight of this name.
    pub fn has(&self, name: &str) -> bool {
        self.weights.contains_key(name)
    }

    /// Where nothing is trained, keeps this variable alone; a long network needs no more memory than a part of it.
    pub fn forget_all_but(&mut self, x: &mut Var) {
        if self.dropout.is_none() {
            self.keep(std::slice::from_mut(x));
        }
    }

    /// Keeps these variables alone and renames them; for long computations that are not trained.
    pub fn keep(&mut self, kept: &mut [Var]) {
        assert!(self.dropout.is_none(), "a tape in training needs all its values");
        let mut values = Vec::with_capacity(kept.len());
        let mut renamed = BTreeMap::new();
        for var in kept {
            *var = *renamed.entry(var.0).or_insert_with(|| {
                values.push(std::mem::take(&mut self.values[var.0]));
                Var(values.len() - 1)
            });
        }
        self.wanted = vec![false; values.len()];
        self.values = values;
    }

    fn push(&mut self, value: Matrix, wanted: bool) -> Var {
        self.values.push(value);
        self.wanted.push(wanted);
        Var(self.values.len() - 1)
    }

    /// Pushes what an operation over `inputs` computed, and in training how to go back.
    fn record<const N: usize>(
        &mut self,
        value: Matrix,
        inputs: [Var; N],
        has_weights: bool,
        backward: impl FnOnce(Vec<f32>, [Var; N], &[Matrix], &Weights, &mut Gradients) + 'static,
    ) -> Var {
        let wanted = self.dropout.is_some() && (has_weights || inputs.iter().any(|input| self.wanted[input.0]));
        let out = self.push(value, wanted);
        if wanted {
            self.backward.push(Box::new(move |values, weights, gradients| {
                if let Some(gradient) = gradients.take(out) {
                    backward(gradient, inputs, values, weights, gradients);
                }
            }));
        }
        out
    }

    pub(crate) fn weight(&self, name: &str) -> &'a Weight {
        weight(self.weights, name)
    }

    /// `x · W + b`: `[rows, inputs] -> [rows, outputs]`; the bias where there is one.
    pub fn linear(&mut self, x: Var, name: &str) -> Var {
        let (matrix_name, bias_name) = (format!("{name}.weight"), format!("{name}.bias"));
        let matrix = self.weight(&matrix_name);
        let bias = self.weights.get(&bias_name);
        let (rows, inputs, outputs) = (self.value(x).rows, matrix.shape[0], matrix.shape[1]);
        let mut out = match bias {
            Some(bias) => bias.values.repeat(rows),
            None => vec![0.0; rows * outputs],
        };
        let (left, right) = (Factor::Plain(&self.values[x.0].values), Factor::Plain(&matrix.values));
        let products = &mut self.gradients.products;
        products.by_weight(left, (&matrix_name, right), &mut out, [rows, inputs, outputs], bias.is_some());
        let (has_bias, x_wanted) = (bias.is_some(), self.wanted[x.0]);
        self.record(Matrix::new(rows, outputs, out), [x], true, move |g, [x], values, weights, gradients| {
            if has_bias {
                let db = gradients.weight(&bias_name, weights);
                vectorised(
                    #[inline(always)]
                    || g.chunks_exact(outputs).for_each(|row| add_scaled(db, 1.0, row)),
                );
            }
            let mut products = std::mem::take(&mut gradients.products);
            let dy = Factor::Plain(&g);
            let dw = gradients.weight(&matrix_name, weights);
            products.of_values(Factor::Transposed(&values[x.0].values), dy, dw, [inputs, rows, outputs], true);
            if x_wanted {
                let (dx, adds) = gradients.value(x, rows * inputs);
                let w = Factor::Transposed(&weight(weights, &matrix_name).values);
                products.by_weight(dy, (&matrix_name, w), dx, [rows, outputs, inputs], adds);
            }
            gradients.products = products;
        })
    }

    /// Rows of the matrix `name`, times `scale`: `[tokens, columns]`.
    pub fn embed(&mut self, name: &str, tokens: &[u32], scale: f32) -> Var {
        let matrix = self.weight(name);
        let columns = matrix.shape[1];
        let mut out = Vec::with_capacity(tokens.len() * columns);
        for &token in tokens {
            out.extend(matrix.values[token as usize * columns..][..columns].iter().map(|x| x * scale));
        }
        let out = Matrix::new(tokens.len(), columns, out);
        let (name, tokens) = (name.to_owned(), tokens.to_vec());
        self.record(out, [], true, move |g, [], _, weights, gradients| {
            let dw = gradients.weight(&name, weights);
            for (&token, g) in tokens.iter().zip(g.chunks_exact(columns)) {
                add_scaled(&mut dw[token as usize * columns..][..columns], scale, g);
            }
        })
    }

    /// Element by element, of the same size.
    pub fn add(&mut self, a: Var, b: Var) -> Var {
        let (x, y) = (self.value(a), self.value(b));
        assert_eq!((x.rows, x.columns), (y.rows, y.columns), "terms of a sum");
        let out = Matrix::new(x.rows, x.columns, x.values.iter().zip(&y.values).map(|(x, y)| x + y).collect());
        self.record(out, [a, b], false, |g, [a, b], _, _, gradients| {
            gradients.add(a, &g);
            gradients.give(b, g);
        })
    }

    /// An activation, element by element.
    pub fn activate(&mut self, x: Var, activation: Activation) -> Var {
        let value = self.value(x);
        let mut out = Matrix::new(value.rows, value.columns, value.values.clone());
        activation.apply(&mut out.values);
        self.record(out, [x], false, move |mut g, [x], values, _, gradients| {
            activation.multiply_slopes(&mut g, &values[x.0].values);
            gradients.give(x, g);
        })
    }

    /// Each row to mean 0 and variance 1, then times `name.weight`, plus `name.bias`; 1e-5 is added to the variance.
    pub fn layer_norm(&mut self, x: Var, name: &str) -> Var {
        self.layer_norm_by(x, name, 1e-5)
    }

    /// As [`Tape::layer_norm`], with `epsilon` added to the variance.
    pub fn layer_norm_by(&mut self, x: Var, name: &str, epsilon: f32) -> Var {
        let (gain_name, shift_name) = (format!("{name}.weight"), format!("{name}.bias"));
        let (gain, shift) = (&self.weight(&gain_name).values, &self.weight(&shift_name).values);
        let value = self.value(x);
        let (rows, columns) = (value.rows, value.columns);
        let mut out = value.values.clone();
        in_parts(
            &mut out,
            columns,
            #[inline(always)]
            |_, out| {
                for x in out.chunks_exact_mut(columns) {
                    let (mean, scale) = moments(x, epsilon);
                    for ((x, gain), shift) in x.iter_mut().zip(gain).zip(shift) {
                        *x = (*x - mean) * scale * gain + shift;
                    }
                }
            },
        );
        let x_wanted = self.wanted[x.0];
        self.record(Matrix::new(rows, columns, out), [x], true, move |g, [x], values, weights, gradients| {
            let gain = &weight(weights, &gain_name).values;
            let moments: Vec<(f32, f32)> = vectorised(
                #[inline(always)]
                || values[x.0].values.chunks_exact(columns).map(|x| moments(x, epsilon)).collect(),
            );
            // Every row with its gradient, its mean, and one by its deviation.
            let x_rows = || values[x.0].values.chunks_exact(columns).zip(g.chunks_exact(columns)).zip(&moments);
            let dgain = gradients.weight(&gain_name, weights);
            vectorised(
                #[inline(always)]
                || {
                    for ((x, g), (centre, scale)) in x_rows() {
                        for ((dgain, g), x) in dgain.iter_mut().zip(g).zip(x) {
                            *dgain += g * ((x - centre) * scale);
                        }
                    }
                },
            );
            let dshift = gradients.weight(&shift_name, weights);
            vectorised(
                #[inline(always)]
                || g.chunks_exact(columns).for_each(|g| add_scaled(dshift, 1.0, g)),
            );
            if !x_wanted {
                return;
            }
            let mut dx = vec![0.0; rows * columns];
            vectorised(
                #[inline(always)]
                || {
                    for (((x, g), &(centre, scale)), dx) in x_rows().zip(dx.chunks_exact_mut(columns)) {
                        for ((dx, g), gain) in dx.iter_mut().zip(g).zip(gain) {
                            *dx = g * gain;
                        }
                        let mean = sum_of(dx, |x| x) / columns as f32;
                        let along = (dot(dx, x) - centre * mean * columns as f32) * scale / columns as f32;
                        for (dx, x) in dx.iter_mut().zip(x) {
                            *dx = scale * (*dx - mean - (x - centre) * scale * along);
                        }
                    }
                },
            );
            gradients.give(x, dx);
        })
    }

    /// Inverted dropout in training, nothing else.
    pub fn dropout(&mut self, x: Var) -> Var {
        let n = self.value(x).values.len();
        let Some(mask) = self.dropout.as_mut().and_then(|dropout| dropout.mask(n)) else {
            return x;
        };
        let value = self.value(x);
        let out = Matrix::new(value.rows, value.columns, value.values.iter().zip(&mask).map(|(x, m)| x * m).collect());
        self.record(out, [x], false, move |mut g, [x], _, _, gradients| {
            g.iter_mut().zip(&mask).for_each(|(g, m)| *g *= m);
            gradients.give(x, g);
        })
    }

    /// Rows of `x` by number; a row may come several times.
    pub fn rows(&mut self, x: Var, chosen: &[usize]) -> Var {
        let value = self.value(x);
        let columns = value.columns;
        let mut out = Vec::with_capacity(chosen.len() * columns);
        chosen.iter().for_each(|&row| out.extend_from_slice(value.row(row)));
        let (size, chosen) = (value.values.len(), chosen.to_vec());
        self.record(Matrix::new(chosen.len(), columns, out), [x], false, move |g, [x], _, _, gradients| {
            let dx = gradients.zeroed(x, size);
            for (&row, g) in chosen.iter().zip(g.chunks_exact(columns)) {
                add_scaled(&mut dx[row * columns..][..columns], 1.0, g);
            }
        })
    }

    /// The first rows of `x`.
    pub fn first_rows(&mut self, x: Var, rows: usize) -> Var {
        if self.value(x).rows == rows {
            return x;
        }
        self.row_range(x, 0..rows)
    }

    /// Neighbouring rows of `x`.
    pub fn row_range(&mut self, x: Var, range: Range<usize>) -> Var {
        let value = self.value(x);
        let (columns, size) = (value.columns, value.values.len());
        let out = value.values[range.start * columns..range.end * columns].to_vec();
        self.record(Matrix::new(range.len(), columns, out), [x], false, move |g, [x], _, _, gradients| {
            add_scaled(&mut gradients.zeroed(x, size)[range.start * columns..range.end * columns], 1.0, &g);
        })
    }

    /// One matrix below the other.
    pub fn stack(&mut self, parts: &[Var]) -> Var {
        let columns = self.value(parts[0]).columns;
        let rows = parts.iter().map(|&part| self.value(part).rows).sum();
        let mut out = Vec::with_capacity(rows * columns);
        parts.iter().for_each(|&part| out.extend_from_slice(&self.value(part).values));
        let wanted = self.dropout.is_some() && parts.iter().any(|part| self.wanted[part.0]);
        let parts = parts.to_vec();
        let out = self.push(Matrix::new(rows, columns, out), wanted);
        if wanted {
            self.backward.push(Box::new(move |values, _, gradients| {
                let Some(g) = gradients.take(out) else { return };
                let mut rest = g.as_slice();
                for &part in &parts {
                    let (own, others) = rest.split_at(values[part.0].values.len());
                    gradients.add(part, own);
                    rest = others;
                }
            }));
        }
        out
    }

    /// The rows of one matrix, each followed by the other's.
    pub fn beside(&mut self, a: Var, b: Var) -> Var {
        let (left, right) = (self.value(a), self.value(b));
        let (of_a, of_b) = (left.columns, right.columns);
        let rows = left.values.chunks_exact(of_a).zip(right.values.chunks_exact(of_b));
        let out = Matrix::new(left.rows, of_a + of_b, rows.flat_map(|(a, b)| a.iter().chain(b)).copied().collect());
        self.record(out, [a, b], false, move |g, [a, b], _, _, gradients| {
            let rows = || g.chunks_exact(of_a + of_b);
            gradients.give(a, rows().flat_map(|row| &row[..of_a]).copied().collect());
            gradients.give(b, rows().flat_map(|row| &row[of_a..]).copied().collect());
        })
    }

    /// The rows of `past` with the columns `from..` of `x` behind them; not for training.
    pub fn append(&mut self, past: Option<Var>, x: Var, from: usize) -> Var {
        assert!(self.dropout.is_none(), "an appended row has no way back");
        let value = self.value(x);
        let mut out = Vec::new();
        for row in 0..value.rows {
            if let Some(past) = past {
                out.extend_from_slice(self.value(past).row(row));
            }
            out.extend_from_slice(&value.row(row)[from..]);
        }
        let columns = out.len() / value.rows;
        let out = Matrix::new(value.rows, columns, out);
        self.push(out, false)
    }

    /// Scaled dot-product attention of every row of `queries` (its first `dim` columns) to keys and values in `keys`.
    /// Returns `[queries, dim]`, and, where nothing is trained, the weights of query after
    /// query, mean over the heads.
    pub fn attend(&mut self, queries: Var, keys: Var, attention: Attention) -> (Var, Vec<f32>) {
        let Attention { heads, dim, key_column, key_stride, seen } = attention;
        let (q, kv) = (self.value(queries), self.value(keys));
        let (rows, q_stride, width) = (q.rows, q.columns, dim / heads);
        assert_eq!(seen.len(), rows, "one range of keys a query");
        let scale = 1.0 / (width as f32).sqrt();
        let mut out = vec![0.0; rows * dim];
        // Query after query, in each head after head.
        let mut weights = vec![0.0; heads * seen.iter().map(|range| range.len()).sum::<usize>()];
        vectorised(
            #[inline(always)]
            || {
                let mut rest = weights.as_mut_slice();
                for (i, range) in seen.iter().enumerate() {
                    let q = &q.values[i * q_stride..][..dim];
                    let out = &mut out[i * dim..][..dim];
                    for head in 0..heads {
                        let columns = head * width..(head + 1) * width;
                        let (own, others) = std::mem::take(&mut rest).split_at_mut(range.len());
                        rest = others;
                        for (weight, key) in own.iter_mut().zip(range.clone()) {
                            let key = &kv.values[key * key_stride + key_column..][..dim];
                            *weight = scale * dot(&q[columns.clone()], &key[columns.clone()]);
                        }
                        softmax(own);
                        for (weight, key) in own.iter().zip(range.clone()) {
                            let value = &kv.values[key * key_stride + key_column + dim..][..dim];
                            add_scaled(&mut out[columns.clone()], *weight, &value[columns.clone()]);
                        }
                    }
                }
            },
        );
        let trains = self.dropout.is_some();
        let mean = if trains { Vec::new() } else { mean_over_heads(&weights, &seen, heads) };
        let (q_size, kv_size) = (q.values.len(), kv.values.len());
        let back =
            move |g: Vec<f32>, [queries, keys]: [Var; 2], values: &[Matrix], _: &Weights, gradients: &mut Gradients| {
                let (q, kv) = (&values[queries.0].values, &values[keys.0].values);
                let (mut dq, mut dkv) = (vec![0.0; q_size], vec![0.0; kv_size]);
                let most = seen.iter().map(|range| range.len()).max().unwrap_or(0);
                let mut dweights = vec![0.0; most];
                vectorised(
                    #[inline(always)]
                    || {
                        let mut rest = weights.as_slice();
                        for (i, range) in seen.iter().enumerate() {
                            for head in 0..heads {
                                let (own, others) = rest.split_at(range.len());
                                rest = others;
                                let (first, dweights) = (head * width, &mut dweights[..range.len()]);
                                let g = &g[i * dim + first..][..width];
                                for (d, key) in dweights.iter_mut().zip(range.clone()) {
                                    *d = dot(g, &kv[key * key_stride + key_column + dim + first..][..width]);
                                }
                                let along = dot(dweights, own);
                                let query = &q[i * q_stride + first..][..width];
                                for ((&d, &weight), key) in dweights.iter().zip(own).zip(range.clone()) {
                                    let at = key * key_stride + key_column + first;
                                    let d = scale * weight * (d - along);
                                    add_scaled(&mut dq[i * q_stride + first..][..width], d, &kv[at..][..width]);
                                    add_scaled(&mut dkv[at..][..width], d, query);
                                    add_scaled(&mut dkv[at + dim..][..width], weight, g);
                                }
                            }
                        }
                    },
                );
                gradients.give(queries, dq);
                gradients.give(keys, dkv);
            };
        let out = self.record(Matrix::new(rows, dim, out), [queries, keys], false, back);
        (out, mean)
    }

    /// An LSTM's cell: gates `z` `[rows, 4 · hidden]` (input, forget, output, candidate) and `c` to the new `h` and `c`.
    pub fn lstm_cell(&mut self, z: Var, c: Var, squash: Squash) -> (Var, Var) {
        let squashes = squash == Squash::Tanh;
        let (gates, cell) = (self.value(z), self.value(c));
        let (rows, hidden) = (cell.rows, cell.columns);
        assert_eq!((gates.rows, gates.columns), (rows, 4 * hidden), "gates of [{rows}, {hidden}]");
        // The activated gates, for the way back.
        let mut active = gates.values.clone();
        let (mut new_c, mut new_h) = (vec![0.0; rows * hidden], vec![0.0; rows * hidden]);
        vectorised(
            #[inline(always)]
            || {
                for row in 0..rows {
                    let own = &mut active[row * 4 * hidden..][..4 * hidden];
                    let (sigmoids, candidate) = own.split_at_mut(3 * hidden);
                    sigmoids.iter_mut().for_each(|x| *x = sigmoid(*x));
                    candidate.iter_mut().for_each(|x| *x = tanh(*x));
                    let (input, others) = sigmoids.split_at(hidden);
                    let (forget, output) = others.split_at(hidden);
                    let range = row * hidden..(row + 1) * hidden;
                    let (old, new_c, new_h) =
                        (&cell.values[range.clone()], &mut new_c[range.clone()], &mut new_h[range]);
                    for i in 0..hidden {
                        new_c[i] = forget[i] * old[i] + input[i] * candidate[i];
                        new_h[i] = output[i] * if squashes { tanh(new_c[i]) } else { new_c[i] };
                    }
                }
            },
        );
        let wanted = self.dropout.is_some();
        let h = self.push(Matrix::new(rows, hidden, new_h), wanted);
        let new_c = self.push(Matrix::new(rows, hidden, new_c), wanted);
        if wanted {
            self.backward.push(Box::new(move |values, _, gradients| {
                let (dh, dc) = (gradients.take(h), gradients.take(new_c));
                if dh.is_none() && dc.is_none() {
                    return;
                }
                let dh = dh.unwrap_or_else(|| vec![0.0; rows * hidden]);
                let mut dc = dc.unwrap_or_else(|| vec![0.0; rows * hidden]);
                let (old, new) = (&values[c.0].values, &values[new_c.0].values);
                let mut dz = active;
                vectorised(
                    #[inline(always)]
                    || {
                        for row in 0..rows {
                            let range = row * hidden..(row + 1) * hidden;
                            let (dh, dc) = (&dh[range.clone()], &mut dc[range.clone()]);
                            let (old, new) = (&old[range.clone()], &new[range]);
                            let (input, others) = dz[row * 4 * hidden..][..4 * hidden].split_at_mut(hidden);
                            let (forget, others) = others.split_at_mut(hidden);
                            let (output, candidate) = others.split_at_mut(hidden);
                            for i in 0..hidden {
                                let (squashed, slope) = match squashes {
                                    true => (tanh(new[i]), 1.0 - tanh(new[i]) * tanh(new[i])),
                                    false => (new[i], 1.0),
                                };
                                let d = dc[i] + dh[i] * output[i] * slope;
                                dc[i] = d * forget[i];
                                output[i] = dh[i] * squashed * output[i] * (1.0 - output[i]);
                                forget[i] = d * old[i] * forget[i] * (1.0 - forget[i]);
                                let d_input = d * candidate[i] * input[i] * (1.0 - input[i]);
                                candidate[i] = d * input[i] * (1.0 - candidate[i] * candidate[i]);
                                input[i] = d_input;
                            }
                        }
                    },
                );
                gradients.give(z, dz);
                gradients.give(c, dc);
            }));
        }
        (h, new_c)
    }

    /// Log probabilities of the right tokens after every row of `hidden`; `[rows]`.
    pub fn log_likelihoods(&mut self, hidden: Var, output: Output<'_>, targets: &[u32]) -> Vec<f32> {
        self.read_out(hidden, output, targets, None).0
    }

    /// The loss, the sum over rows of `hidden` of `weight` times the cross-entropy with labels smoothed over the
    /// vocabulary, and its way back: the last thing on the tape.
    pub fn cross_entropy(&mut self, hidden: Var, output: Output<'_>, targets: &[u32], loss: &Loss<'_>) -> f64 {
        self.read_out(hidden, output, targets, Some(loss)).1
    }

    /// Log probabilities of the right tokens, and where there is a loss to learn from, its sum and its way back.
    fn read_out(
        &mut self,
        hidden: Var,
        output: Output<'_>,
        targets: &[u32],
        loss: Option<&Loss<'_>>,
    ) -> (Vec<f32>, f64) {
        /// Logits in memory at once, 64 MB: each of the three products below brings all of the layer's matrix into order,
        /// so the fewer of them the better.
        const LOGITS: usize = 16 << 20;
        /// Rows that one thread takes at once.
        const ROWS: usize = 32;
        let (matrix, bias) = (self.weight(output.matrix), self.weight(output.bias));
        let (vocab, columns) = (bias.values.len(), self.value(hidden).columns);
        let blocks_at_once = (LOGITS / ROWS / vocab).max(1);
        let chunk_rows = ROWS * blocks_at_once;
        let starts = |first: usize| (0..blocks_at_once).into_par_iter().map(move |block| first + block * ROWS);
        assert_eq!(self.value(hidden).rows, targets.len(), "one target a row");
        let trains = loss.is_some();
        let h = &self.values[hidden.0].values;
        let mut log_likelihoods = Vec::with_capacity(targets.len());
        let mut sum = 0.0;
        let mut dh = vec![0.0; if trains { h.len() } else { 0 }];
        let mut dmatrix = if trains { self.gradients.take_weight(output.matrix, matrix) } else { Vec::new() };
        let mut dbias = if trains { self.gradients.take_weight(output.bias, bias) } else { Vec::new() };
        let mut logits = vec![0.0; chunk_rows.min(targets.len()) * vocab];
        let products = &mut self.gradients.products;
        for (chunk, targets) in targets.chunks(chunk_rows).enumerate() {
            let (first, rows) = (chunk * chunk_rows, targets.len());
            let range = first * columns..(first + rows) * columns;
            let logits = &mut logits[..rows * vocab];
            let own = Factor::Plain(&h[range.clone()]);
            let w = (output.matrix, Factor::Transposed(&matrix.values));
            products.by_weight(own, w, logits, [rows, columns, vocab], false);
            // Blocks of rows on all threads, their parts added in order, so that the sum never depends on the threads.
            let blocks = logits.par_chunks_mut(ROWS * vocab).zip(targets.par_chunks(ROWS)).zip(starts(first));
            let blocks: Vec<OutputRows> = blocks
                .map(|((logits, targets), first)| output_rows(logits, &bias.values, targets, first, loss))
                .collect();
            for block in blocks {
                log_likelihoods.extend(block.log_likelihoods);
                sum += block.sum;
                if trains {
                    add_scaled(&mut dbias, 1.0, &block.dbias);
                }
            }
            if trains {
                let w = (output.matrix, Factor::Plain(&matrix.values));
                products.by_weight(Factor::Plain(logits), w, &mut dh[range], [rows, vocab, columns], false);
                products.of_values(Factor::Transposed(logits), own, &mut dmatrix, [vocab, rows, columns], true);
            }
        }
        if trains {
            self.gradients.of_weights.insert(output.matrix.to_owned(), dmatrix);
            self.gradients.of_weights.insert(output.bias.to_owned(), dbias);
            self.gradients.give(hidden, dh);
        }
        (log_likelihoods, sum)
    }

    /// Says how the loss changes with a variable; for losses that are computed beside the tape.
    pub fn seed(&mut self, x: Var, gradient: Vec<f32>) {
        assert_eq!(self.value(x).values.len(), gradient.len(), "one derivative a value");
        self.gradients.give(x, gradient);
    }

    /// Goes back from the loss: the gradients of all weights that took part, by name.
    pub fn backward(mut self) -> Weights {
        for step in self.backward.into_iter().rev() {
            step(&self.values, self.weights, &mut self.gradients);
        }
        let shaped = |(name, values): (String, Vec<f32>)| {
            let shape = weight(self.weights, &name).shape.clone();
            (name, Weight { shape, values })
        };
        self.gradients.of_weights.into_iter().map(shaped).collect()
    }
}

/// What [`Tape::cross_entropy`] sums.
#[derive(Debug, Clone, Copy, Default)]
pub struct Loss<'a> {
    /// A factor a target; none is 1.
    pub weights: Option<&'a [f32]>,
    /// Probability that is taken from the right token and spread over the vocabulary.
    pub smoothing: f32,
}

/// What the output layer makes of some rows.
struct OutputRows {
    log_likelihoods: Vec<f32>,
    sum: f64,
    dbias: Vec<f32>,
}

/// Logits `[targets, vocab]` to log likelihoods; with a loss the logits become their own gradients. `first` is the number
/// of the first row among the factors of `loss`.
fn output_rows(logits: &mut [f32], bias: &[f32], targets: &[u32], first: usize, loss: Option<&Loss<'_>>) -> OutputRows {
    let vocab = bias.len();
    let dbias = vec![0.0; if loss.is_some() { vocab } else { 0 }];
    let mut rows = OutputRows { log_likelihoods: Vec::with_capacity(targets.len()), sum: 0.0, dbias };
    let smoothing = loss.map_or(0.0, |loss| loss.smoothing);
    let uniform = smoothing / vocab as f32;
    vectorised(
        #[inline(always)]
        || {
            for (i, (row, &target)) in logits.chunks_exact_mut(vocab).zip(targets).enumerate() {
                add_scaled(row, 1.0, bias);
                let target = target as usize;
                let logit = row[target];
                let logit_sum = if smoothing > 0.0 { sum_of(row, |x| x) } else { 0.0 };
                let log_sum = softmax(row);
                rows.log_likelihoods.push(logit - log_sum);
                if let Some(loss) = loss {
                    let weight = loss.weights.map_or(1.0, |weights| weights[first + i]);
                    let expected = (1.0 - smoothing) * logit + uniform * logit_sum;
                    rows.sum += f64::from(weight) * f64::from(log_sum - expected);
                    row[target] -= 1.0 - smoothing;
                    for (x, dbias) in row.iter_mut().zip(&mut rows.dbias) {
                        *x = weight * (*x - uniform);
                        *dbias += *x;
                    }
                }
            }
        },
    );
    rows
}

fn weight<'a>(weights: &'a Weights, name: &str) -> &'a Weight {
    weights.get(name).unwrap_or_else(|| panic!("the model has no weight {name}"))
}

/// The mean of a row, and one by its standard deviation.
#[inline(always)]
fn moments(x: &[f32], epsilon: f32) -> (f32, f32) {
    let mean = sum_of(x, |x| x) / x.len() as f32;
    let variance = sum_of(x, |x| (x - mean) * (x - mean)) / x.len() as f32;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

fn mean_over_heads(weights: &[f32], seen: &[Range<usize>], heads: usize) -> Vec<f32> {
    let mut mean = Vec::with_capacity(weights.len() / heads);
    let mut rest = weights;
    for range in seen {
        let (own, others) = rest.split_at(heads * range.len());
        rest = others;
        mean.extend(
            (0..range.len())
                .map(|key| (0..heads).map(|head| own[head * range.len() + key]).sum::<f32>() / heads as f32),
        );
    }
    mean
}

impl Gradients {
    fn take(&mut self, var: Var) -> Option<Vec<f32>> {
        self.of_values.get_mut(var.0)?.take()
    }

    fn slot(&mut self, var: Var) -> &mut Option<Vec<f32>> {
        if self.of_values.len() <= var.0 {
            self.of_values.resize(var.0 + 1, None);
        }
        &mut self.of_values[var.0]
    }

    /// Adds a gradient that nobody else needs.
    fn give(&mut self, var: Var, gradient: Vec<f32>) {
        match self.slot(var) {
            Some(old) => add_scaled(old, 1.0, &gradient),
            empty => *empty = Some(gradient),
        }
    }

    fn add(&mut self, var: Var, gradient: &[f32]) {
        match self.slot(var) {
            Some(old) => add_scaled(old, 1.0, gradient),
            empty => *empty = Some(gradient.to_vec()),
        }
    }

    /// The gradient to add to, zeros at first.
    fn zeroed(&mut self, var: Var, size: usize) -> &mut [f32] {
        self.slot(var).get_or_insert_with(|| vec![0.0; size])
    }

    /// The gradient to write to, and whether there is one already that must be added to.
    fn value(&mut self, var: Var, size: usize) -> (&mut [f32], bool) {
        let slot = self.slot(var);
        let exists = slot.is_some();
        (slot.get_or_insert_with(|| vec![0.0; size]), exists)
    }

    fn weight(&mut self, name: &str, weights: &Weights) -> &mut [f32] {
        if !self.of_weights.contains_key(name) {
            self.of_weights.insert(name.to_owned(), vec![0.0; weight(weights, name).values.len()]);
        }
        self.of_weights.get_mut(name).expect("just put there")
    }

    fn take_weight(&mut self, name: &str, weight: &Weight) -> Vec<f32> {
        self.of_weights.remove(name).unwrap_or_else(|| vec![0.0; weight.values.len()])
    }
}
