//! Our own sentences score as the reference programs score them; `reference/make_own_cases.py` made the values.

mod common;

use std::path::Path;

use sightline_metrics::caption::{Settings, evaluate};
use sightline_metrics::meteor::{Meteor, MeteorCounts, Task};
use sightline_metrics::ptb::Tokenizer;

fn cases() -> serde_json::Value {
    common::json(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/own_cases.json")))
}

fn texts(cases: &serde_json::Value, hypothesis: &str, references: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let items = cases["items"].as_array().unwrap();
    let hypotheses = items.iter().map(|i| i[hypothesis].as_str().unwrap().to_owned()).collect();
    (hypotheses, items.iter().map(|i| common::strings(&i[references])).collect())
}

#[test]
fn tokens() {
    let cases = cases();
    let ((hypotheses, references), expected) = (texts(&cases, "hyp", "refs"), texts(&cases, "hyp_tok", "refs_tok"));
    assert_eq!(Tokenizer::shared().coco(&hypotheses), expected.0);
    assert_eq!(Tokenizer::shared().coco(&references.concat()), expected.1.concat());
}

#[test]
fn all_metrics_in_one_call() {
    let cases = cases();
    let meteor = common::meteor_data().map(|data| Meteor::new(data, Task::Rank));
    let settings = Settings { meteor: meteor.as_ref(), ..Settings::default() };
    let (hypotheses, references) = texts(&cases, "hyp", "refs");
    let found = evaluate(&hypotheses, &references, &settings).unwrap();
    assert_eq!(found.counts.empty_hypotheses, 1);
    for (name, value) in found.report.named() {
        common::close(value, cases["corpus"][name].as_f64().unwrap(), 1e-9, name);
    }
    for (item, image) in cases["items"].as_array().unwrap().iter().zip(&found.images) {
        for (name, value) in image.report(true).named() {
            common::close(value, item["scores"][name].as_f64().unwrap(), 1e-9, &format!("{name} of {}", item["hyp"]));
        }
    }
}

#[test]
fn meteor_of_every_task() {
    let cases = cases();
    let (hypotheses, references) = texts(&cases, "hyp_tok", "refs_tok");
    for (name, task) in [
        ("rank", Task::Rank),
        ("adq", Task::Adq),
        ("hter", Task::Hter),
        ("li", Task::Li),
        ("universal", Task::Universal),
    ] {
        let Some(data) = common::meteor_data() else { return };
        let meteor = Meteor::new(data, task);
        let mut sum = MeteorCounts::default();
        meteor.segments(&hypotheses, &references).iter().for_each(|s| sum.add_segment(&s.counts));
        let expected = cases["tasks"][name].as_f64().unwrap();
        common::close(sum.score(meteor.parameters()), expected, 1e-9, name);
    }
}

#[test]
fn the_oddities_that_scores_depend_on() {
    let Some(data) = common::meteor_data() else { return };
    let meteor = Meteor::new(data, Task::Rank);
    assert_eq!(meteor.segment("dogs", &["dog"]).score, 0.0, "taking the match costs a chunk and gains nothing");
    assert!((meteor.segment("a dogs", &["a dog"]).score - 0.7).abs() < 1e-3);
    assert_eq!(meteor.segment("an", &["c0"]).score, 1.0, "equal hash codes");
}
