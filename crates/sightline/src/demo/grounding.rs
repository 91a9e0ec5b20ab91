//! How many nouns of the scenes end on their object, against the truth that only this file reads.

use serde::Serialize;
use sightline_data::BoxXyxy;
use sightline_model::decode::viterbi;
use sightline_search::VectorSets;

use super::scenes::{Scene, WordKind};

/// A box covers an object from this IoU on.
const COVERS: f32 = 0.5;

/// Nouns attached to regions, against the truth; all shares in 0..=1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Grounding {
    /// Nouns that name an object.
    pub nouns: usize,
    /// Of those, nouns whose object some region covers (IoU of 0.5 or more).
    pub covered_nouns: usize,
    /// `covered_nouns / nouns`.
    pub covered: f64,
    /// Share of the covered nouns whose region covers their object.
    pub accuracy: f64,
    /// Share of the covered nouns whose region has its centre in their object: the pointing game.
    pub pointing: f64,
    /// `accuracy` over all nouns: what no region covers is a miss.
    pub accuracy_of_all: f64,
    /// What a region drawn at random would reach on the covered nouns.
    pub chance: f64,
}

/// One sentence of a scene with the region that each of its words was attached to.
pub struct Attached<'a> {
    /// The scene.
    pub scene: &'a Scene,
    /// Which of its sentences.
    pub sentence: usize,
    /// One region a known word, in order.
    pub regions: Vec<usize>,
    /// Whether each token of the sentence is known.
    pub known: Vec<bool>,
    /// The photo's regions.
    pub boxes: &'a [BoxXyxy],
}

/// Counts over all nouns of all sentences.
pub fn evaluate<'a>(attached: impl Iterator<Item = Attached<'a>>) -> Grounding {
    let (mut nouns, mut covered_nouns, mut hits, mut points, mut chance) = (0, 0, 0, 0, 0.0);
    for Attached { scene, sentence, regions, known, boxes } in attached {
        let mut regions = regions.into_iter();
        for (word, known) in scene.sentences[sentence].words.iter().zip(known) {
            let region = if known { regions.next() } else { None };
            if word.kind != WordKind::Noun || word.objects.is_empty() {
                continue;
            }
            nouns += 1;
            let covers = |b: &BoxXyxy| word.objects.iter().any(|&o| scene.objects[o].region.iou(b) >= COVERS);
            let covering = boxes.iter().filter(|b| covers(b)).count();
            if covering == 0 {
                continue;
            }
            covered_nouns += 1;
            chance += covering as f64 / boxes.len() as f64;
            hits += usize::from(region.is_some_and(|r| covers(&boxes[r])));
            let in_object = |b: &BoxXyxy| word.objects.iter().any(|&o| scene.objects[o].region.contains(b.centre()));
            points += usize::from(region.is_some_and(|r| in_object(&boxes[r])));
        }
    }
    let share = |part: f64, whole: usize| part / whole.max(1) as f64;
    Grounding {
        nouns,
        covered_nouns,
        covered: share(covered_nouns as f64, nouns),
        accuracy: share(hits as f64, covered_nouns),
        pointing: share(points as f64, covered_nouns),
        accuracy_of_all: share(hits as f64, nouns),
        chance: share(chance, covered_nouns),
    }
}

/// The region of every word of one sentence, neighbours together as `affinity` says (equations 10 to 12).
pub fn attach(regions: &VectorSets, photo: usize, words: &VectorSets, sentence: usize, affinity: f32) -> Vec<usize> {
    if words.count(sentence) == 0 {
        return Vec::new();
    }
    let products = sightline_search::products(regions.get(photo), words.get(sentence), regions.dim());
    viterbi(&products, regions.count(photo), affinity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::scenes::generate;

    #[test]
    fn the_truth_scores_full_and_one_wrong_region_nothing() {
        let scenes = generate(3, 20);
        let all_boxes: Vec<Vec<BoxXyxy>> = scenes
            .iter()
            .map(|scene| {
                let tiny = BoxXyxy { x1: 0.0, y1: 0.0, x2: 1.0, y2: 1.0 };
                std::iter::once(tiny).chain(scene.objects.iter().map(|o| o.region)).collect()
            })
            .collect();
        let attach = |right: bool| {
            evaluate(scenes.iter().zip(&all_boxes).flat_map(move |(scene, boxes)| {
                (0..scene.sentences.len()).map(move |sentence| {
                    let words = &scene.sentences[sentence].words;
                    let region = |objects: &[usize]| if right { objects.first().map_or(0, |o| o + 1) } else { 0 };
                    let regions = words.iter().map(|w| region(&w.objects)).collect();
                    Attached { scene, sentence, regions, known: vec![true; words.len()], boxes }
                })
            }))
        };
        let right = attach(true);
        assert!(right.nouns > 50 && right.covered == 1.0, "{right:?}");
        assert_eq!((right.accuracy, right.accuracy_of_all), (1.0, 1.0));
        assert!(right.chance > 0.1 && right.chance < 0.8, "{right:?}");
        assert_eq!(attach(false).accuracy, 0.0);
    }
}
