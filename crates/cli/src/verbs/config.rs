//! `worldbench config`.

use anyhow::Result;
use worldbench_eval::{CollectConfig, policies::OracleConfig};
use worldbench_plan::SolverConfig;

use crate::{
    config::{COLLECT, ConfigArgs},
    output::{Outcome, print},
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
    /// The planner of learned models
    Solver,
    /// The planner on the true simulator
    Oracle,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let Verb::Show(ShowArgs { what, config }) = &args.verb;
    let layers = match what {
        What::Collect => {
            let layers = config.layers::<CollectConfig>(COLLECT)?;
            layers.resolve::<CollectConfig>()?.check()?;
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
