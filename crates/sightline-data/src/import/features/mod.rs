//! Vectors made by other programs, into a feature store: MATLAB matrices and NumPy arrays.
//!
//! A source is `[photos, dim]` (whole photos: NeuralTalk's VGG vectors, transposed there) or `[photos, regions, dim]`
//! (SCAN's files, bottom-up attention). Region 0 of our store is the whole photo. Where a source has regions only, it
//! becomes their mean, which the store's settings say.

mod array;
mod mat;
mod names;
mod npy;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use array::Array;
use rustc_hash::FxHashMap;

use super::{file_name, lines, read_text};
use crate::problems::{ProblemKind, Problems};
use crate::store::{COPIED, PhotoFeatures, StoreSettings, StoreWriter, VectorMode};
use crate::{BoxXyxy, Dataset, Error, Result, Split, checksum};

/// What the user decides; the defaults guess everything.
#[derive(Debug, Clone, Default)]
pub struct FeatureImportOptions {
    /// What made the vectors, for the store's settings; the first source's file name where absent.
    pub backbone: Option<String>,
    /// The variable of a `.mat` or `.npz` that holds the vectors, where the guess is wrong.
    pub variable: Option<String>,
    /// A list of photos, one a line, in the order of the rows. Looked for beside the source where absent (`tasks.txt`,
    /// `train_ids.txt` beside `train_ims.npy`, …), then the dataset's order is taken.
    pub names: Option<PathBuf>,
    /// A `.npy` of boxes, `[photos, regions, 4]`, corners in pixels, or in 0..1 where photo sizes are known.
    pub boxes: Option<PathBuf>,
    /// A `.npy` of photo sizes, `[photos, 2]`, width before height.
    pub sizes: Option<PathBuf>,
    /// Whether the first region of each photo is the whole photo. Found out from the boxes where absent, and taken for
    /// no where there are none.
    pub first_is_whole: Option<bool>,
    /// The rows are this split's photos, in the dataset's order.
    pub split: Option<Split>,
}

/// Width and height of a photo by its key, for sources that do not say them: the caller can open pictures, this crate
/// cannot.
pub type SizeOf<'a> = &'a dyn Fn(&str) -> Option<(u32, u32)>;

/// Opened sources, ready to be written into a store.
#[derive(Debug)]
pub struct FeatureImport {
    parts: Vec<Part>,
    photos: Vec<PhotoRow>,
    /// Keys in the order of the dataset, or of the sources.
    order: Vec<String>,
    settings: StoreSettings,
    explanation: Vec<String>,
    problems: Problems,
}

/// What [`FeatureImport::write`] did.
#[derive(Debug)]
pub struct FeaturesImported {
    /// Photos in the finished store, those of earlier runs included.
    pub photos: usize,
    /// What was kept out.
    pub problems: Problems,
    /// How the sources were read, one finding a line.
    pub explanation: Vec<String>,
}

/// One source.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    /// `[rows, dim]` or `[rows, regions, dim]`.
    vectors: Array,
    /// `[rows or photos, regions, 4]`.
    boxes: Option<Array>,
    /// `[rows or photos, 2]`, or two lists.
    sizes: Option<Sizes>,
    first_is_whole: bool,
}

#[derive(Debug)]
enum Sizes {
    Pairs(Array),
    WidthHeight(Array, Array),
}

#[derive(Debug)]
struct PhotoRow {
    part: usize,
    key: String,
    row: usize,
    /// Among the part's photos: for boxes and sizes that do not repeat though the vectors do.
    nth: usize,
}

impl Part {
    /// `(regions, dim)` of the source itself; one region where it has whole photos.
    fn regions(&self) -> (usize, usize) {
        match *self.vectors.shape() {
            [_, dim] => (1, dim),
            [_, regions, dim] => (regions, dim),
            _ => unreachable!("checked when opened"),
        }
    }

    fn has_regions(&self) -> bool {
        self.vectors.shape().len() == 3
    }

    /// Most regions in our store.
    fn n_store_regions(&self) -> usize {
        self.regions().0 + usize::from(self.has_regions() && !self.first_is_whole)
    }
}

/// The row of a side array: one a row of the vectors, or one a photo.
fn side_row(side: &Array, vectors: &Array, photo: &PhotoRow) -> usize {
    if side.rows() == vectors.rows() { photo.row } else { photo.nth }
}

/// Opens files (`.mat`, `.npy`, `.npz`) or folders that hold them, and finds out what their rows mean.
///
/// With a dataset, keys are its photos' paths, and rows of other photos are kept out; without, keys are the names of
/// the list.
///
/// # Errors
/// A source cannot be read, is truncated or of another kind, its rows cannot be paired with photos, or not one photo is
/// left.
pub fn open(sources: &[PathBuf], options: &FeatureImportOptions, dataset: Option<&Dataset>) -> Result<FeatureImport> {
    let mut files = Vec::new();
    for source in sources {
        if source.is_dir() { files.extend(files_in(source)?) } else { files.push(source.clone()) }
    }
    let Some(first) = files.first() else {
        return Err(Error::format(Path::new("features"), "no source was named"));
    };
    let single = [&options.names, &options.boxes, &options.sizes].iter().all(|file| file.is_none());
    if files.len() > 1 && !(single && options.split.is_none()) {
        let names: Vec<_> = files.iter().map(|file| file_name(file)).collect();
        return Err(Error::format(
            first,
            format!(
                "names, boxes, sizes and a split belong to one source, got {}: import one at a time",
                names.join(", ")
            ),
        ));
    }

    let matcher = dataset.map(names::Matcher::new);
    let mut problems = Problems::default();
    let mut explanation = Vec::new();
    let (mut parts, mut photos) = (Vec::<Part>::new(), Vec::new());
    let mut seen: FxHashMap<String, usize> = FxHashMap::default();
    for file in &files {
        let opened = open_part(file, options, dataset, matcher.as_ref(), &mut problems, &mut explanation)?;
        if let Some(other) = parts.first().filter(|other| other.regions().1 != opened.part.regions().1) {
            return Err(Error::format(
                file,
                format!(
                    "expected vectors of {} values as in {}, got {}",
                    other.regions().1,
                    file_name(&other.path),
                    opened.part.regions().1
                ),
            ));
        }
        for (nth, (name, row)) in opened.rows.into_iter().enumerate() {
            let key = match &matcher {
                None => name,
                Some(matcher) => match matcher.find(&name) {
                    Some(path) => path.to_owned(),
                    None => {
                        problems.add(ProblemKind::UnknownPhoto, format!("{name} of {}", file_name(file)));
                        continue;
                    }
                },
            };
            if seen.insert(key.clone(), row).is_some() {
                problems.add(ProblemKind::DuplicatePhoto, format!("{key} of {}, the first is used", file_name(file)));
                continue;
            }
            photos.push(PhotoRow { part: parts.len(), key, row, nth });
        }
        parts.push(opened.part);
    }
    if photos.is_empty() {
        return Err(Error::format(first, "not one of its rows belongs to a photo of the dataset"));
    }
    let order: Vec<String> = match dataset {
        Some(dataset) => dataset.images.iter().map(|image| image.path.clone()).collect(),
        None => photos.iter().map(|photo| photo.key.clone()).collect(),
    };
    if dataset.is_some() {
        for key in order.iter().filter(|key| !seen.contains_key(key.as_str())) {
            problems.add(ProblemKind::PhotoWithoutVectors, key.as_str());
        }
    }

    let mut extra = BTreeMap::new();
    let describe = |file: &PathBuf| Ok(format!("{} {}", file_name(file), checksum::of_file(file)?));
    extra.insert("sources".to_owned(), files.iter().map(describe).collect::<Result<Vec<_>>>()?.join(", "));
    let regions = parts.iter().find(|part| part.has_regions());
    let whole_image = match regions {
        None => "the vector of the whole photo",
        Some(part) if part.first_is_whole => "the first region of the source",
        Some(_) => "mean of the regions",
    };
    extra.insert("whole_image".to_owned(), whole_image.to_owned());
    explanation.push(format!("region 0, the whole photo: {whole_image}"));
    if regions.is_some() && parts.iter().any(|part| part.boxes.is_none()) {
        extra.insert("boxes".to_owned(), "absent".to_owned());
        explanation.push("no boxes: every region has the whole photo's".to_owned());
    }
    let settings = StoreSettings {
        backbone: options.backbone.clone().unwrap_or_else(|| file_name(first).into_owned()),
        backbone_checksum: String::new(),
        dim: parts[0].regions().1,
        vectors: VectorMode::Imported,
        regions: "imported".to_owned(),
        regions_checksum: String::new(),
        max_regions: parts.iter().map(Part::n_store_regions).max().unwrap_or(1),
        extra,
        sources: BTreeMap::from([(COPIED.to_owned(), copied(&photos, options)?)]),
        parts: Vec::new(),
    };
    Ok(FeatureImport { parts, photos, order, settings, explanation, problems })
}

/// What tells the rows of these photos, their boxes and sizes from others.
fn copied(photos: &[PhotoRow], options: &FeatureImportOptions) -> Result<String> {
    let mut text = String::new();
    for PhotoRow { part, key, row, nth } in photos {
        writeln!(text, "{key:?} {part} {row} {nth}").expect("a string takes any text");
    }
    for side in [&options.boxes, &options.sizes].into_iter().flatten() {
        text.push_str(&checksum::of_file(side)?);
    }
    Ok(checksum::of_bytes(text.as_bytes()))
}

impl FeatureImport {
    /// What the store will say of its numbers.
    pub fn settings(&self) -> &StoreSettings {
        &self.settings
    }

    /// Photos to write.
    pub fn len(&self) -> usize {
        self.photos.len()
    }

    /// Never: opening refuses sources without a photo.
    pub fn is_empty(&self) -> bool {
        self.photos.is_empty()
    }

    /// How the sources were read, one finding a line.
    pub fn explanation(&self) -> &[String] {
        &self.explanation
    }

    /// What was kept out so far.
    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    /// Reads one photo. Its size comes from the source, or from `size_of`; where neither knows, from the outermost box;
    /// and without boxes it is noted as 1×1. Panics where `index` is not below [`FeatureImport::len`].
    pub fn photo(&self, index: usize, size_of: SizeOf<'_>) -> PhotoFeatures {
        let photo = &self.photos[index];
        let part = &self.parts[photo.part];
        let (_, dim) = part.regions();
        let mut rows = Vec::new();
        part.vectors.read_row(photo.row, &mut rows);
        if part.has_regions() {
            // Photos with fewer regions are filled up with zeros.
            let zero = |row: &[f32]| row.iter().all(|&value| value == 0.0);
            while rows.len() > dim && zero(&rows[rows.len() - dim..]) {
                rows.truncate(rows.len() - dim);
            }
        }
        let n_rows = rows.len() / dim;
        let mut boxes: Vec<[f32; 4]> = Vec::new();
        if let Some(array) = &part.boxes {
            let mut corners = Vec::new();
            array.read_row(side_row(array, &part.vectors, photo), &mut corners);
            boxes.extend(corners.chunks_exact(4).take(n_rows).map(|b| [b[0], b[1], b[2], b[3]]));
        }
        let farthest = |axis: usize| boxes.iter().map(|b| b[axis + 2]).fold(0.0f32, f32::max).ceil().max(1.0) as u32;
        let (width, height) =
            part.size(photo).or_else(|| size_of(&photo.key)).unwrap_or_else(|| (farthest(0), farthest(1)));
        if width > 1 && height > 1 && boxes.iter().flatten().all(|&v| (0.0..=1.0).contains(&v)) {
            let scale = [width as f32, height as f32, width as f32, height as f32];
            boxes.iter_mut().for_each(|b| b.iter_mut().zip(scale).for_each(|(v, s)| *v *= s));
        }
        let whole = BoxXyxy::whole(width, height);
        let mut boxes: Vec<BoxXyxy> = boxes.into_iter().map(BoxXyxy::from).collect();
        boxes.resize(n_rows, whole);
        let vectors = if part.has_regions() && !part.first_is_whole {
            let mut vectors: Vec<f32> = (0..dim)
                .map(|k| {
                    let sum: f64 = rows.iter().skip(k).step_by(dim).map(|&value| f64::from(value)).sum();
                    (sum / n_rows as f64) as f32
                })
                .collect();
            vectors.append(&mut rows);
            boxes.insert(0, whole);
            vectors
        } else {
            boxes[0] = whole;
            rows
        };
        PhotoFeatures { key: photo.key.clone(), width, height, scores: vec![1.0; boxes.len()], boxes, vectors }
    }

    /// Writes all photos into a store, going on where an interrupted run stopped. `progress` is told the number of
    /// photos done after each.
    ///
    /// # Errors
    /// The store cannot be written or has other settings; or not one photo has vectors that fit it.
    pub fn write(
        mut self,
        output: &Path,
        size_of: SizeOf<'_>,
        mut progress: impl FnMut(usize),
    ) -> Result<FeaturesImported> {
        let writer = StoreWriter::create_or_resume(output, &self.settings)?;
        let mut n_written = writer.done().len();
        let mut refused = None;
        for index in 0..self.photos.len() {
            if !writer.done().contains(&self.photos[index].key) {
                match writer.append(&self.photo(index, size_of)) {
                    Ok(()) => n_written += 1,
                    // One photo's numbers make no sense; the others may.
                    Err(error @ Error::Format { .. }) => {
                        self.problems.add(ProblemKind::BadRecord, error.to_string());
                        refused = Some(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            progress(index + 1);
        }
        if let Some(error) = refused.filter(|_| n_written == 0) {
            writer.abandon()?;
            return Err(error);
        }
        let photos = writer.finish(&self.order)?;
        Ok(FeaturesImported { photos, problems: self.problems, explanation: self.explanation })
    }
}

impl Part {
    fn size(&self, photo: &PhotoRow) -> Option<(u32, u32)> {
        let mut values = Vec::new();
        match self.sizes.as_ref()? {
            Sizes::Pairs(pairs) => pairs.read_row(side_row(pairs, &self.vectors, photo), &mut values),
            Sizes::WidthHeight(width, height) => {
                width.read_row(side_row(width, &self.vectors, photo), &mut values);
                height.read_row(side_row(height, &self.vectors, photo), &mut values);
            }
        }
        let (&width, &height) = (values.first()?, values.get(1)?);
        (width >= 1.0 && height >= 1.0).then_some((width as u32, height as u32))
    }
}

/// The sources of a folder: SCAN's `*_ims.npy`, or its only `.mat`, `.npz` or `.npy`.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("list", folder))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| entry.ok()).map(|entry| entry.path()).collect();
    files.sort();
    let ending = |end: &str| -> Vec<PathBuf> {
        files.iter().filter(|file| file_name(file).to_lowercase().ends_with(end)).cloned().collect()
    };
    let scan = ending("_ims.npy");
    if !scan.is_empty() {
        return Ok(scan);
    }
    for end in [".mat", ".npz", ".npy"] {
        let found = ending(end);
        match found.len() {
            0 => {}
            1 => return Ok(found),
            n => return Err(Error::format(folder, format!("{n} files end in {end} here: name the one to import"))),
        }
    }
    Err(Error::format(folder, "expected *_ims.npy, a .mat, .npz or .npy in this folder, found none"))
}

struct Opened {
    part: Part,
    /// Names with the rows of their vectors.
    rows: Vec<(String, usize)>,
}

/// What one file holds.
struct Content {
    vectors: Array,
    variable: String,
    boxes: Option<Array>,
    sizes: Option<Sizes>,
    names: Option<Vec<String>>,
}

fn open_part(
    path: &Path,
    options: &FeatureImportOptions,
    dataset: Option<&Dataset>,
    matcher: Option<&names::Matcher<'_>>,
    problems: &mut Problems,
    explanation: &mut Vec<String>,
) -> Result<Opened> {
    let bad = |message: String| Error::format(path, message);
    let content = read_content(path, options.variable.as_deref())?;
    let Content { mut vectors, variable, mut boxes, mut sizes, names } = content;
    let beside = Beside::of(path);
    let lists = list_of_names(path, options, names, &beside, dataset, matcher, problems, explanation)?;

    // MATLAB's matrices stand on their side, `[dim, photos]`; the list of names tells.
    if let [a, b] = *vectors.shape() {
        let is_mat = has_extension(path, "mat");
        let sideways = match &lists {
            Some(names) => {
                let n = names.len();
                n != a && n == b || is_mat && !names::fits(n, a) && names::fits(n, b)
            }
            None => is_mat,
        };
        if sideways || is_mat && lists.as_ref().is_none_or(|names| names.len() == b) {
            vectors = vectors.transposed();
            explanation.push(format!("`{variable}` is {a}×{b}: a column is a photo"));
        }
    }
    let shape = vectors.shape().to_vec();
    if !(2..=3).contains(&shape.len()) || shape.contains(&0) {
        return Err(bad(format!("expected [photos, dim] or [photos, regions, dim], got {shape:?} (`{variable}`)")));
    }
    if !vectors.kind().is_float() && !has_extension(path, "mat") {
        return Err(bad(format!(
            "expected vectors of f16, f32 or f64, got {:?} (`{variable}`): save array.astype('float32')",
            vectors.kind()
        )));
    }
    explanation.push(format!(
        "{}: `{variable}`, {}",
        file_name(path),
        match *shape {
            [photos, dim] => format!("{photos} rows of {dim} values, a whole photo each"),
            _ => format!("{} rows of {} regions of {} values", shape[0], shape[1], shape[2]),
        }
    ));
    let names = match lists {
        Some(names) => names,
        None => dataset_order(path, &vectors, options, dataset, explanation)?,
    };
    let names::Paired { rows, explanation: noticed } = names::pair(path, names, &vectors)?;
    explanation.extend(noticed.map(|line| format!("{}: {line}", file_name(path))));

    let n_photos = rows.len();
    let side = |array: &Array, what: &str, file: &Path, inner: &[usize]| -> Result<()> {
        let shape = array.shape();
        if array.kind().is_text() || ![vectors.rows(), n_photos].contains(&array.rows()) || shape[1..] != *inner {
            let expected: Vec<String> = inner.iter().map(|n| format!(", {n}")).collect();
            return Err(Error::format(
                file,
                format!("expected {what} of shape [{}{}], got {shape:?}", vectors.rows(), expected.concat()),
            ));
        }
        Ok(())
    };
    if let Some(file) = options.boxes.clone().or_else(|| beside.find(&["_boxes.npy", "_bbox.npy", "_bbx.npy"])) {
        explanation.push(format!("boxes from {}", file_name(&file)));
        boxes = Some(npy::read(&file)?);
    }
    if let Some(file) = options.sizes.clone().or_else(|| beside.find(&["_sizes.npy", "_size.npy"])) {
        explanation.push(format!("photo sizes from {}", file_name(&file)));
        sizes = Some(Sizes::Pairs(npy::read(&file)?));
    }
    if let Some(boxes) = &boxes {
        match *vectors.shape() {
            [_, regions, _] => side(boxes, "boxes", path, &[regions, 4])?,
            _ => return Err(bad("boxes for vectors of whole photos: expected [photos, regions, dim]".into())),
        }
    }
    match &sizes {
        Some(Sizes::Pairs(pairs)) => side(pairs, "photo sizes", path, &[2])?,
        Some(Sizes::WidthHeight(width, height)) => {
            side(width, "widths", path, &[])?;
            side(height, "heights", path, &[])?;
        }
        None => {}
    }
    let mut part = Part { path: path.to_owned(), vectors, boxes, sizes, first_is_whole: false };
    part.first_is_whole = options.first_is_whole.unwrap_or_else(|| first_box_is_whole(&part, &rows));
    Ok(Opened { part, rows })
}

/// Whether the first box of the first photos is the whole photo, to two pixels.
fn first_box_is_whole(part: &Part, rows: &[(String, usize)]) -> bool {
    let Some(boxes) = &part.boxes else { return false };
    rows.iter().take(20).enumerate().all(|(nth, &(_, row))| {
        let photo = PhotoRow { part: 0, key: String::new(), row, nth };
        let mut corners = Vec::new();
        boxes.read_row(side_row(boxes, &part.vectors, &photo), &mut corners);
        part.size(&photo).is_some_and(|(width, height)| {
            let whole = [0.0, 0.0, width as f32, height as f32];
            corners.iter().zip(whole).all(|(a, b)| (a - b).abs() <= 2.0)
        })
    })
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

const VECTOR_NAMES: [&str; 7] = ["feats", "features", "feat", "x", "vectors", "image_features", "arr_0"];
const BOX_NAMES: [&str; 4] = ["boxes", "bbox", "bboxes", "image_bboxes"];
const NAME_NAMES: [&str; 6] = ["keys", "names", "filenames", "image_ids", "ids", "images"];

fn read_content(path: &Path, variable: Option<&str>) -> Result<Content> {
    let bad = |message: String| Error::format(path, message);
    if !path.is_file() {
        return Err(bad("expected a .mat, .npy or .npz file, found none".into()));
    }
    let npy::Archive { mut arrays, left_out } = if has_extension(path, "npy") {
        return Ok(Content {
            vectors: npy::read(path)?,
            variable: "array".to_owned(),
            boxes: None,
            sizes: None,
            names: None,
        });
    } else if has_extension(path, "npz") {
        npy::read_archive(path)?
    } else if has_extension(path, "mat") {
        npy::Archive { arrays: mat::read(path)?, ..npy::Archive::default() }
    } else {
        return Err(bad("expected a file that ends in .mat, .npy or .npz".into()));
    };
    let listed: Vec<String> = arrays.iter().map(|(name, array)| format!("{name} {:?}", array.shape())).collect();
    let mut listed = listed.join(", ");
    if !left_out.is_empty() {
        listed += &format!("; unreadable Python objects: {}", left_out.join(", "));
    }
    let named = |arrays: &[(String, Array)], names: &[&str]| {
        names.iter().find_map(|name| arrays.iter().position(|(found, _)| found.eq_ignore_ascii_case(name)))
    };
    let at = match variable {
        Some(name) => named(&arrays, &[name]).ok_or_else(|| bad(format!("no variable `{name}`: it holds {listed}")))?,
        None => match named(&arrays, &VECTOR_NAMES) {
            Some(at) => at,
            None => {
                // The last axis of boxes is 4.
                let fitting = |array: &Array| {
                    (2..=3).contains(&array.shape().len())
                        && (array.kind().is_float() || has_extension(path, "mat"))
                        && !(array.shape().len() == 3 && array.shape()[2] == 4)
                };
                let mut candidates = (0..arrays.len()).filter(|&i| fitting(&arrays[i].1));
                match (candidates.next(), candidates.next()) {
                    (Some(at), None) => at,
                    (None, _) => return Err(bad(format!("found no vectors: it holds {listed}"))),
                    (Some(_), Some(_)) => {
                        return Err(bad(format!("which variable holds the vectors? it holds {listed}: name one")));
                    }
                }
            }
        },
    };
    let (variable, vectors) = arrays.swap_remove(at);
    let mut take = |names: &[&str]| named(&arrays, names).map(|at| arrays.swap_remove(at).1);
    let boxes = take(&BOX_NAMES);
    let names = take(&NAME_NAMES).map(|array| array.texts());
    let sizes = match take(&["sizes", "image_sizes"]) {
        Some(pairs) => Some(Sizes::Pairs(pairs)),
        None => take(&["width", "widths", "image_w"])
            .zip(take(&["height", "heights", "image_h"]))
            .map(|(width, height)| Sizes::WidthHeight(width, height)),
    };
    Ok(Content { vectors, variable, boxes, sizes, names })
}

/// Files beside a source that belong to it by their names.
struct Beside {
    folder: PathBuf,
    /// `train_ims` of `train_ims.npy`, then `train`.
    stems: Vec<String>,
}

impl Beside {
    fn of(path: &Path) -> Self {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let mut stems = vec![stem.clone()];
        stems.extend(stem.strip_suffix("_ims").map(str::to_owned));
        Self { folder: path.parent().unwrap_or(Path::new("")).to_owned(), stems }
    }

    fn find(&self, endings: &[&str]) -> Option<PathBuf> {
        let names = self.stems.iter().flat_map(|stem| endings.iter().map(move |ending| format!("{stem}{ending}")));
        names.map(|name| self.folder.join(name)).find(|path| path.is_file())
    }
}

/// The names of the rows: from the option, the file itself, or a list beside it.
#[expect(clippy::too_many_arguments, reason = "everything that could say the names")]
fn list_of_names(
    path: &Path,
    options: &FeatureImportOptions,
    inside: Option<Vec<String>>,
    beside: &Beside,
    dataset: Option<&Dataset>,
    matcher: Option<&names::Matcher<'_>>,
    problems: &mut Problems,
    explanation: &mut Vec<String>,
) -> Result<Option<Vec<String>>> {
    if let Some(file) = &options.names {
        return read_names(file, problems).map(Some);
    }
    if options.split.is_some() && dataset.is_some() {
        return Ok(None);
    }
    let known = |names: &[String]| {
        matcher.is_none_or(|matcher| names.iter().any(|name| matcher.find(name).is_some())) && !names.is_empty()
    };
    if let Some(names) = inside.filter(|names| known(names)) {
        explanation.push(format!("{}: names of the photos stand in it", file_name(path)));
        return Ok(Some(names));
    }
    let mut candidates: Vec<PathBuf> =
        beside.find(&["_ids.txt", "_ims.txt", "_names.txt", ".txt"]).into_iter().collect();
    candidates.extend(Some(beside.folder.join("tasks.txt")).filter(|file| file.is_file()));
    for file in candidates {
        let names = read_names(&file, problems)?;
        if known(&names) {
            explanation.push(format!("names of the photos from {}", file_name(&file)));
            return Ok(Some(names));
        }
        explanation.push(format!("{} names no photo of the dataset, left alone", file_name(&file)));
    }
    Ok(None)
}

fn read_names(file: &Path, problems: &mut Problems) -> Result<Vec<String>> {
    let bytes = read_text(file)?;
    let names = lines(&bytes, file, problems).into_iter().map(|(_, line)| line.trim().to_owned());
    Ok(names.filter(|name| !name.is_empty()).collect())
}

/// The rows stand in the dataset's order: of one split, or of all photos, whichever fits.
fn dataset_order(
    path: &Path,
    vectors: &Array,
    options: &FeatureImportOptions,
    dataset: Option<&Dataset>,
    explanation: &mut Vec<String>,
) -> Result<Vec<String>> {
    let Some(dataset) = dataset else {
        return Err(Error::format(
            path,
            "nothing says which photos its rows belong to: name a list of photos (one a line) or a dataset",
        ));
    };
    let rows = vectors.rows();
    let by_file_name = || -> Option<Split> {
        let name = file_name(path).to_lowercase();
        name.split(|c: char| !c.is_ascii_alphanumeric()).find_map(|word| word.parse().ok())
    };
    let all: Vec<Option<Split>> = match options.split {
        Some(split) => vec![Some(split)],
        None => by_file_name().map(Some).into_iter().chain([None]).collect(),
    };
    let photos = |split: Option<Split>| -> Vec<String> {
        let images = dataset.images.iter().filter(|image| split.is_none_or(|split| image.split == split));
        images.map(|image| image.path.clone()).collect()
    };
    for split in &all {
        let names = photos(*split);
        if names::fits(names.len(), rows) && rows >= names.len() {
            let of = split.map_or("all photos".to_owned(), |split| format!("the photos of {split}"));
            explanation
                .push(format!("{}: no list of names, so its rows are {of} in the dataset's order", file_name(path)));
            return Ok(names);
        }
    }
    let counts = Split::ALL.into_iter().map(|split| (split, photos(Some(split)).len()));
    let counts: Vec<String> = counts.filter(|&(_, n)| n > 0).map(|(split, n)| format!("{split} {n}")).collect();
    Err(Error::format(
        path,
        format!(
            "{rows} rows fit neither the dataset's {} photos nor the split ({}): name the list of its photos",
            dataset.images.len(),
            counts.join(", ")
        ),
    ))
}
