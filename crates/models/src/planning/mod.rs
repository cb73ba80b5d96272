//! Planning with the full-size PLDM and LeWM: prepacked weights, fused kernels, no allocation per step.
//!
//! [`JepaPlanner`] computes what [`crate::jepa::Jepa`] computes in evaluation mode, for many candidate plans at
//! once, and leaves out what cannot change the result:
//! * context and goal are encoded once per problem; in the encoder's last layer only the class token goes on;
//! * while the window grows, older tokens keep their place and, attention being causal, what later ones read of them;
//!   once it slides every token gets another position embedding and is computed anew;
//! * in the last layer older tokens are only read; the final norm and the output projector see only the newest token;
//! * keys and values are not computed: a head's key matrix turns the query and its value matrix the mixture of tokens, of
//!   which there are fewer than tokens (`attend_rows`);
//! * the first token of a window attends to itself alone: it needs no query, and its value and output projections
//!   are one matrix;
//! * adaLN modulations depend on the action alone and are computed once per action;
//! * batch normalisation is folded into the linear layer before it.
//!
//! Tokens lie position by position, `[T, S, D]`, so the tokens of a window, its modulations and its new latents
//! are each one block of rows. Samples are split among threads, and each thread works through its own without a
//! barrier. Sums run in the fixed order of `worldbench_kernels`: neither threads nor chunks change a bit.

mod actions;
pub mod dino_wm;
pub(crate) mod encoder;
mod model;
mod perf;
mod predictor;
mod rollout;
pub(crate) mod weights;

use worldbench_kernels::gemm::Precision;
use worldbench_kernels::par_rows_mut;
use worldbench_nn::Params;

use crate::jepa::JepaConfig;
use crate::pool::Pool;
use actions::ActionEmbedder;
pub use dino_wm::{DinoWmModel, DinoWmPlanner, Picture, ProprioStatistics};
use encoder::Encoder;
pub use encoder::{IMAGE_MEAN, IMAGE_STD};
pub use model::{BlockTransform, JepaModel};
pub use perf::{PerfMethod, PerfSetup, PlanPerf, perf};
use predictor::Predictor;
use rollout::Workspace;
pub use rollout::{Start, executed_flop, executed_tokens, naive_flop};
use weights::{Projector, Reader};

/// What keeps a planner from being built or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The parameters lack a tensor, or it has another size.
    #[error("parameter `{key}`: {problem}; load a checkpoint of the same model size")]
    Parameter {
        /// Checkpoint key.
        key: String,
        /// What was found and what is needed.
        problem: String,
    },
    /// The sizes contradict each other.
    #[error("model configuration: {0}")]
    Config(String),
    /// An input does not have the length its shape asks for.
    #[error("{what} has {got} values, expected {expected}")]
    Length {
        /// Which input.
        what: &'static str,
        /// Its length.
        got: usize,
        /// What the shape asks for, in words.
        expected: String,
    },
    /// The machine gave no threads.
    #[error("cannot start {threads} threads: {problem}; ask for fewer")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The system's message.
        problem: String,
    },
    /// The solver failed.
    #[error(transparent)]
    Plan(#[from] worldbench_plan::PlanError),
}

/// How a loaded model computes rollouts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RolloutOptions {
    /// Precision of the products.
    pub precision: Precision,
    /// Limit on the buffers of a DINO-WM rollout in bytes; the default keeps them near the cores' caches.
    pub memory: Option<usize>,
}

pub(crate) fn check_len(what: &'static str, got: usize, need: usize, shape: &str) -> Result<(), Error> {
    if got == need { Ok(()) } else { Err(Error::Length { what, got, expected: format!("{need}, {shape}") }) }
}

/// A joint-embedding model made ready for planning.
#[derive(Debug)]
pub struct JepaPlanner {
    config: JepaConfig,
    encoder: Encoder,
    projector: Projector,
    actions: ActionEmbedder,
    predictor: Predictor,
    pred_proj: Projector,
    /// Samples that a thread takes through a whole rollout at once.
    chunk: usize,
    /// Buffers of threads that are done, for the next call.
    pool: Pool<Workspace>,
}

impl JepaPlanner {
    /// Packs the weights of a checkpoint; keys as in [`crate::jepa`], other keys are ignored.
    ///
    /// # Errors
    /// A parameter is missing or has another size, or the sizes contradict each other.
    pub fn new(config: &JepaConfig, params: &Params) -> Result<Self, Error> {
        let (encoder, predictor) = (&config.encoder, &config.predictor);
        if encoder.hidden != predictor.width || predictor.frames == 0 || predictor.depth == 0 {
            let problem = "the predictor needs a frame, a layer and the encoder's width";
            return Err(Error::Config(format!("{problem}, not {predictor:?} for width {}", encoder.hidden)));
        }
        let reader = Reader(params);
        Ok(Self {
            config: *config,
            encoder: Encoder::new(reader, encoder)?,
            projector: Projector::new(reader, "projector", encoder.hidden, config.projector_hidden)?,
            actions: ActionEmbedder::new(reader, config)?,
            predictor: Predictor::new(reader, predictor)?,
            pred_proj: Projector::new(reader, "pred_proj", encoder.hidden, config.projector_hidden)?,
            chunk: rollout::CHUNK,
            pool: Pool::default(),
        })
    }

    /// The sizes.
    #[must_use]
    pub fn config(&self) -> &JepaConfig {
        &self.config
    }

    /// Limits the samples that a thread takes through a rollout at once, at least 1; results do not depend on it.
    #[must_use]
    pub fn with_chunk(mut self, chunk: usize) -> Self {
        self.chunk = chunk.max(1);
        self
    }

    /// Computes rollouts in `precision`; frames are always encoded in f32. From bf16 there is no way back.
    #[must_use]
    pub fn in_precision(mut self, precision: Precision) -> Self {
        self.predictor.set_precision(precision);
        self.pred_proj.set_precision(precision);
        self
    }

    /// Width D of embeddings.
    #[must_use]
    pub fn width(&self) -> usize {
        self.config.encoder.hidden
    }

    /// Embeddings `[N, D]` of RGB frames `[N, R, R, 3]` (u8), R the encoder's image side: ImageNet
    /// normalisation, encoder, projector. Frames are split among threads.
    ///
    /// # Errors
    /// The bytes are not whole frames.
    pub fn encode(&self, frames: &[u8]) -> Result<Vec<f32>, Error> {
        let classes = self.class_tokens(frames, encoder::frame_value)?;
        Ok(self.project(&classes))
    }

    /// As [`Self::encode`], from normalised images `[N, 3, R, R]`.
    ///
    /// # Errors
    /// The values are not whole images.
    pub fn encode_normalised(&self, images: &[f32]) -> Result<Vec<f32>, Error> {
        Ok(self.project(&self.class_tokens_normalised(images)?))
    }

    /// Class tokens `[N, D]` of normalised images `[N, 3, R, R]`.
    ///
    /// # Errors
    /// The values are not whole images.
    pub fn class_tokens_normalised(&self, images: &[f32]) -> Result<Vec<f32>, Error> {
        let side = self.config.encoder.image;
        self.class_tokens(images, |image, (c, y, x)| image[(c * side + y) * side + x])
    }

    fn class_tokens<P: Sync>(
        &self,
        images: &[P],
        value: impl Fn(&encoder::Frame<'_, P>, encoder::Pixel) -> f32 + Sync,
    ) -> Result<Vec<f32>, Error> {
        let (side, width) = (self.config.encoder.image, self.width());
        let size = 3 * side * side;
        if images.is_empty() || !images.len().is_multiple_of(size) {
            let expected = format!("a multiple of {size}, frames of side {side}");
            return Err(Error::Length { what: "frames", got: images.len(), expected });
        }
        let frames = images.len() / size;
        let mut classes = vec![0.0; frames * width];
        par_rows_mut(&mut classes, frames, width, |rows, out| {
            self.pool.with(|workspace| {
                for (row, out) in rows.zip(out.chunks_exact_mut(width)) {
                    let frame = encoder::Frame { values: &images[row * size..][..size], side };
                    self.encoder.class_token(&mut workspace.encoder, |pixel| value(&frame, pixel), out);
                }
            });
        });
        Ok(classes)
    }

    fn project(&self, classes: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; classes.len()];
        let rows = classes.len() / self.width();
        self.pool.with(|w| self.projector.apply(rows, classes, &mut w.hidden, &mut out));
        out
    }

    /// Embeddings `[N, D]` of normalised action blocks `[N, A]`; missing actions (NaN) count as 0.
    ///
    /// # Errors
    /// The values are not whole blocks.
    pub fn embed_actions(&self, actions: &[f32]) -> Result<Vec<f32>, Error> {
        let block = self.config.action.max(1);
        let rows = actions.len() / block;
        check_len("action blocks", actions.len(), rows * block, &format!("blocks of {block}"))?;
        let known: Vec<f32> = actions.iter().map(|&a| if a.is_nan() { 0.0 } else { a }).collect();
        let mut out = vec![0.0; rows * self.width()];
        self.pool.with(|w| self.actions.embed(rows, &known, &mut w.actions, &mut out));
        Ok(out)
    }

    /// Bytes of packed weights and of all buffers allocated so far.
    #[must_use]
    pub fn memory(&self) -> usize {
        let weights = [self.encoder.len(), self.projector.len(), self.actions.len(), self.pred_proj.len()];
        let buffers = self.pool.sum(Workspace::len);
        (weights.iter().sum::<usize>() + self.predictor.len() + buffers) * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests;
