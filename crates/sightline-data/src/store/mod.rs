//! The feature store: for every photo its regions' boxes, scores and vectors, in one memory-mapped file.
//!
//! [`StoreWriter`] collects photos in a journal that survives a kill and turns them into the file; [`FeatureStore`]
//! reads it. Region 0 of every photo is the whole image, the proposals follow.

mod file;
mod join;
mod journal;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::f16;
use half::slice::HalfFloatSliceExt;
use serde::{Deserialize, Serialize};

pub use file::{FeatureStore, Photo};
pub use join::join;
pub use writer::{Recovered, StoreWriter};

use crate::{BoxXyxy, Error, Result};

/// Where region vectors come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VectorMode {
    /// Each box is cropped, resized and encoded on its own: the paper's way.
    Crop,
    /// One pass over the photo; patch vectors are averaged over each box.
    Pool,
    /// Made by another program.
    Imported,
    /// The vectors of several stores side by side ([`join()`]); how each was made stands in [`StoreSettings::parts`].
    Joined,
}

/// In [`StoreSettings::sources`], the checksum of what the vectors were copied from and for which photos.
pub const COPIED: &str = "copied";

/// Everything that decides what the numbers in a store mean; photos of different settings never share a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSettings {
    /// The network's name, `vit_tiny_patch16_224` say.
    pub backbone: String,
    /// Checksum of its weights ([`crate::checksum::of_file`]), empty where there are none.
    pub backbone_checksum: String,
    /// Length of one region's vector.
    pub dim: usize,
    /// How the vectors were made.
    pub vectors: VectorMode,
    /// Who proposed the boxes: `selective_search`, `nanodet`, `boxes` or `imported`.
    pub regions: String,
    /// Checksum of the detector's weights or of the box file, empty where there is none.
    pub regions_checksum: String,
    /// Most regions a photo may have, the whole image among them; 20 in the paper.
    pub max_regions: usize,
    /// Whatever else decides the numbers, by name.
    #[serde(default)]
    pub extra: BTreeMap<String, String>,
    /// Where the weights lay when the store was made, by what they are (`backbone`, `regions`): hints for opening them
    /// again, which decide no number and are not compared. Only [`COPIED`] is, by a writer that goes on with a store.
    #[serde(default)]
    pub sources: BTreeMap<String, String>,
    /// The settings of the stores that were joined into this one, in the order of their numbers; empty elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<StoreSettings>,
}

impl StoreSettings {
    /// Names every setting in which `self` differs from `other`, with both values: `dim is 192, not 384`.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |name: &str, a: String, b: String| {
            if a != b {
                found.push(format!("{name} is {a}, not {b}"));
            }
        };
        // Taken apart so that a new field cannot be forgotten here.
        let Self {
            backbone,
            backbone_checksum,
            dim,
            vectors,
            regions,
            regions_checksum,
            max_regions,
            extra,
            sources: _,
            parts,
        } = self;
        let quoted = |text: &str| format!("`{text}`");
        // A network is its weights, whatever its file is called.
        if backbone_checksum.is_empty() || backbone_checksum != &other.backbone_checksum {
            compare("backbone", quoted(backbone), quoted(&other.backbone));
        }
        compare("backbone_checksum", quoted(backbone_checksum), quoted(&other.backbone_checksum));
        compare("dim", dim.to_string(), other.dim.to_string());
        compare("vectors", format!("{vectors:?}").to_lowercase(), format!("{:?}", other.vectors).to_lowercase());
        compare("regions", quoted(regions), quoted(&other.regions));
        compare("regions_checksum", quoted(regions_checksum), quoted(&other.regions_checksum));
        compare("max_regions", max_regions.to_string(), other.max_regions.to_string());
        let keys: std::collections::BTreeSet<&String> = extra.keys().chain(other.extra.keys()).collect();
        for key in keys {
            let value = |map: &BTreeMap<String, String>| map.get(key).map_or("absent".to_owned(), |v| quoted(v));
            compare(key, value(extra), value(&other.extra));
        }
        compare("number of joined stores", parts.len().to_string(), other.parts.len().to_string());
        for (i, (part, other)) in parts.iter().zip(&other.parts).enumerate() {
            found.extend(part.differences(other).into_iter().map(|text| format!("of joined store {}, {text}", i + 1)));
        }
        found
    }
}

/// One photo's regions, owned: what goes into a store.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PhotoFeatures {
    /// Unique in the store; [`crate::Image::path`] where the photo belongs to a dataset.
    pub key: String,
    /// Width of the original picture in pixels.
    pub width: u32,
    /// Height of the original picture in pixels.
    pub height: u32,
    /// One box a region, in pixels of the original picture; the first is the whole image.
    pub boxes: Vec<BoxXyxy>,
    /// One proposal score a box; 1.0 for the whole image.
    pub scores: Vec<f32>,
    /// `[regions, dim]`, row-major.
    pub vectors: Vec<f32>,
}

impl PhotoFeatures {
    /// The vectors rounded to f16, after checking that everything fits `settings`.
    fn checked(&self, path: &Path, settings: &StoreSettings) -> Result<Vec<f16>> {
        let refuse = |what: String| Error::format(path, format!("refused the photo `{}`: {what}", self.key));
        let n_regions = self.boxes.len();
        if self.key.is_empty() {
            return Err(refuse("its key is empty".into()));
        }
        if n_regions == 0 || n_regions > settings.max_regions {
            return Err(refuse(format!(
                "expected 1 to {} regions (max_regions, the whole image among them), got {n_regions}",
                settings.max_regions
            )));
        }
        if self.scores.len() != n_regions {
            return Err(refuse(format!("expected one score a box, got {} for {n_regions} boxes", self.scores.len())));
        }
        if self.vectors.len() != n_regions * settings.dim {
            return Err(refuse(format!(
                "expected {n_regions} vectors of {} values, got {} values in all",
                settings.dim,
                self.vectors.len()
            )));
        }
        if let Some(b) = self.boxes.iter().find(|b| <[f32; 4]>::from(**b).iter().any(|v| !v.is_finite())) {
            return Err(refuse(format!("box {:?} is not finite", <[f32; 4]>::from(*b))));
        }
        if let Some(score) = self.scores.iter().find(|score| !score.is_finite()) {
            return Err(refuse(format!("score {score} is not finite")));
        }
        let mut rounded = vec![f16::ZERO; self.vectors.len()];
        rounded.convert_from_f32_slice(&self.vectors);
        if let Some(at) = rounded.iter().position(|value| !value.is_finite()) {
            let (value, region) = (self.vectors[at], at / settings.dim);
            return Err(refuse(match value.is_nan() {
                true => format!("value {at} of the vectors, in region {region}, is no number (NaN)"),
                false => format!(
                    "value {value} of region {region} does not fit 16 bits (at most 65504): scale the vectors down"
                ),
            }));
        }
        Ok(rounded)
    }
}

/// A record in bytes, as both the journal and the finished file hold it.
#[derive(Clone, Copy)]
struct Record<'a> {
    key: &'a str,
    width: u32,
    height: u32,
    n_regions: usize,
    /// `[regions, 4]` f32.
    boxes: &'a [u8],
    /// `[regions]` f32.
    scores: &'a [u8],
    /// `[regions, dim]` f16.
    vectors: &'a [u8],
}

/// Where the journal of a store lies.
fn journal_path(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

#[cfg(target_endian = "big")]
compile_error!(
    "the feature store maps little-endian numbers as they lie; big-endian machines need a converting reader"
);

#[cfg(test)]
mod tests;
