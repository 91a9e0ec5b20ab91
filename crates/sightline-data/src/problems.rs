//! What was wrong with a source, counted by kind with a few examples each: nothing is ever left out silently.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

/// A kind of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProblemKind {
    /// A photo that the source names is not on the disk.
    PhotoMissing,
    /// A photo of which nothing is said.
    PhotoWithoutSentence,
    /// A photo named by no split list, or with an empty split, where others have one.
    PhotoWithoutSplit,
    /// The same photo twice; its sentences were put together.
    DuplicatePhoto,
    /// An id used twice; the second owner got a new one.
    DuplicateId,
    /// Sentences, boxes, pairs, vectors or a split list about a photo that is not there.
    UnknownPhoto,
    /// A photo of the dataset for which a source of vectors has none.
    PhotoWithoutVectors,
    /// A sentence without a word.
    EmptySentence,
    /// A sentence longer than the limit.
    LongSentence,
    /// A split that is none of ours.
    UnknownSplit,
    /// A key, or a column, that this program has no use for.
    UnknownKey,
    /// A row or record that makes no sense.
    BadRecord,
    /// A row with more columns than its header; the surplus was taken as part of the sentence.
    ExtraColumns,
    /// A text of a photo that has another one.
    SecondText,
    /// Text or a file name that is not UTF-8.
    NotUtf8,
    /// A box without area, or outside of all numbers.
    BadBox,
    /// A file or folder that the system would not let us read.
    Unreadable,
}

impl ProblemKind {
    /// What happened and what was done about it, for people.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::PhotoMissing => "photo not on the disk",
            Self::PhotoWithoutSentence => "photo without a sentence, kept out",
            Self::PhotoWithoutSplit => "photo in no split, kept out",
            Self::DuplicatePhoto => "photo named twice, its sentences put together",
            Self::DuplicateId => "id used twice, a new one given",
            Self::UnknownPhoto => "names a photo that is not there, kept out",
            Self::PhotoWithoutVectors => "photo of the dataset without vectors",
            Self::EmptySentence => "sentence without a word, kept out",
            Self::LongSentence => "sentence over the limit of words, kept out",
            Self::UnknownSplit => "split that is none of train, val, test, restval; its photos kept out",
            Self::UnknownKey => "key unknown here, kept out",
            Self::BadRecord => "record that makes no sense, kept out",
            Self::ExtraColumns => "row with more columns than the header, the surplus taken into the sentence",
            Self::SecondText => "second text of a photo, kept out: put its sentences into the first",
            Self::NotUtf8 => "text that is not UTF-8, kept out",
            Self::BadBox => "box without area, kept out",
            Self::Unreadable => "cannot be read, kept out",
        }
    }
}

/// How often one kind of problem was met, and where at first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counted {
    /// How often.
    pub count: u64,
    /// Some of the places, the first ones; for unknown keys all names, with how often each was met.
    pub examples: Vec<String>,
}

/// Problems by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    limit: usize,
    kinds: BTreeMap<ProblemKind, Counted>,
    unknown_keys: BTreeMap<String, u64>,
}

impl Default for Problems {
    fn default() -> Self {
        Self::with_examples(5)
    }
}

impl Problems {
    /// None yet; at most `limit` examples of each kind will be kept.
    pub fn with_examples(limit: usize) -> Self {
        Self { limit, kinds: BTreeMap::new(), unknown_keys: BTreeMap::new() }
    }

    /// Counts one problem.
    pub fn add(&mut self, kind: ProblemKind, example: impl Into<String>) {
        let counted = self.kinds.entry(kind).or_default();
        counted.count += 1;
        if counted.examples.len() < self.limit {
            // A source may hold a megabyte where a name belongs; the report need not.
            let example: String = example.into();
            let short: String = example.chars().take(200).collect();
            counted.examples.push(if short.len() < example.len() { short + "…" } else { short });
        }
    }

    /// Counts one key that is kept out, under its name.
    pub fn add_unknown_key(&mut self, name: impl Into<String>) {
        *self.unknown_keys.entry(name.into()).or_default() += 1;
        self.kinds.entry(ProblemKind::UnknownKey).or_default().count += 1;
    }

    /// How often this kind was met.
    pub fn count(&self, kind: ProblemKind) -> u64 {
        self.kinds.get(&kind).map_or(0, |counted| counted.count)
    }

    /// All problems together.
    pub fn total(&self) -> u64 {
        self.kinds.values().map(|counted| counted.count).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Every kind that was met.
    pub fn iter(&self) -> impl Iterator<Item = (ProblemKind, Counted)> {
        self.kinds.iter().map(|(&kind, counted)| {
            let mut counted = counted.clone();
            if kind == ProblemKind::UnknownKey {
                counted.examples = self.unknown_keys.iter().map(|(name, n)| format!("{name} ({n})")).collect();
            }
            (kind, counted)
        })
    }
}

impl std::fmt::Display for Problems {
    /// One line a kind: the count, what it is, the examples.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (kind, Counted { count, examples }) in self.iter() {
            let shown = examples.join(", ");
            let more = if kind != ProblemKind::UnknownKey && (examples.len() as u64) < count { ", …" } else { "" };
            writeln!(f, "{count:>8}  {}: {shown}{more}", kind.explanation())?;
        }
        Ok(())
    }
}

impl Serialize for Problems {
    /// A list of `{"kind", "explanation", "count", "examples"}`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Entry {
            kind: ProblemKind,
            explanation: &'static str,
            count: u64,
            examples: Vec<String>,
        }
        serializer.collect_seq(self.iter().map(|(kind, Counted { count, examples })| Entry {
            kind,
            explanation: kind.explanation(),
            count,
            examples,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_all_and_shows_some() {
        let mut problems = Problems::with_examples(2);
        assert!(problems.is_empty());
        for name in ["a.jpg", "b.jpg", "c.jpg"] {
            problems.add(ProblemKind::PhotoMissing, name);
        }
        problems.add(ProblemKind::BadRecord, "x".repeat(1000));
        problems.add_unknown_key("images.cocoid");
        problems.add_unknown_key("images.cocoid");
        problems.add_unknown_key("licence");
        assert_eq!((problems.count(ProblemKind::PhotoMissing), problems.total()), (3, 7));
        let text = problems.to_string();
        assert!(text.starts_with("       3  photo not on the disk: a.jpg, b.jpg, …\n"), "{text}");
        assert!(text.contains("3  key unknown here, kept out: images.cocoid (2), licence (1)\n"), "{text}");
        assert!(text.len() < 600);
        let json = serde_json::to_value(&problems).unwrap();
        assert_eq!(json[0]["kind"], "photo_missing");
        assert_eq!(json[0]["count"], 3);
    }
}
