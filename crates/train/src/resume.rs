//! What a killed run needs to go on, and how it is written so that a kill at any moment leaves a run that resumes.
//!
//! ```text
//! RUN/config.toml, model.safetensors                 newest checkpoint: all that evaluation needs
//! RUN/resume-1200/{model,optimizer}.safetensors      tensors of step 1200
//! RUN/state.json                                     step and settings; names the directory that counts
//! ```
//!
//! A checkpoint is built under another name, renamed, and counts from the moment `state.json` is switched to it
//! in one rename. Until then the older directory stands complete; only afterwards it is deleted. The files for
//! evaluation are renewed before the switch, so that those of a finished run are its last.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::checkpoint::{self, Tensor, Tensors};

const STATE: &str = "state.json";
const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
/// Beginning of the names of checkpoint directories.
const PREFIX: &str = "resume-";
/// Where a checkpoint directory is built.
const BUILDING: &str = "resume.tmp";

/// `state.json`: what resumption needs besides tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimiser steps done.
    pub step: u64,
    /// Seconds of training, over all resumptions.
    pub seconds: f64,
    /// The run's configuration and data; a resumed run must have the same.
    pub key: String,
    /// The warning about a collapsed embedding has been given.
    pub warned: bool,
    /// Directory of the tensors; empty when they lie in the run directory itself.
    #[serde(default)]
    pub resume: String,
}

/// The state of the run in `directory`; `None` when no checkpoint was written there.
///
/// # Errors
/// When the file cannot be read or is damaged.
pub fn read_state(directory: &Path) -> Result<Option<State>, TrainError> {
    let path = directory.join(STATE);
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(TrainError::io(&path))?,
    };
    let state = serde_json::from_str(&text).map_err(|e| TrainError::Checkpoint {
        path,
        problem: format!("{e}; delete the run directory to start again"),
    })?;
    Ok(Some(state))
}

/// Tensors of the model and of the optimiser that belong to `state`.
///
/// # Errors
/// When a file cannot be read, is damaged or of another step.
pub fn read_tensors(directory: &Path, state: &State) -> Result<[Tensors; 2], TrainError> {
    let read = |name: &str| {
        let path = directory.join(&state.resume).join(name);
        let (tensors, step) = checkpoint::read_tensors(&path)?;
        if step == state.step {
            return Ok(tensors);
        }
        let problem = format!(
            "is of step {step}, state.json of step {}; delete the run directory to start again",
            state.step
        );
        Err(TrainError::Checkpoint { path, problem })
    };
    Ok([read(MODEL)?, read(OPTIMIZER)?])
}

/// Tensors and text of one checkpoint.
pub struct Contents<'a> {
    /// Text of `config.toml`.
    pub config: &'a str,
    /// Everything that training needs of the model.
    pub model: &'a [Tensor<'a>],
    /// What evaluation needs of it.
    pub exported: &'a [Tensor<'a>],
    /// The optimiser's tensors.
    pub optimizer: &'a [Tensor<'a>],
}

/// Writes a checkpoint; `state.resume` names its directory afterwards.
///
/// # Errors
/// When a file cannot be written; the run then resumes from its older checkpoint.
pub fn save(directory: &Path, state: &mut State, contents: &Contents) -> Result<(), TrainError> {
    let next = State { resume: format!("{PREFIX}{}", state.step), ..state.clone() };
    if next.resume != state.resume {
        let (building, target) = (directory.join(BUILDING), directory.join(&next.resume));
        remove(&building)?;
        remove(&target)?;
        fs::create_dir(&building).map_err(TrainError::io(&building))?;
        checkpoint::write_tensors(&building.join(MODEL), contents.model, next.step)?;
        checkpoint::write_tensors(&building.join(OPTIMIZER), contents.optimizer, next.step)?;
        fs::rename(&building, &target).map_err(TrainError::io(&target))?;
    }
    checkpoint::write_atomic(&directory.join("config.toml"), contents.config.as_bytes())?;
    checkpoint::write_tensors(&directory.join(MODEL), contents.exported, next.step)?;
    let text = serde_json::to_string_pretty(&next).map_err(|e| TrainError::Config(e.to_string()))?;
    checkpoint::write_atomic(&directory.join(STATE), text.as_bytes())?;
    *state = next;
    remove_others(directory, &state.resume)
}

/// Deletes every checkpoint directory but `keep`, complete or not.
fn remove_others(directory: &Path, keep: &str) -> Result<(), TrainError> {
    for entry in fs::read_dir(directory).map_err(TrainError::io(directory))? {
        let entry = entry.map_err(TrainError::io(directory))?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name != keep) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), TrainError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(TrainError::io(path)(e)),
        _ => Ok(()),
    }
}
