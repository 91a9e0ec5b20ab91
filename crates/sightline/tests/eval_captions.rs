//! `eval captions` as its user meets it: every layout, every output, and one clear line for each bad input.

use std::path::Path;
use std::process::{Command, Output};

const RESULTS: &str = r#"[{"image_id": 1, "caption": "A dog runs, fast."}, {"image_id": 2, "caption": "a cat"}]"#;
const OTHER: &str = r#"[{"image_id": 2, "caption": "a cat sits"}, {"image_id": 1, "caption": "it"}]"#;
const ANNOTATIONS: &str = r#"{"images": [{"id": 1, "file_name": "dog.jpg"}, {"id": 2, "file_name": "cat.jpg"}],
    "annotations": [{"image_id": 1, "caption": "A dog runs"}, {"image_id": 1, "caption": "The dog is running fast."},
    {"image_id": 2, "caption": "A cat sits on a mat"}]}"#;
const KARPATHY: &str = r#"{"dataset": "x", "images": [
    {"imgid": 0, "cocoid": 1, "filename": "dog.jpg", "split": "test",
     "sentences": [{"raw": "A dog runs"}, {"raw": "The dog is running fast."}]},
    {"imgid": 1, "cocoid": 9, "filename": "bird.jpg", "split": "train", "sentences": [{"raw": "a bird"}]},
    {"imgid": 2, "cocoid": 2, "filename": "cat.jpg", "split": "test", "sentences": [{"raw": "A cat sits on a mat"}]}]}"#;
const LINES: &str = "A dog runs, fast.\na cat\n";
const REFERENCE_LINES: &str = "A dog runs\tThe dog is running fast.\nA cat sits on a mat\n";

/// Two files in a folder, and what the program says about them.
struct Captions {
    folder: tempfile::TempDir,
}

impl Captions {
    fn new(hypotheses: impl AsRef<[u8]>, references: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("hypotheses"), hypotheses).unwrap();
        std::fs::write(folder.path().join("references"), references).unwrap();
        Self { folder }
    }

    fn file(self, name: &str, content: &str) -> Self {
        std::fs::write(self.folder.path().join(name), content).unwrap();
        self
    }

    /// Runs in the folder, so that messages name bare files.
    fn run(&self, more: &[&str]) -> Output {
        let files = ["eval", "captions", "--hypotheses", "hypotheses", "--references", "references"];
        Command::new(env!("CARGO_BIN_EXE_sightline"))
            .current_dir(self.folder.path())
            // METEOR's data may be on this machine; its parity is tested where the metric is.
            .env("SIGHTLINE_CACHE", self.folder.path())
            .env_remove("SIGHTLINE_METEOR_DATA")
            .args(files)
            .args(more)
            .output()
            .unwrap()
    }

    /// The record on stdout, the talk on stderr.
    fn scores(&self, more: &[&str]) -> (serde_json::Value, String) {
        let output = self.run(&[more, &["--json"]].concat());
        let talk = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{talk}");
        (serde_json::from_slice(&output.stdout).unwrap(), talk)
    }

    /// The one line of a failure with this exit code.
    fn fails(&self, code: i32, more: &[&str]) -> String {
        let output = self.run(&[more, &["--quiet"]].concat());
        let line = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{line}");
        assert!(output.stdout.is_empty(), "a failure printed a result");
        assert_eq!(line.lines().count(), 1, "{line}");
        line.trim_end().to_owned()
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// pycocoevalcap 1.2 on [`RESULTS`] and [`ANNOTATIONS`].
fn check_scores(record: &serde_json::Value) {
    let expected = [
        ("bleu1", 0.60653),
        ("bleu2", 0.52527),
        ("bleu3", 0.43738),
        ("bleu4", 0.00008),
        ("rouge_l", 0.66923),
        ("cider", 2.70877),
    ];
    for (name, expected) in expected {
        assert!((record[name].as_f64().unwrap() - expected).abs() < 1e-5, "{name} is {}", record[name]);
    }
    assert_eq!((&record["images"], &record["empty_hypotheses"]), (&2.into(), &0.into()));
}

#[test]
fn every_layout_of_the_same_captions_scores_the_same() {
    check_scores(&Captions::new(RESULTS, ANNOTATIONS).scores(&["--no-meteor"]).0);
    check_scores(&Captions::new(RESULTS, KARPATHY).scores(&["--no-meteor"]).0);
    check_scores(&Captions::new(LINES, REFERENCE_LINES).scores(&["--no-meteor"]).0);
    // A file a reference, as other tools want them; an empty line is no reference.
    let first = "A dog runs\nA cat sits on a mat\n";
    let files = Captions::new(LINES, first).file("second", "The dog is running fast.\n\n");
    let together = files.run(&["second", "--no-meteor", "--json"]);
    check_scores(&serde_json::from_slice(&together.stdout).unwrap());
    // What `caption --json` of this program prints.
    let records = r#"{"image": "photos/dog.jpg", "captions": [{"text": "A dog runs, fast.", "log_probability": -3}]}
        {"image": "photos/cat.jpg", "captions": [{"text": "a cat", "log_probability": -2}]}"#;
    check_scores(&Captions::new(records, KARPATHY).scores(&["--no-meteor"]).0);

    let train = Captions::new(r#"[{"image_id": 9, "caption": "a bird"}]"#, KARPATHY);
    assert!(train.scores(&["--no-meteor", "--split", "train"]).0["bleu1"].as_f64().unwrap() > 0.999);
}

#[test]
fn a_table_a_record_and_a_row_for_each_image() {
    let captions = Captions::new(RESULTS, ANNOTATIONS);
    let output = captions.run(&["--no-meteor", "--per-image", "scores.csv"]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && table.contains("BLEU-4") && table.contains("CIDEr    2.7088"), "{table}");
    let csv = std::fs::read_to_string(captions.path().join("scores.csv")).unwrap();
    let mut rows = csv.lines();
    assert_eq!(rows.next(), Some("image,bleu1,bleu2,bleu3,bleu4,rouge_l,cider,hypothesis"));
    let first: Vec<&str> = rows.next().unwrap().splitn(8, ',').collect();
    assert_eq!((first[0], first[7]), ("1", "\"A dog runs, fast.\""));
    assert_eq!(rows.count(), 1);

    // Without METEOR's data its reduced form stands in, under its own name.
    let (record, talk) = captions.scores(&[]);
    assert!(record.get("meteor").is_none() && record["meteor_exact_stem"].as_f64().unwrap() > 0.0, "{record}");
    assert!(talk.contains("meteor_exact_stem") && talk.contains("sightline meteor-data fetch"), "{talk}");
}

#[test]
fn two_systems_whatever_their_order() {
    let captions = Captions::new(RESULTS, ANNOTATIONS).file("other", OTHER);
    let (record, _) = captions.scores(&["--no-meteor", "--compare", "other", "--intervals", "--samples", "200"]);
    let theirs = Captions::new(OTHER, ANNOTATIONS).scores(&["--no-meteor"]).0;
    for name in ["bleu1", "rouge_l", "cider"] {
        let compared = &record["compare"][name];
        let close = |a: &serde_json::Value, b: &serde_json::Value| {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() < 1e-12, "{name}: {a} and {b}");
        };
        close(&compared["first"], &theirs[name]);
        close(&compared["second"], &record[name]);
        let interval = &record["intervals"][name];
        assert!(interval["low"].as_f64().unwrap() <= interval["high"].as_f64().unwrap(), "{interval}");
    }
    let fewer = Captions::new(RESULTS, ANNOTATIONS).file("other", r#"[{"image_id": 1, "caption": "a dog"}]"#);
    let line = fewer.fails(1, &["--no-meteor", "--compare", "other"]);
    assert!(line.contains("other has no caption for 1 of the 2 images"), "{line}");
    // What would change nothing is refused.
    let line = captions.fails(2, &["--no-meteor", "--split", "val"]);
    assert!(line.contains("none of these files is a Karpathy dataset"), "{line}");
    for option in ["--samples", "--seed"] {
        assert_eq!(captions.run(&["--no-meteor", option, "500"]).status.code(), Some(2));
    }
}

#[test]
fn bad_input_is_one_line_and_exit_code_1() {
    let check = |hypotheses: &[u8], references: &[u8], parts: &[&str]| {
        let line = Captions::new(hypotheses, references).fails(1, &["--no-meteor"]);
        assert!(parts.iter().all(|part| line.contains(part)), "{line} lacks one of {parts:?}");
    };
    let (good, references) = (RESULTS.as_bytes(), ANNOTATIONS.as_bytes());
    let missing = br#"[{"image_id": 1, "caption": "x"}]"#;
    check(
        missing,
        references,
        &["hypotheses has no caption for 1 of the 2 images of references, image 2", "--partial"],
    );
    let twice =
        br#"[{"image_id": 1, "caption": "x"}, {"image_id": 1, "caption": "y"}, {"image_id": 2, "caption": "z"}]"#;
    check(twice, references, &["hypotheses has more than one caption for 1 of its images, image 1"]);
    let bare = br#"{"images": [{"id": 1}, {"id": 2}], "annotations": [{"image_id": 1, "caption": "x"}]}"#;
    check(good, bare, &["references has no reference for 1 of the 2 images of hypotheses, image 2"]);
    check(references, good, &["the files look swapped", "--hypotheses references --references hypotheses"]);
    check(
        b"[{\"image_id\": 1, \"caption\": \"caf\xe9\"}]",
        references,
        &["hypotheses: line 1: expected UTF-8, got the byte 0xe9"],
    );
    check(good, b"\xff\xfea\0", &["references: line 1: expected UTF-8"]);
    check(b"[{\"image_id\": 1", references, &["hypotheses: JSON", "EOF"]);
    check(LINES.as_bytes(), b"one line\n", &["hypotheses", "references", "2", "1"]);
    check(LINES.as_bytes(), references, &["lines have no image ids"]);
    let dataset = Captions::new(RESULTS, KARPATHY).fails(1, &["--no-meteor", "--split", "dev"]);
    assert!(dataset.contains("\"dev\"") && dataset.contains("\"test\""), "{dataset}");
    let absent = Captions::new(RESULTS, ANNOTATIONS).fails(1, &["--no-meteor", "--compare", "absent"]);
    assert!(absent.contains("cannot read absent"), "{absent}");
}

#[test]
fn wrong_usage_and_nothing_to_score_are_exit_code_2() {
    assert!(Captions::new("", "").fails(2, &["--no-meteor"]).contains("nothing to score"));
    let output = Captions::new(RESULTS, ANNOTATIONS).run(&["--meteor-task", "ranks"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && message.contains("ranks"), "{message}");
}

#[test]
fn what_is_scored_but_odd_is_said() {
    let empty = r#"[{"image_id": 1, "caption": " . "}, {"image_id": 2, "caption": "a cat"}]"#;
    let (record, talk) = Captions::new(empty, ANNOTATIONS).scores(&["--no-meteor"]);
    assert_eq!((&record["images"], &record["empty_hypotheses"]), (&2.into(), &1.into()));
    assert!(talk.contains("1 caption without any word: scored, with zeros"), "{talk}");

    let one = Captions::new(r#"[{"image_id": 1, "caption": "a dog runs"}]"#, KARPATHY);
    let (record, talk) = one.scores(&["--no-meteor", "--partial"]);
    assert_eq!((&record["images"], &record["cider"]), (&1.into(), &0.0.into()));
    assert!(talk.contains("left out: 1 image without a caption in hypotheses"), "{talk}");
    assert!(talk.contains("one image alone: CIDEr is 0 by definition"), "{talk}");
}
