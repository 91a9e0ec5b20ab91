use super::*;
use crate::weights;

const FEATURES: usize = 5;
const VOCAB: usize = 10;

fn model(device: &Device) -> CaptionModel {
    let settings = CaptionSettings { hidden: 8, word_dim: 7, dropout: 0.0, ..CaptionSettings::default() };
    let frequencies = vec![(1.0 / VOCAB as f32).ln(); VOCAB];
    CaptionModel::new(&settings, FEATURES, &frequencies, &mut random::stream(1, 0), device)
}

fn batch() -> (Vec<f32>, SentenceBatch) {
    let images = (0..3 * FEATURES).map(|i| ((i * 7 % 11) as f32 - 5.0) / 5.0).collect();
    (images, SentenceBatch::new(&[vec![1, 2, 3], vec![4], vec![9, 2]]))
}

fn images(values: Vec<f32>, device: &Device) -> Tensor<2> {
    crate::alignment::features_tensor(values, FEATURES, device)
}

#[test]
fn training_and_decoding_see_the_same_probabilities() {
    let device = Device::flex();
    let model = model(&device);
    let (values, sentences) = batch();
    let trained = model.log_likelihoods(images(values.clone(), &device), &sentences, None);
    let trained = trained.into_data().try_into_vec::<f32>().unwrap();
    let mut at = 0;
    for (k, words) in [vec![1, 2, 3], vec![4], vec![9, 2]].iter().enumerate() {
        let own = values[k * FEATURES..(k + 1) * FEATURES].to_vec();
        let mut state = model.start(images(own, &device));
        let mut token = END;
        for &target in words.iter().chain([&END]) {
            let (next, log_probabilities) = model.step(&state, &[token]);
            assert!((log_probabilities[target as usize] - trained[at]).abs() < 1e-5);
            (state, token, at) = (next, target, at + 1);
        }
    }
    assert_eq!(at, trained.len());
}

#[test]
fn the_picture_enters_at_the_first_step() {
    let device = Device::flex();
    let model = model(&device);
    let (values, _) = batch();
    let first = model.start(images(values[..FEATURES].to_vec(), &device));
    let other = model.start(images(values[FEATURES..2 * FEATURES].to_vec(), &device));
    let (state, a) = model.step(&first, &[END]);
    let (_, b) = model.step(&other, &[END]);
    assert_ne!(a, b);
    assert!(state.image.is_none());
}

#[test]
fn gradients_agree_with_differences() {
    let device = Device::flex().autodiff();
    let model = model(&device);
    let (values, sentences) = batch();
    weights::check_gradients(&model, |model| model.loss(images(values.clone(), &device), &sentences, None));
}

#[test]
fn it_starts_from_word_frequencies() {
    let device = Device::flex();
    let frequencies: Vec<f32> = (0..VOCAB).map(|i| ((i + 1) as f32 / 55.0).ln()).collect();
    let settings = CaptionSettings { hidden: 8, word_dim: 7, initial_scale: 0.0, ..CaptionSettings::default() };
    let model = CaptionModel::new(&settings, FEATURES, &frequencies, &mut random::stream(1, 0), &device);
    let (values, _) = batch();
    let (_, log_probabilities) = model.step(&model.start(images(values[..FEATURES].to_vec(), &device)), &[END]);
    for (got, expected) in log_probabilities.iter().zip(&frequencies) {
        assert!((got - expected).abs() < 1e-5, "{got} {expected}");
    }
}
