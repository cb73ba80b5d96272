//! Planners over plain arrays: CEM, MPPI, gradient descent and model-predictive control.
//!
//! A planner searches the action sequence that a [`Cost`] (a learned model, or the true simulator) likes best.
//! All arrays are row-major `f32` slices: candidates `[S, H, D]`, plans `[H, D]`. Randomness comes from keyed
//! streams per (episode, solve, iteration, sample), so results do not depend on batch size or threads.

mod cem;
mod config;
mod error;
mod gradient;
mod icem;
mod model;
mod mpc;
mod mppi;
mod mppi_pldm;
mod normaliser;
pub mod objective;
pub mod parity;
mod policy;
mod predictive;
mod search;
mod solver;

pub use cem::Cem;
pub use config::{SolverConfig, TopK};
pub use error::{CostError, PlanError};
pub use gradient::{Gradient, Optimizer};
pub use icem::{Colour, Icem};
pub use model::{Context, LatentModel, WorldModel};
pub use mpc::{History, Mpc, PlanConfig, Replan};
pub use mppi::{Mppi, TemperatureUnit};
pub use mppi_pldm::MppiPldm;
pub use normaliser::ActionNormaliser;
pub use objective::{Objective, Part, Reduction, Steps};
pub use policy::GoalPolicy;
pub use predictive::PredictiveSampling;
pub use solver::{
    Chunked, Cost, DIFFERENCE, FixedNoise, Iteration, IterationStats, KeyedNoise, NoiseSource, Problem,
    Shape, Solution, Solver,
};
