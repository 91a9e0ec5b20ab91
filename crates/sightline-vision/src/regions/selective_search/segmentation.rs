//! Efficient graph-based segmentation (Felzenszwalb and Huttenlocher 2004): the regions that grouping starts from.

use super::planes::Plane;

/// Every pixel's region, regions numbered from zero in the order of their first pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segmentation {
    /// `[height, width]`.
    pub(super) labels: Vec<u32>,
    pub(super) n_regions: usize,
}

/// Edges between neighbouring pixels, lightest first; those of one weight keep the order of [`edges`].
pub(super) struct Graph {
    sorted: Vec<Edge>,
    n_pixels: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Edge {
    weight: f32,
    from: u32,
    to: u32,
}

impl Graph {
    /// The graph of a picture of smoothed planes.
    pub(super) fn new(planes: &[Plane; 3], width: usize, height: usize) -> Self {
        let mut sorted = edges(planes, width, height);
        sort_by_weight(&mut sorted);
        Self { sorted, n_pixels: width * height }
    }

    /// Joins two components across an edge no heavier than either's inner difference, which is its heaviest inner edge
    /// and `k` over its size; afterwards components under `min_size` pixels join a neighbour, lightest edge first.
    pub(super) fn segment(&self, k: f32, min_size: u32) -> Segmentation {
        let mut forest = Forest::new(self.n_pixels, k);
        for edge in &self.sorted {
            let (a, b) = (forest.root(edge.from), forest.root(edge.to));
            if a != b && edge.weight <= forest.limit[a as usize] && edge.weight <= forest.limit[b as usize] {
                let joined = forest.join(a, b);
                forest.limit[joined as usize] = edge.weight + k / forest.size[joined as usize] as f32;
            }
        }
        for edge in &self.sorted {
            let (a, b) = (forest.root(edge.from), forest.root(edge.to));
            if a != b && forest.size[a as usize].min(forest.size[b as usize]) < min_size {
                forest.join(a, b);
            }
        }
        forest.number()
    }
}

/// Each pixel with its right, lower, lower right and lower left neighbour; the weight is the colours' distance.
fn edges(planes: &[Plane; 3], width: usize, height: usize) -> Vec<Edge> {
    let mut edges = Vec::with_capacity(4 * width * height);
    let mut push = |from: usize, to: usize| {
        let squares: f32 = planes.iter().map(|plane| (plane[from] - plane[to]).powi(2)).sum();
        edges.push(Edge { weight: squares.sqrt(), from: from as u32, to: to as u32 });
    };
    for y in 0..height {
        for x in 0..width {
            let at = y * width + x;
            if x + 1 < width {
                push(at, at + 1);
            }
            if y + 1 < height {
                push(at, at + width);
                if x + 1 < width {
                    push(at, at + width + 1);
                }
                if x > 0 {
                    push(at, at + width - 1);
                }
            }
        }
    }
    edges
}

/// Stable radix sort: the bits of floats that are not negative order like the floats.
fn sort_by_weight(edges: &mut Vec<Edge>) {
    const BITS: u32 = 11;
    const BUCKETS: usize = 1 << BITS;
    let mut other = edges.clone();
    for pass in 0..3 {
        let digit = |edge: &Edge| (edge.weight.to_bits() >> (pass * BITS)) as usize % BUCKETS;
        let mut starts = [0usize; BUCKETS];
        for edge in edges.iter() {
            starts[digit(edge)] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += std::mem::replace(start, sum);
        }
        for edge in edges.iter() {
            let start = &mut starts[digit(edge)];
            other[*start] = *edge;
            *start += 1;
        }
        std::mem::swap(edges, &mut other);
    }
}

/// Disjoint sets of pixels.
struct Forest {
    parent: Vec<u32>,
    /// Of roots: pixels in the component.
    size: Vec<u32>,
    /// Of roots: the weight up to which an edge joins the component to another.
    limit: Vec<f32>,
}

impl Forest {
    fn new(n: usize, k: f32) -> Self {
        Self { parent: (0..n as u32).collect(), size: vec![1; n], limit: vec![k; n] }
    }

    fn root(&mut self, mut at: u32) -> u32 {
        while self.parent[at as usize] != at {
            let up = self.parent[self.parent[at as usize] as usize];
            self.parent[at as usize] = up;
            at = up;
        }
        at
    }

    /// Joins two roots; the larger stays one and is returned.
    fn join(&mut self, a: u32, b: u32) -> u32 {
        let (stays, goes) = if self.size[a as usize] >= self.size[b as usize] { (a, b) } else { (b, a) };
        self.parent[goes as usize] = stays;
        self.size[stays as usize] += self.size[goes as usize];
        stays
    }

    fn number(mut self) -> Segmentation {
        let mut number = vec![u32::MAX; self.parent.len()];
        let mut n_regions = 0;
        let labels = (0..self.parent.len() as u32)
            .map(|pixel| {
                let root = self.root(pixel) as usize;
                if number[root] == u32::MAX {
                    number[root] = n_regions;
                    n_regions += 1;
                }
                number[root]
            })
            .collect();
        Segmentation { labels, n_regions: n_regions as usize }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition read aloud: components are lists of labels, every inner difference is looked up from scratch.
    fn slow(planes: &[Plane; 3], width: usize, height: usize, k: f32, min_size: usize) -> Segmentation {
        let n = width * height;
        let mut edges = Vec::new();
        for y in 0..height {
            for x in 0..width {
                for (dx, dy) in [(1i32, 0i32), (0, 1), (1, 1), (-1, 1)] {
                    let (nx, ny) = (x as i32 + dx, y as i32 + dy);
                    if nx >= 0 && nx < width as i32 && ny < height as i32 {
                        let (a, b) = (y * width + x, ny as usize * width + nx as usize);
                        let d = |c: usize| (planes[c][a] - planes[c][b]) * (planes[c][a] - planes[c][b]);
                        edges.push(((d(0) + d(1) + d(2)).sqrt(), a, b));
                    }
                }
            }
        }
        edges.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap());
        let mut label: Vec<usize> = (0..n).collect();
        let mut heaviest_inner = vec![0.0f32; n];
        let size = |label: &[usize], which: usize| label.iter().filter(|&&l| l == which).count();
        for &(weight, a, b) in &edges {
            let (a, b) = (label[a], label[b]);
            let limit = |c: usize| heaviest_inner[c] + k / size(&label, c) as f32;
            if a != b && weight <= limit(a).min(limit(b)) {
                label.iter_mut().filter(|l| **l == b).for_each(|l| *l = a);
                heaviest_inner[a] = weight; // edges come lightest first
            }
        }
        for &(_, a, b) in &edges {
            let (a, b) = (label[a], label[b]);
            if a != b && (size(&label, a) < min_size || size(&label, b) < min_size) {
                label.iter_mut().filter(|l| **l == b).for_each(|l| *l = a);
            }
        }
        let mut seen: Vec<usize> = Vec::new();
        let labels = label
            .iter()
            .map(|l| {
                let number = seen.iter().position(|s| s == l).unwrap_or_else(|| {
                    seen.push(*l);
                    seen.len() - 1
                });
                number as u32
            })
            .collect();
        Segmentation { labels, n_regions: seen.len() }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn fast_equals_slow(
            width in 1usize..12,
            height in 1usize..9,
            values in prop::collection::vec(0u8..6, 3 * 12 * 9),
            k in 0.0f32..90.0,
            min_size in 1u32..9,
        ) {
            let plane = |c: usize| values[c * 108..][..width * height].iter().map(|&v| f32::from(v) * 7.0).collect();
            let planes = [plane(0), plane(1), plane(2)];
            let fast = Graph::new(&planes, width, height).segment(k, min_size);
            prop_assert_eq!(fast, slow(&planes, width, height, k, min_size as usize));
        }

        #[test]
        fn radix_sort_equals_the_standard_one(weights in prop::collection::vec(0.0f32..500.0, 0..600)) {
            let mut edges: Vec<Edge> =
                weights.iter().zip(0..).map(|(w, i)| Edge { weight: w.floor(), from: i, to: i }).collect();
            let mut expected = edges.clone();
            expected.sort_by(|a, b| a.weight.total_cmp(&b.weight));
            sort_by_weight(&mut edges);
            prop_assert_eq!(edges, expected);
        }
    }
}
