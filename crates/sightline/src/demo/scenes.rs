//! Generated scenes: coloured shapes on textured backgrounds, five sentences each, and the truth of which word
//! talks about which object. The truth is for the evaluation only; nothing of it reaches a [`Dataset`].
//!
//! Every scene draws from a random stream of its own, `(seed, index)`, so scenes can be made in parallel and a longer
//! run begins with the scenes of a shorter one. All arithmetic is addition, multiplication, division and square
//! root, which IEEE 754 fixes to the bit: a seed gives the same bytes on every machine.

mod draw;
mod grammar;

use std::path::{Path, PathBuf};

use anyhow::Context;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use sightline_data::{BoxXyxy, Dataset, Image, Sentence, Split};

pub use grammar::{TrueWord, WordKind};

/// Sentences written for every scene.
pub const SENTENCES_PER_SCENE: usize = 5;

/// The least part of an object that stays visible behind those in front of it.
pub const LEAST_VISIBLE: f32 = 0.5;

/// Width and height of a picture lie in this range, in pixels.
pub const SIDE: std::ops::RangeInclusive<u32> = 64..=160;

/// The shapes that a scene is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Shape {
    Circle,
    Square,
    Triangle,
    Star,
    Ring,
    Cross,
    Heart,
    Moon,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Circle, Self::Square, Self::Triangle, Self::Star, Self::Ring, Self::Cross, Self::Heart, Self::Moon];
}

/// The colours of the objects, far enough apart to be told from each other on any background.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Colour {
    Red,
    Orange,
    Yellow,
    Green,
    Blue,
    Purple,
    Pink,
    White,
    Black,
}

impl Colour {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Red,
        Self::Orange,
        Self::Yellow,
        Self::Green,
        Self::Blue,
        Self::Purple,
        Self::Pink,
        Self::White,
        Self::Black,
    ];
}

/// An object is clearly small or clearly large; nothing lies between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Size {
    Small,
    Large,
}

/// What the ground of a picture looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Background {
    Grass,
    Sand,
    Water,
    Wall,
    Sky,
    Wood,
    Stone,
    Tiles,
}

impl Background {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Grass, Self::Sand, Self::Water, Self::Wall, Self::Sky, Self::Wood, Self::Stone, Self::Tiles];
}

/// RGB pixels, row after row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// `3 * width * height` bytes.
    pub pixels: Vec<u8>,
}

/// One thing in a scene.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its shape.
    pub shape: Shape,
    /// Its colour.
    pub colour: Colour,
    /// Its size.
    pub size: Size,
    /// The box around what can be seen of it, in pixels.
    pub region: BoxXyxy,
}

/// One sentence of a scene with its truth.
#[derive(Debug, Clone, PartialEq)]
pub struct SceneSentence {
    /// As it would be written: capital first, full stop last.
    pub text: String,
    /// One for each token of [`sightline_data::tokens::tokenize`] of the text, in order.
    pub words: Vec<TrueWord>,
}

/// A picture, what is in it, and what is said of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// What a model sees.
    pub picture: Picture,
    /// The ground.
    pub background: Background,
    /// From the rearmost to the foremost; one to four.
    pub objects: Vec<Object>,
    /// [`SENTENCES_PER_SCENE`] of them, all different.
    pub sentences: Vec<SceneSentence>,
}

/// `n` scenes; the same for the same `seed`, and scene `i` does not depend on `n`.
pub fn generate(seed: u64, n: usize) -> Vec<Scene> {
    (0..n as u64).into_par_iter().map(|index| scene(seed, index)).collect()
}

/// The name of the picture of scene `index`: its path in [`to_dataset`] and its file in [`write_pictures`].
pub fn picture_name(index: usize) -> String {
    format!("scene-{index:05}.png")
}

/// The scenes as a dataset rooted at `root`: the first `splits[0].1` scenes belong to split `splits[0].0`, and so on.
///
/// Objects and alignments stay out, [`Image::boxes`] included. Panics where the counts do not sum to the scenes.
pub fn to_dataset(scenes: &[Scene], root: impl Into<PathBuf>, splits: &[(Split, usize)]) -> Dataset {
    let total: usize = splits.iter().map(|&(_, n)| n).sum();
    assert_eq!(total, scenes.len(), "the splits hold {total} scenes, there are {}", scenes.len());
    let split_of = splits.iter().flat_map(|&(split, n)| std::iter::repeat_n(split, n));
    let mut sentence_id = 0..;
    let images = scenes.iter().zip(split_of).enumerate().map(|(index, (scene, split))| Image {
        id: index as u64,
        path: picture_name(index),
        split,
        sentences: scene
            .sentences
            .iter()
            .zip(sentence_id.by_ref())
            .map(|(sentence, id)| Sentence {
                id,
                raw: sentence.text.clone(),
                tokens: sightline_data::tokens::tokenize(&sentence.text),
            })
            .collect(),
        boxes: Vec::new(),
    });
    Dataset { name: "scenes".to_owned(), root: root.into(), images: images.collect(), pairing: Vec::new() }
}

/// Writes every picture as PNG into `folder`, which is made where it is absent, by its [`picture_name`].
pub fn write_pictures(scenes: &[Scene], folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
    scenes.par_iter().enumerate().try_for_each(|(index, Scene { picture, .. })| {
        let path = folder.join(picture_name(index));
        image::save_buffer(&path, &picture.pixels, picture.width, picture.height, image::ExtendedColorType::Rgb8)
            .with_context(|| format!("cannot write {}", path.display()))
    })
}

fn scene(seed: u64, index: u64) -> Scene {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(index);
    let width = rng.random_range(SIDE);
    let height = rng.random_range(SIDE);
    let background = pick(&mut rng, &Background::ALL);
    let mut canvas = draw::Canvas::of_background(background, width, height, &mut rng);
    let figures = loop {
        let kinds = kinds(&canvas, &mut rng);
        if let Some(figures) = place(&kinds, width as f32, height as f32, &mut rng) {
            break figures;
        }
    };
    let objects = canvas.paint(&figures, &mut rng);
    let sentences = grammar::sentences(&objects, background, (width, height), &mut rng);
    let objects = objects.into_iter().map(|(object, _)| object).collect();
    Scene { picture: canvas.into_picture(), background, objects, sentences }
}

/// What an object is, before it has a place.
type Kind = (Shape, Colour, Size);

/// One to four kinds, all readable on the background; now and then a shape is repeated.
fn kinds(canvas: &draw::Canvas, rng: &mut impl Rng) -> Vec<Kind> {
    let n_objects = pick(rng, &[1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4]);
    let colours: Vec<Colour> = Colour::ALL.into_iter().filter(|&colour| canvas.shows(colour)).collect();
    let mut kinds: Vec<Kind> = Vec::new();
    for _ in 0..n_objects {
        let size = if chance(rng, 0.5) { Size::Small } else { Size::Large };
        let mut kind = (pick(rng, &Shape::ALL), pick(rng, &colours), size);
        if chance(rng, 0.2)
            && let Some(&(shape, colour, _)) = kinds.last()
        {
            kind.0 = shape;
            if chance(rng, 0.5) {
                kind.1 = colour;
            }
        } else if let Some((Shape::Ring, _, Size::Large)) = kinds.last() {
            // Something that its hole has room for.
            kind.2 = Size::Small;
        }
        kinds.push(kind);
    }
    kinds
}

/// Places for all, rearmost first, or nothing where they do not fit. Same colours never touch.
fn place(kinds: &[Kind], width: f32, height: f32, rng: &mut impl Rng) -> Option<Vec<draw::Figure>> {
    let side = (width * height).sqrt();
    let overlapping = chance(rng, 0.4);
    for _ in 0..20 {
        let mut figures: Vec<draw::Figure> = Vec::new();
        for &(shape, colour, size) in kinds {
            let radius = match size {
                Size::Small => (side * rng.random_range(0.10..0.13f32)).max(8.0),
                Size::Large => (side * rng.random_range(0.20..0.26f32)).min(0.42 * width.min(height)),
            };
            let figure = (0..40).find_map(|attempt| {
                let reach = radius * draw::REACH + 1.0;
                let hoop = figures.iter().find(|f| f.shape == Shape::Ring && f.size == Size::Large);
                let (x, y) = match hoop {
                    // The hole of a large ring is the one place to be inside of something; it has room for one.
                    Some(ring) if size == Size::Small && attempt % 2 == 0 => (ring.x, ring.y),
                    _ => (rng.random_range(reach..width - reach), rng.random_range(reach..height - reach)),
                };
                let tilt = rng.random_range(-0.1..0.1f32);
                let figure = draw::Figure { shape, colour, size, x, y, radius, tilt };
                let fits = figures.iter().all(|other| {
                    let distance = ((other.x - x) * (other.x - x) + (other.y - y) * (other.y - y)).sqrt();
                    let inside = other.shape == Shape::Ring && distance + radius < 0.62 * other.radius;
                    let apart = distance > draw::REACH * (radius + other.radius) + 2.0;
                    apart
                        || inside
                        || (overlapping && colour != other.colour && distance > 0.8 * radius.max(other.radius))
                });
                fits.then_some(figure)
            });
            figures.extend(figure);
        }
        if figures.len() == kinds.len()
            && (!overlapping || draw::least_visible(&figures, width, height) >= LEAST_VISIBLE)
        {
            return Some(figures);
        }
    }
    None
}

/// One of `choices`.
fn pick<T: Copy>(rng: &mut impl Rng, choices: &[T]) -> T {
    choices[rng.random_range(0..choices.len())]
}

/// True with probability `p`.
fn chance(rng: &mut impl Rng, p: f32) -> bool {
    rng.random_range(0.0..1.0f32) < p
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::LazyLock;

    use super::*;

    /// Scenes for all tests that only look at them.
    pub(super) fn world() -> &'static [Scene] {
        static WORLD: LazyLock<Vec<Scene>> = LazyLock::new(|| generate(1, 600));
        &WORLD
    }

    /// FNV-1a, 64 bits.
    fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
        bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
    }

    fn bytes(scene: &Scene) -> Vec<u8> {
        let text = scene.sentences.iter().flat_map(|s| s.text.bytes());
        text.chain(scene.picture.pixels.iter().copied()).collect()
    }

    #[test]
    fn a_seed_gives_the_same_bytes_everywhere() {
        let scenes = generate(7, 24);
        assert_eq!(scenes, generate(7, 24));
        assert_eq!(scenes[..5], generate(7, 5));
        assert_ne!(scenes[..5], generate(8, 5));
        // Printed by this very test; it changes when a scene is drawn or worded otherwise, and only then may it.
        assert_eq!(hash(scenes.iter().flat_map(bytes)), HASH_OF_SEED_7);
    }
    const HASH_OF_SEED_7: u64 = 11_562_059_071_387_021_070;

    #[test]
    fn scenes_keep_their_promises() {
        let (mut overlaps, mut counts, mut twins) = (0, [0; 5], 0);
        for (index, scene) in world().iter().enumerate() {
            let Picture { width, height, ref pixels } = scene.picture;
            assert!(SIDE.contains(&width) && SIDE.contains(&height), "{width}x{height}");
            assert_eq!(pixels.len(), (3 * width * height) as usize);
            counts[scene.objects.len()] += 1;
            for (i, object) in scene.objects.iter().enumerate() {
                assert_eq!(object.region, object.region.clip(width, height), "scene {index}");
                assert!(object.region.area() >= 60.0, "scene {index}: {object:?}");
                for other in &scene.objects[..i] {
                    overlaps += usize::from(other.region.iou(&object.region) > 0.05);
                    twins += usize::from(other.shape == object.shape);
                }
            }
            assert_eq!(scene.sentences.len(), SENTENCES_PER_SCENE);
            let texts: HashSet<_> = scene.sentences.iter().map(|s| &s.text).collect();
            assert_eq!(texts.len(), SENTENCES_PER_SCENE, "scene {index}: {texts:?}");
        }
        assert!(counts[0] == 0 && counts[1..].iter().all(|&n| n >= 30), "{counts:?}");
        assert!(overlaps >= 40 && twins >= 60, "{overlaps} overlaps, {twins} of the same shape");
    }

    #[test]
    fn sizes_lie_apart() {
        for scene in world() {
            let side = ((scene.picture.width * scene.picture.height) as f32).sqrt();
            for object in &scene.objects {
                let extent = object.region.width().max(object.region.height()) / side;
                match object.size {
                    Size::Small => assert!(extent < 0.30, "{object:?} {extent}"),
                    Size::Large => assert!(extent > 0.26, "{object:?} {extent}"),
                }
            }
        }
    }

    #[test]
    fn the_dataset_tells_nothing_of_the_truth() {
        let scenes = generate(3, 10);
        let dataset = to_dataset(&scenes, "pictures", &[(Split::Train, 6), (Split::Val, 1), (Split::Test, 3)]);
        let n_of = |split| dataset.split(split).count();
        assert_eq!((n_of(Split::Train), n_of(Split::Val), n_of(Split::Test)), (6, 1, 3));
        for (image, scene) in dataset.images.iter().zip(&scenes) {
            assert!(image.boxes.is_empty());
            for (sentence, truth) in image.sentences.iter().zip(&scene.sentences) {
                let words: Vec<_> = truth.words.iter().map(|w| w.word.clone()).collect();
                assert_eq!(sentence.tokens, words, "{}", truth.text);
            }
        }
        let ids: HashSet<_> = dataset.images.iter().flat_map(|i| i.sentences.iter().map(|s| s.id)).collect();
        assert_eq!(ids.len(), 50);
    }

    #[test]
    fn pictures_are_written_as_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let scenes = generate(4, 3);
        write_pictures(&scenes, &folder.path().join("a/b")).unwrap();
        for (index, scene) in scenes.iter().enumerate() {
            let read = image::open(folder.path().join("a/b").join(picture_name(index))).unwrap().to_rgb8();
            assert_eq!((read.width(), read.height()), (scene.picture.width, scene.picture.height));
            assert_eq!(read.into_raw(), scene.picture.pixels);
        }
    }
}
