//! Times one query over a whole collection, f16 and int8, and prints the share of memory bandwidth it reaches.
//!
//! ```text
//! cargo run --release -p sightline-search --example exact_search -- --photos 8000 --regions 20 --dim 512 --words 6
//! ```

mod synthetic;

use std::hint::black_box;
use std::sync::Arc;

use rayon::prelude::*;
use sightline_search::vectors::Encoding;
use sightline_search::{Exact, Index as _};
use synthetic::{Made, Sizes, milliseconds, option};

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let (photos, regions, dim, words) =
        (option("photos", 8000), option("regions", 20), option("dim", 512), option("words", 6));
    let repeat = option("repeat", 30);
    let made = Made::new(Sizes { photos, regions, dim, concepts: 1000, noise: 0.7 });
    let bandwidth = bandwidth_gb_s(photos * regions * dim * 2);
    println!("reading memory on all cores: {bandwidth:.1} GB/s");
    for encoding in [Encoding::F16, Encoding::Int8] {
        let exact = Exact::new(Arc::new(made.collection(encoding)));
        let queries: Vec<_> = (0..repeat).map(|seed| made.query(seed as u64, words)).collect();
        black_box(exact.best(&queries[0], None, 10));
        let (middle, least) = milliseconds(repeat, |i| {
            black_box(exact.best(&queries[i], None, 10));
        });
        let bytes = photos * regions * dim * if encoding == Encoding::F16 { 2 } else { 1 };
        let products = 2.0 * (photos * regions * dim * words) as f64;
        println!(
            "{encoding:?}: {words} words, {photos} photos × {regions} regions × {dim}: median {middle:.2} ms, least \
             {least:.2} ms; at the median {:.1} GFLOP/s, {:.1} GB/s, {:.0} % of the memory's",
            products / middle / 1e6,
            bytes as f64 / middle / 1e6,
            100.0 * bytes as f64 / middle / 1e6 / bandwidth,
        );
    }
}

/// Sums as many bytes as the vectors have, on all cores.
fn bandwidth_gb_s(bytes: usize) -> f64 {
    let memory = vec![1u64; bytes / 8];
    let (_, least) = milliseconds(10, |_| {
        black_box(memory.par_chunks(1 << 16).map(|part| part.iter().fold(0u64, |sum, x| sum ^ x)).sum::<u64>());
    });
    bytes as f64 / least / 1e6
}
