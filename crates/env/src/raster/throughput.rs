//! Measuring the renderers.

use std::hint::black_box;
use std::time::Instant;

use super::{Filter, Render};
use crate::environment::{Environment, ResetOptions};
use crate::error::EnvError;

/// Draws `frames` frames of the default scene at unrelated random states on one thread and returns frames per second.
///
/// # Errors
/// Unless the resolution lies in 16 to 512.
pub fn frames_per_second<E: Environment>(
    resolution: usize,
    filter: Filter,
    frames: usize,
) -> Result<f64, EnvError> {
    let factors = E::Factors::default();
    let mut renderer = E::Renderer::new(&factors, resolution, filter)?;
    let mut out = vec![0; resolution * resolution * 3];
    let mut env = E::build(&factors);
    let mut state = |seed| {
        env.reset(seed, &ResetOptions::default())?;
        Ok::<_, EnvError>(env.render_state())
    };
    let states = (0..256).map(&mut state).collect::<Result<Vec<_>, _>>()?;
    let start = Instant::now();
    for state in states.iter().cycle().take(frames) {
        renderer.render(state, &mut out)?;
        black_box(&out);
    }
    Ok(frames as f64 / start.elapsed().as_secs_f64())
}
