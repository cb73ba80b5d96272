//! The journal of finished episodes: one JSON line each behind a header line with the run's key.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{EPISODES_FILE, RunKey, write_atomic};
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
        let (header, kept) = parse(&path, &text[..whole])?;
        if let Some(header) = header {
            same_run(&path, &header, key)?;
        }
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

    pub(super) fn append<T: Serialize>(&mut self, value: &T) -> Result<(), EvalError> {
        let mut line = serde_json::to_vec(value).map_err(|e| EvalError::io(&self.path)(e.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).and_then(|()| self.file.sync_data()).map_err(EvalError::io(&self.path))
    }
}

/// Key and episodes of the text of a journal; neither of an empty one.
fn parse(path: &Path, text: &[u8]) -> Result<(Option<RunKey>, Vec<EpisodeOutcome>), EvalError> {
    let corrupt = |line: usize, e: serde_json::Error| EvalError::ResumeCorrupt {
        path: path.display().to_string(),
        line,
        message: e.to_string(),
    };
    let mut lines = text.split(|&b| b == b'\n').filter(|line| !line.is_empty()).enumerate();
    let Some((_, header)) = lines.next() else { return Ok((None, Vec::new())) };
    let key = serde_json::from_slice(header).map_err(|e| corrupt(1, e))?;
    let episodes = lines.map(|(i, line)| serde_json::from_slice(line).map_err(|e| corrupt(i + 1, e)));
    Ok((Some(key), episodes.collect::<Result<_, _>>()?))
}

/// Key and episodes in the file at `path`.
///
/// # Errors
/// When it cannot be read or is damaged.
pub(crate) fn read_episodes(path: &Path) -> Result<(RunKey, Vec<EpisodeOutcome>), EvalError> {
    let text = std::fs::read(path).map_err(EvalError::io(path))?;
    match parse(path, &text)? {
        (Some(key), episodes) => Ok((key, episodes)),
        (None, _) => Err(EvalError::ResumeCorrupt {
            path: path.display().to_string(),
            line: 1,
            message: "the file is empty".into(),
        }),
    }
}

/// Writes the episode file of `dir` anew, in one rename.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_episodes<'a>(
    dir: &Path,
    key: &RunKey,
    episodes: impl IntoIterator<Item = &'a EpisodeOutcome>,
) -> Result<(), EvalError> {
    let path = dir.join(EPISODES_FILE);
    let json = |e: serde_json::Error| EvalError::io(&path)(e.into());
    let mut text = serde_json::to_vec(key).map_err(json)?;
    text.push(b'\n');
    for episode in episodes {
        serde_json::to_writer(&mut text, episode).map_err(json)?;
        text.push(b'\n');
    }
    write_atomic(&path, &text)
}

/// The first field in which two runs differ, with both values.
pub(crate) fn difference(there: &RunKey, here: &RunKey) -> Option<(&'static str, String, String)> {
    let fields =
        |key: &RunKey| [&key.protocol_hash, &key.policy, &key.checkpoint, &key.settings].map(String::clone);
    let names = ["protocol hash", "policy", "checkpoint", "settings", "seed"];
    let values = |key: &RunKey| fields(key).into_iter().chain([key.seed.to_string()]);
    let mut both = names.into_iter().zip(values(there).zip(values(here)));
    both.find(|(_, (there, here))| there != here).map(|(name, (there, here))| (name, there, here))
}

/// Refuses episodes of another run, naming the first difference.
fn same_run(path: &Path, found: &RunKey, wanted: &RunKey) -> Result<(), EvalError> {
    match difference(found, wanted) {
        Some((field, found, wanted)) => {
            Err(EvalError::ResumeMismatch { path: path.display().to_string(), field, found, wanted })
        }
        None => Ok(()),
    }
}
