//! Start/goal pairs: what a protocol is evaluated on.
//!
//! A manifest is JSON with one pair per line, so that a diff shows which pair changed. Numbers are shortest
//! round-trip decimals: reading a manifest gives back the bits that were written.

use std::path::Path;

use serde::{Deserialize, Serialize};
use worldbench_env::{Changes, DomainRef, EnvError, domain};

use crate::EvalError;

/// One episode to solve: where it starts, where it must end, and how the recording got there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// A state, laid out as the environment's [`worldbench_env::Spec::state`] says.
    pub start: Vec<f64>,
    /// Laid out as `start`; the recording's state `actions.len()` env steps later.
    pub goal: Vec<f64>,
    /// The recorded actions from start to goal, units of the action space.
    pub actions: Vec<[f32; 2]>,
    /// Identifies the source episode: its seed, or its index in the data set.
    pub source: u64,
    /// How the source episode was made, e.g. `expert` or `noisy-replay`.
    pub kind: String,
    /// Whether the pair belongs to the environment's hard subset, where its manifests mark that (Push-T); see
    /// [`Pair::hard`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_moved: Option<bool>,
    /// What differs from the default scene: factor name to values.
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub factors: Changes,
}

/// A named list of pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Environment the states belong to, e.g. `push_t`.
    pub environment: String,
    /// `dev` or `test`, or the name of the data set the pairs were drawn from.
    pub split: String,
    /// Command or rule that made it.
    pub made_by: String,
    /// The pairs; episode `i` of an evaluation runs pair `i`.
    pub pairs: Vec<Pair>,
}

impl Pair {
    /// A pair in the default scene.
    ///
    /// # Errors
    /// When a state has the wrong number of values.
    pub fn new(
        env: DomainRef,
        start: impl Into<Vec<f64>>,
        goal: impl Into<Vec<f64>>,
        actions: Vec<[f32; 2]>,
        source: u64,
        kind: &str,
    ) -> Result<Self, EnvError> {
        let (start, goal, factors) = (start.into(), goal.into(), Changes::new());
        let pair = Self { start, goal, actions, source, kind: kind.into(), block_moved: None, factors };
        let block_moved = if env.spec().hard.marked { Some(pair.hard(env)?) } else { None };
        Ok(Self { block_moved, ..pair })
    }

    /// Whether the pair belongs to the subset [`worldbench_env::Spec::hard`] of `env`.
    ///
    /// # Errors
    /// When a state or factor does not fit the environment.
    pub fn hard(&self, env: DomainRef) -> Result<bool, EnvError> {
        env.hard(&env.scene(&self.factors)?, &self.start, &self.goal)
    }

    fn verify(&self, env: DomainRef, steps: usize) -> Result<(), String> {
        for (name, state) in [("start", &self.start), ("goal", &self.goal)] {
            if let Some(i) = state.iter().position(|v| !v.is_finite()) {
                return Err(format!("`{name}[{i}]` is not finite"));
            }
        }
        if self.actions.len() != steps {
            return Err(format!("has {} actions where the first pair has {steps}", self.actions.len()));
        }
        if self.actions.iter().flatten().any(|a| !a.is_finite()) {
            return Err("holds an action that is not finite".into());
        }
        let moved = self.hard(env).map_err(|e| e.to_string())?;
        match self.block_moved {
            Some(said) if said != moved => {
                Err(format!("says block_moved = {said}, but its states say {moved}"))
            }
            _ => Ok(()),
        }
    }
}

impl Manifest {
    /// The environment.
    ///
    /// # Errors
    /// When there is none of that name; `name` (usually the path) names the manifest.
    pub fn env(&self, name: &str) -> Result<DomainRef, EvalError> {
        domain::find(&self.environment).ok_or_else(|| EvalError::Manifest {
            name: name.into(),
            message: format!("is for the environment `{}`, which is not known here", self.environment),
        })
    }

    /// Checks lengths, finiteness and the `block_moved` marks; `name` (usually the path) names it in errors.
    ///
    /// # Errors
    /// Names the first pair that is wrong.
    pub fn verify(&self, name: &str) -> Result<(), EvalError> {
        let env = self.env(name)?;
        let steps = self.goal_offset();
        for (i, pair) in self.pairs.iter().enumerate() {
            pair.verify(env, steps).map_err(|message| EvalError::Manifest {
                name: name.into(),
                message: format!("pair {i} {message}; make the manifest again"),
            })?;
        }
        Ok(())
    }

    /// Env steps from start to goal; 0 for an empty manifest.
    #[must_use]
    pub fn goal_offset(&self) -> usize {
        self.pairs.first().map_or(0, |p| p.actions.len())
    }

    /// Fraction of pairs in the hard subset, in `[0, 1]`; 0 for an empty manifest.
    #[must_use]
    pub fn hard_share(&self) -> f64 {
        let env = domain::find(&self.environment);
        let hard = |p: &&Pair| env.is_some_and(|env| p.hard(env).unwrap_or_default());
        self.pairs.iter().filter(hard).count() as f64 / self.pairs.len().max(1) as f64
    }

    /// Pairs whose start satisfies the environment's success test.
    #[must_use]
    pub fn solved_at_start(&self) -> usize {
        let Some(env) = domain::find(&self.environment) else { return 0 };
        let solved = |p: &&Pair| {
            let scene = env.scene(&p.factors).ok();
            let placed = scene.and_then(|scene| crate::runner::reset(env, &scene, &p.start, &p.goal).ok());
            placed.is_some_and(|placed| placed.success())
        };
        self.pairs.iter().filter(solved).count()
    }

    /// Parses and verifies manifest text; `name` names it in errors.
    ///
    /// # Errors
    /// When it is not JSON of this form, and as [`Manifest::verify`].
    pub fn parse(name: &str, text: &str) -> Result<Self, EvalError> {
        let manifest: Self = serde_json::from_str(text).map_err(|e| EvalError::Manifest {
            name: name.into(),
            message: format!("is not a manifest: {e}"),
        })?;
        manifest.verify(name)?;
        Ok(manifest)
    }

    /// Reads and verifies the manifest at `path`.
    ///
    /// # Errors
    /// When it cannot be read, and as [`Manifest::parse`].
    pub fn load(path: &Path) -> Result<Self, EvalError> {
        let text = std::fs::read_to_string(path).map_err(EvalError::io(path))?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// The text on disk: one pair per line.
    ///
    /// # Errors
    /// When a number has no JSON form (not finite).
    pub fn to_text(&self) -> Result<String, EvalError> {
        let json = |e: serde_json::Error| EvalError::Manifest {
            name: self.split.clone(),
            message: format!("cannot be written: {e}"),
        };
        let head = (&self.environment, &self.split, &self.made_by);
        let quote = |text: &String| serde_json::to_string(text).map_err(json);
        let mut out = format!(
            "{{\"environment\":{},\"split\":{},\"made_by\":{},\"pairs\":[",
            quote(head.0)?,
            quote(head.1)?,
            quote(head.2)?
        );
        for (i, pair) in self.pairs.iter().enumerate() {
            out.push_str(if i == 0 { "\n" } else { ",\n" });
            out.push_str(&serde_json::to_string(pair).map_err(json)?);
        }
        out.push_str("\n]}\n");
        Ok(out)
    }

    /// Verifies the manifest and writes it to `path`, in one rename.
    ///
    /// # Errors
    /// When it is not valid or the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), EvalError> {
        self.verify(&path.display().to_string())?;
        crate::runner::write_atomic(path, self.to_text()?.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let start = [100.0, 0.1 + 0.2, 300.0, 300.0, 6.2, 0.0, 0.0];
        let mut goal = start;
        goal[4] = 0.2; // 0.283 rad = 16.2 degrees across the wrap
        let env = domain::find("push_t").unwrap();
        let pair = Pair::new(env, start, goal, vec![[0.1, -0.3]; 25], 7, "expert").unwrap();
        assert_eq!(pair.block_moved, Some(true));
        let still = Pair::new(env, start, start, vec![[0.0, 0.0]; 25], 8, "expert").unwrap();
        assert_eq!(still.block_moved, Some(false));
        Manifest {
            environment: "push_t".into(),
            split: "dev".into(),
            made_by: "test \"quoted\"".into(),
            pairs: vec![pair, still],
        }
    }

    #[test]
    fn text_round_trips_to_the_bit() {
        let manifest = manifest();
        let text = manifest.to_text().unwrap();
        assert_eq!(Manifest::parse("m", &text).unwrap(), manifest);
        assert_eq!(text.lines().count(), 4);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.json");
        manifest.save(&path).unwrap();
        assert_eq!(Manifest::load(&path).unwrap(), manifest);
    }

    #[test]
    fn wrong_pairs_are_named() {
        let message = |change: fn(&mut Pair)| {
            let mut m = manifest();
            change(&mut m.pairs[1]);
            let error = m.verify("some.json").unwrap_err().to_string();
            assert!(error.contains("some.json") && error.contains("pair 1"), "{error}");
            error
        };
        assert!(message(|p| p.goal[3] = f64::NAN).contains("goal[3]"));
        assert!(message(|p| p.start[0] = f64::INFINITY).contains("start[0]"));
        assert!(message(|p| p.goal.truncate(5)).contains("7 values"));
        assert!(message(|p| p.factors = [("block.size".to_string(), vec![1.0])].into()).contains("factor"));
        assert!(message(|p| p.actions.truncate(3)).contains("3 actions"));
        assert!(message(|p| p.actions[2][1] = f32::NAN).contains("action"));
        assert!(message(|p| p.block_moved = Some(true)).contains("block_moved"));
    }

    #[test]
    fn unknown_keys_and_broken_text_are_refused() {
        let text = manifest().to_text().unwrap();
        let error = Manifest::parse("m", &text.replace("\"source\"", "\"sauce\"")).unwrap_err().to_string();
        assert!(error.contains("sauce"), "{error}");
        assert!(Manifest::parse("m", &text[..text.len() / 2]).is_err());
        assert!(Manifest::load(Path::new("/no/such/file.json")).unwrap_err().to_string().contains("no/such"));
    }
}
