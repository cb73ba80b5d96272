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
fn wrong_names_are_refused() {
    assert!(refused(&["bench", "--preset", "quik"]).contains("did you mean `quick`"));
    assert!(refused(&["bench", "--preset", "smoke", "--only", "gcbc"]).contains("pldm-compact"));
    assert!(refused(&["train", "pldm-compat", "--data", "x.wbs", "--out", "y"]).contains("pldm-compact"));
    assert!(refused(&["eval", "--checkpoint", "no/such/dir"]).contains("config.toml"));
}
