//! `worldbench compare`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use worldbench_eval::ResultDir;
use worldbench_eval::compare::{Comparison, Paired, Side, compare};

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
  worldbench compare results/seeds-a results/seeds-b --json")]
pub struct Args {
    /// Result directory (`eval --out`, a row of `bench`), or one that holds several seeds of a row
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The other one
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let (mut a, mut b) = (side(&args.a)?, side(&args.b)?);
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

/// The result in `dir`, or the seeds in it.
fn side(dir: &Path) -> Result<Side> {
    let mut runs = ResultDir::find(dir)?;
    if runs.first().is_some_and(|run| run.path == dir) {
        runs.truncate(1);
    }
    let groups = worldbench_eval::seeds::group(&runs.iter().map(|run| run.row.clone()).collect::<Vec<_>>());
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

fn text(c: &Comparison) -> String {
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
            format!("{:.3}", p.p),
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
            &[row("all", &c.all), row("block-moved", &c.block_moved)],
        ),
        String::new(),
        verdict(c),
    ];
    lines.extend(c.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.join("\n")
}

fn verdict(c: &Comparison) -> String {
    let p = c.all.p;
    match p < 0.05 {
        true if c.all.difference > 0.0 => {
            format!("A is better on these pairs (exact McNemar test, p = {p:.3})")
        }
        true => format!("B is better on these pairs (exact McNemar test, p = {p:.3})"),
        false => format!("no difference shown (exact McNemar test, p = {p:.3})"),
    }
}
