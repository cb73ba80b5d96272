//! The reference's expert: straight to the target, by way of the nearest fitting door if a wall lies between.

use super::{CENTRE, TwoRoom};
use crate::environment::{Action, Environment};
use crate::policies::Policy;
use worldbench_core::Stream;

/// A door's centre counts as reached from this distance, pixels.
const ARRIVED: f32 = 10.5;

/// Walks at full speed and overshoots: it neither slows down nor stops at the target. Once within 10.5 px of the
/// door's centre it turns to the target at once, may hit the wall beside the door and then aims at the door again.
#[derive(Clone, Debug)]
pub struct Expert {
    stream: Stream,
    /// Standard deviation of the noise on each component of the action; 0 in the reference.
    pub noise: f64,
}

impl Expert {
    /// The expert of environment `index` under `seed`, with noise of standard deviation `noise`.
    #[must_use]
    pub fn new(seed: u64, index: u64, noise: f64) -> Self {
        Self::with(Stream::new(seed, "policy two-room expert", &[index]), noise)
    }

    /// The expert whose noise is drawn from `stream`.
    #[must_use]
    pub fn with(stream: Stream, noise: f64) -> Self {
        Self { stream, noise }
    }
}

impl Policy<TwoRoom> for Expert {
    fn act(&mut self, env: &TwoRoom, _: usize) -> Action {
        let toward = direction(env.agent, waypoint(env));
        let noise = [0; 2].map(|_| if self.noise > 0.0 { self.noise * self.stream.normal() } else { 0.0 });
        std::array::from_fn(|k| ((f64::from(toward[k]) + noise[k]) as f32).clamp(-1.0, 1.0))
    }
}

/// Distance of two points with every operation in f32; the success test rounds otherwise.
fn length(from: [f32; 2], to: [f32; 2]) -> f32 {
    let [dx, dy] = [to[0] - from[0], to[1] - from[1]];
    (dx * dx + dy * dy).sqrt()
}

/// The unit vector from `from` to `to`; 0 where they coincide.
fn direction(from: [f32; 2], to: [f32; 2]) -> [f32; 2] {
    let length = length(from, to);
    if f64::from(length) <= 1e-8 {
        return [0.0; 2];
    }
    std::array::from_fn(|k| (to[k] - from[k]) / length)
}

/// Where to walk next: the target, the centre of a door, or the wall beside the target when no door fits.
fn waypoint(env: &TwoRoom) -> [f32; 2] {
    let (agent, target, factors) = (env.agent, env.target, env.factors());
    let (across, centre) = (factors.wall_axis.across(), CENTRE as f32);
    if (agent[across] > centre) == (target[across] > centre) {
        return target;
    }
    let in_the_wall = |along: f32| {
        let mut place = [centre; 2];
        place[1 - across] = along;
        place
    };
    let fitting = factors.doors().filter(|&(_, extent)| f64::from(extent) >= factors.passable());
    let doors = fitting.map(|(along, _)| in_the_wall(along as f32)).map(|door| (length(agent, door), door));
    match doors.min_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((far, door)) if far > ARRIVED => door,
        Some(_) => target,
        None => in_the_wall(target[1 - across]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::ResetOptions;

    #[test]
    fn the_expert_reaches_targets_in_both_rooms() {
        let mut env = TwoRoom::build(&Default::default());
        for seed in 0..200 {
            env.reset(seed, &ResetOptions::default()).unwrap();
            let mut expert = Expert::new(0, seed, 0.0);
            let arrived = (0..150).any(|step| {
                let action = expert.act(&env, step);
                env.step(action);
                env.success()
            });
            assert!(arrived, "seed {seed}: {:?} to {:?}", env.state(), env.goal_state());
        }
    }

    #[test]
    fn noise_follows_its_key_and_stays_in_bounds() {
        let env = TwoRoom::build(&Default::default());
        let play = |index| {
            let mut expert = Expert::new(3, index, 2.0);
            (0..20).map(|step| expert.act(&env, step)).collect::<Vec<_>>()
        };
        assert_eq!(play(1), play(1));
        assert_ne!(play(1), play(2));
        assert!(play(1).as_flattened().iter().all(|v| v.abs() <= 1.0));
    }

    #[test]
    fn without_a_fitting_door_the_expert_walks_against_the_wall() {
        let mut factors = super::super::Factors { door_size: [1; 3], ..Default::default() };
        factors.door_position = [49; 3];
        assert_eq!(waypoint(&TwoRoom::build(&factors)), [112.0, 112.0]);
    }
}
