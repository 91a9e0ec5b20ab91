//! An index of a folder of photos: made by `index`, asked by `search` and `serve`.
//!
//! A folder with `catalogue.sqlite` (photos, thumbnails, failures), `vectors-N.slv` (region vectors, immutable),
//! `centroids.slc` (for large collections), and `lock` (who writes).

pub mod build;
pub mod catalogue;
pub mod date;
pub mod search;
pub mod walk;

use std::path::{Path, PathBuf};

use sightline_data::StoreSettings;
use sightline_search::{Collection, Place, Vectors};

use catalogue::{Catalogue, PhotoRow};

/// The file of centroids.
const CENTROIDS: &str = "centroids.slc";

/// A vectors file by its number.
fn vectors_path(index: &Path, number: u32) -> PathBuf {
    index.join(format!("vectors-{number:06}.slv"))
}

/// Where a model is a pack that holds what makes its features, it is their source: it may have moved since `features`
/// remembered another place.
pub(crate) fn take_sources_of_pack(features: &mut StoreSettings, of_model: &StoreSettings, model: &Path) {
    if of_model.sources.get("backbone").is_some_and(|place| Path::new(place) == model) {
        features.sources.extend(of_model.sources.clone());
    }
}

/// The vectors of all photos of the catalogue, in the order of `rows`.
fn collection(catalogue: &Catalogue, index: &Path, rows: &[PhotoRow]) -> anyhow::Result<Collection> {
    let owner = catalogue.settings().owner();
    let mut numbers: Vec<u32> = rows.iter().map(|row| row.place.file).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let files = numbers
        .iter()
        .map(|&number| Ok(Vectors::open(&vectors_path(index, number), owner)?))
        .collect::<anyhow::Result<Vec<Vectors>>>()?;
    let place = |row: &PhotoRow| Place {
        file: numbers.partition_point(|&number| number < row.place.file) as u32,
        photo: row.place.photo,
    };
    Ok(Collection::new(catalogue.settings().dim, files, rows.iter().map(place).collect())?)
}
