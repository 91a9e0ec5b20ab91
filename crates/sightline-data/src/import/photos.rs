//! Where the photos lie that a source names.

use std::path::{Path, PathBuf};

/// Extensions of files taken for photos.
pub(super) const EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"];

/// Folders that photos usually lie in, relative to the source.
const FOLDERS: [&str; 15] = [
    "",
    "images",
    "imgs",
    "Images",
    "img",
    "photos",
    "train2014",
    "val2014",
    "train2017",
    "val2017",
    "Flicker8k_Dataset",
    "Flickr8k_Dataset",
    "flickr30k-images",
    "flickr30k_images",
    "flickr30k_images/flickr30k_images",
];

/// Whether a file name ends like a photo's.
pub fn is_photo_name(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

/// Finds photos below one root.
pub(super) struct Finder {
    pub(super) root: PathBuf,
    /// Folders below the root; the one that last held a photo comes first.
    folders: Vec<&'static str>,
}

impl Finder {
    /// Tries the first names in every likely root and takes the one that holds most of them.
    pub(super) fn new<'a>(roots: &[PathBuf], names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().take(50).collect();
        let mut finders = roots.iter().map(|root| Self {
            root: root.clone(),
            folders: FOLDERS.into_iter().filter(|folder| root.join(folder).is_dir()).collect(),
        });
        let mut best = finders.next().expect("at least one root");
        let mut most = best.hits(&names);
        for mut finder in finders {
            let hits = finder.hits(&names);
            if hits > most {
                (best, most) = (finder, hits);
            }
        }
        best
    }

    fn hits(&mut self, names: &[&str]) -> usize {
        names.iter().filter(|name| self.find(name).is_some()).count()
    }

    /// The photo's path below the root, with `/` between folders.
    pub(super) fn find(&mut self, name: &str) -> Option<String> {
        for i in 0..self.folders.len() {
            let folder = self.folders[i];
            let relative = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            if self.root.join(&relative).is_file() {
                self.folders[..=i].rotate_right(1);
                return Some(relative);
            }
        }
        // Written on Windows, read elsewhere.
        (name.contains('\\') && !cfg!(windows)).then(|| self.find(&name.replace('\\', "/"))).flatten()
    }
}

/// The folder of the source and the one above it, in which `annotations` and the like lie beside the photos.
pub(super) fn likely_roots(folder: &Path) -> Vec<PathBuf> {
    let mut roots = vec![folder.to_owned()];
    if let Some(parent) = folder.parent() {
        roots.push(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() });
    }
    roots
}
