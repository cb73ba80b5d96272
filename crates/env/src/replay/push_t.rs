//! Push-T episode files.
//!
//! The format is that of the reference fixtures: `setup` builds the world, `ops` is a list of `["set", state]`
//! and `["act", action]`, and the result lists have one entry per operation. A file holds at least `setup` and
//! `ops`; `relative` (default true), `action_dtype` (default "f32"), `goal_state` (default: the first "set")
//! and the result keys are optional.

use super::{largest, nan_max};
use crate::error::EnvError;
use crate::geometry::{Shape, Vec2};
use crate::push_t::{Factors, PushT, PushTConfig, State};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How the world of an episode is built.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Setup {
    /// Agent shape.
    pub agent_shape: Shape,
    /// Agent scale, pixels.
    pub agent_scale: f64,
    /// Agent start position, pixels.
    pub agent_start: Vec2,
    /// Agent start angle, radians.
    #[serde(default)]
    pub agent_angle: f64,
    /// Block shape.
    pub block_shape: Shape,
    /// Block scale, pixels.
    pub block_scale: f64,
    /// Block start position, pixels.
    pub block_start: Vec2,
    /// Block start angle, radians.
    pub block_angle: f64,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OpKind {
    /// `set_state` with 7 or 5 values.
    Set,
    /// A control step with a 2-value action.
    Act,
}

/// Precision of the PD law.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ActionDtype {
    /// f32 actions.
    #[default]
    F32,
    /// f64 actions.
    F64,
}

/// Values after each operation; `None` where the reference has none.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct Record {
    /// States, 7 values each.
    #[serde(default)]
    pub state: Vec<State>,
    /// Unwrapped block angles, radians.
    #[serde(default)]
    pub block_angle_raw: Vec<f64>,
    /// Block velocities: x, y, angular.
    #[serde(default)]
    pub block_velocity: Vec<[f64; 3]>,
    /// Contact points of the operation.
    #[serde(default)]
    pub contact_points: Vec<u64>,
    /// Contact points / 10, rounded up; only after an action.
    #[serde(default)]
    pub n_contacts: Vec<Option<u64>>,
    /// Rewards; only after an action.
    #[serde(default)]
    pub reward: Vec<Option<f64>>,
    /// Success flags; only after an action.
    #[serde(default)]
    pub terminated: Vec<Option<bool>>,
}

/// An episode file.
#[derive(Clone, Debug, Deserialize)]
pub struct Episode {
    /// Name.
    #[serde(default)]
    pub id: String,
    /// World.
    pub setup: Setup,
    /// Operations in order.
    pub ops: Vec<(OpKind, Vec<f64>)>,
    /// Whether actions are offsets from the agent.
    #[serde(default = "yes")]
    pub relative: bool,
    /// Precision of the actions.
    #[serde(default)]
    pub action_dtype: ActionDtype,
    /// Goal of reward and termination; the first "set" when missing.
    #[serde(default)]
    pub goal_state: Option<Vec<f64>>,
    /// Pose `[x, y, angle]` of the drawn goal.
    #[serde(default)]
    pub goal_pose: Option<[f64; 3]>,
    /// Results the file holds already.
    #[serde(flatten)]
    pub expected: Record,
}

fn yes() -> bool {
    true
}

/// Largest deviations from the values in the file; `None` for keys that the file lacks.
#[derive(Clone, Debug, Default, Serialize, PartialEq)]
pub struct Deviation {
    /// Largest absolute error over all 7 components.
    pub state: Option<f64>,
    /// Largest absolute error.
    pub block_angle_raw: Option<f64>,
    /// Largest absolute error over the 3 components.
    pub block_velocity: Option<f64>,
    /// Largest difference of counts.
    pub contact_points: Option<f64>,
    /// Largest difference of counts.
    pub n_contacts: Option<f64>,
    /// Largest relative error.
    pub reward: Option<f64>,
    /// Number of operations whose flags differ.
    pub terminated: Option<f64>,
}

/// Outcome of one episode; serialises with the fixture's keys, floats in shortest round-trip form.
#[derive(Clone, Debug, Serialize)]
pub struct Replayed {
    /// Name of the episode.
    pub id: String,
    /// Values after each operation.
    #[serde(flatten)]
    pub record: Record,
    /// Present when the file holds results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_deviation: Option<Deviation>,
}

impl Episode {
    /// Reads and checks an episode file.
    ///
    /// # Errors
    /// Names the file and the key or operation that is wrong.
    pub fn read(path: &Path) -> Result<Self, EnvError> {
        let (name, text) = super::read(path)?;
        Self::parse(&name, &text)
    }

    /// Parses and checks the JSON `text`; `path` names it in errors.
    ///
    /// # Errors
    /// Names the key or operation that is wrong.
    pub fn parse(path: &str, text: &str) -> Result<Self, EnvError> {
        let refuse = |message: String| EnvError::Episode { path: path.to_owned(), message };
        let mut episode: Self = super::parse(path, text)?;
        episode.check().map_err(refuse)?;
        if episode.id.is_empty() {
            path.clone_into(&mut episode.id);
        }
        Ok(episode)
    }

    fn check(&self) -> Result<(), String> {
        let setup = &self.setup;
        if setup.block_shape == Shape::Circle {
            return Err(
                "setup.block_shape: the block cannot be a circle; use L, T, Z, square, I, small_tee or +"
                    .into(),
            );
        }
        for (key, scale) in [("agent_scale", setup.agent_scale), ("block_scale", setup.block_scale)] {
            if !(scale.is_finite() && scale > 0.0) {
                return Err(format!("setup.{key}: {scale} is not a positive number"));
            }
        }
        for (index, (kind, values)) in self.ops.iter().enumerate() {
            let fits = match kind {
                OpKind::Set => matches!(values.len(), 5 | 7),
                OpKind::Act => values.len() == 2,
            };
            if !fits {
                let wanted = if *kind == OpKind::Set { "7 or 5 values" } else { "2 values" };
                return Err(format!("ops[{index}]: needs {wanted}, has {}", values.len()));
            }
        }
        if let Some(goal) = &self.goal_state
            && !matches!(goal.len(), 5 | 7)
        {
            return Err(format!("goal_state: needs 7 or 5 values, has {}", goal.len()));
        }
        self.expected.check(self.ops.len())
    }

    /// The scene of the episode.
    #[must_use]
    pub fn factors(&self) -> Factors {
        let s = &self.setup;
        let mut factors = Factors {
            agent_shape: s.agent_shape,
            agent_scale: s.agent_scale,
            agent_start: s.agent_start,
            agent_angle: s.agent_angle,
            block_shape: s.block_shape,
            block_scale: s.block_scale,
            block_start: s.block_start,
            block_angle: s.block_angle,
            ..Factors::default()
        };
        if let Some([x, y, angle]) = self.goal_pose {
            factors.goal_position = [x, y];
            factors.goal_angle = angle;
        }
        factors
    }

    /// Runs the episode; `after` sees the environment after each operation (to draw frames, say).
    ///
    /// # Errors
    /// When a state is refused; the message names the operation.
    pub fn run(&self, mut after: impl FnMut(usize, &PushT)) -> Result<Replayed, EnvError> {
        let config = PushTConfig { relative: self.relative, ..PushTConfig::default() };
        let mut env = PushT::new(&self.factors(), config);
        let first_set = self.ops.iter().find(|(kind, _)| *kind == OpKind::Set).map(|(_, values)| values);
        if let Some(goal) = self.goal_state.as_ref().or(first_set) {
            env.set_goal_state(goal).map_err(|e| self.at("goal_state", &e))?;
        }
        let mut record = Record::default();
        for (index, (kind, values)) in self.ops.iter().enumerate() {
            let before = env.contact_points();
            match (kind, values.as_slice()) {
                (OpKind::Act, &[x, y]) => match self.action_dtype {
                    ActionDtype::F32 => env.step_f32([x as f32, y as f32]),
                    ActionDtype::F64 => env.step_f64([x, y]),
                },
                (_, values) => env.set_state(values).map_err(|e| self.at(&format!("ops[{index}]"), &e))?,
            }
            record.push(&env, *kind, before);
            after(index, &env);
        }
        let max_deviation = self.expected.holds_any().then(|| record.deviation(&self.expected));
        Ok(Replayed { id: self.id.clone(), record, max_deviation })
    }

    fn at(&self, key: &str, error: &EnvError) -> EnvError {
        EnvError::Episode { path: self.id.clone(), message: format!("{key}: {error}") }
    }
}

impl Record {
    fn push(&mut self, env: &PushT, kind: OpKind, before: u64) {
        let acted = kind == OpKind::Act;
        self.state.push(env.state());
        self.block_angle_raw.push(env.block_angle_raw());
        self.block_velocity.push(env.block_velocity());
        self.contact_points.push(env.contact_points() - if acted { 0 } else { before });
        self.n_contacts.push(acted.then(|| env.n_contacts()));
        self.reward.push(acted.then(|| env.reward()));
        self.terminated.push(acted.then(|| env.terminated()));
    }

    fn lengths(&self) -> [(&'static str, usize); 7] {
        [
            ("state", self.state.len()),
            ("block_angle_raw", self.block_angle_raw.len()),
            ("block_velocity", self.block_velocity.len()),
            ("contact_points", self.contact_points.len()),
            ("n_contacts", self.n_contacts.len()),
            ("reward", self.reward.len()),
            ("terminated", self.terminated.len()),
        ]
    }

    fn holds_any(&self) -> bool {
        self.lengths().iter().any(|(_, len)| *len > 0)
    }

    fn check(&self, ops: usize) -> Result<(), String> {
        match self.lengths().iter().find(|(_, len)| *len != 0 && *len != ops) {
            Some((key, len)) => {
                Err(format!("{key}: has {len} entries for {ops} ops; give one per op or leave it out"))
            }
            None => Ok(()),
        }
    }

    /// Largest deviations of `self` from `expected`, key by key.
    #[must_use]
    pub fn deviation(&self, expected: &Self) -> Deviation {
        let optional = |a: &[Option<u64>]| a.iter().map(|v| v.map_or(-1.0, |v| v as f64)).collect::<Vec<_>>();
        let counts = |a: &[u64]| a.iter().map(|&v| v as f64).collect::<Vec<_>>();
        let flags = |a: &[Option<bool>]| a.iter().map(|v| v.map_or(-1.0, f64::from)).collect::<Vec<_>>();
        Deviation {
            state: largest(self.state.as_flattened(), expected.state.as_flattened()),
            block_angle_raw: largest(&self.block_angle_raw, &expected.block_angle_raw),
            block_velocity: largest(
                self.block_velocity.as_flattened(),
                expected.block_velocity.as_flattened(),
            ),
            contact_points: largest(&counts(&self.contact_points), &counts(&expected.contact_points)),
            n_contacts: largest(&optional(&self.n_contacts), &optional(&expected.n_contacts)),
            reward: relative(&self.reward, &expected.reward),
            terminated: (!expected.terminated.is_empty()).then(|| {
                let (a, b) = (flags(&self.terminated), flags(&expected.terminated));
                a.iter().zip(&b).filter(|(x, y)| x != y).count() as f64
            }),
        }
    }
}

fn relative(actual: &[Option<f64>], expected: &[Option<f64>]) -> Option<f64> {
    (!expected.is_empty()).then(|| {
        let error = |(a, b): (&Option<f64>, &Option<f64>)| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() / b.abs().max(f64::MIN_POSITIVE),
            (None, None) => 0.0,
            _ => f64::INFINITY,
        };
        actual.iter().zip(expected).map(error).fold(0.0, nan_max)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fixtures;

    #[test]
    fn fixture_episodes_are_reproduced() {
        let mut files: Vec<_> = std::fs::read_dir(fixtures("pusht").join("episodes"))
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty());
        let mut misses = Vec::new();
        for path in &files {
            let episode = Episode::read(path).unwrap();
            let circle = episode.setup.agent_shape == Shape::Circle;
            let d = episode.run(|_, _| ()).unwrap().max_deviation.unwrap();
            let bound = if circle { 0.0 } else { 1e-6 };
            let close =
                [d.state, d.block_angle_raw, d.block_velocity].into_iter().flatten().all(|e| e <= bound);
            let equal =
                [d.contact_points, d.n_contacts, d.terminated].into_iter().flatten().all(|e| e == 0.0);
            if !(close && equal && d.reward.unwrap() <= 1e-12) {
                misses.push((path.file_name().unwrap().to_owned(), d));
            } else if !circle {
                println!("{}: {:?}", episode.id, d.state);
            }
        }
        for miss in &misses {
            println!("{miss:?}");
        }
        println!("{} files, {} misses", files.len(), misses.len());
        assert!(misses.is_empty());
    }

    #[test]
    fn geometry_is_the_fixtures() {
        #[derive(Deserialize)]
        struct File {
            derived: Derived,
        }
        #[derive(Deserialize)]
        struct Derived {
            block_cog: Vec2,
            block_moment: f64,
            block_parts: Vec<[Vec2; 4]>,
            agent_radius: Vec<f64>,
        }
        for entry in std::fs::read_dir(fixtures("pusht").join("episodes")).unwrap() {
            let path = entry.unwrap().path();
            let setup = Episode::read(&path).unwrap().setup;
            let File { derived } = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let block = crate::geometry::Geometry::new(setup.block_shape, setup.block_scale);
            let agent = crate::geometry::Geometry::new(setup.agent_shape, setup.agent_scale);
            assert_eq!(block.parts(), derived.block_parts, "{}", path.display());
            assert_eq!(block.cog, derived.block_cog, "{}", path.display());
            assert_eq!(block.moment, derived.block_moment, "{}", path.display());
            assert!(derived.agent_radius.iter().all(|&r| r == agent.radius), "{}", path.display());
        }
    }

    #[test]
    fn bad_files_name_the_key_or_operation() {
        let setup = r#""setup":{"agent_shape":"o","agent_scale":40,"agent_start":[1,2],"block_shape":"T",
            "block_scale":30,"block_start":[3,4],"block_angle":0}"#;
        let refused = |text: &str| Episode::parse("x.json", text).unwrap_err().to_string();
        assert!(refused("{").contains("x.json"));
        assert!(refused(r#"{"ops":[]}"#).contains("setup"));
        assert!(refused(&format!(r#"{{{setup},"ops":[["act",[1,2,3]]]}}"#)).contains("ops[0]"));
        assert!(refused(&format!(r#"{{{setup},"ops":[["act",[1,2]]],"reward":[1,2]}}"#)).contains("reward"));
        assert!(refused(&format!(r#"{{{setup},"ops":[["jump",[1,2]]]}}"#)).contains("jump"));
    }
}
