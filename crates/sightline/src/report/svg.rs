//! Text for HTML and SVG: escaping, numbers, and how wide a word will be.

/// `text` safe inside elements and quoted attributes; control characters become U+FFFD.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(' '),
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// A score with two decimals and a true minus sign.
pub(super) fn score(value: f32) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let digits = format!("{:.2}", value.abs());
    if value < 0.0 && digits != "0.00" { format!("−{digits}") } else { digits }
}

/// About how many em a text takes in a sans-serif font; rather too much than too little.
pub(super) fn text_em(text: &str) -> f32 {
    let em = |c: char| match c {
        'i' | 'j' | 'l' | '\'' | '.' | ',' | ':' | '|' | '!' => 0.28,
        'f' | 't' | 'r' | ' ' | 'I' | '(' | ')' => 0.38,
        'm' | 'w' | 'M' | 'W' | '@' => 0.92,
        'A'..='Z' => 0.72,
        '\u{300}'..='\u{36f}' => 0.0,
        c if (c as u32) < 0x1100 => 0.59,
        _ => 1.05,
    };
    text.chars().map(em).sum()
}

/// The text cut to `max_chars`, with an ellipsis where something is missing.
pub(super) fn shorten(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        None => text.to_owned(),
        Some(_) => text.chars().take(max_chars - 1).chain(['…']).collect(),
    }
}

/// Lines of at most `max_em`, broken at blanks, at most `max_lines` of them.
pub(super) fn wrap(text: &str, max_em: f32, max_lines: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let word = shorten(word, 30);
        let full = lines.len() == max_lines;
        match lines.last_mut() {
            Some(line) if text_em(line) + 0.38 + text_em(&word) <= max_em => {
                line.push(' ');
                line.push_str(&word);
            }
            Some(line) if full => {
                line.push_str(" …");
                break;
            }
            _ => lines.push(word),
        }
    }
    if lines.is_empty() {
        lines.push("–".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_survives_escaping() {
        let check = |text: &str, expected: &str| assert_eq!(escape(text), expected);
        check(
            "<script>alert('x') & \"y\"</script>",
            "&lt;script&gt;alert(&#39;x&#39;) &amp; &quot;y&quot;&lt;/script&gt;",
        );
        check("a\u{0}b\u{1b}c\nd", "a\u{fffd}b\u{fffd}c d");
        check("schön 猫", "schön 猫");
    }

    #[test]
    fn scores_read_well() {
        let check = |value: f32, expected: &str| assert_eq!(score(value), expected);
        check(1.305, "1.30");
        check(-0.06, "−0.06");
        check(-0.001, "0.00");
        check(12.0, "12.00");
        check(f32::NAN, "–");
    }

    #[test]
    fn text_is_cut_and_wrapped() {
        assert_eq!(shorten("abcdef", 6), "abcdef");
        assert_eq!(shorten("abcdefg", 6), "abcde…");
        assert_eq!(wrap("one two three four five", 5.0, 2), ["one two", "three four …"]);
        assert_eq!(wrap("one two three", 4.0, 3), ["one two", "three"]);
        assert_eq!(wrap("", 4.0, 3), ["–"]);
    }
}
