//! `eval words`: which words and regions the model gives long vectors (the paper's supplement).

use std::path::PathBuf;

use serde::Serialize;
use sightline_data::BoxXyxy;
use sightline_model::Sentence;
use sightline_train::aligner::Aligner;
use sightline_train::checkpoint::Kind;
use sightline_train::corpus::CorpusPhoto;

use super::eval_split::{Common, tell_gaps};
use crate::models;
use crate::sources::ParsesFile;
use crate::ui::{Ui, table};

/// The words with the longest and the shortest vectors, and the regions with the longest (the paper's supplement)
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sightline eval words --model runs/align --dataset flickr8k.json --features flickr8k.features --split val")]
pub struct Args {
    /// A run of `train align`, with vectors that are not scaled to length one
    #[arg(long, value_name = "RUN")]
    model: PathBuf,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    parses: ParsesFile,
    /// Words to show at each end, and regions
    #[arg(long, default_value_t = 40)]
    most: usize,
    /// Words seen less often in the training sentences are left out
    #[arg(long, default_value_t = 10)]
    min_count: u64,
}

/// A word and the mean length of its vectors over the sentences that it stands in.
#[derive(Debug, Serialize)]
struct Word {
    word: String,
    norm: f64,
    occurrences: usize,
}

/// A region and the length of its vector: how much it has to say.
#[derive(Debug, Serialize)]
struct Region {
    image: String,
    #[serde(rename = "box")]
    region: BoxXyxy,
    norm: f64,
}

#[derive(Debug, Serialize)]
struct Record {
    top: Vec<Word>,
    bottom: Vec<Word>,
    salient: Vec<Region>,
    /// Mean length of the vectors of regions, and of whole photos.
    mean_region_norm: f64,
    mean_whole_norm: f64,
}

pub(super) fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let data = args.common.open(ui)?;
    let aligner = Aligner::new(models::checkpoint(&args.model, &[Kind::Alignment])?, &data.device)?;
    aligner.check(&data.store)?;
    if aligner.settings.unit_vectors {
        anyhow::bail!(
            "{}: its vectors are scaled to length one, so their lengths say nothing; train with model.unit_vectors=false",
            args.model.display()
        );
    }
    let parses = args.parses.read(&data.dataset, &[data.split], ui)?;
    let corpus = aligner.corpus(&data.dataset, data.split, &data.store, parses.as_ref())?;
    tell_gaps(&corpus, ui);
    // Of the region or the word alone, not of its whole photo or sentence.
    let own = aligner.settings.dim;
    let norm = |vector: &[f32]| vector[..own].iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();

    let sentences: Vec<Sentence<'_>> = corpus.photos.iter().flat_map(CorpusPhoto::encoder_sentences).collect();
    let vectors = aligner.words(sentences.iter().copied());
    let mut sums = vec![(0.0, 0usize); aligner.vocabulary.len()];
    for (s, sentence) in sentences.iter().enumerate() {
        for (&word, vector) in sentence.words.iter().zip(vectors.get(s).chunks_exact(vectors.dim())) {
            let (sum, n) = &mut sums[word as usize];
            *sum += norm(vector);
            *n += 1;
        }
    }
    let mut words: Vec<Word> = (0..)
        .zip(&sums)
        .filter(|&(index, &(_, n))| n > 0 && aligner.vocabulary.count(index) >= args.min_count)
        .map(|(index, &(sum, occurrences))| Word {
            word: aligner.vocabulary.word(index).to_owned(),
            norm: sum / occurrences as f64,
            occurrences,
        })
        .collect();
    words.sort_by(|a, b| b.norm.total_cmp(&a.norm).then_with(|| a.word.cmp(&b.word)));

    let positions: Vec<usize> = corpus.photos.iter().map(|photo| photo.position).collect();
    let region_vectors = aligner.regions(corpus.store, &positions);
    let (mut regions, mut wholes) = (Vec::new(), Vec::new());
    for (i, photo) in corpus.photos.iter().enumerate() {
        let norms = region_vectors.get(i).chunks_exact(region_vectors.dim()).map(norm);
        for (r, (norm, region)) in norms.zip(corpus.store.get(photo.position).boxes()).enumerate() {
            if r == 0 {
                wholes.push(norm);
            } else {
                regions.push(Region { image: corpus.key(photo).to_owned(), region, norm });
            }
        }
    }
    let mean = |norms: &mut dyn Iterator<Item = f64>| {
        let (sum, n) = norms.fold((0.0, 0), |(sum, n), norm| (sum + norm, n + 1));
        sum / f64::from(n.max(1))
    };
    let mean_region_norm = mean(&mut regions.iter().map(|region| region.norm));
    let mean_whole_norm = mean(&mut wholes.iter().copied());
    regions.sort_by(|a, b| b.norm.total_cmp(&a.norm));
    regions.truncate(args.most);
    let bottom = words.split_off(words.len().saturating_sub(args.most).max(words.len().min(args.most)));
    words.truncate(args.most);
    let record = Record {
        top: words,
        bottom: bottom.into_iter().rev().collect(),
        salient: regions,
        mean_region_norm,
        mean_whole_norm,
    };
    ui.result(&record, || text(&record))
}

fn text(record: &Record) -> String {
    let mut rows = vec![["longest", "", "shortest", ""].map(str::to_owned).to_vec()];
    for i in 0..record.top.len().max(record.bottom.len()) {
        let cells = |words: &[Word]| {
            words.get(i).map_or([String::new(), String::new()], |w| [w.word.clone(), format!("{:.2}", w.norm)])
        };
        rows.push([cells(&record.top), cells(&record.bottom)].concat());
    }
    let mut regions = vec![["region", "box", "length"].map(str::to_owned).to_vec()];
    for Region { image, region: b, norm } in record.salient.iter().take(10) {
        regions.push(vec![
            image.clone(),
            format!("{:.0} {:.0} {:.0} {:.0}", b.x1, b.y1, b.x2, b.y2),
            format!("{norm:.2}"),
        ]);
    }
    format!(
        "{}\nmean length of region vectors {:.2}, of whole photos {:.2}\n{}",
        table(&rows),
        record.mean_region_norm,
        record.mean_whole_norm,
        table(&regions)
    )
}
