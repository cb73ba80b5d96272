//! The Push-T variation space: everything about a scene that is not its state.

use crate::geometry::Shape;

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

/// Temporary.
#[derive(Clone, Debug, Default)]
pub struct Sampling {}

/// Temporary.
pub struct Sample {
    /// f
    pub factors: Factors,
    /// g
    pub goal_state: [f64; 7],
}
impl Sampling {
    /// t
    pub fn draw(&self, _seed: u64) -> Result<Sample, crate::error::EnvError> {
        Ok(Sample { factors: Factors::default(), goal_state: [0.0; 7] })
    }
}
