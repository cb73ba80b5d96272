//! AMX and AVX512-BF16.
//!
//! SAFETY of every block below: the functions are called only after [`unit`] has found what they need; pointers stay
//! inside slices whose lengths are asserted before.
#![allow(unsafe_code)]

use super::super::pack::PANEL;
use super::super::{Epilogue, PackedMatrix, finish, part};
use super::{DEPTH, Unit};
use crate::buffer::Buffer;
use crate::simd::Avx512;
use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;
use std::sync::OnceLock;

/// Rows of a block of packed A.
pub(crate) const AROWS: usize = 16;
/// A block's values in units of f32: 16 rows of 32 bfloat16.
const BLOCK: usize = AROWS * DEPTH / 2;
/// Bytes of packed A that rest in the second-level cache while panels of B pass.
const CHUNK_BYTES: usize = 512 << 10;

/// The best unit of this machine.
pub(super) fn unit() -> Unit {
    static UNIT: OnceLock<Unit> = OnceLock::new();
    *UNIT.get_or_init(|| {
        if !(is_x86_feature_detected!("avx512bf16") && crate::simd::instruction_set() == "avx512") {
            Unit::Rounded
        } else if amx() {
            Unit::Amx
        } else {
            Unit::Vector
        }
    })
}

/// Whether the processor has AMX for bf16 and the system lets this process use it.
#[cfg(target_os = "linux")]
fn amx() -> bool {
    const TILE_AND_BF16: u32 = 1 << 24 | 1 << 22;
    const ARCH_PRCTL: i64 = 158;
    const REQUEST_PERMISSION: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    if __cpuid_count(0, 0).eax < 7 || __cpuid_count(7, 0).edx & TILE_AND_BF16 != TILE_AND_BF16 {
        return false;
    }
    let result: i64;
    // SAFETY: a system call that touches no memory of ours.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") REQUEST_PERMISSION, in("rsi") TILE_DATA,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn amx() -> bool {
    false
}

/// A way to sum tiles.
pub(crate) trait Sums {
    /// Rows of a tile.
    const ROWS: usize;
    /// Blocks of sixteen rows that a tile takes.
    const BLOCKS: usize = Self::ROWS.div_ceil(AROWS);

    /// To be called before the first sum of a stretch.
    unsafe fn begin();

    /// To be called after the last sum of a stretch.
    unsafe fn end();

    /// `acc[rows, 32] = a[rows, 32 blocks] * b[32 blocks, 32]`.
    ///
    /// # Safety
    /// `a` points to `BLOCKS` rows of blocks, `stride` values apart, `b` to `16 * blocks` rows of pairs, `acc` to
    /// `[BLOCKS * 16, 32]` values; between [`Self::begin`] and [`Self::end`].
    unsafe fn sum(rows: usize, blocks: usize, a: *const f32, stride: usize, b: *const f32, acc: *mut f32);
}

/// Matrix tiles.
pub(crate) struct Amx;

/// `vdpbf16ps`.
pub(crate) struct Vector;

/// Shapes of the eight tile registers.
#[repr(C, align(64))]
struct Tiles {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

/// All eight: sixteen rows of 64 bytes.
static TILES: Tiles = Tiles {
    palette: 1,
    start: 0,
    reserved: [0; 14],
    bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

impl Sums for Amx {
    const ROWS: usize = 32;

    #[inline(always)]
    unsafe fn begin() {
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const TILES, options(nostack, readonly)) }
    }

    #[inline(always)]
    unsafe fn end() {
        unsafe { asm!("tilerelease", options(nostack, nomem)) }
    }

    #[inline(always)]
    unsafe fn sum(rows: usize, blocks: usize, a: *const f32, stride: usize, b: *const f32, acc: *mut f32) {
        let (row, pairs, count) = (64usize, 4 * PANEL, blocks);
        if rows <= AROWS {
            unsafe {
                asm!(
                    "tilezero tmm0", "tilezero tmm1",
                    "2:",
                    "tileloadd tmm4, [{a} + {row}]",
                    "tileloadd tmm6, [{b} + {pairs}]",
                    "tileloadd tmm7, [{b} + {pairs} + 64]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "add {a}, 1024", "add {b}, 2048", "dec {n}", "jnz 2b",
                    "tilestored [{acc} + {pairs}], tmm0",
                    "tilestored [{acc} + {pairs} + 64], tmm1",
                    a = inout(reg) a => _, b = inout(reg) b => _, n = inout(reg) count => _,
                    acc = in(reg) acc, row = in(reg) row, pairs = in(reg) pairs,
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                    options(nostack)
                );
            }
            return;
        }
        unsafe {
            asm!(
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "2:",
                "tileloadd tmm6, [{b} + {pairs}]",
                "tileloadd tmm4, [{a} + {row}]",
                "tileloadd tmm7, [{b} + {pairs} + 64]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{low} + {row}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 1024", "add {low}, 1024", "add {b}, 2048", "dec {n}", "jnz 2b",
                "tilestored [{acc} + {pairs}], tmm0",
                "tilestored [{acc} + {pairs} + 64], tmm1",
                "tilestored [{acc} + {pairs} + 2048], tmm2",
                "tilestored [{acc} + {pairs} + 2112], tmm3",
                a = inout(reg) a => _, low = inout(reg) a.add(stride) => _, b = inout(reg) b => _,
                n = inout(reg) count => _,
                acc = in(reg) acc, row = in(reg) row, pairs = in(reg) pairs,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        }
    }
}

impl Sums for Vector {
    const ROWS: usize = 14;

    #[inline(always)]
    unsafe fn begin() {}

    #[inline(always)]
    unsafe fn end() {}

    #[inline(always)]
    unsafe fn sum(rows: usize, blocks: usize, a: *const f32, _: usize, b: *const f32, acc: *mut f32) {
        unsafe {
            match rows {
                9.. => vector_tile::<14>(blocks, a, b, acc),
                5.. => vector_tile::<8>(blocks, a, b, acc),
                _ => vector_tile::<4>(blocks, a, b, acc),
            }
        }
    }
}

/// # Safety
/// As [`Sums::sum`].
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn vector_tile<const MR: usize>(blocks: usize, a: *const f32, b: *const f32, acc: *mut f32) {
    unsafe {
        let mut c = [[_mm512_setzero_ps(); 2]; MR];
        for block in 0..blocks {
            let a = a.add(block * BLOCK);
            for p in 0..DEPTH / 2 {
                let b = b.add((block * DEPTH / 2 + p) * PANEL);
                let (left, right) = (_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16)));
                let (left, right) = (bits(left), bits(right));
                for (r, c) in c.iter_mut().enumerate() {
                    let x = bits(_mm512_set1_ps(*a.add(r * DEPTH / 2 + p)));
                    c[0] = _mm512_dpbf16_ps(c[0], x, left);
                    c[1] = _mm512_dpbf16_ps(c[1], x, right);
                }
            }
        }
        for (r, c) in c.iter().enumerate() {
            _mm512_storeu_ps(acc.add(r * PANEL), c[0]);
            _mm512_storeu_ps(acc.add(r * PANEL + 16), c[1]);
        }
    }
}

/// The same bits as pairs of bfloat16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn bits(x: __m512) -> __m512bh {
    // SAFETY: both are 64 bytes of any content.
    unsafe { std::mem::transmute(x) }
}

/// Packs rows of A into blocks: `out` takes `blocks` blocks of sixteen rows, rows beyond are zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) fn pack_rows(a: &[f32], lda: usize, rows: Range<usize>, k: usize, out: &mut [f32]) {
    for (r, at) in (0..AROWS).zip((0..).step_by(DEPTH / 2)) {
        let row = rows.start + r;
        let row = if row < rows.end { &a[row * lda..][..k] } else { &[] };
        for (block, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            let out = &mut out[at..at + DEPTH / 2];
            let start = (block * DEPTH).min(row.len());
            let values = &row[start..row.len().min(start + DEPTH)];
            // SAFETY: 64 bytes of `out`; masked loads stay inside `values`.
            unsafe {
                let mask = if values.len() == DEPTH { u32::MAX } else { (1 << values.len()) - 1 };
                let low = _mm512_maskz_loadu_ps(mask as u16, values.as_ptr());
                let high = _mm512_maskz_loadu_ps((mask >> 16) as u16, values.as_ptr().wrapping_add(16));
                let pairs: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
                _mm512_storeu_si512(out.as_mut_ptr().cast(), pairs);
            }
        }
    }
}

/// Rounds sixteen values into the eight pairs of `out`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) fn put_row(values: &[f32; 16], out: &mut [f32]) {
    let out: &mut [f32; 8] = match out.first_chunk_mut() {
        Some(out) => out,
        None => panic!("sixteen values make eight pairs"),
    };
    // SAFETY: 64 bytes are read, 32 written.
    unsafe {
        let pairs: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(_mm512_loadu_ps(values.as_ptr())));
        _mm256_storeu_si256(out.as_mut_ptr().cast(), pairs);
    }
}

/// The product; shapes were checked.
///
/// # Safety
/// The machine has `S`'s unit.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx2,fma")]
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn gemm<S: Sums>(
    m: usize,
    a: &[f32],
    lda: usize,
    b: &PackedMatrix,
    c: &mut [f32],
    ldc: usize,
    epilogue: Epilogue,
    packed: &mut Buffer,
    acc: &mut Buffer,
) {
    let (k, n) = (b.k(), b.n());
    let blocks = k.div_ceil(DEPTH);
    let stride = blocks * BLOCK;
    let tiles = m.div_ceil(S::ROWS);
    let most = (CHUNK_BYTES / (4 * S::BLOCKS * stride).max(1)).max(1);
    let chunks = tiles.div_ceil(most);
    let acc = acc.reserve(S::BLOCKS * AROWS * PANEL);
    for chunk in 0..chunks {
        let chunk = part(tiles, chunks, chunk);
        let packed = packed.reserve(chunk.len() * S::BLOCKS * stride);
        for (t, out) in chunk.clone().zip(packed.chunks_exact_mut((S::BLOCKS * stride).max(1))) {
            let rows = part(m, tiles, t);
            for (i, out) in out.chunks_exact_mut(stride).enumerate() {
                let start = (rows.start + i * AROWS).min(rows.end);
                pack_rows(a, lda, start..rows.end.min(start + AROWS), k, out);
            }
        }
        // SAFETY: `packed` holds the chunk's tiles, a panel `16 * blocks` rows of pairs, `acc` a tile.
        unsafe { S::begin() };
        for panel in 0..n.div_ceil(PANEL) {
            let columns = panel * PANEL..n.min((panel + 1) * PANEL);
            let b = b.pairs(panel);
            assert!(b.len() >= blocks * DEPTH / 2 * PANEL);
            for (i, t) in chunk.clone().enumerate() {
                let rows = part(m, tiles, t);
                let a = packed[i * S::BLOCKS * stride..].as_ptr();
                unsafe { S::sum(rows.len(), blocks, a, stride, b.as_ptr(), acc.as_mut_ptr()) };
                finish::<Avx512>(rows, columns.clone(), acc, c, ldc, &epilogue);
            }
        }
        unsafe { S::end() };
    }
}

/// `rounds` rounds of four tile products in registers; gives the number of operations.
///
/// # Safety
/// The machine has AMX.
pub(super) unsafe fn saturate_tiles(rounds: u64) -> f64 {
    unsafe {
        Amx::begin();
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7",
            "dec {n}", "jnz 2b",
            n = inout(reg) rounds => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack)
        );
        Amx::end();
    }
    rounds as f64 * (4 * 2 * AROWS * AROWS * DEPTH) as f64
}

/// `rounds` rounds of 24 vector products in registers; gives the number of operations.
///
/// # Safety
/// The machine has AVX512-BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn saturate_vectors(rounds: u64) -> f64 {
    let x = bits(_mm512_set1_ps(std::hint::black_box(0.5)));
    let mut c = [_mm512_setzero_ps(); 24];
    for _ in 0..rounds {
        for c in &mut c {
            *c = _mm512_dpbf16_ps(*c, x, x);
        }
    }
    std::hint::black_box(c);
    rounds as f64 * (24 * 2 * DEPTH) as f64
}
