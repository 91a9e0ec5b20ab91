//! From products of word and region vectors to one score a photo and sentence.

use burn::tensor::activation::{relu, softmax};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::attention::{Padding, indices};
use crate::kernel;

/// How the products of one photo's regions and one sentence's words become their score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// Equation 8: each word goes to its best region, the products are summed.
    MaxOverRegions,
    /// The same, divided by the number of words, so that long sentences have no head start.
    MeanOfMax,
    /// Equation 7 (the fragment embeddings of Karpathy et al. 2014): every positive product counts.
    SumOfPositive,
    /// The same, divided by the number of words and ten more, as the fragment embeddings' code does.
    SmoothedSumOfPositive,
    /// Each word against the mixture of regions that it attends to: the mean over words of the product of the word and
    /// `Σ softmax(λ ⟨v, s⟩) v` brought to length one (Lee et al. 2018, text to image), their cosine with unit vectors.
    SoftAttention,
    /// Each region against the mixture of words that it attends to: the mean over regions of the product of the region and
    /// `Σ softmax(λ ⟨v, s⟩) s` brought to length one (Lee et al. 2018, image to text). Its authors add both directions as an
    /// ensemble of two trained models.
    SoftAttentionOverWords,
}

/// What [`Score::SmoothedSumOfPositive`] adds to the number of words.
const SMOOTHING: f32 = 10.0;

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

    /// Regions of each photo.
    pub fn counts(&self) -> &[usize] {
        &self.0
    }

    /// The first row of each photo: the whole photo.
    pub(super) fn first_rows(&self) -> Vec<i64> {
        let starts = self.0.iter().scan(0, |next, &count| {
            *next += count;
            Some((*next - count) as i64)
        });
        starts.collect()
    }

    /// The photo of each row.
    pub(super) fn owners(&self) -> Vec<i64> {
        self.0.iter().enumerate().flat_map(|(image, &count)| std::iter::repeat_n(image as i64, count)).collect()
    }

    /// Mean vector of each photo: `[regions of all photos, dim] -> [images, dim]`.
    pub(super) fn means(&self, x: Tensor<2>) -> Tensor<2> {
        means(x, &self.0)
    }
}

/// Mean of each run of rows: `[rows, dim] -> [runs, dim]`; zero for an empty run.
pub(super) fn means(x: Tensor<2>, counts: &[usize]) -> Tensor<2> {
    let device = x.device();
    sums(counts, &counts.iter().map(|&n| 1.0 / n.max(1) as f32).collect::<Vec<_>>(), &device).transpose().matmul(x)
}

/// `[rows, runs]`: column `l` adds up the rows of run `l`, times its factor.
fn sums(counts: &[usize], factors: &[f32], device: &Device) -> Tensor<2> {
    let rows: usize = counts.iter().sum();
    let mut weights = vec![0.0f32; rows * counts.len()];
    let mut row = 0;
    for (run, (&count, &factor)) in counts.iter().zip(factors).enumerate() {
        for _ in 0..count {
            weights[row * counts.len() + run] = factor;
            row += 1;
        }
    }
    Tensor::from_data(TensorData::new(weights, [rows, counts.len()]), &device.clone().without_autodiff())
}

impl Score {
    /// Whether words attend to regions or regions to words, so that a `λ` says how sharply.
    pub fn attends(self) -> bool {
        matches!(self, Self::SoftAttention | Self::SoftAttentionOverWords)
    }

    /// `λ` as the score's authors have it: 9 from words to regions, 4 from regions to words.
    fn usual_sharpness(self) -> f32 {
        if self == Self::SoftAttentionOverWords { 4.0 } else { 9.0 }
    }
}

/// A score, and how sharply its attention looks, where it has any.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scoring {
    /// How products become one number.
    pub score: Score,
    /// `λ`, one by the temperature of the softmax; none is its authors'.
    pub sharpness: Option<f32>,
}

impl Scoring {
    fn sharpness(&self) -> f32 {
        self.sharpness.unwrap_or_else(|| self.score.usual_sharpness())
    }

    /// Scores of every photo with every sentence: `[images, sentences]`.
    ///
    /// `regions` is `[regions of all photos, dim]`, `words` is `[words of all sentences, dim]`.
    pub fn scores(self, regions: Tensor<2>, counts: &RegionCounts, words: Tensor<2>, lengths: &[usize]) -> Tensor<2> {
        let [n_regions, _] = regions.dims();
        let [n_words, _] = words.dims();
        assert_eq!(n_regions, counts.0.iter().sum::<usize>(), "regions of all photos");
        assert_eq!(n_words, lengths.iter().sum::<usize>(), "words of all sentences");
        let by_best = matches!(self.score, Score::MaxOverRegions | Score::MeanOfMax);
        if by_best && kernel::available(&words.device()) {
            kernel::scores(regions, counts.counts(), words, lengths, self.factors(lengths))
        } else {
            self.scores_by_tensors(regions, counts, words, lengths)
        }
    }

    /// What a sentence's sum over words is multiplied by.
    pub(super) fn factors(self, lengths: &[usize]) -> Vec<f32> {
        let factor = |&length: &usize| match self.score {
            Score::MaxOverRegions | Score::SumOfPositive => 1.0,
            Score::SmoothedSumOfPositive => 1.0 / (length as f32 + SMOOTHING),
            Score::MeanOfMax | Score::SoftAttention | Score::SoftAttentionOverWords => 1.0 / length.max(1) as f32,
        };
        lengths.iter().map(factor).collect()
    }

    /// As [`Scoring::scores`], in tensor operations alone.
    pub(super) fn scores_by_tensors(
        self,
        regions: Tensor<2>,
        counts: &RegionCounts,
        words: Tensor<2>,
        lengths: &[usize],
    ) -> Tensor<2> {
        let device = words.device();
        let [n_words, dim] = words.dims();
        let images = counts.images();
        let sets = Padding::new(counts.counts());
        let most = sets.most;
        let padded = || sets.pad(regions.clone(), &device); // [images * most, dim]
        let products = |v: Tensor<2>| v.matmul(words.clone().transpose()).reshape([images, most, n_words]);
        let mask = sets.mask(&device).map(|mask| mask.reshape([images, most, 1]));
        let masked = |products: Tensor<3>| match &mask {
            Some(mask) => products + mask.clone(),
            None => products,
        };
        let of_words = match self.score {
            Score::MaxOverRegions | Score::MeanOfMax => masked(products(padded())).max_dim(1),
            Score::SumOfPositive | Score::SmoothedSumOfPositive => relu(masked(products(padded()))).sum_dim(1),
            Score::SoftAttention => {
                let v = padded();
                let products = products(v.clone());
                let v = v.reshape([images, most, dim]);
                let attention = softmax(masked(products.clone() * self.sharpness()), 1); // [images, most, words]
                let along = (attention.clone() * products).sum_dim(1); // ⟨s, Σ a v⟩
                let gram = v.clone().matmul(v.swap_dims(1, 2)); // [images, most, most]
                let square = (attention.clone() * gram.matmul(attention)).sum_dim(1); // |Σ a v|²
                along / (square + 1e-8).sqrt()
            }
            Score::SoftAttentionOverWords => {
                return soft_attention_over_words(self.sharpness(), regions, counts, words, lengths);
            }
        };
        let of_words = of_words.reshape([images, n_words]);
        of_words.matmul(sums(lengths, &self.factors(lengths), &device))
    }
}

/// [`Score::SoftAttentionOverWords`]: sentences are brought to the longest, regions stay as they lie.
fn soft_attention_over_words(
    sharpness: f32,
    regions: Tensor<2>,
    counts: &RegionCounts,
    words: Tensor<2>,
    lengths: &[usize],
) -> Tensor<2> {
    let device = words.device();
    let ([n_regions, _], [_, dim]) = (regions.dims(), words.dims());
    let sets = Padding::new(lengths);
    let (sentences, most) = (lengths.len(), sets.most);
    let s = sets.pad(words, &device).reshape([sentences, most, dim]);
    let products = s.clone().reshape([sentences * most, dim]).matmul(regions.transpose());
    let products = products.reshape([sentences, most, n_regions]);
    let mut logits = products.clone() * sharpness;
    if let Some(mask) = sets.mask(&device) {
        logits = logits + mask.reshape([sentences, most, 1]);
    }
    let attention = softmax(logits, 1); // [sentences, most, regions]
    let along = (attention.clone() * products).sum_dim(1); // ⟨v, Σ a s⟩
    let gram = s.clone().matmul(s.swap_dims(1, 2)); // [sentences, most, most]
    let square = (attention.clone() * gram.matmul(attention)).sum_dim(1); // |Σ a s|²
    let cosines = (along / (square + 1e-8).sqrt()).reshape([sentences, n_regions]);
    // A sentence without words has nothing to attend to.
    let said: Vec<f32> = lengths.iter().map(|&length| f32::from(length > 0)).collect();
    let said = Tensor::<1>::from_floats(said.as_slice(), &device.without_autodiff());
    counts.means(cosines.transpose()) * said.unsqueeze::<2>() // [images, sentences]
}

/// Rows `owners[k]` of a tensor.
pub(super) fn rows(x: Tensor<2>, owners: &[usize]) -> Tensor<2> {
    let device = x.device();
    x.select(0, indices(owners.iter().map(|&owner| owner as i64).collect(), &device))
}
