//! A committee: the sentences that several caption models propose for a photo, judged by all of them, by alignment models,
//! and by what people said of other photos like it.
//!
//! A caption model knows what is likely to be said, an alignment model what is to be seen; the sentences of training
//! photos nearest to a photo know how people put it (consensus re-ranking, Devlin et al. 2015).

use rayon::prelude::*;
use sightline_data::{Dataset, Split, Vocabulary};
use sightline_metrics::cider::{Cider, DocumentFrequencies};
use sightline_model::caption::BeamSettings;
use sightline_search::VectorSets;

use crate::aligner::Aligner;
use crate::caption::{Caption, Captioner, Decoding};
use crate::corpus::Corpus;
use crate::describe;

/// Photos judged at once.
const PHOTOS: usize = 64;
/// Sentences of training photos scored at once.
const SENTENCES: usize = 1024;

/// What an alignment score of 1 is worth in natural logarithms a token; good for captions by likelihood and by reward
/// (docs/log.md).
pub const USUAL_FIT_WEIGHT: f32 = 3.0;

/// What the agreement with people's sentences, a CIDEr-D of 0 to 10, is worth in natural logarithms a token; good for one
/// model and for several (docs/log.md).
pub const USUAL_CONSENSUS_WEIGHT: f64 = 2.0;

/// A caption model, and the photos as it sees them.
#[derive(Debug, Clone, Copy)]
pub struct Speaker<'a> {
    /// The model.
    pub captioner: &'a Captioner,
    /// The photos, with its own vectors and words.
    pub corpus: &'a Corpus<'a>,
}

/// An alignment model, and the photos as it sees them.
#[derive(Debug)]
pub struct Judge<'a> {
    aligner: &'a Aligner,
    /// Of all photos of the corpus.
    regions: VectorSets,
}

impl<'a> Judge<'a> {
    /// Of the photos of `corpus`, which has vectors that the aligner reads.
    pub fn new(aligner: &'a Aligner, corpus: &Corpus<'_>) -> Self {
        let positions: Vec<usize> = corpus.photos.iter().map(|photo| photo.position).collect();
        Self { aligner, regions: aligner.regions(corpus.store, &positions) }
    }

    /// Of one photo, by the aligner's own vectors of its regions or of the one that is described, `[regions, dim]`.
    pub fn of_photo(aligner: &'a Aligner, vectors: &[f32]) -> Self {
        let mut regions = VectorSets::new(aligner.dim());
        regions.push(vectors);
        Self { aligner, regions }
    }

    /// Scores of one list of sentences a photo, of the photos from `first` on.
    fn scores(&self, first: usize, sentences: &[Vec<&str>]) -> Vec<Vec<f32>> {
        let known = |text: &&str| known_words(&self.aligner.vocabulary, text);
        let encoded: Vec<Vec<u32>> = sentences.iter().flatten().map(known).collect();
        let words = self.aligner.words(&encoded);
        let mut next = 0;
        let of_photo = |(photo, own): (usize, &Vec<&str>)| {
            let (mut picture, mut said) = (VectorSets::new(self.regions.dim()), VectorSets::new(words.dim()));
            picture.push(self.regions.get(photo));
            (next..next + own.len()).for_each(|sentence| said.push(words.get(sentence)));
            next += own.len();
            self.aligner.scores(&picture, &said)
        };
        (first..).zip(sentences).map(of_photo).collect()
    }
}

/// What people said of training photos, as far as it suits each photo.
#[derive(Debug)]
pub struct Neighbours {
    /// Of each photo, nearest first.
    sentences: Vec<Vec<String>>,
    frequencies: DocumentFrequencies,
}

impl Neighbours {
    /// The `most` training sentences with the highest mean score of all judges, for every photo of theirs; the first among
    /// equals. The photos are not the training photos themselves, whose own sentences would be the nearest.
    pub fn find(judges: &[Judge<'_>], dataset: &Dataset, most: usize) -> Self {
        let of_photos: Vec<Vec<String>> = dataset
            .split(Split::Train)
            .map(|image| image.sentences.iter().map(|sentence| sentence.tokens.join(" ")).collect())
            .collect();
        let all: Vec<&str> = of_photos.iter().flatten().map(String::as_str).collect();
        let photos = judges.first().map_or(0, |judge| judge.regions.len());
        let mut nearest: Vec<Vec<(f32, usize)>> = vec![Vec::new(); photos];
        for (chunk, texts) in all.chunks(SENTENCES).enumerate() {
            let mut sums = vec![0.0; photos * texts.len()];
            for Judge { aligner, regions } in judges {
                let words =
                    aligner.words(&texts.iter().map(|t| known_words(&aligner.vocabulary, t)).collect::<Vec<_>>());
                sums.iter_mut().zip(aligner.scores(regions, &words)).for_each(|(sum, score)| *sum += score);
            }
            nearest.par_iter_mut().zip(sums.par_chunks(texts.len())).for_each(|(nearest, scores)| {
                nearest.extend(scores.iter().enumerate().map(|(i, &score)| (score, chunk * SENTENCES + i)));
                nearest.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                nearest.truncate(most);
            });
        }
        let texts = |own: Vec<(f32, usize)>| own.into_iter().map(|(_, sentence)| all[sentence].to_owned()).collect();
        let sentences = nearest.into_iter().map(texts).collect();
        Self { sentences, frequencies: DocumentFrequencies::of(&of_photos) }
    }

    /// Mean CIDEr-D, 0..10, of a sentence with those nearest to the photo; document frequencies are those of the training
    /// photos.
    fn agreement(&self, photo: usize, text: &str) -> f64 {
        Cider::new(&self.frequencies).score(text, &self.sentences[photo]).cider_d
    }
}

/// A sentence for a photo, and what it is worth so far.
#[derive(Debug, Clone)]
struct Candidate {
    worth: f64,
    caption: Caption,
}

/// Sentences for every photo, each found once.
#[derive(Debug, Clone)]
pub struct Candidates {
    of_photos: Vec<Vec<Candidate>>,
}

impl Candidates {
    /// What the beams of all speakers find, each sentence worth its log probability a token, END's included: of several
    /// speakers the mean, which then is the caption's. All have the same photos.
    pub fn propose(speakers: &[Speaker<'_>], beam: BeamSettings) -> Self {
        let beam = BeamSettings { n_best: beam.beam, ..beam };
        let mut found: Vec<Vec<Caption>> = Vec::new();
        for Speaker { captioner, corpus } in speakers {
            let own = describe::captions(captioner, corpus, Decoding::Beam(beam));
            found.resize_with(own.len(), Vec::new);
            found.iter_mut().zip(own).for_each(|(found, own)| add_new(found, own));
        }
        if speakers.len() > 1 {
            found.par_iter_mut().enumerate().for_each(|(photo, captions)| {
                let vectors_of = |corpus: &Corpus<'_>| corpus.store.get(corpus.photos[photo].position).vectors();
                let vectors: Vec<Vec<f32>> = speakers.iter().map(|speaker| vectors_of(speaker.corpus)).collect();
                let readers = speakers.iter().zip(&vectors).map(|(speaker, own)| (speaker.captioner, own.as_slice()));
                read_by_all(readers, captions);
            });
        }
        Self::new(found)
    }

    /// Those found for each photo, each worth its log probability a token.
    pub fn new(found: Vec<Vec<Caption>>) -> Self {
        let candidate = |caption: Caption| Candidate { worth: caption.log_probability_a_token(), caption };
        Self { of_photos: found.into_iter().map(|own| own.into_iter().map(candidate).collect()).collect() }
    }

    /// Adds `weight` times the mean score of the judges.
    pub fn fit(&mut self, judges: &[Judge<'_>], weight: f64) {
        for (chunk, candidates) in self.of_photos.chunks_mut(PHOTOS).enumerate() {
            let texts: Vec<Vec<&str>> =
                candidates.iter().map(|own| own.iter().map(|c| c.caption.text.as_str()).collect()).collect();
            let of_judges: Vec<_> = judges.iter().map(|judge| judge.scores(chunk * PHOTOS, &texts)).collect();
            for scores in of_judges {
                for (candidate, score) in candidates.iter_mut().flatten().zip(scores.into_iter().flatten()) {
                    candidate.worth += weight * f64::from(score) / judges.len() as f64;
                }
            }
        }
    }

    /// Adds `weight` times the agreement with what people said of photos like it.
    pub fn agree(&mut self, neighbours: &Neighbours, weight: f64) {
        self.of_photos.par_iter_mut().enumerate().for_each(|(photo, candidates)| {
            for Candidate { worth, caption } in candidates {
                *worth += weight * neighbours.agreement(photo, &caption.text);
            }
        });
    }

    /// The sentences of every photo, what is worth most first; as they were found among equals.
    pub fn ranked(self) -> Vec<Vec<Caption>> {
        let rank = |mut own: Vec<Candidate>| {
            own.sort_by(|a, b| b.worth.total_cmp(&a.worth));
            own.into_iter().map(|candidate| candidate.caption).collect()
        };
        self.of_photos.into_iter().map(rank).collect()
    }
}

/// Puts the captions of one photo, by which the judges are, into the order of log probability a token and `weight` times
/// the judges' mean score.
pub fn order(judges: &[Judge<'_>], weight: f32, captions: &mut Vec<Caption>) {
    let mut candidates = Candidates::new(vec![std::mem::take(captions)]);
    candidates.fit(judges, weight.into());
    *captions = candidates.ranked().swap_remove(0);
}

fn known_words(vocabulary: &Vocabulary, text: &str) -> Vec<u32> {
    text.split(' ').filter_map(|word| vocabulary.get(word)).collect()
}

/// Adds those of `more` whose words nobody has found before.
pub fn add_new(found: &mut Vec<Caption>, more: Vec<Caption>) {
    for caption in more {
        if found.iter().all(|known| known.text != caption.text) {
            found.push(caption);
        }
    }
}

/// Gives every caption of a photo the mean of all readers' log probabilities, each of which has the photo's vectors
/// `[regions, features]` as it sees them.
pub fn read_by_all<'a>(readers: impl ExactSizeIterator<Item = (&'a Captioner, &'a [f32])>, captions: &mut [Caption]) {
    let n_readers = readers.len() as f64;
    let mut sums = vec![0.0; captions.len()];
    for (captioner, vectors) in readers {
        let picture = captioner.pictures(std::iter::once((vectors, 0)));
        let words: Vec<Vec<u32>> = captions.iter().map(|c| known_words(&captioner.vocabulary, &c.text)).collect();
        let words: Vec<&[u32]> = words.iter().map(Vec::as_slice).collect();
        let read = captioner.log_likelihoods(&picture, &words, &vec![0; words.len()]);
        sums.iter_mut().zip(read).for_each(|(sum, own)| *sum += f64::from(own));
    }
    captions.iter_mut().zip(sums).for_each(|(caption, sum)| caption.log_probability = sum / n_readers);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(of_photos: &[&[(&str, f64)]]) -> Candidates {
        let caption = |&(text, log_probability): &(&str, f64)| Caption {
            text: text.to_owned(),
            log_probability,
            word_regions: Vec::new(),
        };
        Candidates::new(of_photos.iter().map(|own| own.iter().map(caption).collect()).collect())
    }

    fn texts(candidates: &Candidates) -> Vec<Vec<String>> {
        candidates.clone().ranked().into_iter().map(|own| own.into_iter().map(|c| c.text).collect()).collect()
    }

    #[test]
    fn what_people_say_of_such_photos_counts() {
        let said = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let sentences = vec![said(&["a dog runs in snow", "a dog jumps in snow"]), said(&["a man rides a bike"])];
        let neighbours = Neighbours { frequencies: DocumentFrequencies::of(&sentences), sentences };
        // CIDEr-D of a sentence with itself is 10; with one of the two it shares "dog", "in snow" and more.
        assert!((neighbours.agreement(1, "a man rides a bike") - 10.0).abs() < 1e-9);
        let own = neighbours.agreement(0, "a dog runs in snow");
        assert!(own > 5.0 && own < 10.0, "{own}");
        assert_eq!(neighbours.agreement(1, "a dog runs in snow"), 0.0);

        let both = [("a man rides a bike", -6.0), ("a dog runs in snow", -9.0)];
        let mut own = candidates(&[&both, &both]);
        assert_eq!(texts(&own), [[both[0].0, both[1].0], [both[0].0, both[1].0]]);
        own.agree(&neighbours, 0.2);
        assert_eq!(texts(&own), [[both[1].0, both[0].0], [both[0].0, both[1].0]]);
    }

    #[test]
    fn equals_stay_as_they_were_found() {
        let own = candidates(&[&[("a b", -3.0), ("c d", -3.0), ("e f g", -2.0)]]);
        assert_eq!(texts(&own), [["e f g", "a b", "c d"]]);
    }
}
