//! Index, search and server as their user meets them: a folder that changes, traps in it, broken files, odd questions.

mod server;
mod world;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use sightline::demo::scenes;
use sightline_model::Device;
use sightline_vision::Photo;

use world::{World, fails, json, sightline};

fn counts(report: &Value) -> [u64; 7] {
    let number = |name: &str| report[name].as_u64().unwrap();
    let failed = report["failed"].as_array().unwrap().len() as u64;
    let [photos, added, changed] = ["photos", "added", "changed"].map(number);
    let [moved, deleted, unchanged] = ["moved", "deleted", "unchanged"].map(number);
    [photos, added, changed, moved, deleted, unchanged, failed]
}

fn images(answer: &Value) -> Vec<String> {
    answer["hits"].as_array().unwrap().iter().map(|hit| hit["image"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_index_follows_its_folder() {
    let world = World::new();
    let photos = world.photos();
    let before: Vec<Vec<u8>> = photos.iter().map(|path| std::fs::read(path).unwrap()).collect();
    std::fs::write(world.path("photos/broken.jpg"), "no picture").unwrap();
    assert_eq!(counts(&world.index()), [12, 12, 0, 0, 0, 0, 1]);
    assert_eq!(counts(&world.index()), [12, 0, 0, 0, 0, 12, 1]);
    let same = world.search(&["a red circle", "--all", "-n", "20"]);
    assert_eq!(images(&same).len(), 12);

    // Renamed, moved, copied, deleted, changed, mended.
    let extension = photos[0].extension().unwrap().to_str().unwrap().to_owned();
    let named = |name: &str| PathBuf::from(world.path(&format!("photos/{name}.{extension}")));
    std::fs::create_dir(world.path("photos/sub")).unwrap();
    std::fs::rename(&photos[0], named("renamed")).unwrap();
    std::fs::rename(&photos[1], named("sub/moved")).unwrap();
    std::fs::copy(&photos[2], named("copy")).unwrap();
    std::fs::remove_file(&photos[3]).unwrap();
    std::fs::write(&photos[4], &before[3][..]).unwrap();
    std::fs::remove_file(world.path("photos/broken.jpg")).unwrap();
    let report = world.index();
    // The content of photo 3 is known, so photo 4 changed without being read by the network.
    assert_eq!(counts(&report), [12, 1, 1, 2, 1, 8, 0]);
    assert_eq!(counts(&world.index()), [12, 0, 0, 0, 0, 12, 0]);
    let after = world.search(&["a red circle", "--all", "-n", "20"]);
    let found = images(&after);
    assert!(found.iter().any(|path| path.ends_with(&format!("photos/sub/moved.{extension}"))), "{found:?}");
    assert!(found.iter().all(|path| Path::new(path).exists()));
    // A moved photo keeps its number, its score and its reasons.
    let hit = |answer: &Value, path: &Path| {
        let hits = answer["hits"].as_array().unwrap();
        let mut hit = hits.iter().find(|hit| hit["image"] == path.to_str().unwrap()).unwrap().clone();
        hit["image"] = Value::Null;
        hit
    };
    let (root, moved) =
        (photos[1].parent().unwrap().canonicalize().unwrap(), named("sub/moved").canonicalize().unwrap());
    assert_eq!(hit(&same, &root.join(photos[1].file_name().unwrap())), hit(&after, &moved));
    // Photos were only read.
    assert_eq!(std::fs::read(named("renamed")).unwrap(), before[0]);
    assert_eq!(std::fs::read(&photos[5]).unwrap(), before[5]);

    // The whole folder elsewhere: nothing is read anew.
    std::fs::rename(world.path("photos"), world.path("elsewhere")).unwrap();
    let report = json(&["index", &world.path("elsewhere"), "-o", &world.path("index")]);
    assert_eq!(counts(&report), [12, 0, 0, 0, 0, 12, 0]);
    assert!(images(&world.search(&["blue", "--all"]))[0].contains("elsewhere"));
    // All gone, or a disk that is not there: the index stays as it was.
    std::fs::remove_dir_all(world.path("elsewhere")).unwrap();
    fails(&["index", &world.path("elsewhere"), "-o", &world.path("index")], 1, "is no folder");
    std::fs::create_dir(world.path("elsewhere")).unwrap();
    fails(&["index", &world.path("elsewhere"), "-o", &world.path("index")], 1, "knows 12 photos of it; bring back");
    assert_eq!(images(&world.search(&["blue", "--all", "-n", "20"])).len(), 12);
    std::fs::write(world.path(&format!("elsewhere/one.{extension}")), &before[0]).unwrap();
    let report = json(&["index", &world.path("elsewhere"), "-o", &world.path("index")]);
    assert_eq!(counts(&report), [1, 0, 0, 1, 11, 0, 0]);
}

#[test]
fn hits_say_why_and_filters_hold() {
    let world = World::new();
    world.index();
    let answer = world.search(&["a RED circle, zyzzyva!", "-n", "3"]);
    assert_eq!(answer["known"], serde_json::json!(["a", "red", "circle"]));
    assert_eq!(answer["unknown"], serde_json::json!(["zyzzyva"]));
    assert_eq!(answer["hits"].as_array().unwrap().len(), 3);
    for hit in answer["hits"].as_array().unwrap() {
        let words = hit["words"].as_array().unwrap();
        assert_eq!(words.len(), 3);
        let sum: f64 = words.iter().map(|word| word["score"].as_f64().unwrap()).sum();
        assert!((sum - hit["score"].as_f64().unwrap()).abs() < 1e-4, "{hit}");
        let (width, height) = (hit["width"].as_f64().unwrap(), hit["height"].as_f64().unwrap());
        for word in words {
            let corner = |i: usize| word["box"][i].as_f64().unwrap();
            assert!(0.0 <= corner(0) && corner(0) < corner(2) && corner(2) <= width, "{word}");
            assert!(0.0 <= corner(1) && corner(1) < corner(3) && corner(3) <= height, "{word}");
        }
    }
    // A photo is nearest to itself, and so is its whole box.
    let photo = world.photos()[7].canonicalize().unwrap();
    let photo = photo.to_str().unwrap();
    assert_eq!(images(&world.search(&["--photo", photo, "--all"]))[0], photo);
    assert_eq!(images(&world.search(&["--photo", photo, "--box", "0,0,9999,9999", "--all"])).len(), 10);
    // Turning away from a word takes its score off.
    let with = world.search(&["circle", "--all", "-n", "12"]);
    let without = world.search(&["square", "--not", "circle", "--all", "-n", "12"]);
    assert_ne!(images(&with), images(&without));
    assert_eq!(without["hits"][0]["words"].as_array().unwrap().len(), 1);
    // What asks for nothing that can be seen has no answer.
    assert_eq!(world.search(&["a red circle"])["answered"], true);
    assert_eq!(world.search(&["a red circle", "--not", "a red circle"])["answered"], false);
    assert_eq!(world.search(&["of the"])["answered"], false);
    // Filters.
    let n = |arguments: &[&str]| world.search(&[&["red", "--all", "-n", "50"], arguments].concat())["searched"].clone();
    assert_eq!(n(&[]), 12);
    assert_eq!(n(&["--from", "2000", "--min-size", "1x1"]), 12);
    assert_eq!(n(&["--until", "2000"]), 0);
    assert_eq!(n(&["--max-size", "3x3"]), 0);
    // Paths for pipes.
    let output = sightline(&["search", "red", "--all", "-n", "2", "-0", "--index", &world.path("index"), "--quiet"]);
    assert_eq!(output.stdout.iter().filter(|&&byte| byte == 0).count(), 2);
    assert!(output.stdout.ends_with(b"\0") && !output.stdout.contains(&b'\n'));
}

#[test]
fn copies_are_one_hit() {
    let world = World::new();
    let photo = world.photos()[2].clone();
    std::fs::copy(&photo, world.path("photos/again.png")).unwrap();
    assert_eq!(counts(&world.index())[0], 13);
    let answer = world.search(&["--photo", photo.to_str().unwrap(), "-n", "20"]);
    let duplicates = answer["hits"][0]["duplicates"].as_array().unwrap();
    assert!(!duplicates.is_empty(), "{answer}");
    assert_eq!(images(&world.search(&["red", "--all", "-n", "20"])).len(), 13);
}

#[test]
fn many_copies_leave_room_for_others() {
    let world = World::new();
    let photo = world.photos()[2].clone();
    world.index();
    let question = ["--photo", photo.to_str().unwrap(), "-n", "10"];
    let before = world.search(&question)["hits"].as_array().unwrap().len();
    assert!(before >= 3, "{before}");
    // More than are looked at before photos are folded.
    for i in 0..60 {
        std::fs::copy(&photo, world.path(&format!("photos/copy-{i}.png"))).unwrap();
    }
    assert_eq!(counts(&world.index())[0], 72);
    let answer = world.search(&question);
    assert_eq!(answer["hits"].as_array().unwrap().len(), before, "{answer}");
    assert!(answer["hits"][0]["duplicates"].as_array().unwrap().len() >= 60, "{answer}");
}

#[test]
fn filters_name_what_there_is() {
    let world = World::new();
    std::fs::create_dir(world.path("photos/sub")).unwrap();
    std::fs::rename(&world.photos()[0], world.path("photos/sub/photo.png")).unwrap();
    world.index();
    let n = |folder: &str| world.search(&["red", "--all", "--folder", folder])["searched"].clone();
    let whole = Path::new(&world.path("photos")).canonicalize().unwrap();
    for folder in ["sub", "sub/", "./sub", "/sub", &world.path("photos/sub"), whole.join("sub").to_str().unwrap()] {
        assert_eq!(n(folder), 1, "{folder}");
    }
    for folder in ["", ".", whole.to_str().unwrap()] {
        assert_eq!(n(folder), 12, "{folder}");
    }
    let index = world.path("index");
    let search = |arguments: &[&str], part: &str| {
        fails(&[&["search", "red", "--index", &index], arguments].concat(), 2, part);
    };
    for folder in ["nonexist", "su", "sub/photo.png", "..", "/etc"] {
        search(&["--folder", folder], &format!("below the folder {folder};"));
    }
    search(&["--from", "2024", "--until", "2023"], "from 2024 until 2023");
    search(&["--min-size", "9x9", "--max-size", "8x20"], "no photo is both");
    let none = sightline(&["search", "red", "--index", &index, "-n", "0"]);
    assert_eq!((none.status.code(), none.stdout.len()), (Some(2), 0));
}

#[test]
fn what_the_command_line_says_is_remembered_when_it_is_right() {
    let world = World::new();
    world.index();
    let (photos, index) = (world.path("photos"), world.path("index"));
    // Nothing is to be done, and what is wrong is told all the same.
    fails(&["index", &photos, "-o", &index, "--backbone", "nosuch.onnx"], 1, "nosuch.onnx");
    fails(&["index", &photos, "-o", &index, "--proposals", "nanodet=nosuch.onnx"], 1, "nosuch.onnx");
    fails(&["index", &photos, "-o", &index, "--proposals", "builtin"], 1, "do not make the vectors");
    let new = Photo::uniform(64, 48, [200, 30, 30]).encode_png().unwrap();
    std::fs::write(world.path("photos/new.png"), new).unwrap();
    assert_eq!(counts(&json(&["index", &photos, "-o", &index])), [13, 1, 0, 0, 0, 12, 0]);
    // The same as before is right.
    let same = json(&["index", &photos, "-o", &index, "--backbone", "pixels", "--proposals", "selective_search"]);
    assert_eq!(counts(&same), [13, 0, 0, 0, 0, 13, 0]);
}

#[test]
fn another_folder_does_not_take_the_place_of_the_first() {
    let world = World::new();
    world.index();
    let (other, index) = (world.path("other"), world.path("index"));
    scenes::write_pictures(&scenes::generate(4, 5), Path::new(&other)).unwrap();
    fails(&["index", &other, "-o", &index], 1, "name another index with -o");
    // Not even a part of it.
    std::fs::create_dir(world.path("photos/sub")).unwrap();
    std::fs::rename(&world.photos()[0], world.path("photos/sub/photo.png")).unwrap();
    fails(&["index", &world.path("photos/sub"), "-o", &index], 1, "0 of its 12 photos are in");
    assert_eq!(counts(&world.index()), [12, 0, 0, 1, 0, 11, 0]);
    assert!(images(&world.search(&["red", "--all"])).iter().all(|image| image.contains("/photos/")));
}

#[test]
fn lost_vectors_are_computed_again() {
    let world = World::new();
    world.index();
    let new = Photo::uniform(64, 48, [200, 30, 30]).encode_png().unwrap();
    std::fs::write(world.path("photos/new.png"), new).unwrap();
    assert_eq!(counts(&world.index()), [13, 1, 0, 0, 0, 12, 0]);
    let ask = || {
        let mut answer = world.search(&["a red circle", "--all", "-n", "20"]);
        let hits = answer["hits"].as_array_mut().unwrap();
        hits.iter_mut().for_each(|hit| hit["id"] = Value::Null);
        hits.sort_by_key(|hit| hit["image"].to_string());
        answer
    };
    let before = ask();
    let (photos, index) = (world.path("photos"), world.path("index"));
    let file = |number: u32| PathBuf::from(&index).join(format!("vectors-{number:06}.slv"));
    let damage = |number: u32| {
        let mut bytes = std::fs::read(file(number)).unwrap();
        bytes[100..104].copy_from_slice(b"oops");
        std::fs::write(file(number), bytes).unwrap();
    };
    let mended = |reason: &str, n_lost: u64| {
        fails(&["search", "red", "--index", &index], 1, "run `sightline index` again");
        let output = sightline(&["index", &photos, "-o", &index, "--json"]);
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{talk}");
        assert!(talk.contains(reason) && talk.contains("computed again"), "{talk}");
        assert!(!talk.contains("run `sightline index`"), "{talk}");
        let report = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(counts(&report), [13, n_lost, 0, 0, 0, 13 - n_lost, 0]);
        assert_eq!(ask(), before);
    };
    damage(2);
    mended("its checksum differs", 1);
    damage(1);
    mended("its checksum differs", 12);
    std::fs::remove_file(file(2)).unwrap();
    // Which photos it held depends on what was merged.
    let output = sightline(&["index", &photos, "-o", &index]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("missing"), "{output:?}");
    assert_eq!(ask(), before);
    for number in 1..9 {
        let _ = std::fs::remove_file(file(number));
    }
    mended("missing", 13);
}

#[test]
fn a_photo_keeps_its_own_date() {
    let world = World::new();
    world.index();
    let date = |name: &str, seconds: u64| {
        let file = std::fs::File::options().write(true).open(world.path(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    };
    let first = Photo::uniform(64, 48, [200, 30, 30]).encode_png().unwrap();
    std::fs::write(world.path("photos/a.png"), &first).unwrap();
    date("photos/a.png", 1_577_880_000); // 2020-01-01
    world.index();
    // A copy, and the photo itself touched.
    std::fs::write(world.path("photos/b.png"), &first).unwrap();
    date("photos/b.png", 1_641_038_400); // 2022-01-01
    date("photos/a.png", 1_609_502_400); // 2021-01-01
    assert_eq!(counts(&world.index()), [14, 1, 0, 0, 0, 13, 0]);
    json(&["index", &world.path("photos"), "-o", &world.path("fresh"), "--model", &world.path("model.ckpt")]);
    let dates = |index: &str| {
        let answer = json(&["search", "red", "--index", &world.path(index), "--all", "-n", "50"]);
        let of = |hit: &Value| (hit["image"].as_str().unwrap().to_owned(), hit["taken"].as_str().unwrap().to_owned());
        let mut dates: Vec<(String, String)> = answer["hits"].as_array().unwrap().iter().map(of).collect();
        dates.sort();
        dates
    };
    let updated = dates("index");
    assert_eq!(updated, dates("fresh"));
    let of = |name: &str| updated.iter().find(|(image, _)| image.ends_with(name)).unwrap().1.clone();
    assert_eq!([of("/a.png"), of("/b.png")], ["2021-01-01", "2022-01-01"]);
}

/// The program in a folder of caches of its own.
fn with_caches(world: &World, arguments: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sightline"));
    program.env("SIGHTLINE_CACHE", world.path("cache")).args(arguments);
    program
}

#[test]
fn a_folder_is_searched_with_the_model_that_was_named() {
    let world = World::new();
    world.write_model("other.ckpt", 2);
    let (photos, model, other) = (world.path("photos"), world.path("model.ckpt"), world.path("other.ckpt"));
    let talk = |arguments: &[&str]| {
        let output = with_caches(&world, arguments).output().unwrap();
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {talk}");
        talk + &String::from_utf8_lossy(&output.stdout)
    };
    assert!(talk(&["index", &photos, "--model", &model]).contains("12 added"));
    // It is found, and another model has another index.
    let found = talk(&["search", "red", &photos, "--model", &model, "--json"]);
    assert!(!found.contains("added") && found.contains("\"searched\":12"), "{found}");
    assert!(talk(&["search", "red", &photos, "--model", &other]).contains("12 added"));
    assert!(talk(&["index", &photos, "--model", &model]).contains("12 as before"));
    let mut wrong = with_caches(&world, &["search", "red", &photos, "--model", &model, "--backbone", "nosuch.onnx"]);
    let output = wrong.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("nosuch.onnx"), "{output:?}");
}

/// Asks a program to stop as Ctrl-C does; what it said since on its stderr.
#[cfg(unix)]
fn interrupt(mut child: Child, mut said: impl std::io::Read) -> String {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    child.wait().unwrap();
    rest
}

#[cfg(unix)]
#[test]
fn a_server_of_a_folder_ends_without_talk_of_steps() {
    let world = World::new();
    let (photos, model) = (world.path("photos"), world.path("model.ckpt"));
    let mut serve = with_caches(&world, &["serve", &photos, "--model", &model, "--port", "0", "--json"]);
    let mut child = serve.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut record = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut record).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut before = String::new();
    while !before.contains("open http://") {
        assert!(said.read_line(&mut before).unwrap() > 0, "{before}");
    }
    assert!(before.contains("12 added"), "{before}");
    assert!(before.contains(record["url"].as_str().unwrap()), "{record}: {before}");
    let rest = interrupt(child, said);
    assert!(!rest.contains("stopping after this step"), "{rest}");
}

#[cfg(unix)]
#[test]
fn a_quiet_run_that_is_stopped_says_one_line() {
    let world = World::new();
    for i in 0..400u32 {
        let photo = Photo::uniform(160 + i, 120, [i as u8, 255 - i as u8, (i * 7) as u8]);
        std::fs::write(world.path(&format!("photos/more-{i:03}.png")), photo.encode_png().unwrap()).unwrap();
    }
    let (photos, index, model) = (world.path("photos"), world.path("index"), world.path("model.ckpt"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_sightline"))
        .args(["index", &photos, "-o", &index, "--model", &model, "--quiet"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = child.stderr.take().unwrap();
    // With the first batch the handler is there for sure.
    let start = Instant::now();
    while !Path::new(&index).join("vectors-000001.slv").exists() {
        assert!(start.elapsed() < Duration::from_secs(120), "no batch was written");
        std::thread::sleep(Duration::from_millis(2));
    }
    let rest = interrupt(child, said);
    assert!(rest.is_empty() || rest == "sightline: stopped; the same command goes on from here\n", "{rest}");
}

#[test]
fn mistakes_get_one_line() {
    let world = World::new();
    let (photos, index, model) = (world.path("photos"), world.path("index"), world.path("model.ckpt"));
    fails(&["search", "red", "--index", &index], 1, "holds no index");
    fails(&["index", &photos, "-o", &index, "--model", &world.path("absent")], 1, "absent");
    assert!(!Path::new(&index).exists(), "nothing is left of a failed start");
    fails(&["index", &world.path("absent"), "-o", &index, "--model", &model], 1, "is no folder");
    std::fs::create_dir(world.path("empty")).unwrap();
    fails(&["index", &world.path("empty"), "-o", &index, "--model", &model], 1, "holds no photo");
    world.index();

    let search = |arguments: &[&str], code: i32, part: &str| {
        fails(&[&["search", "--index", &index], arguments].concat(), code, part);
    };
    search(&[], 2, "nothing is asked");
    search(&[""], 2, "nothing is asked");
    search(&[" \t.,!"], 2, "nothing is asked");
    search(&["🐕🐈"], 2, "nothing is asked");
    search(&["zyzzyva כלב"], 1, "knows none of these words: zyzzyva, כלב");
    search(&[&"red ".repeat(10_000)], 2, "10000 words");
    search(&["red", "--photo", &world.path("absent.jpg")], 1, "absent.jpg");
    search(&["--photo", &model], 1, "not a picture");
    search(&["red", "--from", "yesterday"], 2, "yesterday");
    for (corners, part) in [
        ("500,500,600,600", "outside of the photo"),
        ("100,100,10,10", "less than a pixel"),
        ("10,10,10.5,90", "less than a pixel"),
    ] {
        search(&["--photo", world.photos()[0].to_str().unwrap(), "--box", corners], 2, part);
    }
    for (option, value) in [("--box", "1,2,3"), ("--min-size", "800")] {
        let photo = world.photos()[0].to_str().unwrap().to_owned();
        let output = sightline(&["search", "--index", &index, "--photo", &photo, option, value]);
        assert_eq!(output.status.code(), Some(2), "{option} {value}");
    }

    // Another model, another encoding, another indexer.
    world.write_model("other.ckpt", 2);
    fails(&["index", &photos, "-o", &index, "--model", &world.path("other.ckpt")], 1, "another model");
    search(&["red", "--model", &world.path("other.ckpt")], 1, "not the model");
    fails(&["index", &photos, "-o", &index, "--encoding", "int8"], 1, "F16");
    let lock = sightline::index::build::Lock::take(Path::new(&index)).unwrap();
    fails(&["index", &photos, "-o", &index], 1, "is being written by another");
    drop(lock);
    std::fs::rename(&model, world.path("hidden.ckpt")).unwrap();
    search(&["red"], 1, "--model");
    world.search(&["red", "--model", &world.path("hidden.ckpt")]);
}

#[test]
fn what_a_killed_run_left_is_swept_up() {
    let world = World::new();
    world.index();
    let index = PathBuf::from(world.path("index"));
    let before = world.search(&["red", "--all"]);
    std::fs::write(index.join("vectors-000099.slv"), "half").unwrap();
    std::fs::write(index.join(".sightline-x.partial"), "half").unwrap();
    assert_eq!(world.search(&["red", "--all"]), before);
    world.index();
    assert!(!index.join("vectors-000099.slv").exists() && !index.join(".sightline-x.partial").exists());
    assert_eq!(world.search(&["red", "--all"]), before);
}

#[test]
fn int8_ranks_like_f16_and_the_same_folder_gives_the_same_vectors() {
    let world = World::new();
    world.index();
    let photos = world.path("photos");
    for (name, encoding) in [("again", "f16"), ("small", "int8")] {
        let arguments = ["index", &photos, "-o", &world.path(name), "--model", &world.path("model.ckpt")];
        json(&[&arguments[..], &["--encoding", encoding]].concat());
    }
    let vectors = |name: &str| std::fs::read(world.folder.path().join(name).join("vectors-000001.slv")).unwrap();
    assert!(vectors("index") == vectors("again"));
    assert!(vectors("small").len() < vectors("index").len());
    let best =
        |name: &str| images(&json(&["search", "a red circle", "--index", &world.path(name), "--all"]))[0].clone();
    assert_eq!(best("small"), best("index"));
}

#[test]
fn any_changed_byte_is_noticed_or_changes_nothing() {
    let world = World::new();
    world.index();
    let index = PathBuf::from(world.path("index"));
    let ask = || {
        use sightline::index::search::{Request, Searcher, open_models};
        let ui = sightline::ui::Ui { json: false, quiet: true };
        let models = open_models(&index, None, None, None, false, &Device::flex(), &ui)?;
        let searcher = Searcher::open(&index, std::sync::Arc::new(models))?;
        let answer = searcher.answer(Request { text: "a red circle".into(), n: 12, ..Request::default() })?;
        let thumbnails: Vec<Vec<u8>> =
            answer.hits.iter().map(|hit| searcher.thumbnail(hit.id)).collect::<anyhow::Result<_>>()?;
        anyhow::Ok((answer, thumbnails))
    };
    let expected = ask().unwrap();
    assert_eq!(expected.0.hits.len(), 12);
    for name in ["vectors-000001.slv", "catalogue.sqlite"] {
        let path = index.join(name);
        let bytes = std::fs::read(&path).unwrap();
        let step = (bytes.len() / 150).max(1);
        let (mut noticed, mut harmless) = (0, 0);
        for at in (0..bytes.len()).step_by(step).chain(0..100) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x15;
            std::fs::write(&path, &changed).unwrap();
            match ask() {
                Ok(answer) => {
                    assert!(answer == expected, "{name}: byte {at} changed the answer unnoticed");
                    harmless += 1;
                }
                Err(_) => noticed += 1,
            }
        }
        assert!(noticed > 20, "{name}: {noticed} noticed, {harmless} harmless");
        assert!(name != "vectors-000001.slv" || harmless == 0, "every byte of the vectors counts");
        for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            // The last bytes of a catalogue may be of a page that nothing is read from.
            let same = ask().map(|answer| answer == expected).unwrap_or(false);
            assert!(ask().is_err() || (same && name == "catalogue.sqlite"), "{name} cut at {cut}");
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    assert!(ask().unwrap() == expected);
}

/// A run that is killed after its first transaction loses the batch in flight at most, and the same command goes on.
#[test]
fn a_killed_run_goes_on_where_it_was() {
    let world = World::new();
    // Three batches of 64, each picture another one.
    for i in 0..180u32 {
        let photo = Photo::uniform(160 + i, 120, [i as u8, 255 - i as u8, (i * 7) as u8]);
        std::fs::write(world.path(&format!("photos/more-{i:03}.png")), photo.encode_png().unwrap()).unwrap();
    }
    let (photos, index, model) = (world.path("photos"), world.path("index"), world.path("model.ckpt"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_sightline"))
        .args(["index", &photos, "-o", &index, "--model", &model, "--quiet"])
        .spawn()
        .unwrap();
    let known = || {
        let catalogue = sightline::index::catalogue::Catalogue::open(Path::new(&index)).ok()?;
        catalogue.photos().ok().map(|photos| photos.len())
    };
    let start = Instant::now();
    while known().unwrap_or(0) == 0 && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(120), "no batch was written");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = known().unwrap();
    assert!(before >= 64, "{before}");
    // What is there can be asked; what is not there yet is made by the same command, and nothing twice.
    assert_eq!(images(&world.search(&["red", "--all", "-n", "500"])).len(), before);
    let report = world.index();
    assert_eq!(counts(&report), [192, 192 - before as u64, 0, 0, 0, before as u64, 0]);
    // The same as if it had never been killed.
    json(&["index", &photos, "-o", &world.path("whole"), "--model", &model]);
    let ask = |index: &str| {
        let mut answer = json(&["search", "a red circle", "--index", &world.path(index), "--all", "-n", "500"]);
        let hits = answer["hits"].as_array_mut().unwrap();
        hits.iter_mut().for_each(|hit| hit["id"] = Value::Null);
        hits.sort_by_key(|hit| hit["image"].to_string());
        answer
    };
    assert_eq!(ask("index"), ask("whole"));
}

/// Runs the program so that no file of its grows beyond some bytes, as on a disk that is full.
fn with_little_disk(bytes: u64, arguments: &[&str]) -> Output {
    // SIGXFSZ is ignored, so that writes fail instead.
    let blocks = bytes.div_ceil(512);
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_sightline")]).args(arguments).output().unwrap()
}

#[test]
fn a_full_disk_is_one_line_and_harms_nothing() {
    let world = World::new();
    let (photos, index, model) = (world.path("photos"), world.path("index"), world.path("model.ckpt"));
    let arguments = ["index", &photos, "-o", &index, "--model", &model, "--quiet"];
    let fails_with = |bytes: u64| {
        let output = with_little_disk(bytes, &arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{bytes}: {message}");
        assert_eq!(message.lines().count(), 1, "{bytes}: {message}");
        assert!(!message.contains("panicked"), "{bytes}: {message}");
    };
    // Not even a catalogue; a catalogue without photos.
    for bytes in [0, 512, 4096, 24 << 10] {
        fails_with(bytes);
    }
    assert_eq!(counts(&world.index())[0], 12);
    let before = world.search(&["red", "--all", "-n", "20"]);
    // An index that grows: what was there stays as it was.
    for i in 0..40u32 {
        let photo = Photo::uniform(200 + i, 150, [i as u8, 3 * i as u8, 90]);
        std::fs::write(world.path(&format!("photos/more-{i:03}.png")), photo.encode_png().unwrap()).unwrap();
    }
    fails_with(512);
    assert_eq!(world.search(&["red", "--all", "-n", "20"]), before);
    assert_eq!(counts(&world.index()), [52, 40, 0, 0, 0, 12, 0]);
}

#[test]
fn two_indexers_at_once_leave_one_index() {
    let world = World::new();
    let (photos, index, model) = (world.path("photos"), world.path("index"), world.path("model.ckpt"));
    let start = || {
        Command::new(env!("CARGO_BIN_EXE_sightline"))
            .args(["index", &photos, "-o", &index, "--model", &model, "--quiet", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..4).map(|_| start()).collect();
    let outputs: Vec<Output> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let (done, refused): (Vec<Output>, Vec<Output>) = outputs.into_iter().partition(|output| output.status.success());
    assert!(!done.is_empty());
    for output in refused {
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains("is being written by another") && message.lines().count() == 1, "{message}");
    }
    assert_eq!(counts(&world.index()), [12, 0, 0, 0, 0, 12, 0]);
    assert_eq!(images(&world.search(&["red", "--all", "-n", "50"])).len(), 12);
}

#[cfg(unix)]
#[test]
fn traps_in_a_folder_are_passed_over() {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    let world = World::new();
    let (root, photos) = (PathBuf::from(world.path("photos")), world.photos());
    let odd = root.join(std::ffi::OsStr::from_bytes(b"\xff\xfe caf\xe9.png"));
    std::fs::copy(&photos[0], &odd).unwrap();
    // The folder itself may have such a name.
    let named = PathBuf::from(world.path("")).join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    std::fs::create_dir(&named).unwrap();
    std::fs::copy(&photos[0], named.join("photo.png")).unwrap();
    let mut search =
        with_caches(&world, &["search", "red", "--print0", "--quiet", "--model", &world.path("model.ckpt")]);
    let found = search.arg(&named).output().unwrap();
    assert_eq!(found.stdout, [named.join("photo.png").as_os_str().as_bytes(), b"\0"].concat(), "{found:?}");
    std::fs::create_dir_all(root.join("folder.jpg/deep")).unwrap();
    symlink("..", root.join("folder.jpg/up")).unwrap();
    symlink(&root, root.join("folder.jpg/deep/loop")).unwrap();
    symlink("self.jpg", root.join("self.jpg")).unwrap();
    symlink("nowhere.jpg", root.join("broken.jpg")).unwrap();
    assert!(Command::new("mkfifo").arg(root.join("pipe.jpg")).status().unwrap().success());
    std::fs::write(root.join("empty.jpg"), "").unwrap();
    std::fs::create_dir(root.join("closed")).unwrap();
    std::fs::copy(&photos[1], root.join("closed/photo.png")).unwrap();
    std::fs::set_permissions(root.join("closed"), std::fs::Permissions::from_mode(0o000)).unwrap();
    // Who may read everything (root) finds the photo in the closed folder too.
    let opened = u64::from(std::fs::read_dir(root.join("closed")).is_ok());
    let report =
        json(&["index", root.to_str().unwrap(), "-o", &world.path("index"), "--model", &world.path("model.ckpt")]);
    std::fs::set_permissions(root.join("closed"), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(counts(&report), [13 + opened, 13 + opened, 0, 0, 0, 0, 1]);
    assert!(report["failed"][0]["image"].as_str().unwrap().ends_with("empty.jpg"), "{report}");
    assert!(report["passed_over"].as_array().unwrap().len() >= 2, "{report}");
    // A name that is no UTF-8 comes out of a pipe as it is.
    let arguments = ["search", "red", "--all", "-n", "50", "-0", "--index", &world.path("index"), "--quiet"];
    let output = sightline(&arguments);
    let paths: Vec<&[u8]> = output.stdout.split(|&byte| byte == 0).collect();
    assert!(paths.contains(&odd.canonicalize().unwrap().as_os_str().as_bytes()));
}

/// The program's report as somebody has it who may not read everything, as root may.
#[cfg(unix)]
fn index_as_somebody(world: &World) -> Value {
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::process::CommandExt as _;
    const NOBODY: u32 = 65_534;

    let (photos, index, model) = (world.path("photos"), world.path("index"), world.path("model.ckpt"));
    let mut program = Command::new(env!("CARGO_BIN_EXE_sightline"));
    let copied = Path::new(&world.path("program")).exists();
    if copied || std::fs::metadata(&photos).unwrap().uid() == 0 {
        // Another user may not come to where the program was built.
        std::fs::copy(env!("CARGO_BIN_EXE_sightline"), world.path("program")).unwrap();
        let owner = format!("{NOBODY}:{NOBODY}");
        assert!(Command::new("chown").args(["-R", &owner, &world.path("")]).status().unwrap().success());
        program = Command::new(world.path("program"));
        program.uid(NOBODY).gid(NOBODY);
    }
    let output = program.args(["index", &photos, "-o", &index, "--model", &model, "--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[cfg(unix)]
#[test]
fn what_cannot_be_read_for_a_while_is_not_given_up() {
    use std::os::unix::fs::PermissionsExt as _;

    let world = World::new();
    let allow = |name: &str, mode: u32| {
        std::fs::set_permissions(world.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let write = |name: &str, photo: &Photo| std::fs::write(world.path(name), photo.encode_png().unwrap()).unwrap();
    std::fs::create_dir(world.path("photos/sub")).unwrap();
    std::fs::rename(&world.photos()[0], world.path("photos/sub/photo.png")).unwrap();
    write("photos/new.png", &Photo::uniform(64, 48, [200, 30, 30]));
    std::fs::write(world.path("photos/broken.png"), "no picture").unwrap();

    // A new photo.
    allow("photos/new.png", 0o000);
    assert_eq!(counts(&index_as_somebody(&world)), [12, 12, 0, 0, 0, 0, 2]);
    assert_eq!(counts(&index_as_somebody(&world)), [12, 0, 0, 0, 0, 12, 2]);
    allow("photos/new.png", 0o644);
    assert_eq!(counts(&index_as_somebody(&world)), [13, 1, 0, 0, 0, 12, 1]);
    // One that changed.
    write("photos/new.png", &Photo::uniform(65, 48, [30, 200, 30]));
    allow("photos/new.png", 0o000);
    assert_eq!(counts(&index_as_somebody(&world)), [13, 0, 0, 0, 0, 12, 2]);
    allow("photos/new.png", 0o644);
    assert_eq!(counts(&index_as_somebody(&world)), [13, 0, 1, 0, 0, 12, 1]);
    // A folder.
    allow("photos/sub", 0o000);
    let report = index_as_somebody(&world);
    assert_eq!(counts(&report), [13, 0, 0, 0, 0, 13, 1]);
    assert_eq!(report["passed_over"].as_array().unwrap().len(), 1, "{report}");
    allow("photos/sub", 0o755);
    assert_eq!(counts(&index_as_somebody(&world)), [13, 0, 0, 0, 0, 13, 1]);
    // A folder that is gone is gone.
    std::fs::remove_dir_all(world.path("photos/sub")).unwrap();
    assert_eq!(counts(&index_as_somebody(&world)), [12, 0, 0, 0, 1, 12, 1]);
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_read_is_one_line() {
    use std::os::unix::fs::PermissionsExt as _;

    let world = World::new();
    let closed = world.path("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
    let message = if std::fs::read_dir(&closed).is_ok() { "holds no photo" } else { "cannot read" };
    fails(&["index", &closed, "-o", &world.path("index"), "--model", &world.path("model.ckpt")], 1, message);
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o755)).unwrap();
    // An index where no index can be.
    std::fs::write(world.path("file"), "").unwrap();
    let model = world.path("model.ckpt");
    fails(&["index", &world.path("photos"), "-o", &world.path("file/index"), "--model", &model], 1, "cannot make");
}

#[test]
fn an_index_of_another_version_is_refused() {
    let world = World::new();
    world.index();
    let index = PathBuf::from(world.path("index"));
    let expect = |part: &str| {
        fails(&["search", "red", "--index", index.to_str().unwrap()], 1, part);
        fails(&["index", &world.path("photos"), "-o", index.to_str().unwrap()], 1, part);
    };
    // SQLite keeps the version in the four bytes at 60 of its header.
    let catalogue = index.join("catalogue.sqlite");
    let bytes = std::fs::read(&catalogue).unwrap();
    let mut other = bytes.clone();
    other[60..64].copy_from_slice(&99u32.to_be_bytes());
    std::fs::write(&catalogue, other).unwrap();
    expect("version 99");
    for text in ["", "no database"] {
        std::fs::write(&catalogue, text).unwrap();
        expect("");
    }
    std::fs::write(&catalogue, bytes).unwrap();
    std::fs::remove_file(index.join("vectors-000001.slv")).unwrap();
    fails(&["search", "red", "--index", index.to_str().unwrap()], 1, "vectors-000001.slv");
}

#[test]
fn a_model_that_knows_what_fits_says_when_nothing_does() {
    let world = World::new();
    for (name, floor, answered) in [("sure", 1e6, false), ("easy", -1e6, true)] {
        let (model, index) = (world.path(&format!("{name}.ckpt")), world.path(&format!("{name}.index")));
        world.write_model_with_floor(&format!("{name}.ckpt"), 1, Some(floor));
        json(&["index", &world.path("photos"), "-o", &index, "--model", &model]);
        let answer = json(&["search", "--index", &index, "a red circle"]);
        assert_eq!((answer["answered"].as_bool(), answer["floor"].as_f64()), (Some(answered), Some(floor)), "{answer}");
        assert!(!answer["hits"].as_array().unwrap().is_empty(), "the nearest photos are shown all the same");
        // What is not asked in words alone is measured otherwise.
        let with_minus = json(&["search", "--index", &index, "a red circle", "--not", "blue"]);
        assert!(with_minus["score_per_word"].is_null() && with_minus["answered"] == true, "{with_minus}");
    }
}
