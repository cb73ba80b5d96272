//! Dense layers and normalisation with hand-written backward passes, on flat parameter vectors.

use worldbench_kernels::gemm::Epilogue;
use worldbench_kernels::grad::{Operand, add_rows, gelu_backward as gelu_kernel, matmul};
use worldbench_kernels::ops;

use super::params::Linear;

/// `x W + b` for every row of `x` [rows, in].
pub fn forward(params: &[f32], layer: &Linear, x: &[f32]) -> Vec<f32> {
    let rows = x.len() / layer.inputs;
    let (inputs, outputs) = (layer.inputs, layer.outputs);
    let mut out = vec![0.0; rows * outputs]; // [rows, out]
    let (x, weight) = (Operand::normal(x, inputs), Operand::normal(&params[layer.weight.clone()], outputs));
    let bias = Epilogue::bias(&params[layer.bias.clone()]);
    matmul(rows, inputs, outputs, x, weight, &mut out, outputs, false, bias);
    out
}

/// Adds the weight and bias gradients; returns the gradient of `x`.
pub fn backward(params: &[f32], layer: &Linear, x: &[f32], grad: &[f32], grads: &mut [f32]) -> Vec<f32> {
    backward_weights(layer, x, grad, grads);
    let rows = x.len() / layer.inputs;
    let (inputs, outputs) = (layer.inputs, layer.outputs);
    let mut d_x = vec![0.0; x.len()];
    let (grad, weight) =
        (Operand::normal(grad, outputs), Operand::transposed(&params[layer.weight.clone()], outputs));
    matmul(rows, outputs, inputs, grad, weight, &mut d_x, inputs, false, Epilogue::NONE);
    d_x
}

/// Adds the weight and bias gradients only.
pub fn backward_weights(layer: &Linear, x: &[f32], grad: &[f32], grads: &mut [f32]) {
    let rows = x.len() / layer.inputs;
    let (inputs, outputs) = (layer.inputs, layer.outputs);
    add_rows(grad, &mut grads[layer.bias.clone()]);
    let (x, grad) = (Operand::transposed(x, inputs), Operand::normal(grad, outputs));
    let d_weight = &mut grads[layer.weight.clone()];
    matmul(inputs, rows, outputs, x, grad, d_weight, outputs, true, Epilogue::NONE);
}

/// GELU (exact) of every element.
pub fn gelu(x: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    ops::gelu(x, &mut out);
    out
}

/// Gradient of the input of [`gelu`].
pub fn gelu_backward(pre: &[f32], grad: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; pre.len()];
    gelu_kernel(pre, grad, &mut out);
    out
}

/// Rows normalised to zero mean and unit variance (no affine part), with what the backward pass needs.
pub struct LayerNormTape {
    /// [rows, W]
    pub normalised: Vec<f32>,
    inverse_std: Vec<f32>,
}

impl LayerNormTape {
    /// Normalises every row of `x` [rows, width].
    pub fn forward(x: &[f32], width: usize) -> Self {
        let mut normalised = x.to_vec();
        let scale = 1.0 / width as f32;
        let inverse_std = normalised
            .chunks_exact_mut(width)
            .map(|row| {
                let mean = row.iter().sum::<f32>() * scale;
                let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() * scale;
                let inverse = 1.0 / (variance + 1e-5).sqrt();
                row.iter_mut().for_each(|v| *v = (*v - mean) * inverse);
                inverse
            })
            .collect();
        Self { normalised, inverse_std }
    }

    /// Gradient of the input.
    pub fn backward(&self, grad: &[f32]) -> Vec<f32> {
        let width = grad.len() / self.inverse_std.len();
        let scale = 1.0 / width as f32;
        let mut out = grad.to_vec();
        let rows =
            out.chunks_exact_mut(width).zip(self.normalised.chunks_exact(width)).zip(&self.inverse_std);
        for ((d, u), inverse) in rows {
            let mean = d.iter().sum::<f32>() * scale;
            let along = d.iter().zip(u).map(|(d, u)| d * u).sum::<f32>() * scale;
            d.iter_mut().zip(u).for_each(|(d, u)| *d = (*d - mean - u * along) * inverse);
        }
        out
    }
}
