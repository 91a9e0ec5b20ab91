//! The whole path on generated scenes, in small: everything is drawn, learnt, decoded, written and measured.

use sightline::demo::{Plan, learn};
use sightline::report;
use sightline::ui::Ui;

const QUIET: Ui = Ui { json: false, quiet: true };

fn small() -> Plan {
    Plan { train: 320, val: 20, test: 30, align_epochs: 12, caption_epochs: 3, panels: 3, ..Plan::default() }
}

#[test]
fn scenes_to_page() {
    let demo = learn(&small(), &QUIET).unwrap();
    assert_eq!((demo.retrieval.images, demo.retrieval.sentences), (30, 150));
    // By chance a third of the sentences would find their photo among the first ten.
    let recall = demo.retrieval.sentence_to_image.r10;
    assert!(recall > 50.0, "R@10 {recall}");
    let grounding = demo.grounding;
    assert!(grounding.covered_nouns > 100, "{grounding:?}");
    assert!(grounding.accuracy > grounding.chance + 0.1, "{grounding:?}");
    assert!(demo.bleu[0] > 0.2, "{:?}", demo.bleu);

    let page = &demo.report;
    assert_eq!(page.photos.len(), 3);
    for photo in &page.photos {
        assert_eq!(photo.captions.len(), 3, "{}", photo.key);
        assert!(photo.captions.windows(2).all(|w| w[0].log_probability >= w[1].log_probability));
        assert!(!photo.regions.is_empty() && !photo.matches[0].words.is_empty());
    }
    let html = report::render(page);
    assert!(html.contains("scene-00") && html.contains("Nouns on their object"));
}

#[test]
fn the_same_seed_gives_the_same_numbers() {
    let tiny = Plan { train: 60, val: 10, test: 10, align_epochs: 1, caption_epochs: 1, panels: 1, ..Plan::default() };
    let (a, b) = (learn(&tiny, &QUIET).unwrap(), learn(&tiny, &QUIET).unwrap());
    assert_eq!(a.retrieval, b.retrieval);
    assert_eq!((a.bleu, a.grounding), (b.bleu, b.grounding));
    assert_eq!(a.report.photos, b.report.photos);
    let other = learn(&Plan { seed: 2, ..tiny }, &QUIET).unwrap();
    assert_ne!(a.report.photos, other.report.photos);
}
