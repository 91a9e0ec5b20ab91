//! Small loops, compiled for the widest vectors that the machine has (`pulp` chooses when the program runs).
//!
//! A closure that is not `#[inline(always)]` is compiled once, for the oldest machine.

use pulp::Arch;

/// Folds rows of products into the best so far: `rows` is `[n, width]`, row `k` of it is region `first + k`.
///
/// A later region wins only by a greater product.
pub(crate) fn maximum_rows(rows: &[f32], first: u32, best: &mut [f32], winners: &mut [u32]) {
    let width = best.len();
    assert_eq!(winners.len(), width, "a winner a column");
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (region, row) in (first..).zip(rows.chunks_exact(width)) {
                for ((best, winner), &product) in best.iter_mut().zip(winners.iter_mut()).zip(row) {
                    let better = product > *best;
                    *best = if better { product } else { *best };
                    *winner = if better { region } else { *winner };
                }
            }
        },
    );
}

/// `out[at..] += scale · x` for every term `(at, scale, x)`, in order.
pub(crate) fn add_scaled<'a>(out: &mut [f32], terms: impl Iterator<Item = (usize, f32, &'a [f32])>) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (at, scale, x) in terms {
                for (out, &x) in out[at..at + x.len()].iter_mut().zip(x) {
                    *out += scale * x;
                }
            }
        },
    );
}
