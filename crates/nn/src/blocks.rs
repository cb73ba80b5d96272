//! Small building blocks: linear layers, the batch-normalised projector, the action embedder, the parts of transformer blocks.

use burn::tensor::{Tensor, activation};

use crate::norm::{BatchNorm, LayerNorm};
use crate::ops::{self, Mask};
use crate::{Init, Pass, Scope};

/// A linear layer with weight (out, in).
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Tensor<2>,
    /// `[out]`
    pub bias: Option<Tensor<1>>,
}

impl Linear {
    /// `{key}.weight` and `{key}.bias` with PyTorch's default initialisation.
    pub fn new(scope: &mut Scope, key: &str, inputs: usize, outputs: usize) -> Self {
        let init = Init::fan_in(inputs);
        Self::with_init(scope, key, [inputs, outputs], init, init)
    }

    /// As [`Linear::new`], without a bias.
    pub fn without_bias(scope: &mut Scope, key: &str, inputs: usize, outputs: usize) -> Self {
        let weight = scope.param(&format!("{key}.weight"), [outputs, inputs], Init::fan_in(inputs));
        Self { weight, bias: None }
    }

    /// As [`Linear::new`] with other initial values; `[inputs, outputs]`.
    pub fn with_init(
        scope: &mut Scope,
        key: &str,
        [inputs, outputs]: [usize; 2],
        weight: Init,
        bias: Init,
    ) -> Self {
        let weight = scope.param(&format!("{key}.weight"), [outputs, inputs], weight);
        Self { weight, bias: Some(scope.param(&format!("{key}.bias"), [outputs], bias)) }
    }

    /// `[.., in]` to `[.., out]`.
    #[must_use]
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::linear(x, &self.weight, self.bias.as_ref())
    }

    /// [`Linear::forward`] followed by the exact GELU.
    #[must_use]
    pub fn forward_gelu<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::gelu(self.forward(x))
    }
}

/// Linear, batch normalisation, GELU, linear: the projector of encoder outputs and of predictions.
#[derive(Clone, Debug)]
pub struct Projector {
    input: Linear,
    norm: BatchNorm,
    output: Linear,
}

impl Projector {
    /// `{key}.net.0`, `.1` and `.3`.
    pub fn new(scope: &mut Scope, key: &str, inputs: usize, hidden: usize, outputs: usize) -> Self {
        Self {
            input: Linear::new(scope, &format!("{key}.net.0"), inputs, hidden),
            norm: BatchNorm::new(scope, &format!("{key}.net.1"), hidden),
            output: Linear::new(scope, &format!("{key}.net.3"), hidden, outputs),
        }
    }

    /// `[N, in]` to `[N, out]`; batch statistics pool all N rows.
    pub fn forward(&self, x: Tensor<2>, pass: &mut Pass) -> Tensor<2> {
        let hidden = self.norm.forward(self.input.forward(x), pass);
        self.output.forward(ops::gelu(hidden))
    }

    /// [`Projector::forward`] on `[B, T, in]`, pooling batch and time.
    pub fn forward_frames(&self, x: Tensor<3>, pass: &mut Pass) -> Tensor<3> {
        let [batch, frames, width] = x.dims();
        let y = self.forward(x.reshape([batch * frames, width]), pass);
        let width = y.dims()[1];
        y.reshape([batch, frames, width]) // [B, T, out]
    }
}

/// Embeds action blocks: a width-1 convolution over time, then linear, SiLU, linear.
#[derive(Clone, Debug)]
pub struct ActionEmbedder {
    smooth_weight: Tensor<3>,
    smooth_bias: Tensor<1>,
    hidden: Linear,
    output: Linear,
}

impl ActionEmbedder {
    /// `{key}.patch_embed`, `{key}.embed.0` and `.2`; sizes `[action, smoothed, hidden, embed]`.
    pub fn new(scope: &mut Scope, key: &str, [action, smoothed, hidden, embed]: [usize; 4]) -> Self {
        let init = Init::fan_in(action);
        Self {
            smooth_weight: scope.param(&format!("{key}.patch_embed.weight"), [smoothed, action, 1], init),
            smooth_bias: scope.param(&format!("{key}.patch_embed.bias"), [smoothed], init),
            hidden: Linear::new(scope, &format!("{key}.embed.0"), smoothed, hidden),
            output: Linear::new(scope, &format!("{key}.embed.2"), hidden, embed),
        }
    }

    /// `[B, T, A]` to `[B, T, E]`.
    #[must_use]
    pub fn forward(&self, actions: Tensor<3>) -> Tensor<3> {
        let [smoothed, action, _] = self.smooth_weight.dims();
        let weight = self.smooth_weight.clone().reshape([smoothed, action]);
        let smooth = ops::linear(actions, &weight, Some(&self.smooth_bias)); // [B, T, smoothed]
        self.output.forward(activation::silu(self.hidden.forward(smooth)))
    }
}

/// Sizes of the parts of a transformer block whose norms belong to the parts: [`SelfAttention`] and [`FeedForward`].
#[derive(Clone, Copy, Debug)]
pub struct BlockSizes {
    /// Width D of tokens.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of one head.
    pub head_width: usize,
    /// Width of the feed-forward part.
    pub mlp: usize,
    /// Dropout probability, in [0, 1).
    pub dropout: f64,
}

/// Epsilon of the norms inside the parts.
const EPS: f64 = 1e-5;

/// Layer norm, queries, keys and values without bias, attention, linear.
#[derive(Clone, Debug)]
pub struct SelfAttention {
    sizes: BlockSizes,
    norm: LayerNorm,
    qkv: Linear,
    output: Linear,
}

impl SelfAttention {
    /// `{key}.norm`, `.to_qkv` and `.to_out.0`.
    pub fn new(scope: &mut Scope, key: &str, sizes: BlockSizes) -> Self {
        let (width, inner) = (sizes.width, sizes.heads * sizes.head_width);
        Self {
            sizes,
            norm: LayerNorm::new(scope, &format!("{key}.norm"), width, EPS),
            qkv: Linear::without_bias(scope, &format!("{key}.to_qkv"), width, 3 * inner),
            output: Linear::new(scope, &format!("{key}.to_out.0"), inner, width),
        }
    }

    /// `[B, T, D]` to the same; dropout on the probabilities and the output.
    pub fn forward(&self, x: Tensor<3>, mask: Mask, pass: &mut Pass) -> Tensor<3> {
        let BlockSizes { heads, dropout, .. } = self.sizes;
        let qkv = self.qkv.forward(self.norm.forward(x)); // [B, T, 3 inner]
        let mixed = if pass.is_train() && dropout > 0.0 {
            ops::plain::self_attention(qkv, heads, mask, |p| pass.dropout(p, dropout))
        } else {
            ops::self_attention(qkv, heads, mask)
        };
        let out = self.output.forward(mixed);
        pass.dropout(out, dropout)
    }
}

/// Layer norm, linear, GELU, linear.
#[derive(Clone, Debug)]
pub struct FeedForward {
    dropout: f64,
    norm: LayerNorm,
    expand: Linear,
    contract: Linear,
}

impl FeedForward {
    /// `{key}.net.0`, `.1` and `.4`.
    pub fn new(scope: &mut Scope, key: &str, sizes: BlockSizes) -> Self {
        let BlockSizes { width, mlp, dropout, .. } = sizes;
        Self {
            dropout,
            norm: LayerNorm::new(scope, &format!("{key}.net.0"), width, EPS),
            expand: Linear::new(scope, &format!("{key}.net.1"), width, mlp),
            contract: Linear::new(scope, &format!("{key}.net.4"), mlp, width),
        }
    }

    /// `[B, T, D]` to the same; dropout after both layers.
    pub fn forward(&self, x: Tensor<3>, pass: &mut Pass) -> Tensor<3> {
        let hidden = self.expand.forward_gelu(self.norm.forward(x)); // [B, T, mlp]
        let hidden = pass.dropout(hidden, self.dropout);
        let out = self.contract.forward(hidden);
        pass.dropout(out, self.dropout)
    }
}
