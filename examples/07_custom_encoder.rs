//! A frozen encoder of your own, cached beside a store and examined with a linear probe.
//! `cargo run --release --example 07_custom_encoder -- rooms.wbs` after `02_collect`

use std::path::PathBuf;

use worldbench_data::features::{FeatureSpec, Features};
use worldbench_data::{FrameSpec, Store};
use worldbench_env::raster::Filter;
use worldbench_eval::diagnose::Probe;
use worldbench_models::encoders::{Error, FrozenEncoder};

/// Mean colours of a grid of cells: no weights, and yet a start.
#[derive(Debug)]
struct ColourGrid;

const SIDE: usize = 56;
const CELLS: usize = 7;

impl FrozenEncoder for ColourGrid {
    fn name(&self) -> &str {
        "colour-grid"
    }
    fn image_size(&self) -> usize {
        SIDE
    }
    fn tokens(&self) -> usize {
        CELLS * CELLS
    }
    fn width(&self) -> usize {
        3
    }
    fn encode(&self, frames: &[&[u8]], out: &mut [f32]) -> Result<(), Error> {
        let cell = SIDE / CELLS;
        out.fill(0.0);
        for (frame, tokens) in frames.iter().zip(out.chunks_exact_mut(3 * CELLS * CELLS)) {
            for (i, &value) in frame.iter().enumerate() {
                let (row, column) = (i / 3 / SIDE / cell, i / 3 % SIDE / cell);
                tokens[(row * CELLS + column) * 3 + i % 3] += f32::from(value) / (cell * cell) as f32 / 255.0;
            }
        }
        Ok(())
    }

    fn fingerprint(&self) -> String {
        format!("colour-grid-{SIDE}-{CELLS}") // names the cache: change it whenever tokens change
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data: PathBuf = std::env::args_os().nth(1).unwrap_or_else(|| "rooms.wbs".into()).into();
    let (store, encoder) = (Store::open(&data)?, ColourGrid);
    let (tokens, width, stride) = (encoder.tokens(), encoder.width(), 5);
    let spec = FeatureSpec { encoder: encoder.fingerprint(), data: store.hash(), stride, tokens, width };
    let frame = FrameSpec { resolution: encoder.image_size(), filter: Filter::Area };
    let mut encode =
        |frames: &[&[u8]], out: &mut [f32]| encoder.encode(frames, out).map_err(|e| e.to_string());
    let path = spec.path(store.path());
    let features = Features::open_or_make(&path, &spec, &store, frame, &mut encode, &mut |_, _| ())?;

    // Even episodes fit a linear reader of the state, odd ones measure it.
    let (mut latents, mut states) = ([vec![], vec![]], [vec![], vec![]]);
    for (episode, view) in store.views().enumerate() {
        for row in (0..view.len()).step_by(stride) {
            let mut tokens = vec![0.0; spec.frame_len()];
            features.read(episode, row, &mut tokens)?;
            latents[episode % 2].extend(tokens);
            states[episode % 2].push(view.state(row));
        }
    }
    let (env, scene) = (store.env(), store.env().scene(&Default::default())?);
    let probe = Probe::fit(env, &latents[0], spec.frame_len(), &states[0]);
    for error in probe.errors(&scene, &latents[1], spec.frame_len(), &states[1])? {
        println!(
            "{}: median error {:.1}, of the mean {:.1} rms",
            error.quantity, error.median, error.rms_of_mean
        );
    }
    Ok(())
}
