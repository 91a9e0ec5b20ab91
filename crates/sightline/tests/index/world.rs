//! A folder of pictures, a model, and the program run on them.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use sightline::demo::scenes;
use sightline_data::{Vocabulary, tokens};
use sightline_model::alignment::{AlignmentModel, AlignmentSettings, Sizes};
use sightline_model::caption::CaptionSettings;
use sightline_model::weights::Weights;
use sightline_model::{Device, random, weights};
use sightline_train::checkpoint::{Checkpoint, Findings, Header, Kind, MatchFloors, Progress};
use sightline_train::settings::{AlignSettings, CaptionRunSettings};
use sightline_vision::backbone::Pixels;
use sightline_vision::extract::ExtractOptions;
use sightline_vision::regions::SelectiveSearch;

pub(crate) fn sightline(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sightline")).args(arguments).output().unwrap()
}

pub(crate) fn json(arguments: &[&str]) -> Value {
    let output = sightline(&[arguments, &["--json", "--quiet"]].concat());
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && talk.is_empty(), "{arguments:?}: {talk}");
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(crate) fn fails(arguments: &[&str], code: i32, part: &str) {
    let output = sightline(&[arguments, &["--quiet"]].concat());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
    assert!(message.contains(part) && !message.contains("panicked"), "{arguments:?}: {part:?} is not in {message}");
}

/// Regions of a photo, the whole one among them.
pub(crate) const MAX_REGIONS: usize = 6;

/// Of a model without settings, for the vectors of the index.
fn header(kind: Kind) -> Header {
    let options =
        ExtractOptions { max_regions: MAX_REGIONS, mode: sightline_data::VectorMode::Crop, ..Default::default() };
    let mut features = options.store_settings(&Pixels::default(), &SelectiveSearch::default());
    features.sources.insert("backbone".into(), "pixels".into());
    features.sources.insert("regions".into(), "selective_search".into());
    let sentence = tokens::tokenize("a red circle left of the blue square");
    let vocabulary = Vocabulary::from_sentences([sentence.as_slice()], 1);
    let (settings, progress) = (Value::Null, Progress::default());
    Header {
        kind,
        settings,
        vocabulary,
        relations: Vec::new(),
        teachers: Vec::new(),
        phrases: None,
        photos: Vec::new(),
        features,
        progress,
    }
}

/// A folder of pictures and a model with random weights, which finds nothing sensible but always the same.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        scenes::write_pictures(&scenes::generate(3, 12), &folder.path().join("photos")).unwrap();
        let world = Self { folder };
        world.write_model("model.ckpt", 1);
        world
    }

    pub(crate) fn write_model(&self, name: &str, seed: u64) {
        self.write_model_with_floor(name, seed, None);
    }

    /// A model that says what a fitting photo scores a word.
    pub(crate) fn write_model_with_floor(&self, name: &str, seed: u64, floor: Option<f64>) {
        let header = header(Kind::Alignment);
        let match_floors = MatchFloors(floor.map(|floor| (10, floor)).into_iter().collect());
        let findings = Findings { match_floors, ..Findings::default() };
        let header = Header { progress: Progress { findings, ..Progress::default() }, ..header };
        let model = AlignmentSettings { dim: 20, hidden: 7, word_dim: 5, ..AlignmentSettings::default() };
        let settings = AlignSettings { model, ..AlignSettings::default() };
        let mut rng = random::stream(seed, 0);
        let sizes = Sizes { features: header.features.dim, vocab: header.vocabulary.len(), photos: 0, relations: 0 };
        let network = AlignmentModel::new(&settings.model, sizes, &mut rng, &Device::flex());
        self.write_checkpoint(name, header, &settings, weights::export(&network));
    }

    /// A caption model with random weights, [`Kind::Caption`] or [`Kind::RegionCaption`]; it talks nonsense.
    pub(crate) fn write_captioner(&self, name: &str, kind: Kind, max_regions: usize) {
        let mut header = header(kind);
        header.features.max_regions = max_regions;
        let model = CaptionSettings { hidden: 11, word_dim: 9, ..CaptionSettings::default() };
        let settings = CaptionRunSettings { model, ..CaptionRunSettings::default() };
        let mut rng = random::stream(2, 0);
        let frequencies = vec![0.0; header.vocabulary.len()];
        let weights = settings.model.initial_weights(header.features.dim, &frequencies, &mut rng);
        self.write_checkpoint(name, header, &settings, weights);
    }

    fn write_checkpoint(&self, name: &str, header: Header, settings: &impl serde::Serialize, model: Weights) {
        let header = Header { settings: serde_json::to_value(settings).unwrap(), ..header };
        let checkpoint = Checkpoint { header, model, optimizer: Weights::new() };
        checkpoint.save(&self.folder.path().join(name)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Photos in the order of their names.
    pub(crate) fn photos(&self) -> Vec<PathBuf> {
        let mut photos: Vec<PathBuf> =
            std::fs::read_dir(self.path("photos")).unwrap().map(|entry| entry.unwrap().path()).collect();
        photos.sort();
        photos
    }

    pub(crate) fn index(&self) -> Value {
        json(&["index", &self.path("photos"), "-o", &self.path("index"), "--model", &self.path("model.ckpt")])
    }

    pub(crate) fn search(&self, arguments: &[&str]) -> Value {
        json(&[&["search", "--index", &self.path("index")], arguments].concat())
    }
}
