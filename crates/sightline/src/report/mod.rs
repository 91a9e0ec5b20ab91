//! The report: tables, and photos with a line from every word to the centre of its region (the paper's figure 5) and
//! with their captions (figure 7), as one HTML page that asks nothing of any network.
//!
//! [`Report`] is the record, [`render`] the page, [`write()`] and [`read_json`] its files.

mod figure;
mod page;
mod spread;
mod svg;

use std::io::Write as _;
use std::path::Path;

use anyhow::Context;
use base64::Engine as _;
use serde::{Deserialize, Serialize};
use sightline_data::BoxXyxy;

pub use page::{CONTENT_SECURITY_POLICY, render};

/// Written into every report as JSON; a report with another is refused.
pub const VERSION: u32 = 1;

/// Words that score less are greyed. The paper's lies somewhere between -0.02 and 0.21.
pub const DEFAULT_THRESHOLD: f32 = 0.1;

/// Everything the page shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// The page's heading.
    pub title: String,
    /// A sentence below it: what was trained and evaluated on what.
    pub subtitle: String,
    /// The command that made it, where there is one.
    pub command: Option<String>,
    /// A word is drawn with a line where its score reaches this.
    pub threshold: f32,
    /// Numbers first.
    pub tables: Vec<Table>,
    /// Then photos.
    pub photos: Vec<PhotoPanel>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Above it.
    pub caption: String,
    /// Headings over several columns, left to right; empty, or they sum to the columns.
    pub groups: Vec<ColumnGroup>,
    /// One heading a column.
    pub columns: Vec<String>,
    /// As many cells as columns; the first names the row.
    pub rows: Vec<Row>,
    /// Below it, where something wants saying.
    pub note: Option<String>,
}

/// A heading over neighbouring columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnGroup {
    /// May be empty.
    pub name: String,
    /// How many columns lie below it.
    pub columns: usize,
}

/// One line of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Whose figures these are.
    pub source: RowSource,
    /// Text, one for each column.
    pub cells: Vec<String>,
}

/// Whose figures a row shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowSource {
    /// Measured in this run.
    Ours,
    /// From a publication.
    Published,
    /// What guessing would give.
    Chance,
}

/// Recalls and median ranks of both directions, as a row of the retrieval table.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrievalRow {
    /// Whose figures.
    pub source: RowSource,
    /// The model's name.
    pub name: String,
    /// R@1, R@5, R@10 in percent, and the median rank where it is known; from photos to sentences.
    pub image_to_sentence: ([f64; 3], Option<f64>),
    /// The same from sentences to photos.
    pub sentence_to_image: ([f64; 3], Option<f64>),
}

impl RetrievalRow {
    /// The paper's bidirectional model on Flickr8K: table 1 of arXiv 1412.2306, 1,000 test photos.
    pub fn published_flickr8k() -> Self {
        Self {
            source: RowSource::Published,
            name: "Karpathy and Fei-Fei, BRNN".to_owned(),
            image_to_sentence: ([16.5, 40.6, 54.2], None),
            sentence_to_image: ([11.8, 32.1, 44.7], None),
        }
    }
}

impl Table {
    /// The paper's table 1: both directions side by side.
    pub fn retrieval(caption: impl Into<String>, rows: &[RetrievalRow]) -> Self {
        let group = |name: &str, columns| ColumnGroup { name: name.to_owned(), columns };
        let row = |row: &RetrievalRow| {
            let mut cells = vec![row.name.clone()];
            for (recalls, median_rank) in [row.image_to_sentence, row.sentence_to_image] {
                cells.extend(recalls.map(|recall| format!("{recall:.1}")));
                cells.push(median_rank.map_or_else(|| "–".to_owned(), |rank| format!("{rank}")));
            }
            Row { source: row.source, cells }
        };
        Self {
            caption: caption.into(),
            groups: vec![group("", 1), group("photo → sentence", 4), group("sentence → photo", 4)],
            columns: ["model", "R@1", "R@5", "R@10", "Med r", "R@1", "R@5", "R@10", "Med r"].map(str::to_owned).into(),
            rows: rows.iter().map(row).collect(),
            note: None,
        }
    }
}

/// One photo and all that was found out about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhotoPanel {
    /// The photo's path in its dataset.
    pub key: String,
    /// Of the original, in pixels; all boxes are in these.
    pub width: u32,
    /// Of the original, in pixels.
    pub height: u32,
    /// A smaller copy as JPEG or PNG, see [`thumbnail`].
    #[serde(with = "base64_text")]
    pub thumbnail: Vec<u8>,
    /// Sentences that the model finds for it, the best first.
    pub matches: Vec<SentencePanel>,
    /// What people said of it.
    pub true_sentences: Vec<String>,
    /// What the model says of the whole photo, the likeliest first.
    pub captions: Vec<Caption>,
    /// What the model says of its regions.
    pub regions: Vec<RegionCaption>,
}

/// A sentence found for a photo, with the region of each of its words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentencePanel {
    /// As a person wrote it.
    pub text: String,
    /// How well it fits the photo (equation 8).
    pub score: f32,
    /// Whether it was written for this photo.
    pub is_true: bool,
    /// Its tokens in order.
    pub words: Vec<WordMatch>,
}

/// A word and the region it points to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WordMatch {
    /// The token.
    pub word: String,
    /// Dot product of the word's and the region's vector.
    pub score: f32,
    /// The region's number in the feature store; 0 is the whole photo.
    pub region: usize,
    /// The region's box.
    #[serde(rename = "box")]
    pub region_box: BoxXyxy,
}

/// A generated sentence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caption {
    /// Words with blanks between.
    pub text: String,
    /// Natural logarithm.
    pub log_probability: f32,
}

/// A generated snippet for a region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionCaption {
    /// The region's box.
    #[serde(rename = "box")]
    pub region_box: BoxXyxy,
    /// Words with blanks between.
    pub text: String,
    /// Natural logarithm.
    pub log_probability: f32,
    /// How well the snippet fits the region, where an alignment model said so.
    pub score: Option<f32>,
}

/// Writes the page to `path`, all of it or nothing.
pub fn write(path: &Path, report: &Report) -> sightline_data::Result<()> {
    let html = render(report);
    sightline_data::write::atomically(path, |writer| writer.write_all(html.as_bytes()))
}

/// Writes the record as JSON, for [`read_json`] and for other programs.
pub fn write_json(path: &Path, report: &Report) -> sightline_data::Result<()> {
    sightline_data::write::json(path, report)
}

/// Reads what [`write_json`] wrote.
pub fn read_json(path: &Path) -> anyhow::Result<Report> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let report: Report = serde_json::from_str(&text).with_context(|| {
        format!("{} is no report; write one with `sightline eval … --html` or `sightline demo`", path.display())
    })?;
    anyhow::ensure!(
        report.version == VERSION,
        "{}: expected a report of version {VERSION}, got version {}; write it anew with this program",
        path.display(),
        report.version
    );
    Ok(report)
}

/// A small copy of an RGB picture for [`PhotoPanel::thumbnail`]: JPEG with its longer side at most `longest_side`
/// pixels; a picture of at most 192 pixels stays as it is, as PNG.
pub fn thumbnail(width: u32, height: u32, rgb: &[u8], longest_side: u32) -> anyhow::Result<Vec<u8>> {
    let picture = image::RgbImage::from_raw(width, height, rgb.to_vec()).with_context(|| {
        format!("expected {width}x{height} pixels of 3 bytes for a thumbnail, got {} bytes", rgb.len())
    })?;
    let mut bytes = Vec::new();
    if width.max(height) <= 192.min(longest_side) {
        picture.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png)?;
        return Ok(bytes);
    }
    let shrink = f64::from(longest_side) / f64::from(width.max(height));
    let side = |length: u32| ((f64::from(length) * shrink).round() as u32).max(1);
    let small = match shrink < 1.0 {
        true => image::imageops::resize(&picture, side(width), side(height), image::imageops::FilterType::CatmullRom),
        false => picture,
    };
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 84).encode_image(&small)?;
    Ok(bytes)
}

/// Bytes as base64 text in JSON.
mod base64_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The bytes as a `data:` address. Its kind is read off the first bytes.
fn data_uri(bytes: &[u8]) -> String {
    let kind = if bytes.starts_with(b"\x89PNG") { "png" } else { "jpeg" };
    format!("data:image/{kind};base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report with one of everything.
    pub(crate) fn example() -> Report {
        let word = |word: &str, score, region, region_box: [f32; 4]| WordMatch {
            word: word.to_owned(),
            score,
            region,
            region_box: region_box.into(),
        };
        Report {
            version: VERSION,
            title: "Scenes".to_owned(),
            subtitle: "Trained on 10 scenes.".to_owned(),
            command: Some("sightline demo --seed 1".to_owned()),
            threshold: DEFAULT_THRESHOLD,
            tables: vec![Table::retrieval("Retrieval", &[RetrievalRow::published_flickr8k()])],
            photos: vec![PhotoPanel {
                key: "a.png".to_owned(),
                width: 100,
                height: 50,
                thumbnail: thumbnail(100, 50, &[90; 15_000], 400).unwrap(),
                matches: vec![SentencePanel {
                    text: "A red ball beside a star.".to_owned(),
                    score: 2.5,
                    is_true: true,
                    words: vec![
                        word("a", -0.02, 0, [0.0, 0.0, 100.0, 50.0]),
                        word("red", 0.5, 2, [10.0, 10.0, 30.0, 30.0]),
                        word("ball", 1.31, 2, [10.0, 10.0, 30.0, 30.0]),
                        word("beside", 0.04, 0, [0.0, 0.0, 100.0, 50.0]),
                        word("a", -0.1, 0, [0.0, 0.0, 100.0, 50.0]),
                        word("star", 0.8, 5, [60.0, 20.0, 90.0, 44.0]),
                    ],
                }],
                true_sentences: vec!["A red ball beside a star.".to_owned(), "A star.".to_owned()],
                captions: vec![Caption { text: "a red ball".to_owned(), log_probability: -1.25 }],
                regions: vec![
                    RegionCaption {
                        region_box: [10.0, 10.0, 30.0, 30.0].into(),
                        text: "red ball".to_owned(),
                        log_probability: -0.5,
                        score: Some(1.5),
                    },
                    RegionCaption {
                        region_box: [12.0, 8.0, 34.0, 32.0].into(),
                        text: "ball".to_owned(),
                        log_probability: -0.75,
                        score: None,
                    },
                ],
            }],
        }
    }

    #[test]
    fn json_round_trips() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        write_json(&path, &example()).unwrap();
        assert_eq!(read_json(&path).unwrap(), example());
        write_json(&path, &Report { version: 9, ..example() }).unwrap();
        let refused = format!("{:#}", read_json(&path).unwrap_err());
        assert!(refused.contains("expected a report of version 1, got version 9"), "{refused}");
        std::fs::write(&path, "{\"title\": 3}").unwrap();
        assert!(format!("{:#}", read_json(&path).unwrap_err()).contains("is no report"));
        assert!(format!("{:#}", read_json(&folder.path().join("b")).unwrap_err()).contains("cannot read"));
    }

    #[test]
    fn thumbnails_are_small_copies() {
        let check = |width: u32, height: u32, expected: (u32, u32), format| {
            let bytes = thumbnail(width, height, &vec![77; (3 * width * height) as usize], 300).unwrap();
            assert_eq!(image::guess_format(&bytes).unwrap(), format);
            let read = image::load_from_memory(&bytes).unwrap().to_rgb8();
            assert_eq!((read.width(), read.height()), expected);
            assert!(read.as_raw().iter().all(|v| v.abs_diff(77) <= 2));
        };
        check(900, 600, (300, 200), image::ImageFormat::Jpeg);
        check(250, 200, (250, 200), image::ImageFormat::Jpeg);
        check(100, 64, (100, 64), image::ImageFormat::Png);
        check(6000, 5, (300, 1), image::ImageFormat::Jpeg);
        assert!(thumbnail(10, 10, &[0; 7], 300).is_err());
    }

    #[test]
    fn the_page_is_written_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        write(&path, &example()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), render(&example()));
    }
}
