//! People's phrases for regions of photos, in the form of the paper's region annotations: boxes with several phrases.
//!
//! ```json
//! {"version": 1, "images": [
//!   {"image": "dog.jpg", "regions": [{"box": [10, 20, 110, 90], "phrases": ["a black dog", "dog running"]}]}]}
//! ```
//!
//! `image` is the photo's key in the dataset, `box` is `[x1, y1, x2, y2]` in pixels of the original picture.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sightline_data::BoxXyxy;
use sightline_data::categories::{NamedBox, boxes_of};
use sightline_data::store::FeatureStore;

use crate::{Error, Result};

const VERSION: u32 = 1;

/// The record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionPhrases {
    /// Of this layout.
    pub version: u32,
    /// The photos.
    pub images: Vec<DescribedImage>,
}

/// A photo with described regions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescribedImage {
    /// Its key in the dataset.
    pub image: String,
    /// Its regions.
    pub regions: Vec<DescribedRegion>,
}

/// A region with what people said of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescribedRegion {
    /// The region, in pixels of the original picture.
    #[serde(rename = "box")]
    pub region_box: BoxXyxy,
    /// At least one phrase.
    pub phrases: Vec<String>,
}

impl RegionPhrases {
    /// Reads the record; another layout or version, a box without an area or a region without a phrase is an error.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(Error::io("read the region phrases", path))?;
        let wrong = |message: String| Error::Checkpoint { path: path.to_owned(), message };
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&text);
        let record: Self = serde_json::from_slice(text).map_err(|e| {
            wrong(format!(
                "expected {{\"version\": {VERSION}, \"images\": [{{\"image\", \"regions\": [{{\"box\", \"phrases\"}}]}}]}} ({e})"
            ))
        })?;
        if record.version != VERSION {
            return Err(wrong(format!("version {}; this program reads version {VERSION}", record.version)));
        }
        for image in &record.images {
            for region in &image.regions {
                let [x1, y1, x2, y2] = region.region_box.into();
                let area = region.region_box.area();
                if area.is_nan() || area <= 0.0 {
                    return Err(wrong(format!("{}: the box [{x1}, {y1}, {x2}, {y2}] has no area", image.image)));
                }
                if region.phrases.iter().all(|phrase| phrase.trim().is_empty()) {
                    return Err(wrong(format!("{}: the box [{x1}, {y1}, {x2}, {y2}] has no phrase", image.image)));
                }
            }
        }
        Ok(record)
    }

    /// COCO's boxes as described regions, the category of each its only phrase: those of photos that the store has, by key
    /// or by file name.
    pub fn of_instances(named: &BTreeMap<String, Vec<NamedBox>>, store: &FeatureStore) -> Self {
        let region = |own: &NamedBox| DescribedRegion { region_box: own.region, phrases: vec![own.category.clone()] };
        let image = |key: &str| {
            let regions = boxes_of(named, key)?.iter().filter(|own| own.region.area() > 0.0).map(region).collect();
            Some(DescribedImage { image: key.to_owned(), regions })
        };
        Self { version: VERSION, images: store.keys().filter_map(image).collect() }
    }

    /// Writes the record.
    pub fn save(&self, path: &Path) -> Result<()> {
        Ok(sightline_data::write::json(path, self)?)
    }
}

/// A region of a photo that covers a described box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Covering {
    /// Index of the photo in the store.
    pub position: usize,
    /// Index of the region in the photo, never the whole image.
    pub region: usize,
    /// How well it covers the box.
    pub iou: f32,
}

/// The region of a photo that covers a box best, the whole image aside; none where the photo has no other region.
pub fn covering(store: &FeatureStore, position: usize, region_box: &BoxXyxy) -> Option<Covering> {
    let mut best: Option<Covering> = None;
    for (region, own) in store.get(position).boxes().enumerate().skip(1) {
        let iou = own.iou(region_box);
        if best.is_none_or(|best| iou > best.iou) {
            best = Some(Covering { position, region, iou });
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_and_mistakes_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.json");
        let region = DescribedRegion {
            region_box: BoxXyxy::from([1.0, 2.0, 30.0, 40.0]),
            phrases: vec!["a dog".into(), "black dog".into()],
        };
        let record = RegionPhrases {
            version: VERSION,
            images: vec![DescribedImage { image: "a.jpg".into(), regions: vec![region] }],
        };
        record.save(&path).unwrap();
        assert_eq!(RegionPhrases::load(&path).unwrap(), record);

        let check = |text: &str, expected: &str| {
            std::fs::write(&path, text).unwrap();
            let message = RegionPhrases::load(&path).unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains("r.json"), "{message}");
        };
        let image =
            |regions: &str| format!(r#"{{"version": 1, "images": [{{"image": "a", "regions": [{regions}]}}]}}"#);
        check("[]", "expected {\"version\"");
        check(r#"{"version": 2, "images": []}"#, "version 2");
        check(&image(r#"{"box": [5, 5, 5, 9], "phrases": ["x"]}"#), "has no area");
        check(&image(r#"{"box": [5, 5, 8, 9], "phrases": [" "]}"#), "has no phrase");
        check(&image(r#"{"box": [5, 5, 8, 9], "phrase": ["x"]}"#), "unknown field");
    }
}
