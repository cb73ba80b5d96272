//! What happened in an episode, and the score of many.

use serde::{Deserialize, Serialize};

use worldbench_env::Changes;

use crate::stats::{Interval, wilson};

/// One finished episode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpisodeOutcome {
    /// Index of the pair in its manifest.
    pub index: usize,
    /// State asked for at the start; see [`crate::Pair::start`].
    pub start: Vec<f64>,
    /// State to be reached.
    pub goal: Vec<f64>,
    /// Whether the pair is one of the environment's hard ones ([`worldbench_env::Spec::hard`]): in Push-T, its block moves.
    pub block_moved: bool,
    /// Whether the environment reported success at any step within the budget.
    pub success: bool,
    /// Env steps taken; the episode stops at success.
    pub steps: usize,
    /// Distance that success is judged by after 0, 1, ... steps, px; in Push-T the norm of the (agent, block) position
    /// error. `[steps + 1]`
    pub distances: Vec<f64>,
    /// Block angle error after 0, 1, ... steps, rad, modulo the block's symmetry. `[steps + 1]`, empty where nothing
    /// turns.
    pub angle_errors: Vec<f64>,
    /// Actions taken. `[steps, 2]`
    pub actions: Vec<[f32; 2]>,
    /// States after 0, 1, ... steps. `[steps + 1, n]`
    pub states: Vec<Vec<f64>>,
    /// Seconds spent planning in the whole episode.
    pub plan_seconds: f64,
    /// Plans made.
    pub plans: usize,
    /// Lowest cost among the candidates of each iteration, one list per plan; empty for policies without a sampling
    /// planner and in files older than this key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plan_costs: Vec<Vec<f32>>,
    /// What differs from the default scene; see [`crate::Pair::factors`].
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub factors: Changes,
}

/// Successes of a set of episodes with their interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Episodes.
    pub n: usize,
    /// Episodes that succeeded.
    pub successes: usize,
    /// `successes / n`, in `[0, 1]`; 0 when there are none.
    pub rate: f64,
    /// Wilson 95 % interval of the rate.
    pub interval: Interval,
}

impl Rate {
    /// The rate of `successes` in `n`.
    #[must_use]
    pub fn new(successes: usize, n: usize) -> Self {
        let rate = if n == 0 { 0.0 } else { successes as f64 / n as f64 };
        Self { n, successes, rate, interval: wilson(successes, n) }
    }

    /// `64.5 % [57.7, 70.8], n = 200`; `-` when there are no episodes.
    #[must_use]
    pub fn text(&self) -> String {
        if self.n == 0 {
            return "-".into();
        }
        let Interval { low, high } = self.interval;
        format!("{:.1} % [{:.1}, {:.1}], n = {}", 100.0 * self.rate, 100.0 * low, 100.0 * high, self.n)
    }
}

/// The score of a policy on a manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// All pairs.
    pub all: Rate,
    /// The environment's hard pairs alone: in Push-T those whose block moves, in Two-Room those that change rooms.
    pub block_moved: Rate,
    /// Mean env steps of an episode, the unsolved ones included.
    pub mean_steps: f64,
    /// Mean seconds per plan; 0 for policies that do not plan.
    pub seconds_per_plan: f64,
}

impl Score {
    /// Counts the outcomes.
    #[must_use]
    pub fn of(outcomes: &[EpisodeOutcome]) -> Self {
        let rate = |keep: fn(&EpisodeOutcome) -> bool| {
            let kept = outcomes.iter().filter(|o| keep(o));
            Rate::new(kept.clone().filter(|o| o.success).count(), kept.count())
        };
        let plans: usize = outcomes.iter().map(|o| o.plans).sum();
        let seconds: f64 = outcomes.iter().map(|o| o.plan_seconds).sum();
        Self {
            all: rate(|_| true),
            block_moved: rate(|o| o.block_moved),
            mean_steps: outcomes.iter().map(|o| o.steps as f64).sum::<f64>() / outcomes.len().max(1) as f64,
            seconds_per_plan: seconds / plans.max(1) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(index: usize, success: bool, block_moved: bool) -> EpisodeOutcome {
        EpisodeOutcome {
            index,
            start: vec![0.0; 7],
            goal: vec![0.1; 7],
            block_moved,
            success,
            steps: 10 * (index + 1),
            distances: vec![1.0 / 3.0],
            angle_errors: vec![0.1],
            actions: vec![[0.1, -0.2]],
            states: vec![vec![0.3; 7]],
            plan_seconds: 2.0,
            plans: 4,
            plan_costs: Vec::new(),
            factors: Changes::new(),
        }
    }

    #[test]
    fn scores_count_all_and_block_moved_pairs() {
        let score = Score::of(&[outcome(0, true, true), outcome(1, false, true), outcome(2, true, false)]);
        assert_eq!((score.all.successes, score.all.n), (2, 3));
        assert_eq!((score.block_moved.successes, score.block_moved.n), (1, 2));
        assert_eq!((score.mean_steps, score.seconds_per_plan), (20.0, 0.5));
        assert_eq!(Rate::new(129, 200).text(), "64.5 % [57.7, 70.8], n = 200");
        assert_eq!(Score::of(&[]).all.text(), "-");
    }

    #[test]
    fn outcomes_round_trip() {
        let mut one = outcome(3, true, true);
        let text = serde_json::to_string(&one).unwrap();
        // As files were before costs were recorded.
        assert!(!text.contains("plan_costs"));
        assert_eq!(serde_json::from_str::<EpisodeOutcome>(&text).unwrap(), one);
        one.plan_costs = vec![vec![0.1, 0.05]];
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<EpisodeOutcome>(&text).unwrap(), one);
    }
}
