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
        let mut json = serde_json::Map::new();
        json.insert("step".into(), step.into());
        json.insert("split".into(), split.into());
        for (name, value) in metrics {
            json.insert((*name).into(), f64::from(*value).into());
        }
        let columns = self.columns(metrics)?;
        let value = |column: &String| {
            let found = metrics.iter().find(|(name, _)| name == column);
            found.map_or(String::new(), |(_, value)| value.to_string())
        };
        let values: Vec<String> = columns.iter().map(value).collect();
        self.append("log.csv", &format!("{step},{split},{}", values.join(",")))?;
        self.append("log.jsonl", &serde_json::Value::Object(json).to_string())
    }

    /// The metrics of `log.csv` by its header, which grows when one comes that it lacks; rows before it get empty cells.
    fn columns(&self, metrics: &Metrics) -> Result<Vec<String>, TrainError> {
        let path = self.directory.join("log.csv");
        let text = if path.exists() {
            fs::read_to_string(&path).map_err(TrainError::io(&path))?
        } else {
            String::new()
        };
        let (header, rows) = text.split_once('\n').unwrap_or(("step,split", ""));
        let mut columns: Vec<String> = header.split(',').skip(2).map(String::from).collect();
        let known = columns.len();
        for (name, _) in metrics {
            if !columns.iter().any(|column| column == name) {
                columns.push((*name).into());
            }
        }
        if columns.len() > known {
            let cells = ",".repeat(columns.len() - known);
            let rows: String = rows.lines().map(|row| format!("{row}{cells}\n")).collect();
            write_atomic(&path, format!("step,split,{}\n{rows}", columns.join(",")).as_bytes())?;
        }
        Ok(columns)
    }

    fn append(&self, name: &str, line: &str) -> Result<(), TrainError> {
        let path = self.directory.join(name);
        let write = || -> std::io::Result<()> {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_names_every_metric() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::open(directory.path(), 0).unwrap();
        log.row("train", 1, &vec![("loss", 0.5)]).unwrap();
        log.row("val", 1, &vec![("rank", 7.0), ("loss", 0.25)]).unwrap();
        log.row("train", 2, &vec![("loss", 0.125)]).unwrap();
        let text = fs::read_to_string(directory.path().join("log.csv")).unwrap();
        assert_eq!(text, "step,split,loss,rank\n1,train,0.5,\n1,val,0.25,7\n2,train,0.125,\n");
    }
}
