//! Whitening of action blocks.
//!
//! The K actions of a block are strongly correlated. Planners sample blocks from N(0, I); after whitening these
//! samples have the covariance of the data, so a planner proposes motions like those the model was trained on.

use serde::{Deserialize, Serialize};

/// Affine map between action blocks and whitened blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whitener {
    /// Mean block, [D].
    pub mean: Vec<f64>,
    /// Lower Cholesky factor of the blocks' covariance, [D, D].
    pub factor: Vec<f64>,
}

impl Whitener {
    /// Fits on blocks of `dim` values; a small ridge keeps constant directions finite.
    #[must_use]
    pub fn fit(blocks: &[f32], dim: usize) -> Self {
        let n = (blocks.len() / dim).max(1) as f64;
        let mut mean = vec![0.0f64; dim];
        for row in blocks.chunks_exact(dim) {
            mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / n);
        }
        let mut factor = vec![0.0f64; dim * dim];
        for row in blocks.chunks_exact(dim) {
            for i in 0..dim {
                for j in 0..=i {
                    factor[i * dim + j] += (f64::from(row[i]) - mean[i]) * (f64::from(row[j]) - mean[j]) / n;
                }
            }
        }
        for i in 0..dim {
            for j in 0..=i {
                let dot: f64 = (0..j).map(|k| factor[i * dim + k] * factor[j * dim + k]).sum();
                let rest = factor[i * dim + j] - dot;
                factor[i * dim + j] =
                    if i == j { (rest + 1e-6).max(1e-6).sqrt() } else { rest / factor[j * dim + j] };
            }
        }
        Self { mean, factor }
    }

    /// Whitens `block` in place.
    pub fn forward(&self, block: &mut [f32]) {
        let dim = self.mean.len();
        let mut white: Vec<f64> = Vec::with_capacity(dim);
        for (row, (value, mean)) in self.factor.chunks_exact(dim).zip(block.iter().zip(&self.mean)) {
            let dot: f64 = row.iter().zip(&white).map(|(factor, white)| factor * white).sum();
            white.push((f64::from(*value) - mean - dot) / row[white.len()]);
        }
        block.iter_mut().zip(white).for_each(|(b, w)| *b = w as f32);
    }

    /// The block whose whitened form is `white`.
    pub fn inverse(&self, white: &[f32], block: &mut [f32]) {
        let dim = self.mean.len();
        for (i, row) in self.factor.chunks_exact(dim).enumerate() {
            let dot: f64 = row.iter().zip(white).take(i + 1).map(|(factor, w)| factor * f64::from(*w)).sum();
            block[i] = (dot + self.mean[i]) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldbench_core::Stream;

    #[test]
    fn whitened_blocks_are_uncorrelated_and_come_back() {
        let mut noise = vec![0.0f32; 4000 * 3];
        Stream::new(1, "whiten", &[]).fill_normal(&mut noise);
        let blocks: Vec<f32> =
            noise.chunks_exact(3).flat_map(|n| [1.0 + n[0], n[0] + 0.3 * n[1], n[2] - 0.5 * n[0]]).collect();
        let whitener = Whitener::fit(&blocks, 3);
        let mut cov = [0.0f64; 9];
        for block in blocks.chunks_exact(3) {
            let mut white = block.to_vec();
            whitener.forward(&mut white);
            for i in 0..9 {
                cov[i] += f64::from(white[i / 3]) * f64::from(white[i % 3]) / 4000.0;
            }
            let mut back = [0.0; 3];
            whitener.inverse(&white, &mut back);
            assert!(back.iter().zip(block).all(|(a, b)| (a - b).abs() < 1e-4));
        }
        for (i, c) in cov.iter().enumerate() {
            assert!((c - if i % 4 == 0 { 1.0 } else { 0.0 }).abs() < 0.01, "{cov:?}");
        }
    }
}
