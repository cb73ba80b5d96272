//! Block-causal transformer over the patch tokens of successive frames (DINO-WM, Zhou et al. 2024).
//!
//! A token attends to all tokens of its own frame and of earlier ones. Shorter contexts use the first frame slots
//! and their position embeddings. Pre-norm, the norms being part of attention and feed-forward; no bias on queries,
//! keys and values.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::blocks::Linear;
use crate::norm::LayerNorm;
use crate::ops::{self, Mask};
use crate::{Init, Pass, Scope};

/// Sizes of a [`PatchPredictor`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchPredictorConfig {
    /// Longest context in frames.
    pub frames: usize,
    /// Tokens per frame P.
    pub patches: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of one head.
    pub head_width: usize,
    /// Width of the feed-forward part.
    pub mlp: usize,
    /// Dropout probability, in [0, 1).
    pub dropout: f64,
}

const EPS: f64 = 1e-5;

#[derive(Clone, Debug)]
struct Block {
    attention_norm: LayerNorm,
    qkv: Linear,
    output: Linear,
    mlp_norm: LayerNorm,
    expand: Linear,
    contract: Linear,
}

impl Block {
    fn new(scope: &mut Scope, key: &str, width: usize, c: &PatchPredictorConfig) -> Self {
        let inner = c.heads * c.head_width;
        Self {
            attention_norm: LayerNorm::new(scope, &format!("{key}.0.norm"), width, EPS),
            qkv: Linear::without_bias(scope, &format!("{key}.0.to_qkv"), width, 3 * inner),
            output: Linear::new(scope, &format!("{key}.0.to_out.0"), inner, width),
            mlp_norm: LayerNorm::new(scope, &format!("{key}.1.net.0"), width, EPS),
            expand: Linear::new(scope, &format!("{key}.1.net.1"), width, c.mlp),
            contract: Linear::new(scope, &format!("{key}.1.net.4"), c.mlp, width),
        }
    }

    /// `[B, T P, D]` to the same.
    fn forward(&self, x: Tensor<3>, c: &PatchPredictorConfig, pass: &mut Pass) -> Tensor<3> {
        let qkv = self.qkv.forward(self.attention_norm.forward(x.clone())); // [B, T P, 3 inner]
        let mask = Mask::Causal(c.patches);
        let mixed = if pass.is_train() && c.dropout > 0.0 {
            let drop = |p| pass.dropout(p, c.dropout);
            ops::plain::self_attention(qkv, c.heads, mask, drop)
        } else {
            ops::self_attention(qkv, c.heads, mask)
        };
        let attended = self.output.forward(mixed);
        let x = x + pass.dropout(attended, c.dropout);
        let hidden = self.expand.forward_gelu(self.mlp_norm.forward(x.clone())); // [B, T P, mlp]
        let hidden = pass.dropout(hidden, c.dropout);
        let fed = self.contract.forward(hidden);
        x + pass.dropout(fed, c.dropout)
    }
}

/// The predictor of the next frame's tokens at every frame.
#[derive(Clone, Debug)]
pub struct PatchPredictor {
    config: PatchPredictorConfig,
    positions: Tensor<3>,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl PatchPredictor {
    /// All keys under `{key}.`; `width` is that of the tokens.
    pub fn new(scope: &mut Scope, key: &str, width: usize, config: PatchPredictorConfig) -> Self {
        let positions = [1, config.frames * config.patches, width];
        Self {
            positions: scope.param(&format!("{key}.pos_embedding"), positions, Init::Normal(1.0)),
            blocks: (0..config.depth)
                .map(|i| Block::new(scope, &format!("{key}.transformer.layers.{i}"), width, &config))
                .collect(),
            norm: LayerNorm::new(scope, &format!("{key}.transformer.norm"), width, EPS),
            config,
        }
    }

    /// Tokens `[B, T, P, D]`, `T <= frames`, to those of the frame after each, `[B, T, P, D]`.
    pub fn forward(&self, tokens: Tensor<4>, pass: &mut Pass) -> Tensor<4> {
        let [batch, frames, patches, width] = tokens.dims();
        let rows = frames * patches;
        let mut x = tokens.reshape([batch, rows, width]) + self.positions.clone().narrow(1, 0, rows);
        for block in &self.blocks {
            x = block.forward(x, &self.config, pass); // [B, T P, D]
        }
        self.norm.forward(x).reshape([batch, frames, patches, width])
    }
}
