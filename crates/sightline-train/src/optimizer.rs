//! Optimisers over a module's named weights. Ours, so that the state is keyed by name and a checkpoint has the same
//! bytes for the same seed, and so that clipping, decay and epsilon sit where the paper and NeuralTalk have them.

mod average;
mod learnt;
mod module;
mod muon;
mod rules;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

pub use average::Average;
use learnt::check_state;
pub(crate) use learnt::{Learnt, accumulate, same_sizes};
pub(crate) use module::LearntModule;
pub use rules::Optimizer;

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

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::{Module, Param};
    use burn::tensor::{Device, Tensor, TensorData};
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
            let (mut plain, mut plain_optimizer) = (weights::export(&module), Optimizer::default());
            let factors = [1.0, -3.0, 0.5, 0.25];
            for (step, factor) in factors.iter().enumerate() {
                let loss = (module.matrix.val() * *factor).sum() + (module.bias.val() * (*factor * 0.5)).sum();
                module = optimizer.step_module(module, loss.backward(), &settings, 0.1, step as u64);
                // Out and back, as through a checkpoint.
                optimizer = Optimizer::import(optimizer.export()).unwrap();
                let mut gradients = plain.clone();
                gradients.get_mut("matrix").unwrap().values.fill(*factor as f32);
                gradients.get_mut("bias").unwrap().values.fill((*factor * 0.5) as f32);
                plain_optimizer.step(&mut plain, &gradients, &settings, 0.1, step as u64);
            }
            for (name, weight) in weights::export(&module) {
                assert_eq!(weight, plain[&name], "{kind:?} {name}: of a module and in plain memory");
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
    fn muon_steps_alike_in_a_module_and_in_plain_memory() {
        let device = Device::flex().autodiff();
        let settings =
            OptimizerSettings { kind: OptimizerKind::Muon, weight_decay: 0.1, ..OptimizerSettings::default() };
        let wanted = random::uniform_values(&mut random::stream(2, 0), 32 * 40, 1.0);
        let mut module =
            Two { matrix: random::constant([32, 40], 0.1, &device), bias: random::constant([3], 0.0, &device) };
        let before = weights::export(&module);
        let (mut plain, mut plain_optimizer) = (before.clone(), Optimizer::default());
        let mut optimizer = Optimizer::default();
        for step in 0..3 {
            let factors = Tensor::<2>::from_data(TensorData::new(wanted.clone(), [32, 40]), &device);
            let loss = (module.matrix.val() * factors).sum() + module.bias.val().sum();
            module = optimizer.step_module(module, loss.backward(), &settings, 0.1, step);
            let mut gradients = plain.clone();
            gradients.get_mut("matrix").unwrap().values.clone_from(&wanted);
            gradients.get_mut("bias").unwrap().values.fill(1.0);
            plain_optimizer.step(&mut plain, &gradients, &settings, 0.1, step);
        }
        for (name, weight) in weights::export(&module) {
            assert_ne!(weight.values, before[&name].values, "{name} stayed");
            assert_eq!(weight, plain[&name], "{name}");
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
