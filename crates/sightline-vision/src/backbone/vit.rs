//! The vision transformer (Dosovitskiy et al. 2021) and its descendants that differ in sizes, tokens and names:
//! DeiT, DeiT III, DINOv2 with and without registers, and the vision towers of CLIP and SigLIP.

mod encoder;
mod layers;

use std::path::Path;

use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};
pub use sightline_model::tape::Activation;
use sightline_model::vit::VisionTransformer;
use sightline_model::weights::Weights;

use self::encoder::{Encoder, encoder_weights, lacking};
use self::layers::{AttentionPool, linear};
use super::weights::{self, Layout, VitWeights};
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
        Ok((self.config.transformer(), self.encoder.weights()))
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
        self.encoder = self.encoder.over_the_framework(&self.config, &self.device);
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
