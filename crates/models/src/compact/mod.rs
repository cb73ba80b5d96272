//! Compact PLDM and LeWM: joint-embedding world models that learn Push-T on two CPU cores.
//!
//! The methods are those of `pldm.rs` (arXiv 2502.14819) and `lewm.rs`; only the networks are small: a strided
//! convolutional encoder on 64-pixel frames, a 32-wide embedding and a residual MLP predictor. One training
//! step sees B windows of T frames, K = 5 environment steps apart:
//!
//! * z_t = enc(frame_t); the state is s_t = [z_t; p_t], p_t being the normalised proprioception when it is used;
//! * teacher forcing: pred(s_t, a_t) against s_{t+1}; rollout: s^_0 = s_0, s^_{t+1} = pred(s^_t, a_t) against s_{t+1};
//!   no stop-gradient on targets;
//! * plus the method's regulariser (VCReg or SIGReg), temporal smoothness and inverse dynamics on the block-mean action.
//!
//! What was learned so far (`dev` scores and probes are in BENCHMARKS.md): a weak regulariser (SIGReg 0.09, or VCReg
//! with small weights) fills the embedding with functions of the agent alone, which are the easiest to predict;
//! the open-loop error falls to 1 % of "no change" and planning fails. A stronger one (SIGReg 0.4, VCReg 12/20)
//! doubles the effective rank from 10 to 20 and lets the block in, but the block's angle stays unreadable,
//! and with it the latent cost, not the dynamics, limits planning (18 % against a 99.5 % ceiling).
//!
//! Forward and backward are written by hand on flat vectors (see `objective`), so that every product runs on
//! our kernels without a framework in between. Training is bit-identical on one machine and thread count.

mod encoder;
mod inference;
mod keypoints;
mod latent;
mod linear;
mod objective;
mod params;
mod predictor;
mod step;
mod whiten;

pub use encoder::{BatchNorm, Encoder, EncoderConfig, Readout};
pub use inference::{CompactModel, Normalisation, Scratch};
pub use objective::{Weights, spread};
pub use params::{Param, ParamTable};
pub use predictor::Predictor;
pub use step::{Batch, Metrics, Workers};
pub use whiten::Whitener;

use params::Linear;
use serde::{Deserialize, Serialize};

/// Width of the proprioception: agent position and velocity.
pub const PROPRIO: usize = 4;
/// Width of one environment action.
pub const ACTION: usize = 2;

/// Everything that defines a compact model's networks and objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompactConfig {
    /// The encoder.
    pub encoder: EncoderConfig,
    /// Width of the predictor's residual stream.
    pub width: usize,
    /// Residual blocks of the predictor.
    pub depth: usize,
    /// Environment steps of one action block.
    pub action_block: usize,
    /// Whether proprioception is part of the state.
    pub proprio: bool,
    /// Whether the predictor also sees the previous action block (zeros when there is none).
    pub previous_action: bool,
    /// Weight of the agent's position (normalised) in the planning cost, when proprioception is used.
    pub position_weight: f32,
    /// Random directions of SIGReg.
    pub projections: usize,
    /// Loss weights.
    pub weights: Weights,
}

/// Layers of a compact model and where their parameters lie.
#[derive(Clone, Debug)]
pub struct CompactNet {
    /// The configuration it was built from.
    pub config: CompactConfig,
    /// Names and places of all parameters.
    pub table: ParamTable,
    /// Frames to embeddings.
    pub encoder: Encoder,
    /// Latent dynamics.
    pub predictor: Predictor,
    /// Inverse dynamics head.
    idm: [Linear; 2],
}

impl CompactNet {
    /// Lays out the networks.
    #[must_use]
    pub fn new(config: &CompactConfig) -> Self {
        let mut table = ParamTable::default();
        let encoder = Encoder::declare(&mut table, &config.encoder);
        let latent = config.encoder.latent;
        let predictor = Predictor::declare(
            &mut table,
            config.state_dim(),
            config.action_input(),
            config.width,
            config.depth,
        );
        let idm = [
            Linear::declare(&mut table, "idm.0", 2 * latent, 256, 1.4),
            Linear::declare(&mut table, "idm.1", 256, ACTION, 1.0),
        ];
        Self { config: config.clone(), table, encoder, predictor, idm }
    }
}

impl CompactConfig {
    /// Width of the predictor's state: embedding, and proprioception when used.
    #[must_use]
    pub fn state_dim(&self) -> usize {
        self.encoder.latent + if self.proprio { PROPRIO } else { 0 }
    }

    /// Width of one action block.
    #[must_use]
    pub fn block_dim(&self) -> usize {
        self.action_block * ACTION
    }

    /// Width of the predictor's action input: the block, and with `previous_action` the one before and a flag.
    #[must_use]
    pub fn action_input(&self) -> usize {
        if self.previous_action { 2 * self.block_dim() + 1 } else { self.block_dim() }
    }
}

#[cfg(test)]
mod tests;
