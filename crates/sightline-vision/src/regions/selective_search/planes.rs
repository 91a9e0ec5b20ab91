//! What Selective Search sees of a photo: colour planes, smoothed planes, and oriented derivatives.

use crate::photo::Photo;

/// One number a pixel, `[height, width]`, row by row.
pub(super) type Plane = Vec<f32>;

/// The colour spaces of Selective Search's fast mode (Uijlings et al. 2013, section 3.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColourSpace {
    /// Hue, saturation, value. Hue and saturation are laid out as a disc, so that red has no seam and grey no hue.
    Hsv,
    /// CIE L*a*b* under D65.
    Lab,
}

impl ColourSpace {
    /// Three planes of values in `0..=255`.
    pub(super) fn planes(self, photo: &Photo) -> [Plane; 3] {
        let mut planes = [(); 3].map(|()| Vec::with_capacity(photo.pixels.len() / 3));
        let linear: [f32; 256] = std::array::from_fn(|v| srgb_to_linear(v as f32 / 255.0));
        for rgb in photo.pixels.chunks_exact(3) {
            let rgb = [rgb[0], rgb[1], rgb[2]];
            let colour = match self {
                Self::Hsv => hsv_disc(rgb),
                Self::Lab => lab(rgb.map(|v| linear[usize::from(v)])),
            };
            for (plane, value) in planes.iter_mut().zip(colour) {
                plane.push(value);
            }
        }
        planes
    }
}

/// `(saturation · cos hue, saturation · sin hue, value)`, each in `0..=255`.
fn hsv_disc(rgb: [u8; 3]) -> [f32; 3] {
    let [r, g, b] = rgb.map(f32::from);
    let value = r.max(g).max(b);
    let chroma = value - r.min(g).min(b);
    if chroma == 0.0 {
        return [127.5, 127.5, value];
    }
    let saturation = chroma / value;
    // The hexagon's sector and the place in it, in sixths of a turn.
    let sixths = if value == r {
        (g - b) / chroma
    } else if value == g {
        2.0 + (b - r) / chroma
    } else {
        4.0 + (r - g) / chroma
    };
    let (sin, cos) = (sixths * std::f32::consts::FRAC_PI_3).sin_cos();
    [127.5 * (1.0 + saturation * cos), 127.5 * (1.0 + saturation * sin), value]
}

fn srgb_to_linear(v: f32) -> f32 {
    if v <= 0.040_45 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
}

/// L*a*b* of linear RGB, stretched to `0..=255`: L* by 2.55, a* and b* moved by 128.
fn lab([r, g, b]: [f32; 3]) -> [f32; 3] {
    // sRGB's primaries, divided by the D65 white point.
    let x = (0.412_456_4 * r + 0.357_576_1 * g + 0.180_437_5 * b) / 0.950_47;
    let y = 0.212_672_9 * r + 0.715_152_2 * g + 0.072_175 * b;
    let z = (0.019_333_9 * r + 0.119_192 * g + 0.950_304_1 * b) / 1.088_83;
    let f = |t: f32| if t > 216.0 / 24_389.0 { t.cbrt() } else { (24_389.0 / 27.0 * t + 16.0) / 116.0 };
    let (fx, fy, fz) = (f(x), f(y), f(z));
    [2.55 * (116.0 * fy - 16.0), 500.0 * (fx - fy) + 128.0, 200.0 * (fy - fz) + 128.0]
}

/// Samples of a Gaussian, or of its first derivative, up to two and a half σ from the middle: longer tails would draw
/// a ring around every object of a flat picture, where the slightest difference is an edge.
#[derive(Debug, Clone, Copy)]
enum Kernel {
    Smooth,
    /// Scaled so that a ramp of slope one gives one.
    Derivative,
}

impl Kernel {
    fn taps(self, sigma: f32) -> Vec<f32> {
        let radius = (2.5 * sigma).ceil() as i32;
        let gauss = |x: i32| (-0.5 * (x as f32 / sigma).powi(2)).exp();
        let raw: Vec<f32> = match self {
            Self::Smooth => (-radius..=radius).map(gauss).collect(),
            Self::Derivative => (-radius..=radius).map(|x| x as f32 * gauss(x)).collect(),
        };
        let norm: f32 = match self {
            Self::Smooth => raw.iter().sum(),
            Self::Derivative => (-radius..=radius).zip(&raw).map(|(x, v)| x as f32 * v).sum(),
        };
        raw.iter().map(|v| v / norm).collect()
    }
}

/// Correlates rows with one kernel and columns with another; beyond the border the last pixel repeats.
fn separable(plane: &[f32], width: usize, height: usize, along_x: &[f32], along_y: &[f32]) -> Plane {
    let radius = along_x.len() / 2;
    let mut padded = vec![0.0; width + 2 * radius];
    let mut rows = vec![0.0; width * height];
    for (source, target) in plane.chunks_exact(width).zip(rows.chunks_exact_mut(width)) {
        padded[..radius].fill(source[0]);
        padded[radius..radius + width].copy_from_slice(source);
        padded[radius + width..].fill(source[width - 1]);
        for (tap, &weight) in along_x.iter().enumerate() {
            if weight != 0.0 {
                for (t, s) in target.iter_mut().zip(&padded[tap..]) {
                    *t += weight * s;
                }
            }
        }
    }
    let radius = along_y.len() as isize / 2;
    let mut result = vec![0.0; width * height];
    for (y, target) in result.chunks_exact_mut(width).enumerate() {
        for (tap, &weight) in along_y.iter().enumerate() {
            if weight != 0.0 {
                let row = (y as isize + tap as isize - radius).clamp(0, height as isize - 1) as usize;
                for (t, s) in target.iter_mut().zip(&rows[row * width..(row + 1) * width]) {
                    *t += weight * s;
                }
            }
        }
    }
    result
}

/// The planes smoothed by a Gaussian.
pub(super) fn smooth(planes: &[Plane; 3], width: usize, height: usize, sigma: f32) -> [Plane; 3] {
    let taps = Kernel::Smooth.taps(sigma);
    std::array::from_fn(|c| separable(&planes[c], width, height, &taps, &taps))
}

/// Gaussian derivatives along x and along y.
pub(super) fn derivatives(plane: &[f32], width: usize, height: usize, sigma: f32) -> (Plane, Plane) {
    let (smooth, derivative) = (Kernel::Smooth.taps(sigma), Kernel::Derivative.taps(sigma));
    (separable(plane, width, height, &derivative, &smooth), separable(plane, width, height, &smooth, &derivative))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_colours() {
        let check = |space: ColourSpace, rgb: [u8; 3], expected: [f32; 3]| {
            let planes = space.planes(&Photo::uniform(1, 1, rgb));
            for (plane, value) in planes.iter().zip(expected) {
                assert!((plane[0] - value).abs() < 0.05, "{space:?} {rgb:?}: {planes:?}, expected {expected:?}");
            }
        };
        check(ColourSpace::Hsv, [0, 0, 0], [127.5, 127.5, 0.0]);
        check(ColourSpace::Hsv, [200, 200, 200], [127.5, 127.5, 200.0]);
        check(ColourSpace::Hsv, [255, 0, 0], [255.0, 127.5, 255.0]);
        check(ColourSpace::Hsv, [0, 100, 100], [0.0, 127.5, 100.0]);
        check(ColourSpace::Hsv, [60, 120, 60], [95.625, 127.5 * (1.0 + 0.5 * 0.866_025), 120.0]);
        check(ColourSpace::Lab, [255, 255, 255], [255.0, 128.0, 128.0]);
        // L*a*b* of sRGB red is (53.24, 80.09, 67.20), of blue (32.30, 79.19, -107.86), as any colour table has it.
        check(ColourSpace::Lab, [255, 0, 0], [53.24 * 2.55, 208.09, 195.20]);
        check(ColourSpace::Lab, [0, 0, 255], [32.30 * 2.55, 207.19, 20.14]);
    }

    #[test]
    fn smoothing_keeps_flat_planes_and_derivatives_measure_slopes() {
        let (width, height) = (23, 17);
        let ramp: Plane = (0..width * height).map(|i| 3.0 * (i % width) as f32 - 2.0 * (i / width) as f32).collect();
        let smoothed = smooth(&[ramp.clone(), vec![7.0; width * height], ramp.clone()], width, height, 0.8);
        assert!(smoothed[1].iter().all(|v| (v - 7.0).abs() < 1e-5));
        let (dx, dy) = derivatives(&ramp, width, height, 1.0);
        let middle = 8 * width + 11;
        assert!((smoothed[0][middle] - ramp[middle]).abs() < 1e-3);
        assert!((dx[middle] - 3.0).abs() < 1e-3 && (dy[middle] + 2.0).abs() < 1e-3, "{} {}", dx[middle], dy[middle]);
    }
}
