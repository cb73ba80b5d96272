//! Named evaluation protocols.
//!
//! A protocol is a small TOML file; those in `protocols/` are compiled in. Its rules are data: how far ahead goals lie, how
//! many steps an episode may take, what counts as success. Its pairs are frozen in manifests, or drawn from a data set by
//! the reference's rule (`swm-v1`): NumPy's `default_rng(seed).choice` over all rows that lie at least `goal_offset` before
//! their episode's end, sorted. What depends on the environment stands in a table `[env.NAME]`; a file for one environment
//! may have it at top level. The hash over protocol and pairs stands beside every score, so that two scores with equal
//! hashes are comparable and others are not.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use worldbench_core::{config::nearest, numpy::Pcg64};
use worldbench_data::Store;
use worldbench_env::{Changes, DomainRef, Scene, domain};

use crate::{EvalError, Limits, Manifest, Pair};

/// The protocol used when none is named.
pub const DEFAULT: &str = "held-out";

/// (name, text) of the compiled-in protocols.
const PROTOCOLS: &[(&str, &str)] = &[
    ("held-out", include_str!("../../../protocols/held-out.toml")),
    ("moderate", include_str!("../../../protocols/moderate.toml")),
    ("strict", include_str!("../../../protocols/strict.toml")),
    ("unlimited", include_str!("../../../protocols/unlimited.toml")),
    ("shift", include_str!("../../../protocols/shift.toml")),
    ("swm-v1", include_str!("../../../protocols/swm-v1.toml")),
];

macro_rules! manifests {
    ($($path:literal,)*) => {
        &[$(($path, include_str!(concat!("../../../protocols/manifests/", $path)))),*]
    };
}

/// (path below `protocols/manifests`, text) of the compiled-in manifests.
const MANIFESTS: &[(&str, &str)] = manifests![
    "push_t/held-out-dev.json",
    "push_t/held-out-test.json",
    "push_t/moderate-dev.json",
    "push_t/moderate-test.json",
    "push_t/strict-dev.json",
    "push_t/strict-test.json",
    "push_t/unlimited-dev.json",
    "push_t/unlimited-test.json",
    "push_t/shift-dev.json",
    "push_t/shift-test.json",
    "push_t/swm-v1.json",
    "two_room/held-out-dev.json",
    "two_room/held-out-test.json",
    "two_room/moderate-dev.json",
    "two_room/moderate-test.json",
    "two_room/strict-dev.json",
    "two_room/strict-test.json",
    "two_room/unlimited-dev.json",
    "two_room/unlimited-test.json",
    "two_room/shift-dev.json",
    "two_room/shift-test.json",
    "two_room/swm-v1.json",
];

/// Names of the frozen manifests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Splits {
    /// For tuning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// For published numbers; opened by the final run of a finished configuration only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// Drawn from a data set of our own by the protocol's selection rule; not split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drawn: Option<String>,
}

/// How pairs are drawn from a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Seed of NumPy's generator.
    pub seed: u64,
    /// Pairs to draw.
    pub episodes: usize,
}

/// Which pairs of a protocol to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Pairs for tuning.
    Dev,
    /// Pairs for published numbers.
    Test,
}

/// A named protocol for one environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    /// Name printed beside every score.
    pub name: String,
    /// Environment it is for, e.g. `push_t`.
    pub environment: String,
    /// Env steps from start to goal in the recording.
    pub goal_offset: usize,
    /// Most env steps of an episode.
    pub budget: usize,
    /// Name of the rule that an episode is judged by; must be that of `limits` ([`Limits::rule`]).
    pub success: String,
    /// The rule; by default the environment's own test after every step.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// What a reader of its scores should know.
    #[serde(default)]
    pub notes: String,
    /// Frozen manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Splits>,
    /// The rule that draws pairs from a data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// Pairs of a frozen manifest that is made; 200 by default.
    #[serde(default = "two_hundred", skip_serializing_if = "is_two_hundred")]
    pub pairs: usize,
    /// Factors that are sampled for each pair: pair i takes group i, modulo their number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shifts: BTreeMap<String, Vec<String>>,
}

fn is_default(limits: &Limits) -> bool {
    *limits == Limits::default()
}

fn two_hundred() -> usize {
    200
}

fn is_two_hundred(pairs: &usize) -> bool {
    *pairs == two_hundred()
}

/// A protocol's text with the tables of all its environments.
fn for_environment(mut table: toml::Table, environment: &str) -> Result<toml::Table, String> {
    let Some(environments) = table.remove("env") else {
        return match table.get("environment").and_then(toml::Value::as_str) {
            Some(only) if only != environment => {
                Err(format!("is for {only}, not for {environment}; give --env {only}"))
            }
            _ => Ok(table),
        };
    };
    let toml::Value::Table(mut environments) = environments else {
        return Err("`env` must be tables [env.NAME]".into());
    };
    let known: Vec<String> = environments.keys().cloned().collect();
    let Some(toml::Value::Table(own)) = environments.remove(environment) else {
        return Err(format!("has no table [env.{environment}]; it is for {}", known.join(", ")));
    };
    table.insert("environment".into(), environment.into());
    table.extend(own);
    Ok(table)
}

impl Protocol {
    /// Names of the compiled-in protocols.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PROTOCOLS.iter().map(|(name, _)| *name)
    }

    /// Finds a protocol for `environment`: a file of that path if there is one, else a compiled-in name.
    ///
    /// # Errors
    /// When neither exists (the message names the nearest and all known), it is not for this environment, or the file
    /// is not valid.
    pub fn find(name_or_path: &str, environment: &str) -> Result<Self, EvalError> {
        let path = Path::new(name_or_path);
        if path.is_file() {
            let text = std::fs::read_to_string(path).map_err(EvalError::io(path))?;
            return Self::parse(name_or_path, &text, environment);
        }
        match PROTOCOLS.iter().find(|(name, _)| *name == name_or_path) {
            Some((name, text)) => Self::parse(name, text, environment),
            None => Err(unknown(name_or_path)),
        }
    }

    /// Parses and checks protocol text; `origin` names it in errors.
    ///
    /// # Errors
    /// On unknown keys, wrong values, no rules for `environment`, a `success` that is not the rule of the limits, or neither
    /// `manifest` nor `selection`.
    pub fn parse(origin: &str, text: &str, environment: &str) -> Result<Self, EvalError> {
        let error = |message: String| EvalError::Protocol { name: origin.into(), message };
        let table: toml::Table = text.parse().map_err(|e| error(format!("is not valid: {e}")))?;
        let table = for_environment(table, environment).map_err(error)?;
        let protocol: Self = table.try_into().map_err(|e| error(format!("is not valid: {e}")))?;
        if protocol.budget == 0 || protocol.goal_offset == 0 {
            return Err(error("`budget` and `goal_offset` must be at least 1 env step".into()));
        }
        if protocol.manifest.is_none() && protocol.selection.is_none() {
            return Err(error("give a [manifest] table, a [selection] table or both".into()));
        }
        protocol.limits.check().map_err(error)?;
        let rule = protocol.limits.rule(protocol.env()?.spec());
        if protocol.success != rule {
            return Err(error(format!(
                "`success = \"{}\"`, but its limits on {environment} make the rule `{rule}`; write that, or change \
                 `limits`",
                protocol.success
            )));
        }
        Ok(protocol)
    }

    /// Its environment.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn env(&self) -> Result<DomainRef, EvalError> {
        domain::find(&self.environment).ok_or_else(|| EvalError::Protocol {
            name: self.name.clone(),
            message: format!("is for the environment `{}`, which is not known", self.environment),
        })
    }

    /// The frozen manifest of a split: the file of that path if there is one, else the compiled-in one. Pairs that are
    /// drawn have no splits.
    ///
    /// # Errors
    /// When the protocol draws its pairs from a data set, or the manifest is missing or not valid.
    pub fn manifest(&self, split: Split) -> Result<Manifest, EvalError> {
        let splits = self.manifest.clone().unwrap_or_default();
        let name = match split {
            Split::Dev => splits.dev.or(splits.drawn),
            Split::Test => splits.test.or(splits.drawn),
        };
        let name = name.ok_or_else(|| EvalError::Protocol {
            name: self.name.clone(),
            message: "draws its pairs from a data set; give one with --data PATH".into(),
        })?;
        self.read_manifest(&name)
    }

    /// All frozen manifests.
    ///
    /// # Errors
    /// As [`Protocol::manifest`].
    pub fn manifests(&self) -> Result<Vec<Manifest>, EvalError> {
        let splits = self.manifest.clone().unwrap_or_default();
        let names = [splits.dev, splits.test, splits.drawn].into_iter().flatten();
        names.map(|name| self.read_manifest(&name)).collect()
    }

    fn read_manifest(&self, name: &str) -> Result<Manifest, EvalError> {
        if Path::new(name).is_file() {
            return Manifest::load(Path::new(name));
        }
        match MANIFESTS.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Manifest::parse(name, text),
            None => {
                let known: Vec<&str> = MANIFESTS.iter().map(|(known, _)| *known).collect();
                let message = format!("manifest {name} is not a file; compiled in are {}", known.join(", "));
                Err(EvalError::Protocol { name: self.name.clone(), message })
            }
        }
    }

    /// Whether `manifest` can be run under this protocol.
    ///
    /// # Errors
    /// When it is empty, not valid, or made for another environment or goal offset.
    pub fn check(&self, manifest: &Manifest) -> Result<(), EvalError> {
        let error = |message: String| EvalError::Manifest { name: manifest.split.clone(), message };
        if manifest.pairs.is_empty() {
            return Err(error("holds no pairs; give a manifest that has some".into()));
        }
        if manifest.environment != self.environment {
            return Err(error(format!(
                "is for {}, but protocol {} is for {}",
                manifest.environment, self.name, self.environment
            )));
        }
        manifest.verify(&manifest.split)?;
        if manifest.goal_offset() != self.goal_offset {
            return Err(error(format!(
                "has goals {} steps ahead, but protocol {} wants {}",
                manifest.goal_offset(),
                self.name,
                self.goal_offset
            )));
        }
        Ok(())
    }

    /// Hash over the protocol and the pairs: the first 16 hex digits of SHA-256. Notes, comments and layout do
    /// not count.
    ///
    /// # Errors
    /// When a number of the manifest is not finite.
    pub fn hash(&self, manifest: &Manifest) -> Result<String, EvalError> {
        let mut rules = format!(
            "{} {} {} {} {} {:?}\n",
            self.name,
            self.environment,
            self.goal_offset,
            self.budget,
            camel_case(&self.success),
            self.selection
        );
        if !is_default(&self.limits) {
            rules += &format!("{:?}\n", self.limits);
        }
        let mut hasher = Sha256::new();
        hasher.update(rules.as_bytes());
        hasher.update(manifest.to_text()?.as_bytes());
        Ok(hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }

    /// What to print beside a score made with this protocol on `manifest`.
    #[must_use]
    pub fn remark(&self) -> Option<&'static str> {
        self.selection.is_some().then_some(
            "pairs drawn by the reference's rule from the data set given, by default from our own; unless that is the \
             published set, they are not the published pairs",
        )
    }

    /// Draws (episode, start step) from episodes of the given lengths (states), as `selection` says, in ascending
    /// order; an episode can be drawn more than once.
    ///
    /// # Errors
    /// When the protocol has no selection rule, or the data set has too few rows.
    pub fn select_starts(&self, lengths: &[usize]) -> Result<Vec<(usize, usize)>, EvalError> {
        let error = |message: String| EvalError::Protocol { name: self.name.clone(), message };
        let Some(rule) = self.selection else {
            return Err(error("runs its own frozen pairs and takes no data set".into()));
        };
        // first_row[e]: number of valid rows before episode e.
        let mut first_row = Vec::with_capacity(lengths.len());
        let mut valid = 0;
        for &length in lengths {
            first_row.push(valid);
            valid += length.saturating_sub(self.goal_offset);
        }
        let rows = Pcg64::new(rule.seed).choice_sorted(valid, rule.episodes).ok_or_else(|| {
            error(format!(
                "needs {} starts, but only {valid} rows lie {} steps before their episode's end; \
                 give a larger data set",
                rule.episodes, self.goal_offset
            ))
        })?;
        Ok(rows
            .into_iter()
            .map(|row| {
                let episode = first_row.partition_point(|&first| first <= row) - 1;
                (episode, row - first_row[episode])
            })
            .collect())
    }

    /// Makes the manifest that `selection` draws from the episodes of `store`, which it calls `data`. A pair is run in
    /// the scene of its episode.
    ///
    /// # Errors
    /// As [`Protocol::select_starts`], and when the store is of another environment.
    pub fn select_from(&self, store: &Store, data: &str) -> Result<Manifest, EvalError> {
        let env = self.env()?;
        if store.env() != env {
            let (theirs, ours) = (store.env().spec().name, &self.environment);
            let message = format!("holds episodes of {theirs}, not of {ours}; give --env {theirs}");
            return Err(EvalError::Manifest { name: data.into(), message });
        }
        let broken =
            |e: worldbench_data::DataError| EvalError::Manifest { name: data.into(), message: e.to_string() };
        let lengths: Vec<usize> = store.views().map(|view| view.len()).collect();
        let mut pairs = Vec::new();
        for (episode, start) in self.select_starts(&lengths)? {
            let (end, view) = (start + self.goal_offset, store.view(episode).map_err(broken)?);
            let actions = (start..end).map(|row| view.action(row)).collect();
            let (from, to) = (view.state(start), view.state(end));
            let mut pair = Pair::new(env, from, to, actions, episode as u64, "data")?;
            pair.factors = changes(env, &view.info().factors)?;
            pairs.push(pair);
        }
        Ok(Manifest {
            environment: self.environment.clone(),
            split: data.into(),
            made_by: format!("protocol {} on {data}", self.name),
            pairs,
        })
    }
}

/// What differs in `scene` from the default scene, apart from what only sets where an episode starts.
///
/// # Errors
/// Never, unless the environment contradicts itself.
pub(crate) fn changes(env: DomainRef, scene: &Scene) -> Result<Changes, EvalError> {
    let (scene, default) = (env.visible(scene), env.scene(&Changes::new())?);
    let (mut changes, mut at) = (Changes::new(), 0);
    for factor in env.spec().factors {
        let [new, old] = [&scene, &default].map(|scene| scene.values().get(at..at + factor.len));
        if let (true, Some(values)) = (new != old, new) {
            changes.insert(factor.name.into(), values.to_vec());
        }
        at += factor.len;
    }
    Ok(changes)
}

/// `PushTJoint` for `push-t-joint`: how hashes spell a rule.
fn camel_case(name: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
    };
    name.split('-').map(capital).collect()
}

fn unknown(name: &str) -> EvalError {
    let known: Vec<&str> = Protocol::names().collect();
    let hint = nearest(name, known.iter().copied())
        .map_or_else(String::new, |near| format!("did you mean `{near}`? "));
    EvalError::Protocol {
        name: name.into(),
        message: format!("unknown; {hint}known are {} and the path of a TOML file", known.join(", ")),
    }
}

#[cfg(test)]
mod tests;
