//! An imagined rollout beside the true one, as a picture.

use std::path::Path;

use worldbench_core::Frame;
use worldbench_env::DomainRef;
use worldbench_plan::{Context, LatentModel, Shape};

use crate::plot::{text, write_png};
use crate::policies::planner::{ACTION, Eyes, failed};
use crate::runner::{goal_at, reset};
use crate::{EpisodeOutcome, EvalError};

/// Most action blocks that are imagined: the planners' horizon.
const BLOCKS: usize = 5;
/// Room for captions above a row of frames, px.
const CAPTION: usize = 12;
/// Room between frames, px.
const GAP: usize = 4;

/// Whether `model` can draw its latents.
///
/// # Errors
/// When it has no decoder.
pub fn check(model: &dyn LatentModel) -> Result<(), EvalError> {
    let drawn = model.picture(&vec![0.0; model.embedding()]);
    drawn.map(|_| ()).ok_or_else(|| EvalError::Options(NO_DECODER.into()))
}

const NO_DECODER: &str = "this model has no decoder to imagine with; train dino-wm with a [model.decoder]";

/// Writes a PNG of what `model` imagines from the first frame of `outcome` in `env` under the actions that were executed, below what
/// really happened, one column per action block, the goal last.
///
/// # Errors
/// When the model cannot draw its latents, the episode is shorter than a block, or the file cannot be written.
pub fn write(
    path: &Path,
    model: &dyn LatentModel,
    env: DomainRef,
    outcome: &EpisodeOutcome,
) -> Result<(), EvalError> {
    write_png(path, &picture(model, env, outcome)?)
}

fn picture(model: &dyn LatentModel, domain: DomainRef, outcome: &EpisodeOutcome) -> Result<Frame, EvalError> {
    let fail = |message: String| failed("imagine", outcome.index, message);
    let block = model.action_block();
    let blocks = (outcome.actions.len() / block).min(BLOCKS);
    if blocks == 0 {
        return Err(fail(format!("the episode ends within its first {block} steps; take another --episode")));
    }
    let (scene, proprio) =
        (domain.scene(&outcome.factors)?, |state: &[f64]| domain.spec().proprioception(state));
    let mut env = reset(domain, &scene, &outcome.start, &outcome.goal)?;
    let mut eyes = Eyes::new(model, domain, &env.scene()).map_err(fail)?;
    let mut truth = vec![eyes.frame(&env.look()).map_err(fail)?];
    let seen = proprio(&env.state());
    for (i, action) in outcome.actions[..blocks * block].iter().enumerate() {
        env.step(*action);
        if (i + 1) % block == 0 {
            truth.push(eyes.frame(&env.look()).map_err(fail)?);
        }
    }
    let goal = goal_at(domain, &scene, &outcome.goal)?;
    let goal_frame = eyes.frame(&goal.render_state).map_err(fail)?;
    let mut plan: Vec<f32> = outcome.actions[..blocks * block].iter().flatten().copied().collect();
    plan.chunks_exact_mut(block * ACTION).for_each(|block| model.encode_block(block));
    let context = Context {
        frames: &truth[..1],
        proprio: &[seen],
        actions: &[],
        goal_frame: &goal_frame,
        goal_proprio: proprio(&goal.state),
    };
    let shape = Shape { horizon: blocks, dim: block * ACTION };
    let latents = model.rollout(&context, shape, &plan).map_err(|e| fail(e.to_string()))?;
    let first = model.latents(&truth[..1], &[seen]).map_err(|e| fail(e.to_string()))?;
    let width = first.len();
    let imagined: Option<Vec<Vec<u8>>> =
        first.chunks_exact(width).chain(latents.chunks_exact(width)).map(|z| model.picture(z)).collect();
    let Some(imagined) = imagined else {
        return Err(fail(NO_DECODER.into()));
    };
    truth.push(goal_frame);
    let rows = [("true", truth), ("imagined", imagined)];
    Ok(compose(&rows, model.resolution(), block, blocks))
}

/// Rows of frames with captions.
fn compose(rows: &[(&str, Vec<Vec<u8>>)], side: usize, block: usize, blocks: usize) -> Frame {
    let columns = rows.iter().map(|(_, frames)| frames.len()).max().unwrap_or(1);
    let mut out = Frame::new(columns * (side + GAP), rows.len() * (side + CAPTION));
    out.data.fill(255);
    let stride = out.width * 3;
    for (r, (name, frames)) in rows.iter().enumerate() {
        let top = r * (side + CAPTION);
        for (c, frame) in frames.iter().enumerate() {
            let left = c * (side + GAP);
            let caption = match c {
                0 => (*name).to_string(),
                c if c > blocks => "goal".into(),
                c => format!("step {}", c * block),
            };
            text(&mut out, left + 2, top + 3, &caption, [40, 40, 40]);
            for (y, row) in frame.chunks_exact(side * 3).enumerate() {
                let at = (top + CAPTION + y) * stride + left * 3;
                out.data[at..at + side * 3].copy_from_slice(row);
            }
        }
    }
    out
}
