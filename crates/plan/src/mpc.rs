//! Model-predictive control of one episode: when to plan, over which horizon, from which warm start.
//!
//! Horizons count action blocks of `action_block` environment steps. The episode's loop is: while
//! [`Mpc::next_action`] is `None`, make the cost of the present moment and call [`Mpc::plan`].

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use worldbench_core::Stream;

use crate::config::{check_count, check_within};
use crate::error::PlanError;
use crate::solver::{Cost, Shape, Solution, Solver};

/// Blocks of a plan or of a history, and steps of a block: longer than any episode.
const MOST_BLOCKS: usize = 10_000;

/// How the horizon of the next plan is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Replan {
    /// Always `horizon`.
    #[default]
    Fixed,
    /// What remains of the first `horizon` blocks (`H, H-r, H-2r, ...`), then `horizon` again: every plan of a
    /// round aims at the same moment.
    Shrinking,
    /// `horizon`, but never beyond the end of the episode (the original PLDM).
    Remaining,
}

/// Configuration of the policy; horizons in blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlanConfig {
    /// Blocks per plan `H`.
    pub horizon: usize,
    /// Blocks executed before the next plan, `1..=horizon`.
    pub receding_horizon: usize,
    /// Environment steps per block.
    pub action_block: usize,
    /// Frames, one block apart, that the model sees.
    pub history_len: usize,
    /// Start from what the last plan left unexecuted.
    pub warm_start: bool,
    /// Choice of the next horizon.
    pub replan: Replan,
}

impl Default for PlanConfig {
    fn default() -> Self {
        Self {
            horizon: 5,
            receding_horizon: 5,
            action_block: 5,
            history_len: 1,
            warm_start: true,
            replan: Replan::Fixed,
        }
    }
}

impl PlanConfig {
    /// Checks that actions are planned in blocks of `block`, as the model was trained.
    ///
    /// # Errors
    /// [`PlanError::Config`] when they are not.
    pub fn check_block(&self, block: usize) -> Result<(), PlanError> {
        if self.action_block == block {
            return Ok(());
        }
        let problem = format!("is {}, but the model was trained on {block}", self.action_block);
        Err(PlanError::config("action_block", problem))
    }

    /// Checks the values.
    ///
    /// # Errors
    /// [`PlanError::Config`] naming the key that is out of range.
    pub fn validate(&self) -> Result<(), PlanError> {
        check_within("horizon", self.horizon, MOST_BLOCKS)?;
        check_within("action_block", self.action_block, MOST_BLOCKS)?;
        check_within("history_len", self.history_len, MOST_BLOCKS)?;
        if (1..=self.horizon).contains(&self.receding_horizon) {
            return Ok(());
        }
        let problem =
            format!("must lie in 1..={} (the key `horizon`), not {}", self.horizon, self.receding_horizon);
        Err(PlanError::config("receding_horizon", problem))
    }
}

/// Planning state of one episode.
#[derive(Clone, Debug)]
pub struct Mpc {
    config: PlanConfig,
    action_dim: usize,
    /// Environment actions still to execute, from `next`, `[steps, d]`.
    queue: Vec<f32>,
    next: usize,
    warm: Vec<f32>, // [h, D]
    /// Blocks of the present round already planned for execution.
    done: usize,
    solves: u64,
}

impl Mpc {
    /// The state at the start of an episode whose environment actions have `action_dim` values.
    ///
    /// # Errors
    /// When the configuration is out of range or `action_dim` is 0.
    pub fn new(config: PlanConfig, action_dim: usize) -> Result<Self, PlanError> {
        config.validate()?;
        check_count("action_dim", action_dim)?;
        Ok(Self { config, action_dim, queue: Vec::new(), next: 0, warm: Vec::new(), done: 0, solves: 0 })
    }

    /// Pops the next normalised environment action `[d]`; `None` when it is time to plan.
    pub fn next_action(&mut self) -> Option<&[f32]> {
        let start = self.next;
        let action = self.queue.get(start..start + self.action_dim)?;
        self.next += self.action_dim;
        Some(action)
    }

    /// True when it is time to plan.
    #[must_use]
    pub fn needs_plan(&self) -> bool {
        self.next >= self.queue.len()
    }

    /// Number of plans made so far.
    #[must_use]
    pub fn solves(&self) -> u64 {
        self.solves
    }

    /// Shape of the next plan; `remaining_steps` is what is left of the episode.
    #[must_use]
    pub fn shape(&self, remaining_steps: usize) -> Shape {
        let full = self.config.horizon;
        let horizon = match self.config.replan {
            Replan::Fixed => full,
            Replan::Shrinking => full - self.done,
            Replan::Remaining => remaining_steps.div_ceil(self.config.action_block).clamp(1, full),
        };
        Shape { horizon, dim: self.action_dim * self.config.action_block }
    }

    /// Warm start of the next plan, fitted to `shape`.
    #[must_use]
    pub fn warm_start(&self, shape: Shape) -> Option<&[f32]> {
        let n = self.warm.len().min(shape.len());
        (n > 0).then(|| &self.warm[..n])
    }

    /// Plans for `cost`. `episode` is keyed by the episode; every solve draws from its own child stream.
    ///
    /// # Errors
    /// As [`Solver::solve`].
    pub fn plan(
        &mut self,
        solver: &dyn Solver,
        cost: &mut dyn Cost,
        remaining_steps: usize,
        episode: &Stream,
    ) -> Result<Solution, PlanError> {
        let shape = self.shape(remaining_steps);
        let stream = episode.child(&[self.solves]);
        let solution = solver.solve(shape, cost, self.warm_start(shape), &stream)?;
        self.accept(shape, &solution, remaining_steps)?;
        Ok(solution)
    }

    /// Queues the first blocks of a plan of `shape` found elsewhere and keeps the rest as warm start.
    ///
    /// # Errors
    /// When the plan does not have the given shape.
    pub fn accept(
        &mut self,
        shape: Shape,
        solution: &Solution,
        remaining_steps: usize,
    ) -> Result<(), PlanError> {
        if solution.actions.len() != shape.len() || shape.is_empty() {
            let (got, expected) = (solution.actions.len(), format!("{} x {}", shape.horizon, shape.dim));
            return Err(PlanError::Length { what: "plan", got, expected });
        }
        let blocks = self.config.receding_horizon.min(shape.horizon);
        let executed = blocks * shape.dim;
        self.queue.clear();
        self.queue.extend_from_slice(&solution.actions[..executed]);
        self.next = 0;
        self.solves += 1;
        self.done = (self.done + blocks) % self.config.horizon;
        self.warm.clear();
        if self.config.warm_start {
            let steps = blocks * self.config.action_block;
            match &solution.nominal {
                Some(nominal) => self.keep_nominal(shape, nominal, remaining_steps.saturating_sub(steps)),
                None => self.warm.extend_from_slice(&solution.actions[executed..]),
            }
        }
        Ok(())
    }

    /// A nominal is kept whole: it only moves on by as many blocks as the next horizon is shorter.
    fn keep_nominal(&mut self, shape: Shape, nominal: &[f32], remaining_steps: usize) {
        let next = self.shape(remaining_steps).horizon;
        if next <= shape.horizon {
            let skipped = (shape.horizon - next) * shape.dim;
            self.warm.extend_from_slice(nominal.get(skipped..).unwrap_or(&[]));
        }
    }
}

/// Observations and normalised actions of the last steps of an episode.
///
/// The model's context are up to `history_len` frames, one action block apart, ending at the newest. It grows
/// from one frame at the start of the episode.
#[derive(Clone, Debug)]
pub struct History<F> {
    frames: VecDeque<F>,
    actions: VecDeque<Vec<f32>>, // the action after each frame but the newest, [d]
    history_len: usize,
    action_block: usize,
}

impl<F> History<F> {
    /// An empty history.
    #[must_use]
    pub fn new(config: &PlanConfig) -> Self {
        let (history_len, action_block) = (config.history_len.max(1), config.action_block.max(1));
        Self { frames: VecDeque::new(), actions: VecDeque::new(), history_len, action_block }
    }

    /// Starts the episode with its first frame.
    pub fn start(&mut self, frame: F) {
        self.frames.clear();
        self.actions.clear();
        self.frames.push_back(frame);
    }

    /// Adds a normalised action `[d]` and the frame it led to. NaN counts as no action, 0.
    pub fn push(&mut self, action: &[f32], frame: F) {
        self.actions.push_back(action.iter().map(|&a| if a.is_nan() { 0.0 } else { a }).collect());
        self.frames.push_back(frame);
        while self.frames.len() > (self.history_len - 1) * self.action_block + 1 {
            self.frames.pop_front();
            self.actions.pop_front();
        }
    }

    /// The context: `n` frames, oldest first, and the blocked actions between them, `[n - 1, D]`.
    #[must_use]
    pub fn context(&self) -> (Vec<&F>, Vec<f32>) {
        let Some(newest) = self.frames.len().checked_sub(1) else { return (Vec::new(), Vec::new()) };
        let n = self.history_len.min(newest / self.action_block + 1);
        let first = newest - (n - 1) * self.action_block;
        let frames = (0..n).map(|i| &self.frames[first + i * self.action_block]).collect();
        let actions = self.actions.iter().skip(first).flatten().copied().collect();
        (frames, actions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A "plan" whose block `i` holds `base + i`.
    fn counted(shape: Shape, base: f32) -> Solution {
        let actions = (0..shape.len()).map(|i| base + (i / shape.dim) as f32).collect();
        Solution { actions, cost: 0.0, history: Vec::new(), nominal: None }
    }

    /// Runs plans over `steps` steps; returns horizon and warm start length in blocks of each.
    fn run(config: PlanConfig, steps: usize, nominal: bool) -> Vec<(usize, usize)> {
        let mut mpc = Mpc::new(config, 2).unwrap();
        let mut seen = Vec::new();
        for step in 0..steps {
            if mpc.needs_plan() {
                let shape = mpc.shape(steps - step);
                seen.push((shape.horizon, mpc.warm_start(shape).map_or(0, |w| w.len() / shape.dim)));
                let mut solution = counted(shape, 0.0);
                if nominal {
                    solution.nominal = Some(solution.actions.clone());
                }
                mpc.accept(shape, &solution, steps - step).unwrap();
            }
            assert_eq!(mpc.next_action().unwrap().len(), 2);
        }
        seen
    }

    #[test]
    fn the_shipped_evaluation_makes_two_open_loop_plans() {
        assert_eq!(run(PlanConfig::default(), 50, false), [(5, 0), (5, 0)]);
    }

    #[test]
    fn receding_horizon_keeps_the_rest_as_warm_start() {
        let config = PlanConfig { receding_horizon: 2, ..PlanConfig::default() };
        assert_eq!(run(config.clone(), 30, false), [(5, 0), (5, 3), (5, 3)]);
        let cold = PlanConfig { warm_start: false, ..config };
        assert_eq!(run(cold, 30, false), [(5, 0), (5, 0), (5, 0)]);
    }

    #[test]
    fn shrinking_horizons_restart_after_the_first_blocks() {
        let config = PlanConfig { receding_horizon: 2, replan: Replan::Shrinking, ..PlanConfig::default() };
        assert_eq!(run(config.clone(), 50, false), [(5, 0), (3, 3), (1, 1), (5, 0), (3, 3), (1, 1)]);
        assert_eq!(run(config, 50, true), [(5, 0), (3, 3), (1, 1), (5, 0), (3, 3), (1, 1)]);
    }

    #[test]
    fn a_nominal_is_kept_and_shifts_only_when_the_horizon_shrinks() {
        let config = PlanConfig {
            horizon: 3,
            receding_horizon: 1,
            action_block: 1,
            replan: Replan::Remaining,
            ..PlanConfig::default()
        };
        assert_eq!(run(config.clone(), 5, true), [(3, 0), (3, 3), (3, 3), (2, 2), (1, 1)]);
        let mut mpc = Mpc::new(config, 1).unwrap();
        let shape = mpc.shape(3);
        let solution = Solution { nominal: Some(vec![7.0, 8.0, 9.0]), ..counted(shape, 0.0) };
        mpc.accept(shape, &solution, 3).unwrap();
        assert_eq!(mpc.warm_start(mpc.shape(2)), Some(&[8.0, 9.0][..]));
    }

    #[test]
    fn plans_use_one_stream_per_solve() {
        let mut seen = Vec::new();
        let mut mpc =
            Mpc::new(PlanConfig { horizon: 1, receding_horizon: 1, ..PlanConfig::default() }, 2).unwrap();
        let solver = crate::PredictiveSampling { samples: 2, ..crate::PredictiveSampling::default() };
        for _ in 0..2 {
            let mut cost = |_: Shape, plans: &[f32], costs: &mut [f32]| {
                seen.push(plans.to_vec());
                costs.fill(0.0);
            };
            mpc.plan(&solver, &mut cost, 10, &Stream::new(0, "episode", &[3])).unwrap();
        }
        assert_ne!(seen[0], seen[1]);
        assert_eq!(mpc.solves(), 2);
    }

    #[test]
    fn history_grows_and_is_strided() {
        let config = PlanConfig { history_len: 3, action_block: 2, ..PlanConfig::default() };
        let mut history = History::new(&config);
        assert!(history.context().0.is_empty());
        history.start(0);
        assert_eq!(history.context(), (vec![&0], vec![]));
        history.push(&[1.0], 1);
        assert_eq!(history.context(), (vec![&1], vec![]));
        history.push(&[f32::NAN], 2);
        assert_eq!(history.context(), (vec![&0, &2], vec![1.0, 0.0]));
        for i in 3..8 {
            history.push(&[i as f32], i);
        }
        assert_eq!(history.context(), (vec![&3, &5, &7], vec![4.0, 5.0, 6.0, 7.0]));
    }

    #[test]
    fn bad_configurations_name_the_key() {
        let config = PlanConfig { receding_horizon: 6, ..PlanConfig::default() };
        assert!(Mpc::new(config, 2).unwrap_err().to_string().contains("`receding_horizon`"));
    }
}
