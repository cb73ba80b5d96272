//! The contract between planners, costs and noise.
//!
//! One [`Cost`] object is one planning problem: one episode at one moment, its context and goal encoded once
//! by whoever made it. A [`Solver`] is immutable, so many problems can be solved in parallel with one solver.
//! Actions are normalised (z-scored) and blocked: a plan is `[H, D]` with `D = action dim * action block`.

use worldbench_core::Stream;

use crate::error::{CostError, PlanError};

/// Size of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of action blocks `H`.
    pub horizon: usize,
    /// Size of a blocked action `D`.
    pub dim: usize,
}

impl Shape {
    /// Number of values in a plan, `H * D`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.horizon * self.dim
    }

    /// True when a plan holds no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Cost of candidate plans in one planning problem; lower is better.
///
/// An implementation may work in chunks of samples or on several threads; the cost of a candidate must not
/// depend on its neighbours. Closures `FnMut(Shape, &[f32], &mut [f32])` are costs.
pub trait Cost {
    /// Evaluates `candidates` `[S, H, D]` into `costs` `[S]`. NaN and infinite costs rank last.
    ///
    /// # Errors
    /// Whatever stops the model; the solver hands it on as [`PlanError::Cost`].
    fn evaluate(&mut self, shape: Shape, candidates: &[f32], costs: &mut [f32]) -> Result<(), CostError>;

    /// As [`Cost::evaluate`], with the gradient of every candidate's cost in `gradients` `[S, H, D]`.
    ///
    /// A cost that does not know its gradient has it measured by central differences, [`DIFFERENCE`] to either side:
    /// `2 H D` further candidates for each one.
    ///
    /// # Errors
    /// As [`Cost::evaluate`].
    fn gradient(
        &mut self,
        shape: Shape,
        candidates: &[f32],
        costs: &mut [f32],
        gradients: &mut [f32],
    ) -> Result<(), CostError> {
        self.evaluate(shape, candidates, costs)?;
        let len = shape.len();
        let mut moved = vec![0.0; 2 * len * len];
        let mut sides = vec![0.0; 2 * len];
        for (plan, gradient) in candidates.chunks_exact(len).zip(gradients.chunks_exact_mut(len)) {
            for (i, pair) in moved.chunks_exact_mut(2 * len).enumerate() {
                let (up, down) = pair.split_at_mut(len);
                up.copy_from_slice(plan);
                down.copy_from_slice(plan);
                up[i] += DIFFERENCE;
                down[i] -= DIFFERENCE;
            }
            self.evaluate(shape, &moved, &mut sides)?;
            let slopes = sides.chunks_exact(2).map(|side| (side[0] - side[1]) / (2.0 * DIFFERENCE));
            gradient.iter_mut().zip(slopes).for_each(|(g, slope)| *g = slope);
        }
        Ok(())
    }
}

/// Half the distance over which a gradient is measured, in standard deviations of the data's actions: large enough that
/// the rounding of an `f32` cost stays below its slope.
pub const DIFFERENCE: f32 = 1e-2;

impl<F: FnMut(Shape, &[f32], &mut [f32])> Cost for F {
    fn evaluate(&mut self, shape: Shape, candidates: &[f32], costs: &mut [f32]) -> Result<(), CostError> {
        self(shape, candidates, costs);
        Ok(())
    }
}

/// A cost evaluated in chunks of at most `chunk` samples, to bound the memory of a large model.
#[derive(Debug)]
pub struct Chunked<C> {
    /// The cost that sees the chunks.
    pub cost: C,
    /// Largest number of samples per call, at least 1.
    pub chunk: usize,
}

impl<C: Cost> Cost for Chunked<C> {
    fn evaluate(&mut self, shape: Shape, candidates: &[f32], costs: &mut [f32]) -> Result<(), CostError> {
        let chunk = self.chunk.max(1);
        let plans = candidates.chunks((chunk * shape.len()).max(1));
        for (plans, costs) in plans.zip(costs.chunks_mut(chunk)) {
            self.cost.evaluate(shape, plans, costs)?;
        }
        Ok(())
    }

    fn gradient(
        &mut self,
        shape: Shape,
        candidates: &[f32],
        costs: &mut [f32],
        gradients: &mut [f32],
    ) -> Result<(), CostError> {
        let chunk = self.chunk.max(1);
        let len = (chunk * shape.len()).max(1);
        let plans = candidates.chunks(len).zip(gradients.chunks_mut(len));
        for ((plans, gradients), costs) in plans.zip(costs.chunks_mut(chunk)) {
            self.cost.gradient(shape, plans, costs, gradients)?;
        }
        Ok(())
    }
}

/// Where a solver's standard normal values come from.
pub trait NoiseSource {
    /// Fills `out`, the noise of `samples` candidates in `iteration` (from 0), sample by sample.
    fn fill(&mut self, iteration: usize, samples: usize, out: &mut [f32]);

    /// Fills `out` `[H, D]` with the noise of a random first plan.
    fn fill_initial(&mut self, out: &mut [f32]);
}

/// Noise of one solve, keyed by (iteration, sample): the number and order of the other samples do not matter.
#[derive(Clone, Debug)]
pub struct KeyedNoise<'a>(pub &'a Stream);

impl NoiseSource for KeyedNoise<'_> {
    fn fill(&mut self, iteration: usize, samples: usize, out: &mut [f32]) {
        let len = out.len().checked_div(samples).unwrap_or(0).max(1);
        for (sample, values) in out.chunks_mut(len).enumerate() {
            self.0.child(&[iteration as u64, sample as u64]).fill_normal(values);
        }
    }

    fn fill_initial(&mut self, out: &mut [f32]) {
        self.0.child(&[u64::MAX]).fill_normal(out);
    }
}

/// Given noise, one array per iteration: replays a recorded solve. Missing values are zero.
#[derive(Clone, Debug, Default)]
pub struct FixedNoise {
    /// Noise per iteration, in the solver's own layout.
    pub iterations: Vec<Vec<f32>>,
    /// Noise of a random first plan `[H, D]`.
    pub initial: Vec<f32>,
}

impl NoiseSource for FixedNoise {
    fn fill(&mut self, iteration: usize, _samples: usize, out: &mut [f32]) {
        copy_padded(self.iterations.get(iteration).map_or(&[], Vec::as_slice), out);
    }

    fn fill_initial(&mut self, out: &mut [f32]) {
        copy_padded(&self.initial, out);
    }
}

/// Copies as much of `from` as fits and zeroes the rest of `to`.
pub(crate) fn copy_padded(from: &[f32], to: &mut [f32]) {
    let n = from.len().min(to.len());
    to[..n].copy_from_slice(&from[..n]);
    to[n..].fill(0.0);
}

/// What happened in one iteration of a solver.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct IterationStats {
    /// Lowest cost among the candidates.
    pub best_cost: f32,
    /// Mean cost of the elites.
    pub elite_cost: f32,
    /// Euclidean norm over `[H, D]` of the sampling standard deviation after the update.
    pub std_norm: f32,
    /// Effective sample size `1 / sum(w^2)` of the weighted update; `None` for unweighted solvers.
    pub effective_samples: Option<f32>,
    /// Candidates whose cost was NaN or infinite.
    pub non_finite: usize,
}

/// A plan and how it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// Normalised blocked actions `[H, D]`.
    pub actions: Vec<f32>,
    /// Cost the solver reports for the plan (for mean-returning solvers: of the last elites).
    pub cost: f32,
    /// One entry per iteration.
    pub history: Vec<IterationStats>,
    /// Distribution to start the next solve from, `[H, D]`, where it is not the plan itself: the policy keeps
    /// it whole instead of the rest of the plan.
    pub nominal: Option<Vec<f32>>,
}

/// The inside of one iteration, for parity checks and diagnosis.
#[derive(Clone, Copy, Debug)]
pub struct Iteration<'a> {
    /// Iteration, from 0.
    pub index: usize,
    /// Candidates as the cost saw them, `[S, H, D]`.
    pub candidates: &'a [f32],
    /// Their costs, `[S]`.
    pub costs: &'a [f32],
    /// Samples that took part in the update; best first where the solver ranks them.
    pub elites: &'a [usize],
    /// Mean after the update, `[H, D]`.
    pub mean: &'a [f32],
    /// Standard deviation after the update, `[H, D]`.
    pub std: &'a [f32],
}

/// What a solver is to plan.
pub struct Problem<'a> {
    /// Size of the plan.
    pub shape: Shape,
    /// What it costs.
    pub cost: &'a mut dyn Cost,
    /// Warm start `[h, D]`, `h <= H`, padded with zeros.
    pub init: Option<&'a [f32]>,
    /// Where normal values come from.
    pub noise: &'a mut dyn NoiseSource,
    /// Is shown every iteration.
    pub observe: &'a mut dyn FnMut(&Iteration<'_>),
}

/// A planner.
pub trait Solver: Send + Sync + std::fmt::Debug {
    /// Name as in the configuration, e.g. `"cem"`.
    fn name(&self) -> &'static str;

    /// Candidates per iteration.
    fn samples(&self) -> usize;

    /// Plans with the noise that it is given.
    ///
    /// # Errors
    /// When the cost fails or no candidate has a finite cost, and on a warm start of the wrong length.
    fn solve_with(&self, problem: Problem<'_>) -> Result<Solution, PlanError>;

    /// Plans with keyed noise; `stream` is keyed by episode and number of the solve.
    ///
    /// # Errors
    /// As [`Solver::solve_with`].
    fn solve(
        &self,
        shape: Shape,
        cost: &mut dyn Cost,
        init: Option<&[f32]>,
        stream: &Stream,
    ) -> Result<Solution, PlanError> {
        let (noise, observe) = (&mut KeyedNoise(stream), &mut |_: &Iteration<'_>| {});
        self.solve_with(Problem { shape, cost, init, noise, observe })
    }
}
