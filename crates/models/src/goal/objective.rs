//! What the objectives of goal-conditioned policies are made of: pure functions of network outputs.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};
use worldbench_nn::params::from_vec;

use super::Bounds;
use crate::losses::{Terms, mse};

/// Greatest weight of a demonstrated action in advantage-weighted regression.
pub const WEIGHT_LIMIT: f64 = 100.0;

/// Range of the logarithm of a constant standard deviation.
const LOG_STD_RANGE: (f64, f64) = (-5.0, 2.0);

/// Asymmetric squared error: the mean of `|expectile - 1(by < 0)| residual^2`. Plain expectile regression has
/// `by = residual`.
#[must_use]
pub fn expectile_loss<const D: usize>(residual: Tensor<D>, by: Tensor<D>, expectile: f64) -> Tensor<1> {
    let below = by.lower_elem(0.0);
    let weight = residual.full_like(expectile).mask_fill(below, 1.0 - expectile);
    (weight * residual.clone() * residual).mean()
}

/// The reward of a step, `[B, T]`: 0 at the goal, -1 elsewhere; `reached` is 1 at the goal.
#[must_use]
pub fn reward(reached: &Tensor<2>) -> Tensor<2> {
    reached.clone() - 1.0
}

/// Bellman target `reward + discount (1 - reached) next`, all `[B, T]`, detached.
#[must_use]
pub fn bellman(reached: &Tensor<2>, next: Tensor<2>, discount: f64) -> Tensor<2> {
    let alive = -reached.clone() + 1.0;
    (reward(reached) + alive * next * discount).detach()
}

/// Least of the heads, `[B, T, H]` to `[B, T]`.
#[must_use]
pub fn least(heads: Tensor<3>) -> Tensor<2> {
    let [batch, frames, _] = heads.dims();
    heads.min_dim(2).reshape([batch, frames])
}

/// Mean of the heads, `[B, T, H]` to `[B, T]`.
#[must_use]
pub fn mean(heads: Tensor<3>) -> Tensor<2> {
    let [batch, frames, _] = heads.dims();
    heads.mean_dim(2).reshape([batch, frames])
}

/// Head k of `[B, T, H]` as `[B, T]`.
pub(crate) fn head(heads: &Tensor<3>, k: usize) -> Tensor<2> {
    let [batch, frames, _] = heads.dims();
    heads.clone().narrow(2, k, 1).reshape([batch, frames])
}

/// Squared error of every head `[B, T, H]` against `target` `[B, T]`: mean over batch and frames, sum over heads.
#[must_use]
pub fn regression(heads: &Tensor<3>, target: Tensor<2>) -> Tensor<1> {
    let count = heads.dims()[2] as f64;
    mse(heads.clone(), target.unsqueeze_dim::<3>(2).expand(heads.dims())) * count
}

/// Weights `min(exp(temperature advantage), WEIGHT_LIMIT)` of advantage-weighted regression (Peng et al. 2019), detached.
#[must_use]
pub fn advantage_weights(advantage: Tensor<2>, temperature: f64) -> Tensor<2> {
    (advantage * temperature).exp().clamp_max(WEIGHT_LIMIT).detach()
}

/// A policy's Gaussian without squashing.
#[derive(Clone, Debug)]
pub struct Gaussian {
    /// Means, `[B, T, A]`.
    pub mean: Tensor<3>,
    /// Logarithms of the standard deviations, `[A]`; taken into [-5, 2].
    pub log_std: Tensor<1>,
}

impl Gaussian {
    /// The policy of an actor's `mean` `[B, T, A]`; log standard deviations `[A]` that are not `learnt` get no gradient.
    #[must_use]
    pub fn new(mean: Tensor<3>, log_stds: &Tensor<1>, learnt: bool) -> Self {
        let log_std = log_stds.clone();
        Self { mean, log_std: if learnt { log_std } else { log_std.detach() } }
    }

    /// Negative log-likelihood of `actions` `[B, T, A]` per dimension, without the constant.
    #[must_use]
    pub fn nll(&self, actions: Tensor<3>) -> Tensor<3> {
        let (low, high) = LOG_STD_RANGE;
        let log_std = self.log_std.clone().clamp(low, high).unsqueeze::<3>(); // [1, 1, A]
        let scaled = (actions - self.mean.clone()) * (-log_std.clone()).exp();
        scaled.clone() * scaled * 0.5 + log_std
    }
}

/// How the actor of an implicit method learns from a value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ActorLoss {
    /// Likelihood of demonstrated actions weighted by `exp(alpha advantage)`.
    Awr {
        /// Inverse temperature of the weights.
        alpha: f64,
    },
    /// Ascends the critic at its own action, kept at the data by `alpha` times the negative log-likelihood (Fujimoto and
    /// Gu 2021).
    DdpgBc {
        /// Weight of the likelihood.
        alpha: f64,
    },
}

/// Advantage-weighted regression on `actions` `[B, T, A]` with advantages `[B, T]`: mean over batch, frames and dimensions.
#[must_use]
pub fn awr(policy: &Gaussian, actions: Tensor<3>, advantage: Tensor<2>, alpha: f64) -> Terms {
    let weights = advantage_weights(advantage.clone(), alpha);
    let loss = (policy.nll(actions.clone()) * weights.clone().unsqueeze_dim::<3>(2)).mean();
    Terms::weighted(vec![
        ("awr_loss", 1.0, loss),
        ("advantage", 0.0, advantage.mean()),
        ("weight", 0.0, weights.mean()),
        ("action_mse", 0.0, mse(policy.mean.clone(), actions)),
    ])
}

/// DDPG+BC: `q` `[B, T]` is the critic at the policy's own (bounded) mean. The first term is scaled to unit size, the second
/// is summed over the dimensions of the action.
#[must_use]
pub fn ddpg_bc(policy: &Gaussian, actions: Tensor<3>, q: Tensor<2>, alpha: f64) -> Terms {
    let dims = actions.dims()[2] as f64;
    let size = q.clone().abs().mean().detach() + 1e-6;
    let ascent = -q.mean() / size;
    let nll = policy.nll(actions.clone()).mean() * dims;
    Terms::weighted(vec![
        ("ddpg_loss", 1.0, ascent),
        ("bc_loss", alpha, nll),
        ("action_mse", 0.0, mse(policy.mean.clone(), actions)),
    ])
}

impl Bounds {
    /// Symmetric bounds of `action` numbers.
    #[must_use]
    pub fn symmetric(limit: f32, action: usize) -> Self {
        Self { low: vec![-limit; action], high: vec![limit; action] }
    }

    fn tensors(&self, like: &Tensor<3>) -> [Tensor<3>; 2] {
        [&self.low, &self.high]
            .map(|v| from_vec(v.clone(), [1, 1, v.len()], &like.device()).expand(like.dims()))
    }

    /// `actions` `[B, T, A]` taken into the bounds; outside of them no gradient passes.
    #[must_use]
    pub fn clip(&self, actions: Tensor<3>) -> Tensor<3> {
        let [low, high] = self.tensors(&actions);
        actions.max_pair(low).min_pair(high)
    }

    /// Unbounded numbers `[B, T, A]` through the hyperbolic tangent into the bounds.
    #[must_use]
    pub fn squash(&self, raw: Tensor<3>) -> Tensor<3> {
        let [low, high] = self.tensors(&raw);
        raw.tanh() * ((high.clone() - low.clone()) / 2.0) + (high + low) / 2.0
    }

    /// Logarithm of the slope of [`Bounds::squash`] at `raw`, summed over dimensions, `[B, T]`.
    #[must_use]
    pub fn log_slope(&self, raw: &Tensor<3>) -> Tensor<2> {
        let [batch, frames, _] = raw.dims();
        let [low, high] = self.tensors(raw);
        // log(1 - tanh^2 u) = 2 (log 2 - u - softplus(-2 u)), which does not cancel far out.
        let inner = (-raw.clone() - activation::softplus(raw.clone() * -2.0, 1.0) + 2f64.ln()) * 2.0;
        (inner + ((high - low) / 2.0).log()).sum_dim(2).reshape([batch, frames])
    }
}
