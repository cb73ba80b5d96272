//! Exact simulators, renderers and planner-free policies.

pub mod geometry;
pub mod raster;
pub mod render_state;
pub mod variation;

pub use geometry::{Geometry, Shape};
pub use render_state::{Marks, RenderState};
pub use variation::Factors;
