//! Boxes in pixels of the original picture, corners first: `[x1, y1, x2, y2]`.

use serde::{Deserialize, Serialize};

/// An axis-aligned box, in pixels; `x2` and `y2` are exclusive, so a whole picture is `0, 0, width, height`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f32; 4]", into = "[f32; 4]")]
pub struct BoxXyxy {
    /// Left edge.
    pub x1: f32,
    /// Top edge.
    pub y1: f32,
    /// Right edge, exclusive.
    pub x2: f32,
    /// Bottom edge, exclusive.
    pub y2: f32,
}

impl From<[f32; 4]> for BoxXyxy {
    fn from([x1, y1, x2, y2]: [f32; 4]) -> Self {
        Self { x1, y1, x2, y2 }
    }
}

impl From<BoxXyxy> for [f32; 4] {
    fn from(b: BoxXyxy) -> Self {
        [b.x1, b.y1, b.x2, b.y2]
    }
}

impl BoxXyxy {
    /// The box of a whole picture.
    pub fn whole(width: u32, height: u32) -> Self {
        Self { x1: 0.0, y1: 0.0, x2: width as f32, y2: height as f32 }
    }

    /// COCO's layout: corner, width, height.
    pub fn from_xywh(x: f32, y: f32, width: f32, height: f32) -> Self {
        Self { x1: x, y1: y, x2: x + width, y2: y + height }
    }

    /// Width in pixels; zero for a box turned inside out.
    pub fn width(&self) -> f32 {
        (self.x2 - self.x1).max(0.0)
    }

    /// Height in pixels; zero for a box turned inside out.
    pub fn height(&self) -> f32 {
        (self.y2 - self.y1).max(0.0)
    }

    /// Area in square pixels.
    pub fn area(&self) -> f32 {
        self.width() * self.height()
    }

    /// Centre `(x, y)` in pixels.
    pub fn centre(&self) -> (f32, f32) {
        ((self.x1 + self.x2) / 2.0, (self.y1 + self.y2) / 2.0)
    }

    /// Whether the point lies inside.
    pub fn contains(&self, (x, y): (f32, f32)) -> bool {
        x >= self.x1 && x < self.x2 && y >= self.y1 && y < self.y2
    }

    /// Intersection over union, in `0..=1`; zero where both are empty.
    pub fn iou(&self, other: &Self) -> f32 {
        let width = self.x2.min(other.x2) - self.x1.max(other.x1);
        let height = self.y2.min(other.y2) - self.y1.max(other.y1);
        let intersection = width.max(0.0) * height.max(0.0);
        let union = self.area() + other.area() - intersection;
        if union > 0.0 { intersection / union } else { 0.0 }
    }

    /// The part inside a picture of `width` × `height` pixels.
    pub fn clip(&self, width: u32, height: u32) -> Self {
        let (width, height) = (width as f32, height as f32);
        Self {
            x1: self.x1.clamp(0.0, width),
            y1: self.y1.clamp(0.0, height),
            x2: self.x2.clamp(0.0, width),
            y2: self.y2.clamp(0.0, height),
        }
    }
}

/// Greedy non-maximum suppression: the indices kept, best score first; equal scores keep their order.
///
/// A box is dropped when its [`BoxXyxy::iou`] with a kept one exceeds `iou_threshold`.
pub fn non_maximum_suppression(boxes: &[BoxXyxy], scores: &[f32], iou_threshold: f32) -> Vec<usize> {
    assert_eq!(boxes.len(), scores.len(), "one score a box");
    let mut order: Vec<usize> = (0..boxes.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut kept: Vec<usize> = Vec::new();
    for candidate in order {
        if kept.iter().all(|&k| boxes[k].iou(&boxes[candidate]) <= iou_threshold) {
            kept.push(candidate);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iou_of_known_pairs() {
        let check = |a: [f32; 4], b: [f32; 4], expected: f32| {
            assert!((BoxXyxy::from(a).iou(&b.into()) - expected).abs() < 1e-6, "{a:?} {b:?}");
            assert!((BoxXyxy::from(b).iou(&a.into()) - expected).abs() < 1e-6, "{b:?} {a:?}");
        };
        check([0., 0., 2., 2.], [0., 0., 2., 2.], 1.0);
        check([0., 0., 2., 2.], [1., 0., 3., 2.], 1.0 / 3.0);
        check([0., 0., 2., 2.], [2., 0., 4., 2.], 0.0);
        check([0., 0., 4., 4.], [1., 1., 2., 3.], 2.0 / 16.0);
        check([1., 1., 1., 1.], [1., 1., 1., 1.], 0.0);
    }

    #[test]
    fn suppression_keeps_the_best_of_a_cluster() {
        let boxes = [[0., 0., 10., 10.], [1., 0., 11., 10.], [20., 0., 30., 10.]].map(BoxXyxy::from);
        assert_eq!(non_maximum_suppression(&boxes, &[0.5, 0.9, 0.1], 0.5), [1, 2]);
        assert_eq!(non_maximum_suppression(&boxes, &[0.5, 0.9, 0.1], 0.99), [1, 0, 2]);
    }
}
