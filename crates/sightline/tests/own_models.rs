//! The program with the models that it carries, as a stranger meets it: a photo described and a folder searched with
//! nothing but the binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sightline::demo::scenes;
use sightline::models;
use sightline_vision::Photo;

/// A folder of drawn photos, and a place for caches of its own.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(photos: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        scenes::write_pictures(&scenes::generate(3, photos), &folder.path().join("photos")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn photos(&self) -> String {
        self.path("photos").to_str().unwrap().to_owned()
    }

    fn first_photo(&self) -> String {
        let mut all: Vec<PathBuf> =
            std::fs::read_dir(self.path("photos")).unwrap().map(|e| e.unwrap().path()).collect();
        all.sort();
        all[0].to_str().unwrap().to_owned()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut program = Command::new(env!("CARGO_BIN_EXE_sightline"));
        program.env("SIGHTLINE_CACHE", self.path("cache")).current_dir(self.folder.path());
        program.args(arguments).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Expects failure with one line that holds all of `parts`.
    fn fails(&self, arguments: &[&str], code: i32, parts: &[&str]) {
        let output = self.run(arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
        for part in parts {
            assert!(message.contains(part), "{arguments:?}: {part:?} is not in {message}");
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_photo_is_described_with_nothing_but_the_program() {
    let place = Place::new(2);
    let photo = place.first_photo();
    let described = place.json(&["caption", &photo, "--regions"]);
    let caption = &described["captions"][0];
    assert!(caption["text"].as_str().unwrap().split(' ').count() >= 2, "{described}");
    assert!(caption["log_probability"].as_f64().unwrap() < 0.0);
    let regions = described["regions"].as_array().unwrap();
    assert!(!regions.is_empty() && regions.iter().all(|region| region["text"].as_str().unwrap() != ""));
    // The same again, to the byte.
    let again = place.json(&["caption", &photo, "--regions"]);
    assert_eq!(described, again);
}

#[test]
fn groups_need_no_beam_beside_them() {
    let place = Place::new(1);
    let photo = place.first_photo();
    for regions in [&[][..], &["--regions"]] {
        let described = place.json(&[&["caption", &photo, "--groups", "2"], regions].concat());
        assert!(!described["captions"][0]["text"].as_str().unwrap().is_empty(), "{described}");
    }
    let usual = place.json(&["caption", &photo, "--groups", "4"]);
    assert_eq!(usual, place.json(&["caption", &photo, "--groups", "4", "--beam", "8"]));
    place.fails(
        &["caption", &photo, "--groups", "4", "--beam", "6"],
        2,
        &["--groups 4", "divisor of the beam's width, 6"],
    );
}

#[test]
fn a_folder_is_searched_and_only_what_is_new_is_read() {
    let place = Place::new(6);
    std::fs::write(place.path("photos/broken.jpg"), b"no picture").unwrap();
    let question = ["search", "a red ball", &place.photos()];
    let first = place.run(&question);
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert!(
        text(&first.stderr).contains("6 added") && text(&first.stderr).contains("broken.jpg"),
        "{}",
        text(&first.stderr)
    );
    let second = place.run(&question);
    assert!(!text(&second.stderr).contains("added"), "{}", text(&second.stderr));
    assert_eq!(first.stdout, second.stdout);
    let answer = place.json(&[&question[..], &["--quiet"]].concat());
    let hits = answer["hits"].as_array().unwrap();
    assert_eq!(hits.len(), 6);
    for word in hits[0]["words"].as_array().unwrap() {
        assert_eq!(word["box"].as_array().unwrap().len(), 4, "{word}");
    }
    // The index lies among the caches, not among the photos, and that of a program with other models goes.
    let of_folder = std::fs::read_dir(place.path("cache/indexes")).unwrap().next().unwrap().unwrap().path();
    let own = std::fs::read_dir(&of_folder).unwrap().next().unwrap().unwrap().path();
    std::fs::rename(&own, of_folder.join("0123456789abcdef")).unwrap();
    let third = place.run(&question);
    assert!(text(&third.stderr).contains("6 added"), "{}", text(&third.stderr));
    let left: Vec<PathBuf> = std::fs::read_dir(&of_folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [own]);
    assert_eq!(std::fs::read_dir(place.path("photos")).unwrap().count(), 7);
}

#[test]
fn the_card_says_what_the_models_are() {
    let place = Place::new(1);
    let info = place.json(&["info"]);
    for field in ["name", "date", "data", "licence", "limits", "command"] {
        assert!(!info["card"][field].as_str().unwrap().is_empty(), "{field}");
    }
    assert!(!info["card"]["scores"].as_object().unwrap().is_empty());
    assert_eq!(info["models"].as_array().unwrap().len(), 4);
    assert!(text(&place.run(&["info"]).stdout).contains("licence"));
}

#[test]
fn a_pack_is_a_model_wherever_one_is_named() {
    let place = Place::new(3);
    let pack = place.path("mine.pack");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/sightline.pack"), &pack).unwrap();
    let (pack, photo) = (pack.to_str().unwrap().to_owned(), place.first_photo());
    let described = place.json(&["caption", &photo, "--model", &pack]);
    assert_eq!(described, place.json(&["caption", &photo, "--model", models::BUILTIN]));
    let features = place.path("own.features");
    place.json(&[
        "features",
        &place.photos(),
        "-o",
        features.to_str().unwrap(),
        "--backbone",
        &pack,
        "--regions",
        &format!("compact={pack}"),
        "--context",
        "class",
        "--quiet",
    ]);
}

#[test]
fn models_are_not_written_over() {
    let place = Place::new(1);
    let pack = place.path("mine.pack");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/sightline.pack"), &pack).unwrap();
    std::fs::write(place.path("card.toml"), "").unwrap();
    let before = std::fs::read(&pack).unwrap();
    let (pack_name, photo) = (pack.to_str().unwrap(), place.first_photo());
    place.fails(&["caption", &photo, "--model", pack_name, "--html", pack_name], 2, &["this command reads it"]);
    let of_models = ["--backbone", pack_name, "--align", pack_name];
    for output in ["mine.pack", "card.toml"] {
        let card =
            "name = \"x\"\ndate = \"x\"\ndata = \"x\"\nlicence = \"x\"\nlimits = \"x\"\ncommand = \"x\"\n[scores]\n";
        std::fs::write(place.path("card.toml"), card).unwrap();
        let arguments = [&["pack", "-o", output], &of_models[..], &["--card", "card.toml"]].concat();
        place.fails(&arguments, 2, &[output, "this command reads it"]);
        assert_eq!(std::fs::read_to_string(place.path("card.toml")).unwrap(), card);
    }
    assert_eq!(std::fs::read(&pack).unwrap(), before);
}

#[cfg(unix)]
#[test]
fn a_name_too_long_for_its_text_costs_one_photo() {
    let place = Place::new(3);
    let first = std::fs::read_dir(place.photos()).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    // Room for the photo's name, and none for `.txt` behind it.
    let long = format!("{}.{}", "a".repeat(250), first.extension().unwrap().to_str().unwrap());
    std::fs::copy(&first, Path::new(&place.photos()).join(&long)).unwrap();
    let output = place.run(&["caption", &place.photos(), "--texts", "texts"]);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("1 of 4 photos could not be described") && message.contains(&long), "{message}");
    assert_eq!(std::fs::read_dir(place.path("texts")).unwrap().count(), 3);
}

#[cfg(unix)]
#[test]
fn texts_are_written_though_nobody_listens() {
    let place = Place::new(3);
    let mut program = Command::new(env!("CARGO_BIN_EXE_sightline"))
        .args(["caption", &place.photos(), "--texts", "texts"])
        .current_dir(place.folder.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    drop(program.stdout.take());
    assert!(program.wait().unwrap().success());
    assert_eq!(std::fs::read_dir(place.path("texts")).unwrap().count(), 3);
}

#[test]
fn a_pack_that_moved_is_found_where_it_is_named() {
    let place = Place::new(3);
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/sightline.pack");
    let path = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let (photos, photo, index) = (place.photos(), place.first_photo(), path("an.index"));
    std::fs::copy(own, path("x.pack")).unwrap();
    place.json(&["index", &photos, "-o", &index, "--model", &path("x.pack")]);
    std::fs::rename(path("x.pack"), path("y.pack")).unwrap();
    let new = Photo::uniform(64, 48, [200, 30, 30]).encode_png().unwrap();
    std::fs::write(place.path("photos/new.png"), new).unwrap();
    let report = place.json(&["index", &photos, "-o", &index, "--model", &path("y.pack")]);
    assert_eq!((&report["added"], &report["unchanged"]), (&1.into(), &3.into()));
    // It is remembered; and `search` too finds one that moved on.
    let question = ["search", "--photo", &photo, "--index", &index];
    let first = place.json(&question);
    std::fs::rename(path("y.pack"), path("z.pack")).unwrap();
    assert_eq!(place.json(&[&question[..], &["--model", &path("z.pack")]].concat()), first);
}

#[test]
fn mistakes_are_one_clear_line() {
    let place = Place::new(1);
    let photo = place.first_photo();
    place.fails(&["search", "a dog"], 2, &["is no folder", "--index"]);
    place.fails(&["search"], 2, &["where are the photos"]);
    place.fails(&["caption", &photo, "--model", "nowhere"], 1, &["nowhere"]);
    place.fails(&["info", &photo], 1, &["is no pack"]);
    place.fails(&["demo", "nowhere", "--no-serve"], 1, &["nowhere is no folder"]);
    let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/sightline.pack")).unwrap();
    let damaged = place.path("damaged.pack");
    std::fs::write(&damaged, &bytes[..bytes.len() - 1]).unwrap();
    place.fails(&["caption", &photo, "--model", damaged.to_str().unwrap()], 1, &["damaged.pack", "copy it again"]);
    std::fs::create_dir(place.path("empty")).unwrap();
    place.fails(&["search", "a dog", place.path("empty").to_str().unwrap()], 1, &["holds no photo"]);
}

#[test]
fn regions_are_judged_by_the_objects_they_cover() {
    let place = Place::new(1);
    let photo = Path::new(&place.first_photo()).file_name().unwrap().to_str().unwrap().to_owned();
    let write = |name: &str, value: serde_json::Value| std::fs::write(place.path(name), value.to_string()).unwrap();
    write("boxes.json", serde_json::json!({ &photo: [[0, 0, 20, 20, 0.9], [22, 22, 62, 62, 0.8]] }));
    let object = |bbox: [u32; 4]| serde_json::json!({ "image_id": 1, "category_id": 1, "bbox": bbox });
    write(
        "instances.json",
        serde_json::json!({
            "images": [{ "id": 1, "file_name": &photo }],
            "categories": [{ "id": 1, "name": "dog" }],
            "annotations": [object([0, 0, 20, 20]), object([23, 22, 38, 40]), object([50, 5, 12, 12])],
        }),
    );
    let store = place.path("x.features");
    let store = store.to_str().unwrap();
    let made = place.run(&[
        "features",
        &place.photos(),
        "-o",
        store,
        "--backbone",
        "builtin",
        "--regions",
        "boxes=boxes.json",
    ]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let judged = ["eval", "boxes", "--features", store, "--instances", "instances.json", "--regions", "1,2"];
    let record = place.json(&judged);
    assert_eq!((&record["objects"], &record["objects_by_size"]), (&3.into(), &serde_json::json!([2, 1, 0])));
    assert_eq!(record["rows"][0]["recall_by_size"], serde_json::json!([0.5, 0.0, null]));
    assert_eq!(record["rows"][1]["recall_by_size"], serde_json::json!([0.5, 1.0, null]));
    assert_eq!(record["rows"][1]["covered"], 2);
    let shown = text(&place.run(&judged).stdout);
    let words: Vec<&str> = shown.split_whitespace().collect();
    assert!(words.windows(6).any(|row| row == ["2", "2", "66.7", "50.0", "100.0", "–"]), "{shown}");
    assert!(shown.contains("2 small (up to 32² pixels)"), "{shown}");
    place.fails(&[&judged[..6], &["--iou", "0"]].concat(), 2, &["--iou 0"]);
}
