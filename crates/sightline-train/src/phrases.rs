//! Which region each stretch of a sentence talks about: the record that `align` writes and region-level training
//! reads (paper, section 3.1.4).

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sightline_data::parses::Parses;
use sightline_data::store::FeatureStore;
use sightline_data::{BoxXyxy, Dataset, Split};
use sightline_model::decode::{self, Prior};

use crate::aligner::Aligner;
use crate::corpus::CorpusPhoto;
use crate::pointing::AttachSettings;
use crate::{Error, Result};

/// Scores of version 2 had the sentence's agreement with the photo in them.
const VERSION: u32 = 3;

/// A region and contiguous words of one sentence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phrase {
    /// Id of the sentence in the dataset.
    pub sentence: u64,
    /// Index of the region in the feature store; 0 is the whole image.
    pub region: usize,
    /// The region, in pixels of the original picture.
    #[serde(rename = "box")]
    pub region_box: BoxXyxy,
    /// The known words, in order.
    pub words: Vec<String>,
    /// Mean product of the words with the region.
    pub score: f32,
}

/// Phrases of a dataset's photos.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phrases {
    /// Of this layout.
    pub version: u32,
    /// XXH3-64 of the photos' JSON, hexadecimal; filled in by [`Phrases::save`].
    #[serde(default)]
    pub checksum: String,
    /// How they were decoded.
    pub settings: AttachSettings,
    /// By key of the photo.
    pub photos: BTreeMap<String, Vec<Phrase>>,
}

/// What every version of the record has.
#[derive(Deserialize)]
struct Layout {
    version: u32,
}

impl Phrases {
    /// Decodes every sentence of the given splits (equations 10 to 12, the prior added to the products of equation 11).
    ///
    /// `parses` are the dependency trees that the aligner may need. `on_photo` hears how many photos are done, out of how many.
    pub fn decode(
        aligner: &Aligner,
        dataset: &Dataset,
        store: &FeatureStore,
        parses: Option<&Parses>,
        splits: &[Split],
        settings: AttachSettings,
        mut on_photo: impl FnMut(usize, usize),
    ) -> Result<Self> {
        let mut photos = BTreeMap::new();
        let corpora =
            splits.iter().map(|&split| aligner.corpus(dataset, split, store, parses)).collect::<Result<Vec<_>>>()?;
        let total = corpora.iter().map(|corpus| corpus.photos.len()).sum();
        let mut done = 0;
        for corpus in &corpora {
            for chunk in corpus.photos.chunks(64) {
                let positions: Vec<usize> = chunk.iter().map(|photo| photo.position).collect();
                let regions = aligner.regions(store, &positions);
                let words = aligner.words(chunk.iter().flat_map(CorpusPhoto::encoder_sentences));
                let mut sentence_idx = 0;
                for (i, photo) in chunk.iter().enumerate() {
                    let seen = store.get(photo.position);
                    let boxes: Vec<BoxXyxy> = seen.boxes().collect();
                    let prior = Prior::new(seen.scores, boxes.iter().map(BoxXyxy::area));
                    let mut own = Vec::new();
                    for (s, known) in photo.sentences.iter().enumerate() {
                        if !known.is_empty() {
                            let id = dataset.images[photo.image].sentences[s].id;
                            let mut vectors = words.get(sentence_idx).to_vec();
                            aligner.take_out_whole(&mut vectors);
                            let products = sightline_search::products(regions.get(i), &vectors, regions.dim());
                            let assignment = settings.attach(&products, &prior, &aligner.prior_weights.of(known));
                            own.extend(phrases_of(aligner, id, known, &products, &boxes, &assignment));
                        }
                        sentence_idx += 1;
                    }
                    photos.insert(corpus.key(photo).to_owned(), own);
                }
                done += chunk.len();
                on_photo(done, total);
            }
        }
        Ok(Self { version: VERSION, checksum: String::new(), settings, photos })
    }

    /// Writes the record, with its checksum.
    pub fn save(&self, path: &Path) -> Result<()> {
        let whole = Self { checksum: self.digest(), ..self.clone() };
        sightline_data::write::atomically(path, |file| Ok(serde_json::to_writer(file, &whole)?))?;
        Ok(())
    }

    /// Reads the record; another layout, another version or a changed phrase is an error.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(Error::io("read the phrases", path))?;
        let damaged = |message: String| Error::Checkpoint { path: path.to_owned(), message };
        let no_phrases = |e: serde_json::Error| damaged(format!("no phrases of `sightline align` ({e})"));
        let Layout { version } = serde_json::from_slice(&text).map_err(no_phrases)?;
        if version != VERSION {
            return Err(damaged(format!("version {version}; this program reads version {VERSION}; decode them again")));
        }
        let phrases: Self = serde_json::from_slice(&text).map_err(no_phrases)?;
        if phrases.digest() != phrases.checksum {
            return Err(damaged("changed since it was written (the checksum does not match); decode it again".into()));
        }
        Ok(phrases)
    }

    /// XXH3-64 of the photos' JSON, hexadecimal.
    pub(crate) fn digest(&self) -> String {
        let json = serde_json::to_vec(&(self.settings, &self.photos)).expect("phrases are plain data");
        format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&json))
    }

    /// Number of phrases.
    pub fn len(&self) -> usize {
        self.photos.values().map(Vec::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The phrases of one sentence, from its products `[words, regions]` and the region of each word.
fn phrases_of(
    aligner: &Aligner,
    sentence: u64,
    known: &[u32],
    products: &[f32],
    boxes: &[BoxXyxy],
    assignment: &[usize],
) -> Vec<Phrase> {
    let n_regions = boxes.len();
    decode::segments(assignment)
        .into_iter()
        .map(|segment| {
            let words = segment.start..segment.end;
            let sum: f32 = words.clone().map(|word| products[word * n_regions + segment.region]).sum();
            Phrase {
                sentence,
                region: segment.region,
                region_box: boxes[segment.region],
                words: known[words.clone()].iter().map(|&word| aligner.vocabulary.word(word).to_owned()).collect(),
                score: sum / words.len() as f32,
            }
        })
        .collect()
}
