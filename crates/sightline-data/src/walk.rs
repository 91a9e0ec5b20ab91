//! The files below a folder: hidden ones left out, symbolic links followed once, everything that is no regular file
//! passed over.

use std::collections::HashSet;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ignore::{DirEntry, WalkBuilder};

use crate::{Error, Result};

/// What lies below a folder.
#[derive(Debug, Default)]
pub struct Below {
    /// The files that were asked for, by path.
    pub files: Vec<FileBelow>,
    /// What could not be looked into, by path.
    pub unreadable: Vec<Unreadable>,
}

/// A regular file, or a link to one.
#[derive(Debug)]
pub struct FileBelow {
    /// Below the folder.
    pub path: PathBuf,
    /// Of the file itself, not of a link to it.
    pub metadata: Metadata,
}

/// A place below the folder that could not be looked into.
#[derive(Debug)]
pub struct Unreadable {
    /// Below the folder; empty where it is not known.
    pub path: PathBuf,
    /// Whether nothing is there, as behind a link that leads nowhere.
    pub is_absent: bool,
    /// What the system said, without the path.
    pub reason: String,
}

/// All files below `root` that `is_wanted`, given their paths below it. A folder is walked once, whatever links lead to it,
/// one inside `root` by its own name, and one around `root` never. A link that leads nowhere counts where it is wanted.
///
/// # Errors
/// `root` is no folder, or cannot be read.
pub fn walk(root: &Path, is_wanted: impl Fn(&Path) -> bool) -> Result<Below> {
    let real = root.canonicalize().map_err(Error::io("open", root))?;
    std::fs::read_dir(root).map_err(Error::io("read", root))?;
    let met = Mutex::new(HashSet::new());
    let is_new = move |entry: &DirEntry| {
        if !entry.path_is_symlink() || entry.depth() == 0 || !entry.path().is_dir() {
            return true;
        }
        entry.path().canonicalize().is_ok_and(|target| {
            let is_around_or_inside = target.starts_with(&real) || real.starts_with(&target);
            !is_around_or_inside && met.lock().unwrap_or_else(PoisonError::into_inner).insert(target)
        })
    };
    // What version control leaves out counts all the same.
    let entries = WalkBuilder::new(root)
        .standard_filters(false)
        .hidden(true)
        .follow_links(true)
        .sort_by_file_name(Ord::cmp)
        .filter_entry(is_new)
        .build();
    let below = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_owned();
    let mut found = Below::default();
    let mut fail = |error: &ignore::Error, path: Option<&Path>| {
        // A link to a folder around it: everything behind it is met on the other way.
        if is_loop(error) {
            return;
        }
        let reason = path.and_then(refusal).unwrap_or_else(|| error.to_string());
        let path = path.map(below).unwrap_or_default();
        let is_absent = error.io_error().is_some_and(|error| error.kind() == ErrorKind::NotFound);
        if !is_absent || is_wanted(&path) {
            found.unreadable.push(Unreadable { path, is_absent, reason });
        }
    };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                fail(&error, path_of(&error));
                continue;
            }
        };
        let path = below(entry.path());
        if !entry.file_type().is_some_and(|kind| kind.is_file()) || !is_wanted(&path) {
            continue;
        }
        match entry.metadata() {
            Ok(metadata) => found.files.push(FileBelow { path, metadata }),
            Err(error) => fail(&error, Some(entry.path())),
        }
    }
    found.files.sort_unstable_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
    found.unreadable.sort_unstable_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
    Ok(found)
}

/// What the system says when it is asked for a place, without the path.
fn refusal(place: &Path) -> Option<String> {
    std::fs::metadata(place).and_then(|_| std::fs::read_dir(place)).err().map(|error| error.to_string())
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn files_are_found_and_traps_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let put = |name: &str| {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        };
        for name in ["b.jpg", "a/c.jpg", "a/notes.txt", ".hidden.jpg", ".git/d.jpg", "out/e.jpg", "dir.jpg/f.jpg"] {
            put(name);
        }
        // What version control leaves out is there all the same.
        std::fs::write(root.join(".gitignore"), "out/\n").unwrap();
        std::fs::write(root.join(".ignore"), "c.jpg\n").unwrap();
        std::fs::create_dir_all(root.join(".git/info")).unwrap();
        std::fs::write(root.join(".git/info/exclude"), "b.jpg\n").unwrap();
        std::fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff\xfe.jpg")), "x").unwrap();
        let link = |target: &Path, name: &str| std::os::unix::fs::symlink(target, root.join(name)).unwrap();
        link(root, "a/loop");
        link(Path::new(".."), "a/up");
        link(&root.join("a"), "again");
        link(root.parent().unwrap(), "around");
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::write(elsewhere.path().join("g.jpg"), "x").unwrap();
        for name in ["link1", "link2"] {
            link(elsewhere.path(), name);
        }
        link(Path::new("nowhere.jpg"), "broken.jpg");
        link(Path::new("nowhere"), "broken");
        link(Path::new("self"), "self");
        let fifo = std::process::Command::new("mkfifo").arg(root.join("pipe.jpg")).status();
        assert!(fifo.unwrap().success());

        let found = walk(root, |path| path.extension().is_some_and(|extension| extension == "jpg")).unwrap();
        let paths: Vec<&[u8]> = found.files.iter().map(|file| file.path.as_os_str().as_bytes()).collect();
        let expected = [&b"a/c.jpg"[..], b"b.jpg", b"dir.jpg/f.jpg", b"link1/g.jpg", b"out/e.jpg", b"\xff\xfe.jpg"];
        assert_eq!(paths, expected);
        assert!(found.files.iter().all(|file| file.metadata.len() == 1));
        let [broken, odd] = &found.unreadable[..] else { panic!("{:?}", found.unreadable) };
        assert!(broken.is_absent && broken.path == Path::new("broken.jpg"), "{broken:?}");
        assert!(!odd.is_absent && odd.path == Path::new("self") && !odd.reason.contains("self"), "{odd:?}");

        assert!(walk(&root.join("b.jpg"), |_| true).is_err());
        assert!(walk(&root.join("absent"), |_| true).is_err());
    }
}
