//! The finished store file, version 1: its layout, its one writer and its one reader.
//!
//! Little-endian. A header of 64 bytes, eight sections, a checksum. Every section starts at a multiple of 64 bytes
//! (zeros between), so that a mapped file can be read as numbers in place.
//!
//! ```text
//! header   0  magic            8 bytes  "SLFEATS\0"
//!          8  version          u32      1
//!         12  dim              u32
//!         16  length           u64      of the whole file, the checksum included
//!         24  photos           u64
//!         32  regions          u64      over all photos
//!         40  key bytes        u64
//!         48  settings bytes   u64
//!         56  zero             u64
//! sections    vectors          f16 [regions, dim]
//!             boxes            f32 [regions, 4]  x1 y1 x2 y2, pixels of the original picture
//!             scores           f32 [regions]
//!             region starts    u64 [photos + 1]  the regions of photo i are starts[i]..starts[i + 1]
//!             key starts       u64 [photos + 1]  likewise, in bytes
//!             sizes            u32 [photos, 2]   width, height of the original picture
//!             keys             UTF-8
//!             settings         JSON, StoreSettings
//! checksum    XXH3-64 of everything before it, u64
//! ```

use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;
use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::{Record, StoreSettings};
use crate::{BoxXyxy, Error, Result, map};

const MAGIC: [u8; 8] = *b"SLFEATS\0";
const VERSION: u32 = 1;
const ALIGN: u64 = 64;
const HEADER: u64 = 64;

/// Where the sections lie.
#[derive(Debug, Clone, PartialEq)]
struct Layout {
    vectors: Range<usize>,
    boxes: Range<usize>,
    scores: Range<usize>,
    region_starts: Range<usize>,
    key_starts: Range<usize>,
    sizes: Range<usize>,
    keys: Range<usize>,
    settings: Range<usize>,
    /// Of the checksum, and so one past everything it covers.
    end: usize,
}

impl Layout {
    /// `None` where a size does not fit the machine.
    fn new(dim: u64, photos: u64, regions: u64, key_bytes: u64, settings_bytes: u64) -> Option<Self> {
        let mut at = HEADER;
        let mut section = |bytes: Option<u64>| -> Option<Range<usize>> {
            let start = at;
            let end = start.checked_add(bytes?)?;
            at = end.checked_next_multiple_of(ALIGN)?;
            Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
        };
        let starts = photos.checked_add(1).and_then(|n| n.checked_mul(8));
        Some(Self {
            vectors: section(regions.checked_mul(dim).and_then(|n| n.checked_mul(2)))?,
            boxes: section(regions.checked_mul(16))?,
            scores: section(regions.checked_mul(4))?,
            region_starts: section(starts)?,
            key_starts: section(starts)?,
            sizes: section(photos.checked_mul(8))?,
            keys: section(Some(key_bytes))?,
            settings: section(Some(settings_bytes))?,
            end: usize::try_from(at).ok()?,
        })
    }

    /// Length of the whole file.
    fn length(&self) -> Option<u64> {
        (self.end as u64).checked_add(8)
    }
}

/// Counts and hashes what passes through.
struct Hashing<W> {
    inner: W,
    hasher: Xxh3Default,
    written: usize,
}

impl<W: Write> Hashing<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes)?;
        self.hasher.update(bytes);
        self.written += bytes.len();
        Ok(())
    }

    fn pad_to(&mut self, position: usize) -> io::Result<()> {
        assert!(position - self.written < ALIGN as usize, "section at {position}, written {}", self.written);
        self.put(&[0; ALIGN as usize][..position - self.written])
    }
}

/// Writes a whole store. `record(i)` gives the i-th of `n_records` photos; it is asked several times.
pub(super) fn write<'a>(
    out: impl Write,
    settings: &StoreSettings,
    n_records: usize,
    record: impl Fn(usize) -> Record<'a>,
) -> io::Result<()> {
    let json = serde_json::to_vec(settings)?;
    let mut region_starts = vec![0u64];
    let mut key_starts = vec![0u64];
    let mut sizes = Vec::new();
    for record in (0..n_records).map(&record) {
        region_starts.push(region_starts[region_starts.len() - 1] + record.n_regions as u64);
        key_starts.push(key_starts[key_starts.len() - 1] + record.key.len() as u64);
        sizes.extend([record.width, record.height]);
    }
    let (regions, key_bytes) = (region_starts[n_records], key_starts[n_records]);
    let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "a feature store this large has no place in memory");
    let layout = Layout::new(settings.dim as u64, n_records as u64, regions, key_bytes, json.len() as u64)
        .ok_or_else(too_large)?;

    let mut out = Hashing { inner: out, hasher: Xxh3Default::new(), written: 0 };
    out.put(&MAGIC)?;
    out.put(&VERSION.to_le_bytes())?;
    out.put(&u32::try_from(settings.dim).map_err(|_| too_large())?.to_le_bytes())?;
    out.put(&layout.length().ok_or_else(too_large)?.to_le_bytes())?;
    for number in [n_records as u64, regions, key_bytes, json.len() as u64, 0] {
        out.put(&number.to_le_bytes())?;
    }
    out.pad_to(layout.vectors.start)?;
    for record in (0..n_records).map(&record) {
        out.put(record.vectors)?;
    }
    out.pad_to(layout.boxes.start)?;
    for record in (0..n_records).map(&record) {
        out.put(record.boxes)?;
    }
    out.pad_to(layout.scores.start)?;
    for record in (0..n_records).map(&record) {
        out.put(record.scores)?;
    }
    out.pad_to(layout.region_starts.start)?;
    out.put(bytemuck::cast_slice(&region_starts))?;
    out.pad_to(layout.key_starts.start)?;
    out.put(bytemuck::cast_slice(&key_starts))?;
    out.pad_to(layout.sizes.start)?;
    out.put(bytemuck::cast_slice(&sizes))?;
    out.pad_to(layout.keys.start)?;
    for record in (0..n_records).map(&record) {
        out.put(record.key.as_bytes())?;
    }
    out.pad_to(layout.settings.start)?;
    out.put(&json)?;
    out.pad_to(layout.end)?;
    let checksum = out.hasher.digest();
    out.inner.write_all(&checksum.to_le_bytes())?;
    out.inner.flush()
}

/// A finished feature store, memory-mapped and read-only; cheap to share between threads.
#[derive(Debug)]
pub struct FeatureStore {
    path: PathBuf,
    map: Mmap,
    layout: Layout,
    settings: StoreSettings,
    checksum: u64,
    positions: FxHashMap<Box<str>, u32>,
}

impl FeatureStore {
    /// Maps the file and verifies magic, version, length and the checksum of every byte.
    ///
    /// # Errors
    /// The file cannot be read, is no feature store, is of another version, is truncated or damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bad = |message: String| Error::format(path, message);
        let metadata = std::fs::metadata(path).map_err(Error::io("open", path))?;
        if !metadata.is_file() {
            return Err(bad("expected a feature store, got a folder: name the file that `features` wrote".into()));
        }
        if metadata.len() == 0 {
            return Err(bad("expected a feature store, got an empty file: make it again with `features`".into()));
        }
        let map = map::read_only(path)?;
        if !map.starts_with(&MAGIC[..map.len().min(8)]) {
            return Err(bad("not a feature store (its first bytes are others): make one with `features`".into()));
        }
        let truncated = |expected: u64| {
            bad(format!("feature store is truncated: expected {expected} bytes, got {}; make it again", map.len()))
        };
        if (map.len() as u64) < HEADER + 8 {
            return Err(truncated(HEADER + 8));
        }
        let version = u32_at(&map, 8);
        if version != VERSION {
            return Err(bad(format!(
                "feature store of version {version}, but this program reads version {VERSION}: make it again"
            )));
        }
        let length = u64_at(&map, 16);
        if length > map.len() as u64 {
            return Err(truncated(length));
        }
        let damaged = || bad("feature store is damaged (its checksum differs): copy or make it again".into());
        let end = map.len() - 8;
        let checksum = u64_at(&map, end);
        if length != map.len() as u64 || xxh3_64(&map[..end]) != checksum {
            return Err(damaged());
        }

        // From here on only a forged file, or our own mistake, can fail.
        let dim = u32_at(&map, 12);
        let [photos, regions, key_bytes, settings_bytes] = [24, 32, 40, 48].map(|at| u64_at(&map, at));
        let layout = Layout::new(dim.into(), photos, regions, key_bytes, settings_bytes)
            .filter(|layout| layout.length() == Some(length))
            .ok_or_else(damaged)?;
        let settings: StoreSettings = serde_json::from_slice(&map[layout.settings.clone()])
            .map_err(|e| bad(format!("feature store with unreadable settings: {e}")))?;
        let valid = |starts: &[u64], total: u64| {
            starts.first() == Some(&0) && starts.last() == Some(&total) && starts.is_sorted()
        };
        let region_starts: &[u64] = bytemuck::cast_slice(&map[layout.region_starts.clone()]);
        let key_starts: &[u64] = bytemuck::cast_slice(&map[layout.key_starts.clone()]);
        if settings.dim != dim as usize || !valid(region_starts, regions) || !valid(key_starts, key_bytes) {
            return Err(damaged());
        }
        let keys = &map[layout.keys.clone()];
        let mut positions = FxHashMap::with_capacity_and_hasher(photos as usize, Default::default());
        for (i, pair) in key_starts.windows(2).enumerate() {
            let key = std::str::from_utf8(&keys[pair[0] as usize..pair[1] as usize]).map_err(|_| damaged())?;
            let i = u32::try_from(i).map_err(|_| damaged())?;
            if positions.insert(key.into(), i).is_some() {
                return Err(bad(format!("feature store with the photo `{key}` twice")));
            }
        }
        Ok(Self { path: path.to_owned(), map, layout, settings, checksum, positions })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the numbers mean.
    pub fn settings(&self) -> &StoreSettings {
        &self.settings
    }

    /// Length of one vector.
    pub fn dim(&self) -> usize {
        self.settings.dim
    }

    /// The file's own checksum as 16 hex digits: names these very features, in a run folder say.
    pub fn checksum(&self) -> String {
        format!("{:016x}", self.checksum)
    }

    /// Number of photos.
    pub fn len(&self) -> usize {
        self.region_starts().len() - 1
    }

    /// Whether there is no photo.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys, in the file's order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|i| self.key(i))
    }

    /// Where the photo of this key lies, for [`FeatureStore::get`].
    pub fn position(&self, key: &str) -> Option<usize> {
        self.positions.get(key).map(|&i| i as usize)
    }

    /// The photo of this key.
    pub fn find(&self, key: &str) -> Option<Photo<'_>> {
        self.position(key).map(|i| self.get(i))
    }

    /// Most regions that any photo here has; at most [`StoreSettings::max_regions`].
    pub fn most_regions(&self) -> usize {
        self.region_starts().windows(2).map(|pair| (pair[1] - pair[0]) as usize).max().unwrap_or(0)
    }

    /// The photo at a position. Panics where `index` is not below [`FeatureStore::len`].
    pub fn get(&self, index: usize) -> Photo<'_> {
        assert!(index < self.len(), "photo {index} of {}", self.len());
        let regions = self.regions(index);
        let sizes: &[u32] = bytemuck::cast_slice(&self.map[self.layout.sizes.clone()]);
        let boxes: &[[f32; 4]] = bytemuck::cast_slice(&self.map[self.layout.boxes.clone()]);
        let scores: &[f32] = bytemuck::cast_slice(&self.map[self.layout.scores.clone()]);
        let vectors: &[f16] = bytemuck::cast_slice(&self.map[self.layout.vectors.clone()]);
        let dim = self.settings.dim;
        Photo {
            key: self.key(index),
            width: sizes[2 * index],
            height: sizes[2 * index + 1],
            scores: &scores[regions.clone()],
            boxes: &boxes[regions.clone()],
            vectors: &vectors[regions.start * dim..regions.end * dim],
            dim,
        }
    }

    /// All photos, in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Photo<'_>> {
        (0..self.len()).map(|i| self.get(i))
    }

    pub(super) fn record(&self, index: usize) -> Record<'_> {
        let photo = self.get(index);
        Record {
            key: photo.key,
            width: photo.width,
            height: photo.height,
            n_regions: photo.n_regions(),
            boxes: bytemuck::cast_slice(photo.boxes),
            scores: bytemuck::cast_slice(photo.scores),
            vectors: bytemuck::cast_slice(photo.vectors),
        }
    }

    fn region_starts(&self) -> &[u64] {
        bytemuck::cast_slice(&self.map[self.layout.region_starts.clone()])
    }

    fn regions(&self, index: usize) -> Range<usize> {
        let starts = self.region_starts();
        starts[index] as usize..starts[index + 1] as usize
    }

    fn key(&self, index: usize) -> &str {
        let starts: &[u64] = bytemuck::cast_slice(&self.map[self.layout.key_starts.clone()]);
        let bytes = &self.map[self.layout.keys.clone()][starts[index] as usize..starts[index + 1] as usize];
        std::str::from_utf8(bytes).expect("checked when the store was opened")
    }
}

/// One photo of a store, borrowed from the map.
#[derive(Debug, Clone, Copy)]
pub struct Photo<'a> {
    /// Its key; [`crate::Image::path`] where it belongs to a dataset.
    pub key: &'a str,
    /// Width of the original picture in pixels.
    pub width: u32,
    /// Height of the original picture in pixels.
    pub height: u32,
    /// `[regions]`; 1.0 for the whole image, which is region 0.
    pub scores: &'a [f32],
    boxes: &'a [[f32; 4]],
    vectors: &'a [f16],
    dim: usize,
}

impl<'a> Photo<'a> {
    /// Number of regions, the whole image included.
    pub fn n_regions(&self) -> usize {
        self.boxes.len()
    }

    /// Length of one vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// One box a region, in pixels of the original picture; the first is the whole image.
    pub fn boxes(&self) -> impl ExactSizeIterator<Item = BoxXyxy> + Clone + use<'a> {
        self.boxes.iter().map(|&corners| corners.into())
    }

    /// `[regions, dim]`, as it lies in the file.
    pub fn vectors_f16(&self) -> &'a [f16] {
        self.vectors
    }

    /// `[regions, dim]`.
    pub fn vectors(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.vectors.len()];
        self.write_vectors(&mut out);
        out
    }

    /// `[dim]`, one region's vector as it lies in the file.
    pub fn vector_f16(&self, region_idx: usize) -> &'a [f16] {
        &self.vectors[region_idx * self.dim..(region_idx + 1) * self.dim]
    }

    /// Writes `[regions, dim]` into `out`, whose length must be just that.
    pub fn write_vectors(&self, out: &mut [f32]) {
        assert_eq!(out.len(), self.vectors.len(), "room for [regions, dim]");
        self.vectors.convert_to_f32_slice(out);
    }

    /// An owned copy.
    pub fn to_features(&self) -> super::PhotoFeatures {
        super::PhotoFeatures {
            key: self.key.to_owned(),
            width: self.width,
            height: self.height,
            boxes: self.boxes().collect(),
            scores: self.scores.to_vec(),
            vectors: self.vectors(),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
