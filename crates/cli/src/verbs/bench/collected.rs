//! `collect.json`: which data a benchmark stands on.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use worldbench_data::{DataError, Store};
use worldbench_eval::CollectConfig;
use worldbench_train::checkpoint::write_atomic;

/// Key of the finished store's hash beside the settings; files of older versions lack it.
const HASH: &str = "store_hash";

/// The file that stands beside a store once it is complete.
pub struct Collected {
    pub path: PathBuf,
}

impl Collected {
    fn read(&self) -> Result<Map<String, Value>> {
        match std::fs::read_to_string(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Map::new()),
            // One that is no JSON names nothing: the collection is taken up again.
            text => Ok(serde_json::from_str(&text.with_context(|| self.path.display().to_string())?)
                .unwrap_or_default()),
        }
    }

    /// Whether a collection by `config` was finished.
    pub fn names(&self, config: &CollectConfig) -> Result<bool> {
        let mut found = self.read()?;
        found.remove(HASH);
        Ok(found == settings(config)?)
    }

    /// Refuses a store that is damaged, or another than the one that was collected, such as a repaired one.
    pub fn check(&self, store: &Path) -> Result<()> {
        let remedy = "delete it and give the same command again, and it is collected anew";
        let shown = store.display();
        let found = match Store::open(store) {
            Err(DataError::Damaged { episode, reason, .. }) => {
                bail!("{shown}: episode {episode} {reason}; {remedy}")
            }
            found => found?.hash(),
        };
        match self.read()?.get(HASH).and_then(Value::as_str) {
            Some(wanted) if wanted != found => {
                bail!("{shown} has hash {found}, the store that was collected had {wanted}; {remedy}")
            }
            _ => Ok(()),
        }
    }

    /// Notes that `store` holds all of `config`.
    pub fn write(&self, config: &CollectConfig, store: &Store) -> Result<()> {
        let mut note = settings(config)?;
        note.insert(HASH.into(), store.hash().into());
        Ok(write_atomic(&self.path, serde_json::to_string(&note)?.as_bytes())?)
    }
}

/// Settings as the file has them, so that numbers compare as written.
fn settings(config: &CollectConfig) -> Result<Map<String, Value>> {
    Ok(serde_json::from_str(&serde_json::to_string(config)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_store_that_was_collected_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let config = |seed| CollectConfig {
            env: "two_room".into(),
            seed,
            sources: 2,
            replays_per_source: 1,
            play_share: 0.0,
            ..CollectConfig::default()
        };
        let [ours, theirs] = [0, 1].map(|seed| {
            let path = directory.path().join(format!("{seed}.wbs"));
            worldbench_eval::collect(&config(seed), &path, |_| ()).unwrap();
            path
        });
        let marker = Collected { path: directory.path().join("collect.json") };
        assert!(!marker.names(&config(0)).unwrap());
        // As older versions wrote it: without the store's hash.
        write_atomic(&marker.path, serde_json::to_string(&config(0)).unwrap().as_bytes()).unwrap();
        assert!(marker.names(&config(0)).unwrap() && !marker.names(&config(1)).unwrap());
        marker.check(&theirs).unwrap();
        marker.write(&config(0), &Store::open(&ours).unwrap()).unwrap();
        assert!(marker.names(&config(0)).unwrap());
        marker.check(&ours).unwrap();
        let refused = |path| marker.check(path).unwrap_err().to_string();
        assert!(refused(&theirs).contains("had") && refused(&theirs).contains("delete it"));
        let mut bytes = std::fs::read(&ours).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&ours, bytes).unwrap();
        let message = refused(&ours);
        assert!(message.contains("delete it") && !message.contains("repair"), "{message}");
    }
}
