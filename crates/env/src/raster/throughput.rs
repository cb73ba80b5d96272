//! Measuring the renderer.

use std::f64::consts::TAU;
use std::hint::black_box;
use std::time::Instant;

use worldbench_core::Stream;

use super::{Filter, RasterError, Renderer};
use crate::render_state::RenderState;
use crate::variation::Factors;

/// Draws `frames` frames of the default scene at unrelated random poses on one thread and returns frames per second.
///
/// # Errors
/// [`RasterError::Resolution`] unless the resolution lies in 16 to 512.
pub fn push_t_frames_per_second(
    resolution: usize,
    filter: Filter,
    frames: usize,
) -> Result<f64, RasterError> {
    let mut renderer = Renderer::new(&Factors::default(), resolution, filter)?;
    let mut out = vec![0; resolution * resolution * 3];
    let states = random_states(256);
    let start = Instant::now();
    for state in states.iter().cycle().take(frames) {
        renderer.render(state, &mut out)?;
        black_box(&out);
    }
    Ok(frames as f64 / start.elapsed().as_secs_f64())
}

fn random_states(count: usize) -> Vec<RenderState> {
    let mut stream = Stream::new(0, "render throughput", &[]);
    let mut point = |low: f64, high: f64| [stream.uniform(low, high), stream.uniform(low, high)];
    let state = |_| RenderState {
        agent: point(50.0, 450.0),
        block_cog: point(100.0, 400.0),
        block_angle: point(0.0, TAU)[0],
        ..RenderState::default()
    };
    (0..count).map(state).collect()
}
