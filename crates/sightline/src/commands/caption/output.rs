//! Where captions go besides stdout: text files, a CSV file, a page.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use sightline_data::write;
use sightline_vision::Photo;

use crate::describe::Described;
use crate::panels;
use crate::places;
use crate::report::{self, PhotoPanel, Report};
use crate::ui::{Ui, Usage, count};

/// The columns of a CSV file; the box in pixels, where the captions of regions stand there too.
const COLUMNS: [&str; 8] = ["image", "rank", "caption", "log_probability", "x1", "y1", "x2", "y2"];
/// Those of whole photos.
const OF_PHOTOS: usize = 4;
/// Longest side of a photo on the page, in pixels.
const THUMBNAIL_SIDE: u32 = 480;

/// The files that captions are written to.
pub(super) struct Outputs<'a> {
    texts: Option<&'a Path>,
    csv: Option<Table>,
    html: Option<&'a Path>,
    panels: Vec<PhotoPanel>,
}

/// A CSV file under way.
struct Table {
    file: File,
    path: PathBuf,
    /// Bytes of whole lines.
    length: u64,
    columns: &'static [&'static str],
    /// The photos that an earlier run described.
    done: HashSet<String>,
    /// The photo whose lines were cut off, the last of them being torn.
    torn: Option<String>,
}

/// A photo's key and path.
type Named = (String, PathBuf);

impl<'a> Outputs<'a> {
    /// Opens what was asked for; a CSV file that exists is added to, and has captions of regions where it is `with_regions`.
    /// Whether the page can be written is found out now rather than after the last photo. None of them is one of the models
    /// that are `read`; a picture is never written over.
    pub(super) fn open(
        read: &[PathBuf],
        texts: Option<&'a Path>,
        csv: Option<&Path>,
        html: Option<&'a Path>,
        with_regions: bool,
        ui: &Ui,
    ) -> anyhow::Result<Self> {
        if let Some(folder) = texts {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        // The table is added to, so it alone need not be a file that may be replaced.
        places::check(read.iter().map(PathBuf::as_path).chain(csv), html)?;
        let csv = csv.map(|path| Table::open(path, with_regions)).transpose()?;
        if let Some((table, image)) = csv.as_ref().and_then(|table| Some((table, table.torn.as_ref()?))) {
            let path = table.path.display();
            ui.say(format_args!("{path} ends in the middle of a line: the captions of {image} are taken out"));
        }
        Ok(Self { texts, csv, html, panels: Vec::new() })
    }

    /// Whether any file was asked for.
    pub(super) fn are_wanted(&self) -> bool {
        self.texts.is_some() || self.csv.is_some() || self.html.is_some()
    }

    /// Whether everything that was asked for is there for this photo already. A page is always drawn anew.
    pub(super) fn has(&self, key: &str, path: &Path) -> bool {
        let in_texts = self.texts.is_none_or(|folder| text_path(folder, key).exists());
        let in_csv = self.csv.as_ref().is_none_or(|table| table.done.contains(&path.display().to_string()));
        (self.texts.is_some() || self.csv.is_some()) && self.html.is_none() && in_texts && in_csv
    }

    /// Where the photos that [`Outputs::has`] knows are described, and what to do about others of their names.
    pub(super) fn places(&self) -> String {
        let table = self.csv.as_ref().map(|table| format!("its lines in {}", table.path.display()));
        let Some(folder) = self.texts else {
            return format!("each has {}", table.unwrap_or_default());
        };
        let also = table.map_or_else(String::new, |table| format!(" and {table}"));
        format!("each has a text in {}{also}; name another folder for other photos of these names", folder.display())
    }

    /// Writes one photo's captions.
    pub(super) fn add(&mut self, key: &str, described: &Described, photo: &Photo) -> anyhow::Result<()> {
        if let Some(folder) = self.texts {
            let path = text_path(folder, key);
            // A page shows all photos, those too that have a text, which somebody may have mended.
            if !path.exists() {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
                }
                let lines: String = described.captions.iter().map(|c| format!("{}\n", c.text)).collect();
                write::atomically(&path, |file| file.write_all(lines.as_bytes()))?;
            }
        }
        if let Some(table) = self.csv.as_mut().filter(|table| !table.done.contains(&described.image)) {
            table.add(described)?;
        }
        if self.html.is_some() {
            self.panels.push(PhotoPanel {
                key: key.to_owned(),
                width: photo.width,
                height: photo.height,
                thumbnail: report::thumbnail(photo.width, photo.height, &photo.pixels, THUMBNAIL_SIDE)
                    .with_context(|| format!("cannot make a thumbnail of {key}"))?,
                matches: Vec::new(),
                true_sentences: Vec::new(),
                captions: described.captions.iter().cloned().map(panels::caption).collect(),
                regions: described.regions.clone().unwrap_or_default(),
            });
        }
        Ok(())
    }

    /// Draws the page, if one was asked for.
    pub(super) fn finish(self, ui: &Ui) -> anyhow::Result<()> {
        let Some(path) = self.html else { return Ok(()) };
        let page = Report {
            version: report::VERSION,
            title: "Photos described by Sightline".to_owned(),
            subtitle: format!("{}, a line from every region to what is said of it", count(self.panels.len(), "photo")),
            command: Some(std::env::args().collect::<Vec<_>>().join(" ")),
            threshold: report::DEFAULT_THRESHOLD,
            tables: Vec::new(),
            photos: self.panels,
        };
        report::write(path, &page)?;
        ui.say(format_args!("page written to {}", path.display()));
        Ok(())
    }
}

impl Table {
    /// A new file, or one to go on with: what is whole stays.
    fn open(path: &Path, with_regions: bool) -> anyhow::Result<Self> {
        let columns = if with_regions { &COLUMNS[..] } else { &COLUMNS[..OF_PHOTOS] };
        let cannot = |action: &str| format!("cannot {action} {}", path.display());
        anyhow::ensure!(!path.exists() || path.is_file(), "{} is no file: name one", path.display());
        let open = OpenOptions::new().create(true).read(true).append(true).open(path);
        let mut file = open.with_context(|| cannot("write"))?;
        if let Err(TryLockError::WouldBlock) = write::lock(&file) {
            anyhow::bail!("another run of `caption` writes to {}: wait for it, or name another file", path.display());
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).with_context(|| cannot("read"))?;
        let whole = Whole::of(&text, columns).with_context(|| path.display().to_string())?;
        file.set_len(whole.length).with_context(|| cannot("write"))?;
        let Whole { length, done, torn } = whole;
        let mut table = Self { file, path: path.to_owned(), length, columns, done, torn };
        if table.length == 0 {
            table.append(&header(columns))?;
        }
        Ok(table)
    }

    /// All lines of a photo at once, so that a kill leaves all or none of them.
    fn add(&mut self, described: &Described) -> anyhow::Result<()> {
        let mut lines = csv::Writer::from_writer(Vec::new());
        let of_photo = described.captions.iter().map(|c| (&c.text, c.log_probability.to_string(), None));
        let regions = described.regions.iter().flatten().filter(|_| self.columns.len() > OF_PHOTOS);
        let of_regions =
            regions.map(|c| (&c.text, c.log_probability.to_string(), Some(<[f32; 4]>::from(c.region_box))));
        for (rank, (text, probability, corners)) in of_photo.enumerate().chain(of_regions.enumerate()) {
            let mut line = vec![described.image.clone(), (rank + 1).to_string(), text.clone(), probability];
            line.extend(corners.iter().flatten().map(f32::to_string));
            line.resize(self.columns.len(), String::new());
            lines.write_record(&line)?;
        }
        self.append(&lines.into_inner().map_err(|error| error.into_error())?)?;
        self.done.insert(described.image.clone());
        Ok(())
    }

    fn append(&mut self, lines: &[u8]) -> anyhow::Result<()> {
        if let Err(error) = self.file.write_all(lines) {
            // Takes back what a full disk had room for; where that fails, the next run finds a torn line.
            let _ = self.file.set_len(self.length);
            return Err(error).with_context(|| format!("cannot write {}", self.path.display()));
        }
        self.length += lines.len() as u64;
        Ok(())
    }
}

fn header(columns: &[&str]) -> Vec<u8> {
    format!("{}\n", columns.join(",")).into_bytes()
}

/// What is whole of a table that an earlier run wrote.
#[derive(Debug, PartialEq)]
struct Whole {
    /// In bytes, from the beginning.
    length: u64,
    /// The photos that are described there.
    done: HashSet<String>,
    /// The photo whose lines were cut off, the last of them being torn.
    torn: Option<String>,
}

impl Whole {
    /// Cuts off a torn last line, with all lines of its photo.
    fn of(text: &[u8], columns: &[&str]) -> anyhow::Result<Self> {
        let header = header(columns);
        if header.starts_with(text) && text.len() < header.len() {
            return Ok(Self { length: 0, done: HashSet::new(), torn: None });
        }
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text);
        anyhow::ensure!(
            *reader.byte_headers()? == *columns,
            "no table of captions: expected the columns {}; name another file",
            columns.join(", ")
        );
        // Where each record begins, its photo, and how many fields it has.
        let mut records = Vec::new();
        for record in reader.byte_records() {
            let record = record?;
            let start = record.position().expect("a record that was read has a place").byte() as usize;
            let image = String::from_utf8_lossy(&record[0]).into_owned();
            records.push((start, image, record.len()));
        }
        let (mut length, mut torn) = (text.len(), None);
        if !text.ends_with(b"\n")
            && let Some((start, image, n_fields)) = records.pop()
        {
            length = start;
            // A name without a comma behind it may be torn itself: then the line may be the photo's before.
            torn = if n_fields > 1 { Some(image) } else { records.last().map(|(_, image, _)| image.clone()) };
            while let Some((start, ..)) = records.pop_if(|(_, image, _)| Some(&*image) == torn.as_ref()) {
                length = start;
            }
        }
        if let Some(i) = records.iter().position(|(.., n_fields)| *n_fields != columns.len()) {
            let (_, image, n_fields) = &records[i];
            anyhow::bail!(
                "caption {} ({image}) has {n_fields} columns, expected {}: mend it, or name another file",
                i + 1,
                columns.len()
            );
        }
        let done = records.into_iter().map(|(_, image, _)| image).collect();
        Ok(Self { length: length as u64, done, torn })
    }
}

/// An error where two photos would be described in one place: a text goes by the photo's name in its folder, a line of a
/// table by its path.
pub(super) fn check_apart(photos: &[Named], texts: Option<&Path>, table: bool) -> anyhow::Result<()> {
    if let Some(folder) = texts
        && let Some((a, b)) = clash(photos, |key, _| text_path(folder, key).display().to_string())
    {
        let text = text_path(folder, &a.0);
        let reason = format!(
            "{:?} and {:?} would both be described in {}: describe them in two runs, each with a folder of its own for \
             --texts, or rename one",
            a.1,
            b.1,
            text.display()
        );
        return Err(Usage(reason).into());
    }
    if table && let Some((a, b)) = clash(photos, |_, path| path.display().to_string()) {
        return Err(Usage(format!("{:?} and {:?} look the same in a table: rename one", a.1, b.1)).into());
    }
    Ok(())
}

/// The first two photos that have one name and are not the same file.
fn clash(photos: &[Named], name: impl Fn(&str, &Path) -> String) -> Option<(&Named, &Named)> {
    let mut seen: HashMap<String, &Named> = HashMap::new();
    let is_same =
        |a: &Path, b: &Path| a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    photos.iter().find_map(|photo| {
        let other = *seen.entry(name(&photo.0, &photo.1)).or_insert(photo);
        (!is_same(&other.1, &photo.1)).then_some((other, photo))
    })
}

/// `FOLDER/photo.jpg.txt`, so that photos that differ in their ending alone stay apart. A dataset's photos may lie anywhere;
/// their texts lie in the folder.
fn text_path(folder: &Path, key: &str) -> PathBuf {
    let named = format!("{key}.txt");
    let within = Path::new(&named).components().filter(|part| matches!(part, Component::Normal(_)));
    folder.join(within.collect::<PathBuf>())
}

#[cfg(test)]
mod tests {
    use sightline_data::BoxXyxy;
    use sightline_train::caption::Caption;

    use super::*;
    use crate::report::RegionCaption;
    use crate::ui::one_line;

    fn described(image: &str, text: &str) -> Described {
        let caption = Caption { text: text.to_owned(), log_probability: -1.5, word_regions: Vec::new() };
        Described { image: image.to_owned(), captions: vec![caption], boxes: Vec::new(), regions: None }
    }

    #[test]
    fn a_table_goes_on_after_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("captions.csv");
        let mut table = Table::open(&path, false).unwrap();
        table.add(&described("a,b.jpg", "two \"dogs\"")).unwrap();
        assert!(table.done.contains("a,b.jpg"), "whoever is named twice is described once");
        table.add(&described("c.jpg", "a cat")).unwrap();
        drop(table);
        let whole = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            whole,
            "image,rank,caption,log_probability\n\"a,b.jpg\",1,\"two \"\"dogs\"\"\",-1.5\nc.jpg,1,a cat,-1.5\n"
        );
        std::fs::write(&path, &whole[..whole.len() - 4]).unwrap();
        let mut table = Table::open(&path, false).unwrap();
        assert_eq!(table.done, HashSet::from(["a,b.jpg".to_owned()]));
        assert_eq!(table.torn.as_deref(), Some("c.jpg"));
        table.add(&described("c.jpg", "a cat")).unwrap();
        drop(table);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        std::fs::write(&path, "x,y\n1,2\n").unwrap();
        check_refused(&path, "no table of captions");
    }

    #[test]
    fn a_table_of_regions_has_their_boxes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("captions.csv");
        let region_box = BoxXyxy { x1: 1.0, y1: 2.5, x2: 30.0, y2: 40.0 };
        let region =
            RegionCaption { region_box, text: "a red, \"round\" ball".into(), log_probability: -0.5, score: None };
        let described = Described { regions: Some(vec![region]), ..described("a.jpg", "a dog") };
        let mut table = Table::open(&path, true).unwrap();
        table.add(&described).unwrap();
        drop(table);
        let whole = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        assert_eq!(lines[0], "image,rank,caption,log_probability,x1,y1,x2,y2");
        assert_eq!(lines[1..], ["a.jpg,1,a dog,-1.5,,,,", "a.jpg,1,\"a red, \"\"round\"\" ball\",-0.5,1,2.5,30,40"]);
        // A torn line of a region costs the photo's lines; a table of photos alone is another table.
        std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        assert_eq!(Table::open(&path, true).unwrap().torn.as_deref(), Some("a.jpg"));
        std::fs::write(&path, &whole).unwrap();
        check_refused(&path, "expected the columns image, rank, caption, log_probability; name another file");
        let photos = folder.path().join("photos.csv");
        drop(Table::open(&photos, false).unwrap());
        let error = one_line(&Table::open(&photos, true).err().unwrap());
        assert!(error.contains("log_probability, x1, y1, x2, y2"), "{error}");
        let mut table = Table::open(&folder.path().join("new.csv"), false).unwrap();
        table.add(&described).unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("new.csv")).unwrap().lines().count(), 2);
    }

    fn check_refused(path: &Path, expected: &str) {
        let before = std::fs::read(path).unwrap();
        let error = one_line(&Table::open(path, false).err().unwrap());
        assert!(error.starts_with(&path.display().to_string()) && error.contains(expected), "{error}");
        assert_eq!(std::fs::read(path).unwrap(), before, "a refused file stays as it was");
    }

    #[test]
    fn a_file_that_is_no_table_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        for content in ["x", "image;rank", "image,rank,caption,log_probabilityx", "notes\nof mine", "\n", "\u{ff}\0"] {
            std::fs::write(&path, content).unwrap();
            check_refused(&path, "no table of captions");
        }
        std::fs::write(&path, "image,rank,caption,log_probability\na.jpg,1,a dog,-1\nmine\nb.jpg,1,a cat,-1\n")
            .unwrap();
        check_refused(&path, "caption 2 (mine) has 1 columns, expected 4");
    }

    #[test]
    fn a_torn_photo_is_described_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("captions.csv");
        let photos = [("a.jpg", ["a dog", "two dogs"]), ("b\nc.jpg", ["a cat", "two, cats"])].map(|(image, texts)| {
            let [first, second] = texts.map(|text| described(image, text).captions.remove(0));
            Described { captions: vec![first, second], ..described(image, "") }
        });
        let add_missing = || {
            let mut table = Table::open(&path, false).unwrap();
            let missing: Vec<_> = photos.iter().filter(|photo| !table.done.contains(&photo.image)).collect();
            missing.into_iter().for_each(|photo| table.add(photo).unwrap());
        };
        add_missing();
        let whole = std::fs::read_to_string(&path).unwrap();
        assert_eq!(whole.lines().count(), 7);
        for cut in (0..whole.len()).filter(|&cut| !whole[..cut].ends_with('\n')) {
            std::fs::write(&path, &whole[..cut]).unwrap();
            add_missing();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), whole, "cut at {cut}");
        }
    }

    /// Linux's own full disk.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_named() {
        let Ok(file) = OpenOptions::new().write(true).open("/dev/full") else {
            eprintln!("skipped: /dev/full absent");
            return;
        };
        let mut table =
            Table { file, path: "captions.csv".into(), length: 0, columns: &COLUMNS, done: HashSet::new(), torn: None };
        let error = one_line(&table.add(&described("a.jpg", "a dog")).unwrap_err());
        assert!(error.starts_with("cannot write captions.csv: No space left"), "{error}");
    }

    #[test]
    fn a_page_drawn_again_repeats_no_lines() {
        let folder = tempfile::tempdir().unwrap();
        let (table, page) = (folder.path().join("captions.csv"), folder.path().join("page.html"));
        let draw = || {
            let mut outputs = Outputs::open(&[], None, Some(&table), Some(&page), false, &Ui::default()).unwrap();
            assert!(!outputs.has("a.jpg", Path::new("a.jpg")), "a page is always drawn anew");
            outputs.add("a.jpg", &described("a.jpg", "a dog"), &Photo::uniform(8, 8, [1, 2, 3])).unwrap();
            outputs.finish(&Ui { quiet: true, ..Ui::default() }).unwrap();
            (std::fs::read_to_string(&table).unwrap(), std::fs::read_to_string(&page).unwrap().contains("a dog"))
        };
        let first = draw();
        assert_eq!(first, ("image,rank,caption,log_probability\na.jpg,1,a dog,-1.5\n".to_owned(), true));
        assert_eq!(draw(), first);
    }

    #[test]
    fn a_table_has_one_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("captions.csv");
        let first = Table::open(&path, false).unwrap();
        let error = one_line(&Table::open(&path, false).err().unwrap());
        assert!(error.contains("another run of `caption` writes to"), "{error}");
        drop(first);
        Table::open(&path, false).unwrap();
    }

    #[test]
    fn texts_that_are_there_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (texts, page) = (folder.path().join("texts"), folder.path().join("page.html"));
        std::fs::create_dir(&texts).unwrap();
        std::fs::write(texts.join("a.jpg.txt"), "mended by hand").unwrap();
        let mut outputs = Outputs::open(&[], Some(&texts), None, Some(&page), false, &Ui::default()).unwrap();
        for key in ["a.jpg", "b.jpg"] {
            outputs.add(key, &described(key, "a dog"), &Photo::uniform(8, 8, [1, 2, 3])).unwrap();
        }
        assert_eq!(std::fs::read_to_string(texts.join("a.jpg.txt")).unwrap(), "mended by hand");
        assert_eq!(std::fs::read_to_string(texts.join("b.jpg.txt")).unwrap(), "a dog\n");
    }

    #[test]
    fn texts_lie_in_their_folder() {
        let texts = Path::new("texts");
        for (key, expected) in [
            ("a.jpg", "texts/a.jpg.txt"),
            ("own/a.jpg", "texts/own/a.jpg.txt"),
            ("/home/x/a.jpg", "texts/home/x/a.jpg.txt"),
            ("../../x/a.jpg", "texts/x/a.jpg.txt"),
        ] {
            assert_eq!(text_path(texts, key), Path::new(expected));
        }
        let photos = ["../a.jpg", "/a.jpg"].map(|key| (key.to_owned(), PathBuf::from(key)));
        assert!(check_apart(&photos, Some(texts), false).is_err());
    }

    #[test]
    fn photos_of_one_name_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let photo = |name: &str| (name.rsplit('/').next().unwrap().to_owned(), folder.path().join(name));
        for name in ["da/x.jpg", "db/x.jpg", "db/y.jpg"] {
            std::fs::create_dir_all(photo(name).1.parent().unwrap()).unwrap();
            std::fs::write(photo(name).1, name).unwrap();
        }
        let texts = Some(Path::new("tt"));
        let clashing = [photo("da/x.jpg"), photo("db/y.jpg"), photo("db/x.jpg")];
        let error = check_apart(&clashing, texts, false).unwrap_err();
        assert!(error.is::<Usage>());
        for part in ["da/x.jpg", "db/x.jpg", "tt/x.jpg.txt", "--texts"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        // In a table and on the screen the whole path tells them apart, and one photo twice is one.
        check_apart(&clashing, None, true).unwrap();
        check_apart(&[photo("da/x.jpg"), photo("da/../da/x.jpg")], texts, true).unwrap();
        #[cfg(target_os = "linux")]
        {
            use std::os::unix::ffi::OsStrExt;
            let odd = [&b"\xfe.jpg"[..], b"\xff.jpg"].map(|name| {
                let path = folder.path().join(std::ffi::OsStr::from_bytes(name));
                std::fs::write(&path, "x").unwrap();
                ("\u{fffd}.jpg".to_owned(), path)
            });
            for (texts, table) in [(texts, false), (None, true)] {
                let error = check_apart(&odd, texts, table).unwrap_err().to_string();
                assert!(error.contains("\\xFE.jpg") && error.contains("\\xFF.jpg"), "{error}");
            }
        }
    }
}
