//! Embedding of action blocks: three linear layers (the first a convolution of width 1 over time).

use worldbench_kernels::Buffer;
use worldbench_kernels::gemm::Activation;

use super::Error;
use super::weights::{Dense, Reader};
use crate::jepa::JepaConfig;

#[derive(Clone, Debug)]
pub(super) struct ActionEmbedder {
    smooth: Dense,
    hidden: Dense,
    output: Dense,
}

/// Buffers of [`ActionEmbedder`].
#[derive(Clone, Debug, Default)]
pub(super) struct ActionScratch {
    smooth: Buffer,
    hidden: Buffer,
}

impl ActionScratch {
    pub fn len(&self) -> usize {
        self.smooth.len() + self.hidden.len()
    }
}

impl ActionEmbedder {
    pub fn new(reader: Reader, c: &JepaConfig) -> Result<Self, Error> {
        let key = "action_encoder";
        Ok(Self {
            smooth: Dense::new(reader, &format!("{key}.patch_embed"), c.action, c.smoothed)?,
            hidden: Dense::new(reader, &format!("{key}.embed.0"), c.smoothed, c.action_hidden)?,
            output: Dense::new(reader, &format!("{key}.embed.2"), c.action_hidden, c.encoder.hidden)?,
        })
    }

    pub fn len(&self) -> usize {
        self.smooth.len() + self.hidden.len() + self.output.len()
    }

    /// Blocks `[rows, A]` to embeddings `[rows, D]`.
    pub fn embed(&self, rows: usize, actions: &[f32], scratch: &mut ActionScratch, out: &mut [f32]) {
        self.run(rows, actions, scratch, out, Activation::Identity);
    }

    /// Blocks `[rows, A]` to SiLU of the embeddings, what modulations are computed from; `[rows, D]`.
    pub fn condition(&self, rows: usize, actions: &[f32], scratch: &mut ActionScratch, out: &mut [f32]) {
        self.run(rows, actions, scratch, out, Activation::Silu);
    }

    fn run(
        &self,
        rows: usize,
        actions: &[f32],
        scratch: &mut ActionScratch,
        out: &mut [f32],
        last: Activation,
    ) {
        let smooth = scratch.smooth.reserve(rows * self.smooth.outputs());
        let hidden = scratch.hidden.reserve(rows * self.hidden.outputs());
        self.smooth.apply(rows, actions, smooth, Activation::Identity);
        self.hidden.apply(rows, smooth, hidden, Activation::Silu);
        self.output.apply(rows, hidden, out, last);
    }
}
