//! Planning with a compact model: prepacked weights, reproducible kernels, one allocation per solve.
//!
//! Every product sums over its inner dimension in one fixed order (see `worldbench_kernels`), so a plan does not
//! depend on how many candidates share a call, on threads or on vector width.

use worldbench_kernels::gemm::Activation;
use worldbench_kernels::ops;
use worldbench_plan::objective::{Objective, Part};
use worldbench_plan::{Context, Cost, CostError, Shape, WorldModel};

use super::frozen::{CompactEncoder, Dense};
use super::params::Linear;
use super::whiten::Whitener;
use super::{CompactConfig, CompactNet, PROPRIO};

struct BlockWeights {
    film: Dense,
    up: Dense,
    down: Dense,
}

/// Statistics that turn raw inputs into what the networks see.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalisation {
    /// Action blocks.
    pub actions: Whitener,
    /// Mean of agent position and velocity.
    pub proprio_mean: [f64; PROPRIO],
    /// Standard deviation of agent position and velocity.
    pub proprio_std: [f64; PROPRIO],
}

impl Normalisation {
    /// Normalised proprioception.
    #[must_use]
    pub fn proprio(&self, raw: &[f64; PROPRIO]) -> [f32; PROPRIO] {
        std::array::from_fn(|i| ((raw[i] - self.proprio_mean[i]) / self.proprio_std[i]) as f32)
    }
}

/// A compact model made ready for planning.
pub struct CompactModel {
    net: CompactNet,
    normalisation: Normalisation,
    encoder: CompactEncoder,
    action: Dense,
    input: Dense,
    blocks: Vec<BlockWeights>,
    output: Dense,
    /// Weight of the normalised agent position in the cost, beside the embedding's weight of 1.
    position_weight: f32,
}

impl CompactModel {
    /// Packs the weights of `net`. `running` holds the BatchNorm mean and variance, [2 * normed].
    #[must_use]
    pub fn new(net: CompactNet, params: &[f32], running: &[f32], normalisation: Normalisation) -> Self {
        let dense = |layer: &Linear| Dense::new(params, layer);
        let blocks = net.predictor.blocks.iter();
        let blocks =
            blocks.map(|b| BlockWeights { film: dense(&b.film), up: dense(&b.up), down: dense(&b.down) });
        Self {
            encoder: CompactEncoder::new(net.encoder.clone(), params, running),
            action: dense(&net.predictor.action),
            input: dense(&net.predictor.input),
            blocks: blocks.collect(),
            output: dense(&net.predictor.output),
            position_weight: net.config.position_weight,
            net,
            normalisation,
        }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &CompactConfig {
        &self.net.config
    }

    /// The statistics of the training data.
    #[must_use]
    pub fn normalisation(&self) -> &Normalisation {
        &self.normalisation
    }

    /// Embeddings [N, D] of frames, each [R, R, 3] bytes.
    #[must_use]
    pub fn encode(&self, frames: &[&[u8]]) -> Vec<f32> {
        self.encoder.embed(frames)
    }

    /// State [S]: the embedding, and proprioception when the model uses it.
    #[must_use]
    pub fn state(&self, frame: &[u8], proprio: &[f64; PROPRIO]) -> Vec<f32> {
        let mut state = self.encode(&[frame]);
        if self.net.config.proprio {
            state.extend(self.normalisation.proprio(proprio));
        }
        state
    }

    /// Whitens raw action blocks [n, K * 2] in place.
    pub fn whiten(&self, actions: &mut [f32]) {
        actions
            .chunks_exact_mut(self.net.config.block_dim())
            .for_each(|b| self.normalisation.actions.forward(b));
    }

    /// Advances `rows` states [rows, S] by one block, given predictor inputs [rows, A].
    pub fn predict(&self, state: &mut [f32], inputs: &[f32], scratch: &mut Scratch) {
        let width = self.input.weight.n();
        let s = scratch;
        self.action.apply(inputs, &mut s.embedding, Activation::Gelu);
        self.input.apply(state, &mut s.stream, Activation::Identity);
        s.norm.resize(s.stream.len(), 0.0);
        for block in &self.blocks {
            block.film.apply(&s.embedding, &mut s.film, Activation::Identity); // [rows, 2W]
            let (scale, shift) = (&s.film[..], &s.film[width..]);
            ops::layer_norm_modulated(&s.stream, width, 1e-5, shift, scale, 2 * width, 1, &mut s.norm);
            block.up.apply(&s.norm, &mut s.hidden, Activation::Gelu);
            block.down.add(&s.hidden, &mut s.stream);
        }
        ops::layer_norm(&s.stream, width, 1e-5, None, &mut s.norm);
        self.output.add(&s.norm, state);
    }

    /// Predictor input of one row: the block, and when configured the previous block with a flag.
    pub fn action_input(&self, block: &[f32], previous: Option<&[f32]>, out: &mut Vec<f32>) {
        out.extend_from_slice(block);
        if self.net.config.previous_action {
            match previous {
                Some(previous) => out.extend(previous.iter().copied().chain([1.0])),
                None => out.extend(std::iter::repeat_n(0.0, block.len() + 1)),
            }
        }
    }

    /// What the goal cost compares: the embedding, and the agent's position when proprioception is used.
    #[must_use]
    pub fn cost_parts(&self) -> Vec<Part> {
        let latent = self.net.config.encoder.latent;
        let mut parts = vec![Part::whole(latent)];
        if self.net.config.proprio && self.position_weight > 0.0 {
            parts.push(Part { start: latent, len: 2, weight: self.position_weight });
        }
        parts
    }
}

/// Buffers of [`CompactModel::predict`], reused from call to call.
#[derive(Default)]
pub struct Scratch {
    embedding: Vec<f32>,
    stream: Vec<f32>,
    norm: Vec<f32>,
    film: Vec<f32>,
    hidden: Vec<f32>,
}

struct Problem<'a> {
    model: &'a CompactModel,
    start: Vec<f32>,
    goal: Vec<f32>,
    previous: Option<Vec<f32>>,
    parts: Vec<Part>,
    objective: Objective,
    scratch: Scratch,
}

impl Cost for Problem<'_> {
    fn evaluate(&mut self, shape: Shape, candidates: &[f32], costs: &mut [f32]) -> Result<(), CostError> {
        costs.fill(0.0);
        let (objective, goal, parts) = (self.objective, &self.goal, &self.parts);
        let start = (&self.start[..], self.previous.as_deref());
        self.model.unroll(start, shape, candidates, &mut self.scratch, |h, states| {
            if objective.counts(h, shape.horizon) {
                for (cost, state) in costs.iter_mut().zip(states.chunks_exact(goal.len())) {
                    *cost += objective.step_cost(state, goal, parts);
                }
            }
        })?;
        objective.add_control(shape, candidates, costs);
        Ok(())
    }
}

impl CompactModel {
    /// Runs `candidates` `[S, H, D]` from a state and the block before it, and shows the states `[S, W]` after
    /// each step.
    pub(super) fn unroll(
        &self,
        (start, previous): (&[f32], Option<&[f32]>),
        shape: Shape,
        candidates: &[f32],
        scratch: &mut Scratch,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), CostError> {
        let block = self.net.config.block_dim();
        if shape.dim != block {
            return Err(
                format!("the model's action blocks have {block} values, the plan's {}", shape.dim).into()
            );
        }
        let mut states = start.repeat(candidates.len() / shape.len().max(1)); // [S, W]
        let mut inputs = Vec::new();
        for h in 0..shape.horizon {
            inputs.clear();
            for plan in candidates.chunks_exact(shape.len()) {
                let at = |h: usize| &plan[h * block..(h + 1) * block];
                let previous = if h == 0 { previous } else { Some(at(h - 1)) };
                self.action_input(at(h), previous, &mut inputs);
            }
            self.predict(&mut states, &inputs, scratch);
            each(h, &states);
        }
        Ok(())
    }

    /// State `[W]` and, where there is one, the normalised block before it, that a plan starts from.
    pub(super) fn begin(&self, context: &Context) -> Result<(Vec<f32>, Option<Vec<f32>>), CostError> {
        let (Some(frame), Some(proprio)) = (context.frames.last(), context.proprio.last()) else {
            return Err("a plan needs at least one context frame".into());
        };
        self.check_frame(frame)?;
        let block = self.net.config.block_dim();
        let previous = context.actions.len().checked_sub(block).map(|at| {
            let mut previous = context.actions[at..].to_vec();
            self.whiten(&mut previous);
            previous
        });
        Ok((self.state(frame, proprio), previous))
    }

    pub(super) fn check_frame(&self, frame: &[u8]) -> Result<(), CostError> {
        let bytes = self.net.encoder.frame_bytes();
        if frame.len() == bytes {
            return Ok(());
        }
        Err(format!("frames must have {bytes} bytes, not {}", frame.len()).into())
    }
}

impl WorldModel for CompactModel {
    fn resolution(&self) -> usize {
        self.net.config.encoder.resolution
    }

    fn area_filter(&self) -> bool {
        true
    }

    fn action_block(&self) -> usize {
        self.net.config.action_block
    }

    fn max_history(&self) -> usize {
        if self.net.config.previous_action { 2 } else { 1 }
    }

    fn problem<'a>(
        &'a self,
        context: &Context,
        objective: Objective,
    ) -> Result<Box<dyn Cost + 'a>, CostError> {
        let (start, previous) = self.begin(context)?;
        self.check_frame(context.goal_frame)?;
        Ok(Box::new(Problem {
            model: self,
            start,
            goal: self.state(context.goal_frame, &context.goal_proprio),
            previous,
            parts: self.cost_parts(),
            objective,
            scratch: Scratch::default(),
        }))
    }

    fn decode_block(&self, block: &[f32], actions: &mut [f32]) {
        self.normalisation.actions.inverse(block, actions);
    }
}
