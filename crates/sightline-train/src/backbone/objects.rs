//! What the network should say about objects, and how far it is from saying so. Every cell whose middle lies in a box is
//! asked for that box, the more firmly the nearer to its middle (FCOS, Tian et al. 2019) and the surer the detector; of
//! several boxes, for the one that it is asked for most firmly.

use sightline_data::BoxXyxy;
use sightline_model::backbone::OBJECT_NUMBERS;
use sightline_vision::regions::Proposal;

/// Of a box cut by the border of a view, at least this share must be inside.
const LEAST_VISIBLE: f32 = 0.5;
/// Distances said lie between this logarithm's powers.
const MOST_LOG: f32 = 8.0;

/// The boxes of a photo as a view shows them, in cells of a fine grid of `grid` by `grid`; those that it cuts away are
/// left out.
pub(super) fn in_view(
    proposals: impl Iterator<Item = Proposal>,
    part: &BoxXyxy,
    flipped: bool,
    grid: usize,
) -> Vec<Proposal> {
    let side = grid as f32;
    let (x_scale, y_scale) = (side / part.width(), side / part.height());
    let moved = |Proposal { region: b, score }: Proposal| {
        let whole = BoxXyxy {
            x1: (b.x1 - part.x1) * x_scale,
            y1: (b.y1 - part.y1) * y_scale,
            x2: (b.x2 - part.x1) * x_scale,
            y2: (b.y2 - part.y1) * y_scale,
        };
        let mut region = whole.clip(grid as u32, grid as u32);
        if flipped {
            (region.x1, region.x2) = (side - region.x2, side - region.x1);
        }
        (region.area() > LEAST_VISIBLE * whole.area()).then_some(Proposal { region, score })
    };
    proposals.filter_map(moved).collect()
}

/// What a cell in an object is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Target {
    /// Which of the objects.
    object: usize,
    /// Above 0, at most 1.
    quality: f32,
    /// To left, top, right and bottom, in cells.
    distances: [f32; 4],
}

fn target(x: f32, y: f32, objects: &[Proposal]) -> Option<Target> {
    let of_object = |(object, Proposal { region, score }): (usize, &Proposal)| {
        let distances = [x - region.x1, y - region.y1, region.x2 - x, region.y2 - y].map(|side| side.max(0.05));
        let middle = |a: f32, b: f32| a.min(b) / a.max(b);
        let centredness = (middle(distances[0], distances[2]) * middle(distances[1], distances[3])).sqrt();
        let quality = score.clamp(0.0, 1.0).sqrt() * centredness;
        (quality > 0.0).then_some(Target { object, quality, distances })
    };
    let around = objects.iter().enumerate().filter(|(_, object)| object.region.contains((x, y))).filter_map(of_object);
    around.max_by(|a, b| a.quality.total_cmp(&b.quality))
}

/// The loss of one view: quality focal loss of every cell (Li et al. 2020), which counts what is nearly right for little,
/// and one less the IoU of its box where there is an object (Yu et al. 2016). Both are divided by the qualities' sum; a
/// box's cells together count as the root of theirs, so that a large one's many cells do not drown a small one's. Adds
/// `factor` times its derivatives to `gradient`, which like `said` is `[grid², OBJECT_NUMBERS]`.
pub(super) fn loss(said: &[f32], objects: &[Proposal], grid: usize, factor: f32, gradient: &mut [f32]) -> f64 {
    let middle = |i: usize| ((i % grid) as f32 + 0.5, (i / grid) as f32 + 0.5);
    let targets: Vec<Option<Target>> = (0..grid * grid)
        .map(|i| {
            let (x, y) = middle(i);
            target(x, y, objects)
        })
        .collect();
    let mut of_box = vec![0.0f32; objects.len()];
    targets.iter().flatten().for_each(|target| of_box[target.object] += target.quality);
    let total = 1.0 + of_box.iter().sum::<f32>();
    let total_of_boxes = 1.0 + of_box.iter().map(|sum| sum.sqrt()).sum::<f32>();
    let cells = said.chunks_exact(OBJECT_NUMBERS).zip(gradient.chunks_exact_mut(OBJECT_NUMBERS));
    let mut sum = 0.0;
    for ((said, gradient), target) in cells.zip(&targets) {
        let quality = target.map_or(0.0, |target| target.quality);
        // log(1 + eˣ) - quality · x, in a form that no large x breaks.
        let cross_entropy = said[0].max(0.0) - said[0] * quality + (-said[0].abs()).exp().ln_1p();
        let probability = 1.0 / (1.0 + (-said[0]).exp());
        let wrong = probability - quality;
        sum += f64::from(wrong * wrong * cross_entropy / total);
        let slope = 2.0 * wrong * probability * (1.0 - probability) * cross_entropy + wrong.powi(3);
        gradient[0] += factor * slope / total;
        let Some(target) = target else { continue };
        let share = target.quality / (of_box[target.object].sqrt() * total_of_boxes);
        let distances = std::array::from_fn(|side| said[1 + side].clamp(-MOST_LOG, MOST_LOG).exp());
        let (iou, slopes) = iou(distances, target.distances);
        sum += f64::from(share * (1.0 - iou));
        for side in 0..4 {
            gradient[1 + side] -= factor * share * slopes[side] * distances[side];
        }
    }
    sum
}

/// The IoU of two boxes around one point, given as its distances to left, top, right and bottom, and its derivatives by
/// the first's.
fn iou(own: [f32; 4], other: [f32; 4]) -> (f32, [f32; 4]) {
    let inside: [f32; 4] = std::array::from_fn(|side| own[side].min(other[side]));
    let [width, height] = [inside[0] + inside[2], inside[1] + inside[3]];
    let (own_width, own_height) = (own[0] + own[2], own[1] + own[3]);
    let common = width * height;
    let all = own_width * own_height + (other[0] + other[2]) * (other[1] + other[3]) - common;
    let slopes = std::array::from_fn(|side| {
        let (across, own_across) = if side % 2 == 0 { (height, own_height) } else { (width, own_width) };
        let common_slope = if own[side] < other[side] { across } else { 0.0 };
        (common_slope * all - common * (own_across - common_slope)) / (all * all)
    });
    (common / all, slopes)
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
        assert_eq!(target(25.5, 3.5, &objects), None);
        let inside = target(6.0, 5.0, &objects).unwrap();
        assert!((inside.quality - 0.9).abs() < 1e-6, "the very middle: {inside:?}");
        assert_eq!((inside.object, inside.distances), (1, [2.0, 1.0, 2.0, 1.0]));
        let outside = target(2.5, 10.5, &objects).unwrap();
        assert_eq!((outside.object, outside.distances[2]), (0, 17.5));
        assert!(outside.quality < 0.5);
        // Near the border of the small box, where the large one is still asked for more firmly.
        assert_eq!(target(7.9, 5.9, &objects).unwrap().object, 0);
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
    fn boxes_overlap_as_boxes_do() {
        let (own, other) = ([2.0, 1.0, 3.0, 4.0], [1.0, 2.0, 5.0, 3.0]);
        let as_box = |[left, top, right, bottom]: [f32; 4]| BoxXyxy { x1: -left, y1: -top, x2: right, y2: bottom };
        assert!((iou(own, other).0 - as_box(own).iou(&as_box(other))).abs() < 1e-6);
        assert_eq!(iou(own, own).0, 1.0);
    }

    #[test]
    fn derivatives_are_differences() {
        let objects = [object(3.0, 2.0, 15.0, 20.0), object(20.0, 20.0, 27.5, 28.0)];
        let n = 28 * 28 * OBJECT_NUMBERS;
        let mut said: Vec<f32> = (0..n).map(|i| ((i * 7 % 23) as f32 - 8.0) / 6.0).collect();
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
