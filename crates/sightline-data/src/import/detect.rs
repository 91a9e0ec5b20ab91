//! Which layout a source has, and why.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{IgnoredAny, SeqAccess, Visitor};

use super::{Layout, file_name, flickr, folder, json, read_text};
use crate::{Error, Result};

/// A recognised source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detected {
    /// What it is.
    pub layout: Layout,
    /// The files to read; for a folder of photos the folder itself.
    pub files: Vec<PathBuf>,
    /// The folder that everything is looked for in.
    pub folder: PathBuf,
    /// Why it is taken for that, one finding a line.
    pub explanation: Vec<String>,
}

/// Looks at a file or folder and says what layout it has.
///
/// # Errors
/// The source cannot be read, or is of no known layout; the message lists what was looked for.
pub fn detect(source: &Path) -> Result<Detected> {
    with_layout(source, None)
}

/// With a layout given, only looks for its files.
pub(super) fn with_layout(source: &Path, layout: Option<Layout>) -> Result<Detected> {
    let metadata = std::fs::metadata(source).map_err(Error::io("open", source))?;
    let mut detected = if metadata.is_dir() { in_folder(source, layout)? } else { file(source, layout)? };
    if detected.folder.as_os_str().is_empty() {
        detected.folder = PathBuf::from(".");
    }
    Ok(detected)
}

fn file(path: &Path, layout: Option<Layout>) -> Result<Detected> {
    let (layout, why) = match layout {
        Some(Layout::PhotoFolder) => {
            return Err(Error::format(path, "expected a folder of photos, got a file: name the folder"));
        }
        Some(layout) => (layout, "as asked for".to_owned()),
        None => file_layout(path)?,
    };
    Ok(Detected {
        layout,
        files: vec![path.to_owned()],
        folder: path.parent().unwrap_or(Path::new("")).to_owned(),
        explanation: vec![format!("{} is read as {}: {why}", file_name(path), layout.name())],
    })
}

fn file_layout(path: &Path) -> Result<(Layout, String)> {
    let bytes = read_text(path)?;
    if bytes.trim_ascii().is_empty() {
        return Err(Error::format(path, "expected a dataset, got an empty file"));
    }
    if bytes.trim_ascii_start().starts_with(b"{") {
        return json_layout(path, &bytes);
    }
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Error::format(
            path,
            "a JSON list: expected an object, Karpathy's dataset.json or COCO captions; a table (CSV) works too",
        ));
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x1f\x8b") {
        return Err(Error::format(path, "a packed file: unpack it and name what comes out"));
    }
    if bytes.iter().take(4096).any(|&b| b == 0) {
        return Err(Error::format(path, "not a text file: name a dataset's JSON, token file, table or folder"));
    }
    let first: Vec<&[u8]> = bytes.split(|&b| b == b'\n').filter(|l| !l.trim_ascii().is_empty()).take(20).collect();
    let tokens = first.iter().filter(|line| std::str::from_utf8(line).is_ok_and(flickr::is_token_line)).count();
    if tokens * 2 > first.len() {
        return Ok((
            Layout::FlickrTokens,
            format!("{tokens} of its first {} lines read `photo.jpg#0<TAB>sentence`", first.len()),
        ));
    }
    Ok((Layout::Table, "a text file that is no JSON and no token file".to_owned()))
}

/// The keys of the first element of a list; the rest is passed over.
#[derive(Default)]
struct FirstKeys(Option<BTreeMap<String, IgnoredAny>>);

impl<'de> Deserialize<'de> for FirstKeys {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = FirstKeys;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<FirstKeys, A::Error> {
                let first = list.next_element()?;
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(FirstKeys(first))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

impl FirstKeys {
    fn has(&self, key: &str) -> bool {
        self.0.as_ref().is_some_and(|keys| keys.contains_key(key))
    }
}

fn json_layout(path: &Path, bytes: &[u8]) -> Result<(Layout, String)> {
    #[derive(Deserialize)]
    struct Peek {
        sightline: Option<IgnoredAny>,
        images: Option<FirstKeys>,
        annotations: Option<FirstKeys>,
        #[serde(flatten)]
        rest: json::Rest,
    }
    let Peek { sightline, images, annotations, rest } =
        json::parse(path, bytes, "Karpathy's dataset.json or COCO captions")?;
    let refuse = |message: &str| Err(Error::format(path, message));
    let images_empty = images.as_ref().is_some_and(|images| images.0.is_none());
    match (images, annotations) {
        (Some(_), _) if sightline.is_some() => Ok((Layout::Karpathy, "a dataset that Sightline wrote".into())),
        (Some(images), _) if images.has("sentences") => {
            Ok((Layout::Karpathy, "its `images` hold their `sentences`".into()))
        }
        (Some(_), Some(annotations)) if annotations.has("caption") => {
            Ok((Layout::CocoCaptions, "its `annotations` hold a `caption` each".into()))
        }
        (Some(_), Some(annotations)) if annotations.has("bbox") => {
            refuse("COCO instances: boxes without sentences; import the captions file, and name this one as its boxes")
        }
        _ if images_empty => refuse("holds not one image"),
        (images, annotations) => {
            let keys: Vec<&str> = images
                .is_some()
                .then_some("images")
                .into_iter()
                .chain(annotations.is_some().then_some("annotations"))
                .chain(rest.keys().map(String::as_str))
                .take(8)
                .collect();
            refuse(&format!(
                "JSON of another layout (its keys: {}): expected `images` with `sentences` (Karpathy) or `images` and \
                 `annotations` with `caption` (COCO)",
                keys.join(", ")
            ))
        }
    }
}

fn in_folder(source: &Path, layout: Option<Layout>) -> Result<Detected> {
    let candidates = candidates(source)?;
    let wanted = |candidate: &&(Layout, Vec<PathBuf>)| layout.is_none_or(|layout| layout == candidate.0);
    if let Some((layout, files)) = candidates.iter().find(wanted) {
        let names: Vec<_> = files.iter().map(|file| file_name(file)).collect();
        let mut explanation = vec![format!("{} in the folder: read as {}", names.join(" and "), layout.name())];
        for (other, files) in candidates.iter().filter(|candidate| candidate.0 != *layout) {
            let names: Vec<_> = files.iter().map(|file| file_name(file)).collect();
            explanation.push(format!(
                "{} beside it, {}, left alone: name the file itself to import it",
                names.join(" and "),
                other.name()
            ));
        }
        if *layout == Layout::Table && files.len() > 1 {
            return Err(Error::format(
                source,
                format!("several tables ({}): name the one to import", names.join(", ")),
            ));
        }
        let folder = files[0].parent().unwrap_or(source).to_owned();
        return Ok(Detected { layout: *layout, files: files.clone(), folder, explanation });
    }
    if layout.is_none_or(|layout| layout == Layout::PhotoFolder) && folder::has_pairs(source) {
        return Ok(Detected {
            layout: Layout::PhotoFolder,
            files: vec![source.to_owned()],
            folder: source.to_owned(),
            explanation: vec!["photos with a .txt of the same name beside them".to_owned()],
        });
    }
    Err(Error::format(
        source,
        match layout {
            Some(layout) => format!("found no file of {} here: name the file itself", layout.name()),
            None => "found no dataset here: looked for dataset.json (Karpathy), captions_*.json (COCO), *.token.txt \
                     (Flickr), *.csv or *.tsv, captions.txt, and photos with a .txt beside them"
                .to_owned(),
        },
    ))
}

/// Files that look like a dataset by their names, the surest layout first.
fn candidates(source: &Path) -> Result<Vec<(Layout, Vec<PathBuf>)>> {
    let mut found: BTreeMap<usize, (Layout, Vec<PathBuf>)> = BTreeMap::new();
    for folder in [source.to_owned(), source.join("annotations"), source.join("Flickr8k_text")] {
        if folder != source && !folder.is_dir() {
            continue;
        }
        let entries = std::fs::read_dir(&folder).map_err(Error::io("list", &folder))?;
        let mut files: Vec<PathBuf> =
            entries.filter_map(|e| e.ok()).map(|e| e.path()).filter(|p| p.is_file()).collect();
        files.sort();
        for file in files {
            let name = file_name(&file).to_lowercase();
            let (rank, layout) = if name == "dataset.json" || name.starts_with("dataset_") && name.ends_with(".json") {
                (0, Layout::Karpathy)
            } else if name.starts_with("captions_") && name.ends_with(".json") {
                (1, Layout::CocoCaptions)
            } else if name.ends_with(".token") || name.ends_with(".token.txt") && !name.contains("lemma") {
                (2, Layout::FlickrTokens)
            } else if name.ends_with(".csv") || name.ends_with(".tsv") || name == "captions.txt" {
                (3, Layout::Table)
            } else {
                continue;
            };
            found.entry(rank).or_insert((layout, Vec::new())).1.push(file);
        }
    }
    let mut found: Vec<_> = found.into_values().collect();
    for (layout, files) in &mut found {
        match layout {
            // `dataset.json` before `dataset_coco.json`; a token file is one.
            Layout::Karpathy | Layout::FlickrTokens => files.truncate(1),
            // `captions.txt` of a folder of photos may be one photo's sentences, but then `captions.jpg` lies there.
            Layout::Table => {
                files.retain(|file| !(file_name(file) == "captions.txt" && folder::photo_of_text(file).is_some()));
            }
            Layout::CocoCaptions | Layout::PhotoFolder => {}
        }
    }
    found.retain(|(_, files)| !files.is_empty());
    // A dataset.json of ours or Karpathy's may be a COCO file by another name: the content decides.
    for (layout, files) in &mut found {
        if *layout == Layout::Karpathy {
            *layout = file_layout(&files[0])?.0;
        }
    }
    Ok(found)
}
