//! A photo as one step shows it to the backbone.

use rand::RngExt;
use sightline_data::BoxXyxy;
use sightline_data::store::Photo as Record;
use sightline_vision::{Filter, Photo};

use super::boxes_in;
use crate::backbone::Network;
use crate::changes::{flip, recolour};
use crate::settings::TuneRunSettings;

/// A part's shape differs from its photo's by this factor at most.
const MOST_STRETCH: f32 = 1.25;

/// What a network reads, and where its boxes are.
pub(super) struct Example {
    pub(super) pixels: Vec<f32>,
    /// The whole picture first, in pixels of [`Example::size`].
    pub(super) boxes: Vec<BoxXyxy>,
    /// Width and height of the part of the photo that is shown.
    pub(super) size: [u32; 2],
}

impl Example {
    /// A part of a photo with changed colours, mirrored by chance where `may_flip`; all by `rng`.
    pub(super) fn changed(
        network: &Network,
        photo: &Photo,
        record: &Record<'_>,
        settings: &TuneRunSettings,
        may_flip: bool,
        rng: &mut impl RngExt,
    ) -> Self {
        let area = rng.random_range(settings.least_area..=1.0);
        let stretch = MOST_STRETCH.powf(rng.random_range(-1.0..=1.0f32));
        let (width, height) = (photo.width as f32, photo.height as f32);
        let (w, h) = ((area * stretch).sqrt().min(1.0) * width, (area / stretch).sqrt().min(1.0) * height);
        let (x, y) = (rng.random::<f32>() * (width - w), rng.random::<f32>() * (height - h));
        let part = BoxXyxy { x1: x.floor(), y1: y.floor(), x2: (x + w).ceil(), y2: (y + h).ceil() };
        let part = part.clip(photo.width, photo.height);
        let side = network.side();
        let picture = photo.crop_and_resize(&part, side as u32, side as u32, Filter::Bicubic);
        let flipped = settings.flip && rng.random::<bool>() && may_flip;
        let mut levels = picture.signed();
        if flipped {
            flip(&mut levels, side, 3);
        }
        let mut factor = || 1.0 + settings.colour * rng.random_range(-1.0..=1.0f32);
        recolour(&mut levels, factor() - 1.0, factor(), factor());
        let picture = Photo::from_signed(picture.width, picture.height, &levels);
        Self {
            pixels: network.read(&picture),
            boxes: boxes_in(&part, record.boxes().skip(1), flipped),
            size: [part.width() as u32, part.height() as u32],
        }
    }
}

/// Whether a sentence says something that a mirrored photo would make wrong.
pub(super) fn says_a_side(tokens: &[String]) -> bool {
    tokens.iter().any(|token| matches!(token.as_str(), "left" | "right" | "leftmost" | "rightmost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_heard() {
        let says = |text: &str| says_a_side(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert!(says("the man on the left waves"));
        assert!(!says("a man leaves a bright room"));
    }
}
