use super::*;

/// The episode files of all baselines, run on a few pairs.
fn baselines(dir: &Path, threads: &str) -> Vec<String> {
    let names = ["random", "no-op", "replay", "weak"];
    let policies = names.join(",");
    let args = ["eval", "--policy", &policies, "--episodes", "6", "--threads", threads, "--out", text(dir)];
    let output = worldbench(&args);
    assert!(output.status.success(), "{}", stderr(&output));
    let sorted = |name: &&str| {
        let journal = std::fs::read_to_string(dir.join(name).join("episodes.jsonl")).unwrap();
        // Episodes are written as they finish.
        let mut lines: Vec<&str> = journal.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    names.iter().map(sorted).collect()
}

#[test]
fn baselines_do_not_depend_on_threads() {
    let dir = tempfile::tempdir().unwrap();
    let one = baselines(&dir.path().join("one"), "1");
    assert_eq!(one, baselines(&dir.path().join("two"), "2"));
    let row = std::fs::read(dir.path().join("one/replay/summary.json")).unwrap();
    let row: Value = serde_json::from_slice(&row).unwrap();
    assert_eq!((&row["score"]["all"]["n"], &row["split"]), (&6.into(), &"dev".into()));
    assert!(row["score"]["all"]["successes"].as_u64().unwrap() >= 5, "{row}");
}

#[test]
fn a_run_is_continued_and_never_mixed_with_another() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let run =
        |more: &[&str]| worldbench(&[&["eval", "--policy", "random", "--out", text(&out)], more].concat());
    assert!(run(&["--episodes", "2"]).status.success());
    let output = run(&["--episodes", "4", "--gif", "3"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let shown = stdout(&output);
    assert!(shown.contains("n = 4") && shown.contains("--policy random,no-op,replay,oracle"), "{shown}");
    let journal = std::fs::read_to_string(out.join("episodes.jsonl")).unwrap();
    assert_eq!(journal.lines().count(), 1 + 4);
    assert!(out.join("episode-003.gif").is_file());
    let other = run(&["--seed", "1"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).contains("another run"), "{}", stderr(&other));
}

#[test]
fn plan_writes_a_gif() {
    let dir = tempfile::tempdir().unwrap();
    let output = worldbench_in(dir.path(), &["plan", "--policy", "oracle", "--episode", "2", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&outcome["index"], &outcome["success"]), (&2.into(), &true.into()));
    assert!(dir.path().join("episode.gif").is_file());
}
