//! Spatial softmax and mean activation of channels-last maps, and their gradient.

use crate::gemm::{load, store};
use crate::math;
use crate::ops::check_rows;
use crate::simd::{LANES, Lanes, kernel};

/// A square channels-last map `[side, side, channels]`, and the inverse temperature of its softmax.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keypoints {
    /// Positions along one side.
    pub side: usize,
    /// Channels.
    pub channels: usize,
    /// Inverse temperature.
    pub sharpness: f32,
}

impl Keypoints {
    /// Coordinates of a position in [-1, 1].
    #[inline(always)]
    fn place<V: Lanes>(self, position: usize) -> (V, V) {
        let scale = |i: usize| V::splat((2 * i + 1) as f32 / self.side as f32 - 1.0);
        (scale(position % self.side), scale(position / self.side))
    }

    /// `1 / side^2`.
    fn share(self) -> f32 {
        1.0 / (self.side * self.side) as f32
    }

    fn check(self, map: &[f32], keypoints: &[f32]) {
        let (need, given) = (self.side * self.side * self.channels, map.len());
        assert_eq!(given, need, "map: {given} values where {self:?} takes {need}");
        assert_eq!(
            check_rows("keypoints", keypoints.len(), self.channels),
            3,
            "keypoints: not x, y and mean"
        );
    }
}

/// Largest value of each lane over the rows of a map.
#[inline(always)]
fn highest<V: Lanes>(map: &[f32], channels: usize, strip: std::ops::Range<usize>) -> V {
    let rows = map.chunks_exact(channels);
    rows.fold(V::splat(f32::NEG_INFINITY), |highest, row| highest.max(load(&row[strip.clone()])))
}

kernel! {
    /// Of every channel of `map`: expected x and y under the softmax over positions, and the mean of its GELU.
    /// `out` is `[3, channels]`.
    ///
    /// # Panics
    /// If a slice does not fit the shape.
    pub fn keypoints<V>(shape: Keypoints, map: &[f32], out: &mut [f32]) {
        shape.check(map, out);
        let c = shape.channels;
        for start in (0..c).step_by(LANES) {
            let strip = start..c.min(start + LANES);
            let highest: V = highest(map, c, strip.clone());
            let (mut total, mut x, mut y, mut mean) = (V::zero(), V::zero(), V::zero(), V::zero());
            for (position, row) in map.chunks_exact(c).enumerate() {
                let value: V = load(&row[strip.clone()]);
                let weight = math::exp((value - highest) * V::splat(shape.sharpness));
                let (px, py) = shape.place::<V>(position);
                total = total + weight;
                x = weight.mul_add(px, x);
                y = weight.mul_add(py, y);
                mean = mean + math::gelu(value);
            }
            for (i, value) in [x / total, y / total, mean * V::splat(shape.share())].into_iter().enumerate() {
                store(value, &mut out[i * c..][strip.clone()]);
            }
        }
    }
}

kernel! {
    /// Gradient of `map`, given its [`keypoints`] and their gradient, both `[3, channels]`.
    ///
    /// # Panics
    /// If a slice does not fit the shape.
    pub fn keypoints_backward<V>(
        shape: Keypoints, map: &[f32], keypoints: &[f32], grad: &[f32], out: &mut [f32],
    ) {
        shape.check(map, keypoints);
        shape.check(out, grad);
        let c = shape.channels;
        for start in (0..c).step_by(LANES) {
            let strip = start..c.min(start + LANES);
            let highest: V = highest(map, c, strip.clone());
            let mut total = V::zero();
            for (row, out) in map.chunks_exact(c).zip(out.chunks_exact_mut(c)) {
                let value: V = load(&row[strip.clone()]);
                let weight = math::exp((value - highest) * V::splat(shape.sharpness));
                total = total + weight;
                store(weight, &mut out[strip.clone()]);
            }
            let part = |values: &[f32], i: usize| load::<V>(&values[i * c..][strip.clone()]);
            let (x, y) = (part(keypoints, 0), part(keypoints, 1));
            let (d_x, d_y) = (part(grad, 0), part(grad, 1));
            let d_mean = part(grad, 2) * V::splat(shape.share());
            let scale = V::splat(shape.sharpness) / total;
            for (position, (row, out)) in map.chunks_exact(c).zip(out.chunks_exact_mut(c)).enumerate() {
                let (px, py) = shape.place::<V>(position);
                let along = d_x.mul_add(px - x, d_y * (py - y));
                let weight: V = load(&out[strip.clone()]);
                let slope = math::gelu_derivative(load::<V>(&row[strip.clone()]));
                store(slope.mul_add(d_mean, weight * scale * along), &mut out[strip.clone()]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::tests::gelu64;
    use crate::simd::tests::{same_bits, values};

    const SHAPE: Keypoints = Keypoints { side: 3, channels: 21, sharpness: 4.0 };

    /// The definition in f64.
    fn reference(map: &[f32]) -> Vec<f64> {
        let mut out = vec![0.0; 3 * SHAPE.channels];
        for channel in 0..SHAPE.channels {
            let values: Vec<f64> =
                map.iter().skip(channel).step_by(SHAPE.channels).map(|&v| f64::from(v)).collect();
            let total: f64 = values.iter().map(|v| (4.0 * v).exp()).sum();
            for (i, v) in values.iter().enumerate() {
                let weight = (4.0 * v).exp() / total;
                out[channel] += weight * [-2.0 / 3.0, 0.0, 2.0 / 3.0][i % 3];
                out[SHAPE.channels + channel] += weight * [-2.0 / 3.0, 0.0, 2.0 / 3.0][i / 3];
                out[2 * SHAPE.channels + channel] += gelu64(*v) / 9.0;
            }
        }
        out
    }

    #[test]
    fn keypoints_and_gradient_follow_the_definition() {
        let (map, grad) = (values(1, 9 * 21), values(2, 3 * 21));
        let points = same_bits(|| {
            let mut out = vec![f32::NAN; 3 * 21];
            keypoints(SHAPE, &map, &mut out);
            out
        });
        for (got, expected) in points.iter().zip(reference(&map)) {
            assert!((f64::from(*got) - expected).abs() < 1e-6, "{got} {expected}");
        }
        let d_map = same_bits(|| {
            let mut out = vec![f32::NAN; map.len()];
            keypoints_backward(SHAPE, &map, &points, &grad, &mut out);
            out
        });
        for i in 0..map.len() {
            let loss = |h: f32| {
                let mut map = map.clone();
                map[i] += h;
                reference(&map).iter().zip(&grad).map(|(k, &g)| k * f64::from(g)).sum::<f64>()
            };
            let expected = (loss(0.004) - loss(-0.004)) / 0.008;
            assert!((f64::from(d_map[i]) - expected).abs() < 2e-3, "{i}: {} {expected}", d_map[i]);
        }
    }
}
