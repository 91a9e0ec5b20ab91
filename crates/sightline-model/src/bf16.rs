//! Matrix products whose factors are rounded to bfloat16 (8 bits of precision) and whose sums are f32: about half the
//! time of an f32 product where the processor multiplies such numbers itself, and good enough for gradients, whose noise
//! from batch to batch is far above it.
//!
//! A factor is first brought to [`Panels`]: pairs of neighbours along the length that is summed over, in the order in
//! which the kernel reads them.

#[cfg(target_arch = "x86_64")]
mod x86;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::matrix::{Factor, vectorised};

/// How exactly training multiplies large matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Factors and sums are f32.
    F32,
    /// Factors are rounded to bfloat16 where the processor multiplies these itself (AVX-512 with BF16); sums are f32.
    /// Elsewhere as [`Precision::F32`].
    Bf16,
}

impl Precision {
    /// Whether products are rounded, on this processor.
    pub fn rounds(self) -> bool {
        self == Self::Bf16 && can_multiply()
    }
}

/// Rows of a left factor in a panel.
const ROWS: usize = 12;
/// Columns of a right factor in a panel.
const COLUMNS: usize = 32;
/// Panels that are packed together: they are neighbours in the matrix's rows.
const TOGETHER: usize = 8;

/// A factor of a product: panel after panel, in each pair after pair along the sum, in each a number for every row (or
/// column) of the panel, the first of the pair in its lower half. What lies past the matrix's edge is 0.
#[derive(Debug)]
pub(crate) struct Panels {
    /// Rows of a left, columns of a right factor.
    n: usize,
    /// Terms of a sum.
    k: usize,
    pairs: usize,
    values: Vec<u32>,
}

impl Panels {
    /// Of a left factor of `[m, k]`.
    pub(crate) fn left(factor: Factor<'_>, m: usize, k: usize) -> Self {
        match factor {
            Factor::Plain(values) => Self::along::<ROWS>(values, m, k),
            Factor::Transposed(values) => Self::across::<ROWS>(values, m, k),
        }
    }

    /// Of a right factor of `[k, n]`.
    pub(crate) fn right(factor: Factor<'_>, k: usize, n: usize) -> Self {
        match factor {
            Factor::Plain(values) => Self::across::<COLUMNS>(values, n, k),
            Factor::Transposed(values) => Self::along::<COLUMNS>(values, n, k),
        }
    }

    fn empty<const WIDTH: usize>(n: usize, k: usize) -> Self {
        let pairs = k.div_ceil(2);
        Self { n, k, pairs, values: vec![0; n.div_ceil(WIDTH) * WIDTH * pairs] }
    }

    /// From `[n, k]`, row by row: a pair lies in one row.
    fn along<const WIDTH: usize>(values: &[f32], n: usize, k: usize) -> Self {
        /// Pairs of all the panel's rows at once, which the nearest cache holds twice.
        const BLOCK: usize = 16;
        assert_eq!(values.len(), n * k, "factor of [{n}, {k}]");
        let mut panels = Self::empty::<WIDTH>(n, k);
        let rows = values.par_chunks(WIDTH * k);
        panels.values.par_chunks_mut(WIDTH * panels.pairs).zip(rows).for_each(|(panel, rows)| {
            vectorised(
                #[inline(always)]
                || {
                    let mut block = [[0; BLOCK]; WIDTH];
                    for (i, panel) in panel.chunks_mut(WIDTH * BLOCK).enumerate() {
                        let columns = 2 * BLOCK * i..k.min(2 * BLOCK * (i + 1));
                        for (row, block) in rows.chunks_exact(k).zip(&mut block) {
                            let (two, last) = row[columns.clone()].as_chunks::<2>();
                            for (pair, &[low, high]) in block.iter_mut().zip(two) {
                                *pair = rounded(low) | rounded(high) << 16;
                            }
                            if let &[low] = last {
                                block[two.len()] = rounded(low);
                            }
                        }
                        for (at, pairs) in panel.chunks_exact_mut(WIDTH).enumerate() {
                            for (pair, block) in pairs.iter_mut().zip(&block) {
                                *pair = block[at];
                            }
                        }
                    }
                },
            );
        });
        panels
    }

    /// From `[k, n]`, row by row: a pair lies in two rows, one above the other.
    fn across<const WIDTH: usize>(values: &[f32], n: usize, k: usize) -> Self {
        assert_eq!(values.len(), k * n, "factor of [{k}, {n}]");
        let mut panels = Self::empty::<WIDTH>(n, k);
        let size = WIDTH * panels.pairs;
        panels.values.par_chunks_mut(size * TOGETHER).enumerate().for_each(|(group, group_panels)| {
            vectorised(
                #[inline(always)]
                || {
                    let first = group * WIDTH * TOGETHER;
                    let columns = first..n.min(first + WIDTH * TOGETHER);
                    for (at, rows) in values.chunks(2 * n).enumerate() {
                        let (low, high) = rows.split_at(n);
                        let low = low[columns.clone()].chunks(WIDTH);
                        for (i, (panel, low)) in group_panels.chunks_exact_mut(size).zip(low).enumerate() {
                            let pairs = panel[at * WIDTH..(at + 1) * WIDTH].iter_mut().zip(low);
                            if high.is_empty() {
                                pairs.for_each(|(pair, &low)| *pair = rounded(low)); // the last row, without another
                            } else {
                                for ((pair, &low), &high) in pairs.zip(&high[columns.start + i * WIDTH..]) {
                                    *pair = rounded(low) | rounded(high) << 16;
                                }
                            }
                        }
                    }
                },
            );
        });
        panels
    }
}

/// The upper half of the nearest number whose lower half is 0; of two as near, the even one. What is no number stays none.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    // What overflows is no number.
    let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if x.is_nan() { 0x7fc0 } else { nearest }
}

/// Whether [`multiply`] runs here.
pub(crate) fn can_multiply() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::can_multiply();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// `out = left · right`, or `out += left · right` with `adds`, on all threads; only where [`can_multiply`]. How many
/// threads there are changes nothing in the sums.
pub(crate) fn multiply(left: &Panels, right: &Panels, out: &mut [f32], adds: bool) {
    assert_eq!(left.k, right.k, "terms of a sum");
    assert_eq!(out.len(), left.n * right.n, "product of [{}, {}]", left.n, right.n);
    #[cfg(target_arch = "x86_64")]
    x86::multiply(left, right, out, adds);
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("asked for products that this processor cannot make");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    fn nearest(x: f32) -> f32 {
        f32::from_bits(rounded(x) << 16)
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest() {
        let check = |x: f32, expected: f32| assert_eq!(nearest(x).to_bits(), expected.to_bits(), "{x}");
        check(0.0, 0.0);
        check(-1.5, -1.5);
        check(1.0 + 1.0 / 256.0, 1.0); // halfway, to the even one below
        check(1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0); // halfway, to the even one above
        check(1.0 + 1.1 / 256.0, 1.0 + 2.0 / 256.0);
        check(f32::MAX, f32::INFINITY);
        check(f32::NEG_INFINITY, f32::NEG_INFINITY);
        assert!(nearest(f32::NAN).is_nan());
        assert!([0x7fff_ffff, 0xff80_0001, u32::MAX].iter().all(|&bits| nearest(f32::from_bits(bits)).is_nan()));
    }

    #[test]
    fn products_agree_with_three_loops_over_rounded_factors() {
        if !can_multiply() {
            return assert!(!Precision::Bf16.rounds());
        }
        for [m, k, n] in
            [[1, 1, 1], [4, 2, 32], [13, 7, 33], [40, 65, 300], [100, 1200, 70], [250, 31, 16], [12, 1025, 49]]
        {
            let mut rng = random::stream(7, (m * k * n) as u64);
            let [a, b] = [m * k, k * n].map(|size| random::uniform_values(&mut rng, size, 1.0));
            let before = random::uniform_values(&mut rng, m * n, 1.0);
            let turned = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                (0..columns).flat_map(|c| (0..rows).map(move |r| x[r * columns + c])).collect()
            };
            let (a_turned, b_turned) = (turned(&a, m, k), turned(&b, k, n));
            let term =
                |i: usize, l: usize, j: usize| f64::from(nearest(a[i * k + l])) * f64::from(nearest(b[l * n + j]));
            let expected: Vec<f64> = (0..m * n).map(|at| (0..k).map(|l| term(at / n, l, at % n)).sum()).collect();
            for left in [Factor::Plain(&a), Factor::Transposed(&a_turned)] {
                for right in [Factor::Plain(&b), Factor::Transposed(&b_turned)] {
                    let (left, right) = (Panels::left(left, m, k), Panels::right(right, k, n));
                    for adds in [false, true] {
                        let mut out = if adds { before.clone() } else { vec![f32::NAN; m * n] };
                        multiply(&left, &right, &mut out, adds);
                        for ((&got, &sum), &before) in out.iter().zip(&expected).zip(&before) {
                            let expected = sum + if adds { f64::from(before) } else { 0.0 };
                            let error = (f64::from(got) - expected).abs();
                            assert!(error <= 1e-6 * (k as f64).max(4.0), "[{m}, {k}, {n}]: {got}, not {expected}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn threads_change_nothing() {
        if !can_multiply() {
            return assert!(!Precision::Bf16.rounds());
        }
        let [m, k, n] = [300, 700, 500];
        let mut rng = random::stream(8, 0);
        let [a, b] = [m * k, k * n].map(|size| random::uniform_values(&mut rng, size, 1.0));
        let product = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut out = vec![0.0; m * n];
                multiply(
                    &Panels::left(Factor::Plain(&a), m, k),
                    &Panels::right(Factor::Plain(&b), k, n),
                    &mut out,
                    false,
                );
                out
            })
        };
        assert_eq!(product(1), product(7));
    }
}
