//! From the best products of a sentence's words to its score.

/// How the best products of a sentence's words become one score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// Their sum (equation 8).
    Sum,
    /// Their mean, so that long sentences have no head start.
    Mean,
}

impl Reduction {
    /// Of the sum of so many best products.
    pub(crate) fn of(self, sum: f32, words: usize) -> f32 {
        match self {
            Reduction::Sum => sum,
            Reduction::Mean => sum / words.max(1) as f32,
        }
    }
}
