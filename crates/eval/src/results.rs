//! Result directories: what `eval --out` and `bench` leave behind, read again.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::provenance::{PROVENANCE_FILE, Provenance, Training};
use crate::runner::{EPISODES_FILE, RunKey, read_episodes};
use crate::{EpisodeOutcome, EvalError, RowResult};

/// The row in a result directory.
pub const SUMMARY_FILE: &str = "summary.json";

/// Directories deeper than this below the one given are not looked into.
const DEPTH: usize = 5;

/// One row with everything that stands beside it.
#[derive(Clone, Debug)]
pub struct ResultDir {
    /// The directory.
    pub path: PathBuf,
    /// The row.
    pub row: RowResult,
    /// Key and outcomes of its episodes, in manifest order; none when only the row was kept.
    pub episodes: Option<(RunKey, Vec<EpisodeOutcome>)>,
    /// How the result came to be, where that was recorded.
    pub provenance: Option<Provenance>,
    /// The training behind its weights, where that was recorded.
    pub training: Option<Training>,
    /// The row's checkpoint directory, where it lies in one of the usual places.
    pub checkpoint: Option<PathBuf>,
    /// The run or checkpoint directory that holds the training's log, where it lies in one of the usual places.
    pub log: Option<PathBuf>,
}

/// Reads a JSON file.
///
/// # Errors
/// Names the file when it cannot be read or is not of the form `T`.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, EvalError> {
    let text = std::fs::read_to_string(path).map_err(EvalError::io(path))?;
    serde_json::from_str(&text).map_err(|e| EvalError::Results {
        dir: path.display().to_string(),
        message: format!("{e}; make it again with the command that wrote it"),
    })
}

impl ResultDir {
    /// Reads the result directory `path`.
    ///
    /// # Errors
    /// When it holds no summary, or a file of it is damaged or does not fit the others.
    pub fn load(path: &Path) -> Result<Self, EvalError> {
        let fail = |message: String| EvalError::Results { dir: path.display().to_string(), message };
        let summary = path.join(SUMMARY_FILE);
        if !summary.is_file() {
            return Err(fail(
                "is no finished result: there is no summary.json in it; results are made by `eval --out DIR`"
                    .into(),
            ));
        }
        let mut row: RowResult = read_json(&summary)?;
        let journal = path.join(EPISODES_FILE);
        let episodes = match journal.is_file() {
            true => Some(episodes_of(&journal, &row).map_err(|e| match e {
                EvalError::Options(message) => fail(message),
                other => other,
            })?),
            false => None,
        };
        let provenance = Provenance::load(path)?;
        let homes = row.checkpoint.as_deref().map(|c| homes(path, c)).unwrap_or_default();
        let mut training = provenance.as_ref().and_then(|p| p.training.clone());
        for home in &homes {
            if training.is_none() {
                training = Training::of_checkpoint(home)?;
            }
        }
        row.train_seed = row.train_seed.or(training.as_ref().and_then(|t| t.seed));
        let with = |file: &str| homes.iter().find(|home| home.join(file).is_file()).cloned();
        let (checkpoint, log) = (with("model.safetensors"), with("log.csv"));
        Ok(Self { path: path.into(), row, episodes, provenance, training, checkpoint, log })
    }

    /// Whether the other is this very result, though perhaps in another directory: the same episodes, measured times apart.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        let same = |(a, b): (&EpisodeOutcome, &EpisodeOutcome)| {
            (a.index, a.success, &a.actions) == (b.index, b.success, &b.actions)
        };
        let episodes = self.episodes.as_ref().zip(other.episodes.as_ref());
        let equal = episodes.is_some_and(|((key, mine), (other_key, theirs))| {
            key == other_key && mine.len() == theirs.len() && mine.iter().zip(theirs).all(same)
        });
        self.path == other.path || equal && self.row.label() == other.row.label()
    }

    /// All result directories in and below `root`, in the order of their paths.
    ///
    /// # Errors
    /// When there is none, or one is damaged.
    pub fn find(root: &Path) -> Result<Vec<Self>, EvalError> {
        let mut dirs = Vec::new();
        walk(root, DEPTH, &mut |dir| {
            if dir.join(SUMMARY_FILE).is_file() {
                dirs.push(dir.to_path_buf());
            }
        });
        if dirs.is_empty() {
            return Err(EvalError::Results {
                dir: root.display().to_string(),
                message: "holds no finished result (no summary.json in or below it); results are made by \
                          `eval --out DIR` and `bench`"
                    .into(),
            });
        }
        dirs.iter().map(|dir| Self::load(dir)).collect()
    }
}

/// The episodes that the row counts, in manifest order.
fn episodes_of(journal: &Path, row: &RowResult) -> Result<(RunKey, Vec<EpisodeOutcome>), EvalError> {
    let (key, mut outcomes) = read_episodes(journal)?;
    outcomes.sort_by_key(|outcome| outcome.index);
    outcomes.dedup_by_key(|outcome| outcome.index);
    outcomes.truncate(row.score.all.n);
    let successes = outcomes.iter().filter(|outcome| outcome.success).count();
    if key.protocol_hash != row.protocol_hash
        || (outcomes.len(), successes) != (row.score.all.n, row.score.all.successes)
    {
        return Err(EvalError::Options(format!(
            "summary.json ({}) and episodes.jsonl ({successes} successes in {} episodes) are not of one run; \
             give the command of the run again",
            row.score.all.text(),
            outcomes.len(),
        )));
    }
    Ok((key, outcomes))
}

/// Where the checkpoint of a row may lie: as the row says, from a directory above the result or from here, and where
/// `bench` and `benchmarks/` keep the runs.
fn homes(result: &Path, checkpoint: &str) -> Vec<PathBuf> {
    let said = Path::new(checkpoint);
    let name = said.file_name().map(PathBuf::from).unwrap_or_default();
    let mut homes = Vec::new();
    for above in result.ancestors().skip(1).take(4) {
        homes.extend([above.join(said), above.join("train").join(&name), above.join(&name)]);
    }
    homes.push(said.to_path_buf());
    let holds = |dir: &PathBuf| {
        let files = ["log.csv", "card.md", PROVENANCE_FILE];
        files.iter().any(|file| dir.join(file).is_file()) && !dir.join(SUMMARY_FILE).is_file()
    };
    homes.retain(holds);
    homes
}

/// A result, finished or not, in or below `root`.
pub(crate) fn result_below(root: &Path) -> Option<PathBuf> {
    let mut found = None;
    walk(root, DEPTH, &mut |dir| {
        if found.is_none() && [SUMMARY_FILE, EPISODES_FILE].iter().any(|file| dir.join(file).is_file()) {
            found = Some(dir.to_path_buf());
        }
    });
    found
}

/// Shows `visit` every directory in and below `dir`, sorted.
pub(crate) fn walk(dir: &Path, depth: usize, visit: &mut dyn FnMut(&Path)) {
    visit(dir);
    let Some(left) = depth.checked_sub(1) else { return };
    let mut below: Vec<PathBuf> = std::fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect())
        .unwrap_or_default();
    below.sort();
    below.iter().for_each(|dir| walk(dir, left, visit));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows committed with the published table.
    fn committed() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks/push_t")
    }

    #[test]
    fn the_committed_results_are_read_with_their_training() {
        let all = ResultDir::find(&committed()).unwrap();
        assert!(all.len() >= 8);
        let pldm = all.iter().find(|r| r.path.ends_with("pldm-compact-cem")).unwrap();
        assert_eq!(pldm.episodes.as_ref().unwrap().1.len(), pldm.row.score.all.n);
        assert!(pldm.training.as_ref().unwrap().parameters > 1_000_000);
        assert_eq!(pldm.row.train_seed, Some(0));
        assert!(pldm.log.as_ref().unwrap().ends_with("pldm-compact"));
    }

    #[test]
    fn a_copy_is_the_same_result_and_another_seed_is_not() {
        let rows = committed().join("rows");
        let load = |name: &str| ResultDir::load(&rows.join(name)).unwrap();
        let (first, other) = (load("gcbc-compact"), load("gcbc-compact-seed1"));
        let mut copy = ResultDir { path: "copy".into(), ..first.clone() };
        copy.episodes.as_mut().unwrap().1[0].plan_seconds += 1.0;
        assert!(first.same_as(&copy) && !first.same_as(&other));
        copy.episodes.as_mut().unwrap().1[0].success ^= true;
        assert!(!first.same_as(&copy));
    }

    #[test]
    fn directories_without_results_and_mixed_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let fails = |result: Result<ResultDir, EvalError>| result.unwrap_err().to_string();
        assert!(fails(ResultDir::load(dir.path())).contains("summary.json"));
        assert!(ResultDir::find(dir.path()).unwrap_err().to_string().contains("eval --out"));
        let rows = committed().join("rows");
        std::fs::copy(rows.join("pldm-compact-cem/episodes.jsonl"), dir.path().join(EPISODES_FILE)).unwrap();
        std::fs::copy(rows.join("lewm-compact-cem/summary.json"), dir.path().join(SUMMARY_FILE)).unwrap();
        assert!(fails(ResultDir::load(dir.path())).contains("not of one run"));
        std::fs::write(dir.path().join(SUMMARY_FILE), "{}").unwrap();
        assert!(fails(ResultDir::load(dir.path())).contains("missing field"));
    }
}
