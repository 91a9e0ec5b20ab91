//! What evaluations on a split of a dataset have in common.

use std::path::PathBuf;

use clap::Args;
use sightline_data::{Dataset, FeatureStore, Split};
use sightline_model::Device;
use sightline_train::corpus::Corpus;

use crate::models;
use crate::sources::DeviceKind;
use crate::ui::{Ui, count};

/// What every evaluation on a split reads.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// A dataset of `dataset import`
    #[arg(long)]
    dataset: PathBuf,
    /// A feature store of `features`
    #[arg(long)]
    features: PathBuf,
    /// The split; the test split where there is one, else the validation split
    #[arg(long, value_parser = super::dataset::split)]
    split: Option<Split>,
    /// Where the numbers are computed
    #[arg(long, default_value = "cpu")]
    device: DeviceKind,
}

/// Dataset, store and device of an evaluation.
pub(super) struct Data {
    pub(super) dataset: Dataset,
    pub(super) store: FeatureStore,
    pub(super) split: Split,
    pub(super) device: Device,
}

impl Common {
    /// The files that are read.
    /// What a command reads besides these models and stores.
    pub(super) fn inputs<'a>(
        &self,
        models: impl IntoIterator<Item = &'a PathBuf>,
        stores: &[PathBuf],
    ) -> impl Iterator<Item = PathBuf> {
        let own = [&self.dataset, &self.features].into_iter().chain(stores).cloned().collect::<Vec<_>>();
        own.into_iter().chain(models::files(models))
    }

    pub(super) fn open(&self, ui: &Ui) -> anyhow::Result<Data> {
        let dataset = Dataset::load(&self.dataset)?;
        let store = FeatureStore::open(&self.features)?;
        let split = self.split.unwrap_or_else(|| {
            let split = if dataset.split(Split::Test).next().is_some() { Split::Test } else { Split::Val };
            ui.say(format_args!("evaluating on the {} split", split.name()));
            split
        });
        Ok(Data { dataset, store, split, device: self.device.open()? })
    }
}

/// How sharp a re-ranking is: a factor on scores before they are exponents.
pub(super) fn sharpness(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|&s: &f64| s > 0.0 && s.is_finite()).ok_or_else(|| "expected a number above 0".to_owned())
}

/// Says what of the split is not evaluated.
pub(super) fn tell_gaps(corpus: &Corpus<'_>, ui: &Ui) {
    if let Some(first) = corpus.missing.first() {
        let photos = count(corpus.missing.len(), "photo");
        ui.say(format_args!("{photos} of the split without vectors left out, {first} for one"));
    }
    if corpus.wordless_sentences > 0 {
        ui.say(format_args!("{} without any known word", count(corpus.wordless_sentences, "sentence")));
    }
}

/// An error where two models' vectors are of other photos of the split.
pub(super) fn same_photos(first: &Corpus<'_>, own: &Corpus<'_>) -> anyhow::Result<()> {
    let photos = |corpus: &Corpus<'_>| corpus.photos.iter().map(|photo| photo.image).collect::<Vec<_>>();
    anyhow::ensure!(
        photos(own) == photos(first),
        "{} has vectors of other photos of the split than {}; models that judge together need them all in both",
        own.store.path().display(),
        first.store.path().display()
    );
    Ok(())
}
