//! How good a generated sentence is: its CIDEr-D against what people said of the picture.

use sightline_data::Vocabulary;
use sightline_metrics::cider::{Cider, CiderSum, DocumentFrequencies};

use super::items::Item;

/// Document frequencies of a split's references.
#[derive(Debug)]
pub(super) struct References {
    frequencies: DocumentFrequencies,
}

impl References {
    pub(super) fn new(items: &[Item]) -> Self {
        let references: Vec<&[String]> = items.iter().map(|item| item.references.as_slice()).collect();
        Self { frequencies: DocumentFrequencies::of(&references) }
    }

    /// CIDEr-D of a sentence about an item, 0..10.
    pub(super) fn reward(&self, item: &Item, words: &[u32], vocabulary: &Vocabulary) -> f64 {
        Cider::new(&self.frequencies).score(&vocabulary.decode(words), &item.references).cider_d
    }

    /// Mean CIDEr-D of one sentence an item.
    pub(super) fn mean<'a>(
        &self,
        items: &[Item],
        sentences: impl Iterator<Item = &'a [u32]>,
        vocabulary: &Vocabulary,
    ) -> f64 {
        let mut sum = CiderSum::default();
        let cider = Cider::new(&self.frequencies);
        for (item, words) in items.iter().zip(sentences) {
            sum.push(cider.score(&vocabulary.decode(words), &item.references));
        }
        sum.score().cider_d
    }
}

/// How much more each sample is worth than its baseline.
pub(super) fn advantages(rewards: &[f64], greedy: Option<f64>) -> Vec<f64> {
    let sum: f64 = rewards.iter().sum();
    let others = |own: f64| (sum - own) / (rewards.len() - 1) as f64;
    rewards.iter().map(|&own| own - greedy.unwrap_or_else(|| others(own))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advantages_are_over_the_baseline() {
        assert_eq!(advantages(&[1.0, 2.0, 6.0], None), [-3.0, -1.5, 4.5]);
        assert_eq!(advantages(&[1.0, 2.0, 6.0], Some(2.0)), [-1.0, 0.0, 4.0]);
        assert_eq!(advantages(&[1.0], Some(0.5)), [0.5]);
    }
}
