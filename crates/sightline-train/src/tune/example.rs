//! A photo as one step shows it to the backbone.

use rand::RngExt;
use sightline_data::BoxXyxy;
use sightline_data::store::Photo as Record;
use sightline_vision::Photo;

use super::boxes_in;
use crate::backbone::Network;
use crate::settings::TuneRunSettings;
use crate::view::{View, ViewSettings};

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
        let TuneRunSettings { least_area, flip, colour, .. } = *settings;
        let chance = ViewSettings { least_area, most_stretch: MOST_STRETCH, mirror: flip, colour };
        let mut view = View::by_chance(photo, &chance, rng);
        view.mirrored &= may_flip;
        Self {
            pixels: network.read(&view.square(photo, network.side())),
            boxes: boxes_in(&view.part, record.boxes().skip(1), view.mirrored),
            size: [view.part.width() as u32, view.part.height() as u32],
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
