use super::*;
use crate::weights;

/// Sizes all differ, so that swapped axes show.
const FEATURES: usize = 7;
const VOCAB: usize = 11;

fn settings() -> AlignmentSettings {
    AlignmentSettings { dim: 5, hidden: 6, word_dim: 8, dropout: 0.0, ..AlignmentSettings::default() }
}

fn batch() -> (Vec<f32>, RegionCounts, SentenceBatch) {
    use rand::RngExt;
    let counts = vec![3, 1, 4];
    let mut rng = random::stream(3, 1);
    let features = (0..8 * FEATURES).map(|_| rng.random_range(-1.0..1.0)).collect();
    let sentences = SentenceBatch::new(&[vec![1, 2, 3, 4], vec![5], vec![10, 2, 6]]);
    (features, RegionCounts::new(counts), sentences)
}

/// Equations 1 to 6 and 8, one number at a time, in f64.
fn slow_scores(model: &AlignmentModel, features: &[f32], counts: &[usize], sentences: &[Vec<u32>]) -> Vec<Vec<f64>> {
    let w = weights::export(model);
    let affine = |name: &str, x: &[f64]| -> Vec<f64> {
        let (m, b) = (&w[&format!("{name}.weight")], &w[&format!("{name}.bias")]);
        let outputs = m.shape[1];
        (0..outputs)
            .map(|o| {
                let products = x.iter().enumerate().map(|(i, x)| x * f64::from(m.values[i * outputs + o]));
                products.sum::<f64>() + f64::from(b.values[o])
            })
            .collect()
    };
    let relu = |x: Vec<f64>| -> Vec<f64> { x.into_iter().map(|x| x.max(0.0)).collect() };
    let add = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
    let hidden = w["left_to_right.bias"].shape[0];

    let rows: Vec<Vec<f64>> = features
        .chunks(FEATURES)
        .map(|row| affine("regions", &row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>()))
        .collect();
    let words: Vec<Vec<Vec<f64>>> = sentences
        .iter()
        .map(|sentence| {
            let x = &w["word_vectors"];
            let e: Vec<Vec<f64>> = sentence
                .iter()
                .map(|&word| {
                    let row = &x.values[word as usize * x.shape[1]..(word as usize + 1) * x.shape[1]];
                    relu(affine("input", &row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>()))
                })
                .collect();
            let pass = |name: &str, order: Vec<usize>| {
                let mut h = vec![0.0; hidden];
                let mut states = vec![vec![]; e.len()];
                for t in order {
                    h = relu(add(&e[t], &affine(name, &h)));
                    states[t] = h.clone();
                }
                states
            };
            let f = pass("left_to_right", (0..e.len()).collect());
            let b = pass("right_to_left", (0..e.len()).rev().collect());
            f.iter().zip(&b).map(|(f, b)| relu(affine("output", &add(f, b)))).collect()
        })
        .collect();

    let mut start = 0;
    let mut scores = Vec::new();
    for &count in counts {
        let regions = &rows[start..start + count];
        start += count;
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let best = |s: &Vec<f64>| regions.iter().map(|v| dot(v, s)).fold(f64::NEG_INFINITY, f64::max);
        scores.push(words.iter().map(|sentence| sentence.iter().map(best).sum()).collect());
    }
    scores
}

#[test]
fn scores_agree_with_the_equations() {
    let device = Device::flex();
    let model = AlignmentModel::new(&settings(), FEATURES, VOCAB, &mut random::stream(1, 0), &device);
    let (features, counts, sentences) = batch();
    let v = model.regions(features_tensor(features.clone(), FEATURES, &device), None);
    let s = model.words(&sentences, None);
    let scores = Score::MaxOverRegions.scores(v.clone(), &counts, s.clone(), sentences.lengths());
    let mean = Score::MeanOfMax.scores(v, &counts, s, sentences.lengths()).into_data().try_to_vec::<f32>().unwrap();
    let slow = slow_scores(&model, &features, &[3, 1, 4], &[vec![1, 2, 3, 4], vec![5], vec![10, 2, 6]]);
    for (i, score) in scores.into_data().try_to_vec::<f32>().unwrap().into_iter().enumerate() {
        let expected = slow[i / 3][i % 3];
        assert!((f64::from(score) - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{i}: {score} {expected}");
        let expected = expected / [4.0, 1.0, 3.0][i % 3];
        assert!((f64::from(mean[i]) - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{i}: mean");
    }
}

#[test]
fn hinge_agrees_with_the_equation() {
    let device = Device::flex();
    let scores = [[3.0, 1.0, 2.5], [0.0, 0.5, 0.25], [2.9, -1.0, 4.0f32]];
    let mut expected = 0.0;
    for (k, of_image) in scores.iter().enumerate() {
        for (l, of_other) in scores.iter().enumerate().filter(|&(l, _)| l != k) {
            let own = of_image[k];
            expected += (of_image[l] - own + 1.0).max(0.0) + (of_other[k] - own + 1.0).max(0.0);
        }
    }
    let loss = Objective::SumHinge.loss(Tensor::from_floats(scores, &device), 1.0, Tensor::zeros([1], &device));
    assert_eq!(loss.into_scalar::<f32>(), expected);
}

#[test]
fn gradients_agree_with_differences() {
    let device = Device::flex().autodiff();
    for (objective, unit_vectors, score, encoder) in [
        (Objective::SumHinge, false, Score::MaxOverRegions, RegionEncoder::None),
        (Objective::Contrastive, true, Score::MeanOfMax, RegionEncoder::None),
        (Objective::Contrastive, false, Score::MaxOverRegions, RegionEncoder::Conv),
    ] {
        let conv = ConvSettings { side: 6, channels: [2, 3, 4], dim: 5 };
        let features = if encoder == RegionEncoder::Conv { conv.pixels() } else { FEATURES };
        let settings = AlignmentSettings { objective, unit_vectors, score, encoder, conv, ..settings() };
        let (_, counts, sentences) = batch();
        let values: Vec<f32> = (0..8 * features).map(|i| ((i * 37 % 23) as f32 - 11.0) / 11.0).collect();
        let model = AlignmentModel::new(&settings, features, VOCAB, &mut random::stream(5, 0), &device);
        weights::check_gradients(&model, |model| {
            model.loss(&settings, features_tensor(values.clone(), features, &device), &counts, &sentences, None)
        });
    }
}

#[test]
fn imports_refuse_what_does_not_fit() {
    let device = Device::flex();
    let new = |settings: &AlignmentSettings| {
        AlignmentModel::new(settings, FEATURES, VOCAB, &mut random::stream(1, 0), &device)
    };
    let model = new(&settings());
    let exported = weights::export(&model);
    assert_eq!(weights::export(&weights::import(new(&settings()), exported.clone()).unwrap()), exported);

    let wider = AlignmentSettings { dim: 6, ..settings() };
    let error = weights::import(new(&wider), exported.clone()).unwrap_err().to_string();
    assert!(error.contains("expected [7, 6]") || error.contains("shape"), "{error}");
    let mut fewer = exported.clone();
    fewer.remove("input.bias");
    assert_eq!(
        weights::import(new(&settings()), fewer).unwrap_err(),
        weights::WeightsError::Missing { name: "input.bias".into() }
    );
    let mut more = exported;
    more.insert("extra".into(), weights::Weight { shape: vec![1], values: vec![0.0] });
    assert!(matches!(weights::import(new(&settings()), more), Err(weights::WeightsError::Unknown { .. })));
}
