//! Teachers: trained alignment models whose scores another learns from, besides the truth about which sentence is whose
//! (distillation, Hinton et al. 2015). They may read other vectors than the student, of a larger backbone say, and know
//! other words.

use sightline_data::Split;
use sightline_data::store::FeatureStore;
use sightline_model::Sentence;
use sightline_model::alignment::{Objective, Teaching};

use crate::aligner::Aligner;
use crate::corpus::{Corpus, CorpusPhoto, Hand};
use crate::settings::TeachingSettings;
use crate::{Error, Result};

/// A trained model, and the vectors of the student's training photos that it reads.
#[derive(Debug, Clone, Copy)]
pub struct Teacher<'a> {
    /// The model.
    pub aligner: &'a Aligner,
    /// Its vectors.
    pub store: &'a FeatureStore,
}

/// Photos, evenly spread, whose scores with each other's sentences tell a teacher's deviation.
const SAMPLE: usize = 128;

/// All teachers of one training.
pub(crate) struct Teachers<'a> {
    members: Vec<Member<'a>>,
    share: f32,
    /// On the sum of the members' scores.
    factor: f32,
}

struct Member<'a> {
    aligner: &'a Aligner,
    store: &'a FeatureStore,
    /// The student's photos, in its order, with the words that this teacher knows.
    photos: Vec<CorpusPhoto>,
    /// Brings its scores to deviation 1.
    factor: f32,
}

impl<'a> Teachers<'a> {
    /// Those of a training on `corpus`; none where none are given.
    pub(crate) fn new(
        teachers: &[Teacher<'a>],
        corpus: &Corpus<'a>,
        settings: &TeachingSettings,
        objective: Objective,
    ) -> Result<Option<Self>> {
        let wrong = |message: String| Err(Error::Setting(message));
        let &TeachingSettings { share, sharpness } = settings;
        if !(0.0..=1.0).contains(&share) || sharpness <= 0.0 || !sharpness.is_finite() {
            return wrong(format!(
                "teaching.share = {share} must lie from 0 to 1, and teaching.sharpness = {sharpness} above 0"
            ));
        }
        match (teachers.is_empty(), share > 0.0) {
            (true, false) => return Ok(None),
            (true, true) => {
                return wrong(format!(
                    "teaching.share = {share} wants a teacher; name one with --teacher, or set teaching.share=0"
                ));
            }
            (false, false) => {
                return wrong("nothing is learned from a teacher at teaching.share = 0; set teaching.share=0.5".into());
            }
            (false, true) if !objective.takes_teaching() => {
                return wrong(
                    "teachers are heard by models whose model.objective is contrastive or instance alone; train one such, \
                     or leave --teacher out"
                        .into(),
                );
            }
            (false, true) => {}
        }
        let members = teachers.iter().map(|teacher| Member::new(*teacher, corpus)).collect::<Result<Vec<_>>>()?;
        let mut own = Self { members, share, factor: 1.0 };
        let n = corpus.photos.len();
        for member in &mut own.members {
            let said = |photo: usize| {
                let known = member.photos[photo].sentences.iter().position(|words| !words.is_empty())?;
                Some(Hand { photo, sentences: vec![known] })
            };
            let sample: Vec<Hand> = (0..n).step_by(n.div_ceil(SAMPLE)).filter_map(said).collect();
            let deviation = deviation(&member.scores(&sample));
            if deviation <= 1e-6 || !deviation.is_finite() {
                return Err(Error::Mismatch(format!(
                    "a teacher that reads {} tells the training photos' sentences not apart (the deviation of its scores \
                     is {deviation}); is it of another language or dataset? Leave it out",
                    member.store.path().display()
                )));
            }
            member.factor = 1.0 / deviation;
        }
        // Those of one scale, brought to deviation 1 together.
        let hand =
            |photo: usize| (!corpus.photos[photo].sentences.is_empty()).then(|| Hand { photo, sentences: vec![0] });
        let sample: Vec<Hand> = (0..n).step_by(n.div_ceil(SAMPLE)).filter_map(hand).collect();
        own.factor = sharpness / deviation(&own.teach(&sample).logits).max(1e-6);
        Ok(Some(own))
    }

    /// What they say of some photos and sentences of the student's corpus.
    pub(crate) fn teach(&self, hands: &[Hand]) -> Teaching {
        let mut logits: Vec<f32> = Vec::new();
        for member in &self.members {
            let scores = member.scores(hands);
            logits.resize(scores.len(), 0.0);
            logits.iter_mut().zip(scores).for_each(|(sum, score)| *sum += self.factor * member.factor * score);
        }
        Teaching { logits, share: self.share }
    }
}

impl<'a> Member<'a> {
    fn new(Teacher { aligner, store }: Teacher<'a>, corpus: &Corpus<'a>) -> Result<Self> {
        aligner.check_reads_words()?;
        aligner.check(store)?;
        let known = Corpus::new(corpus.dataset, Split::Train, store, &aligner.vocabulary)?;
        let mut known = known.photos.into_iter().peekable();
        // Both lists are in the dataset's order.
        let of_student = |photo: &CorpusPhoto| {
            while known.next_if(|own| own.image < photo.image).is_some() {}
            known.next_if(|own| own.image == photo.image).ok_or_else(|| {
                Error::Mismatch(format!(
                    "the teacher's vectors in {} lack {}; make them of all training photos with `sightline features`",
                    store.path().display(),
                    corpus.key(photo)
                ))
            })
        };
        let photos = corpus.photos.iter().map(of_student).collect::<Result<_>>()?;
        Ok(Self { aligner, store, photos, factor: 1.0 })
    }

    /// `[photos, sentences]` of these hands, row-major.
    fn scores(&self, hands: &[Hand]) -> Vec<f32> {
        let photo = |hand: &Hand| &self.photos[hand.photo];
        let positions: Vec<usize> = hands.iter().map(|hand| photo(hand).position).collect();
        let sentences: Vec<Sentence<'_>> =
            hands.iter().flat_map(|hand| hand.sentences.iter().map(move |&s| photo(hand).sentence(s))).collect();
        if sentences.iter().all(|sentence| sentence.words.is_empty()) {
            return vec![0.0; hands.len() * sentences.len()]; // nothing that it knows was said
        }
        self.aligner.scores(&self.aligner.regions(self.store, &positions), &self.aligner.words(sentences))
    }
}

fn deviation(values: &[f32]) -> f32 {
    let n = values.len() as f64;
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    variance.sqrt() as f32
}
