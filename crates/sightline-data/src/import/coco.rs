//! COCO's captions JSON, one file a split.

use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;
use serde::Deserialize;

use super::json::{self, Rest, count_unknown};
use super::{Detected, Raw, RawPhoto, RawSentence, RawSplit, file_name, read_text};
use crate::problems::{ProblemKind, Problems};
use crate::{Result, Split};

/// Keys that COCO documents and we have no use for.
const FILE_KEYS: &[&str] = &["info", "licenses", "type", "categories"];
const IMAGE_KEYS: &[&str] = &["license", "coco_url", "flickr_url", "date_captured", "width", "height"];

#[derive(Deserialize)]
struct File {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: String,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: u64,
    id: Option<u64>,
    caption: Option<String>,
    #[serde(flatten)]
    rest: Rest,
}

pub(super) fn read(detected: &Detected, problems: &mut Problems) -> Result<Raw> {
    let mut raw = Raw::default();
    for path in &detected.files {
        let name = file_name(path).into_owned();
        let split = split_of(&name);
        match split {
            Some(split) => raw.explanation.push(format!("{name}: split {split}, by its name")),
            None => raw.explanation.push(format!("{name}: its name says no split")),
        }
        let file: File = json::parse(path, &read_text(path)?, "COCO captions")?;
        count_unknown(&file.rest, "", FILE_KEYS, problems);
        let mut position: FxHashMap<u64, usize> = FxHashMap::default();
        for image in file.images {
            count_unknown(&image.rest, "images.", IMAGE_KEYS, problems);
            match position.entry(image.id) {
                // The second owner keeps its photo, but all sentences of the id are the first's: nothing tells them apart.
                Entry::Occupied(_) => {
                    problems.add(ProblemKind::DuplicateId, format!("image id {} in {name}", image.id));
                }
                Entry::Vacant(entry) => drop(entry.insert(raw.photos.len())),
            }
            raw.photos.push(RawPhoto {
                file: image.file_name,
                id: Some(image.id),
                split: split.map_or(RawSplit::Unsaid, RawSplit::Named),
                ..RawPhoto::default()
            });
        }
        for annotation in file.annotations {
            count_unknown(&annotation.rest, "annotations.", &[], problems);
            let place =
                || format!("annotation {} of image {} in {name}", annotation.id.unwrap_or(0), annotation.image_id);
            match (position.get(&annotation.image_id), annotation.caption) {
                (None, _) => problems.add(ProblemKind::UnknownPhoto, place()),
                (_, None) => problems.add(ProblemKind::BadRecord, format!("{} has no caption", place())),
                (Some(&at), Some(caption)) => raw.photos[at].sentences.push(RawSentence {
                    id: annotation.id,
                    ..RawSentence::new(caption.trim_end_matches(['\n', '\r']))
                }),
            }
        }
    }
    Ok(raw)
}

/// The split that a file's name speaks of.
fn split_of(name: &str) -> Option<Split> {
    let name = name.to_lowercase();
    // `trainval` speaks of both, which is none.
    let says = |word: &str| name.contains(word);
    match (says("train"), says("val"), says("test")) {
        (true, false, false) => Some(Split::Train),
        (false, true, false) => Some(Split::Val),
        (false, false, true) => Some(Split::Test),
        _ => None,
    }
}
