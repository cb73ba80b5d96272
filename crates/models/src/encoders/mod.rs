//! Frozen image encoders: pretrained networks that turn a frame into patch tokens and are never trained here.
//!
//! [`open`] makes an encoder of a configuration: it finds the weights by path, in the cache of the Hugging Face hub,
//! or on the hub itself (cargo feature `hub`). All run on `worldbench_kernels`, a frame per thread: tokens depend
//! neither on the batch nor on the number of threads.

mod dinov2;
pub mod hub;
mod mobilenet_v2;
mod positions;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use dinov2::{Dinov2, Dinov2Config};
pub use mobilenet_v2::{Grid, MobileNetV2};
pub use positions::Positions;

use crate::pool::Pool;
use crate::state_dict::{self, StateDict};

/// What keeps an encoder from being made or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The weight file is damaged or does not fit.
    #[error(transparent)]
    Weights(#[from] state_dict::Error),
    /// A layer could not be built.
    #[error(transparent)]
    Layer(#[from] crate::planning::Error),
    /// The sizes contradict each other or a configuration file is wrong.
    #[error("encoder configuration: {0}")]
    Config(String),
    /// An input or output does not have the length its shape asks for.
    #[error("{what}: {got} values, expected {need}")]
    Length {
        /// Which one.
        what: String,
        /// Its length.
        got: usize,
        /// What the shape asks for, in words.
        need: String,
    },
    /// The weights are nowhere to be found.
    #[error(transparent)]
    Hub(#[from] hub::Error),
}

/// A pretrained image encoder in evaluation mode.
pub trait FrozenEncoder: std::fmt::Debug + Send + Sync {
    /// Name of the architecture, as in [`EncoderConfig`].
    fn name(&self) -> &str;

    /// Side R of the frames in pixels.
    fn image_size(&self) -> usize;

    /// Whether frames are box-averaged from the canvas (else the reference's point-bilinear resize).
    fn area_filter(&self) -> bool {
        false
    }

    /// Tokens P of a frame, row by row of a square grid.
    fn tokens(&self) -> usize;

    /// Width D of a token.
    fn width(&self) -> usize;

    /// Tokens `out` `[B, P, D]` of RGB frames `[R, R, 3]` (u8), normalised as the network was trained. Frames are
    /// split among rayon's threads.
    ///
    /// # Errors
    /// A frame or `out` has another length.
    fn encode(&self, frames: &[&[u8]], out: &mut [f32]) -> Result<(), Error>;

    /// SHA-256 over weights and settings in hexadecimal: encoders that agree in it give the same tokens.
    fn fingerprint(&self) -> String;
}

/// The encoders by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncoderName {
    /// DINOv2 ViT-S/14, D = 384.
    Dinov2Small,
    /// DINOv2 ViT-B/14, D = 768.
    Dinov2Base,
    /// DINOv2 ViT-L/14, D = 1024.
    Dinov2Large,
    /// The ViT that comes with this crate, pretrained by `worldbench pretrain` on random Push-T scenes: 16 tokens of width
    /// 128 of frames of 64 pixels, shrunk by averaging areas.
    BuiltIn,
    /// MobileNetV2 1.0, D = 320 or 96.
    #[serde(rename = "mobilenet_v2")]
    MobileNetV2,
}

impl EncoderName {
    /// The name in configurations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dinov2Small => "dinov2_small",
            Self::Dinov2Base => "dinov2_base",
            Self::Dinov2Large => "dinov2_large",
            Self::BuiltIn => "built_in",
            Self::MobileNetV2 => "mobilenet_v2",
        }
    }

    /// The hub's repository with the published weights; none for the built-in encoder.
    #[must_use]
    pub fn repository(self) -> Option<&'static str> {
        match self {
            Self::Dinov2Small => Some("facebook/dinov2-small"),
            Self::Dinov2Base => Some("facebook/dinov2-base"),
            Self::Dinov2Large => Some("facebook/dinov2-large"),
            Self::BuiltIn => None,
            Self::MobileNetV2 => Some("timm/mobilenetv2_100.ra_in1k"),
        }
    }

    fn dinov2(self) -> Option<Dinov2Config> {
        match self {
            Self::Dinov2Small => Some(Dinov2Config::small()),
            Self::Dinov2Base => Some(Dinov2Config::base()),
            Self::Dinov2Large => Some(Dinov2Config::large()),
            Self::BuiltIn => Some(Dinov2Config::built_in()),
            Self::MobileNetV2 => None,
        }
    }
}

/// Weights of [`EncoderName::BuiltIn`]; its card lies beside the file.
const BUILT_IN: &[u8] = include_bytes!("../../assets/push_t_vit.safetensors");

/// Which encoder, with which weights, on frames of which size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// The architecture.
    pub name: EncoderName,
    /// Side of the frames in pixels: a multiple of 14 for DINOv2 (224 gives 256 tokens, 196 gives 196), of 32 for
    /// MobileNetV2.
    #[serde(default = "default_image")]
    pub image: usize,
    /// How DINOv2's position table meets that size.
    #[serde(default)]
    pub positions: Positions,
    /// Where MobileNetV2 is read.
    #[serde(default)]
    pub grid: Grid,
    /// A weight file, `.safetensors` or PyTorch's `.pt`; from the hub when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
}

const fn default_image() -> usize {
    224
}

impl EncoderName {
    /// As [`FrozenEncoder::area_filter`].
    #[must_use]
    pub fn area_filter(self) -> bool {
        self == Self::BuiltIn
    }
}

impl EncoderConfig {
    /// The encoder on frames of 224 pixels with the hub's weights.
    #[must_use]
    pub fn new(name: EncoderName) -> Self {
        let (positions, grid) = (Positions::default(), Grid::default());
        Self { name, image: default_image(), positions, grid, weights: None }
    }

    /// The encoder with the weights in `path`.
    #[must_use]
    pub fn with_weights(self, path: impl Into<PathBuf>) -> Self {
        Self { weights: Some(path.into()), ..self }
    }
}

/// Finds, reads and packs the weights of an encoder.
///
/// # Errors
/// The weights are not found, are damaged or belong to another model, or the image size does not fit.
pub fn open(config: &EncoderConfig) -> Result<Box<dyn FrozenEncoder>, Error> {
    let weights = match (&config.weights, config.name.repository()) {
        (Some(path), _) => StateDict::read(path)?,
        (None, None) => StateDict::from_safetensors(Path::new("push_t_vit.safetensors"), BUILT_IN)?,
        (None, Some(repository)) => {
            let file = hub::File { repository, name: "model.safetensors" };
            StateDict::read(&hub::Hub::from_environment().locate(file)?)?
        }
    };
    build(config, weights)
}

/// As [`open`], from weights at hand, which may be part of a larger model.
///
/// # Errors
/// The weights belong to another model, or the image size does not fit.
pub fn build(config: &EncoderConfig, weights: StateDict) -> Result<Box<dyn FrozenEncoder>, Error> {
    Ok(match config.name.dinov2() {
        Some(sizes) => {
            Box::new(Dinov2::new(config.name.as_str(), sizes, (config.image, config.positions), weights)?)
        }
        None => Box::new(MobileNetV2::new(config.image, config.grid, weights)?),
    })
}

/// Checks the lengths that `encode` was given.
pub(crate) fn check_frames(encoder: &dyn FrozenEncoder, frames: &[&[u8]], out: &[f32]) -> Result<(), Error> {
    let (side, tokens, width) = (encoder.image_size(), encoder.tokens(), encoder.width());
    let size = side * side * 3;
    if let Some((i, frame)) = frames.iter().enumerate().find(|(_, frame)| frame.len() != size) {
        let need = format!("{size}, RGB of {side} x {side} pixels: resize the frames");
        return Err(Error::Length { what: format!("frame {i}"), got: frame.len(), need });
    }
    let need = frames.len() * tokens * width;
    if out.len() == need {
        return Ok(());
    }
    let need = format!("{need}, {} frames of {tokens} tokens of {width}", frames.len());
    Err(Error::Length { what: "tokens".into(), got: out.len(), need })
}

#[cfg(test)]
mod tests;
