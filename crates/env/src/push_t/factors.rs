//! The variation space of Push-T.

use super::State;
use crate::error::EnvError;
use crate::geometry::Shape;
use crate::variation::{Factor, Kind, Sampling, Variation, factor};
use std::f64::consts::TAU;

/// Values of all factors of variation; [`Default`] is the reference's default scene.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Factors {
    /// Agent angle in radians; it matters only when the agent is not a circle.
    pub agent_angle: f64,
    /// Agent colour, RGB.
    pub agent_color: [u8; 3],
    /// Agent scale in pixels, 20 to 60.
    pub agent_scale: f64,
    /// Agent shape.
    pub agent_shape: Shape,
    /// Agent start position in pixels, 50 to 450.
    pub agent_start: [f64; 2],
    /// Agent start velocity in pixels per second, 0 to 512.
    pub agent_velocity: [f64; 2],
    /// Background colour, RGB.
    pub background_color: [u8; 3],
    /// Block start angle in radians, within +-2 pi.
    pub block_angle: f64,
    /// Block colour, RGB.
    pub block_color: [u8; 3],
    /// Block scale in pixels, 20 to 60.
    pub block_scale: f64,
    /// Block shape; never the circle.
    pub block_shape: Shape,
    /// Block start position in pixels, 100 to 400.
    pub block_start: [f64; 2],
    /// Angle of the drawn goal in radians (unrelated to the scored goal state).
    pub goal_angle: f64,
    /// Colour of the drawn goal, RGB.
    pub goal_color: [u8; 3],
    /// Position of the drawn goal in pixels, 50 to 450.
    pub goal_position: [f64; 2],
    /// Unused by the reference, kept for its seeding.
    pub goal_scale: f64,
    /// Whether the goal overlay is drawn.
    pub render_goal: bool,
}

impl Default for Factors {
    fn default() -> Self {
        Self {
            agent_angle: 0.0,
            agent_color: [65, 105, 225],
            agent_scale: 40.0,
            agent_shape: Shape::Circle,
            agent_start: [256.0, 400.0],
            agent_velocity: [0.0; 2],
            background_color: [255; 3],
            block_angle: 0.0,
            block_color: [119, 136, 153],
            block_scale: 30.0,
            block_shape: Shape::T,
            block_start: [400.0, 100.0],
            goal_angle: std::f64::consts::FRAC_PI_4,
            goal_color: [144, 238, 144],
            goal_position: [256.0; 2],
            goal_scale: 40.0,
            render_goal: true,
        }
    }
}

const TURN: [f64; 2] = [-TAU, TAU];
const BYTE: [f64; 2] = [0.0, 255.0];
const SCALE: [f64; 2] = [20.0, 60.0];

/// All factors.
pub const FACTORS: [Factor; 17] = [
    factor("agent.angle", Kind::Float64, 1, TURN, false, "radians; not visible on the circle"),
    factor("agent.color", Kind::Color, 3, BYTE, false, "RGB"),
    factor("agent.scale", Kind::Float32, 1, SCALE, false, "pixels"),
    factor("agent.shape", Kind::Index, 1, [0.0, 7.0], false, "o, L, T, Z, square, I, small_tee, +"),
    factor("agent.start_position", Kind::Float64, 2, [50.0, 450.0], true, "pixels"),
    factor("agent.velocity", Kind::Float64, 2, [0.0, 512.0], false, "pixels per second"),
    factor("background.color", Kind::Color, 3, BYTE, false, "RGB"),
    factor("block.angle", Kind::Float64, 1, TURN, true, "radians"),
    factor("block.color", Kind::Color, 3, BYTE, false, "RGB"),
    factor("block.scale", Kind::Float32, 1, SCALE, false, "pixels"),
    factor("block.shape", Kind::Index, 1, [1.0, 7.0], false, "L, T, Z, square, I, small_tee, +"),
    factor("block.start_position", Kind::Float64, 2, [100.0, 400.0], true, "pixels"),
    factor("goal.angle", Kind::Float64, 1, TURN, false, "radians, of the drawn goal"),
    factor("goal.color", Kind::Color, 3, BYTE, false, "RGB, of the drawn goal"),
    factor("goal.position", Kind::Float64, 2, [50.0, 450.0], false, "pixels, of the drawn goal"),
    factor("goal.scale", Kind::Float32, 1, SCALE, false, "unused"),
    factor("rendering.render_goal", Kind::Index, 1, [0.0, 1.0], false, "0 hides the drawn goal"),
];

const AGENT_ANGLE: usize = 0;
const AGENT_START: usize = 4;
const AGENT_VELOCITY: usize = 5;
const BLOCK_ANGLE: usize = 7;
const BLOCK_START: usize = 11;

fn byte(value: f64) -> u8 {
    value as u8
}

fn shape(value: f64) -> Shape {
    Shape::from_index(value as usize).unwrap_or_default()
}

impl Variation for Factors {
    const FACTORS: &'static [Factor] = &FACTORS;
    const INVISIBLE: &'static [usize] = &[AGENT_ANGLE, AGENT_START, AGENT_VELOCITY, BLOCK_ANGLE, BLOCK_START];

    fn get(&self, index: usize) -> Vec<f64> {
        let color = |c: [u8; 3]| c.map(f64::from).to_vec();
        match index {
            0 => vec![self.agent_angle],
            1 => color(self.agent_color),
            2 => vec![self.agent_scale],
            3 => vec![self.agent_shape.index() as f64],
            4 => self.agent_start.to_vec(),
            5 => self.agent_velocity.to_vec(),
            6 => color(self.background_color),
            7 => vec![self.block_angle],
            8 => color(self.block_color),
            9 => vec![self.block_scale],
            10 => vec![self.block_shape.index() as f64],
            11 => self.block_start.to_vec(),
            12 => vec![self.goal_angle],
            13 => color(self.goal_color),
            14 => self.goal_position.to_vec(),
            15 => vec![self.goal_scale],
            16 => vec![f64::from(u8::from(self.render_goal))],
            _ => Vec::new(),
        }
    }

    fn assign(&mut self, index: usize, v: [f64; 3]) {
        let color = v.map(byte);
        let pair = [v[0], v[1]];
        match index {
            0 => self.agent_angle = v[0],
            1 => self.agent_color = color,
            2 => self.agent_scale = v[0],
            3 => self.agent_shape = shape(v[0]),
            4 => self.agent_start = pair,
            5 => self.agent_velocity = pair,
            6 => self.background_color = color,
            7 => self.block_angle = v[0],
            8 => self.block_color = color,
            9 => self.block_scale = v[0],
            10 => self.block_shape = shape(v[0]),
            11 => self.block_start = pair,
            12 => self.goal_angle = v[0],
            13 => self.goal_color = color,
            14 => self.goal_position = pair,
            15 => self.goal_scale = v[0],
            _ => self.render_goal = v[0] != 0.0,
        }
    }
}

/// What a seed gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The scene.
    pub factors: Factors,
    /// Goal state: a second draw of the start pose, with the scene's agent velocity.
    pub goal_state: State,
}

impl Sample {
    /// Scene and goal of `seed`.
    ///
    /// # Errors
    /// As [`Sampling::draw`].
    pub fn new(seed: u64, sampling: &Sampling) -> Result<Self, EnvError> {
        let mut drawn = sampling.draw::<Factors>(seed)?;
        let (agent, block, angle) =
            (drawn.again(AGENT_START), drawn.again(BLOCK_START), drawn.again(BLOCK_ANGLE));
        let v = drawn.factors.agent_velocity;
        let goal_state = [agent[0], agent[1], block[0], block[1], angle[0], v[0], v[1]];
        Ok(Self { factors: drawn.factors, goal_state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::ResetOptions;
    use crate::push_t::{PushT, PushTConfig};
    use serde_json::Value;

    fn fixture() -> Value {
        crate::testing::json("pusht", "seeds.json")
    }

    fn numbers(value: &Value) -> Vec<f64> {
        match value.as_array() {
            Some(items) => items.iter().map(|v| v.as_f64().unwrap()).collect(),
            None => vec![value.as_f64().unwrap()],
        }
    }

    fn reset(entry: &Value, sampling: Sampling) -> PushT {
        let mut env = PushT::new(&Factors::default(), PushTConfig::default());
        let options = ResetOptions { sampling, ..ResetOptions::default() };
        let seed = entry["seed"].as_u64().unwrap();
        let observed = env.reset(seed, &options).unwrap();
        assert_eq!(env.goal_state().to_vec(), numbers(&entry["goal_state"]), "goal of seed {seed}");
        assert_eq!(observed.to_vec(), numbers(&entry["obs"]), "observation of seed {seed}");
        env
    }

    #[test]
    fn default_seeds_match_the_reference() {
        for entry in fixture()["default"].as_array().unwrap() {
            let env = reset(entry, Sampling::default());
            let f = env.factors();
            assert_eq!(f.agent_start.to_vec(), numbers(&entry["agent_start"]));
            assert_eq!(f.block_start.to_vec(), numbers(&entry["block_start"]));
            assert_eq!(f.block_angle, entry["block_angle"].as_f64().unwrap());
        }
    }

    #[test]
    fn all_factor_seeds_match_the_reference() {
        for entry in fixture()["all"].as_array().unwrap() {
            let env = reset(entry, Sampling::all());
            for (name, value) in entry["values"].as_object().unwrap() {
                assert_eq!(env.factors().get(Factors::index_of(name).unwrap()), numbers(value), "{name}");
            }
        }
    }

    #[test]
    fn explicit_values_win_and_are_checked() {
        let with =
            |name: &str, v: &[f64]| Sampling { values: vec![(name.into(), v.to_vec())], ..Sampling::all() };
        assert_eq!(with("block.shape", &[3.0]).draw::<Factors>(1).unwrap().factors.block_shape, Shape::Z);
        for (name, v) in
            [("block.shape", 0.0), ("block.scale", 61.0), ("block.shape", 2.5), ("blok.shape", 2.0)]
        {
            let message = with(name, &[v]).draw::<Factors>(1).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
        assert!(with("agent.scale", &[]).draw::<Factors>(1).is_err());
    }

    #[test]
    fn every_factor_reads_back_what_was_set() {
        let mut factors = Factors::default();
        for (index, f) in FACTORS.iter().enumerate() {
            let values = vec![f.high; f.len];
            factors.set(f.name, &values).unwrap();
            assert_eq!(factors.get(index), values, "{}", f.name);
            assert_eq!(Factors::default().get(index).len(), f.len);
        }
    }
}
