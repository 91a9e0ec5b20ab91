//! How well a query's scores say whether its photo is in the collection: AUROC on sentences of photos that are in and
//! of photos that were left out.
//!
//! ```text
//! cargo run --release --example answerable -- --model runs/align --dataset flickr8k.json --features flickr8k.features
//! ```
//!
//! Every second photo of the validation split is in. A sentence of a photo left out may still have a fitting photo in
//! the collection, which no score can know, so 1 is out of reach.

use std::path::PathBuf;

use clap::Parser;
use sightline_data::{Dataset, FeatureStore, Split};
use sightline_metrics::auroc::auroc;
use sightline_model::Device;
use sightline_search::{Reduction, VectorSets, scores};
use sightline_train::align::Aligner;
use sightline_train::checkpoint::Kind;
use sightline_train::run::RunFolder;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    dataset: PathBuf,
    #[arg(long)]
    features: PathBuf,
}

const NAMES: [&str; 10] = [
    "best score",
    "best score a word",
    "deviations above the mean",
    "best less second, in deviations",
    "share of the words' ceiling",
    "over independent words",
    "mean of the words' deviations",
    "logarithm of the softmax",
    "best less the next ten",
    "above the median, in lower halves",
];

/// The statistic that the search uses.
const USED: usize = 9;

/// Mean and standard deviation.
fn spread(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    (mean, (values.map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt().max(1e-9))
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let dataset = Dataset::load(&args.dataset)?;
    let store = FeatureStore::open(&args.features)?;
    let aligner = Aligner::new(RunFolder::model(&args.model, &[Kind::Alignment])?, &Device::flex())?;
    let corpus = aligner.corpus(&dataset, Split::Val, &store, None)?;
    let in_it: Vec<usize> = corpus.photos.iter().step_by(2).map(|photo| photo.position).collect();
    let images = aligner.regions(&store, &in_it);
    let (mut sentences, mut answerable) = (Vec::new(), Vec::new());
    for (i, photo) in corpus.photos.iter().enumerate() {
        for sentence in photo.sentences.iter().filter(|sentence| !sentence.is_empty()) {
            sentences.push(sentence.clone());
            answerable.push(i % 2 == 0);
        }
    }
    let words = aligner.words(&sentences);
    let n = sentences.len();
    // Every word as a sentence of its own: what it scores with each photo.
    let mut alone = VectorSets::new(aligner.dim());
    for sentence in 0..n {
        words.get(sentence).chunks_exact(aligner.dim()).for_each(|word| alone.push(word));
    }
    let of_word = scores(&images, &alone, Reduction::Sum);
    let n_words = alone.len();
    let mut statistics: Vec<(&str, Vec<f64>)> = NAMES.map(|name| (name, Vec::with_capacity(n))).into();
    let mut first = 0;
    for sentence in 0..n {
        let last = first + words.count(sentence);
        let value = |photo: usize, word: usize| f64::from(of_word[photo * n_words + word]);
        let totals: Vec<f64> =
            (0..in_it.len()).map(|photo| (first..last).map(|word| value(photo, word)).sum()).collect();
        let of_words: Vec<(f64, f64, f64)> = (first..last)
            .map(|word| {
                let (mean, deviation) = spread((0..in_it.len()).map(|photo| value(photo, word)));
                let most = (0..in_it.len()).map(|photo| value(photo, word)).fold(f64::NEG_INFINITY, f64::max);
                (mean, deviation, most)
            })
            .collect();
        let (mean, deviation) = spread(totals.iter().copied());
        let mut order: Vec<usize> = (0..totals.len()).collect();
        order.sort_by(|&a, &b| totals[b].total_cmp(&totals[a]));
        let best = totals[order[0]];
        let ceiling: f64 = of_words.iter().map(|word| word.2).sum();
        let together: f64 = of_words.iter().map(|word| word.1.powi(2)).sum::<f64>().sqrt();
        let of_best = of_words.iter().zip(first..).map(|(w, word)| (value(order[0], word) - w.0) / w.1.max(1e-9));
        let sum_exp: f64 = totals.iter().map(|total| (total - best).exp()).sum();
        let next = order[1..11].iter().map(|&photo| totals[photo]).sum::<f64>() / 10.0;
        let values = [
            best,
            best / (last - first) as f64,
            (best - mean) / deviation,
            (best - totals[order[1]]) / deviation,
            (best - mean) / (ceiling - mean),
            (best - mean) / together,
            of_best.sum::<f64>() / (last - first) as f64,
            -sum_exp.ln(),
            (best - next) / deviation,
            {
                let at = |share: f64| totals[order[order.len() - 1 - (share * order.len() as f64) as usize]];
                (best - at(0.5)) / (at(0.5) - at(0.16)).max(1e-9)
            },
        ];
        for ((_, all), value) in statistics.iter_mut().zip(values) {
            all.push(value);
        }
        first = last;
    }
    let n_answerable = answerable.iter().filter(|&&a| a).count();
    println!("{} photos in; {n_answerable} sentences of theirs, {} of others", in_it.len(), n - n_answerable);
    for (name, values) in &statistics {
        println!("{name:>34}: AUROC {:.3}", auroc(values, &answerable).unwrap_or(f64::NAN));
    }
    println!("\ncut-off  answerable kept  unanswerable turned away");
    let values = &statistics[USED].1;
    for cut_off in [2.0, 2.5, 2.75, 3.0, 3.25, 3.5, 4.0, 4.5, 5.0] {
        let share = |of: bool, kept: bool| {
            let own: Vec<bool> = values
                .iter()
                .zip(&answerable)
                .filter(|(_, a)| **a == of)
                .map(|(v, _)| (*v >= cut_off) == kept)
                .collect();
            100.0 * own.iter().filter(|&&yes| yes).count() as f64 / own.len().max(1) as f64
        };
        println!("{cut_off:>7.2}  {:>13.1} %  {:>22.1} %", share(true, true), share(false, false));
    }
    Ok(())
}
