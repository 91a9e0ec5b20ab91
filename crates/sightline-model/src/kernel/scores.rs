//! The score of equation 8 with its sparse gradient: one matrix product forward in tiles, the winner of each word and
//! photo kept, and backward a gather and scatter of the winners alone.

use std::sync::{Arc, OnceLock};

use burn::tensor::Tensor;
use sightline_search::{BestRegions, best_regions, chosen_gradients};

use super::{Kernel, pair};

/// Scores of every photo with every sentence, `[images, sentences]`: the sum over words of the product with the best
/// region, times the sentence's factor.
///
/// `regions` is `[regions of all photos, dim]`, `counts` regions a photo; `words` is `[words of all sentences, dim]`,
/// `lengths` words a sentence; `factors` has one number a sentence.
pub(crate) fn scores(
    regions: Tensor<2>,
    counts: &[usize],
    words: Tensor<2>,
    lengths: &[usize],
    factors: Vec<f32>,
) -> Tensor<2> {
    let [_, dim] = regions.dims();
    let kernel =
        ScoreKernel { dim, counts: counts.to_vec(), lengths: lengths.to_vec(), factors, winners: OnceLock::new() };
    pair(Arc::new(kernel), regions, words)
}

#[derive(Debug)]
struct ScoreKernel {
    dim: usize,
    counts: Vec<usize>,
    lengths: Vec<usize>,
    factors: Vec<f32>,
    /// The best region of each photo for each word, `[images, words]`.
    winners: OnceLock<Vec<u32>>,
}

impl Kernel for ScoreKernel {
    fn shape(&self) -> [usize; 2] {
        [self.counts.len(), self.lengths.len()]
    }

    fn forward(&self, inputs: &[&[f32]]) -> Vec<f32> {
        let BestRegions { products, regions } = best_regions(inputs[0], &self.counts, inputs[1], self.dim);
        let n_words: usize = self.lengths.iter().sum();
        let mut scores = Vec::with_capacity(self.counts.len() * self.lengths.len());
        for products in products.chunks_exact(n_words.max(1)) {
            let mut rest = products;
            for (&length, factor) in self.lengths.iter().zip(&self.factors) {
                let (own, others) = rest.split_at(length);
                rest = others;
                scores.push(own.iter().sum::<f32>() * factor);
            }
        }
        scores.resize(self.counts.len() * self.lengths.len(), 0.0); // no word at all: no chunk above
        // Backward runs once a forward pass; a second forward would find the same winners.
        let _ = self.winners.set(regions);
        scores
    }

    fn backward(&self, inputs: &[&[f32]], gradient: &[f32]) -> Vec<Vec<f32>> {
        let winners = self.winners.get().expect("forward ran");
        let mut weights = Vec::with_capacity(winners.len());
        for row in gradient.chunks_exact(self.lengths.len().max(1)) {
            for ((&gradient, &length), &factor) in row.iter().zip(&self.lengths).zip(&self.factors) {
                weights.resize(weights.len() + length, gradient * factor);
            }
        }
        let (regions, words) = chosen_gradients(inputs[0], &self.counts, inputs[1], self.dim, winners, &weights);
        vec![regions, words]
    }
}
