//! Modules of the tensor framework that learn: what the optimiser remembers of them, and the average of their weights.

use burn::module::Module;
use burn::tensor::Gradients;
use sightline_model::weights::{self, Weights};

use super::{Average, Optimizer, OptimizerSettings, check_state};

/// A module from its first step to its use; [`super::Learnt`] for models on the tape.
#[derive(Debug)]
pub(crate) struct LearntModule<M> {
    /// None only while a step replaces it.
    module: Option<M>,
    /// Of the weights over the steps so far.
    average: Option<Average>,
    optimizer: Optimizer,
}

impl<M: Module> LearntModule<M> {
    /// From a first module; its weights are averaged over steps with the decay `average`, or not at all where it is zero.
    pub(crate) fn new(module: M, average: f32) -> Self {
        let average = Average::new(average, || weights::export(&module));
        Self { module: Some(module), average, optimizer: Optimizer::default() }
    }

    /// As the last step left it.
    pub(crate) fn module(&self) -> &M {
        self.module.as_ref().expect("a module between steps")
    }

    /// To validate and to use.
    pub(crate) fn in_use(&self) -> M {
        let mut module = self.module().clone();
        if let Some(average) = &self.average {
            module = weights::import(module, average.weights().clone()).expect("an average has the module's weights");
        }
        module.valid()
    }

    /// One step; `step` counts from 0.
    pub(crate) fn step(&mut self, gradients: Gradients, settings: &OptimizerSettings, rate: f64, step: u64) {
        let module = self.module.take().expect("a module between steps");
        let module = self.optimizer.step_module(module, gradients, settings, rate, step);
        if let Some(average) = &mut self.average {
            average.update(&weights::export(&module), step);
        }
        self.module = Some(module);
    }

    /// Weights, and what the optimiser and the average remember.
    pub(crate) fn export(&self) -> (Weights, Weights) {
        let mut state = self.optimizer.export();
        if let Some(average) = &self.average {
            average.export(&mut state);
        }
        (weights::export(self.module()), state)
    }

    /// The weights of [`LearntModule::in_use`].
    pub(crate) fn export_for_use(&self) -> Weights {
        self.average.as_ref().map_or_else(|| weights::export(self.module()), |average| average.weights().clone())
    }

    /// Goes on from what [`LearntModule::export`] gave, or says what does not fit.
    pub(crate) fn import(&mut self, model: Weights, mut optimizer: Weights) -> Result<(), String> {
        Average::import(&mut self.average, &mut optimizer, &model)?;
        check_state(&optimizer, &model)?;
        let old = self.module.take().expect("a module between steps");
        self.module = Some(weights::import(old, model).map_err(|e| e.to_string())?);
        self.optimizer = Optimizer::import(optimizer)?;
        Ok(())
    }
}
