//! The MPPI of the original PLDM (Sobal et al. 2025), after Williams et al. 2017.
//!
//! One nominal sequence `U` lives for a whole episode. Each replan draws `eps ~ N(0, Sigma)`, bounds
//! `V = bound(U + eps)`, adds the control cost `lambda * sum_t U_t^T Sigma^-1 eps_t` to the cost of `V`
//! (which should sum the goal distance over **all** steps) and moves `U += sum_k w_k eps_k` with
//! `w = softmax(-cost / lambda)`. `Sigma = noise_sigma * I`: the key is a **variance**. The first `U` is
//! itself a draw from `N(0, Sigma)`.
//!
//! The bound rescales each action vector so that its Euclidean norm lies in `[min_norm, max_norm]`. The
//! original walks the time axis in windows of the action size, which happens to cover it; here the vectors
//! are taken as they are.

use serde::{Deserialize, Serialize};

use crate::config::{check_count, check_iterations, check_positive, check_samples};
use crate::error::PlanError;
use crate::search::{Search, softmin};
use crate::solver::{NoiseSource, Problem, Solution, Solver};

/// MPPI as in the original PLDM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MppiPldm {
    /// Candidates per update.
    pub samples: usize,
    /// Updates per replan.
    pub iterations: usize,
    /// Variance of the action noise.
    pub noise_sigma: f32,
    /// Temperature, in units of the cost, and weight of the control cost.
    pub lambda: f32,
    /// Smallest norm of an action vector.
    pub min_norm: f32,
    /// Largest norm of an action vector; unbounded when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_norm: Option<f32>,
    /// Size of the vectors that are bounded; the whole block when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action_dim: Option<usize>,
}

impl Default for MppiPldm {
    fn default() -> Self {
        Self {
            samples: 500,
            iterations: 1,
            noise_sigma: 5.0,
            lambda: 0.005,
            min_norm: 0.0,
            max_norm: None,
            action_dim: None,
        }
    }
}

impl MppiPldm {
    pub(crate) fn validate(&self) -> Result<(), PlanError> {
        check_samples(self.samples)?;
        check_iterations(self.iterations)?;
        check_positive("noise_sigma", self.noise_sigma)?;
        check_positive("lambda", self.lambda)?;
        check_count("action_dim", self.action_dim.unwrap_or(1))?;
        let max = self.max_norm.unwrap_or(f32::INFINITY);
        if !(self.min_norm >= 0.0 && self.min_norm <= max) {
            return Err(PlanError::config(
                "min_norm",
                format!("must lie in 0..={max}, not {}", self.min_norm),
            ));
        }
        Ok(())
    }

    /// Rescales every action vector of `plans` so that its norm lies within the bounds.
    fn bound(&self, plans: &mut [f32], block: usize) {
        let max = self.max_norm.unwrap_or(f32::INFINITY);
        if self.min_norm <= 0.0 && max.is_infinite() {
            return;
        }
        for action in plans.chunks_mut(self.action_dim.unwrap_or(block)) {
            let norm = action.iter().map(|x| x * x).sum::<f32>().sqrt();
            let factor = norm.clamp(self.min_norm, max) / (norm + 1e-6);
            action.iter_mut().for_each(|x| *x *= factor);
        }
    }

    /// Draws bounded candidates around the nominal, which is `search.mean`.
    fn sample(&self, search: &mut Search, iteration: usize, noise: &mut dyn NoiseSource) {
        let (shape, std) = (search.shape, self.noise_sigma.sqrt());
        noise.fill(iteration, self.samples, &mut search.candidates);
        for plan in search.candidates.chunks_exact_mut(shape.len()) {
            plan.iter_mut().zip(&search.mean).for_each(|(x, u)| *x = u + std * *x);
        }
        self.bound(&mut search.candidates, shape.dim);
    }

    /// Adds `lambda * U^T Sigma^-1 eps` with the bounded `eps = V - U`.
    fn add_control_cost(&self, search: &mut Search) {
        let factor = f64::from(self.lambda) / f64::from(self.noise_sigma);
        let Search { candidates, costs, mean, shape, .. } = search;
        for (plan, cost) in candidates.chunks_exact(shape.len()).zip(costs) {
            let dot: f64 =
                plan.iter().zip(&*mean).map(|(&v, &u)| f64::from(u) * (f64::from(v) - f64::from(u))).sum();
            *cost += (factor * dot) as f32;
        }
    }
}

impl Solver for MppiPldm {
    fn name(&self) -> &'static str {
        "mppi-pldm"
    }

    fn samples(&self) -> usize {
        self.samples
    }

    fn solve_with(&self, problem: Problem<'_>) -> Result<Solution, PlanError> {
        let Problem { shape, cost, init, noise, observe } = problem;
        if !shape.dim.is_multiple_of(self.action_dim.unwrap_or(1)) {
            let problem = format!("must divide the action block of {}", shape.dim);
            return Err(PlanError::config("action_dim", problem));
        }
        let std = self.noise_sigma.sqrt();
        let mut search = Search::new(self.name(), shape, self.samples, init, std)?;
        if init.is_none() {
            noise.fill_initial(&mut search.mean);
            search.mean.iter_mut().for_each(|u| *u *= std);
        }
        let mut weights = Vec::with_capacity(self.samples);
        let mut plan_cost = 0.0;
        for iteration in 0..self.iterations {
            self.sample(&mut search, iteration, noise);
            search.evaluate(iteration, cost)?;
            self.add_control_cost(&mut search);
            let effective = softmin(&search.costs, search.elites(), f64::from(self.lambda), &mut weights);
            // U + sum_k w_k (V_k - U) = sum_k w_k V_k, as the weights sum to 1.
            search.fit_weighted(&weights, None);
            plan_cost =
                search.elites().iter().zip(&weights).map(|(&s, w)| w * f64::from(search.costs[s])).sum();
            search.finish(iteration, Some(effective as f32), observe);
        }
        let nominal = search.mean.clone();
        let mut actions = search.mean;
        self.bound(&mut actions, shape.dim);
        Ok(Solution { actions, cost: plan_cost as f32, history: search.history, nominal: Some(nominal) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solver::{FixedNoise, Iteration, Shape};
    use worldbench_core::Stream;

    #[test]
    fn one_update_follows_the_formula() {
        let shape = Shape { horizon: 1, dim: 1 };
        let solver = MppiPldm { samples: 2, noise_sigma: 4.0, lambda: 0.5, ..MppiPldm::default() };
        let mut noise = FixedNoise { iterations: vec![vec![0.5, -0.5]], ..FixedNoise::default() };
        let mut cost = |_: Shape, x: &[f32], c: &mut [f32]| c.copy_from_slice(x);
        let (noise, observe) = (&mut noise, &mut |_: &Iteration<'_>| {});
        let problem = Problem { shape, cost: &mut cost, init: Some(&[2.0]), noise, observe };
        let solution = solver.solve_with(problem).unwrap();
        // eps = +-1, V = 3 and 1, control cost 0.5 * 2 * eps / 4 = +-0.25.
        let (a, b) = (3.25f64, 0.75f64);
        let w = (-(a - b) / 0.5).exp() / (1.0 + (-(a - b) / 0.5).exp());
        assert!((f64::from(solution.actions[0]) - (2.0 + w - (1.0 - w))).abs() < 1e-6);
        assert_eq!(solution.nominal.as_deref(), Some(&solution.actions[..]));
    }

    #[test]
    fn norms_are_bounded_but_the_nominal_is_kept() {
        let shape = Shape { horizon: 3, dim: 4 };
        let solver = MppiPldm { max_norm: Some(1.0), action_dim: Some(2), ..MppiPldm::default() };
        let mut worst = 0.0f32;
        let mut cost = |_: Shape, plans: &[f32], costs: &mut [f32]| {
            for action in plans.chunks(2) {
                worst = worst.max(action[0].hypot(action[1]));
            }
            costs.fill(0.0);
        };
        let solution = solver.solve(shape, &mut cost, None, &Stream::new(0, "pldm", &[])).unwrap();
        assert!(worst > 0.99 && worst <= 1.0001, "{worst}");
        assert!(solution.actions.chunks(2).all(|a| a[0].hypot(a[1]) <= 1.0001));
    }
}
