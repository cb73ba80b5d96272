use std::path::{Path, PathBuf};

/// Result of this crate's operations.
pub type Result<T> = std::result::Result<T, DataError>;

/// Why data could not be read, written or used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// File concerned.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The file is something else, or of another version.
    #[error("{path} is not a worldbench store this version can read: {reason}")]
    NotAStore {
        /// File concerned.
        path: PathBuf,
        /// What was found and what to do.
        reason: String,
    },
    /// An episode record is incomplete or its bytes changed.
    #[error(
        "{path}: episode {episode} {reason}; run `worldbench data repair {path}` to keep the good episodes"
    )]
    Damaged {
        /// File concerned.
        path: PathBuf,
        /// Index of the first bad episode.
        episode: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// An episode whose parts do not fit together.
    #[error("bad episode: {0}")]
    Episode(String),
    /// An index, size or option outside its range.
    #[error("{0}")]
    Invalid(String),
    /// A foreign data set could not be imported.
    #[error("cannot import {path}: {reason}")]
    Import {
        /// File concerned.
        path: PathBuf,
        /// Which column or episode, and why.
        reason: String,
    },
    /// A file in a foreign format could not be written.
    #[error("cannot export to {path}: {reason}")]
    Export {
        /// File concerned.
        path: PathBuf,
        /// What could not be written, and why.
        reason: String,
    },
    /// The renderer or the simulator refused an episode's settings.
    #[error("episode {episode}: {reason}")]
    Env {
        /// Episode index.
        episode: usize,
        /// The environment's message.
        reason: String,
    },
}

impl DataError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
