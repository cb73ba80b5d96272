//! Configuration from flags: defaults, then `--preset`, then `--config`, then every `--set`, in this order.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::{Serialize, de::DeserializeOwned};
use worldbench_core::config::{Layers, nearest};
use worldbench_env::{DomainRef, Spec, domain, environment};
use worldbench_train::MOST_THREADS;

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
    pub fn layers<T: Serialize + DeserializeOwned + Default>(&self, presets: Presets) -> Result<Layers> {
        let mut layers = Layers::new(&T::default())?;
        if let Some(name) = &self.preset {
            let (origin, text) = preset_text(presets, name)?;
            layers = layers.text(&origin, &text)?;
        }
        if let Some(path) = &self.config {
            layers = layers.file(path)?;
        }
        Ok(layers.set_all(&self.set)?)
    }

    /// The resolved configuration.
    pub fn resolve<T: Serialize + DeserializeOwned + Default>(&self, presets: Presets) -> Result<T> {
        Ok(self.layers::<T>(presets)?.resolve()?)
    }
}

/// What to call the preset, or TOML file, `name` in messages, and its text.
pub fn preset_text(presets: Presets, name: &str) -> Result<(String, Cow<'static, str>)> {
    let path = Path::new(name);
    if path.is_file() {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        return Ok((name.into(), text.into()));
    }
    match presets.iter().find(|(known, _)| *known == name) {
        Some((known, text)) => Ok((format!("preset {known}"), (*text).into())),
        None if name.contains('/') || path.extension().is_some_and(|extension| extension == "toml") => {
            let known: Vec<&str> = presets.iter().map(|(known, _)| *known).collect();
            bail!("there is no file {name}; give the path of a TOML file or a preset: {}", known.join(", "))
        }
        None => Err(unknown("preset", name, presets.iter().map(|(known, _)| *known))),
    }
}

/// A number of threads from the command line; 0 stands for one per core.
pub fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 0..=MOST_THREADS) => Ok(count),
        _ => Err(format!("give a number of threads up to {MOST_THREADS}; 0 takes one per core")),
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
    // Half a name means the first that begins with it, which is the smallest.
    let begins = known.iter().copied().find(|known| !name.is_empty() && known.starts_with(name));
    let hint = begins.or_else(|| nearest(name, known.iter().copied()));
    let hint = hint.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
    match known.is_empty() {
        true => anyhow!("unknown {what} `{name}`; there is none compiled in, give the path of a TOML file"),
        false => anyhow!("unknown {what} `{name}`; {hint}known are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use toml::{Table, Value};
    use worldbench_eval::{CollectConfig, policies::PlannerConfig};
    use worldbench_train::TrainConfig;

    use super::*;
    use crate::learned::preset_layers;

    /// Names of the tables in `table`, itself included, each with a dot behind it.
    fn places(table: &Table, prefix: &str) -> Vec<String> {
        let inner = table.iter().filter_map(|(name, value)| Some((name, value.as_table()?)));
        let inner = inner.flat_map(|(name, table)| places(table, &format!("{prefix}{name}.")));
        std::iter::once(prefix.to_string()).chain(inner).collect()
    }

    fn knows_its_keys<T: Serialize + DeserializeOwned>(preset: &str, layers: &Layers) {
        let all = Value::try_from(layers.resolve::<T>().unwrap()).unwrap();
        for place in places(all.as_table().unwrap(), "") {
            let typo = format!("{place}zzz=1");
            let result = layers.clone().set(&typo).and_then(|layers| layers.resolve::<T>().map(|_| ()));
            let error = result.expect_err(&format!("{preset} takes {typo}")).to_string();
            assert!(error.contains("zzz"), "{preset}, {typo}: {error}");
        }
    }

    #[test]
    fn no_preset_takes_a_key_that_means_nothing_to_it() {
        for (name, _) in TRAIN {
            knows_its_keys::<TrainConfig>(name, &preset_layers::<TrainConfig>(TRAIN, name, &[]).unwrap());
        }
        for (name, _) in PLAN {
            knows_its_keys::<PlannerConfig>(name, &preset_layers::<PlannerConfig>(PLAN, name, &[]).unwrap());
        }
        for (name, text) in COLLECT {
            let layers = Layers::new(&CollectConfig::default()).unwrap().text(name, text).unwrap();
            knows_its_keys::<CollectConfig>(name, &layers);
        }
    }
}
