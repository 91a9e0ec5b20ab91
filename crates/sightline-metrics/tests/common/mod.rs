//! Where the shared reference cases lie.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::path::PathBuf;

/// The folder of reference cases; none, loudly, where it is absent.
pub(crate) fn cases() -> Option<PathBuf> {
    let shared = std::env::var_os("SIGHTLINE_SHARED")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")), PathBuf::from);
    let folder = shared.join("metric_cases");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: {} absent (set SIGHTLINE_SHARED)", folder.display());
    None
}

/// One file of cases as JSON.
pub(crate) fn json(path: &std::path::Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Strings of a JSON array.
pub(crate) fn strings(value: &serde_json::Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
}

/// Fails unless `found` equals `expected` to `tolerance`, relative (absolute below 1).
pub(crate) fn close(found: f64, expected: f64, tolerance: f64, what: &str) {
    let scale = expected.abs().max(1e-12);
    assert!(
        (found - expected).abs() <= tolerance * scale || (found == 0.0 && expected.abs() < 1e-300),
        "{what}: expected {expected:e}, got {found:e}"
    );
}

/// METEOR's data; none, loudly, where it is absent.
pub(crate) fn meteor_data() -> Option<sightline_metrics::meteor::MeteorData> {
    match sightline_metrics::meteor::MeteorData::find() {
        Ok(data) => Some(data),
        Err(sightline_metrics::Error::MeteorDataMissing) => {
            eprintln!("skipped: METEOR's data is absent; {}", sightline_metrics::HOW_TO_GET_METEOR_DATA);
            None
        }
        Err(error) => panic!("METEOR's data is there but unreadable: {error}"),
    }
}
