//! Convolution of every channel on its own, stride 1, zeros beyond the border. Channels go through in parts of a length
//! known to the compiler, whose sums stay in registers.

use std::ops::Range;

use crate::matrix::{in_parts, vectorised};

/// Square grids, one after the other, row by row, and the windows that move over them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Depthwise {
    /// Cells along a side of each grid.
    pub(super) side: usize,
    /// Numbers a cell.
    pub(super) channels: usize,
    /// Cells along a side of a window; odd.
    pub(super) kernel: usize,
}

impl Depthwise {
    /// Adds the sum over its window to every cell of `out`: `x` and `out` are `[cells, channels]`, `matrix` is
    /// `[kernel², channels]`.
    pub(super) fn convolve(&self, x: &[f32], matrix: &[f32], out: &mut [f32]) {
        let channels = self.channels;
        in_parts(
            out,
            channels,
            #[inline(always)]
            |first_cell, out| {
                for (cell, out) in (first_cell..).zip(out.chunks_exact_mut(channels)) {
                    let mut first = 0;
                    while first < channels {
                        first += match channels - first {
                            64.. => self.window::<64>(x, matrix, cell, first, out),
                            16.. => self.window::<16>(x, matrix, cell, first, out),
                            _ => self.window::<1>(x, matrix, cell, first, out),
                        };
                    }
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
        let &Self { side, channels, kernel } = self;
        let mut out = vec![0.0; kernel * kernel * channels];
        vectorised(
            #[inline(always)]
            || {
                for row in 0..g.len() / (side * channels) {
                    for (place, out) in out.chunks_exact_mut(channels).enumerate() {
                        let (down, right) = (place / kernel, place % kernel);
                        if !self.places(row % side).contains(&down) {
                            continue;
                        }
                        let mut first = 0;
                        while first < channels {
                            first += match channels - first {
                                64.. => self.row::<64>(x, g, row, [down, right], first, out),
                                16.. => self.row::<16>(x, g, row, [down, right], first, out),
                                _ => self.row::<1>(x, g, row, [down, right], first, out),
                            };
                        }
                    }
                }
            },
        );
        out
    }

    /// Cells beyond the border that the first window covers.
    fn padding(&self) -> usize {
        self.kernel / 2
    }

    /// Along one side, the places of the window around cell `at` that lie on the grid.
    fn places(&self, at: usize) -> Range<usize> {
        self.padding().saturating_sub(at)..self.kernel.min(self.side + self.padding() - at)
    }

    /// Adds to `N` channels of a cell, from the channel `first` on, the sum over its window; `N`.
    #[inline(always)]
    fn window<const N: usize>(&self, x: &[f32], matrix: &[f32], cell: usize, first: usize, out: &mut [f32]) -> usize {
        let &Self { side, channels, kernel } = self;
        let (down, right) = (cell / side % side, cell % side);
        let out: &mut [f32; N] = (&mut out[first..first + N]).try_into().expect("N numbers");
        let mut sums = *out;
        for y in self.places(down) {
            for x_place in self.places(right) {
                let under = cell + y * side + x_place - self.padding() * (side + 1);
                let weights = (y * kernel + x_place) * channels + first;
                let weights: &[f32; N] = matrix[weights..weights + N].try_into().expect("N numbers");
                let numbers: &[f32; N] =
                    x[under * channels + first..under * channels + first + N].try_into().expect("N numbers");
                for i in 0..N {
                    sums[i] += weights[i] * numbers[i];
                }
            }
        }
        *out = sums;
        N
    }

    /// Adds to `N` channels of the gradient of one of the window's places what a row of cells has for it; `N`.
    #[inline(always)]
    fn row<const N: usize>(
        &self,
        x: &[f32],
        g: &[f32],
        row: usize,
        [down, right]: [usize; 2],
        first: usize,
        out: &mut [f32],
    ) -> usize {
        let &Self { side, channels, .. } = self;
        let padding = self.padding();
        let out: &mut [f32; N] = (&mut out[first..first + N]).try_into().expect("N numbers");
        let mut sums = *out;
        for at in padding.saturating_sub(right)..side.min(side + padding - right) {
            let cell = row * side + at;
            let under = (cell + down * side + right - padding * (side + 1)) * channels + first;
            let numbers: &[f32; N] = x[under..under + N].try_into().expect("N numbers");
            let slopes: &[f32; N] =
                g[cell * channels + first..cell * channels + first + N].try_into().expect("N numbers");
            for i in 0..N {
                sums[i] += numbers[i] * slopes[i];
            }
        }
        *out = sums;
        N
    }
}
