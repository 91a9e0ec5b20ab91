//! The demo's second part: somebody's own photos, described and found again by the program's own models.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use sightline_data::tokens;
use sightline_model::Device;
use sightline_model::caption::BeamSettings;
use sightline_search::VectorSets;
use sightline_train::aligner::Aligner;
use sightline_train::caption::{Caption, Captioner};
use sightline_train::checkpoint::Kind;
use sightline_train::committee::{self, Judge, USUAL_FIT_WEIGHT};
use sightline_vision::Photo;

use crate::commands::caption::{CHOOSING_BEAM, USUAL_BEAM};
use crate::commands::features::{Found, find_photos};
use crate::describe::{Beams, Described, Describer, Seen};
use crate::interrupt;
use crate::models;
use crate::panels::{self, MostRegions};
use crate::report::{self, PhotoPanel, Row, RowSource, SentencePanel, Table};
use crate::sources::Extraction;
use crate::ui::{Ui, count, one_line};

/// Most photos of the folder that are shown.
const MOST: usize = 60;

/// What the models made of a folder.
pub struct OwnPhotos {
    /// Photos that could be read.
    pub described: Vec<Described>,
    /// For each, how many photos its own caption fits better; 0 is the best.
    pub ranks: Vec<usize>,
    /// Photos that could not, and why.
    pub failed: Vec<(String, String)>,
    /// One a photo.
    pub panels: Vec<PhotoPanel>,
}

/// Describes the photos of a folder, spread evenly over it, and looks each up by what was said of it.
pub fn describe(folder: &Path, ui: &Ui) -> anyhow::Result<OwnPhotos> {
    let Found { photos: all, unreadable } = find_photos(folder)?;
    let n = all.len().min(MOST);
    let chosen: Vec<&(String, PathBuf)> = (0..n).map(|i| &all[i * all.len() / n]).collect();
    let of_pack = |kind| models::checkpoint(Path::new(models::BUILTIN), &[kind]);
    let device = Device::flex();
    let aligner = Aligner::new(of_pack(Kind::Alignment)?, &device)?;
    let photos = Captioner::new(of_pack(Kind::Caption)?)?;
    let regions = Captioner::new(of_pack(Kind::RegionCaption)?)?;
    let beam = |beam| BeamSettings { beam, ..BeamSettings::default() };
    let beams = Beams { photos: BeamSettings { n_best: USUAL_BEAM, ..beam(CHOOSING_BEAM) }, regions: beam(USUAL_BEAM) };
    let describer = Describer::new(photos, Some(regions), beams)?;
    let extraction = Extraction::like(&aligner.features, None, None, &device, ui)?;

    let bar = ui.bar(n as u64, "photos");
    let (mut names, mut seen, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for (place, reason) in unreadable {
        ui.say(format_args!("skipped {}: {reason}", place.display()));
        failed.push((place.display().to_string(), reason));
    }
    for (key, path) in chosen {
        anyhow::ensure!(!interrupt::flag().load(Ordering::Relaxed), "stopped");
        let photo = Photo::open(path).map_err(anyhow::Error::from);
        match photo.and_then(|photo| describer.see(key, photo, &extraction, true)) {
            Ok(own) => {
                names.push(key.clone());
                seen.push(own);
            }
            Err(error) => {
                ui.say(format_args!("skipped {}", one_line(&error)));
                failed.push((key.clone(), one_line(&error)));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    anyhow::ensure!(!seen.is_empty(), "no photo in {} could be read", folder.display());
    let most = MostRegions { captions: 5, ..MostRegions::default() };
    let choose = |own: &Seen, captions: &mut Vec<Caption>| {
        committee::order(&[Judge::of_photo(&aligner, &own.vectors_of(&aligner))], USUAL_FIT_WEIGHT, captions);
    };
    let described = describer.describe(names.into_iter(), &seen, describer.decoding(), Some(most), Some(&choose));
    let mut regions = VectorSets::new(aligner.dim());
    for own in &seen {
        regions.push(&own.vectors_of(&aligner));
    }
    let scores = scores(&aligner, &regions, &described);
    let score = |photo: usize, caption: usize| scores[photo * described.len() + caption];
    let own = seen.iter().zip(&described).enumerate();
    let panels = own
        .map(|(i, (seen, described))| panel(&aligner, regions.get(i), seen, described, score(i, i)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let n = described.len();
    let ranks = (0..n).map(|own| (0..n).filter(|&other| score(other, own) > score(own, own)).count()).collect();
    Ok(OwnPhotos { described, ranks, failed, panels })
}

fn caption_of(described: &Described) -> &str {
    described.captions.first().map_or("", |caption| &caption.text)
}

/// How well each photo fits each photo's caption: `[photos, captions]`.
fn scores(aligner: &Aligner, regions: &VectorSets, described: &[Described]) -> Vec<f32> {
    let encode = |described| aligner.vocabulary.encode(&tokens::tokenize(caption_of(described)));
    let sentences: Vec<Vec<u32>> = described.iter().map(encode).collect();
    aligner.scores(regions, &aligner.words(&sentences))
}

fn panel(
    aligner: &Aligner,
    regions: &[f32],
    seen: &Seen,
    described: &Described,
    score: f32,
) -> anyhow::Result<PhotoPanel> {
    let photo = &seen.photo;
    let text = caption_of(described);
    let tokens = tokens::tokenize(text);
    let known: Vec<String> = tokens.iter().filter(|t| aligner.vocabulary.get(t).is_some()).cloned().collect();
    let mut words = match known.is_empty() {
        true => Vec::new(),
        false => aligner.words(&[aligner.vocabulary.encode(&known)]).get(0).to_vec(),
    };
    aligner.take_out_whole(&mut words);
    let words = panels::word_matches(aligner, &tokens, regions, &words, &seen.boxes);
    Ok(PhotoPanel {
        key: described.image.clone(),
        width: photo.width,
        height: photo.height,
        thumbnail: report::thumbnail(photo.width, photo.height, &photo.pixels, panels::THUMBNAIL_SIDE)
            .with_context(|| format!("cannot make a thumbnail of {}", described.image))?,
        matches: vec![SentencePanel { text: text.to_owned(), score, is_true: true, words }],
        true_sentences: Vec::new(),
        captions: described.captions.iter().cloned().map(panels::caption).collect(),
        regions: described.regions.clone().unwrap_or_default(),
    })
}

impl OwnPhotos {
    /// How often a photo is among the first `k` for its own caption, of 1.
    pub fn found_among(&self, k: usize) -> f64 {
        self.ranks.iter().filter(|&&rank| rank < k).count() as f64 / self.ranks.len().max(1) as f64
    }

    /// For the page.
    pub fn table(&self) -> Table {
        let percent = |k| format!("{:.1}", 100.0 * self.found_among(k));
        let n = self.ranks.len() as f64;
        let chance = |k: f64| format!("{:.1}", 100.0 * (k / n).min(1.0));
        Table {
            caption: format!("Your photos, found by what Sightline says of them, {}", count(self.ranks.len(), "photo")),
            groups: Vec::new(),
            columns: ["", "first %", "among the first 5 %"].map(str::to_owned).into(),
            rows: vec![
                Row { source: RowSource::Ours, cells: vec!["Sightline".to_owned(), percent(1), percent(5)] },
                Row { source: RowSource::Chance, cells: vec!["by chance".to_owned(), chance(1.0), chance(5.0)] },
            ],
            note: Some("The program's own models (`sightline info`) have seen none of these photos.".to_owned()),
        }
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let mut text = String::from("\nyour photos\n");
        for described in &self.described {
            text.push_str(&format!("  {}: {}\n", described.image, caption_of(described)));
        }
        text.push_str(&format!(
            "{:.0} % of {} come first for their own caption, {:.0} % among the first five\n",
            100.0 * self.found_among(1),
            count(self.ranks.len(), "photo"),
            100.0 * self.found_among(5),
        ));
        text
    }
}
