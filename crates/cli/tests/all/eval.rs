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

/// Random on seven pairs with more flags, into `dir`.
fn seven(dir: &Path, more: &[&str]) -> std::process::Output {
    let args = ["eval", "--policy", "random", "--episodes", "7", "--out", text(dir)];
    worldbench(&[&args, more].concat())
}

#[test]
fn merged_parts_are_the_unsharded_result() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    assert!(seven(&at("whole"), &["--threads", "2"]).status.success());
    for (i, threads) in ["1", "2", "1"].iter().enumerate() {
        let shard = format!("{}/3", i + 1);
        let part = at("parts").join(format!("{}", i + 1));
        let output = seven(&part, &["--threads", threads, "--shard", &shard]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(stdout(&output).contains("worldbench merge"), "{}", stdout(&output));
    }
    let parts: Vec<String> = (1..=3).map(|i| text(&at("parts").join(i.to_string())).to_string()).collect();
    let joined = at("joined");
    // A rerun, here by the directory above the parts, is harmless.
    for roots in [&[&parts[2], &parts[0], &parts[1]][..], &[&text(&at("parts")).to_string()]] {
        let words: Vec<&str> = roots.iter().map(|root| root.as_str()).collect();
        let output = worldbench(&[&["merge"], &words[..], &["--out", text(&joined)]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
    }
    for file in ["episodes.jsonl", "summary.json"] {
        let read = |dir: &Path| std::fs::read_to_string(dir.join(file)).unwrap();
        assert_eq!(read(&joined), read(&at("whole")), "{file}");
    }
    let page = at("page.md");
    let output = worldbench(&["report", text(&at("whole")), text(&joined), "-o", text(&page)]);
    let shown = stdout(&output);
    assert!(shown.contains("shown once") && shown.contains("(1 rows"), "{shown}");
    assert!(
        refused(&["merge", &parts[0], &parts[2], "--out", text(&joined)]).contains("part 2/3 is missing")
    );
    let over = refused(&["merge", text(&at("parts")), "--out", &parts[0]]);
    assert!(over.contains("where the parts are read from"), "{over}");
    let other = seven(Path::new(&parts[0]), &["--shard", "2/3"]);
    assert!(stderr(&other).contains("holds part 1/3"), "{}", stderr(&other));
}

#[test]
fn seeds_are_summarised_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    let [one, three, other] = ["one", "three", "other"].map(|name| dir.path().join(name));
    assert!(seven(&one, &[]).status.success());
    let output = seven(&three, &["--seeds", "3"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("mean (min to max) over 3 evaluation seeds"), "{}", stdout(&output));
    // The first of several seeds is the run of one seed.
    let read = |path: PathBuf| std::fs::read_to_string(path.join("episodes.jsonl")).unwrap();
    assert_eq!(read(one.clone()), read(three.join("seed-0")));
    let shown = json(&["compare", text(&three), text(&one), "--json"]);
    assert_eq!((&shown["all"]["n"], &shown["evaluations"]), (&7.into(), &serde_json::json!([3, 1])));
    let output = worldbench(&["compare", text(&one), text(&one)]);
    let shown = stdout(&output);
    assert!(shown.contains("no difference shown") && shown.contains("with itself"), "{shown}");
    let output = worldbench(&["compare", text(&one), text(&three.join("seed-1"))]);
    let shown = stdout(&output);
    assert!(
        shown.contains(&format!("A: random in {}", one.display())) && !shown.contains("itself"),
        "{shown}"
    );
    assert!(seven(&other, &["--episodes", "6"]).status.code() == Some(2), "given twice");
    let output = worldbench(&["eval", "--policy", "random", "--episodes", "6", "--out", text(&other)]);
    assert!(output.status.success());
    assert!(refused(&["compare", text(&one), text(&other)]).contains("same --episodes"));
    let provenance = std::fs::read_to_string(one.join("provenance.json")).unwrap();
    let provenance: Value = serde_json::from_str(&provenance).unwrap();
    assert!(provenance["command"].as_str().unwrap().starts_with("worldbench eval --policy random"));
    assert!(provenance["machine"]["cores"].as_u64().unwrap() > 0);
}

/// The Python agent of the repository, or nothing where there is no Python.
fn agent() -> Option<String> {
    let found = Command::new("python3").arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        skipped("there is no python3");
        return None;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/agent.py");
    Some(format!("python3 '{}'", path.display()))
}

#[test]
fn the_example_agent_is_scored() {
    let Some(command) = agent() else { return };
    let dir = tempfile::tempdir().unwrap();
    let run = |threads: &str| {
        let out = dir.path().join(threads);
        let args = ["eval", "--policy-cmd", &command, "--episodes", "6", "--threads", threads];
        let output = worldbench(&[&args[..], &["--out", text(&out), "--json"]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let row: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&row["system"], &row["planner"]), (&"external".into(), &"straight walk".into()));
        assert_eq!(row["variant"], command.as_str());
        assert!(row["notes"][0].as_str().unwrap().contains("64 px frames and proprioception"), "{row}");
        row["score"]["all"].clone()
    };
    assert_eq!(run("1"), run("2"));
    // What is not measured is equal for one and two processes.
    assert_eq!(episodes(&dir.path().join("1")), episodes(&dir.path().join("2")));
}

#[test]
fn agents_that_misbehave_are_refused() {
    let refuse = |command: &str| refused(&["eval", "--policy-cmd", command, "--episodes", "1"]);
    assert!(refuse("no-such-program").contains("no-such-program"));
    assert!(refused(&["eval", "--policy-cmd", "x", "--policy-timeout", "0"]).contains("above 0"));
    if agent().is_some() {
        let noisy = refuse("python3 -c 'print(\"loading\")'");
        assert!(noisy.contains("`loading`") && noisy.contains("standard error"), "{noisy}");
    }
}

#[cfg(unix)]
#[test]
fn an_agent_ends_with_worldbench() {
    let dir = tempfile::tempdir().unwrap();
    let [begun, left] = ["begun", "left"].map(|name| dir.path().join(name));
    let agent = format!("sh -c 'echo > {}; (sleep 1; echo > {}) | cat'", begun.display(), left.display());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_worldbench"));
    let mut running = command.args(["eval", "--policy-cmd", &agent, "--episodes", "1"]).spawn().unwrap();
    while !begun.exists() {
        assert_eq!(running.try_wait().unwrap(), None, "it ended before the agent began");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let id = running.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(running.wait().unwrap().code(), Some(130));
    std::thread::sleep(std::time::Duration::from_millis(1300));
    assert!(!left.exists(), "it went on");
}
