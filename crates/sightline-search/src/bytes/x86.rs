//! Bytes multiplied and summed: AVX-512 with VNNI, or the same instruction on half as wide registers (AVX-VNNI);
//! detected when the program runs.
#![expect(unsafe_code, reason = "vector loads by address; lengths are asserted first, instructions are detected first")]

use std::arch::x86_64::*;

use super::{PANEL, QUAD};

/// Bytes that a panel is fetched before they are needed: the processor's own fetching stops at every 4,096.
const AHEAD: usize = 2048;

/// A panel, some rows, their stride, the sums; false where the processor cannot.
pub(super) type Kernel = fn(&[u8], &[i8], usize, &mut [i32]) -> bool;

/// All kernels, the fastest first.
pub(super) const KERNELS: [Kernel; 2] = [wide_if_there, narrow_if_there];

/// Writes one kernel: its instructions, how many bytes its registers hold, rows of a block, and its operations.
macro_rules! kernel {
    (
        $name:ident, $features:literal, $bytes:literal, $rows:literal, $zero:ident, $load:ident,
        $store:ident, $broadcast:ident, $multiply_add:ident
    ) => {
        mod $name {
            use super::*;

            /// Registers that hold a quad of columns of a panel.
            const PARTS: usize = PANEL * QUAD / $bytes;

            /// `R` rows with a panel.
            ///
            /// # Safety
            /// The machine has the instructions; `panel` points at `PANEL * stride` bytes, `rows` at `R * stride`, `sums`
            /// at `R * PANEL` numbers; `stride` is a multiple of [`QUAD`].
            #[target_feature(enable = $features)]
            unsafe fn block<const R: usize>(panel: *const u8, rows: *const i8, stride: usize, sums: *mut i32) {
                let mut own = [[$zero(); PARTS]; R];
                let mut at = 0;
                while at < stride {
                    let mut weights = [$zero(); PARTS];
                    for line in 0..PANEL * QUAD / 64 {
                        // Fetching what may lie behind the panels' end does nothing.
                        _mm_prefetch::<_MM_HINT_T0>(panel.wrapping_add(at * PANEL + AHEAD + line * 64).cast());
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
                    for i in 0..PARTS {
                        // SAFETY: row r of R, and the parts of a row are PANEL numbers.
                        unsafe { $store(sums.add(r * PANEL + i * $bytes / 4).cast(), own[r][i]) };
                    }
                }
            }

            /// All rows.
            ///
            /// # Safety
            /// The machine has the instructions.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn all(panel: &[u8], rows: &[i8], stride: usize, sums: &mut [i32]) {
                let n = sums.len() / PANEL;
                assert!(panel.len() == PANEL * stride && stride.is_multiple_of(QUAD) && sums.len() == n * PANEL);
                assert!(rows.len() == n * stride);
                let mut row = 0;
                while row < n {
                    let count = (n - row).min($rows);
                    let (panel, rows) = (panel.as_ptr(), rows[row * stride..].as_ptr());
                    let sums = sums[row * PANEL..].as_mut_ptr();
                    // SAFETY: at least `count` rows are left in both, by the lengths asserted above.
                    unsafe {
                        match count {
                            1 => block::<1>(panel, rows, stride, sums),
                            2 => block::<2>(panel, rows, stride, sums),
                            3 => block::<3>(panel, rows, stride, sums),
                            4 => block::<{ if 4 < $rows { 4 } else { $rows } }>(panel, rows, stride, sums),
                            5 => block::<{ if 5 < $rows { 5 } else { $rows } }>(panel, rows, stride, sums),
                            6 => block::<{ if 6 < $rows { 6 } else { $rows } }>(panel, rows, stride, sums),
                            7 => block::<{ if 7 < $rows { 7 } else { $rows } }>(panel, rows, stride, sums),
                            _ => block::<$rows>(panel, rows, stride, sums),
                        }
                    }
                    row += count;
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
    _mm512_storeu_si512,
    _mm512_set1_epi32,
    _mm512_dpbusd_epi32
);

kernel!(
    narrow,
    "avx2,avxvnni",
    32,
    3,
    _mm256_setzero_si256,
    _mm256_loadu_si256,
    _mm256_storeu_si256,
    _mm256_set1_epi32,
    _mm256_dpbusd_avx_epi32
);

fn wide_if_there(panel: &[u8], rows: &[i8], stride: usize, sums: &mut [i32]) -> bool {
    let can = has_wide();
    if can {
        // SAFETY: the instructions were just detected.
        unsafe { wide::all(panel, rows, stride, sums) };
    }
    can
}

fn narrow_if_there(panel: &[u8], rows: &[i8], stride: usize, sums: &mut [i32]) -> bool {
    let can = has_narrow();
    if can {
        // SAFETY: the instructions were just detected.
        unsafe { narrow::all(panel, rows, stride, sums) };
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
pub(super) fn multiply(panel: &[u8], rows: &[i8], stride: usize, sums: &mut [i32]) {
    let done = KERNELS.iter().any(|kernel| kernel(panel, rows, stride, sums));
    assert!(done, "asked for products that this processor cannot make");
}
