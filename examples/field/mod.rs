//! A dot in an open field: the smallest environment there is. See `05_custom_env.rs`.

mod scene;

use scene::{Dot, Factors, Painter};
use worldbench_env::{Action, Anchor, EnvError, Environment, Errors, Spec, Subset, Variation};

/// The simulator: an action moves the dot by up to 4 px, the goal is a place.
#[derive(Clone)]
pub struct Field(Factors, [f64; 2], [f64; 2]);

#[rustfmt::skip]
impl Environment for Field {
    type Factors = Factors;
    type State = [f64; 2];
    type RenderState = Dot;
    type Renderer = Painter;
    const SPEC: Spec = Spec {
        name: "field", title: "Field", summary: "walk a dot to a place", state: &["x (px)", "y (px)"], proprio: &[0, 1],
        velocity: &[], angles: &[], look: &["x (px)", "y (px)"], action: "displacement, 1 = 4 px", action_bounds: [-1.0, 1.0],
        success: "within 6 px", success_distance: 6.0, canvas: 64, factors: Factors::FACTORS, default: |_| vec![0.0; 3],
        hard: Subset { name: "far", about: "the goal is anywhere else", least_share: 0.0, marked: false },
    };
    fn build(factors: &Factors) -> Self { Self(factors.clone(), [32.0; 2], [32.0; 2]) }
    fn set_state(&mut self, state: &[f64]) -> Result<(), EnvError> { self.1 = place(state)?; Ok(()) }
    fn set_goal_state(&mut self, goal: &[f64]) -> Result<(), EnvError> { self.2 = place(goal)?; Ok(()) }
    fn step(&mut self, action: Action) {
        self.1 = std::array::from_fn(|k| (self.1[k] + 4.0 * f64::from(action[k].clamp(-1.0, 1.0))).clamp(2.0, 62.0));
    }
    fn state(&self) -> [f64; 2] { self.1 }
    fn goal_state(&self) -> [f64; 2] { self.2 }
    fn success(&self) -> bool { Self::errors(&self.0, &self.1, &self.2).distance < 6.0 }
    fn factors(&self) -> &Factors { &self.0 }
    fn render_state(&self) -> Dot { Dot(self.1) }
    fn errors(_: &Factors, state: &[f64; 2], goal: &[f64; 2]) -> Errors {
        let distance = (state[0] - goal[0]).hypot(state[1] - goal[1]);
        Errors { distance, object: distance, angle: None }
    }
    fn cost(factors: &Factors, state: &[f64; 2], goal: &[f64; 2]) -> f64 {
        (Self::errors(factors, state, goal).distance / 6.0).powi(2)
    }
    fn anchor(_: &Factors, state: &[f64; 2], goal: &[f64; 2]) -> Anchor {
        Anchor { agent: *state, object: *goal, reach: 4.0 }
    }
}

fn place(values: &[f64]) -> Result<[f64; 2], EnvError> {
    let wrong = |_| EnvError::Values { title: "Field", wanted: 2, len: values.len() };
    values.try_into().map_err(wrong)
}
