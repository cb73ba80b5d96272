//! `C = A B` for operands stored either way: `dX = dY W^T`, `dW = X^T dY`.

use crate::gemm::pack::PackedMatrix;
use crate::gemm::{Combine, Epilogue, Layout, gemm_block, load, store};
use crate::par::par_rows_mut;
use crate::simd::{LANES, kernel};
use std::cell::RefCell;

/// Depth of a part of K that is packed at once: a part of B (1024 x N) stays near the cores.
const DEPTH: usize = 1024;

/// An operand of [`matmul`].
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// Values; the operand's rows (or, transposed, columns) start `stride` values apart.
    pub data: &'a [f32],
    /// Leading dimension.
    pub stride: usize,
    /// Whether rows or columns are contiguous.
    pub layout: Layout,
}

impl<'a> Operand<'a> {
    /// A matrix stored row by row, `stride` values per row.
    pub fn normal(data: &'a [f32], stride: usize) -> Self {
        Self { data, stride, layout: Layout::Normal }
    }

    /// The transpose of a matrix stored row by row, `stride` values per stored row.
    pub fn transposed(data: &'a [f32], stride: usize) -> Self {
        Self { data, stride, layout: Layout::Transposed }
    }

    /// The operand from its column (`a`) or row (`b`) `k0` on.
    fn from(&self, k0: usize, inner: bool) -> &'a [f32] {
        let at = if inner == (self.layout == Layout::Normal) { k0 } else { k0 * self.stride };
        &self.data[at.min(self.data.len())..]
    }
}

thread_local! {
    /// The packed part of B.
    static PACKED: RefCell<PackedMatrix> = RefCell::default();
}

/// `C = epilogue(A B)` with `a` `[m, k]`, `b` `[k, n]` and `c` `[m, n]` (leading dimension `c_stride`).
///
/// With `accumulate` the sums continue from what C holds (`C += A B`); the epilogue then applies to the total.
/// Rows of C are split among rayon's threads; every element is one chain of fused multiply-adds over ascending
/// k, whatever their number.
///
/// # Panics
/// If an operand is shorter than its shape, or the epilogue combines with C while k exceeds 1024 or
/// `accumulate` is set (C then holds the sums), or gates.
#[allow(clippy::too_many_arguments)]
pub fn matmul(
    m: usize,
    k: usize,
    n: usize,
    a: Operand,
    b: Operand,
    c: &mut [f32],
    c_stride: usize,
    accumulate: bool,
    epilogue: Epilogue,
) {
    a.layout.check("a", a.data.len(), m, k, a.stride);
    b.layout.check("b", b.data.len(), k, n, b.stride);
    Layout::Normal.check("c", c.len(), m, n, c_stride);
    assert!(
        epilogue.stores() || (k <= DEPTH && !accumulate),
        "an epilogue that combines with C takes k <= {DEPTH} without accumulation"
    );
    assert!(!matches!(epilogue.combine, Combine::Gate { .. }), "gates follow rows: use gemm on each part");
    // The buffer leaves its cell: rayon may run another product on this thread while this one waits.
    let mut packed = PACKED.take();
    let mut k0 = 0;
    loop {
        let depth = DEPTH.min(k - k0);
        packed.pack_parallel(b.from(k0, false), b.stride, b.layout, depth, n);
        let last = k0 + depth == k;
        let epilogue = if last { epilogue } else { Epilogue::NONE };
        let (resume, data) = (accumulate || k0 > 0, a.from(k0, true));
        par_rows_mut(c, m, c_stride, |rows, c| {
            let skip = if a.layout == Layout::Normal { rows.start * a.stride } else { rows.start };
            let a_rows = &data[skip.min(data.len())..];
            gemm_block(
                rows.len(),
                a_rows,
                a.stride,
                a.layout,
                &packed,
                0..depth,
                c,
                c_stride,
                resume,
                epilogue,
            );
        });
        k0 += depth;
        if last {
            break;
        }
    }
    PACKED.set(packed);
}

kernel! {
    /// `out[j] += sum over rows of x[r, j]`, rows ascending: the gradient of a bias. `x` is `[rows, out.len()]`.
    ///
    /// # Panics
    /// If `x` does not consist of rows of `out.len()`.
    pub fn add_rows<V>(x: &[f32], out: &mut [f32]) {
        crate::ops::check_rows("x", x.len(), out.len());
        for row in x.chunks_exact(out.len()) {
            for (x, out) in row.chunks(LANES).zip(out.chunks_mut(LANES)) {
                store(load::<V>(out) + load(x), out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::tests::values;

    #[test]
    fn every_layout_gives_the_ordered_sum_on_any_number_of_threads() {
        for (m, k, n) in [(5, 3, 4), (40, 1030, 37), (33, 2100, 70)] {
            let (a, b, c0) = (values(1, m * k), values(2, k * n), values(3, m * n));
            let at: Vec<f32> = (0..m * k).map(|i| a[i % m * k + i / m]).collect();
            let bt: Vec<f32> = (0..k * n).map(|i| b[i % k * n + i / k]).collect();
            let sum =
                |i: usize, j: usize, c: f32| (0..k).fold(c, |s, p| a[i * k + p].mul_add(b[p * n + j], s));
            let expected: Vec<f32> = (0..m * n).map(|i| sum(i / n, i % n, c0[i])).collect();
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                for a in [Operand::normal(&a, k), Operand::transposed(&at, m)] {
                    for b in [Operand::normal(&b, n), Operand::transposed(&bt, k)] {
                        let mut c = c0.clone();
                        pool.install(|| matmul(m, k, n, a, b, &mut c, n, true, Epilogue::NONE));
                        assert_eq!(c, expected);
                    }
                }
            }
        }
    }

    #[test]
    fn an_empty_sum_is_zero() {
        let mut c = [1.0; 4];
        matmul(2, 0, 2, Operand::normal(&[], 0), Operand::normal(&[], 2), &mut c, 2, false, Epilogue::NONE);
        assert_eq!(c, [0.0; 4]);
    }

    #[test]
    fn rows_add_up() {
        let mut out = vec![1.0; 3];
        add_rows(&[1.0, 2.0, 3.0, 10.0, 20.0, 30.0], &mut out);
        assert_eq!(out, [12.0, 23.0, 34.0]);
    }
}
