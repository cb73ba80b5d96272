//! The goal-conditioned token transformer of `nn::goal_predictor` on packed weights, for the newest frame of one context.

use worldbench_kernels::attention::{Attention, Mask};
use worldbench_kernels::gemm::Activation;
use worldbench_nn::goal_predictor::{GoalPredictorConfig, Pooling};

use crate::goal::GoalSizes;
use crate::planning::Error;
use crate::planning::weights::{Dense, Norm, Reader};

const EPS: f32 = 1e-5;

#[derive(Debug)]
enum Role {
    /// Block-causal self-attention.
    Frames,
    /// Cross-attention to the normalised goal tokens.
    Goal(Norm),
    /// One learned query per frame, `[frames, D]`, against the tokens up to that frame.
    Pool(Vec<f32>),
}

#[derive(Debug)]
struct Layer {
    role: Role,
    norm: Norm,
    queries: Dense,
    keys_values: Dense,
    output: Dense,
    feed_norm: Norm,
    expand: Dense,
    contract: Dense,
}

/// The transformer without a head.
#[derive(Debug)]
struct Trunk {
    heads: usize,
    patches: usize,
    width: usize,
    pooling: Pooling,
    positions: Vec<f32>,
    goal_positions: Vec<f32>,
    layers: Vec<Layer>,
    norm: Norm,
}

impl Layer {
    fn new(
        reader: Reader,
        key: &str,
        (sizes, c): (&GoalSizes, &GoalPredictorConfig),
        role: Role,
    ) -> Result<Self, Error> {
        let (width, inner) = (sizes.width, c.heads * c.head_width);
        let without_bias = |name: &str, outputs: usize| {
            let weight = reader.get(&format!("{key}.0.{name}.weight"), width * outputs)?;
            Ok::<_, Error>(Dense::from_parts(weight, None, width, outputs))
        };
        Ok(Self {
            role,
            norm: Norm::new(reader, &format!("{key}.0.norm"), width, EPS)?,
            queries: without_bias("to_q", inner)?,
            keys_values: without_bias("to_kv", 2 * inner)?,
            output: Dense::new(reader, &format!("{key}.0.to_out.0"), inner, width)?,
            feed_norm: Norm::new(reader, &format!("{key}.1.net.0"), width, EPS)?,
            expand: Dense::new(reader, &format!("{key}.1.net.1"), width, c.mlp)?,
            contract: Dense::new(reader, &format!("{key}.1.net.4"), c.mlp, width)?,
        })
    }

    /// Advances the tokens `x` `[rows, D]`; a pooling layer leaves one row.
    fn forward(&self, trunk: &Trunk, x: &mut Vec<f32>, goal: &[f32]) {
        let (width, rows) = (trunk.width, x.len() / trunk.width);
        let mut normal = vec![0.0; x.len()];
        self.norm.apply(x, &mut normal);
        let queries = match &self.role {
            Role::Pool(queries) => &queries[(rows / trunk.patches - 1) * width..][..width],
            _ => &normal[..],
        };
        let mut normal_goal = Vec::new();
        let context = match &self.role {
            Role::Goal(norm) => {
                normal_goal.resize(goal.len(), 0.0);
                norm.apply(goal, &mut normal_goal);
                &normal_goal[..]
            }
            _ => &normal[..],
        };
        let mask = if matches!(self.role, Role::Frames) { Mask::Causal(trunk.patches) } else { Mask::Full };
        let mixed =
            self.mix(trunk.heads, (queries, queries.len() / width), (context, context.len() / width), mask);
        let count = queries.len() / width;
        let mut attended = vec![0.0; count * width];
        self.output.apply(count, &mixed, &mut attended, Activation::Identity);
        if matches!(self.role, Role::Pool(_)) {
            *x = self.feed(&attended);
        } else {
            x.iter_mut().zip(&attended).for_each(|(x, a)| *x += a);
            let fed = self.feed(x);
            x.iter_mut().zip(&fed).for_each(|(x, f)| *x += f);
        }
    }

    /// What each query mixes of the values that it sees, `[queries, heads * dim]`.
    fn mix(
        &self,
        heads: usize,
        (queries, count): (&[f32], usize),
        (context, keys): (&[f32], usize),
        mask: Mask,
    ) -> Vec<f32> {
        let inner = self.queries.outputs();
        let mut q = vec![0.0; count * inner];
        self.queries.apply(count, queries, &mut q, Activation::Identity);
        let mut kv = vec![0.0; keys * 2 * inner];
        self.keys_values.apply(keys, context, &mut kv, Activation::Identity);
        let dim = inner / heads;
        let scale = 1.0 / (dim as f32).sqrt();
        let mut mixed = vec![0.0; count * inner];
        let attention = Attention { batch: 1, queries: count, keys, heads, dim, scale, mask };
        attention.forward(&q, inner, &kv, &kv[inner..], 2 * inner, &mut mixed, inner);
        mixed
    }

    fn feed(&self, x: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.expand.inputs();
        let mut normal = vec![0.0; x.len()];
        self.feed_norm.apply(x, &mut normal);
        let mut hidden = vec![0.0; rows * self.expand.outputs()];
        self.expand.apply(rows, &normal, &mut hidden, Activation::Gelu);
        let mut out = vec![0.0; x.len()];
        self.contract.apply(rows, &hidden, &mut out, Activation::Identity);
        out
    }
}

impl Trunk {
    fn new(
        reader: Reader,
        key: &str,
        sizes: &GoalSizes,
        c: &GoalPredictorConfig,
        pooling: Pooling,
    ) -> Result<Self, Error> {
        let GoalSizes { frames, patches, width, .. } = *sizes;
        let layer = |i: usize| {
            let key = format!("{key}.transformer.layers.{i}");
            let role = if pooling == Pooling::Attention && i + 1 == c.depth {
                Role::Pool(reader.get(&format!("{key}.0.frame_tokens"), frames * width)?.to_vec())
            } else if i % 2 == 1 {
                Role::Goal(Norm::new(reader, &format!("{key}.0.norm_c"), width, EPS)?)
            } else {
                Role::Frames
            };
            Layer::new(reader, &key, (sizes, c), role)
        };
        Ok(Self {
            heads: c.heads,
            patches,
            width,
            pooling,
            positions: reader.get(&format!("{key}.pos_embedding"), frames * patches * width)?.to_vec(),
            goal_positions: reader.get(&format!("{key}.pos_embedding_goal"), patches * width)?.to_vec(),
            layers: (0..c.depth).map(layer).collect::<Result<_, _>>()?,
            norm: Norm::new(reader, &format!("{key}.transformer.norm"), width, EPS)?,
        })
    }

    /// Tokens `[T * P, D]` and those of the goal `[P, D]`: the newest frame's vector `[D]`.
    fn forward(&self, tokens: &[f32], goal: &[f32]) -> Vec<f32> {
        let add = |x: &[f32], positions: &[f32]| x.iter().zip(positions).map(|(x, p)| x + p).collect();
        let (mut x, goal): (Vec<f32>, Vec<f32>) =
            (add(tokens, &self.positions), add(goal, &self.goal_positions));
        self.layers.iter().for_each(|layer| layer.forward(self, &mut x, &goal));
        let mut newest = x.split_off(x.len().saturating_sub(match self.pooling {
            Pooling::Attention => self.width,
            Pooling::Mean => self.patches * self.width,
        }));
        if self.pooling == Pooling::Mean {
            let mut mean = vec![0.0; self.width];
            for token in newest.chunks_exact(self.width) {
                mean.iter_mut().zip(token).for_each(|(m, t)| *m += t / self.patches as f32);
            }
            newest = mean;
        }
        let mut out = vec![0.0; self.width];
        self.norm.apply(&newest, &mut out);
        out
    }
}

/// A transformer with a linear head: actor (attention pooling) or value (mean pooling).
#[derive(Debug)]
pub(super) struct PackedPredictor {
    trunk: Trunk,
    output: Dense,
}

impl PackedPredictor {
    pub fn new(
        reader: Reader,
        key: &str,
        sizes: &GoalSizes,
        outputs: usize,
        (c, pooling): (&GoalPredictorConfig, Pooling),
    ) -> Result<Self, Error> {
        let output = Dense::new(reader, &format!("{key}.out_proj"), sizes.width, outputs)?;
        Ok(Self { trunk: Trunk::new(reader, key, sizes, c, pooling)?, output })
    }

    /// Tokens `[T * P, D]` and goal tokens `[P, D]` to the newest frame's `[out]`.
    pub fn forward(&self, tokens: &[f32], goal: &[f32]) -> Vec<f32> {
        let features = self.trunk.forward(tokens, goal);
        let mut out = vec![0.0; self.output.outputs()];
        self.output.apply(1, &features, &mut out, Activation::Identity);
        out
    }
}

/// A transformer whose head also reads an action: one Q value.
#[derive(Debug)]
pub(super) struct PackedQ {
    trunk: Trunk,
    head: [Dense; 3],
}

impl PackedQ {
    pub fn new(reader: Reader, key: &str, sizes: &GoalSizes, c: &GoalPredictorConfig) -> Result<Self, Error> {
        let dense =
            |i: usize, inputs, outputs| Dense::new(reader, &format!("{key}.q_head.{i}"), inputs, outputs);
        let hidden = c.q_hidden;
        Ok(Self {
            trunk: Trunk::new(reader, key, sizes, c, Pooling::Mean)?,
            head: [
                dense(0, sizes.width + sizes.action, hidden)?,
                dense(2, hidden, hidden)?,
                dense(4, hidden, 1)?,
            ],
        })
    }

    /// As [`PackedPredictor::forward`] with an action `[A]`; `[1]`.
    pub fn forward(&self, tokens: &[f32], goal: &[f32], action: &[f32]) -> Vec<f32> {
        let features = self.trunk.forward(tokens, goal);
        let activations = [Activation::Relu, Activation::Relu, Activation::Identity];
        self.head.iter().zip(activations).fold([&features, action].concat(), |x, (layer, activation)| {
            let mut y = vec![0.0; layer.outputs()];
            layer.apply(1, &x, &mut y, activation);
            y
        })
    }
}
