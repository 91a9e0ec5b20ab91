//! Any text is tokenised, line by line, without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sightline_metrics::ptb::Tokenizer;

fuzz_target!(|text: &str| {
    let captions: Vec<&str> = text.split('\n').collect();
    let tokenizer = Tokenizer::shared();
    let tokens = tokenizer.tokens(&captions);
    assert_eq!(tokens.len(), captions.len());
    for token in tokens.iter().flatten() {
        assert!(!token.is_empty() && !token.contains([' ', '\n']), "{token:?}");
    }
    let coco = tokenizer.coco(&captions);
    assert_eq!(coco.len(), captions.len());
    // The last caption has no caption after it to look ahead to.
    assert_eq!(coco.last().cloned(), captions.last().map(|c| tokenizer.coco_one(c)));
});
