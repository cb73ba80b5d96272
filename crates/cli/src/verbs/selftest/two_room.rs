//! Two-Room episodes, expert, frames and seeding against the recorded reference.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use worldbench_env::{
    Environment, ResetOptions, Sampling, TwoRoom, Variation,
    raster::{Filter, Render, TwoRoomRenderer},
    replay::{TwoRoomConfig, TwoRoomEpisode},
    two_room::RenderState,
};

use super::{
    Item,
    environment::{Values, episodes, largest, read_json, read_png, refused, worst},
};
use crate::output::describe;

/// The reference's exponential is not always correctly rounded, so a few pixels of a dot may differ by one level.
const LEVEL_TOLERANCE: f64 = 1.0;
const SHARE_TOLERANCE: f64 = 1e-3;

/// All checks of Two-Room.
pub fn check(folder: &Path) -> Vec<Item> {
    let mut items = episodes(&folder.join("episodes"), "two_room", episode);
    items.extend(frames(&folder.join("frames")).unwrap_or_else(|e| refused("two_room frames", &e)));
    items.extend(seeds(&folder.join("seeds.json")).unwrap_or_else(|e| refused("two_room seeds", &e)));
    items
}

fn episode(path: &Path, name: &str) -> Result<Vec<Item>> {
    let deviation = TwoRoomEpisode::read(path)?.run(|_, _| ())?.max_deviation;
    let d = deviation.with_context(|| format!("{} holds no results to compare with", path.display()))?;
    // A key that the file lacks cannot be trusted to agree; only the expert is not asked everywhere.
    let of = |errors: &[Option<f64>]| worst(errors.iter().map(|e| e.unwrap_or(f64::INFINITY)));
    let item = |what: &str, error| Item::compared(format!("two_room episode {name} {what}"), error, 0.0);
    let mut items = vec![
        item("position", of(&[d.pos, d.observation])),
        item("distance", of(&[d.distance])),
        item("terminated", of(&[d.terminated])),
    ];
    items.extend(d.expert_action.map(|error| item("expert", error)));
    Ok(items)
}

/// A recorded picture.
#[derive(Deserialize)]
struct Picture {
    file: String,
    agent_pos: [f64; 2],
    target_pos: [f64; 2],
    config: TwoRoomConfig,
}

fn frames(folder: &Path) -> Result<Vec<Item>> {
    let pictures: Vec<Picture> = read_json(&folder.join("frames.json"))?;
    ensure!(!pictures.is_empty(), "{} lists no frames", folder.join("frames.json").display());
    let item = |picture: &Picture| {
        let name = format!("two_room frame {}", picture.file);
        match compare(picture, folder) {
            Ok((level, share)) => vec![
                Item::compared(name.clone(), level, LEVEL_TOLERANCE),
                Item::compared(format!("{name} share"), share, SHARE_TOLERANCE),
            ],
            Err(error) => vec![Item::missed(name, describe(&error))],
        }
    };
    Ok(pictures.iter().flat_map(item).collect())
}

/// Largest difference in grey levels, and the share of the values that differ.
fn compare(picture: &Picture, folder: &Path) -> Result<(f64, f64)> {
    let expected = read_png(&folder.join(&picture.file))?;
    let mut renderer = TwoRoomRenderer::new(&picture.config.factors()?, expected.width, Filter::Linear)?;
    let place = |p: [f64; 2]| p.map(|v| v as f32);
    let state = RenderState { agent: place(picture.agent_pos), target: place(picture.target_pos) };
    let drawn = renderer.view(&state);
    ensure!(drawn.len() == expected.data.len(), "{} is not square", picture.file);
    let errors: Vec<u8> = drawn.iter().zip(&expected.data).map(|(a, b)| a.abs_diff(*b)).collect();
    let wrong = errors.iter().filter(|error| **error > 0).count();
    Ok((errors.iter().max().copied().unwrap_or(0).into(), wrong as f64 / errors.len() as f64))
}

#[derive(Deserialize)]
struct Seeds {
    default: Vec<Seed>,
    all: Vec<Seed>,
}

/// What the reference drew from a seed, or that it refused to.
#[derive(Deserialize)]
struct Seed {
    seed: u64,
    error: Option<serde::de::IgnoredAny>,
    agent: Option<[f64; 2]>,
    target: Option<[f64; 2]>,
    obs: Option<Vec<f64>>,
    #[serde(default)]
    values: BTreeMap<String, Values>,
}

fn seeds(path: &Path) -> Result<Vec<Item>> {
    let file: Seeds = read_json(path)?;
    ensure!(!file.default.is_empty() && !file.all.is_empty(), "{} lists no seeds", path.display());
    let of = |entries: &[Seed], sampling: &Sampling, what: &str| {
        let item = |entry: &Seed| {
            let error = drawn(entry, sampling)?;
            Ok(Item::compared(format!("two_room seed {} {what}", entry.seed), error, 0.0))
        };
        entries.iter().map(item).collect::<Result<Vec<_>>>()
    };
    let mut items = of(&file.default, &Sampling::default(), "default")?;
    items.extend(of(&file.all, &Sampling::all(), "all factors")?);
    Ok(items)
}

/// The largest error of what a seed gives; infinite where only one side refuses it.
fn drawn(entry: &Seed, sampling: &Sampling) -> Result<f64> {
    let mut env = TwoRoom::build(&Default::default());
    let options = ResetOptions { sampling: sampling.clone(), ..ResetOptions::default() };
    let state = match (env.reset(entry.seed, &options), &entry.error) {
        (Ok(state), None) => state,
        (Err(_), Some(_)) => return Ok(0.0),
        _ => return Ok(f64::INFINITY),
    };
    let known = |found: &[f64], expected: Option<&[f64]>| expected.map_or(0.0, |e| largest(found, e));
    let mut error = worst([
        known(&state, entry.agent.as_ref().map(<[f64; 2]>::as_slice)),
        known(&env.goal_state(), entry.target.as_ref().map(<[f64; 2]>::as_slice)),
        known(&env.observation(), entry.obs.as_deref()),
    ]);
    for (name, values) in &entry.values {
        let index = <TwoRoom as Environment>::Factors::index_of(name)?;
        error = worst([error, largest(&env.factors().get(index), values.as_slice())]);
    }
    Ok(error)
}
