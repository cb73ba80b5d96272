//! Variance-covariance regularisation of PLDM (Sobal et al. 2025, after VICReg, Bardes et al. 2022), and the
//! temporal terms.
//!
//! Embeddings are `[B, T, D]`. `std` keeps every dimension's spread over the batch above 1, `cov` decorrelates the
//! dimensions; the `_t` terms do the same along time. All are computed in f32.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

/// Which frames the statistics see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frames {
    /// `std` and `cov` over the batch at every frame; `std_t` and `cov_t` on batch-centred embeddings. The
    /// latter is therefore no covariance; it is the definition of stable-worldmodel, kept as it is.
    #[default]
    All,
    /// The original PLDM: `std` and `cov` on the first frame only, `std_t` and `cov_t` on the later frames,
    /// centred over time.
    First,
}

const MARGIN: f64 = 1.0;
const VARIANCE_EPS: f64 = 1e-4;
/// PyTorch's floor of the norms in cosine similarity.
const COSINE_EPS: f64 = 1e-8;

/// The four statistics terms of one batch of embeddings.
#[derive(Clone, Debug)]
pub struct VcReg {
    /// Hinge on the standard deviation over the batch, `[1]`.
    pub std: Tensor<1>,
    /// Hinge on the standard deviation over time, `[1]`.
    pub std_t: Tensor<1>,
    /// Mean squared off-diagonal covariance over the batch, `[1]`.
    pub cov: Tensor<1>,
    /// The same over time, `[1]`.
    pub cov_t: Tensor<1>,
}

/// The four statistics terms of `z`, `[B, T, D]`.
#[must_use]
pub fn vcreg(z: &Tensor<3>, frames: Frames) -> VcReg {
    let steps = z.dims()[1];
    let (batchwise, timewise) = match frames {
        Frames::All => {
            let centred = centre(z.clone(), 0);
            (centred.clone(), centred)
        }
        Frames::First => {
            let first = centre(z.clone().narrow(1, 0, 1), 0);
            (first, centre(z.clone().narrow(1, 1, steps.saturating_sub(1).max(1)), 1))
        }
    };
    VcReg {
        std: hinge(&batchwise, 0),
        std_t: hinge(&timewise, 1),
        cov: off_diagonal(batchwise.swap_dims(0, 1)),
        cov_t: off_diagonal(timewise),
    }
}

fn centre(z: Tensor<3>, dim: usize) -> Tensor<3> {
    z.clone() - z.mean_dim(dim)
}

/// Mean of `relu(1 - std)` with the unbiased variance along `dim`.
fn hinge(z: &Tensor<3>, dim: usize) -> Tensor<1> {
    let centred = centre(z.clone(), dim);
    let freedom = (z.dims()[dim] as f64 - 1.0).max(1.0);
    let variance = (centred.clone() * centred).sum_dim(dim) / freedom;
    activation::relu(-(variance + VARIANCE_EPS).sqrt() + MARGIN).mean()
}

/// Mean over groups of the squared off-diagonal entries of `Z^T Z / (N - 1)`, for `z` as `[groups, N, D]`.
///
/// `|Z^T Z|_F = |Z Z^T|_F`, so the smaller of the two Gram matrices gives the sum of all squares.
fn off_diagonal(z: Tensor<3>) -> Tensor<1> {
    let [groups, rows, width] = z.dims();
    let freedom = (rows as f64 - 1.0).max(1.0);
    let transposed = z.clone().swap_dims(1, 2);
    let gram = if rows < width { z.clone().matmul(transposed) } else { transposed.matmul(z.clone()) };
    let all = (gram.clone() * gram).sum();
    let diagonal = (z.clone() * z).sum_dim(1); // [groups, 1, D]
    let squares = (diagonal.clone() * diagonal).sum();
    let pairs = (width * width - width).max(1) as f64;
    (all - squares) / (freedom * freedom * pairs * groups as f64)
}

/// Mean squared change from frame to frame.
#[must_use]
pub fn temp_align(z: &Tensor<3>) -> Tensor<1> {
    let steps = z.dims()[1];
    super::mse(z.clone().narrow(1, 0, steps - 1), z.clone().narrow(1, 1, steps - 1))
}

/// Minus the mean cosine between successive changes: straight paths reach -1. Needs at least 3 frames.
#[must_use]
pub fn temp_straight(z: &Tensor<3>) -> Tensor<1> {
    let steps = z.dims()[1];
    let change = z.clone().narrow(1, 1, steps - 1) - z.clone().narrow(1, 0, steps - 1);
    let (a, b) = (change.clone().narrow(1, 0, steps - 2), change.narrow(1, 1, steps - 2));
    let norm = |v: &Tensor<3>| (v.clone() * v.clone()).sum_dim(2).sqrt().clamp_min(COSINE_EPS);
    let cosine = (a.clone() * b.clone()).sum_dim(2) / (norm(&a) * norm(&b));
    -cosine.mean()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use worldbench_nn::params::{from_vec, to_vec};

    /// The closed-form embeddings of the published test vectors, `[5, 4, 3]`.
    pub(crate) fn waves() -> Tensor<3> {
        let value = |i: usize| {
            let (b, t, d) = ((i / 12) as f64, (i / 3 % 4) as f64, (i % 3) as f64);
            ((1.7 * b + 0.9 * t + 2.3 * d).sin() * (1.0 + 0.1 * d) + 0.05 * b * t) as f32
        };
        from_vec((0..60).map(value).collect(), [5, 4, 3], &worldbench_nn::device("cpu").unwrap())
    }

    fn close(term: Tensor<1>, expected: f64) {
        let value = f64::from(to_vec(term).unwrap()[0]);
        assert!((value - expected).abs() < 1e-6, "{value} instead of {expected}");
    }

    #[test]
    fn terms_match_the_published_vectors() {
        let z = waves();
        let terms = vcreg(&z, Frames::All);
        close(terms.std, 0.1429714358);
        close(terms.std_t, 0.3388308176);
        close(terms.cov, 0.1458295801);
        close(terms.cov_t, 0.1971668506);
        close(temp_align(&z), 0.4815182806);
        close(temp_straight(&z), -0.6352984094);
        let part = |start| z.clone().narrow(1, start, 3).narrow(2, 0, 2);
        close(super::super::mse(part(1) * 0.5, part(0)), 0.3435123362);
    }

    #[test]
    fn the_original_uses_the_first_frame_and_time_centring() {
        let z = waves();
        let original = vcreg(&z, Frames::First);
        let first = vcreg(&z.clone().narrow(1, 0, 1), Frames::All);
        close(original.std - first.std, 0.0);
        close(original.cov - first.cov, 0.0);
        // A constant offset per episode leaves the time statistics alone.
        let shifted = z.clone() + z.clone().narrow(1, 0, 1) * 3.0;
        close(vcreg(&shifted, Frames::First).cov_t - original.cov_t, 0.0);
        close(vcreg(&shifted, Frames::First).std_t - original.std_t, 0.0);
    }
}
