//! GCIVL, goal-conditioned implicit value learning (Park et al. 2023, 2024): expectile regression of a value on its own
//! one-step target, without a critic.
//!
//! Default is OGBench's: two values, whose asymmetry follows the advantage under the target networks. The alternative of
//! stable-worldmodel ([`GcivlConfig::reference`]) has one value, whose own residual decides.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use worldbench_nn::{Params, Scope};

use crate::goal::objective::{self, Gaussian, bellman, expectile_loss, head, least, mean};
use crate::goal::{self, GoalNet, GoalNetConfig, GoalSizes, Transitions};
use crate::jepa::without_nan;
use crate::losses::Terms;

/// What decides between the two weights of expectile regression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asymmetry {
    /// Sign of the advantage under the target networks: OGBench.
    #[default]
    TargetAdvantage,
    /// Sign of every head's own residual: stable-worldmodel.
    Residual,
}

/// The method.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GcivlConfig {
    /// Actor and values.
    pub network: GoalNetConfig,
    /// Number of values.
    pub heads: usize,
    /// Discount per step, in (0, 1).
    pub discount: f64,
    /// Expectile, in (0, 1).
    pub expectile: f64,
    /// Rate of the moving average that the target value is.
    pub ema: f64,
    /// The asymmetry.
    pub asymmetry: Asymmetry,
    /// Inverse temperature of advantage-weighted regression.
    pub alpha: f64,
    /// Whether the actor's standard deviations are learnt; else they stay 1.
    pub learn_std: bool,
}

impl Default for GcivlConfig {
    fn default() -> Self {
        Self {
            network: GoalNetConfig::default(),
            heads: 2,
            discount: 0.99,
            expectile: 0.9,
            ema: 0.005,
            asymmetry: Asymmetry::TargetAdvantage,
            alpha: 10.0,
            learn_std: false,
        }
    }
}

impl GcivlConfig {
    /// The variant of stable-worldmodel on this network.
    #[must_use]
    pub fn reference(network: GoalNetConfig) -> Self {
        Self { network, heads: 1, asymmetry: Asymmetry::Residual, alpha: 3.0, ..Self::default() }
    }

    /// Says which setting is out of range, or what is wrong with the network at these sizes.
    ///
    /// # Errors
    /// As described.
    pub fn check(&self, sizes: &GoalSizes) -> Result<(), String> {
        goal::some_heads(self.heads)?;
        goal::value_settings([self.discount, self.expectile, self.ema], ("alpha", self.alpha))?;
        goal::check(&self.network, sizes)
    }

    /// Freshly initialised parameters.
    #[must_use]
    pub fn init(&self, sizes: &GoalSizes, seed: u64) -> Params {
        Params::init(seed, |scope| Gcivl::build(scope, sizes, self))
    }
}

/// The networks, bound to a device.
#[derive(Clone, Debug)]
pub struct Gcivl {
    /// Means of actions, `[B, T, A]`.
    pub actor: GoalNet,
    /// V(s, g).
    pub value: GoalNet,
    log_stds: Tensor<1>,
    config: GcivlConfig,
}

impl Gcivl {
    /// Declares or binds the networks.
    pub fn build(scope: &mut Scope, sizes: &GoalSizes, config: &GcivlConfig) -> Self {
        Self {
            actor: GoalNet::actor(scope, &config.network, sizes, sizes.action),
            value: GoalNet::value(scope, &config.network, sizes, config.heads),
            log_stds: goal::log_stds(scope, sizes),
            config: *config,
        }
    }

    /// Loss of the value (phase 1). `target` is the moving average of the parameters without leaves, see
    /// [`worldbench_nn::optim::ema`].
    #[must_use]
    pub fn value_loss(&self, target: &Self, batch: &Transitions) -> Terms {
        let Transitions { obs, next, value_goal: goal, reached, .. } = batch;
        let GcivlConfig { discount, expectile, asymmetry, .. } = self.config;
        let target_values = match asymmetry {
            Asymmetry::TargetAdvantage => Some(target.value.forward(obs, goal)),
            Asymmetry::Residual => None,
        };
        let next_values = target.value.forward(next, goal);
        value_loss(&self.value.forward(obs, goal), target_values, &next_values, reached, discount, expectile)
    }

    /// Loss of the actor (phase 2). `frozen` has the same parameters as `self`, without leaves.
    #[must_use]
    pub fn actor_loss(&self, frozen: &Self, batch: &Transitions) -> Terms {
        let Transitions { obs, next, actor_goal: goal, .. } = batch;
        let policy = Gaussian::new(self.actor.forward(obs, goal), &self.log_stds, self.config.learn_std);
        let values = [obs, next].map(|obs| frozen.value.forward(obs, goal));
        actor_loss(&policy, without_nan(batch.actions.clone()), values, self.config.alpha)
    }

    /// Both losses together.
    #[must_use]
    pub fn loss(&self, frozen: &Self, target: &Self, batch: &Transitions) -> Terms {
        self.value_loss(target, batch).and(self.actor_loss(frozen, batch))
    }
}

/// Loss from network outputs: `values` V(s, g), `next_values` the target networks at s', both `[B, T, H]`, and `reached`
/// `[B, T]`. With `target_values`, the target networks at s, one advantage decides the asymmetry of all heads; without, the
/// residual of each.
#[must_use]
pub fn value_loss(
    values: &Tensor<3>,
    target_values: Option<Tensor<3>>,
    next_values: &Tensor<3>,
    reached: &Tensor<2>,
    discount: f64,
    expectile: f64,
) -> Terms {
    let advantage = target_values.map(|target_values| {
        let target = bellman(reached, least(next_values.clone()), discount);
        (target - mean(target_values)).detach()
    });
    let loss = |k: usize| {
        let residual = bellman(reached, head(next_values, k), discount) - head(values, k);
        let by = advantage.clone().unwrap_or_else(|| residual.clone());
        expectile_loss(residual, by, expectile)
    };
    let first = loss(0);
    let total = (1..values.dims()[2]).fold(first, |sum, k| sum + loss(k));
    Terms::weighted(vec![("value_loss", 1.0, total), ("value", 0.0, values.clone().mean())])
}

/// Advantage-weighted regression on `actions` `[B, T, A]` by the rise of the value from s to s', `[B, T, H]` each.
#[must_use]
pub fn actor_loss(
    policy: &Gaussian,
    actions: Tensor<3>,
    [value, next_value]: [Tensor<3>; 2],
    alpha: f64,
) -> Terms {
    objective::awr(policy, actions, (mean(next_value) - mean(value)).detach(), alpha)
}
