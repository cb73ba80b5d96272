//! What every environment offers, and the list of those there are.

use crate::domain::Appearance;
use crate::error::EnvError;
use crate::raster::Render;
use crate::variation::{Factor, Sampling, Variation};

/// An action; its unit is in [`Spec::action`].
pub type Action = [f32; 2];

/// Numbers of proprioception, of every environment: agent x, y and velocity x, y.
pub const PROPRIO: usize = 4;

/// The pairs of start and goal that a table shows by themselves, because the others are easily won.
#[derive(Clone, Copy, Debug)]
pub struct Subset {
    /// Name in tables.
    pub name: &'static str,
    /// Which pairs belong to it, completing "pairs in which".
    pub about: &'static str,
    /// Least share of them in a set of pairs that is worth running.
    pub least_share: f64,
    /// Whether manifests mark each pair; else membership is computed from the states.
    pub marked: bool,
}

/// How far a state is from a goal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Errors {
    /// Distance that success is judged by, pixels.
    pub distance: f64,
    /// Distance of what is to be brought to the goal alone, pixels; the agent where there is nothing else.
    pub object: f64,
    /// Angle error up to symmetry, radians; none where nothing turns.
    pub angle: Option<f64>,
}

/// What the weak policy plays around.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Anchor {
    /// Agent position, pixels.
    pub agent: [f64; 2],
    /// What it stays near, pixels.
    pub object: [f64; 2],
    /// Pixels per unit of action.
    pub reach: f64,
}

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
    /// Indices of the state's values that a learned policy may read besides pixels, at most [`PROPRIO`]: the agent's
    /// position, then its velocity.
    pub proprio: &'static [usize],
    /// Indices of velocities: 0 in a goal frame, which shows the goal at rest.
    pub velocity: &'static [usize],
    /// Indices of angles, radians.
    pub angles: &'static [usize],
    /// The numbers of a render state, in order.
    pub look: &'static [&'static str],
    /// What the two values of an action mean.
    pub action: &'static str,
    /// Lower and upper bound of both values of an action: what policies stay within.
    pub action_bounds: [f32; 2],
    /// When an episode succeeds.
    pub success: &'static str,
    /// The distance that success is below, pixels.
    pub success_distance: f64,
    /// The pairs that are not easily won.
    pub hard: Subset,
    /// Side of the canvas that frames are drawn on, pixels.
    pub canvas: usize,
    /// The factors of variation.
    pub factors: &'static [Factor],
    /// The default values of a factor, by its index.
    pub default: fn(usize) -> Vec<f64>,
}

impl Spec {
    /// Agent position and velocity of a state; 0 where the environment has none.
    #[must_use]
    pub fn proprioception(&self, state: &[f64]) -> [f64; PROPRIO] {
        let value = |k: usize| self.proprio.get(k).and_then(|&i| state.get(i)).copied();
        std::array::from_fn(|k| value(k).unwrap_or_default())
    }

    /// `state` with all velocities 0.
    #[must_use]
    pub fn at_rest(&self, state: &[f64]) -> Vec<f64> {
        let still = |(i, &v): (usize, &f64)| if self.velocity.contains(&i) { 0.0 } else { v };
        state.iter().enumerate().map(still).collect()
    }
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
    type State: Copy + PartialEq + std::fmt::Debug + AsRef<[f64]> + for<'a> TryFrom<&'a [f64]> + Send + Sync;
    /// What a frame depends on besides the factors.
    type RenderState: Appearance;
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
    fn reset(&mut self, seed: u64, options: &ResetOptions) -> Result<Self::State, EnvError> {
        let mut fresh = Self::build(&options.sampling.draw::<Self::Factors>(seed)?.factors);
        if let Some(state) = &options.state {
            fresh.set_state(state)?;
        }
        if let Some(goal) = &options.goal_state {
            fresh.set_goal_state(goal)?;
        }
        *self = fresh;
        Ok(self.state())
    }

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

    /// The vector that the reference returns as its observation; by default the state.
    fn observation(&self) -> Vec<f64> {
        self.state().as_ref().to_vec()
    }

    /// Whether the goal is reached now.
    fn success(&self) -> bool;

    /// The scene.
    fn factors(&self) -> &Self::Factors;

    /// What a frame shows besides the factors.
    fn render_state(&self) -> Self::RenderState;

    /// How far `state` is from `goal`.
    fn errors(factors: &Self::Factors, state: &Self::State, goal: &Self::State) -> Errors;

    /// What a planner on the true simulator minimises: below 1 only where the goal is reached, and falling on the way
    /// there.
    fn cost(factors: &Self::Factors, state: &Self::State, goal: &Self::State) -> f64;

    /// Whether a pair belongs to the subset [`Spec::hard`]; by default all do.
    fn hard(_factors: &Self::Factors, _start: &Self::State, _goal: &Self::State) -> bool {
        true
    }

    /// What the weak policy plays around.
    fn anchor(factors: &Self::Factors, state: &Self::State, goal: &Self::State) -> Anchor;

    /// Whether a step from `from` to `to` passes through nothing solid, which the simulator itself may not test.
    fn legal(_factors: &Self::Factors, _from: &Self::State, _to: &Self::State) -> bool {
        true
    }
}
