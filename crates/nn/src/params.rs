//! Named parameters in one flat buffer, and the scope that declares or binds them.

use std::collections::HashMap;
use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use worldbench_core::Stream;

use crate::Error;

/// How a parameter is initialised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Every value equal to this.
    Constant(f32),
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
    /// Uniform in plus or minus this bound.
    Uniform(f32),
}

impl Init {
    /// PyTorch's default for linear and convolution weights and biases: uniform within `1/sqrt(fan_in)`.
    #[must_use]
    pub fn fan_in(fan_in: usize) -> Self {
        Self::Uniform(1.0 / (fan_in as f32).sqrt())
    }
}

/// What a named tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Updated by the optimiser.
    Trainable,
    /// State updated by forward passes (running statistics).
    Buffer,
    /// A whole number counted up by forward passes; an `i64` scalar in weight files.
    Counter,
}

/// One named tensor of a [`Params`].
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Checkpoint key.
    pub key: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// Trainable, buffer or counter.
    pub kind: Kind,
    /// Where its values lie: in [`Params::values`] if trainable, else in [`Params::buffers`].
    pub range: Range<usize>,
}

/// All parameters and buffers of a model as flat host memory, in declaration order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params {
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
    /// Trainable values, one tensor after the other.
    pub values: Vec<f32>,
    /// Buffers and counters, one tensor after the other.
    pub buffers: Vec<f32>,
}

impl Params {
    /// Declares and initialises the parameters that `build` asks for; every tensor has its own random stream
    /// under `seed` and its key, so adding a layer changes no other layer's start.
    pub fn init<M>(seed: u64, build: impl FnOnce(&mut Scope) -> M) -> Self {
        let mut params = Self::default();
        let device = Device::flex();
        let mut scope =
            Scope { source: Source::Declare(&mut params, seed), device, leaves: vec![], error: None };
        build(&mut scope);
        params
    }

    /// Declares the tensors of `other` behind its own; a network that is bound need not ask for them.
    pub fn extend(&mut self, other: &Self) {
        for Entry { key, shape, kind, .. } in &other.entries {
            self.push(key, shape, *kind, other.get(key).unwrap_or_default());
        }
    }

    /// Declares one more tensor with the given values; a network that is bound need not ask for it.
    pub fn push(&mut self, key: &str, shape: &[usize], kind: Kind, values: &[f32]) {
        self.declare(key, shape, kind, Init::Constant(0.0), 0);
        if let Some(slot) = self.get_mut(key) {
            slot.copy_from_slice(values);
        }
    }

    /// Puts the parameters on `device` and builds the model from them. On a device with differentiation every
    /// trainable tensor is a leaf whose gradient [`Leaves::gradients`] reads.
    ///
    /// # Errors
    /// `build` asks for a key or shape that was not declared.
    pub fn bind<M>(
        &self,
        device: &Device,
        build: impl FnOnce(&mut Scope) -> M,
    ) -> Result<(M, Leaves), Error> {
        self.bound(device, device.is_autodiff(), build)
    }

    /// As [`Params::bind`] with constants in place of leaves: gradients flow through the model to its inputs, not into
    /// its parameters. For target networks, and for a network that another one is trained against.
    ///
    /// # Errors
    /// As for [`Params::bind`].
    pub fn bind_frozen<M>(&self, device: &Device, build: impl FnOnce(&mut Scope) -> M) -> Result<M, Error> {
        self.bound(device, false, build).map(|(model, _)| model)
    }

    fn bound<M>(
        &self,
        device: &Device,
        differentiable: bool,
        build: impl FnOnce(&mut Scope) -> M,
    ) -> Result<(M, Leaves), Error> {
        let leaves = vec![None; self.entries.len()];
        let source = Source::Bind { params: self, differentiable };
        let mut scope = Scope { source, device: device.clone(), leaves, error: None };
        let model = build(&mut scope);
        match scope.error {
            Some(error) => Err(error),
            None => {
                Ok((model, Leaves { ranges: self.ranges(), leaves: scope.leaves, len: self.values.len() }))
            }
        }
    }

    /// The named tensors in declaration order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry called `key`.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.index.get(key).map(|&i| &self.entries[i])
    }

    /// The values called `key`, row-major.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[f32]> {
        let entry = self.entry(key)?;
        let store = if entry.kind == Kind::Trainable { &self.values } else { &self.buffers };
        store.get(entry.range.clone())
    }

    /// The values called `key`, row-major, for writing.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut [f32]> {
        let entry = &self.entries[*self.index.get(key)?];
        let store = if entry.kind == Kind::Trainable { &mut self.values } else { &mut self.buffers };
        store.get_mut(entry.range.clone())
    }

    /// Number of trainable values.
    #[must_use]
    pub fn count(&self) -> usize {
        self.values.len()
    }

    /// The span of [`Params::values`] that holds the trainable tensors whose key starts with `prefix`, which must
    /// have been declared one after the other; empty if there is none.
    #[must_use]
    pub fn group(&self, prefix: &str) -> Range<usize> {
        let mut members =
            self.entries.iter().filter(|e| e.kind == Kind::Trainable && e.key.starts_with(prefix));
        members.next().map_or(0..0, |first| {
            let end = members.next_back().map_or(first.range.end, |last| last.range.end);
            first.range.start..end
        })
    }

    fn ranges(&self) -> Vec<Range<usize>> {
        self.entries.iter().map(|e| e.range.clone()).collect()
    }

    fn declare(&mut self, key: &str, shape: &[usize], kind: Kind, init: Init, seed: u64) {
        let len: usize = shape.iter().product();
        let store = if kind == Kind::Trainable { &mut self.values } else { &mut self.buffers };
        let start = store.len();
        store.resize(start + len, 0.0);
        fill(&mut store[start..], init, &mut Stream::new(seed, key, &[]));
        self.index.insert(key.to_owned(), self.entries.len());
        let (key, shape) = (key.to_owned(), shape.to_vec());
        self.entries.push(Entry { key, shape, kind, range: start..start + len });
    }
}

fn fill(out: &mut [f32], init: Init, stream: &mut Stream) {
    match init {
        Init::Constant(value) => out.fill(value),
        Init::Normal(std) => {
            stream.fill_normal(out);
            out.iter_mut().for_each(|v| *v *= std);
        }
        Init::Uniform(bound) => {
            let bound = f64::from(bound);
            out.iter_mut().for_each(|v| *v = stream.uniform(-bound, bound) as f32);
        }
    }
}

enum Source<'a> {
    Declare(&'a mut Params, u64),
    Bind { params: &'a Params, differentiable: bool },
}

/// What a model's `build` function asks for its tensors.
pub struct Scope<'a> {
    source: Source<'a>,
    device: Device,
    leaves: Vec<Option<Tensor<1>>>,
    error: Option<Error>,
}

impl Scope<'_> {
    /// The trainable tensor `key`.
    pub fn param<const D: usize>(&mut self, key: &str, shape: [usize; D], init: Init) -> Tensor<D> {
        self.tensor(key, shape, Kind::Trainable, init)
    }

    /// The state tensor `key`, constant until a forward pass in training mode updates it.
    pub fn buffer<const D: usize>(&mut self, key: &str, shape: [usize; D], value: f32) -> Tensor<D> {
        self.tensor(key, shape, Kind::Buffer, Init::Constant(value))
    }

    /// Declares the counter `key`, from 0.
    pub fn counter(&mut self, key: &str) {
        self.tensor(key, [1], Kind::Counter, Init::Constant(0.0));
    }

    /// Where the tensors live.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    fn tensor<const D: usize>(&mut self, key: &str, shape: [usize; D], kind: Kind, init: Init) -> Tensor<D> {
        let (params, differentiable) = match &mut self.source {
            Source::Declare(params, seed) => {
                params.declare(key, &shape, kind, init, *seed);
                // Nobody computes with a model under declaration: the shape is all that matters.
                return Tensor::zeros(shape, &self.device);
            }
            Source::Bind { params, differentiable } => (*params, *differentiable),
        };
        let found = params.index.get(key).map(|&i| (i, &params.entries[i]));
        let Some((i, entry)) = found.filter(|(_, e)| e.shape == shape && e.kind == kind) else {
            let problem = format!("expected {kind:?} {shape:?}, found {:?}", found.map(|(_, e)| &e.shape));
            self.error.get_or_insert(Error::Parameter { key: key.to_owned(), problem });
            return Tensor::zeros(shape, &self.device);
        };
        let trainable = kind == Kind::Trainable;
        let store = if trainable { &params.values } else { &params.buffers };
        let values = store[entry.range.clone()].to_vec();
        let mut flat = Tensor::<1>::from_data(TensorData::new(values, [entry.range.len()]), &self.device);
        if trainable && differentiable {
            flat = flat.require_grad();
            self.leaves[i] = Some(flat.clone());
        }
        flat.reshape(shape)
    }
}

/// The differentiable tensors of a bound model.
pub struct Leaves {
    ranges: Vec<Range<usize>>,
    leaves: Vec<Option<Tensor<1>>>,
    len: usize,
}

impl Leaves {
    /// Runs the backward pass of the scalar `loss` and returns the gradient in the order of [`Params::values`],
    /// zero where the loss does not depend on a parameter.
    ///
    /// # Errors
    /// The device cannot deliver the values.
    pub fn gradients(&self, loss: &Tensor<1>) -> Result<Vec<f32>, Error> {
        self.gradients_with(loss, &[])
    }

    /// As [`Leaves::gradients`], with the gradients of `inputs` (leaves too) behind it, one after the other.
    ///
    /// # Errors
    /// As [`Leaves::gradients`].
    pub fn gradients_with(&self, loss: &Tensor<1>, inputs: &[Tensor<1>]) -> Result<Vec<f32>, Error> {
        let mut gradients = loss.backward();
        let mut flat = vec![0.0; self.len];
        let own =
            self.leaves.iter().zip(&self.ranges).filter_map(|(l, range)| Some((l.as_ref()?, range.clone())));
        let mut places: Vec<_> = own.collect();
        for input in inputs {
            let start = flat.len();
            flat.resize(start + input.dims()[0], 0.0);
            places.push((input, start..flat.len()));
        }
        for (leaf, range) in places {
            if let Some(gradient) = leaf.grad_remove(&mut gradients) {
                flat[range].copy_from_slice(&to_vec(gradient)?);
            }
        }
        Ok(flat)
    }
}

/// The values of a tensor, row-major.
///
/// # Errors
/// The device cannot deliver them.
pub fn to_vec<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, Error> {
    tensor.try_into_vec_as::<f32>().map_err(|e| Error::Read(format!("{e:?}")))
}

/// A tensor of the given shape from row-major values; a wrong length is the caller's bug and panics in Burn.
#[must_use]
pub fn from_vec<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(scope: &mut Scope) -> (Tensor<2>, Tensor<1>) {
        let weight = scope.param("layer.weight", [2, 3], Init::Normal(1.0));
        scope.counter("layer.steps");
        (weight, scope.param("idm.bias", [3], Init::Constant(0.5)))
    }

    #[test]
    fn gradients_come_back_in_declaration_order() {
        let params = Params::init(1, build);
        assert_eq!(params.count(), 9);
        assert_eq!(params.group("idm."), 6..9);
        let device = crate::device("cpu").unwrap();
        let ((weight, bias), leaves) = params.bind(&device, build).unwrap();
        let loss = (weight * 2.0).sum() + (bias * from_vec(vec![1.0, 2.0, 3.0], [3], &device)).sum();
        assert_eq!(leaves.gradients(&loss).unwrap(), [2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn a_model_of_another_shape_is_named() {
        let params = Params::init(1, build);
        let device = crate::device("cpu").unwrap();
        let other = |s: &mut Scope| s.param("layer.weight", [3, 3], Init::Constant(0.0));
        let error = params.bind(&device, other).err().unwrap().to_string();
        assert!(error.contains("layer.weight") && error.contains("[3, 3]"), "{error}");
    }
}
