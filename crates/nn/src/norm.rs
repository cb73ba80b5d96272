//! Normalisation layers with PyTorch's definitions.

use burn::tensor::Tensor;

use crate::{Init, Pass, Scope, ops};

/// Affine layer normalisation over the last dimension.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// Scale, `[D]`.
    pub weight: Tensor<1>,
    /// Shift, `[D]`.
    pub bias: Tensor<1>,
    eps: f64,
}

impl LayerNorm {
    /// `{key}.weight` and `{key}.bias` of length `width`.
    pub fn new(scope: &mut Scope, key: &str, width: usize, eps: f64) -> Self {
        let weight = scope.param(&format!("{key}.weight"), [width], Init::Constant(1.0));
        let bias = scope.param(&format!("{key}.bias"), [width], Init::Constant(0.0));
        Self { weight, bias, eps }
    }

    /// `[.., D]` to the same shape.
    #[must_use]
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

/// Batch normalisation over rows (Ioffe and Szegedy 2015): biased variance to normalise, *unbiased* variance in the
/// running statistics. Burn's own module keeps the biased one.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    key: String,
    weight: Tensor<1>,
    bias: Tensor<1>,
    running_mean: Tensor<1>,
    running_var: Tensor<1>,
}

impl BatchNorm {
    const EPS: f64 = 1e-5;
    const MOMENTUM: f64 = 0.1;

    /// `{key}.{weight,bias,running_mean,running_var,num_batches_tracked}` of length `width`.
    pub fn new(scope: &mut Scope, key: &str, width: usize) -> Self {
        let weight = scope.param(&format!("{key}.weight"), [width], Init::Constant(1.0));
        let bias = scope.param(&format!("{key}.bias"), [width], Init::Constant(0.0));
        let running_mean = scope.buffer(&format!("{key}.running_mean"), [width], 0.0);
        let running_var = scope.buffer(&format!("{key}.running_var"), [width], 1.0);
        scope.counter(&format!("{key}.num_batches_tracked"));
        Self { key: key.to_owned(), weight, bias, running_mean, running_var }
    }

    /// `[N, D]` to the same shape; statistics over the rows in training, running statistics in evaluation.
    pub fn forward(&self, x: Tensor<2>, pass: &mut Pass) -> Tensor<2> {
        let normal = if pass.is_train() {
            let rows = x.dims()[0] as f64;
            let mean = x.clone().mean_dim(0); // [1, D]
            let centred = x - mean.clone();
            let variance = (centred.clone() * centred.clone()).mean_dim(0); // [1, D]
            self.track(mean.clone(), variance.clone() * (rows / (rows - 1.0).max(1.0)), pass);
            centred / (variance + Self::EPS).sqrt()
        } else {
            let (mean, variance) = (self.running_mean.clone(), self.running_var.clone());
            (x - mean.unsqueeze()) / (variance + Self::EPS).sqrt().unsqueeze()
        };
        normal * self.weight.clone().unsqueeze() + self.bias.clone().unsqueeze()
    }

    fn track(&self, mean: Tensor<2>, variance: Tensor<2>, pass: &mut Pass) {
        let mix = |old: &Tensor<1>, new: Tensor<2>| {
            let width = new.dims()[1];
            old.clone() * (1.0 - Self::MOMENTUM) + new.detach().reshape([width]) * Self::MOMENTUM
        };
        pass.update(format!("{}.running_mean", self.key), mix(&self.running_mean, mean));
        pass.update(format!("{}.running_var", self.key), mix(&self.running_var, variance));
        pass.count(format!("{}.num_batches_tracked", self.key));
    }
}
