//! Predictive sampling (Howell et al. 2022, MuJoCo MPC): one round of noise around the warm start; the best
//! sample, the unchanged warm start among them, is the plan.

use serde::{Deserialize, Serialize};

use crate::config::{check_positive, check_samples};
use crate::error::PlanError;
use crate::search::Search;
use crate::solver::{Problem, Solution, Solver};

/// Predictive sampling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PredictiveSampling {
    /// Number of candidates.
    pub samples: usize,
    /// Standard deviation of the noise, in standard deviations of the data's actions.
    pub noise_scale: f32,
}

impl Default for PredictiveSampling {
    fn default() -> Self {
        Self { samples: 300, noise_scale: 1.0 }
    }
}

impl PredictiveSampling {
    pub(crate) fn validate(&self) -> Result<(), PlanError> {
        check_samples(self.samples)?;
        check_positive("noise_scale", self.noise_scale)
    }
}

impl Solver for PredictiveSampling {
    fn name(&self) -> &'static str {
        "predictive-sampling"
    }

    fn samples(&self) -> usize {
        self.samples
    }

    fn solve_with(&self, problem: Problem<'_>) -> Result<Solution, PlanError> {
        let Problem { shape, cost, init, noise, observe } = problem;
        let mut search = Search::new(self.name(), shape, self.samples, init, self.noise_scale)?;
        search.sample_gaussian(0, noise);
        search.evaluate(0, cost)?;
        search.select_elites(1);
        search.finish(0, None, observe);
        Ok(search.end_at_best())
    }
}
