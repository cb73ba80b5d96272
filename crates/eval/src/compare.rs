//! Two policies on the same pairs.
//!
//! Pairs differ far more in difficulty than policies do, so the comparison is paired: McNemar's exact test looks only at
//! the pairs that one policy solves and the other does not, and the bootstrap draws whole pairs. With several evaluation
//! seeds a pair counts with its mean success, and the test is the exact sign test over the pairs whose means differ, of
//! which McNemar's is the case of one seed.

use serde::Serialize;
use worldbench_core::Stream;

use crate::stats::{Interval, mcnemar};
use crate::{EvalError, ResultDir};

/// Resamples of the bootstrap.
const RESAMPLES: usize = 10_000;
/// Normal quantiles of a two-sided 5 % test ...
const Z_TEST: f64 = 1.959_963_984_540_054;
/// ... and of 80 % power.
const Z_POWER: f64 = 0.841_621_233_572_914_3;
/// Two-sided level below which a difference is called one.
const LEVEL: f64 = 0.05;

/// One policy of a comparison: its evaluation, or several that differ in the seed.
#[derive(Clone, Debug)]
pub struct Side {
    /// What it is called in the output.
    pub label: String,
    /// The evaluations.
    pub runs: Vec<ResultDir>,
}

/// Outcome of a paired comparison on some pairs. `A` and `B` are the sides in the order given.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Paired {
    /// Pairs.
    pub n: usize,
    /// Mean success of A, in `[0, 1]`.
    pub rate_a: f64,
    /// Mean success of B.
    pub rate_b: f64,
    /// `rate_a - rate_b`.
    pub difference: f64,
    /// Bootstrap 95 % interval of the difference, in `[-1, 1]`.
    pub interval: Interval,
    /// Pairs where A succeeds more often.
    pub a_better: usize,
    /// Pairs where B succeeds more often.
    pub b_better: usize,
    /// Two-sided exact p-value of no difference.
    pub p: f64,
    /// Pairs that would show a difference of this size in four of five repetitions; none for no difference.
    pub pairs_needed: Option<usize>,
}

/// A comparison of two policies.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Name of A.
    pub a: String,
    /// Name of B.
    pub b: String,
    /// Environment.
    pub environment: String,
    /// Protocol and split.
    pub protocol: String,
    /// Hash over protocol and pairs, equal for both.
    pub protocol_hash: String,
    /// Evaluations of A and of B.
    pub evaluations: [usize; 2],
    /// All pairs.
    pub all: Paired,
    /// The pairs whose block moves.
    pub block_moved: Paired,
    /// Indices of the pairs where A succeeds more often.
    pub only_a: Vec<usize>,
    /// Indices of the pairs where B succeeds more often.
    pub only_b: Vec<usize>,
    /// What a reader should know before believing the difference.
    pub warnings: Vec<String>,
}

/// One pair: index, whether its block moves, mean success of A and of B.
#[derive(Clone)]
struct Row {
    index: usize,
    block_moved: bool,
    success: [f64; 2],
}

/// Compares two policies that were run on the same pairs under the same rules.
///
/// # Errors
/// When a side has no episodes, or protocol, pairs or the number of episodes differ.
pub fn compare(a: &Side, b: &Side) -> Result<Comparison, EvalError> {
    let sides = [a, b];
    let rows = pair_up(&sides)?;
    let first = &a.runs[0].row;
    let all = paired(&rows);
    let moved: Vec<Row> = rows.iter().filter(|row| row.block_moved).cloned().collect();
    let better = |ahead: usize| {
        let indices = rows.iter().filter(|r| r.success[ahead] > r.success[1 - ahead]).map(|r| r.index);
        indices.collect::<Vec<_>>()
    };
    Ok(Comparison {
        a: a.label.clone(),
        b: b.label.clone(),
        environment: first.environment.clone(),
        protocol: format!("{}/{}", first.protocol, first.split),
        protocol_hash: first.protocol_hash.clone(),
        evaluations: sides.map(|side| side.runs.len()),
        block_moved: paired(&moved),
        only_a: better(0),
        only_b: better(1),
        warnings: warnings(&all, &sides),
        all,
    })
}

/// Joins the episodes of both sides by pair.
fn pair_up(sides: &[&Side; 2]) -> Result<Vec<Row>, EvalError> {
    let refuse = |run: &ResultDir, message: String| EvalError::Results {
        dir: run.path.display().to_string(),
        message,
    };
    let (Some(first), true) = (sides[0].runs.first(), sides.iter().all(|side| !side.runs.is_empty())) else {
        return Err(EvalError::Options("there is nothing to compare; give two result directories".into()));
    };
    let mut rows: Vec<Row> = Vec::new();
    for (s, side) in sides.iter().enumerate() {
        for run in &side.runs {
            let Some((_, outcomes)) = &run.episodes else {
                return Err(refuse(
                    run,
                    "keeps no episodes (no episodes.jsonl), and a comparison is paired; run its command with --out"
                        .into(),
                ));
            };
            if run.row.protocol_hash != first.row.protocol_hash {
                return Err(refuse(
                    run,
                    format!(
                        "was run on other pairs or under other rules than {} ({}/{} {} here, {}/{} {} there); run \
                         both under one protocol and split",
                        first.path.display(),
                        run.row.protocol,
                        run.row.split,
                        run.row.protocol_hash,
                        first.row.protocol,
                        first.row.split,
                        first.row.protocol_hash
                    ),
                ));
            }
            if rows.is_empty() {
                let row = |o: &crate::EpisodeOutcome| Row {
                    index: o.index,
                    block_moved: o.block_moved,
                    success: [0.0; 2],
                };
                rows = outcomes.iter().map(row).collect();
            }
            if rows.len() != outcomes.len() || rows.iter().zip(outcomes).any(|(row, o)| row.index != o.index)
            {
                return Err(refuse(
                    run,
                    format!(
                        "holds {} episodes, {} holds {}; run both with the same --episodes",
                        outcomes.len(),
                        first.path.display(),
                        rows.len()
                    ),
                ));
            }
            for (row, outcome) in rows.iter_mut().zip(outcomes) {
                row.success[s] += f64::from(u8::from(outcome.success)) / side.runs.len() as f64;
            }
        }
    }
    Ok(rows)
}

fn paired(rows: &[Row]) -> Paired {
    let n = rows.len();
    let mean = |side: usize| rows.iter().map(|row| row.success[side]).sum::<f64>() / n.max(1) as f64;
    // Means over seeds are fractions; what rounding leaves between equal ones is no difference.
    let differences: Vec<f64> = rows.iter().map(|row| row.success[0] - row.success[1]).collect();
    let count = |sign: f64| differences.iter().filter(|&&d| d * sign > 1e-9).count();
    let (a_better, b_better) = (count(1.0), count(-1.0));
    let difference = mean(0) - mean(1);
    Paired {
        n,
        rate_a: mean(0),
        rate_b: mean(1),
        difference,
        interval: bootstrap(&differences),
        a_better,
        b_better,
        p: mcnemar(a_better, b_better),
        pairs_needed: pairs_needed(&differences),
    }
}

/// Percentile interval of the mean over resampled pairs; the streams are keyed by the resample.
fn bootstrap(differences: &[f64]) -> Interval {
    let n = differences.len();
    if n == 0 {
        return Interval { low: -1.0, high: 1.0 };
    }
    let mut means: Vec<f64> = (0..RESAMPLES as u64)
        .map(|resample| {
            let mut stream = Stream::new(0, "compare bootstrap", &[resample]);
            (0..n).map(|_| differences[stream.below(n as u64) as usize]).sum::<f64>() / n as f64
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let at = |q: f64| means[((q * RESAMPLES as f64) as usize).min(RESAMPLES - 1)];
    Interval { low: at(0.025), high: at(0.975) }
}

/// Pairs at which a paired test at 5 % finds a difference of the observed size with 80 % power (Connor 1987): with the
/// mean difference `d` and the mean squared difference `s` (the share of discordant pairs),
/// `((z_test sqrt(s) + z_power sqrt(s - d²)) / d)²`.
fn pairs_needed(differences: &[f64]) -> Option<usize> {
    let n = differences.len() as f64;
    let d = differences.iter().sum::<f64>() / n.max(1.0);
    if d.abs() < 1e-9 {
        return None;
    }
    let s = differences.iter().map(|x| x * x).sum::<f64>() / n;
    let root = Z_TEST * s.sqrt() + Z_POWER * (s - d * d).max(0.0).sqrt();
    Some((root / d).powi(2).ceil() as usize)
}

fn warnings(all: &Paired, sides: &[&Side; 2]) -> Vec<String> {
    let mut warnings = Vec::new();
    let points = 100.0 * all.difference.abs();
    match all.pairs_needed {
        None => warnings.push(format!(
            "equal rates on {} pairs are no proof of equality; see the interval",
            all.n
        )),
        Some(needed) if needed > all.n => warnings.push(format!(
            "n = {} is too small for a difference of {points:.1} points: about {needed} pairs would show it in four of \
             five repetitions{}",
            all.n,
            if all.p < LEVEL { "; p below 0.05 may be luck" } else { "" }
        )),
        Some(_) => {}
    }
    for side in sides {
        if one_training(side) {
            warnings.push(format!(
                "{}: one trained model; neither test nor interval cover the spread between training seeds",
                side.label
            ));
        }
    }
    warnings
}

/// Whether all evaluations of a learned side use the same weights.
fn one_training(side: &Side) -> bool {
    let weights = |run: &ResultDir| {
        run.episodes.as_ref().map(|(key, _)| key.checkpoint.clone()).filter(|hash| !hash.is_empty())
    };
    let first = side.runs.first().and_then(weights);
    first.is_some() && side.runs.iter().all(|run| weights(run) == first)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn rows(counts: [usize; 4]) -> Vec<Row> {
        let successes = [[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]];
        let each = successes.into_iter().zip(counts);
        each.flat_map(|(success, n)| (0..n).map(move |_| Row { index: 0, block_moved: true, success }))
            .collect()
    }

    #[test]
    fn the_interval_is_that_of_the_paired_differences() {
        // 100 pairs, 20 and 8 discordant: difference 0.12, standard error sqrt(0.28 - 0.12²) / 10 = 0.0515.
        let result = paired(&rows([50, 20, 8, 22]));
        assert!((result.difference - 0.12).abs() < 1e-12);
        assert_eq!((result.rate_a, result.rate_b), (0.7, 0.58));
        assert!((result.p - mcnemar(20, 8)).abs() < 1e-15);
        let half = Z_TEST * 0.0515;
        assert!((result.interval.low - (0.12 - half)).abs() < 0.012, "{:?}", result.interval);
        assert!((result.interval.high - (0.12 + half)).abs() < 0.012, "{:?}", result.interval);
        // ((1.96 * 0.52915 + 0.84162 * 0.51536) / 0.12)² = 150.4
        assert_eq!(result.pairs_needed, Some(151));
        assert_eq!(paired(&rows([50, 20, 8, 22])), result);
    }

    #[test]
    fn equal_policies_have_no_difference() {
        let result = paired(&rows([5, 0, 0, 5]));
        assert_eq!((result.difference, result.p, result.pairs_needed), (0.0, 1.0, None));
        assert_eq!(result.interval, Interval { low: 0.0, high: 0.0 });
        assert_eq!(paired(&[]).p, 1.0);
    }

    fn side(name: &str) -> Side {
        let rows = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks/push_t/rows");
        Side { label: name.into(), runs: vec![ResultDir::load(&rows.join(name)).unwrap()] }
    }

    #[test]
    fn committed_rows_are_compared_and_too_small_n_is_said() {
        let (a, b) = (side("pldm-compact-mppi"), side("pldm-compact-cem"));
        let result = compare(&a, &b).unwrap();
        assert_eq!((result.all.n, result.all.rate_a, result.all.rate_b), (200, 0.79, 0.775));
        assert_eq!(result.only_a.len(), result.all.a_better);
        assert_eq!(result.all.a_better as i64 - result.all.b_better as i64, 158 - 155);
        assert_eq!((result.block_moved.n, result.evaluations), (149, [1, 1]));
        assert!(result.all.p > LEVEL && result.warnings[0].contains("too small"), "{:?}", result.warnings);
        let turned = compare(&b, &a).unwrap();
        assert_eq!((turned.all.p, turned.all.difference), (result.all.p, -result.all.difference));
        // Twice the same evaluation changes nothing but the count.
        let twice = Side { runs: vec![a.runs[0].clone(), a.runs[0].clone()], ..a.clone() };
        let doubled = compare(&twice, &b).unwrap();
        assert_eq!((doubled.all, doubled.evaluations), (result.all, [2, 1]));
    }

    #[test]
    fn what_cannot_be_paired_is_refused() {
        let (a, mut b) = (side("pldm-compact-mppi"), side("pldm-compact-cem"));
        let fails = |b: &Side| compare(&a, b).unwrap_err().to_string();
        b.runs[0].row.protocol_hash = "0123".into();
        assert!(fails(&b).contains("pldm-compact-cem: was run on other pairs"), "{}", fails(&b));
        b = side("pldm-compact-cem");
        b.runs[0].episodes.as_mut().unwrap().1.pop();
        assert!(fails(&b).contains("holds 199 episodes"), "{}", fails(&b));
        b.runs[0].episodes = None;
        assert!(fails(&b).contains("no episodes.jsonl"));
        b.runs.clear();
        assert!(fails(&b).contains("nothing to compare"));
    }
}
