//! LeWM, LeWorldModel: the network of [`crate::jepa`] kept from collapse by SIGReg alone: one loss weight instead
//! of six, no inverse dynamics head.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use worldbench_nn::{Params, Pass, Scope};

use crate::jepa::{Jepa, JepaConfig};
use crate::losses::sigreg::{DIRECTIONS, directions, sigreg};
use crate::losses::{Terms, mse};

/// Network sizes and loss of LeWM.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LewmConfig {
    /// The network.
    pub network: JepaConfig,
    /// Weight of SIGReg beside the prediction error.
    pub sigreg: f64,
}

impl LewmConfig {
    /// The published size for action blocks of `action` numbers.
    #[must_use]
    pub fn full(action: usize) -> Self {
        Self { network: JepaConfig::full(action), sigreg: 0.09 }
    }

    /// Freshly initialised parameters.
    #[must_use]
    pub fn init(&self, seed: u64) -> Params {
        Params::init(seed, |scope| Lewm::build(scope, self))
    }
}

/// The model, bound to a device.
#[derive(Clone, Debug)]
pub struct Lewm {
    /// Encoder, projectors and predictor.
    pub network: Jepa,
    weight: f64,
}

impl Lewm {
    /// Declares or binds the model.
    pub fn build(scope: &mut Scope, config: &LewmConfig) -> Self {
        Self { network: Jepa::build(scope, &config.network), weight: config.sigreg }
    }

    /// Training loss of normalised frames `[B, T, 3, S, S]` and action blocks `[B, T, A]` (NaN counts as 0), with
    /// fresh random directions for every pass.
    pub fn loss(&self, frames: Tensor<5>, actions: Tensor<3>, pass: &mut Pass) -> Terms {
        let z = self.network.encode(frames, pass); // [B, T, D]
        let directions = directions(pass.stream("sigreg"), z.dims()[2], DIRECTIONS, &z.device());
        self.loss_of_embeddings(&z, actions, &directions, pass)
    }

    /// [`Lewm::loss`] from the embeddings `z`, `[B, T, D]`, and given unit directions `[D, M]`.
    pub fn loss_of_embeddings(
        &self,
        z: &Tensor<3>,
        actions: Tensor<3>,
        directions: &Tensor<2>,
        pass: &mut Pass,
    ) -> Terms {
        let steps = z.dims()[1] - 1;
        let embedded = self.network.embed_actions(actions.narrow(1, 0, steps));
        let predicted = self.network.predict(z.clone().narrow(1, 0, steps), embedded, pass);
        let error = mse(predicted, z.clone().narrow(1, 1, steps));
        Terms::weighted(vec![("pred_loss", 1.0, error), ("sigreg_loss", self.weight, sigreg(z, directions))])
    }
}
