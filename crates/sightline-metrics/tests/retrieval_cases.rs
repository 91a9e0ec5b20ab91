//! Ranks and recalls equal those recorded from the formulas of VSE++ under a stable sort.

mod common;

use serde_json::Value;
use sightline_metrics::retrieval::{DirectionReport, evaluate, ranks};

fn check(found: &DirectionReport, expected: &Value, what: &str) {
    for (value, key) in [
        (found.r1, "r1"),
        (found.r5, "r5"),
        (found.r10, "r10"),
        (found.median_rank, "medr"),
        (found.mean_rank, "meanr"),
    ] {
        common::close(value, expected[key].as_f64().unwrap(), 1e-12, &format!("{what} {key}"));
    }
}

#[test]
fn all_recorded_matrices() {
    let Some(folder) = common::cases() else { return };
    let mut checked = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("retrieval_") {
            continue;
        }
        let case = common::json(&path);
        let images = case["N"].as_u64().unwrap() as usize;
        let sentences = case["t2i_ranks_stable"].as_array().unwrap().len();
        let scores: Vec<f32> = match case.get("S").and_then(Value::as_array) {
            Some(rows) => {
                rows.iter().flat_map(|r| r.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32)).collect()
            }
            None => vec![0.0; images * sentences],
        };
        let pairing: Vec<usize> = (0..sentences).map(|j| j / 5).collect();
        let found = ranks(&scores, images, sentences, &pairing);
        let expected = |key: &str| -> Vec<usize> {
            case[key].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
        };
        let i2t: Vec<usize> = found.image_to_sentence.iter().map(|r| r.unwrap().stable).collect();
        let t2i: Vec<usize> = found.sentence_to_image.iter().map(|r| r.stable).collect();
        assert_eq!(i2t, expected("i2t_ranks_stable"), "{name}");
        assert_eq!(t2i, expected("t2i_ranks_stable"), "{name}");
        let report = evaluate(&scores, images, sentences, &pairing);
        check(&report.image_to_sentence, &case["i2t_stable"], &name);
        check(&report.sentence_to_image, &case["t2i_stable"], &name);
        checked += 1;
    }
    assert!(checked >= 7, "only {checked} retrieval cases found");
}
