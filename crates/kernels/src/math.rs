//! Elementary functions over sixteen lanes, with the same operations on every path.
//!
//! The coefficients are weighted minimax fits (Lawson iterations in 40 digits); the range and the largest
//! weighted error of each fit stand beside it.

// The fitted coefficients are what they are, even where clippy sees a constant or a digit too many.
#![allow(clippy::excessive_precision, clippy::approx_constant)]

use crate::simd::Lanes;

/// `c[0] + c[1] x + ...` by Horner's rule.
#[inline(always)]
fn polynomial<V: Lanes, const N: usize>(x: V, c: &[f32; N]) -> V {
    let mut y = V::splat(c[N - 1]);
    for &c in c[..N - 1].iter().rev() {
        y = y.mul_add(x, V::splat(c));
    }
    y
}

/// exp on +-ln(2)/2, relative error 1.9e-9.
const EXP: [f32; 7] = [1.0, 1.0, 0.499_999_92, 0.166_664_2, 0.041_668_226, 0.008_374_84, 0.001_383_707_1];
/// ln(2) in two parts: the high one has few bits, so n * LN2_HIGH is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Below it exp gives 0: results under 2^-125 are flushed.
const EXP_LOW: f32 = -86.6;
/// Above it exp gives infinity.
const EXP_HIGH: f32 = 88.722_83;

/// e^x: relative error about 1e-7; 0 below -86.6.
#[inline(always)]
pub(crate) fn exp<V: Lanes>(x: V) -> V {
    let (low, high) = (V::splat(EXP_LOW), V::splat(EXP_HIGH));
    let y = exp_inside(x, x.max(low).min(high));
    let y = x.select_lt(low, V::zero(), y);
    high.select_lt(x, V::splat(f32::INFINITY), y)
}

/// e^x with its exponent from `clamped`, which lies within EXP_LOW..=EXP_HIGH.
#[inline(always)]
fn exp_inside<V: Lanes>(x: V, clamped: V) -> V {
    let n = (clamped * V::splat(std::f32::consts::LOG2_E)).round();
    let r = n.mul_add(V::splat(-LN2_HIGH), x);
    let r = n.mul_add(V::splat(-LN2_LOW), r);
    // 2^(n-1) twice: 2^128 is no f32, but e^EXP_HIGH is.
    let half = (n - V::splat(1.0)).pow2();
    let y = polynomial(r, &EXP) * half;
    y + y
}

/// e^x for x <= 0: relative error about 1e-7; 0 below -86.6.
#[inline(always)]
pub(crate) fn exp_negative<V: Lanes>(x: V) -> V {
    let low = V::splat(EXP_LOW);
    let n = (x.max(low) * V::splat(std::f32::consts::LOG2_E)).round();
    let r = n.mul_add(V::splat(-LN2_HIGH), x);
    let r = n.mul_add(V::splat(-LN2_LOW), r);
    x.select_lt(low, V::zero(), polynomial(r, &EXP) * n.pow2())
}

/// ln Phi(-a) for a in 0..=6, weighted by (1 + a) Phi(-a): error 3e-9.
const LN_PHI: [f32; 10] = [
    -0.693_147_2,
    -0.797_885,
    -0.318_305_12,
    -0.036_355_857,
    0.004_824_142,
    -9.644_765e-6,
    -1.854_751_6e-4,
    4.812_932e-5,
    -5.958_465_5e-6,
    3.081_263_6e-7,
];

/// Phi(-|x|), the lower tail of the normal distribution, and |x|, both clamped at |x| = 6 (tail 1e-9).
#[inline(always)]
fn normal_tail<V: Lanes>(x: V) -> (V, V) {
    let a = x.abs().min(V::splat(6.0));
    let q = polynomial(a, &LN_PHI);
    (exp_inside(q, q), a)
}

/// `x Phi(x)`: absolute error below 3e-7 (1 + |x|).
#[inline(always)]
pub(crate) fn gelu<V: Lanes>(x: V) -> V {
    // x Phi(x) = max(x, 0) - |x| Phi(-|x|): no cancellation for negative x.
    let (tail, a) = normal_tail(x);
    V::zero().max(x) - a * tail
}

/// `Phi(x) + x phi(x)`, the derivative of [`gelu`].
#[inline(always)]
pub(crate) fn gelu_derivative<V: Lanes>(x: V) -> V {
    gelu_with_derivative(x).1
}

/// [`gelu`] and its derivative, which share the tail.
#[inline(always)]
pub(crate) fn gelu_with_derivative<V: Lanes>(x: V) -> (V, V) {
    let (tail, a) = normal_tail(x);
    let cdf = x.select_lt(V::zero(), tail, V::splat(1.0) - tail);
    let density = exp(x * x * V::splat(-0.5)) * V::splat(0.398_942_28);
    let slope = x.max(V::splat(-20.0)).min(V::splat(20.0)).mul_add(density, cdf);
    (V::zero().max(x) - a * tail, slope)
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(crate) fn sigmoid<V: Lanes>(x: V) -> V {
    V::splat(1.0) / (V::splat(1.0) + exp(V::zero() - x))
}

/// `x sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu<V: Lanes>(x: V) -> V {
    x / (V::splat(1.0) + exp(V::zero() - x))
}

/// `s (1 + x (1 - s))` with `s = sigmoid(x)`, the derivative of [`silu`].
#[inline(always)]
pub(crate) fn silu_derivative<V: Lanes>(x: V) -> V {
    let one = V::splat(1.0);
    let s = sigmoid(x);
    s * x.max(V::splat(-100.0)).mul_add(one - s, one)
}

/// (tanh(x) / x - 1) / x^2 in x^2, |x| <= 0.625: error 4e-9.
const TANH: [f32; 5] = [-0.333_332_84, 0.133_314_93, -0.053_743_63, 0.020_650_972, -0.005_717_368_4];

/// tanh: absolute error about 1e-7, relative near 0.
#[inline(always)]
pub(crate) fn tanh<V: Lanes>(x: V) -> V {
    let one = V::splat(1.0);
    let u = x * x;
    let small = (x * u).mul_add(polynomial(u, &TANH), x);
    let a = x.abs();
    // 1 - 2 / (e^2a + 1): e^2a may be infinite.
    let large = one - V::splat(2.0) / (exp(a + a) + one);
    let large = x.select_lt(V::zero(), V::zero() - large, large);
    V::splat(0.625).select_lt(a, large, small)
}

/// erf(x) / x in x^2, |x| <= 1: error 1.2e-9.
const ERF_SMALL: [f32; 7] =
    [1.128_379_2, -0.376_126_28, 0.112_836, -0.026_854_4, 0.005_189_506, -8.020_592e-4, 7.888_319e-5];
/// ln erfc(a), 1 <= a <= 4: error 2e-11.
const LN_ERFC: [f32; 8] = [
    1.878_184_4e-4,
    -1.129_577_4,
    -0.633_221_9,
    -0.108_416_475,
    0.025_206_957,
    -0.004_204_093_4,
    4.412_449_8e-4,
    -2.167_942_3e-5,
];

/// erf: absolute error about 1e-7.
#[inline(always)]
pub(crate) fn erf<V: Lanes>(x: V) -> V {
    let one = V::splat(1.0);
    let a = x.abs();
    let small = x * polynomial(x * x, &ERF_SMALL);
    let q = polynomial(a.min(V::splat(4.0)), &LN_ERFC);
    let large = one - exp_inside(q, q);
    let large = x.select_lt(V::zero(), V::zero() - large, large);
    one.select_lt(a, large, small)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::gemm::{load, store};
    use crate::simd::{kernel, tests::same_bits};

    /// erf in f64: 2 / sqrt(pi) e^(-x^2) sum 2^n x^(2n+1) / (2n+1)!!, all terms of one sign.
    pub(crate) fn erf64(x: f64) -> f64 {
        if x.abs() > 5.8 {
            return x.signum();
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= 2.0 * x * x / (2 * n + 1) as f64;
            sum += term;
        }
        sum * (-x * x).exp() * 2.0 / std::f64::consts::PI.sqrt()
    }

    pub(crate) fn gelu64(x: f64) -> f64 {
        0.5 * x * (1.0 + erf64(x / 2f64.sqrt()))
    }

    macro_rules! check {
        ($name:ident, $f:ident, $reference:expr, $range:expr, $error:expr) => {
            #[test]
            fn $name() {
                kernel! {
                    fn apply<V>(x: &mut [f32]) {
                        for x in x.chunks_mut(16) {
                            store($f(load::<V>(x)), x);
                        }
                    }
                }
                let x: Vec<f32> = (-5000..=5000).map(|i| i as f32 / 5000.0 * $range).collect();
                let got = same_bits(|| {
                    let mut y = x.clone();
                    apply(&mut y);
                    y
                });
                let reference: fn(f64) -> f64 = $reference;
                for (&x, &y) in x.iter().zip(&got) {
                    let expected = reference(f64::from(x));
                    let error = (f64::from(y) - expected).abs() / expected.abs().max(1.0);
                    assert!(error < $error, "{x}: {y} against {expected}");
                }
                let mut x = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30];
                apply(&mut x);
                assert!(x[0].is_nan());
                for (y, x) in x[3..].iter().zip([1e30, -1e30]) {
                    let limit = reference(x) as f32;
                    assert!(
                        *y == limit || (y - limit).abs() < 1e-6 * limit.abs().max(1.0),
                        "{x}: {y} {limit}"
                    );
                }
            }
        };
    }

    check!(exp_is_accurate, exp, f64::exp, 80.0, 2e-7);
    check!(erf_is_accurate, erf, erf64, 5.0, 2e-7);
    check!(tanh_is_accurate, tanh, f64::tanh, 10.0, 2e-7);
    check!(gelu_is_accurate, gelu, gelu64, 8.0, 3e-7);
    check!(silu_is_accurate, silu, |x| x / (1.0 + (-x).exp()), 20.0, 3e-7);
    check!(sigmoid_is_accurate, sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 20.0, 2e-7);
    check!(
        gelu_derivative_is_accurate,
        gelu_derivative,
        |x| 0.5 * (1.0 + erf64(x / 2f64.sqrt()))
            + x * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt(),
        7.0,
        5e-7
    );
    check!(
        silu_derivative_is_accurate,
        silu_derivative,
        |x| {
            let s = 1.0 / (1.0 + (-x).exp());
            if s == 0.0 { 0.0 } else { s * (1.0 + x * (1.0 - s)) }
        },
        20.0,
        1e-6
    );
}
