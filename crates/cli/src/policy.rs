//! Policies by name.

use std::path::PathBuf;

use anyhow::Result;
use worldbench_eval::{Baseline, Policy, System, policies::Oracle};
use worldbench_kernels::gemm::Precision;
use worldbench_models::planning::RolloutOptions;

use crate::config::unknown;
use crate::learned::{self, Acting, Use};

/// Flags that choose what acts.
#[derive(Debug, clap::Args)]
pub struct PolicyArgs {
    /// Policy: random, no-op, replay, weak or oracle; several are separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',', required_unless_present = "checkpoint")]
    pub policy: Vec<String>,
    /// Checkpoint directory of a learned world model or policy
    #[arg(long, value_name = "DIR")]
    pub checkpoint: Option<PathBuf>,
    /// How a world model plans: cem (the default), mppi, or the path of a TOML file
    #[arg(long, value_name = "NAME|PATH", requires = "checkpoint")]
    pub planner: Option<String>,
    /// One value laid over the planner's, e.g. --set solver.samples=64, or of a policy, e.g. --set execute=2; may be
    /// repeated
    #[arg(long, value_name = "KEY=VALUE", requires = "checkpoint")]
    pub set: Vec<String>,
    /// Precision of a full-size or patch model's rollouts: f32 (equal bits everywhere) or bf16 (faster)
    #[arg(long, default_value = "f32", requires = "checkpoint")]
    pub precision: Precision,
    /// Limit on the buffers of a patch model's rollouts; scores do not depend on it
    #[arg(long, value_name = "BYTES", requires = "checkpoint")]
    pub max_memory: Option<usize>,
}

/// A policy and how its row is labelled.
pub struct Loaded {
    /// What the row is a row of.
    pub system: System,
    /// What acts.
    pub policy: Box<dyn Policy>,
    /// The row's label (see [`Acting`]) and the checkpoint, for a learned policy.
    pub learned: Option<(String, String)>,
    /// The environment that a learned policy was trained on.
    pub trained_on: Option<String>,
}

/// The policies that need no checkpoint, in table order.
const NAMES: [(&str, System); 5] = [
    ("random", System::Random),
    ("no-op", System::NoOp),
    ("replay", System::Replay),
    ("weak", System::Weak),
    ("oracle", System::Oracle),
];

impl PolicyArgs {
    /// Everything that was asked for, in the order given.
    pub fn load(&self) -> Result<Vec<Loaded>> {
        let mut all: Vec<Loaded> = self.policy.iter().map(|name| load_policy(name)).collect::<Result<_>>()?;
        if let Some(directory) = &self.checkpoint {
            let rollouts = RolloutOptions { precision: self.precision, memory: self.max_memory };
            let how = Use { planner: self.planner.as_deref(), sets: &self.set, rollouts };
            let Acting { system, policy, label, trained_on } = learned::load(directory, how)?;
            let learned = Some((label, directory.display().to_string()));
            all.push(Loaded { system, policy, learned, trained_on: Some(trained_on) });
        }
        Ok(all)
    }
}

/// The environment that any of these was trained on.
pub fn trained_on(policies: &[Loaded]) -> Option<&str> {
    policies.iter().find_map(|loaded| loaded.trained_on.as_deref())
}

/// The policy called `name`.
pub fn load_policy(name: &str) -> Result<Loaded> {
    let found = NAMES.iter().find(|(known, _)| *known == name);
    let (_, system) = found.ok_or_else(|| unknown("policy", name, NAMES.iter().map(|(known, _)| *known)))?;
    let policy: Box<dyn Policy> = match system {
        System::Random => Box::new(Baseline::Random),
        System::NoOp => Box::new(Baseline::NoOp),
        System::Replay => Box::new(Baseline::Replay),
        System::Weak => Box::new(Baseline::Weak),
        _ => Box::new(Oracle::default()),
    };
    Ok(Loaded { system: *system, policy, learned: None, trained_on: None })
}
