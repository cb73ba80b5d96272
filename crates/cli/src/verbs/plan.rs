//! `worldbench plan`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use worldbench_eval::{gif::write_gif, imagine, runner::run_episode};

use crate::{
    output::{Outcome, print, print_json},
    pairs::PairArgs,
    policy::{PolicyArgs, trained_on},
};

/// Run one episode and write it as a GIF: agent, goal, distance curve
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  worldbench plan --policy oracle --episode 3 --out episode.gif
  worldbench plan --checkpoint runs/dino-wm --episode 3 --out episode.gif --imagine imagined.png")]
pub struct Args {
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    pairs: PairArgs,
    /// Which pair to run, from 0
    #[arg(long, default_value_t = 0)]
    episode: usize,
    /// Seed of the policy's random stream
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// GIF to write
    #[arg(long, value_name = "FILE.gif", default_value = "episode.gif")]
    out: PathBuf,
    /// Also write this PNG: what the model imagines under the executed actions, below what really happened; needs a
    /// checkpoint with a decoder
    #[arg(long, value_name = "FILE.png", requires = "checkpoint")]
    imagine: Option<PathBuf>,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome> {
    if args.out.extension().is_none_or(|ending| ending != "gif") {
        bail!("--out {}: a GIF is written; let the name end in .gif", args.out.display());
    }
    if let Some(path) = args.imagine.as_ref().filter(|path| path.extension().is_none_or(|e| e != "png")) {
        bail!("--imagine {}: a PNG is written; let the name end in .png", path.display());
    }
    let drawing = match (&args.imagine, &args.policy.checkpoint) {
        (Some(path), Some(checkpoint)) => {
            let model = worldbench_train::load(checkpoint)?.world(checkpoint)?;
            imagine::check(model.as_ref()).with_context(|| checkpoint.display().to_string())?;
            Some((path, model))
        }
        _ => None,
    };
    let policies = args.policy.load(&args.pairs)?;
    let [loaded] = policies.as_slice() else { bail!("`plan` runs one policy; give one name to --policy") };
    let (protocol, manifest) = args.pairs.resolve(trained_on(&policies))?;
    let env = protocol.env()?;
    let Some(pair) = manifest.pairs.get(args.episode) else {
        let last = manifest.pairs.len() - 1;
        bail!("--episode {}: there is no such pair; they are numbered 0 to {last}", args.episode);
    };
    let outcome = run_episode(&protocol, pair, args.episode, loaded.policy.as_ref(), args.seed)?;
    write_gif(&args.out, env, &outcome)?;
    if let Some((path, model)) = drawing {
        imagine::write(path, model.as_ref(), env, &outcome)?;
    }
    if args.json {
        print_json(&outcome)?;
        return Ok(Outcome::Done);
    }
    let verdict = if outcome.success { "success" } else { "no success" };
    let last = |values: &[f64]| values.last().copied().unwrap_or_default();
    let angle = match outcome.angle_errors[..] {
        [] => String::new(),
        _ => format!(" and {:.1} degrees", last(&outcome.angle_errors).to_degrees()),
    };
    print(format!(
        "{} on pair {}: {verdict} after {} steps, {:.1} px{angle} from the goal; wrote {}",
        loaded.policy.name(),
        args.episode,
        outcome.steps,
        last(&outcome.distances),
        args.out.display()
    ))?;
    Ok(Outcome::Done)
}
