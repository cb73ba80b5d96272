//! Policies that need no planner: random, no-op, weak (the reference's data collector) and noisy replay.
//!
//! Each is a function of its key alone: the same seed and environment index give the same actions whatever the
//! thread count.

use crate::push_t::State;
use worldbench_core::Stream;

/// Chooses the next action from the observed state.
pub trait Policy: Send {
    /// Relative action, units of 100 px; `step` counts control steps from 0.
    fn act(&mut self, state: &State, step: usize) -> [f32; 2];
}

/// Uniform actions in [-1, 1].
#[derive(Clone, Debug)]
pub struct Random(Stream);

impl Random {
    /// The policy of environment `index` under `seed`.
    #[must_use]
    pub fn new(seed: u64, index: u64) -> Self {
        Self(Stream::new(seed, "policy random", &[index]))
    }
}

impl Policy for Random {
    fn act(&mut self, _: &State, _: usize) -> [f32; 2] {
        [0; 2].map(|_| self.0.uniform(-1.0, 1.0) as f32)
    }
}

/// Never moves.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoOp;

impl Policy for NoOp {
    fn act(&mut self, _: &State, _: usize) -> [f32; 2] {
        [0.0; 2]
    }
}

/// Uniform targets within 100 px of the agent, clipped to a square around the block's origin (not its centre of
/// gravity), which keeps the agent near the block.
#[derive(Clone, Debug)]
pub struct Weak {
    stream: Stream,
    /// Half side of the square in pixels; 100 in the reference.
    pub distance: f64,
}

impl Weak {
    /// The policy of environment `index` under `seed`.
    #[must_use]
    pub fn new(seed: u64, index: u64) -> Self {
        Self { stream: Stream::new(seed, "policy weak", &[index]), distance: 100.0 }
    }
}

impl Policy for Weak {
    fn act(&mut self, state: &State, _: usize) -> [f32; 2] {
        std::array::from_fn(|k| {
            let (agent, block) = (state[k], state[2 + k]);
            let target = agent + 100.0 * self.stream.uniform(-1.0, 1.0);
            // max then min cannot panic, unlike clamp, when a position is not finite.
            let target = target.max(block - self.distance).min(block + self.distance);
            ((target - agent) / 100.0).clamp(-1.0, 1.0) as f32
        })
    }
}

/// Recorded actions plus Gaussian noise; no-op once the record has ended.
#[derive(Clone, Debug)]
pub struct NoisyReplay {
    stream: Stream,
    actions: Vec<[f32; 2]>,
    std: f64,
}

impl NoisyReplay {
    /// Replay `index` of `actions` under `seed` with noise of standard deviation `std` (units of 100 px).
    #[must_use]
    pub fn new(seed: u64, index: u64, actions: Vec<[f32; 2]>, std: f64) -> Self {
        Self { stream: Stream::new(seed, "policy noisy replay", &[index]), actions, std }
    }
}

impl Policy for NoisyReplay {
    fn act(&mut self, _: &State, step: usize) -> [f32; 2] {
        let Some(&action) = self.actions.get(step) else {
            return [0.0; 2];
        };
        action.map(|a| (f64::from(a) + self.std * self.stream.normal()) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: State = [300.0, 100.0, 250.0, 250.0, 0.0, 0.0, 0.0];

    #[test]
    fn policies_repeat_under_their_key_and_differ_between_keys() {
        let play = |seed, index| (0..5).map(|i| Random::new(seed, index).act(&STATE, i)).collect::<Vec<_>>();
        assert_eq!(play(1, 2), play(1, 2));
        assert_ne!(play(1, 2), play(1, 3));
        assert_ne!(play(1, 2), play(2, 2));
    }

    #[test]
    fn the_weak_policy_stays_near_the_block_and_saturates_far_from_it() {
        let mut weak = Weak::new(5, 0);
        for _ in 0..500 {
            let [x, y] = weak.act(&STATE, 0).map(f64::from);
            assert!((300.0 + 100.0 * x - 250.0).abs() <= 100.001 && 100.0 + 100.0 * y >= 149.999);
        }
        let far = [0.0, 0.0, 400.0, 400.0, 0.0, 0.0, 0.0];
        assert_eq!(weak.act(&far, 0), [1.0, 1.0]);
    }

    #[test]
    fn replay_without_noise_is_the_record() {
        let mut replay = NoisyReplay::new(0, 0, vec![[0.5, -0.25]], 0.0);
        assert_eq!(replay.act(&STATE, 0), [0.5, -0.25]);
        assert_eq!(replay.act(&STATE, 1), [0.0, 0.0]);
        assert_ne!(NoisyReplay::new(0, 0, vec![[0.5, -0.25]], 0.1).act(&STATE, 0), [0.5, -0.25]);
    }
}
