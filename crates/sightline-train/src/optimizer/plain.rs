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
            let rule = Rule::new(settings, rate, weight.shape.len() > 1);
            let Self { first, second } = &mut *self;
            let is_matrix = muon::applies(&weight.shape);
            let parts = weight.values.par_chunks_mut(CHUNK).zip(gradient.values.par_chunks(CHUNK));
            match settings.kind {
                OptimizerKind::Sgd => {
                    parts
                        .zip(moment(first, name, gradient).par_chunks_mut(CHUNK))
                        .for_each(|((w, g), u)| rule.sgd(w, g, u));
                }
                OptimizerKind::Rmsprop => {
                    parts
                        .zip(moment(second, name, gradient).par_chunks_mut(CHUNK))
                        .for_each(|((w, g), c)| rule.rmsprop(w, g, c));
                }
                OptimizerKind::Muon if is_matrix => {
                    muon::step(weight, &gradient.values, moment(first, name, gradient), settings, rate);
                }
                OptimizerKind::Adam | OptimizerKind::Muon => {
                    let rule = rule.with_correction(settings, rate, step);
                    let [m, c] = [first, second].map(|moments| moment(moments, name, gradient).par_chunks_mut(CHUNK));
                    parts.zip(m.zip(c)).for_each(|((w, g), (m, c))| rule.adam(w, g, m, c));
                }
            }
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

/// The numbers of one step over one weight.
#[derive(Clone, Copy)]
struct Rule {
    /// Of weights, a step; vectors keep theirs.
    decay: f32,
    /// The largest gradient.
    clip: f32,
    momentum: f32,
    /// Share of squared gradients that stays.
    keep: f32,
    epsilon: f32,
    rate: f32,
    /// What decayed weights are multiplied by, and squared gradients: Adam's.
    shrink: f32,
    correction: f32,
}

impl Rule {
    fn new(settings: &OptimizerSettings, rate: f64, decays: bool) -> Self {
        Self {
            decay: if decays { settings.weight_decay as f32 } else { 0.0 },
            clip: if settings.clip > 0.0 { settings.clip as f32 } else { f32::INFINITY },
            momentum: settings.momentum as f32,
            keep: settings.decay as f32,
            epsilon: settings.epsilon as f32,
            rate: rate as f32,
            shrink: 1.0,
            correction: 1.0,
        }
    }

    /// With what makes up for moments that began at zero.
    fn with_correction(self, settings: &OptimizerSettings, rate: f64, step: u64) -> Self {
        let t = (step + 1) as i32;
        Self {
            shrink: 1.0 - rate as f32 * self.decay,
            rate: (rate / (1.0 - settings.momentum.powi(t))) as f32,
            correction: (1.0 / (1.0 - settings.decay.powi(t))) as f32,
            ..self
        }
    }

    fn sgd(self, weight: &mut [f32], gradient: &[f32], first: &mut [f32]) {
        let Self { decay, clip, momentum, rate, .. } = self;
        for ((w, g), u) in weight.iter_mut().zip(gradient).zip(first) {
            *u = momentum * *u + g.clamp(-clip, clip) + decay * *w;
            *w -= rate * *u;
        }
    }

    fn rmsprop(self, weight: &mut [f32], gradient: &[f32], second: &mut [f32]) {
        let Self { decay, clip, keep, epsilon, rate, .. } = self;
        for ((w, g), c) in weight.iter_mut().zip(gradient).zip(second) {
            let g = g.clamp(-clip, clip) + decay * *w;
            *c = keep * *c + (1.0 - keep) * g * g;
            *w -= rate * g / (*c + epsilon).sqrt();
        }
    }

    fn adam(self, weight: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let Self { clip, momentum, keep, epsilon, rate, shrink, correction, .. } = self;
        for ((w, g), (m, c)) in weight.iter_mut().zip(gradient).zip(first.iter_mut().zip(second)) {
            let g = g.clamp(-clip, clip);
            *m = momentum * *m + (1.0 - momentum) * g;
            *c = keep * *c + (1.0 - keep) * g * g;
            *w = *w * shrink - rate * *m / ((*c * correction).sqrt() + epsilon);
        }
    }
}
