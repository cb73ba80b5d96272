//! What a policy sees and returns.
//!
//! A [`Policy`] is shared by all episodes; [`Policy::begin`] makes one [`EpisodePolicy`] per episode, which owns
//! that episode's random stream and plan. Nothing flows from one episode to another, so results depend neither
//! on the number of threads nor on the order of episodes.

use worldbench_core::Stream;
use worldbench_env::{Look, Scene, Simulation};

use crate::{EvalError, Limits, Pair};

/// What the environment shows before each step.
///
/// A *learned* policy may read pixels rendered from `render_state` and `factors` and, when its checkpoint
/// declares it, proprioception ([`worldbench_env::Spec::proprioception`]: agent position and velocity); nothing else.
/// Policies that read more (the block's pose) say so in their name.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// The state, laid out as [`worldbench_env::Spec::state`] says.
    pub state: &'a [f64],
    /// Everything a frame is drawn from, besides the factors.
    pub render_state: &'a Look,
    /// Shapes, scales and colours of this episode.
    pub factors: &'a Scene,
}

/// What is to be reached.
#[derive(Clone, Debug)]
pub struct Goal {
    /// Laid out as [`Observation::state`]; the success rule ignores the velocities.
    pub state: Vec<f64>,
    /// The goal frame's render state.
    pub render_state: Look,
    /// Shapes, scales and colours of the goal frame.
    pub factors: Scene,
}

/// What a policy is given when an episode begins.
pub struct EpisodeContext<'a> {
    /// Index of the pair in its manifest.
    pub index: usize,
    /// Seed of the evaluation.
    pub seed: u64,
    /// Most env steps the episode may take.
    pub budget: usize,
    /// How success is judged, for policies that know the true distance.
    pub limits: Limits,
    /// Start, goal and the recorded actions. Only the data-replay row may read the actions.
    pub pair: &'a Pair,
    /// What is to be reached.
    pub goal: &'a Goal,
    /// A copy of the environment as it stands, for policies that plan on the true simulator.
    pub env: Box<dyn Simulation>,
    /// Random stream keyed by (seed, index); take a [`Stream::child`] per purpose.
    pub stream: Stream,
}

/// A policy in the middle of one episode.
pub trait EpisodePolicy: Send {
    /// The next action, in units of the action space.
    ///
    /// # Errors
    /// When the policy cannot act, e.g. its model fails; the message says why and what to do.
    fn act(&mut self, observation: &Observation) -> Result<[f32; 2], EvalError>;

    /// Seconds spent planning so far; 0 for policies that do not plan.
    fn plan_seconds(&self) -> f64 {
        0.0
    }

    /// Number of plans made so far; 0 for policies that do not plan.
    fn plans(&self) -> usize {
        0
    }

    /// Lowest cost of each iteration, one list per plan made so far; empty where there are no iterations.
    fn plan_costs(&self) -> Vec<Vec<f32>> {
        Vec::new()
    }
}

/// A policy that can be evaluated.
pub trait Policy: Sync {
    /// Short name for tables and files, e.g. `pldm-mppi`.
    fn name(&self) -> String;

    /// Hash of the weights the policy runs on; empty when it has none.
    fn checkpoint(&self) -> String {
        String::new()
    }

    /// Everything else that decides its actions (planner, horizon, samples ...), as text; part of the resume key.
    fn settings(&self) -> String {
        String::new()
    }

    /// Starts an episode.
    ///
    /// # Errors
    /// When the policy does not fit the environment or the protocol.
    fn begin(&self, context: EpisodeContext) -> Result<Box<dyn EpisodePolicy>, EvalError>;
}
