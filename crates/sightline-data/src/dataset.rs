//! The records of a dataset: photos, their sentences, their split.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::BoxXyxy;

/// Which part of the dataset a photo belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Trained on.
    Train,
    /// Settings are chosen on this.
    Val,
    /// Reported once.
    Test,
    /// COCO's validation photos that no split uses; trained on only when asked for.
    Restval,
}

/// One sentence of a photo.
#[derive(Debug, Clone, PartialEq)]
pub struct Sentence {
    /// Unique in the dataset.
    pub id: u64,
    /// As a person wrote it.
    pub raw: String,
    /// [`crate::tokens::tokenize`] of it, or as the source file gives them.
    pub tokens: Vec<String>,
}

/// One photo and what is said of it.
#[derive(Debug, Clone, PartialEq)]
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
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// A short name, `flickr8k` say.
    pub name: String,
    /// The folder that [`Image::path`] starts from.
    pub root: PathBuf,
    /// In the source's order.
    pub images: Vec<Image>,
}

impl Dataset {
    /// The photos of one split, in order.
    pub fn split(&self, split: Split) -> impl Iterator<Item = &Image> {
        self.images.iter().filter(move |image| image.split == split)
    }
}
