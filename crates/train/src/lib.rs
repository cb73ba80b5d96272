//! Trainer, checkpoints and logs.
//!
//! [`Trainer`] runs any [`Learner`]: the learner turns a batch into losses and a flat gradient, the trainer does the
//! rest (order of the data, clipping, AdamW, schedule, validation, logs, checkpoints). A run is a function of its
//! configuration and its data alone; killed and resumed, it ends with the same bits.

pub mod checkpoint;
pub mod compact;
pub mod config;
pub mod log;
pub mod resume;
pub mod trainer;

pub use compact::CompactLearner;
pub use config::{Method, TrainConfig};
pub use trainer::{Progress, Trainer};

use std::path::PathBuf;

/// Why training failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting that makes no sense.
    #[error("training: {0}")]
    Config(String),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A checkpoint that does not load.
    #[error("checkpoint {}: {problem}", path.display())]
    Checkpoint {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The data set.
    #[error(transparent)]
    Data(#[from] worldbench_data::DataError),
    /// The loss is not finite.
    #[error("step {step}: the loss is not finite; lower `learning_rate` or look at the data")]
    Diverged {
        /// Optimiser step.
        step: u64,
    },
}

impl TrainError {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// Named loss terms and telemetry of one step, in a fixed order.
pub type Metrics = Vec<(&'static str, f32)>;

/// A model in training, seen as one flat parameter vector.
pub trait Learner {
    /// The parameters.
    fn params(&self) -> &[f32];

    /// The parameters, for the optimiser.
    fn params_mut(&mut self) -> &mut [f32];

    /// Losses of `batch` and their gradient (overwrites `grads`). `step` keys everything random. The first metric
    /// is the loss.
    ///
    /// # Errors
    /// When the batch does not fit the model.
    fn step(&mut self, batch: &worldbench_data::Batch, step: u64, grads: &mut [f32]) -> Result<Metrics, TrainError>;

    /// Losses of a held-out batch; changes nothing.
    ///
    /// # Errors
    /// As [`Learner::step`].
    fn validate(&self, batch: &worldbench_data::Batch) -> Result<Metrics, TrainError>;

    /// All tensors with their checkpoint keys, buffers included.
    fn tensors(&self) -> Vec<checkpoint::Tensor<'_>>;

    /// Takes tensors read from a checkpoint.
    ///
    /// # Errors
    /// Names missing, unexpected and misshapen keys.
    fn restore(&mut self, tensors: checkpoint::Tensors) -> Result<String, TrainError>;

    /// What the model needs besides weights, as TOML: goes into the checkpoint's `config.toml`.
    fn config(&self) -> toml::Table;
}
