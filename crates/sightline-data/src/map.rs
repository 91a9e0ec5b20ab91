//! Read-only memory maps: the one place of this crate with unsafe code.
#![expect(unsafe_code, reason = "a memory map is sound only while nobody changes the file beneath it")]

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::{Error, Result};

/// Maps a whole file for reading.
///
/// The files mapped here are our own: stores are replaced by renaming, never rewritten in place, and journals only
/// grow, under a lock. Temporary files have no name that anybody could open. A stranger that rewrites one in place while it is mapped can make reads see other bytes; every
/// access is bounds-checked against the length at opening, so it can never reach outside the map.
pub(crate) fn read_only(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    of_file(&file).map_err(Error::io("map", path))
}

/// Maps an open file for reading; the same conditions hold.
pub(crate) fn of_file(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: see [`read_only`]; the map is private to this process and only ever read.
    unsafe { Mmap::map(file) }
}
