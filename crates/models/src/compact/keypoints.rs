//! Keypoint readout: every channel of a feature map tells where its evidence lies and how much there is.
//!
//! A softmax over the map's positions turns a channel into an expected position (spatial softmax, Levine et al.
//! 2016, arXiv 1504.00702); the mean of its activation tells how much it saw. Positions are smooth in the pose of what
//! is seen, which a flattened map is not: the latter learns poses by heart.

use worldbench_kernels::grad::{self, Keypoints};

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
    fn shape(self) -> Keypoints {
        Keypoints { side: self.side, channels: self.channels, sharpness: SHARPNESS }
    }

    /// Keypoints of `maps` (before their activation): [N, 3, channels] as x, y, mean activation.
    pub fn forward(self, maps: &[f32]) -> Vec<f32> {
        let (map, keypoints) = (self.side * self.side * self.channels, VALUES * self.channels);
        let mut out = vec![0.0; maps.len() / map * keypoints];
        for (map, out) in maps.chunks_exact(map).zip(out.chunks_exact_mut(keypoints)) {
            grad::keypoints(self.shape(), map, out);
        }
        out
    }

    /// Gradient of one map, given its keypoints and their gradient.
    pub fn backward(self, map: &[f32], keypoints: &[f32], grad: &[f32], out: &mut [f32]) {
        grad::keypoints_backward(self.shape(), map, keypoints, grad, out);
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
        let mut analytic = vec![0.0; map.len()];
        maps.backward(&map, &maps.forward(&map), &grad, &mut analytic);
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
