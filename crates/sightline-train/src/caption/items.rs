//! What a caption model learns from: pictures (whole photos or regions) and what was said of each.

use std::collections::BTreeMap;

use sightline_data::BoxXyxy;
use sightline_data::store::FeatureStore;
use sightline_data::{Dataset, Split, Vocabulary};
use sightline_metrics::ptb::Tokenizer;
use sightline_model::caption::{GeneratorKind, Pictures};

use super::endings::Endings;
use crate::checkpoint::Kind;
use crate::corpus::Corpus;
use crate::phrases::Phrases;
use crate::settings::{CaptionRunSettings, RegionContext};
use crate::{Error, Result};

/// A picture and what was said of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    /// Index of the photo in the store.
    pub(super) position: usize,
    /// Index of the region in the photo; 0 is the whole image.
    pub(super) region: usize,
    /// Known words; no sentence is empty.
    pub(super) sentences: Vec<Vec<u32>>,
    /// The same as the metrics read them, unknown words too.
    pub(super) references: Vec<String>,
}

/// Which vectors a model is given of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// The whole photo's.
    Whole,
    /// Those of the whole photo and all its regions.
    Regions,
    /// The region's.
    Region,
    /// The region's with the whole photo's behind it, as one.
    RegionAndWhole,
}

impl Sight {
    pub(super) fn of(kind: Kind, settings: &CaptionRunSettings) -> Self {
        match (kind, settings.region_context, settings.model.generator) {
            (Kind::RegionCaption, RegionContext::None, _) => Self::Region,
            (Kind::RegionCaption, RegionContext::WholeImage, _) => Self::RegionAndWhole,
            (_, _, GeneratorKind::Attention) => Self::Regions,
            _ => Self::Whole,
        }
    }

    /// Length of the vectors that the model reads.
    pub(super) fn features(self, dim: usize) -> usize {
        if self == Self::RegionAndWhole { 2 * dim } else { dim }
    }

    /// The vectors of some regions, given as all vectors of their photo `[regions, dim]` and a region.
    pub(super) fn pictures<'a>(self, photos: impl Iterator<Item = (&'a [f32], usize)>, dim: usize) -> Pictures {
        let (mut values, mut counts) = (Vec::new(), Vec::new());
        for (photo, region) in photos {
            let own = &photo[region * dim..(region + 1) * dim];
            match self {
                Self::Whole | Self::Region => values.extend_from_slice(own),
                // A single region, seen as if it were a photo.
                Self::Regions if region > 0 => values.extend_from_slice(own),
                Self::Regions => values.extend_from_slice(photo),
                Self::RegionAndWhole => {
                    values.extend_from_slice(own);
                    values.extend_from_slice(&photo[..dim]);
                }
            }
            counts.push(if self == Self::Regions && region == 0 { photo.len() / dim } else { 1 });
        }
        Pictures::new(values, self.features(dim), counts)
    }

    /// The same of items of a store.
    pub(super) fn items<'a>(self, store: &FeatureStore, items: impl Iterator<Item = &'a Item>) -> Pictures {
        let photos: Vec<(Vec<f32>, usize)> = items
            .map(|item| {
                let photo = store.get(item.position);
                match self {
                    // One vector is all that is needed.
                    Self::Whole | Self::Region => {
                        (photo.vector_f16(item.region).iter().map(|x| x.to_f32()).collect(), 0)
                    }
                    Self::Regions | Self::RegionAndWhole => (photo.vectors(), item.region),
                }
            })
            .collect();
        self.pictures(photos.iter().map(|(vectors, region)| (vectors.as_slice(), *region)), store.dim())
    }
}

/// Whole photos with their sentences.
pub(super) fn sentence_items(corpus: &Corpus<'_>) -> Vec<Item> {
    let tokenizer = Tokenizer::shared();
    let of_photo = |photo: &crate::corpus::CorpusPhoto| {
        let sentences: Vec<Vec<u32>> = photo.sentences.iter().filter(|words| !words.is_empty()).cloned().collect();
        let image = &corpus.dataset.images[photo.image];
        let references = image.sentences.iter().map(|s| tokenizer.coco_one(&s.raw)).collect();
        (!sentences.is_empty()).then_some(Item { position: photo.position, region: 0, sentences, references })
    };
    corpus.photos.iter().filter_map(of_photo).collect()
}

/// Whether two boxes are one, to half a pixel.
fn is_near(a: &BoxXyxy, b: &BoxXyxy) -> bool {
    let [a, b] = [a, b].map(|region| <[f32; 4]>::from(*region));
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 0.5)
}

/// Regions with the phrases that the alignment model found for them.
pub(super) fn phrase_items(
    phrases: &Phrases,
    dataset: &Dataset,
    split: Split,
    store: &FeatureStore,
    vocabulary: &Vocabulary,
    settings: &CaptionRunSettings,
) -> Result<Vec<Item>> {
    let endings = settings.whole_phrases.then(|| {
        let sentences = dataset.split(Split::Train).flat_map(|image| &image.sentences);
        Endings::of(&sentences.map(|sentence| sentence.tokens.as_slice()).collect::<Vec<_>>())
    });
    let mut items = BTreeMap::new();
    for image in dataset.split(split) {
        let (Some(position), Some(own)) = (store.position(&image.path), phrases.photos.get(&image.path)) else {
            continue;
        };
        let photo = store.get(position);
        let n_regions = photo.n_regions();
        for phrase in own {
            // Another backbone's vectors of the same regions will do.
            if photo.boxes().nth(phrase.region).is_none_or(|region| !is_near(&region, &phrase.region_box)) {
                return Err(Error::Mismatch(format!(
                    "the phrases have region {} of {} elsewhere than {}, which has {n_regions}; decode them from a store of \
                     these regions",
                    phrase.region,
                    image.path,
                    store.path().display()
                )));
            }
            let said = endings.as_ref().map_or(phrase.words.as_slice(), |endings| endings.whole(&phrase.words));
            let words = vocabulary.encode(said);
            if words.len() >= settings.min_phrase_words.max(1) && phrase.score >= settings.min_phrase_score {
                let empty = || Item { position, region: phrase.region, sentences: Vec::new(), references: Vec::new() };
                let item: &mut Item = items.entry((position, phrase.region)).or_insert_with(empty);
                item.sentences.push(words);
                item.references.push(said.join(" "));
            }
        }
    }
    if items.is_empty() {
        return Err(Error::Mismatch(format!(
            "no phrase of the {} split is left; lower min_phrase_words or min_phrase_score, or decode that split",
            split.name()
        )));
    }
    Ok(items.into_values().collect())
}

/// Log frequency of every token among the targets, the end token once a sentence; one added to each count.
pub(super) fn log_frequencies(items: &[Item], vocab: usize) -> Vec<f32> {
    let mut counts = vec![1u64; vocab];
    for words in items.iter().flat_map(|item| &item.sentences) {
        counts[0] += 1;
        words.iter().for_each(|&word| counts[word as usize] += 1);
    }
    let total: u64 = counts.iter().sum();
    counts.iter().map(|&count| (count as f64 / total as f64).ln() as f32).collect()
}
