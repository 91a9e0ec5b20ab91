//! Sentences of different lengths as one batch, time first: what both recurrent models read.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Word indices of several sentences, time-major and padded; the padding is masked out of every result.
#[derive(Debug, Clone, PartialEq)]
pub struct SentenceBatch {
    lengths: Vec<usize>,
    steps: usize,
    /// `[steps, sentences]`, padded with 0.
    indices: Vec<i64>,
}

impl SentenceBatch {
    /// From one list of word indices a sentence. An empty sentence stays, with no words.
    pub fn new<S: AsRef<[u32]>>(sentences: &[S]) -> Self {
        let lengths: Vec<usize> = sentences.iter().map(|s| s.as_ref().len()).collect();
        // At least one step, so that no tensor is empty.
        let steps = lengths.iter().copied().max().unwrap_or(0).max(1);
        let mut indices = vec![0; steps * sentences.len()];
        for (s, words) in sentences.iter().enumerate() {
            for (t, &word) in words.as_ref().iter().enumerate() {
                indices[t * sentences.len() + s] = i64::from(word);
            }
        }
        Self { lengths, steps, indices }
    }

    /// Number of sentences.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is no sentence.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Words of the longest sentence, at least one.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Words a sentence.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Words of all sentences together.
    pub fn n_words(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// Word indices, sentence by sentence: `[words of all sentences]`.
    pub fn packed_indices(&self, device: &Device) -> Tensor<1, Int> {
        let sentences = self.len();
        let words = (0..sentences).flat_map(|s| (0..self.lengths[s]).map(move |t| self.indices[t * sentences + s]));
        let words: Vec<i64> = words.collect();
        let n_words = words.len();
        Tensor::from_data(TensorData::new(words, [n_words]), device)
    }

    /// The sentence of each word, sentence by sentence.
    pub(crate) fn owners(&self) -> Vec<i64> {
        self.lengths.iter().enumerate().flat_map(|(s, &length)| std::iter::repeat_n(s as i64, length)).collect()
    }

    /// Word indices, `[steps * sentences]`.
    pub fn indices(&self, device: &Device) -> Tensor<1, Int> {
        Tensor::from_data(TensorData::new(self.indices.clone(), [self.indices.len()]), device)
    }

    /// Rows of a `[steps * sentences]` tensor that hold words, sentence by sentence: `[words of all sentences]`.
    pub fn packed_rows(&self, device: &Device) -> Tensor<1, Int> {
        let sentences = self.len();
        let rows: Vec<i64> =
            (0..sentences).flat_map(|s| (0..self.lengths[s]).map(move |t| (t * sentences + s) as i64)).collect();
        let n_rows = rows.len();
        Tensor::from_data(TensorData::new(rows, [n_rows]), device)
    }
}

impl SentenceBatch {
    /// What a language model reads and what it should answer: every sentence with START before it, and the packed
    /// targets, every sentence with END behind it. START and END are both token 0.
    pub(crate) fn shifted(&self) -> (Self, Vec<i64>) {
        let sentences = self.len();
        let mut indices = vec![0; sentences];
        indices.extend_from_slice(&self.indices);
        let targets = (0..sentences)
            .flat_map(|s| (0..self.lengths[s]).map(move |t| self.indices[t * sentences + s]).chain([0]))
            .collect();
        let lengths: Vec<usize> = self.lengths.iter().map(|length| length + 1).collect();
        let steps = lengths.iter().copied().max().unwrap_or(1);
        indices.truncate(steps * sentences);
        (Self { lengths, steps, indices }, targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_time_major_and_shift() {
        let batch = SentenceBatch::new(&[vec![5, 6, 7], vec![], vec![8]]);
        assert_eq!(batch.indices, [5, 0, 8, 6, 0, 0, 7, 0, 0]);
        let device = Device::flex();
        let packed = batch.packed_rows(&device).try_into_vec_as::<i64>().unwrap();
        assert_eq!(packed, [0, 3, 6, 2]);
        let (inputs, targets) = batch.shifted();
        assert_eq!(inputs.indices, [0, 0, 0, 5, 0, 8, 6, 0, 0, 7, 0, 0]);
        assert_eq!(inputs.lengths, [4, 1, 2]);
        assert_eq!(targets, [5, 6, 7, 0, 0, 8, 0]);
        let words = batch.packed_indices(&device).try_into_vec_as::<i64>().unwrap();
        assert_eq!(words, [5, 6, 7, 8]);
        assert_eq!(batch.owners(), [0, 0, 0, 2]);
    }
}
