//! Keys and values packed once and attended to many times.
//!
//! Per head the keys lie in panels of 32 `[dim, 32]` and the values in panels of 32 columns `[capacity, 32]`, as the
//! register tile reads its right operand. Scores of one tile of queries stay near the core: product, softmax and
//! mixing follow one another without a pass over memory, and the sum of a row divides its output alone.
//!
//! In bf16 both lie in pairs along their inner dimension, and queries and probabilities are rounded too; scores,
//! softmax and sums are f32. A machine without a unit for bf16 attends in f32.

use super::Mask;
#[cfg(target_arch = "x86_64")]
use super::engine::Paired;
use super::engine::{Engine, Single};
use crate::buffer::Buffer;
use crate::gemm::bf16::{self, DEPTH, Precision, Unit};
use crate::gemm::pack::PANEL;
use crate::gemm::{Layout, part, store};
use crate::math;
use crate::simd::{LANES, Lanes, kernel};
use std::cell::RefCell;
use std::ops::Range;

/// Most rows of a tile.
const MOST_ROWS: usize = 32;

/// Keys and values of one sequence, ready for attention; grows as frames come.
#[derive(Clone, Debug, Default)]
pub struct KeyValues {
    heads: usize,
    dim: usize,
    capacity: usize,
    len: usize,
    /// Whether values lie in pairs of bfloat16.
    paired: bool,
    keys: Buffer,
    values: Buffer,
}

impl KeyValues {
    /// Forgets everything and makes room for `capacity` positions of `heads` heads of `dim` values.
    pub fn clear(&mut self, heads: usize, dim: usize, capacity: usize, precision: Precision) {
        (self.heads, self.dim, self.len) = (heads, dim, 0);
        self.paired = precision == Precision::Bf16 && bf16::unit() != Unit::Rounded;
        self.capacity = capacity.next_multiple_of(PANEL);
        self.keys.reserve(heads * self.keys_of_head());
        self.values.reserve(heads * self.values_of_head());
    }

    /// Rows of a panel of keys.
    fn depth(&self) -> usize {
        if self.paired { self.dim.next_multiple_of(DEPTH) / 2 } else { self.dim }
    }

    /// Rows of a panel of values.
    fn height(&self) -> usize {
        if self.paired { self.capacity / 2 } else { self.capacity }
    }

    fn keys_of_head(&self) -> usize {
        self.capacity * self.depth()
    }

    fn values_of_head(&self) -> usize {
        self.height() * self.dim.next_multiple_of(PANEL)
    }

    /// Values that a head of `dim` takes for `capacity` positions in f32; in bf16 it is half.
    pub fn values(dim: usize, capacity: usize) -> usize {
        capacity.next_multiple_of(PANEL) * (dim + dim.next_multiple_of(PANEL))
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        (self.keys.len() + self.values.len()) * size_of::<f32>()
    }

    /// Adds `rows` positions; row `i` of `k` and `v` starts at `i * stride`, head `h` at its column `h * dim`.
    ///
    /// # Panics
    /// If a slice is shorter than its shape or the capacity is exceeded.
    pub fn append(&mut self, rows: usize, k: &[f32], v: &[f32], stride: usize) {
        let width = self.heads * self.dim;
        Layout::Normal.check("k", k.len(), rows, width, stride);
        Layout::Normal.check("v", v.len(), rows, width, stride);
        assert!(self.len + rows <= self.capacity, "more positions than the capacity {}", self.capacity);
        let (of_keys, of_values, height) = (self.keys_of_head(), self.values_of_head(), self.height());
        let range = self.len..self.len + rows;
        for h in 0..self.heads {
            let at = h * self.dim;
            let keys = &mut self.keys[h * of_keys..][..of_keys];
            let values = &mut self.values[h * of_values..][..of_values];
            if self.paired {
                append_key_pairs(range.clone(), self.dim, &k[at..], stride, keys);
                append_value_pairs(range.clone(), self.dim, height, &v[at..], stride, values);
            } else {
                append_keys(range.clone(), self.dim, &k[at..], stride, keys);
                append_values(range.clone(), self.dim, height, &v[at..], stride, values);
            }
        }
        self.len += rows;
    }

    /// Takes over the positions of `other` and its shape.
    pub fn copy_from(&mut self, other: &Self) {
        let precision = if other.paired { Precision::Bf16 } else { Precision::F32 };
        self.clear(other.heads, other.dim, other.capacity, precision);
        self.len = other.len;
        let (of_keys, panel) = (self.keys_of_head(), self.height() * PANEL);
        let keys = other.len.next_multiple_of(PANEL) * self.depth();
        for start in (0..self.heads).map(|h| h * of_keys) {
            self.keys[start..start + keys].copy_from_slice(&other.keys[start..start + keys]);
        }
        let held = if self.paired { other.len.next_multiple_of(DEPTH) / 2 } else { other.len } * PANEL;
        for start in (0..self.heads * self.dim.div_ceil(PANEL)).map(|i| i * panel) {
            self.values[start..start + held].copy_from_slice(&other.values[start..start + held]);
        }
    }

    /// `out = softmax(scale q k^T) v` of `queries` queries, on the calling thread: rows of `q` and `out` start at
    /// multiples of their strides, head `h` at column `h * dim`. With a causal mask the queries are the last positions.
    ///
    /// # Panics
    /// If a slice is shorter than its shape, no position is held, or there are more causal queries than positions.
    #[allow(clippy::too_many_arguments)]
    pub fn attend(
        &self,
        queries: usize,
        mask: Mask,
        scale: f32,
        q: &[f32],
        q_stride: usize,
        out: &mut [f32],
        out_stride: usize,
    ) {
        let width = self.heads * self.dim;
        Layout::Normal.check("q", q.len(), queries, width, q_stride);
        Layout::Normal.check("out", out.len(), queries, width, out_stride);
        assert!(!self.is_empty(), "attention without keys");
        assert!(mask == Mask::Full || queries <= self.len, "causal attention has more queries than keys");
        if queries == 0 {
            return;
        }
        SCRATCH.with_borrow_mut(|scratch| {
            for h in 0..self.heads {
                let head = Head {
                    keys: &self.keys[h * self.keys_of_head()..][..self.keys_of_head()],
                    values: &self.values[h * self.values_of_head()..][..self.values_of_head()],
                    len: self.len,
                    depth: self.depth(),
                    height: self.height(),
                    dim: self.dim,
                    first: self.len.saturating_sub(queries),
                    mask,
                    scale,
                };
                let (q, out) = (&q[h * self.dim..], &mut out[h * self.dim..]);
                if self.paired {
                    attend_pairs(head, queries, q, q_stride, out, out_stride, scratch);
                } else {
                    attend_head(head, queries, q, q_stride, out, out_stride, scratch);
                }
            }
        });
    }
}

kernel! {
    /// Writes keys `at` into panels `[dim, 32]`.
    fn append_keys<V>(at: Range<usize>, dim: usize, k: &[f32], stride: usize, keys: &mut [f32]) {
        let mut next = at.start;
        while next < at.end {
            let count = (at.end - next).min(PANEL - next % PANEL);
            let panel = &mut keys[next / PANEL * dim * PANEL..][..dim * PANEL];
            // Sixteen dimensions at a time: the panel's part stays in cache while the keys are scattered.
            for (part, lines) in panel.chunks_mut(LANES * PANEL).enumerate() {
                for j in 0..count {
                    let row = &k[(next - at.start + j) * stride + part * LANES..][..lines.len() / PANEL];
                    for (line, &x) in lines.chunks_exact_mut(PANEL).zip(row) {
                        line[next % PANEL + j] = x;
                    }
                }
            }
            next += count;
        }
    }
}

kernel! {
    /// Writes values `at` into panels `[height, 32]`.
    fn append_values<V>(
        at: Range<usize>, dim: usize, height: usize, v: &[f32], stride: usize, values: &mut [f32],
    ) {
        for (i, panel) in values.chunks_exact_mut(height * PANEL).enumerate() {
            let columns = PANEL.min(dim - i * PANEL);
            let rows = panel[at.start * PANEL..at.end * PANEL].chunks_exact_mut(PANEL);
            for (r, row) in rows.enumerate() {
                row[..columns].copy_from_slice(&v[r * stride + i * PANEL..][..columns]);
            }
        }
    }
}

kernel! {
    /// Writes keys `at` into panels of pairs `[dim / 2, 32]`, the inner dimension padded with zeros.
    fn append_key_pairs<V>(at: Range<usize>, dim: usize, k: &[f32], stride: usize, keys: &mut [f32]) {
        let size = dim.next_multiple_of(DEPTH) / 2 * PANEL;
        for j in at.clone() {
            let row = &k[(j - at.start) * stride..][..dim];
            let panel = &mut keys[j / PANEL * size..][..size];
            let (pairs, last) = row.as_chunks::<2>();
            let (lines, rest) = panel.split_at_mut(pairs.len() * PANEL);
            for (line, &[first, second]) in lines.chunks_exact_mut(PANEL).zip(pairs) {
                line[j % PANEL] = bf16::pair(first, second);
            }
            for (i, line) in rest.chunks_exact_mut(PANEL).enumerate() {
                let first = if i == 0 && !last.is_empty() { last[0] } else { 0.0 };
                line[j % PANEL] = bf16::pair(first, 0.0);
            }
        }
    }
}

kernel! {
    /// Writes values `at` into panels of pairs `[height, 32]`; rows up to the next block are zeros.
    fn append_value_pairs<V>(
        at: Range<usize>, dim: usize, height: usize, v: &[f32], stride: usize, values: &mut [f32],
    ) {
        for (i, panel) in values.chunks_exact_mut(height * PANEL).enumerate() {
            let columns = PANEL.min(dim - i * PANEL);
            for j in at.clone() {
                let row = &v[(j - at.start) * stride + i * PANEL..][..columns];
                let pairs = &mut panel[j / 2 * PANEL..][..columns];
                for (pair, &x) in pairs.iter_mut().zip(row) {
                    let half = bf16::bf16_bits(x);
                    let bits = if j % 2 == 0 { half } else { (pair.to_bits() & 0xffff) | half << 16 };
                    *pair = f32::from_bits(bits);
                }
            }
            panel[at.end.div_ceil(2) * PANEL..at.end.next_multiple_of(DEPTH) / 2 * PANEL].fill(0.0);
        }
    }
}

/// One head of a [`KeyValues`] as its queries see it.
#[derive(Clone, Copy)]
struct Head<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    len: usize,
    /// Rows of a panel of keys.
    depth: usize,
    /// Rows of a panel of values.
    height: usize,
    dim: usize,
    /// Position of the first query.
    first: usize,
    mask: Mask,
    scale: f32,
}

/// Packed queries and probabilities, scores, one tile of the output.
#[derive(Default)]
struct Scratch {
    a: Buffer,
    scores: Buffer,
    acc: Buffer,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

kernel! {
    fn attend_head<V>(
        head: Head, queries: usize, q: &[f32], q_stride: usize, out: &mut [f32], out_stride: usize, s: &mut Scratch,
    ) {
        run::<V, Single<V>>(head, queries, q, q_stride, out, out_stride, s);
    }
}

/// One head in bf16.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn attend_pairs(
    head: Head,
    queries: usize,
    q: &[f32],
    q_stride: usize,
    out: &mut [f32],
    out_stride: usize,
    s: &mut Scratch,
) {
    use crate::gemm::bf16::{Amx, Vector};
    use crate::simd::Avx512;

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx2,fma")]
    fn amx(head: Head, queries: usize, q: (&[f32], usize), out: (&mut [f32], usize), s: &mut Scratch) {
        run::<Avx512, Paired<Amx>>(head, queries, q.0, q.1, out.0, out.1, s);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx2,fma")]
    fn vector(head: Head, queries: usize, q: (&[f32], usize), out: (&mut [f32], usize), s: &mut Scratch) {
        run::<Avx512, Paired<Vector>>(head, queries, q.0, q.1, out.0, out.1, s);
    }

    // SAFETY: pairs are made only where the machine has a unit for them.
    match bf16::unit() {
        Unit::Amx => unsafe { amx(head, queries, (q, q_stride), (out, out_stride), s) },
        Unit::Vector => unsafe { vector(head, queries, (q, q_stride), (out, out_stride), s) },
        Unit::Rounded => unreachable!("no pairs are made without a unit for bf16"),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn attend_pairs(_: Head, _: usize, _: &[f32], _: usize, _: &mut [f32], _: usize, _: &mut Scratch) {
    unreachable!("no pairs are made without a unit for bf16")
}

#[inline(always)]
fn run<V: Lanes, E: Engine<V>>(
    head: Head,
    queries: usize,
    q: &[f32],
    q_stride: usize,
    out: &mut [f32],
    out_stride: usize,
    s: &mut Scratch,
) {
    let tile_values = E::HEIGHT * PANEL;
    let a = s.a.reserve(E::values(head.len.max(head.dim)));
    let scores = s.scores.reserve(head.len.div_ceil(PANEL) * tile_values);
    let acc = s.acc.reserve(tile_values);
    let tiles = queries.div_ceil(E::ROWS);
    E::begin();
    for tile in 0..tiles {
        let rows = part(queries, tiles, tile);
        let seen = head.mask.seen(head.first + rows.end - 1, head.len);
        E::pack(q, q_stride, rows.clone(), head.dim, a);
        for (panel, scores) in scores.chunks_exact_mut(tile_values).take(seen.div_ceil(PANEL)).enumerate() {
            E::sum(rows.len(), head.dim, a, &head.keys[panel * head.depth * PANEL..], scores);
        }
        let mut inverse = [0.0; MOST_ROWS];
        for (r, inverse) in inverse[..rows.len()].iter_mut().enumerate() {
            let own = head.mask.seen(head.first + rows.start + r, head.len);
            *inverse = 1.0 / softmax_tile_row::<V, E>(r, own, seen, head.scale, scores, a);
        }
        for panel in 0..head.dim.div_ceil(PANEL) {
            E::sum(rows.len(), seen, a, &head.values[panel * head.height * PANEL..], acc);
            let columns = panel * PANEL..head.dim.min((panel + 1) * PANEL);
            for (r, row) in rows.clone().enumerate() {
                let (sums, _) = acc[r * PANEL..][..PANEL].as_chunks::<LANES>();
                let out = &mut out[row * out_stride..][columns.clone()];
                for (out, sums) in out.chunks_mut(LANES).zip(sums) {
                    store(V::load(sums) * V::splat(inverse[r]), out);
                }
            }
        }
    }
    E::end();
}

/// Sixteen of a row's scores, `-inf` for those beyond `seen`.
#[inline(always)]
fn scores_at<V: Lanes>(row: &[f32], height: usize, at: usize, seen: usize) -> V {
    let x = &row[at / PANEL * height * PANEL + at % PANEL..][..LANES];
    if seen - at >= LANES { crate::gemm::load(x) } else { V::load_part(&x[..seen - at], f32::NEG_INFINITY) }
}

/// Row `r` of the scores to `e^(scale (score - max))` in the packed tile `a`, 0 from `own` to the end of the last block
/// of `seen`; gives the sum.
#[inline(always)]
fn softmax_tile_row<V: Lanes, E: Engine<V>>(
    r: usize,
    own: usize,
    seen: usize,
    scale: f32,
    scores: &[f32],
    a: &mut [f32],
) -> f32 {
    let row = &scores[r * PANEL..];
    let mut max = V::splat(f32::NEG_INFINITY);
    for at in (0..own).step_by(LANES) {
        max = max.max(scores_at(row, E::HEIGHT, at, own));
    }
    let (max, scale) = (V::splat(max.reduce_max()), V::splat(scale));
    let mut sum = V::zero();
    for at in (0..own).step_by(LANES) {
        let y = math::exp_negative((scores_at::<V>(row, E::HEIGHT, at, own) - max) * scale);
        sum = sum + y;
        E::put(a, seen, r, at, y);
    }
    for at in (own.next_multiple_of(LANES)..seen.next_multiple_of(PANEL)).step_by(LANES) {
        E::put(a, seen, r, at, V::zero());
    }
    sum.reduce_add()
}
