//! How attention multiplies: a tile of queries or probabilities with a panel of 32 keys or value columns.

use crate::gemm::Layout;
use crate::gemm::pack::{KC, PANEL, ROW_STRIDE, TILE_VALUES, pack_tile};
use crate::gemm::store;
use crate::gemm::tile::{Job, MAX_ROWS, Next, Rows, Tile};
use crate::simd::{LANES, Lanes};
use std::marker::PhantomData;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
pub(super) use paired::Paired;

/// Products of packed tiles with packed panels.
pub(super) trait Engine<V: Lanes> {
    /// Rows of a tile.
    const ROWS: usize;
    /// Rows of sums that a tile writes, of 32 values.
    const HEIGHT: usize;

    /// To be called before the first sum of a stretch.
    fn begin();

    /// To be called after the last sum of a stretch.
    fn end();

    /// Values of a packed tile with sums of length `depth`.
    fn values(depth: usize) -> usize;

    /// Packs `rows` of `[.., depth]` with row distance `lda`.
    fn pack(x: &[f32], lda: usize, rows: Range<usize>, depth: usize, a: &mut [f32]);

    /// Sets columns `at..at + 16` of row `r` of a packed tile with sums of length `depth`.
    fn put(a: &mut [f32], depth: usize, r: usize, at: usize, y: V);

    /// `acc[rows, 32] = a[rows, depth] * b[depth, 32]`.
    fn sum(rows: usize, depth: usize, a: &[f32], b: &[f32], acc: &mut [f32]);
}

/// In f32: one chain of fused multiply-adds per sum.
pub(super) struct Single<V>(PhantomData<V>);

impl<V: Tile> Engine<V> for Single<V> {
    const ROWS: usize = V::ROWS;
    const HEIGHT: usize = MAX_ROWS;

    #[inline(always)]
    fn begin() {}

    #[inline(always)]
    fn end() {}

    #[inline(always)]
    fn values(depth: usize) -> usize {
        depth.div_ceil(KC) * TILE_VALUES
    }

    #[inline(always)]
    fn pack(x: &[f32], lda: usize, rows: Range<usize>, depth: usize, a: &mut [f32]) {
        for (block, a) in a.chunks_exact_mut(TILE_VALUES).take(depth.div_ceil(KC)).enumerate() {
            pack_tile::<V>(x, lda, Layout::Normal, rows.clone(), block * KC..depth.min((block + 1) * KC), a);
        }
    }

    #[inline(always)]
    fn put(a: &mut [f32], _: usize, r: usize, at: usize, y: V) {
        store(y, &mut a[at / KC * TILE_VALUES + r * ROW_STRIDE + at % KC..][..LANES]);
    }

    #[inline(always)]
    fn sum(rows: usize, depth: usize, a: &[f32], b: &[f32], acc: &mut [f32]) {
        assert!(a.len() >= Self::values(depth) && b.len() >= depth * PANEL && acc.len() >= MAX_ROWS * PANEL);
        for block in 0..depth.div_ceil(KC) {
            let (a, b) = (&a[block * TILE_VALUES..], &b[block * KC * PANEL..]);
            let depth = KC.min(depth - block * KC);
            let next = Next { c: Rows::NONE, gate: Rows::NONE, b: b.as_ptr().wrapping_add(depth * PANEL) };
            let job = Job {
                k: depth,
                a: a.as_ptr(),
                b: b.as_ptr(),
                from: if block == 0 { std::ptr::null() } else { acc.as_ptr() },
                to: acc.as_mut_ptr(),
                stride: PANEL,
                bias: std::ptr::null(),
                next,
            };
            // SAFETY: a packed tile, `depth` rows of a panel and MAX_ROWS rows of sums, as asserted.
            #[allow(unsafe_code)]
            unsafe {
                V::run::<false>(rows, &job);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod paired {
    //! SAFETY of every block below: a `Paired` engine runs only on machines with its unit, inside functions compiled
    //! with its features.
    #![allow(unsafe_code)]

    use super::Engine;
    use crate::gemm::bf16::{AROWS, DEPTH, Sums, pack_rows, put_row};
    use crate::gemm::pack::PANEL;
    use crate::simd::{Avx512, LANES, Lanes};
    use std::marker::PhantomData;
    use std::ops::Range;

    /// In bf16: pairs along the sums.
    pub(crate) struct Paired<S>(PhantomData<S>);

    /// Values of sixteen packed rows.
    #[inline(always)]
    fn stride(depth: usize) -> usize {
        depth.div_ceil(DEPTH) * AROWS * DEPTH / 2
    }

    impl<S: Sums> Engine<Avx512> for Paired<S> {
        const ROWS: usize = S::ROWS;
        const HEIGHT: usize = S::BLOCKS * AROWS;

        #[inline(always)]
        fn begin() {
            unsafe { S::begin() }
        }

        #[inline(always)]
        fn end() {
            unsafe { S::end() }
        }

        #[inline(always)]
        fn values(depth: usize) -> usize {
            S::BLOCKS * stride(depth)
        }

        #[inline(always)]
        fn pack(x: &[f32], lda: usize, rows: Range<usize>, depth: usize, a: &mut [f32]) {
            for (i, a) in a.chunks_exact_mut(stride(depth)).take(S::BLOCKS).enumerate() {
                let start = (rows.start + i * AROWS).min(rows.end);
                unsafe { pack_rows(x, lda, start..rows.end.min(start + AROWS), depth, a) };
            }
        }

        #[inline(always)]
        fn put(a: &mut [f32], depth: usize, r: usize, at: usize, y: Avx512) {
            let mut lanes = [0.0; LANES];
            y.store(&mut lanes);
            let at = r / AROWS * stride(depth)
                + at / DEPTH * AROWS * DEPTH / 2
                + r % AROWS * DEPTH / 2
                + at % DEPTH / 2;
            unsafe { put_row(&lanes, &mut a[at..][..LANES / 2]) };
        }

        #[inline(always)]
        fn sum(rows: usize, depth: usize, a: &[f32], b: &[f32], acc: &mut [f32]) {
            let blocks = depth.div_ceil(DEPTH);
            assert!(a.len() >= Self::values(depth) && b.len() >= blocks * DEPTH / 2 * PANEL);
            assert!(acc.len() >= Self::HEIGHT * PANEL);
            unsafe { S::sum(rows, blocks, a.as_ptr(), stride(depth), b.as_ptr(), acc.as_mut_ptr()) }
        }
    }
}
