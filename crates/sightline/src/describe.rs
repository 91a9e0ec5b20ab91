//! Photos in new sentences: what the command and the server share.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Context as _;
use serde::Serialize;
use sightline_data::{BoxXyxy, StoreSettings};
use sightline_model::caption::BeamSettings;
use sightline_train::aligner::Aligner;
use sightline_train::caption::{Caption, Captioner, Decoding, USUAL_CONTRAST};
use sightline_train::checkpoint::Kind;
use sightline_vision::Photo;

use crate::models;
use crate::panels::{MostRegions, region_captions, without_sureness};
use crate::report::RegionCaption;
use crate::sources::Extraction;
use crate::ui::visible;

/// The record of one photo.
#[derive(Debug, Serialize)]
pub struct Described {
    /// As it was named.
    pub image: String,
    /// Best first.
    pub captions: Vec<Caption>,
    /// What the captions' `word_regions` number; empty where they have none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub boxes: Vec<BoxXyxy>,
    /// Best first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regions: Option<Vec<RegionCaption>>,
}

impl Described {
    /// For a terminal.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", visible(&self.image));
        for caption in &self.captions {
            text.push_str(&format!("  {} ({:.2})\n", caption.text, caption.log_probability));
        }
        for region in self.regions.iter().flatten() {
            let [x1, y1, x2, y2] = <[f32; 4]>::from(region.region_box).map(|x| x.round() as i64);
            text.push_str(&format!("    [{x1}, {y1}, {x2}, {y2}] {} ({:.2})\n", region.text, region.log_probability));
        }
        text
    }
}

/// A photo as the models see it.
pub struct Seen {
    /// Its pixels.
    pub photo: Photo,
    /// The whole photo's first.
    pub boxes: Vec<BoxXyxy>,
    /// `[boxes, features]`.
    pub vectors: Vec<f32>,
}

impl Seen {
    /// Its regions in the space of an alignment model: `[boxes, dim]`.
    pub fn vectors_of(&self, aligner: &Aligner) -> Vec<f32> {
        aligner.regions_of(self.vectors.clone(), &self.boxes, [self.photo.width, self.photo.height])
    }
}

/// Puts the sentences that were found for a photo into another order, with others among them perhaps.
pub type Choose<'a> = dyn Fn(&Seen, &mut Vec<Caption>) + 'a;

/// The models that describe.
pub struct Describer {
    /// Whole photos.
    photos: Captioner,
    /// Their regions, where those are wanted.
    regions: Option<Captioner>,
    beams: Beams,
}

/// How captions are searched for.
#[derive(Debug, Clone, Copy)]
pub struct Beams {
    /// Those of whole photos.
    pub photos: BeamSettings,
    /// Those of regions.
    pub regions: BeamSettings,
}

impl Describer {
    /// From opened models.
    ///
    /// # Errors
    /// The two read different vectors.
    pub fn new(photos: Captioner, regions: Option<Captioner>, beams: Beams) -> anyhow::Result<Self> {
        let differences = regions.as_ref().map_or_else(Vec::new, |r| r.features.differences(&photos.features));
        anyhow::ensure!(
            differences.is_empty(),
            "the two models read different vectors: {}; train both on the same feature store",
            differences.join("; ")
        );
        Ok(Self { photos, regions, beams })
    }

    /// The model of whole photos.
    pub fn of_photos(&self) -> &Captioner {
        &self.photos
    }

    /// How photos are described, unless somebody asks for another way.
    pub fn decoding(&self) -> Decoding {
        Decoding::Beam(self.beams.photos)
    }

    /// A photo's vectors, of its regions too where the model of photos or `with_regions` needs them. `key` names the
    /// photo to proposers that look boxes up by name.
    pub fn see(&self, key: &str, photo: Photo, extraction: &Extraction, with_regions: bool) -> anyhow::Result<Seen> {
        let boxes = if with_regions || self.photos.looks_at_regions() {
            extraction.boxes(key, &photo)?
        } else {
            vec![photo.whole()]
        };
        let (photos, all_boxes) = ([photo], [boxes]);
        let vectors = extraction.features(&photos, &all_boxes)?.swap_remove(0);
        let ([photo], [boxes]) = (photos, all_boxes);
        Ok(Seen { photo, boxes, vectors })
    }

    /// Sentences for photos, and for `most` of their regions where those are wanted; `images` name them in the records.
    /// With `choose`, the best are taken from all that a beam found, in the order that it puts them into.
    pub fn describe(
        &self,
        images: impl Iterator<Item = String>,
        seen: &[Seen],
        decoding: Decoding,
        most: Option<MostRegions>,
        choose: Option<&Choose<'_>>,
    ) -> Vec<Described> {
        let pictures = self.photos.pictures(seen.iter().map(|own| (own.vectors.as_slice(), 0)));
        let captions = match (choose, decoding) {
            (Some(choose), Decoding::Beam(beam)) => {
                let all = Decoding::Beam(BeamSettings { n_best: beam.beam, ..beam });
                let mut captions = self.photos.captions(&pictures, all);
                for (own, captions) in seen.iter().zip(&mut captions) {
                    choose(own, captions);
                    captions.truncate(beam.n_best);
                }
                captions
            }
            _ => self.photos.captions(&pictures, decoding),
        };
        let record = |((image, own), captions): ((String, &Seen), Vec<Caption>)| {
            let regions = self.regions.as_ref().zip(most).map(|(model, most)| {
                let (vectors, boxes) = (&own.vectors, &own.boxes);
                without_sureness(region_captions(model, vectors, boxes, self.beams.regions, USUAL_CONTRAST, most))
            });
            let has_regions = captions.iter().any(|caption| !caption.word_regions.is_empty());
            let boxes = if has_regions { own.boxes.clone() } else { Vec::new() };
            Described { image, captions, boxes, regions }
        };
        images.zip(seen).zip(captions).map(record).collect()
    }
}

/// The models that describe, opened when something is first to be described: not everybody who searches an index asks
/// for sentences, and their weights take as much memory as the rest of the server.
pub struct LazyDescriber {
    photos: PathBuf,
    regions: Option<PathBuf>,
    /// Whose vectors the models must read.
    features: StoreSettings,
    beams: Beams,
    opened: OnceLock<Describer>,
    /// Held by who opens them, so that two requests at once open them once.
    opening: Mutex<()>,
}

impl LazyDescriber {
    /// From runs of `train caption`. Their files are read and checked now, without keeping the weights.
    ///
    /// # Errors
    /// A file that is no such model, is damaged, or reads other vectors than `features`.
    pub fn new(photos: &Path, regions: Option<&Path>, features: &StoreSettings, beams: Beams) -> anyhow::Result<Self> {
        for (run, kind) in [(Some(photos), Kind::Caption), (regions, Kind::RegionCaption)] {
            let Some(run) = run else { continue };
            let outline = models::outline(run, &[kind])?;
            Captioner::could_open(&outline).with_context(|| run.display().to_string())?;
            check_features(run, &outline.header.features, features)?;
        }
        let (photos, regions, features) = (photos.to_owned(), regions.map(Path::to_owned), features.clone());
        Ok(Self { photos, regions, features, beams, opened: OnceLock::new(), opening: Mutex::new(()) })
    }

    /// Whether regions can be described.
    pub fn has_regions(&self) -> bool {
        self.regions.is_some()
    }

    /// The opened models. What went wrong, a file that was moved away say, is tried again the next time.
    pub fn get(&self) -> anyhow::Result<&Describer> {
        let _opening = match self.opened.get() {
            Some(describer) => return Ok(describer),
            None => self.opening.lock().unwrap_or_else(PoisonError::into_inner),
        };
        if let Some(describer) = self.opened.get() {
            return Ok(describer);
        }
        let open = |run: &Path, kind| -> anyhow::Result<Captioner> {
            let captioner = Captioner::new(models::checkpoint(run, &[kind])?)?;
            check_features(run, &captioner.features, &self.features)?;
            Ok(captioner)
        };
        let photos = open(&self.photos, Kind::Caption)?;
        let regions = self.regions.as_deref().map(|run| open(run, Kind::RegionCaption)).transpose()?;
        let describer = Describer::new(photos, regions, self.beams)?;
        Ok(self.opened.get_or_init(|| describer))
    }
}

/// An error that names the differences between the vectors that a run's model reads and the index's.
fn check_features(run: &Path, own: &StoreSettings, index: &StoreSettings) -> anyhow::Result<()> {
    let differences = own.differences(index);
    anyhow::ensure!(
        differences.is_empty(),
        "{} reads other vectors than the index: {}",
        run.display(),
        differences.join("; ")
    );
    Ok(())
}
