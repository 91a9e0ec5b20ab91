//! Tiny networks in every naming, a slow oracle, broken files, and the real ViT-Tiny where it lies beside the project.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use safetensors::Dtype;
use sightline_data::{BoxXyxy, VectorMode};
use sightline_model::Matrix;
use sightline_model::tape::Tape;

use super::weights::tests::file;
use super::*;
use crate::Error;

pub(super) type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

/// Sizes that all differ: dim 8, 2 heads, hidden 12, patch 3, grid 2, depth 2, 5 classes.
const DIM: usize = 8;
const HIDDEN: usize = 12;
const PATCH: usize = 3;
const GRID: usize = 2;
const CLASSES: usize = 5;

/// Small numbers that look random: splitmix64 of the tensor's name and position.
pub(super) fn values(name: &str, len: usize, scale: f32) -> Vec<f32> {
    let mut state = xxhash_rust::xxh3::xxh3_64(name.as_bytes());
    (0..len)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32 * 2.0 * scale - scale
        })
        .collect()
}

/// What a tiny network in timm's names has beside the plain tensors.
#[derive(Clone, Copy, Default)]
struct Extras {
    distillation: bool,
    registers: Option<&'static str>,
    layer_scale: bool,
    pre_norm: bool,
    patch_only_positions: bool,
}

fn timm(extras: Extras) -> Tensors {
    let mut tensors = Tensors::new();
    let mut add = |name: &str, shape: &[usize]| {
        let mut v = values(name, shape.iter().product(), 0.4);
        if name.ends_with("norm1.weight") || name.ends_with("norm2.weight") || name.ends_with("norm.weight") {
            v.iter_mut().for_each(|v| *v += 1.0);
        }
        tensors.push((name.to_owned(), shape.to_vec(), v));
    };
    add("patch_embed.proj.weight", &[DIM, 3, PATCH, PATCH]);
    if !extras.pre_norm {
        add("patch_embed.proj.bias", &[DIM]);
    }
    add("cls_token", &[1, 1, DIM]);
    let mut positions = GRID * GRID + usize::from(!extras.patch_only_positions);
    if extras.distillation {
        add("dist_token", &[1, 1, DIM]);
        positions += 1;
    }
    if let Some(name) = extras.registers {
        add(name, &[1, 3, DIM]);
    }
    add("pos_embed", &[1, positions, DIM]);
    if extras.pre_norm {
        add("norm_pre.weight", &[DIM]);
        add("norm_pre.bias", &[DIM]);
    }
    for block in 0..2 {
        let mut add = |name: &str, shape: &[usize]| add(&format!("blocks.{block}.{name}"), shape);
        for norm in ["norm1", "norm2"] {
            add(&format!("{norm}.weight"), &[DIM]);
            add(&format!("{norm}.bias"), &[DIM]);
        }
        add("attn.qkv.weight", &[3 * DIM, DIM]);
        add("attn.qkv.bias", &[3 * DIM]);
        add("attn.proj.weight", &[DIM, DIM]);
        add("attn.proj.bias", &[DIM]);
        add("mlp.fc1.weight", &[HIDDEN, DIM]);
        add("mlp.fc1.bias", &[HIDDEN]);
        add("mlp.fc2.weight", &[DIM, HIDDEN]);
        add("mlp.fc2.bias", &[DIM]);
        if extras.layer_scale {
            add("ls1.gamma", &[DIM]);
            add("ls2.gamma", &[DIM]);
        }
    }
    add("norm.weight", &[DIM]);
    add("norm.bias", &[DIM]);
    add("head.weight", &[CLASSES, DIM]);
    add("head.bias", &[CLASSES]);
    tensors
}

/// The same network under other names: each `(from, to)` replaces within names, one after the other; a fused `qkv`
/// becomes three tensors where `separate` holds their names.
fn renamed(tensors: &Tensors, names: &[(&str, &str)], separate: Option<[&str; 3]>) -> Tensors {
    let mut out = Tensors::new();
    for (name, shape, data) in tensors {
        let mut new = name.clone();
        for (from, to) in names {
            new = new.replace(from, to);
        }
        match separate {
            Some(parts) if name.contains("attn.qkv") => {
                for (i, part) in parts.iter().enumerate() {
                    let piece = data[i * data.len() / 3..(i + 1) * data.len() / 3].to_vec();
                    let mut shape = shape.clone();
                    shape[0] /= 3;
                    out.push((new.replace("attn.qkv", part), shape, piece));
                }
            }
            _ => out.push((new, shape.clone(), data.clone())),
        }
    }
    out
}

const TO_HUGGING_FACE_VIT: &[(&str, &str)] = &[
    ("cls_token", "embeddings.cls_token"),
    ("dist_token", "embeddings.distillation_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
    ("blocks.", "encoder.layer."),
    ("attn.proj", "attention.output.dense"),
    ("norm1", "layernorm_before"),
    ("norm2", "layernorm_after"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
    ("norm.", "layernorm."),
    ("head.", "classifier."),
];
const TO_HUGGING_FACE_DINO: &[(&str, &str)] = &[
    ("cls_token", "embeddings.cls_token"),
    ("register_tokens", "embeddings.register_tokens"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
    ("blocks.", "encoder.layer."),
    ("attn.proj", "attention.output.dense"),
    ("ls1.gamma", "layer_scale1.lambda1"),
    ("ls2.gamma", "layer_scale2.lambda1"),
    ("norm.", "layernorm."),
    ("head.", "classifier."),
];
const HUGGING_FACE_QKV: [&str; 3] =
    ["attention.attention.query", "attention.attention.key", "attention.attention.value"];

/// Writes `tensors` and loads them with two heads.
fn load_with(tensors: &Tensors, dtype: Dtype, options: &VitOptions) -> Result<Vit> {
    load_named("tiny.safetensors", tensors, dtype, options)
}

fn load_named(name: &str, tensors: &Tensors, dtype: Dtype, options: &VitOptions) -> Result<Vit> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, file(tensors, dtype)).unwrap();
    Vit::load(&path, &VitOptions { heads: Some(2), ..options.clone() }, &Device::flex())
}

fn load(tensors: &Tensors) -> Vit {
    load_with(tensors, Dtype::F32, &VitOptions::default()).unwrap()
}

fn photo(name: &str, width: u32, height: u32) -> Photo {
    let pixels = values(name, (3 * width * height) as usize, 127.0);
    Photo::from_rgb(width, height, pixels.into_iter().map(|v| (v + 128.0) as u8).collect())
}

fn close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance, "at {i}: {a} and {b}");
    }
}

/// A vision transformer in nested loops of `f64`, straight from the definition: normed tokens, `[tokens][dim]`.
fn oracle(tensors: &Tensors, photo: &Photo, epsilon: f64, mean: [f64; 3], std: [f64; 3]) -> Vec<Vec<f64>> {
    let get = |name: &str| -> Vec<f64> {
        let found = tensors.iter().find(|(n, ..)| n == name).unwrap_or_else(|| panic!("{name}"));
        found.2.iter().map(|&v| f64::from(v)).collect()
    };
    let linear = |x: &[f64], name: &str| -> Vec<f64> {
        let (weight, bias) = (get(&format!("{name}.weight")), get(&format!("{name}.bias")));
        (0..bias.len()).map(|o| bias[o] + (0..x.len()).map(|i| weight[o * x.len() + i] * x[i]).sum::<f64>()).collect()
    };
    let norm = |x: &[f64], name: &str| -> Vec<f64> {
        let (gamma, beta) = (get(&format!("{name}.weight")), get(&format!("{name}.bias")));
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        (0..x.len()).map(|i| (x[i] - mean) / (variance + epsilon).sqrt() * gamma[i] + beta[i]).collect()
    };
    let (weight, bias, positions) = (get("patch_embed.proj.weight"), get("patch_embed.proj.bias"), get("pos_embed"));
    let mut tokens: Vec<Vec<f64>> = vec![get("cls_token")];
    for gy in 0..GRID {
        for gx in 0..GRID {
            let mut token = bias.clone();
            for (o, value) in token.iter_mut().enumerate() {
                for c in 0..3 {
                    for y in 0..PATCH {
                        for x in 0..PATCH {
                            let level = photo.rgb((gx * PATCH + x) as u32, (gy * PATCH + y) as u32)[c];
                            let input = (f64::from(level) / 255.0 - mean[c]) / std[c];
                            *value += weight[((o * 3 + c) * PATCH + y) * PATCH + x] * input;
                        }
                    }
                }
            }
            tokens.push(token);
        }
    }
    for (t, token) in tokens.iter_mut().enumerate() {
        (0..DIM).for_each(|i| token[i] += positions[t * DIM + i]);
    }
    let head_dim = DIM / 2;
    for block in 0..2 {
        let qkv: Vec<Vec<f64>> = tokens
            .iter()
            .map(|x| linear(&norm(x, &format!("blocks.{block}.norm1")), &format!("blocks.{block}.attn.qkv")))
            .collect();
        let attended: Vec<Vec<f64>> = (0..tokens.len())
            .map(|t| {
                let mut out = vec![0.0; DIM];
                for head in 0..2 {
                    let at = |part: usize, token: usize, i: usize| qkv[token][part * DIM + head * head_dim + i];
                    let scores: Vec<f64> = (0..tokens.len())
                        .map(|s| {
                            (0..head_dim).map(|i| at(0, t, i) * at(1, s, i)).sum::<f64>() / (head_dim as f64).sqrt()
                        })
                        .map(f64::exp)
                        .collect();
                    let total: f64 = scores.iter().sum();
                    for i in 0..head_dim {
                        out[head * head_dim + i] = (0..tokens.len()).map(|s| scores[s] / total * at(2, s, i)).sum();
                    }
                }
                out
            })
            .collect();
        for (token, attended) in tokens.iter_mut().zip(attended) {
            let out = linear(&attended, &format!("blocks.{block}.attn.proj"));
            (0..DIM).for_each(|i| token[i] += out[i]);
            let hidden = linear(&norm(token, &format!("blocks.{block}.norm2")), &format!("blocks.{block}.mlp.fc1"));
            let hidden: Vec<f64> = hidden.iter().map(|&x| 0.5 * x * (1.0 + erf(x / 2f64.sqrt()))).collect();
            let out = linear(&hidden, &format!("blocks.{block}.mlp.fc2"));
            (0..DIM).for_each(|i| token[i] += out[i]);
        }
    }
    tokens.iter().map(|x| norm(x, "norm")).collect()
}

/// The error function by its power series; all arguments here are small.
fn erf(x: f64) -> f64 {
    assert!(x.abs() < 4.0, "{x}");
    let (mut term, mut sum) = (x, x);
    for n in 1..100 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn the_network_equals_nested_loops_in_f64() {
    let tensors = timm(Extras::default());
    let photo = photo("oracle", 6, 6);
    let map = load(&tensors).encode_map(std::slice::from_ref(&photo)).unwrap().remove(0);
    let expected = oracle(&tensors, &photo, 1e-6, [0.5; 3], [0.5; 3]);
    let flat = |tokens: &[Vec<f64>]| tokens.iter().flatten().map(|&v| v as f32).collect::<Vec<f32>>();
    close(&map.global, &flat(&expected[..1]), 2e-5);
    close(&map.patches, &flat(&expected[1..]), 2e-5);
    assert_eq!((map.grid_h, map.grid_w, map.dim), (GRID, GRID, DIM));
}

#[test]
fn separate_and_fused_projections_give_the_same_bits() {
    let extras = Extras { layer_scale: true, registers: Some("register_tokens"), ..Extras::default() };
    let facebook = timm(extras);
    let hugging_face = renamed(&facebook, TO_HUGGING_FACE_DINO, Some(HUGGING_FACE_QKV));
    let prefixed: Tensors =
        hugging_face.iter().map(|(n, s, v)| (format!("dinov2_with_registers.{n}"), s.clone(), v.clone())).collect();
    let photos = [photo("a", 6, 6), photo("b", 9, 4)];
    let (a, b, c) = (load(&facebook), load(&hugging_face), load(&prefixed));
    assert_eq!((a.layout(), b.layout(), c.layout()), (Layout::Timm, Layout::HuggingFaceDino, Layout::HuggingFaceDino));
    let expected = a.encode_map(&photos).unwrap();
    assert_eq!(expected, b.encode_map(&photos).unwrap());
    assert_eq!(expected, c.encode_map(&photos).unwrap());
    assert_eq!(a.config(), b.config());
    assert_eq!(a.config().registers, 3);
    assert_eq!(a.config().mean, [0.485, 0.456, 0.406]);
}

#[test]
fn hugging_face_vit_differs_from_timm_by_its_epsilon_only() {
    let plain = timm(Extras::default());
    let renamed = renamed(&plain, TO_HUGGING_FACE_VIT, Some(HUGGING_FACE_QKV));
    let photos = [photo("a", 6, 6)];
    let b = load(&renamed);
    assert_eq!((b.layout(), b.config().epsilon, b.classes()), (Layout::HuggingFaceVit, 1e-12, CLASSES));
    let same = load_with(&renamed, Dtype::F32, &VitOptions { epsilon: Some(1e-6), ..VitOptions::default() }).unwrap();
    assert_eq!(load(&plain).encode_map(&photos).unwrap(), same.encode_map(&photos).unwrap());
    assert!(b.unused().is_empty(), "{:?}", b.unused());
}

#[test]
fn distilled_deit_has_two_tokens_before_the_patches() {
    let mut tensors = timm(Extras { distillation: true, ..Extras::default() });
    tensors.push(("head_dist.weight".into(), vec![CLASSES, DIM], values("hd", CLASSES * DIM, 0.1)));
    let vit = load(&tensors);
    assert!(vit.config().distillation);
    assert_eq!(vit.config().std, [0.229, 0.224, 0.225]);
    assert_eq!(vit.unused(), ["head_dist.weight"]);
    let map = vit.encode_map(&[photo("a", 6, 6)]).unwrap().remove(0);
    assert_eq!(map.patches.len(), GRID * GRID * DIM);
    // The distillation token must not be taken for the first patch.
    let mut moved = tensors.clone();
    let positions = moved.iter_mut().find(|(n, ..)| n == "pos_embed").unwrap();
    positions.2[2 * DIM..].iter_mut().for_each(|v| *v += 1.5);
    assert_ne!(load(&moved).encode_map(&[photo("a", 6, 6)]).unwrap()[0].patches, map.patches);
}

#[test]
fn networks_with_the_tensors_of_vit_are_told_by_their_names() {
    const IMAGENET: [f32; 3] = [0.485, 0.456, 0.406];
    let plain = timm(Extras::default());
    let renamed = renamed(&plain, TO_HUGGING_FACE_VIT, Some(HUGGING_FACE_QKV));
    let mean = |name: &str, tensors: &Tensors| {
        load_named(name, tensors, Dtype::F32, &VitOptions::default()).unwrap().config().mean
    };
    for tensors in [&plain, &renamed] {
        assert_eq!(mean("vit_tiny_patch16_224.safetensors", tensors), [0.5; 3]);
        assert_eq!(mean("deit/vit_tiny_patch16_224.safetensors", tensors), [0.5; 3]);
        assert_eq!(mean("DeiT_tiny_patch16_224.safetensors", tensors), IMAGENET);
        assert_eq!(mean("dino_vits16.safetensors", tensors), IMAGENET);
        assert_eq!(mean("vit-mae-base/model.safetensors", tensors), IMAGENET);
        assert_eq!(mean("vit-base-patch16-224/model.safetensors", tensors), [0.5; 3]);
    }
    let given = VitOptions { mean: Some([0.25; 3]), ..VitOptions::default() };
    assert_eq!(load_named("deit.safetensors", &plain, Dtype::F32, &given).unwrap().config().mean, [0.25; 3]);
}

#[test]
fn registers_without_positions_and_positions_of_patches_only() {
    let extras =
        Extras { layer_scale: true, registers: Some("reg_token"), patch_only_positions: true, ..Extras::default() };
    let vit = load(&timm(extras));
    assert_eq!((vit.config().registers, vit.config().trained_grid), (3, GRID));
    assert_eq!(vit.encode_map(&[photo("a", 6, 6)]).unwrap()[0].patches.len(), GRID * GRID * DIM);
}

/// A tiny CLIP tower as timm names it, under Hugging Face's and OpenAI's names.
fn clips() -> (Tensors, Tensors) {
    let plain: Tensors = timm(Extras { pre_norm: true, ..Extras::default() })
        .into_iter()
        .filter(|(name, ..)| !name.starts_with("head."))
        .map(|(name, shape, values)| match name.as_str() {
            "cls_token" => (name, vec![DIM], values),
            "pos_embed" => (name, shape[1..].to_vec(), values),
            _ => (name, shape, values),
        })
        .collect();
    let mut hugging_face = renamed(
        &plain,
        &[
            ("norm.", "vision_model.post_layernorm."),
            ("norm_pre", "vision_model.pre_layrnorm"),
            ("cls_token", "vision_model.embeddings.class_embedding"),
            ("pos_embed", "vision_model.embeddings.position_embedding.weight"),
            ("patch_embed.proj", "vision_model.embeddings.patch_embedding"),
            ("blocks.", "vision_model.encoder.layers."),
            ("attn.proj", "self_attn.out_proj"),
            ("norm1", "layer_norm1"),
            ("norm2", "layer_norm2"),
        ],
        Some(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    );
    let mut open_ai = renamed(
        &plain,
        &[
            ("norm_pre", "visual.ln_pre"),
            ("cls_token", "visual.class_embedding"),
            ("pos_embed", "visual.positional_embedding"),
            ("patch_embed.proj", "visual.conv1"),
            ("blocks.", "visual.transformer.resblocks."),
            ("attn.qkv.", "attn.in_proj_"),
            ("attn.proj", "attn.out_proj"),
            ("norm1", "ln_1"),
            ("norm2", "ln_2"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
            ("norm.", "visual.ln_post."),
        ],
        None,
    );
    let projection = values("projection", 7 * DIM, 0.4);
    let transposed: Vec<f32> = (0..7 * DIM).map(|i| projection[(i % 7) * DIM + i / 7]).collect();
    hugging_face.push(("visual_projection.weight".into(), vec![7, DIM], projection));
    open_ai.push(("visual.proj".into(), vec![DIM, 7], transposed));
    open_ai.push(("transformer.resblocks.0.ln_1.weight".into(), vec![4], vec![1.0; 4]));
    (hugging_face, open_ai)
}

#[test]
fn both_clip_namings_give_the_same_bits() {
    let (hugging_face, open_ai) = clips();
    let photos = [photo("a", 6, 6), photo("b", 6, 6)];
    for project in [false, true] {
        let options = VitOptions { project, ..VitOptions::default() };
        let a = load_with(&hugging_face, Dtype::F32, &options).unwrap();
        let b = load_with(&open_ai, Dtype::F32, &options).unwrap();
        assert_eq!((a.layout(), b.layout()), (Layout::HuggingFaceClip, Layout::OpenAiClip));
        assert_eq!(a.config(), b.config());
        assert_eq!((a.config().activation, a.config().epsilon), (Activation::QuickGelu, 1e-5));
        assert_eq!(a.dim(), if project { 7 } else { DIM });
        let maps = a.encode_map(&photos).unwrap();
        assert_eq!(maps, b.encode_map(&photos).unwrap());
        assert_eq!((maps[0].global.len(), maps[0].patches.len()), (a.dim(), GRID * GRID * a.dim()));
        assert_eq!(b.unused(), ["transformer.resblocks.0.ln_1.weight"], "the text tower");
    }
    let gelu = VitOptions { activation: Some(Activation::Gelu), ..VitOptions::default() };
    let quick = load(&open_ai).encode_map(&photos).unwrap();
    assert_ne!(load_with(&open_ai, Dtype::F32, &gelu).unwrap().encode_map(&photos).unwrap(), quick);
}

/// A tiny SigLIP with what PyTorch makes of a picture; tests/fixtures/siglip.py wrote it.
const SIGLIP: &[u8] = include_bytes!("../../tests/fixtures/siglip.safetensors");

/// The tensors of [`SIGLIP`].
fn siglip() -> Tensors {
    let tensors = safetensors::SafeTensors::deserialize(SIGLIP).unwrap();
    let floats = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect::<Vec<f32>>();
    tensors.tensors().into_iter().map(|(name, view)| (name, view.shape().to_vec(), floats(view.data()))).collect()
}

#[test]
fn siglip_equals_pytorch() {
    let tensors = siglip();
    let get = |name: &str| tensors.iter().find(|(own, ..)| own == name).unwrap().2.clone();
    let side = (PATCH * GRID) as u32;
    let picture = Photo::from_rgb(side, side, get("picture").into_iter().map(|level| level as u8).collect());
    let vit = load(&tensors);
    let config = vit.config();
    assert_eq!((vit.layout(), config.trained_grid, config.depth), (Layout::HuggingFaceSiglip, GRID, 2));
    assert_eq!((config.activation, config.epsilon, config.mean), (Activation::TanhGelu, 1e-6, [0.5; 3]));
    assert_eq!(vit.unused(), ["expected.pooled", "expected.tokens", "picture", "text_model.head.weight"]);
    let map = vit.encode_map(&[picture.clone(), picture.clone()]).unwrap().remove(1);
    close(&map.global, &get("expected.pooled"), 2e-5);
    close(&map.patches, &get("expected.tokens"), 2e-5);
    // The other approximations are other networks.
    let gelu = VitOptions { activation: Some(Activation::Gelu), ..VitOptions::default() };
    let other = load_with(&tensors, Dtype::F32, &gelu).unwrap().encode_map(&[picture]).unwrap().remove(0);
    assert_ne!(other.global, map.global);
}

#[test]
fn a_damaged_siglip_is_one_clear_error() {
    for (name, shape) in [
        ("vision_model.head.attention.in_proj_weight", vec![3 * DIM, DIM + 1]),
        ("vision_model.head.attention.in_proj_bias", vec![DIM]),
        ("vision_model.head.mlp.fc1.weight", vec![HIDDEN]),
        ("vision_model.head.layernorm.bias", Vec::new()),
        ("vision_model.embeddings.position_embedding.weight", vec![GRID * GRID + 1, DIM]),
    ] {
        let mut tensors: Tensors = siglip().into_iter().filter(|(own, ..)| own != name).collect();
        let lost = shape.is_empty();
        if !lost {
            let values = vec![0.1; shape.iter().product()];
            tensors.push((name.to_owned(), shape, values));
        }
        let message = load_with(&tensors, Dtype::F32, &VitOptions::default()).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("missing") == lost, "{message}");
    }
    // Without its probe it is told from a CLIP that lost its class token by nothing.
    let tensors: Tensors = siglip().into_iter().filter(|(own, ..)| own != "vision_model.head.probe").collect();
    let message = load_with(&tensors, Dtype::F32, &VitOptions::default()).unwrap_err().to_string();
    assert!(message.contains("no vision transformer"), "{message}");
}

#[test]
fn timm_clip_and_layer_scale_change_the_output() {
    let photos = [photo("a", 6, 6)];
    let clip = load(&timm(Extras { pre_norm: true, ..Extras::default() }));
    assert_eq!((clip.config().epsilon, clip.config().activation), (1e-5, Activation::Gelu));
    let scaled = timm(Extras { layer_scale: true, ..Extras::default() });
    let plain: Tensors = scaled.iter().filter(|(n, ..)| !n.contains(".ls")).cloned().collect();
    let imagenet =
        VitOptions { mean: Some([0.485, 0.456, 0.406]), std: Some([0.229, 0.224, 0.225]), ..VitOptions::default() };
    let a = load(&scaled).encode_map(&photos).unwrap();
    assert_ne!(a, load_with(&plain, Dtype::F32, &imagenet).unwrap().encode_map(&photos).unwrap());
    // A scale of one is no scale.
    let ones: Tensors = scaled
        .iter()
        .map(|(n, s, v)| (n.clone(), s.clone(), if n.contains(".ls") { vec![1.0; v.len()] } else { v.clone() }))
        .collect();
    let a = load(&ones).encode_map(&photos).unwrap();
    assert_eq!(a, load_with(&plain, Dtype::F32, &imagenet).unwrap().encode_map(&photos).unwrap());
}

/// What processors compute against what cards do.
#[test]
fn the_tape_and_the_framework_are_the_same_network() {
    let several = Extras { distillation: true, layer_scale: true, ..Extras::default() };
    let clip = Extras { pre_norm: true, ..Extras::default() };
    let photos = [photo("a", 6, 6), photo("b", 6, 6), photo("c", 9, 5)];
    for tensors in [timm(Extras::default()), timm(several), timm(clip), siglip()] {
        let expected = load(&tensors).encode_map(&photos).unwrap();
        let framework = load(&tensors).over_the_framework();
        for (map, expected) in framework.encode_map(&photos).unwrap().iter().zip(&expected) {
            close(&map.global, &expected.global, 1e-5);
            close(&map.patches, &expected.patches, 1e-5);
        }
        if let Ok((_, weights)) = load(&tensors).learnable() {
            assert_eq!(framework.learnable().unwrap().1, weights);
        }
    }
}

/// The tape's network over the weights to learn with, and a network of those weights, against the file's own.
#[test]
fn what_goes_on_learning_is_the_same_network() {
    let several = Extras { distillation: true, layer_scale: true, ..Extras::default() };
    let clip = Extras { pre_norm: true, ..Extras::default() };
    for extras in [Extras::default(), several, clip] {
        let vit = load(&timm(extras));
        let photos = [photo("a", 6, 6), photo("b", 6, 6)];
        let expected = vit.encode_map(&photos).unwrap();
        let (network, weights) = vit.learnable().unwrap();
        let pixels: Vec<f32> = photos.iter().flat_map(|photo| Vit::patches(vit.config(), photo)).collect();
        let columns = 3 * PATCH * PATCH;
        let mut tape = Tape::forward_only(&weights);
        let tokens = network.forward(&mut tape, Matrix::new(pixels.len() / columns, columns, pixels), 2, None);
        let per_photo = tape.value(tokens).values.len() / 2;
        for (map, own) in expected.iter().zip(tape.value(tokens).values.chunks_exact(per_photo)) {
            close(&map.global, &own[..DIM], 1e-5);
            close(&map.patches, &own[own.len() - GRID * GRID * DIM..], 1e-5);
        }
        let again = Vit::of_learnt("again", "", vit.config().clone(), weights.clone(), &Device::flex()).unwrap();
        assert_eq!(again.encode_map(&photos).unwrap()[1].patches, expected[1].patches);
        let lacking = weights.into_iter().filter(|(name, _)| name != "blocks.1.fc1.weight").collect();
        let error = Vit::of_learnt("", "", vit.config().clone(), lacking, &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("blocks.1.fc1.weight"), "{error}");
    }
    let error = load(&siglip()).learnable().unwrap_err().to_string();
    assert!(error.contains("pooling"), "{error}");
}

#[test]
fn half_weights_give_nearly_the_same() {
    let tensors = timm(Extras::default());
    let photos = [photo("a", 6, 6)];
    let exact = load(&tensors).encode_map(&photos).unwrap().remove(0);
    for (dtype, tolerance) in [(Dtype::F16, 0.01), (Dtype::BF16, 0.06)] {
        let half = load_with(&tensors, dtype, &VitOptions::default()).unwrap().encode_map(&photos).unwrap().remove(0);
        close(&exact.patches, &half.patches, tolerance);
        assert_ne!(exact, half);
    }
}

#[test]
fn positions_stretch_to_a_larger_input() {
    let tensors = timm(Extras::default());
    let options = VitOptions { input: Some(15), ..VitOptions::default() };
    let vit = load_with(&tensors, Dtype::F32, &options).unwrap();
    let map = vit.encode_map(&[photo("a", 40, 20)]).unwrap().remove(0);
    assert_eq!((map.grid_h, map.grid_w, map.patches.len()), (5, 5, 25 * DIM));
    for input in [0, 16, 3 * 4096] {
        let options = VitOptions { input: Some(input), ..VitOptions::default() };
        let message = load_with(&tensors, Dtype::F32, &options).unwrap_err().to_string();
        assert!(message.contains(&format!("input = {input}")), "{message}");
    }
}

#[test]
fn the_company_of_a_photo_does_not_change_its_vectors() {
    let vit = load(&timm(Extras::default()));
    let photos: Vec<Photo> = (0..7).map(|i| photo(&format!("p{i}"), 6 + i, 9)).collect();
    let together = vit.encode_map(&photos).unwrap();
    let alone: Vec<FeatureMap> =
        photos.iter().map(|p| vit.encode_map(std::slice::from_ref(p)).unwrap().remove(0)).collect();
    assert_eq!(together, alone);
    assert!(vit.encode_map(&[]).unwrap().is_empty());
}

#[test]
fn broken_weights_are_one_clear_error_each() {
    let good = timm(Extras::default());
    let check = |tensors: &Tensors, expected: &[&str]| {
        let message = load_with(tensors, Dtype::F32, &VitOptions::default()).unwrap_err().to_string();
        for part in expected {
            assert!(message.contains(part), "{message} lacks {part}");
        }
        assert_eq!(message.lines().count(), 1, "{message}");
    };
    let without = |name: &str| -> Tensors { good.iter().filter(|(n, ..)| n != name).cloned().collect() };
    let with = |name: &str, shape: &[usize]| -> Tensors {
        let mut tensors = without(name);
        tensors.push((name.into(), shape.to_vec(), vec![0.1; shape.iter().product()]));
        tensors
    };
    check(&without("blocks.1.mlp.fc2.bias"), &["`blocks.1.mlp.fc2.bias` is missing"]);
    check(&without("blocks.0.mlp.fc1.weight"), &["`blocks.0.mlp.fc1.weight` is missing"]);
    check(&without("norm.weight"), &["`norm.weight` is missing"]);
    let scaled = timm(Extras { layer_scale: true, ..Extras::default() });
    let lost: Tensors = scaled.into_iter().filter(|(n, ..)| n != "blocks.1.ls2.gamma").collect();
    check(&lost, &["`blocks.1.ls2.gamma` is missing"]);
    let lost: Tensors = clips().1.into_iter().filter(|(n, ..)| n != "visual.ln_pre.weight").collect();
    check(&lost, &["`visual.ln_pre.weight` is missing"]);
    check(&without("pos_embed"), &["`pos_embed` is missing"]);
    check(&with("blocks.1.norm2.weight", &[9]), &["`blocks.1.norm2.weight`", "[9]", "[8]"]);
    check(&with("blocks.0.attn.qkv.weight", &[25, 8]), &["`blocks.0.attn.qkv.weight`", "[25, 8]", "[24, 8]"]);
    check(&with("pos_embed", &[1, 8, 8]), &["`pos_embed`", "[1, 8, 8]", "square"]);
    check(&with("patch_embed.proj.weight", &[8, 3, 3, 2]), &["`patch_embed.proj.weight`", "[8, 3, 3, 2]", "patch"]);
    check(&without("cls_token"), &["no vision transformer", "ONNX"]);
    check(&vec![("conv1.weight".into(), vec![2], vec![0.0; 2])], &["no vision transformer", "conv1.weight"]);

    let mut nan = good.clone();
    nan[3].2[5] = f32::NAN;
    check(&nan, &["NaN at position 5", "damaged"]);

    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let whole = file(&good, Dtype::F32);
    let load = |path: &Path| Vit::load(path, &VitOptions::default(), &Device::flex()).unwrap_err();
    assert!(load(&at("cut", &whole[..whole.len() - 10])).to_string().contains("cut short"));
    assert!(load(&at("head", &whole[..40])).to_string().contains("cut short"));
    for (name, bytes) in [("empty", &b""[..]), ("text", b"hello, these are no weights at all"), ("short", b"abc")] {
        let error = load(&at(name, bytes));
        assert!(matches!(error, Error::Weights { .. }), "{error}");
        assert!(error.to_string().contains(name) && error.to_string().contains("safetensors"), "{error}");
    }
    assert!(matches!(load(&folder.path().join("absent")), Error::Io { .. }));
    let bytes = file(&good, Dtype::U8);
    assert!(load(&at("integers", &bytes)).to_string().contains("holds U8"));
    let message = load(&at("heads", &whole)).to_string();
    assert!(message.contains("no multiple of 64") && message.contains("heads"), "{message}");
}

/// A map of 2 × 3 cells, one number each, over a photo of 30 × 20 pixels.
fn small_map() -> FeatureMap {
    let patches = vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
    FeatureMap { grid_h: 2, grid_w: 3, dim: 1, patches, global: vec![-1.0] }
}

#[test]
fn pooling_by_hand() {
    let check = |region: [f32; 4], expected: f32| {
        let pooled = vectors::pool(&small_map(), 30, 20, &BoxXyxy::from(region));
        assert!((pooled[0] - expected).abs() < 1e-5, "{region:?}: {pooled:?}, expected {expected}");
    };
    check([0., 0., 30., 20.], 63.0 / 6.0);
    check([0., 0., 10., 10.], 1.0);
    check([10., 0., 20., 20.], 9.0);
    // Half of the first column, all of the second.
    check([5., 0., 20., 10.], (0.5 + 2.0) / 1.5);
    // A quarter of each of four cells.
    check([5., 5., 15., 15.], (1.0 + 2.0 + 8.0 + 16.0) / 4.0);
    // Smaller than a patch, and across a border: 1 of 3 pixels on the left.
    check([21., 12., 23., 13.], 32.0);
    check([9., 2., 12., 3.], 1.0 / 3.0 + 2.0 * 2.0 / 3.0);
    // Without area, at the far corner, and outside.
    check([15., 5., 15., 5.], 2.0);
    check([30., 20., 30., 20.], 32.0);
    check([-50., -50., -40., -40.], 1.0);
    check([20., 0., 300., 200.], 18.0);
}

#[test]
fn region_vectors_of_every_mode_and_context() {
    let vit = load(&timm(Extras::default()));
    let photos = [photo("a", 30, 20), photo("b", 12, 18)];
    let regions = [
        vec![photos[0].whole(), BoxXyxy::from([3., 2., 19., 17.])],
        vec![photos[1].whole(), BoxXyxy::from([0., 0., 6., 9.]), BoxXyxy::from([5., 5., 5.5, 5.5])],
    ];
    let maps = vit.encode_map(&photos).unwrap();
    for mode in [VectorMode::Pool, VectorMode::Crop] {
        let plain = region_vectors(&vit, &photos, &regions, mode, Context::None).unwrap();
        let class = region_vectors(&vit, &photos, &regions, mode, Context::Class).unwrap();
        for i in 0..2 {
            assert_eq!(plain[i].len(), regions[i].len() * DIM);
            assert_eq!(class[i].len(), regions[i].len() * 2 * DIM);
            assert_eq!(plain[i][..DIM], maps[i].global, "the whole photo is its class token");
            let mean = vectors::pool(&maps[i], photos[i].width, photos[i].height, &photos[i].whole());
            assert_eq!(class[i][..DIM], mean, "or its mean patch beside the class token");
            for region_idx in 0..regions[i].len() {
                let both = &class[i][region_idx * 2 * DIM..][..2 * DIM];
                assert_eq!(both[DIM..], maps[i].global);
                if region_idx > 0 {
                    assert_eq!(both[..DIM], plain[i][region_idx * DIM..][..DIM]);
                }
            }
        }
        let expected = match mode {
            VectorMode::Crop => vit.encode_map(&[photos[0].crop(&regions[0][1])]).unwrap().remove(0).global,
            _ => vectors::pool(&maps[0], 30, 20, &regions[0][1]),
        };
        assert_eq!(plain[0][DIM..], expected);
    }
    assert!(region_vectors(&vit, &photos, &regions, VectorMode::Imported, Context::None).is_err());
}

/// The shared data beside the project, where it is there.
pub(super) fn shared(part: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SIGHTLINE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = root.join(part);
    if !path.exists() {
        eprintln!("skipped: {} absent", path.display());
        return None;
    }
    Some(path)
}

/// Figures of the weights' own description: pug 0.88, sea lion 0.88, tailed frog 0.45.
#[test]
fn the_real_vit_tiny_names_three_animals() {
    let (Some(weights), Some(labels), Some(photos)) = (
        shared("weights/vit_tiny_patch16_224.safetensors"),
        shared("weights/imagenet_labels.txt"),
        shared("data/neuraltalk_example"),
    ) else {
        return;
    };
    let vit = Vit::load(&weights, &VitOptions::default(), &Device::flex()).unwrap();
    assert!(vit.unused().is_empty());
    let config = vit.config();
    assert_eq!((config.dim, config.depth, config.heads, config.patch, config.input), (192, 12, 3, 16, 224));
    let labels = std::fs::read_to_string(labels).unwrap();
    let labels: Vec<&str> = labels.lines().collect();
    assert_eq!(labels.len(), vit.classes());
    let cases = [("7EGRMwN.jpg", "pug", 0.88), ("seal.jpg", "sea lion", 0.88), ("frog.jpg", "tailed frog", 0.45)];
    let loaded: Vec<Photo> = cases.iter().map(|(name, ..)| Photo::open(photos.join(name)).unwrap()).collect();
    for ((name, label, expected), probabilities) in cases.into_iter().zip(vit.classify(&loaded).unwrap()) {
        let best = (0..labels.len()).max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b])).unwrap();
        eprintln!("{name}: {} {:.4}", labels[best], probabilities[best]);
        assert!(labels[best].contains(label), "{name}: {}", labels[best]);
        assert!((probabilities[best] - expected).abs() < 0.03, "{name}: {}", probabilities[best]);
        assert!((probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-4);
    }
}

#[test]
fn a_network_of_another_kind_is_refused() {
    let Some(weights) = shared("weights/mobilenet_v2.safetensors") else { return };
    let message = Vit::load(&weights, &VitOptions::default(), &Device::flex()).unwrap_err().to_string();
    assert!(message.contains("no vision transformer") && message.contains("ONNX"), "{message}");
}
