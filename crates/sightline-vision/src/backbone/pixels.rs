//! No network at all: a box's vector is its own pixels, for models that bring a trained encoder with them.

use super::{Backbone, FeatureMap};
use crate::photo::Filter;
use crate::{Photo, Result};

/// The pixels of a photo or crop, squashed to a square, channel by channel, as `(value / 255 - 0.5) / 0.25`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pixels {
    /// Width and height of the square.
    pub side: u32,
}

impl Pixels {
    /// The name under which settings know it.
    pub const NAME: &str = "pixels";
}

impl Default for Pixels {
    fn default() -> Self {
        Self { side: 24 }
    }
}

impl Backbone for Pixels {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn checksum(&self) -> &str {
        ""
    }

    fn dim(&self) -> usize {
        3 * (self.side * self.side) as usize
    }

    fn settings(&self) -> Vec<(String, String)> {
        vec![("side".to_owned(), self.side.to_string())]
    }

    fn encode_map(&self, photos: &[Photo]) -> Result<Vec<FeatureMap>> {
        let of_photo = |photo: &Photo| {
            let small = photo.resize(self.side, self.side, Filter::Bilinear);
            let value = |&byte: &u8| (f32::from(byte) / 255.0 - 0.5) / 0.25;
            let global: Vec<f32> =
                (0..3).flat_map(|channel| small.pixels.iter().skip(channel).step_by(3).map(value)).collect();
            FeatureMap { grid_h: 1, grid_w: 1, dim: self.dim(), patches: global.clone(), global }
        };
        Ok(photos.iter().map(of_photo).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_follow_each_other() {
        let map = &Pixels { side: 2 }.encode_map(&[Photo::uniform(5, 7, [255, 0, 128])]).unwrap()[0];
        assert_eq!(map.global[..8], [2.0, 2.0, 2.0, 2.0, -2.0, -2.0, -2.0, -2.0]);
        assert!(map.global[8..].iter().all(|x| (x - 0.0078).abs() < 1e-3));
        assert_eq!(map.global.len(), Pixels { side: 2 }.dim());
    }
}
