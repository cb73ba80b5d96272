//! PLDM, planning with a latent dynamics model (Sobal et al. 2025), as in stable-worldmodel: a JEPA kept from
//! collapse by variance-covariance regularisation, with an inverse dynamics head.
//!
//! The prediction target is not detached. The inverse dynamics head is trained by its own optimiser, which the
//! parameter group `idm.` serves, and is no part of the checkpoint.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use worldbench_nn::blocks::Linear;
use worldbench_nn::norm::LayerNorm;
use worldbench_nn::{Params, Pass, Scope, ops};

use crate::jepa::{Jepa, JepaConfig, without_nan};
use crate::losses::vcreg::{Frames, temp_align, temp_straight, vcreg};
use crate::losses::{Terms, mse};

/// Order in which the inverse dynamics head sees two successive embeddings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdmOrder {
    /// Next, then current: stable-worldmodel.
    #[default]
    NextCurrent,
    /// Current, then next: the original PLDM.
    CurrentNext,
}

/// Loss weights and variants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PldmLoss {
    /// Weight of the prediction error.
    pub pred: f64,
    /// Weight of the standard deviation over the batch.
    pub std: f64,
    /// Weight of the standard deviation over time.
    pub std_t: f64,
    /// Weight of the covariance over the batch.
    pub cov: f64,
    /// Weight of the covariance over time.
    pub cov_t: f64,
    /// Weight of the change from frame to frame.
    pub temp_align: f64,
    /// Weight of the straightness of paths.
    pub temp_straight: f64,
    /// Weight of inverse dynamics.
    pub idm: f64,
    /// Frames that the statistics see.
    pub frames: Frames,
    /// Input order of the inverse dynamics head.
    pub idm_order: IdmOrder,
}

impl Default for PldmLoss {
    fn default() -> Self {
        Self {
            pred: 1.0,
            std: 18.0,
            std_t: 0.7,
            cov: 12.0,
            cov_t: 0.0,
            temp_align: 0.2,
            temp_straight: 0.0,
            idm: 0.0,
            frames: Frames::All,
            idm_order: IdmOrder::NextCurrent,
        }
    }
}

/// Network sizes and loss of PLDM.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PldmConfig {
    /// The network.
    pub network: JepaConfig,
    /// Hidden width of the inverse dynamics head.
    pub idm_hidden: usize,
    /// The loss.
    #[serde(default)]
    pub loss: PldmLoss,
}

impl PldmConfig {
    /// The published size for action blocks of `action` numbers.
    #[must_use]
    pub fn full(action: usize) -> Self {
        Self { network: JepaConfig::full(action), idm_hidden: 512, loss: PldmLoss::default() }
    }

    /// Freshly initialised parameters; the keys under `idm.` come last.
    #[must_use]
    pub fn init(&self, seed: u64) -> Params {
        Params::init(seed, |scope| Pldm::build(scope, self))
    }
}

/// Whether a key belongs to the published checkpoint (the inverse dynamics head does not).
#[must_use]
pub fn in_checkpoint(key: &str) -> bool {
    !key.starts_with("idm.")
}

/// Predicts the action block between two embeddings: linear, layer norm, GELU, linear.
#[derive(Clone, Debug)]
pub struct InverseDynamics {
    input: Linear,
    norm: LayerNorm,
    output: Linear,
    order: IdmOrder,
}

impl InverseDynamics {
    fn build(scope: &mut Scope, config: &PldmConfig) -> Self {
        let (width, hidden) = (config.network.encoder.hidden, config.idm_hidden);
        Self {
            input: Linear::new(scope, "idm.net.0", 2 * width, hidden),
            norm: LayerNorm::new(scope, "idm.net.1", hidden, 1e-5),
            output: Linear::new(scope, "idm.net.3", hidden, config.network.action),
            order: config.loss.idm_order,
        }
    }

    /// Embeddings `[B, T, D]` to the action blocks between them, `[B, T - 1, A]`.
    #[must_use]
    pub fn forward(&self, z: &Tensor<3>) -> Tensor<3> {
        let steps = z.dims()[1] - 1;
        let (current, next) = (z.clone().narrow(1, 0, steps), z.clone().narrow(1, 1, steps));
        let pair = match self.order {
            IdmOrder::NextCurrent => vec![next, current],
            IdmOrder::CurrentNext => vec![current, next],
        };
        let hidden = self.norm.forward(self.input.forward(Tensor::cat(pair, 2)));
        self.output.forward(ops::gelu(hidden))
    }
}

/// The model, bound to a device.
#[derive(Clone, Debug)]
pub struct Pldm {
    /// Encoder, projectors and predictor.
    pub network: Jepa,
    /// Inverse dynamics head, for training only.
    pub idm: InverseDynamics,
    loss: PldmLoss,
}

impl Pldm {
    /// Declares or binds the model.
    pub fn build(scope: &mut Scope, config: &PldmConfig) -> Self {
        let network = Jepa::build(scope, &config.network);
        Self { network, idm: InverseDynamics::build(scope, config), loss: config.loss }
    }

    /// Training loss of normalised frames `[B, T, 3, S, S]` and action blocks `[B, T, A]` (NaN counts as 0).
    pub fn loss(&self, frames: Tensor<5>, actions: Tensor<3>, pass: &mut Pass) -> Terms {
        let z = self.network.encode(frames, pass); // [B, T, D]
        self.loss_of_embeddings(&z, actions, pass)
    }

    /// [`Pldm::loss`] from the embeddings `z`, `[B, T, D]`.
    pub fn loss_of_embeddings(&self, z: &Tensor<3>, actions: Tensor<3>, pass: &mut Pass) -> Terms {
        let steps = z.dims()[1] - 1;
        let actions = without_nan(actions).narrow(1, 0, steps);
        let embedded = self.network.embed_actions(actions.clone());
        let predicted = self.network.predict(z.clone().narrow(1, 0, steps), embedded, pass);
        let target = z.clone().narrow(1, 1, steps);
        let statistics = vcreg(z, self.loss.frames);
        let w = &self.loss;
        Terms::weighted(vec![
            ("pred_loss", w.pred, mse(predicted, target)),
            ("std_loss", w.std, statistics.std),
            ("std_t_loss", w.std_t, statistics.std_t),
            ("cov_loss", w.cov, statistics.cov),
            ("cov_t_loss", w.cov_t, statistics.cov_t),
            ("temp_align_loss", w.temp_align, temp_align(z)),
            ("temp_straight_loss", w.temp_straight, temp_straight(z)),
            ("idm_loss", w.idm, mse(self.idm.forward(z), actions)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_model_has_the_published_size_and_keys() {
        let params = PldmConfig::full(10).init(0);
        let trained: usize = params
            .entries()
            .iter()
            .filter(|e| e.kind == worldbench_nn::Kind::Trainable && in_checkpoint(&e.key))
            .map(|e| e.range.len())
            .sum();
        assert_eq!(trained, 18_034_478);
        assert_eq!(params.entries().iter().filter(|e| in_checkpoint(&e.key)).count(), 303);
        assert_eq!(params.group("idm.").end, params.count());
        let modulation = params.get("predictor.transformer.layers.5.adaLN_modulation.1.weight").unwrap();
        assert!(modulation.iter().all(|&v| v == 0.0));
    }
}
