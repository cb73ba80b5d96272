//! Exact simulators, renderers and planner-free policies.

pub mod error;
pub mod geometry;
pub mod perf;
pub mod physics;
pub mod policies;
pub mod push_t;
pub mod raster;
pub mod render_state;
pub mod replay;
pub mod variation;
pub mod vector;

pub use error::EnvError;
pub use geometry::{Geometry, Shape};
pub use push_t::{PushT, PushTConfig, ResetOptions, State};
pub use render_state::{Marks, RenderState};
pub use variation::{Factors, Sampling};
pub use vector::VecEnv;
