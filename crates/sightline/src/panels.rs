//! What the models say of some photos, as panels of the report.

use anyhow::Context as _;
use sightline_data::{BoxXyxy, FeatureStore};
use sightline_model::caption::BeamSettings;
use sightline_train::align::Aligner;
use sightline_train::caption::Captioner;
use sightline_train::corpus::Corpus;
use sightline_train::evaluate::Scores;
use sightline_vision::Photo;

use crate::report::{self, Caption, PhotoPanel, RegionCaption, SentencePanel, WordMatch};

/// Models whose words go into the panels; all optional but the alignment.
pub struct Panels<'a> {
    /// Finds sentences and their regions.
    pub aligner: &'a Aligner,
    /// Describes whole photos, from the vectors of its own store.
    pub captioner: Option<(&'a Captioner, &'a FeatureStore)>,
    /// Describes regions, likewise.
    pub region_captioner: Option<(&'a Captioner, &'a FeatureStore)>,
    /// How captions are searched for.
    pub beam: BeamSettings,
    /// Region captions shown a photo, the likeliest word for word first.
    pub regions: usize,
}

/// Longest side of a thumbnail, in pixels.
const THUMBNAIL_SIDE: u32 = 480;

impl Panels<'_> {
    /// Panels of `photos` (indices into the corpus), each with its best sentence of the corpus.
    pub fn make(&self, corpus: &Corpus<'_>, scores: &Scores, photos: &[usize]) -> anyhow::Result<Vec<PhotoPanel>> {
        let best = scores.best_sentences();
        let first_sentence: Vec<(usize, usize)> = corpus
            .photos
            .iter()
            .enumerate()
            .flat_map(|(photo, p)| (0..p.sentences.len()).map(move |sentence| (photo, sentence)))
            .collect();
        let n_sentences = scores.image_of_sentence.len();
        photos
            .iter()
            .map(|&photo| {
                let sentence = best[photo];
                let score = scores.scores[photo * n_sentences + sentence];
                let mut panel = self.panel(corpus, photo)?;
                panel.matches.push(self.sentence(corpus, photo, first_sentence[sentence], score));
                Ok(panel)
            })
            .collect()
    }

    /// A photo with its true sentences and what the caption models say; no match yet.
    fn panel(&self, corpus: &Corpus<'_>, photo: usize) -> anyhow::Result<PhotoPanel> {
        let of_photo = &corpus.photos[photo];
        let image = &corpus.dataset.images[of_photo.image];
        let path = corpus.dataset.root.join(&image.path);
        let pixels = Photo::open(&path)?;
        let missing = || format!("{} has no vectors in the caption model's store", image.path);
        let captions = match self.captioner {
            Some((captioner, store)) => {
                let stored = store.find(&image.path).with_context(missing)?;
                captioner.captions(&stored.vectors()[..stored.dim()], self.beam).swap_remove(0)
            }
            None => Vec::new(),
        };
        let regions = match self.region_captioner {
            Some((captioner, store)) => {
                let stored = store.find(&image.path).with_context(missing)?;
                let boxes: Vec<BoxXyxy> = stored.boxes().skip(1).collect();
                region_captions(captioner, &stored.vectors()[stored.dim()..], &boxes, self.beam, self.regions)
            }
            None => Vec::new(),
        };
        Ok(PhotoPanel {
            key: image.path.clone(),
            width: pixels.width,
            height: pixels.height,
            thumbnail: report::thumbnail(pixels.width, pixels.height, &pixels.pixels, THUMBNAIL_SIDE)
                .with_context(|| format!("cannot make a thumbnail of {}", path.display()))?,
            matches: Vec::new(),
            true_sentences: image.sentences.iter().map(|s| s.raw.clone()).collect(),
            captions: captions.into_iter().map(caption).collect(),
            regions,
        })
    }

    /// A sentence of the corpus on a photo: the best region of each word; unknown words score nothing.
    fn sentence(&self, corpus: &Corpus<'_>, photo: usize, (of, idx): (usize, usize), score: f32) -> SentencePanel {
        let position = corpus.photos[photo].position;
        let regions = self.aligner.regions(corpus.store, &[position]);
        let sentence = &corpus.dataset.images[corpus.photos[of].image].sentences[idx];
        let words = self.aligner.words(&[&corpus.photos[of].sentences[idx]]);
        let mut evidence = match words.count(0) {
            0 => Vec::new(),
            _ => sightline_search::evidence(regions.get(0), words.get(0), regions.dim()),
        }
        .into_iter();
        let boxes: Vec<BoxXyxy> = corpus.store.get(position).boxes().collect();
        let words = sentence.tokens.iter().map(|token| {
            let known = self.aligner.vocabulary.get(token).and_then(|_| evidence.next());
            let (region, score) = known.map_or((0, 0.0), |e| (e.region, e.score));
            WordMatch { word: token.clone(), score, region, region_box: boxes[region] }
        });
        SentencePanel { text: sentence.raw.clone(), score, is_true: of == photo, words: words.collect() }
    }
}

fn caption(c: sightline_train::caption::Caption) -> Caption {
    Caption { text: c.text, log_probability: c.log_probability as f32 }
}

/// Captions of regions, the likeliest per word first, at most `most`. Near-duplicates are left out: boxes of an IoU over
/// 0.7 with a kept one, and over 0.3 where the words are the same.
pub fn region_captions(
    captioner: &Captioner,
    vectors: &[f32],
    boxes: &[BoxXyxy],
    beam: BeamSettings,
    most: usize,
) -> Vec<RegionCaption> {
    if boxes.is_empty() {
        return Vec::new();
    }
    let best = captioner.captions(vectors, BeamSettings { n_best: 1, ..beam });
    let mut all: Vec<RegionCaption> = best
        .into_iter()
        .zip(boxes)
        .filter_map(|(captions, &region_box)| {
            let best = captions.into_iter().next()?;
            let log_probability = best.log_probability as f32;
            Some(RegionCaption { region_box, text: best.text, log_probability, score: None })
        })
        .collect();
    let per_token = |c: &RegionCaption| c.log_probability / (c.text.split(' ').count() + 1) as f32;
    all.sort_by(|a, b| per_token(b).total_cmp(&per_token(a)));
    let mut kept: Vec<RegionCaption> = Vec::new();
    for candidate in all {
        let repeats = kept.iter().any(|k| {
            let iou = k.region_box.iou(&candidate.region_box);
            iou > 0.7 || (k.text == candidate.text && iou > 0.3)
        });
        if !repeats && kept.len() < most {
            kept.push(candidate);
        }
    }
    kept
}
