//! Where captions go besides stdout: text files, a CSV file, a page.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sightline_vision::Photo;

use crate::describe::Described;
use crate::panels;
use crate::report::{self, PhotoPanel, Report};
use crate::ui::{Ui, count};

/// The first line of a CSV file.
const HEADER: [&str; 4] = ["image", "rank", "caption", "log_probability"];
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
    writer: csv::Writer<File>,
    done: HashSet<String>,
}

impl<'a> Outputs<'a> {
    /// Opens what was asked for; a CSV file that exists is added to.
    pub(super) fn open(texts: Option<&'a Path>, csv: Option<&Path>, html: Option<&'a Path>) -> anyhow::Result<Self> {
        if let Some(folder) = texts {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        Ok(Self { texts, csv: csv.map(Table::open).transpose()?, html, panels: Vec::new() })
    }

    /// Whether everything that was asked for is there for this photo already. A page is always drawn anew.
    pub(super) fn has(&self, key: &str, path: &Path) -> bool {
        let in_texts = self.texts.is_none_or(|folder| text_path(folder, key).exists());
        let in_csv = self.csv.as_ref().is_none_or(|table| table.done.contains(&path.display().to_string()));
        (self.texts.is_some() || self.csv.is_some()) && self.html.is_none() && in_texts && in_csv
    }

    /// Writes one photo's captions.
    pub(super) fn add(&mut self, key: &str, described: &Described, photo: &Photo) -> anyhow::Result<()> {
        if let Some(folder) = self.texts {
            let path = text_path(folder, key);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
            }
            let lines: String = described.captions.iter().map(|c| format!("{}\n", c.text)).collect();
            sightline_data::write::atomically(&path, |file| file.write_all(lines.as_bytes()))?;
        }
        if let Some(table) = &mut self.csv {
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
    /// A new file, or one to go on with: whole lines stay, a torn last one is cut off.
    fn open(path: &Path) -> anyhow::Result<Self> {
        let cannot = |action: &str| format!("cannot {action} {}", path.display());
        let mut done = HashSet::new();
        let mut whole_bytes = 0;
        if path.exists() {
            let text = std::fs::read(path).with_context(|| cannot("read"))?;
            let complete = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
            let mut reader = csv::Reader::from_reader(&text[..complete]);
            let header = reader.headers().with_context(|| cannot("read"))?.clone();
            anyhow::ensure!(
                complete == 0 || header == HEADER[..],
                "{} is no table of captions: expected the columns {}; name another file",
                path.display(),
                HEADER.join(", ")
            );
            whole_bytes = complete;
            for record in reader.records() {
                let record = record.with_context(|| cannot("read"))?;
                done.extend(record.get(0).map(str::to_owned));
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path).with_context(|| cannot("write"))?;
        file.set_len(whole_bytes as u64).with_context(|| cannot("write"))?;
        let mut writer = csv::WriterBuilder::new().from_writer(file);
        if whole_bytes == 0 {
            writer.write_record(HEADER)?;
        }
        Ok(Self { writer, done })
    }

    /// All lines of a photo at once.
    fn add(&mut self, described: &Described) -> anyhow::Result<()> {
        for (rank, caption) in described.captions.iter().enumerate() {
            let (rank, probability) = ((rank + 1).to_string(), caption.log_probability.to_string());
            self.writer.write_record([&described.image, &rank, &caption.text, &probability])?;
        }
        Ok(self.writer.flush()?)
    }
}

/// `FOLDER/photo.jpg.txt`, so that photos that differ in their ending alone stay apart.
fn text_path(folder: &Path, key: &str) -> PathBuf {
    folder.join(format!("{key}.txt"))
}

#[cfg(test)]
mod tests {
    use sightline_train::caption::Caption;

    use super::*;

    fn described(image: &str, text: &str) -> Described {
        let caption = Caption { text: text.to_owned(), log_probability: -1.5, word_regions: Vec::new() };
        Described { image: image.to_owned(), captions: vec![caption], boxes: Vec::new(), regions: None }
    }

    #[test]
    fn a_table_goes_on_after_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("captions.csv");
        let mut table = Table::open(&path).unwrap();
        table.add(&described("a,b.jpg", "two \"dogs\"")).unwrap();
        table.add(&described("c.jpg", "a cat")).unwrap();
        drop(table);
        let whole = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            whole,
            "image,rank,caption,log_probability\n\"a,b.jpg\",1,\"two \"\"dogs\"\"\",-1.5\nc.jpg,1,a cat,-1.5\n"
        );
        std::fs::write(&path, &whole[..whole.len() - 4]).unwrap();
        let mut table = Table::open(&path).unwrap();
        assert_eq!(table.done, HashSet::from(["a,b.jpg".to_owned()]));
        table.add(&described("c.jpg", "a cat")).unwrap();
        drop(table);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        std::fs::write(&path, "x,y\n1,2\n").unwrap();
        let error = Table::open(&path).err().unwrap().to_string();
        assert!(error.contains("no table of captions"), "{error}");
    }
}
