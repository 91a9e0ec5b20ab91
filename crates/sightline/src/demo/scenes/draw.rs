//! Drawing by signed distance: a pixel is covered as far as its centre lies inside the shape's edge, which gives
//! anti-aliased borders. Textures are value noise, stripes, checks and gradients in muted colours.

use rand::{Rng, RngExt};
use sightline_data::BoxXyxy;

use super::{Background, Colour, Object, Picture, Shape, Size};

type Rgb = [f32; 3];

/// No shape reaches further from its centre than this many radii.
pub(super) const REACH: f32 = 1.12;

/// An object with its place.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    pub(super) shape: Shape,
    pub(super) colour: Colour,
    pub(super) size: Size,
    /// Centre, in pixels.
    pub(super) x: f32,
    /// Centre, in pixels.
    pub(super) y: f32,
    /// In pixels.
    pub(super) radius: f32,
    /// Tangent of half the angle of rotation, which needs no sine.
    pub(super) tilt: f32,
}

impl Figure {
    /// How much of the pixel at column `x`, row `y` the figure covers, in `0..=1`.
    fn coverage(&self, x: usize, y: usize) -> f32 {
        let (dx, dy) = (x as f32 + 0.5 - self.x, y as f32 + 0.5 - self.y);
        let t = self.tilt;
        let (cos, sin) = ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t));
        let point = ((cos * dx + sin * dy) / self.radius, (cos * dy - sin * dx) / self.radius);
        (0.5 - signed_distance(self.shape, point) * self.radius).clamp(0.0, 1.0)
    }
}

/// How much of the front-most hidden figure is still visible: the least share over all figures.
pub(super) fn least_visible(figures: &[Figure], width: f32, height: f32) -> f32 {
    let masks = masks(figures, width as usize, height as usize);
    visible_shares(&masks).into_iter().fold(1.0, f32::min)
}

fn masks(figures: &[Figure], width: usize, height: usize) -> Vec<Vec<f32>> {
    let mask = |figure: &Figure| {
        let reach = figure.radius * REACH + 1.0;
        let span =
            |centre: f32, end: usize| (centre - reach).max(0.0) as usize..((centre + reach) as usize + 1).min(end);
        let mut mask = vec![0.0; width * height];
        for y in span(figure.y, height) {
            for x in span(figure.x, width) {
                mask[y * width + x] = figure.coverage(x, y);
            }
        }
        mask
    };
    figures.iter().map(mask).collect()
}

/// For each mask, the share of it that those after it leave visible.
fn visible_shares(masks: &[Vec<f32>]) -> Vec<f32> {
    (0..masks.len())
        .map(|i| {
            let seen: f32 = visible(masks, i).iter().sum();
            seen / masks[i].iter().sum::<f32>()
        })
        .collect()
}

/// Mask `i` less what the masks after it cover.
fn visible(masks: &[Vec<f32>], i: usize) -> Vec<f32> {
    let mut seen = masks[i].clone();
    for front in &masks[i + 1..] {
        seen.iter_mut().zip(front).for_each(|(s, f)| *s *= 1.0 - f);
    }
    seen
}

/// A picture in the making.
pub(super) struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<Rgb>,
    /// The colours the background is made of.
    palette: [Rgb; 2],
}

impl Canvas {
    pub(super) fn of_background(background: Background, width: u32, height: u32, rng: &mut impl Rng) -> Self {
        let (width, height) = (width as usize, height as usize);
        let mut jitter = [0.0; 3];
        jitter.iter_mut().for_each(|j| *j = rng.random_range(-8.0..8.0f32));
        let palette = palette(background).map(|colour| add(colour, jitter));
        let texture = Texture {
            seed: rng.next_u32(),
            scale: rng.random_range(0.8..1.25f32),
            phase: rng.random_range(0.0..64.0f32),
            height: height as f32,
        };
        let pixels = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .map(|(x, y)| {
                let mix = texture.mix(background, x as f32, y as f32).clamp(0.0, 1.0);
                blend(palette[0], palette[1], mix)
            })
            .collect();
        Self { width, height, pixels, palette }
    }

    /// Whether an object of this colour stands out from the background.
    pub(super) fn shows(&self, colour: Colour) -> bool {
        let middle = blend(self.palette[0], self.palette[1], 0.5);
        self.palette.iter().all(|&p| distance(rgb(colour), p) > 130.0) && distance(rgb(colour), middle) > 170.0
    }

    /// Paints the figures in order. Returns for each the object with the box of what is visible of it, and whom it
    /// hides in part: the indices of figures behind it that lose more than a twentieth to it.
    pub(super) fn paint(&mut self, figures: &[Figure], rng: &mut impl Rng) -> Vec<(Object, Vec<usize>)> {
        let masks = masks(figures, self.width, self.height);
        for (figure, mask) in figures.iter().zip(&masks) {
            let mut jitter = [0.0; 3];
            jitter.iter_mut().for_each(|j| *j = rng.random_range(-9.0..9.0f32));
            let colour = add(rgb(figure.colour), jitter);
            let seed = rng.next_u32();
            for (i, (pixel, &coverage)) in self.pixels.iter_mut().zip(mask).enumerate() {
                if coverage > 0.0 {
                    let (x, y) = (i % self.width, i / self.width);
                    // Light from above, and a little grain.
                    let light = -10.0 * (y as f32 - figure.y) / figure.radius;
                    let grain = 8.0 * (noise(seed, x as i32, y as i32) - 0.5);
                    *pixel = blend(*pixel, add(colour, [light + grain; 3]), coverage);
                }
            }
        }
        let object = |(i, figure): (usize, &Figure)| {
            let hides = (0..i)
                .filter(|&behind| {
                    let lost: f32 = masks[behind].iter().zip(&masks[i]).map(|(b, f)| b * f).sum();
                    lost > 0.05 * masks[behind].iter().sum::<f32>()
                })
                .collect();
            let region = extent(&visible(&masks, i), self.width);
            let Figure { shape, colour, size, .. } = *figure;
            (Object { shape, colour, size, region }, hides)
        };
        figures.iter().enumerate().map(object).collect()
    }

    pub(super) fn into_picture(self) -> Picture {
        let pixels = self.pixels.iter().flatten().map(|&v| v.clamp(0.0, 255.0).round() as u8).collect();
        Picture { width: self.width as u32, height: self.height as u32, pixels }
    }
}

/// The box around all pixels that are at least half covered.
fn extent(mask: &[f32], width: usize) -> BoxXyxy {
    let covered = || mask.iter().enumerate().filter(|&(_, &c)| c >= 0.5).map(|(i, _)| (i % width, i / width));
    let least = covered().fold((usize::MAX, usize::MAX), |(x, y), (cx, cy)| (x.min(cx), y.min(cy)));
    let most = covered().fold((0, 0), |(x, y), (cx, cy)| (x.max(cx + 1), y.max(cy + 1)));
    assert!(most.0 > least.0 && most.1 > least.1, "at least half of every object is visible");
    BoxXyxy { x1: least.0 as f32, y1: least.1 as f32, x2: most.0 as f32, y2: most.1 as f32 }
}

fn rgb(colour: Colour) -> Rgb {
    match colour {
        Colour::Red => [212.0, 28.0, 34.0],
        Colour::Orange => [248.0, 132.0, 8.0],
        Colour::Yellow => [250.0, 222.0, 36.0],
        Colour::Green => [28.0, 158.0, 56.0],
        Colour::Blue => [30.0, 72.0, 214.0],
        Colour::Purple => [122.0, 36.0, 160.0],
        Colour::Pink => [252.0, 128.0, 196.0],
        Colour::White => [246.0, 246.0, 246.0],
        Colour::Black => [16.0, 16.0, 20.0],
    }
}

fn palette(background: Background) -> [Rgb; 2] {
    match background {
        Background::Grass => [[62.0, 96.0, 44.0], [116.0, 150.0, 76.0]],
        Background::Sand => [[196.0, 172.0, 130.0], [222.0, 202.0, 164.0]],
        Background::Water => [[64.0, 118.0, 150.0], [120.0, 172.0, 196.0]],
        Background::Wall => [[148.0, 92.0, 76.0], [190.0, 176.0, 164.0]],
        Background::Sky => [[128.0, 174.0, 218.0], [214.0, 228.0, 238.0]],
        Background::Wood => [[112.0, 80.0, 52.0], [158.0, 120.0, 82.0]],
        Background::Stone => [[104.0, 106.0, 108.0], [166.0, 166.0, 162.0]],
        Background::Tiles => [[134.0, 142.0, 150.0], [206.0, 206.0, 200.0]],
    }
}

/// One background's random choices.
struct Texture {
    seed: u32,
    scale: f32,
    phase: f32,
    height: f32,
}

impl Texture {
    /// Where between its two palette colours the background lies at a pixel; about `0..=1`.
    fn mix(&self, background: Background, x: f32, y: f32) -> f32 {
        let Self { seed, scale, phase, height } = *self;
        let smooth = |size: f32| smooth_noise(seed, (x + phase) / (size * scale), (y + phase) / (size * scale));
        let grain = noise(seed ^ 0x5bd1, x as i32, y as i32);
        match background {
            // Upright blades.
            Background::Grass => {
                0.55 * smooth_noise(seed, x / (1.4 * scale), (y + phase) / (5.0 * scale))
                    + 0.3 * smooth(14.0)
                    + 0.15 * grain
            }
            Background::Sand => 0.45 * grain + 0.55 * smooth(18.0),
            // Long bent waves.
            Background::Water => {
                let bend = 5.0 * smooth(22.0);
                0.65 * wave((y + bend + phase) / (7.0 * scale)) + 0.25 * smooth(11.0) + 0.1 * grain
            }
            // Bricks in mortar, every other row shifted by half a brick.
            Background::Wall => {
                let (brick_width, brick_height) = (18.0 * scale, 8.0 * scale);
                let row = ((y + phase) / brick_height).floor();
                let shift = if (row as i32) % 2 == 0 { 0.0 } else { 0.5 * brick_width };
                let column = ((x + phase + shift) / brick_width).floor();
                let in_row = y + phase - row * brick_height;
                let in_column = x + phase + shift - column * brick_width;
                let mortar = in_row < 1.3 || in_column < 1.3;
                if mortar { 0.85 + 0.15 * grain } else { 0.3 * noise(seed, column as i32, row as i32) + 0.12 * grain }
            }
            // A gradient with clouds.
            Background::Sky => {
                let cloud = (0.65 * smooth(24.0) + 0.35 * smooth(9.0) - 0.48).max(0.0);
                0.55 * y / height + 2.2 * cloud
            }
            // Planks with a grain along them.
            Background::Wood => {
                let plank = ((y + phase) / (15.0 * scale)).floor();
                let seam = y + phase - plank * 15.0 * scale < 1.2;
                let fibre = smooth_noise(seed, x / (26.0 * scale) + 17.0 * plank, y / 1.6);
                if seam { 0.0 } else { 0.25 + 0.5 * fibre + 0.25 * noise(seed, 3, plank as i32) }
            }
            Background::Stone => 0.5 * smooth(4.0) + 0.35 * smooth(9.0) + 0.15 * grain,
            Background::Tiles => {
                let tile = 13.0 * scale;
                let (column, row) = (((x + phase) / tile).floor() as i32, ((y + phase) / tile).floor() as i32);
                let base = if (column + row) % 2 == 0 { 0.12 } else { 0.82 };
                base + 0.14 * grain
            }
        }
    }
}

/// Up and down between 0 and 1 with period 1, smooth like a sine.
fn wave(x: f32) -> f32 {
    let t = (2.0 * (x - x.floor()) - 1.0).abs();
    t * t * (3.0 - 2.0 * t)
}

/// White noise in `0..1` at a lattice point.
fn noise(seed: u32, x: i32, y: i32) -> f32 {
    let mut h = seed ^ (x as u32).wrapping_mul(0x85eb_ca6b) ^ (y as u32).wrapping_mul(0xc2b2_ae35);
    h = (h ^ (h >> 15)).wrapping_mul(0x2c1b_3c6d);
    h = (h ^ (h >> 12)).wrapping_mul(0x297a_2d39);
    ((h ^ (h >> 15)) >> 8) as f32 / (1u32 << 24) as f32
}

/// Noise between lattice points.
fn smooth_noise(seed: u32, x: f32, y: f32) -> f32 {
    let (column, row) = (x.floor(), y.floor());
    let ease = |t: f32| t * t * (3.0 - 2.0 * t);
    let (u, v) = (ease(x - column), ease(y - row));
    let at = |dx, dy| noise(seed, column as i32 + dx, row as i32 + dy);
    let top = at(0, 0) + (at(1, 0) - at(0, 0)) * u;
    let bottom = at(0, 1) + (at(1, 1) - at(0, 1)) * u;
    top + (bottom - top) * v
}

fn add(a: Rgb, b: Rgb) -> Rgb {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

fn blend(a: Rgb, b: Rgb, mix: f32) -> Rgb {
    [a[0] + (b[0] - a[0]) * mix, a[1] + (b[1] - a[1]) * mix, a[2] + (b[2] - a[2]) * mix]
}

/// How different two colours look; black to white is 765. Green counts most, as the eye has it.
fn distance(a: Rgb, b: Rgb) -> f32 {
    let d = |i: usize| (a[i] - b[i]) * (a[i] - b[i]);
    (2.5 * d(0) + 4.0 * d(1) + 2.5 * d(2)).sqrt()
}

/// Distance from a point to the edge of a shape about one radius wide, negative inside.
fn signed_distance(shape: Shape, (x, y): (f32, f32)) -> f32 {
    let length = |x: f32, y: f32| (x * x + y * y).sqrt();
    let rectangle = |half_width: f32, half_height: f32| {
        let (dx, dy) = (x.abs() - half_width, y.abs() - half_height);
        length(dx.max(0.0), dy.max(0.0)) + dx.max(dy).min(0.0)
    };
    match shape {
        Shape::Circle => length(x, y) - 0.95,
        Shape::Square => rectangle(0.8, 0.8),
        Shape::Triangle => polygon(&[(0.0, -0.98), (0.98, 0.78), (-0.98, 0.78)], x, y),
        Shape::Star => polygon(&STAR, x, y),
        Shape::Ring => (length(x, y) - 0.81).abs() - 0.19,
        Shape::Cross => rectangle(0.98, 0.31).min(rectangle(0.31, 0.98)),
        Shape::Heart => {
            // A square on its corner, with a half disc on each of its two upper sides.
            let half = 0.57;
            let root = std::f32::consts::FRAC_1_SQRT_2;
            let (u, v) = ((x + y - 0.1) * root, (y - 0.1 - x) * root);
            let (du, dv) = (u.abs() - half, v.abs() - half);
            let square = length(du.max(0.0), dv.max(0.0)) + du.max(dv).min(0.0);
            square.min(length(u + half, v) - half).min(length(u, v + half) - half)
        }
        Shape::Moon => (length(x, y) - 0.98).max(0.86 - length(x - 0.5, y + 0.12)),
    }
}

/// Five points, the outer at 1.08 and the inner at 0.47.
const STAR: [(f32, f32); 10] = [
    (0.0, -1.08),
    (0.276, -0.380),
    (1.027, -0.334),
    (0.447, 0.145),
    (0.635, 0.874),
    (0.0, 0.47),
    (-0.635, 0.874),
    (-0.447, 0.145),
    (-1.027, -0.334),
    (-0.276, -0.380),
];

/// Signed distance to a simple polygon: the nearest edge, and the parity of crossings for the sign.
fn polygon(corners: &[(f32, f32)], x: f32, y: f32) -> f32 {
    let mut nearest = f32::INFINITY;
    let mut inside = false;
    let mut previous = corners[corners.len() - 1];
    for &corner in corners {
        let (ex, ey) = (previous.0 - corner.0, previous.1 - corner.1);
        let (wx, wy) = (x - corner.0, y - corner.1);
        let along = ((wx * ex + wy * ey) / (ex * ex + ey * ey)).clamp(0.0, 1.0);
        let (dx, dy) = (wx - ex * along, wy - ey * along);
        nearest = nearest.min(dx * dx + dy * dy);
        if (corner.1 > y) != (previous.1 > y) && x < corner.0 + (y - corner.1) / ey * ex {
            inside = !inside;
        }
        previous = corner;
    }
    if inside { -nearest.sqrt() } else { nearest.sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_lie_apart() {
        for (i, &a) in Colour::ALL.iter().enumerate() {
            for &b in &Colour::ALL[..i] {
                assert!(distance(rgb(a), rgb(b)) > 140.0, "{a:?} {b:?} {}", distance(rgb(a), rgb(b)));
            }
        }
    }

    #[test]
    fn every_background_shows_several_colours() {
        for background in Background::ALL {
            let palette = palette(background);
            let canvas = Canvas { width: 0, height: 0, pixels: Vec::new(), palette };
            let shown: Vec<_> = Colour::ALL.into_iter().filter(|&c| canvas.shows(c)).collect();
            assert!(shown.len() >= 5, "{background:?} shows only {shown:?}");
        }
        let grass = Canvas { width: 0, height: 0, pixels: Vec::new(), palette: palette(Background::Grass) };
        assert!(!grass.shows(Colour::Green));
    }

    #[test]
    fn a_disc_covers_its_area() {
        let figure = Figure {
            shape: Shape::Circle,
            colour: Colour::Red,
            size: Size::Large,
            x: 32.3,
            y: 30.9,
            radius: 20.0,
            tilt: 0.05,
        };
        let mask = &masks(std::slice::from_ref(&figure), 64, 64)[0];
        let expected = std::f32::consts::PI * 19.0 * 19.0;
        assert!((mask.iter().sum::<f32>() / expected - 1.0).abs() < 0.005);
        let apart = [figure.clone(), Figure { x: 200.0, ..figure }];
        assert_eq!(visible_shares(&masks(&apart, 64, 64))[0], 1.0);
        let half = [figure.clone(), Figure { shape: Shape::Square, x: 48.3, ..figure }];
        let share = visible_shares(&masks(&half, 64, 64))[0];
        assert!((share - 0.5).abs() < 0.06, "{share}");
    }

    #[test]
    fn every_shape_keeps_within_its_reach() {
        for shape in Shape::ALL {
            for step in 0..400 {
                let t = step as f32 / 50.0 - 4.0;
                for point in [(REACH, t), (-REACH, t), (t, REACH), (t, -REACH)] {
                    assert!(signed_distance(shape, point) > 0.0, "{shape:?} {point:?}");
                }
            }
            let figure =
                Figure { shape, colour: Colour::Red, size: Size::Large, x: 50.0, y: 50.0, radius: 30.0, tilt: 0.0 };
            let region = extent(&masks(&[figure], 100, 100)[0], 100);
            assert!(region.width() >= 40.0 && region.height() >= 45.0, "{shape:?} {region:?}");
        }
    }
}
