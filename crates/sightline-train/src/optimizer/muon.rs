//! Muon's rule for one matrix.

use sightline_model::Matrix;
use sightline_model::orthogonal::orthogonalized;
use sightline_model::weights::Weight;

use super::OptimizerSettings;

/// Matrices with a shorter side than this, or with a longer one that is more than [`MOST_LONGER`] times as long, hold rows of
/// their own more than they map vectors to vectors (windows of channels, words, classes), and are left to Adam.
const LEAST_SIDE: usize = 32;
const MOST_LONGER: usize = 8;
/// The root mean square of Adam's steps, about.
const ADAM_STEP: f32 = 0.2;

/// Whether a weight of this shape follows the rule.
pub(super) fn applies(shape: &[usize]) -> bool {
    let &[rows, columns] = shape else { return false };
    let (shorter, longer) = (rows.min(columns), rows.max(columns));
    shorter >= LEAST_SIDE && longer <= MOST_LONGER * shorter
}

/// One step of a matrix with Nesterov's momentum `first`.
pub(super) fn step(weight: &mut Weight, gradient: &[f32], first: &mut [f32], settings: &OptimizerSettings, rate: f64) {
    let (rows, columns) = (weight.shape[0], weight.shape[1]);
    let clip = if settings.clip > 0.0 { settings.clip as f32 } else { f32::INFINITY };
    let momentum = settings.momentum as f32;
    let ahead = first.iter_mut().zip(gradient).map(|(u, g)| {
        let g = g.clamp(-clip, clip);
        *u = momentum * *u + g;
        g + momentum * *u
    });
    let direction = orthogonalized(&Matrix::new(rows, columns, ahead.collect()));
    let shrink = 1.0 - (rate * settings.weight_decay) as f32;
    let scale = rate as f32 * ADAM_STEP * (rows.max(columns) as f32).sqrt();
    weight.values.iter_mut().zip(&direction.values).for_each(|(w, d)| *w = *w * shrink - scale * d);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::{Optimizer, OptimizerKind};
    use sightline_model::random;
    use sightline_model::weights::Weights;

    /// The gradient of row `i` is `(i + 1)²` times what is left: the gradient alone, in steps that the steepest row bears,
    /// would leave nine tenths of the first row.
    #[test]
    fn a_stretched_bowl_is_descended_evenly() {
        let (rows, columns) = (LEAST_SIDE, 2 * LEAST_SIDE);
        let target = random::uniform_values(&mut random::stream(4, 0), rows * columns, 1.0);
        let shape = vec![rows, columns];
        let of = |values: Vec<f32>| Weights::from([("w".to_owned(), Weight { shape: shape.clone(), values })]);
        let settings = OptimizerSettings { kind: OptimizerKind::Muon, clip: 0.0, ..OptimizerSettings::default() };
        let (mut weights, mut optimizer) = (of(vec![0.0; rows * columns]), Optimizer::default());
        let left =
            |weights: &Weights| -> Vec<f32> { weights["w"].values.iter().zip(&target).map(|(w, t)| w - t).collect() };
        let length = |left: &[f32]| left.iter().map(|x| x * x).sum::<f32>().sqrt();
        let before = left(&weights);
        for step in 0..100 {
            let stretched = |(i, x): (usize, &f32)| ((i / columns + 1) as f32).powi(2) * x;
            let gradient = of(left(&weights).iter().enumerate().map(stretched).collect());
            optimizer.step(&mut weights, &gradient, &settings, 0.2 * (1.0 - f64::from(step as u32) / 100.0), step);
        }
        let after = left(&weights);
        for row in [0, rows - 1] {
            let own = row * columns..(row + 1) * columns;
            let (before, after) = (length(&before[own.clone()]), length(&after[own]));
            assert!(after < 0.3 * before, "row {row}: {after} of {before} left");
        }
    }

    #[test]
    fn only_maps_from_vectors_to_vectors_follow_it() {
        assert!(applies(&[32, 40]));
        assert!(!applies(&[25, 64]) && !applies(&[64]) && !applies(&[64, 5]) && !applies(&[2538, 300]));
    }
}
