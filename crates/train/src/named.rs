//! Parameters on Burn as the trainer and checkpoints see them.

use std::path::Path;

use worldbench_nn::params::Entry;
use worldbench_nn::{Kind, Params};

use crate::TrainError;
use crate::checkpoint::{self, Tensor, Tensors};

/// Shape in files, where counters are scalars.
fn shape(entry: &Entry) -> Vec<usize> {
    if entry.kind == Kind::Counter { vec![] } else { entry.shape.clone() }
}

/// Every tensor of `params` with its key.
pub(crate) fn tensors(params: &Params) -> Vec<Tensor<'_>> {
    let entries = params.entries().iter();
    let tensor = |e: &Entry| Tensor {
        key: e.key.clone(),
        shape: shape(e),
        values: params.get(&e.key).unwrap_or_default(),
        integer: e.kind == Kind::Counter,
    };
    entries.map(tensor).collect()
}

/// Takes the tensors whose keys are `wanted`; strict, see [`checkpoint::assign`].
pub(crate) fn restore(
    params: &mut Params,
    tensors: Tensors,
    wanted: impl Fn(&str) -> bool,
) -> Result<String, TrainError> {
    let entries = params.entries().iter().filter(|e| wanted(&e.key));
    let keys: Vec<_> = entries.map(|e| (e.key.clone(), shape(e))).collect();
    checkpoint::assign(Path::new("model.safetensors"), tensors, &keys, |i, values| {
        if let Some(slot) = params.get_mut(&keys[i].0) {
            slot.copy_from_slice(&values);
        }
    })
}
