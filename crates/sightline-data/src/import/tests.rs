use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::{Error, summary};

/// A folder with these files; photos hold one byte, which the import does not look at.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        put(folder.path(), name, content.as_bytes());
    }
    folder
}

fn put(folder: &Path, name: &str, content: &[u8]) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn photos(folder: &Path, names: impl IntoIterator<Item = impl AsRef<str>>) {
    names.into_iter().for_each(|name| put(folder, name.as_ref(), b"x"));
}

/// One line a photo: `path split: sentence tokens | sentence tokens`.
fn told(imported: &Imported) -> Vec<String> {
    let tokens = |image: &crate::Image| {
        let sentences: Vec<String> = image.sentences.iter().map(|s| s.tokens.join(" ")).collect();
        format!("{} {}: {}", image.path, image.split, sentences.join(" | "))
    };
    imported.dataset.images.iter().map(tokens).collect()
}

fn problems(imported: &Imported) -> Vec<(ProblemKind, u64)> {
    imported.problems.iter().map(|(kind, counted)| (kind, counted.count)).collect()
}

fn defaults() -> ImportOptions {
    ImportOptions::default()
}

fn check_error(result: Result<Imported>, expected: &[&str]) {
    let error = result.expect_err(&format!("{expected:?}")).to_string();
    for part in expected {
        assert!(error.contains(part), "expected {part:?} in: {error}");
    }
    assert!(!error.contains('\n'), "one line: {error}");
}

/// Saves, loads and compares: whatever is imported is a dataset.
fn check_saves(imported: &Imported) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dataset.json");
    imported.dataset.save(&path).unwrap();
    let loaded = Dataset::load(&path).unwrap();
    assert_eq!(loaded.images, imported.dataset.images);
    assert_eq!(loaded.pairing, imported.dataset.pairing);
}

#[test]
fn karpathy_with_every_kind_of_trouble() {
    let long = vec!["word"; 10_000].join(" ");
    let json = format!(
        r#"{{"dataset":"mine","note":1,"images":[
        {{"filename":"a.jpg","imgid":5,"split":"train","cocoid":9,"sentids":[7],"sentences":[
            {{"tokens":["his","own","Tokens"],"raw":"Other words.","imgid":5,"sentid":7}},
            {{"raw":"A t-shirt, red!","sentid":8}}, {{"tokens":["only","tokens"],"sentid":7,"mood":"x"}}]}},
        {{"filename":"b.jpg","imgid":5,"split":"dev","sentences":[{{"raw":""}},{{"raw":" . ! "}},{{"raw":"B"}}]}},
        {{"filename":"gone.jpg","split":"train","sentences":[{{"raw":"never seen"}}]}},
        {{"filename":"c.jpg","split":"restval","sentences":[]}},
        {{"filename":"d.jpg","split":"restval","sentences":[{{"raw":"..."}}]}},
        {{"filename":"e.jpg","split":"fold7","sentences":[{{"raw":"E"}}]}},
        {{"filename":"f.jpg","sentences":[{{"raw":"F"}}]}},
        {{"filename":"g.jpg","filepath":"deep/er","split":"test","sentences":[{{"raw":"{long}"}},{{"raw":"G"}}],
          "boxes":[[0,0,5,5],[3,3,3,9]]}},
        {{"filename":"a.jpg","imgid":6,"split":"test","sentences":[{{"raw":"again"}}]}}
        ],"pairing":[[7,5],[7,4000]]}}"#
    );
    let folder = folder(&[("dataset.json", &json)]);
    photos(folder.path(), ["imgs/a.jpg", "imgs/b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg", "imgs/deep/er/g.jpg"]);
    for source in [folder.path().to_owned(), folder.path().join("dataset.json")] {
        let imported = import(&source, &defaults()).unwrap();
        assert_eq!(imported.layout, Layout::Karpathy);
        assert_eq!(
            told(&imported),
            [
                "imgs/a.jpg train: his own Tokens | a tshirt red | only tokens | again",
                "imgs/b.jpg val: b",
                "imgs/deep/er/g.jpg test: g"
            ]
        );
        use ProblemKind::*;
        assert_eq!(
            problems(&imported),
            [
                (PhotoMissing, 1),
                (PhotoWithoutSentence, 2),
                (PhotoWithoutSplit, 1),
                (DuplicatePhoto, 1),
                (DuplicateId, 2),
                (UnknownPhoto, 1),
                (EmptySentence, 3),
                (LongSentence, 1),
                (UnknownSplit, 1),
                (UnknownKey, 3),
                (BadBox, 1)
            ]
        );
        let text = imported.problems.to_string();
        for part in
            ["gone.jpg", "`fold7` of e.jpg", "images.cocoid (1)", "note (1)", "10000 words of imgs/deep/er/g.jpg"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let dataset = &imported.dataset;
        assert_eq!((dataset.name.as_str(), dataset.images[0].id, dataset.images[1].id), ("mine", 5, 0));
        assert_eq!(dataset.images[0].sentences[2].raw, "only tokens");
        assert_eq!(dataset.images[2].boxes, [BoxXyxy::from([0., 0., 5., 5.])]);
        assert_eq!(dataset.pairing, [Pair { sentence: 7, image: 5 }]);
        check_saves(&imported);
    }
    let kept = import(folder.path(), &ImportOptions { keep_missing: true, ..defaults() }).unwrap();
    assert_eq!(told(&kept)[2], "gone.jpg train: never seen");
    assert_eq!(kept.problems.count(ProblemKind::PhotoMissing), 1, "kept, and counted still");
}

#[test]
fn our_own_dataset_can_be_imported_again_after_editing() {
    let source = folder(&[("d.csv", "image,caption\na.jpg,A dog\n")]);
    photos(source.path(), ["a.jpg"]);
    let first = import(&source.path().join("d.csv"), &defaults()).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("x.json");
    first.dataset.save(&path).unwrap();
    let edited = std::fs::read_to_string(&path).unwrap().replace("A dog", "A cat");
    std::fs::write(&path, edited).unwrap();
    assert!(Dataset::load(&path).is_err());
    let again = import(&path, &defaults()).unwrap();
    assert_eq!(again.dataset.images[0].sentences[0].raw, "A cat");
    assert_eq!(
        again.dataset.root.join("a.jpg").canonicalize().unwrap(),
        source.path().join("a.jpg").canonicalize().unwrap()
    );
    assert!(again.problems.is_empty());
}

const COCO: &str = r#"{"info":{},"licenses":[],"images":[
    {"id":9,"file_name":"a.jpg","width":10,"height":20,"license":3,"mood":"blue"},{"id":4,"file_name":"b.jpg"},
    {"id":4,"file_name":"c.jpg"}],
    "annotations":[{"image_id":4,"id":70,"caption":"B one.\n"},{"image_id":9,"id":71,"caption":"A one"},
    {"image_id":4,"id":72,"caption":"B two"},{"image_id":1,"id":73,"caption":"nobody"},{"image_id":9,"id":74}]}"#;

#[test]
fn coco_captions_with_splits_by_name() {
    let train = r#"{"images":[{"id":1,"file_name":"t.jpg"}],"annotations":[{"image_id":1,"id":1,"caption":"T"}]}"#;
    let folder = folder(&[("annotations/captions_val2017.json", COCO), ("annotations/captions_train2017.json", train)]);
    photos(folder.path(), ["val2017/a.jpg", "val2017/b.jpg", "val2017/c.jpg", "train2017/t.jpg"]);
    for source in [folder.path().to_owned(), folder.path().join("annotations")] {
        let imported = import(&source, &defaults()).unwrap();
        assert_eq!(imported.layout, Layout::CocoCaptions);
        assert_eq!(
            told(&imported),
            ["train2017/t.jpg train: t", "val2017/a.jpg val: a one", "val2017/b.jpg val: b one | b two"]
        );
        assert_eq!((imported.dataset.images[1].id, imported.dataset.images[1].sentences[0].id), (9, 71));
        assert_eq!(imported.dataset.images[2].sentences[0].raw, "B one.");
        use ProblemKind::*;
        assert_eq!(
            problems(&imported),
            [(PhotoWithoutSentence, 1), (DuplicateId, 1), (UnknownPhoto, 1), (UnknownKey, 1), (BadRecord, 1)]
        );
        assert!(imported.explanation.iter().any(|line| line == "captions_val2017.json: split val, by its name"));
        check_saves(&imported);
    }
    let one = folder.path().join("annotations/captions_val2017.json");
    let imported = import(&one, &ImportOptions { split: Some(Split::Test), ..defaults() }).unwrap();
    assert_eq!(told(&imported)[0], "val2017/a.jpg test: a one");
}

#[test]
fn flickr_tokens_with_split_lists() {
    let tokens = "1_a.jpg#0\tA dog .\n1_a.jpg#1\tThe dog runs .\r\n2_b.jpg#0\tA cat .\n2_b.jpg.1#0\tnot there\n\
                  broken line\n3_c.jpg#0\tA bird .\n4_d.jpg#0\tin no list\n";
    let folder = folder(&[
        ("Flickr8k.token.txt", tokens),
        ("Flickr_8k.trainImages.txt", "1_a.jpg\n"),
        ("Flickr_8k.devImages.txt", "2_b.jpg\n9_z.jpg\n"),
        ("Flickr_8k.testImages.txt", "3_c\n\n"),
    ]);
    photos(folder.path(), ["1_a", "2_b", "3_c", "4_d"].map(|name| format!("Flicker8k_Dataset/{name}.jpg")));
    let imported = import(folder.path(), &defaults()).unwrap();
    assert_eq!(imported.layout, Layout::FlickrTokens);
    assert_eq!(
        told(&imported),
        [
            "Flicker8k_Dataset/1_a.jpg train: a dog | the dog runs",
            "Flicker8k_Dataset/2_b.jpg val: a cat",
            "Flicker8k_Dataset/3_c.jpg test: a bird"
        ]
    );
    use ProblemKind::*;
    assert_eq!(problems(&imported), [(PhotoMissing, 1), (PhotoWithoutSplit, 1), (UnknownPhoto, 1), (BadRecord, 1)]);
    let given = ImportOptions {
        split_lists: vec![(Split::Test, folder.path().join("Flickr_8k.trainImages.txt"))],
        ..defaults()
    };
    let imported = import(&folder.path().join("Flickr8k.token.txt"), &given).unwrap();
    assert_eq!(told(&imported), ["Flicker8k_Dataset/1_a.jpg test: a dog | the dog runs"]);
    check_saves(&imported);
}

#[test]
fn tables_of_many_kinds() {
    let check = |content: &str, expected: &[&str], counted: &[(ProblemKind, u64)], explained: &str| {
        let folder = folder(&[("captions.txt", content)]);
        photos(folder.path(), ["Images/a.jpg", "Images/b.jpg"]);
        let imported = import(folder.path(), &defaults()).unwrap_or_else(|e| panic!("{content}: {e}"));
        assert_eq!(imported.layout, Layout::Table);
        assert_eq!(told(&imported), expected, "{content}");
        assert_eq!(problems(&imported), counted, "{content}");
        let explanation = imported.explanation.join("\n");
        assert!(explanation.contains(explained), "{content}: {explanation}");
    };
    use ProblemKind::*;
    // Kaggle's Flickr8k.
    check(
        "image,caption\na.jpg,\"A dog , \"\"big\"\" .\"\na.jpg,Two dogs .\nb.jpg,A cat .\n",
        &["Images/a.jpg train: a dog big | two dogs", "Images/b.jpg train: a cat"],
        &[],
        "separated by commas, the first row is the header",
    );
    // Kaggle's Flickr30k.
    check(
        "image_name| comment_number| comment\na.jpg| 0| A dog , big .\nb.jpg| 1| A cat\n",
        &["Images/a.jpg train: a dog big", "Images/b.jpg train: a cat"],
        &[(UnknownKey, 1)],
        "separated by bars",
    );
    check(
        "Text\tSplit\tFile\nA \"dog\", big\tval\ta.jpg\n\"A \"\"cat\"\"\"\ttest\tb.jpg\n",
        &["Images/a.jpg val: a dog big", "Images/b.jpg test: a cat"],
        &[],
        "photo from `File`, sentence from `Text`, split from `Split`",
    );
    check(
        "filename;caption_1;caption_2;licence\na.jpg;Ein Hund;Zwei Hunde;x\nb.jpg;Eine Katze;;y\n",
        &["Images/a.jpg train: ein hund | zwei hunde", "Images/b.jpg train: eine katze"],
        &[(UnknownKey, 1)],
        "sentence from `caption_1`, `caption_2`",
    );
    check(
        "a.jpg,A dog runs fast\nb.jpg,A cat\n",
        &["Images/a.jpg train: a dog runs fast", "Images/b.jpg train: a cat"],
        &[],
        "without a header",
    );
    check(
        "image,caption\na,A dog\nb,A cat\n",
        &["Images/a.jpg train: a dog", "Images/b.jpg train: a cat"],
        &[],
        ".jpg was added",
    );
    check(
        "\u{feff}image,caption\r\na.jpg,\r\n,nobody\r\na.jpg,one, two\r\nb.jpg\r\n\r\nb.jpg,x\r\n",
        &["Images/a.jpg train: one two", "Images/b.jpg train: x"],
        &[(EmptySentence, 1), (BadRecord, 2), (ExtraColumns, 1)],
        "commas",
    );
    check(
        "image,split,caption\na.jpg,train,x\na.jpg,test,y\nb.jpg,weekly,z\n",
        &["Images/a.jpg train: x | y"],
        &[(UnknownSplit, 1), (BadRecord, 1)],
        "split from `split`",
    );
    // Without a header most rows say how many columns there are.
    check(
        "a.jpg,a man , and a dog\na.jpg,a man\n./b.jpg,a cat\nb.jpg,two cats\n",
        &["Images/a.jpg train: a man and a dog | a man", "Images/b.jpg train: a cat | two cats"],
        &[(ExtraColumns, 1)],
        "without a header",
    );
    // Flickr30k as Hugging Face has it.
    check(
        "raw,split,filename\n\"[\"\"A dog.\"\", \"\"Two, or three.\"\"]\",train,a.jpg\n[sic],val,b.jpg\n",
        &["Images/a.jpg train: a dog | two or three", "Images/b.jpg val: sic"],
        &[],
        "sentence from `raw`",
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn any_sentence_comes_through_a_table(
        sentences in prop::collection::vec("[^\\x00]{0,40}", 1..8),
        separator in prop::sample::select(vec![b',', b';', b'|']),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        let mut writer = csv::WriterBuilder::new().delimiter(separator).from_path(&path).unwrap();
        writer.write_record(["image", "caption"]).unwrap();
        for (i, sentence) in sentences.iter().enumerate() {
            let name = format!("{i}.jpg");
            photos(folder.path(), [&name]);
            writer.write_record([&name, sentence]).unwrap();
        }
        writer.flush().unwrap();
        let expected: Vec<&str> = sentences.iter().map(|s| s.trim()).filter(|s| !tokens::tokenize(s).is_empty()).collect();
        match import(&path, &defaults()) {
            Ok(imported) => {
                let raws: Vec<&str> = imported.dataset.images.iter().map(|i| i.sentences[0].raw.as_str()).collect();
                prop_assert_eq!(&raws, &expected);
                let empty = imported.problems.count(ProblemKind::EmptySentence) as usize;
                prop_assert_eq!(raws.len() + empty, sentences.len());
            }
            Err(error) => prop_assert!(expected.is_empty(), "{}", error),
        }
    }

    #[test]
    fn any_text_is_read_or_refused(content in prop::collection::vec(any::<u8>(), 0..200), json in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        photos(folder.path(), ["a.jpg"]);
        let content = if json { [b"{\"images\":[", &content[..], b"]}"].concat() } else { content };
        put(folder.path(), "x.csv", &content);
        let result = import(&folder.path().join("x.csv"), &defaults());
        prop_assert!(result.is_err() || !result.unwrap().dataset.images.is_empty());
    }
}

#[test]
fn rows_that_are_not_utf8_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path(), ["a.jpg", "b.jpg"]);
    put(folder.path(), "x.csv", b"image,caption\na.jpg,caf\xe9\nb.jpg,fine\n");
    let imported = import(&folder.path().join("x.csv"), &defaults()).unwrap();
    assert_eq!(told(&imported), ["b.jpg train: fine"]);
    assert_eq!(problems(&imported), [(ProblemKind::NotUtf8, 1)]);
    put(folder.path(), "x.csv", b"\xff\xfei\0m\0");
    check_error(import(&folder.path().join("x.csv"), &defaults()), &["x.csv", "UTF-16: save the file as UTF-8"]);
}

#[test]
fn a_quote_that_never_closes_costs_its_own_row_only() {
    let check = |content: &str, expected: &[&str], rows: &[&str]| {
        for content in [content.to_owned(), content.replace('\n', "\r\n")] {
            let folder = folder(&[("x.csv", &content)]);
            photos(folder.path(), ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]);
            let imported = import(&folder.path().join("x.csv"), &defaults()).unwrap();
            assert_eq!(told(&imported), expected, "{content:?}");
            let bad: Vec<_> = imported.problems.iter().collect();
            assert_eq!(bad.len(), usize::from(!rows.is_empty()), "{content:?}: {bad:?}");
            if let [(kind, counted)] = &bad[..] {
                assert_eq!((*kind, counted.count), (ProblemKind::BadRecord, rows.len() as u64), "{content:?}");
                let told = counted.examples.iter().zip(rows).all(|(example, row)| {
                    example.starts_with(&format!("x.csv row {row}: ")) && example.contains("quote")
                });
                assert!(told, "{content:?}: {counted:?}");
            }
        }
    };
    let others = ["a.jpg train: a dog", "c.jpg train: two cats", "d.jpg train: snow"];
    check("image,caption\na.jpg,A dog\nb.jpg,\"A bird\nc.jpg,\"two, cats\"\nd.jpg,snow\n", &others, &["3"]);
    check("image,caption\na.jpg,A dog\nb.jpg,\"A bird\nc.jpg,two cats\nd.jpg,snow\n", &others, &["3"]);
    // Of two, the second closes what the first opened.
    check("image,caption\na.jpg,\"A dog\nb.jpg,\"A bird\nc.jpg,two cats\n", &["c.jpg train: two cats"], &["2", "3"]);
    check(
        "image,caption\na.jpg,\"A dog\nb.jpg,\"\nc.jpg,two cats\nb.jpg,x\n",
        &["c.jpg train: two cats", "b.jpg train: x"],
        &["2", "3"],
    );
    // At the end of the file, with a line break behind it and without.
    check("image,caption\na.jpg,A dog\nb.jpg,\"A bird\n", &others[..1], &["3"]);
    check("image,caption\na.jpg,A dog\nb.jpg,\"A bird", &others[..1], &["3"]);
    // Photos without an extension, and behind their sentences.
    check("image,caption\na,A dog\nb,\"A bird\nc,two cats\nd,snow\n", &others, &["3"]);
    check("caption,image\nA dog,a.jpg\n\"A bird,b.jpg\n\"two cats\",c.jpg\nsnow,d.jpg\n", &others, &["3"]);
    // A sentence of several lines is one.
    check("caption,image\n\"A\ndog\",a.jpg\n\"two\n\"\"cats\"\"\",c.jpg\nsnow,d.jpg\n", &others, &[]);
}

#[test]
fn rows_are_counted_as_an_editor_counts_lines() {
    for end in ["\n", "\r\n"] {
        let lines = ["image,caption", "a.jpg,\"two", "lines\"", "", "b.jpg", "c.jpg,x,y", ""].join(end);
        let folder = folder(&[("x.csv", &lines)]);
        photos(folder.path(), ["a.jpg", "c.jpg"]);
        let imported = import(&folder.path().join("x.csv"), &defaults()).unwrap();
        let text = imported.problems.to_string();
        assert!(text.contains("x.csv row 5: expected 2 columns, got 1"), "{text}");
        assert!(text.contains("the surplus taken into the sentence: x.csv row 6"), "{text}");
    }
}

#[test]
fn columns_can_be_named() {
    let folder = folder(&[("x.csv", "name,de,en\na.jpg,Ein großer Hund,A dog\n")]);
    photos(folder.path(), ["a.jpg"]);
    let source = folder.path().join("x.csv");
    let columns = |name: &str| Columns { sentence: Some(name.into()), ..Columns::default() };
    let imported = import(&source, &ImportOptions { columns: columns("EN"), ..defaults() }).unwrap();
    assert_eq!(told(&imported), ["a.jpg train: a dog"]);
    let wrong = import(&source, &ImportOptions { columns: columns("fr"), ..defaults() });
    check_error(wrong, &["no column `fr` for the sentence", "name, de, en"]);
}

#[test]
fn a_folder_of_photos() {
    let folder = folder(&[
        ("a.txt", "A dog .\n\n  Two dogs \n"),
        ("deep/b.jpg.txt", "A cat"),
        ("deep/alone.txt", "nobody"),
        ("deep/c.txt", ""),
        (".hidden/h.txt", "hidden"),
    ]);
    photos(folder.path(), ["a.JPG", "deep/b.jpg", "deep/c.png", "deep/silent.jpg", ".hidden/h.jpg"]);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("..", folder.path().join("deep/loop")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("deep/dangling.jpg")).unwrap();
    }
    put(folder.path(), "deep/b.jpg.txt", b"A cat\nna\xefve\n");
    let imported = import(folder.path(), &defaults()).unwrap();
    assert_eq!(imported.layout, Layout::PhotoFolder);
    assert_eq!(told(&imported), ["a.JPG train: a dog | two dogs", "deep/b.jpg train: a cat"]);
    use ProblemKind::*;
    let expected = [(PhotoWithoutSentence, 2), (UnknownPhoto, 1), (NotUtf8, 1), (Unreadable, 1)];
    assert_eq!(problems(&imported), if cfg!(unix) { &expected[..] } else { &expected[..3] });
    check_saves(&imported);

    let splits = self::folder(&[("train/a.txt", "A"), ("val/x/b.txt", "B")]);
    photos(splits.path(), ["train/a.jpg", "val/x/b.jpg"]);
    let imported = import(splits.path(), &defaults()).unwrap();
    assert_eq!(told(&imported), ["train/a.jpg train: a", "val/x/b.jpg val: b"]);
}

#[test]
fn a_source_of_another_encoding_says_so() {
    let beside = folder(&[]);
    photos(beside.path(), ["a.jpg"]);
    put(beside.path(), "a.txt", b"ein gr\xfcner Hund\n");
    put(beside.path(), "table.csv", b"image,caption\na.jpg,ein gr\xfcner Hund\n");
    for source in [beside.path().to_owned(), beside.path().join("table.csv")] {
        let error = import(&source, &defaults()).unwrap_err().to_string();
        assert!(error.contains("not UTF-8: save them as UTF-8"), "{error}");
        std::fs::remove_file(beside.path().join("table.csv")).ok();
        put(beside.path(), "table.csv", b"image,caption\na.jpg,ein gr\xfcner Hund\n");
    }
}

#[test]
fn splits_are_made_where_there_are_none() {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path(), (0..50).map(|i| format!("{i}.jpg")));
    (0..50).for_each(|i| put(folder.path(), &format!("{i}.txt"), b"words"));
    let imported = import(folder.path(), &defaults()).unwrap();
    let count = |split| imported.dataset.split(split).count();
    assert_eq!([Split::Train, Split::Val, Split::Test].map(count), [40, 5, 5]);
    assert!(imported.explanation.iter().any(|line| line.contains("made here, 80 % train")));
    let same = import(folder.path(), &defaults()).unwrap();
    assert_eq!(same.dataset, imported.dataset);
    let other = import(folder.path(), &ImportOptions { seed: 2, ..defaults() }).unwrap();
    assert_ne!(other.dataset, imported.dataset);
    let all = import(folder.path(), &ImportOptions { make_split: MakeSplit::TrainOnly, ..defaults() }).unwrap();
    assert_eq!(all.dataset.split(Split::Train).count(), 50);
}

#[test]
fn restval_is_trained_on_where_asked_for() {
    let json = r#"{"images":[{"filename":"a.jpg","split":"train","sentences":[{"raw":"A dog"}]},
        {"filename":"b.jpg","split":"restval","sentences":[{"raw":"A cat"}]},
        {"filename":"c.jpg","split":"val","sentences":[{"raw":"A bird"}]}]}"#;
    let folder = folder(&[("dataset.json", json), ("x.csv", "image,caption\na.jpg,A dog\n")]);
    photos(folder.path(), ["a.jpg", "b.jpg", "c.jpg"]);
    let source = folder.path().join("dataset.json");
    let left = import(&source, &defaults()).unwrap();
    assert_eq!(told(&left), ["a.jpg train: a dog", "b.jpg restval: a cat", "c.jpg val: a bird"]);
    assert_eq!(left.dataset.vocabulary(1).len(), 3);
    let asked = ImportOptions { train_on_restval: true, ..defaults() };
    let imported = import(&source, &asked).unwrap();
    assert_eq!(told(&imported), ["a.jpg train: a dog", "b.jpg train: a cat", "c.jpg val: a bird"]);
    assert_eq!(imported.dataset.vocabulary(1).len(), 4);
    let explained = |imported: &Imported, line: &str| imported.explanation.iter().any(|own| own.contains(line));
    assert!(explained(&imported, "1 photo of restval goes to train"), "{:?}", imported.explanation);
    let without = import(&folder.path().join("x.csv"), &asked).unwrap();
    assert!(explained(&without, "no photo is in restval"), "{:?}", without.explanation);
}

#[test]
fn a_second_text_of_a_photo_is_no_missing_photo() {
    let folder = folder(&[("e.txt", "A dog"), ("e.jpg.txt", "A cat"), ("alone.txt", "x")]);
    photos(folder.path(), ["e.jpg"]);
    let imported = import(folder.path(), &defaults()).unwrap();
    let examples = |kind| imported.problems.iter().find(|(own, _)| *own == kind).map(|(_, counted)| counted.examples);
    assert_eq!(problems(&imported), [(ProblemKind::UnknownPhoto, 1), (ProblemKind::SecondText, 1)]);
    assert_eq!(examples(ProblemKind::UnknownPhoto).unwrap(), ["alone.txt"]);
    assert_eq!(examples(ProblemKind::SecondText).unwrap(), ["e.jpg.txt beside e.txt"]);
    assert_eq!(told(&imported), ["e.jpg train: a dog"]);
    // Where the file system keeps the two apart.
    put(folder.path(), "e.TXT", b"A bird");
    if folder.path().read_dir().unwrap().count() == 5 {
        assert_eq!(problems(&import(folder.path(), &defaults()).unwrap())[1], (ProblemKind::SecondText, 2));
    }
}

#[test]
fn boxes_and_pairs_come_from_files() {
    let folder = folder(&[
        ("x.csv", "image,caption\nv/a.jpg,A\nv/b.jpg,B\n"),
        ("plain.json", r#"{"v/a.jpg":[[1,2,3,4],[5,5,5,5]],"b.jpg":[[0,0,9,9]],"z.jpg":[]}"#),
        (
            "coco.json",
            r#"{"images":[{"id":1,"file_name":"a.jpg"}],"categories":[],"annotations":[
                {"image_id":1,"bbox":[10,20,5,6],"iscrowd":0},{"image_id":1,"bbox":[0,0,5,6],"iscrowd":1},
                {"image_id":2,"bbox":[0,0,5,6]}]}"#,
        ),
        ("pairs.json", "[[1,0],[0,9]]"),
        ("broken.json", "{\"a.jpg\":[[1,2,3]]}"),
        ("short.json", r#"{"images":[{"id":1,"file_name":"a.jpg"}],"annotations":[{"image_id":1,"bbox":[10,20]}]}"#),
        ("word.json", "{\"a.jpg\":[[1,2,3,\"four\"]]}"),
    ]);
    photos(folder.path(), ["v/a.jpg", "v/b.jpg"]);
    let source = folder.path().join("x.csv");
    let with = |boxes: &str| import(&source, &ImportOptions { boxes: Some(folder.path().join(boxes)), ..defaults() });
    let imported = with("plain.json").unwrap();
    assert_eq!(imported.dataset.images[0].boxes, [BoxXyxy::from([1., 2., 3., 4.])]);
    assert_eq!(imported.dataset.images[1].boxes, [BoxXyxy::from([0., 0., 9., 9.])]);
    assert_eq!(problems(&imported), [(ProblemKind::UnknownPhoto, 1), (ProblemKind::BadBox, 1)]);
    let imported = with("coco.json").unwrap();
    assert_eq!(imported.dataset.images[0].boxes, [BoxXyxy::from([10., 20., 15., 26.])]);
    assert!(
        imported.explanation.iter().any(|l| l.contains("1 boxes of crowds left out") && l.contains("1 boxes for 1"))
    );
    assert_eq!(problems(&imported), [(ProblemKind::UnknownPhoto, 1)]);
    let place = "box 1 of a.jpg has 3 numbers, expected 4: x1, y1, x2, y2";
    check_error(with("broken.json"), &["broken.json", place]);
    let corner = "box 1 of the file, of a.jpg, has 2 numbers, expected 4: x, y, width, height";
    check_error(with("short.json"), &["short.json", corner]);
    check_error(with("word.json"), &["word.json", "line 1", "expected f32"]);
    let pairs = ImportOptions { pairing: Some(folder.path().join("pairs.json")), ..defaults() };
    let imported = import(&source, &pairs).unwrap();
    assert_eq!(imported.dataset.pairing, [Pair { sentence: 1, image: 0 }]);
    assert_eq!(problems(&imported), [(ProblemKind::UnknownPhoto, 1)]);
}

#[test]
fn unusable_sources_get_one_clear_line() {
    let folder = folder(&[
        ("empty.json", ""),
        ("broken.json", "{\"images\": [\n {\"filename\": }"),
        ("cut.json", &COCO[..200]),
        ("list.json", "[1, 2]"),
        ("other.json", "{\"questions\": [], \"answers\": {}}"),
        ("odd.json", "{\"images\": 3}"),
        ("instances.json", r#"{"images":[{"id":1,"file_name":"a"}],"annotations":[{"image_id":1,"bbox":[0,0,1,1]}]}"#),
        ("none.json", r#"{"images":[],"annotations":[]}"#),
        ("gone.json", r#"{"images":[{"filename":"x.jpg","sentences":[{"raw":"x"}]}]}"#),
        ("silent.json", r#"{"images":[{"filename":"here.jpg","sentences":[{"raw":"!"}]}]}"#),
        ("fold.json", r#"{"images":[{"filename":"here.jpg","split":"q","sentences":[{"raw":"x"}]}]}"#),
        ("typed.json", r#"{"images":[{"filename":7,"sentences":[{"raw":"x"}]}]}"#),
        ("numbers.csv", "a,b\n1,2\n"),
        ("header.csv", "image,caption\n"),
        ("packed.zip", "PK\u{3}\u{4}"),
        ("binary.bin", "\0\0\0"),
        ("void/nothing.md", ""),
        ("two/a.csv", "image,caption\n"),
        ("two/b.csv", "image,caption\n"),
    ]);
    photos(folder.path(), ["here.jpg"]);
    let check = |name: &str, expected: &[&str]| {
        check_error(import(&folder.path().join(name), &defaults()), &[&[name], expected].concat());
    };
    check("absent.json", &["cannot open"]);
    check("empty.json", &["got an empty file"]);
    check("broken.json", &["broken JSON", "line 2 column"]);
    check("cut.json", &["broken JSON", "EOF", "line"]);
    check("list.json", &["a JSON list"]);
    check("other.json", &["JSON of another layout (its keys: answers, questions)"]);
    check("odd.json", &["expected a list of objects"]);
    check("instances.json", &["COCO instances"]);
    check("none.json", &["not one image"]);
    check("gone.json", &["not one of the 1 photos", "name their folder"]);
    check("silent.json", &["not one of the 1 photos has a usable sentence"]);
    check("fold.json", &["not one photo is in a split"]);
    check("typed.json", &["invalid type", "line 1"]);
    check("numbers.csv", &["found no column of photos: the columns are a, b"]);
    check("header.csv", &["holds not one photo"]);
    check("packed.zip", &["unpack it"]);
    check("binary.bin", &["not a text file"]);
    check("void", &["found no dataset here: looked for dataset.json"]);
    check("two", &["several tables (a.csv, b.csv)"]);
    let nowhere = ImportOptions { photos: Some(PathBuf::from("/nowhere")), ..defaults() };
    check_error(import(&folder.path().join("gone.json"), &nowhere), &["/nowhere", "no such folder"]);
    let forced = ImportOptions { layout: Some(Layout::PhotoFolder), ..defaults() };
    check_error(import(&folder.path().join("gone.json"), &forced), &["name the folder"]);
    let absent = detect(&folder.path().join("absent")).unwrap_err();
    assert!(matches!(absent, Error::Io { .. }));
}

#[test]
fn sentences_of_unknown_words_only_encode_to_nothing() {
    let folder = folder(&[("x.csv", "image,split,caption\na.jpg,train,A dog\nb.jpg,val,Zwei Katzen\n")]);
    photos(folder.path(), ["a.jpg", "b.jpg"]);
    let dataset = import(&folder.path().join("x.csv"), &defaults()).unwrap().dataset;
    let vocabulary = dataset.vocabulary(1);
    assert_eq!(vocabulary.len(), 3);
    assert!(vocabulary.encode(&dataset.images[1].sentences[0].tokens).is_empty());
}

/// The folder of shared data, or nothing and a word about it.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SIGHTLINE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = root.join(path);
    if !path.exists() {
        eprintln!("skipped: {} absent", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn flickr8k_has_the_papers_vocabulary_and_tokens() {
    let Some(source) = shared("data/flickr8k") else { return };
    let imported = import(&source, &defaults()).unwrap();
    assert!(imported.problems.is_empty(), "{}", imported.problems);
    let summary = summary(&imported.dataset, 5);
    assert_eq!((summary.photos, summary.sentences), (7000, 35000));
    assert_eq!((summary.splits[&Split::Train].photos, summary.splits[&Split::Val].photos), (6000, 1000));
    assert_eq!(summary.vocabulary, 2538, "2,537 words and the end token, as in the paper");
    let sentences = || imported.dataset.images.iter().flat_map(|image| &image.sentences);
    let agree = sentences().filter(|sentence| crate::tokens::tokenize(&sentence.raw) == sentence.tokens).count();
    eprintln!("our tokens are Karpathy's in {agree} of {} sentences of flickr8k", sentences().count());
    assert_eq!(agree, 35000);
    assert!(imported.dataset.root.join(&imported.dataset.images[0].path).metadata().unwrap().is_file());
    check_saves(&imported);
}

#[test]
fn coco_mini_imports_with_its_boxes() {
    let Some(source) = shared("data/coco_mini") else { return };
    let boxes = Some(source.join("instances.json"));
    let imported = import(&source, &ImportOptions { boxes, ..defaults() }).unwrap();
    assert_eq!(problems(&imported), [(ProblemKind::UnknownKey, 208)]);
    let summary = summary(&imported.dataset, 5);
    assert_eq!((summary.photos, summary.sentences), (208, 1040));
    let with_boxes = imported.dataset.images.iter().filter(|image| !image.boxes.is_empty()).count();
    eprintln!("{} boxes for {with_boxes} photos", summary.boxes);
    assert!(with_boxes > 120 && with_boxes <= 128, "{with_boxes}");
    let sentences = || imported.dataset.images.iter().flat_map(|image| &image.sentences);
    let agree = sentences().filter(|sentence| crate::tokens::tokenize(&sentence.raw) == sentence.tokens).count();
    eprintln!("our tokens are Karpathy's in {agree} of {} sentences of coco_mini", sentences().count());
    assert!(agree >= 1035, "{agree}");
    check_saves(&imported);
}
