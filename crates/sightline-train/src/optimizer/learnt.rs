//! Weights in plain memory that learn: what the optimiser remembers of them, and their average.

use sightline_model::weights::Weights;

use super::{Average, Optimizer, OptimizerSettings};

/// The weights of a model on the tape, from its first step to its use.
#[derive(Debug)]
pub(crate) struct Learnt {
    /// As the steps left them.
    pub(crate) weights: Weights,
    /// Of the weights over the steps so far.
    average: Option<Average>,
    optimizer: Optimizer,
}

impl Learnt {
    /// From first weights; they are averaged over steps with the decay `average`, or not at all where it is zero.
    pub(crate) fn new(weights: Weights, average: f32) -> Self {
        Self { average: Average::new(average, || weights.clone()), weights, optimizer: Optimizer::default() }
    }

    /// The weights to validate and to use.
    pub(crate) fn in_use(&self) -> &Weights {
        self.average.as_ref().map_or(&self.weights, Average::weights)
    }

    /// One step; `step` counts from 0.
    pub(crate) fn step(&mut self, gradients: &Weights, settings: &OptimizerSettings, rate: f64, step: u64) {
        self.optimizer.step(&mut self.weights, gradients, settings, rate, step);
        if let Some(average) = &mut self.average {
            average.update(&self.weights, step);
        }
    }

    /// Weights, and what the optimiser and the average remember.
    pub(crate) fn export(&self) -> (Weights, Weights) {
        let mut state = self.optimizer.export();
        if let Some(average) = &self.average {
            average.export(&mut state);
        }
        (self.weights.clone(), state)
    }

    /// Goes on from what [`Learnt::export`] gave, or says what does not fit.
    pub(crate) fn import(&mut self, model: Weights, mut optimizer: Weights) -> Result<(), String> {
        if !same_sizes(&model, &self.weights) {
            return Err("its weights have other names or sizes than its settings say".into());
        }
        self.weights = model;
        Average::import(&mut self.average, &mut optimizer, &self.weights)?;
        check_state(&optimizer, &self.weights)?;
        self.optimizer = Optimizer::import(optimizer)?;
        Ok(())
    }
}

/// Whether what an optimiser remembers, `first.NAME` and `second.NAME`, is as long as the weights of these names.
pub(super) fn check_state(state: &Weights, weights: &Weights) -> Result<(), String> {
    for (name, remembered) in state {
        let own = name.split_once('.').and_then(|(_, own)| weights.get(own));
        if own.is_none_or(|own| own.values.len() != remembered.values.len()) {
            return Err(format!("{name} fits none of its weights"));
        }
    }
    Ok(())
}

/// Adds gradients of the same model.
pub(crate) fn accumulate(sum: &mut Weights, gradients: Weights) {
    for (name, gradient) in gradients {
        match sum.get_mut(&name) {
            None => {
                sum.insert(name, gradient);
            }
            Some(sum) => sum.values.iter_mut().zip(&gradient.values).for_each(|(a, b)| *a += b),
        }
    }
}

/// Whether two sets of weights have the same names and sizes.
pub(crate) fn same_sizes(a: &Weights, b: &Weights) -> bool {
    a.iter().map(|(name, weight)| (name, &weight.shape)).eq(b.iter().map(|(name, weight)| (name, &weight.shape)))
}
