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

/// Rows of values somewhere: the first of them and their distance.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    /// First value of the first row.
    pub at: *const f32,
    /// Distance between rows.
    pub stride: usize,
    /// How many; 0 where there is nothing to ask for.
    pub count: usize,
}

impl Rows {
    /// None.
    pub const NONE: Self = Self { at: std::ptr::null(), stride: 0, count: 0 };
}

/// Memory that will be wanted soon: asked for while a tile is being summed.
#[derive(Clone, Copy)]
pub(crate) struct Next {
    /// The part of C that the tile will be written to.
    pub c: Rows,
    /// The part of a gate that it will be multiplied with.
    pub gate: Rows,
    /// Rows of the next panel of B, which lies beyond the second-level cache.
    pub b: *const f32,
}

/// Steps of a tile between two requests: asking for all at once would hold up the tile's own loads.
pub(crate) const PACE: usize = 4;

impl Next {
    /// Request number `i`: a row of C, one of the gate and one of B.
    #[inline(always)]
    fn fetch(&self, i: usize) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch reads nothing that the program can see, whatever its address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
            if i < self.c.count {
                let at = self.c.at.wrapping_add(i * self.c.stride);
                _mm_prefetch::<_MM_HINT_ET0>(at.cast());
                _mm_prefetch::<_MM_HINT_ET0>(at.wrapping_add(PANEL - 1).cast());
            }
            if i < self.gate.count {
                let at = self.gate.at.wrapping_add(i * self.gate.stride);
                _mm_prefetch::<_MM_HINT_T0>(at.cast());
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(PANEL - 1).cast());
            }
            let at = self.b.wrapping_add(i * PANEL);
            _mm_prefetch::<_MM_HINT_T1>(at.cast());
            _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(PANEL / 2).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = i;
    }
}

/// One tile's sums over one block of K.
#[derive(Clone, Copy)]
pub(crate) struct Job {
    /// Length of the sums, at most [`KC`].
    pub k: usize,
    /// A packed tile.
    pub a: *const f32,
    /// `k` rows of a panel.
    pub b: *const f32,
    /// `[rows, 32]` sums to go on from; null: from 0.
    pub from: *const f32,
    /// Where the sums go: rows of 32 values, `stride` apart.
    pub to: *mut f32,
    /// See `to`.
    pub stride: usize,
    /// `[32]` values added to every row at the end; null: none.
    pub bias: *const f32,
    /// What to ask for meanwhile.
    pub next: Next,
}

/// Size of the register tile for a lane type.
pub(crate) trait Tile: Lanes {
    /// Rows of the tile.
    const ROWS: usize;
    /// Whether there are registers for 8 x 2 sums of sixteen lanes.
    const WIDE: bool;

    /// Runs a tile of `rows` rows.
    ///
    /// # Safety
    /// The job's pointers have the extents that [`Job`] names, for `rows` rows; `1 <= rows <= ROWS`.
    unsafe fn run<const K_MAJOR: bool>(rows: usize, job: &Job);
}

/// One accumulator per output element, kept in registers over the whole k loop. `half` is the first column.
///
/// # Safety
/// As [`Tile::run`] with `rows = MR`.
#[inline(always)]
unsafe fn tile<V: Lanes, const MR: usize, const NV: usize, const K_MAJOR: bool>(half: usize, job: &Job) {
    let Job { k, a, b, from, to, stride, bias, next } = *job;
    debug_assert!(k <= KC && half + NV * LANES <= PANEL);
    // SAFETY: the caller vouches for the extents; sixteen values at each offset lie inside them.
    unsafe {
        let mut c = [[V::zero(); NV]; MR];
        if !from.is_null() {
            for (r, row) in c.iter_mut().enumerate() {
                for (j, x) in row.iter_mut().enumerate() {
                    *x = V::load(&*from.add(half + r * PANEL + j * LANES).cast());
                }
            }
        }
        let b = b.add(half);
        for p in 0..k {
            if p % PACE == 0 {
                next.fetch(p / PACE);
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
        if !bias.is_null() {
            for j in 0..NV {
                let bias = V::load(&*bias.add(half + j * LANES).cast());
                for row in &mut c {
                    row[j] = row[j] + bias;
                }
            }
        }
        for (r, row) in c.iter().enumerate() {
            for (j, x) in row.iter().enumerate() {
                x.store(&mut *to.add(half + r * stride + j * LANES).cast());
            }
        }
    }
}

/// A function of its own per height: inside a kernel the loop's pointers would not stay in registers.
///
/// # Safety
/// As [`Tile::run`] with `rows = MR`, on a machine with AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn tile_avx512<const MR: usize, const K_MAJOR: bool>(job: &Job) {
    // SAFETY: passed on to the caller.
    unsafe { tile::<Avx512, MR, 2, K_MAJOR>(0, job) }
}

#[cfg(target_arch = "x86_64")]
impl Tile for Avx512 {
    const ROWS: usize = 14;
    const WIDE: bool = true;

    #[inline(always)]
    unsafe fn run<const K_MAJOR: bool>(rows: usize, job: &Job) {
        // SAFETY: passed on to the caller; this lane type is used where the machine has AVX-512 only.
        unsafe {
            match rows {
                14.. => tile_avx512::<14, K_MAJOR>(job),
                13 => tile_avx512::<13, K_MAJOR>(job),
                12 => tile_avx512::<12, K_MAJOR>(job),
                11 => tile_avx512::<11, K_MAJOR>(job),
                10 => tile_avx512::<10, K_MAJOR>(job),
                9 => tile_avx512::<9, K_MAJOR>(job),
                8 => tile_avx512::<8, K_MAJOR>(job),
                7 => tile_avx512::<7, K_MAJOR>(job),
                6 => tile_avx512::<6, K_MAJOR>(job),
                5 => tile_avx512::<5, K_MAJOR>(job),
                4 => tile_avx512::<4, K_MAJOR>(job),
                3 => tile_avx512::<3, K_MAJOR>(job),
                2 => tile_avx512::<2, K_MAJOR>(job),
                _ => tile_avx512::<1, K_MAJOR>(job),
            }
        }
    }
}

/// Six rows of sixteen columns: both halves of a panel in turn.
///
/// # Safety
/// As [`Tile::run`].
#[inline(always)]
unsafe fn run_halves<V: Lanes, const K_MAJOR: bool>(rows: usize, job: &Job) {
    for half in [0, LANES] {
        // SAFETY: passed on to the caller; a panel has two halves.
        unsafe {
            match rows {
                6.. => tile::<V, 6, 1, K_MAJOR>(half, job),
                5 => tile::<V, 5, 1, K_MAJOR>(half, job),
                4 => tile::<V, 4, 1, K_MAJOR>(half, job),
                3 => tile::<V, 3, 1, K_MAJOR>(half, job),
                2 => tile::<V, 2, 1, K_MAJOR>(half, job),
                _ => tile::<V, 1, 1, K_MAJOR>(half, job),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Tile for Avx2 {
    const ROWS: usize = 6;
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn run<const K_MAJOR: bool>(rows: usize, job: &Job) {
        // SAFETY: passed on to the caller.
        unsafe { run_halves::<Self, K_MAJOR>(rows, job) }
    }
}

impl Tile for Scalar {
    const ROWS: usize = 6;
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn run<const K_MAJOR: bool>(rows: usize, job: &Job) {
        // SAFETY: passed on to the caller.
        unsafe { run_halves::<Self, K_MAJOR>(rows, job) }
    }
}
