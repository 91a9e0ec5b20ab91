//! Which region each word of a sentence belongs to, neighbours together (paper, section 3.1.4, equations 10 to 12).
//!
//! The paper prints both potentials as rewards and speaks of minimising an energy; here the sum is maximised.

/// A contiguous run of words on one region: words `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Index of the region in its photo.
    pub region: usize,
    /// First word.
    pub start: usize,
    /// One past the last word.
    pub end: usize,
}

/// The assignment of words to regions with the largest sum of products plus `affinity` for every pair of neighbouring
/// words on the same region; `scores` is `[words, regions]`, row-major, the result is one region a word.
///
/// Exact, by dynamic programming in O(words · regions): with a Potts term the best predecessor of a region is either
/// itself or the best region of all. Equal sums go to the smaller region index. `affinity` must not be negative.
pub fn viterbi(scores: &[f32], regions: usize, affinity: f32) -> Vec<usize> {
    assert!(affinity >= 0.0, "affinity {affinity} is negative");
    assert!(regions > 0 && scores.len().is_multiple_of(regions), "{} scores, {regions} regions", scores.len());
    let words = scores.len() / regions;
    if words == 0 {
        return Vec::new();
    }
    let affinity = f64::from(affinity);
    let mut best: Vec<f64> = scores[..regions].iter().map(|&s| f64::from(s)).collect();
    // from[j * regions + r]: the region of word j on the best path that has word j + 1 on region r.
    let mut from = vec![0u32; (words - 1) * regions];
    for j in 1..words {
        let anywhere = argmax(&best);
        let switched = best[anywhere];
        for r in 0..regions {
            let stayed = best[r] + affinity;
            let stays = stayed > switched || (stayed == switched && r <= anywhere);
            from[(j - 1) * regions + r] = if stays { r } else { anywhere } as u32;
            best[r] = if stays { stayed } else { switched } + f64::from(scores[j * regions + r]);
        }
    }
    let mut assignment = vec![0; words];
    assignment[words - 1] = argmax(&best);
    for j in (1..words).rev() {
        assignment[j - 1] = from[(j - 1) * regions + assignment[j]] as usize;
    }
    assignment
}

/// What speaks for each region of a photo before any word, the whole photo first.
#[derive(Debug, Clone, PartialEq)]
pub struct Prior {
    /// For words of things, by the [`order`] of its proposer.
    pub things: Vec<f32>,
    /// For words of scenes, by size: half the logarithm of the share of the photo that it covers, so 0 for the whole photo
    /// and -1.15 for a tenth of it.
    pub scenes: Vec<f32>,
}

impl Prior {
    /// From the scores that the proposer gave the regions, and from their areas.
    pub fn new(scores: &[f32], areas: impl Iterator<Item = f32>) -> Self {
        Self { things: order(scores), scenes: by_size(areas) }
    }

    /// Of regions that lie in the order of their scores, no two alike.
    pub fn in_order(areas: impl Iterator<Item = f32>) -> Self {
        let scenes = by_size(areas);
        let falling: Vec<f32> = (0..scenes.len()).map(|region| -(region as f32)).collect();
        Self { things: order(&falling), scenes }
    }

    /// Adds this to the products `[words, regions]`, row-major, before they are decoded: `weight` times, in standard
    /// deviations of each word's own products, so that it means the same to every model. A word takes as much of the
    /// [`Prior::things`] as `things` says, from 0 to 1, and of the [`Prior::scenes`] the rest.
    pub fn add_to(&self, products: &mut [f32], weight: f32, things: &[f32]) {
        let (words, regions) = (things.len(), self.things.len());
        assert_eq!(products.len(), words * regions, "{words} words, {regions} regions");
        if weight == 0.0 {
            return;
        }
        for (word, &thing) in products.chunks_exact_mut(regions.max(1)).zip(things) {
            let unit = weight * spread(word).1;
            for ((x, of_thing), of_scene) in word.iter_mut().zip(&self.things).zip(&self.scenes) {
                *x += unit * (thing * of_thing + (1.0 - thing) * of_scene);
            }
        }
    }
}

/// The logarithm of 2 / (rank + 2), of each region's rank by the proposer's own scores; so 0 for the surest box, -0.41 for
/// the next, -0.69 for the third. `scores` are those of the regions, the whole photo's first, which is no proposal and counts
/// as the third box: a thing is seldom all of a photo. Equal scores share a rank; where all are equal nothing speaks for one
/// region more than for another.
pub fn order(scores: &[f32]) -> Vec<f32> {
    let Some((_, proposals)) = scores.split_first() else { return Vec::new() };
    let above = |own: &f32| proposals.iter().filter(|&other| other > own).count();
    let of_proposals: Vec<f32> = proposals.iter().map(|own| of_rank(above(own))).collect();
    let mut best_first = of_proposals.clone();
    best_first.sort_unstable_by(|a, b| b.total_cmp(a));
    let whole = best_first.get(WHOLE_AS_RANK).or(best_first.last()).copied().unwrap_or(0.0);
    std::iter::once(whole).chain(of_proposals).collect()
}

/// The box with which the whole photo shares its place in the [`order`].
const WHOLE_AS_RANK: usize = 2;

fn of_rank(rank: usize) -> f32 {
    (2.0 / (rank + 2) as f32).ln()
}

/// Smaller parts of a photo than this are all alike.
const LEAST_SHARE: f32 = 1e-4;

fn by_size(areas: impl Iterator<Item = f32>) -> Vec<f32> {
    let areas: Vec<f32> = areas.collect();
    let whole = areas.first().copied().unwrap_or(0.0).max(f32::MIN_POSITIVE);
    areas.iter().map(|area| 0.5 * (area / whole).clamp(LEAST_SHARE, 1.0).ln()).collect()
}

/// How a word's products go with the [`order`] of a photo's regions: their correlation over the proposals, from -1 to 1, so
/// without the whole photo, which stands first. None where either is the same for all of them.
pub fn agreement(products: &[f32], order: &[f32]) -> Option<f64> {
    let (products, order) = (products.get(1..)?, order.get(1..)?);
    let ((mean_a, deviation_a), (mean_b, deviation_b)) = (spread(products), spread(order));
    let scale = f64::from(deviation_a) * f64::from(deviation_b);
    let together = products.iter().zip(order).map(|(a, b)| f64::from(a - mean_a) * f64::from(b - mean_b)).sum::<f64>();
    (scale > 0.0).then(|| together / products.len() as f64 / scale)
}

/// Brings a word's products to mean 0 and standard deviation 1, so that those of several models can be added; such as are
/// all alike become 0.
pub fn standardise(word: &mut [f32]) {
    let (mean, deviation) = spread(word);
    word.iter_mut().for_each(|x| *x = if deviation > 0.0 { (*x - mean) / deviation } else { 0.0 });
}

/// Mean and standard deviation.
fn spread(word: &[f32]) -> (f32, f32) {
    let mean = word.iter().sum::<f32>() / word.len() as f32;
    let variance = word.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / word.len() as f32;
    (mean, variance.sqrt())
}

/// The affinity from which on [`viterbi`] puts all words on one region; more changes nothing.
///
/// What an assignment with `n` switches gains over the best single region is lost at an affinity of gain / n. Going
/// there and decoding again meets the next such assignment (Dinkelbach 1967), of fewer switches each time.
pub fn largest_affinity(scores: &[f32], regions: usize) -> f32 {
    let of_one = |region: usize| scores.iter().skip(region).step_by(regions).map(|&s| f64::from(s)).sum::<f64>();
    let single = (0..regions).map(of_one).fold(f64::NEG_INFINITY, f64::max);
    let mut affinity = 0.0;
    loop {
        let assignment = viterbi(scores, regions, affinity);
        let switches = assignment.windows(2).filter(|pair| pair[0] != pair[1]).count();
        let total: f64 = assignment.iter().enumerate().map(|(j, &r)| f64::from(scores[j * regions + r])).sum();
        let next = ((total - single) / switches as f64) as f32;
        // Without a switch this is no number, or infinite.
        if switches == 0 || next <= affinity {
            return affinity;
        }
        affinity = next;
    }
}

/// Runs of neighbouring words on the same region, in order.
pub fn segments(assignment: &[usize]) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for (word, &region) in assignment.iter().enumerate() {
        match segments.last_mut() {
            Some(last) if last.region == region => last.end = word + 1,
            _ => segments.push(Segment { region, start: word, end: word + 1 }),
        }
    }
    segments
}

/// The first index of the largest value.
fn argmax(values: &[f64]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Equation 10, with both potentials as rewards.
    fn reward(scores: &[f32], regions: usize, affinity: f32, assignment: &[usize]) -> f64 {
        let unary: f64 = assignment.iter().enumerate().map(|(j, &r)| f64::from(scores[j * regions + r])).sum();
        let equal = assignment.windows(2).filter(|pair| pair[0] == pair[1]).count();
        unary + f64::from(affinity) * equal as f64
    }

    /// The largest reward over all `regions ^ words` assignments.
    fn brute_force(scores: &[f32], regions: usize, affinity: f32) -> f64 {
        let words = scores.len() / regions;
        (0..regions.pow(words as u32))
            .map(|mut code| {
                let assignment: Vec<usize> = (0..words)
                    .map(|_| {
                        let region = code % regions;
                        code /= regions;
                        region
                    })
                    .collect();
                reward(scores, regions, affinity, &assignment)
            })
            .fold(f64::NEG_INFINITY, f64::max)
    }

    #[test]
    fn the_order_goes_by_rank() {
        let [first, second, third] = [1.0, 2.0 / 3.0, 0.5].map(f32::ln);
        assert_eq!(order(&[1.0, 0.9, 0.2, 0.5]), [third, first, third, second]);
        assert_eq!(order(&[1.0, 0.3, 0.3, 0.1]), [third, first, first, third]);
        assert_eq!(order(&[1.0; 4]), [0.0; 4], "scores that say nothing");
        assert_eq!(order(&[1.0]), [0.0]);
        assert!(order(&[]).is_empty());
        let in_order = |regions: usize| Prior::in_order(std::iter::repeat_n(1.0, regions)).things;
        assert_eq!(in_order(5), order(&[1.0, 0.9, 0.5, 0.4, 0.2]));
        assert_eq!(in_order(5)[..4], [third, first, second, third]);
        assert_eq!((in_order(2), in_order(1), in_order(0)), (vec![0.0; 2], vec![0.0], Vec::new()));
    }

    #[test]
    fn scenes_go_by_size() {
        let areas = [200.0, 50.0, 200.0, 0.0];
        let prior = Prior::new(&[1.0, 0.9, 0.5, 0.1], areas.into_iter());
        assert_eq!(prior.scenes, [0.0, 0.5 * 0.25f32.ln(), 0.0, 0.5 * LEAST_SHARE.ln()]);
        assert_eq!(prior, Prior::in_order(areas.into_iter()));
        assert_eq!(Prior::in_order([0.0, 0.0].into_iter()).scenes, [0.5 * LEAST_SHARE.ln(); 2], "a photo without size");
    }

    #[test]
    fn the_prior_counts_in_deviations_of_each_word() {
        let prior = Prior { things: vec![0.5, 1.0, 0.5, 0.0], scenes: vec![0.0, -1.0, -2.0, -3.0] };
        // Deviations of 1 and of 100, and a word that is the same everywhere.
        let words = [[1.0, -1.0, 1.0, -1.0], [100.0, -100.0, 100.0, -100.0], [3.0; 4]].concat();
        let mut products = words.clone();
        prior.add_to(&mut products, 2.0, &[1.0; 3]);
        assert_eq!(products[..4], [2.0, 1.0, 2.0, -1.0]);
        assert_eq!(products[4..8], [200.0, 100.0, 200.0, -100.0]);
        assert_eq!(products[8..], [3.0; 4]);
        let mut of_scenes = words.clone();
        prior.add_to(&mut of_scenes, 1.0, &[0.0, 0.5, 0.0]);
        assert_eq!(of_scenes[..4], [1.0, -2.0, -1.0, -4.0]);
        assert_eq!(of_scenes[4..8], [125.0, -100.0, 25.0, -250.0]);
        let mut same = words.clone();
        prior.add_to(&mut same, 0.0, &[0.0, 0.5, 1.0]);
        assert_eq!(same, words);
        let mut alike = words;
        alike.chunks_exact_mut(4).for_each(standardise);
        assert_eq!(alike, [[1.0, -1.0, 1.0, -1.0], [1.0, -1.0, 1.0, -1.0], [0.0; 4]].concat());
    }

    #[test]
    fn agreement_is_a_correlation_of_proposals() {
        let order = order(&[1.0, 0.9, 0.5, 0.1]);
        let [first, second, third] = [order[1], order[2], order[3]];
        let close = |products: &[f32], expected: f64| {
            let found = agreement(products, &order).unwrap();
            assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
        };
        close(&[9.0, 2.0 * first + 5.0, 2.0 * second + 5.0, 2.0 * third + 5.0], 1.0);
        close(&[-9.0, -first, -second, -third], -1.0);
        // Alike for the surest and the last of three.
        let middle = second - (first + second + third) / 3.0;
        let squares = [first, second, third].map(|x| (x - (first + second + third) / 3.0).powi(2)).iter().sum::<f32>();
        close(&[0.0, 0.0, 1.0, 0.0], f64::from(middle / (squares * 2.0 / 3.0).sqrt()));
        assert_eq!(agreement(&[1.0, 3.0, 3.0, 3.0], &order), None);
        assert_eq!(agreement(&[1.0, 2.0], &order[..2]), None);
        assert_eq!((agreement(&[1.0], &order[..1]), agreement(&[], &[])), (None, None));
    }

    proptest! {
        #[test]
        fn agrees_with_brute_force(
            regions in 1usize..5,
            words in 1usize..6,
            seed in prop::collection::vec(-4i8..5, 20),
            affinity in 0u8..12,
        ) {
            // Quarters are exact in binary, so ties happen and sums compare exactly.
            let scores: Vec<f32> = seed[..regions * words.min(20 / regions)].iter().map(|&s| f32::from(s) / 4.0).collect();
            let affinity = f32::from(affinity) / 4.0;
            let assignment = viterbi(&scores, regions, affinity);
            prop_assert_eq!(reward(&scores, regions, affinity, &assignment), brute_force(&scores, regions, affinity));
        }
    }

    proptest! {
        #[test]
        fn the_largest_affinity_is_where_the_last_switch_goes(
            regions in 1usize..5,
            words in 0usize..7,
            seed in prop::collection::vec(-9i8..10, 30),
        ) {
            let scores: Vec<f32> = seed[..regions * words.min(30 / regions)].iter().map(|&s| f32::from(s) / 7.0).collect();
            let largest = largest_affinity(&scores, regions);
            let n_segments = |affinity| segments(&viterbi(&scores, regions, affinity)).len();
            prop_assert!(largest >= 0.0 && n_segments(largest * 1.001 + 1e-4) <= 1);
            prop_assert!(largest == 0.0 || n_segments(largest * 0.999) > 1);
        }
    }

    #[test]
    fn the_largest_affinity_by_hand() {
        // The best is 2 + 3 + 0.75 with two switches, 2 + 3 + 0 with one, 0 + 3 + 0 with none: the first of them goes at an
        // affinity of 0.75, the other at 2.
        let scores = [0.0, 2.0, 1.0, /**/ 3.0, 0.0, 0.0, /**/ 0.0, 0.5, 0.75];
        assert_eq!(largest_affinity(&scores, 3), 2.0);
        assert_eq!(largest_affinity(&scores[..3], 3), 0.0);
        assert_eq!(largest_affinity(&[], 3), 0.0);
    }

    #[test]
    fn affinity_zero_is_argmax_and_huge_is_one_region() {
        let scores = [0.0, 2.0, 1.0, /**/ 3.0, 0.0, 0.0, /**/ 0.0, 0.5, 0.75];
        assert_eq!(viterbi(&scores, 3, 0.0), [1, 0, 2]);
        assert_eq!(viterbi(&scores, 3, 100.0), [0, 0, 0]);
        assert_eq!(viterbi(&[], 3, 1.0), [0usize; 0]);
    }

    #[test]
    fn runs_become_segments() {
        let check = |assignment: &[usize], expected: &[(usize, usize, usize)]| {
            let got: Vec<_> = segments(assignment).iter().map(|s| (s.region, s.start, s.end)).collect();
            assert_eq!(got, expected);
        };
        check(&[], &[]);
        check(&[4], &[(4, 0, 1)]);
        check(&[1, 1, 0, 0, 0, 1], &[(1, 0, 2), (0, 2, 5), (1, 5, 6)]);
    }
}
