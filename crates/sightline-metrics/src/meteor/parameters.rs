//! Parameters of METEOR 1.5 for English, by task.

use crate::{Error, Result};

/// What the parameters were tuned for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Task {
    /// Ranking, the default and what coco-caption uses.
    #[default]
    Rank,
    /// Adequacy.
    Adq,
    /// Human-targeted edit rate.
    Hter,
    /// Ranking of earlier years.
    Li,
    /// Any language: exact and paraphrase matches only.
    Universal,
}

impl std::str::FromStr for Task {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "rank" => Ok(Self::Rank),
            "adq" => Ok(Self::Adq),
            "hter" => Ok(Self::Hter),
            "li" => Ok(Self::Li),
            "universal" => Ok(Self::Universal),
            _ => Err(Error::Unknown {
                what: "METEOR task",
                name: name.to_owned(),
                expected: "rank, adq, hter, li, universal",
            }),
        }
    }
}

/// A kind of match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Module {
    /// Equal words.
    Exact = 0,
    /// Words of equal stem.
    Stem = 1,
    /// Words that share a synset of WordNet.
    Synonym = 2,
    /// Phrases that the paraphrase table pairs.
    Paraphrase = 3,
}

/// The parameters of the score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameters {
    /// Weight of recall against precision.
    pub alpha: f64,
    /// Exponent of the fragmentation.
    pub beta: f64,
    /// Weight of the fragmentation penalty.
    pub gamma: f64,
    /// Weight of content words against function words.
    pub delta: f64,
    /// Weight of every module, by [`Module`]; none where the module is not used.
    pub weights: [Option<f64>; 4],
}

impl Task {
    /// The parameters of this task.
    pub fn parameters(self) -> Parameters {
        let all = |exact, stem, synonym, paraphrase| [Some(exact), Some(stem), Some(synonym), Some(paraphrase)];
        let (alpha, beta, gamma, delta, weights) = match self {
            Self::Rank => (0.85, 0.20, 0.60, 0.75, all(1.0, 0.6, 0.8, 0.6)),
            Self::Adq => (0.75, 1.40, 0.45, 0.70, all(1.0, 1.0, 0.6, 0.8)),
            Self::Hter => (0.40, 1.50, 0.35, 0.55, all(1.0, 0.2, 0.6, 0.8)),
            Self::Li => (0.75, 1.40, 0.70, 0.50, all(1.0, 0.5, 0.5, 0.5)),
            Self::Universal => (0.70, 1.40, 0.30, 0.70, [Some(1.0), None, None, Some(0.6)]),
        };
        Parameters { alpha, beta, gamma, delta, weights }
    }
}
