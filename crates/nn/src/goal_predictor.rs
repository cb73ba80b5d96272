//! Goal-conditioned token transformers of stable-worldmodel: actor and value, Q, and metric value.
//!
//! Even layers are block-causal self-attention over the tokens of successive frames, odd ones cross-attention to the
//! goal's tokens (which no layer changes). A frame's tokens become one vector either by their mean behind the last layer or
//! by the last layer itself, an attention of one learned query per frame. Shorter contexts use the first slots. Pre-norm,
//! no bias on queries, keys and values. The reference's attention masks (`causal_mask`) are known and not stored; its
//! dropout is 0 in all published configurations and is left out.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

use crate::blocks::{BlockSizes, FeedForward, Linear};
use crate::norm::LayerNorm;
use crate::ops::{self, Mask};
use crate::{Init, Pass, Scope};

/// Sizes of the transformer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GoalPredictorConfig {
    /// Number of layers.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of one head.
    pub head_width: usize,
    /// Width of the feed-forward part.
    pub mlp: usize,
    /// Hidden width of the Q head.
    pub q_hidden: usize,
}

impl Default for GoalPredictorConfig {
    /// The published size.
    fn default() -> Self {
        Self { depth: 6, heads: 16, head_width: 64, mlp: 2048, q_hidden: 256 }
    }
}

/// Sizes of the tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenSizes {
    /// Longest context in frames.
    pub frames: usize,
    /// Tokens per frame P.
    pub patches: usize,
    /// Width D of tokens.
    pub width: usize,
}

/// How a frame's tokens become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The last layer attends from one learned query per frame to the tokens of that frame and of earlier ones.
    Attention,
    /// Mean of the tokens of the frame.
    Mean,
}

const EPS: f64 = 1e-5;
/// Standard deviation of learned queries at the start.
const QUERY_STD: f32 = 0.02;

#[derive(Clone, Debug)]
enum Role {
    Frames,
    Goal(Box<LayerNorm>),
    Pool(Box<Tensor<3>>),
}

/// Attention with separate projections for queries and for keys with values.
#[derive(Clone, Debug)]
struct Attention {
    heads: usize,
    norm: LayerNorm,
    queries: Linear,
    keys_values: Linear,
    output: Linear,
    role: Role,
}

impl Attention {
    fn new(scope: &mut Scope, key: &str, sizes: BlockSizes, role: impl FnOnce(&mut Scope) -> Role) -> Self {
        let (width, inner) = (sizes.width, sizes.heads * sizes.head_width);
        Self {
            heads: sizes.heads,
            norm: LayerNorm::new(scope, &format!("{key}.norm"), width, EPS),
            role: role(scope),
            queries: Linear::without_bias(scope, &format!("{key}.to_q"), width, inner),
            keys_values: Linear::without_bias(scope, &format!("{key}.to_kv"), width, 2 * inner),
            output: Linear::new(scope, &format!("{key}.to_out.0"), inner, width),
        }
    }

    /// Keys and values of `context` `[B, T, D]`, `[B, T, inner]` each.
    fn keys_values(&self, context: Tensor<3>) -> [Tensor<3>; 2] {
        let both = self.keys_values.forward(context);
        let inner = both.dims()[2] / 2;
        [0, 1].map(|part| both.clone().narrow(2, part * inner, inner))
    }

    /// Tokens `[B, T P, D]` to the same with the residual; `[B, T, D]` without one when this layer pools.
    fn forward(&self, x: Tensor<3>, goal: Option<&Tensor<3>>, patches: usize) -> Tensor<3> {
        let normal = self.norm.forward(x.clone());
        let (context, mask) = match (&self.role, goal) {
            (Role::Pool(queries), _) => return self.pool(queries, normal, patches),
            (Role::Goal(norm), Some(goal)) => (norm.forward(goal.clone()), Mask::Full),
            _ => (normal.clone(), Mask::Causal(patches)),
        };
        let [keys, values] = self.keys_values(context);
        let mixed = ops::attention(self.queries.forward(normal), keys, values, self.heads, mask);
        self.output.forward(mixed) + x
    }

    /// One query per frame against the tokens `[B, T P, D]` up to the end of that frame, `[B, T, D]`.
    fn pool(&self, queries: &Tensor<3>, tokens: Tensor<3>, patches: usize) -> Tensor<3> {
        let [batch, rows, _] = tokens.dims();
        let frames = rows / patches;
        let [keys, values] = self.keys_values(tokens);
        let queries = self.queries.forward(queries.clone().narrow(1, 0, frames)); // [1, T, inner]
        let inner = queries.dims()[2];
        let queries = queries.expand([batch, frames, inner]);
        let attend = |t: usize| {
            let seen = |x: &Tensor<3>| x.clone().narrow(1, 0, (t + 1) * patches);
            let query = queries.clone().narrow(1, t, 1);
            ops::attention(query, seen(&keys), seen(&values), self.heads, Mask::Full)
        };
        self.output.forward(Tensor::cat((0..frames).map(attend).collect(), 1))
    }
}

/// The transformer without a head.
#[derive(Clone, Debug)]
struct Trunk {
    pooling: Pooling,
    positions: Tensor<3>,
    goal_positions: Tensor<3>,
    layers: Vec<(Attention, FeedForward)>,
    norm: LayerNorm,
}

impl Trunk {
    /// `{key}.pos_embedding`, `.pos_embedding_goal`, `.transformer.*`; without goal all layers are self-attention.
    fn new(
        scope: &mut Scope,
        key: &str,
        sizes: TokenSizes,
        config: GoalPredictorConfig,
        pooling: Pooling,
        goal: bool,
    ) -> Self {
        let TokenSizes { frames, patches, width } = sizes;
        let GoalPredictorConfig { depth, heads, head_width, mlp, .. } = config;
        let blocks = BlockSizes { width, heads, head_width, mlp, dropout: 0.0 };
        let layer = |scope: &mut Scope, i: usize| {
            let key = format!("{key}.transformer.layers.{i}");
            let role = |scope: &mut Scope| {
                if pooling == Pooling::Attention && i + 1 == depth {
                    let init = Init::Normal(QUERY_STD);
                    let queries = scope.param(&format!("{key}.0.frame_tokens"), [1, frames, width], init);
                    Role::Pool(Box::new(queries))
                } else if goal && i % 2 == 1 {
                    Role::Goal(Box::new(LayerNorm::new(scope, &format!("{key}.0.norm_c"), width, EPS)))
                } else {
                    Role::Frames
                }
            };
            let attention = Attention::new(scope, &format!("{key}.0"), blocks, role);
            (attention, FeedForward::new(scope, &format!("{key}.1"), blocks))
        };
        let positions = [1, frames * patches, width];
        let goal_positions = [1, patches, width];
        Self {
            pooling,
            positions: scope.param(&format!("{key}.pos_embedding"), positions, Init::Normal(1.0)),
            goal_positions: scope.param(
                &format!("{key}.pos_embedding_goal"),
                goal_positions,
                Init::Normal(1.0),
            ),
            layers: (0..depth).map(|i| layer(scope, i)).collect(),
            norm: LayerNorm::new(scope, &format!("{key}.transformer.norm"), width, EPS),
        }
    }

    /// Tokens `[B, T, P, D]` with those of the goal `[B, P, D]`: one vector per frame, `[B, T, D]`.
    fn forward(&self, tokens: Tensor<4>, goal: Option<Tensor<3>>) -> Tensor<3> {
        let [batch, frames, patches, width] = tokens.dims();
        let rows = frames * patches;
        let goal = goal.map(|goal| goal + self.goal_positions.clone());
        let mut x = tokens.reshape([batch, rows, width]) + self.positions.clone().narrow(1, 0, rows);
        let mut pass = Pass::eval();
        for (attention, feed) in &self.layers {
            x = attention.forward(x, goal.as_ref(), patches);
            let fed = feed.forward(x.clone(), &mut pass);
            x = if matches!(attention.role, Role::Pool(_)) { fed } else { fed + x };
        }
        if self.pooling == Pooling::Mean {
            x = x.reshape([batch, frames, patches, width]).mean_dim(2).reshape([batch, frames, width]);
        }
        self.norm.forward(x)
    }
}

/// A transformer with a linear head: actor (attention pooling) or value (mean pooling).
#[derive(Clone, Debug)]
pub struct GoalPredictor {
    trunk: Trunk,
    output: Linear,
}

impl GoalPredictor {
    /// All keys under `{key}.`; the head is `{key}.out_proj`.
    pub fn new(
        scope: &mut Scope,
        key: &str,
        sizes: TokenSizes,
        outputs: usize,
        pooling: Pooling,
        config: GoalPredictorConfig,
    ) -> Self {
        let trunk = Trunk::new(scope, key, sizes, config, pooling, true);
        Self { trunk, output: Linear::new(scope, &format!("{key}.out_proj"), sizes.width, outputs) }
    }

    /// Tokens `[B, T, P, D]`, T at most the longest context, and goal tokens `[B, P, D]` to `[B, T, out]`.
    #[must_use]
    pub fn forward(&self, tokens: Tensor<4>, goal: Tensor<3>) -> Tensor<3> {
        self.output.forward(self.trunk.forward(tokens, Some(goal)))
    }
}

/// A transformer whose head also reads an action: one Q value.
#[derive(Clone, Debug)]
pub struct QPredictor {
    trunk: Trunk,
    head: [Linear; 3],
}

impl QPredictor {
    /// All keys under `{key}.`; the head is `{key}.q_head.{0,2,4}`, for `action` numbers.
    pub fn new(
        scope: &mut Scope,
        key: &str,
        sizes: TokenSizes,
        action: usize,
        config: GoalPredictorConfig,
    ) -> Self {
        let trunk = Trunk::new(scope, key, sizes, config, Pooling::Mean, true);
        let hidden = config.q_hidden;
        let widths = [(0, sizes.width + action, hidden), (2, hidden, hidden), (4, hidden, 1)];
        let head = widths.map(|(i, a, b)| Linear::new(scope, &format!("{key}.q_head.{i}"), a, b));
        Self { trunk, head }
    }

    /// As [`GoalPredictor::forward`] with actions `[B, T, A]`; `[B, T, 1]`.
    #[must_use]
    pub fn forward(&self, tokens: Tensor<4>, goal: Tensor<3>, actions: Tensor<3>) -> Tensor<3> {
        let features = self.trunk.forward(tokens, Some(goal));
        let [first, second, last] = &self.head;
        let x = activation::relu(first.forward(Tensor::cat(vec![features, actions], 2))); // [B, T, hidden]
        last.forward(activation::relu(second.forward(x)))
    }
}

/// An embedding of frames whose negative distance to the goal's is the value (HILP, Park et al. 2024).
#[derive(Clone, Debug)]
pub struct MetricPredictor {
    trunk: Trunk,
    embedding: Linear,
}

impl MetricPredictor {
    /// All keys under `{key}.`; the head is `{key}.embed_proj`. `{key}.pos_embedding_goal` is stored like the reference
    /// does, and used like there: never.
    pub fn new(
        scope: &mut Scope,
        key: &str,
        sizes: TokenSizes,
        embedding: usize,
        config: GoalPredictorConfig,
    ) -> Self {
        let trunk = Trunk::new(scope, key, sizes, config, Pooling::Attention, false);
        Self { trunk, embedding: Linear::new(scope, &format!("{key}.embed_proj"), sizes.width, embedding) }
    }

    /// Tokens `[B, T, P, D]` to embeddings `[B, T, E]`.
    #[must_use]
    pub fn embed(&self, tokens: Tensor<4>) -> Tensor<3> {
        self.embedding.forward(self.trunk.forward(tokens, None))
    }

    /// As [`GoalPredictor::forward`]; values `[B, T, 1]`, at most -0.001.
    #[must_use]
    pub fn forward(&self, tokens: Tensor<4>, goal: Tensor<3>) -> Tensor<3> {
        metric_value(self.embed(tokens), self.embed(goal.unsqueeze_dim(1)))
    }
}

/// The value of embeddings `[B, T, E]` for those of the goal `[B, 1, E]`: their negative distance, at most -0.001;
/// `[B, T, 1]`.
#[must_use]
pub fn metric_value(frames: Tensor<3>, goal: Tensor<3>) -> Tensor<3> {
    let difference = frames - goal;
    let squares = (difference.clone() * difference).sum_dim(2);
    -squares.clamp_min(1e-6).sqrt()
}
