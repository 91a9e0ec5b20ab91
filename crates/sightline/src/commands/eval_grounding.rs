//! `eval grounding`: nouns against the boxes of what they name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use sightline_data::categories;
use sightline_metrics::grounding::{GroundingReport, GroundingScore};
use sightline_train::aligner::Aligner;
use sightline_train::checkpoint::Kind;
use sightline_train::grounding::GroundingSet;
use sightline_train::pointing::AttachSettings;

use super::eval_split::{Common, tell_gaps};
use crate::models;
use crate::sources::ParsesFile;
use crate::ui::{Ui, count, table};

/// Whether a noun's region lies on what the noun names (pointing game, and IoU of one half), beside four baselines
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sightline dataset import coco -o coco.json
  sightline features coco.json -o coco.features --backbone vit.safetensors --regions nanodet=nanodet.onnx --context class
  sightline eval grounding --model runs/align --dataset coco.json --features coco.features --instances instances.json")]
pub struct Args {
    /// A run of `train align`; given several times, the models point together
    #[arg(long, required = true, value_name = "RUN")]
    model: Vec<PathBuf>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    parses: ParsesFile,
    /// Boxes with category names, as COCO's instances JSON; only this evaluation reads them
    #[arg(long, value_name = "FILE")]
    instances: PathBuf,
    /// Affinities β to decode with (`align --affinity`)
    #[arg(long, value_name = "β", value_delimiter = ',', default_value = "0,0.02,0.05,0.1,0.2,0.4,0.8")]
    affinity: Vec<f32>,
    /// Weights of the proposers' own order to decode with (`align --prior`); the best pair of affinity and weight on one
    /// half of the photos is measured on the other
    #[arg(long, value_name = "WEIGHT", value_delimiter = ',', default_value = "0,0.25,0.5,1,1.5,2")]
    prior: Vec<f32>,
    /// Seed of the random baseline
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What one way of attaching words reaches.
#[derive(Debug, Serialize)]
struct Reached {
    #[serde(flatten)]
    settings: AttachSettings,
    pointing: f64,
    box_iou50: f64,
}

#[derive(Debug, Serialize)]
struct Record {
    /// Each word to its best region.
    #[serde(flatten)]
    report: GroundingReport,
    /// Each word to the region that answers and pages show.
    shown: Shown,
    /// Without a prior.
    affinities: Vec<Reached>,
    /// Without an affinity.
    priors: Vec<Reached>,
    /// Each half of the photos with what points best on the other half.
    chosen: Chosen,
    nouns_without_box: usize,
    unknown_nouns: usize,
}

#[derive(Debug, Serialize)]
struct Shown {
    settings: AttachSettings,
    #[serde(flatten)]
    score: GroundingScore,
    /// The score of each category.
    categories: BTreeMap<String, GroundingScore>,
}

#[derive(Debug, Serialize)]
struct Chosen {
    settings: [AttachSettings; 2],
    pointing: f64,
    box_iou50: f64,
}

pub(super) fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    for (name, values) in [("an affinity", &args.affinity), ("a weight of the prior", &args.prior)] {
        if let Some(wrong) = values.iter().find(|value| !(value.is_finite() && **value >= 0.0)) {
            anyhow::bail!(crate::ui::Usage(format!("{name} is a number of zero or more, not {wrong}")));
        }
    }
    let data = args.common.open(ui)?;
    let aligners = args
        .model
        .iter()
        .map(|model| {
            let aligner = Aligner::new(models::checkpoint(model, &[Kind::Alignment])?, &data.device)?;
            aligner.check(&data.store)?;
            Ok(aligner)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let named = categories::read_instances(&args.instances)?;
    let parses = args.parses.read(&data.dataset, &[data.split], ui)?;
    let corpus = aligners[0].corpus(&data.dataset, data.split, &data.store, parses.as_ref())?;
    tell_gaps(&corpus, ui);
    let set = GroundingSet::new(&aligners, &corpus, &named)?;
    let reached = |affinity: f32, prior: f32| {
        let settings = AttachSettings { affinity, prior };
        let GroundingScore { pointing, box_iou50, .. } = set.evaluate(settings, args.seed, |_| true).score;
        Reached { settings, pointing, box_iou50 }
    };
    let pointing = AttachSettings::pointing(data.store.settings());
    let GroundingReport { score, categories, .. } = set.evaluate(pointing, args.seed, |_| true);
    let record = Record {
        shown: Shown { settings: pointing, score, categories },
        report: set.evaluate(AttachSettings::default(), args.seed, |_| true),
        affinities: args.affinity.iter().map(|&affinity| reached(affinity, 0.0)).collect(),
        priors: args.prior.iter().map(|&prior| reached(0.0, prior)).collect(),
        chosen: choose(&set, args),
        nouns_without_box: set.without_box,
        unknown_nouns: set.unknown,
    };
    ui.result(&record, || text(&record))
}

/// Chooses affinity and prior on one half of the photos, by pointing, and measures them on the other; both ways.
fn choose(set: &GroundingSet, args: &Args) -> Chosen {
    let pairs = args.affinity.iter().flat_map(|&affinity| args.prior.iter().map(move |&prior| (affinity, prior)));
    let all: Vec<AttachSettings> = pairs.map(|(affinity, prior)| AttachSettings { affinity, prior }).collect();
    let halves = [0, 1].map(|half| {
        let on =
            |settings: AttachSettings, half: usize| set.evaluate(settings, args.seed, |photo| photo % 2 == half).score;
        // The first of equals.
        let better = |best: (AttachSettings, f64), &settings: &AttachSettings| {
            let pointing = on(settings, half).pointing;
            if pointing > best.1 { (settings, pointing) } else { best }
        };
        let (chosen, _) = all.iter().fold((AttachSettings::default(), f64::NEG_INFINITY), better);
        (chosen, on(chosen, 1 - half))
    });
    let nouns: u64 = halves.iter().map(|(_, score)| score.nouns).sum();
    let mean = |of: fn(&GroundingScore) -> f64| {
        halves.iter().map(|(_, score)| of(score) * score.nouns as f64).sum::<f64>() / nouns.max(1) as f64
    };
    Chosen {
        settings: halves.map(|(settings, _)| settings),
        pointing: mean(|score| score.pointing),
        box_iou50: mean(|score| score.box_iou50),
    }
}

fn text(record: &Record) -> String {
    let percent = |share: f64| format!("{:.1}", 100.0 * share);
    let mut rows = vec![["", "nouns", "pointing", "IoU ≥ 0.5", "some region ≥ 0.5"].map(str::to_owned).to_vec()];
    let line = |name: &str, score: &GroundingScore| {
        vec![
            name.to_owned(),
            score.nouns.to_string(),
            percent(score.pointing),
            percent(score.box_iou50),
            percent(score.covered),
        ]
    };
    rows.push(line("best product", &record.report.score));
    rows.push(line("as answers show it", &record.shown.score));
    for (name, score) in &record.report.baselines {
        let mut row = line(&format!("{name} region"), score);
        row.truncate(4);
        row.push(String::new());
        rows.push(row);
    }
    let mut by_settings = vec![["affinity β", "prior", "pointing", "IoU ≥ 0.5"].map(str::to_owned).to_vec()];
    // Without either stands among the affinities.
    let priors =
        record.priors.iter().filter(|reached| !record.affinities.iter().any(|r| r.settings == reached.settings));
    for Reached { settings, pointing, box_iou50 } in record.affinities.iter().chain(priors) {
        let AttachSettings { affinity, prior } = settings;
        by_settings.push(vec![affinity.to_string(), prior.to_string(), percent(*pointing), percent(*box_iou50)]);
    }
    let Chosen { settings: [a, b], pointing, box_iou50 } = record.chosen;
    let chosen =
        [format!("chosen on the other half: {}, {}", a.affinity, b.affinity), format!("{}, {}", a.prior, b.prior)];
    by_settings.push([chosen.as_slice(), &[percent(pointing), percent(box_iou50)]].concat());
    let mut categories: Vec<_> = record.shown.categories.iter().collect();
    categories.sort_by_key(|(name, score)| (std::cmp::Reverse(score.nouns), name.as_str()));
    let mut by_category =
        vec![["as answers show it", "nouns", "pointing", "IoU ≥ 0.5", ""].map(str::to_owned).to_vec()];
    by_category.extend(categories.into_iter().map(|(name, score)| {
        let mut row = line(name, score);
        row[4].clear();
        row
    }));
    format!(
        "{}{}, {} left out: what they name has no box; {} unknown to the model\n\n{}\n{}",
        table(&rows),
        count(record.report.score.nouns as usize, "noun"),
        record.nouns_without_box,
        record.unknown_nouns,
        table(&by_settings),
        table(&by_category)
    )
}
