//! The vectors file: every photo's region vectors and boxes, memory-mapped; immutable once written.
//!
//! An index is a list of such files. New photos come as a new file; [`write()`] also merges several into one.
//!
//! ```text
//! header   magic "SLVECTS\0", version 1, kind 0 = f16, 1 = int8; sizes: dim, photos, regions, owner, 0
//! sections vectors   f16 or int8 [regions, stride]   stride: dim rounded up to a multiple of 32, the rest zero
//!          factors   f32 [regions]                   stored numbers times this are the vector; 1 for f16
//!          lengths   f32 [regions]                   Euclidean length of the vector
//!          boxes     f32 [regions, 4]                x1 y1 x2 y2, pixels of the upright picture
//!          starts    u64 [photos + 1]                the regions of photo i are starts[i]..starts[i + 1]
//! ```

use std::io::{self, Write};
use std::path::Path;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::dots::{LANES, LONGEST};
use crate::file::{Header, Mapped, Writer};
use crate::{Error, Result};

const MAGIC: [u8; 8] = *b"SLVECTS\0";
const VERSION: u32 = 1;

/// How vectors are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Sixteen-bit floats.
    F16,
    /// Eight-bit whole numbers times a factor a vector: half the memory, about 0.4 % of the largest number lost.
    Int8,
}

impl Encoding {
    fn from_kind(kind: u32) -> Option<Self> {
        match kind {
            0 => Some(Self::F16),
            1 => Some(Self::Int8),
            _ => None,
        }
    }

    fn kind(self) -> u32 {
        match self {
            Self::F16 => 0,
            Self::Int8 => 1,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::Int8 => 1,
        }
    }
}

/// Length of a stored row.
pub(crate) fn stride(dim: usize) -> usize {
    dim.next_multiple_of(LANES)
}

/// One photo's part of a vectors file, still in memory or mapped; what [`write()`] takes.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// `[regions, stride]` as stored.
    vectors: &'a [u8],
    /// `[regions]`.
    factors: &'a [f32],
    /// `[regions]`.
    lengths: &'a [f32],
    /// `[regions]`.
    boxes: &'a [[f32; 4]],
}

/// One photo's regions as they will be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct PhotoVectors {
    encoding: Encoding,
    vectors: Vec<u8>,
    factors: Vec<f32>,
    lengths: Vec<f32>,
    boxes: Vec<[f32; 4]>,
}

impl PhotoVectors {
    /// Rounds `vectors`, `[regions, dim]` row-major, one box a region. `None` where a number does not fit: not finite,
    /// or beyond f16's 65504.
    pub fn new(encoding: Encoding, dim: usize, vectors: &[f32], boxes: &[[f32; 4]]) -> Option<Self> {
        assert!(dim > 0 && stride(dim) <= LONGEST, "vectors of {dim} numbers; at most {LONGEST}");
        assert_eq!(vectors.len(), boxes.len() * dim, "one vector a box");
        let n_regions = boxes.len();
        let mut photo = Self {
            encoding,
            vectors: Vec::with_capacity(n_regions * stride(dim) * encoding.bytes()),
            factors: Vec::with_capacity(n_regions),
            lengths: Vec::with_capacity(n_regions),
            boxes: boxes.to_vec(),
        };
        for vector in vectors.chunks_exact(dim) {
            if vector.iter().any(|x| !x.is_finite()) {
                return None;
            }
            let factor = photo.push_numbers(vector)?;
            photo.vectors.resize(photo.vectors.len() + (stride(dim) - dim) * encoding.bytes(), 0);
            photo.factors.push(factor);
            photo.lengths.push(vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32);
        }
        Some(photo)
    }

    /// Appends one vector's stored numbers and gives their factor.
    fn push_numbers(&mut self, vector: &[f32]) -> Option<f32> {
        match self.encoding {
            Encoding::F16 => {
                let halves: Vec<f16> = vector.iter().map(|&x| f16::from_f32(x)).collect();
                self.vectors.extend_from_slice(bytemuck::cast_slice(&halves));
                halves.iter().all(|x| x.is_finite()).then_some(1.0)
            }
            Encoding::Int8 => {
                let most = vector.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                let factor = if most > 0.0 { most / 127.0 } else { 1.0 };
                self.vectors.extend(vector.iter().map(|x| (x / factor).round() as i8 as u8));
                Some(factor)
            }
        }
    }

    /// As [`write()`] takes it.
    pub fn record(&self) -> Record<'_> {
        Record { vectors: &self.vectors, factors: &self.factors, lengths: &self.lengths, boxes: &self.boxes }
    }
}

/// Writes a vectors file of photos in this order. `owner` is a number that whoever opens the file must know.
pub fn write(out: impl Write, encoding: Encoding, dim: usize, owner: u64, photos: &[Record<'_>]) -> io::Result<()> {
    let mut starts = vec![0u64];
    for photo in photos {
        let n_regions = photo.boxes.len();
        assert_eq!(photo.vectors.len(), n_regions * stride(dim) * encoding.bytes(), "photos of this encoding and dim");
        starts.push(starts[starts.len() - 1] + n_regions as u64);
    }
    let sizes = [dim as u64, photos.len() as u64, starts[photos.len()], owner, 0];
    let header = Header { magic: MAGIC, version: VERSION, kind: encoding.kind(), sizes };
    let mut out = Writer::new(out, &header, &lengths(&header))?;
    out.next_section()?;
    photos.iter().try_for_each(|photo| out.write(photo.vectors))?;
    out.next_section()?;
    photos.iter().try_for_each(|photo| out.write(bytemuck::cast_slice(photo.factors)))?;
    out.next_section()?;
    photos.iter().try_for_each(|photo| out.write(bytemuck::cast_slice(photo.lengths)))?;
    out.next_section()?;
    photos.iter().try_for_each(|photo| out.write(bytemuck::cast_slice(photo.boxes)))?;
    out.next_section()?;
    out.write(bytemuck::cast_slice(&starts))?;
    out.finish()
}

fn lengths(header: &Header) -> Vec<Option<u64>> {
    let [dim, photos, regions, ..] = header.sizes;
    let bytes = Encoding::from_kind(header.kind).map(|encoding| encoding.bytes() as u64);
    let row = dim.checked_next_multiple_of(LANES as u64).zip(bytes).and_then(|(row, bytes)| row.checked_mul(bytes));
    let each = |bytes: u64| regions.checked_mul(bytes);
    vec![row.and_then(each), each(4), each(4), each(16), photos.checked_add(1).and_then(|n| n.checked_mul(8))]
}

/// A vectors file, open.
#[derive(Debug)]
pub struct Vectors {
    file: Mapped,
    encoding: Encoding,
    dim: usize,
    photos: usize,
}

/// Stored rows of one photo.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rows<'a> {
    F16(&'a [f16]),
    Int8(&'a [i8]),
}

impl Vectors {
    /// Opens and checks a whole file.
    ///
    /// # Errors
    /// No such file; another kind of file or version; of another owner; cut short, or changed since it was written.
    pub fn open(path: &Path, owner: u64) -> Result<Self> {
        let file = Mapped::open(path, MAGIC, VERSION, lengths)?;
        let [dim, photos, regions, found, _] = file.header.sizes;
        if found != owner {
            return Err(file.error("belongs to another index"));
        }
        let encoding = Encoding::from_kind(file.header.kind).ok_or_else(|| file.error("vectors of unknown kind"))?;
        let (Ok(dim), Ok(photos)) = (usize::try_from(dim), usize::try_from(photos)) else {
            return Err(file.error("absurd sizes in its header"));
        };
        if dim == 0 || stride(dim) > LONGEST {
            return Err(file.error(&format!("vectors of {dim} numbers")));
        }
        let starts: &[u64] = file.section(4);
        if starts[0] != 0 || starts[photos] != regions || starts.windows(2).any(|pair| pair[0] > pair[1]) {
            return Err(file.error("its photos' regions are out of order"));
        }
        Ok(Self { file, encoding, dim, photos })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Length of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How vectors are stored.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Number of photos.
    pub fn len(&self) -> usize {
        self.photos
    }

    /// Whether there is no photo.
    pub fn is_empty(&self) -> bool {
        self.photos == 0
    }

    /// Bytes of the file.
    pub fn n_bytes(&self) -> usize {
        self.file.len()
    }

    pub(crate) fn checksum(&self) -> u64 {
        self.file.checksum
    }

    pub(crate) fn error(&self, what: &str) -> Error {
        self.file.error(what)
    }

    fn range(&self, photo: usize) -> std::ops::Range<usize> {
        let starts: &[u64] = self.file.section(4);
        starts[photo] as usize..starts[photo + 1] as usize
    }

    /// Regions of a photo.
    pub fn n_regions(&self, photo: usize) -> usize {
        self.range(photo).len()
    }

    /// Boxes of a photo's regions, `x1 y1 x2 y2` in pixels of the upright picture.
    pub fn boxes(&self, photo: usize) -> &[[f32; 4]] {
        &self.file.section::<[f32; 4]>(3)[self.range(photo)]
    }

    pub(crate) fn factors(&self, photo: usize) -> &[f32] {
        &self.file.section::<f32>(1)[self.range(photo)]
    }

    pub(crate) fn lengths(&self, photo: usize) -> &[f32] {
        &self.file.section::<f32>(2)[self.range(photo)]
    }

    pub(crate) fn rows(&self, photo: usize) -> Rows<'_> {
        let stride = stride(self.dim);
        let range = self.range(photo);
        let range = range.start * stride..range.end * stride;
        match self.encoding {
            Encoding::F16 => Rows::F16(&self.file.section(0)[range]),
            Encoding::Int8 => Rows::Int8(&self.file.section(0)[range]),
        }
    }

    /// One photo, for [`write()`] into another file of the same encoding and dim.
    pub fn record(&self, photo: usize) -> Record<'_> {
        let row_bytes = stride(self.dim) * self.encoding.bytes();
        let range = self.range(photo);
        Record {
            vectors: &self.file.section(0)[range.start * row_bytes..range.end * row_bytes],
            factors: self.factors(photo),
            lengths: self.lengths(photo),
            boxes: self.boxes(photo),
        }
    }

    /// The vectors of a photo as they were before rounding, as nearly as they are stored: `[regions, dim]`.
    pub fn decode(&self, photo: usize) -> Vec<f32> {
        let (stride, dim) = (stride(self.dim), self.dim);
        let mut out = Vec::with_capacity(self.n_regions(photo) * dim);
        match self.rows(photo) {
            Rows::F16(rows) => {
                let mut wide = vec![0.0; stride];
                for row in rows.chunks_exact(stride) {
                    row.convert_to_f32_slice(&mut wide);
                    out.extend_from_slice(&wide[..dim]);
                }
            }
            Rows::Int8(rows) => {
                for (row, factor) in rows.chunks_exact(stride).zip(self.factors(photo)) {
                    out.extend(row[..dim].iter().map(|&x| f32::from(x) * factor));
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn photo(encoding: Encoding, dim: usize, n_regions: usize, seed: usize) -> PhotoVectors {
        let vectors: Vec<f32> = (0..n_regions * dim).map(|i| ((i * 7 + seed * 3) % 23) as f32 / 4.0 - 2.5).collect();
        let boxes: Vec<[f32; 4]> = (0..n_regions).map(|i| [i as f32, 1.0, 20.5, 30.0 + seed as f32]).collect();
        PhotoVectors::new(encoding, dim, &vectors, &boxes).unwrap()
    }

    fn file(encoding: Encoding) -> (tempfile::TempDir, std::path::PathBuf, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        let photos: Vec<PhotoVectors> = [3, 0, 1].iter().enumerate().map(|(i, &n)| photo(encoding, 5, n, i)).collect();
        let records: Vec<Record<'_>> = photos.iter().map(PhotoVectors::record).collect();
        let mut bytes = Vec::new();
        write(&mut bytes, encoding, 5, 77, &records).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        (folder, path, bytes)
    }

    #[test]
    fn what_was_written_is_read() {
        for encoding in [Encoding::F16, Encoding::Int8] {
            let (_folder, path, bytes) = file(encoding);
            let vectors = Vectors::open(&path, 77).unwrap();
            assert_eq!((vectors.dim(), vectors.len(), vectors.encoding()), (5, 3, encoding));
            assert_eq!((0..3).map(|i| vectors.n_regions(i)).collect::<Vec<_>>(), [3, 0, 1]);
            assert_eq!(vectors.boxes(2), [[0.0, 1.0, 20.5, 32.0]]);
            for (i, n) in [(0, 3), (2, 1)] {
                let expected: Vec<f32> = (0..n * 5).map(|j| ((j * 7 + i * 3) % 23) as f32 / 4.0 - 2.5).collect();
                for (got, expected) in vectors.decode(i).iter().zip(&expected) {
                    // Quarters are exact in f16; int8's step is at most 3 / 127.
                    let tolerance = if encoding == Encoding::F16 { 0.0 } else { 0.5 * 3.0 / 127.0 + 1e-6 };
                    assert!((got - expected).abs() <= tolerance, "{got} {expected}");
                }
                for (row, length) in expected.chunks(5).zip(vectors.lengths(i)) {
                    assert!((row.iter().map(|x| x * x).sum::<f32>().sqrt() - length).abs() < 1e-5);
                }
            }
            // Merging all photos gives the same file.
            let records: Vec<Record<'_>> = (0..3).map(|i| vectors.record(i)).collect();
            let mut again = Vec::new();
            write(&mut again, encoding, 5, 77, &records).unwrap();
            assert!(again == bytes);
        }
    }

    #[test]
    fn any_changed_byte_and_any_cut_is_an_error() {
        for encoding in [Encoding::F16, Encoding::Int8] {
            let (_folder, path, bytes) = file(encoding);
            for i in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[i] ^= 0x10;
                std::fs::write(&path, &changed).unwrap();
                let error = Vectors::open(&path, 77).expect_err("a changed byte").to_string();
                assert!(error.contains("sightline index"), "byte {i}: {error}");
                std::fs::write(&path, &bytes[..i]).unwrap();
                assert!(Vectors::open(&path, 77).is_err(), "cut at {i}");
            }
            std::fs::write(&path, [&bytes[..], b"x"].concat()).unwrap();
            assert!(Vectors::open(&path, 77).is_err(), "a longer file");
        }
    }

    #[test]
    fn other_owners_and_versions_are_named() {
        let (_folder, path, mut bytes) = file(Encoding::F16);
        assert!(Vectors::open(&path, 78).unwrap_err().to_string().contains("another index"));
        bytes[8] = 2;
        std::fs::write(&path, &bytes).unwrap();
        assert!(Vectors::open(&path, 77).unwrap_err().to_string().contains("version 2"));
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        for (encoding, bad) in [(Encoding::F16, 1e6), (Encoding::F16, f32::NAN), (Encoding::Int8, f32::INFINITY)] {
            assert!(PhotoVectors::new(encoding, 2, &[1.0, bad], &[[0.0; 4]]).is_none(), "{encoding:?} {bad}");
        }
        assert!(PhotoVectors::new(Encoding::Int8, 2, &[0.0, 1e6], &[[0.0; 4]]).is_some());
    }
}
