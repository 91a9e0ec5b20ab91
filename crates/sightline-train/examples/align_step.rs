//! One training step of the alignment model on inputs and weights from a file, timed: our side of `benches/align_step.py`,
//! which also makes the file.
//!
//! ```text
//! cargo run --release -p sightline-train --example align_step -- step.safetensors [repetitions]
//! ```
//!
//! Prints one JSON line: the loss, the largest difference of any gradient from the file's relative to the gradient's
//! largest value, and the milliseconds of forward, backward and update.

use std::collections::BTreeMap;
use std::time::Instant;

use burn::tensor::TensorData;
use safetensors::SafeTensors;
use sightline_model::alignment::{
    AlignmentModel, AlignmentSettings, BatchTruth, Objective, Pairing, RegionBatch, RegionCounts, Sizes, WordVectors,
    features_tensor,
};
use sightline_model::weights::{self, Weight};
use sightline_model::{Device, SentenceBatch, random};
use sightline_train::optimizer::{Optimizer, OptimizerKind, OptimizerSettings};

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The names of our weights and the file's.
const NAMES: [(&str, &str); 10] = [
    ("image.projection.weight", "W_m"),
    ("image.projection.bias", "b_m"),
    ("sentence.Brnn.input.weight", "W_e"),
    ("sentence.Brnn.input.bias", "b_e"),
    ("sentence.Brnn.left_to_right.weight", "W_f"),
    ("sentence.Brnn.left_to_right.bias", "b_f"),
    ("sentence.Brnn.right_to_left.weight", "W_b"),
    ("sentence.Brnn.right_to_left.bias", "b_b"),
    ("sentence.Brnn.output.weight", "W_d"),
    ("sentence.Brnn.output.bias", "b_d"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("the file that benches/align_step.py makes")?;
    let repetitions: usize = args.next().map_or(Ok(10), |n| n.parse())?;
    let bytes = std::fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let read = |name: &str| -> Result<Weight, Box<dyn std::error::Error>> {
        let view = file.tensor(name)?;
        let values = view.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        Ok(Weight { shape: view.shape().to_vec(), values })
    };
    let (regions, words, mask) = (read("regions")?, read("words")?, read("mask")?);
    let [photos, n_regions, features] = regions.shape[..] else { return Err("regions has three sizes".into()) };
    let [sentences, steps, word_dim] = words.shape[..] else { return Err("words has three sizes".into()) };
    let (dim, hidden) = (read("b_m")?.shape[0], read("b_e")?.shape[0]);

    // Every place of a sentence has a word vector of its own in the file: the vocabulary is all places.
    let settings = AlignmentSettings {
        dim,
        hidden,
        word_dim,
        dropout: 0.0,
        word_vectors: WordVectors::Frozen,
        ..AlignmentSettings::default()
    };
    let device = Device::flex().autodiff();
    let vocab = sentences * steps;
    let sizes = Sizes { features, vocab, photos: 0, relations: 0 };
    let model = AlignmentModel::new(&settings, sizes, &mut random::stream(1, 0), &device);
    let mut own = weights::export(&model);
    own.insert("word_vectors".into(), Weight { shape: vec![vocab, word_dim], values: words.values });
    for (ours, theirs) in NAMES {
        own.insert(ours.into(), read(theirs)?);
    }
    let mut model = weights::import(model, own)?;
    let indices: Vec<Vec<u32>> = mask
        .values
        .chunks_exact(steps)
        .enumerate()
        .map(|(s, row)| (0..steps).filter(|&t| row[t] > 0.0).map(|t| (s * steps + t) as u32).collect())
        .collect();
    let sentences = SentenceBatch::new(&indices);
    let truth = BatchTruth {
        pairing: Pairing::diagonal(photos),
        classes: Vec::new(),
        other_classes: Vec::new(),
        teaching: None,
    };
    let rows = features_tensor(regions.values, features, &device.without_autodiff());
    let counts = RegionCounts::new(vec![n_regions; photos]);
    let loss_of = |model: &AlignmentModel| {
        let batch = RegionBatch { features: rows.clone(), geometry: None, counts: counts.clone() };
        model.loss(&settings, Objective::SumHinge, batch, &sentences, &truth, None)
    };

    let loss = loss_of(&model);
    let gradients = weights::export_gradients(&model, &loss.backward());
    let loss = f64::from(loss.into_scalar::<f32>());
    let expected = f64::from(read("loss")?.values[0]);
    let mut differences = BTreeMap::new();
    for (ours, theirs) in NAMES {
        let theirs = read(&format!("grad.{theirs}"))?.values;
        let largest = theirs.iter().fold(f32::MIN_POSITIVE, |most, g| most.max(g.abs()));
        let pairs = gradients[ours].values.iter().zip(&theirs);
        differences.insert(ours, pairs.fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / largest);
    }

    let optimizer_settings = OptimizerSettings { kind: OptimizerKind::Sgd, clip: 5.0, ..OptimizerSettings::default() };
    let mut optimizer = Optimizer::default();
    let mut milliseconds = Vec::new();
    let mut cpu = 0.0;
    for repetition in 0..repetitions + 2 {
        let (started, cpu_before) = (Instant::now(), cpu_seconds());
        let gradients = loss_of(&model).backward();
        model = optimizer.step_module(model, gradients, &optimizer_settings, 1e-9, repetition as u64);
        if repetition >= 2 {
            milliseconds.push(1e3 * started.elapsed().as_secs_f64());
            cpu += 1e3 * (cpu_seconds() - cpu_before);
        }
    }
    milliseconds.sort_by(f64::total_cmp);
    let worst = differences.values().fold(0.0f32, |most, &d| most.max(d));
    println!(
        "{}",
        serde_json::json!({
            "loss": loss, "loss_difference": (loss - expected).abs() / expected.abs(), "gradient_difference": worst,
            "median_ms": milliseconds[milliseconds.len() / 2], "min_ms": milliseconds[0],
            "cpu_ms": cpu / repetitions as f64,
        })
    );
    // Keeps the weights' data in use to the end.
    let _: TensorData = model.words(&sentences).into_data();
    Ok(())
}

/// CPU time of this process so far, in seconds; zero where the system does not tell.
fn cpu_seconds() -> f64 {
    let ticks = || -> Option<f64> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        Some(fields[11].parse::<f64>().ok()? + fields[12].parse::<f64>().ok()?)
    };
    // A tick is a hundredth of a second on every Linux that Rust runs on.
    ticks().unwrap_or(0.0) / 100.0
}
