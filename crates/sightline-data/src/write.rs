//! Files written beside their place, synced, then renamed: a kill at any moment leaves the old file or the new one.

use std::fs::{File, TryLockError};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::{Error, Result};

/// Calls `fill` with a buffered writer on a temporary file beside `path`, syncs it, and renames it to `path`. A link stays
/// a link: what it points to is replaced. A file that was there lends its permissions.
///
/// # Errors
/// A picture lies at `path`: nothing here is one, and a user's photos are never written over. Or a device or a pipe. Or the
/// system refused.
pub fn atomically(path: &Path, fill: impl FnOnce(&mut BufWriter<&File>) -> std::io::Result<()>) -> Result<()> {
    let path = &target(path)?;
    let folder = folder_of(path);
    let temporary = temporary_beside(path)?;
    if let Ok(before) = std::fs::metadata(path) {
        temporary.as_file().set_permissions(before.permissions()).map_err(Error::io("write", path))?;
    }
    let mut writer = BufWriter::new(temporary.as_file());
    fill(&mut writer).and_then(|()| writer.flush()).map_err(Error::io("write", path))?;
    drop(writer);
    temporary.as_file().sync_all().map_err(Error::io("sync", path))?;
    temporary.persist(path).map_err(|e| Error::io("rename to", path)(e.error))?;
    if let Ok(directory) = File::open(folder) {
        // Makes the rename itself durable where the system allows it; where it does not, the data is still whole.
        let _ = directory.sync_all();
    }
    Ok(())
}

/// Whether [`atomically`] could write to `path`: asked before long work whose result goes there.
///
/// # Errors
/// A picture, a folder, a device or a pipe lies there, or nothing can be written beside it.
pub fn check_place(path: &Path) -> Result<()> {
    temporary_beside(&target(path)?).map(drop)
}

/// What is to be replaced: the file itself, without links; an error where it is none that may be.
fn target(path: &Path) -> Result<PathBuf> {
    let Ok(there) = std::fs::metadata(path) else { return Ok(path.to_owned()) };
    if there.is_dir() {
        return Err(Error::format(path, "a folder lies here: name a file"));
    }
    if !there.is_file() {
        return Err(Error::format(path, "a device or a pipe, and only files are replaced: name a file"));
    }
    refuse_picture(path)?;
    path.canonicalize().map_err(Error::io("resolve", path))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn temporary_beside(path: &Path) -> Result<NamedTempFile> {
    let folder = folder_of(path);
    std::fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".sightline-").suffix(".partial");
    #[cfg(unix)]
    {
        // A temporary file is private by default; what replaces a user's file follows the usual mask instead.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o644));
    }
    builder.tempfile_in(folder).map_err(Error::io("write beside", path))
}

/// An error where the file at `path` is a picture.
fn refuse_picture(path: &Path) -> Result<()> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(Error::io("read", path))?;
    file.take(32).read_to_end(&mut start).map_err(Error::io("read", path))?;
    match picture_kind(&start) {
        Some(kind) => Err(Error::format(
            path,
            format!("a picture ({kind}) lies here, and none is ever written over: name another file"),
        )),
        None => Ok(()),
    }
}

/// The kind of picture that a file beginning so is, if it is one.
fn picture_kind(start: &[u8]) -> Option<&'static str> {
    let is_bitmap = || start.get(14..18).is_some_and(|header| matches!(header, [12..=124, 0, 0, 0]));
    match start {
        [0xff, 0xd8, 0xff, ..] => Some("JPEG"),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', ..] => Some("PNG"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("GIF"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("WebP"),
        [b'I', b'I', b'*' | b'+', 0, ..] | [b'M', b'M', 0, b'*' | b'+', ..] => Some("TIFF"),
        // Two letters begin texts too; the length of the header behind them does not.
        [b'B', b'M', ..] if is_bitmap() => Some("BMP"),
        [0, 0, 0, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', ..] => Some("AVIF"),
        [0, 0, 0, _, b'f', b't', b'y', b'p', b'h', b'e', ..] | [0, 0, 0, _, b'f', b't', b'y', b'p', b'm', b'i', ..] => {
            Some("HEIF")
        }
        [0xff, 0x0a, ..] | [0, 0, 0, 0x0c, b'J', b'X', b'L', b' ', ..] => Some("JPEG XL"),
        _ => None,
    }
}

/// Locks a file for this process alone; refuses at once, or nearly, where another has it.
///
/// A child that this process starts holds its locks from the fork until it runs its own program; so a lock that was
/// dropped just before may be there for some milliseconds more, and a refusal counts only when it lasts.
pub fn lock(file: &File) -> std::result::Result<(), TryLockError> {
    const TRIES: usize = 10;
    for _ in 1..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
            other => return other,
        }
    }
    file.try_lock()
}

/// Writes `value` as pretty JSON with a final newline, by [`atomically`].
pub fn json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    atomically(path, |writer| {
        serde_json::to_writer_pretty(&mut *writer, value)?;
        writer.write_all(b"\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        json(&path, &[1, 2]).unwrap();
        let failed = atomically(&path, |w| {
            w.write_all(b"half")?;
            Err(std::io::Error::other("disk full"))
        });
        assert!(failed.unwrap_err().to_string().contains("disk full"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[\n  1,\n  2\n]\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn links_and_permissions_stay_and_devices_too() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| folder.path().join(name));
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        symlink("file", &link).unwrap();
        json(&link, &1).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "1\n");
        assert!(link.is_symlink());
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let null = Path::new("/dev/null");
        for refused in [check_place(null), json(null, &1)] {
            assert!(refused.unwrap_err().to_string().contains("a device or a pipe"));
        }
    }

    #[test]
    fn pictures_are_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("photo.jpg");
        let bitmap = b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x02\0\0\0";
        for (start, kind) in [
            (&b"\xff\xd8\xff\xe0\0\x10JFIF"[..], "JPEG"),
            (b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", "PNG"),
            (b"GIF89a\x01\0", "GIF"),
            (b"RIFF\x24\0\0\0WEBPVP8 ", "WebP"),
            (b"II*\0\x08\0\0\0", "TIFF"),
            (b"MM\0*\0\0\0\x08", "TIFF"),
            (bitmap, "BMP"),
            (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
            (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIF"),
        ] {
            std::fs::write(&path, start).unwrap();
            for refused in [json(&path, &[1]), check_place(&path)] {
                let error = refused.unwrap_err().to_string();
                assert!(error.contains("photo.jpg") && error.contains(&format!("({kind})")), "{error}");
            }
            assert_eq!(std::fs::read(&path).unwrap(), start);
        }
        // What only begins like one is no picture.
        for start in [&b""[..], b"BMW, a car and a road with trees", b"GIF", b"RIFF and WEBP are words", b"{}"] {
            std::fs::write(&path, start).unwrap();
            check_place(&path).unwrap();
            json(&path, &[1]).unwrap();
        }
        assert!(check_place(folder.path()).unwrap_err().to_string().contains("a folder lies here"));
        std::fs::write(folder.path().join("file"), "x").unwrap();
        assert!(check_place(&folder.path().join("file/page.html")).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "a check leaves nothing behind");
    }
}
