//! METEOR's data, compiled once into a cache that is mapped into memory.
//!
//! The cache is one file: a header (magic, version, fingerprint of the source, checksum of the rest), a table of
//! sections, and the sections. Numbers are 32-bit little-endian. Word tables are sorted by bytes and searched by
//! halving; phrases are found by an open hash table over the numbers of their words.

use std::io::{BufRead, Read, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use rustc_hash::{FxHashMap, FxHashSet};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::normalise::Prefixes;
use super::source::{self, Source};
use crate::{Error, Result};

const MAGIC: [u8; 8] = *b"SLMETEOR";
const VERSION: u32 = 1;
/// Magic, version, number of sections, fingerprint, checksum.
const HEADER: usize = 8 + 4 + 4 + 8 + 8;
/// Longest phrase of the paraphrase table that is looked up, in words.
pub(super) const LONGEST_PHRASE: usize = 7;

/// The sections in their order in the file.
#[derive(Clone, Copy)]
enum Section {
    FunctionWords,
    Prefixes,
    Exceptions,
    SynsetWordOffsets,
    SynsetWords,
    SynsetOffsets,
    Synsets,
    WordOffsets,
    Words,
    PhraseOffsets,
    PhraseWords,
    PhraseTable,
    TargetOffsets,
    Targets,
}

const SECTIONS: usize = 14;

/// METEOR's data, ready for use.
pub struct MeteorData {
    map: Mmap,
    sections: [(usize, usize); SECTIONS],
    pub(super) function_words: FxHashSet<String>,
    pub(super) prefixes: Prefixes,
    /// Inflected form to base forms.
    exceptions: FxHashMap<String, Vec<String>>,
}

impl std::fmt::Debug for MeteorData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MeteorData").field("bytes", &self.map.len()).finish_non_exhaustive()
    }
}

/// The folder of this program's caches: SIGHTLINE_CACHE, else the user's cache folder, else the system's temporary one.
pub fn cache_folder() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(folder) = set("SIGHTLINE_CACHE") {
        return folder;
    }
    let base = set("XDG_CACHE_HOME")
        .or_else(|| set("LOCALAPPDATA"))
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir);
    base.join("sightline")
}

/// The name of the wheel that holds METEOR's data.
pub const WHEEL: &str = "pycocoevalcap-1.2-py3-none-any.whl";

/// METEOR's data where it is expected: SIGHTLINE_METEOR_DATA, else the wheel in [`cache_folder`]; none if neither is.
pub fn find_data() -> Option<PathBuf> {
    match std::env::var_os("SIGHTLINE_METEOR_DATA").filter(|v| !v.is_empty()) {
        Some(path) => Some(PathBuf::from(path)),
        None => Some(cache_folder().join(WHEEL)).filter(|p| p.is_file()),
    }
}

impl MeteorData {
    /// The data from where [`find_data`] expects it.
    pub fn find() -> Result<Self> {
        Self::open(&find_data().ok_or(Error::MeteorDataMissing)?)
    }

    /// The data of a METEOR data folder, its jar, or the wheel of pycocoevalcap 1.2, through a cache in
    /// [`cache_folder`] that is compiled at first use and when the source changes.
    pub fn open(source: &Path) -> Result<Self> {
        Self::open_with_cache(source, &cache_folder())
    }

    /// As [`open`](Self::open), with the cache in this folder.
    pub fn open_with_cache(source: &Path, folder: &Path) -> Result<Self> {
        let fingerprint = fingerprint(source)?;
        let cache = folder.join(format!("meteor-{VERSION}-{fingerprint:016x}.bin"));
        match Self::map(&cache, Some(fingerprint)) {
            Ok(data) => return Ok(data),
            // None yet, or one that a crash or another version left: compile it.
            Err(Error::Io { .. } | Error::Cache { .. }) => {}
            Err(other) => return Err(other),
        }
        compile(source, fingerprint, &cache)?;
        Self::map(&cache, Some(fingerprint))
    }

    /// Compiles a cache at `cache` from a source, for use without the source by [`open_cache`](Self::open_cache).
    pub fn compile(source: &Path, cache: &Path) -> Result<()> {
        compile(source, fingerprint(source)?, cache)
    }

    /// Opens a compiled cache.
    pub fn open_cache(cache: &Path) -> Result<Self> {
        Self::map(cache, None)
    }

    fn map(path: &Path, fingerprint: Option<u64>) -> Result<Self> {
        let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
        let map = super::map::map(&file).map_err(Error::io("map", path))?;
        let wrong = |why| Error::Cache { path: path.to_owned(), why };
        if map.len() < HEADER + SECTIONS * 8 {
            return Err(wrong("it is too short"));
        }
        if map[..8] != MAGIC || u32_at(&map, 8) != VERSION || u32_at(&map, 12) != SECTIONS as u32 {
            return Err(wrong("its header differs"));
        }
        if fingerprint.is_some_and(|f| u64_at(&map, 16) != f) {
            return Err(wrong("its source differs"));
        }
        if xxh3_64(&map[HEADER..]) != u64_at(&map, 24) {
            return Err(wrong("its checksum differs"));
        }
        let mut sections = [(0, 0); SECTIONS];
        let mut start = HEADER + SECTIONS * 8;
        for (i, section) in sections.iter_mut().enumerate() {
            let length = u64_at(&map, HEADER + i * 8) as usize;
            *section = (start, length);
            start =
                start.checked_add(length).filter(|&end| end <= map.len()).ok_or_else(|| wrong("it is cut short"))?;
        }
        let text = |section: Section| {
            let (start, length) = sections[section as usize];
            std::str::from_utf8(&map[start..start + length]).map_err(|_| wrong("its word lists are not UTF-8"))
        };
        let function_words = text(Section::FunctionWords)?.lines().map(str::to_owned).collect();
        let prefixes = Prefixes::parse(text(Section::Prefixes)?);
        let mut exceptions: FxHashMap<String, Vec<String>> = FxHashMap::default();
        let mut lines = text(Section::Exceptions)?.lines();
        while let (Some(base), Some(forms)) = (lines.next(), lines.next()) {
            for form in forms.split_whitespace() {
                exceptions.entry(form.to_owned()).or_default().push(base.to_owned());
            }
        }
        Ok(Self { map, sections, function_words, prefixes, exceptions })
    }

    fn section(&self, section: Section) -> &[u8] {
        let (start, length) = self.sections[section as usize];
        &self.map[start..start + length]
    }

    fn number(&self, section: Section, index: usize) -> usize {
        u32_at(self.section(section), index * 4) as usize
    }

    /// The place of `word` in a sorted table of words.
    fn place(&self, offsets: Section, words: Section, word: &str) -> Option<usize> {
        let (offsets, words) = (self.section(offsets), self.section(words));
        let count = (offsets.len() / 4).checked_sub(1)?;
        let at = |i: usize| &words[u32_at(offsets, i * 4) as usize..u32_at(offsets, i * 4 + 4) as usize];
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low.midpoint(high);
            match at(middle).cmp(word.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }

    /// Appends the synsets that list `word` itself; whether it is listed.
    fn own_synsets(&self, word: &str, synsets: &mut Vec<u32>) -> bool {
        let Some(at) = self.place(Section::SynsetWordOffsets, Section::SynsetWords, word) else { return false };
        let range = self.number(Section::SynsetOffsets, at)..self.number(Section::SynsetOffsets, at + 1);
        synsets.extend(range.map(|i| self.number(Section::Synsets, i) as u32));
        true
    }

    /// All synsets of a word, sorted: its own and those of its base form, by exception or by suffix.
    pub(super) fn synsets(&self, word: &str) -> Vec<u32> {
        let mut synsets = Vec::new();
        self.own_synsets(word, &mut synsets);
        match self.exceptions.get(word) {
            Some(bases) => {
                for base in bases {
                    self.own_synsets(base, &mut synsets);
                }
            }
            None => self.base_synsets(word, &mut synsets),
        }
        synsets.sort_unstable();
        synsets.dedup();
        synsets
    }

    /// Appends the synsets of the word's base form by the suffix rules of WordNet; the first form that is listed wins.
    fn base_synsets(&self, word: &str, synsets: &mut Vec<u32>) {
        const RULES: [(&str, &str); 20] = [
            ("s", ""),
            ("ses", "s"),
            ("xes", "x"),
            ("zes", "z"),
            ("ches", "ch"),
            ("shes", "sh"),
            ("men", "man"),
            ("ies", "y"),
            ("s", ""),
            ("ies", "y"),
            ("es", "e"),
            ("es", ""),
            ("ed", "e"),
            ("ed", ""),
            ("ing", "e"),
            ("ing", ""),
            ("er", ""),
            ("est", ""),
            ("er", "e"),
            ("est", "e"),
        ];
        let (stem, end) = word.strip_suffix("ful").map_or((word, ""), |stem| (stem, "ful"));
        if word.ends_with("ss") || word.chars().count() <= 2 {
            self.own_synsets(word, synsets);
            return;
        }
        for (suffix, replacement) in RULES {
            if let Some(root) = stem.strip_suffix(suffix)
                && self.own_synsets(&format!("{root}{replacement}{end}"), synsets)
            {
                return;
            }
        }
    }

    /// The number of a word of the paraphrase table.
    pub(super) fn paraphrase_word(&self, word: &str) -> Option<u32> {
        self.place(Section::WordOffsets, Section::Words, word).map(|at| at as u32)
    }

    /// How many phrases the paraphrase table knows, as sources or as targets.
    pub(super) fn phrases(&self) -> usize {
        (self.section(Section::PhraseOffsets).len() / 4).saturating_sub(1)
    }

    /// The number of the phrase of these words.
    pub(super) fn phrase(&self, words: &[u32]) -> Option<u32> {
        let table = self.section(Section::PhraseTable);
        let slots = table.len() / 4;
        if slots == 0 {
            return None;
        }
        let mut slot = phrase_hash(words) as usize & (slots - 1);
        loop {
            let phrase = u32_at(table, slot * 4).checked_sub(1)?;
            if self.words_of(phrase as usize).eq(words.iter().copied()) {
                return Some(phrase);
            }
            slot = (slot + 1) & (slots - 1);
        }
    }

    fn words_of(&self, phrase: usize) -> impl Iterator<Item = u32> {
        let range = self.number(Section::PhraseOffsets, phrase)..self.number(Section::PhraseOffsets, phrase + 1);
        range.map(|i| self.number(Section::PhraseWords, i) as u32)
    }

    /// The paraphrases of a phrase in the order of the table.
    pub(super) fn targets(&self, phrase: u32) -> impl Iterator<Item = u32> {
        let phrase = phrase as usize;
        let range =
            self.number(Section::TargetOffsets, phrase) * 4..self.number(Section::TargetOffsets, phrase + 1) * 4;
        self.section(Section::Targets)[range].chunks_exact(4).map(|bytes| u32_at(bytes, 0))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// The hash of a phrase in the file's own table; part of the format.
fn phrase_hash(words: &[u32]) -> u64 {
    let mixed = words.iter().fold(0x9e37_79b9_7f4a_7c15_u64, |hash, &word| {
        (hash ^ u64::from(word)).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29)
    });
    mixed ^ (mixed >> 31)
}

/// Changes when the source does: names, sizes and times of its files.
fn fingerprint(source: &Path) -> Result<u64> {
    let mut text = Vec::new();
    for file in source::files(source)? {
        let about = file.metadata().map_err(Error::io("read", &file))?;
        let time = about.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        text.extend_from_slice(file.file_name().unwrap_or_default().as_encoded_bytes());
        text.extend_from_slice(&about.len().to_le_bytes());
        text.extend_from_slice(&time.map_or(0, |t| t.as_nanos() as u64).to_le_bytes());
    }
    Ok(xxh3_64(&text))
}

fn compile(source_path: &Path, fingerprint: u64, cache: &Path) -> Result<()> {
    let source = source::read(source_path)?;
    let mut sections: [Vec<u8>; SECTIONS] = Default::default();
    sections[Section::FunctionWords as usize] = lower_case_words(&source.function_words).into_bytes();
    sections[Section::Prefixes as usize] = source.prefixes.clone().into_bytes();
    sections[Section::Exceptions as usize] = source.exceptions.clone().into_bytes();
    compile_synsets(source_path, &source, &mut sections)?;
    compile_paraphrases(source_path, &source, &mut sections)?;

    let lengths: Vec<u8> = sections.iter().flat_map(|section| (section.len() as u64).to_le_bytes()).collect();
    let mut checksum = xxhash_rust::xxh3::Xxh3::new();
    checksum.update(&lengths);
    sections.iter().for_each(|section| checksum.update(section));
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&(SECTIONS as u32).to_le_bytes());
    header.extend_from_slice(&fingerprint.to_le_bytes());
    header.extend_from_slice(&checksum.digest().to_le_bytes());

    // Beside its place, synced, then renamed: another process maps the old cache or the new one, never half of one.
    let folder = cache.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
    let partial = cache.with_extension(format!("partial-{}", std::process::id()));
    let written = (|| {
        let mut file = std::fs::File::create(&partial)?;
        file.write_all(&header)?;
        file.write_all(&lengths)?;
        for section in &sections {
            file.write_all(section)?;
        }
        file.sync_all()?;
        std::fs::rename(&partial, cache)
    })();
    if written.is_err() {
        // Nothing more can be done about it, and the first error is the one to tell.
        let _ = std::fs::remove_file(&partial);
    }
    written.map_err(Error::io("write", cache))
}

fn lower_case_words(text: &str) -> String {
    text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join("\n")
}

/// The synsets: a line with the word, a line with its numbers.
fn compile_synsets(path: &Path, source: &Source, sections: &mut [Vec<u8>; SECTIONS]) -> Result<()> {
    let mut lines = source.synsets.lines().enumerate();
    let mut words: Vec<(&str, Vec<u32>)> = Vec::new();
    while let (Some((_, word)), Some((number, synsets))) = (lines.next(), lines.next()) {
        let parsed: std::result::Result<Vec<u32>, _> = synsets.split_whitespace().map(str::parse).collect();
        let parsed = parsed.map_err(|_| Error::Malformed {
            path: path.to_owned(),
            what: format!("synonym/english.synsets, line {}", number + 1),
            expected: "numbers of synsets".to_owned(),
            got: format!("{synsets:?}"),
        })?;
        words.push((word, parsed));
    }
    words.sort();
    let mut offsets = Offsets::default();
    let mut bytes = Vec::new();
    let mut synset_offsets = Offsets::default();
    let mut synsets = Numbers::default();
    for (word, numbers) in &words {
        offsets.push(bytes.len());
        bytes.extend_from_slice(word.as_bytes());
        synset_offsets.push(synsets.count());
        numbers.iter().for_each(|&n| synsets.push(n));
    }
    offsets.push(bytes.len());
    synset_offsets.push(synsets.count());
    sections[Section::SynsetWordOffsets as usize] = offsets.0.0;
    sections[Section::SynsetWords as usize] = bytes;
    sections[Section::SynsetOffsets as usize] = synset_offsets.0.0;
    sections[Section::Synsets as usize] = synsets.0;
    Ok(())
}

#[derive(Default)]
struct Numbers(Vec<u8>);

impl Numbers {
    fn push(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn count(&self) -> usize {
        self.0.len() / 4
    }
}

#[derive(Default)]
struct Offsets(Numbers);

impl Offsets {
    fn push(&mut self, offset: usize) {
        self.0.push(offset as u32);
    }
}

/// The paraphrases: a line with the probability, one with the phrase, one with its paraphrase.
fn compile_paraphrases(path: &Path, source: &Source, sections: &mut [Vec<u8>; SECTIONS]) -> Result<()> {
    let malformed = |line: usize, expected: &str, got: String| Error::Malformed {
        path: path.to_owned(),
        what: format!("paraphrase-en.gz, line {line}"),
        expected: expected.to_owned(),
        got,
    };
    let mut reader = std::io::BufReader::with_capacity(
        1 << 20,
        flate2::bufread::MultiGzDecoder::new(source.paraphrases_gz.as_slice()).take(1 << 32),
    );
    // Phrases are numbered as they come; words are numbered for good when all are known.
    let mut words: FxHashMap<Box<[u8]>, u32> = FxHashMap::default();
    // Four million phrases: by a 128-bit hash, and their words in one list, to stay within a small memory.
    let mut phrases: FxHashMap<u128, u32> = FxHashMap::default();
    let mut phrase_ends: Vec<u32> = Vec::new();
    let mut phrase_words: Vec<u32> = Vec::new();
    let mut pairs: Vec<(u32, u32)> = Vec::new();
    let mut phrase_number = |text: &[u8]| {
        let next = phrases.len() as u32;
        let number = *phrases.entry(xxh3_128(text)).or_insert(next);
        if number == next {
            for word in text.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()) {
                let next = words.len() as u32;
                phrase_words.push(*words.entry(word.into()).or_insert(next));
            }
            phrase_ends.push(phrase_words.len() as u32);
        }
        number
    };
    let mut line = Vec::new();
    let mut number = 0;
    let mut read_line = |line: &mut Vec<u8>| -> Result<bool> {
        line.clear();
        let read = reader.read_until(b'\n', line).map_err(Error::io("unpack the paraphrases of", path))?;
        while line.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
            line.pop();
        }
        Ok(read > 0)
    };
    let mut last: Option<(Vec<u8>, u32)> = None;
    while read_line(&mut line)? {
        number += 1;
        if line.is_empty() {
            continue;
        }
        let probability = std::str::from_utf8(&line).ok().and_then(|t| t.trim().parse::<f64>().ok());
        if probability.is_none() {
            return Err(malformed(number, "a probability", format!("{:?}", String::from_utf8_lossy(&line))));
        }
        if !read_line(&mut line)? {
            return Err(malformed(number + 1, "a phrase", "the end".to_owned()));
        }
        let from = match &last {
            Some((text, number)) if *text == line => *number,
            _ => phrase_number(&line),
        };
        last = Some((line.clone(), from));
        if !read_line(&mut line)? {
            return Err(malformed(number + 2, "a paraphrase", "the end".to_owned()));
        }
        pairs.push((from, phrase_number(&line)));
        number += 2;
    }

    let mut sorted: Vec<(&[u8], u32)> = words.iter().map(|(word, &id)| (&**word, id)).collect();
    sorted.sort_unstable();
    let mut place = vec![0; sorted.len()];
    let mut word_offsets = Offsets::default();
    let mut bytes = Vec::new();
    for (at, (word, id)) in sorted.iter().enumerate() {
        place[*id as usize] = at as u32;
        word_offsets.push(bytes.len());
        bytes.extend_from_slice(word);
    }
    word_offsets.push(bytes.len());

    drop(phrases);
    let count = phrase_ends.len();
    let slots = (count * 2).next_power_of_two().max(2);
    let mut table = vec![0_u32; slots];
    let mut phrase_offsets = Offsets::default();
    let mut flat = Numbers::default();
    let mut start = 0;
    for (number, &end) in phrase_ends.iter().enumerate() {
        phrase_offsets.push(flat.count());
        let ids: Vec<u32> = phrase_words[start..end as usize].iter().map(|&id| place[id as usize]).collect();
        start = end as usize;
        ids.iter().for_each(|&id| flat.push(id));
        let mut slot = phrase_hash(&ids) as usize & (slots - 1);
        while table[slot] != 0 {
            slot = (slot + 1) & (slots - 1);
        }
        table[slot] = number as u32 + 1;
    }
    phrase_offsets.push(flat.count());

    // A stable sort keeps the order of the file among the paraphrases of a phrase.
    pairs.sort_by_key(|&(from, _)| from);
    let mut target_offsets = Offsets::default();
    let mut targets = Numbers::default();
    let mut pairs = pairs.into_iter().peekable();
    for phrase in 0..count as u32 {
        target_offsets.push(targets.count());
        while let Some((_, to)) = pairs.next_if(|&(from, _)| from == phrase) {
            targets.push(to);
        }
    }
    target_offsets.push(targets.count());

    sections[Section::WordOffsets as usize] = word_offsets.0.0;
    sections[Section::Words as usize] = bytes;
    sections[Section::PhraseOffsets as usize] = phrase_offsets.0.0;
    sections[Section::PhraseWords as usize] = flat.0;
    sections[Section::PhraseTable as usize] = table.iter().flat_map(|n| n.to_le_bytes()).collect();
    sections[Section::TargetOffsets as usize] = target_offsets.0.0;
    sections[Section::Targets as usize] = targets.0;
    Ok(())
}
