//! What the small backbone costs, by default, with a deep grid, and as the program's own
//! (recipes/pack/backbone-mosaics.toml): a photo on all threads, photos on one thread each, and a training step.
//!
//! ```text
//! cargo run --release -p sightline-train --example backbone_speed [ROUNDS]
//! ```

use std::time::Instant;

use sightline_model::backbone::{BackboneSettings, INPUT};
use sightline_model::random::{self, Dropout};
use sightline_model::tape::Tape;
use sightline_model::{Matrix, Precision};
use sightline_vision::Photo;
use sightline_vision::backbone::{Backbone, Compact};

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Pixels along a side of the square in which the program's own backbone is shown a photo.
const LARGER: usize = 320;
/// Pictures in a batch.
const BATCH: usize = 8;

fn main() {
    let rounds: usize = std::env::args().nth(1).map_or(20, |rounds| rounds.parse().expect("ROUNDS is a number"));
    let default = BackboneSettings::default();
    let without_blocks = BackboneSettings { deep: 384, heads: 6, ..default };
    let own = BackboneSettings { objects: 96, object_blocks: 2, levels: 2, ..without_blocks };
    for (name, settings) in [("by default", default), ("with a deep grid", without_blocks), ("the program's own", own)]
    {
        println!("{name}");
        network(&settings, rounds);
    }
}

fn network(settings: &BackboneSettings, rounds: usize) {
    let weights = settings.initial_weights(&mut random::stream(1, 0));
    let n: usize = weights.values().map(|weight| weight.values.len()).sum();
    println!("{n} parameters");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread");
    for photo_side in [INPUT, LARGER] {
        let settings = BackboneSettings { photo_side, ..settings.clone() };
        let compact = Compact::new("compact", "", settings, weights.clone()).expect("its own weights");
        // Another photo each time: it remembers those that it has seen.
        let mut count = 0u16;
        let mut photos = |n: usize| -> Vec<Photo> {
            let mut photo = || {
                count += 1;
                let [low, high] = count.to_le_bytes();
                Photo::uniform(photo_side as u32, photo_side as u32, [low, high, 30])
            };
            (0..n).map(|_| photo()).collect()
        };
        println!("{photo_side} pixels along a side");
        report("one photo, all threads", 1, rounds, || {
            compact.encode_map(&photos(1)).expect("a photo");
        });
        pool.install(|| {
            report("a photo of eight, one thread", BATCH, rounds, || {
                compact.encode_map(&photos(BATCH)).expect("photos");
            });
        });
    }
    pool.install(|| {
        let names =
            [("a view of eight in training, one thread", Precision::F32), ("the same in bfloat16", Precision::Bf16)];
        for (name, precision) in names {
            report(name, BATCH, rounds, || {
                let mut dropout = Dropout::new(random::stream(1, 1), 0.0);
                let mut tape = Tape::training(&weights, &mut dropout, precision);
                let pixels = random::uniform_values(&mut random::stream(1, 2), BATCH * INPUT * INPUT * 3, 1.0);
                let seen = settings.forward(&mut tape, Matrix::new(BATCH * INPUT * INPUT, 3, pixels), INPUT);
                for var in [seen.cells, seen.global, seen.objects] {
                    let gradient = tape.value(var).values.clone();
                    tape.seed(var, gradient);
                }
                tape.backward();
            });
        }
    });
}

/// Prints the median of `rounds` runs after one that is not counted, in milliseconds a picture.
fn report(what: &str, pictures: usize, rounds: usize, mut work: impl FnMut()) {
    work();
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e3 / pictures as f64
        })
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    println!("{what}: {:.2} ms", times[times.len() / 2]);
}
