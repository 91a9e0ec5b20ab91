//! The photos below a folder as an index keeps them: paths as bytes, with what tells a changed file.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::ensure;
use sightline_data::import::is_photo_name;
use sightline_data::walk::{self, FileBelow, Unreadable};

/// What tells a changed file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Length.
    pub bytes: u64,
    /// Nanoseconds since 1970 of the last change.
    pub modified: i64,
}

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
pub fn photos(root: &Path) -> anyhow::Result<(Vec<Found>, Vec<Problem>)> {
    ensure!(root.is_dir(), "{} is no folder; name the folder that holds the photos", root.display());
    let below = walk::walk(root, |path| is_photo_name(&path.to_string_lossy()))?;
    let found = |file: FileBelow| {
        let modified = file.metadata.modified().ok().and_then(|time| match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).ok(),
            Err(before) => i64::try_from(before.duration().as_nanos()).ok().map(|nanoseconds| -nanoseconds),
        });
        let stamp = Stamp { bytes: file.metadata.len(), modified: modified.unwrap_or(0) };
        Found { path: to_bytes(&file.path), stamp }
    };
    let problem = |place: Unreadable| Problem {
        path: to_bytes(&place.path),
        is_absent: place.is_absent,
        reason: format!("{}: {}", root.join(&place.path).display(), place.reason),
    };
    Ok((below.files.into_iter().map(found).collect(), below.unreadable.into_iter().map(problem).collect()))
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

    #[test]
    fn a_place_that_cannot_be_seen_hides_what_may_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir(root.join("a")).unwrap();
        let odd = to_path(b"a/\xff\xfe.jpg");
        std::fs::write(root.join(&odd), "x").unwrap();
        std::fs::write(root.join("a/notes.txt"), "x").unwrap();
        std::os::unix::fs::symlink("nowhere.jpg", root.join("broken.jpg")).unwrap();
        std::os::unix::fs::symlink("self", root.join("self")).unwrap();

        let (found, problems) = photos(root).unwrap();
        let [found] = &found[..] else { panic!("{found:?}") };
        assert_eq!((&found.path[..], found.stamp.bytes), (&b"a/\xff\xfe.jpg"[..], 1));
        assert!(found.stamp.modified > 0 && to_path(&found.path) == odd);
        // A link to nothing hides nothing, one that leads to itself may.
        let [broken, odd] = &problems[..] else { panic!("{problems:?}") };
        assert!(broken.is_absent && broken.path == b"broken.jpg" && broken.reason.contains("broken.jpg"), "{broken:?}");
        assert!(odd.hides(b"self/h.jpg") && odd.hides(b"self") && !odd.hides(b"selfish.jpg"), "{odd:?}");
        assert!(!broken.hides(b"broken.jpg"));

        assert!(photos(&root.join("broken.jpg")).unwrap_err().to_string().contains("is no folder"));
    }
}
