//! Plans with a trained checkpoint on a few pairs of its environment.
//! `cargo run --release --example 04_plan -- runs/pldm` after `03_train_pldm`

use std::path::PathBuf;

use worldbench_eval::policies::PlannerConfig;
use worldbench_eval::protocol::{DEFAULT, Split};
use worldbench_eval::{EvalOptions, Protocol, evaluate};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let checkpoint: PathBuf = std::env::args_os().nth(1).unwrap_or_else(|| "runs/pldm".into()).into();
    let loaded = worldbench_train::load(&checkpoint)?;
    println!("{} {} of {}, {}", loaded.method.name(), loaded.architecture, loaded.environment, loaded.report);

    // A smaller search than the preset's, to be quick.
    let mut table: toml::Table = include_str!("../configs/plan/cem.toml").parse()?;
    for (key, value) in [("samples", 64), ("iterations", 5), ("topk", 8)] {
        table["solver"][key] = value.into();
    }
    let config: PlannerConfig = table.try_into()?;
    let protocol = Protocol::find(DEFAULT, &loaded.environment)?;
    let planner = config.build("example".into(), String::new(), loaded.world(&checkpoint)?)?;

    let manifest = protocol.manifest(Split::Dev)?;
    let options = EvalOptions { limit: Some(4), ..EvalOptions::default() };
    let evaluation = evaluate(&protocol, &manifest, &planner, &options)?;
    for outcome in &evaluation.outcomes {
        let last = outcome.distances.last().copied().unwrap_or_default();
        println!("pair {}: {:.0} px from the goal after {} steps", outcome.index, last, outcome.steps);
    }
    println!("success {}, hash {}", evaluation.score.all.text(), evaluation.key.protocol_hash);
    Ok(())
}
