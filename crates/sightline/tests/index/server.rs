//! The index's routes, without a socket.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use serde_json::Value;
use sightline::describe::{Beams, LazyDescriber};
use sightline::index::search::{Searcher, open_models};
use sightline::server::index::{App, Options, routes};
use sightline::server::runs::Runs;
use sightline::server::upload::Decoder;
use sightline_model::Device;
use sightline_model::caption::BeamSettings;
use sightline_train::checkpoint::{Checkpoint, Kind};
use sightline_vision::Photo;
use tower::ServiceExt as _;

use crate::world::{MAX_REGIONS, World};

/// What a score of the index's model is worth to the sentences.
const FIT: f32 = 20.0;

struct Server {
    world: World,
    routes: Router,
}

/// Pictures are decoded by the program that was built beside this test.
fn decoder() -> Decoder {
    Decoder { program: env!("CARGO_BIN_EXE_sightline").into(), ..Decoder::default() }
}

impl Server {
    fn new(token: Option<&str>) -> Self {
        Self::with(token, decoder())
    }

    fn with(token: Option<&str>, decoder: Decoder) -> Self {
        Self::over(World::new(), token, decoder, false)
    }

    /// One that describes photos and their regions.
    fn describing() -> Self {
        let world = World::new();
        world.write_captioner("caption.ckpt", Kind::Caption, MAX_REGIONS);
        world.write_captioner("regions.ckpt", Kind::RegionCaption, MAX_REGIONS);
        Self::over(world, None, decoder(), true)
    }

    fn over(world: World, token: Option<&str>, decoder: Decoder, describes: bool) -> Self {
        world.index();
        let index = world.path("index");
        let ui = sightline::ui::Ui { json: false, quiet: true };
        let models = open_models(Path::new(&index), None, None, None, true, &Device::flex(), &ui).unwrap();
        let searcher = Searcher::open(Path::new(&index), Arc::new(models)).unwrap();
        let run = world.folder.path().join("runs/one");
        std::fs::create_dir_all(&run).unwrap();
        std::fs::write(run.join("log.jsonl"), "{\"learning_rate\":0.1,\"loss\":4.5,\"step\":20}\n{\"learn").unwrap();
        let runs = Some(Runs::new(&world.folder.path().join("runs")).unwrap());
        let describer = describes.then(|| {
            let [photos, regions] = ["caption.ckpt", "regions.ckpt"].map(|name| world.folder.path().join(name));
            let beam = BeamSettings { max_words: 5, ..BeamSettings::default() };
            let beams = Beams { photos: beam, regions: beam };
            LazyDescriber::new(&photos, Some(&regions), &searcher.settings().features, beams).unwrap()
        });
        let options = Options { describer, fit: FIT, runs, decoder, token: token.map(str::to_owned) };
        let app = App::new(searcher, options);
        Self { world, routes: routes(app) }
    }

    async fn ask(&self, request: Request<Body>) -> (StatusCode, header::HeaderMap, Vec<u8>) {
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status, parts.headers, to_bytes(body, 1 << 26).await.unwrap().to_vec())
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let request = Request::get(path).header(header::HOST, "localhost").body(Body::empty()).unwrap();
        let (status, _, body) = self.ask(request).await;
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn post(&self, path: &str, kind: &str, body: Vec<u8>) -> (StatusCode, Value) {
        let request = Request::post(path).header(header::HOST, "localhost").header(header::CONTENT_TYPE, kind);
        let (status, _, body) = self.ask(request.body(body.into()).unwrap()).await;
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// A refusal in JSON, of one line.
    async fn refused(&self, path: &str, status: StatusCode, part: &str) {
        let (got, body) = self.get(path).await;
        let message = body["error"].as_str().unwrap_or_else(|| panic!("{path}: {got} {body}")).to_owned();
        assert_eq!(got, status, "{path}: {message}");
        assert!(message.contains(part) && !message.contains('\n'), "{path}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_answers_as_the_command_does() {
    let server = Server::new(None);
    let (status, answer) = server.get("/api/v1/search?q=a%20red%20circle&n=3").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer, server.world.search(&["a red circle", "-n", "3"]));
    let id = answer["hits"][0]["id"].as_i64().unwrap();

    let (_, record) = server.get(&format!("/api/v1/regions/{id}?q=a%20red%20circle&affinity=1000")).await;
    assert_eq!(record["phrases"].as_array().unwrap().len(), 1, "{record}");
    assert_eq!(record["phrases"][0]["text"], "a red circle");
    let (_, record) = server.get(&format!("/api/v1/regions/{id}?q=a%20red%20circle")).await;
    for (word, hit) in record["words"].as_array().unwrap().iter().zip(answer["hits"][0]["words"].as_array().unwrap()) {
        assert_eq!(word, hit);
    }

    let (_, status) = server.get("/api/v1/status").await;
    assert_eq!(
        (&status["photos"], &status["reads_photos"], &status["captions"]),
        (&12.into(), &true.into(), &false.into())
    );
    let (_, health) = server.get("/health").await;
    assert_eq!(health["status"], "ok");

    // The photo is its file, the thumbnail a small JPEG; a picture that is sent finds itself.
    let request = |path: String| Request::get(path).header(header::HOST, "localhost").body(Body::empty()).unwrap();
    let (_, headers, photo) = server.ask(request(format!("/api/v1/photo/{id}"))).await;
    assert_eq!(photo, std::fs::read(answer["hits"][0]["image"].as_str().unwrap()).unwrap());
    assert!(headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("image/"));
    let (_, headers, thumbnail) = server.ask(request(format!("/api/v1/thumbnail/{id}"))).await;
    assert_eq!(headers[header::CONTENT_TYPE], "image/jpeg");
    assert!(Photo::decode(&thumbnail, "thumbnail").unwrap().width <= 256);
    // A browser that has it asks whether it is the same still.
    assert_eq!(headers[header::CACHE_CONTROL], "private, no-cache");
    for (tag, expected) in
        [(headers[header::ETAG].to_str().unwrap(), StatusCode::NOT_MODIFIED), ("\"another\"", StatusCode::OK)]
    {
        let mut again = request(format!("/api/v1/thumbnail/{id}"));
        again.headers_mut().insert(header::IF_NONE_MATCH, tag.parse().unwrap());
        let (status, _, body) = server.ask(again).await;
        assert_eq!((status, body.is_empty()), (expected, expected == StatusCode::NOT_MODIFIED));
    }
    let (status, found) = server.post("/api/v1/similar?all=true", "image/png", photo.clone()).await;
    assert_eq!(status, StatusCode::OK, "{found}");
    assert_eq!(found["hits"][0]["id"], id);
    let (status, found) = server.get(&format!("/api/v1/search?like={id}&all=true&q=red")).await;
    assert_eq!((status, found["hits"].as_array().unwrap().len()), (StatusCode::OK, 12));
    let (status, _) = server.get(&format!("/api/v1/search?like={id}&box=1,1,20,20")).await;
    assert_eq!(status, StatusCode::OK);

    let (_, _, metrics) = server.ask(request("/metrics".to_owned())).await;
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(
        metrics.contains("sightline_request_seconds_count{route=\"/api/v1/search\",status=\"200\"} 3"),
        "{metrics}"
    );
    let (_, document) = server.get("/api/v1/openapi.json").await;
    for path in ["search", "similar", "sentences", "regions/{id}", "photo/{id}", "thumbnail/{id}", "caption", "runs"] {
        assert!(document["paths"][format!("/api/v1/{path}")].is_object(), "{path} is not described");
    }
    // Every record that the document speaks of is in it.
    let text = document.to_string();
    for name in text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document["components"]["schemas"][name].is_object(), "{name} is not described");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_affinity_gathers_all_words() {
    let server = Server::new(None);
    let mut tried = 0;
    for id in 1..=12 {
        let address = format!("/api/v1/regions/{id}?q=a+red+circle+left+of+the+blue+square");
        let largest = server.get(&address).await.1["largest_affinity"].as_f64().unwrap();
        // Where the model puts all of them on one region by itself, nothing is to be gathered.
        for (factor, is_one) in [(1.01, true), (0.99, largest == 0.0)] {
            let (_, record) = server.get(&format!("{address}&affinity={}", factor * largest)).await;
            assert_eq!(record["phrases"].as_array().unwrap().len() == 1, is_one, "{factor} × {largest}: {record}");
        }
        tried += usize::from(largest > 0.0);
    }
    assert!(tried > 0);
    let (_, record) = server.get("/api/v1/regions/1").await;
    assert_eq!((&record["largest_affinity"], &record["phrases"]), (&0.0.into(), &serde_json::json!([])));
}

#[tokio::test(flavor = "multi_thread")]
async fn sentences_are_ranked_for_a_photo() {
    let server = Server::new(None);
    let ask = async |question: Value| {
        let (status, answer) = server.post("/api/v1/sentences", "application/json", question.to_string().into()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    };
    let said = ["a red circle", "zyzzyva", "the blue square left of a red circle", "", "a blue zyzzyva square"];
    let answer = ask(serde_json::json!({ "id": 3, "sentences": said })).await;
    assert_eq!((&answer["ranked"], &answer["left_out"]), (&3.into(), &serde_json::json!([1, 3])));
    let sentences = answer["sentences"].as_array().unwrap();
    let scores: Vec<f64> = sentences.iter().map(|sentence| sentence["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    for sentence in sentences {
        let index = sentence["index"].as_u64().unwrap() as usize;
        assert_eq!(sentence["sentence"], said[index]);
        // The score and the reasons are those of a search for the same words.
        let (_, found) = server.get(&format!("/api/v1/search?all=true&q={}", said[index].replace(' ', "+"))).await;
        let hit = found["hits"].as_array().unwrap().iter().find(|hit| hit["id"] == 3).unwrap().clone();
        let difference = hit["score"].as_f64().unwrap() - sentence["score"].as_f64().unwrap();
        assert!(difference.abs() < 1e-4, "{difference}");
        for (word, own) in hit["words"].as_array().unwrap().iter().zip(sentence["words"].as_array().unwrap()) {
            assert_eq!((&word["word"], &word["region"]), (&own["word"], &own["region"]));
        }
    }
    // The same picture sent has the same best sentence, and one is enough.
    let (_, found) = server.get("/api/v1/search?like=3&all=true").await;
    let path = found["hits"].as_array().unwrap().iter().find(|hit| hit["id"] == 3).unwrap()["image"].clone();
    let picture = base64(&std::fs::read(path.as_str().unwrap()).unwrap());
    let sent = ask(serde_json::json!({ "picture": picture, "sentences": said, "n": 1 })).await;
    assert_eq!(sent["sentences"].as_array().unwrap().len(), 1);
    assert_eq!(sent["sentences"][0]["index"], sentences[0]["index"]);
    assert_eq!(sent["boxes"].as_array().unwrap().len(), answer["boxes"].as_array().unwrap().len());
}

/// Base64 by its definition.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letters = |three: &[u8]| {
        let bits = three.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - three.len()));
        (0..4)
            .map(move |i| if i > three.len() { '=' } else { LETTERS[(bits >> (18 - 6 * i) & 63) as usize].into() })
            .collect::<String>()
    };
    bytes.chunks(3).map(letters).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_sentences_get_one_line_of_json() {
    use StatusCode as S;
    let server = Server::new(None);
    let many = format!("{{\"id\":1,\"sentences\":[{}\"red\"]}}", "\"red\",".repeat(1000));
    let long = format!("{{\"id\":1,\"sentences\":[\"{}\"]}}", "red ".repeat(201));
    let words = format!("{{\"id\":1,\"sentences\":[{}\"red\"]}}", format!("\"{}\",", "red ".repeat(200)).repeat(100));
    let deep = "[".repeat(100_000);
    for (body, status, part) in [
        ("", S::BAD_REQUEST, "not as expected"),
        ("{", S::BAD_REQUEST, "not as expected"),
        ("null", S::BAD_REQUEST, "not as expected"),
        (&deep, S::BAD_REQUEST, "not as expected"),
        ("{\"id\":1}", S::BAD_REQUEST, "sentences"),
        ("{\"id\":1,\"sentences\":\"red\"}", S::BAD_REQUEST, "sentences"),
        ("{\"id\":1,\"sentences\":[1]}", S::BAD_REQUEST, "string"),
        ("{\"id\":1,\"sentences\":[\"\\ud800\"]}", S::BAD_REQUEST, "not as expected"),
        ("{\"id\":1,\"sentences\":[\"red\"],\"colour\":1}", S::BAD_REQUEST, "colour"),
        ("{\"id\":1,\"sentences\":[\"red\"],\"n\":0}", S::BAD_REQUEST, "expected 1 to 100"),
        ("{\"id\":1,\"sentences\":[]}", S::BAD_REQUEST, "nothing is asked"),
        ("{\"id\":1,\"sentences\":[\"\",\" 🐕 \"]}", S::BAD_REQUEST, "nothing is asked"),
        ("{\"id\":1,\"sentences\":[\"zyzzyva\"]}", S::UNPROCESSABLE_ENTITY, "zyzzyva"),
        ("{\"id\":99,\"sentences\":[\"red\"]}", S::NOT_FOUND, "no photo 99"),
        ("{\"sentences\":[\"red\"]}", S::BAD_REQUEST, "one of the two"),
        ("{\"id\":1,\"picture\":\"\",\"sentences\":[\"red\"]}", S::BAD_REQUEST, "one of the two"),
        ("{\"picture\":\"#\",\"sentences\":[\"red\"]}", S::BAD_REQUEST, "base64"),
        ("{\"picture\":\"AAAA\",\"sentences\":[\"red\"]}", S::UNSUPPORTED_MEDIA_TYPE, "not a picture"),
        (&many, S::BAD_REQUEST, "more than 1000"),
        (&long, S::BAD_REQUEST, "201 words"),
        (&words, S::BAD_REQUEST, "20001 words"),
    ] {
        let (got, answer) = server.post("/api/v1/sentences", "application/json", body.into()).await;
        let shown = &body[..body.len().min(80)];
        let message = answer["error"].as_str().unwrap_or_else(|| panic!("{shown}: {got} {answer}"));
        assert_eq!(got, status, "{shown}: {message}");
        assert!(message.contains(part) && !message.contains('\n'), "{shown}: {message}");
    }
    let (got, _) = server.post("/api/v1/sentences", "application/json", vec![b' '; 30 << 20]).await;
    assert_eq!(got, S::PAYLOAD_TOO_LARGE);
    for kind in ["", "text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"] {
        let (got, answer) = server.post("/api/v1/sentences", kind, b"--x\r\nbroken".to_vec()).await;
        assert_eq!((got, answer["error"].is_string()), (S::UNSUPPORTED_MEDIA_TYPE, true), "{kind}");
        let (got, answer) = server.post("/api/v1/caption", kind, b"--x\r\nbroken".to_vec()).await;
        assert_eq!((got, answer["error"].is_string()), (S::UNSUPPORTED_MEDIA_TYPE, true), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_shown_while_they_train() {
    let server = Server::new(None);
    let (status, all) = server.get("/api/v1/runs").await;
    assert_eq!((status, &all["runs"][0]["name"]), (StatusCode::OK, &"one".into()));
    assert_eq!((&all["runs"][0]["step"], &all["runs"][0]["training"]), (&20.into(), &true.into()));
    let (_, run) = server.get("/api/v1/runs/one").await;
    assert_eq!(run["steps"], serde_json::json!([{ "step": 20, "loss": 4.5, "learning_rate": 0.1 }]));
    // The line that was half written is there when it is whole.
    let mut log = std::fs::File::options().append(true).open(server.world.path("runs/one/log.jsonl")).unwrap();
    std::io::Write::write_all(&mut log, b"ing_rate\":0.1,\"loss\":4.0,\"step\":40}\n").unwrap();
    let (_, run) = server.get("/api/v1/runs/one").await;
    assert_eq!((run["steps"].as_array().unwrap().len(), &run["steps"][1]["loss"]), (2, &4.0.into()));
    for name in ["two", "..", "%2e%2e", "..%2fruns%2fone", "one%2f", "%00", "%ff"] {
        server.refused(&format!("/api/v1/runs/{name}"), StatusCode::NOT_FOUND, "no such run").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn photos_and_their_regions_are_described() {
    let server = Server::describing();
    let (_, can) = server.get("/api/v1/status").await;
    assert_eq!((&can["captions"], &can["region_captions"]), (&true.into(), &true.into()));
    let (status, whole) = server.get("/api/v1/caption?id=3").await;
    assert_eq!(status, StatusCode::OK, "{whole}");
    assert_eq!((whole["captions"].as_array().unwrap().len(), &whole["regions"]), (1, &Value::Null));

    // A photo of the index, and the same picture sent: the command's own answer, boxes of that photo among them.
    let path = server.world.photos().into_iter().find(|path| whole["image"] == path.to_str().unwrap()).unwrap();
    let (status, indexed) = server.get("/api/v1/caption?id=3&regions=9").await;
    assert_eq!(status, StatusCode::OK, "{indexed}");
    let picture = std::fs::read(&path).unwrap();
    let (status, sent) = server.post("/api/v1/caption?regions=9", "image/png", picture.clone()).await;
    assert_eq!((status, &sent["image"]), (StatusCode::OK, &"picture".into()), "{sent}");
    let command =
        ["caption", path.to_str().unwrap(), "--regions", "--beam", "7", "--max-words", "5", "--most-regions", "9"];
    let (photos, regions) = (server.world.path("caption.ckpt"), server.world.path("regions.ckpt"));
    let (model, fit) = (server.world.path("model.ckpt"), FIT.to_string());
    let models = ["--model", &photos, "--region-model", &regions, "--fit-model", &model, "--fit", &fit];
    let told = crate::world::json(&[&command[..], &models].concat());
    for answer in [&indexed, &sent] {
        assert_eq!((&answer["captions"], &answer["regions"]), (&told["captions"], &told["regions"]));
        assert_eq!(answer["captions"], whole["captions"]);
    }
    let (_, record) = server.get("/api/v1/regions/3").await;
    let described = sent["regions"].as_array().unwrap();
    assert!(!described.is_empty() && described.len() < record["boxes"].as_array().unwrap().len());
    for region in described {
        assert!(record["boxes"].as_array().unwrap().contains(&region["box"]), "{region}");
        assert!(!region["text"].as_str().unwrap().is_empty() && region["log_probability"].as_f64().unwrap() < 0.0);
    }

    // One region is the surest of them; none is none; what is no picture is no caption.
    let (_, one) = server.post("/api/v1/caption?regions=1", "image/png", picture.clone()).await;
    assert_eq!(one["regions"].as_array().unwrap().as_slice(), &described[..1]);
    let (_, none) = server.post("/api/v1/caption", "image/png", picture).await;
    assert_eq!((&none["captions"], &none["regions"]), (&whole["captions"], &Value::Null));
    let (status, _) = server.post("/api/v1/caption?regions=2", "image/png", b"no picture".to_vec()).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    server.refused("/api/v1/caption?id=99&regions=2", StatusCode::NOT_FOUND, "no photo 99").await;
    server.refused("/api/v1/caption?id=3&regions=-2", StatusCode::BAD_REQUEST, "regions").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caption_models_are_opened_when_a_caption_is_asked_for() {
    let server = Server::describing();
    let model = server.world.path("regions.ckpt");
    let away = server.world.path("away.ckpt");
    std::fs::rename(&model, &away).unwrap();
    assert_eq!(server.get("/api/v1/search?q=red").await.0, StatusCode::OK);
    server.refused("/api/v1/caption?id=3", StatusCode::INTERNAL_SERVER_ERROR, "regions.ckpt").await;
    // Another model in its place is looked at as the first one was.
    server.world.write_captioner("regions.ckpt", Kind::RegionCaption, MAX_REGIONS + 1);
    server.refused("/api/v1/caption?id=3", StatusCode::INTERNAL_SERVER_ERROR, "max_regions is").await;
    std::fs::rename(&away, &model).unwrap();
    assert_eq!(server.get("/api/v1/caption?id=3").await.0, StatusCode::OK);
    // Once opened, the file is not needed.
    std::fs::remove_file(&model).unwrap();
    assert_eq!(server.get("/api/v1/caption?id=3&regions=2").await.0, StatusCode::OK);
}

/// A large picture that is quickly made: its rows are all the same.
fn large_png(side: u32) -> Vec<u8> {
    Photo::uniform(side, side, [200, 30, 30]).encode_png().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decoder_may_die_and_the_server_does_not() {
    let picture = large_png(6000);
    // What it needs is there.
    let server = Server::new(None);
    let (status, answer) = server.post("/api/v1/similar", "image/png", picture.clone()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    // Out of memory: 108 MB of pixels do not fit beside the program itself.
    let scarce = Decoder { megabytes: 24 + file_megabytes(), ..decoder() };
    // Not the program at all; ended at once; killed; silent for ever; talkative for ever.
    let folder = tempfile::tempdir().unwrap();
    let script = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = folder.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Decoder { program: path, patience: Duration::from_secs(1), ..Decoder::default() }
    };
    for (decoder, status, part) in [
        (scarce, 422, "its decoder died"),
        (script("ends", "exit 0"), 422, "its decoder died"),
        (script("killed", "kill -9 $$"), 422, "signal: 9"),
        (script("hangs", "exec sleep 60"), 422, "too long"),
        (script("talks", "exec cat /dev/zero"), 422, ""),
        (script("lies", "printf '\\000\\001\\000\\000\\000\\001\\000\\000\\000xx'"), 422, "its decoder died"),
        (Decoder { program: folder.path().join("absent"), ..Decoder::default() }, 500, "cannot start the decoder"),
    ] {
        let name = decoder.program.display().to_string();
        let server = Server::with(None, decoder);
        let start = Instant::now();
        let (got, answer) = server.post("/api/v1/similar", "image/png", picture.clone()).await;
        let message = answer["error"].as_str().unwrap_or_else(|| panic!("{name}: {got} {answer}"));
        assert_eq!(got.as_u16(), status, "{name}: {message}");
        assert!(message.contains(part) && !message.contains('\n'), "{name}: {message}");
        assert!(start.elapsed() < Duration::from_secs(8), "{name}: {:?}", start.elapsed());
        let (got, _) = server.get("/api/v1/search?q=red").await;
        assert_eq!(got, StatusCode::OK, "{name}");
    }
}

/// Size of the program in megabytes, which is most of the addresses that it takes before it decodes anything.
fn file_megabytes() -> u64 {
    std::fs::metadata(env!("CARGO_BIN_EXE_sightline")).unwrap().len() >> 20
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_refused_at_once() {
    let server = Server::new(None);
    // 60,000 × 60,000 pixels by its header, and one byte of them.
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0".to_vec();
    let crc = |bytes: &[u8]| {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
        })
    };
    png.extend(crc(&png[12..]).to_be_bytes());
    png.extend(b"\0\0\0\x01IDATx");
    png.extend(crc(b"IDATx").to_be_bytes());
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        let (status, answer) = server.post("/api/v1/similar", "image/png", png.clone()).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
        best = best.min(start.elapsed());
    }
    // The best of a few: other programs may have the processor.
    assert!(best < Duration::from_millis(100), "{best:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_at_once_are_asked_to_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("slow");
    std::fs::write(&program, "#!/bin/sh\nexec sleep 60\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let server = Server::with(None, Decoder { program, patience: Duration::from_secs(4), ..Decoder::default() });
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let picture = Photo::uniform(40, 30, [200, 30, 30]).encode_png().unwrap();
    let post = || {
        let request = Request::post("/api/v1/similar").header(header::HOST, "localhost");
        let request = request.header(header::CONTENT_TYPE, "image/png").body(Body::from(picture.clone())).unwrap();
        let routes = server.routes.clone();
        tokio::spawn(async move {
            let response = routes.oneshot(request).await.unwrap();
            (response.status(), response.headers().get(header::RETRY_AFTER).cloned())
        })
    };
    let busy: Vec<_> = (0..workers).map(|_| post()).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Clients that go away while they wait leave their places.
    let gone: Vec<_> = (0..60).map(|_| post()).collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    for own in gone {
        own.abort();
        assert!(own.await.is_err());
    }
    // 64 wait a while for a worker, the rest are sent away at once; all of them get the same answer.
    let start = Instant::now();
    let others: Vec<_> = (0..100).map(|_| post()).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(others.iter().filter(|other| other.is_finished()).count(), 36);
    for other in others {
        let (status, retry) = other.await.unwrap();
        assert_eq!((status, retry.unwrap()), (StatusCode::SERVICE_UNAVAILABLE, "1".parse().unwrap()));
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    // What needs no worker is answered all the same, and afterwards everything is.
    assert_eq!(server.get("/health").await.0, StatusCode::OK);
    for own in busy {
        assert_eq!(own.await.unwrap().0, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(server.get("/api/v1/search?q=red").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_changed_is_answered_from_anew() {
    let server = Server::new(None);
    let searched = async || server.get("/api/v1/search?q=red&all=true").await.1["searched"].as_u64().unwrap();
    assert_eq!(searched().await, 12);
    let before = server.world.photos();
    let new = Photo::uniform(64, 48, [200, 30, 30]).encode_png().unwrap();
    std::fs::write(server.world.path("photos/new.png"), new).unwrap();
    before[..2].iter().for_each(|photo| std::fs::remove_file(photo).unwrap());
    server.world.index();
    let start = Instant::now();
    while searched().await != 11 {
        assert!(start.elapsed() < Duration::from_secs(10), "still the old index");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (_, found) = server.get("/api/v1/search?q=red&all=true").await;
    assert!(found["hits"].as_array().unwrap().iter().any(|hit| hit["image"].as_str().unwrap().ends_with("new.png")));
    // A broken index is no reason to stop answering.
    std::fs::write(server.world.path("index/catalogue.sqlite"), "broken").unwrap();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(searched().await, 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_changed_while_the_server_started_is_answered_from_anew() {
    let world = World::new();
    world.index();
    let index = world.folder.path().join("index");
    let ui = sightline::ui::Ui { json: false, quiet: true };
    let models = open_models(&index, None, None, None, true, &Device::flex(), &ui).unwrap();
    let searcher = Searcher::open(&index, Arc::new(models)).unwrap();
    std::fs::remove_file(&world.photos()[0]).unwrap();
    world.index();
    let server = Server { world, routes: routes(App::new(searcher, Options::default())) };
    let start = Instant::now();
    while server.get("/api/v1/search?q=red").await.1["searched"] != 11 {
        assert!(start.elapsed() < Duration::from_secs(10), "still the old index");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_comes_from_the_program() {
    let server = Server::new(None);
    for (path, kind, part) in [
        ("/", "text/html", "<title>Sightline</title>"),
        ("/assets/app.js", "text/javascript", "/api/v1/"),
        ("/assets/app.css", "text/css", "color-scheme"),
        ("/api", "text/html", "<title>Sightline: the API</title>"),
        ("/assets/api.js", "text/javascript", "openapi.json"),
        ("/assets/dom.js", "text/javascript", "createElement"),
    ] {
        let request = Request::get(path).header(header::HOST, "localhost:8642").body(Body::empty()).unwrap();
        let (status, headers, body) = server.ask(request).await;
        assert_eq!(status, StatusCode::OK);
        assert!(headers[header::CONTENT_TYPE].to_str().unwrap().starts_with(kind));
        assert!(String::from_utf8(body).unwrap().contains(part), "{path}");
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(headers["permissions-policy"], "camera=(self), microphone=(), geolocation=()");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_one_line_of_json() {
    use StatusCode as S;
    let server = Server::new(None);
    let long = format!("/api/v1/search?q={}", "red+".repeat(10_000));
    for (path, status, part) in [
        ("/api/v1/search", S::BAD_REQUEST, "nothing is asked"),
        ("/api/v1/search?q=", S::BAD_REQUEST, "nothing is asked"),
        ("/api/v1/search?q=%F0%9F%90%95", S::BAD_REQUEST, "nothing is asked"),
        ("/api/v1/search?q=%D7%9B%D7%9C%D7%91+zyzzyva", S::UNPROCESSABLE_ENTITY, "zyzzyva"),
        ("/api/v1/search?q=%FF%FE", S::BAD_REQUEST, ""),
        (&long, S::BAD_REQUEST, "10000 words"),
        ("/api/v1/search?q=red&n=0", S::BAD_REQUEST, "expected 1 to 200"),
        ("/api/v1/search?q=red&n=-1", S::BAD_REQUEST, ""),
        ("/api/v1/search?q=red&from=yesterday", S::BAD_REQUEST, "yesterday"),
        ("/api/v1/search?q=red&min_size=big", S::BAD_REQUEST, "800x600"),
        ("/api/v1/search?q=red&colour=blue", S::BAD_REQUEST, "colour"),
        ("/api/v1/search?like=99", S::NOT_FOUND, "no photo 99"),
        ("/api/v1/search?like=1&box=1,2", S::BAD_REQUEST, "box"),
        ("/api/v1/search?like=1&box=900,900,901,901", S::BAD_REQUEST, "outside of the photo"),
        ("/api/v1/regions/1?affinity=-1", S::BAD_REQUEST, "affinity"),
        ("/api/v1/regions/1?affinity=NaN", S::BAD_REQUEST, "affinity"),
        ("/api/v1/regions/1?affinity=1e30", S::BAD_REQUEST, "from 0 to 1000000"),
        ("/api/v1/search?q=red&box=1,1,20,20", S::BAD_REQUEST, "which photo"),
        ("/api/v1/search?like=1&box=20,20,1,1", S::BAD_REQUEST, "less than a pixel"),
        ("/api/v1/search?q=red&folder=nonexist", S::BAD_REQUEST, "nonexist"),
        ("/api/v1/search?q=red&from=2024&until=2023", S::BAD_REQUEST, "from 2024 until 2023"),
        ("/api/v1/regions/99", S::NOT_FOUND, "no photo 99"),
        ("/api/v1/photo/x", S::NOT_FOUND, "whole number"),
        ("/api/v1/thumbnail/99999999999999999999", S::NOT_FOUND, "whole number"),
        ("/api/v1/caption", S::BAD_REQUEST, "by id"),
        ("/api/v1/caption?id=1", S::NOT_IMPLEMENTED, "this server was started without --caption-model"),
        ("/api/v1/similar", S::METHOD_NOT_ALLOWED, "/api"),
        ("/api/v1/sentences", S::METHOD_NOT_ALLOWED, "/api"),
        ("/nowhere", S::NOT_FOUND, "no such page"),
    ] {
        server.refused(path, status, part).await;
    }
    let (_, no_captions) = server.get("/api/v1/caption?id=1").await;
    assert!(!no_captions["error"].as_str().unwrap().contains("cannot be read"), "{no_captions}");
    std::fs::remove_file(server.world.photos()[0].clone()).unwrap();
    let gone = server.world.search(&["red", "--all", "-n", "20"]);
    let first = server.world.photos()[0].parent().unwrap().canonicalize().unwrap();
    let missing =
        gone["hits"].as_array().unwrap().iter().find(|hit| !Path::new(hit["image"].as_str().unwrap()).exists());
    let id = missing.unwrap_or_else(|| panic!("a photo of {first:?} is missing"))["id"].as_i64().unwrap();
    server.refused(&format!("/api/v1/photo/{id}"), S::GONE, "no longer").await;

    let jpeg = Photo::uniform(40, 30, [200, 30, 30]).encode_jpeg(90).unwrap();
    for (kind, body, status) in [
        ("image/jpeg", jpeg.clone(), S::OK),
        ("IMAGE/JPEG", jpeg.clone(), S::OK),
        ("application/octet-stream", jpeg.clone(), S::OK),
        ("image/jpeg", jpeg[..jpeg.len() / 2].to_vec(), S::UNPROCESSABLE_ENTITY),
        ("image/jpeg", b"<svg onload=alert(1)>".to_vec(), S::UNSUPPORTED_MEDIA_TYPE),
        ("image/jpeg", Vec::new(), S::UNSUPPORTED_MEDIA_TYPE),
        ("image/jpeg", vec![0xff; (20 << 20) + 1], S::PAYLOAD_TOO_LARGE),
        ("multipart/form-data; boundary=x", b"--x\r\nbroken".to_vec(), S::UNSUPPORTED_MEDIA_TYPE),
        ("application/json", b"{\"a\":".to_vec(), S::UNSUPPORTED_MEDIA_TYPE),
    ] {
        let (got, answer) = server.post("/api/v1/similar", kind, body).await;
        assert_eq!(got, status, "{kind}: {answer}");
        assert!(status == S::OK || answer["error"].is_string(), "{kind}: {answer}");
    }
    // A picture that is sent, and a photo that is named as well.
    for path in ["/api/v1/similar?like=1", "/api/v1/caption?id=999"] {
        let (got, answer) = server.post(path, "image/jpeg", jpeg.clone()).await;
        assert_eq!(got, S::BAD_REQUEST, "{path}: {answer}");
    }
    let question = b"{\"id\":1,\"sentences\":[\"red\"]}".to_vec();
    let (got, answer) = server.post("/api/v1/sentences", "Application/JSON; Charset=utf-8", question).await;
    assert_eq!(got, S::OK, "{answer}");
    // The document knows the statuses that were seen here.
    let (_, document) = server.get("/api/v1/openapi.json").await;
    for (method, path, statuses) in [
        ("get", "search", "400 404 422 503"),
        ("post", "similar", "400 413 415 422 503"),
        ("get", "regions/{id}", "400 404 503"),
        ("get", "caption", "400 404 410 501 503"),
        ("post", "caption", "400 413 415 422 501 503"),
    ] {
        let responses = &document["paths"][format!("/api/v1/{path}")][method]["responses"];
        for status in statuses.split(' ') {
            assert!(responses[status].is_object(), "{method} {path}: {status}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_outside() {
    let server = Server::new(None);
    let steps =
        ["../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%5c", "..%252f", "....//", "%c0%ae%c0%ae/", "..;/", ".%00./"];
    let targets =
        ["etc/passwd", "etc%2fpasswd", "etc/passwd%00.jpg", "proc/self/environ", "etc/passwd%23", "etc/shadow%3f"];
    let routes = [
        "/api/v1/photo/",
        "/api/v1/thumbnail/",
        "/api/v1/regions/",
        "/api/v1/runs/",
        "/api/v1/",
        "/api/",
        "/assets/",
        "/",
    ];
    for route in routes {
        let mut tried = 0;
        for step in steps {
            for target in targets {
                for depth in [1, 2, 8, 20] {
                    let path = format!("{route}{}{target}", step.repeat(depth));
                    let request = Request::get(&path).header(header::HOST, "localhost").body(Body::empty()).unwrap();
                    let (status, _, body) = server.ask(request).await;
                    assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
                    assert!(!String::from_utf8_lossy(&body).contains("root:"), "{path}");
                    tried += 1;
                }
            }
        }
        assert!(tried >= 200, "{route}: {tried}");
    }
    // As a folder of the index they find nothing.
    for step in steps {
        for target in targets {
            let (status, answer) = server.get(&format!("/api/v1/search?q=red&folder={step}{target}")).await;
            assert!(answer["hits"].as_array().is_none_or(Vec::is_empty), "{step}{target}: {status} {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused() {
    let server = Server::new(None);
    let ask = async |method: Method, headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(method).uri("/api/v1/status");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        server.ask(request.body(Body::empty()).unwrap()).await.0
    };
    let local = ("host", "localhost:8642");
    assert_eq!(ask(Method::GET, &[local]).await, StatusCode::OK);
    assert_eq!(ask(Method::GET, &[]).await, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(ask(Method::GET, &[("host", "evil.example")]).await, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(ask(Method::GET, &[local, ("origin", "http://localhost:8642")]).await, StatusCode::OK);
    assert_eq!(ask(Method::GET, &[local, ("origin", "http://evil.example")]).await, StatusCode::FORBIDDEN);
    assert_eq!(ask(Method::GET, &[local, ("origin", "null")]).await, StatusCode::FORBIDDEN);
    assert_eq!(ask(Method::GET, &[local, ("sec-fetch-site", "cross-site")]).await, StatusCode::FORBIDDEN);

    let server = Server::new(Some("a-long-token"));
    let ask = async |path: &str, headers: &[(&str, &str)]| {
        let mut request = Request::get(path).header(header::HOST, "photos.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (status, headers, _) = server.ask(request.body(Body::empty()).unwrap()).await;
        (status, headers)
    };
    assert_eq!(ask("/api/v1/status", &[]).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(ask("/", &[]).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(ask("/?token=a-long-tokem", &[]).await.0, StatusCode::UNAUTHORIZED);
    for (given, status) in [
        ("Bearer a-long-token", StatusCode::OK),
        ("bearer a-long-token", StatusCode::OK),
        ("Bearer A-long-token", StatusCode::UNAUTHORIZED),
        ("Basic a-long-token", StatusCode::UNAUTHORIZED),
        ("a-long-token", StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(ask("/api/v1/status", &[("authorization", given)]).await.0, status, "{given}");
    }
    let (status, headers) = ask("/?token=a-long-token", &[]).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let cookie = headers[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(ask("/", &[("cookie", cookie)]).await.0, StatusCode::OK);
}

#[test]
fn other_machines_need_a_token() {
    let world = World::new();
    world.index();
    let index = world.path("index");
    crate::world::fails(&["serve", "--index", &index, "--host", "0.0.0.0", "--port", "0"], 2, "--token");
    crate::world::fails(&["serve", "--index", &world.path("absent")], 1, "holds no index");
}

#[test]
fn bad_caption_models_are_refused_at_the_start() {
    let world = World::new();
    world.index();
    let serve = |photos: &str, regions: &str, part: &str| {
        let (index, photos, regions) = (world.path("index"), world.path(photos), world.path(regions));
        let arguments = ["--index", &index, "--port", "0", "--caption-model", &photos, "--region-model", &regions];
        crate::world::fails(&[&["serve"], &arguments[..]].concat(), 1, part);
    };
    world.write_captioner("caption.ckpt", Kind::Caption, MAX_REGIONS);
    world.write_captioner("regions.ckpt", Kind::RegionCaption, MAX_REGIONS);
    world.write_captioner("other.ckpt", Kind::RegionCaption, MAX_REGIONS + 1);
    serve("none.ckpt", "regions.ckpt", "none.ckpt");
    serve("model.ckpt", "regions.ckpt", "expected a caption model of whole photos");
    serve("caption.ckpt", "caption.ckpt", "expected a caption model of regions");
    serve("caption.ckpt", "other.ckpt", "reads other vectors than the index: max_regions is");
    let whole = std::fs::read(world.path("regions.ckpt")).unwrap();
    let mut changed = whole.clone();
    let middle = changed.len() - 100;
    changed[middle] ^= 1;
    std::fs::write(world.path("changed.ckpt"), changed).unwrap();
    std::fs::write(world.path("cut.ckpt"), &whole[..middle]).unwrap();
    for name in ["changed.ckpt", "cut.ckpt"] {
        serve("caption.ckpt", name, "the checksum does not match");
    }
    // Weights that the settings do not ask for.
    let mut checkpoint = Checkpoint::load(Path::new(&world.path("regions.ckpt"))).unwrap();
    checkpoint.header.settings["model"]["hidden"] = 12.into();
    checkpoint.save(Path::new(&world.path("wide.ckpt"))).unwrap();
    serve("caption.ckpt", "wide.ckpt", "train it anew");
}
