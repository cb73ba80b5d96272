//! `worldbench protocol`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::json;
use worldbench_eval::{
    Baseline, EvalOptions, HeldOutConfig, Manifest, Protocol, evaluate, held_out::make_manifest,
    manifest::MOVED_DEGREES, manifest::MOVED_PX, protocol::Split as Pairs,
};

use crate::{
    output::{Outcome, make_parent, print, print_json, table},
    pairs::{PairArgs, Split},
};

/// Least share of pairs that the recorded actions must solve.
const REPLAY_SHARE: f64 = 0.99;
/// Least share of pairs in which the block moves.
const MOVED_SHARE: f64 = 0.7;

/// Evaluation protocols and their start/goal pairs
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  worldbench protocol show held-out
  worldbench protocol verify --split test
  worldbench protocol make --split dev --out held-out-dev.json")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the compiled-in protocols
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a protocol, its pairs' facts and its hash
    Show {
        /// Name or path
        #[arg(default_value = worldbench_eval::protocol::DEFAULT)]
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    Make(MakeArgs),
    Verify(VerifyArgs),
}

/// Make the pairs of `held-out` from the reserved random streams
#[derive(Debug, clap::Args)]
struct MakeArgs {
    /// Which pairs
    #[arg(long, value_enum)]
    split: Split,
    /// Manifest to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Check a protocol's pairs: the recorded actions solve 99 %, the block moves in 70 %
#[derive(Debug, clap::Args)]
struct VerifyArgs {
    #[command(flatten)]
    pairs: PairArgs,
    /// A manifest file, in place of the protocol's own
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    manifest: Option<PathBuf>,
    /// Also make the pairs of `held-out` again and compare them to the bit
    #[arg(long)]
    remake: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome> {
    match &args.verb {
        Verb::List { json } => list(*json),
        Verb::Show { name, json } => show(name, *json),
        Verb::Make(args) => make(args),
        Verb::Verify(args) => verify(args),
    }
}

fn list(json: bool) -> Result<Outcome> {
    let protocols: Vec<Protocol> = Protocol::names().map(Protocol::find).collect::<Result<_, _>>()?;
    if json {
        print_json(&protocols)?;
        return Ok(Outcome::Done);
    }
    let rows: Vec<[String; 4]> = protocols
        .iter()
        .map(|p| {
            let pairs = if p.manifest.is_some() { "frozen: dev, test" } else { "drawn from --data" };
            [p.name.clone(), p.environment.clone(), format!("{} / {}", p.goal_offset, p.budget), pairs.into()]
        })
        .collect();
    print(table(["protocol", "environment", "goal offset / budget", "pairs"], &rows))?;
    Ok(Outcome::Done)
}

/// Frozen manifests of a protocol; none when it draws its pairs.
fn manifests(protocol: &Protocol) -> Result<Vec<Manifest>> {
    if protocol.manifest.is_none() {
        return Ok(Vec::new());
    }
    Ok([Pairs::Dev, Pairs::Test]
        .map(|split| protocol.manifest(split))
        .into_iter()
        .collect::<Result<_, _>>()?)
}

fn show(name: &str, json: bool) -> Result<Outcome> {
    let protocol = Protocol::find(name)?;
    let mut splits = Vec::new();
    for manifest in manifests(&protocol)? {
        splits.push((
            manifest.split.clone(),
            manifest.pairs.len(),
            manifest.moved_share(),
            protocol.hash(&manifest)?,
        ));
    }
    if json {
        let facts = splits.iter().map(
            |(split, pairs, moved, hash)| json!({ "split": split, "pairs": pairs, "moved": moved, "hash": hash }),
        );
        print_json(&json!({ "protocol": protocol, "splits": facts.collect::<Vec<_>>() }))?;
        return Ok(Outcome::Done);
    }
    print(format!("{} on {}", protocol.name, protocol.environment))?;
    print(format!("goal {} env steps ahead, budget {} env steps", protocol.goal_offset, protocol.budget))?;
    if let Some(rule) = protocol.selection {
        print(format!("draws {} pairs from a data set with NumPy's seed {}", rule.episodes, rule.seed))?;
    }
    for (split, pairs, moved, hash) in splits {
        print(format!("{split}: {pairs} pairs, block moved in {:.1} %, hash {hash}", 100.0 * moved))?;
    }
    if !protocol.notes.is_empty() {
        print(protocol.notes.trim())?;
    }
    Ok(Outcome::Done)
}

fn split_name(split: Split) -> &'static str {
    match split {
        Split::Dev => "dev",
        Split::Test => "test",
    }
}

fn make(args: &MakeArgs) -> Result<Outcome> {
    make_parent(&args.out)?;
    let (manifest, dropped) = make_manifest(&HeldOutConfig::split(split_name(args.split)));
    manifest.save(&args.out)?;
    let moved = 100.0 * manifest.moved_share();
    print(format!("{}: {} pairs, block moved in {moved:.1} %", args.out.display(), manifest.pairs.len()))?;
    print(format!(
        "starts not taken: {} not replayable, {} solved at once, {} out of view",
        dropped.not_replayable, dropped.solved_at_start, dropped.out_of_view
    ))?;
    Ok(Outcome::Done)
}

fn verify(args: &VerifyArgs) -> Result<Outcome> {
    let (protocol, manifest) = match &args.manifest {
        Some(path) => {
            let protocol = Protocol::find(&args.pairs.protocol)?;
            let manifest = Manifest::load(path)?;
            protocol.check(&manifest)?;
            (protocol, manifest)
        }
        None => args.pairs.resolve()?,
    };
    let remade = match args.remake {
        true if protocol.name != "held-out" => bail!("--remake makes the pairs of held-out; leave it out"),
        true => {
            Some(make_manifest(&HeldOutConfig::split(split_name(args.pairs.split))).0.pairs == manifest.pairs)
        }
        false => None,
    };
    let hash = protocol.hash(&manifest)?;
    let replay = evaluate(&protocol, &manifest, &Baseline::Replay, &EvalOptions::default())?.score.all;
    let moved = manifest.moved_share();
    let ok = replay.rate >= REPLAY_SHARE && moved >= MOVED_SHARE && remade != Some(false);
    if args.json {
        print_json(&json!({
            "protocol": protocol.name, "split": manifest.split, "hash": hash, "pairs": manifest.pairs.len(),
            "replay": replay, "moved": moved, "remade_equal": remade, "ok": ok,
        }))?;
    } else {
        print(format!("{}/{}, hash {hash}", protocol.name, manifest.split))?;
        print(format!("recorded actions solve {} (at least {:.0} %)", replay.text(), 100.0 * REPLAY_SHARE))?;
        print(format!(
            "block moves more than {MOVED_PX} px or {MOVED_DEGREES} degrees in {:.1} % (at least {:.0} %)",
            100.0 * moved,
            100.0 * MOVED_SHARE
        ))?;
        if let Some(equal) = remade {
            print(if equal { "made again: equal to the bit" } else { "made again: DIFFERENT" })?;
        }
        print(if ok { "ok" } else { "MISS" })?;
    }
    Ok(if ok { Outcome::Done } else { Outcome::Miss })
}
