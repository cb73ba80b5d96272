//! Operations with hand-written forward and backward passes on the CPU.
//!
//! Burn's Flex backend runs GELU, layer norm and attention several times slower than the machine allows. An
//! [`Operation`] replaces one such chain by kernels on contiguous slices. [`run`] records it in Burn's graph like
//! any operation of its own; on other devices it declines, and the caller composes plain tensor operations, which
//! the tests compare with the fused ones.

use std::fmt::Debug;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, DispatchDevice, Flex};
use burn::tensor::{Tensor, TensorData};
use worldbench_kernels::attention::{Attention, Mask};
use worldbench_kernels::gemm::Epilogue;
use worldbench_kernels::grad::{self, Operand};
use worldbench_kernels::{ops, par_rows_mut};

use crate::attention_grad;

/// Rows whose parameter gradients are summed together: fixed, so that threads change no bit.
const BLOCK: usize = 256;

/// A function of `N` contiguous arrays with a known gradient.
pub(crate) trait Operation<const N: usize>: Clone + Debug + Send + 'static {
    /// Values and shape of the output.
    fn forward(&self, inputs: [Array; N]) -> (Vec<f32>, Vec<usize>);

    /// Gradients of the inputs, row-major, from the gradient `dy` of the output; those not `wanted` may be empty.
    fn backward(&self, inputs: [Array; N], dy: &[f32], wanted: [bool; N]) -> [Vec<f32>; N];
}

/// One contiguous input.
#[derive(Clone, Copy)]
pub(crate) struct Array<'a> {
    pub values: &'a [f32],
    pub shape: &'a [usize],
}

impl Array<'_> {
    fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1).max(1)
    }
}

type Tracked = Autodiff<Flex>;

/// A tensor on the CPU, with or without a graph.
pub(crate) enum Input {
    Plain(FlexTensor),
    Tracked(FloatTensor<Tracked>),
}

/// `x` for [`run`], or `None` when it lives elsewhere.
pub(crate) fn input<const D: usize>(x: &Tensor<D>) -> Option<Input> {
    let device = x.device();
    if device.is_autodiff() {
        matches!(device.inner().as_dispatch(), DispatchDevice::Flex(_)).then_some(())?;
        x.clone().try_into_primitive::<Tracked>().ok().map(Input::Tracked)
    } else {
        matches!(device.as_dispatch(), DispatchDevice::Flex(_)).then_some(())?;
        x.clone().try_into_primitive::<Flex>().ok().map(Input::Plain)
    }
}

fn array(tensor: &FlexTensor) -> Array<'_> {
    Array { values: tensor.as_slice::<f32>().unwrap_or_default(), shape: tensor.layout().shape().as_slice() }
}

fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.to_vec()))
}

/// Runs `op`, or returns `None` when the inputs are not all on the CPU and all of one kind.
pub(crate) fn run<const D: usize, const N: usize, O: Operation<N>>(
    op: O,
    inputs: [Option<Input>; N],
) -> Option<Tensor<D>> {
    let (mut plain, mut nodes) = (Vec::with_capacity(N), Vec::with_capacity(N));
    for input in inputs {
        match input? {
            Input::Plain(tensor) => plain.push(tensor.to_contiguous()),
            Input::Tracked(tensor) => {
                let (primitive, node) = tensor.into_parts();
                plain.push(primitive.to_contiguous());
                nodes.push(node);
            }
        }
    }
    let inputs: [FlexTensor; N] = plain.try_into().ok()?;
    let evaluate = |inputs: &[FlexTensor; N]| {
        let (values, shape) = op.forward(inputs.each_ref().map(array));
        tensor(values, &shape)
    };
    if nodes.is_empty() {
        return Some(Tensor::from_primitive::<Flex>(evaluate(&inputs)));
    }
    let nodes = nodes.try_into().ok()?;
    let output = evaluate(&inputs);
    let step = Step::<N, O> { op };
    let output = match step.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(inputs, output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    };
    Some(Tensor::from_primitive::<Tracked>(output))
}

#[derive(Debug)]
struct Step<const N: usize, O> {
    op: O,
}

impl<const N: usize, O: Operation<N>> Backward<Flex, N> for Step<N, O> {
    type State = [FlexTensor; N];

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let inputs = ops.state.each_ref().map(array);
        let results = self.op.backward(inputs, array(&dy).values, wanted);
        for ((parent, values), input) in ops.parents.into_iter().zip(results).zip(inputs) {
            if let Some(parent) = parent {
                let id: NodeId = parent.id;
                grads.register::<Flex>(id, tensor(values, input.shape));
            }
        }
    }
}

/// Exact GELU.
#[derive(Clone, Debug)]
pub(crate) struct Gelu;

impl Operation<1> for Gelu {
    fn forward(&self, [x]: [Array; 1]) -> (Vec<f32>, Vec<usize>) {
        let mut y = vec![0.0; x.values.len()];
        let count = x.values.len();
        par_rows_mut(&mut y, count, 1, |range, y| ops::gelu(&x.values[range], y));
        (y, x.shape.to_vec())
    }

    fn backward(&self, [x]: [Array; 1], dy: &[f32], _: [bool; 1]) -> [Vec<f32>; 1] {
        let mut dx = vec![0.0; dy.len()];
        par_rows_mut(&mut dx, dy.len(), 1, |range, dx| {
            grad::gelu_backward(&x.values[range.clone()], &dy[range], dx);
        });
        [dx]
    }
}

/// Layer norm without affine part.
#[derive(Clone, Debug)]
pub(crate) struct Normalise {
    pub eps: f32,
}

impl Operation<1> for Normalise {
    fn forward(&self, [x]: [Array; 1]) -> (Vec<f32>, Vec<usize>) {
        (normalised(x, self.eps, None), x.shape.to_vec())
    }

    fn backward(&self, [x]: [Array; 1], dy: &[f32], _: [bool; 1]) -> [Vec<f32>; 1] {
        let [dx, _, _] = norm_gradients(x, dy, self.eps, None);
        [dx]
    }
}

/// Layer norm with weight and bias.
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm {
    pub eps: f32,
}

impl Operation<3> for LayerNorm {
    fn forward(&self, [x, weight, bias]: [Array; 3]) -> (Vec<f32>, Vec<usize>) {
        (normalised(x, self.eps, Some((weight.values, bias.values))), x.shape.to_vec())
    }

    fn backward(&self, [x, weight, _]: [Array; 3], dy: &[f32], _: [bool; 3]) -> [Vec<f32>; 3] {
        norm_gradients(x, dy, self.eps, Some(weight.values))
    }
}

fn normalised(x: Array, eps: f32, affine: Option<(&[f32], &[f32])>) -> Vec<f32> {
    let width = x.width();
    let mut y = vec![0.0; x.values.len()];
    par_rows_mut(&mut y, x.values.len() / width, width, |rows, y| {
        ops::layer_norm(&x.values[rows.start * width..rows.end * width], width, eps, affine, y);
    });
    y
}

/// Gradients of input, weight and bias; parameter gradients are summed per block of rows, then over blocks.
fn norm_gradients(x: Array, dy: &[f32], eps: f32, weight: Option<&[f32]>) -> [Vec<f32>; 3] {
    use rayon::prelude::*;
    let (width, affine) = (x.width(), if weight.is_some() { x.width() } else { 0 });
    let mut dx = vec![0.0; dy.len()];
    let size = BLOCK * width;
    let blocks = dx.par_chunks_mut(size).zip(x.values.par_chunks(size)).zip(dy.par_chunks(size));
    let parts: Vec<(Vec<f32>, Vec<f32>)> = blocks
        .map(|((dx, x), dy)| {
            let (mut dweight, mut dbias) = (vec![0.0; affine], vec![0.0; affine]);
            grad::layer_norm_backward(x, dy, width, eps, weight, dx, &mut dweight, &mut dbias);
            (dweight, dbias)
        })
        .collect();
    let (mut dweight, mut dbias) = (vec![0.0; affine], vec![0.0; affine]);
    for (weight, bias) in &parts {
        dweight.iter_mut().zip(weight).for_each(|(sum, v)| *sum += v);
        dbias.iter_mut().zip(bias).for_each(|(sum, v)| *sum += v);
    }
    [dx, dweight, dbias]
}

/// `x W^T + b` with `x` as `[.., in]` and `W` as (out, in).
#[derive(Clone, Debug)]
pub(crate) struct Linear;

impl Operation<3> for Linear {
    fn forward(&self, [x, weight, bias]: [Array; 3]) -> (Vec<f32>, Vec<usize>) {
        linear(x, weight, Epilogue::bias(bias.values))
    }

    fn backward(&self, [x, weight, bias]: [Array; 3], dy: &[f32], wanted: [bool; 3]) -> [Vec<f32>; 3] {
        let [dx, dweight] = linear_gradients(x, weight, dy, [wanted[0], wanted[1]]);
        let mut dbias = vec![];
        if wanted[2] {
            dbias = vec![0.0; bias.values.len()];
            grad::add_rows(dy, &mut dbias);
        }
        [dx, dweight, dbias]
    }
}

fn linear(x: Array, weight: Array, epilogue: Epilogue) -> (Vec<f32>, Vec<usize>) {
    let (inputs, outputs) = (x.width(), weight.shape[0]);
    let rows = x.values.len() / inputs;
    let mut y = vec![0.0; rows * outputs];
    let (a, b) = (Operand::normal(x.values, inputs), Operand::transposed(weight.values, inputs));
    grad::matmul(rows, inputs, outputs, a, b, &mut y, outputs, false, epilogue);
    let mut shape = x.shape.to_vec();
    if let Some(last) = shape.last_mut() {
        *last = outputs;
    }
    (y, shape)
}

/// Gradients of input and weight.
fn linear_gradients(x: Array, weight: Array, dy: &[f32], wanted: [bool; 2]) -> [Vec<f32>; 2] {
    let (inputs, outputs) = (x.width(), weight.shape[0]);
    let rows = x.values.len() / inputs;
    let product = |m, k, n, a, b| {
        let mut c = vec![0.0; m * n];
        grad::matmul(m, k, n, a, b, &mut c, n, false, Epilogue::NONE);
        c
    };
    let (mut dx, mut dweight) = (vec![], vec![]);
    if wanted[0] {
        let (a, b) = (Operand::normal(dy, outputs), Operand::normal(weight.values, inputs));
        dx = product(rows, outputs, inputs, a, b);
    }
    if wanted[1] {
        let (a, b) = (Operand::transposed(dy, outputs), Operand::normal(x.values, inputs));
        dweight = product(outputs, rows, inputs, a, b);
    }
    [dx, dweight]
}

/// `x W^T` with `x` as `[.., in]` and `W` as (out, in).
#[derive(Clone, Debug)]
pub(crate) struct LinearWithoutBias;

impl Operation<2> for LinearWithoutBias {
    fn forward(&self, [x, weight]: [Array; 2]) -> (Vec<f32>, Vec<usize>) {
        linear(x, weight, Epilogue::NONE)
    }

    fn backward(&self, [x, weight]: [Array; 2], dy: &[f32], wanted: [bool; 2]) -> [Vec<f32>; 2] {
        linear_gradients(x, weight, dy, wanted)
    }
}

/// Attention over `[B, T, heads * d]` queries and `[B, S, heads * d]` keys and values.
#[derive(Clone, Debug)]
pub(crate) struct Heads {
    pub heads: usize,
    pub mask: Mask,
}

impl Heads {
    /// The shape of one sequence's attention, `width` values a token.
    fn shape(&self, [queries, keys]: [usize; 2], width: usize) -> Attention {
        let (heads, dim) = (self.heads, width / self.heads);
        let scale = 1.0 / (dim as f32).sqrt();
        Attention { batch: 1, queries, keys, heads, dim, scale, mask: self.mask }
    }
}

impl Operation<3> for Heads {
    fn forward(&self, [q, k, v]: [Array; 3]) -> (Vec<f32>, Vec<usize>) {
        let (width, one) = (q.width(), self.shape([q.shape[1], k.shape[1]], q.width()));
        let mut out = vec![0.0; q.values.len()];
        par_rows_mut(&mut out, q.shape[0], one.queries * width, |range, out| {
            let [q, k, v] = [q, k, v].map(|x| {
                let size = x.shape[1] * width;
                &x.values[range.start * size..range.end * size]
            });
            let shape = Attention { batch: range.len(), ..one };
            shape.forward(q, width, k, v, width, out, width);
        });
        (out, q.shape.to_vec())
    }

    fn backward(&self, [q, k, v]: [Array; 3], dy: &[f32], _: [bool; 3]) -> [Vec<f32>; 3] {
        let one = self.shape([q.shape[1], k.shape[1]], q.width());
        attention_grad::backward(&one, q.shape[0], [q.values, k.values, v.values], dy)
    }
}

/// Attention over a joint projection `[B, T, 3 * heads * d]`: queries, keys, values.
#[derive(Clone, Debug)]
pub(crate) struct JointHeads(pub Heads);

impl Operation<1> for JointHeads {
    fn forward(&self, [qkv]: [Array; 1]) -> (Vec<f32>, Vec<usize>) {
        let [batch, tokens, stride] = [0, 1, 2].map(|axis| qkv.shape[axis]);
        let width = stride / 3;
        let one = self.0.shape([tokens; 2], width);
        let mut out = vec![0.0; batch * tokens * width];
        par_rows_mut(&mut out, batch, tokens * width, |range, out| {
            let shape = Attention { batch: range.len(), ..one };
            let qkv = &qkv.values[range.start * tokens * stride..range.end * tokens * stride];
            shape.forward(qkv, stride, &qkv[width..], &qkv[2 * width..], stride, out, width);
        });
        (out, vec![batch, tokens, width])
    }

    fn backward(&self, [qkv]: [Array; 1], dy: &[f32], _: [bool; 1]) -> [Vec<f32>; 1] {
        let one = self.0.shape([qkv.shape[1]; 2], qkv.width() / 3);
        [attention_grad::backward_joint(&one, qkv.values, dy)]
    }
}
