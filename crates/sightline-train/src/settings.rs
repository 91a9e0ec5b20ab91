//! Settings of a run: documented structs with defaults, a recipe (TOML) over them, `--set key=value` over that.
//! A key that no setting has is an error that guesses the intended one.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sightline_model::Precision;
use sightline_model::alignment::AlignmentSettings;
use sightline_model::backbone::BackboneSettings;
use sightline_model::caption::CaptionSettings;

use crate::optimizer::{OptimizerKind, OptimizerSettings, Schedule};
use crate::{Error, Result};

/// The precision of runs that do not say theirs: they were begun before there was another.
fn of_older_runs() -> Precision {
    Precision::F32
}

/// Everything that decides a run of `train align`, besides its data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlignSettings {
    /// Seed of weights, batches and dropout.
    pub seed: u64,
    /// Passes over the training pairs.
    pub epochs: u64,
    /// Sentences a step (paper: 100).
    pub batch: usize,
    /// Sentences of each photo in a step; sentences of one photo are no negatives of it (paper: 1).
    pub captions_per_photo: usize,
    /// Words seen less often in the training split are unknown (paper: 5).
    pub min_count: u64,
    /// Relations of dependency trees that stand at fewer words of the training split share one set of weights; read by
    /// `model.sentence_encoder = dependency_edges` alone.
    pub min_relation_count: u64,
    /// A file of word vectors to start from (word2vec text or binary, or GloVe); empty for none. Words that it lacks
    /// start at random; `model.word_vectors` says whether they are trained.
    pub word_vectors_from: String,
    /// Weights are averaged over steps with this decay, and the average is what is validated and kept; 0 turns it off.
    pub average: f32,
    /// What is learned from teachers, where there are any.
    pub teaching: TeachingSettings,
    /// The model.
    pub model: AlignmentSettings,
    /// The optimiser.
    pub optimizer: OptimizerSettings,
}

impl Default for AlignSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            epochs: 15,
            batch: 100,
            captions_per_photo: 1,
            min_count: 5,
            min_relation_count: 100,
            word_vectors_from: String::new(),
            average: 0.0,
            teaching: TeachingSettings::default(),
            model: AlignmentSettings::default(),
            optimizer: OptimizerSettings {
                kind: OptimizerKind::Sgd,
                learning_rate: 1e-4,
                ..OptimizerSettings::default()
            },
        }
    }
}

/// How an alignment model learns from other alignment models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TeachingSettings {
    /// Weight of what they say, from 0 to 1; the true pairs have the rest.
    pub share: f32,
    /// Factor on their scores, brought to deviation 1, before the softmax: the smaller, the more pairs share a target.
    pub sharpness: f32,
}

impl Default for TeachingSettings {
    fn default() -> Self {
        Self { share: 0.0, sharpness: 3.0 }
    }
}

/// Everything that decides a run of `train backbone`, besides its data and its teacher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackboneRunSettings {
    /// Seed of weights, views, batches and what is done to a view.
    pub seed: u64,
    /// Passes over the views.
    pub epochs: u64,
    /// So many of them, the first, show the views smaller: more passes in the same time.
    pub small_epochs: u64,
    /// Pixels along a side of a view in those; a multiple of 16, 224 at most.
    pub small_side: usize,
    /// Pictures a step: views, or mosaics of four.
    pub batch: usize,
    /// Share of the views that a pass shows four to a picture, each in a quarter of it: things are as small there as in
    /// whole photos or smaller, and a step sees four times as many views.
    pub mosaics: f32,
    /// Pixels along a side of such a picture; its quarters are as the network's pictures must be.
    pub mosaic_side: usize,
    /// Views of each photo: the photo itself and parts of it, each seen by the teacher once.
    pub views: usize,
    /// Whether views are mirrored by chance, and with them what the teacher saw.
    pub flip: bool,
    /// How far brightness, contrast and saturation are changed by chance; 0 leaves colours alone.
    pub colour: f32,
    /// Weight of the whole view's vector beside the mean over the cells'.
    pub global_weight: f32,
    /// Whether only the last layer learns for the whole view's vector, from what the others learn for cells and objects:
    /// a network that learns for it knows the vectors of its photos by heart before long (docs/log.md).
    pub global_apart: bool,
    /// Weight of what is said about objects.
    pub objects_weight: f32,
    /// Weights are averaged over steps with this decay, and the average is what is validated and kept; 0 turns it off.
    pub average: f32,
    /// How exactly large matrices are multiplied on the way to gradients: `f32`, or `bf16`, in about half the time where
    /// the processor has AVX-512 with BF16, as `f32` elsewhere. Steps of Muon are rounded in any case.
    #[serde(default = "of_older_runs")]
    pub precision: Precision,
    /// The network.
    pub model: BackboneSettings,
    /// The optimiser.
    pub optimizer: OptimizerSettings,
}

impl Default for BackboneRunSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            epochs: 8,
            small_epochs: 7,
            small_side: 160,
            batch: 16,
            mosaics: 0.0,
            mosaic_side: 256,
            views: 6,
            flip: true,
            colour: 0.3,
            global_weight: 1.0,
            global_apart: false,
            objects_weight: 1.0,
            average: 0.999,
            precision: Precision::Bf16,
            model: BackboneSettings::default(),
            optimizer: OptimizerSettings {
                kind: OptimizerKind::Muon,
                learning_rate: 4e-3,
                schedule: Schedule::Cosine,
                warmup_steps: 200,
                momentum: 0.95,
                weight_decay: 0.02,
                clip: 0.0,
                ..OptimizerSettings::default()
            },
        }
    }
}

/// Settings of tuning a backbone and an alignment model together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TuneRunSettings {
    /// Seed of batches, of dropout, and of what is done to a photo.
    pub seed: u64,
    /// Passes over the training pairs.
    pub epochs: u64,
    /// Sentences a step; the networks of all their photos are in memory at once.
    pub batch: usize,
    /// Sentences of each photo in a step: a photo is computed once for all of them.
    pub captions_per_photo: usize,
    /// The part of a photo that a step shows has at least this share of it.
    pub least_area: f32,
    /// Whether photos are mirrored by chance; never where a sentence says left or right.
    pub flip: bool,
    /// How far brightness, contrast and saturation are changed by chance; 0 leaves colours alone.
    pub colour: f32,
    /// Probability that a step leaves out the last block's parts of a vision transformer; earlier ones' grow up to it.
    pub drop_path: f32,
    /// Weight of what the small backbone said about objects before, so that it goes on saying so.
    pub objects_weight: f32,
    /// The backbone's learning rate, as a share of the alignment model's.
    pub backbone_rate: f64,
    /// Weights are averaged over steps with this decay, and the average is what is validated and kept; 0 turns it off.
    pub average: f32,
    /// How exactly large matrices are multiplied on the way to gradients: `f32`, or `bf16`, in about half the time where
    /// the processor has AVX-512 with BF16, as `f32` elsewhere. Steps of Muon are rounded in any case.
    #[serde(default = "of_older_runs")]
    pub precision: Precision,
    /// What is learned from teachers, where there are any.
    pub teaching: TeachingSettings,
    /// The optimiser of both.
    pub optimizer: OptimizerSettings,
}

impl Default for TuneRunSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            epochs: 4,
            batch: 320,
            captions_per_photo: 5,
            least_area: 0.6,
            flip: true,
            colour: 0.2,
            drop_path: 0.1,
            objects_weight: 1.0,
            backbone_rate: 0.1,
            average: 0.0,
            precision: Precision::Bf16,
            teaching: TeachingSettings::default(),
            optimizer: OptimizerSettings {
                kind: OptimizerKind::Adam,
                learning_rate: 3e-4,
                schedule: Schedule::Cosine,
                warmup_steps: 50,
                weight_decay: 1e-4,
                clip: 0.0,
                ..OptimizerSettings::default()
            },
        }
    }
}

/// What a region-level caption model sees besides the region's vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegionContext {
    /// Nothing.
    None,
    /// The whole photo's vector, behind the region's (the paper's supplement: it helps).
    WholeImage,
}

/// What training of a caption model maximises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptionObjective {
    /// The likelihood of people's sentences, word by word (teacher forcing).
    Likelihood,
    /// The CIDEr-D of the model's own sentences (Rennie et al. 2017), from a model that was trained by likelihood.
    SelfCritical,
    /// The probability of the sentence's own picture among others that it could be taken for (Mao et al. 2016): such a
    /// model ranks pictures for a sentence. From a model that was trained by likelihood.
    MutualInformation,
}

/// Which pass of a caption model is kept, by the validation split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepBestBy {
    /// What the objective improves: perplexity, CIDEr-D or the choice.
    Objective,
    /// The lowest perplexity.
    Perplexity,
    /// The highest CIDEr-D of greedy captions.
    Cider,
    /// Most sentences likelier of their own picture than of those it could be taken for; of
    /// [`CaptionObjective::MutualInformation`] only.
    Choice,
}

/// What a sampled sentence's reward is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    /// The mean reward of the picture's other samples.
    OtherSamples,
    /// The reward of the greedy sentence.
    Greedy,
}

/// Settings of self-critical training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelfCriticalSettings {
    /// Sentences drawn a picture and step; at least 2 with other samples as the baseline.
    pub samples: usize,
    /// What their rewards are compared with.
    pub baseline: Baseline,
    /// A sampled sentence has at most this many words.
    pub max_words: usize,
}

impl Default for SelfCriticalSettings {
    fn default() -> Self {
        Self { samples: 5, baseline: Baseline::OtherSamples, max_words: 20 }
    }
}

/// Settings of [`CaptionObjective::MutualInformation`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MutualInformationSettings {
    /// Other pictures a sentence and step.
    pub rivals: usize,
    /// They are drawn from this many nearest photos; a region's from its photo's other regions.
    pub nearest: usize,
    /// Factor of a sentence's log probability in the softmax over pictures.
    pub sharpness: f32,
    /// Factor of minus the log probability given the own picture, added to the loss: 1 is what likelihood training
    /// minimises.
    pub likelihood: f32,
}

impl Default for MutualInformationSettings {
    fn default() -> Self {
        Self { rivals: 4, nearest: 30, sharpness: 0.5, likelihood: 0.1 }
    }
}

/// Everything that decides a run of `train caption`, besides its data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptionRunSettings {
    /// Seed of weights, batches and dropout.
    pub seed: u64,
    /// Passes over the training sentences or phrases.
    pub epochs: u64,
    /// Sentences a step, about: a picture's sentences stay together and share its encoding.
    pub batch: usize,
    /// Words seen less often in the training split are unknown (paper: 5).
    pub min_count: u64,
    /// Region level: phrases with fewer known words are left out.
    pub min_phrase_words: usize,
    /// Region level: phrases whose mean word score is lower are left out.
    pub min_phrase_score: f32,
    /// Region level: words at the end of a phrase that want another behind them ("a man in") are left out; the paper keeps
    /// them.
    pub whole_phrases: bool,
    /// Region level: what the model sees besides the region.
    pub region_context: RegionContext,
    /// What is maximised.
    pub objective: CaptionObjective,
    /// Probability that is taken from the right token and spread over the vocabulary; by likelihood only.
    pub label_smoothing: f32,
    /// Weights are averaged over steps with this decay, and the average is what is validated and kept; 0 turns it off.
    pub average: f32,
    /// How exactly large matrices are multiplied on the way to gradients: `f32`, or `bf16`, in about half the time where
    /// the processor has AVX-512 with BF16, as `f32` elsewhere. Steps of Muon are rounded in any case.
    #[serde(default = "of_older_runs")]
    pub precision: Precision,
    /// Which pass is kept.
    pub keep_best_by: KeepBestBy,
    /// Settings of [`CaptionObjective::SelfCritical`].
    pub self_critical: SelfCriticalSettings,
    /// Settings of [`CaptionObjective::MutualInformation`].
    pub mutual_information: MutualInformationSettings,
    /// The model.
    pub model: CaptionSettings,
    /// The optimiser.
    pub optimizer: OptimizerSettings,
}

impl Default for CaptionRunSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            epochs: 15,
            batch: 100,
            min_count: 5,
            min_phrase_words: 1,
            min_phrase_score: 0.0,
            whole_phrases: true,
            region_context: RegionContext::None,
            objective: CaptionObjective::Likelihood,
            label_smoothing: 0.0,
            average: 0.0,
            precision: Precision::Bf16,
            keep_best_by: KeepBestBy::Objective,
            self_critical: SelfCriticalSettings::default(),
            mutual_information: MutualInformationSettings::default(),
            model: CaptionSettings::default(),
            optimizer: OptimizerSettings {
                kind: OptimizerKind::Rmsprop,
                learning_rate: 1e-3,
                ..OptimizerSettings::default()
            },
        }
    }
}

/// Defaults, the recipe's values over them, then each `key=value`, dots between levels (`optimizer.learning_rate=1e-3`).
pub fn resolve<S>(recipe: Option<&Path>, assignments: &[String]) -> Result<S>
where
    S: Default + Serialize + DeserializeOwned,
{
    resolve_over(&S::default(), recipe, assignments)
}

/// As [`resolve`], over other values than the defaults.
pub fn resolve_over<S>(base: &S, recipe: Option<&Path>, assignments: &[String]) -> Result<S>
where
    S: Serialize + DeserializeOwned,
{
    let mut settings = toml::Value::try_from(base).expect("settings are plain data");
    let parsed = |settings: &toml::Value, source: &str| {
        let wrong = |e: toml::de::Error| Error::Setting(format!("{source}: {}", e.message()));
        settings.clone().try_into::<S>().map_err(wrong)
    };
    let mut resolved = parsed(&settings, "the defaults")?;
    if let Some(path) = recipe {
        let text = std::fs::read_to_string(path).map_err(Error::io("read the recipe", path))?;
        let recipe: toml::Table =
            text.parse().map_err(|e: toml::de::Error| Error::Setting(format!("{}: {e}", path.display())))?;
        overlay(&mut settings, toml::Value::Table(recipe), &mut Vec::new())
            .map_err(|message| Error::Setting(format!("{}: {message}", path.display())))?;
        resolved = parsed(&settings, &path.display().to_string())?;
    }
    for assignment in assignments {
        let in_assignment = |message: String| Error::Setting(format!("--set {assignment}: {message}"));
        let (key, value) = assignment
            .split_once('=')
            .ok_or_else(|| in_assignment("expected key=value, model.dim=512 for example".into()))?;
        let value = parse_value(value.trim());
        let nested = key
            .trim()
            .rsplit('.')
            .fold(value, |value, part| toml::Value::Table(toml::Table::from_iter([(part.to_owned(), value)])));
        overlay(&mut settings, nested, &mut Vec::new()).map_err(in_assignment)?;
        resolved = parsed(&settings, &format!("--set {assignment}"))?;
    }
    Ok(resolved)
}

/// Refuses a setting that is none.
pub(crate) fn at_least_one(settings: &[(&str, usize)]) -> Result<()> {
    match settings.iter().find(|(_, value)| *value == 0) {
        Some((name, _)) => Err(Error::Setting(format!("{name} = 0: expected 1 or more"))),
        None => Ok(()),
    }
}

/// Refuses a setting that is no share below one.
pub(crate) fn shares(settings: &[(&str, f32)]) -> Result<()> {
    match settings.iter().find(|(_, value)| !(0.0..1.0).contains(value)) {
        Some((name, value)) => Err(Error::Setting(format!("{name} = {value}: expected 0 or more and less than 1"))),
        None => Ok(()),
    }
}

/// Refuses a weight that is none.
pub(crate) fn weights(settings: &[(&str, f64)]) -> Result<()> {
    match settings.iter().find(|(_, value)| !(*value >= 0.0 && value.is_finite())) {
        Some((name, value)) => Err(Error::Setting(format!("{name} = {value}: expected a number of 0 or more"))),
        None => Ok(()),
    }
}

/// A TOML value, or the text itself where it is none: `sgd` needs no quotes.
fn parse_value(text: &str) -> toml::Value {
    let parsed = format!("value = {text}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("value"));
    parsed.unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

/// Puts `over` into `base`, whose keys are all keys there are.
fn overlay(base: &mut toml::Value, over: toml::Value, path: &mut Vec<String>) -> Result<(), String> {
    match (base, over) {
        (toml::Value::Table(base), toml::Value::Table(over)) => {
            for (key, value) in over {
                path.push(key.clone());
                let Some(slot) = base.get_mut(&key) else {
                    return Err(unknown_key(&path.join("."), base, &path[..path.len() - 1]));
                };
                overlay(slot, value, path)?;
                path.pop();
            }
            Ok(())
        }
        (toml::Value::Table(_), other) => {
            Err(format!("{} is a group of settings, not {}", path.join("."), other.type_str()))
        }
        // A whole number is a fine value for a fraction.
        (base @ toml::Value::Float(_), toml::Value::Integer(over)) => {
            *base = toml::Value::Float(over as f64);
            Ok(())
        }
        (base, over) if base.same_type(&over) => {
            *base = over;
            Ok(())
        }
        (base, over) => {
            Err(format!("{} is {}, got {} ({over})", path.join("."), with_article(base), with_article(&over)))
        }
    }
}

fn with_article(value: &toml::Value) -> String {
    match value.type_str() {
        kind @ ("integer" | "array") => format!("an {kind}"),
        kind => format!("a {kind}"),
    }
}

/// Names the unknown key and the nearest known one, at any level.
fn unknown_key(key: &str, level: &toml::Table, prefix: &[String]) -> String {
    let mut known = Vec::new();
    collect_keys(level, &prefix.join("."), &mut known);
    let last = key.rsplit('.').next().unwrap_or(key);
    let likeness = |candidate: &String| {
        let own = candidate.rsplit('.').next().unwrap_or(candidate);
        strsim::jaro_winkler(last, own)
    };
    let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match best {
        Some(best) if likeness(best) > 0.75 => format!("unknown setting {key}; did you mean {best}?"),
        _ => format!("unknown setting {key}; there are {}", known.join(", ")),
    }
}

fn collect_keys(table: &toml::Table, prefix: &str, keys: &mut Vec<String>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(inner) => collect_keys(inner, &path, keys),
            _ => keys.push(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(assignments: &[&str]) -> Result<AlignSettings> {
        let assignments: Vec<String> = assignments.iter().map(|s| (*s).to_owned()).collect();
        resolve(None, &assignments)
    }

    #[test]
    fn assignments_reach_their_settings() {
        let settings = resolved(&["model.dim=64", "optimizer.kind=adam", "optimizer.learning_rate=1"]).unwrap();
        assert_eq!(settings.model.dim, 64);
        assert_eq!(settings.optimizer.kind, OptimizerKind::Adam);
        assert_eq!(settings.optimizer.learning_rate, 1.0);
        assert_eq!(resolved(&[]).unwrap(), AlignSettings::default());
    }

    #[test]
    fn mistakes_are_named_and_guessed() {
        let check = |assignment: &str, expected: &str| {
            let message = resolved(&[assignment]).unwrap_err().to_string();
            assert!(message.contains(expected), "{assignment}: {message}");
        };
        check("model.dimm=64", "did you mean model.dim?");
        check("learning_rate=1", "did you mean optimizer.learning_rate?");
        check("optimizer.learning_rat=1", "did you mean optimizer.learning_rate?");
        check("zzz=1", "unknown setting zzz; there are");
        check("model.dim=abc", "model.dim is an integer, got a string");
        check("model=3", "model is a group of settings");
        check("optimizer.kind=sdg", "unknown variant `sdg`");
        let both = resolved(&["optimizer.kind=sdg", "epochs=3"]).unwrap_err().to_string();
        assert!(both.starts_with("--set optimizer.kind=sdg: "), "{both}");
        check("model.dim", "expected key=value");
    }

    #[test]
    fn a_recipe_is_read_and_overridden() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        std::fs::write(&path, "epochs = 3\n[model]\ndim = 32\n").unwrap();
        let settings: AlignSettings = resolve(Some(&path), &["model.dim=16".into()]).unwrap();
        assert_eq!((settings.epochs, settings.model.dim), (3, 16));
        std::fs::write(&path, "epoch = 3\n").unwrap();
        let message = resolve::<AlignSettings>(Some(&path), &[]).unwrap_err().to_string();
        assert!(message.contains("r.toml") && message.contains("did you mean epochs?"), "{message}");
        std::fs::write(&path, "epochs = \n").unwrap();
        assert!(resolve::<AlignSettings>(Some(&path), &[]).is_err());
        let missing = resolve::<AlignSettings>(Some(&folder.path().join("no.toml")), &[]).unwrap_err().to_string();
        assert!(missing.contains("cannot read the recipe"), "{missing}");
    }
}
