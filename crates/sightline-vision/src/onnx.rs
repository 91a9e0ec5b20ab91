//! Networks in ONNX files, run by tract: pure Rust, nothing to install.
//!
//! tract plans a graph for one input shape at a time, so [`OnnxNetwork`] keeps one optimised plan per shape. A plan
//! runs on the calling thread alone; callers run photos in parallel.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::internal::DimLike;

use crate::error::{Error, Result};

/// A network with one `f32` input, from an ONNX file.
pub struct OnnxNetwork {
    path: PathBuf,
    model: InferenceModel,
    checksum: String,
    /// By input shape.
    plans: Mutex<HashMap<Vec<usize>, Slot>>,
}

type Plan = Arc<TypedRunnableModel>;

/// Empty until the shape's first run has made the plan.
type Slot = Arc<Mutex<Option<Plan>>>;

/// One output of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct OnnxOutput {
    /// The shape, the batch among it.
    pub shape: Vec<usize>,
    /// The values, last dimension fastest.
    pub values: Vec<f32>,
}

impl std::fmt::Debug for OnnxNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OnnxNetwork({}, {})", self.path.display(), self.checksum)
    }
}

/// The checksum of the file's bytes; where tensors lie in files beside it, of theirs too.
fn checksum(path: &Path, bytes: &[u8]) -> Result<String> {
    let own = sightline_data::checksum::of_bytes(bytes);
    // What is no graph is told by the reader.
    let Ok(proto) = tract_onnx::onnx().proto_model_for_read(&mut &*bytes) else { return Ok(own) };
    let Some(graph) = proto.graph else { return Ok(own) };
    let of_nodes = graph.node.iter().flat_map(|node| &node.attribute).filter_map(|attribute| attribute.t.as_ref());
    let places = graph.initializer.iter().chain(of_nodes).flat_map(|tensor| &tensor.external_data);
    let files: BTreeSet<&str> = places.filter(|place| place.key == "location").map(|p| p.value.as_str()).collect();
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut all = own;
    for file in &files {
        let of_file = sightline_data::checksum::of_file(&folder.join(file));
        all.push_str(&of_file.map_err(|e| Error::onnx(path, format!("its weights beside it: {e}")))?);
    }
    Ok(if files.is_empty() { all } else { sightline_data::checksum::of_bytes(all.as_bytes()) })
}

impl OnnxNetwork {
    /// Reads a graph; plans are made when a shape is first asked for.
    ///
    /// Fails where the file is absent, is not ONNX, or has not exactly one input.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let unreadable = |reason: String| {
            Error::onnx(
                path,
                format!("not an ONNX network that can be read ({reason}); export it again, opset 11 or later"),
            )
        };
        if bytes.is_empty() {
            return Err(unreadable("the file is empty".into()));
        }
        let checksum = checksum(path, &bytes)?;
        // By path, since large networks keep their weights in files beside it.
        let model = tract_onnx::onnx().model_for_path(path).map_err(|e| unreadable(one_line(&e)))?;
        if model.inputs.len() != 1 || model.outputs.is_empty() {
            let (inputs, outputs) = (model.inputs.len(), model.outputs.len());
            return Err(unreadable(format!("expected one input and some output, got {inputs} and {outputs}")));
        }
        Ok(Self { path: path.to_owned(), model, checksum, plans: Mutex::default() })
    }

    /// The file it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// [`sightline_data::checksum::of_bytes`] of the file, and of what it keeps in files beside it.
    pub fn checksum(&self) -> &str {
        &self.checksum
    }

    /// The input's shape as the file gives it, `None` for every size that it leaves open; empty where even the number
    /// of axes is open.
    pub fn input_shape(&self) -> Result<Vec<Option<usize>>> {
        let fact = self
            .model
            .input_fact(0)
            .map_err(|e| Error::onnx(&self.path, format!("the network has no input: {}", one_line(&e))))?;
        Ok(fact.shape.dims().map(|dim| dim.concretize()?.to_usize().ok()).collect())
    }

    /// The first output's shape for an input of `shape`, `None` for every size that the planner cannot tell.
    pub fn output_shape(&self, shape: &[usize]) -> Result<Vec<Option<usize>>> {
        let plan = self.plan(shape)?;
        let fact = plan
            .model()
            .output_fact(0)
            .map_err(|e| Error::onnx(&self.path, format!("the network has no output: {}", one_line(&e))))?;
        Ok(fact.shape.iter().map(|dim| dim.to_usize().ok()).collect())
    }

    /// Every output for one input of `shape`, on the calling thread. Panics where the values do not fill the shape.
    pub fn run(&self, values: &[f32], shape: &[usize]) -> Result<Vec<OnnxOutput>> {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "values fill the shape {shape:?}");
        let plan = self.plan(shape)?;
        let fail = |stage: &str, e: &TractError| {
            Error::onnx(&self.path, format!("the network failed to {stage} for an input of {shape:?}: {}", one_line(e)))
        };
        let input = Tensor::from_shape(shape, values).map_err(|e| fail("take its input", &e))?;
        let outputs = plan.run(tvec!(input.into())).map_err(|e| fail("run", &e))?;
        outputs
            .iter()
            .map(|output| {
                let output = output.cast_to::<f32>().map_err(|e| fail("give numbers", &e))?;
                let view = output.to_plain_array_view::<f32>().map_err(|e| fail("give numbers", &e))?;
                Ok(OnnxOutput { shape: view.shape().to_vec(), values: view.iter().copied().collect() })
            })
            .collect()
    }

    /// The plan of a shape. Other shapes are not held up while one is made, and each is made once.
    fn plan(&self, shape: &[usize]) -> Result<Plan> {
        let slot = {
            let mut plans = self.plans.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            plans.entry(shape.to_vec()).or_default().clone()
        };
        let mut slot = slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(plan) = slot.as_ref() {
            return Ok(plan.clone());
        }
        let plan = self
            .model
            .clone()
            .with_input_fact(0, f32::fact(shape).into())
            .and_then(|model| model.into_optimized())
            .and_then(|model| model.into_runnable())
            .map_err(|e| {
                Error::onnx(
                    &self.path,
                    format!(
                        "the network takes no input of {shape:?}, or needs an operator that is not supported: {}",
                        one_line(&e)
                    ),
                )
            })?;
        *slot = Some(plan.clone());
        Ok(plan)
    }
}

/// tract's chain of causes on one line.
fn one_line(error: &TractError) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}
