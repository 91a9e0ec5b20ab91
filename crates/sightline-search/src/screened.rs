//! The best product of each word with a photo's regions, found among products of bytes: the region that wins by them, and
//! every other that rounding may have kept from it, is multiplied again as it is. So the result is that of the exact
//! products, for a third of their work.

use std::ops::Range;

use rayon::prelude::*;

use crate::bytes::{self, DEVIATIONS, LONGEST, OFFSET, PANEL, QUAD};
use crate::simd::{Pairs, sum_of, vectorised};
use crate::{Reduction, VectorSets};

/// Vectors shorter than this are multiplied as they are: there is too little to win.
const SHORTEST: usize = 128;
/// Words of a job: as they are they stay in the third-level cache, rounded in the second.
const WORDS: usize = 1024;
/// Photos of a job.
const PHOTOS: usize = 256;
/// Regions that meet a panel of words together: as they are and rounded they stay in the second-level cache.
const REGIONS: usize = 100;

/// Whether scores can be found so: the processor can, sums fit, all numbers are finite.
pub(crate) fn can_score(images: &VectorSets, sentences: &VectorSets) -> bool {
    let finite = |sets: &VectorSets| sets.vectors(0..sets.len()).iter().all(|x| x.is_finite());
    (SHORTEST..=LONGEST).contains(&images.dim()) && bytes::can_multiply() && finite(images) && finite(sentences)
}

/// As [`scores`](crate::scores), where [`can_score`].
pub(crate) fn scores(images: &VectorSets, sentences: &VectorSets, reduction: Reduction) -> Vec<f32> {
    let regions = Regions::new(images);
    let photos: Vec<Range<usize>> =
        (0..images.len()).step_by(PHOTOS).map(|first| first..images.len().min(first + PHOTOS)).collect();
    let tiles = sentences.tiles(WORDS);
    let jobs: Vec<_> = tiles.iter().flat_map(|tile| photos.iter().map(move |photos| (photos, tile))).collect();
    let found: Vec<Vec<f32>> = jobs
        .par_iter()
        .map(|&(photos, tile)| score_job(images, &regions, sentences, photos.clone(), tile.clone(), reduction))
        .collect();
    let mut out = vec![0.0; images.len() * sentences.len()];
    for ((photos, tile), found) in jobs.into_iter().zip(found) {
        for (image, own) in photos.clone().zip(found.chunks_exact(tile.len())) {
            out[image * sentences.len()..][tile.clone()].copy_from_slice(own);
        }
    }
    out
}

/// Regions of all photos, rounded.
struct Regions {
    stride: usize,
    /// `[regions, stride]`.
    wholes: Vec<i8>,
    /// What a whole number of each region is worth.
    factors: Vec<f32>,
    /// What the offset of the words adds to each region's products.
    shifts: Vec<i32>,
    /// A photo: the largest of its regions' factors, and of their squared lengths.
    most: Vec<(f32, f32)>,
}

impl Regions {
    fn new(images: &VectorSets) -> Self {
        let (dim, stride) = (images.dim(), images.dim().next_multiple_of(QUAD));
        let all = images.vectors(0..images.len());
        let n = all.len() / dim;
        let mut wholes = vec![0i8; n * stride];
        let each = wholes.par_chunks_exact_mut(stride).zip(all.par_chunks_exact(dim));
        let rounded: Vec<(f32, i32)> = each.map(|(wholes, region)| bytes::round(region, wholes)).collect();
        let mut rest = rounded.as_slice();
        let most = (0..images.len()).map(|image| {
            let own;
            (own, rest) = rest.split_at(images.count(image));
            let factor = own.iter().fold(0.0f32, |most, (factor, _)| most.max(*factor));
            (factor, images.get(image).chunks_exact(dim).map(squared_length).fold(0.0, f32::max))
        });
        let most = most.collect();
        let (factors, shifts) = rounded.into_iter().map(|(factor, sum)| (factor, sum * OFFSET)).unzip();
        Self { stride, wholes, factors, shifts, most }
    }
}

fn squared_length(x: &[f32]) -> f32 {
    sum_of(x, |x| x * x)
}

/// Words of some sentences, rounded.
struct Words<'a> {
    /// As they are: `[words, dim]`.
    vectors: &'a [f32],
    /// `[panels, stride / QUAD, PANEL, QUAD]`.
    panels: Vec<u8>,
    /// Squared length of each word in units of its whole numbers.
    lengths: Vec<f32>,
}

impl<'a> Words<'a> {
    fn new(vectors: &'a [f32], dim: usize, stride: usize) -> Self {
        let n = vectors.len() / dim;
        let mut panels = vec![OFFSET as u8; n.next_multiple_of(PANEL) * stride];
        let mut lengths = vec![0.0; n.next_multiple_of(PANEL)];
        let mut wholes = vec![0i8; dim];
        for (i, word) in vectors.chunks_exact(dim).enumerate() {
            let (factor, _) = bytes::round(word, &mut wholes);
            lengths[i] = squared_length(word) / (factor * factor);
            let panel = &mut panels[i / PANEL * PANEL * stride..];
            for (column, &whole) in wholes.iter().enumerate() {
                panel[bytes::at(column, i % PANEL)] = (i32::from(whole) + OFFSET) as u8;
            }
        }
        Self { vectors, panels, lengths }
    }
}

/// Scores of some photos with some sentences: `[photos, sentences]`.
fn score_job(
    images: &VectorSets,
    regions: &Regions,
    sentences: &VectorSets,
    photos: Range<usize>,
    tile: Range<usize>,
    reduction: Reduction,
) -> Vec<f32> {
    let (dim, stride) = (images.dim(), regions.stride);
    let words = Words::new(sentences.vectors(tile.clone()), dim, stride);
    let n_words = words.vectors.len() / dim;
    let mut out = Vec::with_capacity(photos.len() * tile.len());
    let (mut sums, mut near, mut best) = (Vec::new(), Vec::new(), Vec::new());
    let mut screen = Screen::default();
    let mut image = photos.start;
    while image < photos.end {
        let mut end = image + 1;
        while end < photos.end && images.first(end + 1) - images.first(image) <= REGIONS {
            end += 1;
        }
        let group = images.first(image)..images.first(end);
        let wholes = &regions.wholes[group.start * stride..group.end * stride];
        sums.resize(group.len() * PANEL, 0);
        near.resize(group.len() * PANEL, 0.0);
        best.clear();
        best.resize((end - image) * n_words, f32::NEG_INFINITY);
        for (panel, at) in words.panels.chunks_exact(PANEL * stride).zip((0..n_words).step_by(PANEL)) {
            bytes::multiply(panel, wholes, stride, &mut sums);
            let lengths = &words.lengths[at..at + PANEL];
            screen.looks.clear();
            for photo in image..end {
                let own = images.first(photo)..images.first(photo + 1);
                let here = (own.start - group.start) * PANEL..(own.end - group.start) * PANEL;
                let (factors, shifts) = (&regions.factors[own.clone()], &regions.shifts[own]);
                let look =
                    Look::new(&sums[here.clone()], &mut near[here], factors, shifts, regions.most[photo], lengths);
                screen.looks.push(look);
            }
            let width = PANEL.min(n_words - at);
            let own_words = &words.vectors[at * dim..(at + width) * dim];
            screen.multiply(&near, images.vectors(image..end), own_words, dim, |photo, word, product| {
                let best = &mut best[photo * n_words + at + word];
                *best = if product > *best { product } else { *best };
            });
        }
        for own in 0..end - image {
            let mut rest = &best[own * n_words..][..n_words];
            out.extend(tile.clone().map(|sentence| {
                let best;
                (best, rest) = rest.split_at(sentences.count(sentence));
                reduction.of(best.iter().sum(), best.len())
            }));
        }
        image = end;
    }
    out
}

/// What the products of bytes say of one photo and a panel of words.
struct Look {
    /// Number of regions.
    regions: usize,
    /// The best region of each word.
    winners: [u32; PANEL],
    /// Below which no region can be the best.
    floors: [f32; PANEL],
    /// The largest product but one.
    seconds: [f32; PANEL],
}

impl Look {
    /// From the `sums` of bytes, `[regions, PANEL]`, which become products in units of each word's whole numbers, `near`,
    /// likewise. `most` is the photo's largest factor and squared length, `lengths` the words' squared lengths in units of
    /// their whole numbers.
    fn new(sums: &[i32], near: &mut [f32], factors: &[f32], shifts: &[i32], most: (f32, f32), lengths: &[f32]) -> Self {
        let mut best = [f32::NEG_INFINITY; PANEL];
        let ((sums, _), (near, _)) = (sums.as_chunks::<PANEL>(), near.as_chunks_mut::<PANEL>());
        let mut look = Self { regions: sums.len(), winners: [0; PANEL], floors: best, seconds: best };
        let Self { winners, floors, seconds, .. } = &mut look;
        let (factor, length) = most;
        vectorised(
            #[inline(always)]
            || {
                for (region, (sums, near)) in sums.iter().zip(near).enumerate() {
                    let (factor, shift) = (factors[region], shifts[region]);
                    for lane in 0..PANEL {
                        let x = (sums[lane] - shift) as f32 * factor;
                        near[lane] = x;
                        let lower = if x > best[lane] { best[lane] } else { x };
                        seconds[lane] = if lower > seconds[lane] { lower } else { seconds[lane] };
                        winners[lane] = if x > best[lane] { region as u32 } else { winners[lane] };
                        best[lane] = if x > best[lane] { x } else { best[lane] };
                    }
                }
                // How far the difference of two regions' products may be off: what was rounded from each of the two is
                // multiplied with the word, and what was rounded from the word with their difference, which is at most
                // twice as long as they are. A hundredth more, for the rounding of the bound itself.
                let deviations = 1.01 * DEVIATIONS / 12f32.sqrt();
                for lane in 0..PANEL {
                    let variance = 2.0 * factor * factor * lengths[lane] + 4.0 * length;
                    floors[lane] = best[lane] - deviations * variance.sqrt();
                }
            },
        );
        look
    }
}

/// Photos beside each other, and a panel of words.
#[derive(Default)]
struct Screen {
    looks: Vec<Look>,
    /// Word and region of each product that is to be known exactly, word by word.
    pairs: Vec<(u32, u32)>,
    /// The photo of each.
    photos: Vec<u32>,
    exact: Vec<f32>,
}

impl Screen {
    /// Gives photo, word and exact product of all regions that may be the best: `near` as [`Look`] leaves it, `regions`
    /// `[regions, dim]` of all photos, `words` `[words, dim]`, the panel's first.
    fn multiply(
        &mut self,
        near: &[f32],
        regions: &[f32],
        words: &[f32],
        dim: usize,
        mut found: impl FnMut(usize, usize, f32),
    ) {
        let Self { looks, pairs, photos, exact } = self;
        pairs.clear();
        photos.clear();
        for word in 0..words.len() / dim {
            let mut first = 0;
            for (photo, look) in looks.iter().enumerate() {
                let floor = look.floors[word];
                if look.seconds[word] < floor {
                    pairs.push((word as u32, first as u32 + look.winners[word]));
                } else {
                    // A floor that is no number, of numbers too large to be squared, keeps none from being multiplied.
                    let own = near[first * PANEL..].iter().skip(word).step_by(PANEL).take(look.regions);
                    let likely = (first as u32..).zip(own).filter(|&(_, &x)| x >= floor || floor.is_nan());
                    pairs.extend(likely.map(|(region, _)| (word as u32, region)));
                }
                photos.resize(pairs.len(), photo as u32);
                first += look.regions;
            }
        }
        exact.resize(pairs.len(), 0.0);
        Pairs { a: words, b: regions, dim, pairs, out: exact }.multiply();
        for ((&(word, _), &photo), &product) in pairs.iter().zip(photos.iter()).zip(exact.iter()) {
            found(photo as usize, word as usize, product);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exact::plain_scores;
    use proptest::prelude::*;

    /// Vectors whose numbers are sums of a few draws, and in each photo some that are nearly the same.
    fn sets(dim: usize, counts: &[usize], seed: u64, alike: f32) -> VectorSets {
        let mut state = seed | 1;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let mut sets = VectorSets::new(dim);
        for &count in counts {
            let common: Vec<f32> = (0..dim).map(|_| draw() + draw()).collect();
            let own = |x: f32, y: f32| alike * x + (1.0 - alike) * y;
            let vectors: Vec<f32> = (0..count * dim).map(|i| own(common[i % dim], draw())).collect();
            sets.push(&vectors);
        }
        sets
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn scores_are_those_of_all_products(
            dim in SHORTEST..300,
            regions in prop::collection::vec(0usize..60, 1..20),
            words in prop::collection::vec(0usize..40, 1..30),
            seed: u64,
            alike in prop::sample::select(vec![0.0, 0.9, 0.999, 1.0]),
        ) {
            let (images, sentences) = (sets(dim, &regions, seed, alike), sets(dim, &words, seed ^ 7, 0.5));
            if can_score(&images, &sentences) {
                for reduction in [Reduction::Sum, Reduction::Mean] {
                    let expected = plain_scores(&images, &sentences, reduction);
                    let found = scores(&images, &sentences, reduction);
                    prop_assert_eq!(found.len(), expected.len());
                    for (found, expected) in found.into_iter().zip(expected) {
                        prop_assert!(found == expected || (found - expected).abs() < 1e-3, "{found} for {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn lengths_that_no_number_can_hold_hide_no_region() {
        for scale in [1e30, 1e-44] {
            let scaled = |seed| {
                let mut scaled = VectorSets::new(SHORTEST);
                let vectors: Vec<f32> = sets(SHORTEST, &[5], seed, 0.0).get(0).iter().map(|x| x * scale).collect();
                scaled.push(&vectors);
                scaled
            };
            let (images, sentences) = (scaled(1), sets(SHORTEST, &[3], 2, 0.0));
            if can_score(&images, &sentences) {
                let [found] = scores(&images, &sentences, Reduction::Sum)[..] else { panic!("one score") };
                let [expected] = plain_scores(&images, &sentences, Reduction::Sum)[..] else { panic!("one score") };
                assert!((found / expected - 1.0).abs() < 1e-3 || found == expected, "{found} for {expected}");
            }
        }
    }

    #[test]
    fn what_cannot_be_rounded_is_left_to_others() {
        let fine = sets(SHORTEST, &[2], 1, 0.0);
        assert_eq!(can_score(&fine, &fine), bytes::can_multiply());
        let mut infinite = fine.clone();
        infinite.push(&[f32::INFINITY; SHORTEST]);
        assert!(!can_score(&infinite, &fine) && !can_score(&fine, &infinite));
        assert!(!can_score(&sets(SHORTEST - 1, &[2], 1, 0.0), &sets(SHORTEST - 1, &[2], 1, 0.0)));
    }
}
