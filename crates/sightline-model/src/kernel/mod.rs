//! Operations of our own in the tensor framework's graph: plain functions on slices, forward and backward, for the steps
//! that its general operations do slowly on a CPU. On other devices the models use its operations instead.

mod cells;
mod recurrence;
mod scores;

use std::fmt::Debug;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Device, Shape, Tensor, TensorData};

pub(crate) use recurrence::{Cell, Direction, recur};
pub(crate) use scores::scores;

/// One operation of a batch: it knows the sizes, and keeps from forward what backward needs.
pub(crate) trait Kernel: Debug + Send + Sync {
    /// Sizes of the result.
    fn shape(&self) -> [usize; 2];
    /// The result, row-major.
    fn forward(&self, inputs: &[&[f32]]) -> Vec<f32>;
    /// Gradients of the inputs, in their order and sizes, from the gradient of the result. Called after `forward`.
    fn backward(&self, inputs: &[&[f32]], gradient: &[f32]) -> Vec<Vec<f32>>;
}

/// Where kernels run: on the CPU, with gradients or without.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait HostKernels: Backend {
    /// A kernel of two inputs.
    fn pair(kernel: Arc<dyn Kernel>, a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;
    /// A kernel of three inputs.
    fn triple(
        kernel: Arc<dyn Kernel>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// Whether kernels can run where a model is.
pub(crate) fn available(device: &Device) -> bool {
    device.clone().without_autodiff() == Device::flex()
}

/// The result of a kernel of two inputs, `[rows, columns]`.
pub(crate) fn pair(kernel: Arc<dyn Kernel>, a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::pair(kernel, a.into_dispatch(), b.into_dispatch()))
}

/// The result of a kernel of three inputs, `[rows, columns]`.
pub(crate) fn triple(kernel: Arc<dyn Kernel>, a: Tensor<2>, b: Tensor<2>, c: Tensor<1>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::triple(kernel, a.into_dispatch(), b.into_dispatch(), c.into_dispatch()))
}

impl HostKernels for Flex {
    fn pair(kernel: Arc<dyn Kernel>, a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        forward::<2>(&*kernel, [a, b])
    }

    fn triple(
        kernel: Arc<dyn Kernel>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        forward::<3>(&*kernel, [a, b, c])
    }
}

fn forward<const N: usize>(kernel: &dyn Kernel, inputs: [FloatTensor<Flex>; N]) -> FloatTensor<Flex> {
    let device = inputs[0].device();
    let inputs = inputs.map(|input| input.to_contiguous());
    let slices = inputs.each_ref().map(|input| input.as_slice::<f32>().expect("a contiguous tensor of f32"));
    let output = kernel.forward(&slices);
    Flex::float_from_data(TensorData::new(output, kernel.shape()), &device)
}

impl<B: HostKernels, C: CheckpointStrategy> HostKernels for Autodiff<B, C> {
    fn pair(kernel: Arc<dyn Kernel>, a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [a.node(), b.node()];
        let (a, b) = (a.into_primitive(), b.into_primitive());
        match KernelBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let output = B::pair(kernel.clone(), a.clone(), b.clone());
                prep.finish((kernel, [a, b]), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::pair(kernel, a, b)),
        }
    }

    fn triple(
        kernel: Arc<dyn Kernel>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [a.node(), b.node(), c.node()];
        let (a, b, c) = (a.into_primitive(), b.into_primitive(), c.into_primitive());
        match KernelBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let output = B::triple(kernel.clone(), a.clone(), b.clone(), c.clone());
                prep.finish((kernel, [a, b, c]), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::triple(kernel, a, b, c)),
        }
    }
}

/// The backward step of any kernel.
#[derive(Debug)]
struct KernelBackward;

impl<B: Backend, const N: usize> Backward<B, N> for KernelBackward {
    type State = (Arc<dyn Kernel>, [FloatTensor<B>; N]);

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let device = gradient.device();
        let (kernel, inputs) = ops.state;
        let shapes: [Shape; N] = inputs.each_ref().map(TensorMetadata::shape);
        let inputs = inputs.map(values::<B>);
        let slices = inputs.each_ref().map(|input| input.as_slice::<f32>().expect("kernels take f32"));
        let gradient = values::<B>(gradient);
        let of_inputs = kernel.backward(&slices, gradient.as_slice().expect("gradients are f32"));
        for ((node, shape), of_input) in ops.parents.into_iter().zip(shapes).zip(of_inputs) {
            if let Some(node) = node {
                gradients.register::<B>(node.id, B::float_from_data(TensorData::new(of_input, shape), &device));
            }
        }
    }
}

fn values<B: Backend>(tensor: FloatTensor<B>) -> TensorData {
    burn::tensor::try_read_sync(B::float_into_data(tensor))
        .expect("the CPU's tensors are read at once")
        .expect("the CPU's tensors can be read")
}
