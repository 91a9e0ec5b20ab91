//! What all caption generators have in common.

use std::sync::Arc;

use crate::tape::{Output, Tape, Var};

/// Pictures as sets of vectors, end to end; the first vector of each is that of the whole picture (or of the one region
/// that is described).
#[derive(Debug, Clone, PartialEq)]
pub struct Pictures {
    vectors: Vec<f32>,
    dim: usize,
    counts: Vec<usize>,
}

impl Pictures {
    /// `vectors` is `[sum of counts, dim]`, row-major; every picture has at least one vector.
    pub fn new(vectors: Vec<f32>, dim: usize, counts: Vec<usize>) -> Self {
        assert!(counts.iter().all(|&n| n > 0), "a picture without a vector");
        assert_eq!(vectors.len(), dim * counts.iter().sum::<usize>(), "vectors of {dim}");
        Self { vectors, dim, counts }
    }

    /// One vector a picture.
    pub fn single(vectors: Vec<f32>, dim: usize) -> Self {
        let n = vectors.len() / dim;
        Self::new(vectors, dim, vec![1; n])
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Vectors a picture.
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// All vectors, end to end.
    pub fn vectors(&self) -> &[f32] {
        &self.vectors
    }

    /// Length of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Neighbouring pictures.
    pub fn range(&self, range: std::ops::Range<usize>) -> Self {
        let before: usize = self.counts[..range.start].iter().sum();
        let counts = self.counts[range].to_vec();
        let vectors = self.vectors[before * self.dim..][..counts.iter().sum::<usize>() * self.dim].to_vec();
        Self { vectors, dim: self.dim, counts }
    }

    /// The first vector of every picture, end to end.
    pub fn first_vectors(&self) -> Vec<f32> {
        let mut first = Vec::with_capacity(self.len() * self.dim);
        let mut at = 0;
        for &count in &self.counts {
            first.extend_from_slice(&self.vectors[at * self.dim..(at + 1) * self.dim]);
            at += count;
        }
        first
    }
}

/// What a generator carries from word to word.
#[derive(Debug, Clone)]
pub struct State {
    /// Matrices with one row a sentence.
    pub rows: Vec<Var>,
    /// Matrices that all sentences look at.
    pub shared: Vec<Var>,
    /// The picture of each sentence.
    pub pictures: Vec<usize>,
    /// Rows of the shared matrices that belong to each picture.
    pub regions: Arc<[std::ops::Range<usize>]>,
    /// Words read so far.
    pub step: usize,
}

impl State {
    /// The state with the given sentences, in that order; a sentence may come several times.
    pub fn select(&self, tape: &mut Tape<'_>, sentences: &[usize]) -> Self {
        let rows = self.rows.iter().map(|&var| tape.rows(var, sentences)).collect();
        Self { rows, pictures: sentences.iter().map(|&s| self.pictures[s]).collect(), ..self.clone() }
    }

    /// Frees what is on the tape besides this state.
    pub fn keep_alone(&mut self, tape: &mut Tape<'_>) {
        let mut vars: Vec<Var> = self.rows.iter().chain(&self.shared).copied().collect();
        tape.keep(&mut vars);
        let (rows, shared) = vars.split_at(self.rows.len());
        self.rows = rows.to_vec();
        self.shared = shared.to_vec();
    }
}

/// What a step gives besides the new state.
#[derive(Debug, Clone)]
pub struct Step {
    /// What the next word is read from: `[sentences, hidden]`.
    pub hidden: Var,
    /// How much each region was looked at, sentence after sentence; empty where the generator does not look.
    pub attention: Vec<f32>,
}

/// A network that says one word after another about pictures.
pub trait Generator: Sync + Send + std::fmt::Debug {
    /// The state before the first word, one sentence a picture.
    fn start(&self, tape: &mut Tape<'_>, pictures: &Pictures) -> State;

    /// Reads one token a sentence, START first.
    fn step(&self, tape: &mut Tape<'_>, state: &State, tokens: &[u32]) -> (State, Step);

    /// Reads whole sentences (START before each): the rows that each next token is read from, sentence after sentence,
    /// one more a sentence than it has words.
    fn read(&self, tape: &mut Tape<'_>, state: &State, sentences: &[&[u32]]) -> Var;

    /// The layer that turns rows into logits.
    fn output(&self) -> Output<'_>;
}
