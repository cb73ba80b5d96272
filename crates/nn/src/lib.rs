//! Network blocks, weights, optimisers and schedules on Burn, with fused CPU operations.
//!
//! A model is described once, by a `build` function that asks a [`Scope`] for every tensor under its checkpoint
//! key. Run over an empty [`Params`] the function declares and initialises the parameters; run again on a device it
//! binds them as differentiable tensors. All values live in one flat `f32` buffer on the host, in declaration
//! order, so that the optimiser, the global gradient norm, checkpoints and the planning kernels each see plain
//! slices: bit-identical resume follows from writing down these slices.

mod attention_grad;
pub mod blocks;
pub mod device;
mod fused;
pub mod goal_predictor;
pub mod mlp;
pub mod norm;
pub mod ops;
pub mod optim;
pub mod params;
pub mod pass;
pub mod patch_predictor;
pub mod predictor;
pub mod schedule;
pub mod vit;
pub mod weights;

pub use device::device;
pub use params::{Init, Kind, Leaves, Params, Scope};
pub use pass::Pass;

/// What can go wrong with devices, parameters and weight files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device name is unknown or its backend is not compiled in.
    #[error("device `{name}`: {remedy}")]
    Device {
        /// The name as given.
        name: String,
        /// What to do instead.
        remedy: String,
    },
    /// A model asks for a parameter that the parameter set does not hold in that shape.
    #[error("parameter `{key}`: {problem}; build the parameters with the same configuration as the model")]
    Parameter {
        /// Checkpoint key.
        key: String,
        /// Expected and found.
        problem: String,
    },
    /// A weight file does not fit.
    #[error("weight file {path}: {problem}")]
    Weights {
        /// The file.
        path: String,
        /// Missing, unexpected or misshapen keys, or the reader's error.
        problem: String,
    },
    /// A state to be restored has another size than the parameters.
    #[error(
        "optimiser state has {found} values, the parameters {expected}: the checkpoint belongs to another model"
    )]
    State {
        /// Number of parameters.
        expected: usize,
        /// Number of values given.
        found: usize,
    },
    /// Reading a tensor back from the device failed.
    #[error("reading a tensor from the device failed: {0}")]
    Read(String),
}
