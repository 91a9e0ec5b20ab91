//! From products of word and region vectors to one score a photo and sentence.

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// How the products of one photo's regions and one sentence's words become their score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// Equation 8: each word goes to its best region, the products are summed.
    MaxOverRegions,
    /// The same, divided by the number of words, so that long sentences have no head start.
    MeanOfMax,
}

/// How many regions each photo of a batch has; regions lie photo by photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionCounts(Vec<usize>);

impl RegionCounts {
    /// One count a photo, each at least one.
    pub fn new(counts: Vec<usize>) -> Self {
        assert!(counts.iter().all(|&c| c > 0), "a photo has at least the whole image as a region: {counts:?}");
        Self(counts)
    }

    /// Number of photos.
    pub fn images(&self) -> usize {
        self.0.len()
    }

    fn most(&self) -> usize {
        self.0.iter().copied().max().unwrap_or(0)
    }
}

impl Score {
    /// Scores of every photo with every sentence: `[images, sentences]`.
    ///
    /// `regions` is `[regions of all photos, dim]`, `words` is `[words of all sentences, dim]`.
    pub fn scores(self, regions: Tensor<2>, counts: &RegionCounts, words: Tensor<2>, lengths: &[usize]) -> Tensor<2> {
        let device = words.device();
        let [n_regions, _] = regions.dims();
        let [n_words, _] = words.dims();
        assert_eq!(n_regions, counts.0.iter().sum::<usize>(), "regions of all photos");
        assert_eq!(n_words, lengths.iter().sum::<usize>(), "words of all sentences");
        let (images, most) = (counts.images(), counts.most());

        let products = regions.matmul(words.transpose()); // [regions of all photos, words]
        let best = if n_regions == images * most {
            products.reshape([images, most, n_words]).max_dim(1)
        } else {
            let (rows, mask) = self::padding(counts, &device);
            let padded = products.select(0, rows) + mask; // [images * most, words]
            padded.reshape([images, most, n_words]).max_dim(1)
        };
        best.reshape([images, n_words]).matmul(self.sums(lengths, &device))
    }

    /// `[words of all sentences, sentences]`: column `l` adds up the words of sentence `l`.
    fn sums(self, lengths: &[usize], device: &Device) -> Tensor<2> {
        let n_words: usize = lengths.iter().sum();
        let mut weights = vec![0.0f32; n_words * lengths.len()];
        let mut word = 0;
        for (sentence, &length) in lengths.iter().enumerate() {
            let weight = match self {
                Self::MaxOverRegions => 1.0,
                Self::MeanOfMax => 1.0 / length as f32,
            };
            for _ in 0..length {
                weights[word * lengths.len() + sentence] = weight;
                word += 1;
            }
        }
        Tensor::from_data(TensorData::new(weights, [n_words, lengths.len()]), &device.clone().without_autodiff())
    }
}

/// Rows that bring every photo to the same number of regions, and a column that takes the padding out of any maximum.
fn padding(counts: &RegionCounts, device: &Device) -> (Tensor<1, burn::tensor::Int>, Tensor<2>) {
    let most = counts.most();
    let (mut rows, mut mask) = (Vec::new(), Vec::new());
    let mut start = 0;
    for &count in &counts.0 {
        for r in 0..most {
            rows.push((start + r.min(count - 1)) as i64);
            mask.push(if r < count { 0.0f32 } else { f32::MIN / 2.0 });
        }
        start += count;
    }
    let n_rows = rows.len();
    let device = device.clone().without_autodiff();
    (
        Tensor::from_data(TensorData::new(rows, [n_rows]), &device),
        Tensor::from_data(TensorData::new(mask, [n_rows, 1]), &device),
    )
}
