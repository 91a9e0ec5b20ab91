//! Training of the alignment model.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use sightline_data::parses::Parses;
use sightline_data::store::FeatureStore;
use sightline_data::{Dataset, Split, Vocabulary};
use sightline_model::SentenceBatch;
use sightline_model::alignment::{
    AlignmentModel, AlignmentSettings, BatchTruth, Noise, Objective, Pairing, RegionBatch, RegionEncoder, Score,
    SentenceEncoder, Sizes, Teaching, WordVectors,
};
use sightline_model::decode;
use sightline_model::random::{self, Dropout};
use sightline_model::weights::Weights;

use crate::aligner::parses_wanted;
use crate::checkpoint::{Findings, Header, Kind, MatchFloors, Progress};
use crate::corpus::{Corpus, CorpusPhoto, Hand, region_batch, training_vocabulary};
use crate::evaluate::{Encoded, Scores};
use crate::optimizer::LearntModule;
use crate::pointing::PriorWeights;
use crate::run::RunFolder;
use crate::settings::{AlignSettings, at_least_one, shares};
use crate::teachers::{Teacher, Teachers};
use crate::trainer::{self, Learner, Plan, Validation, WEIGHTS_STREAM};
use crate::{Control, Error, Outcome, Result};

/// What an alignment model is trained on.
#[derive(Debug, Clone, Copy)]
pub struct AlignData<'a> {
    /// Photos and what is said of them.
    pub dataset: &'a Dataset,
    /// Vectors of the photos' regions.
    pub store: &'a FeatureStore,
    /// Dependency trees of the sentences, for [`SentenceEncoder::DependencyEdges`] and no other encoder.
    pub parses: Option<&'a Parses>,
    /// Trained models that it learns from besides; [`AlignSettings::teaching`] says how.
    pub teachers: &'a [Teacher<'a>],
}

impl<'a> AlignData<'a> {
    /// Without dependency trees and teachers.
    pub fn new(dataset: &'a Dataset, store: &'a FeatureStore) -> Self {
        Self { dataset, store, parses: None, teachers: &[] }
    }
}

/// Trains an alignment model on the training split, keeping the best by rsum on the validation split.
///
/// With `resume`, goes on from the run's last checkpoint, bit for bit as if it had never stopped.
pub fn train(
    data: AlignData<'_>,
    settings: &AlignSettings,
    run: &RunFolder,
    resume: bool,
    device: &Device,
    control: &mut Control<'_>,
) -> Result<Outcome> {
    let AlignData { dataset, store, parses, teachers } = data;
    check(settings)?;
    let vocabulary = training_vocabulary(dataset, settings.min_count)?;
    let conv = &settings.model.conv;
    if settings.model.encoder == RegionEncoder::Conv && store.dim() != conv.pixels() {
        return Err(Error::Mismatch(format!(
            "model.encoder = conv reads crops of {0}x{0} pixels, {1} numbers a region, but {2} has {3}; extract them with \
             `features --backbone pixels`, or leave model.encoder at none",
            conv.side,
            conv.pixels(),
            store.path().display(),
            store.dim()
        )));
    }
    let mut corpus = Corpus::new(dataset, Split::Train, store, &vocabulary)?;
    let mut validation = Corpus::new(dataset, Split::Val, store, &vocabulary)?;
    let mut relations = Vec::new();
    match (parses, settings.model.sentence_encoder) {
        (Some(parses), SentenceEncoder::DependencyEdges) => {
            relations = corpus.frequent_relations(parses, settings.min_relation_count);
            corpus = corpus.with_parses(parses, &relations, &vocabulary)?;
            validation = validation.with_parses(parses, &relations, &vocabulary)?;
        }
        (None, SentenceEncoder::DependencyEdges) => return Err(parses_wanted()),
        (Some(parses), _) => {
            return Err(Error::Setting(format!(
                "{} is read by model.sentence_encoder = dependency_edges alone; set that, or leave --parses out",
                parses.path().display()
            )));
        }
        (None, _) => {}
    }
    let taught = Teachers::new(teachers, &corpus, &settings.teaching, settings.model.objective)?;
    let device = device.clone().autodiff();
    let mut rng = random::stream(settings.seed, WEIGHTS_STREAM);
    let sizes = Sizes {
        features: store.dim(),
        vocab: vocabulary.len(),
        photos: corpus.photos.len(),
        relations: relations.len() + 1,
    };
    let mut model = AlignmentModel::new(&settings.model, sizes, &mut rng, &device);
    if settings.model.standardize {
        let (mean, deviation) = corpus.feature_statistics();
        model.set_standard(&mean, &deviation);
    }
    if !settings.word_vectors_from.is_empty() {
        start_word_vectors(&mut model, settings, &vocabulary)?;
    }
    let header = Header {
        kind: Kind::Alignment,
        settings: serde_json::to_value(settings).expect("settings are plain data"),
        vocabulary,
        relations,
        teachers: teachers.iter().map(|teacher| teacher.aligner.checksum.clone()).collect(),
        phrases: None,
        photos: vec![corpus.digest(), validation.digest()],
        features: store.settings().clone(),
        progress: Progress::default(),
    };
    let learnt = LearntModule::new(model, settings.average);
    let mut learner = AlignLearner { learnt, corpus, validation, teachers: taught, settings, device };
    let plan = Plan {
        seed: settings.seed,
        epochs: settings.epochs,
        dropout: settings.model.dropout,
        optimizer: &settings.optimizer,
        run,
        header,
        resume,
    };
    trainer::run(&mut learner, plan, control)
}

/// Settings that no training can follow.
fn check(settings: &AlignSettings) -> Result<()> {
    let AlignSettings { epochs, batch, captions_per_photo, average, ref model, .. } = *settings;
    let wrong = |message: String| Err(Error::Setting(message));
    settings.optimizer.check()?;
    if model.encoder == RegionEncoder::Conv && model.standardize {
        return wrong(
            "model.standardize = true goes with vectors of a store; the numbers that model.encoder = conv makes change as it \
             learns: leave it at false"
                .into(),
        );
    }
    if model.word_vectors == WordVectors::Frozen && settings.word_vectors_from.is_empty() {
        return wrong("model.word_vectors = frozen keeps vectors from a file; name it with word_vectors_from".into());
    }
    at_least_one(&[
        ("epochs", epochs as usize),
        ("batch", batch),
        ("captions_per_photo", captions_per_photo),
        ("model.dim", model.dim),
        ("model.hidden", model.hidden),
        ("model.word_dim", model.word_dim),
    ])?;
    shares(&[("average", average), ("model.dropout", model.dropout), ("model.word_dropout", model.word_dropout)])?;
    for (name, value) in [("model.initial_scale", model.initial_scale), ("model.logit_scale", model.logit_scale)] {
        if !(value > 0.0 && value.is_finite()) {
            return wrong(format!("{name} = {value}: expected a number above 0"));
        }
    }
    if let Some(sharpness) = model.attention_sharpness {
        if !(sharpness > 0.0 && sharpness.is_finite()) {
            return wrong(format!("model.attention_sharpness = {sharpness}: expected a number above 0"));
        }
        if !model.score.attends() {
            return wrong(
                "model.attention_sharpness is for the scores soft_attention and soft_attention_over_words; leave it out"
                    .into(),
            );
        }
    }
    if model.whole && !matches!(model.score, Score::MaxOverRegions | Score::MeanOfMax) {
        return wrong(
            "model.whole adds to the scores max_over_regions and mean_of_max alone; set model.whole=false".into(),
        );
    }
    Ok(())
}

/// Puts the vectors of a file in place of the random ones.
fn start_word_vectors(model: &mut AlignmentModel, settings: &AlignSettings, vocabulary: &Vocabulary) -> Result<()> {
    let path = Path::new(&settings.word_vectors_from);
    let vectors = sightline_data::word_vectors::read_word_vectors(path, vocabulary)?;
    if vectors.dim != settings.model.word_dim {
        return Err(Error::Mismatch(format!(
            "{}: vectors of {dim} numbers, and model.word_dim is {}; set model.word_dim={dim}",
            path.display(),
            settings.model.word_dim,
            dim = vectors.dim
        )));
    }
    if vectors.by_word.is_empty() {
        return Err(Error::Mismatch(format!("{}: none of the training sentences' words is in it", path.display())));
    }
    let rows = vectors.by_word.iter().filter_map(|(word, vector)| Some((vocabulary.get(word)?, vector.as_slice())));
    model.set_word_vectors(rows);
    Ok(())
}

struct AlignLearner<'a> {
    learnt: LearntModule<AlignmentModel>,
    corpus: Corpus<'a>,
    validation: Corpus<'a>,
    teachers: Option<Teachers<'a>>,
    settings: &'a AlignSettings,
    device: Device,
}

impl Learner for AlignLearner<'_> {
    type Batch = AlignBatch;

    fn batches(&self, epoch: u64) -> Vec<AlignBatch> {
        let AlignSettings { batch, captions_per_photo, seed, .. } = *self.settings;
        let objective = match self.settings.model.objective {
            Objective::HardestNegative if epoch == 0 => Objective::SumHinge,
            objective => objective,
        };
        let batches = self.corpus.pair_batches(batch, captions_per_photo, seed, epoch);
        batches.into_iter().map(|hands| AlignBatch { hands, objective }).collect()
    }

    fn step(&mut self, batch: &AlignBatch, dropout: &mut Dropout, rate: f64, step: u64) -> (f64, f64) {
        let AlignBatch { hands, objective } = batch;
        let settings = &self.settings.model;
        let positions = hands.iter().map(|hand| self.corpus.photos[hand.photo].position);
        let regions = region_batch(self.corpus.store, positions, settings, &self.device.clone().without_autodiff());
        let teaching = self.teachers.as_ref().map(|teachers| teachers.teach(hands));
        let shown = Shown { corpus: &self.corpus, hands, regions, teaching };
        let (loss, divisor) = loss_of(self.learnt.module(), settings, *objective, shown, dropout);
        let gradients = loss.backward();
        let loss = f64::from(loss.into_scalar::<f32>());
        if loss.is_finite() {
            self.learnt.step(gradients, &self.settings.optimizer, rate, step);
        }
        (loss, divisor)
    }

    fn validate(&self) -> Result<Validation> {
        Ok(validation_of(&self.learnt.in_use(), &self.settings.model, &self.validation))
    }

    fn export(&self) -> (Weights, Weights) {
        self.learnt.export()
    }

    fn export_for_use(&self) -> Weights {
        self.learnt.export_for_use()
    }

    fn import(&mut self, model: Weights, optimizer: Weights) -> Result<(), String> {
        self.learnt.import(model, optimizer)
    }
}

/// What an alignment model is shown in a step.
pub(crate) struct Shown<'a> {
    pub(crate) corpus: &'a Corpus<'a>,
    /// Photos of the corpus, and sentences of each.
    pub(crate) hands: &'a [Hand],
    /// The regions of these photos, in the same order.
    pub(crate) regions: RegionBatch,
    /// What other models say of every pair.
    pub(crate) teaching: Option<Teaching>,
}

/// The loss of what is shown, and what to divide it by for a figure a sentence.
pub(crate) fn loss_of(
    model: &AlignmentModel,
    settings: &AlignmentSettings,
    objective: Objective,
    Shown { corpus, hands, regions, teaching }: Shown<'_>,
    dropout: &mut Dropout,
) -> (Tensor<1>, f64) {
    let pairs = || hands.iter().enumerate().flat_map(|(i, hand)| hand.sentences.iter().map(move |&s| (i, hand, s)));
    let sentences = SentenceBatch::new(pairs().map(|(_, hand, s)| corpus.photos[hand.photo].sentence(s)));
    let of_sentence = |(i, (_, hand, s)): (usize, (usize, &Hand, usize))| {
        corpus.others_of(hand.photo, s).map(move |photo| [i, photo])
    };
    let other_classes: Vec<[usize; 2]> = pairs().enumerate().flat_map(of_sentence).collect();
    let in_batch = |&[sentence, photo]: &[usize; 2]| {
        hands.iter().position(|hand| hand.photo == photo).map(|image| [image, sentence])
    };
    let truth = BatchTruth {
        pairing: Pairing::new(hands.len(), pairs().map(|(image, ..)| image).collect())
            .with_others(other_classes.iter().filter_map(in_batch).collect()),
        classes: hands.iter().map(|hand| hand.photo as i64).collect(),
        other_classes,
        teaching,
    };
    let mut blank = (settings.word_dropout > 0.0).then(|| dropout.fork(settings.word_dropout));
    let noise = Noise { dropout, blank: blank.as_mut() };
    let loss = model.loss(settings, objective, regions, &sentences, &truth, Some(noise));
    let divisor = match objective {
        Objective::SumHinge | Objective::HardestNegative | Objective::Fragments => sentences.len() as f64,
        Objective::Contrastive | Objective::Instance => 1.0,
    };
    (loss, divisor)
}

/// What validation says of a model, in words and for the log.
pub(crate) fn validation_of(model: &AlignmentModel, settings: &AlignmentSettings, corpus: &Corpus<'_>) -> Validation {
    let encoded = Encoded::new(model, settings, corpus);
    let scores = encoded.scores(settings.scoring(), corpus, &model.device());
    let report = scores.report();
    let (i2s, s2i) = (&report.image_to_sentence, &report.sentence_to_image);
    let text = format!(
        "image→sentence R@1 {:.1} R@10 {:.1}, sentence→image R@1 {:.1} R@10 {:.1}, rsum {:.1}",
        i2s.r1, i2s.r10, s2i.r1, s2i.r10, report.rsum
    );
    let score = report.rsum;
    let lengths: Vec<usize> = corpus.photos.iter().flat_map(|photo| &photo.sentences).map(Vec::len).collect();
    let record = serde_json::to_value(report).expect("a report is plain data");
    let order = |photo: &CorpusPhoto| decode::order(corpus.store.get(photo.position).scores);
    let seen = corpus.photos.iter().map(|photo| (order(photo), photo.sentences.as_slice()));
    let findings = Findings {
        match_floors: match_floors(&scores, settings.score, &lengths),
        prior_weights: PriorWeights::learn(seen, &encoded.regions, &encoded.words),
    };
    Validation { score, text, record, findings }
}

/// Sizes of collections whose floors are known.
const COLLECTIONS: [usize; 6] = [10, 30, 100, 300, 1000, 3000];

/// What the best photo scores a word in 95 of 100 queries whose own photo is there, in collections of several sizes drawn
/// from the split; `lengths` are the sentences' in words. Empty where scores are no sum or mean over words.
fn match_floors(scores: &Scores, score: Score, lengths: &[usize]) -> MatchFloors {
    if !matches!(score, Score::MaxOverRegions | Score::MeanOfMax) {
        return MatchFloors::default();
    }
    let (images, sentences) = (scores.images, scores.image_of_sentence.len());
    let floor = |size: usize| {
        let mut best: Vec<f64> = Vec::with_capacity(sentences);
        for (sentence, (&length, &own)) in lengths.iter().zip(&scores.image_of_sentence).enumerate() {
            // The own photo and others, spread over the split.
            let photos = (0..size).map(|i| (own + i * images / size) % images);
            let most =
                photos.map(|photo| scores.scores[photo * sentences + sentence]).fold(f32::NEG_INFINITY, f32::max);
            let words = if score == Score::MaxOverRegions { length } else { 1 };
            if length > 0 {
                best.push(f64::from(most) / words as f64);
            }
        }
        best.sort_unstable_by(f64::total_cmp);
        best.get(best.len() / 20).map(|&floor| (size, floor))
    };
    MatchFloors(COLLECTIONS.into_iter().filter(|&size| size <= images).filter_map(floor).collect())
}

/// One step's photos and sentences, and what the step minimises over them.
struct AlignBatch {
    hands: Vec<Hand>,
    objective: Objective,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_are_what_the_best_of_so_many_score() {
        // Twenty photos with a sentence of two words each; a photo scores less the farther it is from the sentence's own.
        let n = 20;
        let score = |photo: usize, sentence: usize| 10.0 - photo.abs_diff(sentence) as f32 + sentence as f32;
        let scores = Scores {
            scores: (0..n).flat_map(|photo| (0..n).map(move |sentence| score(photo, sentence))).collect(),
            image_of_sentence: (0..n).collect(),
            others: Vec::new(),
            images: n,
        };
        // The own photo is the best, so a sentence's best is 10 and its number; one in twenty is below the second least.
        assert_eq!(match_floors(&scores, Score::MeanOfMax, &[2; 20]), MatchFloors(vec![(10, 11.0)]));
        assert_eq!(match_floors(&scores, Score::MaxOverRegions, &[2; 20]), MatchFloors(vec![(10, 5.5)]));
        assert!(match_floors(&scores, Score::SoftAttention, &[2; 20]).is_empty());
    }
}
