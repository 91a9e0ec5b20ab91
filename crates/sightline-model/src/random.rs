//! Random numbers for weights and dropout. Drawn here, not on the device, so that no global state is shared between
//! two models that train in one process, and a run does not depend on the back end's generator.

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A generator for one purpose: the same seed and stream give the same numbers, different streams are independent.
pub fn stream(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// A parameter of `shape`, uniform in `-bound..bound`.
pub fn uniform<const D: usize>(
    rng: &mut ChaCha8Rng,
    shape: [usize; D],
    bound: f32,
    device: &Device,
) -> Param<Tensor<D>> {
    parameter(uniform_values(rng, shape.iter().product(), bound), shape, device)
}

/// `n` numbers, uniform in `-bound..bound`.
pub fn uniform_values(rng: &mut ChaCha8Rng, n: usize, bound: f32) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-1.0..1.0f32) * bound).collect()
}

/// A parameter of `shape`, every element `value`.
pub fn constant<const D: usize>(shape: [usize; D], value: f32, device: &Device) -> Param<Tensor<D>> {
    parameter(vec![value; shape.iter().product()], shape, device)
}

/// A parameter with the given values, row-major.
pub fn parameter<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
}

/// An affine map `[inputs] -> [outputs]` with zero bias; weights uniform with variance `scale² / inputs`.
pub fn linear(rng: &mut ChaCha8Rng, inputs: usize, outputs: usize, scale: f32, device: &Device) -> Linear {
    let bound = scale * (3.0 / inputs as f32).sqrt();
    Linear { weight: uniform(rng, [inputs, outputs], bound, device), bias: Some(constant([outputs], 0.0, device)) }
}

/// Inverted dropout: each element is zeroed with `probability`, the others are scaled so that the mean stays.
#[derive(Debug)]
pub struct Dropout {
    rng: ChaCha8Rng,
    probability: f32,
}

impl Dropout {
    /// Dropout with its own generator; `probability` in `0..1`.
    pub fn new(rng: ChaCha8Rng, probability: f32) -> Self {
        assert!((0.0..1.0).contains(&probability), "dropout probability {probability} is not in 0..1");
        Self { rng, probability }
    }

    /// Dropout of another probability, with a generator drawn from this one.
    pub fn fork(&mut self, probability: f32) -> Self {
        Self::new(ChaCha8Rng::seed_from_u64(self.rng.next_u64()), probability)
    }

    /// What `n` elements are multiplied by: 0, or what keeps the mean; `None` where the probability is zero.
    pub fn mask(&mut self, n: usize) -> Option<Vec<f32>> {
        if self.probability == 0.0 {
            return None;
        }
        let mut bytes = vec![0u8; 2 * n];
        self.rng.fill_bytes(&mut bytes);
        let threshold = (self.probability * 65536.0) as u32;
        let scale = 65536.0 / (65536 - threshold) as f32;
        let factor = |pair: &[u8]| match u32::from(u16::from_le_bytes([pair[0], pair[1]])) < threshold {
            true => 0.0,
            false => scale,
        };
        Some(bytes.chunks_exact(2).map(factor).collect())
    }

    /// The tensor with elements dropped; the tensor itself where the probability is zero.
    pub fn apply<const D: usize>(&mut self, x: Tensor<D>) -> Tensor<D> {
        let shape = x.dims();
        let Some(mask) = self.mask(shape.iter().product()) else {
            return x;
        };
        let device = x.device();
        x * Tensor::from_data(TensorData::new(mask, shape), &device.without_autodiff())
    }
}

/// Applies dropout in training; `None` is evaluation.
pub fn drop_out<const D: usize>(dropout: Option<&mut Dropout>, x: Tensor<D>) -> Tensor<D> {
    match dropout {
        Some(dropout) => dropout.apply(x),
        None => x,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_keeps_the_mean_and_repeats_by_seed() {
        let device = Device::flex();
        let ones = Tensor::<1>::ones([20_000], &device);
        let run =
            |seed| Dropout::new(stream(seed, 0), 0.3).apply(ones.clone()).into_data().try_to_vec::<f32>().unwrap();
        let dropped = run(1);
        let mean = dropped.iter().sum::<f32>() / dropped.len() as f32;
        let zeros = dropped.iter().filter(|&&x| x == 0.0).count() as f32 / dropped.len() as f32;
        assert!((mean - 1.0).abs() < 0.02, "mean {mean}");
        assert!((zeros - 0.3).abs() < 0.02, "zeros {zeros}");
        assert_eq!(dropped, run(1));
        assert_ne!(dropped, run(2));
    }
}
