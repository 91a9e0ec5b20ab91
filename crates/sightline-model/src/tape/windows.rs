//! Windows over grids of cells, for convolutions.

use crate::matrix::{add_scaled, in_parts};

/// Square windows that move over square grids; beyond the border there are zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Cells along a side of each grid.
    pub side: usize,
    /// Cells along a side of the window; odd, or equal to the stride.
    pub kernel: usize,
    /// Cells from one window to the next.
    pub stride: usize,
}

impl Windows {
    /// Cells along a side of the grid of results.
    pub fn side_out(&self) -> usize {
        self.side / self.stride
    }

    /// Cells beyond the border that the first window covers.
    pub(super) fn padding(&self) -> usize {
        if self.kernel == self.stride { 0 } else { self.kernel / 2 }
    }

    /// For the window of result `(y, x)`: the cells of each of its rows that lie on the grid, as `(number of the first
    /// place in the window, number of the first cell of the grid, how many)`.
    pub(super) fn rows(&self, y: usize, x: usize) -> impl Iterator<Item = (usize, usize, usize)> + Clone + use<> {
        let &Self { side, kernel, stride } = self;
        let padding = self.padding();
        let (top, left) = (y * stride, x * stride);
        let first = padding.saturating_sub(left);
        let cells = kernel.min(side + padding - left) - first;
        (0..kernel).filter_map(move |row| {
            let of_grid = (top + row).checked_sub(padding).filter(|&of_grid| of_grid < side)?;
            Some((row * kernel + first, of_grid * side + left + first - padding, cells))
        })
    }

    /// All windows of all grids as rows, `[results, kernel² · channels]`, of cells `[cells, channels]`.
    pub(super) fn unfold(&self, x: &[f32], channels: usize) -> Vec<f32> {
        let (side_out, row) = (self.side_out(), self.kernel * self.kernel * channels);
        let n_grids = x.len() / (self.side * self.side * channels);
        let mut out = vec![0.0; n_grids * side_out * side_out * row];
        let size = self.side * self.side * channels;
        in_parts(
            &mut out,
            row,
            #[inline(always)]
            |first, out| {
                for (i, out) in (first..).zip(out.chunks_exact_mut(row)) {
                    let (grid, i) = (i / (side_out * side_out), i % (side_out * side_out));
                    let grid = &x[grid * size..][..size];
                    for (place, cell, cells) in self.rows(i / side_out, i % side_out) {
                        let n = cells * channels;
                        out[place * channels..][..n].copy_from_slice(&grid[cell * channels..][..n]);
                    }
                }
            },
        );
        out
    }

    /// The way back of [`Windows::unfold`]: every window's numbers are added to the cells they came from.
    pub(super) fn fold(&self, windows: &[f32], channels: usize, dx: &mut [f32]) {
        let (side_out, row) = (self.side_out(), self.kernel * self.kernel * channels);
        let grids = dx.chunks_exact_mut(self.side * self.side * channels);
        for (grid, windows) in grids.zip(windows.chunks_exact(side_out * side_out * row)) {
            for (i, window) in windows.chunks_exact(row).enumerate() {
                for (place, cell, cells) in self.rows(i / side_out, i % side_out) {
                    let n = cells * channels;
                    add_scaled(&mut grid[cell * channels..][..n], 1.0, &window[place * channels..][..n]);
                }
            }
        }
    }
}
