//! `worldbench plot`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use worldbench_eval::value;
use worldbench_train::checkpoint::write_atomic;

use crate::output::{Outcome, print, print_json};
use crate::pairs::PairArgs;

/// Pictures of what a checkpoint has learned
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    picture: Picture,
}

#[derive(Debug, clap::Subcommand)]
enum Picture {
    /// V(s, g) along a recorded episode and over the agent's positions, as PNG and JSON
    ///
    /// The curve follows the pair's recorded actions; on the map the agent is put everywhere and all else stays as at the
    /// start. IQ-Learn shows its critic at its own action.
    #[command(after_help = "Example:\n  worldbench plot value runs/gciql --episode 3 --out pictures")]
    Value(ValueArgs),
}

#[derive(Debug, clap::Args)]
struct ValueArgs {
    /// Checkpoint directory of a GCIQL, GCIVL or IQ-Learn policy
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: PathBuf,
    #[command(flatten)]
    pairs: PairArgs,
    /// Which pair, from 0
    #[arg(long, default_value_t = 0)]
    episode: usize,
    /// Positions along one side of the map
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(2..=256))]
    grid: u16,
    /// Where value.png and value.json go [default: the checkpoint directory]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the values as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let Picture::Value(args) = &args.picture;
    let loaded = worldbench_train::load(&args.checkpoint)?;
    let (protocol, manifest) = args.pairs.resolve(Some(&loaded.environment))?;
    let policy = loaded.policy(&args.checkpoint)?;
    let Some(pair) = manifest.pairs.get(args.episode) else {
        let last = manifest.pairs.len() - 1;
        bail!("--episode {}: there is no such pair; they are numbered 0 to {last}", args.episode);
    };
    let report = value::report(policy.as_ref(), protocol.env()?, pair, args.episode, args.grid.into())?;
    let directory = args.out.as_ref().unwrap_or(&args.checkpoint);
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let picture = directory.join("value.png");
    report.write_picture(&picture)?;
    let text = serde_json::to_string_pretty(&report)? + "\n";
    write_atomic(&directory.join("value.json"), text.as_bytes())?;
    if args.json {
        print_json(&report)?;
    } else {
        let [first, last] =
            [report.along.first(), report.along.last()].map(|v| v.copied().unwrap_or_default());
        print(format!(
            "V {first:.2} at the start, {last:.2} at the end; wrote {} and value.json",
            picture.display()
        ))?;
    }
    Ok(Outcome::Done)
}
