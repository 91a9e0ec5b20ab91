//! METEOR 1.5 (Denkowski and Lavie 2014) for English, as coco-caption's jar computes it, with its oddities.
//!
//! Its data (synsets, exceptions, function words, prefixes, paraphrases) is read from the user's copy, see
//! [`MeteorData`]. Without it there is [`Meteor::exact_stem`], a metric of another name: exact and stem matches only,
//! every word a content word.

mod align;
mod data;
mod map;
mod normalise;
mod parameters;
mod score;
mod source;

pub use data::{MeteorData, WHEEL, cache_folder, find_data};
pub use parameters::{Module, Parameters, Task};
pub use score::MeteorCounts;

use std::cell::RefCell;

use rayon::prelude::*;
use rust_stemmers::{Algorithm, Stemmer};
use rustc_hash::FxHashMap;

use align::Match;
use normalise::Prefixes;

/// A METEOR scorer.
#[derive(Debug)]
pub struct Meteor {
    parameters: Parameters,
    /// None for exact and stem matches only.
    data: Option<MeteorData>,
    prefixes: Prefixes,
}

/// The score of one image: its best reference.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MeteorSegment {
    /// 0..1.
    pub score: f64,
    /// Counts against the reference that was best.
    pub counts: MeteorCounts,
}

/// What the modules ask about a word, looked up once.
#[derive(Debug, Clone, Default)]
struct Word {
    /// Java's hash code, by which the reference compares words (and so do we, collisions included).
    hash: i32,
    stem_hash: i32,
    is_function: bool,
    synsets: Vec<u32>,
    paraphrase_word: Option<u32>,
}

/// One sentence as numbers of words, and the phrases of the paraphrase table in it.
#[derive(Debug, Clone, Default)]
struct Sentence {
    words: Vec<u32>,
    /// Phrase, first word, length; by first word, then by length.
    phrases: Vec<(u32, u32, u32)>,
}

/// Words of a call, each looked up once.
#[derive(Debug, Default)]
struct Lexicon {
    words: Vec<Word>,
}

impl Meteor {
    /// METEOR with its data.
    pub fn new(data: MeteorData, task: Task) -> Self {
        let prefixes = data.prefixes.clone();
        Self { parameters: task.parameters(), data: Some(data), prefixes }
    }

    /// Exact and stem matches only, with the weights of ranking: for where the data is not. Not to be called METEOR.
    pub fn exact_stem() -> Self {
        let mut parameters = Task::Rank.parameters();
        parameters.weights[Module::Synonym as usize] = None;
        parameters.weights[Module::Paraphrase as usize] = None;
        Self { parameters, data: None, prefixes: Prefixes::default() }
    }

    /// Whether this is METEOR, not the reduced metric without data.
    pub fn is_complete(&self) -> bool {
        self.data.is_some()
    }

    /// The parameters of the score, also for [`MeteorCounts::score`] of a corpus.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Scores one tokenised hypothesis against its tokenised references; 0 without references.
    pub fn segment<S: AsRef<str> + Sync>(&self, hypothesis: &str, references: &[S]) -> MeteorSegment {
        let references: Vec<&str> = references.iter().map(AsRef::as_ref).collect();
        self.segments(&[hypothesis], &[references]).pop().unwrap_or_default()
    }

    /// Scores every tokenised hypothesis against its tokenised references, in parallel.
    ///
    /// Panics when there are not as many hypotheses as lists of references.
    pub fn segments<H, R, S>(&self, hypotheses: &[H], references: &[R]) -> Vec<MeteorSegment>
    where
        H: AsRef<str> + Sync,
        R: AsRef<[S]> + Sync,
        S: AsRef<str> + Sync,
    {
        assert_eq!(hypotheses.len(), references.len(), "one list of references for every hypothesis");
        // Normalise everything, look every distinct word up once, then align.
        let normalised: Vec<(String, Vec<String>)> = hypotheses
            .par_iter()
            .zip(references)
            .with_min_len(64)
            .map(|(hypothesis, references)| {
                // The wrapper's own cleaning of the separator.
                let hypothesis = hypothesis.as_ref().replace("|||", "").replace("  ", " ");
                let line = |text: &str| normalise::normalise(text.trim_matches(|c: char| c <= ' '), &self.prefixes);
                (line(&hypothesis), references.as_ref().iter().map(|r| line(r.as_ref())).collect())
            })
            .collect();
        let mut numbers: FxHashMap<&str, u32> = FxHashMap::default();
        let mut distinct: Vec<&str> = Vec::new();
        let mut number_of = |word| {
            *numbers.entry(word).or_insert_with(|| {
                distinct.push(word);
                distinct.len() as u32 - 1
            })
        };
        let numbered: Vec<(Vec<u32>, Vec<Vec<u32>>)> = normalised
            .iter()
            .map(|(hypothesis, references)| {
                let hypothesis = split(hypothesis).map(&mut number_of).collect();
                (hypothesis, references.iter().map(|r| split(r).map(&mut number_of).collect()).collect())
            })
            .collect();
        let lexicon = self.lexicon(&distinct);
        numbered
            .into_par_iter()
            .with_min_len(8)
            .map(|(hypothesis, references)| {
                let hypothesis = self.sentence(hypothesis, &lexicon);
                let mut best: Option<MeteorSegment> = None;
                for reference in references {
                    let reference = self.sentence(reference, &lexicon);
                    let counts = self.counts(&hypothesis, &reference, &lexicon);
                    let score = counts.score(&self.parameters);
                    if best.is_none_or(|b| score > b.score) {
                        best = Some(MeteorSegment { score, counts });
                    }
                }
                best.unwrap_or_default()
            })
            .collect()
    }

    fn lexicon(&self, words: &[&str]) -> Lexicon {
        let stemmer = Stemmer::create(Algorithm::English);
        let words = words
            .par_iter()
            .with_min_len(64)
            .map(|word| {
                let mut entry =
                    Word { hash: java_hash(word), stem_hash: java_hash(&stemmer.stem(word)), ..Word::default() };
                if let Some(data) = &self.data {
                    entry.is_function = data.function_words.contains(*word);
                    entry.synsets = data.synsets(word);
                    entry.paraphrase_word = data.paraphrase_word(word);
                }
                entry
            })
            .collect();
        Lexicon { words }
    }

    /// Finds the phrases of the paraphrase table in a sentence.
    fn sentence(&self, words: Vec<u32>, lexicon: &Lexicon) -> Sentence {
        let mut phrases = Vec::new();
        if let Some(data) = &self.data {
            let mut ids = Vec::with_capacity(data::LONGEST_PHRASE);
            for start in 0..words.len() {
                ids.clear();
                for &word in words[start..].iter().take(data::LONGEST_PHRASE) {
                    let Some(id) = lexicon.words[word as usize].paraphrase_word else { break };
                    ids.push(id);
                    if let Some(phrase) = data.phrase(&ids) {
                        phrases.push((phrase, start as u32, ids.len() as u32));
                    }
                }
            }
        }
        Sentence { words, phrases }
    }

    /// Aligns and counts.
    fn counts(&self, hypothesis: &Sentence, reference: &Sentence, lexicon: &Lexicon) -> MeteorCounts {
        let lists = self.candidates(hypothesis, reference, lexicon);
        let chosen = align::align(hypothesis.words.len(), reference.words.len(), &lists);
        let is_function = |word: u32| u64::from(lexicon.words[word as usize].is_function);
        let function_words = |sentence: &Sentence| sentence.words.iter().map(|&w| is_function(w)).sum();
        let mut counts = MeteorCounts {
            hypothesis_words: hypothesis.words.len() as u64,
            reference_words: reference.words.len() as u64,
            hypothesis_function_words: function_words(hypothesis),
            reference_function_words: function_words(reference),
            chunks: align::chunks(&chosen),
            ..MeteorCounts::default()
        };
        for m in &chosen {
            let matched = &mut counts.matches[m.module as usize];
            for &word in &hypothesis.words[m.hypothesis_start as usize..][..m.hypothesis_length as usize] {
                matched[if is_function(word) == 1 { 2 } else { 0 }] += 1;
            }
            for &word in &reference.words[m.start as usize..][..m.length as usize] {
                matched[if is_function(word) == 1 { 3 } else { 1 }] += 1;
            }
            counts.hypothesis_matches += u64::from(m.hypothesis_length);
            counts.reference_matches += u64::from(m.length);
        }
        counts
    }

    /// Candidate matches by the reference word they start at, in the order of the reference program.
    fn candidates(&self, hypothesis: &Sentence, reference: &Sentence, lexicon: &Lexicon) -> Vec<Vec<Match>> {
        let word = |id: &u32| &lexicon.words[*id as usize];
        let mut lists: Vec<Vec<Match>> = vec![Vec::new(); reference.words.len()];
        let one = |j: usize, i: usize, module| Match {
            start: j as u32,
            length: 1,
            hypothesis_start: i as u32,
            hypothesis_length: 1,
            module,
        };
        let mine: Vec<&Word> = hypothesis.words.iter().map(word).collect();
        let theirs: Vec<&Word> = reference.words.iter().map(word).collect();
        let uses = |module: Module| self.parameters.weights[module as usize].is_some();
        for (j, theirs) in theirs.iter().enumerate() {
            for (i, mine) in mine.iter().enumerate() {
                if mine.hash == theirs.hash {
                    lists[j].push(one(j, i, Module::Exact));
                }
            }
        }
        if mine.len() == theirs.len() && mine.iter().zip(&theirs).all(|(a, b)| a.hash == b.hash) {
            return lists;
        }
        if uses(Module::Stem) {
            for (j, theirs) in theirs.iter().enumerate() {
                for (i, mine) in mine.iter().enumerate() {
                    if mine.stem_hash == theirs.stem_hash && mine.hash != theirs.hash {
                        lists[j].push(one(j, i, Module::Stem));
                    }
                }
            }
        }
        if uses(Module::Synonym) {
            for (j, theirs) in theirs.iter().enumerate() {
                if theirs.synsets.is_empty() {
                    continue;
                }
                for (i, mine) in mine.iter().enumerate() {
                    if mine.hash != theirs.hash && share_one(&mine.synsets, &theirs.synsets) {
                        lists[j].push(one(j, i, Module::Synonym));
                    }
                }
            }
        }
        if uses(Module::Paraphrase)
            && let Some(data) = &self.data
        {
            paraphrases(data, hypothesis, reference, &mut lists);
        }
        lists
    }
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '\t', '\n', '\r', '\u{c}']).filter(|w| !w.is_empty())
}

/// Appends the paraphrase matches: phrases of the reference first, then phrases of the hypothesis.
fn paraphrases(data: &MeteorData, hypothesis: &Sentence, reference: &Sentence, lists: &mut [Vec<Match>]) {
    thread_local! {
        /// A flag for every phrase of the table: a sentence sets those it holds, and clears them again.
        static HELD: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    }
    HELD.with_borrow_mut(|held| {
        held.resize(data.phrases().div_ceil(64), 0);
        let mut pairs = |from: &Sentence, to: &Sentence, add: &mut dyn FnMut((u32, u32), (u32, u32))| {
            if from.phrases.is_empty() || to.phrases.is_empty() {
                return;
            }
            for &(phrase, ..) in &to.phrases {
                held[phrase as usize / 64] |= 1 << (phrase % 64);
            }
            for &(phrase, start, length) in &from.phrases {
                for target in data.targets(phrase) {
                    if held[target as usize / 64] >> (target % 64) & 1 == 1 {
                        for &(_, at, count) in to.phrases.iter().filter(|p| p.0 == target) {
                            add((start, length), (at, count));
                        }
                    }
                }
            }
            for &(phrase, ..) in &to.phrases {
                held[phrase as usize / 64] = 0;
            }
        };
        let mut add = |(start, length): (u32, u32), (hypothesis_start, hypothesis_length): (u32, u32)| {
            let module = Module::Paraphrase;
            lists[start as usize].push(Match { start, length, hypothesis_start, hypothesis_length, module });
        };
        pairs(reference, hypothesis, &mut |theirs, mine| add(theirs, mine));
        pairs(hypothesis, reference, &mut |mine, theirs| add(theirs, mine));
    });
}

/// Whether two sorted lists share a number.
fn share_one(a: &[u32], b: &[u32]) -> bool {
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => return true,
        }
    }
    false
}

/// Java's `String.hashCode`.
fn java_hash(word: &str) -> i32 {
    word.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_hashes() {
        // jshell> "dog".hashCode() ==> 99644; "an" and "c0" collide.
        assert_eq!(java_hash("dog"), 99_644);
        assert_eq!(java_hash("an"), java_hash("c0"));
    }

    #[test]
    fn exact_stem_alone() {
        let meteor = Meteor::exact_stem();
        assert!(!meteor.is_complete());
        assert_eq!(meteor.segment("a dog runs", &["a dog runs"]).score, 1.0);
        assert_eq!(meteor.segment("", &["a dog"]).score, 0.0);
        assert_eq!(meteor.segment("cat", &["dog"]).score, 0.0);
        let stem = meteor.segment("a dogs", &["a dog"]);
        assert_eq!(stem.counts.matches[Module::Stem as usize], [1, 1, 0, 0]);
        assert!(stem.score > 0.0 && stem.score < 1.0);
    }
}
