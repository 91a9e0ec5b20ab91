//! Models by name: `builtin` (the pack that the program carries), a pack, a run, or a checkpoint.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sightline_data::FeatureStore;
use sightline_train::aligner::Aligner;
use sightline_train::caption::Captioner;
use sightline_train::checkpoint::{Checkpoint, Kind, Outline};
use sightline_train::pack::Pack;
use sightline_train::run::RunFolder;

/// The name of the pack that the program carries.
pub const BUILTIN: &str = "builtin";

static BUILTIN_PACK: &[u8] = include_bytes!("../../../assets/sightline.pack");

/// A pack by its file, or the program's own.
///
/// # Errors
/// No pack, another version, or any changed byte.
pub fn pack(spec: &Path) -> anyhow::Result<Pack<'static>> {
    if spec == Path::new(BUILTIN) {
        return Pack::parse(Cow::Borrowed(BUILTIN_PACK)).map_err(|e| anyhow::anyhow!("the program's own models: {e}"));
    }
    Ok(Pack::open(spec)?)
}

/// Whether a name means a pack.
pub fn is_pack(spec: &Path) -> bool {
    let begins = || -> std::io::Result<bool> {
        let mut first = [0; 8];
        File::open(spec)?.read_exact(&mut first)?;
        Ok(Pack::begins(&first))
    };
    spec == Path::new(BUILTIN) || (spec.is_file() && begins().unwrap_or(false))
}

/// The model of one of these kinds. One from a pack remembers that its backbone lies there too.
///
/// # Errors
/// There is none by this name, or it is of another kind or damaged.
pub fn checkpoint(spec: &Path, kinds: &[Kind]) -> anyhow::Result<Checkpoint> {
    if !is_pack(spec) {
        return Ok(RunFolder::model(spec, kinds)?);
    }
    let pack = pack(spec)?;
    let found = kinds.iter().find_map(|&kind| pack.part(kind));
    let mut found = found.with_context(|| lacks(spec, kinds))?;
    if pack.kinds().any(|kind| kind == Kind::Backbone) {
        let place = absolute(spec)?.display().to_string();
        let sources = &mut found.header.features.sources;
        sources.insert("backbone".to_owned(), place.clone());
        sources.insert("regions".to_owned(), format!("compact={place}"));
    }
    Ok(found)
}

/// A model without its weights, but no less checked.
pub fn outline(spec: &Path, kinds: &[Kind]) -> anyhow::Result<Outline> {
    if !is_pack(spec) {
        return Ok(RunFolder::outline(spec, kinds)?);
    }
    let pack = pack(spec)?;
    kinds.iter().find_map(|&kind| pack.outline(kind)).with_context(|| lacks(spec, kinds))
}

/// A model that reads the vectors of one kind of store.
pub trait Reads {
    /// An error that names the differences where the store's vectors are not what the model was trained on.
    fn check(&self, store: &FeatureStore) -> sightline_train::Result<()>;
}

impl Reads for Aligner {
    fn check(&self, store: &FeatureStore) -> sightline_train::Result<()> {
        self.check(store)
    }
}

impl Reads for Captioner {
    fn check(&self, store: &FeatureStore) -> sightline_train::Result<()> {
        self.check(store)
    }
}

/// For each of several models, named by their runs, the store whose vectors it reads: `first` where it can, else one of
/// `more`.
///
/// # Errors
/// A model that reads none of them, and a store of `more` that nobody reads.
pub fn stores_of<'a>(
    readers: &[(&Path, &dyn Reads)],
    first: &'a FeatureStore,
    more: &'a [FeatureStore],
) -> anyhow::Result<Vec<&'a FeatureStore>> {
    let mut unread = vec![true; more.len()];
    let mut store_of = |(run, model): &(&Path, &dyn Reads)| {
        let Err(difference) = model.check(first) else { return Ok(first) };
        let Some(own) = more.iter().position(|store| model.check(store).is_ok()) else {
            let run = run.display();
            anyhow::bail!(
                "{run} reads the vectors of none of the stores given; --more-features adds one ({difference})"
            );
        };
        unread[own] = false;
        Ok(&more[own])
    };
    let stores = readers.iter().map(&mut store_of).collect::<anyhow::Result<_>>()?;
    if let Some(store) = more.iter().zip(unread).find_map(|(store, unread)| unread.then_some(store)) {
        anyhow::bail!("no model given reads the vectors of {}; leave it out", store.path().display());
    }
    Ok(stores)
}

/// An error where two caption models know different words: neither could tell how likely the other's sentences are.
pub fn same_words(first_run: &Path, first: &Captioner, run: &Path, other: &Captioner) -> anyhow::Result<()> {
    anyhow::ensure!(
        first.vocabulary == other.vocabulary,
        "{} knows other words than {}; a committee needs models of the same training split and min_count",
        run.display(),
        first_run.display()
    );
    Ok(())
}

fn lacks(spec: &Path, kinds: &[Kind]) -> String {
    let wanted: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    format!("{} does not hold {}", spec.display(), wanted.join(" or "))
}

/// What tells an alignment model's weights from others. A pack may get another card or other captions, and an index that was
/// made with it stays as good as it was.
pub fn checksum_of(spec: &Path) -> anyhow::Result<String> {
    Ok(checkpoint(spec, &[Kind::Alignment])?.checksum())
}

/// A model's name as it is understood from any folder.
pub fn absolute(spec: &Path) -> anyhow::Result<PathBuf> {
    if spec == Path::new(BUILTIN) {
        return Ok(spec.to_owned());
    }
    std::path::absolute(file(spec)).with_context(|| format!("cannot tell where {} lies", spec.display()))
}

/// The files of models, which no result may be written over.
pub fn files<'a>(specs: impl IntoIterator<Item = &'a PathBuf>) -> impl Iterator<Item = PathBuf> {
    specs.into_iter().filter(|spec| *spec != Path::new(BUILTIN)).map(|spec| file(spec))
}

/// The checkpoint of a run; any other file itself.
pub fn file(spec: &Path) -> PathBuf {
    if spec.is_dir() { spec.join("best.ckpt") } else { spec.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_carries_its_models() {
        let spec = Path::new(BUILTIN);
        for kind in [Kind::Backbone, Kind::Alignment, Kind::Caption, Kind::RegionCaption] {
            let model = checkpoint(spec, &[kind]).unwrap();
            assert_eq!(model.header.kind, kind);
            assert!(!model.model.is_empty());
        }
        let features = |kind| checkpoint(spec, &[kind]).unwrap().header.features;
        let differences = features(Kind::Alignment).differences(&features(Kind::Caption));
        assert!(differences.is_empty(), "{differences:?}");
        assert_eq!(features(Kind::Caption).sources["regions"], "compact=builtin");
        assert!(BUILTIN_PACK.len() <= 16_000_000, "{} bytes", BUILTIN_PACK.len());
    }

    #[test]
    fn what_is_no_model_is_refused_in_one_line() {
        let error = checkpoint(Path::new("/nowhere"), &[Kind::Caption]).unwrap_err().to_string();
        assert!(error.contains("/nowhere"), "{error}");
    }
}
