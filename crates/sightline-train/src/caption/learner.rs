//! The caption model as it learns: by likelihood, from the rewards of its own sentences, or to tell pictures apart.

use std::fmt::Write as _;

use rand::seq::SliceRandom;
use sightline_data::Vocabulary;
use sightline_data::store::FeatureStore;
use sightline_model::caption::{
    BeamSettings, Generator, Loss, Pictures, Said, SampleSettings, beam_search, gradients, gradients_of, in_chunks,
    log_likelihoods, sample,
};
use sightline_model::random::{self, Dropout};
use sightline_model::weights::Weights;

use super::items::{Item, Sight};
use super::reward::{References, advantages};
use super::rivals::Rivals;
use crate::Result;
use crate::checkpoint::{Findings, Kind};
use crate::optimizer::Learnt;
use crate::settings::{Baseline, CaptionObjective, CaptionRunSettings, KeepBestBy};
use crate::trainer::{BATCHES_STREAM, Learner, Validation};

/// Random streams of sampled sentences; one a step and picture.
const SAMPLES_STREAM: u64 = 1 << 40;
/// Random streams of rivals; one a step.
const RIVALS_STREAM: u64 = 1 << 41;
/// More pictures than a batch ever has.
const MOST_PICTURES: u64 = 1 << 20;

/// Pictures validated at once.
const CHUNK: usize = 64;
/// Rivals of a sentence in validation, the nearest.
const VALIDATION_RIVALS: usize = 9;

/// What is learnt from, or validated on.
pub(super) struct Lessons<'a> {
    items: &'a [Item],
    /// Where sentences are rewarded.
    references: Option<References>,
    /// Where pictures are to be told apart.
    rivals: Option<Rivals>,
}

impl<'a> Lessons<'a> {
    /// To learn from: what the objective asks for.
    pub(super) fn new(items: &'a [Item], store: &FeatureStore, kind: Kind, settings: &CaptionRunSettings) -> Self {
        let rewards = settings.objective == CaptionObjective::SelfCritical;
        let nearest = settings.mutual_information.nearest;
        let references = rewards.then(|| References::new(items));
        Self { items, references, rivals: rivals(items, store, kind, settings.objective, nearest) }
    }

    /// To validate on: references always, and pictures to be told from their nearest rivals.
    pub(super) fn to_check(items: &'a [Item], store: &FeatureStore, kind: Kind, settings: &CaptionRunSettings) -> Self {
        let rivals = rivals(items, store, kind, settings.objective, VALIDATION_RIVALS);
        Self { items, references: Some(References::new(items)), rivals }
    }
}

/// Rivals where the objective asks for them.
fn rivals(
    items: &[Item],
    store: &FeatureStore,
    kind: Kind,
    objective: CaptionObjective,
    nearest: usize,
) -> Option<Rivals> {
    (objective == CaptionObjective::MutualInformation).then(|| match kind {
        Kind::RegionCaption => Rivals::of_regions(items),
        _ => Rivals::of_photos(items, store, nearest),
    })
}

pub(super) struct CaptionLearner<'a> {
    generator: Box<dyn Generator>,
    learnt: Learnt,
    settings: &'a CaptionRunSettings,
    vocabulary: &'a Vocabulary,
    sight: Sight,
    store: &'a FeatureStore,
    training: Lessons<'a>,
    validation: Lessons<'a>,
}

impl<'a> CaptionLearner<'a> {
    pub(super) fn new(
        weights: Weights,
        settings: &'a CaptionRunSettings,
        vocabulary: &'a Vocabulary,
        sight: Sight,
        store: &'a FeatureStore,
        training: Lessons<'a>,
        validation: Lessons<'a>,
    ) -> Self {
        let learnt = Learnt::new(weights, settings.average);
        Self { generator: settings.model.generator(), learnt, settings, vocabulary, sight, store, training, validation }
    }

    /// Gradients of people's sentences: the loss a sentence, to be minimised.
    fn likelihood(&self, items: &[&Item], dropout: &mut Dropout) -> (f64, Weights) {
        let pictures = self.sight.items(self.store, items.iter().copied());
        let (sentences, of) = flatten(items.iter().map(|item| item.sentences.iter().map(Vec::as_slice)));
        let targets: usize = sentences.iter().map(|words| words.len() + 1).sum();
        let weights = vec![1.0 / sentences.len() as f32; targets];
        let loss = Loss { weights: Some(&weights), smoothing: self.settings.label_smoothing };
        let said = Said { sentences: &sentences, pictures: &of };
        gradients(&*self.generator, &self.learnt.weights, &pictures, said, &loss, dropout, self.settings.precision)
    }

    /// Gradients of the mean reward of sampled sentences; minus that mean. Samples that are worth more than their
    /// baseline become likelier, the others less likely.
    fn self_critical(
        &self,
        references: &References,
        items: &[&Item],
        dropout: &mut Dropout,
        step: u64,
    ) -> (f64, Weights) {
        let settings = &self.settings.self_critical;
        let pictures = self.sight.items(self.store, items.iter().copied());
        let how =
            SampleSettings { samples: settings.samples, max_words: settings.max_words, ..SampleSettings::default() };
        let sampled = in_chunks(&*self.generator, &self.learnt.weights, None, &pictures, |source, range| {
            let stream = |picture: usize| SAMPLES_STREAM + step * MOST_PICTURES + picture as u64;
            let mut rngs: Vec<_> = range.map(|p| random::stream(self.settings.seed, stream(p))).collect();
            sample(source, &mut rngs, how)
        });
        let greedy = match settings.baseline {
            Baseline::OtherSamples => None,
            Baseline::Greedy => Some(self.greedy(&self.learnt.weights, &pictures, settings.max_words)),
        };
        let n_samples = (items.len() * settings.samples) as f64;
        let (mut sum, mut weights) = (0.0, Vec::new());
        for (i, (item, own)) in items.iter().zip(&sampled).enumerate() {
            let reward = |words: &[u32]| references.reward(item, words, self.vocabulary);
            let rewards: Vec<f64> = own.iter().map(|h| reward(&h.words)).collect();
            sum += rewards.iter().sum::<f64>();
            let baseline = greedy.as_ref().map(|greedy| reward(&greedy[i]));
            for (h, advantage) in own.iter().zip(advantages(&rewards, baseline)) {
                weights.extend(std::iter::repeat_n((advantage / n_samples) as f32, h.words.len() + 1));
            }
        }
        let (sentences, of) = flatten(sampled.iter().map(|own| own.iter().map(|h| h.words.as_slice())));
        let loss = Loss { weights: Some(&weights), smoothing: 0.0 };
        let said = Said { sentences: &sentences, pictures: &of };
        let (_, found) =
            gradients(&*self.generator, &self.learnt.weights, &pictures, said, &loss, dropout, self.settings.precision);
        (-sum / n_samples, found)
    }

    /// Gradients of the probability of each sentence's own picture among rivals: the loss a sentence.
    fn mutual_information(&self, rivals: &Rivals, batch: &[usize], dropout: &mut Dropout, step: u64) -> (f64, Weights) {
        let settings = &self.settings.mutual_information;
        let mut rng = random::stream(self.settings.seed, RIVALS_STREAM + step);
        let choices = rivals.choices(self.training.items, batch, settings.rivals, Some(&mut rng));
        let pictures = self.sight.items(self.store, choices.pictures.iter().map(|&i| &self.training.items[i]));
        let mut loss = 0.0;
        let weigh = |tokens: &[f32]| {
            let (own, weights) = choices.loss(tokens, settings.sharpness, settings.likelihood);
            loss = own;
            weights
        };
        let found = gradients_of(
            &*self.generator,
            &self.learnt.weights,
            &pictures,
            choices.said(),
            weigh,
            dropout,
            self.settings.precision,
        );
        (loss, found)
    }

    /// Share of the validation sentences that are likelier of their own picture than of its nearest rivals.
    fn choice(&self, rivals: &Rivals, weights: &Weights) -> f64 {
        let (mut sentences, mut right) = (0, 0);
        let items: Vec<usize> = (0..self.validation.items.len()).collect();
        for chunk in items.chunks(CHUNK) {
            let choices = rivals.choices(self.validation.items, chunk, VALIDATION_RIVALS, None);
            let pictures = self.sight.items(self.store, choices.pictures.iter().map(|&i| &self.validation.items[i]));
            let own = choices.right(&log_likelihoods(&*self.generator, weights, &pictures, choices.said()));
            (sentences, right) = (sentences + own.0, right + own.1);
        }
        right as f64 / sentences.max(1) as f64
    }

    fn greedy(&self, weights: &Weights, pictures: &Pictures, max_words: usize) -> Vec<Vec<u32>> {
        let how = BeamSettings { beam: 1, max_words, repeats_trigrams: true, ..BeamSettings::default() };
        in_chunks(&*self.generator, weights, None, pictures, |source, range| {
            beam_search(source, range.len(), how).into_iter().map(|mut best| best.swap_remove(0).words).collect()
        })
    }
}

/// All sentences with the index of each one's picture.
fn flatten<'s, S: Iterator<Item = &'s [u32]>>(of_pictures: impl Iterator<Item = S>) -> (Vec<&'s [u32]>, Vec<usize>) {
    of_pictures.enumerate().flat_map(|(picture, sentences)| sentences.map(move |words| (words, picture))).unzip()
}

impl Learner for CaptionLearner<'_> {
    type Batch = Vec<usize>;

    /// Pictures in random order, until their sentences reach the batch's size.
    fn batches(&self, epoch: u64) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.training.items.len()).collect();
        order.shuffle(&mut random::stream(self.settings.seed, BATCHES_STREAM + epoch));
        let mut batches: Vec<Vec<usize>> = Vec::new();
        let mut sentences = usize::MAX;
        for picture in order {
            let own = self.training.items[picture].sentences.len();
            if sentences.saturating_add(own) > self.settings.batch {
                batches.push(Vec::new());
                sentences = 0;
            }
            sentences += own;
            batches.last_mut().expect("one was just opened").push(picture);
        }
        batches
    }

    fn step(&mut self, batch: &Vec<usize>, dropout: &mut Dropout, rate: f64, step: u64) -> (f64, f64) {
        let items: Vec<&Item> = batch.iter().map(|&i| &self.training.items[i]).collect();
        let (loss, found) = match (&self.training.references, &self.training.rivals) {
            (Some(references), _) => self.self_critical(references, &items, dropout, step),
            (None, Some(rivals)) => self.mutual_information(rivals, batch, dropout, step),
            (None, None) => self.likelihood(&items, dropout),
        };
        if loss.is_finite() {
            self.learnt.step(&found, &self.settings.optimizer, rate, step);
        }
        (loss, 1.0)
    }

    fn validate(&self) -> Result<Validation> {
        let weights = self.learnt.in_use();
        let (mut log_likelihood, mut tokens) = (0.0, 0);
        let mut greedy = Vec::new();
        for chunk in self.validation.items.chunks(CHUNK) {
            let pictures = self.sight.items(self.store, chunk.iter());
            let (sentences, of) = flatten(chunk.iter().map(|item| item.sentences.iter().map(Vec::as_slice)));
            let said = Said { sentences: &sentences, pictures: &of };
            let found = log_likelihoods(&*self.generator, weights, &pictures, said);
            log_likelihood += found.iter().map(|&l| f64::from(l)).sum::<f64>();
            tokens += found.len();
            greedy.extend(self.greedy(weights, &pictures, self.settings.self_critical.max_words));
        }
        let perplexity = (-log_likelihood / tokens.max(1) as f64).exp();
        let greedy = greedy.iter().map(Vec::as_slice);
        let references = self.validation.references.as_ref().expect("validation has references");
        let cider = references.mean(self.validation.items, greedy, self.vocabulary);
        let choice = self.validation.rivals.as_ref().map(|rivals| self.choice(rivals, weights));
        let score = match self.settings.keep_best_by {
            KeepBestBy::Perplexity => -perplexity,
            KeepBestBy::Cider => cider,
            KeepBestBy::Choice => choice.unwrap_or_default(),
        };
        let mut text = format!("perplexity {perplexity:.2}, greedy CIDEr {:.1}", 100.0 * cider);
        let mut record = serde_json::json!({ "perplexity": perplexity, "greedy_cider": cider });
        if let Some(choice) = choice {
            write!(text, ", own picture among {} likeliest for {:.1} %", VALIDATION_RIVALS + 1, 100.0 * choice)
                .expect("a string takes all");
            record["choice"] = choice.into();
        }
        Ok(Validation { score, text, record, findings: Findings::default() })
    }

    fn export(&self) -> (Weights, Weights) {
        self.learnt.export()
    }

    fn import(&mut self, model: Weights, optimizer: Weights) -> Result<(), String> {
        self.learnt.import(model, optimizer)
    }

    fn export_for_use(&self) -> Weights {
        self.learnt.in_use().clone()
    }
}
