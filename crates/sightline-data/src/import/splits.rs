//! Splits: from lists of photos, or made here.

use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{file_name, lines, read_text};
use crate::problems::{ProblemKind, Problems};
use crate::{Result, Split};

/// Lists beside the source: `Flickr_8k.trainImages.txt`, `train.txt`, and so on.
pub(super) fn lists_beside(folder: &Path) -> Vec<(Split, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut lists: Vec<(Split, PathBuf)> = entries
        .filter_map(|entry| entry.ok())
        .filter_map(|entry| {
            let name = entry.file_name().to_str()?.to_lowercase();
            let stem = name.strip_suffix(".txt")?;
            let word = match stem.rsplit_once(['.', '_']) {
                Some((_, last)) if last.ends_with("images") => last,
                _ => stem,
            };
            let split = word.strip_suffix("images").unwrap_or(word).parse().ok()?;
            entry.path().is_file().then(|| (split, entry.path()))
        })
        .collect();
    lists.sort();
    lists
}

/// Reads lists of photos, one a line, with or without extension and folders. The key is the name's stem.
pub(super) fn read_lists(lists: &[(Split, PathBuf)], problems: &mut Problems) -> Result<FxHashMap<String, Split>> {
    let mut splits = FxHashMap::default();
    for (split, path) in lists {
        for (number, line) in lines(&read_text(path)?, path, problems) {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            if let Some(other) = splits.insert(stem(line).to_owned(), *split).filter(|other| other != split) {
                problems.add(
                    ProblemKind::DuplicateId,
                    format!("`{line}` in the lists of {other} and of {split} ({} line {number})", file_name(path)),
                );
            }
        }
    }
    Ok(splits)
}

/// The name without folders and extension: lists leave out either.
pub(super) fn stem(path: &str) -> &str {
    let name = path.rsplit_once(['/', '\\']).map_or(path, |(_, name)| name);
    if super::is_photo_name(name) { name.rsplit_once('.').map_or(name, |(stem, _)| stem) } else { name }
}

/// A tenth of the photos for validation and a tenth for the test, chosen by the hash of their paths: the same photos
/// in any order are split alike. Below ten photos all are for training.
pub(super) fn make<'a>(paths: impl Iterator<Item = &'a str>, seed: u64) -> Vec<Split> {
    let mut order: Vec<(u64, &str, usize)> =
        paths.enumerate().map(|(i, path)| (xxh3_64_with_seed(path.as_bytes(), seed), path, i)).collect();
    order.sort_unstable();
    let tenth = order.len() / 10;
    let mut splits = vec![Split::Train; order.len()];
    for (rank, &(_, _, i)) in order.iter().take(2 * tenth).enumerate() {
        splits[i] = if rank < tenth { Split::Test } else { Split::Val };
    }
    splits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_splits_depend_on_paths_and_seed_only() {
        let paths: Vec<String> = (0..105).map(|i| format!("{i}.jpg")).collect();
        let splits = make(paths.iter().map(String::as_str), 1);
        let count = |split| splits.iter().filter(|&&s| s == split).count();
        assert_eq!([Split::Train, Split::Val, Split::Test].map(count), [85, 10, 10]);
        let mut backwards = make(paths.iter().rev().map(String::as_str), 1);
        backwards.reverse();
        assert_eq!(backwards, splits);
        assert_ne!(make(paths.iter().map(String::as_str), 2), splits);
        assert_eq!(make(["a", "b"].into_iter(), 1), [Split::Train; 2]);
    }

    #[test]
    fn stems_of_listed_names() {
        let check = |name: &str, expected: &str| assert_eq!(stem(name), expected);
        check("a/b.c.jpg", "b.c");
        check("1000268201_693b08cb0e", "1000268201_693b08cb0e");
        check("x\\b.PNG", "b");
        check("v1.2", "v1.2");
    }
}
