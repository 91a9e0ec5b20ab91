//! Where a command writes: never over what it reads, never two results to one place; asked before the work.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sightline_data::write;

use crate::ui::Usage;

/// Refuses outputs that are among the inputs, that are named twice, or that cannot be written.
pub fn check<'a>(
    inputs: impl IntoIterator<Item = &'a Path>,
    outputs: impl IntoIterator<Item = &'a Path>,
) -> anyhow::Result<()> {
    let read: BTreeSet<PathBuf> = inputs.into_iter().map(real).collect();
    let mut written = BTreeSet::new();
    for output in outputs {
        let place = real(output);
        let refuse = |why: &str| Usage(format!("{}: {why}; name another file", output.display()));
        if read.contains(&place) {
            return Err(refuse("this command reads it, so it does not write over it").into());
        }
        if !written.insert(place) {
            return Err(refuse("two results would go here").into());
        }
        write::check_place(output)?;
    }
    Ok(())
}

/// One spelling a file: of one that is not there yet, its folder's.
fn real(path: &Path) -> PathBuf {
    let beside = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(folder.canonicalize().ok()?.join(path.file_name()?))
    };
    path.canonicalize().ok().or_else(beside).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_and_other_outputs_are_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("data.json"), "{}").unwrap();
        let again = folder.path().join(".").join("data.json");
        let error = check([path("data.json").as_path()], [again.as_path()]).unwrap_err().to_string();
        assert!(error.contains("this command reads it"), "{error}");
        let new = folder.path().join("./new.csv");
        let error = check([], [path("new.csv").as_path(), new.as_path()]).unwrap_err().to_string();
        assert!(error.contains("two results"), "{error}");
        assert!(check([], [folder.path()]).is_err());
        check([path("data.json").as_path()], [new.as_path(), path("other.csv").as_path()]).unwrap();
        assert!(!new.exists());
    }
}
