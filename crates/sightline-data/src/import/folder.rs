//! A folder of photos with a `.txt` of the same name beside each, one sentence a line; folders may nest, and folders
//! named `train`, `val`, `test` at the top are the splits.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use rustc_hash::FxHashSet;

use super::{Detected, Raw, RawPhoto, RawSentence, RawSplit, lines, photos, read_text};
use crate::problems::{ProblemKind, Problems};
use crate::walk::{FileBelow, walk};
use crate::{Result, Split};

/// The photos and texts below a folder, with `/` between names; sorted.
struct Found {
    photos: Vec<String>,
    texts: Vec<String>,
}

fn find(root: &Path, problems: &mut Problems) -> Result<Found> {
    let is_text = |path: &Path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt"));
    let below = walk(root, |path| is_text(path) || photos::is_photo_name(&path.to_string_lossy()))?;
    for place in &below.unreadable {
        problems.add(ProblemKind::Unreadable, format!("{} ({})", place.path.display(), place.reason));
    }
    let mut found = Found { photos: Vec::new(), texts: Vec::new() };
    for FileBelow { path, .. } in below.files {
        let names: Option<Vec<&str>> = path.components().map(|name| name.as_os_str().to_str()).collect();
        match names.map(|names| names.join("/")) {
            Some(name) if is_text(&path) => found.texts.push(name),
            Some(name) => found.photos.push(name),
            None => problems.add(ProblemKind::NotUtf8, format!("file name {}", path.display())),
        }
    }
    found.photos.sort();
    found.texts.sort();
    Ok(found)
}

/// Without its last extension.
fn stem(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((stem, extension)) if !extension.contains('/') && !stem.is_empty() => stem,
        _ => name,
    }
}

/// Whether any photo below has its text.
pub(super) fn has_pairs(root: &Path) -> bool {
    find(root, &mut Problems::default()).is_ok_and(|found| {
        let texts: FxHashSet<&str> = found.texts.iter().map(|text| stem(text)).collect();
        found.photos.iter().any(|photo| texts.contains(stem(photo)) || texts.contains(photo.as_str()))
    })
}

/// The photo that a text file would belong to.
pub(super) fn photo_of_text(text: &Path) -> Option<PathBuf> {
    photos::EXTENSIONS.iter().map(|extension| text.with_extension(extension)).find(|photo| photo.is_file())
}

pub(super) fn read(detected: &Detected, problems: &mut Problems) -> Result<Raw> {
    let root = &detected.files[0];
    let found = find(root, problems)?;
    let mut texts: BTreeMap<&str, (&str, bool)> = BTreeMap::new();
    for text in &found.texts {
        // `a.TXT` and `a.txt`.
        match texts.entry(stem(text)) {
            Entry::Vacant(entry) => drop(entry.insert((text, false))),
            Entry::Occupied(entry) => {
                problems.add(ProblemKind::SecondText, format!("{text} beside {}", entry.get().0));
            }
        }
    }
    let split_folders = found.photos.iter().all(|photo| folder_split(photo).is_some());
    let mut raw = Raw { root: Some(root.clone()), ..Raw::default() };
    if split_folders {
        raw.explanation.push("the folders at the top are the splits".to_owned());
    }
    for photo in &found.photos {
        // `a.txt` or `a.jpg.txt`.
        let text = [stem(photo), photo.as_str()].into_iter().find(|key| texts.contains_key(key));
        let mut sentences = Vec::new();
        if let Some((text, used)) = text.and_then(|key| texts.get_mut(key)) {
            *used = true;
            let path = root.join(*text);
            match read_text(&path) {
                Ok(bytes) => {
                    let lines = lines(&bytes, &path, problems).into_iter().filter(|(_, line)| !line.trim().is_empty());
                    sentences.extend(lines.map(|(_, line)| RawSentence::new(line.trim())));
                }
                Err(error) => problems.add(ProblemKind::Unreadable, error.to_string()),
            }
        }
        let split = if split_folders { folder_split(photo) } else { None };
        raw.photos.push(RawPhoto {
            file: photo.clone(),
            split: split.map_or(RawSplit::Unsaid, RawSplit::Named),
            sentences,
            ..RawPhoto::default()
        });
    }
    for (key, (text, _)) in texts.iter().filter(|(_, (_, used))| !used) {
        // `a.jpg.txt`, where `a.txt` was read.
        let is_photo = found.photos.binary_search_by(|photo| photo.as_str().cmp(key)).is_ok();
        match texts.get(stem(key)) {
            Some((first, _)) if is_photo => problems.add(ProblemKind::SecondText, format!("{text} beside {first}")),
            _ => problems.add(ProblemKind::UnknownPhoto, *text),
        }
    }
    Ok(raw)
}

fn folder_split(photo: &str) -> Option<Split> {
    photo.split_once('/').and_then(|(folder, _)| folder.parse().ok())
}
