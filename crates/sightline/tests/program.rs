//! The program as its user meets it: exit codes, one clear line for each mistake, and a small collection taken through
//! every command.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json as record;
use sightline::demo::scenes;
use sightline_data::{FeatureStore, Split};

fn sightline(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sightline")).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs, expects success, returns stdout as JSON.
fn json(arguments: &[&str]) -> serde_json::Value {
    let output = sightline(&[arguments, &["--json", "--quiet"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    assert!(output.stderr.is_empty(), "{arguments:?} talked: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs, expects failure with one line that holds all of `parts`.
fn fails(arguments: &[&str], code: i32, parts: &[&str]) {
    let output = sightline(&[arguments, &["--quiet"]].concat());
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed a result");
    assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
    for part in parts {
        assert!(message.contains(part), "{arguments:?}: {part:?} is not in {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

/// A folder with a small dataset of scenes, its pixels as features.
struct Collection {
    folder: tempfile::TempDir,
}

impl Collection {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let scenes = scenes::generate(5, 40);
        scenes::write_pictures(&scenes, &folder.path().join("photos")).unwrap();
        let dataset =
            scenes::to_dataset(&scenes, folder.path().join("photos"), &[(Split::Train, 30), (Split::Val, 10)]);
        dataset.save(&folder.path().join("dataset.json")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn features(&self) -> String {
        let features = self.path("pixels.features");
        json(&["features", &self.path("dataset.json"), "-o", &features, "--backbone", "pixels"]);
        features
    }
}

const SMALL: [&str; 10] = [
    "--set",
    "epochs=1",
    "--set",
    "min_count=1",
    "--set",
    "batch=10",
    "--set",
    "optimizer.kind=adam",
    "--set",
    "optimizer.learning_rate=1e-3",
];

#[test]
fn every_command_on_a_small_collection() {
    let c = Collection::new();
    let (dataset, features) = (c.path("dataset.json"), c.features());
    assert_eq!(json(&["dataset", "show", &dataset])["photos"], 40);

    let data = ["--dataset", &dataset, "--features", &features];
    let (align, caption, regions) = (c.path("align"), c.path("caption"), c.path("regions"));
    let sizes = ["--set", "model.encoder=conv", "--set", "model.dim=16", "--set", "model.hidden=16"];
    json(&[&["train", "align", "-o", &align], &data[..], &SMALL, &sizes].concat());
    let table = json(&[&["eval", "retrieval", "--model", &align], &data[..]].concat());
    assert_eq!((&table["images"], &table["sentences"]), (&10.into(), &50.into()));
    assert!(table["rsum"].as_f64().unwrap() > 0.0);

    against_a_bank(&[&["eval", "retrieval", "--model", &align], &data[..]].concat(), &table);
    several_seeds(&c, &[&data[..], &SMALL, &sizes].concat(), &data);
    parsed_sentences(&c, &[&data[..], &SMALL, &sizes].concat(), &data);

    let phrases = c.path("phrases.json");
    let decoded = json(&[&["align", "--model", &align, "-o", &phrases], &data[..]].concat());
    assert_eq!(decoded["photos"], 40);
    let sizes = ["--set", "model.hidden=16", "--set", "model.word_dim=16"];
    json(&[&["train", "caption", "-o", &caption], &data[..], &SMALL, &sizes].concat());
    let floor = ["--phrases", &phrases, "--set", "min_phrase_score=-1000"];
    json(&[&["train", "caption", "-o", &regions], &data[..], &SMALL, &sizes, &floor].concat());
    let scores = c.path("scores.csv");
    let measured = ["eval", "caption", "--model", &caption, "--nearest", "--per-image", &scores];
    let bleu = json(&[&measured, &data[..]].concat());
    assert!(bleu["bleu1"].as_f64().unwrap() > 0.0 && bleu["nearest"]["bleu1"].as_f64().unwrap() > 0.0);
    assert!(bleu["perplexity"].as_f64().unwrap() > 1.0 && bleu["diversity"]["vocabulary"].as_u64().unwrap() > 0);
    let lengths: u64 = bleu["lengths"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(lengths, 10);
    assert_eq!(std::fs::read_to_string(&scores).unwrap().lines().count(), 11);

    // People's phrases for two boxes of a photo; the second is far from every region.
    let human = c.path("human.json");
    let record = record!({"version": 1, "images": [{"image": "scene-00035.png", "regions": [
        {"box": decoded_box(&phrases, "scene-00035.png"), "phrases": ["a red ball", "the ball"]},
        {"box": [0, 0, 1, 1], "phrases": ["nothing"]}]}]});
    std::fs::write(&human, record.to_string()).unwrap();
    let rows = ["eval", "regions", "--model", &regions, "--phrases", &human, "--features", &features];
    let baselines = ["--caption-model", &caption, "--align-model", &align, "--training-phrases", &phrases];
    let table3 = json(&[&rows[..], &baselines, &["--dataset", &dataset]].concat());
    assert_eq!((&table3["described"], &table3["covered"]), (&2.into(), &1.into()));
    let names: Vec<&String> = table3["rows"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["full_frame", "human", "ranking", "region_level"]);
    assert_eq!(table3["rows"]["human"]["name_recall"], 1.0);
    assert!((0.0..=1.0).contains(&table3["dense_map"].as_f64().unwrap()));
    fails(&[&rows[..], &["--min-iou", "2"]].concat(), 2, &["--min-iou 2"]);

    let photo = c.path("photos/scene-00039.png");
    let described =
        json(&["caption", &photo, "--model", &caption, "--n-best", "2", "--regions", "--region-model", &regions]);
    assert_eq!(described["captions"].as_array().unwrap().len(), 2);
    assert_eq!(described["regions"][0]["box"].as_array().unwrap().len(), 4);
    an_alignment_model_chooses(&c, &photo, &caption, &align, &data);
    describes_a_folder(&c, &caption, &regions);

    let html = c.path("report.html");
    let page = ["--html", &html, "--photos", "2", "--caption-model", &caption, "--region-model", &regions];
    json(&[&["eval", "retrieval", "--model", &align], &data[..], &page].concat());
    assert!(std::fs::read_to_string(&html).unwrap().contains("</html>"));
    assert!(Path::new(&c.path("report.json")).exists());

    read_again(&c, &align, &caption, &regions, &data);

    // Models of another kind, another store, and a second run in the same folder are refused by name.
    fails(&[&["eval", "retrieval", "--model", &caption], &data[..]].concat(), 1, &["expected an alignment model"]);
    fails(&[&["train", "align", "-o", &align], &data[..]].concat(), 1, &["already holds a run", "--resume"]);
    let other = c.path("other.features");
    json(&["features", &dataset, "-o", &other, "--backbone", "pixels", "--max-regions", "3"]);
    let mixed = ["eval", "retrieval", "--model", &align, "--dataset", &dataset, "--features", &other];
    fails(&mixed, 1, &["does not fit the model", "max_regions is 3, not 20"]);
    joined_stores(&c, &features, &other);
    let again = ["features", &dataset, "-o", &other, "--backbone", "pixels", "--max-regions", "4"];
    fails(&again, 1, &["max_regions"]);
}

/// Scores measured against training photos, and Sinkhorn's balance; `plain` is what `retrieval` says without.
fn against_a_bank(retrieval: &[&str], plain: &serde_json::Value) {
    let with = |more: &[&str]| json(&[retrieval, more].concat());
    assert_eq!(&with(&["--bank", "0"]), plain);
    let banked = with(&["--bank", "20"]);
    assert_eq!((&banked["images"], &banked["sentences"]), (&10.into(), &50.into()));
    assert_ne!(&banked, plain, "a bank that says nothing");
    assert_eq!(with(&["--bank", "1000"]), with(&["--bank", "1001"]), "there are fewer training photos");
    let (reciprocal, balanced) = (with(&["--rerank", "3"]), with(&["--rerank", "3", "--balance", "10"]));
    assert_ne!(reciprocal, balanced);
    let alone = sightline(&[retrieval, &["--balance", "10"]].concat());
    assert!(alone.status.code() == Some(2) && stderr(&alone).contains("--rerank"), "{}", stderr(&alone));
    fails(&[retrieval, &["--bank", "20", "--split", "train"]].concat(), 2, &["--bank 20", "train split"]);
}

/// Caption models that count in retrieval, and those that learn to tell pictures apart.
fn read_again(c: &Collection, align: &str, caption: &str, regions: &str, data: &[&str]) {
    let retrieval = [&["eval", "retrieval", "--model", align], data, &["--rerank", "3"]].concat();
    let reader = ["--reader", caption];
    let (without, with) = (json(&retrieval), json(&[&retrieval[..], &reader].concat()));
    assert_eq!((&with["images"], &with["sentences"]), (&without["images"], &without["sentences"]));
    assert_ne!(with, without, "a reader that says nothing");
    let weightless = json(&[&retrieval[..], &reader, &["--reader-weight", "0"]].concat());
    assert_eq!(weightless, without);
    let at_once = [&["eval", "retrieval", "--model", align], data, &reader].concat();
    let refused = sightline(&at_once);
    assert!(refused.status.code() == Some(2) && stderr(&refused).contains("--rerank"), "{}", stderr(&refused));
    fails(&[&retrieval[..], &["--reader", align]].concat(), 1, &["expected a caption model of whole photos"]);
    fails(&[&retrieval[..], &reader, &["--reader-weight", "-1"]].concat(), 2, &["--reader-weight -1"]);
    fails(&[&retrieval[..], &reader, &["--near", "0"]].concat(), 2, &["--near 0"]);

    let sizes = ["--set", "model.hidden=16", "--set", "model.word_dim=16"];
    let tells_apart = ["--set", "objective=mutual_information", "--set", "keep_best_by=choice"];
    let apart = c.path("apart");
    let learn = [&["train", "caption", "-o", &apart], data, &SMALL, &sizes, &tells_apart].concat();
    fails(&learn, 2, &["--start"]);
    json(&[&learn[..], &["--start", caption]].concat());
    json(&[&retrieval[..], &["--reader", caption, "--reader", &apart]].concat());
    // Regions may begin with what whole photos taught, photos not with what regions did.
    let (of_regions, phrases) = (c.path("apart-regions"), c.path("phrases.json"));
    let learn = [&["train", "caption", "-o", &of_regions], data, &SMALL, &sizes, &tells_apart].concat();
    let floor = ["--phrases", &phrases, "--set", "min_phrase_score=-1000", "--start", caption];
    json(&[&learn[..], &floor].concat());
    let wrong = c.path("wrong");
    let wrong = [&["train", "caption", "-o", &wrong], data, &SMALL, &sizes, &["--start", regions]].concat();
    fails(&wrong, 1, &["a caption model of regions, expected a caption model of whole photos"]);
}

/// A model of dependency edges: every command that reads sentences asks for their trees, and queries have none.
fn parsed_sentences(c: &Collection, settings: &[&str], data: &[&str]) {
    let (run, parses) = (c.path("edges"), c.path("chains.conllu"));
    let dataset: serde_json::Value = serde_json::from_slice(&std::fs::read(c.path("dataset.json")).unwrap()).unwrap();
    let mut text = String::new();
    // Every word hangs on the one before; the last sentence of all has no tree.
    let images = dataset["images"].as_array().unwrap();
    let sentences: Vec<_> = images.iter().flat_map(|image| image["sentences"].as_array().unwrap()).collect();
    for sentence in &sentences[..sentences.len() - 1] {
        text += &format!("# sent_id = {}\n", sentence["sentid"]);
        for (i, token) in sentence["tokens"].as_array().unwrap().iter().enumerate() {
            let relation = if i == 0 { "root" } else { "dep" };
            text += &format!("{}\t{}\t_\t_\t_\t_\t{i}\t{relation}\t_\t_\n", i + 1, token.as_str().unwrap());
        }
        text += "\n";
    }
    std::fs::write(&parses, &text).unwrap();
    let edges = ["--set", "model.sentence_encoder=dependency_edges", "--set", "min_relation_count=1"];
    let train = [&["train", "align", "-o", &run], settings, &edges].concat();
    fails(&train, 1, &["--parses"]);
    let of_words = c.path("words");
    fails(&[&["train", "align", "-o", &of_words, "--parses", &parses], settings].concat(), 2, &["dependency_edges"]);
    json(&[&train[..], &["--parses", &parses]].concat());
    let with_trees = ["--parses", &parses];
    let retrieval = [&["eval", "retrieval", "--model", &run], data].concat();
    fails(&retrieval, 1, &["--parses"]);
    let told = sightline(&[&retrieval[..], &with_trees].concat());
    assert!(
        told.status.success() && stderr(&told).contains("1 sentence without a dependency tree"),
        "{}",
        stderr(&told)
    );
    assert_eq!(json(&[&retrieval[..], &with_trees].concat())["sentences"], 50);
    let decoded = ["align", "--model", &run, "-o", &c.path("edges.json"), "--split", "val"];
    assert_eq!(json(&[&decoded[..], data, &with_trees].concat())["photos"], 10);
    json(&[&["eval", "words", "--model", &run], data, &with_trees].concat());
    let html = c.path("edges-page.html");
    json(&[&retrieval[..], &with_trees, &["--html", &html, "--photos", "3"]].concat());
    fails(&["index", &c.path("photos"), "-o", &c.path("no"), "--model", &run], 1, &["dependency trees"]);

    std::fs::write(&parses, text.replacen("root", "_", 1)).unwrap();
    fails(&[&retrieval[..], &with_trees].concat(), 1, &["chains.conllu", "line 2: token 1 has no relation"]);
}

/// Two stores as one: trained on and measured on, refused where a photo's vectors would have to be made anew.
fn joined_stores(c: &Collection, features: &str, other: &str) {
    let (dataset, both, run) = (c.path("dataset.json"), c.path("both.features"), c.path("both"));
    let half = c.path("half.features");
    std::fs::copy(features, &half).unwrap();
    let joined = json(&["features", "join", features, &half, "-o", &both]);
    let dim = |record: &serde_json::Value| record["settings"]["dim"].as_u64().unwrap();
    assert_eq!((&joined["photos"], joined["settings"]["parts"].as_array().unwrap().len()), (&40.into(), 2));
    assert_eq!(dim(&joined), 2 * joined["settings"]["parts"][0]["dim"].as_u64().unwrap());
    fails(&["features", "join", features, other, "-o", &c.path("no")], 1, &["scene-", "number of regions"]);

    let data = ["--dataset", &dataset, "--features", &both];
    let sizes = ["--set", "model.dim=16", "--set", "model.hidden=16", "--set", "model.standardize=true"];
    json(&[&["train", "align", "-o", &run], &data[..], &SMALL, &sizes].concat());
    assert_eq!(json(&[&["eval", "retrieval", "--model", &run], &data[..]].concat())["images"], 10);
    let single = ["eval", "retrieval", "--model", &run, "--dataset", &dataset, "--features", features];
    fails(&single, 1, &["does not fit the model", "number of joined stores is 0, not 2"]);
    // Models of different vectors, together.
    let (joint, align) = (["eval", "retrieval", "--model", &run], c.path("align"));
    let mixed = [&joint[..], &["--model", &align], &data[..]].concat();
    fails(&mixed, 1, &["does not fit the model"]);
    let together = json(&[&mixed[..], &["--more-features", features]].concat());
    assert_eq!(together["images"], 10);
    assert_ne!(together, json(&[&joint[..], &data[..]].concat()));
    let needless = [&joint[..], &data[..], &["--more-features", features]].concat();
    fails(&needless, 1, &["no model given reads the vectors of"]);

    // One learns from the other, and remembers from whom.
    let taught = c.path("taught");
    let (learn, contrastive) = (["train", "align", "-o", &taught], ["--set", "model.objective=contrastive"]);
    let learn = [&learn[..], &data[..]].concat();
    let hears = [&SMALL, &sizes[..], &contrastive, &["--set", "teaching.share=0.5"]].concat();
    let teacher = ["--teacher", &align, "--more-features", features];
    fails(&[&learn, &hears[..]].concat(), 2, &["name one with --teacher"]);
    json(&[&learn, &hears[..], &teacher].concat());
    fails(&[&learn[..], &["--resume"]].concat(), 2, &["name one with --teacher"]);
    fails(&[&learn[..], &["--resume", "--teacher", &run]].concat(), 1, &["other teachers"]);
    let photos = c.path("photos");
    fails(&["index", &photos, "-o", &c.path("index"), "--model", &run], 1, &["2 stores side by side"]);
}

/// Among the sentences of a beam, by the weight that its score is given.
fn an_alignment_model_chooses(c: &Collection, photo: &str, caption: &str, align: &str, data: &[&str]) {
    let few_words = &c.path("few-words");
    let sizes = ["--set", "model.hidden=16", "--set", "model.word_dim=16", "--set", "min_count=9"];
    json(&[&["train", "caption", "-o", few_words], data, &SMALL, &sizes].concat());
    let describe = |more: &[&str]| -> Vec<(String, f64)> {
        let told = json(&[&["caption", photo, "--model", caption, "--n-best", "6"], more].concat());
        let of =
            |c: &serde_json::Value| (c["text"].as_str().unwrap().to_owned(), c["log_probability"].as_f64().unwrap());
        told["captions"].as_array().unwrap().iter().map(of).collect()
    };
    let alone = describe(&[]);
    assert_eq!(alone, describe(&["--fit-model", align, "--fit", "0"]));
    assert!(alone.is_sorted_by(|a, b| a.1 >= b.1), "{alone:?}");
    let mut chosen = describe(&["--fit-model", align, "--fit", "1000"]);
    assert_ne!(alone, chosen);
    let best = json(&["caption", photo, "--model", caption, "--fit-model", align, "--fit", "1000"]);
    assert_eq!(best["captions"][0]["text"], chosen[0].0.as_str());
    // The same sentences in another order.
    chosen.sort_by(|a, b| b.1.total_cmp(&a.1));
    assert_eq!(alone, chosen);
    let measured = json(&[&["eval", "caption", "--model", caption, "--fit-model", align], data].concat());
    assert_eq!(measured["images"], 10);
    // A committee of one member twice says what that member says.
    let twice = json(&["caption", photo, "--model", caption, "--model", caption, "--n-best", "6"]);
    let said = |told: &serde_json::Value| -> std::collections::BTreeSet<String> {
        told["captions"].as_array().unwrap().iter().map(|c| c["text"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(said(&twice), alone.iter().map(|(text, _)| text.clone()).collect());
    let likelihoods = |c: &serde_json::Value| c["log_probability"].as_f64().unwrap();
    for own in twice["captions"].as_array().unwrap() {
        let (_, expected) = alone.iter().find(|(text, _)| own["text"] == text.as_str()).unwrap();
        assert!((likelihoods(own) - expected).abs() < 0.01, "{own}");
    }
    fails(&["caption", photo, "--model", caption, "--model", caption, "--sample", "2"], 2, &["--sample"]);
    fails(&["caption", photo, "--model", caption, "--model", "builtin"], 1, &["other vectors"]);
    fails(&["caption", photo, "--model", caption, "--model", few_words], 1, &["other words", "min_count"]);
    a_committee_is_measured(caption, align, data);
    fails(&["caption", photo, "--model", caption, "--fit-model", align, "--fit=-1"], 2, &["--fit -1"]);
    fails(&["caption", photo, "--model", caption, "--fit-model", caption], 1, &["caption"]);
    fails(&["caption", photo, "--model", caption, "--fit-model", "builtin"], 1, &["other vectors", "--fit 0"]);
}

/// Of models, and with people's sentences.
fn a_committee_is_measured(caption: &str, align: &str, data: &[&str]) {
    let eval = |more: &[&'static str]| [&["eval", "caption", "--model", caption], data, more].concat();
    let with = |more| [&eval(more)[..], &["--fit-model", align]].concat();
    let two = json(&[&eval(&[])[..], &["--model", caption]].concat());
    assert_eq!(
        (two["images"].as_u64(), two["perplexity"].as_f64()),
        (Some(10), json(&eval(&[]))["perplexity"].as_f64())
    );
    let agreed = json(&with(&["--consensus", "5"]));
    assert_eq!(agreed["images"], 10);
    assert_ne!(agreed, json(&with(&["--consensus", "5", "--consensus-weight", "1000"])));
    fails(&eval(&["--consensus", "5"]), 2, &["--consensus", "--fit-model"]);
    fails(&with(&["--consensus", "5", "--consensus-weight=-1"]), 2, &["--consensus-weight -1"]);
    fails(&with(&["--consensus", "5", "--split", "train"]), 2, &["training split"]);
}

/// A run a seed, one more on resuming, and one table of them from either command.
fn several_seeds(c: &Collection, settings: &[&str], data: &[&str]) {
    let runs = c.path("seeds");
    let trained = json(&[&["train", "align", "-o", &runs, "--seeds", "2,5"], settings].concat());
    assert_eq!((&trained["runs"][1]["seed"], &trained["validation"]["runs"]), (&5.into(), &2.into()));
    assert!(trained["validation"]["deviation"][6].is_number(), "{trained}");
    let first = std::fs::read(Path::new(&runs).join("seed-2/best.ckpt")).unwrap();
    assert_ne!(first, std::fs::read(Path::new(&runs).join("seed-5/best.ckpt")).unwrap());

    let more = json(&[&["train", "align", "-o", &runs, "--seeds", "2,5,3", "--resume"], data].concat());
    assert_eq!(more["validation"]["runs"], 3);
    assert_eq!(first, std::fs::read(Path::new(&runs).join("seed-2/best.ckpt")).unwrap(), "it was done already");
    let all = json(&[&["train", "align", "-o", &runs, "--resume"], data].concat());
    let means = |record: &serde_json::Value| -> Vec<f64> {
        record.as_array().unwrap().iter().map(|mean| (mean.as_f64().unwrap() * 1e6).round()).collect()
    };
    assert_eq!(means(&all["validation"]["mean"]), means(&more["validation"]["mean"]));
    // What is no alignment model's is named, and ends nothing.
    let other = Path::new(&runs).join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("best.ckpt"), b"none").unwrap();
    let table = json(&[&["eval", "ablation", &runs, "--split", "val"], data].concat());
    std::fs::remove_dir_all(other).unwrap();
    assert_eq!((&table[0]["name"], &table[0]["runs"]), (&"seeds".into(), &3.into()));
    assert_eq!(means(&table[0]["mean"]), means(&all["validation"]["mean"]));

    fails(&[&["eval", "retrieval", "--model", &runs], data].concat(), 1, &["one run a seed", "seed-2"]);
    fails(&[&["train", "align", "-o", &runs, "--seeds", "2"], data].concat(), 1, &["already holds a run"]);
    // One run does not hide several, nor they it.
    fails(&[&["train", "align", "-o", &runs], settings].concat(), 1, &["already holds one run a seed"]);
    let single = c.path("align");
    let seeds_beside = [&["train", "align", "-o", &single, "--seeds", "2"], settings].concat();
    fails(&seeds_beside, 1, &["already holds a run", "another folder for the seeds"]);
    let of_another_kind = [&["train", "caption", "-o", &single, "--resume"], data].concat();
    fails(&of_another_kind, 2, &["begun as the run of an alignment model"]);
    fails(&[&["train", "align", "-o", &c.path("no"), "--seeds", "2", "--resume"], data].concat(), 1, &["no run"]);
}

/// The box of the first decoded phrase of a photo.
fn decoded_box(phrases: &str, photo: &str) -> serde_json::Value {
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(phrases).unwrap()).unwrap();
    let own = record["photos"][photo].as_array().unwrap();
    own.iter().find(|phrase| phrase["region"] != 0).unwrap_or(&own[0])["box"].clone()
}

/// Texts, a table and a page; what is done is skipped, and one bad photo does not stop the others.
fn describes_a_folder(c: &Collection, caption: &str, regions: &str) {
    let folder = PathBuf::from(c.path("some"));
    std::fs::create_dir(&folder).unwrap();
    for name in ["scene-00001.png", "scene-00002.png"] {
        std::fs::copy(PathBuf::from(c.path("photos")).join(name), folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("bad.png"), b"no picture").unwrap();
    let (texts, csv, html) = (c.path("texts"), c.path("captions.csv"), c.path("figure7.html"));
    let some = folder.to_str().unwrap();
    let files = ["caption", some, "--model", caption, "--n-best", "2", "--texts", &texts, "--csv", &csv];
    let output = sightline(&files);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("bad.png") && stderr(&output).contains("1 of 3 photos"), "{}", stderr(&output));
    let text = std::fs::read_to_string(Path::new(&texts).join("scene-00002.png.txt")).unwrap();
    assert_eq!(text.lines().count(), 2);
    let table = std::fs::read_to_string(&csv).unwrap();
    assert_eq!(table.lines().count(), 5, "{table}");

    std::fs::remove_file(folder.join("bad.png")).unwrap();
    let again = sightline(&files);
    assert!(again.status.success() && again.stdout.is_empty(), "{}", stderr(&again));
    assert!(stderr(&again).contains("2 photos described already: each has a text in"), "{}", stderr(&again));
    assert!(stderr(&again).contains("texts and its lines in") && stderr(&again).contains("name another folder"));
    assert_eq!(std::fs::read_to_string(&csv).unwrap(), table);

    let page = ["--regions", "--region-model", regions, "--html", &html, "--most-regions", "3"];
    let output = sightline(&[&["caption", some, "--model", caption, "--quiet"], &page[..]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(std::fs::read_to_string(&html).unwrap().contains("</html>"));

    let drawn =
        ["caption", some, "--model", caption, "--sample", "3", "--temperature", "0.7", "--top-p", "0.9", "--quiet"];
    let (one, two) = (sightline(&drawn), sightline(&drawn));
    assert!(one.status.success() && one.stdout == two.stdout, "the same seed draws the same: {}", stderr(&one));

    let empty = c.path("empty");
    std::fs::create_dir(&empty).unwrap();
    fails(&["caption", &empty, "--model", caption], 1, &["holds no photo"]);
    fails(&["caption", some, "--model", regions], 1, &["expected a caption model of whole photos"]);
    fails(&["caption", some, "--model", caption, "--beam", "3", "--groups", "2"], 2, &["--groups 2", "divisor"]);
    for iou in ["5", "-1", "NaN"] {
        let flag = format!("--region-iou={iou}");
        fails(
            &["caption", some, "--model", caption, "--regions", &flag],
            2,
            &[&format!("--region-iou {iou}"), "0 to 1"],
        );
    }
    // Photos of one name have no text each, and a page that cannot be written is no reason to describe photos.
    let (both, own) = (c.path("both-texts"), c.path("photos"));
    fails(&["caption", some, &own, "--model", caption, "--texts", &both], 2, &["scene-00001.png", "two runs"]);
    fails(&["caption", some, "--model", caption, "--html", &format!("{csv}/page.html")], 1, &["captions.csv"]);
    let photo = folder.join("scene-00001.png");
    let before = std::fs::read(&photo).unwrap();
    let over = ["caption", some, "--model", caption, "--html", photo.to_str().unwrap()];
    fails(&over, 1, &["scene-00001.png", "a picture (PNG) lies here"]);
    fails(&["dataset", "import", &c.path("dataset.json"), "-o", over[5]], 1, &["a picture (PNG) lies here"]);
    fails(&["caption", some, "--model", caption, "--csv", over[5]], 1, &["no table of captions"]);
    assert_eq!(std::fs::read(&photo).unwrap(), before);
    fails(&["caption", some, "--model", caption, "--csv", &csv, "--html", &csv], 2, &["this command reads it"]);
    let [table, page] = ["table.csv", "table.html"].map(|name| c.path(name));
    std::fs::write(&table, "scene-00001.png,a red circle\n").unwrap();
    let import = ["dataset", "import", &table, "--photos", &c.path("photos"), "-o"];
    fails(&[&import[..], &[&table]].concat(), 2, &["table.csv", "this command reads it"]);
    std::fs::write(&page, "mine").unwrap();
    fails(&[&import[..], &[&page]].concat(), 1, &["table.html", "no dataset"]);
    assert_eq!(std::fs::read(&page).unwrap(), b"mine");
    fails(&["caption", some, "--model", caption, "--beam", "3", "--n-best", "9"], 2, &["--n-best 9"]);
    fails(&["caption", some, "--model", caption, "--sample", "2", "--top-p", "1.5"], 2, &["--top-p 1.5"]);
}

#[test]
fn mistakes_get_one_line() {
    let c = Collection::new();
    let (dataset, features) = (c.path("dataset.json"), c.features());
    let data = ["--dataset", &dataset, "--features", &features];
    let run = c.path("run");
    let train =
        |assignment: &'static str| [&["train", "align", "-o", &run], &data[..], &["--set", assignment]].concat();
    fails(&train("model.dimm=3"), 2, &["did you mean model.dim?"]);
    fails(&train("model.dim=many"), 2, &["model.dim"]);
    fails(&train("optimizer.kind=sdg"), 2, &["sdg"]);
    fails(&train("min_count=100000"), 1, &["min_count"]);

    let none = c.path("none");
    fails(&["dataset", "show", &none], 1, &["none"]);
    fails(&["dataset", "import", &none, "-o", &c.path("d.json")], 1, &["none"]);
    fails(&["features", &dataset, "-o", &c.path("f"), "--backbone", &none], 2, &["--backbone", ".safetensors"]);
    let vit = c.path("vit.safetensors");
    fails(&["features", &dataset, "-o", &c.path("f"), "--backbone", &vit], 1, &["vit.safetensors"]);
    std::fs::write(&vit, b"not weights at all").unwrap();
    fails(&["features", &dataset, "-o", &c.path("f"), "--backbone", &vit], 1, &["vit.safetensors"]);
    let regions = ["--regions", "selective-search"];
    let wrong = [&["features", &dataset, "-o", &none, "--backbone", "pixels"], &regions[..]].concat();
    fails(&wrong, 2, &["selective_search"]);
    fails(&["caption", &none, "--model", &run], 1, &["run"]);
    fails(&["caption", &none, "--model", &run, "--beam", "0"], 2, &["--beam 0"]);
    fails(&["serve", "--report", &dataset], 1, &["is no report"]);
}

#[test]
fn one_bad_photo_is_named_and_the_others_go_on() {
    let c = Collection::new();
    let folder = PathBuf::from(c.path("photos"));
    std::fs::write(folder.join("scene-00003.png"), b"").unwrap();
    let whole = std::fs::read(folder.join("scene-00004.png")).unwrap();
    std::fs::write(folder.join("scene-00004.png"), &whole[..whole.len() / 2]).unwrap();
    std::fs::remove_file(folder.join("scene-00005.png")).unwrap();
    let features = c.path("f.features");
    let record = json(&["features", &c.path("dataset.json"), "-o", &features, "--backbone", "pixels"]);
    assert_eq!((&record["photos"], &record["done"]), (&37.into(), &37.into()));
    let failed: Vec<&str> = record["failed"].as_array().unwrap().iter().map(|f| f["image"].as_str().unwrap()).collect();
    assert_eq!(failed, ["scene-00003.png", "scene-00004.png", "scene-00005.png"]);

    // A second run reads only what the first could not, and adds what has been mended.
    std::fs::write(folder.join("scene-00004.png"), &whole).unwrap();
    let record = json(&["features", &c.path("dataset.json"), "-o", &features, "--backbone", "pixels"]);
    assert_eq!((&record["photos"], &record["done"], &record["skipped"]), (&38.into(), &1.into(), &37.into()));
}

#[test]
fn a_photo_that_was_changed_is_read_again() {
    let c = Collection::new();
    let (folder, features) = (c.path("photos"), c.path("f.features"));
    let extract = || json(&["features", &folder, "-o", &features, "--backbone", "pixels"]);
    assert_eq!(extract()["done"], 40);
    let photo = |name: &str| Path::new(&folder).join(name);
    std::fs::copy(photo("scene-00001.png"), photo("scene-00002.png")).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(10);
    let changed = std::fs::File::options().write(true).open(photo("scene-00002.png")).unwrap();
    changed.set_modified(later).unwrap();
    std::fs::remove_file(photo("scene-00003.png")).unwrap();
    let record = extract();
    assert_eq!((&record["done"], &record["changed"], &record["skipped"]), (&1.into(), &1.into(), &38.into()));
    assert_eq!((&record["photos"], &record["others"]), (&40.into(), &1.into()));
    let store = FeatureStore::open(&features).unwrap();
    let vectors = |key: &str| store.find(key).unwrap().to_features().vectors;
    assert_eq!(vectors("scene-00002.png"), vectors("scene-00001.png"));
}

#[test]
fn help_has_examples() {
    for command in [
        &["demo"][..],
        &["dataset", "import"],
        &["dataset", "show"],
        &["features"],
        &["train", "align"],
        &["train", "caption"],
        &["align"],
        &["eval", "retrieval"],
        &["eval", "caption"],
        &["eval", "regions"],
        &["caption"],
        &["serve"],
        &["pull"],
    ] {
        let output = sightline(&[command, &["--help"]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("Example"), "{command:?}: {text}");
    }
    assert_eq!(sightline(&["no-such-command"]).status.code(), Some(2));
}
