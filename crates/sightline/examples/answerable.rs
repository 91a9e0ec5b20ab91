//! How well a query's scores say whether anything in a collection answers it: AUROC of sentences of photos that are in
//! against sentences of photos that are not, for collections of several sizes.
//!
//! ```text
//! cargo run --release --example answerable -- --model runs/align --dataset flickr8k.json --features flickr8k.features \
//!     --strangers coco.json
//! ```
//!
//! Collections are drawn from the validation split. A sentence of a photo left out may still have a fitting photo in the
//! collection, which no score can know, so 1 is out of reach there; the sentences of another dataset (`--strangers`) are
//! about other things for the most part. The models may be a run or a pack.

use std::path::PathBuf;

use clap::Parser;
use rand::seq::SliceRandom;
use sightline::models;
use sightline_data::{Dataset, FeatureStore, Split};
use sightline_metrics::auroc::auroc;
use sightline_model::{Device, random};
use sightline_search::{Reduction, VectorSets, scores};
use sightline_train::aligner::Aligner;
use sightline_train::checkpoint::Kind;

#[derive(Parser)]
struct Args {
    /// An alignment model
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    dataset: PathBuf,
    #[arg(long)]
    features: PathBuf,
    /// Another dataset, whose sentences are asked too
    #[arg(long)]
    strangers: Option<PathBuf>,
    /// Photos of a collection
    #[arg(long, value_delimiter = ',', default_value = "30,100,500")]
    sizes: Vec<usize>,
    /// Collections of each size
    #[arg(long, default_value_t = 10)]
    draws: u64,
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

/// The statistic that the search compares with the model's floor.
const USED: usize = 1;

/// Mean and standard deviation.
fn spread(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    (mean, (values.map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt().max(1e-9))
}

/// Sentences, and what each of their words scores with each photo as a sentence of its own.
struct Asked {
    /// First word of each sentence, and one past the last of all.
    starts: Vec<usize>,
    /// `[photos, words]`.
    of_word: Vec<f32>,
}

impl Asked {
    fn new(aligner: &Aligner, images: &VectorSets, sentences: &[Vec<u32>]) -> Self {
        let words = aligner.words(sentences);
        let (mut alone, mut starts) = (VectorSets::new(aligner.dim()), vec![0]);
        for sentence in 0..sentences.len() {
            words.get(sentence).chunks_exact(aligner.dim()).for_each(|word| alone.push(word));
            starts.push(alone.len());
        }
        Self { starts, of_word: scores(images, &alone, Reduction::Sum) }
    }

    /// All statistics of a sentence's scores with some photos. A photo's score is the sum over words.
    fn statistics(&self, sentence: usize, photos: &[usize]) -> [f64; NAMES.len()] {
        let (words, n_words) = (self.starts[sentence]..self.starts[sentence + 1], self.starts[self.starts.len() - 1]);
        let value = |photo: usize, word: usize| f64::from(self.of_word[photo * n_words + word]);
        let totals: Vec<f64> = photos.iter().map(|&photo| words.clone().map(|word| value(photo, word)).sum()).collect();
        let of_words: Vec<(f64, f64, f64)> = words
            .clone()
            .map(|word| {
                let all = photos.iter().map(|&photo| value(photo, word));
                let (mean, deviation) = spread(all.clone());
                (mean, deviation, all.fold(f64::NEG_INFINITY, f64::max))
            })
            .collect();
        let (mean, deviation) = spread(totals.iter().copied());
        let mut order: Vec<usize> = (0..totals.len()).collect();
        order.sort_by(|&a, &b| totals[b].total_cmp(&totals[a]));
        let (best, n) = (totals[order[0]], words.len() as f64);
        let ceiling: f64 = of_words.iter().map(|word| word.2).sum();
        let together: f64 = of_words.iter().map(|word| word.1.powi(2)).sum::<f64>().sqrt();
        let best_photo = photos[order[0]];
        let of_best = of_words.iter().zip(words).map(|(w, word)| (value(best_photo, word) - w.0) / w.1.max(1e-9));
        let sum_exp: f64 = totals.iter().map(|total| (total - best).exp()).sum();
        let next = order[1..11].iter().map(|&photo| totals[photo]).sum::<f64>() / 10.0;
        let at = |share: f64| totals[order[order.len() - 1 - (share * order.len() as f64) as usize]];
        [
            best,
            best / n,
            (best - mean) / deviation,
            (best - totals[order[1]]) / deviation,
            (best - mean) / (ceiling - mean),
            (best - mean) / together,
            of_best.sum::<f64>() / n,
            -sum_exp.ln(),
            (best - next) / deviation,
            (best - at(0.5)) / (at(0.5) - at(0.16)).max(1e-9),
        ]
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let dataset = Dataset::load(&args.dataset)?;
    let store = FeatureStore::open(&args.features)?;
    let aligner = Aligner::new(models::checkpoint(&args.model, &[Kind::Alignment])?, &Device::flex())?;
    let corpus = aligner.corpus(&dataset, Split::Val, &store, None)?;
    let positions: Vec<usize> = corpus.photos.iter().map(|photo| photo.position).collect();
    let images = aligner.regions(&store, &positions);
    let (mut sentences, mut photo_of) = (Vec::new(), Vec::new());
    for (i, photo) in corpus.photos.iter().enumerate() {
        for sentence in photo.sentences.iter().filter(|sentence| !sentence.is_empty()) {
            sentences.push(sentence.clone());
            photo_of.push(i);
        }
    }
    let own = Asked::new(&aligner, &images, &sentences);
    let strangers = match &args.strangers {
        Some(path) => {
            let all = Dataset::load(path)?;
            let said = all.images.iter().flat_map(|image| &image.sentences);
            let known = said.map(|sentence| aligner.vocabulary.encode(&sentence.tokens));
            Some(known.filter(|words| !words.is_empty()).collect::<Vec<_>>())
        }
        None => None,
    };
    let strangers = strangers.map(|sentences| (Asked::new(&aligner, &images, &sentences), sentences.len()));
    for &size in &args.sizes {
        anyhow::ensure!(size > 11 && 2 * size <= images.len(), "collections of 12 to {} photos", images.len() / 2);
        let floor = aligner.match_floors.at(size).unwrap_or(f64::NEG_INFINITY);
        let mut sums = [[0.0; NAMES.len()]; 2];
        let mut turned_away = [0.0; 3];
        for draw in 0..args.draws {
            let mut photos: Vec<usize> = (0..images.len()).collect();
            photos.shuffle(&mut random::stream(draw, 0));
            let (inside, outside) = (&photos[..size], &photos[size..2 * size]);
            let of = |chosen: &[usize]| -> Vec<[f64; NAMES.len()]> {
                let asked = (0..sentences.len()).filter(|&s| chosen.contains(&photo_of[s]));
                asked.map(|s| own.statistics(s, inside)).collect()
            };
            let others = strangers.as_ref().map(|(asked, n)| (0..*n).map(|s| asked.statistics(s, inside)).collect());
            let groups: [Vec<[f64; NAMES.len()]>; 3] = [of(inside), of(outside), others.unwrap_or_default()];
            for (turned, group) in turned_away.iter_mut().zip(&groups) {
                let below = group.iter().filter(|values| values[USED] < floor).count();
                *turned += 100.0 * below as f64 / group.len().max(1) as f64 / args.draws as f64;
            }
            for (sums, against) in sums.iter_mut().zip(&groups[1..]) {
                let answerable: Vec<bool> =
                    groups[0].iter().map(|_| true).chain(against.iter().map(|_| false)).collect();
                for (statistic, sum) in sums.iter_mut().enumerate() {
                    let values: Vec<f64> = groups[0].iter().chain(against).map(|values| values[statistic]).collect();
                    *sum += auroc(&values, &answerable).unwrap_or(f64::NAN) / args.draws as f64;
                }
            }
        }
        println!("{size} photos, {} draws: AUROC against sentences of other photos, of strangers", args.draws);
        for (statistic, name) in NAMES.iter().enumerate() {
            println!("{name:>34}  {:.3}  {:.3}", sums[0][statistic], sums[1][statistic]);
        }
        let [inside, outside, others] = turned_away;
        println!(
            "turned away below the model's floor of {floor:.3}: {inside:.1} % of their own, {outside:.1} % of other photos', {others:.1} % of \
             strangers' sentences\n"
        );
    }
    Ok(())
}
