//! Policies that need no planner: random, no-op, weak (the reference's data collector) and noisy replay.
//!
//! Each is a function of its key alone: the same seed and environment index give the same actions whatever the
//! thread count.

use crate::environment::{Action, Anchor, Environment};
use worldbench_core::Stream;

/// Chooses the next action in an environment.
pub trait Policy<E: Environment>: Send {
    /// The action for what `env` is in now; `step` counts control steps from 0.
    fn act(&mut self, env: &E, step: usize) -> Action;
}

/// Uniform actions within the environment's bounds.
#[derive(Clone, Debug)]
pub struct Random(Stream);

impl Random {
    /// The policy of environment `index` under `seed`.
    #[must_use]
    pub fn new(seed: u64, index: u64) -> Self {
        Self(Stream::new(seed, "policy random", &[index]))
    }
}

impl<E: Environment> Policy<E> for Random {
    fn act(&mut self, _: &E, _: usize) -> Action {
        let [low, high] = E::SPEC.action_bounds.map(f64::from);
        [0; 2].map(|_| self.0.uniform(low, high) as f32)
    }
}

/// Never moves.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoOp;

impl<E: Environment> Policy<E> for NoOp {
    fn act(&mut self, _: &E, _: usize) -> Action {
        [0.0; 2]
    }
}

/// Uniform moves, clipped to a square around what the task is about, which keeps the agent near it: in Push-T the
/// block's origin (not its centre of gravity), as the reference has it, in Two-Room the target, walls or no walls.
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
        Self::with(Stream::new(seed, "policy weak", &[index]))
    }

    /// The policy that draws from `stream`.
    #[must_use]
    pub fn with(stream: Stream) -> Self {
        Self { stream, distance: 100.0 }
    }
}

impl Weak {
    /// A random move, kept near what is played around.
    pub fn near(&mut self, Anchor { agent, object, reach }: Anchor) -> Action {
        std::array::from_fn(|k| {
            let target = agent[k] + reach * self.stream.uniform(-1.0, 1.0);
            // max then min cannot panic, unlike clamp, when a position is not finite.
            let target = target.max(object[k] - self.distance).min(object[k] + self.distance);
            ((target - agent[k]) / reach).clamp(-1.0, 1.0) as f32
        })
    }
}

impl<E: Environment> Policy<E> for Weak {
    fn act(&mut self, env: &E, _: usize) -> Action {
        self.near(E::anchor(env.factors(), &env.state(), &env.goal_state()))
    }
}

/// Recorded actions plus Gaussian noise; no-op once the record has ended.
#[derive(Clone, Debug)]
pub struct NoisyReplay {
    stream: Stream,
    actions: Vec<Action>,
    std: f64,
}

impl NoisyReplay {
    /// Replay `index` of `actions` under `seed` with noise of standard deviation `std` (units of the action).
    #[must_use]
    pub fn new(seed: u64, index: u64, actions: Vec<Action>, std: f64) -> Self {
        Self { stream: Stream::new(seed, "policy noisy replay", &[index]), actions, std }
    }
}

impl<E: Environment> Policy<E> for NoisyReplay {
    fn act(&mut self, _: &E, step: usize) -> Action {
        let Some(&action) = self.actions.get(step) else {
            return [0.0; 2];
        };
        action.map(|a| (f64::from(a) + self.std * self.stream.normal()) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push_t::PushT;
    use crate::two_room::TwoRoom;

    fn push_t(state: [f64; 5]) -> PushT {
        let mut env = PushT::build(&Default::default());
        env.set_state(&state).unwrap();
        env
    }

    fn policies_repeat_under_their_key<E: Environment>() {
        let env = E::build(&E::Factors::default());
        let play = |seed, index| (0..5).map(|i| Random::new(seed, index).act(&env, i)).collect::<Vec<_>>();
        assert_eq!(play(1, 2), play(1, 2));
        assert_ne!(play(1, 2), play(1, 3));
        assert_ne!(play(1, 2), play(2, 2));
        assert_eq!(NoOp.act(&env, 0), [0.0; 2]);
    }

    #[test]
    fn policies_repeat_under_their_key_and_differ_between_keys() {
        policies_repeat_under_their_key::<PushT>();
        policies_repeat_under_their_key::<TwoRoom>();
    }

    #[test]
    fn the_weak_policy_stays_near_the_block_and_saturates_far_from_it() {
        let mut weak = Weak::new(5, 0);
        let env = push_t([300.0, 100.0, 250.0, 250.0, 0.0]);
        for _ in 0..500 {
            let [x, y] = weak.act(&env, 0).map(f64::from);
            assert!((300.0 + 100.0 * x - 250.0).abs() <= 100.001 && 100.0 + 100.0 * y >= 149.999);
        }
        assert_eq!(weak.act(&push_t([0.0, 0.0, 400.0, 400.0, 0.0]), 0), [1.0, 1.0]);
    }

    #[test]
    fn the_weak_policy_stays_near_the_target() {
        let mut env = TwoRoom::build(&Default::default());
        env.set_goal_state(&[40.0, 180.0]).unwrap();
        let mut weak = Weak { distance: 10.0, ..Weak::new(5, 0) };
        for step in 0..300 {
            let action = weak.act(&env, step);
            env.step(action);
            assert!(step < 40 || (env.state()[0] - 40.0).abs() <= 10.001, "{:?}", env.state());
        }
        assert!((env.state()[1] - 180.0).abs() <= 10.001);
    }

    #[test]
    fn replay_without_noise_is_the_record() {
        let env = push_t([300.0, 100.0, 250.0, 250.0, 0.0]);
        let mut replay = NoisyReplay::new(0, 0, vec![[0.5, -0.25]], 0.0);
        assert_eq!(replay.act(&env, 0), [0.5, -0.25]);
        assert_eq!(replay.act(&env, 1), [0.0, 0.0]);
        assert_ne!(NoisyReplay::new(0, 0, vec![[0.5, -0.25]], 0.1).act(&env, 0), [0.5, -0.25]);
    }
}
