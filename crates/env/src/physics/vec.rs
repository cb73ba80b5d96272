//! 2-vector arithmetic in the engine's literal order of operations: nothing here may be fused or reordered.

use crate::geometry::Vec2;

/// The engine's guard against division by zero: the smallest normal f64.
pub const TINY: f64 = f64::MIN_POSITIVE;

#[inline(always)]
pub fn add(a: Vec2, b: Vec2) -> Vec2 {
    [a[0] + b[0], a[1] + b[1]]
}

#[inline(always)]
pub fn sub(a: Vec2, b: Vec2) -> Vec2 {
    [a[0] - b[0], a[1] - b[1]]
}

#[inline(always)]
pub fn scale(a: Vec2, s: f64) -> Vec2 {
    [a[0] * s, a[1] * s]
}

#[inline(always)]
pub fn neg(a: Vec2) -> Vec2 {
    [-a[0], -a[1]]
}

#[inline(always)]
pub fn dot(a: Vec2, b: Vec2) -> f64 {
    a[0] * b[0] + a[1] * b[1]
}

#[inline(always)]
pub fn cross(a: Vec2, b: Vec2) -> f64 {
    a[0] * b[1] - a[1] * b[0]
}

#[inline(always)]
pub fn perp(v: Vec2) -> Vec2 {
    [-v[1], v[0]]
}

#[inline(always)]
pub fn rperp(v: Vec2) -> Vec2 {
    [v[1], -v[0]]
}

/// `v / |v|` as multiplication by a reciprocal, which is what the engine does.
#[inline(always)]
pub fn normalize(v: Vec2) -> Vec2 {
    scale(v, 1.0 / (dot(v, v).sqrt() + TINY))
}

#[inline(always)]
pub fn max(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

#[inline(always)]
pub fn min(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}

#[inline(always)]
pub fn clamp01(f: f64) -> f64 {
    max(0.0, min(f, 1.0))
}

#[inline(always)]
pub fn lerp(a: Vec2, b: Vec2, f: f64) -> Vec2 {
    add(scale(a, 1.0 - f), scale(b, f))
}

/// Axis-aligned box: left, bottom (small y), right, top (large y).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Aabb {
    pub l: f64,
    pub b: f64,
    pub r: f64,
    pub t: f64,
}

impl Aabb {
    pub const EMPTY: Self = Self { l: 0.0, b: 0.0, r: 0.0, t: 0.0 };

    #[inline(always)]
    pub fn touches(&self, other: &Self) -> bool {
        self.l <= other.r && other.l <= self.r && self.b <= other.t && other.b <= self.t
    }

    #[inline(always)]
    pub fn contains(&self, other: &Self) -> bool {
        self.l <= other.l && self.r >= other.r && self.b <= other.b && self.t >= other.t
    }

    #[inline(always)]
    pub fn merge(&self, other: &Self) -> Self {
        Self {
            l: min(self.l, other.l),
            b: min(self.b, other.b),
            r: max(self.r, other.r),
            t: max(self.t, other.t),
        }
    }

    #[inline(always)]
    pub fn area(&self) -> f64 {
        (self.r - self.l) * (self.t - self.b)
    }

    /// Box distance that breaks ties of the insertion cost.
    pub fn proximity(&self, other: &Self) -> f64 {
        (self.l + self.r - other.l - other.r).abs() + (self.b + self.t - other.b - other.t).abs()
    }

    #[inline(always)]
    pub fn centre(&self) -> Vec2 {
        add(scale([self.l, self.b], 0.5), scale([self.r, self.t], 0.5))
    }
}
