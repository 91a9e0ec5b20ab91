//! Pictures from a browser: how large they may be, what they may be, and how they are decoded.

use std::io::Cursor;

use axum::http::StatusCode;
use image::{ImageFormat, ImageReader};
use sightline_vision::Photo;

/// Longest body of a picture.
pub(super) const MAX_BYTES: usize = 20 << 20;

/// Most pixels of a picture; its size is read before anything is decoded.
pub(super) const MAX_PIXELS: u64 = 50_000_000;

/// A picture that is refused: status and reason.
pub(super) type Refused = (StatusCode, String);

/// The kind of picture that these first bytes begin, if it is one that is read here.
pub(super) fn kind_of(bytes: &[u8]) -> Option<ImageFormat> {
    let format = image::guess_format(bytes).ok()?;
    let is_read =
        [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff];
    is_read.contains(&format).then_some(format)
}

/// Decodes a picture after a look at its first bytes and its size.
pub(super) fn decode(bytes: &[u8]) -> Result<Photo, Refused> {
    let Some(format) = kind_of(bytes) else {
        let message = "not a picture: its first bytes are none of JPEG's, PNG's, WebP's, GIF's, BMP's or TIFF's";
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, message.to_owned()));
    };
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

    /// CRC-32 of PNG, bit by bit.
    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
        })
    }
}
