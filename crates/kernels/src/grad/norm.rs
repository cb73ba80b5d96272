//! LayerNorm backward; batch normalisation forward and backward.

use crate::gemm::{load, store};
use crate::ops::{check_rows, row_moments};
use crate::simd::{LANES, Lanes, kernel};

kernel! {
    /// LayerNorm of rows of `width` at its input `x`: `dx = r (g - mean(g) - xhat mean(g xhat))` with
    /// `g = dy gamma` (`gamma = None`: 1), `r = 1 / sqrt(var + eps)`. Adds `sum(dy xhat)` to `dgamma` and
    /// `sum(dy)` to `dbeta` (both `[width]`), rows ascending; with `gamma = None` they may be empty.
    ///
    /// # Panics
    /// If a slice does not fit its shape.
    pub fn layer_norm_backward<V>(
        x: &[f32], dy: &[f32], width: usize, eps: f32, gamma: Option<&[f32]>, dx: &mut [f32],
        dgamma: &mut [f32], dbeta: &mut [f32],
    ) {
        check_rows("x", x.len(), width);
        assert!(x.len() == dy.len() && x.len() == dx.len(), "x, dy and dx differ in length");
        let rows = x.chunks_exact(width).zip(dy.chunks_exact(width));
        for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(width)) {
            let (mean, norm) = row_moments::<V>(x, eps);
            let (mean, norm) = (V::splat(mean), V::splat(norm));
            let (mut sum, mut dot) = (V::zero(), V::zero());
            for (j, (x, dy)) in x.chunks(LANES).zip(dy.chunks(LANES)).enumerate() {
                // Lanes past the row have dy = 0.
                let (xhat, g) = ((load::<V>(x) - mean) * norm, gated(dy, gamma, j));
                sum = sum + g;
                dot = g.mul_add(xhat, dot);
            }
            let inverse = 1.0 / width as f32;
            let (sum, dot) = (V::splat(sum.reduce_add() * inverse), V::splat(dot.reduce_add() * inverse));
            for (j, dx) in dx.chunks_mut(LANES).enumerate() {
                let at = j * LANES..j * LANES + dx.len();
                let (x, dy) = (&x[at.clone()], &dy[at.clone()]);
                let xhat = (load::<V>(x) - mean) * norm;
                store((gated::<V>(dy, gamma, j) - sum - xhat * dot) * norm, dx);
                if !dgamma.is_empty() {
                    let (dgamma, dbeta) = (&mut dgamma[at.clone()], &mut dbeta[at]);
                    store(load::<V>(dy).mul_add(xhat, load(dgamma)), dgamma);
                    store(load::<V>(dbeta) + load(dy), dbeta);
                }
            }
        }
    }
}

/// `dy gamma` of chunk `j`.
#[inline(always)]
fn gated<V: Lanes>(dy: &[f32], gamma: Option<&[f32]>, j: usize) -> V {
    match gamma {
        Some(gamma) => load::<V>(dy) * load(&gamma[j * LANES..j * LANES + dy.len()]),
        None => load(dy),
    }
}

kernel! {
    /// `out = sum over rows of f`, where `f = x` without `mean` and `(x - mean)^2` with it, divided by the rows.
    fn column_means<V>(x: &[f32], mean: Option<&[f32]>, out: &mut [f32]) {
        let width = out.len();
        out.fill(0.0);
        for row in x.chunks_exact(width) {
            for (j, (x, out)) in row.chunks(LANES).zip(out.chunks_mut(LANES)).enumerate() {
                let (x, sum) = (load::<V>(x), load::<V>(out));
                store(match mean {
                    Some(mean) => {
                        let d = x - load(&mean[j * LANES..j * LANES + out.len()]);
                        d.mul_add(d, sum)
                    }
                    None => sum + x,
                }, out);
            }
        }
        let rows = V::splat((x.len() / width) as f32);
        for out in out.chunks_mut(LANES) {
            store(load::<V>(out) / rows, out);
        }
    }
}

/// Batch normalisation of `x` `[rows, width]` with the batch's statistics: `out = (x - mean) / sqrt(var + eps)
/// * gamma + beta`. `mean` and `var` (biased: divided by the rows) are written, `[width]` each; the running
/// variance of PyTorch takes `var * rows / (rows - 1)`.
///
/// # Panics
/// If a slice does not fit its shape.
#[allow(clippy::too_many_arguments)]
pub fn batch_norm(
    x: &[f32],
    width: usize,
    eps: f32,
    gamma: &[f32],
    beta: &[f32],
    mean: &mut [f32],
    var: &mut [f32],
    out: &mut [f32],
) {
    check_rows("x", x.len(), width);
    assert_eq!(x.len(), out.len(), "x and out differ in length");
    assert!(mean.len() == width && var.len() == width, "mean and var must have {width} values");
    column_means(x, None, mean);
    column_means(x, Some(mean), var);
    batch_norm_apply(x, eps, gamma, beta, mean, var, out);
}

kernel! {
    fn batch_norm_apply<V>(
        x: &[f32], eps: f32, gamma: &[f32], beta: &[f32], mean: &[f32], var: &[f32], out: &mut [f32],
    ) {
        let width = mean.len();
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            for (j, (x, out)) in x.chunks(LANES).zip(out.chunks_mut(LANES)).enumerate() {
                let at = j * LANES..j * LANES + x.len();
                let norm = inverse_root::<V>(&var[at.clone()], eps);
                let xhat = (load::<V>(x) - load(&mean[at.clone()])) * norm;
                store(xhat.mul_add(load(&gamma[at.clone()]), load(&beta[at])), out);
            }
        }
    }
}

#[inline(always)]
fn inverse_root<V: Lanes>(var: &[f32], eps: f32) -> V {
    V::splat(1.0) / (V::load_part(var, 1.0) + V::splat(eps)).sqrt()
}

kernel! {
    /// Batch normalisation at its input `x` `[rows, width]` with the `mean` and `var` of [`batch_norm`]:
    /// writes `dgamma = sum(dy xhat)`, `dbeta = sum(dy)` (`[width]`, rows ascending) and
    /// `dx = gamma / sqrt(var + eps) (dy - dbeta / rows - xhat dgamma / rows)`.
    ///
    /// # Panics
    /// If a slice does not fit its shape.
    pub fn batch_norm_backward<V>(
        x: &[f32], dy: &[f32], eps: f32, gamma: &[f32], mean: &[f32], var: &[f32], dx: &mut [f32],
        dgamma: &mut [f32], dbeta: &mut [f32],
    ) {
        let width = mean.len();
        let rows = check_rows("x", x.len(), width);
        assert!(x.len() == dy.len() && x.len() == dx.len(), "x, dy and dx differ in length");
        dgamma.fill(0.0);
        dbeta.fill(0.0);
        for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact(width)) {
            for (j, (x, dy)) in x.chunks(LANES).zip(dy.chunks(LANES)).enumerate() {
                let at = j * LANES..j * LANES + x.len();
                let norm = inverse_root::<V>(&var[at.clone()], eps);
                let xhat = (load::<V>(x) - load(&mean[at.clone()])) * norm;
                let (dgamma, dbeta) = (&mut dgamma[at.clone()], &mut dbeta[at]);
                store(load::<V>(dy).mul_add(xhat, load(dgamma)), dgamma);
                store(load::<V>(dbeta) + load(dy), dbeta);
            }
        }
        let inverse = V::splat(1.0 / rows.max(1) as f32);
        let both = x.chunks_exact(width).zip(dy.chunks_exact(width));
        for ((x, dy), dx) in both.zip(dx.chunks_exact_mut(width)) {
            for (j, dx) in dx.chunks_mut(LANES).enumerate() {
                let at = j * LANES..j * LANES + dx.len();
                let norm = inverse_root::<V>(&var[at.clone()], eps);
                let xhat = (load::<V>(&x[at.clone()]) - load(&mean[at.clone()])) * norm;
                let g = load::<V>(&dy[at.clone()]) - load::<V>(&dbeta[at.clone()]) * inverse;
                let g = g - xhat * load(&dgamma[at.clone()]) * inverse;
                store(load::<V>(&gamma[at]) * norm * g, dx);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::layer_norm;
    use crate::simd::tests::{same_bits, values};

    const WIDTH: usize = 21;
    const ROWS: usize = 6;

    /// Central difference of `sum(dy * f(p))` in each value of `p`.
    fn differences(p: &[f32], dy: &[f32], f: impl Fn(&[f32]) -> Vec<f32>) -> Vec<f32> {
        let loss = |i: usize, h: f32| {
            let mut p = p.to_vec();
            p[i] += h;
            f(&p).iter().zip(dy).map(|(&y, &d)| f64::from(y) * f64::from(d)).sum::<f64>()
        };
        (0..p.len()).map(|i| ((loss(i, 0.01) - loss(i, -0.01)) / 0.02) as f32).collect()
    }

    fn close(got: &[f32], expected: &[f32]) {
        assert_eq!(got.len(), expected.len());
        for (i, (g, e)) in got.iter().zip(expected).enumerate() {
            assert!((g - e).abs() < 3e-3, "{i}: {g} against {e}");
        }
    }

    #[test]
    fn layer_norm_gradients_match_differences() {
        let n = ROWS * WIDTH;
        let (x, dy, gamma, beta) = (values(1, n), values(2, n), values(3, WIDTH), values(4, WIDTH));
        let all = same_bits(|| {
            let (mut dx, mut dgamma, mut dbeta) = (vec![0.0; n], vec![0.0; WIDTH], vec![0.0; WIDTH]);
            layer_norm_backward(&x, &dy, WIDTH, 1e-5, Some(&gamma), &mut dx, &mut dgamma, &mut dbeta);
            [dx, dgamma, dbeta].concat()
        });
        let forward = |x: &[f32], gamma: &[f32], beta: &[f32]| {
            let mut y = vec![0.0; n];
            layer_norm(x, WIDTH, 1e-5, Some((gamma, beta)), &mut y);
            y
        };
        close(&all[..n], &differences(&x, &dy, |x| forward(x, &gamma, &beta)));
        close(&all[n..n + WIDTH], &differences(&gamma, &dy, |gamma| forward(&x, gamma, &beta)));
        close(&all[n + WIDTH..], &differences(&beta, &dy, |beta| forward(&x, &gamma, beta)));
    }

    #[test]
    fn batch_norm_gradients_match_differences() {
        let n = ROWS * WIDTH;
        let (x, dy, gamma, beta) = (values(5, n), values(6, n), values(7, WIDTH), values(8, WIDTH));
        let forward = |x: &[f32], gamma: &[f32], beta: &[f32]| {
            let (mut y, mut mean, mut var) = (vec![0.0; n], vec![0.0; WIDTH], vec![0.0; WIDTH]);
            batch_norm(x, WIDTH, 1e-5, gamma, beta, &mut mean, &mut var, &mut y);
            [y, mean, var].concat()
        };
        let y = same_bits(|| forward(&x, &gamma, &beta));
        let (mean, var) = (&y[n..n + WIDTH], &y[n + WIDTH..]);
        for j in 0..WIDTH {
            let column: Vec<f64> = (0..ROWS).map(|r| f64::from(x[r * WIDTH + j])).collect();
            let m = column.iter().sum::<f64>() / ROWS as f64;
            let v = column.iter().map(|x| (x - m).powi(2)).sum::<f64>() / ROWS as f64;
            assert!((f64::from(mean[j]) - m).abs() < 1e-6 && (f64::from(var[j]) - v).abs() < 1e-6);
            let expected = (column[0] - m) / (v + 1e-5).sqrt() * f64::from(gamma[j]) + f64::from(beta[j]);
            assert!((f64::from(y[j]) - expected).abs() < 1e-5);
        }
        let all = same_bits(|| {
            let (mut dx, mut dgamma, mut dbeta) = (vec![0.0; n], vec![0.0; WIDTH], vec![0.0; WIDTH]);
            batch_norm_backward(&x, &dy, 1e-5, &gamma, mean, var, &mut dx, &mut dgamma, &mut dbeta);
            [dx, dgamma, dbeta].concat()
        });
        close(&all[..n], &differences(&x, &dy, |x| forward(x, &gamma, &beta)[..n].to_vec()));
        close(&all[n..n + WIDTH], &differences(&gamma, &dy, |gamma| forward(&x, gamma, &beta)[..n].to_vec()));
        close(&all[n + WIDTH..], &differences(&beta, &dy, |beta| forward(&x, &gamma, beta)[..n].to_vec()));
    }
}
