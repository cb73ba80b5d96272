//! Cross-entropy method (Rubinstein 1999; as used for latent planning by PlaNet, Hafner et al. 2019).
//!
//! Every iteration samples `x = mean + std * eps` with sample 0 at the mean, and refits the mean and the
//! unbiased standard deviation to the `topk` cheapest samples. No momentum, floor, clipping or early stop.
//! The plan is the final mean, which was itself never evaluated.

use serde::{Deserialize, Serialize};

use crate::config::{check_iterations, check_positive, check_samples, check_topk};
use crate::error::PlanError;
use crate::search::Search;
use crate::solver::{Problem, Solution, Solver};

/// Cross-entropy method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cem {
    /// Candidates per iteration.
    pub samples: usize,
    /// Number of iterations.
    pub iterations: usize,
    /// Number of elites, `2..=samples`.
    pub topk: usize,
    /// First standard deviation, in standard deviations of the data's actions.
    pub var_scale: f32,
}

impl Default for Cem {
    fn default() -> Self {
        Self { samples: 300, iterations: 30, topk: 30, var_scale: 1.0 }
    }
}

impl Cem {
    pub(crate) fn validate(&self) -> Result<(), PlanError> {
        check_samples(self.samples)?;
        check_iterations(self.iterations)?;
        check_topk(self.topk, self.samples)?;
        check_positive("var_scale", self.var_scale)
    }
}

impl Solver for Cem {
    fn name(&self) -> &'static str {
        "cem"
    }

    fn samples(&self) -> usize {
        self.samples
    }

    fn solve_with(&self, problem: Problem<'_>) -> Result<Solution, PlanError> {
        let Problem { shape, cost, init, noise, observe } = problem;
        let mut search = Search::new(self.name(), shape, self.samples, init, self.var_scale)?;
        for iteration in 0..self.iterations {
            search.sample_gaussian(iteration, noise);
            search.evaluate(iteration, cost)?;
            search.select_elites(self.topk);
            search.fit_elites(0.0);
            search.finish(iteration, None, observe);
        }
        Ok(search.end_at_mean())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solver::{Chunked, Shape};
    use worldbench_core::Stream;

    /// Distance to a fixed plan.
    fn bowl(shape: Shape, candidates: &[f32], costs: &mut [f32]) {
        for (plan, cost) in candidates.chunks(shape.len()).zip(costs) {
            *cost = plan.iter().enumerate().map(|(i, x)| (x - 0.1 * i as f32).powi(2)).sum();
        }
    }

    const SHAPE: Shape = Shape { horizon: 5, dim: 3 };

    #[test]
    fn finds_the_minimum_of_a_bowl() {
        let solution = Cem::default().solve(SHAPE, &mut bowl, None, &Stream::new(1, "cem", &[0])).unwrap();
        for (i, x) in solution.actions.iter().enumerate() {
            assert!((x - 0.1 * i as f32).abs() < 1e-3, "{i}: {x}");
        }
        assert_eq!(solution.history.len(), 30);
        assert!(solution.history[29].elite_cost < solution.history[0].elite_cost);
    }

    #[test]
    fn chunks_of_samples_change_nothing() {
        let stream = Stream::new(1, "cem", &[0]);
        let whole = Cem::default().solve(SHAPE, &mut bowl, None, &stream).unwrap();
        for chunk in [1, 7, 300, 1000] {
            let mut cost = Chunked { cost: bowl, chunk };
            assert_eq!(Cem::default().solve(SHAPE, &mut cost, None, &stream).unwrap(), whole);
        }
    }

    #[test]
    fn first_samples_do_not_depend_on_how_many_follow() {
        let first = |samples| {
            let mut seen = Vec::new();
            let cem = Cem { samples, iterations: 1, ..Cem::default() };
            cem.solve_with(Problem {
                shape: SHAPE,
                cost: &mut bowl,
                init: None,
                noise: &mut crate::KeyedNoise(&Stream::new(1, "cem", &[0])),
                observe: &mut |it| seen = it.candidates[..30 * SHAPE.len()].to_vec(),
            })
            .unwrap();
            seen
        };
        assert_eq!(first(30), first(500));
    }
}
