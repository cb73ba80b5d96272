//! Policies by name.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ArgGroup;
use worldbench_env::DomainRef;
use worldbench_eval::policies::{External, Oracle, external};
use worldbench_eval::provenance::Training;
use worldbench_eval::{Baseline, Policy, RowResult, System};
use worldbench_kernels::gemm::Precision;
use worldbench_models::planning::RolloutOptions;

use crate::config::unknown;
use crate::learned::{self, Acting, Use};
use crate::pairs::PairArgs;

/// Longest time that an agent may take for an answer, seconds.
const LONGEST_TIMEOUT: f64 = 86_400.0;

/// Flags that choose what acts.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("actor").required(true).multiple(true).args(["policy", "checkpoint", "policy_cmd"])))]
pub struct PolicyArgs {
    /// Policy: random, no-op, replay, weak or oracle; several are separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub policy: Vec<String>,
    /// Command of an agent that speaks the line protocol of docs/agents.md, e.g. 'python3 agent.py'
    #[arg(long, value_name = "COMMAND")]
    pub policy_cmd: Option<String>,
    /// Longest time that the agent may take for an answer, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = external::TIMEOUT.as_secs_f64(), requires = "policy_cmd")]
    pub policy_timeout: f64,
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
    /// Planner or the agent's own name.
    pub planner: String,
    /// What tells its row from others of the system.
    pub variant: String,
    /// The checkpoint, for a learned policy.
    pub checkpoint: Option<String>,
    /// The training behind the checkpoint, where it was recorded.
    pub training: Option<Training>,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// The environment that a learned policy was trained on.
    pub trained_on: Option<String>,
}

impl Loaded {
    fn new(system: System, policy: Box<dyn Policy>) -> Self {
        Self {
            system,
            policy,
            planner: String::new(),
            variant: String::new(),
            checkpoint: None,
            training: None,
            notes: Vec::new(),
            trained_on: None,
        }
    }

    /// Puts the labels into the row.
    pub fn label(&self, row: &mut RowResult) {
        row.planner.clone_from(&self.planner);
        row.variant.clone_from(&self.variant);
        row.checkpoint.clone_from(&self.checkpoint);
        row.train_seed = self.training.as_ref().and_then(|training| training.seed);
        row.notes.extend(self.notes.iter().cloned());
    }
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
    /// Everything that was asked for, in the order given; an agent is told the environment of `pairs`.
    pub fn load(&self, pairs: &PairArgs) -> Result<Vec<Loaded>> {
        let twice = |(i, name): &(usize, &String)| self.policy[..*i].contains(name);
        if let Some((_, name)) = self.policy.iter().enumerate().find(twice) {
            bail!("--policy names {name} twice; leave one out");
        }
        let mut all: Vec<Loaded> = self.policy.iter().map(|name| load_policy(name)).collect::<Result<_>>()?;
        if let Some(directory) = &self.checkpoint {
            let rollouts = RolloutOptions { precision: self.precision, memory: self.max_memory };
            let how = Use { planner: self.planner.as_deref(), sets: &self.set, rollouts };
            let Acting { system, policy, label, variant, trained_on } = learned::load(directory, how)?;
            all.push(Loaded {
                planner: label,
                variant,
                checkpoint: Some(directory.display().to_string()),
                training: Training::of_checkpoint(directory)?,
                trained_on: Some(trained_on),
                ..Loaded::new(system, policy)
            });
        }
        if let Some(command) = &self.policy_cmd {
            let env = pairs.environment(trained_on(&all))?;
            all.push(self.external(command, env)?);
        }
        Ok(all)
    }

    fn external(&self, command: &str, env: DomainRef) -> Result<Loaded> {
        let seconds = self.policy_timeout;
        if !(seconds > 0.0 && seconds <= LONGEST_TIMEOUT) {
            bail!("--policy-timeout {seconds}: give seconds above 0 and up to {LONGEST_TIMEOUT}, a day");
        }
        let timeout = Duration::from_secs_f64(seconds);
        ctrlc::set_handler(|| {
            external::kill_all();
            std::process::exit(130);
        })
        .context("cannot listen for Ctrl-C")?;
        let agent = External::start(command, timeout, env)?;
        Ok(Loaded {
            planner: agent.agent_name().to_string(),
            variant: command.to_string(),
            notes: vec![agent.note()],
            ..Loaded::new(System::External, Box::new(agent))
        })
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
    Ok(Loaded::new(*system, policy))
}
