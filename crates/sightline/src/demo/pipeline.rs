//! The whole path on generated scenes, step by step.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Context as _;
use sightline_data::{BoxXyxy, Dataset, FeatureStore, Split, StoreWriter, VectorMode};
use sightline_metrics::bleu::BleuCounts;
use sightline_metrics::retrieval::RetrievalReport;
use sightline_model::Device;
use sightline_model::alignment::{AlignmentSettings, Objective, RegionEncoder, Score};
use sightline_model::caption::{BeamSettings, CaptionSettings};
use sightline_model::conv::ConvSettings;
use sightline_train::align::{self, AlignData};
use sightline_train::aligner::Aligner;
use sightline_train::caption::{self, CaptionData, Captioner, Decoding};
use sightline_train::checkpoint::Kind;
use sightline_train::corpus::Corpus;
use sightline_train::optimizer::{OptimizerKind, OptimizerSettings, Schedule};
use sightline_train::phrases::Phrases;
use sightline_train::pointing::AttachSettings;
use sightline_train::run::RunFolder;
use sightline_train::settings::{AlignSettings, CaptionRunSettings, resolve_over};
use sightline_train::{describe, evaluate};
use sightline_vision::backbone::{Context, Pixels};
use sightline_vision::extract::{ExtractOptions, extract};
use sightline_vision::regions::SelectiveSearch;

use super::described::{self, Described};
use super::grounding::{self, Attached, Grounding};
use super::scenes::{self, Scene};
use crate::commands::eval;
use crate::commands::training::train;
use crate::interrupt;
use crate::panels::Panels;
use crate::report::{self, Report, Row, RowSource, Table};
use crate::ui::{Ui, count};

/// How much is drawn and trained.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Seed of everything.
    pub seed: u64,
    /// Scenes to train on.
    pub train: usize,
    /// Scenes that choose the best pass.
    pub val: usize,
    /// Scenes that the numbers come from.
    pub test: usize,
    /// Passes of the alignment model.
    pub align_epochs: u64,
    /// Passes of each caption model.
    pub caption_epochs: u64,
    /// Photos on the page.
    pub panels: usize,
    /// `key=value` over the alignment model's settings.
    pub assignments: Vec<String>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            seed: 1,
            train: 1000,
            val: 100,
            test: 200,
            align_epochs: 9,
            caption_epochs: 4,
            panels: 24,
            assignments: Vec::new(),
        }
    }
}

/// β of equation 12: what two neighbouring words gain on the same region.
const AFFINITY: f32 = 0.05;

/// What came out.
#[derive(Debug, Clone)]
pub struct Demo {
    /// Wall time of everything but the page.
    pub seconds: f64,
    /// On the test scenes.
    pub retrieval: RetrievalReport,
    /// BLEU-1 to 4 of captions of the test scenes.
    pub bleu: [f64; 4],
    /// Nouns of the test scenes.
    pub grounding: Grounding,
    /// Captions of the test scenes' objects.
    pub described: Described,
    /// The page.
    pub report: Report,
}

/// Draws, trains, evaluates.
pub(super) fn run(plan: &Plan, ui: &Ui) -> anyhow::Result<Demo> {
    let settings = resolve_over(&align_settings(plan), None, &plan.assignments)?;
    let started = Instant::now();
    let folder = tempfile::Builder::new().prefix("sightline-demo-").tempdir().context("cannot make a folder")?;
    let work = folder.path();
    let device = Device::flex();
    let stop = interrupt::flag();

    let scenes = scenes::generate(plan.seed, plan.train + plan.val + plan.test);
    scenes::write_pictures(&scenes, &work.join("scenes"))?;
    let splits = [(Split::Train, plan.train), (Split::Val, plan.val), (Split::Test, plan.test)];
    let dataset = scenes::to_dataset(&scenes, work.join("scenes"), &splits);
    ui.say(format_args!("{} drawn", count(scenes.len(), "scene")));

    let store = pixel_store(&dataset, &work.join("pixels.features"), ui, stop)?;
    let elapsed = started.elapsed().as_secs_f64();
    ui.say(format_args!("{} a scene by Selective Search, as pixels, after {elapsed:.0} s", mean_regions(&store)));

    let run = RunFolder::create(&work.join("align"), &settings)?;
    finished(&train(ui, stop, |control| {
        align::train(AlignData::new(&dataset, &store), &settings, &run, false, &device, control)
    })?)?;
    let aligner = Aligner::new(RunFolder::model(run.path(), &[Kind::Alignment])?, &device)?;

    // Selective Search's order says little of what is an object.
    let settings = AttachSettings { affinity: AFFINITY, prior: 0.0 };
    let phrases = Phrases::decode(&aligner, &dataset, &store, None, &[Split::Train, Split::Val], settings, |_, _| {})?;
    ui.say(format_args!("{} decoded after {:.0} s", count(phrases.len(), "phrase"), started.elapsed().as_secs_f64()));
    let vectors = aligner.encode_store(&store, &work.join("vectors.features"))?;

    let settings = caption_settings(plan);
    let captioner = |name: &str, phrases: Option<&Phrases>, kind: Kind| -> anyhow::Result<Captioner> {
        let run = RunFolder::create(&work.join(name), &settings)?;
        finished(&train(ui, stop, |control| {
            let data = CaptionData { dataset: &dataset, store: &vectors, phrases };
            caption::train(data, None, &settings, &run, false, control)
        })?)?;
        Ok(Captioner::new(RunFolder::model(run.path(), &[kind])?)?)
    };
    let whole = captioner("caption", None, Kind::Caption)?;
    let regions = captioner("regions", Some(&phrases), Kind::RegionCaption)?;

    let corpus = Corpus::new(&dataset, Split::Test, &store, &aligner.vocabulary)?;
    let scores = evaluate::scores(&aligner, &corpus);
    let retrieval = scores.report();
    let grounding = ground(&aligner, &corpus, &scenes[plan.train + plan.val..], AFFINITY);
    let caption_corpus = Corpus::new(&dataset, Split::Test, &vectors, &whole.vocabulary)?;
    let bleu = bleu_of(&whole, &caption_corpus);
    let test = scenes[plan.train + plan.val..].iter().zip(dataset.split(Split::Test));
    let test = test.map(|(scene, image)| (scene, image.path.as_str()));
    let described = described::evaluate(&regions, &whole, &vectors, test, BeamSettings::default());
    let seconds = started.elapsed().as_secs_f64();

    let panels = Panels {
        aligner: &aligner,
        captioner: Some((&whole, &vectors)),
        region_captioner: Some((&regions, &vectors)),
        beam: BeamSettings { n_best: 3, ..BeamSettings::default() },
        regions: 6,
    };
    let n = corpus.photos.len();
    let chosen: Vec<usize> = (0..plan.panels.min(n)).map(|i| i * n / plan.panels.min(n)).collect();
    let report = Report {
        version: report::VERSION,
        title: "Sightline on generated scenes".to_owned(),
        subtitle: format!(
            "Learned in {seconds:.0} s from {} and their sentences, without one box: which words talk about which region",
            count(plan.train, "drawing")
        ),
        command: Some(format!("sightline demo --seed {}", plan.seed)),
        threshold: report::DEFAULT_THRESHOLD,
        tables: vec![
            eval::retrieval_table("scenes", &retrieval),
            grounding_table(&grounding),
            bleu_table(&format!("Captions of {}", count(plan.test, "scene")), &[("Sightline, beam 7", bleu)]),
            bleu_table(
                &format!("Captions of {}", count(described.objects, "object")),
                &[("Sightline, regions", described.region_level), ("Sightline, whole photos", described.full_frame)],
            ),
        ],
        photos: panels.make(&corpus, &scores, &scores.best_sentences(), &chosen)?,
    };
    Ok(Demo { seconds, retrieval, bleu, grounding, described, report })
}

fn finished(outcome: &sightline_train::Outcome) -> anyhow::Result<()> {
    anyhow::ensure!(!outcome.stopped, "stopped");
    Ok(())
}

/// Boxes by Selective Search, the pixels of each as its vector.
fn pixel_store(dataset: &Dataset, path: &Path, ui: &Ui, stop: &AtomicBool) -> anyhow::Result<FeatureStore> {
    let backbone = Pixels::default();
    let proposer = SelectiveSearch::default();
    let options = ExtractOptions { mode: VectorMode::Crop, context: Context::None, ..ExtractOptions::default() };
    let writer = StoreWriter::create_or_resume(path, &options.store_settings(&backbone, &proposer))?;
    let photos: Vec<(String, std::path::PathBuf)> =
        dataset.images.iter().map(|image| (image.path.clone(), dataset.root.join(&image.path))).collect();
    let bar = ui.bar(photos.len() as u64, "scenes");
    let progress = |p: sightline_vision::extract::Progress| bar.set_position(p.done as u64);
    let report = extract(&photos, &backbone, &proposer, &options, &writer, &progress, stop)?;
    bar.finish_and_clear();
    anyhow::ensure!(!report.cancelled, "stopped");
    if let Some((key, reason)) = report.failed.first() {
        anyhow::bail!("cannot read the scene {key} back: {reason}");
    }
    let order: Vec<String> = photos.into_iter().map(|(key, _)| key).collect();
    writer.finish(&order)?;
    Ok(FeatureStore::open(path)?)
}

fn mean_regions(store: &FeatureStore) -> String {
    let regions: usize = store.iter().map(|photo| photo.n_regions()).sum();
    format!("{:.1} regions", regions as f64 / store.len().max(1) as f64)
}

fn align_settings(plan: &Plan) -> AlignSettings {
    AlignSettings {
        seed: plan.seed,
        epochs: plan.align_epochs,
        batch: 50,
        min_count: 5,
        model: AlignmentSettings {
            dim: 96,
            hidden: 96,
            word_dim: 64,
            dropout: 0.0,
            encoder: RegionEncoder::Conv,
            conv: ConvSettings::default(),
            unit_vectors: true,
            score: Score::MeanOfMax,
            objective: Objective::Contrastive,
            logit_scale: 10.0,
            ..AlignmentSettings::default()
        },
        optimizer: OptimizerSettings {
            kind: OptimizerKind::Adam,
            learning_rate: 2e-3,
            schedule: Schedule::Cosine,
            warmup_steps: 50,
            ..OptimizerSettings::default()
        },
        ..AlignSettings::default()
    }
}

fn caption_settings(plan: &Plan) -> CaptionRunSettings {
    CaptionRunSettings {
        seed: plan.seed,
        epochs: plan.caption_epochs,
        model: CaptionSettings { hidden: 160, word_dim: 96, dropout: 0.1, ..CaptionSettings::default() },
        optimizer: OptimizerSettings {
            kind: OptimizerKind::Adam,
            learning_rate: 3e-3,
            schedule: Schedule::Cosine,
            ..OptimizerSettings::default()
        },
        ..CaptionRunSettings::default()
    }
}

/// Attaches every word of the test scenes' sentences to its best region and compares with the truth.
fn ground(aligner: &Aligner, corpus: &Corpus<'_>, test: &[Scene], affinity: f32) -> Grounding {
    let positions: Vec<usize> = corpus.photos.iter().map(|photo| photo.position).collect();
    let regions = aligner.regions(corpus.store, &positions);
    let boxes: Vec<Vec<BoxXyxy>> = positions.iter().map(|&p| corpus.store.get(p).boxes().collect()).collect();
    let attached = corpus.photos.iter().zip(test).enumerate().flat_map(|(photo, (of_photo, scene))| {
        let words = aligner.words(&of_photo.sentences);
        let (regions, boxes) = (&regions, &boxes[photo]);
        (0..scene.sentences.len()).map(move |sentence| Attached {
            scene,
            sentence,
            regions: grounding::attach(regions, photo, &words, sentence, affinity),
            known: scene.sentences[sentence].words.iter().map(|w| aligner.vocabulary.get(&w.word).is_some()).collect(),
            boxes,
        })
    });
    grounding::evaluate(attached)
}

fn bleu_of(captioner: &Captioner, corpus: &Corpus<'_>) -> [f64; 4] {
    let mut counts = BleuCounts::default();
    let captions = describe::captions(captioner, corpus, Decoding::Beam(BeamSettings::default()));
    for (photo, captions) in corpus.photos.iter().zip(captions) {
        let sentences = &corpus.dataset.images[photo.image].sentences;
        let references: Vec<String> = sentences.iter().map(|s| s.tokens.join(" ")).collect();
        counts.merge(&BleuCounts::of_text(captions.first().map_or("", |c| &c.text), &references));
    }
    counts.scores()
}

fn grounding_table(grounding: &Grounding) -> Table {
    let percent = |x: f64| format!("{:.1}", 100.0 * x);
    let row = |source, name: &str, accuracy: f64| Row { source, cells: vec![name.to_owned(), percent(accuracy)] };
    Table {
        caption: format!("Nouns on their object, {}", count(grounding.covered_nouns, "noun")),
        groups: Vec::new(),
        columns: vec!["".to_owned(), "accuracy %".to_owned()],
        rows: vec![
            row(RowSource::Ours, "Sightline", grounding.accuracy),
            row(RowSource::Chance, "a region at random", grounding.chance),
        ],
        note: Some(format!(
            "Of {}, {} % name an object that a region covers with an IoU of at least 0.5; only those count here.",
            count(grounding.nouns, "noun"),
            percent(grounding.covered)
        )),
    }
}

fn bleu_table(caption: &str, models: &[(&str, [f64; 4])]) -> Table {
    let row = |(name, bleu): &(&str, [f64; 4])| {
        let mut cells = vec![(*name).to_owned()];
        cells.extend(bleu.map(|b| format!("{:.1}", 100.0 * b)));
        Row { source: RowSource::Ours, cells }
    };
    Table {
        caption: caption.to_owned(),
        groups: Vec::new(),
        columns: ["", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"].map(str::to_owned).into(),
        rows: models.iter().map(row).collect(),
        note: None,
    }
}
