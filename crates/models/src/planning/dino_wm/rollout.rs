//! Open-loop rollouts of candidate plans in the space of patch tokens.

use worldbench_kernels::attention::KeyValues;
use worldbench_kernels::{Buffer, par_rows_mut};
use worldbench_plan::{Objective, Part, Shape};

use super::super::rollout::parts;
use super::super::{Error, check_len};
use super::predictor::{Past, PredictorScratch, Window};
use super::{DinoWmPlanner, known};
use worldbench_kernels::gemm::Activation;

/// Buffers of one thread.
#[derive(Clone, Debug, Default)]
pub(super) struct Workspace {
    pub predictor: PredictorScratch,
    /// Tokens `[n + H, S, P, D]`.
    path: Buffer,
    blocks: Buffer,
    /// Embedded actions `[S, H, E]`.
    actions: Buffer,
    latent: Buffer,
}

impl Workspace {
    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        let own = [&self.path, &self.blocks, &self.actions, &self.latent];
        own.iter().map(|b| b.len()).sum::<usize>() * size_of::<f32>() + self.predictor.bytes()
    }
}

/// What all candidates of a problem start from, made by [`DinoWmPlanner::start`].
#[derive(Clone, Debug)]
pub struct DinoWmStart {
    /// Tokens of the context frames `[n, P, D]`; the action channels of the newest are left open.
    tokens: Vec<f32>,
    frames: usize,
    /// For windows that begin with context frame i: keys and values of frames `i..n - 1`, per layer.
    shared: Vec<Vec<KeyValues>>,
}

impl DinoWmStart {
    /// Number of context frames n.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.frames
    }
}

/// The tokens of one sample's frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path<'a> {
    tokens: &'a [f32],
    count: usize,
    sample: usize,
    /// Values of a frame.
    size: usize,
}

impl<'a> Path<'a> {
    /// Tokens `[P, D]` of frame `t`.
    pub fn frame(&self, t: usize) -> &'a [f32] {
        &self.tokens[(t * self.count + self.sample) * self.size..][..self.size]
    }
}

impl DinoWmPlanner {
    /// Prepares a context: `features` `[n, P, F]` of the frozen encoder, `proprio` `[n, 4]` normalised (not looked at by
    /// a model without), oldest first, and the normalised blocks `history` `[n - 1, A]` between them; n from 1 to the
    /// predictor's frames. What candidates share is computed here, once.
    ///
    /// # Errors
    /// A slice does not have the length of its shape, or the context is too long.
    pub fn start(&self, features: &[f32], proprio: &[f32], history: &[f32]) -> Result<DinoWmStart, Error> {
        let (c, p) = (&self.config, &self.config.predictor);
        let frames = features.len() / (p.patches * c.features);
        if frames == 0 || frames > p.frames {
            let expected = format!("{} x {} for each of 1 to {} frames", p.patches, c.features, p.frames);
            return Err(Error::Length { what: "context features", got: features.len(), expected });
        }
        let states = self.states(features, proprio)?;
        check_len(
            "action history",
            history.len(),
            (frames - 1) * c.action,
            "a block between context frames",
        )?;
        let (width, size) = (c.width(), p.patches * c.width());
        let mut tokens = vec![0.0; frames * size];
        for (to, from) in tokens.chunks_exact_mut(width).zip(states.chunks_exact(c.state_width())) {
            to[..from.len()].copy_from_slice(from);
        }
        let shared = self.pool.with(|w| {
            let actions = w.actions.reserve((frames - 1) * c.action_width);
            self.action.apply(frames - 1, &known(history), actions, Activation::Identity);
            for (tokens, action) in tokens.chunks_exact_mut(size).zip(actions.chunks_exact(c.action_width)) {
                self.write_action(tokens, action);
            }
            let share = |first| {
                let tokens = &tokens[first * size..(frames - 1) * size];
                self.predictor.share(frames - 1 - first, tokens, &mut w.predictor)
            };
            (0..frames - 1).map(share).collect()
        });
        Ok(DinoWmStart { tokens, frames, shared })
    }

    /// Tokens `[S, n + H, P, D]` of context and prediction for `candidates` `[S, H, A]`, samples split among threads.
    /// The action channels of the last frame are the predictor's own.
    ///
    /// # Errors
    /// The candidates are no whole plans of the model's blocks.
    pub fn rollout(&self, start: &DinoWmStart, shape: Shape, candidates: &[f32]) -> Result<Vec<f32>, Error> {
        let size = self.config.predictor.patches * self.config.width();
        let stride = (start.frames + shape.horizon) * size;
        let mut out = vec![0.0; candidates.len() / shape.len().max(1) * stride];
        self.for_each_path(start, shape, candidates, &mut out, stride, |path, _, out| {
            for (t, out) in out.chunks_exact_mut(size).enumerate() {
                out.copy_from_slice(path.frame(t));
            }
        })?;
        Ok(out)
    }

    /// Latents `[S, H, L]` of the predicted frames.
    ///
    /// # Errors
    /// The candidates are no whole plans of the model's blocks.
    pub fn predicted_latents(
        &self,
        start: &DinoWmStart,
        shape: Shape,
        candidates: &[f32],
    ) -> Result<Vec<f32>, Error> {
        let size = self.latent_width();
        let stride = shape.horizon * size;
        let mut out = vec![0.0; candidates.len() / shape.len().max(1) * stride];
        self.for_each_path(start, shape, candidates, &mut out, stride, |path, _, out| {
            for (t, out) in out.chunks_exact_mut(size).enumerate() {
                self.write_latent(path.frame(start.frames + t), out);
            }
        })?;
        Ok(out)
    }

    /// Costs `[S]` of `candidates` `[S, H, A]` against a goal latent `[L]` of [`Self::latents`].
    ///
    /// # Errors
    /// The candidates are no whole plans of the model's blocks, or the goal has another length.
    pub fn costs(
        &self,
        start: &DinoWmStart,
        goal: &[f32],
        objective: Objective,
        shape: Shape,
        candidates: &[f32],
        costs: &mut [f32],
    ) -> Result<(), Error> {
        check_len("goal latent", goal.len(), self.latent_width(), "features and proprioception")?;
        let parts: Vec<Part> = self.parts();
        self.for_each_path(start, shape, candidates, costs, 1, |path, latent, cost| {
            let latent = latent.reserve(goal.len());
            cost[0] = 0.0;
            for t in (0..shape.horizon).filter(|&t| objective.counts(t, shape.horizon)) {
                self.write_latent(path.frame(start.frames + t), latent);
                cost[0] += objective.step_cost(latent, goal, &parts);
            }
        })?;
        objective.add_control(shape, candidates, costs);
        Ok(())
    }

    /// Runs every candidate and hands `each` its path, a buffer for latents and its `stride` values of `out`.
    pub(super) fn for_each_path(
        &self,
        start: &DinoWmStart,
        shape: Shape,
        candidates: &[f32],
        out: &mut [f32],
        stride: usize,
        each: impl Fn(Path, &mut Buffer, &mut [f32]) + Sync,
    ) -> Result<(), Error> {
        let samples = out.len() / stride.max(1);
        check_len("action block", shape.dim, self.config.action, "the model's")?;
        check_len("candidates", candidates.len(), samples * shape.len(), "samples x blocks x numbers")?;
        let size = self.config.predictor.patches * self.config.width();
        par_rows_mut(out, samples, stride, |rows, out| {
            self.pool.with(|workspace| {
                for part in parts(rows.len(), self.chunk) {
                    let plans = rows.start + part.start..rows.start + part.end;
                    let count = plans.len();
                    let plans = &candidates[plans.start * shape.len()..plans.end * shape.len()];
                    self.run(start, shape, count, plans, workspace);
                    let Workspace { path, latent, .. } = workspace;
                    for (sample, row) in part.enumerate() {
                        let path = Path { tokens: path, count, sample, size };
                        each(path, latent, &mut out[row * stride..][..stride]);
                    }
                }
            });
        });
        Ok(())
    }

    /// Takes `count` samples through their plans.
    fn run(&self, start: &DinoWmStart, shape: Shape, count: usize, plans: &[f32], s: &mut Workspace) {
        let (c, p) = (&self.config, &self.config.predictor);
        let (size, n) = (p.patches * c.width(), start.frames);
        let block = count * size;
        let path = s.path.reserve((n + shape.horizon) * block);
        for (to, from) in path.chunks_exact_mut(block).zip(start.tokens.chunks_exact(size)) {
            to.chunks_exact_mut(size).for_each(|to| to.copy_from_slice(from));
        }
        let actions = s.actions.reserve(count * shape.horizon * c.action_width);
        let blocks = s.blocks.reserve(plans.len());
        blocks.iter_mut().zip(plans).for_each(|(b, &a)| *b = if a.is_nan() { 0.0 } else { a });
        self.action.apply(count * shape.horizon, blocks, actions, Activation::Identity);
        for end in n..n + shape.horizon {
            let (past, next) = path.split_at_mut(end * block);
            let newest = past[(end - 1) * block..].chunks_exact_mut(size);
            for (sample, tokens) in newest.enumerate() {
                let at = (sample * shape.horizon + end - n) * c.action_width;
                self.write_action(tokens, &actions[at..][..c.action_width]);
            }
            let window = self.window(start, shape, count, end);
            let first = end - window.len + window.fresh;
            self.predictor.forward(window, &past[first * block..], &mut s.predictor, &mut next[..block]);
        }
    }

    /// The window before frame `end`.
    fn window<'a>(&self, start: &'a DinoWmStart, shape: Shape, count: usize, end: usize) -> Window<'a> {
        let (frames, n) = (self.config.predictor.frames, start.frames);
        let len = end.min(frames);
        let first = end - len;
        // Once the window slides, frames change their place and with it their position embeddings.
        let grows = end < frames && end + 1 < n + shape.horizon;
        let (fresh, past) = match start.shared.get(first) {
            _ if first == 0 && end > n => (len - 1, Past::Own),
            Some(shared) => (n - 1 - first, Past::Shared(shared)),
            None => (0, Past::None),
        };
        Window { count, fresh, len, past, keep: grows }
    }

    /// Puts an embedded action into the action channels of a frame `[P, D]`.
    fn write_action(&self, tokens: &mut [f32], action: &[f32]) {
        for token in tokens.chunks_exact_mut(self.config.width()) {
            token[self.config.state_width()..].copy_from_slice(action);
        }
    }
}
