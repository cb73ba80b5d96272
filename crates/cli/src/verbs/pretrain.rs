//! `worldbench pretrain`: the frozen encoder that DINO-WM falls back on where no other weights are at hand.

use std::path::PathBuf;

use anyhow::{Result, bail};
use worldbench_train::pretrain::export_encoder;
use worldbench_train::{ModelConfig, scenes};

use crate::config::PRETRAIN;
use crate::learned::{preset_config, train};
use crate::output::{Outcome, print};

/// Pretrain a frozen encoder on random scenes
///
/// A small ViT learns by masked autoencoding from frames whose colours, shapes and scales vary; no data set is needed.
/// The run directory gets the scenes, the logs and `encoder.safetensors`, which `train dino-wm-compact --set
/// model.encoder.weights=DIR/encoder.safetensors` takes. The same command given again continues a run that was stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  worldbench pretrain --out runs/encoder
  worldbench pretrain --preset push_t-fine --init runs/encoder --out runs/fine
  worldbench pretrain --out runs/try --scenes 2000 --set steps=100")]
pub struct Args {
    /// Compiled-in preset (push_t, push_t-fine), or the path of a TOML file
    #[arg(long, value_name = "NAME|PATH", default_value = "push_t")]
    preset: String,
    /// Number of scenes
    #[arg(long, default_value_t = 200_000)]
    scenes: usize,
    /// One scene in this many varies colours, shapes and scales, the others have the default look
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    varied: u64,
    /// A run or checkpoint directory whose weights training starts from
    #[arg(long, value_name = "DIR")]
    init: Option<PathBuf>,
    /// Run directory; a run that stands there is continued
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// One value laid over the preset; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let config = preset_config(PRETRAIN, &args.preset, &args.set)?.beginning_with(args.init.as_deref());
    let ModelConfig::Mae(mae) = &config.model else {
        bail!(
            "preset {}: pretraining needs architecture = \"mae\"; use `train` for world models",
            args.preset
        );
    };
    std::fs::create_dir_all(&args.out)?;
    let store = args.out.join("scenes.wbs");
    scenes::write(&store, args.scenes, config.seed, args.varied)?;
    let seconds = train(&config, &store, &args.out)?.seconds;
    let file = args.out.join("encoder.safetensors");
    export_encoder(mae, &args.out, &file)?;
    print(format!("{}: {} steps, {seconds:.0} s of training", file.display(), config.steps))?;
    Ok(Outcome::Done)
}
