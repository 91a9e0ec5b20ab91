//! Karpathy's `dataset.json` (Flickr8K, Flickr30K and COCO splits of the paper); his tokens are used as they are.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::json::{self, Rest, count_unknown};
use super::{Detected, Raw, RawPhoto, RawSentence, RawSplit, read_text};
use crate::problems::Problems;
use crate::{BoxXyxy, Pair, Result, record, tokens};

#[derive(Deserialize)]
struct File {
    dataset: Option<String>,
    images: Vec<Image>,
    #[serde(default)]
    pairing: Vec<Pair>,
    sightline: Option<Header>,
    #[serde(flatten)]
    rest: Rest,
}

/// Of a file that Sightline wrote: importing it again takes what is there, whatever the checksum says.
#[derive(Deserialize)]
struct Header {
    root: PathBuf,
}

#[derive(Deserialize)]
struct Image {
    filename: String,
    #[serde(default)]
    filepath: String,
    imgid: Option<u64>,
    split: Option<String>,
    #[serde(default)]
    sentences: Vec<Sentence>,
    #[serde(default)]
    boxes: Vec<BoxXyxy>,
    /// What it says stands in the sentences too.
    #[serde(rename = "sentids")]
    _sentids: Option<IgnoredAny>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize)]
struct Sentence {
    tokens: Option<Vec<String>>,
    raw: Option<String>,
    sentid: Option<u64>,
    /// The nesting says it already.
    #[serde(rename = "imgid")]
    _imgid: Option<IgnoredAny>,
    #[serde(flatten)]
    rest: Rest,
}

pub(super) fn read(detected: &Detected, problems: &mut Problems) -> Result<Raw> {
    let path = &detected.files[0];
    let file: File = json::parse(path, &read_text(path)?, "Karpathy's dataset.json")?;
    count_unknown(&file.rest, "", &[], problems);
    let mut without_tokens = 0;
    let photos = file.images.into_iter().map(|image| {
        count_unknown(&image.rest, "images.", &[], problems);
        let path = record::join(&image.filepath, &image.filename);
        let split = RawSplit::parse(image.split.as_deref().unwrap_or(""), &path, problems);
        let sentences = image.sentences.into_iter().map(|sentence| {
            count_unknown(&sentence.rest, "images.sentences.", &[], problems);
            let raw = sentence.raw.unwrap_or_else(|| sentence.tokens.as_deref().unwrap_or_default().join(" "));
            let tokens = sentence.tokens.unwrap_or_else(|| {
                without_tokens += 1;
                tokens::tokenize(&raw)
            });
            RawSentence { id: sentence.sentid, raw, tokens }
        });
        RawPhoto { sentences: sentences.collect(), file: path, id: image.imgid, split, boxes: image.boxes }
    });
    let photos = photos.collect();
    let mut explanation = vec!["the tokens of the file are used as they are".to_owned()];
    if without_tokens > 0 {
        explanation.push(format!("{without_tokens} sentences had no tokens; they were made from the raw text"));
    }
    Ok(Raw {
        name: file.dataset,
        root: file.sightline.map(|header| detected.folder.join(header.root)),
        photos,
        pairing: file.pairing,
        explanation,
    })
}
