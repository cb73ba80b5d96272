//! Two-Room episode files.
//!
//! The format is that of the reference fixtures: `config` is the scene, `start` and `target` are positions, `actions`
//! is a list of pairs, and the result lists have one entry per action. Result keys are optional.

use super::{largest, nan_max};
use crate::environment::Environment;
use crate::error::EnvError;
use crate::policies::Policy;
use crate::two_room::{Expert, Factors, MAX_DOORS, TwoRoom};
use crate::variation::Variation;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The scene of an episode.
#[derive(Clone, Debug, Deserialize)]
pub struct TwoRoomConfig {
    /// 0 horizontal, 1 vertical.
    pub wall_axis: u8,
    /// Pixels.
    pub wall_thickness: u8,
    /// Centre and half width of every door, pixels.
    pub doors: Vec<[u8; 2]>,
    /// Pixels.
    pub agent_radius: f64,
    /// Pixels per unit of action.
    pub agent_speed: f64,
    /// Pixels.
    #[serde(default = "seven")]
    pub target_radius: f64,
    /// RGB; the default scene's when missing.
    #[serde(default)]
    pub colors: Option<Colors>,
    /// Whether the target is drawn.
    #[serde(default)]
    pub render_target: bool,
}

fn seven() -> f64 {
    7.0
}

/// Colours of a scene, RGB.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Colors {
    agent: [u8; 3],
    target: [u8; 3],
    wall: [u8; 3],
    door: [u8; 3],
    background: [u8; 3],
}

impl TwoRoomConfig {
    /// The scene as factors.
    ///
    /// # Errors
    /// When a value is outside the bounds of its factor; the message names it.
    pub fn factors(&self) -> Result<Factors, EnvError> {
        let mut f = Factors { render_target: self.render_target, ..Factors::default() };
        if let Some(colors) = &self.colors {
            f.agent_color = colors.agent;
            f.target_color = colors.target;
            f.wall_color = colors.wall;
            f.door_color = colors.door;
            f.background_color = colors.background;
        }
        let mut doors = [f.door_position, f.door_size].map(|d| d.map(f64::from));
        for (slot, door) in self.doors.iter().take(MAX_DOORS).enumerate() {
            doors[0][slot] = door[0].into();
            doors[1][slot] = door[1].into();
        }
        let values: [(&str, &[f64]); 8] = [
            ("wall.axis", &[self.wall_axis.into()]),
            ("wall.thickness", &[self.wall_thickness.into()]),
            ("door.number", &[self.doors.len() as f64]),
            ("door.position", &doors[0]),
            ("door.size", &doors[1]),
            ("agent.radius", &[self.agent_radius]),
            ("agent.speed", &[self.agent_speed]),
            ("target.radius", &[self.target_radius]),
        ];
        for (name, values) in values {
            f.set(name, values)?;
        }
        Ok(f)
    }
}

/// Values after each action, and the expert's action before it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct TwoRoomRecord {
    /// Agent positions, pixels: f32 values.
    #[serde(default)]
    pub pos: Vec<[f64; 2]>,
    /// Distances of agent and target, pixels: f32 values.
    #[serde(default)]
    pub distance: Vec<f64>,
    /// Success flags.
    #[serde(default)]
    pub terminated: Vec<bool>,
    /// What the expert without noise would do in the state before the action; `None` where it was not asked.
    #[serde(default)]
    pub expert_action: Vec<Option<[f64; 2]>>,
    /// Observation before the first action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_obs: Option<Vec<f64>>,
    /// Distance before the first action, pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_distance: Option<f64>,
    /// Observation after the last action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_obs: Option<Vec<f64>>,
}

/// An episode file.
#[derive(Clone, Debug, Deserialize)]
pub struct TwoRoomEpisode {
    /// Name.
    #[serde(default)]
    pub id: String,
    /// The scene.
    pub config: TwoRoomConfig,
    /// Start position, pixels.
    pub start: [f64; 2],
    /// Target position, pixels.
    pub target: [f64; 2],
    /// Actions in order.
    pub actions: Vec<[f64; 2]>,
    /// Results the file holds already.
    #[serde(flatten)]
    pub expected: TwoRoomRecord,
}

/// Largest deviations from the values in the file; `None` for keys that the file lacks.
#[derive(Clone, Debug, Default, Serialize, PartialEq)]
pub struct TwoRoomDeviation {
    /// Largest absolute error of a coordinate.
    pub pos: Option<f64>,
    /// Largest absolute error.
    pub distance: Option<f64>,
    /// Number of actions whose flags differ.
    pub terminated: Option<f64>,
    /// Largest absolute error of a component, where the file has an action.
    pub expert_action: Option<f64>,
    /// Largest absolute error of the observations at reset and at the end.
    pub observation: Option<f64>,
}

/// Outcome of one episode; serialises with the fixture's keys, floats in shortest round-trip form.
#[derive(Clone, Debug, Serialize)]
pub struct TwoRoomReplayed {
    /// Name of the episode.
    pub id: String,
    /// Values after each action.
    #[serde(flatten)]
    pub record: TwoRoomRecord,
    /// Present when the file holds results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_deviation: Option<TwoRoomDeviation>,
}

impl TwoRoomEpisode {
    /// Reads and checks an episode file.
    ///
    /// # Errors
    /// Names the file and the key that is wrong.
    pub fn read(path: &Path) -> Result<Self, EnvError> {
        let (name, text) = super::read(path)?;
        Self::parse(&name, &text)
    }

    /// Parses and checks the JSON `text`; `path` names it in errors.
    ///
    /// # Errors
    /// Names the key that is wrong.
    pub fn parse(path: &str, text: &str) -> Result<Self, EnvError> {
        let refuse = |message: String| EnvError::Episode { path: path.to_owned(), message };
        let mut episode: Self = super::parse(path, text)?;
        episode.config.factors().map_err(|e| refuse(format!("config: {e}")))?;
        episode.expected.check(episode.actions.len()).map_err(refuse)?;
        if episode.id.is_empty() {
            path.clone_into(&mut episode.id);
        }
        Ok(episode)
    }

    /// Runs the episode; `after` sees the environment after each action (to draw frames, say).
    ///
    /// # Errors
    /// When the scene or the start is refused; the message names it.
    pub fn run(&self, mut after: impl FnMut(usize, &TwoRoom)) -> Result<TwoRoomReplayed, EnvError> {
        let at = |key: &str, e: &EnvError| EnvError::Episode {
            path: self.id.clone(),
            message: format!("{key}: {e}"),
        };
        let mut factors = self.config.factors().map_err(|e| at("config", &e))?;
        // Not by `set_goal_state`: the reference takes a target from outside its bounds at a reset.
        factors.target_position = self.target.map(|v| v as f32);
        let mut env = TwoRoom::build(&factors);
        env.set_state(&self.start).map_err(|e| at("start", &e))?;
        let mut expert = Expert::new(0, 0, 0.0);
        let mut record = TwoRoomRecord {
            reset_obs: Some(env.observation()),
            reset_distance: Some(env.distance().into()),
            ..TwoRoomRecord::default()
        };
        for (index, action) in self.actions.iter().enumerate() {
            record.expert_action.push(Some(expert.act(&env, index).map(f64::from)));
            env.step(action.map(|a| a as f32));
            record.pos.push(env.state());
            record.distance.push(env.distance().into());
            record.terminated.push(env.success());
            after(index, &env);
        }
        record.final_obs = Some(env.observation());
        let max_deviation = self.expected.holds_any().then(|| record.deviation(&self.expected));
        Ok(TwoRoomReplayed { id: self.id.clone(), record, max_deviation })
    }
}

impl TwoRoomRecord {
    fn lengths(&self) -> [(&'static str, usize); 4] {
        [
            ("pos", self.pos.len()),
            ("distance", self.distance.len()),
            ("terminated", self.terminated.len()),
            ("expert_action", self.expert_action.len()),
        ]
    }

    fn holds_any(&self) -> bool {
        self.lengths().iter().any(|(_, len)| *len > 0)
    }

    fn check(&self, actions: usize) -> Result<(), String> {
        match self.lengths().iter().find(|(_, len)| *len != 0 && *len != actions) {
            Some((key, len)) => Err(format!(
                "{key}: has {len} entries for {actions} actions; give one per action or leave it out"
            )),
            None => Ok(()),
        }
    }

    /// Largest deviations of `self` from `expected`, key by key.
    #[must_use]
    pub fn deviation(&self, expected: &Self) -> TwoRoomDeviation {
        let flags = self.terminated.iter().zip(&expected.terminated);
        TwoRoomDeviation {
            pos: largest(self.pos.as_flattened(), expected.pos.as_flattened()),
            distance: most([
                largest(&self.distance, &expected.distance),
                largest(self.reset_distance.as_slice(), expected.reset_distance.as_slice()),
            ]),
            terminated: (!expected.terminated.is_empty())
                .then(|| flags.filter(|(x, y)| x != y).count() as f64),
            expert_action: most(self.expert_action.iter().zip(&expected.expert_action).map(
                |(found, wanted)| largest(found.as_slice().as_flattened(), wanted.as_slice().as_flattened()),
            )),
            observation: most([
                of_vectors(&self.reset_obs, &expected.reset_obs),
                of_vectors(&self.final_obs, &expected.final_obs),
            ]),
        }
    }
}

/// The largest of those deviations that there are.
fn most(errors: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    errors.into_iter().flatten().reduce(nan_max)
}

/// Largest error of an observation; infinite when it has another length.
fn of_vectors(found: &Option<Vec<f64>>, wanted: &Option<Vec<f64>>) -> Option<f64> {
    let (found, wanted) = (found.as_deref().unwrap_or_default(), wanted.as_deref()?);
    if found.len() == wanted.len() { largest(found, wanted) } else { Some(f64::INFINITY) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::Recording;
    use crate::testing::fixtures;

    #[test]
    fn fixture_episodes_are_reproduced() {
        let mut experts = 0;
        for entry in std::fs::read_dir(fixtures("tworoom").join("episodes")).unwrap() {
            let path = entry.unwrap().path();
            let d = TwoRoomEpisode::read(&path).unwrap().run(|_, _| ()).unwrap().max_deviation.unwrap();
            let exact = [d.pos, d.distance, d.terminated, d.observation];
            assert!(exact.iter().all(|e| *e == Some(0.0)), "{}: {d:?}", path.display());
            if let Some(error) = d.expert_action {
                assert!(error == 0.0, "{}: {d:?}", path.display());
                experts += 1;
            }
        }
        assert!(experts > 0);
    }

    #[test]
    fn bad_files_name_the_key() {
        let config = r#""config":{"wall_axis":1,"wall_thickness":10,"doors":[[49,14]],"agent_radius":7.0,
            "agent_speed":5.0}"#;
        let refused = |text: &str| match Recording::parse("x.json", text) {
            Ok(Recording::TwoRoom(episode)) => episode.run(|_, _| ()).unwrap_err().to_string(),
            Ok(other) => panic!("{other:?}"),
            Err(error) => error.to_string(),
        };
        let rest = r#""start":[60,60],"actions":[[1,0]]"#;
        assert!(refused("{}").contains("neither `setup`"));
        assert!(refused(&format!("{{{config},{rest}}}")).contains("target"));
        let far = rest.replace("[60,60]", "[1e60,60]");
        assert!(refused(&format!(r#"{{{config},{far},"target":[60,60]}}"#)).contains("start"));
        assert!(
            refused(&format!(r#"{{{config},{rest},"target":[60,60],"pos":[[1,2],[3,4]]}}"#)).contains("pos")
        );
        let thick = config.replace(r#""wall_thickness":10"#, r#""wall_thickness":90"#);
        assert!(refused(&format!(r#"{{{thick},{rest},"target":[60,60]}}"#)).contains("wall.thickness"));
        let doors = config.replace("[[49,14]]", "[[1,1],[2,2],[3,3],[4,4]]");
        assert!(refused(&format!(r#"{{{doors},{rest},"target":[60,60]}}"#)).contains("door.number"));
    }
}
