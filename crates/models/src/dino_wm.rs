//! DINO-WM (Zhou et al. 2024, arXiv 2411.04983): dynamics in the space of a frozen encoder's patch features.
//!
//! A frame's token p is `[features_p | e(proprioception) | e(action block)]`; the two embeddings are affine and the
//! same for all patches of a frame. A block-causal transformer predicts the next frame's tokens; the loss is their mean
//! squared error without the action's channels. Planning costs compare the last predicted frame with the goal.
//!
//! Keys are those of the published checkpoints. What of the reference is not followed: it drops all axes of length 1
//! after collation (which breaks a batch of one), and it clips gradients that are still multiplied by the loss scale.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use worldbench_nn::patch_predictor::{PatchPredictor, PatchPredictorConfig};
use worldbench_nn::{Init, Params, Pass, Scope, ops};

use crate::jepa::without_nan;
use crate::losses::{Terms, mse};

/// Sizes of the network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DinoWmConfig {
    /// Width of the frozen features.
    pub features: usize,
    /// Numbers of proprioception; 0 leaves it out.
    pub proprio: usize,
    /// Width of its embedding.
    pub proprio_width: usize,
    /// Numbers per action block: action dimension times frame skip.
    pub action: usize,
    /// Width of its embedding.
    pub action_width: usize,
    /// The transformer.
    pub predictor: PatchPredictorConfig,
    /// Whether training predicts from predicted frames after the first, as planning does, instead of from given ones
    /// (teacher forcing, as published).
    #[serde(default)]
    pub rollout: bool,
}

impl DinoWmConfig {
    /// The published size on DINOv2-small at 224 pixels (256 tokens of width 384), for action blocks of `action`
    /// numbers and the proprioception of Push-T.
    #[must_use]
    pub fn full(action: usize) -> Self {
        let predictor = PatchPredictorConfig {
            frames: 3,
            patches: 256,
            depth: 6,
            heads: 16,
            head_width: 64,
            mlp: 2048,
            dropout: 0.1,
            residual: false,
        };
        Self {
            features: 384,
            proprio: 4,
            proprio_width: 10,
            action,
            action_width: 10,
            predictor,
            rollout: false,
        }
    }

    /// Channels that a prediction is scored on: features and proprioception.
    #[must_use]
    pub fn state_width(&self) -> usize {
        self.features + if self.proprio == 0 { 0 } else { self.proprio_width }
    }

    /// Width D of tokens.
    #[must_use]
    pub fn width(&self) -> usize {
        self.state_width() + self.action_width
    }

    /// Freshly initialised parameters.
    #[must_use]
    pub fn init(&self, seed: u64) -> Params {
        Params::init(seed, |scope| DinoWm::build(scope, self))
    }
}

/// Whether a key of the reference's files is an attention mask, `predictor.transformer.layers.{i}.0.bias`: it is known
/// without being stored.
#[must_use]
pub fn is_mask(key: &str) -> bool {
    let layer = key.strip_prefix("predictor.transformer.layers.").and_then(|rest| rest.split_once('.'));
    layer.is_some_and(|(_, rest)| rest == "0.bias")
}

/// What this crate calls a tensor of a reference's file: without `torch.compile`'s prefix, and under stable-worldmodel's name
/// where the original DINO-WM has another. `None` for attention masks.
#[must_use]
pub fn reference_key(key: &str) -> Option<String> {
    const RENAMED: [(&str, &str); 2] =
        [("action_encoder.", "extra_encoders.action."), ("proprio_encoder.", "extra_encoders.proprio.")];
    let key = key.replace("_orig_mod.", "");
    let renamed = RENAMED.iter().find_map(|(from, to)| Some(format!("{to}{}", key.strip_prefix(from)?)));
    Some(renamed.unwrap_or(key)).filter(|key| !is_mask(key))
}

/// An affine embedding of numbers per frame, stored like the reference's convolution of width 1.
#[derive(Clone, Debug)]
struct Embedder {
    weight: Tensor<3>,
    bias: Tensor<1>,
}

impl Embedder {
    fn new(scope: &mut Scope, name: &str, inputs: usize, width: usize) -> Self {
        let (key, init) = (format!("extra_encoders.{name}.patch_embed"), Init::fan_in(inputs));
        Self {
            weight: scope.param(&format!("{key}.weight"), [width, inputs, 1], init),
            bias: scope.param(&format!("{key}.bias"), [width], init),
        }
    }

    /// `[B, T, in]` (NaN counts as 0) to `[B, T, E]`.
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [width, inputs, _] = self.weight.dims();
        let weight = self.weight.clone().reshape([width, inputs]);
        ops::linear(without_nan(x), &weight, Some(&self.bias))
    }
}

/// The model, bound to a device; the frozen encoder stands outside.
#[derive(Clone, Debug)]
pub struct DinoWm {
    config: DinoWmConfig,
    predictor: PatchPredictor,
    proprio: Option<Embedder>,
    action: Embedder,
}

/// What is known of some frames: features `[B, T, P, F]`, normalised proprioception `[B, T, 4]` (not looked at by a
/// model without) and normalised action blocks `[B, T, A]`, of which block t leads from frame t to the next.
#[derive(Clone, Debug)]
pub struct Clip {
    /// Frozen features.
    pub features: Tensor<4>,
    /// Proprioception.
    pub proprio: Tensor<3>,
    /// Action blocks.
    pub actions: Tensor<3>,
}

/// `[B, T, E]` to `[B, T, P, E]`, the same for all patches.
fn tile(x: Tensor<3>, patches: usize) -> Tensor<4> {
    let [batch, frames, width] = x.dims();
    x.reshape([batch, frames, 1, width]).expand([batch, frames, patches, width])
}

impl DinoWm {
    /// Declares or binds the network.
    pub fn build(scope: &mut Scope, config: &DinoWmConfig) -> Self {
        let proprio = (config.proprio > 0)
            .then(|| Embedder::new(scope, "proprio", config.proprio, config.proprio_width));
        Self {
            config: *config,
            predictor: PatchPredictor::new(scope, "predictor", config.width(), config.predictor),
            proprio,
            action: Embedder::new(scope, "action", config.action, config.action_width),
        }
    }

    /// Features and proprioception `[B, T, P, F + E]`: what is predicted, and what a goal is.
    #[must_use]
    pub fn states(&self, features: Tensor<4>, proprio: Tensor<3>) -> Tensor<4> {
        let patches = features.dims()[2];
        match &self.proprio {
            Some(embedder) => Tensor::cat(vec![features, tile(embedder.forward(proprio), patches)], 3),
            None => features,
        }
    }

    /// States `[B, T, P, F + E]` with their action blocks `[B, T, A]`: tokens `[B, T, P, D]`.
    #[must_use]
    pub fn tokens(&self, states: Tensor<4>, actions: Tensor<3>) -> Tensor<4> {
        let patches = states.dims()[2];
        Tensor::cat(vec![states, tile(self.action.forward(actions), patches)], 3)
    }

    /// The next frame's tokens at every frame, `[B, T, P, D]` both, T at most the history length. Their action channels
    /// mean nothing.
    pub fn predict(&self, tokens: Tensor<4>, pass: &mut Pass) -> Tensor<4> {
        self.predictor.forward(tokens, pass)
    }

    /// Training loss over a clip: every frame is predicted from those before, given ones (then a clip has at most one
    /// frame more than the history) or, after the first, predicted ones.
    pub fn loss(&self, clip: Clip, pass: &mut Pass) -> Terms {
        let states = self.states(clip.features, clip.proprio); // [B, T, P, F + E]
        let [_, frames, _, width] = states.dims();
        let features = self.config.features;
        let steps = frames - 1;
        let actions = clip.actions.narrow(1, 0, steps);
        let predicted = if self.config.rollout {
            self.unroll(states.clone().narrow(1, 0, 1), actions, pass).narrow(1, 1, steps)
        } else {
            self.predict(self.tokens(states.clone().narrow(1, 0, steps), actions), pass)
        };
        let predicted = predicted.narrow(3, 0, width); // [B, T - 1, P, F + E]
        let target = states.narrow(1, 1, steps).detach();
        let part = |x: &Tensor<4>, from: usize, to: usize| x.clone().narrow(3, from, to - from);
        let error = |from, to| mse(part(&predicted, from, to), part(&target, from, to));
        let pixels = error(0, features);
        if width == features {
            return Terms { total: pixels.clone(), items: vec![("pixels_loss", pixels)] };
        }
        let proprio = error(features, width);
        // The mean over all channels, from the means of its two parts.
        let share = features as f64 / width as f64;
        let total = pixels.clone() * share + proprio.clone() * (1.0 - share);
        Terms { total, items: vec![("pixels_loss", pixels), ("proprio_loss", proprio)] }
    }

    /// Open-loop prediction in evaluation mode. `context` holds the states of n frames `[N, n, P, F + E]`, `actions`
    /// `[N, n - 1 + H, A]` the blocks between them, then the H planned ones. Returns tokens `[N, n + H, P, D]`;
    /// the action channels of the last are the predictor's own.
    #[must_use]
    pub fn rollout(&self, context: Tensor<4>, actions: Tensor<3>) -> Tensor<4> {
        self.unroll(context, actions, &mut Pass::eval())
    }

    /// As [`Self::rollout`], in evaluation or training.
    fn unroll(&self, context: Tensor<4>, actions: Tensor<3>, pass: &mut Pass) -> Tensor<4> {
        let (states, frames) = (context.dims()[3], self.config.predictor.frames);
        let [_, steps, _] = actions.dims();
        let action = |t: usize, n: usize| actions.clone().narrow(1, t, n);
        let known = context.dims()[1];
        let mut path = self.tokens(context, action(0, known));
        for end in known..=steps {
            let window = end.min(frames);
            let next = self.predict(path.clone().narrow(1, end - window, window), pass);
            let next = next.narrow(1, window - 1, 1); // [N, 1, P, D]
            let next = match end < steps {
                true => self.tokens(next.narrow(3, 0, states), action(end, 1)),
                false => next,
            };
            path = Tensor::cat(vec![path, next], 1);
        }
        path
    }

    /// Planning cost `[N]` of the last frame of `path` `[N, T, P, D]` against goal states `[N, 1, P, F + E]`: mean
    /// squared error of the features, plus that of the proprioception, read at patch 0 as in the reference.
    #[must_use]
    pub fn goal_cost(&self, path: Tensor<4>, goal: Tensor<4>) -> Tensor<1> {
        let [count, steps, patches, _] = path.dims();
        let (features, states) = (self.config.features, self.config.state_width());
        let error = |patches: usize, from: usize, to: usize| {
            let part = |x: Tensor<4>, t| x.narrow(1, t, 1).narrow(2, 0, patches).narrow(3, from, to - from);
            let difference = part(path.clone(), steps - 1) - part(goal.clone(), 0);
            let squares = (difference.clone() * difference).reshape([count, patches * (to - from)]);
            squares.mean_dim(1).reshape([count])
        };
        let cost = error(patches, 0, features);
        if states == features { cost } else { cost + error(1, features, states) }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::parity::dino_wm::small;
    use crate::state_dict::StateDict;

    #[test]
    fn a_pytorch_file_of_the_reference_holds_the_weights_of_the_parity_fixture() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let torch = StateDict::read(&folder.join("tests/fixtures/torch/dinowm.pt")).unwrap();
        let truth = folder.join("../../tests/fixtures/models/dinowm_predictor.safetensors");
        let truth = StateDict::read(&truth).unwrap();
        let mut params = small().init(0);
        let mut found = 0;
        for (key, tensor) in torch.tensors() {
            let Some(key) = reference_key(key) else { continue };
            assert_eq!(params.entry(&key).unwrap().shape, tensor.shape, "{key}");
            params.get_mut(&key).unwrap().copy_from_slice(&tensor.values);
            assert_eq!(truth.get(&key).unwrap().values, tensor.values, "{key}");
            found += 1;
        }
        assert_eq!(found, params.entries().len());
        assert_eq!(torch.tensors().len(), found + small().predictor.depth);
        let original = reference_key("action_encoder.patch_embed.weight");
        assert_eq!(original.as_deref(), Some("extra_encoders.action.patch_embed.weight"));
    }

    #[test]
    fn the_full_model_has_the_published_size_and_keys() {
        let params = DinoWmConfig::full(10).init(0);
        assert_eq!(params.count(), 20_195_320 + 160);
        assert_eq!(params.entry("predictor.pos_embedding").unwrap().shape, [1, 768, 404]);
        assert_eq!(params.entry("extra_encoders.action.patch_embed.weight").unwrap().shape, [10, 10, 1]);
        let layer = params.entry("predictor.transformer.layers.5.1.net.4.weight").unwrap();
        assert_eq!(layer.shape, [404, 2048]);
    }
}
