//! The caption model as it learns: by likelihood, or from the rewards of its own sentences.

use rand::seq::SliceRandom;
use sightline_data::Vocabulary;
use sightline_data::store::FeatureStore;
use sightline_model::caption::{
    BeamSettings, Generator, Loss, Pictures, Said, SampleSettings, beam_search, gradients, in_chunks, log_likelihoods,
    sample,
};
use sightline_model::random::{self, Dropout};
use sightline_model::weights::Weights;

use super::items::{Item, Sight};
use super::reward::{References, advantages};
use crate::Result;
use crate::checkpoint::MatchFloors;
use crate::optimizer::Learnt;
use crate::settings::{Baseline, CaptionRunSettings, KeepBestBy};
use crate::trainer::{BATCHES_STREAM, Learner, Validation};

/// Random streams of sampled sentences; one a step and picture.
const SAMPLES_STREAM: u64 = 1 << 40;
/// More pictures than a batch ever has.
const MOST_PICTURES: u64 = 1 << 20;

/// Pictures validated at once.
const CHUNK: usize = 64;

pub(super) struct CaptionLearner<'a> {
    generator: Box<dyn Generator>,
    learnt: Learnt,
    settings: &'a CaptionRunSettings,
    vocabulary: &'a Vocabulary,
    sight: Sight,
    store: &'a FeatureStore,
    items: &'a [Item],
    /// Where the model learns from rewards.
    rewards: Option<&'a References>,
    validation: &'a [Item],
    validation_references: Option<&'a References>,
}

impl<'a> CaptionLearner<'a> {
    pub(super) fn new(
        weights: Weights,
        settings: &'a CaptionRunSettings,
        vocabulary: &'a Vocabulary,
        sight: Sight,
        store: &'a FeatureStore,
    ) -> Self {
        Self {
            generator: settings.model.generator(),
            learnt: Learnt::new(weights, settings.average),
            settings,
            vocabulary,
            sight,
            store,
            items: &[],
            rewards: None,
            validation: &[],
            validation_references: None,
        }
    }

    /// What to learn from and what to validate on.
    pub(super) fn read(
        &mut self,
        items: &'a [Item],
        rewards: Option<&'a References>,
        validation: &'a [Item],
        validation_references: &'a References,
    ) {
        (self.items, self.rewards, self.validation) = (items, rewards, validation);
        self.validation_references = Some(validation_references);
    }

    /// Gradients of people's sentences: the loss a sentence, to be minimised.
    fn likelihood(&self, items: &[&Item], dropout: &mut Dropout) -> (f64, Weights) {
        let pictures = self.sight.items(self.store, items.iter().copied());
        let (sentences, of) = flatten(items.iter().map(|item| item.sentences.iter().map(Vec::as_slice)));
        let targets: usize = sentences.iter().map(|words| words.len() + 1).sum();
        let weights = vec![1.0 / sentences.len() as f32; targets];
        let loss = Loss { weights: Some(&weights), smoothing: self.settings.label_smoothing };
        let said = Said { sentences: &sentences, pictures: &of };
        gradients(&*self.generator, &self.learnt.weights, &pictures, said, &loss, dropout)
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
        let (_, found) = gradients(&*self.generator, &self.learnt.weights, &pictures, said, &loss, dropout);
        (-sum / n_samples, found)
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
        let mut order: Vec<usize> = (0..self.items.len()).collect();
        order.shuffle(&mut random::stream(self.settings.seed, BATCHES_STREAM + epoch));
        let mut batches: Vec<Vec<usize>> = Vec::new();
        let mut sentences = usize::MAX;
        for picture in order {
            let own = self.items[picture].sentences.len();
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
        let items: Vec<&Item> = batch.iter().map(|&i| &self.items[i]).collect();
        let (loss, found) = match self.rewards {
            None => self.likelihood(&items, dropout),
            Some(references) => self.self_critical(references, &items, dropout, step),
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
        for chunk in self.validation.chunks(CHUNK) {
            let pictures = self.sight.items(self.store, chunk.iter());
            let (sentences, of) = flatten(chunk.iter().map(|item| item.sentences.iter().map(Vec::as_slice)));
            let said = Said { sentences: &sentences, pictures: &of };
            let found = log_likelihoods(&*self.generator, weights, &pictures, said);
            log_likelihood += found.iter().map(|&l| f64::from(l)).sum::<f64>();
            tokens += found.len();
            greedy.extend(self.greedy(weights, &pictures, self.settings.self_critical.max_words));
        }
        let perplexity = (-log_likelihood / tokens.max(1) as f64).exp();
        let references = self.validation_references.expect("what to validate on");
        let cider = references.mean(self.validation, greedy.iter().map(Vec::as_slice), self.vocabulary);
        let score = match self.settings.keep_best_by {
            KeepBestBy::Perplexity => -perplexity,
            KeepBestBy::Cider => cider,
        };
        Ok(Validation {
            score,
            text: format!("perplexity {perplexity:.2}, greedy CIDEr {:.1}", 100.0 * cider),
            record: serde_json::json!({ "perplexity": perplexity, "greedy_cider": cider }),
            match_floors: MatchFloors::default(),
        })
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
