//! The dataset's own file, version 1: its one writer and its one reader.
//!
//! The layout is that of Karpathy's `dataset.json`, so that programs which read his files read ours, with one key
//! more. One photo stands on each line.
//!
//! ```text
//! {"sightline": {"version": 1, "root": "photos", "checksum": "0123456789abcdef"},
//!  "dataset": "flickr8k",
//!  "pairing": [[sentid, imgid], …],                         only where there are such pairs
//!  "images": [{"filename": "a.jpg", "filepath": "x/y", "imgid": 0, "split": "train", "sentids": [0],
//!              "sentences": [{"tokens": ["a", "dog"], "raw": "A dog .", "imgid": 0, "sentid": 0}],
//!              "boxes": [[x1, y1, x2, y2], …]}, …]}
//! ```
//! `root` is the folder of photos, absolute or relative to the file's own folder; a photo lies at
//! `root/filepath/filename`. `filepath` and `boxes` are left out where empty. The checksum is the XXH3-64 of the
//! content without `sightline`, written compactly in the order above; white space and the root may change freely.

use std::io::Write;
use std::path::{Path, PathBuf};

use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};

use crate::{BoxXyxy, Dataset, Error, Image, Pair, Result, Sentence, Split, checksum, write};

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    root: String,
    checksum: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    dataset: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pairing: Vec<Pair>,
    images: Vec<ImageRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    sightline: Header,
    dataset: String,
    #[serde(default)]
    pairing: Vec<Pair>,
    images: Vec<ImageRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageRecord {
    filename: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    filepath: String,
    imgid: u64,
    split: Split,
    sentids: Vec<u64>,
    sentences: Vec<SentenceRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    boxes: Vec<BoxXyxy>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SentenceRecord {
    tokens: Vec<String>,
    raw: String,
    imgid: u64,
    sentid: u64,
}

/// Read first, so that another version or layout gets its own message.
#[derive(Deserialize)]
struct Peek {
    sightline: Option<PeekHeader>,
}

#[derive(Deserialize)]
struct PeekHeader {
    version: u32,
}

impl From<&Image> for ImageRecord {
    fn from(image: &Image) -> Self {
        let (filepath, filename) = image.path.rsplit_once('/').unwrap_or(("", &image.path));
        // A file right under `/` has an empty folder that must not vanish.
        let filepath = if filepath.is_empty() && image.path.starts_with('/') { "/" } else { filepath };
        Self {
            filename: filename.to_owned(),
            filepath: filepath.to_owned(),
            imgid: image.id,
            split: image.split,
            sentids: image.sentences.iter().map(|sentence| sentence.id).collect(),
            sentences: image
                .sentences
                .iter()
                .map(|sentence| SentenceRecord {
                    tokens: sentence.tokens.clone(),
                    raw: sentence.raw.clone(),
                    imgid: image.id,
                    sentid: sentence.id,
                })
                .collect(),
            boxes: image.boxes.clone(),
        }
    }
}

impl From<ImageRecord> for Image {
    fn from(record: ImageRecord) -> Self {
        let sentences = record.sentences.into_iter();
        Self {
            id: record.imgid,
            path: join(&record.filepath, &record.filename),
            split: record.split,
            sentences: sentences.map(|s| Sentence { id: s.sentid, raw: s.raw, tokens: s.tokens }).collect(),
            boxes: record.boxes,
        }
    }
}

/// `filepath/filename`, as Karpathy's COCO file has it.
pub(crate) fn join(filepath: &str, filename: &str) -> String {
    match filepath {
        "" => filename.to_owned(),
        _ if filepath.ends_with('/') => format!("{filepath}{filename}"),
        _ => format!("{filepath}/{filename}"),
    }
}

impl Dataset {
    /// Writes the dataset as one JSON file, atomically.
    ///
    /// The root is written relative to the file's folder where it lies inside, and absolute otherwise.
    ///
    /// # Errors
    /// The file cannot be written, or the root's name is not UTF-8.
    pub fn save(&self, path: &Path) -> Result<()> {
        let absolute = |path: &Path| std::path::absolute(path).map_err(Error::io("resolve", path));
        let file = absolute(path)?;
        // An empty path means the current folder, which `absolute` would refuse.
        let root = absolute(if self.root.as_os_str().is_empty() { Path::new(".") } else { &self.root })?;
        let root = match file.parent().and_then(|folder| root.strip_prefix(folder).ok()) {
            Some(inside) if inside.as_os_str().is_empty() => PathBuf::from("."),
            Some(inside) => inside.to_owned(),
            None => root,
        };
        let root = root.to_str().ok_or_else(|| {
            Error::format(path, format!("the folder of photos has a name that is not UTF-8: {}", root.display()))
        })?;
        let content = Content {
            dataset: self.name.clone(),
            pairing: self.pairing.clone(),
            images: self.images.iter().map(ImageRecord::from).collect(),
        };
        let header = Header { version: VERSION, root: root.to_owned(), checksum: content.checksum(path)? };
        write::atomically(path, |out| {
            writeln!(out, "{{\"sightline\":{},", serde_json::to_string(&header)?)?;
            writeln!(out, "\"dataset\":{},", serde_json::to_string(&content.dataset)?)?;
            if !content.pairing.is_empty() {
                writeln!(out, "\"pairing\":{},", serde_json::to_string(&content.pairing)?)?;
            }
            out.write_all(b"\"images\":[")?;
            for (i, image) in content.images.iter().enumerate() {
                out.write_all(if i == 0 { b"\n" } else { b",\n" })?;
                serde_json::to_writer(&mut *out, image)?;
            }
            out.write_all(b"\n]}\n")
        })
    }

    /// Whether [`Dataset::save`] wrote this file, whole or not.
    pub fn is_ours(path: &Path) -> bool {
        let Ok(bytes) = std::fs::read(path) else { return false };
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        match serde_json::from_slice::<Peek>(bytes) {
            Ok(peek) => peek.sightline.is_some(),
            // Torn or edited by hand: the first key is ours.
            Err(_) => bytes.trim_ascii_start().starts_with(b"{\"sightline\""),
        }
    }

    /// Reads a dataset that [`Dataset::save`] wrote; `path` is the file, or a folder with `dataset.json` in it.
    ///
    /// # Errors
    /// No such file; JSON that is broken (line and column are named); another layout, which wants importing first;
    /// another version; content that was changed since.
    pub fn load(path: &Path) -> Result<Self> {
        let inside = path.join("dataset.json");
        let path = if path.is_dir() {
            if !inside.is_file() {
                return Err(Error::format(path, format!("no dataset.json in this folder: {}", import_first(path))));
            }
            inside.as_path()
        } else {
            path
        };
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(Error::format(path, format!("not a Sightline dataset: {}", import_first(path))));
        }
        let broken = |e: serde_json::Error| Error::format(path, format!("broken dataset: {e}"));
        let Some(PeekHeader { version }) = serde_json::from_slice::<Peek>(bytes).map_err(broken)?.sightline else {
            let what = crate::import::detect(path).map_or_else(
                |_| "a JSON file of another layout".to_owned(),
                |detected| detected.layout.name().to_owned(),
            );
            return Err(Error::format(path, format!("{what}, not a Sightline dataset: {}", import_first(path))));
        };
        if version != VERSION {
            return Err(Error::format(
                path,
                format!("dataset of version {version}, but this program reads version {VERSION}: import it again"),
            ));
        }
        let File { sightline: header, dataset, pairing, images } = serde_json::from_slice(bytes).map_err(broken)?;
        let content = Content { dataset, pairing, images };
        if content.checksum(path)? != header.checksum {
            return Err(Error::format(
                path,
                format!("changed since it was written (its checksum differs): {}", import_first(path)),
            ));
        }
        content.check_ids(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let root = if header.root == "." { folder.to_owned() } else { folder.join(&header.root) };
        Ok(Self {
            name: content.dataset,
            root,
            images: content.images.into_iter().map(Image::from).collect(),
            pairing: content.pairing,
        })
    }
}

fn import_first(path: &Path) -> String {
    format!("import it first: sightline dataset import {} -o DATASET", path.display())
}

impl Content {
    fn checksum(&self, path: &Path) -> Result<String> {
        let bytes = serde_json::to_vec(self).map_err(|e| Error::format(path, format!("cannot be written: {e}")))?;
        Ok(checksum::of_bytes(&bytes))
    }

    /// What every reader may rely on: ids and paths are unique, and pairs name what is there.
    fn check_ids(&self, path: &Path) -> Result<()> {
        let bad = |message: String| Error::format(path, format!("broken dataset: {message}"));
        let (mut images, mut sentences, mut paths) = (FxHashSet::default(), FxHashSet::default(), FxHashSet::default());
        for image in &self.images {
            if !images.insert(image.imgid) {
                return Err(bad(format!("imgid {} twice", image.imgid)));
            }
            if !paths.insert((&image.filepath, &image.filename)) {
                return Err(bad(format!("photo `{}` twice", image.filename)));
            }
            if let Some(sentence) = image.sentences.iter().find(|sentence| !sentences.insert(sentence.sentid)) {
                return Err(bad(format!("sentid {} twice", sentence.sentid)));
            }
            if let Some(sentence) = image.sentences.iter().find(|sentence| sentence.imgid != image.imgid) {
                return Err(bad(format!(
                    "sentence {} says imgid {}, but stands in image {}",
                    sentence.sentid, sentence.imgid, image.imgid
                )));
            }
        }
        let unknown = |p: &&Pair| !images.contains(&p.image) || !sentences.contains(&p.sentence);
        match self.pairing.iter().find(unknown) {
            Some(p) => Err(bad(format!("pairing of sentence {} with image {}: no such ids", p.sentence, p.image))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_error(content: &str, expected: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dataset.json");
        std::fs::write(&path, content).unwrap();
        for at in [path.as_path(), folder.path()] {
            let error = Dataset::load(at).expect_err(content).to_string();
            for part in expected {
                assert!(error.contains(part), "{content}: {error}");
            }
            assert!(error.contains("dataset.json") && !error.contains('\n'), "{error}");
            assert_eq!(Dataset::is_ours(&path), content.starts_with("{\"sightline\""), "{content}");
        }
    }

    #[test]
    fn other_files_get_clear_errors() {
        check_error("", &["not a Sightline dataset"]);
        check_error("image,caption\na.jpg,A dog", &["not a Sightline dataset", "import it first"]);
        check_error("{\"sightline\":\n {,", &["broken dataset", "line 2 column 3"]);
        check_error("{\"a\":1}", &["another layout", "sightline dataset import"]);
        check_error(
            r#"{"dataset":"x","images":[{"filename":"a.jpg","sentences":[{"raw":"A dog"}]}]}"#,
            &["Karpathy", "import it first: sightline dataset import"],
        );
        check_error(
            r#"{"images":[{"id":1,"file_name":"a.jpg"}],"annotations":[{"image_id":1,"id":1,"caption":"A dog"}]}"#,
            &["COCO captions", "import it first"],
        );
        check_error(r#"{"sightline":{"version":2}}"#, &["version 2", "reads version 1"]);
        check_error(r#"{"sightline":{"version":1}}"#, &["missing field `root`", "line 1"]);
        check_error(
            r#"{"sightline":{"version":1,"root":".","checksum":"0"},"dataset":"x","images":[]}"#,
            &["changed since it was written"],
        );
        check_error(
            r#"{"sightline":{"version":1,"root":".","checksum":"0"},"dataset":"x","images":[],"more":1}"#,
            &["unknown field `more`"],
        );
        let folder = tempfile::tempdir().unwrap();
        assert!(Dataset::load(folder.path()).unwrap_err().to_string().contains("no dataset.json in this folder"));
        assert!(matches!(Dataset::load(&folder.path().join("absent")).unwrap_err(), Error::Io { .. }));
    }

    fn dataset(root: &Path) -> Dataset {
        let sentence = |id, raw: &str| Sentence { id, raw: raw.into(), tokens: crate::tokens::tokenize(raw) };
        Dataset {
            name: "two".into(),
            root: root.into(),
            images: vec![
                Image {
                    id: 7,
                    path: "x/y/a.jpg".into(),
                    split: Split::Train,
                    sentences: vec![sentence(3, "A dog ."), sentence(1, "Ein „Hund“")],
                    boxes: vec![[0.1, 2.0, 3.5, 4.0].into()],
                },
                Image { id: 2, path: "b.jpg".into(), split: Split::Restval, ..Image::default() },
                Image { id: 3, path: "/b.jpg".into(), split: Split::Val, ..Image::default() },
                Image { id: 4, path: "../b.jpg".into(), split: Split::Test, ..Image::default() },
            ],
            pairing: vec![Pair { sentence: 1, image: 2 }],
        }
    }

    #[test]
    fn a_saved_dataset_loads_again_even_after_moving() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().join("here");
        for (root, expected) in [(here.join("photos"), "photos"), (here.clone(), ".")] {
            let dataset = dataset(&root);
            dataset.save(&here.join("dataset.json")).unwrap();
            assert_eq!(Dataset::load(&here).unwrap(), dataset);
            let text = std::fs::read_to_string(here.join("dataset.json")).unwrap();
            assert!(text.starts_with(&format!("{{\"sightline\":{{\"version\":1,\"root\":\"{expected}\",")), "{text}");
        }
        let moved = folder.path().join("moved");
        std::fs::rename(&here, &moved).unwrap();
        assert_eq!(Dataset::load(&moved).unwrap(), dataset(&moved));
        let elsewhere = folder.path().join("elsewhere");
        dataset(&elsewhere).save(&moved.join("dataset.json")).unwrap();
        assert_eq!(Dataset::load(&moved).unwrap(), dataset(&elsewhere));
    }

    #[test]
    fn a_changed_word_is_noticed_and_a_changed_root_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.json");
        dataset(folder.path()).save(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("A dog", "A cat")).unwrap();
        assert!(Dataset::load(&path).unwrap_err().to_string().contains("changed since it was written"));
        std::fs::write(&path, text.replace("\"root\":\".\"", "\"root\": \"other\"")).unwrap();
        assert_eq!(Dataset::load(&path).unwrap(), dataset(&folder.path().join("other")));
        assert!(Dataset::is_ours(&path));
        std::fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(Dataset::is_ours(&path), "half of ours is not somebody else's");
        assert!(Dataset::load(&path).unwrap_err().to_string().contains("EOF while parsing"));
    }

    #[test]
    fn ids_that_clash_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.json");
        let check = |change: fn(&mut Dataset), expected: &str| {
            let mut clashing = dataset(folder.path());
            change(&mut clashing);
            clashing.save(&path).unwrap();
            let error = Dataset::load(&path).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(|d| d.images[1].id = 7, "imgid 7 twice");
        check(|d| d.images[1].path = "x/y/a.jpg".into(), "photo `a.jpg` twice");
        check(|d| d.images[0].sentences[1].id = 3, "sentid 3 twice");
        check(|d| d.pairing[0].image = 99, "pairing of sentence 1 with image 99");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
        #[test]
        fn any_text_round_trips(raws in prop::collection::vec(any::<String>(), 1..5), name in any::<String>(),
                corners in prop::array::uniform4(-1e6f32..1e6), file in "[^/\\x00]{1,9}") {
            let folder = tempfile::tempdir().unwrap();
            let dataset = Dataset {
                name,
                root: folder.path().to_owned(),
                images: vec![Image {
                    path: file,
                    sentences: raws.iter().enumerate().map(|(i, raw)| Sentence {
                        id: i as u64, raw: raw.clone(), tokens: crate::tokens::tokenize(raw),
                    }).collect(),
                    boxes: vec![corners.into()],
                    ..Image::default()
                }],
                pairing: Vec::new(),
            };
            dataset.save(&folder.path().join("d")).unwrap();
            prop_assert_eq!(Dataset::load(&folder.path().join("d")).unwrap(), dataset);
        }
    }
}
