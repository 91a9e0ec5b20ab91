//! The photos below a folder: hidden ones left out, symbolic links followed once, everything that is no regular file
//! passed over.

use std::collections::HashSet;
use std::io::ErrorKind;
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

/// A place below the folder that could not be looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Below the folder, as the system's bytes; empty where it is not known.
    pub path: Vec<u8>,
    /// Whether nothing is there, as behind a link that leads nowhere.
    pub is_absent: bool,
    /// What the system said.
    pub reason: String,
}

impl Problem {
    /// Whether a photo that was not found may be there all the same.
    pub fn hides(&self, photo: &[u8]) -> bool {
        !self.is_absent && (self.path == photo || is_below(photo, &self.path))
    }
}

/// Whether a path lies below a folder; the empty folder holds everything.
pub fn is_below(path: &[u8], folder: &[u8]) -> bool {
    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with(b"/"))
}

/// All photos below `root`, by path, and what could not be looked into.
pub fn walk(root: &Path) -> anyhow::Result<(Vec<Found>, Vec<Problem>)> {
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
    let problem = |error: &ignore::Error, path: Option<&Path>| Problem {
        path: path.and_then(|path| path.strip_prefix(root).ok()).map(to_bytes).unwrap_or_default(),
        is_absent: error.io_error().is_some_and(|error| error.kind() == ErrorKind::NotFound),
        reason: error.to_string(),
    };
    // What version control leaves out are photos all the same.
    let entries = WalkBuilder::new(root)
        .standard_filters(false)
        .hidden(true)
        .follow_links(true)
        .sort_by_file_name(Ord::cmp)
        .filter_entry(is_new)
        .build();
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            // A link to a folder around it: everything behind it is met on the other way.
            Err(error) if is_loop(&error) => continue,
            Err(error) => {
                problems.push(problem(&error, path_of(&error)));
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
            Err(error) => problems.push(problem(&error, Some(entry.path()))),
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

/// The place that an error is about.
fn path_of(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => path_of(err),
        _ => None,
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
        // What version control leaves out is a photo all the same.
        std::fs::write(root.join(".gitignore"), "out/\n").unwrap();
        std::fs::write(root.join(".ignore"), "*.png\n").unwrap();
        std::fs::create_dir_all(root.join(".git/info")).unwrap();
        std::fs::write(root.join(".git/info/exclude"), "*.JPG\n").unwrap();
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
        std::os::unix::fs::symlink("self", root.join("self")).unwrap();
        let fifo = std::process::Command::new("mkfifo").arg(root.join("pipe.jpg")).status();
        assert!(fifo.unwrap().success());

        let (found, problems) = walk(root).unwrap();
        let paths: Vec<&[u8]> = found.iter().map(|found| found.path.as_slice()).collect();
        let expected = [&b"a/c.png"[..], b"b.JPG", b"dir.jpg/f.webp", b"link1/g.gif", b"out/e.jpg", b"\xff\xfe.jpg"];
        assert_eq!(paths, expected);
        assert_eq!(to_bytes(&to_path(paths[5])), paths[5]);
        assert!(found.iter().all(|found| found.stamp.bytes == 1 && found.stamp.modified > 0));
        // A link to nothing hides nothing, one that leads to itself may.
        let [broken, odd] = &problems[..] else { panic!("{problems:?}") };
        assert!(broken.is_absent && broken.path == b"broken.jpg" && broken.reason.contains("broken.jpg"), "{broken:?}");
        assert!(odd.hides(b"self/h.jpg") && odd.hides(b"self") && !odd.hides(b"selfish.jpg"), "{odd:?}");
        assert!(!broken.hides(b"broken.jpg"));

        assert!(walk(&root.join("b.JPG")).unwrap_err().to_string().contains("is no folder"));
        assert!(walk(&root.join("absent")).is_err());
    }
}
