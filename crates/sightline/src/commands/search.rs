//! `search`: photos of an index by words, by a photo, by a box of a photo; every hit with its reasons.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args as ClapArgs;
use sightline_data::BoxXyxy;
use sightline_vision::Photo;

use super::index::{self, NetworkArgs};
use crate::index::date;
use crate::index::search::{Answer, Filters, Like, Question, Request, Searcher, open_models};
use crate::ui::{Ui, Usage, count, table, visible};

/// Find photos by words, and see which word matched which region
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  sightline search \"a dog in the snow\" ~/Pictures                   # indexes what is new first
  sightline search \"a dog catching a ball\" --index pictures.index
  sightline search \"beach\" --not people --from 2023 --until 2024-06 --index pictures.index
  sightline search --photo sunset.jpg --index pictures.index
  sightline search --photo street.jpg --box 40,60,200,220 --index pictures.index
  sightline search \"two children\" --index pictures.index -0 | xargs -0 feh")]
pub struct Args {
    /// What the photos show, in words; then, without --index, the folder of photos
    #[arg(value_name = "WORDS|FOLDER")]
    words: Vec<OsString>,
    /// An index of `sightline index`
    #[arg(long)]
    index: Option<PathBuf>,
    /// Find photos like this one
    #[arg(long, value_name = "FILE")]
    photo: Option<PathBuf>,
    /// Only this part of --photo counts: left, top, right, bottom in pixels
    #[arg(long, value_name = "X1,Y1,X2,Y2", requires = "photo", value_parser = parse_box)]
    r#box: Option<BoxXyxy>,
    /// What the photos should not show; may be given several times
    #[arg(long, value_name = "WORDS")]
    not: Vec<String>,
    /// Only photos below this folder, named as from the indexed one or in full
    #[arg(long, default_value = "", hide_default_value = true)]
    folder: String,
    /// Only photos taken on this day or later: 2023, 2023-06 or 2023-06-15
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// Only photos taken on this day or earlier
    #[arg(long, value_name = "DATE")]
    until: Option<String>,
    /// Only photos at least this large, in pixels
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = parse_size)]
    min_size: Option<(u32, u32)>,
    /// Only photos at most this large, in pixels
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = parse_size)]
    max_size: Option<(u32, u32)>,
    /// Most photos
    #[arg(short, long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    n: u64,
    /// Show every photo, even those that look the same
    #[arg(long)]
    all: bool,
    /// Print paths alone, each followed by a zero byte
    #[arg(short = '0', long = "print0", conflicts_with = "json")]
    print0: bool,
    #[command(flatten)]
    networks: NetworkArgs,
}

/// Asks and prints.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let folder = real_folder(&args.folder);
    let filters = filters(&folder, args.from.as_deref(), args.until.as_deref(), args.min_size, args.max_size)?;
    let like = args.photo.as_deref().map(Photo::open).transpose()?.map(Like::Picture);
    let reads_photos = like.is_some();
    let (words, index) = match &args.index {
        Some(index) => (args.words.as_slice(), index.clone()),
        None => of_folder(&args.words, &args.networks, ui)?,
    };
    let NetworkArgs { model, backbone, proposals, device } = &args.networks;
    let (backbone, proposals) = (backbone.as_deref(), proposals.as_deref());
    let models = open_models(&index, model.as_deref(), backbone, proposals, reads_photos, &device.open()?, ui)?;
    let searcher = Searcher::open(&index, Arc::new(models))?;
    let request = Request {
        text: words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "),
        not: args.not.join(" "),
        like,
        region: args.r#box,
        filters,
        n: usize::try_from(args.n).unwrap_or(usize::MAX),
        fold: !args.all,
    };
    let answer = searcher.answer(request).map_err(|error| match error.downcast_ref::<Question>() {
        Some(
            Question::Empty
            | Question::TooLong(_)
            | Question::EmptyBox(..)
            | Question::SmallBox(_)
            | Question::NoFolder(_),
        ) => Usage(error.to_string()).into(),
        _ => error,
    })?;
    if !answer.unknown.is_empty() {
        ui.say(format_args!("the model does not know, and left out: {}", answer.unknown.join(", ")));
    }
    if !answer.answered {
        ui.say(if answer.hits.is_empty() {
            format!("none of {}", count(answer.searched, "photo"))
        } else {
            "nothing here matches well; the nearest photos are".to_owned()
        });
    }
    if args.print0 {
        let mut out = std::io::stdout().lock();
        for hit in &answer.hits {
            out.write_all(&crate::index::walk::to_bytes(&searcher.file(hit.id)?))?;
            out.write_all(b"\0")?;
        }
        return Ok(out.flush()?);
    }
    ui.result(&answer, || text(&answer))
}

/// The words before the last, and the index of the folder that the last one names, brought up to date.
fn of_folder<'a>(words: &'a [OsString], networks: &NetworkArgs, ui: &Ui) -> anyhow::Result<(&'a [OsString], PathBuf)> {
    let usage = "where are the photos? name their folder behind the words, or an index with --index";
    let (folder, words) = words.split_last().ok_or_else(|| Usage(usage.into()))?;
    let folder = Path::new(folder);
    if !folder.is_dir() {
        return Err(Usage(format!("{} is no folder; {usage}", folder.display())).into());
    }
    let updated = index::update(&index::Args::of_folder(folder, networks), ui)?;
    if updated.is_news() {
        ui.say(updated.text());
    }
    Ok((words, updated.index))
}

/// A folder that is named in full without symbolic links on its way, as an index knows its own; other words as they are.
fn real_folder(folder: &str) -> String {
    let real = Path::new(folder).is_absolute().then(|| Path::new(folder).canonicalize().ok()).flatten();
    real.and_then(|real| real.into_os_string().into_string().ok()).unwrap_or_else(|| folder.to_owned())
}

/// Filters from words; an error of usage where a date is none, or where nothing could pass them.
pub fn filters(
    folder: &str,
    from: Option<&str>,
    until: Option<&str>,
    least: Option<(u32, u32)>,
    most: Option<(u32, u32)>,
) -> anyhow::Result<Filters> {
    let date = |text: &str| {
        date::parse(text).ok_or_else(|| Usage(format!("date {text}: expected 2023, 2023-06 or 2023-06-15")))
    };
    let first = from.map(date).transpose()?.map(|(first, _)| first);
    let next = until.map(date).transpose()?.map(|(_, next)| next);
    if let (Some(from), Some(until)) = (from, until)
        && first >= next
    {
        return Err(Usage(format!("from {from} until {until}: no day is between them")).into());
    }
    if let (Some(least), Some(most)) = (least, most)
        && (least.0 > most.0 || least.1 > most.1)
    {
        let ((w1, h1), (w2, h2)) = (least, most);
        return Err(Usage(format!("at least {w1}x{h1} and at most {w2}x{h2} pixels: no photo is both")).into());
    }
    Ok(Filters { folder: folder.to_owned(), from: first, until: next, least, most })
}

/// Four numbers with commas between.
pub fn parse_box(text: &str) -> Result<BoxXyxy, String> {
    let numbers: Vec<f32> = text.split(',').filter_map(|part| part.trim().parse().ok()).collect();
    match numbers[..] {
        [x1, y1, x2, y2] if numbers.iter().all(|x| x.is_finite()) && text.split(',').count() == 4 => {
            Ok(BoxXyxy { x1, y1, x2, y2 })
        }
        _ => Err("expected left, top, right and bottom in pixels, 40,60,200,220 say".to_owned()),
    }
}

/// `800x600`.
pub fn parse_size(text: &str) -> Result<(u32, u32), String> {
    let (width, height) = text.split_once('x').unwrap_or(("", ""));
    match (width.parse(), height.parse()) {
        (Ok(width), Ok(height)) => Ok((width, height)),
        _ => Err("expected width and height in pixels, 800x600 say".to_owned()),
    }
}

fn text(answer: &Answer) -> String {
    let mut rows = vec![["photo", "score", "word → region (score)"].map(str::to_owned).to_vec()];
    for hit in &answer.hits {
        let words: Vec<String> = (hit.words.iter().filter(|word| word.matched))
            .map(|word| {
                let [x1, y1, x2, y2] = word.region_box.map(|x| x.round() as i64);
                format!("{} → [{x1} {y1} {x2} {y2}] ({:.2})", word.word, word.score)
            })
            .collect();
        rows.push(vec![visible(&hit.image).into_owned(), format!("{:.2}", hit.score), words.join(", ")]);
        for duplicate in &hit.duplicates {
            rows.push(vec![format!("  like it: {}", visible(duplicate))]);
        }
    }
    let mut text = String::new();
    // The reasons are as long as they are: only the first two columns are aligned.
    let heads = table(&rows.iter().map(|row| row[..row.len().min(2)].to_vec()).collect::<Vec<_>>());
    for (head, row) in heads.lines().zip(&rows) {
        text.push_str(head);
        if let Some(words) = row.get(2).filter(|words| !words.is_empty()) {
            text.push_str(&format!("  {words}"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::search::{HitRecord, WordRecord};

    #[test]
    fn a_name_with_a_line_break_keeps_every_hit_on_its_line() {
        let word = WordRecord { word: "dog".into(), region: 0, region_box: [0.0; 4], score: 1.0, matched: true };
        let hit = |image: &str, score: f32, duplicates: &[&str]| HitRecord {
            image: image.into(),
            score,
            words: vec![WordRecord { score, ..word.clone() }],
            id: 1,
            width: 1,
            height: 1,
            taken: String::new(),
            duplicates: duplicates.iter().map(|&name| name.to_owned()).collect(),
        };
        let answer = Answer {
            known: Vec::new(),
            unknown: Vec::new(),
            deviations: None,
            score_per_word: None,
            floor: None,
            answered: true,
            searched: 2,
            hits: vec![hit("a\nb.jpg", 2.0, &["c\u{1b}[31m.jpg"]), hit("d.jpg", 1.0, &[])],
        };
        let text = text(&answer);
        let lines: Vec<&str> = text.lines().skip(1).map(str::trim_end).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with("a\\nb.jpg") && lines[0].ends_with("dog → [0 0 0 0] (2.00)"), "{text}");
        assert_eq!(lines[1].trim_start(), "like it: c\\u{1b}[31m.jpg");
        assert!(lines[2].starts_with("d.jpg") && lines[2].ends_with("dog → [0 0 0 0] (1.00)"), "{text}");
    }

    #[test]
    fn filters_that_nothing_passes_are_refused() {
        let size = |side: u32| Some((side, side));
        for (from, until, least, most) in [
            (Some("2024"), Some("2023"), None, None),
            (Some("2024-06"), Some("2024-05-31"), None, None),
            (None, None, size(9), Some((8, 20))),
        ] {
            let error = filters("", from, until, least, most).unwrap_err();
            assert!(error.is::<Usage>(), "{error}");
        }
        let day = Some("2024-05-31");
        assert!(filters("", day, day, size(9), size(9)).is_ok());
        assert!(filters("", Some("2024"), Some("2024-01"), None, None).is_ok());
    }
}
