//! Photos to a feature store: decode, propose boxes, encode, append; on all cores, resumable, deaf to bad files.
//!
//! Every worker carries a handful of photos through all stages on its own thread. Elementwise stages of the networks and
//! the decoding run on one thread each anyway; so this keeps all cores busy where one large batch on all threads would
//! not.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use sightline_data::{PhotoFeatures, StoreSettings, StoreWriter, VectorMode};
use sightline_model::workers::Workers;

use crate::backbone::{Backbone, Context, region_vectors};
use crate::regions::RegionProposer;
use crate::{Error, Photo, Result};

/// How features are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtractOptions {
    /// Most regions a photo, the whole photo among them; 20 in the paper.
    pub max_regions: usize,
    /// How a box becomes a vector.
    pub mode: VectorMode,
    /// What else stands in a region's vector.
    pub context: Context,
    /// Photos a worker encodes in one pass.
    pub batch: usize,
    /// Workers; 0 takes one for each core.
    pub threads: usize,
}

impl Default for ExtractOptions {
    fn default() -> Self {
        Self { max_regions: 20, mode: VectorMode::Pool, context: Context::None, batch: 4, threads: 0 }
    }
}

impl ExtractOptions {
    /// The settings of the store that this extraction fills: everything that decides its numbers.
    pub fn store_settings(&self, backbone: &dyn Backbone, proposer: &dyn RegionProposer) -> StoreSettings {
        let mut extra: BTreeMap<String, String> = backbone.settings().into_iter().collect();
        extra.insert("context".to_owned(), self.context.name().to_owned());
        StoreSettings {
            backbone: backbone.name().to_owned(),
            backbone_checksum: backbone.checksum().to_owned(),
            dim: self.context.region_dim(backbone.dim()),
            vectors: self.mode,
            regions: proposer.name().to_owned(),
            regions_checksum: proposer.checksum(),
            max_regions: self.max_regions,
            extra,
            sources: BTreeMap::new(),
            parts: Vec::new(),
        }
    }
}

/// Where an extraction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Photos written by this run.
    pub done: usize,
    /// Photos that were in the store already.
    pub skipped: usize,
    /// Photos that could not be read.
    pub failed: usize,
    /// All photos asked for.
    pub total: usize,
}

/// What an extraction did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExtractReport {
    /// Photos written by this run.
    pub done: usize,
    /// Photos that were in the store already.
    pub skipped: usize,
    /// Keys of the photos that could not be read, and why, in the order they were asked for.
    pub failed: Vec<(String, String)>,
    /// Whether the run stopped early because it was told to; the journal holds what was done.
    pub cancelled: bool,
    /// Wall time.
    pub seconds: f64,
    /// Time in each stage, summed over the workers.
    pub stages: Stages,
}

/// Seconds in each stage, summed over the workers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stages {
    /// Reading and decoding files.
    pub decode: f64,
    /// Proposing boxes.
    pub regions: f64,
    /// Encoding photos and boxes.
    pub vectors: f64,
}

/// What became of one photo of a worker's batch.
type Outcome = Result<(usize, PhotoFeatures), (usize, String)>;

/// Fills `writer` with the features of `photos`, `(key, path)` each; the keys must differ.
///
/// Photos already in the store are skipped, photos that cannot be read are listed in the report. `progress` is called
/// on this thread after every batch. When `cancelled` becomes true, what is under way is finished and written, and the
/// report says so; the caller decides whether to call [`StoreWriter::finish`]. A photo's features depend on nothing
/// but the photo and the settings, so the finished store is the same whatever the threads, batches and interruptions.
///
/// Fails where the backbone or the disk fails, or the settings of `writer` are not [`ExtractOptions::store_settings`].
pub fn extract(
    photos: &[(String, PathBuf)],
    backbone: &dyn Backbone,
    proposer: &dyn RegionProposer,
    options: &ExtractOptions,
    writer: &StoreWriter,
    progress: &dyn Fn(Progress),
    cancelled: &AtomicBool,
) -> Result<ExtractReport> {
    if options.max_regions == 0 {
        return Err(Error::setting("max_regions = 0, but the whole photo is a region; give 1 or more"));
    }
    let differences = writer.settings().differences(&options.store_settings(backbone, proposer));
    if !differences.is_empty() {
        return Err(Error::setting(format!("the store has other settings: {}", differences.join(", "))));
    }
    let start = Instant::now();
    let todo: Vec<usize> = (0..photos.len()).filter(|&i| !writer.done().contains(&photos[i].0)).collect();
    let batches: Vec<&[usize]> = todo.chunks(options.batch.max(1)).collect();
    let workers = Workers::new(options.threads, batches.len())
        .map_err(|e| Error::setting(format!("cannot start the workers: {e}")))?;
    let mut report = ExtractReport { skipped: photos.len() - todo.len(), ..ExtractReport::default() };
    let mut failed: Vec<(usize, String)> = Vec::new();
    let stopped = || cancelled.load(Ordering::Relaxed);
    let work = |_: usize, batch: &&[usize]| features_of(batch, photos, backbone, proposer, options);
    workers.each(&batches, stopped, work, |_, result| -> Result<()> {
        let (outcomes, stages): (Vec<Outcome>, Stages) = result?;
        report.stages.decode += stages.decode;
        report.stages.regions += stages.regions;
        report.stages.vectors += stages.vectors;
        for outcome in outcomes {
            match outcome {
                Ok((photo_idx, features)) => match writer.append(&features) {
                    Ok(()) => report.done += 1,
                    // One photo's numbers make no sense; the others may.
                    Err(error @ sightline_data::Error::Format { .. }) => failed.push((photo_idx, error.to_string())),
                    Err(error) => return Err(error.into()),
                },
                Err(failure) => failed.push(failure),
            }
        }
        progress(Progress { done: report.done, skipped: report.skipped, failed: failed.len(), total: photos.len() });
        Ok(())
    })?;

    failed.sort_unstable_by_key(|(photo_idx, _)| *photo_idx);
    report.cancelled = report.done + failed.len() < todo.len();
    report.failed = failed.into_iter().map(|(photo_idx, reason)| (photos[photo_idx].0.clone(), reason)).collect();
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// All stages for one batch.
fn features_of(
    batch: &[usize],
    photos: &[(String, PathBuf)],
    backbone: &dyn Backbone,
    proposer: &dyn RegionProposer,
    options: &ExtractOptions,
) -> Result<(Vec<Outcome>, Stages)> {
    let mut stages = Stages::default();
    let mut outcomes = Vec::with_capacity(batch.len());
    let mut decoded: Vec<Photo> = Vec::with_capacity(batch.len());
    let mut found: Vec<(usize, PhotoFeatures)> = Vec::with_capacity(batch.len());
    for &photo_idx in batch {
        let (key, path) = &photos[photo_idx];
        let start = Instant::now();
        let photo = match Photo::open(path) {
            Ok(photo) => photo,
            Err(reason) => {
                outcomes.push(Err((photo_idx, reason.to_string())));
                continue;
            }
        };
        stages.decode += start.elapsed().as_secs_f64();
        let start = Instant::now();
        let proposals = proposer.propose(key, &photo, options.max_regions - 1);
        stages.regions += start.elapsed().as_secs_f64();
        let proposals = match proposals {
            Ok(proposals) => proposals,
            Err(reason) => {
                outcomes.push(Err((photo_idx, reason.to_string())));
                continue;
            }
        };
        assert!(proposals.len() < options.max_regions, "{} proposals of {}", proposals.len(), options.max_regions - 1);
        let features = PhotoFeatures {
            key: key.clone(),
            width: photo.width,
            height: photo.height,
            boxes: std::iter::once(photo.whole()).chain(proposals.iter().map(|p| p.region)).collect(),
            scores: std::iter::once(1.0).chain(proposals.iter().map(|p| p.score)).collect(),
            vectors: Vec::new(),
        };
        found.push((photo_idx, features));
        decoded.push(photo);
    }
    let start = Instant::now();
    let boxes: Vec<_> = found.iter().map(|(_, features)| features.boxes.clone()).collect();
    let vectors = region_vectors(backbone, &decoded, &boxes, options.mode, options.context)?;
    stages.vectors += start.elapsed().as_secs_f64();
    let whole = |((photo_idx, features), vectors)| Ok((photo_idx, PhotoFeatures { vectors, ..features }));
    outcomes.extend(found.into_iter().zip(vectors).map(whole));
    Ok((outcomes, stages))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::Path;

    use sightline_data::{BoxXyxy, FeatureStore};

    use super::*;
    use crate::backbone::FeatureMap;
    use crate::regions::Proposal;

    /// The photo at 2 × 2 pixels.
    struct Quarters;

    impl Backbone for Quarters {
        fn name(&self) -> &str {
            "quarters"
        }

        fn checksum(&self) -> &str {
            ""
        }

        fn dim(&self) -> usize {
            3
        }

        fn settings(&self) -> Vec<(String, String)> {
            vec![("side".to_owned(), "2".to_owned())]
        }

        fn encode_map(&self, photos: &[Photo]) -> Result<Vec<FeatureMap>> {
            let encode = |photo: &Photo| {
                let small = photo.resize(2, 2, crate::Filter::Bilinear);
                let patches: Vec<f32> = small.pixels.iter().map(|&level| f32::from(level)).collect();
                FeatureMap { grid_h: 2, grid_w: 2, dim: 3, global: patches[3..6].to_vec(), patches }
            };
            Ok(photos.iter().map(encode).collect())
        }
    }

    /// Boxes whose number and place depend on the photo's size.
    struct Stripes;

    impl RegionProposer for Stripes {
        fn name(&self) -> &'static str {
            "stripes"
        }

        fn checksum(&self) -> String {
            String::new()
        }

        fn propose(&self, _key: &str, photo: &Photo, max: usize) -> Result<Vec<Proposal>> {
            let n = max.min(photo.width as usize % 5);
            let stripe = |i: usize| BoxXyxy { x1: 0.0, y1: i as f32, x2: photo.width as f32, y2: i as f32 + 2.0 };
            Ok((0..n).map(|i| Proposal { region: stripe(i), score: 1.0 / (i + 2) as f32 }).collect())
        }
    }

    const OPTIONS: ExtractOptions =
        ExtractOptions { max_regions: 4, mode: VectorMode::Pool, context: Context::Class, batch: 3, threads: 2 };

    /// Forty photos of different sizes, of which the seventh is missing, the ninth empty and the eleventh text.
    fn photos(folder: &Path) -> Vec<(String, PathBuf)> {
        (0..40)
            .map(|i| {
                let key = format!("photo{i:02}.png");
                let path = folder.join(&key);
                let (width, height) = (7 + i, 12 + i * 7 % 11);
                let pixels = (0..3 * width * height).map(|p| (p * (i + 3) % 251) as u8).collect();
                match i {
                    7 => {}
                    9 => std::fs::write(&path, b"").unwrap(),
                    11 => std::fs::write(&path, b"a story about a photo").unwrap(),
                    _ => std::fs::write(&path, Photo::from_rgb(width, height, pixels).encode_png().unwrap()).unwrap(),
                }
                (key, path)
            })
            .collect()
    }

    fn writer(path: &Path, options: &ExtractOptions) -> StoreWriter {
        StoreWriter::create_or_resume(path, &options.store_settings(&Quarters, &Stripes)).unwrap()
    }

    fn run(
        photos: &[(String, PathBuf)],
        options: &ExtractOptions,
        writer: &StoreWriter,
        stop_after: usize,
    ) -> ExtractReport {
        let cancelled = AtomicBool::new(false);
        let last = Cell::new(None);
        let progress = |p: Progress| {
            assert_eq!(p.total, photos.len());
            last.set(Some(p));
            if p.done >= stop_after {
                cancelled.store(true, Ordering::Relaxed);
            }
        };
        let report = extract(photos, &Quarters, &Stripes, options, writer, &progress, &cancelled).unwrap();
        if let Some(p) = last.get() {
            assert_eq!((p.done, p.skipped, p.failed), (report.done, report.skipped, report.failed.len()));
        }
        report
    }

    #[test]
    fn the_store_is_the_same_whatever_the_threads_batches_and_interruptions() {
        let folder = tempfile::tempdir().unwrap();
        let photos = photos(folder.path());
        let order: Vec<String> = photos.iter().map(|(key, _)| key.clone()).collect();
        let store = |name: &str| folder.path().join(name);

        let path = store("one");
        let options = ExtractOptions { batch: 1, threads: 1, ..OPTIONS };
        let plain = writer(&path, &options);
        let report = run(&photos, &options, &plain, usize::MAX);
        assert_eq!((report.done, report.skipped, report.cancelled), (37, 0, false));
        let failed: Vec<&str> = report.failed.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(failed, ["photo07.png", "photo09.png", "photo11.png"]);
        assert!(report.failed.iter().all(|(key, reason)| reason.contains(key)), "{:?}", report.failed);
        assert_eq!(plain.finish(&order).unwrap(), 37);
        let expected = std::fs::read(&path).unwrap();

        for (threads, batch) in [(0, 4), (3, 7), (5, 1), (2, 100)] {
            let path = store("many");
            let options = ExtractOptions { threads, batch, ..OPTIONS };
            let many = writer(&path, &options);
            assert_eq!(run(&photos, &options, &many, usize::MAX).done, 37);
            many.finish(&order).unwrap();
            assert!(std::fs::read(&path).unwrap() == expected, "{threads} threads, batches of {batch}");
            std::fs::remove_file(path).unwrap();
        }

        let path = store("interrupted");
        let first = writer(&path, &OPTIONS);
        let report = run(&photos, &OPTIONS, &first, 5);
        assert!(report.cancelled && report.done >= 5 && report.done < 37, "{report:?}");
        drop(first);
        let second = writer(&path, &OPTIONS);
        assert_eq!(second.done().len(), report.done);
        let rest = run(&photos, &OPTIONS, &second, usize::MAX);
        assert_eq!((rest.skipped, rest.done, rest.cancelled), (report.done, 37 - report.done, false));
        second.finish(&order).unwrap();
        assert!(std::fs::read(&path).unwrap() == expected, "after an interruption");
    }

    #[test]
    fn what_lies_in_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let photos = photos(folder.path());
        let path = folder.path().join("store");
        let filled = writer(&path, &OPTIONS);
        run(&photos, &OPTIONS, &filled, usize::MAX);
        filled.finish(&[]).unwrap();
        let store = FeatureStore::open(&path).unwrap();
        assert_eq!(store.dim(), 6);
        assert_eq!(store.settings().extra["context"], "class");
        let found = store.find("photo02.png").unwrap();
        // 9 pixels wide: four stripes, of which three fit beside the whole photo.
        assert_eq!((found.width, found.height, found.n_regions()), (9, 12 + 14 % 11, 4));
        assert_eq!(found.boxes().next().unwrap(), BoxXyxy::whole(found.width, found.height));
        assert_eq!(found.scores, [1.0, 0.5, 1.0 / 3.0, 0.25]);
        let photo = Photo::open(folder.path().join("photo02.png")).unwrap();
        let map = Quarters.encode_map(std::slice::from_ref(&photo)).unwrap().remove(0);
        let vectors = found.vectors();
        assert_eq!(vectors[3..6], map.global);
        assert_eq!(vectors[9..12], map.global);
    }

    #[test]
    fn other_settings_and_no_regions_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let filled = writer(&path, &OPTIONS);
        let never = AtomicBool::new(false);
        let other = ExtractOptions { context: Context::None, ..OPTIONS };
        let error = extract(&[], &Quarters, &Stripes, &other, &filled, &|_| {}, &never).unwrap_err().to_string();
        assert!(error.contains("context") && error.contains("dim"), "{error}");
        let none = ExtractOptions { max_regions: 0, ..OPTIONS };
        let error = extract(&[], &Quarters, &Stripes, &none, &filled, &|_| {}, &never).unwrap_err().to_string();
        assert!(error.contains("max_regions = 0"), "{error}");
    }
}
