//! A small transformer that turns patch tokens back into pixels: the masked autoencoder's second half, and what makes
//! DINO-WM's imagined frames visible.

use burn::tensor::Tensor;
use worldbench_nn::blocks::Linear;
use worldbench_nn::norm::LayerNorm;
use worldbench_nn::vit::{Layer, VitConfig};
use worldbench_nn::{Init, Scope};

use crate::planning::{IMAGE_MEAN, IMAGE_STD};

const EPS: f64 = 1e-6;
const INIT: Init = Init::Normal(0.02);

/// The decoder, bound to a device.
#[derive(Clone, Debug)]
pub struct PatchDecoder {
    heads: usize,
    bridge: Linear,
    positions: Tensor<3>,
    layers: Vec<Layer>,
    norm: LayerNorm,
    pixels: Linear,
}

impl PatchDecoder {
    /// All keys under `{key}.`; reads tokens of width `inputs`.
    pub fn new(scope: &mut Scope, key: &str, inputs: usize, c: &VitConfig) -> Self {
        let patches = (c.image / c.patch).pow(2);
        let positions = format!("{key}.position_embeddings");
        Self {
            heads: c.heads,
            bridge: Linear::new(scope, &format!("{key}.bridge"), inputs, c.hidden),
            positions: scope.param(&positions, [1, patches, c.hidden], INIT),
            layers: (0..c.layers).map(|i| Layer::new(scope, &format!("{key}.layer.{i}"), c)).collect(),
            norm: LayerNorm::new(scope, &format!("{key}.layernorm"), c.hidden, EPS),
            pixels: Linear::new(scope, &format!("{key}.pixels"), c.hidden, 3 * c.patch.pow(2)),
        }
    }

    /// Tokens `[B, N, in]` to the decoder's width, `[B, N, D]`.
    #[must_use]
    pub fn bridge(&self, tokens: Tensor<3>) -> Tensor<3> {
        self.bridge.forward(tokens)
    }

    /// Bridged tokens `[B, P, D]` to normalised patches `[B, P, 3 p p]`.
    #[must_use]
    pub fn decode(&self, bridged: Tensor<3>) -> Tensor<3> {
        let mut x = bridged + self.positions.clone();
        for layer in &self.layers {
            x = layer.forward(x, self.heads);
        }
        self.pixels.forward(self.norm.forward(x))
    }
}

/// Normalised patches `[P, 3 p p]` of an RGB frame `[R, R, 3]`, channel-major as in a convolution's weight, appended to
/// `out`.
pub fn cut(frame: &[u8], side: usize, patch: usize, out: &mut Vec<f32>) {
    for_each_value(side, patch, |pixel, channel| {
        out.push((f32::from(frame[pixel * 3 + channel]) / 255.0 - IMAGE_MEAN[channel]) / IMAGE_STD[channel]);
    });
}

/// The frame `[R, R, 3]` of normalised patches `[P, 3 p p]`: the inverse of [`cut`], clipped to bytes.
#[must_use]
pub fn join(patches: &[f32], side: usize, patch: usize) -> Vec<u8> {
    let mut frame = vec![0; side * side * 3];
    let mut values = patches.iter();
    for_each_value(side, patch, |pixel, channel| {
        let value = values.next().copied().unwrap_or_default();
        let bright = (value * IMAGE_STD[channel] + IMAGE_MEAN[channel]) * 255.0;
        frame[pixel * 3 + channel] = bright.round().clamp(0.0, 255.0) as u8;
    });
    frame
}

/// Calls `each` with pixel and channel in the order of patches.
fn for_each_value(side: usize, patch: usize, mut each: impl FnMut(usize, usize)) {
    let grid = side / patch;
    for p in 0..grid * grid {
        let (top, left) = (p / grid * patch, p % grid * patch);
        for channel in 0..3 {
            for y in top..top + patch {
                (left..left + patch).for_each(|x| each(y * side + x, channel));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_frames_join_again() {
        let frame: Vec<u8> = (0..12 * 12 * 3).map(|i| (i * 7 % 256) as u8).collect();
        let mut patches = Vec::new();
        cut(&frame, 12, 4, &mut patches);
        assert_eq!(join(&patches, 12, 4), frame);
        // Patch 1 begins at column 4; its second channel follows all 16 values of the first.
        let expected = (f32::from(frame[4 * 3 + 1]) / 255.0 - IMAGE_MEAN[1]) / IMAGE_STD[1];
        assert_eq!(patches[48 + 16], expected);
    }
}
