//! A small transformer that attends to the regions (Vaswani et al. 2017, layers normalised before each part): regions
//! look at each other, words at the words before them and at the regions.

use std::ops::Range;
use std::sync::Arc;

use super::generator::{Generator, Pictures, State, Step};
use crate::matrix::Matrix;
use crate::tape::{Activation, Attention, Output, Tape, Var};

/// The attention generator.
#[derive(Debug, Clone)]
pub(super) struct Transformer {
    /// Length of every row.
    pub(super) dim: usize,
    /// Heads of every attention; they divide `dim`.
    pub(super) heads: usize,
    /// Layers over the regions.
    pub(super) encoder_layers: usize,
    /// Layers over the words.
    pub(super) decoder_layers: usize,
}

impl Transformer {
    fn attention(&self, key_column: usize, key_stride: usize, seen: Arc<[Range<usize>]>) -> Attention {
        Attention { heads: self.heads, dim: self.dim, key_column, key_stride, seen }
    }

    /// `x` plus what a part of a layer makes of it.
    fn add_part(&self, tape: &mut Tape<'_>, x: Var, part: Var) -> Var {
        let part = tape.dropout(part);
        tape.add(x, part)
    }

    fn feed_forward(&self, tape: &mut Tape<'_>, x: Var, layer: &str) -> Var {
        let y = tape.layer_norm(x, &format!("{layer}.feed_norm"));
        let y = tape.linear(y, &format!("{layer}.feed_in"));
        let y = tape.activate(y, Activation::Relu);
        let y = tape.dropout(y);
        let y = tape.linear(y, &format!("{layer}.feed_out"));
        self.add_part(tape, x, y)
    }

    /// Attention of rows among themselves: queries, keys and values from one product.
    fn among(&self, tape: &mut Tape<'_>, x: Var, layer: &str, past: Past<'_>) -> Var {
        let y = tape.layer_norm(x, &format!("{layer}.self_norm"));
        let y = tape.linear(y, &format!("{layer}.self_query_key_value"));
        let (y, _) = match past {
            Past::Rows(seen) => tape.attend(y, y, self.attention(self.dim, 3 * self.dim, seen)),
            Past::Cache(cache) => {
                *cache = Some(tape.append(*cache, y, self.dim));
                let keys = cache.expect("just put there");
                let (rows, columns) = (tape.value(keys).rows, tape.value(keys).columns);
                let steps = columns / (2 * self.dim);
                let seen = (0..rows).map(|row| row * steps..(row + 1) * steps).collect();
                tape.attend(y, keys, self.attention(0, 2 * self.dim, seen))
            }
        };
        let y = tape.linear(y, &format!("{layer}.self_out"));
        self.add_part(tape, x, y)
    }

    /// Attention of words to regions; also the weights, mean over the heads.
    fn look(
        &self,
        tape: &mut Tape<'_>,
        x: Var,
        layer: &str,
        memory: Var,
        seen: Arc<[Range<usize>]>,
    ) -> (Var, Vec<f32>) {
        let y = tape.layer_norm(x, &format!("{layer}.cross_norm"));
        let y = tape.linear(y, &format!("{layer}.cross_query"));
        let (y, weights) = tape.attend(y, memory, self.attention(0, 2 * self.dim, seen));
        let y = tape.linear(y, &format!("{layer}.cross_out"));
        (self.add_part(tape, x, y), weights)
    }

    /// Word vectors with their places; `places` are steps.
    fn words(&self, tape: &mut Tape<'_>, tokens: &[u32], places: impl Iterator<Item = usize>) -> Var {
        let x = tape.embed("word_vectors", tokens, (self.dim as f32).sqrt());
        let waves: Vec<f32> = places.flat_map(|place| waves(place, self.dim)).collect();
        let waves = tape.constant(Matrix::new(tokens.len(), self.dim, waves));
        let x = tape.add(x, waves);
        tape.dropout(x)
    }
}

/// Which rows a row sees.
enum Past<'a> {
    /// All rows are here.
    Rows(Arc<[Range<usize>]>),
    /// Those of earlier steps are in a cache, to which this step is added.
    Cache(&'a mut Option<Var>),
}

/// The place of a word as sines and cosines.
fn waves(place: usize, dim: usize) -> impl Iterator<Item = f32> {
    (0..dim).map(move |i| {
        let angle = place as f32 / 10_000f32.powf((i / 2 * 2) as f32 / dim as f32);
        if i % 2 == 0 { angle.sin() } else { angle.cos() }
    })
}

/// `0..n`, in pieces of the given lengths.
fn pieces(lengths: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut start = 0;
    lengths
        .map(|length| {
            start += length;
            start - length..start
        })
        .collect()
}

impl Generator for Transformer {
    /// The state's shared matrices are keys and values of the regions, one a decoder layer; its rows, from the first
    /// step on, those of the words so far.
    fn start(&self, tape: &mut Tape<'_>, pictures: &Pictures) -> State {
        let regions: Arc<[Range<usize>]> = pieces(pictures.counts().iter().copied()).into();
        let n_regions = pictures.counts().iter().sum();
        let x = tape.constant(Matrix::new(n_regions, pictures.dim(), pictures.vectors().to_vec()));
        let x = tape.layer_norm(x, "image_norm");
        let x = tape.dropout(x);
        let mut x = tape.linear(x, "image");
        let seen: Arc<[Range<usize>]> =
            regions.iter().flat_map(|range| std::iter::repeat_n(range.clone(), range.len())).collect();
        for layer in 0..self.encoder_layers {
            let layer = format!("encoder.{layer}");
            x = self.among(tape, x, &layer, Past::Rows(seen.clone()));
            x = self.feed_forward(tape, x, &layer);
        }
        let x = tape.layer_norm(x, "encoder_norm");
        let shared =
            (0..self.decoder_layers).map(|layer| tape.linear(x, &format!("decoder.{layer}.cross_key_value"))).collect();
        State { rows: Vec::new(), shared, pictures: (0..pictures.len()).collect(), regions, step: 0 }
    }

    fn step(&self, tape: &mut Tape<'_>, state: &State, tokens: &[u32]) -> (State, Step) {
        let mut x = self.words(tape, tokens, std::iter::repeat_n(state.step, tokens.len()));
        let seen: Arc<[Range<usize>]> = state.pictures.iter().map(|&p| state.regions[p].clone()).collect();
        let (mut rows, mut attention) = (Vec::new(), Vec::new());
        for (layer, &memory) in state.shared.iter().enumerate() {
            let mut cache = state.rows.get(layer).copied();
            let layer = format!("decoder.{layer}");
            x = self.among(tape, x, &layer, Past::Cache(&mut cache));
            rows.extend(cache);
            (x, attention) = self.look(tape, x, &layer, memory, seen.clone());
            x = self.feed_forward(tape, x, &layer);
        }
        let hidden = tape.layer_norm(x, "decoder_norm");
        (State { rows, step: state.step + 1, ..state.clone() }, Step { hidden, attention })
    }

    /// All words of all sentences at once.
    fn read(&self, tape: &mut Tape<'_>, state: &State, sentences: &[&[u32]]) -> Var {
        let tokens: Vec<u32> =
            sentences.iter().flat_map(|s| std::iter::once(super::END).chain(s.iter().copied())).collect();
        let mut x = self.words(tape, &tokens, sentences.iter().flat_map(|s| 0..=s.len()));
        let own: Arc<[Range<usize>]> = pieces(sentences.iter().map(|s| s.len() + 1))
            .into_iter()
            .flat_map(|range| range.clone().map(move |row| range.start..row + 1))
            .collect();
        let seen: Arc<[Range<usize>]> = (sentences.iter().zip(&state.pictures))
            .flat_map(|(s, &picture)| std::iter::repeat_n(state.regions[picture].clone(), s.len() + 1))
            .collect();
        for (layer, &memory) in state.shared.iter().enumerate() {
            let layer = format!("decoder.{layer}");
            x = self.among(tape, x, &layer, Past::Rows(own.clone()));
            (x, _) = self.look(tape, x, &layer, memory, seen.clone());
            x = self.feed_forward(tape, x, &layer);
        }
        let x = tape.layer_norm(x, "decoder_norm");
        tape.dropout(x)
    }

    fn output(&self) -> Output<'_> {
        Output { matrix: "word_vectors", bias: "output.bias" }
    }
}
