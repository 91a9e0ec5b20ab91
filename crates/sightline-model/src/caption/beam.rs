//! Beam search, and diverse beam search (Vijayakumar et al. 2016), many pictures at once.

use serde::{Deserialize, Serialize};

use super::END;
use super::search::{Hypothesis, NextWords, Words};

/// Settings of the search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BeamSettings {
    /// Hypotheses kept at every step, at least 1 (paper: 7); 1 is greedy search.
    pub beam: usize,
    /// A sentence has at most this many words; END follows the last one.
    pub max_words: usize,
    /// Sentences returned a picture, at most `beam`.
    pub n_best: usize,
    /// Hypotheses compete by `log probability / tokens ^ length_penalty`; 0 is the plain sum, as in NeuralTalk.
    pub length_penalty: f32,
    /// Whether three words in a row may stand in a sentence twice.
    pub repeats_trigrams: bool,
    /// The beam is cut into this many groups, which divide it; later groups avoid the words of earlier ones.
    pub groups: usize,
    /// What a word costs a group for every hypothesis of an earlier group that took it at the same step.
    pub diversity: f32,
}

impl Default for BeamSettings {
    fn default() -> Self {
        Self {
            beam: 7,
            max_words: 20,
            n_best: 1,
            length_penalty: 0.0,
            repeats_trigrams: false,
            groups: 1,
            diversity: 0.5,
        }
    }
}

impl BeamSettings {
    /// How many of a sentence's likeliest next words must be known for the search to be exact: those that a beam keeps,
    /// END, which may be out of turn, and as many again where words are put back or refused (a sentence that could repeat
    /// itself in more ways than that is hardly one).
    pub fn proposals(&self) -> usize {
        let refuses = !self.repeats_trigrams || self.groups > 1;
        if refuses { 2 * self.beam + 1 } else { self.beam + 1 }
    }

    /// What a hypothesis of `tokens` tokens competes with.
    fn score(&self, log_probability: f64, tokens: usize) -> f64 {
        match self.length_penalty {
            0.0 => log_probability,
            penalty => log_probability / (tokens as f64).powf(f64::from(penalty)),
        }
    }
}

/// A sentence under way: the row that has read all but its last word.
struct Live {
    row: usize,
    sentence: Hypothesis,
}

/// The hypotheses of one group of one picture.
struct Group {
    live: Vec<Live>,
    /// Best first, with what they compete with.
    finished: Vec<(f64, Hypothesis)>,
}

/// One way to go on.
struct Candidate {
    parent: usize,
    token: u32,
    log_probability: f64,
    score: f64,
}

/// The best sentences for every picture, best first.
///
/// Finished sentences stay in the beam and compete there; a picture is done when nothing unfinished is left in its
/// beams. START is never said, END only after a word, and after `max_words` nothing but END. Equal scores: the finished
/// sentence, then the older hypothesis, then the smaller token.
pub fn beam_search(source: &mut impl NextWords, pictures: usize, settings: BeamSettings) -> Vec<Vec<Hypothesis>> {
    let BeamSettings { beam, max_words, n_best, groups, .. } = settings;
    assert!(beam > 0 && max_words > 0, "beam {beam} and max_words {max_words} are at least 1");
    assert!(groups > 0 && beam.is_multiple_of(groups), "{groups} groups do not divide a beam of {beam}");
    let first = |row: usize| Group { live: vec![Live { row, sentence: Hypothesis::empty() }], finished: Vec::new() };
    let mut all: Vec<Vec<Group>> = (0..pictures).map(|row| (0..groups).map(|_| first(row)).collect()).collect();
    loop {
        let live = || all.iter().flatten().flat_map(|group| &group.live);
        let rows: Vec<usize> = live().map(|l| l.row).collect();
        if rows.is_empty() {
            break;
        }
        let tokens: Vec<u32> = live().map(|l| l.sentence.words.last().copied().unwrap_or(END)).collect();
        let words = source.read(&rows, &tokens);
        let mut first_row = 0;
        for groups in &mut all {
            let mut taken = Vec::new();
            for group in groups {
                let n_live = group.live.len();
                advance(group, &words, first_row..first_row + n_live, &mut taken, &settings);
                first_row += n_live;
            }
        }
    }
    let best_of = |groups: Vec<Group>| {
        let mut finished: Vec<(f64, Hypothesis)> = groups.into_iter().flat_map(|group| group.finished).collect();
        finished.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut best: Vec<Hypothesis> = Vec::new();
        for (_, hypothesis) in finished {
            if best.len() < n_best && best.iter().all(|b| b.words != hypothesis.words) {
                best.push(hypothesis);
            }
        }
        best
    };
    all.into_iter().map(best_of).collect()
}

/// One step of one group: every live hypothesis proposes its best tokens, the best of all stay.
fn advance(
    group: &mut Group,
    words: &Words,
    rows: std::ops::Range<usize>,
    taken: &mut Vec<u32>,
    settings: &BeamSettings,
) {
    let width = settings.beam / settings.groups;
    let mut candidates = Vec::new();
    for (parent, (live, row)) in group.live.iter().zip(rows.clone()).enumerate() {
        let n_words = live.sentence.words.len();
        let in_turn = |token: u32| if token == END { n_words > 0 } else { n_words < settings.max_words };
        let tokens = words.log_probabilities.row(row).filter(|&(token, _)| in_turn(token));
        let price = |token: u32| match taken.is_empty() {
            true => 0.0,
            false => settings.diversity * taken.iter().filter(|&&t| t == token).count() as f32,
        };
        let allowed = |token: u32| settings.repeats_trigrams || !live.sentence.repeats_trigram(token);
        for (token, own) in best_tokens(tokens, width, price, allowed) {
            let log_probability = live.sentence.log_probability + f64::from(own);
            let score = settings.score(log_probability - f64::from(price(token)), n_words + 1);
            candidates.push(Candidate { parent, token, log_probability, score });
        }
    }
    let order = |a: &Candidate, b: &Candidate| {
        b.score.total_cmp(&a.score).then(a.parent.cmp(&b.parent)).then(a.token.cmp(&b.token))
    };
    candidates.sort_by(order);

    // Merge with the finished ones, which come first among equals, and keep the best.
    let mut old = std::mem::take(&mut group.finished).into_iter().peekable();
    let mut new = candidates.into_iter().peekable();
    let mut next_live = Vec::new();
    for _ in 0..width {
        let takes_old = match (old.peek(), new.peek()) {
            (Some((score, _)), Some(candidate)) => *score >= candidate.score,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => break,
        };
        if takes_old {
            group.finished.extend(old.next());
        } else if let Some(Candidate { parent, token, log_probability, score }) = new.next() {
            let Live { sentence, .. } = &group.live[parent];
            let row = rows.start + parent;
            if token == END {
                group.finished.push((score, Hypothesis { log_probability, ..sentence.clone() }));
            } else {
                taken.push(token);
                let region = words.regions.get(row).copied();
                next_live.push(Live { row, sentence: sentence.and(token, region, log_probability) });
            }
        }
    }
    group.live = next_live;
}

/// The `most` best of the allowed tokens by log probability less their price, best first, with their log probabilities;
/// the smaller among equals.
fn best_tokens(
    tokens: impl Iterator<Item = (u32, f32)>,
    most: usize,
    price: impl Fn(u32) -> f32,
    allowed: impl Fn(u32) -> bool,
) -> Vec<(u32, f32)> {
    let mut best: Vec<(f32, (u32, f32))> = Vec::with_capacity(most + 1);
    let mut threshold = f32::NEG_INFINITY;
    for (token, log_probability) in tokens {
        // Prices only lower a value.
        if best.len() == most && log_probability <= threshold || !allowed(token) {
            continue;
        }
        let value = log_probability - price(token);
        if best.len() == most && value <= threshold {
            continue;
        }
        let place = best.partition_point(|&(other, _)| other >= value);
        best.insert(place, (value, (token, log_probability)));
        best.truncate(most);
        if best.len() == most {
            threshold = best[most - 1].0;
        }
    }
    best.into_iter().map(|(_, token)| token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caption::search::tests::Table;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_beam_as_wide_as_the_language_finds_the_best(
            raw in prop::collection::vec(-3.0f32..3.0, 16),
            length_penalty in prop::sample::select(vec![0.0f32, 0.7, 1.0]),
        ) {
            let mut table = Table::new(4, &raw);
            let settings = BeamSettings { beam: 60, max_words: 3, n_best: 5, length_penalty, ..BeamSettings::default() };
            let score = |h: &Hypothesis| settings.score(h.log_probability, h.words.len() + 1);
            let mut all = table.all(3);
            all.sort_by(|a, b| score(b).total_cmp(&score(a)));
            let found = beam_search(&mut table, 2, settings);
            for hypotheses in &found {
                prop_assert_eq!(hypotheses.len(), 5);
                for (h, expected) in hypotheses.iter().zip(&all) {
                    prop_assert!((score(h) - score(expected)).abs() < 1e-5);
                }
            }
        }

        #[test]
        fn a_wider_beam_keeps_its_promises(
            raw in prop::collection::vec(-3.0f32..3.0, 36),
            beam in 1usize..8,
            repeats_trigrams: bool,
        ) {
            let mut table = Table::new(6, &raw);
            let settings = BeamSettings { beam, max_words: 7, n_best: beam, repeats_trigrams, ..BeamSettings::default() };
            let found = beam_search(&mut table, 1, settings);
            prop_assert!(!found[0].is_empty());
            for h in &found[0] {
                prop_assert!((1..=7).contains(&h.words.len()) && !h.words.contains(&END));
                prop_assert!((h.log_probability - table.log_probability(&h.words)).abs() < 1e-5);
                let trigrams: Vec<&[u32]> = h.words.windows(3).collect();
                let distinct: std::collections::BTreeSet<&[u32]> = trigrams.iter().copied().collect();
                prop_assert!(repeats_trigrams || distinct.len() == trigrams.len(), "{:?}", h.words);
            }
            prop_assert!(found[0].windows(2).all(|w| w[0].log_probability >= w[1].log_probability));
        }

        #[test]
        fn groups_that_cost_nothing_are_narrower_beams(raw in prop::collection::vec(-3.0f32..3.0, 36)) {
            let mut table = Table::new(6, &raw);
            let alone = BeamSettings { beam: 2, max_words: 4, n_best: 2, ..BeamSettings::default() };
            let grouped = BeamSettings { beam: 6, groups: 3, diversity: 0.0, ..alone };
            prop_assert_eq!(beam_search(&mut table, 1, alone), beam_search(&mut table, 1, grouped));
        }
    }

    #[test]
    fn ties_go_to_the_smaller_token() {
        let mut table = Table::new(3, &[0.0; 9]);
        let found =
            beam_search(&mut table, 1, BeamSettings { beam: 2, max_words: 2, n_best: 2, ..BeamSettings::default() });
        assert_eq!(found[0][0].words, [1]);
    }

    #[test]
    fn groups_begin_with_different_words() {
        let mut table = Table::new(5, &[0.0; 25]);
        let settings =
            BeamSettings { beam: 3, groups: 3, n_best: 3, diversity: 5.0, max_words: 1, ..BeamSettings::default() };
        let found = beam_search(&mut table, 1, settings);
        let mut firsts: Vec<u32> = found[0].iter().map(|h| h.words[0]).collect();
        firsts.sort_unstable();
        assert_eq!(firsts, [1, 2, 3]);
    }
}
