//! Convolution of every channel on its own, stride 1, zeros beyond the border. Channels go through in parts of a length
//! known to the compiler, whose sums stay in registers.

use super::windows::Windows;
use crate::matrix::{in_parts, vectorised};

/// Windows that move over square grids cell by cell, and how many numbers a cell has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Depthwise {
    windows: Windows,
    channels: usize,
}

impl Depthwise {
    /// Windows of `kernel` cells a side, odd, over grids of `side` cells a side.
    pub(super) fn new(side: usize, kernel: usize, channels: usize) -> Self {
        Self { windows: Windows { side, kernel, stride: 1 }, channels }
    }

    /// Adds the sum over its window to every cell of `out`: `x` and `out` are `[cells, channels]`, `matrix` is
    /// `[kernel², channels]`.
    pub(super) fn convolve(&self, x: &[f32], matrix: &[f32], out: &mut [f32]) {
        let &Self { windows, channels } = self;
        let side = windows.side;
        in_parts(
            out,
            channels,
            #[inline(always)]
            |first_cell, out| {
                for (cell, out) in (first_cell..).zip(out.chunks_exact_mut(channels)) {
                    let (grid, at) = (cell / (side * side) * side * side, cell % (side * side));
                    let pairs = windows.rows(at / side, at % side).flat_map(move |(place, under, n)| {
                        (0..n).map(move |k| ((place + k) * channels, (grid + under + k) * channels))
                    });
                    add_products(out, matrix, x, &pairs);
                }
            },
        );
    }

    /// The gradient of `x`, where `g` is that of [`Depthwise::convolve`]'s result: its sums over windows that are turned
    /// round.
    pub(super) fn gradient_of_cells(&self, g: &[f32], matrix: &[f32]) -> Vec<f32> {
        let turned: Vec<f32> = matrix.chunks_exact(self.channels).rev().flatten().copied().collect();
        let mut dx = vec![0.0; g.len()];
        self.convolve(g, &turned, &mut dx);
        dx
    }

    /// The gradient of `matrix`.
    pub(super) fn gradient_of_windows(&self, x: &[f32], g: &[f32]) -> Vec<f32> {
        let &Self { windows: Windows { side, kernel, .. }, channels } = self;
        let padding = self.windows.padding();
        let mut out = vec![0.0; kernel * kernel * channels];
        vectorised(
            #[inline(always)]
            || {
                for row in 0..g.len() / (side * channels) {
                    for (place, out) in out.chunks_exact_mut(channels).enumerate() {
                        let (down, right) = (place / kernel, place % kernel);
                        if !(padding..side + padding).contains(&(row % side + down)) {
                            continue;
                        }
                        // Cells of the row, and those that this place of their windows lies on.
                        let cells = padding.saturating_sub(right)..side.min(side + padding - right);
                        let under = |at: usize| (row + down - padding) * side + at + right - padding;
                        let pairs = cells.map(|at| ((row * side + at) * channels, under(at) * channels));
                        add_products(out, g, x, &pairs);
                    }
                }
            },
        );
        out
    }
}

/// Adds to every channel of `out` the products of `a` and `b` at all `pairs` of places, where its first channel stands.
#[inline(always)]
fn add_products(out: &mut [f32], a: &[f32], b: &[f32], pairs: &(impl Iterator<Item = (usize, usize)> + Clone)) {
    let mut first = 0;
    while first < out.len() {
        first += match out.len() - first {
            64.. => add_part::<64>(&mut out[first..], &a[first..], &b[first..], pairs.clone()),
            16.. => add_part::<16>(&mut out[first..], &a[first..], &b[first..], pairs.clone()),
            _ => add_part::<1>(&mut out[first..], &a[first..], &b[first..], pairs.clone()),
        };
    }
}

/// [`add_products`] for the first `N` channels; `N`.
#[inline(always)]
fn add_part<const N: usize>(
    out: &mut [f32],
    a: &[f32],
    b: &[f32],
    pairs: impl Iterator<Item = (usize, usize)>,
) -> usize {
    let part = |x: &[f32], at: usize| -> [f32; N] { x[at..at + N].try_into().expect("N numbers") };
    let mut sums = part(out, 0);
    pairs.for_each(|(of_a, of_b)| {
        let (a, b) = (part(a, of_a), part(b, of_b));
        for i in 0..N {
            sums[i] += a[i] * b[i];
        }
    });
    out[..N].copy_from_slice(&sums);
    N
}
