//! An index over HTTP: the page, its API under `/api/v1`, health and metrics.
//!
//! Photos go by their number in the index, never by path. Work is done off the server's threads, so many at a time and
//! no more: whoever comes on top waits a moment and is then asked to come again (503).

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{MatchedPath, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use sightline_data::BoxXyxy;
use sightline_train::caption::Caption;
use sightline_train::committee::{self, Judge};
use sightline_vision::Photo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::metrics::Metrics;
use super::runs::{RunRecord, Runs, RunsRecord};
use super::upload::{self, Decoder};
use super::{is_this_machine, of_type, refusal, with_security_headers};
use crate::commands::search::{filters, parse_box, parse_size};
use crate::describe::{Choose, Described, LazyDescriber, Seen};
use crate::index::search::Request as SearchRequest;
use crate::index::search::{Answer, CUT_OFF, Like, Question, RegionsRecord, Searcher, SentencesRecord};
use crate::panels::MostRegions;

/// Longest wait for a free worker before a request is asked to come again.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Requests that may wait for a worker.
const QUEUE: usize = 64;

/// Longest time for a request's body to arrive, and for an answer to be made.
const BODY_TIME: Duration = Duration::from_secs(20);
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// How often the index's file is looked at for changes.
const FRESHNESS: Duration = Duration::from_secs(2);

/// Photos larger than this are sent as a smaller JPEG.
const MAX_PHOTO_BYTES: u64 = 40 << 20;

/// Hits that one answer holds at most.
const MOST_HITS: usize = 200;

/// Regions of a photo that one answer describes at most.
const MOST_REGIONS: usize = 20;

/// Affinity of neighbouring words that one request asks for at most.
const MOST_AFFINITY: f32 = 1e6;

/// Sentences that one request ranks at most.
const MOST_SENTENCES: usize = 1000;

/// Sentences that one answer gives reasons for at most.
const MOST_REASONS: usize = 100;

/// Longest body of a question with sentences: a picture in base64 and the sentences.
const MAX_QUESTION_BYTES: usize = upload::MAX_BYTES / 3 * 4 + (1 << 20);

/// What the page may do: load its own files and the API's pictures.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
                      media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'";

/// What the page may use of the machine: the camera, if its user allows it.
const PERMISSIONS: &str = "camera=(self), microphone=(), geolocation=()";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page's files, built from `web/`.
const FILES: [(&str, &str, &[u8]); 6] = [
    ("/", HTML, include_bytes!("../../web/dist/index.html")),
    ("/api", HTML, include_bytes!("../../web/dist/api.html")),
    ("/assets/app.js", SCRIPT, include_bytes!("../../web/dist/assets/app.js")),
    ("/assets/api.js", SCRIPT, include_bytes!("../../web/dist/assets/api.js")),
    ("/assets/dom.js", SCRIPT, include_bytes!("../../web/dist/assets/dom.js")),
    ("/assets/app.css", "text/css; charset=utf-8", include_bytes!("../../web/dist/assets/app.css")),
];

/// Everything that requests share. Cloning is cheap.
#[derive(Clone)]
pub struct App {
    shared: Arc<Shared>,
}

struct Shared {
    searcher: RwLock<Arc<Searcher>>,
    /// When somebody looked whether the index was changed.
    looked: Mutex<Instant>,
    describer: Option<LazyDescriber>,
    fit: f32,
    runs: Option<Runs>,
    decoder: Decoder,
    workers: Arc<Semaphore>,
    waiting: AtomicUsize,
    metrics: Metrics,
    token: Option<String>,
}

/// What a server can do beside searching.
#[derive(Default)]
pub struct Options {
    /// Describes photos.
    pub describer: Option<LazyDescriber>,
    /// How much the index's model has to say in which sentence is best, as in [`committee::order`]; 0 is nothing.
    pub fit: f32,
    /// Runs whose curves are shown.
    pub runs: Option<Runs>,
    /// Decodes pictures that are sent.
    pub decoder: Decoder,
    /// What every request must bring.
    pub token: Option<String>,
}

impl App {
    /// Serves `searcher`.
    pub fn new(searcher: Searcher, options: Options) -> Self {
        let Options { describer, fit, runs, decoder, token } = options;
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            shared: Arc::new(Shared {
                searcher: RwLock::new(Arc::new(searcher)),
                looked: Mutex::new(Instant::now()),
                describer,
                fit,
                runs,
                decoder,
                workers: Arc::new(Semaphore::new(workers)),
                waiting: AtomicUsize::new(0),
                metrics: Metrics::default(),
                token,
            }),
        }
    }

    fn searcher(&self) -> Arc<Searcher> {
        self.shared.searcher.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens the index anew where `index` has changed it since. Called by workers; one of them looks, the others go on.
    fn refresh(&self) {
        let Ok(mut looked) = self.shared.looked.try_lock() else { return };
        if looked.elapsed() < FRESHNESS {
            return;
        }
        let searcher = self.searcher();
        if searcher.is_outdated() {
            match searcher.reopen() {
                Ok(new) => *self.shared.searcher.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new),
                // The old one goes on answering; an indexer may be between two files.
                Err(error) => {
                    let error = crate::ui::one_line(&error);
                    crate::ui::aside(format_args!("the index changed and cannot be opened yet: {error}"));
                }
            }
        }
        *looked = Instant::now();
    }

    /// Runs `work` on a worker's thread, when one is free.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T, Refusal> {
        let permit = self.permit().await?;
        let app = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            // Freed when the work is done, not when the client goes away.
            let _permit = permit;
            app.refresh();
            work(&app)
        });
        match tokio::time::timeout(ANSWER_TIME, task).await {
            Ok(Ok(done)) => done.map_err(Refusal::from),
            Ok(Err(_)) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the work on this request failed")),
            Err(_) => Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, "the answer took too long")),
        }
    }

    /// Runs `work` on a worker's thread with a picture that was sent.
    async fn work_on<T: Send + 'static>(
        &self,
        bytes: impl AsRef<[u8]> + Send + 'static,
        work: impl FnOnce(&Self, Photo) -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.work(move |app| {
            let decoded = app.shared.decoder.decode(bytes.as_ref());
            drop(bytes);
            match decoded {
                Ok(photo) => work(app, photo).map(Ok),
                Err(refused) => Ok(Err(Refusal::from(refused))),
            }
        })
        .await?
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let workers = self.shared.workers.clone();
        if let Ok(permit) = workers.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let busy = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once; try again in a second");
        let place = Place::take(&self.shared.waiting);
        if place.before >= QUEUE {
            return Err(busy());
        }
        match tokio::time::timeout(PATIENCE, workers.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(busy()),
        }
    }
}

/// A place in the queue, given back also where the client goes away while it waits.
struct Place<'a> {
    waiting: &'a AtomicUsize,
    /// How many were there already.
    before: usize,
}

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Self {
        Self { waiting, before: waiting.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that got no answer: status and one line.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    fn usage(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        let status = match error.downcast_ref::<Question>() {
            Some(Question::NoPhoto(_)) => StatusCode::NOT_FOUND,
            Some(Question::NoNetworks(_) | Question::NoDescriber) => StatusCode::NOT_IMPLEMENTED,
            Some(Question::UnknownWords(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            Some(_) => StatusCode::BAD_REQUEST,
            None if error.is::<crate::ui::Usage>() => StatusCode::BAD_REQUEST,
            None => match error.downcast_ref::<sightline_vision::Error>() {
                Some(sightline_vision::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    return Self::new(StatusCode::GONE, "the photo is no longer where it was; index the folder again");
                }
                Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
                None => StatusCode::INTERNAL_SERVER_ERROR,
            },
        };
        Self::new(status, crate::ui::one_line(&error))
    }
}

impl From<upload::Refused> for Refusal {
    fn from((status, message): upload::Refused) -> Self {
        Self::new(status, message)
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::usage(rejection.body_text())
    }
}

impl From<PathRejection> for Refusal {
    fn from(_: PathRejection) -> Self {
        Self::new(StatusCode::NOT_FOUND, "a photo's number is a whole number")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = refusal(self.status, &self.message);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// What is asked, in a request's query.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SearchQuery {
    /// Words to find.
    q: String,
    /// Words to turn away from.
    not: String,
    /// A photo of the index to find more of; not together with a picture that is sent.
    like: Option<i64>,
    /// The part of that photo, or of the picture that is sent, that counts: left, top, right, bottom in pixels.
    #[serde(rename = "box")]
    #[param(rename = "box")]
    region: Option<String>,
    /// Only below this folder, named as from the indexed one or in full.
    folder: String,
    /// Only photos taken on this day or later: 2023, 2023-06 or 2023-06-15.
    from: Option<String>,
    /// Only photos taken on this day or earlier.
    until: Option<String>,
    /// Only photos at least this large: 800x600.
    min_size: Option<String>,
    /// Only photos at most this large.
    max_size: Option<String>,
    /// Most hits, 1 to 200; 40 if not said.
    n: Option<usize>,
    /// Show every photo, even those that look the same.
    all: bool,
}

impl SearchQuery {
    fn request(&self) -> Result<SearchRequest, Refusal> {
        let size = |text: &Option<String>| text.as_deref().map(parse_size).transpose().map_err(Refusal::usage);
        let n = self.n.unwrap_or(40);
        if n == 0 || n > MOST_HITS {
            return Err(Refusal::usage(format!("n = {n}: expected 1 to {MOST_HITS}")));
        }
        Ok(SearchRequest {
            text: self.q.clone(),
            not: self.not.clone(),
            like: self.like.map(Like::Indexed),
            region: region(self.region.as_deref())?,
            filters: filters(
                &self.folder,
                self.from.as_deref(),
                self.until.as_deref(),
                size(&self.min_size)?,
                size(&self.max_size)?,
            )?,
            n,
            fold: !self.all,
        })
    }
}

fn region(text: Option<&str>) -> Result<Option<BoxXyxy>, Refusal> {
    text.map(parse_box).transpose().map_err(|message| Refusal::usage(format!("box: {message}")))
}

/// Find photos by words, by a photo of the index, or by both
#[utoipa::path(get, path = "/api/v1/search", params(SearchQuery),
    responses((status = 200, body = Answer), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 410, body = Problem), (status = 422, body = Problem), (status = 501, body = Problem), (status = 503, body = Problem)))]
async fn search(
    State(app): State<App>,
    query: Result<Query<SearchQuery>, QueryRejection>,
) -> Result<Json<Answer>, Refusal> {
    let request = query?.0.request()?;
    if request.region.is_some() && request.like.is_none() {
        return Err(Refusal::usage(
            "box: a part of which photo? name one with like, or POST a picture to /api/v1/similar",
        ));
    }
    app.work(move |app| app.searcher().answer(request)).await.map(Json)
}

/// Find photos like a picture that is sent
#[utoipa::path(post, path = "/api/v1/similar", params(SearchQuery), request_body(content = Vec<u8>, content_type = "image/*"),
    responses((status = 200, body = Answer), (status = 400, body = Problem), (status = 408, body = Problem),
        (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem),
        (status = 501, body = Problem), (status = 503, body = Problem)))]
async fn similar(
    State(app): State<App>,
    query: Result<Query<SearchQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Answer>, Refusal> {
    let query = query?.0;
    // Mistakes in the words are told before the picture is read.
    let request = query.request()?;
    if query.like.is_some() {
        return Err(Refusal::usage("like: the picture that is sent is what is looked for; leave one of the two out"));
    }
    let bytes = picture(&headers, body).await?;
    app.work_on(bytes, move |app, photo| {
        app.searcher().answer(SearchRequest { like: Some(Like::Picture(photo)), ..request })
    })
    .await
    .map(Json)
}

/// The body of a picture, within its limits.
async fn picture(headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    let kind = content_type(headers);
    if !kind.starts_with("image/") && kind != "application/octet-stream" {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send the picture itself as the body, with its type (image/jpeg, say)",
        ));
    }
    received(headers, body, upload::MAX_BYTES, "the picture").await
}

/// The body's type in lower case, its parameters left out.
fn content_type(headers: &HeaderMap) -> String {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A whole body of at most `most` bytes.
async fn received(headers: &HeaderMap, body: Body, most: usize, what: &str) -> Result<Bytes, Refusal> {
    let too_large = || {
        let message = format!("{what} is of more than {} MB; scale it down", most >> 20);
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > most as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIME, to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(inner) = cause {
                if inner.to_string().contains("length limit") {
                    return Err(too_large());
                }
                cause = inner.source();
            }
            Err(Refusal::usage(format!("{what} did not arrive whole")))
        }
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, format!("{what} took too long to arrive"))),
    }
}

/// A photo, and sentences that may fit it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SentencesQuestion {
    /// A photo of the index; this or `picture`.
    id: Option<i64>,
    /// A picture's file in base64.
    picture: Option<String>,
    /// What may be said of it, 1 to 1,000 sentences.
    #[serde(deserialize_with = "few")]
    sentences: Vec<String>,
    /// Most sentences in the answer, 1 to 100; 20 if not said.
    n: Option<usize>,
}

/// A list that is given up on where it grows too long, not afterwards.
fn few<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Few;
    impl<'de> serde::de::Visitor<'de> for Few {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "a list of at most {MOST_SENTENCES} sentences")
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
            let mut sentences = Vec::new();
            while let Some(sentence) = list.next_element()? {
                if sentences.len() == MOST_SENTENCES {
                    return Err(serde::de::Error::custom(format!("more than {MOST_SENTENCES} sentences")));
                }
                sentences.push(sentence);
            }
            Ok(sentences)
        }
    }
    deserializer.deserialize_seq(Few)
}

/// Rank sentences by how well they fit a photo of the index or a picture that is sent
#[utoipa::path(post, path = "/api/v1/sentences", request_body(content = SentencesQuestion, content_type = "application/json"),
    responses((status = 200, body = SentencesRecord), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 408, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem),
        (status = 422, body = Problem), (status = 501, body = Problem), (status = 503, body = Problem)))]
async fn sentences(State(app): State<App>, headers: HeaderMap, body: Body) -> Result<Json<SentencesRecord>, Refusal> {
    if content_type(&headers) != "application/json" {
        let message = "send JSON: {\"id\": a photo's number, \"sentences\": [\"…\"]}, with its type (application/json)";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let bytes = received(&headers, body, MAX_QUESTION_BYTES, "the question").await?;
    let SentencesQuestion { id, picture, sentences, n } = serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::usage(format!("the question is not as expected: {error}")))?;
    drop(bytes);
    let n = n.unwrap_or(20);
    if n == 0 || n > MOST_REASONS {
        return Err(Refusal::usage(format!("n = {n}: expected 1 to {MOST_REASONS}")));
    }
    match (id, picture) {
        (Some(id), None) => {
            app.work(move |app| app.searcher().sentences(Like::Indexed(id), &sentences, n)).await.map(Json)
        }
        (None, Some(picture)) => {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(picture)
                .map_err(|error| Refusal::usage(format!("picture: no base64: {error}")))?;
            if bytes.len() > upload::MAX_BYTES {
                let message = format!("the picture is of more than {} MB; scale it down", upload::MAX_BYTES >> 20);
                return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message));
            }
            app.work_on(bytes, move |app, photo| app.searcher().sentences(Like::Picture(photo), &sentences, n))
                .await
                .map(Json)
        }
        _ => Err(Refusal::usage("name a photo by id, or send a picture; one of the two")),
    }
}

/// Which words a photo's regions are asked for.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RegionsQuery {
    /// Words to attach to regions.
    q: String,
    /// What neighbouring words gain on one region (β), 0 to 1,000,000.
    affinity: f32,
}

/// A photo's regions, and how words attach to them
#[utoipa::path(get, path = "/api/v1/regions/{id}", params(("id" = i64, Path), RegionsQuery),
    responses((status = 200, body = RegionsRecord), (status = 400, body = Problem), (status = 404, body = Problem), (status = 503, body = Problem)))]
async fn regions(
    State(app): State<App>,
    id: Result<Path<i64>, PathRejection>,
    query: Result<Query<RegionsQuery>, QueryRejection>,
) -> Result<Json<RegionsRecord>, Refusal> {
    let (Path(id), Query(RegionsQuery { q, affinity })) = (id?, query?);
    if !(0.0..=MOST_AFFINITY).contains(&affinity) {
        return Err(Refusal::usage(format!("affinity {affinity}: expected a number from 0 to {MOST_AFFINITY}")));
    }
    app.work(move |app| app.searcher().regions(id, &q, affinity)).await.map(Json)
}

/// A photo of the index, as its file is
#[utoipa::path(get, path = "/api/v1/photo/{id}", params(("id" = i64, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "image/*"), (status = 404, body = Problem),
        (status = 410, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
async fn photo(
    State(app): State<App>,
    id: Result<Path<i64>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Path(id) = id?;
    let (kind, bytes) = app.work(move |app| read_photo(&app.searcher().file(id)?)).await?;
    Ok(picture_response(kind, bytes, &headers))
}

/// The file as it is where a browser can show it, else a JPEG of it.
fn read_photo(path: &std::path::Path) -> anyhow::Result<(&'static str, Vec<u8>)> {
    let facts = std::fs::metadata(path).map_err(sightline_vision::Error::io("read", path))?;
    if facts.is_file() && facts.len() <= MAX_PHOTO_BYTES {
        let bytes = std::fs::read(path).map_err(sightline_vision::Error::io("read", path))?;
        let kind = match upload::kind_of(&bytes) {
            Some(image::ImageFormat::Jpeg) => Some("image/jpeg"),
            Some(image::ImageFormat::Png) => Some("image/png"),
            Some(image::ImageFormat::WebP) => Some("image/webp"),
            Some(image::ImageFormat::Gif) => Some("image/gif"),
            Some(image::ImageFormat::Bmp) => Some("image/bmp"),
            _ => None,
        };
        if let Some(kind) = kind {
            return Ok((kind, bytes));
        }
    }
    Ok(("image/jpeg", Photo::open(path)?.encode_jpeg(90)?))
}

/// A small JPEG of a photo
#[utoipa::path(get, path = "/api/v1/thumbnail/{id}", params(("id" = i64, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "image/jpeg"), (status = 404, body = Problem),
        (status = 410, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
async fn thumbnail(
    State(app): State<App>,
    id: Result<Path<i64>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Path(id) = id?;
    let bytes = app.work(move |app| app.searcher().thumbnail(id)).await?;
    Ok(picture_response("image/jpeg", bytes, &headers))
}

/// A picture, or that it is the one that the browser has. Another photo may come under its number, of this index or of
/// another one at this address, so the browser asks each time.
fn picture_response(kind: &'static str, bytes: Vec<u8>, request: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", sightline_data::checksum::of_bytes(&bytes));
    let known = request.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => of_type(kind, bytes.into()),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::ETAG, HeaderValue::from_str(&tag).expect("hex digits between quotes"));
    response
}

/// What is to be described.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CaptionQuery {
    /// A photo of the index; not together with a picture that is sent.
    id: Option<i64>,
    /// Most regions to describe too.
    regions: usize,
}

/// Describe a photo of the index, and its regions, in new sentences
#[utoipa::path(get, path = "/api/v1/caption", params(CaptionQuery),
    responses((status = 200, body = serde_json::Value), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 410, body = Problem), (status = 422, body = Problem), (status = 501, body = Problem), (status = 503, body = Problem)))]
async fn caption(
    State(app): State<App>,
    query: Result<Query<CaptionQuery>, QueryRejection>,
) -> Result<Json<Described>, Refusal> {
    let Query(CaptionQuery { id, regions }) = query?;
    let id = id.ok_or_else(|| Refusal::usage("name a photo by id, or POST a picture"))?;
    app.work(move |app| {
        let path = app.searcher().file(id)?;
        app.describe(path.display().to_string(), Photo::open(&path)?, regions)
    })
    .await
    .map(Json)
}

/// Describe a picture that is sent
#[utoipa::path(post, path = "/api/v1/caption", params(CaptionQuery), request_body(content = Vec<u8>, content_type = "image/*"),
    responses((status = 200, body = serde_json::Value), (status = 400, body = Problem), (status = 408, body = Problem),
        (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem),
        (status = 501, body = Problem), (status = 503, body = Problem)))]
async fn caption_picture(
    State(app): State<App>,
    query: Result<Query<CaptionQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Described>, Refusal> {
    let Query(CaptionQuery { id, regions }) = query?;
    if id.is_some() {
        return Err(Refusal::usage("id: the picture that is sent is what is described; GET describes a photo by id"));
    }
    let bytes = picture(&headers, body).await?;
    app.work_on(bytes, move |app, photo| app.describe("picture".to_owned(), photo, regions)).await.map(Json)
}

/// Runs of `train` and records of `eval` in the folder that `serve --runs` names, the paper's rows beside them
#[utoipa::path(get, path = "/api/v1/runs",
    responses((status = 200, body = RunsRecord), (status = 501, body = Problem)))]
async fn runs(State(app): State<App>) -> Result<Json<RunsRecord>, Refusal> {
    let runs = app.runs()?;
    app.work(move |_| Ok(runs.all())).await.map(Json)
}

/// The curves of one run, up to now
#[utoipa::path(get, path = "/api/v1/runs/{name}", params(("name" = String, Path, description = "as `/api/v1/runs` names it")),
    responses((status = 200, body = RunRecord), (status = 404, body = Problem), (status = 501, body = Problem)))]
async fn run(State(app): State<App>, name: Result<Path<String>, PathRejection>) -> Result<Json<RunRecord>, Refusal> {
    let runs = app.runs()?;
    let no_run = || Refusal::new(StatusCode::NOT_FOUND, "no such run; /api/v1/runs names them");
    let Path(name) = name.map_err(|_| no_run())?;
    app.work(move |_| Ok(runs.one(&name))).await?.map(Json).ok_or_else(no_run)
}

impl App {
    fn runs(&self) -> Result<Runs, Refusal> {
        let none = || Refusal::new(StatusCode::NOT_IMPLEMENTED, "this server was started without --runs");
        self.shared.runs.clone().ok_or_else(none)
    }
}

impl App {
    fn describe(&self, image: String, photo: Photo, regions: usize) -> anyhow::Result<Described> {
        let describer = self.shared.describer.as_ref().ok_or(Question::NoDescriber)?.get()?;
        let searcher = self.searcher();
        let extraction = searcher.models().extraction()?;
        let most = MostRegions { captions: regions.min(MOST_REGIONS), ..MostRegions::default() };
        let weight = self.shared.fit;
        let choose = |own: &Seen, captions: &mut Vec<Caption>| {
            let aligner = &*searcher.models().aligner();
            committee::order(&[Judge::of_photo(aligner, &own.vectors_of(aligner))], weight, captions);
        };
        let choose: Option<&Choose<'_>> = if weight > 0.0 { Some(&choose) } else { None };
        let seen = [describer.see(&image, photo, extraction, regions > 0 || choose.is_some())?];
        let most = (regions > 0).then_some(most);
        Ok(describer.describe(std::iter::once(image), &seen, describer.decoding(), most, choose).swap_remove(0))
    }
}

/// What the server can do.
#[derive(Debug, Serialize, ToSchema)]
struct Status {
    version: &'static str,
    /// Photos in the index.
    photos: usize,
    /// The folder that was indexed.
    folder: String,
    /// Whether pictures can be sent and boxes searched by.
    reads_photos: bool,
    /// Whether photos can be described.
    captions: bool,
    /// Whether regions can be described.
    region_captions: bool,
    /// Whether runs are shown.
    runs: bool,
    /// Deviations that a best photo must reach for an answer.
    cut_off: f32,
}

/// What the server can do
#[utoipa::path(get, path = "/api/v1/status", responses((status = 200, body = Status)))]
async fn status(State(app): State<App>) -> Json<Status> {
    let searcher = app.searcher();
    let describer = app.shared.describer.as_ref();
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        photos: searcher.len(),
        folder: searcher.settings().root.display().to_string(),
        reads_photos: searcher.models().reads_photos(),
        captions: describer.is_some(),
        region_captions: describer.is_some_and(LazyDescriber::has_regions),
        runs: app.shared.runs.is_some(),
        cut_off: CUT_OFF,
    })
}

/// A refusal.
#[derive(Debug, Serialize, ToSchema)]
struct Problem {
    /// One line: what, where, what to do.
    error: String,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Sightline", description = "Photos by words, with reasons"),
    paths(search, similar, sentences, regions, photo, thumbnail, caption, caption_picture, runs, run, status),
    components(schemas(Problem))
)]
struct ApiDoc;

/// All routes with their checks; needs no socket.
pub fn routes(app: App) -> Router {
    let mut routes = Router::new()
        .route("/api/v1/search", get(search))
        .route("/api/v1/similar", post(similar))
        .route("/api/v1/sentences", post(sentences))
        .route("/api/v1/runs", get(runs))
        .route("/api/v1/runs/{name}", get(run))
        .route("/api/v1/regions/{id}", get(regions))
        .route("/api/v1/photo/{id}", get(photo))
        .route("/api/v1/thumbnail/{id}", get(thumbnail))
        .route("/api/v1/caption", get(caption).post(caption_picture))
        .route("/api/v1/status", get(status))
        .route("/api/v1", get(|| async { Redirect::permanent("/api") }))
        .route("/api/v1/", get(|| async { Redirect::permanent("/api") }))
        .route("/api/v1/openapi.json", get(|| async { Json(ApiDoc::openapi()) }))
        .route("/health", get(|| async { Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })) }))
        .route(
            "/metrics",
            get(|State(app): State<App>| async move {
                of_type(
                    "text/plain; version=0.0.4; charset=utf-8",
                    app.shared.metrics.text(app.searcher().len()).into(),
                )
            }),
        );
    for (path, kind, bytes) in FILES {
        routes = routes.route(path, get(move || async move { of_type(kind, Bytes::from_static(bytes)) }));
    }
    routes
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "no such page; the API is described in /api") })
        .method_not_allowed_fallback(|| async {
            refusal(StatusCode::METHOD_NOT_ALLOWED, "this address is asked in another way; see /api")
        })
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .layer(middleware::from_fn_with_state(app.clone(), counted))
        .layer(middleware::map_response(|mut response: Response| async move {
            let name = HeaderName::from_static("permissions-policy");
            response.headers_mut().insert(name, HeaderValue::from_static(PERMISSIONS));
            with_security_headers(response, POLICY)
        }))
        .with_state(app)
}

/// Counts requests and their time.
async fn counted(State(app): State<App>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    app.shared.metrics.count(&route, response.status().as_u16(), start.elapsed());
    response
}

/// Lets a request through that comes from here: by this machine's name or with the token, and from no other page.
async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST);
    match &app.shared.token {
        Some(token) => {
            if let Some(given) = token_of_query(request.uri())
                && is_same(given.as_bytes(), token.as_bytes())
            {
                let cookie = format!("sightline={token}; HttpOnly; SameSite=Strict; Path=/");
                let Ok(cookie) = HeaderValue::from_str(&cookie) else {
                    return refusal(StatusCode::INTERNAL_SERVER_ERROR, "the token cannot be a cookie");
                };
                return ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response();
            }
            let given = text(header::AUTHORIZATION)
                .and_then(bearer)
                .or_else(|| text(header::COOKIE)?.split("; ").find_map(|cookie| cookie.strip_prefix("sightline=")));
            if !given.is_some_and(|given| is_same(given.as_bytes(), token.as_bytes())) {
                let message = "this server wants its token: open /?token=…, or send Authorization: Bearer …";
                return refusal(StatusCode::UNAUTHORIZED, message);
            }
        }
        None if host.is_some_and(is_this_machine) => {}
        None => {
            let message = "this server answers to localhost, 127.0.0.1 and [::1] only";
            return refusal(StatusCode::MISDIRECTED_REQUEST, message);
        }
    }
    // Browsers name the page that asks; another page has no business here.
    let from_elsewhere = match text(header::ORIGIN) {
        Some(origin) => {
            host.is_none_or(|host| origin != format!("http://{host}") && origin != format!("https://{host}"))
        }
        None => {
            headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site")
                && headers.get("sec-fetch-mode").is_none_or(|mode| mode != "navigate")
        }
    };
    if from_elsewhere {
        return refusal(StatusCode::FORBIDDEN, "requests of other pages are refused");
    }
    next.run(request).await
}

/// The token of `/?token=…`.
fn token_of_query(uri: &Uri) -> Option<&str> {
    (uri.path() == "/").then(|| uri.query()?.split('&').find_map(|pair| pair.strip_prefix("token=")))?
}

/// The token of `Bearer …`; the scheme's name may be written in any case.
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start())
}

/// Compares in a time that does not tell how much was right.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

/// Serves until Ctrl-C. `on_ready` is told the address; port 0 takes a free one.
///
/// # Errors
/// An address beyond this machine without a token; a port that is taken.
pub fn serve(app: App, host: IpAddr, port: u16, on_ready: impl FnOnce(SocketAddr)) -> anyhow::Result<()> {
    if !host.is_loopback() && app.shared.token.is_none() {
        let message = format!("--host {host} can be reached from other machines; set a --token that they must bring");
        return Err(crate::ui::Usage(message).into());
    }
    super::run(routes(app), SocketAddr::new(host, port), on_ready)
}
