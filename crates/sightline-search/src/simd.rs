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
            dot_by(simd, self.0, self.1)
        }
    }
    assert_eq!(a.len(), b.len(), "vectors of one length");
    Arch::new().dispatch(Dot(a, b))
}

#[inline(always)]
fn dot_by<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (S::as_simd_f32s(a), S::as_simd_f32s(b));
    let ((a_fours, a), (b_fours, b)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let mut sums = [simd.splat_f32s(0.0); 4];
    for (x, y) in a_fours.iter().zip(b_fours) {
        for part in 0..4 {
            sums[part] = simd.mul_add_e_f32s(x[part], y[part], sums[part]);
        }
    }
    for (&x, &y) in a.iter().zip(b) {
        sums[0] = simd.mul_add_e_f32s(x, y, sums[0]);
    }
    let total = simd.add_f32s(simd.add_f32s(sums[0], sums[1]), simd.add_f32s(sums[2], sums[3]));
    simd.reduce_sum_f32s(total) + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f32>()
}

/// Products of chosen rows of two matrices: `out[i]` is [`dot`] of row `pairs[i].0` of `a` and row `pairs[i].1` of `b`, both
/// `[rows, dim]`. Neighbours with the same row of `a` go through it two by two.
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
        let (of_a, of_b) = (|i: u32| &a[i as usize * dim..][..dim], |j: u32| &b[j as usize * dim..][..dim]);
        let mut at = 0;
        while let Some(&(i, j)) = pairs.get(at) {
            match pairs.get(at + 1) {
                Some(&(next, other)) if next == i => {
                    [out[at], out[at + 1]] = two_dots_by(simd, of_a(i), of_b(j), of_b(other));
                    at += 2;
                }
                _ => {
                    out[at] = dot_by(simd, of_a(i), of_b(j));
                    at += 1;
                }
            }
        }
    }
}

/// One vector with two others: a third fewer loads than one after the other.
#[inline(always)]
fn two_dots_by<S: Simd>(simd: S, a: &[f32], b: &[f32], c: &[f32]) -> [f32; 2] {
    let [(a, a_rest), (b, b_rest), (c, c_rest)] = [a, b, c].map(S::as_simd_f32s);
    let [(a_fours, a), (b_fours, b), (c_fours, c)] = [a, b, c].map(|x| x.as_chunks::<4>());
    let (mut of_b, mut of_c) = ([simd.splat_f32s(0.0); 4], [simd.splat_f32s(0.0); 4]);
    for ((x, y), z) in a_fours.iter().zip(b_fours).zip(c_fours) {
        for part in 0..4 {
            of_b[part] = simd.mul_add_e_f32s(x[part], y[part], of_b[part]);
            of_c[part] = simd.mul_add_e_f32s(x[part], z[part], of_c[part]);
        }
    }
    for ((&x, &y), &z) in a.iter().zip(b).zip(c) {
        of_b[0] = simd.mul_add_e_f32s(x, y, of_b[0]);
        of_c[0] = simd.mul_add_e_f32s(x, z, of_c[0]);
    }
    let sum = |sums: [S::f32s; 4], rest: &[f32]| {
        let total = simd.add_f32s(simd.add_f32s(sums[0], sums[1]), simd.add_f32s(sums[2], sums[3]));
        simd.reduce_sum_f32s(total) + a_rest.iter().zip(rest).map(|(x, y)| x * y).sum::<f32>()
    };
    [sum(of_b, b_rest), sum(of_c, c_rest)]
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
