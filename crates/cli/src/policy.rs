//! Policies by name.

use anyhow::Result;
use worldbench_eval::{Baseline, Policy, System, policies::Oracle};

use crate::config::unknown;

/// Flags that choose what acts.
#[derive(Debug, clap::Args)]
pub struct PolicyArgs {
    /// Policy: random, no-op, replay, weak or oracle; several are separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',', required = true)]
    pub policy: Vec<String>,
}

/// A policy and how its row is labelled.
pub struct Loaded {
    /// What the row is a row of.
    pub system: System,
    /// What acts.
    pub policy: Box<dyn Policy>,
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
        self.policy.iter().map(|name| load_policy(name)).collect()
    }
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
    Ok(Loaded { system: *system, policy })
}
