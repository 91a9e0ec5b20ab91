//! NumPy's `.npy` (versions 1 to 3) and `.npz`.

use std::io::Cursor;
use std::path::Path;

use zip::{CompressionMethod, ZipArchive};

use super::array::{Array, Bytes, Kind};
use crate::{Error, Result};

pub(super) fn read(path: &Path) -> Result<Array> {
    parse(path, &Bytes::of_file(path)?)
}

/// What an `.npz` holds.
#[derive(Default)]
pub(super) struct Archive {
    /// By name.
    pub(super) arrays: Vec<(String, Array)>,
    /// Names of what cannot be read: Python objects, and files that are no arrays.
    pub(super) left_out: Vec<String>,
}

pub(super) fn read_archive(path: &Path) -> Result<Archive> {
    let bad = |e: &dyn std::fmt::Display| Error::format(path, format!("broken .npz: {e}"));
    let file = Bytes::of_file(path)?;
    let mut archive = ZipArchive::new(Cursor::new(file.as_ref())).map_err(|e| bad(&e))?;
    let (mut arrays, mut left_out) = (Vec::new(), Vec::new());
    for i in 0..archive.len() {
        let entry = archive.by_index(i).map_err(|e| bad(&e))?;
        let name = entry.name().map_err(|e| bad(&e))?.into_owned();
        let Some(name) = name.strip_suffix(".npy").map(str::to_owned) else {
            left_out.push(name);
            continue;
        };
        let size = entry.size();
        let stored = entry.data_start().filter(|_| entry.compression() == CompressionMethod::Stored);
        let data = if let Some(start) = stored {
            let range = usize::try_from(start).ok().zip(usize::try_from(size).ok());
            let range = range.and_then(|(start, size)| Some(start..start.checked_add(size)?));
            let data =
                range.and_then(|range| file.slice(range)).ok_or_else(|| bad(&format!("`{name}` is truncated")))?;
            let mut crc = flate2::Crc::new();
            crc.update(data.as_ref());
            if crc.sum() != entry.crc32() {
                return Err(bad(&format!("`{name}` is damaged (its CRC differs)")));
            }
            data
        } else {
            Bytes::unpacked(path, entry, size)?
        };
        match parse(path, &data) {
            Ok(array) => arrays.push((name, array)),
            // Names and comments are often pickled; the vectors decide whether that matters.
            Err(_) if has_objects(data.as_ref()) => left_out.push(name),
            Err(error) => return Err(error),
        }
    }
    Ok(Archive { arrays, left_out })
}

/// The text of the header and where the data starts.
fn header(bytes: &[u8]) -> Option<(&str, usize)> {
    let (length, start) = match bytes.get(6)? {
        1 => (usize::from(u16::from_le_bytes(bytes.get(8..10)?.try_into().ok()?)), 10),
        2 | 3 => (u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?) as usize, 12),
        _ => return None,
    };
    let end = start + length;
    Some((std::str::from_utf8(bytes.get(start..end)?).ok()?, end))
}

/// What stands after `'name':`.
fn field<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let quoted = [format!("'{name}'"), format!("\"{name}\"")];
    let after = quoted.iter().find_map(|quoted| header.split_once(quoted.as_str()))?.1;
    after.trim_start().strip_prefix(':').map(str::trim_start)
}

fn descr(header: &str) -> Option<&str> {
    let after = field(header, "descr")?;
    let quote = after.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    after[1..].split_once(quote).map(|(descr, _)| descr)
}

fn has_objects(bytes: &[u8]) -> bool {
    header(bytes).and_then(|(text, _)| descr(text)).is_some_and(|descr| descr.contains('O'))
}

fn parse(path: &Path, bytes: &Bytes) -> Result<Array> {
    let bad = |message: String| Error::format(path, message);
    if !bytes.as_ref().starts_with(b"\x93NUMPY") {
        return Err(bad("expected a NumPy array, got something else (its first bytes are others)".into()));
    }
    let broken = || bad("NumPy array whose header is broken or truncated".into());
    let (text, start) = header(bytes.as_ref()).ok_or_else(broken)?;
    let descr = descr(text)
        .ok_or_else(|| bad("NumPy array of records, expected plain numbers: save the field you need alone".into()))?;
    let (big_endian, code) = match descr.split_at_checked(1) {
        Some((">", code)) => (true, code),
        Some(("<" | "|" | "=", code)) => (false, code),
        _ => (false, descr),
    };
    let length = || code[1..].parse::<usize>().ok().filter(|&n| n > 0);
    let kind = match code {
        "f2" => Some(Kind::F16),
        "f4" => Some(Kind::F32),
        "f8" => Some(Kind::F64),
        "i1" => Some(Kind::I8),
        "u1" => Some(Kind::U8),
        "i2" => Some(Kind::I16),
        "u2" => Some(Kind::U16),
        "i4" => Some(Kind::I32),
        "u4" => Some(Kind::U32),
        "i8" => Some(Kind::I64),
        "u8" => Some(Kind::U64),
        _ if code.starts_with('S') => length().map(Kind::Bytes),
        _ if code.starts_with('U') => length().map(Kind::Characters),
        _ if code.starts_with('O') => {
            return Err(bad("NumPy array of Python objects, which only Python can read: save it again with \
                 numpy.save(path, array.astype('float32'))"
                .into()));
        }
        _ => None,
    };
    let kind = kind.ok_or_else(|| {
        bad(format!("NumPy array of type `{descr}`: expected f2, f4 or f8, so save array.astype('float32')"))
    })?;
    let fortran = match field(text, "fortran_order").ok_or_else(broken)? {
        order if order.starts_with("True") => true,
        order if order.starts_with("False") => false,
        _ => return Err(broken()),
    };
    let shape = field(text, "shape").and_then(|after| after.strip_prefix('(')?.split_once(')')).ok_or_else(broken)?.0;
    let shape: Vec<usize> = shape
        .split(',')
        .map(|n| n.trim().trim_end_matches('L'))
        .filter(|n| !n.is_empty())
        .map(|n| n.parse().map_err(|_| bad(format!("NumPy array with the shape ({shape}): `{n}` is no size"))))
        .collect::<Result<_>>()?;
    let data = bytes.slice(start..bytes.as_ref().len()).ok_or_else(broken)?;
    Array::new(path, shape, kind, big_endian, fortran, data)
}
