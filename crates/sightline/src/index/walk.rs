//! The photos below a folder: hidden and ignored ones left out, symbolic links followed once, everything that is no
//! regular file passed over.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, ensure};
use ignore::{DirEntry, WalkBuilder};
use sightline_data::import::is_photo_name;

use super::catalogue::Stamp;

/// A file that has a photo's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Below the folder, as the system's bytes.
    pub path: Vec<u8>,
    /// Its length and last change.
    pub stamp: Stamp,
}

/// All photos below `root`, by path, and what could not be looked into.
///
/// `.gitignore` and `.ignore` files below `root` count, those above it do not.
pub fn walk(root: &Path) -> anyhow::Result<(Vec<Found>, Vec<String>)> {
    ensure!(root.is_dir(), "{} is no folder; name the folder that holds the photos", root.display());
    std::fs::read_dir(root).with_context(|| format!("cannot read {}", root.display()))?;
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    let real = root.canonicalize().with_context(|| format!("cannot open {}", root.display()))?;
    let met = Mutex::new(HashSet::new());
    // A folder is walked once, whatever links lead to it, and one inside `root` by its own name.
    let is_new = move |entry: &DirEntry| {
        if !entry.path_is_symlink() || entry.depth() == 0 || !entry.path().is_dir() {
            return true;
        }
        entry.path().canonicalize().is_ok_and(|target| {
            let is_around_or_inside = target.starts_with(&real) || real.starts_with(&target);
            !is_around_or_inside && met.lock().unwrap_or_else(PoisonError::into_inner).insert(target)
        })
    };
    let entries = WalkBuilder::new(root)
        .follow_links(true)
        .parents(false)
        .git_global(false)
        .require_git(false)
        .sort_by_file_name(Ord::cmp)
        .filter_entry(is_new)
        .build();
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            // A link to a folder around it: everything behind it is met on the other way.
            Err(error) if is_loop(&error) => continue,
            Err(error) => {
                problems.push(error.to_string());
                continue;
            }
        };
        let is_photo =
            entry.file_type().is_some_and(|kind| kind.is_file()) && is_photo_name(&entry.path().to_string_lossy());
        if !is_photo {
            continue;
        }
        match entry.metadata() {
            Ok(facts) => {
                let modified = facts.modified().ok().and_then(|time| match time.duration_since(UNIX_EPOCH) {
                    Ok(after) => i64::try_from(after.as_nanos()).ok(),
                    Err(before) => i64::try_from(before.duration().as_nanos()).ok().map(|nanoseconds| -nanoseconds),
                });
                let stamp = Stamp { bytes: facts.len(), modified: modified.unwrap_or(0) };
                let below = entry.path().strip_prefix(root).unwrap_or(entry.path());
                found.push(Found { path: to_bytes(below), stamp });
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok((found, problems))
}

fn is_loop(error: &ignore::Error) -> bool {
    match error {
        ignore::Error::Loop { .. } => true,
        ignore::Error::WithDepth { err, .. }
        | ignore::Error::WithPath { err, .. }
        | ignore::Error::WithLineNumber { err, .. } => is_loop(err),
        _ => false,
    }
}

/// A path as the system's own bytes: names need not be UTF-8.
#[cfg(unix)]
pub fn to_bytes(path: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt as _;
    path.as_os_str().as_bytes().to_vec()
}

/// The path that [`to_bytes`] took apart.
#[cfg(unix)]
pub fn to_path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    std::ffi::OsStr::from_bytes(bytes).into()
}

/// A path as bytes; where paths are no bytes, names that are not Unicode come out changed.
#[cfg(not(unix))]
pub fn to_bytes(path: &Path) -> Vec<u8> {
    path.to_string_lossy().replace('\\', "/").into_bytes()
}

/// The path that [`to_bytes`] took apart.
#[cfg(not(unix))]
pub fn to_path(bytes: &[u8]) -> PathBuf {
    String::from_utf8_lossy(bytes).into_owned().into()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn photos_are_found_and_traps_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let put = |name: &str| {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        };
        for name in ["b.JPG", "a/c.png", "a/notes.txt", ".hidden.jpg", ".git/d.jpg", "out/e.jpg", "dir.jpg/f.webp"] {
            put(name);
        }
        std::fs::write(root.join(".gitignore"), "out/\n").unwrap();
        std::fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff\xfe.jpg")), "x").unwrap();
        std::os::unix::fs::symlink(root, root.join("a/loop")).unwrap();
        std::os::unix::fs::symlink("..", root.join("a/up")).unwrap();
        std::os::unix::fs::symlink(root.join("a"), root.join("again")).unwrap();
        std::os::unix::fs::symlink(root.parent().unwrap(), root.join("around")).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::write(elsewhere.path().join("g.gif"), "x").unwrap();
        for link in ["link1", "link2"] {
            std::os::unix::fs::symlink(elsewhere.path(), root.join(link)).unwrap();
        }
        std::os::unix::fs::symlink("nowhere.jpg", root.join("broken.jpg")).unwrap();
        let fifo = std::process::Command::new("mkfifo").arg(root.join("pipe.jpg")).status();
        assert!(fifo.unwrap().success());

        let (found, problems) = walk(root).unwrap();
        let paths: Vec<&[u8]> = found.iter().map(|found| found.path.as_slice()).collect();
        assert_eq!(paths, [&b"a/c.png"[..], b"b.JPG", b"dir.jpg/f.webp", b"link1/g.gif", b"\xff\xfe.jpg"]);
        assert_eq!(to_bytes(&to_path(paths[4])), paths[4]);
        assert!(found.iter().all(|found| found.stamp.bytes == 1 && found.stamp.modified > 0));
        assert!(problems.len() == 1 && problems[0].contains("broken.jpg"), "{problems:?}");

        assert!(walk(&root.join("b.JPG")).unwrap_err().to_string().contains("is no folder"));
        assert!(walk(&root.join("absent")).is_err());
    }
}
