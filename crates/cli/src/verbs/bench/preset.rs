//! Benchmark presets: which models are trained and scored, and how.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use worldbench_eval::protocol::Split;
use worldbench_kernels::gemm::Precision;
use worldbench_models::planning::RolloutOptions;

use crate::config::{BENCH, preset_text};
use crate::learned::{self, Use};

/// A benchmark.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Environment.
    #[serde(default = "push_t")]
    pub env: String,
    pub split: String,
    pub episodes: usize,
    pub seed: u64,
    pub references: Vec<String>,
    /// Preset of `collect`.
    pub collect: String,
    pub models: Vec<Model>,
    /// Presets of other environments that are run after this one.
    #[serde(default)]
    pub include: Vec<String>,
}

fn push_t() -> String {
    "push_t".into()
}

/// One trained model and how it is scored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Preset of `train`.
    pub train: String,
    #[serde(default)]
    pub set: Vec<String>,
    /// Training seeds, each a model of its own; none for the seed of the training preset.
    #[serde(default)]
    pub seeds: Vec<u64>,
    /// What its directories are called after the preset: empty, or `-seed1`.
    #[serde(skip)]
    pub suffix: String,
    /// Planners of a world model; a policy has none and makes one row.
    #[serde(default)]
    pub planners: Vec<String>,
    /// An earlier model of the list, compact PLDM or LeWM, whose encoder a policy sees with.
    #[serde(default)]
    pub encoder: Option<String>,
    /// Trained for its encoder only: the row was not asked for.
    #[serde(skip)]
    pub unscored: bool,
    #[serde(default)]
    pub solver_set: Vec<String>,
    /// Precision of rollouts, `f32` or `bf16`; named in the row.
    #[serde(default, with = "precision")]
    pub precision: Precision,
}

impl Model {
    /// One model for each of its seeds.
    fn per_seed(self) -> Vec<Self> {
        if self.seeds.is_empty() {
            return vec![self];
        }
        let model = |&seed: &u64| {
            let mut model = self.clone();
            model.set.push(format!("seed={seed}"));
            // The first seed, usually 0, keeps the plain name.
            if Some(&seed) != self.seeds.first() {
                model.suffix = format!("-seed{seed}");
            }
            model
        };
        self.seeds.iter().map(model).collect()
    }

    /// Name of its directories.
    pub fn name(&self) -> String {
        format!("{}{}", self.train, self.suffix)
    }

    /// The planners of its rows; one row without a planner for a policy.
    pub fn uses(&self) -> Vec<Option<&str>> {
        match &self.planners[..] {
            _ if self.unscored => vec![],
            [] => vec![None],
            planners => planners.iter().map(|planner| Some(planner.as_str())).collect(),
        }
    }

    /// How it is used with `planner`.
    pub fn used<'a>(&'a self, planner: Option<&'a str>) -> Use<'a> {
        let rollouts = RolloutOptions { precision: self.precision, memory: None };
        Use { planner, sets: &self.solver_set, rollouts }
    }

    /// Name of the row with `planner`.
    pub fn row_name(&self, planner: Option<&str>) -> String {
        let planner = planner.map(|planner| learned::file_label(planner, self.precision));
        std::iter::once(self.name()).chain(planner).collect::<Vec<_>>().join("-")
    }
}

/// A precision by its name.
mod precision {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use worldbench_kernels::gemm::Precision;

    pub fn serialize<S: Serializer>(precision: &Precision, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(precision.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Precision, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

pub fn split(name: &str) -> Result<Split> {
    match name {
        "dev" => Ok(Split::Dev),
        "test" => Ok(Split::Test),
        other => bail!("split = \"{other}\" is not known; use \"dev\" or \"test\""),
    }
}

fn read(name: &str) -> Result<Preset> {
    let (_, text) = preset_text(BENCH, name)?;
    toml::from_str(&text).with_context(|| format!("bench preset {name}"))
}

/// The preset, then those that it includes, which take over its split, number of episodes and seed.
pub fn read_with_included(name: &str, split: Option<&str>) -> Result<Vec<Preset>> {
    let mut first = read(name)?;
    if let Some(split) = split {
        first.split = split.into();
    }
    let mut presets = Vec::new();
    for other in &first.include {
        let Preset { env, references, collect, models, .. } = read(other)?;
        presets.push(Preset { env, references, collect, models, include: Vec::new(), ..first.clone() });
    }
    presets.insert(0, first);
    for preset in &mut presets {
        preset.models = std::mem::take(&mut preset.models).into_iter().flat_map(Model::per_seed).collect();
    }
    Ok(presets)
}

/// Whether `name` is the model's preset, its beginning (such as the method `iq-learn`) or a part of its name.
fn answers_to(model: &Model, name: &str) -> bool {
    let rest = model.train.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        || model.train.split('-').any(|part| part == name)
}

/// Keeps the environments and models that `only` names.
pub fn choose(mut presets: Vec<Preset>, only: &[String]) -> Result<Vec<Preset>> {
    let is_env = |name: &str, preset: &Preset| name.replace('-', "_") == preset.env;
    let named_env = |name: &String| presets.iter().any(|preset| is_env(name, preset));
    let (envs, methods): (Vec<&String>, Vec<&String>) = only.iter().partition(|name| named_env(name));
    for method in &methods {
        if !presets.iter().flat_map(|preset| &preset.models).any(|model| answers_to(model, method)) {
            let models = presets.iter().flat_map(|preset| preset.models.iter().map(|m| m.train.as_str()));
            let known: Vec<&str> = models.chain(presets.iter().map(|preset| preset.env.as_str())).collect();
            bail!("--only {method}: no such method or environment here; known are {}", known.join(", "));
        }
    }
    if !envs.is_empty() {
        presets.retain(|preset| envs.iter().any(|name| is_env(name, preset)));
    }
    if !methods.is_empty() {
        let named = |model: &Model| methods.iter().any(|name| answers_to(model, name));
        for preset in &mut presets {
            let chosen = preset.models.iter().filter(|model| named(model));
            let encoders: Vec<String> = chosen.filter_map(|model| model.encoder.clone()).collect();
            for model in &mut preset.models {
                model.unscored = !named(model);
            }
            preset.models.retain(|model| !model.unscored || encoders.contains(&model.name()));
        }
    }
    Ok(presets)
}
