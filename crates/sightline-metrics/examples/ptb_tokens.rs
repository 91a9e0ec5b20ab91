//! Tokenizes standard input line by line, as `PTBTokenizer -preserveLines -lowerCase` does, for comparison with it.
//!
//! ```text
//! cargo run --release -p sightline-metrics --example ptb_tokens < lines.txt
//! ```

use std::io::{Read, Write};

fn main() -> std::io::Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let lines: Vec<&str> = text.strip_suffix('\n').unwrap_or(&text).split('\n').collect();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for tokens in sightline_metrics::ptb::Tokenizer::shared().tokens(&lines) {
        writeln!(out, "{}", tokens.join(" "))?;
    }
    out.flush()
}
