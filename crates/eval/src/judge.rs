//! Decides when an episode has succeeded.

use serde::{Deserialize, Serialize};
use worldbench_env::{EnvError, Simulation, Spec};

/// What a protocol asks of an episode beyond, or instead of, the environment's own test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest distance, px (strictly below); the environment's own test decides where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distance: Option<f64>,
    /// Largest angle error, degrees (strictly below), where something turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub angle: Option<f64>,
    /// Whether `distance` counts the agent too; else only what is to be brought to the goal.
    pub agent: bool,
    /// Env steps in a row that must pass the test; at least 1.
    pub hold: usize,
    /// The test is made after every so many env steps; at least 1.
    pub every: usize,
    /// Whether an episode is lost as soon as a step passes through something solid.
    pub legal: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { distance: None, angle: None, agent: true, hold: 1, every: 1, legal: false }
    }
}

impl Limits {
    /// Checks every value.
    ///
    /// # Errors
    /// Names the key that makes no sense and what it may be.
    pub fn check(&self) -> Result<(), String> {
        if self.hold == 0 || self.every == 0 {
            return Err("`limits.hold` and `limits.every` must be at least 1 env step".into());
        }
        if self.angle.is_some() && self.distance.is_none() {
            return Err("`limits.angle` needs `limits.distance` beside it".into());
        }
        if !self.agent && self.distance.is_none() {
            return Err("`limits.agent = false` needs `limits.distance` beside it".into());
        }
        if [self.distance, self.angle].into_iter().flatten().any(|v| !(v > 0.0 && v.is_finite())) {
            return Err("`limits.distance` and `limits.angle` must be positive".into());
        }
        Ok(())
    }

    /// Name of the rule that these make of an environment: its own test is called `joint` where something turns, else
    /// `disc`; with `legal` it is `legal`. A distance makes it `near`, or `pose` where the agent is ignored.
    #[must_use]
    pub fn rule(&self, env: &Spec) -> String {
        let word = match self.distance {
            Some(_) if self.agent => "near",
            Some(_) => "pose",
            None if self.legal => "legal",
            None if env.angles.is_empty() => "disc",
            None => "joint",
        };
        format!("{}-{word}", env.name.replace('_', "-"))
    }

    /// How much nearer than `distance`, the environment's own, an episode must come: 1 where it need not.
    #[must_use]
    pub fn share_of(&self, distance: f64) -> f64 {
        self.distance.map_or(1.0, |limit| (limit / distance).min(1.0))
    }

    /// Env steps in which a recording of `steps` steps can succeed: to its end, then as long as must be held.
    #[must_use]
    pub(crate) fn replay_steps(&self, steps: usize) -> usize {
        (steps + self.hold - 1).next_multiple_of(self.every)
    }

    /// Whether the environment passes the test now.
    pub(crate) fn pass(&self, env: &dyn Simulation) -> bool {
        let Some(distance) = self.distance else { return env.success() };
        let errors = env.errors();
        let far = if self.agent { errors.distance } else { errors.object };
        let turned = errors.angle.zip(self.angle).is_some_and(|(error, most)| error >= most.to_radians());
        far < distance && !turned
    }
}

/// Watches one episode.
#[derive(Clone, Debug)]
pub struct Judge {
    limits: Limits,
    steps: usize,
    held: usize,
    illegal: bool,
}

impl Judge {
    /// A judge of an episode that begins.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, steps: 0, held: 0, illegal: false }
    }

    /// Whether the episode has succeeded with the step that led from the state `before` to `env` as it stands.
    ///
    /// # Errors
    /// When a state does not fit the environment.
    pub fn after(&mut self, before: &[f64], env: &dyn Simulation) -> Result<bool, EnvError> {
        self.steps += 1;
        if self.limits.legal && !self.illegal {
            self.illegal = !env.domain().legal(&env.scene(), before, &env.state())?;
        }
        self.held = if self.limits.pass(env) { self.held + 1 } else { 0 };
        let due = self.steps.is_multiple_of(self.limits.every);
        Ok(due && !self.illegal && self.held >= self.limits.hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldbench_env::{Changes, domain};

    fn room(start: [f64; 2], goal: [f64; 2]) -> Box<dyn Simulation> {
        let env = domain::find("two_room").unwrap();
        let mut room = env.build(&env.scene(&Changes::new()).unwrap());
        room.set_state(&start).unwrap();
        room.set_goal_state(&goal).unwrap();
        room
    }

    /// Steps of `action` until success, at most 20.
    fn walk(limits: Limits, mut env: Box<dyn Simulation>, action: [f32; 2]) -> Option<usize> {
        let mut judge = Judge::new(limits);
        (1..=20).find(|_| {
            let before = env.state();
            env.step(action);
            judge.after(&before, env.as_ref()).unwrap()
        })
    }

    #[test]
    fn limits_tighten_hold_and_postpone_the_test() {
        let env = || room([40.0, 60.0], [90.0, 60.0]);
        let walk = |limits| walk(limits, env(), [1.0, 0.0]);
        // 50 px to go, 5 a step: nearer than 16 px after 7 steps, nearer than 8 after 9, past it again after 12.
        assert_eq!(walk(Limits::default()), Some(7));
        assert_eq!(walk(Limits { distance: Some(8.0), ..Limits::default() }), Some(9));
        assert_eq!(walk(Limits { distance: Some(8.0), hold: 3, ..Limits::default() }), Some(11));
        assert_eq!(walk(Limits { distance: Some(8.0), hold: 4, ..Limits::default() }), None);
        assert_eq!(walk(Limits { every: 5, ..Limits::default() }), Some(10));
    }

    #[test]
    fn an_illegal_step_loses_the_episode() {
        // Thrown out of the door to the right, where the goal is.
        let env = || room([112.0, 64.0], [130.0, 69.0]);
        assert_eq!(walk(Limits::default(), env(), [0.0, 1.0]), Some(1));
        assert_eq!(walk(Limits { legal: true, ..Limits::default() }, env(), [0.0, 1.0]), None);
        let fair = room([130.0, 90.0], [130.0, 69.0]);
        assert_eq!(walk(Limits { legal: true, ..Limits::default() }, fair, [0.0, -1.0]), Some(2));
    }

    #[test]
    fn senseless_limits_are_named() {
        for (limits, key) in [
            (Limits { hold: 0, ..Limits::default() }, "hold"),
            (Limits { angle: Some(3.0), ..Limits::default() }, "distance"),
            (Limits { agent: false, ..Limits::default() }, "distance"),
            (Limits { distance: Some(-1.0), ..Limits::default() }, "positive"),
        ] {
            assert!(limits.check().unwrap_err().contains(key));
        }
    }
}
