//! Protocols, runner, statistics, reports, and the policies that need the true simulator.
//!
//! ```text
//! Protocol + Manifest --Pair--> runner: Observation, Goal --Policy--> action --> env
//! runner --EpisodeOutcome per episode--> Score (Wilson interval, block-moved pairs) --RowResult--> report
//! ```
//!
//! A score depends on (protocol, manifest, policy, seed) only: never on threads, on the order of episodes or on
//! how often a run was interrupted.

pub mod baselines;
pub mod collect;
pub mod compare;
pub mod diagnose;
pub mod gif;
pub mod held_out;
pub mod html;
pub mod imagine;
pub mod judge;
pub mod manifest;
pub mod outcome;
pub mod plot;
pub mod policies;
pub mod policy;
pub mod protocol;
pub mod provenance;
pub mod report;
pub mod results;
pub mod rows;
pub mod runner;
pub mod seeds;
pub mod shard;
pub mod stats;
pub mod value;

mod error;
mod font;
mod sections;

pub use baselines::Baseline;
pub use collect::{CollectConfig, CollectError, CollectProgress, Demonstrator, collect, collect_with};
pub use error::EvalError;
pub use held_out::{HeldOutConfig, make_pairs};
pub use judge::{Judge, Limits};
pub use manifest::{Manifest, Pair};
pub use outcome::{EpisodeOutcome, Score};
pub use policy::{EpisodeContext, EpisodePolicy, Goal, Observation, Policy};
pub use protocol::Protocol;
pub use provenance::Provenance;
pub use results::ResultDir;
pub use rows::{RowResult, System};
pub use runner::{EvalOptions, Evaluation, evaluate};
