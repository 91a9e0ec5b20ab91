//! Photos of every kind, and files that are none.

use std::path::{Path, PathBuf};

use image::ImageEncoder;
use proptest::prelude::*;
use sightline_data::BoxXyxy;
use sightline_vision::photo::MAX_PIXELS;
use sightline_vision::{Filter, Photo};

const RED: [u8; 3] = [220, 30, 40];
const GREEN: [u8; 3] = [30, 200, 60];
const BLUE: [u8; 3] = [40, 50, 210];
const GREY: [u8; 3] = [230, 230, 230];

/// Red and green above blue and grey, 48 × 32.
fn quarters() -> Photo {
    let mut pixels = Vec::new();
    for y in 0..32 {
        for x in 0..48 {
            pixels.extend(match (x < 24, y < 16) {
                (true, true) => RED,
                (false, true) => GREEN,
                (true, false) => BLUE,
                (false, false) => GREY,
            });
        }
    }
    Photo::from_rgb(48, 32, pixels)
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn assert_near(got: [u8; 3], expected: [u8; 3], tolerance: u8, what: &str) {
    let near = got.iter().zip(expected).all(|(&g, e)| g.abs_diff(e) <= tolerance);
    assert!(near, "{what}: got {got:?}, expected {expected:?}");
}

fn assert_quarters(photo: &Photo, tolerance: u8, what: &str) {
    assert_eq!((photo.width, photo.height), (48, 32), "{what}");
    for (x, y, expected) in [(4, 4, RED), (40, 4, GREEN), (4, 28, BLUE), (40, 28, GREY)] {
        assert_near(photo.rgb(x, y), expected, tolerance, &format!("{what} at ({x}, {y})"));
    }
}

fn png(width: u32, height: u32, bytes: &[u8], colour: image::ExtendedColorType) -> Vec<u8> {
    let mut file = Vec::new();
    image::codecs::png::PngEncoder::new(&mut file).write_image(bytes, width, height, colour).unwrap();
    file
}

/// 16-bit samples as `PngEncoder` takes them: native order.
fn samples(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

fn error(bytes: &[u8]) -> String {
    let message = Photo::decode(bytes, "album/cat.jpg").unwrap_err().to_string();
    assert!(message.starts_with("album/cat.jpg: ") && !message.contains('\n'), "{message}");
    message
}

#[test]
fn formats_are_known_by_content() {
    let folder = tempfile::tempdir().unwrap();
    let photo = quarters();
    let whole = |format: image::ImageFormat| {
        let mut file = std::io::Cursor::new(Vec::new());
        image::RgbImage::from_raw(48, 32, photo.pixels.clone()).unwrap().write_to(&mut file, format).unwrap();
        file.into_inner()
    };
    use image::ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    for format in [Png, Bmp, Tiff, WebP, Gif, Jpeg] {
        // Every one of them pretends to be a JPEG.
        let path = folder.path().join(format!("{format:?}.jpg"));
        std::fs::write(&path, whole(format)).unwrap();
        assert_quarters(&Photo::open(&path).unwrap(), 3, &format!("{format:?}"));
    }
    let path = folder.path().join("no_name_at_all");
    std::fs::write(&path, whole(Jpeg)).unwrap();
    assert_quarters(&Photo::open(&path).unwrap(), 3, "without an extension");
}

#[test]
fn signed_values_are_the_levels_again() {
    let levels = Photo::from_rgb(16, 16, (0..768).map(|i| (i % 256) as u8).collect());
    let signed = levels.signed();
    assert_eq!((signed[0], signed[255]), (-1.0, 1.0));
    assert_eq!(Photo::from_signed(16, 16, &signed), levels);
}

#[test]
fn our_own_files_are_read_back() {
    let photo = quarters();
    assert_eq!(Photo::decode(&photo.encode_png().unwrap(), "png").unwrap(), photo);
    assert_quarters(&Photo::decode(&photo.encode_jpeg(95).unwrap(), "jpeg").unwrap(), 3, "jpeg");
}

/// A JPEG with an EXIF block that holds nothing but the orientation.
fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0".to_vec();
    exif.extend([0x12, 0x01, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0, 0, 0, 0, 0]);
    let mut file = jpeg[..2].to_vec();
    file.extend([0xFF, 0xE1]);
    file.extend((exif.len() as u16 + 2).to_be_bytes());
    file.extend(exif);
    file.extend(&jpeg[2..]);
    file
}

#[test]
fn all_eight_orientations_come_out_upright() {
    let stored = quarters();
    let jpeg = stored.encode_jpeg(95).unwrap();
    let (w, h) = (stored.width, stored.height);
    for orientation in 1..=8 {
        let photo = Photo::decode(&with_orientation(&jpeg, orientation), "exif").unwrap();
        let expected_size = if orientation < 5 { (w, h) } else { (h, w) };
        assert_eq!((photo.width, photo.height), expected_size, "orientation {orientation}");
        for y in (2..photo.height).step_by(8) {
            for x in (2..photo.width).step_by(8) {
                // EXIF 2.3, tag 0112: which stored side the upright picture's top and left are.
                let (from_x, from_y) = match orientation {
                    1 => (x, y),
                    2 => (w - 1 - x, y),
                    3 => (w - 1 - x, h - 1 - y),
                    4 => (x, h - 1 - y),
                    5 => (y, x),
                    6 => (y, h - 1 - x),
                    7 => (w - 1 - y, h - 1 - x),
                    _ => (w - 1 - y, x),
                };
                let what = format!("orientation {orientation} at ({x}, {y})");
                assert_near(photo.rgb(x, y), stored.rgb(from_x, from_y), 3, &what);
            }
        }
    }
    for nonsense in [0, 9, 255] {
        assert_quarters(&Photo::decode(&with_orientation(&jpeg, nonsense), "exif").unwrap(), 3, "nonsense");
    }
}

#[test]
fn every_kind_of_colour_becomes_rgb() {
    use image::ExtendedColorType::{L8, L16, La8, La16, Rgb16, Rgba8, Rgba16};
    let check = |file: &[u8], expected: &[[u8; 3]], what: &str| {
        let photo = Photo::decode(file, what).unwrap();
        let got: Vec<[u8; 3]> = (0..photo.width).map(|x| photo.rgb(x, 0)).collect();
        assert_eq!(got, expected, "{what}");
    };
    check(&png(3, 1, &[0, 77, 255], L8), &[[0; 3], [77; 3], [255; 3]], "grey");
    check(&png(3, 1, &[0, 255, 100, 0, 0, 51], La8), &[[0; 3], [255; 3], [204; 3]], "grey and alpha");
    check(
        &png(3, 1, &[10, 20, 30, 255, 10, 20, 30, 0, 0, 100, 200, 51], Rgba8),
        &[[10, 20, 30], [255; 3], [204, 224, 244]],
        "alpha over white",
    );
    // Scaled by 1/257 and rounded; cutting the low byte would give 127 and 0.
    check(&png(4, 1, &samples(&[0, 32767, 65535, 200]), L16), &[[0; 3], [127; 3], [255; 3], [1; 3]], "grey, 16 bits");
    check(
        &png(2, 1, &samples(&[65535, 257, 514, 25700, 0, 65535]), Rgb16),
        &[[255, 1, 2], [100, 0, 255]],
        "RGB, 16 bits",
    );
    check(&png(1, 1, &samples(&[0, 13107]), La16), &[[204; 3]], "grey and alpha, 16 bits");
    check(&png(1, 1, &samples(&[0, 25700, 51400, 13107]), Rgba16), &[[204, 224, 244]], "RGBA, 16 bits");
}

#[test]
fn palettes_and_inks_become_rgb() {
    // Written by Pillow 13.0 from the picture of `quarters()`; Pillow reads the four colours back within one step.
    assert_quarters(&Photo::open(fixture("cmyk_adobe.jpg")).unwrap(), 3, "CMYK");
    assert_quarters(&Photo::open(fixture("ycck_adobe.jpg")).unwrap(), 3, "YCCK");
    assert_quarters(&Photo::open(fixture("palette.png")).unwrap(), 0, "palette");
}

#[test]
fn very_wide_photos_are_read_and_too_many_pixels_refused() {
    let wide = Photo::uniform(50_000, 3, RED);
    for file in [wide.encode_jpeg(90).unwrap(), wide.encode_png().unwrap()] {
        let photo = Photo::decode(&file, "wide").unwrap();
        assert_eq!((photo.width, photo.height), (50_000, 3));
        assert_near(photo.rgb(49_999, 2), RED, 3, "last pixel");
        assert_eq!(photo.resize(416, 1, Filter::Bilinear).width, 416);
    }

    // The frame header says 65,535 × 65,535; nothing of that size may be allocated to find out.
    let mut jpeg = quarters().encode_jpeg(90).unwrap();
    let frame = jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xFF);
    let message = error(&jpeg);
    assert!(message.contains("65535 × 65535") && message.contains(&MAX_PIXELS.to_string()), "{message}");

    let mut bmp = b"BM".to_vec();
    for value in [54u32, 0, 54, 40, 60_000, 60_000] {
        bmp.extend(value.to_le_bytes());
    }
    bmp.extend([1, 0, 24, 0]);
    bmp.resize(54, 0);
    let message = error(&bmp);
    assert!(message.contains("60000 × 60000") && message.contains("scale the picture down"), "{message}");
}

#[test]
fn files_that_are_no_photos_say_so() {
    let check = |bytes: &[u8], expected: &str| {
        let message = error(bytes);
        assert!(message.contains(expected), "{message}");
    };
    check(b"", "the file is empty");
    check(b"A dog runs over the grass .", "not a picture");
    check(b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC");
    check(b"\0\0\0\x18ftypmp42\0\0\0\0", "a video");
    check(b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "angle brackets");
    check(b"%PDF-1.7", "a PDF");
    check(&[0xFF, 0xD8, 0xFF], "cut short");

    let folder = tempfile::tempdir().unwrap();
    let message = Photo::open(folder.path().join("absent.jpg")).unwrap_err().to_string();
    assert!(message.starts_with("cannot read ") && message.contains("absent.jpg"), "{message}");
    let message = Photo::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains(&folder.path().display().to_string()) && message.contains("a folder"), "{message}");
}

#[test]
fn cut_photos_are_refused() {
    let photo = quarters();
    let jpeg = photo.encode_jpeg(90).unwrap();
    for length in 0..jpeg.len() {
        let result = Photo::decode(&jpeg[..length], "cut.jpg");
        assert!(result.is_err(), "{length} of {} bytes gave a photo", jpeg.len());
    }
    assert!(error(&jpeg[..jpeg.len() / 2]).contains("cut short"));
    // Phones append films to their JPEGs.
    assert_quarters(&Photo::decode(&[&jpeg[..], b"motion photo"].concat(), "appended").unwrap(), 3, "appended");

    for format in [image::ImageFormat::Png, image::ImageFormat::Gif, image::ImageFormat::Bmp, image::ImageFormat::WebP]
    {
        let mut file = std::io::Cursor::new(Vec::new());
        image::RgbImage::from_raw(48, 32, photo.pixels.clone()).unwrap().write_to(&mut file, format).unwrap();
        let file = file.into_inner();
        let message = error(&file[..file.len() * 2 / 3]);
        assert!(message.contains("copy it again"), "{format:?}: {message}");
        for length in 0..file.len() {
            let _ = Photo::decode(&file[..length], "cut"); // whatever it says, it returns
        }
    }
}

#[test]
fn crops_touch_whole_pixels_and_never_vanish() {
    let photo = quarters();
    let check = |region: [f32; 4], size: (u32, u32), first: [u8; 3]| {
        let crop = photo.crop(&BoxXyxy::from(region));
        assert_eq!((crop.width, crop.height, crop.rgb(0, 0)), (size.0, size.1, first), "{region:?}");
    };
    check([0., 0., 48., 32.], (48, 32), RED);
    check([24., 16., 48., 32.], (24, 16), GREY);
    check([23.5, 15.5, 24.5, 16.5], (2, 2), RED);
    check([-9., -9., 1., 1.], (1, 1), RED);
    check([100., 100., 200., 200.], (1, 1), GREY);
    check([30., 2., 30., 2.], (1, 1), GREEN);
    check([30., 2., 10., 1.], (1, 1), GREEN);
    check([f32::NAN; 4], (1, 1), RED);
    check([f32::NEG_INFINITY, f32::NEG_INFINITY, f32::INFINITY, f32::INFINITY], (48, 32), RED);
}

#[test]
fn resizing_follows_pillow() {
    // Pillow 13.0: Image.fromarray(uint8([[0, 10, 200, 255, 90, 30]])).resize((2, 1) | (9, 1), BILINEAR | BICUBIC)
    let pixels: Vec<u8> = [0u8, 10, 200, 255, 90, 30].iter().flat_map(|&v| [v; 3]).collect();
    let photo = Photo::from_rgb(6, 1, pixels);
    let check = |width: u32, filter: Filter, expected: &[u8]| {
        let small = photo.resize(width, 1, filter);
        let got: Vec<u8> = small.pixels.iter().step_by(3).copied().collect();
        let near = got.len() == expected.len() && got.iter().zip(expected).all(|(g, e)| g.abs_diff(*e) <= 1);
        assert!(near, "{filter:?} to {width}: got {got:?}, expected {expected:?}");
    };
    check(2, Filter::Bilinear, &[86, 130]);
    check(4, Filter::Bilinear, &[4, 143, 194, 53]);
    check(9, Filter::Bilinear, &[0, 5, 42, 168, 228, 227, 118, 60, 30]);
    check(2, Filter::Bicubic, &[88, 134]);
    check(4, Filter::Bicubic, &[0, 146, 208, 43]);
    check(9, Filter::Bicubic, &[0, 0, 33, 174, 250, 239, 114, 49, 26]);
    check(2, Filter::Lanczos3, &[93, 139]);
    check(4, Filter::Lanczos3, &[0, 151, 216, 34]);
    check(9, Filter::Lanczos3, &[4, 0, 33, 168, 255, 237, 120, 39, 29]);
    // (x + 0.5) · 6 / width - 0.5, and the two pixels on either side.
    check(2, Filter::BilinearPoint, &[10, 90]);
    check(9, Filter::BilinearPoint, &[0, 5, 42, 168, 228, 228, 118, 60, 30]);
}

#[test]
fn a_part_is_resized_like_its_crop() {
    let photo = quarters();
    let part = BoxXyxy { x1: 12.0, y1: 8.0, x2: 36.0, y2: 24.0 };
    let direct = photo.crop_and_resize(&part, 6, 4, Filter::Bilinear);
    assert_eq!(direct, photo.crop(&part).resize(6, 4, Filter::Bilinear));
    // A part outside, or thinner than a pixel, still gives a picture.
    for region in [[60., 60., 70., 70.], [3., 3., 3.2, 9.], [0., 0., 1e9, 1e9], [47.5, 31.5, 48., 32.]] {
        let part = photo.crop_and_resize(&BoxXyxy::from(region), 7, 5, Filter::Bicubic);
        assert_eq!((part.width, part.height), (7, 5));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn damaged_files_never_panic(at in 0usize..700, value: u8, which in 0usize..3) {
        let photo = quarters();
        let mut file = match which {
            0 => photo.encode_jpeg(80).unwrap(),
            1 => photo.encode_png().unwrap(),
            _ => std::fs::read(fixture("cmyk_adobe.jpg")).unwrap(),
        };
        let at = at % file.len();
        file[at] = value;
        if let Ok(photo) = Photo::decode(&file, "damaged") {
            prop_assert_eq!(photo.pixels.len(), photo.width as usize * photo.height as usize * 3);
        }
    }

    #[test]
    fn random_crops_lie_inside(x1 in -99f32..99., y1 in -99f32..99., x2 in -99f32..99., y2 in -99f32..99.) {
        let crop = quarters().crop(&BoxXyxy { x1, y1, x2, y2 });
        prop_assert!(crop.width >= 1 && crop.width <= 48 && crop.height >= 1 && crop.height <= 32);
    }
}
