//! Boxes for photos from a file: our own layout or COCO's instances.

use std::collections::BTreeMap;
use std::path::Path;

use rustc_hash::FxHashMap;
use serde::Deserialize;

use super::json::{self, Rest, count_unknown};
use super::read_text;
use crate::problems::{ProblemKind, Problems};
use crate::{BoxXyxy, Result, record};

/// Boxes by photo, in pixels of the original picture.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Boxes {
    /// By file name as the source gives it.
    pub by_photo: BTreeMap<String, Vec<BoxXyxy>>,
    /// What the file was read as.
    pub explanation: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum File {
    Images {
        images: Vec<Image>,
        #[serde(default)]
        annotations: Vec<Annotation>,
        #[serde(flatten)]
        rest: Rest,
    },
    Plain(BTreeMap<String, Vec<BoxXyxy>>),
}

#[derive(Deserialize)]
struct Image {
    #[serde(alias = "filename")]
    file_name: String,
    #[serde(default)]
    filepath: String,
    id: Option<u64>,
    #[serde(default)]
    boxes: Vec<BoxXyxy>,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: u64,
    bbox: [f32; 4],
    #[serde(default)]
    iscrowd: u8,
}

/// Reads `{"photo.jpg": [[x1, y1, x2, y2], …], …}`, a dataset whose images have `boxes`, or COCO's instances JSON
/// (`bbox` is corner, width and height there; crowds are left out, and categories do not matter).
///
/// # Errors
/// The file cannot be read or is of another layout.
pub fn read(path: &Path, problems: &mut Problems) -> Result<Boxes> {
    let layout = "boxes: {\"photo.jpg\": [[x1, y1, x2, y2], …]} or COCO's instances";
    let mut boxes = Boxes::default();
    match json::parse(path, &read_text(path)?, layout)? {
        File::Plain(by_photo) => {
            boxes.by_photo = by_photo;
            boxes.explanation = "boxes by file name, corners".to_owned();
        }
        File::Images { images, annotations, rest } => {
            let documented = ["info", "licenses", "type", "categories", "dataset", "sightline", "pairing"];
            count_unknown(&rest, "boxes: ", &documented, problems);
            let mut names: FxHashMap<u64, String> = FxHashMap::default();
            for image in images {
                let name = record::join(&image.filepath, &image.file_name);
                if let Some(id) = image.id {
                    names.insert(id, name.clone());
                }
                boxes.by_photo.entry(name).or_default().extend(image.boxes);
            }
            let mut crowds = 0;
            for annotation in annotations {
                let Some(name) = names.get(&annotation.image_id) else {
                    problems.add(ProblemKind::UnknownPhoto, format!("box of image id {}", annotation.image_id));
                    continue;
                };
                if annotation.iscrowd != 0 {
                    crowds += 1;
                    continue;
                }
                let [x, y, width, height] = annotation.bbox;
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
