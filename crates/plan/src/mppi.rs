//! Model-predictive path integral control (Williams et al. 2017) with an elite set, as in TD-MPC
//! (Hansen et al. 2022).
//!
//! Samples as CEM; the new mean is the average of the elites weighted by
//! `softmax(-(c - min c) / temperature)`. The temperature of the reference is in units of the cost, so its
//! effect depends on the latent's scale: with a cost spread far above it one sample takes all the weight and
//! the mean jumps, far below it the weights are uniform. By default the temperature is therefore in units of
//! the standard deviation of the elites' costs. The effective sample size `1 / sum(w^2)` of every iteration
//! is logged and tells which of the two happened. It also falls to about 1 once the mean, which is sample 0,
//! is far better than any noisy sample: at a constant standard deviation nothing more is to be gained then.

use serde::{Deserialize, Serialize};

use crate::config::{TopK, check_count, check_positive};
use crate::error::PlanError;
use crate::search::{Search, softmin};
use crate::solver::{Problem, Solution, Solver};

/// What the MPPI temperature multiplies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TemperatureUnit {
    /// The standard deviation of the elites' costs.
    #[default]
    EliteSpread,
    /// One unit of cost, as in the reference.
    Raw,
}

/// Model-predictive path integral control.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mppi {
    /// Candidates per iteration.
    pub samples: usize,
    /// Number of iterations.
    pub iterations: usize,
    /// Number of elites, or `"all"`.
    pub topk: TopK,
    /// First standard deviation, in standard deviations of the data's actions.
    pub var_scale: f32,
    /// Softness of the weights, in `temperature_unit`.
    pub temperature: f32,
    /// Unit of `temperature`.
    pub temperature_unit: TemperatureUnit,
    /// Refit the standard deviation to the weighted elites. Off in the reference, where the constant spread
    /// limits how precise a plan can become.
    pub update_std: bool,
    /// Floor of the refitted standard deviation; only read with `update_std`.
    pub min_std: f32,
}

impl Default for Mppi {
    fn default() -> Self {
        Self {
            samples: 300,
            iterations: 30,
            topk: TopK::Count(30),
            var_scale: 1.0,
            temperature: 2.0,
            temperature_unit: TemperatureUnit::EliteSpread,
            update_std: false,
            min_std: 0.05,
        }
    }
}

impl Mppi {
    pub(crate) fn validate(&self) -> Result<(), PlanError> {
        check_count("samples", self.samples)?;
        check_count("iterations", self.iterations)?;
        check_count("topk", self.topk.of(self.samples))?;
        check_positive("var_scale", self.var_scale)?;
        check_positive("temperature", self.temperature)?;
        if !(self.min_std >= 0.0 && self.min_std.is_finite()) {
            return Err(PlanError::config("min_std", format!("must be 0 or more, not {}", self.min_std)));
        }
        Ok(())
    }

    fn temperature(&self, search: &Search) -> f64 {
        let temperature = f64::from(self.temperature);
        match self.temperature_unit {
            TemperatureUnit::Raw => temperature,
            // Without spread all elites cost the same and any temperature gives uniform weights.
            TemperatureUnit::EliteSpread => match search.elite_spread() {
                spread if spread > 0.0 => temperature * spread,
                _ => temperature,
            },
        }
    }
}

impl Solver for Mppi {
    fn name(&self) -> &'static str {
        "mppi"
    }

    fn samples(&self) -> usize {
        self.samples
    }

    fn solve_with(&self, problem: Problem<'_>) -> Result<Solution, PlanError> {
        let Problem { shape, cost, init, noise, observe } = problem;
        let topk = self.topk.of(self.samples);
        let min_std = self.update_std.then_some(self.min_std);
        let mut search = Search::new(self.name(), shape, self.samples, init, self.var_scale)?;
        let mut weights = Vec::with_capacity(topk);
        for iteration in 0..self.iterations {
            search.sample_gaussian(iteration, noise);
            search.evaluate(iteration, cost)?;
            if topk < self.samples {
                search.select_elites(topk);
            }
            let temperature = self.temperature(&search);
            let effective = softmin(&search.costs, search.elites(), temperature, &mut weights);
            search.fit_weighted(&weights, min_std);
            search.finish(iteration, Some(effective as f32), observe);
        }
        let cost = search.elite_cost() as f32;
        Ok(Solution { actions: search.mean, cost, history: search.history, nominal: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solver::Shape;
    use worldbench_core::Stream;

    const SHAPE: Shape = Shape { horizon: 4, dim: 2 };

    fn bowl(scale: f32) -> impl FnMut(Shape, &[f32], &mut [f32]) {
        move |shape, candidates, costs| {
            for (plan, cost) in candidates.chunks(shape.len()).zip(costs) {
                *cost = scale * plan.iter().map(|x| (x - 0.5).powi(2)).sum::<f32>();
            }
        }
    }

    fn solve(mppi: &Mppi, scale: f32) -> Solution {
        mppi.solve(SHAPE, &mut bowl(scale), None, &Stream::new(1, "mppi", &[0])).unwrap()
    }

    #[test]
    fn spread_temperature_does_not_depend_on_the_scale_of_the_cost() {
        let mppi = Mppi::default();
        let (small, large) = (solve(&mppi, 1.0), solve(&mppi, 1024.0));
        for (a, b) in small.actions.iter().zip(&large.actions) {
            assert!((a - b).abs() < 1e-4);
        }
        let effective = large.history[0].effective_samples.unwrap();
        assert!(effective > 2.0 && effective <= 30.0, "{effective}");
        let raw = Mppi { temperature_unit: TemperatureUnit::Raw, ..mppi };
        assert!(solve(&raw, 1024.0).history[0].effective_samples.unwrap() < 1.5);
    }

    #[test]
    fn equal_costs_have_uniform_weights() {
        let mut flat = |_: Shape, _: &[f32], costs: &mut [f32]| costs.fill(3.0);
        let mppi = Mppi { topk: TopK::All, ..Mppi::default() };
        let solution = mppi.solve(SHAPE, &mut flat, None, &Stream::new(1, "mppi", &[0])).unwrap();
        assert!((solution.history[0].effective_samples.unwrap() - 300.0).abs() < 1e-3);
        assert_eq!(solution.cost, 3.0);
    }

    #[test]
    fn updated_std_is_more_precise_and_keeps_its_floor() {
        let fixed = Mppi::default();
        let updated = Mppi { update_std: true, min_std: 0.01, ..fixed.clone() };
        let error = |s: Solution| s.actions.iter().map(|x| (x - 0.5).powi(2)).sum::<f32>();
        assert!(error(solve(&updated, 1.0)) < 0.1 * error(solve(&fixed, 1.0)));
        let norm = solve(&updated, 1.0).history[29].std_norm;
        assert!(norm >= 0.01 * (SHAPE.len() as f32).sqrt() - 1e-6, "{norm}");
    }
}
