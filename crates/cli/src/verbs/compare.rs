//! `worldbench compare`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use worldbench_env::domain;
use worldbench_eval::ResultDir;
use worldbench_eval::compare::{Comparison, Paired, Side, compare};
use worldbench_eval::seeds::{self, SeedGroup};

use crate::output::{Outcome, print, print_json, table};

/// Compare two results on the same pairs: is one policy better, or was it luck?
///
/// McNemar's exact test on the pairs that only one of them solves, a bootstrap 95 % interval of the difference, and a
/// warning when there are too few pairs for a difference of that size. Results on other pairs or under other rules are
/// refused.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  worldbench compare results/pldm-cem results/pldm-mppi
  worldbench compare benchmarks/push_t/rows/pldm-compact-cem benchmarks/push_t/rows/lewm-compact-cem --seeds
  worldbench compare results/seeds-a results/seeds-b --json")]
pub struct Args {
    /// Result directory (`eval --out`, a row of `bench`), or one that holds several seeds of a row
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The other one
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Take also the other seeds of each row, from the directories beside it
    #[arg(long)]
    seeds: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let (mut a, mut b) = (side(&args.a, args.seeds)?, side(&args.b, args.seeds)?);
    if a.label == b.label {
        // Two results of one policy, say of two trainings, are told apart by where they lie.
        for (side, dir) in [(&mut a, &args.a), (&mut b, &args.b)] {
            side.label = format!("{} in {}", side.label, dir.display());
        }
    }
    let mut comparison = compare(&a, &b)?;
    if std::fs::canonicalize(&args.a)? == std::fs::canonicalize(&args.b)? {
        comparison.warnings.insert(0, "A and B are one directory: this compares a result with itself".into());
    }
    match args.json {
        true => print_json(&comparison)?,
        false => print(text(&comparison))?,
    }
    Ok(Outcome::Done)
}

/// The result in `dir`, or the seeds in it; with those in the directories beside it, if `beside`.
fn side(dir: &Path, beside: bool) -> Result<Side> {
    let mut runs = ResultDir::find(dir)?;
    if runs.first().is_some_and(|run| run.path == dir) {
        runs.truncate(1);
        if beside {
            let dir = std::fs::canonicalize(dir)?;
            let all = ResultDir::find(dir.parent().unwrap_or(&dir))?;
            let mut groups = groups(&all).into_iter();
            let own = groups.find(|group| group.rows.iter().any(|&i| all[i].path == dir));
            runs = own.map_or(runs, |group| group.rows.iter().map(|&i| all[i].clone()).collect());
        }
    }
    let groups = groups(&runs);
    if let [first, second, ..] = groups.as_slice() {
        bail!(
            "{} holds results of different policies ({}, {}); give the directory of one",
            dir.display(),
            first.label,
            second.label
        );
    }
    Ok(Side { label: runs[0].row.label(), runs })
}

fn groups(runs: &[ResultDir]) -> Vec<SeedGroup> {
    seeds::group(&runs.iter().map(|run| run.row.clone()).collect::<Vec<_>>())
}

fn text(c: &Comparison) -> String {
    let hard = domain::find(&c.environment).map_or("hard pairs", |env| env.spec().hard.name);
    let percent = |rate: f64| format!("{:.1} %", 100.0 * rate);
    let row = |name: &str, p: &Paired| {
        [
            name.to_string(),
            p.n.to_string(),
            percent(p.rate_a),
            percent(p.rate_b),
            format!(
                "{:+.1} [{:+.1}, {:+.1}]",
                100.0 * p.difference,
                100.0 * p.interval.low,
                100.0 * p.interval.high
            ),
            format!("{} / {}", p.a_better, p.b_better),
            p_value(p.p).trim_start_matches("= ").to_string(),
        ]
    };
    let seeds = |n: usize| if n == 1 { String::new() } else { format!(", mean of {n} evaluations") };
    let mut lines = vec![
        format!("A: {}{}", c.a, seeds(c.evaluations[0])),
        format!("B: {}{}", c.b, seeds(c.evaluations[1])),
        format!("{}, protocol {} {}", c.environment, c.protocol, c.protocol_hash),
        String::new(),
        table(
            ["pairs", "n", "A", "B", "A - B, points [95 %]", "only A / only B", "p"],
            &[row("all", &c.all), row(hard, &c.block_moved)],
        ),
        String::new(),
        verdict(c),
    ];
    lines.extend(c.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.join("\n")
}

fn verdict(c: &Comparison) -> String {
    let p = p_value(c.all.p);
    let what = match c.all.p < 0.05 {
        true if c.all.difference > 0.0 => "A is better on these pairs",
        true => "B is better on these pairs",
        false => "no difference shown",
    };
    format!("{what} (exact McNemar test, p {p})")
}

/// `= 0.019`, `< 0.001`.
fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".into() } else { format!("= {p:.3}") }
}
