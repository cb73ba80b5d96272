//! The smallest benchmark, from data to table.

use super::{refused, text, worldbench};

#[test]
fn a_restarted_bench_ends_with_the_identical_table() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("smoke");
    let run = || {
        let output =
            worldbench(&["bench", "--preset", "smoke", "--only", "pldm,push-t", "--out", text(&out)]);
        assert!(output.status.success(), "{}", super::stderr(&output));
        std::fs::read_to_string(out.join("BENCHMARKS.md")).unwrap()
    };
    let table = run();
    assert!(table.contains("PLDM") && table.contains("MPPI") && table.contains("oracle"), "{table}");
    // As after a kill: one row's summary and the last episode's line are gone, the checkpoint stays.
    let row = out.join("rows/pldm-compact-mppi");
    std::fs::remove_file(row.join("summary.json")).unwrap();
    assert_eq!(run(), table);
    let checkpoint = out.join("checkpoints/pldm-compact");
    let arguments =
        ["eval", "--checkpoint", text(&checkpoint), "--episodes", "1", "--set", "solver.iterations=1"];
    assert!(worldbench(&arguments).status.success());
    let report = directory.path().join("diagnosis");
    let small = ["--pairs", "2", "--samples", "8", "--iterations", "1", "--out", text(&report)];
    let output = worldbench(&[&["diagnose", text(&checkpoint)], &small[..]].concat());
    assert!(output.status.success(), "{}", super::stderr(&output));
    let json = std::fs::read_to_string(report.join("diagnosis.json")).unwrap();
    assert!(json.contains("\"pairs\": 2") && report.join("diagnosis.png").is_file(), "{json}");
}

#[test]
fn a_policy_is_trained_on_an_encoder_scored_and_looked_at_from_its_checkpoint_alone() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("smoke");
    let run = || {
        let output = worldbench(&["bench", "--preset", "smoke", "--only", "gcbc", "--out", text(&out)]);
        assert!(output.status.success(), "{}", super::stderr(&output));
        std::fs::read_to_string(out.join("BENCHMARKS.md")).unwrap()
    };
    let table = run();
    assert!(table.contains("GCBC (compact encoder + proprioception)"), "{table}");
    assert!(!table.contains("| PLDM"), "a model that was trained for its encoder only has no row: {table}");
    std::fs::remove_file(out.join("rows/gcbc-compact/summary.json")).unwrap();
    assert_eq!(run(), table);
    // The exported checkpoint acts without the world model that it saw with, and without the data.
    let (gcbc, data) = (out.join("checkpoints/gcbc-compact"), out.join("data.wbs"));
    let gciql = directory.path().join("gciql");
    let encoder = format!("model.encoder.checkpoint={}", text(&out.join("checkpoints/pldm-compact")));
    let train = ["train", "gciql-compact", "--data", text(&data), "--out", text(&gciql), "--set", &encoder];
    let output = worldbench(&[&train[..], &["--set", "steps=3", "--set", "batch=8"]].concat());
    assert!(output.status.success(), "{}", super::stderr(&output));
    // What is refused leaves no run directory behind.
    let none = directory.path().join("none");
    let policy = format!("model.encoder.checkpoint={}", text(&gciql));
    for (more, expect) in [
        (["pldm-compact", "--set", "batch=100000"], "100000"),
        (["pldm-compact", "--init", "no/such/run"], "no/such/run"),
        (["gcbc-trained-compact", "--set", &policy], "of method `gciql` and architecture `goal-policy`"),
    ] {
        let message =
            refused(&[&["train"], &more[..], &["--data", text(&data), "--out", text(&none)]].concat());
        assert!(message.contains(expect) && !none.exists(), "{more:?}: {message}");
    }
    std::fs::remove_dir_all(out.join("checkpoints/pldm-compact")).unwrap();
    std::fs::remove_file(&data).unwrap();
    let score = |set: &str| {
        super::json(&["eval", "--checkpoint", text(&gcbc), "--episodes", "3", "--json", "--set", set])["score"].clone()
    };
    assert_ne!(score("execute=1"), score("execute=5"));
    assert!(refused(&["eval", "--checkpoint", text(&gcbc), "--set", "execute=6"]).contains("1 to 5"));
    assert!(
        refused(&["eval", "--checkpoint", text(&gcbc), "--planner", "cem"]).contains("without a planner")
    );
    assert!(refused(&["diagnose", text(&gcbc)]).contains("no world model"));
    assert!(refused(&["plot", "value", text(&gcbc)]).contains("no value"));
    let exported = directory.path().join("exported");
    let output = worldbench(&["checkpoints", "export", text(&gciql), "--out", text(&exported)]);
    assert!(output.status.success(), "{}", super::stderr(&output));
    let output = worldbench(&["checkpoints", "verify", text(&gcbc), text(&exported)]);
    assert!(output.status.success() && super::stdout(&output).contains("gciql goal-policy"));
    let report = super::json(&["plot", "value", text(&exported), "--grid", "4", "--json"]);
    assert_eq!(report["map"].as_array().unwrap().len(), 16);
    assert!(exported.join("value.png").is_file() && exported.join("value.json").is_file());
}

#[test]
fn a_preset_is_checked_before_its_first_cell_starts() {
    let smoke = include_str!("../../../../configs/bench/smoke.toml");
    let directory = tempfile::tempdir().unwrap();
    let (preset, out) = (directory.path().join("wrong.toml"), directory.path().join("out"));
    let encoder = "encoder = \"pldm-compact\"";
    for (right, wrong, expect) in [
        ("episodes = 4", "episodes = 0", "episodes = 0 must be 1 to 200"),
        ("\"oracle\"", "\"orcale\"", "did you mean `oracle`"),
        ("collect = \"smoke\"", "collect = \"smok\"", "did you mean `smoke`"),
        ("train = \"lewm-compact\"", "train = \"lewm-compat\"", "did you mean `lewm-compact`"),
        ("steps=5\"", "stpes=5\"", "did you mean `steps`"),
        ("\"mppi\", \"cem\"", "\"mppi\", \"cme\"", "known are cem"),
        ("\"mppi\", \"cem\"", "\"nope.toml\"", "there is no file nope.toml"),
        ("solver.topk=8", "solver.topq=8", "did you mean `solver.topk`"),
        ("solver.samples=32", "solver.samples=100000000000", "1..=1000000"),
        ("solver.topk=8", "plan.action_block=4", "trained on 5"),
        (encoder, "encoder = \"gcbc\"", "no earlier model"),
        (encoder, "encoder = \"dino-wm-compact\"", "no compact PLDM or LeWM"),
        (encoder, "", "it has no encoder"),
        (encoder, "encoder = \"pldm-compact\"\nsolver_set = [\"execute=9\"]", "1 to 5"),
        (encoder, "encoder = \"pldm-compact\"\nplanners = [\"cem\"]", "without a planner"),
    ] {
        assert!(smoke.contains(right), "{right}");
        std::fs::write(&preset, smoke.replace(right, wrong)).unwrap();
        let message = refused(&["bench", "--preset", text(&preset), "--out", text(&out)]);
        assert!(message.contains(expect) && !out.exists(), "{wrong}: {message}");
    }
}

#[test]
fn wrong_names_are_refused() {
    assert!(
        refused(&["train", "pldm", "--data", "x.wbs", "--out", "y"]).contains("did you mean `pldm-compact`")
    );
    assert!(
        refused(&["train", "no.toml", "--data", "x.wbs", "--out", "y"]).contains("there is no file no.toml")
    );
    assert!(refused(&["bench", "--preset", "no/such"]).contains("there is no file no/such"));
    assert!(refused(&["bench", "--preset", "quik"]).contains("did you mean `quick`"));
    assert!(refused(&["bench", "--preset", "smoke", "--only", "gcbd"]).contains("gcbc-compact"));
    assert!(refused(&["train", "pldm-compat", "--data", "x.wbs", "--out", "y"]).contains("pldm-compact"));
    assert!(refused(&["eval", "--checkpoint", "no/such/dir"]).contains("config.toml"));
}
