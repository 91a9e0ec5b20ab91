//! Operations on pictures: rows are the cells of square grids, grid after grid, row by row; columns are channels.

use rayon::prelude::*;

use super::depthwise::Depthwise;
use super::windows::Windows;
use super::{Tape, Var, weight};
use crate::matrix::{Matrix, Part, add_scaled, dot, multiply_parts, softmax, vectorised};

impl Tape<'_> {
    /// Convolution: `[cells, channels]` to `[results, outputs]`, by `name.weight` `[kernel² · channels, outputs]` and
    /// `name.bias`.
    pub fn convolve(&mut self, x: Var, name: &str, windows: Windows) -> Var {
        let value = self.value(x);
        let (cells, channels) = (value.rows, value.columns);
        assert_eq!(cells % (windows.side * windows.side), 0, "whole grids");
        let unfolded = windows.unfold(&value.values, channels);
        let columns = windows.kernel * windows.kernel * channels;
        let unfolded = Matrix::new(unfolded.len() / columns, columns, unfolded);
        let flat = self.record(unfolded, [x], false, move |g, [x], _, _, gradients| {
            windows.fold(&g, channels, gradients.zeroed(x, cells * channels));
        });
        self.linear(flat, name)
    }

    /// Convolution of each channel on its own, stride 1: `[cells, channels]` to the same, by `name.weight`
    /// `[kernel², channels]` and `name.bias`.
    pub fn convolve_channels(&mut self, x: Var, name: &str, side: usize, kernel: usize) -> Var {
        let (matrix_name, bias_name) = (format!("{name}.weight"), format!("{name}.bias"));
        let (matrix, bias) = (&self.weight(&matrix_name).values, &self.weight(&bias_name).values);
        let value = self.value(x);
        let (cells, channels) = (value.rows, value.columns);
        let depthwise = Depthwise::new(side, kernel, channels);
        let mut out = bias.repeat(cells);
        depthwise.convolve(&value.values, matrix, &mut out);
        self.record(Matrix::new(cells, channels, out), [x], true, move |g, [x], values, weights, gradients| {
            let dmatrix = depthwise.gradient_of_windows(&values[x.0].values, &g);
            add_scaled(gradients.weight(&matrix_name, weights), 1.0, &dmatrix);
            let dbias = gradients.weight(&bias_name, weights);
            g.chunks_exact(channels).for_each(|row| add_scaled(dbias, 1.0, row));
            gradients.give(x, depthwise.gradient_of_cells(&g, &weight(weights, &matrix_name).values));
        })
    }

    /// The rows of the weight `name` before every `group` rows of `x`.
    pub fn prepend(&mut self, x: Var, name: &str, group: usize) -> Var {
        let value = self.value(x);
        let (rows, columns) = (value.rows, value.columns);
        assert_eq!(rows % group, 0, "whole groups of {group} rows");
        let first = self.weight(name);
        let n_first = first.shape[0];
        let mut out = Vec::with_capacity((rows + rows / group * n_first) * columns);
        for own in value.values.chunks_exact(group * columns) {
            out.extend_from_slice(&first.values);
            out.extend_from_slice(own);
        }
        let (name, size) = (name.to_owned(), rows * columns);
        let out = Matrix::new(rows + rows / group * n_first, columns, out);
        self.record(out, [x], true, move |g, [x], _, weights, gradients| {
            let dfirst = gradients.weight(&name, weights);
            let (border, whole) = (n_first * columns, (group + n_first) * columns);
            g.chunks_exact(whole).for_each(|g| add_scaled(dfirst, 1.0, &g[..border]));
            let dx = gradients.zeroed(x, size);
            for (dx, g) in dx.chunks_exact_mut(group * columns).zip(g.chunks_exact(whole)) {
                add_scaled(dx, 1.0, &g[border..]);
            }
        })
    }

    /// The weight `name` `[group, columns]` added to every `group` rows of `x`.
    pub fn add_tiled(&mut self, x: Var, name: &str) -> Var {
        let (value, tile) = (self.value(x), &self.weight(name).values);
        assert_eq!(value.values.len() % tile.len(), 0, "whole groups of rows");
        let mut out = value.clone();
        out.values.chunks_exact_mut(tile.len()).for_each(|own| add_scaled(own, 1.0, tile));
        let name = name.to_owned();
        self.record(out, [x], true, move |g, [x], _, weights, gradients| {
            let dtile = gradients.weight(&name, weights);
            g.chunks_exact(dtile.len()).for_each(|g| add_scaled(dtile, 1.0, g));
            gradients.give(x, g);
        })
    }

    /// Every column times its factor, the weight `name` `[columns]`.
    pub fn scale_columns(&mut self, x: Var, name: &str) -> Var {
        let (mut out, factors) = (self.value(x).clone(), &self.weight(name).values);
        let columns = out.columns;
        assert_eq!(columns, factors.len(), "a factor a column");
        out.values.chunks_exact_mut(columns).for_each(|row| row.iter_mut().zip(factors).for_each(|(x, f)| *x *= f));
        let name = name.to_owned();
        self.record(out, [x], true, move |mut g, [x], values, weights, gradients| {
            let dfactors = gradients.weight(&name, weights);
            for (g, x) in g.chunks_exact(columns).zip(values[x.0].values.chunks_exact(columns)) {
                multiply_add(dfactors, g, x);
            }
            let factors = &weight(weights, &name).values;
            g.chunks_exact_mut(columns).for_each(|row| row.iter_mut().zip(factors).for_each(|(g, f)| *g *= f));
            gradients.give(x, g);
        })
    }

    /// Every group of rows times its factor; the groups are of one size.
    pub fn scale_groups(&mut self, x: Var, factors: Vec<f32>) -> Var {
        let mut out = self.value(x).clone();
        let group = out.values.len() / factors.len();
        assert_eq!(group * factors.len(), out.values.len(), "groups of one size");
        let scale = move |values: &mut [f32]| {
            for (own, factor) in values.chunks_exact_mut(group).zip(&factors) {
                own.iter_mut().for_each(|x| *x *= factor);
            }
        };
        scale(&mut out.values);
        self.record(out, [x], false, move |mut g, [x], _, _, gradients| {
            scale(&mut g);
            gradients.give(x, g);
        })
    }

    /// Sums of rows of `x` times factors: a row of the result for each list of `(row, factor)`.
    pub fn combine(&mut self, x: Var, lists: Vec<Vec<(usize, f32)>>) -> Var {
        let value = self.value(x);
        let (columns, size) = (value.columns, value.values.len());
        let mut out = Matrix::zeros(lists.len(), columns);
        for (out, list) in out.values.chunks_exact_mut(columns).zip(&lists) {
            list.iter().for_each(|&(row, factor)| add_scaled(out, factor, value.row(row)));
        }
        self.record(out, [x], false, move |g, [x], _, _, gradients| {
            let dx = gradients.zeroed(x, size);
            for (g, list) in g.chunks_exact(columns).zip(&lists) {
                list.iter().for_each(|&(row, factor)| add_scaled(&mut dx[row * columns..][..columns], factor, g));
            }
        })
    }

    /// Scaled dot-product attention of every `group` rows among themselves, by matrix products: queries, keys and
    /// values side by side in `x` `[rows, 3 · dim]`; `[rows, dim]`.
    pub fn attend_among(&mut self, x: Var, group: usize, heads: usize) -> Var {
        let value = self.value(x);
        let (rows, dim) = (value.rows, value.columns / 3);
        let (width, stride, scale) = (dim / heads, 3 * dim, 1.0 / ((dim / heads) as f32).sqrt());
        assert_eq!((rows % group, dim % heads), (0, 0), "whole groups of {group} rows, whole heads of {dim}");
        // `[groups, heads, group, group]` and `[groups, heads, group, width]`
        let (mut attention, mut mixed) = (vec![0.0; rows * heads * group], vec![0.0; rows * dim]);
        let of_heads = attention.par_chunks_exact_mut(group * group).zip(mixed.par_chunks_exact_mut(group * width));
        of_heads.enumerate().for_each(|(i, (own, mixed))| {
            let (first, head) = (i / heads * group, i % heads);
            let part =
                |which: usize| Part::columns(&value.values[first * stride + which * dim + head * width..], stride);
            multiply_parts(scale, part(0), part(1).transposed(), own, group, [group, width, group]);
            vectorised(
                #[inline(always)]
                || {
                    own.chunks_exact_mut(group).for_each(|row| {
                        softmax(row);
                    });
                },
            );
            multiply_parts(1.0, Part::columns(own, group), part(2), mixed, width, [group, group, width]);
        });
        let mut out = vec![0.0; rows * dim];
        for (i, row) in mixed.chunks_exact(width).enumerate() {
            let (first, head) = (i / (heads * group) * group, i / group % heads);
            out[(first + i % group) * dim + head * width..][..width].copy_from_slice(row);
        }
        self.record(Matrix::new(rows, dim, out), [x], false, move |g, [x], values, _, gradients| {
            let mut dx = vec![0.0; rows * stride];
            let mut d = vec![0.0; group * group];
            for (i, own) in attention.chunks_exact(group * group).enumerate() {
                let (first, head) = (i / heads * group, i % heads);
                let at = |which: usize| first * stride + which * dim + head * width;
                let part = |which: usize| Part::columns(&values[x.0].values[at(which)..], stride);
                let g = Part::columns(&g[first * dim + head * width..], dim);
                let own_part = Part::columns(own, group);
                multiply_parts(1.0, own_part.transposed(), g, &mut dx[at(2)..], stride, [group, group, width]);
                multiply_parts(1.0, g, part(2).transposed(), &mut d, group, [group, width, group]);
                vectorised(
                    #[inline(always)]
                    || {
                        for (d, own) in d.chunks_exact_mut(group).zip(own.chunks_exact(group)) {
                            let along = dot(d, own);
                            d.iter_mut().zip(own).for_each(|(d, own)| *d = own * (*d - along));
                        }
                    },
                );
                let d = Part::columns(&d, group);
                multiply_parts(scale, d, part(1), &mut dx[at(0)..], stride, [group, group, width]);
                multiply_parts(scale, d.transposed(), part(0), &mut dx[at(1)..], stride, [group, group, width]);
            }
            gradients.give(x, dx);
        })
    }
}

/// `out += a · b`, element by element.
#[inline(always)]
fn multiply_add(out: &mut [f32], a: &[f32], b: &[f32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out += a * b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16::Precision;
    use crate::random::{self, Dropout};
    use crate::weights::{Weight, Weights};

    fn numbers(n: usize, stream: u64) -> Vec<f32> {
        random::uniform_values(&mut random::stream(3, stream), n, 1.0)
    }

    fn some_weights(shapes: &[(&str, &[usize])]) -> Weights {
        let weight = |(i, &(name, shape)): (usize, &(&str, &[usize]))| {
            let values = numbers(shape.iter().product(), i as u64);
            (name.to_owned(), Weight { shape: shape.to_vec(), values })
        };
        shapes.iter().enumerate().map(weight).collect()
    }

    /// Compares the tape's derivatives of a weighted sum of what `operation` computes with differences, for every weight
    /// and for every number of the input, which is the weight `x`.
    fn check_gradients(mut weights: Weights, rows: usize, operation: impl Fn(&mut Tape<'_>, Var) -> Var) {
        let of_input: Vec<u32> = (0..rows as u32).collect();
        let factors = |n: usize| numbers(n, 77);
        let sum = |weights: &Weights| -> f64 {
            let mut tape = Tape::forward_only(weights);
            let x = tape.embed("x", &of_input, 1.0);
            let y = operation(&mut tape, x);
            let y = &tape.value(y).values;
            y.iter().zip(factors(y.len())).map(|(y, f)| f64::from(*y) * f64::from(f)).sum()
        };
        let mut dropout = Dropout::new(random::stream(1, 1), 0.0);
        let mut tape = Tape::training(&weights, &mut dropout, Precision::F32);
        let x = tape.embed("x", &of_input, 1.0);
        let y = operation(&mut tape, x);
        let n = tape.value(y).values.len();
        tape.seed(y, factors(n));
        let gradients = tape.backward();
        assert_eq!(gradients.len(), weights.len(), "a gradient for every weight");
        const STEP: f32 = 1e-2;
        for (name, gradient) in gradients {
            for i in 0..gradient.values.len() {
                let old = weights[&name].values[i];
                let mut at = |x: f32| {
                    weights.get_mut(&name).unwrap().values[i] = x;
                    sum(&weights)
                };
                let expected = (at(old + STEP) - at(old - STEP)) / f64::from(2.0 * STEP);
                at(old);
                let got = f64::from(gradient.values[i]);
                assert!((got - expected).abs() < 2e-3 * (1.0 + expected.abs()), "{name}[{i}]: {got}, not {expected}");
            }
        }
    }

    #[test]
    fn convolutions_have_the_right_derivatives() {
        for (kernel, stride) in [(3, 2), (3, 1), (2, 2)] {
            let shapes: [(&str, &[usize]); 3] =
                [("x", &[32, 3]), ("c.weight", &[kernel * kernel * 3, 2]), ("c.bias", &[2])];
            let windows = Windows { side: 4, kernel, stride };
            check_gradients(some_weights(&shapes), 32, |tape, x| tape.convolve(x, "c", windows));
        }
        // Channels that fill the parts that go through together, and some that do not.
        for channels in [3, 81] {
            let shapes: [(&str, &[usize]); 3] =
                [("x", &[32, channels]), ("c.weight", &[25, channels]), ("c.bias", &[channels])];
            check_gradients(some_weights(&shapes), 32, |tape, x| tape.convolve_channels(x, "c", 4, 5));
        }
    }

    #[test]
    fn attention_and_the_rest_have_the_right_derivatives() {
        check_gradients(some_weights(&[("x", &[10, 12])]), 10, |tape, x| tape.attend_among(x, 5, 2));
        for first in [1, 2] {
            let weights = some_weights(&[("x", &[6, 2]), ("first", &[first, 2])]);
            check_gradients(weights, 6, |tape, x| tape.prepend(x, "first", 3));
        }
        check_gradients(some_weights(&[("x", &[6, 2]), ("tile", &[3, 2])]), 6, |tape, x| tape.add_tiled(x, "tile"));
        check_gradients(some_weights(&[("x", &[4, 3]), ("f", &[3])]), 4, |tape, x| tape.scale_columns(x, "f"));
        check_gradients(some_weights(&[("x", &[6, 2])]), 6, |tape, x| tape.scale_groups(x, vec![2.0, 0.0, -1.5]));
        let lists = vec![vec![(0, 0.5), (3, 2.0)], vec![], vec![(3, -1.0)]];
        check_gradients(some_weights(&[("x", &[4, 3])]), 4, |tape, x| tape.combine(x, lists.clone()));
        check_gradients(some_weights(&[("x", &[4, 3])]), 4, |tape, x| {
            let others = tape.rows(x, &[3, 0, 0, 1]);
            tape.beside(x, others)
        });
    }

    #[test]
    fn convolution_is_a_sum_over_the_window() {
        let weights = some_weights(&[("c.weight", &[9 * 2, 3]), ("c.bias", &[3])]);
        let mut tape = Tape::forward_only(&weights);
        let (side, x) = (4, numbers(2 * 16 * 2, 9));
        let input = tape.constant(Matrix::new(32, 2, x.clone()));
        for stride in [1, 2] {
            let out = tape.convolve(input, "c", Windows { side, kernel: 3, stride });
            let side_out = side / stride;
            for grid in 0..2 {
                for (y, x_at) in (0..side_out).flat_map(|y| (0..side_out).map(move |x| (y, x))) {
                    for output in 0..3 {
                        let mut sum = weights["c.bias"].values[output];
                        for (ky, kx, channel) in (0..18).map(|i| (i / 6, i / 2 % 3, i % 2)) {
                            let (row, column) = (y * stride + ky, x_at * stride + kx);
                            if (1..=side).contains(&row) && (1..=side).contains(&column) {
                                let cell = grid * 16 + (row - 1) * side + column - 1;
                                sum += x[cell * 2 + channel]
                                    * weights["c.weight"].values[((ky * 3 + kx) * 2 + channel) * 3 + output];
                            }
                        }
                        let got = tape.value(out).row(grid * side_out * side_out + y * side_out + x_at)[output];
                        assert!((got - sum).abs() < 1e-5, "stride {stride}: {got}, not {sum}");
                    }
                }
            }
        }
    }

    #[test]
    fn attention_among_rows_equals_attention_by_rows() {
        let weights = Weights::new();
        let mut tape = Tape::forward_only(&weights);
        let x = tape.constant(Matrix::new(6, 12, numbers(72, 4)));
        let by_products = tape.attend_among(x, 3, 2);
        let seen = [0..3, 0..3, 0..3, 3..6, 3..6, 3..6].into();
        let attention = crate::tape::Attention { heads: 2, dim: 4, key_column: 4, key_stride: 12, seen };
        let (by_rows, _) = tape.attend(x, x, attention);
        let pairs = tape.value(by_products).values.iter().zip(&tape.value(by_rows).values);
        assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
