use std::fs;

use worldbench_core::Stream;
use worldbench_env::domain;

use super::*;
use crate::testing::{bits, episode, pixel_episode, store};

fn push_t() -> DomainRef {
    domain::find("push_t").unwrap()
}

/// The bytes before the first record of a Push-T store.
const FILE_HEAD: usize = 16;

#[test]
fn two_room_episodes_come_back_and_their_frames_are_the_live_ones() {
    use worldbench_env::raster::{Filter, Render};
    use worldbench_env::{Environment, ResetOptions, Sampling, TwoRoom};

    let guard = tempfile::tempdir().unwrap();
    let path = guard.path().join("rooms.wbs");
    let mut writer = StoreWriter::create(&path, domain::domain::<TwoRoom>()).unwrap();
    let mut expected = Vec::new();
    for seed in 0..4 {
        let mut env = TwoRoom::build(&Default::default());
        env.reset(seed, &ResetOptions { sampling: Sampling::all(), ..ResetOptions::default() }).unwrap();
        let mut renderer = <TwoRoom as Environment>::Renderer::new(env.factors(), 64, Filter::Area).unwrap();
        let mut frames = Vec::new();
        let mut stream = Stream::new(seed, "walk", &[]);
        let episode = crate::record(&mut env, (Kind::Random, seed, seed), 20, |env, _| {
            frames.push(renderer.view(&env.render_state()).to_vec());
            Some([0; 2].map(|_| stream.uniform(-1.0, 1.0) as f32))
        });
        frames.push(renderer.view(&env.render_state()).to_vec());
        writer.append(&episode).unwrap();
        expected.push((episode, frames));
    }
    let refused = writer.append(&episodes()[0]).unwrap_err().to_string();
    assert!(refused.contains("two_room") && refused.contains("push_t"), "{refused}");
    let store = Store::open(&path).unwrap();
    assert_eq!((store.env().spec().name, store.len()), ("two_room", 4));
    let spec = crate::FrameSpec { resolution: 64, filter: Filter::Area };
    for (i, (episode, frames)) in expected.iter().enumerate() {
        assert_eq!(bits(&store.episode(i).unwrap()), bits(episode));
        for (row, frame) in frames.iter().enumerate() {
            assert!(store.frame(i, row, spec).unwrap() == *frame, "episode {i} row {row}");
        }
        let state = &episode.rows[7].state;
        assert_eq!(store.view(i).unwrap().proprio(7), [state[0], state[1], 0.0, 0.0]);
    }
}

fn episodes() -> Vec<Episode> {
    let mut all: Vec<_> = (0..6).map(|i| episode(9, i, 5 + 3 * i as usize)).collect();
    all.insert(3, pixel_episode(77, 4));
    all
}

#[test]
fn a_write_read_cycle_is_exact() {
    let all = episodes();
    let (_guard, store) = store(&all);
    assert_eq!(store.len(), all.len());
    for (i, expected) in all.iter().enumerate() {
        assert_eq!(bits(&store.episode(i).unwrap()), bits(expected));
    }
    let view = store.view(3).unwrap();
    assert_eq!(view.frame(1).unwrap(), &all[3].pixels.as_ref().unwrap().data[48..96]);
    assert!(store.view(0).unwrap().frame(0).is_none());
    assert!(store.episode(7).unwrap_err().to_string().contains("has no episode 7; it holds 7"));
    let stats = store.stats();
    assert_eq!((stats.episodes, stats.sources, stats.length), (7, 7, Some((4, 20))));
    assert_eq!(stats.rows, all.iter().map(|e| e.rows.len()).sum::<usize>());
}

#[test]
fn appending_in_a_second_session_gives_the_same_file() {
    let all = episodes();
    let (guard, whole) = store(&all);
    let path = guard.path().join("two.wbs");
    let mut writer = StoreWriter::create(&path, push_t()).unwrap();
    all[..3].iter().for_each(|e| writer.append(e).unwrap());
    drop(writer);
    assert_ne!(Store::open(&path).unwrap().hash(), whole.hash());
    let (mut writer, there) = StoreWriter::resume(&path).unwrap();
    all[there..].iter().for_each(|e| writer.append(e).unwrap());
    assert_eq!(fs::read(&path).unwrap(), fs::read(whole.path()).unwrap());
    assert_eq!(Store::open(&path).unwrap().hash(), whole.hash());
    assert!(StoreWriter::create(&path, push_t()).unwrap_err().to_string().contains("two.wbs"));
}

/// Ends of the records in the file of [`episodes`].
fn record_ends(store: &Store) -> Vec<usize> {
    store.episodes.iter().map(|(range, _)| range.end).collect()
}

#[test]
fn a_killed_writer_loses_only_the_episode_in_flight() {
    let all = episodes();
    let (guard, whole) = store(&all);
    let bytes = fs::read(whole.path()).unwrap();
    let ends = record_ends(&whole);
    let path = guard.path().join("cut.wbs");
    let mut stream = Stream::new(5, "cut", &[]);
    for _ in 0..60 {
        let cut = FILE_HEAD + stream.below((bytes.len() - FILE_HEAD) as u64) as usize;
        fs::write(&path, &bytes[..cut]).unwrap();
        let complete = ends.iter().filter(|&&end| end <= cut).count();
        let clean = cut == FILE_HEAD || ends.contains(&cut);
        if !clean {
            let message = Store::open(&path).unwrap_err().to_string();
            assert!(message.contains(&format!("episode {complete} is incomplete")), "{message}");
            assert!(message.contains("worldbench data repair"), "{message}");
            assert_eq!(Store::open_unfinished(&path).unwrap().len(), complete);
            let unfinished = guard.path().join("unfinished.wbs");
            fs::copy(&path, &unfinished).unwrap();
            assert_eq!(StoreWriter::resume(&unfinished).unwrap().1, complete);
            assert_eq!(Store::open(&unfinished).unwrap().len(), complete);
        }
        let report = repair(&path).unwrap();
        assert_eq!((report.kept, report.dropped.is_empty()), (complete, clean));
        let store = Store::open(&path).unwrap();
        for (i, expected) in all[..complete].iter().enumerate() {
            assert_eq!(bits(&store.episode(i).unwrap()), bits(expected));
        }
    }
}

#[test]
fn a_corrupted_byte_names_its_episode_and_costs_only_it() {
    let all = episodes();
    let (guard, whole) = store(&all);
    let bytes = fs::read(whole.path()).unwrap();
    let ends = record_ends(&whole);
    let path = guard.path().join("bad.wbs");
    let mut stream = Stream::new(6, "corrupt", &[]);
    for _ in 0..60 {
        let at = FILE_HEAD + stream.below((bytes.len() - FILE_HEAD) as u64) as usize;
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << stream.below(8);
        fs::write(&path, damaged).unwrap();
        let hit = ends.iter().filter(|&&end| end <= at).count();
        let message = Store::open(&path).unwrap_err().to_string();
        assert!(message.contains(&format!("episode {hit} ")), "{message}");
        assert!(StoreWriter::resume(&path).is_err() && Store::open_unfinished(&path).is_err());
        let report = repair(&path).unwrap();
        assert_eq!((report.kept, report.dropped.len()), (all.len() - 1, 1));
        assert_eq!(report.dropped[0].after_episode, hit);
        let store = Store::open(&path).unwrap();
        let kept = all.iter().enumerate().filter(|&(i, _)| i != hit).map(|(_, e)| bits(e));
        assert!(kept.eq(store.views().map(|view| bits(&view.decode()))));
    }
}

#[test]
fn other_files_are_refused_without_panic() {
    let guard = tempfile::tempdir().unwrap();
    let path = guard.path().join("x.wbs");
    let open = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Store::open(&path).unwrap_err().to_string()
    };
    assert!(open(b"WB").contains("shorter than a file head"));
    assert!(open(b"{\"setup\": 1, \"ops\": []}").contains("not WBSTORE"));
    let mut head = format::file_head(push_t());
    head[8] = 9;
    assert!(open(&head).contains("format version 9"));
    let name = b"three_room";
    let head = [&b"WBSTORE\0"[..], &2u32.to_le_bytes(), &(name.len() as u32).to_le_bytes(), name].concat();
    assert!(open(&head).contains("`three_room`") && open(&head[..20]).contains("shorter"));
    assert!(Store::open(guard.path().join("none.wbs")).unwrap_err().to_string().contains("none.wbs"));
    let mut bad = episode(1, 1, 4);
    bad.rows[1].action[0] = f32::NAN;
    let mut writer = StoreWriter::create(guard.path().join("y.wbs"), push_t()).unwrap();
    assert!(writer.append(&bad).unwrap_err().to_string().contains("row 1"));
    writer.append(&episode(1, 1, 4)).unwrap();
}
