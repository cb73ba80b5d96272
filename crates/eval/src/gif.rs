//! Animated GIF of an episode: agent | goal | error curve.
//!
//! Frames are not recorded: the simulator is deterministic, so the actions give every frame again.

use std::path::Path;

use ::gif::{Encoder, Frame as GifFrame, Repeat};
use worldbench_core::Frame;
use worldbench_env::{DomainRef, Look, raster::Filter};

use crate::{
    EpisodeOutcome, EvalError,
    plot::{Plot, Series, text},
    runner::{goal_at, reset},
};

/// Width and height of a panel, px.
pub const PANEL: usize = 192;
/// Height of the caption above the panels, px.
pub const CAPTION: usize = 12;
/// Time per env step: 10 fps, the environment's own rate, in 1/100 s.
const DELAY: u16 = 10;
/// How long the last frame stands, in 1/100 s.
const LAST_DELAY: u16 = 150;

/// Writes the GIF of an episode in `env` to `path`.
///
/// # Errors
/// When it cannot be drawn, encoded or written.
pub fn write_gif(path: &Path, env: DomainRef, outcome: &EpisodeOutcome) -> Result<(), EvalError> {
    crate::runner::write_atomic(path, &encode(env, outcome)?)
}

/// The GIF's bytes.
///
/// # Errors
/// When it cannot be drawn or encoded.
pub fn encode(env: DomainRef, outcome: &EpisodeOutcome) -> Result<Vec<u8>, EvalError> {
    let frames = frames(env, outcome)?;
    let picture = |e: ::gif::EncodingError| EvalError::Picture(e.to_string());
    let mut bytes = Vec::new();
    let mut encoder =
        Encoder::new(&mut bytes, (3 * PANEL) as u16, (CAPTION + PANEL) as u16, &[]).map_err(picture)?;
    encoder.set_repeat(Repeat::Infinite).map_err(picture)?;
    let last = frames.len() - 1;
    for (i, frame) in frames.iter().enumerate() {
        let mut coded = GifFrame::from_rgb_speed(frame.width as u16, frame.height as u16, &frame.data, 10);
        coded.delay = if i == last { LAST_DELAY } else { DELAY };
        encoder.write_frame(&coded).map_err(picture)?;
    }
    drop(encoder);
    Ok(bytes)
}

/// One picture per state, the start included. `[steps + 1]`
fn frames(domain: DomainRef, outcome: &EpisodeOutcome) -> Result<Vec<Frame>, EvalError> {
    let picture = |e: worldbench_env::raster::RasterError| EvalError::Picture(e.to_string());
    let scene = domain.scene(&outcome.factors)?;
    let mut env = reset(domain, &scene, &outcome.start, &outcome.goal)?;
    let mut camera = domain.camera(&env.scene(), PANEL, Filter::Area).map_err(picture)?;
    let mut draw = |look: &Look| {
        let mut frame = Frame::new(PANEL, PANEL);
        camera.shoot(look, &mut frame.data).map_err(picture)?;
        Ok::<_, EvalError>(frame)
    };
    let goal = draw(&goal_at(domain, &scene, &outcome.goal)?.render_state)?;
    let threshold = domain.spec().success_distance;
    let mut frames = vec![compose(&draw(&env.look())?, &goal, threshold, outcome, 0)];
    for (i, action) in outcome.actions.iter().enumerate() {
        env.step(*action);
        frames.push(compose(&draw(&env.look())?, &goal, threshold, outcome, i + 1));
    }
    Ok(frames)
}

/// The panels of one step; success needs the distance, and in Push-T the angle in degrees too, below `threshold`.
fn compose(agent: &Frame, goal: &Frame, threshold: f64, outcome: &EpisodeOutcome, step: usize) -> Frame {
    let seen = |values: &[f64], scale: f64| -> Vec<f64> {
        values.iter().take(step + 1).map(|v| v * scale).collect()
    };
    let largest = outcome.distances.iter().fold(2.0 * threshold, |a, &b| a.max(b));
    let mut series = vec![Series::over_index("px", &seen(&outcome.distances, 1.0))];
    if !outcome.angle_errors.is_empty() {
        series.push(Series::over_index("deg", &seen(&outcome.angle_errors, 1f64.to_degrees())));
    }
    let curve = Plot {
        series,
        levels: vec![threshold],
        x_range: Some((0.0, outcome.steps.max(1) as f64)),
        y_range: Some((0.0, largest)),
        ..Plot::default()
    }
    .render(PANEL, PANEL);
    let mut out = Frame::new(3 * PANEL, CAPTION + PANEL);
    out.data.fill(255);
    for (i, panel) in [agent, goal, &curve].into_iter().enumerate() {
        for (y, row) in panel.data.chunks_exact(3 * PANEL).enumerate() {
            let at = ((CAPTION + y) * 3 * PANEL + i * PANEL) * 3;
            out.data[at..at + 3 * PANEL].copy_from_slice(row);
        }
    }
    let verdict = if outcome.success && step == outcome.steps { " - success" } else { "" };
    for (i, caption) in [format!("step {step}{verdict}"), "goal".into(), "error".into()].iter().enumerate() {
        text(&mut out, i * PANEL + 4, 3, caption, [40, 40, 40]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Baseline, EvalOptions, Manifest, Pair, Protocol, evaluate};

    #[test]
    fn the_gif_decodes_to_one_frame_per_state() {
        let env = worldbench_env::domain::find("push_t").unwrap();
        let start = [100.0, 100.0, 250.0, 250.0, 0.5, 0.0, 0.0];
        let goal = [170.0, 100.0, 250.0, 250.0, 0.5, 0.0, 0.0];
        let manifest = Manifest {
            environment: "push_t".into(),
            split: "test".into(),
            made_by: "test".into(),
            pairs: vec![Pair::new(env, start, goal, vec![[0.3, 0.0]; 25], 0, "test").unwrap()],
        };
        let protocol = Protocol::find("held-out", "push_t").unwrap();
        let outcome = evaluate(&protocol, &manifest, &Baseline::Replay, &EvalOptions::default())
            .unwrap()
            .outcomes
            .remove(0);
        assert!(outcome.success);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("episode.gif");
        write_gif(&path, env, &outcome).unwrap();
        let mut decoder = ::gif::Decoder::new(std::fs::File::open(&path).unwrap()).unwrap();
        assert_eq!((decoder.width(), decoder.height()), (576, 204));
        let mut frames = 0;
        while let Some(frame) = decoder.read_next_frame().unwrap() {
            assert!(frame.delay >= DELAY);
            frames += 1;
        }
        assert_eq!(frames, outcome.steps + 1);
        assert!(std::fs::metadata(&path).unwrap().len() < 2_000_000);
    }
}
