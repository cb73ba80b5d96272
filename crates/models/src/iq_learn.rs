//! IQ-Learn, inverse soft Q-learning (Garg et al. 2021), goal-conditioned and offline: one soft Q-function learnt from
//! demonstrations holds both the reward and the policy.
//!
//! With the soft value `V(s, g) = E[min_k Q_k(s, a, g) - temperature log pi(a | s, g)]`, `a ~ pi`, and the implied reward
//! `r = Q(s, a, g) - discount V'(s', g)` (0 for V' at the goal, V' from target networks), the critics maximise
//! `E[r - r^2 / (4 alpha)] - E[V(s, g) - discount V'(s', g)]` over demonstrations. The actor is that of soft actor-critic with
//! an optional behaviour term. The expectations over `pi` are one sample each, whose noise the caller draws.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use worldbench_nn::{Params, Scope};

use crate::goal::objective::{least, mean};
use crate::goal::{self, Bounds, GoalCritic, GoalNet, GoalNetConfig, GoalSizes, POSITIVE, UNIT};
use crate::jepa::without_nan;
use crate::losses::Terms;

/// Range of the logarithm of the policy's standard deviation before squashing.
const LOG_STD_RANGE: (f64, f64) = (-5.0, 2.0);

/// The method.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IqLearnConfig {
    /// Actor and critics.
    pub network: GoalNetConfig,
    /// Number of critics.
    pub heads: usize,
    /// Entropy temperature, above 0.
    pub temperature: f64,
    /// Discount per step, in (0, 1).
    pub discount: f64,
    /// Strength of the chi-squared divergence, above 0.
    pub alpha: f64,
    /// Weight of the squared distance of the policy's mode from the demonstrated action; 0 is the paper's method.
    pub beta_bc: f64,
    /// Rate of the moving average that the target critics are.
    pub ema: f64,
}

impl Default for IqLearnConfig {
    fn default() -> Self {
        Self {
            network: GoalNetConfig::default(),
            heads: 2,
            temperature: 0.01,
            discount: 0.99,
            alpha: 0.5,
            beta_bc: 0.0,
            ema: 0.005,
        }
    }
}

impl IqLearnConfig {
    /// Says which setting is out of range, or what is wrong with the network at these sizes.
    ///
    /// # Errors
    /// As described.
    pub fn check(&self, sizes: &GoalSizes) -> Result<(), String> {
        goal::some_heads(self.heads)?;
        if !(self.beta_bc >= 0.0 && self.beta_bc.is_finite()) {
            return Err(format!("beta_bc must be at least 0, not {}", self.beta_bc));
        }
        goal::within(&[
            ("discount", self.discount, UNIT),
            ("ema", self.ema, UNIT),
            ("temperature", self.temperature, POSITIVE),
            ("alpha", self.alpha, POSITIVE),
        ])?;
        goal::check(&self.network, sizes)
    }

    /// Freshly initialised parameters.
    #[must_use]
    pub fn init(&self, sizes: &GoalSizes, seed: u64) -> Params {
        Params::init(seed, |scope| IqLearn::build(scope, sizes, self))
    }
}

/// A batch of demonstrated transitions. NaN in actions counts as 0.
#[derive(Clone, Debug)]
pub struct Demonstrations {
    /// Observations s, `[B, T, P, D]`.
    pub obs: Tensor<4>,
    /// Their successors s', `[B, T, P, D]`.
    pub next: Tensor<4>,
    /// The normalised actions between them, `[B, T, A]`.
    pub actions: Tensor<3>,
    /// Goals, later frames of the same episodes, `[B, P, D]`.
    pub goal: Tensor<3>,
    /// 1 where s' is the goal (same episode and step), else 0, `[B, T]`.
    pub next_reached: Tensor<2>,
}

/// A squashed Gaussian policy at some frames.
#[derive(Clone, Debug)]
pub struct Policy {
    mean: Tensor<3>,
    log_std: Tensor<3>,
}

impl Policy {
    /// From an actor's output `[B, T, 2 A]`: means, then raw log standard deviations, which the hyperbolic tangent maps into
    /// their range.
    #[must_use]
    pub fn of(output: &Tensor<3>) -> Self {
        let action = output.dims()[2] / 2;
        let (low, high) = LOG_STD_RANGE;
        let raw = output.clone().narrow(2, action, action);
        let log_std = raw.tanh() * ((high - low) / 2.0) + (high + low) / 2.0;
        Self { mean: output.clone().narrow(2, 0, action), log_std }
    }

    /// The deterministic action `[B, T, A]`.
    #[must_use]
    pub fn mode(&self, bounds: &Bounds) -> Tensor<3> {
        bounds.squash(self.mean.clone())
    }

    /// The action `[B, T, A]` that standard normal `noise` `[B, T, A]` leads to, and its log density `[B, T]`.
    #[must_use]
    pub fn sample(&self, noise: &Tensor<3>, bounds: &Bounds) -> (Tensor<3>, Tensor<2>) {
        let [batch, frames, action] = noise.dims();
        let raw = self.mean.clone() + self.log_std.clone().exp() * noise.clone();
        let constant = 0.5 * (2.0 * std::f64::consts::PI).ln() * action as f64;
        let normal = noise.clone() * noise.clone() * 0.5 + self.log_std.clone();
        let normal = -normal.sum_dim(2).reshape([batch, frames]) - constant;
        let log_density = normal - bounds.log_slope(&raw);
        (bounds.squash(raw), log_density)
    }
}

/// The networks, bound to a device.
#[derive(Clone, Debug)]
pub struct IqLearn {
    /// Means and raw log standard deviations, `[B, T, 2 A]`; see [`Policy::of`].
    pub actor: GoalNet,
    /// Q(s, a, g).
    pub critic: GoalCritic,
    config: IqLearnConfig,
}

impl IqLearn {
    /// Declares or binds the networks.
    pub fn build(scope: &mut Scope, sizes: &GoalSizes, config: &IqLearnConfig) -> Self {
        Self {
            actor: GoalNet::actor(scope, &config.network, sizes, 2 * sizes.action),
            critic: GoalCritic::build(scope, &config.network, sizes, config.heads),
            config: *config,
        }
    }

    /// The policy at observations `[B, T, P, D]` for goals `[B, P, D]`.
    #[must_use]
    pub fn policy(&self, obs: &Tensor<4>, goal: &Tensor<3>) -> Policy {
        Policy::of(&self.actor.forward(obs, goal))
    }

    /// Soft value `[B, T]`: this network's critics at an action of `policy`.
    fn soft_value(
        &self,
        policy: &Policy,
        obs: &Tensor<4>,
        goal: &Tensor<3>,
        noise: &Tensor<3>,
        bounds: &Bounds,
    ) -> Tensor<2> {
        let (action, log_density) = policy.sample(noise, bounds);
        least(self.critic.forward(obs, goal, &action)) - log_density * self.config.temperature
    }

    /// Loss of the critics. `frozen` has the same parameters as `self` without leaves, `target` their moving average, see
    /// [`worldbench_nn::optim::ema`]; `noise` holds standard normal numbers for s and for s', `[B, T, A]` each.
    #[must_use]
    pub fn critic_loss(
        &self,
        frozen: &Self,
        target: &Self,
        batch: &Demonstrations,
        noise: &[Tensor<3>; 2],
        bounds: &Bounds,
    ) -> Terms {
        let Demonstrations { obs, next, goal, .. } = batch;
        let actions = without_nan(batch.actions.clone());
        let policy = frozen.policy(obs, goal);
        let value = self.soft_value(&policy, obs, goal, &noise[0], bounds);
        let next_value = target.soft_value(&frozen.policy(next, goal), next, goal, &noise[1], bounds);
        let alive = -batch.next_reached.clone() + 1.0;
        let bootstrap = alive * next_value * self.config.discount;
        critic_loss(&self.critic.forward(obs, goal, &actions), value, bootstrap, self.config.alpha)
    }

    /// Loss of the actor with `noise` `[B, T, A]`; see [`IqLearn::critic_loss`] for `frozen`.
    #[must_use]
    pub fn actor_loss(
        &self,
        frozen: &Self,
        batch: &Demonstrations,
        noise: &Tensor<3>,
        bounds: &Bounds,
    ) -> Terms {
        let actions = without_nan(batch.actions.clone());
        let policy = self.policy(&batch.obs, &batch.goal);
        let (own, log_density) = policy.sample(noise, bounds);
        let q = least(frozen.critic.forward(&batch.obs.clone().detach(), &batch.goal, &own));
        let soft = (log_density.clone() * self.config.temperature - q).mean();
        let distance = policy.mode(bounds) - actions;
        let distance = (distance.clone() * distance).sum_dim(2).mean();
        Terms::weighted(vec![
            ("actor_loss", 1.0, soft),
            ("bc_loss", self.config.beta_bc, distance),
            ("log_density", 0.0, log_density.mean()),
        ])
    }

    /// Both losses together; the actor uses the noise of s.
    #[must_use]
    pub fn loss(
        &self,
        frozen: &Self,
        target: &Self,
        batch: &Demonstrations,
        noise: &[Tensor<3>; 2],
        bounds: &Bounds,
    ) -> Terms {
        let critics = self.critic_loss(frozen, target, batch, noise, bounds);
        critics.and(self.actor_loss(frozen, batch, &noise[0], bounds))
    }
}

/// Loss of the critics from network outputs: `critics` at the demonstrated action `[B, T, H]`, the soft `value` of s
/// `[B, T]`, and `bootstrap`, the discounted soft value of s' (0 at the goal) `[B, T]`, which is detached. Summed over heads.
#[must_use]
pub fn critic_loss(critics: &Tensor<3>, value: Tensor<2>, bootstrap: Tensor<2>, alpha: f64) -> Terms {
    let heads = critics.dims()[2] as f64;
    let bootstrap = bootstrap.detach();
    let rewards = critics.clone() - bootstrap.clone().unsqueeze_dim::<3>(2); // [B, T, H]
    let reward = mean(rewards.clone()).mean();
    let policy = (value.clone() - bootstrap).mean();
    let divergence = (rewards.clone() * rewards).mean() / (4.0 * alpha);
    let critic_loss = (divergence.clone() + policy.clone() - reward.clone()) * heads;
    Terms::weighted(vec![
        ("critic_loss", 1.0, critic_loss),
        ("reward", 0.0, reward),
        ("policy_reward", 0.0, policy),
        ("divergence", 0.0, divergence),
        ("value", 0.0, value.mean()),
    ])
}

#[cfg(test)]
mod tests;
