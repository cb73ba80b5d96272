//! GCIQL, goal-conditioned implicit Q-learning (Kostrikov et al. 2022; Park et al. 2024): expectile regression of a value on
//! a critic that never sees an action outside the data.
//!
//! Defaults are OGBench's: two critics, whose smaller target is what the value regresses on, a bootstrap from the online
//! value, an actor by DDPG+BC. [`GciqlConfig::reference`] is stable-worldmodel's variant.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use worldbench_nn::{Params, Scope};

use crate::goal::objective::{self, ActorLoss, Gaussian, bellman, expectile_loss, least, regression};
use crate::goal::{self, Bounds, GoalCritic, GoalNet, GoalNetConfig, GoalSizes, Transitions};
use crate::jepa::without_nan;
use crate::losses::Terms;

/// The network that the critic bootstraps from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bootstrap {
    /// The value itself: OGBench.
    #[default]
    Online,
    /// Its moving average: stable-worldmodel.
    Target,
}

/// What advantage-weighted regression calls an advantage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Advantage {
    /// Smaller critic less value, `min Q(s, a, g) - V(s, g)`: OGBench.
    #[default]
    Critic,
    /// Rise of the value, `V(s', g) - V(s, g)`: stable-worldmodel.
    Rise,
}

/// The method.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GciqlConfig {
    /// Actor, value and critics.
    pub network: GoalNetConfig,
    /// Number of critics.
    pub heads: usize,
    /// Discount per step, in (0, 1).
    pub discount: f64,
    /// Expectile of the value, in (0, 1).
    pub expectile: f64,
    /// Rate of the moving average that the target critic (and value) is.
    pub ema: f64,
    /// Where the critic bootstraps.
    pub bootstrap: Bootstrap,
    /// How the actor learns.
    pub actor: ActorLoss,
    /// The advantage, for `awr`.
    pub advantage: Advantage,
    /// Whether the actor's standard deviations are learnt; else they stay 1.
    pub learn_std: bool,
}

impl Default for GciqlConfig {
    fn default() -> Self {
        Self {
            network: GoalNetConfig::default(),
            heads: 2,
            discount: 0.99,
            expectile: 0.9,
            ema: 0.005,
            bootstrap: Bootstrap::Online,
            actor: ActorLoss::DdpgBc { alpha: 1.0 },
            advantage: Advantage::Critic,
            learn_std: false,
        }
    }
}

impl GciqlConfig {
    /// The variant of stable-worldmodel on this network.
    #[must_use]
    pub fn reference(network: GoalNetConfig) -> Self {
        Self {
            network,
            heads: 1,
            bootstrap: Bootstrap::Target,
            actor: ActorLoss::Awr { alpha: 10.0 },
            advantage: Advantage::Rise,
            ..Self::default()
        }
    }

    /// Says which setting is out of range, or what is wrong with the network at these sizes.
    ///
    /// # Errors
    /// As described.
    pub fn check(&self, sizes: &GoalSizes) -> Result<(), String> {
        let (ActorLoss::Awr { alpha } | ActorLoss::DdpgBc { alpha }) = self.actor;
        goal::some_heads(self.heads)?;
        goal::value_settings([self.discount, self.expectile, self.ema], ("actor.alpha", alpha))?;
        goal::check(&self.network, sizes)
    }

    /// Freshly initialised parameters.
    #[must_use]
    pub fn init(&self, sizes: &GoalSizes, seed: u64) -> Params {
        Params::init(seed, |scope| Gciql::build(scope, sizes, self))
    }
}

/// The networks, bound to a device.
#[derive(Clone, Debug)]
pub struct Gciql {
    /// Means of actions, `[B, T, A]`.
    pub actor: GoalNet,
    /// V(s, g), one head.
    pub value: GoalNet,
    /// Q(s, a, g).
    pub critic: GoalCritic,
    log_stds: Tensor<1>,
    config: GciqlConfig,
}

impl Gciql {
    /// Declares or binds the networks.
    pub fn build(scope: &mut Scope, sizes: &GoalSizes, config: &GciqlConfig) -> Self {
        Self {
            actor: GoalNet::actor(scope, &config.network, sizes, sizes.action),
            value: GoalNet::value(scope, &config.network, sizes, 1),
            critic: GoalCritic::build(scope, &config.network, sizes, config.heads),
            log_stds: goal::log_stds(scope, sizes),
            config: *config,
        }
    }

    /// Loss of value and critics (phase 1). `frozen` has the same parameters as `self` without leaves, `target` their
    /// moving average, see [`worldbench_nn::optim::ema`].
    #[must_use]
    pub fn value_loss(&self, frozen: &Self, target: &Self, batch: &Transitions) -> Terms {
        let Transitions { obs, next, value_goal: goal, .. } = batch;
        let actions = without_nan(batch.actions.clone());
        let bootstrap = match self.config.bootstrap {
            Bootstrap::Online => &frozen.value,
            Bootstrap::Target => &target.value,
        };
        let next_value = least(bootstrap.forward(next, goal));
        let critic_target = bellman(&batch.reached, next_value, self.config.discount);
        let value_target = least(target.critic.forward(obs, goal, &actions));
        let value = least(self.value.forward(obs, goal));
        value_loss(
            value,
            value_target,
            &self.critic.forward(obs, goal, &actions),
            critic_target,
            self.config.expectile,
        )
    }

    /// Loss of the actor (phase 2); see [`Gciql::value_loss`] for `frozen`.
    #[must_use]
    pub fn actor_loss(&self, frozen: &Self, batch: &Transitions, bounds: &Bounds) -> Terms {
        let Transitions { obs, next, actor_goal: goal, .. } = batch;
        let actions = without_nan(batch.actions.clone());
        let policy = self.policy(obs, goal);
        match self.config.actor {
            ActorLoss::DdpgBc { alpha } => {
                let own = bounds.clip(policy.mean.clone());
                let q = least(frozen.critic.forward(&obs.clone().detach(), goal, &own));
                objective::ddpg_bc(&policy, actions, q, alpha)
            }
            ActorLoss::Awr { alpha } => {
                let value = least(frozen.value.forward(obs, goal));
                let advantage = match self.config.advantage {
                    Advantage::Critic => least(frozen.critic.forward(obs, goal, &actions)) - value,
                    Advantage::Rise => least(frozen.value.forward(next, goal)) - value,
                };
                objective::awr(&policy, actions, advantage.detach(), alpha)
            }
        }
    }

    /// Both losses together.
    #[must_use]
    pub fn loss(&self, frozen: &Self, target: &Self, batch: &Transitions, bounds: &Bounds) -> Terms {
        self.value_loss(frozen, target, batch).and(self.actor_loss(frozen, batch, bounds))
    }

    fn policy(&self, obs: &Tensor<4>, goal: &Tensor<3>) -> Gaussian {
        Gaussian::new(self.actor.forward(obs, goal), &self.log_stds, self.config.learn_std)
    }
}

/// Losses from network outputs: value `[B, T]` with its target, the target critic; critics `[B, T, H]` with theirs.
/// Targets are detached.
#[must_use]
pub fn value_loss(
    value: Tensor<2>,
    value_target: Tensor<2>,
    critics: &Tensor<3>,
    critic_target: Tensor<2>,
    expectile: f64,
) -> Terms {
    let residual = value_target.detach() - value.clone();
    Terms::weighted(vec![
        ("value_loss", 1.0, expectile_loss(residual.clone(), residual, expectile)),
        ("critic_loss", 1.0, regression(critics, critic_target.detach())),
        ("value", 0.0, value.mean()),
        ("critic", 0.0, critics.clone().mean()),
    ])
}
