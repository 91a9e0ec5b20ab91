//! What turns patches into normed tokens, and its weights by the names of [`VisionTransformer`].
//!
//! [`VisionTransformer`]: sightline_model::vit::VisionTransformer

use burn::tensor::{Device, Tensor, TensorData};
use sightline_model::tape::Tape;
use sightline_model::weights::{Weight, Weights};
use sightline_model::{Matrix, attended};

use super::super::weights::{LinearWeights, VitWeights};
use super::layers::Framework;
use super::{Vit, VitConfig};
use crate::Photo;

/// What turns patches into normed tokens.
#[derive(Debug)]
pub(super) enum Encoder {
    /// On this machine's processor; a picture never meets others in a product, so that its numbers are always the same.
    Tape(Weights),
    /// On a card.
    Framework(Box<Framework>),
}

impl Encoder {
    pub(super) fn new(weights: Weights, config: &VitConfig, device: &Device) -> Self {
        match *device == Device::flex() {
            true => Self::Tape(weights),
            false => Self::Framework(Box::new(Framework::new(&weights, config, device))),
        }
    }

    /// The weights, by name.
    pub(super) fn weights(&self) -> Weights {
        match self {
            Self::Tape(weights) => weights.clone(),
            Self::Framework(network) => network.weights(),
        }
    }

    /// The same network over the framework, as cards compute it.
    #[cfg(test)]
    pub(super) fn over_the_framework(&self, config: &VitConfig, device: &Device) -> Self {
        Self::Framework(Box::new(Framework::new(&self.weights(), config, device)))
    }

    /// Pictures of the input's size to `[batch, prefix + patches, dim]`.
    pub(super) fn tokens(&self, inputs: &[Photo], config: &VitConfig, device: &Device) -> Tensor<3> {
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

/// The weights of everything up to the last norm, by the names of [`VisionTransformer`]; the positions are interpolated to
/// the input.
pub(super) fn encoder_weights(weights: VitWeights, config: &VitConfig) -> Weights {
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
pub(super) fn lacking(weights: &Weights, config: &VitConfig) -> Option<String> {
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
