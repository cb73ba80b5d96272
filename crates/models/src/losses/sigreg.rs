//! SIGReg, the sketched isotropic Gaussian regulariser of LeJEPA (Balestriero and LeCun 2025): embeddings projected
//! on random directions should each be standard normal, by the Epps-Pulley statistic.
//!
//! Per direction, the empirical characteristic function is compared with `exp(-t^2/2)` at 17 knots on [0, 3] and the
//! squared error integrated with trapezoid weights, doubled for the negative half line.

use burn::tensor::{Device, Tensor};
use worldbench_core::Stream;
use worldbench_nn::params::from_vec;

/// Number of knots.
pub const KNOTS: usize = 17;
/// Number of random directions.
pub const DIRECTIONS: usize = 1024;
const LAST: f64 = 3.0;

/// Knots `t`, targets `phi = exp(-t^2/2)` and integration weights (trapezoid times phi).
#[must_use]
pub fn constants() -> [[f64; 3]; KNOTS] {
    let step = LAST / (KNOTS - 1) as f64;
    std::array::from_fn(|j| {
        let t = step * j as f64;
        let phi = (-0.5 * t * t).exp();
        let trapezoid = if j == 0 || j == KNOTS - 1 { step } else { 2.0 * step };
        [t, phi, trapezoid * phi]
    })
}

/// `count` random unit directions as the columns of `[width, count]`.
#[must_use]
pub fn directions(mut stream: Stream, width: usize, count: usize, device: &Device) -> Tensor<2> {
    let mut values = vec![0.0; width * count];
    stream.fill_normal(&mut values);
    unit_columns(&mut values, count);
    from_vec(values, [width, count], device)
}

/// Scales every column of the row-major matrix to unit length.
pub fn unit_columns(values: &mut [f32], count: usize) {
    let mut squares = vec![0.0f64; count];
    for row in values.chunks(count) {
        squares.iter_mut().zip(row).for_each(|(s, &v)| *s += f64::from(v) * f64::from(v));
    }
    for row in values.chunks_mut(count) {
        row.iter_mut().zip(&squares).for_each(|(v, s)| *v = (f64::from(*v) / s.sqrt().max(1e-12)) as f32);
    }
}

/// The statistic of embeddings `z`, `[B, T, D]`, along the columns of `directions`, `[D, M]`: one test per frame
/// and direction over the batch, averaged, times B.
#[must_use]
pub fn sigreg(z: &Tensor<3>, directions: &Tensor<2>) -> Tensor<1> {
    let [batch, frames, width] = z.dims();
    let count = directions.dims()[1];
    let x = z.clone().swap_dims(0, 1).reshape([frames * batch, width]).matmul(directions.clone());
    let x = x.reshape([frames, batch, count]); // [T, B, M]
    // At t = 0 the error is exactly zero.
    let knots = constants().into_iter().skip(1);
    let error = knots.map(|[t, phi, weight]| {
        let angle = x.clone() * t;
        let real = angle.clone().cos().mean_dim(1) - phi; // [T, 1, M]
        let imaginary = angle.sin().mean_dim(1);
        (real.clone() * real + imaginary.clone() * imaginary) * weight
    });
    let zero = Tensor::zeros([frames, 1, count], &z.device());
    error.fold(zero, |sum: Tensor<3>, e| sum + e).mean() * batch as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::vcreg::tests::waves;
    use worldbench_nn::params::to_vec;

    #[test]
    fn matches_the_published_vector() {
        let z = waves();
        let axes = from_vec(vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], [3, 3], &z.device());
        let value = to_vec(sigreg(&z, &axes)).unwrap()[0];
        assert!((f64::from(value) - 0.4006394132).abs() < 1e-6, "{value}");
    }

    #[test]
    fn directions_have_unit_length() {
        let device = worldbench_nn::device("cpu").unwrap();
        let a = directions(Stream::new(1, "sigreg", &[0]), 48, 7, &device);
        let norms = to_vec((a.clone() * a).sum_dim(0)).unwrap();
        assert!(norms.iter().all(|n| (n - 1.0).abs() < 1e-6), "{norms:?}");
    }
}
