//! The ceiling row: sampling-based planning on the true simulator with the true distance to the goal state.
//!
//! The cross-entropy method (planning.md 5.1) over the knots of a piecewise linear action sequence, each candidate
//! simulated on a copy of the environment and scored by [`worldbench_env::Environment::cost`]. A candidate is as good as its best moment, because an episode succeeds
//! at any step. When no candidate succeeds the search starts again with other random numbers and a longer
//! sequence; since the simulator is exact, a plan that succeeds in the search succeeds in the episode.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use worldbench_core::Stream;
use worldbench_env::Simulation;

use crate::{EpisodeContext, EpisodePolicy, EvalError, Limits, Observation, Policy};

/// Effort of the [`Oracle`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OracleConfig {
    /// Candidates per iteration.
    pub samples: usize,
    /// Candidates the next distribution is fitted to.
    pub elites: usize,
    /// Iterations per search.
    pub iterations: usize,
    /// Length in env steps of the first, second ... search of a plan; cut to the steps that are left.
    pub horizons: Vec<usize>,
    /// Env steps between two knots of a candidate.
    pub knot_spacing: usize,
    /// Standard deviation of a knot at the start of a search, in action units.
    pub spread: f64,
    /// Env steps executed of a plan that does not succeed before planning again.
    pub receding: usize,
}

impl Default for OracleConfig {
    fn default() -> Self {
        Self {
            samples: 96,
            elites: 12,
            iterations: 12,
            horizons: vec![26, 32, 26, 44, 32, 38, 50],
            knot_spacing: 4,
            spread: 0.4,
            receding: 10,
        }
    }
}

/// The oracle as a row of an evaluation.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// Effort of its search.
    pub config: OracleConfig,
}

impl Policy for Oracle {
    fn name(&self) -> String {
        "oracle".into()
    }

    fn settings(&self) -> String {
        format!("{:?}", self.config)
    }

    fn begin(&self, context: EpisodeContext) -> Result<Box<dyn EpisodePolicy>, EvalError> {
        Ok(Box::new(OracleEpisode {
            planner: OraclePlanner::new(self.config.clone(), context.stream)
                .under(context.limits, context.env.domain().spec().success_distance),
            env: context.env,
            left: context.budget,
            queue: Vec::new(),
            seconds: 0.0,
        }))
    }
}

/// One episode of the oracle. It keeps its own copy of the environment in step with the real one.
struct OracleEpisode {
    planner: OraclePlanner,
    env: Box<dyn Simulation>,
    left: usize,
    /// Actions still to execute, last first.
    queue: Vec<[f32; 2]>,
    seconds: f64,
}

impl EpisodePolicy for OracleEpisode {
    fn act(&mut self, _: &Observation) -> Result<[f32; 2], EvalError> {
        if self.queue.is_empty() {
            let start = Instant::now();
            self.queue = self.planner.plan(self.env.as_ref(), self.left);
            self.queue.reverse();
            self.seconds += start.elapsed().as_secs_f64();
        }
        let action = self.queue.pop().unwrap_or_default();
        self.env.step(action);
        self.left = self.left.saturating_sub(1);
        Ok(action)
    }

    fn plan_seconds(&self) -> f64 {
        self.seconds
    }

    fn plans(&self) -> usize {
        self.planner.plans
    }
}

/// The search itself, usable without an evaluation.
#[derive(Clone, Debug)]
pub struct OraclePlanner {
    config: OracleConfig,
    stream: Stream,
    plans: usize,
    /// A plan succeeds when its cost is below this.
    success: f64,
    /// Whether a plan must not pass through anything solid.
    legal: bool,
}

/// A candidate's knots, flat, and what became of it.
#[derive(Clone, Debug)]
struct Candidate {
    knots: Vec<f64>,
    cost: f64,
    /// Steps until its best moment.
    steps: usize,
}

impl OraclePlanner {
    /// A planner whose candidates are drawn from `stream`.
    #[must_use]
    pub fn new(config: OracleConfig, stream: Stream) -> Self {
        Self { config, stream, plans: 0, success: 1.0, legal: false }
    }

    /// Counts a plan as a success only where `limits` do; `distance` is the environment's own.
    #[must_use]
    pub fn under(self, limits: Limits, distance: f64) -> Self {
        let share = limits.share_of(distance);
        Self { success: share * share, legal: limits.legal, ..self }
    }

    /// Actions to execute next, at least one: all of a plan that succeeds, or the beginning of the best failure.
    /// `left` is the number of env steps the episode may still take.
    pub fn plan(&mut self, env: &dyn Simulation, left: usize) -> Vec<[f32; 2]> {
        self.plans += 1;
        let mut best: Option<Candidate> = None;
        for (search, &horizon) in self.config.horizons.iter().enumerate() {
            let steps = horizon.min(left).max(1);
            let mut stream = self.stream.child(&[self.plans as u64, search as u64]);
            let found = self.search(env, steps, &mut stream);
            if best.as_ref().is_none_or(|b| found.cost < b.cost) {
                best = Some(found);
            }
            if best.as_ref().is_some_and(|b| b.cost < self.success) {
                break;
            }
        }
        let Some(best) = best else { return vec![[0.0; 2]] };
        let steps = if best.cost < self.success { best.steps } else { best.steps.min(self.config.receding) };
        (0..steps.max(1)).map(|t| self.action(&best.knots, t)).collect()
    }

    /// One run of the cross-entropy method; stops as soon as a candidate succeeds with room to spare.
    fn search(&self, env: &dyn Simulation, steps: usize, stream: &mut Stream) -> Candidate {
        let config = &self.config;
        let n = 2 * (steps.div_ceil(config.knot_spacing) + 1);
        let (mut mean, mut std) = (vec![0.0; n], vec![config.spread; n]);
        let mut best = Candidate { knots: mean.clone(), cost: f64::INFINITY, steps: 1 };
        for iteration in 0..config.iterations {
            let mut candidates: Vec<Candidate> = Vec::with_capacity(config.samples);
            for sample in 0..config.samples {
                let knots = if sample == 0 && iteration > 0 {
                    best.knots.clone()
                } else {
                    let draw = |(m, s): (&f64, &f64)| (m + s * stream.normal()).clamp(-1.5, 1.5);
                    mean.iter().zip(&std).map(draw).collect()
                };
                candidates.push(self.judge(env, steps, knots));
            }
            // A stable sort keeps the earlier sample at equal cost.
            candidates.sort_by(|a, b| a.cost.total_cmp(&b.cost));
            if candidates[0].cost < best.cost {
                best = candidates[0].clone();
            }
            if best.cost < 0.7 * self.success {
                break;
            }
            let elites = &candidates[..config.elites.min(candidates.len())];
            for i in 0..n {
                let count = elites.len() as f64;
                mean[i] = elites.iter().map(|e| e.knots[i]).sum::<f64>() / count;
                let variance = elites.iter().map(|e| (e.knots[i] - mean[i]).powi(2)).sum::<f64>() / count;
                std[i] = variance.sqrt().max(0.02);
            }
        }
        best
    }

    fn judge(&self, env: &dyn Simulation, steps: usize, knots: Vec<f64>) -> Candidate {
        let actions: Vec<[f32; 2]> = (0..steps).map(|t| self.action(&knots, t)).collect();
        let (mut cost, mut at) = (f64::INFINITY, 1);
        for (t, c) in env.costs(&actions, self.legal).into_iter().enumerate() {
            if c < cost {
                (cost, at) = (c, t + 1);
            }
        }
        Candidate { knots, cost, steps: at }
    }

    /// The action of env step `t`: linear between the knots on either side.
    fn action(&self, knots: &[f64], t: usize) -> [f32; 2] {
        let (i, part) = (t / self.config.knot_spacing, t % self.config.knot_spacing);
        let w = part as f64 / self.config.knot_spacing as f64;
        [0, 1].map(|axis| ((1.0 - w) * knots[2 * i + axis] + w * knots[2 * i + 2 + axis]) as f32)
    }
}
