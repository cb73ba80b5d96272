//! Policies that need the true simulator: the ceiling row and the source of demonstrations.
//!
//! * [`oracle`]: sampling-based planning with the true dynamics and the true distance to the goal state. Its
//!   success rate is the ceiling for every learned model on the same pairs.
//! * [`expert`]: solves the push-to-target task from any start by simulating candidate pushes; it replaces human
//!   demonstrations wherever data are made.
//! * [`planner`]: any learned world model with any solver.
//! * [`feed_forward`]: any learned goal-conditioned policy.
//! * [`external`]: any program that speaks the line protocol.
//! * [`outline`]: the block as a set of rectangles, for contact points and for paths around it.

pub mod expert;
pub mod external;
pub mod feed_forward;
pub mod oracle;
pub mod outline;
pub mod planner;

pub use expert::{Expert, ExpertConfig, Style};
pub use external::External;
pub use feed_forward::{FeedForward, FeedForwardConfig};
pub use oracle::{Oracle, OracleConfig};
pub use planner::{Planner, PlannerConfig};
