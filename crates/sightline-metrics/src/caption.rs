//! All caption metrics of a split in one call: BLEU, METEOR, ROUGE-L and CIDEr, for the corpus and per image.
//!
//! Scored from one pass: every image gives [`ImageCounts`], these add to [`CaptionCounts`] in any order and in parts,
//! and the corpus is scored once at the end. CIDEr depends on all references of the split, so score a split at once.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::bleu::BleuCounts;
use crate::cider::{Cider, CiderScore, CiderSum, DocumentFrequencies};
use crate::meteor::{Meteor, MeteorCounts, MeteorSegment, Parameters};
use crate::ptb::Tokenizer;
use crate::rouge::{RougeSum, rouge_l};
use crate::text::Interner;
use crate::{Error, Result};

/// How captions become tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tokenization {
    /// PTB over all captions joined, as coco-caption does: the tokens of a caption can depend on the next one.
    #[default]
    Joined,
    /// PTB, every caption by itself.
    Alone,
    /// The captions are tokenised already; words are parted by blanks.
    Blanks,
}

/// What to score with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings<'a> {
    /// How captions become tokens.
    pub tokenization: Tokenization,
    /// Document frequencies for CIDEr; none takes them from the references.
    pub frequencies: Option<&'a DocumentFrequencies>,
    /// METEOR, or its reduced form without data; none leaves it out.
    pub meteor: Option<&'a Meteor>,
}

/// What one image contributes to every metric.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ImageCounts {
    /// BLEU's counts.
    pub bleu: BleuCounts,
    /// ROUGE-L, 0..1.
    pub rouge_l: f64,
    /// CIDEr-D and CIDEr, 0..10.
    pub cider: CiderScore,
    /// METEOR against its best reference.
    pub meteor: Option<MeteorSegment>,
    /// Whether the hypothesis had no token at all.
    pub is_empty: bool,
}

impl ImageCounts {
    /// The image's own scores, in the record of a whole split.
    pub fn report(&self, meteor_is_complete: bool) -> CaptionReport {
        let [bleu1, bleu2, bleu3, bleu4] = self.bleu.scores();
        let meteor = self.meteor.map(|m| m.score);
        CaptionReport {
            bleu1,
            bleu2,
            bleu3,
            bleu4,
            meteor: meteor.filter(|_| meteor_is_complete),
            meteor_exact_stem: meteor.filter(|_| !meteor_is_complete),
            rouge_l: self.rouge_l,
            cider: self.cider.cider_d,
        }
    }
}

/// The sum of the counts of many images.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CaptionCounts {
    /// Images counted.
    pub images: u64,
    /// Images whose hypothesis had no token; they score, with zeros.
    pub empty_hypotheses: u64,
    /// BLEU's counts.
    pub bleu: BleuCounts,
    /// ROUGE-L's sum.
    pub rouge: RougeSum,
    /// CIDEr's sums.
    pub cider: CiderSum,
    /// METEOR's counts.
    pub meteor: MeteorCounts,
}

impl CaptionCounts {
    /// Counts one image.
    pub fn push(&mut self, image: &ImageCounts) {
        self.images += 1;
        self.empty_hypotheses += u64::from(image.is_empty);
        self.bleu.merge(&image.bleu);
        self.rouge.push(image.rouge_l);
        self.cider.push(image.cider);
        if let Some(meteor) = &image.meteor {
            self.meteor.add_segment(&meteor.counts);
        }
    }

    /// Adds the images of another part.
    pub fn merge(&mut self, other: &Self) {
        self.images += other.images;
        self.empty_hypotheses += other.empty_hypotheses;
        self.bleu.merge(&other.bleu);
        self.rouge.merge(&other.rouge);
        self.cider.merge(&other.cider);
        self.meteor.merge(&other.meteor);
    }

    /// The corpus scores; `meteor` as it was when the images were counted.
    pub fn report(&self, meteor: Option<&Meteor>) -> CaptionReport {
        self.report_with(meteor.map(|m| (*m.parameters(), m.is_complete())))
    }

    /// As [`report`](Self::report), with METEOR's parameters and whether it was METEOR or its reduced form.
    pub fn report_with(&self, meteor: Option<(Parameters, bool)>) -> CaptionReport {
        let [bleu1, bleu2, bleu3, bleu4] = self.bleu.scores();
        let score = meteor.map(|(parameters, is_complete)| (self.meteor.score(&parameters), is_complete));
        CaptionReport {
            bleu1,
            bleu2,
            bleu3,
            bleu4,
            meteor: score.filter(|s| s.1).map(|s| s.0),
            meteor_exact_stem: score.filter(|s| !s.1).map(|s| s.0),
            rouge_l: self.rouge.score(),
            cider: self.cider.score().cider_d,
        }
    }
}

/// A caption evaluation, serialised as the project's record of it and scaled as coco-caption scales: 0..1, CIDEr 0..10.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CaptionReport {
    /// BLEU-1.
    pub bleu1: f64,
    /// BLEU-2.
    pub bleu2: f64,
    /// BLEU-3.
    pub bleu3: f64,
    /// BLEU-4.
    pub bleu4: f64,
    /// METEOR; none where it was left out or its data is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meteor: Option<f64>,
    /// METEOR with exact and stem matches only, which is another metric; where METEOR's data is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meteor_exact_stem: Option<f64>,
    /// ROUGE-L.
    pub rouge_l: f64,
    /// CIDEr-D, which coco-caption calls CIDEr.
    pub cider: f64,
}

impl CaptionReport {
    /// Names and values of the metrics that were computed, in the order of the record.
    pub fn named(&self) -> Vec<(&'static str, f64)> {
        let all = [
            ("bleu1", Some(self.bleu1)),
            ("bleu2", Some(self.bleu2)),
            ("bleu3", Some(self.bleu3)),
            ("bleu4", Some(self.bleu4)),
            ("meteor", self.meteor),
            ("meteor_exact_stem", self.meteor_exact_stem),
            ("rouge_l", Some(self.rouge_l)),
            ("cider", Some(self.cider)),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// Corpus scores, their counts, and what every image contributed, in the order given.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// The corpus scores.
    pub report: CaptionReport,
    /// The sums behind them.
    pub counts: CaptionCounts,
    /// What every image contributed.
    pub images: Vec<ImageCounts>,
}

/// Scores one hypothesis an image against the image's references.
///
/// An empty hypothesis is scored and counted. An image without references and lists that do not fit are errors. With
/// one image alone CIDEr is 0 by definition.
///
/// ```
/// use sightline_metrics::caption::{Settings, evaluate};
///
/// let references = [vec!["A dog runs.", "The dog is running"], vec!["Two cats on a sofa"]];
/// let found = evaluate(&["a dog runs", "a cat"], &references, &Settings::default())?;
/// // Four of five words are right, and the corpus is five words where eight would fit: 0.8 · exp(1 - 8 / 5).
/// assert!((found.report.bleu1 - 0.439).abs() < 1e-3);
/// # Ok::<(), sightline_metrics::Error>(())
/// ```
pub fn evaluate<H, R, S>(hypotheses: &[H], references: &[R], settings: &Settings<'_>) -> Result<Evaluation>
where
    H: AsRef<str> + Sync,
    R: AsRef<[S]> + Sync,
    S: AsRef<str> + Sync,
{
    if hypotheses.len() != references.len() {
        return Err(Error::Lengths { hypotheses: hypotheses.len(), references: references.len() });
    }
    if let Some(index) = references.iter().position(|r| r.as_ref().is_empty()) {
        return Err(Error::NoReference { index });
    }
    // Tokenise: the references of all images in one list, then the hypotheses, as the reference does.
    let flat: Vec<&str> = references.iter().flat_map(|r| r.as_ref().iter().map(AsRef::as_ref)).collect();
    let tokenise = |captions: &[&str]| -> Vec<String> {
        let tokenizer = Tokenizer::shared();
        match settings.tokenization {
            Tokenization::Joined => tokenizer.coco(captions),
            Tokenization::Alone => captions.par_iter().with_min_len(256).map(|c| tokenizer.coco_one(c)).collect(),
            Tokenization::Blanks => captions.iter().map(|&c| c.to_owned()).collect(),
        }
    };
    let hypotheses: Vec<&str> = hypotheses.iter().map(AsRef::as_ref).collect();
    let (mut reference_tokens, hypothesis_tokens) = (tokenise(&flat).into_iter(), tokenise(&hypotheses));
    let references: Vec<Vec<String>> =
        references.iter().map(|r| reference_tokens.by_ref().take(r.as_ref().len()).collect()).collect();
    Ok(evaluate_tokens(&hypothesis_tokens, &references, settings))
}

/// As [`evaluate`], of captions that are tokenised and checked already.
fn evaluate_tokens(hypotheses: &[String], references: &[Vec<String>], settings: &Settings<'_>) -> Evaluation {
    let (own_frequencies, meteor) = rayon::join(
        || match settings.frequencies {
            Some(_) => None,
            None => Some(DocumentFrequencies::of(references)),
        },
        || settings.meteor.map(|meteor| meteor.segments(hypotheses, references)),
    );
    let fallback = DocumentFrequencies::default();
    let cider = Cider::new(settings.frequencies.or(own_frequencies.as_ref()).unwrap_or(&fallback));
    let images: Vec<ImageCounts> = hypotheses
        .par_iter()
        .zip(references)
        .enumerate()
        .with_min_len(32)
        .map(|(index, (hypothesis, references))| {
            let mut interner = Interner::default();
            let ids = interner.ids(hypothesis);
            let reference_ids: Vec<Vec<u32>> = references.iter().map(|r| interner.ids(r)).collect();
            ImageCounts {
                bleu: BleuCounts::of_ids(&ids, &reference_ids),
                rouge_l: rouge_l(hypothesis, references),
                cider: cider.score(hypothesis, references),
                meteor: meteor.as_ref().map(|m| m[index]),
                is_empty: ids.is_empty(),
            }
        })
        .collect();
    let mut counts = CaptionCounts::default();
    images.iter().for_each(|image| counts.push(image));
    Evaluation { report: counts.report(settings.meteor), counts, images }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misfits_are_errors() {
        let settings = Settings::default();
        let lengths = evaluate(&["a"], &[vec!["a"], vec!["b"]], &settings).unwrap_err();
        assert_eq!(lengths.to_string(), "1 hypotheses but 2 lists of references; give one list for every hypothesis");
        let none = evaluate(&["a", "b"], &[vec!["a"], vec![]], &settings).unwrap_err();
        assert!(none.to_string().contains("image 1 has no reference"), "{none}");
    }

    #[test]
    fn empty_hypotheses_are_scored_and_counted() {
        let references = [vec!["a dog runs"], vec!["a cat sits"]];
        let found = evaluate(&["", "a cat sits"], &references, &Settings::default()).unwrap();
        assert_eq!((found.counts.images, found.counts.empty_hypotheses), (2, 1));
        assert_eq!(found.images[0].report(true).bleu1, 0.0);
        assert!((found.report.rouge_l - 0.5).abs() < 1e-12);
    }

    #[test]
    fn the_record_names_the_reduced_metric_by_its_own_name() {
        let meteor = Meteor::exact_stem();
        let settings = Settings { meteor: Some(&meteor), ..Settings::default() };
        let found = evaluate(&["a dog runs"], &[vec!["a dog runs"]], &settings).unwrap();
        let json = serde_json::to_string(&found.report).unwrap();
        assert!(json.contains("\"meteor_exact_stem\":1.0") && !json.contains("\"meteor\":"), "{json}");
        assert_eq!(found.report.cider, 0.0, "one image alone");
    }
}
