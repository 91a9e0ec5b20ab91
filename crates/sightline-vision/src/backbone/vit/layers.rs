//! The vision transformer's layers over the tensor framework: what a card computes, and the pooling behind the tokens.

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Tensor, TensorData, activation, module::attention};
use sightline_model::weights::{Weight, Weights};

use super::super::weights::{LinearWeights, NormWeights, PoolWeights};
use super::{Activation, VitConfig};

/// Over the tensor framework, what [`Activation`] computes on the tape.
fn activate(activation: Activation, x: Tensor<3>) -> Tensor<3> {
    match activation {
        Activation::Relu => activation::relu(x),
        Activation::Silu => activation::silu(x),
        Activation::Gelu => activation::gelu(x),
        Activation::QuickGelu => x.clone() * activation::sigmoid(x * 1.702),
        Activation::TanhGelu => activation::gelu_approximate(x),
    }
}

/// One pre-norm transformer block.
#[derive(Module, Debug)]
struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    attention_out: Linear,
    scale1: Option<Param<Tensor<1>>>,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    scale2: Option<Param<Tensor<1>>>,
    heads: usize,
}

impl Block {
    /// `[batch, tokens, dim]` to the same.
    fn forward(&self, x: Tensor<3>, activation: Activation) -> Tensor<3> {
        let [batch, tokens, dim] = x.dims();
        let heads = self.heads;
        let qkv = self.qkv.forward(self.norm1.forward(x.clone())); // [batch, tokens, 3 * dim]
        let qkv = qkv.reshape([batch, tokens, 3, heads, dim / heads]).permute([2, 0, 3, 1, 4]);
        let part = |i: usize| -> Tensor<4> { qkv.clone().narrow(0, i, 1).squeeze_dim(0) }; // [batch, heads, tokens, _]
        let attended = attention(part(0), part(1), part(2), None, None, AttentionModuleOptions::default());
        let attended = attended.swap_dims(1, 2).reshape([batch, tokens, dim]);
        let x = x + scaled(self.attention_out.forward(attended), self.scale1.as_ref());
        let hidden = self.fc1.forward(self.norm2.forward(x.clone())); // [batch, tokens, hidden]
        let hidden = activate(activation, hidden);
        x + scaled(self.fc2.forward(hidden), self.scale2.as_ref())
    }
}

fn scaled(x: Tensor<3>, scale: Option<&Param<Tensor<1>>>) -> Tensor<3> {
    match scale {
        Some(gamma) => x * gamma.val().unsqueeze::<3>(),
        None => x,
    }
}

/// A photo's vector for networks without a class token: one query over all tokens, and a perceptron beside it.
#[derive(Module, Debug)]
pub(super) struct AttentionPool {
    /// `[1, 1, dim]`
    query: Param<Tensor<3>>,
    key_value: Linear,
    attention_out: Linear,
    norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
}

impl AttentionPool {
    pub(super) fn new(pool: PoolWeights, config: &VitConfig, device: &Device) -> Self {
        Self {
            query: tokens(pool.query, config.dim, device),
            key_value: linear(pool.key_value, device),
            attention_out: linear(pool.attention_out, device),
            norm: layer_norm(pool.norm, config, device),
            fc1: linear(pool.fc1, device),
            fc2: linear(pool.fc2, device),
            heads: config.heads,
        }
    }

    /// `[batch, tokens, dim]` to `[batch, 1, dim]`.
    pub(super) fn forward(&self, tokens: Tensor<3>, activation: Activation) -> Tensor<3> {
        let [batch, n_tokens, dim] = tokens.dims();
        let heads = self.heads;
        let query = self.query.val().reshape([1, heads, 1, dim / heads]).repeat_dim(0, batch);
        let key_value = self.key_value.forward(tokens); // [batch, tokens, 2 * dim]
        let key_value = key_value.reshape([batch, n_tokens, 2, heads, dim / heads]).permute([2, 0, 3, 1, 4]);
        let part = |i: usize| -> Tensor<4> { key_value.clone().narrow(0, i, 1).squeeze_dim(0) };
        let attended = attention(query, part(0), part(1), None, None, AttentionModuleOptions::default());
        let x = self.attention_out.forward(attended.reshape([batch, 1, dim]));
        let hidden = activate(activation, self.fc1.forward(self.norm.forward(x.clone()))); // [batch, 1, hidden]
        x + self.fc2.forward(hidden)
    }
}

/// The network up to its last norm over the tensor framework: what a card computes. Processors have the tape.
#[derive(Module, Debug)]
pub(super) struct Framework {
    patch_embedding: Linear,
    /// `[1, prefix, dim]`
    prefix: Option<Param<Tensor<3>>>,
    /// `[1, patches, dim]`, interpolated to the input.
    positions: Param<Tensor<3>>,
    pre_norm: Option<LayerNorm>,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl Framework {
    /// Of weights by the names of [`VisionTransformer`](sightline_model::vit::VisionTransformer), none of which is [`lacking`](super::encoder::lacking).
    pub(super) fn new(weights: &Weights, config: &VitConfig, device: &Device) -> Self {
        let vector = |name: &str| weights.get(name).map(|weight| vector(weight.values.clone(), device));
        let linear = |name: &str| {
            let Weight { shape, values } = &weights[&format!("{name}.weight")];
            Linear {
                weight: matrix(values.clone(), [shape[0], shape[1]], device),
                bias: vector(&format!("{name}.bias")),
            }
        };
        let norm = |name: &str| {
            let part = |part: &str| weights[&format!("{name}.{part}")].values.clone();
            layer_norm(NormWeights { gamma: part("weight"), beta: part("bias") }, config, device)
        };
        let tokens = |weight: &Weight| tokens(weight.values.clone(), config.dim, device);
        let block = |block: usize| {
            let name = |part: &str| format!("blocks.{block}.{part}");
            Block {
                norm1: norm(&name("norm1")),
                qkv: linear(&name("qkv")),
                attention_out: linear(&name("attention_out")),
                scale1: vector(&name("scale1")),
                norm2: norm(&name("norm2")),
                fc1: linear(&name("fc1")),
                fc2: linear(&name("fc2")),
                scale2: vector(&name("scale2")),
                heads: config.heads,
            }
        };
        Self {
            patch_embedding: linear("patch_embedding"),
            prefix: weights.get("prefix").map(tokens),
            positions: tokens(&weights["positions"]),
            pre_norm: weights.contains_key("pre_norm.weight").then(|| norm("pre_norm")),
            blocks: (0..config.depth).map(block).collect(),
            norm: norm("norm"),
        }
    }

    /// The weights by the names of [`VisionTransformer`](sightline_model::vit::VisionTransformer).
    pub(super) fn weights(&self) -> Weights {
        let named = |(name, mut weight): (String, Weight)| {
            if let [1, tokens, dim] = weight.shape[..] {
                weight.shape = vec![tokens, dim];
            }
            (name.replace(".gamma", ".weight").replace(".beta", ".bias"), weight)
        };
        sightline_model::weights::export(self).into_iter().map(named).collect()
    }

    /// Patches `[batch, patches, 3 * patch * patch]` to normed tokens `[batch, prefix + patches, dim]`.
    pub(super) fn forward(&self, patches: Tensor<3>, activation: Activation) -> Tensor<3> {
        let [batch, ..] = patches.dims();
        let x = self.patch_embedding.forward(patches) + self.positions.val(); // [batch, patches, dim]
        let x = match &self.prefix {
            Some(prefix) => Tensor::cat(vec![prefix.val().repeat_dim(0, batch), x], 1), // [batch, prefix + patches, dim]
            None => x,
        };
        let x = match &self.pre_norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x, activation));
        self.norm.forward(x)
    }
}

fn vector(values: Vec<f32>, device: &Device) -> Param<Tensor<1>> {
    let len = values.len();
    Param::<Tensor<1>>::from_data(TensorData::new(values, [len]), device).set_require_grad(false)
}

fn matrix(values: Vec<f32>, shape: [usize; 2], device: &Device) -> Param<Tensor<2>> {
    Param::<Tensor<2>>::from_data(TensorData::new(values, shape), device).set_require_grad(false)
}

/// `[1, tokens, dim]`
fn tokens(values: Vec<f32>, dim: usize, device: &Device) -> Param<Tensor<3>> {
    let len = values.len() / dim;
    Param::<Tensor<3>>::from_data(TensorData::new(values, [1, len, dim]), device).set_require_grad(false)
}

pub(super) fn linear(layer: LinearWeights, device: &Device) -> Linear {
    Linear {
        weight: matrix(layer.weight, [layer.inputs, layer.outputs], device),
        bias: layer.bias.map(|bias| vector(bias, device)),
    }
}

fn layer_norm(layer: NormWeights, config: &VitConfig, device: &Device) -> LayerNorm {
    let mut norm = LayerNormConfig::new(config.dim).with_epsilon(config.epsilon).init(device);
    norm.gamma = vector(layer.gamma, device);
    norm.beta = Some(vector(layer.beta, device));
    norm
}
