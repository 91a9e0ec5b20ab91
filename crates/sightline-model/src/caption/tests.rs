use rand::RngExt;

use super::search::{LogProbabilities, log_probabilities};
use super::*;
use crate::weights;

const FEATURES: usize = 5;
const VOCAB: usize = 11;

const KINDS: [GeneratorKind; 5] = [
    GeneratorKind::Rnn,
    GeneratorKind::RnnEveryStep,
    GeneratorKind::NeuraltalkLstm,
    GeneratorKind::Neuraltalk2Lstm,
    GeneratorKind::Attention,
];

/// Sizes all differ, so that swapped axes show.
fn settings(generator: GeneratorKind) -> CaptionSettings {
    CaptionSettings {
        generator,
        hidden: 8,
        word_dim: 7,
        heads: 2,
        encoder_layers: 1,
        decoder_layers: 2,
        feed_forward: 9,
        dropout: 0.0,
        initial_scale: 1.0,
    }
}

fn initial(settings: &CaptionSettings) -> Weights {
    let frequencies: Vec<f32> = (0..VOCAB).map(|i| ((i + 1) as f32 / 66.0).ln()).collect();
    settings.initial_weights(FEATURES, &frequencies, &mut random::stream(1, 0))
}

const SENTENCES: [&[u32]; 4] = [&[1, 2, 3], &[4], &[9, 2], &[]];
const SENTENCE_PICTURES: [usize; 4] = [0, 2, 0, 1];

fn pictures() -> Pictures {
    let counts = vec![2, 1, 3];
    let vectors = (0..6 * FEATURES).map(|i| ((i * 7 % 11) as f32 - 5.0) / 5.0).collect();
    Pictures::new(vectors, FEATURES, counts)
}

fn said() -> Said<'static> {
    Said { sentences: &SENTENCES, pictures: &SENTENCE_PICTURES }
}

#[test]
fn training_and_decoding_see_the_same_probabilities() {
    for kind in KINDS {
        let settings = settings(kind);
        let (weights, generator) = (initial(&settings), settings.generator());
        let trained = log_likelihoods(&*generator, &weights, &pictures(), said());
        let mut at = 0;
        for (words, picture) in SENTENCES.iter().zip(SENTENCE_PICTURES) {
            let mut tape = Tape::forward_only(&weights);
            let start = generator.start(&mut tape, &pictures());
            let mut state = start.select(&mut tape, &[picture]);
            let mut token = END;
            for &target in words.iter().chain([&END]) {
                let (next, step) = generator.step(&mut tape, &state, &[token]);
                let log_probabilities = log_probabilities(&tape, step.hidden, generator.output(), None);
                let LogProbabilities::All(log_probabilities) = log_probabilities else { unreachable!("no shortcut") };
                let sum: f32 = log_probabilities.values.iter().map(|p| p.exp()).sum();
                assert!((sum - 1.0).abs() < 1e-5, "{kind:?}: {sum}");
                let got = log_probabilities.values[target as usize];
                assert!((got - trained[at]).abs() < 1e-5, "{kind:?}: {got} {}", trained[at]);
                state = next;
                state.keep_alone(&mut tape);
                (token, at) = (target, at + 1);
            }
        }
        assert_eq!(at, trained.len());
    }
}

#[test]
fn gradients_of_a_function_of_probabilities_are_those_of_its_weights() {
    for kind in KINDS {
        let settings = settings(kind);
        let (weights, generator) = (initial(&settings), settings.generator());
        let found = log_likelihoods(&*generator, &weights, &pictures(), said());
        // Half the sum of their squares: each weighs minus itself.
        let factors: Vec<f32> = found.iter().map(|l| -l).collect();
        let loss = Loss { weights: Some(&factors), smoothing: 0.0 };
        let (_, expected) = gradients(
            &*generator,
            &weights,
            &pictures(),
            said(),
            &loss,
            &mut Dropout::new(random::stream(1, 1), 0.0),
            Precision::F32,
        );
        let weigh = |given: &[f32]| {
            assert!(given.iter().zip(&found).all(|(a, b)| (a - b).abs() < 1e-6), "{kind:?}");
            factors.clone()
        };
        let mut dropout = Dropout::new(random::stream(1, 1), 0.0);
        let got = gradients_of(&*generator, &weights, &pictures(), said(), weigh, &mut dropout, Precision::F32);
        assert_eq!(got, expected, "{kind:?}");
    }
}

#[test]
fn gradients_agree_with_differences() {
    let factors: Vec<f32> = (0..10).map(|i| 1.0 + (i % 3) as f32 * 0.5 - (i % 4) as f32).collect();
    for kind in KINDS {
        let settings = settings(kind);
        let (weights, generator) = (initial(&settings), settings.generator());
        for loss in [Loss::default(), Loss { weights: Some(&factors), smoothing: 0.1 }] {
            let value = |weights: &Weights| {
                let mut dropout = Dropout::new(random::stream(1, 1), 0.0);
                gradients(&*generator, weights, &pictures(), said(), &loss, &mut dropout, Precision::F32)
            };
            let (_, found) = value(&weights);
            let names: Vec<&String> = weights.keys().collect();
            assert_eq!(found.keys().collect::<Vec<_>>(), names, "{kind:?}");
            weights::compare_with_differences(&weights, &found, |moved| value(moved).0);
        }
    }
}

#[test]
fn gradients_of_rounded_factors_are_near() {
    const LARGE: usize = 700;
    let mut rng = random::stream(4, 0);
    let word = |rng: &mut rand_chacha::ChaCha8Rng| rng.random_range(1..LARGE as u32);
    let sentences: Vec<Vec<u32>> = (0..40).map(|_| (0..9).map(|_| word(&mut rng)).collect()).collect();
    let sentences: Vec<&[u32]> = sentences.iter().map(Vec::as_slice).collect();
    let said = Said { sentences: &sentences, pictures: &[0, 1, 2, 1].repeat(10) };
    for kind in KINDS {
        let settings = CaptionSettings { hidden: 96, word_dim: 96, feed_forward: 128, ..settings(kind) };
        let weights = settings.initial_weights(FEATURES, &[0.0; LARGE], &mut random::stream(5, 0));
        let generator = settings.generator();
        let at = |precision| {
            let mut dropout = Dropout::new(random::stream(1, 1), 0.0);
            gradients(&*generator, &weights, &pictures(), said, &Loss::default(), &mut dropout, precision)
        };
        let ((loss, exact), (rounded_loss, rounded)) = (at(Precision::F32), at(Precision::Bf16));
        assert!((rounded_loss - loss).abs() < 1e-3 * loss, "{kind:?}: {rounded_loss}, not {loss}");
        assert_eq!(Precision::Bf16.rounds(), rounded != exact, "{kind:?}: rounded where the processor can");
        assert_eq!(at(Precision::Bf16), (rounded_loss, rounded.clone()), "{kind:?}: the same again");
        for (name, exact) in &exact {
            let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let pairs = exact.values.iter().zip(&rounded[name].values);
            let error = norm(&mut pairs.map(|(a, b)| a - b));
            let size = norm(&mut exact.values.iter().copied());
            assert!(error <= 0.1 * size, "{kind:?} {name}: off by {error} of {size}");
        }
    }
}

#[test]
fn generators_start_from_word_frequencies() {
    for kind in KINDS {
        let settings = CaptionSettings { initial_scale: 0.0, ..settings(kind) };
        let (weights, generator) = (initial(&settings), settings.generator());
        let first = log_likelihoods(&*generator, &weights, &pictures(), said());
        let targets = said().targets();
        for (got, target) in first.iter().zip(targets) {
            let expected = ((target + 1) as f32 / 66.0).ln();
            assert!((got - expected).abs() < 1e-5, "{kind:?}: {got} {expected}");
        }
    }
}

#[test]
fn every_generator_learns_a_few_sentences_by_heart() {
    for kind in KINDS {
        let settings = CaptionSettings { hidden: 16, word_dim: 13, ..settings(kind) };
        let (mut weights, generator) = (initial(&settings), settings.generator());
        let mut square: Weights = weights.clone();
        square.values_mut().for_each(|w| w.values.fill(0.0));
        let said = Said { sentences: &SENTENCES[..3], pictures: &[0, 2, 1] };
        for _ in 0..150 {
            let mut dropout = Dropout::new(random::stream(1, 1), 0.0);
            let (_, found) =
                gradients(&*generator, &weights, &pictures(), said, &Loss::default(), &mut dropout, Precision::F32);
            for (name, gradient) in found {
                let (w, c) = (weights.get_mut(&name).unwrap(), square.get_mut(&name).unwrap());
                for ((w, c), g) in w.values.iter_mut().zip(&mut c.values).zip(gradient.values) {
                    *c = 0.9 * *c + 0.1 * g * g;
                    *w -= 0.01 * g / (c.sqrt() + 1e-6);
                }
            }
        }
        let sum: f32 = log_likelihoods(&*generator, &weights, &pictures(), said).iter().sum();
        assert!(sum > -0.3, "{kind:?}: log likelihood {sum}");
    }
}

#[test]
fn a_shortcut_finds_the_same_sentences() {
    for kind in KINDS {
        let settings = settings(kind);
        let (weights, generator) = (initial(&settings), settings.generator());
        let Some(layer) = Rounded::of(&*generator, &weights) else { return };
        let shortcut = Shortcut { layer: &layer, exact: 9 };
        let beam = BeamSettings { beam: 3, n_best: 3, max_words: 6, ..BeamSettings::default() };
        let found = [None, Some(shortcut)].map(|shortcut| {
            in_chunks(&*generator, &weights, shortcut, &pictures(), |source, range| {
                beam_search(source, range.len(), beam)
            })
        });
        for (exact, near) in found[0].iter().flatten().zip(found[1].iter().flatten()) {
            assert_eq!(exact.words, near.words, "{kind:?}");
            let off = exact.log_probability - near.log_probability;
            assert!(off.abs() < 1e-2, "{kind:?}: {off}");
        }
    }
}
