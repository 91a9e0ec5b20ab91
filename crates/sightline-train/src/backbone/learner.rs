//! The backbone as it learns.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::AddAssign;
use std::sync::OnceLock;

use rand::RngExt;
use rand::seq::SliceRandom;
use sightline_data::store::FeatureStore;
use sightline_data::{BoxXyxy, Split};
use sightline_model::Matrix;
use sightline_model::backbone::{CELL, FINER, GLOBAL, GRID, INPUT};
use sightline_model::random::{self, Dropout};
use sightline_model::tape::Tape;
use sightline_model::weights::Weights;
use sightline_model::workers::Workers;
use sightline_vision::Photo;
use sightline_vision::backbone::compact;
use sightline_vision::photo::signed;
use sightline_vision::regions::{Proposal, n_covered};

use super::objects;
use super::views::{photo_of, pixels};
use super::{BackboneData, photos_of, workers};
use crate::checkpoint::Findings;
use crate::optimizer::{Learnt, accumulate};
use crate::settings::BackboneRunSettings;
use crate::trainer::{BATCHES_STREAM, Learner, Validation};
use crate::unread::{Missing, Unread};
use crate::view::{mirror, recolour};
use crate::{Error, Result};

/// Random streams of what is done to a view; one a view and step.
const CHANGES_STREAM: u64 = 1 << 42;
/// More views than a batch ever has.
const MOST_VIEWS: u64 = 1 << 20;
/// Pictures that one thread takes at once. Gradients are summed over these in order, whatever the threads.
const SHARD: usize = 8;
/// Views whose vectors tell mean and deviation.
const SAMPLE: usize = 512;
/// Views of a mosaic.
const MOSAIC: usize = 4;
/// Bytes of small views that are kept in memory, each as it is first needed.
const MOST_KEPT: usize = 3 << 30;
/// Validation asks for this many of the detector's best boxes among this many proposals.
const ASKED: (usize, usize) = (10, 19);

/// Mean and deviation of each number of the teacher's vectors.
struct Standard {
    mean: Vec<f32>,
    deviation: Vec<f32>,
}

impl Standard {
    fn of<'v>(dim: usize, vectors: impl Iterator<Item = &'v [f32]>) -> Self {
        let (mut sums, mut squares, mut n) = (vec![0.0f64; dim], vec![0.0f64; dim], 0.0);
        for vector in vectors {
            n += 1.0;
            for ((sum, square), &x) in sums.iter_mut().zip(&mut squares).zip(vector) {
                *sum += f64::from(x);
                *square += f64::from(x) * f64::from(x);
            }
        }
        let deviation = |(sum, square): (&f64, &f64)| (square / n - (sum / n).powi(2)).max(1e-12).sqrt() as f32;
        let deviation = sums.iter().zip(&squares).map(deviation).collect();
        Self { mean: sums.iter().map(|sum| (sum / n) as f32).collect(), deviation }
    }

    fn apply(&self, vectors: &mut [f32]) {
        for vector in vectors.chunks_exact_mut(self.mean.len()) {
            for ((x, mean), deviation) in vector.iter_mut().zip(&self.mean).zip(&self.deviation) {
                *x = (*x - mean) / deviation;
            }
        }
    }
}

/// What some views amount to.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    views: usize,
    /// Mean squared differences from the standardised teacher; summed over views.
    cells: f64,
    global: f64,
    objects: f64,
    /// Boxes of the detector, and those covered by a proposal.
    asked: usize,
    covered: usize,
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.views += other.views;
        self.cells += other.cells;
        self.global += other.global;
        self.objects += other.objects;
        self.asked += other.asked;
        self.covered += other.covered;
    }
}

/// Views of one step, all pictures squares of `side` pixels.
pub(super) struct Batch {
    side: usize,
    /// Views a picture: 1, or [`MOSAIC`].
    each: usize,
    /// Positions in the store of views.
    views: Vec<usize>,
}

/// A picture as the network is shown it, and what it should say.
struct Example {
    pixels: Vec<f32>,
    /// Of the whole view, standardised; none of a mosaic.
    global: Option<Vec<f32>>,
    /// Of each cell, `[cells, dim]`, standardised.
    cells: Vec<f32>,
    objects: Vec<Proposal>,
}

impl Example {
    /// Four pictures of `side` pixels as the quarters of one: two beside each other, and two below them.
    fn mosaic(quarters: &[Self], side: usize, dim: usize) -> Self {
        let grid = side / CELL;
        let offset = |quarter: usize, by: usize| ((quarter % 2 * by) as f32, (quarter / 2 * by) as f32);
        let objects = quarters.iter().enumerate().flat_map(|(quarter, example)| {
            let (x, y) = offset(quarter, FINER * grid);
            example.objects.iter().map(move |&Proposal { region: b, score }| {
                let region = BoxXyxy { x1: b.x1 + x, y1: b.y1 + y, x2: b.x2 + x, y2: b.y2 + y };
                Proposal { region, score }
            })
        });
        let joined = |of: fn(&Self) -> &[f32], row: usize| -> Vec<f32> {
            let rows = |pair: &[Self]| -> Vec<f32> {
                let [left, right] = [of(&pair[0]), of(&pair[1])].map(|values| values.chunks_exact(row));
                left.zip(right).flat_map(|(left, right)| [left, right].concat()).collect()
            };
            quarters.chunks_exact(2).flat_map(rows).collect()
        };
        Self {
            pixels: joined(|example| &example.pixels, 3 * side),
            global: None,
            cells: joined(|example| &example.cells, dim * grid),
            objects: objects.collect(),
        }
    }
}

pub(super) struct BackboneLearner<'a> {
    learnt: Learnt,
    settings: &'a BackboneRunSettings,
    data: BackboneData<'a>,
    views: &'a FeatureStore,
    /// Positions in `views`.
    training: Vec<usize>,
    validation: Vec<usize>,
    of_cells: Standard,
    of_global: Standard,
    workers: Workers,
    /// Pixels of views in squares of `small_side`, by position; fewer than there are views where memory is short.
    small: Vec<OnceLock<Vec<u8>>>,
    small_side: usize,
    /// Photos that could be read when the views were made, and cannot any more.
    unread: Unread,
}

impl<'a> BackboneLearner<'a> {
    pub(super) fn new(
        weights: Weights,
        settings: &'a BackboneRunSettings,
        data: BackboneData<'a>,
        views: &'a FeatureStore,
    ) -> Result<Self> {
        let of_split = |split| -> Vec<usize> {
            let photos: BTreeSet<&str> = photos_of(data.dataset, split).collect();
            (0..views.len()).filter(|&view| photos.contains(photo_of(views.get(view).key))).collect()
        };
        let (training, validation) = (of_split(Split::Train), of_split(Split::Val));
        if training.is_empty() || validation.is_empty() {
            let what = if training.is_empty() { "training" } else { "validation" };
            return Err(Error::Mismatch(format!("the dataset has no readable photo in its {what} split")));
        }
        let dim = views.dim();
        let small_side = if settings.small_epochs > 0 { settings.small_side } else { settings.mosaic_side / 2 };
        let sample: Vec<Vec<f32>> =
            training.iter().step_by(training.len().div_ceil(SAMPLE)).map(|&view| views.get(view).vectors()).collect();
        Ok(Self {
            learnt: Learnt::new(weights, settings.average),
            settings,
            data,
            views,
            training,
            validation,
            of_cells: Standard::of(dim, sample.iter().flat_map(|view| view[dim..].chunks_exact(dim))),
            of_global: Standard::of(dim, sample.iter().map(|view| &view[..dim])),
            workers: workers(usize::MAX)?,
            small: (0..views.len().min(MOST_KEPT / (3 * small_side.pow(2)))).map(|_| OnceLock::new()).collect(),
            small_side,
            unread: Unread::default(),
        })
    }

    /// Photos that became unreadable while the backbone learnt.
    pub(super) fn into_unread(self) -> BTreeSet<String> {
        self.unread.into_all()
    }

    /// The pixels of a view in a square of `side`; none where its photo cannot be read.
    fn pixels(&self, view: usize, side: usize) -> Option<Cow<'_, [u8]>> {
        let kept = if side == self.small_side { self.small.get(view) } else { None };
        if let Some(pixels) = kept.and_then(OnceLock::get) {
            return Some(Cow::Borrowed(pixels));
        }
        let record = self.views.get(view);
        let path = photo_of(record.key);
        let part = record.boxes().next().expect("a view has a box");
        let photo =
            Photo::open(self.data.dataset.root.join(path)).map_err(|reason| self.unread.add(path, &reason)).ok()?;
        let pixels = pixels(&photo, &part, side).pixels;
        Some(match kept {
            Some(slot) => Cow::Borrowed(slot.get_or_init(|| pixels)),
            None => Cow::Owned(pixels),
        })
    }

    /// A view in a square of `side` pixels, changed by chance where `changes` is the stream to draw from; none where its
    /// photo cannot be read.
    fn example(&self, view: usize, side: usize, changes: Option<u64>) -> Option<Example> {
        let mut pixels = signed(&self.pixels(view, side)?);
        let record = self.views.get(view);
        let (path, part) = (photo_of(record.key), record.boxes().next().expect("a view has a box"));
        let (dim, grid) = (self.views.dim(), side / CELL);
        let mut global = record.vectors();
        let mut cells = global.split_off(dim);
        self.of_global.apply(&mut global);
        self.of_cells.apply(&mut cells);
        if grid < GRID {
            cells = resampled(&cells, GRID, grid, dim);
        }
        let mut flipped = false;
        if let Some(stream) = changes {
            let mut rng = random::stream(self.settings.seed, stream);
            flipped = self.settings.flip && rng.random();
            if flipped {
                mirror(&mut pixels, side, 3);
                mirror(&mut cells, grid, dim);
            }
            let mut factor = || 1.0 + self.settings.colour * rng.random_range(-1.0..=1.0f32);
            recolour(&mut pixels, factor() - 1.0, factor(), factor());
        }
        let shown = |boxes| objects::in_view(boxes, &part, flipped, FINER * grid);
        let objects = self.detected(path).map_or_else(Vec::new, shown);
        Some(Example { pixels, global: Some(global), cells, objects })
    }

    /// The detector's boxes of a photo, the whole photo not among them.
    fn detected(&self, path: &str) -> Option<impl Iterator<Item = Proposal>> {
        let photo = self.data.boxes.find(path)?;
        let all = photo.boxes().zip(photo.scores).skip(1);
        Some(all.map(|(region, &score)| Proposal { region, score }))
    }

    /// A picture of some views, changed by chance; none where a photo cannot be read.
    fn picture(&self, views: &[usize], side: usize, changes: u64) -> Option<Example> {
        if let &[view] = views {
            return self.example(view, side, Some(changes));
        }
        let quarters = views.iter().zip(changes..).map(|(&view, changes)| self.example(view, side / 2, Some(changes)));
        let quarters: Option<Vec<Example>> = quarters.collect();
        Some(Example::mosaic(&quarters?, side / 2, self.views.dim()))
    }

    /// Loss of some pictures of `each` views, and its gradients.
    fn learn(&self, views: &[usize], Batch { side, each, .. }: &Batch, changes: u64, factor: f32) -> (Sums, Weights) {
        let side = *side;
        let pictures = views.chunks_exact(*each).zip((changes..).step_by(*each));
        let examples: Vec<Example> =
            pictures.filter_map(|(views, changes)| self.picture(views, side, changes)).collect();
        if examples.is_empty() {
            return (Sums::default(), Weights::new());
        }
        let mut dropout = Dropout::new(random::stream(0, 0), 0.0);
        let mut tape = Tape::training(&self.learnt.weights, &mut dropout, self.settings.precision);
        let pixels: Vec<f32> = examples.iter().flat_map(|example| &example.pixels).copied().collect();
        let seen = self.settings.model.forward(&mut tape, Matrix::new(pixels.len() / 3, 3, pixels), side);
        let mut sums = Sums { views: examples.len(), ..Sums::default() };
        let said = [seen.cells, seen.global, seen.objects].map(|var| tape.value(var).values.clone());
        let mut gradients = said.each_ref().map(|values| vec![0.0; values.len()]);
        let part = |which: usize| said[which].len() / examples.len();
        for (i, example) in examples.iter().enumerate() {
            let own = |which: usize| i * part(which)..(i + 1) * part(which);
            sums.cells += squares(&said[0][own(0)], &example.cells, factor, &mut gradients[0][own(0)]);
            if let Some(global) = &example.global {
                let weight = self.settings.global_weight * factor;
                sums.global += squares(&said[1][own(1)], global, weight, &mut gradients[1][own(1)]);
            }
            let weight = self.settings.objects_weight * factor;
            sums.objects += objects::loss(
                &said[2][own(2)],
                &example.objects,
                FINER * side / CELL,
                weight,
                &mut gradients[2][own(2)],
            );
        }
        let [cells, global, found] = gradients;
        tape.seed(seen.cells, cells);
        tape.seed(seen.objects, found);
        if !self.settings.global_apart {
            tape.seed(seen.global, global);
            return (sums, tape.backward());
        }
        let class = tape.value(seen.class).clone();
        let mut gradients = tape.backward();
        let mut dropout = Dropout::new(random::stream(0, 0), 0.0);
        let mut apart = Tape::training(&self.learnt.weights, &mut dropout, self.settings.precision);
        let class = apart.constant(class);
        let said = apart.linear(class, GLOBAL);
        apart.seed(said, global);
        gradients.extend(apart.backward());
        (sums, gradients)
    }

    /// What the weights in use make of some views.
    fn judge(&self, weights: &Weights, views: &[usize]) -> Sums {
        let readable = views.iter().filter_map(|&view| Some((view, self.example(view, INPUT, None)?)));
        let (kept, examples): (Vec<usize>, Vec<Example>) = readable.unzip();
        if examples.is_empty() {
            return Sums::default();
        }
        let mut tape = Tape::forward_only(weights);
        let pixels: Vec<f32> = examples.iter().flat_map(|example| &example.pixels).copied().collect();
        let seen = self.settings.model.forward(&mut tape, Matrix::new(pixels.len() / 3, 3, pixels), INPUT);
        let said = [seen.cells, seen.global, seen.objects].map(|var| &tape.value(var).values);
        let mut sums = Sums { views: kept.len(), ..Sums::default() };
        for (i, (&view, example)) in kept.iter().zip(&examples).enumerate() {
            let own = |which: usize| {
                let part = said[which].len() / kept.len();
                &said[which][i * part..(i + 1) * part]
            };
            let difference = |said, targets: &[f32]| squares(said, targets, 0.0, &mut vec![0.0; targets.len()]);
            sums.cells += difference(own(0), &example.cells);
            sums.global += example.global.as_ref().map_or(0.0, |global| difference(own(1), global));
            let record = self.views.get(view);
            let found = compact::proposals(own(2), record.width, record.height, ASKED.1);
            if let Some(detected) = self.detected(photo_of(record.key)) {
                let asked: Vec<BoxXyxy> = detected.take(ASKED.0).map(|proposal| proposal.region).collect();
                sums.asked += asked.len();
                sums.covered += n_covered(&found, &asked, 0.5);
            }
        }
        sums
    }
}

/// The mean squared difference; adds `factor` times its derivatives to `gradient`.
fn squares(said: &[f32], targets: &[f32], factor: f32, gradient: &mut [f32]) -> f64 {
    let scale = 2.0 * factor / said.len() as f32;
    let mut sum = 0.0;
    for ((said, target), gradient) in said.iter().zip(targets).zip(gradient) {
        let difference = said - target;
        sum += f64::from(difference * difference);
        *gradient += scale * difference;
    }
    sum / said.len() as f64
}

/// A square of `side` cells of `channels` numbers as one of `side_out` larger cells, each the mean of what it covers.
fn resampled(cells: &[f32], side: usize, side_out: usize, channels: usize) -> Vec<f32> {
    // How much of each cell of a row lies in each of the larger ones, in shares of these.
    let size = side as f32 / side_out as f32;
    let shares: Vec<Vec<(usize, f32)>> = (0..side_out)
        .map(|out| {
            let (from, to) = (out as f32 * size, (out + 1) as f32 * size);
            let covered = |cell: usize| (to.min((cell + 1) as f32) - from.max(cell as f32)) / size;
            (from as usize..side.min(to.ceil() as usize)).map(|cell| (cell, covered(cell))).collect()
        })
        .collect();
    let mut means = vec![0.0; side_out * side_out * channels];
    for (at, mean) in means.chunks_exact_mut(channels).enumerate() {
        for &(y, of_row) in &shares[at / side_out] {
            for &(x, of_column) in &shares[at % side_out] {
                let cell = &cells[(y * side + x) * channels..][..channels];
                mean.iter_mut().zip(cell).for_each(|(mean, value)| *mean += of_row * of_column * value);
            }
        }
    }
    means
}

impl Learner for BackboneLearner<'_> {
    type Batch = Batch;

    fn batches(&self, epoch: u64) -> Vec<Batch> {
        let BackboneRunSettings { small_epochs, small_side, batch, mosaics, mosaic_side, .. } = *self.settings;
        let side = if epoch < small_epochs { small_side } else { INPUT };
        let mut rng = random::stream(self.settings.seed, BATCHES_STREAM + epoch);
        let mut order = self.training.clone();
        order.shuffle(&mut rng);
        let in_mosaics = (f64::from(mosaics) * (order.len() / MOSAIC) as f64) as usize * MOSAIC;
        let (in_mosaics, alone) = order.split_at(in_mosaics);
        let batches = |views: &[usize], side: usize, each: usize| -> Vec<Batch> {
            views.chunks(batch * each).map(|views| Batch { side, each, views: views.to_vec() }).collect()
        };
        let mut all = batches(alone, side, 1);
        if !in_mosaics.is_empty() {
            all.extend(batches(in_mosaics, mosaic_side, MOSAIC));
            all.shuffle(&mut rng);
        }
        all
    }

    fn step(&mut self, batch: &Batch, _: &mut Dropout, rate: f64, step: u64) -> (f64, f64) {
        let shard = SHARD * batch.each;
        let factor = batch.each as f32 / batch.views.len() as f32;
        let changes = |number: usize| CHANGES_STREAM + step * MOST_VIEWS + (number * shard) as u64;
        let shards: Vec<&[usize]> = batch.views.chunks(shard).collect();
        let parts = self.workers.map(&shards, |number, views| self.learn(views, batch, changes(number), factor));
        let (mut sums, mut gradients) = (Sums::default(), Weights::new());
        for (own, of_shard) in parts {
            sums += own;
            accumulate(&mut gradients, of_shard);
        }
        let BackboneRunSettings { global_weight, objects_weight, .. } = *self.settings;
        let loss = sums.cells + f64::from(global_weight) * sums.global + f64::from(objects_weight) * sums.objects;
        let loss = loss / sums.views.max(1) as f64;
        if loss.is_finite() {
            self.learnt.step(&gradients, &self.settings.optimizer, rate, step);
        }
        (loss, 1.0)
    }

    fn unread(&self) -> Vec<Missing> {
        self.unread.news()
    }

    fn validate(&self) -> Result<Validation> {
        let (weights, shards) = (self.learnt.in_use(), self.validation.chunks(SHARD).collect::<Vec<_>>());
        let mut sums = Sums::default();
        self.workers.map(&shards, |_, views| self.judge(weights, views)).into_iter().for_each(|own| sums += own);
        let BackboneRunSettings { global_weight, objects_weight, .. } = *self.settings;
        let explained = |squares: f64| 100.0 * (1.0 - squares / sums.views.max(1) as f64);
        let (cells, global) = (explained(sums.cells), explained(sums.global));
        let recall = 100.0 * sums.covered as f64 / sums.asked.max(1) as f64;
        let text = format!(
            "explained of the teacher's variance {cells:.1} % (cells), {global:.1} % (photos); {recall:.1} % of the \
             detector's boxes covered"
        );
        let record = serde_json::json!({
            "explained_cells": cells / 100.0, "explained_photos": global / 100.0, "box_recall": recall / 100.0,
        });
        let of_loss = [(cells, 1.0), (global, f64::from(global_weight)), (recall, f64::from(objects_weight))];
        let sum: f64 = of_loss.iter().map(|(percent, weight)| weight * percent).sum();
        let score = sum / of_loss.iter().map(|(_, weight)| 100.0 * weight).sum::<f64>();
        Ok(Validation { score, text, record, findings: Findings::default() })
    }

    fn export(&self) -> (Weights, Weights) {
        self.learnt.export()
    }

    fn import(&mut self, model: Weights, optimizer: Weights) -> Result<(), String> {
        self.learnt.import(model, optimizer)
    }

    fn export_for_use(&self) -> Weights {
        self.learnt.in_use().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mosaic_has_its_views_in_quarters() {
        // A quarter has 2 by 2 cells of two numbers, and an object in its first fine cell.
        let side = 2 * CELL;
        let quarter = |number: usize| Example {
            pixels: vec![number as f32; side * side * 3],
            global: Some(vec![0.0; 2]),
            cells: (0..4).flat_map(|cell| [number as f32, cell as f32]).collect(),
            objects: vec![Proposal { region: BoxXyxy { x1: 0.0, y1: 0.0, x2: 1.0, y2: 1.0 }, score: 0.5 }],
        };
        let mosaic = Example::mosaic(&[0, 1, 2, 3].map(quarter), side, 2);
        let of_cells: Vec<[f32; 2]> = mosaic.cells.chunks_exact(2).map(|cell| [cell[0], cell[1]]).collect();
        let upper = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [0.0, 3.0], [1.0, 2.0], [1.0, 3.0]];
        assert_eq!(of_cells[..8], upper);
        assert_eq!(of_cells[8..], upper.map(|[number, cell]| [number + 2.0, cell]));
        let at = |x: usize, y: usize| mosaic.pixels[(y * 2 * side + x) * 3];
        assert_eq!([at(0, 0), at(side, 0), at(side - 1, side), at(2 * side - 1, 2 * side - 1)], [0.0, 1.0, 2.0, 3.0]);
        let corners: Vec<(f32, f32)> =
            mosaic.objects.iter().map(|object| (object.region.x1, object.region.y1)).collect();
        assert_eq!(corners, [(0.0, 0.0), (4.0, 0.0), (0.0, 4.0), (4.0, 4.0)]);
        assert!(mosaic.global.is_none());
    }

    #[test]
    fn larger_cells_have_means() {
        // Two channels of a square of four by four cells, the second twice the first.
        let cells: Vec<f32> = (0..16).flat_map(|i| [i as f32, 2.0 * i as f32]).collect();
        assert_eq!(resampled(&cells, 4, 2, 2), [2.5, 5.0, 4.5, 9.0, 10.5, 21.0, 12.5, 25.0]);
        assert_eq!(resampled(&cells, 4, 4, 2), cells);
        // Three cells a row: each is one of the four and a third of its neighbour's.
        let three = resampled(&cells, 4, 3, 2);
        let row = [0.25, 1.5, 2.75];
        for (i, cell) in three.chunks_exact(2).enumerate() {
            let expected = 4.0 * row[i / 3] + row[i % 3];
            assert!((cell[0] - expected).abs() < 1e-5 && (cell[1] - 2.0 * expected).abs() < 1e-5, "{i}: {cell:?}");
        }
    }
}
