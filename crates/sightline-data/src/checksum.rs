//! XXH3 (64 bits, 16 hex digits) of bytes and files: finds accidents, not forgeries.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use crate::{Error, Result};

/// The checksum of some bytes, as 16 hex digits.
pub fn of_bytes(bytes: &[u8]) -> String {
    format!("{:016x}", xxh3_64(bytes))
}

/// The checksum of a file's content, as 16 hex digits; the file is read piece by piece.
pub fn of_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let mut hasher = Xxh3Default::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(Error::io("read", path))? {
            0 => return Ok(format!("{:016x}", hasher.digest())),
            n => hasher.update(&buffer[..n]),
        }
    }
}
