//! An index of any size without a network: random vectors of length one, and pictures of one colour.
//!
//! ```text
//! cargo run --release --example synthetic_index -- FOLDER --photos 8000 --regions 20 --dim 512
//! sightline serve --index FOLDER/index
//! ```
//!
//! Its model has random weights and the words of benches/serve_load.mjs, so searches find nothing sensible but cost what
//! they cost.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use rand::Rng as _;
use sightline::index::catalogue::{Catalogue, Change, Encoding, PhotoRow, Settings};
use sightline::index::walk::Stamp;
use sightline_data::{BoxXyxy, Vocabulary, tokens};
use sightline_model::alignment::{AlignmentModel, AlignmentSettings, Sizes};
use sightline_model::{Device, random, weights};
use sightline_search::Place;
use sightline_search::vectors::{self, PhotoVectors, Record};
use sightline_train::checkpoint::{Checkpoint, Header, Kind, Progress};
use sightline_train::settings::AlignSettings;
use sightline_vision::Photo;
use sightline_vision::backbone::Pixels;
use sightline_vision::extract::ExtractOptions;
use sightline_vision::regions::SelectiveSearch;

#[derive(Parser)]
struct Args {
    /// Where model, photos and index go
    folder: PathBuf,
    #[arg(long, default_value_t = 8000)]
    photos: u32,
    #[arg(long, default_value_t = 20)]
    regions: usize,
    #[arg(long, default_value_t = 512)]
    dim: usize,
    #[arg(long, default_value = "f16")]
    encoding: Encoding,
}

/// What benches/serve_load.mjs asks for.
const SENTENCE: &str = "a dog runs on the grass two people beach man in red shirt children play snow";

const WIDTH: u32 = 320;
const HEIGHT: u32 = 240;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (photos, index) = (args.folder.join("photos"), args.folder.join("index"));
    std::fs::create_dir_all(&photos).context("cannot make the folder of photos")?;
    std::fs::create_dir_all(&index).context("cannot make the folder of the index")?;
    let features = {
        let mut features = ExtractOptions::default().store_settings(&Pixels::default(), &SelectiveSearch::default());
        features.sources.insert("backbone".into(), "pixels".into());
        features.sources.insert("regions".into(), "selective_search".into());
        features
    };
    let model = args.folder.join("model.ckpt");
    let sentence = tokens::tokenize(SENTENCE);
    let vocabulary = Vocabulary::from_sentences([sentence.as_slice()], 1);
    let model_settings = AlignmentSettings { dim: args.dim, ..AlignmentSettings::default() };
    let settings = AlignSettings { model: model_settings, ..AlignSettings::default() };
    let mut rng = random::stream(1, 0);
    let sizes = Sizes { features: features.dim, vocab: vocabulary.len(), photos: 0, relations: 0 };
    let network = AlignmentModel::new(&settings.model, sizes, &mut rng, &Device::flex());
    let header = Header {
        kind: Kind::Alignment,
        settings: serde_json::to_value(&settings)?,
        vocabulary,
        relations: Vec::new(),
        teachers: Vec::new(),
        phrases: None,
        photos: Vec::new(),
        features: features.clone(),
        progress: Progress::default(),
    };
    let checkpoint = Checkpoint { header, model: weights::export(&network), optimizer: Default::default() };
    checkpoint.save(&model)?;

    let settings = Settings {
        root: photos.canonicalize()?,
        model_checksum: checkpoint.checksum(),
        model: model.canonicalize()?,
        features,
        dim: args.dim,
        encoding: args.encoding,
    };
    let mut catalogue = Catalogue::create(&index, &settings)?;
    let mut changes = vec![Change::AddFile(1)];
    let mut stored = Vec::new();
    for number in 0..args.photos {
        let mut side = |most: u32| rng.next_u32() % most;
        let boxes: Vec<[f32; 4]> = (0..args.regions)
            .map(|region| match region {
                0 => BoxXyxy::whole(WIDTH, HEIGHT).into(),
                _ => {
                    let (x, y) = (side(WIDTH - 40), side(HEIGHT - 40));
                    [x, y, x + 20 + side(WIDTH - x - 20), y + 20 + side(HEIGHT - y - 20)].map(|corner| corner as f32)
                }
            })
            .collect();
        let mut values: Vec<f32> =
            (0..args.regions * args.dim).map(|_| rng.next_u32() as f32 / u32::MAX as f32 - 0.5).collect();
        for vector in values.chunks_exact_mut(args.dim) {
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            vector.iter_mut().for_each(|x| *x /= length);
        }
        let vectors =
            PhotoVectors::new(args.encoding.into(), args.dim, &values, &boxes).context("vectors do not fit")?;
        stored.push(vectors);
        let name = format!("{number:06}.png");
        let picture =
            Photo::uniform(WIDTH, HEIGHT, number.to_be_bytes().map(|byte| byte.wrapping_mul(37))[1..].try_into()?);
        let bytes = picture.encode_png()?;
        std::fs::write(photos.join(&name), &bytes).context("cannot write a photo")?;
        let content = u128::from(number).to_be_bytes();
        changes.push(Change::Thumbnail(
            content,
            picture.resize(64, 48, sightline_vision::Filter::Bilinear).encode_jpeg(78)?,
        ));
        changes.push(Change::Insert(PhotoRow {
            id: 0,
            path: name.into_bytes(),
            stamp: Stamp { bytes: bytes.len() as u64, modified: 0 },
            content,
            width: WIDTH,
            height: HEIGHT,
            taken: i64::from(number) * 86_400,
            look: u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            place: Place { file: 1, photo: number },
        }));
    }
    let records: Vec<Record<'_>> = stored.iter().map(PhotoVectors::record).collect();
    sightline_data::write::atomically(&index.join("vectors-000001.slv"), |out| {
        vectors::write(out, settings.encoding.into(), settings.dim, settings.owner(), &records)
    })?;
    catalogue.change(&changes)?;
    println!("{} photos in {}", args.photos, index.display());
    Ok(())
}
