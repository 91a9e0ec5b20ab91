//! Sentences to tokens, as the paper does: lower case, everything that is no letter and no digit out.

/// Lower-cases and splits at every character that is neither a letter nor a digit in any script.
///
/// Apostrophes inside a word vanish without a split (`dog's` → `dogs`, as in Karpathy's files); combining marks
/// stay with their letter, so decomposed and Indic text survives.
pub fn tokenize(sentence: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut token = String::new();
    for c in sentence.chars() {
        if c.is_alphanumeric() || (is_combining(c) && !token.is_empty()) {
            token.extend(c.to_lowercase());
        } else if !matches!(c, '\'' | '’' | '\u{ad}' | '\u{200d}' | '\u{200c}') && !token.is_empty() {
            tokens.push(std::mem::take(&mut token));
        }
    }
    if !token.is_empty() {
        tokens.push(token);
    }
    tokens
}

/// Combining marks that [`char::is_alphanumeric`] leaves out: accents and Indic, Thai and Arabic vowel signs.
fn is_combining(c: char) -> bool {
    matches!(c,
        '\u{0300}'..='\u{036f}' | '\u{0483}'..='\u{0489}' | '\u{0591}'..='\u{05c7}' | '\u{0610}'..='\u{061a}'
        | '\u{064b}'..='\u{065f}' | '\u{0670}' | '\u{0900}'..='\u{0903}' | '\u{093a}'..='\u{094f}'
        | '\u{0951}'..='\u{0957}' | '\u{0981}'..='\u{0983}' | '\u{09bc}'..='\u{09cd}' | '\u{0a01}'..='\u{0a4d}'
        | '\u{0a81}'..='\u{0acd}' | '\u{0b01}'..='\u{0b57}' | '\u{0b82}'..='\u{0bcd}' | '\u{0c00}'..='\u{0c56}'
        | '\u{0c81}'..='\u{0cd6}' | '\u{0d00}'..='\u{0d57}' | '\u{0e31}' | '\u{0e34}'..='\u{0e3a}'
        | '\u{0e47}'..='\u{0e4e}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}'
        | '\u{fe20}'..='\u{fe2f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of() {
        let check = |sentence: &str, expected: &[&str]| assert_eq!(tokenize(sentence), expected, "{sentence:?}");
        check("A black dog is running .", &["a", "black", "dog", "is", "running"]);
        check("", &[]);
        check(" ... !", &[]);
        check("the dog's T-shirt", &["the", "dogs", "t", "shirt"]);
        check("5-year-old", &["5", "year", "old"]);
        check("Zwei Hunde spielen im Schnee – schön!", &["zwei", "hunde", "spielen", "im", "schnee", "schön"]);
        check("Две собаки", &["две", "собаки"]);
        check("cafe\u{301} noir", &["cafe\u{301}", "noir"]);
        check("कुत्ता दौड़ता है", &["कुत्ता", "दौड़ता", "है"]);
        check("two🐕dogs", &["two", "dogs"]);
    }
}
