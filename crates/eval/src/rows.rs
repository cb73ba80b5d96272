//! Rows of the result table.

use std::{collections::BTreeSet, path::Path};

use serde::{Deserialize, Serialize};
use worldbench_env::domain;

use crate::{EvalError, Evaluation, Score};

/// What a row is a row of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    /// Uniform random actions: the floor.
    Random,
    /// Zero actions.
    NoOp,
    /// The recorded actions.
    Replay,
    /// The collection policy.
    Weak,
    /// Planning on the true simulator with the true distance: the ceiling.
    Oracle,
    /// DINO World-Model.
    DinoWm,
    /// Planning with Latent Dynamics Model.
    Pldm,
    /// LeWorldModel.
    LeWm,
    /// Goal-conditioned behavioural cloning.
    Gcbc,
    /// Inverse soft-Q learning.
    IqLearn,
    /// Goal-conditioned implicit Q-learning.
    Gciql,
    /// Goal-conditioned implicit V-learning.
    Gcivl,
    /// Somebody's own program, spoken to over a pipe.
    External,
}

impl System {
    /// Name in tables.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::NoOp => "no-op",
            Self::Replay => "data replay",
            Self::Weak => "weak",
            Self::Oracle => "oracle",
            Self::DinoWm => "DINO-WM",
            Self::Pldm => "PLDM",
            Self::LeWm => "LeWM",
            Self::Gcbc => "GCBC",
            Self::IqLearn => "IQ-Learn",
            Self::Gciql => "GCIQL",
            Self::Gcivl => "GCIVL",
            Self::External => "external agent",
        }
    }

    /// Whether the row is a yardstick rather than a baseline that learns.
    #[must_use]
    pub fn is_reference(self) -> bool {
        self <= Self::Oracle
    }
}

/// One finished row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowResult {
    /// What it is a row of.
    pub system: System,
    /// Planner or kind of policy, e.g. `MPPI`; empty for reference rows.
    #[serde(default)]
    pub planner: String,
    /// Size, encoder, data or other facts that tell rows of one system apart, e.g. `compact`.
    #[serde(default)]
    pub variant: String,
    /// Environment, e.g. `push_t`.
    pub environment: String,
    /// Name of the protocol.
    pub protocol: String,
    /// Hash over protocol and pairs.
    pub protocol_hash: String,
    /// Split or data set of the pairs.
    pub split: String,
    /// Seed of the evaluation.
    pub seed: u64,
    /// Seed that the weights were trained with; none for policies without weights and where it was not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_seed: Option<u64>,
    /// The score.
    pub score: Score,
    /// Directory of the checkpoint, relative to the report; none for policies without weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// Command that makes the row.
    pub command: String,
    /// What a reader should know, e.g. that human demonstrations were used.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl RowResult {
    /// A row from an evaluation; set `planner`, `variant`, `checkpoint` and `notes` where they apply.
    #[must_use]
    pub fn new(system: System, environment: &str, evaluation: &Evaluation, command: &str) -> Self {
        Self {
            system,
            planner: String::new(),
            variant: String::new(),
            environment: environment.into(),
            protocol: evaluation.protocol.clone(),
            protocol_hash: evaluation.key.protocol_hash.clone(),
            split: evaluation.split.clone(),
            seed: evaluation.key.seed,
            train_seed: None,
            score: evaluation.score,
            checkpoint: None,
            command: command.into(),
            notes: Vec::new(),
        }
    }

    /// Writes the row to `path`, in one rename.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), EvalError> {
        let text = serde_json::to_string_pretty(self).map_err(|e| EvalError::io(path)(e.into()))?;
        crate::runner::write_atomic(path, (text + "\n").as_bytes())
    }

    /// `PLDM MPPI (compact)`.
    #[must_use]
    pub fn label(&self) -> String {
        let mut label = self.system.label().to_string();
        if !self.planner.is_empty() {
            label = format!("{label} {}", self.planner);
        }
        if !self.variant.is_empty() {
            label = format!("{label} ({})", self.variant);
        }
        label
    }

    /// Whether both rows were run on the same pairs under the same rules.
    #[must_use]
    pub fn comparable(&self, other: &Self) -> bool {
        self.protocol_hash == other.protocol_hash && self.score.all.n == other.score.all.n
    }
}

/// The rows as an aligned text table for a terminal, reference rows first, each row's command below.
#[must_use]
pub fn terminal_table(rows: &[RowResult]) -> String {
    let mut sorted: Vec<&RowResult> = rows.iter().collect();
    sorted.sort_by_key(|row| row.system);
    let mut lines = vec![[
        "row".to_string(),
        "environment".into(),
        "success [95 % interval], n".into(),
        hard_label(rows).into(),
        "s/plan".into(),
        "protocol".into(),
    ]];
    for row in &sorted {
        lines.push([
            row.label(),
            row.environment.clone(),
            row.score.all.text(),
            row.score.block_moved.text(),
            seconds(row.score.seconds_per_plan),
            format!("{}/{} {}", row.protocol, row.split, row.protocol_hash),
        ]);
    }
    let widths: [usize; 6] =
        std::array::from_fn(|i| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0));
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        let cells: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
        if i == 0 {
            out.push_str(&"-".repeat(widths.iter().sum::<usize>() + 10));
            out.push('\n');
        }
    }
    out.push_str("\ncommands\n");
    for row in sorted {
        out.push_str(&format!("  {} ({}): {}\n", row.label(), seeds_text(&[row]), row.command));
        for note in &row.notes {
            out.push_str(&format!("    note: {note}\n"));
        }
    }
    out
}

/// `training seeds 1, 2; evaluation seed 0`; the latter alone where no training seed was recorded.
pub(crate) fn seeds_text(rows: &[&RowResult]) -> String {
    let list = |what: &str, seeds: BTreeSet<u64>| {
        let numbers: Vec<String> = seeds.iter().map(u64::to_string).collect();
        let plural = if numbers.len() == 1 { "" } else { "s" };
        (!numbers.is_empty()).then(|| format!("{what} seed{plural} {}", numbers.join(", ")))
    };
    let training = list("training", rows.iter().filter_map(|row| row.train_seed).collect());
    let evaluation = list("evaluation", rows.iter().map(|row| row.seed).collect());
    training.into_iter().chain(evaluation).collect::<Vec<_>>().join("; ")
}

/// What tells a row of a system from its others: `MPPI, compact`.
pub(crate) fn tail(row: &RowResult) -> String {
    let parts = [row.planner.as_str(), row.variant.as_str()];
    parts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ")
}

/// What to call the column of hard pairs: by its name in the environment, if all rows are of one.
pub(crate) fn hard_label(rows: &[RowResult]) -> &'static str {
    let name = |row: &RowResult| domain::find(&row.environment).map(|env| env.spec().hard.name);
    let first = rows.first().and_then(name);
    first.filter(|_| rows.iter().all(|row| name(row) == first)).unwrap_or("hard pairs")
}

/// Seconds with two significant digits, `-` for none.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        v if v <= 0.0 => "-".into(),
        v if v < 0.1 => format!("{v:.3}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::outcome::Rate;

    pub(crate) fn row(system: System, successes: usize) -> RowResult {
        let score = Score {
            all: Rate::new(successes, 200),
            block_moved: Rate::new(successes / 2, 150),
            mean_steps: 30.0,
            seconds_per_plan: if system.is_reference() { 0.0 } else { 0.25 },
        };
        RowResult {
            system,
            planner: String::new(),
            variant: String::new(),
            environment: "push_t".into(),
            protocol: "held-out".into(),
            protocol_hash: "0123456789abcdef".into(),
            split: "test".into(),
            seed: 0,
            train_seed: None,
            score,
            checkpoint: None,
            command: "worldbench eval --policy x".into(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn the_table_is_sorted_and_aligned() {
        let mut pldm = row(System::Pldm, 129);
        pldm.planner = "MPPI".into();
        pldm.variant = "compact".into();
        let text = terminal_table(&[pldm, row(System::Random, 4)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].starts_with("random") && lines[3].starts_with("PLDM MPPI (compact)"), "{text}");
        assert_eq!(lines[2].find("push_t"), lines[3].find("push_t"));
        for part in ["64.5 % [57.7, 70.8], n = 200", "n = 150", "0123456789abcdef", "0.25", "--policy x"] {
            assert!(text.contains(part), "{part} missing in\n{text}");
        }
    }

    #[test]
    fn rows_round_trip() {
        let one = row(System::LeWm, 100);
        let text = serde_json::to_string(&one).unwrap();
        assert!(text.contains("\"le-wm\""));
        assert_eq!(serde_json::from_str::<RowResult>(&text).unwrap(), one);
    }
}
