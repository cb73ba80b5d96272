//! Goal terms of a planning cost, on plain arrays.
//!
//! The squared distance to the goal latent, at the last predicted step (DINO-WM, LeWM, PLDM in SWM) or summed
//! over all steps (the running cost of the original PLDM). CEM ranks costs, so `sum` and `mean` give it the
//! same plan; MPPI with a raw temperature and gradient planners do not share that indifference.
//!
//! Sums run in 16 virtual lanes reduced in a fixed tree, without fused multiply-adds: equal bits whatever
//! vector width the compiler picks.

use serde::{Deserialize, Serialize};

use crate::error::PlanError;
use crate::solver::Shape;

const LANES: usize = 16;

/// Which predicted steps count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Steps {
    /// The last one.
    #[default]
    Last,
    /// All, summed.
    All,
}

/// How the squared differences of one step are combined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reduction {
    /// Their sum.
    #[default]
    Sum,
    /// Their mean.
    Mean,
}

/// Configuration of the goal cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Objective {
    /// Which predicted steps count.
    pub steps: Steps,
    /// How the squared differences of one step are combined.
    pub reduction: Reduction,
    /// Weight of the sum of squared normalised actions.
    pub control: f32,
}

/// A part of the latent (pixels, proprioception, ...) with its weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// First value of the part within a latent.
    pub start: usize,
    /// Number of values, at least 1.
    pub len: usize,
    /// Weight of the part's distance.
    pub weight: f32,
}

impl Part {
    /// A whole latent of `len` values with weight 1.
    #[must_use]
    pub fn whole(len: usize) -> Self {
        Self { start: 0, len, weight: 1.0 }
    }
}

impl Objective {
    /// Checks the weight.
    ///
    /// # Errors
    /// When `control` is negative or not finite.
    pub fn validate(&self) -> Result<(), PlanError> {
        if self.control >= 0.0 && self.control.is_finite() {
            return Ok(());
        }
        Err(PlanError::config("control", format!("must be 0 or more and finite, not {}", self.control)))
    }

    /// Cost of one predicted step: weighted squared distances of the latents' parts.
    ///
    /// Parts outside the latents are a caller's error and cost NaN, which planners reject.
    #[must_use]
    pub fn step_cost(&self, latent: &[f32], goal: &[f32], parts: &[Part]) -> f32 {
        let part_cost = |part: &Part| {
            let range = part.start..part.start + part.len;
            let (Some(a), Some(b)) = (latent.get(range.clone()), goal.get(range)) else { return f32::NAN };
            let distance = squared_distance(a, b);
            part.weight
                * if self.reduction == Reduction::Mean { distance / part.len as f32 } else { distance }
        };
        parts.iter().map(part_cost).fold(0.0, |sum, c| sum + c)
    }

    /// True when predicted step `step` (from 0) of `steps` adds to the cost.
    #[must_use]
    pub fn counts(&self, step: usize, steps: usize) -> bool {
        self.steps == Steps::All || step + 1 == steps
    }

    /// Costs `[S]` of predicted latents `[S, T, L]` for a goal latent `[L]`.
    ///
    /// # Errors
    /// When the latents are not `[S, T, L]` for some `T`.
    pub fn goal_costs(
        &self,
        latents: &[f32],
        goal: &[f32],
        parts: &[Part],
        costs: &mut [f32],
    ) -> Result<(), PlanError> {
        let per_sample = latents.len().checked_div(costs.len()).unwrap_or(0);
        if goal.is_empty()
            || per_sample == 0
            || latents.len() != per_sample * costs.len()
            || !per_sample.is_multiple_of(goal.len())
        {
            let expected = format!("[S = {}, T, L = {}]", costs.len(), goal.len());
            return Err(PlanError::Length { what: "predicted latents", got: latents.len(), expected });
        }
        let steps = per_sample / goal.len();
        for (sample, cost) in latents.chunks_exact(per_sample).zip(costs) {
            let counted = sample.chunks_exact(goal.len()).enumerate().filter(|&(t, _)| self.counts(t, steps));
            *cost =
                counted.map(|(_, latent)| self.step_cost(latent, goal, parts)).fold(0.0, |sum, c| sum + c);
        }
        Ok(())
    }

    /// Adds the control term of `candidates` `[S, H, D]` to `costs` `[S]`.
    pub fn add_control(&self, shape: Shape, candidates: &[f32], costs: &mut [f32]) {
        if self.control != 0.0 {
            for (plan, cost) in candidates.chunks(shape.len().max(1)).zip(costs) {
                *cost += self.control * lane_sum(plan, |x| x * x);
            }
        }
    }
}

/// Squared Euclidean distance of equally long `a` and `b`.
#[must_use]
pub fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += (a - b) * (a - b);
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(rest) {
        *lane += (a - b) * (a - b);
    }
    tree(lanes)
}

/// Sum of `f` over `values`, in lanes.
fn lane_sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for chunk in values.chunks(LANES) {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    tree(lanes)
}

/// Sum of the lanes: halves are added until one is left.
fn tree(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_follow_their_definition() {
        // Two samples, two steps, latents of 3; the goal is 0.
        let latents = [1.0, 2.0, 3.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0];
        let parts = [Part { start: 0, len: 2, weight: 1.0 }, Part { start: 2, len: 1, weight: 10.0 }];
        let costs = |steps, reduction| {
            let mut costs = [0.0; 2];
            let objective = Objective { steps, reduction, control: 0.0 };
            objective.goal_costs(&latents, &[0.0; 3], &parts, &mut costs).unwrap();
            costs
        };
        assert_eq!(costs(Steps::Last, Reduction::Sum), [40.0, 12.0]);
        assert_eq!(costs(Steps::Last, Reduction::Mean), [40.0, 11.0]);
        assert_eq!(costs(Steps::All, Reduction::Sum), [135.0, 12.0]);
    }

    #[test]
    fn distances_of_any_length_are_right() {
        for n in [0, 1, 15, 16, 17, 100] {
            let a: Vec<f32> = (0..n).map(|i| i as f32 * 0.5).collect();
            let b: Vec<f32> = (0..n).map(|i| i as f32 * 0.25).collect();
            let exact: f64 = (0..n).map(|i| f64::from(i).powi(2) / 16.0).sum();
            assert!((f64::from(squared_distance(&a, &b)) - exact).abs() <= 1e-6 * exact, "{n}");
        }
    }

    #[test]
    fn wrong_shapes_are_errors_or_nan() {
        let objective = Objective::default();
        assert!(objective.goal_costs(&[0.0; 7], &[0.0; 3], &[], &mut [0.0; 2]).is_err());
        assert!(objective.goal_costs(&[], &[0.0; 3], &[], &mut []).is_err());
        assert!(objective.step_cost(&[0.0; 2], &[0.0; 2], &[Part::whole(3)]).is_nan());
    }

    #[test]
    fn control_adds_the_squared_actions() {
        let mut costs = [1.0, 2.0];
        let objective = Objective { control: 0.5, ..Objective::default() };
        assert!(objective.validate().is_ok());
        for control in [-0.5, f32::NAN] {
            assert!(Objective { control, ..objective }.validate().is_err());
        }
        objective.add_control(Shape { horizon: 1, dim: 2 }, &[1.0, 1.0, 2.0, 0.0], &mut costs);
        assert_eq!(costs, [2.0, 4.0]);
    }
}
