//! Training as a whole, on a handful of photos: it overfits, it repeats itself to the byte, and a resumed run is the
//! run that never stopped.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sightline_data::categories::NamedBox;
use sightline_data::parses::Parses;
use sightline_data::{
    BoxXyxy, Dataset, FeatureStore, Image, Pair, PhotoFeatures, Sentence, Split, StoreSettings, StoreWriter,
};
use sightline_data::{VectorMode, Vocabulary, tokens::tokenize};
use sightline_model::Device;
use sightline_model::alignment::{AlignmentSettings, Objective, RegionEncoder, Score, SentenceEncoder};
use sightline_model::caption::{BeamSettings, CaptionSettings, GeneratorKind, SampleSettings};
use sightline_train::align::AlignData;
use sightline_train::aligner::Aligner;
use sightline_train::caption::{Caption, CaptionData, Captioner, Decoding};
use sightline_train::checkpoint::{Checkpoint, Kind};
use sightline_train::committee::{self, Candidates, Judge, Neighbours, Speaker};
use sightline_train::corpus::Corpus;
use sightline_train::grounding::GroundingSet;
use sightline_train::optimizer::{OptimizerKind, OptimizerSettings};
use sightline_train::phrases::{Phrase, Phrases};
use sightline_train::pointing::{AttachSettings, PriorWeights};
use sightline_train::run::RunFolder;
use sightline_train::settings::{
    AlignSettings, Baseline, CaptionObjective, CaptionRunSettings, KeepBestBy, MutualInformationSettings,
    RegionContext, SelfCriticalSettings,
};
use sightline_train::teachers::Teacher;
use sightline_train::{Control, Event, Outcome, align, caption, describe, evaluate};
use sightline_vision::regions::NanoDet;

const FEATURES: usize = 12;

const SAID: [&str; 8] = [
    "a black dog runs in the snow",
    "two children play with a red ball",
    "the man rides a bike",
    "a woman climbs a grey rock",
    "a brown dog jumps over a fence",
    "three people walk on the beach",
    "a boy swims in blue water",
    "the girl eats an apple",
];

/// Eight photos to train on, the same eight to validate on, one sentence each; vectors are noise around a one.
fn collection(folder: &Path) -> (Dataset, FeatureStore) {
    let dataset = dataset();
    let store = store(folder, dataset.images.iter().map(|image| entry(image.path.clone(), image.id)));
    (dataset, store)
}

fn dataset() -> Dataset {
    let image = |(id, split): (u64, Split)| {
        let raw = SAID[id as usize % SAID.len()];
        let sentences = vec![Sentence { id, raw: raw.into(), tokens: tokenize(raw) }];
        let path = format!("{}-{}.jpg", split.name(), id as usize % SAID.len());
        Image { id, path, split, sentences, boxes: Vec::new() }
    };
    let splits = [Split::Train, Split::Val].map(|split| std::iter::repeat_n(split, SAID.len()));
    let images = (0..).zip(splits.into_iter().flatten()).map(image).collect();
    Dataset { name: "tiny".into(), images, ..Dataset::default() }
}

/// What tells the photo of this id from others: a one at its own place.
fn entry(key: String, id: u64) -> PhotoFeatures {
    let i = id as usize % SAID.len();
    // Photos have 2 to 4 regions, so that padding is used.
    let n_regions = 2 + i % 3;
    let vector = |r: usize, d: usize| ((i * 31 + r * 17 + d * 7) % 13) as f32 / 13.0 - 0.5 + f32::from(d == i);
    PhotoFeatures {
        key,
        width: 100,
        height: 80,
        boxes: (0..n_regions).map(|r| BoxXyxy::whole(100 - r as u32, 80)).collect(),
        scores: vec![1.0; n_regions],
        vectors: (0..n_regions).flat_map(|r| (0..FEATURES).map(move |d| vector(r, d))).collect(),
    }
}

fn store(folder: &Path, entries: impl Iterator<Item = PhotoFeatures>) -> FeatureStore {
    let settings = StoreSettings {
        backbone: "noise".into(),
        backbone_checksum: String::new(),
        dim: FEATURES,
        vectors: VectorMode::Imported,
        regions: "imported".into(),
        regions_checksum: String::new(),
        max_regions: 4,
        extra: Default::default(),
        sources: Default::default(),
        parts: Vec::new(),
    };
    let path = folder.join("store.features");
    let writer = StoreWriter::create_or_resume(&path, &settings).unwrap();
    entries.for_each(|entry| writer.append(&entry).unwrap());
    writer.finish(&[]).unwrap();
    FeatureStore::open(&path).unwrap()
}

fn adam() -> OptimizerSettings {
    OptimizerSettings { kind: OptimizerKind::Adam, learning_rate: 1e-2, ..OptimizerSettings::default() }
}

fn align_settings(objective: Objective) -> AlignSettings {
    let unit_vectors = objective == Objective::Contrastive;
    AlignSettings {
        epochs: 120,
        batch: 4,
        min_count: 1,
        model: AlignmentSettings {
            dim: 10,
            hidden: 14,
            word_dim: 9,
            dropout: 0.1,
            unit_vectors,
            score: if unit_vectors { Score::MeanOfMax } else { Score::MaxOverRegions },
            objective,
            ..AlignmentSettings::default()
        },
        optimizer: adam(),
        ..AlignSettings::default()
    }
}

fn caption_settings() -> CaptionRunSettings {
    CaptionRunSettings {
        epochs: 80,
        batch: 4,
        min_count: 1,
        model: CaptionSettings {
            hidden: 32,
            word_dim: 15,
            heads: 4,
            feed_forward: 20,
            dropout: 0.0,
            ..CaptionSettings::default()
        },
        optimizer: adam(),
        ..CaptionRunSettings::default()
    }
}

fn of_attention() -> CaptionRunSettings {
    let settings = caption_settings();
    CaptionRunSettings {
        model: CaptionSettings { generator: GeneratorKind::Attention, ..settings.model },
        optimizer: OptimizerSettings { learning_rate: 3e-3, ..adam() },
        ..settings
    }
}

fn captioner(run: &RunFolder, kind: Kind) -> Captioner {
    Captioner::new(RunFolder::model(run.path(), &[kind]).unwrap()).unwrap()
}

/// Runs a job that is stopped after `steps` steps.
fn until(steps: u64, job: impl FnOnce(&mut Control<'_>) -> sightline_train::Result<Outcome>) -> Outcome {
    let stop = AtomicBool::new(false);
    let mut on_event = |event: &Event| {
        if matches!(event, Event::Step { step, .. } if *step >= steps) {
            stop.store(true, Ordering::Relaxed);
        }
    };
    job(&mut Control { on_event: &mut on_event, stop: &stop }).unwrap()
}

fn with_score(objective: Objective, score: Score) -> AlignSettings {
    let settings = align_settings(objective);
    AlignSettings { model: AlignmentSettings { score, ..settings.model }, ..settings }
}

#[test]
fn alignment_models_overfit_and_decode() {
    let device = Device::flex();
    for settings in [
        align_settings(Objective::SumHinge),
        align_settings(Objective::Contrastive),
        with_score(Objective::Contrastive, Score::SoftAttention),
        with_score(Objective::Contrastive, Score::SoftAttentionOverWords),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (dataset, store) = collection(folder.path());
        let run = RunFolder::create(&folder.path().join("run"), &settings).unwrap();
        let outcome =
            until(u64::MAX, |c| align::train(AlignData::new(&dataset, &store), &settings, &run, false, &device, c));
        assert_eq!((outcome.stopped, outcome.progress.epoch), (false, 120));

        let aligner = Aligner::new(RunFolder::model(run.path(), &[Kind::Alignment]).unwrap(), &device).unwrap();
        let corpus = Corpus::new(&dataset, Split::Val, &store, &aligner.vocabulary).unwrap();
        let report = evaluate::scores(&aligner, &corpus).report();
        assert_eq!((report.image_to_sentence.r1, report.sentence_to_image.r1), (100.0, 100.0), "{:?}", settings.model);

        // A sentence that describes another photo too is a right answer there.
        let [of, image] = [&dataset.images[8], &dataset.images[10]];
        let pairing = vec![Pair { sentence: of.sentences[0].id, image: image.id }];
        let lent = Dataset { pairing, ..dataset.clone() };
        let corpus = Corpus::new(&lent, Split::Val, &store, &aligner.vocabulary).unwrap();
        assert_eq!(corpus.others_of(0, 0).collect::<Vec<_>>(), [2]);
        assert_eq!(evaluate::scores(&aligner, &corpus).others, [[2, 0]]);

        let together = AttachSettings { affinity: 1000.0, prior: 0.0 };
        let phrases = Phrases::decode(&aligner, &dataset, &store, None, &[Split::Val], together, |_, _| {}).unwrap();
        assert_eq!(phrases.len(), SAID.len(), "a huge affinity leaves one phrase a sentence");
        let path = folder.path().join("phrases.json");
        phrases.save(&path).unwrap();
        assert_eq!(Phrases::load(&path).unwrap().photos, phrases.photos);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("dog", "cat", 1)).unwrap();
        assert!(Phrases::load(&path).unwrap_err().to_string().contains("checksum"));
        std::fs::write(&path, r#"{"version":1,"checksum":"","affinity":0.5,"photos":{}}"#).unwrap();
        assert!(Phrases::load(&path).unwrap_err().to_string().contains("version 1"));
    }
}

#[test]
fn captions_overfit_on_photos() {
    let folder = tempfile::tempdir().unwrap();
    let (dataset, store) = collection(folder.path());
    let data = CaptionData { dataset: &dataset, store: &store, phrases: None };
    for (name, settings) in [("rnn", caption_settings()), ("attention", of_attention())] {
        let run = RunFolder::create(&folder.path().join(name), &settings).unwrap();
        until(u64::MAX, |c| caption::train(data, None, &settings, &run, false, c));
        let captioner = captioner(&run, Kind::Caption);
        let corpus = Corpus::new(&dataset, Split::Val, &store, &captioner.vocabulary).unwrap();
        let captions = describe::captions(&captioner, &corpus, Decoding::Beam(BeamSettings::default()));
        let greedy = BeamSettings { beam: 1, ..BeamSettings::default() };
        let greedy = describe::captions(&captioner, &corpus, Decoding::Beam(greedy));
        for ((captions, greedy), said) in captions.iter().zip(&greedy).zip(SAID) {
            assert_eq!((captions[0].text.as_str(), greedy[0].text.as_str()), (said, said), "{name}");
            let looks = if name == "attention" { said.split(' ').count() } else { 0 };
            assert_eq!(captions[0].word_regions.len(), looks, "a region for every word");
        }
        let cold = SampleSettings { samples: 2, temperature: 0.05, ..SampleSettings::default() };
        let sampled = describe::captions(&captioner, &corpus, Decoding::Sample(cold, 1));
        assert_eq!((sampled[0][0].text.as_str(), sampled[0].len()), (SAID[0], 2));
        assert!(describe::perplexity(&captioner, &corpus) < 1.2);
        assert!(RunFolder::model(run.path(), &[Kind::Alignment]).unwrap_err().to_string().contains("expected"));
    }
    let vocabulary = dataset.vocabulary(1);
    let [training, corpus] = [Split::Train, Split::Val].map(|s| Corpus::new(&dataset, s, &store, &vocabulary).unwrap());
    assert_eq!(describe::nearest_captions(&training, &corpus), SAID, "photos of the two splits have the same vectors");
}

#[test]
fn a_committee_says_what_its_members_and_people_say() {
    let folder = tempfile::tempdir().unwrap();
    let (dataset, store) = collection(folder.path());
    let data = CaptionData { dataset: &dataset, store: &store, phrases: None };
    // One that has hardly learnt to speak, and one that has not done learning.
    let members = [("novice", caption_settings(), 8), ("learner", of_attention(), 20)];
    let members = members.map(|(name, settings, steps)| {
        let run = RunFolder::create(&folder.path().join(name), &settings).unwrap();
        until(steps, |c| caption::train(data, None, &settings, &run, false, c));
        captioner(&run, Kind::Caption)
    });
    let settings = align_settings(Objective::Contrastive);
    let run = RunFolder::create(&folder.path().join("align"), &settings).unwrap();
    let device = Device::flex();
    until(u64::MAX, |c| align::train(AlignData::new(&dataset, &store), &settings, &run, false, &device, c));
    let aligner = Aligner::new(RunFolder::model(run.path(), &[Kind::Alignment]).unwrap(), &device).unwrap();

    let corpus = Corpus::new(&dataset, Split::Val, &store, &aligner.vocabulary).unwrap();
    let [novice, learner] = members.each_ref().map(|captioner| Speaker { captioner, corpus: &corpus });
    let beam = BeamSettings { beam: 5, ..BeamSettings::default() };
    let alone = [novice, learner].map(|speaker| Candidates::propose(&[speaker], beam).ranked());
    let together = Candidates::propose(&[novice, learner], beam);
    for (photo, captions) in together.clone().ranked().iter().enumerate() {
        assert!(captions.is_sorted_by(|a, b| a.log_probability_a_token() >= b.log_probability_a_token()));
        let mut texts: Vec<&str> = captions.iter().map(|c| c.text.as_str()).collect();
        let mut proposed: Vec<&str> = alone.iter().flat_map(|own| &own[photo]).map(|c| c.text.as_str()).collect();
        texts.sort_unstable();
        proposed.sort_unstable();
        proposed.dedup();
        assert_eq!(texts, proposed, "each sentence once");
        let vectors = store.get(corpus.photos[photo].position).vectors();
        for Caption { text, log_probability, .. } in captions {
            let words = aligner.vocabulary.encode(&tokenize(text));
            let read = members.each_ref().map(|captioner| {
                let picture = captioner.pictures(std::iter::once((vectors.as_slice(), 0)));
                f64::from(captioner.log_likelihoods(&picture, &[&words], &[0])[0])
            });
            assert!((log_probability - (read[0] + read[1]) / 2.0).abs() < 1e-4, "{text}");
        }
    }

    // Photos of the two splits have the same vectors, so that the nearest sentence is the photo's own.
    let judges = [Judge::new(&aligner, &corpus)];
    let neighbours = Neighbours::find(&judges, &dataset, 1);
    let right = |candidates: Candidates| {
        candidates.ranked().iter().zip(SAID).filter(|(captions, said)| captions[0].text == *said).count()
    };
    let proposed = together.clone().ranked();
    let found = proposed.iter().zip(SAID).filter(|(own, said)| own.iter().any(|c| c.text == *said)).count();
    let mut agreed = together.clone();
    agreed.agree(&neighbours, 100.0);
    assert!(right(together.clone()) < found, "or this test shows nothing");
    assert_eq!(right(agreed), found, "what anybody proposed and people say is chosen");
    let mut fitting = together;
    fitting.fit(&judges, 1e6);
    for (photo, captions) in fitting.ranked().iter().enumerate() {
        let words = captions.iter().map(|c| aligner.vocabulary.encode(&tokenize(&c.text))).collect::<Vec<_>>();
        let scores = aligner.scores(&aligner.regions(&store, &[corpus.photos[photo].position]), &aligner.words(&words));
        assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    }
    // Where no word is known the alignment model has no say.
    let strange =
        |text: &str, log_probability| Caption { text: text.into(), log_probability, word_regions: Vec::new() };
    let mut captions = vec![strange("qwx", -4.0), strange("qwx zyv", -3.0)];
    committee::order(&judges, 1e6, &mut captions);
    assert_eq!(captions[0].text, "qwx zyv");
}

#[test]
fn regions_learn_the_phrases_decoded_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let (dataset, store) = collection(folder.path());
    // Each photo's first region is the first three words of its sentence.
    let phrase = |image: &Image| Phrase {
        sentence: image.id,
        region: 1,
        region_box: BoxXyxy::whole(99, 80),
        words: image.sentences[0].tokens[..3].to_vec(),
        score: 1.0,
    };
    let photos = dataset.images.iter().map(|image| (image.path.clone(), vec![phrase(image)])).collect();
    let phrases = Phrases { version: 3, checksum: String::new(), settings: AttachSettings::default(), photos };
    let data = CaptionData { dataset: &dataset, store: &store, phrases: Some(&phrases) };
    // Of a store with other regions they say nothing.
    let mut moved = phrases.clone();
    moved.photos.values_mut().flatten().for_each(|phrase| phrase.region_box.x1 += 2.0);
    let run = RunFolder::create(&folder.path().join("moved"), &caption_settings()).unwrap();
    let mut control = Control { on_event: &mut |_| {}, stop: &AtomicBool::new(false) };
    let data_moved = CaptionData { phrases: Some(&moved), ..data };
    let error = caption::train(data_moved, None, &caption_settings(), &run, false, &mut control).unwrap_err();
    assert!(error.to_string().contains("elsewhere than"), "{error}");
    for region_context in [RegionContext::None, RegionContext::WholeImage] {
        let settings = CaptionRunSettings { region_context, ..caption_settings() };
        let run = RunFolder::create(&folder.path().join(format!("{region_context:?}")), &settings).unwrap();
        until(u64::MAX, |c| caption::train(data, None, &settings, &run, false, c));
        let captioner = captioner(&run, Kind::RegionCaption);
        let vectors = store.get(0).vectors();
        let pictures = captioner.pictures([(vectors.as_slice(), 1)].into_iter());
        let captions = captioner.captions(&pictures, Decoding::Beam(BeamSettings::default()));
        assert_eq!(captions[0][0].text, "a black dog", "{region_context:?}");

        // With contrast: of all that a wide beam finds the one that is likelier of the region than of its photo.
        let beam = BeamSettings { beam: 12, ..BeamSettings::default() };
        let all = Decoding::Beam(BeamSettings { n_best: beam.beam, ..beam });
        let regions = (0..store.len()).map(|photo| (store.get(photo).vectors(), 1)).collect::<Vec<_>>();
        let views = || regions.iter().map(|(vectors, region)| (vectors.as_slice(), *region));
        let likely = captioner.captions(&captioner.pictures(views()), all);
        let mut others = 0;
        for contrast in [0.0, 0.5, 2.0] {
            let found = captioner.region_captions(views(), beam, contrast);
            for ((found, likely), (vectors, _)) in found.iter().zip(&likely).zip(&regions) {
                let photo = captioner.pictures([(vectors.as_slice(), 0)].into_iter());
                let worth = |caption: &Caption| {
                    let words = captioner.vocabulary.encode(&tokenize(&caption.text));
                    caption.log_probability
                        - f64::from(contrast * captioner.log_likelihoods(&photo, &[&words], &[0])[0])
                };
                let best = likely.iter().map(worth).fold(f64::NEG_INFINITY, f64::max);
                let found = found.as_ref().unwrap();
                assert!((worth(found) - best).abs() < 1e-4, "{contrast}: {found:?} of {likely:?}");
                others += usize::from(found.text != likely[0].text);
                assert!(contrast > 0.0 || found == &likely[0]);
            }
        }
        assert!(others > 0, "or the contrast was not looked at");
    }
}

#[test]
fn rewards_make_better_sentences_likelier() {
    let folder = tempfile::tempdir().unwrap();
    let (dataset, store) = collection(folder.path());
    let data = CaptionData { dataset: &dataset, store: &store, phrases: None };
    // Hardly trained, so that there is something to gain.
    let settings = CaptionRunSettings { epochs: 8, ..of_attention() };
    let run = RunFolder::create(&folder.path().join("likelihood"), &settings).unwrap();
    until(u64::MAX, |c| caption::train(data, None, &settings, &run, false, c));
    let start = RunFolder::model(run.path(), &[Kind::Caption]).unwrap();
    let before = start.header.progress.clone();
    let ciders = |run: &RunFolder| -> Vec<f64> {
        let log = std::fs::read_to_string(run.path().join("log.jsonl")).unwrap();
        let records = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        records.filter_map(|record| record["validation"]["greedy_cider"].as_f64()).collect()
    };
    // Of the pass that was kept, and that the others start from.
    let at_start = ciders(&run)[before.best_epoch as usize - 1];
    for baseline in [Baseline::OtherSamples, Baseline::Greedy] {
        let settings = CaptionRunSettings {
            epochs: 60,
            objective: CaptionObjective::SelfCritical,
            keep_best_by: KeepBestBy::Cider,
            self_critical: SelfCriticalSettings { samples: 6, baseline, max_words: 12 },
            // Rewards are noisy: steps as large as those of teacher forcing lose what it taught.
            optimizer: OptimizerSettings { learning_rate: 1e-3, ..adam() },
            ..of_attention()
        };
        let run = RunFolder::create(&folder.path().join(format!("{baseline:?}")), &settings).unwrap();
        let outcome = until(u64::MAX, |c| caption::train(data, Some(start.clone()), &settings, &run, false, c));
        let best = outcome.progress.best.unwrap();
        assert!(best > at_start + 0.5, "{baseline:?}: {at_start} at the start, {best} at best");
    }
    assert_eq!(before.epoch, start.header.progress.epoch);

    let settings = CaptionRunSettings { objective: CaptionObjective::SelfCritical, ..of_attention() };
    let stop = AtomicBool::new(false);
    let mut control = Control { on_event: &mut |_| {}, stop: &stop };
    let run = RunFolder::create(&folder.path().join("none"), &settings).unwrap();
    let mut refused = |start: Option<&Checkpoint>, settings: &CaptionRunSettings, run: &RunFolder, part: &str| {
        let resume = start.is_none();
        let error = caption::train(data, start.cloned(), settings, run, resume, &mut control).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(None, &settings, &run, "--start");
    let mut heads = settings.clone();
    heads.model.heads = 1;
    refused(Some(&start), &heads, &run, "another network");
    let smoothed = CaptionRunSettings { label_smoothing: 0.1, ..settings.clone() };
    refused(Some(&start), &smoothed, &run, "label_smoothing = 0.1");

    // Killed before anything was kept: a run goes on with the model that it began with, and with no other.
    let settings = CaptionRunSettings { epochs: 1, ..of_attention() };
    let run = RunFolder::create(&folder.path().join("killed"), &settings).unwrap();
    until(1, |c| caption::train(data, Some(start.clone()), &settings, &run, false, c));
    std::fs::remove_file(run.last()).unwrap();
    refused(None, &settings, &run, "again with --start");
    let mut other = start.clone();
    other.model.values_mut().next().unwrap().values[0] += 1.0;
    refused(Some(&other), &settings, &run, "again with --start");
    until(u64::MAX, |c| caption::train(data, Some(start.clone()), &settings, &run, true, c));
}

#[test]
fn pictures_are_told_apart_by_their_sentences() {
    let folder = tempfile::tempdir().unwrap();
    let (dataset, store) = collection(folder.path());
    let data = CaptionData { dataset: &dataset, store: &store, phrases: None };
    // Hardly trained, so that there is something to gain.
    let slow = OptimizerSettings { learning_rate: 3e-4, ..adam() };
    let settings = CaptionRunSettings { epochs: 1, optimizer: slow.clone(), ..of_attention() };
    let run = RunFolder::create(&folder.path().join("likelihood"), &settings).unwrap();
    until(u64::MAX, |c| caption::train(data, None, &settings, &run, false, c));
    let start = RunFolder::model(run.path(), &[Kind::Caption]).unwrap();
    let settings = CaptionRunSettings {
        epochs: 60,
        optimizer: slow,
        objective: CaptionObjective::MutualInformation,
        keep_best_by: KeepBestBy::Choice,
        mutual_information: MutualInformationSettings { rivals: 3, nearest: 7, ..Default::default() },
        ..of_attention()
    };
    let run = RunFolder::create(&folder.path().join("apart"), &settings).unwrap();
    until(u64::MAX, |c| caption::train(data, Some(start), &settings, &run, false, c));
    let log = std::fs::read_to_string(run.path().join("log.jsonl")).unwrap();
    let records = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let choices: Vec<f64> = records.filter_map(|record| record["validation"]["choice"].as_f64()).collect();
    assert!(choices[0] < 0.8 && choices[59] == 1.0, "of eight photos, by their sentences: {choices:?}");

    let rivals = |rivals| MutualInformationSettings { rivals, nearest: 7, ..Default::default() };
    let sharpness = MutualInformationSettings { sharpness: 0.0, ..Default::default() };
    let wrong = [(rivals(0), "rivals = 0"), (rivals(8), "rivals = 8"), (sharpness, "sharpness = 0")];
    for (mutual_information, expected) in wrong {
        let settings = CaptionRunSettings { mutual_information, ..settings.clone() };
        let stop = AtomicBool::new(false);
        let mut control = Control { on_event: &mut |_| {}, stop: &stop };
        let error = caption::train(data, None, &settings, &run, false, &mut control).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn nouns_point_where_the_prior_says_as_its_weight_grows() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset();
    let strip = |r: usize| BoxXyxy { x1: 20.0 * r as f32, y1: 0.0, x2: 20.0 * (r + 1) as f32, y2: 80.0 };
    // The last proposal is the surest; the objects are on it in two of three photos.
    let entries = dataset.images.iter().map(|image| {
        let entry = entry(image.path.clone(), image.id);
        let n = entry.scores.len();
        let boxes = std::iter::once(BoxXyxy::whole(100, 80)).chain((1..n).map(strip)).collect();
        PhotoFeatures { boxes, scores: (0..n).map(|r| if r == 0 { 1.0 } else { 0.1 * r as f32 }).collect(), ..entry }
    });
    let store = store(folder.path(), entries);
    let named = |image: &Image| {
        let last = store.find(&image.path).unwrap().n_regions() - 1;
        let region = strip(if image.id.is_multiple_of(3) { 1 } else { last });
        let boxes = ["dog", "person", "bicycle"].map(|name| NamedBox { category: name.into(), region });
        (image.path.clone(), boxes.to_vec())
    };
    let named = dataset.images.iter().map(named).collect();

    let settings = AlignSettings { epochs: 5, ..align_settings(Objective::Contrastive) };
    let run = RunFolder::create(&folder.path().join("run"), &settings).unwrap();
    until(u64::MAX, |c| align::train(AlignData::new(&dataset, &store), &settings, &run, false, &device, c));
    let again = || {
        let mut aligner = Aligner::new(RunFolder::model(run.path(), &[Kind::Alignment]).unwrap(), &device).unwrap();
        // The prior counts for all words alike.
        aligner.prior_weights = PriorWeights::default();
        aligner
    };
    let aligner = again();
    let corpus = Corpus::new(&dataset, Split::Val, &store, &aligner.vocabulary).unwrap();
    let set = GroundingSet::new(std::slice::from_ref(&aligner), &corpus, &named).unwrap();
    let twice = GroundingSet::new(&[again(), again()], &corpus, &named).unwrap();
    let alone = AttachSettings::default();
    assert_eq!(twice.evaluate(alone, 1, |_| true), set.evaluate(alone, 1, |_| true), "a model agrees with itself");
    let mut stranger = again();
    stranger.vocabulary = Vocabulary::from_sentences([["dog".to_owned()].as_slice()], 1);
    let refused = GroundingSet::new(&[again(), stranger], &corpus, &named).err().unwrap().to_string();
    assert!(refused.contains("the models know different words"), "{refused}");
    assert!(set.nouns() >= 6, "{}", set.nouns());
    let settings = AttachSettings { affinity: 0.0, prior: 1e6 };
    // One proposal alone has no rank.
    let ranked = |photo: usize| store.get(corpus.photos[photo].position).n_regions() > 2;
    let report = set.evaluate(settings, 1, ranked);
    assert_eq!(report.score.pointing, report.baselines["surest"].pointing);
    assert!((0.3..1.0).contains(&report.score.pointing), "{}", report.score.pointing);
    let phrases = Phrases::decode(&aligner, &dataset, &store, None, &[Split::Val], settings, |_, _| {}).unwrap();
    for (key, own) in &phrases.photos {
        let surest = store.find(key).unwrap().n_regions() - 1;
        // A word that scores the same everywhere has no deviation to count the prior in.
        for phrase in own.iter().filter(|phrase| surest > 1 && phrase.score != 0.0) {
            assert_eq!(phrase.region, surest, "{own:?}");
            assert!(phrase.score.abs() < 10.0, "the prior is no part of a phrase's score: {own:?}");
        }
    }
}

#[test]
fn the_order_of_regions_counts_for_words_of_things() {
    // In every photo the surest of three proposals shows a thing, the next the scene; both are told.
    let (things, scenes) = (["dog", "child", "car"], ["snow", "grass", "sand"]);
    let photos: Vec<(usize, usize)> = (0..9).map(|photo| (photo / 3, photo % 3)).collect();
    let image = |split: Split, (t, s): (usize, usize)| {
        let raw = format!("{} {}", things[t], scenes[s]);
        let sentence = |id| Sentence { id, raw: raw.clone(), tokens: tokenize(&raw) };
        let id = (3 * t + s) as u64 + if split == Split::Val { 9 } else { 0 };
        let sentences = (0..8).map(|n| sentence(8 * id + n)).collect();
        Image { id, path: format!("{id}.jpg"), split, sentences, boxes: Vec::new() }
    };
    let images = [Split::Train, Split::Val].into_iter().flat_map(|split| photos.iter().map(move |&p| (split, p)));
    let images: Vec<Image> = images.map(|(split, photo)| image(split, photo)).collect();
    let dataset = Dataset { name: "scenes".into(), images, ..Dataset::default() };
    let seen = |(id, (t, s)): (usize, (usize, usize))| {
        let one = |at: usize| (0..FEATURES).map(move |d| f32::from(u8::from(d == at)));
        let vectors = one(11).chain(one(t)).chain(one(3 + s)).chain(one(10)).collect();
        let (key, boxes) = (format!("{id}.jpg"), (0..4).map(|r| BoxXyxy::whole(100 - r, 80)).collect());
        PhotoFeatures { key, width: 100, height: 80, boxes, scores: vec![1.0, 0.9, 0.5, 0.1], vectors }
    };
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), (0..).zip(photos.iter().chain(&photos).copied()).map(seen));

    let device = Device::flex();
    // Each word by itself: what a sentence says elsewhere is not in its vector.
    let mut settings = AlignSettings { epochs: 60, batch: 9, ..align_settings(Objective::Contrastive) };
    settings.model.sentence_encoder = SentenceEncoder::BagOfWords;
    let run = RunFolder::create(&folder.path().join("run"), &settings).unwrap();
    until(u64::MAX, |c| align::train(AlignData::new(&dataset, &store), &settings, &run, false, &device, c));
    let mut aligner = Aligner::new(RunFolder::model(run.path(), &[Kind::Alignment]).unwrap(), &device).unwrap();
    let indices = |words: &[&str]| words.iter().map(|word| aligner.vocabulary.get(word).unwrap()).collect::<Vec<_>>();
    let (dog, snow) = (indices(&["dog"]), indices(&["snow"]));
    assert_eq!((aligner.prior_weights.of(&dog), aligner.prior_weights.of(&snow)), (vec![1.0], vec![0.0]));

    // Pointing goes by these weights where a detector found the regions.
    let (products, areas) = ([0.1, 0.3, 0.4, 0.2], [100.0, 10.0, 10.0, 100.0]);
    let pointing = |aligner: &Aligner, words: &[u32]| aligner.pointing(words, &products, areas.into_iter());
    assert_eq!(pointing(&aligner, &dog), products, "regions of unknown origin have no order");
    aligner.features.regions = NanoDet::NAME.into();
    let rewards = pointing(&aligner, &dog);
    assert!(rewards[1] == products[1] && rewards[2] < products[2] && rewards[3] < products[3], "{rewards:?}");
    let rewards = pointing(&aligner, &snow);
    assert!(rewards[1] < products[1] && rewards[2] < products[2] && rewards[3] == products[3], "{rewards:?}");
}

/// The bytes of both checkpoints after a run with the given stops, and the loss of every pass in its log.
fn checkpoints(stops: &[u64], captions: bool) -> (Vec<u8>, Vec<u8>, Vec<f64>) {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let (dataset, store) = collection(folder.path());
    let path = folder.path().join("run");
    let of_align = AlignSettings { epochs: 5, ..align_settings(Objective::SumHinge) };
    let settings = caption_settings();
    let of_caption = CaptionRunSettings {
        epochs: 5,
        average: 0.9,
        label_smoothing: 0.1,
        model: CaptionSettings { dropout: 0.2, ..settings.model },
        ..settings
    };
    let run =
        if captions { RunFolder::create(&path, &of_caption) } else { RunFolder::create(&path, &of_align) }.unwrap();
    let mut resume = false;
    for &steps in stops.iter().chain([&u64::MAX]) {
        let outcome = until(steps, |c| match captions {
            true => {
                let data = CaptionData { dataset: &dataset, store: &store, phrases: None };
                caption::train(data, None, &of_caption, &run, resume, c)
            }
            false => align::train(AlignData::new(&dataset, &store), &of_align, &run, resume, &device, c),
        });
        assert_eq!(outcome.stopped, steps != u64::MAX);
        resume = true;
    }
    let log = std::fs::read_to_string(path.join("log.jsonl")).unwrap();
    let records = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let losses: Vec<f64> = records.filter(|r| r["epoch"].is_u64()).map(|r| r["loss"].as_f64().unwrap()).collect();
    assert_eq!(losses.len(), 5, "{log}");
    (std::fs::read(run.last()).unwrap(), std::fs::read(run.best()).unwrap(), losses)
}

#[test]
fn a_resumed_run_is_the_run_that_never_stopped() {
    for captions in [false, true] {
        let whole = checkpoints(&[], captions);
        assert_eq!(whole, checkpoints(&[], captions), "the same seed gives the same bytes");
        // Stops in the middle of a pass, at its end, and at the start of the next.
        assert_eq!(whole, checkpoints(&[1, 4, 5, 7], captions));
    }
}

#[test]
fn a_run_is_not_resumed_on_other_data() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let (mut dataset, store) = collection(folder.path());
    let settings = AlignSettings { epochs: 3, ..align_settings(Objective::SumHinge) };
    let run = RunFolder::create(&folder.path().join("run"), &settings).unwrap();
    until(1, |c| align::train(AlignData::new(&dataset, &store), &settings, &run, false, &device, c));
    dataset.images[0].sentences[0].tokens.push("entirely".into());
    let stop = AtomicBool::new(false);
    let mut control = Control { on_event: &mut |_| {}, stop: &stop };
    let error =
        align::train(AlignData::new(&dataset, &store), &settings, &run, true, &device, &mut control).unwrap_err();
    assert!(error.to_string().contains("other data"), "{error}");
}

#[test]
fn a_caption_run_is_not_resumed_on_other_phrases() {
    let folder = tempfile::tempdir().unwrap();
    let (dataset, store) = collection(folder.path());
    let of = |words: usize| {
        let phrase = |image: &Image| Phrase {
            sentence: image.id,
            region: 1,
            region_box: BoxXyxy::whole(99, 80),
            words: image.sentences[0].tokens[..words].to_vec(),
            score: 1.0,
        };
        let photos = dataset.images.iter().map(|image| (image.path.clone(), vec![phrase(image)])).collect();
        Phrases { version: 3, checksum: String::new(), settings: AttachSettings::default(), photos }
    };
    let (three, two) = (of(3), of(2));
    let settings = CaptionRunSettings { epochs: 3, ..caption_settings() };
    let run = RunFolder::create(&folder.path().join("run"), &settings).unwrap();
    let data = |phrases| CaptionData { dataset: &dataset, store: &store, phrases };
    until(1, |c| caption::train(data(Some(&three)), None, &settings, &run, false, c));
    for (phrases, part) in [(None, "a caption model of regions there"), (Some(&two), "other phrases")] {
        let stop = AtomicBool::new(false);
        let mut control = Control { on_event: &mut |_| {}, stop: &stop };
        let error = caption::train(data(phrases), None, &settings, &run, true, &mut control).unwrap_err().to_string();
        assert!(error.contains("other data") && error.contains(part), "{error}");
    }
    let outcome = until(u64::MAX, |c| caption::train(data(Some(&three)), None, &settings, &run, true, c));
    assert!(!outcome.stopped);
}

#[test]
fn a_run_goes_on_with_an_average_that_it_had_not() {
    let folder = tempfile::tempdir().unwrap();
    let (dataset, store) = collection(folder.path());
    let before = CaptionRunSettings { epochs: 2, ..caption_settings() };
    let run = RunFolder::create(&folder.path().join("run"), &before).unwrap();
    let data = CaptionData { dataset: &dataset, store: &store, phrases: None };
    until(1, |c| caption::train(data, None, &before, &run, false, c));
    let after = CaptionRunSettings { average: 0.9, ..before };
    until(u64::MAX, |c| caption::train(data, None, &after, &run, true, c));
    captioner(&run, Kind::Caption);
}

#[test]
fn settings_that_no_training_can_follow_are_named() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let (dataset, store) = collection(folder.path());
    let stop = AtomicBool::new(false);
    let mut control = Control { on_event: &mut |_| {}, stop: &stop };
    let base = align_settings(Objective::Contrastive);
    let model = |model| AlignSettings { model, ..base.clone() };
    for (settings, part) in [
        (AlignSettings { epochs: 0, ..base.clone() }, "epochs = 0"),
        (AlignSettings { average: 1.0, ..base.clone() }, "average = 1"),
        (
            AlignSettings { optimizer: OptimizerSettings { epsilon: 0.0, ..adam() }, ..base.clone() },
            "optimizer.epsilon = 0",
        ),
        (
            model(AlignmentSettings { encoder: RegionEncoder::Conv, standardize: true, ..base.model.clone() }),
            "model.standardize = true",
        ),
        (model(AlignmentSettings { dim: 0, ..base.model.clone() }), "model.dim = 0"),
        (
            model(AlignmentSettings { attention_sharpness: Some(6.0), ..base.model.clone() }),
            "model.attention_sharpness is for",
        ),
        (
            model(AlignmentSettings {
                attention_sharpness: Some(0.0),
                score: Score::SoftAttention,
                ..base.model.clone()
            }),
            "model.attention_sharpness = 0",
        ),
        (model(AlignmentSettings { dropout: f32::NAN, ..base.model.clone() }), "model.dropout = NaN"),
    ] {
        let run = RunFolder::create(&folder.path().join("align"), &settings).unwrap();
        let data = AlignData::new(&dataset, &store);
        let error = align::train(data, &settings, &run, false, &device, &mut control).unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
    let mut settings = caption_settings();
    settings.self_critical.max_words = 0;
    let run = RunFolder::create(&folder.path().join("caption"), &settings).unwrap();
    let data = CaptionData { dataset: &dataset, store: &store, phrases: None };
    let error = caption::train(data, None, &settings, &run, false, &mut control).unwrap_err().to_string();
    assert!(error.contains("self_critical.max_words = 0"), "{error}");
}

/// Two training photos alike in everything: told apart by nothing, they are no negatives of each other.
#[test]
fn pairs_besides_are_no_negatives_in_training() {
    let device = Device::flex();
    // The instance loss asks besides which of the two a photo is, which nothing tells.
    for (objective, share) in [(Objective::Contrastive, 0.5), (Objective::SumHinge, 0.5), (Objective::Instance, 0.85)] {
        let settings = AlignSettings { epochs: 60, ..align_settings(objective) };
        let loss = |pairs: bool| {
            let folder = tempfile::tempdir().unwrap();
            let mut dataset = dataset();
            let (first, rest) = dataset.images.split_first_mut().unwrap();
            let twin = &mut rest[0];
            twin.sentences[0].tokens.clone_from(&first.sentences[0].tokens);
            if pairs {
                let pair = |of: &Image, image: &Image| Pair { sentence: of.sentences[0].id, image: image.id };
                dataset.pairing = vec![pair(first, twin), pair(twin, first)];
            }
            let id = |image: &Image| if image.id == 1 { 0 } else { image.id };
            let store = store(folder.path(), dataset.images.iter().map(|image| entry(image.path.clone(), id(image))));
            let run = RunFolder::create(&folder.path().join("run"), &settings).unwrap();
            let stop = AtomicBool::new(false);
            let mut last = f64::NAN;
            let mut on_event = |event: &Event| {
                if let Event::Epoch { loss, .. } = event {
                    last = *loss;
                }
            };
            let mut control = Control { on_event: &mut on_event, stop: &stop };
            align::train(AlignData::new(&dataset, &store), &settings, &run, false, &device, &mut control).unwrap();
            last
        };
        let (with, without) = (loss(true), loss(false));
        assert!(with < share * without, "{objective:?}: {with} {without}");
    }
}

/// Trees in which every word hangs on the next; of the sentences with the given ids.
fn chains(folder: &Path, dataset: &Dataset, ids: impl Fn(u64) -> bool) -> Parses {
    let mut text = String::new();
    for sentence in dataset.images.iter().flat_map(|image| &image.sentences).filter(|s| ids(s.id)) {
        text += &format!("# sent_id = {}\n", sentence.id);
        let n = sentence.tokens.len();
        for (i, token) in sentence.tokens.iter().enumerate() {
            let (head, relation) = if i + 1 < n { (i + 2, ["det", "amod", "nsubj"][i % 3]) } else { (0, "root") };
            text += &format!("{}\t{token}\t_\t_\t_\t_\t{head}\t{relation}\t_\t_\n", i + 1);
        }
        text += "\n";
    }
    let path = folder.join("chains.conllu");
    std::fs::write(&path, text).unwrap();
    Parses::read(&path).unwrap()
}

#[test]
fn dependency_edges_overfit_with_either_objective() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let (dataset, store) = collection(folder.path());
    let parses = chains(folder.path(), &dataset, |_| true);
    let data = AlignData { parses: Some(&parses), ..AlignData::new(&dataset, &store) };
    let of = |settings: AlignSettings| AlignSettings {
        min_relation_count: 5,
        model: AlignmentSettings { sentence_encoder: SentenceEncoder::DependencyEdges, ..settings.model },
        ..settings
    };
    let fragments = with_score(Objective::Fragments, Score::SmoothedSumOfPositive);
    for (i, settings) in [of(fragments), of(align_settings(Objective::Contrastive))].into_iter().enumerate() {
        let run = RunFolder::create(&folder.path().join(format!("run-{i}")), &settings).unwrap();
        until(u64::MAX, |c| align::train(data, &settings, &run, false, &device, c));
        let aligner = Aligner::new(RunFolder::model(run.path(), &[Kind::Alignment]).unwrap(), &device).unwrap();
        assert_eq!(aligner.relations, ["det", "amod", "nsubj", "root"], "the most frequent first");
        let corpus = aligner.corpus(&dataset, Split::Val, &store, Some(&parses)).unwrap();
        let report = evaluate::scores(&aligner, &corpus).report();
        assert_eq!((report.image_to_sentence.r1, report.sentence_to_image.r1), (100.0, 100.0), "{:?}", settings.model);
        let together = AttachSettings { affinity: 1000.0, prior: 0.0 };
        let phrases =
            Phrases::decode(&aligner, &dataset, &store, Some(&parses), &[Split::Val], together, |_, _| {}).unwrap();
        assert_eq!(phrases.len(), SAID.len(), "every word has the edge above it");

        assert!(aligner.corpus(&dataset, Split::Val, &store, None).unwrap_err().to_string().contains("--parses"));
        assert!(aligner.check_reads_words().is_err());
        // A sentence without a tree is named and has nothing to say.
        let some = chains(folder.path(), &dataset, |id| id != 9);
        let corpus = aligner.corpus(&dataset, Split::Val, &store, Some(&some)).unwrap();
        assert_eq!((&corpus.unparsed[..], corpus.photos[1].sentences[0].len()), (&[9][..], 0));
        let scores = evaluate::scores(&aligner, &corpus);
        assert!(scores.scores.iter().skip(1).step_by(SAID.len()).all(|&score| score == 0.0));
        let none = chains(folder.path(), &dataset, |id| id == 0);
        let error = aligner.corpus(&dataset, Split::Val, &store, Some(&none)).unwrap_err().to_string();
        assert!(error.contains("none of the 8 sentences"), "{error}");
    }

    let stop = AtomicBool::new(false);
    let mut control = Control { on_event: &mut |_| {}, stop: &stop };
    let settings = align_settings(Objective::SumHinge);
    let run = RunFolder::create(&folder.path().join("words"), &settings).unwrap();
    let error = align::train(data, &settings, &run, false, &device, &mut control).unwrap_err().to_string();
    assert!(error.contains("dependency_edges alone"), "{error}");
    let settings = of(settings);
    let error = align::train(AlignData::new(&dataset, &store), &settings, &run, false, &device, &mut control);
    assert!(error.unwrap_err().to_string().contains("--parses"));
}

#[test]
fn vectors_of_the_whole_need_a_score_they_can_add_to() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let (dataset, store) = collection(folder.path());
    let mut settings = with_score(Objective::Contrastive, Score::SoftAttention);
    settings.model.whole = true;
    let run = RunFolder::create(&folder.path().join("run"), &settings).unwrap();
    let stop = AtomicBool::new(false);
    let mut control = Control { on_event: &mut |_| {}, stop: &stop };
    let error =
        align::train(AlignData::new(&dataset, &store), &settings, &run, false, &device, &mut control).unwrap_err();
    assert!(error.to_string().contains("model.whole"), "{error}");
}

#[test]
fn a_diverging_run_says_so() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let (dataset, store) = collection(folder.path());
    let mut settings = align_settings(Objective::SumHinge);
    settings.optimizer =
        OptimizerSettings { kind: OptimizerKind::Sgd, learning_rate: 1e30, clip: 0.0, ..OptimizerSettings::default() };
    let run = RunFolder::create(&folder.path().join("run"), &settings).unwrap();
    let stop = AtomicBool::new(false);
    let mut control = Control { on_event: &mut |_| {}, stop: &stop };
    let error =
        align::train(AlignData::new(&dataset, &store), &settings, &run, false, &device, &mut control).unwrap_err();
    assert!(error.to_string().contains("smaller learning rate"), "{error}");
}

#[test]
fn teachers_are_learned_from() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let (dataset, store) = collection(folder.path());
    let settings = align_settings(Objective::Contrastive);
    let train = |name: &str, settings: &AlignSettings, data: AlignData<'_>| {
        let run = RunFolder::create(&folder.path().join(name), settings).unwrap();
        until(u64::MAX, |c| align::train(data, settings, &run, false, &device, c));
        Aligner::new(RunFolder::model(run.path(), &[Kind::Alignment]).unwrap(), &device).unwrap()
    };
    let teacher = train("teacher", &settings, AlignData::new(&dataset, &store));

    // Sentences of other photos: each is said of the next one. The student hears of that from its teacher alone.
    let mut turned = dataset.clone();
    let said: Vec<Vec<Sentence>> = dataset.images.iter().map(|image| image.sentences.clone()).collect();
    for (i, image) in turned.images.iter_mut().enumerate().filter(|(_, image)| image.split == Split::Train) {
        image.sentences = said[(i + 1) % SAID.len()].clone();
    }
    let taught = |share: f32| {
        let mut settings = settings.clone();
        settings.teaching.share = share;
        settings
    };
    let teachers = [Teacher { aligner: &teacher, store: &store }];
    let data = AlignData { teachers: &teachers, ..AlignData::new(&turned, &store) };
    let student = train("student", &taught(1.0), data);
    let corpus = student.corpus(&dataset, Split::Train, &store, None).unwrap();
    let report = evaluate::scores(&student, &corpus).report();
    assert!(report.image_to_sentence.r1 >= 75.0, "the teacher is right, not the pairs: {report:?}");
    let alone = train("alone", &settings, AlignData::new(&turned, &store));
    let report = evaluate::scores(&alone, &corpus).report();
    assert!(report.image_to_sentence.r1 <= 25.0, "{report:?}");

    let refused = |settings: &AlignSettings, data: AlignData<'_>, expected: &str| {
        let run = RunFolder::create(&folder.path().join("refused"), settings).unwrap();
        let mut control = Control { on_event: &mut |_| {}, stop: &AtomicBool::new(false) };
        let error = align::train(data, settings, &run, false, &device, &mut control).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(&settings, data, "set teaching.share=0.5");
    refused(&taught(0.5), AlignData::new(&dataset, &store), "--teacher");
    refused(&taught(1.5), data, "from 0 to 1");
    let mut hinge = taught(0.5);
    hinge.model.objective = Objective::SumHinge;
    refused(&hinge, data, "contrastive");
    let other = folder.path().join("few");
    std::fs::create_dir(&other).unwrap();
    let few = self::store(&other, dataset.images[1..].iter().map(|image| entry(image.path.clone(), image.id)));
    let teachers = [Teacher { aligner: &teacher, store: &few }];
    refused(&taught(0.5), AlignData { teachers: &teachers, ..AlignData::new(&dataset, &store) }, "lack train-0.jpg");
}
