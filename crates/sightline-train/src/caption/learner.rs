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

/// How is learnt.
enum Lesson {
    /// From people's sentences.
    Likelihood,
    /// From the rewards of own sentences.
    SelfCritical(References),
    /// From telling pictures apart.
    MutualInformation(Rivals),
}

/// What is learnt from.
pub(super) struct Lessons<'a> {
    items: &'a [Item],
    lesson: Lesson,
}

impl<'a> Lessons<'a> {
    /// With what the objective asks for.
    pub(super) fn new(items: &'a [Item], store: &FeatureStore, kind: Kind, settings: &CaptionRunSettings) -> Self {
        let lesson = match settings.objective {
            CaptionObjective::Likelihood => Lesson::Likelihood,
            CaptionObjective::SelfCritical => Lesson::SelfCritical(References::new(items)),
            CaptionObjective::MutualInformation => {
                Lesson::MutualInformation(rivals(items, store, kind, settings.mutual_information.nearest))
            }
        };
        Self { items, lesson }
    }
}

/// What is validated on.
pub(super) struct Checks<'a> {
    items: &'a [Item],
    references: References,
    /// Where pictures are to be told apart, the nearest.
    rivals: Option<Rivals>,
}

impl<'a> Checks<'a> {
    /// With references, and rivals where the objective has some.
    pub(super) fn new(items: &'a [Item], store: &FeatureStore, kind: Kind, settings: &CaptionRunSettings) -> Self {
        let tells_apart = settings.objective == CaptionObjective::MutualInformation;
        let rivals = tells_apart.then(|| rivals(items, store, kind, VALIDATION_RIVALS));
        Self { items, references: References::new(items), rivals }
    }
}

fn rivals(items: &[Item], store: &FeatureStore, kind: Kind, nearest: usize) -> Rivals {
    match kind {
        Kind::RegionCaption => Rivals::of_regions(items),
        _ => Rivals::of_photos(items, store, nearest),
    }
}

pub(super) struct CaptionLearner<'a> {
    generator: Box<dyn Generator>,
    learnt: Learnt,
    settings: &'a CaptionRunSettings,
    vocabulary: &'a Vocabulary,
    sight: Sight,
    store: &'a FeatureStore,
    training: Lessons<'a>,
    validation: Checks<'a>,
}

impl<'a> CaptionLearner<'a> {
    pub(super) fn new(
        weights: Weights,
        settings: &'a CaptionRunSettings,
        vocabulary: &'a Vocabulary,
        sight: Sight,
        store: &'a FeatureStore,
        training: Lessons<'a>,
        validation: Checks<'a>,
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
                weights.extend(std::iter::repeat_n((advantage / n_samples) as f32, h.words.len()));
                // Nobody drew the END of a sentence that is as long as can be.
                let is_drawn = h.words.len() < settings.max_words;
                weights.push(if is_drawn { (advantage / n_samples) as f32 } else { 0.0 });
            }
        }
        let (sentences, of) = flatten(sampled.iter().map(|own| own.iter().map(|h| h.words.as_slice())));
        let loss = Loss { weights: Some(&weights), smoothing: 0.0 };
        let said = Said { sentences: &sentences, pictures: &of };
        let (surrogate, found) =
            gradients(&*self.generator, &self.learnt.weights, &pictures, said, &loss, dropout, self.settings.precision);
        // Rewards are numbers whatever the weights have become.
        (if surrogate.is_finite() { -sum / n_samples } else { surrogate }, found)
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
        let (loss, found) = match &self.training.lesson {
            Lesson::Likelihood => self.likelihood(&items, dropout),
            Lesson::SelfCritical(references) => self.self_critical(references, &items, dropout, step),
            Lesson::MutualInformation(rivals) => self.mutual_information(rivals, batch, dropout, step),
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
        let cider = self.validation.references.mean(self.validation.items, greedy, self.vocabulary);
        let choice = self.validation.rivals.as_ref().map(|rivals| self.choice(rivals, weights));
        let score = match (self.settings.keep_best_by, self.settings.objective) {
            (KeepBestBy::Perplexity, _) | (KeepBestBy::Objective, CaptionObjective::Likelihood) => -perplexity,
            (KeepBestBy::Cider, _) | (KeepBestBy::Objective, CaptionObjective::SelfCritical) => cider,
            (KeepBestBy::Choice, _) | (KeepBestBy::Objective, CaptionObjective::MutualInformation) => {
                choice.unwrap_or_default()
            }
        };
        let mut text = format!("perplexity {perplexity:.2}, greedy CIDEr {:.1}", 100.0 * cider);
        let mut record = serde_json::json!({ "perplexity": perplexity, "greedy_cider": cider });
        if let Some(choice) = choice {
            write!(text, ", likelier of its own picture than of its rivals {:.1} %", 100.0 * choice)
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
