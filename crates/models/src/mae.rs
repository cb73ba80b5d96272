//! Masked autoencoder (He et al. 2021, arXiv 2111.06377): how the built-in frozen encoder is trained.
//!
//! A ViT sees some patches of a frame; a small decoder gets its outputs, mask tokens elsewhere, and reconstructs all
//! patches: `L = mean over patches and pixels of (decoded - normalised pixel)^2`. Unlike the paper's, the loss counts
//! visible patches too: a feature is to tell where its own patch's edges lie, not only what its neighbours hide.
//! The encoder has a class token, so that its exported form is that of DINOv2 with layer scales of 1.

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use worldbench_core::Stream;
use worldbench_nn::norm::LayerNorm;
use worldbench_nn::params::from_vec;
use worldbench_nn::vit::{Layer, VitConfig};
use worldbench_nn::{Init, Params, Scope, ops};

use crate::losses::mse;
use crate::patch_decoder::{PatchDecoder, cut};

/// Sizes and masking.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaeConfig {
    /// Device that trains, e.g. `cpu`.
    pub device: String,
    /// The encoder.
    pub encoder: VitConfig,
    /// The decoder; its image and patch sides are the encoder's.
    pub decoder: VitConfig,
    /// Patches of a frame that the encoder sees.
    pub visible: usize,
}

const EPS: f64 = 1e-6;
const INIT: Init = Init::Normal(0.02);

impl MaeConfig {
    /// Patches of a frame, P.
    #[must_use]
    pub fn patches(&self) -> usize {
        (self.encoder.image / self.encoder.patch).pow(2)
    }

    /// Values of a patch.
    fn patch_len(&self) -> usize {
        3 * self.encoder.patch.pow(2)
    }

    /// Freshly initialised parameters.
    #[must_use]
    pub fn init(&self, seed: u64) -> Params {
        Params::init(seed, |scope| Mae::build(scope, self))
    }
}

/// Frames cut into patches, and which of them the encoder sees.
pub struct Masked {
    /// Normalised patches `[B, P, 3 p p]`, channel-major as in a convolution's weight.
    patches: Vec<f32>,
    /// Seen patches `[B, V]`, ascending.
    visible: Vec<usize>,
}

impl Masked {
    /// Cuts RGB frames `[B, R, R, 3]` and draws what is seen, keyed by `seed`, `step` and the frame's place, the first
    /// being at `first`.
    #[must_use]
    pub fn new(config: &MaeConfig, frames: &[u8], first: usize, seed: u64, step: u64) -> Self {
        let (side, patch) = (config.encoder.image, config.encoder.patch);
        let count = config.patches();
        let mut patches = Vec::with_capacity(frames.len());
        let mut visible = Vec::new();
        for (i, frame) in frames.chunks_exact(3 * side * side).enumerate() {
            cut(frame, side, patch, &mut patches);
            let mut order: Vec<usize> = (0..count).collect();
            Stream::new(seed, "mae mask", &[step, (first + i) as u64]).shuffle(&mut order);
            order.truncate(config.visible);
            order.sort_unstable();
            visible.extend(order);
        }
        Self { patches, visible }
    }
}

/// The autoencoder, bound to a device.
#[derive(Clone, Debug)]
pub struct Mae {
    config: MaeConfig,
    class: Tensor<3>,
    positions: Tensor<3>,
    patch_weight: Tensor<4>,
    patch_bias: Tensor<1>,
    layers: Vec<Layer>,
    norm: LayerNorm,
    mask: Tensor<2>,
    decoder: PatchDecoder,
}

fn indices(values: impl Iterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i64> = values.map(|v| v as i64).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

impl Mae {
    /// Declares or binds the model. The encoder's keys begin with `encoder.` and `embeddings.`, or are `layernorm.*`.
    pub fn build(scope: &mut Scope, config: &MaeConfig) -> Self {
        let (e, d) = (&config.encoder, &config.decoder);
        let tokens = config.patches() + 1;
        let patch = "embeddings.patch_embeddings.projection";
        Self {
            class: scope.param("embeddings.cls_token", [1, 1, e.hidden], INIT),
            positions: scope.param("embeddings.position_embeddings", [1, tokens, e.hidden], INIT),
            patch_weight: scope.param(
                &format!("{patch}.weight"),
                [e.hidden, 3, e.patch, e.patch],
                Init::fan_in(config.patch_len()),
            ),
            patch_bias: scope.param(&format!("{patch}.bias"), [e.hidden], Init::Constant(0.0)),
            layers: (0..e.layers).map(|i| Layer::new(scope, &format!("encoder.layer.{i}"), e)).collect(),
            norm: LayerNorm::new(scope, "layernorm", e.hidden, EPS),
            mask: scope.param("decoder.mask_token", [1, d.hidden], INIT),
            decoder: PatchDecoder::new(scope, "decoder", e.hidden, d),
            config: config.clone(),
        }
    }

    /// Reconstruction loss `[1]`.
    #[must_use]
    pub fn loss(&self, frames: Masked, device: &Device) -> Tensor<1> {
        let features = self.encode(&frames, device); // [B, V, D]
        let decoded = self.decode(features, &frames, device); // [B, P, 3 p p]
        let shape = decoded.dims();
        mse(decoded, from_vec(frames.patches, shape, device))
    }

    /// Features of the visible patches, `[B, V, D]`.
    fn encode(&self, frames: &Masked, device: &Device) -> Tensor<3> {
        let (seen, len, hidden) = (self.config.visible, self.config.patch_len(), self.config.encoder.hidden);
        let (count, batch) = (self.config.patches(), frames.visible.len() / seen);
        let mut visible = Vec::with_capacity(frames.visible.len() * len);
        for (i, p) in frames.visible.iter().enumerate() {
            let start = (i / seen * count + p) * len;
            visible.extend_from_slice(&frames.patches[start..start + len]);
        }
        let weight = self.patch_weight.clone().reshape([hidden, len]);
        let visible = from_vec(visible, [batch, seen, len], device);
        let tokens = ops::linear(visible, &weight, Some(&self.patch_bias)); // [B, V, D]
        let table = self.positions.clone().reshape([count + 1, hidden]);
        let places = table.clone().select(0, indices(frames.visible.iter().map(|p| p + 1), device));
        let class = self.class.clone() + table.narrow(0, 0, 1).reshape([1, 1, hidden]);
        let tokens = tokens + places.reshape([batch, seen, hidden]);
        let mut x = Tensor::cat(vec![class.expand([batch, 1, hidden]), tokens], 1); // [B, 1 + V, D]
        for layer in &self.layers {
            x = layer.forward(x, self.config.encoder.heads);
        }
        self.norm.forward(x).narrow(1, 1, seen)
    }

    fn decode(&self, features: Tensor<3>, frames: &Masked, device: &Device) -> Tensor<3> {
        let [batch, seen, _] = features.dims();
        let (count, hidden) = (self.config.patches(), self.config.decoder.hidden);
        let known = self.decoder.bridge(features).reshape([batch * seen, hidden]);
        // Row `batch * seen` is the mask token.
        let mut source = vec![batch * seen; batch * count];
        for (i, p) in frames.visible.iter().enumerate() {
            source[i / seen * count + p] = i;
        }
        let rows = Tensor::cat(vec![known, self.mask.clone()], 0);
        let tokens = rows.select(0, indices(source.into_iter(), device)).reshape([batch, count, hidden]);
        self.decoder.decode(tokens) // [B, P, 3 p p]
    }
}

/// The encoder's part of a trained autoencoder's parameters under DINOv2's keys: `(key, shape, values)`.
#[must_use]
pub fn encoder_tensors(config: &MaeConfig, params: &Params) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let renamed = |key: &str| {
        key.replace("layernorm_before", "norm1")
            .replace("layernorm_after", "norm2")
            .replace("intermediate.dense", "mlp.fc1")
            .replace("attention.output.dense", "attention.OUTPUT.dense")
            .replace(".output.dense", ".mlp.fc2")
            .replace("OUTPUT", "output")
    };
    let entries = params.entries().iter().filter(|e| !e.key.starts_with("decoder."));
    let mut out: Vec<_> = entries
        .map(|e| (renamed(&e.key), e.shape.clone(), params.get(&e.key).unwrap_or_default().to_vec()))
        .collect();
    let hidden = config.encoder.hidden;
    for layer in 0..config.encoder.layers {
        for part in 1..=2 {
            let key = format!("encoder.layer.{layer}.layer_scale{part}.lambda1");
            out.push((key, vec![hidden], vec![1.0; hidden]));
        }
    }
    out.push(("embeddings.mask_token".into(), vec![1, hidden], vec![0.0; hidden]));
    out
}
