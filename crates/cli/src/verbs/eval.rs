//! `worldbench eval`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use worldbench_env::{DomainRef, domain};
use worldbench_eval::{
    EvalOptions, Evaluation, Manifest, Protocol, Provenance, RowResult, evaluate,
    gif::write_gif,
    provenance::forget_peak_memory,
    results::SUMMARY_FILE,
    rows::terminal_table,
    seeds::group,
    shard::{PART_FILE, Part, Shard},
};

use crate::{
    output::{Outcome, bar, command_line, command_words, print, print_json, quoted},
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
  worldbench eval --policy random --seeds 3
  worldbench eval --policy oracle --shard 2/8 --out parts/2
  worldbench eval --policy-cmd 'python3 examples/agent.py' --out results/mine
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
    /// Run this many seeds, from --seed on, and show mean, smallest and largest rate; each seed has its own directory
    /// inside --out
    #[arg(long, value_name = "N", default_value_t = 1)]
    seeds: u64,
    /// Run part i of N only (i from 1), to be joined by `worldbench merge`
    #[arg(long, value_name = "i/N", requires = "out")]
    shard: Option<Shard>,
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
    let policies = args.policy.load(&args.pairs)?;
    let (protocol, manifest) = args.pairs.resolve(trained_on(&policies))?;
    let pairs = manifest.pairs.len();
    let total = args.episodes.unwrap_or(pairs);
    if total == 0 {
        bail!("--episodes 0 leaves nothing to run; give at least 1");
    }
    if total > pairs {
        let (name, split) = (&protocol.name, &manifest.split);
        bail!("--episodes {total}: {name}/{split} has {pairs} pairs; give at most {pairs}, or leave it out");
    }
    if let Some(episode) = args.gif.iter().find(|&&episode| episode >= total || !args.holds(episode)) {
        let part = args.shard.map_or(String::new(), |shard| format!(" in part {shard}"));
        bail!("--gif {episode}: there is no such episode{part}; {total} are run, numbered from 0");
    }
    if let Some(shard) = args.shard.filter(|shard| shard.count() > total) {
        bail!("--shard {shard}: there are only {total} episodes; give fewer parts");
    }
    let mut rows = Vec::new();
    for loaded in &policies {
        let dir = args.out.as_ref().map(|out| match policies.len() {
            1 => out.clone(),
            _ => out.join(loaded.policy.name()),
        });
        for seed in args.seeds()? {
            let dir = dir.as_ref().map(|dir| match args.seeds {
                1 => dir.clone(),
                _ => dir.join(format!("seed-{seed}")),
            });
            let row = one(args, loaded, (&protocol, &manifest), seed, dir.as_deref(), total)?;
            if args.json {
                print_json(&row)?;
            }
            rows.push(row);
        }
    }
    let groups = group(&rows);
    if args.json {
        if args.seeds > 1 {
            groups.iter().try_for_each(print_json)?;
        }
        return Ok(Outcome::Done);
    }
    print(report(args, &rows))?;
    for group in groups.iter().filter(|_| args.seeds > 1) {
        print(format!(
            "{}, mean (min to max) over {}: {}, {} {}",
            group.label,
            group.seeds_text(),
            group.all.text(),
            protocol.env()?.spec().hard.name,
            group.block_moved.text()
        ))?;
    }
    Ok(Outcome::Done)
}

impl Args {
    /// The seeds of the evaluations.
    fn seeds(&self) -> Result<std::ops::Range<u64>> {
        if self.seeds == 0 {
            bail!("--seeds 0 leaves nothing to run; give at least 1");
        }
        let end = self.seed.checked_add(self.seeds).context("--seed is too large for so many --seeds")?;
        Ok(self.seed..end)
    }

    fn holds(&self, pair: usize) -> bool {
        self.shard.is_none_or(|shard| shard.holds(pair))
    }
}

/// Runs one policy with one seed and keeps what `--out` asks for.
fn one(
    args: &Args,
    loaded: &Loaded,
    (protocol, manifest): (&Protocol, &Manifest),
    seed: u64,
    dir: Option<&Path>,
    total: usize,
) -> Result<RowResult> {
    if let Some(dir) = dir {
        same_part(dir, args.shard)?;
    }
    let bar = bar(total, &loaded.policy.name());
    forget_peak_memory();
    let evaluation = evaluate(
        protocol,
        manifest,
        loaded.policy.as_ref(),
        &EvalOptions {
            seed,
            threads: args.threads,
            limit: Some(total),
            shard: args.shard,
            resume_dir: dir,
            progress: Some(&|now| {
                bar.set_length(now.total as u64);
                bar.set_position(now.done as u64);
            }),
        },
    )?;
    bar.finish_and_clear();
    let command = row_command(seed);
    let mut row = RowResult::new(loaded.system, &protocol.environment, &evaluation, &command);
    loaded.label(&mut row);
    row.notes.extend(protocol.remark().map(str::to_string));
    pictures(args, protocol.env()?, &evaluation, dir)?;
    if let Some(dir) = dir {
        let provenance = Provenance {
            training: loaded.training.clone(),
            ..Provenance::here(&command_line(), args.threads)
        };
        provenance.save(dir)?;
        match args.shard {
            Some(shard) => Part { shard, total, row: row.clone() }.save(dir)?,
            None => row.save(&dir.join(SUMMARY_FILE))?,
        }
    }
    if let Some(shard) = args.shard {
        row.notes.push(format!("part {shard} alone; join all parts with `worldbench merge`"));
    }
    Ok(row)
}

/// Refuses to mix a part with another part or with a whole evaluation.
fn same_part(dir: &Path, shard: Option<Shard>) -> Result<()> {
    let path = dir.join(PART_FILE);
    let here = || shard.map_or("the whole evaluation".to_string(), |shard| format!("part {shard}"));
    if path.is_file() {
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let part: Part = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        if Some(part.shard) != shard {
            bail!("{} holds part {}, and this is {}; give another --out", dir.display(), part.shard, here());
        }
    } else if shard.is_some() && dir.join(SUMMARY_FILE).is_file() {
        bail!("{} holds a whole evaluation, and this is {}; give another --out", dir.display(), here());
    }
    Ok(())
}

/// The command that makes a row: the one typed, with its own seed and without the flags that change no score.
fn row_command(seed: u64) -> String {
    let mut words = Vec::new();
    let mut typed = command_words().into_iter();
    while let Some(word) = typed.next() {
        let (flag, value) =
            word.split_once('=').map_or((word.as_str(), None), |(flag, value)| (flag, Some(value)));
        match flag {
            "--json" => {}
            "--out" | "--shard" | "--threads" | "--gif" | "--seeds" | "--seed" | "--policy-timeout" => {
                if value.is_none() {
                    typed.next();
                }
            }
            _ => words.push(word),
        }
    }
    if seed != 0 {
        words.extend(["--seed".to_string(), seed.to_string()]);
    }
    quoted(words)
}

fn pictures(args: &Args, env: DomainRef, evaluation: &Evaluation, dir: Option<&Path>) -> Result<()> {
    for &episode in &args.gif {
        let name = match dir {
            Some(dir) => dir.join(format!("episode-{episode:03}.gif")),
            None => PathBuf::from(format!("{}-{episode:03}.gif", evaluation.key.policy)),
        };
        let outcome = evaluation.outcomes.iter().find(|outcome| outcome.index == episode);
        write_gif(&name, env, outcome.context("the episode was not run")?)?;
        if !args.json {
            print(format!("wrote {}", name.display()))?;
        }
    }
    Ok(())
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
