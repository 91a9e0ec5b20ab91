//! Photos of made-up concepts, as a vectors file in a temporary folder, and queries that some photo answers.

use std::path::PathBuf;

use rayon::prelude::*;
use sightline_search::vectors::{self, Encoding, PhotoVectors};
use sightline_search::{Collection, Place, Query, Vectors};

/// SplitMix64.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Nearly normal: the sum of four bytes' worth of uniform numbers, with variance 1.
    fn normal(&mut self) -> f32 {
        let x = self.next();
        let sum: u64 = (0..4).map(|i| x >> (16 * i) & 0xffff).sum();
        (sum as f32 / 65_535.0 - 2.0) * 3.0f32.sqrt()
    }
}

/// Sizes of a made-up collection.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) photos: usize,
    pub(crate) regions: usize,
    pub(crate) dim: usize,
    pub(crate) concepts: usize,
    /// Length of a region's own part beside its concept's, which has length 1.
    pub(crate) noise: f32,
}

/// Concepts, and which of them each photo shows.
pub(crate) struct Made {
    sizes: Sizes,
    /// `[concepts, dim]`.
    centres: Vec<f32>,
}

/// Different things in a photo.
const THINGS: usize = 6;

impl Made {
    pub(crate) fn new(sizes: Sizes) -> Self {
        let mut random = Random::new(3);
        let scale = (sizes.dim as f32).sqrt().recip();
        let centres = (0..sizes.concepts * sizes.dim).map(|_| random.normal() * scale).collect();
        Self { sizes, centres }
    }

    /// The concepts of a photo: common ones more often than rare ones.
    fn things(&self, photo: usize) -> Vec<usize> {
        let mut random = Random::new(1_000_003 + photo as u64);
        (0..THINGS).map(|_| (random.uniform().powi(3) * self.sizes.concepts as f32) as usize).collect()
    }

    fn around(&self, concept: usize, noise: f32, random: &mut Random, out: &mut Vec<f32>) {
        let scale = noise * (self.sizes.dim as f32).sqrt().recip();
        let centre = &self.centres[concept * self.sizes.dim..][..self.sizes.dim];
        out.extend(centre.iter().map(|x| x + random.normal() * scale));
    }

    /// The file with all photos, mapped.
    pub(crate) fn collection(&self, encoding: Encoding) -> Collection {
        let Sizes { photos, regions, dim, noise, .. } = self.sizes;
        let made: Vec<PhotoVectors> = (0..photos)
            .into_par_iter()
            .map(|photo| {
                let things = self.things(photo);
                let mut random = Random::new(photo as u64);
                let mut values = Vec::with_capacity(regions * dim);
                for region in 0..regions {
                    self.around(things[region % THINGS], noise, &mut random, &mut values);
                }
                PhotoVectors::new(encoding, dim, &values, &vec![[0.0, 0.0, 1.0, 1.0]; regions]).expect("small numbers")
            })
            .collect();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path: PathBuf = folder.path().join("vectors");
        let records: Vec<_> = made.iter().map(PhotoVectors::record).collect();
        let file = std::fs::File::create(&path).expect("a file");
        vectors::write(std::io::BufWriter::new(file), encoding, dim, 1, &records).expect("room on the disk");
        drop(made);
        let files = vec![Vectors::open(&path, 1).expect("the file just written")];
        let places = (0..photos).map(|photo| Place { file: 0, photo: photo as u32 }).collect();
        Collection::new(dim, files, places).expect("one file")
    }

    /// A sentence about some photo: that many words, each near one of its concepts.
    pub(crate) fn query(&self, seed: u64, words: usize) -> Query {
        let mut random = Random::new(777_777 + seed);
        let things = self.things((random.next() % self.sizes.photos as u64) as usize);
        let mut values = Vec::new();
        for word in 0..words {
            self.around(things[word % THINGS], self.sizes.noise, &mut random, &mut values);
        }
        Query::words(self.sizes.dim, &values, 1.0)
    }
}

/// The value after `--name` on the command line.
pub(crate) fn option(name: &str, default: usize) -> usize {
    let mut words = std::env::args().skip_while(|word| word != &format!("--{name}"));
    let value = words.nth(1);
    value.map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("--{name} {value}: expected a number")))
}

/// Middle and smallest wall time of `repeat` calls, in milliseconds.
pub(crate) fn milliseconds(repeat: usize, mut call: impl FnMut(usize)) -> (f64, f64) {
    let mut times: Vec<f64> = (0..repeat)
        .map(|i| {
            let start = std::time::Instant::now();
            call(i);
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[repeat / 2], times[0])
}
