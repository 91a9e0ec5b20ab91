//! Training of a backbone as a whole, on a few drawn photos: it learns what its teacher sees and where objects are, it
//! repeats itself to the byte, a resumed run is the run that never stopped, and a bad photo is left out and named.

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sightline_data::{
    BoxXyxy, Dataset, FeatureStore, Image, PhotoFeatures, Split, StoreSettings, StoreWriter, VectorMode,
};
use sightline_model::Device;
use sightline_model::backbone::{BackboneSettings, GLOBAL, GRID};
use sightline_train::backbone::{BackboneData, open, train};
use sightline_train::checkpoint::{Checkpoint, Kind};
use sightline_train::optimizer::OptimizerSettings;
use sightline_train::run::RunFolder;
use sightline_train::settings::BackboneRunSettings;
use sightline_train::{Control, Event, Outcome};
use sightline_vision::backbone::{Backbone, FeatureMap};
use sightline_vision::regions::RegionProposer;
use sightline_vision::{Filter, Photo, Result};

use common::run_until;

/// Sees the mean colours of each cell and of the photo.
struct Colours;

impl Backbone for Colours {
    fn name(&self) -> &str {
        "colours"
    }

    fn checksum(&self) -> &str {
        ""
    }

    fn dim(&self) -> usize {
        3
    }

    fn settings(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn encode_map(&self, photos: &[Photo]) -> Result<Vec<FeatureMap>> {
        let means = |photo: &Photo, side: usize| -> Vec<f32> {
            let small = photo.resize(side as u32, side as u32, Filter::Bilinear);
            small.pixels.iter().map(|&level| f32::from(level) / 255.0).collect()
        };
        let map = |photo: &Photo| FeatureMap {
            grid_h: GRID,
            grid_w: GRID,
            dim: 3,
            patches: means(photo, GRID),
            global: means(photo, 1),
        };
        Ok(photos.iter().map(map).collect())
    }
}

/// A red square on a ground of some colour, and where it is.
fn drawn(i: u32) -> (Photo, BoxXyxy) {
    let (width, height, side) = (96, 80, 32);
    let (left, top) = (i * 37 % (width - side), i * 23 % (height - side));
    let ground = [20 + (i * 40 % 100) as u8, 60 + (i * 70 % 150) as u8, 220 - (i * 30 % 120) as u8];
    let inside = |x: u32, y: u32| (left..left + side).contains(&x) && (top..top + side).contains(&y);
    let cells = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let pixels = cells.flat_map(|(x, y)| if inside(x, y) { [230, 20, 20] } else { ground }).collect();
    (Photo::from_rgb(width, height, pixels), BoxXyxy::from_xywh(left as f32, top as f32, side as f32, side as f32))
}

fn collection(folder: &Path) -> (Dataset, FeatureStore) {
    let settings = StoreSettings {
        backbone: "none".into(),
        backbone_checksum: String::new(),
        dim: 1,
        vectors: VectorMode::Imported,
        regions: "imported".into(),
        regions_checksum: String::new(),
        max_regions: 2,
        extra: Default::default(),
        sources: Default::default(),
        parts: Vec::new(),
    };
    let path = folder.join("boxes.features");
    let writer = StoreWriter::create_or_resume(&path, &settings).unwrap();
    let mut images = Vec::new();
    for i in 0..10 {
        let (photo, square) = drawn(i);
        let key = format!("{i}.png");
        std::fs::write(folder.join(&key), photo.encode_png().unwrap()).unwrap();
        let boxes = vec![photo.whole(), square];
        let (width, height, scores, vectors) = (photo.width, photo.height, vec![1.0, 0.9], vec![0.0; 2]);
        writer.append(&PhotoFeatures { key: key.clone(), width, height, boxes, scores, vectors }).unwrap();
        let split = if i < 8 { Split::Train } else { Split::Val };
        images.push(Image { id: u64::from(i), path: key, split, ..Image::default() });
    }
    writer.finish(&[]).unwrap();
    let dataset = Dataset { name: "squares".into(), root: folder.to_owned(), images, ..Dataset::default() };
    (dataset, FeatureStore::open(&path).unwrap())
}

fn settings() -> BackboneRunSettings {
    let defaults = BackboneRunSettings::default();
    let model = BackboneSettings {
        stem: 12,
        fine: 16,
        fine_blocks: 1,
        coarse: 24,
        coarse_blocks: 1,
        attention_blocks: 1,
        dim: 3,
        objects: 16,
        ..BackboneSettings::default()
    };
    let optimizer = OptimizerSettings { warmup_steps: 10, learning_rate: 3e-3, ..defaults.optimizer };
    BackboneRunSettings {
        epochs: 2,
        small_epochs: 1,
        small_side: 112,
        batch: 8,
        views: 2,
        model,
        optimizer,
        average: 0.0,
        ..defaults
    }
}

struct Trained {
    outcome: Outcome,
    unread: Vec<String>,
    run: RunFolder,
    /// Loss of each step.
    losses: Vec<f64>,
}

/// Trains in a folder, and stops after some steps where asked to.
fn run(data: BackboneData<'_>, settings: &BackboneRunSettings, folder: &Path, resume: bool, stop_at: u64) -> Trained {
    let by = |run: &RunFolder, control: &mut Control<'_>| train(data, None, settings, run, resume, control).unwrap();
    let ((outcome, unread), run, losses) = run_until(folder, settings, resume, stop_at, by);
    Trained { outcome, unread, run, losses }
}

#[test]
fn a_backbone_learns_its_teacher_and_the_boxes() {
    let folder = tempfile::tempdir().unwrap();
    let (dataset, boxes) = collection(folder.path());
    let data = BackboneData { dataset: &dataset, teacher: &Colours, boxes: &boxes };
    let model = BackboneSettings { object_blocks: 1, ..settings().model };
    let settings =
        BackboneRunSettings { epochs: 60, small_epochs: 20, colour: 0.0, objects_weight: 2.0, model, ..settings() };
    let trained = run(data, &settings, &folder.path().join("run"), false, u64::MAX);
    let (first, last) = (trained.losses[0], trained.losses[trained.losses.len() - 1]);
    assert!(last < 0.5 * first, "the loss went from {first} to {last}");
    // The last weights: two photos to validate on choose by the vectors alone.
    let last = Checkpoint::load(&trained.run.last()).unwrap();
    let compact = open(last, &Device::flex()).unwrap().into_compact().unwrap();
    let covered = (0..10).filter(|&i| {
        let (photo, square) = drawn(i);
        compact.propose("", &photo, 3).unwrap().iter().any(|proposal| proposal.region.iou(&square) >= 0.5)
    });
    let covered = covered.count();
    assert!(covered >= 7, "{covered} of 10 squares are found");
    // What it sees of a red cell differs from what it sees of the ground as the teacher's does.
    let (photo, square) = drawn(9);
    let map = &compact.encode_map(std::slice::from_ref(&photo)).unwrap()[0];
    let (x, y) = square.centre();
    let cell = |x: f32, y: f32| {
        let at = (y / 80.0 * GRID as f32) as usize * GRID + (x / 96.0 * GRID as f32) as usize;
        &map.patches[at * 3..at * 3 + 3]
    };
    let outside = if x > 48.0 { cell(2.0, y) } else { cell(94.0, y) };
    assert!(cell(x, y)[0] > outside[0] + 0.5, "{:?} and {outside:?}", cell(x, y));
}

#[test]
fn runs_repeat_and_go_on_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let (dataset, boxes) = collection(folder.path());
    let data = BackboneData { dataset: &dataset, teacher: &Colours, boxes: &boxes };
    let bytes = |trained: &Trained| std::fs::read(trained.run.last()).unwrap();
    let settings = BackboneRunSettings { average: 0.9, mosaics: 0.5, mosaic_side: 192, ..settings() };
    let whole = run(data, &settings, &folder.path().join("whole"), false, u64::MAX);
    let again = run(data, &settings, &folder.path().join("again"), false, u64::MAX);
    assert_eq!(bytes(&whole), bytes(&again));
    let place = folder.path().join("stopped");
    // Among the small views, then among the large ones.
    for (resume, step) in [(false, 1), (true, 3)] {
        let stopped = run(data, &settings, &place, resume, step);
        assert!(stopped.outcome.stopped && stopped.outcome.progress.step == step);
    }
    let resumed = run(data, &settings, &place, true, u64::MAX);
    assert!(!resumed.outcome.stopped);
    assert_eq!(bytes(&whole), bytes(&resumed));
    let checkpoint = Checkpoint::load(&whole.run.best()).unwrap();
    assert_eq!(checkpoint.header.kind, Kind::Backbone);
    assert_eq!(checkpoint.header.features.backbone, "colours");
}

#[test]
fn a_stop_while_views_are_made_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (dataset, boxes) = collection(folder.path());
    let data = BackboneData { dataset: &dataset, teacher: &Colours, boxes: &boxes };
    let place = folder.path().join("run");
    let folder_of_run = RunFolder::create(&place, &settings()).unwrap();
    let stop = AtomicBool::new(false);
    let mut on_event = |event: &Event| {
        if matches!(event, Event::Prepared { .. }) {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let mut control = Control { on_event: &mut on_event, stop: &stop };
    let (outcome, _) = train(data, None, &settings(), &folder_of_run, false, &mut control).unwrap();
    assert!(outcome.stopped);
    let second = RunFolder::open::<BackboneRunSettings>(&place).unwrap_err().to_string();
    assert!(second.contains("another training writes to"), "{second}");
    drop(folder_of_run);
    let resumed = run(data, &settings(), &place, true, u64::MAX);
    assert_eq!(resumed.outcome.progress.epoch, 2);
}

#[test]
fn bad_photos_are_left_out_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let (dataset, boxes) = collection(folder.path());
    std::fs::write(folder.path().join("3.png"), b"no picture").unwrap();
    std::fs::remove_file(folder.path().join("5.png")).unwrap();
    let data = BackboneData { dataset: &dataset, teacher: &Colours, boxes: &boxes };
    let trained = run(data, &settings(), &folder.path().join("run"), false, u64::MAX);
    assert_eq!(trained.unread, ["3.png", "5.png"]);
    assert_eq!(trained.outcome.progress.epoch, 2);
}

#[test]
fn a_run_begins_where_another_ended() {
    let folder = tempfile::tempdir().unwrap();
    let (dataset, boxes) = collection(folder.path());
    let data = BackboneData { dataset: &dataset, teacher: &Colours, boxes: &boxes };
    let first =
        run(data, &BackboneRunSettings { epochs: 10, ..settings() }, &folder.path().join("first"), false, u64::MAX);
    let begun = |settings: &BackboneRunSettings, name: &str| {
        let start = RunFolder::model(first.run.path(), &[Kind::Backbone]).unwrap();
        let by = |run: &RunFolder, control: &mut Control<'_>| train(data, Some(start), settings, run, false, control);
        let (trained, _, losses) = run_until(&folder.path().join(name), settings, false, u64::MAX, by);
        trained.map(|_| losses)
    };
    let losses = begun(&BackboneRunSettings { epochs: 1, ..settings() }, "second").unwrap();
    assert!(losses[0] < 0.8 * first.losses[0], "{} after {}", losses[0], first.losses[0]);
    let with_blocks = BackboneRunSettings {
        model: BackboneSettings { object_blocks: 1, ..settings().model },
        epochs: 1,
        ..settings()
    };
    let only_vectors = BackboneRunSettings { objects_weight: 0.0, ..with_blocks.clone() };
    let [anew, begun_anew] = ["anew", "begun anew"].map(|name| {
        let start = (name == "begun anew").then(|| RunFolder::model(first.run.path(), &[Kind::Backbone]).unwrap());
        let by = |run: &RunFolder, control: &mut Control<'_>| train(data, start, &only_vectors, run, false, control);
        run_until(&folder.path().join(name), &only_vectors, false, u64::MAX, by).2
    });
    assert!(begun_anew[0] < 0.8 * anew[0], "what is no object is as it was: {} for {}", begun_anew[0], anew[0]);
    for model in [
        BackboneSettings { stem: 13, ..settings().model },
        BackboneSettings { stem: 13, ..with_blocks.model },
        BackboneSettings { objects: 17, ..settings().model },
    ] {
        let error = begun(&BackboneRunSettings { model, ..settings() }, "third").unwrap_err().to_string();
        assert!(error.contains("another network"), "{error}");
    }
}

#[test]
fn the_whole_is_learnt_apart_where_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (dataset, boxes) = collection(folder.path());
    let data = BackboneData { dataset: &dataset, teacher: &Colours, boxes: &boxes };
    let learnt = |global_weight: f32, global_apart: bool| {
        let settings = BackboneRunSettings { global_weight, global_apart, ..settings() };
        let place = folder.path().join(format!("{global_weight} {global_apart}"));
        let trained = run(data, &settings, &place, false, u64::MAX);
        let model = Checkpoint::load(&trained.run.last()).unwrap().model;
        model.into_iter().partition::<Vec<_>, _>(|(name, _)| name.starts_with(GLOBAL))
    };
    let [without, apart, together] = [(0.0, false), (1.0, true), (1.0, false)].map(|(w, apart)| learnt(w, apart));
    assert_eq!(apart.1, without.1, "nothing but its own layer learns for the whole");
    assert_ne!(apart.0, without.0);
    assert_ne!(apart.1, together.1);
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (dataset, boxes) = collection(folder.path());
    let data = BackboneData { dataset: &dataset, teacher: &Colours, boxes: &boxes };
    let model = BackboneSettings { dim: 4, ..settings().model };
    for (settings, expected) in [
        (BackboneRunSettings { model, ..settings() }, "model.dim = 4, but the teacher colours gives vectors of 3"),
        (BackboneRunSettings { views: 0, ..settings() }, "1 or more"),
        (BackboneRunSettings { small_side: 100, ..settings() }, "small_side = 100 must be a multiple of 16"),
        (BackboneRunSettings { small_side: 32, ..settings() }, "too small for windows of 5 cells"),
        (BackboneRunSettings { colour: 1.5, ..settings() }, "colour = 1.5"),
        (BackboneRunSettings { mosaics: 1.5, ..settings() }, "mosaics = 1.5"),
        (BackboneRunSettings { mosaic_side: 240, ..settings() }, "mosaic_side = 240 must be a multiple of 32"),
        (BackboneRunSettings { global_weight: -1.0, ..settings() }, "global_weight = -1"),
    ] {
        let run = RunFolder::create(&folder.path().join("run"), &settings).unwrap();
        let stop = AtomicBool::new(false);
        let mut control = Control { on_event: &mut |_| {}, stop: &stop };
        let error = train(data, None, &settings, &run, false, &mut control).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
