//! What tests and examples share: where the shared data lies, and COCO's true boxes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sightline_data::BoxXyxy;

/// The folder of shared data and weights; `None`, with a word about it, where it is absent.
pub(crate) fn shared(part: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("SIGHTLINE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = folder.join(part);
    if path.exists() {
        Some(path)
    } else {
        eprintln!("skipped: {} absent; set SIGHTLINE_SHARED", path.display());
        None
    }
}

/// Every photo of `coco_mini` that has objects, with the boxes of those that are no crowds.
pub(crate) fn coco_objects(folder: &Path) -> Vec<(PathBuf, Vec<BoxXyxy>)> {
    let text = std::fs::read_to_string(folder.join("instances.json")).expect("instances.json is there");
    let instances: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let list = |key: &str| instances[key].as_array().expect("a list").iter();
    let mut objects: BTreeMap<u64, Vec<BoxXyxy>> = BTreeMap::new();
    for annotation in list("annotations").filter(|a| a["iscrowd"] == 0) {
        let xywh: Vec<f32> =
            annotation["bbox"].as_array().expect("four").iter().map(|v| v.as_f64().expect("a number") as f32).collect();
        let id = annotation["image_id"].as_u64().expect("a number");
        objects.entry(id).or_default().push(BoxXyxy::from_xywh(xywh[0], xywh[1], xywh[2], xywh[3]));
    }
    list("images")
        .filter_map(|image| {
            let boxes = objects.remove(&image["id"].as_u64().expect("a number"))?;
            Some((folder.join("images").join(image["file_name"].as_str().expect("a name")), boxes))
        })
        .collect()
}
