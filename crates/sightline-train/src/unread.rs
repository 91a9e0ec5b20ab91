//! Photos that could be read once and cannot any more: a training goes on without them and names each as it finds out.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A photo and why it cannot be read.
pub(crate) type Missing = (String, String);

/// What several threads could not read.
#[derive(Debug, Default)]
pub(crate) struct Unread(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    all: BTreeSet<String>,
    /// Those that nobody was told of yet, sorted.
    news: BTreeSet<Missing>,
}

impl Unread {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A photo cannot be read; it may have been told before.
    pub(crate) fn add(&self, photo: &str, reason: &impl ToString) {
        let mut known = self.known();
        if known.all.insert(photo.to_owned()) {
            known.news.insert((photo.to_owned(), reason.to_string()));
        }
    }

    /// Whether a photo could not be read.
    pub(crate) fn contains(&self, photo: &str) -> bool {
        self.known().all.contains(photo)
    }

    /// What was found out since this was asked last.
    pub(crate) fn news(&self) -> Vec<Missing> {
        std::mem::take(&mut self.known().news).into_iter().collect()
    }

    /// All of them, by name.
    pub(crate) fn into_all(self) -> BTreeSet<String> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_photo_is_news_once() {
        let unread = Unread::default();
        unread.add("b", &"gone");
        unread.add("a", &"gone");
        unread.add("b", &"still gone");
        assert_eq!(unread.news(), [("a".to_owned(), "gone".to_owned()), ("b".to_owned(), "gone".to_owned())]);
        unread.add("a", &"gone");
        unread.add("c", &"cut short");
        assert_eq!(unread.news(), [("c".to_owned(), "cut short".to_owned())]);
        assert!(unread.contains("a") && !unread.contains("d"));
        assert_eq!(unread.into_all().into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}
