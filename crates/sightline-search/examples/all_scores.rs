//! All photos against all sentences, timed: our side of `benches/all_scores.py`.
//!
//! ```text
//! cargo run --release -p sightline-search --example all_scores -- [photos] [sentences] [regions] [dim] [repetitions]
//! ```
//!
//! Sentences have 8 to 16 words. Prints one JSON line: seconds, GFLOP/s of the products, and the rate of one plain large
//! matrix product of the same crate on the same threads, which is what the machine gives.

use std::time::Instant;

use sightline_search::matrix::{Layout, multiply};
use sightline_search::{Reduction, VectorSets, scores};

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>().expect("a number"));
    let mut next = |default: usize| args.next().unwrap_or(default);
    let (photos, sentences, regions, dim, repetitions) = (next(1000), next(5000), next(20), next(1000), next(3));
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let mut sets = |n: usize, count: &dyn Fn(usize) -> usize| {
        let mut sets = VectorSets::new(dim);
        for i in 0..n {
            sets.push(&(0..count(i) * dim).map(|_| random()).collect::<Vec<f32>>());
        }
        sets
    };
    let images = sets(photos, &|_| regions);
    let words = sets(sentences, &|i| 8 + i % 9);
    let n_words: usize = (0..sentences).map(|i| words.count(i)).sum();
    let flop = 2.0 * (photos * regions * n_words * dim) as f64;
    let (mut times, mut sum) = (Vec::new(), 0.0);
    for _ in 0..repetitions {
        let started = Instant::now();
        let found = scores(&images, &words, Reduction::Sum);
        times.push(started.elapsed().as_secs_f64());
        sum = found.iter().map(|&s| f64::from(s)).sum::<f64>() / found.len() as f64;
    }
    times.sort_by(f64::total_cmp);

    // One product a thread, in the cache: the most that the machine gives at these sizes.
    let plain = rayon::broadcast(|_| {
        let (m, n) = (192, 256);
        let (a, b, mut out) = (vec![0.5; m * dim], vec![0.25; n * dim], vec![0.0; m * n]);
        let rounds = 400;
        let started = Instant::now();
        for _ in 0..rounds {
            multiply(&a, &b, &mut out, dim, Layout::RightTransposed);
        }
        2.0 * (rounds * m * n * dim) as f64 / started.elapsed().as_secs_f64()
    });
    let plain: f64 = plain.iter().sum();
    println!(
        "{{\"seconds\": {}, \"min_seconds\": {}, \"gflops\": {}, \"matrix_gflops\": {}, \"mean\": {sum}}}",
        times[times.len() / 2],
        times[0],
        flop / times[0] / 1e9,
        plain / 1e9
    );
}
