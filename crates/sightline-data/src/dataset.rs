//! The records of a dataset: photos, their sentences, their split.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{BoxXyxy, Vocabulary};

/// Which part of the dataset a photo belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Trained on.
    #[default]
    Train,
    /// Settings are chosen on this.
    Val,
    /// Reported once.
    Test,
    /// COCO's validation photos that no split uses. Nothing is trained on them as they are; an import can put them into
    /// training ([`crate::import::ImportOptions::train_on_restval`]), as in the paper's COCO experiments.
    Restval,
}

/// One sentence of a photo.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sentence {
    /// Unique in the dataset.
    pub id: u64,
    /// As a person wrote it.
    pub raw: String,
    /// [`crate::tokens::tokenize`] of it, or as the source file gives them.
    pub tokens: Vec<String>,
}

/// One photo and what is said of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Image {
    /// Unique in the dataset.
    pub id: u64,
    /// Relative to [`Dataset::root`], with `/` between folders; also the photo's key in a feature store.
    pub path: String,
    /// Its split.
    pub split: Split,
    /// In the source's order.
    pub sentences: Vec<Sentence>,
    /// Boxes that came with the dataset, in pixels; used as regions only when asked for.
    pub boxes: Vec<BoxXyxy>,
}

/// Photos with sentences. Which sentence belongs to which photo is data: the nesting, never arithmetic.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Dataset {
    /// A short name, `flickr8k` say.
    pub name: String,
    /// The folder that [`Image::path`] starts from.
    pub root: PathBuf,
    /// In the source's order.
    pub images: Vec<Image>,
    /// Pairs that are true besides the nesting: a sentence of one photo that describes another one as well. Usually
    /// empty; the evaluation counts them as hits, and training never takes them for negatives.
    pub pairing: Vec<Pair>,
}

/// A sentence that describes a photo it is not nested in; both by their ids. In JSON `[sentence, image]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct Pair {
    /// [`Sentence::id`].
    pub sentence: u64,
    /// [`Image::id`].
    pub image: u64,
}

impl From<(u64, u64)> for Pair {
    fn from((sentence, image): (u64, u64)) -> Self {
        Self { sentence, image }
    }
}

impl From<Pair> for (u64, u64) {
    fn from(pair: Pair) -> Self {
        (pair.sentence, pair.image)
    }
}

impl Split {
    /// All, in the order of tables.
    pub const ALL: [Self; 4] = [Self::Train, Self::Val, Self::Test, Self::Restval];

    /// As it stands in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
            Self::Restval => "restval",
        }
    }
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Split {
    type Err = String;

    /// Takes the usual spellings: `dev`, `valid` and `validation` are `val`, and so on; case does not matter.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().to_lowercase().as_str() {
            "train" | "training" | "trn" => Ok(Self::Train),
            "val" | "valid" | "validation" | "dev" | "development" => Ok(Self::Val),
            "test" | "testing" | "tst" | "eval" | "evaluation" => Ok(Self::Test),
            "restval" => Ok(Self::Restval),
            _ => Err(format!("expected a split (train, val, test or restval), got `{text}`")),
        }
    }
}

impl Dataset {
    /// The vocabulary of the training split: words seen at least `min_count` times there (5 in the paper).
    pub fn vocabulary(&self, min_count: u64) -> Vocabulary {
        let images = self.split(Split::Train);
        let sentences = images.flat_map(|image| image.sentences.iter().map(|sentence| sentence.tokens.as_slice()));
        Vocabulary::from_sentences(sentences, min_count)
    }

    /// The photos of one split, in order.
    pub fn split(&self, split: Split) -> impl Iterator<Item = &Image> {
        self.images.iter().filter(move |image| image.split == split)
    }
}
