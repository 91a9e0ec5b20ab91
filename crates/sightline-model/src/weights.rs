//! The weights of a module by name, as plain data: what a checkpoint holds and an optimiser's state is keyed by.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor, TensorData};

/// One weight: shape and row-major values.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub values: Vec<f32>,
}

/// Weights by their path in the module, `encoder.forward.weight` say.
pub type Weights = BTreeMap<String, Weight>;

/// Why weights do not fit a module.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WeightsError {
    /// The module has a weight that the set lacks.
    #[error("weight {name} is missing")]
    Missing {
        /// Its path.
        name: String,
    },
    /// The sizes differ.
    #[error("weight {name} has shape {got:?}, expected {expected:?}")]
    Shape {
        /// Its path.
        name: String,
        /// The module's.
        expected: Vec<usize>,
        /// The set's.
        got: Vec<usize>,
    },
    /// The set has weights that the module lacks.
    #[error("weights {names:?} have no place in the model")]
    Unknown {
        /// Their paths.
        names: Vec<String>,
    },
}

/// All float weights of a module.
pub fn export<M: Module>(module: &M) -> Weights {
    let mut visitor = Exporter { path: Vec::new(), weights: Weights::new() };
    module.visit(&mut visitor);
    visitor.weights
}

/// The module with its weights replaced; all of them, and no other.
pub fn import<M: Module>(module: M, weights: Weights) -> Result<M, WeightsError> {
    let mut mapper = Importer { path: Vec::new(), weights, error: None };
    let module = module.map(&mut mapper);
    match mapper.error {
        Some(error) => Err(error),
        None if mapper.weights.is_empty() => Ok(module),
        None => Err(WeightsError::Unknown { names: mapper.weights.into_keys().collect() }),
    }
}

struct Exporter {
    path: Vec<String>,
    weights: Weights,
}

impl ModuleVisitor for Exporter {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let shape = tensor.dims().to_vec();
        let values = tensor.into_data().try_into_vec::<f32>().expect("weights are f32");
        self.weights.insert(self.path.join("."), Weight { shape, values });
    }
}

struct Importer {
    path: Vec<String>,
    weights: Weights,
    error: Option<WeightsError>,
}

impl ModuleMapper for Importer {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        let Some(weight) = self.weights.remove(&name) else {
            self.error.get_or_insert(WeightsError::Missing { name });
            return param;
        };
        let expected = param.val().dims().to_vec();
        if weight.shape != expected {
            self.error.get_or_insert(WeightsError::Shape { name, expected, got: weight.shape });
            return param;
        }
        param.map(|old| {
            let requires_grad = old.is_require_grad();
            let data = TensorData::new(weight.values, weight.shape);
            Tensor::from_data(data, &old.device()).set_require_grad(requires_grad)
        })
    }
}

/// Gradients of all float weights that have one, by the same names.
pub fn export_gradients<M: Module>(module: &M, gradients: &Gradients) -> Weights {
    let mut visitor = GradientExporter { path: Vec::new(), gradients, weights: Weights::new() };
    module.visit(&mut visitor);
    visitor.weights
}

struct GradientExporter<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    weights: Weights,
}

impl ModuleVisitor for GradientExporter<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            let shape = gradient.dims().to_vec();
            let values = gradient.into_data().try_into_vec::<f32>().expect("gradients are f32");
            self.weights.insert(self.path.join("."), Weight { shape, values });
        }
    }
}

/// A tensor's values, row-major; for tests.
#[cfg(test)]
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec::<f32>().expect("a tensor of f32")
}

/// Compares gradients with one-sided differences of the loss, a few elements of every weight; for tests.
///
/// At a kink (of a ReLU, a maximum or a hinge) any slope between the two sides is a right answer.
#[cfg(test)]
pub(crate) fn check_gradients<M: Module>(model: &M, loss_of: impl Fn(&M) -> Tensor<1>) {
    let gradients = export_gradients(model, &loss_of(model).backward());
    compare_with_differences(&export(model), &gradients, |weights| {
        let moved = import(model.clone(), weights.clone()).expect("the model's own weights");
        f64::from(loss_of(&moved).into_scalar::<f32>())
    });
}

/// As [`check_gradients`], of a loss over plain weights.
#[cfg(test)]
pub(crate) fn compare_with_differences(weights: &Weights, gradients: &Weights, loss_of: impl Fn(&Weights) -> f64) {
    let value = |name: &str, index: usize, by: f32| {
        let mut moved = weights.clone();
        moved.get_mut(name).expect("a weight of the model").values[index] += by;
        loss_of(&moved)
    };
    for (name, gradient) in gradients {
        let n = gradient.values.len();
        let steepest = (0..n).max_by(|&a, &b| gradient.values[a].abs().total_cmp(&gradient.values[b].abs()));
        let most = steepest.map_or(0.0, |index| f64::from(gradient.values[index].abs()));
        for index in [0, n / 3, n / 2, n - 1].into_iter().chain(steepest) {
            let step = 1e-3;
            let middle = value(name, index, 0.0);
            let right = (value(name, index, step) - middle) / f64::from(step);
            let left = (middle - value(name, index, -step)) / f64::from(step);
            let analytic = f64::from(gradient.values[index]);
            // f32 sums allow no finer comparison: of a loss they are right to a few millionths.
            let of_sums = 0.02 * most + 2e-6 * middle.abs().max(1.0) / f64::from(step);
            let slack = 0.02 * (left.abs() + right.abs()) + of_sums.min(2e-2);
            assert!(
                analytic > left.min(right) - slack && analytic < left.max(right) + slack,
                "{name}[{index}]: {analytic} by backward, {left} and {right} by differences"
            );
        }
    }
}
