use super::*;

const KEYS: [&str; 7] =
    ["state", "block_angle_raw", "block_velocity", "contact_points", "n_contacts", "reward", "terminated"];

#[test]
fn replay_prints_what_the_fixture_holds() {
    let path = fixtures().join("env/pusht/episodes/small_tee_reseat_f32.json");
    let recorded: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let printed = json(&["replay", text(&path), "--json"]);
    for key in KEYS {
        assert_eq!(
            printed[key].as_array().unwrap().len(),
            recorded["ops"].as_array().unwrap().len(),
            "{key}"
        );
    }
    // Rewards may differ in the last digit; everything else is equal.
    for key in KEYS.iter().filter(|key| **key != "reward") {
        assert_eq!(printed[key], recorded[key], "{key}");
    }
    assert_eq!(printed["max_deviation"]["state"], 0.0);
    assert!(printed["max_deviation"]["reward"].as_f64().unwrap() <= 1e-12);
}

#[test]
fn replay_reads_two_room_episodes_and_draws_them() {
    let path = fixtures().join("env/tworoom/episodes/multi_door_1.json");
    let recorded: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let printed = json(&["replay", text(&path), "--json", "--frames", text(dir.path()), "--size", "32"]);
    for key in ["pos", "distance", "terminated", "expert_action", "reset_obs", "final_obs"] {
        assert_eq!(printed[key], recorded[key], "{key}");
    }
    for key in ["pos", "distance", "terminated", "expert_action", "observation"] {
        assert_eq!(printed["max_deviation"][key], 0.0, "{key}");
    }
    assert!(dir.path().join("multi_door_1_059.png").is_file());
}

#[test]
fn replay_goes_on_after_a_bad_file_and_draws_frames() {
    let dir = tempfile::tempdir().unwrap();
    let good = fixtures().join("env/pusht/episodes/T_wall_f32.json");
    let bad = dir.path().join("bad.json");
    std::fs::write(&bad, r#"{"ops": [["act", [0, 0]]]}"#).unwrap();
    let frames = dir.path().join("frames");
    let output = worldbench(&["replay", text(&bad), text(&good), "--frames", text(&frames), "--size", "32"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("bad.json") && stderr(&output).contains("largest deviation"));
    assert_eq!(stdout(&output).lines().count(), 1);
    assert!(frames.join("T_wall_f32_061.png").is_file());
}

#[test]
fn selftest_passes_and_lacks_nothing() {
    let report = json(&["selftest", "--strict", "--json"]);
    assert_eq!(report["missed"], 0);
    let count = |status: &str| {
        report["items"].as_array().unwrap().iter().filter(|item| item["status"] == status).count() as u64
    };
    assert!(count("ok") > 300 && report["ok"] == count("ok"), "{}", count("ok"));
    assert_eq!(report["not_built"], 0);
}

#[test]
fn selftest_misses_a_wrong_number_and_an_empty_directory() {
    let dir = tempfile::tempdir().unwrap();
    let episodes = dir.path().join("env/pusht/episodes");
    std::fs::create_dir_all(&episodes).unwrap();
    let source = fixtures().join("env/pusht/episodes/T_wall_f32.json");
    let mut episode: Value = serde_json::from_slice(&std::fs::read(source).unwrap()).unwrap();
    episode["state"][40][2] = 17.0.into();
    std::fs::write(episodes.join("wrong.json"), episode.to_string()).unwrap();
    let output = worldbench(&["selftest", "--fixtures", text(dir.path()), "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let missed = |name: &str| {
        let items = report["items"].as_array().unwrap();
        items.iter().any(|item| item["status"] == "miss" && item["item"] == name)
    };
    for name in [
        "push_t episode wrong state",
        "push_t frames",
        "push_t seeds",
        "two_room episodes",
        "pldm",
        "planners",
    ] {
        assert!(missed(name), "{name}: {report}");
    }
    assert!(!missed("push_t episode wrong contacts"));
}
