//! Views: parts of photos, and what the teacher sees in each, computed once and kept in a feature store. A view's first
//! box is the part itself, its other boxes are the cells; its first vector is the teacher's of the whole view.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::Ordering;

use sightline_data::store::{FeatureStore, PhotoFeatures, StoreSettings, StoreWriter, VectorMode};
use sightline_data::{BoxXyxy, Split};
use sightline_model::backbone::{GRID, INPUT};
use sightline_model::random;
use sightline_vision::backbone::FeatureMap;
use sightline_vision::{Filter, Photo};

use super::{BackboneData, photos_of};
use crate::settings::BackboneRunSettings;
use crate::view::part_by_chance;
use crate::{Control, Error, Event, Result};

/// Random streams of views; one a photo.
const VIEWS_STREAM: u64 = 1 << 41;
/// A view has at least this share of its photo.
const LEAST_AREA: f32 = 0.15;
/// A view's shape, against its photo's, differs by this factor at most.
const MOST_STRETCH: f32 = 4.0 / 3.0;

/// The name of a photo's view in the store; number 0 is the whole photo.
fn key(photo: &str, view: usize) -> String {
    format!("{photo}#{view}")
}

/// The photo whose view this is.
pub(super) fn photo_of(key: &str) -> &str {
    key.rsplit_once('#').map_or(key, |(photo, _)| photo)
}

/// A view's pixels, `side` by `side` of them.
pub(super) fn pixels(photo: &Photo, part: &BoxXyxy, side: usize) -> Photo {
    photo.crop_and_resize(part, side as u32, side as u32, Filter::Bicubic)
}

/// The parts of a photo that are views: the whole photo, then parts by chance, from the seed and the photo's name.
fn parts(photo: &Photo, path: &str, views: usize, seed: u64) -> Vec<BoxXyxy> {
    let own = xxhash_rust::xxh3::xxh3_64(path.as_bytes());
    let mut rng = random::stream(seed ^ own, VIEWS_STREAM);
    let part = |_| part_by_chance(photo, LEAST_AREA, MOST_STRETCH, &mut rng);
    std::iter::once(photo.whole()).chain((1..views).map(part)).collect()
}

fn store_settings(data: BackboneData<'_>, settings: &BackboneRunSettings) -> StoreSettings {
    let BackboneRunSettings { seed, views, .. } = settings;
    StoreSettings {
        backbone: data.teacher.name().to_owned(),
        backbone_checksum: data.teacher.checksum().to_owned(),
        dim: data.teacher.dim(),
        vectors: VectorMode::Pool,
        regions: "views".to_owned(),
        regions_checksum: format!("{views} views, seed {seed}"),
        max_regions: 1 + GRID * GRID,
        extra: data.teacher.settings().into_iter().collect(),
        sources: BTreeMap::new(),
        parts: Vec::new(),
    }
}

/// The views of all photos: `settings.views` of each photo to train on, one of each photo to validate on. Also the
/// photos that could not be read. No store where a stop was asked for.
pub(super) fn prepare(
    data: BackboneData<'_>,
    settings: &BackboneRunSettings,
    path: &Path,
    control: &mut Control<'_>,
) -> Result<(Option<FeatureStore>, Vec<String>)> {
    let of_split = |split, views| photos_of(data.dataset, split).map(move |photo| (photo, views));
    let photos: Vec<(&str, usize)> = of_split(Split::Train, settings.views).chain(of_split(Split::Val, 1)).collect();
    if path.exists()
        && let Ok(store) = FeatureStore::open(path)
        && store.settings().differences(&store_settings(data, settings)).is_empty()
        && photos.iter().all(|&(photo, views)| (0..views).all(|view| store.position(&key(photo, view)).is_some()))
    {
        return Ok((Some(store), Vec::new()));
    }
    let writer = StoreWriter::create_or_resume(path, &store_settings(data, settings))?;
    let is_done = |&(photo, views): &(&str, usize)| (0..views).all(|view| writer.done().contains(&key(photo, view)));
    let todo: Vec<(&str, usize)> = photos.iter().copied().filter(|photo| !is_done(photo)).collect();
    let mut done = (photos.len() - todo.len()) as u64;
    let mut unread = BTreeSet::new();

    let stop = control.stop;
    let stopped = || stop.load(Ordering::Relaxed);
    let work = |_: usize, &(photo, views): &(&str, usize)| views_of(data, photo, views, settings.seed, &writer);
    super::workers(todo.len())?.each(&todo, stopped, work, |number, made| {
        if let Some(reason) = made? {
            let (photo, _) = todo[number];
            unread.insert(photo.to_owned());
            (control.on_event)(&Event::Unread { photo: photo.to_owned(), reason });
        }
        done += 1;
        (control.on_event)(&Event::Prepared { photos: done, total: photos.len() as u64 });
        Ok::<_, Error>(())
    })?;
    let unread: Vec<String> = unread.into_iter().collect();
    if stopped() {
        return Ok((None, unread));
    }
    let read = photos.iter().filter(|(photo, _)| unread.binary_search_by(|own| own.as_str().cmp(photo)).is_err());
    let order: Vec<String> = read.flat_map(|&(photo, views)| (0..views).map(move |view| key(photo, view))).collect();
    writer.finish(&order)?;
    Ok((Some(FeatureStore::open(path)?), unread))
}

/// Writes the views of one photo that are not there yet; or says why it cannot be read.
fn views_of(
    data: BackboneData<'_>,
    path: &str,
    views: usize,
    seed: u64,
    writer: &StoreWriter,
) -> Result<Option<String>> {
    let photo = match Photo::open(data.dataset.root.join(path)) {
        Ok(photo) => photo,
        Err(reason) => return Ok(Some(reason.to_string())),
    };
    let mut todo = Vec::new();
    for (view, part) in parts(&photo, path, views, seed).into_iter().enumerate() {
        let key = key(path, view);
        if !writer.done().contains(&key) {
            todo.push((key, part));
        }
    }
    let pictures: Vec<Photo> = todo.iter().map(|(_, part)| pixels(&photo, part, INPUT)).collect();
    for ((key, part), map) in todo.into_iter().zip(data.teacher.encode_map(&pictures)?) {
        writer.append(&record(key, &photo, part, &map)?)?;
    }
    Ok(None)
}

fn record(key: String, photo: &Photo, part: BoxXyxy, map: &FeatureMap) -> Result<PhotoFeatures> {
    if (map.grid_h, map.grid_w) != (GRID, GRID) {
        let (rows, columns) = (map.grid_h, map.grid_w);
        return Err(Error::Setting(format!(
            "the teacher sees {rows} by {columns} cells; a teacher with {GRID} by {GRID} is needed (ViT of patch 16 at 224 \
             pixels)"
        )));
    }
    let (width, height) = (part.width() / GRID as f32, part.height() / GRID as f32);
    let cell = |i: usize| {
        let (x, y) = (part.x1 + (i % GRID) as f32 * width, part.y1 + (i / GRID) as f32 * height);
        BoxXyxy { x1: x, y1: y, x2: x + width, y2: y + height }.clip(photo.width, photo.height)
    };
    Ok(PhotoFeatures {
        key,
        width: photo.width,
        height: photo.height,
        boxes: std::iter::once(part).chain((0..GRID * GRID).map(cell)).collect(),
        scores: vec![1.0; 1 + GRID * GRID],
        vectors: [map.global.as_slice(), &map.patches].concat(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_repeat_by_seed_and_name() {
        let photo = Photo::uniform(300, 200, [1, 2, 3]);
        let of = |path, seed| parts(&photo, path, 50, seed);
        assert_eq!(of("a.jpg", 1), of("a.jpg", 1));
        assert_ne!(of("a.jpg", 1), of("a.jpg", 2));
        assert_ne!(of("a.jpg", 1), of("b.jpg", 1));
        assert_eq!(of("a.jpg", 1)[0], photo.whole());
        assert_eq!((photo_of("x#1.jpg#12"), photo_of(&key("x", 0))), ("x#1.jpg", "x"));
    }
}
