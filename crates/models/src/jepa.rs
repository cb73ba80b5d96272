//! The joint-embedding network that PLDM and LeWM share: a ViT encoder with a batch-normalised projector, an action
//! embedder, and a causal predictor conditioned on actions. Keys are those of the published checkpoints.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use worldbench_nn::blocks::{ActionEmbedder, Projector};
use worldbench_nn::predictor::{Predictor, PredictorConfig};
use worldbench_nn::vit::{Vit, VitConfig};
use worldbench_nn::{Pass, Scope};

/// Sizes of the network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JepaConfig {
    /// Encoder; its width is the width of embeddings too.
    pub encoder: VitConfig,
    /// Predictor; its width must be the encoder's, its `frames` is the history length.
    pub predictor: PredictorConfig,
    /// Hidden width of the two projectors.
    pub projector_hidden: usize,
    /// Numbers per action block: action dimension times frame skip.
    pub action: usize,
    /// Width after the first action layer.
    pub smoothed: usize,
    /// Hidden width of the action embedder.
    pub action_hidden: usize,
}

impl JepaConfig {
    /// The published size, ViT-Tiny/14 at 224 pixels, for action blocks of `action` numbers.
    #[must_use]
    pub fn full(action: usize) -> Self {
        let predictor = PredictorConfig {
            frames: 3,
            width: 192,
            depth: 6,
            heads: 16,
            head_width: 64,
            mlp: 2048,
            dropout: 0.1,
        };
        Self {
            encoder: VitConfig::tiny(),
            predictor,
            projector_hidden: 2048,
            action,
            smoothed: 10,
            action_hidden: 768,
        }
    }
}

/// The network, bound to a device.
#[derive(Clone, Debug)]
pub struct Jepa {
    config: JepaConfig,
    encoder: Vit,
    predictor: Predictor,
    action_encoder: ActionEmbedder,
    projector: Projector,
    pred_proj: Projector,
}

impl Jepa {
    /// Declares or binds the network.
    pub fn build(scope: &mut Scope, config: &JepaConfig) -> Self {
        let width = config.encoder.hidden;
        let actions = [config.action, config.smoothed, config.action_hidden, width];
        Self {
            config: *config,
            encoder: Vit::new(scope, "encoder", config.encoder),
            predictor: Predictor::new(scope, "predictor", config.predictor),
            action_encoder: ActionEmbedder::new(scope, "action_encoder", actions),
            projector: Projector::new(scope, "projector", width, config.projector_hidden, width),
            pred_proj: Projector::new(scope, "pred_proj", width, config.projector_hidden, width),
        }
    }

    /// The sizes.
    #[must_use]
    pub fn config(&self) -> &JepaConfig {
        &self.config
    }

    /// Class tokens of normalised images: `[N, 3, S, S]` to `[N, D]`.
    #[must_use]
    pub fn class_tokens(&self, images: Tensor<4>) -> Tensor<2> {
        self.encoder.forward(images)
    }

    /// Embeddings of normalised frames: `[B, T, 3, S, S]` to `[B, T, D]`.
    pub fn encode(&self, frames: Tensor<5>, pass: &mut Pass) -> Tensor<3> {
        let [batch, steps, channels, height, width] = frames.dims();
        let class = self.class_tokens(frames.reshape([batch * steps, channels, height, width]));
        let embeddings = self.projector.forward(class, pass); // [B T, D]
        let width = embeddings.dims()[1];
        embeddings.reshape([batch, steps, width])
    }

    /// Action blocks `[B, T, A]` to `[B, T, D]`; missing actions (NaN) count as 0.
    #[must_use]
    pub fn embed_actions(&self, actions: Tensor<3>) -> Tensor<3> {
        self.action_encoder.forward(without_nan(actions))
    }

    /// The next embedding at every step: both inputs and the output `[B, T, D]`, T at most the history length.
    pub fn predict(&self, states: Tensor<3>, actions: Tensor<3>, pass: &mut Pass) -> Tensor<3> {
        let predicted = self.predictor.forward(states, actions, pass);
        self.pred_proj.forward_frames(predicted, pass)
    }

    /// Open-loop prediction in evaluation mode. `context` is `[N, n, D]`; `actions`, `[N, n - 1 + H, A]`, hold the
    /// blocks between the context frames, then the H planned ones. Returns context and predictions, `[N, n + H, D]`.
    #[must_use]
    pub fn rollout(&self, context: Tensor<3>, actions: Tensor<3>) -> Tensor<3> {
        let mut pass = Pass::eval();
        let embedded = self.embed_actions(actions);
        let steps = embedded.dims()[1];
        let mut path = context;
        for end in path.dims()[1]..=steps {
            let window = end.min(self.config.predictor.frames);
            let part = |x: &Tensor<3>| x.clone().narrow(1, end - window, window);
            let next = self.predict(part(&path), part(&embedded), &mut pass).narrow(1, window - 1, 1);
            path = Tensor::cat(vec![path, next], 1);
        }
        path
    }
}

/// Replaces NaN by 0.
#[must_use]
pub fn without_nan<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let missing = x.clone().is_nan();
    x.mask_fill(missing, 0.0)
}

/// Goal cost: squared distance of predictions to the goal embedding, summed over the width. `path` is
/// `[N, T, D]`, `goal` `[N, 1, D]`, `context` the number of frames in `path` that were not predicted.
/// Over the last step only (stable-worldmodel), or summed over every predicted step (original PLDM); `[N]`.
#[must_use]
pub fn goal_cost(path: Tensor<3>, goal: Tensor<3>, context: usize, every_step: bool) -> Tensor<1> {
    let [count, steps, _] = path.dims();
    let start = if every_step { context } else { steps - 1 };
    let difference = path.narrow(1, start, steps - start) - goal;
    let squares = (difference.clone() * difference).sum_dim(2); // [N, steps, 1]
    squares.sum_dim(1).reshape([count])
}
