use super::*;
use crate::sentences::{Edge, Sentence};
use crate::weights::{self, values};

/// Sizes all differ, so that swapped axes show.
const FEATURES: usize = 7;
const VOCAB: usize = 11;

fn settings() -> AlignmentSettings {
    AlignmentSettings { dim: 5, hidden: 6, word_dim: 8, dropout: 0.0, ..AlignmentSettings::default() }
}

fn sizes(photos: usize) -> Sizes {
    Sizes { features: FEATURES, vocab: VOCAB, photos, relations: 3 }
}

fn batch() -> (Vec<f32>, RegionCounts, SentenceBatch) {
    use rand::RngExt;
    let counts = vec![3, 1, 4];
    let mut rng = random::stream(3, 1);
    let features = (0..8 * FEATURES).map(|_| rng.random_range(-1.0..1.0)).collect();
    let sentences = SentenceBatch::new(&[vec![1, 2, 3, 4], vec![5], vec![10, 2, 6]]);
    (features, RegionCounts::new(counts), sentences)
}

/// The sentences of [`batch`] with an edge a word; relations 0 and 2 of three.
fn parsed_batch() -> SentenceBatch {
    let edge = |(head, relation)| Edge { head, relation };
    let words = [vec![1, 2, 3, 4], vec![5], vec![10, 2, 6]];
    let edges = [vec![(3, 2), (1, 0), (0, 0), (3, 2)], vec![(0, 0)], vec![(2, 0), (0, 0), (2, 2)]];
    let edges = edges.map(|edges| edges.into_iter().map(edge).collect::<Vec<_>>());
    SentenceBatch::new(words.iter().zip(&edges).map(|(words, edges)| Sentence { words, edges }))
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
    let hidden = w["sentence.Brnn.left_to_right.bias"].shape[0];

    let rows: Vec<Vec<f64>> = features
        .chunks(FEATURES)
        .map(|row| affine("image.projection", &row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>()))
        .collect();
    let words: Vec<Vec<Vec<f64>>> = sentences
        .iter()
        .map(|sentence| {
            let x = &w["word_vectors"];
            let e: Vec<Vec<f64>> = sentence
                .iter()
                .map(|&word| {
                    let row = &x.values[word as usize * x.shape[1]..(word as usize + 1) * x.shape[1]];
                    relu(affine("sentence.Brnn.input", &row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>()))
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
            let f = pass("sentence.Brnn.left_to_right", (0..e.len()).collect());
            let b = pass("sentence.Brnn.right_to_left", (0..e.len()).rev().collect());
            f.iter().zip(&b).map(|(f, b)| relu(affine("sentence.Brnn.output", &add(f, b)))).collect()
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
    let model = AlignmentModel::new(&settings(), sizes(0), &mut random::stream(1, 0), &device);
    let (features, counts, sentences) = batch();
    let regions = features_tensor(features.clone(), FEATURES, &device);
    let v = model.regions(RegionBatch { features: regions, geometry: None, counts: counts.clone() });
    let s = model.words(&sentences);
    let all = |score: Score| {
        let score = Scoring { score, sharpness: None };
        let ours = values(score.scores(v.clone(), &counts, s.clone(), sentences.lengths()));
        let tensors = values(score.scores_by_tensors(v.clone(), &counts, s.clone(), sentences.lengths()));
        assert!(ours.iter().zip(&tensors).all(|(a, b)| (a - b).abs() < 1e-5 * (1.0 + b.abs())), "{ours:?} {tensors:?}");
        ours
    };
    let (scores, mean) = (all(Score::MaxOverRegions), all(Score::MeanOfMax));
    let slow = slow_scores(&model, &features, &[3, 1, 4], &[vec![1, 2, 3, 4], vec![5], vec![10, 2, 6]]);
    for (i, score) in scores.into_iter().enumerate() {
        let expected = slow[i / 3][i % 3];
        assert!((f64::from(score) - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{i}: {score} {expected}");
        let expected = expected / [4.0, 1.0, 3.0][i % 3];
        assert!((f64::from(mean[i]) - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{i}: mean");
    }
}

/// `relu(W_R [w_head w_dependent] + b_R)`, one number at a time.
#[test]
fn dependency_edges_agree_with_their_definition() {
    let device = Device::flex();
    let settings = AlignmentSettings { sentence_encoder: SentenceEncoder::DependencyEdges, ..settings() };
    let model = AlignmentModel::new(&settings, sizes(0), &mut random::stream(2, 0), &device);
    let w = weights::export(&model);
    let word = |index: u32| &w["word_vectors"].values[index as usize * settings.word_dim..][..settings.word_dim];
    let got = values(model.words(&parsed_batch()));
    let edges = [(3, 1, 2), (1, 2, 0), (0, 3, 0), (3, 4, 2), (0, 5, 0), (2, 10, 0), (0, 2, 0), (2, 6, 2)];
    for (i, (head, dependent, relation)) in edges.into_iter().enumerate() {
        let x: Vec<f32> = [word(head), word(dependent)].concat();
        let name = |part: &str| format!("sentence.DependencyEdges.relations.{relation}.{part}");
        let (m, b) = (&w[&name("weight")].values, &w[&name("bias")].values);
        for d in 0..settings.dim {
            let sum: f32 = x.iter().enumerate().map(|(k, x)| x * m[k * settings.dim + d]).sum();
            let expected = (sum + b[d]).max(0.0);
            assert!((got[i * settings.dim + d] - expected).abs() < 1e-5, "edge {i}, {d}");
        }
    }
}

/// Cross attention in either direction, one number at a time; an empty sentence scores nothing.
#[test]
fn soft_attention_agrees_with_its_definition() {
    let device = Device::flex();
    let (counts, lengths, dim) = ([3, 1, 4], [4, 0, 1, 3], 5);
    let mut rng = random::stream(8, 0);
    let (v, s) = (random::uniform_values(&mut rng, 8 * dim, 1.0), random::uniform_values(&mut rng, 8 * dim, 1.0));
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    // The cosine of `own` with what it attends to, times the length of `own`.
    let attended = |own: &[f32], others: &[f32], sharpness: f64| {
        let weights: Vec<f64> = others.chunks(dim).map(|other| (sharpness * dot(own, other)).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mixture: Vec<f32> = (0..dim)
            .map(|d| others.chunks(dim).zip(&weights).map(|(x, w)| f64::from(x[d]) * w / total).sum::<f64>() as f32)
            .collect();
        dot(own, &mixture) / (dot(&mixture, &mixture) + 1e-8).sqrt()
    };
    let both = [Score::SoftAttention, Score::SoftAttentionOverWords];
    let [of_authors, others] = [[None; 2], [Some(2.0), Some(20.0)]].map(|sharpness| both.into_iter().zip(sharpness));
    for ((score, given), sharpness) in of_authors.chain(others).zip([9.0, 4.0, 2.0, 20.0]) {
        let [regions, words] = [&v, &s].map(|x| features_tensor(x.clone(), dim, &device));
        let scoring = Scoring { score, sharpness: given };
        let scores = values(scoring.scores(regions, &RegionCounts::new(counts.to_vec()), words, &lengths));
        let (mut first_region, mut i) = (0, 0);
        for count in counts {
            let own_regions = &v[first_region * dim..(first_region + count) * dim];
            let mut first_word = 0;
            for length in lengths {
                let own_words = &s[first_word * dim..(first_word + length) * dim];
                let (these, those) = match score {
                    Score::SoftAttention => (own_words, own_regions),
                    _ => (own_regions, own_words),
                };
                let n = if own_words.is_empty() { 0 } else { these.len() / dim };
                let sum: f64 = these.chunks(dim).take(n).map(|own| attended(own, those, sharpness)).sum();
                let expected = sum / n.max(1) as f64;
                assert!((f64::from(scores[i]) - expected).abs() < 1e-5, "{score:?} {i}: {} {expected}", scores[i]);
                first_word += length;
                i += 1;
            }
            first_region += count;
        }
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
    let loss = |objective: Objective, pairing: &Pairing| {
        let scores = Tensor::from_floats(scores, &device);
        objective.loss(scores, pairing, None, 1.0, Tensor::zeros([1], &device)).into_scalar::<f32>()
    };
    assert_eq!(loss(Objective::SumHinge, &Pairing::diagonal(3)), expected);

    // Sentences 0 and 2 belong to photo 0: neither is a stranger to it, and photo 2 has none.
    let hinge = |gap: f32| (gap + 1.0f32).max(0.0);
    let of_images = [[0.0 - 3.0, 2.9 - 3.0], [1.0 - 0.5, -1.0 - 0.5], [0.25 - 2.5, 4.0 - 2.5]];
    let of_sentences = [vec![1.0 - 3.0], vec![0.0 - 0.5, 0.25 - 0.5], vec![1.0 - 2.5]];
    let sum = |gaps: &[f32]| gaps.iter().map(|&gap| hinge(gap)).sum::<f32>();
    let most = |gaps: &[f32]| gaps.iter().map(|&gap| hinge(gap)).fold(0.0, f32::max);
    let shared = Pairing::new(3, vec![0, 1, 0]);
    for (objective, fold) in
        [(Objective::SumHinge, &sum as &dyn Fn(&[f32]) -> f32), (Objective::HardestNegative, &most)]
    {
        let expected: f32 = of_images.iter().map(|g| fold(g)).chain(of_sentences.iter().map(|g| fold(g))).sum();
        assert!((loss(objective, &shared) - expected).abs() < 1e-5, "{objective:?}");
    }

    // Sentence 2 describes photo 2 as well, which is the worse of its strangers.
    let lent = Pairing::new(3, vec![0, 1, 0]).with_others(vec![[2, 2]]);
    let [all, left] = [&shared, &lent].map(|pairing| loss(Objective::SumHinge, pairing));
    assert!((all - left - hinge(4.0 - 2.5)).abs() < 1e-5, "{all} {left}");
}

#[test]
fn fragments_agree_inside_their_photo() {
    let device = Device::flex();
    // Photos of two regions and of one; the first word is said of photo 0, the second, which no region of its photo
    // likes, of photo 1.
    let products = [[0.5, 0.2], [-3.0, -2.0], [0.25, -0.5f32]];
    let loss = |pairing: Pairing| {
        let products = Tensor::from_floats(products, &device);
        objective::fragment_alignment(products, &[2, 1], &pairing, &[0, 1]).into_scalar::<f32>()
    };
    let found = loss(Pairing::new(2, vec![0, 1]));
    let first = (1.0 - 0.5) + ((1.0f32 - 3.0).max(0.0) + (1.0 + 0.25)) / 2.0;
    let second = (1.0 + 0.5) + ((1.0 + 0.2) + (1.0f32 - 2.0).max(0.0)) / 2.0;
    assert!((found - (first + second)).abs() < 1e-6);
    // What the first word says suits photo 1 too, whose region then neither agrees nor disagrees.
    let first = (1.0 - 0.5) + (1.0f32 - 3.0).max(0.0);
    let found = loss(Pairing::new(2, vec![0, 1]).with_others(vec![[1, 0]]));
    assert!((found - (first + second)).abs() < 1e-6);
}

#[test]
fn contrastive_is_cross_entropy_both_ways() {
    let device = Device::flex();
    let scores = [[3.0, 1.0, 2.5f32], [0.0, 0.5, 0.25]];
    let softmax = |own: f32, all: &[f32]| own - all.iter().map(|x| x.exp()).sum::<f32>().ln();
    // Sentences 0 and 2 belong to photo 0.
    let of_images = (softmax(3.0, &[3.0, 0.0]) + softmax(0.5, &[1.0, 0.5]) + softmax(2.5, &[2.5, 0.25])) / 3.0;
    let of_sentences = ((softmax(3.0, &scores[0]) + softmax(2.5, &scores[0])) / 2.0 + softmax(0.5, &scores[1])) / 2.0;
    let pairing = Pairing::new(2, vec![0, 1, 0]);
    let loss = |teaching: Option<Teaching>| {
        let scores = Tensor::from_floats(scores, &device);
        let scale = Tensor::zeros([1], &device);
        Objective::Contrastive.loss(scores, &pairing, teaching.as_ref(), 0.0, scale).into_scalar::<f32>()
    };
    let expected = -(of_images + of_sentences) / 2.0;
    assert!((loss(None) - expected).abs() < 1e-6);

    // A teacher that knows the truth for certain, but for sentence 2, which suits both photos alike.
    let logits = vec![0.0, -200.0, -100.0, -100.0, 0.0, -100.0];
    let taught = loss(Some(Teaching { logits, share: 0.25 }));
    let unsure = (softmax(2.5, &[2.5, 0.25]) + softmax(0.25, &[2.5, 0.25])) / 2.0;
    let of_photos = (softmax(3.0, &[3.0, 0.0]) + softmax(0.5, &[1.0, 0.5]) + unsure) / 3.0;
    // Photo 0 says sentence 0 alone, though the truth is that sentence 2 is as good.
    let of_own = (softmax(3.0, &scores[0]) + softmax(0.5, &scores[1])) / 2.0;
    let expected = 0.75 * expected - 0.25 * (of_photos + of_own) / 2.0;
    assert!((taught - expected).abs() < 1e-6, "{taught} {expected}");
}

#[test]
fn a_sentence_of_two_photos_is_no_negative_of_the_other() {
    let device = Device::flex();
    let scores = [[3.0, 1.0, 2.5f32], [0.0, 0.5, 0.25]];
    let softmax = |own: f32, all: &[f32]| own - all.iter().map(|x| x.exp()).sum::<f32>().ln();
    // Sentences 0 and 2 belong to photo 0, and 2 describes photo 1 as well.
    let pairing = Pairing::new(2, vec![0, 1, 0]).with_others(vec![[1, 2]]);
    let loss = |teaching: Option<Teaching>| {
        let (scores, scale) = (Tensor::from_floats(scores, &device), Tensor::zeros([1], &device));
        Objective::Contrastive.loss(scores, &pairing, teaching.as_ref(), 0.0, scale).into_scalar::<f32>()
    };
    let of_images = (softmax(3.0, &[3.0, 0.0]) + softmax(0.5, &[1.0, 0.5])) / 3.0; // photo 0 alone can say sentence 2
    let of_own = (softmax(3.0, &scores[0]) + softmax(2.5, &scores[0])) / 2.0;
    let of_sentences = (of_own + softmax(0.5, &[0.0, 0.5])) / 2.0;
    let expected = -(of_images + of_sentences) / 2.0;
    assert!((loss(None) - expected).abs() < 1e-6);
    // Nor does a teacher make it one.
    let logits = vec![9.0, 0.0, 9.0, 0.0, 9.0, 20.0];
    let taught = loss(Some(Teaching { logits, share: 0.5 }));
    assert!(taught.is_finite() && taught < 2.0 * expected, "{taught} {expected}");

    let logits = Tensor::<2>::from_floats([[1.0, 2.0, 3.0], [0.0, 4.0, 0.0]], &device);
    let left = log_softmax(objective::without(logits, &[[0, 2]]), 1).into_data().try_into_vec::<f32>().unwrap();
    let expected = [softmax(1.0, &[1.0, 2.0]), softmax(2.0, &[1.0, 2.0])];
    assert!(left.iter().zip(expected).all(|(left, expected)| (left - expected).abs() < 1e-6), "{left:?}");
}

#[test]
fn gradients_agree_with_differences() {
    let device = Device::flex().autodiff();
    let base = settings();
    let contrastive = AlignmentSettings {
        objective: Objective::Contrastive,
        unit_vectors: true,
        score: Score::MeanOfMax,
        logit_scale: 3.0,
        ..settings()
    };
    let encoder = |sentence_encoder| AlignmentSettings { sentence_encoder, ..contrastive.clone() };
    for settings in [
        base.clone(),
        contrastive.clone(),
        AlignmentSettings { objective: Objective::HardestNegative, ..base.clone() },
        AlignmentSettings { objective: Objective::Instance, ..contrastive.clone() },
        AlignmentSettings { score: Score::SumOfPositive, ..base.clone() },
        AlignmentSettings {
            objective: Objective::Fragments,
            score: Score::SmoothedSumOfPositive,
            margin: 2.0,
            ..base.clone()
        },
        AlignmentSettings { score: Score::SoftAttention, ..contrastive.clone() },
        AlignmentSettings { score: Score::SoftAttentionOverWords, ..contrastive.clone() },
        AlignmentSettings { encoder: RegionEncoder::Conv, unit_vectors: false, ..contrastive.clone() },
        encoder(SentenceEncoder::Gru),
        encoder(SentenceEncoder::BagOfWords),
        encoder(SentenceEncoder::Convolution),
        encoder(SentenceEncoder::SelfAttention),
        encoder(SentenceEncoder::DependencyEdges),
        AlignmentSettings {
            sentence_encoder: SentenceEncoder::DependencyEdges,
            objective: Objective::Fragments,
            score: Score::SmoothedSumOfPositive,
            ..base.clone()
        },
        AlignmentSettings { geometry: true, context: true, standardize: true, ..contrastive.clone() },
        AlignmentSettings { region_attention: true, whole: true, ..contrastive.clone() },
        AlignmentSettings { whole: true, ..base },
    ] {
        let conv = ConvSettings { side: 6, channels: [2, 3, 4], dim: 5 };
        let features = if settings.encoder == RegionEncoder::Conv { conv.pixels() } else { FEATURES };
        let settings = AlignmentSettings { conv, ..settings };
        let (_, counts, sentences) = batch();
        let sentences = match settings.sentence_encoder {
            SentenceEncoder::DependencyEdges => parsed_batch(),
            _ => sentences,
        };
        let values: Vec<f32> = (0..8 * features).map(|i| ((i * 37 % 23) as f32 - 11.0) / 11.0).collect();
        let mut model =
            AlignmentModel::new(&settings, Sizes { features, ..sizes(3) }, &mut random::stream(5, 0), &device);
        if settings.standardize {
            model.set_standard(&[0.1; FEATURES], &[0.5; FEATURES]);
        }
        let geometry = settings.geometry.then(|| {
            let of_box = |i: usize| geometry([0.0, 1.0, 2.0 + i as f32, 3.0], [10.0, 8.0]);
            features_tensor((0..8).flat_map(of_box).collect(), GEOMETRY, &device.clone().without_autodiff())
        });
        // The first and the last sentence belong to photo 2, and photo 0 has none.
        let pairing = Pairing::new(3, vec![2, 1, 2]);
        let truth = BatchTruth { pairing, classes: vec![0, 1, 2], other_classes: Vec::new(), teaching: None };
        weights::check_gradients(&model, |model| {
            let features = features_tensor(values.clone(), features, &device.clone().without_autodiff());
            let batch = RegionBatch { features, geometry: geometry.clone(), counts: counts.clone() };
            model.loss(&settings, settings.objective, batch, &sentences, &truth, None)
        });
    }
}

/// What stands behind the parts' vectors in [`AlignmentModel::regions`] and [`AlignmentModel::words`] gives the score that
/// training sees.
#[test]
fn joined_vectors_give_the_score_of_training() {
    let device = Device::flex();
    for score in [Score::MeanOfMax, Score::MaxOverRegions] {
        let settings = AlignmentSettings { whole: true, unit_vectors: true, score, ..settings() };
        let model = AlignmentModel::new(&settings, sizes(0), &mut random::stream(5, 0), &device);
        let (values_, counts, sentences) = batch();
        let regions = RegionBatch { features: features_tensor(values_, FEATURES, &device), geometry: None, counts };
        let (v, s) = (model.regions(regions.clone()), model.words(&sentences));
        let joined = settings.scoring().scores(v, &regions.counts, s, sentences.lengths());
        let pairing = Pairing::diagonal(3);
        let truth = BatchTruth { pairing, classes: Vec::new(), other_classes: Vec::new(), teaching: None };
        let expected = Objective::SumHinge.loss(joined, &truth.pairing, None, 1.0, Tensor::zeros([1], &device));
        let loss = model.loss(&settings, Objective::SumHinge, regions, &sentences, &truth, None);
        let (loss, expected) = (loss.into_scalar::<f32>(), expected.into_scalar::<f32>());
        assert!((loss - expected).abs() < 1e-5 * expected, "{loss} {expected}");
    }
}

#[test]
fn imports_refuse_what_does_not_fit() {
    let device = Device::flex();
    let new =
        |settings: &AlignmentSettings| AlignmentModel::new(settings, sizes(0), &mut random::stream(1, 0), &device);
    let model = new(&settings());
    let exported = weights::export(&model);
    assert_eq!(weights::export(&weights::import(new(&settings()), exported.clone()).unwrap()), exported);

    let wider = AlignmentSettings { dim: 6, ..settings() };
    let error = weights::import(new(&wider), exported.clone()).unwrap_err().to_string();
    assert!(error.contains("expected [7, 6]") || error.contains("shape"), "{error}");
    let mut fewer = exported.clone();
    fewer.remove("sentence.Brnn.input.bias");
    assert_eq!(
        weights::import(new(&settings()), fewer).unwrap_err(),
        weights::WeightsError::Missing { name: "sentence.Brnn.input.bias".into() }
    );
    let mut more = exported;
    more.insert("extra".into(), weights::Weight { shape: vec![1], values: vec![0.0] });
    assert!(matches!(weights::import(new(&settings()), more), Err(weights::WeightsError::Unknown { .. })));
}
