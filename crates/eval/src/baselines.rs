//! Policies without planner or model: the floor rows and the protocol's own check.

use worldbench_core::Stream;
use worldbench_env::{DomainRef, policies::Weak};

use crate::{EpisodeContext, EpisodePolicy, EvalError, Observation, Policy};

/// The baseline rows of every table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// Uniform actions within the environment's bounds: the floor.
    Random,
    /// Zero actions: what a pair gives away for nothing.
    NoOp,
    /// The recorded actions, then zeros: must solve at least 99 % of the pairs, else the protocol is wrong.
    Replay,
    /// Random moves held near what the task is about (in Push-T it reads the block's pose): the reference's collection
    /// policy.
    Weak,
}

impl Baseline {
    /// All of them, in table order.
    pub const ALL: [Self; 4] = [Self::Random, Self::NoOp, Self::Replay, Self::Weak];
}

impl Policy for Baseline {
    fn name(&self) -> String {
        match self {
            Self::Random => "random",
            Self::NoOp => "no-op",
            Self::Replay => "replay",
            Self::Weak => "weak",
        }
        .into()
    }

    fn begin(&self, context: EpisodeContext) -> Result<Box<dyn EpisodePolicy>, EvalError> {
        let recorded = if *self == Self::Replay { context.pair.actions.clone() } else { Vec::new() };
        let (env, goal) = (context.env.domain(), context.goal.state.clone());
        let weak = Weak::with(context.stream.clone());
        let recorded = recorded.into_iter();
        Ok(Box::new(Acting { kind: *self, env, goal, stream: context.stream, weak, recorded }))
    }
}

struct Acting {
    kind: Baseline,
    env: DomainRef,
    goal: Vec<f64>,
    stream: Stream,
    weak: Weak,
    recorded: std::vec::IntoIter<[f32; 2]>,
}

impl EpisodePolicy for Acting {
    fn act(&mut self, observation: &Observation) -> Result<[f32; 2], EvalError> {
        let [low, high] = self.env.spec().action_bounds.map(f64::from);
        Ok(match self.kind {
            Baseline::Random => std::array::from_fn(|_| self.stream.uniform(low, high) as f32),
            Baseline::NoOp => [0.0; 2],
            Baseline::Replay => self.recorded.next().unwrap_or_default(),
            Baseline::Weak => {
                self.weak.near(self.env.anchor(observation.factors, observation.state, &self.goal)?)
            }
        })
    }
}
