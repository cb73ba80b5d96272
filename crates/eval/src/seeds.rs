//! Rows of one system over several seeds: mean, smallest and largest success rate.
//!
//! A Wilson interval covers the choice of pairs for one trained model and one random stream; it says nothing about the
//! spread between trainings. Rows that differ in seeds alone are therefore shown together, and a learned row with a
//! single training seed is marked.

use serde::Serialize;

use crate::RowResult;

/// Mean, smallest and largest of some rates, each in `[0, 1]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    /// Of the given rates; zeros when there are none.
    #[must_use]
    pub fn of(rates: &[f64]) -> Self {
        if rates.is_empty() {
            return Self::default();
        }
        Self {
            mean: rates.iter().sum::<f64>() / rates.len() as f64,
            min: rates.iter().copied().fold(f64::INFINITY, f64::min),
            max: rates.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    /// `78.5 % (77.0 to 80.5)`.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{:.1} % ({:.1} to {:.1})", 100.0 * self.mean, 100.0 * self.min, 100.0 * self.max)
    }
}

/// Rows that differ in seeds alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeedGroup {
    /// Name of the row, e.g. `PLDM MPPI (compact)`.
    pub label: String,
    /// Indices of the rows in the list that was grouped, by ascending seeds.
    pub rows: Vec<usize>,
    /// Seeds of the evaluations, ascending.
    pub eval_seeds: Vec<u64>,
    /// Trainings behind the rows; 0 for policies without weights.
    pub trainings: usize,
    /// All pairs. Over the trainings where there are several (each the mean of its evaluations), else over the evaluations.
    pub all: Spread,
    /// The pairs whose block moves, likewise.
    pub block_moved: Spread,
}

impl SeedGroup {
    /// Whether it is a learned row from one training alone, whose spread between trainings is unknown.
    #[must_use]
    pub fn one_seed(&self) -> bool {
        self.trainings == 1
    }

    /// `3: 78.0 % (76.5 to 79.0)`, `one`, or `-` for policies without weights.
    #[must_use]
    pub fn trainings_text(&self) -> String {
        match self.trainings {
            0 => "-".into(),
            1 => "one".into(),
            n => format!("{n}: {}", self.all.text()),
        }
    }

    /// What tells `row` from the others of the group: `seed 1`, `evaluation seed 2`; empty where it is the only one.
    #[must_use]
    pub fn tag(&self, row: &RowResult) -> String {
        let training = row.train_seed.filter(|_| self.trainings > 1).map(|seed| format!("seed {seed}"));
        let several = self.eval_seeds.len() > 1;
        let evaluation = several.then(|| format!("evaluation seed {}", row.seed));
        training.into_iter().chain(evaluation).collect::<Vec<_>>().join(", ")
    }

    /// `3 training seeds, 2 evaluation seeds`.
    #[must_use]
    pub fn seeds_text(&self) -> String {
        let count = |n: usize, what: &str| format!("{n} {what} seed{}", if n == 1 { "" } else { "s" });
        let evaluations = count(self.eval_seeds.len(), "evaluation");
        match self.trainings {
            0 => evaluations,
            n => format!("{}, {evaluations}", count(n, "training")),
        }
    }
}

/// Rows of the same system, planner, variant, environment and pairs, together, in the order of their first rows. A
/// repeated pair of training and evaluation seed is another experiment and begins a group of its own.
#[must_use]
pub fn group(rows: &[RowResult]) -> Vec<SeedGroup> {
    let mut members: Vec<Vec<usize>> = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let fits = |group: &Vec<usize>| {
            same_but_seeds(&rows[group[0]], row) && group.iter().all(|&j| seeds(&rows[j]) != seeds(row))
        };
        match members.iter_mut().find(|group| fits(group)) {
            Some(group) => group.push(i),
            None => members.push(vec![i]),
        }
    }
    for group in &mut members {
        group.sort_by_key(|&i| seeds(&rows[i]));
    }
    members.into_iter().map(|group| summarise(rows, group)).collect()
}

fn same_but_seeds(a: &RowResult, b: &RowResult) -> bool {
    let same = |row: &RowResult| {
        (row.system, row.planner.clone(), row.variant.clone(), row.environment.clone(), row.split.clone())
    };
    a.comparable(b) && same(a) == same(b) && trained(a) == trained(b)
}

/// Whether there was a training; not every checkpoint is kept.
fn trained(row: &RowResult) -> bool {
    row.checkpoint.is_some() || row.train_seed.is_some()
}

/// Training and evaluation seed. Where no training seed was recorded, the checkpoint's name stands for it.
fn seeds(row: &RowResult) -> (Option<u64>, Option<&str>, u64) {
    let name = if row.train_seed.is_some() { None } else { row.checkpoint.as_deref() };
    (row.train_seed, name, row.seed)
}

fn summarise(rows: &[RowResult], group: Vec<usize>) -> SeedGroup {
    let first = &rows[group[0]];
    let training = |i: usize| (seeds(&rows[i]).0, seeds(&rows[i]).1);
    let mut trainings: Vec<_> = group.iter().map(|&i| training(i)).collect();
    trainings.sort_unstable();
    trainings.dedup();
    let mut eval_seeds: Vec<u64> = group.iter().map(|&i| rows[i].seed).collect();
    eval_seeds.sort_unstable();
    eval_seeds.dedup();
    let spread = |rate: fn(&RowResult) -> f64| {
        if trainings.len() < 2 {
            return Spread::of(&group.iter().map(|&i| rate(&rows[i])).collect::<Vec<_>>());
        }
        let means = trainings.iter().map(|&t| {
            let own = group.iter().filter(|&&i| training(i) == t).map(|&i| rate(&rows[i]));
            Spread::of(&own.collect::<Vec<_>>()).mean
        });
        Spread::of(&means.collect::<Vec<_>>())
    };
    SeedGroup {
        label: first.label(),
        eval_seeds,
        trainings: if trained(first) { trainings.len() } else { 0 },
        all: spread(|row| row.score.all.rate),
        block_moved: spread(|row| row.score.block_moved.rate),
        rows: group,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::System;
    use crate::rows::tests::row;

    fn learned(successes: usize, train_seed: u64, seed: u64) -> RowResult {
        RowResult {
            train_seed: Some(train_seed),
            seed,
            checkpoint: Some(format!("runs/{train_seed}")),
            ..row(System::Pldm, successes)
        }
    }

    #[test]
    fn trainings_are_spread_over_the_means_of_their_evaluations() {
        let rows = [
            learned(100, 0, 0),
            learned(120, 0, 1),
            learned(140, 1, 0),
            learned(160, 1, 1),
            row(System::Random, 10),
        ];
        let groups = group(&rows);
        assert_eq!(groups.len(), 2);
        assert_eq!((groups[0].trainings, groups[0].eval_seeds.clone()), (2, vec![0, 1]));
        assert_eq!(groups[0].all.text(), "65.0 % (55.0 to 75.0)");
        assert_eq!(groups[0].seeds_text(), "2 training seeds, 2 evaluation seeds");
        assert_eq!(groups[0].trainings_text(), "2: 65.0 % (55.0 to 75.0)");
        assert_eq!(groups[1].trainings_text(), "-");
        assert!(!groups[0].one_seed() && !groups[1].one_seed());
        let reversed = group(&[learned(160, 1, 0), learned(120, 0, 1), learned(100, 0, 0)]);
        assert_eq!(reversed[0].rows, [2, 1, 0]);
        let thrown_away = RowResult { checkpoint: None, ..learned(100, 1, 0) };
        assert_eq!(group(&[learned(100, 0, 0), thrown_away])[0].trainings, 2);
        assert_eq!(groups[1].seeds_text(), "1 evaluation seed");
    }

    #[test]
    fn one_training_is_marked_and_repetitions_stand_alone() {
        let groups = group(&[learned(100, 0, 0), learned(120, 0, 1), learned(90, 0, 0)]);
        assert_eq!(groups.iter().map(|g| g.rows.len()).collect::<Vec<_>>(), [2, 1]);
        assert!(groups.iter().all(|group| group.one_seed() && group.trainings_text() == "one"));
        assert_eq!(groups[0].all.text(), "55.0 % (50.0 to 60.0)");
        let mut other = learned(100, 1, 0);
        other.protocol_hash = "other".into();
        assert_eq!(group(&[learned(100, 0, 0), other]).len(), 2);
    }
}
