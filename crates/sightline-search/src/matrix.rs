//! The one matrix product this crate needs, over the `gemm` crate.
#![expect(unsafe_code, reason = "gemm takes raw pointers; the slices' lengths are asserted against the sizes first")]

use gemm::Parallelism;

/// `out = a · bᵀ` with `a` `[m, k]`, `b` `[n, k]`, `out` `[m, n]`, all row-major, on this thread alone.
pub(crate) fn multiply_transposed(a: &[f32], b: &[f32], out: &mut [f32], k: usize) {
    assert!(k > 0 && a.len().is_multiple_of(k) && b.len().is_multiple_of(k), "rows of {k}");
    let (m, n) = (a.len() / k, b.len() / k);
    assert_eq!(out.len(), m * n, "[{m}, {n}]");
    // SAFETY: the three slices hold exactly m·k, n·k and m·n elements, the strides below stay inside them, and `out`
    // is borrowed mutably, so it overlaps neither input.
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
            1,
            k as isize,
            b.as_ptr(),
            k as isize,
            1,
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
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (17, 2, 33), (64, 65, 16)] {
            let a: Vec<f32> = (0..m * k).map(|i| (i % 13) as f32 - 6.0).collect();
            let b: Vec<f32> = (0..n * k).map(|i| (i % 7) as f32 - 3.0).collect();
            let mut out = vec![f32::NAN; m * n];
            multiply_transposed(&a, &b, &mut out, k);
            for i in 0..m {
                for j in 0..n {
                    let expected: f32 = (0..k).map(|l| a[i * k + l] * b[j * k + l]).sum();
                    assert_eq!(out[i * n + j], expected, "{m} {n} {k} at {i} {j}");
                }
            }
        }
    }
}
