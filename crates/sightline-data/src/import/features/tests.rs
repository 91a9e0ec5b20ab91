use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use half::f16;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::super::tests::shared;
use super::*;
use crate::{FeatureStore, Image};

/// An `.npy` as NumPy writes it.
fn npy(descr: &str, fortran: bool, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let shape: Vec<String> = shape.iter().map(|n| format!("{n},")).collect();
    let order = if fortran { "True" } else { "False" };
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({}), }}", shape.join(" ")).into_bytes();
    while !(header.len() + 11).is_multiple_of(64) {
        header.push(b' ');
    }
    header.push(b'\n');
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header);
    bytes.extend(data);
    bytes
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn npy_f32(shape: &[usize], values: &[f32]) -> Vec<u8> {
    npy("<f4", false, shape, &f32s(values))
}

fn npz(method: CompressionMethod, arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in arrays {
        let options = SimpleFileOptions::default().compression_method(method);
        archive.start_file(format!("{name}.npy"), options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// An element of a MAT file, by the byte order of its numbers.
fn element(kind: u32, data: &[u8], to_bytes: fn(u32) -> [u8; 4]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !data.is_empty() && data.len() <= 4 {
        bytes.extend(to_bytes((data.len() as u32) << 16 | kind));
        bytes.extend(data);
        bytes.resize(8, 0);
        return bytes;
    }
    bytes.extend(to_bytes(kind));
    bytes.extend(to_bytes(data.len() as u32));
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// A MAT file with one matrix; `class` 6 is double, 7 single; `kind` the type its numbers are stored as.
fn mat(class: u32, shape: [u32; 2], name: &str, kind: u32, data: &[u8], big_endian: bool, packed: bool) -> Vec<u8> {
    let to_bytes = if big_endian { u32::to_be_bytes } else { u32::to_le_bytes };
    let mut inner = element(6, &[to_bytes(class), to_bytes(0)].concat(), to_bytes);
    inner.extend(element(5, &shape.map(to_bytes).concat(), to_bytes));
    inner.extend(element(1, name.as_bytes(), to_bytes));
    inner.extend(element(kind, data, to_bytes));
    let matrix = element(14, &inner, to_bytes);
    let mut bytes = format!("{:124}", "MATLAB 5.0 MAT-file, by a test").into_bytes();
    bytes.extend(if big_endian { *b"\x01\0MI" } else { *b"\0\x01IM" });
    if packed {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&matrix).unwrap();
        let packed = encoder.finish().unwrap();
        bytes.extend(to_bytes(15));
        bytes.extend(to_bytes(packed.len() as u32));
        bytes.extend(packed);
    } else {
        bytes.extend(matrix);
    }
    bytes
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self, name: &str, options: &FeatureImportOptions, dataset: Option<&Dataset>) -> Result<FeatureImport> {
        open(&[self.path(name)], options, dataset)
    }

    /// Opens, writes, and reads the store back.
    fn import(&self, name: &str, dataset: Option<&Dataset>) -> (Vec<PhotoFeatures>, FeaturesImported, StoreSettings) {
        let opened = self.open(name, &defaults(), dataset).unwrap();
        let output = self.path("store");
        let imported = opened.write(&output, &|_| None, |_| {}).unwrap();
        let store = FeatureStore::open(&output).unwrap();
        let photos = store.iter().map(|photo| photo.to_features()).collect();
        let settings = store.settings().clone();
        std::fs::remove_file(output).unwrap();
        (photos, imported, settings)
    }
}

fn defaults() -> FeatureImportOptions {
    FeatureImportOptions::default()
}

fn dataset(paths: &[(&str, Split)]) -> Dataset {
    let image = |(id, &(path, split)): (usize, &(&str, Split))| Image {
        id: id as u64,
        path: path.to_owned(),
        split,
        ..Image::default()
    };
    Dataset { images: paths.iter().enumerate().map(image).collect(), ..Dataset::default() }
}

fn check_error(result: Result<FeatureImport>, expected: &[&str]) {
    let error = result.map(|_| ()).expect_err(&format!("{expected:?}")).to_string();
    for part in expected {
        assert!(error.contains(part), "expected {part:?} in: {error}");
    }
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn neuraltalks_vectors() {
    let Some(source) = shared("data/neuraltalk_example/vgg_feats.mat") else { return };
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("store");
    for source in [source.clone(), source.parent().unwrap().to_owned()] {
        let opened = open(&[source], &defaults(), None).unwrap();
        assert_eq!((opened.len(), opened.settings().dim, opened.settings().max_regions), (16, 4096, 1));
        let mut steps = Vec::new();
        let imported = opened.write(&output, &|_| Some((640, 480)), |done| steps.push(done)).unwrap();
        assert_eq!((imported.photos, steps.len(), imported.problems.is_empty()), (16, 16, true));
    }
    let store = FeatureStore::open(&output).unwrap();
    assert_eq!(store.keys().next(), Some("7EGRMwN.jpg"));
    // As zlib and struct of Python's standard library read the file: feats(1, 1), feats(2, 1), feats(8, 1), feats(2, 16)
    // and the number of values that are not zero in columns 1 and 16.
    let check = |key: &str, expected: &[(usize, f32)], nonzero: usize| {
        let photo = store.find(key).unwrap();
        let vector = photo.vectors();
        for &(at, value) in expected {
            assert!((vector[at] - value).abs() < 2e-3 * value, "{key} {at}: {} {value}", vector[at]);
        }
        assert_eq!((photo.width, photo.height, photo.n_regions()), (640, 480, 1));
        assert_eq!(photo.boxes().next(), Some(BoxXyxy::whole(640, 480)));
        // Values below the least of f16 vanish: none to a few.
        let found = vector.iter().filter(|&&v| v != 0.0).count();
        found <= nonzero && found + 5 > nonzero
    };
    assert!(check("7EGRMwN.jpg", &[(0, 4.743_388), (1, 1.880_894_2), (7, 0.355_489_94)], 1092));
    assert!(check("qjujW6d.png", &[(1, 1.274_950_1), (8, 1.875_051_9)], 1622));
}

#[test]
fn matlab_files_of_every_kind() {
    // Two photos of three values; a column is a photo.
    let values = [1.0, 2.0, 3.0, 4.0, 5.0, 250.0];
    for big_endian in [false, true] {
        for packed in [false, true] {
            let bytes = |little: fn(f64) -> Vec<u8>, big: fn(f64) -> Vec<u8>| -> Vec<u8> {
                values.iter().flat_map(|&v| if big_endian { big(v) } else { little(v) }).collect()
            };
            let cases = [
                (6, 9, bytes(|v| v.to_le_bytes().into(), |v| v.to_be_bytes().into())),
                (7, 7, bytes(|v| (v as f32).to_le_bytes().into(), |v| (v as f32).to_be_bytes().into())),
                // Whole numbers of a double matrix, stored as bytes and as shorts.
                (6, 2, bytes(|v| vec![v as u8], |v| vec![v as u8])),
                (6, 3, bytes(|v| (v as i16).to_le_bytes().into(), |v| (v as i16).to_be_bytes().into())),
            ];
            for (class, kind, data) in cases {
                let file = mat(class, [3, 2], "f", kind, &data, big_endian, packed);
                let folder = Folder::with(&[("v.mat", &file), ("tasks.txt", b"a.jpg\nb.jpg\n")]);
                let (photos, ..) = folder.import("v.mat", None);
                assert_eq!(photos[0].vectors, [1.0, 2.0, 3.0], "{class} {kind} {big_endian} {packed}");
                assert_eq!((photos[1].key.as_str(), &photos[1].vectors[..]), ("b.jpg", &[4.0, 5.0, 250.0][..]));
            }
        }
    }
    // Four columns are no boxes.
    let file = mat(7, [1, 4], "a_long_name", 7, &f32s(&[1., 2., 3., 4.]), false, true);
    let folder = Folder::with(&[("v.mat", &file), ("tasks.txt", b"a\nb\nc\nd\n")]);
    assert_eq!(folder.import("v.mat", None).0[2].vectors, [3.0]);
    // One row a photo, where the list says so; the dataset's order, where there is no list.
    let file = mat(7, [3, 2], "f", 7, &f32s(&[1., 3., 5., 2., 4., 6.]), false, true);
    let folder = Folder::with(&[("v.mat", &file), ("tasks.txt", b"a\nb\nc\n")]);
    assert_eq!(folder.import("v.mat", None).0[1].vectors, [3.0, 4.0]);
    let folder = Folder::with(&[("v.mat", &file)]);
    let two = dataset(&[("x.jpg", Split::Train), ("y.jpg", Split::Val)]);
    assert_eq!(folder.import("v.mat", Some(&two)).0[1].vectors, [2.0, 4.0, 6.0]);
}

#[test]
fn broken_matlab_files_are_errors() {
    let whole = |packed| mat(7, [3, 2], "feats", 7, &f32s(&[1., 2., 3., 4., 5., 6.]), false, packed);
    let names = FeatureImportOptions::default();
    let check = |content: &[u8], expected: &[&str]| {
        let folder = Folder::with(&[("v.mat", content), ("tasks.txt", b"a\nb\n")]);
        check_error(folder.open("v.mat", &names, None), expected);
    };
    for packed in [false, true] {
        let whole = whole(packed);
        for length in 0..whole.len() {
            let folder = Folder::with(&[("v.mat", &whole[..length]), ("tasks.txt", b"a\nb\n")]);
            check_error(folder.open("v.mat", &names, None), &["v.mat"]);
        }
        // Whatever byte is changed: an error or some numbers, never a panic.
        for at in 0..whole.len() {
            for flip in [1, 0x80] {
                let mut changed = whole.clone();
                changed[at] ^= flip;
                let folder = Folder::with(&[("v.mat", &changed), ("tasks.txt", b"a\nb\n")]);
                if let Ok(opened) = folder.open("v.mat", &names, None) {
                    (0..opened.len()).for_each(|i| drop(opened.photo(i, &|_| None)));
                }
            }
        }
    }
    check(b"MATLAB 7.3 MAT-file", &["7.3", "-v7"]);
    check(&[0; 200], &["not a MAT file of level 5"]);
    check(&mat(7, [4_000_000_000, 4_000_000_000], "f", 7, &[0; 24], false, false), &["more bytes than any file has"]);
    check(&mat(7, [30, 2], "f", 7, &[0; 24], false, true), &["expected 240 bytes", "got 24"]);
    check(&mat(4, [3, 2], "text", 4, &[0; 12], false, true), &["found no vectors"]);
}

#[test]
fn numpy_arrays_of_every_type_and_order() {
    // [2, 3, 2] in C order, and the same array in Fortran's.
    let c = [1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12.];
    let mut fortran = Vec::new();
    for k in 0..2 {
        for j in 0..3 {
            for i in 0..2 {
                fortran.push(c[i * 6 + j * 2 + k]);
            }
        }
    }
    let check = |descr: &str, encode: fn(f64) -> Vec<u8>| {
        for is_fortran in [false, true] {
            let values = if is_fortran { fortran.as_slice() } else { &c };
            let data: Vec<u8> = values.iter().flat_map(|&v| encode(v)).collect();
            let file = npy(descr, is_fortran, &[2, 3, 2], &data);
            let folder = Folder::with(&[("v.npy", &file), ("v.txt", b"a\nb\n")]);
            let (photos, _, settings) = folder.import("v.npy", None);
            assert_eq!(settings.extra["whole_image"], "mean of the regions");
            assert_eq!((settings.dim, settings.max_regions), (2, 4));
            assert_eq!(photos[0].vectors, [3., 4., 1., 2., 3., 4., 5., 6.], "{descr} {is_fortran}");
            assert_eq!(photos[1].vectors, [9., 10., 7., 8., 9., 10., 11., 12.], "{descr} {is_fortran}");
        }
    };
    check("<f2", |v| f16::from_f64(v).to_le_bytes().into());
    check(">f2", |v| f16::from_f64(v).to_be_bytes().into());
    check("<f4", |v| (v as f32).to_le_bytes().into());
    check(">f4", |v| (v as f32).to_be_bytes().into());
    check("<f8", |v| v.to_le_bytes().into());
    check(">f8", |v| v.to_be_bytes().into());
}

#[test]
fn any_changed_byte_of_an_array_is_an_error_or_numbers() {
    let file = npy_f32(&[2, 3, 2], &[1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12.]);
    for at in 0..file.len() {
        for flip in [1, 4, 0x10, 0x80] {
            let mut changed = file.clone();
            changed[at] ^= flip;
            let folder = Folder::with(&[("v.npy", &changed), ("v.txt", b"a\nb\n")]);
            match folder.open("v.npy", &defaults(), None) {
                Ok(opened) => (0..opened.len()).for_each(|i| assert!(!opened.photo(i, &|_| None).vectors.is_empty())),
                Err(error) => assert!(error.to_string().contains("v.npy"), "{error}"),
            }
        }
    }
}

#[test]
fn whole_photos_come_in_rows() {
    let folder = Folder::with(&[("v.npy", &npy_f32(&[2, 3], &[1., 2., 3., 4., 5., 6.])), ("v.txt", b"a.jpg\nb.jpg\n")]);
    let (photos, _, settings) = folder.import("v.npy", None);
    assert_eq!(settings.extra["whole_image"], "the vector of the whole photo");
    assert_eq!(settings.vectors, VectorMode::Imported);
    assert!(settings.extra["sources"].starts_with("v.npy "));
    assert_eq!((photos[1].vectors.as_slice(), photos[1].boxes.len()), (&[4., 5., 6.][..], 1));
}

#[test]
fn other_names_for_the_same_rows_are_no_store_to_go_on_with() {
    let folder = Folder::with(&[("v.npy", &npy_f32(&[2, 3], &[1., 2., 3., 4., 5., 6.])), ("v.txt", b"a.jpg\nb.jpg\n")]);
    let output = folder.path("store");
    let import = || folder.open("v.npy", &defaults(), None).unwrap().write(&output, &|_| None, |_| {});
    import().unwrap();
    let before = std::fs::read(&output).unwrap();
    assert_eq!(import().unwrap().photos, 2);
    std::fs::write(folder.path("v.txt"), b"b.jpg\na.jpg\n").unwrap();
    let error = import().unwrap_err().to_string();
    assert!(error.contains("for other photos"), "{error}");
    assert_eq!(std::fs::read(&output).unwrap(), before);
}

#[test]
fn scans_rows_repeated_once_a_sentence() {
    let photo = |p: f32| [p, 1.0, p, 2.0];
    let repeated: Vec<f32> = [1., 2., 3.].into_iter().flat_map(|p| [photo(p); 5].concat()).collect();
    let once: Vec<f32> = [7., 8.].into_iter().flat_map(photo).collect();
    let folder = Folder::with(&[
        ("dev_ims.npy", &npy_f32(&[15, 2, 2], &repeated)),
        ("dev_ids.txt", b"0\n1\n2\n"),
        ("train_ims.npy", &npy_f32(&[2, 2, 2], &once)),
    ]);
    let dataset = dataset(&[
        ("d.jpg", Split::Val),
        ("t.jpg", Split::Train),
        ("e.jpg", Split::Val),
        ("f.jpg", Split::Val),
        ("u.jpg", Split::Train),
        ("alone.jpg", Split::Test),
    ]);
    let (photos, imported, _) = folder.import("", Some(&dataset));
    let first = |key: &str| photos.iter().find(|photo| photo.key == key).unwrap().vectors[2];
    assert_eq!(["d.jpg", "e.jpg", "f.jpg", "t.jpg", "u.jpg"].map(first), [1., 2., 3., 7., 8.]);
    assert_eq!(
        photos.iter().map(|p| p.key.as_str()).collect::<Vec<_>>(),
        ["d.jpg", "t.jpg", "e.jpg", "f.jpg", "u.jpg"]
    );
    assert_eq!(imported.problems.count(ProblemKind::PhotoWithoutVectors), 1);
    let text = imported.explanation.join("\n");
    for part in [
        "15 rows for 3 photos, each repeated 5 times",
        "dev_ids.txt names no photo of the dataset",
        "the photos of val in the dataset's order",
        "every region has the whole photo's",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }

    // Names repeated, rows not; and one row a sentence in any order.
    let folder = Folder::with(&[
        ("v.npy", &npy_f32(&[2, 2], &[1., 2., 3., 4.])),
        ("twice.txt", b"a\na\nb\nb\n"),
        ("odd.txt", b"a\nb\na\nb\n"),
        ("w.npy", &npy_f32(&[4, 2], &[1., 2., 3., 4., 1., 2., 3., 4.])),
    ]);
    let names = |list: &str| FeatureImportOptions { names: Some(folder.path(list)), ..defaults() };
    assert_eq!(folder.open("v.npy", &names("twice.txt"), None).unwrap().len(), 2);
    check_error(folder.open("v.npy", &names("odd.txt"), None), &["not repeated 2 times"]);
    let opened = folder.open("w.npy", &names("odd.txt"), None).unwrap();
    assert!(opened.explanation().iter().any(|line| line.contains("2 of 4 rows repeat a photo")));
    assert_eq!(opened.photo(1, &|_| None).vectors, [3., 4.]);
    check_error(folder.open("w.npy", &names("twice.txt"), None), &["rows 0 and 1 both belong to `a` but differ"]);
}

#[test]
fn boxes_sizes_and_names_from_an_archive() {
    let vectors = npy_f32(&[2, 3, 2], &[1., 1., 3., 3., 0., 0., 1., 2., 3., 4., 5., 6.]);
    let boxes = npy_f32(
        &[2, 3, 4],
        &[0., 0., 10., 10., 5., 5., 20., 30., 0., 0., 0., 0., 0., 0., 9., 9., 1., 1., 2., 2., 3., 3., 4., 4.],
    );
    let sizes = npy("<i8", false, &[2, 2], &[100i64, 50, 10, 9].map(i64::to_le_bytes).concat());
    let name = |text: &str| -> Vec<u8> {
        let mut bytes: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        bytes.resize(24, 0);
        bytes
    };
    let keys = npy("<U6", false, &[2], &[name("ä.jpg"), name("2")].concat());
    let objects = npy("|O", false, &[2], b"\x80\x03]q\0.");
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let arrays = [
            ("features", vectors.clone()),
            ("bbox", boxes.clone()),
            ("sizes", sizes.clone()),
            ("keys", keys.clone()),
            ("info", objects.clone()),
        ];
        let file = npz(method, &arrays);
        let folder = Folder::with(&[("v.npz", &file)]);
        let (photos, _, settings) = folder.import("v.npz", None);
        assert!(!settings.extra.contains_key("boxes"));
        // The last region of the first photo is filling.
        assert_eq!(photos[0].vectors, [2., 2., 1., 1., 3., 3.]);
        assert_eq!((photos[0].key.as_str(), photos[0].width, photos[0].height), ("ä.jpg", 100, 50));
        assert_eq!(photos[0].boxes, [[0., 0., 100., 50.], [0., 0., 10., 10.], [5., 5., 20., 30.]].map(BoxXyxy::from));
        assert_eq!((photos[1].key.as_str(), photos[1].boxes.len()), ("2", 4));
        let coco = dataset(&[("val2014/COCO_val2014_000000000002.jpg", Split::Val), ("x/ä.jpg", Split::Val)]);
        let keys: Vec<String> = folder.import("v.npz", Some(&coco)).0.into_iter().map(|photo| photo.key).collect();
        assert_eq!(keys, ["val2014/COCO_val2014_000000000002.jpg", "x/ä.jpg"]);

        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 0x10;
            let folder = Folder::with(&[("v.npz", &changed)]);
            if let Ok(opened) = folder.open("v.npz", &defaults(), None) {
                (0..opened.len()).for_each(|i| drop(opened.photo(i, &|_| None)));
            }
            if at % 7 == 0 {
                let folder = Folder::with(&[("v.npz", &file[..at])]);
                check_error(folder.open("v.npz", &defaults(), None), &["v.npz"]);
            }
        }
    }
}

#[test]
fn boxes_beside_and_in_fractions() {
    let vectors = npy("<f2", false, &[2, 2, 1], &[1., 2., 3., 4.].map(|v| f16::from_f32(v).to_le_bytes()).concat());
    let boxes = npy_f32(&[2, 2, 4], &[0., 0., 1., 1., 0.5, 0.25, 1., 0.5, 0., 0., 1., 1., 0., 0., 0.5, 1.]);
    let folder =
        Folder::with(&[("train_ims.npy", &vectors), ("train_ims_bbx.npy", &boxes), ("train_ids.txt", b"a\nb\n")]);
    let opened = folder.open("train_ims.npy", &defaults(), None).unwrap();
    assert!(opened.explanation().iter().any(|line| line == "boxes from train_ims_bbx.npy"));
    let photo = opened.photo(0, &|key| (key == "a").then_some((200, 100)));
    assert_eq!(photo.boxes, [[0., 0., 200., 100.], [0., 0., 200., 100.], [100., 25., 200., 50.]].map(BoxXyxy::from));
    assert_eq!((photo.vectors.as_slice(), photo.scores.len()), (&[1.5, 1., 2.][..], 3));
    // Nobody knows the size: the outermost box says it.
    assert_eq!((opened.photo(1, &|_| None).width, opened.photo(1, &|_| None).height), (1, 1));

    let sizes = npy_f32(&[2, 2], &[20., 10., 8., 6.]);
    let pixels = npy_f32(&[2, 2, 4], &[0., 0., 19., 10., 5., 2., 10., 5., 0., 0., 8., 6., 1., 1., 4., 6.]);
    let folder = Folder::with(&[("v.npy", &vectors), ("v.txt", b"a\nb\n"), ("b.npy", &pixels), ("s.npy", &sizes)]);
    let options =
        FeatureImportOptions { boxes: Some(folder.path("b.npy")), sizes: Some(folder.path("s.npy")), ..defaults() };
    let opened = folder.open("v.npy", &options, None).unwrap();
    assert_eq!(opened.settings().extra["whole_image"], "the first region of the source");
    let photo = opened.photo(0, &|_| None);
    assert_eq!(photo.boxes, [[0., 0., 20., 10.], [5., 2., 10., 5.]].map(BoxXyxy::from));
    assert_eq!(photo.vectors, [1., 2.]);
    let mean = folder.open("v.npy", &FeatureImportOptions { first_is_whole: Some(false), ..options }, None).unwrap();
    assert_eq!(mean.photo(0, &|_| None).vectors, [1.5, 1., 2.]);
}

#[test]
fn unusable_arrays_get_one_clear_line() {
    let two = npy_f32(&[2, 2], &[1., 2., 3., 4.]);
    let check = |name: &str, content: &[u8], expected: &[&str]| {
        let folder = Folder::with(&[(name, content), ("v.txt", b"a\nb\n")]);
        check_error(folder.open(name, &defaults(), None), &[&[name], expected].concat());
    };
    check("v.npy", b"", &["expected a NumPy array"]);
    check("v.npy", b"hello", &["expected a NumPy array"]);
    check("v.npy", &two[..20], &["broken or truncated"]);
    check("v.npy", &two[..two.len() - 1], &["expected 16 bytes", "got 15", "truncated"]);
    check("v.npy", &[&two[..], b"more"].concat(), &["got 20"]);
    check("v.npy", &npy("|O", false, &[2], b"pickle"), &["Python objects", "astype('float32')"]);
    check("v.npy", &npy("<i8", false, &[2, 2], &[0; 32]), &["expected vectors of f16, f32 or f64, got I64"]);
    check("v.npy", &npy("<c16", false, &[2, 2], &[0; 64]), &["type `<c16`"]);
    check("v.npy", &npy_f32(&[4_000_000_000, 4_000_000_000, 4], &[]), &["more bytes than any file has"]);
    check("v.npy", &npy_f32(&[2, 1_000_000_000_000], &[]), &["got 0"]);
    check("v.npy", &npy_f32(&[2, 0], &[]), &["expected [photos, dim]"]);
    check("v.npy", &npy_f32(&[2], &[1., 2.]), &["expected [photos, dim]"]);
    check("v.npy", &npy_f32(&[1, 1, 1, 2], &[1., 2.]), &["expected [photos, dim]"]);
    check("v.npy", &npy_f32(&[3, 1], &[1., 2., 3.]), &["a row for each of 2 photos, got 3 rows"]);
    check("v.npz", b"PK", &["broken .npz"]);
    check(
        "v.npz",
        &npz(CompressionMethod::Stored, &[("keys", npy("|O", false, &[1], b"x"))]),
        &["unreadable Python objects: keys"],
    );
    let several = npz(CompressionMethod::Stored, &[("a", two.clone()), ("b", two.clone())]);
    check("v.npz", &several, &["which variable holds the vectors", "a [2, 2], b [2, 2]"]);
    check("v.h5", &two, &["ends in .mat, .npy or .npz"]);

    let folder = Folder::with(&[
        ("v.npy", &two),
        ("odd.npy", &npy_f32(&[2, 3], &[0.; 6])),
        ("b.npy", &npy_f32(&[2, 1, 4], &[0.; 8])),
        ("v.npz", &several),
        ("names.txt", b"a\nb\n"),
    ]);
    check_error(folder.open("v.npy", &defaults(), None), &["nothing says which photos"]);
    check_error(folder.open("absent.npy", &defaults(), None), &["found none"]);
    check_error(folder.open("", &defaults(), None), &["which variable"]);
    let names = FeatureImportOptions { names: Some(folder.path("names.txt")), ..defaults() };
    let with = |change: fn(&mut FeatureImportOptions, &Folder)| {
        let mut options = names.clone();
        change(&mut options, &folder);
        options
    };
    let boxes = with(|options, folder| options.boxes = Some(folder.path("b.npy")));
    check_error(folder.open("v.npy", &boxes, None), &["boxes for vectors of whole photos"]);
    let sizes = with(|options, folder| options.sizes = Some(folder.path("odd.npy")));
    check_error(folder.open("v.npy", &sizes, None), &["expected photo sizes of shape [2, 2], got [2, 3]"]);
    let variable = with(|options, _| options.variable = Some("c".into()));
    check_error(folder.open("v.npz", &variable, None), &["no variable `c`: it holds a [2, 2], b [2, 2]"]);
    let two_sources = [folder.path("v.npy"), folder.path("odd.npy")];
    check_error(open(&two_sources, &names, None), &["belong to one source"]);
    let of_two = dataset(&[("x", Split::Train), ("y", Split::Train)]);
    check_error(open(&two_sources, &defaults(), Some(&of_two)), &["expected vectors of 2 values as in v.npy, got 3"]);
    let of_seven = dataset(&["a", "b", "c", "d", "e", "f", "g"].map(|name| (name, Split::Train)));
    check_error(folder.open("v.npy", &defaults(), Some(&of_seven)), &["2 rows fit neither the dataset's 7 photos"]);
    check_error(folder.open("v.npy", &names, Some(&of_two)), &["not one of its rows"]);
}

#[test]
fn photos_whose_numbers_make_no_sense_are_counted() {
    let folder = Folder::with(&[
        ("v.npy", &npy_f32(&[3, 2], &[1., 2., f32::NAN, 4., 5., 1e9])),
        ("v.txt", b"a\nb\nc\n"),
        ("bad.npy", &npy_f32(&[1, 2], &[1e9, 0.])),
        ("bad.txt", b"a\n"),
    ]);
    let (photos, imported, _) = folder.import("v.npy", None);
    assert_eq!((photos.len(), imported.problems.count(ProblemKind::BadRecord)), (1, 2));
    assert!(imported.problems.to_string().contains("does not fit 16 bits"), "{}", imported.problems);
    let opened = folder.open("bad.npy", &defaults(), None).unwrap();
    let error = opened.write(&folder.path("none"), &|_| None, |_| {}).unwrap_err().to_string();
    assert!(error.contains("does not fit 16 bits"), "{error}");
}
