//! METEOR's sufficient statistics and the score computed from them.

use super::parameters::Parameters;

/// The 23 counts of one segment, or the sum of many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MeteorCounts {
    /// Words of the hypothesis.
    pub hypothesis_words: u64,
    /// Words of the reference.
    pub reference_words: u64,
    /// Function words of the hypothesis.
    pub hypothesis_function_words: u64,
    /// Function words of the reference.
    pub reference_function_words: u64,
    /// For every module: matched content words of hypothesis and reference, matched function words of both.
    pub matches: [[u64; 4]; 4],
    /// Chunks.
    pub chunks: u64,
    /// Matched words of the hypothesis.
    pub hypothesis_matches: u64,
    /// Matched words of the reference.
    pub reference_matches: u64,
}

impl MeteorCounts {
    /// The counts in the order in which the reference prints them.
    pub fn to_array(&self) -> [u64; 23] {
        let mut all = [0; 23];
        all[..4].copy_from_slice(&[
            self.hypothesis_words,
            self.reference_words,
            self.hypothesis_function_words,
            self.reference_function_words,
        ]);
        for (module, counts) in self.matches.iter().enumerate() {
            all[4 + 4 * module..8 + 4 * module].copy_from_slice(counts);
        }
        all[20..].copy_from_slice(&[self.chunks, self.hypothesis_matches, self.reference_matches]);
        all
    }

    /// Whether one chunk covers every word of both sides.
    fn is_whole(&self) -> bool {
        self.chunks == 1
            && self.hypothesis_matches == self.hypothesis_words
            && self.reference_matches == self.reference_words
    }

    /// Adds another segment, or the sum of others that were added so. A segment covered by one chunk adds no chunk.
    pub fn add_segment(&mut self, segment: &Self) {
        let chunks = if segment.is_whole() { 0 } else { segment.chunks };
        self.merge(&Self { chunks, ..*segment });
    }

    /// Adds the sum of other segments.
    pub fn merge(&mut self, other: &Self) {
        self.hypothesis_words += other.hypothesis_words;
        self.reference_words += other.reference_words;
        self.hypothesis_function_words += other.hypothesis_function_words;
        self.reference_function_words += other.reference_function_words;
        for (mine, theirs) in self.matches.iter_mut().flatten().zip(other.matches.iter().flatten()) {
            *mine += theirs;
        }
        self.chunks += other.chunks;
        self.hypothesis_matches += other.hypothesis_matches;
        self.reference_matches += other.reference_matches;
    }

    /// The score of these counts, 0..1: a segment's or, from a sum, the corpus score.
    pub fn score(&self, parameters: &Parameters) -> f64 {
        let Parameters { alpha, beta, gamma, delta, weights } = *parameters;
        let weigh = |content: u64, function: u64| delta * content as f64 + (1.0 - delta) * function as f64;
        let hypothesis_total =
            weigh(self.hypothesis_words - self.hypothesis_function_words, self.hypothesis_function_words);
        let reference_total =
            weigh(self.reference_words - self.reference_function_words, self.reference_function_words);
        let (mut hypothesis_matched, mut reference_matched) = (0.0, 0.0);
        for (weight, [hypothesis_content, reference_content, hypothesis_function, reference_function]) in
            weights.iter().zip(self.matches)
        {
            let weight = weight.unwrap_or(0.0);
            hypothesis_matched += weight * weigh(hypothesis_content, hypothesis_function);
            reference_matched += weight * weigh(reference_content, reference_function);
        }
        let precision = hypothesis_matched / hypothesis_total;
        let recall = reference_matched / reference_total;
        let f = 1.0 / ((1.0 - alpha) / precision + alpha / recall);
        let fragmentation = if self.is_whole() {
            0.0
        } else {
            self.chunks as f64 / ((self.hypothesis_matches + self.reference_matches) as f64 / 2.0)
        };
        let score = f * (1.0 - gamma * fragmentation.powf(beta));
        // Also of no match at all, where the terms are not numbers.
        if score > 0.0 { score } else { 0.0 }
    }
}
