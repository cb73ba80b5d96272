//! Improved cross-entropy method (Pinneri et al. 2020): temporally coloured noise, momentum, kept elites and
//! clipping to the action bounds.
//!
//! Differences from the Python reference, on purpose: a horizon of 1 works (white noise), and the bounds are
//! in the same normalised space as the candidates.

use serde::{Deserialize, Serialize};

use crate::config::{check_iterations, check_positive, check_samples, check_topk};
use crate::error::PlanError;
use crate::search::Search;
use crate::solver::{Problem, Solution, Solver};

/// Improved cross-entropy method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Icem {
    /// Candidates per iteration.
    pub samples: usize,
    /// Number of iterations.
    pub iterations: usize,
    /// Number of elites, `2..=samples`.
    pub topk: usize,
    /// First standard deviation, in standard deviations of the data's actions.
    pub var_scale: f32,
    /// Exponent of the noise's power spectrum over time; 0 is white noise.
    pub noise_beta: f32,
    /// Share of the old mean and standard deviation that is kept, `0..1`.
    pub alpha: f32,
    /// Elites of one iteration that are candidates of the next.
    pub n_elite_keep: usize,
    /// Return the final mean; otherwise the best candidate of the last iteration.
    pub return_mean: bool,
    /// Lower bounds of a normalised action, tiled over the block; none when empty.
    pub low: Vec<f32>,
    /// Upper bounds, as many as `low`.
    pub high: Vec<f32>,
}

impl Default for Icem {
    fn default() -> Self {
        Self {
            samples: 300,
            iterations: 30,
            topk: 30,
            var_scale: 1.0,
            noise_beta: 2.0,
            alpha: 0.1,
            n_elite_keep: 5,
            return_mean: true,
            low: Vec::new(),
            high: Vec::new(),
        }
    }
}

impl Icem {
    pub(crate) fn validate(&self) -> Result<(), PlanError> {
        check_samples(self.samples)?;
        check_iterations(self.iterations)?;
        check_topk(self.topk, self.samples)?;
        check_positive("var_scale", self.var_scale)?;
        if !(self.noise_beta >= 0.0 && self.noise_beta.is_finite()) {
            return Err(PlanError::config(
                "noise_beta",
                format!("must be 0 or more, not {}", self.noise_beta),
            ));
        }
        if !(0.0..1.0).contains(&self.alpha) {
            return Err(PlanError::config("alpha", format!("must lie in 0..1, not {}", self.alpha)));
        }
        if self.n_elite_keep >= self.samples {
            let problem = format!("must be below `samples` = {}, not {}", self.samples, self.n_elite_keep);
            return Err(PlanError::config("n_elite_keep", problem));
        }
        if self.low.len() != self.high.len()
            || self.low.iter().zip(&self.high).any(|(l, h)| l.partial_cmp(h).is_none_or(|o| o.is_gt()))
        {
            return Err(PlanError::config(
                "high",
                "must have one value, not below that of `low`, per action dimension",
            ));
        }
        Ok(())
    }

    fn clamp(&self, candidates: &mut [f32]) {
        for action in candidates.chunks_mut(self.low.len().max(1)) {
            for ((x, &low), &high) in action.iter_mut().zip(&self.low).zip(&self.high) {
                *x = x.clamp(low, high);
            }
        }
    }

    /// Kept elites replace the candidates after sample 0.
    fn inject(search: &mut Search, kept: &[f32]) {
        let len = search.shape.len();
        search.candidates[len..len + kept.len()].copy_from_slice(kept);
    }
}

impl Solver for Icem {
    fn name(&self) -> &'static str {
        "icem"
    }

    fn samples(&self) -> usize {
        self.samples
    }

    fn solve_with(&self, problem: Problem<'_>) -> Result<Solution, PlanError> {
        let Problem { shape, cost, init, noise, observe } = problem;
        if !self.low.is_empty() && !shape.dim.is_multiple_of(self.low.len()) {
            let problem =
                format!("has {} values, which do not tile a block of {}", self.low.len(), shape.dim);
            return Err(PlanError::config("low", problem));
        }
        let mut search = Search::new(self.name(), shape, self.samples, init, self.var_scale)?;
        let mut colour = Colour::new(shape.horizon, f64::from(self.noise_beta));
        let mut white = vec![0.0; search.candidates.len()]; // [S, D, H]
        let mut kept = Vec::new();
        for iteration in 0..self.iterations {
            noise.fill(iteration, self.samples, &mut white);
            for (white, plan) in white.chunks(shape.len()).zip(search.candidates.chunks_mut(shape.len())) {
                colour.apply(white, plan);
            }
            search.scale_noise();
            Self::inject(&mut search, &kept);
            self.clamp(&mut search.candidates);
            search.evaluate(iteration, cost)?;
            search.select_elites(self.topk);
            search.fit_elites(self.alpha);
            kept.clear();
            for &elite in search.elites().iter().take(self.n_elite_keep) {
                kept.extend_from_slice(search.plan(elite));
            }
            search.finish(iteration, None, observe);
        }
        Ok(if self.return_mean { search.end_at_mean() } else { search.end_at_best() })
    }
}

/// Noise with power spectrum `f^-beta` over time.
///
/// Scaling the discrete Fourier transform by `s_k = f_k^(-beta/2)` is a circular convolution with the inverse
/// transform of `s`; horizons are short, so the kernel is applied directly.
#[derive(Clone, Debug)]
pub struct Colour {
    kernel: Vec<f64>, // [H]
    line: Vec<f64>,   // [H]
}

impl Colour {
    /// Noise over `horizon` steps.
    #[must_use]
    pub fn new(horizon: usize, beta: f64) -> Self {
        let scale = Self::scale(horizon, beta);
        let h = horizon as f64;
        let kernel = (0..horizon)
            .map(|t| {
                let wave = |k: usize| (std::f64::consts::TAU * (k * t) as f64 / h).cos();
                // Every frequency but 0 and Nyquist stands for a conjugate pair.
                let pair = |k: usize| if k == 0 || 2 * k == horizon { 1.0 } else { 2.0 };
                scale.iter().enumerate().map(|(k, s)| pair(k) * s * wave(k)).sum::<f64>() / h
            })
            .collect();
        Self { kernel, line: vec![0.0; horizon] }
    }

    /// Factors of the frequencies `0..=H/2`; frequency 0 shares that of the next.
    #[must_use]
    pub fn scale(horizon: usize, beta: f64) -> Vec<f64> {
        if horizon < 2 {
            return vec![1.0; horizon];
        }
        let factor = |k: usize| (k.max(1) as f64 / horizon as f64).powf(-beta / 2.0);
        (0..=horizon / 2).map(factor).collect()
    }

    /// Colours `white` `[D, H]` into `out` `[H, D]`; every sequence gets unit (unbiased) deviation over time.
    pub fn apply(&mut self, white: &[f32], out: &mut [f32]) {
        let h = self.kernel.len();
        if h == 0 {
            return;
        }
        let dim = out.len() / h;
        for (d, white) in white.chunks_exact(h).enumerate() {
            for (t, y) in self.line.iter_mut().enumerate() {
                *y =
                    white.iter().enumerate().map(|(u, &x)| self.kernel[(t + h - u) % h] * f64::from(x)).sum();
            }
            let deviation = unbiased_std(&self.line).max(1e-8);
            for (t, y) in self.line.iter().enumerate() {
                out[t * dim + d] = (y / deviation) as f32;
            }
        }
    }
}

/// Unbiased standard deviation; 1 for a single value, which has none.
fn unbiased_std(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    if values.len() < 2 {
        return 1.0;
    }
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solver::Shape;
    use worldbench_core::Stream;

    #[test]
    fn a_horizon_of_one_works_and_bounds_hold() {
        let shape = Shape { horizon: 1, dim: 4 };
        let icem = Icem { low: vec![-0.5, -2.0], high: vec![0.5, 2.0], ..Icem::default() };
        let mut widest = [0.0f32; 4];
        let mut far = |shape: Shape, plans: &[f32], costs: &mut [f32]| {
            for (plan, cost) in plans.chunks(shape.len()).zip(costs) {
                widest.iter_mut().zip(plan).for_each(|(w, x)| *w = w.max(x.abs()));
                *cost = plan.iter().map(|x| (x - 9.0).powi(2)).sum();
            }
        };
        let plan = icem.solve(shape, &mut far, None, &Stream::new(0, "icem", &[])).unwrap().actions;
        assert_eq!(widest, [0.5, 2.0, 0.5, 2.0]);
        assert!((plan[0] - 0.5).abs() < 1e-3 && (plan[3] - 2.0).abs() < 0.1, "{plan:?}");
    }
}
