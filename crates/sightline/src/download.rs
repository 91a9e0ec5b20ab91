//! One file from the network, by curl: what has arrived stays beside its place until it is whole, the same command goes
//! on from there, and nothing that is not what was expected is kept.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use sightline_data::write;

use crate::ui::Ui;

/// A file, and what is known of it beforehand.
#[derive(Debug, Clone, Copy)]
pub struct Pinned<'a> {
    /// Where it is got.
    pub url: &'a str,
    /// Its size; where it is not known, only the server can say that all is here.
    pub bytes: Option<u64>,
    /// Its SHA-256, in hexadecimal; where it is not known, whoever fetches has another way to check the file.
    pub sha256: Option<&'a str>,
}

const MB: u64 = 1_000_000;
/// What curl says when it finds no way to the server: name, connection, time, TLS.
const UNREACHABLE: [i32; 5] = [5, 6, 7, 28, 35];
/// What curl says when the server gives no parts of files.
const NO_RANGES: i32 = 33;
/// What curl says of an answer of 400 or more.
const FAILED: i32 = 22;

impl Pinned<'_> {
    /// Downloads to `target`, or goes on where an earlier call was stopped.
    ///
    /// Fails where curl is missing, the server cannot be reached or breaks off (what has arrived stays for the next
    /// call), or what arrived is another file (nothing stays).
    pub fn fetch(&self, target: &Path, ui: &Ui) -> anyhow::Result<()> {
        self.fetch_checked(target, |_| Ok(()), ui).map(drop)
    }

    /// The same, for a file in which `check` must find no fault before it is put in its place. Returns its SHA-256.
    pub fn fetch_checked(
        &self,
        target: &Path,
        check: impl FnOnce(&Path) -> anyhow::Result<()>,
        ui: &Ui,
    ) -> anyhow::Result<String> {
        let partial = partial(target);
        let _lock = Self::claim(&partial)?;
        let had = size(&partial);
        let is_whole = match self.bytes {
            Some(bytes) => had >= bytes,
            None => {
                had > 0 && self.sha256.is_some_and(|expected| sha256(&partial).is_ok_and(|found| found == expected))
            }
        };
        if !is_whole {
            if had > 0 {
                let of = self.bytes.map_or_else(String::new, |bytes| format!(" of {}", bytes / MB));
                ui.say(format_args!("{}{of} MB are here from before", had / MB));
            }
            self.download(&partial, ui)?;
        }
        let mut found = sha256(&partial)?;
        let is_other = |found: &str| self.sha256.is_some_and(|expected| expected != found);
        if had > 0 && is_other(&found) {
            // What was here from before may have been of another file.
            empty(&partial)?;
            self.download(&partial, ui)?;
            found = sha256(&partial)?;
        }
        if let Some(expected) = self.sha256.filter(|_| is_other(&found)) {
            remove(&partial)?;
            bail!("{} gave a file with the SHA-256 {found}, expected {expected}; nothing was kept", self.url);
        }
        if let Err(reason) = check(&partial) {
            remove(&partial)?;
            return Err(reason.context(format!("{} gave another file than expected; nothing was kept", self.url)));
        }
        keep(&partial, target)?;
        Ok(found)
    }

    /// The file under way for this process alone, until the value is dropped.
    fn claim(partial: &Path) -> anyhow::Result<File> {
        let context = || format!("cannot write {}", partial.display());
        let file = OpenOptions::new().create(true).append(true).open(partial).with_context(context)?;
        match write::lock(&file) {
            Err(TryLockError::WouldBlock) => bail!("another process downloads {}: wait for it", partial.display()),
            // A file system without locks.
            Err(TryLockError::Error(_)) | Ok(()) => Ok(file),
        }
    }

    fn download(&self, partial: &Path, ui: &Ui) -> anyhow::Result<()> {
        let had = size(partial);
        let output = self.append(partial, ui)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        // As long as the server's file, or longer, and not known to be that: who can tell what it is?
        let is_too_long = output.status.code() == Some(FAILED) && said.contains("416");
        if had > 0 && (output.status.code() == Some(NO_RANGES) || is_too_long) {
            empty(partial)?;
            return self.download(partial, ui);
        }
        let reason = said.lines().last().unwrap_or("curl was stopped").trim().trim_start_matches("curl: ");
        let online = match output.status.code() {
            Some(code) if UNREACHABLE.contains(&code) => "; is this machine online?",
            _ => "",
        };
        let kept = match size(partial) {
            0 => {
                remove(partial)?;
                String::new()
            }
            n => {
                let of = self.bytes.map_or_else(String::new, |bytes| format!(" of {bytes}"));
                format!("; {n}{of} bytes are kept, and the same command goes on from there")
            }
        };
        bail!("cannot download {}: {reason}{online}{kept}", self.url)
    }

    /// Runs curl for what is missing and appends what it prints; should this program end, curl has nobody to print to
    /// and ends too.
    fn append(&self, partial: &Path, ui: &Ui) -> anyhow::Result<Output> {
        ui.say(format_args!("downloading {}", self.url));
        let context = || format!("cannot write {}", partial.display());
        let mut file = OpenOptions::new().create(true).append(true).open(partial).with_context(context)?;
        let mut had = size(partial);
        let spawned = Command::new("curl")
            .args(["--fail", "--location", "--silent", "--show-error", "--continue-at", &had.to_string()])
            .args(["--connect-timeout", "20", "--speed-limit", "1", "--speed-time", "60"])
            .args(["--url", self.url])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut curl = match spawned {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("curl is not installed; install it, or get {} by hand", self.url)
            }
            spawned => spawned.context("cannot run curl")?,
        };
        let mut arriving = curl.stdout.take().context("cannot read from curl")?;
        let bar = self.bytes.map_or_else(|| ui.counter("MB"), |bytes| ui.bar(bytes / MB, "MB"));
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = arriving.read(&mut buffer).context("cannot read from curl")?;
            if read == 0 {
                break;
            }
            file.write_all(&buffer[..read]).with_context(context)?;
            had += read as u64;
            bar.set_position(had / MB);
        }
        bar.finish_and_clear();
        curl.wait_with_output().context("cannot wait for curl")
    }
}

/// Puts a whole file in its place, synced first.
pub fn keep(whole: &Path, target: &Path) -> anyhow::Result<()> {
    let placed = File::open(whole).and_then(|file| file.sync_all()).and_then(|()| std::fs::rename(whole, target));
    placed.with_context(|| format!("cannot write {}", target.display()))
}

/// The SHA-256 of a file, in hexadecimal.
pub fn sha256(path: &Path) -> anyhow::Result<String> {
    let context = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(context)?;
    let mut sum = Sha256::default();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).with_context(context)? {
            0 => return Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => sum.update(&buffer[..read]),
        }
    }
}

/// Where a file grows until it is whole.
fn partial(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    target.with_file_name(name)
}

fn size(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}

fn empty(path: &Path) -> anyhow::Result<()> {
    let emptied = OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(0));
    emptied.with_context(|| format!("cannot write {}", path.display()))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    use super::*;

    const QUIET: Ui = Ui { json: false, quiet: true };

    /// How the server serves.
    #[derive(Clone, Copy, PartialEq)]
    enum Manner {
        /// All that is asked for.
        Whole,
        /// Breaks off in the middle, every time.
        Half,
        /// The whole file, whatever part is asked for.
        WithoutRanges,
        Missing,
    }

    /// A server on this machine, and the offsets it was asked for.
    struct Server {
        url: String,
        asked: Arc<Mutex<Vec<usize>>>,
    }

    impl Server {
        fn new(content: &[u8], manner: Manner) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/file", listener.local_addr().unwrap());
            let asked = Arc::new(Mutex::new(Vec::new()));
            let (content, log) = (content.to_vec(), asked.clone());
            // Ends with the test's process.
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    answer(stream.unwrap(), &content, manner, &log);
                }
            });
            Self { url, asked }
        }

        fn asked(&self) -> Vec<usize> {
            self.asked.lock().unwrap().clone()
        }
    }

    fn answer(mut stream: TcpStream, content: &[u8], manner: Manner, asked: &Mutex<Vec<usize>>) {
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
        let from = if manner == Manner::WithoutRanges { 0 } else { from };
        let n = content.len();
        let (status, body) = match manner {
            Manner::Missing => ("404 Not Found".to_owned(), &[][..]),
            _ if from >= n => ("416 Range Not Satisfiable".to_owned(), &[][..]),
            _ if from > 0 => {
                (format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{n}", n - 1), &content[from..])
            }
            _ => ("200 OK".to_owned(), content),
        };
        let sent = if manner == Manner::Half { &body[..body.len() / 2] } else { body };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        // A client that has seen enough may close first.
        let _ = stream.write_all(&[head.as_bytes(), sent].concat());
    }

    fn has_curl() -> bool {
        let found = Command::new("curl").arg("--version").output().is_ok();
        if !found {
            eprintln!("SKIPPED: there is no curl");
        }
        found
    }

    /// Content, its checksum, a folder for it.
    fn content() -> (Vec<u8>, String, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..300_001u32).flat_map(u32::to_le_bytes).collect();
        let path = folder.path().join("content");
        std::fs::write(&path, &content).unwrap();
        (content, sha256(&path).unwrap(), folder)
    }

    fn files(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name != "content").collect();
        names.sort();
        names
    }

    #[test]
    fn the_checksum_of_a_known_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        // FIPS 180-2, appendix B.1.
        assert_eq!(sha256(&path).unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn goes_on_where_it_was_stopped() {
        if !has_curl() {
            return;
        }
        let (content, sha256, folder) = content();
        let target = folder.path().join("file");
        let pinned = |url| Pinned { url, bytes: Some(content.len() as u64), sha256: Some(&sha256) };
        let half = Server::new(&content, Manner::Half);
        let error = pinned(&half.url).fetch(&target, &QUIET).unwrap_err().to_string();
        let (n, kept) = (content.len(), content.len() / 2);
        assert!(error.contains(&half.url) && error.contains(&format!("{kept} of {n} bytes are kept")), "{error}");
        assert_eq!(files(folder.path()), ["file.partial"]);

        let whole = Server::new(&content, Manner::Whole);
        pinned(&whole.url).fetch(&target, &QUIET).unwrap();
        assert_eq!((half.asked(), whole.asked()), (vec![0], vec![kept]));
        assert!(std::fs::read(&target).unwrap() == content);
        assert_eq!(files(folder.path()), ["file"]);

        // What was whole but not yet in its place needs no server.
        std::fs::rename(&target, folder.path().join("file.partial")).unwrap();
        pinned("http://127.0.0.1:1/").fetch(&target, &QUIET).unwrap();
        assert_eq!(files(folder.path()), ["file"]);
    }

    #[test]
    fn starts_anew_where_the_server_has_no_parts() {
        if !has_curl() {
            return;
        }
        let (content, sha256, folder) = content();
        let target = folder.path().join("file");
        std::fs::write(partial(&target), &content[..1000]).unwrap();
        let server = Server::new(&content, Manner::WithoutRanges);
        let pinned = Pinned { url: &server.url, bytes: Some(content.len() as u64), sha256: Some(&sha256) };
        pinned.fetch(&target, &QUIET).unwrap();
        assert_eq!(server.asked(), [1000, 0]);
        assert!(std::fs::read(&target).unwrap() == content);
    }

    #[test]
    fn what_is_as_long_as_can_be_is_whole_or_begun_anew() {
        if !has_curl() {
            return;
        }
        let (content, sha256, folder) = content();
        let target = folder.path().join("file");
        fn pinned<'a>(url: &'a str, sha256: Option<&'a str>) -> Pinned<'a> {
            Pinned { url, bytes: None, sha256 }
        }
        // Known by its checksum, it needs no server.
        std::fs::write(partial(&target), &content).unwrap();
        pinned("http://127.0.0.1:1/", Some(sha256.as_str())).fetch(&target, &QUIET).unwrap();
        // Another file of the same length, or of a greater one.
        for begun in [content.len(), content.len() + 1] {
            std::fs::write(partial(&target), vec![7; begun]).unwrap();
            let server = Server::new(&content, Manner::Whole);
            pinned(&server.url, Some(&sha256)).fetch(&target, &QUIET).unwrap();
            assert_eq!(server.asked(), [begun, 0]);
            assert!(std::fs::read(&target).unwrap() == content);
        }
        let held = Pinned::claim(&partial(&target)).unwrap();
        let error = pinned("http://127.0.0.1:1/", None).fetch(&target, &QUIET).unwrap_err().to_string();
        assert!(error.contains("another process downloads"), "{error}");
        drop(held);
    }

    #[test]
    fn another_file_is_not_kept() {
        if !has_curl() {
            return;
        }
        let (mut content, sha256, folder) = content();
        let target = folder.path().join("file");
        content[7] ^= 1;
        let server = Server::new(&content, Manner::Whole);
        let pinned = Pinned { url: &server.url, bytes: Some(content.len() as u64), sha256: Some(&sha256) };
        let error = pinned.fetch(&target, &QUIET).unwrap_err().to_string();
        assert!(error.contains(&sha256) && error.contains("nothing was kept"), "{error}");
        assert!(files(folder.path()).is_empty());

        // Nor is what lies here from another file, where the server has less than that.
        std::fs::write(partial(&target), vec![0; content.len() - 1]).unwrap();
        let short = Server::new(&content[..1000], Manner::Whole);
        let error = Pinned { url: &short.url, ..pinned }.fetch(&target, &QUIET).unwrap_err().to_string();
        assert!(error.contains("nothing was kept"), "{error}");
        assert!(files(folder.path()).is_empty());
    }

    #[test]
    fn a_file_of_which_nothing_is_known_is_kept_where_its_check_passes() {
        if !has_curl() {
            return;
        }
        let (content, sha256, folder) = content();
        let target = folder.path().join("file");
        let unknown = |url| Pinned { url, bytes: None, sha256: None };
        let half = Server::new(&content, Manner::Half);
        let error = unknown(&half.url).fetch(&target, &QUIET).unwrap_err().to_string();
        let kept = content.len() / 2;
        assert!(error.contains(&format!("{kept} bytes are kept")), "{error}");

        let whole = Server::new(&content, Manner::Whole);
        let is_whole = |path: &Path| {
            anyhow::ensure!(std::fs::read(path)? == content, "not whole");
            Ok(())
        };
        assert_eq!(unknown(&whole.url).fetch_checked(&target, is_whole, &QUIET).unwrap(), sha256);
        assert_eq!((whole.asked(), files(folder.path())), (vec![kept], vec!["file".to_owned()]));

        // What was whole but not yet in its place is asked for once more, from its end on.
        std::fs::rename(&target, partial(&target)).unwrap();
        unknown(&whole.url).fetch_checked(&target, is_whole, &QUIET).unwrap();
        assert_eq!((whole.asked(), files(folder.path())), (vec![kept, content.len()], vec!["file".to_owned()]));

        std::fs::remove_file(&target).unwrap();
        let error = unknown(&whole.url).fetch_checked(&target, |_| anyhow::bail!("a fault"), &QUIET).unwrap_err();
        let line = crate::ui::one_line(&error);
        assert!(line.contains("nothing was kept") && line.contains("a fault"), "{line}");
        assert!(files(folder.path()).is_empty());
    }

    #[test]
    fn no_server_and_no_file_are_one_line() {
        if !has_curl() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("file");
        let error = |url: &str| {
            let pinned = Pinned { url, bytes: Some(10), sha256: Some("") };
            pinned.fetch(&target, &QUIET).unwrap_err().to_string()
        };
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let offline = error(&format!("http://127.0.0.1:{port}/file"));
        assert!(offline.contains("is this machine online?") && !offline.contains('\n'), "{offline}");
        let missing = error(&Server::new(&[], Manner::Missing).url);
        assert!(missing.contains("404") && !missing.contains("online") && !missing.contains('\n'), "{missing}");
        assert!(files(folder.path()).is_empty());
    }
}
