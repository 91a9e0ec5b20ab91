//! Indexes: which photos of a collection score best for a query, exactly or nearly so.

use std::sync::Arc;

use rayon::prelude::*;

use crate::collection::Scratch;
use crate::{Collection, Query};

/// A photo and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Index of the photo in the collection.
    pub photo: usize,
    /// Sum over query vectors of weight times best value.
    pub score: f32,
}

/// Finds the best photos of a collection.
pub trait Index: Send + Sync {
    /// What is searched.
    fn collection(&self) -> &Collection;

    /// At most `n` photos, best first, equal scores in the collection's order; only those that `among` marks, where
    /// it is given. Photos without regions are never found. Scores are exact.
    fn best(&self, query: &Query, among: Option<&[bool]>, n: usize) -> Vec<Hit>;
}

/// Photos whose scores one job computes: enough to make its start cheap, few enough to share the work.
const PHOTOS_PER_JOB: usize = 64;

/// Looks at every vector.
#[derive(Debug)]
pub struct Exact {
    collection: Arc<Collection>,
}

impl Exact {
    /// Over all photos of a collection.
    pub fn new(collection: Arc<Collection>) -> Self {
        Self { collection }
    }

    /// Scores of all photos, in their order; minus infinity for those that `among` leaves out.
    pub fn scores(&self, query: &Query, among: Option<&[bool]>) -> Vec<f32> {
        let mut scores = vec![f32::NEG_INFINITY; self.collection.len()];
        scores.par_chunks_mut(PHOTOS_PER_JOB).enumerate().for_each_init(Scratch::default, |scratch, (job, own)| {
            for (i, score) in own.iter_mut().enumerate() {
                let photo = job * PHOTOS_PER_JOB + i;
                if among.is_none_or(|among| among[photo]) {
                    *score = self.collection.score(photo, query, scratch);
                }
            }
        });
        scores
    }
}

impl Index for Exact {
    fn collection(&self) -> &Collection {
        &self.collection
    }

    fn best(&self, query: &Query, among: Option<&[bool]>, n: usize) -> Vec<Hit> {
        let scores = self.scores(query, among);
        let hits = scores.iter().enumerate().map(|(photo, &score)| Hit { photo, score });
        first(hits.filter(|hit| hit.score > f32::NEG_INFINITY).collect(), n)
    }
}

impl Collection {
    /// Exact scores of some photos, in the given order.
    pub fn scores_of(&self, photos: &[usize], query: &Query) -> Vec<f32> {
        let mut scores = vec![0.0; photos.len()];
        let jobs = scores.par_chunks_mut(PHOTOS_PER_JOB).zip(photos.par_chunks(PHOTOS_PER_JOB));
        jobs.for_each_init(Scratch::default, |scratch, (scores, photos)| {
            for (score, &photo) in scores.iter_mut().zip(photos) {
                *score = self.score(photo, query, scratch);
            }
        });
        scores
    }
}

impl Collection {
    /// For some photos the best value of each query vector with any region, weights left out: `[photos, terms]`.
    /// Minus infinity for photos without regions. What a query's scores are to be compared with.
    pub fn best_values_of(&self, photos: &[usize], query: &Query) -> Vec<f32> {
        let n_terms = query.len();
        if n_terms == 0 {
            return Vec::new();
        }
        let mut values = vec![0.0; photos.len() * n_terms];
        values.par_chunks_mut(n_terms).zip(photos).for_each_init(Scratch::default, |scratch, (own, &photo)| {
            own.copy_from_slice(self.best_values(photo, query, scratch));
        });
        values
    }
}

/// The `n` best, in order.
pub(crate) fn first(mut hits: Vec<Hit>, n: usize) -> Vec<Hit> {
    let order = |a: &Hit, b: &Hit| b.score.total_cmp(&a.score).then(a.photo.cmp(&b.photo));
    if n == 0 {
        return Vec::new();
    }
    if hits.len() > n {
        hits.select_nth_unstable_by(n - 1, order);
        hits.truncate(n);
    }
    hits.sort_unstable_by(order);
    hits
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::vectors::{self, Encoding, PhotoVectors, Vectors};
    use crate::{Measure, Place, Reduction, VectorSets, scores};
    use proptest::prelude::*;

    pub(crate) fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) % 9) as f32 - 4.0
        };
        (0..n).map(|_| next()).collect()
    }

    /// Photos with these numbers of regions, spread over two files, the second first.
    pub(crate) fn collection(encoding: Encoding, dim: usize, counts: &[usize], seed: u64) -> (VectorSets, Collection) {
        let folder = tempfile::tempdir().unwrap();
        let mut sets = VectorSets::new(dim);
        let photos: Vec<PhotoVectors> = (counts.iter().enumerate())
            .map(|(i, &count)| {
                let values = numbers(count * dim, seed + i as u64);
                sets.push(&values);
                PhotoVectors::new(encoding, dim, &values, &vec![[0.0, 0.0, 1.0, i as f32]; count]).unwrap()
            })
            .collect();
        let half = counts.len() / 2;
        let files = [&photos[half..], &photos[..half]].map(|part| {
            let path = folder.path().join("part");
            let records: Vec<_> = part.iter().map(PhotoVectors::record).collect();
            let mut file = std::fs::File::create(&path).unwrap();
            vectors::write(&mut file, encoding, dim, 1, &records).unwrap();
            let opened = Vectors::open(&path, 1).unwrap();
            std::fs::remove_file(&path).unwrap();
            opened
        });
        let places = (0..counts.len()).map(|i| match i.checked_sub(half) {
            Some(photo) => Place { file: 0, photo: photo as u32 },
            None => Place { file: 1, photo: i as u32 },
        });
        let collection = Collection::new(dim, files.into(), places.collect()).unwrap();
        (sets, collection)
    }

    proptest! {
        #[test]
        fn words_score_as_equation_8(
            dim in 1usize..70, counts in prop::collection::vec(1usize..9, 1..150), words in 0usize..9, seed in 0u64..99,
        ) {
            let (sets, collection) = collection(Encoding::F16, dim, &counts, seed);
            let words = numbers(words * dim, seed + 1000);
            let mut sentence = VectorSets::new(dim);
            sentence.push(&words);
            let expected = scores(&sets, &sentence, Reduction::Sum);
            let exact = Exact::new(Arc::new(collection));
            let query = Query::words(dim, &words, 1.0);
            prop_assert_eq!(&exact.scores(&query, None), &expected);
            let all: Vec<usize> = (0..counts.len()).rev().collect();
            let best = exact.collection().best_values_of(&all, &query);
            for (i, &photo) in all.iter().enumerate() {
                let values = exact.collection().values(photo, &query);
                let largest = values.chunks(counts[photo]).map(|row| row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
                prop_assert_eq!(&best[i * query.len()..(i + 1) * query.len()], largest.collect::<Vec<_>>());
            }
            let reversed = exact.collection().scores_of(&all, &query);
            prop_assert_eq!(reversed.into_iter().rev().collect::<Vec<_>>(), &expected[..]);

            let mut order: Vec<usize> = (0..counts.len()).filter(|i| i % 3 != 1).collect();
            order.sort_by(|&a, &b| expected[b].total_cmp(&expected[a]).then(a.cmp(&b)));
            let among: Vec<bool> = (0..counts.len()).map(|i| i % 3 != 1).collect();
            for n in [0, 1, 5, 1000] {
                let hits = exact.best(&query, Some(&among), n);
                prop_assert_eq!(hits.iter().map(|h| h.photo).collect::<Vec<_>>(), &order[..n.min(order.len())]);
                prop_assert!(hits.iter().all(|h| h.score == expected[h.photo]));
            }
            for photo in 0..counts.len().min(3) {
                let values = exact.collection().values(photo, &query);
                prop_assert_eq!(values, crate::products(sets.get(photo), &words, dim));
            }
        }

        #[test]
        fn int8_is_near(dim in 1usize..70, counts in prop::collection::vec(1usize..9, 1..50), seed in 0u64..99) {
            let (sets, collection) = collection(Encoding::Int8, dim, &counts, seed);
            let words = numbers(4 * dim, seed + 1000);
            let mut sentence = VectorSets::new(dim);
            sentence.push(&words);
            let expected = scores(&sets, &sentence, Reduction::Sum);
            // Half a step of both sides, for numbers of at most 4, and four words.
            let tolerance = 4.0 * dim as f32 * 4.0 * 4.0 * (0.5 / 127.0 + 0.5 / 1023.0) * 1.01;
            let got = Exact::new(Arc::new(collection)).scores(&Query::words(dim, &words, 1.0), None);
            for (got, expected) in got.iter().zip(&expected) {
                prop_assert!((got - expected).abs() <= tolerance, "{got} {expected}");
            }
        }
    }

    #[test]
    fn cosine_knows_no_lengths_and_negative_weights_turn_away() {
        for encoding in [Encoding::F16, Encoding::Int8] {
            let dim = 2;
            let vectors = [[3.0, 0.0], [0.0, 0.5], [0.0, 0.0]];
            let photos: Vec<_> =
                vectors.iter().map(|v| PhotoVectors::new(encoding, dim, v, &[[0.0; 4]]).unwrap()).collect();
            let records: Vec<_> = photos.iter().map(PhotoVectors::record).collect();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("v");
            let mut file = std::fs::File::create(&path).unwrap();
            vectors::write(&mut file, encoding, dim, 1, &records).unwrap();
            let files = vec![Vectors::open(&path, 1).unwrap()];
            let places = (0..3).map(|photo| Place { file: 0, photo }).collect();
            let exact = Exact::new(Arc::new(Collection::new(dim, files, places).unwrap()));
            let mut query = Query::new(dim);
            query.push(&[8.0, 8.0], Measure::Cosine, 1.0);
            let half = 0.5f32.sqrt();
            for (got, expected) in exact.scores(&query, None).iter().zip([half, half, 0.0]) {
                assert!((got - expected).abs() < 1e-2, "{got} {expected}");
            }
            query.push(&[1.0, 0.0], Measure::Product, -1.0);
            assert_eq!(exact.best(&query, None, 1)[0].photo, 1);
        }
    }
}
