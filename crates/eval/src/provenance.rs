//! Where a result comes from: program, revision, machine, command, and the training behind the weights.
//!
//! `provenance.json` stands in every run directory beside the result. Nothing in it enters a score.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::EvalError;
use crate::results::read_json;

/// Name of the file in a run directory.
pub const PROVENANCE_FILE: &str = "provenance.json";

/// How a run directory came to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Version of worldbench.
    pub version: String,
    /// Source revision; none when the binary does not lie in its checkout.
    #[serde(default)]
    pub git: Option<Git>,
    /// The command as typed.
    pub command: String,
    /// The machine.
    pub machine: Machine,
    /// Threads that the command was given.
    pub threads: usize,
    /// When it was finished, UTC, `2026-11-26T13:00:00Z`.
    pub finished: String,
    /// Most memory that the process held, since [`forget_peak_memory`] or its start, bytes; none where the system does not tell.
    #[serde(default)]
    pub peak_memory: Option<u64>,
    /// The training behind the weights; none for policies without weights.
    #[serde(default)]
    pub training: Option<Training>,
}

/// Revision of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Git {
    /// Hash of the commit.
    pub revision: String,
    /// Whether tracked files differed from it.
    pub modified: bool,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Operating system, e.g. `linux`.
    pub os: String,
    /// Architecture, e.g. `x86_64`.
    pub arch: String,
    /// The processor's own name; empty where the system does not tell.
    pub processor: String,
    /// Processors that the system offers to the process.
    pub cores: usize,
    /// Main memory, bytes; none where the system does not tell.
    #[serde(default)]
    pub memory: Option<u64>,
}

/// A training.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Seed; none where it was not recorded.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Optimiser steps.
    pub steps: u64,
    /// Windows per optimiser step.
    pub batch: usize,
    /// Trained parameters.
    pub parameters: usize,
    /// Seconds of training.
    pub seconds: f64,
    /// Threads.
    pub threads: usize,
    /// Hash of the data set; empty where it was not recorded.
    #[serde(default)]
    pub data_hash: String,
    /// Most memory that the process held, bytes.
    #[serde(default)]
    pub peak_memory: Option<u64>,
    /// The machine; none in the training's own provenance, which names it already, and where it was not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
}

impl Provenance {
    /// What is known about this process now.
    #[must_use]
    pub fn here(command: &str, threads: usize) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            git: Git::of_this_binary(),
            command: command.into(),
            machine: Machine::here(),
            threads,
            finished: utc(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs())),
            peak_memory: status_bytes("/proc/self/status", "VmHWM:"),
            training: None,
        }
    }

    /// Writes it into `dir`, in one rename.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), EvalError> {
        let path = dir.join(PROVENANCE_FILE);
        let text = serde_json::to_string_pretty(self).map_err(|e| EvalError::io(&path)(e.into()))?;
        crate::runner::write_atomic(&path, (text + "\n").as_bytes())
    }

    /// Reads that of `dir`; `None` when there is none.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn load(dir: &Path) -> Result<Option<Self>, EvalError> {
        let path = dir.join(PROVENANCE_FILE);
        if path.is_file() { read_json(&path).map(Some) } else { Ok(None) }
    }
}

impl Training {
    /// The training of the checkpoint in `dir`: from its provenance, else from the card that older versions wrote.
    ///
    /// # Errors
    /// When the provenance is damaged.
    pub fn of_checkpoint(dir: &Path) -> Result<Option<Self>, EvalError> {
        if let Some(Provenance { training: Some(training), machine, .. }) = Provenance::load(dir)? {
            return Ok(Some(Self { machine: Some(machine), ..training }));
        }
        Ok(std::fs::read_to_string(dir.join("card.md")).ok().and_then(|card| Self::of_card(&card)))
    }

    /// Reads `(734 s, 2 threads, seed 0) on 3000 steps of 144 windows`, the hash and the number of parameters.
    fn of_card(card: &str) -> Option<Self> {
        let after = |mark: &str| {
            let rest = &card[card.find(mark)? + mark.len()..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            Some(&rest[..end])
        };
        let before = |mark: &str| {
            let text = &card[..card.find(mark)?];
            Some(&text[text.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |i| i + 1)..])
        };
        Some(Self {
            seed: after(", seed ")?.parse().ok(),
            steps: before(" steps of ")?.parse().ok()?,
            batch: before(" windows")?.parse().ok()?,
            parameters: after("Parameters: ")?.parse().ok()?,
            seconds: before(" s, ")?.parse().ok()?,
            threads: before(" threads")?.parse().ok()?,
            data_hash: after(", hash ").unwrap_or_default().into(),
            peak_memory: None,
            machine: None,
        })
    }
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn here() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            os: std::env::consts::OS.into(),
            arch: std::env::consts::ARCH.into(),
            processor: name.map_or(String::new(), |(_, name)| name.trim().into()),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory: status_bytes("/proc/meminfo", "MemTotal:"),
        }
    }
}

impl Git {
    /// The revision of the checkout that this binary lies in.
    fn of_this_binary() -> Option<Self> {
        let binary = std::env::current_exe().ok()?;
        // A home directory may be some other repository: the checkout must be ours.
        let root: PathBuf =
            binary.ancestors().find(|dir| dir.join("crates/eval/Cargo.toml").is_file())?.into();
        let git = |args: &[&str]| {
            let output = Command::new("git").arg("-C").arg(&root).args(args).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
        };
        let revision = git(&["rev-parse", "HEAD"])?;
        let modified = git(&["status", "--porcelain", "--untracked-files=no"])?;
        Some(Self { revision, modified: !modified.is_empty() })
    }
}

/// Begins a new measurement of the most memory that the process holds, where the system lets it: one process does many things.
pub fn forget_peak_memory() {
    // Without it the peak is that of the whole process so far.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The value of a line `NAME 123 kB` of a file under `/proc`, in bytes.
fn status_bytes(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| 1024 * kib)
}

/// Seconds since 1970 as a UTC date and time.
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // The civil date of a day number, with years that begin in March so that leap days come last.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_795_698_000), "2026-11-26T13:00:00Z");
        assert_eq!(utc(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn provenance_round_trips_and_names_this_machine() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Provenance::load(dir.path()).unwrap(), None);
        let training = Training { seed: Some(3), steps: 10, ..Training::default() };
        let here = Provenance { training: Some(training.clone()), ..Provenance::here("worldbench x", 2) };
        assert!(here.machine.cores > 0 && here.finished.ends_with('Z'));
        here.save(dir.path()).unwrap();
        assert_eq!(Provenance::load(dir.path()).unwrap(), Some(here));
        let of_checkpoint = Training::of_checkpoint(dir.path()).unwrap().unwrap();
        assert_eq!(of_checkpoint, Training { machine: Some(Machine::here()), ..training });
        std::fs::write(dir.path().join(PROVENANCE_FILE), "{").unwrap();
        assert!(Provenance::load(dir.path()).unwrap_err().to_string().contains(PROVENANCE_FILE));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_peak_can_be_forgotten() {
        let peak = || Provenance::here("", 1).peak_memory.unwrap();
        let large = 300_000_000;
        drop(std::hint::black_box(vec![1_u8; large]));
        let before = peak();
        forget_peak_memory();
        assert!(before > large as u64 && peak() < before, "{before}, {}", peak());
    }

    #[test]
    fn older_cards_are_understood() {
        let card = "# lewm-compact\n\nTrained by `worldbench bench --preset quick` (734 s, 2 threads, seed 0) on 3000 \
                    steps of 144 windows.\n\n* Data: `worldbench collect --preset quick`, hash 4af1fe033a507971 \
                    (built-in expert).\n* Parameters: 2425846.\n";
        let training = Training::of_card(card).unwrap();
        assert_eq!((training.seed, training.steps, training.batch), (Some(0), 3000, 144));
        assert_eq!((training.parameters, training.seconds, training.threads), (2_425_846, 734.0, 2));
        assert_eq!(training.data_hash, "4af1fe033a507971");
        assert_eq!(Training::of_card("# something else"), None);
    }
}
