//! Named evaluation protocols.
//!
//! A protocol is a small TOML file; those in `protocols/` are compiled in. Either it names frozen manifests
//! (`held-out`), or it draws its pairs from a data set by the reference's rule (`swm-v1`): NumPy's
//! `default_rng(seed).choice` over all rows that lie at least `goal_offset` before their episode's end, sorted.
//! The hash over protocol and pairs stands beside every score, so that two scores with equal hashes are
//! comparable and others are not.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use worldbench_core::{config::nearest, numpy::Pcg64};
use worldbench_data::Store;
use worldbench_env::Factors;

use crate::{EvalError, Manifest, Pair};

/// The protocol used when none is named.
pub const DEFAULT: &str = "held-out";

/// (name, text) of the compiled-in protocols.
const PROTOCOLS: [(&str, &str); 2] = [
    ("held-out", include_str!("../../../protocols/held-out.toml")),
    ("swm-v1", include_str!("../../../protocols/swm-v1.toml")),
];

/// (path below `protocols/manifests`, text) of the compiled-in manifests.
const MANIFESTS: [(&str, &str); 2] = [
    ("push_t/held-out-dev.json", include_str!("../../../protocols/manifests/push_t/held-out-dev.json")),
    ("push_t/held-out-test.json", include_str!("../../../protocols/manifests/push_t/held-out-test.json")),
];

/// How an episode is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SuccessRule {
    /// Joint distance of agent and block below 20 px and block angle within 20 degrees, at any step.
    PushTJoint,
}

/// Names of the frozen manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Splits {
    /// For tuning.
    pub dev: String,
    /// For published numbers; opened by the final run of a finished configuration only.
    pub test: String,
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

/// A named protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// How an episode is judged.
    pub success: SuccessRule,
    /// What a reader of its scores should know.
    #[serde(default)]
    pub notes: String,
    /// Frozen manifests; either these or `selection`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Splits>,
    /// The rule that draws pairs from a data set; either this or `manifest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
}

impl Protocol {
    /// Names of the compiled-in protocols.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PROTOCOLS.iter().map(|(name, _)| *name)
    }

    /// Finds a protocol: a file of that path if there is one, else a compiled-in name.
    ///
    /// # Errors
    /// When neither exists (the message names the nearest and all known), or the file is not valid.
    pub fn find(name_or_path: &str) -> Result<Self, EvalError> {
        let path = Path::new(name_or_path);
        if path.is_file() {
            let text = std::fs::read_to_string(path).map_err(EvalError::io(path))?;
            return Self::parse(name_or_path, &text);
        }
        match PROTOCOLS.iter().find(|(name, _)| *name == name_or_path) {
            Some((name, text)) => Self::parse(name, text),
            None => Err(unknown(name_or_path)),
        }
    }

    /// Parses and checks protocol text; `origin` names it in errors.
    ///
    /// # Errors
    /// On unknown keys, wrong values, or unless exactly one of `manifest` and `selection` is given.
    pub fn parse(origin: &str, text: &str) -> Result<Self, EvalError> {
        let error = |message: String| EvalError::Protocol { name: origin.into(), message };
        let protocol: Self = toml::from_str(text).map_err(|e| error(format!("is not valid: {e}")))?;
        if protocol.budget == 0 || protocol.goal_offset == 0 {
            return Err(error("`budget` and `goal_offset` must be at least 1 env step".into()));
        }
        if protocol.manifest.is_some() == protocol.selection.is_some() {
            return Err(error("give either a [manifest] table or a [selection] table".into()));
        }
        Ok(protocol)
    }

    /// The frozen manifest of a split: the file of that path if there is one, else the compiled-in one.
    ///
    /// # Errors
    /// When the protocol draws its pairs from a data set, or the manifest is missing or not valid.
    pub fn manifest(&self, split: Split) -> Result<Manifest, EvalError> {
        let error = |message: String| EvalError::Protocol { name: self.name.clone(), message };
        let Some(splits) = &self.manifest else {
            return Err(error("draws its pairs from a data set; give one with --data PATH".into()));
        };
        let name = match split {
            Split::Dev => &splits.dev,
            Split::Test => &splits.test,
        };
        if Path::new(name).is_file() {
            return Manifest::load(Path::new(name));
        }
        match MANIFESTS.iter().find(|(known, _)| known == name) {
            Some((_, text)) => Manifest::parse(name, text),
            None => {
                let known: Vec<&str> = MANIFESTS.iter().map(|(known, _)| *known).collect();
                Err(error(format!("manifest {name} is not a file; compiled in are {}", known.join(", "))))
            }
        }
    }

    /// Whether `manifest` can be run under this protocol.
    ///
    /// # Errors
    /// When it is empty, not valid, or made for another environment or goal offset.
    pub fn check(&self, manifest: &Manifest) -> Result<(), EvalError> {
        let error = |message: String| EvalError::Manifest { name: manifest.split.clone(), message };
        manifest.verify(&manifest.split)?;
        if manifest.pairs.is_empty() {
            return Err(error("holds no pairs; give a manifest that has some".into()));
        }
        if manifest.environment != self.environment {
            return Err(error(format!(
                "is for {}, but protocol {} is for {}",
                manifest.environment, self.name, self.environment
            )));
        }
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
        let rules = format!(
            "{} {} {} {} {:?} {:?}\n",
            self.name, self.environment, self.goal_offset, self.budget, self.success, self.selection
        );
        let mut hasher = Sha256::new();
        hasher.update(rules.as_bytes());
        hasher.update(manifest.to_text()?.as_bytes());
        Ok(hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }

    /// What to print beside a score made with this protocol on `manifest`.
    #[must_use]
    pub fn remark(&self) -> Option<&'static str> {
        self.selection.is_some().then_some(
            "pairs drawn by the reference's rule from the data set given; unless that is the published set, \
             they are not the published pairs",
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

    /// Makes the manifest that `selection` draws from a data set of episodes with the given lengths (states).
    /// `read(episode)` returns all its states and actions; `data` names the data set.
    ///
    /// # Errors
    /// As [`Protocol::select_starts`], when `read` fails, or when an episode is shorter than it should be.
    pub fn select<E: std::fmt::Display>(
        &self,
        data: &str,
        lengths: &[usize],
        mut read: impl FnMut(usize) -> Result<(Vec<[f64; 7]>, Vec<[f32; 2]>), E>,
    ) -> Result<Manifest, EvalError> {
        let error = |message: String| EvalError::Manifest { name: data.into(), message };
        let mut pairs = Vec::new();
        for (episode, start) in self.select_starts(lengths)? {
            let end = start + self.goal_offset;
            let (states, actions) = read(episode).map_err(|e| error(format!("episode {episode}: {e}")))?;
            let (Some(from), Some(to), Some(taken)) =
                (states.get(start), states.get(end), actions.get(start..end))
            else {
                return Err(error(format!("episode {episode} has no row {end}; repair the data set")));
            };
            pairs.push(Pair::new(*from, *to, taken.to_vec(), episode as u64, "data"));
        }
        Ok(Manifest {
            environment: self.environment.clone(),
            split: data.into(),
            made_by: format!("protocol {} on {data}", self.name),
            pairs,
        })
    }

    /// [`Protocol::select`] on a store.
    ///
    /// # Errors
    /// As there, and when the scene differs from the one that episodes are run in.
    pub fn select_from(&self, store: &Store) -> Result<Manifest, EvalError> {
        let name = store.path().display().to_string();
        let lengths: Vec<usize> = store.views().map(|view| view.len()).collect();
        self.select(&name, &lengths, |episode| {
            let view = store.view(episode).map_err(|e| e.to_string())?;
            same_scene(&view.info().factors)?;
            Ok::<_, String>((0..view.len()).map(|row| (view.state(row), view.action(row))).unzip())
        })
    }
}

/// A pair holds states only; its episode runs with the default bodies.
fn same_scene(factors: &Factors) -> Result<(), String> {
    let bodies = |f: &Factors| (f.agent_shape, f.agent_scale, f.block_shape, f.block_scale);
    if bodies(factors) == bodies(&Factors::default()) {
        return Ok(());
    }
    Err("has other shapes or scales than the default scene, in which pairs are run; give default data".into())
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
mod tests {
    use super::*;

    #[test]
    fn built_in_protocols_and_manifests_are_valid() {
        for name in Protocol::names() {
            let protocol = Protocol::find(name).unwrap();
            assert_eq!((protocol.name.as_str(), protocol.budget, protocol.goal_offset), (name, 50, 25));
            if protocol.manifest.is_some() {
                for split in [Split::Dev, Split::Test] {
                    let manifest = protocol.manifest(split).unwrap();
                    if !manifest.pairs.is_empty() {
                        protocol.check(&manifest).unwrap();
                        assert_eq!(manifest.pairs.len(), 200);
                        assert!(manifest.moved_share() >= 0.7, "{}", manifest.moved_share());
                    }
                }
            }
        }
    }

    #[test]
    fn unknown_names_get_a_hint_and_paths_win() {
        let error = Protocol::find("heldout").unwrap_err().to_string();
        assert!(error.contains("did you mean `held-out`") && error.contains("swm-v1"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.toml");
        std::fs::write(&path, PROTOCOLS[1].1.replace("swm-v1", "mine")).unwrap();
        assert_eq!(Protocol::find(path.to_str().unwrap()).unwrap().name, "mine");
    }

    #[test]
    fn typos_and_contradictions_are_refused() {
        let text = PROTOCOLS[1].1;
        for (from, to, expect) in [
            ("budget", "budgit", "budgit"),
            ("budget = 50", "budget = 0", "budget"),
            ("[selection]", "[manifest]\ndev='a'\ntest='b'\n[selection]", "either"),
        ] {
            let error = Protocol::parse("p.toml", &text.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains("p.toml") && error.contains(expect), "{error}");
        }
    }

    #[test]
    fn selection_counts_only_rows_with_a_goal_ahead() {
        let protocol = Protocol::find("swm-v1").unwrap();
        // Valid rows 0..=lengths-26 of each: 1000, none, 1000; NumPy's check values for n = 2000, seed 42.
        let starts = protocol.select_starts(&[1025, 20, 1025]).unwrap();
        assert_eq!(starts[..3], [(0, 126), (0, 135), (0, 168)]);
        assert_eq!(*starts.last().unwrap(), (2, 991));
        assert_eq!(starts.len(), 50);
        assert!(protocol.select_starts(&[30]).unwrap_err().to_string().contains("only 5 rows"));
        assert!(Protocol::find("held-out").unwrap().select_starts(&[2000]).is_err());
        let read = |e: usize| -> Result<_, std::convert::Infallible> {
            let states = (0..1025).map(|t| [t as f64, e as f64, 0.0, 0.0, 0.0, 0.0, 0.0]).collect();
            Ok((states, (0..1024).map(|t| [t as f32, 0.0]).collect()))
        };
        let manifest = protocol.select("set", &[1025, 20, 1025], read).unwrap();
        protocol.check(&manifest).unwrap();
        let last = manifest.pairs.last().unwrap();
        assert_eq!(
            (last.start[0], last.goal[0], last.actions[24][0], last.source),
            (991.0, 1016.0, 1015.0, 2)
        );
    }

    #[test]
    fn the_hash_depends_on_rules_and_pairs_but_not_on_notes() {
        let protocol = Protocol::find("held-out").unwrap();
        let pair = Pair::new([0.0; 7], [1.0; 7], vec![[0.0; 2]; 25], 0, "expert");
        let manifest = Manifest {
            environment: "push_t".into(),
            split: "dev".into(),
            made_by: String::new(),
            pairs: vec![pair],
        };
        let base = protocol.hash(&manifest).unwrap();
        assert_eq!(base.len(), 16);
        assert_eq!(base, Protocol { notes: "other".into(), ..protocol.clone() }.hash(&manifest).unwrap());
        assert_ne!(base, Protocol { budget: 51, ..protocol.clone() }.hash(&manifest).unwrap());
        let mut other = manifest;
        other.pairs[0].goal[0] += 1e-12;
        assert_ne!(base, protocol.hash(&other).unwrap());
    }
}
