//! Buffers and steps shared by the sampling solvers.
//!
//! A solver allocates one [`Search`] per solve and nothing afterwards. Sums over samples run in `f64` in a
//! fixed order.

use std::cmp::Ordering;

use crate::error::PlanError;
use crate::solver::{Cost, Iteration, IterationStats, NoiseSource, Shape, Solution, copy_padded};

/// Values of all candidates, [S, H, D]: a gigabyte.
const MOST_VALUES: usize = 1 << 28;

/// State of one solve.
pub(crate) struct Search {
    pub solver: &'static str,
    pub shape: Shape,
    pub candidates: Vec<f32>, // [S, H, D]
    pub costs: Vec<f32>,      // [S]
    pub mean: Vec<f32>,       // [H, D]
    pub std: Vec<f32>,        // [H, D]
    /// All samples with a finite cost first; the elites are `order[..elites]`.
    pub order: Vec<usize>,
    pub elites: usize,
    pub history: Vec<IterationStats>,
    sums: Vec<f64>, // [H, D]
}

impl Search {
    pub fn new(
        solver: &'static str,
        shape: Shape,
        samples: usize,
        init: Option<&[f32]>,
        std: f32,
    ) -> Result<Self, PlanError> {
        if shape.is_empty() {
            let expected = format!("at least one action block, not {shape:?}");
            return Err(PlanError::Length { what: "plan", got: 0, expected });
        }
        let most = MOST_VALUES / shape.len();
        if samples > most {
            let problem =
                format!("must be at most {most} for plans of {} values, not {samples}", shape.len());
            return Err(PlanError::config("samples", problem));
        }
        let init = init.unwrap_or(&[]);
        if init.len() > shape.len() || !init.len().is_multiple_of(shape.dim) {
            let expected = format!("whole blocks of {} and at most {} of them", shape.dim, shape.horizon);
            return Err(PlanError::Length { what: "warm start", got: init.len(), expected });
        }
        let mut mean = vec![0.0; shape.len()];
        copy_padded(init, &mut mean);
        Ok(Self {
            solver,
            shape,
            candidates: vec![0.0; samples * shape.len()],
            costs: vec![0.0; samples],
            mean,
            std: vec![std; shape.len()],
            order: (0..samples).collect(),
            elites: 0,
            history: Vec::new(),
            sums: vec![0.0; shape.len()],
        })
    }

    /// Draws `mean + std * noise`; sample 0 is the mean itself (so a good plan is never lost).
    pub fn sample_gaussian(&mut self, iteration: usize, noise: &mut dyn NoiseSource) {
        noise.fill(iteration, self.costs.len(), &mut self.candidates);
        self.scale_noise();
    }

    /// Turns the noise in `candidates` into `mean + std * noise`, and sample 0 into the mean.
    pub fn scale_noise(&mut self) {
        for plan in self.candidates.chunks_exact_mut(self.shape.len()) {
            for ((x, &mean), &std) in plan.iter_mut().zip(&self.mean).zip(&self.std) {
                *x = mean + std * *x;
            }
        }
        self.candidates[..self.shape.len()].copy_from_slice(&self.mean);
    }

    /// Evaluates the candidates. Afterwards `order` holds the samples of finite cost first, in sample order.
    pub fn evaluate(&mut self, iteration: usize, cost: &mut dyn Cost) -> Result<(), PlanError> {
        self.costs.fill(f32::NAN);
        cost.evaluate(self.shape, &self.candidates, &mut self.costs).map_err(PlanError::Cost)?;
        self.finite_first(iteration)
    }

    /// As [`Search::evaluate`], with the candidates' gradients in `gradients` `[S, H, D]`.
    pub fn evaluate_gradient(
        &mut self,
        iteration: usize,
        cost: &mut dyn Cost,
        gradients: &mut [f32],
    ) -> Result<(), PlanError> {
        self.costs.fill(f32::NAN);
        let evaluated = cost.gradient(self.shape, &self.candidates, &mut self.costs, gradients);
        evaluated.map_err(PlanError::Cost)?;
        self.finite_first(iteration)
    }

    fn finite_first(&mut self, iteration: usize) -> Result<(), PlanError> {
        let costs = &self.costs;
        self.order.clear();
        self.order.extend((0..costs.len()).filter(|&s| costs[s].is_finite()));
        self.elites = self.order.len();
        if self.elites == 0 {
            let samples = costs.len();
            return Err(PlanError::NoFiniteCost { solver: self.solver, iteration, samples });
        }
        self.order.extend((0..costs.len()).filter(|&s| !costs[s].is_finite()));
        Ok(())
    }

    /// Keeps the `k` cheapest finite samples as elites, best first, ties in sample order.
    pub fn select_elites(&mut self, k: usize) {
        let costs = &self.costs;
        let rank = |&a: &usize, &b: &usize| {
            costs[a].partial_cmp(&costs[b]).unwrap_or(Ordering::Equal).then(a.cmp(&b))
        };
        let finite = &mut self.order[..self.elites];
        let k = k.clamp(1, finite.len());
        if k < finite.len() {
            finite.select_nth_unstable_by(k - 1, rank);
        }
        finite[..k].sort_unstable_by(rank);
        self.elites = k;
    }

    /// The samples that take part in the update.
    pub fn elites(&self) -> &[usize] {
        &self.order[..self.elites]
    }

    /// The plan of `sample`, `[H, D]`.
    pub fn plan(&self, sample: usize) -> &[f32] {
        let len = self.shape.len();
        &self.candidates[sample * len..(sample + 1) * len]
    }

    /// The solve ends with the first elite.
    pub fn end_at_best(self) -> Solution {
        let best = self.order[0];
        let actions = self.plan(best).to_vec();
        Solution { actions, cost: self.costs[best], history: self.history, nominal: None }
    }

    /// The solve ends with the mean, at the mean cost of the elites that it was fitted to.
    pub fn end_at_mean(self) -> Solution {
        let cost = self.elite_cost() as f32;
        Solution { actions: self.mean, cost, history: self.history, nominal: None }
    }

    /// Moves mean and standard deviation towards the elites': `new = keep * old + (1 - keep) * elites'`.
    ///
    /// The standard deviation is the unbiased one; a single elite has none, and leaves it unchanged.
    pub fn fit_elites(&mut self, keep: f32) {
        let n = self.elites as f64;
        let len = self.shape.len();
        let plans = |order: &[usize], i: usize| order[i] * len;
        self.sums.fill(0.0);
        for e in 0..self.elites {
            let at = plans(&self.order, e);
            for (sum, &x) in self.sums.iter_mut().zip(&self.candidates[at..at + len]) {
                *sum += f64::from(x);
            }
        }
        for (d, sum) in self.sums.iter().enumerate() {
            let mean = sum / n;
            if self.elites > 1 {
                let squares: f64 = self.order[..self.elites]
                    .iter()
                    .map(|&s| (f64::from(self.candidates[s * len + d]) - mean).powi(2))
                    .sum();
                let std = (squares / (n - 1.0)).sqrt() as f32;
                self.std[d] = keep * self.std[d] + (1.0 - keep) * std;
            }
            self.mean[d] = keep * self.mean[d] + (1.0 - keep) * mean as f32;
        }
    }

    /// Mean of the candidates under `weights` of the elites (summing to 1); optionally their weighted
    /// standard deviation, at least `min_std`.
    pub fn fit_weighted(&mut self, weights: &[f64], min_std: Option<f32>) {
        let len = self.shape.len();
        self.sums.fill(0.0);
        for (&s, &w) in self.order.iter().zip(weights) {
            for (sum, &x) in self.sums.iter_mut().zip(&self.candidates[s * len..(s + 1) * len]) {
                *sum += w * f64::from(x);
            }
        }
        for (mean, &sum) in self.mean.iter_mut().zip(&self.sums) {
            *mean = sum as f32;
        }
        let Some(min_std) = min_std else { return };
        for (d, &mean) in self.sums.iter().enumerate() {
            let spread =
                |(&s, &w): (&usize, &f64)| w * (f64::from(self.candidates[s * len + d]) - mean).powi(2);
            let variance: f64 = self.order.iter().zip(weights).map(spread).sum();
            self.std[d] = (variance.sqrt() as f32).max(min_std);
        }
    }

    /// Mean cost of the elites.
    pub fn elite_cost(&self) -> f64 {
        self.elites().iter().map(|&s| f64::from(self.costs[s])).sum::<f64>() / self.elites as f64
    }

    /// Unbiased standard deviation of the elites' costs; 0 for a single elite.
    pub fn elite_spread(&self) -> f64 {
        if self.elites < 2 {
            return 0.0;
        }
        let mean = self.elite_cost();
        let squares: f64 = self.elites().iter().map(|&s| (f64::from(self.costs[s]) - mean).powi(2)).sum();
        (squares / (self.elites as f64 - 1.0)).sqrt()
    }

    /// Notes the finished iteration and shows it to `observe`.
    pub fn finish(
        &mut self,
        index: usize,
        effective_samples: Option<f32>,
        observe: &mut dyn FnMut(&Iteration<'_>),
    ) {
        let finite = self.costs.iter().filter(|c| c.is_finite());
        let best_cost = finite.clone().copied().fold(f32::INFINITY, f32::min);
        let norm: f64 = self.std.iter().map(|&s| f64::from(s).powi(2)).sum();
        self.history.push(IterationStats {
            best_cost,
            elite_cost: self.elite_cost() as f32,
            std_norm: norm.sqrt() as f32,
            effective_samples,
            non_finite: self.costs.len() - finite.count(),
        });
        observe(&Iteration {
            index,
            candidates: &self.candidates,
            costs: &self.costs,
            elites: &self.order[..self.elites],
            mean: &self.mean,
            std: &self.std,
        });
    }
}

/// Weights `exp(-(c - min c) / temperature)`, normalised, of the costs of `elites`; returns `1 / sum(w^2)`.
pub(crate) fn softmin(costs: &[f32], elites: &[usize], temperature: f64, weights: &mut Vec<f64>) -> f64 {
    let min = elites.iter().map(|&s| f64::from(costs[s])).fold(f64::INFINITY, f64::min);
    weights.clear();
    weights.extend(elites.iter().map(|&s| (-(f64::from(costs[s]) - min) / temperature).exp()));
    let total: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= total);
    1.0 / weights.iter().map(|w| w * w).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(costs: &[f32]) -> Search {
        let shape = Shape { horizon: 1, dim: 1 };
        let mut search = Search::new("test", shape, costs.len(), None, 1.0).unwrap();
        let mut fixed = |_: Shape, _: &[f32], out: &mut [f32]| out.copy_from_slice(costs);
        search.evaluate(0, &mut fixed).unwrap();
        search
    }

    #[test]
    fn elites_are_sorted_with_ties_in_sample_order_and_nan_last() {
        let mut s = search(&[f32::NAN, 2.0, 1.0, 2.0, f32::INFINITY, 1.0]);
        s.select_elites(3);
        assert_eq!(s.elites(), [2, 5, 1]);
        let mut s = search(&[f32::NAN, 2.0, 1.0]);
        s.select_elites(3);
        assert_eq!(s.elites(), [2, 1]);
    }

    #[test]
    fn all_nan_is_an_error() {
        let shape = Shape { horizon: 1, dim: 1 };
        let mut search = Search::new("cem", shape, 2, None, 1.0).unwrap();
        let result = search.evaluate(4, &mut |_: Shape, _: &[f32], c: &mut [f32]| c.fill(f32::NAN));
        assert!(matches!(result, Err(PlanError::NoFiniteCost { solver: "cem", iteration: 4, samples: 2 })));
    }

    #[test]
    fn warm_start_must_be_whole_blocks_within_the_horizon() {
        let shape = Shape { horizon: 2, dim: 2 };
        for bad in [1, 3, 6] {
            assert!(Search::new("cem", shape, 2, Some(&vec![0.0; bad]), 1.0).is_err(), "{bad}");
        }
        assert_eq!(Search::new("cem", shape, 2, Some(&[1.0, 2.0]), 1.0).unwrap().mean, [1.0, 2.0, 0.0, 0.0]);
    }
}
