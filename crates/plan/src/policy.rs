//! What a feed-forward policy offers, over plain arrays.

use crate::CostError;

/// A learned policy that acts on observation and goal without planning.
///
/// What it sees of one moment, an *observation*, is made once and kept by the caller: features of the frame and, where the
/// policy uses it, the normalised proprioception.
pub trait GoalPolicy: Send + Sync {
    /// Side R of its frames in pixels.
    fn resolution(&self) -> usize;

    /// Whether frames are box-averaged from the canvas (else the reference's point-bilinear resize).
    fn area_filter(&self) -> bool;

    /// Most observations it looks back over, the present one included.
    fn history(&self) -> usize;

    /// Actions of one forward pass, K.
    fn chunk(&self) -> usize;

    /// The observation `[P * D]` of a frame `[R, R, 3]` with the agent's position and velocity (px, px/s).
    ///
    /// # Errors
    /// When the frame does not fit the policy.
    fn observe(&self, frame: &[u8], proprio: &[f64; 4]) -> Result<Vec<f32>, CostError>;

    /// The next K environment actions, raw, `[K * 2]`, for the last of 1 to [`GoalPolicy::history`] `observations`
    /// `[T, P * D]` and the observation of the goal.
    ///
    /// # Errors
    /// When an observation does not fit the policy.
    fn act(&self, observations: &[f32], goal: &[f32]) -> Result<Vec<f32>, CostError>;

    /// Value of the last of `observations` for the goal, as [`GoalPolicy::act`] takes them; none for a policy that has
    /// learned no value.
    ///
    /// # Errors
    /// When an observation does not fit the policy.
    fn value(&self, observations: &[f32], goal: &[f32]) -> Result<Option<f32>, CostError>;
}
