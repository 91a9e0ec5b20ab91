//! The vocabulary: words seen often enough in the training split, and the end token.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

/// Index of the token that starts a sentence on input and ends it on output (NeuralTalk's convention).
pub const END: u32 = 0;

/// Words by index; index 0 is the start/end token, so [`Vocabulary::len`] is the paper's count (2,538 on Flickr8K).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Record", into = "Record")]
pub struct Vocabulary {
    words: Vec<String>,
    counts: Vec<u64>,
    sentences: u64,
    index: FxHashMap<String, u32>,
}

/// What is saved: `words[0]` is `<end>`, `counts[0]` the number of training sentences.
#[derive(Clone, Serialize, Deserialize)]
struct Record {
    words: Vec<String>,
    counts: Vec<u64>,
}

impl Vocabulary {
    /// Counts the words of the training sentences and keeps those seen at least `min_count` times.
    ///
    /// Ordered by count, then by spelling, so the same sentences in any order give the same indices.
    pub fn from_sentences<'a, S>(sentences: S, min_count: u64) -> Self
    where
        S: IntoIterator<Item = &'a [String]>,
    {
        let mut counts: FxHashMap<&str, u64> = FxHashMap::default();
        let mut n_sentences = 0;
        for tokens in sentences {
            n_sentences += 1;
            for token in tokens {
                *counts.entry(token).or_default() += 1;
            }
        }
        let mut kept: Vec<(&str, u64)> = counts.into_iter().filter(|&(_, count)| count >= min_count).collect();
        kept.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let words = std::iter::once("<end>".to_owned()).chain(kept.iter().map(|(word, _)| (*word).to_owned()));
        let counts = std::iter::once(n_sentences).chain(kept.iter().map(|&(_, count)| count));
        Self::new(words.collect(), counts.collect())
    }

    fn new(words: Vec<String>, counts: Vec<u64>) -> Self {
        let index = words.iter().enumerate().skip(1).map(|(i, word)| (word.clone(), i as u32)).collect();
        Self { sentences: counts[0], words, counts, index }
    }

    /// Number of words and the end token.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether no word was kept.
    pub fn is_empty(&self) -> bool {
        self.words.len() <= 1
    }

    /// The index of a word, if it is known.
    pub fn get(&self, word: &str) -> Option<u32> {
        self.index.get(word).copied()
    }

    /// The word at an index.
    pub fn word(&self, index: u32) -> &str {
        &self.words[index as usize]
    }

    /// How often the word stood in the training sentences; for the end token, the number of sentences.
    pub fn count(&self, index: u32) -> u64 {
        self.counts[index as usize]
    }

    /// Number of training sentences counted.
    pub fn sentences(&self) -> u64 {
        self.sentences
    }

    /// Known words as indices; unknown ones are left out, as in the paper.
    pub fn encode(&self, tokens: &[String]) -> Vec<u32> {
        tokens.iter().filter_map(|token| self.get(token)).collect()
    }

    /// Indices back to a sentence; stops at the end token.
    pub fn decode(&self, indices: &[u32]) -> String {
        let words: Vec<&str> = indices.iter().take_while(|&&i| i != END).map(|&i| self.word(i)).collect();
        words.join(" ")
    }
}

impl TryFrom<Record> for Vocabulary {
    type Error = String;

    fn try_from(record: Record) -> Result<Self, String> {
        if record.words.is_empty() || record.words.len() != record.counts.len() {
            return Err(format!("vocabulary with {} words and {} counts", record.words.len(), record.counts.len()));
        }
        Ok(Self::new(record.words, record.counts))
    }
}

impl From<Vocabulary> for Record {
    fn from(vocabulary: Vocabulary) -> Self {
        Self { words: vocabulary.words, counts: vocabulary.counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tokenize;

    fn vocabulary(min_count: u64) -> Vocabulary {
        let sentences = ["a dog and a cat", "a dog runs", "the cat sat"].map(tokenize);
        Vocabulary::from_sentences(sentences.iter().map(Vec::as_slice), min_count)
    }

    #[test]
    fn rare_words_are_left_out() {
        let v = vocabulary(2);
        assert_eq!((v.len(), v.word(1), v.word(2), v.word(3)), (4, "a", "cat", "dog"));
        assert_eq!(v.encode(&tokenize("a dog barks")), [1, 3]);
        assert_eq!(v.decode(&[1, 3, END, 2]), "a dog");
        assert_eq!((v.count(END), v.count(1)), (3, 3));
    }

    #[test]
    fn record_round_trips() {
        let v = vocabulary(1);
        let json = serde_json::to_string(&v).unwrap();
        assert_eq!(serde_json::from_str::<Vocabulary>(&json).unwrap(), v);
        assert!(serde_json::from_str::<Vocabulary>(r#"{"words":["<end>","a"],"counts":[1]}"#).is_err());
    }
}
