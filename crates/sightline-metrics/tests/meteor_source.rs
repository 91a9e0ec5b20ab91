//! Every kind of source of METEOR's data reads alike, and damage is told. The data is a few made-up lines.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use flate2::{Compression, write::GzEncoder};
use sightline_metrics::meteor::{Meteor, MeteorData, Module, Task};

const PARTS: [(&str, &str); 4] = [
    ("function/english.words", "the\na\non\n"),
    ("nonbreaking/english.prefixes", "# comment\nmr\nno #NUMERIC_ONLY#\n"),
    ("synonym/english.synsets", "dog\n1 2\nhound\n2 3\nfoot\n7\npaw\n7\n"),
    ("synonym/english.exceptions", "foot\nfeet\n"),
];

fn paraphrases() -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all("0.5\nin front of\nbefore\n0.25\nin front of\nahead of\n".as_bytes()).unwrap();
    gz.finish().unwrap()
}

fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sightline-meteor-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn jar() -> Vec<u8> {
    archive(&PARTS.map(|(name, text)| (name, text.as_bytes())))
}

/// Every module finds its match through this source.
fn check(source: &Path, cache: &Path) {
    let meteor = Meteor::new(MeteorData::open_with_cache(source, cache).unwrap(), Task::Rank);
    let matched = |hypothesis: &str, reference: &str, module: Module| {
        meteor.segment(hypothesis, &[reference]).counts.matches[module as usize]
    };
    let what = source.display();
    assert_eq!(matched("a hounds x", "a dog y", Module::Synonym), [1, 1, 0, 0], "{what}");
    assert_eq!(matched("a feet x", "a paw y", Module::Synonym), [1, 1, 0, 0], "by exception, {what}");
    assert_eq!(matched("x before y", "x in front of y", Module::Paraphrase), [1, 3, 0, 0], "{what}");
    assert_eq!(matched("x in front of y", "x before y", Module::Paraphrase), [3, 1, 0, 0], "{what}");
    assert_eq!(meteor.segment("the dog", &["the dog"]).counts.hypothesis_function_words, 1, "{what}");
}

#[test]
fn folder_jar_and_wheel() {
    let folder = Folder::new("kinds");
    let cache = folder.0.join("cache");
    for (name, text) in PARTS {
        folder.write(&format!("plain/deep/{name}"), text.as_bytes());
    }
    folder.write("plain/paraphrase-en.gz", &paraphrases());
    check(&folder.0.join("plain"), &cache);
    let jar_path = folder.write("meteor-1.5/meteor-1.5.jar", &jar());
    folder.write("meteor-1.5/data/paraphrase-en.gz", &paraphrases());
    check(&folder.0.join("meteor-1.5"), &cache);
    check(&jar_path, &cache);
    let wheel = archive(&[
        ("pycocoevalcap/spice/lib/Meteor-1.5.jar", b"another one"),
        ("pycocoevalcap/meteor/meteor-1.5.jar", &jar()),
        ("pycocoevalcap/meteor/data/paraphrase-en.gz", &paraphrases()),
    ]);
    let wheel = folder.write("wheels/pycocoevalcap-1.2-py3-none-any.whl", &wheel);
    check(&wheel, &cache);
    check(wheel.parent().unwrap(), &cache);
}

#[test]
fn damage_is_told() {
    let folder = Folder::new("damage");
    let cache_folder = folder.0.join("cache");
    let error = |path: &Path, part: &str| {
        let error = MeteorData::open_with_cache(path, &cache_folder).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains('\n'), "{error}");
    };
    error(&folder.0.join("absent.whl"), "cannot read");
    error(&folder.0, "holds no");
    error(&folder.write("text.jar", b"no zip"), "cannot read the archive");
    let jar = folder.write("jar/meteor-1.5.jar", &jar());
    error(&jar, "holds no paraphrase-en.gz");
    error(&jar, "sightline meteor-data fetch");
    folder.write("jar/data/paraphrase-en.gz", b"no gzip");
    error(&jar, "cannot unpack the paraphrases");
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(b"0.5\none\nother\nno number\n").unwrap();
    folder.write("jar/data/paraphrase-en.gz", &gz.finish().unwrap());
    error(&jar, "paraphrase-en.gz, line 4: expected a probability, got \"no number\"");
    folder.write("jar/synonym/english.synsets", b"word\nnot a number\n");
    for (name, text) in PARTS.iter().filter(|p| !p.0.contains("synsets")) {
        folder.write(&format!("jar/{name}"), text.as_bytes());
    }
    error(&folder.0.join("jar"), "english.synsets, line 2: expected numbers of synsets");
}

#[test]
fn a_damaged_cache_is_told_and_compiled_anew() {
    let folder = Folder::new("cache");
    let source = folder.write("meteor-1.5.jar", &jar());
    folder.write("data/paraphrase-en.gz", &paraphrases());
    let cache = folder.0.join("own.bin");
    MeteorData::compile(&source, &cache).unwrap();
    MeteorData::open_cache(&cache).unwrap();
    let bytes = std::fs::read(&cache).unwrap();
    for (at, part) in [(0, "header"), (9, "header"), (40, "checksum"), (bytes.len() - 1, "checksum")] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        std::fs::write(&cache, damaged).unwrap();
        let error = MeteorData::open_cache(&cache).unwrap_err().to_string();
        assert!(error.contains(part), "byte {at}: {error}");
    }
    std::fs::write(&cache, &bytes[..50]).unwrap();
    assert!(MeteorData::open_cache(&cache).unwrap_err().to_string().contains("too short"));

    let caches = folder.0.join("caches");
    check(&source, &caches);
    let compiled = std::fs::read_dir(&caches).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&compiled, b"half").unwrap();
    check(&source, &caches);
}
