use std::fs;

use worldbench_core::Stream;

use super::*;
use crate::testing::{bits, episode, pixel_episode, store};

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
    let mut writer = StoreWriter::create(&path).unwrap();
    all[..3].iter().for_each(|e| writer.append(e).unwrap());
    drop(writer);
    assert_ne!(Store::open(&path).unwrap().hash(), whole.hash());
    let (mut writer, there) = StoreWriter::resume(&path).unwrap();
    all[there..].iter().for_each(|e| writer.append(e).unwrap());
    assert_eq!(fs::read(&path).unwrap(), fs::read(whole.path()).unwrap());
    assert_eq!(Store::open(&path).unwrap().hash(), whole.hash());
    assert!(StoreWriter::create(&path).unwrap_err().to_string().contains("two.wbs"));
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
            assert!(StoreWriter::resume(&path).is_err());
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
    let mut head = format::file_head();
    head[8] = 9;
    assert!(open(&head).contains("format version 9"));
    assert!(Store::open(guard.path().join("none.wbs")).unwrap_err().to_string().contains("none.wbs"));
    let mut bad = episode(1, 1, 4);
    bad.rows[1].action[0] = f32::NAN;
    let mut writer = StoreWriter::create(guard.path().join("y.wbs")).unwrap();
    assert!(writer.append(&bad).unwrap_err().to_string().contains("row 1"));
    writer.append(&episode(1, 1, 4)).unwrap();
}
