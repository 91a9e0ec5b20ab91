//! One word's step of a recurrence, forward and backward, as loops that the compiler turns into vector instructions of
//! the widest kind that the machine has (`pulp` chooses when the program runs).
//!
//! A closure that is not `#[inline(always)]` is compiled once, for the oldest machine.

use crate::matrix::{sigmoid, tanh, vectorised};

/// `out += x`.
pub(super) fn add(out: &mut [f32], x: &[f32]) {
    assert_eq!(out.len(), x.len(), "vectors of one length");
    vectorised(
        #[inline(always)]
        || out.iter_mut().zip(x).for_each(|(out, &x)| *out += x),
    );
}

/// `h = max(0, x + sums + bias)`.
pub(super) fn relu_step(x: &[f32], sums: &[f32], bias: &[f32], h: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            for (((h, &x), &sum), &bias) in h.iter_mut().zip(x).zip(sums).zip(bias) {
                let sum = x + sum + bias;
                *h = if sum < 0.0 { 0.0 } else { sum }; // what is not a number stays so
            }
        },
    );
}

/// Gradient of what went into the ReLU: the state's, where the state is not zero.
pub(super) fn relu_back(h: &[f32], of_h: &[f32], of_x: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            for ((of_x, &h), &of_h) in of_x.iter_mut().zip(h).zip(of_h) {
                *of_x = if h > 0.0 { of_h } else { 0.0 };
            }
        },
    );
}

/// One step of a gated recurrent unit; gates lie r, z, n.
///
/// `r = σ(x_r + u_r)`, `z = σ(x_z + u_z)`, `n = tanh(x_n + r u_n)`, `h = (1 - z) n + z h'`, where `u = h' U + b`.
pub(super) fn gru_step(
    x: &[f32],
    sums: &[f32],
    bias: &[f32],
    before: Option<&[f32]>,
    h: &mut [f32],
    gates: &mut [f32],
    recurrent: &mut [f32],
) {
    let hidden = h.len();
    let [x_r, x_z, x_n] = thirds(x, hidden);
    let [s_r, s_z, s_n] = thirds(sums, hidden);
    let [b_r, b_z, b_n] = thirds(bias, hidden);
    let (r, rest) = gates.split_at_mut(hidden);
    let (z, n) = rest.split_at_mut(hidden);
    let recurrent = &mut recurrent[..hidden];
    vectorised(
        #[inline(always)]
        || {
            for i in 0..hidden {
                r[i] = sigmoid(x_r[i] + s_r[i] + b_r[i]);
                z[i] = sigmoid(x_z[i] + s_z[i] + b_z[i]);
                recurrent[i] = s_n[i] + b_n[i];
                n[i] = tanh(x_n[i] + r[i] * recurrent[i]);
            }
            match before {
                Some(before) => {
                    for i in 0..hidden {
                        h[i] = n[i] + z[i] * (before[i] - n[i]);
                    }
                }
                None => {
                    for i in 0..hidden {
                        h[i] = n[i] - z[i] * n[i];
                    }
                }
            }
        },
    );
}

/// Backward of [`gru_step`]: `of_h` comes in as the gradient of `h` and leaves as what `z` passes on to the state before.
pub(super) fn gru_back(
    gates: &[f32],
    recurrent: &[f32],
    before: &[f32],
    of_h: &mut [f32],
    of_x: &mut [f32],
    of_product: &mut [f32],
) {
    let hidden = of_h.len();
    let [r, z, n] = thirds(gates, hidden);
    let (recurrent, before) = (&recurrent[..hidden], &before[..hidden]);
    let (x_r, rest) = of_x.split_at_mut(hidden);
    let (x_z, x_n) = rest.split_at_mut(hidden);
    let (p_r, rest) = of_product.split_at_mut(hidden);
    let (p_z, p_n) = rest.split_at_mut(hidden);
    vectorised(
        #[inline(always)]
        || {
            for i in 0..hidden {
                let of_n = of_h[i] * (1.0 - z[i]) * (1.0 - n[i] * n[i]);
                let of_z = of_h[i] * (before[i] - n[i]) * z[i] * (1.0 - z[i]);
                let of_r = of_n * recurrent[i] * r[i] * (1.0 - r[i]);
                (x_r[i], x_z[i], x_n[i]) = (of_r, of_z, of_n);
                (p_r[i], p_z[i], p_n[i]) = (of_r, of_z, of_n * r[i]);
                of_h[i] *= z[i];
            }
        },
    );
}

fn thirds(x: &[f32], hidden: usize) -> [&[f32]; 3] {
    assert_eq!(x.len(), 3 * hidden, "three gates");
    [&x[..hidden], &x[hidden..2 * hidden], &x[2 * hidden..]]
}
