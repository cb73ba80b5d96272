//! Push-T behind the interface that all environments share.

use std::f64::consts::TAU;

use super::{
    ACTION_SCALE, FACTORS, Factors, PushT, PushTConfig, SUCCESS_ANGLE, SUCCESS_DISTANCE, State, angle_error,
};
use crate::environment::{Action, Anchor, Environment, Errors, ResetOptions, Spec, Subset};
use crate::error::EnvError;
use crate::raster::{CANVAS_SIZE, Renderer};
use crate::render_state::RenderState;
use crate::variation::Variation;

/// The block counts as moved when it travels farther than this, px ...
const MOVED_PX: f64 = 10.0;
/// ... or turns farther than this, degrees.
const MOVED_DEGREES: f64 = 10.0;

/// What Push-T is.
pub const SPEC: Spec = Spec {
    name: "push_t",
    title: "Push-T",
    summary: "push a block to a pose with a disc",
    state: &[
        "agent x (px)",
        "agent y (px)",
        "block origin x (px)",
        "block origin y (px)",
        "block angle (rad, 0 to 2 pi)",
        "agent velocity x (px/s)",
        "agent velocity y (px/s)",
    ],
    proprio: &[0, 1, 5, 6],
    velocity: &[5, 6],
    angles: &[4],
    look: &[
        "agent x (px)",
        "agent y (px)",
        "agent angle (rad)",
        "block centre of gravity x (px)",
        "block centre of gravity y (px)",
        "block angle (rad, not wrapped)",
    ],
    action: "target position relative to the agent, 1 = 100 px",
    action_bounds: [-1.0, 1.0],
    success: "agent and block together within 20 px of the goal and the block within 20 degrees, up to its symmetry",
    success_distance: SUCCESS_DISTANCE,
    hard: Subset {
        name: "block-moved",
        about: "the block moves more than 10 px or 10 degrees",
        least_share: 0.7,
        marked: true,
    },
    canvas: CANVAS_SIZE,
    factors: &FACTORS,
    default: |index| Factors::default().get(index),
};

impl Environment for PushT {
    type Factors = Factors;
    type State = State;
    type RenderState = RenderState;
    type Renderer = Renderer;
    const SPEC: Spec = SPEC;

    fn build(factors: &Factors) -> Self {
        Self::new(factors, PushTConfig::default())
    }

    fn reset(&mut self, seed: u64, options: &ResetOptions) -> Result<State, EnvError> {
        self.reset(seed, options)
    }

    fn set_state(&mut self, state: &[f64]) -> Result<(), EnvError> {
        self.set_state(state)
    }

    fn set_goal_state(&mut self, goal: &[f64]) -> Result<(), EnvError> {
        self.set_goal_state(goal)
    }

    fn step(&mut self, action: Action) {
        self.step_f32(action);
    }

    fn state(&self) -> State {
        self.state()
    }

    fn goal_state(&self) -> State {
        self.goal_state()
    }

    fn success(&self) -> bool {
        self.terminated()
    }

    fn factors(&self) -> &Factors {
        self.factors()
    }

    fn render_state(&self) -> RenderState {
        self.render_state()
    }

    fn errors(factors: &Factors, state: &State, goal: &State) -> Errors {
        let square = |i: usize| (state[i] - goal[i]).powi(2);
        Errors {
            distance: (0..4).map(square).sum::<f64>().sqrt(),
            object: (2..4).map(square).sum::<f64>().sqrt(),
            angle: Some(angle_error(state[4], goal[4], factors.block_shape.symmetry())),
        }
    }

    /// Squared distance in units of the success thresholds; far away the block counts more than the agent, which is
    /// quick to bring back.
    fn cost(factors: &Factors, state: &State, goal: &State) -> f64 {
        let d = |i: usize| (state[i] - goal[i]).powi(2);
        let symmetry = factors.block_shape.symmetry();
        let turn = (state[4] - goal[4]).rem_euclid(symmetry);
        let angle = turn.min(symmetry - turn) / SUCCESS_ANGLE;
        let position = (d(0) + d(1) + d(2) + d(3)) / (SUCCESS_DISTANCE * SUCCESS_DISTANCE);
        let exact = position + angle * angle;
        if exact < 1.0 {
            return exact;
        }
        let weighted =
            (0.4 * (d(0) + d(1)) + d(2) + d(3)) / (SUCCESS_DISTANCE * SUCCESS_DISTANCE) + angle * angle;
        1.0 + weighted
    }

    /// Whether the block moves or turns noticeably. The angle is compared modulo a full turn even for symmetric blocks:
    /// what counts is that it was pushed.
    fn hard(_: &Factors, start: &State, goal: &State) -> bool {
        let distance = (goal[2] - start[2]).hypot(goal[3] - start[3]);
        distance > MOVED_PX || angle_error(start[4], goal[4], TAU) > MOVED_DEGREES.to_radians()
    }

    fn anchor(_: &Factors, state: &State, _: &State) -> Anchor {
        Anchor { agent: [state[0], state[1]], object: [state[2], state[3]], reach: ACTION_SCALE }
    }
}
