//! The two drawings, as SVG whose every coordinate is decided here, so that lines end where they should without any
//! script: words joined to the centres of their boxes (figure 5), regions with their captions (figure 7).
//!
//! Each is laid out twice, for wide screens (labels at the right) and for narrow ones (labels below); the page's style
//! shows one. The photo itself is in the page once and is referred to by its `photo_id`.

use std::fmt::Write as _;

use sightline_data::BoxXyxy;

use super::spread::spread;
use super::svg::{escape, score, shorten, text_em, wrap};
use super::{PhotoPanel, RegionCaption, SentencePanel};

/// Region colours in the page's style, `.c0` and so on.
const N_COLOURS: usize = 10;

/// Words shown of a sentence; what follows is counted.
const MAX_WORDS: usize = 48;

const FONT: f32 = 14.0;
const CHIP_HEIGHT: f32 = 24.0;

/// Which of the two layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Wide,
    Narrow,
}

impl Layout {
    const BOTH: [Self; 2] = [Self::Wide, Self::Narrow];

    /// Of the drawing, in its own units.
    fn width(self) -> f32 {
        match self {
            Self::Wide => 880.0,
            Self::Narrow => 360.0,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Wide => "wide",
            Self::Narrow => "narrow",
        }
    }
}

/// Where the photo lies in a drawing.
#[derive(Debug, Clone, Copy)]
struct Frame {
    left: f32,
    width: f32,
    height: f32,
    /// Units of the drawing a pixel of the original.
    scale: f32,
}

impl Frame {
    fn of(photo: &PhotoPanel, layout: Layout) -> Self {
        let (max_width, max_height) = match layout {
            Layout::Wide => (520.0, 420.0),
            Layout::Narrow => (360.0, 400.0),
        };
        let (width, height) = (photo.width.max(1) as f32, photo.height.max(1) as f32);
        let scale = (max_width / width).min(max_height / height);
        // A sliver of 50,000 pixels by 3 is still drawn with some thickness.
        let (width, height) = ((width * scale).max(8.0), (height * scale).max(8.0));
        let left = if layout == Layout::Narrow { (max_width - width) / 2.0 } else { 0.0 };
        Self { left, width, height, scale }
    }

    /// A box of the original in the drawing, kept inside the photo.
    fn place(&self, region: BoxXyxy) -> BoxXyxy {
        let x = |v: f32| self.left + finite(v * self.scale).clamp(0.0, self.width);
        let y = |v: f32| finite(v * self.scale).clamp(0.0, self.height);
        BoxXyxy { x1: x(region.x1), y1: y(region.y1), x2: x(region.x2), y2: y(region.y2) }
    }

    fn image(&self, photo_id: &str, photo: &PhotoPanel) -> String {
        // The picture in the definitions measures 1 by 1.
        format!(
            "<g class=\"photo\" role=\"img\" aria-label=\"{}\"><use href=\"#{photo_id}\" transform=\"translate({:.1} 0) scale({:.2} {:.2})\"/></g>",
            escape(&photo.key),
            self.left,
            self.width,
            self.height
        )
    }
}

fn finite(v: f32) -> f32 {
    if v.is_finite() { v } else { 0.0 }
}

/// The photo as a definition that [`words`] and [`captions`] refer to.
pub(super) fn photo_definition(photo_id: &str, photo: &PhotoPanel) -> String {
    format!(
        "<svg class=\"definition\" width=\"0\" height=\"0\" aria-hidden=\"true\"><defs><image id=\"{photo_id}\" width=\"1\" height=\"1\" preserveAspectRatio=\"none\" href=\"{}\"/></defs></svg>",
        super::data_uri(&photo.thumbnail)
    )
}

/// A label with its place.
struct Chip {
    left: f32,
    top: f32,
    width: f32,
}

/// Figure 5: every word with its score before it, and a line to the centre of its box where it reaches `threshold`.
pub(super) fn words(photo_id: &str, photo: &PhotoPanel, sentence: &SentencePanel, threshold: f32) -> String {
    Layout::BOTH.map(|layout| words_in(layout, photo_id, photo, sentence, threshold)).concat()
}

fn words_in(layout: Layout, photo_id: &str, photo: &PhotoPanel, sentence: &SentencePanel, threshold: f32) -> String {
    let frame = Frame::of(photo, layout);
    let words = &sentence.words[..sentence.words.len().min(MAX_WORDS)];
    let n_left_out = sentence.words.len() - words.len();

    // Regions that a line leads to, in the order of their first word: the order of the colours.
    let mut regions: Vec<(usize, BoxXyxy)> = Vec::new();
    for word in words.iter().filter(|w| w.score >= threshold) {
        if regions.iter().all(|&(region, _)| region != word.region) {
            regions.push((word.region, frame.place(word.region_box)));
        }
    }
    let colour_of = |region: usize| regions.iter().position(|&(r, _)| r == region);

    let labels: Vec<(String, String)> = words.iter().map(|w| (score(w.score), shorten(&w.word, 16.0))).collect();
    let widths: Vec<f32> = labels.iter().map(|(score, word)| chip_width(score, word)).collect();
    let (chips, height) = match layout {
        Layout::Wide => chips_in_columns(&widths, &frame),
        Layout::Narrow => chips_in_rows(&widths, &frame),
    };
    let height = if n_left_out > 0 { height + 22.0 } else { height };

    let mut boxes: Vec<(usize, usize, BoxXyxy)> =
        regions.iter().enumerate().map(|(colour, &(region, placed))| (colour, region, placed)).collect();
    // Small boxes over large ones, so that each can be pointed at.
    boxes.sort_by(|a, b| b.2.area().total_cmp(&a.2.area()));

    let mut svg = open(layout, height, &format!("Words and their regions: {}", sentence.text));
    svg += &frame.image(photo_id, photo);
    for &(colour, region, placed) in &boxes {
        let named: Vec<&str> =
            words.iter().filter(|w| w.region == region && w.score >= threshold).map(|w| w.word.as_str()).collect();
        svg += &box_group(colour, region, placed, &format!("region {region}: {}", named.join(", ")));
    }
    for (word, chip) in words.iter().zip(&chips) {
        if let Some(colour) = colour_of(word.region).filter(|_| word.score >= threshold) {
            let centre = regions[colour].1.centre();
            let from = match layout {
                Layout::Wide => (chip.left, chip.top + CHIP_HEIGHT / 2.0),
                Layout::Narrow => (chip.left + chip.width / 2.0, chip.top),
            };
            svg += &line(colour, word.region, from, centre);
        }
    }
    for &(colour, region, placed) in &boxes {
        svg += &centre_dot(colour, region, placed);
    }
    for ((word, chip), (score, shown)) in words.iter().zip(&chips).zip(&labels) {
        let drawn = colour_of(word.region).filter(|_| word.score >= threshold);
        let (x, y) = (chip.left, chip.top);
        let baseline = y + CHIP_HEIGHT / 2.0 + FONT * 0.35;
        let class = match drawn {
            Some(colour) => format!("word c{}\" tabindex=\"0\" data-region=\"{}", colour % N_COLOURS, word.region),
            None => "word weak".to_owned(),
        };
        let said = match drawn {
            Some(_) => format!("{}, score {score}, region {}", word.word, word.region),
            None => format!("{}, score {score}, below the threshold", word.word),
        };
        let _ = write!(
            svg,
            "<g class=\"{class}\" role=\"img\" aria-label=\"{said}\"><title>{said}</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{CHIP_HEIGHT}\" rx=\"5\"/><text x=\"{:.1}\" y=\"{baseline:.1}\"><tspan class=\"score\">{score}</tspan> {}</text></g>",
            chip.width,
            x + 8.0,
            escape(shown),
            said = escape(&said),
        );
    }
    if n_left_out > 0 {
        let _ = write!(
            svg,
            "<text class=\"more\" x=\"{:.1}\" y=\"{:.1}\">… and {n_left_out} more words</text>",
            chips.first().map_or(0.0, |chip| chip.left),
            height - 6.0
        );
    }
    svg + "</svg>"
}

fn chip_width(score: &str, word: &str) -> f32 {
    16.0 + FONT * (0.8 * text_em(score) + text_em(" ") + text_em(word))
}

/// Labels one below the other at the right of the photo, in one column or in as many as it takes.
fn chips_in_columns(widths: &[f32], frame: &Frame) -> (Vec<Chip>, f32) {
    let gap = 5.0;
    let left = frame.width + 72.0;
    let room = frame.height.max(300.0);
    let per_column = ((room + gap) / (CHIP_HEIGHT + gap)).floor() as usize;
    let widest = widths.iter().copied().fold(0.0, f32::max);
    let n_columns = widths.len().div_ceil(per_column).max(1);
    // Columns that would leave the drawing make the one column longer instead.
    let n_columns = n_columns.min((((Layout::Wide.width() - left + 14.0) / (widest + 14.0)) as usize).max(1));
    let per_column = widths.len().div_ceil(n_columns).max(1);
    let needed = per_column as f32 * (CHIP_HEIGHT + gap) - gap;
    let height = frame.height.max(needed);
    let pitch = if per_column < 2 {
        0.0
    } else {
        ((height - CHIP_HEIGHT) / (per_column - 1) as f32).clamp(CHIP_HEIGHT + gap, CHIP_HEIGHT + 14.0)
    };
    let top = (height - CHIP_HEIGHT - pitch * (per_column - 1) as f32) / 2.0;
    let chip = |(i, &width): (usize, &f32)| Chip {
        left: left + (i / per_column) as f32 * (widest + 14.0),
        top: top + (i % per_column) as f32 * pitch,
        width,
    };
    (widths.iter().enumerate().map(chip).collect(), height)
}

/// Labels in the order of the sentence below the photo, row after row.
fn chips_in_rows(widths: &[f32], frame: &Frame) -> (Vec<Chip>, f32) {
    let (mut x, mut y) = (0.0, frame.height + 26.0);
    let mut chips = Vec::new();
    for &width in widths {
        if x > 0.0 && x + width > Layout::Narrow.width() {
            x = 0.0;
            y += CHIP_HEIGHT + 9.0;
        }
        chips.push(Chip { left: x, top: y, width });
        x += width + 7.0;
    }
    (chips, y + CHIP_HEIGHT + 2.0)
}

/// Figure 7: a dot in the middle of each region, joined to what the model says of it.
pub(super) fn captions(photo_id: &str, photo: &PhotoPanel) -> String {
    Layout::BOTH.map(|layout| captions_in(layout, photo_id, photo)).concat()
}

fn captions_in(layout: Layout, photo_id: &str, photo: &PhotoPanel) -> String {
    let frame = Frame::of(photo, layout);
    let mut regions: Vec<(usize, &RegionCaption, BoxXyxy)> =
        photo.regions.iter().enumerate().map(|(i, region)| (i, region, frame.place(region.region_box))).collect();
    // From top to bottom, as the labels will stand, so that no two lines cross more than they must.
    regions.sort_by(|a, b| a.2.centre().1.total_cmp(&b.2.centre().1));

    let gap = 8.0;
    let left = if layout == Layout::Wide { frame.width + 64.0 } else { 0.0 };
    let indent = if layout == Layout::Wide { 0.0 } else { 28.0 };
    let text_width = layout.width() - left - indent - 22.0;
    let lines: Vec<Vec<String>> = regions.iter().map(|(_, r, _)| wrap(&r.text, text_width / FONT, 3)).collect();
    let heights: Vec<f32> = lines.iter().map(|l| l.len() as f32 * 18.0 + 24.0 + gap).collect();
    let total: f32 = heights.iter().sum();
    let (tops, height) = match layout {
        Layout::Wide => {
            let height = frame.height.max(total);
            let wanted: Vec<f32> = regions.iter().map(|(_, _, placed)| placed.centre().1).collect();
            (spread(&wanted, &heights, height), height)
        }
        Layout::Narrow => {
            let start = frame.height + 16.0;
            let wanted = vec![0.0; heights.len()];
            let tops = spread(&wanted, &heights, total).into_iter().map(|top| start + top).collect();
            (tops, start + total)
        }
    };

    let mut svg = open(layout, height, &format!("Regions of {} and their captions", photo.key));
    svg += &frame.image(photo_id, photo);
    let mut by_area: Vec<usize> = (0..regions.len()).collect();
    by_area.sort_by(|&a, &b| regions[b].2.area().total_cmp(&regions[a].2.area()));
    for &i in &by_area {
        let (region, caption, placed) = regions[i];
        svg += &box_group(i, region, placed, &caption.text);
    }
    if layout == Layout::Wide {
        for (i, (&(region, _, placed), top)) in regions.iter().zip(&tops).enumerate() {
            svg += &line(i, region, (left, top + 14.0 + gap / 2.0), placed.centre());
        }
    }
    for (i, &(region, _, placed)) in regions.iter().enumerate() {
        match layout {
            Layout::Wide => svg += &centre_dot(i, region, placed),
            Layout::Narrow => {
                let (x, y) = placed.centre();
                svg += &number(i, region, (x, y));
            }
        }
    }
    for (i, ((&(region, caption, _), lines), (top, height))) in
        regions.iter().zip(&lines).zip(tops.iter().zip(&heights)).enumerate()
    {
        let detail = match caption.score {
            Some(value) => format!("log p {} · score {}", score(caption.log_probability), score(value)),
            None => format!("log p {}", score(caption.log_probability)),
        };
        let said = escape(&format!("{}, {detail}", caption.text));
        let longest = lines.iter().map(|l| text_em(l)).fold(0.72 * text_em(&detail), f32::max);
        let (x, y, width, height) = (left + indent, top + gap / 2.0, longest * FONT + 22.0, height - gap);
        let _ = write!(
            svg,
            "<g class=\"label c{}\" tabindex=\"0\" data-region=\"{region}\" role=\"img\" aria-label=\"{said}\"><title>{said}</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"5\"/>",
            i % N_COLOURS
        );
        for (n, text) in lines.iter().enumerate() {
            let baseline = y + 18.0 + 18.0 * n as f32;
            let _ = write!(svg, "<text x=\"{:.1}\" y=\"{baseline:.1}\">{}</text>", x + 10.0, escape(text));
        }
        let baseline = y + 18.0 + 18.0 * lines.len() as f32 - 1.0;
        let _ = write!(svg, "<text class=\"detail\" x=\"{:.1}\" y=\"{baseline:.1}\">{detail}</text></g>", x + 10.0);
        if layout == Layout::Narrow {
            svg += &number(i, region, (12.0, y + height / 2.0));
        }
    }
    svg + "</svg>"
}

fn open(layout: Layout, height: f32, label: &str) -> String {
    format!(
        "<svg class=\"figure {}\" viewBox=\"-2 -2 {} {:.0}\" role=\"group\" aria-label=\"{}\">",
        layout.class(),
        layout.width() + 4.0,
        height.ceil() + 4.0,
        escape(label)
    )
}

/// A box that can be pointed at: a pale rim under the coloured one keeps it visible on any photo.
fn box_group(colour: usize, region: usize, placed: BoxXyxy, said: &str) -> String {
    let said = escape(said);
    let inset = 1.5;
    let (x, y) = (placed.x1 + inset, placed.y1 + inset);
    let (width, height) = ((placed.width() - 2.0 * inset).max(1.0), (placed.height() - 2.0 * inset).max(1.0));
    let rect = |class: &str| {
        format!("<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>")
    };
    format!(
        "<g class=\"box c{}\" tabindex=\"0\" data-region=\"{region}\" role=\"img\" aria-label=\"{said}\"><title>{said}</title>{}{}</g>",
        colour % N_COLOURS,
        rect("rim"),
        rect("edge")
    )
}

fn line(colour: usize, region: usize, from: (f32, f32), to: (f32, f32)) -> String {
    let ends = format!("x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"", from.0, from.1, to.0, to.1);
    format!(
        "<g class=\"line c{}\" data-region=\"{region}\"><line class=\"rim\" {ends}/><line class=\"edge\" {ends}/></g>",
        colour % N_COLOURS
    )
}

fn centre_dot(colour: usize, region: usize, placed: BoxXyxy) -> String {
    let (x, y) = placed.centre();
    format!(
        "<circle class=\"dot c{}\" data-region=\"{region}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"/>",
        colour % N_COLOURS
    )
}

fn number(colour: usize, region: usize, (x, y): (f32, f32)) -> String {
    format!(
        "<g class=\"number c{}\" data-region=\"{region}\"><circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"11\"/><text x=\"{x:.1}\" y=\"{:.1}\">{}</text></g>",
        colour % N_COLOURS,
        y + 4.5,
        colour + 1
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::super::{DEFAULT_THRESHOLD, WordMatch};
    use super::*;

    /// The values of attribute `name` in every element that starts with `start`.
    fn values(svg: &str, start: &str, name: &str) -> Vec<f32> {
        let attribute = format!(" {name}=\"");
        svg.split(start)
            .skip(1)
            .map(|rest| {
                let element = &rest[..rest.find('>').unwrap()];
                let value = &element[element.find(&attribute).unwrap() + attribute.len()..];
                value[..value.find('"').unwrap()].parse().unwrap()
            })
            .collect()
    }

    #[test]
    fn lines_end_at_the_centres_of_their_boxes() {
        let photo = &example().photos[0];
        for (layout, scale) in [(Layout::Wide, 5.2), (Layout::Narrow, 3.6)] {
            let svg = words_in(layout, "p", photo, &photo.matches[0], DEFAULT_THRESHOLD);
            // red, ball and star; the two others are below the threshold.
            let ends: Vec<_> = values(&svg, "<line class=\"edge\"", "x2")
                .into_iter()
                .zip(values(&svg, "<line class=\"edge\"", "y2"))
                .collect();
            let expected = [(20.0, 20.0), (20.0, 20.0), (75.0, 32.0)].map(|(x, y)| (x * scale, y * scale));
            assert_eq!(ends.len(), 3);
            for (end, expected) in ends.iter().zip(expected) {
                assert!((end.0 - expected.0).abs() < 0.06 && (end.1 - expected.1).abs() < 0.06, "{end:?} {expected:?}");
            }
            assert_eq!(svg.matches("class=\"word weak\"").count(), 3);
            assert_eq!(svg.matches("class=\"box ").count(), 2);
            assert!(svg.contains("<tspan class=\"score\">1.31</tspan> ball</text>"), "{svg}");
            assert!(svg.contains("<tspan class=\"score\">−0.02</tspan> a</text>"), "{svg}");
            // One colour a region: red and ball share theirs.
            assert_eq!(svg.matches("class=\"word c0\"").count(), 2);
            assert_eq!(svg.matches("class=\"word c1\"").count(), 1);
        }
    }

    #[test]
    fn the_threshold_decides_who_gets_a_line() {
        let photo = &example().photos[0];
        let n_lines = |threshold| {
            let svg = words_in(Layout::Wide, "p", photo, &photo.matches[0], threshold);
            svg.matches("<line class=\"edge\"").count()
        };
        assert_eq!((n_lines(-9.0), n_lines(0.04), n_lines(0.9), n_lines(9.0)), (6, 4, 1, 0));
    }

    #[test]
    fn chips_and_labels_never_overlap_nor_leave_the_drawing() {
        let photo = example().photos.remove(0);
        let words: Vec<WordMatch> = (0..10_000)
            .map(|i| WordMatch {
                word: ["word", "WORLD"][i % 2].repeat(1 + i % 9),
                score: 1.0,
                region: i % 30,
                region_box: [i as f32, 3.0, f32::NAN, f32::INFINITY].into(),
            })
            .collect();
        for n in [0, 1, 2, 9, 20, 47, 48, 49, 10_000] {
            let sentence =
                SentencePanel { text: String::new(), score: 0.0, is_true: false, words: words[..n].to_vec() };
            for (width, height) in [(100, 50), (50, 200), (50_000, 3), (1, 1)] {
                let photo = PhotoPanel { width, height, ..photo.clone() };
                for layout in Layout::BOTH {
                    let svg = words_in(layout, "p", &photo, &sentence, 0.1);
                    assert!(!svg.contains("NaN") && !svg.contains("inf"));
                    check_rects(&svg, "<g class=\"word", layout, n.min(MAX_WORDS));
                    assert_eq!(svg.contains("more words"), n > MAX_WORDS);
                }
            }
        }
        for n in [0, 1, 5, 30] {
            let regions = (0..n).map(|i| RegionCaption {
                region_box: [10.0, 20.0, 11.0, 21.0 + (i % 2) as f32].into(),
                text: "a quite long caption with many words in it ".repeat(i % 4),
                log_probability: -1.0,
                score: None,
            });
            let photo = PhotoPanel { regions: regions.collect(), ..photo.clone() };
            for layout in Layout::BOTH {
                check_rects(&captions_in(layout, "p", &photo), "<g class=\"label", layout, n);
            }
        }
    }

    /// The first rectangle of every group that starts so: apart from all others, and inside.
    fn check_rects(svg: &str, start: &str, layout: Layout, n_expected: usize) {
        let chips: String = svg
            .split(start)
            .skip(1)
            .map(|group| {
                let rect = &group[group.find("<rect").unwrap()..];
                rect[..=rect.find('>').unwrap()].to_owned()
            })
            .collect();
        let of = |name| values(&chips, "<rect", name);
        let boxes: Vec<BoxXyxy> = of("x")
            .into_iter()
            .zip(of("y"))
            .zip(of("width").into_iter().zip(of("height")))
            .map(|((x, y), (width, height))| BoxXyxy::from_xywh(x, y, width, height))
            .collect();
        assert_eq!(boxes.len(), n_expected);
        let height: f32 = svg.split("viewBox=\"").nth(1).unwrap().split(['"', ' ']).nth(3).unwrap().parse().unwrap();
        for (i, a) in boxes.iter().enumerate() {
            assert!(a.x1 >= 0.0 && a.x2 <= layout.width() + 1.0, "{layout:?} {a:?}");
            assert!(a.y1 >= -0.1 && a.y2 <= height, "{layout:?} {a:?} of {height}");
            for b in &boxes[..i] {
                assert!(a.iou(b) < 1e-3, "{layout:?} {a:?} {b:?}");
            }
        }
    }
}
