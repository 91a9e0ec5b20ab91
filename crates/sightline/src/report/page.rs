//! The page around the figures: `page.html`, `page.css` and `page.js` filled in.

use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use sha2::{Digest, Sha256};

use super::svg::{escape, score};
use super::{PhotoPanel, Report, RowSource, SentencePanel, Table, figure};

const PAGE: &str = include_str!("page.html");
// A browser hashes a style and a script with its line ends made plain, whatever a checkout made of them.
static STYLE: LazyLock<String> = LazyLock::new(|| include_str!("page.css").replace('\r', ""));
static SCRIPT: LazyLock<String> = LazyLock::new(|| include_str!("page.js").replace('\r', ""));

/// Allows the page its own style and script, by their hashes, and pictures inside it; nothing else, from nowhere.
///
/// It stands in the page itself, where a file has no server to say it, and belongs into the server's header.
pub static CONTENT_SECURITY_POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; img-src data:; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        sha256(&STYLE),
        sha256(&SCRIPT)
    )
});

fn sha256(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(Sha256::digest(text.as_bytes()))
}

/// The page: HTML that needs no other file and makes no request.
pub fn render(report: &Report) -> String {
    let subtitle = match report.subtitle.as_str() {
        "" => String::new(),
        text => format!("<p class=\"subtitle\">{}</p>", escape(text)),
    };
    let command = report
        .command
        .as_ref()
        .map_or_else(String::new, |command| format!("<p class=\"command\"><code>{}</code></p>", escape(command)));
    let tables: String = report.tables.iter().map(table).collect();
    let photos: String = report.photos.iter().enumerate().map(|(i, panel)| photo(i, panel, report.threshold)).collect();
    let legend = if report.photos.iter().all(|panel| panel.matches.is_empty()) {
        String::new()
    } else {
        format!(
            "<p class=\"legend\">Before each word stands its score, the dot product of its vector and its region’s. \
             A line leads from the word to the centre of that region, the best for it unless a detector is much surer of \
             another; words below {} are grey and have none. \
             Point at a word, or move to it with the tab key, to see its region alone, and the reverse.</p>",
            score(report.threshold)
        )
    };
    fill(
        PAGE,
        &[
            ("policy", &CONTENT_SECURITY_POLICY),
            ("style", &STYLE),
            ("script", &SCRIPT),
            ("title", &escape(&report.title)),
            ("subtitle", &subtitle),
            ("command", &command),
            ("tables", &tables),
            ("legend", &legend),
            ("photos", &photos),
        ],
    )
}

/// Puts values in the places of `{{name}}`; values are not searched for further places.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut parts = template.split("{{");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("}}").expect("the template closes its braces");
        let (_, value) = values.iter().find(|(n, _)| *n == name).expect("the template names known places only");
        filled.push_str(value);
        filled.push_str(rest);
    }
    filled
}

fn table(table: &Table) -> String {
    let mut html = format!(
        "<div class=\"table\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\"><table><caption>{caption}</caption><thead>",
        caption = escape(&table.caption)
    );
    if !table.groups.is_empty() {
        html.push_str("<tr>");
        for group in &table.groups {
            let element = if group.name.is_empty() { "td" } else { "th scope=\"colgroup\"" };
            let _ =
                write!(html, "<{element} colspan=\"{}\">{}</{}>", group.columns, escape(&group.name), &element[..2]);
        }
        html.push_str("</tr>");
    }
    html.push_str("<tr>");
    for column in &table.columns {
        let _ = write!(html, "<th scope=\"col\">{}</th>", escape(column));
    }
    html.push_str("</tr></thead><tbody>");
    for row in &table.rows {
        let class = match row.source {
            RowSource::Ours => "ours",
            RowSource::Published => "published",
            RowSource::Chance => "chance",
        };
        let _ = write!(html, "<tr class=\"{class}\">");
        for (i, cell) in row.cells.iter().enumerate() {
            match i {
                0 => {
                    let mark =
                        if row.source == RowSource::Published { " <span class=\"mark\">published</span>" } else { "" };
                    let _ = write!(html, "<th scope=\"row\">{}{mark}</th>", escape(cell));
                }
                _ => {
                    let _ = write!(html, "<td>{}</td>", escape(cell));
                }
            }
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table>");
    if let Some(note) = &table.note {
        let _ = write!(html, "<p class=\"note\">{}</p>", escape(note));
    }
    html + "</div>"
}

fn photo(index: usize, photo: &PhotoPanel, threshold: f32) -> String {
    let id = format!("photo-{index}");
    let mut html = format!(
        "<article aria-labelledby=\"{id}-key\"><h2 id=\"{id}-key\">{}</h2>{}",
        escape(&photo.key),
        figure::photo_definition(&id, photo)
    );
    for sentence in &photo.matches {
        html += &format!(
            "<figure>{}{}</figure>",
            sentence_caption(sentence),
            figure::words(&id, photo, sentence, threshold)
        );
    }
    if !photo.regions.is_empty() {
        html += &format!(
            "<figure><figcaption><span class=\"kind\">What the model says of the regions</span></figcaption>{}</figure>",
            figure::captions(&id, photo)
        );
    } else if photo.matches.is_empty() {
        html += &format!("<figure>{}</figure>", figure::captions(&id, photo));
    }
    let mut lists = String::new();
    if !photo.captions.is_empty() {
        lists.push_str("<div><h3>What the model says of the photo</h3><ul>");
        for caption in &photo.captions {
            let _ = write!(
                lists,
                "<li><span dir=\"auto\">{}</span> <span class=\"detail\">log p {}</span></li>",
                escape(&caption.text),
                score(caption.log_probability)
            );
        }
        lists.push_str("</ul></div>");
    }
    if !photo.true_sentences.is_empty() {
        lists.push_str("<div><h3>What people said of it</h3><ul>");
        for sentence in &photo.true_sentences {
            let _ = write!(lists, "<li dir=\"auto\">{}</li>", escape(sentence));
        }
        lists.push_str("</ul></div>");
    }
    if !lists.is_empty() {
        html += &format!("<div class=\"lists\">{lists}</div>");
    }
    html + "</article>"
}

fn sentence_caption(sentence: &SentencePanel) -> String {
    let (class, verdict) = if sentence.is_true {
        ("true", "✓ written for this photo")
    } else {
        ("false", "✗ written for another photo")
    };
    format!(
        "<figcaption><span class=\"sentence\" dir=\"auto\">{}</span> <span class=\"verdict {class}\">{verdict}</span> <span class=\"detail\">score {}</span></figcaption>",
        escape(&sentence.text),
        score(sentence.score)
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::super::{Caption, Row, WordMatch};
    use super::*;

    #[test]
    fn everything_from_outside_is_escaped() {
        let evil = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>{{style}}".to_owned();
        let mut report = example();
        report.title.clone_from(&evil);
        report.subtitle.clone_from(&evil);
        report.command = Some(evil.clone());
        let table = &mut report.tables[0];
        table.caption.clone_from(&evil);
        table.note = Some(evil.clone());
        table.groups[1].name.clone_from(&evil);
        table.columns[2].clone_from(&evil);
        table.rows.push(Row { source: RowSource::Ours, cells: vec![evil.clone(); 9] });
        let photo = &mut report.photos[0];
        photo.key.clone_from(&evil);
        photo.true_sentences.push(evil.clone());
        photo.captions.push(Caption { text: evil.clone(), log_probability: 0.0 });
        photo.regions[0].text.clone_from(&evil);
        photo.matches[0].text.clone_from(&evil);
        for score in [3.0, -3.0] {
            let word = WordMatch { word: evil.clone(), score, region: 1, region_box: [0.0, 0.0, 5.0, 5.0].into() };
            photo.matches[0].words.push(word);
        }
        let html = render(&report);
        assert_eq!(html.matches("<script").count(), 1, "only the page's own");
        assert_eq!(html.matches("<img").count(), 0);
        assert_eq!(html.matches("<style").count(), 1);
        assert!(html.contains("{{style}}"), "a value is not filled in again");
        assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    }

    #[test]
    fn the_page_asks_nothing_of_the_network() {
        let html = render(&example());
        for asks in ["http:", "https:", "url(", "@import", "fetch(", "XMLHttpRequest", "<link", "src="] {
            // The policy's own `-src` is no address.
            let found = html.replace("-src", "").contains(asks);
            assert!(!found, "{asks}");
        }
        assert_eq!(html.matches("href=\"data:image/png;base64,").count(), 1, "each photo once");
        assert!(!html.contains(" style=\"") && !html.contains(" onclick"), "the policy forbids them");
    }

    #[test]
    fn the_policy_fits_the_page() {
        let html = render(&example());
        let inside = |start: &str, end: &str| {
            let from = html.find(start).unwrap() + start.len();
            &html[from..from + html[from..].find(end).unwrap()]
        };
        for text in [inside("<style>", "</style>"), inside("<script>", "</script>")] {
            assert!(CONTENT_SECURITY_POLICY.contains(&sha256(text)));
        }
        assert!(html.contains(&*CONTENT_SECURITY_POLICY));
        // RFC 6234's test vector, so that the hash is a hash.
        assert_eq!(sha256("abc"), "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
    }

    #[test]
    fn the_retrieval_table_reads_as_in_the_paper() {
        let html = render(&example());
        let row = "<tr class=\"published\"><th scope=\"row\">Karpathy and Fei-Fei, BRNN <span class=\"mark\">published</span></th><td>16.5</td><td>40.6</td><td>54.2</td><td>–</td><td>11.8</td><td>32.1</td><td>44.7</td><td>–</td></tr>";
        assert!(html.contains(row), "{html}");
    }

    #[test]
    fn a_report_of_nothing_renders() {
        let report = Report { photos: Vec::new(), tables: Vec::new(), command: None, ..example() };
        let html = render(&report);
        assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
        let mut bare = example();
        bare.photos[0].matches.clear();
        bare.photos[0].regions.clear();
        assert!(render(&bare).contains("<use href=\"#photo-0\""));
    }

    /// Relative luminance contrast as WCAG 2 defines it.
    fn contrast(a: u32, b: u32) -> f64 {
        let luminance = |rgb: u32| {
            let channel = |shift: u32| {
                let v = f64::from((rgb >> shift) & 255) / 255.0;
                if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(16) + 0.7152 * channel(8) + 0.0722 * channel(0)
        };
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn region_colours_carry_white_text_and_show_on_either_ground() {
        let hex = |name: &str| {
            let at = STYLE.find(name).unwrap_or_else(|| panic!("{name} in the style")) + name.len();
            u32::from_str_radix(&STYLE[at..at + 6], 16).unwrap()
        };
        for i in 0..10 {
            let colour = hex(&format!(".c{i} {{ --c: #"));
            assert!(contrast(colour, 0xffffff) >= 4.5, "c{i} under white text: {}", contrast(colour, 0xffffff));
            assert!(contrast(colour, 0x14161a) >= 2.9, "c{i} on the dark page: {}", contrast(colour, 0x14161a));
        }
    }
}
