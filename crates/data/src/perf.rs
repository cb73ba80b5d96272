//! Measures the loader, for `worldbench perf data`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use worldbench_core::Stream;
use worldbench_env::{Factors, PushT, PushTConfig, domain::domain, raster::Filter};

use crate::{
    ACTION_DIM, DataError, FrameSpec, Kind, Loader, LoaderConfig, Normaliser, Result, Store, StoreWriter,
    WindowSpec, record,
};

/// What the loader reached.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Throughput {
    /// Clips a second.
    pub windows_per_s: f64,
    /// Rendered frames a second.
    pub frames_per_s: f64,
    /// Share of the stored rows that show contact marks.
    pub contact_share: f64,
    /// Bytes a row takes in the store.
    pub bytes_per_row: f64,
}

const EPISODES: u64 = 200;
const STEPS: usize = 100;
const BATCH: usize = 32;

/// Loads `batches` batches of 32 clips (4 frames, every 5th env step) of `resolution` pixels on `threads`
/// background threads, from a store of random play around the block that is made for the purpose in the
/// temporary directory and removed afterwards.
///
/// # Errors
/// When the store cannot be written, or the resolution is not supported.
pub fn throughput(threads: usize, resolution: usize, batches: usize) -> Result<Throughput> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("worldbench-perf-{}-{call}.wbs", std::process::id()));
    let result = write_store(&path).and_then(|()| measure(&path, threads, resolution, batches));
    // A store that could not be made need not be removed, and a leftover in the temporary directory is harmless.
    let _ = std::fs::remove_file(&path);
    result
}

fn write_store(path: &std::path::Path) -> Result<()> {
    let mut writer = StoreWriter::create(path, domain::<PushT>())?;
    for seed in 0..EPISODES {
        let mut stream = Stream::new(seed, "perf data", &[]);
        let mut env = PushT::new(&Factors::default(), PushTConfig::default());
        let start: [f64; 5] = std::array::from_fn(|_| stream.uniform(150.0, 350.0));
        env.set_state(&start)
            .map_err(|e| DataError::Env { episode: seed as usize, reason: e.to_string() })?;
        let policy = |env: &PushT, _| {
            let s = env.state();
            Some(std::array::from_fn(|k| ((s[2 + k] - s[k]) / 100.0 + 0.4 * stream.normal()) as f32))
        };
        writer.append(&record(&mut env, (Kind::Random, seed, seed), STEPS, policy))?;
    }
    Ok(())
}

fn measure(path: &std::path::Path, threads: usize, resolution: usize, batches: usize) -> Result<Throughput> {
    let store = Arc::new(Store::open(path)?);
    let spec = WindowSpec { num_steps: 4, frameskip: 5 };
    let windows = spec.enumerate(&store, &(0..store.len()).collect::<Vec<_>>())?;
    let config = LoaderConfig {
        batch: BATCH,
        seed: 0,
        threads,
        prefetch: 2,
        shuffle: true,
        frame: Some(FrameSpec { resolution, filter: Filter::Linear }),
        actions: Normaliser::none(ACTION_DIM),
    };
    let stats = store.stats();
    let mut loader = Loader::new(store, spec, windows, config)?;
    // Everything made before the clock starts was prefetched; leave it out.
    for _ in 0..threads + 3 {
        let batch = loader.next_batch()?;
        loader.recycle(batch);
    }
    let start = Instant::now();
    for _ in 0..batches {
        let batch = loader.next_batch()?;
        loader.recycle(batch);
    }
    let windows_per_s = (batches * BATCH) as f64 / start.elapsed().as_secs_f64();
    Ok(Throughput {
        windows_per_s,
        frames_per_s: windows_per_s * spec.num_steps as f64,
        contact_share: stats.contact_rows as f64 / stats.rows as f64,
        bytes_per_row: stats.bytes as f64 / stats.rows as f64,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_measurement_runs_and_cleans_up() {
        let measured = super::throughput(2, 224, 20).unwrap();
        println!("{measured:?}");
        assert!(measured.windows_per_s > 0.0 && measured.contact_share > 0.25);
        assert!(super::throughput(1, 5, 1).unwrap_err().to_string().contains("16 to 512"));
    }

    /// `cargo test --release -p worldbench-data -- --ignored --nocapture full_size`
    #[test]
    #[ignore = "a measurement"]
    fn full_size() {
        for threads in [1, 2] {
            for resolution in [64, 224] {
                println!("{threads} {resolution} {:?}", super::throughput(threads, resolution, 600).unwrap());
            }
        }
    }
}
