//! Words as the reference scorers see them: Python's idea of white space, and words as small numbers.

use rustc_hash::FxHashMap;

/// Whether Python's `str.isspace` holds: Unicode white space and the four separators U+001C to U+001F.
pub fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The words of `text` as Python's `str.split()` gives them (a no-break space inside a token splits it).
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_python_space).filter(|w| !w.is_empty())
}

/// A number for every distinct word met so far.
#[derive(Debug, Default, Clone)]
pub struct Interner<'a> {
    ids: FxHashMap<&'a str, u32>,
}

impl<'a> Interner<'a> {
    /// The number of `word`, a new one at first sight.
    pub fn id(&mut self, word: &'a str) -> u32 {
        let next = self.ids.len() as u32;
        *self.ids.entry(word).or_insert(next)
    }

    /// The numbers of the words of `text`, split as [`words`] splits.
    pub fn ids(&mut self, text: &'a str) -> Vec<u32> {
        words(text).map(|w| self.id(w)).collect()
    }

    /// How many distinct words were met.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// The words and their numbers, apart from the text they came from.
    pub(crate) fn into_owned(self) -> FxHashMap<String, u32> {
        self.ids.into_iter().map(|(word, id)| (word.to_owned(), id)).collect()
    }

    /// Whether no word was met.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// The n-gram `ids[start..start + n]` (n from 1 to 4) as one number: 32 bits a word, plus one so that no word is 0.
pub(crate) fn pack(ids: &[u32]) -> u128 {
    ids.iter().fold(0, |packed, &id| packed << 32 | (u128::from(id) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_like_python() {
        // python3 -c "print('a\u00a0b\x1cc \u2003 d\u200be'.split())"
        let found: Vec<_> = words("a\u{a0}b\u{1c}c \u{2003} d\u{200b}e").collect();
        assert_eq!(found, ["a", "b", "c", "d\u{200b}e"]);
        assert_eq!(words("  ").count(), 0);
    }

    #[test]
    fn ngrams_of_different_lengths_never_collide() {
        assert_ne!(pack(&[0]), pack(&[0, 0]));
        assert_ne!(pack(&[1, 2]), pack(&[2, 1]));
    }
}
