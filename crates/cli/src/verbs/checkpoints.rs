//! `worldbench checkpoints`: what lies where, whether it loads, and the ways in and out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::json;
use worldbench_data::Store;
use worldbench_train::checkpoint::{file_hash, write_atomic};
use worldbench_train::import::import;

use crate::learned::{self, CARD, CHECKPOINT, train_config};
use crate::output::{Outcome, describe, print, print_json};

/// List, check, import and export checkpoint directories
///
/// A checkpoint directory holds model.safetensors and config.toml (with the normaliser's statistics), and for some models
/// their own frozen encoder; `eval --checkpoint DIR` needs nothing else. Published ones have a card.md.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the checkpoints below a directory
    List {
        /// Where to look
        #[arg(default_value = ".")]
        directory: PathBuf,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Load checkpoints strictly: every tensor there, whole and finite, none left over, the right encoder
    Verify {
        /// Checkpoint directories
        #[arg(required = true, value_name = "DIR")]
        directories: Vec<PathBuf>,
    },
    /// Make a checkpoint of the reference's weights (.pt without executing pickles, or .safetensors)
    ///
    /// The reference does not store the statistics that normalise actions and proprioception: they are fitted on --data,
    /// which should be the data the model was trained on (see `data import`).
    #[command(after_help = "\
Example:
  worldbench checkpoints import weights_epoch_10.pt --preset dino-wm-full --data push_t.wbs --out dino-wm")]
    Import {
        /// Weight file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Training preset, or TOML file, of the model's sizes
        #[arg(long, value_name = "NAME|PATH")]
        preset: String,
        /// One value laid over the preset, e.g. --set model.encoder.image=196; may be repeated
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Store that the statistics are fitted on
        #[arg(long, value_name = "STORE.wbs")]
        data: PathBuf,
        /// Checkpoint directory to write
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Copy what evaluation needs out of a training run
    Export {
        /// Training run, or checkpoint
        #[arg(value_name = "DIR")]
        from: PathBuf,
        /// Checkpoint directory to write
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Store matrices as f16: half the size, and another model that wants its own score
        #[arg(long)]
        half: bool,
    },
}

pub fn run(args: &Args) -> Result<Outcome> {
    match &args.action {
        Action::List { directory, json } => list(directory, *json),
        Action::Verify { directories } => verify(directories),
        Action::Import { file, preset, set, data, out } => {
            if CHECKPOINT.iter().any(|name| out.join(name).exists()) {
                bail!("{} holds a checkpoint; give another --out", out.display());
            }
            let store = Arc::new(Store::open(data)?);
            let report = import(&train_config(preset, set)?, file, &store, out)?;
            let card = format!(
                "# {}\n\n* Imported from `{}` as `{preset}`, {report}.\n* Statistics fitted on data with hash {}.\n",
                name(out),
                name(file),
                store.hash()
            );
            write_atomic(&out.join(CARD), card.as_bytes())?;
            print(format!("{}: {report}; score it: worldbench eval --checkpoint {0}", out.display()))?;
            Ok(Outcome::Done)
        }
        Action::Export { from, out, half } => export(from, out, *half),
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Checkpoint directories below `root`, hidden ones and resumption states left out.
fn find(root: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    if CHECKPOINT.iter().all(|name| root.join(name).is_file()) {
        found.push(root.to_path_buf());
    }
    let entries = std::fs::read_dir(root).with_context(|| format!("cannot read {}", root.display()))?;
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let hidden = [".", "resume"].iter().any(|start| name.to_string_lossy().starts_with(start));
        if entry.file_type()?.is_dir() && !hidden {
            folders.push(entry.path());
        }
    }
    folders.sort();
    folders.iter().try_for_each(|folder| find(folder, found))
}

fn list(root: &Path, as_json: bool) -> Result<Outcome> {
    let mut found = Vec::new();
    find(root, &mut found)?;
    let mut rows = Vec::new();
    for directory in &found {
        let text = std::fs::read_to_string(directory.join("config.toml"))?;
        let table: toml::Table = text.parse().with_context(|| format!("{}", directory.display()))?;
        let entry = |key: &str| table.get(key).and_then(toml::Value::as_str).unwrap_or("?").to_owned();
        let weights = directory.join("model.safetensors");
        rows.push(json!({
            "path": directory.display().to_string(),
            "method": entry("method"),
            "architecture": entry("architecture"),
            "bytes": std::fs::metadata(&weights)?.len(),
            "hash": file_hash(&weights)?,
        }));
    }
    if as_json {
        print_json(&rows)?;
        return Ok(Outcome::Done);
    }
    for row in &rows {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let size = row["bytes"].as_f64().unwrap_or_default() / 1e6;
        print(format!(
            "{:<48} {:<8} {:<8} {size:>7.1} MB  {}",
            text("path"),
            text("method"),
            text("architecture"),
            text("hash")
        ))?;
    }
    if rows.is_empty() {
        print(format!("no checkpoint below {}", root.display()))?;
    }
    Ok(Outcome::Done)
}

fn verify(directories: &[PathBuf]) -> Result<Outcome> {
    let mut outcome = Outcome::Done;
    for directory in directories {
        match worldbench_train::load(directory) {
            Ok(loaded) => {
                let (method, report) = (loaded.method.name(), loaded.report);
                print(format!("{}: {method} {}, {report}, ok", directory.display(), loaded.architecture))?;
            }
            Err(error) => {
                outcome = Outcome::Miss;
                print(format!("{}: MISS: {}", directory.display(), describe(&error.into())))?;
                let mut below = Vec::new();
                // The error itself says what is wrong with a directory that cannot be read.
                let _ = find(directory, &mut below);
                if let Some(first) = below.iter().find(|found| *found != directory) {
                    let (count, first) = (below.len(), first.display());
                    print(format!(
                        "  {count} lie below it, such as {first}; see `worldbench checkpoints list`"
                    ))?;
                }
            }
        }
    }
    Ok(outcome)
}

fn export(from: &Path, out: &Path, half: bool) -> Result<Outcome> {
    if out.join(CHECKPOINT[0]).exists() {
        bail!("{} holds a checkpoint; give another --out", out.display());
    }
    worldbench_train::load(from)?;
    learned::export(from, out, half)?;
    let report = worldbench_train::load(out)?.report;
    print(format!("{}: {report}; score it: worldbench eval --checkpoint {0}", out.display()))?;
    Ok(Outcome::Done)
}
