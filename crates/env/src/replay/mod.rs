//! Runs recorded episode files and says how far they deviate.

mod push_t;
mod two_room;

pub use push_t::{ActionDtype, Deviation, Episode, OpKind, Record, Replayed, Setup};
pub use two_room::{TwoRoomConfig, TwoRoomDeviation, TwoRoomEpisode, TwoRoomRecord, TwoRoomReplayed};

use crate::error::EnvError;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::path::Path;

/// An episode file of any environment.
#[derive(Clone, Debug)]
pub enum Recording {
    /// Of Push-T: a file with the key `setup`.
    PushT(Episode),
    /// Of Two-Room: a file with the key `config`.
    TwoRoom(TwoRoomEpisode),
}

impl Recording {
    /// Reads and checks an episode file.
    ///
    /// # Errors
    /// Names the file and the key or operation that is wrong.
    pub fn read(path: &Path) -> Result<Self, EnvError> {
        let (name, text) = read(path)?;
        Self::parse(&name, &text)
    }

    /// Parses and checks the JSON `text`; `path` names it in errors.
    ///
    /// # Errors
    /// Names the key or operation that is wrong.
    pub fn parse(path: &str, text: &str) -> Result<Self, EnvError> {
        /// The keys that tell the formats apart.
        #[derive(Deserialize)]
        struct Keys {
            setup: Option<IgnoredAny>,
            config: Option<IgnoredAny>,
        }
        let keys: Keys = parse(path, text)?;
        match keys {
            Keys { setup: None, config: Some(_) } => TwoRoomEpisode::parse(path, text).map(Self::TwoRoom),
            Keys { setup: None, config: None } => Err(EnvError::Episode {
                path: path.to_owned(),
                message:
                    "holds neither `setup` (Push-T) nor `config` (Two-Room); give an episode file in the \
                          fixture format"
                        .into(),
            }),
            Keys { .. } => Episode::parse(path, text).map(Self::PushT),
        }
    }
}

/// The file's name for messages, and its text.
fn read(path: &Path) -> Result<(String, String), EnvError> {
    let name = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|source| EnvError::Read { path: name.clone(), source })?;
    Ok((name, text))
}

fn parse<'a, T: Deserialize<'a>>(path: &str, text: &'a str) -> Result<T, EnvError> {
    serde_json::from_str(text).map_err(|e| EnvError::Episode {
        path: path.to_owned(),
        message: format!("not an episode in the fixture format: {e}"),
    })
}

fn largest(actual: &[f64], expected: &[f64]) -> Option<f64> {
    (!expected.is_empty()).then(|| actual.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, nan_max))
}

/// A maximum that keeps NaN, so that a broken value cannot pass for a small error.
fn nan_max(a: f64, b: f64) -> f64 {
    if a >= b || a.is_nan() { a } else { b }
}
