//! Where words point: to the region with the best product, unless the proposer of the regions is much surer of another; and
//! for which words that counts.

use serde::{Deserialize, Serialize};
use sightline_data::store::StoreSettings;
use sightline_model::decode::{self, Prior};
use sightline_search::VectorSets;
use sightline_vision::backbone::Compact;
use sightline_vision::regions::NanoDet;

/// How words find their regions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct AttachSettings {
    /// β of equation 12: what a pair of neighbouring words gains on the same region.
    pub affinity: f32,
    /// Weight of [`decode::Prior`]; 0 in the paper.
    pub prior: f32,
}

/// The weight of [`decode::Prior`] by which words point: good for the program's own regions and for NanoDet's (docs/log.md).
const POINTING_PRIOR: f32 = 1.0;

impl AttachSettings {
    /// Where a word points in answers and on pages: to the region with the best product, unless a proposer that knows an
    /// object when it sees one is much surer of another. Such are detectors; the order of Selective Search and that of
    /// boxes from a file say next to nothing.
    pub fn pointing(features: &StoreSettings) -> Self {
        let is_detector = [NanoDet::NAME, Compact::REGIONS].contains(&features.regions.as_str());
        Self { affinity: 0.0, prior: if is_detector { POINTING_PRIOR } else { 0.0 } }
    }

    /// What [`decode::viterbi`] is to find the best assignment of: the products `[words, regions]` with the regions' prior in
    /// them, that of things by how much it counts for each word ([`PriorWeights::of`]).
    pub fn rewards(self, products: &[f32], prior: &Prior, weights: &[f32]) -> Vec<f32> {
        let mut rewards = products.to_vec();
        prior.add_to(&mut rewards, self.prior, weights);
        rewards
    }

    /// One region a word (equations 10 to 12) of these [`AttachSettings::rewards`].
    pub fn attach(self, products: &[f32], prior: &Prior, weights: &[f32]) -> Vec<usize> {
        decode::viterbi(&self.rewards(products, prior, weights), prior.things.len(), self.affinity)
    }
}

/// How much the prior of things counts for each word of a vocabulary, from 0 to 1; the rest is that of scenes. A dog is one of
/// the things that a detector is sure of; snow is not, and lies where no detector looks. Nobody says so to the model: over
/// photos that were described, the products of "dog" go with the detector's order and those of "snow" do not.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PriorWeights(Vec<f32>);

/// Words as many as these, in mean agreement with the order, are added to what was seen of each word.
const UNSEEN: f64 = 20.0;
/// A word that agrees with the order by no more than this share of the mean is of scenes, from the other on of things; in
/// between by the straight line (docs/log.md).
const NONE: f64 = 0.5;
const ALL: f64 = 0.75;

impl PriorWeights {
    /// Learnt from photos, each with the [`decode::order`] of its regions and the known words of its own sentences, and from
    /// vectors of regions, one set a photo, and of words, one set a sentence: for each word the mean of its
    /// [`decode::agreement`], beside that of all words.
    pub(crate) fn learn<'a>(
        photos: impl Iterator<Item = (Vec<f32>, &'a [Vec<u32>])>,
        regions: &VectorSets,
        words: &VectorSets,
    ) -> Self {
        let mut of_word: Vec<(f64, f64)> = Vec::new();
        let mut sentences = 0..words.len();
        for (photo, (order, own)) in photos.enumerate() {
            for (known, sentence) in own.iter().zip(&mut sentences).filter(|(known, _)| !known.is_empty()) {
                let products = sightline_search::products(regions.get(photo), words.get(sentence), regions.dim());
                for (&word, products) in known.iter().zip(products.chunks_exact(order.len().max(1))) {
                    if let Some(agreement) = decode::agreement(products, &order) {
                        if of_word.len() <= word as usize {
                            of_word.resize(word as usize + 1, (0.0, 0.0));
                        }
                        let (seen, sum) = &mut of_word[word as usize];
                        *seen += 1.0;
                        *sum += agreement;
                    }
                }
            }
        }
        Self::from_agreement(&of_word)
    }

    /// From how often each word was seen, and the sum of its agreement. Where words on the whole do not go with the order,
    /// nothing tells one from another.
    fn from_agreement(of_word: &[(f64, f64)]) -> Self {
        let (all, sum) = of_word.iter().fold((0.0, 0.0), |(n, s), (seen, sum)| (n + seen, s + sum));
        let mean: f64 = sum / f64::max(all, 1.0);
        if mean <= 0.0 {
            return Self::default();
        }
        let weight = |&(seen, sum): &(f64, f64)| {
            let agreement = (sum + UNSEEN * mean) / (seen + UNSEEN);
            // Two decimals are enough, and short in a file.
            (((agreement / mean - NONE) / (ALL - NONE)).clamp(0.0, 1.0) * 100.0).round() as f32 / 100.0
        };
        Self(of_word.iter().map(weight).collect())
    }

    /// Whether nothing is known, and all words are of things.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of each of these words, by their index in the vocabulary.
    pub fn of(&self, words: &[u32]) -> Vec<f32> {
        words.iter().map(|&word| self.0.get(word as usize).copied().unwrap_or(1.0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_learnt_from_products() {
        // Along the first number proposals lie in their order, along the second the other way round. Each of thirty photos
        // is told in a sentence without a known word and in one of three: words 2 and 1 lie along the first and the second.
        let (mut regions, mut words) = (VectorSets::new(2), VectorSets::new(2));
        let said = [vec![], vec![2, 1, 2]];
        for _ in 0..30 {
            regions.push(&[9.0, 9.0, /**/ 3.0, 1.0, /**/ 2.0, 2.0, /**/ 1.0, 3.0]);
            words.push(&[]);
            words.push(&[1.0, 0.0, /**/ 0.0, 1.0, /**/ 1.0, 0.0]);
        }
        let photos = || (0..30).map(|_| (decode::order(&[1.0, 0.9, 0.5, 0.1]), said.as_slice()));
        assert_eq!(PriorWeights::learn(photos(), &regions, &words).0, [1.0, 0.0, 1.0]);
        // Regions of which nothing says which is surer.
        let photos = photos().map(|(_, own)| (decode::order(&[1.0; 4]), own));
        assert!(PriorWeights::learn(photos, &regions, &words).is_empty());
    }

    #[test]
    fn words_that_do_not_go_with_the_order_are_of_scenes() {
        // Often: much; against the order; a little, and somewhat less; seldom: against it; never. In the mean 0.1.
        let often = 1e6;
        let seen = [0.315, -0.05, 0.075, 0.06].map(|agreement| (often, agreement * often));
        let weights = PriorWeights::from_agreement(&[&seen[..], &[(5.0, -0.1), (0.0, 0.0)]].concat());
        assert_eq!(weights.0, [1.0, 0.0, 1.0, 0.4, 1.0, 1.0]);
        assert_eq!(weights.of(&[3, 1, 7]), [0.4, 0.0, 1.0]);
        assert!(PriorWeights::from_agreement(&[(9.0, -1.0), (1.0, 0.5)]).is_empty());
        assert!(PriorWeights::from_agreement(&[]).is_empty());
        assert_eq!(PriorWeights::default().of(&[3]), [1.0]);
    }
}
