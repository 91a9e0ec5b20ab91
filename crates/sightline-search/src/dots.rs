//! Inner products of a few query vectors with many stored ones, in the widest instructions that this machine has.
//!
//! Stored vectors are f16, or int8 with a factor a vector. f16 is widened to f32 in registers and summed in f32. int8
//! is multiplied with query vectors of 11 bits and summed in whole numbers, so every machine gives the same bits; an
//! eighth of the stored step is lost by that, and no more.

#[cfg(target_arch = "x86_64")]
mod x86;

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Query vectors are rounded to `-QUERY_MOST..=QUERY_MOST` for int8.
pub(crate) const QUERY_MOST: f32 = 1023.0;

/// Rows are stored in multiples of this many numbers, the rest zero, so that no kernel has a tail.
pub(crate) const LANES: usize = 32;

/// Longest row: products of int8 with 11 bits still sum to less than 2³¹.
pub(crate) const LONGEST: usize = 16_384;

/// `out[row, word]` = product of stored row and query vector: rows `[n, stride]`, words `[n, stride]`, row-major.
pub(crate) fn dots_f16(rows: &[f16], words: &[f32], stride: usize, out: &mut [f32]) {
    let (n_rows, n_words) = sizes(rows.len(), words.len(), stride, out.len());
    #[cfg(target_arch = "x86_64")]
    if x86::dots_f16(rows, n_rows, words, n_words, stride, out) {
        return;
    }
    portable_f16(rows, n_rows, words, n_words, stride, out);
}

/// The same for int8 rows and query vectors within [`QUERY_MOST`].
pub(crate) fn dots_i8(rows: &[i8], words: &[i16], stride: usize, out: &mut [i32]) {
    let (n_rows, n_words) = sizes(rows.len(), words.len(), stride, out.len());
    #[cfg(target_arch = "x86_64")]
    if x86::dots_i8(rows, n_rows, words, n_words, stride, out) {
        return;
    }
    portable_i8(rows, n_rows, words, n_words, stride, out);
}

fn sizes(rows: usize, words: usize, stride: usize, out: usize) -> (usize, usize) {
    assert!(stride > 0 && stride.is_multiple_of(LANES) && stride <= LONGEST, "stride {stride}");
    assert!(
        rows.is_multiple_of(stride) && words.is_multiple_of(stride),
        "{rows} and {words} numbers, rows of {stride}"
    );
    let (n_rows, n_words) = (rows / stride, words / stride);
    assert_eq!(out, n_rows * n_words, "[{n_rows}, {n_words}]");
    (n_rows, n_words)
}

fn portable_f16(rows: &[f16], n_rows: usize, words: &[f32], n_words: usize, stride: usize, out: &mut [f32]) {
    let mut wide = vec![0.0f32; stride];
    for row in 0..n_rows {
        rows[row * stride..(row + 1) * stride].convert_to_f32_slice(&mut wide);
        for word in 0..n_words {
            let mut sums = [0.0f32; 16];
            for (a, b) in wide.chunks_exact(16).zip(words[word * stride..(word + 1) * stride].chunks_exact(16)) {
                for lane in 0..16 {
                    sums[lane] += a[lane] * b[lane];
                }
            }
            out[row * n_words + word] = sums.iter().sum();
        }
    }
}

fn portable_i8(rows: &[i8], n_rows: usize, words: &[i16], n_words: usize, stride: usize, out: &mut [i32]) {
    for row in 0..n_rows {
        let row_values = &rows[row * stride..(row + 1) * stride];
        for word in 0..n_words {
            let word_values = &words[word * stride..(word + 1) * stride];
            let products = row_values.iter().zip(word_values).map(|(&a, &b)| i32::from(a) * i32::from(b));
            out[row * n_words + word] = products.sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Kernel<A, B, C> = fn(&[A], usize, &[B], usize, usize, &mut [C]) -> bool;

    /// Every kernel that this machine can run, the portable one among them.
    fn kernels_f16() -> Vec<Kernel<f16, f32, f32>> {
        let mut all: Vec<Kernel<f16, f32, f32>> = vec![|r, n, w, m, s, o| {
            portable_f16(r, n, w, m, s, o);
            true
        }];
        #[cfg(target_arch = "x86_64")]
        all.extend([x86::avx512_f16 as Kernel<f16, f32, f32>, x86::avx2_f16]);
        all
    }

    fn kernels_i8() -> Vec<Kernel<i8, i16, i32>> {
        let mut all: Vec<Kernel<i8, i16, i32>> = Vec::new();
        #[cfg(target_arch = "x86_64")]
        all.extend([x86::avx512_i8 as Kernel<i8, i16, i32>, x86::avx2_i8]);
        all.push(|r, n, w, m, s, o| {
            portable_i8(r, n, w, m, s, o);
            true
        });
        all
    }

    fn numbers(n: usize, seed: u64, most: i64) -> Vec<i64> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as i64 % (2 * most + 1) - most
        };
        (0..n).map(|_| next()).collect()
    }

    fn slow(rows: &[i64], words: &[i64], stride: usize) -> Vec<i64> {
        let dot = |a: &[i64], b: &[i64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<i64>();
        rows.chunks(stride).flat_map(|row| words.chunks(stride).map(move |word| dot(row, word))).collect()
    }

    proptest! {
        #[test]
        fn every_kernel_agrees_with_one_product_at_a_time(
            n_rows in 0usize..11, n_words in 0usize..15, strides in 1usize..5, seed in any::<u64>(),
        ) {
            let stride = strides * LANES;
            // Small whole numbers: sums are exact in f32, so any order of adding gives the same bits.
            let (rows, words) = (numbers(n_rows * stride, seed, 20), numbers(n_words * stride, seed ^ 7, 50));
            let expected = slow(&rows, &words, stride);
            let halves: Vec<f16> = rows.iter().map(|&x| f16::from_f32(x as f32)).collect();
            let floats: Vec<f32> = words.iter().map(|&x| x as f32).collect();
            for kernel in kernels_f16() {
                let mut out = vec![f32::NAN; n_rows * n_words];
                if kernel(&halves, n_rows, &floats, n_words, stride, &mut out) {
                    prop_assert_eq!(out.iter().map(|&x| x as i64).collect::<Vec<_>>(), &expected[..]);
                }
            }
        }

        #[test]
        fn every_int8_kernel_gives_the_same_bits(
            n_rows in 0usize..11, n_words in 0usize..15, strides in 1usize..5, seed in any::<u64>(),
        ) {
            let stride = strides * LANES;
            let (rows, words) = (numbers(n_rows * stride, seed, 127), numbers(n_words * stride, seed ^ 7, 1023));
            let expected = slow(&rows, &words, stride);
            let bytes: Vec<i8> = rows.iter().map(|&x| x as i8).collect();
            let shorts: Vec<i16> = words.iter().map(|&x| x as i16).collect();
            for kernel in kernels_i8() {
                let mut out = vec![i32::MIN; n_rows * n_words];
                if kernel(&bytes, n_rows, &shorts, n_words, stride, &mut out) {
                    prop_assert_eq!(out.iter().map(|&x| i64::from(x)).collect::<Vec<_>>(), &expected[..]);
                }
            }
        }
    }

    #[test]
    fn the_largest_sums_do_not_overflow() {
        for kernel in kernels_i8() {
            let mut out = [0];
            if kernel(&vec![-127; LONGEST], 1, &vec![QUERY_MOST as i16; LONGEST], 1, LONGEST, &mut out) {
                assert_eq!(i64::from(out[0]), -127 * 1023 * LONGEST as i64);
            }
        }
    }
}
