//! A read-only memory map: the one place of this crate with unsafe code.
#![expect(unsafe_code, reason = "a memory map is only sound while nobody cuts the file short, which no type can say")]

use std::fs::File;

use memmap2::Mmap;

/// Maps a whole file. Caches are replaced by renaming, never rewritten in place, so a mapped one does not change.
pub(super) fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: see above; a cache is only ever written beside its place and renamed.
    unsafe { Mmap::map(file) }
}
