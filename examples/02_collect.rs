//! Records a small Two-Room data set and reads batches of clips from it.
//! `cargo run --release --example 02_collect -- rooms.wbs`

use std::path::PathBuf;
use std::sync::Arc;

use worldbench_data::{
    FrameSpec, Loader, LoaderConfig, Normaliser, NormaliserKind, Split, Store, WindowSpec,
};
use worldbench_env::raster::Filter;
use worldbench_eval::{CollectConfig, collect};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path: PathBuf = std::env::args_os().nth(1).unwrap_or_else(|| "rooms.wbs".into()).into();
    // Every episode is a function of the seed and its number: stopped and called again, this ends with the same bytes.
    let config = CollectConfig {
        env: "two_room".into(),
        sources: 40,
        replays_per_source: 1,
        action_noise: [0.0, 0.5],
        ..CollectConfig::default()
    };
    collect(&config, &path, |_| ())?;

    let store = Arc::new(Store::open(&path)?);
    println!("{} episodes, {} rows, hash {}", store.len(), store.stats().rows, store.hash());
    // Replays of one episode stay on one side of the split.
    let split = Split::by_source(&store, 0.2, 0);
    // Clips of 4 frames, 5 env steps apart.
    let spec = WindowSpec { num_steps: 4, frameskip: 5 };
    let windows = spec.enumerate(&store, &split.train)?;
    let actions = Normaliser::fit_actions(NormaliserKind::Zscore, &store, &split.train)?;
    let config = LoaderConfig {
        batch: 16,
        seed: 0,
        threads: 2,
        prefetch: 2,
        shuffle: true,
        frame: Some(FrameSpec { resolution: 64, filter: Filter::Area }),
        actions,
    };
    let mut loader = Loader::new(store, spec, windows, config)?;
    for _ in 0..3 {
        let batch = loader.next_batch()?; // frames [16, 4, 64, 64, 3], actions [16, 4, 10]
        println!(
            "batch {}: {} bytes of frames, {} actions",
            batch.index,
            batch.frames.len(),
            batch.actions.len()
        );
        loader.recycle(batch);
    }
    Ok(())
}
