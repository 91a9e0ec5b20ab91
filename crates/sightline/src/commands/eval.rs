//! `eval retrieval`; the other evaluations have files of their own.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use sightline_data::parses::Parses;
use sightline_data::{FeatureStore, Split};
use sightline_metrics::retrieval::RetrievalReport;
use sightline_model::caption::BeamSettings;
use sightline_train::aligner::Aligner;
use sightline_train::bank::{self, Banked};
use sightline_train::caption::Captioner;
use sightline_train::checkpoint::Kind;
use sightline_train::corpus::Corpus;
use sightline_train::evaluate::{self, Scores};
use sightline_train::reread::{Near, USUAL_WEIGHT};

use super::eval_split::{Common, Data, same_photos, sharpness, tell_gaps};
use super::{eval_ablation, eval_boxes, eval_caption, eval_captions, eval_grounding, eval_regions, eval_words};
use crate::models::{self, Reads};
use crate::panels::Panels;
use crate::places;
use crate::report::{self, DEFAULT_THRESHOLD, Report, RetrievalRow, RowSource, Table};
use crate::sources::ParsesFile;
use crate::ui::{Ui, Usage, count, table};

/// Measure a model on a split it was not trained on
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "each command's help stands at its arguments")]
pub enum Command {
    Retrieval(RetrievalArgs),
    Ablation(eval_ablation::Args),
    Boxes(eval_boxes::Args),
    Caption(eval_caption::Args),
    Captions(eval_captions::Args),
    Grounding(eval_grounding::Args),
    Regions(eval_regions::Args),
    Words(eval_words::Args),
}

/// Rank sentences for photos and photos for sentences (the paper's table 1)
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sightline eval retrieval --model runs/align --dataset flickr8k.json --features flickr8k.features --split val
  sightline eval retrieval --model runs/tuned --model runs/align --dataset d.json --features tuned.features \\
      --more-features f.features --rerank 3
  sightline eval retrieval --model runs/align --dataset d.json --features f.features --bank 2000
  sightline eval retrieval --model runs/align --dataset d.json --features f.features --rerank 3 --reader runs/reader
  sightline eval retrieval --model runs/align --dataset d.json --features f.features --html report.html \\
      --caption-model runs/caption --region-model runs/regions")]
pub struct RetrievalArgs {
    /// A run of `train align`; several are an ensemble, whose scores are added
    #[arg(long, value_name = "RUN", required = true)]
    model: Vec<PathBuf>,
    #[command(flatten)]
    common: Common,
    /// A store for models of an ensemble, and readers, that do not read the vectors of --features
    #[arg(long, value_name = "FEATURES")]
    more_features: Vec<PathBuf>,
    #[command(flatten)]
    parses: ParsesFile,
    /// Measure scores against so many training photos and their sentences (2000 is usual), so that no photo and no sentence
    /// is found just because it is near everything; each query is still answered alone
    #[arg(long, default_value_t = 0, value_name = "PHOTOS")]
    bank: usize,
    /// Re-rank by reciprocal neighbours, with this sharpness (2 to 4 is usual); it needs all queries at once
    #[arg(long, value_name = "SHARPNESS", value_parser = sharpness, allow_negative_numbers = true)]
    rerank: Option<f64>,
    /// With --rerank: so many turns of Sinkhorn's balance in place of reciprocal neighbours (10 is usual); it supposes that
    /// every photo is meant as often as the others
    #[arg(long, value_name = "TURNS", requires = "rerank")]
    balance: Option<usize>,
    /// With --rerank: a run of `train caption` that reads the nearest pairs again and counts by how likely it is to say the
    /// sentence of the photo; several are added
    #[arg(long, value_name = "RUN", requires = "rerank")]
    reader: Vec<PathBuf>,
    /// Photos a sentence that readers read, and as many more sentences a photo as there are more sentences than photos
    #[arg(long, default_value_t = 20, value_name = "PHOTOS", requires = "reader")]
    near: usize,
    /// What a reader's natural logarithm is worth beside a score whose deviation is the sharpness
    #[arg(long, default_value_t = USUAL_WEIGHT, value_name = "FACTOR", requires = "reader", allow_negative_numbers = true)]
    reader_weight: f64,
    /// Write a page with photos, words and their regions, and its record (.json) beside it
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Photos on the page, evenly spread over the split
    #[arg(long, default_value_t = 24, requires = "html")]
    photos: usize,
    /// Words that score less are greyed on the page
    #[arg(long, default_value_t = DEFAULT_THRESHOLD, allow_negative_numbers = true, requires = "html")]
    threshold: f32,
    /// Let this model describe the photos on the page
    #[arg(long, value_name = "RUN", requires = "html")]
    caption_model: Option<PathBuf>,
    /// Let this model describe the regions on the page
    #[arg(long, value_name = "RUN", requires = "html")]
    region_model: Option<PathBuf>,
}

/// Runs one of them.
pub fn run(command: Command, ui: &Ui) -> anyhow::Result<()> {
    match command {
        Command::Retrieval(args) => retrieval(&args, ui),
        Command::Ablation(args) => eval_ablation::run(&args, ui),
        Command::Boxes(args) => eval_boxes::run(&args, ui),
        Command::Caption(args) => eval_caption::run(&args, ui),
        Command::Captions(args) => eval_captions::run(&args, ui),
        Command::Grounding(args) => eval_grounding::run(&args, ui),
        Command::Regions(args) => eval_regions::run(&args, ui),
        Command::Words(args) => eval_words::run(&args, ui),
    }
}

fn retrieval(args: &RetrievalArgs, ui: &Ui) -> anyhow::Result<()> {
    if args.near == 0 {
        return Err(Usage("--near 0: expected 1 or more".to_owned()).into());
    }
    if !(args.reader_weight >= 0.0 && args.reader_weight.is_finite()) {
        return Err(Usage(format!("--reader-weight {}: expected a number of 0 or more", args.reader_weight)).into());
    }
    if !args.threshold.is_finite() {
        return Err(Usage(format!("--threshold {}: expected a number", args.threshold)).into());
    }
    if let Some(html) = &args.html {
        check_page(html, args)?;
    }
    let data = args.common.open(ui)?;
    let more = args.more_features.iter().map(FeatureStore::open).collect::<Result<Vec<_>, _>>()?;
    let open = |run: &PathBuf| -> anyhow::Result<Aligner> {
        Ok(Aligner::new(models::checkpoint(run, &[Kind::Alignment])?, &data.device)?)
    };
    let splits = if args.bank == 0 { vec![data.split] } else { vec![data.split, Split::Train] };
    let parses = args.parses.read(&data.dataset, &splits, ui)?;
    let corpus_of = |aligner: &Aligner, store| aligner.corpus(&data.dataset, data.split, store, parses.as_ref());
    let (first, others) = args.model.split_first().expect("clap asks for one run at least");
    let aligner = open(first)?;
    let corpus = corpus_of(&aligner, &data.store)?;
    tell_gaps(&corpus, ui);
    let of_others = others.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    let open_reader = |run: &PathBuf| anyhow::Ok(Captioner::new(models::checkpoint(run, &[Kind::Caption])?)?);
    let readers = args.reader.iter().map(open_reader).collect::<anyhow::Result<Vec<_>>>()?;
    let named: Vec<(&Path, &dyn Reads)> = (others.iter().zip(&of_others))
        .map(|(run, aligner)| (run.as_path(), aligner as &dyn Reads))
        .chain(args.reader.iter().zip(&readers).map(|(run, reader)| (run.as_path(), reader as &dyn Reads)))
        .collect();
    let stores = models::stores_of(&named, &data.store, &more)?;
    let mut models = vec![(&aligner, &data.store)];
    models.extend(of_others.iter().zip(stores.iter().copied()));
    let mut corpora = vec![corpus];
    for (other, store) in &models[1..] {
        let own = corpus_of(other, store)?;
        same_photos(&corpora[0], &own)?;
        corpora.push(own);
    }
    let banks = banks(args.bank, &data, &models, parses.as_ref())?;
    let (shown, mut scores) = scores_of(&models, &corpora, banks.as_deref());
    let corpus = corpora.swap_remove(0);
    if let Some(sharpness) = args.rerank {
        scores = scores.sharpened(sharpness);
        if !readers.is_empty() {
            scores = read_again(args, &readers, &stores[others.len()..], &corpus, data.split, &scores)?;
        }
        scores = args.balance.map_or_else(|| scores.reciprocal(), |turns| scores.balanced(turns));
    }
    let report = scores.report();
    if let Some(html) = &args.html {
        let page = page(args, &data, &aligner, &corpus, (&shown, &scores.best_sentences()), &report)?;
        report::write(html, &page)?;
        report::write_json(&html.with_extension("json"), &page)?;
        ui.say(format_args!("page written to {}", html.display()));
    }
    ui.result(&report, || retrieval_text(&report))
}

/// Whether a page and its record may be written: a record of a page lies there, or nothing.
fn check_page(html: &Path, args: &RetrievalArgs) -> anyhow::Result<()> {
    let record = html.with_extension("json");
    let models = args.model.iter().chain(&args.reader).chain(&args.caption_model).chain(&args.region_model);
    let read = args.common.inputs(models, &args.more_features);
    places::check(read.chain(args.parses.path().cloned()), [html, &record])?;
    if record.exists() {
        report::read_json(&record).with_context(|| {
            format!("the page's record would be written over {}; name another page", record.display())
        })?;
    }
    Ok(())
}

/// The scores of all models together, as they are and less what a bank says of photos and sentences.
fn scores_of(
    models: &[(&Aligner, &FeatureStore)],
    corpora: &[Corpus<'_>],
    banks: Option<&[Corpus<'_>]>,
) -> (Scores, Scores) {
    let members = models.iter().zip(corpora).map(|((model, _), corpus)| (*model, corpus));
    if let Some(banks) = banks {
        let mut members: Vec<Banked> =
            members.zip(banks).map(|((model, corpus), bank)| Banked::new(model, corpus, bank)).collect();
        let together = if members.len() == 1 { members.swap_remove(0) } else { Banked::ensemble(&members) };
        let without = together.without_hubs();
        return (together.scores, without);
    }
    let mut members: Vec<Scores> = members.map(|(model, corpus)| evaluate::scores(model, corpus)).collect();
    let together = if members.len() == 1 { members.swap_remove(0) } else { Scores::ensemble(&members) };
    (together.clone(), together)
}

/// The bank as each model reads it; none where it is not wanted.
fn banks<'a>(
    photos: usize,
    data: &'a Data,
    models: &[(&Aligner, &'a FeatureStore)],
    parses: Option<&Parses>,
) -> anyhow::Result<Option<Vec<Corpus<'a>>>> {
    if photos == 0 {
        return Ok(None);
    }
    if data.split == Split::Train {
        return Err(Usage(format!("--bank {photos}: the bank is of the train split, which is what is measured")).into());
    }
    let mut banks: Vec<Corpus<'_>> = Vec::with_capacity(models.len());
    for (model, store) in models {
        let bank = bank::evenly(model.corpus(&data.dataset, Split::Train, store, parses)?, photos);
        if let Some(first) = banks.first() {
            same_photos(first, &bank)?;
        }
        banks.push(bank);
    }
    Ok(Some(banks))
}

/// The scores with what caption models say of the near pairs, each by the store that it reads.
fn read_again(
    args: &RetrievalArgs,
    readers: &[Captioner],
    stores: &[&FeatureStore],
    corpus: &Corpus<'_>,
    split: Split,
    scores: &Scores,
) -> anyhow::Result<Scores> {
    let near = Near::of(&scores.reciprocal(), args.near);
    let mut read = vec![0.0; near.len()];
    for (reader, store) in readers.iter().zip(stores) {
        let own = Corpus::new(corpus.dataset, split, store, &reader.vocabulary)?;
        same_photos(corpus, &own)?;
        read.iter_mut().zip(near.read(reader, &own)).for_each(|(sum, own)| *sum += own / readers.len() as f32);
    }
    Ok(near.add(scores, &read, args.reader_weight))
}

/// Photos, words and their regions, with the table; `found` is each photo's best sentence, and the scores to show.
fn page(
    args: &RetrievalArgs,
    data: &Data,
    aligner: &Aligner,
    corpus: &Corpus<'_>,
    (scores, found): (&Scores, &[usize]),
    report: &RetrievalReport,
) -> anyhow::Result<Report> {
    let open = |run: &Option<PathBuf>, kind: Kind| -> anyhow::Result<Option<Captioner>> {
        let Some(run) = run else { return Ok(None) };
        let captioner = Captioner::new(models::checkpoint(run, &[kind])?)?;
        captioner.check(&data.store)?;
        Ok(Some(captioner))
    };
    let captioner = open(&args.caption_model, Kind::Caption)?;
    let region_captioner = open(&args.region_model, Kind::RegionCaption)?;
    let panels = Panels {
        aligner,
        captioner: captioner.as_ref().map(|c| (c, &data.store)),
        region_captioner: region_captioner.as_ref().map(|c| (c, &data.store)),
        beam: BeamSettings { n_best: 3, ..BeamSettings::default() },
        regions: 8,
    };
    let n = corpus.photos.len();
    let chosen: Vec<usize> = (0..args.photos.min(n)).map(|i| i * n / args.photos.min(n)).collect();
    Ok(Report {
        version: report::VERSION,
        title: format!("Sightline on {}", data.dataset.name),
        subtitle: format!(
            "{} of the {} split; for each photo the sentence that the model finds, a line from every word to its region",
            count(n, "photo"),
            data.split.name()
        ),
        command: Some(std::env::args().collect::<Vec<_>>().join(" ")),
        threshold: args.threshold,
        tables: vec![retrieval_table(&data.dataset.name, report)],
        photos: panels.make(corpus, scores, found, &chosen)?,
    })
}

/// Ours beside the paper's, where the collection is the paper's.
pub fn retrieval_table(dataset: &str, report: &RetrievalReport) -> Table {
    let side = |d: &sightline_metrics::retrieval::DirectionReport| ([d.r1, d.r5, d.r10], Some(d.median_rank));
    let mut rows = vec![RetrievalRow {
        source: RowSource::Ours,
        name: "Sightline".to_owned(),
        image_to_sentence: side(&report.image_to_sentence),
        sentence_to_image: side(&report.sentence_to_image),
    }];
    if dataset.to_lowercase().contains("flickr8k") {
        rows.push(RetrievalRow::published_flickr8k());
    }
    let caption =
        format!("Retrieval among {} and {}", count(report.images, "photo"), count(report.sentences, "sentence"));
    Table::retrieval(caption, &rows)
}

/// The retrieval table for a terminal.
pub fn retrieval_text(report: &RetrievalReport) -> String {
    let mut rows = vec![["", "R@1", "R@5", "R@10", "median rank"].map(str::to_owned).to_vec()];
    for (name, d) in [("image → sentence", &report.image_to_sentence), ("sentence → image", &report.sentence_to_image)]
    {
        let mut row = vec![name.to_owned()];
        row.extend([d.r1, d.r5, d.r10].map(|r| format!("{r:.1}")));
        row.push(format!("{}", d.median_rank));
        rows.push(row);
    }
    format!(
        "{}, {}\n{}rsum {:.1}",
        count(report.images, "photo"),
        count(report.sentences, "sentence"),
        table(&rows),
        report.rsum
    )
}
