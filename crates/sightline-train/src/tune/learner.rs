//! Backbone and alignment model as they learn together.

use std::path::PathBuf;
use std::sync::{OnceLock, mpsc};

use burn::tensor::{Device, Tensor};
use rand::RngExt;
use sightline_data::BoxXyxy;
use sightline_data::store::{FeatureStore, PhotoFeatures, StoreSettings, StoreWriter};
use sightline_model::alignment::{
    AlignmentModel, AlignmentSettings, GEOMETRY, RegionBatch, RegionCounts, features_tensor,
};
use sightline_model::random::{self, Dropout};
use sightline_model::tape::{Tape, Var};
use sightline_model::vit::Depths;
use sightline_model::weights::{Weight, Weights};
use sightline_model::workers::Workers;
use sightline_vision::Photo;
use sightline_vision::backbone::{Backbone, Compact, Context, region_vectors};

use super::example::{Example, says_a_side};
use super::{BACKBONE_FILE, Start, context};
use crate::align::{Shown, loss_of, validation_of};
use crate::backbone::{Global, Named, assemble, workers};
use crate::checkpoint::{Checkpoint, Header, Kind};
use crate::corpus::{Corpus, CorpusPhoto, Hand, places};
use crate::optimizer::{Learnt, LearntModule, accumulate};
use crate::run::RunFolder;
use crate::settings::TuneRunSettings;
use crate::teachers::Teachers;
use crate::trainer::{Learner, Validation};
use crate::unread::{Missing, Unread};
use crate::{Error, Result};

/// Random streams of what is done to a photo; one a photo and step.
const CHANGES_STREAM: u64 = 1 << 43;
/// More photos than a batch ever has.
const MOST_PHOTOS: u64 = 1 << 20;
/// Photos on one tape.
const SHARD: usize = 4;
/// Before the names of the two models' weights in the checkpoint to resume from.
const BACKBONE: &str = "backbone.";
const ALIGNMENT: &str = "alignment.";

pub(super) struct TuneLearner<'a> {
    backbone: Learnt,
    alignment: LearntModule<AlignmentModel>,
    eyes: Eyes<'a>,
    validation: Corpus<'a>,
    /// The checksum that the store to start from knows the backbone by.
    checksum: String,
    run: PathBuf,
    /// Validation photos that could be read after the first pass.
    validated: OnceLock<usize>,
}

/// Everything but the weights that a photo's way to its vectors needs.
struct Eyes<'a> {
    named: Named,
    /// The backbone's weights before, where it is asked to go on saying what they say about objects.
    before: Option<Weights>,
    settings: &'a TuneRunSettings,
    align_settings: AlignmentSettings,
    corpus: Corpus<'a>,
    teachers: Option<Teachers<'a>>,
    /// What else stands in a region's vector.
    context: Context,
    workers: Workers,
    unread: Unread,
}

/// What a shard says of its photos, and what must be known to go back.
struct Shard {
    /// Which photos of the batch.
    photos: Vec<usize>,
    /// Rows `[regions, dim]` of each, as the alignment model reads them.
    vectors: Vec<Vec<f32>>,
    boxes: Vec<Vec<BoxXyxy>>,
    sizes: Vec<[u32; 2]>,
}

/// Where on its tape a shard's vectors stand.
struct Place {
    pooled: Var,
    global: Var,
    /// What is said about objects, and the derivative of its part of the loss.
    objects: Option<(Var, Vec<f32>)>,
}

impl<'a> TuneLearner<'a> {
    pub(super) fn new(
        (model, align_settings): (AlignmentModel, AlignmentSettings),
        start: Start,
        teachers: Option<Teachers<'a>>,
        settings: &'a TuneRunSettings,
        [corpus, validation]: [Corpus<'a>; 2],
        run: &RunFolder,
    ) -> Result<Self> {
        let Start { named, weights, checksum } = start;
        let says_objects = named.network.depth() == 0 && settings.objects_weight > 0.0;
        let eyes = Eyes {
            before: says_objects.then(|| weights.clone()),
            named,
            settings,
            align_settings,
            context: context(corpus.store.settings()),
            corpus,
            teachers,
            workers: workers(usize::MAX)?,
            unread: Unread::default(),
        };
        Ok(Self {
            backbone: Learnt::new(weights, settings.average),
            alignment: LearntModule::new(model, settings.average),
            eyes,
            validation,
            checksum,
            run: run.path().to_owned(),
            validated: OnceLock::new(),
        })
    }

    /// Of the alignment model.
    pub(super) fn dropout(&self) -> f32 {
        self.eyes.align_settings.dropout
    }

    /// Photos that could not be read, by name.
    pub(super) fn into_unread(self) -> Vec<String> {
        self.eyes.unread.into_all().into_iter().collect()
    }

    /// The loss of the batch, one step of the alignment model, and what it wants of each photo's vectors.
    fn align(
        eyes: &Eyes<'_>,
        alignment: &mut LearntModule<AlignmentModel>,
        shards: &[Shard],
        hands: &[Hand],
        dropout: &mut Dropout,
        (rate, step): (f64, u64),
    ) -> (f64, f64, Vec<Vec<Vec<f32>>>) {
        let device = Device::flex().autodiff();
        let plain = device.clone().without_autodiff();
        let width = eyes.corpus.store.dim();
        let read: Vec<Hand> = shards.iter().flat_map(|shard| &shard.photos).map(|&i| hands[i].clone()).collect();
        let values: Vec<f32> = shards.iter().flat_map(|shard| &shard.vectors).flatten().copied().collect();
        let counts: Vec<usize> = shards.iter().flat_map(|shard| &shard.boxes).map(Vec::len).collect();
        let of_boxes = || {
            let all = shards.iter().flat_map(|shard| shard.boxes.iter().zip(&shard.sizes));
            all.flat_map(|(boxes, &size)| places(boxes.iter().copied(), size)).collect()
        };
        let features = features_tensor(values, width, &device).require_grad();
        let regions = RegionBatch {
            features: features.clone(),
            geometry: eyes.align_settings.geometry.then(|| features_tensor(of_boxes(), GEOMETRY, &plain)),
            counts: RegionCounts::new(counts.clone()),
        };
        let settings = &eyes.align_settings;
        let teaching = eyes.teachers.as_ref().map(|teachers| teachers.teach(&read));
        let shown = Shown { corpus: &eyes.corpus, hands: &read, regions, teaching };
        let (loss, divisor) = loss_of(alignment.module(), settings, settings.objective, shown, dropout);
        let gradients = loss.backward();
        let wanted: Tensor<2> = features.grad(&gradients).expect("the loss depends on the regions");
        let wanted = wanted.into_data().try_into_vec::<f32>().expect("gradients are f32");
        let loss = f64::from(loss.into_scalar::<f32>());
        if loss.is_finite() {
            alignment.step(gradients, &eyes.settings.optimizer, rate, step);
        }
        let mut rest = wanted.as_slice();
        let mut counts = counts.into_iter();
        let of_shard = |shard: &Shard| {
            let of_photo = |_| {
                let (own, others) = rest.split_at(counts.next().expect("a count a photo") * width);
                rest = others;
                own.to_vec()
            };
            shard.photos.iter().map(of_photo).collect()
        };
        (loss, divisor, shards.iter().map(of_shard).collect())
    }

    /// The store's settings with this backbone in place of the one before, whose file lies in the run's folder.
    fn features(&self, base: &StoreSettings, backbone: &dyn Backbone) -> StoreSettings {
        let mut settings = base.clone();
        let place = self.run.join(BACKBONE_FILE);
        let place = std::path::absolute(&place).unwrap_or(place).display().to_string();
        if base.regions == Compact::REGIONS && base.regions_checksum == self.checksum {
            settings.regions_checksum = backbone.checksum().to_owned();
            settings.sources.insert("regions".to_owned(), format!("{}={place}", Compact::REGIONS));
        }
        settings.sources.insert("backbone".to_owned(), place);
        settings.backbone = backbone.name().to_owned();
        settings.backbone_checksum = backbone.checksum().to_owned();
        settings.extra.extend(backbone.settings());
        settings
    }

    /// An error where no training photo could be read, or fewer validation photos than after the pass before: fewer are
    /// easier, and passes would not compare. Disks go away.
    fn check_read(&self, validated: usize) -> Result<()> {
        let gone = |what: String| {
            let root = self.validation.dataset.root.display();
            Err(Error::Mismatch(format!("{what} below {root} can be read; bring the photos back, then --resume")))
        };
        let before = *self.validated.get_or_init(|| validated);
        if validated == 0 || validated < before {
            return gone(format!(
                "{validated} of {} photos of the validation split",
                before.max(self.validation.photos.len())
            ));
        }
        let Eyes { corpus, unread, .. } = &self.eyes;
        if corpus.photos.iter().all(|photo| unread.contains(corpus.key(photo))) {
            return gone("no photo of the training split".into());
        }
        Ok(())
    }

    /// The validation photos' vectors by a backbone, in a store of their own.
    fn validation_store(&self, backbone: &dyn Backbone) -> Result<FeatureStore> {
        let path = self.run.join("validation.features");
        // That of the pass before, finished or not.
        for old in [path.clone(), path.with_added_extension("partial")] {
            match std::fs::remove_file(&old) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", &old)(e)),
                _ => {}
            }
        }
        let writer = StoreWriter::create_or_resume(&path, &self.features(self.eyes.corpus.store.settings(), backbone))?;
        let photos = &self.validation.photos;
        let work = |_: usize, photo: &CorpusPhoto| -> Result<()> {
            let Some(picture) = self.eyes.photo(&self.validation, photo) else { return Ok(()) };
            let record = self.validation.store.get(photo.position);
            let (boxes, mode) = (vec![record.boxes().collect()], self.eyes.corpus.store.settings().vectors);
            let vectors = region_vectors(backbone, &[picture], &boxes, mode, self.eyes.context)?;
            let vectors = vectors.into_iter().next().expect("one photo");
            Ok(writer.append(&PhotoFeatures { vectors, ..record.to_features() })?)
        };
        self.eyes.workers.each(photos, || false, work, |_, written| written)?;
        let order: Vec<String> = photos.iter().map(|photo| self.validation.key(photo).to_owned()).collect();
        writer.finish(&order)?;
        Ok(FeatureStore::open(&path)?)
    }
}

impl Eyes<'_> {
    /// The photo of a corpus; none where it cannot be read.
    fn photo(&self, corpus: &Corpus<'_>, photo: &CorpusPhoto) -> Option<Photo> {
        let key = corpus.key(photo);
        Photo::open(corpus.dataset.root.join(key)).map_err(|reason| self.unread.add(key, &reason)).ok()
    }

    /// A photo of the batch as this step shows it.
    fn example(&self, hand: &Hand, stream: u64) -> Option<Example> {
        let photo = &self.corpus.photos[hand.photo];
        let sentences = &self.corpus.dataset.images[photo.image].sentences;
        let may_flip = !hand.sentences.iter().any(|&s| says_a_side(&sentences[s].tokens));
        let record = self.corpus.store.get(photo.position);
        let mut rng = random::stream(self.settings.seed, stream);
        let picture = self.photo(&self.corpus, photo)?;
        Some(Example::changed(&self.named.network, &picture, &record, self.settings, may_flip, &mut rng))
    }

    /// Which parts of which blocks this shard's photos leave out.
    fn depths(&self, photos: usize, rng: &mut impl RngExt) -> Option<Depths> {
        let (depth, last) = (self.named.network.depth(), self.settings.drop_path);
        (depth > 0 && last > 0.0).then(|| {
            let of_block = |block: usize| {
                let dropped = last * (block + 1) as f32 / depth as f32;
                let mut part = || -> Vec<f32> {
                    (0..photos)
                        .map(|_| if rng.random::<f32>() < dropped { 0.0 } else { 1.0 / (1.0 - dropped) })
                        .collect()
                };
                [part(), part()]
            };
            Depths { factors: (0..depth).map(of_block).collect() }
        })
    }

    /// Runs the backbone over some photos of the batch, and says where on the tape their vectors are. `factor` is the
    /// weight of a photo in what is asked about objects.
    fn see(&self, tape: &mut Tape<'_>, shard: usize, hands: &[Hand], step: u64, factor: f32) -> Option<(Shard, Place)> {
        let first = shard * SHARD;
        let stream = |photo: usize| CHANGES_STREAM + step * MOST_PHOTOS + photo as u64;
        let of_shard =
            (first..hands.len().min(first + SHARD)).filter_map(|i| Some((i, self.example(&hands[i], stream(i))?)));
        let (photos, examples): (Vec<usize>, Vec<Example>) = of_shard.unzip();
        if photos.is_empty() {
            return None;
        }
        let mut rng = random::stream(self.settings.seed, stream(MOST_PHOTOS as usize / 2 + shard));
        let depths = self.depths(photos.len(), &mut rng);
        let network = &self.named.network;
        let (mut pixels, mut boxes, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
        for example in examples {
            pixels.push(example.pixels);
            boxes.push(example.boxes);
            sizes.push(example.size);
        }
        let seen = network.forward(tape, &pixels, depths.as_ref());
        let tokens = tape.value(seen.tokens).rows / photos.len();
        let whole_is_pooled = self.context == Context::Class;
        let mut lists = Vec::new();
        for (picture, (boxes, &size)) in boxes.iter().zip(&sizes).enumerate() {
            let pooled = if whole_is_pooled { &boxes[..] } else { &boxes[1..] };
            lists.extend(pooled.iter().map(|region| network.shares(&seen, tokens, picture, size, region)));
        }
        let pooled = tape.combine(seen.tokens, lists);
        let global = match seen.global {
            Global::Var(global) => global,
            Global::FirstToken => {
                let rows: Vec<usize> = (0..photos.len()).map(|picture| picture * tokens).collect();
                tape.rows(seen.tokens, &rows)
            }
        };
        let objects = self.before.as_ref().zip(seen.objects).map(|(before, objects)| {
            let mut forward = Tape::forward_only(before);
            let said = network.forward(&mut forward, &pixels, None).objects.expect("the same network");
            let (now, before) = (&tape.value(objects).values, &forward.value(said).values);
            let scale = 2.0 * self.settings.objects_weight * factor * photos.len() as f32 / now.len() as f32;
            (objects, now.iter().zip(before).map(|(now, before)| scale * (now - before)).collect())
        });
        let (of_regions, of_photos) = (tape.value(pooled), tape.value(global));
        let mut next = 0;
        let vectors = boxes.iter().enumerate().map(|(picture, boxes)| {
            let mut values = Vec::new();
            for region in 0..boxes.len() {
                if region == 0 && !whole_is_pooled {
                    values.extend_from_slice(of_photos.row(picture));
                } else {
                    values.extend_from_slice(of_regions.row(next));
                    next += 1;
                }
                if whole_is_pooled {
                    values.extend_from_slice(of_photos.row(picture));
                }
            }
            values
        });
        let shard = Shard { photos, vectors: vectors.collect(), boxes, sizes };
        Some((shard, Place { pooled, global, objects }))
    }

    /// Hands what the alignment model wants of a shard's vectors back to the tape, and goes back: the reverse of what
    /// [`Eyes::see`] did to make them. `wanted` holds a photo's `[regions, dim]` after the other's.
    fn go_back(&self, mut tape: Tape<'_>, place: Place, wanted: &[Vec<f32>]) -> Weights {
        let dim = tape.value(place.global).columns;
        let width = self.context.region_dim(dim);
        let (mut of_regions, mut of_photos) = (Vec::new(), vec![0.0; wanted.len() * dim]);
        for (wanted, of_photo) in wanted.iter().zip(of_photos.chunks_exact_mut(dim)) {
            for (region, row) in wanted.chunks_exact(width).enumerate() {
                let of_global = match (self.context, region) {
                    (Context::Class, _) => {
                        of_regions.extend_from_slice(&row[..dim]);
                        Some(&row[dim..])
                    }
                    (Context::None, 0) => Some(row),
                    (Context::None, _) => {
                        of_regions.extend_from_slice(row);
                        None
                    }
                };
                of_photo.iter_mut().zip(of_global.into_iter().flatten()).for_each(|(sum, g)| *sum += g);
            }
        }
        tape.seed(place.pooled, of_regions);
        tape.seed(place.global, of_photos);
        if let Some((objects, gradient)) = place.objects {
            tape.seed(objects, gradient);
        }
        tape.backward()
    }
}

impl Learner for TuneLearner<'_> {
    type Batch = Vec<Hand>;

    fn batches(&self, epoch: u64) -> Vec<Vec<Hand>> {
        let TuneRunSettings { batch, captions_per_photo, seed, .. } = *self.eyes.settings;
        self.eyes.corpus.pair_batches(batch, captions_per_photo, seed, epoch)
    }

    fn step(&mut self, hands: &Vec<Hand>, dropout: &mut Dropout, rate: f64, step: u64) -> (f64, f64) {
        let Self { backbone, alignment, eyes, .. } = self;
        let (weights, eyes) = (&backbone.weights, &*eyes);
        let (n_shards, n_threads) = (hands.len().div_ceil(SHARD), eyes.workers.number());
        let factor = 1.0 / hands.len() as f32;
        let (to_align, seen) = mpsc::channel::<(usize, Shard)>();
        let (loss, divisor, gradients) = std::thread::scope(|scope| {
            // Each thread keeps its tapes while the alignment model, which needs the vectors of all, makes up its mind.
            let mut threads = Vec::with_capacity(n_threads);
            for (thread, pool) in eyes.workers.pools().iter().enumerate() {
                let (answer, wanted) = mpsc::channel::<Vec<Vec<Vec<f32>>>>();
                let to_align = to_align.clone();
                let see_and_go_back = move || {
                    let own: Vec<usize> = (thread..n_shards).step_by(n_threads).collect();
                    let mut dropouts: Vec<Dropout> =
                        own.iter().map(|_| Dropout::new(random::stream(0, 0), 0.0)).collect();
                    let mut held = Vec::with_capacity(own.len());
                    for (&shard, dropout) in own.iter().zip(&mut dropouts) {
                        let mut tape = Tape::training(weights, dropout, eyes.settings.precision);
                        if let Some((vectors, place)) = eyes.see(&mut tape, shard, hands, step, factor) {
                            held.push((tape, place));
                            to_align.send((shard, vectors)).expect("the step waits for it");
                        }
                    }
                    drop(to_align);
                    let wanted = wanted.recv().unwrap_or_default();
                    let mut sum = Weights::new();
                    for ((tape, place), wanted) in held.into_iter().zip(&wanted) {
                        accumulate(&mut sum, eyes.go_back(tape, place, wanted));
                    }
                    sum
                };
                threads.push((answer, scope.spawn(move || pool.install(see_and_go_back))));
            }
            drop(to_align);
            let mut shards: Vec<(usize, Shard)> = seen.iter().collect();
            shards.sort_unstable_by_key(|(shard, _)| *shard);
            let (numbers, shards): (Vec<usize>, Vec<Shard>) = shards.into_iter().unzip();
            if shards.is_empty() {
                return (0.0, 1.0, Weights::new()); // no photo of the batch could be read
            }
            let (loss, divisor, wanted) = Self::align(eyes, alignment, &shards, hands, dropout, (rate, step));
            let mut wanted: Vec<Option<Vec<Vec<f32>>>> = wanted.into_iter().map(Some).collect();
            let mut gradients = Weights::new();
            for (thread, (answer, _)) in threads.iter().enumerate() {
                let own = numbers.iter().zip(&mut wanted).filter(|(shard, _)| *shard % n_threads == thread);
                let own = own.filter_map(|(_, wanted)| wanted.take()).collect();
                answer.send(own).expect("the thread waits for it");
            }
            for (_, thread) in threads {
                accumulate(&mut gradients, thread.join().expect("a shard does not panic"));
            }
            (loss, divisor, gradients)
        });
        if loss.is_finite() && !gradients.is_empty() {
            let rate = rate * self.eyes.settings.backbone_rate;
            self.backbone.step(&gradients, &self.eyes.settings.optimizer, rate, step);
        }
        (loss, divisor)
    }

    fn unread(&self) -> Vec<Missing> {
        self.eyes.unread.news()
    }

    fn validate(&self) -> Result<Validation> {
        let Named { name, network } = self.eyes.named.clone();
        let plain = Device::flex();
        let backbone = assemble(&name, network, self.backbone.in_use().clone(), &plain)?;
        let store = self.validation_store(backbone.backbone())?;
        self.check_read(store.len())?;
        let corpus = self.validation.in_store(&store);
        Ok(validation_of(&self.alignment.in_use(), &self.eyes.align_settings, &corpus))
    }

    fn export(&self) -> (Weights, Weights) {
        let mut both = (Weights::new(), Weights::new());
        for (part, (model, optimizer)) in [(BACKBONE, self.backbone.export()), (ALIGNMENT, self.alignment.export())] {
            both.0.extend(model.into_iter().map(|(name, weight)| (format!("{part}{name}"), weight)));
            both.1.extend(optimizer.into_iter().map(|(name, weight)| (format!("{part}{name}"), weight)));
        }
        both
    }

    fn import(&mut self, model: Weights, optimizer: Weights) -> Result<(), String> {
        let of = |part: &str, weights: &Weights| -> Weights {
            let own = |(name, weight): (&String, &Weight)| Some((name.strip_prefix(part)?.to_owned(), weight.clone()));
            weights.iter().filter_map(own).collect()
        };
        self.backbone.import(of(BACKBONE, &model), of(BACKBONE, &optimizer))?;
        self.alignment.import(of(ALIGNMENT, &model), of(ALIGNMENT, &optimizer))
    }

    fn save_for_use(&self, header: Header, run: &RunFolder) -> Result<()> {
        let Named { name, network } = self.eyes.named.clone();
        let weights = self.backbone.in_use().clone();
        let plain = Device::flex();
        let backbone = assemble(&name, network, weights.clone(), &plain)?;
        let features = self.features(&header.features, backbone.backbone());
        let settings = serde_json::to_value(&self.eyes.named).expect("settings are plain data");
        let of_backbone = Header { kind: Kind::Backbone, settings, features: features.clone(), ..header.clone() };
        Checkpoint { header: of_backbone, model: weights, optimizer: Weights::new() }
            .save(&self.run.join(BACKBONE_FILE))?;
        let header = Header { features, ..header };
        Checkpoint { header, model: self.alignment.export_for_use(), optimizer: Weights::new() }.save(&run.best())
    }
}

#[cfg(test)]
mod tests {
    use sightline_model::Precision;

    use super::*;
    use crate::backbone::Network;
    use sightline_data::{Dataset, Image, Sentence, Split, VectorMode, Vocabulary};
    use sightline_model::backbone::BackboneSettings;

    fn drawn(folder: &std::path::Path) -> (Dataset, FeatureStore) {
        let settings = StoreSettings {
            backbone: String::new(),
            backbone_checksum: String::new(),
            dim: 4,
            vectors: VectorMode::Pool,
            regions: String::new(),
            regions_checksum: String::new(),
            max_regions: 3,
            extra: Default::default(),
            sources: Default::default(),
            parts: Vec::new(),
        };
        let path = folder.join("x.features");
        let writer = StoreWriter::create_or_resume(&path, &settings).unwrap();
        let mut images = Vec::new();
        for i in 0..2u8 {
            let key = format!("{i}.png");
            let pixels = (0..60 * 40 * 3u32).map(|x| (x * 37 % 251) as u8 ^ (i * 90)).collect();
            let photo = Photo::from_rgb(60, 40, pixels);
            std::fs::write(folder.join(&key), photo.encode_png().unwrap()).unwrap();
            let boxes = vec![
                photo.whole(),
                BoxXyxy::from_xywh(5.0, 3.0, 30.0, 30.0),
                BoxXyxy::from_xywh(20.0, 10.0, 40.0, 25.0),
            ];
            let (scores, vectors) = (vec![1.0; 3], vec![0.0; 12]);
            writer.append(&PhotoFeatures { key: key.clone(), width: 60, height: 40, boxes, scores, vectors }).unwrap();
            let sentences = vec![Sentence { id: i.into(), raw: "a".into(), tokens: vec!["a".into()] }];
            images.push(Image { id: i.into(), path: key, split: Split::Train, sentences, ..Image::default() });
        }
        writer.finish(&[]).unwrap();
        (Dataset { root: folder.to_owned(), images, ..Dataset::default() }, FeatureStore::open(&path).unwrap())
    }

    #[test]
    fn the_way_back_gives_differences() {
        let folder = tempfile::tempdir().unwrap();
        let (dataset, store) = drawn(folder.path());
        let said: Vec<String> = vec!["a".into()];
        let vocabulary = Vocabulary::from_sentences([said.as_slice()], 1);
        let network = BackboneSettings {
            stem: 6,
            fine: 6,
            fine_blocks: 1,
            coarse: 6,
            coarse_blocks: 1,
            attention_blocks: 1,
            dim: 4,
            objects: 4,
            ..BackboneSettings::default()
        };
        let mut weights = network.initial_weights(&mut random::stream(1, 0));
        for head in ["cells.weight", "global.weight"] {
            let values = &mut weights.get_mut(head).unwrap().values;
            *values = random::uniform_values(&mut random::stream(1, 5), values.len(), 0.5);
        }
        let settings = TuneRunSettings { colour: 0.1, ..TuneRunSettings::default() };
        let hands: Vec<Hand> = (0..2).map(|photo| Hand { photo, sentences: vec![0] }).collect();
        for context in [Context::Class, Context::None] {
            let eyes = Eyes {
                named: Named { name: String::new(), network: Network::Compact(network.clone()) },
                before: None,
                settings: &settings,
                align_settings: AlignmentSettings::default(),
                corpus: Corpus::new(&dataset, Split::Train, &store, &vocabulary).unwrap(),
                teachers: None,
                context,
                workers: Workers::new(1, 1).unwrap(),
                unread: Unread::default(),
            };
            let wanted_of = |shard: &Shard| -> Vec<Vec<f32>> {
                let own = |(i, vectors): (usize, &Vec<f32>)| {
                    random::uniform_values(&mut random::stream(2, i as u64), vectors.len(), 1.0)
                };
                shard.vectors.iter().enumerate().map(own).collect()
            };
            let sum = |weights: &Weights| -> f64 {
                let mut tape = Tape::forward_only(weights);
                let (shard, _) = eyes.see(&mut tape, 0, &hands, 3, 0.5).unwrap();
                let factors = wanted_of(&shard);
                let pairs = shard.vectors.iter().flatten().zip(factors.iter().flatten());
                pairs.map(|(x, f)| f64::from(*x) * f64::from(*f)).sum()
            };
            let mut dropout = Dropout::new(random::stream(0, 0), 0.0);
            let mut tape = Tape::training(&weights, &mut dropout, Precision::F32);
            let (shard, place) = eyes.see(&mut tape, 0, &hands, 3, 0.5).unwrap();
            let gradients = eyes.go_back(tape, place, &wanted_of(&shard));
            let mut changed = weights.clone();
            for name in ["cells.weight", "global.bias", "attention.0.out.weight", "coarse.reduce.weight", "stem.weight"]
            {
                for i in [0, 5, 11] {
                    let Some(&got) = gradients[name].values.get(i) else { continue };
                    let old = weights[name].values[i];
                    let mut at = |x: f32| {
                        changed.get_mut(name).unwrap().values[i] = x;
                        sum(&changed)
                    };
                    let expected = (at(old + 5e-3) - at(old - 5e-3)) / 1e-2;
                    at(old);
                    let error = (f64::from(got) - expected).abs();
                    assert!(error < 2e-2 * (0.2 + expected.abs()), "{context:?} {name}[{i}]: {got}, not {expected}");
                }
            }
        }
    }
}
