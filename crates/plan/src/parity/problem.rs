//! The problem of the recorded solves, an analytic cost over plans `[5, 4]` of two episodes:
//! `sum w (x - goal)^2 + 0.25 sum x[h,d] x[h+1,(d+1) mod D] + 0.8 sum sin(3 x + h)`.

use crate::error::CostError;
use crate::solver::{Cost, Shape};

/// The analytic cost of one episode or, end to end, of several: their plans follow each other along the horizon.
pub struct AnalyticCost {
    /// Weight of each action dimension, `[D]`.
    pub weights: Vec<f64>,
    /// Goals of the episodes, `[E, H, D]`.
    pub goals: Vec<f64>,
    /// Of one episode's plan.
    pub shape: Shape,
}

impl Cost for AnalyticCost {
    fn evaluate(&mut self, shape: Shape, plans: &[f32], costs: &mut [f32]) -> Result<(), CostError> {
        let len = self.shape.len();
        for (plans, cost) in plans.chunks(shape.len()).zip(costs) {
            let parts = plans.chunks(len).zip(self.goals.chunks(len));
            *cost = parts
                .map(|(plan, goal)| analytic_cost(self.shape, plan, &self.weights, goal))
                .sum::<f64>() as f32;
        }
        Ok(())
    }

    fn gradient(
        &mut self,
        shape: Shape,
        plans: &[f32],
        costs: &mut [f32],
        gradients: &mut [f32],
    ) -> Result<(), CostError> {
        self.evaluate(shape, plans, costs)?;
        let len = self.shape.len();
        for ((plan, out), goal) in
            plans.chunks(len).zip(gradients.chunks_mut(len)).zip(self.goals.chunks(len).cycle())
        {
            analytic_gradient(self.shape, plan, &self.weights, goal, out);
        }
        Ok(())
    }
}

fn analytic_cost(shape: Shape, plan: &[f32], w: &[f64], goal: &[f64]) -> f64 {
    let x = |h: usize, d: usize| f64::from(plan[h * shape.dim + d]);
    let mut cost = 0.0;
    for h in 0..shape.horizon {
        for d in 0..shape.dim {
            cost +=
                w[d] * (x(h, d) - goal[h * shape.dim + d]).powi(2) + 0.8 * (3.0 * x(h, d) + h as f64).sin();
            if h + 1 < shape.horizon {
                cost += 0.25 * x(h, d) * x(h + 1, (d + 1) % shape.dim);
            }
        }
    }
    cost
}

/// The gradient of [`analytic_cost`] into `out`.
fn analytic_gradient(shape: Shape, plan: &[f32], w: &[f64], goal: &[f64], out: &mut [f32]) {
    let dim = shape.dim;
    let x = |h: usize, d: usize| f64::from(plan[h * dim + d]);
    for h in 0..shape.horizon {
        for d in 0..dim {
            let mut slope =
                2.0 * w[d] * (x(h, d) - goal[h * dim + d]) + 2.4 * (3.0 * x(h, d) + h as f64).cos();
            if h + 1 < shape.horizon {
                slope += 0.25 * x(h + 1, (d + 1) % dim);
            }
            if h > 0 {
                slope += 0.25 * x(h - 1, (d + dim - 1) % dim);
            }
            out[h * dim + d] = slope as f32;
        }
    }
}
