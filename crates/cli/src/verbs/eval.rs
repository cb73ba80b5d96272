//! `worldbench eval`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use worldbench_env::{DomainRef, domain};
use worldbench_eval::{
    EvalOptions, Evaluation, Manifest, Protocol, RowResult, evaluate, gif::write_gif, rows::terminal_table,
};

use crate::{
    output::{Outcome, bar, command_line, print, print_json},
    pairs::PairArgs,
    policy::{Loaded, PolicyArgs, trained_on},
};

/// Score policies on the pairs of a protocol
///
/// Prints the success rate with n and its Wilson 95 % interval, the same for the pairs that are not easily won (in Push-T
/// those whose block moves, in Two-Room those that change rooms), and the
/// hash over protocol and pairs: scores with equal hashes are comparable. The result does not depend on the number
/// of threads, nor on how often the run was stopped and started again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  worldbench eval --policy oracle --episodes 20
  worldbench eval --policy random,no-op,replay,weak,oracle --out results/dev
  worldbench eval --policy oracle --out results/oracle --gif 0,7
  worldbench eval --env two-room --policy random,oracle
  worldbench eval --policy random --protocol swm-v1 --data demos.wbs")]
pub struct Args {
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    pairs: PairArgs,
    /// Only the first N pairs
    #[arg(long, value_name = "N")]
    episodes: Option<usize>,
    /// Seed of the policies' random streams
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Episodes run at the same time; 0 takes one per core
    #[arg(long, default_value_t = 0, value_parser = crate::config::threads)]
    threads: usize,
    /// Keep every finished episode (episodes.jsonl) and the score (summary.json) here, and continue from them; with
    /// several policies each has its own directory inside
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write a GIF of these episodes
    #[arg(long, value_name = "EP,EP", value_delimiter = ',')]
    gif: Vec<usize>,
    /// Print one JSON object per policy
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let policies = args.policy.load()?;
    let (protocol, manifest) = args.pairs.resolve(trained_on(&policies))?;
    let total = args.episodes.unwrap_or(usize::MAX).min(manifest.pairs.len());
    if total == 0 {
        bail!("--episodes 0 leaves nothing to run; give at least 1");
    }
    if let Some(episode) = args.gif.iter().find(|&&episode| episode >= total) {
        bail!("--gif {episode}: there is no such episode; {total} are run, numbered from 0");
    }
    let mut rows = Vec::new();
    for loaded in &policies {
        let dir = args.out.as_ref().map(|out| match policies.len() {
            1 => out.clone(),
            _ => out.join(loaded.policy.name()),
        });
        let evaluation = score(args, loaded, (&protocol, &manifest), dir.as_deref(), total)?;
        let mut row = RowResult::new(loaded.system, &protocol.environment, &evaluation, &command_line());
        if let Some((planner, checkpoint)) = &loaded.learned {
            (row.planner, row.checkpoint) = (planner.clone(), Some(checkpoint.clone()));
        }
        row.notes.extend(protocol.remark().map(str::to_string));
        pictures(args, protocol.env()?, &evaluation, dir.as_deref())?;
        if let Some(dir) = &dir {
            save(&dir.join("summary.json"), &row)?;
        }
        if args.json {
            print_json(&row)?;
        }
        rows.push(row);
    }
    if !args.json {
        print(report(args, &rows))?;
    }
    Ok(Outcome::Done)
}

fn score(
    args: &Args,
    loaded: &Loaded,
    (protocol, manifest): (&Protocol, &Manifest),
    dir: Option<&Path>,
    total: usize,
) -> Result<Evaluation> {
    let bar = bar(total, &loaded.policy.name());
    let evaluation = evaluate(
        protocol,
        manifest,
        loaded.policy.as_ref(),
        &EvalOptions {
            seed: args.seed,
            threads: args.threads,
            limit: Some(total),
            resume_dir: dir,
            progress: Some(&|now| bar.set_position(now.done as u64)),
        },
    )?;
    bar.finish_and_clear();
    Ok(evaluation)
}

fn pictures(args: &Args, env: DomainRef, evaluation: &Evaluation, dir: Option<&Path>) -> Result<()> {
    for &episode in &args.gif {
        let name = match dir {
            Some(dir) => dir.join(format!("episode-{episode:03}.gif")),
            None => PathBuf::from(format!("{}-{episode:03}.gif", evaluation.key.policy)),
        };
        write_gif(&name, env, &evaluation.outcomes[episode])?;
        if !args.json {
            print(format!("wrote {}", name.display()))?;
        }
    }
    Ok(())
}

fn save(path: &Path, row: &RowResult) -> Result<()> {
    let text = serde_json::to_string_pretty(row)?;
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

/// A block of lines for one policy, a table for several.
fn report(args: &Args, rows: &[RowResult]) -> String {
    let [row] = rows else { return terminal_table(rows).trim_end().to_string() };
    let score = &row.score;
    let hard = domain::find(&row.environment).map_or("hard pairs", |env| env.spec().hard.name);
    let mut lines = vec![
        format!(
            "{} on {}, protocol {}/{} {}, seed {}",
            row.label(),
            row.environment,
            row.protocol,
            row.split,
            row.protocol_hash,
            row.seed
        ),
        format!("success      {}", score.all.text()),
        format!("{hard:<12} {}", score.block_moved.text()),
        format!("steps        {:.1} on average", score.mean_steps),
    ];
    if score.seconds_per_plan > 0.0 {
        lines.push(format!("planning     {:.3} s per plan", score.seconds_per_plan));
    }
    lines.extend(row.notes.iter().map(|note| format!("note: {note}")));
    lines.push(format!("floor and ceiling on the same pairs: {}", reference_command(args, row)));
    lines.join("\n")
}

/// The command that scores the yardsticks on the pairs of this run.
fn reference_command(args: &Args, row: &RowResult) -> String {
    let PairArgs { protocol, data, .. } = &args.pairs;
    let mut command = "worldbench eval --policy random,no-op,replay,oracle".to_string();
    if domain::all()[0].spec().name != row.environment {
        command += &format!(" --env {}", row.environment);
    }
    if protocol != worldbench_eval::protocol::DEFAULT {
        command += &format!(" --protocol {protocol}");
    }
    if row.split == "test" {
        command += " --split test";
    }
    if let Some(data) = data {
        command += &format!(" --data {}", data.display());
    }
    if let Some(episodes) = args.episodes {
        command += &format!(" --episodes {episodes}");
    }
    command
}
