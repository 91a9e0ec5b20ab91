//! Boxes made elsewhere, from a JSON file.
//!
//! Three layouts are read:
//! - `{"photo.jpg": [[x1, y1, x2, y2], [x1, y1, x2, y2, score], …], …}`
//! - `[{"image": "photo.jpg", "boxes": [[x1, y1, x2, y2], …]}, …]`
//! - COCO's instances: `{"images": [{"id", "file_name"}], "annotations": [{"image_id", "bbox": [x, y, width, height]}]}`
//!
//! A box that cannot be used is no reason to stop: it is left out and named.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sightline_data::BoxXyxy;

use super::{Proposal, RegionProposer};
use crate::error::{Error, Result};
use crate::photo::Photo;

/// Why a box was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BoxFault {
    /// Not a list of four numbers, or of four and a score; NaN and infinity among them.
    NotNumbers,
    /// The right side is not right of the left one, or the lower not below the upper.
    InsideOut,
    /// No part of it lies in the photo.
    Outside,
    /// It belongs to an image that the file does not describe.
    UnknownImage,
}

impl std::fmt::Display for BoxFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotNumbers => "not four finite numbers [x1, y1, x2, y2] with or without a score",
            Self::InsideOut => "turned inside out: x2 must exceed x1, and y2 must exceed y1",
            Self::Outside => "outside the photo",
            Self::UnknownImage => "of an image that the file does not describe",
        })
    }
}

/// A box that was left out.
#[derive(Debug, Clone, PartialEq)]
pub struct BadBox {
    /// The photo's key in the file.
    pub image: String,
    /// The box as the file has it.
    pub found: String,
    /// Why.
    pub fault: BoxFault,
}

impl std::fmt::Display for BadBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: box {} is {}", self.image, self.found, self.fault)
    }
}

/// The layout a file of boxes turned out to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoxesLayout {
    /// An object of photo names.
    ByName,
    /// A list of records with `image` and `boxes`.
    Records,
    /// COCO's instances.
    CocoInstances,
}

/// The boxes of many photos.
#[derive(Debug, Clone)]
pub struct BoxesFile {
    path: PathBuf,
    checksum: String,
    layout: BoxesLayout,
    photos: HashMap<String, Vec<Proposal>>,
    /// From a bare file name to its key, where only one key ends so.
    by_file_name: HashMap<String, Option<String>>,
    bad: Vec<BadBox>,
}

/// The boxes of one photo.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PhotoBoxes {
    /// Whether the file has the photo at all; without boxes only the whole photo is left.
    pub is_listed: bool,
    /// At most as many as asked for, best first, clipped, none empty.
    pub proposals: Vec<Proposal>,
    /// Boxes that lie outside this photo.
    pub bad: Vec<BadBox>,
}

impl BoxesFile {
    /// Reads a file in any of the module's layouts.
    ///
    /// Fails where the file is absent, is no JSON, or has another layout.
    pub fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let root: Value = match serde_json::from_str(&text) {
            Ok(root) => root,
            // Python writes NaN and Infinity, which JSON does not know; they spoil their box, not the file.
            Err(reason) => serde_json::from_str(&without_bare_words(&text))
                .map_err(|_| Error::boxes(path, format!("not JSON: {reason}")))?,
        };
        let checksum = sightline_data::checksum::of_bytes(text.as_bytes());
        let mut reader = Reader::default();
        let layout = reader.read(&root).map_err(|found| {
            Error::boxes(
                path,
                format!(
                    "boxes in a layout that is not known: {found}; expected {{\"photo.jpg\": [[x1, y1, x2, y2], …]}}, \
                     [{{\"image\": …, \"boxes\": […]}}], or COCO's instances"
                ),
            )
        })?;
        let mut by_file_name = HashMap::new();
        for key in reader.photos.keys() {
            by_file_name
                .entry(file_name(key).to_owned())
                .and_modify(|other: &mut Option<String>| *other = None)
                .or_insert_with(|| Some(key.clone()));
        }
        let photos = reader.photos.into_iter().map(|(key, boxes)| (key, best_first(&boxes))).collect();
        Ok(Self { path: path.to_owned(), checksum, layout, photos, by_file_name, bad: reader.bad })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The layout it turned out to have.
    pub fn layout(&self) -> BoxesLayout {
        self.layout
    }

    /// Number of photos in the file.
    pub fn n_photos(&self) -> usize {
        self.photos.len()
    }

    /// The boxes left out while reading, in the file's order; those outside their photo show only with the photo.
    pub fn bad(&self) -> &[BadBox] {
        &self.bad
    }

    /// At most `max` boxes of a photo, by its key in the file or, where that is unambiguous, by its bare file name.
    pub fn boxes_of(&self, key: &str, photo: &Photo, max: usize) -> PhotoBoxes {
        let by_file_name = || self.photos.get(self.by_file_name.get(file_name(key))?.as_ref()?);
        let Some(listed) = self.photos.get(key).or_else(by_file_name) else { return PhotoBoxes::default() };
        let mut result = PhotoBoxes { is_listed: true, ..PhotoBoxes::default() };
        for proposal in listed {
            let region = proposal.region.clip(photo.width, photo.height);
            if region.area() > 0.0 {
                if result.proposals.len() < max {
                    result.proposals.push(Proposal { region, ..*proposal });
                }
            } else {
                let found = format!("{:?} in {} × {}", <[f32; 4]>::from(proposal.region), photo.width, photo.height);
                result.bad.push(BadBox { image: key.to_owned(), found, fault: BoxFault::Outside });
            }
        }
        result
    }
}

impl RegionProposer for BoxesFile {
    fn name(&self) -> &'static str {
        "boxes"
    }

    fn checksum(&self) -> String {
        self.checksum.clone()
    }

    fn propose(&self, key: &str, photo: &Photo, max: usize) -> Result<Vec<Proposal>> {
        match self.boxes_of(key, photo, max) {
            PhotoBoxes { is_listed: true, proposals, .. } => Ok(proposals),
            _ => {
                let message = format!("no boxes of {key}; an empty list says that the whole photo is its only region");
                Err(Error::boxes(&self.path, message))
            }
        }
    }
}

fn file_name(key: &str) -> &str {
    key.rsplit(['/', '\\']).next().unwrap_or(key)
}

/// Boxes of one photo as the file has them; the score may be absent.
type Listed = Vec<(BoxXyxy, Option<f32>)>;

/// By score where every box has one, else in the file's order.
fn best_first(boxes: &[(BoxXyxy, Option<f32>)]) -> Vec<Proposal> {
    let scores: Option<Vec<f32>> = boxes.iter().map(|(_, score)| *score).collect();
    let scores = scores.unwrap_or_else(|| (0..boxes.len()).map(|at| 1.0 / (1.0 + at as f32)).collect());
    let mut proposals: Vec<Proposal> =
        boxes.iter().zip(scores).map(|((region, _), score)| Proposal { region: *region, score }).collect();
    proposals.sort_by(|a, b| b.score.total_cmp(&a.score));
    proposals
}

#[derive(Default)]
struct Reader {
    photos: HashMap<String, Listed>,
    bad: Vec<BadBox>,
}

impl Reader {
    /// Fails with what was found instead of a layout.
    fn read(&mut self, root: &Value) -> Result<BoxesLayout, String> {
        match root {
            Value::Object(object) if object.contains_key("annotations") => {
                let list = |key: &str| object.get(key).and_then(Value::as_array);
                let (Some(images), Some(annotations)) = (list("images"), list("annotations")) else {
                    return Err("\"annotations\" without a list \"images\" that names the photos".into());
                };
                self.coco(images, annotations)?;
                Ok(BoxesLayout::CocoInstances)
            }
            Value::Object(object) => {
                for (image, boxes) in object {
                    let Value::Array(boxes) = boxes else {
                        return Err(format!("\"{image}\" holds {}, not a list of boxes", kind(boxes)));
                    };
                    self.corners(image, boxes);
                }
                Ok(BoxesLayout::ByName)
            }
            Value::Array(records) => {
                for (at, record) in records.iter().enumerate() {
                    let (image, boxes) = (record.get("image"), record.get("boxes"));
                    let (Some(image), Some(boxes)) = (image.and_then(Value::as_str), boxes.and_then(Value::as_array))
                    else {
                        return Err(format!("record {at} has not both a name \"image\" and a list \"boxes\""));
                    };
                    self.corners(image, boxes);
                }
                Ok(BoxesLayout::Records)
            }
            other => Err(kind(other).into()),
        }
    }

    fn corners(&mut self, image: &str, boxes: &[Value]) {
        self.photos.entry(image.to_owned()).or_default();
        for found in boxes {
            let numbers = numbers(found);
            let (corners, score) = match numbers.as_deref() {
                Some(&[x1, y1, x2, y2]) => (BoxXyxy { x1, y1, x2, y2 }, None),
                Some(&[x1, y1, x2, y2, score]) => (BoxXyxy { x1, y1, x2, y2 }, Some(score)),
                _ => {
                    self.refuse(image, found, BoxFault::NotNumbers);
                    continue;
                }
            };
            self.add(image, found, corners, score);
        }
    }

    fn coco(&mut self, images: &[Value], annotations: &[Value]) -> Result<(), String> {
        let mut names: HashMap<i64, &str> = HashMap::new();
        for (at, image) in images.iter().enumerate() {
            let (id, name) = (image.get("id").and_then(Value::as_i64), image.get("file_name").and_then(Value::as_str));
            let (Some(id), Some(name)) = (id, name) else {
                return Err(format!("image {at} has not both an \"id\" and a \"file_name\""));
            };
            names.insert(id, name);
            self.photos.entry(name.to_owned()).or_default();
        }
        for annotation in annotations {
            // A crowd's box is drawn around many objects.
            if annotation.get("iscrowd").and_then(Value::as_i64) == Some(1) {
                continue;
            }
            let found = annotation.get("bbox").unwrap_or(&Value::Null);
            let id = annotation.get("image_id");
            let Some(&image) = id.and_then(Value::as_i64).and_then(|id| names.get(&id)) else {
                let image = id.map_or_else(|| "no image_id".into(), |id| format!("image_id {id}"));
                self.refuse(&image, found, BoxFault::UnknownImage);
                continue;
            };
            let score = annotation.get("score").and_then(Value::as_f64).map(|score| score as f32);
            match numbers(found).as_deref() {
                Some(&[x, y, width, height]) => {
                    self.add(image, found, BoxXyxy::from_xywh(x, y, width, height), score);
                }
                _ => self.refuse(image, found, BoxFault::NotNumbers),
            }
        }
        Ok(())
    }

    fn add(&mut self, image: &str, found: &Value, region: BoxXyxy, score: Option<f32>) {
        if region.x2 > region.x1 && region.y2 > region.y1 {
            self.photos.entry(image.to_owned()).or_default().push((region, score));
        } else {
            self.refuse(image, found, BoxFault::InsideOut);
        }
    }

    fn refuse(&mut self, image: &str, found: &Value, fault: BoxFault) {
        self.bad.push(BadBox { image: image.to_owned(), found: found.to_string(), fault });
    }
}

/// A list of finite numbers.
fn numbers(value: &Value) -> Option<Vec<f32>> {
    let finite = |v: &Value| v.as_f64().map(|v| v as f32).filter(|v| v.is_finite());
    value.as_array()?.iter().map(finite).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The text with `NaN`, `Infinity` and `-Infinity` outside of strings turned into `null`.
fn without_bare_words(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut in_string = false;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| !in_string && rest.starts_with(word));
        if let Some(word) = word {
            result.push_str("null");
            rest = &rest[word.len()..];
            continue;
        }
        let mut taken = first.len_utf8();
        if first == '"' {
            in_string = !in_string;
        } else if first == '\\' {
            // What is escaped neither opens nor closes a string.
            taken += rest[taken..].chars().next().map_or(0, char::len_utf8);
        }
        result.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &str) -> Result<BoxesFile> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boxes.json");
        std::fs::write(&path, text).unwrap();
        BoxesFile::open(&path)
    }

    fn boxes(file: &BoxesFile, key: &str) -> Vec<[f32; 4]> {
        let found = file.boxes_of(key, &Photo::uniform(100, 80, [0; 3]), 19);
        found.proposals.iter().map(|p| p.region.into()).collect()
    }

    #[test]
    fn three_layouts_say_the_same() {
        let check = |text: &str, layout: BoxesLayout| {
            let file = open(text).unwrap();
            assert_eq!((file.layout(), file.n_photos(), file.bad()), (layout, 2, &[][..]), "{text}");
            assert_eq!(boxes(&file, "a/1.jpg"), [[5., 6., 20., 30.], [1., 2., 3., 4.]]);
            assert_eq!(boxes(&file, "1.jpg"), boxes(&file, "a/1.jpg"), "by its bare name");
            assert_eq!(boxes(&file, "/photos/1.jpg"), boxes(&file, "a/1.jpg"), "by the name of its file");
            assert_eq!(boxes(&file, "2.jpg"), <[[f32; 4]; 0]>::default());
        };
        check(r#"{"a/1.jpg": [[1, 2, 3, 4, 0.5], [5, 6, 20, 30, 0.9]], "2.jpg": []}"#, BoxesLayout::ByName);
        check(
            r#"[{"image": "a/1.jpg", "boxes": [[1, 2, 3, 4, -3.5], [5, 6, 20, 30, 0]]}, {"image": "2.jpg", "boxes": []}]"#,
            BoxesLayout::Records,
        );
        check(
            r#"{"images": [{"id": 7, "file_name": "a/1.jpg"}, {"id": 9, "file_name": "2.jpg"}],
                "annotations": [{"image_id": 7, "bbox": [5, 6, 15, 24]}, {"image_id": 7, "bbox": [1, 2, 2, 2], "iscrowd": 0},
                                {"image_id": 9, "bbox": [0, 0, 50, 50], "iscrowd": 1}]}"#,
            BoxesLayout::CocoInstances,
        );
    }

    #[test]
    fn bad_boxes_are_left_out_and_named() {
        let text = r#"{"1.jpg": [[1, 2, 3, 4], [4, 2, 3, 4], [1, 2, 3], "box", [1, NaN, 3, 4], [1, 2, Infinity, 4],
                       [900, 900, 990, 990], [-5, -5, 50, 40], [1e300, 0, 1, 1]], "NaN \" Infinity": []}"#;
        let file = open(text).unwrap();
        let faults: Vec<BoxFault> = file.bad().iter().map(|bad| bad.fault).collect();
        use BoxFault::{InsideOut, NotNumbers};
        assert_eq!(faults, [InsideOut, NotNumbers, NotNumbers, NotNumbers, NotNumbers, NotNumbers]);
        let expected = "1.jpg: box [4,2,3,4] is turned inside out: x2 must exceed x1, and y2 must exceed y1";
        assert_eq!(file.bad()[0].to_string(), expected);
        let found = file.boxes_of("1.jpg", &Photo::uniform(100, 80, [0; 3]), 19);
        assert_eq!(boxes(&file, "1.jpg"), [[1., 2., 3., 4.], [0., 0., 50., 40.]]);
        assert_eq!(found.bad.len(), 1);
        assert_eq!(
            found.bad[0].to_string(),
            "1.jpg: box [900.0, 900.0, 990.0, 990.0] in 100 × 80 is outside the photo"
        );
        assert!(file.boxes_of("NaN \" Infinity", &Photo::uniform(9, 9, [0; 3]), 19).is_listed);

        let text = r#"{"images": [], "annotations": [{"image_id": 3, "bbox": [0, 0, 5, 5]}, {"bbox": null}]}"#;
        let bad: Vec<String> = open(text).unwrap().bad().iter().map(ToString::to_string).collect();
        let unknown = "of an image that the file does not describe";
        assert_eq!(
            bad,
            [format!("image_id 3: box [0,0,5,5] is {unknown}"), format!("no image_id: box null is {unknown}")]
        );
    }

    #[test]
    fn photos_that_are_not_listed_have_no_boxes() {
        let file = open(r#"{"a/1.jpg": [[0, 0, 9, 9]], "b/1.jpg": [[1, 1, 9, 9]], "c.jpg": []}"#).unwrap();
        let photo = Photo::uniform(10, 10, [0; 3]);
        assert_eq!(file.boxes_of("7.jpg", &photo, 19), PhotoBoxes::default());
        assert_eq!(file.boxes_of("1.jpg", &photo, 19), PhotoBoxes::default(), "two photos are called so");
        assert_eq!(file.boxes_of("b/1.jpg", &photo, 19).proposals.len(), 1);
        assert_eq!(file.boxes_of("b/1.jpg", &photo, 0).proposals.len(), 0);
        assert_eq!(file.propose("c.jpg", &photo, 19).unwrap(), []);
        let error = file.propose("7.jpg", &photo, 19).unwrap_err().to_string();
        assert!(error.contains("no boxes of 7.jpg"), "{error}");
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        let check = |text: &str, expected: &str| {
            let message = open(text).unwrap_err().to_string();
            assert!(message.contains("boxes.json: ") && message.contains(expected), "{message}");
            assert!(!message.contains('\n'), "{message}");
        };
        check("", "not JSON");
        check("{\"1.jpg\": [[1, 2", "not JSON");
        check("7", "a number");
        check(r#"{"1.jpg": 5}"#, "\"1.jpg\" holds a number, not a list of boxes");
        check(r#"[{"image_id": 3, "bbox": [0, 0, 5, 5], "score": 0.5}]"#, "record 0 has not both");
        check(r#"{"annotations": []}"#, "without a list \"images\"");
        check(r#"{"images": [{"id": 1}], "annotations": []}"#, "image 0 has not both");
        let message = BoxesFile::open(Path::new("/absent/boxes.json")).unwrap_err().to_string();
        assert!(message.starts_with("cannot read /absent/boxes.json"), "{message}");
    }
}
