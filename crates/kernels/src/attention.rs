//! Scaled dot-product attention over heads that lie side by side in a row.

use crate::gemm::{Layout, Precision, load, store};
use crate::math;
use crate::simd::{LANES, Lanes, kernel};
use std::cell::RefCell;

mod engine;
mod packed;
mod shared;

pub use packed::KeyValues;
pub use shared::{MOST_ROWS, attend_rows};

/// Sequences of at most this many keys take the path without packing.
const SHORT: usize = 16;

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// All of them.
    Full,
    /// Keys up to the end of the query's own frame of so many positions, at least 1 (1: plain causal attention); the
    /// queries are the last of the keys.
    Causal(usize),
}

impl Mask {
    /// Number of first keys that position `at` of `keys` sees.
    #[must_use]
    #[inline(always)]
    pub fn seen(self, at: usize, keys: usize) -> usize {
        match self {
            Self::Full => keys,
            Self::Causal(frame) => keys.min((at / frame + 1) * frame),
        }
    }
}

/// Shape of an attention: `batch` sequences of `queries` against `keys` positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Sequences.
    pub batch: usize,
    /// Query positions in each sequence.
    pub queries: usize,
    /// Key and value positions in each sequence.
    pub keys: usize,
    /// Number of heads.
    pub heads: usize,
    /// Values per head.
    pub dim: usize,
    /// Factor of the scores, as a rule `1 / sqrt(dim)`.
    pub scale: f32,
    /// Which keys a query sees.
    pub mask: Mask,
}

impl Attention {
    /// Keys that query `i` sees.
    #[inline(always)]
    fn seen(&self, i: usize) -> usize {
        // Without a mask there may be more queries than keys.
        self.mask.seen(self.keys.saturating_sub(self.queries) + i, self.keys)
    }

    /// `out = softmax(scale q k^T) v` for every sequence and head, on the calling thread.
    ///
    /// Row `b * queries + i` of `q` and `out` starts at that multiple of `q_stride` and `out_stride`, row
    /// `b * keys + j` of `k` and `v` at that multiple of `kv_stride`; head `h` takes the columns from `h * dim`
    /// on. For a joint projection `[rows, 3 heads dim]` pass the slices that start at its three parts.
    ///
    /// # Panics
    /// If a slice is shorter than its shape or a causal attention has more queries than keys.
    #[allow(clippy::too_many_arguments)]
    pub fn forward(
        &self,
        q: &[f32],
        q_stride: usize,
        k: &[f32],
        v: &[f32],
        kv_stride: usize,
        out: &mut [f32],
        out_stride: usize,
    ) {
        let strides = [self.keys * kv_stride, kv_stride];
        self.run(q, q_stride, k, v, kv_stride, strides, out, out_stride);
    }

    /// `strides` are those from a sequence and from a key to the next.
    #[allow(clippy::too_many_arguments)]
    fn run(
        &self,
        q: &[f32],
        q_stride: usize,
        k: &[f32],
        v: &[f32],
        kv_stride: usize,
        strides: [usize; 2],
        out: &mut [f32],
        out_stride: usize,
    ) {
        let width = self.heads * self.dim;
        let fits = self.mask == Mask::Full || self.queries <= self.keys;
        assert!(fits, "causal attention has more queries than keys");
        Layout::Normal.check("q", q.len(), self.batch * self.queries, width, q_stride);
        Layout::Normal.check("out", out.len(), self.batch * self.queries, width, out_stride);
        Layout::Normal.check("k", k.len(), self.batch * self.keys, width, kv_stride);
        Layout::Normal.check("v", v.len(), self.batch * self.keys, width, kv_stride);
        if width == 0 {
            return;
        }
        if self.keys <= SHORT {
            return short(*self, q, q_stride, k, v, strides, out, out_stride);
        }
        KEY_VALUES.with_borrow_mut(|packed| {
            for b in 0..self.batch {
                packed.clear(self.heads, self.dim, self.keys, Precision::F32);
                let at = b * strides[0];
                packed.append(self.keys, &k[at..], &v[at..], strides[1]);
                let (q, out) = (&q[b * self.queries * q_stride..], &mut out[b * self.queries * out_stride..]);
                packed.attend(self.queries, self.mask, self.scale, q, q_stride, out, out_stride);
            }
        });
    }
}

thread_local! {
    /// The packed keys and values of one sequence.
    static KEY_VALUES: RefCell<KeyValues> = RefCell::default();
}

kernel! {
    /// Short sequences: heads lie side by side in the lanes, so one softmax serves up to sixteen of them.
    fn short<V>(
        shape: Attention, q: &[f32], q_stride: usize, k: &[f32], v: &[f32], strides: [usize; 2],
        out: &mut [f32], out_stride: usize,
    ) {
        let Attention { batch, queries, heads, dim, scale, .. } = shape;
        for b in 0..batch {
            for i in 0..queries {
                let (row, seen) = (b * queries + i, shape.seen(i));
                for first in (0..heads).step_by(LANES) {
                    let group = first * dim..heads.min(first + LANES) * dim;
                    let keys = b * strides[0] + group.start..;
                    let q = &q[row * q_stride..][group.clone()];
                    let weights = weights::<V>(q, &k[keys.clone()], strides[1], seen, dim, scale);
                    let out = &mut out[row * out_stride..][group];
                    mix::<V>(&weights[..seen], &v[keys], strides[1], dim, out);
                }
            }
        }
    }
}

/// `softmax(scale q k^T)` of up to sixteen heads, one per lane, for the first `seen` keys; the sum over keys runs in
/// the order of [`Lanes::reduce_add`].
#[inline(always)]
fn weights<V: Lanes>(
    q: &[f32],
    k: &[f32],
    stride: usize,
    seen: usize,
    dim: usize,
    scale: f32,
) -> [[f32; LANES]; SHORT] {
    let (mut e, mut max) = ([V::zero(); SHORT], V::splat(f32::NEG_INFINITY));
    for (j, score) in e[..seen].iter_mut().enumerate() {
        let k = &k[j * stride..][..q.len()];
        let mut dots = [V::zero(); LANES];
        for ((dot, q), k) in dots.iter_mut().zip(q.chunks_exact(dim)).zip(k.chunks_exact(dim)) {
            for (q, k) in q.chunks(LANES).zip(k.chunks(LANES)) {
                *dot = load::<V>(q).mul_add(load(k), *dot);
            }
        }
        *score = V::reduce_add_each(dots);
        max = max.max(*score);
    }
    let scale = V::splat(scale);
    for e in &mut e[..seen] {
        *e = math::exp((*e - max) * scale);
    }
    let (mut sums, mut width) = (e, seen.next_power_of_two());
    while width > 1 {
        width /= 2;
        for j in 0..width {
            sums[j] = sums[j] + sums[j + width];
        }
    }
    let inverse = V::splat(1.0) / sums[0];
    let mut weights = [[0.0; LANES]; SHORT];
    for (weights, e) in weights[..seen].iter_mut().zip(e) {
        (e * inverse).store(weights);
    }
    weights
}

/// `out = sum of weights[j] v[j]` for each head.
#[inline(always)]
fn mix<V: Lanes>(weights: &[[f32; LANES]], v: &[f32], stride: usize, dim: usize, out: &mut [f32]) {
    for (h, out) in out.chunks_exact_mut(dim).enumerate() {
        for (d, out) in out.chunks_mut(LANES).enumerate() {
            let mut y = V::zero();
            for (j, weights) in weights.iter().enumerate() {
                let v = &v[j * stride + h * dim + d * LANES..][..out.len()];
                y = V::splat(weights[h]).mul_add(load(v), y);
            }
            store(y, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::tests::{same_bits, values};

    fn sees(mask: Mask, i: usize, j: usize) -> bool {
        match mask {
            Mask::Full => true,
            Mask::Causal(frame) => j / frame <= i / frame,
        }
    }

    fn reference(s: &Attention, qkv: &[f32]) -> Vec<f64> {
        let width = s.heads * s.dim;
        let at = |part: usize, b: usize, i: usize, h: usize, d: usize| {
            f64::from(qkv[((b * s.keys + i) * 3 + part) * width + h * s.dim + d])
        };
        let mut out = Vec::new();
        for (b, i) in (0..s.batch).flat_map(|b| (0..s.queries).map(move |i| (b, i))) {
            for h in 0..s.heads {
                let seen = (0..s.keys).filter(|j| sees(s.mask, i, *j)).count();
                let score = |j| (0..s.dim).map(|d| at(0, b, i, h, d) * at(1, b, j, h, d)).sum::<f64>();
                let e: Vec<f64> = (0..seen).map(|j| (score(j) * f64::from(s.scale)).exp()).collect();
                let sum: f64 = e.iter().sum();
                out.extend(
                    (0..s.dim).map(|d| (0..seen).map(|j| e[j] / sum * at(2, b, j, h, d)).sum::<f64>()),
                );
            }
        }
        out
    }

    #[test]
    fn short_and_long_sequences_follow_the_definition() {
        let (full, causal, frames) = (Mask::Full, Mask::Causal(1), Mask::Causal(16));
        for (t, mask, dim) in [
            (1, causal, 64),
            (3, causal, 64),
            (16, full, 24),
            (17, causal, 20),
            (150, causal, 64),
            (150, full, 64),
            (12, Mask::Causal(4), 8),
            (48, frames, 20),
            (32, frames, 64),
        ] {
            let s = Attention { batch: 2, queries: t, keys: t, heads: 3, dim, scale: 0.7, mask };
            let width = 3 * dim;
            let qkv = values(1, 2 * t * 3 * width);
            let got = same_bits(|| {
                let mut out = vec![0.0; 2 * t * width];
                s.forward(&qkv, 3 * width, &qkv[width..], &qkv[2 * width..], 3 * width, &mut out, width);
                out
            });
            for (g, e) in got.iter().zip(reference(&s, &qkv)) {
                assert!((f64::from(*g) - e).abs() < 3e-6, "{t}: {g} against {e}");
            }
        }
    }

    #[test]
    fn frames_appended_one_by_one_have_the_bits_of_the_whole() {
        for (frame, dim) in [(49, 32), (16, 24), (5, 64)] {
            let (heads, frames) = (2, 3);
            let (width, rows) = (heads * dim, frames * frame);
            let qkv = values(4, rows * 3 * width);
            let (k, v, stride) = (&qkv[width..], &qkv[2 * width..], 3 * width);
            let mask = Mask::Causal(frame);
            let all = same_bits(|| {
                let mut packed = KeyValues::default();
                packed.clear(heads, dim, rows, Precision::F32);
                packed.append(rows, k, v, stride);
                let mut all = vec![0.0; rows * width];
                packed.attend(rows, mask, 0.2, &qkv, stride, &mut all, width);
                all
            });
            let (mut first, mut packed) = (KeyValues::default(), KeyValues::default());
            first.clear(heads, dim, rows, Precision::F32);
            first.append(frame, k, v, stride);
            packed.copy_from(&first);
            for f in 0..frames {
                let at = f * frame * stride;
                if f > 0 {
                    packed.append(frame, &k[at..], &v[at..], stride);
                }
                let mut out = vec![0.0; frame * width];
                packed.attend(frame, Mask::Full, 0.2, &qkv[at..], stride, &mut out, width);
                assert_eq!(out, all[f * frame * width..][..frame * width]);
            }
        }
    }

    #[test]
    fn bf16_rounds_on_every_unit_and_keeps_its_bits() {
        for (frame, dim) in [(49, 32), (16, 20), (5, 64), (33, 7)] {
            let (heads, rows) = (2, 3 * frame);
            let width = heads * dim;
            let qkv = values(4, rows * 3 * width);
            let (k, v, stride) = (&qkv[width..], &qkv[2 * width..], 3 * width);
            let mask = Mask::Causal(frame);
            let shape = Attention { batch: 1, queries: rows, keys: rows, heads, dim, scale: 0.3, mask };
            let exact = reference(&shape, &qkv);
            crate::gemm::bf16::tests::on_every_unit(|unit| {
                let mut packed = KeyValues::default();
                packed.clear(heads, dim, rows, Precision::Bf16);
                packed.append(rows, k, v, stride);
                let mut all = vec![0.0; rows * width];
                packed.attend(rows, mask, 0.3, &qkv, stride, &mut all, width);
                for (g, e) in all.iter().zip(&exact) {
                    assert!((f64::from(*g) - e).abs() < 1e-2, "{unit:?} {frame} {dim}: {g} against {e}");
                }
                packed.clear(heads, dim, rows, Precision::Bf16);
                for f in 0..3 {
                    let at = f * frame * stride;
                    packed.append(frame, &k[at..], &v[at..], stride);
                    let mut copy = KeyValues::default();
                    copy.copy_from(&packed);
                    let mut out = vec![0.0; frame * width];
                    copy.attend(frame, Mask::Full, 0.3, &qkv[at..], stride, &mut out, width);
                    assert_eq!(out, all[f * frame * width..][..frame * width], "{unit:?} {frame} {dim}");
                }
            });
        }
    }

    #[test]
    fn last_query_alone_has_the_bits_of_the_whole() {
        for t in [3, 40] {
            let s = Attention {
                batch: 1,
                queries: t,
                keys: t,
                heads: 2,
                dim: 64,
                scale: 0.125,
                mask: Mask::Causal(1),
            };
            let qkv = values(2, t * 384);
            let mut all = vec![0.0; t * 128];
            s.forward(&qkv, 384, &qkv[128..], &qkv[256..], 384, &mut all, 128);
            let mut last = vec![0.0; 128];
            let one = Attention { queries: 1, ..s };
            one.forward(&qkv[(t - 1) * 384..], 384, &qkv[128..], &qkv[256..], 384, &mut last, 128);
            assert_eq!(last, all[(t - 1) * 128..]);
        }
    }
}
