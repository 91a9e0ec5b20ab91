//! Caption metrics equal those of pycocoevalcap 1.2, per image and for the corpus.

mod common;

use sightline_metrics::bleu::BleuCounts;
use sightline_metrics::cider::{Cider, CiderSum, DocumentFrequencies};
use sightline_metrics::meteor::{Meteor, MeteorCounts, Task};
use sightline_metrics::rouge::{RougeSum, rouge_l};

const FILES: [&str; 5] =
    ["flickr8k_loo_1000", "flickr8k_nn_1000", "flickr8k_varrefs_500", "meteor_stress_400", "nasty"];

#[test]
fn bleu() {
    let Some(folder) = common::cases() else { return };
    for file in FILES {
        let cases = common::json(&folder.join(format!("{file}.json")));
        let mut sum = BleuCounts::default();
        for item in cases["items"].as_array().unwrap() {
            let counts = BleuCounts::of_text(item["hyp_tok"].as_str().unwrap(), &common::strings(&item["refs_tok"]));
            sum += counts;
            for (n, score) in counts.scores().into_iter().enumerate() {
                let expected = item["scores"][format!("Bleu_{}", n + 1)].as_f64().unwrap();
                common::close(score, expected, 1e-9, &format!("{file} {} BLEU-{}", item["id"], n + 1));
            }
        }
        for (n, score) in sum.scores().into_iter().enumerate() {
            let expected = cases["corpus"][format!("Bleu_{}", n + 1)].as_f64().unwrap();
            common::close(score, expected, 1e-9, &format!("{file} corpus BLEU-{}", n + 1));
        }
    }
}

#[test]
fn rouge() {
    let Some(folder) = common::cases() else { return };
    for file in FILES {
        let cases = common::json(&folder.join(format!("{file}.json")));
        let mut sum = RougeSum::default();
        for item in cases["items"].as_array().unwrap() {
            let score = rouge_l(item["hyp_tok"].as_str().unwrap(), &common::strings(&item["refs_tok"]));
            sum.push(score);
            let expected = item["scores"]["ROUGE_L"].as_f64().unwrap();
            common::close(score, expected, 1e-9, &format!("{file} {} ROUGE-L", item["id"]));
        }
        common::close(sum.score(), cases["corpus"]["ROUGE_L"].as_f64().unwrap(), 1e-9, &format!("{file} ROUGE-L"));
    }
}

#[test]
fn cider() {
    let Some(folder) = common::cases() else { return };
    for file in FILES {
        let cases = common::json(&folder.join(format!("{file}.json")));
        let items = cases["items"].as_array().unwrap();
        let references: Vec<Vec<String>> = items.iter().map(|i| common::strings(&i["refs_tok"])).collect();
        let frequencies = DocumentFrequencies::of(&references);
        let cider = Cider::new(&frequencies);
        let mut sum = CiderSum::default();
        for (item, references) in items.iter().zip(&references) {
            let score = cider.score(item["hyp_tok"].as_str().unwrap(), references);
            sum.push(score);
            let expected = |key: &str| item["scores"][key].as_f64().unwrap();
            common::close(score.cider_d, expected("CIDEr"), 1e-9, &format!("{file} {} CIDEr-D", item["id"]));
            common::close(
                score.cider,
                expected("CIDEr_plain_noclip_nogauss"),
                1e-9,
                &format!("{file} {} CIDEr", item["id"]),
            );
        }
        let expected = |key: &str| cases["corpus"][key].as_f64().unwrap();
        common::close(sum.score().cider_d, expected("CIDEr"), 1e-9, &format!("{file} CIDEr-D"));
        common::close(sum.score().cider, expected("CIDEr_plain_noclip_nogauss"), 1e-9, &format!("{file} CIDEr"));
    }
}

#[test]
fn meteor() {
    let (Some(folder), Some(data)) = (common::cases(), common::meteor_data()) else { return };
    let meteor = Meteor::new(data, Task::Rank);
    for file in FILES {
        let cases = common::json(&folder.join(format!("{file}.json")));
        let items = cases["items"].as_array().unwrap();
        let hypotheses: Vec<&str> = items.iter().map(|i| i["hyp_tok"].as_str().unwrap()).collect();
        let references: Vec<Vec<String>> = items.iter().map(|i| common::strings(&i["refs_tok"])).collect();
        let mut sum = MeteorCounts::default();
        let mut wrong = 0;
        for (item, found) in items.iter().zip(meteor.segments(&hypotheses, &references)) {
            sum.add_segment(&found.counts);
            let expected: Vec<u64> =
                item["meteor_stats"].as_str().unwrap().split(' ').map(|n| n.parse::<f64>().unwrap() as u64).collect();
            let score = item["scores"]["METEOR"].as_f64().unwrap();
            if found.counts.to_array().as_slice() != expected || (found.score - score).abs() > 1e-6 {
                wrong += 1;
                eprintln!(
                    "{file} {}: {:?} | {:?}\n    expected {expected:?} {score}\n    got      {:?} {}",
                    item["id"],
                    item["hyp_tok"],
                    item["refs_tok"],
                    found.counts.to_array(),
                    found.score
                );
            }
        }
        assert_eq!(wrong, 0, "{wrong} segments of {file} differ");
        let expected = cases["corpus"]["METEOR"].as_f64().unwrap();
        common::close(sum.score(meteor.parameters()), expected, 1e-9, &format!("{file} METEOR"));
    }
}
