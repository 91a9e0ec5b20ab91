//! ROUGE-L (Lin 2004) as coco-caption computes it, beta 1.2.
//!
//! Precision and recall take their best reference each for itself. Tokens are split at single blanks, so an empty text
//! is one empty token: empty against empty scores 1.

const BETA: f64 = 1.2;

/// A sum of ROUGE-L scores; the corpus score is their mean.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RougeSum {
    /// Sum of the scores.
    pub sum: f64,
    /// Images scored.
    pub images: u64,
}

impl RougeSum {
    /// Adds one image's score.
    pub fn push(&mut self, score: f64) {
        self.sum += score;
        self.images += 1;
    }

    /// Adds the images of another part.
    pub fn merge(&mut self, other: &Self) {
        self.sum += other.sum;
        self.images += other.images;
    }

    /// The mean; 0 of nothing.
    pub fn score(&self) -> f64 {
        if self.images == 0 { 0.0 } else { self.sum / self.images as f64 }
    }
}

/// ROUGE-L of a tokenised hypothesis against its tokenised references, 0..1; 0 without references.
pub fn rouge_l(hypothesis: &str, references: &[impl AsRef<str>]) -> f64 {
    let hypothesis: Vec<&str> = hypothesis.split(' ').collect();
    let (mut precision, mut recall) = (0.0_f64, 0.0_f64);
    let mut row = Vec::new();
    for reference in references {
        let reference: Vec<&str> = reference.as_ref().split(' ').collect();
        let common = f64::from(longest_common_subsequence(&hypothesis, &reference, &mut row));
        precision = precision.max(common / hypothesis.len() as f64);
        recall = recall.max(common / reference.len() as f64);
    }
    if precision == 0.0 || recall == 0.0 {
        return 0.0;
    }
    (1.0 + BETA * BETA) * precision * recall / (recall + BETA * BETA * precision)
}

fn longest_common_subsequence(a: &[&str], b: &[&str], row: &mut Vec<u32>) -> u32 {
    row.clear();
    row.resize(b.len() + 1, 0);
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(rouge_l("", &[""]), 1.0, "empty against empty");
        assert_eq!(rouge_l("a dog", &["a dog"]), 1.0);
        assert_eq!(rouge_l("a", &["b"]), 0.0);
        // LCS 3 of 4: P = R = 0.75 (Lin 2004, section 3: police killed the gunman / police kill the gunman).
        assert!((rouge_l("police kill the gunman", &["police killed the gunman"]) - 0.75).abs() < 1e-12);
        assert!((rouge_l("the gunman kill police", &["police killed the gunman"]) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn precision_and_recall_take_their_own_best_reference() {
        // P = 2/2 from the second, R = 1/1 from the first reference.
        assert_eq!(rouge_l("a b", &["a", "a b c d"]), 1.0);
    }
}
