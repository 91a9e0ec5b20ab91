//! Regions by NanoDet-Plus, a small one-stage detector in an ONNX file.
//!
//! The network predicts, at every cell of four grids (strides 8, 16, 32, 64), 80 class logits and a distribution over
//! eight bins for the distance to each side of a box (generalised focal loss, Li et al. 2020). As a proposer it is
//! class-agnostic: the score is the best class's probability, and suppression looks at the boxes alone.

use std::path::Path;

use sightline_data::BoxXyxy;

use super::{Proposal, RegionProposer};
use crate::error::{Error, Result};
use crate::onnx::OnnxNetwork;
use crate::photo::{Filter, Photo};

/// The longest side the network sees; the other follows, and both are padded to a multiple of 32.
const LONGEST_SIDE: u32 = 416;
const PADDING_MULTIPLE: u32 = 32;
const STRIDES: [usize; 4] = [8, 16, 32, 64];
const BINS: usize = 8;
/// Blue, green, red, the order in which OpenCV reads pictures.
const MEAN_BGR: [f32; 3] = [103.53, 116.28, 123.675];
const STD_BGR: [f32; 3] = [57.375, 57.12, 58.395];
const SUPPRESSION_IOU: f32 = 0.6;
/// Candidates that enter suppression, best first; far more than any `max` asked for leaves.
const MAX_CANDIDATES: usize = 1000;

/// A detection: a proposal with what it seems to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// The box, in pixels of the photo, clipped to it, never empty.
    pub region: BoxXyxy,
    /// Probability of the best class.
    pub score: f32,
    /// The best class, an index into [`CLASSES`].
    pub class: usize,
}

impl Detection {
    /// The best class's name.
    pub fn name(&self) -> &'static str {
        CLASSES[self.class]
    }
}

/// NanoDet-Plus; see the module.
#[derive(Debug)]
pub struct NanoDet {
    network: OnnxNetwork,
}

impl NanoDet {
    /// The name under which settings and the feature store know the regions it proposes.
    pub const NAME: &str = "nanodet";

    /// Reads the ONNX file.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { network: OnnxNetwork::open(path)? })
    }

    /// At most `max` detections, best first, after class-agnostic suppression at IoU 0.6.
    pub fn detect(&self, photo: &Photo, max: usize) -> Result<Vec<Detection>> {
        let input = Input::new(photo);
        let shape = [1, 3, input.height as usize, input.width as usize];
        let output = self.network.run(&input.values, &shape)?.swap_remove(0);
        let n_cells = STRIDES.iter().map(|s| grid(input.width, *s) * grid(input.height, *s)).sum::<usize>();
        let expected = [1, CLASSES.len() + 4 * BINS, n_cells];
        if output.shape != expected {
            return Err(Error::onnx(
                self.network.path(),
                format!(
                    "not NanoDet-Plus: an input of {shape:?} gave an output of {:?}, expected {expected:?}",
                    output.shape
                ),
            ));
        }

        let mut best: Vec<(f32, usize)> = vec![(f32::NEG_INFINITY, 0); n_cells];
        for (class, logits) in output.values.chunks_exact(n_cells).take(CLASSES.len()).enumerate() {
            for (best, &logit) in best.iter_mut().zip(logits) {
                if logit > best.0 {
                    *best = (logit, class);
                }
            }
        }
        let mut order: Vec<usize> = (0..n_cells).collect();
        order.sort_by(|&a, &b| best[b].0.total_cmp(&best[a].0));
        order.truncate(MAX_CANDIDATES);

        let cells = cells(input.width, input.height);
        let bins = &output.values[CLASSES.len() * n_cells..];
        let mut detections: Vec<Detection> = Vec::new();
        for cell in order {
            if detections.len() == max {
                break;
            }
            let (x, y, stride) = cells[cell];
            let distance = |side: usize| {
                let logits: [f32; BINS] = std::array::from_fn(|bin| bins[(side * BINS + bin) * n_cells + cell]);
                expectation(&logits) * stride
            };
            let region = BoxXyxy {
                x1: input.to_photo_x(x - distance(0)),
                y1: input.to_photo_y(y - distance(1)),
                x2: input.to_photo_x(x + distance(2)),
                y2: input.to_photo_y(y + distance(3)),
            }
            .clip(photo.width, photo.height);
            let (logit, class) = best[cell];
            let is_new = detections.iter().all(|kept| kept.region.iou(&region) <= SUPPRESSION_IOU);
            if is_new && region.area() > 0.0 {
                detections.push(Detection { region, score: 1.0 / (1.0 + (-logit).exp()), class });
            }
        }
        Ok(detections)
    }
}

impl RegionProposer for NanoDet {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn checksum(&self) -> String {
        format!("{}-{LONGEST_SIDE}-{SUPPRESSION_IOU}", self.network.checksum())
    }

    fn propose(&self, _key: &str, photo: &Photo, max: usize) -> Result<Vec<Proposal>> {
        let detections = self.detect(photo, max)?;
        Ok(detections.into_iter().map(|d| Proposal { region: d.region, score: d.score }).collect())
    }
}

/// The network's view of a photo: scaled, padded, normalised, `[3, height, width]` in the order blue, green, red.
struct Input {
    values: Vec<f32>,
    width: u32,
    height: u32,
    /// Photo pixels per input pixel.
    scale: (f32, f32),
    /// Where the photo's corner lies in the input.
    offset: (u32, u32),
}

impl Input {
    fn new(photo: &Photo) -> Self {
        let longest = photo.width.max(photo.height);
        let scaled =
            |side: u32| ((f64::from(side) * f64::from(LONGEST_SIDE) / f64::from(longest)).round() as u32).max(1);
        let (inner_width, inner_height) = (scaled(photo.width), scaled(photo.height));
        let small = photo.resize(inner_width, inner_height, Filter::Bilinear);
        let width = inner_width.next_multiple_of(PADDING_MULTIPLE);
        let height = inner_height.next_multiple_of(PADDING_MULTIPLE);
        let offset = ((width - inner_width) / 2, (height - inner_height) / 2);

        let plane = width as usize * height as usize;
        let mut values = Vec::with_capacity(3 * plane);
        for channel in 0..3 {
            let (mean, scale) = (MEAN_BGR[channel], 1.0 / STD_BGR[channel]);
            values.resize(values.len() + plane, -mean * scale);
            let plane = &mut values[channel * plane..];
            for (y, row) in small.pixels.chunks_exact(inner_width as usize * 3).enumerate() {
                let start = (y + offset.1 as usize) * width as usize + offset.0 as usize;
                for (value, rgb) in plane[start..].iter_mut().zip(row.chunks_exact(3)) {
                    *value = (f32::from(rgb[2 - channel]) - mean) * scale;
                }
            }
        }
        let scale = (photo.width as f32 / inner_width as f32, photo.height as f32 / inner_height as f32);
        Self { values, width, height, scale, offset }
    }

    fn to_photo_x(&self, x: f32) -> f32 {
        (x - self.offset.0 as f32) * self.scale.0
    }

    fn to_photo_y(&self, y: f32) -> f32 {
        (y - self.offset.1 as f32) * self.scale.1
    }
}

/// Cells along one side of a grid.
fn grid(side: u32, stride: usize) -> usize {
    (side as usize).div_ceil(stride)
}

/// `(x, y, stride)` of every cell, in the network's order.
fn cells(width: u32, height: u32) -> Vec<(f32, f32, f32)> {
    let mut cells = Vec::new();
    for stride in STRIDES {
        for row in 0..grid(height, stride) {
            for column in 0..grid(width, stride) {
                cells.push(((column * stride) as f32, (row * stride) as f32, stride as f32));
            }
        }
    }
    cells
}

/// The mean bin under the softmax of its logits.
fn expectation(logits: &[f32; BINS]) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut weighted) = (0.0, 0.0);
    for (bin, logit) in logits.iter().enumerate() {
        let weight = (logit - max).exp();
        sum += weight;
        weighted += weight * bin as f32;
    }
    weighted / sum
}

/// COCO's 80 classes in the network's order.
#[rustfmt::skip]
pub const CLASSES: [&str; 80] = [
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear",
    "hair drier", "toothbrush",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_centred_scaled_and_in_the_networks_order() {
        let input = Input::new(&Photo::uniform(208, 100, [10, 20, 30]));
        assert_eq!((input.width, input.height, input.offset), (416, 224, (0, 12)));
        assert_eq!(input.values.len(), 3 * 416 * 224);
        let at = |channel: usize, y: usize, x: usize| input.values[(channel * 224 + y) * 416 + x];
        for (channel, value) in [30.0, 20.0, 10.0].into_iter().enumerate() {
            let normalised = |v: f32| (v - MEAN_BGR[channel]) / STD_BGR[channel];
            for (y, expected) in [(0, 0.0), (11, 0.0), (12, value), (211, value), (212, 0.0), (223, 0.0)] {
                assert!((at(channel, y, 7) - normalised(expected)).abs() < 1e-6, "channel {channel}, row {y}");
            }
        }
        assert_eq!((input.to_photo_x(416.0), input.to_photo_y(12.0), input.to_photo_y(212.0)), (208.0, 0.0, 100.0));
    }

    #[test]
    fn narrow_photos_keep_a_pixel() {
        let input = Input::new(&Photo::uniform(5000, 1, [0; 3]));
        assert_eq!((input.width, input.height), (416, 32));
    }

    #[test]
    fn expectation_of_known_bins() {
        let mut logits = [-100.0; BINS];
        logits[5] = 100.0;
        assert_eq!(expectation(&logits), 5.0);
        assert!((expectation(&[0.0; BINS]) - 3.5).abs() < 1e-6);
    }

    #[test]
    fn cells_run_row_by_row_stride_by_stride() {
        let cells = cells(96, 32);
        assert_eq!(cells.len(), 12 * 4 + 6 * 2 + 3 + 2);
        assert_eq!(cells[13], (8.0, 8.0, 8.0));
        assert_eq!(cells[cells.len() - 1], (64.0, 0.0, 64.0));
    }
}
