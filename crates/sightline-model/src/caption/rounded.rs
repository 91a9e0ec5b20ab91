//! The output layer at a fraction of its cost, for decoding: all logits from weights rounded to 8 bits, and those that
//! may win from the weights themselves.
//!
//! Beam search asks for a few tokens of thousands at every step, and reading the layer's weights is most of its work.
//! Rounded, they are a quarter as long, and whole numbers multiply four times as fast. How far a rounded logit can be
//! off is known (Cauchy and Schwarz), so the best tokens are found exactly; only the sum in the softmax's denominator
//! keeps the rounding of the tokens that are out of the race.

#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

use rayon::prelude::*;

use super::END;
use super::generator::Generator;
use crate::matrix::{dot, exp, largest, sum_of, vectorised};
use crate::weights::Weights;

/// Rows whose weights lie together, so that one load reads the same four columns of many.
const PANEL: usize = 32;
/// Columns that one instruction multiplies.
const QUAD: usize = 4;
/// Parts of the vocabulary that threads take; always as many, so that sums never depend on the threads.
const BLOCKS: usize = 4;
/// So few rows are shared by the threads.
const FEW_ROWS: usize = 16;
/// Weights are rounded to `-WEIGHT_MOST..=WEIGHT_MOST`, and stored with this much added.
const WEIGHT_MOST: f32 = 127.0;
const OFFSET: i32 = 128;
/// What is multiplied with them is rounded to `-ROW_MOST..=ROW_MOST`, cut into a high and a low part.
const ROW_MOST: f32 = 16_383.0;
const LOW_BITS: u32 = 7;
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
    /// Largest length of the rounding of a token's weights, and of a token's rounded weights.
    most: (f32, f32),
}

/// Rows to multiply with, rounded and cut.
struct Cut {
    /// `[rows, stride]` each.
    high: Vec<i8>,
    low: Vec<i8>,
    /// Sum of each row's whole numbers, times [`OFFSET`]: what the weights' offset adds to every product.
    shifts: Vec<i32>,
    factors: Vec<f32>,
    /// How far any logit of the row can be off.
    bounds: Vec<f32>,
}

impl Rounded {
    /// The output layer of a generator, rounded; none where the processor has no instruction
    /// for it, or where sums would not fit.
    pub fn of(generator: &dyn Generator, weights: &Weights) -> Option<Self> {
        let matrix = weights.get(generator.output().matrix)?;
        Self::new(&matrix.values, matrix.shape[1])
    }

    /// `matrix` is `[vocab, columns]`, row-major.
    fn new(matrix: &[f32], columns: usize) -> Option<Self> {
        let fits = columns > 0 && columns <= (i32::MAX as f32 / (WEIGHT_MOST * ROW_MOST)) as usize;
        if !fits || !can_multiply() || matrix.iter().any(|x| !x.is_finite()) {
            return None;
        }
        let (vocab, stride) = (matrix.len() / columns, columns.next_multiple_of(QUAD));
        let mut panels = vec![OFFSET as u8; vocab.next_multiple_of(PANEL) * stride];
        let mut factors = Vec::with_capacity(vocab);
        let mut most = (0.0f32, 0.0f32);
        for (token, weights) in matrix.chunks_exact(columns).enumerate() {
            let factor = weights.iter().fold(0.0f32, |most, x| most.max(x.abs())) / WEIGHT_MOST;
            let factor = if factor > 0.0 { factor } else { 1.0 };
            let panel = &mut panels[token / PANEL * PANEL * stride..];
            let (mut lost, mut kept) = (0.0f64, 0.0f64);
            for (column, &x) in weights.iter().enumerate() {
                let whole = (x / factor).round();
                panel[column / QUAD * QUAD * PANEL + token % PANEL * QUAD + column % QUAD] =
                    (whole as i32 + OFFSET) as u8;
                lost += f64::from(x - whole * factor).powi(2);
                kept += f64::from(whole * factor).powi(2);
            }
            most = (most.0.max(lost.sqrt() as f32), most.1.max(kept.sqrt() as f32));
            factors.push(factor);
        }
        Some(Self { vocab, columns, stride, panels, factors, most })
    }

    fn cut(&self, rows: &[f32]) -> Cut {
        let n = rows.len() / self.columns;
        let mut cut = Cut {
            high: vec![0; n * self.stride],
            low: vec![0; n * self.stride],
            shifts: Vec::with_capacity(n),
            factors: Vec::with_capacity(n),
            bounds: Vec::with_capacity(n),
        };
        let places = cut.high.chunks_exact_mut(self.stride).zip(cut.low.chunks_exact_mut(self.stride));
        for (row, (high, low)) in rows.chunks_exact(self.columns).zip(places) {
            let most = row.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let factor = if most > 0.0 { most / ROW_MOST } else { 1.0 };
            let mut sum = 0i32;
            vectorised(
                #[inline(always)]
                || {
                    for ((&x, high), low) in row.iter().zip(high).zip(low) {
                        let whole = (x / factor).round_ties_even() as i32;
                        *high = (whole >> LOW_BITS) as i8;
                        *low = (whole & ((1 << LOW_BITS) - 1)) as i8;
                        sum = sum.wrapping_add(whole);
                    }
                },
            );
            cut.shifts.push(sum.wrapping_mul(OFFSET));
            cut.factors.push(factor);
            let length = dot(row, row).sqrt();
            let rounding = 0.5 * factor * (self.columns as f32).sqrt();
            // A hundredth more, for the rounding of the bound itself.
            cut.bounds.push(1.01 * (self.most.0 * (length + rounding) + self.most.1 * rounding));
        }
        cut
    }

    /// Tokens after every row that can be among its `exact` likeliest, and END, with their log probabilities, by token.
    ///
    /// `rows` is `[n, columns]`, `matrix` the weights that were rounded, `bias` `[vocab]`. A log probability is off by
    /// the rounding of the softmax's denominator, the same for all tokens of a row, and by no more.
    pub(crate) fn likeliest(&self, rows: &[f32], matrix: &[f32], bias: &[f32], exact: usize) -> Vec<Vec<(u32, f32)>> {
        assert_eq!((matrix.len(), bias.len()), (self.vocab * self.columns, self.vocab), "the layer that was rounded");
        let n = rows.len() / self.columns;
        let cut = self.cut(rows);
        let starts: Vec<usize> = (0..self.vocab).step_by(self.vocab.div_ceil(BLOCKS).next_multiple_of(PANEL)).collect();
        let ends = starts.iter().copied().skip(1).chain([self.vocab]);
        let tokens: Vec<Range<usize>> = starts.iter().copied().zip(ends).map(|(first, end)| first..end).collect();
        let block = |tokens: &Range<usize>| self.block(tokens.clone(), &cut, bias, exact);
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
            let floor = *values.select_nth_unstable_by(nth, |a, b| b.total_cmp(a)).1 - 2.0 * cut.bounds[r];
            let best = blocks.iter().flat_map(|block| &block[r].best);
            let mut likely: Vec<(u32, f32)> = best.copied().filter(|&(token, x)| x >= floor || token == END).collect();
            vectorised(
                #[inline(always)]
                || {
                    for (token, x) in &mut likely {
                        let own = &matrix[*token as usize * self.columns..][..self.columns];
                        let logit = dot(row, own) + bias[*token as usize];
                        sum += exp(logit - most) - exp(*x - most);
                        *x = logit;
                    }
                },
            );
            let log_sum = most + sum.ln();
            likely.iter_mut().for_each(|(_, x)| *x -= log_sum);
            found.push(likely);
        }
        found
    }

    /// What becomes of some tokens, from a multiple of [`PANEL`] on, after every row.
    fn block(&self, tokens: Range<usize>, cut: &Cut, bias: &[f32], exact: usize) -> Vec<Summary> {
        let (n, width) = (cut.factors.len(), tokens.len());
        let mut logits = vec![0.0; n * width];
        let mut sums = vec![0i32; n * PANEL];
        for first in tokens.clone().step_by(PANEL) {
            let panel = &self.panels[first * self.stride..(first + PANEL) * self.stride];
            multiply(panel, &cut.high, &cut.low, self.stride, &mut sums);
            let last = (first + PANEL).min(tokens.end);
            let (factors, bias) = (&self.factors[first..last], &bias[first..last]);
            vectorised(
                #[inline(always)]
                || {
                    for (row, sums) in sums.chunks_exact(PANEL).enumerate() {
                        let (shift, factor) = (cut.shifts[row], cut.factors[row]);
                        let out = &mut logits[row * width + first - tokens.start..][..last - first];
                        for (((out, &sum), own), bias) in out.iter_mut().zip(sums).zip(factors).zip(bias) {
                            *out = sum.wrapping_sub(shift) as f32 * (factor * own) + bias;
                        }
                    }
                },
            );
        }
        let rows = logits.chunks_exact(width).zip(&cut.bounds);
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
    /// Keeps the `exact` best and what is at most `slack` below them; `first` is the token of the first logit.
    #[inline]
    fn of(logits: &[f32], first: u32, exact: usize, slack: f32) -> Self {
        let mut largest_of: Vec<f32> = Vec::with_capacity(logits.len().div_ceil(CHUNK));
        let (mut top, mut best) = (Vec::with_capacity(4 * exact), Vec::with_capacity(4 * exact));
        vectorised(
            #[inline(always)]
            || {
                largest_of.extend(logits.chunks(CHUNK).map(largest));
                let most = largest(&largest_of);
                let sum = sum_of(logits, |x| exp(x - most));
                // As many chunks as tokens are asked for hold something this large; so the best are no smaller.
                let enough = nth_largest(&mut largest_of.clone(), exact);
                for (chunk, _) in logits.chunks(CHUNK).zip(&largest_of).filter(|(_, largest)| **largest >= enough) {
                    top.extend(chunk.iter().filter(|&&x| x >= enough));
                }
                let floor = nth_largest(&mut top, exact) - slack;
                let chunks = logits.chunks(CHUNK).zip(&largest_of).zip((first..).step_by(CHUNK));
                for ((chunk, largest), first) in chunks {
                    let holds_end = (first..first + chunk.len() as u32).contains(&END);
                    if holds_end || *largest >= floor {
                        let likely = chunk.iter().zip(first..).filter(|&(&x, token)| x >= floor || token == END);
                        best.extend(likely.map(|(&x, token)| (token, x)));
                    }
                }
                Self { most, sum, best }
            },
        )
    }
}

/// The `n`-th largest; minus infinity where there are fewer.
fn nth_largest(values: &mut [f32], n: usize) -> f32 {
    match values.len() < n {
        true => f32::NEG_INFINITY,
        false => *values.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a)).1,
    }
}

/// Numbers that are passed over at once where none of them is large enough.
const CHUNK: usize = 64;

/// Whether this processor has an instruction that multiplies and sums bytes.
fn can_multiply() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::can_multiply();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// `sums[row, i] = Σ panel[i] · (high · 2^LOW_BITS + low)[row]`: a panel, `high` and `low` `[rows, stride]`, `sums`
/// `[rows, PANEL]`.
fn multiply(panel: &[u8], high: &[i8], low: &[i8], stride: usize, sums: &mut [i32]) {
    #[cfg(target_arch = "x86_64")]
    x86::multiply(panel, high, low, stride, sums);
    #[cfg(not(target_arch = "x86_64"))]
    slow_multiply(panel, high, low, stride, sums);
}

/// The same, one product at a time.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn slow_multiply(panel: &[u8], high: &[i8], low: &[i8], stride: usize, sums: &mut [i32]) {
    for (row, sums) in sums.chunks_exact_mut(PANEL).enumerate() {
        for (token, sum) in sums.iter_mut().enumerate() {
            *sum = 0;
            for column in 0..stride {
                let weight = i32::from(panel[column / QUAD * QUAD * PANEL + token * QUAD + column % QUAD]);
                let at = row * stride + column;
                let whole = (i32::from(high[at]) << LOW_BITS) + i32::from(low[at]);
                *sum = sum.wrapping_add(weight * whole);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(n: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as u8
        };
        (0..n).map(|_| next()).collect()
    }

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        bytes(n, seed)
            .into_iter()
            .zip(bytes(n, seed ^ 99))
            .map(|(a, b)| (f32::from(a) - f32::from(b)) / 100.0)
            .collect()
    }

    fn log_softmax(logits: &[f64]) -> Vec<f64> {
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum = most + logits.iter().map(|x| (x - most).exp()).sum::<f64>().ln();
        logits.iter().map(|x| x - sum).collect()
    }

    proptest! {
        #[test]
        #[cfg(target_arch = "x86_64")]
        fn every_kernel_agrees_with_one_product_at_a_time(rows in 0usize..20, quads in 1usize..40, seed: u64) {
            let stride = quads * QUAD;
            let panel = bytes(PANEL * stride, seed);
            let high: Vec<i8> = bytes(rows * stride, seed ^ 1).into_iter().map(|x| x as i8).collect();
            let low: Vec<i8> = bytes(rows * stride, seed ^ 2).into_iter().map(|x| (x & 127) as i8).collect();
            let mut expected = vec![0; rows * PANEL];
            slow_multiply(&panel, &high, &low, stride, &mut expected);
            for kernel in x86::KERNELS {
                let mut sums = vec![7; rows * PANEL];
                if kernel(&panel, &high, &low, stride, &mut sums) {
                    prop_assert_eq!(&sums, &expected);
                }
            }
        }

        #[test]
        fn the_best_tokens_are_exact_and_the_others_near(
            rows in 1usize..12, columns in 1usize..70, vocab in 1usize..700, exact in 1usize..9, seed: u64,
        ) {
            let (matrix, bias) = (numbers(vocab * columns, seed), numbers(vocab, seed ^ 5));
            let hidden = numbers(rows * columns, seed ^ 6);
            let Some(rounded) = Rounded::new(&matrix, columns) else { return Ok(()) };
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
        assert!(Rounded::new(&[f32::NAN, 1.0], 2).is_none());
        assert!(Rounded::new(&[0.0; 2000], 2000).is_none());
        let zeros = [0.0; 8];
        if let Some(rounded) = Rounded::new(&zeros, 4) {
            let found = rounded.likeliest(&[0.0; 4], &zeros, &[0.0, 0.0], 1);
            assert!(found[0].iter().all(|(_, x)| (x - 0.5f32.ln()).abs() < 1e-6), "{found:?}");
        }
    }
}
