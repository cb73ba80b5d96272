//! The Push-T environment: one control step is ten physics steps under a PD law (10 Hz control, 100 Hz physics).
//!
//! A state is 7 values: agent x, y; block origin x, y; block angle in [0, 2 pi); agent velocity x, y.
//! Lengths are pixels of the 512 x 512 canvas, angles radians.

mod environment;
mod factors;

pub use environment::SPEC;
pub use factors::{FACTORS, Factors, Sample};

use crate::environment::ResetOptions;
use crate::error::EnvError;
use crate::geometry::{Geometry, Shape, Vec2};
use crate::physics::{Body, BodySpec, DT, World};
use crate::render_state::{Marks, RenderState};

/// Physics steps in one control step.
pub const SUBSTEPS: usize = 10;
/// Pixels per unit of a relative action.
pub const ACTION_SCALE: f64 = 100.0;
const KP: f64 = 100.0;
const KV: f64 = 20.0;
const TAU: f64 = std::f64::consts::TAU;
/// Success: the four positions lie within this distance of the goal's (strictly), in pixels.
pub const SUCCESS_DISTANCE: f64 = 20.0;
/// Success: the angle error is below this (strictly), in radians.
pub const SUCCESS_ANGLE: f64 = std::f64::consts::PI / 9.0;
/// Bins per axis of the discrete variant (radius, angle).
pub const BINS: usize = 16;

/// A state vector: agent x, y; block x, y; block angle; agent velocity x, y.
pub type State = [f64; 7];

/// How a world is built and actions are read; the scene itself is in [`Factors`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PushTConfig {
    /// Actions are offsets from the agent (100 px per unit); else they are target positions in pixels.
    pub relative: bool,
    /// Overrides the block's centre of gravity (body frame, pixels); nothing else is recomputed.
    pub block_cog: Option<Vec2>,
    /// Fraction of velocity that bodies keep per second.
    pub damping: f64,
}

impl Default for PushTConfig {
    fn default() -> Self {
        Self { relative: true, block_cog: None, damping: 0.0 }
    }
}

/// The exact Push-T simulator. A clone continues bit for bit like its original.
#[derive(Clone)]
pub struct PushT {
    world: World,
    config: PushTConfig,
    factors: Factors,
    goal: State,
    /// The world's contact count when the counter was last zeroed.
    counted_from: u64,
    /// Physics steps with and without contact, for benchmarks.
    contact_steps: u64,
}

impl PushT {
    /// Builds the world of the scene `factors` without placing the bodies by `set_state`.
    #[must_use]
    pub fn new(factors: &Factors, config: PushTConfig) -> Self {
        let agent = BodySpec {
            geometry: Geometry::new(factors.agent_shape, factors.agent_scale),
            position: factors.agent_start,
            angle: factors.agent_angle,
        };
        let block = BodySpec {
            geometry: Geometry::new(factors.block_shape, factors.block_scale),
            position: factors.block_start,
            angle: factors.block_angle,
        };
        Self {
            world: World::new(&agent, &block, config.block_cog, config.damping),
            config,
            factors: *factors,
            goal: [0.0; 7],
            counted_from: 0,
            contact_steps: 0,
        }
    }

    /// Samples a scene from `seed`, builds a fresh world and places it at the goal and then at the start, one
    /// physics step each, as the reference does.
    ///
    /// # Errors
    /// On unknown factors, values out of bounds and states of the wrong length.
    pub fn reset(&mut self, seed: u64, options: &ResetOptions) -> Result<State, EnvError> {
        let sample = Sample::new(seed, &options.sampling)?;
        let f = sample.factors;
        let start = join(f.agent_start, f.block_start, f.block_angle, f.agent_velocity);
        let goal = options.goal_state.as_deref().map_or(Ok(sample.goal_state), parse_state)?;
        let start = options.state.as_deref().map_or(Ok(start), parse_state)?;
        *self = Self::new(&f, self.config);
        self.place(&goal);
        self.goal = goal;
        self.place(&start);
        Ok(self.state())
    }

    /// Sets agent velocity, agent position, block angle and block position, in this order, then runs one physics
    /// step. Takes 7 values, or 5 for velocity 0. Caches and the block's residual motion stay, so the state read
    /// back can differ from the one asked for.
    ///
    /// # Errors
    /// On another length or values that are not finite.
    pub fn set_state(&mut self, state: &[f64]) -> Result<(), EnvError> {
        self.place(&parse_state(state)?);
        Ok(())
    }

    fn place(&mut self, s: &State) {
        let agent = self.world.agent_mut();
        agent.v = [s[5], s[6]];
        agent.set_position([s[0], s[1]]);
        let block = self.world.block_mut();
        block.set_angle(s[4]);
        block.set_position([s[2], s[3]]);
        self.physics_step();
    }

    /// Stores the state that reward and termination compare with; nothing moves.
    ///
    /// # Errors
    /// When the length is neither 7 nor 5, or a value is not finite.
    pub fn set_goal_state(&mut self, goal: &[f64]) -> Result<(), EnvError> {
        self.goal = parse_state(goal)?;
        Ok(())
    }

    /// One control step with an f32 action, the precision that collection and planners use. In relative mode
    /// the PD law is then evaluated in f32, like NumPy 2 does. The action is not clipped.
    pub fn step_f32(&mut self, action: [f32; 2]) {
        if !self.config.relative {
            return self.step_f64(action.map(f64::from));
        }
        self.counted_from = self.world.contact_count();
        let p = self.world.agent().origin();
        let target: [f32; 2] = std::array::from_fn(|k| p[k] as f32 + action[k] * 100.0);
        for _ in 0..SUBSTEPS {
            let agent = self.world.agent_mut();
            let p = agent.origin();
            for k in 0..2 {
                let damping = ((0.0 - agent.v[k]) * KV) as f32;
                let acceleration = (target[k] - p[k] as f32) * 100.0 + damping;
                agent.v[k] = f64::from(agent.v[k] as f32 + acceleration * 0.01);
            }
            self.physics_step();
        }
    }

    /// One control step with an f64 action; the PD law is evaluated in f64. The action is not clipped.
    pub fn step_f64(&mut self, action: [f64; 2]) {
        self.counted_from = self.world.contact_count();
        let p = self.world.agent().origin();
        let target = if self.config.relative {
            [p[0] + ACTION_SCALE * action[0], p[1] + ACTION_SCALE * action[1]]
        } else {
            action
        };
        for _ in 0..SUBSTEPS {
            let agent = self.world.agent_mut();
            let p = agent.origin();
            for k in 0..2 {
                let acceleration = (target[k] - p[k]) * KP + (0.0 - agent.v[k]) * KV;
                agent.v[k] += acceleration * DT;
            }
            self.physics_step();
        }
    }

    /// One control step of the discrete variant: `radial` and `angular` bins, each 0 to 15.
    pub fn step_discrete(&mut self, radial: usize, angular: usize) {
        self.step_f32(undiscretise(radial, angular));
    }

    fn physics_step(&mut self) {
        self.world.step();
        self.contact_steps += u64::from(self.world.touching());
    }

    /// The observed state; the block position is that of its body origin.
    #[must_use]
    pub fn state(&self) -> State {
        let (agent, block) = (self.world.agent(), self.world.block());
        join(agent.origin(), block.origin(), floored_modulo(block.angle, TAU), agent.v)
    }

    /// Agent position and velocity: what the reference calls proprio.
    #[must_use]
    pub fn proprio(&self) -> [f64; 4] {
        let (p, v) = (self.world.agent().origin(), self.world.agent().v);
        [p[0], p[1], v[0], v[1]]
    }

    /// Block angle without wrapping, radians.
    #[must_use]
    pub fn block_angle_raw(&self) -> f64 {
        self.world.block().angle
    }

    /// Block velocity: x, y in pixels per second, angular in radians per second.
    #[must_use]
    pub fn block_velocity(&self) -> [f64; 3] {
        let Body { v, w, .. } = *self.world.block();
        [v[0], v[1], w]
    }

    /// Contact points summed over the physics steps since the last control step began (or the world was built).
    #[must_use]
    pub fn contact_points(&self) -> u64 {
        self.world.contact_count() - self.counted_from
    }

    /// The reference's `n_contacts`: [`Self::contact_points`] / 10, rounded up.
    #[must_use]
    pub fn n_contacts(&self) -> u64 {
        self.contact_points().div_ceil(SUBSTEPS as u64)
    }

    /// Physics steps with at least one contact since the world was built.
    #[must_use]
    pub fn contact_steps(&self) -> u64 {
        self.contact_steps
    }

    /// Minus the distance of state and goal over all 7 components, without wrapping the angle.
    #[must_use]
    pub fn reward(&self) -> f64 {
        -state_distance(&self.state(), &self.goal)
    }

    /// Whether the state satisfies [`success`] now.
    #[must_use]
    pub fn terminated(&self) -> bool {
        success(&self.state(), &self.goal, self.factors.block_shape)
    }

    /// The goal state.
    #[must_use]
    pub fn goal_state(&self) -> State {
        self.goal
    }

    /// The scene.
    #[must_use]
    pub fn factors(&self) -> &Factors {
        &self.factors
    }

    /// The physics world.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// What a frame shows besides the factors.
    #[must_use]
    pub fn render_state(&self) -> RenderState {
        let (agent, block) = (self.world.agent(), self.world.block());
        let end = |x: f64| x.round_ties_even() as i16;
        let marks: Marks = self
            .world
            .contacts()
            .map(|c| {
                let n = [2.0 * c.normal[0], 2.0 * c.normal[1]];
                [end(c.a[0] - n[0]), end(c.a[1] - n[1]), end(c.b[0] + n[0]), end(c.b[1] + n[1])]
            })
            .collect();
        RenderState {
            agent: agent.origin(),
            agent_angle: agent.angle,
            block_cog: block.p,
            block_angle: block.angle,
            marks,
        }
    }
}

fn join(agent: Vec2, block: Vec2, angle: f64, v: Vec2) -> State {
    [agent[0], agent[1], block[0], block[1], angle, v[0], v[1]]
}

fn parse_state(values: &[f64]) -> Result<State, EnvError> {
    if !matches!(values.len(), 5 | 7) {
        return Err(EnvError::StateLength {
            wanted: "a Push-T state has 7 values (agent x, y, block x, y, angle, agent velocity x, y) or the first 5",
            len: values.len(),
        });
    }
    if values.iter().any(|v| !v.is_finite()) {
        return Err(EnvError::NotFinite { what: "the state" });
    }
    let mut state = [0.0; 7];
    state[..values.len()].copy_from_slice(values);
    Ok(state)
}

/// `a mod b` with the sign of `b` (positive here), as Python and NumPy define it.
fn floored_modulo(a: f64, b: f64) -> f64 {
    let r = a % b;
    if r < 0.0 { r + b } else { r.abs() }
}

/// Euclidean distance over all 7 components; the angle is not wrapped.
#[must_use]
pub fn state_distance(a: &State, b: &State) -> f64 {
    norm(a, b, 7)
}

fn norm(a: &State, b: &State, len: usize) -> f64 {
    a.iter().zip(b).take(len).map(|(x, y)| (x - y) * (x - y)).sum::<f64>().sqrt()
}

/// Smallest angle between two orientations of a body with rotational symmetry `symmetry`, radians.
#[must_use]
pub fn angle_error(a: f64, b: f64, symmetry: f64) -> f64 {
    let d = (a - b).abs() % symmetry;
    d.min(symmetry - d)
}

/// Push-T's success test: agent and block positions together within 20 px, block angle within pi/9 up to the
/// symmetry of `shape`.
#[must_use]
pub fn success(state: &State, goal: &State, shape: Shape) -> bool {
    norm(goal, state, 4) < SUCCESS_DISTANCE
        && angle_error(goal[4], state[4], shape.symmetry()) < SUCCESS_ANGLE
}

/// The action of a pair of bins, each 0 to 15.
#[must_use]
pub fn undiscretise(radial: usize, angular: usize) -> [f32; 2] {
    let r = (radial as f64 + 0.5) / BINS as f64;
    let th = (angular as f64 + 0.5) / BINS as f64 * TAU;
    [(r * th.cos()) as f32, (r * th.sin()) as f32]
}

/// The (radial, angular) bins of an action.
#[must_use]
pub fn discretise(action: [f64; 2]) -> (usize, usize) {
    let bins = BINS as f64;
    let r = (action[0] * action[0] + action[1] * action[1]).sqrt();
    let th = floored_modulo(action[1].atan2(action[0]), TAU);
    ((r * bins).clamp(0.0, bins - 1.0) as usize, (th / TAU * bins).clamp(0.0, bins - 1.0) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touching() -> PushT {
        let mut env = PushT::new(&Factors::default(), PushTConfig::default());
        env.set_state(&[200.0, 180.0, 256.0, 256.0, 0.7]).unwrap();
        env.set_goal_state(&[256.0, 256.0, 256.0, 256.0, 0.0]).unwrap();
        let mut pushed = 0;
        for _ in 0..40 {
            let s = env.state();
            let a = [(s[2] - s[0]) as f32 / 60.0, (s[3] + 30.0 - s[1]) as f32 / 60.0];
            env.step_f32(a);
            pushed += env.contact_points();
            if pushed > 15 && env.world().touching() {
                return env;
            }
        }
        panic!("no contact");
    }

    #[test]
    fn a_clone_taken_mid_contact_continues_bit_for_bit() {
        let mut original = touching();
        let mut clone = original.clone();
        for k in 0..60 {
            let a = [(f64::from(k) * 0.7).sin() as f32, (f64::from(k) * 0.4).cos() as f32];
            original.step_f32(a);
            // Another branch in between must not reach back.
            clone.clone().step_f32([1.0, -1.0]);
            clone.step_f32(a);
            assert_eq!(original.state().map(f64::to_bits), clone.state().map(f64::to_bits));
            assert_eq!(original.render_state(), clone.render_state());
            assert_eq!(original.contact_points(), clone.contact_points());
        }
    }

    #[test]
    fn symmetric_blocks_succeed_at_symmetric_angles() {
        let goal = [100.0, 100.0, 200.0, 200.0, 0.1, 0.0, 0.0];
        let mut state = goal;
        state[4] += std::f64::consts::PI;
        assert!(success(&state, &goal, Shape::Z));
        assert!(success(&state, &goal, Shape::Square));
        assert!(!success(&state, &goal, Shape::T));
        state = goal;
        state[0] += 20.0;
        assert!(!success(&state, &goal, Shape::T), "the bound is strict");
    }

    #[test]
    fn bins_round_trip() {
        for i in 0..BINS {
            for j in 0..BINS {
                assert_eq!(discretise(undiscretise(i, j).map(f64::from)), (i, j));
            }
        }
        assert_eq!(discretise([9.0, 0.0]), (15, 0));
    }

    #[test]
    fn bad_states_are_refused() {
        let mut env = PushT::new(&Factors::default(), PushTConfig::default());
        assert!(env.set_state(&[1.0; 6]).is_err());
        assert!(env.set_state(&[f64::NAN; 7]).is_err());
    }
}
