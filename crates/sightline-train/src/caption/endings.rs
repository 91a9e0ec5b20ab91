//! Where a stretch of a sentence may end.
//!
//! The alignment model cuts sentences into phrases between any two words, so that more than one in four ends in the middle:
//! "a man in", "two children wearing". Which words want another behind them, the sentences of the collection tell
//! themselves, whatever their language: they hardly ever end one, or the next word is mostly one that begins a new part, as
//! "the" does.

use std::collections::{HashMap, HashSet};

/// A word with a lower share of its places at the end of sentences wants another behind it.
const ENDS: f64 = 0.004;
/// So does one that is followed by a word that begins a part in more than this share of its places.
const LEADS: f64 = 0.5;
/// A word that begins a sentence in this share of its places, and ends hardly any, begins parts of them too.
const BEGINS: f64 = 0.1;
/// Words seen less often are not taken for one that begins parts.
const SEEN: usize = 20;
/// Places that every word is imagined to have had besides its own, at the mean share of ends, so that rare words may end.
const IMAGINED: f64 = 10.0;

/// The words that want another behind them.
#[derive(Debug)]
pub(super) struct Endings<'a> {
    open: HashSet<&'a str>,
}

#[derive(Default)]
struct Places {
    all: usize,
    first: usize,
    last: usize,
    /// Those with a word behind that begins parts.
    leading: usize,
}

impl<'a> Endings<'a> {
    /// As the words of these sentences show it.
    pub(super) fn of(sentences: &[&'a [String]]) -> Self {
        let mut places: HashMap<&str, Places> = HashMap::default();
        let (mut words, mut ends) = (0, 0);
        for &sentence in sentences {
            words += sentence.len();
            ends += usize::from(!sentence.is_empty());
            sentence.iter().for_each(|word| places.entry(word).or_default().all += 1);
            let [first, last] = [sentence.first(), sentence.last()];
            first.into_iter().for_each(|word| places.entry(word).or_default().first += 1);
            last.into_iter().for_each(|word| places.entry(word).or_default().last += 1);
        }
        let mean = ends as f64 / words.max(1) as f64;
        let seldom_ends = |own: &Places| {
            let share = (own.last as f64 + IMAGINED * mean) / (own.all as f64 + IMAGINED);
            share < ENDS
        };
        let begins = |own: &Places| own.all >= SEEN && own.first as f64 >= BEGINS * own.all as f64 && seldom_ends(own);
        let beginning: HashSet<&str> = places.iter().filter(|(_, own)| begins(own)).map(|(&word, _)| word).collect();
        for pair in sentences.iter().flat_map(|sentence| sentence.windows(2)) {
            if beginning.contains(pair[1].as_str()) {
                places.entry(&pair[0]).or_default().leading += 1;
            }
        }
        let leads = |own: &Places| own.leading as f64 > LEADS * (own.all as f64 + IMAGINED);
        let open = places.into_iter().filter(|(_, own)| seldom_ends(own) || leads(own)).map(|(word, _)| word).collect();
        Self { open }
    }

    /// The words without those at the end that want another behind them.
    pub(super) fn whole<'b>(&self, words: &'b [String]) -> &'b [String] {
        let end = words.iter().rposition(|word| !self.open.contains(word.as_str()));
        &words[..end.map_or(0, |last| last + 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_do_not_end_in_the_middle() {
        let nouns = ["dog", "man", "ball", "girl", "bench"];
        let sentences: Vec<Vec<String>> = (0..2000)
            .map(|i| {
                let (which, who, what) = (["a", "the"][i / 3 % 2], nouns[i % 5], nouns[i / 5 % 5]);
                let does = ["near the", "on the"][i % 2];
                // "on" stands at the end of every tenth sentence, and five times as often before "the".
                let said = match i % 10 {
                    0 => format!("{which} {who} looks on"),
                    _ => format!("{which} {who} {does} {what}"),
                };
                said.split(' ').map(str::to_owned).collect()
            })
            .collect();
        let endings = Endings::of(&sentences.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let whole = |phrase: &str| {
            let words: Vec<String> = phrase.split(' ').map(str::to_owned).collect();
            endings.whole(&words).join(" ")
        };
        assert_eq!(whole("a man near"), "a man");
        // "on" may end a sentence, but mostly "the" is behind it.
        assert_eq!(whole("a man on the"), "a man");
        assert_eq!(whole("the ball"), "the ball");
        assert_eq!(whole("near the"), "");
        // Nothing is known of a word that no sentence has.
        assert_eq!(whole("a zebra"), "a zebra");
    }
}
