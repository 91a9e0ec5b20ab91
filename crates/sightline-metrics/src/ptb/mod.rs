//! The PTB tokenizer as coco-caption runs it: Penn Treebank tokens, lower-cased, punctuation dropped.
//!
//! The reference lexes all captions of one call as one text, one caption a line, and what a rule looks ahead to may lie
//! in the next caption. [`Tokenizer::coco`] does the same and agrees with it; [`Tokenizer::coco_one`] takes a caption
//! by itself, so that its tokens never depend on its neighbours.
//!
//! A line break inside a caption counts as a blank. (In the reference some of them start another output line and shift
//! all captions after it; that is not copied.)

mod classes;
mod rules;

use std::sync::{LazyLock, Mutex};

use rayon::prelude::*;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind};

use crate::text::is_python_space;
use classes::{Class, byte_of};
use rules::{Action, Ahead, Rule};

/// Tokens that coco-caption drops. Upper-case brackets are on its list too, but never match: tokens are lower-cased.
const PUNCTUATION: [&str; 13] = ["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"];

/// A compiled tokenizer; [`Tokenizer::shared`] is one for all.
pub struct Tokenizer {
    rules: Vec<Rule>,
    dfa: DFA,
    caches: Mutex<Vec<Cache>>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("rules", &self.rules.len()).finish_non_exhaustive()
    }
}

impl Default for Tokenizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Tokenizer {
    /// Compiles the rules.
    pub fn new() -> Self {
        let rules = rules::rules();
        let expressions: Vec<&str> = rules.iter().map(|r| r.expression.as_str()).collect();
        let dfa = DFA::builder()
            .configure(
                DFA::config().match_kind(MatchKind::All).cache_capacity(16 << 20).skip_cache_capacity_check(true),
            )
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .thompson(thompson::Config::new().utf8(false))
            .build_many(&expressions)
            .expect("the rules are constant and compile");
        Self { rules, dfa, caches: Mutex::new(Vec::new()) }
    }

    /// The tokenizer of this process, compiled at first use.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::new);
        &SHARED
    }

    /// Tokens of every caption before the punctuation is dropped, all captions lexed as one text in their order.
    pub fn tokens<S: AsRef<str> + Sync>(&self, captions: &[S]) -> Vec<Vec<String>> {
        self.lines(captions, &|line| line.to_vec())
    }

    /// Every caption as coco-caption's tokenizer gives it: tokens without punctuation, joined by single blanks.
    ///
    /// References and hypotheses belong into two calls, each in the order of the images.
    pub fn coco<S: AsRef<str> + Sync>(&self, captions: &[S]) -> Vec<String> {
        self.lines(captions, &|line| without_punctuation(line))
    }

    /// One caption by itself, as [`coco`](Self::coco) of it alone.
    pub fn coco_one(&self, caption: &str) -> String {
        self.coco(&[caption]).pop().unwrap_or_default()
    }

    fn lines<S: AsRef<str> + Sync, T: Send>(
        &self,
        captions: &[S],
        finish: &(impl Fn(&[String]) -> T + Sync),
    ) -> Vec<T> {
        let mut text = String::with_capacity(captions.iter().map(|c| c.as_ref().len() + 1).sum());
        for (i, caption) in captions.iter().enumerate() {
            if i > 0 {
                text.push('\n');
            }
            text.extend(caption.as_ref().chars().map(|c| if c == '\n' { ' ' } else { c }));
        }
        // One byte a character, and where every character starts, unless all is ASCII and places agree anyway.
        let bytes: Vec<u8> = text.chars().map(byte_of).collect();
        let offsets: Option<Vec<usize>> =
            (bytes.len() != text.len()).then(|| text.char_indices().map(|(at, _)| at).chain([text.len()]).collect());
        let mut starts = vec![0];
        starts.extend(bytes.iter().enumerate().filter(|&(_, &b)| b == b'\n').map(|(at, _)| at + 1));
        let text = Text { text: &text, bytes: &bytes, offsets: offsets.as_deref() };

        let size = captions.len().div_ceil(rayon::current_num_threads() * 4).max(256);
        let parts: Vec<Vec<T>> = starts[..captions.len()]
            .par_chunks(size)
            .map(|starts| {
                let mut cache = self.cache();
                let mut tokens = Vec::new();
                let found = starts
                    .iter()
                    .map(|&start| {
                        tokens.clear();
                        self.line(&text, start, &mut cache, &mut tokens);
                        finish(&tokens)
                    })
                    .collect();
                self.give_back(cache);
                found
            })
            .collect();
        parts.into_iter().flatten().collect()
    }

    fn cache(&self) -> Cache {
        let kept = self.caches.lock().map(|mut c| c.pop()).unwrap_or_default();
        kept.unwrap_or_else(|| self.dfa.create_cache())
    }

    fn give_back(&self, cache: Cache) {
        if let Ok(mut caches) = self.caches.lock() {
            caches.push(cache);
        }
    }

    /// Tokens from `at` to the end of the line.
    fn line(&self, text: &Text<'_>, mut at: usize, cache: &mut Cache, tokens: &mut Vec<String>) {
        let bytes = text.bytes;
        while at < bytes.len() && bytes[at] != b'\n' {
            if bytes[at] == b' ' {
                at += 1;
                continue;
            }
            let input = Input::new(bytes).range(at..).anchored(Anchored::Yes);
            let found = self.dfa.try_search_fwd(cache, &input).ok().flatten();
            let Some(found) = found else {
                at += 1;
                continue;
            };
            let rule = &self.rules[found.pattern().as_usize()];
            let matched = &bytes[at..found.offset()];
            let length = matched.len() - looked_ahead(rule.ahead, matched);
            let (end, next) = match rule.action {
                Action::First(n) => (at + n, at + n),
                Action::Without(n) => (at + length - n, at + length - n),
                Action::LastAgain => (at + length, at + length - 1),
                _ => (at + length, at + length),
            };
            let raw = text.slice(at, end);
            match rule.action {
                Action::Skip => {}
                Action::Put(token) => tokens.push(token.to_owned()),
                Action::Word => {
                    let word: String =
                        raw.replace("&amp;", "&").chars().filter(|&c| c != '\u{ad}').collect::<String>().to_lowercase();
                    tokens.push(if word.is_empty() { "-".to_owned() } else { word });
                }
                Action::Markup => tokens.push(no_break(raw).to_lowercase()),
                Action::Joined => {
                    tokens.push(no_break(raw).replace('(', "-lrb-").replace(')', "-rrb-").to_lowercase());
                }
                Action::Apostrophe => {
                    tokens.push(
                        raw.replace(['\u{92}', '\u{2019}'], "'")
                            .replace("&apos;", "'")
                            .replace('\u{2018}', "`")
                            .to_lowercase(),
                    );
                }
                Action::Keep | Action::First(_) | Action::Without(_) | Action::LastAgain => {
                    tokens.push(raw.to_lowercase());
                }
                Action::Quotes => tokens.push(
                    raw.chars()
                        .map(|c| match byte_of(c) {
                            b if b == Class::OpenDouble as u8 => "``",
                            b if b == Class::CloseDouble as u8 => "''",
                            b if b == Class::OpenSingle as u8 || b == b'`' => "`",
                            _ => "'",
                        })
                        .collect(),
                ),
                Action::Fraction => tokens.push(fraction(raw).to_owned()),
                Action::Currency => {
                    tokens.push(raw.replace(['\u{80}', '\u{a4}', '\u{20a0}', '\u{20ac}'], "$").to_lowercase());
                }
            }
            at = next.max(at + 1);
        }
    }
}

/// Blanks made no-break spaces, so that the token stays one.
fn no_break(raw: &str) -> String {
    raw.chars()
        .map(|c| if byte_of(c) == Class::Blank as u8 || c.is_ascii_whitespace() { '\u{a0}' } else { c })
        .collect()
}

/// A fraction of one character in ASCII.
fn fraction(raw: &str) -> &'static str {
    match raw {
        "\u{bc}" => "1/4",
        "\u{bd}" => "1/2",
        "\u{be}" => "3/4",
        "\u{2153}" => "1/3",
        _ => "2/3",
    }
}

/// How many characters at the end of a match are only looked at.
fn looked_ahead(ahead: Ahead, matched: &[u8]) -> usize {
    let is_apostrophe =
        |b: &u8| matches!(b, b'\'' | b'`') || *b == Class::CloseSingle as u8 || *b == Class::OpenSingle as u8;
    match ahead {
        Ahead::Chars(n) => n,
        Ahead::Apostrophe { and_one } => {
            let plain = matched.iter().rposition(is_apostrophe);
            let entity = matched.windows(6).rposition(|w| w == b"&apos;");
            let at = plain.max(entity).unwrap_or(matched.len());
            matched.len() - at + usize::from(and_one)
        }
        Ahead::AfterDot => {
            // The context starts with a blank or a digit, so the dot before the first of them ends the abbreviation.
            let dot = (1..matched.len()).find(|&i| matched[i - 1] == b'.' && !matched[i].is_ascii_alphabetic());
            dot.map_or(0, |start| matched.len() - start)
        }
    }
}

fn without_punctuation(tokens: &[String]) -> String {
    let mut line = String::new();
    for token in tokens {
        // The reference strips blanks at the end of the line and splits at single blanks.
        for part in token.trim_end_matches(is_python_space).split(' ') {
            if !PUNCTUATION.contains(&part) {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(part);
            }
        }
    }
    line
}

/// The joined captions, and the same as one byte a character.
struct Text<'a> {
    text: &'a str,
    bytes: &'a [u8],
    offsets: Option<&'a [usize]>,
}

impl Text<'_> {
    /// The characters from the `start`th to before the `end`th.
    fn slice(&self, start: usize, end: usize) -> &str {
        match self.offsets {
            Some(offsets) => &self.text[offsets[start]..offsets[end]],
            None => &self.text[start..end],
        }
    }
}
