//! The published checkpoints load, and repeat the published episodes.

use std::fs;

use super::*;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_published_checkpoints_are_small_whole_and_carry_their_score() {
    let mut directories: Vec<PathBuf> =
        fs::read_dir(root().join("checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    directories.sort();
    assert!(directories.len() >= 7);
    let mut total = 0;
    for directory in &directories {
        let bytes = fs::metadata(directory.join("model.safetensors")).unwrap().len();
        assert!(bytes <= 8_000_000, "{}: {bytes} bytes", directory.display());
        total += bytes;
        let card = fs::read_to_string(directory.join("card.md")).unwrap();
        for part in ["% [", "n = 200", "hash ", "Licence"] {
            assert!(card.contains(part), "{}: no `{part}` in card.md", directory.display());
        }
    }
    assert!(total <= 40_000_000, "{total} bytes");
    let words = ["checkpoints", "verify"].into_iter().chain(directories.iter().map(|d| text(d)));
    let output = worldbench(&words.collect::<Vec<_>>());
    assert!(output.status.success(), "{}", stdout(&output));
}

#[test]
fn the_published_checkpoints_repeat_the_published_episodes() {
    let dir = tempfile::tempdir().unwrap();
    let planner = ["--planner", "cem", "--set", "solver.samples=128", "--set", "solver.iterations=10"];
    let planner = planner.into_iter().chain(["--set", "solver.topk=20"]).collect();
    for (checkpoint, row, how, episodes) in [
        ("two_room-gcbc-compact", "two_room/rows/gcbc-compact", vec!["--set", "execute=2"], "6"),
        ("two_room-lewm-compact", "two_room/rows/lewm-compact-cem", vec!["--planner", "cem"], "1"),
        ("gcbc-compact", "push_t/rows/gcbc-compact", vec!["--set", "execute=2"], "6"),
        ("iq-learn-compact", "push_t/rows/iq-learn-compact", vec![], "6"),
        ("pldm-compact", "push_t/rows/pldm-compact-mppi", vec!["--planner", "mppi"], "1"),
        ("lewm-compact", "push_t/rows/lewm-compact-cem", vec!["--planner", "cem"], "1"),
        ("dino-wm-compact", "push_t/rows/dino-wm-compact-cem", planner, "1"),
    ] {
        let (weights, out) = (root().join("checkpoints").join(checkpoint), dir.path().join(row));
        let mut words =
            vec!["eval", "--checkpoint", text(&weights), "--split", "test", "--episodes", episodes];
        words.extend(how);
        words.extend(["--out", text(&out)]);
        let output = worldbench(&words);
        assert!(output.status.success(), "{}", stderr(&output));
        let repeated = outcomes(&out);
        assert_eq!(repeated.len().to_string(), episodes);
        let published = outcomes(&root().join("benchmarks").join(row));
        assert_eq!(repeated, published[..repeated.len()], "{row}");
    }
}

#[test]
fn learned_rows_do_not_depend_on_threads_parts_or_batches() {
    let small = ["--set", "solver.samples=16", "--set", "solver.iterations=2", "--set", "solver.topk=4"];
    for (checkpoint, how, batches) in [
        ("two_room-lewm-compact", &small[..], &[][..]),
        ("dino-wm-compact", &small[..], &["--max-memory", "1"]),
        ("two_room-gcbc-compact", &["--set", "execute=2"], &[]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let weights = root().join("checkpoints").join(checkpoint);
        let run = |name: &str, more: &[&str]| {
            let out = dir.path().join(name);
            let words = ["eval", "--checkpoint", text(&weights), "--episodes", "4", "--out", text(&out)];
            let output = worldbench(&[&words[..], how, more].concat());
            assert!(output.status.success(), "{}", stderr(&output));
            out
        };
        let whole = episodes(&run("one", &["--threads", "1"]));
        assert_eq!(whole, episodes(&run("two", &["--threads", "2"])), "{checkpoint}");
        // One candidate at a time, or all sixteen.
        assert_eq!(whole, episodes(&run("batches", batches)), "{checkpoint}");
        let parts = ["1/2", "2/2"].map(|part| run(&part.replace('/', "-of-"), &["--shard", part]));
        let merged = dir.path().join("merged");
        let output = worldbench(&["merge", text(&parts[0]), text(&parts[1]), "--out", text(&merged)]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(whole, episodes(&merged), "{checkpoint}");
    }
}

#[cfg(unix)]
#[test]
fn the_published_page_has_the_tables_of_the_published_rows() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["benchmarks", "checkpoints", "docs"] {
        std::os::unix::fs::symlink(root().canonicalize().unwrap().join(name), dir.path().join(name)).unwrap();
    }
    let committed = fs::read_to_string(root().join("BENCHMARKS.md")).unwrap();
    fs::write(dir.path().join("BENCHMARKS.md"), &committed).unwrap();
    let output = worldbench_in(dir.path(), &["report", "benchmarks", "-o", "BENCHMARKS.md"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let written = fs::read_to_string(dir.path().join("BENCHMARKS.md")).unwrap();
    assert!(written == committed, "run `worldbench report benchmarks -o BENCHMARKS.md`");
}

#[test]
fn rows_are_compared_over_all_their_seeds() {
    let rows = root().join("benchmarks/push_t/rows");
    let (a, b) = (rows.join("pldm-compact-mppi"), rows.join("gciql-compact-seed1"));
    let compared = |more: &[&str]| json(&[&["compare", text(&a), text(&b), "--json"], more].concat());
    let one = compared(&[]);
    assert_eq!((&one["evaluations"][0], one["warnings"].as_array().unwrap().len()), (&1.into(), 2));
    let all = compared(&["--seeds"]);
    assert_eq!((&all["evaluations"], &all["warnings"]), (&serde_json::json!([3, 3]), &serde_json::json!([])));
}

#[test]
fn a_directory_above_checkpoints_is_told_where_they_lie() {
    let output = worldbench(&["checkpoints", "verify", text(&root().join("checkpoints"))]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("lie below it, such as"), "{}", stdout(&output));
}

#[test]
fn statistics_that_cannot_be_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let from = root().join("checkpoints/gcbc-compact");
    fs::copy(from.join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    let config = fs::read_to_string(from.join("config.toml")).unwrap();
    for (key, value) in [("proprio_mean", "nan"), ("proprio_std", "-1.0")] {
        let (before, after) = config.split_once(&format!("{key} = [")).unwrap();
        let (_, after) = after.split_once(',').unwrap();
        fs::write(dir.path().join("config.toml"), format!("{before}{key} = [{value},{after}")).unwrap();
        let output = worldbench(&["checkpoints", "verify", text(dir.path())]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stdout(&output).contains(key), "{}", stdout(&output));
    }
}

/// Success and steps of every episode, by number of the pair.
fn outcomes(result: &Path) -> Vec<(u64, bool, u64)> {
    let of = |line: &Value| {
        (line["index"].as_u64().unwrap(), line["success"].as_bool().unwrap(), line["steps"].as_u64().unwrap())
    };
    episodes(result)[1..].iter().map(of).collect()
}
