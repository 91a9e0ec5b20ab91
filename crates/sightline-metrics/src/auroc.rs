//! The area under the ROC curve: how often a positive scores above a negative, ties counting half.

/// AUROC of scores, 0..1; none when one of the classes is missing. A score that is not a number counts as the lowest.
///
/// Panics when there are not as many scores as labels.
pub fn auroc(scores: &[f64], is_positive: &[bool]) -> Option<f64> {
    assert_eq!(scores.len(), is_positive.len(), "one label for every score");
    let mut order: Vec<(f64, bool)> = scores
        .iter()
        .map(|&s| if s.is_nan() { f64::NEG_INFINITY } else { s })
        .zip(is_positive.iter().copied())
        .collect();
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    // Mann-Whitney: the ranks of the positives, equal scores sharing their mean rank.
    let (mut rank_sum, mut before, mut positives) = (0.0, 0_usize, 0_usize);
    for same in order.chunk_by(|a, b| a.0 == b.0) {
        let here = same.iter().filter(|s| s.1).count();
        let mean_rank = before as f64 + (same.len() + 1) as f64 / 2.0;
        rank_sum += mean_rank * here as f64;
        positives += here;
        before += same.len();
    }
    let negatives = order.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let (positives, negatives) = (positives as f64, negatives as f64);
    Some((rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let check =
            |scores: &[f64], labels: &[bool], expected| assert_eq!(auroc(scores, labels), expected, "{scores:?}");
        check(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true], Some(0.75));
        check(&[1.0, 1.0], &[false, true], Some(0.5));
        check(&[0.0, 1.0], &[false, true], Some(1.0));
        check(&[f64::NAN, 0.0], &[true, false], Some(0.0));
        check(&[0.0, -0.0], &[true, false], Some(0.5));
        check(&[0.3], &[true], None);
    }

    #[test]
    fn equals_counting_all_pairs() {
        let mut state = 7_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 60) as f64
        };
        let scores: Vec<f64> = (0..200).map(|_| next()).collect();
        let labels: Vec<bool> = (0..200).map(|_| next() > 9.0).collect();
        let (mut wins, mut pairs) = (0.0, 0.0);
        for i in (0..200).filter(|&i| labels[i]) {
            for j in (0..200).filter(|&j| !labels[j]) {
                pairs += 1.0;
                wins += if scores[i] > scores[j] {
                    1.0
                } else if scores[i] == scores[j] {
                    0.5
                } else {
                    0.0
                };
            }
        }
        assert!((auroc(&scores, &labels).unwrap() - wins / pairs).abs() < 1e-12);
    }
}
