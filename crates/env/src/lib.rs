//! Exact simulators, renderers and planner-free policies.

pub mod domain;
pub mod environment;
pub mod error;
pub mod geometry;
pub mod perf;
pub mod physics;
pub mod policies;
pub mod push_t;
pub mod raster;
pub mod render_state;
pub mod replay;
#[cfg(test)]
mod testing;
pub mod two_room;
pub mod variation;
pub mod vector;

pub use domain::{Camera, Changes, Domain, DomainRef, Look, Scene, Simulation};
pub use environment::{Action, Anchor, Environment, Errors, PROPRIO, ResetOptions, Spec, Subset};
pub use error::EnvError;
pub use geometry::{Geometry, Shape};
pub use push_t::{Factors, PushT, PushTConfig, State};
pub use render_state::{Marks, RenderState};
pub use two_room::TwoRoom;
pub use variation::{Sampling, Variation};
pub use vector::VecEnv;
