//! A small convolutional encoder of region crops, for data without pre-trained weights: it trains end to end with the
//! alignment model, whose "features" are then the pixels of the crop themselves.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::relu;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::random;

/// Sizes of the [`ConvEncoder`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConvSettings {
    /// Width and height of a crop, in pixels; its features are [`ConvSettings::pixels`] numbers, channel by channel.
    pub side: usize,
    /// Output channels of the three 3×3 convolutions, each of stride 2.
    pub channels: [usize; 3],
    /// Length of the vectors that come out.
    pub dim: usize,
}

impl ConvSettings {
    /// Numbers a crop.
    pub fn pixels(&self) -> usize {
        3 * self.side * self.side
    }
}

impl Default for ConvSettings {
    fn default() -> Self {
        Self { side: 24, channels: [16, 32, 64], dim: 96 }
    }
}

/// Three strided convolutions and an affine map, each followed by a ReLU: crops to vectors.
#[derive(Module, Debug)]
pub struct ConvEncoder {
    kernel_1: Param<Tensor<4>>,
    bias_1: Param<Tensor<1>>,
    kernel_2: Param<Tensor<4>>,
    bias_2: Param<Tensor<1>>,
    kernel_3: Param<Tensor<4>>,
    bias_3: Param<Tensor<1>>,
    output: Linear,
    #[module(skip)]
    side: usize,
}

impl ConvEncoder {
    /// An encoder with random weights (He initialisation).
    pub fn new(settings: &ConvSettings, rng: &mut ChaCha8Rng, device: &Device) -> Self {
        let [c1, c2, c3] = settings.channels;
        let mut kernel = |inputs: usize, outputs: usize| {
            random::uniform(rng, [outputs, inputs, 3, 3], (6.0 / (9 * inputs) as f32).sqrt(), device)
        };
        let (kernel_1, kernel_2, kernel_3) = (kernel(3, c1), kernel(c1, c2), kernel(c2, c3));
        let last = settings.side.div_ceil(2).div_ceil(2).div_ceil(2);
        Self {
            kernel_1,
            bias_1: random::constant([c1], 0.0, device),
            kernel_2,
            bias_2: random::constant([c2], 0.0, device),
            kernel_3,
            bias_3: random::constant([c3], 0.0, device),
            output: random::linear(rng, c3 * last * last, settings.dim, std::f32::consts::SQRT_2, device),
            side: settings.side,
        }
    }

    /// `[regions, 3 * side * side] -> [regions, dim]`.
    pub fn forward(&self, crops: Tensor<2>) -> Tensor<2> {
        let [regions, _] = crops.dims();
        let mut x = crops.reshape([regions, 3, self.side, self.side]);
        let layers = [(&self.kernel_1, &self.bias_1), (&self.kernel_2, &self.bias_2), (&self.kernel_3, &self.bias_3)];
        for (kernel, bias) in layers {
            let options = ConvOptions::new([2, 2], [1, 1], [1, 1], 1);
            x = relu(conv2d(x, kernel.val(), Some(bias.val()), options));
        }
        relu(self.output.forward(x.flatten(1, 3)))
    }
}
