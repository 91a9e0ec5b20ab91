//! Boxes for photos from a file: our own layout or COCO's instances.

use std::collections::BTreeMap;
use std::path::Path;

use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::json::{self, Rest, count_unknown};
use super::read_text;
use crate::problems::{ProblemKind, Problems};
use crate::{BoxXyxy, Error, Result, record};

/// Boxes by photo, in pixels of the original picture.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Boxes {
    /// By file name as the source gives it.
    pub by_photo: BTreeMap<String, Vec<BoxXyxy>>,
    /// What the file was read as.
    pub explanation: String,
}

/// Tells the layouts apart: a file of our own has photos for keys.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Peek {
    images: Option<IgnoredAny>,
}

/// Numbers as they stand there, four if all is well.
type Numbers = Vec<f32>;

/// `{"photo.jpg": [[x1, y1, x2, y2], …], …}`.
type Plain = BTreeMap<String, Vec<Numbers>>;

#[derive(Deserialize)]
struct Images {
    images: Vec<Image>,
    #[serde(default)]
    annotations: Vec<Annotation>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize)]
struct Image {
    #[serde(alias = "filename")]
    file_name: String,
    #[serde(default)]
    filepath: String,
    id: Option<u64>,
    #[serde(default)]
    boxes: Vec<Numbers>,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: u64,
    bbox: Numbers,
    #[serde(default)]
    iscrowd: u8,
}

/// Reads `{"photo.jpg": [[x1, y1, x2, y2], …], …}`, a dataset whose images have `boxes`, or COCO's instances JSON
/// (`bbox` is corner, width and height there; crowds are left out, and categories do not matter).
///
/// # Errors
/// The file cannot be read, is of another layout, or has a box of more or fewer than four numbers.
pub fn read(path: &Path, problems: &mut Problems) -> Result<Boxes> {
    let layout = "boxes: {\"photo.jpg\": [[x1, y1, x2, y2], …]} or COCO's instances";
    let mut boxes = Boxes::default();
    let text = read_text(path)?;
    match json::parse::<Peek>(path, &text, layout)?.images {
        None => {
            for (name, list) in json::parse::<Plain>(path, &text, layout)? {
                let list = corners(path, &name, list)?;
                boxes.by_photo.insert(name, list);
            }
            boxes.explanation = "boxes by file name, corners".to_owned();
        }
        Some(_) => {
            let Images { images, annotations, rest } = json::parse(path, &text, layout)?;
            let documented = ["info", "licenses", "type", "categories", "dataset", "sightline", "pairing"];
            count_unknown(&rest, "boxes: ", &documented, problems);
            let mut names: FxHashMap<u64, String> = FxHashMap::default();
            for image in images {
                let name = record::join(&image.filepath, &image.file_name);
                if let Some(id) = image.id {
                    names.insert(id, name.clone());
                }
                let list = corners(path, &name, image.boxes)?;
                boxes.by_photo.entry(name).or_default().extend(list);
            }
            let mut crowds = 0;
            for (i, annotation) in annotations.into_iter().enumerate() {
                let Some(name) = names.get(&annotation.image_id) else {
                    problems.add(ProblemKind::UnknownPhoto, format!("box of image id {}", annotation.image_id));
                    continue;
                };
                if annotation.iscrowd != 0 {
                    crowds += 1;
                    continue;
                }
                let place = || format!("box {} of the file, of {name},", i + 1);
                let [x, y, width, height] = four(path, annotation.bbox, place, "x, y, width, height")?;
                let list = boxes.by_photo.get_mut(name).expect("every image has its entry");
                list.push(BoxXyxy::from_xywh(x, y, width, height));
            }
            boxes.explanation = format!("images with boxes; {crowds} boxes of crowds left out");
        }
    }
    for (name, list) in &mut boxes.by_photo {
        list.retain(|b| {
            let sound = <[f32; 4]>::from(*b).iter().all(|v| v.is_finite()) && b.area() > 0.0;
            if !sound {
                problems.add(ProblemKind::BadBox, format!("{:?} of {name}", <[f32; 4]>::from(*b)));
            }
            sound
        });
    }
    Ok(boxes)
}

/// Our own boxes of one photo.
fn corners(path: &Path, name: &str, list: Vec<Numbers>) -> Result<Vec<BoxXyxy>> {
    let corners =
        |(i, numbers): (usize, Numbers)| four(path, numbers, || format!("box {} of {name}", i + 1), "x1, y1, x2, y2");
    list.into_iter().enumerate().map(|numbered| corners(numbered).map(BoxXyxy::from)).collect()
}

/// The four numbers of a box, or an error that names its `place`.
fn four(path: &Path, numbers: Numbers, place: impl Fn() -> String, layout: &str) -> Result<[f32; 4]> {
    numbers.try_into().map_err(|numbers: Numbers| {
        Error::format(path, format!("{} has {} numbers, expected 4: {layout}", place(), numbers.len()))
    })
}
