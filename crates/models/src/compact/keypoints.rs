//! Keypoint readout: every channel of a feature map tells where its evidence lies.
//!
//! A softmax over the map's positions turns a channel into an expected position (spatial softmax, Levine et al.
//! 2016, arXiv 1504.00702). Positions are smooth in the pose of what is seen, which a flattened map is not: the
//! latter learns poses by heart.

use worldbench_kernels::ops;

/// Values of one channel: x and y.
pub const VALUES: usize = 2;
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

    /// Keypoints of `maps`: [N, 2, channels] as x, y.
    pub fn forward(self, maps: &[f32]) -> Vec<f32> {
        let c = self.channels;
        let mut out = vec![0.0; maps.len() / self.len() * VALUES * c];
        for (map, out) in maps.chunks_exact(self.len()).zip(out.chunks_exact_mut(VALUES * c)) {
            let (x, y) = out.split_at_mut(c);
            for (position, share) in self.softmax(map).chunks_exact(c).enumerate() {
                let (px, py) = self.place(position);
                for ((x, y), share) in x.iter_mut().zip(&mut *y).zip(share) {
                    *x += share * px;
                    *y += share * py;
                }
            }
        }
        out
    }

    /// Gradient of the maps, given that of their keypoints.
    pub fn backward(self, maps: &[f32], keypoints: &[f32], grad: &[f32]) -> Vec<f32> {
        let c = self.channels;
        let mut out = vec![0.0; maps.len()];
        let rows = keypoints.chunks_exact(VALUES * c).zip(grad.chunks_exact(VALUES * c));
        for ((map, out), (keypoints, grad)) in
            maps.chunks_exact(self.len()).zip(out.chunks_exact_mut(self.len())).zip(rows)
        {
            let share = self.softmax(map);
            for (position, (share, out)) in share.chunks_exact(c).zip(out.chunks_exact_mut(c)).enumerate() {
                let (px, py) = self.place(position);
                for j in 0..c {
                    let along = grad[j] * (px - keypoints[j]) + grad[c + j] * (py - keypoints[c + j]);
                    out[j] = SHARPNESS * share[j] * along;
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
    }

    #[test]
    fn gradients_match_finite_differences() {
        let maps = Maps { side: 3, channels: 2 };
        let mut stream = Stream::new(1, "keypoints", &[]);
        let (mut map, mut grad) = (vec![0.0f32; 18], vec![0.0f32; 4]);
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
