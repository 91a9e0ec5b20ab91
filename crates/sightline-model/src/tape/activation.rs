//! Nonlinearities that work on each number alone, and their slopes.

use std::f32::consts::{FRAC_1_SQRT_2, PI};

use serde::{Deserialize, Serialize};

use crate::matrix::{exp, in_parts, sigmoid, tanh, vectorised};

/// A nonlinearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `max(0, x)`.
    Relu,
    /// `x · sigmoid(x)`.
    Silu,
    /// `x · Φ(x)`, by the error function.
    Gelu,
    /// `x · sigmoid(1.702 x)`, OpenAI's CLIP.
    QuickGelu,
    /// GELU by a hyperbolic tangent, SigLIP.
    TanhGelu,
}

impl Activation {
    /// Every number to its value.
    pub(crate) fn apply(self, values: &mut [f32]) {
        match self {
            Self::Relu => each(values, |x| if x < 0.0 { 0.0 } else { x }), // what is not a number stays so
            Self::Silu => each(values, |x| x * sigmoid(x)),
            Self::Gelu => each(values, |x| x * normal(x).0),
            Self::QuickGelu => each(values, |x| x * sigmoid(1.702 * x)),
            Self::TanhGelu => each(values, |x| 0.5 * x * (1.0 + tanh(inner(x)))),
        }
    }

    /// Every number of `g` times the slope at the number of `values` at its place.
    pub(crate) fn multiply_slopes(self, g: &mut [f32], values: &[f32]) {
        match self {
            Self::Relu => slopes(g, values, |x| if x > 0.0 { 1.0 } else { 0.0 }),
            Self::Silu => slopes(g, values, |x| {
                let s = sigmoid(x);
                s * (1.0 + x * (1.0 - s))
            }),
            Self::Gelu => slopes(g, values, |x| {
                let (below, density) = normal(x);
                below + x * density
            }),
            Self::QuickGelu => slopes(g, values, |x| {
                let s = sigmoid(1.702 * x);
                s * (1.0 + 1.702 * x * (1.0 - s))
            }),
            Self::TanhGelu => slopes(g, values, |x| {
                let t = tanh(inner(x));
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * (2.0 / PI).sqrt() * (1.0 + 3.0 * 0.044_715 * x * x)
            }),
        }
    }
}

#[inline(always)]
fn inner(x: f32) -> f32 {
    (2.0 / PI).sqrt() * (x + 0.044_715 * x * x * x)
}

/// The normal distribution below `x`, and its density there. The error function to 1.5e-7 (Abramowitz and Stegun 7.1.26).
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    let bell = exp(-0.5 * x * x);
    let z = x.abs() * FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let mut p = 1.061_405_4f32;
    for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = p * t + coefficient;
    }
    let tail = 0.5 * p * t * bell; // of one side
    (if x < 0.0 { tail } else { 1.0 - tail }, bell / (2.0 * PI).sqrt())
}

#[inline(always)]
fn each(values: &mut [f32], value: impl Fn(f32) -> f32 + Sync) {
    in_parts(
        values,
        1,
        #[inline(always)]
        |_, values| values.iter_mut().for_each(|x| *x = value(*x)),
    );
}

#[inline(always)]
fn slopes(g: &mut [f32], values: &[f32], slope: impl Fn(f32) -> f32) {
    vectorised(
        #[inline(always)]
        || g.iter_mut().zip(values).for_each(|(g, &x)| *g *= slope(x)),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Activation; 5] =
        [Activation::Relu, Activation::Silu, Activation::Gelu, Activation::QuickGelu, Activation::TanhGelu];

    fn at(activation: Activation, x: f32) -> f32 {
        let mut value = [x];
        activation.apply(&mut value);
        value[0]
    }

    #[test]
    fn values_are_those_of_the_formulas() {
        // At -1.5 and 0.7, in double precision, with the C library's error function.
        let expected = [
            [0.0, 0.7],
            [-0.273_638_2, 0.467_731_5],
            [-0.100_210_8, 0.530_625_4],
            [-0.108_337_8, 0.536_894],
            [-0.100_428_4, 0.530_570_9],
        ];
        for (activation, [low, high]) in ALL.into_iter().zip(expected) {
            for (x, expected) in [(-1.5, low), (0.7, high)] {
                let got = at(activation, x);
                assert!((got - expected).abs() < 1e-5, "{activation:?} of {x} is {got}, not {expected}");
            }
            assert!(at(activation, 40.0) == 40.0 && at(activation, -40.0).abs() < 1e-6, "{activation:?} far away");
        }
    }

    #[test]
    fn slopes_are_differences() {
        for activation in ALL {
            for x in [-3.0, -1.1, -0.2, 0.3, 0.9, 2.5f32] {
                let mut slope = [1.0];
                activation.multiply_slopes(&mut slope, &[x]);
                let expected = (at(activation, x + 1e-2) - at(activation, x - 1e-2)) / 2e-2;
                assert!((slope[0] - expected).abs() < 1e-3, "{activation:?} at {x}: {} for {expected}", slope[0]);
            }
        }
    }
}
