//! What the two files of an index share: a header, sections, a checksum; written once, read by mapping.
//!
//! Little-endian. Every section starts at a multiple of 64 bytes (zeros between), so that a mapped file can be read as
//! numbers in place. Any changed byte and any cut is found when the file is opened.
//!
//! ```text
//! header   0  magic            8 bytes
//!          8  version          u32
//!         12  kind             u32      of numbers, whatever the file says it means
//!         16  length           u64      of the whole file, the checksum included
//!         24  sizes            u64 [5]  from which the lengths of the sections follow
//! sections
//! checksum    XXH3-64 of everything before it, u64
//! ```
#![expect(unsafe_code, reason = "a memory map is sound only while nobody changes the file beneath it")]

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use crate::{Error, Result};

const ALIGN: u64 = 64;
const HEADER: u64 = 64;

/// What a file says of itself in its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
    pub(crate) kind: u32,
    pub(crate) sizes: [u64; 5],
}

/// Where sections of these lengths in bytes lie, and the file's length; `None` where a size does not fit the machine.
fn layout(lengths: &[Option<u64>]) -> Option<(Vec<Range<usize>>, u64)> {
    let mut at = HEADER;
    let mut sections = Vec::with_capacity(lengths.len());
    for &length in lengths {
        let end = at.checked_add(length?)?;
        sections.push(usize::try_from(at).ok()?..usize::try_from(end).ok()?);
        at = end.checked_next_multiple_of(ALIGN)?;
    }
    usize::try_from(at).ok()?;
    Some((sections, at.checked_add(8)?))
}

/// Writes a file section by section.
pub(crate) struct Writer<W> {
    inner: W,
    hasher: Xxh3Default,
    written: usize,
    sections: std::vec::IntoIter<Range<usize>>,
    section: Range<usize>,
    end: usize,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(inner: W, header: &Header, lengths: &[Option<u64>]) -> io::Result<Self> {
        let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "vectors this many have no place in memory");
        let (sections, length) = layout(lengths).ok_or_else(too_large)?;
        let end = length as usize - 8;
        let mut writer =
            Self { inner, hasher: Xxh3Default::new(), written: 0, sections: sections.into_iter(), section: 0..0, end };
        writer.write(&header.magic)?;
        writer.write(&header.version.to_le_bytes())?;
        writer.write(&header.kind.to_le_bytes())?;
        writer.write(&length.to_le_bytes())?;
        for size in header.sizes {
            writer.write(&size.to_le_bytes())?;
        }
        writer.section = 0..HEADER as usize;
        Ok(writer)
    }

    /// Goes to the next section; the one before must be full.
    pub(crate) fn next_section(&mut self) -> io::Result<()> {
        assert_eq!(self.written, self.section.end, "a section is full before the next begins");
        self.section = self.sections.next().expect("no more sections than lengths");
        self.pad_to(self.section.start)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes)?;
        self.hasher.update(bytes);
        self.written += bytes.len();
        Ok(())
    }

    fn pad_to(&mut self, position: usize) -> io::Result<()> {
        let zeros = [0; ALIGN as usize];
        self.write(&zeros[..position - self.written])
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        assert!(self.written == self.section.end && self.sections.next().is_none(), "all sections are full");
        self.pad_to(self.end)?;
        let checksum = self.hasher.digest();
        self.inner.write_all(&checksum.to_le_bytes())
    }
}

/// A mapped file whose checksum was right when it was opened.
pub(crate) struct Mapped {
    path: PathBuf,
    map: Mmap,
    pub(crate) header: Header,
    sections: Vec<Range<usize>>,
    pub(crate) checksum: u64,
}

impl std::fmt::Debug for Mapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mapped({}, {} bytes)", self.path.display(), self.map.len())
    }
}

impl Mapped {
    /// Opens a file of this magic and version; `lengths` gives the sections' bytes from the header.
    ///
    /// # Errors
    /// No such file; another kind of file; another version; cut short, or changed since it was written.
    pub(crate) fn open(
        path: &Path,
        magic: [u8; 8],
        version: u32,
        lengths: impl FnOnce(&Header) -> Vec<Option<u64>>,
    ) -> Result<Self> {
        let file = File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::format(path, "missing; run `sightline index` again"),
            _ => Error::io("open", path)(error),
        })?;
        // SAFETY: these files are only ever replaced by renaming, never rewritten in place, and the map is only read.
        // A stranger that rewrites one in place can make reads see other bytes; every access is bounds-checked against
        // the length at opening, so it never reaches outside the map.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        let bad = |what: &str| Error::format(path, format!("{what}; run `sightline index` again"));
        if map.get(..8) != Some(&magic[..]) {
            return Err(bad("not a file of this index (wrong first bytes)"));
        }
        if map.len() < HEADER as usize + 8 {
            return Err(bad("cut short"));
        }
        let u32_at = |at: usize| u32::from_le_bytes([map[at], map[at + 1], map[at + 2], map[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if u32_at(8) != version {
            let message = format!("of version {}, but this program reads version {version}", u32_at(8));
            return Err(bad(&message));
        }
        let sizes = [u64_at(24), u64_at(32), u64_at(40), u64_at(48), u64_at(56)];
        let header = Header { magic, version, kind: u32_at(12), sizes };
        if u64_at(16) != map.len() as u64 {
            return Err(bad(&format!("{} bytes, expected {}: cut short or changed", map.len(), u64_at(16))));
        }
        let body = map.len() - 8;
        let checksum = u64_at(body);
        if xxh3_64(&map[..body]) != checksum {
            return Err(bad("changed since it was written (its checksum differs)"));
        }
        let (sections, length) = layout(&lengths(&header)).ok_or_else(|| bad("absurd sizes in its header"))?;
        if length != map.len() as u64 {
            return Err(bad("its sizes contradict its length"));
        }
        Ok(Self { path: path.to_owned(), map, header, sections, checksum })
    }

    /// A section as numbers. Panics where it is not a whole number of them, which [`Mapped::open`] rules out.
    pub(crate) fn section<T: bytemuck::AnyBitPattern>(&self, index: usize) -> &[T] {
        bytemuck::cast_slice(&self.map[self.sections[index].clone()])
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn error(&self, what: &str) -> Error {
        Error::format(&self.path, format!("{what}; run `sightline index` again"))
    }
}

#[cfg(target_endian = "big")]
compile_error!("index files map little-endian numbers as they lie; big-endian machines need a converting reader");
