//! `worldbench collect`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::json;
use worldbench_data::Store;
use worldbench_eval::{CollectConfig, collect};

use crate::{
    config::{COLLECT, ConfigArgs, environment, preset_text},
    output::{Outcome, bar, make_parent, print, print_json},
};

/// Record training data: expert episodes, noisy replays of them, and play
///
/// The result is a function of the configuration alone. A run that was stopped goes on where it was when the same
/// command is given again, and ends with the same bytes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  worldbench collect --preset smoke --out smoke.wbs
  worldbench collect --out push_t.wbs --set sources=500 --set seed=7
  worldbench collect --env two-room --out rooms.wbs
  worldbench collect --demos demos.wbs --out push_t.wbs --set replays_per_source=90
  worldbench config show collect                        every key that --set takes")]
pub struct Args {
    /// Store to write, or to continue
    #[arg(long, value_name = "STORE.wbs")]
    out: PathBuf,
    /// Environment (see `envs`); without --preset its own preset is taken [default: push_t]
    #[arg(long, value_name = "NAME")]
    env: Option<String>,
    /// Replay the episodes of this store (see `data import`) in place of the built-in expert's
    #[arg(long, value_name = "STORE.wbs")]
    demos: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
    /// Threads; 0 takes one per core
    #[arg(long, default_value_t = 0, value_parser = crate::config::threads)]
    threads: usize,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// The configuration; `--env` chooses a preset of the environment's name where there is one and none is given.
fn resolve(args: &Args) -> Result<CollectConfig> {
    let Some(name) = &args.env else { return args.config.resolve(COLLECT) };
    let env = environment(name)?.name;
    let mut flags = args.config.clone();
    let own = env.replace('_', "-");
    if flags.preset.is_none() && flags.config.is_none() && COLLECT.iter().any(|(known, _)| *known == own) {
        flags.preset = Some(own);
    }
    if let Some(preset) = &flags.preset {
        let (origin, text) = preset_text(COLLECT, preset)?;
        let table: Option<toml::Table> = text.parse().ok();
        let own = table.as_ref().and_then(|table| table.get("env")?.as_str());
        if let Some(own) = own.filter(|own| *own != env) {
            bail!("--env {env}: {origin} is for {own}; leave one of the two out");
        }
    }
    flags.set.push(format!("env=\"{env}\""));
    flags.resolve(COLLECT)
}

pub fn run(args: &Args) -> Result<Outcome> {
    let mut config = resolve(args)?;
    if let Some(demos) = &args.demos {
        config = config.with_demos(demos)?;
    }
    config.check()?;
    make_parent(&args.out)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads).build();
    let pool = pool.with_context(|| format!("cannot start {} threads; give fewer", args.threads))?;
    let bar = bar(config.episodes(), "episodes");
    let done = pool.install(|| collect(&config, &args.out, |now| bar.set_position(now.episodes as u64)))?;
    bar.finish_and_clear();
    let store = Store::open(&args.out)?;
    let stats = store.stats();
    let steps = stats.rows - stats.episodes;
    if args.json {
        print_json(&json!({
            "path": args.out, "episodes": stats.episodes, "steps": steps, "new_steps": done.steps,
            "bytes": stats.bytes, "kinds": stats.kinds, "hash": store.hash(), "config": config,
        }))?;
    } else {
        let (path, bytes) = (args.out.display(), stats.bytes as f64 / 1e6);
        print(format!(
            "{path}: {} episodes, {steps} steps ({} new), {bytes:.1} MB, hash {}",
            stats.episodes,
            done.steps,
            store.hash()
        ))?;
    }
    Ok(Outcome::Done)
}
