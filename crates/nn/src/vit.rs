//! Vision transformer (Dosovitskiy et al. 2021) in the layout of the Hugging Face checkpoints.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::blocks::Linear;
use crate::norm::LayerNorm;
use crate::ops::{self, Mask};
use crate::{Init, Scope};

/// Sizes of a [`Vit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitConfig {
    /// Side of the square input in pixels.
    pub image: usize,
    /// Side of a patch in pixels; divides `image`.
    pub patch: usize,
    /// Token width.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Width of the feed-forward part.
    pub mlp: usize,
}

impl VitConfig {
    /// ViT-Tiny with patches of 14 at 224 pixels.
    #[must_use]
    pub fn tiny() -> Self {
        Self { image: 224, patch: 14, hidden: 192, layers: 12, heads: 3, mlp: 768 }
    }
}

const EPS: f64 = 1e-12;
const INIT: Init = Init::Normal(0.02);

/// One block of the encoder: pre-norm attention and feed-forward.
#[derive(Clone, Debug)]
pub struct Layer {
    before: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    after: LayerNorm,
    expand: Linear,
    contract: Linear,
}

/// The encoder; its image representation is the class token after the final layer norm.
#[derive(Clone, Debug)]
pub struct Vit {
    config: VitConfig,
    class: Tensor<3>,
    positions: Tensor<3>,
    patch_weight: Tensor<4>,
    patch_bias: Tensor<1>,
    layers: Vec<Layer>,
    norm: LayerNorm,
}

fn linear(scope: &mut Scope, key: &str, inputs: usize, outputs: usize) -> Linear {
    Linear::with_init(scope, key, [inputs, outputs], INIT, Init::Constant(0.0))
}

impl Layer {
    /// All keys under `{key}.`.
    pub fn new(scope: &mut Scope, key: &str, c: &VitConfig) -> Self {
        let width = c.hidden;
        let head = |scope: &mut Scope, name: &str| {
            linear(scope, &format!("{key}.attention.attention.{name}"), width, width)
        };
        Self {
            query: head(scope, "query"),
            key: head(scope, "key"),
            value: head(scope, "value"),
            output: linear(scope, &format!("{key}.attention.output.dense"), width, width),
            expand: linear(scope, &format!("{key}.intermediate.dense"), width, c.mlp),
            contract: linear(scope, &format!("{key}.output.dense"), c.mlp, width),
            before: LayerNorm::new(scope, &format!("{key}.layernorm_before"), width, EPS),
            after: LayerNorm::new(scope, &format!("{key}.layernorm_after"), width, EPS),
        }
    }

    /// `[B, N, D]` to the same.
    #[must_use]
    pub fn forward(&self, x: Tensor<3>, heads: usize) -> Tensor<3> {
        let normal = self.before.forward(x.clone());
        let part = |linear: &Linear| linear.forward(normal.clone()); // [B, N, D]
        let mixed = ops::attention(part(&self.query), part(&self.key), part(&self.value), heads, Mask::Full);
        let x = x + self.output.forward(mixed);
        let hidden = self.expand.forward_gelu(self.after.forward(x.clone())); // [B, N, mlp]
        x + self.contract.forward(hidden)
    }
}

impl Vit {
    /// All keys under `{key}.` as in `ViTModel` of transformers 4.
    pub fn new(scope: &mut Scope, key: &str, config: VitConfig) -> Self {
        let VitConfig { patch, hidden, .. } = config;
        let side = config.image / patch;
        let patch_key = format!("{key}.embeddings.patch_embeddings.projection");
        let positions = [1, side * side + 1, hidden];
        Self {
            class: scope.param(&format!("{key}.embeddings.cls_token"), [1, 1, hidden], INIT),
            positions: scope.param(&format!("{key}.embeddings.position_embeddings"), positions, INIT),
            patch_weight: scope.param(&format!("{patch_key}.weight"), [hidden, 3, patch, patch], INIT),
            patch_bias: scope.param(&format!("{patch_key}.bias"), [hidden], Init::Constant(0.0)),
            layers: (0..config.layers)
                .map(|i| Layer::new(scope, &format!("{key}.encoder.layer.{i}"), &config))
                .collect(),
            norm: LayerNorm::new(scope, &format!("{key}.layernorm"), hidden, EPS),
            config,
        }
    }

    /// Images `[B, 3, S, S]` to all tokens `[B, 1 + P, D]`, class token first.
    #[must_use]
    pub fn tokens(&self, images: Tensor<4>) -> Tensor<3> {
        let patches = self.embed_patches(images); // [B, P, D]
        let [batch, _, hidden] = patches.dims();
        let class = self.class.clone().expand([batch, 1, hidden]);
        let mut x = Tensor::cat(vec![class, patches], 1) + self.positions.clone(); // [B, 1 + P, D]
        for layer in &self.layers {
            x = layer.forward(x, self.config.heads);
        }
        self.norm.forward(x)
    }

    /// Images `[B, 3, S, S]` to the class token `[B, D]`.
    #[must_use]
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.tokens(images).narrow(1, 0, 1).squeeze_dim(1)
    }

    /// Stride equals kernel size, so the convolution is one matrix product over unfolded patches.
    fn embed_patches(&self, images: Tensor<4>) -> Tensor<3> {
        let [batch, channels, height, width] = images.dims();
        let VitConfig { patch, hidden, .. } = self.config;
        let (rows, columns) = (height / patch, width / patch);
        let unfolded = images
            .reshape([batch, channels, rows, patch, columns, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, rows * columns, channels * patch * patch]);
        let weight = self.patch_weight.clone().reshape([hidden, channels * patch * patch]);
        ops::linear(unfolded, &weight, Some(&self.patch_bias))
    }
}
