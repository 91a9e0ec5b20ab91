//! Beam search over any generator, many pictures at once.

use crate::caption::END;

/// Something that says one token after another: the caption models, and in tests a plain table.
pub trait Generator {
    /// What is carried from token to token, one row a sentence.
    type State;

    /// The state after `tokens` (one a row) and the log probabilities of all next tokens, `[rows, vocab]`, row-major.
    fn step(&self, state: &Self::State, tokens: &[u32]) -> (Self::State, Vec<f32>);

    /// The state with the given rows, in that order; a row may come several times.
    fn select(&self, state: &Self::State, rows: &[usize]) -> Self::State;
}

/// Settings of the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeamSettings {
    /// Hypotheses kept at every step, at least 1 (paper: 7); 1 is greedy search.
    pub beam: usize,
    /// A sentence has at most this many words; END follows the last one.
    pub max_words: usize,
    /// Sentences returned a picture, at most `beam`.
    pub n_best: usize,
}

impl Default for BeamSettings {
    fn default() -> Self {
        Self { beam: 7, max_words: 20, n_best: 1 }
    }
}

/// A finished sentence.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// Its words, without START and END.
    pub words: Vec<u32>,
    /// Natural logarithm of its probability, END's included.
    pub log_probability: f64,
}

/// A sentence under way: the row of the state that has read all but its last word.
struct Live {
    row: usize,
    words: Vec<u32>,
    log_probability: f64,
}

/// One way to go on.
struct Candidate {
    parent: usize,
    token: u32,
    log_probability: f64,
}

/// The best sentences for every row of `start`, best first.
///
/// Finished sentences stay in the beam and compete by their summed log probability, as in NeuralTalk; a picture is done
/// when nothing unfinished is left in its beam. START is never said, END only after a word, and after `max_words`
/// nothing but END. Equal sums: the older hypothesis, then the smaller token.
pub fn beam_search<G: Generator>(
    generator: &G,
    start: G::State,
    images: usize,
    settings: BeamSettings,
) -> Vec<Vec<Hypothesis>> {
    let BeamSettings { beam, max_words, n_best } = settings;
    assert!(beam > 0 && max_words > 0, "beam {beam} and max_words {max_words} are at least 1");
    let mut finished: Vec<Vec<Hypothesis>> = (0..images).map(|_| Vec::new()).collect();
    let mut live: Vec<Vec<Live>> =
        (0..images).map(|row| vec![Live { row, words: Vec::new(), log_probability: 0.0 }]).collect();
    let mut state = start;
    loop {
        let rows: Vec<usize> = live.iter().flatten().map(|l| l.row).collect();
        if rows.is_empty() {
            break;
        }
        let tokens: Vec<u32> = live.iter().flatten().map(|l| l.words.last().copied().unwrap_or(END)).collect();
        let (next, log_probabilities) = generator.step(&generator.select(&state, &rows), &tokens);
        state = next;
        let vocab = log_probabilities.len() / rows.len();
        let mut first_row = 0;
        for (live, finished) in live.iter_mut().zip(&mut finished) {
            let own = &log_probabilities[first_row * vocab..(first_row + live.len()) * vocab];
            let n_live = live.len();
            advance(live, finished, own, first_row, settings);
            first_row += n_live;
        }
    }
    for hypotheses in &mut finished {
        hypotheses.truncate(n_best);
    }
    finished
}

/// One step of one picture: every live hypothesis proposes its best tokens, the best of all stay.
fn advance(
    live: &mut Vec<Live>,
    finished: &mut Vec<Hypothesis>,
    log_probabilities: &[f32],
    first_row: usize,
    settings: BeamSettings,
) {
    if live.is_empty() {
        return;
    }
    let BeamSettings { beam, max_words, .. } = settings;
    let vocab = log_probabilities.len() / live.len();
    let mut order: Vec<u32> = Vec::with_capacity(vocab);
    let mut candidates = Vec::new();
    for (parent, hypothesis) in live.iter().enumerate() {
        let own = &log_probabilities[parent * vocab..(parent + 1) * vocab];
        order.clear();
        match hypothesis.words.len() {
            0 => order.extend(1..vocab as u32),
            n if n >= max_words => order.push(END),
            _ => order.extend(0..vocab as u32),
        }
        let by_score = |a: &u32, b: &u32| own[*b as usize].total_cmp(&own[*a as usize]).then(a.cmp(b));
        if order.len() > beam {
            order.select_nth_unstable_by(beam - 1, by_score);
            order.truncate(beam);
        }
        candidates.extend(order.iter().map(|&token| Candidate {
            parent,
            token,
            log_probability: hypothesis.log_probability + f64::from(own[token as usize]),
        }));
    }
    candidates.sort_by(|a, b| {
        b.log_probability.total_cmp(&a.log_probability).then(a.parent.cmp(&b.parent)).then(a.token.cmp(&b.token))
    });

    // Merge with the finished ones, which come first among equals, and keep the best `beam`.
    let mut old = std::mem::take(finished).into_iter().peekable();
    let mut new = candidates.into_iter().peekable();
    let mut next_live = Vec::new();
    for _ in 0..beam {
        let takes_old = match (old.peek(), new.peek()) {
            (Some(o), Some(n)) => o.log_probability >= n.log_probability,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => break,
        };
        if takes_old {
            finished.extend(old.next());
        } else if let Some(Candidate { parent, token, log_probability }) = new.next() {
            let mut words = live[parent].words.clone();
            if token == END {
                finished.push(Hypothesis { words, log_probability });
            } else {
                words.push(token);
                next_live.push(Live { row: first_row + parent, words, log_probability });
            }
        }
    }
    *live = next_live;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A bigram table: log probabilities of the next token given the last, `[vocab, vocab]`; row 0 is after START.
    struct Table {
        vocab: usize,
        log_probabilities: Vec<f32>,
    }

    impl Generator for Table {
        type State = usize;

        fn step(&self, _rows: &usize, tokens: &[u32]) -> (usize, Vec<f32>) {
            let row = |&t: &u32| &self.log_probabilities[t as usize * self.vocab..(t as usize + 1) * self.vocab];
            (tokens.len(), tokens.iter().flat_map(row).copied().collect())
        }

        fn select(&self, _rows: &usize, rows: &[usize]) -> usize {
            rows.len()
        }
    }

    impl Table {
        fn new(vocab: usize, raw: &[f32]) -> Self {
            let mut log_probabilities = Vec::new();
            for row in raw[..vocab * vocab].chunks(vocab) {
                let sum: f32 = row.iter().map(|x| x.exp()).sum();
                log_probabilities.extend(row.iter().map(|x| x - sum.ln()));
            }
            Self { vocab, log_probabilities }
        }

        /// Every sentence of 1 to `max_words` words with its log probability, best first.
        fn all(&self, max_words: usize) -> Vec<Hypothesis> {
            let p = |from: u32, to: u32| f64::from(self.log_probabilities[from as usize * self.vocab + to as usize]);
            let mut open = vec![Hypothesis { words: vec![], log_probability: 0.0 }];
            let mut done = Vec::new();
            for _ in 0..max_words {
                let mut longer = Vec::new();
                for h in &open {
                    let last = h.words.last().copied().unwrap_or(END);
                    for token in 1..self.vocab as u32 {
                        let words: Vec<u32> = h.words.iter().copied().chain([token]).collect();
                        longer.push(Hypothesis { words, log_probability: h.log_probability + p(last, token) });
                    }
                }
                done.extend(longer.iter().map(|h| Hypothesis {
                    words: h.words.clone(),
                    log_probability: h.log_probability + p(*h.words.last().unwrap(), END),
                }));
                open = longer;
            }
            done.sort_by(|a, b| b.log_probability.total_cmp(&a.log_probability));
            done
        }
    }

    proptest! {
        #[test]
        fn a_beam_as_wide_as_the_language_finds_the_best(raw in prop::collection::vec(-3.0f32..3.0, 16)) {
            let table = Table::new(4, &raw);
            let all = table.all(3);
            let found = beam_search(&table, 2, 2, BeamSettings { beam: 60, max_words: 3, n_best: 5 });
            for hypotheses in &found {
                prop_assert_eq!(hypotheses.len(), 5);
                for (h, expected) in hypotheses.iter().zip(&all) {
                    prop_assert!((h.log_probability - expected.log_probability).abs() < 1e-5);
                }
            }
        }

        #[test]
        fn a_wider_beam_keeps_its_promises(raw in prop::collection::vec(-3.0f32..3.0, 36), beam in 1usize..8) {
            let table = Table::new(6, &raw);
            let found = beam_search(&table, 1, 1, BeamSettings { beam, max_words: 4, n_best: beam });
            prop_assert!(!found[0].is_empty());
            for h in &found[0] {
                prop_assert!((1..=4).contains(&h.words.len()) && !h.words.contains(&END));
                let all = table.all(4);
                let same = all.iter().find(|a| a.words == h.words).unwrap();
                prop_assert!((h.log_probability - same.log_probability).abs() < 1e-5);
            }
            prop_assert!(found[0].windows(2).all(|w| w[0].log_probability >= w[1].log_probability));
        }
    }

    #[test]
    fn ties_go_to_the_smaller_token() {
        let table = Table::new(3, &[0.0; 9]);
        let found = beam_search(&table, 1, 1, BeamSettings { beam: 2, max_words: 2, n_best: 2 });
        assert_eq!(found[0][0].words, [1]);
    }
}
