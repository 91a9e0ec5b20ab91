//! Tuning end to end, on a few drawn photos: backbone and alignment model learn together, a resumed run is the run that
//! never stopped, and what is saved reads the vectors that the saved backbone gives.

mod common;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use sightline_data::tokens::tokenize;
use sightline_data::{Dataset, FeatureStore, Image, PhotoFeatures, Sentence, Split, StoreWriter};
use sightline_model::Device;
use sightline_model::alignment::{AlignmentSettings, Objective, Score};
use sightline_model::backbone::BackboneSettings;
use sightline_model::random;
use sightline_model::tape::Activation;
use sightline_model::weights::{Weight, Weights};
use sightline_train::align::AlignData;
use sightline_train::aligner::Aligner;
use sightline_train::backbone::{Named, Network, Opened, open};
use sightline_train::checkpoint::{Checkpoint, Header, Kind, Progress};
use sightline_train::optimizer::{OptimizerKind, OptimizerSettings};
use sightline_train::run::RunFolder;
use sightline_train::settings::{AlignSettings, TeachingSettings, TuneRunSettings};
use sightline_train::teachers::Teacher;
use sightline_train::tune::{self, BACKBONE_FILE, Start, TuneData};
use sightline_train::{Control, Event, Outcome, align};
use sightline_vision::Photo;
use sightline_vision::backbone::{Context, VitConfig, region_vectors};
use sightline_vision::extract::ExtractOptions;
use sightline_vision::regions::{RegionProposer, SelectiveSearch};

use common::run_until;

const COLOURS: [(&str, [u8; 3]); 4] =
    [("red", [220, 30, 30]), ("green", [30, 200, 40]), ("blue", [40, 50, 220]), ("white", [240, 240, 240])];

/// A square of one colour on a ground of another, and what is said of it.
fn drawn(i: usize) -> (Photo, String) {
    let ((square, inside), (ground, outside)) = (COLOURS[i % 4], COLOURS[(i / 4 + i + 1) % 4]);
    let (left, top) = (8 + (i * 11 % 40) as u32, 8 + (i * 7 % 24) as u32);
    let cells = (0..64u32).flat_map(|y| (0..80u32).map(move |x| (x, y)));
    let is_inside = |x: u32, y: u32| (left..left + 30).contains(&x) && (top..top + 30).contains(&y);
    let pixels = cells.flat_map(|(x, y)| if is_inside(x, y) { inside } else { outside }).collect();
    (Photo::from_rgb(80, 64, pixels), format!("a {square} square on {ground}"))
}

fn dataset(folder: &Path) -> Dataset {
    let mut images = Vec::new();
    for i in 0..16 {
        let (photo, raw) = drawn(i);
        let path = format!("{i}.png");
        std::fs::write(folder.join(&path), photo.encode_png().unwrap()).unwrap();
        let split = if i < 12 { Split::Train } else { Split::Val };
        let sentences = vec![Sentence { id: i as u64, tokens: tokenize(&raw), raw }];
        images.push(Image { id: i as u64, path, split, sentences, ..Image::default() });
    }
    Dataset { name: "squares".into(), root: folder.to_owned(), images, ..Dataset::default() }
}

fn some_weights(shapes: Vec<(String, Vec<usize>)>) -> Weights {
    let weight = |(i, (name, shape)): (usize, (String, Vec<usize>))| {
        let n = shape.iter().product();
        let bound = (3.0 / shape[0] as f32).sqrt();
        let values =
            match name.ends_with("norm.weight") || name.ends_with("norm1.weight") || name.ends_with("norm2.weight") {
                true => vec![1.0; n],
                false if shape.len() == 1 => vec![0.0; n],
                false => random::uniform_values(&mut random::stream(9, i as u64), n, bound),
            };
        (name, Weight { shape, values })
    };
    shapes.into_iter().enumerate().map(weight).collect()
}

fn compact() -> (Network, Weights) {
    let settings = BackboneSettings {
        stem: 8,
        fine: 8,
        fine_blocks: 1,
        coarse: 12,
        coarse_blocks: 1,
        attention_blocks: 1,
        dim: 8,
        objects: 4,
        ..BackboneSettings::default()
    };
    let weights = some_weights(settings.shapes());
    (Network::Compact(settings), weights)
}

fn transformer() -> (Network, Weights) {
    let (dim, patch, depth) = (12, 8, 2);
    let config = VitConfig {
        dim,
        output_dim: dim,
        depth,
        heads: 2,
        hidden: 16,
        patch,
        input: 32,
        trained_grid: 4,
        registers: 0,
        distillation: false,
        epsilon: 1e-6,
        activation: Activation::Gelu,
        mean: [0.5; 3],
        std: [0.5; 3],
        project: false,
    };
    let mut shapes: Vec<(String, Vec<usize>)> =
        vec![("prefix".into(), vec![1, dim]), ("positions".into(), vec![16, dim])];
    let mut layer = |name: &str, sizes: &[usize]| {
        shapes.push((format!("{name}.weight"), sizes.to_vec()));
        shapes.push((format!("{name}.bias"), sizes[sizes.len() - 1..].to_vec()));
    };
    layer("patch_embedding", &[3 * patch * patch, dim]);
    layer("norm", &[dim]);
    for block in 0..depth {
        layer(&format!("blocks.{block}.norm1"), &[dim]);
        layer(&format!("blocks.{block}.qkv"), &[dim, 3 * dim]);
        layer(&format!("blocks.{block}.attention_out"), &[dim, dim]);
        layer(&format!("blocks.{block}.norm2"), &[dim]);
        layer(&format!("blocks.{block}.fc1"), &[dim, 16]);
        layer(&format!("blocks.{block}.fc2"), &[16, dim]);
    }
    (Network::Vit(config), some_weights(shapes))
}

/// A checkpoint of a backbone.
fn checkpoint(named: &Named, weights: &Weights, like: &Header) -> Checkpoint {
    let settings = serde_json::to_value(named).unwrap();
    let header = Header { kind: Kind::Backbone, settings, progress: Progress::default(), ..like.clone() };
    Checkpoint { header, model: weights.clone(), optimizer: Weights::new() }
}

fn header() -> Header {
    let empty = sightline_data::Vocabulary::from_sentences(std::iter::empty::<&[String]>(), 1);
    Header {
        kind: Kind::Backbone,
        settings: serde_json::Value::Null,
        vocabulary: empty,
        relations: Vec::new(),
        teachers: Vec::new(),
        phrases: None,
        photos: Vec::new(),
        features: ExtractOptions::default()
            .store_settings(&sightline_vision::backbone::Pixels::default(), &SelectiveSearch::default()),
        progress: Progress::default(),
    }
}

/// The features of all photos by a backbone.
fn extract(dataset: &Dataset, backbone: &Opened, context: Context, path: &Path) -> FeatureStore {
    let (backbone, proposer) = (backbone.backbone(), SelectiveSearch::default());
    let options = ExtractOptions { max_regions: 4, context, ..ExtractOptions::default() };
    let writer = StoreWriter::create_or_resume(path, &options.store_settings(backbone, &proposer)).unwrap();
    for image in &dataset.images {
        let photo = Photo::open(dataset.root.join(&image.path)).unwrap();
        let (width, height) = (photo.width, photo.height);
        let found = proposer.propose(&image.path, &photo, 3).unwrap();
        let boxes: Vec<_> =
            std::iter::once(photo.whole()).chain(found.iter().map(|proposal| proposal.region)).collect();
        let vectors =
            region_vectors(backbone, &[photo], std::slice::from_ref(&boxes), options.mode, context).unwrap().remove(0);
        let scores = vec![1.0; boxes.len()];
        writer.append(&PhotoFeatures { key: image.path.clone(), width, height, boxes, scores, vectors }).unwrap();
    }
    writer.finish(&[]).unwrap();
    FeatureStore::open(path).unwrap()
}

fn align_settings() -> AlignSettings {
    AlignSettings {
        epochs: 3,
        batch: 6,
        min_count: 1,
        model: AlignmentSettings {
            dim: 8,
            hidden: 8,
            word_dim: 8,
            dropout: 0.1,
            unit_vectors: true,
            geometry: true,
            whole: true,
            standardize: true,
            score: Score::MeanOfMax,
            objective: Objective::Contrastive,
            ..AlignmentSettings::default()
        },
        optimizer: OptimizerSettings { kind: OptimizerKind::Adam, learning_rate: 1e-2, ..OptimizerSettings::default() },
        ..AlignSettings::default()
    }
}

fn tune_settings() -> TuneRunSettings {
    let defaults = TuneRunSettings::default();
    let optimizer = OptimizerSettings { learning_rate: 1e-2, warmup_steps: 2, ..defaults.optimizer };
    TuneRunSettings {
        epochs: 2,
        batch: 6,
        captions_per_photo: 1,
        backbone_rate: 0.5,
        average: 0.5,
        optimizer,
        ..defaults
    }
}

/// A small collection, a backbone, its features, and an alignment model trained on them.
struct Trained {
    folder: tempfile::TempDir,
    dataset: Dataset,
    store: FeatureStore,
    named: Named,
    weights: Weights,
}

impl Trained {
    fn new(network: Network, weights: Weights, context: Context) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path());
        let named = Named { name: "drawn".into(), network };
        let backbone = open(checkpoint(&named, &weights, &header()), &Device::flex()).unwrap();
        let store = extract(&dataset, &backbone, context, &folder.path().join("first.features"));
        let run = RunFolder::create(&folder.path().join("align"), &align_settings()).unwrap();
        let mut control = Control { on_event: &mut |_| {}, stop: &AtomicBool::new(false) };
        let data = AlignData::new(&dataset, &store);
        align::train(data, &align_settings(), &run, false, &Device::flex(), &mut control).unwrap();
        Self { folder, dataset, store, named, weights }
    }

    fn data(&self) -> TuneData<'_> {
        TuneData {
            dataset: &self.dataset,
            store: &self.store,
            alignment: RunFolder::model(&self.folder.path().join("align"), &[Kind::Alignment]).unwrap(),
            backbone: Start::of_checkpoint(checkpoint(&self.named, &self.weights, &header())).unwrap(),
            teachers: &[],
        }
    }

    /// Tunes in a folder, and stops after some steps where asked to.
    fn tune(
        &self,
        settings: &TuneRunSettings,
        name: &str,
        resume: bool,
        stop_at: u64,
    ) -> (Outcome, RunFolder, Vec<f64>) {
        self.tune_taught(&[], settings, name, resume, stop_at)
    }

    /// The same with teachers.
    fn tune_taught(
        &self,
        teachers: &[Teacher<'_>],
        settings: &TuneRunSettings,
        name: &str,
        resume: bool,
        stop_at: u64,
    ) -> (Outcome, RunFolder, Vec<f64>) {
        let folder = self.folder.path().join(name);
        let by = |run: &RunFolder, control: &mut Control<'_>| {
            tune::train(TuneData { teachers, ..self.data() }, settings, run, resume, control).unwrap()
        };
        let ((outcome, unread), run, losses) = run_until(&folder, settings, resume, stop_at, by);
        assert!(unread.is_empty());
        (outcome, run, losses)
    }
}

#[test]
fn both_learn_and_what_is_saved_fits_together() {
    for ((network, weights), context) in [(compact(), Context::Class), (transformer(), Context::None)] {
        let trained = Trained::new(network, weights, context);
        let calm = TuneRunSettings { least_area: 0.9, colour: 0.0, drop_path: 0.0, average: 0.0, ..tune_settings() };
        let settings = TuneRunSettings { epochs: 80, backbone_rate: 1.0, ..calm };
        let (outcome, run, losses) = trained.tune(&settings, "tuned", false, u64::MAX);
        assert_eq!(outcome.progress.epoch, 80);
        let frozen = TuneRunSettings { backbone_rate: 0.0, ..settings };
        let (.., of_frozen) = trained.tune(&frozen, "frozen", false, u64::MAX);
        let last = |losses: &[f64]| losses[losses.len() - 10..].iter().sum::<f64>() / 10.0;
        let (tuned_loss, frozen_loss) = (last(&losses), last(&of_frozen));
        assert!(tuned_loss < 0.95 * frozen_loss, "{tuned_loss} with a tuned backbone, {frozen_loss} with a frozen one");
        let tuned = Checkpoint::load(&run.path().join(BACKBONE_FILE)).unwrap();
        assert!(tuned.model.iter().any(|(name, weight)| *weight != trained.weights[name]), "the backbone stayed");
        // The features that the saved backbone gives are those that the saved alignment model asks for.
        let backbone = open(tuned, &Device::flex()).unwrap();
        let store = extract(&trained.dataset, &backbone, context, &trained.folder.path().join("tuned.features"));
        let aligner = Aligner::new(Checkpoint::load(&run.best()).unwrap(), &Device::flex()).unwrap();
        aligner.check(&store).unwrap();
        assert!(aligner.check(&trained.store).is_err(), "the vectors before are others");
    }
}

#[test]
fn runs_repeat_and_go_on_to_the_byte() {
    let (network, weights) = transformer();
    let trained = Trained::new(network, weights, Context::Class);
    let bytes = |run: &RunFolder| {
        [run.last(), run.best(), run.path().join(BACKBONE_FILE)].map(|file| std::fs::read(file).unwrap())
    };
    let (_, whole, _) = trained.tune(&tune_settings(), "whole", false, u64::MAX);
    let (stopped, ..) = trained.tune(&tune_settings(), "stopped", false, 3);
    assert!(stopped.stopped && stopped.progress.step == 3);
    let (_, resumed, _) = trained.tune(&tune_settings(), "stopped", true, u64::MAX);
    // The two runs' files differ in the place of the backbone, which lies beside each; so the weights are compared.
    let weights = |run: &RunFolder| {
        let of = |file: &Path| Checkpoint::load(file).unwrap();
        (
            of(&run.last()).model,
            of(&run.last()).optimizer,
            of(&run.best()).model,
            of(&run.path().join(BACKBONE_FILE)).model,
        )
    };
    assert_eq!(weights(&whole), weights(&resumed));
    let (_, again, _) = trained.tune(&tune_settings(), "again", false, u64::MAX);
    assert_eq!(bytes(&whole)[0], bytes(&again)[0]);
}

#[test]
fn teachers_are_heard_and_remembered() {
    let (network, weights) = transformer();
    let trained = Trained::new(network, weights, Context::Class);
    let teacher = RunFolder::model(&trained.folder.path().join("align"), &[Kind::Alignment]).unwrap();
    let teacher = Aligner::new(teacher, &Device::flex()).unwrap();
    let teachers = [Teacher { aligner: &teacher, store: &trained.store }];
    let settings = TuneRunSettings { teaching: TeachingSettings { share: 0.8, sharpness: 5.0 }, ..tune_settings() };
    let (_, taught, _) = trained.tune_taught(&teachers, &settings, "taught", false, u64::MAX);
    let (_, alone, _) = trained.tune(&tune_settings(), "alone", false, u64::MAX);
    let last = |run: &RunFolder| Checkpoint::load(&run.last()).unwrap();
    assert_ne!(last(&taught).model, last(&alone).model);
    assert_eq!((last(&taught).header.teachers.len(), last(&alone).header.teachers.len()), (1, 0));

    let (stopped, run, _) = trained.tune_taught(&teachers, &settings, "stopped", false, 3);
    assert!(stopped.stopped);
    let mut control = Control { on_event: &mut |_| {}, stop: &AtomicBool::new(false) };
    let alone = tune::train(trained.data(), &settings, &run, true, &mut control).unwrap_err().to_string();
    assert!(alone.contains("wants a teacher"), "{alone}");
    drop(run); // another training may have the folder
    let (_, resumed, _) = trained.tune_taught(&teachers, &settings, "stopped", true, u64::MAX);
    assert_eq!(last(&taught).model, last(&resumed).model);
}

#[test]
fn a_photo_that_is_gone_is_left_out_and_named() {
    let (network, weights) = transformer();
    let trained = Trained::new(network, weights, Context::Class);
    std::fs::remove_file(trained.folder.path().join("5.png")).unwrap();
    std::fs::write(trained.folder.path().join("13.png"), b"no picture").unwrap();
    let run = RunFolder::create(&trained.folder.path().join("tuned"), &tune_settings()).unwrap();
    let (mut told, mut passes) = (Vec::new(), 0);
    let mut on_event = |event: &Event| match event {
        Event::Unread { photo, .. } => told.push((photo.clone(), passes)),
        Event::Epoch { .. } => passes += 1,
        _ => {}
    };
    let mut control = Control { on_event: &mut on_event, stop: &AtomicBool::new(false) };
    let (outcome, unread) = tune::train(trained.data(), &tune_settings(), &run, false, &mut control).unwrap();
    assert_eq!(outcome.progress.epoch, 2);
    assert_eq!(unread, ["13.png", "5.png"]);
    // Each once, and before the first pass is over.
    told.sort_unstable();
    assert_eq!(told, [("13.png".to_owned(), 0), ("5.png".to_owned(), 0)]);
}

#[test]
fn where_no_photo_can_be_read_nothing_is_tuned() {
    let (network, weights) = transformer();
    let trained = Trained::new(network, weights, Context::Class);
    let mut control = Control { on_event: &mut |_| {}, stop: &AtomicBool::new(false) };
    let mut refused = |split: Split, expected: &str| {
        for image in trained.dataset.split(split) {
            std::fs::remove_file(trained.folder.path().join(&image.path)).unwrap();
        }
        let name = trained.folder.path().join(split.name());
        let run = RunFolder::create(&name, &tune_settings()).unwrap();
        let error = tune::train(trained.data(), &tune_settings(), &run, false, &mut control).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("can be read"), "{error}");
        assert!(!run.best().exists());
    };
    refused(Split::Train, "no photo of the training split");
    refused(Split::Val, "0 of ");
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let (network, weights) = transformer();
    let trained = Trained::new(network, weights, Context::Class);
    let refused = |data: TuneData<'_>, settings: &TuneRunSettings| {
        let run = RunFolder::create(&trained.folder.path().join("refused"), settings).unwrap();
        let mut control = Control { on_event: &mut |_| {}, stop: &AtomicBool::new(false) };
        tune::train(data, settings, &run, false, &mut control).unwrap_err().to_string()
    };
    let (network, weights) = compact();
    let other = checkpoint(&Named { name: "other".into(), network }, &weights, &header());
    let data = TuneData { backbone: Start::of_checkpoint(other).unwrap(), ..trained.data() };
    assert!(refused(data, &tune_settings()).contains("another backbone"));
    for (settings, expected) in [
        (TuneRunSettings { batch: 0, ..tune_settings() }, "1 or more"),
        (TuneRunSettings { batch: 7, captions_per_photo: 5, ..tune_settings() }, "fewer than two photos"),
        (TuneRunSettings { colour: 1.0, ..tune_settings() }, "colour = 1"),
        (TuneRunSettings { least_area: 0.0, ..tune_settings() }, "least_area"),
        (TuneRunSettings { backbone_rate: -1.0, ..tune_settings() }, "backbone_rate = -1"),
    ] {
        let message = refused(trained.data(), &settings);
        assert!(message.contains(expected), "{message}");
    }
}
