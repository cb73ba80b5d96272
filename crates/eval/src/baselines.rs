//! Policies without planner or model: the floor rows and the protocol's own check.

use worldbench_core::Stream;

use crate::{EpisodeContext, EpisodePolicy, EvalError, Observation, Policy};

/// The baseline rows of every table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// Uniform actions in `[-1, 1]^2`: the floor.
    Random,
    /// Zero actions: what a pair gives away for nothing.
    NoOp,
    /// The recorded actions, then zeros: must solve at least 99 % of the pairs, else the protocol is wrong.
    Replay,
    /// Random moves held near the block (reads the block's pose): the reference's collection policy.
    Weak,
}

/// Reach of [`Baseline::Weak`] around the block's origin, px.
const WEAK_REACH: f64 = 100.0;
/// Agent travel per unit of action, px.
const ACTION_SCALE: f64 = 100.0;

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
        Ok(Box::new(Acting { kind: *self, stream: context.stream, recorded: recorded.into_iter() }))
    }
}

struct Acting {
    kind: Baseline,
    stream: Stream,
    recorded: std::vec::IntoIter<[f32; 2]>,
}

impl EpisodePolicy for Acting {
    fn act(&mut self, observation: &Observation) -> Result<[f32; 2], EvalError> {
        Ok(match self.kind {
            Baseline::Random => std::array::from_fn(|_| self.stream.uniform(-1.0, 1.0) as f32),
            Baseline::NoOp => [0.0; 2],
            Baseline::Replay => self.recorded.next().unwrap_or_default(),
            Baseline::Weak => std::array::from_fn(|i| weak(&mut self.stream, &observation.state, i)),
        })
    }
}

/// One coordinate of the weak policy: a random move, its target clipped to the block's neighbourhood.
fn weak(stream: &mut Stream, state: &[f64; 7], i: usize) -> f32 {
    let (agent, block) = (state[i], state[i + 2]);
    let target = agent + ACTION_SCALE * stream.uniform(-1.0, 1.0);
    let near = target.max(block - WEAK_REACH).min(block + WEAK_REACH);
    ((near - agent) / ACTION_SCALE).clamp(-1.0, 1.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weak_policy_heads_for_a_far_block() {
        let mut stream = Stream::new(0, "test", &[]);
        let state = [0.0, 500.0, 400.0, 100.0, 0.0, 0.0, 0.0];
        for _ in 0..100 {
            assert_eq!((weak(&mut stream, &state, 0), weak(&mut stream, &state, 1)), (1.0, -1.0));
        }
        let state = [250.0, 250.0, 250.0, 250.0, 0.0, 0.0, 0.0];
        let moves: Vec<f32> = (0..100).map(|_| weak(&mut stream, &state, 0)).collect();
        assert!(moves.iter().any(|&m| m > 0.5) && moves.iter().any(|&m| m < -0.5));
    }
}
