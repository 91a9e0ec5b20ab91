//! Backbones by name: the table of those that can be pulled, and where pulled ones lie on this machine.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use sightline_model::Device;
use sightline_vision::backbone::{Vit, VitOptions};

use crate::ui::Usage;

/// The table that this program was built with; the file says where its numbers come from.
const TABLE: &str = include_str!("backbones.toml");

/// What the files of backbones end in.
pub const EXTENSION: &str = "safetensors";

/// A backbone that can be pulled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What `--backbone` calls it.
    pub name: String,
    /// One line for people.
    pub about: String,
    /// Where it is got.
    pub url: String,
    /// Size of the file, where it is known.
    pub bytes: Option<u64>,
    /// SHA-256 of the file in hexadecimal, where it is known.
    pub sha256: Option<String>,
    /// Under which it is published.
    pub licence: String,
    /// Width of a token.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
}

impl Row {
    /// Opens a file as the network that this row describes; one line about what it is instead.
    pub fn check(&self, path: &Path) -> anyhow::Result<()> {
        let network = Vit::load(path, &VitOptions::default(), &Device::flex())?;
        let found = network.config();
        let (expected, found) = ([self.dim, self.depth, self.patch], [found.dim, found.depth, found.patch]);
        let say = |[dim, depth, patch]: [usize; 3]| format!("{depth} blocks of width {dim} over patches of {patch}");
        ensure!(found == expected, "the network has {}, expected {}", say(found), say(expected));
        Ok(())
    }

    fn validate(&self) -> anyhow::Result<()> {
        ensure!(is_name(&self.name), "name {:?}: expected letters, digits, - and _", self.name);
        let hexadecimal = |sum: &String| sum.len() == 64 && sum.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        ensure!(self.sha256.iter().all(hexadecimal), "{}: sha256 is not 64 digits of 0-9 and a-f", self.name);
        Ok(())
    }
}

/// Backbones that can be pulled.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// One a row.
    #[serde(rename = "backbone", default)]
    pub rows: Vec<Row>,
}

impl Table {
    /// The program's own.
    pub fn built_in() -> Self {
        Self::parse(TABLE).expect("the program's table is tested")
    }

    /// Another of the same form.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is no table of backbones", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let table: Self = toml::from_str(text)?;
        table.rows.iter().try_for_each(Row::validate)?;
        Ok(table)
    }

    /// The row of a name.
    pub fn row(&self, name: &str) -> Result<&Row, Usage> {
        let names = || self.rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = self.rows.iter().find(|row| row.name == name);
        found.ok_or_else(|| Usage(format!("no backbone {name:?} can be pulled; there are {}", names())))
    }
}

/// Where a backbone of this name is put and looked for; none for words that are no names, and where there is no folder
/// of the user's.
pub fn place(name: &str) -> Option<PathBuf> {
    is_name(name).then(|| Some(data_folder()?.join("backbones").join(format!("{name}.{EXTENSION}"))))?
}

/// A pulled backbone.
pub fn find(name: &str) -> Option<PathBuf> {
    place(name).filter(|path| path.is_file())
}

/// Words that are a file's name wherever they are put.
fn is_name(words: &str) -> bool {
    !words.is_empty() && words.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// The folder of what this program keeps for its user: SIGHTLINE_DATA, else `sightline` in the user's data folder.
fn data_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("SIGHTLINE_DATA").or_else(|| {
        let base = set("XDG_DATA_HOME").or_else(|| set("LOCALAPPDATA"));
        Some(base.or_else(|| set("HOME").map(|home| home.join(".local/share")))?.join("sightline"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        let table = Table::built_in();
        assert!(!table.rows.is_empty());
        for (i, row) in table.rows.iter().enumerate() {
            assert_eq!(table.row(&row.name).unwrap(), row, "each name once");
            assert!(row.url.starts_with("https://") && row.url.ends_with(".safetensors"), "{}", row.url);
            assert!(row.sha256.is_some(), "{}: the program's own rows have a checksum", row.name);
            assert!(table.rows[..i].iter().all(|other| other.sha256 != row.sha256), "{}", row.name);
            // A commit, not a branch.
            let revision = row.url.split("/resolve/").nth(1).and_then(|rest| rest.split('/').next()).unwrap();
            assert!(revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit()), "{}", row.url);
        }
        let error = table.row("vit-huge").unwrap_err().to_string();
        assert!(error.contains("vit-huge") && table.rows.iter().all(|row| error.contains(&row.name)), "{error}");
    }

    #[test]
    fn bad_rows_are_refused() {
        let row = |name: &str, rest: &str| {
            let text = format!(
                "[[backbone]]\nname = {name:?}\nabout = \"\"\nurl = \"\"\nlicence = \"\"\ndim = 64\ndepth = 2\npatch = 4\n{rest}"
            );
            Table::parse(&text).map(|table| table.rows.len()).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(row("tiny", ""), Ok(1));
        for name in ["", "..", "a/b", "a.b", "a b"] {
            assert!(row(name, "").unwrap_err().contains("expected letters"), "{name}");
        }
        assert!(row("tiny", "sha256 = \"12\"").unwrap_err().contains("sha256"));
        assert!(row("tiny", "shasum = \"12\"").unwrap_err().contains("shasum"));
    }

    #[test]
    fn names_are_never_paths() {
        for words in ["", "..", "../vit", "/etc/passwd", "vit.safetensors", "a\\b"] {
            assert_eq!(place(words), None, "{words}");
        }
    }
}
