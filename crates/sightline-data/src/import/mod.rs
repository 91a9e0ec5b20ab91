//! Datasets of other layouts, made into ours: the layout is detected and explained, and whatever cannot be used is
//! counted. One reader a file; each gives plain photos, which [`assemble`] joins with the disk, splits and boxes.

mod assemble;
pub mod boxes;
mod coco;
mod detect;
pub mod features;
mod flickr;
mod folder;
mod json;
mod karpathy;
mod photos;
mod splits;
mod table;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use detect::{Detected, detect};
pub use photos::is_photo_name;

use crate::problems::{ProblemKind, Problems};
use crate::{BoxXyxy, Dataset, Error, Pair, Result, Split, tokens};

/// A layout that can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Karpathy's `dataset.json`, and our own file, which has the same layout.
    Karpathy,
    /// COCO's captions JSON: `images` and `annotations`.
    CocoCaptions,
    /// Flickr's token file, `photo.jpg#0<TAB>sentence`, with lists of photos for the splits.
    FlickrTokens,
    /// Rows of photo and sentence, separated by commas, tabs, semicolons or bars.
    Table,
    /// Photos with a `.txt` of the same name beside each.
    PhotoFolder,
}

impl Layout {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Karpathy => "Karpathy's dataset.json",
            Self::CocoCaptions => "COCO captions JSON",
            Self::FlickrTokens => "a Flickr token file",
            Self::Table => "a table of photos and sentences",
            Self::PhotoFolder => "a folder of photos with .txt files",
        }
    }
}

/// How to split photos where the source brings no split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MakeSplit {
    /// A tenth for validation, a tenth for the test, the rest for training.
    EightyTenTen,
    /// All for training.
    TrainOnly,
}

/// Which columns of a table hold what, by their header; guessed where absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Columns {
    /// The photo's file name.
    pub image: Option<String>,
    /// The sentence.
    pub sentence: Option<String>,
    /// The split.
    pub split: Option<String>,
}

/// What the user decides; the defaults guess everything.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The layout, where the guess is wrong.
    pub layout: Option<Layout>,
    /// The dataset's name; the source's own, or its file name, where absent.
    pub name: Option<String>,
    /// The folder of photos; looked for beside the source where absent.
    pub photos: Option<PathBuf>,
    /// All photos go here, whatever the source says.
    pub split: Option<Split>,
    /// Photos of [`Split::Restval`] go to training, as in the paper's COCO experiments.
    pub train_on_restval: bool,
    /// Lists of photos, one a line, for a token file or any source without splits; found beside it where empty.
    pub split_lists: Vec<(Split, PathBuf)>,
    /// What to do where there is no split at all.
    pub make_split: MakeSplit,
    /// Decides which photos go where in a split made here.
    pub seed: u64,
    /// Keep photos that are not on the disk, for vectors made elsewhere.
    pub keep_missing: bool,
    /// A file of boxes, see [`boxes::read`].
    pub boxes: Option<PathBuf>,
    /// A JSON list of `[sentence id, image id]`: true pairs besides the nesting.
    pub pairing: Option<PathBuf>,
    /// Columns of a table.
    pub columns: Columns,
    /// Longer sentences are kept out.
    pub max_words: usize,
    /// Examples kept of each kind of problem.
    pub examples: usize,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            layout: None,
            name: None,
            photos: None,
            split: None,
            train_on_restval: false,
            split_lists: Vec::new(),
            make_split: MakeSplit::EightyTenTen,
            seed: 1,
            keep_missing: false,
            boxes: None,
            pairing: None,
            columns: Columns::default(),
            max_words: 1000,
            examples: 5,
        }
    }
}

/// An imported dataset, with everything that was noticed on the way.
#[derive(Debug)]
pub struct Imported {
    /// The dataset, not yet saved.
    pub dataset: Dataset,
    /// What was kept out or mended.
    pub problems: Problems,
    /// What the source was read as.
    pub layout: Layout,
    /// How it was read, one finding a line.
    pub explanation: Vec<String>,
}

/// Reads a file or folder of any known layout.
///
/// # Errors
/// The source cannot be read, is of no known layout, is broken (line and column are named), or holds not one usable
/// photo. Single bad photos and sentences are no errors but [`Imported::problems`].
pub fn import(source: &Path, options: &ImportOptions) -> Result<Imported> {
    let detected = detect::with_layout(source, options.layout)?;
    let mut problems = Problems::with_examples(options.examples);
    let mut explanation = detected.explanation.clone();
    let raw = match detected.layout {
        Layout::Karpathy => karpathy::read(&detected, &mut problems)?,
        Layout::CocoCaptions => coco::read(&detected, &mut problems)?,
        Layout::FlickrTokens => flickr::read(&detected, &mut problems)?,
        Layout::Table => table::read(&detected, options, &mut problems)?,
        Layout::PhotoFolder => folder::read(&detected, &mut problems)?,
    };
    explanation.extend(raw.explanation.iter().cloned());
    let dataset = assemble::assemble(&detected, raw, options, &mut problems, &mut explanation)?;
    Ok(Imported { dataset, problems, layout: detected.layout, explanation })
}

/// What a reader gives: everything as the source has it, nothing looked up on the disk.
#[derive(Default)]
struct Raw {
    name: Option<String>,
    /// The very folder of photos, where the source says it.
    root: Option<PathBuf>,
    photos: Vec<RawPhoto>,
    pairing: Vec<Pair>,
    explanation: Vec<String>,
}

#[derive(Default)]
struct RawPhoto {
    /// File name, possibly with folders before it.
    file: String,
    id: Option<u64>,
    split: RawSplit,
    sentences: Vec<RawSentence>,
    boxes: Vec<BoxXyxy>,
}

#[derive(Default, Clone)]
enum RawSplit {
    /// The source does not say.
    #[default]
    Unsaid,
    Named(Split),
    /// Something that is no split; counted by the reader already.
    Unknown,
}

impl RawSplit {
    /// Counts what is no split.
    fn parse(text: &str, place: &str, problems: &mut Problems) -> Self {
        if text.trim().is_empty() {
            return Self::Unsaid;
        }
        text.parse().map_or_else(
            |_| {
                problems.add(ProblemKind::UnknownSplit, format!("`{text}` of {place}"));
                Self::Unknown
            },
            Self::Named,
        )
    }
}

struct RawSentence {
    id: Option<u64>,
    raw: String,
    tokens: Vec<String>,
}

impl RawSentence {
    fn new(raw: &str) -> Self {
        Self { id: None, raw: raw.to_owned(), tokens: tokens::tokenize(raw) }
    }
}

/// The whole file, without a byte order mark. UTF-16, which editors on Windows write, gets its own message.
fn read_text(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(Error::format(path, "expected UTF-8, got UTF-16: save the file as UTF-8"));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(bytes)
}

/// The lines of a text, without their ends; those that are not UTF-8 are counted and left out. Numbered from 1.
fn lines<'a>(bytes: &'a [u8], path: &Path, problems: &mut Problems) -> Vec<(usize, &'a str)> {
    let mut kept = Vec::new();
    for (i, line) in bytes.split(|&b| b == b'\n').enumerate() {
        match std::str::from_utf8(line) {
            Ok(line) => kept.push((i + 1, line.trim_end_matches('\r'))),
            Err(_) => problems.add(ProblemKind::NotUtf8, format!("{} line {}", file_name(path), i + 1)),
        }
    }
    kept
}

fn file_name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy()
}
