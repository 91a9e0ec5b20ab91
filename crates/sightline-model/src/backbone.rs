//! The small backbone: convolutions down to a grid of 14 by 14, and there, or on a grid of 7 by 7 below it, a few layers
//! of attention that let every cell see the whole picture (the order of stages is that of hybrid networks such as LeViT,
//! Graham et al. 2021; a convolution's block is that of ConvNeXt, Liu et al. 2022). On the smaller grid a layer of four
//! times the weights costs the same; what it found goes back to the cells of the larger one (Lin et al. 2017).
//!
//! It gives a vector for each cell, one for the whole picture, and for each cell of a finer grid a box about it and how well
//! that covers an object. Weights and pixels in, numbers out, over the [`tape`](crate::tape).

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::matrix::Matrix;
use crate::random;
use crate::tape::{Activation, Tape, Var, Windows};
use crate::weights::{Weight, Weights};

/// Pixels along a side of a view in training, at most.
pub const INPUT: usize = 224;
/// Cells along a side of the grid of vectors there.
pub const GRID: usize = INPUT / CELL;
/// Pixels along a side of a cell.
pub const CELL: usize = 16;
/// Cells of the grid of objects along a side of a cell.
pub const FINER: usize = 2;
/// Numbers a cell of [`Seen::objects`]: the logit of how well its box covers an object, and the logarithms of the distances
/// to the box's left, top, right and bottom, in cells of the fine grid.
pub const OBJECT_NUMBERS: usize = 5;
/// What the names of the weights begin with that nothing but the objects needs.
pub const OBJECTS: &str = "objects.";
/// The layer that reads the whole picture's vector from the token for it.
pub const GLOBAL: &str = "global";

const PATCH: usize = 4;
/// Coarse cells along a side of a deep one.
const MERGED: usize = 2;

/// Sizes of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackboneSettings {
    /// Channels of the grid of 56 by 56.
    pub stem: usize,
    /// Channels of the grid of 28 by 28.
    pub fine: usize,
    /// Blocks of convolution there.
    pub fine_blocks: usize,
    /// Channels of the grid of 14 by 14.
    pub coarse: usize,
    /// Blocks of convolution there.
    pub coarse_blocks: usize,
    /// Channels of a grid of 7 by 7 below it; 0: there is none.
    pub deep: usize,
    /// Layers of attention over the smallest of these grids.
    pub attention_blocks: usize,
    /// Heads of each; they divide its channels.
    pub heads: usize,
    /// Rows inside a block are so many times wider.
    pub expansion: usize,
    /// Cells along a side of the windows of a block of convolution; odd.
    pub kernel: usize,
    /// Length of the vectors that it learns to give.
    pub dim: usize,
    /// How many of the grids before the last stand beside those vectors in use: 1, the fine grid; 2, the coarse one before
    /// the attention too. They tell of colours and surfaces what a teacher's vectors leave out.
    pub levels: usize,
    /// Channels of the part that looks for objects.
    pub objects: usize,
    /// Blocks of convolution in it; 0: one convolution and one layer.
    pub object_blocks: usize,
    /// Pixels along a side of the square in which it is shown a photo in use, a multiple of
    /// [`BackboneSettings::multiple`]. It learns from parts of photos, where things are larger, and so sees whole photos
    /// best in a larger square than it learned in (Touvron et al. 2019).
    pub photo_side: usize,
}

impl Default for BackboneSettings {
    fn default() -> Self {
        Self {
            stem: 48,
            fine: 64,
            fine_blocks: 2,
            coarse: 192,
            coarse_blocks: 2,
            deep: 0,
            attention_blocks: 2,
            heads: 3,
            expansion: 2,
            kernel: 5,
            dim: 192,
            levels: 0,
            objects: 64,
            object_blocks: 0,
            photo_side: INPUT,
        }
    }
}

/// What the network makes of a batch of pictures.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// `[pictures · grid², dim]`, row by row.
    pub cells: Var,
    /// `[pictures, dim]`.
    pub global: Var,
    /// What it is read from: the tokens for the whole, `[pictures, channels]`.
    pub class: Var,
    /// `[pictures · (FINER · grid)², OBJECT_NUMBERS]`.
    pub objects: Var,
    /// The fine grid, `[pictures · (FINER · grid)², channels]`.
    fine: Var,
    /// The coarse one before the attention, `[pictures · grid², channels]`.
    coarse: Var,
}

impl BackboneSettings {
    /// Why no network of these sizes can be, if so.
    pub fn problem(&self) -> Option<String> {
        let sizes =
            [self.stem, self.fine, self.coarse, self.heads, self.expansion, self.kernel, self.dim, self.objects];
        if sizes.contains(&0) {
            return Some("a size of the backbone is 0; give 1 or more".into());
        }
        if !self.attended().is_multiple_of(self.heads) {
            return Some(format!("{} heads do not divide {} channels", self.heads, self.attended()));
        }
        let (side, multiple) = (self.photo_side, self.multiple());
        if !side.is_multiple_of(multiple) || !(INPUT..=4 * INPUT).contains(&side) {
            return Some(format!("photo_side = {side}; give a multiple of {multiple} from {INPUT} to {}", 4 * INPUT));
        }
        if self.levels > 2 {
            return Some(format!("levels = {}; there are two grids before the last, give 0, 1 or 2", self.levels));
        }
        (self.kernel.is_multiple_of(2) || self.kernel >= GRID)
            .then(|| format!("a kernel of {} cells; give an odd number below {GRID}", self.kernel))
    }

    /// What the pixels along a side of a picture are a multiple of.
    pub fn multiple(&self) -> usize {
        if self.deep == 0 { CELL } else { MERGED * CELL }
    }

    /// The vectors in use, of what [`BackboneSettings::forward`] saw: of cells, `[pictures · grid², width]`, and of whole
    /// pictures, `[pictures, width]`, with the means of what stands beside their cells.
    pub fn vectors(&self, tape: &mut Tape<'_>, seen: &Seen) -> [Var; 2] {
        if self.levels == 0 {
            return [seen.cells, seen.global];
        }
        let pictures = tape.value(seen.global).rows;
        let cells = tape.value(seen.cells).rows / pictures;
        let mut before = tape.combine(seen.fine, finer_cells(pictures, cells.isqrt(), FINER));
        if self.levels > 1 {
            before = tape.beside(before, seen.coarse);
        }
        let mean = |picture| (picture * cells..(picture + 1) * cells).map(|cell| (cell, 1.0 / cells as f32)).collect();
        let of_whole = tape.combine(before, (0..pictures).map(mean).collect());
        [tape.beside(seen.cells, before), tape.beside(seen.global, of_whole)]
    }

    /// Length of the vectors in use.
    pub fn width(&self) -> usize {
        self.dim + [self.fine, self.coarse][..self.levels].iter().sum::<usize>()
    }

    /// Channels of the grid that has the attention.
    fn attended(&self) -> usize {
        if self.deep == 0 { self.coarse } else { self.deep }
    }

    /// Weights to start learning from.
    pub fn initial_weights(&self, rng: &mut ChaCha8Rng) -> Weights {
        let mut weights = Weights::new();
        for (name, shape) in self.shapes() {
            let n = shape.iter().product();
            let gain = if name.ends_with("out.weight") { 0.5 } else { 1.0 };
            let values = match (name.rsplit('.').next(), &shape[..]) {
                _ if name.ends_with("norm.weight") => vec![1.0; n],
                (Some("weight"), [rows, _]) => {
                    // Each channel of a convolution of its own sees its window alone; so the number of rows is right there too.
                    random::uniform_values(rng, n, gain * (3.0 / *rows as f32).sqrt())
                }
                (Some("class"), _) => random::uniform_values(rng, n, 0.02),
                _ => vec![0.0; n],
            };
            weights.insert(name, Weight { shape, values });
        }
        // What comes out begins at the mean of what is asked for; few places of a picture are the middle of an object, and a
        // box begins with five cells or so a side.
        for head in ["cells.weight", "global.weight", "objects.found.weight"] {
            weights.get_mut(head).expect("a weight of every network").values.fill(0.0);
        }
        weights.get_mut("objects.found.bias").expect("a weight of every network").values =
            vec![-3.0, 1.0, 1.0, 1.0, 1.0];
        weights
    }

    /// Names and sizes of all weights.
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let &Self { stem, fine, coarse, deep, expansion, dim, objects, .. } = self;
        let attended = self.attended();
        let mut shapes = Vec::new();
        let mut linear = |name: &str, inputs: usize, outputs: usize| {
            shapes.push((format!("{name}.weight"), vec![inputs, outputs]));
            shapes.push((format!("{name}.bias"), vec![outputs]));
        };
        let window = self.kernel * self.kernel;
        // The layers of a block of convolution.
        let of_block = |name: &str, width: usize| {
            let inner = expansion * width;
            [("around", window, width), ("in", width, inner), ("out", inner, width)]
                .map(|(layer, inputs, outputs)| (format!("{name}.{layer}"), inputs, outputs))
        };
        linear("stem", PATCH * PATCH * 3, stem);
        linear("fine.reduce", 9 * stem, fine);
        linear("coarse.reduce", 9 * fine, coarse);
        for (grid, blocks, width) in [("fine", self.fine_blocks, fine), ("coarse", self.coarse_blocks, coarse)] {
            for block in 0..blocks {
                of_block(&format!("{grid}.{block}"), width).iter().for_each(|(name, i, o)| linear(name, *i, *o));
            }
        }
        if deep > 0 {
            linear("deep.reduce", MERGED * MERGED * coarse, deep);
            linear("deep.spread", deep, coarse);
            of_block("joined", coarse).iter().for_each(|(name, i, o)| linear(name, *i, *o));
        }
        for block in 0..self.attention_blocks {
            linear(&format!("attention.{block}.query_key_value"), attended, 3 * attended);
            linear(&format!("attention.{block}.heads_out"), attended, attended);
            linear(&format!("attention.{block}.in"), attended, expansion * attended);
            linear(&format!("attention.{block}.out"), expansion * attended, attended);
        }
        linear("cells", coarse, dim);
        linear(GLOBAL, attended, dim);
        linear("objects.fine", fine, objects);
        linear("objects.coarse", coarse, objects);
        if self.object_blocks == 0 {
            linear("objects.around", window, objects);
            linear("objects.hidden", objects, objects);
        }
        for block in 0..self.object_blocks {
            of_block(&format!("objects.{block}"), objects).iter().for_each(|(name, i, o)| linear(name, *i, *o));
        }
        linear("objects.found", objects, OBJECT_NUMBERS);
        let mut norm = |name: String, width: usize| {
            shapes.push((format!("{name}norm.weight"), vec![width]));
            shapes.push((format!("{name}norm.bias"), vec![width]));
        };
        norm("stem_".into(), stem);
        norm("fine.last_".into(), fine);
        norm("coarse.last_".into(), coarse);
        (0..self.fine_blocks).for_each(|block| norm(format!("fine.{block}."), fine));
        (0..self.coarse_blocks).for_each(|block| norm(format!("coarse.{block}."), coarse));
        if deep > 0 {
            norm("deep.last_".into(), deep);
            norm("joined.".into(), coarse);
        }
        for block in 0..self.attention_blocks {
            norm(format!("attention.{block}."), attended);
            norm(format!("attention.{block}.feed_"), attended);
        }
        (0..self.object_blocks).for_each(|block| norm(format!("objects.{block}."), objects));
        if self.object_blocks > 0 {
            norm("objects.last_".into(), objects);
        }
        shapes.push(("class".into(), vec![1, attended]));
        shapes
    }

    /// Runs the network over square pictures of `side` by `side` pixels, a multiple of [`BackboneSettings::multiple`]:
    /// `[pictures · side², 3]`, red, green and blue in `-1..1`. The grids have as many cells as fit.
    pub fn forward(&self, tape: &mut Tape<'_>, pixels: Matrix, side: usize) -> Seen {
        let (pictures, grid) = (pixels.rows / (side * side), side / CELL);
        let fine_grid = FINER * grid;
        let x = tape.constant(pixels);
        let x = tape.convolve(x, "stem", Windows { side, kernel: PATCH, stride: PATCH });
        let x = tape.layer_norm(x, "stem_norm");
        let mut x = tape.convolve(x, "fine.reduce", Windows { side: side / PATCH, kernel: 3, stride: 2 });
        for block in 0..self.fine_blocks {
            x = self.convolution_block(tape, x, &format!("fine.{block}"), fine_grid);
        }
        let fine = tape.layer_norm(x, "fine.last_norm");
        let mut x = tape.convolve(fine, "coarse.reduce", Windows { side: fine_grid, kernel: 3, stride: 2 });
        for block in 0..self.coarse_blocks {
            x = self.convolution_block(tape, x, &format!("coarse.{block}"), grid);
        }
        let before_attention = x;
        let (coarse, class) = if self.deep == 0 {
            self.attention(tape, x, grid, "coarse.last_norm")
        } else {
            let below = tape.convolve(x, "deep.reduce", Windows { side: grid, kernel: MERGED, stride: MERGED });
            let (below, class) = self.attention(tape, below, grid / MERGED, "deep.last_norm");
            let below = tape.linear(below, "deep.spread");
            let below = tape.rows(below, &larger_cells(pictures, grid, MERGED));
            let x = tape.add(x, below);
            let x = self.convolution_block(tape, x, "joined", grid);
            (tape.layer_norm(x, "coarse.last_norm"), class)
        };
        Seen {
            cells: tape.linear(coarse, "cells"),
            global: tape.linear(class, GLOBAL),
            class,
            objects: self.objects(tape, fine, coarse, pictures, grid),
            fine,
            coarse: before_attention,
        }
    }

    /// Attention over grids of `side` by `side` cells, each beside a token for the whole, and the layer norm `last`: the
    /// cells and the tokens.
    fn attention(&self, tape: &mut Tape<'_>, x: Var, side: usize, last: &str) -> (Var, Var) {
        let cells = side * side;
        let mut x = tape.prepend(x, "class", cells);
        for block in 0..self.attention_blocks {
            x = self.attention_block(tape, x, &format!("attention.{block}"), cells + 1);
        }
        let x = tape.layer_norm(x, last);
        let (of_class, of_cells): (Vec<usize>, Vec<usize>) =
            (0..tape.value(x).rows).partition(|row| row.is_multiple_of(cells + 1));
        (tape.rows(x, &of_cells), tape.rows(x, &of_class))
    }

    fn convolution_block(&self, tape: &mut Tape<'_>, x: Var, name: &str, side: usize) -> Var {
        let y = tape.convolve_channels(x, &format!("{name}.around"), side, self.kernel);
        let y = tape.layer_norm(y, &format!("{name}.norm"));
        let y = feed(tape, y, name);
        tape.add(x, y)
    }

    fn attention_block(&self, tape: &mut Tape<'_>, x: Var, name: &str, rows: usize) -> Var {
        let y = tape.layer_norm(x, &format!("{name}.norm"));
        let y = tape.linear(y, &format!("{name}.query_key_value"));
        let y = tape.attend_among(y, rows, self.heads);
        let y = tape.linear(y, &format!("{name}.heads_out"));
        let x = tape.add(x, y);
        let y = tape.layer_norm(x, &format!("{name}.feed_norm"));
        let y = feed(tape, y, name);
        tape.add(x, y)
    }

    /// The fine grid beside the coarse one of `grid` by `grid` cells, each of which counts for four.
    fn objects(&self, tape: &mut Tape<'_>, fine: Var, coarse: Var, pictures: usize, grid: usize) -> Var {
        let fine_grid = FINER * grid;
        let coarse = tape.linear(coarse, "objects.coarse");
        let coarse = tape.rows(coarse, &larger_cells(pictures, fine_grid, FINER));
        let fine = tape.linear(fine, "objects.fine");
        let mut x = tape.add(fine, coarse);
        if self.object_blocks == 0 {
            x = tape.activate(x, Activation::Silu);
            x = tape.convolve_channels(x, "objects.around", fine_grid, self.kernel);
            x = tape.linear(x, "objects.hidden");
            x = tape.activate(x, Activation::Silu);
        }
        for block in 0..self.object_blocks {
            x = self.convolution_block(tape, x, &format!("objects.{block}"), fine_grid);
        }
        if self.object_blocks > 0 {
            x = tape.layer_norm(x, "objects.last_norm");
        }
        tape.linear(x, "objects.found")
    }
}

/// For every cell of some grids of `side` by `side` the number of the larger one, `times` as long and as high, that it
/// lies in.
fn larger_cells(pictures: usize, side: usize, times: usize) -> Vec<usize> {
    let larger = side / times;
    let of_cell = |cell: usize| {
        let (picture, at) = (cell / (side * side), cell % (side * side));
        picture * larger * larger + at / side / times * larger + at % side / times
    };
    (0..pictures * side * side).map(of_cell).collect()
}

/// For every cell of some grids of `side` by `side` the numbers of the smaller ones, `times` in a row, that lie in it, each
/// with its share of them.
fn finer_cells(pictures: usize, side: usize, times: usize) -> Vec<Vec<(usize, f32)>> {
    let share = 1.0 / (times * times) as f32;
    let mut finer = vec![Vec::with_capacity(times * times); pictures * side * side];
    let larger = larger_cells(pictures, side * times, times);
    larger.into_iter().enumerate().for_each(|(cell, larger)| finer[larger].push((cell, share)));
    finer
}

fn feed(tape: &mut Tape<'_>, x: Var, name: &str) -> Var {
    let y = tape.linear(x, &format!("{name}.in"));
    let y = tape.activate(y, Activation::Silu);
    tape.linear(y, &format!("{name}.out"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16::Precision;
    use crate::random::Dropout;

    fn tiny() -> BackboneSettings {
        BackboneSettings {
            stem: 8,
            fine: 8,
            coarse: 12,
            dim: 6,
            objects: 4,
            fine_blocks: 1,
            ..BackboneSettings::default()
        }
    }

    /// Without a deep grid and blocks that look for objects, and with them.
    fn both() -> [BackboneSettings; 2] {
        [tiny(), BackboneSettings { deep: 18, object_blocks: 2, ..tiny() }]
    }

    const SIDE: usize = 6 * CELL;

    fn picture(stream: u64) -> Vec<f32> {
        random::uniform_values(&mut random::stream(5, stream), SIDE * SIDE * 3, 1.0)
    }

    /// Weights with something in the heads, which begin at zero.
    fn some_weights(settings: &BackboneSettings) -> Weights {
        let mut weights = settings.initial_weights(&mut random::stream(1, 0));
        for head in ["cells.weight", "global.weight", "objects.found.weight"] {
            let values = &mut weights.get_mut(head).unwrap().values;
            *values = random::uniform_values(&mut random::stream(1, 7), values.len(), 0.3);
        }
        weights
    }

    #[test]
    fn a_picture_does_not_depend_on_its_company() {
        for settings in both() {
            let weights = some_weights(&settings);
            let run = |pixels: Vec<f32>| {
                let mut tape = Tape::forward_only(&weights);
                let seen = settings.forward(&mut tape, Matrix::new(pixels.len() / 3, 3, pixels), SIDE);
                [seen.cells, seen.global, seen.objects].map(|var| tape.value(var).clone())
            };
            let both = run([picture(1), picture(2)].concat());
            let alone = run(picture(2));
            for ((both, alone), rows) in both.iter().zip(&alone).zip([6 * 6, 1, 12 * 12]) {
                assert_eq!((both.rows, alone.rows), (2 * rows, rows));
                for (a, b) in both.values[alone.values.len()..].iter().zip(&alone.values) {
                    assert!((a - b).abs() < 1e-4, "{a} in company, {b} alone");
                }
            }
        }
    }

    #[test]
    fn every_weight_learns() {
        for settings in both() {
            let weights = some_weights(&settings);
            let mut dropout = Dropout::new(random::stream(1, 1), 0.0);
            let mut tape = Tape::training(&weights, &mut dropout, Precision::F32);
            let seen = settings.forward(&mut tape, Matrix::new(SIDE * SIDE, 3, picture(3)), SIDE);
            for var in [seen.cells, seen.global, seen.objects] {
                let n = tape.value(var).values.len();
                tape.seed(var, random::uniform_values(&mut random::stream(5, 9), n, 1.0));
            }
            let gradients = tape.backward();
            assert_eq!(gradients.keys().collect::<Vec<_>>(), weights.keys().collect::<Vec<_>>());
            for (name, gradient) in gradients {
                assert!(gradient.values.iter().any(|g| g.abs() > 1e-9), "{name} learns nothing");
            }
        }
    }

    #[test]
    fn a_cell_lies_in_the_larger_one_around_it() {
        let of_first = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]].concat();
        let of_second: Vec<usize> = of_first.iter().map(|larger| 4 + larger).collect();
        assert_eq!(larger_cells(2, 4, 2), [of_first, of_second].concat());
        let in_last: Vec<(usize, f32)> = [26, 27, 30, 31].map(|cell| (cell, 0.25)).into();
        assert_eq!(finer_cells(2, 2, 2)[7], in_last);
    }

    #[test]
    fn earlier_grids_stand_beside_the_vectors() {
        for (levels, width) in [(0, 6), (1, 6 + 8), (2, 6 + 8 + 12)] {
            let settings = BackboneSettings { levels, ..tiny() };
            let weights = some_weights(&settings);
            let mut tape = Tape::forward_only(&weights);
            let pixels = [picture(1), picture(2)].concat();
            let seen = settings.forward(&mut tape, Matrix::new(2 * SIDE * SIDE, 3, pixels), SIDE);
            let vectors = settings.vectors(&mut tape, &seen);
            let [cells, whole] = vectors.map(|var| tape.value(var));
            assert_eq!((settings.width(), cells.columns, whole.columns), (width, width, width));
            let (own, global) = (tape.value(seen.cells), tape.value(seen.global));
            for picture in 0..2 {
                assert_eq!(whole.row(picture)[..6], *global.row(picture));
                for column in 6..width {
                    let of_cells: Vec<f32> = (0..36).map(|cell| cells.row(picture * 36 + cell)[column]).collect();
                    let mean = of_cells.iter().sum::<f32>() / 36.0;
                    assert!((whole.row(picture)[column] - mean).abs() < 1e-5);
                    assert!(of_cells.iter().any(|x| (x - mean).abs() > 1e-3), "cells differ");
                }
            }
            assert!((0..72).all(|cell| cells.row(cell)[..6] == *own.row(cell)));
        }
        assert!(BackboneSettings { levels: 3, ..tiny() }.problem().unwrap().contains("0, 1 or 2"));
    }

    #[test]
    fn sizes_that_cannot_be_are_named() {
        assert_eq!(BackboneSettings::default().problem(), None);
        assert!(BackboneSettings { heads: 5, ..tiny() }.problem().unwrap().contains("do not divide"));
        assert!(BackboneSettings { photo_side: 230, ..tiny() }.problem().unwrap().contains("multiple of 16"));
        let deep = BackboneSettings { deep: 18, ..tiny() };
        assert_eq!(deep.problem(), None);
        assert!(BackboneSettings { photo_side: 240, ..deep }.problem().unwrap().contains("multiple of 32"));
        assert!(BackboneSettings { heads: 4, ..deep }.problem().unwrap().contains("18 channels"));
        assert!(BackboneSettings { kernel: 4, ..tiny() }.problem().unwrap().contains("odd"));
        assert!(BackboneSettings { dim: 0, ..tiny() }.problem().is_some());
    }
}
