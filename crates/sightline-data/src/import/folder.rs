//! A folder of photos with a `.txt` of the same name beside each, one sentence a line; folders may nest, and folders
//! named `train`, `val`, `test` at the top are the splits.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use rustc_hash::FxHashSet;

use super::{Detected, Raw, RawPhoto, RawSentence, RawSplit, lines, photos, read_text};
use crate::problems::{ProblemKind, Problems};
use crate::{Error, Result, Split};

/// All files below a folder, relative, with `/`; sorted. Links are followed, each folder is visited once, and one inside the
/// folder by its own name.
struct Walk {
    photos: Vec<String>,
    texts: Vec<String>,
}

fn walk(root: &Path, problems: &mut Problems) -> Result<Walk> {
    let mut found = Walk { photos: Vec::new(), texts: Vec::new() };
    let inside = std::fs::canonicalize(root).map_err(Error::io("open", root))?;
    let mut visited: FxHashSet<PathBuf> = FxHashSet::default();
    let mut waiting = vec![(root.to_owned(), String::new())];
    while let Some((folder, prefix)) = waiting.pop() {
        let real = std::fs::canonicalize(&folder).map_err(Error::io("open", &folder))?;
        let is_linked =
            folder != root && folder.is_symlink() && (real.starts_with(&inside) || inside.starts_with(&real));
        if is_linked || !visited.insert(real) {
            continue;
        }
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if folder == root => return Err(Error::io("list", &folder)(error)),
            Err(error) => {
                problems.add(ProblemKind::Unreadable, format!("{prefix} ({error})"));
                continue;
            }
        };
        let mut names: Vec<_> = entries.filter_map(|entry| entry.ok()).map(|entry| entry.file_name()).collect();
        names.sort();
        for name in names {
            let Some(utf8) = name.to_str() else {
                problems.add(ProblemKind::NotUtf8, format!("file name {}", name.display()));
                continue;
            };
            if utf8.starts_with('.') || utf8 == "__MACOSX" {
                continue;
            }
            let path = folder.join(&name);
            let relative = format!("{prefix}{utf8}");
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => waiting.push((path, relative + "/")),
                Ok(_) if photos::is_photo_name(utf8) => found.photos.push(relative),
                Ok(_) if utf8.to_lowercase().ends_with(".txt") => found.texts.push(relative),
                Ok(_) => {}
                Err(error) => problems.add(ProblemKind::Unreadable, format!("{relative} ({error})")),
            }
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
    walk(root, &mut Problems::default()).is_ok_and(|found| {
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
    let found = walk(root, problems)?;
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
