//! `sightline demo`: a world small enough to learn in minutes, drawn on the spot. The same steps as on photos: regions,
//! vectors, alignment, phrases, both caption models, evaluation, page. Nothing is downloaded and no weights are used.

pub mod described;
pub mod grounding;
pub mod photos;
mod pipeline;
pub mod scenes;

use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::json;

pub use pipeline::{Demo, Plan};

use crate::commands::features::find_photos;
use crate::places;
use crate::report;
use crate::server::{self, Page};
use crate::ui::{Ui, count, table};

/// Train on generated scenes, evaluate, and serve the page: no data and no weights needed; then your own photos
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  sightline demo
  sightline demo ~/Pictures              # your photos too, described and found by the program's own models
  sightline demo --no-serve --seed 2 --json")]
pub struct Args {
    /// A folder of photos, described and found again after the scenes
    folder: Option<PathBuf>,
    /// End after writing the page
    #[arg(long)]
    no_serve: bool,
    /// Seed of the scenes, the weights and the batches
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: u64,
    /// Folder for the page
    #[arg(short, long, value_name = "FOLDER", default_value = "sightline-demo")]
    output: PathBuf,
    /// One setting of the alignment model, as in `train align`; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = server::DEFAULT_PORT)]
    port: u16,
}

/// Draws, trains and evaluates; see [`Plan`].
pub fn learn(plan: &Plan, ui: &Ui) -> anyhow::Result<Demo> {
    pipeline::run(plan, ui)
}

/// Runs the demo and serves its page.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let plan = Plan { seed: args.seed, assignments: args.assignments.clone(), ..Plan::default() };
    if let Some(folder) = &args.folder {
        anyhow::ensure!(folder.is_dir(), "{} is no folder of photos", folder.display());
        // An empty one says so before the scenes are learnt.
        find_photos(folder)?;
    }
    let html = args.output.join("report.html");
    places::check(places::NOTHING, [&html, &html.with_extension("json")])?;
    let mut demo = learn(&plan, ui)?;
    let own = args.folder.as_deref().map(|folder| photos::describe(folder, ui)).transpose()?;
    if let Some(own) = &own {
        demo.report.tables.push(own.table());
        demo.report.photos.splice(0..0, own.panels.iter().cloned());
    }
    report::write(&html, &demo.report)?;
    report::write_json(&html.with_extension("json"), &demo.report)?;
    let grounding = &demo.grounding;
    let photos = own.as_ref().map(|own| {
        json!({
            "photos": own.described, "failed": own.failed, "found_first": own.found_among(1),
            "found_among_5": own.found_among(5),
        })
    });
    let record = json!({
        "own": photos, "seconds": demo.seconds, "retrieval": demo.retrieval, "bleu4": demo.bleu[3],
        "bleu": demo.bleu, "grounding_accuracy": grounding.accuracy, "grounding_chance": grounding.chance,
        "grounding": grounding, "regions": demo.described, "page": html,
    });
    ui.result(&record, || text(&demo) + &own.as_ref().map_or_else(String::new, photos::OwnPhotos::text))?;
    ui.say(format_args!("page written to {}", html.display()));
    if args.no_serve {
        return Ok(());
    }
    server::serve(Page::new(&demo.report)?, args.port, |address| {
        ui.open_at(address, "", "");
    })
}

fn text(demo: &Demo) -> String {
    let percent = |x: f64| format!("{:.1} %", 100.0 * x);
    let bleu = |scores: [f64; 4]| scores.map(|b| format!("{:.1}", 100.0 * b)).join("  ");
    let grounding = &demo.grounding;
    let rows = [
        ("nouns on their object".to_owned(), percent(grounding.accuracy)),
        ("  by chance".to_owned(), percent(grounding.chance)),
        ("nouns whose region has its centre in their object".to_owned(), percent(grounding.pointing)),
        (
            "nouns on their object, counting objects that no region covers as misses".to_owned(),
            percent(grounding.accuracy_of_all),
        ),
        ("objects that a region covers".to_owned(), percent(grounding.covered)),
        ("BLEU-1 … 4 of captions".to_owned(), bleu(demo.bleu)),
        ("  of captions of objects".to_owned(), bleu(demo.described.region_level)),
        ("  of the same by the model of whole photos".to_owned(), bleu(demo.described.full_frame)),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name, value]).collect();
    let seconds = format!("{:.0} s", demo.seconds);
    format!(
        "{}\n\n{} of test scenes ({} talk about an object that a region covers)\n{}trained and evaluated in {seconds}",
        crate::commands::eval::retrieval_text(&demo.retrieval),
        count(grounding.nouns, "noun"),
        grounding.covered_nouns,
        table(&rows)
    )
}
