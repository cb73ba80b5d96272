//! The tensor operations that models are made of: fused on the CPU, composed of Burn's own elsewhere.

use burn::tensor::{Tensor, activation};
pub use worldbench_kernels::attention::Mask;

use crate::fused::{self, input};

/// The exact Gaussian error linear unit, `x * Phi(x)` (Hendrycks and Gimpel 2016).
#[must_use]
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    fused::run(fused::Gelu, [input(&x)]).unwrap_or_else(|| activation::gelu(x))
}

/// `x W^T + b` over the last dimension of `x`, with `weight` as (out, in).
#[must_use]
pub fn linear<const D: usize>(x: Tensor<D>, weight: &Tensor<2>, bias: Option<&Tensor<1>>) -> Tensor<D> {
    let fused = match bias {
        Some(bias) => fused::run(fused::Linear, [input(&x), input(weight), input(bias)]),
        None => fused::run(fused::LinearWithoutBias, [input(&x), input(weight)]),
    };
    fused.unwrap_or_else(|| plain::linear(x, weight, bias))
}

/// Layer normalisation over the last dimension (Ba et al. 2016) without affine part; biased variance.
#[must_use]
pub fn normalise<const D: usize>(x: Tensor<D>, eps: f64) -> Tensor<D> {
    let op = fused::Normalise { eps: eps as f32 };
    fused::run(op, [input(&x)]).unwrap_or_else(|| plain::normalise(x, eps))
}

/// Layer normalisation with weight and bias over the last dimension.
#[must_use]
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: &Tensor<1>, bias: &Tensor<1>, eps: f64) -> Tensor<D> {
    let op = fused::LayerNorm { eps: eps as f32 };
    let inputs = [input(&x), input(weight), input(bias)];
    fused::run(op, inputs)
        .unwrap_or_else(|| plain::normalise(x, eps) * weight.clone().unsqueeze() + bias.clone().unsqueeze())
}

/// Scaled dot-product attention, `softmax(q k^T / sqrt(d)) v` (Vaswani et al. 2017).
///
/// Queries are `[B, T, heads * d]`, heads side by side, and so is the result; keys and values `[B, S, heads * d]`, where S
/// may differ from T if there is no mask. `mask` says which positions one sees.
#[must_use]
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, heads: usize, mask: Mask) -> Tensor<3> {
    let inputs = [input(&q), input(&k), input(&v)];
    fused::run(fused::Heads { heads, mask }, inputs)
        .unwrap_or_else(|| plain::attention(q, k, v, heads, mask, |p| p))
}

/// [`attention`] over a joint projection `[B, T, 3 * heads * d]`: queries, keys, values; `[B, T, heads * d]`.
#[must_use]
pub fn self_attention(qkv: Tensor<3>, heads: usize, mask: Mask) -> Tensor<3> {
    let op = fused::JointHeads(fused::Heads { heads, mask });
    fused::run(op, [input(&qkv)]).unwrap_or_else(|| plain::self_attention(qkv, heads, mask, |p| p))
}

/// The same operations composed of Burn's own, for every device.
pub mod plain {
    use super::{Mask, Tensor, activation};
    use crate::params::from_vec;

    /// As [`super::linear`].
    #[must_use]
    pub fn linear<const D: usize>(x: Tensor<D>, weight: &Tensor<2>, bias: Option<&Tensor<1>>) -> Tensor<D> {
        let mut shape = x.dims();
        let [outputs, inputs] = weight.dims();
        let rows = shape[..D - 1].iter().product::<usize>();
        let mut y = x.reshape([rows, inputs]).matmul(weight.clone().transpose()); // [rows, out]
        if let Some(bias) = bias {
            y = y + bias.clone().reshape([1, outputs]);
        }
        shape[D - 1] = outputs;
        y.reshape(shape)
    }

    /// As [`super::normalise`].
    #[must_use]
    pub fn normalise<const D: usize>(x: Tensor<D>, eps: f64) -> Tensor<D> {
        let mean = x.clone().mean_dim(D - 1);
        let centred = x - mean;
        let variance = (centred.clone() * centred.clone()).mean_dim(D - 1);
        centred / (variance + eps).sqrt()
    }

    /// As [`super::attention`]; `drop` acts on the probabilities `[B, heads, T, S]`.
    #[must_use]
    pub fn attention(
        q: Tensor<3>,
        k: Tensor<3>,
        v: Tensor<3>,
        heads: usize,
        mask: Mask,
        drop: impl FnOnce(Tensor<4>) -> Tensor<4>,
    ) -> Tensor<3> {
        let [batch, tokens, width] = q.dims();
        let split = |x: Tensor<3>| {
            let tokens = x.dims()[1];
            x.reshape([batch, tokens, heads, width / heads]).swap_dims(1, 2)
        };
        let scale = 1.0 / ((width / heads) as f64).sqrt();
        let mut scores = (split(q) * scale).matmul(split(k).swap_dims(2, 3)); // [B, heads, T, S]
        if mask != Mask::Full {
            let device = scores.device();
            scores = scores + hidden(mask, tokens, &device);
        }
        let mixed = drop(activation::softmax(scores, 3)).matmul(split(v)); // [B, heads, T, d]
        mixed.swap_dims(1, 2).reshape([batch, tokens, width])
    }

    /// As [`super::self_attention`]; `drop` as in [`attention`].
    #[must_use]
    pub fn self_attention(
        qkv: Tensor<3>,
        heads: usize,
        mask: Mask,
        drop: impl FnOnce(Tensor<4>) -> Tensor<4>,
    ) -> Tensor<3> {
        let width = qkv.dims()[2] / 3;
        let part = |i: usize| qkv.clone().narrow(2, i * width, width);
        attention(part(0), part(1), part(2), heads, mask, drop)
    }

    /// 0 where a position may look, a large negative number elsewhere; `[1, 1, T, T]`.
    fn hidden(mask: Mask, tokens: usize, device: &burn::tensor::Device) -> Tensor<4> {
        let entry = |i: usize| if i % tokens < mask.seen(i / tokens, tokens) { 0.0 } else { -1e30 };
        from_vec((0..tokens * tokens).map(entry).collect(), [1, 1, tokens, tokens], device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{from_vec, to_vec};
    use worldbench_core::Stream;

    fn leaf<const D: usize>(shape: [usize; D], key: u64) -> Tensor<D> {
        let mut values = vec![0.0; shape.iter().product()];
        Stream::new(1, "ops", &[key]).fill_normal(&mut values);
        from_vec(values, shape, &crate::device("cpu").unwrap()).require_grad()
    }

    /// Output of `f`, and the gradients of a weighted sum of it, for three inputs.
    fn run<const A: usize, const B: usize, const C: usize>(
        a: Tensor<A>,
        b: Tensor<B>,
        c: Tensor<C>,
        f: impl Fn(Tensor<A>, Tensor<B>, Tensor<C>) -> Tensor<3>,
    ) -> [Vec<f32>; 4] {
        let y = f(a.clone(), b.clone(), c.clone());
        let weights = leaf(y.dims(), 9).detach();
        let mut gradients = (y.clone() * weights).sum().backward();
        [
            to_vec(y).unwrap(),
            a.grad_remove(&mut gradients).map_or(vec![], |g| to_vec(g).unwrap()),
            b.grad_remove(&mut gradients).map_or(vec![], |g| to_vec(g).unwrap()),
            c.grad_remove(&mut gradients).map_or(vec![], |g| to_vec(g).unwrap()),
        ]
    }

    fn same(fused: &[Vec<f32>; 4], plain: &[Vec<f32>; 4]) {
        for (part, (a, b)) in fused.iter().zip(plain).enumerate() {
            assert_eq!(a.len(), b.len(), "part {part}");
            let scale = b.iter().fold(1.0f32, |max, v| max.max(v.abs()));
            let error = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error <= 4e-6 * scale, "part {part}: error {error} at scale {scale}");
        }
    }

    #[test]
    fn fused_operations_equal_plain_ones_in_value_and_gradient() {
        let (x, w, b) = (leaf([5, 70, 24], 1), leaf([17, 24], 2), leaf([17], 3));
        let fused = run(x.clone(), w.clone(), b.clone(), |x, w, b| linear(x, &w, Some(&b)));
        same(&fused, &run(x.clone(), w.clone(), b.clone(), |x, w, b| plain::linear(x, &w, Some(&b))));
        let fused = run(x.clone(), w.clone(), b.clone(), |x, w, _| linear(x, &w, None));
        same(&fused, &run(x.clone(), w.clone(), b.clone(), |x, w, _| plain::linear(x, &w, None)));
        let (g, b) = (leaf([24], 4), leaf([24], 5));
        let fused = run(x.clone(), g.clone(), b.clone(), |x, g, b| layer_norm(x, &g, &b, 1e-5));
        let affine =
            |x, g: Tensor<1>, b: Tensor<1>| plain::normalise(x, 1e-5) * g.unsqueeze() + b.unsqueeze();
        same(&fused, &run(x.clone(), g.clone(), b.clone(), affine));
        let fused = run(x.clone(), g.clone(), b.clone(), |x, _, _| gelu(normalise(x, 1e-6)));
        same(&fused, &run(x, g, b, |x, _, _| activation::gelu(plain::normalise(x, 1e-6))));
    }

    #[test]
    fn fused_attention_equals_the_plain_one() {
        let (causal, full) = (Mask::Causal(1), Mask::Full);
        for (tokens, mask) in [(3, causal), (3, full), (37, full), (20, causal), (24, Mask::Causal(8))] {
            let [q, k, v] = [1, 2, 3].map(|key| leaf([2, tokens, 24], key));
            let fused = run(q.clone(), k.clone(), v.clone(), |q, k, v| attention(q, k, v, 3, mask));
            let plain =
                run(q.clone(), k.clone(), v.clone(), |q, k, v| plain::attention(q, k, v, 3, mask, |p| p));
            same(&fused, &plain);
            let joint = |q, k, v| self_attention(Tensor::cat(vec![q, k, v], 2), 3, mask);
            same(&run(q, k, v, joint), &plain);
        }
    }

    #[test]
    fn queries_may_be_more_or_fewer_than_keys() {
        for (queries, keys) in [(1, 40), (48, 16), (3, 5)] {
            let (q, [k, v]) = (leaf([2, queries, 24], 1), [2, 3].map(|key| leaf([2, keys, 24], key)));
            let fused = run(q.clone(), k.clone(), v.clone(), |q, k, v| attention(q, k, v, 3, Mask::Full));
            let plain = run(q, k, v, |q, k, v| plain::attention(q, k, v, 3, Mask::Full, |p| p));
            same(&fused, &plain);
        }
    }

    #[test]
    fn the_cpu_takes_the_fused_path() {
        assert!(fused::run::<3, 1, _>(fused::Gelu, [input(&leaf([2, 3, 4], 1))]).is_some());
        assert!(fused::run::<3, 1, _>(fused::Gelu, [input(&leaf([2, 3, 4], 1).inner())]).is_some());
    }
}
