//! Two-Room through the whole product: the commands of Push-T with one word changed.

use super::*;

#[test]
fn data_of_two_room_are_collected_inspected_exported_and_drawn_from() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rooms.wbs");
    let collect = |more: &[&str]| {
        json(&[&["collect", "--env", "two-room", "--out", text(&path), "--json"], more].concat())
    };
    let summary = collect(&["--preset", "two-room-smoke"]);
    assert_eq!((&summary["config"]["env"], &summary["kinds"]["expert"]), (&"two_room".into(), &40.into()));
    let facts = json(&["data", "inspect", text(&path), "--json"]);
    assert_eq!((&facts["env"], &facts["hash"]), (&"two_room".into(), &summary["hash"]));
    let stats = json(&["data", "stats", text(&path), "--json"]);
    assert_eq!(stats["columns"].as_array().unwrap().len(), 4, "{stats}");
    assert!(stats["hard_share"].as_f64().unwrap() > 0.05, "{stats}");

    let (hdf5, back) = (dir.path().join("rooms.h5"), dir.path().join("back.wbs"));
    let export =
        ["data", "export", text(&path), "--out", text(&hdf5), "--size", "32", "--episodes", "0-3", "--json"];
    assert_eq!(json(&export)["episodes"], 4);
    let import = [
        "data",
        "import",
        text(&hdf5),
        "--env",
        "two-room",
        "--check-pixels",
        "--out",
        text(&back),
        "--json",
    ];
    let report = json(&import);
    assert_eq!(report["frames_checked"], report["frames_identical"]);
    let wrong = refused(&["data", "import", text(&hdf5), "--out", text(&dir.path().join("x.wbs"))]);
    assert!(wrong.contains("--env two_room"), "{wrong}");

    let drawn = [
        "eval",
        "--env",
        "two-room",
        "--protocol",
        "swm-v1",
        "--data",
        text(&path),
        "--policy",
        "replay",
        "--json",
    ];
    let row = json(&drawn);
    assert_eq!((&row["score"]["all"]["n"], &row["environment"]), (&50.into(), &"two_room".into()));
    assert!(row["score"]["all"]["rate"].as_f64().unwrap() >= 0.99, "{row}");
    let other = refused(&["eval", "--protocol", "swm-v1", "--data", text(&path), "--policy", "replay"]);
    assert!(other.contains("--env two_room"), "{other}");
    let push_t = refused(&["collect", "--out", text(&path), "--preset", "smoke"]);
    assert!(push_t.contains("store of two_room"), "{push_t}");
}

#[test]
fn a_model_trained_on_two_room_plans_there_without_being_told() {
    let dir = tempfile::tempdir().unwrap();
    let (data, run) = (dir.path().join("rooms.wbs"), dir.path().join("pldm"));
    assert!(worldbench(&["collect", "--preset", "two-room-smoke", "--out", text(&data)]).status.success());
    let train = ["train", "pldm-compact", "--data", text(&data), "--out", text(&run)];
    let small = ["--set", "steps=10", "--set", "batch=16", "--set", "validation=0.2"];
    let output = worldbench(&[&train[..], &small].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let eval =
        ["eval", "--checkpoint", text(&run), "--episodes", "2", "--set", "solver.iterations=1", "--json"];
    assert_eq!(json(&eval)["environment"], "two_room");
    let wrong = refused(&[&eval[..], &["--env", "push_t"]].concat());
    assert!(wrong.contains("trained on two_room"), "{wrong}");
    let diagnosis = ["diagnose", text(&run), "--pairs", "2", "--samples", "8", "--iterations", "1", "--json"];
    let report = json(&diagnosis);
    assert_eq!(report["probe"].as_array().unwrap().len(), 2, "{report}");
}

/// The smallest benchmark with two words changed: every method is trained and scored.
#[test]
fn every_method_runs_on_two_room() {
    let dir = tempfile::tempdir().unwrap();
    let (preset, out) = (dir.path().join("rooms.toml"), dir.path().join("out"));
    let smoke = include_str!("../../../../configs/bench/smoke.toml");
    let rooms = "env = \"two_room\"\ncollect = \"two-room-smoke\"";
    std::fs::write(&preset, smoke.replace("collect = \"smoke\"", rooms)).unwrap();
    let output = worldbench(&["bench", "--preset", text(&preset), "--out", text(&out)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let page = std::fs::read_to_string(out.join("BENCHMARKS.md")).unwrap();
    assert!(!page.contains("| Push-T") && !page.contains("No row"), "{page}");
    let rows = worldbench_eval::ResultDir::find(&out.join("rows")).unwrap();
    assert_eq!(rows.len(), 4 + 10);
    assert!(rows.iter().all(|row| row.row.environment == "two_room" && row.row.score.all.n == 4));
}

#[test]
fn floor_and_ceiling_of_two_room() {
    let rate = |policy: &str| {
        let row = json(&["eval", "--env", "two-room", "--policy", policy, "--episodes", "12", "--json"]);
        row["score"]["all"]["rate"].as_f64().unwrap()
    };
    assert_eq!(rate("no-op"), 0.0);
    assert!(rate("random") < 0.5 && rate("replay") == 1.0 && rate("oracle") >= 0.9);
}

#[test]
fn every_protocol_is_listed_shown_and_holds() {
    let listed = json(&["protocol", "list", "--json"]);
    assert_eq!(listed.as_array().unwrap().len(), 12, "six protocols on two environments");
    for env in ["push_t", "two_room"] {
        for name in ["held-out", "moderate", "strict", "unlimited", "shift", "swm-v1"] {
            let shown = json(&["protocol", "show", name, "--env", env, "--json"]);
            assert!(!shown["splits"].as_array().unwrap().is_empty(), "{name} {env}");
            let verified = json(&["protocol", "verify", "--protocol", name, "--env", env, "--json"]);
            assert_eq!(verified["ok"], true, "{name} {env}: {verified}");
        }
    }
    let unknown = refused(&["protocol", "show", "strickt"]);
    assert!(unknown.contains("did you mean `strict`"), "{unknown}");
}

#[test]
fn a_manifest_of_another_protocol_or_split_is_a_miss() {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../protocols/manifests/push_t");
    for (file, protocol, split, expect) in [
        ("held-out-dev.json", "held-out", "dev", "ok"),
        ("held-out-test.json", "held-out", "", "ok"),
        ("held-out-dev.json", "held-out", "test", "the split is `dev`, not `test`"),
        ("held-out-dev.json", "strict", "dev", "those of held-out/dev, not of strict"),
        ("moderate-test.json", "strict", "test", "those of moderate/test, not of strict"),
        ("swm-v1.json", "held-out", "dev", "there are 50 pairs, and held-out has 200"),
    ] {
        let file = manifests.join(file);
        let mut words = vec!["protocol", "verify", "--manifest", text(&file), "--protocol", protocol];
        if !split.is_empty() {
            words.extend(["--split", split]);
        }
        let output = worldbench(&words);
        let shown = stdout(&output);
        assert_eq!(output.status.success(), expect == "ok", "{words:?}: {shown}");
        assert!(shown.contains(expect), "{words:?}: {shown}");
    }
}
