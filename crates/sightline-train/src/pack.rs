//! A pack: several models that belong together in one file, small enough to be carried along: a backbone, an alignment
//! model on its vectors, caption models of photos and regions, and a card that says what they are.
//!
//! In the frame of `framed.rs`, magic `SLPACK\r\n`: the tensors in the header's order. A tensor is either f16, or one i8 a
//! number after one f32 a row, the row's scale; a row is as long as the last of the tensor's sizes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use half::f16;
use serde::{Deserialize, Serialize};
use sightline_model::weights::{Weight, Weights};

use crate::checkpoint::{Checkpoint, Header, Kind, Outline};
use crate::framed::{Format, Parsed};
use crate::{Error, Result};

const FORMAT: Format = Format { magic: b"SLPACK\r\n", version: 1, name: "a pack of Sightline's models" };

/// What a pack says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// What it is called.
    pub name: String,
    /// When it was made, `2026-11-20` say.
    pub date: String,
    /// What it was learned from.
    pub data: String,
    /// Who may do what with it.
    pub licence: String,
    /// Figures and the commands that gave them, by what they measure.
    pub scores: BTreeMap<String, String>,
    /// What it can not be expected to do.
    pub limits: String,
    /// How it was made.
    pub command: String,
}

/// How the numbers of a tensor are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stored {
    /// Sixteen bits each.
    F16,
    /// Eight bits each, and a scale a row.
    I8,
}

impl Stored {
    /// Tensors of one row keep sixteen bits: they are small, and biases are worth more than weights.
    fn of(self, shape: &[usize]) -> Self {
        match shape {
            [rows, _, ..] if *rows > 1 => self,
            _ => Self::F16,
        }
    }

    fn bytes(self, shape: &[usize]) -> Option<usize> {
        let n = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        match self {
            Self::F16 => n.checked_mul(2),
            Self::I8 => (n / (*shape.last()?).max(1)).checked_mul(4)?.checked_add(n),
        }
    }

    fn write(self, weight: &Weight, out: &mut Vec<u8>) {
        match self {
            Self::F16 => out.extend(weight.values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes())),
            Self::I8 => {
                let rows = || weight.values.chunks_exact(weight.shape.last().copied().unwrap_or(1).max(1));
                let scale = |row: &[f32]| row.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 127.0;
                out.extend(rows().flat_map(|row| scale(row).to_le_bytes()));
                for row in rows() {
                    let scale = scale(row);
                    let rounded = |x: &f32| if scale > 0.0 { (x / scale).round() as i8 } else { 0 };
                    out.extend(row.iter().map(|x| rounded(x).to_le_bytes()[0]));
                }
            }
        }
    }

    fn read(self, shape: &[usize], bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            Self::I8 => {
                let width = shape.last().copied().unwrap_or(1).max(1);
                let rows = bytes.len() / (width + 4);
                let (scales, values) = bytes.split_at(4 * rows);
                let scales = scales.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                let row = |(scale, row): (f32, &[u8])| -> Vec<f32> {
                    row.iter().map(|&b| f32::from(i8::from_le_bytes([b])) * scale).collect()
                };
                scales.zip(values.chunks_exact(width)).flat_map(row).collect()
            }
        }
    }
}

/// One model of a pack, as the file's header has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Part {
    header: Header,
    tensors: Vec<(String, Vec<usize>, Stored)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FileHeader {
    card: Card,
    parts: Vec<Part>,
}

/// A pack in memory; its models are unpacked when they are asked for.
#[derive(Debug)]
pub struct Pack<'a> {
    /// What it says of itself.
    pub card: Card,
    checksum: String,
    parts: Vec<Part>,
    bytes: Cow<'a, [u8]>,
    /// Where the tensors begin.
    start: usize,
}

impl<'a> Pack<'a> {
    /// Whether these are the first bytes of a pack.
    pub fn begins(bytes: &[u8]) -> bool {
        bytes.starts_with(FORMAT.magic)
    }

    /// Reads a file that [`write()`] wrote.
    ///
    /// # Errors
    /// Anything else, another version, or any changed byte.
    pub fn open(path: &Path) -> Result<Pack<'static>> {
        let bytes = std::fs::read(path).map_err(Error::io("read the models", path))?;
        Pack::parse(bytes).map_err(|message| Error::Checkpoint { path: path.to_owned(), message })
    }

    /// Reads a pack's bytes; an error says what is wrong with them.
    pub fn parse(bytes: impl Into<Cow<'a, [u8]>>) -> Result<Self, String> {
        let bytes = bytes.into();
        let Parsed { header: FileHeader { card, parts }, values, start, checksum } = FORMAT.parse(&bytes)?;
        let tensors = parts.iter().flat_map(|part| &part.tensors);
        let size =
            tensors.map(|(_, shape, precision)| precision.bytes(shape)).try_fold(0usize, |sum, n| sum.checked_add(n?));
        if size != Some(values.len()) {
            return Err("its tensors have other sizes than its header says; it was not written by this program".into());
        }
        Ok(Self { card, checksum: format!("{checksum:016x}"), parts, bytes, start })
    }

    /// The checksum of everything in it, 16 hex digits.
    pub fn checksum(&self) -> &str {
        &self.checksum
    }

    /// Which models are in it.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.parts.iter().map(|part| part.header.kind)
    }

    /// One of its models without its weights.
    pub fn outline(&self, kind: Kind) -> Option<Outline> {
        let Part { header, tensors } = self.parts.iter().find(|part| part.header.kind == kind)?;
        let shapes = tensors.iter().map(|(name, shape, _)| (name.clone(), shape.clone())).collect();
        Some(Outline { header: header.clone(), shapes })
    }

    /// One of its models, as a checkpoint without an optimiser.
    pub fn part(&self, kind: Kind) -> Option<Checkpoint> {
        let mut rest = &self.bytes[self.start..];
        for part in &self.parts {
            let mut model = Weights::new();
            for (name, shape, precision) in &part.tensors {
                let (own, others) = rest.split_at(precision.bytes(shape).expect("checked when it was read"));
                rest = others;
                if part.header.kind == kind {
                    model.insert(name.clone(), Weight { shape: shape.clone(), values: precision.read(shape, own) });
                }
            }
            if part.header.kind == kind {
                return Some(Checkpoint { header: part.header.clone(), model, optimizer: Weights::new() });
            }
        }
        None
    }
}

/// Writes models and their card into one file. Where the files of the features lay is left out: a pack brings its own
/// backbone.
pub fn write(path: &Path, card: &Card, parts: &[(Checkpoint, Stored)]) -> Result<()> {
    let (mut headers, mut tensors) = (Vec::new(), Vec::new());
    for (Checkpoint { header, model, .. }, precision) in parts {
        let mut header = header.clone();
        header.features.sources.clear();
        let mut named = Vec::new();
        for (name, weight) in model {
            let precision = precision.of(&weight.shape);
            precision.write(weight, &mut tensors);
            named.push((name.clone(), weight.shape.clone(), precision));
        }
        headers.push(Part { header, tensors: named });
    }
    let header = FileHeader { card: card.clone(), parts: headers };
    FORMAT.write(path, &header, |file| file.write_all(&tensors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Progress;
    use sightline_data::{StoreSettings, VectorMode, Vocabulary};

    fn model(kind: Kind, factor: f32) -> Checkpoint {
        let weight = |shape: &[usize]| {
            let n = shape.iter().product();
            Weight { shape: shape.to_vec(), values: (0..n).map(|i| (i as f32 - 3.0) * factor).collect() }
        };
        Checkpoint {
            header: Header {
                kind,
                settings: serde_json::json!({"epochs": 3}),
                vocabulary: Vocabulary::from_sentences([["dog".to_owned()].as_slice()], 1),
                relations: Vec::new(),
                teachers: Vec::new(),
                phrases: None,
                photos: Vec::new(),
                features: StoreSettings {
                    backbone: "b".into(),
                    backbone_checksum: "c".into(),
                    dim: 4,
                    vectors: VectorMode::Pool,
                    regions: "compact".into(),
                    regions_checksum: "c".into(),
                    max_regions: 20,
                    extra: BTreeMap::new(),
                    sources: BTreeMap::from([("backbone".into(), "/home/somebody/run".into())]),
                    parts: Vec::new(),
                },
                progress: Progress::default(),
            },
            model: Weights::from([
                ("a".into(), weight(&[3, 5])),
                ("b".into(), weight(&[7])),
                ("c".into(), weight(&[1, 2])),
            ]),
            optimizer: Weights::new(),
        }
    }

    fn written(folder: &Path) -> Vec<u8> {
        let card = Card { name: "test".into(), ..Card::default() };
        let parts = [(model(Kind::Alignment, 0.37), Stored::I8), (model(Kind::Caption, 0.1), Stored::F16)];
        let path = folder.join("test.pack");
        write(&path, &card, &parts).unwrap();
        assert_eq!(Pack::open(&path).unwrap().card, card);
        std::fs::read(path).unwrap()
    }

    #[test]
    fn models_come_back_as_near_as_their_precision() {
        let folder = tempfile::tempdir().unwrap();
        let pack = Pack::parse(written(folder.path())).unwrap();
        assert_eq!(pack.kinds().collect::<Vec<_>>(), [Kind::Alignment, Kind::Caption]);
        assert!(pack.part(Kind::RegionCaption).is_none());
        for (kind, factor, tolerance) in [(Kind::Alignment, 0.37, 0.02), (Kind::Caption, 0.1, 1e-3)] {
            let (expected, found) = (model(kind, factor), pack.part(kind).unwrap());
            assert!(found.header.features.sources.is_empty(), "where files lay is nobody's business");
            let outline = pack.outline(kind).unwrap();
            assert_eq!(outline.header, found.header);
            assert!(outline.shapes.iter().eq(found.model.iter().map(|(name, w)| (name, &w.shape)).collect::<Vec<_>>()));
            for (name, weight) in &expected.model {
                assert_eq!(weight.shape, found.model[name].shape);
                for (a, b) in weight.values.iter().zip(&found.model[name].values) {
                    assert!((a - b).abs() <= tolerance, "{name}: {b} for {a}");
                }
            }
        }
    }

    #[test]
    fn any_changed_byte_and_any_cut_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = written(folder.path());
        for i in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[i] ^= 0x10;
            assert!(Pack::parse(changed).is_err(), "byte {i}");
            assert!(Pack::parse(&bytes[..i]).is_err(), "cut at {i}");
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = written(folder.path());
        // A longer tensor block under a right checksum.
        bytes.truncate(bytes.len() - 8);
        bytes.extend([0; 4]);
        bytes.extend(xxhash_rust::xxh3::xxh3_64(&bytes).to_le_bytes());
        assert!(Pack::parse(bytes).unwrap_err().contains("other sizes"));
    }
}
