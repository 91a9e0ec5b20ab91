//! Pictures from a browser: how large they may be, what they may be, and how they are decoded: by a child process, which
//! may run out of memory, hang or crash without any harm to the server.

use std::io::{Cursor, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use axum::http::StatusCode;
use image::{ImageFormat, ImageReader};
use sightline_vision::Photo;

/// Longest body of a picture.
pub const MAX_BYTES: usize = 20 << 20;

/// Most pixels of a picture; its size is read before anything is decoded.
pub const MAX_PIXELS: u64 = 50_000_000;

/// A picture that is refused: status and reason.
pub type Refused = (StatusCode, String);

/// First byte of a child's answer: width, height and pixels follow.
const PICTURE: u8 = 0;

/// First byte of a child's answer: status and reason follow.
const REFUSAL: u8 = 1;

/// A program that decodes one picture and ends: `sightline decode-picture`.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// The program.
    pub program: PathBuf,
    /// Megabytes of addresses that it may use, where the system can limit that.
    pub megabytes: u64,
    /// Longest time that it may take.
    pub patience: Duration,
}

impl Default for Decoder {
    /// This program itself, in the file that it was started from.
    fn default() -> Self {
        // Linux's link leads to the running program even after its file was replaced.
        let own = PathBuf::from("/proc/self/exe");
        let program = if own.exists() { own } else { std::env::current_exe().unwrap_or_else(|_| "sightline".into()) };
        Self { program, megabytes: 1024, patience: Duration::from_secs(10) }
    }
}

impl Decoder {
    /// Decodes a picture in a child process. Blocks until it has ended, by itself or by force.
    pub fn decode(&self, bytes: &[u8]) -> Result<Photo, Refused> {
        // What is no picture at all needs no child.
        kind_of(bytes).ok_or_else(no_picture)?;
        let broken = |what: &str| (StatusCode::UNPROCESSABLE_ENTITY, format!("the picture cannot be decoded: {what}"));
        let mut child = Command::new(&self.program)
            .args(["decode-picture", "--megabytes", &self.megabytes.to_string()])
            .args(["--seconds", &self.patience.as_secs().max(1).to_string()])
            // Memory that the allocator reserves before `main` would lie outside the child's limit.
            .env("MIMALLOC_ARENA_RESERVE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot start the decoder: {error}")))?;
        let (Some(mut to_child), Some(from_child)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both ends are piped");
        };
        let child = Mutex::new(child);
        let kill = || {
            // Fails only where it has ended by itself.
            let _ = child.lock().unwrap_or_else(PoisonError::into_inner).kill();
        };
        let (finished, waits) = mpsc::channel::<()>();
        let mut answer = Vec::new();
        let (read, in_time) = std::thread::scope(|scope| {
            scope.spawn(move || {
                // A child that ended early says why in its answer, or not at all.
                let _ = to_child.write_all(bytes);
            });
            let (kill, patience) = (&kill, self.patience);
            let watch = scope.spawn(move || {
                let in_time = waits.recv_timeout(patience) != Err(mpsc::RecvTimeoutError::Timeout);
                if !in_time {
                    kill();
                }
                in_time
            });
            let read = from_child.take(9 + 3 * MAX_PIXELS).read_to_end(&mut answer);
            drop(finished);
            let in_time = watch.join().unwrap_or(true);
            // Whatever it still wants to say is too much; and a child that closed its output may linger.
            kill();
            (read, in_time)
        });
        let ended = child.into_inner().unwrap_or_else(PoisonError::into_inner).wait();
        if !in_time {
            return Err(broken("it takes too long"));
        }
        match parse(answer) {
            Some(outcome) if read.is_ok() => outcome,
            _ => Err(broken(&match ended {
                Ok(status) => format!("its decoder died ({status})"),
                Err(error) => format!("its decoder was lost ({error})"),
            })),
        }
    }
}

/// What a child said, if it said all of it.
fn parse(mut answer: Vec<u8>) -> Option<Result<Photo, Refused>> {
    match *answer.first()? {
        PICTURE => {
            let side = |at: usize| Some(u32::from_le_bytes(answer.get(at..at + 4)?.try_into().ok()?));
            let (width, height) = (side(1)?, side(5)?);
            answer.drain(..9);
            let is_whole = !answer.is_empty() && answer.len() as u128 == 3 * u128::from(width) * u128::from(height);
            is_whole.then(|| Ok(Photo::from_rgb(width, height, answer)))
        }
        REFUSAL => {
            let status = StatusCode::from_u16(u16::from_le_bytes(answer.get(1..3)?.try_into().ok()?)).ok()?;
            Some(Err((status, String::from_utf8_lossy(&answer[3..]).into_owned())))
        }
        _ => None,
    }
}

/// The child's part: reads a picture, decodes it, says what came of it.
pub fn decode_between(from: impl Read, mut to: impl Write) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    from.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    match decode(&bytes) {
        Ok(photo) => {
            to.write_all(&[PICTURE])?;
            to.write_all(&photo.width.to_le_bytes())?;
            to.write_all(&photo.height.to_le_bytes())?;
            to.write_all(&photo.pixels)?;
        }
        Err((status, reason)) => {
            to.write_all(&[REFUSAL])?;
            to.write_all(&status.as_u16().to_le_bytes())?;
            to.write_all(reason.as_bytes())?;
        }
    }
    to.flush()
}

/// The kind of picture that these first bytes begin, if it is one that is read here.
pub(super) fn kind_of(bytes: &[u8]) -> Option<ImageFormat> {
    let format = image::guess_format(bytes).ok()?;
    let is_read =
        [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff];
    is_read.contains(&format).then_some(format)
}

fn no_picture() -> Refused {
    let message = "not a picture: its first bytes are none of JPEG's, PNG's, WebP's, GIF's, BMP's or TIFF's";
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, message.to_owned())
}

/// Decodes a picture after a look at its first bytes and its size.
fn decode(bytes: &[u8]) -> Result<Photo, Refused> {
    let format = kind_of(bytes).ok_or_else(no_picture)?;
    let broken = |reason: String| (StatusCode::UNPROCESSABLE_ENTITY, reason);
    let (width, height) = ImageReader::with_format(Cursor::new(bytes), format)
        .into_dimensions()
        .map_err(|error| broken(format!("broken as a {format:?} picture: {error}").replace('\n', " ")))?;
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        let message = format!("{width} × {height} pixels are more than the {MAX_PIXELS} that are read");
        return Err((StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    Photo::decode(bytes, "the picture").map_err(|error| broken(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_read_and_others_refused() {
        let photo = Photo::uniform(7, 5, [1, 2, 3]);
        for bytes in [photo.encode_png().unwrap(), photo.encode_jpeg(90).unwrap()] {
            assert_eq!(decode(&bytes).unwrap().width, 7);
            assert_eq!(decode(&bytes[..bytes.len() / 2]).unwrap_err().0, StatusCode::UNPROCESSABLE_ENTITY);
        }
        for bytes in [&b""[..], b"<svg/>", b"%PDF-1.7", b"\x00\x00\x00\x18ftypheic"] {
            assert_eq!(decode(bytes).unwrap_err().0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
    }

    #[test]
    fn a_bomb_is_refused_by_its_size_alone() {
        // A PNG whose header promises 60,000 × 60,000 pixels, with nothing behind it.
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0".to_vec();
        png.extend(crc(&png[12..]).to_be_bytes());
        png.extend(b"\0\0\0\0IDAT");
        png.extend(crc(b"IDAT").to_be_bytes());
        let start = std::time::Instant::now();
        let (status, message) = decode(&png).unwrap_err();
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{message}");
        assert!(start.elapsed().as_millis() < 100);
    }

    #[test]
    fn a_child_says_everything_or_nothing() {
        let photo = Photo::uniform(7, 5, [1, 2, 3]);
        let say = |bytes: &[u8]| {
            let mut answer = Vec::new();
            decode_between(bytes, &mut answer).unwrap();
            answer
        };
        let answer = say(&photo.encode_png().unwrap());
        assert_eq!(parse(answer.clone()), Some(Ok(photo)));
        for cut in 0..answer.len() {
            assert_eq!(parse(answer[..cut].to_vec()), None, "cut at {cut}");
        }
        assert_eq!(parse([answer, vec![0]].concat()), None);
        let refused = parse(say(b"<svg/>")).unwrap().unwrap_err();
        assert_eq!(refused, decode(b"<svg/>").unwrap_err());
        assert_eq!(parse(b"sightline: a line of an error".to_vec()), None);
        assert_eq!(parse(vec![PICTURE, 255, 255, 255, 255, 255, 255, 255, 255, 1, 1, 1]), None);
    }

    /// CRC-32 of PNG, bit by bit.
    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
        })
    }
}
