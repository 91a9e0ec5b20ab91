//! `serve`: an index with its page and API, or a report as a page.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args as ClapArgs;
use sightline_train::committee::USUAL_FIT_WEIGHT;

use super::caption::{BeamArgs, CHOOSING_BEAM, USUAL_BEAM, check_fit};
use super::index::NetworkArgs;
use crate::describe::{Beams, LazyDescriber};
use crate::index::search::{Searcher, open_models};
use crate::interrupt;
use crate::models;
use crate::report;
use crate::server::index::{self, App, Options};
use crate::server::runs::Runs;
use crate::server::{self, Page};
use crate::ui::{Ui, Usage, count};

/// Serve an index's page and API, or a report, on this machine
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  sightline serve ~/Pictures                                        # with the program's own models
  sightline serve --index pictures.index
  sightline serve --index pictures.index --caption-model runs/caption --region-model runs/regions
  sightline serve --index pictures.index --runs runs               # their curves, while they train
  sightline serve --index pictures.index --host 0.0.0.0 --token \"$TOKEN\"
  sightline serve --report report.json")]
pub struct Args {
    /// A folder of photos; what is new in it is indexed first
    #[arg(required_unless_present_any = ["report", "index"], conflicts_with_all = ["report", "index"])]
    folder: Option<PathBuf>,
    /// An index of `sightline index`
    #[arg(long, conflicts_with = "report")]
    index: Option<PathBuf>,
    /// A report's record, the .json that is written beside the .html
    #[arg(long)]
    report: Option<PathBuf>,
    /// Port; 0 takes a free one
    #[arg(long, default_value_t = server::DEFAULT_PORT)]
    port: u16,
    /// Address to listen on; one that other machines reach needs --token
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), conflicts_with = "report")]
    host: IpAddr,
    /// What every request must bring
    #[arg(long, env = "SIGHTLINE_TOKEN", hide_env_values = true, conflicts_with = "report")]
    token: Option<String>,
    /// A run of `train caption`, to describe photos; unless given, the program's own where the index's model is that
    #[arg(long, value_name = "RUN", conflicts_with = "report")]
    caption_model: Option<PathBuf>,
    /// A run of `train caption --phrases`, to describe regions
    #[arg(long, value_name = "RUN", requires = "caption_model")]
    region_model: Option<PathBuf>,
    /// A folder of runs and of records of `eval`, to show in tables and curves
    #[arg(long, value_name = "FOLDER", conflicts_with = "report")]
    runs: Option<PathBuf>,
    #[command(flatten)]
    beam: BeamArgs,
    /// The index's model has a say in which sentence of the beam is best: this times its score is added to the log
    /// probability a word; 0 leaves the choice to the likelihood
    #[arg(long, value_name = "WEIGHT", default_value_t = USUAL_FIT_WEIGHT)]
    fit: f32,
    #[command(flatten)]
    networks: NetworkArgs,
}

/// An error for what fits no header or cookie; it does not say the token.
fn check_token(token: &str) -> anyhow::Result<()> {
    let fits = token.len() >= 8 && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte));
    if fits {
        return Ok(());
    }
    Err(Usage("the token (--token, SIGHTLINE_TOKEN): expected 8 or more letters, digits, - _ . ~".to_owned()).into())
}

/// Serves until Ctrl-C.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    args.token.as_deref().map_or(Ok(()), check_token)?;
    if let Some(report) = &args.report {
        let page = Page::new(&report::read_json(report)?)?;
        return server::serve(page, args.port, |address| {
            ui.open_at(address, "", "");
        });
    }
    let index = &match (&args.index, &args.folder) {
        (Some(index), _) => index.clone(),
        (None, Some(folder)) => {
            let updated = super::index::update(&super::index::Args::of_folder(folder, &args.networks), ui)?;
            ui.say(updated.text());
            // From here on Ctrl-C is the server's.
            interrupt::be_quiet();
            updated.index
        }
        (None, None) => unreachable!("one of them is required"),
    };
    let NetworkArgs { model, backbone, proposals, device } = &args.networks;
    let (backbone, proposals) = (backbone.as_deref(), proposals.as_deref());
    let networks = open_models(index, model.as_deref(), backbone, proposals, true, &device.open()?, ui)?;
    // The networks themselves are opened when a photo is to be read.
    if !networks.reads_photos()
        && let Err(reason) = networks.extraction()
    {
        ui.say(format_args!("{reason}; search by words works"));
    }
    let searcher = Searcher::open(index, Arc::new(networks))?;
    let builtin = Path::new(models::BUILTIN);
    let runs_of_captions = match &args.caption_model {
        Some(run) => Some((run.as_path(), args.region_model.as_deref())),
        None => (searcher.settings().model == builtin).then_some((builtin, Some(builtin))),
    };
    check_fit(args.fit)?;
    let usual = if args.fit > 0.0 { CHOOSING_BEAM } else { USUAL_BEAM };
    let beams = Beams { photos: args.beam.settings(usual)?, regions: args.beam.of_regions()? };
    let describer = match runs_of_captions {
        Some((photos, regions)) => Some(LazyDescriber::new(photos, regions, &searcher.settings().features, beams)?),
        None => None,
    };
    let photos = count(searcher.len(), "photo");
    let runs = args.runs.as_deref().map(Runs::new).transpose()?;
    let app =
        App::new(searcher, Options { describer, runs, fit: args.fit, token: args.token.clone(), ..Options::default() });
    index::serve(app, args.host, args.port, |address| {
        let token = if args.token.is_some() { "/?token=…" } else { "" };
        ui.open_at(address, &format!("{photos}; "), token);
    })
}
