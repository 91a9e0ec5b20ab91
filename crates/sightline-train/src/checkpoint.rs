//! Checkpoints: one file with a model's settings, vocabulary and weights, and where its training stood.
//!
//! In the frame of `framed.rs`, magic `SLCKPT\r\n`: the values of all tensors, f32 in the header's order.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sightline_data::Vocabulary;
use sightline_data::store::StoreSettings;
use sightline_model::weights::{Weight, Weights};
use xxhash_rust::xxh3::Xxh3;

use crate::framed::{Format, Parsed};
use crate::pointing::PriorWeights;
use crate::{Error, Result};

const FORMAT: Format = Format { magic: b"SLCKPT\r\n", version: 1, name: "a Sightline checkpoint" };
const TOO_SHORT: &str = "its tensors have other sizes than its header says; it was not written by this program";

/// Which model a checkpoint holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An alignment model.
    Alignment,
    /// A caption model of whole photos.
    Caption,
    /// A caption model of regions.
    RegionCaption,
    /// A backbone.
    Backbone,
}

impl Kind {
    /// As a person says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alignment => "an alignment model",
            Self::Caption => "a caption model of whole photos",
            Self::RegionCaption => "a caption model of regions",
            Self::Backbone => "a backbone",
        }
    }
}

/// Where training stood.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Finished steps of the optimiser.
    pub step: u64,
    /// Finished passes over the data.
    pub epoch: u64,
    /// Finished batches of the current pass.
    pub batch: u64,
    /// The sum of their losses.
    #[serde(default)]
    pub losses: f64,
    /// Best validation score so far; higher is better.
    pub best: Option<f64>,
    /// The pass it was reached after.
    pub best_epoch: u64,
    /// What the best model's validation found.
    #[serde(flatten)]
    pub findings: Findings,
}

/// What validation finds of an alignment model besides its score, for those who use it; nothing of other models.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Findings {
    /// What an answered query's best photo scores a word; empty where the model's score is no sum or mean over words.
    #[serde(default, skip_serializing_if = "MatchFloors::is_empty")]
    pub match_floors: MatchFloors,
    /// Which words are of things.
    #[serde(default, skip_serializing_if = "PriorWeights::is_empty")]
    pub prior_weights: PriorWeights,
}

/// What the best photo of a collection scores a word, in 95 of 100 queries whose own photo is there: by photos of the
/// collection, since the best of many scores more than the best of few. A query whose best photo scores less probably has
/// no answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MatchFloors(pub Vec<(usize, f64)>);

impl MatchFloors {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The floor for a collection of so many photos: between two known sizes by their logarithms, beyond them that of the
    /// nearest.
    pub fn at(&self, photos: usize) -> Option<f64> {
        let above = self.0.partition_point(|&(size, _)| size < photos);
        let (_, floor) = *self.0.get(above).or(self.0.last())?;
        let Some(&(size, below)) = above.checked_sub(1).and_then(|i| self.0.get(i)) else { return Some(floor) };
        let Some(&(next, _)) = self.0.get(above) else { return Some(floor) };
        let share = (photos as f64 / size as f64).ln() / (next as f64 / size as f64).ln();
        Some(below + share * (floor - below))
    }
}

/// Everything that a checkpoint says besides its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Which model.
    pub kind: Kind,
    /// The settings of its run.
    pub settings: serde_json::Value,
    /// Its words.
    pub vocabulary: Vocabulary,
    /// Relations of dependency trees with weights of their own, from the second on; none where it reads no trees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relations: Vec<String>,
    /// Checksums of the models that it learned from besides; of a small backbone, of the store whose boxes it learned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub teachers: Vec<String>,
    /// Checksum of the phrases that a model of regions learned from; none where there are no phrases, or it is older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phrases: Option<String>,
    /// Checksums of the names of the photos learned from and of those validated on; none where it is older.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub photos: Vec<String>,
    /// What its region vectors are; a model only reads stores of the same settings.
    pub features: StoreSettings,
    /// Where training stood.
    pub progress: Progress,
}

/// A checkpoint in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// What it is.
    pub header: Header,
    /// Weights of the model.
    pub model: Weights,
    /// State of the optimiser; empty in a model that is only for use.
    pub optimizer: Weights,
}

impl Checkpoint {
    /// What tells its weights from others, 16 hex digits.
    pub fn checksum(&self) -> String {
        let mut hash = Xxh3::new();
        for (name, weight) in &self.model {
            hash.update(name.as_bytes());
            for values in weight.values.chunks(1024) {
                let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                hash.update(&bytes);
            }
        }
        format!("{:016x}", hash.digest())
    }
}

#[derive(Serialize, Deserialize)]
struct FileHeader {
    #[serde(flatten)]
    header: Header,
    tensors: Vec<(String, Vec<usize>)>,
}

impl Checkpoint {
    /// Writes the file beside its place, syncs and renames it.
    pub fn save(&self, path: &Path) -> Result<()> {
        let all: BTreeMap<String, &Weight> = (self.model.iter().map(|(name, w)| (format!("model/{name}"), w)))
            .chain(self.optimizer.iter().map(|(name, w)| (format!("optimizer/{name}"), w)))
            .collect();
        let tensors = all.iter().map(|(name, weight)| (name.clone(), weight.shape.clone())).collect();
        FORMAT.write(path, &FileHeader { header: self.header.clone(), tensors }, |file| {
            for weight in all.values() {
                let bytes: Vec<u8> = weight.values.iter().flat_map(|value| value.to_le_bytes()).collect();
                file.write_all(&bytes)?;
            }
            Ok(())
        })
    }

    /// Reads a file that [`Checkpoint::save`] wrote; anything else, or any changed byte, is an error.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read the model", path))?;
        Self::parse(&bytes).map_err(|message| Error::Checkpoint { path: path.to_owned(), message })
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let Parsed { header: file, mut values, .. } = FORMAT.parse::<FileHeader>(bytes)?;
        let (mut model, mut optimizer) = (Weights::new(), Weights::new());
        for (name, shape) in file.tensors {
            let (own, others) = values.split_at_checked(n_bytes(&shape)?).ok_or(TOO_SHORT)?;
            values = others;
            let values = own.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            match name.split_once('/') {
                Some(("model", own)) => model.insert(own.to_owned(), Weight { shape, values }),
                Some(("optimizer", own)) => optimizer.insert(own.to_owned(), Weight { shape, values }),
                _ => return Err(format!("tensor {name} belongs to neither model nor optimiser")),
            };
        }
        Ok(Self { header: file.header, model, optimizer })
    }
}

/// A checkpoint without its weights: what can be told of a model before it is opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    /// What it is.
    pub header: Header,
    /// Shapes of the model's weights.
    pub shapes: BTreeMap<String, Vec<usize>>,
}

impl Outline {
    /// Reads a file that [`Checkpoint::save`] wrote, all of it for its checksum, and keeps none of the weights; what
    /// [`Checkpoint::load`] refuses is an error here too.
    pub fn read(path: &Path) -> Result<Self> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (length, file) = opened.map_err(Error::io("read the model", path))?;
        FORMAT
            .outline(file, length)
            .map_err(Error::io("read the model", path))?
            .and_then(|(file, values)| Self::of(file, values))
            .map_err(|message| Error::Checkpoint { path: path.to_owned(), message })
    }

    /// Of a file with so many bytes of values.
    fn of(file: FileHeader, values: u64) -> Result<Self, String> {
        let mut left = values;
        let mut shapes = BTreeMap::new();
        for (name, shape) in file.tensors {
            left = left.checked_sub(n_bytes(&shape)? as u64).ok_or(TOO_SHORT)?;
            match name.split_once('/') {
                Some(("model", own)) => drop(shapes.insert(own.to_owned(), shape)),
                Some(("optimizer", _)) => {}
                _ => return Err(format!("tensor {name} belongs to neither model nor optimiser")),
            }
        }
        Ok(Self { header: file.header, shapes })
    }
}

fn n_bytes(shape: &[usize]) -> Result<usize, String> {
    Ok(shape.iter().try_fold(4usize, |n, &d| n.checked_mul(d)).ok_or("absurd tensor sizes")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_lie_between_known_sizes() {
        let floors = MatchFloors(vec![(10, 0.2), (100, 0.4), (1000, 0.5)]);
        for (photos, expected) in [(1, 0.2), (10, 0.2), (100, 0.4), (316, 0.45), (1000, 0.5), (90_000, 0.5)] {
            let floor = floors.at(photos).unwrap();
            assert!((floor - expected).abs() < 1e-3, "{photos} photos: {floor}, not {expected}");
        }
        assert_eq!(MatchFloors::default().at(50), None);
    }
    use sightline_data::store::VectorMode;

    fn checkpoint() -> Checkpoint {
        let words = ["a", "dog"].map(str::to_owned);
        let weight = |values: &[f32]| Weight { shape: vec![values.len()], values: values.to_vec() };
        Checkpoint {
            header: Header {
                kind: Kind::Alignment,
                settings: serde_json::json!({"epochs": 3}),
                vocabulary: Vocabulary::from_sentences([words.as_slice()], 1),
                relations: vec!["nsubj".into()],
                teachers: Vec::new(),
                phrases: Some("0123".into()),
                photos: vec!["4567".into()],
                features: StoreSettings {
                    backbone: "b".into(),
                    backbone_checksum: String::new(),
                    dim: 4,
                    vectors: VectorMode::Pool,
                    regions: "nanodet".into(),
                    regions_checksum: String::new(),
                    max_regions: 20,
                    extra: BTreeMap::new(),
                    sources: BTreeMap::new(),
                    parts: Vec::new(),
                },
                progress: Progress { step: 7, best: Some(1.25), ..Progress::default() },
            },
            model: Weights::from([("a.weight".into(), weight(&[1.0, -2.5])), ("b".into(), weight(&[f32::MIN]))]),
            optimizer: Weights::from([("first.a.weight".into(), weight(&[0.0, 3.0]))]),
        }
    }

    /// Whether a file's outline is refused, and why.
    fn outline(bytes: &[u8]) -> Result<(), String> {
        FORMAT
            .outline(bytes, bytes.len() as u64)
            .unwrap()
            .and_then(|(file, values)| Outline::of(file, values))
            .map(drop)
    }

    #[test]
    fn an_outline_is_the_checkpoint_without_its_weights() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        checkpoint().save(&path).unwrap();
        let outline = Outline::read(&path).unwrap();
        assert_eq!(outline.header, checkpoint().header);
        assert_eq!(outline.shapes, BTreeMap::from([("a.weight".into(), vec![2]), ("b".into(), vec![1])]));
        let message = Outline::read(&folder.path().join("none")).unwrap_err().to_string();
        assert!(message.contains("cannot read the model"), "{message}");
    }

    #[test]
    fn round_trips_with_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        checkpoint().save(&a).unwrap();
        let loaded = Checkpoint::load(&a).unwrap();
        assert_eq!(loaded, checkpoint());
        loaded.save(&b).unwrap();
        assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
    }

    #[test]
    fn any_changed_byte_and_any_cut_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        checkpoint().save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for i in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[i] ^= 0x10;
            assert!(Checkpoint::parse(&changed).is_err(), "byte {i}");
            assert!(Checkpoint::parse(&bytes[..i]).is_err(), "cut at {i}");
            assert_eq!(outline(&changed), Checkpoint::parse(&changed).map(drop), "byte {i}");
            assert_eq!(outline(&bytes[..i]), Checkpoint::parse(&bytes[..i]).map(drop), "cut at {i}");
        }
        let message = Checkpoint::load(&folder.path().join("none")).unwrap_err().to_string();
        assert!(message.contains("cannot read the model"), "{message}");
    }
}
