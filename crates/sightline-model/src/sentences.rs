//! Sentences of different lengths as one batch, time first: what the sentence encoder reads.

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

    /// Word indices, `[steps * sentences]`.
    pub fn indices(&self, device: &Device) -> Tensor<1, Int> {
        Tensor::from_data(TensorData::new(self.indices.clone(), [self.indices.len()]), device)
    }

    /// 1 where sentence `s` has a word at step `t`, else 0: one `[sentences, 1]` tensor a step; `None` where all have.
    pub fn masks(&self, device: &Device) -> Vec<Option<Tensor<2>>> {
        (0..self.steps)
            .map(|t| {
                if self.lengths.iter().all(|&length| t < length) {
                    return None;
                }
                let mask: Vec<f32> = self.lengths.iter().map(|&length| f32::from(t < length)).collect();
                Some(Tensor::from_data(TensorData::new(mask, [self.lengths.len(), 1]), device))
            })
            .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_time_major() {
        let batch = SentenceBatch::new(&[vec![5, 6, 7], vec![], vec![8]]);
        assert_eq!(batch.indices, [5, 0, 8, 6, 0, 0, 7, 0, 0]);
        let device = Device::flex();
        let packed = batch.packed_rows(&device).try_into_vec_as::<i64>().unwrap();
        assert_eq!(packed, [0, 3, 6, 2]);
        let masks = batch.masks(&device);
        let mask = |t: usize| masks[t].clone().map(|m| m.into_data().try_into_vec::<f32>().unwrap());
        assert_eq!(mask(0), Some(vec![1.0, 0.0, 1.0]));
        assert_eq!(mask(1), Some(vec![1.0, 0.0, 0.0]));
    }
}
