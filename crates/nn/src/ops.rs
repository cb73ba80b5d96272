//! The tensor operations that models are made of.

use burn::tensor::{Tensor, activation};

/// The exact Gaussian error linear unit, `x * Phi(x)` (Hendrycks and Gimpel 2016).
#[must_use]
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::gelu(x)
}

/// `x W^T + b` over the last dimension of `x`, with `weight` as (out, in).
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

/// Layer normalisation over the last dimension (Ba et al. 2016) without affine part; biased variance.
#[must_use]
pub fn normalise<const D: usize>(x: Tensor<D>, eps: f64) -> Tensor<D> {
    let mean = x.clone().mean_dim(D - 1);
    let centred = x - mean;
    let variance = (centred.clone() * centred.clone()).mean_dim(D - 1);
    centred / (variance + eps).sqrt()
}

/// Layer normalisation with weight and bias over the last dimension.
#[must_use]
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: &Tensor<1>, bias: &Tensor<1>, eps: f64) -> Tensor<D> {
    normalise(x, eps) * weight.clone().unsqueeze() + bias.clone().unsqueeze()
}

/// Scaled dot-product attention, `softmax(q k^T / sqrt(d)) v` (Vaswani et al. 2017), before any dropout.
///
/// All three are `[B, heads, T, d]`. `mask` is added to the scores, `[1, 1, T, T]`. `drop` acts on the
/// probabilities.
#[must_use]
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: Option<Tensor<4>>,
    drop: impl FnOnce(Tensor<4>) -> Tensor<4>,
) -> Tensor<4> {
    let scale = 1.0 / (q.dims()[3] as f64).sqrt();
    let mut scores = (q * scale).matmul(k.swap_dims(2, 3)); // [B, heads, T, T]
    if let Some(mask) = mask {
        scores = scores + mask;
    }
    drop(activation::softmax(scores, 3)).matmul(v) // [B, heads, T, d]
}
