//! Choosing among the sentences that a caption model proposes.

use sightline_data::Vocabulary;
use sightline_search::VectorSets;

use super::Caption;
use crate::aligner::Aligner;

/// An alignment model that has a say in which sentence is best: a caption model knows what is likely to be said, an
/// alignment model what is to be seen.
#[derive(Debug, Clone, Copy)]
pub struct Fit<'a> {
    /// Whose scores count.
    pub aligner: &'a Aligner,
    /// What a score of 1 is worth, in natural logarithms a token.
    pub weight: f32,
}

/// A weight that was good for captions by likelihood and by reward (docs/log.md).
pub const USUAL_WEIGHT: f32 = 3.0;

impl Fit<'_> {
    /// Best first, by log probability a token, END's included, plus the weight times the score with the picture; as they
    /// were among equals. `regions` are the aligner's vectors of the picture, `[regions, dim]`: all of a photo's, or the
    /// one that is described.
    pub fn order(&self, regions: &[f32], captions: &mut [Caption]) {
        let words: Vec<Vec<u32>> = captions.iter().map(|c| known_words(&self.aligner.vocabulary, &c.text)).collect();
        let mut picture = VectorSets::new(self.aligner.dim());
        picture.push(regions);
        // Of no known word in any sentence there are no vectors, and no say.
        let scores = match words.iter().all(Vec::is_empty) {
            true => vec![0.0; captions.len()],
            false => self.aligner.scores(&picture, &self.aligner.words(&words)),
        };
        sort_by_worth(captions, &scores, self.weight);
    }
}

/// Those words of a caption that a vocabulary knows.
pub(crate) fn known_words(vocabulary: &Vocabulary, text: &str) -> Vec<u32> {
    text.split(' ').filter_map(|word| vocabulary.get(word)).collect()
}

fn sort_by_worth(captions: &mut [Caption], scores: &[f32], weight: f32) {
    let worth = |caption: &Caption, score: f32| caption.log_probability_a_token() + f64::from(weight * score);
    let mut order: Vec<(f64, Caption)> =
        captions.iter().zip(scores).map(|(caption, &score)| (worth(caption, score), caption.clone())).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    captions.iter_mut().zip(order).for_each(|(place, (_, caption))| *place = caption);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_may_be_less_likely() {
        let caption =
            |text: &str, log_probability| Caption { text: text.to_owned(), log_probability, word_regions: Vec::new() };
        // A token: -1, -1.2 and -0.5.
        let mut captions = [caption("a cat runs", -4.0), caption("a dog runs fast", -6.0), caption("a dog", -1.5)];
        let mut texts = |scores: &[f32], weight| -> Vec<String> {
            sort_by_worth(&mut captions, scores, weight);
            captions.iter().map(|c| c.text.clone()).collect()
        };
        assert_eq!(texts(&[0.9, 0.9, 0.9], 0.0), ["a dog", "a cat runs", "a dog runs fast"]);
        // 0.2 more score is 0.6 more worth; 0.3 is 0.9 more.
        assert_eq!(texts(&[0.1, 0.0, 0.4], 3.0), ["a dog runs fast", "a dog", "a cat runs"]);
    }
}
