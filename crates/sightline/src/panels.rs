//! What the models say of some photos, as panels of the report.

use anyhow::Context as _;
use sightline_data::{BoxXyxy, FeatureStore};
use sightline_model::caption::BeamSettings;
use sightline_model::decode;
use sightline_train::aligner::Aligner;
use sightline_train::caption::{Captioner, Decoding, USUAL_CONTRAST, a_token};
use sightline_train::corpus::Corpus;
use sightline_train::evaluate::Scores;
use sightline_train::pointing::AttachSettings;
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
    /// Region captions shown a photo, the surest first.
    pub regions: usize,
}

/// Longest side of a thumbnail, in pixels.
pub const THUMBNAIL_SIDE: u32 = 480;

impl Panels<'_> {
    /// Panels of `photos` (indices into the corpus), each with its sentence of `best` ([`Scores::best_sentences`]) and what
    /// `scores` say of the two.
    pub fn make(
        &self,
        corpus: &Corpus<'_>,
        scores: &Scores,
        best: &[usize],
        photos: &[usize],
    ) -> anyhow::Result<Vec<PhotoPanel>> {
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
                let vectors = stored.vectors();
                let pictures = captioner.pictures([(vectors.as_slice(), 0)].into_iter());
                captioner.captions(&pictures, Decoding::Beam(self.beam)).swap_remove(0)
            }
            None => Vec::new(),
        };
        let regions = match self.region_captioner {
            Some((captioner, store)) => {
                let stored = store.find(&image.path).with_context(missing)?;
                let boxes: Vec<BoxXyxy> = stored.boxes().collect();
                let most = MostRegions { captions: self.regions, ..MostRegions::default() };
                without_sureness(region_captions(captioner, &stored.vectors(), &boxes, self.beam, USUAL_CONTRAST, most))
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

    /// A sentence of the corpus on a photo: where each word points; unknown words score nothing.
    fn sentence(&self, corpus: &Corpus<'_>, photo: usize, (of, idx): (usize, usize), score: f32) -> SentencePanel {
        let position = corpus.photos[photo].position;
        let regions = self.aligner.regions(corpus.store, &[position]);
        let sentence = &corpus.dataset.images[corpus.photos[of].image].sentences[idx];
        let mut words = self.aligner.words([corpus.photos[of].sentence(idx)]).get(0).to_vec();
        self.aligner.take_out_whole(&mut words);
        let boxes: Vec<BoxXyxy> = corpus.store.get(position).boxes().collect();
        let words = word_matches(self.aligner, &sentence.tokens, regions.get(0), &words, &boxes);
        let is_true = of == photo || corpus.others_of(of, idx).any(|other| other == photo);
        SentencePanel { text: sentence.raw.clone(), score, is_true, words }
    }
}

/// Where each token points ([`Aligner::pointing`]): `regions` and `words` are vectors as the aligner gives them, those
/// of the known tokens alone, without the whole ([`Aligner::take_out_whole`]); unknown tokens score nothing. Boxes lie in their proposer's order, the whole photo first.
pub fn word_matches(
    aligner: &Aligner,
    tokens: &[String],
    regions: &[f32],
    words: &[f32],
    boxes: &[BoxXyxy],
) -> Vec<WordMatch> {
    let products = sightline_search::products(regions, words, aligner.dim());
    let known: Vec<u32> = aligner.vocabulary.encode(tokens);
    let rewards = aligner.pointing(&known, &products, boxes.iter().map(BoxXyxy::area));
    let attached = decode::viterbi(&rewards, boxes.len(), 0.0);
    let mut known = attached.into_iter().zip(products.chunks_exact(boxes.len()));
    let of_token = |token: &String| {
        let known = aligner.vocabulary.get(token).and_then(|_| known.next());
        let (region, score) = known.map_or((0, 0.0), |(region, products)| (region, products[region]));
        WordMatch { word: token.clone(), score, region, region_box: boxes[region] }
    };
    tokens.iter().map(of_token).collect()
}

/// A caption as the report shows it.
pub fn caption(c: sightline_train::caption::Caption) -> Caption {
    Caption { text: c.text, log_probability: c.log_probability as f32 }
}

/// Which captions of regions are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MostRegions {
    /// Captions a photo, at most.
    pub captions: usize,
    /// A box that overlaps a kept one with a larger IoU is left out.
    pub box_iou: f32,
    /// Likewise where the two captions say the same.
    pub same_text_iou: f32,
}

impl Default for MostRegions {
    fn default() -> Self {
        Self { captions: 8, box_iou: 0.7, same_text_iou: 0.3 }
    }
}

/// Captions of a photo's regions, the surest first, near-duplicates left out; each with how sure it is: its log probability
/// a token, less the logarithm of its place among the regions where their proposer's order says something, as where words
/// point ([`AttachSettings::pointing`]). By words alone small regions win, of which "the water" is always likely.
///
/// `vectors` is `[regions, dim]`, and the first box and vector are those of the whole photo, which is not described.
/// `contrast` is that of [`Captioner::region_captions`].
pub fn region_captions(
    captioner: &Captioner,
    vectors: &[f32],
    boxes: &[BoxXyxy],
    beam: BeamSettings,
    contrast: f32,
    most: MostRegions,
) -> Vec<(f64, RegionCaption)> {
    if boxes.len() < 2 {
        return Vec::new();
    }
    let order = f64::from(AttachSettings::pointing(&captioner.features).prior);
    let best = captioner.region_captions((1..boxes.len()).map(|region| (vectors, region)), beam, contrast);
    let all = best.into_iter().zip(&boxes[1..]).enumerate().filter_map(|(place, (best, &region_box))| {
        let best = best?;
        let sureness = a_token(&best.text, best.log_probability) - order * ((place + 1) as f64).ln();
        let log_probability = best.log_probability as f32;
        Some((sureness, RegionCaption { region_box, text: best.text, log_probability, score: None }))
    });
    without_repeats(all.collect(), most)
}

/// The captions alone.
pub fn without_sureness(captions: Vec<(f64, RegionCaption)>) -> Vec<RegionCaption> {
    captions.into_iter().map(|(_, caption)| caption).collect()
}

/// Non-maximum suppression over boxes and words.
fn without_repeats(mut all: Vec<(f64, RegionCaption)>, most: MostRegions) -> Vec<(f64, RegionCaption)> {
    all.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let mut kept: Vec<(f64, RegionCaption)> = Vec::new();
    for (sureness, candidate) in all {
        let repeats = kept.iter().any(|(_, k)| {
            let iou = k.region_box.iou(&candidate.region_box);
            iou > most.box_iou || (k.text == candidate.text && iou > most.same_text_iou)
        });
        if !repeats && kept.len() < most.captions {
            kept.push((sureness, candidate));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_duplicates_are_left_out_and_the_best_come_first() {
        let caption = |x: f32, text: &str, log_probability: f32| {
            let region_box = BoxXyxy::from([x, 0.0, x + 10.0, 10.0]);
            let sureness = a_token(text, f64::from(log_probability));
            (sureness, RegionCaption { region_box, text: text.to_owned(), log_probability, score: None })
        };
        let all = vec![
            caption(0.0, "a dog", -6.0),
            caption(1.0, "a cat", -3.0),  // covers most of the dog's box and is likelier
            caption(5.0, "a cat", -4.5),  // says the same, IoU with the better one 3/7
            caption(50.0, "a cat", -9.0), // says the same elsewhere
            caption(80.0, "a long red boat", -5.0),
        ];
        let texts = |most: MostRegions| -> Vec<(f32, String)> {
            without_repeats(all.clone(), most).into_iter().map(|(_, c)| (c.region_box.x1, c.text)).collect()
        };
        let expected = [(1.0, "a cat"), (80.0, "a long red boat"), (50.0, "a cat")].map(|(x, t)| (x, t.to_owned()));
        assert_eq!(texts(MostRegions::default()), expected);
        assert_eq!(texts(MostRegions { captions: 1, ..MostRegions::default() }), expected[..1]);
        assert_eq!(texts(MostRegions { box_iou: 1.0, same_text_iou: 1.0, ..MostRegions::default() }).len(), 5);
    }
}
