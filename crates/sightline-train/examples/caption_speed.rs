//! Training step and beam search of the caption generators at the sizes of the PyTorch peer (benches/README.md):
//! batch 100, 16 steps, 4,096 features, 512 hidden, vocabulary 8,791; beam 7 of one photo and of 100. Prints one line of
//! JSON. `RAYON_NUM_THREADS` sets the threads.
//!
//!   cargo run --release -p sightline-train --example caption_speed [rnn|neuraltalk2_lstm|attention]

use std::time::Instant;

use rand::{Rng, RngExt};
use sightline_model::Precision;
use sightline_model::caption::{
    BeamSettings, CaptionSettings, GeneratorKind, Loss, Pictures, Rounded, Said, Shortcut, beam_search, gradients,
    in_chunks,
};
use sightline_model::random::{self, Dropout};
use sightline_train::optimizer::{Optimizer, OptimizerKind, OptimizerSettings};

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 100;
const STEPS: usize = 16;
const FEATURES: usize = 4096;
const HIDDEN: usize = 512;
const VOCAB: usize = 8791;
const REPETITIONS: usize = 10;

fn main() {
    let name = std::env::args().nth(1).unwrap_or_else(|| "rnn".to_owned());
    let kind: GeneratorKind = serde_json::from_value(name.clone().into()).expect("rnn, neuraltalk2_lstm or attention");
    let settings = CaptionSettings { generator: kind, hidden: HIDDEN, word_dim: HIDDEN, ..CaptionSettings::default() };
    let mut rng = random::stream(1, 0);
    // END is made unlikely, so that sentences run to about their full length, as the peer's do.
    let mut frequencies = vec![0.0; VOCAB];
    frequencies[0] = -2.0;
    let mut weights = settings.initial_weights(FEATURES, &frequencies, &mut rng);
    let generator = settings.generator();

    let pictures = pictures(BATCH, &mut rng);
    let sentences: Vec<Vec<u32>> =
        (0..BATCH).map(|_| (1..STEPS).map(|_| rng.random_range(1..VOCAB as u32)).collect()).collect();
    let sentences: Vec<&[u32]> = sentences.iter().map(Vec::as_slice).collect();
    let of: Vec<usize> = (0..BATCH).collect();
    let factors = vec![1.0 / BATCH as f32; BATCH * STEPS];
    let rmsprop = OptimizerSettings { kind: OptimizerKind::Rmsprop, ..OptimizerSettings::default() };
    let mut optimizer = Optimizer::default();
    let mut step = |precision, i: usize, weights: &mut _| {
        let started = Instant::now();
        let mut dropout = Dropout::new(random::stream(1, 1), 0.0);
        let said = Said { sentences: &sentences, pictures: &of };
        let loss = Loss { weights: Some(&factors), smoothing: 0.0 };
        let (_, found) = gradients(&*generator, weights, &pictures, said, &loss, &mut dropout, precision);
        optimizer.step(weights, &found, &rmsprop, 1e-9, i as u64);
        1e3 * started.elapsed().as_secs_f64()
    };
    let [steps, rounded_steps] = [Precision::F32, Precision::Bf16]
        .map(|precision| repeated(|i, weights: &mut _| step(precision, i, weights), &mut weights));

    let layer = Rounded::of(&*generator, &weights);
    // As the peer does it.
    let peers_beam = BeamSettings { repeats_trigrams: true, ..BeamSettings::default() };
    let shortcut = layer.as_ref().map(|layer| Shortcut { layer, exact: peers_beam.proposals() });
    let beam = |n: usize| {
        let pictures = self::pictures(n, &mut random::stream(2, 0));
        let started = Instant::now();
        let found = in_chunks(&*generator, &weights, shortcut, &pictures, |source, range| {
            beam_search(source, range.len(), peers_beam)
        });
        let words = found.iter().map(|best| best[0].words.len()).max().unwrap_or(0);
        (1e3 * started.elapsed().as_secs_f64(), words)
    };
    let (one, words) = (repeated(|_, ()| beam(1).0, &mut ()), beam(1).1);
    let all = repeated(|_, ()| beam(BATCH).0, &mut ());
    println!(
        "{{\"generator\": \"{name}\", \"threads\": {}, \"step_median_ms\": {:.1}, \"step_min_ms\": {:.1}, \
         \"step_bf16_median_ms\": {:.1}, \"step_bf16_min_ms\": {:.1}, \"beam_one_photo_ms\": {:.2}, \"beam_one_photo_min_ms\": {:.2}, \"beam_all_photos_ms\": {:.0}, \"words\": {words}}}",
        std::env::var("RAYON_NUM_THREADS").unwrap_or_else(|_| "\"all\"".to_owned()),
        steps[REPETITIONS / 2],
        steps[0],
        rounded_steps[REPETITIONS / 2],
        rounded_steps[0],
        one[REPETITIONS / 2],
        one[0],
        all[REPETITIONS / 2],
    );
}

fn pictures(n: usize, rng: &mut impl Rng) -> Pictures {
    let vectors = (0..n * FEATURES).map(|_| (rng.random::<f32>() - 0.5).max(0.0)).collect();
    Pictures::single(vectors, FEATURES)
}

/// Times of repetitions, shortest first, after two that do not count.
fn repeated<T>(mut job: impl FnMut(usize, &mut T) -> f64, state: &mut T) -> Vec<f64> {
    let mut times: Vec<f64> = (0..REPETITIONS + 2).map(|i| job(i, state)).skip(2).collect();
    times.sort_by(f64::total_cmp);
    times
}
