//! Retrieval in both directions: Recall@K, median and mean rank, rsum.
//!
//! Which image a sentence belongs to is given as data, and which others it describes as well. Ranks count from 0. Among equal scores the larger index ranks
//! first (a stable ascending sort, reversed: the reproducible reading of the formulas of VSE++ and SCAN); because that
//! choice can flatter a model that gives equal scores, every summary carries the pessimistic ranks too, in which every
//! wrong candidate of equal score ranks before the right one. A score that is not a number ranks as minus infinity.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Which answers are right, by index in the matrix of scores.
#[derive(Debug, Clone, Copy)]
pub struct Truth<'a> {
    /// The image that each sentence belongs to.
    pub image_of_sentence: &'a [usize],
    /// Pairs that are right besides, `[image, sentence]`.
    pub others: &'a [[usize; 2]],
}

impl<'a, T: AsRef<[usize]> + ?Sized> From<&'a T> for Truth<'a> {
    /// Every sentence belongs to one image.
    fn from(image_of_sentence: &'a T) -> Self {
        Self { image_of_sentence: image_of_sentence.as_ref(), others: &[] }
    }
}

/// The rank, from 0, at which a query finds its first right answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Among equal scores the larger index ranks first.
    pub stable: usize,
    /// Among equal scores all wrong answers rank first.
    pub pessimistic: usize,
}

/// The ranks of all queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranks {
    /// For every image the rank of its best-ranked right sentence; none where an image has no sentence.
    pub image_to_sentence: Vec<Option<Rank>>,
    /// For every sentence the rank of its best-ranked right image.
    pub sentence_to_image: Vec<Rank>,
}

/// Recalls in percent and ranks from 1, of one way of breaking ties.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct RankSummary {
    /// Percentage of queries whose first right answer is among the first 1.
    pub r1: f64,
    /// Among the first 5.
    pub r5: f64,
    /// Among the first 10.
    pub r10: f64,
    /// Median rank from 1, halves rounded down.
    pub median_rank: f64,
    /// Mean rank from 1.
    pub mean_rank: f64,
}

/// One direction of a [`RetrievalReport`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct DirectionReport {
    /// Recall@1 in percent.
    pub r1: f64,
    /// Recall@5 in percent.
    pub r5: f64,
    /// Recall@10 in percent.
    pub r10: f64,
    /// Median rank from 1, halves rounded down.
    pub median_rank: f64,
    /// Mean rank from 1.
    pub mean_rank: f64,
    /// The same with every tie counted against the system.
    pub pessimistic: RankSummary,
}

/// A retrieval evaluation, serialised as the project's record of it: recalls in percent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct RetrievalReport {
    /// Images ranked.
    pub images: usize,
    /// Sentences ranked.
    pub sentences: usize,
    /// The query is an image, the answers are its sentences.
    pub image_to_sentence: DirectionReport,
    /// The query is a sentence, the answer is its image.
    pub sentence_to_image: DirectionReport,
    /// The sum of the six recalls, at most 600.
    pub rsum: f64,
}

/// Collects ranks, also in parts: parts [`merge`](Self::merge), and the summary is computed once at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RankCounts {
    /// How many queries had this stable rank, index by rank.
    stable: Vec<u64>,
    /// How many queries had this pessimistic rank.
    pessimistic: Vec<u64>,
}

impl RankCounts {
    /// Counts one query.
    pub fn push(&mut self, rank: Rank) {
        let add = |counts: &mut Vec<u64>, rank: usize| {
            if counts.len() <= rank {
                counts.resize(rank + 1, 0);
            }
            counts[rank] += 1;
        };
        add(&mut self.stable, rank.stable);
        add(&mut self.pessimistic, rank.pessimistic);
    }

    /// Adds the queries of another part.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [(&mut self.stable, &other.stable), (&mut self.pessimistic, &other.pessimistic)] {
            mine.resize(mine.len().max(theirs.len()), 0);
            for (m, t) in mine.iter_mut().zip(theirs) {
                *m += t;
            }
        }
    }

    /// Recalls and ranks of everything counted; all zero when nothing was.
    pub fn report(&self) -> DirectionReport {
        let RankSummary { r1, r5, r10, median_rank, mean_rank } = summary(&self.stable);
        DirectionReport { r1, r5, r10, median_rank, mean_rank, pessimistic: summary(&self.pessimistic) }
    }
}

impl FromIterator<Rank> for RankCounts {
    fn from_iter<I: IntoIterator<Item = Rank>>(ranks: I) -> Self {
        let mut counts = Self::default();
        ranks.into_iter().for_each(|r| counts.push(r));
        counts
    }
}

/// `counts[rank]` queries had this rank.
fn summary(counts: &[u64]) -> RankSummary {
    let queries: u64 = counts.iter().sum();
    if queries == 0 {
        return RankSummary::default();
    }
    let recall = |k: usize| 100.0 * counts.iter().take(k).sum::<u64>() as f64 / queries as f64;
    // The rank of the query at this place of the sorted list.
    let at = |place: u64| {
        let mut passed = 0;
        counts.iter().position(|&c| {
            passed += c;
            passed > place
        })
    };
    let (low, high) = (at((queries - 1) / 2).unwrap_or(0), at(queries / 2).unwrap_or(0));
    let total: f64 = counts.iter().enumerate().map(|(rank, &c)| rank as f64 * c as f64).sum();
    RankSummary {
        r1: recall(1),
        r5: recall(5),
        r10: recall(10),
        median_rank: (low + high).div_euclid(2) as f64 + 1.0,
        mean_rank: total / queries as f64 + 1.0,
    }
}

fn ordered(score: f32) -> f32 {
    if score.is_nan() { f32::NEG_INFINITY } else { score }
}

/// The rank of the right answer that ranks first among the scores of a query; none where no answer is right.
fn rank_of(scores: impl Iterator<Item = f32> + Clone, right: &[usize]) -> Option<Rank> {
    let of_right = scores.clone().enumerate().filter(|(i, _)| right.contains(i)).map(|(i, s)| (ordered(s), i));
    // The highest score, then the larger index.
    let (score, best) = of_right.max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))?;
    let mut rank = Rank { stable: 0, pessimistic: 0 };
    for (i, other) in scores.map(ordered).enumerate() {
        let (greater, equal) = (other > score, other == score);
        rank.stable += usize::from(greater || (equal && i > best));
        rank.pessimistic += usize::from(greater || (equal && !right.contains(&i)));
    }
    Some(rank)
}

/// Ranks of every query in both directions. `scores` is [images, sentences], row by row; larger is better.
///
/// `truth` says which pairs are right; the image of every sentence is enough where there are no others. Any pairing is
/// allowed; an image without a sentence is no query but still a candidate.
///
/// Panics when the lengths contradict one another.
pub fn ranks<'a>(scores: &[f32], images: usize, sentences: usize, truth: impl Into<Truth<'a>>) -> Ranks {
    let Truth { image_of_sentence, others } = truth.into();
    assert_eq!(scores.len(), images * sentences, "scores must be [images, sentences] = [{images}, {sentences}]");
    assert_eq!(image_of_sentence.len(), sentences, "one image for every sentence");
    let mut own = vec![Vec::new(); images];
    let mut several = BTreeMap::new(); // the images of sentences that have more than one
    for (sentence, &image) in image_of_sentence.iter().enumerate() {
        assert!(image < images, "sentence {sentence} belongs to image {image}, but there are {images} images");
        own[image].push(sentence);
    }
    for &[image, sentence] in others {
        assert!(image < images && sentence < sentences, "no image {image} or no sentence {sentence}");
        own[image].push(sentence);
        several.entry(sentence).or_insert_with(|| vec![image_of_sentence[sentence]]).push(image);
    }

    let image_to_sentence = own
        .par_iter()
        .enumerate()
        .map(|(image, own)| rank_of(scores[image * sentences..(image + 1) * sentences].iter().copied(), own))
        .collect();

    // Row by row over a strip of columns, so that memory is read in order.
    const STRIP: usize = 256;
    let strips: Vec<Vec<Rank>> = (0..sentences.div_ceil(STRIP))
        .into_par_iter()
        .map(|strip| {
            let columns = strip * STRIP..((strip + 1) * STRIP).min(sentences);
            let right: Vec<f32> =
                columns.clone().map(|j| ordered(scores[image_of_sentence[j] * sentences + j])).collect();
            let mut ranks = vec![Rank { stable: 0, pessimistic: 0 }; columns.len()];
            for image in 0..images {
                let row = &scores[image * sentences + columns.start..image * sentences + columns.end];
                let images_of = &image_of_sentence[columns.clone()];
                for (((rank, &score), &right), &own) in ranks.iter_mut().zip(row).zip(&right).zip(images_of) {
                    let score = ordered(score);
                    let (greater, equal) = (score > right, score == right);
                    rank.stable += usize::from(greater || (equal && image > own));
                    rank.pessimistic += usize::from(greater || (equal && image != own));
                }
            }
            ranks
        })
        .collect();
    let mut sentence_to_image: Vec<Rank> = strips.into_iter().flatten().collect();
    for (sentence, images) in several {
        let column = scores.iter().skip(sentence).step_by(sentences).copied();
        sentence_to_image[sentence] = rank_of(column, &images).expect("the sentence has an image");
    }
    Ranks { image_to_sentence, sentence_to_image }
}

/// Evaluates a matrix of scores [images, sentences], row by row; see [`ranks`] for the truth and for panics.
pub fn evaluate<'a>(scores: &[f32], images: usize, sentences: usize, truth: impl Into<Truth<'a>>) -> RetrievalReport {
    let ranks = ranks(scores, images, sentences, truth);
    let image_to_sentence: RankCounts = ranks.image_to_sentence.into_iter().flatten().collect();
    let sentence_to_image: RankCounts = ranks.sentence_to_image.into_iter().collect();
    report(images, sentences, &image_to_sentence, &sentence_to_image)
}

/// A report from counted ranks, for callers that score in parts and never hold the whole matrix.
pub fn report(
    images: usize,
    sentences: usize,
    image_to_sentence: &RankCounts,
    sentence_to_image: &RankCounts,
) -> RetrievalReport {
    let (image_to_sentence, sentence_to_image) = (image_to_sentence.report(), sentence_to_image.report());
    let recalls = |d: &DirectionReport| d.r1 + d.r5 + d.r10;
    let rsum = recalls(&image_to_sentence) + recalls(&sentence_to_image);
    RetrievalReport { images, sentences, image_to_sentence, sentence_to_image, rsum }
}

/// Splits the images, in their order, into `folds` equal parts, evaluates each part with its own sentences as the only
/// candidates (pairs across parts do not count), and gives the plain mean of every number (the "5-fold 1K" figures on COCO: 5,000 images, 5 folds).
///
/// Images left over when the count does not divide belong to the last fold. `images` and `sentences` of the report are
/// totals. Panics when the lengths contradict one another or `folds` is 0 or more than `images`.
pub fn evaluate_folds<'a>(
    scores: &[f32],
    images: usize,
    sentences: usize,
    truth: impl Into<Truth<'a>>,
    folds: usize,
) -> RetrievalReport {
    let Truth { image_of_sentence, others } = truth.into();
    assert!(folds > 0 && folds <= images, "{folds} folds of {images} images");
    let size = images / folds;
    let reports: Vec<RetrievalReport> = (0..folds)
        .map(|fold| {
            let rows = fold * size..if fold + 1 == folds { images } else { (fold + 1) * size };
            let columns: Vec<usize> = (0..sentences).filter(|&j| rows.contains(&image_of_sentence[j])).collect();
            let part: Vec<f32> =
                rows.clone().flat_map(|i| columns.iter().map(move |&j| scores[i * sentences + j])).collect();
            let own: Vec<usize> = columns.iter().map(|&j| image_of_sentence[j] - rows.start).collect();
            let inside = |&[image, sentence]: &[usize; 2]| {
                let column = columns.binary_search(&sentence).ok()?;
                rows.contains(&image).then(|| [image - rows.start, column])
            };
            let others: Vec<[usize; 2]> = others.iter().filter_map(inside).collect();
            evaluate(&part, rows.len(), columns.len(), Truth { image_of_sentence: &own, others: &others })
        })
        .collect();
    let mean = |value: &dyn Fn(&RetrievalReport) -> f64| reports.iter().map(value).sum::<f64>() / folds as f64;
    let direction = |of: &dyn Fn(&RetrievalReport) -> DirectionReport| DirectionReport {
        r1: mean(&|r| of(r).r1),
        r5: mean(&|r| of(r).r5),
        r10: mean(&|r| of(r).r10),
        median_rank: mean(&|r| of(r).median_rank),
        mean_rank: mean(&|r| of(r).mean_rank),
        pessimistic: RankSummary {
            r1: mean(&|r| of(r).pessimistic.r1),
            r5: mean(&|r| of(r).pessimistic.r5),
            r10: mean(&|r| of(r).pessimistic.r10),
            median_rank: mean(&|r| of(r).pessimistic.median_rank),
            mean_rank: mean(&|r| of(r).pessimistic.mean_rank),
        },
    };
    RetrievalReport {
        images,
        sentences,
        image_to_sentence: direction(&|r| r.image_to_sentence),
        sentence_to_image: direction(&|r| r.sentence_to_image),
        rsum: mean(&|r| r.rsum),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_put_the_larger_index_first_and_the_pessimistic_rank_last() {
        let ranks = ranks(&[1.0; 6], 2, 3, &[0, 1, 1]);
        let rank = |stable, pessimistic| Rank { stable, pessimistic };
        assert_eq!(ranks.image_to_sentence, [Some(rank(2, 2)), Some(rank(0, 1))]);
        assert_eq!(ranks.sentence_to_image, [rank(1, 1), rank(0, 1), rank(0, 1)]);
    }

    #[test]
    fn an_image_without_sentences_is_a_candidate_only() {
        let report = evaluate(&[0.1, 0.2, 0.9], 3, 1, &[0]);
        assert_eq!(report.image_to_sentence.r1, 100.0, "one query, one candidate");
        assert_eq!(report.sentence_to_image.median_rank, 3.0);
    }

    #[test]
    fn a_sentence_may_describe_several_images() {
        let scores = [0.9, 0.1, 0.2, 0.8, 0.3, 0.7, 0.5, 0.6, 0.4];
        let own = [0, 1, 2];
        let alone = ranks(&scores, 3, 3, &own);
        // Sentence 0 is of image 0, sentence 2 describes image 1 too.
        let others = [[1, 2]];
        let truth = Truth { image_of_sentence: &own, others: &others };
        let several = ranks(&scores, 3, 3, truth);
        let rank = |stable| Rank { stable, pessimistic: stable };
        assert_eq!(alone.image_to_sentence[1], Some(rank(2)));
        assert_eq!(several.image_to_sentence, [Some(rank(0)), Some(rank(1)), Some(rank(2))]);
        assert_eq!(alone.sentence_to_image[2], rank(1));
        assert_eq!(several.sentence_to_image[2], rank(0));
        assert_eq!(several.sentence_to_image[..2], alone.sentence_to_image[..2]);
        // Each part alone has no such pair.
        assert_eq!(evaluate_folds(&scores, 3, 3, truth, 3), evaluate_folds(&scores, 3, 3, &own, 3));
        // An image with another's sentence alone is a query.
        let lent = Truth { image_of_sentence: &[0], others: &[[1, 0]] };
        assert_eq!(ranks(&[0.1, 0.2], 2, 1, lent).sentence_to_image, [rank(0)]);
        assert_eq!(ranks(&[0.1, 0.2], 2, 1, lent).image_to_sentence, [Some(rank(0)); 2]);
    }

    #[test]
    fn not_a_number_never_wins() {
        let nan = f32::NAN;
        let report = evaluate(&[nan, 0.0, 0.0, nan], 2, 2, &[0, 1]);
        assert_eq!(report.image_to_sentence.r1, 0.0);
        assert_eq!(report.sentence_to_image.r1, 0.0);
    }

    #[test]
    fn folds_average_over_their_own_candidates() {
        // Two folds of one image: each finds itself, whatever the other fold scores.
        let report = evaluate_folds(&[0.0, 9.0, 9.0, 0.0], 2, 2, &[0, 1], 2);
        assert_eq!((report.rsum, report.images, report.sentences), (600.0, 2, 2));
    }

    #[test]
    fn serialises_as_the_record() {
        let json = serde_json::to_value(evaluate(&[1.0, 0.0, 0.0, 1.0], 2, 2, &[0, 1])).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys.len(), 5);
        for key in ["images", "sentences", "image_to_sentence", "sentence_to_image", "rsum"] {
            assert!(keys.contains(&key.to_owned()), "{key}");
        }
        assert_eq!(json["image_to_sentence"]["r1"], 100.0);
        assert_eq!(json["image_to_sentence"]["median_rank"], 1.0);
    }
}
