//! Packed layers read from a checkpoint.

use worldbench_kernels::gemm::{Activation, Epilogue, PackedMatrix, Precision, gemm};
use worldbench_kernels::{Buffer, ops};
use worldbench_nn::Params;

use super::Error;

/// Padding between rows of wide activations, in values: a stride that is a power of two would put the rows of a
/// register tile into one cache set.
pub(crate) const PAD: usize = 16;

/// Row-major tensors by checkpoint key.
pub(crate) trait Tensors {
    /// The values of `key`.
    fn tensor(&self, key: &str) -> Option<&[f32]>;
}

impl Tensors for Params {
    fn tensor(&self, key: &str) -> Option<&[f32]> {
        self.get(key)
    }
}

/// Reads tensors of known size by key.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(pub &'a dyn Tensors);

impl<'a> Reader<'a> {
    /// The values of `key`, of which there must be `len`.
    pub fn get(self, key: &str, len: usize) -> Result<&'a [f32], Error> {
        let fail = |problem| Error::Parameter { key: key.to_owned(), problem };
        let values = self.0.tensor(key).ok_or_else(|| fail("is missing".to_owned()))?;
        if values.len() == len {
            return Ok(values);
        }
        Err(fail(format!("has {} values, the model needs {len}", values.len())))
    }
}

/// A linear layer.
#[derive(Clone, Debug)]
pub(crate) struct Dense {
    weight: PackedMatrix,
    bias: Option<Vec<f32>>,
}

impl Dense {
    /// `{key}.weight` `[outputs, inputs]` and `{key}.bias`.
    pub fn new(reader: Reader, key: &str, inputs: usize, outputs: usize) -> Result<Self, Error> {
        let weight = reader.get(&format!("{key}.weight"), inputs * outputs)?;
        let bias = reader.get(&format!("{key}.bias"), outputs)?;
        Ok(Self::from_parts(weight, Some(bias.to_vec()), inputs, outputs))
    }

    /// The layers `parts` below `key`, which share their input, side by side; each has `width` inputs and outputs.
    pub fn joint(reader: Reader, key: &str, parts: [&str; 3], width: usize) -> Result<Self, Error> {
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for part in parts.map(|part| format!("{key}.{part}")) {
            weight.extend_from_slice(reader.get(&format!("{part}.weight"), width * width)?);
            bias.extend_from_slice(reader.get(&format!("{part}.bias"), width)?);
        }
        Ok(Self::from_parts(&weight, Some(bias), width, 3 * width))
    }

    /// [`Self::new`] with each output times a factor `scale` `[outputs]`, folded into weight and bias.
    pub fn scaled(
        reader: Reader,
        key: &str,
        inputs: usize,
        outputs: usize,
        scale: &[f32],
    ) -> Result<Self, Error> {
        let mut weight = reader.get(&format!("{key}.weight"), inputs * outputs)?.to_vec();
        let mut bias = reader.get(&format!("{key}.bias"), outputs)?.to_vec();
        for ((row, bias), &scale) in weight.chunks_exact_mut(inputs).zip(&mut bias).zip(scale) {
            row.iter_mut().for_each(|w| *w *= scale);
            *bias *= scale;
        }
        Ok(Self::from_parts(&weight, Some(bias), inputs, outputs))
    }

    /// From a weight `[outputs, inputs]`.
    pub fn from_parts(weight: &[f32], bias: Option<Vec<f32>>, inputs: usize, outputs: usize) -> Self {
        Self { weight: PackedMatrix::from_out_in(weight, inputs, outputs), bias }
    }

    /// From a weight `[inputs, outputs]`, without a bias.
    pub fn from_in_out(weight: &[f32], inputs: usize, outputs: usize) -> Self {
        Self { weight: PackedMatrix::from_in_out(weight, inputs, outputs), bias: None }
    }

    pub fn inputs(&self) -> usize {
        self.weight.k()
    }

    pub fn outputs(&self) -> usize {
        self.weight.n()
    }

    /// Memory that it takes, in units of f32.
    pub fn len(&self) -> usize {
        self.weight.bytes() / size_of::<f32>() + self.bias.as_ref().map_or(0, Vec::len)
    }

    /// Rounds the weights for products in `precision`.
    pub fn set_precision(&mut self, precision: Precision) {
        self.weight = std::mem::take(&mut self.weight).in_precision(precision);
    }

    /// Bias, then `activation`.
    pub fn epilogue(&self, activation: Activation) -> Epilogue<'_> {
        Epilogue { bias: self.bias.as_deref(), ..Epilogue::NONE }.activate(activation)
    }

    /// `rows` rows of `x`, `x_stride` apart, to rows of `out`, `out_stride` apart.
    pub fn run(
        &self,
        rows: usize,
        (x, x_stride): (&[f32], usize),
        (out, out_stride): (&mut [f32], usize),
        epilogue: Epilogue,
    ) {
        gemm(rows, x, x_stride, &self.weight, out, out_stride, epilogue);
    }

    /// Contiguous rows through the layer and `activation`.
    pub fn apply(&self, rows: usize, x: &[f32], out: &mut [f32], activation: Activation) {
        self.run(rows, (x, self.inputs()), (out, self.outputs()), self.epilogue(activation));
    }
}

/// Affine layer normalisation.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl Norm {
    /// `{key}.weight` and `{key}.bias`.
    pub fn new(reader: Reader, key: &str, width: usize, eps: f32) -> Result<Self, Error> {
        let read = |name: &str| Ok::<_, Error>(reader.get(&format!("{key}.{name}"), width)?.to_vec());
        Ok(Self { weight: read("weight")?, bias: read("bias")?, eps })
    }

    pub fn len(&self) -> usize {
        2 * self.weight.len()
    }

    /// The small number under its root, weight and bias.
    pub fn parts(&self) -> (f32, (&[f32], &[f32])) {
        (self.eps, (&self.weight, &self.bias))
    }

    /// Rows of `x` to rows of `out`.
    pub fn apply(&self, x: &[f32], out: &mut [f32]) {
        ops::layer_norm(x, self.weight.len(), self.eps, Some((&self.weight, &self.bias)), out);
    }
}

/// Linear, batch normalisation with running statistics (folded in), GELU, linear.
#[derive(Clone, Debug)]
pub(crate) struct Projector {
    input: Dense,
    output: Dense,
}

impl Projector {
    const EPS: f64 = 1e-5;

    /// `{key}.net.0`, `.1` and `.3`; inputs and outputs have `width` values.
    pub fn new(reader: Reader, key: &str, width: usize, hidden: usize) -> Result<Self, Error> {
        let read = |name: &str, len| reader.get(&format!("{key}.net.{name}"), len);
        let mut weight = read("0.weight", width * hidden)?.to_vec();
        let mut bias = read("0.bias", hidden)?.to_vec();
        let (gamma, beta) = (read("1.weight", hidden)?, read("1.bias", hidden)?);
        let (mean, variance) = (read("1.running_mean", hidden)?, read("1.running_var", hidden)?);
        for (i, row) in weight.chunks_exact_mut(width).enumerate() {
            let scale = f64::from(gamma[i]) / (f64::from(variance[i]) + Self::EPS).sqrt();
            row.iter_mut().for_each(|w| *w = (f64::from(*w) * scale) as f32);
            bias[i] = ((f64::from(bias[i]) - f64::from(mean[i])) * scale + f64::from(beta[i])) as f32;
        }
        let input = Dense::from_parts(&weight, Some(bias), width, hidden);
        Ok(Self { input, output: Dense::new(reader, &format!("{key}.net.3"), hidden, width)? })
    }

    pub fn len(&self) -> usize {
        self.input.len() + self.output.len()
    }

    /// Rounds the weights for products in `precision`.
    pub fn set_precision(&mut self, precision: Precision) {
        self.input.set_precision(precision);
        self.output.set_precision(precision);
    }

    /// `rows` rows `[width]` of `x` to rows of `out`.
    pub fn apply(&self, rows: usize, x: &[f32], hidden: &mut Buffer, out: &mut [f32]) {
        let (width, stride) = (self.input.inputs(), self.input.outputs() + PAD);
        let hidden = hidden.reserve(rows * stride);
        self.input.run(rows, (x, width), (hidden, stride), self.input.epilogue(Activation::Gelu));
        self.output.run(rows, (hidden, stride), (out, width), self.output.epilogue(Activation::Identity));
    }
}
