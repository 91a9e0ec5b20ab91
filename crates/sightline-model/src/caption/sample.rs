//! Sentences drawn at random.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::END;
use super::search::{Hypothesis, NextWords};

/// How sentences are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleSettings {
    /// Sentences a picture.
    pub samples: usize,
    /// A sentence has at most this many words; END follows the last one.
    pub max_words: usize,
    /// Log probabilities are divided by this; below 1 the likely words become likelier.
    pub temperature: f32,
    /// Only the likeliest words that together reach this probability are drawn, in `0..=1`.
    pub top_p: f32,
}

impl Default for SampleSettings {
    fn default() -> Self {
        Self { samples: 5, max_words: 20, temperature: 1.0, top_p: 1.0 }
    }
}

/// Draws sentences for every picture, each picture's from its own generator of `rngs`. START is never said and END only
/// after a word; log probabilities are the model's own, whatever the temperature.
pub fn sample(source: &mut impl NextWords, rngs: &mut [ChaCha8Rng], settings: SampleSettings) -> Vec<Vec<Hypothesis>> {
    let SampleSettings { samples, max_words, temperature, top_p } = settings;
    assert!(temperature > 0.0 && top_p > 0.0, "temperature {temperature} and top_p {top_p} are above 0");
    let mut sentences = vec![Hypothesis::empty(); rngs.len() * samples];
    // The sentences that go on, and their rows in the step before.
    let mut live: Vec<usize> = (0..sentences.len()).collect();
    let mut rows: Vec<usize> = live.iter().map(|s| s / samples).collect();
    while !live.is_empty() {
        let tokens: Vec<u32> = live.iter().map(|&s| sentences[s].words.last().copied().unwrap_or(END)).collect();
        let words = source.read(&rows, &tokens);
        rows.clear();
        let mut still_live = Vec::new();
        for (row, &s) in live.iter().enumerate() {
            let own = words.log_probabilities.all(row);
            let sentence = &mut sentences[s];
            let token = match sentence.words.len() {
                n if n >= max_words => END,
                n => draw(own, u32::from(n == 0), temperature, top_p, &mut rngs[s / samples]),
            };
            let log_probability = sentence.log_probability + f64::from(own[token as usize]);
            if token == END {
                sentence.log_probability = log_probability;
            } else {
                *sentence = sentence.and(token, words.regions.get(row).copied(), log_probability);
                still_live.push(s);
                rows.push(row);
            }
        }
        live = still_live;
    }
    sentences.chunks(samples).map(<[_]>::to_vec).collect()
}

/// A token from `first` on.
fn draw(log_probabilities: &[f32], first: u32, temperature: f32, top_p: f32, rng: &mut ChaCha8Rng) -> u32 {
    let uniform: f32 = rng.random();
    let first = first as usize;
    let allowed = &log_probabilities[first..];
    let most = allowed.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let likelihoods: Vec<f32> = allowed.iter().map(|x| ((x - most) / temperature).exp()).collect();
    let mut order: Vec<usize> = (0..likelihoods.len()).collect();
    let mut sum: f32 = likelihoods.iter().sum();
    if top_p < 1.0 {
        order.sort_by(|&a, &b| likelihoods[b].total_cmp(&likelihoods[a]).then(a.cmp(&b)));
        let mut nucleus = 0.0;
        let reached = |i: &usize| {
            nucleus += likelihoods[*i];
            nucleus >= top_p * sum
        };
        let n = order.iter().position(reached).map_or(order.len(), |last| last + 1);
        order.truncate(n);
        sum = order.iter().map(|&i| likelihoods[i]).sum();
    }
    let mut left = uniform * sum;
    for &i in &order {
        left -= likelihoods[i];
        if left < 0.0 {
            return (first + i) as u32;
        }
    }
    // Rounding left a crumb: the last token that can be drawn at all.
    let last = order.iter().rev().find(|&&i| likelihoods[i] > 0.0).or(order.first());
    (first + last.copied().unwrap_or(0)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caption::search::tests::Table;
    use crate::random;

    fn draws(raw: &[f32], settings: SampleSettings) -> Vec<Hypothesis> {
        let mut rngs = [random::stream(1, 0)];
        sample(&mut Table::new(4, raw), &mut rngs, settings).swap_remove(0)
    }

    const RAW: [f32; 16] = [0.5, 1.0, -1.0, 0.0, 1.0, 0.0, 2.0, -1.0, 0.3, 0.1, 0.2, 0.7, 2.0, 0.0, 0.0, 1.0];

    #[test]
    fn frequencies_are_the_probabilities() {
        let settings = SampleSettings { samples: 20_000, max_words: 3, ..SampleSettings::default() };
        let found = draws(&RAW, settings);
        assert_eq!(found, draws(&RAW, settings), "the same seed draws the same");
        let table = Table::new(4, &RAW);
        for h in &found {
            assert!((1..=3).contains(&h.words.len()));
            assert!((h.log_probability - table.log_probability(&h.words)).abs() < 1e-5);
        }
        // Among first words START is never said, so the others share its probability.
        let share = |words: &[u32]| found.iter().filter(|h| h.words == words).count() as f64 / 20_000.0;
        let ends = Table::new(4, &RAW).log_probability(&[1]).exp() / (1.0 - softmax(&RAW[..4])[0]);
        assert!((share(&[1]) - ends).abs() < 0.01, "{} {ends}", share(&[1]));
    }

    fn softmax(row: &[f32]) -> Vec<f64> {
        let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        row.iter().map(|&x| f64::from(x).exp() / sum).collect()
    }

    #[test]
    fn cold_and_narrow_draws_are_greedy() {
        let greedy = draws(&RAW, SampleSettings { samples: 20, temperature: 0.01, ..SampleSettings::default() });
        let narrow = draws(&RAW, SampleSettings { samples: 20, top_p: 1e-6, ..SampleSettings::default() });
        assert_eq!(greedy, narrow);
        assert!(greedy.iter().all(|h| h == &greedy[0]));
    }
}
