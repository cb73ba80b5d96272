//! Convolutional encoder of the compact models: a patchifying stem, two strided 3x3 convolutions, a dense layer with
//! BatchNorm, and a linear head.
//!
//! A frame enters as bytes, [R, R, 3]; the stem reads `(255 - v) / 64`, so that a white background is zero.
//! Convolutions are unfolded a few frames at a time to stay in cache; the backward pass unfolds again instead
//! of keeping the unfolded input.

use serde::{Deserialize, Serialize};
use worldbench_kernels::grad::{Conv, col2im_nhwc, im2col_nhwc};

use super::linear;
use super::params::{Affine, Linear, ParamTable};

/// Side of a stem patch in pixels.
const PATCH: usize = 4;
/// Frames unfolded at a time.
const CHUNK: usize = 16;
/// Weight of the newest batch in the running BatchNorm statistics.
const MOMENTUM: f32 = 0.1;

/// Size of the encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Side of the square frame in pixels, a multiple of 16.
    pub resolution: usize,
    /// Channels after the stem and the two convolutions.
    pub widths: [usize; 3],
    /// Width of the dense layer.
    pub hidden: usize,
    /// Width of the embedding.
    pub latent: usize,
}

/// The encoder's layers.
#[derive(Clone, Debug)]
pub struct Encoder {
    /// Size.
    pub config: EncoderConfig,
    /// Patches to the first feature map.
    pub stem: Linear,
    /// Two 3x3 convolutions of stride 2, as dense layers on unfolded input.
    pub convs: [Linear; 2],
    /// Flattened feature map to the dense features.
    pub dense: Linear,
    /// BatchNorm of the dense features.
    pub norm: Affine,
    /// Dense features to the embedding.
    pub head: Linear,
}

/// Feature maps before their activation, kept for the backward pass, and the dense output.
pub struct Trunk {
    stem: Vec<f32>,
    convs: [Vec<f32>; 2],
    /// Dense features before BatchNorm, [N, hidden].
    pub dense: Vec<f32>,
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
        let [a, b, c] = config.widths;
        let side = config.resolution / 16;
        Self {
            stem: Linear::declare(table, "encoder.stem", PATCH * PATCH * 3, a, 1.4),
            convs: [
                Linear::declare(table, "encoder.conv1", 9 * a, b, 1.4),
                Linear::declare(table, "encoder.conv2", 9 * b, c, 1.4),
            ],
            dense: Linear::declare(table, "encoder.dense", side * side * c, config.hidden, 1.0),
            norm: Affine::declare(table, "encoder.norm", config.hidden),
            head: Linear::declare(table, "encoder.head", config.hidden, config.latent, 1.0),
            config: config.clone(),
        }
    }

    /// Bytes of one frame.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.config.resolution * self.config.resolution * 3
    }

    pub(super) fn patches(&self, frames: &[u8]) -> Vec<f32> {
        let side = self.config.resolution;
        let row = side * 3;
        let mut out = Vec::with_capacity(frames.len());
        for frame in frames.chunks_exact(self.frame_bytes()) {
            for band in frame.chunks_exact(PATCH * row) {
                for x in 0..side / PATCH {
                    for line in band.chunks_exact(row) {
                        let pixels = &line[x * PATCH * 3..(x + 1) * PATCH * 3];
                        out.extend(pixels.iter().map(|&v| f32::from(255 - v) * (1.0 / 64.0)));
                    }
                }
            }
        }
        out // [N * (R/4)^2, 48]
    }

    pub(super) fn unfold(&self, stage: usize, input: &[f32], frames: usize) -> Vec<f32> {
        let conv = self.conv(stage, frames);
        let (rows, columns) = conv.patches();
        let mut out = vec![0.0; rows * columns];
        im2col_nhwc(&conv, input, &mut out);
        out
    }

    fn conv(&self, stage: usize, batch: usize) -> Conv {
        let side = self.config.resolution / (PATCH << stage);
        Conv {
            batch,
            height: side,
            width: side,
            channels: self.config.widths[stage],
            kernel: (3, 3),
            stride: 2,
            pad: 1,
        }
    }

    /// Dense features of `frames` (concatenated [R, R, 3] bytes), before BatchNorm.
    #[must_use]
    pub fn trunk(&self, params: &[f32], frames: &[u8]) -> Trunk {
        let mut out = Trunk { stem: vec![], convs: [vec![], vec![]], dense: vec![] };
        for chunk in frames.chunks(CHUNK * self.frame_bytes()) {
            let n = chunk.len() / self.frame_bytes();
            let stem = linear::forward(params, &self.stem, &self.patches(chunk));
            let first = linear::forward(params, &self.convs[0], &self.unfold(0, &linear::gelu(&stem), n));
            let second = linear::forward(params, &self.convs[1], &self.unfold(1, &linear::gelu(&first), n));
            out.stem.extend(stem);
            out.convs[0].extend(first);
            out.convs[1].extend(second);
        }
        // The dense weight is large, so it is packed once for all frames.
        out.dense = linear::forward(params, &self.dense, &linear::gelu(&out.convs[1]));
        out
    }

    /// Adds the trunk's weight gradients, given the gradient of its dense output.
    pub fn trunk_backward(
        &self,
        params: &[f32],
        frames: &[u8],
        trunk: &Trunk,
        grad: &[f32],
        grads: &mut [f32],
    ) {
        let flat = linear::gelu(&trunk.convs[1]);
        let d_second = linear::backward(params, &self.dense, &flat, grad, grads);
        let d_second = linear::gelu_backward(&trunk.convs[1], &d_second);
        let bytes = self.frame_bytes();
        let total = frames.len() / bytes;
        for first in (0..total).step_by(CHUNK) {
            let n = CHUNK.min(total - first);
            let part = |v: &[f32]| {
                let each = v.len() / total;
                first * each..(first + n) * each
            };
            let pre1 = &trunk.convs[0][part(&trunk.convs[0])];
            let d1 = self.conv_backward(params, 1, pre1, &d_second[part(&d_second)], n, grads);
            let d1 = linear::gelu_backward(pre1, &d1);
            let pre0 = &trunk.stem[part(&trunk.stem)];
            let d0 = self.conv_backward(params, 0, pre0, &d1, n, grads);
            let d0 = linear::gelu_backward(pre0, &d0);
            let patches = self.patches(&frames[first * bytes..(first + n) * bytes]);
            linear::backward_weights(&self.stem, &patches, &d0, grads);
        }
    }

    fn conv_backward(
        &self,
        params: &[f32],
        stage: usize,
        pre: &[f32],
        grad: &[f32],
        n: usize,
        grads: &mut [f32],
    ) -> Vec<f32> {
        let unfolded = self.unfold(stage, &linear::gelu(pre), n);
        let d_unfolded = linear::backward(params, &self.convs[stage], &unfolded, grad, grads);
        let mut d_input = vec![0.0; pre.len()];
        col2im_nhwc(&self.conv(stage, n), &d_unfolded, &mut d_input);
        d_input
    }

    /// Embedding of dense features with the given BatchNorm statistics: (activation input, embedding).
    #[must_use]
    pub fn embed(&self, params: &[f32], dense: &[f32], norm: &BatchNorm) -> (Vec<f32>, Vec<f32>) {
        let mut pre = norm.normalise(dense);
        let (weight, bias) = (&params[self.norm.weight.clone()], &params[self.norm.bias.clone()]);
        for row in pre.chunks_exact_mut(weight.len()) {
            row.iter_mut().zip(weight).zip(bias).for_each(|((v, w), b)| *v = *v * w + b);
        }
        let z = linear::forward(params, &self.head, &linear::gelu(&pre));
        (pre, z)
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
        let d = linear::backward(params, &self.head, &linear::gelu(pre), grad, grads);
        let mut d = linear::gelu_backward(pre, &d);
        let normalised = norm.normalise(dense);
        let width = self.config.hidden;
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
