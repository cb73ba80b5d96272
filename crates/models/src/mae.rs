//! Masked autoencoder (after He et al. 2021, arXiv 2111.06377): how the built-in frozen encoder is trained.
//!
//! A ViT turns a frame into features `z` `[P, D]`, each normalised to mean 0 and variance 1. A small decoder gets some of
//! them, with Gaussian noise on top and mask tokens elsewhere, and reconstructs all patches:
//! `L = mean over patches and pixels of (decoder(mask * (z + sigma e)) - normalised pixel)^2`.
//!
//! Unlike the paper's, the encoder sees the whole frame, as it will in use, and the mask lies on its features: any few of
//! them have to tell the whole scene. The noise spends their limited range on what moves many pixels, so that the
//! distance of two frames' features grows smoothly with the change of pose, which is what a planning cost needs.
//! The encoder has a class token, so that its exported form is that of DINOv2 with layer scales of 1.

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use worldbench_core::Stream;
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
    /// Features of a frame that the decoder sees.
    pub visible: usize,
    /// Standard deviation of the noise on them, sigma.
    pub noise: f64,
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

/// Frames cut into patches, and what of their features the decoder sees.
pub struct Masked {
    /// Normalised patches `[B, P, 3 p p]`, channel-major as in a convolution's weight.
    patches: Vec<f32>,
    /// Seen patches `[B, V]`, ascending.
    visible: Vec<usize>,
    /// Noise on their features, `[B, V, D]`.
    noise: Vec<f32>,
}

impl Masked {
    /// Cuts RGB frames `[B, R, R, 3]` and draws mask and noise, keyed by `seed`, `step` and the frame's place, the first
    /// being at `first`.
    #[must_use]
    pub fn new(config: &MaeConfig, frames: &[u8], first: usize, seed: u64, step: u64) -> Self {
        let (side, patch) = (config.encoder.image, config.encoder.patch);
        let count = config.patches();
        let mut patches = Vec::with_capacity(frames.len());
        let (mut visible, mut noise) = (Vec::new(), Vec::new());
        for (i, frame) in frames.chunks_exact(3 * side * side).enumerate() {
            cut(frame, side, patch, &mut patches);
            let mut order: Vec<usize> = (0..count).collect();
            let mut stream = Stream::new(seed, "mae mask", &[step, (first + i) as u64]);
            stream.shuffle(&mut order);
            order.truncate(config.visible);
            order.sort_unstable();
            visible.extend(order);
            let values = config.visible * config.encoder.hidden;
            noise.extend((0..values).map(|_| (stream.normal() * config.noise) as f32));
        }
        Self { patches, visible, noise }
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
    mask: Tensor<2>,
    decoder: PatchDecoder,
}

fn indices(values: impl Iterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i64> = values.map(|v| v as i64).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

impl Mae {
    /// Declares or binds the model. The encoder's keys begin with `encoder.` and `embeddings.`.
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
            mask: scope.param("decoder.mask_token", [1, d.hidden], INIT),
            decoder: PatchDecoder::new(scope, "decoder", e.hidden, d),
            config: config.clone(),
        }
    }

    /// Reconstruction loss `[1]`.
    #[must_use]
    pub fn loss(&self, frames: Masked, device: &Device) -> Tensor<1> {
        let (count, len) = (self.config.patches(), self.config.patch_len());
        let batch = frames.visible.len() / self.config.visible;
        let patches = from_vec(frames.patches.clone(), [batch, count, len], device);
        let features = self.encode(&patches); // [B, P, D]
        mse(self.decode(features, &frames, device), patches)
    }

    /// Features `[B, P, D]` of frames' patches `[B, P, 3 p p]`.
    fn encode(&self, patches: &Tensor<3>) -> Tensor<3> {
        let [batch, count, len] = patches.dims();
        let hidden = self.config.encoder.hidden;
        let weight = self.patch_weight.clone().reshape([hidden, len]);
        let tokens = ops::linear(patches.clone(), &weight, Some(&self.patch_bias)); // [B, P, D]
        let class = self.class.clone().expand([batch, 1, hidden]);
        let mut x = Tensor::cat(vec![class, tokens], 1) + self.positions.clone(); // [B, 1 + P, D]
        for layer in &self.layers {
            x = layer.forward(x, self.config.encoder.heads);
        }
        // No scale and no shift: a scale could outgrow the noise.
        let device = x.device();
        let (scale, shift) = (Tensor::ones([hidden], &device), Tensor::zeros([hidden], &device));
        ops::layer_norm(x, &scale, &shift, EPS).narrow(1, 1, count)
    }

    /// Patches `[B, P, 3 p p]` from what `frames` shows of the features.
    fn decode(&self, features: Tensor<3>, frames: &Masked, device: &Device) -> Tensor<3> {
        let [batch, count, width] = features.dims();
        let (seen, hidden) = (self.config.visible, self.config.decoder.hidden);
        let rows = frames.visible.iter().enumerate().map(|(i, p)| i / seen * count + p);
        let shown = features.reshape([batch * count, width]).select(0, indices(rows, device));
        let shown = shown + from_vec(frames.noise.clone(), [batch * seen, width], device);
        let shown = shown.reshape([batch, seen, width]);
        let known = self.decoder.bridge(shown).reshape([batch * seen, hidden]);
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
    out.push(("layernorm.weight".into(), vec![hidden], vec![1.0; hidden]));
    out.push(("layernorm.bias".into(), vec![hidden], vec![0.0; hidden]));
    out.push(("embeddings.mask_token".into(), vec![1, hidden], vec![0.0; hidden]));
    out
}
