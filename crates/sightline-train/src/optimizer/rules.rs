//! The rules, each over a weight in plain memory in one loop. The weights of a module are taken out of the tensors and put
//! back: on the processor that costs nothing where nobody else holds them, on a card two transfers.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Gradients, Tensor, TensorData};
use rayon::prelude::*;
use sightline_model::weights::{Weight, Weights};

use super::{OptimizerKind, OptimizerSettings, muon};

/// Elements that one thread takes at once.
const CHUNK: usize = 1 << 16;

/// What an optimiser remembers of each weight, by its name.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Optimizer {
    /// Momentum or first moment.
    first: Weights,
    /// Running mean of squared gradients.
    second: Weights,
}

/// One step of all weights.
#[derive(Debug, Clone, Copy)]
struct Step<'a> {
    settings: &'a OptimizerSettings,
    rate: f64,
    /// Counted from 0.
    number: u64,
}

impl Optimizer {
    /// One step over all weights that have a gradient; `step` counts from 0.
    pub fn step(
        &mut self,
        weights: &mut Weights,
        gradients: &Weights,
        settings: &OptimizerSettings,
        rate: f64,
        step: u64,
    ) {
        let step = Step { settings, rate, number: step };
        for (name, gradient) in gradients {
            let weight = weights.get_mut(name).unwrap_or_else(|| panic!("a gradient of {name}, which is no weight"));
            self.update(name, weight, &gradient.values, step);
        }
    }

    /// The same, of a module's weights.
    pub fn step_module<M: Module>(
        &mut self,
        module: M,
        gradients: Gradients,
        settings: &OptimizerSettings,
        rate: f64,
        step: u64,
    ) -> M {
        let step = Step { settings, rate, number: step };
        module.map(&mut Stepper { path: Vec::new(), optimizer: self, gradients, step })
    }

    fn update(&mut self, name: &str, weight: &mut Weight, gradient: &[f32], step: Step<'_>) {
        let Step { settings, rate, number } = step;
        let rule = Rule::new(settings, rate, weight.shape.len() > 1);
        let Self { first, second } = self;
        let moment = |moments| moment(moments, name, &weight.shape);
        if settings.kind == OptimizerKind::Muon && muon::applies(&weight.shape) {
            let first = moment(first);
            return muon::step(weight, gradient, first, settings, rate);
        }
        let moment = |moments| moment(moments).par_chunks_mut(CHUNK);
        match settings.kind {
            OptimizerKind::Sgd => {
                let (u, parts) = (moment(first), parts(weight, gradient));
                parts.zip(u).for_each(|((w, g), u)| rule.sgd(w, g, u));
            }
            OptimizerKind::Rmsprop => {
                let (c, parts) = (moment(second), parts(weight, gradient));
                parts.zip(c).for_each(|((w, g), c)| rule.rmsprop(w, g, c));
            }
            OptimizerKind::Adam | OptimizerKind::Muon => {
                let rule = rule.with_correction(settings, rate, number);
                let ([m, c], parts) = ([first, second].map(moment), parts(weight, gradient));
                parts.zip(m.zip(c)).for_each(|((w, g), (m, c))| rule.adam(w, g, m, c));
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

    /// The state as [`Optimizer::export`] gave it; names of neither kind are an error.
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

/// A weight and its gradient, in parts for threads.
fn parts<'a>(
    weight: &'a mut Weight,
    gradient: &'a [f32],
) -> impl IndexedParallelIterator<Item = (&'a mut [f32], &'a [f32])> {
    weight.values.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK))
}

/// What is remembered of a weight, zeros at first.
fn moment<'a>(moments: &'a mut Weights, name: &str, shape: &[usize]) -> &'a mut [f32] {
    if !moments.contains_key(name) {
        let zeros = Weight { shape: shape.to_vec(), values: vec![0.0; shape.iter().product()] };
        moments.insert(name.to_owned(), zeros);
    }
    &mut moments.get_mut(name).expect("just put there").values
}

/// Takes every weight of a module through a step.
struct Stepper<'a> {
    path: Vec<String>,
    optimizer: &'a mut Optimizer,
    gradients: Gradients,
    step: Step<'a>,
}

impl ModuleMapper for Stepper<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = param.val().grad_remove(&mut self.gradients) else {
            return param;
        };
        let name = self.path.join(".");
        param.map(|tensor| {
            let (shape, device) = (tensor.dims(), tensor.device());
            let mut weight = Weight { shape: shape.to_vec(), values: plain(tensor) };
            self.optimizer.update(&name, &mut weight, &plain(gradient), self.step);
            Tensor::from_data(TensorData::new(weight.values, shape), &device).require_grad()
        })
    }
}

fn plain<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec::<f32>().expect("weights are f32")
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
