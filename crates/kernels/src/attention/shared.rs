//! Attention of one head over rows that are keys and values at once.
//!
//! With keys `W_k x` and values `W_v x` of few positions, a score is `(W_k^T q) x` and a mixture `W_v (sum of p x)`: two
//! products for each query in place of two for each position, and rows that all heads share.

use super::SHORT;
use crate::gemm::{Layout, load, store};
use crate::math;
use crate::simd::{LANES, Lanes, kernel};

/// Most positions that [`attend_rows`] looks at.
pub const MOST_ROWS: usize = SHORT;

/// `u = sum of softmax(u x) x` over the `keys` rows `x` of each of `batch` sequences, in place and on the calling thread:
/// row `b` of `u` starts at `b * stride`, row `j` of sequence `b` is row `j * batch + b` of `rows`, all `width` values
/// long.
///
/// # Panics
/// If a slice is shorter than its shape or there are more than [`MOST_ROWS`] keys.
pub fn attend_rows([batch, keys, width]: [usize; 3], u: &mut [f32], stride: usize, rows: &[f32]) {
    assert!(keys <= MOST_ROWS, "{keys} positions, at most {MOST_ROWS}");
    Layout::Normal.check("u", u.len(), batch, width, stride);
    Layout::Normal.check("rows", rows.len(), keys * batch, width, width);
    if width > 0 && keys > 0 {
        attend(batch, keys, width, u, stride, rows);
    }
}

kernel! {
    /// Sixteen sequences lie side by side in the lanes, so one softmax serves them all.
    fn attend<V>(batch: usize, keys: usize, width: usize, u: &mut [f32], stride: usize, rows: &[f32]) {
        for first in (0..batch).step_by(LANES) {
            let group = first..batch.min(first + LANES);
            let row = |j: usize, b: usize| &rows[(j * batch + b) * width..][..width];
            let mut scores = [V::zero(); SHORT];
            for (scores, j) in scores.chunks_mut(ROWS).zip((0..keys).step_by(ROWS)) {
                let mut dots = [[V::zero(); LANES]; ROWS];
                for (lane, b) in group.clone().enumerate() {
                    let u = &u[b * stride..][..width];
                    match keys - j {
                        1 => products::<V, 1>(u, [row(j, b)], lane, &mut dots),
                        2 => products::<V, 2>(u, [row(j, b), row(j + 1, b)], lane, &mut dots),
                        _ => products::<V, ROWS>(u, [row(j, b), row(j + 1, b), row(j + 2, b)], lane, &mut dots),
                    }
                }
                for (score, dots) in scores.iter_mut().zip(dots).take(keys - j) {
                    *score = V::reduce_add_each(dots);
                }
            }
            let shares = shares(&mut scores[..keys]);
            for (lane, b) in group.enumerate() {
                let out = &mut u[b * stride..][..width];
                for j in (0..keys).step_by(ROWS) {
                    let share = |i: usize| shares[j + i][lane];
                    match keys - j {
                        1 => blend::<V, 1>([row(j, b)], [share(0)], j > 0, out),
                        2 => blend::<V, 2>([row(j, b), row(j + 1, b)], [share(0), share(1)], j > 0, out),
                        _ => {
                            let rows = [row(j, b), row(j + 1, b), row(j + 2, b)];
                            blend::<V, ROWS>(rows, [share(0), share(1), share(2)], j > 0, out);
                        }
                    }
                }
            }
        }
    }
}

/// Rows that are looked at together.
const ROWS: usize = 3;

/// The sixteen partial sums of the products of `u` with each of `rows`, to one lane of `dots`.
#[inline(always)]
fn products<V: Lanes, const N: usize>(u: &[f32], rows: [&[f32]; N], lane: usize, dots: &mut [[V; LANES]]) {
    let mut sums = [V::zero(); N];
    for (c, u) in u.chunks(LANES).enumerate() {
        let x = load::<V>(u);
        for (sum, row) in sums.iter_mut().zip(rows) {
            *sum = x.mul_add(load(&row[c * LANES..][..u.len()]), *sum);
        }
    }
    for (dots, sum) in dots.iter_mut().zip(sums) {
        dots[lane] = sum;
    }
}

/// Softmax over the positions of every lane.
#[inline(always)]
fn shares<V: Lanes>(scores: &mut [V]) -> [[f32; LANES]; SHORT] {
    let max = scores.iter().fold(V::splat(f32::NEG_INFINITY), |max, score| max.max(*score));
    let mut sum = V::zero();
    for score in scores.iter_mut() {
        *score = math::exp(*score - max);
        sum = sum + *score;
    }
    let inverse = V::splat(1.0) / sum;
    let mut shares = [[0.0; LANES]; SHORT];
    for (share, score) in shares.iter_mut().zip(scores) {
        (*score * inverse).store(share);
    }
    shares
}

/// `out = sum of shares x`, or with `more` added to what is there.
#[inline(always)]
fn blend<V: Lanes, const N: usize>(rows: [&[f32]; N], shares: [f32; N], more: bool, out: &mut [f32]) {
    let shares = shares.map(V::splat);
    for (c, out) in out.chunks_mut(LANES).enumerate() {
        let mut y = if more { load::<V>(out) } else { V::zero() };
        for (share, row) in shares.iter().zip(rows) {
            y = share.mul_add(load(&row[c * LANES..][..out.len()]), y);
        }
        store(y, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::tests::{same_bits, values};

    #[test]
    fn rows_are_mixed_by_their_product_with_the_query() {
        for [batch, keys, width] in [[5, 3, 20], [33, 1, 192], [16, 2, 7], [1, 16, 40], [17, 3, 32]] {
            let stride = width + 3;
            let (u, rows) = (values(3, batch * stride), values(4, keys * batch * width));
            let got = same_bits(|| {
                let mut out = u.clone();
                attend_rows([batch, keys, width], &mut out, stride, &rows);
                out
            });
            for b in 0..batch {
                let row = |j: usize| &rows[(j * batch + b) * width..][..width];
                let query = &u[b * stride..][..width];
                let score = |j| row(j).iter().zip(query).map(|(x, u)| f64::from(x * u)).sum::<f64>().exp();
                let sum: f64 = (0..keys).map(score).sum();
                for c in 0..width {
                    let want: f64 = (0..keys).map(|j| score(j) / sum * f64::from(row(j)[c])).sum();
                    assert!((f64::from(got[b * stride + c]) - want).abs() < 1e-5, "{batch} {keys} {width}");
                }
                // What lies between rows is not touched.
                let gap = b * stride + width..(b + 1) * stride;
                assert_eq!(got[gap.clone()], u[gap]);
            }
        }
    }
}
