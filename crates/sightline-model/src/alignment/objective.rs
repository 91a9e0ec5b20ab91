//! What the alignment model minimises over a batch, given all scores of the batch.

use burn::tensor::activation::{log_softmax, relu, softmax};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::score::rows;

/// The loss over the scores of a batch's photos and sentences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Equation 9: margin ranking in both directions, summed over all negatives of the batch.
    SumHinge,
    /// The same with the hardest negative of the batch alone (VSE++, Faghri et al. 2018); the first pass over the data
    /// takes the sum.
    HardestNegative,
    /// Softmax cross entropy in both directions, averaged over pairs; the factor on scores is learned.
    Contrastive,
    /// Fragment embeddings (Karpathy et al. 2014): half the sum hinge, and beside it every region and word is to agree
    /// (product above 1) or disagree (below -1); which pairs inside a photo agree, the products themselves say.
    Fragments,
    /// The contrastive objective, and beside it every training photo is a class that its regions' and its sentences' mean
    /// vectors are told apart by, with one classifier for both (Dual-Path, Zheng et al. 2017).
    Instance,
}

/// Weight of the ranking part of [`Objective::Fragments`], as in its authors' code.
const GLOBAL_SCALE: f32 = 0.5;

/// The local part of [`Objective::Fragments`]: `Σ κ max(0, 1 - y ⟨v, s⟩)` over all regions and words.
///
/// `y` is -1 for a region and a word of different photos; inside a photo it is the sign of their product, and a word
/// without any positive region has its best one flipped to +1 (multiple-instance learning: mi-SVM). `κ` shares each
/// word's weight among its positive regions, and once more among its negative ones; regions of photos that its sentence
/// describes as well are neither. `products` is `[regions of all photos, words of all sentences]`, `sentence_of_word`
/// says which word is whose.
pub(super) fn fragment_alignment(
    products: Tensor<2>,
    counts: &[usize],
    pairing: &Pairing,
    sentence_of_word: &[i64],
) -> Tensor<1> {
    let [n_regions, n_words] = products.dims();
    let values = products.clone().detach().into_data().try_into_vec::<f32>().expect("products are f32");
    let mut starts = vec![0];
    starts.extend(counts.iter().scan(0, |end, &count| {
        *end += count;
        Some(*end)
    }));
    let (mut signs, mut shares) = (vec![-1.0f32; values.len()], vec![0.0f32; values.len()]);
    for (word, &sentence) in sentence_of_word.iter().enumerate() {
        let of_image = |image: usize| starts[image]..starts[image + 1];
        let own = of_image(pairing.image_of_sentence[sentence as usize]);
        let product = |region: usize| values[region * n_words + word];
        let mut positive: Vec<usize> = own.clone().filter(|&region| product(region) > 0.0).collect();
        if positive.is_empty() {
            // The first among equals.
            positive.extend(own.reduce(|best, region| if product(region) > product(best) { region } else { best }));
        }
        let others = pairing.others.iter().filter(|[_, other]| *other == sentence as usize);
        let neither: Vec<usize> = others.flat_map(|&[image, _]| of_image(image)).collect();
        let negative = n_regions - positive.len() - neither.len();
        for region in (0..n_regions).filter(|region| !neither.contains(region)) {
            shares[region * n_words + word] = 1.0 / negative.max(1) as f32;
        }
        for &region in &positive {
            signs[region * n_words + word] = 1.0;
            shares[region * n_words + word] = 1.0 / positive.len() as f32;
        }
    }
    let device = products.device().without_autodiff();
    let constant = |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, [n_regions, n_words]), &device);
    (relu((products * constant(signs)).neg() + 1.0) * constant(shares)).sum()
}

/// Which sentence of a batch belongs to which photo.
#[derive(Debug, Clone)]
pub struct Pairing {
    images: usize,
    /// Index of its photo, a sentence.
    image_of_sentence: Vec<usize>,
    /// Pairs that are true besides, `[image, sentence]`.
    others: Vec<[usize; 2]>,
}

impl Pairing {
    /// From the photo of each sentence; every photo has at least one.
    pub fn new(images: usize, image_of_sentence: Vec<usize>) -> Self {
        assert!(image_of_sentence.iter().all(|&image| image < images), "photos of the batch");
        Self { images, image_of_sentence, others: Vec::new() }
    }

    /// With pairs `[image, sentence]` that are true besides, each once: they are never negatives.
    pub fn with_others(mut self, others: Vec<[usize; 2]>) -> Self {
        let is_other = |&[image, sentence]: &[usize; 2]| {
            image < self.images && self.image_of_sentence.get(sentence).is_some_and(|&own| own != image)
        };
        assert!(others.iter().all(is_other), "photos and sentences of the batch");
        self.others = others;
        self
    }

    /// Sentence `k` belongs to photo `k`.
    pub fn diagonal(n: usize) -> Self {
        Self::new(n, (0..n).collect())
    }

    /// `[images, sentences]`: 1 where they belong together, else 0.
    fn mask(&self) -> Vec<f32> {
        let sentences = self.image_of_sentence.len();
        let mut mask = vec![0.0; self.images * sentences];
        for (sentence, &image) in self.image_of_sentence.iter().enumerate() {
            mask[image * sentences + sentence] = 1.0;
        }
        mask
    }

    /// `[images, sentences]`: 1 where they do not belong together, else 0.
    fn negatives(&self) -> Vec<f32> {
        let sentences = self.image_of_sentence.len();
        let mut negatives: Vec<f32> = self.mask().into_iter().map(|own| 1.0 - own).collect();
        self.others.iter().for_each(|[image, sentence]| negatives[image * sentences + sentence] = 0.0);
        negatives
    }

    /// Photos, by sentence.
    pub(super) fn image_of_sentence(&self) -> &[usize] {
        &self.image_of_sentence
    }
}

/// What teachers say of a batch: targets beside the truth that some pairs belong together and all others do not
/// (distillation, Hinton et al. 2015), of which a sentence that suits several photos says less than is known.
#[derive(Debug, Clone)]
pub struct Teaching {
    /// `[images, sentences]`, row-major; their softmaxes over photos and over sentences are the targets.
    pub logits: Vec<f32>,
    /// Weight of these targets, in `0..=1`; the truth has the rest.
    pub share: f32,
}

/// Taken off the logits of pairs that are no negatives; their probability is 0 then.
const NEVER: f32 = 1e4;

/// Logits without those at `[row, column]`.
pub(super) fn without(logits: Tensor<2>, places: &[[usize; 2]]) -> Tensor<2> {
    if places.is_empty() {
        return logits;
    }
    let [rows, columns] = logits.dims();
    let mut mask = vec![0.0; rows * columns];
    places.iter().for_each(|[row, column]| mask[row * columns + column] = NEVER);
    let mask = Tensor::<2>::from_data(TensorData::new(mask, [rows, columns]), &logits.device().without_autodiff());
    logits - mask
}

impl Objective {
    /// Whether it is a cross entropy, whose targets can be [`Teaching`].
    pub fn takes_teaching(self) -> bool {
        matches!(self, Self::Contrastive | Self::Instance)
    }

    /// `scores` is `[images, sentences]`; returns one number. `margin` is the hinge's, `log_logit_scale` the contrastive
    /// objective's, as is the teaching. The classifier's part of [`Objective::Instance`] and the local part of
    /// [`Objective::Fragments`] are not in it.
    pub fn loss(
        self,
        scores: Tensor<2>,
        pairing: &Pairing,
        teaching: Option<&Teaching>,
        margin: f32,
        log_logit_scale: Tensor<1>,
    ) -> Tensor<1> {
        let [images, sentences] = scores.dims();
        assert_eq!((images, sentences), (pairing.images, pairing.image_of_sentence.len()), "scores of the batch");
        let device = scores.device().without_autodiff();
        let constant = |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, [images, sentences]), &device);
        let mask = constant(pairing.mask());
        match self {
            Self::SumHinge | Self::HardestNegative | Self::Fragments => {
                // Rows are true pairs from here on: a sentence with its own photo.
                let own = (scores.clone() * mask).sum_dim(0); // [1, pairs]
                let negatives = constant(pairing.negatives());
                let of_images = relu(scores.clone() - own.clone() + margin) * negatives.clone();
                let strangers = rows(negatives, &pairing.image_of_sentence); // [pairs, sentences]
                let of_sentences = rows(scores, &pairing.image_of_sentence) - own.transpose() + margin;
                let of_sentences = relu(of_sentences) * strangers;
                // The terms of true pairs are the constant margin and carry no gradient: they are left out.
                match self {
                    Self::HardestNegative => of_images.max_dim(0).sum() + of_sentences.max_dim(1).sum(),
                    Self::Fragments => (of_images.sum() + of_sentences.sum()) * GLOBAL_SCALE,
                    _ => of_images.sum() + of_sentences.sum(),
                }
            }
            Self::Contrastive | Self::Instance => {
                let logits = without(scores * log_logit_scale.exp().reshape([1, 1]), &pairing.others);
                // A photo's own sentences share what it has to give.
                let shares = mask.clone() / mask.clone().sum_dim(1).clamp_min(1.0);
                let mut targets = [mask, shares];
                if let Some(Teaching { logits, share }) = teaching {
                    let logits = without(constant(logits.clone()), &pairing.others);
                    for (dim, target) in targets.iter_mut().enumerate() {
                        *target = target.clone() * (1.0 - share) + softmax(logits.clone(), dim) * *share;
                    }
                }
                let [of_photo, of_sentence] = targets;
                let of_images = (log_softmax(logits.clone(), 0) * of_photo).sum() / sentences as f32;
                let of_sentences = (log_softmax(logits, 1) * of_sentence).sum() / images as f32;
                (of_images + of_sentences).neg() / 2.0
            }
        }
    }
}
