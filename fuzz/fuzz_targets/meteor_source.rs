//! Any bytes as METEOR's data: an error, or a cache that opens and scores.
#![no_main]

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use libfuzzer_sys::fuzz_target;
use sightline_metrics::meteor::{Meteor, MeteorData, Task};

fuzz_target!(|bytes: &[u8]| {
    let base = std::env::var_os("SIGHTLINE_FUZZ_FOLDER").map_or_else(std::env::temp_dir, std::path::PathBuf::from);
    let folder = base.join(format!("sightline-fuzz-{}", std::process::id()));
    let parts: Vec<&[u8]> = bytes.split(|&b| b == 0xff).collect();
    let part = |i: usize| parts.get(i).copied().unwrap_or_default();
    for (i, name) in [
        "synonym/english.synsets",
        "synonym/english.exceptions",
        "nonbreaking/english.prefixes",
        "function/english.words",
    ]
    .iter()
    .enumerate()
    {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, part(i)).unwrap();
    }
    let mut gz = GzEncoder::new(Vec::new(), Compression::none());
    gz.write_all(part(4)).unwrap();
    std::fs::write(folder.join("paraphrase-en.gz"), gz.finish().unwrap()).unwrap();
    let cache = folder.join("cache.bin");
    if MeteorData::compile(&folder, &cache).is_ok() {
        let meteor = Meteor::new(MeteorData::open_cache(&cache).unwrap(), Task::Rank);
        let sentence = String::from_utf8_lossy(part(5));
        let table = String::from_utf8_lossy(part(4));
        for (hypothesis, reference) in [(&sentence, &table), (&table, &sentence), (&sentence, &sentence)] {
            let hypothesis: String = hypothesis.chars().take(300).collect();
            let reference: String = reference.chars().take(300).collect();
            let score = meteor.segment(&hypothesis, &[reference]).score;
            assert!((0.0..=1.0 + 1e-9).contains(&score), "{score}");
        }
    }
});
