//! What the program says: results on stdout, talk and progress on stderr, one line for an error.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::Write;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// A name as a terminal may show it: control characters escaped, which would break the line or worse.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect::<String>().into()
}

/// A line on stderr, or several. Where nobody listens any more, or its disk is full, the work goes on.
pub fn aside(line: impl Display) {
    let text = line.to_string();
    let lines: Vec<_> = text.split('\n').map(visible).collect();
    let _ = writeln!(std::io::stderr(), "{}", lines.join("\n"));
}

/// How the user wants to be talked to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ui {
    /// Results as JSON.
    pub json: bool,
    /// No talk, no progress.
    pub quiet: bool,
}

impl Ui {
    /// A line of talk, on stderr.
    pub fn say(&self, line: impl Display) {
        if !self.quiet {
            aside(line);
        }
    }

    /// A result, on stdout: the record as one line of JSON, or the text.
    pub fn result(&self, record: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let line = if self.json { serde_json::to_string(record)? } else { text() };
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{}", line.trim_end_matches('\n'))?;
        Ok(stdout.flush()?)
    }

    /// Says where a server answers: to people on stderr, to programs as a record.
    pub fn open_at(&self, address: std::net::SocketAddr, about: &str, token: &str) {
        let url = format!("http://{address}");
        self.say(format_args!("{about}open {url}{token} (Ctrl-C ends it)"));
        if self.json {
            // A server whose output nobody reads serves all the same.
            let _ = self.result(&serde_json::json!({ "url": url }), String::new);
        }
    }

    /// A bar with rate and time left; hidden where stderr is no terminal.
    pub fn bar(&self, total: u64, what: &'static str) -> ProgressBar {
        if self.quiet {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {per_sec:.0} {eta} left {msg}");
        let bar = ProgressBar::new(total).with_prefix(what);
        match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }

    /// A counter for what has no known end; hidden as the bar is.
    pub fn counter(&self, what: &'static str) -> ProgressBar {
        if self.quiet {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::no_length().with_prefix(what);
        match ProgressStyle::with_template("{prefix} {pos} {per_sec:.0}") {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}

/// The caller's mistake in words or settings, as opposed to anything that went wrong: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Whether an error is the caller's usage.
pub fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<Usage>() || matches!(error.downcast_ref(), Some(sightline_train::Error::Setting(_)))
}

/// Whether whoever read our output has gone, as `head` does: no error of ours.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe))
}

/// The whole chain of an error as one line. A cause with which the words before it already end is not said again.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    text.split('\n').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Rows of text with aligned columns: the first to the left, the others to the right.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|row| row.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(c, (cell, &width))| match c {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A count with its noun: `1 photo`, `3 photos`, `2 boxes`.
pub fn count(n: usize, noun: &str) -> String {
    let ending = match (n, noun.ends_with('x')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{n} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align() {
        let rows = [["", "R@1"], ["photo → sentence", "9.5"], ["x", "10.25"]].map(|r| r.map(str::to_owned).to_vec());
        let text = table(&rows);
        let expected = ["                    R@1", "photo → sentence    9.5", "x                 10.25"];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn errors_are_one_line() {
        let error = anyhow::anyhow!("inner\n  details\n").context("outer");
        assert_eq!(one_line(&error), "outer: inner; details");
        // Our own errors name their cause themselves.
        let missing = sightline_data::Dataset::load(std::path::Path::new("nowhere.json")).unwrap_err();
        let expected = missing.to_string();
        assert!(expected.starts_with("cannot read nowhere.json: "), "{expected}");
        assert_eq!(one_line(&missing.into()), expected);
    }

    #[test]
    fn names_are_shown_on_one_line() {
        let check = |name: &str, expected: &str| assert_eq!(visible(name), expected);
        check("a dog's été.jpg", "a dog's été.jpg");
        check("a\nb\r\t\u{1b}[2J\u{9b}.jpg", "a\\nb\\r\\t\\u{1b}[2J\\u{9b}.jpg");
    }
}
