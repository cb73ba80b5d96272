use super::*;

/// Two groups of one expert episode, two replays and now and then play.
const TINY: [&str; 4] = ["--set", "sources=2", "--set", "replays_per_source=2"];

fn collect(path: &Path, more: &[&str]) -> Output {
    worldbench(&[&["collect", "--out", text(path)], &TINY[..], more].concat())
}

#[test]
fn a_stopped_collection_ends_with_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, resumed) = (dir.path().join("whole.wbs"), dir.path().join("deep/resumed.wbs"));
    let output = collect(&whole, &["--threads", "1", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let bytes = std::fs::read(&whole).unwrap();
    assert!(collect(&resumed, &["--threads", "2"]).status.success());
    assert!(std::fs::read(&resumed).unwrap() == bytes);
    // As a kill in the middle of a write leaves it.
    std::fs::write(&resumed, &bytes[..bytes.len() * 2 / 3]).unwrap();
    assert!(collect(&resumed, &[]).status.success());
    assert!(std::fs::read(&resumed).unwrap() == bytes);
    // And a third time: nothing is left to do.
    assert!(collect(&resumed, &[]).status.success());
    assert!(std::fs::read(&resumed).unwrap() == bytes);

    let other = collect(&resumed, &["--set", "seed=9"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).contains("not of this collection"), "{}", stderr(&other));

    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let facts = json(&["data", "inspect", text(&whole), "--json"]);
    assert!(["episodes", "steps", "hash", "kinds"].iter().all(|key| facts[key] == summary[key]), "{facts}");
    look_at(&whole);
    to_hdf5_and_back(&whole);
    break_and_mend(&whole, facts["episodes"].as_u64().unwrap());
}

/// Statistics and pictures of a store.
fn look_at(store: &Path) {
    let stats = json(&["data", "stats", text(store), "--json"]);
    assert_eq!(stats["mean"].as_array().unwrap().len(), 9);
    assert!(stats["std"].as_array().unwrap().iter().all(|std| std.as_f64().unwrap() > 0.0), "{stats}");
    let long = worldbench(&["data", "stats", text(store), "--offset", "100000"]);
    assert!(stdout(&long).contains("no episode has 100000 env steps"), "{}", stdout(&long));
    let out = store.with_extension("preview");
    for format in ["gif", "png"] {
        let args = ["data", "preview", text(store), "--episodes", "0-1", "--size", "32", "--format", format];
        let output = worldbench(&[&args[..], &["--out", text(&out)]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(out.join(format!("episode-00001.{format}")).is_file());
    }
    assert!(refused(&["data", "preview", text(store), "--episodes", "999"]).contains("no episode 999"));
}

/// The store that comes back from an exported file has the same bytes; a part of it can be exported, too.
fn to_hdf5_and_back(store: &Path) {
    let (file, back) = (store.with_extension("h5"), store.with_extension("back.wbs"));
    let export = |more: &[&str]| {
        json(
            &[&["data", "export", text(store), "--out", text(&file), "--size", "32", "--json"], more]
                .concat(),
        )
    };
    let written = export(&[]);
    let read = json(&["data", "import", text(&file), "--out", text(&back), "--check-pixels", "--json"]);
    assert!(std::fs::read(&back).unwrap() == std::fs::read(store).unwrap());
    assert!(["episodes", "rows"].iter().all(|key| written[key] == read[key]), "{written} {read}");
    assert_eq!(read["frames_identical"], read["rows"]);

    assert!(refused(&["data", "export", text(store), "--out", text(&file)]).contains("exists"));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(export(&["--episodes", "3,0-1"])["episodes"], 3);
    std::fs::remove_file(&file).unwrap();
    let beyond = ["data", "export", text(store), "--out", text(&file), "--episodes", "2-999"];
    assert!(refused(&beyond).contains("has no episode"));
    let twice = ["data", "export", text(store), "--out", text(&file), "--episodes", "1,0-2"];
    assert!(refused(&twice).contains("episode 1 twice"));
    let left = std::fs::read_dir(store.parent().unwrap()).unwrap().flatten();
    let left: Vec<_> = left.map(|f| f.file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.contains(".h5")), "{left:?}");
}

fn break_and_mend(store: &Path, episodes: u64) {
    let bytes = std::fs::read(store).unwrap();
    std::fs::write(store, &bytes[..bytes.len() - 9]).unwrap();
    let message = refused(&["data", "inspect", text(store)]);
    assert!(
        message.contains(&format!("episode {}", episodes - 1)) && message.contains("data repair"),
        "{message}"
    );
    let mended = json(&["data", "repair", text(store), "--json"]);
    assert_eq!((&mended["kept"], mended["dropped"].as_array().unwrap().len()), (&(episodes - 1).into(), 1));
    assert_eq!(json(&["data", "inspect", text(store), "--json"])["episodes"], episodes - 1);
}
