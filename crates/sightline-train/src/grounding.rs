//! Grounding on photos whose objects are boxed: does the region of a noun lie on what the noun names? The boxes are read
//! here and nowhere else; training sees photos and sentences alone.

use std::collections::BTreeMap;

use rand::RngExt;
use sightline_data::BoxXyxy;
use sightline_data::categories::{CategoryWords, NamedBox, boxes_of};
use sightline_metrics::grounding::{self, Grounding, GroundingReport};
use sightline_model::decode::{self, Prior};
use sightline_model::random;
use sightline_search::VectorSets;

use crate::aligner::Aligner;
use crate::corpus::Corpus;
use crate::pointing::AttachSettings;
use crate::{Error, Result};

/// A noun of a sentence that names a category whose boxes are known.
struct Noun {
    category: &'static str,
    /// Index among the photos of the corpus.
    photo: usize,
    /// Index among all sentences of the corpus.
    sentence: usize,
    /// Index among the sentence's known words.
    word: usize,
}

/// The nouns of a corpus with boxes, their photos and sentences as vectors: what every affinity is measured on.
pub struct GroundingSet {
    nouns: Vec<Noun>,
    /// Regions' boxes, a photo.
    boxes: Vec<Vec<BoxXyxy>>,
    /// What speaks for each region before any word, a photo.
    priors: Vec<Prior>,
    /// True boxes by category, a photo.
    truth: Vec<BTreeMap<String, Vec<grounding::BoxXyxy>>>,
    /// How much each word is of things, a sentence.
    weights: Vec<Vec<f32>>,
    /// Regions a photo and words a sentence, a model.
    vectors: Vec<(VectorSets, VectorSets)>,
    /// Nouns that name a category without a box in their photo.
    pub without_box: usize,
    /// Nouns that the model does not know.
    pub unknown: usize,
}

/// Region by region of the noun's photo, best first; `NaN` never comes first.
fn ranked(scores: &[f32], chosen: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    // What decoding chose stands first, whatever its own product is.
    order.retain(|&region| region != chosen);
    order.insert(0, chosen);
    order
}

/// How much each of these words is of things, in the mean of the models.
fn prior_weights(aligners: &[Aligner], words: &[u32]) -> Vec<f32> {
    let mut mean = vec![0.0; words.len()];
    for aligner in aligners {
        let own = aligner.prior_weights.of(words);
        mean.iter_mut().zip(own).for_each(|(mean, own)| *mean += own / aligners.len() as f32);
    }
    mean
}

impl GroundingSet {
    /// From a corpus and the named boxes of its photos, by file name or by key; an error if no noun can be judged. Several
    /// models point together: they know the same words and read the same vectors, which are the corpus's.
    pub fn new(aligners: &[Aligner], corpus: &Corpus<'_>, named: &BTreeMap<String, Vec<NamedBox>>) -> Result<Self> {
        let aligner = aligners.first().expect("a model that points");
        let reads_alike =
            |other: &Aligner| other.vocabulary == aligner.vocabulary && other.relations == aligner.relations;
        if !aligners.iter().all(reads_alike) {
            return Err(Error::Mismatch(
                "the models know different words; such as point together were trained on one split with one `min_count`".into(),
            ));
        }
        let table = CategoryWords::coco();
        let (mut nouns, mut sentences) = (Vec::new(), Vec::new());
        let (mut boxes, mut priors, mut truth) = (Vec::new(), Vec::new(), Vec::new());
        let (mut without_box, mut unknown) = (0, 0);
        for (photo_idx, photo) in corpus.photos.iter().enumerate() {
            let key = corpus.key(photo);
            let found = boxes_of(named, key);
            let mut own: BTreeMap<String, Vec<grounding::BoxXyxy>> = BTreeMap::new();
            for NamedBox { category, region: b } in found.into_iter().flatten() {
                own.entry(category.clone()).or_default().push([b.x1, b.y1, b.x2, b.y2]);
            }
            for (s, sentence) in corpus.dataset.images[photo.image].sentences.iter().enumerate() {
                let known = photo.sentence(s);
                let in_table: Vec<bool> =
                    sentence.tokens.iter().map(|token| aligner.vocabulary.get(token).is_some()).collect();
                for (token, category) in table.find(&sentence.tokens).into_iter().filter(|_| found.is_some()) {
                    if !own.contains_key(category) {
                        without_box += 1;
                    } else if !in_table[token] || known.words.is_empty() {
                        unknown += 1;
                    } else {
                        let word = in_table[..token].iter().filter(|&&known| known).count();
                        nouns.push(Noun { category, photo: photo_idx, sentence: sentences.len(), word });
                    }
                }
                sentences.push(known);
            }
            let seen = corpus.store.get(photo.position);
            boxes.push(seen.boxes().collect());
            priors.push(Prior::new(seen.scores, seen.boxes().map(|b| b.area())));
            truth.push(own);
        }
        if nouns.is_empty() {
            return Err(Error::Mismatch(
                "no noun of the sentences names a category that has a box in its photo; do the file names of the boxes fit \
                 the dataset's?"
                    .into(),
            ));
        }
        let positions: Vec<usize> = corpus.photos.iter().map(|photo| photo.position).collect();
        let weights = sentences.iter().map(|sentence| prior_weights(aligners, sentence.words)).collect();
        let vectors = aligners
            .iter()
            .map(|aligner| (aligner.regions(corpus.store, &positions), aligner.words(sentences.iter().copied())))
            .collect();
        Ok(Self { nouns, boxes, priors, truth, weights, vectors, without_box, unknown })
    }

    /// Nouns that can be judged.
    pub fn nouns(&self) -> usize {
        self.nouns.len()
    }

    /// Products of a sentence's words with its photo's regions, `[words, regions]`; of several models the sum, in standard
    /// deviations of each model's products with a word.
    fn products(&self, noun: &Noun) -> Vec<f32> {
        let of = |(regions, words): &(VectorSets, VectorSets)| {
            sightline_search::products(regions.get(noun.photo), words.get(noun.sentence), regions.dim())
        };
        if let [only] = self.vectors.as_slice() {
            return of(only);
        }
        let mut sum: Vec<f32> = Vec::new();
        for vectors in &self.vectors {
            let mut own = of(vectors);
            own.chunks_exact_mut(self.boxes[noun.photo].len()).for_each(decode::standardise);
            sum.resize(own.len(), 0.0);
            sum.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
        }
        sum
    }

    /// The evaluation with words decoded so (equations 10 to 12), over the nouns of photos for which `of` says yes. Baselines
    /// are a random region (drawn by `seed`), the largest, the whole photo, and the one that its proposer is surest of.
    pub fn evaluate(&self, settings: AttachSettings, seed: u64, of: impl Fn(usize) -> bool) -> GroundingReport {
        let mut result = Grounding::default();
        let mut rng = random::stream(seed, 0);
        let mut decoded: Option<(usize, Vec<f32>, Vec<usize>)> = None;
        for noun in &self.nouns {
            let n_regions = self.boxes[noun.photo].len();
            let drawn = rng.random_range(0..n_regions);
            if !of(noun.photo) {
                continue;
            }
            // Nouns come sentence by sentence.
            if decoded.as_ref().is_none_or(|(sentence, ..)| *sentence != noun.sentence) {
                let products = self.products(noun);
                let assignment = settings.attach(&products, &self.priors[noun.photo], &self.weights[noun.sentence]);
                decoded = Some((noun.sentence, products, assignment));
            }
            let (_, products, assignment) = decoded.as_ref().expect("just decoded");
            let boxes: Vec<grounding::BoxXyxy> =
                self.boxes[noun.photo].iter().map(|b| [b.x1, b.y1, b.x2, b.y2]).collect();
            let truth = &self.truth[noun.photo][noun.category];
            let order = ranked(&products[noun.word * n_regions..][..n_regions], assignment[noun.word]);
            let found: Vec<grounding::BoxXyxy> = order.iter().map(|&region| boxes[region]).collect();
            result.push(noun.category, grounding::centre(&found[0]), &found, truth);
            let area = |b: &grounding::BoxXyxy| (b[2] - b[0]) * (b[3] - b[1]);
            // The whole photo comes first; it is a baseline of its own.
            let largest = boxes.iter().skip(1).max_by(|a, b| area(a).total_cmp(&area(b))).unwrap_or(&boxes[0]);
            let order = &self.priors[noun.photo].things;
            let surer = |best: usize, region: usize| if order[region] > order[best] { region } else { best };
            let surest = &boxes[(1..n_regions).reduce(surer).unwrap_or(0)];
            let baselines = [("random", &boxes[drawn]), ("largest", largest), ("whole", &boxes[0]), ("surest", surest)];
            for (name, b) in baselines {
                result.push_baseline(name, &[*b], truth);
            }
        }
        result.report()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decoded_region_comes_first() {
        assert_eq!(ranked(&[0.1, 0.9, 0.5, 0.9], 2), [2, 1, 3, 0]);
        assert_eq!(ranked(&[0.1, 0.9], 1), [1, 0]);
    }
}
