//! Bytes multiplied and summed: AVX-512 with VNNI, or the same instruction on half as wide registers (AVX-VNNI);
//! detected when the program runs.
#![expect(unsafe_code, reason = "vector loads by address; lengths are asserted first, instructions are detected first")]

use std::arch::x86_64::*;
use std::ptr;

use super::{Factors, PANEL, QUAD, Worth};

/// Bytes that a panel is fetched before they are needed: the processor's own fetching stops at every 4,096.
const AHEAD: usize = 2048;

/// Products `[rows, PANEL]`; false where the processor cannot.
pub(super) type Kernel = fn(&Factors<'_>, &mut [f32]) -> bool;

/// All kernels, the fastest first.
pub(super) const KERNELS: [Kernel; 2] = [wide_if_there, narrow_if_there];

/// Writes one kernel: its instructions, how many bytes its registers hold, rows of a block, and its operations.
macro_rules! kernel {
    (
        $name:ident, $features:literal, $bytes:literal, $rows:literal, $zero:ident, $load:ident, $broadcast:ident,
        $multiply_add:ident, $subtract:ident, $convert:ident, $broadcast_float:ident, $multiply:ident, $store:ident
    ) => {
        mod $name {
            use super::*;

            /// Registers that hold a quad of columns of a panel.
            const PARTS: usize = PANEL * QUAD / $bytes;

            /// `R` rows, from row `first` on, with the panel.
            ///
            /// # Safety
            /// The machine has the instructions; lengths are as [`all`] asserts them, and there are `R` rows.
            #[target_feature(enable = $features)]
            unsafe fn block<const R: usize>(factors: &Factors<'_>, first: usize, products: *mut f32) {
                let Factors { panel, rows, stride, worths, soon } = *factors;
                let (panel, rows) = (panel.as_ptr(), rows.as_ptr().wrapping_add(first * stride));
                let soon_line = first / $rows * (stride / QUAD);
                let mut own = [[$zero(); PARTS]; R];
                let mut at = 0;
                while at < stride {
                    let mut weights = [$zero(); PARTS];
                    for line in 0..PANEL * QUAD / 64 {
                        // Fetching what may lie behind the panels' end does nothing.
                        _mm_prefetch::<_MM_HINT_T0>(panel.wrapping_add(at * PANEL + AHEAD + line * 64).cast());
                    }
                    if let Some(line) = soon.get((soon_line + at / QUAD) * (64 / size_of::<f32>())) {
                        _mm_prefetch::<_MM_HINT_T1>(ptr::from_ref(line).cast());
                    }
                    for i in 0..PARTS {
                        // SAFETY: at + QUAD ≤ stride, so PANEL * QUAD bytes from here lie inside the panel.
                        weights[i] = unsafe { $load(panel.add(at * PANEL + i * $bytes).cast()) };
                    }
                    for r in 0..R {
                        // SAFETY: row r of R, and at + QUAD ≤ stride.
                        let four = $broadcast(unsafe { rows.add(r * stride + at).cast::<i32>().read_unaligned() });
                        for i in 0..PARTS {
                            own[r][i] = $multiply_add(own[r][i], weights[i], four);
                        }
                    }
                    at += QUAD;
                }
                for r in 0..R {
                    let Worth { factor, shift } = worths[first + r];
                    for i in 0..PARTS {
                        let sums = $convert($subtract(own[r][i], $broadcast(shift)));
                        // SAFETY: row first + r of all, and the parts of a row are PANEL numbers.
                        let out = unsafe { products.add((first + r) * PANEL + i * $bytes / 4) };
                        unsafe { $store(out, $multiply(sums, $broadcast_float(factor))) };
                    }
                }
            }

            /// All rows.
            ///
            /// # Safety
            /// The machine has the instructions.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn all(factors: &Factors<'_>, products: &mut [f32]) {
                let Factors { panel, rows, stride, worths, .. } = *factors;
                let n = worths.len();
                assert!(panel.len() == PANEL * stride && stride.is_multiple_of(QUAD));
                assert!(rows.len() == n * stride && products.len() == n * PANEL);
                let products = products.as_mut_ptr();
                for first in (0..n).step_by($rows) {
                    // SAFETY: at least as many rows are left in all, by the lengths asserted above.
                    unsafe {
                        match n - first {
                            1 => block::<1>(factors, first, products),
                            2 => block::<2>(factors, first, products),
                            3 => block::<3>(factors, first, products),
                            4 => block::<{ if 4 < $rows { 4 } else { $rows } }>(factors, first, products),
                            5 => block::<{ if 5 < $rows { 5 } else { $rows } }>(factors, first, products),
                            6 => block::<{ if 6 < $rows { 6 } else { $rows } }>(factors, first, products),
                            7 => block::<{ if 7 < $rows { 7 } else { $rows } }>(factors, first, products),
                            _ => block::<$rows>(factors, first, products),
                        }
                    }
                }
            }
        }
    };
}

kernel!(
    wide,
    "avx512f,avx512bw,avx512vnni",
    64,
    8,
    _mm512_setzero_si512,
    _mm512_loadu_si512,
    _mm512_set1_epi32,
    _mm512_dpbusd_epi32,
    _mm512_sub_epi32,
    _mm512_cvtepi32_ps,
    _mm512_set1_ps,
    _mm512_mul_ps,
    _mm512_storeu_ps
);

kernel!(
    narrow,
    "avx2,avxvnni",
    32,
    3,
    _mm256_setzero_si256,
    _mm256_loadu_si256,
    _mm256_set1_epi32,
    _mm256_dpbusd_avx_epi32,
    _mm256_sub_epi32,
    _mm256_cvtepi32_ps,
    _mm256_set1_ps,
    _mm256_mul_ps,
    _mm256_storeu_ps
);

fn wide_if_there(factors: &Factors<'_>, products: &mut [f32]) -> bool {
    let can = has_wide();
    if can {
        // SAFETY: the instructions were just detected.
        unsafe { wide::all(factors, products) };
    }
    can
}

fn narrow_if_there(factors: &Factors<'_>, products: &mut [f32]) -> bool {
    let can = has_narrow();
    if can {
        // SAFETY: the instructions were just detected.
        unsafe { narrow::all(factors, products) };
    }
    can
}

fn has_wide() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
}

fn has_narrow() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni")
}

/// Whether one of the kernels runs here.
pub(super) fn can_multiply() -> bool {
    has_wide() || has_narrow()
}

/// By the fastest kernel; only where [`can_multiply`].
pub(super) fn multiply(factors: &Factors<'_>, products: &mut [f32]) {
    let done = KERNELS.iter().any(|kernel| kernel(factors, products));
    assert!(done, "asked for products that this processor cannot make");
}
