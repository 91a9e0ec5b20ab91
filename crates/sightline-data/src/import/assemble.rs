//! From what a reader found to a dataset: photos looked up, ids made unique, splits, boxes and pairs joined.

use std::path::PathBuf;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Detected, ImportOptions, Layout, MakeSplit, Raw, RawPhoto, RawSplit, boxes, file_name, photos, splits};
use super::{json, read_text};
use crate::problems::{ProblemKind, Problems};
use crate::{Dataset, Error, Image, Pair, Result, Sentence, Split};

pub(super) fn assemble(
    detected: &Detected,
    raw: Raw,
    options: &ImportOptions,
    problems: &mut Problems,
    explanation: &mut Vec<String>,
) -> Result<Dataset> {
    let source = &detected.files[0];
    if raw.photos.is_empty() {
        return Err(Error::format(source, format!("holds not one photo{}", unread(problems))));
    }
    let roots = match (&options.photos, &raw.root) {
        (Some(photos), _) => vec![photos.clone()],
        (None, Some(root)) => vec![root.clone()],
        (None, None) => photos::likely_roots(&detected.folder),
    };
    if let Some(photos) = options.photos.as_ref().filter(|photos| !photos.is_dir()) {
        return Err(Error::format(photos, "expected the folder of photos, found no such folder"));
    }
    let mut finder = photos::Finder::new(&roots, raw.photos.iter().map(|photo| photo.file.as_str()));

    let mut found: Vec<RawPhoto> = Vec::new();
    let mut position: FxHashMap<String, usize> = FxHashMap::default();
    let mut n_missing = 0;
    let n_named = raw.photos.len();
    for mut photo in raw.photos {
        match finder.find(&photo.file) {
            Some(path) => photo.file = path,
            None => {
                n_missing += 1;
                problems.add(ProblemKind::PhotoMissing, photo.file.as_str());
                if !options.keep_missing {
                    continue;
                }
            }
        }
        if let Some(&at) = position.get(&photo.file) {
            problems.add(ProblemKind::DuplicatePhoto, photo.file.as_str());
            let first: &mut RawPhoto = &mut found[at];
            first.sentences.append(&mut photo.sentences);
            first.boxes.append(&mut photo.boxes);
        } else {
            position.insert(photo.file.clone(), found.len());
            found.push(photo);
        }
    }
    if found.is_empty() {
        return Err(Error::format(
            source,
            format!(
                "not one of the {n_named} photos that it names was found in {}: name their folder",
                finder.root.display()
            ),
        ));
    }
    if n_missing > 0 && options.keep_missing {
        explanation.push(format!("{n_missing} photos that are not on the disk were kept, as asked for"));
    }
    explanation.push(format!("photos found in {}", finder.root.display()));

    keep_sentences(&mut found, options, problems);
    if found.is_empty() {
        let reason = format!("not one of the {n_named} photos has a usable sentence{}", unread(problems));
        return Err(Error::format(source, reason));
    }
    let mut found = with_splits(detected, found, options, problems, explanation)?;
    if found.is_empty() {
        return Err(Error::format(
            source,
            "not one photo is in a split: check the names of the splits and their lists",
        ));
    }
    if options.train_on_restval {
        train_on_restval(&mut found, explanation);
    }
    let name = options.name.clone().or(raw.name).unwrap_or_else(|| default_name(detected));
    let mut images = with_ids(found, problems);
    if let Some(path) = &options.boxes {
        add_boxes(path, &mut images, problems, explanation)?;
    }
    let mut pairing = raw.pairing;
    if let Some(path) = &options.pairing {
        pairing.extend(json::parse::<Vec<Pair>>(path, &read_text(path)?, "a list of [sentence id, image id]")?);
    }
    let pairing = sound_pairs(pairing, &images, problems);
    Ok(Dataset { name, root: finder.root, images, pairing })
}

/// The reason that explains the others, where it was met.
fn unread(problems: &Problems) -> String {
    match problems.count(ProblemKind::NotUtf8) {
        0 => String::new(),
        n => format!("; {n} of its texts or rows are not UTF-8: save them as UTF-8"),
    }
}

fn default_name(detected: &Detected) -> String {
    let folder = std::path::absolute(&detected.folder).unwrap_or_else(|_| detected.folder.clone());
    match detected.layout {
        Layout::PhotoFolder | Layout::Karpathy => file_name(&folder).into_owned(),
        _ => {
            let stem = detected.files[0].file_stem().map(|stem| stem.to_string_lossy().into_owned());
            // `captions.txt` says less than its folder.
            stem.filter(|stem| !stem.starts_with("captions")).unwrap_or_else(|| file_name(&folder).into_owned())
        }
    }
}

/// Keeps usable sentences, and photos that have one.
fn keep_sentences(photos: &mut Vec<RawPhoto>, options: &ImportOptions, problems: &mut Problems) {
    photos.retain_mut(|photo| {
        if photo.sentences.is_empty() {
            problems.add(ProblemKind::PhotoWithoutSentence, photo.file.as_str());
            return false;
        }
        let RawPhoto { file, sentences, boxes, .. } = photo;
        sentences.retain(|sentence| {
            let n_words = sentence.tokens.len();
            if n_words == 0 {
                problems.add(ProblemKind::EmptySentence, format!("`{}` of {file}", sentence.raw));
            } else if n_words > options.max_words {
                problems.add(ProblemKind::LongSentence, format!("{n_words} words of {file}"));
            }
            (1..=options.max_words).contains(&n_words)
        });
        boxes.retain(|b| {
            let sound = <[f32; 4]>::from(*b).iter().all(|v| v.is_finite()) && b.area() > 0.0;
            if !sound {
                problems.add(ProblemKind::BadBox, format!("{:?} of {file}", <[f32; 4]>::from(*b)));
            }
            sound
        });
        if sentences.is_empty() {
            problems.add(ProblemKind::PhotoWithoutSentence, file.as_str());
        }
        !sentences.is_empty()
    });
}

fn with_splits(
    detected: &Detected,
    photos: Vec<RawPhoto>,
    options: &ImportOptions,
    problems: &mut Problems,
    explanation: &mut Vec<String>,
) -> Result<Vec<(Split, RawPhoto)>> {
    if let Some(split) = options.split {
        explanation.push(format!("all photos go to {split}, as asked for"));
        return Ok(photos.into_iter().map(|photo| (split, photo)).collect());
    }
    let unsaid = photos.iter().all(|photo| matches!(photo.split, RawSplit::Unsaid));
    let lists: Vec<(Split, PathBuf)> = if !options.split_lists.is_empty() {
        options.split_lists.clone()
    } else if unsaid && detected.layout != Layout::PhotoFolder {
        splits::lists_beside(&detected.folder)
    } else {
        Vec::new()
    };
    if !lists.is_empty() {
        let names: Vec<_> = lists.iter().map(|(split, path)| format!("{} ({split})", file_name(path))).collect();
        explanation.push(format!("splits by the lists {}", names.join(", ")));
        let listed = splits::read_lists(&lists, problems)?;
        let stems: FxHashSet<&str> = photos.iter().map(|photo| splits::stem(&photo.file)).collect();
        let mut absent: Vec<String> = listed.keys().filter(|name| !stems.contains(name.as_str())).cloned().collect();
        absent.sort_unstable();
        let mut kept = Vec::new();
        for photo in photos {
            match listed.get(splits::stem(&photo.file)) {
                Some(&split) => kept.push((split, photo)),
                None => problems.add(ProblemKind::PhotoWithoutSplit, photo.file),
            }
        }
        for name in absent {
            problems.add(ProblemKind::UnknownPhoto, format!("`{name}` of a split list"));
        }
        return Ok(kept);
    }
    if unsaid {
        let splits = match options.make_split {
            MakeSplit::TrainOnly => {
                explanation.push("the source has no splits: all photos go to train, as asked for".to_owned());
                vec![Split::Train; photos.len()]
            }
            MakeSplit::EightyTenTen if photos.len() < 10 => {
                explanation.push("the source has no splits and fewer than 10 photos: all go to train".to_owned());
                vec![Split::Train; photos.len()]
            }
            MakeSplit::EightyTenTen => {
                explanation.push(format!(
                    "the source has no splits: made here, 80 % train, 10 % val, 10 % test, by seed {}",
                    options.seed
                ));
                splits::make(photos.iter().map(|photo| photo.file.as_str()), options.seed)
            }
        };
        return Ok(splits.into_iter().zip(photos).collect());
    }
    let mut kept = Vec::new();
    for photo in photos {
        match photo.split {
            RawSplit::Named(split) => kept.push((split, photo)),
            RawSplit::Unsaid => problems.add(ProblemKind::PhotoWithoutSplit, photo.file),
            // Counted where it was read.
            RawSplit::Unknown => {}
        }
    }
    Ok(kept)
}

fn train_on_restval(photos: &mut [(Split, RawPhoto)], explanation: &mut Vec<String>) {
    let mut n_moved = 0;
    for (split, _) in photos.iter_mut().filter(|(split, _)| *split == Split::Restval) {
        *split = Split::Train;
        n_moved += 1;
    }
    explanation.push(match n_moved {
        0 => "no photo is in restval: none is put into train".to_owned(),
        1 => "1 photo of restval goes to train, as asked for".to_owned(),
        _ => format!("{n_moved} photos of restval go to train, as asked for"),
    });
}

/// Gives ids: the source's own where they are unique, new ones above them elsewhere.
fn with_ids(photos: Vec<(Split, RawPhoto)>, problems: &mut Problems) -> Vec<Image> {
    let mut image_ids = Ids::new(photos.iter().filter_map(|(_, photo)| photo.id));
    let sentences = || photos.iter().flat_map(|(_, photo)| &photo.sentences);
    let mut sentence_ids = Ids::new(sentences().filter_map(|sentence| sentence.id));
    let mut images = Vec::with_capacity(photos.len());
    for (split, photo) in photos {
        let id = image_ids.give(photo.id, || format!("image id of {}", photo.file), problems);
        let sentences = photo.sentences.into_iter().map(|sentence| Sentence {
            id: sentence_ids.give(sentence.id, || format!("sentence id of {}", photo.file), problems),
            raw: sentence.raw,
            tokens: sentence.tokens,
        });
        let sentences = sentences.collect();
        images.push(Image { id, path: photo.file, split, sentences, boxes: photo.boxes });
    }
    images
}

struct Ids {
    taken: FxHashSet<u64>,
    given: FxHashSet<u64>,
    next: u64,
}

impl Ids {
    fn new(ids: impl Iterator<Item = u64>) -> Self {
        let taken: FxHashSet<u64> = ids.collect();
        Self { taken, given: FxHashSet::default(), next: 0 }
    }

    fn give(&mut self, wanted: Option<u64>, place: impl Fn() -> String, problems: &mut Problems) -> u64 {
        if let Some(id) = wanted {
            if self.given.insert(id) {
                return id;
            }
            problems.add(ProblemKind::DuplicateId, format!("{id}, {}", place()));
        }
        while self.taken.contains(&self.next) {
            self.next += 1;
        }
        self.next += 1;
        self.next - 1
    }
}

fn add_boxes(
    path: &std::path::Path,
    images: &mut [Image],
    problems: &mut Problems,
    explanation: &mut Vec<String>,
) -> Result<()> {
    let read = boxes::read(path, problems)?;
    // By the whole path, or by the file name where only one photo has it.
    let mut by_name: FxHashMap<&str, Option<usize>> = FxHashMap::default();
    for (i, image) in images.iter().enumerate() {
        let name = image.path.rsplit_once('/').map_or(image.path.as_str(), |(_, name)| name);
        by_name.entry(name).and_modify(|at| *at = None).or_insert(Some(i));
    }
    let by_path: FxHashMap<&str, usize> =
        images.iter().enumerate().map(|(i, image)| (image.path.as_str(), i)).collect();
    let mut found = Vec::new();
    for (name, list) in read.by_photo {
        let short = name.rsplit_once('/').map_or(name.as_str(), |(_, name)| name);
        match by_path.get(name.as_str()).copied().or_else(|| by_name.get(short).copied().flatten()) {
            Some(at) => found.push((at, list)),
            None => problems.add(ProblemKind::UnknownPhoto, format!("boxes of {name}")),
        }
    }
    let (n_photos, n_boxes) = (found.len(), found.iter().map(|(_, list)| list.len()).sum::<usize>());
    for (at, list) in found {
        images[at].boxes.extend(list);
    }
    explanation.push(format!("{}: {}; {n_boxes} boxes for {n_photos} photos", file_name(path), read.explanation));
    Ok(())
}

fn sound_pairs(pairing: Vec<Pair>, images: &[Image], problems: &mut Problems) -> Vec<Pair> {
    if pairing.is_empty() {
        return pairing;
    }
    let image_ids: FxHashSet<u64> = images.iter().map(|image| image.id).collect();
    let sentence_ids: FxHashSet<u64> = images.iter().flat_map(|i| &i.sentences).map(|sentence| sentence.id).collect();
    let mut pairs: Vec<Pair> = pairing
        .into_iter()
        .filter(|p| {
            let known = image_ids.contains(&p.image) && sentence_ids.contains(&p.sentence);
            if !known {
                problems
                    .add(ProblemKind::UnknownPhoto, format!("pair of sentence {} with image {}", p.sentence, p.image));
            }
            known
        })
        .collect();
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}
