//! Hierarchical grouping: the most similar neighbours join until one region is left (Uijlings et al. 2013, section 3.1).

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::planes::{Plane, derivatives};
use super::segmentation::Segmentation;

/// Section 3.2.2: 25 bins of each of three colour channels.
const COLOUR_BINS: usize = 25;
/// Ten bins of each of eight orientations of each channel.
const TEXTURE_BINS: usize = 10;
const ORIENTATIONS: usize = 8;
const TEXTURE_SIGMA: f32 = 1.0;

/// Histogram places, padded so that both parts fill whole lanes.
const COLOUR: usize = (3 * COLOUR_BINS).next_multiple_of(LANES);
const TEXTURE: usize = 3 * ORIENTATIONS * TEXTURE_BINS;
const HISTOGRAM: usize = COLOUR + TEXTURE;
const LANES: usize = 16;

/// Section 3.2.2's similarities, by their initials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    /// Colour, texture, size and fill.
    Ctsf,
    /// Texture, size and fill.
    Tsf,
}

/// Every pixel's place in the colour and texture histograms.
pub(super) struct Bins {
    /// `[pixels, 3 + 3 · ORIENTATIONS]`.
    places: Vec<u16>,
}

const PLACES: usize = 3 + 3 * ORIENTATIONS;

impl Bins {
    /// `planes` in `0..=255`, not smoothed.
    pub(super) fn new(planes: &[Plane; 3], width: usize, height: usize) -> Self {
        let mut places = vec![0u16; width * height * PLACES];
        for (channel, plane) in planes.iter().enumerate() {
            let first = channel * COLOUR_BINS;
            for (place, &value) in places.chunks_exact_mut(PLACES).zip(plane) {
                let bin = (value * (COLOUR_BINS as f32 / 256.0)) as usize;
                place[channel] = (first + bin.min(COLOUR_BINS - 1)) as u16;
            }

            let (dx, dy) = derivatives(plane, width, height, TEXTURE_SIGMA);
            // The channel's steepest slope fills the last bin, so that dull photos have textures too.
            let steepest = dx.iter().zip(&dy).map(|(x, y)| x * x + y * y).fold(0.0, f32::max).sqrt();
            let scale = if steepest > 1e-3 { TEXTURE_BINS as f32 / steepest } else { 0.0 };
            let first = COLOUR + channel * ORIENTATIONS * TEXTURE_BINS;
            let bin = |slope: f32| (slope.max(0.0) as usize).min(TEXTURE_BINS - 1);
            for (place, (x, y)) in places.chunks_exact_mut(PLACES).zip(dx.iter().zip(&dy)) {
                let (x, y) = (x * scale, y * scale);
                let (down, up) = ((x + y) * std::f32::consts::FRAC_1_SQRT_2, (x - y) * std::f32::consts::FRAC_1_SQRT_2);
                let place = &mut place[3 + channel * ORIENTATIONS..][..ORIENTATIONS];
                for (orientation, slope) in [x, -x, y, -y, down, -down, up, -up].into_iter().enumerate() {
                    place[orientation] = (first + orientation * TEXTURE_BINS + bin(slope)) as u16;
                }
            }
        }
        Self { places }
    }
}

/// A region's tight box, in whole pixels, far sides exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PixelBox {
    pub(super) x1: u32,
    pub(super) y1: u32,
    pub(super) x2: u32,
    pub(super) y2: u32,
}

impl PixelBox {
    fn union(self, other: Self) -> Self {
        Self {
            x1: self.x1.min(other.x1),
            y1: self.y1.min(other.y1),
            x2: self.x2.max(other.x2),
            y2: self.y2.max(other.y2),
        }
    }

    fn area(self) -> u32 {
        (self.x2 - self.x1) * (self.y2 - self.y1)
    }
}

/// The regions of a segmentation with all that their similarities need.
#[derive(Clone)]
pub(super) struct Regions {
    boxes: Vec<PixelBox>,
    sizes: Vec<u32>,
    /// `[regions, HISTOGRAM]`; colour and texture each sum to one.
    histograms: Vec<f32>,
    /// Sorted, without repetition; both directions are there.
    neighbours: Vec<Vec<u32>>,
    n_pixels: u32,
}

impl Regions {
    pub(super) fn new(segmentation: &Segmentation, bins: &Bins, width: usize) -> Self {
        let n = segmentation.n_regions;
        let nothing = PixelBox { x1: u32::MAX, y1: u32::MAX, x2: 0, y2: 0 };
        let (mut boxes, mut sizes) = (vec![nothing; n], vec![0u32; n]);
        let mut counts = vec![0u32; n * HISTOGRAM];
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        let labels = &segmentation.labels;
        for (y, row) in labels.chunks_exact(width).enumerate() {
            let below = labels.get((y + 1) * width..(y + 2) * width);
            for (x, &label) in row.iter().enumerate() {
                let at = label as usize;
                let (column, line) = (x as u32, y as u32);
                boxes[at] = boxes[at].union(PixelBox { x1: column, y1: line, x2: column + 1, y2: line + 1 });
                sizes[at] += 1;
                let counts = &mut counts[at * HISTOGRAM..(at + 1) * HISTOGRAM];
                for &place in &bins.places[(y * width + x) * PLACES..][..PLACES] {
                    counts[usize::from(place)] += 1;
                }
                let right = row.get(x + 1);
                let below = below.map(|row| &row[x]);
                for &other in right.into_iter().chain(below) {
                    if other != label && pairs.last() != Some(&(label, other)) {
                        pairs.push((label, other));
                    }
                }
            }
        }
        let mut histograms = vec![0.0; 2 * n * HISTOGRAM];
        for ((counts, histogram), &size) in
            counts.chunks_exact(HISTOGRAM).zip(histograms.chunks_exact_mut(HISTOGRAM)).zip(&sizes)
        {
            for (place, (value, &count)) in histogram.iter_mut().zip(counts).enumerate() {
                let votes = if place < COLOUR { 3 } else { 3 * ORIENTATIONS as u32 };
                *value = count as f32 / (votes * size) as f32;
            }
        }
        let mut neighbours = vec![Vec::new(); n];
        for (a, b) in pairs {
            neighbours[a as usize].push(b);
            neighbours[b as usize].push(a);
        }
        for list in &mut neighbours {
            list.sort_unstable();
            list.dedup();
        }
        Self { boxes, sizes, histograms, neighbours, n_pixels: labels.len() as u32 }
    }

    fn similarity(&self, a: usize, b: usize, strategy: Strategy) -> f32 {
        let histogram = |region: usize| &self.histograms[region * HISTOGRAM..(region + 1) * HISTOGRAM];
        let (ha, hb) = (histogram(a), histogram(b));
        let n_pixels = self.n_pixels as f32;
        let sizes = self.sizes[a] + self.sizes[b];
        let texture = intersection(&ha[COLOUR..], &hb[COLOUR..]);
        let size = 1.0 - sizes as f32 / n_pixels;
        let fill = 1.0 - (self.boxes[a].union(self.boxes[b]).area() as f32 - sizes as f32) / n_pixels;
        match strategy {
            Strategy::Ctsf => intersection(&ha[..COLOUR], &hb[..COLOUR]) + texture + size + fill,
            Strategy::Tsf => texture + size + fill,
        }
    }

    /// Adds the region that two others join to and returns its number.
    fn join(&mut self, a: usize, b: usize) -> usize {
        let joined = self.boxes.len();
        self.boxes.push(self.boxes[a].union(self.boxes[b]));
        let (size_a, size_b) = (self.sizes[a] as f32, self.sizes[b] as f32);
        self.sizes.push(self.sizes[a] + self.sizes[b]);
        // A histogram of two regions together is their mean by size (the paper's equation 3): no pixel is looked at.
        let (old, new) = self.histograms.split_at_mut(joined * HISTOGRAM);
        let (weight_a, weight_b) = (size_a / (size_a + size_b), size_b / (size_a + size_b));
        let (ha, hb) = (&old[a * HISTOGRAM..(a + 1) * HISTOGRAM], &old[b * HISTOGRAM..(b + 1) * HISTOGRAM]);
        for (value, (va, vb)) in new[..HISTOGRAM].iter_mut().zip(ha.iter().zip(hb)) {
            *value = weight_a * va + weight_b * vb;
        }
        joined
    }

    /// Joins the most similar neighbours until none are left; the boxes of all regions, the first ones first, so that
    /// the last is the whole picture.
    pub(super) fn group(mut self, strategy: Strategy) -> Vec<PixelBox> {
        let n = self.boxes.len();
        let mut alive = vec![true; n];
        let mut heap = BinaryHeap::new();
        for a in 0..n {
            for &b in self.neighbours[a].iter().filter(|&&b| b as usize > a) {
                heap.push(Pair { similarity: self.similarity(a, b as usize, strategy), a: a as u32, b });
            }
        }
        while let Some(Pair { a, b, .. }) = heap.pop() {
            let (a, b) = (a as usize, b as usize);
            if !(alive[a] && alive[b]) {
                continue;
            }
            let joined = self.join(a, b);
            (alive[a], alive[b]) = (false, false);
            alive.push(true);
            let mut around = std::mem::take(&mut self.neighbours[a]);
            around.append(&mut self.neighbours[b]);
            around.sort_unstable();
            around.dedup();
            around.retain(|&other| alive[other as usize]);
            for &other in &around {
                self.neighbours[other as usize].push(joined as u32);
                let similarity = self.similarity(other as usize, joined, strategy);
                heap.push(Pair { similarity, a: other, b: joined as u32 });
            }
            self.neighbours.push(around);
        }
        self.boxes
    }
}

/// Histogram intersection: the sum of the smaller of each two values. Lanes of their own let it use vector registers.
fn intersection(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
            *sum += if a < b { a } else { b };
        }
    }
    sums.iter().sum()
}

/// Two neighbours; the most similar is greatest, and of equals the one with the lower numbers.
#[derive(Debug, Clone, Copy)]
struct Pair {
    similarity: f32,
    a: u32,
    b: u32,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.similarity.total_cmp(&other.similarity).then_with(|| (other.a, other.b).cmp(&(self.a, self.b)))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 6 × 2 picture in three stripes of two columns.
    fn stripes(values: [f32; 3]) -> Regions {
        let plane: Plane = (0..12).map(|i| values[i % 6 / 2]).collect();
        let planes = [plane.clone(), plane.clone(), plane];
        let labels = (0..12).map(|i| (i % 6 / 2) as u32).collect();
        Regions::new(&Segmentation { labels, n_regions: 3 }, &Bins::new(&planes, 6, 2), 6)
    }

    #[test]
    fn histograms_sum_to_one_and_stay_so() {
        let mut regions = stripes([0.0, 80.0, 255.0]);
        regions.join(0, 1);
        regions.join(3, 2);
        for region in 0..5 {
            let histogram = &regions.histograms[region * HISTOGRAM..(region + 1) * HISTOGRAM];
            assert!((histogram[..COLOUR].iter().sum::<f32>() - 1.0).abs() < 1e-5);
            assert!((histogram[COLOUR..].iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
        assert_eq!(regions.boxes[4], PixelBox { x1: 0, y1: 0, x2: 6, y2: 2 });
        assert_eq!(regions.sizes, [4, 4, 4, 8, 12]);
    }

    #[test]
    fn neighbours_are_those_that_touch() {
        assert_eq!(stripes([0.0, 80.0, 255.0]).neighbours, [vec![1], vec![0, 2], vec![1]]);
    }

    #[test]
    fn the_more_similar_pair_joins_first() {
        let left = PixelBox { x1: 0, y1: 0, x2: 4, y2: 2 };
        let right = PixelBox { x1: 2, y1: 0, x2: 6, y2: 2 };
        for (values, expected) in [([100.0, 101.0, 255.0], left), ([0.0, 200.0, 201.0], right)] {
            let boxes = stripes(values).group(Strategy::Ctsf);
            assert_eq!(boxes.len(), 5);
            assert_eq!(boxes[3], expected, "{values:?}");
            assert_eq!(boxes[4], PixelBox { x1: 0, y1: 0, x2: 6, y2: 2 });
        }
    }

    #[test]
    fn similarity_by_hand() {
        // Flat stripes of two colours: no colour in common; the size term is 1 - 8/12, the box is filled.
        let regions = stripes([0.0, 200.0, 0.0]);
        let texture = |a: usize, b: usize| {
            let texture = |region: usize| &regions.histograms[region * HISTOGRAM + COLOUR..][..TEXTURE];
            texture(a).iter().zip(texture(b)).map(|(a, b)| a.min(*b)).sum::<f32>()
        };
        let check = |a: usize, b: usize, strategy: Strategy, expected: f32| {
            let similarity = regions.similarity(a, b, strategy);
            assert!((similarity - expected).abs() < 1e-5, "{a} {b} {strategy:?}: {similarity}, expected {expected}");
        };
        check(0, 1, Strategy::Tsf, texture(0, 1) + 1.0 / 3.0 + 1.0);
        check(0, 1, Strategy::Ctsf, texture(0, 1) + 1.0 / 3.0 + 1.0);
        // The outer two share their colour; the box around both holds four pixels of neither.
        check(0, 2, Strategy::Tsf, texture(0, 2) + 1.0 / 3.0 + 2.0 / 3.0);
        check(0, 2, Strategy::Ctsf, 1.0 + texture(0, 2) + 1.0 / 3.0 + 2.0 / 3.0);
        assert!(texture(0, 2) < 0.999, "mirrored slopes: {}", texture(0, 2));
    }

    #[test]
    fn all_regions_end_in_the_whole_picture() {
        let labels: Vec<u32> = (0..64 * 64).map(|i| ((i % 64) / 8 + (i / 64) / 8 * 8) as u32).collect();
        let plane: Plane = labels.iter().map(|&l| (l * 37 % 251) as f32).collect();
        let bins = Bins::new(&[plane.clone(), plane.clone(), plane], 64, 64);
        let regions = Regions::new(&Segmentation { labels, n_regions: 64 }, &bins, 64);
        let boxes = regions.group(Strategy::Tsf);
        assert_eq!(boxes.len(), 127);
        assert_eq!(boxes[126], PixelBox { x1: 0, y1: 0, x2: 64, y2: 64 });
    }
}
