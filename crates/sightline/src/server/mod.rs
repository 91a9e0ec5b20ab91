//! What Sightline says over HTTP: a report, or an index with its page and API ([`index`]).
//!
//! Bound to the loopback address unless told otherwise. Requests must name this machine as their host, so that no page
//! from elsewhere reads the answers by pointing a name of its own here (DNS rebinding).

pub mod index;
mod metrics;
pub mod runs;
mod stall;
pub mod upload;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::Context;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::report::{self, Report};
use stall::NoStall;

/// Where the page is served when nobody says otherwise.
pub const DEFAULT_PORT: u16 = 8642;

/// How long requests under way may take after Ctrl-C.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

/// How long clients may keep a connection without using it.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Until the head of a request has arrived, the wait for the next request on a kept connection among it.
    head: Duration,
    /// While nothing of an answer is taken.
    answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { head: Duration::from_secs(15), answer: Duration::from_secs(30) }
    }
}

/// Connections at once; more wait in the system's queue.
const MOST_CONNECTIONS: usize = 512;

/// What the server answers with, rendered once. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Page {
    html: Bytes,
    json: Bytes,
}

impl Page {
    /// The page and the record of a report.
    pub fn new(report: &Report) -> anyhow::Result<Self> {
        let json = serde_json::to_vec(report).context("cannot write the report as JSON")?;
        Ok(Self { html: report::render(report).into(), json: json.into() })
    }
}

/// All routes with their checks; needs no socket.
pub fn app(page: Page) -> Router {
    Router::new()
        .route("/", get(|State(page): State<Page>| async { of_type("text/html; charset=utf-8", page.html) }))
        .route("/api/v1/report", get(|State(page): State<Page>| async { of_type("application/json", page.json) }))
        .route("/health", get(|| async { Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })) }))
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "no such page; there are /, /api/v1/report and /health") })
        .method_not_allowed_fallback(|| async {
            refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered")
        })
        .layer(middleware::from_fn(this_machine_only))
        .layer(middleware::map_response(|response| async {
            with_security_headers(response, &report::CONTENT_SECURITY_POLICY)
        }))
        .with_state(page)
}

/// Serves until Ctrl-C. `on_ready` is told the address, for the line that the user reads; port 0 takes a free one.
pub fn serve(page: Page, port: u16, on_ready: impl FnOnce(SocketAddr)) -> anyhow::Result<()> {
    run(app(page), (Ipv4Addr::LOCALHOST, port).into(), on_ready)
}

/// Serves any routes until Ctrl-C.
fn run(routes: Router, address: SocketAddr, on_ready: impl FnOnce(SocketAddr)) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the server")?;
    let ended = runtime.block_on(async {
        let listener = listen(address).await?;
        // Asked once before anybody hears of the server, so that from then on Ctrl-C is its own.
        let mut stop = Box::pin(ctrl_c());
        let stopped = std::future::poll_fn(|context| Poll::Ready(stop.as_mut().poll(context).is_ready())).await;
        on_ready(listener.local_addr().context("cannot tell the server's address")?);
        if !stopped {
            serve_until(routes, listener, Patience::default(), stop).await;
        }
        Ok(())
    });
    // Dropping the runtime would wait for the models' work without end.
    runtime.shutdown_background();
    ended
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let port = address.port();
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!("port {port} is in use by another program; stop that one or choose another with --port")
        }
        std::io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!("port {port} needs more rights than this user has; choose one above 1023 with --port")
        }
        _ => anyhow::Error::new(error).context(format!("cannot listen on {address}")),
    })
}

/// Stops taking requests when `stop` ends, and gives those under way [`LAST_ANSWERS`].
async fn serve_until(routes: Router, listener: TcpListener, patience: Patience, stop: impl Future<Output = ()>) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience.head);
    let connections = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    tokio::pin!(stop);
    loop {
        let next = async {
            let place = room.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = &mut stop => break,
        };
        let Ok((stream, _)) = accepted else {
            // Out of files, say; those that are open end some time.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let stream = TokioIo::new(NoStall::new(stream, patience.answer));
        let connection = connections.watch(http.serve_connection(stream, TowerToHyperService::new(routes.clone())));
        tokio::spawn(async move {
            // An error here is a client that went away, was too slow, or speaks no HTTP: it was answered where it could be.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    // Whoever lingers is left behind.
    let _ = tokio::time::timeout(LAST_ANSWERS, connections.shutdown()).await;
}

async fn ctrl_c() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without the signal the server runs until it is killed.
        std::future::pending::<()>().await;
    }
}

fn of_type(kind: &'static str, body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

fn refusal(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}

/// Refuses requests that came by another name than this machine's.
async fn this_machine_only(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    if host.is_some_and(is_this_machine) {
        next.run(request).await
    } else {
        refusal(StatusCode::MISDIRECTED_REQUEST, "this server answers to localhost, 127.0.0.1 and [::1] only")
    }
}

/// Whether a `Host` header names this machine, with or without a port.
fn is_this_machine(host: &str) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| {
        let Some((head, rest)) = host.split_at_checked(name.len()) else { return false };
        head.eq_ignore_ascii_case(name)
            && (rest.is_empty() || rest.strip_prefix(':').is_some_and(|p| p.parse::<u16>().is_ok()))
    })
}

fn with_security_headers(mut response: Response, policy: &str) -> Response {
    let fixed = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()"),
    ];
    let headers = response.headers_mut();
    for (name, value) in fixed {
        headers.entry(name).or_insert(header::HeaderValue::from_static(value));
    }
    // Frames cannot be forbidden in the page itself, only here.
    let policy = format!("{policy}; frame-ancestors 'none'");
    let policy = policy.parse().expect("hashes and keywords make a header");
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Method;
    use tower::ServiceExt as _;

    use super::*;
    use crate::report::tests::example;

    async fn ask(method: Method, path: &str, host: Option<&str>) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        let request = request.body(Body::empty()).unwrap();
        app(Page::new(&example()).unwrap()).oneshot(request).await.unwrap()
    }

    async fn text(response: Response) -> String {
        String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn the_page_and_its_record_are_served() {
        let response = ask(Method::GET, "/", Some("localhost:8642")).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(text(response).await, report::render(&example()));

        let response = ask(Method::GET, "/api/v1/report", Some("127.0.0.1:8642")).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let read: Report = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(read, example());

        let response = ask(Method::GET, "/health", Some("[::1]:8642")).await;
        let health: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(health["status"], "ok");

        let response = ask(Method::HEAD, "/", Some("localhost")).await;
        assert_eq!((response.status(), text(response).await.len()), (StatusCode::OK, 0));
    }

    #[tokio::test]
    async fn every_answer_carries_the_security_headers() {
        for (method, path, host, status) in [
            (Method::GET, "/", "localhost", StatusCode::OK),
            (Method::GET, "/../etc/passwd", "localhost", StatusCode::NOT_FOUND),
            (Method::POST, "/", "localhost", StatusCode::METHOD_NOT_ALLOWED),
            (Method::GET, "/", "evil.example", StatusCode::MISDIRECTED_REQUEST),
        ] {
            let response = ask(method, path, Some(host)).await;
            assert_eq!(response.status(), status, "{path}");
            let headers = response.headers();
            assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
            assert_eq!(headers[header::X_FRAME_OPTIONS], "DENY");
            let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'") && policy.ends_with("frame-ancestors 'none'"), "{policy}");
            assert!(!policy.contains("unsafe"), "{policy}");
            if status != StatusCode::OK {
                let body = text(response).await;
                assert!(body.starts_with("{\"error\":\""), "{body}");
            }
        }
    }

    #[tokio::test]
    async fn other_hosts_are_refused() {
        for host in [
            None,
            Some("evil.example"),
            Some("localhost.evil.example"),
            Some("127.0.0.1.evil.example:80"),
            Some("localhost:x"),
            Some(""),
        ] {
            let response = ask(Method::GET, "/api/v1/report", host).await;
            assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST, "{host:?}");
            assert!(!text(response).await.contains("photos"));
        }
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8642", "[::1]", "[::1]:8642"] {
            assert_eq!(ask(Method::GET, "/", Some(host)).await.status(), StatusCode::OK, "{host}");
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_one_clear_line() {
        let taken = listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = format!("{:#}", listen((Ipv4Addr::LOCALHOST, port).into()).await.unwrap_err());
        assert_eq!(
            error,
            format!("port {port} is in use by another program; stop that one or choose another with --port")
        );
    }

    #[tokio::test]
    async fn it_stops_when_asked_even_with_a_client_that_lingers() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(address.ip().is_loopback());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let page = Page::new(&example()).unwrap();
        let server = tokio::spawn(serve_until(app(page), listener, Patience::default(), async {
            let _ = stopped.await;
        }));
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // Half a request, then silence.
        let mut lingering = tokio::net::TcpStream::connect(address).await.unwrap();
        lingering.write_all(b"GET / HTTP/1.1\r\nHost: loc").await.unwrap();
        stop.send(()).unwrap();
        let ended = tokio::time::timeout(2 * LAST_ANSWERS, server).await.expect("it stops in time");
        ended.unwrap();
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    }

    /// A server with little patience, for a test.
    async fn impatient(routes: Router) -> SocketAddr {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let patience = Patience { head: Duration::from_millis(300), answer: Duration::from_millis(300) };
        tokio::spawn(serve_until(routes, listener, patience, std::future::pending()));
        address
    }

    #[tokio::test]
    async fn a_client_that_sends_its_head_by_drops_is_cut_off() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let address = impatient(app(Page::new(&example()).unwrap())).await;
        let start = std::time::Instant::now();
        // Some say nothing at all, some a header line at a time that never ends.
        let mut silent = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut reader, mut writer) = tokio::net::TcpStream::connect(address).await.unwrap().into_split();
        let dripping = tokio::spawn(async move {
            writer.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n").await.unwrap();
            while writer.write_all(b"X-a: b\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let mut rest = Vec::new();
        // An end or a reset, either way the connection is gone.
        let _ = silent.read_to_end(&mut rest).await;
        let _ = reader.read_to_end(&mut rest).await;
        dripping.await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        let text = String::from_utf8_lossy(&rest).into_owned();
        assert!(!text.contains("200 OK"), "{text}");
        // Others are served meanwhile and after.
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_of_its_answer_is_cut_off() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        const LENGTH: usize = 64 << 20;
        let address = impatient(Router::new().route("/", get(|| async { vec![b'x'; LENGTH] }))).await;
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), client.read_to_end(&mut answer)).await.expect("it ends");
        assert!(answer.len() < LENGTH, "all {} bytes came", answer.len());
    }
}
