use super::*;
use crate::{
    NormaliserKind,
    testing::{episode, pixel_episode, store},
};

const SPEC: WindowSpec = WindowSpec { num_steps: 3, frameskip: 2 };

fn config(threads: usize) -> LoaderConfig {
    LoaderConfig {
        batch: 4,
        seed: 3,
        threads,
        prefetch: 2,
        shuffle: true,
        frame: Some(FrameSpec { resolution: 32, filter: Filter::Area }),
        actions: Normaliser::none(ACTION_DIM),
    }
}

fn fixture() -> (tempfile::TempDir, Arc<Store>, Vec<Window>) {
    let (guard, store) = store(&[episode(0, 0, 12), episode(0, 1, 9), episode(0, 2, 11)]);
    let windows = SPEC.enumerate(&store, &[0, 1, 2]).unwrap();
    (guard, Arc::new(store), windows)
}

fn take(loader: &mut Loader, n: usize) -> Vec<Batch> {
    (0..n).map(|_| loader.next_batch().unwrap()).collect()
}

#[test]
fn neither_threads_nor_a_restart_nor_recycling_change_a_batch() {
    let (_guard, store, windows) = fixture();
    let start = |threads, at| {
        Loader::starting_at(Arc::clone(&store), SPEC, windows.clone(), config(threads), at).unwrap()
    };
    let reference = take(&mut start(1, 0), 11);
    assert!(start(1, 0).batches_per_epoch() < 5, "several epochs are covered");
    for threads in [2, 3] {
        assert_eq!(take(&mut start(threads, 0), 11), reference);
        assert_eq!(take(&mut start(threads, 7), 4), reference[7..]);
    }
    let blind = LoaderConfig { frame: None, ..config(1) };
    let mut blind = Loader::new(Arc::clone(&store), SPEC, windows.clone(), blind).unwrap();
    let expected = Batch { frames: vec![], ..reference[0].clone() };
    assert_eq!(blind.next_batch().unwrap(), expected);
    let mut loader = start(2, 0);
    for expected in &reference {
        let batch = loader.next_batch().unwrap();
        assert_eq!(&batch, expected);
        loader.recycle(batch);
    }
}

#[test]
fn an_epoch_is_a_permutation_and_epochs_differ() {
    let (_guard, store, windows) = fixture();
    let mut loader =
        Loader::new(store, SPEC, windows.clone(), LoaderConfig { batch: 1, ..config(2) }).unwrap();
    let mut epoch =
        || -> Vec<Window> { take(&mut loader, windows.len()).into_iter().flat_map(|b| b.windows).collect() };
    let (first, mut second) = (epoch(), epoch());
    assert_ne!(first, second);
    second.sort_by_key(|w| (w.episode, w.start));
    assert_eq!(second, windows);
}

#[test]
fn a_batch_holds_the_rows_it_names() {
    let (_guard, store, windows) = fixture();
    let actions = Normaliser::fit_actions(NormaliserKind::Zscore, &store, &[0, 1, 2]).unwrap();
    let config = LoaderConfig { shuffle: false, actions: actions.clone(), ..config(1) };
    let mut loader = Loader::new(Arc::clone(&store), SPEC, windows, config.clone()).unwrap();
    let frame_size = 32 * 32 * 3;
    for batch in take(&mut loader, 4) {
        for (b, window) in batch.windows.iter().enumerate() {
            let view = store.view(window.episode as usize).unwrap();
            for t in 0..3 {
                let row = window.start as usize + 2 * t;
                let frame = store.frame(window.episode as usize, row, config.frame.unwrap()).unwrap();
                let slot = b * 3 + t;
                assert_eq!(batch.frames[slot * frame_size..][..frame_size], frame);
                let state: Vec<f32> = view.state(row).into_iter().map(|v| v as f32).collect();
                assert_eq!(batch.states[slot * 7..][..7], state);
                assert_eq!(batch.proprio[slot * 4..][..4], [state[0], state[1], state[5], state[6]]);
                let missing = row + 2 == view.len();
                assert_eq!(batch.missing[slot], missing);
                let block = &batch.actions[slot * 4..][..4];
                assert_eq!(block[1], actions.forward(1, f64::from(view.action(row)[1])));
                assert_eq!(missing, block[2..] == [0.0, 0.0]);
            }
        }
    }
}

#[test]
fn stored_frames_are_yielded_and_bad_options_refused() {
    let (_guard, store) = store(&[pixel_episode(0, 8)]);
    let store = Arc::new(store);
    let windows = SPEC.enumerate(&store, &[0]).unwrap();
    let start = |change: fn(&mut LoaderConfig)| {
        let mut config = LoaderConfig { batch: 1, shuffle: false, ..config(1) };
        change(&mut config);
        Loader::new(Arc::clone(&store), SPEC, windows.clone(), config)
    };
    let mut loader = start(|c| c.frame = Some(FrameSpec { resolution: 4, filter: Filter::Area })).unwrap();
    assert_eq!(loader.next_batch().unwrap().frames[..48], *store.view(0).unwrap().frame(0).unwrap());
    let error = start(|_| ()).unwrap().next_batch().unwrap_err().to_string();
    assert!(error.contains("4 x 4"), "{error}");
    assert!(start(|c| c.batch = 9).is_err() && start(|c| c.batch = 0).is_err());
    assert!(start(|c| c.actions = Normaliser::none(3)).is_err());
}
