//! Sentences of different lengths as one batch, one after the other: what the sentence encoder reads.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Word indices of several sentences, packed: no padding.
#[derive(Debug, Clone, PartialEq)]
pub struct SentenceBatch {
    lengths: Vec<usize>,
    /// Sentence by sentence.
    words: Vec<i64>,
}

impl SentenceBatch {
    /// From one list of word indices a sentence. An empty sentence stays, with no words.
    pub fn new<S: AsRef<[u32]>>(sentences: &[S]) -> Self {
        let lengths = sentences.iter().map(|s| s.as_ref().len()).collect();
        let words = sentences.iter().flat_map(|s| s.as_ref()).map(|&word| i64::from(word)).collect();
        Self { lengths, words }
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
