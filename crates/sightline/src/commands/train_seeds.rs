//! `train align --seeds`: one run a seed in a folder of its own, and their validation table as mean and spread.

use std::path::Path;
use std::str::FromStr;

use anyhow::Context as _;
use serde_json::json;
use sightline_data::Split;
use sightline_model::Device;
use sightline_train::align::{self, AlignData};
use sightline_train::aligner::Aligner;
use sightline_train::checkpoint::Kind;
use sightline_train::evaluate;
use sightline_train::run::RunFolder;
use sightline_train::settings::{AlignSettings, resolve};

use super::eval_ablation::{Row, columns, text};
use super::training::{Common, stopped, train};
use crate::interrupt;
use crate::ui::{Ui, Usage};

/// Most seeds at once; more is a slip of the finger.
const MOST_SEEDS: u64 = 100;

/// Seeds as the command line names them: how many (`3` is 1, 2 and 3), or which (`1,2,5`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seeds(Vec<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // TOML's whole numbers, which settings are written as, end at i64's.
        let number = |part: &str| {
            let known = part.trim().parse().ok().filter(|&seed: &u64| i64::try_from(seed).is_ok());
            known.ok_or_else(|| format!("`{part}` is no whole number from 0 to {}", i64::MAX))
        };
        if !text.contains(',') {
            return match number(text)? {
                n @ 1..=MOST_SEEDS => Ok(Self((1..=n).collect())),
                n => Err(format!("expected 1 to {MOST_SEEDS} seeds, got {n}; one seed by itself is --set seed={n}")),
            };
        }
        let seeds = text.split(',').map(number).collect::<Result<Vec<u64>, String>>()?;
        match seeds.iter().enumerate().find(|(i, seed)| seeds[..*i].contains(seed)) {
            Some((_, twice)) => Err(format!("seed {twice} stands there twice")),
            None => Ok(Self(seeds)),
        }
    }
}

impl Seeds {
    /// Those that are trained: the ones asked for, else, to resume, the ones whose folders are there; `None` where the run
    /// is a single one.
    pub(super) fn of(asked: Option<&Self>, common: &Common) -> Option<Self> {
        let there = || Some(RunFolder::seeds(&common.output)).filter(|seeds| common.resume && !seeds.is_empty());
        asked.cloned().or_else(|| there().map(Self))
    }

    /// Every seed's folder with its settings. All are made before the first is trained, so that a stop loses none.
    fn open(&self, common: &Common) -> anyhow::Result<Vec<(RunFolder, AlignSettings)>> {
        if !common.resume && ["best.ckpt", "last.ckpt"].iter().any(|name| common.output.join(name).exists()) {
            anyhow::bail!("{} already holds a run; name another folder for the seeds", common.output.display());
        }
        let base: AlignSettings = if common.resume {
            let first = RunFolder::seeds(&common.output).first().copied();
            let first =
                first.with_context(|| format!("{} holds no run of a seed to resume", common.output.display()))?;
            RunFolder::open(&RunFolder::of_seed(&common.output, first))?.1
        } else {
            if let Some(own) =
                common.assignments.iter().find(|own| own.split('=').next().map(str::trim) == Some("seed"))
            {
                return Err(Usage(format!("--set {own}: --seeds says which seeds are trained; leave it out")).into());
            }
            resolve(common.recipe.as_deref(), &common.assignments)?
        };
        let open = |&seed: &u64| {
            let path = RunFolder::of_seed(&common.output, seed);
            if common.resume && RunFolder::seeds(&common.output).contains(&seed) {
                return Ok(RunFolder::open(&path)?);
            }
            let settings = AlignSettings { seed, ..base.clone() };
            Ok((RunFolder::create(&path, &settings)?, settings))
        };
        self.0.iter().map(open).collect()
    }
}

/// Trains every seed in turn and prints the table of their best models on the validation split.
pub(super) fn run(seeds: &Seeds, common: &Common, data: AlignData<'_>, ui: &Ui) -> anyhow::Result<()> {
    let device = common.device.open()?;
    let (mut records, mut tables) = (Vec::new(), Vec::new());
    for (folder, settings) in seeds.open(common)? {
        ui.say(format_args!("seed {}", settings.seed));
        let outcome = train(ui, interrupt::flag(), |control| {
            align::train(data, &settings, &folder, common.resume, &device, control)
        })?;
        let progress = &outcome.progress;
        if outcome.stopped {
            return Err(stopped(&common.output, progress.step));
        }
        records.push(json!({
            "seed": settings.seed, "run": folder.path(), "steps": progress.step, "epochs": progress.epoch,
            "best_epoch": progress.best_epoch, "best_score": progress.best,
        }));
        tables.push(validation(folder.path(), data, &device)?);
    }
    let name = common.output.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let row = Row::new(name, &tables);
    let record = json!({"run": common.output, "runs": records, "validation": row});
    ui.result(&record, || text(std::slice::from_ref(&row)))
}

/// The validation table of a run's best model.
fn validation(run: &Path, data: AlignData<'_>, device: &Device) -> anyhow::Result<[f64; 7]> {
    let aligner = Aligner::new(RunFolder::model(run, &[Kind::Alignment])?, device)?;
    let corpus = aligner.corpus(data.dataset, Split::Val, data.store, data.parses)?;
    Ok(columns(&evaluate::scores(&aligner, &corpus).report()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_number_or_a_list() {
        let check = |text: &str, expected: &[u64]| assert_eq!(text.parse(), Ok(Seeds(expected.to_vec())), "{text}");
        check("3", &[1, 2, 3]);
        check("1", &[1]);
        check("7,2, 5", &[7, 2, 5]);
        let wrong = |text: &str, part: &str| {
            let message = text.parse::<Seeds>().unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        };
        wrong("0", "1 to 100");
        wrong("100000000000", "--set seed=100000000000");
        wrong("1,2,1", "seed 1 stands there twice");
        wrong("1,", "no whole number");
        wrong("-1", "no whole number");
        wrong("many", "`many`");
        wrong("18446744073709551615,1", "no whole number from 0 to 9223372036854775807");
    }
}
