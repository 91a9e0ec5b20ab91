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

/// About how many em a text takes in bold sans-serif; rather too much than too little, after the widest of the fonts
/// that the page's style names (DejaVu Sans).
pub(super) fn text_em(text: &str) -> f32 {
    let em = |c: char| match c {
        'i' | 'j' | 'l' | '\'' | '.' | ',' | ':' | '|' | '!' | ' ' => 0.37,
        'f' | 't' | 'r' | 's' | 'I' | '(' | ')' => 0.5,
        'm' | 'w' | 'M' | 'W' | '@' => 1.05,
        'A'..='Z' => 0.82,
        '\u{300}'..='\u{36f}' => 0.0,
        c if (c as u32) < 0x1100 => 0.71,
        _ => 1.05,
    };
    text.chars().map(em).sum()
}

/// The text cut to `max_em`, with an ellipsis where something is missing.
pub(super) fn shorten(text: &str, max_em: f32) -> String {
    if text_em(text) <= max_em {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut room = max_em - text_em("…");
    for c in text.chars() {
        room -= text_em(c.encode_utf8(&mut [0; 4]));
        if room < 0.0 {
            break;
        }
        short.push(c);
    }
    short + "…"
}

/// Lines of at most `max_em`, broken at blanks, at most `max_lines` of them; the last ends in an ellipsis where
/// something is missing.
pub(super) fn wrap(text: &str, max_em: f32, max_lines: usize) -> Vec<String> {
    let ellipsis = " …";
    let max_em = max_em - text_em(ellipsis);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let word = shorten(word, max_em);
        let full = lines.len() == max_lines;
        match lines.last_mut() {
            Some(line) if text_em(line) + text_em(" ") + text_em(&word) <= max_em => {
                line.push(' ');
                line.push_str(&word);
            }
            Some(line) if full => {
                line.push_str(ellipsis);
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
        assert_eq!(shorten("abcdef", 4.3), "abcdef");
        assert_eq!(shorten("abcdefg", 4.3), "abcd…");
        assert_eq!(shorten("猫猫猫猫", 3.2), "猫猫…");
        assert_eq!(wrap("one two three four five", 6.5, 2), ["one two", "three …"]);
        assert_eq!(wrap("one two three", 6.5, 3), ["one two", "three"]);
        assert_eq!(wrap("", 4.0, 3), ["–"]);
    }
}
