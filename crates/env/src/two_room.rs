//! The Two-Room environment: a dot walks between two rooms through the doors of the wall between them.
//!
//! There is no velocity: an action is a displacement, and walls only clamp positions. Positions are f32, collision
//! bounds f64, as in the reference. A state is the agent's x and y in pixels of the 224 x 224 canvas, y down; the
//! goal is the target's.

mod expert;
mod factors;

pub use expert::Expert;
pub use factors::{Axis, FACTORS, Factors, MAX_DOORS};

use crate::domain::{Appearance, Look};
use crate::environment::{Action, Anchor, Environment, Errors, ResetOptions, Spec, Subset};
use crate::error::EnvError;
use crate::raster::TwoRoomRenderer;
use crate::render_state::Marks;
use crate::variation::Variation;
use factors::TARGET_POSITION;

/// Side of the world in pixels.
pub const SIZE: usize = 224;
/// Middle of the central wall, pixels.
pub const CENTRE: i32 = SIZE as i32 / 2;
/// Success: the agent is closer to the target than this, strictly, in pixels.
pub const SUCCESS_DISTANCE: f32 = 16.0;
/// Distance of the walkable area from the edge of the image, pixels.
const INSET: f64 = 14.0;
/// What a door is wider by, on each side, for the agent's centre than it is drawn, pixels.
const DOOR_MARGIN: f64 = 1.75;
/// How far from contact the wall puts back an agent, pixels.
const PUSH_BACK: f64 = 0.5;

/// A state vector, agent x and y: f32 values in f64.
pub type State = [f64; 2];

/// What a frame shows besides the factors, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RenderState {
    /// Agent position.
    pub agent: [f32; 2],
    /// Target position; it shows only where the factors say so.
    pub target: [f32; 2],
}

impl Appearance for RenderState {
    fn look(&self) -> Look {
        let values = [self.agent, self.target].as_flattened().iter().map(|&v| f64::from(v)).collect();
        Look { values, marks: Marks::new() }
    }

    fn of_look(look: &Look) -> Self {
        let value = |i: usize| look.values.get(i).copied().unwrap_or_default() as f32;
        Self { agent: [value(0), value(1)], target: [value(2), value(3)] }
    }
}

/// Collision bounds of a scene, for the agent's centre.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Of both coordinates.
    border: [f64; 2],
    /// Index of the coordinate across the wall.
    across: usize,
    /// Where the wall begins and ends on that coordinate.
    wall: [f64; 2],
    /// Where it puts back an agent from either side.
    back: [f32; 2],
    /// Ends of the doors on the other coordinate, closed; the rest are empty.
    doors: [[f64; 2]; MAX_DOORS],
}

impl Bounds {
    fn new(factors: &Factors) -> Self {
        let wall = factors.contact();
        let mut doors = [[f64::INFINITY, f64::NEG_INFINITY]; MAX_DOORS];
        for (door, (centre, extent)) in doors.iter_mut().zip(factors.doors()) {
            *door = [f64::from(centre - extent) - DOOR_MARGIN, f64::from(centre + extent) + DOOR_MARGIN];
        }
        Self {
            border: [INSET + factors.agent_radius, SIZE as f64 - INSET - factors.agent_radius],
            across: factors.wall_axis.across(),
            wall,
            back: [(wall[0] - PUSH_BACK) as f32, (wall[1] + PUSH_BACK) as f32],
            doors,
        }
    }

    /// Where the move from `p` to `q` ends. There is no swept test: only the side of `p` and the place of `q` count.
    fn resolve(&self, p: [f32; 2], q: [f32; 2]) -> [f32; 2] {
        // Not f64::clamp, which panics on bounds in the wrong order.
        let mut q = q.map(|v| f64::from(v).max(self.border[0]).min(self.border[1]) as f32);
        let (across, along) = (f64::from(q[self.across]), f64::from(q[1 - self.across]));
        let in_a_door = self.doors.iter().any(|[low, high]| (*low..=*high).contains(&along));
        if in_a_door {
            return q;
        }
        if f64::from(p[self.across]) < f64::from(CENTRE) {
            if across > self.wall[0] {
                q[self.across] = self.back[0];
            }
        } else if across < self.wall[1] {
            q[self.across] = self.back[1];
        }
        q
    }
}

/// The exact Two-Room simulator. A clone continues bit for bit like its original.
#[derive(Clone, Debug)]
pub struct TwoRoom {
    factors: Factors,
    bounds: Bounds,
    agent: [f32; 2],
    target: [f32; 2],
}

/// What Two-Room is.
pub const SPEC: Spec = Spec {
    name: "two_room",
    title: "Two-Room",
    summary: "walk a dot to a place, through a door if that lies in the other room",
    state: &["agent x (px)", "agent y (px)"],
    proprio: &[0, 1],
    velocity: &[],
    angles: &[],
    look: &["agent x (px)", "agent y (px)", "target x (px)", "target y (px)"],
    action: "displacement, clamped to 1 per component, 1 = agent.speed px",
    action_bounds: [-1.0, 1.0],
    success: "the agent within 16 px of the target",
    success_distance: SUCCESS_DISTANCE as f64,
    hard: Subset {
        name: "other room",
        about: "start and goal lie in different rooms",
        least_share: 0.1,
        marked: false,
    },
    canvas: SIZE,
    factors: &FACTORS,
    default: |index| Factors::default().get(index),
};

impl Environment for TwoRoom {
    type Factors = Factors;
    type State = State;
    type RenderState = RenderState;
    type Renderer = TwoRoomRenderer;
    const SPEC: Spec = SPEC;

    fn build(factors: &Factors) -> Self {
        Self {
            factors: *factors,
            bounds: Bounds::new(factors),
            agent: factors.agent_position,
            target: factors.target_position,
        }
    }

    fn reset(&mut self, seed: u64, options: &ResetOptions) -> Result<State, EnvError> {
        let mut fresh = Self::build(&options.sampling.draw::<Factors>(seed)?.factors);
        if let Some(state) = &options.state {
            fresh.agent = parse(state, "the state")?;
        }
        if let Some(goal) = &options.goal_state {
            fresh.target = parse(goal, "the goal state")?;
        }
        *self = fresh;
        Ok(self.state())
    }

    /// Assigns the position, rounded to f32; nothing is clamped before the next step.
    fn set_state(&mut self, state: &[f64]) -> Result<(), EnvError> {
        self.agent = parse(state, "the state")?;
        Ok(())
    }

    /// Assigns the target, rounded to f32, and the factor `target.position` with it, whose bounds it must keep.
    fn set_goal_state(&mut self, goal: &[f64]) -> Result<(), EnvError> {
        let target = parse(goal, "the goal state")?;
        self.factors.set(FACTORS[TARGET_POSITION].name, &target.map(f64::from))?;
        self.target = target;
        Ok(())
    }

    fn step(&mut self, action: Action) {
        let speed = self.factors.agent_speed as f32;
        let to = std::array::from_fn(|k| self.agent[k] + action[k].clamp(-1.0, 1.0) * speed);
        self.agent = self.bounds.resolve(self.agent, to);
    }

    fn state(&self) -> State {
        self.agent.map(f64::from)
    }

    fn goal_state(&self) -> State {
        self.target.map(f64::from)
    }

    /// Agent, target and the centres of three doors; 0 where there is no door.
    fn observation(&self) -> Vec<f64> {
        let mut observation = [self.state(), self.goal_state()].concat();
        for (centre, _) in self.factors.doors() {
            let mut door = [f64::from(CENTRE); 2];
            door[1 - self.factors.wall_axis.across()] = centre.into();
            observation.extend(door);
        }
        observation.resize(4 + 2 * MAX_DOORS, 0.0);
        observation
    }

    fn success(&self) -> bool {
        self.distance() < SUCCESS_DISTANCE
    }

    fn factors(&self) -> &Factors {
        &self.factors
    }

    fn render_state(&self) -> RenderState {
        RenderState { agent: self.agent, target: self.target }
    }

    fn errors(_: &Factors, state: &State, goal: &State) -> Errors {
        let distance = f64::from(distance(state.map(|v| v as f32), goal.map(|v| v as f32)));
        Errors { distance, object: distance, angle: None }
    }

    /// Squared length of the way in units of the success distance, through the better door if a wall lies between.
    fn cost(factors: &Factors, state: &State, goal: &State) -> f64 {
        let radius = f64::from(SUCCESS_DISTANCE);
        let straight = length(*state, *goal);
        if straight < radius {
            return (straight / radius).powi(2);
        }
        1.0 + (way(factors, *state, *goal) / radius).powi(2)
    }

    fn hard(factors: &Factors, start: &State, goal: &State) -> bool {
        factors.side(start) != factors.side(goal)
    }

    fn anchor(factors: &Factors, state: &State, goal: &State) -> Anchor {
        Anchor { agent: *state, object: *goal, reach: factors.agent_speed }
    }

    /// Whether the agent's centre stays in an opening as long as it is within the drawn wall. The simulator only looks at
    /// where a step ends, so it admits cut corners, and throws an agent that leaves a door sideways across half the wall.
    fn legal(factors: &Factors, from: &State, to: &State) -> bool {
        let (across, half) = (factors.wall_axis.across(), f64::from(factors.half_thickness()));
        let wall = [f64::from(CENTRE) - half, f64::from(CENTRE) + half];
        let (p, q) = (from[across], to[across]);
        // Part of the step that lies within the wall, as shares of its length.
        let (mut enter, mut leave) = (0.0f64, 1.0f64);
        if p == q {
            if !(wall[0]..=wall[1]).contains(&p) {
                return true;
            }
        } else {
            let ends = wall.map(|edge| (edge - p) / (q - p));
            (enter, leave) = (enter.max(ends[0].min(ends[1])), leave.min(ends[0].max(ends[1])));
        }
        if enter > leave {
            return true;
        }
        let along = |share: f64| from[1 - across] + share * (to[1 - across] - from[1 - across]);
        factors.doors().any(|(centre, extent)| {
            let door = f64::from(centre - extent)..=f64::from(centre + extent);
            door.contains(&along(enter)) && door.contains(&along(leave))
        })
    }
}

fn length(a: State, b: State) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// Length of the way from `a` to `b`: straight within a room, else by way of the middle of the better door.
fn way(factors: &Factors, a: State, b: State) -> f64 {
    if factors.side(&a) == factors.side(&b) {
        return length(a, b);
    }
    let across = factors.wall_axis.across();
    let through = factors.doors().map(|(centre, _)| {
        let mut door = [f64::from(CENTRE); 2];
        door[1 - across] = f64::from(centre);
        length(a, door) + length(door, b)
    });
    through.fold(f64::INFINITY, f64::min)
}

/// Distance in pixels, rounded as the reference rounds it: one product and the sum are f32 operations, the other product
/// is exact.
fn distance(a: [f32; 2], b: [f32; 2]) -> f32 {
    let [dx, dy] = [a[0] - b[0], a[1] - b[1]];
    dy.mul_add(dy, dx * dx).sqrt()
}

impl TwoRoom {
    /// Distance of agent and target in pixels, as the reference rounds it.
    #[must_use]
    pub fn distance(&self) -> f32 {
        distance(self.agent, self.target)
    }
}

fn parse(values: &[f64], what: &'static str) -> Result<[f32; 2], EnvError> {
    let &[x, y] = values else {
        return Err(EnvError::StateLength {
            wanted: "a Two-Room state has 2 values (agent x, y)",
            len: values.len(),
        });
    };
    let position = [x as f32, y as f32];
    if position.iter().any(|v| !v.is_finite()) {
        return Err(EnvError::NotFinite { what });
    }
    Ok(position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::{Policy, Random};
    use crate::variation::Sampling;

    fn at(x: f64, y: f64) -> TwoRoom {
        let mut env = TwoRoom::build(&Factors::default());
        env.set_state(&[x, y]).unwrap();
        env
    }

    #[test]
    fn the_wall_stops_on_either_side_and_a_door_lets_through() {
        for (x, action, end) in [(98.0, 1.0, 99.5), (126.0, -1.0, 124.5)] {
            let mut env = at(x, 150.0);
            env.step([action, 0.0]);
            assert_eq!(env.state(), [end, 150.0]);
        }
        let mut env = at(98.0, 49.0);
        for _ in 0..6 {
            env.step([1.0, 0.0]);
        }
        assert_eq!(env.state(), [128.0, 49.0]);
    }

    #[test]
    fn an_agent_that_drifts_out_of_a_door_is_thrown_back_to_its_old_side() {
        let mut env = at(111.0, 64.0);
        env.step([0.0, 1.0]);
        assert_eq!(env.state(), [99.5, 69.0]);
        let mut env = at(112.0, 64.0);
        env.step([0.0, 1.0]);
        assert_eq!(env.state(), [124.5, 69.0]);
    }

    #[test]
    fn success_is_strict() {
        let mut env = at(148.0, 112.0);
        assert!(!env.success() && env.distance() == 16.0);
        env.set_state(&[148.01, 112.0]).unwrap();
        assert!(env.success());
    }

    #[test]
    fn steps_through_the_wall_are_told_from_steps_through_a_door() {
        let f = Factors::default();
        let legal = |a: State, b: State| TwoRoom::legal(&f, &a, &b) && TwoRoom::legal(&f, &b, &a);
        assert!(legal([60.0, 150.0], [64.0, 155.0]) && legal([98.0, 49.0], [126.0, 49.0]));
        assert!(legal([112.0, 40.0], [112.0, 60.0]) && legal([106.0, 70.0], [103.0, 70.0]));
        assert!(!legal([98.0, 150.0], [126.0, 150.0]), "through the wall");
        assert!(!legal([104.0, 68.0], [109.0, 63.0]), "around a corner of the door");
        assert!(!legal([112.0, 64.0], [124.5, 69.0]), "thrown out of the door");
        let sides = [[60.0, 112.0], [164.0, 112.0]];
        assert!(TwoRoom::hard(&f, &sides[0], &sides[1]) && !TwoRoom::hard(&f, &sides[0], &sides[0]));
        assert!(
            TwoRoom::cost(&f, &[100.0, 150.0], &[130.0, 150.0]) > 150.0,
            "the way leads through the door"
        );
    }

    #[test]
    fn bad_states_and_goals_are_refused_with_the_remedy() {
        let mut env = at(60.0, 60.0);
        assert!(env.set_state(&[1.0; 3]).unwrap_err().to_string().contains("agent x, y"));
        assert!(env.set_state(&[1.0, f64::NAN]).is_err());
        let message = env.set_goal_state(&[5.0, 60.0]).unwrap_err().to_string();
        assert!(message.contains("target.position") && message.contains("14 to 209"), "{message}");
        assert_eq!(env.goal_state(), [164.0, 112.0], "a refused goal changes nothing");
    }

    #[test]
    fn a_clone_branches_off_without_reaching_back() {
        let mut original = TwoRoom::build(&Factors::default());
        original.reset(4, &ResetOptions { sampling: Sampling::all(), ..ResetOptions::default() }).unwrap();
        let mut clone = original.clone();
        let mut play = Random::new(1, 0);
        for step in 0..200 {
            let action = play.act(&original, step);
            original.step(action);
            clone.clone().step([1.0, -1.0]);
            clone.step(action);
            assert_eq!(original.state(), clone.state());
            assert_eq!(original.render_state(), clone.render_state());
        }
    }
}
