//! A trained caption model, ready for use.

use serde::{Deserialize, Serialize};
use sightline_data::Vocabulary;
use sightline_data::store::{FeatureStore, StoreSettings};
use sightline_model::caption::{
    BeamSettings, Generator, Hypothesis, Pictures, Rounded, Said, SampleSettings, Shortcut, beam_search, in_chunks,
    log_likelihoods, sample,
};
use sightline_model::random;
use sightline_model::weights::Weights;

use super::items::Sight;
use crate::checkpoint::{Checkpoint, Header, Kind, Outline};
use crate::corpus::check_features;
use crate::settings::CaptionRunSettings;
use crate::{Error, Result};

/// What a sentence of a region loses for each natural logarithm that it is likely of the whole photo
/// ([`Captioner::region_captions`]); good for models on a large backbone's vectors and for
/// the program's own (docs/log.md).
pub const USUAL_CONTRAST: f32 = 0.5;

/// A caption with its probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Caption {
    /// The words, blanks between.
    pub text: String,
    /// Natural logarithm, END included.
    pub log_probability: f64,
    /// The region that was looked at most while each word was said; empty for models that do not look.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub word_regions: Vec<usize>,
}

impl Caption {
    /// The log probability over the number of tokens, END's included.
    pub fn log_probability_a_token(&self) -> f64 {
        a_token(&self.text, self.log_probability)
    }
}

/// A sentence's log probability over the number of its tokens, END's included.
pub fn a_token(text: &str, log_probability: f64) -> f64 {
    log_probability / (text.split(' ').count() + 1) as f64
}

/// How captions are found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decoding {
    /// The likeliest that a beam finds.
    Beam(BeamSettings),
    /// Drawn at random, likeliest first; the same seed draws the same.
    Sample(SampleSettings, u64),
}

/// A trained caption model, ready for use.
#[derive(Debug)]
pub struct Captioner {
    generator: Box<dyn Generator>,
    weights: Weights,
    rounded: Option<Rounded>,
    sight: Sight,
    /// Its words.
    pub vocabulary: Vocabulary,
    /// Whose region vectors it reads.
    pub features: StoreSettings,
    /// Whole photos or regions.
    pub kind: Kind,
}

impl Captioner {
    /// From a checkpoint of [`Kind::Caption`] or [`Kind::RegionCaption`].
    pub fn new(checkpoint: Checkpoint) -> Result<Self> {
        let Checkpoint { header, model: weights, .. } = checkpoint;
        let (settings, sight) = understand(&header, |name| weights.get(name).map(|weight| weight.shape.as_slice()))?;
        let Header { vocabulary, features, kind, .. } = header;
        let generator = settings.model.generator();
        let rounded = Rounded::of(&*generator, &weights);
        Ok(Self { generator, weights, rounded, sight, vocabulary, features, kind })
    }

    /// Whether [`Captioner::new`] would take the checkpoint, from what is known without its weights.
    pub fn could_open(outline: &Outline) -> Result<()> {
        understand(&outline.header, |name| outline.shapes.get(name).map(Vec::as_slice)).map(drop)
    }

    /// An error that names the differences where the store's vectors are not what the model was trained on.
    pub fn check(&self, store: &FeatureStore) -> Result<()> {
        check_features(&self.features, store)
    }

    /// Whether a photo's caption needs the vectors of its regions, not only of the whole.
    pub fn looks_at_regions(&self) -> bool {
        self.sight == Sight::Regions
    }

    /// Regions of photos to describe, each as all vectors of its photo `[regions, dim]` and the region's index; 0 is the
    /// whole photo. A model of whole photos takes another region for a photo.
    pub fn pictures<'a>(&self, regions: impl Iterator<Item = (&'a [f32], usize)>) -> Pictures {
        self.sight.pictures(regions, self.features.dim)
    }

    /// Captions of pictures, best first, one list a picture.
    pub fn captions(&self, pictures: &Pictures, decoding: Decoding) -> Vec<Vec<Caption>> {
        let shortcut = match decoding {
            Decoding::Beam(settings) => {
                self.rounded.as_ref().map(|layer| Shortcut { layer, exact: settings.proposals() })
            }
            // Any token may be drawn.
            Decoding::Sample(..) => None,
        };
        let found = in_chunks(&*self.generator, &self.weights, shortcut, pictures, |source, range| match decoding {
            Decoding::Beam(settings) => beam_search(source, range.len(), settings),
            Decoding::Sample(settings, seed) => {
                let mut rngs: Vec<_> = range.map(|picture| random::stream(seed, picture as u64)).collect();
                let mut found = sample(source, &mut rngs, settings);
                found.iter_mut().for_each(|own| own.sort_by(|a, b| b.log_probability.total_cmp(&a.log_probability)));
                found
            }
        });
        let caption = |h: Hypothesis| Caption {
            text: self.vocabulary.decode(&h.words),
            log_probability: h.log_probability,
            word_regions: h.regions,
        };
        found.into_iter().map(|own| own.into_iter().map(caption).collect()).collect()
    }

    /// What regions show, one caption each, given as all vectors of their photo `[regions, dim]` and a region: of the beam's
    /// sentences the one with the highest log probability, less `contrast` times what it has of the whole photo. Without
    /// contrast small regions are often told as what surrounds them. None where the beam finds no sentence.
    pub fn region_captions<'a>(
        &self,
        regions: impl Iterator<Item = (&'a [f32], usize)> + Clone,
        beam: BeamSettings,
        contrast: f32,
    ) -> Vec<Option<Caption>> {
        let n_best = if contrast == 0.0 { 1 } else { beam.beam };
        let pictures = self.pictures(regions.clone());
        let found = self.captions(&pictures, Decoding::Beam(BeamSettings { n_best, ..beam }));
        if contrast == 0.0 {
            return found.into_iter().map(|own| own.into_iter().next()).collect();
        }
        let of: Vec<usize> = (0..).zip(&found).flat_map(|(region, own)| own.iter().map(move |_| region)).collect();
        let tokens = |caption: &Caption| caption.text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let sentences: Vec<Vec<u32>> =
            found.iter().flatten().map(|caption| self.vocabulary.encode(&tokens(caption))).collect();
        let sentences: Vec<&[u32]> = sentences.iter().map(Vec::as_slice).collect();
        let photos = self.pictures(regions.map(|(photo, _)| (photo, 0)));
        let of_photos = self.log_likelihoods(&photos, &sentences, &of);
        let mut best: Vec<Option<(f64, Caption)>> = vec![None; found.len()];
        for ((region, caption), of_photo) in of.into_iter().zip(found.into_iter().flatten()).zip(of_photos) {
            let worth = caption.log_probability - f64::from(contrast * of_photo);
            if best[region].as_ref().is_none_or(|(most, _)| worth > *most) {
                best[region] = Some((worth, caption));
            }
        }
        best.into_iter().map(|best| Some(best?.1)).collect()
    }

    /// Log probability of each sentence about its picture, END included. `of` names the picture of each.
    pub fn log_likelihoods(&self, pictures: &Pictures, sentences: &[&[u32]], of: &[usize]) -> Vec<f32> {
        let said = Said { sentences, pictures: of };
        said.sums(&log_likelihoods(&*self.generator, &self.weights, pictures, said))
    }
}

/// The settings of a model, and what it sees; an error where its weights have other shapes than these ask for.
fn understand<'a>(
    header: &Header,
    shape_of: impl Fn(&str) -> Option<&'a [usize]>,
) -> Result<(CaptionRunSettings, Sight)> {
    let settings: CaptionRunSettings = serde_json::from_value(header.settings.clone())
        .map_err(|e| Error::Mismatch(format!("settings of the caption model: {e}")))?;
    let sight = Sight::of(header.kind, &settings);
    for (name, expected) in settings.model.shapes(sight.features(header.features.dim), header.vocabulary.len()) {
        let found = shape_of(&name);
        if found != Some(&expected) {
            return Err(Error::Mismatch(format!(
                "weights of the caption model: {name} should be {expected:?}, found {found:?}; train it anew with this \
                 version"
            )));
        }
    }
    Ok((settings, sight))
}
