//! Captions of the scenes' objects, by the model of regions and by the model of whole photos, against what the scenes'
//! sentences say of each object (the paper's table 3, where the truth is known).

use std::collections::BTreeSet;

use serde::Serialize;
use sightline_data::FeatureStore;
use sightline_metrics::bleu::BleuCounts;
use sightline_model::caption::BeamSettings;
use sightline_train::caption::{Captioner, Decoding};

use super::scenes::{Scene, WordKind};

/// A region stands for an object from this IoU on.
const COVERS: f32 = 0.5;

/// BLEU-1 to 4 of captions of objects, each in 0..=1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Described {
    /// Objects that a region covers and a sentence speaks of.
    pub objects: usize,
    /// The model that learnt from the decoded phrases.
    pub region_level: [f64; 4],
    /// The model that learnt from whole photos and sentences.
    pub full_frame: [f64; 4],
}

/// What a scene's sentences say of one object alone: its noun with article and adjectives.
pub fn phrases(scene: &Scene, object: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for sentence in &scene.sentences {
        let words = &sentence.words;
        for (noun, _) in words.iter().enumerate().filter(|(_, w)| w.kind == WordKind::Noun && w.objects == [object]) {
            let adjectives = words[..noun].iter().rev().take_while(|w| w.kind == WordKind::Adjective);
            let mut first = noun - adjectives.count();
            if first > 0 && matches!(words[first - 1].word.as_str(), "a" | "an" | "the") {
                first -= 1;
            }
            let phrase: Vec<&str> = words[first..=noun].iter().map(|w| w.word.as_str()).collect();
            found.insert(phrase.join(" "));
        }
    }
    found
}

/// Captions every object that a region of the store covers by both models. `scenes` come with their keys in the store.
pub fn evaluate<'a>(
    regional: &Captioner,
    whole: &Captioner,
    store: &FeatureStore,
    scenes: impl Iterator<Item = (&'a Scene, &'a str)>,
    beam: BeamSettings,
) -> Described {
    let (mut regions, mut references) = (Vec::new(), Vec::new());
    for (scene, key) in scenes {
        let Some(photo) = store.find(key) else { continue };
        for (i, object) in scene.objects.iter().enumerate() {
            let ious = photo.boxes().enumerate().skip(1).map(|(region, b)| (region, b.iou(&object.region)));
            let best = ious.max_by(|a, b| a.1.total_cmp(&b.1));
            let said = phrases(scene, i);
            if let Some((region, _)) = best.filter(|&(_, iou)| iou >= COVERS && !said.is_empty()) {
                regions.push((photo.vectors(), region));
                references.push(Vec::from_iter(said));
            }
        }
    }
    let bleu = |captioner: &Captioner| {
        let pictures = captioner.pictures(regions.iter().map(|(vectors, region)| (vectors.as_slice(), *region)));
        let mut counts = BleuCounts::default();
        for (captions, references) in captioner.captions(&pictures, Decoding::Beam(beam)).iter().zip(&references) {
            counts.merge(&BleuCounts::of_text(captions.first().map_or("", |best| &best.text), references));
        }
        counts.scores()
    };
    Described { objects: regions.len(), region_level: bleu(regional), full_frame: bleu(whole) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::scenes::generate;

    #[test]
    fn phrases_name_the_object_and_nothing_else() {
        let scenes = generate(5, 40);
        let mut n = 0;
        for scene in &scenes {
            for i in 0..scene.objects.len() {
                for phrase in phrases(scene, i) {
                    n += 1;
                    let words: Vec<&str> = phrase.split(' ').collect();
                    assert!((1..=4).contains(&words.len()), "{phrase}");
                    let alone = |sentence: &super::super::scenes::SceneSentence| {
                        let noun = sentence.words.iter().find(|w| Some(&w.word.as_str()) == words.last());
                        noun.is_some_and(|w| w.kind == WordKind::Noun)
                    };
                    assert!(scene.sentences.iter().any(alone), "{phrase} ends in no noun");
                }
            }
        }
        assert!(n > 100, "{n} phrases of {} scenes", scenes.len());
    }
}
