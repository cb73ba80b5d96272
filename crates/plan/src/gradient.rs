//! Gradient descent on the plan: every sample follows the cost's own gradient from its starting plan.
//!
//! Sample 0 starts from the warm start, the others from it plus noise; the plan is the sample that is cheapest after
//! the last step. A learned cost has many poor local minima, so this planner is a baseline, not the default.
//! The reference's shipped setting is AdamW at 0.1 with 100 samples and 30 steps; where a cost has no gradient of
//! its own it is measured by central differences ([`Cost::gradient`]), and fewer samples are affordable.
//!
//! The reference clips the gradient of all episodes together, so that one episode's plan depends on its neighbours';
//! here the samples of one solve are clipped together.

use serde::{Deserialize, Serialize};

use crate::config::{check_iterations, check_positive, check_samples};
use crate::error::PlanError;
use crate::search::Search;
use crate::solver::{Problem, Solution, Solver};

/// Decay rates of Adam's moments, and what keeps its denominator above zero.
const BETAS: [f32; 2] = [0.9, 0.999];
const EPSILON: f32 = 1e-8;

/// Gradient descent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gradient {
    /// Plans that descend side by side.
    pub samples: usize,
    /// Steps of descent.
    pub iterations: usize,
    /// Rule of a step.
    pub optimizer: Optimizer,
    /// Step size.
    pub learning_rate: f32,
    /// Share of the plan taken away per unit of the step size (AdamW; 0 is Adam).
    pub weight_decay: f32,
    /// Largest norm of the gradient of all samples; unbounded when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_clip: Option<f32>,
    /// Standard deviation of the noise on the starting plans, in standard deviations of the data's actions.
    pub var_scale: f32,
    /// Standard deviation of the noise that is added after every step.
    pub action_noise: f32,
}

/// Rule of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// Plain descent; knows no weight decay.
    Sgd,
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    Adamw,
}

impl Default for Gradient {
    fn default() -> Self {
        Self {
            samples: 4,
            iterations: 30,
            optimizer: Optimizer::Adamw,
            learning_rate: 0.1,
            weight_decay: 0.01,
            grad_clip: None,
            var_scale: 1.0,
            action_noise: 0.0,
        }
    }
}

impl Gradient {
    pub(crate) fn validate(&self) -> Result<(), PlanError> {
        check_samples(self.samples)?;
        check_iterations(self.iterations)?;
        check_positive("learning_rate", self.learning_rate)?;
        check_positive("grad_clip", self.grad_clip.unwrap_or(1.0))?;
        for (key, value) in [
            ("var_scale", self.var_scale),
            ("action_noise", self.action_noise),
            ("weight_decay", self.weight_decay),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(PlanError::config(key, format!("must be at least 0 and finite, not {value}")));
            }
        }
        if self.optimizer == Optimizer::Sgd && self.weight_decay != 0.0 {
            return Err(PlanError::config(
                "weight_decay",
                "must be 0 for optimizer = \"sgd\", which has none",
            ));
        }
        Ok(())
    }

    /// Scales `gradients` of all samples down to the largest norm, and makes those that are not finite zero.
    fn clip(&self, gradients: &mut [f32]) {
        gradients.iter_mut().filter(|g| !g.is_finite()).for_each(|g| *g = 0.0);
        let Some(most) = self.grad_clip else { return };
        let norm = gradients.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt() as f32;
        let factor = (most / (norm + 1e-6)).min(1.0);
        gradients.iter_mut().for_each(|g| *g *= factor);
    }
}

/// What a rule of descent remembers.
struct Moments {
    mean: Vec<f32>,   // [S, H, D]
    square: Vec<f32>, // [S, H, D]
}

impl Moments {
    /// Step `t`, from 1, of AdamW.
    fn step(&mut self, settings: &Gradient, t: usize, plans: &mut [f32], gradients: &[f32]) {
        let rate = settings.learning_rate;
        let corrections = BETAS.map(|beta| 1.0 - f64::from(beta).powi(t as i32));
        let size = (f64::from(rate) / corrections[0]) as f32;
        let root = corrections[1].sqrt() as f32;
        let moments = self.mean.iter_mut().zip(&mut self.square);
        for ((x, &g), (mean, square)) in plans.iter_mut().zip(gradients).zip(moments) {
            *x *= 1.0 - rate * settings.weight_decay;
            *mean += (1.0 - BETAS[0]) * (g - *mean);
            *square = BETAS[1] * *square + (1.0 - BETAS[1]) * g * g;
            *x -= size * *mean / (square.sqrt() / root + EPSILON);
        }
    }
}

impl Solver for Gradient {
    fn name(&self) -> &'static str {
        "gradient"
    }

    fn samples(&self) -> usize {
        self.samples
    }

    fn solve_with(&self, problem: Problem<'_>) -> Result<Solution, PlanError> {
        let Problem { shape, cost, init, noise, observe } = problem;
        let mut search = Search::new(self.name(), shape, self.samples, init, self.var_scale)?;
        search.sample_gaussian(0, noise);
        // The spread of a descent is that of its starts; nothing is fitted to it.
        search.std.fill(0.0);
        let len = search.candidates.len();
        let mut gradients = vec![0.0; len];
        let mut drift = vec![0.0; if self.action_noise > 0.0 { len } else { 0 }];
        let mut moments = Moments { mean: vec![0.0; len], square: vec![0.0; len] };
        for iteration in 0..self.iterations {
            search.evaluate_gradient(iteration, cost, &mut gradients)?;
            search.finish(iteration, None, observe);
            self.clip(&mut gradients);
            match self.optimizer {
                Optimizer::Sgd => {
                    let pairs = search.candidates.iter_mut().zip(&gradients);
                    pairs.for_each(|(x, g)| *x -= self.learning_rate * g);
                }
                Optimizer::Adamw => moments.step(self, iteration + 1, &mut search.candidates, &gradients),
            }
            if !drift.is_empty() {
                noise.fill(iteration + 1, self.samples, &mut drift);
                search.candidates.iter_mut().zip(&drift).for_each(|(x, n)| *x += self.action_noise * n);
            }
        }
        search.evaluate(self.iterations, cost)?;
        search.select_elites(1);
        search.finish(self.iterations, None, observe);
        Ok(search.end_at_best())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solver::Shape;
    use worldbench_core::Stream;

    const SHAPE: Shape = Shape { horizon: 5, dim: 3 };

    fn bowl(shape: Shape, candidates: &[f32], costs: &mut [f32]) {
        for (plan, cost) in candidates.chunks(shape.len()).zip(costs) {
            *cost = plan.iter().enumerate().map(|(i, x)| (x - 0.1 * i as f32).powi(2)).sum();
        }
    }

    #[test]
    fn descends_into_a_bowl_by_measured_gradients() {
        for (optimizer, learning_rate) in [(Optimizer::Sgd, 0.2), (Optimizer::Adamw, 0.1)] {
            let solver = Gradient {
                optimizer,
                learning_rate,
                weight_decay: 0.0,
                iterations: 100,
                ..Gradient::default()
            };
            let solution = solver.solve(SHAPE, &mut bowl, None, &Stream::new(1, "gradient", &[0])).unwrap();
            for (i, x) in solution.actions.iter().enumerate() {
                assert!((x - 0.1 * i as f32).abs() < 0.02, "{optimizer:?} {i}: {x}");
            }
            assert_eq!(solution.history.len(), 101);
        }
    }

    #[test]
    fn a_gradient_that_is_not_finite_moves_nothing() {
        let mut cliff = |shape: Shape, plans: &[f32], costs: &mut [f32]| {
            for (plan, cost) in plans.chunks(shape.len()).zip(costs) {
                *cost = if plan[0] == 0.0 { 1.0 } else { f32::NAN };
            }
        };
        let solver = Gradient { samples: 1, weight_decay: 0.0, ..Gradient::default() };
        let solution = solver.solve(SHAPE, &mut cliff, None, &Stream::new(1, "gradient", &[0])).unwrap();
        assert_eq!(solution.actions, [0.0; 15]);
    }
}
