//! What a planning policy needs of a world model, over plain arrays.

use crate::{Cost, CostError, Objective, Part, Shape};

/// Frames, proprioception and past actions that a plan starts from, and the goal.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// RGB frames one action block apart, oldest first; each `[R, R, 3]`.
    pub frames: &'a [Vec<u8>],
    /// Agent position and velocity (px, px/s) of each frame.
    pub proprio: &'a [[f64; 4]],
    /// Environment actions between consecutive frames, raw, `[n - 1, K * 2]`.
    pub actions: &'a [f32],
    /// Goal frame, `[R, R, 3]`.
    pub goal_frame: &'a [u8],
    /// Agent position and velocity at the goal.
    pub goal_proprio: [f64; 4],
}

/// A learned latent world model as planners see it.
pub trait WorldModel: Send + Sync {
    /// Side R of its frames in pixels.
    fn resolution(&self) -> usize;

    /// Whether frames are box-averaged from the canvas (else the reference's point-bilinear resize).
    fn area_filter(&self) -> bool;

    /// Environment steps K of one action block.
    fn action_block(&self) -> usize;

    /// Most context frames it can use.
    fn max_history(&self) -> usize;

    /// Encodes the context and the goal once and gives the cost of candidate plans.
    ///
    /// # Errors
    /// When the context does not fit the model.
    fn problem<'a>(
        &'a self,
        context: &Context,
        objective: Objective,
    ) -> Result<Box<dyn Cost + 'a>, CostError>;

    /// Environment actions `[K * 2]` of one normalised block `[D]`.
    fn decode_block(&self, block: &[f32], actions: &mut [f32]);
}

/// A world model whose latents may be looked at, for diagnosis. A latent is what the goal cost compares, `[L]`.
pub trait LatentModel: WorldModel {
    /// Width of the latent's beginning that depends on the frame alone; the rest is proprioception.
    fn embedding(&self) -> usize;

    /// What the goal cost compares and how it is weighted.
    fn parts(&self) -> Vec<Part>;

    /// Latents `[N, L]` of frames `[R, R, 3]` with the agent's position and velocity.
    ///
    /// # Errors
    /// When a frame does not fit the model.
    fn latents(&self, frames: &[Vec<u8>], proprio: &[[f64; 4]]) -> Result<Vec<f32>, CostError>;

    /// Predicted latents `[S, H, L]` of normalised `candidates` `[S, H, D]`; the context's goal is not looked at.
    ///
    /// # Errors
    /// When the context or the shape does not fit the model.
    fn rollout(&self, context: &Context, shape: Shape, candidates: &[f32]) -> Result<Vec<f32>, CostError>;

    /// Normalises one raw action block `[K * 2]` in place: the inverse of [`WorldModel::decode_block`].
    fn encode_block(&self, block: &mut [f32]);

    /// The frame `[R, R, 3]` that a latent `[L]` shows, by a model that has learned to draw its latents.
    fn picture(&self, latent: &[f32]) -> Option<Vec<u8>> {
        let _ = latent;
        None
    }
}
