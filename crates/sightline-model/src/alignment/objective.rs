//! What the alignment model minimises over a batch of pairs, given all scores of the batch.

use burn::tensor::Tensor;
use burn::tensor::activation::{log_softmax, relu};
use serde::{Deserialize, Serialize};

/// The loss over a square matrix of scores whose diagonal holds the true pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Equation 9: margin ranking in both directions, summed over all negatives of the batch.
    SumHinge,
    /// Softmax cross entropy in both directions, averaged over pairs; the factor on scores is learned.
    Contrastive,
}

impl Objective {
    /// `scores` is `[pairs, pairs]`, rows photos, columns sentences; returns one number.
    pub fn loss(self, scores: Tensor<2>, margin: f32, log_logit_scale: Tensor<1>) -> Tensor<1> {
        let [images, sentences] = scores.dims();
        assert_eq!(images, sentences, "pairs lie on the diagonal");
        let device = scores.device();
        let eye = Tensor::<2>::eye(images, &device);
        match self {
            Self::SumHinge => {
                let own = (scores.clone() * eye.clone()).sum_dim(1); // [pairs, 1], S_kk
                let rank_sentences = relu(scores.clone() - own.clone() + margin);
                let rank_images = relu(scores - own.transpose() + margin);
                // The terms l = k are the constant margin and carry no gradient: they are left out.
                ((rank_sentences + rank_images) * (eye.neg() + 1.0)).sum()
            }
            Self::Contrastive => {
                let logits = scores * log_logit_scale.exp().reshape([1, 1]);
                let of_sentences = log_softmax(logits.clone(), 1);
                let of_images = log_softmax(logits, 0);
                ((of_sentences + of_images) * eye).sum().neg() / (2.0 * images as f32)
            }
        }
    }
}
