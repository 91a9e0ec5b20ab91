//! The exact score of every photo with every sentence (paper, equation 8): products in tiles, a running maximum over
//! regions, a sum over words; no tensor of all regions and words is ever kept.

use std::ops::Range;

use rayon::prelude::*;

use crate::matrix::{Layout, multiply};
use crate::{Reduction, VectorSets, screened};

/// Rows of a tile of products: enough for the product to run at full speed, few enough to stay in the cache.
const TILE_REGIONS: usize = 192;
const TILE_WORDS: usize = 256;

/// `[images, sentences]`, row-major. A photo without regions scores minus infinity; a sentence without words scores 0.
pub fn scores(images: &VectorSets, sentences: &VectorSets, reduction: Reduction) -> Vec<f32> {
    assert_eq!(images.dim(), sentences.dim(), "photos and sentences lie in one space");
    if images.is_empty() || sentences.is_empty() {
        return Vec::new();
    }
    if screened::can_score(images, sentences) {
        return screened::scores(images, sentences, reduction);
    }
    plain_scores(images, sentences, reduction)
}

/// The same by the products of all regions and words.
pub(crate) fn plain_scores(images: &VectorSets, sentences: &VectorSets, reduction: Reduction) -> Vec<f32> {
    let image_tiles = images.tiles(TILE_REGIONS);
    let sentence_tiles = sentences.tiles(TILE_WORDS);
    let mut out = vec![0.0; images.len() * sentences.len()];
    let mut rest = out.as_mut_slice();
    let mut jobs = Vec::with_capacity(image_tiles.len());
    for tile in image_tiles {
        let (own, others) = rest.split_at_mut(tile.len() * sentences.len());
        rest = others;
        jobs.push((tile, own));
    }
    jobs.into_par_iter().for_each_init(Vec::new, |products, (photos, own)| {
        for tile in &sentence_tiles {
            score_tile(images, photos.clone(), sentences, tile.clone(), reduction, products, own);
        }
    });
    out
}

/// Scores of some photos with some sentences, into the photos' rows of the result.
fn score_tile(
    images: &VectorSets,
    photos: Range<usize>,
    sentences: &VectorSets,
    tile: Range<usize>,
    reduction: Reduction,
    products: &mut Vec<f32>,
    rows: &mut [f32],
) {
    let dim = images.dim();
    let (regions, words) = (images.vectors(photos.clone()), sentences.vectors(tile.clone()));
    let n_words = words.len() / dim;
    products.clear();
    products.resize(regions.len() / dim * n_words, 0.0);
    if n_words > 0 && !regions.is_empty() {
        multiply(regions, words, products, dim, Layout::RightTransposed);
    }
    let mut best = vec![0.0f32; n_words];
    let mut row = 0;
    for image in photos.clone() {
        best.fill(f32::NEG_INFINITY);
        for _ in 0..images.count(image) {
            for (best, &product) in best.iter_mut().zip(&products[row * n_words..(row + 1) * n_words]) {
                *best = best.max(product);
            }
            row += 1;
        }
        let own = &mut rows[(image - photos.start) * sentences.len()..][..sentences.len()];
        let mut word = 0;
        for (sentence, score) in own.iter_mut().enumerate().take(tile.end).skip(tile.start) {
            let count = sentences.count(sentence);
            let sum: f32 = best[word..word + count].iter().sum();
            word += count;
            *score = reduction.of(sum, count);
        }
    }
}

/// All products of one photo's regions and one sentence's words: `[words, regions]`, row-major.
pub fn products(regions: &[f32], words: &[f32], dim: usize) -> Vec<f32> {
    let mut out = vec![0.0; words.len() / dim * (regions.len() / dim)];
    if !out.is_empty() {
        multiply(words, regions, &mut out, dim, Layout::RightTransposed);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Equation 8, one product at a time.
    fn slow(images: &VectorSets, sentences: &VectorSets) -> Vec<f32> {
        let dim = images.dim();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let mut out = Vec::new();
        for i in 0..images.len() {
            for s in 0..sentences.len() {
                let best = |w: &[f32]| images.get(i).chunks(dim).map(|v| dot(v, w)).fold(f32::NEG_INFINITY, f32::max);
                out.push(sentences.get(s).chunks(dim).map(best).sum());
            }
        }
        out
    }

    fn sets(dim: usize, counts: &[usize], seed: i64) -> VectorSets {
        let mut sets = VectorSets::new(dim);
        let mut x = seed;
        for &count in counts {
            let vectors: Vec<f32> = (0..count * dim)
                .map(|_| {
                    x = (x * 1_103_515_245 + 12_345) & 0x7fff_ffff;
                    ((x >> 16) % 9 - 4) as f32
                })
                .collect();
            sets.push(&vectors);
        }
        sets
    }

    proptest! {
        #[test]
        fn agrees_with_one_product_at_a_time(
            dim in 1usize..6,
            regions in prop::collection::vec(1usize..40, 1..20),
            words in prop::collection::vec(0usize..30, 1..40),
            seed in 0i64..1000,
        ) {
            let (images, sentences) = (sets(dim, &regions, seed), sets(dim, &words, seed + 1));
            // Small whole numbers: sums are exact, so any order of adding gives the same bits.
            let expected = slow(&images, &sentences);
            prop_assert_eq!(&scores(&images, &sentences, Reduction::Sum), &expected);
            let mean = scores(&images, &sentences, Reduction::Mean);
            for (i, (mean, sum)) in mean.iter().zip(&expected).enumerate() {
                prop_assert_eq!(*mean, sum / words[i % words.len()].max(1) as f32);
            }
            let products = products(images.get(0), sentences.get(0), dim);
            let best = products.chunks(regions[0]).map(|row| row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            prop_assert_eq!(best.sum::<f32>(), expected[0]);
        }
    }
}
