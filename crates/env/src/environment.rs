//! What every environment offers, and the list of those there are.

use crate::error::EnvError;
use crate::raster::Render;
use crate::variation::{Factor, Sampling, Variation};

/// An action; its unit is in [`Spec::action`].
pub type Action = [f32; 2];

/// What an environment is, for people and for code that only knows its name.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Name on the command line and in files.
    pub name: &'static str,
    /// Name in tables.
    pub title: &'static str,
    /// What is to be done, in half a sentence.
    pub summary: &'static str,
    /// The values of a state, in order.
    pub state: &'static [&'static str],
    /// Indices of the state's values that a learned policy may read besides pixels.
    pub proprio: &'static [usize],
    /// What the two values of an action mean.
    pub action: &'static str,
    /// Lower and upper bound of both values of an action: what policies stay within.
    pub action_bounds: [f32; 2],
    /// When an episode succeeds.
    pub success: &'static str,
    /// Side of the canvas that frames are drawn on, pixels.
    pub canvas: usize,
    /// The factors of variation.
    pub factors: &'static [Factor],
    /// The default values of a factor, by its index.
    pub default: fn(usize) -> Vec<f64>,
}

/// All environments.
pub const ALL: [Spec; 2] = [crate::push_t::SPEC, crate::two_room::SPEC];

/// What a reset may be told besides the seed.
#[derive(Clone, Debug, Default)]
pub struct ResetOptions {
    /// Which factors are sampled and which are set by hand.
    pub sampling: Sampling,
    /// Start state instead of the sampled one.
    pub state: Option<Vec<f64>>,
    /// Goal state instead of the sampled one.
    pub goal_state: Option<Vec<f64>>,
}

/// A simulator with goals. A clone continues bit for bit like its original.
pub trait Environment: Clone + Send + Sync {
    /// The scene: everything that is not the state.
    type Factors: Variation;
    /// The values that [`Spec::state`] names.
    type State: Copy + PartialEq + std::fmt::Debug + AsRef<[f64]> + Send + Sync;
    /// What a frame depends on besides the factors.
    type RenderState: Clone + PartialEq + std::fmt::Debug + Send + Sync;
    /// Draws the observations.
    type Renderer: Render<Factors = Self::Factors, State = Self::RenderState>;
    /// Names, bounds and factors.
    const SPEC: Spec;

    /// The environment of the scene `factors`, as the reference builds it by default.
    fn build(factors: &Self::Factors) -> Self;

    /// Samples a scene, a start and a goal from `seed` and begins an episode; returns the start state.
    ///
    /// # Errors
    /// On unknown factors, values out of bounds and states of the wrong length.
    fn reset(&mut self, seed: u64, options: &ResetOptions) -> Result<Self::State, EnvError>;

    /// Puts the environment into `state`, as far as the simulation admits it.
    ///
    /// # Errors
    /// On a wrong number of values, or values that are not finite.
    fn set_state(&mut self, state: &[f64]) -> Result<(), EnvError>;

    /// Sets what [`Environment::success`] compares with.
    ///
    /// # Errors
    /// On a wrong number of values, values that are not finite, or a goal that the environment refuses.
    fn set_goal_state(&mut self, goal: &[f64]) -> Result<(), EnvError>;

    /// One control step.
    fn step(&mut self, action: Action);

    /// The state now.
    fn state(&self) -> Self::State;

    /// The goal state.
    fn goal_state(&self) -> Self::State;

    /// The vector that the reference returns as its observation.
    fn observation(&self) -> Vec<f64>;

    /// Whether the goal is reached now.
    fn success(&self) -> bool;

    /// The scene.
    fn factors(&self) -> &Self::Factors;

    /// What a frame shows besides the factors.
    fn render_state(&self) -> Self::RenderState;
}
