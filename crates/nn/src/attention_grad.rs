//! Backward pass of scaled dot-product attention on the CPU.
//!
//! With `P = softmax(s Q K^T)` and `O = P V`: `dV = P^T dO`, `dP = dO V^T`, `dS = s P (dP - rowsum(P dP))`,
//! `dQ = dS K`, `dK = dS^T Q`. The probabilities are computed again instead of kept.

use rayon::prelude::*;
use worldbench_kernels::attention::Attention;
use worldbench_kernels::gemm::{Epilogue, Layout, PackedMatrix, gemm};
use worldbench_kernels::grad::softmax_backward;
use worldbench_kernels::ops::softmax_rows;

/// Gradients of queries `[batch, T, heads * d]`, keys and values `[batch, S, heads * d]`, each like the inputs `qkv`, from
/// `dy` like the queries; `one` is the shape of a single sequence.
pub(crate) fn backward(one: &Attention, batch: usize, qkv: [&[f32]; 3], dy: &[f32]) -> [Vec<f32>; 3] {
    let width = one.heads * one.dim;
    let sizes = [one.queries, one.keys, one.keys].map(|tokens| tokens * width);
    let [mut dq, mut dk, mut dv] = sizes.map(|size| vec![0.0; batch * size]);
    let [queries, keys, _] = sizes;
    let work = dq.par_chunks_mut(queries).zip(dk.par_chunks_mut(keys)).zip(dv.par_chunks_mut(keys));
    work.enumerate().for_each_init(Scratch::default, |scratch, (i, ((dq, dk), dv))| {
        for head in 0..one.heads {
            let at = head * one.dim;
            let [few, many] = [queries, keys].map(|size| i * size + at..(i + 1) * size);
            let [q, k, v] = [&qkv[0][few.clone()], &qkv[1][many.clone()], &qkv[2][many]];
            let grads = scratch.head(one, [(q, width), (k, width), (v, width)], (&dy[few], width));
            for (out, grad) in [&mut *dq, &mut *dk, &mut *dv].into_iter().zip(grads) {
                scatter(grad, one.dim, &mut out[at..], width);
            }
        }
    });
    [dq, dk, dv]
}

/// Gradient of a joint projection `qkv` `[batch, T, 3 * heads * d]`, from `dy` `[batch, T, heads * d]`.
pub(crate) fn backward_joint(one: &Attention, qkv: &[f32], dy: &[f32]) -> Vec<f32> {
    let width = one.heads * one.dim;
    let (size, stride) = (one.queries * width, 3 * width);
    let mut dqkv = vec![0.0; qkv.len()];
    let work = dqkv.par_chunks_mut(3 * size).zip(qkv.par_chunks(3 * size)).zip(dy.par_chunks(size));
    work.for_each_init(Scratch::default, |scratch, ((dqkv, qkv), dy)| {
        for head in 0..one.heads {
            let at = head * one.dim;
            let inputs = [0, 1, 2].map(|part| (&qkv[part * width + at..], stride));
            let grads = scratch.head(one, inputs, (&dy[at..], width));
            for (part, grad) in grads.into_iter().enumerate() {
                scatter(grad, one.dim, &mut dqkv[part * width + at..], stride);
            }
        }
    });
    dqkv
}

/// Writes dense rows of `dim` values to rows `stride` apart.
fn scatter(dense: &[f32], dim: usize, out: &mut [f32], stride: usize) {
    for (from, to) in dense.chunks_exact(dim).zip(out.chunks_mut(stride)) {
        to[..dim].copy_from_slice(from);
    }
}

/// Transpose of `[rows, columns]`, in tiles that stay in the first-level cache.
fn transpose(x: &[f32], rows: usize, columns: usize, out: &mut [f32]) {
    const TILE: usize = 16;
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

/// Buffers of one thread; they keep their size from head to head.
#[derive(Default)]
struct Scratch {
    packed: PackedMatrix,
    /// Probabilities, their gradient, and that of the scores, `[T, S]`.
    p: Vec<f32>,
    dp: Vec<f32>,
    ds: Vec<f32>,
    transposed: Vec<f32>,
    /// Gradients of queries `[T, d]`, keys and values `[S, d]`.
    grads: [Vec<f32>; 3],
}

/// `c [m, n] = a [m, k] B`, with `b` and its layout and leading dimension.
fn product(
    packed: &mut PackedMatrix,
    [m, k, n]: [usize; 3],
    (a, lda): (&[f32], usize),
    (b, ldb, layout): (&[f32], usize, Layout),
    c: &mut [f32],
) {
    packed.pack(b, ldb, layout, k, n);
    gemm(m, a, lda, packed, c, n, Epilogue::NONE);
}

impl Scratch {
    /// Gradients of one head of one sequence, `[T, d]` or `[S, d]` each. All inputs start at the head's first column and
    /// have their own distance between rows.
    fn head(&mut self, one: &Attention, [q, k, v]: [(&[f32], usize); 3], dy: (&[f32], usize)) -> [&[f32]; 3] {
        let (t, s, d) = (one.queries, one.keys, one.dim);
        let Self { packed, p, dp, ds, transposed, grads } = self;
        for scores in [&mut *p, &mut *dp, &mut *ds, &mut *transposed] {
            scores.resize(t * s, 0.0);
        }
        let [dq, dk, dv] = grads;
        for (grad, tokens) in [(&mut *dq, t), (&mut *dk, s), (&mut *dv, s)] {
            grad.resize(tokens * d, 0.0);
        }
        product(packed, [t, d, s], q, (k.0, k.1, Layout::Transposed), p);
        for (i, row) in p.chunks_exact_mut(s).enumerate() {
            let (seen, hidden) = row.split_at_mut(one.mask.seen(i, s));
            softmax_rows(seen, seen.len(), one.scale);
            hidden.fill(0.0);
        }
        product(packed, [t, d, s], dy, (v.0, v.1, Layout::Transposed), dp);
        softmax_backward(p, dp, s, one.scale, ds);
        product(packed, [t, s, d], (ds, s), (k.0, k.1, Layout::Normal), dq);
        transpose(ds, t, s, transposed);
        product(packed, [s, t, d], (transposed, t), (q.0, q.1, Layout::Normal), dk);
        transpose(p, t, s, transposed);
        product(packed, [s, t, d], (transposed, t), (dy.0, dy.1, Layout::Normal), dv);
        [dq, dk, dv].map(|grad| grad.as_slice())
    }
}
