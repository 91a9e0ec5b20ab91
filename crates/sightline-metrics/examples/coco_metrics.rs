//! The counterpart of the PyTorch-era peer `coco_metrics.py`: the same cases, scored and timed metric by metric.
//!
//! ```text
//! cargo run --release -p sightline-metrics --example coco_metrics -- cases.json [--repeat 5] [--no-meteor]
//! ```
//!
//! Prints one line of JSON: corpus scores, wall seconds of every metric, of all in one call, and of opening METEOR's
//! cache. METEOR needs its data, see SIGHTLINE_METEOR_DATA.

use std::time::Instant;

use sightline_metrics::bleu::BleuCounts;
use sightline_metrics::caption::{Settings, evaluate};
use sightline_metrics::cider::{Cider, CiderSum, DocumentFrequencies};
use sightline_metrics::meteor::{Meteor, MeteorCounts, MeteorData, Task};
use sightline_metrics::ptb::Tokenizer;
use sightline_metrics::rouge::{RougeSum, rouge_l};

fn timed<T>(seconds: &mut serde_json::Map<String, serde_json::Value>, name: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = work();
    seconds.insert(name.to_owned(), start.elapsed().as_secs_f64().into());
    value
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut cases = None;
    let (mut repeat, mut with_meteor) = (1, true);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--repeat" => repeat = words.next().ok_or("--repeat needs a number")?.parse()?,
            "--no-meteor" => with_meteor = false,
            _ => cases = Some(word),
        }
    }
    let cases = cases.ok_or("usage: coco_metrics cases.json [--repeat N] [--no-meteor]")?;
    let cases: serde_json::Value = serde_json::from_slice(&std::fs::read(cases)?)?;
    let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    let (mut hypotheses, mut references) = (Vec::new(), Vec::new());
    for item in std::iter::repeat_n(cases["items"].as_array().ok_or("no items")?, repeat).flatten() {
        hypotheses.push(text(&item["hyp"]));
        references.push(item["refs"].as_array().ok_or("no refs")?.iter().map(text).collect::<Vec<_>>());
    }

    let (mut seconds, mut scores) = (serde_json::Map::new(), serde_json::Map::new());
    let start = Instant::now();
    let meteor = if with_meteor {
        Some(timed(&mut seconds, "start_up", || MeteorData::find().map(|data| Meteor::new(data, Task::Rank)))?)
    } else {
        None
    };
    let settings = Settings { meteor: meteor.as_ref(), ..Settings::default() };
    let all = timed(&mut seconds, "one_call", || evaluate(&hypotheses, &references, &settings))?;
    seconds.insert("one_call_with_start_up".to_owned(), start.elapsed().as_secs_f64().into());

    let (hypotheses, references) = timed(&mut seconds, "tok", || {
        let flat: Vec<&String> = references.iter().flatten().collect();
        let mut tokens = Tokenizer::shared().coco(&flat).into_iter();
        let references: Vec<Vec<String>> = references.iter().map(|r| tokens.by_ref().take(r.len()).collect()).collect();
        (Tokenizer::shared().coco(&hypotheses), references)
    });
    let pairs = || hypotheses.iter().zip(&references);
    let bleu: BleuCounts = timed(&mut seconds, "bleu", || pairs().map(|(h, r)| BleuCounts::of_text(h, r)).sum());
    scores.insert("bleu".to_owned(), serde_json::to_value(bleu.scores())?);
    let rouge = timed(&mut seconds, "rouge", || {
        let mut sum = RougeSum::default();
        pairs().for_each(|(h, r)| sum.push(rouge_l(h, r)));
        sum.score()
    });
    scores.insert("rouge".to_owned(), rouge.into());
    let cider = timed(&mut seconds, "cider", || {
        let frequencies = DocumentFrequencies::of(&references);
        let cider = Cider::new(&frequencies);
        let mut sum = CiderSum::default();
        pairs().for_each(|(h, r)| sum.push(cider.score(h, r)));
        sum.score().cider_d
    });
    scores.insert("cider".to_owned(), cider.into());
    if let Some(meteor) = &meteor {
        let score = timed(&mut seconds, "meteor", || {
            let mut counts = MeteorCounts::default();
            meteor.segments(&hypotheses, &references).iter().for_each(|s| counts.add_segment(&s.counts));
            counts.score(meteor.parameters())
        });
        scores.insert("meteor".to_owned(), score.into());
    }
    let record = serde_json::json!({
        "peer": "sightline-metrics",
        "items": hypotheses.len(),
        "scores": scores,
        "one_call": all.report,
        "seconds": seconds,
    });
    println!("{record}");
    Ok(())
}
