//! Vectors rounded to bytes, multiplied by the instructions for them: four times as many products as f32 in the same time,
//! for those who know how far a rounded product can be off and look again where that matters.
//!
//! One factor is signed and lies row after row. The other has [`OFFSET`] added, since the instruction wants one side
//! without sign, and lies in panels of [`PANEL`] vectors, so that one load reads the same [`QUAD`] columns of many.

#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

use crate::simd::{nearest, vectorised};

/// Vectors of a panel.
pub const PANEL: usize = 32;
/// Columns that one instruction multiplies; rows are as long as a multiple of it, the rest zero.
pub const QUAD: usize = 4;
/// Vectors are rounded to `-MOST..=MOST`.
pub const MOST: f32 = 127.0;
/// What is added to the numbers of a panel.
pub const OFFSET: i32 = 128;
/// Longest vector whose products sum to less than 2³¹.
pub const LONGEST: usize = i32::MAX as usize / (255 * 127);
/// No rounded product is taken to be off by more of its standard deviations than this. What rounding takes is spread evenly
/// over a step `f`, so that a sum of its products with `x` has a variance of `f²/12 · |x|²` and no longer tails than a
/// normal distribution's (Hoeffding): seven deviations are passed once in 2·10¹⁰ products.
pub const DEVIATIONS: f32 = 7.0;

/// Where column `column` of vector `i` of a panel lies.
#[inline(always)]
pub fn at(column: usize, i: usize) -> usize {
    column / QUAD * QUAD * PANEL + i * QUAD + column % QUAD
}

/// Whether this processor has an instruction that multiplies and sums bytes.
pub fn can_multiply() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::can_multiply();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Rows of finite numbers, rounded.
pub struct Rows {
    /// `[rows, stride]`.
    wholes: Vec<i8>,
    stride: usize,
    worths: Vec<Worth>,
}

/// What the products of bytes with a row are worth.
#[derive(Clone, Copy)]
struct Worth {
    /// What one of the row's whole numbers is worth.
    factor: f32,
    /// What the panel's [`OFFSET`] adds to every product.
    shift: i32,
}

impl Rows {
    /// Rounds `rows`, `[n, columns]`.
    pub fn round(rows: &[f32], columns: usize) -> Self {
        let stride = columns.next_multiple_of(QUAD);
        let mut wholes = vec![0; rows.len() / columns * stride];
        let worth = |(wholes, row): (&mut [i8], &[f32])| {
            let (factor, sum) = round(row, wholes);
            Worth { factor, shift: sum * OFFSET }
        };
        let worths = wholes.chunks_exact_mut(stride).zip(rows.chunks_exact(columns)).map(worth).collect();
        Self { wholes, stride, worths }
    }

    /// The length of a row, a multiple of [`QUAD`].
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.worths.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.worths.is_empty()
    }

    /// The whole numbers of a row, and what one of them is worth.
    pub fn get(&self, row: usize) -> (&[i8], f32) {
        (&self.wholes[row * self.stride..][..self.stride], self.worths[row].factor)
    }

    /// Products of some rows with a panel, `[rows, PANEL]`, in units of the panel's whole numbers. What is read `soon` is
    /// fetched from memory meanwhile. Only where the processor [can](can_multiply).
    pub fn multiply(&self, rows: Range<usize>, panel: &[u8], soon: &[f32], products: &mut [f32]) {
        let stride = self.stride;
        let wholes = &self.wholes[rows.start * stride..rows.end * stride];
        let factors = Factors { panel, rows: wholes, stride, worths: &self.worths[rows], soon };
        #[cfg(target_arch = "x86_64")]
        x86::multiply(&factors, products);
        #[cfg(not(target_arch = "x86_64"))]
        slow_multiply(&factors, products);
    }
}

/// What is to be multiplied.
struct Factors<'a> {
    panel: &'a [u8],
    /// `[rows, stride]`.
    rows: &'a [i8],
    stride: usize,
    /// One a row.
    worths: &'a [Worth],
    /// What is read next.
    soon: &'a [f32],
}

/// Products one at a time.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn slow_multiply(factors: &Factors<'_>, products: &mut [f32]) {
    let Factors { panel, rows, stride, worths, .. } = *factors;
    let rows = rows.chunks_exact(stride).zip(worths);
    for ((row, Worth { factor, shift }), products) in rows.zip(products.chunks_exact_mut(PANEL)) {
        for (i, product) in products.iter_mut().enumerate() {
            let sum: i32 = (0..stride).map(|column| i32::from(panel[at(column, i)]) * i32::from(row[column])).sum();
            *product = (sum - shift) as f32 * factor;
        }
    }
}

/// Rounds a vector of finite numbers, and tells what one of the whole numbers is worth and what they sum to. `wholes` may be
/// longer; the rest stays as it is.
pub(crate) fn round(x: &[f32], wholes: &mut [i8]) -> (f32, i32) {
    let most = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let factor = if most > 0.0 { most / MOST } else { 1.0 };
    let mut sum = 0;
    vectorised(
        #[inline(always)]
        || {
            for (&x, whole) in x.iter().zip(wholes) {
                *whole = nearest(x / factor) as i8;
                sum += i32::from(*whole);
            }
        },
    );
    (factor, sum)
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

    proptest! {
        #[test]
        #[cfg(target_arch = "x86_64")]
        fn every_kernel_agrees_with_one_product_at_a_time(rows in 0usize..20, quads in 1usize..40, seed: u64) {
            let stride = quads * QUAD;
            let panel = bytes(PANEL * stride, seed);
            let wholes: Vec<i8> = bytes(rows * stride, seed ^ 1).into_iter().map(|x| x as i8).collect();
            let worths: Vec<Worth> =
                (0..rows).map(|row| Worth { factor: 0.1 + row as f32, shift: 1000 * row as i32 }).collect();
            let factors = Factors { panel: &panel, rows: &wholes, stride, worths: &worths, soon: &[1.0; 50] };
            let mut expected = vec![0.0; rows * PANEL];
            slow_multiply(&factors, &mut expected);
            for kernel in x86::KERNELS {
                let mut products = vec![f32::NAN; rows * PANEL];
                if kernel(&factors, &mut products) {
                    prop_assert_eq!(&products, &expected);
                }
            }
        }
    }

    #[test]
    fn rounding_keeps_the_largest_and_tells_the_sum() {
        let mut wholes = [9; 5];
        assert_eq!(round(&[2.54, -1.3, 0.0, 0.06], &mut wholes), (0.02, 65));
        assert_eq!(wholes, [127, -65, 0, 3, 9]);
        assert_eq!(round(&[0.0; 2], &mut wholes), (1.0, 0));
    }
}
