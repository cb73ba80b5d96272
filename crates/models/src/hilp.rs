//! HILP as in stable-worldmodel: GCIVL whose value is the negative distance of embeddings (Park et al. 2024, Foundation
//! Policies with Hilbert Representations). The foundation policy itself is not part of it.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use worldbench_nn::{Params, Scope};

use crate::gcivl;
use crate::goal::objective::Gaussian;
use crate::goal::{self, GoalMetric, GoalNet, GoalNetConfig, GoalSizes, Transitions};
use crate::jepa::without_nan;
use crate::losses::Terms;

/// The method.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HilpConfig {
    /// Actor and embedding.
    pub network: GoalNetConfig,
    /// Width of the embedding.
    pub embedding: usize,
    /// Discount per step, in (0, 1).
    pub discount: f64,
    /// Expectile, in (0, 1).
    pub expectile: f64,
    /// Rate of the moving average that the target embedding is.
    pub ema: f64,
    /// Inverse temperature of advantage-weighted regression.
    pub alpha: f64,
    /// Whether the actor's standard deviations are learnt; else they stay 1.
    pub learn_std: bool,
}

impl Default for HilpConfig {
    fn default() -> Self {
        Self {
            network: GoalNetConfig::default(),
            embedding: 64,
            discount: 0.99,
            expectile: 0.9,
            ema: 0.005,
            alpha: 3.0,
            learn_std: false,
        }
    }
}

impl HilpConfig {
    /// Says which setting is out of range, or what is wrong with the network at these sizes.
    ///
    /// # Errors
    /// As described.
    pub fn check(&self, sizes: &GoalSizes) -> Result<(), String> {
        if self.embedding == 0 {
            return Err("embedding must be at least 1".to_owned());
        }
        if sizes.goal_width != sizes.width {
            return Err(format!(
                "HILP needs goals like observations, but their widths are {} and {}",
                sizes.goal_width, sizes.width
            ));
        }
        goal::value_settings([self.discount, self.expectile, self.ema], ("alpha", self.alpha))?;
        goal::check(&self.network, sizes)
    }

    /// Freshly initialised parameters.
    #[must_use]
    pub fn init(&self, sizes: &GoalSizes, seed: u64) -> Params {
        Params::init(seed, |scope| Hilp::build(scope, sizes, self))
    }
}

/// The networks, bound to a device.
#[derive(Clone, Debug)]
pub struct Hilp {
    /// Means of actions, `[B, T, A]`.
    pub actor: GoalNet,
    /// V(s, g).
    pub value: GoalMetric,
    log_stds: Tensor<1>,
    config: HilpConfig,
}

impl Hilp {
    /// Declares or binds the networks; goals must be like observations.
    pub fn build(scope: &mut Scope, sizes: &GoalSizes, config: &HilpConfig) -> Self {
        Self {
            actor: GoalNet::actor(scope, &config.network, sizes, sizes.action),
            value: GoalMetric::build(scope, &config.network, sizes, config.embedding),
            log_stds: goal::log_stds(scope, sizes),
            config: *config,
        }
    }

    /// Loss of the value (phase 1), see [`gcivl::Gcivl::value_loss`].
    #[must_use]
    pub fn value_loss(&self, target: &Self, batch: &Transitions) -> Terms {
        let Transitions { obs, next, value_goal: goal, reached, .. } = batch;
        let HilpConfig { discount, expectile, .. } = self.config;
        let next_values = target.value.forward(next, goal);
        gcivl::value_loss(&self.value.forward(obs, goal), None, &next_values, reached, discount, expectile)
    }

    /// Loss of the actor (phase 2), see [`gcivl::Gcivl::actor_loss`].
    #[must_use]
    pub fn actor_loss(&self, frozen: &Self, batch: &Transitions) -> Terms {
        let Transitions { obs, next, actor_goal: goal, .. } = batch;
        let policy = Gaussian::new(self.actor.forward(obs, goal), &self.log_stds, self.config.learn_std);
        let values = [obs, next].map(|obs| frozen.value.forward(obs, goal));
        gcivl::actor_loss(&policy, without_nan(batch.actions.clone()), values, self.config.alpha)
    }

    /// Both losses together.
    #[must_use]
    pub fn loss(&self, frozen: &Self, target: &Self, batch: &Transitions) -> Terms {
        self.value_loss(target, batch).and(self.actor_loss(frozen, batch))
    }
}
