//! Where METEOR's data comes from: a METEOR data folder, its jar, or the wheel of pycocoevalcap 1.2.
//!
//! None of it is ours to ship (WordNet licence, LGPL 2.1), so it is read from what the user has.

use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::path::{Path, PathBuf};

use zip::ZipArchive;

use crate::{Error, Result};

const FUNCTION_WORDS: &str = "function/english.words";
const PREFIXES: &str = "nonbreaking/english.prefixes";
const SYNSETS: &str = "synonym/english.synsets";
const EXCEPTIONS: &str = "synonym/english.exceptions";
const PARAPHRASES: &str = "paraphrase-en.gz";
const JAR: &str = "meteor-1.5.jar";

/// The parts of METEOR's data as they are in the source, the paraphrases still compressed.
#[derive(Debug)]
pub(super) struct Source {
    pub function_words: String,
    pub prefixes: String,
    pub synsets: String,
    pub exceptions: String,
    pub paraphrases_gz: Vec<u8>,
}

/// Reads a source of any of the known kinds.
pub(super) fn read(path: &Path) -> Result<Source> {
    if path.is_dir() { read_folder(path) } else { read_archive(path) }
}

/// The files that a fingerprint of the source looks at.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_dir() {
        let mut files = Vec::new();
        walk(path, 5, &mut files)?;
        files.retain(|f| is_part(f));
        files.sort();
        if files.is_empty() {
            return Err(Error::MeteorPart { path: path.to_owned(), resource: SYNSETS });
        }
        return Ok(files);
    }
    let mut files = vec![path.to_owned()];
    files.extend(paraphrases_beside(path));
    Ok(files)
}

fn is_part(file: &Path) -> bool {
    let known = [FUNCTION_WORDS, PREFIXES, SYNSETS, EXCEPTIONS, PARAPHRASES];
    known.iter().any(|part| file.ends_with(part)) || is_jar(file) || is_wheel(file)
}

fn is_jar(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.starts_with("meteor") && name.ends_with(".jar")
}

fn is_wheel(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.starts_with("pycocoevalcap") && name.ends_with(".whl")
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io("read the folder", folder))? {
        let path = entry.map_err(Error::io("read the folder", folder))?.path();
        if path.is_dir() {
            if depth > 0 {
                walk(&path, depth - 1, files)?;
            }
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn read_folder(folder: &Path) -> Result<Source> {
    let files = files(folder)?;
    let missing = |resource| Error::MeteorPart { path: folder.to_owned(), resource };
    let find = |part: &str| files.iter().find(|f| f.ends_with(part));
    let Some(paraphrases) = find(PARAPHRASES) else {
        return match files.iter().find(|f| is_wheel(f)) {
            Some(wheel) => read_archive(wheel),
            None => Err(missing(PARAPHRASES)),
        };
    };
    let paraphrases_gz = std::fs::read(paraphrases).map_err(Error::io("read", paraphrases))?;
    let parts = [FUNCTION_WORDS, PREFIXES, SYNSETS, EXCEPTIONS];
    if parts.iter().all(|part| find(part).is_some()) {
        let mut texts = parts.iter().filter_map(|part| find(part)).map(|file| {
            let bytes = std::fs::read(file).map_err(Error::io("read", file))?;
            text(file, bytes)
        });
        let mut next = |part| texts.next().unwrap_or_else(|| Err(missing(part)));
        return Ok(Source {
            function_words: next(FUNCTION_WORDS)?,
            prefixes: next(PREFIXES)?,
            synsets: next(SYNSETS)?,
            exceptions: next(EXCEPTIONS)?,
            paraphrases_gz,
        });
    }
    let jar = files.iter().find(|f| is_jar(f)).ok_or_else(|| missing(SYNSETS))?;
    let file = File::open(jar).map_err(Error::io("read", jar))?;
    read_jar(jar, std::io::BufReader::new(file), paraphrases_gz)
}

/// `data/paraphrase-en.gz` where the layout of METEOR and of pycocoevalcap puts it.
fn paraphrases_beside(jar: &Path) -> Option<PathBuf> {
    let folder = jar.parent()?;
    [folder.join("data").join(PARAPHRASES), folder.join(PARAPHRASES)].into_iter().find(|p| p.is_file())
}

fn read_archive(path: &Path) -> Result<Source> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let mut archive = open(path, std::io::BufReader::new(file))?;
    // A wheel holds the jar; a jar holds the synsets itself.
    if let Some(jar) = entry(path, &mut archive, JAR)? {
        let paraphrases_gz = entry(path, &mut archive, PARAPHRASES)?
            .ok_or_else(|| Error::MeteorPart { path: path.to_owned(), resource: PARAPHRASES })?;
        return read_jar(path, Cursor::new(jar), paraphrases_gz);
    }
    let paraphrases_gz = match entry(path, &mut archive, PARAPHRASES)? {
        Some(bytes) => bytes,
        None => {
            let beside = paraphrases_beside(path)
                .ok_or_else(|| Error::MeteorPart { path: path.to_owned(), resource: PARAPHRASES })?;
            std::fs::read(&beside).map_err(Error::io("read", &beside))?
        }
    };
    let file = File::open(path).map_err(Error::io("read", path))?;
    read_jar(path, std::io::BufReader::new(file), paraphrases_gz)
}

fn read_jar(path: &Path, jar: impl Read + Seek, paraphrases_gz: Vec<u8>) -> Result<Source> {
    let mut archive = open(path, jar)?;
    let mut part = |resource: &'static str| {
        let bytes = entry(path, &mut archive, resource)?
            .ok_or_else(|| Error::MeteorPart { path: path.to_owned(), resource })?;
        text(path, bytes)
    };
    Ok(Source {
        function_words: part(FUNCTION_WORDS)?,
        prefixes: part(PREFIXES)?,
        synsets: part(SYNSETS)?,
        exceptions: part(EXCEPTIONS)?,
        paraphrases_gz,
    })
}

fn open<R: Read + Seek>(path: &Path, reader: R) -> Result<ZipArchive<R>> {
    ZipArchive::new(reader).map_err(|source| Error::Archive { path: path.to_owned(), source })
}

/// The largest entry that is ever read: the paraphrase table is 62 MB.
const LARGEST: u64 = 1 << 30;

/// The content of the first entry whose path ends in `suffix`.
fn entry<R: Read + Seek>(path: &Path, archive: &mut ZipArchive<R>, suffix: &str) -> Result<Option<Vec<u8>>> {
    let failed = |source| Error::Archive { path: path.to_owned(), source };
    // SPICE brings another copy of the jar in a folder of its own, so names are compared with their case.
    let nested = format!("/{suffix}");
    let is_it = |name: &str| name == suffix || name.ends_with(&nested);
    let index =
        (0..archive.len()).find(|&i| archive.name_for_index(i).is_some_and(|name| name.is_ok_and(|name| is_it(&name))));
    let Some(index) = index else { return Ok(None) };
    let entry = archive.by_index(index).map_err(failed)?;
    let mut bytes = Vec::new();
    entry.take(LARGEST).read_to_end(&mut bytes).map_err(Error::io("unpack", path))?;
    Ok(Some(bytes))
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| Error::Malformed {
        path: path.to_owned(),
        what: "METEOR's word lists".to_owned(),
        expected: "UTF-8".to_owned(),
        got: error.utf8_error().to_string(),
    })
}
