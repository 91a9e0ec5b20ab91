//! The index's routes, without a socket.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use serde_json::Value;
use sightline::index::search::{Searcher, open_models};
use sightline::server::index::{App, routes};
use sightline_model::Device;
use sightline_vision::Photo;
use tower::ServiceExt as _;

use crate::world::World;

struct Server {
    world: World,
    routes: Router,
}

impl Server {
    fn new(token: Option<&str>) -> Self {
        let world = World::new();
        world.index();
        let index = world.path("index");
        let ui = sightline::ui::Ui { json: false, quiet: true };
        let models = open_models(Path::new(&index), None, None, None, true, &Device::flex(), &ui).unwrap();
        let searcher = Searcher::open(Path::new(&index), Arc::new(models)).unwrap();
        let app = App::new(searcher, None, token.map(str::to_owned));
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
    for path in ["search", "similar", "regions/{id}", "photo/{id}", "thumbnail/{id}", "caption", "status"] {
        assert!(document["paths"][format!("/api/v1/{path}")].is_object(), "{path} is not described");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_comes_from_the_program() {
    let server = Server::new(None);
    for (path, kind, part) in [
        ("/", "text/html", "<title>Sightline</title>"),
        ("/assets/app.js", "text/javascript", "/api/v1/"),
        ("/assets/app.css", "text/css", "color-scheme"),
    ] {
        let request = Request::get(path).header(header::HOST, "localhost:8642").body(Body::empty()).unwrap();
        let (status, headers, body) = server.ask(request).await;
        assert_eq!(status, StatusCode::OK);
        assert!(headers[header::CONTENT_TYPE].to_str().unwrap().starts_with(kind));
        assert!(String::from_utf8(body).unwrap().contains(part), "{path}");
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"), "{policy}");
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
        ("/api/v1/regions/99", S::NOT_FOUND, "no photo 99"),
        ("/api/v1/photo/x", S::NOT_FOUND, "whole number"),
        ("/api/v1/thumbnail/99999999999999999999", S::NOT_FOUND, "whole number"),
        ("/api/v1/caption", S::BAD_REQUEST, "by id"),
        ("/api/v1/caption?id=1", S::NOT_IMPLEMENTED, "--caption-model"),
        ("/api/v1/similar", S::METHOD_NOT_ALLOWED, "openapi"),
        ("/nowhere", S::NOT_FOUND, "no such page"),
    ] {
        server.refused(path, status, part).await;
    }
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
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_outside() {
    let server = Server::new(None);
    let steps =
        ["../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%5c", "..%252f", "....//", "%c0%ae%c0%ae/", "..;/", ".%00./"];
    let targets =
        ["etc/passwd", "etc%2fpasswd", "etc/passwd%00.jpg", "proc/self/environ", "etc/passwd%23", "etc/shadow%3f"];
    let mut tried = 0;
    for route in ["/api/v1/photo/", "/api/v1/thumbnail/", "/api/v1/regions/", "/assets/", "/api/v1/", "/"] {
        for step in steps {
            for target in targets {
                for depth in [1, 8] {
                    let path = format!("{route}{}{target}", step.repeat(depth));
                    let request = Request::get(&path).header(header::HOST, "localhost").body(Body::empty()).unwrap();
                    let (status, _, body) = server.ask(request).await;
                    assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
                    assert!(!String::from_utf8_lossy(&body).contains("root:"), "{path}");
                    tried += 1;
                }
            }
        }
    }
    assert!(tried >= 200 * 3, "{tried}");
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
    assert_eq!(ask("/api/v1/status", &[("authorization", "Bearer a-long-token")]).await.0, StatusCode::OK);
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
