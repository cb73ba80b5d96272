//! Keypoint readout: every channel of a feature map tells where its evidence lies and how much there is.
//!
//! A softmax over the map's positions turns a channel into an expected position (spatial softmax, Levine et al.
//! 2016, arXiv 1504.00702); the mean of its activation tells how much it saw. Positions are smooth in the pose of what
//! is seen, which a flattened map is not: the latter learns poses by heart.

use worldbench_kernels::grad::gelu_backward;
use worldbench_kernels::ops;

/// Values of one channel: x, y and mean activation.
pub const VALUES: usize = 3;
/// Inverse temperature of the softmax.
const SHARPNESS: f32 = 4.0;

/// Square feature maps, channels last: [N, side, side, channels].
#[derive(Clone, Copy, Debug)]
pub struct Maps {
    /// Positions along one side.
    pub side: usize,
    /// Channels.
    pub channels: usize,
}

impl Maps {
    fn len(self) -> usize {
        self.side * self.side * self.channels
    }

    /// Coordinates of a position in [-1, 1].
    fn place(self, position: usize) -> (f32, f32) {
        let scale = |i: usize| (2 * i + 1) as f32 / self.side as f32 - 1.0;
        (scale(position % self.side), scale(position / self.side))
    }

    /// Keypoints of `maps` (before their activation): [N, 3, channels] as x, y, mean activation.
    pub fn forward(self, maps: &[f32]) -> Vec<f32> {
        let c = self.channels;
        let mut activated = vec![0.0; self.len()];
        let mut out = vec![0.0; maps.len() / self.len() * VALUES * c];
        for (map, out) in maps.chunks_exact(self.len()).zip(out.chunks_exact_mut(VALUES * c)) {
            let (share, (x, y)) = (self.softmax(map), out.split_at_mut(c));
            let (y, mean) = y.split_at_mut(c);
            ops::gelu(map, &mut activated);
            let scale = 1.0 / (self.side * self.side) as f32;
            for (position, (share, value)) in share.chunks_exact(c).zip(activated.chunks_exact(c)).enumerate()
            {
                let (px, py) = self.place(position);
                for j in 0..c {
                    x[j] += share[j] * px;
                    y[j] += share[j] * py;
                    mean[j] += value[j] * scale;
                }
            }
        }
        out
    }

    /// Gradient of the maps, given that of their keypoints.
    pub fn backward(self, maps: &[f32], keypoints: &[f32], grad: &[f32]) -> Vec<f32> {
        let c = self.channels;
        let scale = 1.0 / (self.side * self.side) as f32;
        let mut out = vec![0.0; maps.len()];
        let mut d_mean = vec![0.0; self.len()];
        let rows = keypoints.chunks_exact(VALUES * c).zip(grad.chunks_exact(VALUES * c));
        for ((map, out), (keypoints, grad)) in
            maps.chunks_exact(self.len()).zip(out.chunks_exact_mut(self.len())).zip(rows)
        {
            for row in d_mean.chunks_exact_mut(c) {
                row.iter_mut().zip(&grad[2 * c..]).for_each(|(d, g)| *d = g * scale);
            }
            gelu_backward(map, &d_mean, out);
            let share = self.softmax(map);
            for (position, (share, out)) in share.chunks_exact(c).zip(out.chunks_exact_mut(c)).enumerate() {
                let (px, py) = self.place(position);
                for j in 0..c {
                    let along = grad[j] * (px - keypoints[j]) + grad[c + j] * (py - keypoints[c + j]);
                    out[j] += SHARPNESS * share[j] * along;
                }
            }
        }
        out
    }

    /// Every channel's softmax over the positions, [side * side, channels].
    fn softmax(self, map: &[f32]) -> Vec<f32> {
        let c = self.channels;
        let mut highest = vec![f32::NEG_INFINITY; c];
        for row in map.chunks_exact(c) {
            highest.iter_mut().zip(row).for_each(|(h, v)| *h = h.max(*v));
        }
        let mut shifted = map.to_vec();
        for row in shifted.chunks_exact_mut(c) {
            row.iter_mut().zip(&highest).for_each(|(v, h)| *v = SHARPNESS * (*v - h));
        }
        let mut share = vec![0.0; map.len()];
        ops::exp(&shifted, &mut share);
        let mut total = vec![0.0f32; c];
        for row in share.chunks_exact(c) {
            total.iter_mut().zip(row).for_each(|(t, v)| *t += v);
        }
        total.iter_mut().for_each(|t| *t = 1.0 / *t);
        for row in share.chunks_exact_mut(c) {
            row.iter_mut().zip(&total).for_each(|(v, t)| *v *= t);
        }
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldbench_core::Stream;

    #[test]
    fn a_bright_spot_is_found() {
        let maps = Maps { side: 4, channels: 1 };
        let mut map = vec![0.0; 16];
        map[4 + 2] = 20.0;
        let keypoints = maps.forward(&map);
        assert!((keypoints[0] - 0.25).abs() < 1e-5 && (keypoints[1] + 0.25).abs() < 1e-5);
        assert!((keypoints[2] - 20.0 / 16.0).abs() < 1e-5);
    }

    #[test]
    fn gradients_match_finite_differences() {
        let maps = Maps { side: 3, channels: 2 };
        let mut stream = Stream::new(1, "keypoints", &[]);
        let (mut map, mut grad) = (vec![0.0f32; 18], vec![0.0f32; 6]);
        stream.fill_normal(&mut map);
        stream.fill_normal(&mut grad);
        map.iter_mut().for_each(|v| *v *= 0.3);
        let loss = |map: &[f32]| maps.forward(map).iter().zip(&grad).map(|(k, g)| k * g).sum::<f32>();
        let analytic = maps.backward(&map, &maps.forward(&map), &grad);
        for i in 0..map.len() {
            let at = |h: f32| {
                let mut moved = map.clone();
                moved[i] += h;
                loss(&moved)
            };
            let numeric = (at(5e-3) - at(-5e-3)) / 1e-2;
            assert!((numeric - analytic[i]).abs() < 2e-3, "{i}: {numeric} against {}", analytic[i]);
        }
    }
}
