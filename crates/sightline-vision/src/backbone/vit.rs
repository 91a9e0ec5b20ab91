//! The vision transformer (Dosovitskiy et al. 2021) and its descendants that differ in sizes, tokens and names:
//! DeiT, DeiT III, DINOv2 with and without registers, and the vision towers of CLIP and SigLIP.

use std::path::Path;

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Tensor, TensorData, activation, module::attention};
use serde::{Deserialize, Serialize};
pub use sightline_model::tape::Activation;
use sightline_model::tape::Tape;
use sightline_model::vit::VisionTransformer;
use sightline_model::weights::{Weight, Weights};
use sightline_model::{Matrix, attended};

use super::weights::{self, Layout, LinearWeights, NormWeights, PoolWeights, VitWeights};
use super::{Backbone, FeatureMap, file_stem};
use crate::{Error, Filter, Photo, Result};

const HALF: [f32; 3] = [0.5; 3];
pub(super) const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
pub(super) const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// A network trained on pictures with a longer side than this gets [`REDUCED_GRID`] patches a side instead.
const LARGEST_NATIVE_INPUT: usize = 400;
const REDUCED_GRID: usize = 16;

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

/// What to use instead of what the recognised family uses; `None` keeps the family's.
///
/// | recognised by | input | epsilon | activation | mean and deviation |
/// | --- | --- | --- | --- | --- |
/// | timm names, nothing else | positions × patch | 1e-6 | GELU | 0.5, by the file's name ImageNet's |
/// | distillation token (DeiT) | positions × patch | 1e-6 | GELU | ImageNet's |
/// | layer scale (DINOv2, DeiT III) | positions × patch | 1e-6 | GELU | ImageNet's |
/// | timm names and a norm before the blocks (CLIP in timm) | positions × patch | 1e-5 | GELU | CLIP's |
/// | Hugging Face's ViT | positions × patch | 1e-12 | GELU | 0.5, by the file's name ImageNet's |
/// | Hugging Face's or OpenAI's CLIP names | positions × patch | 1e-5 | quick GELU | CLIP's |
/// | Hugging Face's SigLIP names | positions × patch | 1e-6 | tanh GELU | 0.5 |
///
/// An input above 400 pixels (DINOv2's 518) is reduced to 16 patches a side, since the cost grows with its square;
/// `input: Some(518)` brings it back. DeiT without distillation, DINO's first version and MAE have exactly ViT's tensors
/// but were trained with ImageNet's statistics: they are told by `deit`, `dino` or `mae` in the file's name, or in its
/// folder's where the file is called `model.safetensors`. OpenCLIP's later networks use OpenAI's names but GELU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VitOptions {
    /// Side of the square input in pixels, a multiple of the patch; positions are interpolated.
    pub input: Option<usize>,
    /// Attention heads; `dim / 64` unless given, and 16 for the 1152 numbers of SigLIP So400m.
    pub heads: Option<usize>,
    /// Added to the variance in every layer normalisation.
    pub epsilon: Option<f64>,
    /// The nonlinearity.
    pub activation: Option<Activation>,
    /// Subtracted from the colours, which lie in `0..=1`; red, green, blue.
    pub mean: Option<[f32; 3]>,
    /// What the difference is divided by.
    pub std: Option<[f32; 3]>,
    /// Whether CLIP's projection is applied, so that vectors lie in the space of its sentences.
    pub project: bool,
}

/// Sizes and settings of a loaded network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VitConfig {
    /// Width of a token.
    pub dim: usize,
    /// Width of what comes out: `dim`, or CLIP's projection.
    pub output_dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width inside the perceptron of the first block.
    pub hidden: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Side of the square input in pixels.
    pub input: usize,
    /// Patches a side that the positions were trained on.
    pub trained_grid: usize,
    /// Register tokens.
    pub registers: usize,
    /// Whether there is a distillation token.
    pub distillation: bool,
    /// Added to the variance in every layer normalisation.
    pub epsilon: f64,
    /// The nonlinearity.
    pub activation: Activation,
    /// Subtracted from the colours in `0..=1`.
    pub mean: [f32; 3],
    /// What the difference is divided by.
    pub std: [f32; 3],
    /// Whether CLIP's projection is applied.
    pub project: bool,
}

impl VitConfig {
    fn new(path: &Path, weights: &VitWeights, options: &VitOptions) -> Result<Self> {
        let first = weights.blocks.first().ok_or_else(|| Error::weights(path, "no transformer block"))?;
        let scaled = first.scale1.is_some();
        let (epsilon, activation, mean, std) = match weights.layout {
            Layout::HuggingFaceClip | Layout::OpenAiClip => (1e-5, Activation::QuickGelu, CLIP_MEAN, CLIP_STD),
            Layout::HuggingFaceSiglip => (1e-6, Activation::TanhGelu, HALF, HALF),
            Layout::Timm if weights.pre_norm.is_some() => (1e-5, Activation::Gelu, CLIP_MEAN, CLIP_STD),
            layout => {
                let epsilon = if layout == Layout::HuggingFaceVit { 1e-12 } else { 1e-6 };
                let imagenet = scaled || weights.has_distillation || named_after_imagenet(path);
                let (mean, std) = if imagenet { (IMAGENET_MEAN, IMAGENET_STD) } else { (HALF, HALF) };
                (epsilon, Activation::Gelu, mean, std)
            }
        };
        let (dim, patch) = (weights.dim, weights.patch);
        let heads = match options.heads {
            Some(heads) => heads,
            None if weights.layout == Layout::HuggingFaceSiglip && dim == 1152 => 16,
            None if dim.is_multiple_of(64) => dim / 64,
            None => {
                let message = format!("the tokens' width {dim} is no multiple of 64, so `heads` must be given");
                return Err(Error::weights(path, message));
            }
        };
        if heads == 0 || !dim.is_multiple_of(heads) {
            return Err(Error::setting(format!("heads = {heads} does not divide the tokens' width {dim}")));
        }
        let native = weights.grid * patch;
        let input = options.input.unwrap_or(if native > LARGEST_NATIVE_INPUT { REDUCED_GRID * patch } else { native });
        if input == 0 || !input.is_multiple_of(patch) || input > 4096 {
            let message =
                format!("input = {input} must be a multiple of the patch, {patch}, up to 4096; trained on {native}");
            return Err(Error::setting(message));
        }
        let std = options.std.unwrap_or(std);
        if std.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return Err(Error::setting(format!("std = {std:?} must be three positive numbers")));
        }
        let projected = match (&weights.projection, options.project) {
            (Some(projection), true) => Some(projection.outputs),
            (None, true) => {
                return Err(Error::weights(path, "project was asked for, but there is no projection inside"));
            }
            (_, false) => None,
        };
        Ok(Self {
            dim,
            output_dim: projected.unwrap_or(dim),
            depth: weights.blocks.len(),
            heads,
            hidden: first.fc1.outputs,
            patch,
            input,
            trained_grid: weights.grid,
            registers: weights.n_registers,
            distillation: weights.has_distillation,
            epsilon: options.epsilon.unwrap_or(epsilon),
            activation: options.activation.unwrap_or(activation),
            mean: options.mean.unwrap_or(mean),
            std,
            project: options.project,
        })
    }

    /// The network as the tape computes it.
    fn transformer(&self) -> VisionTransformer {
        let &Self { depth, heads, epsilon, activation, .. } = self;
        VisionTransformer { depth, heads, epsilon: epsilon as f32, activation }
    }

    /// Patches along one side of the input.
    pub fn grid(&self) -> usize {
        self.input / self.patch
    }

    /// One picture as rows of a patch each, ordered channel, row, column like a convolution's kernel.
    fn write_patches(&self, input: &Photo, values: &mut Vec<f32>) {
        let &Self { patch, mean, std, .. } = self;
        assert_eq!([input.width, input.height], [self.input as u32; 2], "a picture of the input's size");
        let levels: [[f32; 256]; 3] =
            std::array::from_fn(|c| std::array::from_fn(|level| (level as f32 / 255.0 - mean[c]) / std[c]));
        let width = input.width as usize;
        for top in (0..input.height as usize).step_by(patch) {
            for left in (0..width).step_by(patch) {
                for (channel, levels) in levels.iter().enumerate() {
                    for row in top..top + patch {
                        let start = 3 * (row * width + left) + channel;
                        let line = input.pixels[start..start + 3 * patch - 2].iter().step_by(3);
                        values.extend(line.map(|&level| levels[usize::from(level)]));
                    }
                }
            }
        }
    }
}

/// Whether the name is one of the networks that have ViT's tensors but ImageNet's statistics.
fn named_after_imagenet(path: &Path) -> bool {
    let named = match path.file_stem() {
        Some(stem) if stem == "model" => path.parent().and_then(Path::file_name),
        stem => stem,
    };
    let name = named.unwrap_or_default().to_string_lossy().to_lowercase();
    ["deit", "dino", "mae"].iter().any(|family| name.contains(family))
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
struct AttentionPool {
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
    fn new(pool: PoolWeights, config: &VitConfig, device: &Device) -> Self {
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
    fn forward(&self, tokens: Tensor<3>, activation: Activation) -> Tensor<3> {
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
struct Framework {
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
    /// Of weights by the names of [`VisionTransformer`], none of them [`lacking`].
    fn new(weights: &Weights, config: &VitConfig, device: &Device) -> Self {
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

    /// The weights by the names of [`VisionTransformer`].
    fn weights(&self) -> Weights {
        let named = |(name, mut weight): (String, Weight)| {
            if let [1, tokens, dim] = weight.shape[..] {
                weight.shape = vec![tokens, dim];
            }
            (name.replace(".gamma", ".weight").replace(".beta", ".bias"), weight)
        };
        sightline_model::weights::export(self).into_iter().map(named).collect()
    }

    /// Patches `[batch, patches, 3 * patch * patch]` to normed tokens `[batch, prefix + patches, dim]`.
    fn forward(&self, patches: Tensor<3>, activation: Activation) -> Tensor<3> {
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

fn linear(layer: LinearWeights, device: &Device) -> Linear {
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

/// The weights of everything up to the last norm, by the names of [`VisionTransformer`]; the positions are interpolated to
/// the input.
fn encoder_weights(weights: VitWeights, config: &VitConfig) -> Weights {
    let dim = config.dim;
    let mut named = Weights::new();
    let mut put = |name: String, shape: Vec<usize>, values: Vec<f32>| {
        named.insert(name, Weight { shape, values });
    };
    let mut linear = |name: String, layer: LinearWeights| {
        put(format!("{name}.weight"), vec![layer.inputs, layer.outputs], layer.weight);
        if let Some(bias) = layer.bias {
            put(format!("{name}.bias"), vec![layer.outputs], bias);
        }
    };
    linear("patch_embedding".to_owned(), weights.patch_embedding);
    let mut vectors = vec![("norm".to_owned(), weights.norm)];
    vectors.extend(weights.pre_norm.map(|norm| ("pre_norm".to_owned(), norm)));
    let mut scales = Vec::new();
    for (i, block) in weights.blocks.into_iter().enumerate() {
        let name = |part: &str| format!("blocks.{i}.{part}");
        linear(name("qkv"), block.qkv);
        linear(name("attention_out"), block.attention_out);
        linear(name("fc1"), block.fc1);
        linear(name("fc2"), block.fc2);
        vectors.extend([(name("norm1"), block.norm1), (name("norm2"), block.norm2)]);
        scales.extend(block.scale1.map(|scale| (name("scale1"), scale)));
        scales.extend(block.scale2.map(|scale| (name("scale2"), scale)));
    }
    for (name, norm) in vectors {
        put(format!("{name}.weight"), vec![dim], norm.gamma);
        put(format!("{name}.bias"), vec![dim], norm.beta);
    }
    for (name, scale) in scales {
        put(name, vec![dim], scale);
    }
    if weights.n_prefix > 0 {
        put("prefix".to_owned(), vec![weights.n_prefix, dim], weights.prefix);
    }
    let positions = interpolate_positions(&weights.positions, weights.grid, config.grid(), dim);
    put("positions".to_owned(), vec![positions.len() / dim, dim], positions);
    named
}

/// The first name that an encoder needs and these weights lack, or have in another shape than the others ask for.
fn lacking(weights: &Weights, config: &VitConfig) -> Option<String> {
    let &VitConfig { dim, patch, .. } = config;
    let has = |name: &str, shape: &[usize]| weights.get(name).is_some_and(|weight| weight.shape == shape);
    let fits = |name: &str, shape: &[usize]| weights.get(name).is_none_or(|weight| weight.shape == shape);
    let linear = |name: String, inputs: usize, outputs: usize| {
        let (matrix, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        [(has(&matrix, &[inputs, outputs]), matrix), (fits(&bias, &[outputs]), bias)]
    };
    let norm =
        |name: String| ["weight", "bias"].map(|part| format!("{name}.{part}")).map(|name| (has(&name, &[dim]), name));
    let mut parts = Vec::from(linear("patch_embedding".to_owned(), 3 * patch * patch, dim));
    for block in 0..config.depth {
        let name = |part: &str| format!("blocks.{block}.{part}");
        let hidden = weights.get(&name("fc1.weight")).and_then(|weight| weight.shape.last()).copied().unwrap_or(0);
        parts.extend(norm(name("norm1")));
        parts.extend(linear(name("qkv"), dim, 3 * dim));
        parts.extend(linear(name("attention_out"), dim, dim));
        parts.extend(norm(name("norm2")));
        parts.extend(linear(name("fc1"), dim, hidden));
        parts.extend(linear(name("fc2"), hidden, dim));
        parts.extend([name("scale1"), name("scale2")].map(|name| (fits(&name, &[dim]), name)));
    }
    parts.extend(norm("norm".to_owned()));
    if weights.contains_key("pre_norm.weight") {
        parts.extend(norm("pre_norm".to_owned()));
    }
    let cells = config.grid() * config.grid();
    parts.push((has("positions", &[cells, dim]), "positions".to_owned()));
    let rows = weights.get("prefix").map_or(0, |prefix| prefix.shape[0]);
    parts.push((fits("prefix", &[rows, dim]), "prefix".to_owned()));
    parts.into_iter().find(|(fits, _)| !fits).map(|(_, name)| name)
}

/// What turns patches into normed tokens.
#[derive(Debug)]
enum Encoder {
    /// On this machine's processor; a picture never meets others in a product, so that its numbers are always the same.
    Tape(Weights),
    /// On a card.
    Framework(Box<Framework>),
}

impl Encoder {
    fn new(weights: Weights, config: &VitConfig, device: &Device) -> Self {
        match *device == Device::flex() {
            true => Self::Tape(weights),
            false => Self::Framework(Box::new(Framework::new(&weights, config, device))),
        }
    }

    /// Pictures of the input's size to `[batch, prefix + patches, dim]`.
    fn tokens(&self, inputs: &[Photo], config: &VitConfig, device: &Device) -> Tensor<3> {
        let (cells, pixels) = (config.grid() * config.grid(), 3 * config.patch * config.patch);
        match self {
            Self::Tape(weights) => {
                let network = config.transformer();
                let mut values = Vec::new();
                for input in inputs {
                    let patches = Matrix::new(cells, pixels, Vit::patches(config, input));
                    values.extend(attended(|| {
                        let mut tape = Tape::forward_only(weights);
                        let tokens = network.forward(&mut tape, patches, 1, None);
                        tape.value(tokens).values.clone()
                    }));
                }
                let tokens = values.len() / inputs.len() / config.dim;
                Tensor::from_data(TensorData::new(values, [inputs.len(), tokens, config.dim]), device)
            }
            Self::Framework(network) => {
                let mut values = Vec::with_capacity(inputs.len() * cells * pixels);
                inputs.iter().for_each(|input| config.write_patches(input, &mut values));
                let patches = Tensor::from_data(TensorData::new(values, [inputs.len(), cells, pixels]), device);
                network.forward(patches, config.activation)
            }
        }
    }
}

/// Positions of a `from` × `from` grid on a `to` × `to` one, `[to * to, dim]`: bicubic with a = -0.75 and half-pixel
/// centres, borders repeated, as PyTorch's `interpolate(mode="bicubic", align_corners=False)`.
fn interpolate_positions(positions: &[f32], from: usize, to: usize, dim: usize) -> Vec<f32> {
    assert_eq!(positions.len(), from * from * dim, "positions of {from} × {from} tokens of width {dim}");
    if from == to {
        return positions.to_vec();
    }
    let taps: Vec<[(usize, f32); 4]> = (0..to).map(|target| cubic_taps(target, from, to)).collect();
    let mut out = vec![0.0; to * to * dim];
    for (cell, values) in out.chunks_exact_mut(dim).enumerate() {
        for (source_row, row_weight) in taps[cell / to] {
            for (source_column, column_weight) in taps[cell % to] {
                let source = &positions[(source_row * from + source_column) * dim..][..dim];
                let weight = row_weight * column_weight;
                values.iter_mut().zip(source).for_each(|(value, s)| *value += weight * s);
            }
        }
    }
    out
}

fn cubic_taps(target: usize, from: usize, to: usize) -> [(usize, f32); 4] {
    const A: f64 = -0.75;
    let position = (target as f64 + 0.5) * from as f64 / to as f64 - 0.5;
    let floor = position.floor();
    std::array::from_fn(|tap| {
        let index = floor + tap as f64 - 1.0;
        let distance = (position - index).abs();
        let weight = if distance <= 1.0 {
            ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0
        } else {
            ((A * distance - 5.0 * A) * distance + 8.0 * A) * distance - 4.0 * A
        };
        (index.clamp(0.0, from as f64 - 1.0) as usize, weight as f32)
    })
}

/// A loaded vision transformer: a [`Backbone`] whose patches are its patch tokens after the last normalisation, and
/// whose global vector is its class token, or SigLIP's pooled one.
#[derive(Debug)]
pub struct Vit {
    name: String,
    checksum: String,
    config: VitConfig,
    layout: Layout,
    unused: Vec<String>,
    encoder: Encoder,
    head: Option<Linear>,
    projection: Option<Linear>,
    pool: Option<AttentionPool>,
    device: Device,
}

impl Vit {
    /// Reads a safetensors file of any layout that [`Layout`] lists.
    ///
    /// Fails where the file is absent, is not safetensors, is cut short, holds no vision transformer with known names,
    /// lacks a tensor, or holds one of another shape than the others ask for.
    pub fn load(path: &Path, options: &VitOptions, device: &Device) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        Self::of_file(path, &bytes, options, device)
    }

    /// As [`Vit::load`], of a file that was read.
    pub(super) fn of_file(path: &Path, bytes: &[u8], options: &VitOptions, device: &Device) -> Result<Self> {
        let mut weights = weights::read(path, &weights::tensors(path, bytes)?)?;
        let config = VitConfig::new(path, &weights, options)?;
        let projection = weights.projection.take().filter(|_| config.project);
        Ok(Self {
            name: file_stem(path),
            checksum: sightline_data::checksum::of_bytes(bytes),
            layout: weights.layout,
            unused: std::mem::take(&mut weights.unused),
            head: weights.head.take().map(|head| linear(head, device)),
            projection: projection.map(|projection| linear(projection, device)),
            pool: weights.pool.take().map(|pool| AttentionPool::new(pool, &config, device)),
            encoder: Encoder::new(encoder_weights(weights, &config), &config, device),
            config,
            device: device.clone(),
        })
    }

    /// The network and its weights, to go on learning on the tape. Its classification head is not among them.
    ///
    /// Fails where the photo's vector does not come from the tokens alone: SigLIP's pooling, CLIP's projection.
    pub fn learnable(&self) -> Result<(VisionTransformer, Weights)> {
        if self.pool.is_some() || self.projection.is_some() {
            return Err(Error::setting(format!(
                "{} has a pooling or a projection behind its tokens, which is not trained here; take a ViT, DeiT, DINOv2 or \
                 CLIP without `project`",
                self.name
            )));
        }
        let weights = match &self.encoder {
            Encoder::Tape(weights) => weights.clone(),
            Encoder::Framework(network) => network.weights(),
        };
        Ok((self.config.transformer(), weights))
    }

    /// A network whose weights went on learning from those of [`Vit::learnable`]; `checksum` tells them from others.
    ///
    /// Fails where a weight is missing or has another shape.
    pub fn of_learnt(
        name: impl Into<String>,
        checksum: impl Into<String>,
        config: VitConfig,
        weights: Weights,
        device: &Device,
    ) -> Result<Self> {
        if let Some(name) = lacking(&weights, &config) {
            return Err(Error::setting(format!("the backbone's weights lack {name}, or have it in another shape")));
        }
        Ok(Self {
            name: name.into(),
            checksum: checksum.into(),
            encoder: Encoder::new(weights, &config, device),
            head: None,
            projection: None,
            pool: None,
            config,
            layout: Layout::Timm,
            unused: Vec::new(),
            device: device.clone(),
        })
    }

    /// The same network over the framework, as cards compute it.
    #[cfg(test)]
    pub(super) fn over_the_framework(mut self) -> Self {
        let Encoder::Tape(weights) = &self.encoder else { panic!("it is there already") };
        self.encoder = Encoder::Framework(Box::new(Framework::new(weights, &self.config, &self.device)));
        self
    }

    /// A picture of the input's size as the network reads it: `[patches, 3 · patch²]`, row-major.
    pub fn patches(config: &VitConfig, picture: &Photo) -> Vec<f32> {
        let mut values = Vec::with_capacity(3 * config.input * config.input);
        config.write_patches(picture, &mut values);
        values
    }

    /// Sizes and settings.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Whose names the file carries.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Tensors of the file that are not used (CLIP's text tower, DeiT's second head, …), sorted.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// Classes of the classification head; zero where the file has none.
    pub fn classes(&self) -> usize {
        self.head.as_ref().map_or(0, |head| head.weight.dims()[1])
    }

    /// Class probabilities of each photo, `[photos][classes]`, by the file's own head over the class token.
    ///
    /// The photo's short side goes to 248 pixels for an input of 224 (timm's `crop_pct` 0.9), bicubic, and the centre
    /// is cut out. Fails where the file has no head.
    pub fn classify(&self, photos: &[Photo]) -> Result<Vec<Vec<f32>>> {
        let Some(head) = &self.head else {
            return Err(Error::setting(format!(
                "{} has no classification head; give weights that have one",
                self.name
            )));
        };
        if photos.is_empty() {
            return Ok(Vec::new());
        }
        let side = self.config.input as u32;
        let inputs: Vec<Photo> = photos.iter().map(|photo| centre_of(photo, side)).collect();
        let [batch, dim] = [photos.len(), self.config.dim];
        let class = self.tokens(&inputs).slice([0..batch, 0..1]).reshape([batch, dim]);
        let probabilities = activation::softmax(head.forward(class), 1); // [batch, classes]
        let values = floats(probabilities.into_data());
        Ok(values.chunks_exact(self.classes()).map(<[f32]>::to_vec).collect())
    }

    /// Normed tokens of pictures that have the input's size, `[batch, prefix + patches, dim]`; the first is the whole
    /// photo's, the class token or what the pooling makes of the others.
    fn tokens(&self, inputs: &[Photo]) -> Tensor<3> {
        let tokens = self.encoder.tokens(inputs, &self.config, &self.device);
        match &self.pool {
            Some(pool) => Tensor::cat(vec![pool.forward(tokens.clone(), self.config.activation), tokens], 1),
            None => tokens,
        }
    }
}

impl Backbone for Vit {
    fn name(&self) -> &str {
        &self.name
    }

    fn checksum(&self) -> &str {
        &self.checksum
    }

    fn dim(&self) -> usize {
        let VitConfig { output_dim, .. } = self.config;
        output_dim
    }

    fn settings(&self) -> Vec<(String, String)> {
        let VitConfig { input, heads, epsilon, activation, mean, std, project, .. } = &self.config;
        vec![(
            "vit".to_owned(),
            format!(
                "input {input}, heads {heads}, epsilon {epsilon:e}, {activation:?}, mean {mean:?}, std {std:?}, \
                 project {project}"
            ),
        )]
    }

    fn encode_map(&self, photos: &[Photo]) -> Result<Vec<FeatureMap>> {
        if photos.is_empty() {
            return Ok(Vec::new());
        }
        let side = self.config.input as u32;
        let inputs: Vec<Photo> = photos.iter().map(|photo| photo.resize(side, side, Filter::Bicubic)).collect();
        let tokens = self.tokens(&inputs);
        let tokens = match &self.projection {
            Some(projection) => projection.forward(tokens),
            None => tokens,
        };
        let [_, n_tokens, dim] = tokens.dims(); // [batch, prefix + patches, dim]
        let grid = self.config.grid();
        let n_prefix = n_tokens - grid * grid;
        let values = floats(tokens.into_data());
        Ok(values
            .chunks_exact(n_tokens * dim)
            .map(|tokens| FeatureMap {
                grid_h: grid,
                grid_w: grid,
                dim,
                patches: tokens[n_prefix * dim..].to_vec(),
                global: tokens[..dim].to_vec(),
            })
            .collect())
    }
}

/// timm's evaluation view: the short side to `side / 0.9`, bicubic, and the centre `side` × `side`.
fn centre_of(photo: &Photo, side: u32) -> Photo {
    let short = (f64::from(side) / 0.9).floor();
    let scale = short / f64::from(photo.width.min(photo.height));
    let sized = |pixels: u32| ((f64::from(pixels) * scale).floor() as u32).max(short as u32);
    let resized = photo.resize(sized(photo.width), sized(photo.height), Filter::Bicubic);
    let corner = |pixels: u32| (f64::from(pixels - side) / 2.0).round_ties_even() as f32;
    let (left, top) = (corner(resized.width), corner(resized.height));
    resized.crop(&sightline_data::BoxXyxy::from_xywh(left, top, side as f32, side as f32))
}

pub(super) fn floats(data: TensorData) -> Vec<f32> {
    data.convert::<f32>().try_into_vec().expect("data that was just converted to f32")
}
