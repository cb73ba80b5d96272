//! Small synthetic episodes for this crate's tests.

use worldbench_core::Stream;
use worldbench_env::domain::{Appearance, domain};
use worldbench_env::{Factors, Marks, PushT, RenderState, Scene};

use crate::{
    episode::{Episode, EpisodeInfo, Kind, Pixels, Row},
    store::{Store, StoreWriter},
};

/// An episode of `rows` rows with random numbers; every third row has contact marks.
pub(crate) fn episode(seed: u64, source: u64, rows: usize) -> Episode {
    let mut stream = Stream::new(seed, "test episode", &[source]);
    let mut row = |t: usize| {
        let mark = |s: &mut Stream| std::array::from_fn(|_| s.below(512) as i16);
        let marks: Marks =
            (0..if t.is_multiple_of(3) { t % 4 } else { 0 }).map(|_| mark(&mut stream)).collect();
        let mut pixel = || stream.uniform(100.0, 400.0);
        Row {
            state: (0..7).map(|_| pixel()).collect(),
            render: RenderState {
                agent: [pixel(), pixel()],
                agent_angle: 0.0,
                block_cog: [pixel(), pixel()],
                block_angle: pixel(),
                marks,
            }
            .look(),
            action: if t + 1 == rows { [f32::NAN; 2] } else { [pixel() as f32, pixel() as f32] },
        }
    };
    let rows = (0..rows).map(&mut row).collect();
    let factors = Factors { block_scale: 30.0 + 1.0 / 3.0, ..Factors::default() };
    let (env, factors) = (domain::<PushT>(), Scene::of(&factors));
    Episode { info: EpisodeInfo { env, kind: Kind::Expert, source, seed, factors }, rows, pixels: None }
}

/// As [`episode`], with stored frames of 4 x 4 pixels.
pub(crate) fn pixel_episode(source: u64, rows: usize) -> Episode {
    let data = (0..rows * 4 * 4 * 3).map(|i| i as u8).collect();
    let pixels = Some(Pixels { height: 4, width: 4, data });
    Episode { pixels, ..episode(1, source, rows) }
}

/// Bit patterns of a whole episode, so that NaN equals NaN.
pub(crate) fn bits(episode: &Episode) -> String {
    let rows: Vec<_> = episode
        .rows
        .iter()
        .map(|r| {
            let state: Vec<u64> = r.state.iter().map(|v| v.to_bits()).collect();
            (state, r.action.map(f32::to_bits), &r.render)
        })
        .collect();
    format!("{:?} {rows:?} {:?}", episode.info, episode.pixels)
}

/// A store of the given episodes in a directory that lives as long as the returned guard.
pub(crate) fn store(episodes: &[Episode]) -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.wbs");
    let mut writer = StoreWriter::create(&path, episodes[0].info.env).unwrap();
    episodes.iter().for_each(|episode| writer.append(episode).unwrap());
    (directory, Store::open(path).unwrap())
}
