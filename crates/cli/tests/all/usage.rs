use super::*;

const VERBS: [&[&str]; 38] = [
    &["bench"],
    &["train"],
    &["pretrain"],
    &["checkpoints"],
    &["checkpoints", "list"],
    &["checkpoints", "verify"],
    &["checkpoints", "import"],
    &["checkpoints", "export"],
    &["diagnose"],
    &["collect"],
    &["data"],
    &["data", "inspect"],
    &["data", "preview"],
    &["data", "import"],
    &["data", "export"],
    &["data", "repair"],
    &["data", "stats"],
    &["eval"],
    &["merge"],
    &["compare"],
    &["report"],
    &["plan"],
    &["plot"],
    &["plot", "value"],
    &["replay"],
    &["selftest"],
    &["perf"],
    &["perf", "env"],
    &["perf", "data"],
    &["perf", "plan"],
    &["perf", "peak"],
    &["protocol"],
    &["protocol", "verify"],
    &["envs"],
    &["fovs"],
    &["config"],
    &["config", "show"],
    &["completions"],
];

#[test]
fn every_verb_has_help() {
    for verb in VERBS {
        let output = worldbench(&[verb, &["--help"]].concat());
        assert!(output.status.success() && stdout(&output).contains("Usage:"), "{verb:?}");
    }
}

#[test]
fn typos_name_the_nearest_known() {
    for (args, expect) in [
        (&["config", "show", "collect", "--set", "sorces=3"][..], "did you mean `sources`"),
        (&["collect", "--out", "x.wbs", "--set", "expert.pushs=3"], "did you mean `expert.pushes`"),
        (&["collect", "--out", "x.wbs", "--preset", "smok"], "did you mean `smoke`"),
        (&["eval", "--policy", "orcale"], "did you mean `oracle`"),
        (&["eval", "--policy", "random", "--protocol", "heldout"], "did you mean `held-out`"),
        (&["fovs", "pusht"], "did you mean `push_t`"),
        (&["fovs", "two_rooms"], "did you mean `two_room`"),
        (&["perf", "env", "--env", "tworoom"], "did you mean `two_room`"),
        (
            &["config", "show", "train", "--preset", "lewm-compact", "--set", "model.architectur=x"],
            "did you mean `model.architecture`",
        ),
        (&["replya"], "replay"),
    ] {
        let message = refused(args);
        assert!(message.contains(expect), "{args:?}: {message}");
    }
}

#[test]
fn bad_input_is_refused_with_a_remedy() {
    for (args, expect) in [
        (&["eval", "--policy", "random", "--episodes", "0"][..], "at least 1"),
        (&["eval", "--policy", "random", "--episodes", "201"], "has 200 pairs; give at most 200"),
        (&["eval", "--policy", "random,random"], "names random twice"),
        (&["eval"], "--policy <NAME>|--checkpoint <DIR>|--policy-cmd <COMMAND>"),
        (&["plan"], "--checkpoint <DIR>"),
        (&["eval", "--policy", "random", "--episodes", "3", "--gif", "3"], "numbered from 0"),
        (&["eval", "--policy", "random", "--shard", "3/2", "--out", "target/x"], "i/N"),
        (
            &["eval", "--policy", "random", "--episodes", "2", "--shard", "3/3", "--out", "target/x"],
            "fewer parts",
        ),
        (&["eval", "--policy", "random", "--seeds", "0"], "at least 1"),
        (&["merge", "no/such/part", "--out", "target/x"], "no/such/part"),
        (&["compare", "no/such/a", "no/such/b"], "no/such/a"),
        (&["report", "no/such/run", "-o", "target/x.html"], "no/such/run"),
        (&["report", "no/such/run", "-o", "target/x.pdf"], ".html or .md"),
        (&["eval", "--policy", "random", "--data", "x.wbs"], "leave --data out"),
        (&["eval", "--policy", "random", "--env", "tworoom"], "did you mean `two_room`"),
        (&["collect", "--out", "x.wbs", "--env", "push-tee"], "did you mean `push_t`"),
        (&["plan", "--policy", "random,oracle"], "one policy"),
        (&["plan", "--policy", "random", "--episode", "1000"], "0 to 199"),
        (&["plan", "--policy", "random", "--out", "e.png"], "in .gif"),
        (&["data", "inspect", "no/such/file.wbs"], "no/such/file.wbs"),
        (&["data", "inspect", "Cargo.toml"], "Cargo.toml"),
        (&["data", "import", "no/such/dir", "--out", "target/x.wbs"], "no/such/dir"),
        (&["data", "import", "Cargo.toml", "--check-pixels", "--out", "target/x.wbs"], "no HDF5 file"),
        (&["data", "export", "no/such/file.wbs", "--out", "target/x.h5"], "no/such/file.wbs"),
        (&["data", "export", "x.wbs", "--out", "x.h5", "--episodes", "5-2"], "smaller number first"),
        (&["collect", "--out", "x.wbs", "--set", "sources"], "key=value"),
        (&["collect", "--out", "x.wbs", "--set", "play_share=2.0"], "play_share"),
        (&["perf", "env", "--size", "5", "--steps", "1", "--frames", "1"], "16 to 512"),
        (&["perf", "data", "--threads", "0"], "1 to 1024"),
        (&["perf", "plan", "--size", "compact"], "--method dino-wm"),
        (&["perf", "peak", "--precision", "f64"], "f32 or bf16"),
        (&["selftest", "--device", "tpu"], "vulkan"),
        (&["config", "show", "--config", "no/such.toml"], "no/such.toml"),
        (&["config", "show", "train"], "one of pldm-compact"),
        (
            &["collect", "--out", "x.wbs", "--env", "push_t", "--preset", "two-room-smoke"],
            "preset two-room-smoke is for two_room",
        ),
        (
            &["collect", "--out", "x.wbs", "--env", "two-room", "--preset", "smoke"],
            "preset smoke is for push_t",
        ),
        (
            &["collect", "--out", "x.wbs", "--env", "two-room", "--set", "expert.pushes=9"],
            "expert means nothing in two_room",
        ),
        (&["eval", "--policy-cmd", "true", "--policy-timeout", "inf"], "up to 86400"),
        (
            &["plan", "--checkpoint", "../../checkpoints/lewm-compact", "--imagine", "target/x.png"],
            "no decoder to imagine with",
        ),
    ] {
        let message = refused(args);
        assert!(message.contains(expect), "{args:?}: {message}");
    }
}

#[test]
fn configurations_are_layered() {
    let output = worldbench(&["config", "show", "collect", "--preset", "smoke", "--set", "seed=3"]);
    let shown = stdout(&output);
    assert!(
        output.status.success() && shown.contains("seed = 3") && shown.contains("sources = 8"),
        "{shown}"
    );
    let train = ["config", "show", "train", "--preset", "lewm-compact", "--set", "model.weights.sigreg=0.5"];
    let shown = stdout(&worldbench(&train));
    assert!(shown.contains("method = \"lewm\"") && shown.contains("sigreg = 0.5"), "{shown}");
    for other in [["plan", "cem"], ["pretrain", "push_t"], ["bench", "standard"]] {
        assert!(
            worldbench(&["config", "show", other[0], "--preset", other[1]]).status.success(),
            "{other:?}"
        );
    }
    // Another kind brings its own defaults, whatever was set before it.
    let output = worldbench(&["config", "show", "solver", "--set", "samples=8", "--set", "kind=mppi"]);
    let shown = stdout(&output);
    assert!(shown.contains("samples = 8") && shown.contains("temperature"), "{shown}{}", stderr(&output));
}

#[test]
fn figures_have_their_keys() {
    let env = json(&["perf", "env", "--json", "--steps", "20000", "--frames", "100"]);
    assert!(env["contact_share"].as_f64().unwrap() >= 0.25);
    assert!(["steps_per_s", "frames_per_s"].iter().all(|key| env[key].as_f64().unwrap() > 0.0));
    let env = json(&["perf", "env", "--env", "two-room", "--json", "--steps", "20000", "--frames", "100"]);
    assert!(env["env"] == "two_room" && env["contact_share"].is_null());
    assert!(["steps_per_s", "frames_per_s"].iter().all(|key| env[key].as_f64().unwrap() > 0.0));
    let plan = ["perf", "plan", "--json", "--method", "dino-wm", "--size", "compact", "--precision", "bf16"];
    let plan =
        json(&[&plan[..], &["--samples", "2", "--iterations", "1", "--max-memory", "30000000"]].concat());
    assert!(
        ["seconds", "tokens_per_s", "gflops", "memory"].iter().all(|key| plan[key].as_f64().unwrap() > 0.0)
    );
    assert_eq!(plan["precision"], "bf16");
    assert_eq!(json(&["fovs", "push_t", "--json"]).as_array().unwrap().len(), 17);
    assert_eq!(json(&["envs", "--json"])[0]["name"], "push_t");
    assert_eq!(json(&["protocol", "list", "--json"])[0]["name"], "held-out");
}

#[test]
fn environments_and_factors_are_listed() {
    let envs = json(&["envs", "--json"]);
    assert_eq!(envs[0]["name"], "push_t");
    assert_eq!(envs[1]["name"], "two_room");
    assert_eq!(envs[1]["state"], 2);
    for env in envs.as_array().unwrap() {
        let factors = json(&["fovs", env["name"].as_str().unwrap(), "--json"]);
        let factors = factors.as_array().unwrap();
        assert_eq!(factors.len() as u64, env["factors"].as_u64().unwrap());
        for f in factors {
            let bounds = f["low"].as_f64().unwrap()..=f["high"].as_f64().unwrap();
            let default = f["default"].as_array().unwrap();
            assert_eq!(default.len() as u64, f["len"].as_u64().unwrap(), "{f}");
            assert!(default.iter().all(|v| bounds.contains(&v.as_f64().unwrap())), "{f}");
        }
    }
    let (listed, shown) = (worldbench(&["envs"]), worldbench(&["fovs", "two-room"]));
    assert!(stdout(&listed).contains("two_room") && stdout(&listed).contains("push_t"));
    assert!(
        stdout(&shown).lines().any(|line| line.starts_with("wall.thickness") && line.contains("7 to 41"))
    );
}

/// A reader that closes early, as in `worldbench fovs | head -0`, is no error.
#[test]
fn a_closed_pipe_is_quiet() {
    let (reader, writer) = std::io::pipe().unwrap();
    // Closed before the start: a reader that leaves later may or may not be noticed.
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_worldbench"))
        .args(["replay", text(&fixtures().join("env/pusht/episodes/T_wall_f32.json"))])
        .stdout(writer)
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
}
