//! Matrix products with fused epilogues: `C[M, N] = epilogue(A[M, K] * B[K, N])`.
//!
//! Every output element is one chain of fused multiply-adds over K in ascending order that starts from 0.
//! Tile shape, blocking, thread count and instruction set therefore never change a bit. Between blocks of K
//! the accumulators wait in a buffer of the first-level cache; the epilogue runs there, and C is written once.
//!
//! Products of a [`PackedMatrix`] in [`Precision::Bf16`] round both operands first; see there.

use crate::buffer::Buffer;
use crate::simd::{Lanes, kernel};
use std::cell::RefCell;
use std::ops::Range;

pub(crate) mod bf16;
mod epilogue;
pub(crate) mod pack;
pub(crate) mod tile;

pub use bf16::{Precision, bf16_unit};
use epilogue::finish;
pub use epilogue::{Activation, Combine, Epilogue};
pub use pack::PackedMatrix;
use pack::{KC, PANEL, TILE_VALUES, pack_tile};
use tile::{Job, MAX_ROWS, Next, PACE, Rows};

/// How an operand of a product is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Rows of the operand are contiguous.
    Normal,
    /// Columns of the operand are contiguous: its transpose is stored row by row.
    Transposed,
}

impl Layout {
    /// Checks that `len` values hold a `rows x cols` operand with leading dimension `ld`.
    pub(crate) fn check(self, name: &str, len: usize, rows: usize, cols: usize, ld: usize) {
        let (outer, inner) = if self == Self::Normal { (rows, cols) } else { (cols, rows) };
        if outer == 0 || inner == 0 {
            return;
        }
        assert!(ld >= inner, "{name}: leading dimension {ld} is below the row length {inner}");
        let need = (outer - 1) * ld + inner;
        assert!(
            len >= need,
            "{name}: {len} values, [{rows}, {cols}] with leading dimension {ld} takes {need}"
        );
    }
}

/// `C = epilogue(A * B)` on the calling thread.
///
/// `a` is `[m, K]` with leading dimension `lda`, `c` is `[m, N]` with leading dimension `ldc`; K and N are
/// `b`'s.
///
/// # Panics
/// If an operand is shorter than its shape.
pub fn gemm(
    m: usize,
    a: &[f32],
    lda: usize,
    b: &PackedMatrix,
    c: &mut [f32],
    ldc: usize,
    epilogue: Epilogue,
) {
    if b.precision() == Precision::Bf16 && m * b.n() * b.k() > 0 {
        Layout::Normal.check("a", a.len(), m, b.k(), lda);
        Layout::Normal.check("c", c.len(), m, b.n(), ldc);
        epilogue.check(m, b.n());
        return bf16::gemm(m, a, lda, b, c, ldc, epilogue);
    }
    gemm_block(m, a, lda, Layout::Normal, b, 0..b.k(), c, ldc, false, epilogue);
}

/// One range of K: with `resume`, the sums continue from what C holds.
#[allow(clippy::too_many_arguments)]
pub(crate) fn gemm_block(
    m: usize,
    a: &[f32],
    lda: usize,
    layout: Layout,
    b: &PackedMatrix,
    ks: Range<usize>,
    c: &mut [f32],
    ldc: usize,
    resume: bool,
    epilogue: Epilogue,
) {
    layout.check("a", a.len(), m, ks.end, lda);
    Layout::Normal.check("c", c.len(), m, b.n(), ldc);
    epilogue.check(m, b.n());
    assert!(ks.end <= b.k());
    if m == 0 || b.n() == 0 {
        return;
    }
    SCRATCH.with_borrow_mut(|scratch| match layout {
        Layout::Normal => gemm_rows(m, a, lda, b, ks, c, ldc, resume, epilogue, scratch),
        Layout::Transposed => gemm_columns(m, a, lda, b, ks, c, ldc, resume, epilogue, scratch),
    });
}

thread_local! {
    /// Packed tiles of A and waiting accumulators: kept, so that a step allocates nothing.
    static SCRATCH: RefCell<(Buffer, Buffer)> = RefCell::default();
}

kernel! {
    fn gemm_rows<V>(
        m: usize, a: &[f32], lda: usize, b: &PackedMatrix, ks: Range<usize>, c: &mut [f32], ldc: usize,
        resume: bool, epilogue: Epilogue, scratch: &mut (Buffer, Buffer),
    ) {
        run::<V, false>(m, a, lda, b, ks, c, ldc, resume, epilogue, scratch);
    }
}

kernel! {
    fn gemm_columns<V>(
        m: usize, a: &[f32], lda: usize, b: &PackedMatrix, ks: Range<usize>, c: &mut [f32], ldc: usize,
        resume: bool, epilogue: Epilogue, scratch: &mut (Buffer, Buffer),
    ) {
        run::<V, true>(m, a, lda, b, ks, c, ldc, resume, epilogue, scratch);
    }
}

/// Part `i` of `n` items in `parts` nearly equal parts.
#[inline(always)]
pub(crate) fn part(n: usize, parts: usize, i: usize) -> Range<usize> {
    n * i / parts..n * (i + 1) / parts
}

/// Chunks of row tiles whose packed A fits the second-level cache; panels of B pass over each chunk.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn run<V: tile::Tile, const K_MAJOR: bool>(
    m: usize,
    a: &[f32],
    lda: usize,
    b: &PackedMatrix,
    ks: Range<usize>,
    c: &mut [f32],
    ldc: usize,
    resume: bool,
    epilogue: Epilogue,
    scratch: &mut (Buffer, Buffer),
) {
    let layout = if K_MAJOR { Layout::Transposed } else { Layout::Normal };
    let blocks = ks.len().div_ceil(KC);
    let tiles = m.div_ceil(V::ROWS);
    let most = (48 / blocks.max(1)).clamp(1, 32);
    let chunks = tiles.div_ceil(most);
    let plain = epilogue.stores() && epilogue.activation == Activation::Identity;
    let block = |i: usize| ks.start + i * KC..ks.end.min(ks.start + (i + 1) * KC);
    for chunk in 0..chunks {
        let chunk = part(tiles, chunks, chunk);
        let packed = scratch.0.reserve(blocks * chunk.len() * TILE_VALUES);
        for (i, out) in packed.chunks_exact_mut(TILE_VALUES).enumerate() {
            let rows = part(m, tiles, chunk.start + i % chunk.len());
            pack_tile::<V>(a, lda, layout, rows, block(i / chunk.len()), out);
        }
        // With one block of K no accumulator waits: all tiles share one slot.
        let slots = if blocks == 1 { 1 } else { chunk.len() };
        let acc = scratch.1.reserve(slots * MAX_ROWS * PANEL);
        for panel in 0..b.n().div_ceil(PANEL) {
            let columns = panel * PANEL..b.n().min((panel + 1) * PANEL);
            for i in 0..blocks.max(1) {
                let (ks, b) = (block(i), b.panel(panel, block(i).start));
                assert!(b.len() >= ks.len() * PANEL);
                for t in 0..chunk.len() {
                    let rows = part(m, tiles, chunk.start + t);
                    let acc = &mut acc[t % slots * MAX_ROWS * PANEL..][..MAX_ROWS * PANEL];
                    if i == 0 && (resume || ks.is_empty()) {
                        start(rows.clone(), columns.clone(), c, ldc, resume, acc);
                    }
                    let last = i + 1 >= blocks;
                    // A plain tile goes to C as it is.
                    let direct = last && plain && columns.len() == PANEL && !ks.is_empty();
                    if !ks.is_empty() {
                        let a = &packed[(i * chunk.len() + t) * TILE_VALUES..][..TILE_VALUES];
                        let c = &mut c[rows.start * ldc + columns.start..];
                        assert!(c.len() >= (rows.len() - 1) * ldc + columns.len());
                        // What follows in B is used next; the chunk's first tiles ask for it in turn.
                        let row = t * ks.len().div_ceil(PACE);
                        let ahead = if row < ks.len() { ks.len() + row } else { 0 };
                        let next = Next {
                            c: Rows { at: c.as_ptr(), stride: ldc, count: if last { rows.len() } else { 0 } },
                            gate: if last { epilogue.gate_rows(&rows, columns.start) } else { Rows::NONE },
                            b: b.as_ptr().wrapping_add(ahead * PANEL),
                        };
                        let bias = match epilogue.bias {
                            Some(bias) if direct => bias[columns.clone()].as_ptr(),
                            _ => std::ptr::null(),
                        };
                        let job = Job {
                            k: ks.len(),
                            a: a.as_ptr(),
                            b: b.as_ptr(),
                            from: if i == 0 && !resume { std::ptr::null() } else { acc.as_ptr() },
                            to: if direct { c.as_mut_ptr() } else { acc.as_mut_ptr() },
                            stride: if direct { ldc } else { PANEL },
                            bias,
                            next,
                        };
                        // SAFETY: a packed tile, ks.len() <= KC rows of the panel, MAX_ROWS rows of acc or this
                        // tile's rows of C.
                        #[allow(unsafe_code)]
                        unsafe {
                            V::run::<K_MAJOR>(rows.len(), &job);
                        }
                    }
                    if last && !direct {
                        finish::<V>(rows, columns.clone(), acc, c, ldc, &epilogue);
                    }
                }
            }
        }
    }
}

/// Accumulators of one tile before its first block.
#[inline(always)]
fn start(rows: Range<usize>, columns: Range<usize>, c: &[f32], ldc: usize, resume: bool, acc: &mut [f32]) {
    if !resume {
        acc.fill(0.0);
        return;
    }
    for (row, acc) in rows.zip(acc.chunks_exact_mut(PANEL)) {
        acc[..columns.len()].copy_from_slice(&c[row * ldc + columns.start..row * ldc + columns.end]);
    }
}

/// Loads up to sixteen values.
#[inline(always)]
pub(crate) fn load<V: Lanes>(x: &[f32]) -> V {
    match x.first_chunk() {
        Some(x) => V::load(x),
        None => V::load_part(x, 0.0),
    }
}

/// Stores up to sixteen values.
#[inline(always)]
pub(crate) fn store<V: Lanes>(x: V, out: &mut [f32]) {
    match out.first_chunk_mut() {
        Some(out) => x.store(out),
        None => x.store_part(out),
    }
}

#[cfg(test)]
mod tests;
