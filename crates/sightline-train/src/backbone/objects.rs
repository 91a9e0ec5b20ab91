//! What the network should say about objects, and how far it is from saying so. A box is asked of the few cells about its
//! middle, whatever its size, so that small ones count as much as large ones; of several boxes a cell is asked for the
//! smallest (FCOS with centre sampling, Tian et al. 2019). How sure a cell is of its box should be how well that covers the
//! detector's, times how sure the detector was (Li et al. 2020), and boxes learn by what they share (Rezatofighi et al. 2019).

use sightline_data::BoxXyxy;
use sightline_model::backbone::OBJECT_NUMBERS;
use sightline_vision::regions::Proposal;

use crate::view::shown;

/// Cells that are asked for a box lie inside it and this share of its width and height from its middle at most ...
const MIDDLE: f32 = 0.2;
/// ... but these many cells at least and at most. The cell that the middle lies in is asked in any case.
const NEAREST: (f32, f32) = (0.75, 2.5);
/// Logarithms of distances count as no larger, so that no product overflows.
const MOST_LOGARITHM: f32 = 16.0;
/// The distance from a cell to a border behind it.
const LEAST_DISTANCE: f32 = 0.05;

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
    /// How sure the detector was, in `0..=1`: the root of its score.
    weight: f32,
    /// Distances to left, top, right and bottom, in cells.
    distances: [f32; 4],
}

/// Who is asked for what, of `grid` by `grid` cells.
fn targets(objects: &[Proposal], grid: usize) -> Vec<Option<Target>> {
    let mut targets: Vec<Option<Target>> = vec![None; grid * grid];
    let mut smallest_last: Vec<&Proposal> = objects.iter().collect();
    smallest_last.sort_by(|a, b| b.region.area().total_cmp(&a.region.area()));
    for Proposal { region, score } in smallest_last {
        let weight = score.clamp(0.0, 1.0).sqrt();
        let (x, y) = region.centre();
        let cells = |middle: f32, length: f32| {
            let reach = (MIDDLE * length).clamp(NEAREST.0, NEAREST.1);
            let (first, end) = ((middle - reach - 0.5).ceil().max(0.0), (middle + reach + 0.5).floor());
            first as usize..(end as usize).min(grid)
        };
        let middle = (x as usize, y as usize);
        for row in cells(y, region.height()) {
            for column in cells(x, region.width()) {
                let (x, y) = (column as f32 + 0.5, row as f32 + 0.5);
                let distances = [x - region.x1, y - region.y1, region.x2 - x, region.y2 - y];
                if distances.iter().all(|&side| side > LEAST_DISTANCE) || (column, row) == middle {
                    let distances = distances.map(|side| side.max(LEAST_DISTANCE));
                    targets[row * grid + column] = Some(Target { weight, distances });
                }
            }
        }
    }
    targets
}

/// How much two boxes about one cell share, from their distances to its middle: their intersection over union, and their
/// generalised one with its derivatives by the first one's distances.
fn shared(own: [f32; 4], other: [f32; 4]) -> (f32, f32, [f32; 4]) {
    let area = |d: [f32; 4]| (d[0] + d[2]) * (d[1] + d[3]);
    let pairs =
        |choose: fn(f32, f32) -> f32| -> [f32; 4] { std::array::from_fn(|side| choose(own[side], other[side])) };
    let (inner, outer) = (pairs(f32::min), pairs(f32::max));
    let (intersection, hull) = (area(inner), area(outer));
    let union = area(own) + area(other) - intersection;
    let across = |d: [f32; 4], side: usize| if side.is_multiple_of(2) { d[1] + d[3] } else { d[0] + d[2] };
    let derivatives = std::array::from_fn(|side| {
        let is_inner = own[side] < other[side];
        let of_intersection = if is_inner { across(inner, side) } else { 0.0 };
        let of_hull = if is_inner { 0.0 } else { across(outer, side) };
        let of_union = across(own, side) - of_intersection;
        (of_intersection - intersection / union * of_union) / union + (of_union - union / hull * of_hull) / hull
    });
    (intersection / union, intersection / union + union / hull - 1.0, derivatives)
}

/// How sure every cell should be of an object, in `0..=1`: how well its box covers what it is asked for (of a box that the
/// cell's middle lies outside of, what it can say of it), times how sure the detector was; 0 where there is none.
fn qualities(said: &[f32], targets: &[Option<Target>]) -> Vec<f32> {
    let quality = |(said, target): (&[f32], &Option<Target>)| {
        target.map_or(0.0, |Target { weight, distances }| weight * shared(distances_of(said), distances).0)
    };
    said.chunks_exact(OBJECT_NUMBERS).zip(targets).map(quality).collect()
}

/// The distances that a cell says.
fn distances_of(said: &[f32]) -> [f32; 4] {
    std::array::from_fn(|side| said[1 + side].clamp(-MOST_LOGARITHM, MOST_LOGARITHM).exp())
}

/// The loss of one view; adds `factor` times its derivatives to `gradient`, which like `said` is `[grid², OBJECT_NUMBERS]`.
/// How sure a cell should be changes with its box and yet has no derivatives.
pub(super) fn loss(said: &[f32], objects: &[Proposal], grid: usize, factor: f32, gradient: &mut [f32]) -> f64 {
    let targets = targets(objects, grid);
    loss_of(said, &targets, &qualities(said, &targets), factor, gradient)
}

/// The cross-entropy of every cell times the square of how wrong it is (Li et al. 2020, equation 6), and one less the
/// generalised intersection over union where a box is asked for, times the detector's sureness; both over the sum of that.
fn loss_of(said: &[f32], targets: &[Option<Target>], qualities: &[f32], factor: f32, gradient: &mut [f32]) -> f64 {
    let total = 1.0 + targets.iter().flatten().map(|target| target.weight).sum::<f32>();
    let cells = said.chunks_exact(OBJECT_NUMBERS).zip(gradient.chunks_exact_mut(OBJECT_NUMBERS));
    let mut sum = 0.0;
    for ((said, gradient), (target, quality)) in cells.zip(targets.iter().zip(qualities)) {
        if let &Some(Target { weight, distances }) = target {
            let own = distances_of(said);
            let (_, generalised, derivatives) = shared(own, distances);
            let share = weight / total;
            sum += f64::from(share * (1.0 - generalised));
            for side in 0..4 {
                gradient[1 + side] -= factor * share * derivatives[side] * own[side];
            }
        }
        let sure = 1.0 / (1.0 + (-said[0]).exp());
        let wrong = sure - quality;
        // log(1 + eˣ) - quality · x, in a form that no large x breaks.
        let cross_entropy = said[0].max(0.0) - said[0] * quality + (-said[0].abs()).exp().ln_1p();
        sum += f64::from(wrong * wrong * cross_entropy / total);
        let derivative = 2.0 * wrong * sure * (1.0 - sure) * cross_entropy + wrong.powi(3);
        gradient[0] += factor * derivative / total;
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
    fn the_middle_is_asked_for_the_smallest_box() {
        let objects = [object(5.0, 4.0, 8.0, 6.0), object(0.0, 0.0, 20.0, 20.0), object(25.1, 25.1, 25.4, 25.4)];
        let targets = targets(&objects, 28);
        let at = |x: usize, y: usize| targets[y * 28 + x];
        assert_eq!(at(20, 3), None, "outside");
        assert_eq!(at(2, 2), None, "inside, but far from the middle");
        let large = at(10, 9).expect("the middle of the large box");
        assert_eq!(large.distances, [10.5, 9.5, 9.5, 10.5]);
        assert!((large.weight - 0.9).abs() < 1e-6);
        let small = at(6, 4).expect("the middle of the small box");
        assert_eq!(small.distances, [1.5, 0.5, 1.5, 1.5]);
        let of_large = targets.iter().flatten().filter(|target| target.distances[0] > 2.0).count();
        assert_eq!(of_large, 6 * 6, "no more of it, however large it is");
        // Smaller than a cell: asked for where it lies, the borders pushed out to where the cell can say them.
        assert_eq!([at(24, 25), at(25, 24)], [None; 2], "beside it");
        let tiny = at(25, 25).expect("the cell that a tiny box lies in");
        let near = |(a, b): (&f32, f32)| (a - b).abs() < 1e-5;
        assert!(tiny.distances.iter().zip([0.4, 0.4, LEAST_DISTANCE, LEAST_DISTANCE]).all(near), "{tiny:?}");
    }

    #[test]
    fn boxes_at_the_border_are_asked_for() {
        let targets = targets(&[object(0.0, 26.0, 1.0, 28.0), object(27.5, 0.0, 28.0, 0.5)], 28);
        assert!(targets[26 * 28].is_some() && targets[27].is_some());
    }

    #[test]
    fn what_boxes_share_is_what_boxes_share() {
        let (own, other) = ([2.0, 1.0, 3.0, 4.0], [1.0, 2.0, 5.0, 2.0]);
        let as_box = |d: [f32; 4]| BoxXyxy { x1: -d[0], y1: -d[1], x2: d[2], y2: d[3] };
        let (covered, generalised, _) = shared(own, other);
        assert!((covered - as_box(own).iou(&as_box(other))).abs() < 1e-6);
        // The hull has 7 by 6, the boxes 25 and 24, together 4 by 3.
        assert!((generalised - (12.0 / 37.0 - (42.0 - 37.0) / 42.0)).abs() < 1e-6);
        assert_eq!(shared(own, own).1, 1.0);
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
        let mut said: Vec<f32> = (0..n).map(|i| ((i * 7 % 23) as f32 - 5.0) / 6.0).collect();
        let targets = targets(&objects, 28);
        let qualities = qualities(&said, &targets);
        assert!(qualities.iter().filter(|&&quality| quality > 0.1).count() > 20);
        let mut gradient = vec![0.0; n];
        let sum = loss(&said, &objects, 28, 2.0, &mut gradient);
        assert_eq!(sum, loss_of(&said, &targets, &qualities, 1.0, &mut vec![0.0; n]));
        let (mut steep, asked) = (0, |i: usize| targets[i / OBJECT_NUMBERS].is_some());
        for i in (0..n).filter(|&i| asked(i) || i % 13 == 0) {
            let old = said[i];
            let mut at = |x: f32| {
                said[i] = x;
                loss_of(&said, &targets, &qualities, 1.0, &mut vec![0.0; n])
            };
            let expected = (at(old + 1e-3) - at(old - 1e-3)) / 2e-3 * 2.0;
            at(old);
            assert!((f64::from(gradient[i]) - expected).abs() < 1e-4, "{i}: {} for {expected}", gradient[i]);
            steep += usize::from(expected.abs() > 1e-3);
        }
        assert!(steep > 50, "{steep} derivatives tell something");
    }
}
