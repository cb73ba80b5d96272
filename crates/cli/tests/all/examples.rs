//! The examples of `examples/`, which `docs/extend.md` builds on, run as a reader would run them.

use super::*;

/// Runs an example in `dir` and returns what it prints.
fn example(dir: &Path, name: &str, args: &[&str]) -> String {
    // Cargo builds examples beside the binary, before it runs tests.
    let path = Path::new(env!("CARGO_BIN_EXE_worldbench")).with_file_name("examples").join(name);
    let output = Command::new(&path).args(args).current_dir(dir).output();
    let output = output.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(output.status.success(), "{name}: {}", stderr(&output));
    stdout(&output)
}

#[test]
fn data_training_planning_and_an_encoder_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let printed = example(dir.path(), "02_collect", &["rooms.wbs"]);
    assert!(printed.contains("batch 2: 786432 bytes of frames, 640 actions"), "{printed}");
    let printed = example(dir.path(), "03_train_pldm", &["rooms.wbs", "pldm"]);
    assert!(printed.contains("step 20 of 20"), "{printed}");
    let printed = example(dir.path(), "04_plan", &["pldm"]);
    assert!(printed.contains("pldm compact of two_room") && printed.contains("n = 4"), "{printed}");
    let printed = example(dir.path(), "07_custom_encoder", &["rooms.wbs"]);
    let error = printed.lines().next().unwrap();
    let median: f64 =
        error.split("median error ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    assert!(median < 15.0, "a grid of colours shows where the dot is: {printed}");
}

#[test]
fn a_custom_environment_and_a_custom_model_are_scored() {
    let dir = tempfile::tempdir().unwrap();
    let printed = example(dir.path(), "05_custom_env", &["field"]);
    assert!(printed.contains("20 episodes of field"), "{printed}");
    for policy in ["replay", "oracle"] {
        let line = printed.lines().find(|line| line.starts_with(policy)).unwrap();
        assert!(line.contains("100.0 %"), "{printed}");
        assert!(dir.path().join("field").join(policy).with_extension("gif").is_file());
    }
    let printed = example(dir.path(), "06_custom_model", &[]);
    let rate: f64 = printed.split("success ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(rate >= 50.0, "{printed}");
    let printed = example(dir.path(), "01_push_t_gif", &["push_t.gif"]);
    assert!(printed.contains("success: true") && dir.path().join("push_t.gif").is_file(), "{printed}");
}

#[test]
fn the_code_in_the_page_is_that_of_the_examples() {
    let page = include_str!("../../../../docs/extend.md");
    let code = include_str!("../../../../examples/field/mod.rs");
    let blocks: Vec<&str> =
        page.split("```rust\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect();
    assert!(!blocks.is_empty());
    for line in blocks.iter().flat_map(|block| block.lines()) {
        assert!(code.contains(line.trim()), "docs/extend.md: `{line}` is not in examples/field/mod.rs");
    }
}
