//! How many candidates the pruned search needs: recall against the exact search and its cost, as a table.
//!
//! ```text
//! cargo run --release -p sightline-search --example pruned_curve -- --photos 100000 --dim 512 --noise 70
//! ```

mod synthetic;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use sightline_search::vectors::Encoding;
use sightline_search::{Exact, Hit, Index as _, Pruned, PrunedSettings};
use synthetic::{Made, Sizes, milliseconds, option};

fn main() {
    let (photos, regions, dim, words) =
        (option("photos", 100_000), option("regions", 20), option("dim", 512), option("words", 6));
    let (concepts, noise, n_queries) = (option("concepts", 5000), option("noise", 70), option("queries", 100));
    let made = Made::new(Sizes { photos, regions, dim, concepts, noise: noise as f32 / 100.0 });
    let collection = Arc::new(made.collection(Encoding::F16));
    let queries: Vec<_> = (0..n_queries).map(|seed| made.query(seed as u64, words)).collect();
    let exact = Exact::new(collection.clone());
    let start = Instant::now();
    let centroids = option("centroids", 0);
    let settings = PrunedSettings { centroids: (centroids > 0).then_some(centroids), ..PrunedSettings::default() };
    let mut pruned = Pruned::build(collection, &settings);
    println!(
        "{photos} photos × {regions} regions × {dim}, {concepts} concepts, noise {noise} %, {words} words; {} \
         centroids found in {:.0} s; usual candidates {}",
        pruned.n_centroids(),
        start.elapsed().as_secs_f64(),
        pruned.candidates()
    );
    let truth: Vec<Vec<Hit>> = queries.iter().map(|query| exact.best(query, None, 10)).collect();
    let (exact_ms, _) = milliseconds(n_queries, |i| {
        black_box(exact.best(&queries[i], None, 10));
    });
    println!("exact: median {exact_ms:.1} ms\n\ncandidates  recall@10  median ms  share of exact");
    for share in [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1] {
        let candidates = (photos as f64 * share) as usize;
        pruned = pruned.with_candidates(candidates);
        let mut found = 0;
        for (query, truth) in queries.iter().zip(&truth) {
            let hits = pruned.best(query, None, 10);
            found += truth.iter().filter(|hit| hits.iter().any(|own| own.photo == hit.photo)).count();
        }
        let (ms, _) = milliseconds(n_queries, |i| {
            black_box(pruned.best(&queries[i], None, 10));
        });
        let wanted: usize = truth.iter().map(Vec::len).sum();
        println!(
            "{candidates:>10}  {:>9.4}  {ms:>9.2}  {:>12.1} %",
            found as f64 / wanted.max(1) as f64,
            100.0 * ms / exact_ms
        );
    }
}
