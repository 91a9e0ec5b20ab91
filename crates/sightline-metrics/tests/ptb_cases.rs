//! Tokens equal those of the reference tokenizer on every recorded line.

mod common;

use sightline_metrics::ptb::Tokenizer;

fn check(file: &str, allowed: usize) {
    let Some(folder) = common::cases() else { return };
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    let cases: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let captions: Vec<&str> = cases.iter().map(|c| c["caption"].as_str().unwrap()).collect();
    let tokens = Tokenizer::shared().tokens(&captions);
    let coco = Tokenizer::shared().coco(&captions);
    let (mut wrong_tokens, mut wrong_coco) = (0, 0);
    for ((case, tokens), coco) in cases.iter().zip(tokens).zip(coco) {
        let same_tokens = common::strings(&case["tokens"]) == tokens;
        let same_coco = case["coco"] == coco;
        wrong_tokens += usize::from(!same_tokens);
        wrong_coco += usize::from(!same_coco);
        if (!same_coco || !same_tokens) && wrong_tokens + wrong_coco <= 120 {
            eprintln!("{}\n    expected {}\n    got      {tokens:?}", case["caption"], case["tokens"]);
        }
    }
    eprintln!("{file}: {} lines, {wrong_tokens} differ in tokens, {wrong_coco} after the filter", cases.len());
    assert!(wrong_coco <= allowed, "{wrong_coco} lines of {file} differ, {allowed} allowed");
}

#[test]
fn captions() {
    check("ptb_flickr8k_12000.jsonl", 0);
}

#[test]
fn nasty_lines() {
    check("ptb_nasty.jsonl", 0);
}

#[test]
fn fuzzed_lines() {
    check("ptb_fuzz_20000.jsonl", 3);
}
