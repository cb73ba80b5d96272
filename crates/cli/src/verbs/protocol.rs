//! `worldbench protocol`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::json;
use worldbench_data::Store;
use worldbench_env::environment::ALL;
use worldbench_eval::{
    Baseline, EvalOptions, HeldOutConfig, Limits, Manifest, Protocol, evaluate, held_out::make_manifest,
};

use crate::{
    config::environment,
    output::{Outcome, make_parent, print, print_json, table},
    pairs::{PairArgs, Split},
};

/// Least share of pairs that the recorded actions must solve.
const REPLAY_SHARE: f64 = 0.99;

/// Evaluation protocols and their start/goal pairs
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  worldbench protocol show held-out
  worldbench protocol verify --split test
  worldbench protocol verify --protocol strict --env two-room
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
        /// Environment; see `envs`
        #[arg(long, value_name = "NAME", default_value = "push_t")]
        env: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    Make(MakeArgs),
    Verify(VerifyArgs),
}

/// Make a protocol's pairs from the reserved random streams, or draw them from a data set
#[derive(Debug, clap::Args)]
struct MakeArgs {
    #[command(flatten)]
    pairs: PairArgs,
    /// What the data set is called in the manifest [default: its path]
    #[arg(long, value_name = "NAME", requires = "data")]
    name: Option<String>,
    /// Manifest to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Check a protocol's pairs: the recorded actions solve 99 %, and enough of them are not easily won
#[derive(Debug, clap::Args)]
struct VerifyArgs {
    #[command(flatten)]
    pairs: PairArgs,
    /// A manifest file, in place of the protocol's own; that it is one of this protocol, and of --split where given, is
    /// checked
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    manifest: Option<PathBuf>,
    /// Also make the pairs again and compare them to the bit
    #[arg(long)]
    remake: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome> {
    match &args.verb {
        Verb::List { json } => list(*json),
        Verb::Show { name, env, json } => show(&Protocol::find(name, environment(env)?.name)?, *json),
        Verb::Make(args) => make(args),
        Verb::Verify(args) => verify(args),
    }
}

fn list(json: bool) -> Result<Outcome> {
    let find = |name: &'static str| ALL.iter().filter_map(move |env| Protocol::find(name, env.name).ok());
    let protocols: Vec<Protocol> = Protocol::names().flat_map(find).collect();
    if json {
        print_json(&protocols)?;
        return Ok(Outcome::Done);
    }
    let row = |p: &Protocol| {
        let mut splits = Vec::new();
        if let Some(manifest) = &p.manifest {
            let named = [("dev", &manifest.dev), ("test", &manifest.test), ("drawn", &manifest.drawn)];
            splits.extend(named.iter().filter(|(_, file)| file.is_some()).map(|(name, _)| *name));
        }
        let mut pairs = match splits[..] {
            [] => String::new(),
            ["drawn"] => "frozen".into(),
            _ => format!("frozen: {}", splits.join(", ")),
        };
        if p.selection.is_some() {
            pairs += if splits.is_empty() { "drawn from --data" } else { ", or drawn from --data" };
        }
        let steps = format!("{} / {}", p.goal_offset, p.budget);
        [p.name.clone(), p.environment.clone(), steps, p.success.clone(), pairs]
    };
    let rows: Vec<[String; 5]> = protocols.iter().map(row).collect();
    print(table(["protocol", "environment", "goal offset / budget", "success", "pairs"], &rows))?;
    Ok(Outcome::Done)
}

fn show(protocol: &Protocol, json: bool) -> Result<Outcome> {
    let mut splits = Vec::new();
    for manifest in protocol.manifests()? {
        splits.push((
            manifest.split.clone(),
            manifest.pairs.len(),
            manifest.hard_share(),
            manifest.solved_at_start(),
            protocol.hash(&manifest)?,
        ));
    }
    if json {
        let facts = splits.iter().map(|(split, pairs, hard, solved, hash)| {
            json!({
                "split": split, "pairs": pairs, "hard": hard, "solved_at_start": solved, "hash": hash,
            })
        });
        print_json(&json!({ "protocol": protocol, "splits": facts.collect::<Vec<_>>() }))?;
        return Ok(Outcome::Done);
    }
    print(format!("{} on {}", protocol.name, protocol.environment))?;
    print(format!("goal {} env steps ahead, budget {} env steps", protocol.goal_offset, protocol.budget))?;
    print(format!("success: {}", rule(protocol)?))?;
    for (shift, factors) in &protocol.shifts {
        print(format!("other {shift}: {} sampled for each pair", factors.join(", ")))?;
    }
    if let Some(rule) = protocol.selection {
        print(format!("draws {} pairs from a data set with NumPy's seed {}", rule.episodes, rule.seed))?;
    }
    let hard = protocol.env()?.spec().hard;
    for (split, pairs, share, solved, hash) in splits {
        let share = 100.0 * share;
        print(format!(
            "{split}: {pairs} pairs, {} {share:.1} %, {solved} solved at the start, hash {hash}",
            hard.name
        ))?;
    }
    if !protocol.notes.is_empty() {
        print(protocol.notes.trim())?;
    }
    Ok(Outcome::Done)
}

/// The success rule in words.
fn rule(protocol: &Protocol) -> Result<String> {
    let Limits { distance, angle, agent, hold, every, legal } = protocol.limits;
    let mut text = match distance {
        None => protocol.env()?.spec().success.to_string(),
        Some(px) if agent => format!("all positions together within {px} px"),
        Some(px) => format!("what is to be moved within {px} px, the agent ignored"),
    };
    if let Some(degrees) = angle {
        text += &format!(", within {degrees} degrees");
    }
    if hold > 1 {
        text += &format!(", for {hold} steps in a row");
    }
    text += &match every {
        1 => ", at any step".to_string(),
        every => format!(", at the end of every {every} steps"),
    };
    Ok(if legal { text + "; no step through anything solid" } else { text })
}

fn split_name(split: Split) -> &'static str {
    match split {
        Split::Dev => "dev",
        Split::Test => "test",
    }
}

fn make(args: &MakeArgs) -> Result<Outcome> {
    make_parent(&args.out)?;
    let protocol = Protocol::find(&args.pairs.protocol, args.pairs.environment(None)?.spec().name)?;
    let mut taken = String::new();
    let manifest = match &args.pairs.data {
        Some(path) => {
            let name = args.name.clone().unwrap_or_else(|| path.display().to_string());
            protocol.select_from(&Store::open(path)?, &name)?
        }
        None if protocol.selection.is_some() => {
            bail!("protocol {} draws its pairs from a data set; give one with --data", protocol.name)
        }
        None => {
            let config = HeldOutConfig::new(&protocol, split_name(args.pairs.split.unwrap_or(Split::Dev)));
            let (manifest, dropped) = make_manifest(&config)?;
            taken = format!(
                "starts not taken: {} not replayable, {} solved at once, {} out of view",
                dropped.not_replayable, dropped.solved_at_start, dropped.out_of_view
            );
            manifest
        }
    };
    manifest.save(&args.out)?;
    let (path, pairs, hard) = (args.out.display(), manifest.pairs.len(), protocol.env()?.spec().hard.name);
    let (share, solved) = (100.0 * manifest.hard_share(), manifest.solved_at_start());
    print(format!("{path}: {pairs} pairs, {hard} {share:.1} %, {solved} solved at the start"))?;
    if !taken.is_empty() {
        print(taken)?;
    }
    Ok(Outcome::Done)
}

/// In what a file's pairs are not those of `protocol`, and of `split` where one is asked for.
fn mismatches(protocol: &Protocol, manifest: &Manifest, split: Option<Split>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let (name, pairs) = (&protocol.name, manifest.pairs.len());
    // A manifest that the protocol names may still have to be made.
    let own = protocol.manifests().unwrap_or_default();
    if own.iter().all(|own| own.pairs != manifest.pairs) {
        for other in Protocol::names().filter(|other| other != name) {
            let Ok(other) = Protocol::find(other, &protocol.environment) else { continue };
            if let Some(same) = other.manifests()?.iter().find(|same| same.pairs == manifest.pairs) {
                found.push(format!("the pairs are those of {}/{}, not of {name}", other.name, same.split));
            }
        }
        let wanted = protocol.selection.map_or(protocol.pairs, |rule| rule.episodes);
        if pairs != wanted {
            found.push(format!("there are {pairs} pairs, and {name} has {wanted}"));
        }
    }
    if let Some(split) =
        split.map(split_name).filter(|&split| protocol.selection.is_none() && split != manifest.split)
    {
        found.push(format!("the split is `{}`, not `{split}`; see --split", manifest.split));
    }
    Ok(found)
}

fn verify(args: &VerifyArgs) -> Result<Outcome> {
    let mut wrong = Vec::new();
    let (protocol, manifest) = match &args.manifest {
        Some(path) => {
            let env = args.pairs.environment(None)?.spec().name;
            let (protocol, manifest) = (Protocol::find(&args.pairs.protocol, env)?, Manifest::load(path)?);
            protocol.check(&manifest)?;
            wrong = mismatches(&protocol, &manifest, args.pairs.split)?;
            (protocol, manifest)
        }
        None => args.pairs.resolve(None)?,
    };
    let remade = match args.remake {
        true if protocol.selection.is_some() => {
            bail!("--remake makes pairs from reserved streams; {} draws its pairs", protocol.name)
        }
        true => {
            let split = args.pairs.split.map_or(manifest.split.clone(), |split| split_name(split).into());
            let config = HeldOutConfig::new(&protocol, &split);
            Some(make_manifest(&config)?.0.pairs == manifest.pairs)
        }
        false => None,
    };
    let (hash, hard) = (protocol.hash(&manifest)?, protocol.env()?.spec().hard);
    let replay = evaluate(&protocol, &manifest, &Baseline::Replay, &EvalOptions::default())?.score.all;
    let (share, solved) = (manifest.hard_share(), manifest.solved_at_start());
    let ok =
        replay.rate >= REPLAY_SHARE && share >= hard.least_share && remade != Some(false) && wrong.is_empty();
    if args.json {
        print_json(&json!({
            "protocol": protocol.name, "split": manifest.split, "hash": hash, "pairs": manifest.pairs.len(),
            "replay": replay, "hard": share, "solved_at_start": solved, "remade_equal": remade,
            "mismatches": wrong, "ok": ok,
        }))?;
    } else {
        print(format!("{}/{}, hash {hash}", protocol.name, manifest.split))?;
        print(format!("recorded actions solve {} (at least {:.0} %)", replay.text(), 100.0 * REPLAY_SHARE))?;
        let (share, least) = (100.0 * share, 100.0 * hard.least_share);
        print(format!("{} ({}): {share:.1} % (at least {least:.0} %)", hard.name, hard.about))?;
        print(format!("solved at the start: {solved} of {}", manifest.pairs.len()))?;
        if let Some(equal) = remade {
            print(if equal { "made again: equal to the bit" } else { "made again: DIFFERENT" })?;
        }
        if let Some(path) = &args.manifest {
            wrong.iter().try_for_each(|wrong| print(format!("{}: {wrong}", path.display())))?;
        }
        print(if ok { "ok" } else { "MISS" })?;
    }
    Ok(if ok { Outcome::Done } else { Outcome::Miss })
}
