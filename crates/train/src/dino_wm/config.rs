//! Settings of DINO-WM's training.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use worldbench_data::FrameSpec;
use worldbench_env::raster::Filter;
use worldbench_models::compact::{ACTION, PROPRIO};
use worldbench_models::dino_wm::DinoWmConfig;
use worldbench_models::encoders::{self, EncoderConfig, FrozenEncoder};
use worldbench_nn::vit::VitConfig;

use crate::TrainError;

/// How action blocks are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActionScaling {
    /// Mean and deviation per action dimension, as published.
    Zscore,
    /// The whole block to identity covariance, so that a planner's samples look like the data's blocks.
    Whiten,
}

/// Encoder, networks and data of DINO-WM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DinoWmTraining {
    /// Device that trains, e.g. `cpu` or `cuda:0`.
    pub device: String,
    /// Environment steps of one action block.
    pub action_block: usize,
    /// How action blocks are normalised.
    pub actions: ActionScaling,
    /// Environment steps between the starts of two training windows; only frames at its multiples are encoded.
    pub start_stride: usize,
    /// Largest feature cache in gigabytes; a larger one is not made, and every batch is encoded anew.
    pub cache_gb: f64,
    /// The frozen encoder.
    pub encoder: EncoderConfig,
    /// The predictor; `features` and `predictor.patches` are the encoder's.
    pub network: DinoWmConfig,
    /// A decoder of features to pixels, trained beside the predictor without touching it, so that imagined frames can be
    /// looked at; none when left out. Its image is the encoder's, its patches make the encoder's grid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<VitConfig>,
}

impl DinoWmTraining {
    /// Checks what would otherwise fail deep inside the network.
    ///
    /// # Errors
    /// Names the setting and what it may be.
    pub fn check(&self, steps: usize) -> Result<(), TrainError> {
        let fail = |message: String| Err(TrainError::Config(message));
        let (network, predictor) = (&self.network, &self.network.predictor);
        if self.action_block == 0 || network.action != self.action_block * ACTION {
            return fail(format!("model.network.action must be {ACTION} x model.action_block"));
        }
        if self.start_stride == 0 || !self.action_block.is_multiple_of(self.start_stride) {
            let block = self.action_block;
            return fail(format!("model.start_stride must divide model.action_block = {block}"));
        }
        if ![0, PROPRIO].contains(&network.proprio) {
            return fail(format!("model.network.proprio = {} must be {PROPRIO} or 0", network.proprio));
        }
        if [predictor.depth, predictor.heads, predictor.head_width, network.action_width].contains(&0) {
            return fail("model.network: depth, heads and widths must be at least 1".into());
        }
        if let Some(c) = &self.decoder {
            let patches = c.image.checked_div(c.patch).map_or(0, |side| side * side);
            let fits = c.patch > 0 && c.image.is_multiple_of(c.patch) && patches == predictor.patches;
            if !fits || c.image != self.encoder.image || c.heads == 0 || !c.hidden.is_multiple_of(c.heads) {
                return fail(format!(
                    "model.decoder needs the encoder's image ({}), patches that make a grid of {} tokens, and a width \
                     that is a multiple of its heads",
                    self.encoder.image, predictor.patches
                ));
            }
        }
        if steps - 1 > predictor.frames && !network.rollout {
            let most = predictor.frames + 1;
            return fail(format!(
                "frames = {steps}: model.network.predictor.frames leaves room for {most} unless model.network.rollout = true"
            ));
        }
        Ok(())
    }

    /// Size of the frames and how they are made.
    #[must_use]
    pub fn frame(&self) -> FrameSpec {
        let filter = if self.encoder.name.area_filter() { Filter::Area } else { Filter::Linear };
        FrameSpec { resolution: self.encoder.image, filter }
    }

    /// The encoder, held against what the predictor expects.
    pub(super) fn open_encoder(&self) -> Result<Arc<dyn FrozenEncoder>, TrainError> {
        let encoder = encoders::open(&self.encoder)?;
        let (tokens, width) = (encoder.tokens(), encoder.width());
        let network = &self.network;
        if (network.predictor.patches, network.features) != (tokens, width) {
            return Err(TrainError::Config(format!(
                "encoder {} gives {tokens} tokens of width {width}: set model.network.predictor.patches = {tokens} and \
                 model.network.features = {width}",
                encoder.name()
            )));
        }
        Ok(encoder.into())
    }
}
