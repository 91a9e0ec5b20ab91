//! Vectors rounded to bytes, multiplied by the instructions for them: four times as many products as f32 in the same time,
//! for those who know how far a rounded product can be off and look again where that matters.
//!
//! One factor is signed and lies row after row. The other has [`OFFSET`] added, since the instruction wants one side
//! without sign, and lies in panels of [`PANEL`] vectors, so that one load reads the same [`QUAD`] columns of many.

#[cfg(target_arch = "x86_64")]
mod x86;

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

/// Rounds a vector of finite numbers, and tells what one of the whole numbers is worth and what they sum to. `wholes` may be
/// longer; the rest stays as it is.
pub fn round(x: &[f32], wholes: &mut [i8]) -> (f32, i32) {
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

/// Whether this processor has an instruction that multiplies and sums bytes.
pub fn can_multiply() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::can_multiply();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// `sums[row, i] = Σ panel[i] · rows[row]`: a panel of vectors of length `stride`, `rows` `[rows, stride]`, `sums`
/// `[rows, PANEL]`. Only where the processor [can](can_multiply).
pub fn multiply(panel: &[u8], rows: &[i8], stride: usize, sums: &mut [i32]) {
    #[cfg(target_arch = "x86_64")]
    x86::multiply(panel, rows, stride, sums);
    #[cfg(not(target_arch = "x86_64"))]
    slow_multiply(panel, rows, stride, sums);
}

/// The same, one product at a time.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn slow_multiply(panel: &[u8], rows: &[i8], stride: usize, sums: &mut [i32]) {
    for (row, sums) in sums.chunks_exact_mut(PANEL).enumerate() {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = (0..stride)
                .map(|column| i32::from(panel[at(column, i)]) * i32::from(rows[row * stride + column]))
                .sum();
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

    proptest! {
        #[test]
        #[cfg(target_arch = "x86_64")]
        fn every_kernel_agrees_with_one_product_at_a_time(rows in 0usize..20, quads in 1usize..40, seed: u64) {
            let stride = quads * QUAD;
            let panel = bytes(PANEL * stride, seed);
            let wholes: Vec<i8> = bytes(rows * stride, seed ^ 1).into_iter().map(|x| x as i8).collect();
            let mut expected = vec![0; rows * PANEL];
            slow_multiply(&panel, &wholes, stride, &mut expected);
            for kernel in x86::KERNELS {
                let mut sums = vec![7; rows * PANEL];
                if kernel(&panel, &wholes, stride, &mut sums) {
                    prop_assert_eq!(&sums, &expected);
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
