//! Convolutional encoder of the compact models: a patchifying stem, convolutions, a readout of the last feature maps,
//! a dense layer with BatchNorm, and on request a linear head behind it.
//!
//! A frame enters as bytes, [R, R, 3]; the stem reads its difference from the background (the median frame of the
//! training data), so that only what moves is seen.

use serde::{Deserialize, Serialize};

use super::keypoints::{self, Maps};
use super::linear;
use super::params::{Affine, Linear, ParamTable};

mod alone;
mod trunk;

pub use alone::EncoderTape;
pub(super) use trunk::Packed;
pub use trunk::Trunk;

/// Weight of the newest batch in the running BatchNorm statistics.
const MOMENTUM: f32 = 0.1;

/// Size of the encoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Side of the square frame in pixels, a multiple of `patch` and all strides together.
    pub resolution: usize,
    /// Side of a stem patch in pixels.
    pub patch: usize,
    /// Side of the convolution kernels: 2 (patches, stride 2 only) or 3 (overlapping).
    pub kernel: usize,
    /// Channels after the stem and after each convolution.
    pub widths: Vec<usize>,
    /// Strides of the convolutions, 1 or 2 each.
    pub strides: Vec<usize>,
    /// How the last feature map is read.
    pub readout: Readout,
    /// Width of the dense layer; 0 leaves it and its activation out, so that the embedding is a linear, normalised
    /// readout of the features.
    pub hidden: usize,
    /// Width of the embedding.
    pub latent: usize,
}

/// How a feature map becomes one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Readout {
    /// All activations side by side.
    Flatten,
    /// Position and mean activation of every channel, see `keypoints`.
    Keypoints,
}

impl EncoderConfig {
    /// Side of the feature map after `stage` convolutions.
    #[must_use]
    pub fn side(&self, stage: usize) -> usize {
        let stem = self.resolution / self.patch;
        self.strides.iter().take(stage).fold(stem, |side, stride| side / stride)
    }

    /// Width that BatchNorm sees: the dense layer's, or without one the embedding's.
    #[must_use]
    pub fn normed(&self) -> usize {
        if self.hidden == 0 { self.latent } else { self.hidden }
    }

    fn maps(&self) -> Maps {
        Maps {
            side: self.side(self.strides.len()),
            channels: self.widths.last().copied().unwrap_or_default(),
        }
    }
}

/// The encoder's layers.
#[derive(Clone, Debug)]
pub struct Encoder {
    /// Size.
    pub config: EncoderConfig,
    /// Frame that is subtracted from every other, [R, R, 3] in 0..=255; white unless set.
    pub background: Vec<f32>,
    /// Patches to the first feature map.
    pub stem: Linear,
    /// Convolutions; a weight is [K * K * channels, outputs].
    pub convs: Vec<Linear>,
    /// Features to the dense features.
    pub dense: Linear,
    /// BatchNorm of the dense features.
    pub norm: Affine,
    /// Dense features to the embedding; none without a hidden layer.
    pub head: Option<Linear>,
}

/// BatchNorm over all rows of a batch.
pub struct BatchNorm {
    /// Mean over the batch, [hidden].
    pub mean: Vec<f32>,
    /// Biased variance over the batch, [hidden].
    pub variance: Vec<f32>,
}

impl Encoder {
    /// Declares the layers.
    pub fn declare(table: &mut ParamTable, config: &EncoderConfig) -> Self {
        let widths = &config.widths;
        let maps = config.maps();
        let features = match config.readout {
            Readout::Flatten => maps.side * maps.side * maps.channels,
            Readout::Keypoints => keypoints::VALUES * maps.channels,
        };
        let convs = widths.windows(2).enumerate().map(|(i, pair)| {
            let inputs = config.kernel * config.kernel * pair[0];
            (i + 1, inputs, pair[1])
        });
        let stem = config.patch * config.patch * 3;
        Self {
            stem: Linear::declare(
                table,
                "encoder.stem",
                stem,
                widths.first().copied().unwrap_or_default(),
                1.4,
            ),
            convs: convs
                .map(|(i, inputs, outputs)| {
                    Linear::declare(table, &format!("encoder.conv{i}"), inputs, outputs, 1.4)
                })
                .collect(),
            dense: Linear::declare(table, "encoder.dense", features, config.normed(), 1.0),
            norm: Affine::declare(table, "encoder.norm", config.normed()),
            head: (config.hidden > 0)
                .then(|| Linear::declare(table, "encoder.head", config.hidden, config.latent, 1.0)),
            background: vec![255.0; config.resolution * config.resolution * 3],
            config: config.clone(),
        }
    }

    /// Bytes of one frame.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.config.resolution * self.config.resolution * 3
    }

    /// What the stem reads of a frame.
    fn pixels(&self, frame: &[u8], out: &mut [f32]) {
        for ((out, &v), background) in out.iter_mut().zip(frame).zip(&self.background) {
            *out = (background - f32::from(v)) * (1.0 / 64.0);
        }
    }

    /// Features [N, F] of the last feature maps, before their activation.
    fn read(&self, maps: &[f32]) -> Vec<f32> {
        match self.config.readout {
            Readout::Flatten => linear::gelu(maps),
            Readout::Keypoints => self.config.maps().forward(maps),
        }
    }

    /// Embedding of dense features with the given BatchNorm statistics: (activation input, embedding).
    #[must_use]
    pub fn embed(&self, params: &[f32], dense: &[f32], norm: &BatchNorm) -> (Vec<f32>, Vec<f32>) {
        let mut pre = norm.normalise(dense);
        let (weight, bias) = (&params[self.norm.weight.clone()], &params[self.norm.bias.clone()]);
        for row in pre.chunks_exact_mut(weight.len()) {
            row.iter_mut().zip(weight).zip(bias).for_each(|((v, w), b)| *v = *v * w + b);
        }
        match &self.head {
            Some(head) => {
                let z = linear::forward(params, head, &linear::gelu(&pre));
                (pre, z)
            }
            None => (vec![], pre),
        }
    }

    /// Gradient of the *normalised* dense features (before the affine part), given that of the embedding.
    #[must_use]
    pub fn embed_backward(
        &self,
        params: &[f32],
        dense: &[f32],
        norm: &BatchNorm,
        pre: &[f32],
        grad: &[f32],
        grads: &mut [f32],
    ) -> Vec<f32> {
        let mut d = match &self.head {
            Some(head) => {
                let d = linear::backward(params, head, &linear::gelu(pre), grad, grads);
                linear::gelu_backward(pre, &d)
            }
            None => grad.to_vec(),
        };
        let normalised = norm.normalise(dense);
        let width = self.config.normed();
        for (row, u) in d.chunks_exact_mut(width).zip(normalised.chunks_exact(width)) {
            for j in 0..width {
                grads[self.norm.weight.start + j] += row[j] * u[j];
                grads[self.norm.bias.start + j] += row[j];
                row[j] *= params[self.norm.weight.start + j];
            }
        }
        d
    }
}

impl BatchNorm {
    /// Statistics of `x` [N, width].
    #[must_use]
    pub fn of(x: &[f32], width: usize) -> Self {
        let scale = width as f32 / x.len() as f32;
        let mut mean = vec![0.0; width];
        for row in x.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(m, v)| *m += v);
        }
        mean.iter_mut().for_each(|m| *m *= scale);
        let mut variance = vec![0.0; width];
        for row in x.chunks_exact(width) {
            variance.iter_mut().zip(row).zip(&mean).for_each(|((s, v), m)| *s += (v - m) * (v - m));
        }
        variance.iter_mut().for_each(|s| *s *= scale);
        Self { mean, variance }
    }

    /// Moves running statistics towards this batch of `n` rows (unbiased variance, as PyTorch does).
    pub fn update_running(&self, mean: &mut [f32], variance: &mut [f32], n: usize) {
        let unbias = n as f32 / (n - 1).max(1) as f32;
        for ((m, v), (bm, bv)) in mean.iter_mut().zip(variance).zip(self.mean.iter().zip(&self.variance)) {
            *m += MOMENTUM * (bm - *m);
            *v += MOMENTUM * (bv * unbias - *v);
        }
    }

    fn normalise(&self, x: &[f32]) -> Vec<f32> {
        let inverse: Vec<f32> = self.variance.iter().map(|v| 1.0 / (v + 1e-5).sqrt()).collect();
        let mut out = x.to_vec();
        for row in out.chunks_exact_mut(self.mean.len()) {
            row.iter_mut().zip(&self.mean).zip(&inverse).for_each(|((v, m), i)| *v = (*v - m) * i);
        }
        out
    }

    /// Gradient of `x` given that of its normalised form, statistics being functions of `x`.
    #[must_use]
    pub fn backward(&self, x: &[f32], grad: &[f32]) -> Vec<f32> {
        let width = self.mean.len();
        let scale = width as f32 / x.len() as f32;
        let normalised = self.normalise(x);
        let (mut mean, mut along) = (vec![0.0f32; width], vec![0.0f32; width]);
        for (g, u) in grad.chunks_exact(width).zip(normalised.chunks_exact(width)) {
            for j in 0..width {
                mean[j] += g[j] * scale;
                along[j] += g[j] * u[j] * scale;
            }
        }
        let mut out = grad.to_vec();
        for (d, u) in out.chunks_exact_mut(width).zip(normalised.chunks_exact(width)) {
            for j in 0..width {
                d[j] = (d[j] - mean[j] - u[j] * along[j]) / (self.variance[j] + 1e-5).sqrt();
            }
        }
        out
    }
}
