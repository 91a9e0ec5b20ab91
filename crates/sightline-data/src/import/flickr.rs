//! Flickr8K's and Flickr30K's token files: `photo.jpg#0<TAB>sentence`, five lines a photo.

use rustc_hash::FxHashMap;

use super::{Detected, Raw, RawPhoto, RawSentence, file_name, lines, photos, read_text};
use crate::Result;
use crate::problems::{ProblemKind, Problems};

/// `photo`, the sentence's number, and the sentence.
fn parse(line: &str) -> Option<(&str, u64, &str)> {
    let (key, sentence) = line.split_once('\t')?;
    let (photo, number) = key.trim().rsplit_once('#')?;
    Some((photo, number.parse().ok()?, sentence)).filter(|(photo, ..)| !photo.is_empty())
}

pub(super) fn is_token_line(line: &str) -> bool {
    parse(line).is_some_and(|(photo, ..)| photos::is_photo_name(photo))
}

pub(super) fn read(detected: &Detected, problems: &mut Problems) -> Result<Raw> {
    let path = &detected.files[0];
    let bytes = read_text(path)?;
    let mut raw = Raw::default();
    let mut position: FxHashMap<&str, usize> = FxHashMap::default();
    for (number, line) in lines(&bytes, path, problems) {
        if line.trim().is_empty() {
            continue;
        }
        let Some((photo, _, sentence)) = parse(line) else {
            problems.add(ProblemKind::BadRecord, format!("{} line {number}: `{line}`", file_name(path)));
            continue;
        };
        let at = *position.entry(photo).or_insert_with(|| {
            raw.photos.push(RawPhoto { file: photo.to_owned(), ..RawPhoto::default() });
            raw.photos.len() - 1
        });
        raw.photos[at].sentences.push(RawSentence::new(sentence));
    }
    Ok(raw)
}
