//! Search of large collections: every region is known by its nearest centroid, so a photo's score is guessed by table
//! look-up; the best guesses are scored exactly.
//!
//! The idea is PLAID's (Santhanam et al. 2022) with its residuals left out: the look-up only has to bring the best
//! photos into the candidates. How many candidates that takes is measured by `examples/pruned_curve.rs`.
//!
//! ```text
//! header   magic "SLCENTR\0", version 1, kind 0; sizes: dim, photos, regions, fingerprint of the collection, centroids
//! sections centroids f32 [centroids, dim]
//!          codes     u16 [regions]        the centroid of each region, photo by photo
//! ```

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use crate::file::{Header, Mapped, Writer};
use crate::index::first;
use crate::matrix::{Layout, multiply};
use crate::{Collection, Hit, Index, Measure, Query, Result};

const MAGIC: [u8; 8] = *b"SLCENTR\0";
const VERSION: u32 = 1;

/// Query vectors looked up together: the rows of the table are this long, so that the maxima stay in registers.
const GROUP: usize = 8;

/// Regions compared with all centroids in one matrix product.
const TILE: usize = 128;

/// How centroids are found and used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrunedSettings {
    /// Number of centroids; none for four times the square root of the number of regions.
    pub centroids: Option<usize>,
    /// Passes of k-means.
    pub passes: usize,
    /// Regions a centroid that k-means learns from.
    pub sample: usize,
    /// Chooses the sample.
    pub seed: u64,
}

impl Default for PrunedSettings {
    fn default() -> Self {
        Self { centroids: None, passes: 6, sample: 40, seed: 1 }
    }
}

/// A collection with a centroid for every region.
#[derive(Debug)]
pub struct Pruned {
    collection: Arc<Collection>,
    /// `[centroids, dim]`.
    centroids: Vec<f32>,
    /// Euclidean length of each centroid.
    lengths: Vec<f32>,
    /// `[regions of all photos]`.
    codes: Vec<u16>,
    /// The codes of photo `i` are `starts[i]..starts[i + 1]`.
    starts: Vec<usize>,
    candidates: usize,
}

impl Pruned {
    /// Finds centroids by k-means and the nearest one of every region. The work grows as regions × centroids.
    pub fn build(collection: Arc<Collection>, settings: &PrunedSettings) -> Self {
        let starts = starts(&collection);
        let n_regions = starts[collection.len()];
        let most = n_regions.clamp(1, usize::from(u16::MAX));
        let n_centroids =
            settings.centroids.unwrap_or_else(|| (4.0 * (n_regions as f64).sqrt()) as usize).clamp(1, most);
        let sample = sample(&collection, &starts, n_centroids * settings.sample.max(1), settings.seed);
        let centroids = k_means(&sample, collection.dim(), n_centroids, settings.passes);
        let halves = half_squares(&centroids, collection.dim());
        let photos: Vec<usize> = (0..collection.len()).collect();
        let codes = photos
            .par_chunks(64)
            .flat_map_iter(|photos| {
                let vectors: Vec<f32> = photos.iter().flat_map(|&photo| collection.vectors(photo)).collect();
                nearest(&vectors, &centroids, &halves, collection.dim())
            })
            .collect();
        Self::from_parts(collection, centroids, codes, starts)
    }

    fn from_parts(collection: Arc<Collection>, centroids: Vec<f32>, codes: Vec<u16>, starts: Vec<usize>) -> Self {
        let squares = half_squares(&centroids, collection.dim());
        let lengths = squares.iter().map(|half| (2.0 * half).sqrt()).collect();
        let candidates = default_candidates(collection.len());
        Self { collection, centroids, lengths, codes, starts, candidates }
    }

    /// The same with another number of photos scored exactly a query.
    pub fn with_candidates(self, candidates: usize) -> Self {
        Self { candidates, ..self }
    }

    /// Photos scored exactly a query, at least.
    pub fn candidates(&self) -> usize {
        self.candidates
    }

    /// Number of centroids.
    pub fn n_centroids(&self) -> usize {
        self.lengths.len()
    }

    /// Writes centroids and codes as a file.
    pub fn write(&self, out: impl Write) -> io::Result<()> {
        let collection = &self.collection;
        let sizes = [
            collection.dim() as u64,
            collection.len() as u64,
            self.codes.len() as u64,
            collection.fingerprint(),
            self.n_centroids() as u64,
        ];
        let header = Header { magic: MAGIC, version: VERSION, kind: 0, sizes };
        let mut out = Writer::new(out, &header, &section_lengths(&header))?;
        out.next_section()?;
        out.write(bytemuck::cast_slice(&self.centroids))?;
        out.next_section()?;
        out.write(bytemuck::cast_slice(&self.codes))?;
        out.finish()
    }

    /// Opens what [`Pruned::write`] wrote for this very collection; `None` where it was another, so that the file is
    /// to be made anew.
    ///
    /// # Errors
    /// No such file; another kind of file or version; cut short, or changed since it was written.
    pub fn open(path: &Path, collection: Arc<Collection>) -> Result<Option<Self>> {
        let file = Mapped::open(path, MAGIC, VERSION, section_lengths)?;
        let starts = starts(&collection);
        let [dim, photos, regions, fingerprint, n_centroids] = file.header.sizes;
        let own = [collection.dim() as u64, collection.len() as u64, starts[collection.len()] as u64];
        if [dim, photos, regions] != own || fingerprint != collection.fingerprint() {
            return Ok(None);
        }
        let codes: Vec<u16> = file.section(1).to_vec();
        if codes.iter().any(|&code| u64::from(code) >= n_centroids) {
            return Err(file.error("names centroids that it does not hold"));
        }
        Ok(Some(Self::from_parts(collection, file.section(0).to_vec(), codes, starts)))
    }

    /// Values of all centroids with `GROUP` query vectors from `first` on: `[centroids]` rows, zero beyond the last.
    fn table(&self, query: &Query, first: usize) -> Vec<[f32; GROUP]> {
        let dim = self.collection.dim();
        let stride = query.floats.len() / query.len();
        let n = GROUP.min(query.len() - first);
        let words: Vec<f32> =
            (first..first + n).flat_map(|term| &query.floats[term * stride..term * stride + dim]).copied().collect();
        let mut products = vec![0.0; self.n_centroids() * n];
        products.par_chunks_mut(TILE * n).zip(self.centroids.par_chunks(TILE * dim)).for_each(|(out, centroids)| {
            multiply(centroids, &words, out, dim, Layout::RightTransposed);
        });
        let mut table = vec![[0.0; GROUP]; self.n_centroids()];
        for ((row, products), &length) in table.iter_mut().zip(products.chunks_exact(n)).zip(&self.lengths) {
            for (i, (value, &product)) in row.iter_mut().zip(products).enumerate() {
                *value = match query.measures[first + i] {
                    Measure::Product => product,
                    Measure::Cosine if length > 0.0 => product / length,
                    Measure::Cosine => 0.0,
                };
            }
        }
        table
    }

    /// Scores of all photos as their centroids have it; minus infinity for those left out and without regions.
    fn guesses(&self, query: &Query, among: Option<&[bool]>) -> Vec<f32> {
        const PHOTOS_PER_JOB: usize = 512;
        let groups: Vec<(Vec<[f32; GROUP]>, [f32; GROUP])> = (0..query.len())
            .step_by(GROUP)
            .map(|first| {
                let mut weights = [0.0; GROUP];
                weights.iter_mut().zip(&query.weights[first..]).for_each(|(own, &weight)| *own = weight);
                (self.table(query, first), weights)
            })
            .collect();
        let mut guesses = vec![f32::NEG_INFINITY; self.collection.len()];
        guesses.par_chunks_mut(PHOTOS_PER_JOB).enumerate().for_each(|(job, own)| {
            for (i, guess) in own.iter_mut().enumerate() {
                let photo = job * PHOTOS_PER_JOB + i;
                let codes = &self.codes[self.starts[photo]..self.starts[photo + 1]];
                if codes.is_empty() || among.is_some_and(|among| !among[photo]) {
                    continue;
                }
                *guess = 0.0;
                for (table, weights) in &groups {
                    let mut best = [f32::NEG_INFINITY; GROUP];
                    for &code in codes {
                        for (best, &value) in best.iter_mut().zip(&table[usize::from(code)]) {
                            *best = if value > *best { value } else { *best };
                        }
                    }
                    *guess += best.iter().zip(weights).map(|(best, weight)| best * weight).sum::<f32>();
                }
            }
        });
        guesses
    }
}

impl Index for Pruned {
    fn collection(&self) -> &Collection {
        &self.collection
    }

    fn best(&self, query: &Query, among: Option<&[bool]>, n: usize) -> Vec<Hit> {
        let guesses = self.guesses(query, among);
        let hits = guesses.iter().enumerate().map(|(photo, &score)| Hit { photo, score });
        let hits: Vec<Hit> = hits.filter(|hit| hit.score > f32::NEG_INFINITY).collect();
        let mut photos: Vec<usize> = first(hits, self.candidates.max(4 * n)).into_iter().map(|hit| hit.photo).collect();
        // In the files' order memory is read forwards.
        photos.sort_unstable();
        let scores = self.collection.scores_of(&photos, query);
        first(photos.into_iter().zip(scores).map(|(photo, score)| Hit { photo, score }).collect(), n)
    }
}

/// One in twenty photos, and no fewer than a thousand: where the measured curve is flat.
fn default_candidates(n_photos: usize) -> usize {
    (n_photos / 20).max(1000)
}

fn starts(collection: &Collection) -> Vec<usize> {
    let mut starts = vec![0];
    for photo in 0..collection.len() {
        starts.push(starts[photo] + collection.n_regions(photo));
    }
    starts
}

fn section_lengths(header: &Header) -> Vec<Option<u64>> {
    let [dim, _, regions, _, centroids] = header.sizes;
    vec![centroids.checked_mul(dim).and_then(|n| n.checked_mul(4)), regions.checked_mul(2)]
}

/// About `n` region vectors, from photos chosen by the seed: `[regions, dim]`.
fn sample(collection: &Collection, starts: &[usize], n: usize, seed: u64) -> Vec<f32> {
    let n_regions = starts[collection.len()];
    // A photo is in if its hash falls below the share that is wanted.
    let share = n as f64 / n_regions.max(1) as f64;
    let chosen = |photo: usize| (mix(seed ^ mix(photo as u64)) >> 11) as f64 / (1u64 << 53) as f64 <= share;
    let mut values: Vec<f32> =
        (0..collection.len()).filter(|&photo| chosen(photo)).flat_map(|photo| collection.vectors(photo)).collect();
    if values.is_empty() {
        values = (0..collection.len()).flat_map(|photo| collection.vectors(photo)).collect();
    }
    values
}

/// SplitMix64's mixing step.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Lloyd's algorithm from vectors spread evenly over the sample; a centroid that loses all its vectors stays.
fn k_means(sample: &[f32], dim: usize, n_centroids: usize, passes: usize) -> Vec<f32> {
    let n = sample.len() / dim;
    let n_centroids = n_centroids.min(n);
    let mut centroids: Vec<f32> =
        (0..n_centroids).flat_map(|i| &sample[i * n / n_centroids * dim..][..dim]).copied().collect();
    for _ in 0..passes {
        let halves = half_squares(&centroids, dim);
        let codes: Vec<u16> =
            sample.par_chunks(TILE * dim).flat_map_iter(|tile| nearest(tile, &centroids, &halves, dim)).collect();
        let mut sums = vec![0.0f32; centroids.len()];
        let mut counts = vec![0u32; n_centroids];
        for (vector, &code) in sample.chunks_exact(dim).zip(&codes) {
            counts[usize::from(code)] += 1;
            let sum = &mut sums[usize::from(code) * dim..][..dim];
            sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
        }
        for (code, &count) in counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
            let own = code * dim..(code + 1) * dim;
            let mean = sums[own.clone()].iter().map(|sum| sum / count as f32);
            centroids[own].iter_mut().zip(mean).for_each(|(centroid, mean)| *centroid = mean);
        }
    }
    centroids
}

/// Half the squared length of each row: what is taken off a product to rank by distance.
fn half_squares(rows: &[f32], dim: usize) -> Vec<f32> {
    rows.chunks_exact(dim).map(|row| row.iter().map(|x| x * x).sum::<f32>() / 2.0).collect()
}

/// The nearest centroid of each vector, on this thread.
fn nearest(vectors: &[f32], centroids: &[f32], halves: &[f32], dim: usize) -> Vec<u16> {
    let n_centroids = halves.len();
    let mut products = Vec::new();
    let mut codes = Vec::with_capacity(vectors.len() / dim);
    for tile in vectors.chunks(TILE * dim) {
        products.clear();
        products.resize(tile.len() / dim * n_centroids, 0.0);
        multiply(tile, centroids, &mut products, dim, Layout::RightTransposed);
        for row in products.chunks_exact(n_centroids) {
            let (mut best, mut code) = (f32::NEG_INFINITY, 0);
            for (i, (product, half)) in row.iter().zip(halves).enumerate() {
                if product - half > best {
                    (best, code) = (product - half, i);
                }
            }
            codes.push(code as u16);
        }
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Exact;
    use crate::index::tests::{collection, numbers};
    use crate::vectors::Encoding;

    #[test]
    fn with_every_photo_a_candidate_it_is_exact() {
        let counts: Vec<usize> = (0..300).map(|i| 1 + i % 4).collect();
        let (_, collection) = collection(Encoding::F16, 9, &counts, 5);
        let collection = Arc::new(collection);
        let exact = Exact::new(collection.clone());
        let settings = PrunedSettings { centroids: Some(7), ..PrunedSettings::default() };
        let pruned = Pruned::build(collection, &settings).with_candidates(300);
        let among: Vec<bool> = (0..300).map(|i| i % 5 != 0).collect();
        for n_words in [1, 6, 8, 11] {
            let mut query = Query::words(9, &numbers(n_words * 9, 77), 1.0);
            query.push(&numbers(9, 78), Measure::Cosine, -2.0);
            for among in [None, Some(&among[..])] {
                assert_eq!(pruned.best(&query, among, 10), exact.best(&query, among, 10));
            }
        }
    }

    #[test]
    fn with_a_centroid_a_region_few_candidates_are_enough() {
        let counts = [3; 200];
        let (_, collection) = collection(Encoding::F16, 12, &counts, 9);
        let collection = Arc::new(collection);
        let exact = Exact::new(collection.clone());
        // The sample is the collection, every region its own centroid: guesses are exact.
        let settings = PrunedSettings { centroids: Some(600), passes: 0, sample: 1, seed: 1 };
        let pruned = Pruned::build(collection, &settings).with_candidates(1);
        for seed in 0..20 {
            let query = Query::words(12, &numbers(5 * 12, seed), 1.0);
            assert_eq!(pruned.best(&query, None, 3), exact.best(&query, None, 3));
        }
    }

    #[test]
    fn k_means_finds_clusters() {
        let sample: Vec<f32> =
            (0..60).flat_map(|i| [(i % 3) as f32 * 10.0 + (i % 2) as f32, (i % 3) as f32 * -5.0]).collect();
        let mut centroids: Vec<(i32, i32)> = k_means(&sample, 2, 3, 10)
            .chunks(2)
            .map(|c| ((c[0] * 10.0).round() as i32, (c[1] * 10.0).round() as i32))
            .collect();
        centroids.sort_unstable();
        assert_eq!(centroids, [(5, 0), (105, -50), (205, -100)]);
    }

    #[test]
    fn the_file_round_trips_and_knows_its_collection() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let own = |seed| Arc::new(collection(Encoding::F16, 5, &[2, 1, 3], seed).1);
        let pruned = Pruned::build(own(1), &PrunedSettings { centroids: Some(2), ..PrunedSettings::default() });
        let mut bytes = Vec::new();
        pruned.write(&mut bytes).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let opened = Pruned::open(&path, own(1)).unwrap().unwrap();
        assert_eq!((&opened.centroids, &opened.codes), (&pruned.centroids, &pruned.codes));
        assert!(Pruned::open(&path, own(2)).unwrap().is_none(), "of another collection");
        for i in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[i] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            assert!(Pruned::open(&path, own(1)).is_err(), "byte {i}");
            std::fs::write(&path, &bytes[..i]).unwrap();
            assert!(Pruned::open(&path, own(1)).is_err(), "cut at {i}");
        }
    }
}
