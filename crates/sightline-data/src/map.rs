//! Read-only memory maps: the one place of this crate with unsafe code.
#![expect(unsafe_code, reason = "a memory map is sound only while nobody changes the file beneath it")]

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::{Error, Result};

/// Maps a whole file for reading.
///
/// The files mapped here are our own: stores are replaced by renaming, never rewritten in place, and journals only
/// grow, under a lock. A stranger that rewrites one in place while it is mapped can make reads see other bytes; every
/// access is bounds-checked against the length at opening, so it can never reach outside the map.
pub(crate) fn read_only(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    // SAFETY: see above; the map is private to this process and only ever read.
    unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))
}
