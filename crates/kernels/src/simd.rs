//! Sixteen virtual f32 lanes on every machine.
//!
//! Every kernel is written once over [`Lanes`]. AVX-512 holds the lanes in one register, AVX2 in two, the
//! scalar path in an array. Each operation is one correctly rounded IEEE operation per lane and
//! [`Lanes::reduce_add`] has one fixed tree, so the three paths give equal bits.

use std::ops::{Add, Div, Mul, Sub};
use std::sync::OnceLock;

mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use scalar::Scalar;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// Number of virtual lanes.
pub(crate) const LANES: usize = 16;

/// Sixteen f32 values with lane-wise arithmetic.
pub(crate) trait Lanes:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    fn splat(x: f32) -> Self;
    fn load(x: &[f32; LANES]) -> Self;
    fn store(self, out: &mut [f32; LANES]);
    /// `self * b + c` with one rounding.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self > b ? self : b`: NaN in either gives `b`.
    fn max(self, b: Self) -> Self;
    /// `self < b ? self : b`: NaN in either gives `b`.
    fn min(self, b: Self) -> Self;
    fn sqrt(self) -> Self;
    fn abs(self) -> Self;
    /// Nearest integer, ties to even.
    fn round(self) -> Self;
    /// `2^self` for an integer value in -126..=127.
    fn pow2(self) -> Self;
    /// `self < b ? yes : no` in each lane.
    fn select_lt(self, b: Self, yes: Self, no: Self) -> Self;
    /// Sum in the fixed tree (i, i+8), (i, i+4), (i, i+2), (i, i+1).
    fn reduce_add(self) -> f32;

    /// [`Self::reduce_add`] of each of sixteen.
    #[inline(always)]
    fn reduce_add_each(x: [Self; LANES]) -> Self {
        let mut sums = [0.0; LANES];
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum = x.reduce_add();
        }
        Self::load(&sums)
    }

    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }

    /// Loads at most 16 values; missing lanes take `fill`.
    #[inline(always)]
    fn load_part(x: &[f32], fill: f32) -> Self {
        let mut lanes = [fill; LANES];
        lanes[..x.len()].copy_from_slice(x);
        Self::load(&lanes)
    }

    /// Stores the first `out.len()` lanes.
    #[inline(always)]
    fn store_part(self, out: &mut [f32]) {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        out.copy_from_slice(&lanes[..out.len()]);
    }

    /// Largest lane.
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        lanes.iter().fold(f32::NEG_INFINITY, |m, &x| if m > x { m } else { x })
    }
}

/// Asks for the cache line of `at`.
#[inline(always)]
pub(crate) fn fetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program can see, whatever its address.
    #[allow(unsafe_code)]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Instruction set of the running machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Scalar,
}

fn detect() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma") {
            return Level::Avx512;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Level::Avx2;
        }
    }
    Level::Scalar
}

/// The path that kernels take on this machine.
pub(crate) fn level() -> Level {
    #[cfg(test)]
    if let Some(level) = tests::FORCED.get() {
        return level;
    }
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(detect)
}

/// Name of the instruction set that the kernels use on this machine: `avx512`, `avx2` or `scalar`.
pub fn instruction_set() -> &'static str {
    match level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => "avx512",
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => "avx2",
        Level::Scalar => "scalar",
    }
}

/// Defines a function whose body is compiled for every path and chosen at run time.
///
/// The body names its lane type by the identifier in angle brackets.
macro_rules! kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$V:ident>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body<$V: $crate::gemm::tile::Tile>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma")]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                body::<$crate::simd::Avx512>($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                body::<$crate::simd::Avx2>($($arg),*)
            }

            match $crate::simd::level() {
                // SAFETY: the level is reported only where the machine has its features.
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code)]
                $crate::simd::Level::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code)]
                $crate::simd::Level::Avx2 => unsafe { avx2($($arg),*) },
                $crate::simd::Level::Scalar => body::<$crate::simd::Scalar>($($arg),*),
            }
        }
    };
}
pub(crate) use kernel;

#[cfg(test)]
pub(crate) mod tests {
    use super::Level;
    use std::cell::Cell;

    thread_local! {
        pub(crate) static FORCED: Cell<Option<Level>> = const { Cell::new(None) };
    }

    /// Runs `f` on every path of this machine and checks that all results have the scalar path's bits.
    pub(crate) fn same_bits(f: impl Fn() -> Vec<f32>) -> Vec<f32> {
        FORCED.set(Some(Level::Scalar));
        let expected = f();
        #[cfg(target_arch = "x86_64")]
        for level in [Level::Avx2, Level::Avx512] {
            let best = super::detect();
            if best == Level::Scalar || (best == Level::Avx2 && level == Level::Avx512) {
                continue;
            }
            FORCED.set(Some(level));
            let got = f();
            assert_eq!(got.len(), expected.len());
            for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
                assert_eq!(g.to_bits(), e.to_bits(), "{level:?} differs at {i}: {g} against {e}");
            }
        }
        FORCED.set(None);
        expected
    }

    /// Reproducible test values in -1..1.
    pub(crate) fn values(seed: u64, n: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }
}
