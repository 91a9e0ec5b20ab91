//! From words on the command line to a backbone, a region proposer and a device.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use sightline_data::parses::Parses;
use sightline_data::{BoxXyxy, Dataset, Split, StoreSettings, VectorMode};
use sightline_model::Device;
use sightline_train::backbone::Opened;
use sightline_train::checkpoint::Kind;
use sightline_train::tune::Start;
use sightline_vision::Photo;
use sightline_vision::backbone::{
    Backbone, Compact, Context, OnnxBackbone, OnnxOptions, Pixels, Vit, VitOptions, region_vectors,
};
use sightline_vision::extract::ExtractOptions;
use sightline_vision::regions::{BoxesFile, NanoDet, RegionProposer, SelectiveSearch};

use crate::backbones;
use crate::models;
use crate::ui::{Ui, Usage, count};

/// Where the numbers are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum DeviceKind {
    /// This machine's processor.
    #[default]
    Cpu,
    /// An NVIDIA card, in a build with the feature `cuda`.
    Cuda,
    /// Any card with a Vulkan driver, in a build with the feature `vulkan`.
    Vulkan,
}

impl DeviceKind {
    /// The device, or one line about why there is none.
    pub fn open(self) -> anyhow::Result<Device> {
        match self {
            Self::Cpu => Ok(Device::flex()),
            #[cfg(feature = "cuda")]
            Self::Cuda => gpu("CUDA", || Device::cuda(0)),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda => Err(Usage("this build has no CUDA; build it with --features cuda".into()).into()),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => gpu("Vulkan", || Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(not(feature = "vulkan"))]
            Self::Vulkan => Err(Usage("this build has no Vulkan; build it with --features vulkan".into()).into()),
        }
    }
}

/// Opens a card's device and tries it: the back ends report a missing driver by a panic, and a driver that lacks what
/// their kernels need may compute nonsense without a word (SwiftShader gives zeros).
#[cfg(any(feature = "cuda", feature = "vulkan"))]
fn gpu(name: &str, open: impl FnOnce() -> Device + std::panic::UnwindSafe) -> anyhow::Result<Device> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let opened = std::panic::catch_unwind(|| {
        let device = open();
        let found = probe(&device);
        (device, found)
    });
    std::panic::set_hook(hook);
    let (device, found) =
        opened.ok().with_context(|| format!("no working {name} driver was found; use --device cpu"))?;
    let expected = probe(&Device::flex());
    let agrees = found.len() == expected.len() && found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-3);
    anyhow::ensure!(agrees, "this {name} driver computes something else than the processor; use --device cpu");
    Ok(device)
}

/// What a model's step is made of, in small: a product, a softmax, a choice of rows, sums. `[4]`.
#[cfg(any(feature = "cuda", feature = "vulkan", test))]
fn probe(device: &Device) -> Vec<f32> {
    use burn::tensor::{Int, Tensor, TensorData, activation};
    let values: Vec<f32> = (0..35).map(|i| (i % 11) as f32 / 4.0 - 1.0).collect();
    let x = Tensor::<2>::from_data(TensorData::new(values, [5, 7]), device);
    let weights = activation::softmax(x.clone().matmul(x.clone().transpose()), 1); // [5, 5]
    let rows = Tensor::<1, Int>::from_data(TensorData::new(vec![3i64, 0, 0, 4], [4]), device);
    let chosen = weights.matmul(x).select(0, rows); // [4, 7]
    let sums = chosen.tanh().sum_dim(1).into_data();
    sums.convert::<f32>().try_into_vec().unwrap_or_default()
}

/// Dependency trees on the command line.
#[derive(Debug, clap::Args)]
pub struct ParsesFile {
    /// Dependency trees of the sentences (CoNLL-U, docs/parses.md), which models of dependency edges read
    #[arg(long = "parses", value_name = "FILE.conllu")]
    path: Option<PathBuf>,
}

impl ParsesFile {
    /// Where they lie.
    pub fn path(&self) -> Option<&PathBuf> {
        self.path.as_ref()
    }

    /// The trees, where there are such; says which sentences of the given splits have none.
    pub fn read(&self, dataset: &Dataset, splits: &[Split], ui: &Ui) -> anyhow::Result<Option<Parses>> {
        let Some(path) = &self.path else {
            return Ok(None);
        };
        let parses = Parses::read(path)?;
        let images = dataset.images.iter().filter(|image| splits.contains(&image.split));
        let sentences = images.flat_map(|image| &image.sentences);
        let missing: Vec<u64> =
            sentences.filter(|s| parses.edges(s.id, &s.tokens).is_none()).map(|sentence| sentence.id).collect();
        if let Some(first) = missing.first() {
            ui.say(format_args!(
                "{} without a dependency tree of their words in {} left out, sentence {first} for one",
                count(missing.len(), "sentence"),
                path.display()
            ));
        }
        Ok(Some(parses))
    }
}

/// A backbone by name: `pixels`, a `.safetensors` file of a vision transformer or MobileNetV2, an `.onnx` file, what was
/// pulled, a run of `train backbone`, or a pack.
pub fn backbone(spec: &str, device: &Device) -> anyhow::Result<Box<dyn Backbone>> {
    if spec == Pixels::NAME {
        return Ok(Box::new(Pixels::default()));
    }
    let path = Path::new(spec);
    if is_checkpoint(path) {
        return Ok(trained(path, device)?.into_backbone());
    }
    match path.extension().and_then(|e| e.to_str()) {
        Some("onnx") => Ok(Box::new(OnnxBackbone::load(path, &OnnxOptions::default())?)),
        Some(backbones::EXTENSION) => Ok(sightline_vision::backbone::open(path, device)?),
        _ => match backbones::find(spec) {
            Some(pulled) => Ok(sightline_vision::backbone::open(&pulled, device)?),
            None if backbones::Table::built_in().row(spec).is_ok() => {
                Err(Usage(format!("--backbone {spec}: it is not here yet; `sightline pull {spec}` gets it")).into())
            }
            None => Err(Usage(format!(
                "--backbone {spec}: expected a .safetensors file (ViT, DeiT, DINOv2, CLIP, SigLIP, MobileNetV2), an .onnx file, a \
                 name of `sightline pull`, a run of `train backbone`, a pack, `builtin` or `pixels`"
            ))
            .into()),
        },
    }
}

/// Whether a name means a backbone that this program trained: a pack's, a run's, or a checkpoint.
fn is_checkpoint(spec: &Path) -> bool {
    spec.is_dir() || models::is_pack(spec) || spec.extension().is_some_and(|e| e == "ckpt")
}

/// A backbone that `train backbone` or `train tune` made: the program's own, one of a pack, a run, or a checkpoint.
fn trained(spec: &Path, device: &Device) -> anyhow::Result<Opened> {
    Ok(sightline_train::backbone::open(models::checkpoint(spec, &[Kind::Backbone])?, device)?)
}

/// As [`trained`], one that proposes regions.
fn compact(spec: &Path) -> anyhow::Result<Compact> {
    Ok(trained(spec, &Device::flex())?.into_compact()?)
}

/// A backbone by name that can be tuned.
pub fn tunable(spec: &str, device: &Device) -> anyhow::Result<Start> {
    let path = Path::new(spec);
    if is_checkpoint(path) {
        return Ok(Start::of_checkpoint(models::checkpoint(path, &[Kind::Backbone])?)?);
    }
    let pulled = backbones::find(spec);
    let path = pulled.as_deref().unwrap_or(path);
    if path.extension().is_none_or(|e| e != backbones::EXTENSION) {
        return Err(Usage(format!(
            "--backbone {spec}: only a vision transformer (.safetensors), a run of `train backbone`, a pack or `builtin` can \
             be tuned"
        ))
        .into());
    }
    Ok(Start::of_vit(&Vit::load(path, &VitOptions::default(), device)?)?)
}

/// Kinds of proposers that are named before their file.
const KINDS_WITH_FILES: [&str; 3] = [NanoDet::NAME, Compact::REGIONS, "boxes"];

/// `KIND=FILE` taken apart; a file's own name may hold `=` too.
fn kind_and_file(spec: &str) -> Option<(&str, &str)> {
    spec.split_once('=').filter(|(kind, _)| KINDS_WITH_FILES.contains(kind))
}

/// The file that a spec of a backbone or of regions names, or the word that it is.
pub fn file_of(spec: &str) -> &Path {
    Path::new(kind_and_file(spec).map_or(spec, |(_, file)| file))
}

/// What kind of proposer a spec names, and its file.
fn kind_of_regions(spec: &str) -> (&str, &str) {
    match kind_and_file(spec) {
        Some(found) => found,
        None if spec.ends_with(".onnx") => (NanoDet::NAME, spec),
        None if spec.ends_with(".json") => ("boxes", spec),
        None if spec == models::BUILTIN => (Compact::REGIONS, spec),
        None => (spec, ""),
    }
}

/// A region proposer by name: `selective_search`, `nanodet=FILE.onnx`, `compact=RUN`, `boxes=FILE.json`, such a file alone,
/// or `builtin`.
pub fn proposer(spec: &str, ui: &Ui) -> anyhow::Result<Box<dyn RegionProposer>> {
    match kind_of_regions(spec) {
        ("selective_search", "") => Ok(Box::new(SelectiveSearch::default())),
        (NanoDet::NAME, file) if !file.is_empty() => Ok(Box::new(NanoDet::open(Path::new(file))?)),
        (Compact::REGIONS, run) if !run.is_empty() => Ok(Box::new(compact(Path::new(run))?)),
        ("boxes", file) if !file.is_empty() => {
            let boxes = BoxesFile::open(Path::new(file))?;
            ui.say(format_args!("{file}: boxes of {}", count(boxes.n_photos(), "photo")));
            if let Some(first) = boxes.bad().first() {
                ui.say(format_args!("{} unusable and left out; the first: {first}", boxes.bad().len()));
            }
            Ok(Box::new(boxes))
        }
        _ => Err(Usage(format!(
            "regions {spec}: expected builtin, compact=RUN|PACK, nanodet=FILE.onnx, selective_search or boxes=FILE.json"
        ))
        .into()),
    }
}

/// A backbone and a region proposer by name; one network where the two are one.
pub fn networks(
    backbone_spec: &str,
    regions_spec: &str,
    device: &Device,
    ui: &Ui,
) -> anyhow::Result<(Box<dyn Backbone>, Box<dyn RegionProposer>)> {
    if kind_of_regions(regions_spec) == (Compact::REGIONS, backbone_spec) {
        let both = Arc::new(compact(Path::new(backbone_spec))?);
        return Ok((Box::new(both.clone()), Box::new(both)));
    }
    Ok((backbone(backbone_spec, device)?, proposer(regions_spec, ui)?))
}

/// The extraction that made a store, opened again for other photos, so that a model trained on the store reads them.
pub struct Extraction {
    /// Pixels to vectors.
    pub backbone: Box<dyn Backbone>,
    /// Pixels to boxes.
    pub proposer: Box<dyn RegionProposer>,
    /// How they are combined.
    pub options: ExtractOptions,
}

impl Extraction {
    /// Opens what `settings` name; `backbone_spec` and `regions_spec` say where the files lie now, else where they lay
    /// when the store was made. An error where the result would give other numbers than the store's.
    pub fn like(
        settings: &StoreSettings,
        backbone_spec: Option<&str>,
        regions_spec: Option<&str>,
        device: &Device,
        ui: &Ui,
    ) -> anyhow::Result<Self> {
        let remembered = |key: &str, given: Option<&str>, option: &str| -> anyhow::Result<String> {
            match (given, settings.sources.get(key)) {
                (Some(given), _) => Ok(given.to_owned()),
                (None, Some(source)) => Ok(source.clone()),
                (None, None) => Err(Usage(format!(
                    "the model's vectors were made with {}, whose file is not known here; name it with {option}",
                    if key == "backbone" { &settings.backbone } else { &settings.regions },
                ))
                .into()),
            }
        };
        if settings.vectors == VectorMode::Joined {
            anyhow::bail!(
                "the model reads the vectors of {} stores side by side ({}), which are not made of new photos here; use it \
                 with `features join` and `eval`, or train a model on one of the stores",
                settings.parts.len(),
                settings.backbone
            );
        }
        if settings.vectors == VectorMode::Imported {
            anyhow::bail!(
                "the model was trained on imported vectors ({}); new photos need vectors from the same program: import \
                 them and use `eval`",
                settings.backbone
            );
        }
        let backbone = remembered("backbone", backbone_spec, "--backbone")?;
        let regions = remembered("regions", regions_spec, "--proposals")?;
        let moved = || {
            let has_moved = |given: Option<&str>, spec: &str| {
                given.is_none() && file_of(spec).is_absolute() && !file_of(spec).exists()
            };
            match (has_moved(backbone_spec, &backbone), has_moved(regions_spec, &regions)) {
                (true, _) => "the model's backbone is not where it was; say where with --backbone",
                (_, true) => "what proposes the model's regions is not where it was; say where with --proposals",
                _ => "the networks of the model's vectors cannot be opened",
            }
        };
        let (backbone, proposer) = networks(&backbone, &regions, device, ui).with_context(moved)?;
        let context = match settings.extra.get("context").map(String::as_str) {
            Some("class") => Context::Class,
            _ => Context::None,
        };
        let options = ExtractOptions {
            max_regions: settings.max_regions,
            mode: settings.vectors,
            context,
            ..ExtractOptions::default()
        };
        let differences = options.store_settings(&*backbone, &*proposer).differences(settings);
        anyhow::ensure!(
            differences.is_empty(),
            "these files do not make the vectors that the model was trained on: {}",
            differences.join("; ")
        );
        Ok(Self { backbone, proposer, options })
    }

    /// The boxes of a photo, the whole photo first, at most as many as the settings allow.
    pub fn boxes(&self, key: &str, photo: &Photo) -> anyhow::Result<Vec<BoxXyxy>> {
        let proposals = self.proposer.propose(key, photo, self.options.max_regions - 1)?;
        Ok(std::iter::once(photo.whole()).chain(proposals.iter().map(|proposal| proposal.region)).collect())
    }

    /// The features of each photo's boxes as models were trained on them, `[photos][regions * dim]`.
    pub fn features(&self, photos: &[Photo], boxes: &[Vec<BoxXyxy>]) -> anyhow::Result<Vec<Vec<f32>>> {
        let mut features = region_vectors(&*self.backbone, photos, boxes, self.options.mode, self.options.context)?;
        // Models are trained on vectors that went through the store's f16.
        for value in features.iter_mut().flatten() {
            *value = half::f16::from_f32(*value).to_f32();
        }
        Ok(features)
    }
}

/// The absolute form of a file named on the command line, for the store to remember; other words as they are.
pub fn absolute(spec: &str) -> String {
    let file = file_of(spec);
    let prefix = kind_and_file(spec).map(|(kind, _)| format!("{kind}=")).unwrap_or_default();
    let absolute: Option<PathBuf> = file.exists().then(|| std::path::absolute(file).ok()).flatten();
    absolute.map_or_else(|| spec.to_owned(), |path| format!("{prefix}{}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_an_equals_sign_is_a_file() {
        let check = |spec: &str, kind: &str, file: &str| assert_eq!(kind_of_regions(spec), (kind, file), "{spec}");
        check("nanodet=/x/a=b/nanodet.onnx", "nanodet", "/x/a=b/nanodet.onnx");
        check("/x/a=b/nanodet.onnx", "nanodet", "/x/a=b/nanodet.onnx");
        check("boxes=a=b.json", "boxes", "a=b.json");
        check("compact=runs/lr=1e-3", "compact", "runs/lr=1e-3");
        check("builtin", "compact", "builtin");
        check("selective_search", "selective_search", "");
        assert_eq!(file_of("runs/lr=1e-3"), Path::new("runs/lr=1e-3"));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lr=1e-3");
        std::fs::write(&file, "").unwrap();
        let file = file.to_str().unwrap();
        assert_eq!(absolute(file), file);
        assert_eq!(absolute(&format!("compact={file}")), format!("compact={file}"));
    }

    #[test]
    fn the_probe_equals_nested_loops() {
        let x: Vec<Vec<f64>> =
            (0..5).map(|row| (0..7).map(|column| f64::from((row * 7 + column) % 11) / 4.0 - 1.0).collect()).collect();
        let row_of = |row: usize| -> f64 {
            let weights: Vec<f64> =
                x.iter().map(|other| x[row].iter().zip(other).map(|(a, b)| a * b).sum::<f64>().exp()).collect();
            let total: f64 = weights.iter().sum();
            let mixed = |column: usize| weights.iter().zip(&x).map(|(w, other)| w / total * other[column]).sum::<f64>();
            (0..7).map(|column| mixed(column).tanh()).sum()
        };
        let found = probe(&Device::flex());
        let expected = [3, 0, 0, 4].map(row_of);
        assert_eq!(found.len(), 4);
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{found}, expected {expected}");
        }
    }
}
