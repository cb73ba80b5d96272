use super::*;

fn find(name: &str) -> Protocol {
    Protocol::find(name, "push_t").unwrap()
}

#[test]
fn built_in_protocols_and_manifests_are_valid() {
    for env in worldbench_env::environment::ALL {
        for name in Protocol::names() {
            let protocol = Protocol::find(name, env.name).unwrap();
            assert_eq!((protocol.name.as_str(), protocol.goal_offset), (name, 25));
            for manifest in protocol.manifests().unwrap() {
                protocol.check(&manifest).unwrap();
                let pairs = protocol.selection.map_or(protocol.pairs, |rule| rule.episodes);
                assert_eq!(manifest.pairs.len(), pairs, "{name} {}", manifest.split);
                let share = manifest.hard_share();
                assert!(share >= env.hard.least_share, "{} {name}: {share}", env.name);
                assert!(protocol.selection.is_some() || manifest.solved_at_start() == 0, "{name}");
            }
        }
    }
}

/// Scores already published stand beside these.
#[test]
fn the_hashes_of_the_first_manifests_have_not_changed() {
    let protocol = find("held-out");
    for (split, hash) in [(Split::Dev, "a86b7974aae493ca"), (Split::Test, "a1c1f947b0f12ee2")] {
        let manifest = protocol.manifest(split).unwrap();
        assert_eq!(protocol.hash(&manifest).unwrap(), hash, "{split:?}");
    }
}

#[test]
fn unknown_names_get_a_hint_and_paths_win() {
    let error = Protocol::find("heldout", "push_t").unwrap_err().to_string();
    assert!(error.contains("did you mean `held-out`") && error.contains("swm-v1"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.toml");
    std::fs::write(&path, PROTOCOLS[1].1.replace("moderate\"", "mine\"")).unwrap();
    assert_eq!(find(path.to_str().unwrap()).name, "mine");
}

/// A file for one environment, without tables.
const FLAT: &str = "name = 'flat'\nenvironment = 'push_t'\ngoal_offset = 25\nbudget = 50\n\
                    success = 'push-t-joint'\n[selection]\nseed = 42\nepisodes = 50\n";

#[test]
fn typos_and_contradictions_are_refused() {
    assert_eq!(Protocol::parse("p.toml", FLAT, "push_t").unwrap().selection.unwrap().seed, 42);
    for (from, to, expect) in [
        ("budget", "budgit", "budgit"),
        ("budget = 50", "budget = 0", "budget"),
        ("[selection]\nseed = 42\nepisodes = 50\n", "", "[manifest]"),
        ("[selection]", "[limits]\nhold = 0\n[selection]", "hold"),
        ("push_t", "push_s", "push_s"),
        ("push-t-joint", "nope", "make the rule `push-t-joint`"),
        ("push-t-joint", "push-t-pose", "make the rule `push-t-joint`"),
        (
            "[selection]",
            "[limits]\ndistance = 9.0\nagent = false\n[selection]",
            "make the rule `push-t-pose`",
        ),
    ] {
        let error = Protocol::parse("p.toml", &FLAT.replace(from, to), "push_t").unwrap_err().to_string();
        assert!(error.contains("p.toml") && error.contains(expect), "{error}");
    }
    let error = Protocol::parse("p.toml", FLAT, "two_room").unwrap_err().to_string();
    assert!(error.contains("--env push_t"), "{error}");
    let tables = FLAT.replace("environment = 'push_t'", "") + "[env.push_t]\n";
    let error = Protocol::parse("p.toml", &tables, "two_room").unwrap_err().to_string();
    assert!(error.contains("[env.two_room]"), "{error}");
}

#[test]
fn selection_counts_only_rows_with_a_goal_ahead() {
    let protocol = find("swm-v1");
    // Valid rows 0..=lengths-26 of each: 1000, none, 1000; NumPy's check values for n = 2000, seed 42.
    let starts = protocol.select_starts(&[1025, 20, 1025]).unwrap();
    assert_eq!(starts[..3], [(0, 126), (0, 135), (0, 168)]);
    assert_eq!(*starts.last().unwrap(), (2, 991));
    assert_eq!(starts.len(), 50);
    assert!(protocol.select_starts(&[30]).unwrap_err().to_string().contains("only 5 rows"));
    assert!(find("held-out").select_starts(&[2000]).is_err());
}

#[test]
fn drawn_pairs_are_rows_of_the_store_in_its_scenes() {
    use worldbench_data::{Episode, EpisodeInfo, Kind, Row, StoreWriter};

    let env = domain::find("two_room").unwrap();
    let changed = Changes::from([("agent.speed".to_string(), vec![3.0])]);
    let (guard, mut rows) = (tempfile::tempdir().unwrap(), Vec::new());
    for t in 0..200u8 {
        let state = vec![21.0 + f64::from(t) / 4.0, 40.0];
        let render = worldbench_env::Look { values: vec![0.0; 4], ..Default::default() };
        let action = if t == 199 { [f32::NAN; 2] } else { [f32::from(t), 0.0] };
        rows.push(Row { state, render, action });
    }
    let path = guard.path().join("rooms.wbs");
    let mut writer = StoreWriter::create(&path, env).unwrap();
    let factors = env.scene(&changed).unwrap();
    let info = EpisodeInfo { env, kind: Kind::Random, source: 0, seed: 0, factors };
    writer.append(&Episode { info, rows, pixels: None }).unwrap();
    let store = Store::open(&path).unwrap();
    let protocol = Protocol::find("swm-v1", "two_room").unwrap();
    let manifest = protocol.select_from(&store, "rooms").unwrap();
    protocol.check(&manifest).unwrap();
    assert_eq!((manifest.pairs.len(), manifest.split.as_str()), (50, "rooms"));
    for pair in &manifest.pairs {
        assert_eq!(pair.goal[0] - pair.start[0], 25.0 / 4.0);
        assert_eq!(f64::from(pair.actions[0][0]), (pair.start[0] - 21.0) * 4.0);
        assert_eq!((&pair.factors, pair.block_moved), (&changed, None));
    }
    let error = find("swm-v1").select_from(&store, "rooms").unwrap_err().to_string();
    assert!(error.contains("--env two_room"), "{error}");
}

#[test]
fn the_hash_depends_on_rules_and_pairs_but_not_on_notes() {
    let protocol = find("held-out");
    let env = protocol.env().unwrap();
    let pair = Pair::new(env, [0.0; 7], [1.0; 7], vec![[0.0; 2]; 25], 0, "expert").unwrap();
    let manifest = Manifest {
        environment: "push_t".into(),
        split: "dev".into(),
        made_by: String::new(),
        pairs: vec![pair],
    };
    let base = protocol.hash(&manifest).unwrap();
    assert_eq!(base.len(), 16);
    assert_eq!(base, Protocol { notes: "other".into(), ..protocol.clone() }.hash(&manifest).unwrap());
    assert_ne!(base, Protocol { budget: 51, ..protocol.clone() }.hash(&manifest).unwrap());
    let limits = Limits { hold: 2, ..Limits::default() };
    assert_ne!(base, Protocol { limits, ..protocol.clone() }.hash(&manifest).unwrap());
    let mut other = manifest;
    other.pairs[0].goal[0] += 1e-12;
    assert_ne!(base, protocol.hash(&other).unwrap());
}
