//! Push-T episodes, geometry, frames and seeding against the recorded reference, and what its checks share with those
//! of Two-Room.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use serde::{Deserialize, de::DeserializeOwned};
use worldbench_core::Frame;
use worldbench_env::{
    Factors, Geometry, PushT, PushTConfig, RenderState, ResetOptions, Sampling, Shape, Variation,
    raster::{Filter, Render, Renderer},
    replay::{Episode, Setup},
};

use super::{Item, two_room};
use crate::output::describe;

/// Polygon agents touch the block with edges, where the reference's own contact order shows in the last digits.
const POLYGON_TOLERANCE: f64 = 1e-6;
const REWARD_TOLERANCE: f64 = 1e-12;

/// All checks that need no model.
pub fn check(root: &Path) -> Vec<Item> {
    let folder = root.join("env/pusht");
    let mut items = episodes(&folder.join("episodes"), "push_t", episode);
    items.extend(frames(&folder.join("frames")).unwrap_or_else(|e| refused("push_t frames", &e)));
    items.extend(seeds(&folder.join("seeds.json")).unwrap_or_else(|e| refused("push_t seeds", &e)));
    items.extend(two_room::check(&root.join("env/tworoom")));
    items
}

/// The one item of a check that could not be made.
pub fn refused(item: &str, error: &anyhow::Error) -> Vec<Item> {
    vec![Item::missed(item, describe(error))]
}

/// Reads and parses a JSON file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not what it should be", path.display()))
}

/// Largest absolute difference; infinite when the lengths differ, NaN stays NaN.
pub fn largest(found: &[f64], expected: &[f64]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    worst(found.iter().zip(expected).map(|(a, b)| (a - b).abs()))
}

/// A maximum that a NaN cannot hide from.
pub fn worst(errors: impl IntoIterator<Item = f64>) -> f64 {
    errors.into_iter().fold(0.0, |a: f64, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) })
}

/// Runs `check` on every episode file of an environment.
pub fn episodes(
    folder: &Path,
    env: &str,
    check: impl Fn(&Path, &str) -> Result<Vec<Item>> + Sync,
) -> Vec<Item> {
    let listed = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()));
    let mut files: Vec<PathBuf> = match listed {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) => return refused(&format!("{env} episodes"), &error),
    };
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    if files.is_empty() {
        return vec![Item::missed(
            format!("{env} episodes"),
            format!("{} holds no *.json", folder.display()),
        )];
    }
    let one = |path: &PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        check(path, &name).unwrap_or_else(|e| refused(&format!("{env} episode {name}"), &e))
    };
    files.par_iter().flat_map_iter(one).collect()
}

#[derive(Deserialize)]
struct WithDerived {
    derived: Option<Derived>,
}

/// What the reference computes from a shape and a scale.
#[derive(Deserialize)]
struct Derived {
    block_cog: [f64; 2],
    block_moment: f64,
    block_parts: Vec<[[f64; 2]; 4]>,
    agent_radius: Vec<f64>,
}

fn episode(path: &Path, name: &str) -> Result<Vec<Item>> {
    let episode = Episode::read(path)?;
    let deviation = episode.run(|_, _| ())?.max_deviation;
    let d = deviation.with_context(|| format!("{} holds no results to compare with", path.display()))?;
    // A key that the file lacks cannot be trusted to agree.
    let of = |errors: &[Option<f64>]| worst(errors.iter().map(|e| e.unwrap_or(f64::INFINITY)));
    let bound = if episode.setup.agent_shape == Shape::Circle { 0.0 } else { POLYGON_TOLERANCE };
    let item =
        |what: &str, error, bound| Item::compared(format!("push_t episode {name} {what}"), error, bound);
    let mut items = vec![
        item("state", of(&[d.state, d.block_angle_raw, d.block_velocity]), bound),
        item("contacts", of(&[d.contact_points, d.n_contacts, d.terminated]), 0.0),
        item("reward", of(&[d.reward]), REWARD_TOLERANCE),
    ];
    if let WithDerived { derived: Some(derived) } = read_json(path)? {
        items.push(item("geometry", geometry(&episode.setup, &derived), 0.0));
    }
    Ok(items)
}

fn geometry(setup: &Setup, derived: &Derived) -> f64 {
    let block = Geometry::new(setup.block_shape, setup.block_scale);
    let agent = Geometry::new(setup.agent_shape, setup.agent_scale);
    worst([
        largest(&block.cog, &derived.block_cog),
        largest(&[block.moment], &[derived.block_moment]),
        largest(
            block.parts().as_flattened().as_flattened(),
            derived.block_parts.as_flattened().as_flattened(),
        ),
        worst(derived.agent_radius.iter().map(|r| (r - agent.radius).abs())),
    ])
}

/// A recorded picture: the block's origin and unrounded marks, beside the scene.
#[derive(Deserialize)]
struct Picture {
    file: String,
    canvas: String,
    resolution: usize,
    setup: Setup,
    colors: Colors,
    goal_pose: [f64; 3],
    render_goal: bool,
    agent_pos: [f64; 2],
    block_pos: [f64; 2],
    block_angle: f64,
    contact_marks: Vec<[[f64; 2]; 2]>,
}

#[derive(Deserialize)]
struct Colors {
    agent: [u8; 3],
    block: [u8; 3],
    goal: [u8; 3],
    background: [u8; 3],
}

impl Picture {
    fn factors(&self) -> Factors {
        Factors {
            agent_shape: self.setup.agent_shape,
            agent_scale: self.setup.agent_scale,
            agent_color: self.colors.agent,
            block_shape: self.setup.block_shape,
            block_scale: self.setup.block_scale,
            block_color: self.colors.block,
            background_color: self.colors.background,
            goal_color: self.colors.goal,
            goal_position: [self.goal_pose[0], self.goal_pose[1]],
            goal_angle: self.goal_pose[2],
            render_goal: self.render_goal,
            ..Factors::default()
        }
    }

    fn state(&self) -> RenderState {
        let cog = Geometry::new(self.setup.block_shape, self.setup.block_scale).cog;
        let (sin, cos) = self.block_angle.sin_cos();
        let [x, y] = self.block_pos;
        RenderState {
            agent: self.agent_pos,
            agent_angle: self.setup.agent_angle,
            block_cog: [cos * cog[0] - sin * cog[1] + x, sin * cog[0] + cos * cog[1] + y],
            block_angle: self.block_angle,
            marks: self
                .contact_marks
                .iter()
                .map(|[a, b]| [a[0], a[1], b[0], b[1]].map(|v| v.round_ties_even() as i16))
                .collect(),
        }
    }
}

fn frames(folder: &Path) -> Result<Vec<Item>> {
    let pictures: Vec<Picture> = read_json(&folder.join("frames.json"))?;
    ensure!(!pictures.is_empty(), "{} lists no frames", folder.join("frames.json").display());
    let mut items = Vec::new();
    for picture in &pictures {
        let compare = |file: &str, draw: &dyn Fn(&mut Renderer) -> Frame| -> Result<f64> {
            let mut renderer = Renderer::new(&picture.factors(), picture.resolution, Filter::Linear)?;
            Ok(difference(&draw(&mut renderer), &read_png(&folder.join(file))?))
        };
        let drawn: [(&str, Result<f64>); 2] = [
            (&picture.canvas, compare(&picture.canvas, &|r| r.canvas(&picture.state()))),
            (&picture.file, compare(&picture.file, &|r| r.frame(&picture.state()))),
        ];
        for (file, error) in drawn {
            let name = format!("push_t frame {file}");
            items.push(match error {
                Ok(error) => Item::compared(name, error, 0.0),
                Err(error) => Item::missed(name, describe(&error)),
            });
        }
    }
    Ok(items)
}

/// An RGB image file.
pub fn read_png(path: &Path) -> Result<Frame> {
    let image = image::open(path).with_context(|| format!("cannot read {}", path.display()))?.into_rgb8();
    Ok(Frame { width: image.width() as usize, height: image.height() as usize, data: image.into_raw() })
}

/// Largest difference of two pixels' channels.
fn difference(a: &Frame, b: &Frame) -> f64 {
    if (a.width, a.height) != (b.width, b.height) {
        return f64::INFINITY;
    }
    f64::from(a.data.iter().zip(&b.data).map(|(x, y)| x.abs_diff(*y)).max().unwrap_or(0))
}

#[derive(Deserialize)]
struct Seeds {
    default: Vec<DefaultSeed>,
    all: Vec<AllSeed>,
}

#[derive(Deserialize)]
struct DefaultSeed {
    seed: u64,
    agent_start: [f64; 2],
    block_start: [f64; 2],
    block_angle: f64,
    goal_state: [f64; 7],
    obs: [f64; 7],
}

#[derive(Deserialize)]
struct AllSeed {
    seed: u64,
    values: std::collections::BTreeMap<String, Values>,
    goal_state: [f64; 7],
    obs: [f64; 7],
}

/// Factors of one value may be written without a list.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Values {
    One(f64),
    Many(Vec<f64>),
}

impl Values {
    pub fn as_slice(&self) -> &[f64] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

fn seeds(path: &Path) -> Result<Vec<Item>> {
    let file: Seeds = read_json(path)?;
    ensure!(!file.default.is_empty() && !file.all.is_empty(), "{} lists no seeds", path.display());
    let mut items = Vec::new();
    for entry in &file.default {
        let (env, error) = reset(entry.seed, Sampling::default(), &entry.goal_state, &entry.obs)?;
        let f = env.factors();
        let error = worst([
            error,
            largest(&f.agent_start, &entry.agent_start),
            largest(&f.block_start, &entry.block_start),
            largest(&[f.block_angle], &[entry.block_angle]),
        ]);
        items.push(Item::compared(format!("push_t seed {} default", entry.seed), error, 0.0));
    }
    for entry in &file.all {
        let (env, mut error) = reset(entry.seed, Sampling::all(), &entry.goal_state, &entry.obs)?;
        for (name, values) in &entry.values {
            let found = env.factors().get(Factors::index_of(name)?);
            error = worst([error, largest(&found, values.as_slice())]);
        }
        items.push(Item::compared(format!("push_t seed {} all factors", entry.seed), error, 0.0));
    }
    Ok(items)
}

/// A reset environment and the error of its goal and first observation.
fn reset(seed: u64, sampling: Sampling, goal: &[f64; 7], observation: &[f64; 7]) -> Result<(PushT, f64)> {
    let mut env = PushT::new(&Factors::default(), PushTConfig::default());
    let observed = env.reset(seed, &ResetOptions { sampling, ..ResetOptions::default() })?;
    let error = worst([largest(&observed, observation), largest(&env.goal_state(), goal)]);
    Ok((env, error))
}
