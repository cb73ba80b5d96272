//! All parameters of a compact model in one flat vector, addressed by name.
//!
//! One vector makes the optimiser a single pass, a checkpoint a single copy, and gradients of several threads
//! a single sum.

use std::ops::Range;

use worldbench_core::Stream;

/// Where one named tensor lies in the flat vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Key in the checkpoint.
    pub name: String,
    /// Shape; linear and convolution weights are (in, out).
    pub shape: Vec<usize>,
    /// Elements in the flat vector.
    pub range: Range<usize>,
    /// Standard deviation of the initial values (0: constant).
    scale: f32,
    /// Constant added to the initial values.
    offset: f32,
}

/// Table of the tensors of one model, in the order they were declared.
#[derive(Clone, Debug, Default)]
pub struct ParamTable {
    params: Vec<Param>,
    len: usize,
}

impl ParamTable {
    /// Declares a tensor with N(offset, scale^2) initial values and returns its place.
    pub fn declare(&mut self, name: String, shape: &[usize], scale: f32, offset: f32) -> Range<usize> {
        let range = self.len..self.len + shape.iter().product::<usize>();
        self.len = range.end;
        self.params.push(Param { name, shape: shape.to_vec(), range: range.clone(), scale, offset });
        range
    }

    /// All tensors.
    #[must_use]
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Length of the flat vector.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True before anything was declared.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Initial values, each tensor from its own stream so that adding one changes no other.
    #[must_use]
    pub fn init(&self, seed: u64) -> Vec<f32> {
        let mut values = vec![0.0; self.len];
        for param in &self.params {
            let slice = &mut values[param.range.clone()];
            if param.scale > 0.0 {
                Stream::new(seed, &param.name, &[]).fill_normal(slice);
            }
            slice.iter_mut().for_each(|v| *v = *v * param.scale + param.offset);
        }
        values
    }
}

/// A dense layer: weight (in, out) and bias (out).
#[derive(Clone, Debug)]
pub struct Linear {
    /// Place of the weight.
    pub weight: Range<usize>,
    /// Place of the bias.
    pub bias: Range<usize>,
    /// Input width.
    pub inputs: usize,
    /// Output width.
    pub outputs: usize,
}

impl Linear {
    /// Declares `name.weight` and `name.bias`; the weight starts at N(0, gain^2 / in), the bias at 0.
    pub fn declare(table: &mut ParamTable, name: &str, inputs: usize, outputs: usize, gain: f32) -> Self {
        let scale = gain / (inputs as f32).sqrt();
        let weight = table.declare(format!("{name}.weight"), &[inputs, outputs], scale, 0.0);
        let bias = table.declare(format!("{name}.bias"), &[outputs], 0.0, 0.0);
        Self { weight, bias, inputs, outputs }
    }
}

/// Scale and shift of a normalisation layer.
#[derive(Clone, Debug)]
pub struct Affine {
    /// Place of the scale.
    pub weight: Range<usize>,
    /// Place of the shift.
    pub bias: Range<usize>,
}

impl Affine {
    /// Declares `name.weight` (ones) and `name.bias` (zeros).
    pub fn declare(table: &mut ParamTable, name: &str, width: usize) -> Self {
        let weight = table.declare(format!("{name}.weight"), &[width], 0.0, 1.0);
        let bias = table.declare(format!("{name}.bias"), &[width], 0.0, 0.0);
        Self { weight, bias }
    }
}
