//! Small loops, compiled for the widest vectors that the machine has (`pulp` chooses when the program runs).
//!
//! A closure that is not `#[inline(always)]` is compiled once, for the oldest machine.

use pulp::{Arch, Simd, WithSimd};

/// Runs a loop compiled for this processor's widest vectors. The closure and what it calls must be `#[inline(always)]`:
/// what is not inlined is compiled for the oldest processor. No fused multiply-add, which old ones would have to call a
/// function for.
#[inline(always)]
pub fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(work)
}

/// Sums run in this many lanes, so that they vectorise; the same on every processor.
const LANES: usize = 16;

/// The sum of products, in four sums so that no addition waits for the one before. How wide they are is the processor's
/// affair, so their last bits are too.
///
/// Written in vectors: as a loop over arrays it was compiled number by number.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    struct Dot<'a>(&'a [f32], &'a [f32]);
    impl WithSimd for Dot<'_> {
        type Output = f32;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> f32 {
            let [product] = dots_by(simd, self.0, [self.1]);
            product
        }
    }
    assert_eq!(a.len(), b.len(), "vectors of one length");
    Arch::new().dispatch(Dot(a, b))
}

/// Products of chosen rows of two matrices: `out[i]` is [`dot`] of row `pairs[i].0` of `a` and row `pairs[i].1` of `b`, both
/// `[rows, dim]`. Neighbours with the same row of `a` go through it together, four at most.
pub(crate) struct Pairs<'a> {
    pub(crate) a: &'a [f32],
    pub(crate) b: &'a [f32],
    pub(crate) dim: usize,
    pub(crate) pairs: &'a [(u32, u32)],
    pub(crate) out: &'a mut [f32],
}

impl Pairs<'_> {
    pub(crate) fn multiply(self) {
        Arch::new().dispatch(self);
    }
}

impl WithSimd for Pairs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { a, b, dim, pairs, out } = self;
        // As many sums as there are registers for.
        let most = if S::REGISTER_COUNT < 32 { 2 } else { 4 };
        let mut at = 0;
        while let Some(&(row, _)) = pairs.get(at) {
            let together = pairs[at..].iter().take(most).take_while(|(next, _)| *next == row).count();
            let a = &a[row as usize * dim..][..dim];
            let mut others = [a; 4];
            for (other, &(_, j)) in others.iter_mut().zip(&pairs[at..at + together]) {
                *other = &b[j as usize * dim..][..dim];
            }
            let [j, k, l, m] = others;
            let out = &mut out[at..at + together];
            match together {
                1 => out.copy_from_slice(&dots_by(simd, a, [j])),
                2 => out.copy_from_slice(&dots_by(simd, a, [j, k])),
                3 => out.copy_from_slice(&dots_by(simd, a, [j, k, l])),
                _ => out.copy_from_slice(&dots_by(simd, a, [j, k, l, m])),
            }
            at += together;
        }
    }
}

/// One vector with others of its length, which it is read once for; each product is summed as if it were alone.
#[inline(always)]
fn dots_by<S: Simd, const N: usize>(simd: S, a: &[f32], others: [&[f32]; N]) -> [f32; N] {
    let (a, a_rest) = S::as_simd_f32s(a);
    let (a_fours, a) = a.as_chunks::<4>();
    let mut sums = [[simd.splat_f32s(0.0); 4]; N];
    let mut fours: [&[[S::f32s; 4]]; N] = [&[]; N];
    for k in 0..N {
        fours[k] = &S::as_simd_f32s(others[k]).0.as_chunks::<4>().0[..a_fours.len()];
    }
    for (i, x) in a_fours.iter().enumerate() {
        for k in 0..N {
            for part in 0..4 {
                sums[k][part] = simd.mul_add_e_f32s(x[part], fours[k][i][part], sums[k][part]);
            }
        }
    }
    let mut products = [0.0; N];
    for k in 0..N {
        let (b, b_rest) = S::as_simd_f32s(others[k]);
        let mut sums = sums[k];
        for (&x, &y) in a.iter().zip(b.as_chunks::<4>().1) {
            sums[0] = simd.mul_add_e_f32s(x, y, sums[0]);
        }
        let total = simd.add_f32s(simd.add_f32s(sums[0], sums[1]), simd.add_f32s(sums[2], sums[3]));
        products[k] = simd.reduce_sum_f32s(total) + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f32>();
    }
    products
}

/// The nearest whole number, in a form that vectorises; of numbers between -2¹⁵ and 2¹⁵.
#[inline(always)]
pub fn nearest(x: f32) -> i16 {
    // Adding 1.5 · 2²³ rounds to a whole number, which then stands in the lowest bits.
    (x + 12_582_912.0).to_bits() as i16
}

/// The sum of all lanes, halves on halves: fewer additions that wait for each other than one lane after the other.
#[inline(always)]
fn sum_of_lanes(lanes: [f32; LANES]) -> f32 {
    // Written out: as a loop it went through memory, lane by lane.
    let eight: [f32; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// The sum of `of(x)`.
#[inline(always)]
pub fn sum_of(x: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|&x| of(x)).sum();
    for x in chunks {
        for lane in 0..LANES {
            lanes[lane] += of(x[lane]);
        }
    }
    sum_of_lanes(lanes) + rest
}

/// The largest value; minus infinity of none.
#[inline(always)]
pub fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder().iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    for x in chunks {
        for lane in 0..LANES {
            lanes[lane] = if x[lane] > lanes[lane] { x[lane] } else { lanes[lane] };
        }
    }
    lanes.iter().fold(rest, |a, &b| a.max(b))
}

/// The largest of each column of `rows`, `[n, WIDTH]`; minus infinity of none.
///
/// Written in vectors, which stay in registers: as a loop over an array every row waited for what the row before had stored.
pub(crate) fn largest_of_columns<const WIDTH: usize>(rows: &[[f32; WIDTH]]) -> [f32; WIDTH] {
    struct Largest<'a, const WIDTH: usize>(&'a [[f32; WIDTH]]);
    impl<const WIDTH: usize> WithSimd for Largest<'_, WIDTH> {
        type Output = [f32; WIDTH];

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> [f32; WIDTH] {
            const { assert!(WIDTH.is_multiple_of(S::F32_LANES), "whole vectors") };
            let mut largest = [f32::NEG_INFINITY; WIDTH];
            for (part, out) in S::as_mut_simd_f32s(&mut largest).0.iter_mut().enumerate() {
                let mut most = *out;
                for row in self.0 {
                    most = simd.max_f32s(S::as_simd_f32s(row).0[part], most);
                }
                *out = most;
            }
            largest
        }
    }
    Arch::new().dispatch(Largest(rows))
}

/// Which rows are not below a column's floor, a bit each: `rows` is `[n, WIDTH]`, n at most 32. Nothing is below a number
/// that is none.
pub(crate) fn not_below<const WIDTH: usize>(rows: &[[f32; WIDTH]], floors: &[f32; WIDTH]) -> [u32; WIDTH] {
    struct NotBelow<'a, const WIDTH: usize>(&'a [[f32; WIDTH]], &'a [f32; WIDTH]);
    impl<const WIDTH: usize> WithSimd for NotBelow<'_, WIDTH> {
        type Output = [u32; WIDTH];

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> [u32; WIDTH] {
            const { assert!(WIDTH.is_multiple_of(S::F32_LANES), "whole vectors") };
            let mut bits = [0; WIDTH];
            let floors = S::as_simd_f32s(self.1).0;
            for (part, out) in S::as_mut_simd_u32s(&mut bits).0.iter_mut().enumerate() {
                for (row, values) in self.0.iter().enumerate() {
                    let below = simd.less_than_f32s(S::as_simd_f32s(values).0[part], floors[part]);
                    let bit = simd.select_u32s(below, simd.splat_u32s(0), simd.splat_u32s(1 << row));
                    *out = simd.or_u32s(*out, bit);
                }
            }
            bits
        }
    }
    assert!(rows.len() <= u32::BITS as usize, "a bit a row");
    Arch::new().dispatch(NotBelow(rows, floors))
}

/// Folds rows of products into the best so far: `rows` is `[n, width]`, row `k` of it is region `first + k`.
///
/// A later region wins only by a greater product.
pub(crate) fn maximum_rows(rows: &[f32], first: u32, best: &mut [f32], winners: &mut [u32]) {
    let width = best.len();
    assert_eq!(winners.len(), width, "a winner a column");
    vectorised(
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
    vectorised(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_sums_and_maxima_take_every_element() {
        for n in [0, 1, 15, 16, 17, 63, 64, 65, 200, 1000] {
            // Small whole numbers: sums are exact in any order.
            let x: Vec<f32> = (0..n).map(|i| ((i * 7) % 13) as f32 - 20.0).collect();
            let y: Vec<f32> = (0..n).map(|i| ((i * 5) % 11) as f32 - 5.0).collect();
            let pairs = [(0, 0), (1, 1), (1, 0), (1, 1), (1, 1), (1, 0)];
            let (both, mut products) = ([x.as_slice(), &y].concat(), [f32::NAN; 6]);
            if n > 0 {
                Pairs { a: &both, b: &both, dim: n, pairs: &pairs, out: &mut products }.multiply();
                let of = |(i, j): (usize, usize)| dot(&both[i * n..][..n], &both[j * n..][..n]);
                assert_eq!(products, pairs.map(|(i, j)| of((i as usize, j as usize))), "{n}");
            }
            assert_eq!(dot(&x, &y), x.iter().zip(&y).map(|(x, y)| x * y).sum::<f32>(), "{n}");
            assert_eq!(sum_of(&x, |x| x * x), x.iter().map(|x| x * x).sum::<f32>(), "{n}");
            assert_eq!(largest(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max), "{n}");
        }
    }

    #[test]
    fn halves_go_to_the_even_neighbour() {
        for x in [0.0, 0.4, 0.5, 1.5, 2.5, -0.5, -1.5, -2.6, 127.0, -127.0, 32_767.0, -32_768.0] {
            assert_eq!(f32::from(nearest(x)), x.round_ties_even(), "{x}");
        }
    }
}
