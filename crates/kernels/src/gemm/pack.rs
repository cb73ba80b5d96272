//! Packed operands: B in panels of 32 columns, A in tiles of one register tile's rows.

use super::bf16::{self, Precision};
use super::tile::{K_STRIDE, MAX_ROWS};
use super::{Layout, load, store};
use crate::buffer::Buffer;
use crate::par::par_rows_mut;
use crate::simd::{LANES, Lanes, fetch};
use std::ops::Range;

/// Columns of a packed panel.
pub(crate) const PANEL: usize = 32;
/// Depth of a block of K: a panel's block (32 KiB) stays in the first-level cache while row tiles pass.
pub(crate) const KC: usize = 256;
/// Distance between rows of a row-major packed tile: not a power of two, so rows do not share cache sets.
pub(crate) const ROW_STRIDE: usize = KC + 16;
/// Values that one packed tile of either layout takes.
pub(crate) const TILE_VALUES: usize = 4096;

const _: () = assert!(TILE_VALUES >= MAX_ROWS * ROW_STRIDE && TILE_VALUES >= KC * K_STRIDE);

/// The right operand `[K, N]` of a product, packed once into panels of 32 columns (padded with zeros).
#[derive(Clone, Debug, Default)]
pub struct PackedMatrix {
    data: Buffer,
    k: usize,
    n: usize,
    precision: Precision,
}

impl PackedMatrix {
    /// Packs weights stored input-major, `w` of shape `[k, n]` (in, out).
    ///
    /// # Panics
    /// If `w` has not `k * n` values.
    pub fn from_in_out(w: &[f32], k: usize, n: usize) -> Self {
        let mut packed = Self::default();
        packed.pack(w, n, Layout::Normal, k, n);
        packed
    }

    /// Packs weights stored output-major (PyTorch's `Linear.weight`), `w` of shape `[n, k]` (out, in).
    ///
    /// # Panics
    /// If `w` has not `k * n` values.
    pub fn from_out_in(w: &[f32], k: usize, n: usize) -> Self {
        let mut packed = Self::default();
        packed.pack(w, k, Layout::Transposed, k, n);
        packed
    }

    /// Rounds the values for products in `precision`; from bf16 there is no way back.
    #[must_use]
    pub fn in_precision(mut self, precision: Precision) -> Self {
        if (self.precision, precision) != (Precision::F32, Precision::Bf16) || self.k * self.n == 0 {
            return self;
        }
        let (panels, rows) = (self.n.div_ceil(PANEL), self.pair_rows());
        let values = &self.data[..panels * self.k * PANEL];
        let data = if bf16::unit() == bf16::Unit::Rounded {
            let mut data = Buffer::zeros(values.len());
            data.iter_mut().zip(values).for_each(|(d, &v)| *d = bf16::round(v));
            data
        } else {
            let mut data = Buffer::zeros(panels * rows * PANEL);
            let panels = values.chunks_exact(self.k * PANEL).zip(data.chunks_exact_mut(rows * PANEL));
            panels.for_each(|(panel, out)| bf16::pair_panel(panel, out));
            data
        };
        (self.data, self.precision) = (data, precision);
        self
    }

    /// The precision of products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes of the packed values.
    pub fn bytes(&self) -> usize {
        self.data.len() * size_of::<f32>()
    }

    /// Rows of pairs of a panel in bf16.
    fn pair_rows(&self) -> usize {
        self.k.next_multiple_of(bf16::DEPTH) / 2
    }

    /// Panel `i` in bf16, rows of pairs.
    #[inline(always)]
    #[cfg(target_arch = "x86_64")]
    pub(super) fn pairs(&self, i: usize) -> &[f32] {
        let size = self.pair_rows() * PANEL;
        &self.data[i * size..(i + 1) * size]
    }

    /// Rows: the length of each sum.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of the product.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Repacks in place, keeping the buffer: `b` is `[k, n]` with leading dimension `ld`, or `[n, k]` where
    /// `layout` is transposed.
    ///
    /// # Panics
    /// If `b` is shorter than its shape.
    pub fn pack(&mut self, b: &[f32], ld: usize, layout: Layout, k: usize, n: usize) {
        layout.check("b", b.len(), k, n, ld);
        (self.k, self.n, self.precision) = (k, n, Precision::F32);
        if k == 0 || n == 0 {
            return;
        }
        let data = self.data.reserve(n.div_ceil(PANEL) * k * PANEL);
        for (i, panel) in data.chunks_exact_mut(k * PANEL).enumerate() {
            pack_panel(b, ld, layout, i * PANEL, n.min(i * PANEL + PANEL), panel);
        }
    }

    /// As [`Self::pack`], panels split among rayon's threads.
    pub(crate) fn pack_parallel(&mut self, b: &[f32], ld: usize, layout: Layout, k: usize, n: usize) {
        layout.check("b", b.len(), k, n, ld);
        (self.k, self.n, self.precision) = (k, n, Precision::F32);
        let panels = n.div_ceil(PANEL);
        let data = self.data.reserve(panels * k * PANEL);
        par_rows_mut(data, panels, k * PANEL, |range, data| {
            for (i, panel) in range.zip(data.chunks_exact_mut((k * PANEL).max(1))) {
                pack_panel(b, ld, layout, i * PANEL, n.min(i * PANEL + PANEL), panel);
            }
        });
    }

    /// Panel `i`'s rows from `k0` on.
    #[inline(always)]
    pub(crate) fn panel(&self, i: usize, k0: usize) -> &[f32] {
        &self.data[(i * self.k + k0) * PANEL..(i + 1) * self.k * PANEL]
    }
}

/// Packs columns `n0..n1` of `b` into one panel `[k, 32]`.
fn pack_panel(b: &[f32], ld: usize, layout: Layout, n0: usize, n1: usize, panel: &mut [f32]) {
    let width = n1 - n0;
    match layout {
        Layout::Normal => {
            for (p, row) in panel.chunks_exact_mut(PANEL).enumerate() {
                row[..width].copy_from_slice(&b[p * ld + n0..p * ld + n1]);
                row[width..].fill(0.0);
            }
        }
        Layout::Transposed => {
            // Sixteen k at a time: the panel's part stays in cache while the columns are scattered.
            for (q, rows) in panel.chunks_mut(PANEL * 16).enumerate() {
                let depth = rows.len() / PANEL;
                for j in 0..PANEL {
                    let start = (n0 + j) * ld + q * 16;
                    for p in 0..depth {
                        rows[p * PANEL + j] = if j < width { b[start + p] } else { 0.0 };
                    }
                }
            }
        }
    }
}

/// Rows between the one that is copied and the one that is asked for.
const AHEAD: usize = 2;

/// Copies a row of A and asks for the row [`AHEAD`] of it, `lda` values apart.
#[inline(always)]
fn copy_row<V: Lanes>(row: &[f32], lda: usize, out: &mut [f32]) {
    for (x, out) in row.chunks(LANES).zip(out.chunks_mut(LANES)) {
        fetch(x.as_ptr().wrapping_add(AHEAD * lda));
        store(load::<V>(x), out);
    }
}

/// Packs rows `rows` of A, block `k0..k1` of K, into one tile.
#[inline(always)]
pub(crate) fn pack_tile<V: Lanes>(
    a: &[f32],
    lda: usize,
    layout: Layout,
    rows: Range<usize>,
    ks: Range<usize>,
    tile: &mut [f32],
) {
    match layout {
        Layout::Normal => {
            for (row, out) in rows.zip(tile.chunks_exact_mut(ROW_STRIDE)) {
                copy_row::<V>(&a[row * lda + ks.start..row * lda + ks.end], lda, &mut out[..ks.len()]);
            }
        }
        Layout::Transposed => {
            for (p, out) in ks.zip(tile.chunks_exact_mut(K_STRIDE)) {
                out[..rows.len()].copy_from_slice(&a[p * lda + rows.start..p * lda + rows.end]);
            }
        }
    }
}
