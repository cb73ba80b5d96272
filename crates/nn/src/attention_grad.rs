//! Backward pass of scaled dot-product attention on the CPU.
//!
//! With `P = softmax(s Q K^T)` and `O = P V`: `dV = P^T dO`, `dP = dO V^T`, `dS = s P (dP - rowsum(P dP))`,
//! `dQ = dS K`, `dK = dS^T Q`. The probabilities are computed again instead of kept.

use rayon::prelude::*;
use worldbench_kernels::attention::Attention;
use worldbench_kernels::gemm::{Epilogue, PackedMatrix, gemm};
use worldbench_kernels::grad::softmax_backward;
use worldbench_kernels::ops::softmax_rows;

/// Gradients of queries, keys and values, each `[batch, T, heads * d]` like the inputs `qkv` and `dy`; `one` is the
/// shape of a single sequence.
pub(crate) fn backward(one: &Attention, batch: usize, qkv: [&[f32]; 3], dy: &[f32]) -> [Vec<f32>; 3] {
    let size = one.queries * one.heads * one.dim;
    let [mut dq, mut dk, mut dv] = [(); 3].map(|()| vec![0.0; batch * size]);
    let work = dq.par_chunks_mut(size).zip(dk.par_chunks_mut(size)).zip(dv.par_chunks_mut(size));
    work.enumerate().for_each(|(i, ((dq, dk), dv))| {
        let [q, k, v] = qkv.map(|x| &x[i * size..(i + 1) * size]);
        let mut scratch = Scratch::default();
        for head in 0..one.heads {
            scratch.head(one, head, [q, k, v, &dy[i * size..(i + 1) * size]], [dq, dk, dv]);
        }
    });
    [dq, dk, dv]
}

#[derive(Default)]
struct Scratch {
    packed: PackedMatrix,
    transposed: Vec<f32>,
}

/// Columns of one head as a dense `[T, d]`.
fn gather(x: &[f32], one: &Attention, head: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(one.queries * one.dim);
    for row in x.chunks_exact(one.heads * one.dim) {
        out.extend_from_slice(&row[head * one.dim..(head + 1) * one.dim]);
    }
    out
}

/// Transpose of `[rows, columns]`, in tiles that stay in the first-level cache.
fn transpose(x: &[f32], rows: usize, columns: usize, out: &mut Vec<f32>) {
    const TILE: usize = 16;
    out.resize(rows * columns, 0.0);
    for i0 in (0..rows).step_by(TILE) {
        for j0 in (0..columns).step_by(TILE) {
            for j in j0..columns.min(j0 + TILE) {
                for i in i0..rows.min(i0 + TILE) {
                    out[j * rows + i] = x[i * columns + j];
                }
            }
        }
    }
}

impl Scratch {
    /// `c = a b^T` or `a b`, with `a` as `[m, k]`; `b` as `[n, k]` when `out_in`, else `[k, n]`.
    fn product(
        &mut self,
        a: &[f32],
        b: &[f32],
        [m, k, n]: [usize; 3],
        out_in: bool,
        c: &mut [f32],
        ldc: usize,
    ) {
        self.packed =
            if out_in { PackedMatrix::from_out_in(b, k, n) } else { PackedMatrix::from_in_out(b, k, n) };
        gemm(m, a, k, &self.packed, c, ldc, Epilogue::NONE);
    }

    fn head(
        &mut self,
        one: &Attention,
        head: usize,
        [q, k, v, dy]: [&[f32]; 4],
        [dq, dk, dv]: [&mut [f32]; 3],
    ) {
        let (t, d, width, at) = (one.queries, one.dim, one.heads * one.dim, head * one.dim);
        let [q, k, v, dy] = [q, k, v, dy].map(|x| gather(x, one, head));
        let mut p = vec![0.0; t * t];
        self.product(&q, &k, [t, d, t], true, &mut p, t);
        for (i, row) in p.chunks_exact_mut(t).enumerate() {
            let (seen, hidden) = row.split_at_mut(one.mask.seen(i, t));
            softmax_rows(seen, seen.len(), one.scale);
            hidden.fill(0.0);
        }
        let mut dp = vec![0.0; t * t];
        self.product(&dy, &v, [t, d, t], true, &mut dp, t);
        let mut ds = vec![0.0; t * t];
        softmax_backward(&p, &dp, t, one.scale, &mut ds);
        self.product(&ds, &k, [t, t, d], false, &mut dq[at..], width);
        let mut transposed = std::mem::take(&mut self.transposed);
        transpose(&ds, t, t, &mut transposed);
        self.product(&transposed, &q, [t, t, d], false, &mut dk[at..], width);
        transpose(&p, t, t, &mut transposed);
        self.product(&transposed, &dy, [t, t, d], false, &mut dv[at..], width);
        self.transposed = transposed;
    }
}
