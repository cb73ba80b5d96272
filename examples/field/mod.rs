//! A dot in an open field: the smallest environment there is. See `05_custom_env.rs`.

use serde::{Deserialize, Serialize};
use worldbench_env::domain::Appearance;
use worldbench_env::raster::{Filter, RasterError, Render};
use worldbench_env::variation::{Factor, Kind, Variation};
use worldbench_env::{Action, Anchor, EnvError, Environment, Errors, Look, Spec, Subset};

/// What a scene is made of: the dot's colour.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Factors {
    color: [u8; 3],
}

#[rustfmt::skip]
const COLOR: Factor = Factor { name: "dot.color", kind: Kind::Color, len: 3, low: 0.0, high: 255.0, sampled_by_default: false, what: "RGB" };

impl Variation for Factors {
    const FACTORS: &'static [Factor] = &[COLOR];
    fn get(&self, _: usize) -> Vec<f64> {
        self.color.map(f64::from).to_vec()
    }
    fn assign(&mut self, _: usize, values: [f64; 3]) {
        self.color = values.map(|v| v as u8);
    }
}

/// What a frame shows: where the dot is. Frames must be a function of this and of the factors.
#[derive(Clone, Debug, PartialEq)]
pub struct Dot([f64; 2]);

impl Appearance for Dot {
    fn look(&self) -> Look {
        Look { values: self.0.to_vec(), ..Look::default() }
    }
    fn of_look(look: &Look) -> Self {
        Self(std::array::from_fn(|k| look.values.get(k).copied().unwrap_or_default()))
    }
}

/// Paints a square of 4 x 4 px of the 64 x 64 canvas.
#[derive(Clone)]
pub struct Painter(Factors, usize, Vec<u8>);

impl Render for Painter {
    type Factors = Factors;
    type State = Dot;
    fn new(factors: &Factors, side: usize, _: Filter) -> Result<Self, RasterError> {
        Ok(Self(factors.clone(), side, vec![255; side * side * 3]))
    }
    fn resolution(&self) -> usize {
        self.1
    }
    fn view(&mut self, Dot(at): &Dot) -> &[u8] {
        let (side, scale) = (self.1, 64.0 / self.1 as f64);
        for (i, pixel) in self.2.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let near = |k: usize, p: usize| (p as f64 * scale - at[k]).abs() <= 2.0;
            *pixel = if near(0, i % side) && near(1, i / side) { self.0.color } else { [255; 3] };
        }
        &self.2
    }
}

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
