//! `worldbench diagnose`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use worldbench_eval::Protocol;
use worldbench_eval::diagnose::{Part, Phase, Report, diagnose};
use worldbench_eval::protocol::{DEFAULT, Split};
use worldbench_train::checkpoint::write_atomic;

use crate::learned::planner_config;
use crate::output::{Outcome, bar, print, print_json, table};

/// Examine a checkpoint: what limits its score, eyes, dynamics, cost or planner
///
/// A linear probe of the pose, the open-loop error, the rank correlation of latent cost and true distance, and
/// success when dynamics or cost are replaced by the truth, all on `dev` pairs of the held-out protocol. The
/// planner's budget is reduced (see --samples and --iterations): compare the cells with each other, not with
/// published scores.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  worldbench diagnose runs/pldm --planner mppi --out runs/pldm/diagnosis")]
pub struct Args {
    /// Checkpoint directory of a learned world model
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: PathBuf,
    /// How it plans: cem, mppi, or the path of a TOML file
    #[arg(long, value_name = "NAME|PATH", default_value = "cem")]
    planner: String,
    /// Candidates per iteration
    #[arg(long, default_value_t = 64)]
    samples: usize,
    /// Iterations per plan
    #[arg(long, default_value_t = 10)]
    iterations: usize,
    /// One planning value laid over everything else, e.g. --set plan.receding_horizon=1; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Pairs of the swap; the probe is fitted on the others
    #[arg(long, default_value_t = 50)]
    pairs: usize,
    /// Where diagnosis.json and diagnosis.png go [default: the checkpoint directory]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let elites = (args.samples / 8).max(2);
    let mut sets = vec![format!("solver.samples={}", args.samples), format!("solver.topk={elites}")];
    sets.push(format!("solver.iterations={}", args.iterations));
    sets.extend(args.set.iter().cloned());
    let config = planner_config(&args.planner, &sets)?;
    let loaded = worldbench_train::load(&args.checkpoint)?;
    let protocol = Protocol::find(DEFAULT, &loaded.environment)?;
    let model = loaded.world(&args.checkpoint)?;
    let manifest = protocol.manifest(Split::Dev)?;
    let directory = args.out.as_ref().unwrap_or(&args.checkpoint);
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let bar = bar(0, "");
    let watch = |now: Phase| {
        bar.set_message(now.what.to_string());
        bar.set_length(now.total as u64);
        bar.set_position(now.done as u64);
        // A log file has no progress bar.
        if bar.is_hidden() && now.done == now.total {
            eprintln!("{}: {} pairs", now.what, now.total);
        }
    };
    let report = diagnose(&model, &config, &protocol, &manifest, args.pairs, &watch)?;
    bar.finish_and_clear();
    let picture = directory.join("diagnosis.png");
    report.write_picture(&picture)?;
    let text = serde_json::to_string_pretty(&report)? + "\n";
    write_atomic(&directory.join("diagnosis.json"), text.as_bytes())?;
    if args.json {
        print_json(&report)?;
    } else {
        show(&report, protocol.env()?.spec().hard.name)?;
        print(format!("wrote {} and diagnosis.json", picture.display()))?;
    }
    Ok(Outcome::Done)
}

fn show(report: &Report, hard: &str) -> Result<()> {
    let [fitted, measured] = report.frames;
    print(format!("pose read from the latent (fitted on {fitted} frames, measured on {measured}):"))?;
    let number = |v: f64| format!("{v:.2}");
    let rows: Vec<[String; 4]> = report
        .probe
        .iter()
        .map(|p| [p.quantity.to_string(), number(p.median), number(p.rms), number(p.rms_of_mean)])
        .collect();
    print(table(["quantity", "median error", "rms error", "rms of the mean"], &rows))?;
    let list = |values: &[f64]| values.iter().map(|v| format!("{v:.2}")).collect::<Vec<_>>().join(" ");
    print(format!("\nopen-loop error / no change, after 1, 2, ... blocks: {}", list(&report.open_loop)))?;
    print(format!("rank correlation by solver iteration: {}\n", list(&report.rank_correlation)))?;
    let name = |part, learned: &'static str, truth| if part == Part::Learned { learned } else { truth };
    let rows: Vec<[String; 4]> = report
        .swap
        .iter()
        .map(|c| {
            let (dynamics, cost) =
                (name(c.dynamics, "learned", "true"), name(c.cost, "latent", "true state"));
            [dynamics.to_string(), cost.to_string(), c.all.text(), c.block_moved.text()]
        })
        .collect();
    print(table(["dynamics", "cost", "success", hard], &rows))?;
    print("the planner's budget is reduced: compare the cells with each other, not with published scores")
}
