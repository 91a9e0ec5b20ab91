//! What tuning the backbone would cost: one training step of a network with ViT-Tiny's sizes (224 pixels, patches of 16)
//! and random weights, timed, with the gradients of all of them.
//!
//! ```text
//! RAYON_NUM_THREADS=2 cargo run --release -p sightline-train --example vit_step -- [photos a step] [repetitions]
//! ```
//!
//! Prints one line of JSON: milliseconds a photo of the pass forward alone and of the whole step (wall and processor), with
//! all blocks and with a tenth of them skipped (stochastic depth), and the peak of memory.

use std::time::Instant;

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, Linear};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Tensor, TensorData, activation, module::attention};
use sightline_model::{random, weights};

const PATCHES: usize = 196;
const PIXELS: usize = 3 * 16 * 16;
const DIM: usize = 192;
const HEADS: usize = 3;
const DEPTH: usize = 12;

#[derive(Module, Debug)]
struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Block {
    fn new(mut linear: impl FnMut(usize, usize) -> Linear, device: &Device) -> Self {
        let norm = || LayerNormConfig::new(DIM).init(device);
        Self {
            norm1: norm(),
            qkv: linear(DIM, 3 * DIM),
            out: linear(DIM, DIM),
            norm2: norm(),
            fc1: linear(DIM, 4 * DIM),
            fc2: linear(4 * DIM, DIM),
        }
    }

    /// `[batch, tokens, DIM]` to the same.
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, tokens, dim] = x.dims();
        let qkv = self.qkv.forward(self.norm1.forward(x.clone()));
        let qkv = qkv.reshape([batch, tokens, 3, HEADS, dim / HEADS]).permute([2, 0, 3, 1, 4]);
        let part = |i: usize| -> Tensor<4> { qkv.clone().narrow(0, i, 1).squeeze_dim(0) }; // [batch, heads, tokens, _]
        let attended = attention(part(0), part(1), part(2), None, None, AttentionModuleOptions::default());
        let x = x + self.out.forward(attended.swap_dims(1, 2).reshape([batch, tokens, dim]));
        let hidden = activation::gelu(self.fc1.forward(self.norm2.forward(x.clone())));
        x + self.fc2.forward(hidden)
    }
}

#[derive(Module, Debug)]
struct Network {
    embed: Linear,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl Network {
    /// Patches `[batch, PATCHES, PIXELS]` to a number, through all blocks but those to skip.
    fn loss(&self, patches: Tensor<3>, skipped: &[usize]) -> Tensor<1> {
        let x = self.embed.forward(patches);
        let kept = self.blocks.iter().enumerate().filter(|(i, _)| !skipped.contains(i));
        let x = kept.fold(x, |x, (_, block)| block.forward(x));
        self.norm.forward(x).square().mean()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Of this process and all its threads, from the kernel's accounting (Linux); 0 elsewhere.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat.rsplit(')').next().unwrap_or("").split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn peak_megabytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("");
    line.split_whitespace().next().and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1000
}

fn main() {
    let mut numbers = std::env::args().skip(1).map_while(|argument| argument.parse::<usize>().ok());
    let photos = numbers.next().unwrap_or(16).max(1);
    let repetitions = numbers.next().unwrap_or(5).max(1);
    let device = Device::flex().autodiff();
    let mut rng = random::stream(1, 0);
    let mut linear = |inputs, outputs| random::linear(&mut rng, inputs, outputs, 1.0, &device);
    let network = Network {
        embed: linear(PIXELS, DIM),
        blocks: (0..DEPTH).map(|_| Block::new(&mut linear, &device)).collect(),
        norm: LayerNormConfig::new(DIM).init(&device),
    };
    let values = random::uniform_values(&mut rng, photos * PATCHES * PIXELS, 1.0);
    let patches = |device: &Device| -> Tensor<3> {
        Tensor::from_data(TensorData::new(values.clone(), [photos, PATCHES, PIXELS]), device)
    };
    let timed = |job: &dyn Fn()| {
        job(); // memory is laid out by the first
        let (mut wall, cpu) = (Vec::new(), cpu_seconds());
        for _ in 0..repetitions {
            let started = Instant::now();
            job();
            wall.push(1e3 * started.elapsed().as_secs_f64() / photos as f64);
        }
        serde_json::json!({
            "wall_ms": median(wall),
            "processor_ms": 1e3 * (cpu_seconds() - cpu) / (repetitions * photos) as f64,
        })
    };
    let frozen = network.valid();
    let plain = device.clone().without_autodiff();
    let forward = timed(&|| drop(frozen.loss(patches(&plain), &[]).into_data()));
    let step = |skipped: &[usize]| {
        let gradients = network.loss(patches(&plain), skipped).backward();
        assert!(!weights::export_gradients(&network, &gradients).is_empty());
    };
    let whole = timed(&|| step(&[]));
    let skipping = timed(&|| step(&[7]));
    let record = serde_json::json!({
        "photos": photos, "forward": forward, "step": whole, "step_without_one_block": skipping,
        "peak_megabytes": peak_megabytes(),
    });
    println!("{record}");
}
