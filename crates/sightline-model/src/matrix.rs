//! Matrices in memory and the few f32 kernels that the tape is made of: the matrix product, over the `gemm`
//! crate, and loops compiled for the widest vectors that this processor has.
#![expect(unsafe_code, reason = "gemm takes raw pointers; the slices' lengths are asserted against the sizes first")]

use std::ops::Range;

use gemm::Parallelism;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
pub(crate) use sightline_search::simd::{dot, largest, sum_of, vectorised};

/// A row-major matrix.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matrix {
    /// Number of rows.
    pub rows: usize,
    /// Numbers a row.
    pub columns: usize,
    /// Row by row.
    pub values: Vec<f32>,
}

impl Matrix {
    /// From its values.
    pub fn new(rows: usize, columns: usize, values: Vec<f32>) -> Self {
        assert_eq!(values.len(), rows * columns, "[{rows}, {columns}]");
        Self { rows, columns, values }
    }

    /// All zeros.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, values: vec![0.0; rows * columns] }
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }
}

/// A factor of a product: its values, and whether its rows and columns change places.
#[derive(Clone, Copy)]
pub(crate) enum Factor<'a> {
    Plain(&'a [f32]),
    Transposed(&'a [f32]),
}

impl Factor<'_> {
    fn values(&self) -> &[f32] {
        match self {
            Self::Plain(values) | Self::Transposed(values) => values,
        }
    }

    /// Steps in memory from column to column and from row to row of a factor of `rows` by `columns`.
    fn strides(&self, rows: usize, columns: usize) -> (isize, isize) {
        match self {
            Self::Plain(_) => (1, columns as isize),
            Self::Transposed(_) => (rows as isize, 1),
        }
    }
}

/// Products of fewer multiplications than this stay on one thread.
const PARALLEL_FROM: usize = 1 << 20;

/// `out = a · b`, or `out += a · b` with `adds`; `a` is `[m, k]`, `b` `[k, n]`, `out` `[m, n]`.
pub(crate) fn multiply(a: Factor<'_>, b: Factor<'_>, out: &mut [f32], [m, k, n]: [usize; 3], adds: bool) {
    assert_eq!(a.values().len(), m * k, "left factor of [{m}, {k}]");
    assert_eq!(b.values().len(), k * n, "right factor of [{k}, {n}]");
    assert_eq!(out.len(), m * n, "product of [{m}, {n}]");
    if out.is_empty() {
        return;
    }
    match (a, b) {
        (Factor::Plain(a), Factor::Transposed(b)) if m <= FEW_ROWS => {
            return few_rows_transposed(a, b, out, [m, k, n], adds);
        }
        (Factor::Plain(a), Factor::Plain(b)) if m <= FEW_ROWS => return few_rows(a, b, out, [m, k, n], adds),
        _ => {}
    }
    let (a_column, a_row) = a.strides(m, k);
    let (b_column, b_row) = b.strides(k, n);
    let parallelism = if m * k * n < PARALLEL_FROM { Parallelism::None } else { Parallelism::Rayon(0) };
    // SAFETY: the three slices hold exactly m·k, k·n and m·n elements, the strides stay inside them, and `out` is
    // borrowed mutably, so it overlaps neither factor.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            adds,
            a.values().as_ptr(),
            a_column,
            a_row,
            b.values().as_ptr(),
            b_column,
            b_row,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// A factor that lies scattered in a larger matrix: its first element, and the steps to the next row and column.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) row: usize,
    pub(crate) column: usize,
}

impl<'a> Part<'a> {
    /// Some columns of a row-major matrix, from the one that `values` begins with.
    pub(crate) fn columns(values: &'a [f32], row: usize) -> Self {
        Self { values, row, column: 1 }
    }

    /// Rows become columns.
    pub(crate) fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }

    /// Whether a matrix of this size lies inside.
    fn holds(&self, rows: usize, columns: usize) -> bool {
        (rows - 1) * self.row + (columns - 1) * self.column < self.values.len()
    }
}

/// `out = factor · a · b` on one thread, where `a` is `[m, k]`, `b` `[k, n]`, and the rows of `out`, `[m, n]`, begin
/// `out_row` apart.
pub(crate) fn multiply_parts(
    factor: f32,
    a: Part<'_>,
    b: Part<'_>,
    out: &mut [f32],
    out_row: usize,
    [m, k, n]: [usize; 3],
) {
    assert!(m > 0 && k > 0 && n > 0, "a product of [{m}, {k}] and [{k}, {n}]");
    assert!(a.holds(m, k) && b.holds(k, n), "factors of [{m}, {k}] and [{k}, {n}]");
    assert!(out_row >= n && (m - 1) * out_row + n <= out.len(), "product of [{m}, {n}]");
    // SAFETY: every index that the strides reach lies inside its slice, as asserted; the rows of `out` do not overlap,
    // and it is borrowed mutably, so it overlaps neither factor.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_row as isize,
            false,
            a.values.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.values.as_ptr(),
            b.column as isize,
            b.row as isize,
            1.0f32,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// A left factor of so few rows is multiplied without repacking the right one, which would take longer than the product.
const FEW_ROWS: usize = 16;
/// Columns of the product that one thread computes at once.
const COLUMN_BLOCK: usize = 512;

/// As [`multiply`] for plain factors, `a` of few rows: `b` is read once, row after row.
fn few_rows(a: &[f32], b: &[f32], out: &mut [f32], [m, k, n]: [usize; 3], adds: bool) {
    let mut blocks = vec![0.0; m * n]; // block after block of columns, in each row after row
    let min_blocks = if m * k * n < PARALLEL_FROM { usize::MAX } else { 1 };
    let block = |(block, sums): (usize, &mut [f32])| {
        let columns = block * COLUMN_BLOCK..n.min((block + 1) * COLUMN_BLOCK);
        Arch::new().dispatch(FewRows { a, b, k, n, columns, sums });
    };
    blocks.par_chunks_mut(m * COLUMN_BLOCK).enumerate().with_min_len(min_blocks).for_each(block);
    for (block, sums) in blocks.chunks(m * COLUMN_BLOCK).enumerate() {
        let (width, first) = (sums.len() / m, block * COLUMN_BLOCK);
        for (out, sums) in out.chunks_exact_mut(n).zip(sums.chunks_exact(width)) {
            let out = &mut out[first..first + width];
            match adds {
                true => add_scaled(out, 1.0, sums),
                false => out.copy_from_slice(sums),
            }
        }
    }
}

/// A block of columns of [`few_rows`], added to `sums`, `[m, columns]`.
struct FewRows<'a> {
    a: &'a [f32],
    b: &'a [f32],
    k: usize,
    n: usize,
    columns: Range<usize>,
    sums: &'a mut [f32],
}

impl WithSimd for FewRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { a, b, k, n, columns, sums } = self;
        let width = columns.len();
        let m = sums.len() / width;
        let b = |at: usize| &b[at * n..][columns.clone()];
        let whole = k / DEPTH * DEPTH;
        for at in (0..whole).step_by(DEPTH) {
            let b: [&[f32]; DEPTH] = std::array::from_fn(|i| b(at + i));
            for row in (0..m).step_by(4) {
                let (a, sums) = (&a[row * k + at..], &mut sums[row * width..]);
                match m - row {
                    1 => add_rows::<S, 1, DEPTH>(simd, a, k, b, sums),
                    2 => add_rows::<S, 2, DEPTH>(simd, a, k, b, sums),
                    3 => add_rows::<S, 3, DEPTH>(simd, a, k, b, sums),
                    _ => add_rows::<S, 4, DEPTH>(simd, a, k, b, sums),
                }
            }
        }
        for at in whole..k {
            for row in 0..m {
                add_rows::<S, 1, 1>(simd, &a[row * k + at..], k, [b(at)], &mut sums[row * width..]);
            }
        }
    }
}

/// Rows of `b` that are multiplied at once: sums are read and written a fourth as often.
const DEPTH: usize = 4;

/// `sums[r, ..] += Σᵢ a[r · k + i] · b[i]` for `R` rows.
#[inline(always)]
fn add_rows<S: Simd, const R: usize, const D: usize>(simd: S, a: &[f32], k: usize, b: [&[f32]; D], sums: &mut [f32]) {
    let width = b[0].len();
    let factors: [[S::f32s; D]; R] = std::array::from_fn(|r| std::array::from_fn(|i| simd.splat_f32s(a[r * k + i])));
    let b = b.map(|b| S::as_simd_f32s(b));
    let mut rows = sums.chunks_exact_mut(width);
    let mut rows: [_; R] = std::array::from_fn(|_| S::as_mut_simd_f32s(rows.next().expect("R rows of sums")));
    for at in 0..b[0].0.len() {
        let own: [S::f32s; D] = std::array::from_fn(|i| b[i].0[at]);
        for r in 0..R {
            let mut sum = rows[r].0[at];
            for i in 0..D {
                sum = simd.mul_add_e_f32s(factors[r][i], own[i], sum);
            }
            rows[r].0[at] = sum;
        }
    }
    for at in 0..b[0].1.len() {
        for (r, row) in rows.iter_mut().enumerate() {
            row.1[at] += (0..D).map(|i| a[r * k + i] * b[i].1[at]).sum::<f32>();
        }
    }
}

/// As [`multiply`] for a plain `a` of few rows and a transposed `b`: every row of `b` is read once.
fn few_rows_transposed(a: &[f32], b: &[f32], out: &mut [f32], [m, k, n]: [usize; 3], adds: bool) {
    let mut columns = vec![0.0; n * m]; // column after column of the product
    let blocks = columns.par_chunks_mut(COLUMN_BLOCK * m).zip(b.par_chunks(COLUMN_BLOCK * k));
    let min_blocks = if m * k * n < PARALLEL_FROM { usize::MAX } else { 1 };
    blocks
        .with_min_len(min_blocks)
        .for_each(|(columns, b)| Arch::new().dispatch(FewRowsTransposed { a, b, m, k, columns }));
    for (row, out) in out.chunks_exact_mut(n).enumerate() {
        for (out, column) in out.iter_mut().zip(columns.chunks_exact(m)) {
            *out = if adds { *out + column[row] } else { column[row] };
        }
    }
}

/// A block of columns of [`few_rows_transposed`]; `b` is `[columns, k]`, `columns` `[columns, m]`.
struct FewRowsTransposed<'a> {
    a: &'a [f32],
    b: &'a [f32],
    m: usize,
    k: usize,
    columns: &'a mut [f32],
}

impl WithSimd for FewRowsTransposed<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { a, b, m, k, columns } = self;
        for (columns, b) in columns.chunks_mut(2 * m).zip(b.chunks(2 * k)) {
            // A last column without a neighbour is its own.
            let b = [&b[..k], &b[b.len() - k..]];
            let last = columns.len() - m;
            for row in (0..m).step_by(4) {
                let a = &a[row * k..];
                let sums = match m - row {
                    1 => few_dots::<S, 1>(simd, a, b),
                    2 => few_dots::<S, 2>(simd, a, b),
                    3 => few_dots::<S, 3>(simd, a, b),
                    _ => few_dots::<S, 4>(simd, a, b),
                };
                let n_rows = (m - row).min(4);
                columns[row..row + n_rows].copy_from_slice(&sums[0][..n_rows]);
                columns[last + row..][..n_rows].copy_from_slice(&sums[1][..n_rows]);
            }
        }
    }
}

/// Sums of products of two vectors with the first `R` rows of `a`, rows as long as they: enough sums at once that each
/// addition need not wait for the one before.
#[inline(always)]
fn few_dots<S: Simd, const R: usize>(simd: S, a: &[f32], b: [&[f32]; 2]) -> [[f32; 4]; 2] {
    let k = b[0].len();
    let a: [_; R] = std::array::from_fn(|row| S::as_simd_f32s(&a[row * k..(row + 1) * k]));
    let b = b.map(|b| S::as_simd_f32s(b));
    let mut lanes = [[simd.splat_f32s(0.0); R]; 2];
    for at in 0..b[0].0.len() {
        for row in 0..R {
            for i in 0..2 {
                lanes[i][row] = simd.mul_add_e_f32s(a[row].0[at], b[i].0[at], lanes[i][row]);
            }
        }
    }
    let mut sums = [[0.0; 4]; 2];
    for i in 0..2 {
        for row in 0..R {
            let rest = a[row].1.iter().zip(b[i].1).map(|(x, y)| x * y).sum::<f32>();
            sums[i][row] = simd.reduce_sum_f32s(lanes[i][row]) + rest;
        }
    }
    sums
}

/// Numbers that are worth a thread of their own, where a loop does little with each.
const PART: usize = 1 << 14;

/// Lets `work` fill `out`, rows of `width` numbers, on all threads: a part of the rows at a time, with the number of its
/// first. Compiled for the widest vectors, so `work` must be `#[inline(always)]`.
pub(crate) fn in_parts(out: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    let rows = PART.div_ceil(width.max(1));
    let part = |(part, out): (usize, &mut [f32])| {
        vectorised(
            #[inline(always)]
            || work(part * rows, out),
        );
    };
    match out.len() <= rows * width {
        true => part((0, out)),
        false => out.par_chunks_mut(rows * width).enumerate().for_each(part),
    }
}

/// `y += factor · x`.
#[inline(always)]
pub(crate) fn add_scaled(y: &mut [f32], factor: f32, x: &[f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

/// The exponential, to about two units in the last place, in a form that vectorises (the polynomial of Cephes' `expf`).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// 1.5 · 2²³: adding it rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = x - whole * 0.693_359_4;
    let rest = rest + whole * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4f32;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
        p = p * rest + coefficient;
    }
    let fraction = p * rest * rest + rest + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    fraction * power
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (1.0 + exp(2.0 * x))
}

/// Logits to probabilities, in place; returns the logarithm of the sum of exponentials.
#[inline(always)]
pub(crate) fn softmax(row: &mut [f32]) -> f32 {
    let most = largest(row);
    for x in row.iter_mut() {
        *x = exp(*x - most);
    }
    let sum = sum_of(row, |x| x);
    let factor = 1.0 / sum;
    for x in row.iter_mut() {
        *x *= factor;
    }
    most + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_agree_with_three_loops() {
        for [m, k, n] in
            [[1, 1, 1], [3, 7, 5], [5, 9, 64], [7, 40, 1100], [14, 300, 300], [17, 33, 2], [64, 16, 65], [130, 70, 129]]
        {
            let a: Vec<f32> = (0..m * k).map(|i| (i % 13) as f32 - 6.0).collect();
            let b: Vec<f32> = (0..k * n).map(|i| (i % 7) as f32 - 3.0).collect();
            let turned = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                (0..columns).flat_map(|c| (0..rows).map(move |r| x[r * columns + c])).collect()
            };
            let (a_turned, b_turned) = (turned(&a, m, k), turned(&b, k, n));
            let expected: Vec<f32> = (0..m)
                .flat_map(|i| (0..n).map(move |j| (i, j)))
                .map(|(i, j)| (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum())
                .collect();
            for left in [Factor::Plain(&a), Factor::Transposed(&a_turned)] {
                for right in [Factor::Plain(&b), Factor::Transposed(&b_turned)] {
                    let mut out = vec![f32::NAN; m * n];
                    multiply(left, right, &mut out, [m, k, n], false);
                    assert_eq!(out, expected, "{m} {k} {n}");
                    multiply(left, right, &mut out, [m, k, n], true);
                    assert!(out.iter().zip(&expected).all(|(x, y)| *x == 2.0 * y), "{m} {k} {n}");
                }
            }
        }
    }

    #[test]
    fn parts_of_matrices_multiply_where_they_lie() {
        // Columns 2..4 of [3, 5] times the transposed columns 1..3 of [4, 3], into columns 1..5 of [3, 6].
        let a: Vec<f32> = (0..15).map(|i| i as f32).collect();
        let b: Vec<f32> = (0..12).map(|i| (i % 5) as f32).collect();
        let mut out = [-1.0; 18];
        multiply_parts(
            0.5,
            Part::columns(&a[2..], 5),
            Part::columns(&b[1..], 3).transposed(),
            &mut out[1..],
            6,
            [3, 2, 4],
        );
        for i in 0..3 {
            assert_eq!((out[i * 6], out[i * 6 + 5]), (-1.0, -1.0));
            for j in 0..4 {
                let sum: f32 = (0..2).map(|l| a[i * 5 + 2 + l] * b[j * 3 + 1 + l]).sum();
                assert_eq!(out[i * 6 + 1 + j], 0.5 * sum, "{i} {j}");
            }
        }
    }

    #[test]
    fn exponentials_are_close() {
        let functions = |x: f32| {
            vectorised(
                #[inline(always)]
                || [exp(x), sigmoid(x), tanh(x)],
            )
        };
        for i in -8700..=8700 {
            let x = i as f32 / 100.0;
            let [power, share, tangent] = functions(x);
            let exact = f64::from(x).exp();
            assert!((f64::from(power) - exact).abs() < 3e-7 * exact, "exp({x}) is {exact}, got {power}");
            assert!((share - 1.0 / (1.0 + (-x).exp())).abs() < 3e-7, "sigmoid({x}), got {share}");
            assert!((tangent - x.tanh()).abs() < 3e-7, "tanh({x}) is {}, got {tangent}", x.tanh());
        }
        assert!(functions(-1e30).iter().all(|x| x.is_finite()) && functions(1e30)[1] == 1.0);
        assert!(functions(f32::NAN).iter().all(|x| x.is_nan()));
    }

    #[test]
    fn softmax_sums_to_one() {
        let mut row = [0.0f32, 3.0f32.ln(), 0.0];
        assert!((softmax(&mut row) - 5.0f32.ln()).abs() < 1e-6);
        assert!((row[1] - 0.6).abs() < 1e-6 && (row[0] - 0.2).abs() < 1e-6);
    }
}
