//! What tuning the backbone costs: the pass forward and the training step of a network with ViT-Tiny's sizes (224 pixels,
//! patches of 16) and random weights, over four photos on one thread, as each thread of `train tune` works.
//!
//! ```text
//! cargo run --release -p sightline-train --example vit_step -- [repetitions]
//! ```
//!
//! Prints milliseconds a photo, medians.

use std::time::Instant;

use sightline_model::random::{self, Dropout};
use sightline_model::tape::{Activation, Tape};
use sightline_model::vit::VisionTransformer;
use sightline_model::weights::{Weight, Weights};
use sightline_model::{Matrix, Precision};

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PHOTOS: usize = 4;
const PATCHES: usize = 196;
const PIXELS: usize = 3 * 16 * 16;
const DIM: usize = 192;
const NETWORK: VisionTransformer =
    VisionTransformer { depth: 12, heads: 3, epsilon: 1e-6, activation: Activation::Gelu };

fn weights() -> Weights {
    let mut shapes: Vec<(String, Vec<usize>)> =
        vec![("prefix".into(), vec![1, DIM]), ("positions".into(), vec![PATCHES, DIM])];
    let mut layer = |name: String, sizes: &[usize]| {
        shapes.push((format!("{name}.weight"), sizes.to_vec()));
        shapes.push((format!("{name}.bias"), sizes[sizes.len() - 1..].to_vec()));
    };
    layer("patch_embedding".into(), &[PIXELS, DIM]);
    layer("norm".into(), &[DIM]);
    for block in 0..NETWORK.depth {
        let name = |part: &str| format!("blocks.{block}.{part}");
        layer(name("norm1"), &[DIM]);
        layer(name("qkv"), &[DIM, 3 * DIM]);
        layer(name("attention_out"), &[DIM, DIM]);
        layer(name("norm2"), &[DIM]);
        layer(name("fc1"), &[DIM, 4 * DIM]);
        layer(name("fc2"), &[4 * DIM, DIM]);
    }
    let mut rng = random::stream(1, 0);
    let mut weight = |(name, shape): (String, Vec<usize>)| {
        let values = random::uniform_values(&mut rng, shape.iter().product(), 0.05);
        (name, Weight { shape, values })
    };
    shapes.into_iter().map(&mut weight).collect()
}

fn main() {
    let repetitions: usize = std::env::args().nth(1).map_or(9, |n| n.parse().expect("REPETITIONS is a number"));
    let weights = weights();
    let pixels = || {
        let values = random::uniform_values(&mut random::stream(1, 1), PHOTOS * PATCHES * PIXELS, 1.0);
        Matrix::new(PHOTOS * PATCHES, PIXELS, values)
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread");
    pool.install(|| {
        report("forward", repetitions, || {
            let mut tape = Tape::forward_only(&weights);
            NETWORK.forward(&mut tape, pixels(), PHOTOS, None);
        });
        for (name, precision) in [("step", Precision::F32), ("step in bfloat16", Precision::Bf16)] {
            report(name, repetitions, || {
                let mut dropout = Dropout::new(random::stream(1, 2), 0.0);
                let mut tape = Tape::training(&weights, &mut dropout, precision);
                let tokens = NETWORK.forward(&mut tape, pixels(), PHOTOS, None);
                let gradient = tape.value(tokens).values.clone();
                tape.seed(tokens, gradient);
                assert_eq!(tape.backward().len(), weights.len());
            });
        }
    });
}

/// Prints the median of some runs after one that is not counted.
fn report(what: &str, repetitions: usize, mut work: impl FnMut()) {
    work();
    let mut times: Vec<f64> = (0..repetitions)
        .map(|_| {
            let start = Instant::now();
            work();
            1e3 * start.elapsed().as_secs_f64() / PHOTOS as f64
        })
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    println!("{what}: {:.1} ms a photo", times[times.len() / 2]);
}
