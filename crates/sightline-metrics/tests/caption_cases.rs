//! Caption metrics equal those of pycocoevalcap 1.2, per image and for the corpus.

mod common;

use sightline_metrics::bleu::BleuCounts;

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
