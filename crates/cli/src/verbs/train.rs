//! `worldbench train`.

use std::path::PathBuf;

use anyhow::Result;

use crate::learned::{train, train_config};
use crate::output::{Outcome, print};

/// Train a world model or a policy
///
/// The run directory holds logs (log.csv, log.jsonl), the configuration and the newest checkpoint. The same command
/// given again continues a run that was stopped, bit for bit.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  worldbench train pldm-compact --data push_t.wbs --out runs/pldm
  worldbench train lewm-compact --data push_t.wbs --out runs/lewm --set steps=2000 --set model.weights.sigreg=0.2
  worldbench train gcbc-compact --data push_t.wbs --out runs/gcbc --set model.encoder.checkpoint=runs/pldm")]
pub struct Args {
    /// Compiled-in preset, METHOD-compact or METHOD-full (methods: pldm, lewm, dino-wm, gcbc, iq-learn, gciql, gcivl),
    /// gcbc-trained-compact, iq-learn-bc-compact, or the path of a TOML file
    #[arg(value_name = "PRESET|PATH")]
    preset: String,
    /// Store to train on (see `collect`)
    #[arg(long, value_name = "STORE.wbs")]
    data: PathBuf,
    /// Run directory; a run that stands there is continued
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A run or checkpoint directory whose weights training starts from
    #[arg(long, value_name = "DIR")]
    init: Option<PathBuf>,
    /// One value laid over the preset; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let config = train_config(&args.preset, &args.set)?.beginning_with(args.init.as_deref());
    let seconds = train(&config, &args.data, &args.out)?.seconds;
    print(format!("{}: {} steps, {seconds:.0} s of training", args.out.display(), config.steps))?;
    print(format!("score it: worldbench eval --checkpoint {}", args.out.display()))?;
    Ok(Outcome::Done)
}
