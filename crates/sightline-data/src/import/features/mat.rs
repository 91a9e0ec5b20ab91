//! MATLAB's MAT files, level 5 (`-v6` and `-v7`): numeric matrices, packed or not. NeuralTalk's `vgg_feats.mat`.
//!
//! A header of 128 bytes, then elements: type u32, bytes u32, data padded to 8 bytes. Short data shares the 8 bytes of
//! its tag. A matrix is an element of elements: flags, dimensions, name, numbers. A packed element is zlib around one.

use std::path::Path;

use flate2::read::ZlibDecoder;

use super::array::{Array, Bytes, Kind};
use crate::{Error, Result};

const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

/// All numeric matrices, by name, in MATLAB's order of axes.
pub(super) fn read(path: &Path) -> Result<Vec<(String, Array)>> {
    let bad = |message: &str| Error::format(path, format!("{message}: save it again in MATLAB with -v7"));
    let file = Bytes::of_file(path)?;
    let bytes = file.as_ref();
    if bytes.starts_with(b"MATLAB 7.3") || bytes.starts_with(b"\x89HDF") || bytes.get(512..516) == Some(b"\x89HDF") {
        return Err(bad("a MAT file of version 7.3 (HDF5), expected level 5"));
    }
    if bytes.len() < 128 {
        return Err(bad("MAT file whose header is truncated"));
    }
    let big_endian = match &bytes[126..128] {
        b"IM" => false,
        b"MI" => true,
        _ => return Err(bad("not a MAT file of level 5 (its header is another)")),
    };
    let mut found = Vec::new();
    let mut rest = file.slice(128..bytes.len()).ok_or_else(|| bad("MAT file whose header is truncated"))?;
    while !rest.as_ref().is_empty() {
        let (element, after) = Element::take(&rest, big_endian).ok_or_else(|| bad("truncated MAT file"))?;
        let element = if element.kind == COMPRESSED {
            // The length of what is packed stands in its first 8 bytes, and no honest file holds more.
            let mut tag = [0; 8];
            let mut decoder = ZlibDecoder::new(element.data.as_ref());
            std::io::Read::read_exact(&mut decoder, &mut tag).map_err(|e| bad(&format!("broken MAT file ({e})")))?;
            let length = u64::from(number(&tag[4..], big_endian)) + 8;
            let unpacked = Bytes::unpacked(path, ZlibDecoder::new(element.data.as_ref()), length)?;
            Element::take(&unpacked, big_endian).ok_or_else(|| bad("truncated MAT file"))?.0
        } else {
            element
        };
        if element.kind == MATRIX && !element.data.as_ref().is_empty() {
            found.extend(matrix(path, &element.data, big_endian)?);
        }
        rest = after;
    }
    Ok(found)
}

struct Element {
    kind: u32,
    data: Bytes,
}

fn number(bytes: &[u8], big_endian: bool) -> u32 {
    let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
    if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
}

impl Element {
    /// The first element and what follows it; `None` where it is truncated.
    fn take(from: &Bytes, big_endian: bool) -> Option<(Self, Bytes)> {
        let bytes = from.as_ref();
        let first = number(bytes.get(..4)?, big_endian);
        let small = (first >> 16) as usize;
        if small > 0 {
            let data = from.slice(4..4 + small.min(4)).filter(|_| small <= 4)?;
            return Some((Self { kind: first & 0xffff, data }, from.slice(8..bytes.len())?));
        }
        let length = number(bytes.get(4..8)?, big_endian) as usize;
        let end = length.checked_add(8)?;
        let data = from.slice(8..end)?;
        // Packed elements are not padded; the last one's padding may be missing.
        let next = if first == COMPRESSED { end } else { end.next_multiple_of(8) };
        Some((Self { kind: first, data }, from.slice(next.min(bytes.len())..bytes.len())?))
    }
}

/// A numeric matrix with its name; nothing for text, cells and the like.
fn matrix(path: &Path, data: &Bytes, big_endian: bool) -> Result<Option<(String, Array)>> {
    let broken = || Error::format(path, "broken MAT file: a matrix is truncated");
    let (flags, rest) = Element::take(data, big_endian).ok_or_else(broken)?;
    let class = number(flags.data.as_ref().get(..4).ok_or_else(broken)?, big_endian);
    let complex = class & 0x0800 != 0;
    // 6 is double, 7 single, 8 to 15 are integers; the others (cell, struct, object, char, sparse) hold no plain numbers.
    if !(6..=15).contains(&(class & 0xff)) || complex {
        return Ok(None);
    }
    let (dimensions, rest) = Element::take(&rest, big_endian).ok_or_else(broken)?;
    let (name, rest) = Element::take(&rest, big_endian).ok_or_else(broken)?;
    let (numbers, _) = Element::take(&rest, big_endian).ok_or_else(broken)?;
    // Whole numbers are stored as narrow as they fit, whatever the matrix's class.
    let kind = match numbers.kind {
        1 => Kind::I8,
        2 => Kind::U8,
        3 => Kind::I16,
        4 => Kind::U16,
        5 => Kind::I32,
        6 => Kind::U32,
        7 => Kind::F32,
        9 => Kind::F64,
        12 => Kind::I64,
        13 => Kind::U64,
        other => return Err(Error::format(path, format!("broken MAT file: numbers of the unknown type {other}"))),
    };
    let shape = dimensions.data.as_ref().chunks_exact(4).map(|n| number(n, big_endian) as usize).collect();
    let name = String::from_utf8_lossy(name.data.as_ref()).into_owned();
    Ok(Some((name, Array::new(path, shape, kind, big_endian, true, numbers.data)?)))
}
