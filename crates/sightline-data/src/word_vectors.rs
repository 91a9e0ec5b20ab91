//! Word vectors made elsewhere: word2vec's text and binary files, and GloVe's. Only the words asked for are kept.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use rustc_hash::FxHashMap;

use crate::{Error, Result, Vocabulary};

/// Vectors of some words.
#[derive(Debug, Clone, PartialEq)]
pub struct WordVectors {
    /// Length of a vector.
    pub dim: usize,
    /// By word.
    pub by_word: FxHashMap<String, Vec<f32>>,
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// The longest word that is believed; beyond it the file is no word vectors.
const LONGEST_WORD: u64 = 1000;
/// The longest vector that is believed, likewise.
const LONGEST_VECTOR: usize = 65_536;

/// Reads the vectors of a vocabulary's words. The form is told by the content: word2vec's begins with a line of two
/// numbers (words, dim) and goes on in text or in binary; GloVe's has no such line.
pub fn read_word_vectors(path: &Path, vocabulary: &Vocabulary) -> Result<WordVectors> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut line = Vec::new();
    read_until(&mut reader, b'\n', &mut line, path)?;
    if line.starts_with(BYTE_ORDER_MARK) {
        line.drain(..BYTE_ORDER_MARK.len());
    }
    let first = String::from_utf8_lossy(&line).trim_end().to_owned();
    let fields: Vec<&str> = first.split(' ').collect();
    if let [words, dim] = fields[..]
        && let (Ok(words), Ok(dim)) = (words.parse::<u64>(), dim.parse::<usize>())
    {
        if dim == 0 {
            return Err(Error::format(path, "vectors of length 0"));
        }
        if dim > LONGEST_VECTOR {
            let message = format!("vectors of length {dim}, expected at most {LONGEST_VECTOR}: no word vectors");
            return Err(Error::format(path, message));
        }
        read_until(&mut reader, b'\n', &mut line, path)?;
        let is_text = is_text(&line, dim);
        let rest = BufReader::new(std::io::Cursor::new(line).chain(reader));
        let read = if is_text { read_text } else { read_binary };
        let (vectors, found) = read(rest, dim, vocabulary, path)?;
        if found < words {
            let message = format!("ends after {found} of {words} vectors: the file is truncated");
            return Err(Error::format(path, message));
        }
        return Ok(vectors);
    }
    let dim = fields.len().saturating_sub(1);
    if dim < 2 || fields[1..].iter().any(|x| x.parse::<f32>().is_err()) {
        return Err(Error::format(
            path,
            "not word vectors: expected word2vec (text or binary) or GloVe, a word and its numbers a line",
        ));
    }
    let rest = std::io::Cursor::new(line).chain(reader);
    Ok(read_text(BufReader::new(rest), dim, vocabulary, path)?.0)
}

/// Whether the line after the header is of a text, in whatever script its word is: it ends in `dim` numbers, or at least
/// it can be read, so that the reader of texts says what is wrong with it.
fn is_text(line: &[u8], dim: usize) -> bool {
    let is_vector = |text: &str| {
        let fields: Vec<&str> = text.trim_end().rsplitn(dim + 1, ' ').collect();
        fields.len() == dim + 1 && fields[..dim].iter().all(|x| x.parse::<f32>().is_ok())
    };
    is_vector(&String::from_utf8_lossy(line))
        || std::str::from_utf8(line).is_ok_and(|text| !text.trim_end().contains(|c: char| c.is_control() && c != '\t'))
}

fn read_until(reader: &mut impl BufRead, end: u8, out: &mut Vec<u8>, path: &Path) -> Result<()> {
    out.clear();
    reader.take(1 << 20).read_until(end, out).map_err(Error::io("read", path))?;
    Ok(())
}

/// The vectors of a vocabulary's words, and the number of all.
fn read_text(mut reader: impl BufRead, dim: usize, vocabulary: &Vocabulary, path: &Path) -> Result<(WordVectors, u64)> {
    let mut by_word = FxHashMap::default();
    let mut line = Vec::new();
    let mut found = 0;
    loop {
        read_until(&mut reader, b'\n', &mut line, path)?;
        if line.is_empty() {
            return Ok((WordVectors { dim, by_word }, found));
        }
        found += 1;
        let text = String::from_utf8_lossy(&line);
        // A word may hold spaces in some collections; the numbers are the last fields.
        let fields: Vec<&str> = text.trim_end().rsplitn(dim + 1, ' ').collect();
        let Some((&word, numbers)) = fields.split_last().filter(|(_, numbers)| numbers.len() == dim) else {
            return Err(Error::format(path, format!("vector {found}: expected a word and {dim} numbers")));
        };
        if vocabulary.get(word).is_some() {
            let vector: std::result::Result<Vec<f32>, _> = numbers.iter().rev().map(|x| x.parse::<f32>()).collect();
            let vector = vector.map_err(|e| Error::format(path, format!("vector {found}, the word {word}: {e}")))?;
            by_word.insert(word.to_owned(), finite(vector, word, path)?);
        }
    }
}

/// As [`read_text`].
fn read_binary(
    mut reader: impl BufRead,
    dim: usize,
    vocabulary: &Vocabulary,
    path: &Path,
) -> Result<(WordVectors, u64)> {
    let mut by_word = FxHashMap::default();
    let mut found = 0;
    let (mut word, mut bytes) = (Vec::new(), vec![0u8; 4 * dim]);
    loop {
        word.clear();
        (&mut reader).take(LONGEST_WORD).read_until(b' ', &mut word).map_err(Error::io("read", path))?;
        // Most writers end a vector with a line break: it stands before the next word, or at the end alone.
        if word.is_empty() || word == b"\n" {
            return Ok((WordVectors { dim, by_word }, found));
        }
        if word.pop() != Some(b' ') {
            return Err(Error::format(path, "ends inside a word: the file is truncated, or no word2vec binary"));
        }
        reader.read_exact(&mut bytes).map_err(|_| {
            Error::format(
                path,
                format!("ends inside the vector of {}: the file is truncated", String::from_utf8_lossy(&word)),
            )
        })?;
        found += 1;
        let word = String::from_utf8_lossy(&word).trim_start_matches('\n').to_owned();
        if vocabulary.get(&word).is_some() {
            let vector = bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
            let vector = finite(vector, &word, path)?;
            by_word.insert(word, vector);
        }
    }
}

/// The vector of a word, refused where a number of it is none.
fn finite(vector: Vec<f32>, word: &str, path: &Path) -> Result<Vec<f32>> {
    match vector.iter().find(|x| !x.is_finite()) {
        Some(x) => Err(Error::format(path, format!("the vector of {word} holds {x}: take the word out, or mend it"))),
        None => Ok(vector),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        let sentences = [vec!["dog".to_owned(), "snow".to_owned()]];
        Vocabulary::from_sentences(sentences.iter().map(Vec::as_slice), 1)
    }

    fn read(bytes: &[u8]) -> Result<WordVectors> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        std::fs::write(&path, bytes).unwrap();
        read_word_vectors(&path, &vocabulary())
    }

    #[test]
    fn all_three_forms_give_the_same() {
        let binary = |end: &str| {
            let mut bytes = b"3 3\n".to_vec();
            for (word, vector) in [("cat", [9.0f32, 9.0, 9.0]), ("dog", [1.0, -0.5, 2.0]), ("snow", [0.25, 0.0, 4.0])] {
                bytes.extend(word.bytes().chain([b' ']));
                bytes.extend(vector.iter().flat_map(|x| x.to_le_bytes()));
                bytes.extend(end.bytes());
            }
            bytes
        };
        let glove = "cat 9 9 9\ndog 1 -0.5 2\nsnow 0.25 0 4\n";
        let [glove, counted] = [glove.to_owned(), format!("3 3\n{glove}")];
        let marked = [&glove, &counted].map(|text| format!("\u{feff}{text}"));
        let texts = [glove, counted].into_iter().chain(marked).map(String::into_bytes);
        for bytes in texts.chain([binary("\n"), binary("")]) {
            let vectors = read(&bytes).unwrap();
            assert_eq!(vectors.dim, 3);
            assert_eq!(vectors.by_word["dog"], [1.0, -0.5, 2.0]);
            assert_eq!(vectors.by_word["snow"], [0.25, 0.0, 4.0]);
            assert_eq!(vectors.by_word.len(), 2);
        }
    }

    #[test]
    fn words_of_any_script_are_text() {
        for first in ["собака 9 9 9", "犬 9 9 9", "the\u{a0}dog 9 9 9", "\u{7f} 9 9 9"] {
            let vectors = read(format!("2 3\n{first}\ndog 1 -0.5 2 \n").as_bytes()).unwrap();
            assert_eq!((vectors.dim, vectors.by_word["dog"].as_slice()), (3, &[1.0, -0.5, 2.0][..]), "{first}");
        }
        // A word that is not even UTF-8, as word2vec cuts some.
        let vectors = read(b"2 3\n\xd0 9 9 9\ndog 1 -0.5 2\n").unwrap();
        assert_eq!(vectors.by_word["dog"], [1.0, -0.5, 2.0]);
    }

    #[test]
    fn what_is_no_vectors_says_so() {
        for (bytes, message) in [
            (&b"hello world\n"[..], "not word vectors"),
            (b"", "not word vectors"),
            (b"2 0\n", "length 0"),
            (b"dog 1 2 3\nsnow 1 2\n", "vector 2: expected a word and 3 numbers"),
            (b"dog 1 2 3\nsnow 1 x 3\n", "the word snow"),
            (b"dog 1 2 3\nsnow 1 nan 3\n", "the vector of snow holds NaN"),
            (b"1 1\ndog \x00\x00\x80\x7f\n", "the vector of dog holds inf"),
            (b"1 3\ndog \x00\x00\x80\x3f\x00", "truncated"),
            (b"3 1\ndog 1\nsnow 2\n", "ends after 2 of 3 vectors"),
            (b"2 1\ndog \x00\x00\x80\x3f", "ends after 1 of 2 vectors"),
            ("2 3\nсобака 1 2\n".as_bytes(), "vector 1: expected a word and 3 numbers"),
            (b"1 65537\ndog \x00", "length 65537, expected at most 65536"),
            (b"1 18446744073709551615\ndog \x00", "expected at most 65536"),
        ] {
            let error = read(bytes).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
