//! Questions to an index: words, a photo, a box of a photo, all of them together; answered with reasons.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use sightline_data::{BoxXyxy, tokens};
use sightline_model::Device;
use sightline_model::alignment::Score;
use sightline_model::decode::{self, Prior};
use sightline_search::{Collection, Exact, Hit, Index, Measure, Pruned, Query, VectorSets};
use sightline_train::aligner::Aligner;
use sightline_train::checkpoint::Kind;
use sightline_train::pointing::AttachSettings;
use sightline_vision::Photo;
use utoipa::ToSchema;

use super::catalogue::{Catalogue, PhotoRow, Settings};
use super::{CENTROIDS, date, walk};
use crate::models;
use crate::sources::{Extraction, file_of};
use crate::ui::{Ui, one_line};

/// Longer queries are refused.
pub const MOST_WORDS: usize = 200;

/// Longer lists of sentences are refused.
pub const MOST_WORDS_OF_ALL: usize = 20_000;

/// Photos that a query's scores are compared with.
const SAMPLE: usize = 512;

/// Smaller collections say nothing about how scores spread.
const LEAST_SAMPLE: usize = 300;

/// So many deviations above their means a word's best value and its photo's score lie together where the word stands out.
const STANDS_OUT: f32 = 2.0;

/// A query is said to have no answer where its best photo stands out by fewer deviations ([`Answer::deviations`]) and the
/// model does not know what a fitting photo scores ([`Answer::floor`]).
///
/// Chosen by `examples/answerable.rs`, whose tables stand in docs/log.md.
pub const CUT_OFF: f32 = 2.5;

/// Photos whose difference hashes differ in at most this many bits may be the same picture.
const SAME_LOOK: u32 = 6;

/// And they are, if their whole-photo vectors have at least this cosine.
const SAME_COSINE: f32 = 0.95;

/// Mistakes in a question, as opposed to anything that went wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Question {
    /// Neither words nor a photo.
    #[error("nothing is asked; give words, a photo, or both")]
    Empty,
    /// Too many words.
    #[error("a query of {0} words; at most {MOST_WORDS} are read")]
    TooLong(usize),
    /// Too many words in all sentences together.
    #[error("{0} words in all sentences; at most {MOST_WORDS_OF_ALL} are read")]
    TooMany(usize),
    /// No word is in the model's vocabulary.
    #[error("the model knows none of these words: {}", .0.join(", "))]
    UnknownWords(Vec<String>),
    /// No such photo in the index.
    #[error("no photo {0} in this index")]
    NoPhoto(i64),
    /// A box that holds nothing of the photo.
    #[error("the box {0:?} lies outside of the photo, which is {1} × {2} pixels")]
    EmptyBox([f32; 4], u32, u32),
    /// A box that holds nothing anywhere.
    #[error("the box {0:?} is less than a pixel wide or high; expected left, top, right and bottom")]
    SmallBox([f32; 4]),
    /// No photo below such a folder.
    #[error("no photo of this index lies below the folder {0}; name it as from the indexed folder, or in full")]
    NoFolder(String),
    /// Descriptions need models of their own.
    #[error("this server was started without --caption-model")]
    NoDescriber,
    /// Questions by photo need the networks that read photos.
    #[error("photos cannot be read here: {0}")]
    NoNetworks(String),
}

/// Opens the networks that read photos.
type Opener = Box<dyn Fn() -> anyhow::Result<Extraction> + Send + Sync>;

/// The networks that understand questions.
pub struct Models {
    /// Words to vectors.
    aligner: Mutex<Aligner>,
    /// Photos to features, or why they cannot be read; opened when they are first needed, because they take more memory
    /// than all the rest and many questions are of words alone.
    extraction: OnceLock<Result<Extraction, String>>,
    open: Opener,
}

impl Models {
    /// From an opened model, and what opens the networks that make its features.
    pub fn new(aligner: Aligner, open: Opener) -> Self {
        Self { aligner: Mutex::new(aligner), extraction: OnceLock::new(), open }
    }

    /// The model of words and regions; nobody else has it meanwhile.
    pub(crate) fn aligner(&self) -> MutexGuard<'_, Aligner> {
        // The model is never changed, so a panic of another thread left it whole.
        self.aligner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What reads photos.
    pub fn extraction(&self) -> Result<&Extraction, Question> {
        let opened = self.extraction.get_or_init(|| (self.open)().map_err(|error| one_line(&error)));
        opened.as_ref().map_err(|reason| Question::NoNetworks(reason.clone()))
    }

    /// Whether photos can be read, as far as that is known before the networks are opened.
    pub fn reads_photos(&self) -> bool {
        self.extraction.get().is_none_or(Result::is_ok)
    }

    /// Region vectors of a photo, `[regions, dim]`, and their boxes, the whole photo first.
    fn regions(&self, photo: Photo) -> anyhow::Result<(Vec<f32>, Vec<BoxXyxy>)> {
        let extraction = self.extraction()?;
        let (size, boxes) = ([photo.width, photo.height], [extraction.boxes("query", &photo)?]);
        let features = extraction.features(&[photo], &boxes)?.swap_remove(0);
        let [boxes] = boxes;
        Ok((self.aligner().regions_of(features, &boxes, size), boxes))
    }

    /// The vector of one box of a photo: `[dim]`.
    fn region(&self, photo: Photo, region: BoxXyxy) -> anyhow::Result<Vec<f32>> {
        if !(region.width() >= 1.0 && region.height() >= 1.0) {
            return Err(Question::SmallBox(region.into()).into());
        }
        let clipped = region.clip(photo.width, photo.height);
        if !(clipped.width() >= 1.0 && clipped.height() >= 1.0) {
            return Err(Question::EmptyBox(region.into(), photo.width, photo.height).into());
        }
        let (size, boxes) = ([photo.width, photo.height], [vec![photo.whole(), clipped]]);
        let features = self.extraction()?.features(&[photo], &boxes)?.swap_remove(0);
        let aligner = self.aligner();
        let mut vectors = aligner.regions_of(features, &boxes[0], size);
        let mut vector = vectors.split_off(aligner.dim());
        // What the whole photo shows was not pointed at.
        vector[aligner.settings.dim..].fill(0.0);
        Ok(vector)
    }
}

/// Words that the model knows and those that it does not, in the sentence's order.
#[derive(Debug, Clone, Default, PartialEq)]
struct Words {
    known: Vec<String>,
    unknown: Vec<String>,
    /// `[known, dim]`.
    vectors: Vec<f32>,
    /// The same without what stands for the whole sentence, which says nothing about single regions; none where the
    /// model has no such part.
    alone: Option<Vec<f32>>,
    /// Weight of each word, as the model's score has it.
    weight: f32,
    /// How much each known word is of things.
    things: Vec<f32>,
}

impl Words {
    /// What asks for the best region of each word.
    fn reasons(&self, dim: usize) -> Query {
        Query::words(dim, self.alone.as_ref().unwrap_or(&self.vectors), self.weight)
    }
}

/// A picture to find more of.
#[derive(Debug, Clone)]
pub enum Like {
    /// A photo of the index.
    Indexed(i64),
    /// Another picture.
    Picture(Photo),
}

/// Which photos may be found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filters {
    /// Only below this folder, relative to the index's root or absolute; empty for all.
    pub folder: String,
    /// Taken at this second or later.
    pub from: Option<i64>,
    /// Taken before this second.
    pub until: Option<i64>,
    /// At least this wide and high, in pixels.
    pub least: Option<(u32, u32)>,
    /// At most this wide and high, in pixels.
    pub most: Option<(u32, u32)>,
}

impl Filters {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a photo passes; `folder` is [`Filters::folder_below`].
    fn lets(&self, row: &PhotoRow, folder: &[u8]) -> bool {
        walk::is_below(&row.path, folder)
            && self.from.is_none_or(|from| row.taken >= from)
            && self.until.is_none_or(|until| row.taken < until)
            && self.least.is_none_or(|(width, height)| row.width >= width && row.height >= height)
            && self.most.is_none_or(|(width, height)| row.width <= width && row.height <= height)
    }

    /// The folder below the index's root, as photos' paths have it; none where it cannot be one of its folders.
    fn folder_below(&self, root: &Path) -> Option<Vec<u8>> {
        let folder = Path::new(&self.folder);
        let mut below = PathBuf::new();
        for part in folder.strip_prefix(root).unwrap_or(folder).components() {
            match part {
                Component::Normal(name) => below.push(name),
                Component::CurDir | Component::RootDir => {}
                Component::ParentDir | Component::Prefix(_) => return None,
            }
        }
        Some(walk::to_bytes(&below))
    }
}

/// A question.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Words to find.
    pub text: String,
    /// Words to turn away from.
    pub not: String,
    /// A picture to find more of.
    pub like: Option<Like>,
    /// The part of it that counts, in pixels of the upright picture.
    pub region: Option<BoxXyxy>,
    /// Which photos may be found.
    pub filters: Filters,
    /// Most hits.
    pub n: usize,
    /// Whether photos that look the same are one hit.
    pub fold: bool,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Answer {
    /// Words that were looked for.
    pub known: Vec<String>,
    /// Words that the model does not know; left out.
    pub unknown: Vec<String>,
    /// How far the best photo stands above the collection's middle, in units of how far the lower half spreads; none
    /// where there are too few photos.
    pub deviations: Option<f32>,
    /// What the best photo scores a word; none where the query is not of words alone.
    pub score_per_word: Option<f32>,
    /// What the best of so many photos scores a word in 95 of 100 queries that have an answer, as the model's validation
    /// saw it; none in older models.
    pub floor: Option<f32>,
    /// Whether anything here matches: `score_per_word` reaches `floor`, or where one of them is missing, `deviations` reach
    /// the cut-off.
    pub answered: bool,
    /// Photos searched, after filters.
    pub searched: usize,
    /// Best first.
    pub hits: Vec<HitRecord>,
}

/// A photo that was found, and why.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct HitRecord {
    /// Its path.
    pub image: String,
    /// Its score; comparable within one answer only.
    pub score: f32,
    /// Each known word with the region that it points to.
    pub words: Vec<WordRecord>,
    /// Its number in the index.
    pub id: i64,
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// The day it was taken.
    pub taken: String,
    /// Photos of the same look, folded into this hit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub duplicates: Vec<String>,
}

/// A word and the region it points to.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct WordRecord {
    /// As the model knows it.
    pub word: String,
    /// Index of the region in its photo; 0 is the whole photo.
    pub region: usize,
    /// Its box, `x1 y1 x2 y2` in pixels of the upright picture.
    #[serde(rename = "box")]
    pub region_box: [f32; 4],
    /// Product of their vectors.
    pub score: f32,
    /// Whether its best product with any region stands out from what it scores elsewhere in the collection, and the word
    /// is no function word ("the").
    pub matched: bool,
}

/// A run of words that share a region.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PhraseRecord {
    /// First word.
    pub start: usize,
    /// One past the last word.
    pub end: usize,
    /// The words.
    pub text: String,
    /// Index of the region.
    pub region: usize,
    /// Mean product of its words with the region.
    pub score: f32,
}

/// A photo's regions, and how the words of a sentence attach to them.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RegionsRecord {
    /// The photo's number in the index.
    pub id: i64,
    /// Its path.
    pub image: String,
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// The day it was taken.
    pub taken: String,
    /// Boxes of its regions, the whole photo first.
    pub boxes: Vec<[f32; 4]>,
    /// Words that the model does not know; left out.
    pub unknown: Vec<String>,
    /// Each known word, attached to a region by its score and the affinity of neighbours.
    pub words: Vec<WordRecord>,
    /// The same words as runs on one region each.
    pub phrases: Vec<PhraseRecord>,
    /// The affinity from which on all words lie on one region; more changes nothing.
    pub largest_affinity: f32,
}

/// Sentences by how well they fit one photo.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct SentencesRecord {
    /// The photo's number in the index; none for a picture that was sent.
    pub id: Option<i64>,
    /// Its path, or that it was sent.
    pub image: String,
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// Boxes of its regions, the whole photo first.
    pub boxes: Vec<[f32; 4]>,
    /// Sentences that were compared.
    pub ranked: usize,
    /// Sentences without any word that the model knows, by their place in the question; left out.
    pub left_out: Vec<usize>,
    /// Best first.
    pub sentences: Vec<SentenceRecord>,
}

/// A sentence, its score, and why.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct SentenceRecord {
    /// Its place in the question.
    pub index: usize,
    /// As it was given.
    pub sentence: String,
    /// Its score; comparable within one answer only.
    pub score: f32,
    /// Each known word with the region that it points to.
    pub words: Vec<WordRecord>,
    /// Words that the model does not know; left out.
    pub unknown: Vec<String>,
}

/// Where values lie, and how far they spread.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    middle: f32,
    deviation: f32,
}

impl Spread {
    /// Mean and standard deviation.
    fn of(values: impl Iterator<Item = f32> + Clone) -> Self {
        let n = values.clone().count().max(1) as f64;
        let mean = values.clone().map(f64::from).sum::<f64>() / n;
        let variance = values.map(|x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        Self { middle: mean as f32, deviation: variance.sqrt() as f32 }
    }

    /// The median, and its distance to what 16 in 100 lie below, which is the standard deviation of normal values.
    ///
    /// What photos score that do not fit: those that do are in the upper half and disturb neither, be they one or many.
    fn of_lower_half(mut values: Vec<f32>) -> Self {
        values.sort_unstable_by(f32::total_cmp);
        let at = |share: f64| values.get((share * values.len() as f64) as usize).copied().unwrap_or(0.0);
        Self { middle: at(0.5), deviation: at(0.5) - at(0.16) }
    }

    /// How many deviations a value lies above the middle; none where nothing deviates.
    fn deviations(self, value: f32) -> Option<f32> {
        (self.deviation > 0.0).then(|| (value - self.middle) / self.deviation)
    }
}

/// What photos score for some terms of a query, from their best values `[photos, terms]`; photos without regions left out.
fn totals(values: &[f32], query: &Query, terms: Range<usize>) -> Vec<f32> {
    let weights = &query.weights()[terms.clone()];
    let rows = values.chunks_exact(query.len().max(1)).filter(|row| row[0] > f32::NEG_INFINITY);
    rows.map(|row| row[terms.clone()].iter().zip(weights).map(|(value, weight)| value * weight).sum()).collect()
}

/// What a word's best value counts in the score of a sentence of so many known words.
fn weight(score: Score, words: usize) -> f32 {
    if score == Score::MeanOfMax { 1.0 / words.max(1) as f32 } else { 1.0 }
}

/// How the values of the first `most` terms spread over photos: `values` is `[photos, terms]`.
fn spreads(values: &[f32], terms: usize, most: usize) -> Vec<Spread> {
    let of_term = |term| values.chunks_exact(terms).map(move |row: &[f32]| row[term]);
    (0..most).map(|term| Spread::of(of_term(term).filter(|x| x.is_finite()))).collect()
}

/// An index, open for questions.
pub struct Searcher {
    index: PathBuf,
    settings: Settings,
    /// How words point to regions.
    pointing: AttachSettings,
    catalogue: Mutex<Catalogue>,
    rows: Vec<PhotoRow>,
    by_id: HashMap<i64, usize>,
    collection: Arc<Collection>,
    search: Box<dyn Index>,
    /// Photos spread evenly over the collection.
    sample: Vec<usize>,
    models: Arc<Models>,
    /// When the index had been changed last before it was opened.
    as_of: Option<SystemTime>,
}

impl Searcher {
    /// Opens an index and checks all of it.
    ///
    /// # Errors
    /// No index, another version, of another model, cut short, or changed since it was written.
    pub fn open(index: &Path, models: Arc<Models>) -> anyhow::Result<Self> {
        // Before anything is read: what changes meanwhile is seen later.
        let as_of = super::catalogue::changed(index);
        let catalogue = Catalogue::open(index)?;
        let settings = catalogue.settings().clone();
        let rows = catalogue.photos()?;
        let collection = Arc::new(super::collection(&catalogue, index, &rows)?);
        let centroids = index.join(CENTROIDS);
        let pruned = if centroids.exists() { Pruned::open(&centroids, collection.clone())? } else { None };
        let search: Box<dyn Index> = match pruned {
            Some(pruned) => Box::new(pruned),
            None => Box::new(Exact::new(collection.clone())),
        };
        let n = rows.len().min(SAMPLE);
        Ok(Self {
            index: index.to_owned(),
            pointing: AttachSettings::pointing(&settings.features),
            settings,
            catalogue: Mutex::new(catalogue),
            by_id: rows.iter().enumerate().map(|(photo, row)| (row.id, photo)).collect(),
            sample: (0..n).map(|i| i * rows.len() / n).collect(),
            rows,
            collection,
            search,
            models,
            as_of,
        })
    }

    /// The same index as it is now, with the same networks.
    pub fn reopen(&self) -> anyhow::Result<Self> {
        let new = Self::open(&self.index, self.models.clone())?;
        ensure!(
            new.settings.model_checksum == self.settings.model_checksum,
            "{} is of another model now; start the server again",
            self.index.display()
        );
        Ok(new)
    }

    /// Whether the index was changed since it was opened.
    pub fn is_outdated(&self) -> bool {
        super::catalogue::changed(&self.index) != self.as_of
    }

    /// What the index was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Number of photos.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no photo.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The networks.
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// The file of a photo.
    pub fn file(&self, id: i64) -> Result<PathBuf, Question> {
        Ok(self.settings.root.join(walk::to_path(&self.row(id)?.path)))
    }

    /// The thumbnail of a photo, JPEG; made anew from the photo where the index has none.
    pub fn thumbnail(&self, id: i64) -> anyhow::Result<Vec<u8>> {
        let content = self.row(id)?.content;
        let found = self.catalogue.lock().unwrap_or_else(PoisonError::into_inner).thumbnail(&content)?;
        match found {
            Some(jpeg) => Ok(jpeg),
            None => super::build::thumbnail(&Photo::open(self.file(id)?)?),
        }
    }

    fn position(&self, id: i64) -> Result<usize, Question> {
        self.by_id.get(&id).copied().ok_or(Question::NoPhoto(id))
    }

    fn row(&self, id: i64) -> Result<&PhotoRow, Question> {
        Ok(&self.rows[self.position(id)?])
    }

    /// Path of a photo as it is shown.
    fn image(&self, row: &PhotoRow) -> String {
        self.settings.root.join(walk::to_path(&row.path)).display().to_string()
    }

    fn words(&self, text: &str) -> Result<Words, Question> {
        let aligner = self.models.aligner();
        let tokens = tokens::tokenize_for(text, |word| aligner.vocabulary.get(word).is_some());
        if tokens.len() > MOST_WORDS {
            return Err(Question::TooLong(tokens.len()));
        }
        let (known, unknown): (Vec<String>, Vec<String>) =
            tokens.into_iter().partition(|token| aligner.vocabulary.get(token).is_some());
        let indices = aligner.vocabulary.encode(&known);
        let things = aligner.prior_weights.of(&indices);
        let vectors = if indices.is_empty() { Vec::new() } else { aligner.words(&[indices]).get(0).to_vec() };
        let alone = aligner.settings.whole.then(|| {
            let mut alone = vectors.clone();
            aligner.take_out_whole(&mut alone);
            alone
        });
        let weight = weight(aligner.settings.score, known.len());
        Ok(Words { known, unknown, vectors, alone, weight, things })
    }

    /// Vectors of a picture to find more of: of the box, or of all its regions.
    fn like(&self, like: Like, region: Option<BoxXyxy>) -> anyhow::Result<Vec<f32>> {
        let picture = match (like, region) {
            (Like::Indexed(id), None) => return Ok(self.collection.vectors(self.position(id)?)),
            (Like::Indexed(id), Some(_)) => Photo::open(self.file(id)?)?,
            (Like::Picture(picture), _) => picture,
        };
        match region {
            Some(region) => self.models.region(picture, region),
            None => Ok(self.models.regions(picture)?.0),
        }
    }

    /// Answers a question.
    ///
    /// # Errors
    /// A [`Question`] that cannot be answered; a photo that cannot be read.
    pub fn answer(&self, request: Request) -> anyhow::Result<Answer> {
        let dim = self.settings.dim;
        let words = self.words(&request.text)?;
        let not = self.words(&request.not)?;
        let n_words = words.known.len();
        if n_words == 0 && request.like.is_none() {
            let unknown = [words.unknown, not.unknown].concat();
            let nothing = unknown.is_empty();
            return Err(if nothing { Question::Empty } else { Question::UnknownWords(unknown) }.into());
        }
        let mut query = Query::words(dim, &words.vectors, words.weight);
        not.vectors.chunks_exact(dim).for_each(|word| query.push(word, Measure::Product, -not.weight));
        let n_text = query.len();
        let has_picture = request.like.is_some();
        if let Some(like) = request.like {
            let vectors = self.like(like, request.region)?;
            let weight = dim as f32 / vectors.len() as f32;
            vectors.chunks_exact(dim).for_each(|region| query.push(region, Measure::Cosine, weight));
        }
        // [sample, terms]; weights are not in it.
        let sample = self.collection.best_values_of(&self.sample, &query);
        if n_text > 0 && n_text < query.len() {
            // Words and pictures are measured in different units; each part's spread becomes 1.
            for part in [0..n_text, n_text..query.len()] {
                let deviation = Spread::of(totals(&sample, &query, part.clone()).into_iter()).deviation;
                if deviation > 0.0 {
                    query.scale(part, 1.0 / deviation);
                }
            }
        }
        let totals = totals(&sample, &query, 0..query.len());
        let of_scores = Spread::of(totals.iter().copied());
        let spread = Spread::of_lower_half(totals);
        let reasons = words.reasons(dim);
        let of_word = match words.alone {
            Some(_) => self.spreads(&reasons),
            // The sample has been looked at with these very words.
            None => spreads(&sample, query.len(), n_words),
        };

        let among = self.among(&request.filters)?;
        let searched = among.as_ref().map_or(self.rows.len(), |among| among.iter().filter(|&&in_it| in_it).count());
        let found = self.best(&query, among.as_deref(), request.n, request.fold);
        let best = found.first().map(|(best, _)| best);
        let deviations = match best {
            Some(best) if self.sample.len() >= LEAST_SAMPLE => spread.deviations(best.score),
            _ => None,
        };
        let only_words = n_text == query.len() && not.known.is_empty();
        let weights_of_words = words.weight * n_words as f32;
        let score_per_word = best.filter(|_| only_words).map(|best| best.score / weights_of_words);
        let floor = self.models.aligner().match_floors.at(searched).map(|floor| floor as f32);
        let record = |(hit, same): (Hit, Vec<usize>)| {
            let row = &self.rows[hit.photo];
            let boxes = self.collection.boxes(hit.photo);
            let values = self.collection.values(hit.photo, &reasons);
            let attached = self.point(&words.things, &values, boxes);
            let fit = of_scores.deviations(hit.score);
            HitRecord {
                image: self.image(row),
                score: hit.score,
                words: word_records(&words.known, &values, &attached, boxes, &of_word, fit),
                id: row.id,
                width: row.width,
                height: row.height,
                taken: date::format(row.taken),
                duplicates: same.into_iter().map(|photo| self.image(&self.rows[photo])).collect(),
            }
        };
        let hits: Vec<HitRecord> = found.into_iter().map(record).collect();
        let fits = match (score_per_word, floor) {
            (Some(score), Some(floor)) => score >= floor,
            _ => deviations.is_none_or(|deviations| deviations >= CUT_OFF),
        };
        let answered = !hits.is_empty() && fits && (has_picture || names_something(&words.known, &not.known));
        let unknown = [words.unknown, not.unknown].concat();
        Ok(Answer { known: words.known, unknown, deviations, score_per_word, floor, answered, searched, hits })
    }

    /// Which photos pass the filters; none where there are none.
    fn among(&self, filters: &Filters) -> Result<Option<Vec<bool>>, Question> {
        if filters.is_empty() {
            return Ok(None);
        }
        let none = || Question::NoFolder(filters.folder.clone());
        let folder = filters.folder_below(&self.settings.root).ok_or_else(none)?;
        if !folder.is_empty() && !self.rows.iter().any(|row| walk::is_below(&row.path, &folder)) {
            return Err(none());
        }
        Ok(Some(self.rows.iter().map(|row| filters.lets(row, &folder)).collect()))
    }

    /// The `n` best photos, or all there are, and where `fold`, each with those that show the same picture.
    fn best(&self, query: &Query, among: Option<&[bool]>, n: usize, fold: bool) -> Vec<(Hit, Vec<usize>)> {
        let mut wanted = if fold { n.saturating_mul(2).saturating_add(20) } else { n };
        loop {
            wanted = wanted.min(self.rows.len());
            let found = self.search.best(query, among, wanted);
            let is_all = found.len() < wanted || wanted == self.rows.len();
            let best = match fold {
                true => self.fold(found, n),
                false => found.into_iter().map(|hit| (hit, Vec::new())).collect(),
            };
            if is_all || best.len() >= n {
                return best;
            }
            // Many look alike.
            wanted = wanted.saturating_mul(2);
        }
    }

    /// At most `n` of the photos, each with those that show the same picture.
    fn fold(&self, found: Vec<Hit>, n: usize) -> Vec<(Hit, Vec<usize>)> {
        let mut best: Vec<(Hit, Vec<usize>)> = Vec::new();
        let mut wholes: Vec<Vec<f32>> = Vec::new();
        for hit in found {
            let whole = self.whole(hit.photo);
            let mut kept = best.iter_mut().zip(&wholes);
            if let Some(((_, same), _)) =
                kept.find(|((kept, _), other)| self.is_same(kept.photo, other, hit.photo, &whole))
            {
                same.push(hit.photo);
                continue;
            }
            if best.len() == n {
                break;
            }
            best.push((hit, Vec::new()));
            wholes.push(whole);
        }
        best
    }

    /// Ranks sentences by how well they fit a photo; the best `n` with their reasons.
    ///
    /// # Errors
    /// A [`Question`] that cannot be answered; a photo that cannot be read.
    pub fn sentences(&self, like: Like, sentences: &[String], n: usize) -> anyhow::Result<SentencesRecord> {
        let knows = |word: &str| self.models.aligner().vocabulary.get(word).is_some();
        let tokens: Vec<Vec<String>> = sentences.iter().map(|sentence| tokens::tokenize_for(sentence, knows)).collect();
        if let Some(long) = tokens.iter().find(|tokens| tokens.len() > MOST_WORDS) {
            return Err(Question::TooLong(long.len()).into());
        }
        let n_words = tokens.iter().map(Vec::len).sum::<usize>();
        if n_words > MOST_WORDS_OF_ALL {
            return Err(Question::TooMany(n_words).into());
        }
        if n_words == 0 {
            return Err(Question::Empty.into());
        }
        let (id, image, [width, height], vectors, boxes) = match like {
            Like::Indexed(id) => {
                let photo = self.position(id)?;
                let row = &self.rows[photo];
                let boxes = self.collection.boxes(photo).to_vec();
                (Some(id), self.image(row), [row.width, row.height], self.collection.vectors(photo), boxes)
            }
            Like::Picture(picture) => {
                let size = [picture.width, picture.height];
                let (vectors, boxes) = self.models.regions(picture)?;
                (None, "picture".to_owned(), size, vectors, boxes.into_iter().map(Into::into).collect())
            }
        };
        let mut regions = VectorSets::new(self.settings.dim);
        regions.push(&vectors);

        let aligner = self.models.aligner();
        let known = |word: &String| aligner.vocabulary.get(word).is_some();
        let (readable, left_out): (Vec<usize>, Vec<usize>) =
            (0..sentences.len()).partition(|&sentence| tokens[sentence].iter().any(known));
        if readable.is_empty() {
            let unknown = tokens.into_iter().flatten().take(10).collect();
            return Err(Question::UnknownWords(unknown).into());
        }
        let split =
            |sentence: usize| -> (Vec<String>, Vec<String>) { tokens[sentence].iter().cloned().partition(known) };
        let indices: Vec<Vec<u32>> =
            readable.iter().map(|&sentence| aligner.vocabulary.encode(&split(sentence).0)).collect();
        let words = aligner.words(&indices);
        let scores = aligner.scores(&regions, &words);
        let mut order: Vec<usize> = (0..readable.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        order.truncate(n);
        let best: Vec<(usize, f32, Vec<String>, Vec<String>)> = (order.iter())
            .map(|&at| {
                let (known, unknown) = split(readable[at]);
                (readable[at], scores[at], known, unknown)
            })
            .collect();
        // As in `words`: what stands for a whole sentence or photo says nothing about single regions.
        let alone: Vec<Vec<f32>> = (order.iter())
            .map(|&at| {
                let mut alone = words.get(at).to_vec();
                aligner.take_out_whole(&mut alone);
                alone
            })
            .collect();
        let things: Vec<Vec<f32>> = order.iter().map(|&at| aligner.prior_weights.of(&indices[at])).collect();
        let queries = order.iter().map(|&at| {
            let weight = weight(aligner.settings.score, indices[at].len());
            Query::words(self.settings.dim, words.get(at), weight)
        });
        let queries: Vec<Query> = queries.collect();
        drop(aligner);

        let spreads = self.spreads(&Query::words(self.settings.dim, &alone.concat(), 1.0));
        let mut spreads = spreads.as_slice();
        let records = best.into_iter().zip(&queries).zip(&alone).zip(&things).map(
            |((((index, score, known, unknown), query), alone), things)| {
                let of_word;
                (of_word, spreads) = spreads.split_at(known.len());
                let values = sightline_search::products(&vectors, alone, self.settings.dim);
                let attached = self.point(things, &values, &boxes);
                let words = word_records(&known, &values, &attached, &boxes, of_word, self.fit(query, score));
                SentenceRecord { index, sentence: sentences[index].clone(), score, words, unknown }
            },
        );
        let sentences = records.collect();
        Ok(SentencesRecord { id, image, width, height, ranked: readable.len(), left_out, sentences, boxes })
    }

    /// How many deviations a photo's score lies above the mean of the collection's.
    fn fit(&self, query: &Query, score: f32) -> Option<f32> {
        let sample = self.collection.best_values_of(&self.sample, query);
        Spread::of(totals(&sample, query, 0..query.len()).into_iter()).deviations(score)
    }

    /// Where known words point, from how much each is of things and their values `[words, regions]` in one photo.
    fn point(&self, things: &[f32], values: &[f32], boxes: &[[f32; 4]]) -> Vec<usize> {
        match values.is_empty() {
            true => Vec::new(),
            false => decode::viterbi(&self.rewards(things, values, boxes), boxes.len(), 0.0),
        }
    }

    /// As [`Aligner::pointing`], which would be waited for with every photo.
    fn rewards(&self, things: &[f32], values: &[f32], boxes: &[[f32; 4]]) -> Vec<f32> {
        let areas = boxes.iter().map(|&[x1, y1, x2, y2]| (x2 - x1) * (y2 - y1));
        self.pointing.rewards(values, &Prior::in_order(areas), things)
    }

    /// How each query vector's best value spreads over the sample.
    fn spreads(&self, query: &Query) -> Vec<Spread> {
        spreads(&self.collection.best_values_of(&self.sample, query), query.len(), query.len())
    }

    /// The whole photo's vector at length 1.
    fn whole(&self, photo: usize) -> Vec<f32> {
        let mut vector = self.collection.vectors(photo);
        vector.truncate(self.settings.dim);
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        vector.iter_mut().for_each(|x| *x /= length);
        vector
    }

    /// Whether two photos show the same picture.
    fn is_same(&self, a: usize, whole_a: &[f32], b: usize, whole_b: &[f32]) -> bool {
        let (first, second) = (&self.rows[a], &self.rows[b]);
        let cosine = || whole_a.iter().zip(whole_b).map(|(x, y)| x * y).sum::<f32>();
        first.content == second.content
            || ((first.look ^ second.look).count_ones() <= SAME_LOOK && cosine() >= SAME_COSINE)
    }

    /// A photo's regions, and the words of `text` attached to them; neighbours on one region gain `affinity`.
    pub fn regions(&self, id: i64, text: &str, affinity: f32) -> anyhow::Result<RegionsRecord> {
        ensure!(affinity >= 0.0 && affinity.is_finite(), "affinity {affinity}: expected a finite number of 0 or more");
        let photo = self.position(id)?;
        let row = &self.rows[photo];
        let words = self.words(text)?;
        let boxes = self.collection.boxes(photo);
        let query = words.reasons(self.settings.dim);
        let values = self.collection.values(photo, &query);
        let (assignment, largest_affinity) = match values.is_empty() {
            true => (Vec::new(), 0.0),
            false => {
                let rewards = self.rewards(&words.things, &values, boxes);
                (decode::viterbi(&rewards, boxes.len(), affinity), decode::largest_affinity(&rewards, boxes.len()))
            }
        };
        let of_word = self.spreads(&query);
        let whole = Query::words(self.settings.dim, &words.vectors, words.weight);
        let own = self.collection.best_values_of(&[photo], &whole);
        let fit = totals(&own, &whole, 0..whole.len()).first().and_then(|&score| self.fit(&whole, score));
        let score = |word: usize, region: usize| values[word * boxes.len() + region];
        let phrases = decode::segments(&assignment).into_iter().map(|segment| PhraseRecord {
            start: segment.start,
            end: segment.end,
            text: words.known[segment.start..segment.end].join(" "),
            region: segment.region,
            score: (segment.start..segment.end).map(|word| score(word, segment.region)).sum::<f32>()
                / (segment.end - segment.start) as f32,
        });
        Ok(RegionsRecord {
            id,
            image: self.image(row),
            width: row.width,
            height: row.height,
            taken: date::format(row.taken),
            boxes: boxes.to_vec(),
            words: word_records(&words.known, &values, &assignment, boxes, &of_word, fit),
            phrases: phrases.collect(),
            largest_affinity,
            unknown: words.unknown,
        })
    }
}

/// Whether some word names what can be seen and is not turned away from in the same breath.
fn names_something(words: &[String], not: &[String]) -> bool {
    words.iter().any(|word| !tokens::is_function_word(word) && !not.contains(word))
}

/// Words with the regions that they are attached to, from their values `[words, regions]`. A word stands out where its best
/// value is no lower than the mean of its best ones over the collection, the photo fits the sentence, so that it and the
/// `fit` lie two deviations above their means together, and it has a tenth of the best word's value here. A function word
/// never does: what it scores, its neighbours lend it.
fn word_records(
    words: &[String],
    values: &[f32],
    attached: &[usize],
    boxes: &[[f32; 4]],
    of_word: &[Spread],
    fit: Option<f32>,
) -> Vec<WordRecord> {
    let best = |values: &[f32]| values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let most = best(values).max(0.0);
    let of_regions = values.chunks_exact(boxes.len().max(1));
    let each = words.iter().zip(of_regions).zip(attached).zip(of_word);
    each.map(|(((word, values), &region), spread)| {
        let best = best(values);
        let above = spread.deviations(best).zip(fit);
        let stands_out = best > 0.1 * most && above.is_none_or(|(own, fit)| own >= 0.0 && own + fit >= STANDS_OUT);
        WordRecord {
            word: word.clone(),
            region,
            region_box: boxes[region],
            score: values[region],
            matched: stands_out && !tokens::is_function_word(word),
        }
    })
    .collect()
}

/// The model of an index and, where `reads_photos`, the networks that read photos for it; these may be missing, words
/// need only the model.
pub fn open_models(
    index: &Path,
    model: Option<&Path>,
    backbone: Option<&str>,
    proposals: Option<&str>,
    reads_photos: bool,
    device: &Device,
    ui: &Ui,
) -> anyhow::Result<Models> {
    let mut settings = Catalogue::open(index)?.settings().clone();
    if let Some(model) = model {
        settings.model = models::absolute(model)?;
    }
    let needed = "the index's model is needed; name it with --model";
    let checkpoint = models::checkpoint(&settings.model, &[Kind::Alignment]).context(needed)?;
    if model.is_some() {
        super::take_sources_of_pack(&mut settings.features, &checkpoint.header.features, &settings.model);
    }
    let aligner = Aligner::new(checkpoint, device).context("cannot open the index's model")?;
    settings.check_model(&aligner)?;
    let given = [backbone, proposals].map(|spec| spec.map(str::to_owned));
    let is_there = |(key, given): (&str, &Option<String>)| {
        let spec = given.as_ref().or(settings.features.sources.get(key));
        spec.is_some_and(|spec| {
            let file = file_of(spec);
            file.extension().is_none() || file.exists()
        })
    };
    let all_there = ["backbone", "regions"].into_iter().zip(&given).all(is_there);
    let (device, ui) = (device.clone(), *ui);
    let open = move || match reads_photos {
        true => {
            let [backbone, proposals] = given.each_ref().map(Option::as_deref);
            Extraction::like(&settings.features, backbone, proposals, &device, &ui)
        }
        false => Err(anyhow::anyhow!("the networks for photos are not opened")),
    };
    let models = Models::new(aligner, Box::new(open));
    if reads_photos && !all_there {
        // What is missing is said at once.
        let _ = models.extraction();
    }
    Ok(models)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_named_from_the_root_or_in_full() {
        let check = |folder: &str, expected: Option<&str>| {
            let filters = Filters { folder: folder.into(), ..Filters::default() };
            let below = filters.folder_below(Path::new("/photos"));
            assert_eq!(below.as_deref(), expected.map(str::as_bytes), "{folder}");
        };
        for folder in ["sub/deep", "./sub/deep", "sub/deep/", "sub//./deep", "/sub/deep", "/photos/sub/deep/"] {
            check(folder, Some("sub/deep"));
        }
        for folder in ["", ".", "/photos", "/photos/."] {
            check(folder, Some(""));
        }
        for folder in ["..", "sub/..", "/photos/../etc"] {
            check(folder, None);
        }
        assert!(!walk::is_below(b"subway/a.jpg", b"sub") && walk::is_below(b"sub/a.jpg", b"sub"));
    }

    #[test]
    fn function_words_and_what_is_turned_away_from_name_nothing() {
        let check = |words: &str, not: &str, expected: bool| {
            assert_eq!(names_something(&tokens::tokenize(words), &tokens::tokenize(not)), expected, "{words} - {not}");
        };
        check("a dog", "", true);
        check("a dog", "cat", true);
        check("a red dog", "dog", true);
        check("a dog", "a dog", false);
        check("in the", "", false);
        check("", "", false);
    }

    #[test]
    fn words_match_where_they_stand_out_and_name_something() {
        let words = ["a", "dog", "sofa"].map(str::to_owned);
        // Two regions a word; over the collection the best products are 0.1, give or take 0.1.
        let values = [0.6, 0.1, /**/ 0.1, 0.6, /**/ 0.15, 0.0];
        let usual: Vec<Spread> = (0..3).map(|_| Spread { middle: 0.1, deviation: 0.1 }).collect();
        let boxes = [[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 3.0, 3.0]];
        let records = |fit| word_records(&words, &values, &[0, 1, 0], &boxes, &usual, fit);
        let check = |fit, expected: [bool; 3]| {
            assert_eq!(records(fit).iter().map(|word| word.matched).collect::<Vec<_>>(), expected, "{fit:?}");
        };
        check(Some(1.0), [false, true, false]);
        // A photo that fits well lends its words belief, and one that does not takes it away.
        check(Some(2.0), [false, true, true]);
        check(Some(-4.0), [false, false, false]);
        // A lone photo stands out from nothing.
        check(None, [false, true, true]);
        let found = records(Some(1.0));
        assert_eq!((found[1].region, found[1].region_box, found[1].score), (1, boxes[1], 0.6));
    }
}
