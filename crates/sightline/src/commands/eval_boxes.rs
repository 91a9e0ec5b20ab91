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

#[derive(Debug, Serialize)]
struct Row {
    regions: usize,
    covered: usize,
    recall: f64,
}

#[derive(Debug, Serialize)]
struct Record {
    photos: usize,
    objects: usize,
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
    let (mut photos, mut objects, mut covered) = (0, 0, vec![0; args.regions.len()]);
    for photo in store.iter() {
        let Some(own) = boxes_of(&named, photo.key) else { continue };
        photos += 1;
        let proposals: Vec<BoxXyxy> = photo.boxes().skip(1).collect();
        for object in own.iter().filter(|own| own.region.area() > 0.0) {
            objects += 1;
            let first = proposals.iter().position(|proposal| proposal.iou(&object.region) >= args.iou);
            for (covered, &regions) in covered.iter_mut().zip(&args.regions) {
                *covered += usize::from(first.is_some_and(|first| first < regions));
            }
        }
    }
    anyhow::ensure!(
        objects > 0,
        "no photo of {} has a box in {}; do they name the same photos?",
        args.features.display(),
        args.instances.display()
    );
    let row = |(&regions, covered): (&usize, usize)| Row { regions, covered, recall: covered as f64 / objects as f64 };
    let rows = args.regions.iter().zip(covered).map(row).collect();
    let record = Record { photos, objects, iou: args.iou, rows };
    ui.result(&record, || {
        let mut rows = vec![["regions a photo", "objects covered", "recall %"].map(str::to_owned).to_vec()];
        for Row { regions, covered, recall } in &record.rows {
            rows.push(vec![regions.to_string(), covered.to_string(), format!("{:.1}", 100.0 * recall)]);
        }
        let (photos, objects) = (count(photos, "photo"), count(objects, "object"));
        format!("{}{objects} on {photos}, IoU ≥ {}\n", table(&rows), args.iou)
    })
}
