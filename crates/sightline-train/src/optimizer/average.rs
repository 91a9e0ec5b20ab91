//! The running average of a model's weights: less noisy than the weights themselves, and so what is validated and kept.

use sightline_model::weights::Weights;

use super::same_sizes;

/// Weights averaged over steps, with exponential forgetting.
#[derive(Debug, Clone)]
pub struct Average {
    decay: f32,
    weights: Weights,
}

const PREFIX: &str = "average.";

impl Average {
    /// The average of the weights so far, which are the first; `None` where `decay` is zero.
    pub fn new(decay: f32, weights: impl FnOnce() -> Weights) -> Option<Self> {
        (decay > 0.0).then(|| Self { decay, weights: weights() })
    }

    /// Takes in the weights after step `step`, counted from 0.
    pub fn update(&mut self, weights: &Weights, step: u64) {
        // Early on the average forgets its start faster.
        let decay = self.decay.min((1 + step) as f32 / (10 + step) as f32);
        for (name, weight) in weights {
            let own = self.weights.get_mut(name).expect("the same weights");
            own.values.iter_mut().zip(&weight.values).for_each(|(a, w)| *a += (1.0 - decay) * (w - *a));
        }
    }

    /// The averaged weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Puts the average into an optimiser's exported state.
    pub fn export(&self, state: &mut Weights) {
        state.extend(self.weights.iter().map(|(name, weight)| (format!("{PREFIX}{name}"), weight.clone())));
    }

    /// Takes an average of these weights out of an exported state, and goes on from it; from the weights where there is
    /// none.
    pub fn import(average: &mut Option<Self>, state: &mut Weights, weights: &Weights) -> Result<(), String> {
        let (found, rest): (Weights, Weights) =
            std::mem::take(state).into_iter().partition(|(name, _)| name.starts_with(PREFIX));
        *state = rest;
        let Some(average) = average else { return Ok(()) };
        average.weights = if found.is_empty() {
            weights.clone()
        } else {
            found.into_iter().map(|(name, weight)| (name[PREFIX.len()..].to_owned(), weight)).collect()
        };
        if same_sizes(&average.weights, weights) {
            Ok(())
        } else {
            Err("its average has other names or sizes than its weights".into())
        }
    }
}
