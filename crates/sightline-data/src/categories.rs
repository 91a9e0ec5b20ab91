//! Boxes with category names, as COCO's instances have them, and the words of a sentence that name a category: the truth
//! that grounding is measured against. Nothing is trained on it.

use std::collections::BTreeMap;
use std::path::Path;

use rustc_hash::FxHashMap;
use serde::Deserialize;

use crate::{BoxXyxy, Error, Result};

/// A box whose content has a name.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedBox {
    /// `dog`, `traffic light`.
    pub category: String,
    /// In pixels of the original picture.
    pub region: BoxXyxy,
}

#[derive(Deserialize)]
struct Instances {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: String,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: u64,
    category_id: u64,
    /// `x y width height`.
    bbox: [f32; 4],
    /// 1 where the box holds a crowd of things rather than one.
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Deserialize)]
struct Category {
    id: u64,
    name: String,
}

/// Reads COCO's instances JSON: boxes by photo, under the file name that the file gives it. Crowds are left out: they are
/// no single thing that a word could name.
pub fn read_instances(path: &Path) -> Result<BTreeMap<String, Vec<NamedBox>>> {
    let text = std::fs::read(path).map_err(Error::io("read", path))?;
    let wrong = |message: String| Error::format(path, message);
    let Instances { images, annotations, categories } = serde_json::from_slice(&text).map_err(|e| {
        wrong(format!("not COCO's instances (images, annotations with bbox and category_id, categories): {e}"))
    })?;
    let names: FxHashMap<u64, String> = categories.into_iter().map(|category| (category.id, category.name)).collect();
    let files: FxHashMap<u64, String> = images.into_iter().map(|image| (image.id, image.file_name)).collect();
    let mut boxes: BTreeMap<String, Vec<NamedBox>> = files.values().map(|file| (file.clone(), Vec::new())).collect();
    for Annotation { image_id, category_id, bbox: [x, y, width, height], iscrowd } in annotations {
        if iscrowd != 0 {
            continue;
        }
        let file =
            files.get(&image_id).ok_or_else(|| wrong(format!("a box of image {image_id}, which is not listed")))?;
        let category = names
            .get(&category_id)
            .ok_or_else(|| wrong(format!("a box of category {category_id}, which is not listed")))?
            .clone();
        let region = BoxXyxy::from_xywh(x, y, width, height);
        boxes.get_mut(file).expect("every file has a list").push(NamedBox { category, region });
    }
    Ok(boxes)
}

/// The boxes of a photo, by its key or by its file name alone.
pub fn boxes_of<'a>(named: &'a BTreeMap<String, Vec<NamedBox>>, key: &str) -> Option<&'a [NamedBox]> {
    let file = key.rsplit('/').next().unwrap_or(key);
    named.get(key).or_else(|| named.get(file)).map(Vec::as_slice)
}

/// Which words name which category.
#[derive(Debug)]
pub struct CategoryWords {
    /// Category by word, or by two words with a hyphen between.
    category: FxHashMap<&'static str, &'static str>,
}

impl CategoryWords {
    /// The table for COCO's 80 categories.
    pub fn coco() -> Self {
        let lines = include_str!("categories.txt").lines().filter(|line| !line.starts_with('#'));
        let entries = lines.filter_map(|line| line.split_once(": "));
        let category =
            entries.flat_map(|(category, words)| words.split(' ').map(move |word| (word, category))).collect();
        Self { category }
    }

    /// The tokens that name a category: index of the token (of two, the second, the head of the name) and the category.
    pub fn find(&self, tokens: &[String]) -> Vec<(usize, &'static str)> {
        let mut found: Vec<(usize, &'static str)> = Vec::new();
        for (i, token) in tokens.iter().enumerate() {
            let pair = i.checked_sub(1).map(|before| format!("{}-{token}", tokens[before]));
            if let Some(&category) = pair.as_deref().and_then(|pair| self.category.get(pair)) {
                // `teddy` alone is no other noun beside `teddy bear`.
                found.retain(|&(at, _)| at + 1 != i);
                found.push((i, category));
            } else if let Some(&category) = self.category.get(token.as_str()) {
                found.push((i, category));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(sentence: &str) -> Vec<(usize, &'static str)> {
        CategoryWords::coco().find(&crate::tokens::tokenize(sentence))
    }

    #[test]
    fn words_name_categories() {
        assert_eq!(find("Two women with a teddy bear"), [(1, "person"), (5, "teddy bear")]);
        assert_eq!(find("a bear at the traffic light"), [(1, "bear"), (5, "traffic light")]);
        assert_eq!(find("a hot dog and a hot day, dogs"), [(2, "hot dog"), (7, "dog")]);
        assert_eq!(find("an orange sky"), []);
    }

    #[test]
    fn no_word_names_two_categories() {
        let words: Vec<&str> = include_str!("categories.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .flat_map(|line| line.split_once(": ").expect("category: words").1.split(' '))
            .collect();
        assert_eq!(CategoryWords::coco().category.len(), words.len());
    }

    #[test]
    fn instances_are_read_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("i.json");
        let write = |annotation: &str| {
            let text = format!(
                r#"{{"images": [{{"id": 7, "file_name": "a.jpg"}}], "annotations": [{annotation}],
                    "categories": [{{"id": 3, "name": "dog"}}]}}"#
            );
            std::fs::write(&path, text).unwrap();
            read_instances(&path)
        };
        let boxes = write(r#"{"image_id": 7, "category_id": 3, "bbox": [1, 2, 10, 20]}"#).unwrap();
        let region = BoxXyxy { x1: 1.0, y1: 2.0, x2: 11.0, y2: 22.0 };
        assert_eq!(boxes["a.jpg"], [NamedBox { category: "dog".into(), region }]);
        let crowd = write(
            r#"{"image_id": 7, "category_id": 3, "bbox": [0, 0, 90, 90], "iscrowd": 1},
               {"image_id": 7, "category_id": 3, "bbox": [1, 2, 10, 20], "iscrowd": 0}"#,
        );
        assert_eq!(crowd.unwrap(), boxes);
        for (annotation, message) in [
            (r#"{"image_id": 8, "category_id": 3, "bbox": [1, 2, 3, 4]}"#, "image 8"),
            (r#"{"image_id": 7, "category_id": 4, "bbox": [1, 2, 3, 4]}"#, "category 4"),
            (r#"{"image_id": 7}"#, "not COCO's instances"),
        ] {
            assert!(write(annotation).unwrap_err().to_string().contains(message), "{message}");
        }
    }
}
