//! The journal of an unfinished store, version 1: finished photos, appended one by one.
//!
//! ```text
//! header   magic             8 bytes  "SLJOURN\0"
//!          version           u32      1
//!          settings bytes    u32
//!          settings          JSON, StoreSettings
//!          checksum          u64      XXH3-64 of the header before it
//! record   payload bytes     u64
//!          checksum          u64      XXH3-64 of payload, seeded with its length
//!          payload           key bytes u32, width u32, height u32, regions u32, key UTF-8,
//!                            boxes f32 [regions, 4], scores f32 [regions], vectors f16 [regions, dim]
//! ```
//! Little-endian, packed. A kill can only tear the header, which is then written anew, or the last record, which the next
//! reader cuts off.

use std::ops::Range;
use std::path::Path;

use half::f16;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{PhotoFeatures, Record, StoreSettings};
use crate::{Error, Result};

const MAGIC: [u8; 8] = *b"SLJOURN\0";
const VERSION: u32 = 1;

pub(super) fn header(settings: &StoreSettings) -> Vec<u8> {
    let json = serde_json::to_vec(settings).expect("settings are strings and numbers");
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((json.len() as u32).to_le_bytes());
    bytes.extend(json);
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    bytes
}

/// One record, ready to append. `vectors` are `photo.vectors` rounded; sizes are checked by the caller.
pub(super) fn encode(photo: &PhotoFeatures, vectors: &[f16]) -> Vec<u8> {
    let length = 16 + photo.key.len() + photo.boxes.len() * 20 + vectors.len() * 2;
    let mut bytes = Vec::with_capacity(16 + length);
    bytes.extend((length as u64).to_le_bytes());
    bytes.extend([0; 8]);
    for number in [photo.key.len() as u32, photo.width, photo.height, photo.boxes.len() as u32] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(photo.key.as_bytes());
    for corners in &photo.boxes {
        bytes.extend(<[f32; 4]>::from(*corners).into_iter().flat_map(f32::to_le_bytes));
    }
    bytes.extend_from_slice(bytemuck::cast_slice(&photo.scores));
    bytes.extend_from_slice(bytemuck::cast_slice(vectors));
    assert_eq!(bytes.len(), 16 + length, "record of `{}`", photo.key);
    let checksum = xxh3_64_with_seed(&bytes[16..], length as u64);
    bytes[8..16].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// A journal read from its beginning to the first byte that makes no whole record.
pub(super) struct Scan {
    pub(super) settings: StoreSettings,
    /// The payload of every record, in the order of writing.
    pub(super) payloads: Vec<Range<usize>>,
    /// Length of what is whole.
    pub(super) length: usize,
}

pub(super) fn scan(path: &Path, bytes: &[u8]) -> Result<Scan> {
    let bad = |message: &str| Error::format(path, format!("{message}; remove it to start this store anew"));
    let mut rest = bytes;
    let mut take = |n: usize| rest.split_off(..n);
    if take(8) != Some(&MAGIC) {
        return Err(bad("expected the journal of a feature store, got something else"));
    }
    let damaged = || bad("journal of a feature store whose header is damaged");
    let version = take(4).and_then(u32_of).ok_or_else(damaged)?;
    if version != VERSION {
        return Err(bad(&format!("journal of version {version}, but this program continues version {VERSION}")));
    }
    let json = take(4).and_then(u32_of).and_then(|n| take(n as usize)).ok_or_else(damaged)?;
    let checksum = take(8).and_then(u64_of).ok_or_else(damaged)?;
    let header = bytes.len() - rest.len();
    if xxh3_64(&bytes[..header - 8]) != checksum {
        return Err(damaged());
    }
    let settings: StoreSettings = serde_json::from_slice(json).map_err(|_| damaged())?;

    let mut payloads = Vec::new();
    let mut length = header;
    while let Some(payload) = whole_record(&bytes[length..]) {
        if view(payload, settings.dim).is_none() {
            break;
        }
        let start = length + 16;
        length = start + payload.len();
        payloads.push(start..length);
    }
    Ok(Scan { settings, payloads, length })
}

/// The payload of the record that `bytes` start with, if it is all there and intact.
fn whole_record(bytes: &[u8]) -> Option<&[u8]> {
    let length = u64_of(bytes.get(..8)?)?;
    let checksum = u64_of(bytes.get(8..16)?)?;
    let payload = bytes[16..].get(..usize::try_from(length).ok()?)?;
    (xxh3_64_with_seed(payload, length) == checksum).then_some(payload)
}

/// Takes a payload apart; `None` where its parts do not fill it exactly.
pub(super) fn view(payload: &[u8], dim: usize) -> Option<Record<'_>> {
    let mut rest = payload;
    let mut number = || rest.split_off(..4).and_then(u32_of);
    let (key_bytes, width, height, regions) = (number()?, number()?, number()?, number()?);
    let n_regions = regions as usize;
    let key = std::str::from_utf8(rest.split_off(..key_bytes as usize)?).ok()?;
    let boxes = rest.split_off(..n_regions.checked_mul(16)?)?;
    let scores = rest.split_off(..n_regions.checked_mul(4)?)?;
    (Some(rest.len()) == n_regions.checked_mul(dim)?.checked_mul(2)).then_some(Record {
        key,
        width,
        height,
        n_regions,
        boxes,
        scores,
        vectors: rest,
    })
}

fn u32_of(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn u64_of(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}
