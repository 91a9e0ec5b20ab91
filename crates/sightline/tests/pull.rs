//! `sightline pull` against a server on this machine: whole, stopped, wrong, absent, and used by name.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sightline::demo::scenes;

/// How the server serves.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// All that is asked for.
    Whole,
    /// The first half, and then nothing, the connection open.
    Stuck,
}

/// A server on this machine, and the offsets it was asked for.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<usize>>>,
}

impl Server {
    fn new(content: &[u8], manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/model.safetensors", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (content, log) = (content.to_vec(), asked.clone());
        // Ends with the test's process.
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                open.push(answer(stream.unwrap(), &content, manner, &log));
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<usize> {
        self.asked.lock().unwrap().clone()
    }
}

/// Answers one request; a connection that is returned stays open.
fn answer(mut stream: TcpStream, content: &[u8], manner: Manner, asked: &Mutex<Vec<usize>>) -> Option<TcpStream> {
    let mut from = 0;
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let line = line.unwrap().to_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    asked.lock().unwrap().push(from);
    let (n, rest) = (content.len(), content.get(from..).unwrap_or_default());
    let status = match from {
        0 => "200 OK".to_owned(),
        _ if rest.is_empty() => "416 Range Not Satisfiable".to_owned(),
        _ => format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{n}", n - 1),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", rest.len());
    let sent = if manner == Manner::Stuck { &rest[..rest.len() / 2] } else { rest };
    // A client that has seen enough may close first.
    let _ = stream.write_all(&[head.as_bytes(), sent].concat());
    (manner == Manner::Stuck).then_some(stream)
}

/// A vision transformer with timm's names, `dim` wide and `depth` deep, for patches of 4 × 4 on 8 × 8 pixels.
fn network(dim: usize, depth: usize) -> Vec<u8> {
    let mut tensors: Vec<(String, Vec<usize>)> = vec![
        ("cls_token".into(), vec![1, 1, dim]),
        ("pos_embed".into(), vec![1, 5, dim]),
        ("patch_embed.proj.weight".into(), vec![dim, 3, 4, 4]),
        ("patch_embed.proj.bias".into(), vec![dim]),
    ];
    let mut layer = |name: String, outputs: usize, inputs: usize| {
        let shape = if inputs == 0 { vec![outputs] } else { vec![outputs, inputs] };
        tensors.extend([(format!("{name}.weight"), shape), (format!("{name}.bias"), vec![outputs])]);
    };
    for block in (0..depth).map(|block| format!("blocks.{block}")) {
        layer(format!("{block}.norm1"), dim, 0);
        layer(format!("{block}.attn.qkv"), 3 * dim, dim);
        layer(format!("{block}.attn.proj"), dim, dim);
        layer(format!("{block}.norm2"), dim, 0);
        layer(format!("{block}.mlp.fc1"), 2 * dim, dim);
        layer(format!("{block}.mlp.fc2"), dim, 2 * dim);
    }
    layer("norm".into(), dim, 0);
    let (mut header, mut values) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in tensors {
        let start = values.len();
        for i in 0..shape.iter().product::<usize>() {
            values.extend((((i * 37 + start) % 101) as f32 / 500.0 - 0.1).to_le_bytes());
        }
        let record = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, values.len()]});
        header.insert(name, record);
    }
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, &values].concat()
}

/// A user of this machine with a data folder, and a table of one backbone.
struct User {
    folder: tempfile::TempDir,
}

impl User {
    /// `facts` are the lines of the table that say what is known beforehand.
    fn new(url: &str, facts: &str) -> Self {
        let user = Self { folder: tempfile::tempdir().unwrap() };
        user.table(url, facts);
        user
    }

    fn table(&self, url: &str, facts: &str) {
        let text = format!(
            "[[backbone]]\nname = \"tiny\"\nabout = \"small\"\nurl = \"{url}\"\nlicence = \"MIT\"\n\
             dim = 64\ndepth = 2\npatch = 4\n{facts}\n"
        );
        std::fs::write(self.path("table.toml"), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn kept(&self) -> PathBuf {
        self.path("data/backbones/tiny.safetensors")
    }

    /// All files in the folder of backbones.
    fn files(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path("data/backbones")) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sightline"));
        command.args(arguments).env("SIGHTLINE_DATA", self.path("data")).current_dir(self.folder.path());
        command
    }

    fn pull(&self, more: &[&str]) -> Output {
        self.command(&[&["pull", "tiny", "--table", "table.toml", "--json"], more].concat()).output().unwrap()
    }

    fn pulls(&self, more: &[&str]) -> serde_json::Value {
        let output = self.pull(more);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A refusal of one line that holds all of `parts`.
    fn fails(&self, more: &[&str], parts: &[&str]) {
        one_line(&self.pull(&[more, &["--quiet"]].concat()), 1, parts);
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn one_line(output: &Output, code: i32, parts: &[&str]) {
    let message = stderr(output);
    assert_eq!((output.status.code(), message.lines().count()), (Some(code), 1), "{message}");
    assert!(output.stdout.is_empty(), "a result beside {message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
}

fn sha256(content: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    sightline::download::sha256(file.path()).unwrap()
}

fn has_curl() -> bool {
    let found = Command::new("curl").arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: there is no curl");
    }
    found
}

/// An address where nobody listens: its port was free a moment ago.
fn nowhere() -> String {
    format!("http://{}/model.safetensors", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

/// Ends a process of this test.
fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_pulled_backbone_is_used_by_its_name() {
    if !has_curl() {
        return;
    }
    let content = network(64, 2);
    let server = Server::new(&content, Manner::Whole);
    let sum = sha256(&content);
    let user = User::new(&server.url, &format!("bytes = {}\nsha256 = \"{sum}\"", content.len()));
    let list = ["pull", "--table", "table.toml", "--json"];
    let listed = || serde_json::from_slice::<serde_json::Value>(&user.command(&list).output().unwrap().stdout).unwrap();
    assert_eq!((&listed()[0]["name"], &listed()[0]["path"]), (&"tiny".into(), &serde_json::Value::Null));

    let record = user.pulls(&[]);
    assert_eq!((&record["sha256"], &record["known"], &record["fetched"]), (&sum.into(), &true.into(), &true.into()));
    assert_eq!(Path::new(record["path"].as_str().unwrap()), user.kept());
    assert!(std::fs::read(user.kept()).unwrap() == content);
    assert_eq!(listed()[0]["path"], record["path"]);

    // It is there now: no server is asked again, and a changed file is named and left alone.
    user.table(&nowhere(), &format!("sha256 = \"{}\"", sha256(&content)));
    assert_eq!(user.pulls(&[])["fetched"], false);
    assert_eq!((server.asked(), user.files()), (vec![0], vec!["tiny.safetensors".to_owned()]));

    let scenes = scenes::generate(5, 2);
    scenes::write_pictures(&scenes, &user.path("photos")).unwrap();
    let features = ["features", "photos", "-o", "f", "--json", "--max-regions", "2", "--backbone"];
    let output = user.command(&[&features[..], &["tiny"]].concat()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&made["settings"]["dim"], &made["settings"]["backbone"]), (&64.into(), &"tiny".into()));

    let mut changed = content.clone();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(user.kept(), &changed).unwrap();
    user.fails(&[], &["tiny.safetensors", &sha256(&content), &sha256(&changed), "remove it"]);
    assert!(std::fs::read(user.kept()).unwrap() == changed);

    // A backbone of the table that is not here is told apart from words that name nothing.
    let quiet = |name: &'static str| user.command(&[&features[..], &[name, "--quiet"]].concat()).output().unwrap();
    one_line(&quiet("vit-small"), 2, &["--backbone vit-small", "sightline pull vit-small"]);
    one_line(&quiet("vit-nothing"), 2, &["--backbone vit-nothing", ".safetensors"]);
}

#[test]
fn a_killed_download_goes_on() {
    if !has_curl() {
        return;
    }
    let content = network(64, 2);
    let stuck = Server::new(&content, Manner::Stuck);
    let user = User::new(&stuck.url, &format!("bytes = {}\nsha256 = \"{}\"", content.len(), sha256(&content)));
    let arguments = ["pull", "tiny", "--table", "table.toml", "--quiet"];
    let child = user.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let partial = user.path("data/backbones/tiny.safetensors.partial");
    // What lies in the buffers on the way is lost with the process.
    let here = || partial.metadata().map_or(0, |facts| facts.len() as usize);
    wait_for("a part of the file", || here() > content.len() / 4);
    kill(child);
    let had = here();
    assert!(had <= content.len() / 2);
    assert_eq!(user.files(), ["tiny.safetensors.partial"]);

    let whole = Server::new(&content, Manner::Whole);
    user.pulls(&["--url", &whole.url]);
    assert_eq!((whole.asked(), user.files()), (vec![had], vec!["tiny.safetensors".to_owned()]));
    assert!(std::fs::read(user.kept()).unwrap() == content);
}

#[test]
fn what_was_not_expected_is_not_kept() {
    if !has_curl() {
        return;
    }
    let content = network(64, 2);
    let server = Server::new(&content, Manner::Whole);
    let wrong = "0".repeat(64);
    let user = User::new(&server.url, &format!("sha256 = \"{wrong}\""));
    user.fails(&[], &[&server.url, &wrong, &sha256(&content), "nothing was kept"]);
    assert!(user.files().is_empty(), "{:?}", user.files());

    // Without a checksum the file must be the network that the table speaks of.
    user.table(&server.url, "");
    for (other, part) in [
        (network(128, 2), "2 blocks of width 128"),
        (network(64, 3), "3 blocks of width 64"),
        (content[..content.len() - 4].to_vec(), "safetensors"),
        (b"<html>Sign in</html>".to_vec(), "safetensors"),
    ] {
        let server = Server::new(&other, Manner::Whole);
        user.fails(&["--url", &server.url], &[&server.url, part, "nothing was kept"]);
        assert!(user.files().is_empty(), "{part}: {:?}", user.files());
    }
}

#[test]
fn a_first_download_is_trusted_and_the_next_must_equal_it() {
    if !has_curl() {
        return;
    }
    let content = network(64, 2);
    let server = Server::new(&content, Manner::Whole);
    let user = User::new(&server.url, "");
    let output = user.pull(&[]);
    assert!(output.status.success() && stderr(&output).contains("is trusted"), "{}", stderr(&output));
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&record["known"], &record["sha256"]), (&false.into(), &sha256(&content).into()));
    let recorded = std::fs::read_to_string(user.path("data/backbones/tiny.safetensors.sha256")).unwrap();
    assert_eq!(recorded, format!("{}  tiny.safetensors\n", sha256(&content)));
    assert_eq!(user.pulls(&[])["known"], true);

    // Another network of the same sizes is not what was trusted.
    let mut other = content.clone();
    *other.last_mut().unwrap() ^= 1;
    std::fs::remove_file(user.kept()).unwrap();
    let changed = Server::new(&other, Manner::Whole);
    let parts = [&sha256(&content)[..], &sha256(&other), "nothing was kept", "tiny.safetensors.sha256"];
    user.fails(&["--url", &changed.url], &parts);
    assert_eq!(user.files(), ["tiny.safetensors.sha256"]);
    user.pulls(&[]);
    assert_eq!(server.asked(), [0, 0]);

    std::fs::write(user.path("data/backbones/tiny.safetensors.sha256"), "nonsense").unwrap();
    user.fails(&[], &["tiny.safetensors.sha256", "no SHA-256"]);
}

#[test]
fn mistakes_and_absent_servers_are_one_line() {
    let user = User::new(&nowhere(), "");
    let quiet = |arguments: &[&str]| user.command(&[arguments, &["--quiet"]].concat()).output().unwrap();
    one_line(&quiet(&["pull", "vit-huge"]), 2, &["vit-huge", "vit-small", "dinov2-small", "clip-b32"]);
    one_line(&quiet(&["pull", "tiny", "--table", "none.toml"]), 1, &["none.toml"]);
    one_line(&quiet(&["pull", "tiny", "--table", "table.toml", "-o", "file"]), 2, &["-o file", ".safetensors"]);
    std::fs::write(user.path("bad.toml"), "[[backbone]]\nname = 3").unwrap();
    one_line(&quiet(&["pull", "tiny", "--table", "bad.toml"]), 1, &["bad.toml"]);
    let mut homeless = user.command(&["pull", "tiny", "--table", "table.toml", "--quiet"]);
    for name in ["SIGHTLINE_DATA", "XDG_DATA_HOME", "LOCALAPPDATA", "HOME"] {
        homeless.env_remove(name);
    }
    one_line(&homeless.output().unwrap(), 1, &["name a file with -o"]);
    if has_curl() {
        user.fails(&[], &["is this machine online?"]);
        user.fails(&["-o", "own.safetensors"], &["is this machine online?"]);
        assert!(user.files().is_empty());
    }
    let output = user.command(&["pull"]).output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    let line = listed.lines().find(|line| line.starts_with("vit-small ")).unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains("88  Apache-2.0    no  ViT-S/16"), "{listed}");
}
