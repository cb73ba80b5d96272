//! The register tile: `acc[MR, 32] += a[MR, k] * b[k, 32]`, one accumulator per element, k ascending.
#![allow(unsafe_code)]

use super::pack::{KC, PANEL, ROW_STRIDE};
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{LANES, Lanes, Scalar};

/// Most rows that a tile of any path has.
pub(crate) const MAX_ROWS: usize = 14;
/// Distance between the rows of a k-major packed tile.
pub(crate) const K_STRIDE: usize = 16;

/// Memory that will be wanted soon: asked for while a tile is being summed.
#[derive(Clone, Copy)]
pub(crate) struct Next {
    /// First value of the part of C that the tile will be written to.
    pub c: *const f32,
    /// C's leading dimension.
    pub stride: usize,
    /// Rows of the next panel of B, which lies beyond the second-level cache.
    pub b: *const f32,
}

/// Steps of a tile between two requests: asking for all at once would hold up the tile's own loads.
pub(crate) const PACE: usize = 4;

impl Next {
    /// Request number `i`: a row of C and one of B.
    #[inline(always)]
    fn fetch(self, i: usize, rows: usize) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch reads nothing that the program can see, whatever its address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T1, _mm_prefetch};
            if i < rows {
                let at = self.c.wrapping_add(i * self.stride);
                _mm_prefetch::<_MM_HINT_ET0>(at.cast());
                _mm_prefetch::<_MM_HINT_ET0>(at.wrapping_add(PANEL - 1).cast());
            }
            let at = self.b.wrapping_add(i * PANEL);
            _mm_prefetch::<_MM_HINT_T1>(at.cast());
            _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(PANEL / 2).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (i, rows, self.c, self.stride, self.b);
    }
}

/// Size of the register tile for a lane type.
pub(crate) trait Tile: Lanes {
    /// Rows of the tile.
    const ROWS: usize;
    /// Whether there are registers for 8 x 2 sums of sixteen lanes.
    const WIDE: bool;

    /// Runs the tile for `rows` rows, from 0 with `first`, else from what `acc` holds; the rows beyond, up to [`MAX_ROWS`], may be overwritten.
    ///
    /// # Safety
    /// `a` points to a packed tile, `b` to `k` rows of a panel, `acc` to `[MAX_ROWS, 32]` values;
    /// `1 <= rows <= ROWS` and `k <= KC`.
    unsafe fn run<const K_MAJOR: bool>(
        rows: usize,
        k: usize,
        a: *const f32,
        b: *const f32,
        acc: *mut f32,
        first: bool,
        next: Next,
    );
}

/// One accumulator per output element, kept in registers over the whole k loop.
///
/// # Safety
/// As [`Tile::run`] with `rows = MR`; `b` and `acc` may start at a column offset.
#[inline(always)]
unsafe fn tile<V: Lanes, const MR: usize, const NV: usize, const K_MAJOR: bool>(
    k: usize,
    a: *const f32,
    b: *const f32,
    acc: *mut f32,
    first: bool,
    next: Next,
) {
    debug_assert!(k <= KC);
    // SAFETY: the caller vouches for the extents; sixteen values at each offset lie inside them.
    unsafe {
        let mut c = [[V::zero(); NV]; MR];
        if !first {
            for (r, row) in c.iter_mut().enumerate() {
                for (j, x) in row.iter_mut().enumerate() {
                    *x = V::load(&*acc.add(r * PANEL + j * LANES).cast());
                }
            }
        }
        for p in 0..k {
            if p % PACE == 0 {
                next.fetch(p / PACE, MR);
            }
            let mut columns = [V::zero(); NV];
            for (j, x) in columns.iter_mut().enumerate() {
                *x = V::load(&*b.add(p * PANEL + j * LANES).cast());
            }
            for (r, row) in c.iter_mut().enumerate() {
                let at = if K_MAJOR { p * K_STRIDE + r } else { r * ROW_STRIDE + p };
                let x = V::splat(*a.add(at));
                for (y, column) in row.iter_mut().zip(columns) {
                    *y = x.mul_add(column, *y);
                }
            }
        }
        for (r, row) in c.iter().enumerate() {
            for (j, x) in row.iter().enumerate() {
                x.store(&mut *acc.add(r * PANEL + j * LANES).cast());
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Tile for Avx512 {
    const ROWS: usize = 14;
    const WIDE: bool = true;

    #[inline(always)]
    unsafe fn run<const K_MAJOR: bool>(
        rows: usize,
        k: usize,
        a: *const f32,
        b: *const f32,
        acc: *mut f32,
        first: bool,
        next: Next,
    ) {
        // SAFETY: passed on to the caller.
        unsafe {
            match rows {
                13.. => tile::<Self, 14, 2, K_MAJOR>(k, a, b, acc, first, next),
                11 | 12 => tile::<Self, 12, 2, K_MAJOR>(k, a, b, acc, first, next),
                9 | 10 => tile::<Self, 10, 2, K_MAJOR>(k, a, b, acc, first, next),
                7 | 8 => tile::<Self, 8, 2, K_MAJOR>(k, a, b, acc, first, next),
                4..=6 => tile::<Self, 6, 2, K_MAJOR>(k, a, b, acc, first, next),
                2 | 3 => tile::<Self, 3, 2, K_MAJOR>(k, a, b, acc, first, next),
                _ => tile::<Self, 1, 2, K_MAJOR>(k, a, b, acc, first, next),
            }
        }
    }
}

/// Six rows of sixteen columns: both halves of a panel in turn.
///
/// # Safety
/// As [`Tile::run`].
#[inline(always)]
unsafe fn run_halves<V: Lanes, const K_MAJOR: bool>(
    rows: usize,
    k: usize,
    a: *const f32,
    b: *const f32,
    acc: *mut f32,
    first: bool,
    next: Next,
) {
    for half in [0, LANES] {
        // SAFETY: passed on to the caller; a panel has two halves.
        unsafe {
            let (b, acc) = (b.add(half), acc.add(half));
            match rows {
                5.. => tile::<V, 6, 1, K_MAJOR>(k, a, b, acc, first, next),
                3 | 4 => tile::<V, 4, 1, K_MAJOR>(k, a, b, acc, first, next),
                _ => tile::<V, 2, 1, K_MAJOR>(k, a, b, acc, first, next),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Tile for Avx2 {
    const ROWS: usize = 6;
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn run<const K_MAJOR: bool>(
        rows: usize,
        k: usize,
        a: *const f32,
        b: *const f32,
        acc: *mut f32,
        first: bool,
        next: Next,
    ) {
        // SAFETY: passed on to the caller.
        unsafe { run_halves::<Self, K_MAJOR>(rows, k, a, b, acc, first, next) }
    }
}

impl Tile for Scalar {
    const ROWS: usize = 6;
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn run<const K_MAJOR: bool>(
        rows: usize,
        k: usize,
        a: *const f32,
        b: *const f32,
        acc: *mut f32,
        first: bool,
        next: Next,
    ) {
        // SAFETY: passed on to the caller.
        unsafe { run_halves::<Self, K_MAJOR>(rows, k, a, b, acc, first, next) }
    }
}
