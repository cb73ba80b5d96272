use super::*;

fn small() -> CollectConfig {
    CollectConfig { sources: 4, replays_per_source: 3, play_share: 0.2, ..CollectConfig::default() }
}

fn run(config: &CollectConfig, path: &Path, threads: usize) -> Vec<u8> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| collect(config, path, |_| {})).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn the_store_does_not_depend_on_threads_or_interruptions() {
    let dir = tempfile::tempdir().unwrap();
    let whole = run(&small(), &dir.path().join("one"), 1);
    assert_eq!(whole, run(&small(), &dir.path().join("three"), 3));
    // A run killed in the middle of an episode.
    let cut = dir.path().join("cut");
    std::fs::write(&cut, &whole[..whole.len() * 2 / 3]).unwrap();
    assert_eq!(whole, run(&small(), &cut, 2));
}

#[test]
fn other_settings_do_not_continue_a_collection() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.wbs");
    collect(&small(), &path, |_| ()).unwrap();
    let other = CollectConfig { action_noise: [0.4, 0.5], ..small() };
    let error = collect(&other, &path, |_| ()).unwrap_err().to_string();
    assert!(error.contains("is not of this collection"), "{error}");
    collect(&small(), &path, |_| ()).unwrap();
}

#[test]
fn a_refused_store_keeps_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.wbs");
    let whole = run(&small(), &path, 2);
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    let cut = whole[..whole.len() - 9].to_vec();
    let other = CollectConfig { seed: 5, ..small() };
    for (bytes, config, reason) in
        [(&damaged, small(), "fails its checksum"), (&cut, other, "is not of this collection")]
    {
        std::fs::write(&path, bytes).unwrap();
        let error = collect(&config, &path, |_| ()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        assert_eq!(&std::fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn replays_share_their_source_and_play_has_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    run(&small(), &path, 2);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.len(), small().episodes());
    let count = |kind| store.views().filter(|v| v.info().kind == kind).count();
    assert_eq!((count(Kind::Expert), count(Kind::NoisyReplay), count(Kind::Weak)), (4, 12, 4));
    for view in store.views() {
        let info = view.info();
        assert_eq!(info.kind == Kind::Weak, info.source >= PLAY_SOURCES);
    }
    let of_source = |s| store.views().filter(|v| v.info().source == s).count();
    assert!((0..4).all(|s| of_source(s) == 4));
}

#[test]
fn given_demonstrations_take_the_place_of_the_experts() {
    let dir = tempfile::tempdir().unwrap();
    let demos = dir.path().join("demos");
    let slow = CollectConfig { seed: 7, replays_per_source: 0, play_share: 0.0, ..small() };
    run(&slow, &demos, 2);
    let config = CollectConfig { sources: 1000, ..small() }.with_demos(&demos).unwrap();
    let path = dir.path().join("store");
    assert_eq!(run(&config, &path, 1), run(&config, &dir.path().join("again"), 2));
    let (given, made) = (Store::open(&demos).unwrap(), Store::open(&path).unwrap());
    assert_eq!((given.len(), made.len()), (4, config.episodes()));
    let kept = made.views().filter(|v| v.info().kind == Kind::Expert);
    for (i, (kept, given)) in kept.zip(given.views()).enumerate() {
        assert_eq!((kept.info().source, kept.len()), (i as u64, given.len()));
        assert!((0..kept.len()).all(|row| kept.state(row) == given.state(row)));
    }
    // A replay starts on the demonstration whose number it carries, but for the physics step that placing it takes.
    for replay in made.views().filter(|v| v.info().kind == Kind::NoisyReplay) {
        let (source, start) = (given.view(replay.info().source as usize).unwrap(), replay.state(0));
        let near = |row| source.state(row).iter().zip(&start).take(4).all(|(a, b)| (a - b).abs() < 3.0);
        assert!((0..source.len()).any(near));
    }
    // Replays of replays keep the number of the first source.
    let again = CollectConfig { sources: 1000, replays_per_source: 1, play_share: 0.0, ..small() };
    let again = again.with_demos(&path).unwrap();
    run(&again, &dir.path().join("replayed"), 2);
    let replayed = Store::open(dir.path().join("replayed")).unwrap();
    for (pair, origin) in made.views().enumerate() {
        let number = |i| replayed.view(2 * pair + i).unwrap().info().source;
        assert_eq!([number(0), number(1)], [origin.info().source; 2]);
    }
    let many = CollectConfig { sources: 5, ..config };
    let error = collect(&many, &path, |_| ()).unwrap_err().to_string();
    assert!(error.contains("holds 4 episodes") && error.contains("--set sources=4"), "{error}");
}

#[test]
fn two_room_data_do_not_depend_on_threads_and_cross_between_rooms() {
    let dir = tempfile::tempdir().unwrap();
    let rooms = CollectConfig { env: "two_room".into(), sources: 12, ..small() };
    let path = dir.path().join("one");
    assert_eq!(run(&rooms, &path, 1), run(&rooms, &dir.path().join("two"), 2));
    let store = Store::open(&path).unwrap();
    assert_eq!((store.len(), store.env().spec().name), (rooms.episodes(), "two_room"));
    let crosses = |view: worldbench_data::EpisodeView<'_>| {
        (1..view.len()).any(|t| (view.state(t)[0] > 112.0) != (view.state(0)[0] > 112.0))
    };
    let crossing = store.views().filter(|v| v.info().kind == Kind::Expert && crosses(*v)).count();
    assert!(crossing >= 4, "{crossing} of 12 expert episodes change rooms");
    assert!(store.views().all(|view| (51..=101).contains(&view.len())));
    let other = collect(&small(), &path, |_| ()).unwrap_err().to_string();
    assert!(other.contains("two_room") && other.contains("push_t"), "{other}");
}

#[test]
fn senseless_settings_are_named() {
    let bad = CollectConfig { play_share: 1.5, ..small() };
    assert!(bad.check().unwrap_err().to_string().contains("play_share"));
    let unknown = CollectConfig { env: "two_rooms".into(), ..small() }.check().unwrap_err().to_string();
    assert!(unknown.contains("did you mean `two_room`"), "{unknown}");
    assert!(CollectConfig { steps: [9, 3], ..small() }.check().is_err());
}
