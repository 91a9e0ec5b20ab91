//! Which row belongs to which photo.

use std::path::Path;

use rustc_hash::{FxHashMap, FxHashSet};

use super::array::Array;
use crate::{Dataset, Error, Result};

/// Finds photos of a dataset by the names that other programs give them.
pub(super) struct Matcher<'d> {
    by_name: FxHashMap<&'d str, Option<&'d str>>,
    by_number: FxHashMap<u64, Option<&'d str>>,
}

/// The name without folders and extension.
fn stem(name: &str) -> &str {
    super::super::splits::stem(name)
}

/// COCO's number in `COCO_val2014_000000000139.jpg`, `000000000139` or `139`.
fn coco_number(stem: &str) -> Option<u64> {
    let digits = stem.rsplit('_').next().unwrap_or(stem);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // `1000268201_693b08cb0e`-like names end in digits at times; only COCO's own prefix may stand before the number.
    (digits.len() == stem.len() || stem.starts_with("COCO_")).then(|| digits.parse().ok()).flatten()
}

impl<'d> Matcher<'d> {
    pub(super) fn new(dataset: &'d Dataset) -> Self {
        let mut by_name: FxHashMap<&str, Option<&str>> = FxHashMap::default();
        let mut by_number: FxHashMap<u64, Option<&str>> = FxHashMap::default();
        for image in &dataset.images {
            let path = image.path.as_str();
            let file = path.rsplit_once('/').map_or(path, |(_, file)| file);
            let names: FxHashSet<&str> = [path, file, stem(path)].into_iter().collect();
            for name in names {
                // A name that two photos share names neither.
                by_name.entry(name).and_modify(|found| *found = None).or_insert(Some(path));
            }
            if let Some(number) = coco_number(stem(path)) {
                by_number.entry(number).and_modify(|found| *found = None).or_insert(Some(path));
            }
        }
        for image in &dataset.images {
            by_name.insert(&image.path, Some(&image.path));
        }
        Self { by_name, by_number }
    }

    /// The path of the photo: by path, file name, name without extension, or COCO's number.
    pub(super) fn find(&self, name: &str) -> Option<&'d str> {
        let file = name.rsplit_once(['/', '\\']).map_or(name, |(_, file)| file);
        let named = [name, file, stem(name)].into_iter().find_map(|name| self.by_name.get(name).copied().flatten());
        named.or_else(|| coco_number(stem(name)).and_then(|number| self.by_number.get(&number).copied().flatten()))
    }
}

/// Names with their rows, each photo once, and what was noticed.
pub(super) struct Paired {
    pub(super) rows: Vec<(String, usize)>,
    pub(super) explanation: Option<String>,
}

/// Whether as many names can belong to as many rows: one each, or one of the two repeated alike.
pub(super) fn fits(n_names: usize, n_rows: usize) -> bool {
    let repeats = |many: usize, few: usize| few > 0 && many.is_multiple_of(few) && (1..=10).contains(&(many / few));
    repeats(n_rows, n_names) || repeats(n_names, n_rows)
}

/// Pairs names and rows. Other programs repeat each photo's row, or its name, once a sentence; what is repeated must be
/// equal, and is then used once.
pub(super) fn pair(path: &Path, names: Vec<String>, array: &Array) -> Result<Paired> {
    let (n_names, n_rows) = (names.len(), array.rows());
    let bad = |message: String| Error::format(path, message);
    if !fits(n_names, n_rows) {
        return Err(bad(format!(
            "expected a row for each of {n_names} photos, got {n_rows} rows of {:?}: name the list of its photos",
            array.shape()
        )));
    }
    let read = |row: usize| -> Vec<u32> {
        let mut values = Vec::new();
        array.read_row(row, &mut values);
        // Bits, so that a NaN equals itself.
        values.into_iter().map(f32::to_bits).collect()
    };
    let differ = |name: &str, a: usize, b: usize| {
        bad(format!("rows {a} and {b} both belong to `{name}` but differ: is this the right list of photos?"))
    };
    if n_rows > n_names {
        let step = n_rows / n_names;
        for (i, name) in names.iter().enumerate() {
            let first = read(i * step);
            if let Some(other) = (i * step + 1..(i + 1) * step).find(|&row| read(row) != first) {
                return Err(differ(name, i * step, other));
            }
        }
        let explanation = format!("{n_rows} rows for {n_names} photos, each repeated {step} times: used once each");
        let rows = names.into_iter().enumerate().map(|(i, name)| (name, i * step)).collect();
        return Ok(Paired { rows, explanation: Some(explanation) });
    }
    if n_names > n_rows {
        let step = n_names / n_rows;
        if let Some(group) = names.chunks(step).find(|group| group.iter().any(|name| *name != group[0])) {
            return Err(bad(format!(
                "{n_names} names for {n_rows} rows, but the names are not repeated {step} times each: `{}` stands \
                 beside other names",
                group[0]
            )));
        }
        let rows = names.into_iter().step_by(step).enumerate().map(|(row, name)| (name, row)).collect();
        let explanation = format!("{n_names} names for {n_rows} rows, each repeated {step} times: used once each");
        return Ok(Paired { rows, explanation: Some(explanation) });
    }
    let mut first: FxHashMap<String, usize> = FxHashMap::default();
    let mut rows = Vec::new();
    for (row, name) in names.into_iter().enumerate() {
        match first.get(&name) {
            None => {
                first.insert(name.clone(), row);
                rows.push((name, row));
            }
            Some(&earlier) if read(earlier) == read(row) => {}
            Some(&earlier) => return Err(differ(&name, earlier, row)),
        }
    }
    let repeated = n_rows - rows.len();
    let explanation = (repeated > 0).then(|| format!("{repeated} of {n_rows} rows repeat a photo: used once each"));
    Ok(Paired { rows, explanation })
}
