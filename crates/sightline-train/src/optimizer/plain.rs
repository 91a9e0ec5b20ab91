//! The same rules over weights in plain memory, each weight in one loop.

use rayon::prelude::*;
use sightline_model::weights::{Weight, Weights};

use super::{OptimizerKind, OptimizerSettings, muon};

/// Elements that one thread takes at once.
const CHUNK: usize = 1 << 16;

/// What an optimiser of plain weights remembers.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct PlainOptimizer {
    /// Momentum or first moment.
    first: Weights,
    /// Running mean of squared gradients.
    second: Weights,
}

impl PlainOptimizer {
    /// One step over all weights that have a gradient; `step` counts from 0.
    pub fn step(
        &mut self,
        weights: &mut Weights,
        gradients: &Weights,
        settings: &OptimizerSettings,
        rate: f64,
        step: u64,
    ) {
        for (name, gradient) in gradients {
            let weight = weights.get_mut(name).unwrap_or_else(|| panic!("a gradient of {name}, which is no weight"));
            let first = moment(&mut self.first, name, gradient);
            if settings.kind == OptimizerKind::Muon && muon::applies(&weight.shape) {
                muon::step(weight, &gradient.values, first, settings, rate);
                continue;
            }
            let second = moment(&mut self.second, name, gradient);
            let decays = weight.shape.len() > 1;
            let parts = weight.values.par_chunks_mut(CHUNK).zip(gradient.values.par_chunks(CHUNK));
            let moments = first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK));
            parts.zip(moments).for_each(|((weight, gradient), (first, second))| {
                update(weight, gradient, first, second, decays, settings, rate, step);
            });
        }
    }

    /// The state as named weights: `first.NAME` and `second.NAME`.
    pub fn export(&self) -> Weights {
        let named = |prefix: &'static str| {
            move |(name, weight): (&String, &Weight)| (format!("{prefix}.{name}"), weight.clone())
        };
        self.first.iter().map(named("first")).chain(self.second.iter().map(named("second"))).collect()
    }

    /// The state as [`PlainOptimizer::export`] gave it; names of neither kind are an error.
    pub fn import(weights: Weights) -> Result<Self, String> {
        let mut optimizer = Self::default();
        for (name, weight) in weights {
            match name.split_once('.') {
                Some(("first", own)) => optimizer.first.insert(own.to_owned(), weight),
                Some(("second", own)) => optimizer.second.insert(own.to_owned(), weight),
                _ => return Err(format!("{name} is no optimiser state")),
            };
        }
        Ok(optimizer)
    }
}

/// What is remembered of a weight, zeros at first.
fn moment<'a>(moments: &'a mut Weights, name: &str, like: &Weight) -> &'a mut [f32] {
    if !moments.contains_key(name) {
        let zeros = Weight { shape: like.shape.clone(), values: vec![0.0; like.values.len()] };
        moments.insert(name.to_owned(), zeros);
    }
    &mut moments.get_mut(name).expect("just put there").values
}

#[expect(clippy::too_many_arguments, reason = "four slices of one length, and the rule")]
fn update(
    weight: &mut [f32],
    gradient: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    decays: bool,
    settings: &OptimizerSettings,
    rate: f64,
    step: u64,
) {
    let decay = if decays { settings.weight_decay as f32 } else { 0.0 };
    let clip = if settings.clip > 0.0 { settings.clip as f32 } else { f32::INFINITY };
    let (momentum, keep, epsilon) = (settings.momentum as f32, settings.decay as f32, settings.epsilon as f32);
    let elements = weight.iter_mut().zip(gradient).zip(first.iter_mut().zip(second.iter_mut()));
    match settings.kind {
        OptimizerKind::Sgd => {
            let rate = rate as f32;
            for ((w, g), (u, _)) in elements {
                *u = momentum * *u + g.clamp(-clip, clip) + decay * *w;
                *w -= rate * *u;
            }
        }
        OptimizerKind::Rmsprop => {
            let rate = rate as f32;
            for ((w, g), (_, c)) in elements {
                let g = g.clamp(-clip, clip) + decay * *w;
                *c = keep * *c + (1.0 - keep) * g * g;
                *w -= rate * g / (*c + epsilon).sqrt();
            }
        }
        OptimizerKind::Adam | OptimizerKind::Muon => {
            let t = (step + 1) as i32;
            let shrink = 1.0 - rate as f32 * decay;
            let rate = (rate / (1.0 - settings.momentum.powi(t))) as f32;
            let correction = (1.0 / (1.0 - settings.decay.powi(t))) as f32;
            for ((w, g), (m, c)) in elements {
                let g = g.clamp(-clip, clip);
                *m = momentum * *m + (1.0 - momentum) * g;
                *c = keep * *c + (1.0 - keep) * g * g;
                *w = *w * shrink - rate * *m / ((*c * correction).sqrt() + epsilon);
            }
        }
    }
}
