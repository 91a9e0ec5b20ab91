//! Sentences of different lengths as one batch, one after the other: what the sentence encoder reads.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// The edge of a sentence's dependency tree that ends at one of its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// Index of the word above; the end token's above the root, and where that word is not known.
    pub head: u32,
    /// What the word is to the one above; 0 for all relations that share their weights.
    pub relation: u32,
}

/// One sentence as the encoders read it.
#[derive(Debug, Clone, Copy)]
pub struct Sentence<'a> {
    /// Word indices, in order.
    pub words: &'a [u32],
    /// One edge a word; none where nobody reads them.
    pub edges: &'a [Edge],
}

impl<'a, S: AsRef<[u32]> + ?Sized> From<&'a S> for Sentence<'a> {
    /// Words without edges.
    fn from(words: &'a S) -> Self {
        Self { words: words.as_ref(), edges: &[] }
    }
}

/// Word indices of several sentences, packed: no padding.
#[derive(Debug, Clone, PartialEq)]
pub struct SentenceBatch {
    lengths: Vec<usize>,
    /// Sentence by sentence.
    words: Vec<i64>,
    /// Likewise; as many as words, or none.
    edges: Vec<Edge>,
}

impl SentenceBatch {
    /// From word indices, and edges where the encoder reads them. An empty sentence stays, with no words.
    pub fn new<'a, S: Into<Sentence<'a>>>(sentences: impl IntoIterator<Item = S>) -> Self {
        let mut batch = Self { lengths: Vec::new(), words: Vec::new(), edges: Vec::new() };
        for sentence in sentences {
            let Sentence { words, edges } = sentence.into();
            batch.lengths.push(words.len());
            batch.words.extend(words.iter().map(|&word| i64::from(word)));
            batch.edges.extend_from_slice(edges);
        }
        let (words, edges) = (batch.words.len(), batch.edges.len());
        assert!(edges == 0 || edges == words, "{edges} edges of {words} words");
        batch
    }

    /// Number of sentences.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is no sentence.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Words a sentence.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Words of all sentences together.
    pub fn n_words(&self) -> usize {
        self.words.len()
    }

    /// Word indices, sentence by sentence: `[words of all sentences]`.
    pub fn indices(&self, device: &Device) -> Tensor<1, Int> {
        Tensor::from_data(TensorData::new(self.words.clone(), [self.words.len()]), device)
    }

    /// The word above each word: `[words of all sentences]`.
    pub(crate) fn heads(&self, device: &Device) -> Tensor<1, Int> {
        let heads: Vec<i64> = self.edges().iter().map(|edge| i64::from(edge.head)).collect();
        let n = heads.len();
        Tensor::from_data(TensorData::new(heads, [n]), device)
    }

    /// One edge a word. Panics where the sentences came without.
    pub(crate) fn edges(&self) -> &[Edge] {
        assert_eq!(self.edges.len(), self.words.len(), "this encoder reads sentences with their edges");
        &self.edges
    }

    /// The sentence of each word.
    pub(crate) fn owners(&self) -> Vec<i64> {
        self.lengths.iter().enumerate().flat_map(|(s, &length)| std::iter::repeat_n(s as i64, length)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_packed() {
        let batch = SentenceBatch::new(&[vec![5, 6, 7], vec![], vec![8]]);
        assert_eq!((batch.len(), batch.n_words(), batch.lengths()), (3, 4, &[3, 0, 1][..]));
        assert_eq!(batch.indices(&Device::flex()).try_into_vec_as::<i64>().unwrap(), [5, 6, 7, 8]);
        assert_eq!(batch.owners(), [0, 0, 0, 2]);
    }
}
