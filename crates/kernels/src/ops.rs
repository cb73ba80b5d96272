//! Row-wise and element-wise kernels: LayerNorm, softmax, activations.
//!
//! Sums over a row run in sixteen virtual lanes reduced in one fixed tree.

use crate::gemm::{load, store};
use crate::math;
use crate::simd::{LANES, Lanes, kernel};

macro_rules! elementwise {
    ($($(#[$meta:meta])* $name:ident;)*) => {$(
        kernel! {
            $(#[$meta])*
            ///
            /// # Panics
            /// If `x` and `out` differ in length.
            pub fn $name<V>(x: &[f32], out: &mut [f32]) {
                assert_eq!(x.len(), out.len(), "x and out differ in length");
                for (x, out) in x.chunks(LANES).zip(out.chunks_mut(LANES)) {
                    store(math::$name(load::<V>(x)), out);
                }
            }
        }
    )*};
}

elementwise! {
    /// `out = e^x`; results below 2^-125 become 0.
    exp;
    /// `out = erf(x)`, absolute error about 1e-7.
    erf;
    /// `out = tanh(x)`.
    tanh;
    /// `out = 1 / (1 + e^-x)`.
    sigmoid;
    /// `out = x Phi(x)`, the erf form of GELU.
    gelu;
    /// `out = x sigmoid(x)`.
    silu;
}

/// Mean and `1 / sqrt(variance + eps)` (biased variance, two passes) of a row.
#[inline(always)]
pub(crate) fn row_moments<V: Lanes>(row: &[f32], eps: f32) -> (f32, f32) {
    let n = row.len() as f32;
    let (chunks, tail) = row.as_chunks::<LANES>();
    let mut sum = V::load_part(tail, 0.0);
    for x in chunks {
        sum = sum + V::load(x);
    }
    let mean = sum.reduce_add() / n;
    let center = V::splat(mean);
    let d = V::load_part(tail, mean) - center;
    let mut squares = d * d;
    for x in chunks {
        let d = V::load(x) - center;
        squares = d.mul_add(d, squares);
    }
    (mean, 1.0 / (squares.reduce_add() / n + eps).sqrt())
}

#[inline(always)]
pub(crate) fn check_rows(name: &str, len: usize, width: usize) -> usize {
    assert!(width > 0 && len.is_multiple_of(width), "{name}: {len} values are no rows of {width}");
    len / width
}

kernel! {
    /// LayerNorm of each row: `out = (x - mean) / sqrt(var + eps)`, then `* gamma + beta` where `affine` gives
    /// the two `[width]` slices. `x` and `out` are `[rows, width]`.
    ///
    /// # Panics
    /// If a slice does not fit its shape.
    pub fn layer_norm<V>(x: &[f32], width: usize, eps: f32, affine: Option<(&[f32], &[f32])>, out: &mut [f32]) {
        check_rows("x", x.len(), width);
        assert_eq!(x.len(), out.len(), "x and out differ in length");
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            affine_row::<V>(x, eps, affine, out);
        }
    }
}

/// LayerNorm of one row.
#[inline(always)]
fn affine_row<V: Lanes>(x: &[f32], eps: f32, affine: Option<(&[f32], &[f32])>, out: &mut [f32]) {
    let (mean, scale) = row_moments::<V>(x, eps);
    let (mean, scale) = (V::splat(mean), V::splat(scale));
    for (j, (x, out)) in x.chunks(LANES).zip(out.chunks_mut(LANES)).enumerate() {
        let y = (load::<V>(x) - mean) * scale;
        let at = j * LANES..j * LANES + x.len();
        let y = match affine {
            Some((gamma, beta)) => y.mul_add(load(&gamma[at.clone()]), load(&beta[at])),
            None => y,
        };
        store(y, out);
    }
}

/// LayerNorm of one row, then `* (1 + scale) + shift`.
#[inline(always)]
fn modulated_row<V: Lanes>(x: &[f32], eps: f32, shift: &[f32], scale: &[f32], out: &mut [f32]) {
    let (mean, norm) = row_moments::<V>(x, eps);
    let (mean, norm) = (V::splat(mean), V::splat(norm));
    let modulation = scale.chunks(LANES).zip(shift.chunks(LANES));
    for ((x, out), (scale, shift)) in x.chunks(LANES).zip(out.chunks_mut(LANES)).zip(modulation) {
        let y = (load::<V>(x) - mean) * norm;
        store(y.mul_add(V::splat(1.0) + load(scale), load(shift)), out);
    }
}

kernel! {
    /// adaLN: plain LayerNorm of each row, then `* (1 + scale) + shift`. Row `r` uses the row `r / group` of
    /// `scale` and `shift`, whose rows start `stride` values apart. `x` and `out` are `[rows, width]`.
    ///
    /// # Panics
    /// If a slice does not fit its shape.
    pub fn layer_norm_modulated<V>(
        x: &[f32], width: usize, eps: f32, shift: &[f32], scale: &[f32], stride: usize, group: usize,
        out: &mut [f32],
    ) {
        check_rows("x", x.len(), width);
        assert_eq!(x.len(), out.len(), "x and out differ in length");
        assert!(group >= 1, "group must be at least 1");
        for (row, (x, out)) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
            let at = row / group * stride..row / group * stride + width;
            modulated_row::<V>(x, eps, &shift[at.clone()], &scale[at], out);
        }
    }
}

kernel! {
    /// [`layer_norm_modulated`] with a row of `scale` and `shift` for each row, then [`layer_norm`] with `affine`, in
    /// one pass; `eps` are those of the first and the second norm, `once` holds one row in between.
    ///
    /// # Panics
    /// If a slice does not fit its shape.
    pub fn layer_norm_modulated_affine<V>(
        x: &[f32], width: usize, eps: [f32; 2], shift: &[f32], scale: &[f32], stride: usize,
        affine: (&[f32], &[f32]), once: &mut [f32], out: &mut [f32],
    ) {
        check_rows("x", x.len(), width);
        assert_eq!(x.len(), out.len(), "x and out differ in length");
        let once = &mut once[..width];
        for (row, (x, out)) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
            let at = row * stride..row * stride + width;
            modulated_row::<V>(x, eps[0], &shift[at.clone()], &scale[at], once);
            affine_row::<V>(once, eps[1], Some(affine), out);
        }
    }
}

/// `row = softmax(scale * row)`. An empty row stays empty.
#[inline(always)]
pub(crate) fn softmax_row<V: Lanes>(row: &mut [f32], scale: f32) {
    let mut max = V::splat(f32::NEG_INFINITY);
    for x in row.chunks(LANES) {
        max = V::max(
            max,
            match x.first_chunk() {
                Some(x) => V::load(x),
                None => V::load_part(x, f32::NEG_INFINITY),
            },
        );
    }
    let (max, scale) = (V::splat(max.reduce_max()), V::splat(scale));
    let mut sum = V::zero();
    for x in row.chunks_mut(LANES) {
        let y = match x.first_chunk() {
            Some(x) => V::load(x),
            None => V::load_part(x, f32::NEG_INFINITY),
        };
        let y = math::exp((y - max) * scale);
        sum = sum + y;
        store(y, x);
    }
    let inverse = V::splat(1.0 / sum.reduce_add());
    for x in row.chunks_mut(LANES) {
        store(load::<V>(x) * inverse, x);
    }
}

kernel! {
    /// Softmax of each row of `[rows, width]`, in place, after multiplication with `scale > 0`.
    ///
    /// # Panics
    /// If `x` does not consist of rows of `width`.
    pub fn softmax_rows<V>(x: &mut [f32], width: usize, scale: f32) {
        check_rows("x", x.len(), width);
        for row in x.chunks_exact_mut(width) {
            softmax_row::<V>(row, scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::tests::{same_bits, values};

    fn close(got: &[f32], expected: impl IntoIterator<Item = f64>) {
        for (i, (&g, e)) in got.iter().zip(expected).enumerate() {
            assert!((f64::from(g) - e).abs() < 3e-6, "{i}: {g} against {e}");
        }
    }

    fn normalized(x: &[f32], eps: f64) -> Vec<f64> {
        let n = x.len() as f64;
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let var = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        x.iter().map(|&x| (f64::from(x) - mean) / (var + eps).sqrt()).collect()
    }

    #[test]
    fn layer_norm_follows_its_definition() {
        for width in [5, 16, 37, 192] {
            let x: Vec<f32> = values(1, 4 * width).iter().map(|x| x + 3.0).collect();
            let (gamma, beta) = (values(2, width), values(3, width));
            let got = same_bits(|| {
                let mut y = vec![0.0; x.len()];
                layer_norm(&x, width, 1e-5, Some((&gamma, &beta)), &mut y);
                y
            });
            for (x, got) in x.chunks(width).zip(got.chunks(width)) {
                let y = normalized(x, 1e-5);
                close(
                    got,
                    y.iter().zip(&gamma).zip(&beta).map(|((y, &g), &b)| y * f64::from(g) + f64::from(b)),
                );
            }
        }
    }

    #[test]
    fn modulation_rows_serve_groups() {
        let (width, stride) = (24, 100);
        let (x, shift, scale) = (values(4, 6 * width), values(5, 3 * stride), values(6, 3 * stride));
        let got = same_bits(|| {
            let mut y = vec![0.0; x.len()];
            layer_norm_modulated(&x, width, 1e-6, &shift, &scale, stride, 2, &mut y);
            y
        });
        for (row, (x, got)) in x.chunks(width).zip(got.chunks(width)).enumerate() {
            let at = row / 2 * stride;
            let y = normalized(x, 1e-6);
            close(
                got,
                (0..width).map(|j| y[j] * (1.0 + f64::from(scale[at + j])) + f64::from(shift[at + j])),
            );
        }
    }

    #[test]
    fn both_norms_in_one_pass_have_the_bits_of_one_after_the_other() {
        let (rows, stride) = (5, 100);
        for width in [24, 32, 7] {
            let (x, gamma, beta) = (values(7, rows * width), values(8, width), values(9, width));
            let (shift, scale) = (values(10, rows * stride), values(11, rows * stride));
            let mut once = vec![0.0; x.len()];
            layer_norm_modulated(&x, width, 1e-6, &shift, &scale, stride, 1, &mut once);
            let mut expected = vec![0.0; x.len()];
            layer_norm(&once, width, 1e-5, Some((&gamma, &beta)), &mut expected);
            let got = same_bits(|| {
                let (mut once, mut y) = (vec![0.0; width], vec![0.0; x.len()]);
                let affine = (&gamma[..], &beta[..]);
                let eps = [1e-6, 1e-5];
                layer_norm_modulated_affine(
                    &x, width, eps, &shift, &scale, stride, affine, &mut once, &mut y,
                );
                y
            });
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn softmax_sums_to_one() {
        for width in [1, 3, 16, 257] {
            let x: Vec<f32> = values(7, 3 * width).iter().map(|x| x * 30.0).collect();
            let got = same_bits(|| {
                let mut y = x.clone();
                softmax_rows(&mut y, width, 0.5);
                y
            });
            for (x, got) in x.chunks(width).zip(got.chunks(width)) {
                let e: Vec<f64> = x.iter().map(|&x| (0.5 * f64::from(x)).exp()).collect();
                let sum: f64 = e.iter().sum();
                close(got, e.iter().map(|e| e / sum));
            }
        }
    }
}
