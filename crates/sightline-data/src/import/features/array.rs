//! Arrays of numbers as they lie in files: any type, order and byte order, read row by row.

use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use half::f16;
use memmap2::Mmap;

use crate::{Error, Result, map};

/// The type of one element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    F16,
    F32,
    F64,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    /// Text of at most so many bytes.
    Bytes(usize),
    /// Text of at most so many characters of four bytes.
    Characters(usize),
}

impl Kind {
    pub(super) fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::F16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::Bytes(n) => n,
            Self::Characters(n) => n.saturating_mul(4),
        }
    }

    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::F32 | Self::F64)
    }

    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::Bytes(_) | Self::Characters(_))
    }
}

/// A stretch of a mapped file.
#[derive(Clone)]
pub(super) struct Bytes {
    map: Arc<Mmap>,
    range: Range<usize>,
}

impl Bytes {
    pub(super) fn of_file(path: &Path) -> Result<Self> {
        let map = map::read_only(path)?;
        Ok(Self { range: 0..map.len(), map: Arc::new(map) })
    }

    /// Unpacks into a nameless temporary file, so that memory does not limit what can be read. `path` is the packed
    /// file. More than `limit` bytes are an error: the source says how much it holds.
    pub(super) fn unpacked(path: &Path, mut from: impl Read, limit: u64) -> Result<Self> {
        let no_room = || Error::io("unpack into the temporary folder", path);
        let mut file: File = tempfile::tempfile().map_err(no_room())?;
        let mut buffer = vec![0; 1 << 16];
        let mut length = 0;
        loop {
            let n = from.read(&mut buffer).map_err(|e| Error::format(path, format!("broken packed data: {e}")))?;
            if n == 0 {
                break;
            }
            length += n as u64;
            if length > limit {
                return Err(Error::format(path, format!("broken packed data: more than the {limit} bytes it says")));
            }
            file.write_all(&buffer[..n]).map_err(no_room())?;
        }
        let map = map::of_file(&file).map_err(Error::io("map", path))?;
        Ok(Self { range: 0..map.len(), map: Arc::new(map) })
    }

    /// The part of these bytes, where they have it.
    pub(super) fn slice(&self, range: Range<usize>) -> Option<Self> {
        self.as_ref().get(range.clone())?;
        let start = self.range.start;
        Some(Self { map: self.map.clone(), range: start + range.start..start + range.end })
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

/// An array in a file. The first dimension is read row by row.
#[derive(Clone)]
pub(super) struct Array {
    shape: Vec<usize>,
    kind: Kind,
    big_endian: bool,
    /// The first index runs fastest, as in Fortran and MATLAB.
    fortran: bool,
    data: Bytes,
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?}", self.kind, self.shape)
    }
}

impl Array {
    /// Checks that the data has just the length that shape and type ask for: no shape, however absurd, can make a
    /// reader reach for more than the file holds.
    pub(super) fn new(
        path: &Path,
        shape: Vec<usize>,
        kind: Kind,
        big_endian: bool,
        fortran: bool,
        data: Bytes,
    ) -> Result<Self> {
        let got = data.as_ref().len();
        let expected = shape.iter().try_fold(kind.size(), |size, &n| size.checked_mul(n));
        if expected != Some(got) {
            let expected = expected.map_or("more bytes than any file has".to_owned(), |n| format!("{n} bytes"));
            return Err(Error::format(
                path,
                format!("expected {expected} for the shape {shape:?} of {kind:?}, got {got}: is it truncated?"),
            ));
        }
        Ok(Self { shape, kind, big_endian, fortran, data })
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// The axes backwards, without moving a byte.
    pub(super) fn transposed(mut self) -> Self {
        self.shape.reverse();
        self.fortran = !self.fortran;
        self
    }

    /// Appends everything under the first index `row`, in C order.
    pub(super) fn read_row(&self, row: usize, out: &mut Vec<f32>) {
        assert!(row < self.rows(), "row {row} of {:?}", self.shape);
        let inner: usize = self.shape.iter().skip(1).product();
        if !self.fortran {
            let size = self.kind.size();
            let bytes = &self.data.as_ref()[row * inner * size..(row + 1) * inner * size];
            out.extend(bytes.chunks_exact(size.max(1)).map(|element| self.number(element) as f32));
            return;
        }
        let mut strides = vec![1; self.shape.len()];
        for k in 1..self.shape.len() {
            strides[k] = strides[k - 1] * self.shape[k - 1];
        }
        let mut index = vec![0; self.shape.len()];
        for _ in 0..inner {
            let at = row + index.iter().zip(&strides).map(|(i, stride)| i * stride).sum::<usize>();
            out.push(self.number(self.element(at)) as f32);
            for k in (1..self.shape.len()).rev() {
                index[k] += 1;
                if index[k] < self.shape[k] {
                    break;
                }
                index[k] = 0;
            }
        }
    }

    /// Every element as text: of a list of names.
    pub(super) fn texts(&self) -> Vec<String> {
        (0..self.shape.iter().product()).map(|i| self.text(self.element(i))).collect()
    }

    fn element(&self, at: usize) -> &[u8] {
        let size = self.kind.size();
        &self.data.as_ref()[at * size..(at + 1) * size]
    }

    fn text(&self, element: &[u8]) -> String {
        let text = match self.kind {
            Kind::Bytes(_) => String::from_utf8_lossy(element).into_owned(),
            Kind::Characters(_) => {
                let code = |c: &[u8]| {
                    let c = [c[0], c[1], c[2], c[3]];
                    if self.big_endian { u32::from_be_bytes(c) } else { u32::from_le_bytes(c) }
                };
                let characters = element.chunks_exact(4).map(code);
                characters.map(|c| char::from_u32(c).unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
            }
            Kind::F16 | Kind::F32 | Kind::F64 => self.number(element).to_string(),
            // Integers exactly, the largest too.
            Kind::U64 => self.unsigned(element).to_string(),
            _ => self.signed(element).to_string(),
        };
        text.trim_end_matches('\0').to_owned()
    }

    fn number(&self, element: &[u8]) -> f64 {
        let bits = self.unsigned(element);
        match self.kind {
            Kind::F16 => f16::from_bits(bits as u16).to_f64(),
            Kind::F32 => f32::from_bits(bits as u32).into(),
            Kind::F64 => f64::from_bits(bits),
            Kind::U64 => bits as f64,
            _ => self.signed(element) as f64,
        }
    }

    /// The element's bits.
    fn unsigned(&self, element: &[u8]) -> u64 {
        let mut bytes = [0; 8];
        let n = element.len().min(8);
        bytes[..n].copy_from_slice(&element[..n]);
        if self.big_endian {
            bytes[..n].reverse();
        }
        u64::from_le_bytes(bytes)
    }

    fn signed(&self, element: &[u8]) -> i64 {
        let bits = self.unsigned(element);
        match self.kind {
            Kind::I8 => i64::from(bits as i8),
            Kind::I16 => i64::from(bits as i16),
            Kind::I32 => i64::from(bits as i32),
            _ => bits as i64,
        }
    }
}
