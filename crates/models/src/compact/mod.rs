//! Compact PLDM and LeWM: joint-embedding world models that learn Push-T on two CPU cores.
//!
//! The methods are those of `pldm.rs` (arXiv 2502.14819) and `lewm.rs`; only the networks are small: convolutions
//! on 64-pixel frames whose feature maps are read as keypoints, a 12-wide embedding that is linear in them, and a
//! residual MLP predictor. One training step sees B windows of T frames, K = 5 environment steps apart:
//!
//! * z_t = enc(frame_t); the state is s_t = [z_t; p_t], p_t being the normalised proprioception when it is used;
//! * teacher forcing: pred(s_t, a_t) against s_{t+1}; rollout: s^_0 = s_0, s^_{t+1} = pred(s^_t, a_t) against s_{t+1};
//!   no stop-gradient on targets;
//! * plus the method's regulariser (VCReg or SIGReg), temporal smoothness and inverse dynamics on the block's mean.
//!
//! What was learned, by the ridge probe of the pose from the embedding on held-out episodes (median errors; one seed
//! each; scores are in BENCHMARKS.md):
//!
//! * **A prediction loss fills the embedding with the slowest functions that the encoder can easily form.** With a
//!   flattened feature map these are functions of the agent (weak regulariser) or ones that tell the block to 20 px
//!   and its angle not at all, for six settings of the weights. With keypoints they are polynomials of the block's
//!   position, formed by the softmax that weighs the block against the static goal drawing: degree 3 explains 70 % of
//!   the variance, the angle 4 %.
//! * **Subtracting the background ends that.** With the median frame gone a keypoint is linear in the pose of what moves;
//!   the angle enters at the first order: block 18 to 25 px and no angle before, 7 px and 7 degrees after, both from
//!   90,000 windows (8 wide before, 12 after), 4 px and 5 degrees from 190,000.
//! * Keypoints localise sooner: trained on the pose itself for 77,000 frames, 14 px (agent), 14 px (block), 9 degrees
//!   against 24 px, 30 px, 34 degrees for a flattened map.
//! * A squared covariance of B independent samples is about 1 / B by chance alone. At weight 20 and B = 96 this floor,
//!   0.2, is as large as the prediction losses; 4 with B >= 128 was used from then on (not tried one at a time). An
//!   embedding of 8 misses the angle's cosine, 12 and 16 hold it all.
//! * With the embedding solved the dynamics limit: `diagnose` after 190,000 windows gives 50 % with learned and 90 %
//!   with true dynamics under the latent cost (30 pairs, reduced planner). Replanning after every block does not help
//!   (43 to 48 % against 55 % for two open-loop plans, n = 60).
//!
//! Forward and backward are written by hand on flat vectors (see `objective`), so that every product runs on
//! our kernels without a framework in between. Training is bit-identical on one machine and thread count.

mod encoder;
mod frozen;
mod inference;
mod keypoints;
mod latent;
mod linear;
mod objective;
mod params;
mod predictor;
mod step;
mod whiten;

pub use encoder::{BatchNorm, Encoder, EncoderConfig, EncoderTape, Readout};
pub use frozen::CompactEncoder;
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
