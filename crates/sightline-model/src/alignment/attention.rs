//! Self-attention within sets: the regions of each photo, or the words of each sentence, look at one another.

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, Linear};
use burn::tensor::activation::{relu, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;

use crate::random::{self, Dropout, drop_out};

/// One layer of a transformer encoder (Vaswani et al. 2017) with the norms before each part.
#[derive(Module, Debug)]
pub(super) struct AttentionLayer {
    before_attention: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    mix: Linear,
    before_expansion: LayerNorm,
    expand: Linear,
    contract: Linear,
    #[module(skip)]
    heads: usize,
}

/// Length of one head's vectors, at most.
const HEAD: usize = 64;

impl AttentionLayer {
    /// A layer over vectors of length `dim`, with as many heads of at most 64 numbers as `dim` divides into.
    pub(super) fn new(rng: &mut ChaCha8Rng, dim: usize, device: &Device) -> Self {
        let heads = (1..=dim).find(|&heads| dim.is_multiple_of(heads) && dim / heads <= HEAD).unwrap_or(1);
        let mut linear = |inputs, outputs, scale| random::linear(rng, inputs, outputs, scale, device);
        Self {
            before_attention: LayerNormConfig::new(dim).init(device),
            query: linear(dim, dim, 1.0),
            key: linear(dim, dim, 1.0),
            value: linear(dim, dim, 1.0),
            // What a layer adds starts small, so that the vectors start nearly as they came.
            mix: linear(dim, dim, 0.3),
            before_expansion: LayerNormConfig::new(dim).init(device),
            expand: linear(dim, 2 * dim, 1.0),
            contract: linear(2 * dim, dim, 0.3),
            heads,
        }
    }

    /// Vectors in the light of the others of their set: `[vectors of all sets, dim]`, `counts` vectors a set.
    pub(super) fn forward(&self, x: Tensor<2>, counts: &[usize], mut dropout: Option<&mut Dropout>) -> Tensor<2> {
        let sets = Padding::new(counts);
        let device = x.device();
        let [_, dim] = x.dims();
        let (n, most, heads) = (counts.len(), sets.most, self.heads);
        let normed = self.before_attention.forward(x.clone());
        let split = |linear: &Linear| {
            let rows = sets.pad(linear.forward(normed.clone()), &device); // [sets * most, dim]
            rows.reshape([n, most, heads, dim / heads]).swap_dims(1, 2) // [sets, heads, most, dim / heads]
        };
        let (query, key, value) = (split(&self.query), split(&self.key), split(&self.value));
        let mut logits = query.matmul(key.swap_dims(2, 3)) / ((dim / heads) as f32).sqrt(); // [sets, heads, most, most]
        if let Some(mask) = sets.mask(&device) {
            logits = logits + mask.reshape([n, 1, 1, most]);
        }
        let mixed = softmax(logits, 3).matmul(value).swap_dims(1, 2).reshape([n * most, dim]);
        let mixed = self.mix.forward(sets.pack(mixed, &device));
        let x = x + drop_out(dropout.as_deref_mut(), mixed);
        let expanded = relu(self.expand.forward(self.before_expansion.forward(x.clone())));
        x + drop_out(dropout, self.contract.forward(expanded))
    }
}

/// Sets of different sizes brought to the largest, and back.
pub(crate) struct Padding<'a> {
    counts: &'a [usize],
    pub(crate) most: usize,
}

impl<'a> Padding<'a> {
    pub(crate) fn new(counts: &'a [usize]) -> Self {
        Self { counts, most: counts.iter().copied().max().unwrap_or(0).max(1) }
    }

    fn is_full(&self) -> bool {
        self.counts.iter().all(|&count| count == self.most)
    }

    /// `[vectors of all sets, n] -> [sets * most, n]`; a place without a vector repeats another.
    pub(crate) fn pad(&self, x: Tensor<2>, device: &Device) -> Tensor<2> {
        if self.is_full() {
            return x;
        }
        let mut rows = Vec::with_capacity(self.counts.len() * self.most);
        let mut first = 0;
        for &count in self.counts {
            // An empty set borrows a neighbour's vector; nothing reads it.
            rows.extend((0..self.most).map(|i| (first + i.min(count.saturating_sub(1))) as i64));
            first += count;
        }
        let last = first.saturating_sub(1) as i64;
        rows.iter_mut().for_each(|row| *row = (*row).min(last));
        x.select(0, indices(rows, device))
    }

    /// `[sets * most, n] -> [vectors of all sets, n]`.
    pub(crate) fn pack(&self, x: Tensor<2>, device: &Device) -> Tensor<2> {
        if self.is_full() {
            return x;
        }
        let rows = self.counts.iter().enumerate().flat_map(|(set, &count)| {
            let first = set * self.most;
            (first..first + count).map(|row| row as i64)
        });
        x.select(0, indices(rows.collect(), device))
    }

    /// Zero where a set has a vector, far below any product elsewhere: `[sets, most]`; `None` where all are full.
    pub(crate) fn mask(&self, device: &Device) -> Option<Tensor<2>> {
        if self.is_full() {
            return None;
        }
        let values: Vec<f32> = self
            .counts
            .iter()
            .flat_map(|&count| (0..self.most).map(move |i| if i < count { 0.0 } else { -1e9 }))
            .collect();
        let shape = [self.counts.len(), self.most];
        Some(Tensor::from_data(TensorData::new(values, shape), &device.clone().without_autodiff()))
    }
}

pub(crate) fn indices(rows: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let n = rows.len();
    Tensor::from_data(TensorData::new(rows, [n]), device)
}
