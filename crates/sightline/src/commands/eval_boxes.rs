//! `eval boxes`: how many of the true boxes a store's regions cover, and how many regions that takes.

use std::path::PathBuf;

use serde::Serialize;
use sightline_data::categories::{self, boxes_of};
use sightline_data::{BoxXyxy, FeatureStore};

use crate::ui::{Ui, Usage, count, table};

/// How many known objects the proposed regions cover (recall at an IoU of one half)
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sightline features coco -o coco.features --backbone builtin --regions compact=builtin
  sightline eval boxes --features coco.features --instances instances.json")]
pub struct Args {
    /// A feature store of `features`; its regions are judged, the whole photo's not among them
    #[arg(long)]
    features: PathBuf,
    /// Boxes with category names, as COCO's instances JSON
    #[arg(long, value_name = "FILE")]
    instances: PathBuf,
    /// Best regions a photo that count, several numbers for several rows
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "5,10,19")]
    regions: Vec<usize>,
    /// A region covers an object from this IoU on
    #[arg(long, default_value_t = 0.5)]
    iou: f32,
}

/// Objects of up to so many square pixels are small, medium, large, as in COCO's own evaluation.
const SIZES: [f32; 3] = [32.0 * 32.0, 96.0 * 96.0, f32::INFINITY];

#[derive(Debug, Serialize)]
struct Row {
    regions: usize,
    covered: usize,
    recall: f64,
    /// Of small, medium and large objects; none where there are none.
    recall_by_size: [Option<f64>; 3],
}

#[derive(Debug, Serialize)]
struct Record {
    photos: usize,
    objects: usize,
    /// Small, medium, large.
    objects_by_size: [usize; 3],
    iou: f32,
    rows: Vec<Row>,
}

pub(super) fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    if !(args.iou > 0.0 && args.iou <= 1.0) {
        return Err(Usage(format!("--iou {}: expected a number above 0 and at most 1", args.iou)).into());
    }
    if args.regions.contains(&0) {
        return Err(Usage("--regions 0: expected 1 or more".to_owned()).into());
    }
    let store = FeatureStore::open(&args.features)?;
    let named = categories::read_instances(&args.instances)?;
    let (mut photos, mut objects_by_size, mut covered) = (0, [0; 3], vec![[0; 3]; args.regions.len()]);
    for photo in store.iter() {
        let Some(own) = boxes_of(&named, photo.key) else { continue };
        photos += 1;
        let proposals: Vec<BoxXyxy> = photo.boxes().skip(1).collect();
        for object in own.iter().filter(|own| own.region.area() > 0.0) {
            let size = SIZES.iter().position(|most| object.region.area() <= *most).expect("a finite area");
            objects_by_size[size] += 1;
            let first = proposals.iter().position(|proposal| proposal.iou(&object.region) >= args.iou);
            for (covered, &regions) in covered.iter_mut().zip(&args.regions) {
                covered[size] += usize::from(first.is_some_and(|first| first < regions));
            }
        }
    }
    let objects = objects_by_size.iter().sum();
    anyhow::ensure!(
        objects > 0,
        "no photo of {} has a box in {}; do they name the same photos?",
        args.features.display(),
        args.instances.display()
    );
    let row = |(&regions, by_size): (&usize, [usize; 3])| {
        let covered: usize = by_size.iter().sum();
        let of_size =
            |size: usize| (objects_by_size[size] > 0).then(|| by_size[size] as f64 / objects_by_size[size] as f64);
        let recall_by_size = std::array::from_fn(of_size);
        Row { regions, covered, recall: covered as f64 / objects as f64, recall_by_size }
    };
    let rows = args.regions.iter().zip(covered).map(row).collect();
    let record = Record { photos, objects, objects_by_size, iou: args.iou, rows };
    ui.result(&record, || {
        let header = ["regions a photo", "objects covered", "recall %", "small", "medium", "large"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        let percent = |share: f64| format!("{:.1}", 100.0 * share);
        for Row { regions, covered, recall, recall_by_size } in &record.rows {
            let mut row = vec![regions.to_string(), covered.to_string(), percent(*recall)];
            row.extend(recall_by_size.map(|share| share.map_or_else(|| "–".to_owned(), percent)));
            rows.push(row);
        }
        let (photos, objects) = (count(photos, "photo"), count(objects, "object"));
        let [small, medium, large] = objects_by_size;
        let sizes = format!("{small} small (up to 32² pixels), {medium} medium (up to 96²), {large} large");
        format!("{}{objects} on {photos}, IoU ≥ {}; {sizes}\n", table(&rows), args.iou)
    })
}
