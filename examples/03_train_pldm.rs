//! Trains a compact PLDM for a few steps; the environment comes from the store.
//! `cargo run --release --example 03_train_pldm -- rooms.wbs runs/pldm` after `02_collect`; then `04_plan`.

use std::path::PathBuf;
use std::sync::Arc;

use worldbench_data::{Split, Store};
use worldbench_train::{TrainConfig, Trainer, learner};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let data = args.next().unwrap_or_else(|| "rooms.wbs".into());
    let run = args.next().unwrap_or_else(|| "runs/pldm".into());
    let preset: TrainConfig = toml::from_str(include_str!("../configs/train/pldm-compact.toml"))?;
    let config = TrainConfig { steps: 20, batch: 16, validation: 0.2, validate_every: 10, ..preset };
    config.check()?;

    let store = Arc::new(Store::open(&data)?);
    let split = Split::by_source(&store, config.validation, config.seed);
    let mut learner = learner(&config, &store, &split)?;
    // A run that was stopped goes on from its last checkpoint, to the bit.
    let mut trainer = Trainer::open(&config, &run, store, split, config.window_spec(), learner.as_mut())?;
    trainer.run(learner.as_mut(), &mut |now| {
        if now.step.is_multiple_of(10) {
            println!("step {} of {}: loss {:.3}", now.step, now.total, now.metrics[0].1);
        }
        true // false stops here, with a checkpoint
    })?;
    println!("checkpoint: {}", run.display());
    Ok(())
}
