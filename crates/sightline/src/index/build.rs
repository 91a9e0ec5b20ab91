//! Indexing: compares a folder with the catalogue, reads what is new, writes it batch by batch.
//!
//! Every batch becomes a vectors file and then one transaction that names it, so a kill at any moment loses at most
//! the batch in flight; what it left behind is swept up by the next run. Photos are only ever read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, ensure};
use sightline_data::{BoxXyxy, write};
use sightline_model::workers::Workers;
use sightline_search::vectors::{self, PhotoVectors, Record};
use sightline_search::{Collection, Place, Pruned, PrunedSettings, Vectors};
use sightline_train::aligner::Aligner;
use sightline_vision::{Filter, Photo};
use xxhash_rust::xxh3::xxh3_128;

use super::catalogue::{Catalogue, Change, FailureRow, PhotoRow};
use super::walk::{Found, Problem, Stamp, to_path};
use super::{CENTROIDS, date, vectors_path};
use crate::sources::Extraction;

/// Photos a transaction.
const BATCH: usize = 64;

/// Photos a worker carries through the network at once.
const JOB: usize = 4;

/// A worker that holds so many pixels reads no further photo before it let go of them: two of a telephone's camera.
const MOST_PIXELS: u64 = 24_000_000;

/// More vectors files than this are merged when a run ends.
const MOST_FILES: usize = 8;

/// From this many photos on, search is pruned.
const PRUNED_FROM: usize = 20_000;

/// Longest side of a thumbnail in pixels, and its JPEG quality.
const THUMBNAIL: (u32, u8) = (256, 78);

/// Larger files are refused unread.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Photos that are new.
    pub added: usize,
    /// Photos whose content changed.
    pub changed: usize,
    /// Photos found under another name or in another folder.
    pub moved: usize,
    /// Photos that are gone.
    pub deleted: usize,
    /// Photos as they were.
    pub unchanged: usize,
    /// Files that could not be indexed and why, those of earlier runs that are still the same among them.
    pub failed: Vec<(String, String)>,
    /// Whether the run was told to stop before its end.
    pub cancelled: bool,
}

/// A vectors file that is missing or damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostFile {
    /// Its number.
    pub number: u32,
    /// The file, and what is wrong with it.
    pub reason: String,
}

/// The vectors files that cannot be used, whose photos are to be read again.
///
/// # Errors
/// A file that the system does not let be read.
pub fn lost_files(catalogue: &Catalogue, index: &Path) -> anyhow::Result<Vec<LostFile>> {
    let mut needed: BTreeMap<u32, usize> = catalogue.files()?.into_iter().map(|number| (number, 0)).collect();
    for row in catalogue.photos()? {
        let most = needed.entry(row.place.file).or_default();
        *most = (*most).max(row.place.photo as usize + 1);
    }
    let owner = catalogue.settings().owner();
    let mut lost = Vec::new();
    for (number, photos) in needed {
        let path = vectors_path(index, number);
        let reason = match Vectors::open(&path, owner) {
            Ok(file) if file.len() >= photos => continue,
            Ok(file) => format!("{}: {} photos, expected {photos}", path.display(), file.len()),
            Err(error @ sightline_search::Error::Format { .. }) => {
                // What it advises is being done.
                error.to_string().trim_end_matches("; run `sightline index` again").to_owned()
            }
            Err(error) => return Err(error.into()),
        };
        lost.push(LostFile { number, reason });
    }
    Ok(lost)
}

/// What a run has to do.
#[derive(Debug, Default)]
pub struct Plan {
    /// Files to read, with the row of the photo that had this name.
    todo: Vec<(Found, Option<PhotoRow>)>,
    /// Rows whose files are not there any more.
    gone: Vec<PhotoRow>,
    /// Failures of files that are gone or changed.
    forget: Vec<Vec<u8>>,
    /// Failures of files that are as they were.
    failed: Vec<FailureRow>,
    /// Rows whose vectors are lost, and the numbers of their files.
    lost: (Vec<PhotoRow>, Vec<u32>),
    unchanged: usize,
    /// Of them, those in places that could not be looked into.
    unseen: usize,
    contents: HashMap<[u8; 16], PhotoRow>,
}

impl Plan {
    /// Compares what was found with what is known. Photos whose vectors are lost count as new; those that `problems` may
    /// hide stay as they were.
    pub fn new(
        found: Vec<Found>,
        problems: &[Problem],
        lost: &[LostFile],
        catalogue: &Catalogue,
    ) -> anyhow::Result<Self> {
        let mut plan = Self::default();
        plan.lost.1 = lost.iter().map(|file| file.number).collect();
        let mut rows: HashMap<Vec<u8>, PhotoRow> = HashMap::new();
        for row in catalogue.photos()? {
            if plan.lost.1.contains(&row.place.file) {
                plan.lost.0.push(row);
                continue;
            }
            plan.contents.entry(row.content).or_insert_with(|| row.clone());
            rows.insert(row.path.clone(), row);
        }
        let mut failures: HashMap<Vec<u8>, FailureRow> =
            catalogue.failures()?.into_iter().map(|failure| (failure.path.clone(), failure)).collect();
        for found in found {
            let row = rows.remove(&found.path);
            let failure = failures.remove(&found.path);
            match failure {
                Some(failure) if failure.stamp == found.stamp => {
                    plan.failed.push(failure);
                    // A photo that became unreadable keeps no row.
                    plan.gone.extend(row);
                    continue;
                }
                Some(failure) => plan.forget.push(failure.path),
                None => {}
            }
            match row {
                Some(row) if row.stamp == found.stamp => plan.unchanged += 1,
                row => plan.todo.push((found, row)),
            }
        }
        let is_hidden = |path: &[u8]| problems.iter().any(|problem| problem.hides(path));
        let (hidden, gone): (Vec<_>, Vec<_>) = rows.into_values().partition(|row| is_hidden(&row.path));
        plan.unseen = hidden.len();
        plan.unchanged += hidden.len();
        plan.gone.extend(gone);
        plan.gone.sort_unstable_by_key(|row| row.id);
        plan.forget.extend(failures.into_keys().filter(|path| !is_hidden(path)));
        plan.forget.sort_unstable();
        Ok(plan)
    }

    /// Photos that stay as they were because their place could not be looked into.
    pub fn n_unseen(&self) -> usize {
        self.unseen
    }

    /// Photos whose vectors are lost.
    pub fn n_lost(&self) -> usize {
        self.lost.0.len()
    }

    /// Files that must be read.
    pub fn n_todo(&self) -> usize {
        self.todo.len()
    }

    /// All files that are or were photos.
    pub fn n_files(&self) -> usize {
        self.todo.len() + self.unchanged + self.failed.len()
    }
}

/// What a run reports while it works.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Files read by this run.
    pub done: usize,
    /// Of them, those that could not be indexed.
    pub failed: usize,
}

/// Both networks that an index needs.
pub struct Networks {
    /// Region features and words to vectors.
    pub aligner: Aligner,
    /// Pixels to region features.
    pub extraction: Extraction,
}

/// What a worker makes of a file.
enum Outcome {
    /// No photo, as long as the file does not change.
    Failed(String),
    /// The system did not let it be read, which may pass.
    Refused(String),
    Known(KnownPhoto),
    New(Box<NewPhoto>),
}

impl Outcome {
    fn of_error(error: &anyhow::Error) -> Self {
        let reason = crate::ui::one_line(error);
        match error.chain().any(|cause| cause.is::<std::io::Error>()) {
            true => Self::Refused(reason),
            false => Self::Failed(reason),
        }
    }
}

/// A file whose content is known, or was met in this run.
struct KnownPhoto {
    content: [u8; 16],
    taken: Option<i64>,
}

struct NewPhoto {
    content: [u8; 16],
    width: u32,
    height: u32,
    /// By its EXIF data.
    taken: Option<i64>,
    look: u64,
    thumbnail: Vec<u8>,
    boxes: Vec<BoxXyxy>,
    /// `[regions, features]`.
    features: Vec<f32>,
}

/// Does what `plan` says. The networks are needed only where a file must be read.
pub fn run(
    catalogue: &mut Catalogue,
    index: &Path,
    plan: Plan,
    networks: Option<&Networks>,
    progress: &dyn Fn(Progress),
    cancelled: &AtomicBool,
) -> anyhow::Result<Report> {
    let Plan { todo, gone, forget, failed, lost: (lost, lost_files), unchanged, unseen: _, contents } = plan;
    let is_work = !(todo.is_empty() && gone.is_empty() && lost_files.is_empty());
    if !lost_files.is_empty() {
        // First of all, so that what is left can be searched whatever becomes of this run.
        let rows = lost.into_iter().map(Change::Delete);
        catalogue.change(&rows.chain(lost_files.into_iter().map(Change::DropFile)).collect::<Vec<_>>())?;
    }
    sweep(catalogue, index)?;
    let mut report = Report { unchanged, ..Report::default() };
    report.failed = failed.into_iter().map(|f| (to_path(&f.path).display().to_string(), f.reason)).collect();
    let mut changes: Vec<Change> = forget.into_iter().map(Change::Forget).collect();
    if !todo.is_empty() {
        let networks = networks.context("networks are needed to read photos")?;
        let root = catalogue.settings().root.clone();
        let mut writer = BatchWriter::new(catalogue, index, &networks.aligner, contents, gone, changes);
        let known: HashSet<[u8; 16]> = writer.contents.keys().copied().collect();
        read_all(&root, &todo, &known, &networks.extraction, cancelled, |number, outcome| {
            let (found, row) = &todo[number];
            writer.put(found, row.as_ref(), outcome, &mut report)?;
            progress(Progress { done: number + 1, failed: report.failed.len() });
            Ok(())
        })?;
        writer.flush()?;
        report.cancelled = writer.done < todo.len();
        let gone = std::mem::take(&mut writer.gone);
        changes = Vec::new();
        // Files that were not read yet may be moved photos: those keep their rows until the next run.
        if !report.cancelled {
            report.deleted = gone.len();
            changes.extend(gone.into_iter().map(Change::Delete));
        }
    } else {
        report.deleted = gone.len();
        changes.extend(gone.into_iter().map(Change::Delete));
    }
    if !changes.is_empty() {
        catalogue.change(&changes)?;
    }
    if !report.cancelled {
        if report.deleted + report.changed > 0 {
            catalogue.drop_unused_thumbnails()?;
        }
        if is_work {
            merge(catalogue, index)?;
        }
        write_centroids(catalogue, index)?;
    }
    Ok(report)
}

/// Removes vectors files that no transaction names: a killed run wrote them, or a finished one merged them.
fn sweep(catalogue: &Catalogue, index: &Path) -> anyhow::Result<()> {
    let used: HashSet<PathBuf> = catalogue.files()?.into_iter().map(|number| vectors_path(index, number)).collect();
    let cannot = || format!("cannot tidy {}", index.display());
    for entry in std::fs::read_dir(index).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_ours = (name.starts_with("vectors-") && name.ends_with(".slv"))
            || (name.starts_with(".sightline-") && name.ends_with(".partial"));
        if is_ours && !used.contains(&path) {
            std::fs::remove_file(&path).with_context(cannot)?;
        }
    }
    Ok(())
}

/// Reads files on all cores and hands the outcomes over in the order asked for.
fn read_all(
    root: &Path,
    todo: &[(Found, Option<PhotoRow>)],
    known: &HashSet<[u8; 16]>,
    extraction: &Extraction,
    cancelled: &AtomicBool,
    mut take: impl FnMut(usize, Outcome) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let jobs: Vec<&[(Found, Option<PhotoRow>)]> = todo.chunks(JOB).collect();
    let workers = Workers::new(0, jobs.len()).context("cannot start the workers")?;
    let stopped = || cancelled.load(Ordering::Relaxed);
    let work = |_: usize, job: &&[(Found, Option<PhotoRow>)]| read_job(root, job, known, extraction);
    let (mut waiting, mut turn) = (BTreeMap::new(), 0);
    workers.each(&jobs, stopped, work, |number, outcomes: anyhow::Result<Vec<Outcome>>| {
        waiting.insert(number, outcomes?);
        while let Some(outcomes) = waiting.remove(&turn) {
            for (i, outcome) in outcomes.into_iter().enumerate() {
                take(turn * JOB + i, outcome)?;
            }
            turn += 1;
        }
        Ok(())
    })
}

/// All stages for a handful of files. Fails only where the backbone does.
fn read_job(
    root: &Path,
    job: &[(Found, Option<PhotoRow>)],
    known: &HashSet<[u8; 16]>,
    extraction: &Extraction,
) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes = Vec::with_capacity(job.len());
    let (mut photos, mut boxes, mut features): (Vec<Photo>, Vec<_>, Vec<_>) = Default::default();
    let mut pixels = 0;
    for (found, _) in job {
        if pixels >= MOST_PIXELS {
            features.extend(extraction.features(&photos, &boxes[features.len()..])?);
            photos.clear();
            pixels = 0;
        }
        let path = root.join(to_path(&found.path));
        outcomes.push(match read(&path, known, extraction) {
            Ok(Read::Known(known)) => Outcome::Known(known),
            Ok(Read::New(mut new, photo)) => {
                boxes.push(std::mem::take(&mut new.boxes));
                pixels += u64::from(photo.width) * u64::from(photo.height);
                photos.push(photo);
                Outcome::New(new)
            }
            Err(error) => Outcome::of_error(&error),
        });
    }
    features.extend(extraction.features(&photos, &boxes[features.len()..])?);
    let new = outcomes.iter_mut().filter_map(|outcome| match outcome {
        Outcome::New(new) => Some(new),
        _ => None,
    });
    for ((new, boxes), features) in new.zip(boxes).zip(features) {
        (new.boxes, new.features) = (boxes, features);
    }
    Ok(outcomes)
}

enum Read {
    Known(KnownPhoto),
    New(Box<NewPhoto>, Photo),
}

/// Reads a file once: its content's hash, and where that is new, the picture and its boxes.
fn read(path: &Path, known: &HashSet<[u8; 16]>, extraction: &Extraction) -> anyhow::Result<Read> {
    let mut bytes = Vec::new();
    let cannot = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    // A name may have become a pipe since the walk; reading one would wait for ever.
    let facts = file.metadata().with_context(cannot)?;
    ensure!(facts.is_file(), "{} is no regular file", path.display());
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).with_context(cannot)?;
    ensure!(bytes.len() as u64 <= MAX_FILE_BYTES, "{}: larger than a picture may be", path.display());
    let content = xxh3_128(&bytes).to_be_bytes();
    let taken = date::taken(&bytes);
    if known.contains(&content) {
        return Ok(Read::Known(KnownPhoto { content, taken }));
    }
    let name = path.display().to_string();
    let photo = Photo::decode(&bytes, &name)?;
    let boxes = extraction.boxes(&name, &photo)?;
    let new = NewPhoto {
        content,
        width: photo.width,
        height: photo.height,
        taken,
        look: look(&photo),
        thumbnail: thumbnail(&photo)?,
        boxes,
        features: Vec::new(),
    };
    Ok(Read::New(Box::new(new), photo))
}

/// When a photo was taken by its EXIF data, else when its file was changed; seconds since 1970.
fn taken_or_changed(taken: Option<i64>, stamp: Stamp) -> i64 {
    taken.unwrap_or(stamp.modified.div_euclid(1_000_000_000))
}

/// A difference hash: which of 8 × 8 cells are lighter than their right neighbour.
fn look(photo: &Photo) -> u64 {
    let small = photo.resize(9, 8, Filter::Bilinear);
    let grey: Vec<u32> = (small.pixels.chunks_exact(3))
        .map(|rgb| 299 * u32::from(rgb[0]) + 587 * u32::from(rgb[1]) + 114 * u32::from(rgb[2]))
        .collect();
    let bits = grey.chunks_exact(9).flat_map(|row| row.windows(2).map(|pair| u64::from(pair[0] > pair[1])));
    bits.fold(0, |look, bit| look << 1 | bit)
}

pub(super) fn thumbnail(photo: &Photo) -> anyhow::Result<Vec<u8>> {
    let (side, quality) = THUMBNAIL;
    let scale = (f64::from(side) / f64::from(photo.width.max(photo.height))).min(1.0);
    let size = |pixels: u32| ((f64::from(pixels) * scale).round() as u32).max(1);
    Ok(photo.resize(size(photo.width), size(photo.height), Filter::Bilinear).encode_jpeg(quality)?)
}

/// Collects outcomes and writes them batch by batch.
struct BatchWriter<'a> {
    catalogue: &'a mut Catalogue,
    index: &'a Path,
    aligner: &'a Aligner,
    /// A row of every content whose vectors are stored or about to be.
    contents: HashMap<[u8; 16], PhotoRow>,
    gone: Vec<PhotoRow>,
    /// Number of the vectors file that the batch will become.
    file: u32,
    photos: Vec<PhotoVectors>,
    changes: Vec<Change>,
    waiting: usize,
    done: usize,
}

impl<'a> BatchWriter<'a> {
    fn new(
        catalogue: &'a mut Catalogue,
        index: &'a Path,
        aligner: &'a Aligner,
        contents: HashMap<[u8; 16], PhotoRow>,
        gone: Vec<PhotoRow>,
        changes: Vec<Change>,
    ) -> Self {
        Self { catalogue, index, aligner, contents, gone, file: 0, photos: Vec::new(), changes, waiting: 0, done: 0 }
    }

    fn put(
        &mut self,
        found: &Found,
        old: Option<&PhotoRow>,
        outcome: Outcome,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let name = || to_path(&found.path).display().to_string();
        let failure = match outcome {
            Outcome::Failed(reason) => Some(reason),
            Outcome::Refused(reason) => {
                // A photo that was here before stays as it was; the next run tries again.
                report.failed.push((name(), reason));
                None
            }
            Outcome::Known(known) => {
                self.put_known(found, old, &known, report)?;
                None
            }
            Outcome::New(new) if self.contents.contains_key(&new.content) => {
                let NewPhoto { content, taken, .. } = *new;
                self.put_known(found, old, &KnownPhoto { content, taken }, report)?;
                None
            }
            Outcome::New(new) => self.put_new(found, old, *new, report)?,
        };
        if let Some(reason) = failure {
            report.failed.push((name(), reason.clone()));
            self.changes.extend(old.cloned().map(Change::Delete));
            self.changes.push(Change::Fail(FailureRow { path: found.path.clone(), stamp: found.stamp, reason }));
        }
        self.waiting += 1;
        if self.waiting >= BATCH {
            self.flush()?;
        }
        Ok(())
    }

    /// A file whose content has vectors already: touched, moved, or a copy.
    fn put_known(
        &mut self,
        found: &Found,
        old: Option<&PhotoRow>,
        KnownPhoto { content, taken }: &KnownPhoto,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let Some(known) = self.contents.get(content).cloned() else {
            anyhow::bail!("a worker knew a content that the catalogue does not");
        };
        let taken = taken_or_changed(*taken, found.stamp);
        let row = |id: i64| PhotoRow { id, path: found.path.clone(), stamp: found.stamp, taken, ..known.clone() };
        if let Some(old) = old {
            if old.content == *content {
                report.unchanged += 1;
            } else {
                report.changed += 1;
            }
            self.changes.push(Change::Update(row(old.id)));
        } else if let Some(at) = self.gone.iter().position(|gone| gone.content == *content) {
            report.moved += 1;
            let moved = self.gone.remove(at);
            self.changes.push(Change::Update(row(moved.id)));
        } else {
            report.added += 1;
            self.changes.push(Change::Insert(row(0)));
        }
        Ok(())
    }

    /// A file whose content is new; the reason where its vectors cannot be stored.
    fn put_new(
        &mut self,
        found: &Found,
        old: Option<&PhotoRow>,
        new: NewPhoto,
        report: &mut Report,
    ) -> anyhow::Result<Option<String>> {
        let NewPhoto { content, width, height, taken, look, thumbnail, boxes, features } = new;
        let settings = self.catalogue.settings();
        let vectors = self.aligner.regions_of(features, &boxes, [width, height]);
        let boxes: Vec<[f32; 4]> = boxes.into_iter().map(Into::into).collect();
        let Some(stored) = PhotoVectors::new(settings.encoding.into(), settings.dim, &vectors, &boxes) else {
            return Ok(Some("its vectors do not fit sixteen bits; index with --encoding int8".to_owned()));
        };
        if self.photos.is_empty() {
            self.file = self.catalogue.files()?.last().map_or(1, |last| last + 1);
        }
        let place = Place { file: self.file, photo: self.photos.len() as u32 };
        self.photos.push(stored);
        let row = PhotoRow {
            id: old.map_or(0, |old| old.id),
            path: found.path.clone(),
            stamp: found.stamp,
            content,
            width,
            height,
            taken: taken_or_changed(taken, found.stamp),
            look,
            place,
        };
        self.contents.insert(content, row.clone());
        self.changes.push(Change::Thumbnail(content, thumbnail));
        match old {
            Some(_) => {
                report.changed += 1;
                self.changes.push(Change::Update(row));
            }
            None => {
                report.added += 1;
                self.changes.push(Change::Insert(row));
            }
        }
        Ok(None)
    }

    /// Writes the batch: first its vectors, then the transaction that names them.
    fn flush(&mut self) -> anyhow::Result<()> {
        if !self.photos.is_empty() {
            let records: Vec<Record<'_>> = self.photos.iter().map(PhotoVectors::record).collect();
            write_vectors(self.catalogue, self.index, self.file, &records)?;
            self.changes.insert(0, Change::AddFile(self.file));
            self.photos.clear();
        }
        self.catalogue.change(&self.changes)?;
        self.changes.clear();
        self.done += std::mem::take(&mut self.waiting);
        Ok(())
    }
}

fn write_vectors(catalogue: &Catalogue, index: &Path, number: u32, records: &[Record<'_>]) -> anyhow::Result<()> {
    let settings = catalogue.settings();
    let path = vectors_path(index, number);
    write::atomically(&path, |out| {
        vectors::write(out, settings.encoding.into(), settings.dim, settings.owner(), records)
    })?;
    Ok(())
}

/// Makes one vectors file of many, or of one in which much is unused.
fn merge(catalogue: &mut Catalogue, index: &Path) -> anyhow::Result<()> {
    let numbers = catalogue.files()?;
    let rows = catalogue.photos()?;
    let used: HashSet<(u32, u32)> = rows.iter().map(|row| (row.place.file, row.place.photo)).collect();
    let owner = catalogue.settings().owner();
    let files = numbers
        .iter()
        .map(|&number| Ok((number, Vectors::open(&vectors_path(index, number), owner)?)))
        .collect::<anyhow::Result<BTreeMap<u32, Vectors>>>()?;
    let stored: usize = files.values().map(Vectors::len).sum();
    if numbers.len() <= MOST_FILES && used.len() * 4 >= stored * 3 {
        return Ok(());
    }
    let new = numbers.last().map_or(1, |last| last + 1);
    let mut places: HashMap<(u32, u32), u32> = HashMap::new();
    let mut records = Vec::with_capacity(used.len());
    let mut changes: Vec<Change> = vec![Change::AddFile(new)];
    for row in rows {
        let old = (row.place.file, row.place.photo);
        let file = files.get(&old.0).with_context(|| format!("no vectors file {}", old.0))?;
        ensure!((old.1 as usize) < file.len(), "{}: no photo {}", file.path().display(), old.1);
        let photo = *places.entry(old).or_insert_with(|| {
            records.push(file.record(old.1 as usize));
            records.len() as u32 - 1
        });
        changes.push(Change::Update(PhotoRow { place: Place { file: new, photo }, ..row }));
    }
    write_vectors(catalogue, index, new, &records)?;
    changes.extend(numbers.into_iter().map(Change::DropFile));
    catalogue.change(&changes)?;
    drop(records);
    drop(files);
    sweep(catalogue, index)
}

/// Centroids for the pruned search of a large collection, where there are none of this very collection yet.
fn write_centroids(catalogue: &Catalogue, index: &Path) -> anyhow::Result<()> {
    let path = index.join(CENTROIDS);
    let rows = catalogue.photos()?;
    if rows.len() < PRUNED_FROM {
        return Ok(());
    }
    let collection: Arc<Collection> = Arc::new(super::collection(catalogue, index, &rows)?);
    if path.exists() && Pruned::open(&path, collection.clone()).is_ok_and(|pruned| pruned.is_some()) {
        return Ok(());
    }
    let pruned = Pruned::build(collection, &PrunedSettings::default());
    Ok(write::atomically(&path, |out| pruned.write(out))?)
}

/// An index that this process alone may write.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not read: the lock ends with the file")] File);

impl Lock {
    /// Takes the lock, or says in one line who has it.
    pub fn take(index: &Path) -> anyhow::Result<Self> {
        let path = index.join("lock");
        let cannot = || format!("cannot lock {}", path.display());
        let file = File::options().create(true).truncate(false).write(true).open(&path).with_context(cannot)?;
        match write::lock(&file) {
            Ok(()) => Ok(Self(file)),
            Err(std::fs::TryLockError::WouldBlock) => {
                anyhow::bail!("{} is being written by another `sightline index`; wait for it to end", index.display())
            }
            Err(std::fs::TryLockError::Error(error)) => Err(error).with_context(cannot),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_is_tried_again_and_what_is_no_picture_is_not() {
        let absent = File::open("/nowhere.jpg").context("cannot read /nowhere.jpg").unwrap_err();
        assert!(matches!(Outcome::of_error(&absent), Outcome::Refused(reason) if reason.contains("/nowhere.jpg")));
        let broken = anyhow::Error::from(Photo::decode(b"no picture", "a.jpg").unwrap_err());
        assert!(matches!(Outcome::of_error(&broken), Outcome::Failed(reason) if reason.contains("a.jpg")));
    }
}
