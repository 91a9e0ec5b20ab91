//! The demo's scenes as a dataset: pictures in a folder, and `dataset.json` with their sentences.
//!
//! ```text
//! cargo run --release --example scenes -- FOLDER [number of scenes]
//! ```
//!
//! For whoever wants to try the commands without photos; the page's test does (web/test/run.sh).

use std::path::PathBuf;

use anyhow::Context as _;
use sightline::demo::scenes;
use sightline_data::Split;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let folder = PathBuf::from(arguments.next().context("name a folder")?);
    let number = arguments.next().and_then(|text| text.to_str()?.parse().ok()).unwrap_or(80);
    let photos = folder.join("photos");
    let all = scenes::generate(1, number);
    scenes::write_pictures(&all, &photos)?;
    let rest = number / 4;
    let splits = [(Split::Train, number - 2 * rest), (Split::Val, rest), (Split::Test, rest)];
    scenes::to_dataset(&all, photos.canonicalize()?, &splits).save(&folder.join("dataset.json"))?;
    println!("{number} scenes in {}", photos.display());
    Ok(())
}
