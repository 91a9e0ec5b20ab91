//! Networks that this project trains, and what a checkpoint says of them.

use half::f16;
use serde::{Deserialize, Serialize};
use sightline_data::BoxXyxy;
use sightline_model::backbone::{BackboneSettings, CELL};
use sightline_model::tape::{Tape, Var};
use sightline_model::vit::{Depths, VisionTransformer};
use sightline_model::weights::Weights;
use sightline_model::{Device, Matrix};
use sightline_vision::Photo;
use sightline_vision::backbone::{Backbone, Compact, Vit, VitConfig, vectors};
use xxhash_rust::xxh3::Xxh3;

use crate::checkpoint::{Checkpoint, Header};
use crate::settings::BackboneRunSettings;
use crate::{Error, Result};

/// Which network a backbone's weights belong to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The small backbone.
    Compact(BackboneSettings),
    /// A vision transformer.
    Vit(VitConfig),
}

/// A network by its name: what the checkpoint of a tuned backbone says of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Named {
    /// The name under which feature stores know it.
    pub name: String,
    /// What its weights belong to.
    pub network: Network,
}

/// Where a network's pictures end: variables of a tape.
pub(crate) struct Seen {
    /// `[pictures · tokens, dim]`; a picture's cells begin with its token [`Seen::first_cell`].
    pub(crate) tokens: Var,
    /// Which rows are the whole pictures' vectors.
    pub(crate) global: Global,
    /// Number of a picture's first cell among its tokens.
    pub(crate) first_cell: usize,
    /// What the small backbone says about objects.
    pub(crate) objects: Option<Var>,
}

/// Where the whole picture's vector stands.
pub(crate) enum Global {
    /// It is the first token.
    FirstToken,
    /// In a variable of its own, `[pictures, dim]`.
    Var(Var),
}

impl Network {
    /// Pixels along a side of what it reads.
    pub(crate) fn side(&self) -> usize {
        match self {
            Self::Compact(settings) => settings.photo_side,
            Self::Vit(config) => config.input,
        }
    }

    /// Cells along a side of what it gives.
    pub(crate) fn grid(&self) -> usize {
        match self {
            Self::Compact(settings) => settings.photo_side / CELL,
            Self::Vit(config) => config.grid(),
        }
    }

    /// Blocks that a step may leave out; none in the small backbone.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::Compact(_) => 0,
            Self::Vit(config) => config.depth,
        }
    }

    /// A picture of its side as it reads it.
    pub(crate) fn read(&self, picture: &Photo) -> Vec<f32> {
        match self {
            Self::Compact(_) => picture.signed(),
            Self::Vit(config) => Vit::patches(config, picture),
        }
    }

    /// Runs over pictures, each as [`Network::read`] gave it.
    pub(crate) fn forward(&self, tape: &mut Tape<'_>, pictures: &[Vec<f32>], depths: Option<&Depths>) -> Seen {
        let values = pictures.concat();
        match self {
            Self::Compact(settings) => {
                let seen = settings.forward(tape, Matrix::new(values.len() / 3, 3, values), self.side());
                let [tokens, global] = settings.vectors(tape, &seen);
                Seen { tokens, global: Global::Var(global), first_cell: 0, objects: Some(seen.objects) }
            }
            Self::Vit(config) => {
                let VitConfig { depth, heads, epsilon, activation, patch, .. } = *config;
                let network = VisionTransformer { depth, heads, epsilon: epsilon as f32, activation };
                let columns = 3 * patch * patch;
                let patches = Matrix::new(values.len() / columns, columns, values);
                let tokens = network.forward(tape, patches, pictures.len(), depths);
                let first_cell = tape.value(tokens).rows / pictures.len() - self.grid() * self.grid();
                Seen { tokens, global: Global::FirstToken, first_cell, objects: None }
            }
        }
    }

    /// The rows of [`Seen::tokens`] whose mean is a box's vector, and their shares, for picture number `picture` of those
    /// with `tokens` tokens each; the box in pixels of a picture of this size.
    pub(crate) fn shares(
        &self,
        seen: &Seen,
        tokens: usize,
        picture: usize,
        [width, height]: [u32; 2],
        region: &BoxXyxy,
    ) -> Vec<(usize, f32)> {
        let first = picture * tokens + seen.first_cell;
        let shares = vectors::shares([self.grid(); 2], width, height, region);
        shares.into_iter().map(|(cell, share)| (first + cell, share)).collect()
    }
}

/// A backbone from a checkpoint.
#[derive(Debug)]
pub enum Opened {
    /// The small backbone, which proposes regions too.
    Compact(Box<Compact>),
    /// A vision transformer.
    Vit(Box<Vit>),
}

impl Opened {
    /// Whichever it is.
    pub fn backbone(&self) -> &dyn Backbone {
        match self {
            Self::Compact(compact) => &**compact,
            Self::Vit(vit) => &**vit,
        }
    }

    /// Whichever it is, to keep.
    pub fn into_backbone(self) -> Box<dyn Backbone> {
        match self {
            Self::Compact(compact) => compact,
            Self::Vit(vit) => vit,
        }
    }

    /// The small backbone; an error where it is another.
    pub fn into_compact(self) -> Result<Compact> {
        match self {
            Self::Compact(compact) => Ok(*compact),
            Self::Vit(vit) => Err(Error::Mismatch(format!(
                "{} is a vision transformer and proposes no regions; name a run of `train backbone`, or other regions",
                vit.name()
            ))),
        }
    }
}

/// The backbone of a checkpoint, its weights rounded to f16, so that it is the same one in a
/// [`Pack`](crate::pack::Pack). A vision transformer computes on `device`.
pub fn open(checkpoint: Checkpoint, device: &Device) -> Result<Opened> {
    let Named { name, network } = network_of(&checkpoint.header)?;
    assemble(&name, network, checkpoint.model, device)
}

/// A backbone of weights as they are in training.
pub(crate) fn assemble(name: &str, network: Network, mut weights: Weights, device: &Device) -> Result<Opened> {
    let mut hash = Xxh3::new();
    for (name, weight) in &mut weights {
        hash.update(name.as_bytes());
        for x in &mut weight.values {
            let rounded = f16::from_f32(*x);
            hash.update(&rounded.to_le_bytes());
            *x = rounded.to_f32();
        }
    }
    let checksum = format!("{:016x}", hash.digest());
    Ok(match network {
        Network::Compact(settings) => Opened::Compact(Box::new(Compact::new(name, checksum, settings, weights)?)),
        Network::Vit(config) => Opened::Vit(Box::new(Vit::of_learnt(name, checksum, config, weights, device)?)),
    })
}

/// Name and network of a backbone's checkpoint.
pub(crate) fn network_of(header: &Header) -> Result<Named> {
    let wrong = |e: serde_json::Error| Error::Setting(format!("the backbone's settings: {e}"));
    if header.settings.get("network").is_some() {
        return serde_json::from_value(header.settings.clone()).map_err(wrong);
    }
    let settings: BackboneRunSettings = serde_json::from_value(header.settings.clone()).map_err(wrong)?;
    Ok(Named { name: "compact".into(), network: Network::Compact(settings.model) })
}
