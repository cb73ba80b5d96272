//! The encoder's trunk in training: stem, convolutions and the dense layer, frame by frame.
//!
//! Maps are kept before their activation; the backward pass activates them again instead of keeping both. One
//! frame's buffers stay in cache, and the borders that convolutions read are cleared once per pass.

use worldbench_kernels::Scratch;
use worldbench_kernels::conv::{Conv2d, Grid, Transposed, Weights};
use worldbench_kernels::grad::{add_rows, gelu_backward, gelu_with_derivative};
use worldbench_kernels::ops;

use super::{Encoder, Readout, linear};
use crate::compact::params::Linear;

/// What the backward pass needs of a forward call over N frames.
pub struct Trunk {
    /// Feature maps before their activation, the stem's first, each [N, side, side, channels].
    maps: Vec<Scratch>,
    /// What was read from the last one, [N, F].
    features: Vec<f32>,
    /// Dense features before BatchNorm, [N, hidden].
    pub dense: Vec<f32>,
}

/// Packed weights and biases of the stem and the convolutions.
pub(crate) struct Packed(Vec<(Weights, Vec<f32>)>);

/// The stem or one convolution, with the buffers of one frame.
struct Stage<'a> {
    conv: Conv2d,
    layer: &'a Linear,
    /// Activated input in its border.
    input: Scratch,
    /// Derivative of the activation at the input, without a border; the backward pass only.
    slope: Scratch,
    /// Gradient of the output in its border.
    gradient: Scratch,
}

impl Stage<'_> {
    /// The output without a border.
    fn output(&self) -> Grid {
        Grid { border: 0, ..self.conv.output() }
    }

    /// Takes the activated `map` as input.
    fn activate(&mut self, map: &[f32]) {
        let grid = self.conv.input();
        for (y, row) in map.chunks_exact(grid.width * grid.channels).enumerate() {
            ops::gelu(row, &mut self.input[grid.row(y)]);
        }
    }

    /// As [`Self::activate`], with the activation's derivative.
    fn activate_with_slope(&mut self, map: &[f32]) {
        let grid = self.conv.input();
        let row = grid.width * grid.channels;
        for (y, (map, slope)) in map.chunks_exact(row).zip(self.slope.chunks_exact_mut(row)).enumerate() {
            gelu_with_derivative(map, &mut self.input[grid.row(y)], slope);
        }
    }

    /// Takes the gradient of the output.
    fn set_gradient(&mut self, grad: &[f32]) {
        let grid = self.conv.output();
        for (y, row) in grad.chunks_exact(grid.width * grid.channels).enumerate() {
            self.gradient[grid.row(y)].copy_from_slice(row);
        }
    }

    /// Gradient of the input before its activation.
    fn backward_input(&self, weights: &Transposed) -> Scratch {
        let mut grad = Scratch::stale(self.slope.len());
        self.conv.backward_input(weights, &self.gradient, &mut grad);
        grad.iter_mut().zip(&self.slope[..]).for_each(|(g, slope)| *g *= slope);
        grad
    }

    /// Adds the gradients of weight and bias.
    fn backward_weights(&self, grads: &mut [f32]) {
        let grid = self.conv.output();
        for y in 0..grid.height {
            add_rows(&self.gradient[grid.row(y)], &mut grads[self.layer.bias.clone()]);
        }
        self.conv.backward_weights(&self.input, &self.gradient, &mut grads[self.layer.weight.clone()]);
    }
}

impl Encoder {
    fn stages(&self) -> Vec<Stage<'_>> {
        let config = &self.config;
        let stage = |(i, &outputs): (usize, &usize)| {
            let (layer, height, channels, kernel, stride) = match i.checked_sub(1) {
                None => (&self.stem, config.resolution, 3, config.patch, config.patch),
                Some(i) => {
                    (&self.convs[i], config.side(i), config.widths[i], config.kernel, config.strides[i])
                }
            };
            let pad = if i == 0 { 0 } else { (kernel - 1) / 2 };
            let conv = Conv2d { height, width: height, channels, outputs, kernel, stride, pad };
            Stage {
                conv,
                layer,
                input: Scratch::zeros(conv.input().len()),
                slope: Scratch::stale(height * height * channels),
                gradient: Scratch::zeros(conv.output().len()),
            }
        };
        config.widths.iter().enumerate().map(stage).collect()
    }

    /// Packs the stem and the convolutions.
    #[must_use]
    pub(crate) fn pack(&self, params: &[f32]) -> Packed {
        let packed =
            |s: Stage| (s.conv.pack(&params[s.layer.weight.clone()]), params[s.layer.bias.clone()].to_vec());
        Packed(self.stages().into_iter().map(packed).collect())
    }

    /// Every stage's feature maps of `frames`, each [R, R, 3] bytes.
    fn maps(&self, packed: &Packed, frames: &[&[u8]]) -> Vec<Scratch> {
        let total = frames.len();
        let mut stages = self.stages();
        let mut maps: Vec<_> = stages.iter().map(|s| Scratch::stale(total * s.output().len())).collect();
        for (i, frame) in frames.iter().enumerate() {
            for (at, (stage, (weights, bias))) in stages.iter_mut().zip(&packed.0).enumerate() {
                let (done, next) = maps.split_at_mut(at);
                match done.last() {
                    None => self.pixels(frame, &mut stage.input),
                    Some(maps) => stage.activate(part(maps, total, i)),
                }
                let each = stage.output().len();
                let map = &mut next[0][i * each..(i + 1) * each];
                stage.conv.forward(weights, bias, &stage.input, map);
            }
        }
        maps
    }

    /// Features [N, F] that the dense layer reads.
    pub(crate) fn features(&self, packed: &Packed, frames: &[&[u8]]) -> Vec<f32> {
        self.read(&self.maps(packed, frames)[self.convs.len()])
    }

    /// Dense features of `frames`, each [R, R, 3] bytes, before BatchNorm.
    #[must_use]
    pub fn trunk(&self, params: &[f32], frames: &[&[u8]]) -> Trunk {
        let maps = self.maps(&self.pack(params), frames);
        let features = self.read(&maps[self.convs.len()]);
        let dense = linear::forward(params, &self.dense, &features);
        Trunk { maps, features, dense }
    }

    /// Adds the trunk's weight gradients, given the gradient of its dense output.
    pub fn trunk_backward(
        &self,
        params: &[f32],
        frames: &[&[u8]],
        trunk: &Trunk,
        grad: &[f32],
        grads: &mut [f32],
    ) {
        let total = frames.len();
        let d_features = linear::backward(params, &self.dense, &trunk.features, grad, grads);
        let mut stages = self.stages();
        let weights: Vec<_> =
            stages[1..].iter().map(|s| s.conv.transpose(&params[s.layer.weight.clone()])).collect();
        for (i, frame) in frames.iter().enumerate() {
            let map = |at: usize| part(&trunk.maps[at], total, i);
            let (features, d_features) = (part(&trunk.features, total, i), part(&d_features, total, i));
            let last = self.convs.len();
            stages[last].set_gradient(&self.read_backward(map(last), features, d_features));
            for at in (0..stages.len()).rev() {
                let (below, stage) = stages.split_at_mut(at);
                let stage = &mut stage[0];
                let Some(below) = below.last_mut() else {
                    self.pixels(frame, &mut stage.input);
                    stage.backward_weights(grads);
                    continue;
                };
                stage.activate_with_slope(map(at - 1));
                stage.backward_weights(grads);
                below.set_gradient(&stage.backward_input(&weights[at - 1]));
            }
        }
    }

    /// Gradient of one frame's last `map`, before its activation, given that of its features.
    fn read_backward(&self, map: &[f32], features: &[f32], grad: &[f32]) -> Scratch {
        let mut out = Scratch::stale(map.len());
        match self.config.readout {
            Readout::Flatten => gelu_backward(map, grad, &mut out),
            Readout::Keypoints => self.config.maps().backward(map, features, grad, &mut out),
        }
        out
    }
}

/// Item `i` of `total` equal parts.
fn part(values: &[f32], total: usize, i: usize) -> &[f32] {
    let each = values.len() / total;
    &values[i * each..(i + 1) * each]
}
