//! Configuration from flags: defaults, then `--preset`, then `--config`, then every `--set`, in this order.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use serde::{Serialize, de::DeserializeOwned};
use worldbench_core::config::{Layers, nearest};
use worldbench_env::{DomainRef, Spec, domain, environment};
use worldbench_plan::SolverConfig;

/// Compiled-in presets of one kind of configuration: (name, TOML).
pub type Presets = &'static [(&'static str, &'static str)];

/// Presets of `collect`.
pub const COLLECT: Presets = &[
    ("smoke", include_str!("../../../configs/collect/smoke.toml")),
    ("quick", include_str!("../../../configs/collect/quick.toml")),
    ("two-room", include_str!("../../../configs/collect/two-room.toml")),
    ("two-room-smoke", include_str!("../../../configs/collect/two-room-smoke.toml")),
];

/// Presets of `train`.
pub const TRAIN: Presets = &[
    ("pldm-compact", include_str!("../../../configs/train/pldm-compact.toml")),
    ("lewm-compact", include_str!("../../../configs/train/lewm-compact.toml")),
    ("pldm-full", include_str!("../../../configs/train/pldm-full.toml")),
    ("lewm-full", include_str!("../../../configs/train/lewm-full.toml")),
    ("dino-wm-compact", include_str!("../../../configs/train/dino-wm-compact.toml")),
    ("dino-wm-full", include_str!("../../../configs/train/dino-wm-full.toml")),
    ("gcbc-compact", include_str!("../../../configs/train/gcbc-compact.toml")),
    ("gcbc-trained-compact", include_str!("../../../configs/train/gcbc-trained-compact.toml")),
    ("gcbc-full", include_str!("../../../configs/train/gcbc-full.toml")),
    ("iq-learn-compact", include_str!("../../../configs/train/iq-learn-compact.toml")),
    ("iq-learn-bc-compact", include_str!("../../../configs/train/iq-learn-bc-compact.toml")),
    ("iq-learn-full", include_str!("../../../configs/train/iq-learn-full.toml")),
    ("gciql-compact", include_str!("../../../configs/train/gciql-compact.toml")),
    ("gciql-full", include_str!("../../../configs/train/gciql-full.toml")),
    ("gcivl-compact", include_str!("../../../configs/train/gcivl-compact.toml")),
    ("gcivl-full", include_str!("../../../configs/train/gcivl-full.toml")),
];

/// Presets of `pretrain`.
pub const PRETRAIN: Presets = &[
    ("push_t", include_str!("../../../configs/pretrain/push_t.toml")),
    ("push_t-fine", include_str!("../../../configs/pretrain/push_t-fine.toml")),
];

/// Presets of planners.
pub const PLAN: Presets = &[
    ("cem", include_str!("../../../configs/plan/cem.toml")),
    ("mppi", include_str!("../../../configs/plan/mppi.toml")),
    ("gradient", include_str!("../../../configs/plan/gradient.toml")),
];

/// Presets of `bench`.
pub const BENCH: Presets = &[
    ("smoke", include_str!("../../../configs/bench/smoke.toml")),
    ("quick", include_str!("../../../configs/bench/quick.toml")),
    ("standard", include_str!("../../../configs/bench/standard.toml")),
    ("two-room", include_str!("../../../configs/bench/two-room.toml")),
];

/// Flags that every configurable verb shares.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConfigArgs {
    /// Compiled-in preset, or the path of a TOML file
    #[arg(long, value_name = "NAME|PATH")]
    pub preset: Option<String>,
    /// TOML file laid over the preset
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One value laid over everything else, e.g. --set sources=200; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl ConfigArgs {
    /// All layers over the defaults of `T`.
    pub fn layers<T: Serialize + Default>(&self, presets: Presets) -> Result<Layers> {
        self.layers_over(&T::default(), presets)
    }

    /// All layers over a planner's defaults; `--set kind=NAME` chooses the planner.
    pub fn solver_layers(&self) -> Result<Layers> {
        let mut kinds = self.set.iter().filter_map(|assignment| assignment.strip_prefix("kind="));
        let base: SolverConfig = match kinds.next_back() {
            Some(kind) => serde_json::from_value(serde_json::json!({ "kind": kind.trim_matches('"') }))
                .with_context(|| format!("--set kind={kind}"))?,
            None => SolverConfig::default(),
        };
        self.layers_over(&base, &[])
    }

    fn layers_over<T: Serialize>(&self, base: &T, presets: Presets) -> Result<Layers> {
        let mut layers = Layers::new(base)?;
        if let Some(name) = &self.preset {
            layers = match presets.iter().find(|(known, _)| known == name) {
                _ if std::path::Path::new(name).is_file() => layers.file(name.as_ref())?,
                Some((known, text)) => layers.text(&format!("preset {known}"), text)?,
                None => return Err(unknown("preset", name, presets.iter().map(|(known, _)| *known))),
            };
        }
        if let Some(path) = &self.config {
            layers = layers.file(path)?;
        }
        self.set.iter().try_fold(layers, |layers, assignment| Ok(layers.set(assignment)?))
    }

    /// The resolved configuration.
    pub fn resolve<T: Serialize + DeserializeOwned + Default>(&self, presets: Presets) -> Result<T> {
        Ok(self.layers::<T>(presets)?.resolve()?)
    }
}

/// A number of threads from the command line; 0 stands for one per core.
pub fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 0..=1024) => Ok(count),
        _ => Err("give a number of threads up to 1024; 0 takes one per core".into()),
    }
}

/// The environment called `name` behind its name; a hyphen does for the underscore.
pub fn domain(name: &str) -> Result<DomainRef> {
    let spec = environment(name)?;
    domain::find(spec.name).with_context(|| format!("environment {name} is not a domain"))
}

/// The environment called `name`; a hyphen does for the underscore.
pub fn environment(name: &str) -> Result<Spec> {
    let known = |spec: &&Spec| spec.name == name.replace('-', "_");
    let found = environment::ALL.iter().find(known).copied();
    found.ok_or_else(|| unknown("environment", name, environment::ALL.iter().map(|spec| spec.name)))
}

/// The error for a name that nothing answers to: the nearest known one and all of them.
pub fn unknown(what: &str, name: &str, known: impl Iterator<Item = &'static str>) -> anyhow::Error {
    let known: Vec<&str> = known.collect();
    let hint = nearest(name, known.iter().copied());
    let hint = hint.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
    match known.is_empty() {
        true => anyhow!("unknown {what} `{name}`; there is none compiled in, give the path of a TOML file"),
        false => anyhow!("unknown {what} `{name}`; {hint}known are {}", known.join(", ")),
    }
}
