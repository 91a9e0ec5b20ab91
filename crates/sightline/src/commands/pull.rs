//! `pull`: a better backbone from its publisher, checked, for `--backbone NAME`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args as ClapArgs;
use serde::Serialize;

use crate::backbones::{self, EXTENSION, Row, Table};
use crate::download::{Pinned, sha256};
use crate::ui::{Ui, Usage, table};

/// Download a backbone, check it, and keep it for `--backbone NAME`; without a name, list those that there are
///
/// It is got by curl from its publisher; a download that was stopped goes on where it was. Its SHA-256 is compared with the
/// one in the program's table. Where the table knows none, the first download that opens as the network it should be is
/// trusted, and its SHA-256 is recorded beside it, so that the next download is compared with that.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  sightline pull
  sightline pull dinov2-small
  sightline features photos -o dino.features --backbone dinov2-small
  sightline pull clip-b32 -o clip.safetensors --url https://mirror.example/clip.safetensors")]
pub struct Args {
    /// Which one
    name: Option<String>,
    /// Where to put it [default: the user's data folder, where --backbone looks for names]
    #[arg(long, short, value_name = "FILE", requires = "name")]
    output: Option<PathBuf>,
    /// Get it from here instead, a mirror say; what is expected of it stays the same
    #[arg(long, requires = "name")]
    url: Option<String>,
    /// Backbones to choose from, in a file of the form of crates/sightline/src/backbones.toml [default: the program's]
    #[arg(long, value_name = "FILE.toml")]
    table: Option<PathBuf>,
}

/// A backbone of the table, and where it lies here.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    row: &'a Row,
    /// None where it was not pulled.
    path: Option<PathBuf>,
}

/// A backbone that is here.
#[derive(Debug, Serialize)]
struct Pulled<'a> {
    name: &'a str,
    path: PathBuf,
    sha256: String,
    /// Whether the SHA-256 was known before the download, and did not have to be trusted.
    known: bool,
    /// Whether it had to be fetched.
    fetched: bool,
    licence: &'a str,
}

/// Pulls or lists.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let table = args.table.as_deref().map_or_else(|| Ok(Table::built_in()), Table::read)?;
    match &args.name {
        None => list(&table, ui),
        Some(name) => {
            let row = table.row(name)?;
            let pulled = pull(row, args, ui)?;
            let option = if args.output.is_some() { pulled.path.display().to_string() } else { row.name.clone() };
            ui.result(&pulled, || {
                format!(
                    "{}: {} ({}), SHA-256 {}\nuse it with --backbone {option}",
                    row.name,
                    pulled.path.display(),
                    row.licence,
                    pulled.sha256
                )
            })
        }
    }
}

fn list(backbones: &Table, ui: &Ui) -> anyhow::Result<()> {
    let listed: Vec<Listed<'_>> =
        backbones.rows.iter().map(|row| Listed { row, path: backbones::find(&row.name) }).collect();
    ui.result(&listed, || {
        let head = ["name", "MB", "licence", "here"].map(str::to_owned).to_vec();
        let size = |row: &Row| row.bytes.map_or("–".to_owned(), |bytes| (bytes / 1_000_000).to_string());
        let rows = listed.iter().map(|Listed { row, path }| {
            let here = if path.is_some() { "yes" } else { "no" };
            vec![row.name.clone(), size(row), row.licence.clone(), here.to_owned()]
        });
        let columns = table(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
        let abouts = std::iter::once("what").chain(listed.iter().map(|listed| listed.row.about.as_str()));
        columns.lines().zip(abouts).map(|(line, about)| format!("{line}  {about}\n")).collect()
    })
}

fn pull<'a>(row: &'a Row, args: &Args, ui: &Ui) -> anyhow::Result<Pulled<'a>> {
    let path = match &args.output {
        Some(file) if file.extension().is_some_and(|e| e == EXTENSION) => file.clone(),
        Some(file) => {
            let message = format!("-o {}: expected a name that ends in .{EXTENSION}", file.display());
            return Err(Usage(message).into());
        }
        None => {
            backbones::place(&row.name).context("there is no folder of yours to keep it in; name a file with -o")?
        }
    };
    let record = record_of(&path);
    let recorded = read_record(&record)?;
    let expected = row.sha256.as_ref().or(recorded.as_ref());
    let fetched = !path.exists();
    let found = if fetched {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
        let url = args.url.as_deref().unwrap_or(&row.url);
        let pinned = Pinned { url, bytes: row.bytes, sha256: expected.map(String::as_str) };
        pinned.fetch_checked(&path, |file| row.check(file), ui).map_err(|error| match &recorded {
            Some(_) if row.sha256.is_none() => {
                error.context(format!("{} holds what the first download was", record.display()))
            }
            _ => error,
        })?
    } else {
        let found = sha256(&path)?;
        match expected {
            Some(expected) => ensure!(
                found == *expected,
                "{} has the SHA-256 {found}, expected {expected}; remove it, and the same command gets it anew",
                path.display()
            ),
            None => row.check(&path)?,
        }
        ui.say(format_args!("{} is there already", path.display()));
        found
    };
    if expected.is_none() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        sightline_data::write::atomically(&record, |file| writeln!(file, "{found}  {name}"))?;
        ui.say(format_args!(
            "no SHA-256 of {} was known beforehand: this file opens as the network it should be and is trusted, and the \
             next download must equal it ({})",
            row.name,
            record.display()
        ));
    }
    Ok(Pulled { name: &row.name, path, sha256: found, known: expected.is_some(), fetched, licence: &row.licence })
}

/// Where the SHA-256 of a trusted file is recorded, in the form of `sha256sum`.
fn record_of(path: &Path) -> PathBuf {
    path.with_extension(format!("{EXTENSION}.sha256"))
}

fn read_record(record: &Path) -> anyhow::Result<Option<String>> {
    let text = match std::fs::read_to_string(record) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("cannot read {}", record.display()))?,
    };
    match text.split_whitespace().next() {
        Some(sum) if sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(Some(sum.to_ascii_lowercase()))
        }
        _ => bail!("{} holds no SHA-256; remove it, and the file is trusted anew", record.display()),
    }
}
