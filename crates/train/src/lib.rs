//! Trainer, checkpoints and logs.
//!
//! [`Trainer`] runs any [`Learner`]: the learner turns a batch into losses and a flat gradient, the trainer does the
//! rest (order of the data, clipping, AdamW, schedule, validation, logs, checkpoints). A run is a function of its
//! configuration and its data alone; killed and resumed, it ends with the same bits.

pub mod checkpoint;
pub mod compact;
pub mod config;
pub mod dino_wm;
pub mod frozen;
pub mod full;
pub mod goal;
pub mod import;
pub mod log;
mod named;
pub mod pretrain;
pub mod resume;
pub mod scenes;
mod shards;
pub mod trainer;

pub use compact::CompactLearner;
pub use config::{MOST_THREADS, Method, ModelConfig, TrainConfig};
pub use dino_wm::{DinoWmLearner, DinoWmTraining};
pub use full::{FullConfig, FullLearner};
pub use goal::{GoalLearner, GoalTraining};
pub use pretrain::MaeLearner;
pub use trainer::{Progress, Trainer};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use worldbench_data::{Split, Store};
use worldbench_env::{DomainRef, domain};
use worldbench_kernels::gemm::Precision;
use worldbench_models::losses::Terms;
use worldbench_models::planning::RolloutOptions;
use worldbench_plan::{GoalPolicy, LatentModel};

/// Why training failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting that makes no sense.
    #[error("training: {0}")]
    Config(String),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A checkpoint that does not load.
    #[error("checkpoint {}: {problem}", path.display())]
    Checkpoint {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The data set.
    #[error(transparent)]
    Data(#[from] worldbench_data::DataError),
    /// The frozen encoder.
    #[error(transparent)]
    Encoder(#[from] worldbench_models::encoders::Error),
    /// Networks, devices and parameters.
    #[error(transparent)]
    Nn(#[from] worldbench_nn::Error),
    /// The loss is not finite.
    #[error(
        "step {step}: the loss is not finite; lower `learning_rate` or the loss's weights under `model`, or look at the data"
    )]
    Diverged {
        /// Optimiser step.
        step: u64,
    },
}

impl TrainError {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// Named loss terms and telemetry of one step, in a fixed order.
pub type Metrics = Vec<(&'static str, f32)>;

/// The numbers of loss terms.
fn metrics(terms: &Terms) -> Result<Metrics, TrainError> {
    Ok(terms.metrics()?.into_iter().map(|(name, value)| (name, value as f32)).collect())
}

/// A span of the parameters that an optimiser step moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The span; its gradient is clipped by its own norm.
    pub span: std::ops::Range<usize>,
    /// Optimiser step at which its training began: schedule and moments count from there.
    pub begun: u64,
    /// Optimiser steps that its training takes.
    pub steps: u64,
}

/// A model in training, seen as one flat parameter vector.
pub trait Learner {
    /// The parameters.
    fn params(&self) -> &[f32];

    /// The parameters, for the optimiser.
    fn params_mut(&mut self) -> &mut [f32];

    /// Losses of `batch` and their gradient (overwrites `grads`). `step` keys everything random. The first metric
    /// is the loss.
    ///
    /// # Errors
    /// When the batch does not fit the model.
    fn step(
        &mut self,
        batch: &worldbench_data::Batch,
        step: u64,
        grads: &mut [f32],
    ) -> Result<Metrics, TrainError>;

    /// Losses of a held-out batch; changes nothing.
    ///
    /// # Errors
    /// As [`Learner::step`].
    fn validate(&self, batch: &worldbench_data::Batch) -> Result<Metrics, TrainError>;

    /// The spans that optimiser step `step` of a run of `steps` moves, which do not overlap: by default everything at once.
    fn groups(&self, step: u64, steps: u64) -> Vec<Group> {
        let _ = step;
        vec![Group { span: 0..self.params().len(), begun: 0, steps }]
    }

    /// Called when optimiser step `step` has moved the parameters.
    fn moved(&mut self, step: u64) {
        let _ = step;
    }

    /// Whether the tensor `key` belongs to the checkpoint that evaluation reads.
    fn exported(&self, key: &str) -> bool {
        let _ = key;
        true
    }

    /// All tensors with their checkpoint keys, buffers included.
    fn tensors(&self) -> Vec<checkpoint::Tensor<'_>>;

    /// Takes tensors read from a checkpoint.
    ///
    /// # Errors
    /// Names missing, unexpected and misshapen keys.
    fn restore(&mut self, tensors: checkpoint::Tensors) -> Result<String, TrainError>;

    /// What the model needs besides weights, as TOML: goes into the checkpoint's `config.toml`.
    fn config(&self) -> toml::Table;
}

/// A fresh learner of the configured method and size.
///
/// # Errors
/// When the configuration makes no sense or the data are too few.
pub fn learner(
    config: &TrainConfig,
    store: &Arc<Store>,
    split: &Split,
) -> Result<Box<dyn Learner>, TrainError> {
    learner_with(config, store, split, &mut |_, _| ())
}

/// As [`learner`], telling of the frames that a frozen encoder encodes first, which can take minutes.
///
/// # Errors
/// As [`learner`].
pub fn learner_with(
    config: &TrainConfig,
    store: &Arc<Store>,
    split: &Split,
    progress: frozen::Encoding,
) -> Result<Box<dyn Learner>, TrainError> {
    match &config.model {
        ModelConfig::Compact(_) => Ok(Box::new(CompactLearner::new(config, store, split)?)),
        ModelConfig::Full(full) => Ok(Box::new(FullLearner::new(config, full, store, split)?)),
        ModelConfig::DinoWm(model) => {
            Ok(Box::new(DinoWmLearner::new(config, model, store, split, progress)?))
        }
        ModelConfig::GoalPolicy(model) => {
            Ok(Box::new(GoalLearner::new(config, model, store, split, progress)?))
        }
        ModelConfig::Mae(mae) => Ok(Box::new(MaeLearner::new(config, mae)?)),
    }
}

/// Key of a checkpoint's `config.toml` that names the environment of its data.
const ENVIRONMENT: &str = "environment";

/// Names the environment in a checkpoint's configuration, unless it is the one of files that name none.
fn name_environment(mut config: toml::Table, env: DomainRef) -> toml::Table {
    if env != domain::all()[0] {
        config.insert(ENVIRONMENT.into(), env.spec().name.into());
    }
    config
}

/// What a method keeps in `config.toml`: everything but the environment.
fn saved<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, toml::de::Error> {
    let mut table: toml::Table = text.parse()?;
    table.remove(ENVIRONMENT);
    table.try_into()
}

/// Path and text of the `config.toml` in the checkpoint `directory`, and the table that it is.
fn read_config(directory: &Path) -> Result<(PathBuf, String, toml::Table), TrainError> {
    let path = directory.join("config.toml");
    let text = std::fs::read_to_string(&path).map_err(TrainError::io(&path))?;
    match text.parse() {
        Ok(table) => Ok((path, text, table)),
        Err(e) => {
            let e: toml::de::Error = e;
            let problem = format!("{}; it is not the config.toml of a checkpoint", e.message());
            Err(TrainError::Checkpoint { path, problem })
        }
    }
}

/// The text under `key`; empty where there is none.
fn word<'a>(table: &'a toml::Table, key: &str) -> &'a str {
    table.get(key).and_then(toml::Value::as_str).unwrap_or_default()
}

fn environment(table: &toml::Table) -> String {
    match word(table, ENVIRONMENT) {
        "" => domain::all()[0].spec().name.into(),
        name => name.into(),
    }
}

/// Name of the environment that the checkpoint in `directory` was trained on.
///
/// # Errors
/// When there is no checkpoint.
pub fn environment_of(directory: &Path) -> Result<String, TrainError> {
    Ok(environment(&read_config(directory)?.2))
}

/// What a checkpoint holds.
pub enum Model {
    /// A world model, to be planned with.
    World(Arc<dyn LatentModel>),
    /// A policy, which acts by itself.
    Policy(Arc<dyn GoalPolicy>),
}

/// A checkpoint ready for use.
pub struct Loaded {
    /// The model.
    pub model: Model,
    /// Name of the environment that it was trained on.
    pub environment: String,
    /// Its method.
    pub method: Method,
    /// `compact`, `full`, `dino-wm` or `goal-policy`.
    pub architecture: String,
    /// What a row is to say beside the method's name, e.g. a behaviour term that was added; often nothing.
    pub label: String,
    /// What was found, e.g. `303/303 tensors`.
    pub report: String,
}

impl Loaded {
    /// The world model.
    ///
    /// # Errors
    /// When the checkpoint in `directory` holds a policy.
    pub fn world(self, directory: &Path) -> Result<Arc<dyn LatentModel>, TrainError> {
        match self.model {
            Model::World(model) => Ok(model),
            Model::Policy(_) => {
                let problem = format!("{} is a policy and no world model; use `eval`", self.method.name());
                Err(TrainError::Checkpoint { path: directory.into(), problem })
            }
        }
    }

    /// The policy.
    ///
    /// # Errors
    /// When the checkpoint in `directory` holds a world model.
    pub fn policy(self, directory: &Path) -> Result<Arc<dyn GoalPolicy>, TrainError> {
        match self.model {
            Model::Policy(policy) => Ok(policy),
            Model::World(_) => {
                let problem = format!("{} is a world model and no policy", self.method.name());
                Err(TrainError::Checkpoint { path: directory.into(), problem })
            }
        }
    }
}

/// Loads a checkpoint directory of any architecture.
///
/// # Errors
/// Names the file and the key that is wrong.
pub fn load(directory: &Path) -> Result<Loaded, TrainError> {
    load_with(directory, RolloutOptions::default())
}

/// Checks whether a model of `architecture` computes in `precision`.
///
/// # Errors
/// When it does in f32 only.
pub fn check_precision(architecture: &str, precision: Precision) -> Result<(), TrainError> {
    if precision == Precision::F32 || !["compact", "goal-policy"].contains(&architecture) {
        return Ok(());
    }
    let problem =
        format!("a model of architecture {architecture} computes in f32 only; leave the precision out");
    Err(TrainError::Config(problem))
}

/// The networks of the checkpoint in `directory`.
///
/// # Errors
/// When there is no checkpoint, or its configuration does not describe a model.
pub fn networks(directory: &Path) -> Result<ModelConfig, TrainError> {
    let (path, _, mut table) = read_config(directory)?;
    let wrong = |problem: String| TrainError::Checkpoint { path: path.clone(), problem };
    let Some(toml::Value::Table(mut model)) = table.remove("model") else {
        return Err(wrong("there is no table [model]; it is not the config.toml of a checkpoint".into()));
    };
    model.extend(table.remove_entry("architecture"));
    model.try_into().map_err(|e: toml::de::Error| wrong(e.message().into()))
}

/// What is wrong with the statistics in a checkpoint's configuration, which are its lists of numbers.
fn bad_statistics(table: &toml::Table) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let bad = |value: &toml::Value| {
            value.as_float().is_some_and(|v| !v.is_finite() || key.ends_with("std") && v <= 0.0)
        };
        match value {
            toml::Value::Table(inner) => bad_statistics(inner),
            toml::Value::Array(values) => values.iter().find(|value| bad(value)).map(|value| {
                format!("`{key}` holds {value}; the file was changed: export or train the checkpoint again")
            }),
            _ => None,
        }
    })
}

/// As [`load`], with a choice of how rollouts are computed.
///
/// # Errors
/// As [`load`]; a compact model and a policy have no bf16.
pub fn load_with(directory: &Path, options: RolloutOptions) -> Result<Loaded, TrainError> {
    let (path, _, table) = read_config(directory)?;
    if let Some(problem) = bad_statistics(&table) {
        return Err(TrainError::Checkpoint { path, problem });
    }
    let (architecture, environment) = (word(&table, "architecture").to_string(), environment(&table));
    check_precision(&architecture, options.precision)?;
    let mut label = String::new();
    let (model, method, report) = match architecture.as_str() {
        "compact" => compact::load(directory)
            .map(|(model, method, report)| (Model::World(Arc::new(model)), method, report))?,
        "full" => full::load(directory, options)
            .map(|(model, method, report)| (Model::World(model), method, report))?,
        "dino-wm" => dino_wm::load(directory, options)
            .map(|(model, method, report)| (Model::World(model), method, report))?,
        "goal-policy" => {
            let (policy, method, found, report) = goal::load(directory)?;
            label = found;
            (Model::Policy(Arc::new(policy)), method, report)
        }
        other => {
            let known = "compact, full, dino-wm, goal-policy";
            let problem = format!("architecture `{other}` is not known; known: {known}");
            return Err(TrainError::Checkpoint { path, problem });
        }
    };
    method.check(&architecture).map_err(|problem| TrainError::Checkpoint { path, problem })?;
    Ok(Loaded { model, environment, method, architecture, label, report })
}
