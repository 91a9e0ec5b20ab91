//! Several stores of the same regions as one, their vectors side by side: what one backbone sees beside what another does.

use std::path::Path;

use super::{COPIED, FeatureStore, StoreSettings, StoreWriter, VectorMode};
use crate::{Error, Result};

/// Writes a store at `output` in which a region's vector is the vectors of all `stores` one after the other, `[dim]` the sum
/// of theirs. Returns the number of photos. `on_photo` hears how many are done.
///
/// # Errors
/// The stores differ in their photos, or in the boxes of one; less than two are given; or the disk refused.
pub fn join(stores: &[FeatureStore], output: &Path, mut on_photo: impl FnMut(usize)) -> Result<usize> {
    let [first, others @ ..] = stores else {
        return Err(Error::format(output, "nothing to join: name two stores or more"));
    };
    if others.is_empty() {
        return Err(Error::format(first.path(), "one store alone has nothing to be joined with: name two or more"));
    }
    for other in others {
        same_photos(first, other)?;
    }
    let mut settings = joined_settings(stores);
    let copied: Vec<String> = stores.iter().map(FeatureStore::checksum).collect();
    settings.sources.insert(COPIED.to_owned(), copied.join(" "));
    let writer = StoreWriter::create_or_resume(output, &settings)?;
    for (i, photo) in first.iter().enumerate() {
        if !writer.done().contains(photo.key) {
            let own: Vec<_> = stores.iter().filter_map(|store| store.find(photo.key)).collect();
            let mut features = photo.to_features();
            features.vectors = Vec::with_capacity(photo.n_regions() * settings.dim);
            for region_idx in 0..photo.n_regions() {
                let parts = own.iter().flat_map(|photo| photo.vector_f16(region_idx));
                features.vectors.extend(parts.map(|value| value.to_f32()));
            }
            writer.append(&features)?;
        }
        on_photo(i + 1);
    }
    let order: Vec<String> = first.keys().map(str::to_owned).collect();
    writer.finish(&order)
}

/// What the joined numbers mean: the settings of all stores, of which boxes and their number are those of the first.
fn joined_settings(stores: &[FeatureStore]) -> StoreSettings {
    // A joined store that is joined again brings its parts.
    let parts: Vec<StoreSettings> = stores
        .iter()
        .flat_map(|store| match &store.settings().parts[..] {
            [] => vec![store.settings().clone()],
            parts => parts.to_vec(),
        })
        .collect();
    let first = stores[0].settings();
    StoreSettings {
        backbone: parts.iter().map(|part| part.backbone.as_str()).collect::<Vec<_>>().join(" + "),
        backbone_checksum: String::new(),
        dim: stores.iter().map(FeatureStore::dim).sum(),
        vectors: VectorMode::Joined,
        regions: first.regions.clone(),
        regions_checksum: first.regions_checksum.clone(),
        max_regions: first.max_regions,
        extra: Default::default(),
        sources: Default::default(),
        parts,
    }
}

/// An error that names the first photo that is not the same in both stores.
fn same_photos(first: &FeatureStore, other: &FeatureStore) -> Result<()> {
    let (a, b) = (first.path().display(), other.path().display());
    for (here, there) in [(first, other), (other, first)] {
        let mut missing = here.keys().filter(|key| there.position(key).is_none());
        if let Some(key) = missing.next() {
            let n = missing.count() + 1;
            return Err(Error::format(
                there.path(),
                format!(
                    "lacks {n} of the photos of {}, `{key}` for one: make both of the same photos",
                    here.path().display()
                ),
            ));
        }
    }
    for (photo, twin) in first.iter().filter_map(|photo| Some((photo, other.find(photo.key)?))) {
        let what = if (photo.width, photo.height) != (twin.width, twin.height) {
            "another size"
        } else if photo.n_regions() != twin.n_regions() {
            "another number of regions"
        } else if !photo.boxes().eq(twin.boxes()) {
            "other boxes"
        } else {
            continue;
        };
        return Err(Error::format(
            other.path(),
            format!("the photo `{}` has {what} than in {a}: extract {b} with the same regions and settings", photo.key),
        ));
    }
    Ok(())
}
