//! The journal of finished episodes: one JSON line each behind a header line with the run's key.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{EPISODES_FILE, RunKey};
use crate::{EpisodeOutcome, EvalError};

/// The file of finished episodes.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens or creates the journal in `dir` and returns the episodes it holds.
    pub(super) fn open(dir: &Path, key: &RunKey) -> Result<(Vec<EpisodeOutcome>, Self), EvalError> {
        std::fs::create_dir_all(dir).map_err(EvalError::io(dir))?;
        let path = dir.join(EPISODES_FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(EvalError::io(&path)(e)),
        };
        // What follows the last newline was torn by a kill.
        let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
        let kept = Self::parse(&path, &text[..whole], key)?;
        let mut options = OpenOptions::new();
        let file =
            options.create(true).write(true).truncate(false).open(&path).map_err(EvalError::io(&path))?;
        file.set_len(whole as u64).map_err(EvalError::io(&path))?;
        let mut journal = Self { path, file };
        std::io::Seek::seek(&mut journal.file, std::io::SeekFrom::End(0))
            .map_err(EvalError::io(&journal.path))?;
        if whole == 0 {
            journal.append(key)?;
        }
        Ok((kept, journal))
    }

    fn parse(path: &Path, text: &[u8], key: &RunKey) -> Result<Vec<EpisodeOutcome>, EvalError> {
        let corrupt = |line: usize, e: serde_json::Error| EvalError::ResumeCorrupt {
            path: path.display().to_string(),
            line,
            message: e.to_string(),
        };
        let mut lines = text.split(|&b| b == b'\n').filter(|line| !line.is_empty()).enumerate();
        if let Some((_, header)) = lines.next() {
            let found = serde_json::from_slice(header).map_err(|e| corrupt(1, e))?;
            same_run(path, &found, key)?;
        }
        lines.map(|(i, line)| serde_json::from_slice(line).map_err(|e| corrupt(i + 1, e))).collect()
    }

    pub(super) fn append<T: Serialize>(&mut self, value: &T) -> Result<(), EvalError> {
        let mut line = serde_json::to_vec(value).map_err(|e| EvalError::io(&self.path)(e.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).and_then(|()| self.file.sync_data()).map_err(EvalError::io(&self.path))
    }
}

/// Refuses episodes of another run, naming the first difference.
fn same_run(path: &Path, found: &RunKey, wanted: &RunKey) -> Result<(), EvalError> {
    let seeds = (found.seed.to_string(), wanted.seed.to_string());
    for (field, there, here) in [
        ("protocol hash", &found.protocol_hash, &wanted.protocol_hash),
        ("policy", &found.policy, &wanted.policy),
        ("checkpoint", &found.checkpoint, &wanted.checkpoint),
        ("settings", &found.settings, &wanted.settings),
        ("seed", &seeds.0, &seeds.1),
    ] {
        if there != here {
            return Err(EvalError::ResumeMismatch {
                path: path.display().to_string(),
                field,
                found: there.clone(),
                wanted: here.clone(),
            });
        }
    }
    Ok(())
}
