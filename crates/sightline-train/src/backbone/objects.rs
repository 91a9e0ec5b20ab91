//! What the network should say about objects, and how far it is from saying so. Every cell whose middle lies in a box is
//! asked for that box, the more firmly the nearer to its middle (FCOS, Tian et al. 2019) and the surer the detector; of
//! several boxes, for the one that it is asked for most firmly.

use sightline_data::BoxXyxy;
use sightline_model::backbone::OBJECT_NUMBERS;
use sightline_vision::regions::Proposal;

use crate::view::shown;

/// Differences of logarithms up to this are squared, larger ones count by their size (Huber's loss).
const HUBER: f32 = 0.3;

/// The boxes of a photo as a view shows them, in cells of a fine grid of `grid` by `grid`; those that it cuts away are
/// left out.
pub(super) fn in_view(
    proposals: impl Iterator<Item = Proposal>,
    part: &BoxXyxy,
    flipped: bool,
    grid: usize,
) -> Vec<Proposal> {
    let (x_scale, y_scale) = (grid as f32 / part.width(), grid as f32 / part.height());
    let moved = |Proposal { region, score }: Proposal| {
        let b = shown(&region, part, flipped)?;
        let region = BoxXyxy { x1: b.x1 * x_scale, y1: b.y1 * y_scale, x2: b.x2 * x_scale, y2: b.y2 * y_scale };
        Some(Proposal { region, score })
    };
    proposals.filter_map(moved).collect()
}

/// What a cell is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Target {
    /// In `0..=1`; 0 where there is no object.
    quality: f32,
    /// Logarithms of the distances to left, top, right and bottom, in cells.
    distances: [f32; 4],
}

fn target(x: f32, y: f32, objects: &[Proposal]) -> Target {
    let of_object = |Proposal { region, score }: &Proposal| {
        let sides = [x - region.x1, y - region.y1, region.x2 - x, region.y2 - y].map(|side| side.max(0.05));
        let middle = |a: f32, b: f32| a.min(b) / a.max(b);
        let centredness = (middle(sides[0], sides[2]) * middle(sides[1], sides[3])).sqrt();
        Target { quality: score.clamp(0.0, 1.0).sqrt() * centredness, distances: sides.map(f32::ln) }
    };
    let around = objects.iter().filter(|object| object.region.contains((x, y))).map(of_object);
    let nothing = Target { quality: 0.0, distances: [0.0; 4] };
    around.max_by(|a, b| a.quality.total_cmp(&b.quality)).unwrap_or(nothing)
}

/// The loss of one view: cross-entropy of every cell, in the mean, and Huber's loss of the distances where there is an
/// object. Adds `factor` times its derivatives to `gradient`, which like `said` is `[grid², OBJECT_NUMBERS]`.
pub(super) fn loss(said: &[f32], objects: &[Proposal], grid: usize, factor: f32, gradient: &mut [f32]) -> f64 {
    let middle = |i: usize| ((i % grid) as f32 + 0.5, (i / grid) as f32 + 0.5);
    let targets: Vec<Target> = (0..grid * grid)
        .map(|i| {
            let (x, y) = middle(i);
            target(x, y, objects)
        })
        .collect();
    let total: f32 = 1.0 + targets.iter().map(|target| target.quality).sum::<f32>();
    let cells = said.chunks_exact(OBJECT_NUMBERS).zip(gradient.chunks_exact_mut(OBJECT_NUMBERS));
    let mut sum = 0.0;
    for ((said, gradient), target) in cells.zip(&targets) {
        let n_cells = targets.len() as f32;
        // log(1 + eˣ) - quality · x, in a form that no large x breaks.
        let cross_entropy = said[0].max(0.0) - said[0] * target.quality + (-said[0].abs()).exp().ln_1p();
        sum += f64::from(cross_entropy / n_cells);
        gradient[0] += factor * (1.0 / (1.0 + (-said[0]).exp()) - target.quality) / n_cells;
        for side in 0..4 {
            let (difference, share) = (said[1 + side] - target.distances[side], target.quality / total);
            let clipped = difference.clamp(-HUBER, HUBER);
            sum += f64::from(share * clipped * (difference - 0.5 * clipped));
            gradient[1 + side] += factor * share * clipped;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(x1: f32, y1: f32, x2: f32, y2: f32) -> Proposal {
        Proposal { region: BoxXyxy { x1, y1, x2, y2 }, score: 0.81 }
    }

    #[test]
    fn cells_are_asked_for_the_firmest_box() {
        let objects = [object(0.0, 0.0, 20.0, 20.0), object(4.0, 4.0, 8.0, 6.0)];
        assert_eq!(target(25.5, 3.5, &objects).quality, 0.0);
        let inside = target(6.0, 5.0, &objects);
        assert!((inside.quality - 0.9).abs() < 1e-6, "the very middle: {inside:?}");
        assert!((inside.distances[0] - 2.0f32.ln()).abs() < 1e-6 && inside.distances[1].abs() < 1e-6);
        let outside = target(2.5, 10.5, &objects);
        assert!((outside.distances[2] - 17.5f32.ln()).abs() < 1e-6);
        assert!(outside.quality < 0.5);
        // Near the border of the small box, where the large one is still asked for more firmly.
        let between = target(7.9, 5.9, &objects);
        assert!((between.distances[2] - 12.1f32.ln()).abs() < 1e-5, "{between:?}");
    }

    #[test]
    fn boxes_move_with_the_view() {
        let part = BoxXyxy { x1: 100.0, y1: 0.0, x2: 200.0, y2: 50.0 };
        let all = [object(125.0, 0.0, 150.0, 25.0), object(0.0, 0.0, 110.0, 50.0)];
        let seen = in_view(all.into_iter(), &part, false, 28);
        assert_eq!(seen.len(), 1, "the second lies outside for the most part");
        assert_eq!(seen[0].region, BoxXyxy { x1: 7.0, y1: 0.0, x2: 14.0, y2: 14.0 });
        let flipped = in_view(all.into_iter(), &part, true, 28);
        assert_eq!(flipped[0].region, BoxXyxy { x1: 14.0, y1: 0.0, x2: 21.0, y2: 14.0 });
    }

    #[test]
    fn derivatives_are_differences() {
        let objects = [object(3.0, 2.0, 15.0, 20.0), object(20.0, 20.0, 27.5, 28.0)];
        let n = 28 * 28 * OBJECT_NUMBERS;
        let mut said: Vec<f32> = (0..n).map(|i| ((i * 7 % 23) as f32 - 11.0) / 6.0).collect();
        let mut gradient = vec![0.0; n];
        loss(&said, &objects, 28, 2.0, &mut gradient);
        for i in (0..n).step_by(13) {
            let old = said[i];
            let mut at = |x: f32| {
                said[i] = x;
                loss(&said, &objects, 28, 1.0, &mut vec![0.0; n])
            };
            let expected = (at(old + 1e-3) - at(old - 1e-3)) / 2e-3 * 2.0;
            at(old);
            assert!((f64::from(gradient[i]) - expected).abs() < 2e-4, "{i}: {} for {expected}", gradient[i]);
        }
    }
}
