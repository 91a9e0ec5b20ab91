//! Optimisers over a module's named weights. Ours, so that the state is keyed by name and a checkpoint has the same
//! bytes for the same seed, and so that clipping, decay and epsilon sit where the paper and NeuralTalk have them.

mod average;
mod learnt;
mod module;
mod muon;
mod plain;

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Gradients, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use sightline_model::weights::{Weight, Weights};

use crate::{Error, Result};

pub use average::Average;
use learnt::check_state;
pub(crate) use learnt::{Learnt, accumulate, same_sizes};
pub(crate) use module::LearntModule;
pub use plain::PlainOptimizer;

/// Which rule turns gradients into steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// `u = momentum · u + g; w -= rate · u` (the paper's for alignment).
    Sgd,
    /// `c = decay · c + (1 - decay) · g²; w -= rate · g / sqrt(c + epsilon)` (the paper's for captions, as NeuralTalk).
    Rmsprop,
    /// Adam with bias correction and decoupled weight decay.
    Adam,
    /// Momentum with its singular values brought near 1, for matrices; Adam for the rest (Jordan et al. 2024). Steps are
    /// scaled to the size of Adam's (Liu et al. 2025), so that both take the same learning rates. Its products are rounded
    /// to bfloat16 where the processor multiplies them, whatever the run's precision.
    Muon,
}

/// How the learning rate moves over a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// A half cosine down to zero at the last step.
    Cosine,
}

/// Settings of the optimiser.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerSettings {
    /// The rule.
    pub kind: OptimizerKind,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// How it moves.
    pub schedule: Schedule,
    /// Steps over which the rate rises from zero.
    pub warmup_steps: u64,
    /// Momentum of `sgd` and `muon`, first moment of `adam`.
    pub momentum: f64,
    /// Decay of the squared gradients in `rmsprop` and `adam`.
    pub decay: f64,
    /// Added below the root.
    pub epsilon: f64,
    /// L2 penalty: `weight_decay · w` is added to the gradient of every matrix (`adam` and `muon`: taken off
    /// the weight instead).
    pub weight_decay: f64,
    /// Every element of a gradient is clipped to `-clip..=clip` (paper: 5); 0 turns it off.
    pub clip: f64,
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::Sgd,
            learning_rate: 1e-3,
            schedule: Schedule::Constant,
            warmup_steps: 0,
            momentum: 0.9,
            decay: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip: 5.0,
        }
    }
}

impl OptimizerSettings {
    /// Refuses what no training can follow.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { learning_rate, momentum, decay, epsilon, weight_decay, clip, .. } = *self;
        let refuse = |name: &str, value: f64, expected: &str| {
            Err(Error::Setting(format!("optimizer.{name} = {value}: expected {expected}")))
        };
        if !(learning_rate > 0.0 && learning_rate.is_finite()) {
            return refuse("learning_rate", learning_rate, "a number above 0");
        }
        for (name, value) in [("momentum", momentum), ("decay", decay)] {
            if !(0.0..1.0).contains(&value) {
                return refuse(name, value, "0 or more and less than 1");
            }
        }
        if !(epsilon > 0.0 && epsilon.is_finite()) {
            return refuse("epsilon", epsilon, "a number above 0");
        }
        for (name, value) in [("weight_decay", weight_decay), ("clip", clip)] {
            if !(value >= 0.0 && value.is_finite()) {
                return refuse(name, value, "a number of 0 or more");
            }
        }
        Ok(())
    }

    /// The rate of step `step` (from 0) out of `steps`.
    pub fn rate(&self, step: u64, steps: u64) -> f64 {
        let warmup = ((step + 1) as f64 / (self.warmup_steps + 1) as f64).min(1.0);
        let progress = step as f64 / steps.max(1) as f64;
        let shape = match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        self.learning_rate * warmup * shape
    }
}

/// What an optimiser remembers of each weight, flat, by the weight's name.
#[derive(Debug, Default)]
pub struct Optimizer {
    /// Momentum or first moment.
    first: BTreeMap<String, Tensor<1>>,
    /// Running mean of squared gradients.
    second: BTreeMap<String, Tensor<1>>,
}

impl Optimizer {
    /// One step over all weights that have a gradient; `step` counts from 0.
    pub fn step<M: Module>(
        &mut self,
        module: M,
        gradients: &Gradients,
        settings: &OptimizerSettings,
        rate: f64,
        step: u64,
    ) -> M {
        module.map(&mut Stepper { path: Vec::new(), optimizer: self, gradients, settings, rate, step })
    }

    /// The state as named weights: `first.NAME` and `second.NAME`.
    pub fn export(&self) -> Weights {
        let mut weights = Weights::new();
        for (prefix, map) in [("first", &self.first), ("second", &self.second)] {
            for (name, tensor) in map {
                let values = tensor.to_data().try_into_vec::<f32>().expect("the state is f32");
                weights.insert(format!("{prefix}.{name}"), Weight { shape: vec![values.len()], values });
            }
        }
        weights
    }

    /// The state as [`Optimizer::export`] gave it; names of neither kind are an error.
    pub fn import(weights: Weights, device: &burn::tensor::Device) -> Result<Self, String> {
        let mut optimizer = Self::default();
        for (name, weight) in weights {
            let map = match name.split_once('.') {
                Some(("first", _)) => &mut optimizer.first,
                Some(("second", _)) => &mut optimizer.second,
                _ => return Err(format!("{name} is no optimiser state")),
            };
            let own = name.split_once('.').map_or("", |(_, own)| own).to_owned();
            let n = weight.values.len();
            map.insert(own, Tensor::from_data(TensorData::new(weight.values, [n]), device));
        }
        Ok(optimizer)
    }
}

struct Stepper<'a> {
    path: Vec<String>,
    optimizer: &'a mut Optimizer,
    gradients: &'a Gradients,
    settings: &'a OptimizerSettings,
    rate: f64,
    step: u64,
}

impl ModuleMapper for Stepper<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = param.val().grad(self.gradients) else {
            return param;
        };
        let name = self.path.join(".");
        param.map(|weight| {
            let shape = weight.dims();
            let n = shape.iter().product::<usize>();
            let decays = D > 1;
            let weight = weight.inner().reshape([n]);
            if self.settings.kind == OptimizerKind::Muon && muon::applies(&shape) {
                let weight = self.muon(&name, weight, gradient.reshape([n]), &shape);
                return Tensor::from_inner(weight.reshape(shape)).require_grad();
            }
            let weight = self.update(&name, weight, gradient.reshape([n]), decays);
            Tensor::from_inner(weight.reshape(shape)).require_grad()
        })
    }
}

impl Stepper<'_> {
    fn update(&mut self, name: &str, weight: Tensor<1>, gradient: Tensor<1>, decays: bool) -> Tensor<1> {
        let &OptimizerSettings { kind, momentum, decay, epsilon, weight_decay, clip, .. } = self.settings;
        let weight_decay = if decays { weight_decay } else { 0.0 };
        let mut g = if clip > 0.0 { gradient.clamp(-clip, clip) } else { gradient };
        if weight_decay > 0.0 && matches!(kind, OptimizerKind::Sgd | OptimizerKind::Rmsprop) {
            g = g + weight.clone() * weight_decay;
        }
        match kind {
            OptimizerKind::Sgd => {
                let u = match self.optimizer.first.remove(name) {
                    Some(u) => u * momentum + g,
                    None => g,
                };
                self.optimizer.first.insert(name.to_owned(), u.clone());
                weight - u * self.rate
            }
            OptimizerKind::Rmsprop => {
                let c = self.second_moment(name, &g, decay);
                weight - g * self.rate / (c + epsilon).sqrt()
            }
            OptimizerKind::Adam | OptimizerKind::Muon => {
                let c = self.second_moment(name, &g, decay);
                let m = match self.optimizer.first.remove(name) {
                    Some(m) => m * momentum + g * (1.0 - momentum),
                    None => g * (1.0 - momentum),
                };
                self.optimizer.first.insert(name.to_owned(), m.clone());
                let t = (self.step + 1) as i32;
                let (m, c) = (m / (1.0 - momentum.powi(t)), c / (1.0 - decay.powi(t)));
                weight * (1.0 - self.rate * weight_decay) - m * self.rate / (c.sqrt() + epsilon)
            }
        }
    }

    /// The rule for a matrix, in plain memory.
    fn muon(&mut self, name: &str, weight: Tensor<1>, gradient: Tensor<1>, shape: &[usize]) -> Tensor<1> {
        let device = weight.device();
        let plain = |tensor: Tensor<1>| tensor.into_data().try_into_vec::<f32>().expect("weights are f32");
        let tensor = |values: Vec<f32>| {
            let n = values.len();
            Tensor::from_data(TensorData::new(values, [n]), &device)
        };
        let mut weight = Weight { shape: shape.to_vec(), values: plain(weight) };
        let mut first = self.optimizer.first.remove(name).map_or_else(|| vec![0.0; weight.values.len()], plain);
        muon::step(&mut weight, &plain(gradient), &mut first, self.settings, self.rate);
        self.optimizer.first.insert(name.to_owned(), tensor(first));
        tensor(weight.values)
    }

    fn second_moment(&mut self, name: &str, g: &Tensor<1>, decay: f64) -> Tensor<1> {
        let square = g.clone().square() * (1.0 - decay);
        let c = match self.optimizer.second.remove(name) {
            Some(c) => c * decay + square,
            None => square,
        };
        self.optimizer.second.insert(name.to_owned(), c.clone());
        c
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use sightline_model::{random, weights};

    #[derive(Module, Debug)]
    struct Two {
        matrix: Param<Tensor<2>>,
        bias: Param<Tensor<1>>,
    }

    /// The rules written out for one number.
    fn by_hand(settings: &OptimizerSettings, mut w: f64, gradients: &[f64], decays: bool) -> f64 {
        let (mut u, mut c) = (0.0, 0.0);
        for (t, g) in gradients.iter().enumerate() {
            let decay = if decays { settings.weight_decay } else { 0.0 };
            let mut g = g.clamp(-settings.clip, settings.clip);
            match settings.kind {
                OptimizerKind::Sgd => {
                    g += decay * w;
                    u = settings.momentum * u + g;
                    w -= settings.learning_rate * u;
                }
                OptimizerKind::Rmsprop => {
                    g += decay * w;
                    c = settings.decay * c + (1.0 - settings.decay) * g * g;
                    w -= settings.learning_rate * g / (c + settings.epsilon).sqrt();
                }
                OptimizerKind::Adam | OptimizerKind::Muon => {
                    c = settings.decay * c + (1.0 - settings.decay) * g * g;
                    u = settings.momentum * u + (1.0 - settings.momentum) * g;
                    let t = t as i32 + 1;
                    let (m, v) = (u / (1.0 - settings.momentum.powi(t)), c / (1.0 - settings.decay.powi(t)));
                    w = w * (1.0 - settings.learning_rate * decay)
                        - settings.learning_rate * m / (v.sqrt() + settings.epsilon);
                }
            }
        }
        w
    }

    #[test]
    fn steps_follow_the_rules_and_state_round_trips() {
        let device = Device::flex().autodiff();
        for kind in [OptimizerKind::Sgd, OptimizerKind::Rmsprop, OptimizerKind::Adam, OptimizerKind::Muon] {
            let settings = OptimizerSettings {
                kind,
                learning_rate: 0.1,
                weight_decay: 0.01,
                clip: 2.0,
                epsilon: 1e-6,
                ..OptimizerSettings::default()
            };
            let mut module =
                Two { matrix: random::constant([1, 2], 1.5, &device), bias: random::constant([3], -0.5, &device) };
            let mut optimizer = Optimizer::default();
            let (mut plain, mut plain_optimizer) = (weights::export(&module), PlainOptimizer::default());
            let factors = [1.0, -3.0, 0.5, 0.25];
            for (step, factor) in factors.iter().enumerate() {
                let loss = (module.matrix.val() * *factor).sum() + (module.bias.val() * (*factor * 0.5)).sum();
                module = optimizer.step(module, &loss.backward(), &settings, 0.1, step as u64);
                // Through plain data and back, as a checkpoint does.
                optimizer = Optimizer::import(optimizer.export(), &device.clone().without_autodiff()).unwrap();
                let mut gradients = plain.clone();
                gradients.get_mut("matrix").unwrap().values.fill(*factor as f32);
                gradients.get_mut("bias").unwrap().values.fill((*factor * 0.5) as f32);
                plain_optimizer.step(&mut plain, &gradients, &settings, 0.1, step as u64);
                plain_optimizer = PlainOptimizer::import(plain_optimizer.export()).unwrap();
            }
            for (name, weight) in weights::export(&module) {
                for (a, b) in weight.values.iter().zip(&plain[&name].values) {
                    assert!((a - b).abs() < 1e-5, "{kind:?} {name}: {a} by tensors, {b} in plain memory");
                }
            }
            let matrix = module.matrix.val().into_data().try_into_vec::<f32>().unwrap();
            let bias = module.bias.val().into_data().try_into_vec::<f32>().unwrap();
            let expected = by_hand(&settings, 1.5, &factors, true);
            assert!((f64::from(matrix[1]) - expected).abs() < 1e-5, "{kind:?}: {matrix:?} {expected}");
            let expected = by_hand(&settings, -0.5, &factors.map(|f| f * 0.5), false);
            assert!((f64::from(bias[2]) - expected).abs() < 1e-5, "{kind:?}: {bias:?} {expected}");
        }
    }

    #[test]
    fn muon_steps_alike_by_tensors_and_in_plain_memory() {
        let device = Device::flex().autodiff();
        let settings =
            OptimizerSettings { kind: OptimizerKind::Muon, weight_decay: 0.1, ..OptimizerSettings::default() };
        let wanted = random::uniform_values(&mut random::stream(2, 0), 32 * 40, 1.0);
        let mut module =
            Two { matrix: random::constant([32, 40], 0.1, &device), bias: random::constant([3], 0.0, &device) };
        let before = weights::export(&module);
        let (mut plain, mut plain_optimizer) = (before.clone(), PlainOptimizer::default());
        let mut optimizer = Optimizer::default();
        for step in 0..3 {
            let factors = Tensor::<2>::from_data(TensorData::new(wanted.clone(), [32, 40]), &device);
            let loss = (module.matrix.val() * factors).sum() + module.bias.val().sum();
            module = optimizer.step(module, &loss.backward(), &settings, 0.1, step);
            optimizer = Optimizer::import(optimizer.export(), &device.clone().without_autodiff()).unwrap();
            let mut gradients = plain.clone();
            gradients.get_mut("matrix").unwrap().values.clone_from(&wanted);
            gradients.get_mut("bias").unwrap().values.fill(1.0);
            plain_optimizer.step(&mut plain, &gradients, &settings, 0.1, step);
        }
        for (name, weight) in weights::export(&module) {
            assert_ne!(weight.values, before[&name].values, "{name} stayed");
            for (a, b) in weight.values.iter().zip(&plain[&name].values) {
                assert!((a - b).abs() < 1e-5, "{name}: {a} by tensors, {b} in plain memory");
            }
        }
    }

    #[test]
    fn rates_rise_and_fall() {
        let settings = OptimizerSettings {
            learning_rate: 2.0,
            schedule: Schedule::Cosine,
            warmup_steps: 3,
            ..OptimizerSettings::default()
        };
        assert_eq!(settings.rate(0, 100), 0.5);
        assert!((settings.rate(50, 100) - 1.0).abs() < 1e-12);
        assert!(settings.rate(99, 100) < 0.01);
    }
}
