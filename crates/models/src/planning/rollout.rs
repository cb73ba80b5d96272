//! Open-loop rollouts of candidate plans, and what they cost in arithmetic.

use std::ops::Range;

use worldbench_kernels::{Buffer, par_rows_mut};
use worldbench_plan::Shape;

use super::actions::ActionScratch;
use super::encoder::EncoderScratch;
use super::predictor::{PredictorScratch, Window};
use super::{Error, JepaPlanner, check_len};
use crate::jepa::JepaConfig;

/// Samples that a thread takes through a rollout at once: enough to read the weights rarely (43 MB at full size
/// per window), few enough for the activations to stay near the core. On a busy 2-core machine 75 was 8 % slower, 28 a fourth.
pub(super) const CHUNK: usize = 150;

/// Buffers of one thread.
#[derive(Clone, Debug, Default)]
pub(super) struct Workspace {
    pub encoder: EncoderScratch,
    pub actions: ActionScratch,
    predictor: PredictorScratch,
    /// Hidden activations of a projector.
    pub hidden: Buffer,
    blocks: Buffer,
    conditions: Buffer,
    newest: Buffer,
    /// Latents `[n + H, S, D]`.
    path: Buffer,
}

impl Workspace {
    pub fn len(&self) -> usize {
        let own = [&self.hidden, &self.blocks, &self.conditions, &self.newest, &self.path];
        let own: usize = own.iter().map(|b| b.len()).sum();
        own + self.encoder.len() + self.actions.len() + self.predictor.len()
    }
}

/// What all candidates of a problem start from.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// Latents of the context frames, oldest first, `[n, D]`, n from 1 to the predictor's frames.
    pub context: &'a [f32],
    /// Normalised action blocks between them, `[n - 1, A]`.
    pub history: &'a [f32],
}

impl JepaPlanner {
    /// Context and predicted latents `[S, n + H, D]` of `candidates` `[S, H, A]`, samples split among threads.
    ///
    /// # Errors
    /// A slice does not have the length of its shape, or the context is too long.
    pub fn rollout(&self, start: Start, shape: Shape, candidates: &[f32]) -> Result<Vec<f32>, Error> {
        let samples = candidates.len() / shape.len().max(1);
        let width = self.width();
        let steps = start.context.len() / width + shape.horizon;
        let mut out = vec![0.0; samples * steps * width];
        self.for_each_path(start, shape, candidates, &mut out, steps * width, |_, path, out| {
            for (to, from) in out.chunks_exact_mut(width).zip(path) {
                to.copy_from_slice(from);
            }
        })?;
        Ok(out)
    }

    /// Runs every candidate and hands `each` its index, its latents (`n + H` of them) and its `stride` values of
    /// `out`.
    pub(super) fn for_each_path(
        &self,
        start: Start,
        shape: Shape,
        candidates: &[f32],
        out: &mut [f32],
        stride: usize,
        each: impl Fn(usize, &mut dyn Iterator<Item = &[f32]>, &mut [f32]) + Sync,
    ) -> Result<(), Error> {
        let samples = out.len() / stride.max(1);
        self.check(start, shape, candidates, samples)?;
        let width = self.width();
        par_rows_mut(out, samples, stride, |rows, out| {
            self.pool.with(|workspace| {
                for part in parts(rows.len(), self.chunk) {
                    let plans = rows.start + part.start..rows.start + part.end;
                    let count = plans.len();
                    let plans = &candidates[plans.start * shape.len()..plans.end * shape.len()];
                    self.run(start, shape, count, plans, workspace);
                    let steps = start.context.len() / width + shape.horizon;
                    for (i, sample) in part.enumerate() {
                        let path = &workspace.path;
                        let mut path = (0..steps).map(|t| &path[(t * count + i) * width..][..width]);
                        each(rows.start + sample, &mut path, &mut out[sample * stride..][..stride]);
                    }
                }
            });
        });
        Ok(())
    }

    fn check(&self, start: Start, shape: Shape, candidates: &[f32], samples: usize) -> Result<(), Error> {
        let (width, action) = (self.width(), self.config.action);
        let frames = self.config.predictor.frames;
        let n = start.context.len() / width;
        if n == 0 || n > frames {
            return Err(Error::Length {
                what: "context",
                got: start.context.len(),
                expected: format!("{width} for each of 1 to {frames} frames"),
            });
        }
        check_len("context", start.context.len(), n * width, "frames of D")?;
        check_len("action history", start.history.len(), (n - 1) * action, "a block between two frames")?;
        check_len("action block", shape.dim, action, "the model's block")?;
        check_len("candidates", candidates.len(), samples * shape.len(), "[S, H, A]")
    }

    /// Fills `workspace.path` `[n + H, S, D]` for `count` plans `[S, H, A]`.
    fn run(&self, start: Start, shape: Shape, count: usize, plans: &[f32], workspace: &mut Workspace) {
        let width = self.width();
        let n = start.context.len() / width;
        self.prepare(start, shape, count, plans, workspace);
        for known in n..n + shape.horizon {
            let frames = self.config.predictor.frames;
            let len = known.min(frames);
            // A growing window keeps its older tokens; a sliding one moves them to other positions.
            let fresh = if known > n && known <= frames { len - 1 } else { 0 };
            self.advance(
                Window { count, fresh, len, action: known - len, keep: len < frames || fresh > 0 },
                workspace,
            );
        }
    }

    /// Lays out the context and computes the modulations of every action.
    fn prepare(&self, start: Start, shape: Shape, count: usize, plans: &[f32], workspace: &mut Workspace) {
        let (width, action) = (self.width(), self.config.action);
        let n = start.context.len() / width;
        let rows = (n - 1 + shape.horizon) * count;
        let path = workspace.path.reserve((n + shape.horizon) * count * width);
        for (latents, frame) in path.chunks_exact_mut(count * width).zip(start.context.chunks_exact(width)) {
            latents.chunks_exact_mut(width).for_each(|z| z.copy_from_slice(frame));
        }
        let blocks = workspace.blocks.reserve(rows * action);
        for (i, out) in blocks.chunks_exact_mut(action).enumerate() {
            let (t, sample) = (i / count, i % count);
            let block = match t.checked_sub(n - 1) {
                None => &start.history[t * action..][..action],
                Some(h) => &plans[sample * shape.len() + h * action..][..action],
            };
            // A missing action counts as 0.
            out.iter_mut().zip(block).for_each(|(o, &a)| *o = if a.is_nan() { 0.0 } else { a });
        }
        let conditions = workspace.conditions.reserve(rows * width);
        self.actions.condition(rows, blocks, &mut workspace.actions, conditions);
        self.predictor.modulate(rows, conditions, &mut workspace.predictor);
    }

    /// Predicts the latents after window `w`.
    fn advance(&self, w: Window, workspace: &mut Workspace) {
        let block = w.count * self.width();
        let newest = workspace.newest.reserve(block);
        let (known, next) = workspace.path.split_at_mut((w.action + w.len) * block);
        let states = &known[(w.action + w.fresh) * block..];
        self.predictor.forward(w, states, &mut workspace.predictor, newest);
        self.pred_proj.apply(w.count, newest, &mut workspace.hidden, &mut next[..block]);
    }
}

/// `0..len` in nearly equal parts of at most `most`.
pub(super) fn parts(len: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = len.div_ceil(most);
    (0..count).map(move |i| len * i / count..len * (i + 1) / count)
}

/// Multiply-adds of one token in one layer.
struct LayerProducts {
    /// One of query, key, value and output.
    projection: f64,
    feed: f64,
    modulation: f64,
}

impl LayerProducts {
    fn new(c: &JepaConfig) -> Self {
        let p = &c.predictor;
        let (width, inner, mlp) = (p.width as f64, (p.heads * p.head_width) as f64, p.mlp as f64);
        Self { projection: width * inner, feed: 2.0 * width * mlp, modulation: 6.0 * width * width }
    }

    /// The first position, whose value and output projections are one matrix, and `asking` others, whose queries and
    /// mixtures go through those of keys and values.
    fn attention(&self, first: bool, asking: usize) -> f64 {
        let alone = if first { self.modulation / 6.0 } else { 0.0 };
        alone + asking as f64 * 4.0 * self.projection
    }
}

fn embedding_products(c: &JepaConfig) -> f64 {
    (c.action * c.smoothed + c.smoothed * c.action_hidden + c.action_hidden * c.encoder.hidden) as f64
}

fn projector_products(c: &JepaConfig) -> f64 {
    (2 * c.encoder.hidden * c.projector_hidden) as f64
}

/// First computed position and number of positions of every window of a rollout.
fn windows(c: &JepaConfig, context: usize, horizon: usize) -> impl Iterator<Item = (usize, usize)> {
    let frames = c.predictor.frames;
    (context..context + horizon).map(move |known| {
        let len = known.min(frames);
        (if known > context && known <= frames { len - 1 } else { 0 }, len)
    })
}

/// Tokens that the predictor computes per sample from `context` frames over `horizon` blocks.
#[must_use]
pub fn executed_tokens(c: &JepaConfig, context: usize, horizon: usize) -> usize {
    windows(c, context, horizon).map(|(fresh, len)| len - fresh).sum()
}

/// Floating-point operations (two per multiply-add) in the matrix products that [`JepaPlanner`] executes per
/// sample from `context` frames over `horizon` blocks.
#[must_use]
pub fn executed_flop(c: &JepaConfig, context: usize, horizon: usize) -> f64 {
    let layer = LayerProducts::new(c);
    let depth = c.predictor.depth as f64;
    let mut sum = (context - 1 + horizon) as f64 * (depth * layer.modulation + embedding_products(c));
    for (first, len) in windows(c, context, horizon) {
        let fresh = len - first;
        let whole = fresh == len; // the first position is among them
        let inner = layer.attention(whole, fresh - usize::from(whole)) + fresh as f64 * layer.feed;
        let last = layer.attention(len == 1, usize::from(len > 1)) + layer.feed;
        sum += (depth - 1.0) * inner + last + projector_products(c);
    }
    2.0 * sum
}

/// As [`executed_flop`], of the plain rollout, in which every token of every window goes through the whole network.
#[must_use]
pub fn naive_flop(c: &JepaConfig, context: usize, horizon: usize) -> f64 {
    let l = LayerProducts::new(c);
    let layer = 4.0 * l.projection + l.feed + l.modulation;
    let token = c.predictor.depth as f64 * layer + projector_products(c);
    let tokens: usize = (context..context + horizon).map(|known| known.min(c.predictor.frames)).sum();
    let embedded = (context - 1 + horizon) as f64 * embedding_products(c);
    2.0 * (tokens as f64 * token + embedded)
}

#[cfg(test)]
impl JepaPlanner {
    /// The rollout without a cache: every window from its first position.
    pub(super) fn plain_rollout(&self, start: Start, shape: Shape, plans: &[f32]) -> Vec<f32> {
        let (width, n) = (self.width(), start.context.len() / self.width());
        let (count, steps) = (plans.len() / shape.len(), n + shape.horizon);
        let workspace = &mut Workspace::default();
        self.prepare(start, shape, count, plans, workspace);
        for known in n..steps {
            let len = known.min(self.config.predictor.frames);
            self.advance(Window { count, fresh: 0, len, action: known - len, keep: true }, workspace);
        }
        let row = |i: usize| &workspace.path[(i % steps * count + i / steps) * width..][..width];
        (0..count * steps).flat_map(row).copied().collect()
    }
}
