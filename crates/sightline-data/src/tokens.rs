//! Sentences to tokens, as the paper does: lower case, everything out that is no letter and no digit.

use unicode_normalization::UnicodeNormalization as _;

/// Lower-cases and splits at white space; inside a word punctuation vanishes without a split, as in Karpathy's files:
/// `dog's` → `dogs`, `t-shirt` → `tshirt`, `8:25` → `825`.
///
/// His files say nothing about what follows, so sense decides. Commas, semicolons, question and exclamation marks,
/// brackets, double quotes, and any punctuation or symbol outside ASCII do split. Combining marks stay with their
/// letter, and what Unicode has a letter for becomes that letter (NFC), however it was typed. Chinese characters and
/// Japanese kana, which are written without spaces, are one token each.
pub fn tokenize(sentence: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut token = String::new();
    let mut end = |token: &mut String| {
        if !token.is_empty() {
            // Marks may have come behind a letter only now that what stood between has vanished.
            tokens.push(token.nfc().collect());
            token.clear();
        }
    };
    for c in sentence.nfc() {
        if c.is_alphanumeric() || (is_combining(c) && !token.is_empty()) {
            if is_unspaced(c) {
                end(&mut token);
            }
            token.extend(c.to_lowercase());
            if is_unspaced(c) {
                end(&mut token);
            }
        } else if ends_word(c) {
            end(&mut token);
        }
    }
    end(&mut token);
    tokens
}

/// As [`tokenize`] for who knows some words only: a word unknown to them falls into the parts between its punctuation
/// where one of these is known. `man/woman` is two words to who knows a man, `t-shirt` is one to who knows a tshirt.
pub fn tokenize_for(sentence: &str, knows: impl Fn(&str) -> bool) -> Vec<String> {
    let mut tokens = Vec::new();
    // As composed letters first: that may move marks past each other, over the end of a word too.
    let sentence: String = sentence.nfc().collect();
    for word in sentence.split(ends_word) {
        let whole = tokenize(word);
        let parts = || word.split(vanishes).flat_map(tokenize).collect::<Vec<_>>();
        let fallen = (!whole.iter().all(|token| knows(token))).then(parts);
        tokens.extend(fallen.filter(|parts| parts.iter().any(|part| knows(part))).unwrap_or(whole));
    }
    tokens
}

fn ends_word(c: char) -> bool {
    !c.is_alphanumeric() && !is_combining(c) && !vanishes(c)
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
        check("cafe\u{301} noir, E\u{301}te\u{301}", &["caf\u{e9}", "noir", "\u{e9}t\u{e9}"]);
        check("か\u{3099}", &["が"]);
        check("कुत्ता दौड़ता है", &["कुत्ता", "दौड़ता", "है"]);
        check("two🐕dogs", &["two", "dogs"]);
    }

    #[test]
    fn unknown_words_fall_apart() {
        let known = ["man", "woman", "tshirt", "black", "and", "white", "dog", "läuft"];
        let check = |sentence: &str, expected: &[&str]| {
            let tokens = tokenize_for(sentence, |word| known.contains(&word));
            assert_eq!(tokens, expected, "{sentence:?}");
        };
        check("man/woman", &["man", "woman"]);
        check("A black-and-white dog, t-shirt", &["a", "black", "and", "white", "dog", "tshirt"]);
        check("a T-shirt's 8:25", &["a", "tshirts", "825"]);
        check("dog_cat.jpg", &["dog", "cat", "jpg"]);
        check("Ein Hund la\u{308}uft", &["ein", "hund", "läuft"]);
        check("¹\u{1e023}\u{115bf}", &["¹", "\u{1e023}"]);
    }

    proptest::proptest! {
        #[test]
        fn whoever_knows_all_or_nothing_has_the_usual_tokens(sentence in proptest::prelude::any::<String>()) {
            for knows in [true, false] {
                proptest::prop_assert_eq!(tokenize_for(&sentence, |_| knows), tokenize(&sentence));
            }
        }

        #[test]
        fn tokens_are_their_own_tokens(sentence in proptest::prelude::any::<String>()) {
            let tokens = tokenize(&sentence);
            proptest::prop_assert!(tokens.iter().all(|token| !token.is_empty()));
            proptest::prop_assert_eq!(tokenize(&tokens.join(" ")), tokens);
        }
    }
}
