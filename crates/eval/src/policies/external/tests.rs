use worldbench_env::domain;

use super::*;
use crate::protocol::{Protocol, Split};
use crate::{EvalOptions, Evaluation, evaluate};

const HELLO: &str =
    r#"{"type":"hello","protocol":1,"name":"t","resolution":16,"inputs":["pixels","proprio","state"]}"#;
const READY: &str = r#"{"type":"ready"}"#;

/// An agent that answers `hello` and `reset` well and then runs `step` for every further line.
fn shell(step: &str) -> String {
    format!(
        "sh -c 'read -r line; echo '\\''{HELLO}'\\''; while read -r line; do case $line in \
         *reset*) n=0; echo '\\''{READY}'\\'';; *close*) exit 0;; *) {step}; n=$((n+1));; esac; done'"
    )
}

fn run(command: &str, timeout_ms: u64, episodes: usize) -> Result<Evaluation, String> {
    let agent = External::start(command, Duration::from_millis(timeout_ms), domain::all()[0])
        .map_err(|e| e.to_string())?;
    let protocol = Protocol::find("held-out", "push_t").unwrap();
    let manifest = protocol.manifest(Split::Dev).unwrap();
    let options = EvalOptions { limit: Some(episodes), threads: 1, ..EvalOptions::default() };
    evaluate(&protocol, &manifest, &agent, &options).map_err(|e| e.to_string())
}

/// The message of a run whose steps are answered by `step`.
fn fails(step: &str) -> String {
    run(&shell(step), 20_000, 1).unwrap_err()
}

#[test]
fn one_process_plays_all_episodes() {
    let step = r#"printf "{\"type\":\"action\",\"step\":%d,\"action\":[0.25,-0.5]}\n" $n"#;
    let evaluation = run(&shell(step), 20_000, 2).unwrap();
    assert_eq!(evaluation.outcomes.len(), 2);
    for outcome in &evaluation.outcomes {
        assert!(outcome.actions.iter().all(|action| *action == [0.25, -0.5]));
        assert_eq!((outcome.plans, outcome.steps), (outcome.actions.len(), outcome.actions.len()));
    }
    assert!(evaluation.key.settings.contains("name \"t\", resolution 16"), "{}", evaluation.key.settings);
}

#[test]
fn dead_and_slow_agents_are_told_apart() {
    let dead = run("sh -c 'read -r line; exit 3'", 20_000, 1).unwrap_err();
    assert!(dead.contains("ended") && dead.contains("exit status: 3"), "{dead}");
    let dead = fails("exit 4");
    assert!(dead.contains("`step`") && dead.contains("exit status: 4"), "{dead}");
    let slow = run("sh -c 'while true; do read -r line; done'", 100, 1).unwrap_err();
    assert!(slow.contains("--policy-timeout") && slow.contains("`hello`"), "{slow}");
    let missing = run("/no/such/program -x", 100, 1).unwrap_err();
    assert!(missing.contains("/no/such/program"), "{missing}");
    assert!(run("sh 'unclosed", 100, 1).unwrap_err().contains("quote"));
    assert!(run(" ", 100, 1).unwrap_err().contains("empty"));
}

#[test]
fn a_late_agent_is_ended_behind_its_shell() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join("left");
    let command = format!("sh -c '(sleep 1; echo > {}) | cat'", left.display());
    assert!(run(&command, 100, 1).unwrap_err().contains("--policy-timeout"));
    std::thread::sleep(Duration::from_millis(1300));
    assert!(!left.exists(), "it went on");
}

#[test]
fn an_endless_line_is_named() {
    let endless = r#"sh -c 'read -r line; head -c 3000000 /dev/zero | tr "\0" x; exit 1'"#;
    let message = run(endless, 20_000, 1).unwrap_err();
    assert!(message.contains("`hello` is longer than 1048576 bytes"), "{message}");
}

#[test]
fn names_are_one_plain_short_line() {
    for (name, expect) in [
        ("my_agent v1.2 (é)", "my_agent v1.2 (é)"),
        ("two\nlines\tand\u{1b}[31m more", "two lines and 31m more"),
        ("<script>alert(1)</script> | `x`", "script alert(1) /script x"),
    ] {
        assert_eq!(plain(name), expect);
    }
    assert_eq!(plain(&"x ".repeat(5000)).chars().count(), LONGEST_NAME - 1);
}

#[test]
fn wrong_answers_are_quoted() {
    let answer =
        |action: &str| format!(r#"printf "{{\"type\":\"action\",\"step\":%d,\"action\":{action}}}\n" $n"#);
    for (step, expect) in [
        ("echo hello there".to_string(), "`hello there`"),
        (answer("[1,2,3]"), "has 3 values"),
        (answer("[NaN,0]"), "must be finite"),
        (answer("[1e39,0]"), "not finite or far out of bounds"),
        (answer("[1]"), "has 1 values"),
        (answer(r#"\"left\""#), "does not fit the protocol"),
        (r#"echo "{\"type\":\"action\",\"step\":7,\"action\":[0,0]}""#.into(), "its own step"),
        (r#"echo "{\"type\":\"action\",\"stp\":0,\"action\":[0,0]}""#.into(), "stp"),
        (r#"echo "{\"type\":\"error\",\"message\":\"out of memory\"}""#.into(), "it reports: out of memory"),
    ] {
        let message = fails(&step);
        assert!(message.contains(expect) && message.contains("episode 0"), "{expect}: {message}");
    }
    let other = run(r#"sh -c 'read -r line; echo "{\"type\":\"hello\",\"protocol\":9}"'"#, 20_000, 1);
    assert!(other.unwrap_err().contains("speaks protocol 1"));
    let blind = run(
        r#"sh -c 'read -r line; echo "{\"type\":\"hello\",\"protocol\":1,\"inputs\":[\"sound\"]}"'"#,
        20_000,
        1,
    );
    assert!(blind.unwrap_err().contains("sound"));
}
