//! METEOR's normaliser: what it does to a line before words are split.
//!
//! The reference applies a list of replacements with three-character contexts, each from left to right without
//! overlap; the passes below do the same, in the same order.

use rustc_hash::FxHashMap;

/// Abbreviations that keep their dot: any, or (true) only before a number.
#[derive(Debug, Clone, Default)]
pub(super) struct Prefixes {
    numeric_only: FxHashMap<String, bool>,
}

impl Prefixes {
    /// Parses the list of non-breaking prefixes, one a line, `#` starting a comment.
    pub(super) fn parse(text: &str) -> Self {
        let mut numeric_only = FxHashMap::default();
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            match line.split_once("#NUMERIC_ONLY#") {
                Some((word, _)) => numeric_only.insert(word.trim().to_owned(), true),
                None => numeric_only.insert(line.to_owned(), false),
            };
        }
        Self { numeric_only }
    }
}

/// A protected run of dots is this plus its length, beyond all characters.
const DOTS: u32 = 0x11_0000;

fn is_alphabetic(c: u32) -> bool {
    matches!(c,
        0x41..=0x5a | 0x61..=0x7a | 0x160 | 0x161 | 0x17d | 0x17e | 0x178 | 0xc0..=0xd6 | 0xd8..=0xf6 | 0xf8..=0x17e
        | 0x400..=0x527 | 0xa640..=0xa66e | 0xa67e..=0xa697 | 0x1d00..=0x1d7f)
}

fn is_digit(c: u32) -> bool {
    (0x30..=0x39).contains(&c)
}

fn is_alphanumeric(c: u32) -> bool {
    is_alphabetic(c) || is_digit(c)
}

fn is_ascii_space(c: u32) -> bool {
    matches!(c, 0x20 | 0x09..=0x0d)
}

const SPACE: u32 = ' ' as u32;
const APOSTROPHE: u32 = '\'' as u32;
const COMMA: u32 = ',' as u32;
const DOT: u32 = '.' as u32;
const HYPHEN: u32 = '-' as u32;

/// Where three characters in a row satisfy `holds`, puts the middle as `middle`; goes on after the third.
fn replace_middle(text: &[u32], holds: impl Fn(u32, u32, u32) -> bool, middle: &[u32]) -> Vec<u32> {
    let mut out = Vec::with_capacity(text.len() + 8);
    let mut at = 0;
    while at < text.len() {
        if let [a, b, c, ..] = text[at..]
            && holds(a, b, c)
        {
            out.push(a);
            out.extend_from_slice(middle);
            out.push(c);
            at += 3;
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
    out
}

/// The normalised line, lower-cased, words parted by single blanks.
pub(super) fn normalise(line: &str, prefixes: &Prefixes) -> String {
    if let Some(simple) = plain(line) {
        return simple;
    }
    let mut text = vec![SPACE];
    // 1: blanks around every other sign; 2: runs of dots become one token.
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let code = c as u32;
        if c == '.' && chars.peek() == Some(&'.') {
            let mut run = 1;
            while chars.next_if_eq(&'.').is_some() {
                run += 1;
            }
            text.extend([SPACE, DOTS + run, SPACE]);
        } else if is_alphanumeric(code)
            || is_ascii_space(code)
            || matches!(c, '.' | '\'' | '`' | ',' | '-' | '\u{2018}' | '\u{2019}')
        {
            text.push(code);
        } else {
            text.extend([SPACE, code, SPACE]);
        }
    }
    text.push(SPACE);
    // 3: commas not between two digits.
    let comma = [SPACE, COMMA, SPACE];
    text = replace_middle(&text, |a, b, c| b == COMMA && !is_digit(a) && !is_digit(c), &comma);
    text = replace_middle(&text, |a, b, c| b == COMMA && is_digit(a) && !is_digit(c), &comma);
    text = replace_middle(&text, |a, b, c| b == COMMA && !is_digit(a) && is_digit(c), &comma);
    // 4: quotes.
    for c in &mut text {
        if matches!(*c, 0x60 | 0x2018 | 0x2019) {
            *c = APOSTROPHE;
        }
    }
    let mut quoted = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let double = text[at] == APOSTROPHE && text.get(at + 1) == Some(&APOSTROPHE);
        if double || matches!(text[at], 0x201c | 0x201d) {
            quoted.extend([SPACE, '"' as u32, SPACE]);
            at += 1 + usize::from(double);
        } else {
            quoted.push(text[at]);
            at += 1;
        }
    }
    // 5: dashes.
    let mut dashed: Vec<u32> = Vec::with_capacity(quoted.len());
    let mut at = 0;
    while at < quoted.len() {
        let c = if quoted[at] == 0x2013 { HYPHEN } else { quoted[at] };
        dashed.push(c);
        at += 1;
    }
    let mut single = Vec::with_capacity(dashed.len());
    let mut at = 0;
    while at < dashed.len() {
        single.push(dashed[at]);
        at += if dashed[at] == HYPHEN && dashed.get(at + 1) == Some(&HYPHEN) { 2 } else { 1 };
    }
    // 6: hyphens inside words.
    text = replace_middle(
        &single,
        |a, b, c| b == HYPHEN && (is_alphanumeric(a) || a == DOT) && is_alphanumeric(c),
        &[SPACE],
    );
    // 7: apostrophes.
    let alone = [SPACE, APOSTROPHE, SPACE];
    let before = [SPACE, APOSTROPHE];
    let (word, not_word) = (is_alphabetic, |c: u32| !is_alphabetic(c));
    text = replace_middle(&text, |a, b, c| b == APOSTROPHE && not_word(a) && not_word(c), &alone);
    text = replace_middle(&text, |a, b, c| b == APOSTROPHE && !is_alphanumeric(a) && word(c), &alone);
    text = replace_middle(&text, |a, b, c| b == APOSTROPHE && word(a) && not_word(c), &alone);
    text = replace_middle(&text, |a, b, c| b == APOSTROPHE && word(a) && word(c), &before);
    text = replace_middle(&text, |a, b, c| b == APOSTROPHE && is_digit(a) && c == 's' as u32, &before);
    // 8: dots at the end of words.
    let words: Vec<&[u32]> = text.split(|&c| is_ascii_space(c)).filter(|w| !w.is_empty()).collect();
    let mut out = String::with_capacity(line.len() + 8);
    for (i, word) in words.iter().enumerate() {
        let next = words.get(i + 1).copied().and_then(<[u32]>::first).copied();
        push_word(&mut out, word, next, prefixes);
    }
    // 9: all kinds of blanks squeezed, ends trimmed, lower case.
    squeeze(&out).to_lowercase()
}

/// Lines of nothing but ASCII letters, digits and single blanks stay as they are, but for case.
fn plain(line: &str) -> Option<String> {
    let plain = line.bytes().all(|b| b.is_ascii_alphanumeric() || b == b' ');
    plain.then(|| squeeze(line).to_ascii_lowercase())
}

fn push_word(out: &mut String, word: &[u32], next: Option<u32>, prefixes: &Prefixes) {
    let push = |out: &mut String, word: &[u32]| {
        for &c in word {
            match char::from_u32(c) {
                Some(c) => out.push(c),
                None => out.extend(std::iter::repeat_n('.', (c - DOTS) as usize)),
            }
        }
    };
    match word.split_last() {
        Some((&DOT, rest)) if !rest.is_empty() => {
            let text: String = rest.iter().filter_map(|&c| char::from_u32(c)).collect();
            let kind = prefixes.numeric_only.get(&text);
            if rest.contains(&DOT) && rest.iter().any(|&c| is_alphabetic(c)) {
                let bare: Vec<u32> = rest.iter().copied().filter(|&c| c != DOT).collect();
                push(out, &bare);
            } else if kind == Some(&false)
                || next.is_some_and(|c| (0x61..=0x7a).contains(&c))
                || (kind == Some(&true) && next.is_some_and(is_digit))
            {
                push(out, word);
            } else {
                push(out, rest);
                out.push_str(" .");
            }
        }
        _ => push(out, word),
    }
    out.push(' ');
}

fn squeeze(text: &str) -> String {
    let is_blank = |c: char| matches!(c, ' ' | '\t'..='\r' | '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}');
    let mut out = String::with_capacity(text.len());
    for word in text.split(is_blank).filter(|w| !w.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        let prefixes = Prefixes::parse("# comment\nmr\nno #NUMERIC_ONLY#\n");
        assert_eq!(normalise(line, &prefixes), expected, "{line}");
    }

    #[test]
    fn follows_the_description() {
        check("A t-shirt", "a t shirt");
        check("it 's", "it ' s");
        check("o'clock 1990's", "o 'clock 1990 's");
        check("u.s. dogs", "us dogs");
        check("mr. X", "mr. x");
        check("no. 5", "no. 5");
        check("no. X", "no . x");
        check("the end.", "the end .");
        check("wait... what", "wait ... what");
        check("1,000 dogs, cats", "1,000 dogs , cats");
        check("``hi''", "\" hi \"");
        check("a--b", "a b");
        check("plain  words ", "plain words");
        check("", "");
    }
}
