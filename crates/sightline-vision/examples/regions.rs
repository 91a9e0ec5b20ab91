//! Recall, speed and a look at the region proposers on photos with known objects.
//!
//! `cargo run --release -p sightline-vision --example regions [PICTURES_FOLDER]`
//!
//! reads `data/coco_mini` and `weights/` of the shared folder. With a folder for pictures, the first photos are written
//! there with the 19 best boxes drawn in, the true ones in white.

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::time::Instant;

use sightline_data::BoxXyxy;
use sightline_vision::regions::selective_search::Ranking;
use sightline_vision::regions::{NanoDet, RegionProposer, SelectiveSearch, n_covered};
use sightline_vision::{Filter, Photo};

fn main() {
    let pictures = std::env::args_os().nth(1).map(PathBuf::from);
    let Some(folder) = common::shared("data/coco_mini") else { std::process::exit(1) };
    let photos: Vec<(Photo, Vec<BoxXyxy>)> = common::coco_objects(&folder)
        .into_iter()
        .map(|(path, objects)| (Photo::open(path).expect("a photo of COCO"), objects))
        .collect();

    let mut proposers: Vec<(&str, Box<dyn RegionProposer>)> = Vec::new();
    for (label, ranking, suppression_iou) in [
        ("selective-search", Ranking::Agreement, 0.5),
        ("  agreement, NMS 0.4", Ranking::Agreement, 0.4),
        ("  paper's order", Ranking::Paper { seed: 1 }, 0.5),
        ("  paper's order, no NMS", Ranking::Paper { seed: 1 }, 1.0),
    ] {
        let search = SelectiveSearch { ranking, suppression_iou, ..SelectiveSearch::default() };
        proposers.push((label, Box::new(search)));
    }
    if let Some(weights) = common::shared("weights/nanodet_plus_m_416.onnx") {
        proposers.push(("nanodet", Box::new(NanoDet::open(&weights).expect("NanoDet"))));
    }

    println!("{:<26} {:>9} {:>9} {:>12} {:>12}", "IoU 0.5, one thread", "top 19", "top 50", "ms a photo", "ms 224×224");
    for (label, proposer) in &proposers {
        let (mut covered, mut n_objects, mut times, mut small_times) = ([0, 0], 0, Vec::new(), Vec::new());
        for (photo, objects) in &photos {
            let (proposals, time) = timed(|| proposer.propose("", photo, 50).expect("boxes"));
            covered[0] += n_covered(&proposals[..proposals.len().min(19)], objects, 0.5);
            covered[1] += n_covered(&proposals, objects, 0.5);
            n_objects += objects.len();
            times.push(time);
            let small = photo.resize(224, 224, Filter::Bilinear);
            small_times.push(timed(|| proposer.propose("", &small, 19).expect("boxes")).1);
        }
        let recall = covered.map(|n| n as f64 / n_objects as f64);
        println!(
            "{label:<26} {:>9.3} {:>9.3} {:>12.1} {:>12.1}",
            recall[0],
            recall[1],
            median(times),
            median(small_times)
        );
    }

    if let Some(pictures) = pictures {
        std::fs::create_dir_all(&pictures).expect("a folder for pictures");
        for (label, proposer) in proposers.iter().filter(|(label, _)| !label.starts_with(' ')) {
            for (number, (photo, objects)) in photos.iter().take(4).enumerate() {
                draw(photo, objects, proposer.as_ref(), &pictures.join(format!("{label}-{number}.png")));
            }
        }
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed().as_secs_f64() * 1e3)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn draw(photo: &Photo, objects: &[BoxXyxy], proposer: &dyn RegionProposer, path: &Path) {
    let mut picture = photo.clone();
    for object in objects {
        outline(&mut picture, object, [255, 255, 255]);
    }
    for (rank, proposal) in proposer.propose("", photo, 19).expect("boxes").iter().enumerate() {
        // From red, the best, through yellow to green.
        let place = (rank * 255 / 19) as u8;
        outline(&mut picture, &proposal.region, [255 - place, place, 0]);
    }
    std::fs::write(path, picture.encode_png().expect("a picture")).expect("room for a picture");
}

fn outline(picture: &mut Photo, region: &BoxXyxy, colour: [u8; 3]) {
    let (x1, y1) = (region.x1 as u32, region.y1 as u32);
    let (x2, y2) = ((region.x2 as u32).min(picture.width) - 1, (region.y2 as u32).min(picture.height) - 1);
    for y in y1..=y2 {
        for x in x1..=x2 {
            let is_border = x < x1 + 2 || y < y1 + 2 || x + 2 > x2 || y + 2 > y2;
            if is_border {
                let at = (y as usize * picture.width as usize + x as usize) * 3;
                picture.pixels[at..at + 3].copy_from_slice(&colour);
            }
        }
    }
}
