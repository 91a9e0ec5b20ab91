//! Pairs of bfloat16 multiplied and summed by AVX-512 with BF16, detected when the program runs.
#![expect(
    unsafe_code,
    reason = "vector loads and stores by address; lengths are asserted first, instructions detected"
)]

use std::arch::x86_64::*;
use std::ops::Range;

use rayon::prelude::*;

use super::{COLUMNS, Panels, ROWS};

/// Numbers in a register.
const LANES: usize = 16;
/// Registers that hold a row of a tile.
const PARTS: usize = COLUMNS / LANES;
/// Pairs that are summed before the next tile has its turn: so much of two panels stays in the second-level cache.
const DEPTH: usize = 512;
/// Panels of the left factor that take their turn with a panel of the right one: as much as the same cache holds.
const LEFT_PANELS: usize = 16;
/// Jobs a thread, so that none waits long for the others.
const JOBS: usize = 4;

/// Whether the processor has the instructions.
pub(super) fn can_multiply() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16")
}

/// Where the product goes; jobs write to parts of it that have nothing in common.
struct Out(*mut f32);

// SAFETY: `multiply` hands every element to one job alone.
unsafe impl Sync for Out {}

/// The product, in jobs of panels of the left factor by panels of the right one.
pub(super) fn multiply(left: &Panels, right: &Panels, out: &mut [f32], adds: bool) {
    assert!(can_multiply(), "asked for products that this processor cannot make");
    let [rows, columns] = [left.n.div_ceil(ROWS), right.n.div_ceil(COLUMNS)];
    assert_eq!(left.values.len(), rows * ROWS * left.pairs, "left panels");
    assert_eq!(right.values.len(), columns * COLUMNS * left.pairs, "right panels");
    assert_eq!(out.len(), left.n * right.n, "product");
    if out.is_empty() {
        return;
    }
    let wanted = JOBS * rayon::current_num_threads();
    let of_rows = rows.div_ceil(wanted.min(rows.div_ceil(LEFT_PANELS)));
    let row_jobs = rows.div_ceil(of_rows);
    let of_columns = columns.div_ceil(wanted.div_ceil(row_jobs).min(columns));
    let column_jobs = columns.div_ceil(of_columns);
    let out = Out(out.as_mut_ptr());
    let out = &out;
    (0..row_jobs * column_jobs).into_par_iter().for_each(|job| {
        let (i, j) = (job / column_jobs * of_rows, job % column_jobs * of_columns);
        // SAFETY: the instructions were detected, the panels' and the product's lengths asserted; the panels lie inside,
        // and no other job has the same panels of both factors, so none writes to the same elements.
        unsafe { block(left, right, i..rows.min(i + of_rows), j..columns.min(j + of_columns), out.0, adds) };
    });
}

/// The part of the product that some panels of both factors make.
///
/// # Safety
/// The machine has the instructions; the panels exist in factors of the lengths that [`multiply`] asserts; `out` is the
/// product of all, and nobody else has this part of it.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn block(left: &Panels, right: &Panels, rows: Range<usize>, columns: Range<usize>, out: *mut f32, adds: bool) {
    for first in (0..left.pairs).step_by(DEPTH) {
        let n_pairs = DEPTH.min(left.pairs - first);
        let adds = adds || first > 0;
        for j in columns.clone() {
            let b = &right.values[(j * left.pairs + first) * COLUMNS..][..n_pairs * COLUMNS];
            let n_columns = COLUMNS.min(right.n - j * COLUMNS);
            for i in rows.clone() {
                let a = &left.values[(i * left.pairs + first) * ROWS..][..n_pairs * ROWS];
                let n_rows = ROWS.min(left.n - i * ROWS);
                let tile = match n_rows.div_ceil(4) {
                    1 => tile::<4>,
                    2 => tile::<8>,
                    _ => tile::<ROWS>,
                };
                // SAFETY: the tile's first element lies in the product, and so do as many rows and columns as it is told.
                unsafe {
                    let at = out.add(i * ROWS * right.n + j * COLUMNS);
                    tile(a, b, at, right.n, [n_rows, n_columns], adds);
                }
            }
        }
    }
}

/// The first `R` rows of a panel times a panel; the first `rows` and `columns` of it are written to `out`, whose rows begin
/// `stride` apart.
///
/// # Safety
/// The machine has the instructions; `rows` is at most `R`, and so many rows and columns of `out` may be written.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn tile<const R: usize>(
    a: &[u32],
    b: &[u32],
    out: *mut f32,
    stride: usize,
    [rows, columns]: [usize; 2],
    adds: bool,
) {
    let mut sums = [[_mm512_setzero_ps(); PARTS]; R];
    for (a, b) in a.as_chunks::<ROWS>().0.iter().zip(b.as_chunks::<COLUMNS>().0) {
        let mut own = [_mm512_setzero_si512(); PARTS];
        for (part, own) in own.iter_mut().enumerate() {
            // SAFETY: 16 numbers of the 32 of a pair.
            *own = unsafe { _mm512_loadu_si512(b.as_ptr().add(part * LANES).cast()) };
        }
        for r in 0..R {
            let pair = bits(_mm512_set1_epi32(a[r] as i32));
            for part in 0..PARTS {
                sums[r][part] = _mm512_dpbf16_ps(sums[r][part], bits(own[part]), pair);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate().take(rows) {
        for (part, &sum) in sums.iter().enumerate() {
            let mask = lanes(columns.saturating_sub(part * LANES));
            // SAFETY: what is masked is neither read nor written, and the rest is of this tile.
            unsafe {
                let at = out.wrapping_add(r * stride + part * LANES);
                let before = if adds { _mm512_maskz_loadu_ps(mask, at) } else { _mm512_setzero_ps() };
                _mm512_mask_storeu_ps(at, mask, _mm512_add_ps(before, sum));
            }
        }
    }
}

/// The same bits, as pairs of bfloat16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn bits(pairs: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of which any may be anything.
    unsafe { std::mem::transmute(pairs) }
}

/// A mask of the first `n` lanes.
fn lanes(n: usize) -> __mmask16 {
    if n < LANES { (1 << n) - 1 } else { __mmask16::MAX }
}
