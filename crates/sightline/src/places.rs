//! Where a command writes: never over what it reads, never two results to one place; asked before the work.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sightline_data::import::is_photo_name;
use sightline_data::{Dataset, write};

use crate::ui::Usage;

/// What may be written over though it is no result of an evaluation: what the command itself makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// Nothing of the kind.
    Nothing,
    /// A dataset.
    Dataset,
    /// A pack of models.
    Pack,
}

/// Refuses outputs that are among the inputs, that are named twice, that would replace what another command took long to
/// make, or that cannot be written.
pub fn check(
    inputs: impl IntoIterator<Item = impl AsRef<Path>>,
    outputs: impl IntoIterator<Item = impl AsRef<Path>>,
) -> anyhow::Result<()> {
    check_for(Own::Nothing, inputs, outputs)
}

/// As [`check`], of a command with something of its own to write.
pub fn check_for(
    own: Own,
    inputs: impl IntoIterator<Item = impl AsRef<Path>>,
    outputs: impl IntoIterator<Item = impl AsRef<Path>>,
) -> anyhow::Result<()> {
    let read: BTreeSet<PathBuf> = inputs.into_iter().map(|input| real(input.as_ref())).collect();
    let mut written = BTreeSet::new();
    for output in outputs {
        let output = output.as_ref();
        let place = real(output);
        let refuse = |why: &str| Usage(format!("{}: {why}; name another file", output.display()));
        if read.contains(&place) {
            return Err(refuse("this command reads it, so it does not write over it").into());
        }
        if !written.insert(place) {
            return Err(refuse("two results would go here").into());
        }
        if let Some((_, what)) = valuable(output).filter(|(kind, _)| *kind == Own::Nothing || *kind != own) {
            return Err(refuse(&format!("{what} lies here")).into());
        }
        write::check_place(output)?;
        if is_photo_name(&output.to_string_lossy()) {
            return Err(refuse("this is a picture's name, and no picture is written here").into());
        }
    }
    Ok(())
}

/// What lies at a place that no result may replace.
fn valuable(path: &Path) -> Option<(Own, &'static str)> {
    const BEGINNINGS: [(&[u8], Own, &str); 4] = [
        (b"SLCKPT", Own::Nothing, "a model"),
        (b"SLPACK", Own::Pack, "a pack of models"),
        (b"SLFEATS", Own::Nothing, "a feature store"),
        (b"SLJOURN", Own::Nothing, "a feature store under way"),
    ];
    let mut first = [0; 8];
    let n = File::open(path).and_then(|mut file| file.read(&mut first)).ok()?;
    if let Some((_, own, what)) = BEGINNINGS.into_iter().find(|(beginning, ..)| first[..n].starts_with(beginning)) {
        return Some((own, what));
    }
    let beside = |name: &str| path.with_file_name(name).is_file();
    let of_run = path.file_name().is_some_and(|name| name == "settings.toml" || name == "log.jsonl" || name == "lock");
    if of_run && (beside("best.ckpt") || beside("last.ckpt")) {
        return Some((Own::Nothing, "a part of a training's run"));
    }
    Dataset::is_ours(path).then_some((Own::Dataset, "a dataset"))
}

/// The inputs of a command that reads no file.
pub const NOTHING: [&Path; 0] = [];

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
    fn what_took_long_to_make_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let lies = [
            ("run/best.ckpt", "SLCKPT\r\n…", "a model"),
            ("run/settings.toml", "seed = 1", "a part of a training's run"),
            ("x.features", "SLFEATS\0…", "a feature store"),
            ("data.json", "{\"sightline\": {\"version\": 1}}", "a dataset"),
            ("x.pack", "SLPACK\r\n…", "a pack of models"),
        ];
        std::fs::create_dir(path("run")).unwrap();
        for (name, content, what) in lies {
            std::fs::write(path(name), content).unwrap();
            let error = check(NOTHING, [path(name)]).unwrap_err();
            assert!(error.is::<Usage>() && error.to_string().contains(what), "{error}");
        }
        check_for(Own::Dataset, NOTHING, [path("data.json")]).unwrap();
        check_for(Own::Pack, NOTHING, [path("x.pack")]).unwrap();
        assert!(check_for(Own::Pack, NOTHING, [path("run/best.ckpt")]).is_err());
        for name in ["report.json", "settings.toml", "page.html"] {
            std::fs::write(path(name), "{}").unwrap();
            check(NOTHING, [path(name)]).unwrap();
        }
    }

    #[test]
    fn inputs_and_other_outputs_are_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("data.json"), "{}").unwrap();
        let again = folder.path().join(".").join("data.json");
        let error = check([path("data.json")], [again]).unwrap_err().to_string();
        assert!(error.contains("this command reads it"), "{error}");
        let new = folder.path().join("./new.csv");
        let error = check(NOTHING, [&path("new.csv"), &new]).unwrap_err().to_string();
        assert!(error.contains("two results"), "{error}");
        assert!(check(NOTHING, [folder.path()]).is_err());
        let error = check(NOTHING, [path("page.PNG")]).unwrap_err().to_string();
        assert!(error.contains("a picture's name"), "{error}");
        check([path("data.json")], [&new, &path("other.csv")]).unwrap();
        assert!(!new.exists());
    }
}
