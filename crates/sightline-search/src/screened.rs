//! The best product of each word with a photo's regions, found among products of bytes: the region that wins by them, and
//! every other that rounding may have kept from it, is multiplied again as it is. So the result is that of the exact
//! products, for a third of their work, unless rounding errors add up to more than seven of their deviations
//! ([`DEVIATIONS`]).

use std::iter;
use std::ops::Range;

use rayon::prelude::*;

use crate::bytes::{self, DEVIATIONS, LONGEST, OFFSET, PANEL};
use crate::simd::{Pairs, largest_of_columns, not_below, sum_of};
use crate::{Reduction, VectorSets};

/// Vectors shorter than this are multiplied as they are: there is too little to win.
const SHORTEST: usize = 128;
/// Words of a job: as they are they stay in the third-level cache, rounded in the second.
const WORDS: usize = 1024;
/// Photos of a job.
const PHOTOS: usize = 256;
/// Regions of a look, a bit each.
const LOOK: usize = u32::BITS as usize;
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
    rows: bytes::Rows,
    /// A photo: the largest of what its regions' whole numbers are worth, and of their squared lengths.
    most: Vec<(f32, f32)>,
}

impl Regions {
    fn new(images: &VectorSets) -> Self {
        let rows = bytes::Rows::round(images.vectors(0..images.len()), images.dim());
        let most = |image| {
            let factors = (images.first(image)..images.first(image + 1)).map(|region| rows.get(region).1);
            let lengths = images.get(image).chunks_exact(images.dim()).map(squared_length);
            (factors.fold(0.0, f32::max), lengths.fold(0.0, f32::max))
        };
        let most = (0..images.len()).map(most).collect();
        Self { rows, most }
    }
}

fn squared_length(x: &[f32]) -> f32 {
    sum_of(x, |x| x * x)
}

/// Vectors as they are, each from the beginning of a cache line on: the widest loads take twice as long where they touch two.
struct Lines {
    values: Vec<f32>,
    /// Where the first line begins.
    start: usize,
    /// Length of a vector with the zeros that fill its last line.
    width: usize,
}

impl Lines {
    /// Numbers of a line.
    const LINE: usize = 64 / size_of::<f32>();

    fn new(dim: usize) -> Self {
        Self { values: Vec::new(), start: 0, width: dim.next_multiple_of(Self::LINE) }
    }

    /// Holds `vectors`, `[n, dim]`, in place of those before.
    fn fill(&mut self, vectors: &[f32], dim: usize) {
        let n = vectors.len() / dim;
        self.values.resize(n * self.width + Self::LINE, 0.0);
        // Nowhere is a multiple of a line out of reach; if it were, loads would only be slower.
        self.start = self.values.as_ptr().align_offset(64).min(Self::LINE);
        let own = self.values[self.start..].chunks_exact_mut(self.width);
        for (own, vector) in own.zip(vectors.chunks_exact(dim)) {
            own[..dim].copy_from_slice(vector);
            own[dim..].fill(0.0);
        }
    }

    /// `[n, width]`, and what is left of the last line.
    fn values(&self) -> &[f32] {
        &self.values[self.start..]
    }
}

/// Words of some sentences, rounded.
struct Words {
    n: usize,
    lines: Lines,
    /// `[panels, stride / QUAD, PANEL, QUAD]`.
    panels: Vec<u8>,
    /// Squared length of each word in units of its whole numbers.
    lengths: Vec<f32>,
}

impl Words {
    fn new(vectors: &[f32], dim: usize, stride: usize) -> Self {
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
        let mut lines = Lines::new(dim);
        lines.fill(vectors, dim);
        Self { n, lines, panels, lengths }
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
    let (dim, stride) = (images.dim(), regions.rows.stride());
    let words = Words::new(sentences.vectors(tile.clone()), dim, stride);
    let n_words = words.n;
    let mut lines = Lines::new(dim);
    let mut out = Vec::with_capacity(photos.len() * tile.len());
    let (mut near, mut best, mut owners) = (Vec::new(), Vec::new(), Vec::new());
    let mut screen = Screen::default();
    let mut image = photos.start;
    while image < photos.end {
        let mut end = image + 1;
        while end < photos.end && images.first(end + 1) - images.first(image) <= REGIONS {
            end += 1;
        }
        let group = images.first(image)..images.first(end);
        near.resize(group.len() * PANEL, 0.0);
        lines.fill(images.vectors(image..end), dim);
        owners.clear();
        owners.extend((image..end).flat_map(|photo| iter::repeat_n(photo - image, images.count(photo))));
        best.clear();
        best.resize((end - image) * n_words, f32::NEG_INFINITY);
        for (panel, at) in words.panels.chunks_exact(PANEL * stride).zip((0..n_words).step_by(PANEL)) {
            let soon = &words.lines.values()[at * words.lines.width..];
            regions.rows.multiply(group.clone(), panel, soon, &mut near);
            let lengths = words.lengths[at..].first_chunk().expect("lengths of whole panels");
            for photo in image..end {
                let (first, last) = (images.first(photo) - group.start, images.first(photo + 1) - group.start);
                screen.look(first, &near[first * PANEL..last * PANEL], regions.most[photo], lengths);
            }
            screen.multiply(at..n_words.min(at + PANEL), &words.lines, &lines, |word, region, product| {
                let best = &mut best[owners[region] * n_words + word];
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

/// Which of some regions of a photo may be the best of each word of a panel, by their products of bytes.
struct Look {
    /// A bit a region.
    likely: [u32; PANEL],
    /// The region of the lowest bit.
    first: u32,
}

/// Photos beside each other, and a panel of words.
#[derive(Default)]
struct Screen {
    looks: Vec<Look>,
    /// Word and region of each product that is to be known exactly, word by word.
    pairs: Vec<(u32, u32)>,
    exact: Vec<f32>,
}

impl Screen {
    /// Looks at a photo whose regions begin with `first`: `near` are their products of bytes in units of each word's whole
    /// numbers, `[regions, PANEL]`, `most` is the photo's largest factor and squared length, `lengths` are the words' squared
    /// lengths in units of their whole numbers.
    fn look(&mut self, first: usize, near: &[f32], most: (f32, f32), lengths: &[f32; PANEL]) {
        let (near, _) = near.as_chunks::<PANEL>();
        let mut floors = largest_of_columns(near);
        // How far the difference of two regions' products may be off: what was rounded from each of the two is multiplied
        // with the word, and what was rounded from the word with their difference, which is at most twice as long as they
        // are. A hundredth more, for the rounding of the bound itself.
        let deviations = 1.01 * DEVIATIONS / 12f32.sqrt();
        let (factor, length) = most;
        for (floor, own_length) in floors.iter_mut().zip(lengths) {
            let variance = 2.0 * factor * factor * own_length + 4.0 * length;
            *floor -= deviations * variance.sqrt();
        }
        // A floor that is no number, of numbers too large to be squared, hides no region.
        let looks = near.chunks(LOOK).map(|near| not_below(near, &floors)).zip((first as u32..).step_by(LOOK));
        self.looks.extend(looks.map(|(likely, first)| Look { likely, first }));
    }

    /// Gives word, region and exact product of all regions that may be the best of the panel's `words`, and looks away from
    /// the photos.
    fn multiply(
        &mut self,
        words: Range<usize>,
        all: &Lines,
        regions: &Lines,
        mut found: impl FnMut(usize, usize, f32),
    ) {
        let Self { looks, pairs, exact, .. } = self;
        pairs.clear();
        for (lane, word) in words.enumerate() {
            for look in looks.iter() {
                let mut likely = look.likely[lane];
                while likely != 0 {
                    pairs.push((word as u32, look.first + likely.trailing_zeros()));
                    likely &= likely - 1;
                }
            }
        }
        looks.clear();
        exact.resize(pairs.len(), 0.0);
        Pairs { a: all.values(), b: regions.values(), dim: all.width, pairs, out: exact }.multiply();
        for (&(word, region), &product) in pairs.iter().zip(exact.iter()) {
            found(word as usize, region as usize, product);
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
