//! The best region of every photo for every word: what the score of equation 8 is made of, and what training sends its
//! gradient through.

use rayon::prelude::*;

use crate::matrix::{Layout, multiply};
use crate::sets::tiles;
use crate::simd;

/// For each photo and word, the photo's best region and its product with the word. Row-major `[images, words]`.
#[derive(Debug, Clone, PartialEq)]
pub struct BestRegions {
    /// Product of the word with the best region.
    pub products: Vec<f32>,
    /// Row of the best region among all regions; the first among equals, and the photo's first where no product is a
    /// number.
    pub regions: Vec<u32>,
}

/// Rows of a tile of products: photos are taken together until they have this many regions.
const TILE_REGIONS: usize = 160;
/// Columns of a tile. A tile of products stays in the second-level cache between the product and the maximum.
const TILE_WORDS: usize = 512;

/// The best region of each photo for each word, in tiles; the products of all regions and words are never kept.
///
/// `regions` is `[regions of all photos, dim]`, photo by photo as `counts` says, each count at least one; `words` is
/// `[words, dim]`.
pub fn best_regions(regions: &[f32], counts: &[usize], words: &[f32], dim: usize) -> BestRegions {
    let n_words = words.len() / dim;
    assert_eq!(regions.len(), counts.iter().sum::<usize>() * dim, "regions of all photos");
    assert!(counts.iter().all(|&count| count > 0), "a photo has at least one region");
    let mut best = BestRegions {
        products: vec![f32::NEG_INFINITY; counts.len() * n_words],
        regions: Vec::with_capacity(counts.len() * n_words),
    };
    let mut first = 0;
    for &count in counts {
        best.regions.resize(best.regions.len() + n_words, first);
        first += count as u32;
    }
    if n_words == 0 || counts.is_empty() {
        return best;
    }
    let tiles = tiles(counts, TILE_REGIONS);
    let (mut products, mut winners) = (best.products.as_mut_slice(), best.regions.as_mut_slice());
    let mut jobs = Vec::with_capacity(tiles.len());
    let mut first_region = 0;
    for images in tiles {
        let counts = &counts[images];
        let n_regions: usize = counts.iter().sum();
        let (own_products, rest) = products.split_at_mut(counts.len() * n_words);
        products = rest;
        let (own_winners, rest) = winners.split_at_mut(counts.len() * n_words);
        winners = rest;
        jobs.push((first_region, n_regions, counts, own_products, own_winners));
        first_region += n_regions;
    }
    jobs.into_par_iter().for_each_init(Vec::new, |tile: &mut Vec<f32>, job| {
        let (first_region, n_regions, counts, products, winners) = job;
        let regions = &regions[first_region * dim..(first_region + n_regions) * dim];
        for (from, words) in words.chunks(TILE_WORDS * dim).enumerate() {
            let (from, width) = (from * TILE_WORDS, words.len() / dim);
            tile.resize(n_regions * width, 0.0);
            multiply(regions, words, &mut tile[..n_regions * width], dim, Layout::RightTransposed);
            let mut row = 0;
            for (image, &count) in counts.iter().enumerate() {
                let at = image * n_words + from;
                simd::maximum_rows(
                    &tile[row * width..(row + count) * width],
                    (first_region + row) as u32,
                    &mut products[at..at + width],
                    &mut winners[at..at + width],
                );
                row += count;
            }
        }
    });
    best
}

/// The gradient of sums over chosen products, `Σ weights[i, w] · ⟨regions[chosen[i, w]], words[w]⟩`, to regions and words.
///
/// Touches the chosen region of each word only, and only where the weight is not zero. `chosen` and `weights` are
/// `[images, words]`; returns `[regions of all photos, dim]` and `[words, dim]`.
pub fn chosen_gradients(
    regions: &[f32],
    counts: &[usize],
    words: &[f32],
    dim: usize,
    chosen: &[u32],
    weights: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let n_words = words.len() / dim;
    assert_eq!(chosen.len(), counts.len() * n_words, "one choice a photo and word");
    assert_eq!(weights.len(), chosen.len(), "one weight a choice");
    let mut of_regions = vec![0.0; regions.len()];
    let mut of_words = vec![0.0; words.len()];

    // A photo's regions stay in the first cache levels while all words pass by.
    let mut rest = of_regions.as_mut_slice();
    let mut jobs = Vec::with_capacity(counts.len());
    let mut first = 0;
    for (image, &count) in counts.iter().enumerate() {
        let (own, others) = rest.split_at_mut(count * dim);
        rest = others;
        jobs.push((image, first, own));
        first += count;
    }
    jobs.into_par_iter().for_each(|(image, first, own)| {
        let row = image * n_words..(image + 1) * n_words;
        let terms = chosen[row.clone()].iter().zip(&weights[row]).zip(words.chunks_exact(dim));
        let terms = terms.filter(|&((_, &weight), _)| weight != 0.0);
        simd::add_scaled(own, terms.map(|((&region, &weight), word)| ((region as usize - first) * dim, weight, word)));
    });
    of_words.par_chunks_mut(dim).enumerate().with_min_len(16).for_each(|(word, own)| {
        let terms = (word..chosen.len()).step_by(n_words).filter(|&at| weights[at] != 0.0);
        simd::add_scaled(own, terms.map(|at| (0, weights[at], &regions[chosen[at] as usize * dim..][..dim])));
    });
    (of_regions, of_words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vectors(n: usize, dim: usize, seed: i64) -> Vec<f32> {
        let mut x = seed;
        let mut next = || {
            x = (x * 1_103_515_245 + 12_345) & 0x7fff_ffff;
            ((x >> 16) % 9 - 4) as f32
        };
        (0..n * dim).map(|_| next()).collect()
    }

    #[test]
    fn what_is_not_a_number_stays_inside_its_photo() {
        let best = best_regions(&[1.0, f32::NAN, f32::NAN], &[1, 2], &[1.0], 1);
        assert_eq!(best.regions, [0, 1]);
        assert_eq!(best.products, [1.0, f32::NEG_INFINITY]);
    }

    proptest! {
        /// Small whole numbers: sums are exact, so any order of adding gives the same bits.
        #[test]
        fn agrees_with_one_product_at_a_time(
            dim in 1usize..20,
            counts in prop::collection::vec(1usize..40, 1..20),
            n_words in 0usize..700,
            seed in 0i64..1000,
        ) {
            let (regions, words) = (vectors(counts.iter().sum(), dim, seed), vectors(n_words, dim, seed + 1));
            let best = best_regions(&regions, &counts, &words, dim);
            let weights: Vec<f32> = (0..best.regions.len()).map(|i| (i % 4) as f32 - 1.0).collect();
            let (of_regions, of_words) = chosen_gradients(&regions, &counts, &words, dim, &best.regions, &weights);
            let (mut slow_regions, mut slow_words) = (vec![0.0; regions.len()], vec![0.0; words.len()]);
            let mut first = 0;
            for (image, &count) in counts.iter().enumerate() {
                for (w, word) in words.chunks(dim).enumerate() {
                    let product = |r: usize| -> f32 { regions[r * dim..].iter().zip(word).map(|(a, b)| a * b).sum() };
                    let mut winner = first;
                    for r in first..first + count {
                        if product(r) > product(winner) {
                            winner = r;
                        }
                    }
                    let at = image * n_words + w;
                    prop_assert_eq!(best.regions[at] as usize, winner);
                    prop_assert_eq!(best.products[at], product(winner));
                    for d in 0..dim {
                        slow_regions[winner * dim + d] += weights[at] * word[d];
                        slow_words[w * dim + d] += weights[at] * regions[winner * dim + d];
                    }
                }
                first += count;
            }
            prop_assert_eq!(of_regions, slow_regions);
            prop_assert_eq!(of_words, slow_words);
        }
    }
}
