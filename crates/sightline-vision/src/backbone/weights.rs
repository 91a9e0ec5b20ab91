//! Reads the weights of a vision transformer from a safetensors file, whoever's names it carries.
//!
//! The layout is recognised by the tensors' names, every size is read from their shapes, and half floats widen to
//! `f32`. Seven layouts are known: timm (ViT, DeiT, DeiT III, DINOv2, CLIP's tower) with Facebook's own DINOv2 names,
//! Hugging Face's ViT and DeiT, its DINOv2, its CLIP, its SigLIP, and OpenAI's CLIP. A prefix before all names
//! (`module.`, `vit.`, `dinov2.`) is allowed.

use std::collections::BTreeSet;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use crate::{Error, Result};

/// Whose names the tensors carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// timm's, DeiT's and Facebook's DINOv2: `blocks.0.attn.qkv.weight`.
    Timm,
    /// Hugging Face's ViT and DeiT: `encoder.layer.0.layernorm_before.weight`.
    HuggingFaceVit,
    /// Hugging Face's DINOv2, with and without registers: `encoder.layer.0.norm1.weight`.
    HuggingFaceDino,
    /// Hugging Face's CLIP: `vision_model.encoder.layers.0.self_attn.q_proj.weight`.
    HuggingFaceClip,
    /// Hugging Face's SigLIP and SigLIP 2: CLIP's names, `vision_model.head.probe` in place of a class token.
    HuggingFaceSiglip,
    /// OpenAI's CLIP: `visual.transformer.resblocks.0.attn.in_proj_weight`.
    OpenAiClip,
}

/// Where queries, keys and values lie.
#[derive(Debug, Clone, Copy)]
enum Qkv {
    /// One matrix `[3 * dim, dim]` and one bias, by their full names.
    Fused(&'static str, &'static str),
    /// Three layers of `[dim, dim]`.
    Separate([&'static str; 3]),
}

/// The names of one layout. An empty name means that the layout has no such tensor.
#[derive(Debug)]
struct Names {
    layout: Layout,
    class_token: &'static str,
    distillation_token: &'static str,
    registers: &'static [&'static str],
    positions: &'static str,
    patch: &'static str,
    pre_norm: &'static str,
    /// Before the number of a block; a dot follows the number.
    block: &'static str,
    norm1: &'static str,
    qkv: Qkv,
    attention_out: &'static str,
    norm2: &'static str,
    fc1: &'static str,
    fc2: &'static str,
    scales: [&'static str; 2],
    norm: &'static str,
    head: &'static str,
    /// CLIP's projection to the space it shares with sentences.
    projection: &'static str,
    /// Whether the projection lies as `[dim, projected]`, the transpose of a linear layer's.
    projection_transposed: bool,
    /// SigLIP's pooling by attention, which networks without a class token have.
    pool: &'static str,
}

const TIMM: Names = Names {
    layout: Layout::Timm,
    class_token: "cls_token",
    distillation_token: "dist_token",
    registers: &["reg_token", "register_tokens"],
    positions: "pos_embed",
    patch: "patch_embed.proj",
    pre_norm: "norm_pre",
    block: "blocks.",
    norm1: "norm1",
    qkv: Qkv::Fused("attn.qkv.weight", "attn.qkv.bias"),
    attention_out: "attn.proj",
    norm2: "norm2",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    scales: ["ls1.gamma", "ls2.gamma"],
    norm: "norm",
    head: "head",
    projection: "",
    projection_transposed: false,
    pool: "",
};

const HUGGING_FACE_VIT: Names = Names {
    layout: Layout::HuggingFaceVit,
    class_token: "embeddings.cls_token",
    distillation_token: "embeddings.distillation_token",
    registers: &[],
    positions: "embeddings.position_embeddings",
    patch: "embeddings.patch_embeddings.projection",
    pre_norm: "",
    block: "encoder.layer.",
    norm1: "layernorm_before",
    qkv: Qkv::Separate(["attention.attention.query", "attention.attention.key", "attention.attention.value"]),
    attention_out: "attention.output.dense",
    norm2: "layernorm_after",
    fc1: "intermediate.dense",
    fc2: "output.dense",
    scales: ["", ""],
    norm: "layernorm",
    head: "classifier",
    projection: "",
    projection_transposed: false,
    pool: "",
};

const HUGGING_FACE_DINO: Names = Names {
    layout: Layout::HuggingFaceDino,
    distillation_token: "",
    registers: &["embeddings.register_tokens"],
    norm1: "norm1",
    norm2: "norm2",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    scales: ["layer_scale1.lambda1", "layer_scale2.lambda1"],
    ..HUGGING_FACE_VIT
};

const HUGGING_FACE_CLIP: Names = Names {
    layout: Layout::HuggingFaceClip,
    class_token: "vision_model.embeddings.class_embedding",
    distillation_token: "",
    registers: &[],
    positions: "vision_model.embeddings.position_embedding.weight",
    patch: "vision_model.embeddings.patch_embedding",
    pre_norm: "vision_model.pre_layrnorm",
    block: "vision_model.encoder.layers.",
    norm1: "layer_norm1",
    qkv: Qkv::Separate(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    attention_out: "self_attn.out_proj",
    norm2: "layer_norm2",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    scales: ["", ""],
    norm: "vision_model.post_layernorm",
    head: "",
    projection: "visual_projection.weight",
    projection_transposed: false,
    pool: "",
};

const HUGGING_FACE_SIGLIP: Names = Names {
    layout: Layout::HuggingFaceSiglip,
    class_token: "",
    pre_norm: "",
    projection: "",
    pool: "vision_model.head",
    ..HUGGING_FACE_CLIP
};

const OPEN_AI_CLIP: Names = Names {
    layout: Layout::OpenAiClip,
    class_token: "visual.class_embedding",
    distillation_token: "",
    registers: &[],
    positions: "visual.positional_embedding",
    patch: "visual.conv1",
    pre_norm: "visual.ln_pre",
    block: "visual.transformer.resblocks.",
    norm1: "ln_1",
    qkv: Qkv::Fused("attn.in_proj_weight", "attn.in_proj_bias"),
    attention_out: "attn.out_proj",
    norm2: "ln_2",
    fc1: "mlp.c_fc",
    fc2: "mlp.c_proj",
    scales: ["", ""],
    norm: "visual.ln_post",
    head: "",
    projection: "visual.proj",
    projection_transposed: true,
    pool: "",
};

const KNOWN: [&Names; 6] =
    [&TIMM, &HUGGING_FACE_VIT, &HUGGING_FACE_DINO, &HUGGING_FACE_CLIP, &HUGGING_FACE_SIGLIP, &OPEN_AI_CLIP];

impl Names {
    /// The tensor that stands for the whole photo: the class token, or what the pooling attends with.
    fn whole(&self) -> String {
        if self.pool.is_empty() { self.class_token.to_owned() } else { format!("{}.probe", self.pool) }
    }
}

/// A matrix for `rows · matrix`: the transpose of a safetensors linear layer, with its bias.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LinearWeights {
    /// `[inputs, outputs]`, row by row.
    pub(super) weight: Vec<f32>,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// `[outputs]`
    pub(super) bias: Option<Vec<f32>>,
}

/// Scale and shift of a layer normalisation, `[dim]` each.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NormWeights {
    pub(super) gamma: Vec<f32>,
    pub(super) beta: Vec<f32>,
}

/// One transformer block.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BlockWeights {
    pub(super) norm1: NormWeights,
    /// `[dim, 3 * dim]`: queries, keys, values.
    pub(super) qkv: LinearWeights,
    pub(super) attention_out: LinearWeights,
    pub(super) scale1: Option<Vec<f32>>,
    pub(super) norm2: NormWeights,
    pub(super) fc1: LinearWeights,
    pub(super) fc2: LinearWeights,
    pub(super) scale2: Option<Vec<f32>>,
}

/// SigLIP's pooling by attention: one query over all tokens, then a perceptron beside it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PoolWeights {
    /// The probe through its projection, `[dim]`: the same for every photo.
    pub(super) query: Vec<f32>,
    /// `[dim, 2 * dim]`: keys, values.
    pub(super) key_value: LinearWeights,
    pub(super) attention_out: LinearWeights,
    pub(super) norm: NormWeights,
    pub(super) fc1: LinearWeights,
    pub(super) fc2: LinearWeights,
}

/// All weights of a vision transformer, in one layout whatever the file's.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct VitWeights {
    pub(super) layout: Layout,
    pub(super) dim: usize,
    /// Side of a patch in pixels.
    pub(super) patch: usize,
    /// Patches along one side of the picture that the positions were trained on.
    pub(super) grid: usize,
    /// `[3 * patch * patch, dim]`, the inputs ordered channel, row, column.
    pub(super) patch_embedding: LinearWeights,
    /// The tokens before the patches, `[prefix, dim]`: class, distillation, registers, their positions added.
    pub(super) prefix: Vec<f32>,
    pub(super) n_prefix: usize,
    pub(super) has_distillation: bool,
    pub(super) n_registers: usize,
    /// Of the patches, `[grid * grid, dim]`.
    pub(super) positions: Vec<f32>,
    pub(super) pre_norm: Option<NormWeights>,
    pub(super) blocks: Vec<BlockWeights>,
    pub(super) norm: NormWeights,
    pub(super) head: Option<LinearWeights>,
    pub(super) projection: Option<LinearWeights>,
    pub(super) pool: Option<PoolWeights>,
    /// Tensors of the file that the network has no use for, sorted.
    pub(super) unused: Vec<String>,
}

/// The tensors of one file, and which of them were asked for.
pub(super) struct Reader<'a> {
    path: &'a Path,
    prefix: String,
    tensors: &'a SafeTensors<'a>,
    used: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    /// Of a file whose names all begin with `prefix`; `path` only appears in errors.
    pub(super) fn new(path: &'a Path, tensors: &'a SafeTensors<'a>, prefix: impl Into<String>) -> Self {
        Self { path, prefix: prefix.into(), tensors, used: BTreeSet::new() }
    }
}

impl Reader<'_> {
    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Whether there is a tensor of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        !name.is_empty() && self.tensors.tensor(&self.full(name)).is_ok()
    }

    /// The shape of `name`, which must be there.
    pub(super) fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let full = self.full(name);
        match self.tensors.tensor(&full) {
            Ok(view) => Ok(view.shape().to_vec()),
            Err(_) => Err(Error::weights(self.path, format!("tensor `{full}` is missing"))),
        }
    }

    /// The values of `name`, whose shape must be `expected`.
    pub(super) fn take(&mut self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let found = self.shape(name)?;
        let full = self.full(name);
        if found != expected {
            return Err(self.wrong_shape(name, &format!("{expected:?}"), &found));
        }
        let view = self.tensors.tensor(&full).expect("its shape was just read");
        let values = widen(view.dtype(), view.data()).ok_or_else(|| {
            let message = format!(
                "tensor `{full}` holds {:?}, expected F16, BF16, F32 or F64; save it as one of these",
                view.dtype()
            );
            Error::weights(self.path, message)
        })?;
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            let message = format!("tensor `{full}` holds {} at position {index}; the file is damaged", values[index]);
            return Err(Error::weights(self.path, message));
        }
        self.used.insert(full);
        Ok(values)
    }

    /// What to say of a tensor of another shape than `expected`.
    pub(super) fn wrong_shape(&self, name: &str, expected: &str, found: &[usize]) -> Error {
        let full = self.full(name);
        Error::weights(self.path, format!("tensor `{full}` has shape {found:?}, expected {expected}"))
    }

    fn norm(&mut self, name: &str, dim: usize) -> Result<NormWeights> {
        Ok(NormWeights {
            gamma: self.take(&format!("{name}.weight"), &[dim])?,
            beta: self.take(&format!("{name}.bias"), &[dim])?,
        })
    }

    /// A layer that has a bias in every layout.
    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<LinearWeights> {
        let bias = format!("{name}.bias");
        self.shape(&bias)?;
        self.linear_named(&format!("{name}.weight"), &bias, inputs, outputs)
    }

    fn linear_named(&mut self, weight: &str, bias: &str, inputs: usize, outputs: usize) -> Result<LinearWeights> {
        let values = self.take(weight, &[outputs, inputs])?;
        let bias = if self.has(bias) { Some(self.take(bias, &[outputs])?) } else { None };
        Ok(LinearWeights { weight: transposed(&values, outputs, inputs), inputs, outputs, bias })
    }

    /// Queries, keys and values side by side, `[dim, 3 * dim]`, from either layout.
    fn qkv(&mut self, block: &str, qkv: Qkv, dim: usize) -> Result<LinearWeights> {
        match qkv {
            Qkv::Fused(weight, bias) => {
                self.linear_named(&format!("{block}{weight}"), &format!("{block}{bias}"), dim, 3 * dim)
            }
            Qkv::Separate(names) => {
                let mut weight = Vec::with_capacity(3 * dim * dim);
                let mut bias = Vec::with_capacity(3 * dim);
                for name in names {
                    weight.extend(self.take(&format!("{block}{name}.weight"), &[dim, dim])?);
                    let name = format!("{block}{name}.bias");
                    if self.has(&name) {
                        bias.extend(self.take(&name, &[dim])?);
                    } else {
                        bias.extend(std::iter::repeat_n(0.0, dim));
                    }
                }
                Ok(LinearWeights {
                    weight: transposed(&weight, 3 * dim, dim),
                    inputs: dim,
                    outputs: 3 * dim,
                    bias: Some(bias),
                })
            }
        }
    }
}

impl Reader<'_> {
    /// The pooling named `pool`, whose attention has PyTorch's own names: queries, keys and values one below the other.
    fn pool(&mut self, pool: &str, dim: usize) -> Result<PoolWeights> {
        let weight = self.take(&format!("{pool}.attention.in_proj_weight"), &[3 * dim, dim])?;
        let bias = self.take(&format!("{pool}.attention.in_proj_bias"), &[3 * dim])?;
        let probe = self.take(&format!("{pool}.probe"), &[1, 1, dim])?;
        let dot = |row: &[f32]| row.iter().zip(&probe).map(|(w, p)| f64::from(*w) * f64::from(*p)).sum::<f64>();
        let query = weight.chunks_exact(dim).zip(&bias[..dim]).map(|(row, b)| (dot(row) + f64::from(*b)) as f32);
        let fc1_name = format!("{pool}.mlp.fc1.weight");
        let fc1_shape = self.shape(&fc1_name)?;
        let [hidden, _] = fc1_shape[..] else {
            return Err(self.wrong_shape(&fc1_name, &format!("[hidden, {dim}]"), &fc1_shape));
        };
        Ok(PoolWeights {
            query: query.collect(),
            key_value: LinearWeights {
                weight: transposed(&weight[dim * dim..], 2 * dim, dim),
                inputs: dim,
                outputs: 2 * dim,
                bias: Some(bias[dim..].to_vec()),
            },
            attention_out: self.linear(&format!("{pool}.attention.out_proj"), dim, dim)?,
            norm: self.norm(&format!("{pool}.layernorm"), dim)?,
            fc1: self.linear(&format!("{pool}.mlp.fc1"), dim, hidden)?,
            fc2: self.linear(&format!("{pool}.mlp.fc2"), hidden, dim)?,
        })
    }
}

/// Little-endian floats of any width as `f32`; `None` where they are no floats.
fn widen(dtype: Dtype, data: &[u8]) -> Option<Vec<f32>> {
    fn each<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        data.as_chunks::<N>().0.iter().map(|&bytes| read(bytes)).collect()
    }
    match dtype {
        Dtype::F16 => Some(each(data, |b| half::f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => Some(each(data, |b| half::bf16::from_le_bytes(b).to_f32())),
        Dtype::F32 => Some(each(data, f32::from_le_bytes)),
        Dtype::F64 => Some(each(data, |b| f64::from_le_bytes(b) as f32)),
        _ => None,
    }
}

fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    assert_eq!(values.len(), rows * columns, "a matrix of {rows} × {columns}");
    let mut out = vec![0.0; values.len()];
    for (row, line) in values.chunks_exact(columns).enumerate() {
        for (column, &value) in line.iter().enumerate() {
            out[column * rows + row] = value;
        }
    }
    out
}

/// The side of a square of `area`, if it is one.
fn square_side(area: usize) -> Option<usize> {
    let side = area.isqrt();
    (side > 0 && side * side == area).then_some(side)
}

/// Which layout the tensors are named in, and what stands before all of their names.
fn recognise(path: &Path, tensors: &SafeTensors<'_>) -> Result<(&'static Names, String)> {
    let mut names = tensors.names();
    names.sort_unstable();
    for known in KNOWN {
        let marker = format!("{}.weight", known.patch);
        for name in &names {
            let Some(prefix) = name.strip_suffix(marker.as_str()) else { continue };
            let whole_part = prefix.is_empty() || prefix.ends_with('.');
            let has = |tensor: &str| names.binary_search(&format!("{prefix}{tensor}").as_str()).is_ok();
            if whole_part && has(&known.whole()) && has(&format!("{}0.{}.weight", known.block, known.norm1)) {
                return Ok((known, prefix.to_owned()));
            }
        }
    }
    let some: Vec<&str> = names.iter().copied().take(4).collect();
    Err(Error::weights(
        path,
        format!(
            "no vision transformer whose names are known (timm, DeiT, DINOv2, CLIP, SigLIP): {} tensors, among them {}; export \
             any other network but MobileNetV2 to ONNX and give that file",
            names.len(),
            some.join(", "),
        ),
    ))
}

/// The tensors in the bytes of a safetensors file; `path` only appears in errors.
pub(super) fn tensors<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes).map_err(|reason| {
        let message = match &reason {
            safetensors::SafeTensorError::MetadataIncompleteBuffer
            | safetensors::SafeTensorError::InvalidHeaderLength => {
                format!("{reason}: the file of {} bytes is cut short, or not safetensors; fetch it again", bytes.len())
            }
            _ => format!("not a safetensors file: {reason}"),
        };
        Error::weights(path, message)
    })
}

/// Reads all weights of a vision transformer; `path` only appears in errors.
pub(super) fn read(path: &Path, tensors: &SafeTensors<'_>) -> Result<VitWeights> {
    let (names, prefix) = recognise(path, tensors)?;
    let mut reader = Reader::new(path, tensors, prefix);

    let patch_name = format!("{}.weight", names.patch);
    let patch_shape = reader.shape(&patch_name)?;
    let (dim, patch) = match patch_shape[..] {
        [dim, 3, height, width] if height == width && height > 0 && dim > 0 => (dim, height),
        _ => return Err(reader.wrong_shape(&patch_name, "[dim, 3, patch, patch]", &patch_shape)),
    };
    let pixels = 3 * patch * patch;
    let patch_weight = reader.take(&patch_name, &patch_shape)?;
    let patch_bias = format!("{}.bias", names.patch);
    let patch_embedding = LinearWeights {
        weight: transposed(&patch_weight, dim, pixels),
        inputs: pixels,
        outputs: dim,
        bias: if reader.has(&patch_bias) { Some(reader.take(&patch_bias, &[dim])?) } else { None },
    };

    // Tokens come as [dim] (CLIP) or [1, n, dim].
    let has_class = !names.class_token.is_empty();
    let mut prefix_tokens = if !has_class {
        Vec::new()
    } else if reader.shape(names.class_token)?.len() == 1 {
        reader.take(names.class_token, &[dim])?
    } else {
        reader.take(names.class_token, &[1, 1, dim])?
    };
    let has_distillation = reader.has(names.distillation_token);
    if has_distillation {
        prefix_tokens.extend(reader.take(names.distillation_token, &[1, 1, dim])?);
    }
    let mut n_registers = 0;
    if let Some(name) = names.registers.iter().find(|name| reader.has(name)) {
        let shape = reader.shape(name)?;
        n_registers = match shape[..] {
            [1, n, d] if d == dim => n,
            _ => return Err(reader.wrong_shape(name, &format!("[1, registers, {dim}]"), &shape)),
        };
        prefix_tokens.extend(reader.take(name, &shape)?);
    }
    let n_prefix = prefix_tokens.len() / dim;

    let position_shape = reader.shape(names.positions)?;
    let n_positions = match position_shape[..] {
        [n, d] | [1, n, d] if d == dim => n,
        _ => return Err(reader.wrong_shape(names.positions, &format!("[1, positions, {dim}]"), &position_shape)),
    };
    // Positions are of class and patches; or of all tokens; or, where class and registers have none, of the patches.
    let grids = [usize::from(has_class) + usize::from(has_distillation), n_prefix, 0]
        .map(|before| n_positions.checked_sub(before).and_then(square_side).map(|grid| (before, grid)));
    let Some((n_before, grid)) = grids.into_iter().flatten().next() else {
        let expected = format!("a square number of patches and {n_prefix} tokens before them");
        return Err(reader.wrong_shape(names.positions, &expected, &position_shape));
    };
    let mut positions = reader.take(names.positions, &position_shape)?;
    let patch_positions = positions.split_off(n_before * dim);
    for (token, position) in prefix_tokens.iter_mut().zip(&positions) {
        *token += position;
    }

    // CLIP always has a norm before the blocks; timm's names serve networks with and without.
    let has_pre_norm = match names.layout {
        Layout::HuggingFaceClip | Layout::OpenAiClip => true,
        _ => reader.has(&format!("{}.weight", names.pre_norm)),
    };
    let pre_norm = if has_pre_norm { Some(reader.norm(names.pre_norm, dim)?) } else { None };
    let before_blocks = reader.full(names.block);
    // The highest number, so that a block lost in the middle is reported and not cut off silently.
    let depth = tensors
        .names()
        .iter()
        .filter_map(|name| name.strip_prefix(before_blocks.as_str())?.split('.').next()?.parse::<usize>().ok())
        .max()
        .map_or(0, |last| last + 1);
    let mut blocks = Vec::new();
    for block_idx in 0..depth {
        let block = format!("{}{block_idx}.", names.block);
        let name = |part: &str| format!("{block}{part}");
        let fc1_name = format!("{block}{}.weight", names.fc1);
        let fc1_shape = reader.shape(&fc1_name)?;
        let hidden = match fc1_shape[..] {
            [hidden, d] if d == dim => hidden,
            _ => return Err(reader.wrong_shape(&fc1_name, &format!("[hidden, {dim}]"), &fc1_shape)),
        };
        // What the first block has, all must have: a lost scale is an error, not another network.
        let mut scale = |part: &str| -> Result<Option<Vec<f32>>> {
            let expected = !part.is_empty() && reader.has(&format!("{}0.{part}", names.block));
            if expected { reader.take(&name(part), &[dim]).map(Some) } else { Ok(None) }
        };
        let [scale1, scale2] = [scale(names.scales[0])?, scale(names.scales[1])?];
        blocks.push(BlockWeights {
            norm1: reader.norm(&name(names.norm1), dim)?,
            qkv: reader.qkv(&block, names.qkv, dim)?,
            attention_out: reader.linear(&name(names.attention_out), dim, dim)?,
            scale1,
            norm2: reader.norm(&name(names.norm2), dim)?,
            fc1: reader.linear(&name(names.fc1), dim, hidden)?,
            fc2: reader.linear(&name(names.fc2), hidden, dim)?,
            scale2,
        });
    }
    let norm = reader.norm(names.norm, dim)?;

    let head_name = format!("{}.weight", names.head);
    // A head over other inputs than the class token (DINOv2's linear probes) is left among the unused.
    let head = if !names.head.is_empty() && reader.has(&head_name) {
        match reader.shape(&head_name)?[..] {
            [classes, inputs] if inputs == dim => Some(reader.linear(names.head, dim, classes)?),
            _ => None,
        }
    } else {
        None
    };
    let projection = if reader.has(names.projection) {
        let shape = reader.shape(names.projection)?;
        match (names.projection_transposed, &shape[..]) {
            (false, &[outputs, inputs]) if inputs == dim => {
                Some(reader.linear_named(names.projection, "", dim, outputs)?)
            }
            (true, &[inputs, outputs]) if inputs == dim => {
                let weight = reader.take(names.projection, &shape)?;
                Some(LinearWeights { weight, inputs, outputs, bias: None })
            }
            (transposed, _) => {
                let expected = if transposed { format!("[{dim}, projected]") } else { format!("[projected, {dim}]") };
                return Err(reader.wrong_shape(names.projection, &expected, &shape));
            }
        }
    } else {
        None
    };

    let pool = if names.pool.is_empty() { None } else { Some(reader.pool(names.pool, dim)?) };

    let mut unused: Vec<String> =
        tensors.names().into_iter().filter(|name| !reader.used.contains(*name)).map(str::to_owned).collect();
    unused.sort_unstable();
    Ok(VitWeights {
        layout: names.layout,
        dim,
        patch,
        grid,
        patch_embedding,
        prefix: prefix_tokens,
        n_prefix,
        has_distillation,
        n_registers,
        positions: patch_positions,
        pre_norm,
        blocks,
        norm,
        head,
        projection,
        pool,
        unused,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A safetensors file in memory.
    pub(in crate::backbone) fn file(tensors: &[(String, Vec<usize>, Vec<f32>)], dtype: Dtype) -> Vec<u8> {
        let bytes: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, _, values)| match dtype {
                Dtype::F16 => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
                Dtype::BF16 => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
                Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                _ => values.iter().map(|&v| v as u8).collect(),
            })
            .collect();
        let views: Vec<(&str, safetensors::tensor::TensorView<'_>)> = tensors
            .iter()
            .zip(&bytes)
            .map(|((name, shape, _), data)| {
                (name.as_str(), safetensors::tensor::TensorView::new(dtype, shape.clone(), data).unwrap())
            })
            .collect();
        safetensors::serialize(views, None).unwrap()
    }

    #[test]
    fn halves_widen_exactly_and_integers_are_refused() {
        let values = [0.0, -1.5, 0.25, 3.0];
        for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32] {
            let bytes = file(&[("x".into(), vec![4], values.to_vec())], dtype);
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            assert_eq!(widen(dtype, tensors.tensor("x").unwrap().data()).unwrap(), values, "{dtype:?}");
        }
        assert!(widen(Dtype::U8, &[1]).is_none());
    }

    #[test]
    fn a_transpose_by_hand() {
        assert_eq!(transposed(&[1., 2., 3., 4., 5., 6.], 2, 3), [1., 4., 2., 5., 3., 6.]);
    }
}
