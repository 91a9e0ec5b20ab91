//! Any bytes are a file of captions or an error, and any two files pair or are told apart.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sightline_metrics::files;

fuzz_target!(|bytes: &[u8]| {
    // Two files parted by a byte that UTF-8 never holds.
    let cut = bytes.iter().position(|&b| b == 0xff).unwrap_or(bytes.len());
    let (first, second) = bytes.split_at(cut);
    let second = second.get(1..).unwrap_or_default();
    let (Ok(first), Ok(second)) =
        (files::parse(Path::new("h"), first, None), files::parse(Path::new("r"), second, Some("test")))
    else {
        return;
    };
    for partial in [false, true] {
        if let Ok(pairs) = files::pair(&first, &[second.clone()], partial) {
            assert_eq!(pairs.names.len(), pairs.hypotheses.len());
            assert_eq!(pairs.names.len(), pairs.references.len());
            assert!(pairs.references.iter().all(|r| !r.is_empty()));
        }
    }
    let _ = files::pair(&first, &[first.clone()], true);
});
