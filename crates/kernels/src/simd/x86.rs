//! AVX-512 (one register) and AVX2 + FMA (two registers) lanes.
//!
//! SAFETY of every block below: these types are named only by the `kernel!` macro, inside functions compiled
//! with their target features and called only after run-time detection; loads and stores go through
//! references to sixteen values, or are masked to the length of their slice.
#![allow(unsafe_code)]

use super::{LANES, Lanes};
use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Sub};

#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

macro_rules! operator {
    ($Op:ident, $op:ident, $wide:ident, $half:ident) => {
        impl $Op for Avx512 {
            type Output = Self;
            #[inline(always)]
            fn $op(self, b: Self) -> Self {
                Self(unsafe { $wide(self.0, b.0) })
            }
        }
        impl $Op for Avx2 {
            type Output = Self;
            #[inline(always)]
            fn $op(self, b: Self) -> Self {
                unsafe { Self($half(self.0, b.0), $half(self.1, b.1)) }
            }
        }
    };
}
operator!(Add, add, _mm512_add_ps, _mm256_add_ps);
operator!(Sub, sub, _mm512_sub_ps, _mm256_sub_ps);
operator!(Mul, mul, _mm512_mul_ps, _mm256_mul_ps);
operator!(Div, div, _mm512_div_ps, _mm256_div_ps);

/// Sum of eight lanes in the fixed tree's last three levels.
#[inline(always)]
fn reduce_half(x: __m256) -> f32 {
    unsafe {
        let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
    }
}

impl Lanes for Avx512 {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self {
        Self(unsafe { _mm512_loadu_ps(x.as_ptr()) })
    }
    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), self.0) }
    }
    #[inline(always)]
    fn load_part(x: &[f32], fill: f32) -> Self {
        assert!(x.len() <= LANES);
        let mask = ((1u32 << x.len()) - 1) as u16;
        // Lanes without a mask bit are not read.
        Self(unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), mask, x.as_ptr()) })
    }
    #[inline(always)]
    fn store_part(self, out: &mut [f32]) {
        assert!(out.len() <= LANES);
        let mask = ((1u32 << out.len()) - 1) as u16;
        unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), mask, self.0) }
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        Self(unsafe { _mm512_max_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        Self(unsafe { _mm512_min_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(unsafe { _mm512_sqrt_ps(self.0) })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Self(unsafe { _mm512_abs_ps(self.0) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        Self(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }
    #[inline(always)]
    fn pow2(self) -> Self {
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvttps_epi32(self.0), _mm512_set1_epi32(127));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent)))
        }
    }
    #[inline(always)]
    fn select_lt(self, b: Self, yes: Self, no: Self) -> Self {
        unsafe {
            let mask = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, b.0);
            Self(_mm512_mask_blend_ps(mask, no.0, yes.0))
        }
    }
    #[inline(always)]
    fn reduce_add(self) -> f32 {
        unsafe {
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0)));
            reduce_half(_mm256_add_ps(_mm512_castps512_ps256(self.0), high))
        }
    }
    #[inline(always)]
    fn reduce_add_each(x: [Self; LANES]) -> Self {
        // The levels of the tree for all sixteen at once, halves, quarters and pairs of their lanes side by side.
        let (mut halves, mut quarters, mut pairs) = ([x[0]; 8], [x[0]; 4], [x[0]; 2]);
        unsafe {
            for i in 0..8 {
                let (a, b) = (x[i % 4 + i / 4 * 8].0, x[i % 4 + i / 4 * 8 + 4].0);
                let low = _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b);
                halves[i] = Self(_mm512_add_ps(low, _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b)));
            }
            for i in 0..4 {
                let (a, b) = (halves[i].0, halves[i + 4].0);
                let low = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
                quarters[i] = Self(_mm512_add_ps(low, _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b)));
            }
            for i in 0..2 {
                let (a, b) = (quarters[2 * i].0, quarters[2 * i + 1].0);
                let low = _mm512_shuffle_ps::<0b01_00_01_00>(a, b);
                pairs[i] = Self(_mm512_add_ps(low, _mm512_shuffle_ps::<0b11_10_11_10>(a, b)));
            }
            let (a, b) = (pairs[0].0, pairs[1].0);
            let low = _mm512_shuffle_ps::<0b10_00_10_00>(a, b);
            Self(_mm512_add_ps(low, _mm512_shuffle_ps::<0b11_01_11_01>(a, b)))
        }
    }
}

impl Lanes for Avx2 {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        unsafe { Self(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }
    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self {
        unsafe { Self(_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))) }
    }
    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), self.0);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), self.1);
        }
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        unsafe { Self(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        unsafe { Self(_mm256_max_ps(self.0, b.0), _mm256_max_ps(self.1, b.1)) }
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        unsafe { Self(_mm256_min_ps(self.0, b.0), _mm256_min_ps(self.1, b.1)) }
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        unsafe { Self(_mm256_sqrt_ps(self.0), _mm256_sqrt_ps(self.1)) }
    }
    #[inline(always)]
    fn abs(self) -> Self {
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            Self(_mm256_andnot_ps(sign, self.0), _mm256_andnot_ps(sign, self.1))
        }
    }
    #[inline(always)]
    fn round(self) -> Self {
        const MODE: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        unsafe { Self(_mm256_round_ps::<MODE>(self.0), _mm256_round_ps::<MODE>(self.1)) }
    }
    #[inline(always)]
    fn pow2(self) -> Self {
        #[inline(always)]
        fn half(x: __m256) -> __m256 {
            unsafe {
                let exponent = _mm256_add_epi32(_mm256_cvttps_epi32(x), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
            }
        }
        Self(half(self.0), half(self.1))
    }
    #[inline(always)]
    fn select_lt(self, b: Self, yes: Self, no: Self) -> Self {
        unsafe {
            let low = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, b.0);
            let high = _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, b.1);
            Self(_mm256_blendv_ps(no.0, yes.0, low), _mm256_blendv_ps(no.1, yes.1, high))
        }
    }
    #[inline(always)]
    fn reduce_add(self) -> f32 {
        reduce_half(unsafe { _mm256_add_ps(self.0, self.1) })
    }
}
