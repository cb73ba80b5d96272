//! Backward passes of the activations and of softmax.

use crate::gemm::{load, store};
use crate::math;
use crate::ops::check_rows;
use crate::simd::{LANES, Lanes, kernel};

macro_rules! backward {
    ($($(#[$meta:meta])* $name:ident, $derivative:expr;)*) => {$(
        kernel! {
            $(#[$meta])*
            ///
            /// # Panics
            /// If the slices differ in length.
            pub fn $name<V>(x: &[f32], dy: &[f32], dx: &mut [f32]) {
                assert!(x.len() == dy.len() && x.len() == dx.len(), "x, dy and dx differ in length");
                for ((x, dy), dx) in x.chunks(LANES).zip(dy.chunks(LANES)).zip(dx.chunks_mut(LANES)) {
                    store(load::<V>(dy) * $derivative(load::<V>(x)), dx);
                }
            }
        }
    )*};
}

#[inline(always)]
fn relu_derivative<V: Lanes>(x: V) -> V {
    V::zero().select_lt(x, V::splat(1.0), V::zero())
}

#[inline(always)]
fn tanh_derivative<V: Lanes>(y: V) -> V {
    V::splat(1.0) - y * y
}

backward! {
    /// `dx = dy (Phi(x) + x phi(x))`: GELU (erf form) at its input `x`.
    gelu_backward, math::gelu_derivative;
    /// `dx = dy s (1 + x (1 - s))`, `s = sigmoid(x)`: SiLU at its input `x`.
    silu_backward, math::silu_derivative;
    /// `dx = dy` where `x > 0`, else 0.
    relu_backward, relu_derivative;
    /// `dx = dy (1 - x^2)`: tanh at its *output* `x`.
    tanh_backward, tanh_derivative;
}

kernel! {
    /// `y = gelu(x)` and its derivative there, for little more than the derivative alone.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn gelu_with_derivative<V>(x: &[f32], y: &mut [f32], derivative: &mut [f32]) {
        assert!(x.len() == y.len() && x.len() == derivative.len(), "x, y and derivative differ in length");
        let out = y.chunks_mut(LANES).zip(derivative.chunks_mut(LANES));
        for (x, (y, derivative)) in x.chunks(LANES).zip(out) {
            let (value, slope) = math::gelu_with_derivative(load::<V>(x));
            store(value, y);
            store(slope, derivative);
        }
    }
}

kernel! {
    /// Softmax of rows of `width` at its *output* `y`: `dx = scale y (dy - sum(y dy))`, where `scale` is the
    /// factor that softmax applied to its input.
    ///
    /// # Panics
    /// If the slices differ in length or are no rows of `width`.
    pub fn softmax_backward<V>(y: &[f32], dy: &[f32], width: usize, scale: f32, dx: &mut [f32]) {
        assert!(y.len() == dy.len() && y.len() == dx.len(), "y, dy and dx differ in length");
        check_rows("y", y.len(), width);
        let rows = y.chunks_exact(width).zip(dy.chunks_exact(width));
        for ((y, dy), dx) in rows.zip(dx.chunks_exact_mut(width)) {
            let mut sum = V::zero();
            for (y, dy) in y.chunks(LANES).zip(dy.chunks(LANES)) {
                sum = load::<V>(y).mul_add(load(dy), sum);
            }
            let sum = V::splat(sum.reduce_add());
            for ((y, dy), dx) in y.chunks(LANES).zip(dy.chunks(LANES)).zip(dx.chunks_mut(LANES)) {
                store(V::splat(scale) * load(y) * (load::<V>(dy) - sum), dx);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;
    use crate::simd::tests::{same_bits, values};

    type Forward = fn(&[f32], &mut [f32]);
    type Backward = fn(&[f32], &[f32], &mut [f32]);

    #[test]
    fn activations_match_central_differences() {
        let x: Vec<f32> = values(1, 101).iter().map(|x| x * 4.0).collect();
        let dy = values(2, 101);
        let cases: [(Forward, Backward); 2] = [(ops::gelu, gelu_backward), (ops::silu, silu_backward)];
        for (forward, backward) in cases {
            let dx = same_bits(|| {
                let mut dx = vec![0.0; x.len()];
                backward(&x, &dy, &mut dx);
                dx
            });
            let at = |h: f32| {
                let moved: Vec<f32> = x.iter().map(|x| x + h).collect();
                let mut y = vec![0.0; x.len()];
                forward(&moved, &mut y);
                y
            };
            let (up, down) = (at(0.01), at(-0.01));
            for i in 0..x.len() {
                let expected = dy[i] * (up[i] - down[i]) / 0.02;
                assert!((dx[i] - expected).abs() < 2e-4, "{i}: {} {expected}", dx[i]);
            }
        }
    }

    #[test]
    fn gelu_and_its_derivative_agree_with_either_alone() {
        let x: Vec<f32> = values(1, 101).iter().map(|x| x * 4.0).collect();
        let both = same_bits(|| {
            let mut both = vec![0.0; 2 * x.len()];
            let (y, derivative) = both.split_at_mut(x.len());
            gelu_with_derivative(&x, y, derivative);
            both
        });
        let mut alone = vec![0.0; 2 * x.len()];
        let (y, derivative) = alone.split_at_mut(x.len());
        ops::gelu(&x, y);
        gelu_backward(&x, &vec![1.0; x.len()], derivative);
        assert_eq!(both, alone);
    }

    #[test]
    fn softmax_matches_central_differences() {
        let (width, scale) = (21, 0.7);
        let (x, dy) = (values(3, 2 * width), values(4, 2 * width));
        let softmax = |x: &[f32]| {
            let mut y = x.to_vec();
            ops::softmax_rows(&mut y, width, scale);
            y
        };
        let y = softmax(&x);
        let dx = same_bits(|| {
            let mut dx = vec![0.0; x.len()];
            softmax_backward(&y, &dy, width, scale, &mut dx);
            dx
        });
        for i in 0..x.len() {
            let loss = |h: f32| {
                let mut x = x.clone();
                x[i] += h;
                softmax(&x).iter().zip(&dy).map(|(y, d)| f64::from(y * d)).sum::<f64>()
            };
            let expected = (loss(0.02) - loss(-0.02)) / 0.04;
            assert!((f64::from(dx[i]) - expected).abs() < 1e-4);
        }
    }
}
