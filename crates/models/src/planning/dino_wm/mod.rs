//! Planning with DINO-WM: many patch tokens, nothing computed twice.
//!
//! [`DinoWmPlanner`] computes what [`crate::dino_wm::DinoWm`] computes in evaluation mode, for many candidate plans at
//! once, and leaves out what cannot change the result:
//! * context and goal are encoded once per problem; frames before the newest context frame have the same actions for
//!   all candidates and, attention being block-causal, the same keys and values: they are computed once per problem;
//! * while the window grows, older frames keep their place and their keys and values; once it slides every frame gets
//!   other position embeddings and is computed anew;
//! * in the last layer older frames give keys and values only; the final norm sees only the newest frame;
//! * keys and values are packed once, where they are made, and a frame attends before the next is packed: no mask.
//!
//! Tokens lie frame by frame, `[T, S, P, D]`, so the newest frame of all samples is one block of rows. Samples are split
//! among threads and taken in chunks, which bounds the memory; neither changes a bit.

mod flop;
mod model;
mod predictor;
mod rollout;

use worldbench_kernels::gemm::{Activation, Precision};
use worldbench_nn::Params;
use worldbench_plan::Part;

use super::weights::{Dense, Reader};
use super::{Error, check_len};
use crate::dino_wm::DinoWmConfig;
use crate::pool::Pool;
pub use flop::{executed_flop, naive_flop, tokens};
pub(super) use model::Problem;
pub use model::{DinoWmModel, Picture, ProprioStatistics};
use predictor::Predictor;
pub use rollout::DinoWmStart;
use rollout::Workspace;

/// Rows of tokens per frame that a thread takes through a rollout at once, about: enough to read the weights rarely, few
/// enough for the activations to stay near the core.
const ROWS: usize = 256;

/// DINO-WM made ready for planning; the frozen encoder stands outside.
#[derive(Debug)]
pub struct DinoWmPlanner {
    config: DinoWmConfig,
    proprio: Option<Dense>,
    action: Dense,
    predictor: Predictor,
    /// Samples that a thread takes through a whole rollout at once.
    chunk: usize,
    /// Buffers of threads that are done, for the next call.
    pool: Pool<Workspace>,
}

/// Missing values (NaN) count as 0.
fn known(values: &[f32]) -> Vec<f32> {
    values.iter().map(|&v| if v.is_nan() { 0.0 } else { v }).collect()
}

impl DinoWmPlanner {
    /// Packs the weights of a checkpoint; keys as in [`crate::dino_wm`], other keys are ignored.
    ///
    /// # Errors
    /// A parameter is missing or has another size, or the sizes contradict each other.
    pub fn new(config: &DinoWmConfig, params: &Params) -> Result<Self, Error> {
        let (c, p) = (config, &config.predictor);
        if [c.features, c.action, c.action_width, p.frames, p.patches, p.depth, p.heads, p.head_width]
            .contains(&0)
        {
            return Err(Error::Config(format!("every size must be at least 1, not {c:?}")));
        }
        let reader = Reader(params);
        let embedder = |name: &str, inputs, width| {
            Dense::new(reader, &format!("extra_encoders.{name}.patch_embed"), inputs, width)
        };
        let proprio = (c.proprio > 0).then(|| embedder("proprio", c.proprio, c.proprio_width)).transpose()?;
        Ok(Self {
            config: *config,
            proprio,
            action: embedder("action", c.action, c.action_width)?,
            predictor: Predictor::new(reader, c.width(), p)?,
            chunk: (ROWS / p.patches).max(1),
            pool: Pool::default(),
        })
    }

    /// The sizes.
    #[must_use]
    pub fn config(&self) -> &DinoWmConfig {
        &self.config
    }

    /// Computes the predictor's products in `precision`; embeddings are f32. From bf16 there is no way back.
    #[must_use]
    pub fn in_precision(mut self, precision: Precision) -> Self {
        self.predictor.set_precision(precision);
        self
    }

    /// Limits the samples that a thread takes through a rollout at once, at least 1; results do not depend on it.
    #[must_use]
    pub fn with_chunk(mut self, chunk: usize) -> Self {
        self.chunk = chunk.max(1);
        self
    }

    /// Limits the chunk so that the buffers of `threads` threads take about `bytes` for plans of `steps` frames (context
    /// and horizon); one sample per thread is the least.
    #[must_use]
    pub fn with_memory(self, bytes: usize, threads: usize, steps: usize) -> Self {
        let path = steps * self.config.predictor.patches * self.config.width();
        let (base, sample) = self.predictor.values();
        let values = bytes / size_of::<f32>() / threads.max(1);
        let chunk = values.saturating_sub(base + self.latent_width()) / (sample + path);
        let most = self.chunk;
        self.with_chunk(most.min(chunk))
    }

    /// Features and embedded proprioception `[N, P, F + E]` of features `[N, P, F]` and normalised proprioception
    /// `[N, 4]`.
    fn states(&self, features: &[f32], proprio: &[f32]) -> Result<Vec<f32>, Error> {
        let (c, patches) = (&self.config, self.config.predictor.patches);
        let frames = features.len() / (patches * c.features);
        check_len("features", features.len(), frames * patches * c.features, "whole frames")?;
        let Some(embedder) = &self.proprio else { return Ok(features.to_vec()) };
        check_len("proprioception", proprio.len(), frames * c.proprio, "frames x numbers")?;
        let mut embedded = vec![0.0; frames * c.proprio_width];
        embedder.apply(frames, &known(proprio), &mut embedded, Activation::Identity);
        let mut out = Vec::with_capacity(frames * patches * c.state_width());
        for (i, token) in features.chunks_exact(c.features).enumerate() {
            out.extend_from_slice(token);
            out.extend_from_slice(&embedded[i / patches * c.proprio_width..][..c.proprio_width]);
        }
        Ok(out)
    }

    /// What goals are compared by, `[N, L]`: all features of a frame, then its embedded proprioception. `features` are
    /// `[N, P, F]`, `proprio` `[N, 4]` normalised.
    ///
    /// # Errors
    /// A slice is no whole number of frames.
    pub fn latents(&self, features: &[f32], proprio: &[f32]) -> Result<Vec<f32>, Error> {
        let states = self.states(features, proprio)?;
        let (width, size) = (self.config.state_width(), self.latent_width());
        let frame = self.config.predictor.patches * width;
        let mut out = vec![0.0; states.len() / frame * size];
        for (states, out) in states.chunks_exact(frame).zip(out.chunks_exact_mut(size)) {
            self.gather(states, width, out);
        }
        Ok(out)
    }

    /// The latent `[L]` of a frame's tokens `[P, D]`. Proprioception is read at patch 0, as in the reference.
    fn write_latent(&self, tokens: &[f32], out: &mut [f32]) {
        self.gather(tokens, self.config.width(), out);
    }

    /// Features of all rows of `rows` `[P, width]`, then proprioception of the first.
    fn gather(&self, rows: &[f32], width: usize, out: &mut [f32]) {
        let (features, states) = (self.config.features, self.config.state_width());
        let (pixels, proprio) = out.split_at_mut(self.config.predictor.patches * features);
        for (out, row) in pixels.chunks_exact_mut(features).zip(rows.chunks_exact(width)) {
            out.copy_from_slice(&row[..features]);
        }
        proprio.copy_from_slice(&rows[features..states]);
    }

    /// Width L of a latent.
    #[must_use]
    pub fn latent_width(&self) -> usize {
        let (c, patches) = (&self.config, self.config.predictor.patches);
        patches * c.features + c.state_width() - c.features
    }

    /// The latent's parts, features and proprioception, weighted so that their summed squares make the published cost:
    /// a mean over the features plus a mean over the proprioception.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        let pixels = self.config.predictor.patches * self.config.features;
        let part = |start, len| Part { start, len, weight: 1.0 / len as f32 };
        let mut parts = vec![part(0, pixels)];
        if self.proprio.is_some() {
            parts.push(part(pixels, self.config.proprio_width));
        }
        parts
    }

    /// Bytes of packed weights and of all buffers allocated so far.
    #[must_use]
    pub fn memory(&self) -> usize {
        let embedders = self.action.len() + self.proprio.as_ref().map_or(0, Dense::len);
        let buffers = self.pool.sum(Workspace::bytes);
        (embedders + self.predictor.len()) * size_of::<f32>() + buffers
    }
}

#[cfg(test)]
mod tests;
