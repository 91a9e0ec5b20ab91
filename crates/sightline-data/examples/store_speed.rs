//! How fast a feature store is written, finished and opened:
//! `cargo run --release -p sightline-data --example store_speed [photos] [regions] [dim]`

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Instant;

use sightline_data::{BoxXyxy, FeatureStore, PhotoFeatures, StoreSettings, StoreWriter, VectorMode};

fn main() -> Result<(), Box<dyn Error>> {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let [photos, regions, dim] = match numbers[..] {
        [photos, regions, dim] => [photos, regions, dim],
        _ => [7000, 20, 384],
    };
    let settings = StoreSettings {
        backbone: "none".into(),
        backbone_checksum: String::new(),
        dim,
        vectors: VectorMode::Pool,
        regions: "boxes".into(),
        regions_checksum: String::new(),
        max_regions: regions,
        extra: BTreeMap::new(),
        sources: BTreeMap::new(),
        parts: Vec::new(),
    };
    let mut photo = PhotoFeatures {
        key: String::new(),
        width: 640,
        height: 480,
        boxes: vec![BoxXyxy::whole(640, 480); regions],
        scores: vec![1.0; regions],
        vectors: (0..regions * dim).map(|i| (i as f32 * 0.37).sin()).collect(),
    };
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("features");
    let writer = StoreWriter::create_or_resume(&path, &settings)?;
    let started = Instant::now();
    for i in 0..photos {
        photo.key = format!("{i:08}.jpg");
        writer.append(&photo)?;
    }
    println!("append {:.3} s", started.elapsed().as_secs_f64());
    let started = Instant::now();
    writer.finish(&[])?;
    println!("finish {:.3} s", started.elapsed().as_secs_f64());
    let started = Instant::now();
    let store = FeatureStore::open(&path)?;
    let megabytes = std::fs::metadata(&path)?.len() as f64 / 1e6;
    println!("open and verify {megabytes:.0} MB {:.3} s", started.elapsed().as_secs_f64());
    let started = Instant::now();
    let mut out = vec![0.0; regions * dim];
    let mut sum = 0.0;
    for photo in store.iter() {
        photo.write_vectors(&mut out);
        sum += out[0];
    }
    println!("read all vectors as f32 {:.3} s ({sum})", started.elapsed().as_secs_f64());
    Ok(())
}
