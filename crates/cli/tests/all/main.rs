//! The binary as a user meets it: exit codes, messages, files.

// Helpers outside #[test] functions may fail a test by panicking, too.
#![allow(clippy::unwrap_used)]

mod bench;
mod collect;
mod eval;
mod examples;
mod parity;
mod published;
mod report;
mod two_room;
mod usage;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Runs the binary in `dir`.
fn worldbench_in(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_worldbench")).args(args).current_dir(dir).output().unwrap()
}

/// Runs the binary; its output and exit code.
fn worldbench(args: &[&str]) -> Output {
    worldbench_in(Path::new(env!("CARGO_MANIFEST_DIR")), args)
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The one JSON object that a successful run printed.
fn json(args: &[&str]) -> Value {
    let output = worldbench(args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The message of a run that must end with exit code 2 and without a panic.
fn refused(args: &[&str]) -> String {
    let output = worldbench(args);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
    assert!(!message.contains("panicked"), "{args:?}: {message}");
    message
}

/// The key and the episodes of a result as they stand there, without the measured times.
fn episodes(result: &Path) -> Vec<Value> {
    let journal = std::fs::read_to_string(result.join("episodes.jsonl")).unwrap();
    let mut lines: Vec<Value> = journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.iter_mut().for_each(|line| line["plan_seconds"] = 0.into());
    lines
}

/// Says why a test does nothing; not with `eprintln!`, which a passing test does not show.
fn skipped(why: &str) {
    let _ = std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes());
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
