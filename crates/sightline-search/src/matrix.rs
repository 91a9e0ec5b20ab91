//! Matrix products over the `gemm` crate, each on one thread: the callers cut their work into jobs.
#![expect(unsafe_code, reason = "gemm takes raw pointers; the slices' lengths are asserted against the sizes first")]

use gemm::Parallelism;

/// How the factors of a product lie in memory; all row-major.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `a` is `[m, k]`, `b` is `[k, n]`.
    Plain,
    /// `a` is `[k, m]`, `b` is `[k, n]`.
    LeftTransposed,
    /// `a` is `[m, k]`, `b` is `[n, k]`.
    RightTransposed,
}

/// The product of `a` and `b` over their common length `k`, into `out`, `[m, n]` row-major, on this thread alone.
pub fn multiply(a: &[f32], b: &[f32], out: &mut [f32], k: usize, layout: Layout) {
    assert!(k > 0 && a.len().is_multiple_of(k) && b.len().is_multiple_of(k), "common length {k}");
    let (m, n) = (a.len() / k, b.len() / k);
    assert_eq!(out.len(), m * n, "[{m}, {n}]");
    let (a_column, a_row) = if layout == Layout::LeftTransposed { (m, 1) } else { (1, k) };
    let (b_column, b_row) = if layout == Layout::RightTransposed { (k, 1) } else { (1, n) };
    // SAFETY: the three slices hold exactly m·k, k·n and m·n elements, the strides stay inside them for these sizes, and
    // `out` is borrowed mutably, so it overlaps neither input.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            a_column as isize,
            a_row as isize,
            b.as_ptr(),
            b_column as isize,
            b_row as isize,
            0.0f32,
            1.0f32,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_three_loops() {
        for layout in [Layout::Plain, Layout::LeftTransposed, Layout::RightTransposed] {
            for (m, n, k) in [(1, 1, 1), (3, 5, 7), (17, 2, 33), (64, 65, 16)] {
                let a: Vec<f32> = (0..m * k).map(|i| (i % 13) as f32 - 6.0).collect();
                let b: Vec<f32> = (0..n * k).map(|i| (i % 7) as f32 - 3.0).collect();
                let a_at =
                    |i: usize, l: usize| if layout == Layout::LeftTransposed { a[l * m + i] } else { a[i * k + l] };
                let b_at =
                    |l: usize, j: usize| if layout == Layout::RightTransposed { b[j * k + l] } else { b[l * n + j] };
                let mut out = vec![f32::NAN; m * n];
                multiply(&a, &b, &mut out, k, layout);
                for i in 0..m {
                    for j in 0..n {
                        let expected: f32 = (0..k).map(|l| a_at(i, l) * b_at(l, j)).sum();
                        assert_eq!(out[i * n + j], expected, "{layout:?} {m} {n} {k} at {i} {j}");
                    }
                }
            }
        }
    }
}
