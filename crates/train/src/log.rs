//! Training logs: `log.csv` and `log.jsonl`, one row per logged step.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::checkpoint::write_atomic;
use crate::{Metrics, TrainError};

/// Appends metrics to both logs of a run.
pub struct Log {
    directory: PathBuf,
}

impl Log {
    /// Opens the logs in `directory`. Rows after step `resume_at` (written after the checkpoint that the run
    /// resumes from) are cut off.
    ///
    /// # Errors
    /// When a log cannot be read or written.
    pub fn open(directory: &Path, resume_at: u64) -> Result<Self, TrainError> {
        for (name, step_of) in [("log.csv", csv_step as fn(&str) -> Option<u64>), ("log.jsonl", json_step)] {
            let path = directory.join(name);
            if let Ok(text) = fs::read_to_string(&path) {
                // The CSV's header has no step and stays.
                let keep: String = text
                    .split_inclusive('\n')
                    .enumerate()
                    .filter(|(i, line)| {
                        let header = *i == 0 && name == "log.csv";
                        line.ends_with('\n') && (header || step_of(line).is_some_and(|s| s <= resume_at))
                    })
                    .map(|(_, line)| line)
                    .collect();
                let keep = if resume_at == 0 { String::new() } else { keep };
                write_atomic(&path, keep.as_bytes())?;
            }
        }
        Ok(Self { directory: directory.into() })
    }

    /// Appends a row. `split` is `train` or `val`.
    ///
    /// # Errors
    /// When a log cannot be written.
    pub fn row(&self, split: &str, step: u64, metrics: &Metrics) -> Result<(), TrainError> {
        let mut line = format!("{step},{split}");
        let mut json = serde_json::Map::new();
        json.insert("step".into(), step.into());
        json.insert("split".into(), split.into());
        for (name, value) in metrics {
            line += &format!(",{value}");
            json.insert((*name).into(), f64::from(*value).into());
        }
        let header = metrics.iter().fold("step,split".to_string(), |h, (name, _)| h + "," + name);
        self.append("log.csv", Some(&header), &line)?;
        self.append("log.jsonl", None, &serde_json::Value::Object(json).to_string())
    }

    fn append(&self, name: &str, header: Option<&str>, line: &str) -> Result<(), TrainError> {
        let path = self.directory.join(name);
        let write = || -> std::io::Result<()> {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
            if let Some(header) = header.filter(|_| file.metadata().is_ok_and(|m| m.len() == 0)) {
                writeln!(file, "{header}")?;
            }
            writeln!(file, "{line}")
        };
        write().map_err(TrainError::io(&path))
    }
}

fn csv_step(line: &str) -> Option<u64> {
    line.split(',').next()?.parse().ok()
}

fn json_step(line: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(line).ok()?.get("step")?.as_u64()
}
