//! What is done to photos by chance, so that a network does not learn them by heart: parts of them, mirrored, in other
//! colours.

use rand::RngExt;
use sightline_data::BoxXyxy;
use sightline_vision::{Filter, Photo};

/// What chance may do to a photo.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ViewSettings {
    /// A view has at least this share of its photo.
    pub(crate) least_area: f32,
    /// A view's shape, against its photo's, differs by this factor at most.
    pub(crate) most_stretch: f32,
    /// Whether every other view is mirrored.
    pub(crate) mirror: bool,
    /// The most that brightness (of 1), contrast and saturation (factors about 1) change.
    pub(crate) colour: f32,
}

/// One view of a photo.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct View {
    /// The part that is shown, in whole pixels of the photo.
    pub(crate) part: BoxXyxy,
    /// Whether left and right are exchanged.
    pub(crate) mirrored: bool,
    /// Brightness (added), contrast and saturation (factors).
    colours: [f32; 3],
}

impl View {
    /// A view by chance.
    pub(crate) fn by_chance(photo: &Photo, settings: &ViewSettings, rng: &mut impl RngExt) -> Self {
        let part = part_by_chance(photo, settings.least_area, settings.most_stretch, rng);
        let part = BoxXyxy { x1: part.x1.floor(), y1: part.y1.floor(), x2: part.x2.ceil(), y2: part.y2.ceil() };
        let mirrored = settings.mirror && rng.random::<bool>();
        let mut change = || settings.colour * rng.random_range(-1.0..=1.0f32);
        let colours = [change(), 1.0 + change(), 1.0 + change()];
        Self { part: part.clip(photo.width, photo.height), mirrored, colours }
    }

    /// What the view shows, `side` by `side` pixels of it.
    pub(crate) fn square(&self, photo: &Photo, side: usize) -> Photo {
        let picture = photo.crop_and_resize(&self.part, side as u32, side as u32, Filter::Bicubic);
        let mut levels = picture.signed();
        if self.mirrored {
            mirror(&mut levels, side, 3);
        }
        let [brightness, contrast, saturation] = self.colours;
        recolour(&mut levels, brightness, contrast, saturation);
        Photo::from_signed(picture.width, picture.height, &levels)
    }
}

/// A part of a photo, with this share of its area at least, stretched by this factor at most.
pub(crate) fn part_by_chance(photo: &Photo, least_area: f32, most_stretch: f32, rng: &mut impl RngExt) -> BoxXyxy {
    let area = rng.random_range(least_area..=1.0);
    // A part of nearly everything has no room to be stretched.
    let stretch = most_stretch.powf(rng.random_range(-1.0..=1.0f32)).clamp(area, 1.0 / area);
    let (width, height) = (photo.width as f32, photo.height as f32);
    let (w, h) = ((area * stretch).sqrt() * width, (area / stretch).sqrt() * height);
    let (x, y) = (rng.random::<f32>() * (width - w), rng.random::<f32>() * (height - h));
    BoxXyxy { x1: x, y1: y, x2: x + w, y2: y + h }.clip(photo.width, photo.height)
}

/// A box of a photo as a part of it shows it, mirrored or not, in pixels of the part; none where less than half of it is
/// inside.
pub(crate) fn shown(b: &BoxXyxy, part: &BoxXyxy, mirrored: bool) -> Option<BoxXyxy> {
    const LEAST_VISIBLE: f32 = 0.5;
    let (width, height) = (part.width(), part.height());
    let inside = BoxXyxy {
        x1: (b.x1 - part.x1).max(0.0),
        y1: (b.y1 - part.y1).max(0.0),
        x2: (b.x2 - part.x1).min(width),
        y2: (b.y2 - part.y1).min(height),
    };
    let is_visible = inside.x2 > inside.x1 && inside.y2 > inside.y1 && inside.area() >= LEAST_VISIBLE * b.area();
    is_visible.then_some(match mirrored {
        true => BoxXyxy { x1: width - inside.x2, x2: width - inside.x1, ..inside },
        false => inside,
    })
}

/// Turns left and right about, in rows of `width` cells of `channels` numbers.
pub(crate) fn mirror(cells: &mut [f32], width: usize, channels: usize) {
    for row in cells.chunks_exact_mut(width * channels) {
        for left in 0..width / 2 {
            let (a, b) = row.split_at_mut((width - 1 - left) * channels);
            a[left * channels..(left + 1) * channels].swap_with_slice(&mut b[..channels]);
        }
    }
}

/// Changes brightness (added), contrast about the mean, and the colours' distance from grey (factors), in values from -1
/// to 1.
pub(crate) fn recolour(pixels: &mut [f32], brightness: f32, contrast: f32, saturation: f32) {
    let mean = pixels.iter().sum::<f32>() / pixels.len() as f32;
    for pixel in pixels.chunks_exact_mut(3) {
        let grey = (pixel[0] + pixel[1] + pixel[2]) / 3.0;
        for x in pixel {
            let coloured = grey + saturation * (*x - grey);
            *x = (mean + contrast * (coloured - mean) + brightness).clamp(-1.0, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use sightline_model::random;

    use super::*;

    /// Every pixel another colour.
    fn photo(width: u32, height: u32) -> Photo {
        let pixels = (0..width * height * 3).map(|i| (i * 37 % 256) as u8).collect();
        Photo::from_rgb(width, height, pixels)
    }

    #[test]
    fn mirroring_twice_changes_nothing() {
        let cells: Vec<f32> = (0..5 * 3 * 2).map(|i| i as f32).collect();
        let mut mirrored = cells.clone();
        mirror(&mut mirrored, 5, 2);
        assert_eq!(mirrored[..2], cells[8..10]);
        assert_eq!(mirrored[4..6], cells[4..6]);
        mirror(&mut mirrored, 5, 2);
        assert_eq!(mirrored, cells);
    }

    #[test]
    fn colours_change_as_asked() {
        let pixels = [0.5, -0.5, 0.0, -0.5, 0.5, 0.0];
        let changed = |brightness, contrast, saturation| {
            let mut own = pixels;
            recolour(&mut own, brightness, contrast, saturation);
            own
        };
        assert_eq!(changed(0.0, 1.0, 1.0), pixels);
        assert_eq!(changed(0.25, 1.0, 1.0)[..3], [0.75, -0.25, 0.25]);
        assert_eq!(changed(0.0, 1.0, 0.0), [0.0; 6]);
        assert_eq!(changed(0.0, 4.0, 1.0)[..3], [1.0, -1.0, 0.0]);
    }

    #[test]
    fn parts_lie_inside_and_are_large_enough() {
        let photo = photo(300, 200);
        let mut rng = random::stream(1, 0);
        for _ in 0..100 {
            let part = part_by_chance(&photo, 0.15, 4.0 / 3.0, &mut rng);
            assert_eq!(part, part.clip(300, 200));
            assert!(part.area() >= 0.999 * 0.15 * 60_000.0, "{part:?}");
            let whole = part_by_chance(&photo, 1.0, 4.0 / 3.0, &mut rng);
            assert!(whole.area() >= 0.999 * 60_000.0, "{whole:?}");
        }
    }

    #[test]
    fn a_view_shows_its_part() {
        let photo = photo(60, 40);
        let part = BoxXyxy { x1: 10.0, y1: 5.0, x2: 40.0, y2: 35.0 };
        let same = View { part, mirrored: false, colours: [0.0, 1.0, 1.0] };
        let picture = same.square(&photo, 30);
        assert_eq!(picture.rgb(3, 4), photo.rgb(13, 9));
        let mirrored = View { mirrored: true, ..same }.square(&photo, 30);
        assert_eq!(mirrored.rgb(26, 4), photo.rgb(13, 9));
        let bright = View { colours: [2.0, 1.0, 1.0], ..same }.square(&photo, 8);
        assert!(bright.width == 8 && bright.pixels.iter().all(|&level| level == 255));
    }

    #[test]
    fn chance_does_what_it_may() {
        let photo = photo(60, 40);
        let mut rng = random::stream(1, 0);
        let nothing = ViewSettings { least_area: 1.0, most_stretch: 1.0, mirror: false, colour: 0.0 };
        let whole = View::by_chance(&photo, &nothing, &mut rng);
        assert_eq!(whole, View { part: photo.whole(), mirrored: false, colours: [0.0, 1.0, 1.0] });
        let all = ViewSettings { least_area: 0.5, most_stretch: 1.25, mirror: true, colour: 0.2 };
        let views: Vec<View> = (0..60).map(|_| View::by_chance(&photo, &all, &mut rng)).collect();
        let mirrored = views.iter().filter(|view| view.mirrored).count();
        assert!((15..=45).contains(&mirrored), "{mirrored} of 60");
        assert!(views.iter().all(|view| view.part.area() >= 0.5 * 2400.0 && view.colours[1] <= 1.2));
        assert!(views.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
