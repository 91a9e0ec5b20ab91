//! `pack`: models that belong together into one file; `info`: what such a file says of itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args as ClapArgs;
use serde_json::json;
use sightline_model::Device;
use sightline_train::checkpoint::{Checkpoint, Kind, Outline};
use sightline_train::pack::{self, Card, Stored};
use sightline_vision::backbone::Backbone;

use crate::models;
use crate::places;
use crate::ui::Ui;

/// Put a backbone, an alignment model and caption models into one small file
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  sightline pack -o mine.pack --backbone runs/backbone --align runs/align --caption runs/caption --regions runs/regions \\
      --card card.toml
  sightline caption photo.jpg --model mine.pack")]
pub struct PackArgs {
    /// The file to write
    #[arg(short, long, value_name = "PACK")]
    output: PathBuf,
    /// A run of `train backbone`
    #[arg(long, value_name = "RUN")]
    backbone: PathBuf,
    /// A run of `train align`
    #[arg(long, value_name = "RUN")]
    align: PathBuf,
    /// A run of `train caption`
    #[arg(long, value_name = "RUN")]
    caption: Option<PathBuf>,
    /// A run of `train caption --phrases`
    #[arg(long, value_name = "RUN")]
    regions: Option<PathBuf>,
    /// What the pack says of itself, in TOML: name, date, data, licence, limits, command, and [scores]
    #[arg(long, value_name = "FILE")]
    card: PathBuf,
    /// Keep the matrices of the alignment and caption models with eight bits a number
    #[arg(long)]
    int8: bool,
}

/// Reads the models, checks that they belong together, writes the pack.
pub fn run(args: &PackArgs, ui: &Ui) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&args.card).with_context(|| format!("cannot read {}", args.card.display()))?;
    let card: Card = toml::from_str(&text).with_context(|| format!("{}: no card", args.card.display()))?;
    let models = [&args.backbone, &args.align].into_iter().chain(&args.caption).chain(&args.regions);
    places::check_for(places::Own::Pack, models::files(models).chain([args.card.clone()]), [&args.output])?;
    let backbone = models::checkpoint(&args.backbone, &[Kind::Backbone])?;
    let small = sightline_train::backbone::open(backbone.clone(), &Device::flex())?.into_compact()?;
    let precision = if args.int8 { Stored::I8 } else { Stored::F16 };
    let mut parts = vec![(backbone, Stored::F16)];
    let others = [
        (Some(&args.align), Kind::Alignment),
        (args.caption.as_ref(), Kind::Caption),
        (args.regions.as_ref(), Kind::RegionCaption),
    ];
    for (run, kind) in others {
        let Some(run) = run else { continue };
        let model = models::checkpoint(run, &[kind])?;
        check(run, &model, &parts, Backbone::checksum(&small))?;
        parts.push((model, precision));
    }
    pack::write(&args.output, &card, &parts)?;
    info(&InfoArgs { model: args.output.clone() }, ui)
}

/// A model must read the vectors of this very backbone, and the same as the other models.
fn check(run: &Path, model: &Checkpoint, parts: &[(Checkpoint, Stored)], backbone: &str) -> anyhow::Result<()> {
    let features = &model.header.features;
    anyhow::ensure!(
        features.backbone_checksum == backbone && features.regions_checksum == backbone,
        "{} was trained on vectors or regions of another backbone ({}, {}); make its features with --backbone RUN and \
         --regions compact=RUN",
        run.display(),
        features.backbone,
        features.regions
    );
    let differences = parts.get(1).map_or_else(Vec::new, |(other, _)| features.differences(&other.header.features));
    anyhow::ensure!(
        differences.is_empty(),
        "{} reads other vectors than the alignment model: {}",
        run.display(),
        differences.join("; ")
    );
    Ok(())
}

/// What the program's own models, or those of another pack, are: data, licence, scores, limits
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  sightline info
  sightline info mine.pack --json")]
pub struct InfoArgs {
    /// A pack
    #[arg(default_value = models::BUILTIN)]
    model: PathBuf,
}

/// Prints the card.
pub fn info(args: &InfoArgs, ui: &Ui) -> anyhow::Result<()> {
    let is_there = args.model == Path::new(models::BUILTIN) || args.model.exists();
    anyhow::ensure!(is_there, "{} is not there; name a file of `sightline pack`", args.model.display());
    anyhow::ensure!(
        models::is_pack(&args.model),
        "{} is no pack of models; name a file of `sightline pack`, or nothing for the program's own",
        args.model.display()
    );
    let pack = models::pack(&args.model)?;
    let about = |kind: Kind| {
        let Outline { header, shapes } = pack.outline(kind).expect("a kind of this pack");
        json!({ "kind": kind, "parameters": parameters(&shapes), "words": header.vocabulary.len(), "settings": header.settings })
    };
    let parts: Vec<_> = pack.kinds().map(about).collect();
    let record = json!({
        "program": env!("CARGO_PKG_VERSION"), "model": args.model, "checksum": pack.checksum(), "card": pack.card,
        "models": parts,
    });
    ui.result(&record, || {
        let Card { name, date, data, licence, scores, limits, command } = &pack.card;
        let mut text = format!(
            "sightline {}\n\n{name}, {date} ({}, {})\n",
            env!("CARGO_PKG_VERSION"),
            args.model.display(),
            pack.checksum()
        );
        for kind in pack.kinds() {
            let Outline { shapes, .. } = pack.outline(kind).expect("a kind of this pack");
            text.push_str(&format!("  {}: {:.2} million numbers\n", kind.name(), parameters(&shapes) as f64 / 1e6));
        }
        for (title, of_card) in [("learned from", data), ("licence", licence), ("limits", limits), ("made by", command)]
        {
            text.push_str(&format!("\n{title}:\n{}\n", indented(of_card)));
        }
        text.push_str("\nscores:\n");
        for (what, figures) in scores {
            text.push_str(&format!("  {what}: {figures}\n"));
        }
        text
    })
}

fn parameters(shapes: &BTreeMap<String, Vec<usize>>) -> usize {
    shapes.values().map(|shape| shape.iter().product::<usize>()).sum()
}

fn indented(text: &str) -> String {
    text.trim().lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
