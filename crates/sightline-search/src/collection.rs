//! The photos of an index: several vectors files as one list, and the exact score of one photo.

use xxhash_rust::xxh3::Xxh3Default;

use crate::dots::{dots_f16, dots_i8};
use crate::vectors::{Rows, stride};
use crate::{Measure, Query, Result, Vectors};

/// Where a photo's vectors lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index of the vectors file.
    pub file: u32,
    /// Index of the photo in it.
    pub photo: u32,
}

/// Photos of one or several vectors files, in an order of the caller's.
#[derive(Debug)]
pub struct Collection {
    dim: usize,
    files: Vec<Vectors>,
    places: Vec<Place>,
}

/// Room for the products of one photo, kept between photos.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    values: Vec<f32>,
    sums: Vec<i32>,
    best: Vec<f32>,
}

impl Collection {
    /// Joins files of vectors of length `dim`.
    ///
    /// # Errors
    /// A file of another length of vectors, or a place that is not in its file.
    pub fn new(dim: usize, files: Vec<Vectors>, places: Vec<Place>) -> Result<Self> {
        if let Some(other) = files.iter().find(|file| file.dim() != dim) {
            return Err(other.error(&format!("vectors of {} numbers, expected {dim}", other.dim())));
        }
        for place in &places {
            let file = &files[place.file as usize];
            if place.photo as usize >= file.len() {
                return Err(file.error(&format!(
                    "{} photos, but the catalogue names number {}",
                    file.len(),
                    place.photo
                )));
            }
        }
        Ok(Self { dim, files, places })
    }

    /// Length of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of photos.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is no photo.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn place(&self, photo: usize) -> (&Vectors, usize) {
        let Place { file, photo } = self.places[photo];
        (&self.files[file as usize], photo as usize)
    }

    /// Regions of a photo.
    pub fn n_regions(&self, photo: usize) -> usize {
        let (file, at) = self.place(photo);
        file.n_regions(at)
    }

    /// Boxes of a photo's regions, `x1 y1 x2 y2` in pixels of the upright picture.
    pub fn boxes(&self, photo: usize) -> &[[f32; 4]] {
        let (file, at) = self.place(photo);
        file.boxes(at)
    }

    /// Vectors of a photo's regions, `[regions, dim]`.
    pub fn vectors(&self, photo: usize) -> Vec<f32> {
        let (file, at) = self.place(photo);
        file.decode(at)
    }

    /// A number that changes with any photo, vector or order; ties files made from a collection to it.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = Xxh3Default::new();
        for place in &self.places {
            hasher.update(&self.files[place.file as usize].checksum().to_le_bytes());
            hasher.update(&place.photo.to_le_bytes());
        }
        hasher.digest()
    }

    /// Values of all regions with all query vectors, `[regions, terms]`, in `scratch.values`.
    fn products(&self, photo: usize, query: &Query, scratch: &mut Scratch) {
        let (file, at) = self.place(photo);
        let n_terms = query.len();
        let stride = stride(self.dim);
        let values = &mut scratch.values;
        values.clear();
        values.resize(file.n_regions(at) * n_terms, 0.0);
        match file.rows(at) {
            Rows::F16(rows) => dots_f16(rows, &query.floats, stride, values),
            Rows::Int8(rows) => {
                scratch.sums.clear();
                scratch.sums.resize(values.len(), 0);
                dots_i8(rows, &query.shorts, stride, &mut scratch.sums);
                let rows = values.chunks_exact_mut(n_terms).zip(scratch.sums.chunks_exact(n_terms));
                for ((values, sums), factor) in rows.zip(file.factors(at)) {
                    for ((value, &sum), own) in values.iter_mut().zip(sums).zip(&query.factors) {
                        *value = sum as f32 * (own * factor);
                    }
                }
            }
        }
        if query.measures.contains(&Measure::Cosine) {
            for (values, &length) in values.chunks_exact_mut(n_terms).zip(file.lengths(at)) {
                for (value, measure) in values.iter_mut().zip(&query.measures) {
                    if *measure == Measure::Cosine {
                        *value = if length > 0.0 { *value / length } else { 0.0 };
                    }
                }
            }
        }
    }

    /// The score of one photo; minus infinity for a photo without regions.
    pub(crate) fn score(&self, photo: usize, query: &Query, scratch: &mut Scratch) -> f32 {
        let n_terms = query.len();
        if self.n_regions(photo) == 0 {
            return f32::NEG_INFINITY;
        }
        if n_terms == 0 {
            return 0.0;
        }
        self.best_values(photo, query, scratch);
        scratch.best.iter().zip(&query.weights).map(|(best, weight)| best * weight).sum()
    }

    /// The best value of each query vector with any region, in `scratch.best`.
    pub(crate) fn best_values<'a>(&self, photo: usize, query: &Query, scratch: &'a mut Scratch) -> &'a [f32] {
        let n_terms = query.len();
        self.products(photo, query, scratch);
        scratch.best.clear();
        scratch.best.resize(n_terms, f32::NEG_INFINITY);
        for row in scratch.values.chunks_exact(n_terms) {
            for (best, &value) in scratch.best.iter_mut().zip(row) {
                *best = if value > *best { value } else { *best };
            }
        }
        &scratch.best
    }

    /// All values of a photo's regions with the query vectors, `[terms, regions]`, for decoding words into phrases.
    pub fn values(&self, photo: usize, query: &Query) -> Vec<f32> {
        if query.is_empty() {
            return Vec::new();
        }
        let mut scratch = Scratch::default();
        self.products(photo, query, &mut scratch);
        let (n_terms, n_regions) = (query.len(), self.n_regions(photo));
        (0..n_terms)
            .flat_map(|t| (0..n_regions).map(move |r| (r, t)))
            .map(|(r, t)| scratch.values[r * n_terms + t])
            .collect()
    }
}
