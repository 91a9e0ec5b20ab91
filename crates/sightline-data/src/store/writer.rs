//! Writes a store: photos are appended to a journal by any thread, then made into the file.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{COPIED, FeatureStore, PhotoFeatures, Record, StoreSettings, file, journal, journal_path};
use crate::{Error, Result, map, write};

/// Collects photos for a store and writes it. Shared between threads by reference.
#[derive(Debug)]
pub struct StoreWriter {
    path: PathBuf,
    journal: PathBuf,
    settings: StoreSettings,
    /// The store that was there before, whose photos stay.
    before: Option<FeatureStore>,
    done: HashSet<String>,
    recovered: Recovered,
    /// When the store that was there before was written, and when the journal was, where the system says.
    written: [Option<SystemTime>; 2],
    /// The keys that the journal had.
    journalled: FxHashSet<String>,
    /// Keys whose earlier vectors count no more.
    forgotten: FxHashSet<String>,
    state: Mutex<State>,
}

/// What an earlier, interrupted run had left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Photos in the finished file of an earlier run.
    pub finished: usize,
    /// Photos in the journal of an interrupted run.
    pub journalled: usize,
    /// Bytes of a torn record that were cut off the journal.
    pub torn_bytes: u64,
}

struct State {
    sink: Box<dyn Sink>,
    /// Bytes of whole records and the header.
    length: u64,
    keys: FxHashSet<String>,
    /// Set when a torn record could not be taken back; nothing may follow it.
    torn: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("length", &self.length).field("torn", &self.torn).finish_non_exhaustive()
    }
}

/// What a journal is written to: a file, or in tests one that fails.
pub(super) trait Sink: Send {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Takes back everything after `length`.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

impl Sink for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.seek(SeekFrom::Start(length)).map(drop)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

impl StoreWriter {
    /// Starts a store at `path`, or continues one: an interrupted run's journal (`<path>.partial`), a finished file, or
    /// both. What they hold is kept.
    ///
    /// # Errors
    /// What is there has other settings (the message names each), is no store, or is being written by another process.
    pub fn create_or_resume(path: &Path, settings: &StoreSettings) -> Result<Self> {
        Self::with_sink(path, settings, |file| Box::new(file))
    }

    pub(super) fn with_sink(
        path: &Path,
        settings: &StoreSettings,
        sink: impl FnOnce(File) -> Box<dyn Sink>,
    ) -> Result<Self> {
        if settings.dim == 0 || settings.max_regions == 0 || u32::try_from(settings.dim).is_err() {
            return Err(Error::format(
                path,
                format!(
                    "expected dim and max_regions of at least 1, got {} and {}",
                    settings.dim, settings.max_regions
                ),
            ));
        }
        let journal = journal_path(path);
        let (mut file, created) = locked_journal(&journal, settings)?;
        // Only under the lock: another process that finishes meanwhile puts another store there.
        let before = match opened_before(path, settings) {
            Err(error) if created => {
                let _ = std::fs::remove_file(&journal);
                return Err(error);
            }
            before => before?,
        };
        let mut keys: FxHashSet<String> = before.iter().flat_map(FeatureStore::keys).map(str::to_owned).collect();
        let mut recovered = Recovered { finished: keys.len(), ..Recovered::default() };
        let modified = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let written = [before.as_ref().and_then(|_| modified(path)), modified(&journal)];
        let mut journalled = FxHashSet::default();
        let length = {
            let bytes = map::read_only(&journal)?;
            let scan = journal::scan(&journal, &bytes)?;
            same_settings(&journal, &scan.settings, settings)?;
            for payload in &scan.payloads {
                journalled.insert(record(&bytes, payload, settings.dim).key.to_owned());
            }
            recovered.journalled = scan.payloads.len();
            recovered.torn_bytes = (bytes.len() - scan.length) as u64;
            scan.length as u64
        };
        keys.extend(journalled.iter().cloned());
        // Whole journals are left as they are: their time tells when the last photo went in.
        let placed = match recovered.torn_bytes {
            0 => file.seek(SeekFrom::End(0)).map(drop),
            _ => Sink::truncate(&mut file, length),
        };
        placed.map_err(Error::io("continue", &journal))?;
        Ok(Self {
            path: path.to_owned(),
            settings: settings.clone(),
            before,
            done: keys.iter().cloned().collect(),
            recovered,
            written,
            journalled,
            forgotten: FxHashSet::default(),
            state: Mutex::new(State { sink: sink(file), length, keys, torn: false }),
            journal,
        })
    }

    /// The store's settings.
    pub fn settings(&self) -> &StoreSettings {
        &self.settings
    }

    /// The keys that were there when the writer was made: what need not be done again.
    pub fn done(&self) -> &HashSet<String> {
        &self.done
    }

    /// What an earlier run had left.
    pub fn recovered(&self) -> Recovered {
        self.recovered
    }

    /// Of `photos`, each a key and when its file was changed, forgets those that were changed after their vectors were
    /// written: they may be appended anew, and what was there before goes when the store is finished. Says how many.
    pub fn forget_changed<'a>(&mut self, photos: impl IntoIterator<Item = (&'a str, SystemTime)>) -> usize {
        let keys = &mut self.state.get_mut().unwrap_or_else(PoisonError::into_inner).keys;
        let mut n_forgotten = 0;
        for (key, changed) in photos {
            let written = self.written[usize::from(self.journalled.contains(key))];
            if self.done.contains(key) && written.is_some_and(|written| changed > written) {
                self.done.remove(key);
                keys.remove(key);
                self.forgotten.insert(key.to_owned());
                n_forgotten += 1;
            }
        }
        n_forgotten
    }

    /// Adds one photo; safe to call from several threads. On return the photo survives a kill of this process.
    ///
    /// # Errors
    /// The photo does not fit the settings or its key is there already; or the disk refused, in which case what was
    /// appended before stays whole, and a later run continues from there.
    pub fn append(&self, photo: &PhotoFeatures) -> Result<()> {
        let vectors = photo.checked(&self.path, &self.settings)?;
        let bytes = journal::encode(photo, &vectors);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.torn {
            return Err(Error::format(&self.journal, "an earlier write failed: make room on the disk and start again"));
        }
        if state.keys.contains(&photo.key) {
            return Err(Error::format(&self.path, format!("the photo `{}` is there already", photo.key)));
        }
        let length = state.length;
        if let Err(error) = state.sink.append(&bytes) {
            state.torn = state.sink.truncate(length).is_err();
            return Err(Error::io("append to", &self.journal)(error));
        }
        state.length += bytes.len() as u64;
        state.keys.insert(photo.key.clone());
        Ok(())
    }

    /// Ends without a store, and takes the journal away: it holds no photo.
    pub(crate) fn abandon(self) -> Result<()> {
        std::fs::remove_file(&self.journal).map_err(Error::io("remove", &self.journal))
    }

    /// Writes the store: the photos named by `order` first, the others after them by key. Keys of `order` that are not
    /// there are passed over. Then removes the journal and lets others write. Returns the number of photos.
    ///
    /// A kill at any moment leaves the journal, the file, or both, and [`StoreWriter::create_or_resume`] goes on from
    /// any of these.
    ///
    /// # Errors
    /// The disk refused; the journal stays.
    pub fn finish(self, order: &[String]) -> Result<usize> {
        let Self { path, journal, settings, before, recovered, forgotten, state, .. } = self;
        let State { mut sink, length, .. } = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        sink.sync().map_err(Error::io("sync", &journal))?;
        let bytes = map::read_only(&journal)?;
        let scan = journal::scan(&journal, &bytes)?;
        if scan.length as u64 != length {
            return Err(Error::format(
                &journal,
                format!("expected {length} whole bytes, got {}: was it changed meanwhile?", scan.length),
            ));
        }

        let mut places: FxHashMap<String, Place> = FxHashMap::default();
        if let Some(store) = &before {
            places.extend(store.keys().enumerate().map(|(i, key)| (key.to_owned(), Place::Before(i))));
        }
        places.retain(|key, _| !forgotten.contains(key));
        for (i, payload) in scan.payloads.into_iter().enumerate() {
            let key = record(&bytes, &payload, settings.dim).key;
            // Of a photo that was changed, what this writer appended counts alone.
            if i >= recovered.journalled || !forgotten.contains(key) {
                places.insert(key.to_owned(), Place::Journal(payload));
            }
        }
        let mut sorted: Vec<Place> = order.iter().filter_map(|key| places.remove(key)).collect();
        let mut others: Vec<(String, Place)> = places.into_iter().collect();
        others.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        sorted.extend(others.into_iter().map(|(_, place)| place));
        let n_photos = sorted.len();
        let is_there = |(i, place): (usize, &Place)| matches!(place, Place::Before(before) if *before == i);
        let is_unchanged =
            before.as_ref().is_some_and(|store| store.len() == n_photos) && sorted.iter().enumerate().all(is_there);

        // The closure owns both maps, so they are gone before the new file takes the old one's place.
        if is_unchanged {
            drop((bytes, before));
        } else {
            write::atomically(&path, move |out| {
                file::write(out, &settings, sorted.len(), |i| match &sorted[i] {
                    Place::Journal(payload) => record(&bytes, payload, settings.dim),
                    Place::Before(index) => {
                        before.as_ref().expect("only a store that was there gives such places").record(*index)
                    }
                })
            })?;
        }
        // Removed before it is unlocked: whoever locks it now finds that it is the journal no more.
        let removed = std::fs::remove_file(&journal);
        drop(sink);
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &journal)(error)),
            _ => Ok(n_photos),
        }
    }
}

/// Opens and locks the journal, with a header of `settings` where there was none; and whether there was none.
fn locked_journal(journal: &Path, settings: &StoreSettings) -> Result<(File, bool)> {
    const TRIES: usize = 100;
    if let Some(folder) = journal.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
    }
    let busy = || Error::format(journal, "another process is writing this store: wait for it, or name another file");
    for _ in 0..TRIES {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(journal)
            .map_err(Error::io("open", journal))?;
        match write::lock(&file) {
            Err(TryLockError::WouldBlock) => return Err(busy()),
            // A file system without locks: two writers at once stay the user's business, and `finish` notices them.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        // Another process may have finished between the opening and the lock; what is locked then has no name any more.
        if !is_at(&file, journal) {
            continue;
        }
        let header = journal::header(settings);
        let mut there = Vec::new();
        (&file).take(header.len() as u64).read_to_end(&mut there).map_err(Error::io("read", journal))?;
        // New, or killed while its header was written.
        let created = there.len() < header.len() && header.starts_with(&there);
        if created {
            let written = Sink::truncate(&mut file, 0).and_then(|()| file.write_all(&header));
            written.and_then(|()| file.sync_all()).map_err(Error::io("write", journal))?;
        }
        return Ok((file, created));
    }
    Err(busy())
}

/// Whether an open file is the one at `path`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((file.metadata().map(identity), std::fs::metadata(path).map(identity)), (Ok(a), Ok(b)) if a == b)
}

/// Whether an open file is the one at `path`: elsewhere a file that is open keeps its name.
#[cfg(not(unix))]
fn is_at(_file: &File, path: &Path) -> bool {
    path.exists()
}

/// The store that was there before, if there is one; of other settings it is refused.
fn opened_before(path: &Path, settings: &StoreSettings) -> Result<Option<FeatureStore>> {
    if !path.exists() {
        return Ok(None);
    }
    let store = FeatureStore::open(path)?;
    same_settings(path, store.settings(), settings)?;
    Ok(Some(store))
}

/// Where a photo comes from.
enum Place {
    /// Its payload in the journal.
    Journal(Range<usize>),
    /// Its position in the store that was there before.
    Before(usize),
}

fn record<'a>(bytes: &'a [u8], payload: &Range<usize>, dim: usize) -> Record<'a> {
    journal::view(&bytes[payload.clone()], dim).expect("checked while scanning")
}

fn same_settings(path: &Path, there: &StoreSettings, wanted: &StoreSettings) -> Result<()> {
    let mut differences = there.differences(wanted);
    // Older stores do not say it.
    if there.sources.get(COPIED).is_some_and(|copied| wanted.sources.get(COPIED) != Some(copied)) {
        differences.push("its vectors were copied from something else, or for other photos".to_owned());
    }
    if differences.is_empty() { Ok(()) } else { Err(Error::Settings { path: path.to_owned(), differences }) }
}
