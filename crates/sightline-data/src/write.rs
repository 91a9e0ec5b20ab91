//! Files written beside their place, synced, then renamed: a kill at any moment leaves the old file or the new one.

use std::fs::{File, TryLockError};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use crate::{Error, Result};

/// Calls `fill` with a buffered writer on a temporary file beside `path`, syncs it, and renames it to `path`.
pub fn atomically(path: &Path, fill: impl FnOnce(&mut BufWriter<&File>) -> std::io::Result<()>) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".sightline-").suffix(".partial");
    #[cfg(unix)]
    {
        // A temporary file is private by default; what replaces a user's file follows the usual mask instead.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o644));
    }
    let temporary = builder.tempfile_in(folder).map_err(Error::io("write beside", path))?;
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
}
