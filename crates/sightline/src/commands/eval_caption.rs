//! `eval caption`: a caption model against people's sentences on a split (the paper's table 2).

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;
use sightline_data::{FeatureStore, Split};
use sightline_metrics::caption::{self as metrics, CaptionReport};
use sightline_metrics::diversity::{DiversityCounts, DiversityReport, TrainingCaptions};
use sightline_metrics::meteor::{Meteor, Task};
use sightline_model::caption::BeamSettings;
use sightline_train::aligner::Aligner;
use sightline_train::caption::{Caption, Captioner, Decoding};
use sightline_train::checkpoint::Kind;
use sightline_train::committee::{Candidates, Judge, Neighbours, Speaker, USUAL_CONSENSUS_WEIGHT, USUAL_FIT_WEIGHT};
use sightline_train::corpus::Corpus;
use sightline_train::describe;

use super::caption::{BeamArgs, PAPER_BEAM, check_chosen, check_fit};
use super::eval_captions;
use super::eval_split::{Common, Data, same_photos, tell_gaps};
use crate::models::{self, Reads};
use crate::places;
use crate::ui::{Ui, Usage, count, table};

/// Compare a model's captions with people's (the paper's table 2), by coco-caption's metrics, in percent
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sightline eval caption --model runs/caption --dataset flickr8k.json --features flickr8k.features --split val
  sightline eval caption --model runs/caption --dataset d.json --features f.features --nearest --per-image scores.csv
  sightline eval caption --model runs/caption --dataset d.json --features f.features --beam 15 --fit-model runs/align
  sightline eval caption --model runs/cider --model runs/caption --model runs/tuned-caption --dataset d.json \\
      --features f.features --more-features tuned.features --beam 15 --fit-model runs/align --consensus 100")]
pub struct Args {
    /// A run of `train caption`; several are a committee: each proposes sentences, and how likely one is, is their mean
    #[arg(long, value_name = "RUN", required = true)]
    model: Vec<PathBuf>,
    #[command(flatten)]
    common: Common,
    /// A store for models that do not read the vectors of --features
    #[arg(long, value_name = "FEATURES")]
    more_features: Vec<PathBuf>,
    #[command(flatten)]
    beam: BeamArgs,
    /// An alignment model that has a say in which sentence is best, of several the mean; unless given, the one of --model
    /// where that is a pack
    #[arg(long, value_name = "RUN")]
    fit_model: Vec<PathBuf>,
    /// Its say: this times its score is added to the log probability a word; 0 leaves the choice to the likelihood
    /// [default: 3]
    #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
    fit: Option<f32>,
    /// Let people's sentences have a say too: so many of the training split, those that fit the photo best by the
    /// alignment models
    #[arg(long, value_name = "SENTENCES", default_value_t = 0)]
    consensus: usize,
    /// Their say: this times the mean CIDEr-D of a sentence with them (0 to 10) is added to the log probability a word
    #[arg(long, value_name = "WEIGHT", default_value_t = USUAL_CONSENSUS_WEIGHT, requires = "consensus")]
    consensus_weight: f64,
    /// Score the paper's baseline too: the sentence of the nearest training photo
    #[arg(long)]
    nearest: bool,
    /// Write every photo's captions as JSON, one record a line
    #[arg(long, value_name = "FILE")]
    captions: Option<PathBuf>,
    /// Write every photo's scores as CSV
    #[arg(long, value_name = "FILE")]
    per_image: Option<PathBuf>,
}

/// What came out.
#[derive(Debug, Serialize)]
struct Record {
    #[serde(flatten)]
    report: CaptionReport,
    images: usize,
    /// A token of people's sentences, ENDs included; of the first model where there are several.
    perplexity: f64,
    diversity: DiversityReport,
    /// How many captions have 0, 1, 2 … words.
    lengths: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nearest: Option<CaptionReport>,
}

/// Describes, scores, prints.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let beam = args.beam.settings(PAPER_BEAM)?;
    let read = args.common.inputs(args.model.iter().chain(&args.fit_model), &args.more_features);
    places::check(read, args.captions.iter().chain(&args.per_image))?;
    let data = args.common.open(ui)?;
    let more = args.more_features.iter().map(FeatureStore::open).collect::<Result<Vec<_>, _>>()?;
    let open = |run: &PathBuf| anyhow::Ok(Captioner::new(models::checkpoint(run, &[Kind::Caption])?)?);
    let captioners = args.model.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    let (fit_runs, aligners) = fit_models(args, &data)?;
    let named: Vec<(&Path, &dyn Reads)> = (args.model.iter().zip(&captioners))
        .map(|(run, captioner)| (run.as_path(), captioner as &dyn Reads))
        .chain(fit_runs.iter().zip(&aligners).map(|(run, aligner)| (run.as_path(), aligner as &dyn Reads)))
        .collect();
    let stores = models::stores_of(&named, &data.store, &more)?;
    let corpora = (captioners.iter().zip(&stores))
        .map(|(captioner, store)| Corpus::new(&data.dataset, data.split, store, &captioner.vocabulary))
        .collect::<Result<Vec<_>, _>>()?;
    let (captioner, corpus) = (&captioners[0], &corpora[0]);
    tell_gaps(corpus, ui);
    for (run, other) in args.model.iter().zip(&captioners) {
        models::same_words(&args.model[0], captioner, run, other)?;
    }
    corpora.iter().try_for_each(|own| same_photos(corpus, own))?;
    let mut judges = Vec::new();
    for (aligner, store) in aligners.iter().zip(&stores[captioners.len()..]) {
        let own = aligner.corpus(&data.dataset, data.split, store, None)?;
        same_photos(corpus, &own)?;
        judges.push(Judge::new(aligner, &own));
    }
    let captions = if captioners.len() == 1 && judges.is_empty() {
        describe::captions(captioner, corpus, Decoding::Beam(BeamSettings { n_best: 1, ..beam }))
    } else {
        let speaker = |(captioner, corpus)| Speaker { captioner, corpus };
        let speakers: Vec<Speaker<'_>> = captioners.iter().zip(&corpora).map(speaker).collect();
        let mut candidates = Candidates::propose(&speakers, beam);
        candidates.fit(&judges, args.fit.unwrap_or(USUAL_FIT_WEIGHT).into());
        if args.consensus > 0 {
            let neighbours = Neighbours::find(&judges, &data.dataset, args.consensus);
            candidates.agree(&neighbours, args.consensus_weight);
        }
        candidates.ranked()
    };
    if let Some(path) = &args.captions {
        write_captions(path, corpus, &captions)?;
    }
    let hypotheses: Vec<&str> = captions.iter().map(|c| c.first().map_or("", |best| best.text.as_str())).collect();
    let references = references(corpus);
    let meteor = eval_captions::meteor(None, Task::Rank, ui)?;
    let settings = metrics::Settings { meteor: Some(&meteor), ..metrics::Settings::default() };
    let found = metrics::evaluate(&hypotheses, &references, &settings)?;
    if let Some(path) = &args.per_image {
        let names: Vec<&str> = corpus.photos.iter().map(|photo| corpus.key(photo)).collect();
        let csv = eval_captions::per_image(&names, &hypotheses, &found, Meteor::is_complete(&meteor));
        sightline_data::write::atomically(path, |file| std::io::Write::write_all(file, csv.as_bytes()))?;
    }
    let nearest = match args.nearest {
        false => None,
        true => {
            let training = Corpus::new(&data.dataset, Split::Train, stores[0], &captioner.vocabulary)?;
            let nearest = describe::nearest_captions(&training, corpus);
            Some(metrics::evaluate(&nearest, &references, &settings)?.report)
        }
    };
    let record = Record {
        report: found.report,
        images: captions.len(),
        perplexity: describe::perplexity(captioner, corpus),
        diversity: diversity(&hypotheses, &data),
        lengths: lengths(&hypotheses),
        nearest,
    };
    ui.result(&record, || text(&record, beam.beam, captioners.len()))
}

/// The alignment models that choose, and their runs.
fn fit_models(args: &Args, data: &Data) -> anyhow::Result<(Vec<PathBuf>, Vec<Aligner>)> {
    let weight = args.fit.unwrap_or(USUAL_FIT_WEIGHT);
    check_fit(weight)?;
    if !(args.consensus_weight >= 0.0 && args.consensus_weight.is_finite()) {
        let reason = format!("--consensus-weight {}: expected a number of 0 or more", args.consensus_weight);
        return Err(Usage(reason).into());
    }
    let mut runs = args.fit_model.clone();
    if runs.is_empty() {
        runs.extend(args.model.iter().filter(|model| models::is_pack(model)).cloned());
    }
    if args.consensus > 0 {
        if runs.is_empty() {
            return Err(
                Usage("--consensus: name a run of `train align` with --fit-model to find sentences by".into()).into()
            );
        }
        if data.split == Split::Train {
            let reason = "--consensus: on the training split a photo's own sentences would be among those asked; evaluate \
                          another";
            return Err(Usage(reason.into()).into());
        }
        anyhow::ensure!(
            data.dataset.split(Split::Train).next().is_some(),
            "{} has no training split to take sentences from; leave --consensus out",
            data.dataset.name
        );
    } else if weight == 0.0 {
        runs.clear();
    } else if runs.is_empty() {
        check_chosen(args.fit)?;
    }
    let open = |run: &PathBuf| -> anyhow::Result<Aligner> {
        let aligner = Aligner::new(models::checkpoint(run, &[Kind::Alignment])?, &data.device)?;
        aligner.check_reads_words()?;
        Ok(aligner)
    };
    let aligners = runs.iter().map(open).collect::<anyhow::Result<_>>()?;
    Ok((runs, aligners))
}

fn write_captions(path: &Path, corpus: &Corpus<'_>, captions: &[Vec<Caption>]) -> anyhow::Result<()> {
    sightline_data::write::atomically(path, |file| {
        use std::io::Write as _;
        corpus.photos.iter().zip(captions).try_for_each(|(photo, captions)| {
            writeln!(file, "{}", json!({"image": corpus.key(photo), "captions": captions}))
        })
    })?;
    Ok(())
}

/// What people said of each photo, as they wrote it.
fn references<'a>(corpus: &Corpus<'a>) -> Vec<Vec<&'a str>> {
    let of_photo = |image: &'a sightline_data::Image| image.sentences.iter().map(|s| s.raw.as_str()).collect();
    corpus.photos.iter().map(|photo| of_photo(&corpus.dataset.images[photo.image])).collect()
}

/// How varied the captions are, beside the tokens of the training sentences.
fn diversity(hypotheses: &[&str], data: &Data) -> DiversityReport {
    let sentences = data.dataset.split(Split::Train).flat_map(|image| &image.sentences);
    let training: Vec<String> = sentences.map(|sentence| sentence.tokens.join(" ")).collect();
    let training = TrainingCaptions::of(&training);
    let mut counts = DiversityCounts::default();
    hypotheses.iter().for_each(|caption| counts.push(caption, &training));
    counts.report(&training)
}

fn lengths(hypotheses: &[&str]) -> Vec<usize> {
    let mut lengths = Vec::new();
    for caption in hypotheses {
        let words = caption.split_whitespace().count();
        if lengths.len() <= words {
            lengths.resize(words + 1, 0);
        }
        lengths[words] += 1;
    }
    lengths
}

fn text(record: &Record, beam: usize, models: usize) -> String {
    let named = record.report.named();
    let header = std::iter::once(String::new()).chain(named.iter().map(|(name, _)| (*name).to_owned())).collect();
    let row = |name: String, report: &CaptionReport| {
        std::iter::once(name).chain(report.named().iter().map(|(_, value)| format!("{:.1}", 100.0 * value))).collect()
    };
    let mut rows: Vec<Vec<String>> = vec![header, row(format!("beam {beam}"), &record.report)];
    if let Some(nearest) = &record.nearest {
        rows.push(row("nearest training photo".to_owned(), nearest));
    }
    let diversity = &record.diversity;
    let range = |end: &dyn Fn(&[usize]) -> Option<usize>| end(&record.lengths).unwrap_or(0);
    let verbatim = diversity
        .verbatim
        .map(|share| format!(", {:.0} % of the captions stand in the training sentences", 100.0 * share));
    format!(
        "{}, perplexity {:.2}{}\n{}{:.1} words a caption ({} to {}), {} different words{}",
        count(record.images, "photo"),
        record.perplexity,
        if models > 1 { " of the first model" } else { "" },
        table(&rows),
        diversity.mean_length,
        range(&|lengths| lengths.iter().position(|&n| n > 0)),
        range(&|lengths| lengths.iter().rposition(|&n| n > 0)),
        diversity.vocabulary,
        verbatim.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_was_measured() {
        let hypotheses = ["a dog runs", "a dog", "a dog runs"];
        assert_eq!(lengths(&hypotheses), [0, 0, 1, 2]);
        let report = CaptionReport { bleu1: 0.5, cider: 0.35, ..CaptionReport::default() };
        let mut counts = DiversityCounts::default();
        let training = TrainingCaptions::of(&["a dog runs"]);
        hypotheses.iter().for_each(|c| counts.push(c, &training));
        let record = Record {
            report,
            images: 3,
            perplexity: 12.345,
            diversity: counts.report(&training),
            lengths: lengths(&hypotheses),
            nearest: Some(CaptionReport::default()),
        };
        assert!(text(&record, 7, 2).starts_with("3 photos, perplexity 12.35 of the first model\n"));
        let text = text(&record, 7, 1);
        let expected = [
            "3 photos, perplexity 12.35",
            "                        bleu1  bleu2  bleu3  bleu4  rouge_l  cider",
            "beam 7                   50.0    0.0    0.0    0.0      0.0   35.0",
            "nearest training photo    0.0    0.0    0.0    0.0      0.0    0.0",
            "2.7 words a caption (2 to 3), 3 different words, 67 % of the captions stand in the training sentences",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }
}
