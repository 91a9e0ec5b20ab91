//! Sentences to tokens, as the paper does: lower case, everything out that is no letter and no digit.

/// Lower-cases and splits at white space; inside a word punctuation vanishes without a split, as in Karpathy's files:
/// `dog's` → `dogs`, `t-shirt` → `tshirt`, `8:25` → `825`.
///
/// His files say nothing about what follows, so sense decides. Commas, semicolons, question and exclamation marks,
/// brackets, double quotes, and any punctuation or symbol outside ASCII do split. Combining marks stay with their
/// letter, so decomposed and Indic text survives. Chinese characters and Japanese kana, which are written without
/// spaces, are one token each.
pub fn tokenize(sentence: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut token = String::new();
    for c in sentence.chars() {
        if c.is_alphanumeric() || (is_combining(c) && !token.is_empty()) {
            if is_unspaced(c) && !token.is_empty() {
                tokens.push(std::mem::take(&mut token));
            }
            token.extend(c.to_lowercase());
            if is_unspaced(c) {
                tokens.push(std::mem::take(&mut token));
            }
        } else if !vanishes(c) && !token.is_empty() {
            tokens.push(std::mem::take(&mut token));
        }
    }
    if !token.is_empty() {
        tokens.push(token);
    }
    tokens
}

/// Punctuation that does not end a word.
fn vanishes(c: char) -> bool {
    match c {
        ',' | ';' | '!' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '"' => false,
        // Apostrophes, hyphens that are no dashes, the soft hyphen, joiners and direction marks.
        '’' | '‘' | 'ʼ' | '\u{2010}' | '\u{2011}' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' => {
            true
        }
        _ => c.is_ascii_punctuation(),
    }
}

/// Scripts written without spaces in which one character is close to a word.
fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{3005}'..='\u{3007}' | '\u{3041}'..='\u{3096}' | '\u{309d}'..='\u{309f}' | '\u{30a1}'..='\u{30fa}'
        | '\u{30fc}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ff9d}' | '\u{20000}'..='\u{323af}')
}

/// Combining marks that [`char::is_alphanumeric`] leaves out: accents and Indic, Thai and Arabic vowel signs.
fn is_combining(c: char) -> bool {
    matches!(c,
        '\u{0300}'..='\u{036f}' | '\u{0483}'..='\u{0489}' | '\u{0591}'..='\u{05c7}' | '\u{0610}'..='\u{061a}'
        | '\u{064b}'..='\u{065f}' | '\u{0670}' | '\u{0900}'..='\u{0903}' | '\u{093a}'..='\u{094f}'
        | '\u{0951}'..='\u{0957}' | '\u{0981}'..='\u{0983}' | '\u{09bc}'..='\u{09cd}' | '\u{0a01}'..='\u{0a4d}'
        | '\u{0a81}'..='\u{0acd}' | '\u{0b01}'..='\u{0b57}' | '\u{0b82}'..='\u{0bcd}' | '\u{0c00}'..='\u{0c56}'
        | '\u{0c81}'..='\u{0cd6}' | '\u{0d00}'..='\u{0d57}' | '\u{0e31}' | '\u{0e34}'..='\u{0e3a}'
        | '\u{0dca}' | '\u{0e47}'..='\u{0e4e}' | '\u{0ec8}'..='\u{0ece}' | '\u{0f71}'..='\u{0f84}'
        | '\u{1037}'..='\u{103a}' | '\u{17c9}'..='\u{17d3}' | '\u{3099}' | '\u{309a}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}'
        | '\u{fe20}'..='\u{fe2f}')
}

/// English words that name nothing to be seen. Other languages have none here.
const FUNCTION_WORDS: &str = include_str!("function_words.txt");

/// Whether a token is an English word that names nothing to be seen, `the` or `of`.
pub fn is_function_word(token: &str) -> bool {
    let lines = FUNCTION_WORDS.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_whitespace).any(|word| word == token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn function_words_are_found() {
        assert!(["a", "the", "your", "in"].into_iter().all(is_function_word));
        assert!(!["dog", "under", "two", "red", "", "#"].into_iter().any(is_function_word));
    }

    #[test]
    fn tokens_of() {
        let check = |sentence: &str, expected: &[&str]| assert_eq!(tokenize(sentence), expected, "{sentence:?}");
        check("A black dog is running .", &["a", "black", "dog", "is", "running"]);
        check("", &[]);
        check(" ... !", &[]);
        check("the dog's T-shirt", &["the", "dogs", "tshirt"]);
        check("5-year-old", &["5yearold"]);
        check(
            "A clock that says 8:25, ice skating/skiing.",
            &["a", "clock", "that", "says", "825", "ice", "skatingskiing"],
        );
        check("a dog,a cat(red) \"and\"me", &["a", "dog", "a", "cat", "red", "and", "me"]);
        check("Zwei Hunde–schön…ja", &["zwei", "hunde", "schön", "ja"]);
        check("两只狗，在跑。", &["两", "只", "狗", "在", "跑"]);
        check("犬がボールで", &["犬", "が", "ボ", "ー", "ル", "で"]);
        check("두 마리의 개", &["두", "마리의", "개"]);
        check("كلبان يركضان، معًا؟", &["كلبان", "يركضان", "معًا"]);
        check("หมาสองตัว", &["หมาสองตัว"]);
        check("ΔΎΟ ΣΚΎΛΟΙ", &["δύο", "σκύλοι"]);
        check("\u{feff}a\tdog\u{a0}runs\n", &["a", "dog", "runs"]);
        check("Zwei Hunde spielen im Schnee – schön!", &["zwei", "hunde", "spielen", "im", "schnee", "schön"]);
        check("Две собаки", &["две", "собаки"]);
        check("cafe\u{301} noir", &["cafe\u{301}", "noir"]);
        check("कुत्ता दौड़ता है", &["कुत्ता", "दौड़ता", "है"]);
        check("two🐕dogs", &["two", "dogs"]);
    }

    proptest::proptest! {
        #[test]
        fn tokens_are_their_own_tokens(sentence in proptest::prelude::any::<String>()) {
            let tokens = tokenize(&sentence);
            proptest::prop_assert!(tokens.iter().all(|token| !token.is_empty()));
            proptest::prop_assert_eq!(tokenize(&tokens.join(" ")), tokens);
        }
    }
}
