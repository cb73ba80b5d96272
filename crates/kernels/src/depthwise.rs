//! Depthwise 3x3 convolution of channels-last images: every channel has its own kernel (MobileNet).
//!
//! Sixteen channels are one vector and keep their nine weights in registers along a row of pixels. Every output
//! is one chain of fused multiply-adds over the kernel in row-major order that starts from the bias.

use crate::gemm::{load, store};
use crate::simd::{LANES, kernel};

/// Side of the kernel.
const SIDE: usize = 3;

/// Geometry of a depthwise 3x3 convolution over one image `[height, width, channels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depthwise {
    /// Rows of the image.
    pub height: usize,
    /// Columns of the image.
    pub width: usize,
    /// Channels of image and output.
    pub channels: usize,
    /// Step between kernel places, at least 1.
    pub stride: usize,
    /// Zeros before the first row and column, 0 or 1; after the last there are as many as the output needs.
    pub before: usize,
}

impl Depthwise {
    /// Rows and columns of the output: those of the image over the stride, rounded up.
    pub fn output(&self) -> (usize, usize) {
        (self.height.div_ceil(self.stride), self.width.div_ceil(self.stride))
    }

    /// `y = min(max(conv(x) + bias, 0), 6)`: `x` `[height, width, channels]`, `weight` `[3, 3, channels]`, `bias`
    /// `[channels]`, `y` `[output, channels]`, on the calling thread.
    ///
    /// # Panics
    /// If a slice does not fit the geometry.
    pub fn forward_relu6(&self, weight: &[f32], bias: &[f32], x: &[f32], y: &mut [f32]) {
        let (rows, columns) = self.output();
        let c = self.channels;
        assert!(self.stride >= 1 && self.before < 2, "{self:?} is no geometry");
        for (name, len, need) in [
            ("x", x.len(), self.height * self.width * c),
            ("weight", weight.len(), SIDE * SIDE * c),
            ("bias", bias.len(), c),
            ("y", y.len(), rows * columns * c),
        ] {
            assert_eq!(len, need, "{name}: {len} values where {self:?} takes {need}");
        }
        if c > 0 {
            forward(*self, weight, bias, x, y);
        }
    }
}

kernel! {
    fn forward<V>(shape: Depthwise, weight: &[f32], bias: &[f32], x: &[f32], y: &mut [f32]) {
        let Depthwise { height, width, channels, stride, before } = shape;
        let pitch = width * channels;
        let columns = shape.output().1;
        for (i, y) in y.chunks_exact_mut(columns * channels).enumerate() {
            // A kernel row outside the image adds nothing: any row of the image will do, with weights of zero.
            let inside = |k: usize| (i * stride + k).checked_sub(before).filter(|&row| row < height);
            let rows: [Option<usize>; SIDE] = std::array::from_fn(inside);
            let images = rows.map(|row| &x[row.unwrap_or(0) * pitch..][..pitch]);
            for at in (0..channels).step_by(LANES) {
                let lanes = at..channels.min(at + LANES);
                let mut w = [[V::zero(); SIDE]; SIDE];
                for (k, w) in w.iter_mut().enumerate().filter(|&(k, _)| rows[k].is_some()) {
                    for (l, w) in w.iter_mut().enumerate() {
                        *w = load(&weight[(k * SIDE + l) * channels..][lanes.clone()]);
                    }
                }
                let bias = load::<V>(&bias[lanes.clone()]);
                for j in 0..columns {
                    let mut sum = bias;
                    if j * stride >= before && j * stride + SIDE <= width + before {
                        let start = (j * stride - before) * channels;
                        for (image, w) in images.iter().zip(&w) {
                            for (l, &w) in w.iter().enumerate() {
                                sum = load::<V>(&image[start + l * channels..][lanes.clone()]).mul_add(w, sum);
                            }
                        }
                    } else {
                        for (image, w) in images.iter().zip(&w) {
                            for (l, &w) in w.iter().enumerate() {
                                let column = (j * stride + l).checked_sub(before).filter(|&c| c < width);
                                if let Some(column) = column {
                                    let x = load::<V>(&image[column * channels..][lanes.clone()]);
                                    sum = x.mul_add(w, sum);
                                }
                            }
                        }
                    }
                    store(V::splat(6.0).min(V::zero().max(sum)), &mut y[j * channels..][lanes.clone()]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::tests::{same_bits, values};

    fn definition(s: &Depthwise, weight: &[f32], bias: &[f32], x: &[f32]) -> Vec<f64> {
        let (rows, columns) = s.output();
        let (c, mut y) = (s.channels, Vec::new());
        for (i, j, channel) in (0..rows * columns * c).map(|n| (n / (columns * c), n / c % columns, n % c)) {
            let mut sum = f64::from(bias[channel]);
            for (k, l) in (0..9).map(|n| (n / 3, n % 3)) {
                let (row, column) = (i * s.stride + k, j * s.stride + l);
                let inside = |at: usize, n: usize| at >= s.before && at < n + s.before;
                if inside(row, s.height) && inside(column, s.width) {
                    let pixel = (row - s.before) * s.width + column - s.before;
                    let w = weight[(k * 3 + l) * c + channel];
                    sum += f64::from(x[pixel * c + channel]) * f64::from(w);
                }
            }
            y.push(sum.clamp(0.0, 6.0));
        }
        y
    }

    #[test]
    fn every_geometry_follows_the_definition() {
        for (height, width, channels, stride, before) in [
            (6, 8, 32, 1, 1),
            (6, 8, 32, 2, 1),
            (6, 8, 20, 2, 0),
            (7, 5, 16, 2, 1),
            (1, 1, 3, 1, 1),
            (2, 1, 17, 2, 0),
        ] {
            let s = Depthwise { height, width, channels, stride, before };
            let x: Vec<f32> = values(1, height * width * channels).iter().map(|v| 4.0 * v).collect();
            let (weight, bias) = (values(2, 9 * channels), values(3, channels));
            let (rows, columns) = s.output();
            let got = same_bits(|| {
                let mut y = vec![f32::NAN; rows * columns * channels];
                s.forward_relu6(&weight, &bias, &x, &mut y);
                y
            });
            for (i, (&g, e)) in got.iter().zip(definition(&s, &weight, &bias, &x)).enumerate() {
                assert!((f64::from(g) - e).abs() < 1e-5, "{s:?} {i}: {g} against {e}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "weight: 5 values")]
    fn a_misfit_names_the_slice() {
        let s = Depthwise { height: 1, width: 1, channels: 1, stride: 1, before: 1 };
        s.forward_relu6(&[0.0; 5], &[0.0], &[0.0], &mut [0.0]);
    }
}
