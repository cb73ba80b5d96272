//! `worldbench selftest`: every parity check on the embedded fixtures or on a directory of the same layout.

mod environment;
mod learned;
mod two_room;

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;

use crate::{
    embedded,
    output::{Outcome, print, print_json, table},
};

/// Compare this build with the recorded reference: simulator, renderer, seeding, models, losses, gradients, planners
///
/// Ends with exit code 1 when an item misses its tolerance, a file cannot be read, or a built subject has no
/// fixture. This is how a new machine or backend earns trust.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  worldbench selftest
  worldbench selftest --fixtures path/to/fixtures --json
  worldbench selftest --device vulkan:0")]
pub struct Args {
    /// Directory with `env/` and `models/`; the embedded fixtures when left out
    #[arg(long, value_name = "DIR")]
    fixtures: Option<PathBuf>,
    /// Where the networks run: cpu, vulkan:N, cuda:N or metal
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Also fail on items that are not built yet
    #[arg(long)]
    strict: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What an item came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    Ok,
    Miss,
    NotBuilt,
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
struct Item {
    item: String,
    /// Largest absolute difference; JSON null when there is none or it is not finite.
    max_error: Option<f64>,
    tolerance: Option<f64>,
    status: Status,
    ok: bool,
    /// Why there is no figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl Item {
    /// A comparison; NaN counts as a miss.
    fn compared(item: impl Into<String>, max_error: f64, tolerance: f64) -> Self {
        let ok = max_error <= tolerance;
        let status = if ok { Status::Ok } else { Status::Miss };
        let (max_error, tolerance) = (Some(max_error), Some(tolerance));
        Self { item: item.into(), max_error, tolerance, status, ok, note: None }
    }

    /// A check that could not be made.
    fn missed(item: impl Into<String>, why: impl std::fmt::Display) -> Self {
        let note = Some(why.to_string());
        let (max_error, tolerance) = (None, None);
        Self { item: item.into(), max_error, tolerance, status: Status::Miss, ok: false, note }
    }

    /// A subject that this build lacks.
    fn not_built(item: &str) -> Self {
        Self { status: Status::NotBuilt, note: None, ..Self::missed(item, "") }
    }

    fn row(&self) -> [String; 4] {
        let number = |value: Option<f64>| value.map_or_else(|| "-".into(), |v| format!("{v:.1e}"));
        let verdict = match (self.status, &self.note) {
            (Status::Ok, _) => "ok".into(),
            (Status::NotBuilt, _) => "not built".into(),
            (Status::Miss, Some(note)) => format!("MISS: {note}"),
            (Status::Miss, None) => "MISS".into(),
        };
        [self.item.clone(), number(self.max_error), number(self.tolerance), verdict]
    }
}

pub fn run(args: &Args) -> Result<Outcome> {
    let unpacked;
    let root = match &args.fixtures {
        Some(path) => path.as_path(),
        None => {
            unpacked = tempfile::tempdir().context("cannot make a temporary directory; set TMPDIR")?;
            embedded::unpack(unpacked.path())?;
            unpacked.path()
        }
    };
    let learned = learned::check(root, &args.device)?;
    let mut items = environment::check(root);
    items.extend(learned);
    let count = |status| items.iter().filter(|item| item.status == status).count();
    let (passed, missed, not_built) = (count(Status::Ok), count(Status::Miss), count(Status::NotBuilt));
    if args.json {
        print_json(&json!({
            "device": args.device, "fixtures": args.fixtures, "items": items,
            "ok": passed, "missed": missed, "not_built": not_built,
        }))?;
    } else {
        let rows: Vec<[String; 4]> = items.iter().map(Item::row).collect();
        print(table(["item", "max error", "tolerance", "ok"], &rows))?;
        print(format!("{passed} ok, {missed} missed, {not_built} not built"))?;
    }
    Ok(if missed > 0 || (args.strict && not_built > 0) { Outcome::Miss } else { Outcome::Done })
}
