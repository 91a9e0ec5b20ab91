//! Rows of photo and sentence: CSV, TSV and their kin; separator, header and columns are guessed.

use rustc_hash::FxHashMap;

use super::{Detected, ImportOptions, Raw, RawPhoto, RawSentence, RawSplit, file_name, photos, read_text};
use crate::problems::{ProblemKind, Problems};
use crate::{Error, Result, Split};

const SEPARATORS: [u8; 4] = [b'\t', b',', b';', b'|'];

const IMAGE_NAMES: &[&str] = &[
    "image",
    "filename",
    "file_name",
    "photo",
    "image_name",
    "image_path",
    "imagename",
    "img",
    "path",
    "filepath",
    "file",
    "picture",
    "image_id",
    "key",
];
const SENTENCE_NAMES: &[&str] =
    &["caption", "sentence", "text", "description", "comment", "raw", "captions", "sentences", "caption_text"];
const SPLIT_NAMES: &[&str] = &["split", "set", "subset", "fold", "partition"];

/// A row: the number of its line in the file, from 1, and its fields.
type Row = (u64, Result<Vec<String>, BadRow>);

/// Why a row has no fields.
#[derive(Debug, Clone, Copy)]
enum BadRow {
    NotUtf8,
    /// A quote opens in it that closes in another row, or nowhere.
    OpenQuote,
}

/// Which column holds what.
#[derive(Debug, PartialEq)]
struct Shape {
    image: usize,
    sentences: Vec<usize>,
    split: Option<usize>,
    n_columns: usize,
}

pub(super) fn read(detected: &Detected, options: &ImportOptions, problems: &mut Problems) -> Result<Raw> {
    let path = &detected.files[0];
    let bytes = read_text(path)?;
    let separator = guess_separator(&bytes);
    let mut rows = rows(&bytes, separator, usize::MAX);
    let bad = |message: String| Error::format(path, message);
    let first =
        rows.iter().find_map(|(_, row)| row.clone().ok()).ok_or_else(|| bad("holds not one readable row".into()))?;
    let has_header = !first.iter().any(|field| photos::is_photo_name(field));
    let mut raw = Raw::default();
    raw.explanation.push(format!(
        "separated by {}, {}",
        match separator {
            b'\t' => "tabs",
            b';' => "semicolons",
            b'|' => "bars",
            _ => "commas",
        },
        if has_header { "the first row is the header" } else { "without a header" }
    ));
    let names: Vec<String> = if has_header {
        let at = rows.iter().position(|(_, row)| row.is_ok()).expect("the first row was found");
        drop(rows.remove(at));
        first.iter().map(|name| name.trim().to_owned()).collect()
    } else {
        (1..=usual_width(&rows)).map(|i| format!("column {i}")).collect()
    };
    let sample: Vec<&[String]> = rows.iter().filter_map(|(_, row)| row.as_deref().ok()).take(50).collect();
    let shape = shape(&names, has_header, &sample, options).map_err(bad)?;
    let column = |i: usize| format!("`{}`", names[i]);
    raw.explanation.push(format!(
        "photo from {}, sentence from {}{}",
        column(shape.image),
        shape.sentences.iter().map(|&i| column(i)).collect::<Vec<_>>().join(", "),
        shape.split.map_or(String::new(), |i| format!(", split from {}", column(i)))
    ));
    for (i, name) in names.iter().enumerate() {
        if i != shape.image && !shape.sentences.contains(&i) && Some(i) != shape.split {
            problems.add_unknown_key(format!("column `{name}`"));
        }
    }

    let mut position: FxHashMap<String, usize> = FxHashMap::default();
    for (number, row) in rows {
        let place = || format!("{} row {number}", file_name(path));
        let mut row = match row {
            Ok(row) => row,
            Err(BadRow::NotUtf8) => {
                problems.add(ProblemKind::NotUtf8, place());
                continue;
            }
            Err(BadRow::OpenQuote) => {
                problems.add(ProblemKind::BadRecord, format!("{}: its quote is not closed", place()));
                continue;
            }
        };
        if row.iter().all(|field| field.trim().is_empty()) {
            continue;
        }
        let last = shape.n_columns - 1;
        if row.len() > shape.n_columns && shape.sentences.last() == Some(&last) {
            problems.add(ProblemKind::ExtraColumns, place());
            let joined = row[last..].join(&char::from(separator).to_string());
            row.truncate(last);
            row.push(joined);
        }
        let photo = tidy(row.get(shape.image).map(|field| field.trim()).unwrap_or_default());
        if photo.is_empty() && row.len() == shape.n_columns {
            problems.add(ProblemKind::BadRecord, format!("{}: names no photo", place()));
            continue;
        }
        if row.len() != shape.n_columns {
            problems.add(
                ProblemKind::BadRecord,
                format!("{}: expected {} columns, got {}", place(), shape.n_columns, row.len()),
            );
            continue;
        }
        let at = *position.entry(photo.clone()).or_insert_with(|| {
            raw.photos.push(RawPhoto { file: photo.clone(), ..RawPhoto::default() });
            raw.photos.len() - 1
        });
        let several = shape.sentences.len() > 1;
        let sentences = shape.sentences.iter().map(|&i| row[i].trim()).filter(|text| !several || !text.is_empty());
        for text in sentences {
            match listed(text) {
                Some(texts) => raw.photos[at].sentences.extend(texts.iter().map(|text| RawSentence::new(text))),
                None => raw.photos[at].sentences.push(RawSentence::new(text)),
            }
        }
        if let Some(i) = shape.split {
            let split = RawSplit::parse(&row[i], &place(), problems);
            match (&raw.photos[at].split, &split) {
                (RawSplit::Named(a), RawSplit::Named(b)) if a != b => {
                    problems.add(ProblemKind::BadRecord, format!("{}: {photo} is in {a} already, not {b}", place()));
                }
                (RawSplit::Unsaid, _) => raw.photos[at].split = split,
                _ => {}
            }
        }
    }
    // Where the photos' names have no extension, the usual one is meant.
    if raw.photos.iter().all(|photo| !photos::is_photo_name(&photo.file)) {
        raw.explanation.push("the photos' names have no extension; .jpg was added".to_owned());
        raw.photos.iter_mut().for_each(|photo| photo.file.push_str(".jpg"));
    }
    Ok(raw)
}

/// How many fields most of the first rows have, the fewer of two: a sentence with a separator in it has more.
fn usual_width(rows: &[Row]) -> usize {
    let mut widths = std::collections::BTreeMap::<usize, usize>::new();
    for row in rows.iter().filter_map(|(_, row)| row.as_ref().ok()).take(50) {
        *widths.entry(row.len()).or_default() += 1;
    }
    widths.into_iter().rev().max_by_key(|&(_, n)| n).map_or(0, |(width, _)| width)
}

/// The sentences of a field that holds a JSON list of them.
fn listed(field: &str) -> Option<Vec<String>> {
    serde_json::from_str(field).ok().filter(|_| field.starts_with('['))
}

/// One spelling a photo: no `./` in front, no slash twice.
fn tidy(photo: &str) -> String {
    let mut path = photo;
    while let Some(rest) = path.strip_prefix("./") {
        path = rest.trim_start_matches('/');
    }
    let mut tidy = path.to_owned();
    while tidy.contains("//") {
        tidy = tidy.replace("//", "/");
    }
    tidy
}

/// The rows of a table. Tabs never stand inside a field, so there a quote is a quote unless it surrounds the field;
/// elsewhere quoting is as in CSV. A row whose quote does not close is bad, and the next one is read from its own line.
fn rows(bytes: &[u8], separator: u8, limit: usize) -> Vec<Row> {
    let tabs = separator == b'\t';
    let mut rows: Vec<Row> = Vec::new();
    let mut record = csv::ByteRecord::new();
    let mut n_columns = 2;
    // Where the reader begins: the byte, and how many lines are before it.
    let (mut origin, mut lines_before) = (0, 0);
    'reader: loop {
        let mut reader = reader(&bytes[origin..], separator);
        // Reading from memory: only UTF-8, which bytes do not ask for, and lengths, which are flexible, could fail.
        while rows.len() < limit && matches!(reader.read_byte_record(&mut record), Ok(true)) {
            let position = record.position().expect("a record that was read has a place");
            let read_from = origin + position.byte() as usize;
            // The line break of the row before, where that is two bytes, and empty lines stand before the row.
            let breaks = bytes[read_from..].iter().take_while(|byte| b"\r\n".contains(byte)).count();
            let start = read_from + breaks;
            let number = lines_before + position.line() + n_line_breaks(&bytes[read_from..start]);
            let raw = &bytes[start..origin + reader.position().byte() as usize];
            if !tabs && raw.contains(&b'"') && swallows_rows(raw, separator, n_columns) {
                rows.push((number, Err(BadRow::OpenQuote)));
                let line = raw.iter().position(|&byte| byte == b'\n').map_or(raw.len(), |end| end + 1);
                (origin, lines_before) = (start + line, number);
                continue 'reader;
            }
            let fields: Option<Vec<String>> = record
                .iter()
                .map(|field| {
                    let text = std::str::from_utf8(field).ok()?;
                    let quoted = || text.strip_prefix('"')?.strip_suffix('"').map(|inner| inner.replace("\"\"", "\""));
                    Some(if tabs { quoted() } else { None }.unwrap_or_else(|| text.to_owned()))
                })
                .collect();
            if let (true, Some(fields)) = (rows.is_empty(), &fields) {
                n_columns = fields.len().max(2);
            }
            rows.push((number, fields.ok_or(BadRow::NotUtf8)));
        }
        return rows;
    }
}

fn reader(bytes: &[u8], separator: u8) -> csv::Reader<&[u8]> {
    let mut builder = csv::ReaderBuilder::new();
    builder.delimiter(separator).has_headers(false).flexible(true).quoting(separator != b'\t').from_reader(bytes)
}

fn n_line_breaks(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// Whether a record holds other rows because a quote in it does not close where it should.
fn swallows_rows(raw: &[u8], separator: u8, n_columns: usize) -> bool {
    has_open_quote(raw, separator)
        || raw.split(|&byte| byte == b'\n').skip(1).any(|line| is_whole_row(line, separator, n_columns))
}

/// Whether a quoted field never ends, or goes on over a line break and then ends in the middle of something.
fn has_open_quote(raw: &[u8], separator: u8) -> bool {
    let mut at = 0;
    loop {
        if raw.get(at) == Some(&b'"') {
            let opened = at;
            at += 1;
            loop {
                match (raw.get(at), raw.get(at + 1)) {
                    (None, _) => return true,
                    (Some(b'"'), Some(b'"')) => at += 2,
                    (Some(b'"'), _) => break,
                    _ => at += 1,
                }
            }
            at += 1;
            let closes = raw.get(at).is_none_or(|&byte| byte == separator || b"\r\n".contains(&byte));
            if !closes && raw[opened..at].contains(&b'\n') {
                return true;
            }
        }
        match raw[at..].iter().position(|&byte| byte == separator) {
            Some(length) => at += length + 1,
            None => return false,
        }
    }
}

/// Whether a line inside a quoted field is a row of its own: it has the columns of one, and names a photo before any
/// quote in which the field could end.
fn is_whole_row(line: &[u8], separator: u8, n_columns: usize) -> bool {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == separator).collect();
    let names_photo = |field: &&[u8]| std::str::from_utf8(field).is_ok_and(|name| photos::is_photo_name(name.trim()));
    fields.len() >= n_columns && fields.iter().take_while(|field| !field.contains(&b'"')).any(names_photo)
}

/// The separator whose rows agree best in their number of columns, two or more; known headers decide between equals.
fn guess_separator(bytes: &[u8]) -> u8 {
    let score = |&separator: &u8| -> (bool, usize, usize) {
        let rows = rows(bytes, separator, 100);
        let mut rows = rows.iter().filter_map(|(_, row)| row.as_ref().ok());
        let Some(first) = rows.next().filter(|first| first.len() > 1) else { return (false, 0, 0) };
        let known = first.iter().any(|name| matches(name, IMAGE_NAMES))
            && first.iter().any(|name| matches(name, SENTENCE_NAMES))
            || first.iter().any(|field| photos::is_photo_name(field));
        let agreeing = rows.filter(|row| row.len() == first.len()).count();
        // Fewer columns, where all else is equal: a comma inside sentences must not beat the tab.
        (known, agreeing, usize::MAX - first.len())
    };
    SEPARATORS.into_iter().rev().max_by_key(score).expect("there are separators")
}

/// Whether a header names such a column: `caption`, `Caption`, `caption_1`, `caption 2`.
fn matches(header: &str, names: &[&str]) -> bool {
    let header = header.trim().to_lowercase().replace([' ', '-'], "_");
    let bare = header.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_');
    names.contains(&header.as_str()) || (!bare.is_empty() && names.contains(&bare))
}

fn shape(names: &[String], has_header: bool, rows: &[&[String]], options: &ImportOptions) -> Result<Shape, String> {
    let header = names.join(", ");
    let by_name = |wanted: &Option<String>, what: &str| -> Result<Option<usize>, String> {
        let Some(wanted) = wanted else { return Ok(None) };
        let found = names.iter().position(|name| name.eq_ignore_ascii_case(wanted));
        found.map(Some).ok_or_else(|| format!("no column `{wanted}` for the {what}: the columns are {header}"))
    };
    let known = |wanted: &[&str]| -> Option<usize> {
        // In the order of the names, so that `image` wins over `image_id`.
        let position = |name: &&str| names.iter().position(|header| matches(header, &[name]));
        has_header.then(|| wanted.iter().find_map(position)).flatten()
    };
    let share = |i: usize, test: &dyn Fn(&str) -> bool| {
        rows.iter().filter(|row| row.get(i).is_some_and(|field| test(field.trim()))).count() * 2 > rows.len()
    };
    let image = match by_name(&options.columns.image, "photo")? {
        Some(i) => i,
        None => (0..names.len())
            .find(|&i| share(i, &photos::is_photo_name))
            .or_else(|| known(IMAGE_NAMES))
            .ok_or_else(|| format!("found no column of photos: the columns are {header}; name it"))?,
    };
    let split = by_name(&options.columns.split, "split")?
        .or_else(|| known(SPLIT_NAMES))
        .or_else(|| (0..names.len()).find(|&i| i != image && share(i, &|field| field.parse::<Split>().is_ok())));
    let sentences = match by_name(&options.columns.sentence, "sentence")? {
        Some(i) => vec![i],
        None => {
            let named: Vec<usize> = (0..names.len())
                .filter(|&i| i != image && Some(i) != split && has_header && matches(&names[i], SENTENCE_NAMES))
                .collect();
            // `caption` and `description`: two kinds of text, of which the better known name is the sentence;
            // `caption_1` to `caption_5`: five sentences.
            let numbered = named.iter().all(|&i| names[i].trim().ends_with(|c: char| c.is_ascii_digit()));
            if named.len() == 1 || named.len() > 1 && numbered {
                named
            } else if let Some(best) = known(SENTENCE_NAMES).filter(|best| named.contains(best)) {
                vec![best]
            } else {
                let words = |i: usize| -> usize {
                    rows.iter().filter_map(|row| row.get(i)).map(|field| field.split_whitespace().count()).sum()
                };
                let others = (0..names.len()).filter(|&i| i != image && Some(i) != split);
                let wordy = others.max_by_key(|&i| words(i)).filter(|&i| words(i) > 0);
                vec![wordy.ok_or_else(|| format!("found no column of sentences: the columns are {header}; name it"))?]
            }
        }
    };
    Ok(Shape { image, sentences, split, n_columns: names.len() })
}
