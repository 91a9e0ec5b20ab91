//! The kernels of x86-64: AVX-512 (with VNNI for int8), or AVX2 with FMA and F16C; detected when the program runs.
//!
//! A block of rows and query vectors is held in registers while both are read once along their length.
#![expect(unsafe_code, reason = "vector loads by address; lengths are asserted first, instructions are detected first")]

use std::arch::x86_64::*;

use half::f16;

/// Query vectors of a block.
const WORDS: usize = 6;

/// Writes one kernel: its instructions, how many rows a block has, how a step of both vectors is loaded, multiplied
/// and summed.
macro_rules! kernel {
    (
        $name:ident, $features:literal, $rows:literal, $step:literal, $row:ty, $word:ty, $out:ty,
        $zero:expr, |$row_at:ident| $load_row:expr, |$word_at:ident| $load_word:expr,
        |$sum:ident, $x:ident, $y:ident| $multiply_add:expr, |$lanes:ident| $reduce:expr
    ) => {
        mod $name {
            use super::*;

            /// `R` rows with `W` query vectors.
            ///
            /// # Safety
            /// The machine has the instructions; `rows` points at `R * stride` numbers, `words` at `W * stride`, and
            /// `out` at `R` rows of `n_words` of which the first `W` are written; `stride` is a multiple of the step.
            #[target_feature(enable = $features)]
            unsafe fn block<const R: usize, const W: usize>(
                rows: *const $row,
                words: *const $word,
                stride: usize,
                n_words: usize,
                out: *mut $out,
            ) {
                let mut sums = [[$zero; W]; R];
                let mut at = 0;
                while at < stride {
                    let mut own = [$zero; R];
                    for r in 0..R {
                        // SAFETY: row r of R, and at + step ≤ stride.
                        let $row_at = unsafe { rows.add(r * stride + at) };
                        own[r] = unsafe { $load_row };
                    }
                    for w in 0..W {
                        // SAFETY: word w of W, and at + step ≤ stride.
                        let $word_at = unsafe { words.add(w * stride + at) };
                        let $y = unsafe { $load_word };
                        for r in 0..R {
                            let ($sum, $x) = (sums[r][w], own[r]);
                            sums[r][w] = $multiply_add;
                        }
                    }
                    at += $step;
                }
                for r in 0..R {
                    for w in 0..W {
                        let $lanes = sums[r][w];
                        // SAFETY: row r of R, word w of W ≤ n_words.
                        unsafe { *out.add(r * n_words + w) = $reduce };
                    }
                }
            }

            /// All rows with `W` query vectors, the first of which is `words`; the same conditions hold.
            #[target_feature(enable = $features)]
            unsafe fn strip<const W: usize>(
                rows: &[$row],
                n_rows: usize,
                words: &[$word],
                stride: usize,
                n_words: usize,
                out: &mut [$out],
            ) {
                let mut row = 0;
                while row < n_rows {
                    let (own, own_out) = (&rows[row * stride..], &mut out[row * n_words..]);
                    if row + $rows <= n_rows {
                        // SAFETY: `own` holds that many rows, `own_out` as many rows of n_words, W of them from here.
                        unsafe {
                            block::<$rows, W>(own.as_ptr(), words.as_ptr(), stride, n_words, own_out.as_mut_ptr());
                        }
                        row += $rows;
                    } else {
                        // SAFETY: likewise, one row.
                        unsafe { block::<1, W>(own.as_ptr(), words.as_ptr(), stride, n_words, own_out.as_mut_ptr()) };
                        row += 1;
                    }
                }
            }

            /// All rows with all query vectors.
            ///
            /// # Safety
            /// The machine has the instructions.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn all(
                rows: &[$row],
                n_rows: usize,
                words: &[$word],
                n_words: usize,
                stride: usize,
                out: &mut [$out],
            ) {
                assert!(
                    rows.len() == n_rows * stride && words.len() == n_words * stride && stride.is_multiple_of($step)
                );
                assert_eq!(out.len(), n_rows * n_words);
                let mut word = 0;
                while word < n_words && n_rows > 0 {
                    let (own, own_out) = (&words[word * stride..], &mut out[word..]);
                    let count = (n_words - word).min(WORDS);
                    // SAFETY: `own` holds at least `count` vectors, and every row of `own_out` as many numbers.
                    unsafe {
                        match count {
                            1 => strip::<1>(rows, n_rows, own, stride, n_words, own_out),
                            2 => strip::<2>(rows, n_rows, own, stride, n_words, own_out),
                            3 => strip::<3>(rows, n_rows, own, stride, n_words, own_out),
                            4 => strip::<4>(rows, n_rows, own, stride, n_words, own_out),
                            5 => strip::<5>(rows, n_rows, own, stride, n_words, own_out),
                            _ => strip::<WORDS>(rows, n_rows, own, stride, n_words, own_out),
                        }
                    }
                    word += count;
                }
            }
        }
    };
}

kernel!(
    wide_f16,
    "avx512f,avx512bw,avx512vl",
    4,
    16,
    f16,
    f32,
    f32,
    _mm512_setzero_ps(),
    |at| _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())),
    |at| _mm512_loadu_ps(at),
    |sum, x, y| _mm512_fmadd_ps(x, y, sum),
    |lanes| _mm512_reduce_add_ps(lanes)
);

kernel!(
    wide_i8,
    "avx512f,avx512bw,avx512vl,avx512vnni",
    4,
    32,
    i8,
    i16,
    i32,
    _mm512_setzero_si512(),
    |at| _mm512_cvtepi8_epi16(_mm256_loadu_si256(at.cast())),
    |at| _mm512_loadu_si512(at.cast()),
    |sum, x, y| _mm512_dpwssd_epi32(sum, x, y),
    |lanes| _mm512_reduce_add_epi32(lanes)
);

kernel!(
    narrow_f16,
    "avx2,fma,f16c",
    2,
    8,
    f16,
    f32,
    f32,
    _mm256_setzero_ps(),
    |at| _mm256_cvtph_ps(_mm_loadu_si128(at.cast())),
    |at| _mm256_loadu_ps(at),
    |sum, x, y| _mm256_fmadd_ps(x, y, sum),
    |lanes| {
        let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
);

kernel!(
    narrow_i8,
    "avx2",
    2,
    16,
    i8,
    i16,
    i32,
    _mm256_setzero_si256(),
    |at| _mm256_cvtepi8_epi16(_mm_loadu_si128(at.cast())),
    |at| _mm256_loadu_si256(at.cast()),
    |sum, x, y| _mm256_add_epi32(sum, _mm256_madd_epi16(x, y)),
    |lanes| {
        let four = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes));
        let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
        _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
    }
);

/// A kernel behind the question whether this machine can run it; false, and nothing done, where it cannot.
macro_rules! guarded {
    ($name:ident, $module:ident, $row:ty, $word:ty, $out:ty, [$($feature:tt),+]) => {
        pub(super) fn $name(
            rows: &[$row],
            n_rows: usize,
            words: &[$word],
            n_words: usize,
            stride: usize,
            out: &mut [$out],
        ) -> bool {
            let can = $(is_x86_feature_detected!($feature))&&+;
            if can {
                // SAFETY: the instructions were just detected.
                unsafe { $module::all(rows, n_rows, words, n_words, stride, out) };
            }
            can
        }
    };
}

guarded!(avx512_f16, wide_f16, f16, f32, f32, ["avx512f", "avx512bw", "avx512vl"]);
guarded!(avx512_i8, wide_i8, i8, i16, i32, ["avx512f", "avx512bw", "avx512vl", "avx512vnni"]);
guarded!(avx2_f16, narrow_f16, f16, f32, f32, ["avx2", "fma", "f16c"]);
guarded!(avx2_i8, narrow_i8, i8, i16, i32, ["avx2"]);

/// The widest kernel there is; false where there is none.
pub(super) fn dots_f16(
    rows: &[f16],
    n_rows: usize,
    words: &[f32],
    n_words: usize,
    stride: usize,
    out: &mut [f32],
) -> bool {
    avx512_f16(rows, n_rows, words, n_words, stride, out) || avx2_f16(rows, n_rows, words, n_words, stride, out)
}

/// Likewise for int8.
pub(super) fn dots_i8(
    rows: &[i8],
    n_rows: usize,
    words: &[i16],
    n_words: usize,
    stride: usize,
    out: &mut [i32],
) -> bool {
    avx512_i8(rows, n_rows, words, n_words, stride, out) || avx2_i8(rows, n_rows, words, n_words, stride, out)
}
