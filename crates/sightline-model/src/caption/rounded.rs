//! The output layer at a fraction of its cost, for decoding: all logits from weights rounded to 8 bits, and those that
//! may win from the weights themselves.
//!
//! Beam search asks for a few tokens of thousands at every step, and reading the layer's weights is most of its work.
//! Rounded, they are a quarter as long, and whole numbers multiply four times as fast. How far a rounded logit is off is
//! known (see [`Rounded::bound`]) but for errors beyond [`DEVIATIONS`], so the best tokens are found exactly; only the sum in the softmax's denominator keeps
//! the rounding of the tokens that are out of the race.

use std::ops::Range;

use rayon::prelude::*;
use sightline_search::bytes::{self, DEVIATIONS, OFFSET, PANEL, QUAD};

use super::END;
use super::generator::Generator;
use crate::matrix::{add_scaled, dot, exp, largest, softmax, sum_of, vectorised};
use crate::weights::Weights;

/// Parts of the vocabulary that threads take; always as many, so that sums never depend on the threads.
const BLOCKS: usize = 4;
/// So few rows are shared by the threads.
const FEW_ROWS: usize = 16;
/// Rows that go through the layer together: their logits and the weights of a block stay in the cache of a core.
const ROWS: usize = 56;
/// Logits are looked through in groups of as many, and of each group every 16th together.
const GROUP: usize = 256;
const LANES: usize = 16;
/// Products of fewer multiplications than this stay on one thread.
const PARALLEL_FROM: usize = 1 << 20;

/// An output layer, its weights rounded: `[vocab, columns]`.
#[derive(Debug, Clone)]
pub struct Rounded {
    vocab: usize,
    columns: usize,
    /// Columns of a panel: a multiple of [`QUAD`], the rest zero.
    stride: usize,
    /// `[panels, stride / QUAD, PANEL, QUAD]`.
    panels: Vec<u8>,
    /// What a rounded weight of each token is worth.
    factors: Vec<f32>,
    /// Rounded weights of a token on average, by the probability that its bias alone gives it: what is lost of a row
    /// moves the logits of all tokens together by the product with these, which is put back.
    mean: Vec<f32>,
    /// The largest of all tokens.
    most: Most,
}

/// What says how far a product with rounded weights can be off.
#[derive(Debug, Clone, Copy, Default)]
struct Most {
    /// What a rounded weight is worth.
    factor: f32,
    /// The length of what rounding took from a token's weights.
    lost: f32,
    /// The length of a token's rounded weights, less the mean.
    kept: f32,
}

/// Rows to multiply with, rounded.
struct RoundedRows {
    rows: bytes::Rows,
    /// What is put back to all logits of a row.
    lost: Vec<f32>,
    /// How far any logit of the row is off, at most.
    bounds: Vec<f32>,
}

impl Rounded {
    /// The output layer of a generator, rounded; none where the processor has no instruction
    /// for it, or where sums would not fit.
    pub fn of(generator: &dyn Generator, weights: &Weights) -> Option<Self> {
        let (matrix, bias) = (weights.get(generator.output().matrix)?, weights.get(generator.output().bias)?);
        Self::new(&matrix.values, &bias.values, matrix.shape[1])
    }

    /// `matrix` is `[vocab, columns]`, row-major, `bias` `[vocab]`.
    fn new(matrix: &[f32], bias: &[f32], columns: usize) -> Option<Self> {
        let fits = columns > 0 && columns <= bytes::LONGEST;
        if !fits || !bytes::can_multiply() || matrix.iter().chain(bias).any(|x| !x.is_finite()) {
            return None;
        }
        let (vocab, stride) = (matrix.len() / columns, columns.next_multiple_of(QUAD));
        let mut panels = vec![OFFSET as u8; vocab.next_multiple_of(PANEL) * stride];
        let mut factors = Vec::with_capacity(vocab);
        let mut most = Most::default();
        let mut probabilities = bias.to_vec();
        softmax(&mut probabilities);
        let mut mean = vec![0.0f32; columns];
        for (weights, p) in matrix.chunks_exact(columns).zip(probabilities) {
            add_scaled(&mut mean, p, weights);
        }
        for (token, weights) in matrix.chunks_exact(columns).enumerate() {
            let largest = weights.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let factor = if largest > 0.0 { largest / bytes::MOST } else { 1.0 };
            let panel = &mut panels[token / PANEL * PANEL * stride..];
            let (mut lost, mut kept) = (0.0f64, 0.0f64);
            for (column, &x) in weights.iter().enumerate() {
                let whole = (x / factor).round();
                panel[bytes::at(column, token % PANEL)] = (whole as i32 + OFFSET) as u8;
                lost += f64::from(x - whole * factor).powi(2);
                kept += f64::from(whole * factor - mean[column]).powi(2);
            }
            most = Most {
                factor: if largest > 0.0 { most.factor.max(factor) } else { most.factor },
                lost: most.lost.max(lost.sqrt() as f32),
                kept: most.kept.max(kept.sqrt() as f32),
            };
            factors.push(factor);
        }
        Some(Self { vocab, columns, stride, panels, factors, mean, most })
    }

    /// How far the logits of a row of this length are off, where a whole number of the row is worth `factor`.
    ///
    /// With weights `w + e` and a row `x + d` the product is off by `e·x + (w + e - m)·d`, where `m` is the mean, whose
    /// share is put back. Never by more than the lengths
    /// multiplied (Cauchy and Schwarz). And what rounding takes is spread evenly over a step of `f`, so that the sums
    /// have a variance of `f²/12` times the squared length of the other factor and no longer tails than a normal
    /// distribution's: seven of its standard deviations are passed once in 2·10¹⁰ logits.
    fn bound(&self, length: f32, factor: f32) -> f32 {
        let Most { factor: weight_factor, lost, kept } = self.most;
        let never = lost * length + kept * 0.5 * factor * (self.columns as f32).sqrt();
        let deviation = ((weight_factor * length).powi(2) + (factor * kept).powi(2)).sqrt() / 12f32.sqrt();
        // A hundredth more, for the rounding of the bound itself.
        1.01 * never.min(DEVIATIONS * deviation)
    }

    fn round(&self, rows: &[f32]) -> RoundedRows {
        let rounded = bytes::Rows::round(rows, self.columns);
        let mut lost = Vec::with_capacity(rounded.len());
        let mut bounds = Vec::with_capacity(rounded.len());
        for (i, row) in rows.chunks_exact(self.columns).enumerate() {
            let (wholes, factor) = rounded.get(i);
            let mut own = 0.0;
            vectorised(
                #[inline(always)]
                || {
                    for ((&x, &whole), mean) in row.iter().zip(wholes).zip(&self.mean) {
                        own += (x - f32::from(whole) * factor) * mean;
                    }
                },
            );
            lost.push(own);
            bounds.push(self.bound(dot(row, row).sqrt(), factor));
        }
        RoundedRows { rows: rounded, lost, bounds }
    }

    /// Tokens after every row that can be among its `exact` likeliest, and END, with their log probabilities, by token.
    ///
    /// `rows` is `[n, columns]`, `matrix` the weights that were rounded, `bias` `[vocab]`. A log probability is off by
    /// the rounding of the softmax's denominator, the same for all tokens of a row, and by no more.
    pub(crate) fn likeliest(&self, rows: &[f32], matrix: &[f32], bias: &[f32], exact: usize) -> Vec<Vec<(u32, f32)>> {
        assert_eq!((matrix.len(), bias.len()), (self.vocab * self.columns, self.vocab), "the layer that was rounded");
        rows.chunks(ROWS * self.columns).flat_map(|rows| self.likeliest_after(rows, matrix, bias, exact)).collect()
    }

    /// The same for as many rows as go through the layer together.
    fn likeliest_after(&self, rows: &[f32], matrix: &[f32], bias: &[f32], exact: usize) -> Vec<Vec<(u32, f32)>> {
        let n = rows.len() / self.columns;
        let rounded = self.round(rows);
        let starts: Vec<usize> = (0..self.vocab).step_by(self.vocab.div_ceil(BLOCKS).next_multiple_of(PANEL)).collect();
        let ends = starts.iter().copied().skip(1).chain([self.vocab]);
        let tokens: Vec<Range<usize>> = starts.iter().copied().zip(ends).map(|(first, end)| first..end).collect();
        let block = |tokens: &Range<usize>| self.block(tokens.clone(), &rounded, bias, exact);
        // Many rows come from many pictures, whose chunks keep the threads busy.
        let blocks: Vec<Vec<Summary>> = if n <= FEW_ROWS && n * self.vocab * self.columns >= PARALLEL_FROM {
            tokens.par_iter().map(block).collect()
        } else {
            tokens.iter().map(block).collect()
        };
        let mut found = Vec::with_capacity(n);
        for (r, row) in rows.chunks_exact(self.columns).enumerate() {
            let most = blocks.iter().fold(f32::NEG_INFINITY, |most, block| most.max(block[r].most));
            let mut sum: f32 = blocks.iter().map(|block| block[r].sum * exp(block[r].most - most)).sum();
            let mut values: Vec<f32> = blocks.iter().flat_map(|block| &block[r].best).map(|&(_, x)| x).collect();
            let nth = exact.min(values.len()) - 1;
            let floor = *values.select_nth_unstable_by(nth, |a, b| b.total_cmp(a)).1 - 2.0 * rounded.bounds[r];
            let best = blocks.iter().flat_map(|block| &block[r].best);
            let mut likely: Vec<(u32, f32)> = best.copied().filter(|&(token, x)| x >= floor || token == END).collect();
            for (token, x) in &mut likely {
                let own = &matrix[*token as usize * self.columns..][..self.columns];
                let logit = dot(row, own) + bias[*token as usize];
                sum += exp(logit - most) - exp(*x - most);
                *x = logit;
            }
            let log_sum = most + sum.ln();
            likely.iter_mut().for_each(|(_, x)| *x -= log_sum);
            found.push(likely);
        }
        found
    }

    /// What becomes of some tokens, from a multiple of [`PANEL`] on, after every row.
    fn block(&self, tokens: Range<usize>, rows: &RoundedRows, bias: &[f32], exact: usize) -> Vec<Summary> {
        let (n, width) = (rows.rows.len(), tokens.len().next_multiple_of(GROUP));
        let mut logits = vec![f32::NEG_INFINITY; n * width];
        let mut products = vec![0.0; n * PANEL];
        for first in tokens.clone().step_by(PANEL) {
            let panel = &self.panels[first * self.stride..(first + PANEL) * self.stride];
            rows.rows.multiply(0..n, panel, &[], &mut products);
            let last = (first + PANEL).min(tokens.end);
            let (factors, bias) = (&self.factors[first..last], &bias[first..last]);
            vectorised(
                #[inline(always)]
                || {
                    for (row, (products, lost)) in products.chunks_exact(PANEL).zip(&rows.lost).enumerate() {
                        let out = &mut logits[row * width + first - tokens.start..][..last - first];
                        for (((out, product), factor), bias) in out.iter_mut().zip(products).zip(factors).zip(bias) {
                            *out = product * factor + (bias + lost);
                        }
                    }
                },
            );
        }
        let rows = logits.chunks_exact(width).zip(&rows.bounds);
        rows.map(|(logits, &bound)| Summary::of(logits, tokens.start as u32, exact, 2.0 * bound)).collect()
    }
}

/// The rounded logits of some tokens after one row.
struct Summary {
    /// The largest.
    most: f32,
    /// `Σ exp(logit - most)`.
    sum: f32,
    /// Those that the best may be among, and END, by token.
    best: Vec<(u32, f32)>,
}

impl Summary {
    /// Keeps the `exact` best and what is at most `slack` below them; `first` is the token of the first logit. As many
    /// logits as fill [`GROUP`]s; those of no token are minus infinity.
    #[inline]
    fn of(logits: &[f32], first: u32, exact: usize, slack: f32) -> Self {
        let (groups, rest) = logits.as_chunks::<GROUP>();
        assert!(rest.is_empty(), "logits in groups of {GROUP}");
        // Of every 16th logit of a group: no sum over the lanes of a register.
        let mut largest_of: Vec<f32> = Vec::with_capacity(groups.len() * LANES);
        let mut top = Vec::with_capacity(4 * exact);
        let mut best: Vec<(u32, f32)> = Vec::with_capacity(4 * exact);
        let (most, sum) = vectorised(
            #[inline(always)]
            || {
                for group in groups {
                    let (lanes, _) = group.as_chunks::<LANES>();
                    let mut most = lanes[0];
                    for x in &lanes[1..] {
                        for lane in 0..LANES {
                            most[lane] = if x[lane] > most[lane] { x[lane] } else { most[lane] };
                        }
                    }
                    largest_of.extend_from_slice(&most);
                }
                let most = largest(&largest_of);
                (most, sum_of(logits, |x| exp(x - most)))
            },
        );
        let members = |set: usize| (set / LANES * GROUP + set % LANES..).step_by(LANES).take(GROUP / LANES);
        // As many sets as tokens are asked for hold something this large; so the best are no smaller.
        let enough = nth_largest(&mut largest_of.clone(), exact);
        for (set, _) in largest_of.iter().enumerate().filter(|(_, largest)| **largest >= enough) {
            top.extend(members(set).map(|i| logits[i]).filter(|&x| x >= enough));
        }
        let floor = (nth_largest(&mut top, exact) - slack).max(f32::MIN);
        for (set, _) in largest_of.iter().enumerate().filter(|(_, largest)| **largest >= floor) {
            let likely = members(set).map(|i| (first + i as u32, logits[i]));
            best.extend(likely.filter(|&(token, x)| x >= floor && token != END));
        }
        if let Some(&end) = END.checked_sub(first).and_then(|at| logits.get(at as usize)) {
            best.push((END, end));
        }
        best.sort_unstable_by_key(|&(token, _)| token);
        Self { most, sum, best }
    }
}

/// The `n`-th largest; minus infinity where there are fewer.
fn nth_largest(values: &mut [f32], n: usize) -> f32 {
    match values.len() < n {
        true => f32::NEG_INFINITY,
        false => *values.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a)).1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;
    use proptest::prelude::*;

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        random::uniform_values(&mut random::stream(seed, 0), n, 2.55)
    }

    fn log_softmax(logits: &[f64]) -> Vec<f64> {
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum = most + logits.iter().map(|x| (x - most).exp()).sum::<f64>().ln();
        logits.iter().map(|x| x - sum).collect()
    }

    proptest! {
        #[test]
        fn the_best_tokens_are_exact_and_the_others_near(
            rows in 1usize..12, columns in 1usize..70, vocab in 1usize..700, exact in 1usize..9, seed: u64,
        ) {
            let (matrix, bias) = (numbers(vocab * columns, seed), numbers(vocab, seed ^ 5));
            let hidden = numbers(rows * columns, seed ^ 6);
            let Some(rounded) = Rounded::new(&matrix, &bias, columns) else { return Ok(()) };
            let found = rounded.likeliest(&hidden, &matrix, &bias, exact);
            for (row, found) in hidden.chunks(columns).zip(found) {
                let product = |weights: &[f32]| -> f64 {
                    row.iter().zip(weights).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
                };
                let logits: Vec<f64> =
                    matrix.chunks(columns).zip(&bias).map(|(w, b)| product(w) + f64::from(*b)).collect();
                let expected = log_softmax(&logits);
                let mut order: Vec<usize> = (0..vocab).collect();
                order.sort_by(|&a, &b| expected[b].total_cmp(&expected[a]));
                prop_assert!(found.is_sorted_by_key(|&(token, _)| token));
                let of = |token: usize| found.iter().find(|&&(t, _)| t as usize == token).map(|&(_, p)| f64::from(p));
                let length = product(row).sqrt();
                let common = of(order[0]).unwrap() - expected[order[0]];
                prop_assert!(common.abs() < 0.05 * length + 1e-3, "{common}, length {length}");
                for &token in order[..exact.min(vocab)].iter().chain(&[0]) {
                    let off = of(token).unwrap() - expected[token];
                    prop_assert!((off - common).abs() < 1e-3, "{token}: off by {off}, {common}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_rounded_is_left_alone() {
        assert!(Rounded::new(&[f32::NAN, 1.0], &[0.0], 2).is_none());
        assert!(Rounded::new(&[0.0; 100_000], &[0.0], 100_000).is_none());
        let zeros = [0.0; 8];
        if let Some(rounded) = Rounded::new(&zeros, &[0.0; 2], 4) {
            let found = rounded.likeliest(&[0.0; 4], &zeros, &[0.0, 0.0], 1);
            assert!(found[0].iter().all(|(_, x)| (x - 0.5f32.ln()).abs() < 1e-6), "{found:?}");
        }
    }
}
