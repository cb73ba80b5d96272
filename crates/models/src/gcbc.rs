//! GCBC, goal-conditioned behavioural cloning: regression of the demonstrated action on observation and goal.
//!
//! Every frame of the context is supervised. With actions in blocks the policy is an action chunker.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use worldbench_nn::{Params, Scope};

use crate::goal::{self, GoalNet, GoalNetConfig, GoalSizes};
use crate::jepa::without_nan;
use crate::losses::{Terms, mse};

/// The method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GcbcConfig {
    /// The actor's network.
    pub network: GoalNetConfig,
}

impl GcbcConfig {
    /// Says which setting is out of range, or what is wrong with the network at these sizes.
    ///
    /// # Errors
    /// As described.
    pub fn check(&self, sizes: &GoalSizes) -> Result<(), String> {
        goal::check(&self.network, sizes)
    }

    /// Freshly initialised parameters.
    #[must_use]
    pub fn init(&self, sizes: &GoalSizes, seed: u64) -> Params {
        Params::init(seed, |scope| Gcbc::build(scope, sizes, self))
    }
}

/// The policy, bound to a device.
#[derive(Clone, Debug)]
pub struct Gcbc {
    /// Means of actions, `[B, T, A]`.
    pub actor: GoalNet,
}

impl Gcbc {
    /// Declares or binds the network.
    pub fn build(scope: &mut Scope, sizes: &GoalSizes, config: &GcbcConfig) -> Self {
        Self { actor: GoalNet::actor(scope, &config.network, sizes, sizes.action) }
    }

    /// Training loss of observations `[B, T, P, D]`, goals `[B, P, D]` and actions `[B, T, A]`.
    #[must_use]
    pub fn loss(&self, obs: &Tensor<4>, goal: &Tensor<3>, actions: Tensor<3>) -> Terms {
        loss(self.actor.forward(obs, goal), actions)
    }
}

/// Mean squared error of `means` against `actions`, `[B, T, A]` both; NaN in actions counts as 0.
#[must_use]
pub fn loss(means: Tensor<3>, actions: Tensor<3>) -> Terms {
    Terms::weighted(vec![("action_loss", 1.0, mse(means, without_nan(actions)))])
}
