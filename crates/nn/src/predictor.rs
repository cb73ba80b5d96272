//! Causal transformer over time, conditioned on actions by adaptive layer norm (adaLN-zero, Peebles and Xie 2023).
//!
//! Every attention and feed-forward part begins with its own affine layer norm, after the modulated one without
//! affine part: the double norm of the reference is kept.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

use crate::blocks::{BlockSizes, FeedForward, Linear, SelfAttention};
use crate::norm::LayerNorm;
use crate::ops::{self, Mask};
use crate::{Init, Pass, Scope};

/// Sizes of a [`Predictor`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictorConfig {
    /// Longest context in frames.
    pub frames: usize,
    /// Width of states and conditions.
    pub width: usize,
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

const MODULATED_EPS: f64 = 1e-6;
const AFFINE_EPS: f64 = 1e-5;

#[derive(Clone, Debug)]
struct Block {
    attention: SelfAttention,
    feed: FeedForward,
    modulation: Linear,
}

/// The predictor of the next embedding at every time step.
#[derive(Clone, Debug)]
pub struct Predictor {
    config: PredictorConfig,
    positions: Tensor<3>,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl Block {
    fn new(scope: &mut Scope, key: &str, c: &PredictorConfig) -> Self {
        let PredictorConfig { width, heads, head_width, mlp, dropout, .. } = *c;
        let sizes = BlockSizes { width, heads, head_width, mlp, dropout };
        let zero = Init::Constant(0.0);
        let modulation = format!("{key}.adaLN_modulation.1");
        Self {
            attention: SelfAttention::new(scope, &format!("{key}.attn"), sizes),
            feed: FeedForward::new(scope, &format!("{key}.mlp"), sizes),
            modulation: Linear::with_init(scope, &modulation, [width, 6 * width], zero, zero),
        }
    }

    /// `x` and `silu(condition)`, both `[B, T, D]`.
    fn forward(&self, x: Tensor<3>, condition: Tensor<3>, c: &PredictorConfig, pass: &mut Pass) -> Tensor<3> {
        let modulation = self.modulation.forward(condition); // [B, T, 6 D]
        let part = |i: usize| modulation.clone().narrow(2, i * c.width, c.width);
        let modulated =
            |x: Tensor<3>, shift, scale: Tensor<3>| ops::normalise(x, MODULATED_EPS) * (scale + 1.0) + shift;
        let attended = self.attention.forward(modulated(x.clone(), part(0), part(1)), Mask::Causal(1), pass);
        let x = x + part(2) * attended;
        let fed = self.feed.forward(modulated(x.clone(), part(3), part(4)), pass);
        x + part(5) * fed
    }
}

impl Predictor {
    /// All keys under `{key}.`.
    pub fn new(scope: &mut Scope, key: &str, config: PredictorConfig) -> Self {
        let positions = [1, config.frames, config.width];
        Self {
            positions: scope.param(&format!("{key}.pos_embedding"), positions, Init::Normal(1.0)),
            blocks: (0..config.depth)
                .map(|i| Block::new(scope, &format!("{key}.transformer.layers.{i}"), &config))
                .collect(),
            norm: LayerNorm::new(scope, &format!("{key}.transformer.norm"), config.width, AFFINE_EPS),
            config,
        }
    }

    /// States and action embeddings `[B, T, D]`, `T <= frames`, to the next state at every step, `[B, T, D]`.
    pub fn forward(&self, states: Tensor<3>, actions: Tensor<3>, pass: &mut Pass) -> Tensor<3> {
        let frames = states.dims()[1];
        let condition = activation::silu(actions);
        let mut x = states + self.positions.clone().narrow(1, 0, frames);
        for block in &self.blocks {
            x = block.forward(x, condition.clone(), &self.config, pass);
        }
        self.norm.forward(x)
    }
}
