//! Push-T behind the interface that all environments share.

use super::{FACTORS, Factors, PushT, PushTConfig, State};
use crate::environment::{Action, Environment, ResetOptions, Spec};
use crate::error::EnvError;
use crate::raster::{CANVAS_SIZE, Renderer};
use crate::render_state::RenderState;
use crate::variation::Variation;

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
    action: "target position relative to the agent, 1 = 100 px",
    action_bounds: [-1.0, 1.0],
    success: "agent and block together within 20 px of the goal and the block within 20 degrees, up to its symmetry",
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

    fn observation(&self) -> Vec<f64> {
        self.state().to_vec()
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
}
