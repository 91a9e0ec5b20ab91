//! What must hold of every input.

use proptest::prelude::*;
use sightline_metrics::bleu::BleuCounts;
use sightline_metrics::caption::{CaptionCounts, Settings, Tokenization, evaluate};
use sightline_metrics::files;
use sightline_metrics::meteor::Meteor;
use sightline_metrics::ptb::Tokenizer;
use sightline_metrics::retrieval::{RankCounts, evaluate as retrieve, ranks};
use sightline_metrics::rouge::rouge_l;

/// A sentence of a few words from a small vocabulary, so that words meet again.
fn sentence() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec!["a", "the", "dog", "dogs", "cat", "runs", "running", "on", "grass", "red"]);
    prop::collection::vec(word, 1..12).prop_map(|words| words.join(" "))
}

fn corpus() -> impl Strategy<Value = Vec<(String, Vec<String>)>> {
    prop::collection::vec((sentence(), prop::collection::vec(sentence(), 1..5)), 2..8)
}

fn split(corpus: &[(String, Vec<String>)]) -> (Vec<String>, Vec<Vec<String>>) {
    corpus.iter().cloned().unzip()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_hypothesis_equal_to_a_reference_scores_full_marks(
        text in sentence(), others in prop::collection::vec(sentence(), 0..4), place in 0_usize..5
    ) {
        let mut references = others;
        references.insert(place.min(references.len()), text.clone());
        let words = text.split(' ').count();
        let scores = BleuCounts::of_text(&text, &references).scores();
        for (n, score) in scores.iter().take(words.min(4)).enumerate() {
            prop_assert!((score - 1.0).abs() < 1e-6, "BLEU-{} of {text:?}: {score}", n + 1);
        }
        prop_assert_eq!(rouge_l(&text, &references), 1.0);
        prop_assert!((Meteor::exact_stem().segment(&text, &[&text]).score - 1.0).abs() < 1e-12);
        prop_assert!(Meteor::exact_stem().segment(&text, &references).score > 1.0 - 1e-12);
    }

    #[test]
    fn permuting_references_changes_nothing(corpus in corpus(), turn in 1_usize..4) {
        let meteor = Meteor::exact_stem();
        let settings =
            Settings { tokenization: Tokenization::Alone, meteor: Some(&meteor), ..Settings::default() };
        let (hypotheses, references) = split(&corpus);
        let turned: Vec<Vec<String>> = references.iter().map(|r| {
            let mut r = r.clone();
            let by = turn % r.len();
            r.rotate_left(by);
            r
        }).collect();
        let before = evaluate(&hypotheses, &references, &settings).unwrap();
        let after = evaluate(&hypotheses, &turned, &settings).unwrap();
        for (a, b) in before.images.iter().zip(&after.images) {
            prop_assert_eq!(a.bleu, b.bleu);
            prop_assert_eq!(a.rouge_l, b.rouge_l);
            prop_assert!((a.cider.cider_d - b.cider.cider_d).abs() < 1e-9);
            prop_assert_eq!(a.meteor.unwrap().score, b.meteor.unwrap().score);
        }
    }

    #[test]
    fn merged_counts_equal_one_pass(corpus in corpus(), cut in 0_usize..8) {
        let meteor = Meteor::exact_stem();
        let settings = Settings { meteor: Some(&meteor), ..Settings::default() };
        let (hypotheses, references) = split(&corpus);
        let whole = evaluate(&hypotheses, &references, &settings).unwrap();
        let (mut first, mut second) = (CaptionCounts::default(), CaptionCounts::default());
        for (i, image) in whole.images.iter().enumerate() {
            if i < cut { first.push(image) } else { second.push(image) }
        }
        first.merge(&second);
        prop_assert_eq!((first.bleu, first.meteor, first.images), (whole.counts.bleu, whole.counts.meteor, whole.counts.images));
        for ((_, a), (_, b)) in first.report(settings.meteor).named().into_iter().zip(whole.report.named()) {
            prop_assert!((a - b).abs() < 1e-12);
        }
    }

    #[test]
    fn scores_stay_in_their_range(corpus in corpus()) {
        let meteor = Meteor::exact_stem();
        let settings = Settings { meteor: Some(&meteor), ..Settings::default() };
        let (hypotheses, references) = split(&corpus);
        let found = evaluate(&hypotheses, &references, &settings).unwrap();
        for image in &found.images {
            for (name, value) in image.report(false).named() {
                let most = if name == "cider" { 10.0 } else { 1.0 };
                prop_assert!((0.0..=most + 1e-6).contains(&value), "{name} {value}");
            }
        }
    }

    #[test]
    fn any_text_is_tokenised(captions in prop::collection::vec(any::<String>(), 0..6)) {
        let tokenizer = Tokenizer::shared();
        let tokens = tokenizer.tokens(&captions);
        prop_assert_eq!(tokens.len(), captions.len());
        for token in tokens.iter().flatten() {
            prop_assert!(!token.is_empty() && !token.contains([' ', '\n']), "{token:?}");
        }
        prop_assert_eq!(tokenizer.coco(&captions).len(), captions.len());
        let alone: Vec<String> = captions.iter().map(|c| tokenizer.coco_one(c)).collect();
        prop_assert_eq!(alone.len(), captions.len());
    }

    #[test]
    fn text_of_the_rules_own_signs_is_tokenised(
        text in "[a-zA-Z0-9.,'’\"`–—_/()<>!?:;&#@$%*=+ \u{a0}\u{ad}é-]{0,60}"
    ) {
        let tokens = Tokenizer::shared().tokens(&[&text]);
        let letters = |text: &str| text.chars().filter(char::is_ascii_digit).count();
        // Digits are never lost or made, but by fractions, which these signs do not hold.
        prop_assert_eq!(letters(&tokens[0].concat()), letters(&text), "{:?}", text);
    }

    #[test]
    fn any_text_is_scored(hypothesis in any::<String>(), reference in any::<String>()) {
        let meteor = Meteor::exact_stem();
        let score = meteor.segment(&hypothesis, &[&reference]).score;
        prop_assert!((0.0..=1.0 + 1e-12).contains(&score), "{score}");
        let rouge = rouge_l(&hypothesis, &[&reference]);
        prop_assert!((0.0..=1.0 + 1e-12).contains(&rouge), "{rouge}");
    }

    #[test]
    fn any_bytes_are_a_file_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), json in "[\\[{]([a-z\":,{}\\[\\] 0-9]|\"image_id\"|\"caption\"){0,40}") {
        for bytes in [bytes.as_slice(), json.as_bytes()] {
            if let Ok(file) = files::parse(std::path::Path::new("x"), bytes, None) {
                // Whatever was read can be paired or is told apart, without a panic.
                let _ = files::pair(&file, std::slice::from_ref(&file), true);
            }
        }
    }

    #[test]
    fn ranks_equal_a_sort(
        (images, pairing, scores) in (1_usize..6).prop_flat_map(|images| {
            prop::collection::vec(0..images, 1..12).prop_flat_map(move |pairing| {
                let scores = prop::collection::vec((0_i32..4).prop_map(|s| s as f32 / 2.0), images * pairing.len());
                (Just(images), Just(pairing), scores)
            })
        })
    ) {
        let sentences = pairing.len();
        let found = ranks(&scores, images, sentences, &pairing);
        // Slow and obvious: sort stably, reverse, look where the right ones are.
        let order = |row: Vec<f32>| {
            let mut order: Vec<usize> = (0..row.len()).collect();
            order.sort_by(|&a, &b| row[a].total_cmp(&row[b]));
            order.reverse();
            order
        };
        for (i, rank) in found.image_to_sentence.iter().enumerate() {
            let order = order(scores[i * sentences..(i + 1) * sentences].to_vec());
            prop_assert_eq!(rank.map(|r| r.stable), order.iter().position(|&j| pairing[j] == i));
            prop_assert!(rank.is_none_or(|r| r.pessimistic < sentences));
        }
        for (j, rank) in found.sentence_to_image.iter().enumerate() {
            let order = order((0..images).map(|i| scores[i * sentences + j]).collect());
            prop_assert_eq!(rank.stable, order.iter().position(|&i| i == pairing[j]).unwrap());
            prop_assert!(rank.pessimistic >= rank.stable.min(rank.pessimistic) && rank.pessimistic < images);
        }
        let report = retrieve(&scores, images, sentences, &pairing);
        prop_assert!((0.0..=600.0).contains(&report.rsum));
        let (mut first, mut second) = (RankCounts::default(), RankCounts::default());
        for (j, rank) in found.sentence_to_image.iter().enumerate() {
            if j % 2 == 0 { first.push(*rank) } else { second.push(*rank) }
        }
        first.merge(&second);
        prop_assert_eq!(first.report(), report.sentence_to_image);
    }
}
