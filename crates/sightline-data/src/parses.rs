//! Dependency trees of sentences, read from a CoNLL-U file (<https://universaldependencies.org/format.html>) that some
//! parser wrote. docs/parses.md says how such a file comes about.
//!
//! A sentence is found by its comment `# sent_id = N`, `N` the sentence's id in the dataset. Of a token's ten columns the id,
//! the form, the head and the relation are read; ranges (`1-2`) and empty nodes (`8.1`) are passed over.

use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;

use crate::tokens::tokenize;
use crate::{Error, Result};

/// What stands above the root of a tree.
const ROOT: usize = 0;

/// The trees of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Parses {
    path: PathBuf,
    trees: FxHashMap<u64, Tree>,
    /// Relations by index, in the order in which the file names them.
    relations: Vec<String>,
}

/// The tokens of one sentence, in order.
#[derive(Debug, Clone, PartialEq, Default)]
struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq)]
struct Node {
    /// The form as the dataset's tokens are written, without spaces; empty for punctuation.
    form: String,
    /// The token above, from 1; [`ROOT`] above the root.
    head: usize,
    /// Index in [`Parses::relations`].
    relation: usize,
}

/// The edge that ends at one of a sentence's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WordEdge<'a> {
    /// Index of the word above; `None` above the root.
    pub head: Option<usize>,
    /// What the word is to the one above, `nsubj` or `nmod:poss` say.
    pub relation: &'a str,
}

impl Parses {
    /// Reads a file; an error names the first line that is not CoNLL-U.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let parses = Self { path: path.to_owned(), trees: FxHashMap::default(), relations: Vec::new() };
        parses.parse(&bytes).map_err(|(line, message)| Error::format(path, format!("line {line}: {message}")))
    }

    fn parse(mut self, bytes: &[u8]) -> Result<Self, (usize, String)> {
        let mut relations: FxHashMap<String, usize> = FxHashMap::default();
        let mut sentence = Unfinished::default();
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        let mut last = 0;
        for (i, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            last = i + 1;
            let at = |message: String| (last, message);
            let line = str::from_utf8(line).map_err(|_| at("not UTF-8 text: expected CoNLL-U".into()))?;
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.trim().is_empty() {
                self.push(std::mem::take(&mut sentence))?;
            } else if let Some(comment) = line.strip_prefix('#') {
                if let Some((key, id)) = comment.split_once('=')
                    && key.trim() == "sent_id"
                {
                    let id = id.trim();
                    let number = id.parse::<u64>().map_err(|_| {
                        at(format!("sent_id `{id}` is no sentence id of a dataset: expected a whole number"))
                    })?;
                    if sentence.id.replace(number).is_some() || !sentence.tree.nodes.is_empty() {
                        return Err(at("a second sent_id in one sentence: expected an empty line before it".into()));
                    }
                }
            } else {
                sentence.first_line.get_or_insert(last);
                sentence.token(line, last, &mut relations).map_err(at)?;
            }
        }
        self.push(sentence)?;
        let mut names: Vec<(String, usize)> = relations.into_iter().collect();
        names.sort_unstable_by_key(|&(_, index)| index);
        self.relations = names.into_iter().map(|(name, _)| name).collect();
        if self.trees.is_empty() {
            return Err((last, "no sentence: expected CoNLL-U".into()));
        }
        Ok(self)
    }

    /// Adds a sentence that has ended.
    fn push(&mut self, sentence: Unfinished) -> Result<(), (usize, String)> {
        let Some(first) = sentence.first_line else {
            return Ok(());
        };
        let Some(id) = sentence.id else {
            return Err((first, "a sentence without `# sent_id = N` before it".into()));
        };
        let n = sentence.tree.nodes.len();
        for (node, line) in sentence.tree.nodes.iter().zip(&sentence.lines) {
            if node.head > n {
                return Err((*line, format!("head {} in a sentence of {n} tokens", node.head)));
            }
        }
        match self.trees.insert(id, sentence.tree) {
            Some(_) => Err((first, format!("sentence {id} a second time"))),
            None => Ok(()),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of sentences.
    pub fn len(&self) -> usize {
        self.trees.len()
    }

    /// Whether there is no sentence; never after [`Parses::read`].
    pub fn is_empty(&self) -> bool {
        self.trees.is_empty()
    }

    /// The edge that ends at each of a sentence's words, in their order.
    ///
    /// Tokenisers differ: the dataset writes `dogs` where a parser has `dog` and `'s`. So tokens are matched with words by
    /// their letters and digits, which both take from the same sentence; a word of several tokens has the edge of the first
    /// that leads out of the word, and several words of one token share its edge.
    ///
    /// `None` where the sentence has no tree, or its tree is of other words.
    pub fn edges(&self, sentence: u64, words: &[String]) -> Option<Vec<WordEdge<'_>>> {
        let tree = self.trees.get(&sentence)?;
        let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<Vec<char>>();
        // Letter by letter: the token and the word that it belongs to.
        let of_tokens =
            tree.nodes.iter().enumerate().flat_map(|(i, n)| letters(&n.form).into_iter().map(move |c| (c, i)));
        let of_words = words.iter().enumerate().flat_map(|(i, w)| letters(w).into_iter().map(move |c| (c, i)));
        let (of_tokens, of_words): (Vec<_>, Vec<_>) = (of_tokens.collect(), of_words.collect());
        let same = of_tokens.iter().map(|(c, _)| c).eq(of_words.iter().map(|(c, _)| c));
        if !same {
            return None;
        }
        let mut first_word = vec![None; tree.nodes.len()];
        let mut tokens: Vec<Vec<usize>> = vec![Vec::new(); words.len()];
        for (&(_, token), &(_, word)) in of_tokens.iter().zip(&of_words) {
            first_word[token].get_or_insert(word);
            if tokens[word].last() != Some(&token) {
                tokens[word].push(token);
            }
        }
        let edge = |own: &Vec<usize>| {
            let leads_out =
                |&&token: &&usize| tree.nodes[token].head.checked_sub(1).is_none_or(|up| !own.contains(&up));
            // A word of no letter, a combining mark say, has no token; a circle of heads has no way out.
            let node = own.iter().find(leads_out).or(own.first()).map(|&token| &tree.nodes[token]);
            let head = node.filter(|node| node.head != ROOT).and_then(|node| first_word[node.head - 1]);
            WordEdge { head, relation: node.map_or("", |node| &self.relations[node.relation]) }
        };
        Some(tokens.iter().map(edge).collect())
    }
}

/// A sentence while it is read.
#[derive(Default)]
struct Unfinished {
    id: Option<u64>,
    first_line: Option<usize>,
    tree: Tree,
    /// The line of each token.
    lines: Vec<usize>,
}

impl Unfinished {
    /// Reads one line of ten columns.
    fn token(&mut self, line: &str, number: usize, relations: &mut FxHashMap<String, usize>) -> Result<(), String> {
        let columns: Vec<&str> = line.split('\t').collect();
        let &[id, form, _, _, _, _, head, relation, _, _] = &columns[..] else {
            return Err(format!("expected ten columns with tabs between them, got {}", columns.len()));
        };
        let passed_over = |mark: char| {
            id.split_once(mark).is_some_and(|(a, b)| a.parse::<usize>().is_ok() && b.parse::<usize>().is_ok())
        };
        if passed_over('-') || passed_over('.') {
            return Ok(());
        }
        let expected = self.tree.nodes.len() + 1;
        if id.parse() != Ok(expected) {
            return Err(format!("token `{id}` where token {expected} should stand"));
        }
        let head: usize = head.parse().map_err(|_| format!("head `{head}` of token {id} is no whole number"))?;
        if head == expected {
            return Err(format!("token {id} is its own head"));
        }
        if relation.is_empty() || relation == "_" {
            return Err(format!("token {id} has no relation to its head"));
        }
        let index = relations.len();
        let relation = *relations.entry(relation.to_owned()).or_insert(index);
        self.tree.nodes.push(Node { form: tokenize(form).concat(), head, relation });
        self.lines.push(number);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TINY: &str = include_str!("../tests/tiny.conllu");

    fn parse(text: &[u8]) -> Result<Parses, String> {
        let empty = Parses { path: "p".into(), trees: FxHashMap::default(), relations: Vec::new() };
        empty.parse(text).map_err(|(line, message)| format!("line {line}: {message}"))
    }

    fn edges(parses: &Parses, id: u64, sentence: &str) -> Vec<(Option<usize>, String)> {
        let words = tokenize(sentence);
        let edges = parses.edges(id, &words).unwrap_or_else(|| panic!("the tree of {sentence}"));
        assert_eq!(edges.len(), words.len(), "{sentence}");
        edges.into_iter().map(|edge| (edge.head, edge.relation.to_owned())).collect()
    }

    #[test]
    fn every_word_has_the_edge_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.conllu");
        std::fs::write(&path, TINY).unwrap();
        let parses = Parses::read(&path).unwrap();
        assert_eq!(parses.len(), 3);
        let check = |id: u64, sentence: &str, expected: &[(Option<usize>, &str)]| {
            let expected: Vec<_> = expected.iter().map(|&(head, relation)| (head, relation.to_owned())).collect();
            assert_eq!(edges(&parses, id, sentence), expected, "{sentence}");
        };
        check(0, "A black dog runs .", &[(Some(2), "det"), (Some(2), "amod"), (Some(3), "nsubj"), (None, "root")]);
        // `man's` is one word of two tokens, `can't` one that the parser counts as a range of two.
        check(
            7,
            "The man's dog can't swim.",
            &[(Some(1), "det"), (Some(2), "nmod:poss"), (Some(4), "nsubj"), (Some(4), "aux"), (None, "root")],
        );
        // Two words of one token share its edge.
        check(12, "New-York, snow", &[(Some(1), "nmod"), (None, "root")]);
        check(12, "New York, snow", &[(Some(2), "nmod"), (Some(2), "nmod"), (None, "root")]);
        assert_eq!(parses.edges(0, &tokenize("a black cat runs")), None, "a tree of other words");
        assert_eq!(parses.edges(1, &tokenize("a black dog runs")), None, "no tree");
    }

    #[test]
    fn the_first_wrong_line_is_named() {
        let token = |id: &str, head: &str, relation: &str| format!("{id}\tdog\t_\t_\t_\t_\t{head}\t{relation}\t_\t_\n");
        let with = |lines: &str| format!("# sent_id = 3\n{lines}");
        for (text, message) in [
            (with("1\tdog\n"), "line 2: expected ten columns with tabs between them, got 2"),
            (with(&token("2", "0", "root")), "line 2: token `2` where token 1 should stand"),
            (with(&token("x", "0", "root")), "line 2: token `x` where token 1 should stand"),
            (with(&token("1", "_", "root")), "line 2: head `_` of token 1 is no whole number"),
            (with(&token("1", "-1", "root")), "line 2: head `-1`"),
            (with(&token("1", "1", "root")), "line 2: token 1 is its own head"),
            (with(&token("1", "0", "_")), "line 2: token 1 has no relation"),
            (with(&(token("1", "0", "root") + &token("2", "4", "dep"))), "line 3: head 4 in a sentence of 2 tokens"),
            (token("1", "0", "root"), "line 1: a sentence without `# sent_id = N`"),
            ("# sent_id = dev-s1\n".into(), "line 1: sent_id `dev-s1` is no sentence id"),
            ("# sent_id = 1\n# sent_id = 2\n".into(), "line 2: a second sent_id"),
            (with(&(token("1", "0", "root") + "# sent_id = 4\n")), "line 3: a second sent_id"),
            (
                with(&(token("1", "0", "root") + "\n" + &with(&token("1", "0", "root")))),
                "line 5: sentence 3 a second time",
            ),
            ("# text = nothing\n".into(), "no sentence"),
            (String::new(), "no sentence"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(message), "{text:?}: {error}");
        }
        assert!(parse(b"# sent_id = 1\n\xff\n").unwrap_err().starts_with("line 2: not UTF-8"));
        let missing = Parses::read(Path::new("/no/such.conllu")).unwrap_err().to_string();
        assert!(missing.contains("no/such.conllu") && !missing.contains('\n'), "{missing}");
    }

    #[test]
    fn line_ends_and_a_mark_of_the_encoding_do_not_matter() {
        let other = format!("\u{feff}{}", TINY.trim_end().replace('\n', "\r\n"));
        assert_eq!(parse(other.as_bytes()), parse(TINY.as_bytes()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_file_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }

        /// The fixture with some bytes changed comes nearer to what a reader trips over.
        #[test]
        fn a_damaged_file_is_a_file_or_an_error(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            end in any::<prop::sample::Index>(),
        ) {
            let mut bytes = TINY.as_bytes().to_vec();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(end.index(bytes.len()) + 1);
            if let Ok(parses) = parse(&bytes) {
                for sentence in ["A black dog runs .", "The man's dog can't swim.", "New-York, snow", ""] {
                    let words = tokenize(sentence);
                    for id in [0, 7, 12] {
                        if let Some(edges) = parses.edges(id, &words) {
                            prop_assert_eq!(edges.len(), words.len());
                            prop_assert!(edges.iter().flat_map(|edge| edge.head).all(|head| head < words.len()));
                        }
                    }
                }
            }
        }
    }
}
