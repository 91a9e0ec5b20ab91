//! The catalogue of an index: which photos there are, where their vectors lie, their thumbnails, what failed; SQLite.
//!
//! SQLite notices torn pages, not changed bytes, so every row carries a checksum, and the sum of all rows' checksums
//! stands beside their count: a catalogue that opens is the one that was written.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, params};
use serde::{Deserialize, Serialize};
use sightline_data::StoreSettings;
use sightline_search::Place;
use sightline_train::aligner::Aligner;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::walk::Stamp;

/// Format of the whole index folder.
pub const VERSION: u32 = 2;

const FILE: &str = "catalogue.sqlite";

/// How vectors are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Sixteen-bit floats
    #[default]
    F16,
    /// Eight-bit whole numbers: half the memory, nearly the same ranking
    Int8,
}

impl From<Encoding> for sightline_search::vectors::Encoding {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::F16 => Self::F16,
            Encoding::Int8 => Self::Int8,
        }
    }
}

/// What decides the numbers of an index, and where its sources lay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The folder that was indexed last, absolute.
    #[serde(with = "any_path")]
    pub root: PathBuf,
    /// The alignment model's file, absolute.
    #[serde(with = "any_path")]
    pub model: PathBuf,
    /// What tells its weights from others.
    pub model_checksum: String,
    /// Region features that the model reads.
    pub features: StoreSettings,
    /// Length of the model's vectors.
    pub dim: usize,
    /// How vectors are stored.
    pub encoding: Encoding,
}

/// Paths as JSON, those too that are not UTF-8: as the system's bytes.
mod any_path {
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::index::walk::{to_bytes, to_path};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(PathBuf),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => text.serialize(serializer),
            None => to_bytes(path).serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Ok(match Written::deserialize(deserializer)? {
            Written::Text(path) => path,
            Written::Bytes(bytes) => to_path(&bytes),
        })
    }
}

impl Settings {
    /// Ties vectors files to the model and the index's making.
    pub fn owner(&self) -> u64 {
        let Self { root: _, model: _, model_checksum, features: _, dim, encoding } = self;
        xxh3_64(format!("{VERSION} {model_checksum} {dim} {encoding:?}").as_bytes())
    }

    /// An error where the model found in its place is not the one that the index was made with.
    pub fn check_model(&self, found: &Aligner) -> anyhow::Result<()> {
        ensure!(
            found.checksum == self.model_checksum,
            "{} is not the model that the index was made with; name that one with --model, or index anew",
            self.model.display()
        );
        Ok(())
    }
}

/// A photo of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhotoRow {
    /// Never used again for another photo.
    pub id: i64,
    /// Below the root, as the system's bytes.
    pub path: Vec<u8>,
    /// What tells changed files: length, and nanoseconds since 1970 of the last change.
    pub stamp: Stamp,
    /// XXH3-128 of the file.
    pub content: [u8; 16],
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// When it was taken by its EXIF data, else when the file was changed; seconds since 1970.
    pub taken: i64,
    /// Difference hash: photos that look alike differ in few bits.
    pub look: u64,
    /// Where its vectors lie; `file` is the vectors file's number.
    pub place: Place,
}

impl PhotoRow {
    fn checksum(&self) -> u64 {
        let Self { id, path, stamp, content, width, height, taken, look, place } = self;
        let mut hasher = Xxh3Default::new();
        hasher.update(&(path.len() as u64).to_le_bytes());
        hasher.update(path);
        hasher.update(content);
        for number in [*id, stamp.bytes as i64, stamp.modified, i64::from(*width), i64::from(*height), *taken] {
            hasher.update(&number.to_le_bytes());
        }
        for number in [*look, u64::from(place.file), u64::from(place.photo)] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.digest()
    }
}

/// A file that could not be indexed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureRow {
    /// Below the root, as the system's bytes.
    pub path: Vec<u8>,
    /// Of the file that failed, so that it is tried again when it changes.
    pub stamp: Stamp,
    /// Why.
    pub reason: String,
}

/// One change to the catalogue; a list of them is done in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new photo, its id not yet given.
    Insert(PhotoRow),
    /// Another row of the same id.
    Update(PhotoRow),
    /// A photo is gone.
    Delete(PhotoRow),
    /// A vectors file was added.
    AddFile(u32),
    /// A vectors file is no longer used.
    DropFile(u32),
    /// The thumbnail of all photos of this content, JPEG.
    Thumbnail([u8; 16], Vec<u8>),
    /// A file could not be indexed.
    Fail(FailureRow),
    /// A file that failed is gone, or was indexed.
    Forget(Vec<u8>),
}

/// An open catalogue.
#[derive(Debug)]
pub struct Catalogue {
    path: PathBuf,
    connection: Connection,
    settings: Settings,
    digest: Digest,
}

/// Of all photos' rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Digest {
    photos: u64,
    sum: u64,
}

impl Digest {
    fn add(&mut self, row: &PhotoRow) {
        self.photos += 1;
        self.sum = self.sum.wrapping_add(row.checksum());
    }

    fn take(&mut self, row: &PhotoRow) {
        self.photos = self.photos.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(row.checksum());
    }
}

const SCHEMA: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE files (number INTEGER PRIMARY KEY) STRICT;
CREATE TABLE photos (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path BLOB NOT NULL UNIQUE,
    bytes INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    content BLOB NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    taken INTEGER NOT NULL,
    look INTEGER NOT NULL,
    file INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT;
CREATE TABLE thumbnails (content BLOB PRIMARY KEY, jpeg BLOB NOT NULL, checksum INTEGER NOT NULL) STRICT;
CREATE TABLE failures (
    path BLOB PRIMARY KEY, bytes INTEGER NOT NULL, modified INTEGER NOT NULL, reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

impl Catalogue {
    /// Whether a folder holds an index.
    pub fn exists(index: &Path) -> bool {
        index.join(FILE).exists()
    }

    /// A new catalogue in a folder that has none.
    pub fn create(index: &Path, settings: &Settings) -> anyhow::Result<Self> {
        // Filled beside its place, so that a kill leaves no catalogue without settings.
        let partial = index.join("catalogue.partial");
        let path = index.join(FILE);
        match std::fs::remove_file(&partial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot replace {}", partial.display()));
            }
            _ => {}
        }
        let what = || format!("cannot write {}", path.display());
        let connection = Connection::open(&partial).with_context(what)?;
        connection.execute_batch(SCHEMA).with_context(what)?;
        connection.pragma_update(None, "user_version", VERSION).with_context(what)?;
        put_meta(&connection, "settings", settings).with_context(what)?;
        put_meta(&connection, "digest", &Digest::default()).with_context(what)?;
        connection.close().map_err(|(_, error)| error).with_context(what)?;
        std::fs::rename(&partial, &path).with_context(what)?;
        Self::open(index)
    }

    /// Opens the catalogue of an index.
    ///
    /// # Errors
    /// No index in the folder, another version, or anything in it that is not as it was written.
    pub fn open(index: &Path) -> anyhow::Result<Self> {
        let path = index.join(FILE);
        ensure!(path.exists(), "{} holds no index; make one with `sightline index FOLDER -o {0}`", index.display());
        // Writable even for readers: whoever comes first after a kill undoes the torn transaction. SQLite opens it read-only
        // by itself where the file may not be written.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || -> anyhow::Result<Self> {
            let connection = Connection::open_with_flags(&path, flags)?;
            connection.busy_timeout(Duration::from_secs(10))?;
            let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            ensure!(version == VERSION, "an index of version {version}, but this program reads version {VERSION}");
            let settings = get_meta(&connection, "settings")?;
            let digest = get_meta(&connection, "digest")?;
            Ok(Self { path: path.clone(), connection, settings, digest })
        };
        open().with_context(|| broken(&path))
    }

    /// What the index was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Remembers where the sources lie now.
    pub fn set_settings(&mut self, settings: Settings) -> anyhow::Result<()> {
        put_meta(&self.connection, "settings", &settings).with_context(|| self.cannot("write"))?;
        self.settings = settings;
        Ok(())
    }

    /// All photos, by vectors file and place in it.
    pub fn photos(&self) -> anyhow::Result<Vec<PhotoRow>> {
        let read = || -> anyhow::Result<Vec<PhotoRow>> {
            // In one transaction, so that the digest belongs to the rows.
            let transaction = self.connection.unchecked_transaction()?;
            let select = format!("SELECT {COLUMNS} FROM photos ORDER BY file, at, id");
            let rows = transaction.prepare(&select)?.query_map([], photo)?.collect::<Result<Vec<_>, _>>()?;
            let mut digest = Digest::default();
            rows.iter().for_each(|row| digest.add(row));
            let written: Digest = get_meta(&transaction, "digest")?;
            ensure!(digest == written, "changed since it was written (the checksum of its photos differs)");
            Ok(rows)
        };
        read().with_context(|| broken(&self.path))
    }

    /// Numbers of the vectors files in use.
    pub fn files(&self) -> anyhow::Result<Vec<u32>> {
        let read = || -> rusqlite::Result<Vec<u32>> {
            let mut select = self.connection.prepare("SELECT number FROM files ORDER BY number")?;
            select.query_map([], |row| row.get(0))?.collect()
        };
        read().with_context(|| broken(&self.path))
    }

    /// Files that could not be indexed.
    pub fn failures(&self) -> anyhow::Result<Vec<FailureRow>> {
        let read = || -> rusqlite::Result<Vec<FailureRow>> {
            let mut select =
                self.connection.prepare("SELECT path, bytes, modified, reason FROM failures ORDER BY path")?;
            let row = |row: &rusqlite::Row<'_>| {
                Ok(FailureRow { path: row.get(0)?, stamp: stamp(row, 1)?, reason: row.get(3)? })
            };
            select.query_map([], row)?.collect()
        };
        read().with_context(|| broken(&self.path))
    }

    /// The thumbnail of a photo, JPEG; none where it is missing or no longer what was written.
    pub fn thumbnail(&self, content: &[u8; 16]) -> anyhow::Result<Option<Vec<u8>>> {
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)? as u64));
        let found = (self.connection)
            .query_row("SELECT jpeg, checksum FROM thumbnails WHERE content = ?", [content], read)
            .optional()
            .with_context(|| broken(&self.path))?;
        Ok(found.filter(|(jpeg, checksum)| xxh3_64(jpeg) == *checksum).map(|(jpeg, _)| jpeg))
    }

    /// Does all changes or none.
    pub fn change(&mut self, changes: &[Change]) -> anyhow::Result<()> {
        let mut digest = self.digest;
        let cannot = self.cannot("write");
        let mut write = || -> anyhow::Result<()> {
            let transaction = self.connection.transaction()?;
            for change in changes {
                apply(&transaction, change, &mut digest)?;
            }
            put_meta(&transaction, "digest", &digest)?;
            Ok(transaction.commit()?)
        };
        write().context(cannot)?;
        self.digest = digest;
        Ok(())
    }

    /// Takes out thumbnails that no photo has.
    pub fn drop_unused_thumbnails(&mut self) -> anyhow::Result<()> {
        (self.connection)
            .execute("DELETE FROM thumbnails WHERE content NOT IN (SELECT content FROM photos)", [])
            .with_context(|| self.cannot("write"))?;
        Ok(())
    }

    fn cannot(&self, action: &str) -> String {
        format!("cannot {action} {}", self.path.display())
    }
}

/// When the catalogue of an index was changed last.
pub fn changed(index: &Path) -> Option<SystemTime> {
    std::fs::metadata(index.join(FILE)).and_then(|facts| facts.modified()).ok()
}

fn broken(path: &Path) -> String {
    format!("cannot use {}; if it is broken, delete the index folder and run `sightline index` again", path.display())
}

fn apply(transaction: &Transaction<'_>, change: &Change, digest: &mut Digest) -> anyhow::Result<()> {
    match change {
        Change::Insert(row) => {
            let PhotoRow { id: _, path, stamp, content, width, height, taken, look, place } = row;
            transaction
                .prepare_cached(
                    "INSERT INTO photos (path, bytes, modified, content, width, height, taken, look, file, at)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    path,
                    stamp.bytes as i64,
                    stamp.modified,
                    content,
                    width,
                    height,
                    taken,
                    *look as i64,
                    place.file,
                    place.photo
                ])?;
            digest.add(&PhotoRow { id: transaction.last_insert_rowid(), ..row.clone() });
        }
        Change::Update(row) => {
            let old = one(transaction, row.id)?;
            let PhotoRow { id, path, stamp, content, width, height, taken, look, place } = row;
            transaction
                .prepare_cached(
                    "UPDATE photos SET path = ?, bytes = ?, modified = ?, content = ?, width = ?, height = ?, taken = ?,
                     look = ?, file = ?, at = ? WHERE id = ?",
                )?
                .execute(params![
                    path,
                    stamp.bytes as i64,
                    stamp.modified,
                    content,
                    width,
                    height,
                    taken,
                    *look as i64,
                    place.file,
                    place.photo,
                    id
                ])?;
            digest.take(&old);
            digest.add(row);
        }
        Change::Delete(row) => {
            let old = one(transaction, row.id)?;
            transaction.prepare_cached("DELETE FROM photos WHERE id = ?")?.execute([row.id])?;
            digest.take(&old);
        }
        Change::AddFile(number) => {
            transaction.execute("INSERT INTO files (number) VALUES (?)", [number])?;
        }
        Change::DropFile(number) => {
            transaction.execute("DELETE FROM files WHERE number = ?", [number])?;
        }
        Change::Thumbnail(content, jpeg) => {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO thumbnails (content, jpeg, checksum) VALUES (?, ?, ?)")?
                .execute(params![content, jpeg, xxh3_64(jpeg) as i64])?;
        }
        Change::Fail(FailureRow { path, stamp, reason }) => {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO failures (path, bytes, modified, reason) VALUES (?, ?, ?, ?)")?
                .execute(params![path, stamp.bytes as i64, stamp.modified, reason])?;
        }
        Change::Forget(path) => {
            transaction.prepare_cached("DELETE FROM failures WHERE path = ?")?.execute([path])?;
        }
    }
    Ok(())
}

const COLUMNS: &str = "id, path, bytes, modified, content, width, height, taken, look, file, at";

/// A row of [`COLUMNS`].
fn photo(row: &rusqlite::Row<'_>) -> rusqlite::Result<PhotoRow> {
    Ok(PhotoRow {
        id: row.get(0)?,
        path: row.get(1)?,
        stamp: stamp(row, 2)?,
        content: row.get(4)?,
        width: row.get(5)?,
        height: row.get(6)?,
        taken: row.get(7)?,
        look: row.get::<_, i64>(8)? as u64,
        place: Place { file: row.get(9)?, photo: row.get(10)? },
    })
}

/// The columns `bytes` and `modified`, of which the first stands at `at`.
fn stamp(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Stamp> {
    Ok(Stamp { bytes: row.get::<_, i64>(at)? as u64, modified: row.get(at + 1)? })
}

/// The row as it stands.
fn one(transaction: &Transaction<'_>, id: i64) -> rusqlite::Result<PhotoRow> {
    let select = format!("SELECT {COLUMNS} FROM photos WHERE id = ?");
    transaction.prepare_cached(&select)?.query_row([id], photo)
}

fn put_meta(connection: &Connection, name: &str, value: &impl Serialize) -> anyhow::Result<()> {
    let value = serde_json::to_string(value)?;
    let checksum = xxh3_64(value.as_bytes()) as i64;
    let sql = "INSERT OR REPLACE INTO meta (name, value, checksum) VALUES (?, ?, ?)";
    connection.prepare_cached(sql)?.execute(params![name, value, checksum])?;
    Ok(())
}

fn get_meta<T: serde::de::DeserializeOwned>(connection: &Connection, name: &str) -> anyhow::Result<T> {
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)? as u64));
    let (value, checksum) = connection
        .query_row("SELECT value, checksum FROM meta WHERE name = ?", [name], read)
        .optional()?
        .with_context(|| format!("no {name} in it"))?;
    if xxh3_64(value.as_bytes()) != checksum {
        bail!("its {name} changed since they were written (the checksum differs)");
    }
    Ok(serde_json::from_str(&value)?)
}
