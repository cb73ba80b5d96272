//! The loop nest behind every convolution: products whose left operand is read in place, from overlapping rows.
#![allow(unsafe_code)]

use crate::buffer::Buffer;
use crate::gemm::tile::Tile;
use crate::gemm::{load, store};
use crate::simd::{LANES, kernel};

/// A right operand `[k, n]` in strips of sixteen columns, the last filled up with zeros.
#[derive(Clone, Debug, Default)]
pub(super) struct Strips {
    data: Buffer,
    k: usize,
    n: usize,
}

impl Strips {
    /// Packs `k` rows of `n` values.
    pub(super) fn pack<'a>(&mut self, k: usize, n: usize, rows: impl Iterator<Item = &'a [f32]>) {
        (self.k, self.n) = (k, n);
        let data = self.data.reserve(self.count() * k * LANES);
        for (p, row) in rows.take(k).enumerate() {
            let (whole, rest) = row[..n].as_chunks::<LANES>();
            for (j, values) in whole.iter().enumerate() {
                data[(j * k + p) * LANES..][..LANES].copy_from_slice(values);
            }
            if !rest.is_empty() {
                let (values, fill) = data[(whole.len() * k + p) * LANES..][..LANES].split_at_mut(rest.len());
                values.copy_from_slice(rest);
                fill.fill(0.0);
            }
        }
    }

    fn count(&self) -> usize {
        self.n.div_ceil(LANES)
    }
}

/// Items of one loop, and the distances between them in A and C.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loop {
    pub count: usize,
    pub a: usize,
    pub c: usize,
}

/// The places in A of the terms of one sum: `runs` runs, `jump` apart, of `count` values, `step` apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub runs: usize,
    pub jump: usize,
    pub count: usize,
    pub step: usize,
}

/// How the sums reach C.
#[derive(Clone, Copy, Debug)]
pub(super) enum Finish<'a> {
    /// `C = sum`
    Store,
    /// `C = sum + bias`
    Bias(&'a [f32]),
    /// The sums continue from what C holds.
    Accumulate,
}

/// `C[y, x, n] = sum over k of A[y, x, k] B[k, n]` where A and C are strided in both `y` and `x`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nest {
    pub y: Loop,
    pub x: Loop,
    pub terms: Terms,
}

impl Nest {
    fn check(&self, a: &[f32], b: &Strips, c: &[f32]) {
        let last = |y: usize, x: usize| (self.y.count - 1) * y + (self.x.count - 1) * x;
        let terms = (self.terms.runs - 1) * self.terms.jump + (self.terms.count - 1) * self.terms.step;
        assert!(last(self.y.a, self.x.a) + terms < a.len(), "input: {} values end inside {self:?}", a.len());
        assert!(last(self.y.c, self.x.c) + b.n <= c.len(), "output: {} values end inside {self:?}", c.len());
        assert_eq!(self.terms.runs * self.terms.count, b.k, "the sums' lengths differ");
    }

    /// Runs the nest on `a` and `c` from their first values on.
    ///
    /// # Panics
    /// If the nest is empty, or an operand ends before it does.
    pub(super) fn run(&self, a: &[f32], b: &Strips, c: &mut [f32], finish: Finish) {
        let empty = [self.y.count, self.x.count, self.terms.runs, self.terms.count].contains(&0);
        assert!(!empty, "an empty convolution");
        self.check(a, b, c);
        nest(self, a, b, c, finish);
    }
}

kernel! {
    fn nest<V>(nest: &Nest, a: &[f32], b: &Strips, c: &mut [f32], finish: Finish) {
        let mut strip = 0;
        while strip < b.count() {
            // Strips outermost: theirs are the values that every row reads again.
            let strips = if V::WIDE && b.count() - strip >= 2 { 2 } else { 1 };
            for y in 0..nest.y.count {
                let mut x = 0;
                while x < nest.x.count {
                    let at = Place { y, x, strip };
                    x += match (nest.x.count - x, strips) {
                        (8.., 2) => tile::<V, 8, 2>(nest, at, a, b, c, finish),
                        (8.., _) if V::WIDE => tile::<V, 8, 1>(nest, at, a, b, c, finish),
                        (4.., 2) => tile::<V, 4, 2>(nest, at, a, b, c, finish),
                        (4.., _) => tile::<V, 4, 1>(nest, at, a, b, c, finish),
                        (_, 2) => tile::<V, 1, 2>(nest, at, a, b, c, finish),
                        _ => tile::<V, 1, 1>(nest, at, a, b, c, finish),
                    };
                }
            }
            strip += strips;
        }
    }
}

/// First row and strip of a tile.
#[derive(Clone, Copy)]
struct Place {
    y: usize,
    x: usize,
    strip: usize,
}

/// `MR` rows of `NV` strips, one register per element group over the whole sum; returns `MR`.
#[inline(always)]
fn tile<V: Tile, const MR: usize, const NV: usize>(
    nest: &Nest,
    at: Place,
    a: &[f32],
    b: &Strips,
    c: &mut [f32],
    finish: Finish,
) -> usize {
    let (rows, depth) = (nest.x, b.k * LANES);
    let c = &mut c[at.y * nest.y.c + at.x * rows.c..];
    let columns = |j: usize| (at.strip + j) * LANES..b.n.min((at.strip + j + 1) * LANES);
    let mut acc = [[V::zero(); NV]; MR];
    if let Finish::Accumulate = finish {
        for (r, row) in acc.iter_mut().enumerate() {
            for (j, y) in row.iter_mut().enumerate() {
                *y = load(&c[r * rows.c..][columns(j)]);
            }
        }
    }
    // SAFETY: `Nest::check` found the last row's last term inside `a`, and this tile ends no later; `b` holds
    // sixteen values for each of the `k` terms of each strip.
    unsafe {
        let a = a.as_ptr().add(at.y * nest.y.a + at.x * rows.a);
        let mut b = b.data.as_ptr().add(at.strip * depth);
        for run in 0..nest.terms.runs {
            let a = a.add(run * nest.terms.jump);
            for term in 0..nest.terms.count {
                let a = a.add(term * nest.terms.step);
                let mut values = [V::zero(); NV];
                for (j, x) in values.iter_mut().enumerate() {
                    *x = V::load(&*b.add(j * depth).cast());
                }
                for (r, row) in acc.iter_mut().enumerate() {
                    let x = V::splat(*a.add(r * rows.a));
                    for (y, value) in row.iter_mut().zip(values) {
                        *y = x.mul_add(value, *y);
                    }
                }
                b = b.add(LANES);
            }
        }
    }
    for (r, row) in acc.into_iter().enumerate() {
        for (j, y) in row.into_iter().enumerate() {
            let y = if let Finish::Bias(bias) = finish { y + load(&bias[columns(j)]) } else { y };
            store(y, &mut c[r * rows.c..][columns(j)]);
        }
    }
    MR
}
