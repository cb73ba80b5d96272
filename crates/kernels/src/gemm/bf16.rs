//! Products of bfloat16 operands with f32 sums.
//!
//! Both operands are rounded to bfloat16 (nearest, ties to even); products are exact and summed in f32. Three ways
//! to sum, the best of the machine is taken:
//! * AMX: 32 x 32 outputs per tile, about fifteen times the f32 limit;
//! * AVX512-BF16 (`vdpbf16ps`): 14 x 32 outputs, twice the f32 limit where the unit is full-width;
//! * elsewhere the f32 kernels on rounded operands: no gain in speed.
//!
//! The three add in different orders, so results in bf16 hold for one kind of machine; on it they depend neither on
//! threads nor on how rows are grouped. Operands lie in pairs along K, as the instructions take them: B in panels
//! `[K / 2, 32]` of pairs, A in blocks of sixteen rows and 32 values of K. K is padded with zeros to a multiple of 32.

use super::pack::PANEL;
use super::{Epilogue, Layout, PackedMatrix};
use crate::buffer::Buffer;
use std::cell::RefCell;

#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{AROWS, Amx, Sums, Vector, pack_rows, put_row};

/// Values of K per block: one row of an AMX tile.
pub(crate) const DEPTH: usize = 32;

/// In which precision products are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Operands and sums in f32: equal bits on every machine.
    #[default]
    F32,
    /// Operands rounded to bfloat16, sums in f32.
    Bf16,
}

impl Precision {
    /// `f32` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(format!("unknown precision `{text}`; give f32 or bf16")),
        }
    }
}

/// How a machine multiplies in bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    #[cfg(target_arch = "x86_64")]
    Amx,
    #[cfg(target_arch = "x86_64")]
    Vector,
    Rounded,
}

/// The unit of this machine.
pub(crate) fn unit() -> Unit {
    #[cfg(test)]
    if let Some(unit) = tests::FORCED.get() {
        return unit;
    }
    #[cfg(target_arch = "x86_64")]
    {
        x86::unit()
    }
    #[cfg(not(target_arch = "x86_64"))]
    Unit::Rounded
}

/// Name of the instructions that bf16 products use on this machine: `amx`, `avx512-bf16`, or `f32` where operands are
/// rounded and f32 kernels compute.
pub fn bf16_unit() -> &'static str {
    match unit() {
        #[cfg(target_arch = "x86_64")]
        Unit::Amx => "amx",
        #[cfg(target_arch = "x86_64")]
        Unit::Vector => "avx512-bf16",
        Unit::Rounded => "f32",
    }
}

/// Keeps the unit for bf16 busy without memory, for about as long as `rounds` rounds of the f32 loop; gives the number
/// of operations.
pub(crate) fn saturate(rounds: u64) -> f64 {
    match unit() {
        // SAFETY: the unit is reported only where the machine has it.
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        Unit::Amx => unsafe { x86::saturate_tiles((rounds / 8).max(1)) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        Unit::Vector => unsafe { x86::saturate_vectors((rounds / 4).max(1)) },
        Unit::Rounded => 0.0,
    }
}

/// The nearest bfloat16, ties to even, as the upper half of the bits. Subnormal values are what they are.
#[inline(always)]
pub(crate) fn bf16_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = (bits + (0x7fff + ((bits >> 16) & 1))) >> 16;
    if x.is_nan() { (bits >> 16) | 0x40 } else { rounded }
}

/// The nearest bfloat16.
pub(crate) fn round(x: f32) -> f32 {
    f32::from_bits(bf16_bits(x) << 16)
}

/// A pair of bfloat16 in the bits of one f32, the first in the lower half.
#[inline(always)]
pub(crate) fn pair(first: f32, second: f32) -> f32 {
    f32::from_bits(bf16_bits(first) | bf16_bits(second) << 16)
}

/// Packs columns `[K, 32]` of f32 into pairs `[K / 2, 32]`, K padded to a multiple of [`DEPTH`] by the length of `out`.
pub(super) fn pair_panel(panel: &[f32], out: &mut [f32]) {
    for (i, out) in out.chunks_exact_mut(PANEL).enumerate() {
        for (j, out) in out.iter_mut().enumerate() {
            let at = |p: usize| panel.get(p * PANEL + j).copied().unwrap_or(0.0);
            *out = pair(at(2 * i), at(2 * i + 1));
        }
    }
}

thread_local! {
    /// Rounded or packed rows of A, and the sums of a tile.
    static SCRATCH: RefCell<(Buffer, Buffer)> = RefCell::default();
}

/// `C = epilogue(A * B)` with B in bf16; shapes were checked.
pub(super) fn gemm(
    m: usize,
    a: &[f32],
    lda: usize,
    b: &PackedMatrix,
    c: &mut [f32],
    ldc: usize,
    epilogue: Epilogue,
) {
    SCRATCH.with_borrow_mut(|(packed, acc)| match unit() {
        // SAFETY: the unit is reported only where the machine has it.
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        Unit::Amx => unsafe { x86::gemm::<Amx>(m, a, lda, b, c, ldc, epilogue, packed, acc) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        Unit::Vector => unsafe { x86::gemm::<Vector>(m, a, lda, b, c, ldc, epilogue, packed, acc) },
        Unit::Rounded => {
            let _ = acc;
            let k = b.k();
            let rounded = packed.reserve(m * k);
            for (row, out) in rounded.chunks_exact_mut(k.max(1)).enumerate() {
                out.iter_mut().zip(&a[row * lda..]).for_each(|(o, &x)| *o = round(x));
            }
            super::gemm_block(m, rounded, k, Layout::Normal, b, 0..k, c, ldc, false, epilogue);
        }
    });
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::{Activation, gemm};
    use super::*;
    use crate::simd::tests::values;
    use std::cell::Cell;

    thread_local! {
        pub(crate) static FORCED: Cell<Option<Unit>> = const { Cell::new(None) };
    }

    /// Runs `f` on every unit of this machine.
    pub(crate) fn on_every_unit(f: impl Fn(Unit)) {
        let mut units = vec![Unit::Rounded];
        #[cfg(target_arch = "x86_64")]
        match x86::unit() {
            Unit::Amx => units.extend([Unit::Vector, Unit::Amx]),
            Unit::Vector => units.push(Unit::Vector),
            Unit::Rounded => {}
        }
        for unit in units {
            FORCED.set(Some(unit));
            f(unit);
            FORCED.set(None);
        }
    }

    #[test]
    fn rounds_to_nearest_even() {
        for (x, bits) in
            [(1.0, 0x3f80), (1.0 + 1.0 / 256.0, 0x3f80), (1.0 + 3.0 / 256.0, 0x3f82), (-0.1, 0xbdcd)]
        {
            assert_eq!(bf16_bits(x), bits, "{x}");
        }
        assert!(round(f32::NAN).is_nan() && round(f32::INFINITY) == f32::INFINITY);
        assert_eq!(round(f32::MAX), f32::INFINITY);
    }

    #[test]
    fn products_follow_the_definition_on_every_unit() {
        for (m, k, n) in [(1, 1, 1), (5, 31, 33), (14, 64, 32), (16, 33, 100), (33, 404, 37), (70, 300, 64)] {
            let (a, b, bias) = (values(1, m * (k + 3)), values(2, k * n), values(3, n));
            let old = values(4, m * (n + 1));
            on_every_unit(|unit| {
                let packed = PackedMatrix::from_in_out(&b, k, n).in_precision(Precision::Bf16);
                let run = |rows: std::ops::Range<usize>| {
                    let mut c = old[rows.start * (n + 1)..rows.end * (n + 1)].to_vec();
                    let epilogue = Epilogue::bias(&bias).activate(Activation::Relu).add();
                    gemm(rows.len(), &a[rows.start * (k + 3)..], k + 3, &packed, &mut c, n + 1, epilogue);
                    c
                };
                let whole = run(0..m);
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let products = (0..k).map(|p| round(a[i * (k + 3) + p]) * round(b[p * n + j]));
                    let sum = products.map(f64::from).sum::<f64>() + f64::from(bias[j]);
                    let expected = sum.max(0.0) + f64::from(old[i * (n + 1) + j]);
                    let found = f64::from(whole[i * (n + 1) + j]);
                    assert!((found - expected).abs() < 2e-5, "{unit:?} {m}x{k}x{n}: {found} {expected}");
                }
                let split: Vec<f32> = [0..m / 3, m / 3..m].into_iter().flat_map(run).collect();
                assert!(split == whole, "{unit:?} {m}x{k}x{n}: bits depend on the grouping of rows");
            });
        }
    }
}
