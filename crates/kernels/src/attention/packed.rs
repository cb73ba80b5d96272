//! Keys and values packed once and attended to many times.
//!
//! Per head the keys lie in panels of 32 `[dim, 32]` and the values in panels of 32 columns `[capacity, 32]`, as the
//! register tile reads its right operand. Scores of one tile of queries stay near the core: product, softmax and
//! mixing follow one another without a pass over memory, and the sum of a row divides its output alone.

use super::Mask;
use crate::buffer::Buffer;
use crate::gemm::pack::{KC, PANEL, ROW_STRIDE, TILE_VALUES, pack_tile};
use crate::gemm::tile::{MAX_ROWS, Next};
use crate::gemm::{Layout, part, store};
use crate::math;
use crate::simd::{LANES, Lanes, kernel};
use std::cell::RefCell;

/// Values of one register tile of scores.
const SCORES: usize = MAX_ROWS * PANEL;

/// Keys and values of one sequence, ready for attention; grows as frames come.
#[derive(Clone, Debug, Default)]
pub struct KeyValues {
    heads: usize,
    dim: usize,
    capacity: usize,
    len: usize,
    keys: Buffer,
    values: Buffer,
}

impl KeyValues {
    /// Forgets everything and makes room for `capacity` positions of `heads` heads of `dim` values.
    pub fn clear(&mut self, heads: usize, dim: usize, capacity: usize) {
        (self.heads, self.dim, self.len) = (heads, dim, 0);
        self.capacity = capacity.next_multiple_of(PANEL);
        self.keys.reserve(heads * self.keys_of_head());
        self.values.reserve(heads * self.values_of_head());
    }

    fn keys_of_head(&self) -> usize {
        self.capacity * self.dim
    }

    fn values_of_head(&self) -> usize {
        self.capacity * self.dim.next_multiple_of(PANEL)
    }

    /// Values that a head of `dim` takes for `capacity` positions.
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
        let (of_keys, of_values) = (self.keys_of_head(), self.values_of_head());
        for h in 0..self.heads {
            let at = h * self.dim;
            let keys = &mut self.keys[h * of_keys..][..of_keys];
            append_keys(self.len, rows, self.dim, &k[at..], stride, keys);
            let values = &mut self.values[h * of_values..][..of_values];
            for (i, panel) in values.chunks_exact_mut(self.capacity * PANEL).enumerate() {
                let from = i * PANEL;
                let columns = PANEL.min(self.dim - from);
                for (r, row) in panel[self.len * PANEL..].chunks_exact_mut(PANEL).take(rows).enumerate() {
                    row[..columns].copy_from_slice(&v[r * stride + at + from..][..columns]);
                }
            }
        }
        self.len += rows;
    }

    /// Takes over the positions of `other` and its shape.
    pub fn copy_from(&mut self, other: &Self) {
        self.clear(other.heads, other.dim, other.capacity);
        self.len = other.len;
        let (of_keys, of_values) = (self.keys_of_head(), self.values_of_head());
        let keys = other.len.next_multiple_of(PANEL) * self.dim;
        let panels = self.heads * of_values / (self.capacity * PANEL).max(1);
        for h in 0..self.heads {
            let range = h * of_keys..h * of_keys + keys;
            self.keys[range.clone()].copy_from_slice(&other.keys[range]);
        }
        for panel in 0..panels {
            let start = panel * self.capacity * PANEL;
            let range = start..start + other.len * PANEL;
            self.values[range.clone()].copy_from_slice(&other.values[range]);
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
                    capacity: self.capacity,
                    dim: self.dim,
                    first: self.len.saturating_sub(queries),
                    mask,
                    scale,
                };
                let at = h * self.dim;
                attend_head(head, queries, &q[at..], q_stride, &mut out[at..], out_stride, scratch);
            }
        });
    }
}

/// Writes `rows` keys from position `start` on into panels `[dim, 32]`.
fn append_keys(start: usize, rows: usize, dim: usize, k: &[f32], stride: usize, keys: &mut [f32]) {
    let mut done = 0;
    while done < rows {
        let (panel, column) = ((start + done) / PANEL, (start + done) % PANEL);
        let count = (rows - done).min(PANEL - column);
        let panel = &mut keys[panel * dim * PANEL..][..dim * PANEL];
        // Sixteen dimensions at a time: the panel's part stays in cache while the keys are scattered.
        for (part, lines) in panel.chunks_mut(LANES * PANEL).enumerate() {
            for j in 0..count {
                let row = &k[(done + j) * stride + part * LANES..][..lines.len() / PANEL];
                for (line, &x) in lines.chunks_exact_mut(PANEL).zip(row) {
                    line[column + j] = x;
                }
            }
        }
        done += count;
    }
}

/// One head of a [`KeyValues`] as its queries see it.
#[derive(Clone, Copy)]
struct Head<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    len: usize,
    capacity: usize,
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
        let blocks = head.len.max(head.dim).div_ceil(KC);
        let a = s.a.reserve(blocks * TILE_VALUES);
        let scores = s.scores.reserve(head.len.div_ceil(PANEL) * SCORES);
        let acc = s.acc.reserve(SCORES);
        let tiles = queries.div_ceil(V::ROWS);
        for tile in 0..tiles {
            let rows = part(queries, tiles, tile);
            let seen = head.mask.seen(head.first + rows.end - 1, head.len);
            for (block, a) in a.chunks_exact_mut(TILE_VALUES).take(head.dim.div_ceil(KC)).enumerate() {
                let depth = block * KC..head.dim.min((block + 1) * KC);
                pack_tile(q, q_stride, Layout::Normal, rows.clone(), depth, a);
            }
            for (panel, scores) in scores.chunks_exact_mut(SCORES).take(seen.div_ceil(PANEL)).enumerate() {
                let keys = &head.keys[panel * head.dim * PANEL..];
                sum_tile::<V>(rows.len(), head.dim, a, keys, scores);
            }
            let mut inverse = [0.0; MAX_ROWS];
            for (r, inverse) in inverse[..rows.len()].iter_mut().enumerate() {
                let own = head.mask.seen(head.first + rows.start + r, head.len);
                *inverse = 1.0 / softmax_tile_row::<V>(r, own, seen, head.scale, scores, a);
            }
            for panel in 0..head.dim.div_ceil(PANEL) {
                sum_tile::<V>(rows.len(), seen, a, &head.values[panel * head.capacity * PANEL..], acc);
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
    }
}

/// `acc[rows, 32] = a[rows, depth] * b[depth, 32]`, A packed in blocks of [`KC`].
#[inline(always)]
fn sum_tile<V: crate::gemm::tile::Tile>(rows: usize, depth: usize, a: &[f32], b: &[f32], acc: &mut [f32]) {
    assert!(a.len() >= depth.div_ceil(KC) * TILE_VALUES && b.len() >= depth * PANEL && acc.len() >= SCORES);
    for block in 0..depth.div_ceil(KC) {
        let (a, b) = (&a[block * TILE_VALUES..], &b[block * KC * PANEL..]);
        let depth = KC.min(depth - block * KC);
        let next = Next { c: acc.as_ptr(), stride: 0, b: b.as_ptr().wrapping_add(depth * PANEL) };
        // SAFETY: a packed tile, `depth` rows of a panel and MAX_ROWS rows of sums, as asserted.
        #[allow(unsafe_code)]
        unsafe {
            V::run::<false>(rows, depth, a.as_ptr(), b.as_ptr(), acc.as_mut_ptr(), block == 0, next);
        }
    }
}

/// Sixteen scores of a row, `-inf` for those beyond `seen`.
#[inline(always)]
fn scores_at<V: Lanes>(scores: &[f32], r: usize, at: usize, seen: usize) -> V {
    let x = &scores[at / PANEL * SCORES + r * PANEL + at % PANEL..][..LANES];
    match (seen - at).checked_sub(LANES) {
        Some(_) => crate::gemm::load(x),
        None => V::load_part(&x[..seen - at], f32::NEG_INFINITY),
    }
}

/// Row `r` of the scores to `e^(scale (score - max))` in the packed tile `a`, 0 from `own` to `seen`; gives the sum.
#[inline(always)]
fn softmax_tile_row<V: Lanes>(
    r: usize,
    own: usize,
    seen: usize,
    scale: f32,
    scores: &[f32],
    a: &mut [f32],
) -> f32 {
    let mut max = V::splat(f32::NEG_INFINITY);
    for at in (0..own).step_by(LANES) {
        max = max.max(scores_at(scores, r, at, own));
    }
    let (max, scale) = (V::splat(max.reduce_max()), V::splat(scale));
    let mut sum = V::zero();
    for at in (0..own).step_by(LANES) {
        let y = math::exp_negative((scores_at::<V>(scores, r, at, own) - max) * scale);
        sum = sum + y;
        store(y, &mut a[at / KC * TILE_VALUES + r * ROW_STRIDE + at % KC..][..LANES]);
    }
    for at in (own.next_multiple_of(LANES)..seen).step_by(LANES) {
        store(V::zero(), &mut a[at / KC * TILE_VALUES + r * ROW_STRIDE + at % KC..][..LANES]);
    }
    sum.reduce_add()
}
