use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use worldbench_env::DomainRef;

use super::{
    Store,
    format::{self, RecordHead},
};
use crate::{
    episode::Episode,
    error::{DataError, Result},
};

/// Appends episodes to a store file.
///
/// Every episode is written with one call and handed to the operating system before [`StoreWriter::append`]
/// returns: a killed process loses at most the episode in flight.
#[derive(Debug)]
pub struct StoreWriter {
    path: PathBuf,
    env: DomainRef,
    file: File,
    /// Set when a write failed half way; nothing may follow a partial record.
    broken: bool,
}

impl StoreWriter {
    /// Makes a new, empty store for episodes of `env`.
    ///
    /// # Errors
    /// When the file exists already or cannot be made.
    pub fn create(path: impl AsRef<Path>, env: DomainRef) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(DataError::io("create", &path))?;
        file.write_all(&format::file_head(env)).map_err(DataError::io("write", &path))?;
        Ok(Self { path, env, file, broken: false })
    }

    /// Opens an existing store to append to it, after verifying it and cutting off the record that a killed writer
    /// left incomplete at its end; returns the writer and the number of episodes already there.
    ///
    /// # Errors
    /// As [`Store::open_unfinished`], and when the file cannot be written.
    pub fn resume(path: impl AsRef<Path>) -> Result<(Self, usize)> {
        let path = path.as_ref().to_path_buf();
        let store = Store::open_unfinished(&path)?;
        let (env, episodes, end) = (store.env(), store.len(), store.end);
        drop(store);
        let file = OpenOptions::new().append(true).open(&path).map_err(DataError::io("open", &path))?;
        file.set_len(end as u64).map_err(DataError::io("write", &path))?;
        Ok((Self { path, env, file, broken: false }, episodes))
    }

    /// Appends one episode.
    ///
    /// # Errors
    /// When the episode is inconsistent ([`Episode::check`]) or the disk refuses; after a failed write the
    /// file may end in a partial record and takes no more episodes.
    pub fn append(&mut self, episode: &Episode) -> Result<()> {
        if self.broken {
            let path = self.path.display();
            return Err(DataError::Invalid(format!(
                "{path}: an earlier write failed; run `worldbench data repair {path}` before appending"
            )));
        }
        if episode.info.env != self.env {
            let (path, ours, theirs) =
                (self.path.display(), self.env.spec().name, episode.info.env.spec().name);
            return Err(DataError::Invalid(format!(
                "{path} is a store of {ours} and takes no episode of {theirs}; write that to a store of its own"
            )));
        }
        episode.check()?;
        let payload = format::encode(episode).map_err(DataError::Episode)?;
        let mut record = RecordHead::encode(&payload).to_vec();
        record.extend(payload);
        self.broken = true;
        self.file.write_all(&record).map_err(DataError::io("write", &self.path))?;
        self.broken = false;
        Ok(())
    }

    /// Forces everything written so far onto the disk, against power loss.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(DataError::io("flush", &self.path))
    }
}
