//! The image side: from features of regions to vectors in the shared space.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;

use super::attention::{AttentionLayer, indices};
use super::{AlignmentSettings, RegionCounts, RegionEncoder};
use crate::conv::ConvEncoder;
use crate::random::{self, Dropout, drop_out};

/// Numbers that say where a box lies: corners, width, height and the root of the area, as shares of the photo, brought to
/// -1 to 1.
pub const GEOMETRY: usize = 7;

/// The geometry of a box `x1 y1 x2 y2` in a photo of the given width and height.
pub fn geometry([x1, y1, x2, y2]: [f32; 4], [width, height]: [f32; 2]) -> [f32; GEOMETRY] {
    let (x1, x2, y1, y2) = (x1 / width, x2 / width, y1 / height, y2 / height);
    let area = ((x2 - x1) * (y2 - y1)).max(0.0).sqrt();
    [x1, y1, x2, y2, x2 - x1, y2 - y1, area].map(|share| 2.0 * share - 1.0)
}

/// Weights of the image side.
#[derive(Module, Debug)]
pub struct ImageSide {
    /// Pixels to vectors, where region features are pixels.
    encoder: Option<ConvEncoder>,
    /// Mean and inverse deviation of each feature over the training photos, `[2, features]`; not trained.
    standard: Option<Param<Tensor<2>>>,
    /// `W_m`, `b_m`: `[features] -> [dim]` (equation 1).
    projection: Linear,
    /// What the whole photo's features add to every region: `[features] -> [dim]`.
    context: Option<Linear>,
    /// The regions of a photo look at one another.
    attention: Option<AttentionLayer>,
    /// The whole photo's features to the vector of the whole photo: `[features] -> [dim]`.
    whole: Option<Linear>,
}

impl ImageSide {
    pub(super) fn new(settings: &AlignmentSettings, features: usize, rng: &mut ChaCha8Rng, device: &Device) -> Self {
        let AlignmentSettings { dim, initial_scale: scale, .. } = *settings;
        let (encoder, encoded) = match settings.encoder {
            RegionEncoder::None => (None, features),
            RegionEncoder::Conv => (Some(ConvEncoder::new(&settings.conv, rng, device)), settings.conv.dim),
        };
        let extra = if settings.geometry { GEOMETRY } else { 0 };
        let standard = settings.standardize.then(|| {
            let mut values = vec![0.0; 2 * encoded];
            values[encoded..].fill(1.0);
            random::parameter(values, [2, encoded], device).set_require_grad(false)
        });
        let projection = random::linear(rng, encoded + extra, dim, scale, device);
        let context = settings.context.then(|| {
            let linear = random::linear(rng, encoded + extra, dim, scale, device);
            Linear { bias: None, ..linear }
        });
        let attention = settings.region_attention.then(|| AttentionLayer::new(rng, dim, device));
        let whole = settings.whole.then(|| random::linear(rng, encoded + extra, dim, scale, device));
        Self { encoder, standard, projection, context, attention, whole }
    }

    /// Sets mean and deviation of each feature, which [`AlignmentSettings::standardize`] asks for.
    pub(super) fn set_standard(&mut self, mean: &[f32], deviation: &[f32]) {
        if let Some(standard) = self.standard.take() {
            let device = standard.val().device();
            let mut values = mean.to_vec();
            // A feature that never moves says nothing; it must not become infinite.
            values.extend(deviation.iter().map(|deviation| 1.0 / deviation.max(1e-3)));
            let values = Tensor::from_data(TensorData::new(values, [2, mean.len()]), &device);
            self.standard = Some(standard.map(|_| values.set_require_grad(false)));
        }
    }

    pub(super) fn encode(&self, features: Tensor<2>) -> Tensor<2> {
        match &self.encoder {
            Some(encoder) => encoder.forward(features),
            None => features,
        }
    }

    /// Region vectors `[regions of all photos, dim]`, and the photos' own `[images, dim]` where there are such.
    ///
    /// `features` is `[regions of all photos, features]`, the whole photo first among each photo's; `geometry` is
    /// `[regions of all photos, GEOMETRY]`, read if the settings ask for it.
    pub(super) fn forward(
        &self,
        features: Tensor<2>,
        geometry: Option<Tensor<2>>,
        counts: &RegionCounts,
        mut dropout: Option<&mut Dropout>,
    ) -> (Tensor<2>, Option<Tensor<2>>) {
        let device = features.device();
        let mut x = self.encode(features);
        if let Some(standard) = &self.standard {
            let standard = standard.val().detach();
            x = (x - standard.clone().narrow(0, 0, 1)) * standard.narrow(0, 1, 1);
        }
        if let Some(geometry) = geometry {
            x = Tensor::cat(vec![x, geometry], 1);
        }
        let x = drop_out(dropout.as_deref_mut(), x);
        let wholes = (self.context.is_some() || self.whole.is_some())
            .then(|| x.clone().select(0, indices(counts.first_rows(), &device))); // [images, features]
        let mut v = self.projection.forward(x); // equation 1
        if let (Some(context), Some(wholes)) = (&self.context, &wholes) {
            v = v + context.forward(wholes.clone()).select(0, indices(counts.owners(), &device));
        }
        if let Some(attention) = &self.attention {
            v = attention.forward(v, counts.counts(), dropout);
        }
        let whole = self.whole.as_ref().zip(wholes).map(|(whole, wholes)| {
            let mean = counts.means(v.clone()); // [images, dim]
            whole.forward(wholes) + mean
        });
        (v, whole)
    }
}
