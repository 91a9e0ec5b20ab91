//! Keys of JSON objects that a reader does not use: their names, without their values.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::{DeserializeOwned, IgnoredAny};

use crate::problems::Problems;
use crate::{Error, Result};

/// For `#[serde(flatten)]`.
pub(super) type Rest = BTreeMap<String, IgnoredAny>;

/// Counts all but the keys that the layout documents and we have no use for.
pub(super) fn count_unknown(rest: &Rest, place: &str, documented: &[&str], problems: &mut Problems) {
    for key in rest.keys().filter(|key| !documented.contains(&key.as_str())) {
        problems.add_unknown_key(format!("{place}{key}"));
    }
}

/// Parses a whole file; `layout` names what was expected.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8], layout: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::format(path, format!("broken JSON, expected {layout}: {e}")))
}
