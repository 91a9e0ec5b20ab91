//! A picture in memory: eight-bit RGB, upright, whatever file it came from.
//!
//! The format is read from the content, never from the file's name. EXIF's orientation is applied, grey becomes three
//! equal channels, transparent pixels are laid over white, sixteen bits are scaled to eight, and CMYK JPEGs become RGB
//! by Adobe's inverted convention.

use std::io::Cursor;
use std::path::Path;

use fast_image_resize as fir;
use image::{DynamicImage, ImageDecoder, ImageEncoder, ImageError, ImageFormat, ImageReader};
use sightline_data::BoxXyxy;

use crate::error::{Error, Result};

/// Pictures with more pixels are refused before anything is allocated for them: 50,000 × 6,000.
pub const MAX_PIXELS: u64 = 300_000_000;

/// Files larger than this are refused unread; a JPEG or PNG of [`MAX_PIXELS`] is smaller.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Decoded bytes before they become RGB: [`MAX_PIXELS`] of eight-bit RGBA, or half as many of sixteen bits.
const MAX_DECODED_BYTES: u64 = 4 * MAX_PIXELS;

/// A decoded picture, upright.
#[derive(Clone, PartialEq, Eq)]
pub struct Photo {
    /// Width in pixels, after EXIF's orientation.
    pub width: u32,
    /// Height in pixels, after EXIF's orientation.
    pub height: u32,
    /// Eight-bit RGB, row by row: `[height, width, 3]`.
    pub pixels: Vec<u8>,
}

impl std::fmt::Debug for Photo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Photo({} × {})", self.width, self.height)
    }
}

/// Eight-bit values from -1 (0) to 1 (255).
pub fn signed(levels: &[u8]) -> Vec<f32> {
    levels.iter().map(|&level| f32::from(level) / 127.5 - 1.0).collect()
}

/// How a resize weighs the source pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Two nearest pixels an axis whatever the scale, as OpenCV's `INTER_LINEAR`; aliases when it shrinks.
    BilinearPoint,
    /// A triangle that widens when it shrinks, as Pillow's `BILINEAR` and torchvision's antialiased one.
    Bilinear,
    /// Catmull-Rom (a = -0.5), widened when it shrinks, as Pillow's `BICUBIC`.
    Bicubic,
    /// Lanczos with three lobes, widened when it shrinks.
    Lanczos3,
}

impl Filter {
    fn algorithm(self) -> fir::ResizeAlg {
        match self {
            Self::BilinearPoint => fir::ResizeAlg::Interpolation(fir::FilterType::Bilinear),
            Self::Bilinear => fir::ResizeAlg::Convolution(fir::FilterType::Bilinear),
            Self::Bicubic => fir::ResizeAlg::Convolution(fir::FilterType::CatmullRom),
            Self::Lanczos3 => fir::ResizeAlg::Convolution(fir::FilterType::Lanczos3),
        }
    }
}

impl Photo {
    /// A picture from its pixels, `[height, width, 3]`. Panics where their number does not fit, or is zero.
    pub fn from_rgb(width: u32, height: u32, pixels: Vec<u8>) -> Self {
        let expected = width as usize * height as usize * 3;
        assert!(expected > 0 && pixels.len() == expected, "{width} × {height} × 3 values, got {}", pixels.len());
        Self { width, height, pixels }
    }

    /// The channels' values from -1 (black) to 1, in the order of [`Photo::pixels`].
    pub fn signed(&self) -> Vec<f32> {
        signed(&self.pixels)
    }

    /// The picture of which [`Photo::signed`] gave these values; what lies between two levels is rounded.
    pub fn from_signed(width: u32, height: u32, values: &[f32]) -> Self {
        Self::from_rgb(width, height, values.iter().map(|x| ((x + 1.0) * 127.5).round() as u8).collect())
    }

    /// A picture of one colour.
    pub fn uniform(width: u32, height: u32, rgb: [u8; 3]) -> Self {
        Self::from_rgb(width, height, rgb.repeat(width as usize * height as usize))
    }

    /// Reads and decodes a file.
    ///
    /// Fails, naming the file, where it is absent, a folder, a pipe, empty, cut short, not a picture, of a format that is not
    /// read here, or above [`MAX_PIXELS`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let facts = std::fs::metadata(path).map_err(Error::io("read", path))?;
        let name = path.display().to_string();
        if facts.is_dir() {
            return Err(Error::photo(name, "a folder, not a picture; name the pictures inside it"));
        }
        if !facts.is_file() {
            return Err(Error::photo(name, "a pipe or a device, not a picture"));
        }
        if facts.len() > MAX_FILE_BYTES {
            return Err(Error::photo(
                name,
                format!("{} bytes are more than the {MAX_FILE_BYTES} a picture may have; is it one?", facts.len()),
            ));
        }
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        Self::decode(&bytes, &name)
    }

    /// Decodes a picture from its file's bytes; `name` only appears in errors.
    pub fn decode(bytes: &[u8], name: &str) -> Result<Self> {
        let fail = |message: String| Error::photo(name, message);
        if bytes.is_empty() {
            return Err(fail("the file is empty; copy it again from its source".into()));
        }
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| fail(e.to_string()))?;
        let Some(format) = reader.format() else {
            return Err(fail(format!("not a picture{}", guess_other_format(bytes))));
        };
        if !format.reading_enabled() {
            return Err(fail(format!("{format:?} pictures are not read; convert it to JPEG or PNG")));
        }
        if format == ImageFormat::Jpeg && !jpeg_has_its_end(bytes) {
            return Err(fail(cut_short(format, "its end marker is missing")));
        }
        let explain = |error: ImageError| fail(explain(format, error));

        let mut limits = image::Limits::no_limits();
        limits.max_alloc = Some(2 * MAX_DECODED_BYTES);
        let mut reader = reader;
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(explain)?;
        let (width, height) = decoder.dimensions();
        if width == 0 || height == 0 {
            return Err(fail(format!("the picture is {width} × {height} pixels, so there is nothing to see")));
        }
        let n_pixels = u64::from(width) * u64::from(height);
        if n_pixels > MAX_PIXELS || decoder.total_bytes() > MAX_DECODED_BYTES {
            return Err(fail(format!(
                "{width} × {height} pixels ({} bytes decoded) are more than the {MAX_PIXELS} pixels or \
                 {MAX_DECODED_BYTES} bytes that are read; scale the picture down",
                decoder.total_bytes()
            )));
        }
        // A broken EXIF block is no reason to refuse the pixels.
        let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
        let mut decoded = DynamicImage::from_decoder(decoder).map_err(explain)?;
        decoded.apply_orientation(orientation);
        let (width, height) = (decoded.width(), decoded.height());
        let pixels = if decoded.color().has_alpha() { over_white(&decoded) } else { decoded.into_rgb8().into_raw() };
        Ok(Self::from_rgb(width, height, pixels))
    }

    /// The box of the whole picture.
    pub fn whole(&self) -> BoxXyxy {
        BoxXyxy::whole(self.width, self.height)
    }

    /// The colour at column `x` and row `y`.
    pub fn rgb(&self, x: u32, y: u32) -> [u8; 3] {
        assert!(x < self.width && y < self.height, "({x}, {y}) in {self:?}");
        let at = (y as usize * self.width as usize + x as usize) * 3;
        [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
    }

    /// The whole pixels that a box touches, clipped to the picture; never fewer than one.
    pub fn crop(&self, region: &BoxXyxy) -> Self {
        let clipped = region.clip(self.width, self.height);
        let x1 = (clipped.x1.floor() as u32).min(self.width - 1);
        let y1 = (clipped.y1.floor() as u32).min(self.height - 1);
        let x2 = (clipped.x2.ceil() as u32).clamp(x1 + 1, self.width);
        let y2 = (clipped.y2.ceil() as u32).clamp(y1 + 1, self.height);
        let mut pixels = Vec::with_capacity((x2 - x1) as usize * (y2 - y1) as usize * 3);
        for y in y1..y2 {
            let row = y as usize * self.width as usize;
            pixels.extend_from_slice(&self.pixels[(row + x1 as usize) * 3..(row + x2 as usize) * 3]);
        }
        Self::from_rgb(x2 - x1, y2 - y1, pixels)
    }

    /// The picture at another size, its shape not kept. Panics where a side is zero.
    pub fn resize(&self, width: u32, height: u32, filter: Filter) -> Self {
        if (width, height) == (self.width, self.height) {
            return self.clone();
        }
        self.resize_part(None, width, height, filter)
    }

    /// One box of the picture, clipped, at another size; its borders need not lie on whole pixels.
    ///
    /// A box with less than one pixel inside the picture is taken as [`Self::crop`] takes it.
    pub fn crop_and_resize(&self, region: &BoxXyxy, width: u32, height: u32, filter: Filter) -> Self {
        let clipped = region.clip(self.width, self.height);
        if clipped.width() >= 1.0 && clipped.height() >= 1.0 {
            self.resize_part(Some(clipped), width, height, filter)
        } else {
            self.crop(region).resize(width, height, filter)
        }
    }

    fn resize_part(&self, part: Option<BoxXyxy>, width: u32, height: u32, filter: Filter) -> Self {
        assert!(width > 0 && height > 0, "resize to {width} × {height}");
        let source = fir::images::ImageRef::new(self.width, self.height, &self.pixels, fir::PixelType::U8x3)
            .expect("a photo holds width × height × 3 bytes");
        let mut target = fir::images::Image::new(width, height, fir::PixelType::U8x3);
        let mut options = fir::ResizeOptions::new().resize_alg(filter.algorithm());
        if let Some(part) = part {
            let side = |from: f32, to: f32, limit: u32| {
                let from = f64::from(from);
                (from, (f64::from(to) - from).min(f64::from(limit) - from))
            };
            let (left, part_width) = side(part.x1, part.x2, self.width);
            let (top, part_height) = side(part.y1, part.y2, self.height);
            options = options.crop(left, top, part_width, part_height);
        }
        fir::Resizer::new()
            .resize(&source, &mut target, &options)
            .expect("both pictures are RGB and the part lies inside the source");
        Self::from_rgb(width, height, target.into_vec())
    }

    /// The picture as a JPEG file; `quality` in `1..=100`. Fails above JPEG's 65,535 pixels a side.
    pub fn encode_jpeg(&self, quality: u8) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality.clamp(1, 100))
            .write_image(&self.pixels, self.width, self.height, image::ExtendedColorType::Rgb8)
            .map_err(|e| Error::photo("JPEG", format!("cannot encode {} × {}: {e}", self.width, self.height)))?;
        Ok(bytes)
    }

    /// The picture as a PNG file.
    pub fn encode_png(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        image::codecs::png::PngEncoder::new(&mut bytes)
            .write_image(&self.pixels, self.width, self.height, image::ExtendedColorType::Rgb8)
            .map_err(|e| Error::photo("PNG", format!("cannot encode {} × {}: {e}", self.width, self.height)))?;
        Ok(bytes)
    }
}

/// Lays a picture with transparency over white.
fn over_white(decoded: &DynamicImage) -> Vec<u8> {
    let rgba = decoded.to_rgba8();
    let mut pixels = Vec::with_capacity(rgba.len() / 4 * 3);
    for pixel in rgba.as_raw().chunks_exact(4) {
        let alpha = u32::from(pixel[3]);
        for &colour in &pixel[..3] {
            pixels.push(((u32::from(colour) * alpha + 255 * (255 - alpha) + 127) / 255) as u8);
        }
    }
    pixels
}

fn cut_short(format: ImageFormat, how: &str) -> String {
    format!("this {format:?} picture is cut short ({how}); copy it again from its source")
}

/// One line about why a decoder gave up.
fn explain(format: ImageFormat, error: ImageError) -> String {
    let reason = error.to_string().replace(['\n', '\r'], " ");
    match error {
        ImageError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => cut_short(format, &reason),
        ImageError::Limits(_) => format!("this {format:?} picture needs too much memory ({reason}); scale it down"),
        ImageError::Unsupported(_) => format!("this kind of {format:?} is not read ({reason}); convert it to PNG"),
        _ => format!("broken as a {format:?} picture ({reason}); copy it again from its source"),
    }
}

/// What a file that is no picture known here may be, as the end of an error message.
fn guess_other_format(bytes: &[u8]) -> &'static str {
    let brand = bytes.get(4..12).unwrap_or_default();
    if brand.starts_with(b"ftyphei") || brand.starts_with(b"ftyphev") || brand.starts_with(b"ftypmif1") {
        " that is read here, but HEIC, as phones write it; convert it to JPEG or PNG"
    } else if brand.starts_with(b"ftyp") {
        ", but a video or another container; take a still from it"
    } else if bytes.starts_with(b"%PDF") {
        ", but a PDF; export its pages as JPEG or PNG"
    } else if bytes.starts_with(b"<") || bytes.starts_with(b"\xef\xbb\xbf<") {
        ", but text in angle brackets (SVG, or a web page saved in its place)"
    } else {
        ": its first bytes are those of no format that is read here (JPEG, PNG, WebP, GIF, BMP, TIFF)"
    }
}

/// Whether a JPEG reaches its end marker. The decoder itself fills what is missing with grey and says nothing.
///
/// Walks the segments by their lengths and skips entropy-coded data, in which `FF` only stands before `00`, a restart
/// marker, or the next segment (ITU T.81, annex B). Whatever follows the end marker, as in phones' motion photos, is
/// of no interest.
fn jpeg_has_its_end(bytes: &[u8]) -> bool {
    let mut at = 2; // after the start marker, FF D8
    loop {
        // The next marker; the bytes before it are entropy-coded data or padding.
        while bytes.get(at).is_some_and(|&byte| byte != 0xFF) {
            at += 1;
        }
        while bytes.get(at) == Some(&0xFF) {
            at += 1;
        }
        match bytes.get(at) {
            None => return false,
            Some(0xD9) => return true,
            Some(0x00 | 0x01 | 0xD0..=0xD8) => at += 1,
            Some(_) => {
                let Some(length) = bytes.get(at + 1..at + 3) else { return false };
                at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            }
        }
    }
}
