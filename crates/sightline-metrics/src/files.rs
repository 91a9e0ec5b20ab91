//! Files of captions: COCO results, COCO annotations, Karpathy's dataset, this project's caption records, plain lines.
//!
//! The layout is found by looking, never by the file's name. [`pair`] brings hypotheses and references together by
//! image, and names what does not fit.

use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;
use serde::Deserialize;

use crate::{Error, Result};

/// The layout of a file of captions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// COCO results: `[{"image_id": 1, "caption": "…"}, …]`.
    Results,
    /// COCO annotations: `{"images": […], "annotations": [{"image_id": 1, "caption": "…"}, …]}`.
    Annotations,
    /// Karpathy's dataset: `{"images": [{"split": "test", "sentences": [{"raw": "…"}, …]}, …]}`.
    Dataset,
    /// Captions as this project writes them: `{"image": "…", "captions": [{"text": "…"}]}`, one a line or in a list.
    Records,
    /// One image a line; several captions are parted by tabs.
    Lines,
}

impl Layout {
    /// What it is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Results => "COCO results",
            Self::Annotations => "COCO annotations",
            Self::Dataset => "a Karpathy dataset",
            Self::Records => "caption records",
            Self::Lines => "plain lines",
        }
    }

    fn holds_references(self) -> bool {
        matches!(self, Self::Annotations | Self::Dataset)
    }
}

/// An image of a file, with its captions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CaptionedImage {
    /// What the image is called: its id, and its other ids and file names if the file knows some. Lines are numbered.
    pub names: Vec<String>,
    /// Its captions in the order of the file.
    pub captions: Vec<String>,
}

/// A file of captions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptionFile {
    /// Where it lies.
    pub path: PathBuf,
    /// How it is laid out.
    pub layout: Layout,
    /// Its images in their order.
    pub images: Vec<CaptionedImage>,
}

/// Hypotheses and references of the same images, in the order of the references.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pairs {
    /// What the hypotheses call the images.
    pub names: Vec<String>,
    /// What the references call them, however the hypotheses do; the same for any hypotheses.
    pub images: Vec<String>,
    /// One an image.
    pub hypotheses: Vec<String>,
    /// One or more an image.
    pub references: Vec<Vec<String>>,
    /// Images with references but no hypothesis, left out because that was asked for.
    pub without_hypothesis: usize,
    /// Images with a hypothesis but no references, left out because that was asked for.
    pub without_reference: usize,
}

/// An id as JSON has it, a number or a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Number(i64),
    Float(f64),
    Text(String),
}

impl Id {
    fn into_name(self) -> String {
        match self {
            Self::Number(n) => n.to_string(),
            Self::Float(f) => f.to_string(),
            Self::Text(text) => text,
        }
    }
}

#[derive(Deserialize)]
struct Entry {
    image_id: Option<Id>,
    caption: Option<String>,
    image: Option<Id>,
    captions: Option<Vec<Text>>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

#[derive(Deserialize)]
struct Sentence {
    raw: String,
}

#[derive(Deserialize)]
struct Image {
    id: Option<Id>,
    cocoid: Option<Id>,
    imgid: Option<Id>,
    file_name: Option<String>,
    filename: Option<String>,
    filepath: Option<String>,
    split: Option<String>,
    sentences: Option<Vec<Sentence>>,
}

#[derive(Deserialize)]
struct Top {
    images: Option<Vec<Image>>,
    annotations: Option<Vec<Entry>>,
    image: Option<Id>,
    captions: Option<Vec<Text>>,
}

const LAYOUTS: &str = "COCO results, COCO annotations, a Karpathy dataset, caption records, or plain lines";

/// Reads a file of captions. `split` picks the images of a Karpathy dataset; without it the test split is taken if
/// there is one, else all images.
pub fn read(path: &Path, split: Option<&str>) -> Result<CaptionFile> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    parse(path, &bytes, split)
}

/// As [`read`], of the file's content.
pub fn parse(path: &Path, bytes: &[u8], split: Option<&str>) -> Result<CaptionFile> {
    let malformed = |what: &str, expected: &str, got: String| Error::Malformed {
        path: path.to_owned(),
        what: what.to_owned(),
        expected: expected.to_owned(),
        got,
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let line = 1 + bytes[..at].iter().filter(|&&b| b == b'\n').count();
        malformed(&format!("line {line}"), "UTF-8", format!("the byte 0x{:02x} at offset {at}", bytes[at]))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let json = |error: serde_json::Error| malformed("JSON", LAYOUTS, error.to_string());
    let (layout, images) = match text.trim_start().chars().next() {
        Some('[') => {
            let entries: Vec<Entry> = serde_json::from_str(text).map_err(json)?;
            entries_of(entries).map_err(|got| malformed("JSON", LAYOUTS, got))?
        }
        Some('{') => {
            let mut objects = serde_json::Deserializer::from_str(text).into_iter::<Top>();
            match objects.next() {
                Some(first) => {
                    let first = first.map_err(json)?;
                    if first.image.is_some() {
                        let mut entries = vec![first.into_entry()];
                        for object in objects {
                            entries.push(object.map_err(json)?.into_entry());
                        }
                        entries_of(entries).map_err(|got| malformed("JSON", LAYOUTS, got))?
                    } else {
                        if let Some(next) = objects.next() {
                            next.map_err(json)?;
                            return Err(malformed("JSON", "one object", "several, and no caption records".to_owned()));
                        }
                        object_of(first, split).map_err(|(expected, got)| malformed("JSON", &expected, got))?
                    }
                }
                None => return Err(malformed("JSON", LAYOUTS, "nothing".to_owned())),
            }
        }
        _ => {
            let images = text.lines().enumerate().map(|(number, line)| CaptionedImage {
                names: vec![(number + 1).to_string()],
                captions: line.split('\t').map(str::to_owned).collect(),
            });
            (Layout::Lines, images.collect())
        }
    };
    Ok(CaptionFile { path: path.to_owned(), layout, images })
}

impl Top {
    fn into_entry(self) -> Entry {
        Entry { image_id: None, caption: None, image: self.image, captions: self.captions }
    }
}

/// Images in the order of their first caption.
#[derive(Default)]
struct Images {
    places: FxHashMap<String, usize>,
    list: Vec<CaptionedImage>,
}

impl Images {
    fn of(&mut self, name: String) -> &mut CaptionedImage {
        let next = self.list.len();
        let place = *self.places.entry(name.clone()).or_insert(next);
        if place == next {
            self.list.push(CaptionedImage { names: vec![name], captions: Vec::new() });
        }
        &mut self.list[place]
    }
}

type Found = (Layout, Vec<CaptionedImage>);

fn entries_of(entries: Vec<Entry>) -> std::result::Result<Found, String> {
    let mut images = Images::default();
    let mut layout = Layout::Results;
    for (number, entry) in entries.into_iter().enumerate() {
        match entry {
            Entry { image_id: Some(id), caption: Some(caption), .. } => {
                images.of(id.into_name()).captions.push(caption);
            }
            Entry { image: Some(image), captions: Some(captions), .. } => {
                layout = Layout::Records;
                let name = image.into_name();
                // Photos may have gone to another folder since: a path ends with whatever they are called.
                let ends = name.match_indices(['/', '\\']).map(|(at, _)| name[at + 1..].to_owned());
                let ends: Vec<String> = ends.filter(|end| !end.is_empty()).collect();
                let image = images.of(name);
                // The first is the best; the others are the rest of the n-best list.
                image.captions.extend(captions.into_iter().next().map(|c| c.text));
                if image.names.len() == 1 {
                    image.names.extend(ends);
                }
            }
            _ => return Err(format!("entry {} has no \"image_id\" with \"caption\"", number + 1)),
        }
    }
    Ok((layout, images.list))
}

fn object_of(top: Top, split: Option<&str>) -> std::result::Result<Found, (String, String)> {
    let other = |got: &str| (LAYOUTS.to_owned(), got.to_owned());
    match (top.images, top.annotations) {
        (images, Some(annotations)) => {
            let mut all = Images::default();
            for image in images.unwrap_or_default() {
                let Some(id) = image.id else { return Err(other("an image without \"id\"")) };
                all.of(id.into_name()).names.extend(image.file_name);
            }
            for annotation in annotations {
                let (Some(id), Some(caption)) = (annotation.image_id, annotation.caption) else {
                    return Err(other("an annotation without \"image_id\" or \"caption\""));
                };
                all.of(id.into_name()).captions.push(caption);
            }
            Ok((Layout::Annotations, all.list))
        }
        (Some(images), None) => {
            let splits: Vec<&str> = images.iter().filter_map(|i| i.split.as_deref()).collect();
            let wanted = split.or_else(|| splits.contains(&"test").then_some("test"));
            if let Some(wanted) = wanted
                && !splits.contains(&wanted)
            {
                let mut known: Vec<&str> = splits.clone();
                known.sort_unstable();
                known.dedup();
                return Err((format!("the split {wanted:?}"), format!("the splits {known:?}")));
            }
            let wanted = wanted.map(str::to_owned);
            let mut list = Vec::new();
            for (place, image) in images.into_iter().enumerate() {
                if wanted.is_some() && image.split != wanted {
                    continue;
                }
                let Some(sentences) = image.sentences else {
                    return Err(other(&format!("image {} without \"sentences\"", place + 1)));
                };
                let within = image.filepath.filter(|folder| !folder.is_empty());
                let path = within.zip(image.filename.as_ref()).map(|(folder, name)| format!("{folder}/{name}"));
                let names = [
                    image.cocoid.map(Id::into_name),
                    image.imgid.map(Id::into_name),
                    image.id.map(Id::into_name),
                    path,
                    image.filename,
                    image.file_name,
                ];
                let names: Vec<String> = names.into_iter().flatten().collect();
                let names = if names.is_empty() { vec![place.to_string()] } else { names };
                list.push(CaptionedImage { names, captions: sentences.into_iter().map(|s| s.raw).collect() });
            }
            Ok((Layout::Dataset, list))
        }
        (None, None) => Err(other("an object without \"images\" or \"annotations\"")),
    }
}

/// Brings hypotheses and references together by image. Several files of plain lines give several references a line.
///
/// With `partial` images that one side lacks are left out and counted; else they are an error.
pub fn pair(hypotheses: &CaptionFile, references: &[CaptionFile], partial: bool) -> Result<Pairs> {
    let Some(first) = references.first() else {
        return Err(Error::NoReference { index: 0 });
    };
    if hypotheses.layout.holds_references() && !first.layout.holds_references() {
        return Err(Error::Swapped {
            hypotheses: hypotheses.path.clone(),
            hypotheses_kind: hypotheses.layout.name(),
            references: first.path.clone(),
            references_kind: first.layout.name(),
        });
    }
    for file in references {
        if (file.layout == Layout::Lines) != (hypotheses.layout == Layout::Lines) {
            return Err(Error::Malformed {
                path: file.path.clone(),
                what: "layout".to_owned(),
                expected: format!("what can be paired with the {} of the hypotheses", hypotheses.layout.name()),
                got: format!("{}; lines have no image ids, so give lines for both or for neither", file.layout.name()),
            });
        }
    }
    let mut duplicates = hypotheses.images.iter().filter(|i| i.captions.len() > 1);
    if let Some(duplicate) = duplicates.next() {
        return Err(Error::DuplicateIds {
            path: hypotheses.path.clone(),
            count: 1 + duplicates.count(),
            first: duplicate.names[0].clone(),
        });
    }
    if hypotheses.layout == Layout::Lines {
        return pair_lines(hypotheses, references);
    }

    // References of all files by the image's first name.
    let mut all = Images::default();
    for image in references.iter().flat_map(|f| &f.images) {
        let merged = all.of(image.names[0].clone());
        merged.captions.extend(image.captions.iter().cloned());
        // The place of a name is its kind of id, so the names of one file are taken together, equal ones too.
        if merged.names.len() == 1 {
            merged.names.clone_from(&image.names);
        } else {
            let more: Vec<String> = image.names.iter().filter(|name| !merged.names.contains(name)).cloned().collect();
            merged.names.extend(more);
        }
    }
    let own = best_names(hypotheses, &all.list);
    let by_name = places_of(hypotheses.images.iter().map(|image| image.names.as_slice()));
    // A name that two images share is nobody's.
    let own_name = |image: &'_ CaptionedImage| own.and_then(|kind| image.names.get(kind).cloned());
    let own_names: Vec<Option<String>> = all.list.iter().map(own_name).collect();
    let meant = places_of(own_names.iter().map(Option::as_slice));
    let mut pairs = Pairs::default();
    let mut used = vec![false; hypotheses.images.len()];
    let mut lacking: Vec<&str> = Vec::new();
    for (image, own) in all.list.iter().zip(&own_names).filter(|(i, _)| !i.captions.is_empty()) {
        // Ids of one kind only: an imgid is not to be taken for another image's cocoid.
        let alone = own.as_deref().filter(|own| meant[own].is_some());
        match alone.and_then(|own| *by_name.get(own)?) {
            Some(place) => {
                let hypothesis = &hypotheses.images[place];
                used[place] = true;
                pairs.images.push(image.names[0].clone());
                pairs.names.push(hypothesis.names[0].clone());
                pairs.hypotheses.push(hypothesis.captions.first().cloned().unwrap_or_default());
                pairs.references.push(image.captions.clone());
            }
            None => lacking.push(&image.names[0]),
        }
    }
    let unused: Vec<&str> =
        hypotheses.images.iter().zip(&used).filter(|(_, used)| !**used).map(|(i, _)| i.names[0].as_str()).collect();
    let described = pairs.names.len() + lacking.len();
    match (unused.first(), lacking.first()) {
        (Some(first), _) if !partial || pairs.names.is_empty() => Err(Error::MissingReferences {
            path: references[0].path.clone(),
            hypotheses: hypotheses.path.clone(),
            count: unused.len(),
            total: hypotheses.images.len(),
            first: (*first).to_owned(),
        }),
        (_, Some(first)) if !partial || pairs.names.is_empty() => Err(Error::MissingHypotheses {
            path: hypotheses.path.clone(),
            references: references[0].path.clone(),
            count: lacking.len(),
            total: described,
            first: (*first).to_owned(),
        }),
        _ => {
            pairs.without_hypothesis = lacking.len();
            pairs.without_reference = unused.len();
            Ok(pairs)
        }
    }
}

/// Where each name is; none where several have it.
fn places_of<'a>(all: impl Iterator<Item = &'a [String]>) -> FxHashMap<&'a str, Option<usize>> {
    let mut places: FxHashMap<&str, Option<usize>> = FxHashMap::default();
    for (place, names) in all.enumerate() {
        for name in names {
            let kept = places.entry(name).or_insert(Some(place));
            *kept = kept.filter(|kept| *kept == place);
        }
    }
    places
}

/// Which of a dataset's kinds of ids the hypotheses use: the one under which most are found.
fn best_names(hypotheses: &CaptionFile, references: &[CaptionedImage]) -> Option<usize> {
    let kinds = references.iter().map(|i| i.names.len()).max().unwrap_or(0);
    let found = |kind: usize| {
        let names: rustc_hash::FxHashSet<&str> =
            references.iter().filter_map(|i| i.names.get(kind)).map(String::as_str).collect();
        hypotheses.images.iter().filter(|i| i.names.iter().any(|n| names.contains(n.as_str()))).count()
    };
    // The earlier kind wins a tie.
    (0..kinds).rev().max_by_key(|&kind| found(kind)).filter(|&kind| found(kind) > 0)
}

fn pair_lines(hypotheses: &CaptionFile, references: &[CaptionFile]) -> Result<Pairs> {
    let mut pairs = Pairs::default();
    for file in references {
        if file.images.len() != hypotheses.images.len() {
            return Err(Error::Malformed {
                path: file.path.clone(),
                what: "lines".to_owned(),
                expected: format!("{} as in {}", hypotheses.images.len(), hypotheses.path.display()),
                got: file.images.len().to_string(),
            });
        }
    }
    for (line, image) in hypotheses.images.iter().enumerate() {
        let all: Vec<String> = references.iter().flat_map(|f| f.images[line].captions.iter().cloned()).collect();
        // A blank among others is a missing one; alone it is an empty reference, which is an image without any.
        let known: Vec<String> = all.into_iter().filter(|c| !c.trim().is_empty()).collect();
        if known.is_empty() {
            return Err(Error::MissingReferences {
                path: references[0].path.clone(),
                hypotheses: hypotheses.path.clone(),
                count: 1,
                total: hypotheses.images.len(),
                first: format!("on line {}", line + 1),
            });
        }
        pairs.names.push(image.names[0].clone());
        pairs.images.push(image.names[0].clone());
        pairs.hypotheses.push(image.captions.first().cloned().unwrap_or_default());
        pairs.references.push(known);
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> CaptionFile {
        parse(Path::new(name), text.as_bytes(), None).unwrap()
    }

    fn wrong(bytes: &[u8]) -> String {
        parse(Path::new("h.json"), bytes, None).unwrap_err().to_string()
    }

    const RESULTS: &str = r#"[{"image_id": 2, "caption": "a cat"}, {"image_id": 1, "caption": ""}]"#;
    const ANNOTATIONS: &str = r#"{"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2}], "annotations": [
        {"id": 7, "image_id": 2, "caption": "the cat"}, {"id": 8, "image_id": 1, "caption": "a dog"},
        {"id": 9, "image_id": 2, "caption": "one cat"}]}"#;

    #[test]
    fn coco_files_pair_in_the_order_of_the_images() {
        let pairs = pair(&file("h", RESULTS), &[file("r", ANNOTATIONS)], false).unwrap();
        assert_eq!(pairs.names, ["1", "2"]);
        assert_eq!(pairs.hypotheses, ["", "a cat"]);
        assert_eq!(pairs.references, [vec!["a dog"], vec!["the cat", "one cat"]]);
    }

    #[test]
    fn a_dataset_is_found_by_any_of_its_ids() {
        let dataset = r#"{"dataset": "x", "images": [
            {"imgid": 1, "cocoid": 900, "filename": "a.jpg", "split": "train", "sentences": [{"raw": "no"}]},
            {"imgid": 2, "cocoid": 901, "filename": "b.jpg", "split": "test", "sentences": [{"raw": "yes"}]}]}"#;
        let references = [file("r", dataset)];
        for id in ["901", "2", "\"b.jpg\""] {
            let results = format!(r#"[{{"image_id": {id}, "caption": "yes"}}]"#);
            assert_eq!(pair(&file("h", &results), &references, false).unwrap().references, [["yes"]], "{id}");
        }
        let records = r#"{"image": "photos/b.jpg", "captions": [{"text": "best"}, {"text": "next"}]}"#;
        assert_eq!(pair(&file("h", records), &references, false).unwrap().hypotheses, ["best"]);
        let error = parse(Path::new("r"), dataset.as_bytes(), Some("tset")).unwrap_err().to_string();
        assert!(error.contains("\"tset\"") && error.contains("\"train\""), "{error}");
    }

    #[test]
    fn equal_ids_of_two_kinds_are_two_kinds_still() {
        let dataset = r#"{"images": [
            {"imgid": 0, "cocoid": 1, "filename": "a.jpg", "sentences": [{"raw": "a"}]},
            {"imgid": 2, "cocoid": 2, "filename": "b.jpg", "sentences": [{"raw": "b"}]}]}"#;
        let results = r#"[{"image_id": "b.jpg", "caption": "b"}, {"image_id": "a.jpg", "caption": "a"}]"#;
        let pairs = pair(&file("h", results), &[file("r", dataset)], false).unwrap();
        assert_eq!(pairs.hypotheses, ["a", "b"]);
        assert_eq!(pairs.references, [["a"], ["b"]]);
    }

    #[test]
    fn photos_of_one_name_in_two_folders_are_two() {
        let dataset = r#"{"images": [
            {"imgid": 7, "filepath": "a", "filename": "1.jpg", "sentences": [{"raw": "a dog"}]},
            {"imgid": 8, "filepath": "b", "filename": "1.jpg", "sentences": [{"raw": "a cat"}]}]}"#;
        let references = [file("r", dataset)];
        let record = |name: &str, text: &str| format!(r#"{{"image": "{name}", "captions": [{{"text": "{text}"}}]}} "#);
        let results = r#"[{"image_id": 8, "caption": "a cat"}, {"image_id": 7, "caption": "a dog"}]"#;
        let by_id = pair(&file("h", results), &references, false).unwrap();
        for folder in ["", "holiday/", "/x/holiday/"] {
            let records = record(&format!("{folder}b/1.jpg"), "a cat") + &record(&format!("{folder}a/1.jpg"), "a dog");
            let pairs = pair(&file("h", &records), &references, false).unwrap();
            assert_eq!(pairs.hypotheses, ["a dog", "a cat"], "{folder}");
            assert_eq!(pairs.references, [["a dog"], ["a cat"]]);
            assert_eq!((&pairs.images, &pairs.names[0]), (&by_id.images, &format!("{folder}a/1.jpg")));
        }
        // Which of the two is meant, nobody knows.
        let bare = file("h", &record("1.jpg", "a dog"));
        let error = pair(&bare, &references, true).unwrap_err().to_string();
        assert!(error.contains("no reference for 1 of the 1 images"), "{error}");
        let elsewhere = record("c/1.jpg", "a cat") + &record("d/1.jpg", "a dog");
        assert!(pair(&file("h", &elsewhere), &references, true).is_err());
    }

    #[test]
    fn lines_pair_by_their_number() {
        let references = [file("r1", "a dog\tthe dog\na cat\n"), file("r2", "dog\n\n")];
        let pairs = pair(&file("h", "dog\n\n"), &references, false).unwrap();
        assert_eq!(pairs.hypotheses, ["dog", ""]);
        assert_eq!(pairs.references, [vec!["a dog", "the dog", "dog"], vec!["a cat"]]);
        let error = pair(&file("h", "dog\n"), &references, false).unwrap_err().to_string();
        assert_eq!(error, "r1: lines: expected 1 as in h, got 2");
        let error = pair(&file("h", "a\nb\n"), &[file("r", "a\n\n")], false).unwrap_err().to_string();
        assert!(error.contains("on line 2"), "{error}");
        let error = pair(&file("h", "a\n"), &[file("r", ANNOTATIONS)], false).unwrap_err().to_string();
        assert!(error.contains("lines have no image ids"), "{error}");
    }

    #[test]
    fn mistakes_are_named() {
        let check = |hypotheses: &str, references: &str, part: &str| {
            let error = pair(&file("h", hypotheses), &[file("r", references)], false).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains('\n'), "{error}");
        };
        let one = r#"[{"image_id": 1, "caption": "x"}]"#;
        check(one, ANNOTATIONS, "h has no caption for 1 of the 2 images of r, image 2 for one");
        check(
            r#"[{"image_id": 5, "caption": "x"}]"#,
            ANNOTATIONS,
            "r has no reference for 1 of the 1 images of h, image 5",
        );
        let twice = r#"[{"image_id": 1, "caption": "x"}, {"image_id": 1, "caption": "y"}]"#;
        check(twice, ANNOTATIONS, "more than one caption for 1 of its images, image 1");
        check(ANNOTATIONS, RESULTS, "the files look swapped: h holds references");
        let bare = r#"{"images": [{"id": 1}], "annotations": []}"#;
        check(one, bare, "r has no reference for 1 of the 1 images");
        let partial = pair(&file("h", one), &[file("r", ANNOTATIONS)], true).unwrap();
        assert_eq!((partial.names.len(), partial.without_hypothesis), (1, 1));
    }

    #[test]
    fn bad_bytes_are_named() {
        assert_eq!(wrong(b"a dog\na c\xffat"), "h.json: line 2: expected UTF-8, got the byte 0xff at offset 9");
        assert!(wrong(b"[{\"image_id\": 1}]").contains("entry 1 has no \"image_id\" with \"caption\""));
        assert!(wrong(b"{\"a\": 1}").contains("without \"images\" or \"annotations\""));
        assert!(wrong(b"[{]").contains("line 1 column 3"));
        assert!(wrong(b"{\"images\": []} {}").contains("several"));
    }
}
