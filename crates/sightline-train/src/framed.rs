//! What all files of models have around them, little endian: magic (8 bytes), format version (u32), length of the header
//! (u64), the header (JSON), values, XXH3-64 of everything before it (u64).

use std::io::{Read, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::Result;

/// Bytes of magic, version and the header's length.
const OPENING: usize = 20;
const TRUNCATED: &str = "truncated or changed (the checksum does not match); copy it again, or make it anew";

/// One format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    pub(crate) magic: &'static [u8; 8],
    pub(crate) version: u32,
    /// What a file of it is called.
    pub(crate) name: &'static str,
}

/// A file of a format in memory, whole and unchanged.
#[derive(Debug)]
pub(crate) struct Parsed<'b, H> {
    pub(crate) header: H,
    pub(crate) values: &'b [u8],
    /// Where the values begin.
    pub(crate) start: usize,
    pub(crate) checksum: u64,
}

impl Format {
    /// Writes a file beside its place, syncs and renames it; `fill` writes the values.
    pub(crate) fn write(
        self,
        path: &Path,
        header: &impl Serialize,
        fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        let header = serde_json::to_vec(header).expect("a header is plain data");
        sightline_data::write::atomically(path, |file| {
            let mut writer = Hashing { inner: file, hash: Xxh3::new() };
            writer.write_all(self.magic)?;
            writer.write_all(&self.version.to_le_bytes())?;
            writer.write_all(&(header.len() as u64).to_le_bytes())?;
            writer.write_all(&header)?;
            fill(&mut writer)?;
            let checksum = writer.hash.digest();
            writer.inner.write_all(&checksum.to_le_bytes())
        })?;
        Ok(())
    }

    /// Reads what [`Format::write`] wrote; anything else, or any changed byte, is an error.
    pub(crate) fn parse<H: DeserializeOwned>(self, bytes: &[u8]) -> Result<Parsed<'_, H>, String> {
        let length = self.header_length(bytes)?;
        let (body, checksum) = bytes.split_last_chunk().ok_or(TRUNCATED)?;
        let checksum = u64::from_le_bytes(*checksum);
        if xxh3_64(body) != checksum {
            return Err(TRUNCATED.into());
        }
        let length = usize::try_from(length).map_err(|_| TRUNCATED)?;
        let (header, values) = body.get(OPENING..).and_then(|after| after.split_at_checked(length)).ok_or(TRUNCATED)?;
        Ok(Parsed { header: self::header(header)?, values, start: OPENING + length, checksum })
    }

    /// The header and the number of bytes of the values of a file of `length` bytes; all of it is read for its checksum,
    /// and nothing of the values kept. The inner error is the file's, the outer one the reader's.
    pub(crate) fn outline<H: DeserializeOwned>(
        self,
        mut file: impl Read,
        length: u64,
    ) -> std::io::Result<Result<(H, u64), String>> {
        let mut opening = Vec::new();
        file.by_ref().take(OPENING as u64).read_to_end(&mut opening)?;
        let header_length = match self.header_length(&opening) {
            Ok(length) => length,
            Err(message) => return Ok(Err(message)),
        };
        let Some(values) = length.checked_sub(OPENING as u64 + 8).and_then(|n| n.checked_sub(header_length)) else {
            return Ok(Err(TRUNCATED.into()));
        };
        let mut hashing = Hashing { inner: std::io::sink(), hash: Xxh3::new() };
        hashing.write_all(&opening)?;
        let mut header = Vec::new();
        file.by_ref().take(header_length).read_to_end(&mut header)?;
        hashing.write_all(&header)?;
        std::io::copy(&mut file.by_ref().take(values), &mut hashing)?;
        let mut checksum = Vec::new();
        file.take(9).read_to_end(&mut checksum)?;
        if checksum != hashing.hash.digest().to_le_bytes() {
            return Ok(Err(TRUNCATED.into()));
        }
        Ok(self::header(&header).map(|header| (header, values)))
    }

    /// The length of the header, from a file's first bytes.
    fn header_length(self, bytes: &[u8]) -> Result<u64, String> {
        let Self { magic, version: own, name } = self;
        let rest = bytes.strip_prefix(magic).ok_or_else(|| format!("not {name} (wrong first bytes)"))?;
        let (version, rest) = rest.split_first_chunk().ok_or("truncated in its first bytes; copy it again")?;
        let version = u32::from_le_bytes(*version);
        if version != own {
            return Err(format!("format version {version}; this program reads version {own}"));
        }
        let (length, _) = rest.split_first_chunk().ok_or(TRUNCATED)?;
        Ok(u64::from_le_bytes(*length))
    }
}

fn header<H: DeserializeOwned>(bytes: &[u8]) -> Result<H, String> {
    serde_json::from_slice(bytes).map_err(|e| format!("header: {e}"))
}

/// Passes bytes on and hashes them.
struct Hashing<W> {
    inner: W,
    hash: Xxh3,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
