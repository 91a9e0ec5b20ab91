//! Many small sets of vectors, end to end: the regions of each photo, or the words of each sentence.

use std::ops::Range;

/// Sets of vectors of one length, end to end in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorSets {
    dim: usize,
    vectors: Vec<f32>,
    /// `offsets[i]..offsets[i + 1]` are the vectors of set `i`.
    offsets: Vec<usize>,
}

impl VectorSets {
    /// No sets yet, of vectors of length `dim`.
    pub fn new(dim: usize) -> Self {
        assert!(dim > 0, "vectors have a length");
        Self { dim, vectors: Vec::new(), offsets: vec![0] }
    }

    /// Appends one set: `[n, dim]`, row-major.
    pub fn push(&mut self, vectors: &[f32]) {
        assert!(vectors.len().is_multiple_of(self.dim), "{} numbers, vectors of {}", vectors.len(), self.dim);
        self.vectors.extend_from_slice(vectors);
        self.offsets.push(self.vectors.len() / self.dim);
    }

    /// Length of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of sets.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no set.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Vectors in set `index`.
    pub fn count(&self, index: usize) -> usize {
        self.offsets[index + 1] - self.offsets[index]
    }

    /// Vectors before those of set `index`.
    pub(crate) fn first(&self, index: usize) -> usize {
        self.offsets[index]
    }

    /// Runs of sets with at most `most` vectors together, each at least one set.
    pub(crate) fn tiles(&self, most: usize) -> Vec<Range<usize>> {
        tiles(&(0..self.len()).map(|i| self.count(i)).collect::<Vec<_>>(), most)
    }

    /// One set: `[n, dim]`, row-major.
    pub fn get(&self, index: usize) -> &[f32] {
        self.vectors(index..index + 1)
    }

    /// The vectors of several sets, end to end: `[n, dim]`, row-major.
    pub fn vectors(&self, sets: Range<usize>) -> &[f32] {
        &self.vectors[self.offsets[sets.start] * self.dim..self.offsets[sets.end] * self.dim]
    }
}

/// Runs of sets of so many vectors each, with at most `most` vectors together, each at least one set.
pub(crate) fn tiles(counts: &[usize], most: usize) -> Vec<Range<usize>> {
    let mut tiles = Vec::new();
    let (mut first, mut held) = (0, 0);
    for (i, &count) in counts.iter().enumerate() {
        if i > first && held + count > most {
            tiles.push(first..i);
            (first, held) = (i, 0);
        }
        held += count;
    }
    tiles.push(first..counts.len());
    tiles
}
