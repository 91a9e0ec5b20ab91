//! What beam search and sampling have in common: a source of next words, and sentences that grow.

use std::ops::Range;

use rayon::prelude::*;

use super::generator::{Generator, Pictures, State};
use super::rounded::Rounded;
use crate::attended::attended;
use crate::matrix::{Factor, Matrix, exp, largest, multiply, sum_of, vectorised};
use crate::tape::{Output, Tape, Var};
use crate::weights::Weights;

/// Something that gives probabilities of next words: a caption model, and in tests a plain table.
pub trait NextWords {
    /// Lets sentences go on: `rows` are sentences of the call before (pictures at first; one may come several times) and
    /// `tokens` what each of them reads now, START first.
    fn read(&mut self, rows: &[usize], tokens: &[u32]) -> Words;
}

/// Log probabilities of next tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum LogProbabilities {
    /// Of all tokens: `[rows, vocab]`, row-major.
    All(Matrix),
    /// For each row the likeliest tokens, and END, by token.
    Likeliest(Vec<Vec<(u32, f32)>>),
}

impl LogProbabilities {
    /// Tokens after a row with their log probabilities, by token.
    pub(super) fn row(&self, row: usize) -> impl Iterator<Item = (u32, f32)> {
        let (all, likeliest) = match self {
            Self::All(matrix) => (matrix.row(row), [].as_slice()),
            Self::Likeliest(rows) => ([].as_slice(), rows[row].as_slice()),
        };
        (0..).zip(all.iter().copied()).chain(likeliest.iter().copied())
    }

    /// Log probabilities of all tokens after a row, for those who may draw any of them: a decoder without a shortcut.
    pub(super) fn all(&self, row: usize) -> &[f32] {
        match self {
            Self::All(matrix) => matrix.row(row),
            Self::Likeliest(_) => panic!("sampling needs a decoder without a shortcut"),
        }
    }
}

/// What may come next.
#[derive(Debug, Clone, PartialEq)]
pub struct Words {
    /// Of each row.
    pub log_probabilities: LogProbabilities,
    /// The region that each row looks at most; empty where the generator does not look.
    pub regions: Vec<usize>,
}

/// A finished sentence.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// Its words, without START and END.
    pub words: Vec<u32>,
    /// The region looked at most while each word was said; empty where the generator does not look.
    pub regions: Vec<usize>,
    /// Natural logarithm of its probability, END's included.
    pub log_probability: f64,
}

impl Hypothesis {
    /// The sentence with one word more.
    pub(super) fn and(&self, token: u32, region: Option<usize>, log_probability: f64) -> Self {
        let words = self.words.iter().copied().chain([token]).collect();
        let regions = self.regions.iter().copied().chain(region).collect();
        Self { words, regions, log_probability }
    }

    pub(super) fn empty() -> Self {
        Self { words: Vec::new(), regions: Vec::new(), log_probability: 0.0 }
    }

    /// Whether `token` would repeat three words in a row.
    pub(super) fn repeats_trigram(&self, token: u32) -> bool {
        let [.., a, b] = self.words[..] else { return false };
        self.words.windows(3).any(|w| w == [a, b, token])
    }
}

/// The rounded output layer of a generator's weights, and how many of the likeliest tokens must be exact all the same.
#[derive(Debug, Clone, Copy)]
pub struct Shortcut<'a> {
    /// Rounded from the weights that decode.
    pub layer: &'a Rounded,
    /// [`BeamSettings::proposals`](super::BeamSettings::proposals) for a beam.
    pub exact: usize,
}

/// Log probabilities of tokens after every row of `hidden`: of all, or by a shortcut of the likeliest.
pub(super) fn log_probabilities(
    tape: &Tape<'_>,
    hidden: Var,
    output: Output<'_>,
    shortcut: Option<Shortcut<'_>>,
) -> LogProbabilities {
    let (h, matrix, bias) = (tape.value(hidden), &tape.weight(output.matrix).values, &tape.weight(output.bias).values);
    if let Some(Shortcut { layer, exact }) = shortcut {
        return LogProbabilities::Likeliest(layer.likeliest(&h.values, matrix, bias, exact));
    }
    let mut logits = bias.repeat(h.rows);
    let sizes = [h.rows, h.columns, bias.len()];
    multiply(Factor::Plain(&h.values), Factor::Transposed(matrix), &mut logits, sizes, true);
    vectorised(
        #[inline(always)]
        || {
            for row in logits.chunks_exact_mut(bias.len()) {
                let most = largest(row);
                let log_sum = most + sum_of(row, |x| exp(x - most)).ln();
                row.iter_mut().for_each(|x| *x -= log_sum);
            }
        },
    );
    LogProbabilities::All(Matrix::new(h.rows, bias.len(), logits))
}

/// A generator at work on some pictures.
pub struct Decoder<'a> {
    generator: &'a dyn Generator,
    shortcut: Option<Shortcut<'a>>,
    tape: Tape<'a>,
    state: State,
}

impl<'a> Decoder<'a> {
    /// Before the first word, one sentence a picture.
    pub fn new(
        generator: &'a dyn Generator,
        weights: &'a Weights,
        shortcut: Option<Shortcut<'a>>,
        pictures: &Pictures,
    ) -> Self {
        let mut tape = Tape::forward_only(weights);
        let state = generator.start(&mut tape, pictures);
        Self { generator, shortcut, tape, state }
    }
}

impl NextWords for Decoder<'_> {
    fn read(&mut self, rows: &[usize], tokens: &[u32]) -> Words {
        let state = self.state.select(&mut self.tape, rows);
        let (state, step) = self.generator.step(&mut self.tape, &state, tokens);
        let log_probabilities = log_probabilities(&self.tape, step.hidden, self.generator.output(), self.shortcut);
        let mut rest = step.attention.as_slice();
        let mut regions = Vec::new();
        if !rest.is_empty() {
            for &picture in &state.pictures {
                let (own, others) = rest.split_at(state.regions[picture].len());
                rest = others;
                regions.push((1..own.len()).fold(0, |best, i| if own[i] > own[best] { i } else { best }));
            }
        }
        self.state = state;
        self.state.keep_alone(&mut self.tape);
        Words { log_probabilities, regions }
    }
}

/// Pictures decoded at once. Chunks are spread over the threads, and their size never depends on how many there are.
const CHUNK: usize = 25;

/// Lets `decode` work on all pictures, a chunk at a time, with the indices of the chunk's pictures.
pub fn in_chunks<T: Send>(
    generator: &dyn Generator,
    weights: &Weights,
    shortcut: Option<Shortcut<'_>>,
    pictures: &Pictures,
    decode: impl Fn(&mut Decoder<'_>, Range<usize>) -> Vec<T> + Sync,
) -> Vec<T> {
    let starts: Vec<usize> = (0..pictures.len()).step_by(CHUNK).collect();
    let of_chunk = |&start: &usize| {
        let range = start..(start + CHUNK).min(pictures.len());
        decode(&mut Decoder::new(generator, weights, shortcut, &pictures.range(range.clone())), range)
    };
    match starts[..] {
        [start] => attended(|| of_chunk(&start)),
        _ => starts.par_iter().flat_map_iter(of_chunk).collect(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::caption::END;

    /// A bigram table: log probabilities of the next token given the last, `[vocab, vocab]`; row 0 is after START.
    pub(in crate::caption) struct Table {
        vocab: usize,
        log_probabilities: Vec<f32>,
    }

    impl NextWords for Table {
        fn read(&mut self, _rows: &[usize], tokens: &[u32]) -> Words {
            let row = |&t: &u32| &self.log_probabilities[t as usize * self.vocab..(t as usize + 1) * self.vocab];
            let values = tokens.iter().flat_map(row).copied().collect();
            let log_probabilities = LogProbabilities::All(Matrix::new(tokens.len(), self.vocab, values));
            Words { log_probabilities, regions: Vec::new() }
        }
    }

    impl Table {
        pub(in crate::caption) fn new(vocab: usize, raw: &[f32]) -> Self {
            let mut log_probabilities = Vec::new();
            for row in raw[..vocab * vocab].chunks(vocab) {
                let sum: f32 = row.iter().map(|x| x.exp()).sum();
                log_probabilities.extend(row.iter().map(|x| x - sum.ln()));
            }
            Self { vocab, log_probabilities }
        }

        /// Log probability of a sentence with its END.
        pub(in crate::caption) fn log_probability(&self, words: &[u32]) -> f64 {
            let tokens: Vec<u32> = [END].into_iter().chain(words.iter().copied()).chain([END]).collect();
            let p = |pair: &[u32]| f64::from(self.log_probabilities[pair[0] as usize * self.vocab + pair[1] as usize]);
            tokens.windows(2).map(p).sum()
        }

        /// Every sentence of 1 to `max_words` words.
        pub(in crate::caption) fn all(&self, max_words: usize) -> Vec<Hypothesis> {
            let (mut open, mut done) = (vec![Vec::new()], Vec::new());
            for _ in 0..max_words {
                let longer = |words: &Vec<u32>| {
                    let words = words.clone();
                    (1..self.vocab as u32).map(move |token| [words.as_slice(), &[token]].concat())
                };
                open = open.iter().flat_map(longer).collect::<Vec<Vec<u32>>>();
                done.extend(open.iter().map(|words| Hypothesis {
                    words: words.clone(),
                    regions: Vec::new(),
                    log_probability: self.log_probability(words),
                }));
            }
            done
        }
    }
}
