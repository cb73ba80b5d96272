//! `worldbench config`.

use anyhow::{Context, Result};
use serde::{Serialize, de::DeserializeOwned};
use worldbench_core::config::Layers;
use worldbench_eval::CollectConfig;
use worldbench_eval::policies::{OracleConfig, PlannerConfig};
use worldbench_plan::SolverConfig;
use worldbench_train::TrainConfig;

use crate::{
    config::{BENCH, COLLECT, ConfigArgs, PLAN, PRETRAIN, Presets, TRAIN},
    learned::preset_layers,
    output::{Outcome, print},
    verbs::bench::Preset,
};

/// Show configurations
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Show(ShowArgs),
}

/// Print a configuration as it would be used, as TOML
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  worldbench config show collect
  worldbench config show collect --preset smoke --set seed=3
  worldbench config show train --preset pldm-compact --set steps=500
  worldbench config show solver --set kind=mppi")]
struct ShowArgs {
    /// Which configuration
    #[arg(value_enum, default_value_t = What::Collect)]
    what: What,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Data collection
    Collect,
    /// Training; needs --preset
    Train,
    /// Pretraining of an encoder; needs --preset
    Pretrain,
    /// How a learned model plans; needs --preset
    Plan,
    /// A benchmark; needs --preset
    Bench,
    /// The solver of a planner alone
    Solver,
    /// The planner on the true simulator
    Oracle,
}

/// The layers over a preset, for configurations that have no other defaults.
fn over_preset<T: Serialize + DeserializeOwned>(presets: Presets, config: &ConfigArgs) -> Result<Layers> {
    let known: Vec<&str> = presets.iter().map(|(name, _)| *name).collect();
    let name = config.preset.as_deref();
    let name = name.with_context(|| format!("give --preset, a TOML file or one of {}", known.join(", ")))?;
    let mut layers = preset_layers::<T>(presets, name, &[])?;
    if let Some(path) = &config.config {
        layers = layers.file(path)?;
    }
    Ok(layers.set_all(&config.set)?)
}

pub fn run(args: &Args) -> Result<Outcome> {
    let Verb::Show(ShowArgs { what, config }) = &args.verb;
    let layers = match what {
        What::Collect => {
            let layers = config.layers::<CollectConfig>(COLLECT)?;
            layers.resolve::<CollectConfig>()?.check()?;
            layers
        }
        What::Train | What::Pretrain => {
            let presets = if *what == What::Train { TRAIN } else { PRETRAIN };
            let layers = over_preset::<TrainConfig>(presets, config)?;
            layers.resolve::<TrainConfig>()?.check()?;
            layers
        }
        What::Plan => {
            let layers = over_preset::<PlannerConfig>(PLAN, config)?;
            layers.resolve::<PlannerConfig>()?.check()?;
            layers
        }
        What::Bench => {
            let layers = over_preset::<Preset>(BENCH, config)?;
            layers.resolve::<Preset>()?;
            layers
        }
        What::Solver => {
            let layers = config.layers::<SolverConfig>(&[])?;
            layers.resolve::<SolverConfig>()?.build()?;
            layers
        }
        What::Oracle => {
            let layers = config.layers::<OracleConfig>(&[])?;
            layers.resolve::<OracleConfig>()?;
            layers
        }
    };
    print(layers.to_toml().trim_end())?;
    Ok(Outcome::Done)
}
