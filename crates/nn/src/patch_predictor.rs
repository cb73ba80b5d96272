//! Block-causal transformer over the patch tokens of successive frames (DINO-WM, Zhou et al. 2024).
//!
//! A token attends to all tokens of its own frame and of earlier ones. Shorter contexts use the first frame slots
//! and their position embeddings. Pre-norm, the norms being part of attention and feed-forward; no bias on queries,
//! keys and values.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::blocks::{BlockSizes, FeedForward, Linear, SelfAttention};
use crate::norm::LayerNorm;
use crate::ops::Mask;
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
    /// Whether the network predicts the change of each frame by a linear layer after its last norm, which starts at 0,
    /// instead of the next frame by the norm's output. The published one does not.
    #[serde(default)]
    pub residual: bool,
}

const EPS: f64 = 1e-5;

/// The predictor of the next frame's tokens at every frame.
#[derive(Clone, Debug)]
pub struct PatchPredictor {
    config: PatchPredictorConfig,
    positions: Tensor<3>,
    blocks: Vec<(SelfAttention, FeedForward)>,
    norm: LayerNorm,
    change: Option<Linear>,
}

impl PatchPredictor {
    /// All keys under `{key}.`; `width` is that of the tokens.
    pub fn new(scope: &mut Scope, key: &str, width: usize, config: PatchPredictorConfig) -> Self {
        let PatchPredictorConfig { frames, patches, heads, head_width, mlp, dropout, .. } = config;
        let sizes = BlockSizes { width, heads, head_width, mlp, dropout };
        let positions = format!("{key}.pos_embedding");
        let block = |scope: &mut Scope, i: usize| {
            let key = format!("{key}.transformer.layers.{i}");
            let attention = SelfAttention::new(scope, &format!("{key}.0"), sizes);
            (attention, FeedForward::new(scope, &format!("{key}.1"), sizes))
        };
        Self {
            positions: scope.param(&positions, [1, frames * patches, width], Init::Normal(1.0)),
            blocks: (0..config.depth).map(|i| block(scope, i)).collect(),
            norm: LayerNorm::new(scope, &format!("{key}.transformer.norm"), width, EPS),
            change: config.residual.then(|| {
                let zero = Init::Constant(0.0);
                Linear::with_init(scope, &format!("{key}.change"), [width, width], zero, zero)
            }),
            config,
        }
    }

    /// Tokens `[B, T, P, D]`, `T <= frames`, to those of the frame after each, `[B, T, P, D]`.
    pub fn forward(&self, tokens: Tensor<4>, pass: &mut Pass) -> Tensor<4> {
        let [batch, frames, patches, width] = tokens.dims();
        let rows = frames * patches;
        let tokens = tokens.reshape([batch, rows, width]);
        let mut x = tokens.clone() + self.positions.clone().narrow(1, 0, rows);
        let mask = Mask::Causal(self.config.patches);
        for (attention, feed) in &self.blocks {
            x = attention.forward(x.clone(), mask, pass) + x; // [B, T P, D]
            x = feed.forward(x.clone(), pass) + x;
        }
        let x = self.norm.forward(x);
        let next = match &self.change {
            Some(change) => tokens + change.forward(x),
            None => x,
        };
        next.reshape([batch, frames, patches, width])
    }
}
