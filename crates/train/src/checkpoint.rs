//! Checkpoint directories.
//!
//! `model.safetensors` and `config.toml` are all that evaluation needs; what a run needs to go on is added by
//! [`crate::resume`]. Every file is written under a temporary name, synced and renamed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::TrainError;

/// A tensor to write.
pub struct Tensor<'a> {
    /// Checkpoint key.
    pub key: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub values: &'a [f32],
    /// Whole numbers, written as i64 (the counters of BatchNorm).
    pub integer: bool,
}

/// Tensors read: key to (shape, values).
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Writes `bytes` to `path` in one rename.
///
/// # Errors
/// When the file cannot be written.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let temporary = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The rename itself is on disk only when the directory is; systems that cannot sync one do without.
        if let Some(directory) = path.parent().and_then(|parent| fs::File::open(parent).ok()) {
            let _ = directory.sync_all();
        }
        Ok(())
    };
    write().map_err(TrainError::io(path))
}

/// CRC-32 of a file as eight hex digits: names the weights that a score belongs to.
///
/// # Errors
/// When it cannot be read.
pub fn file_hash(path: &Path) -> Result<String, TrainError> {
    Ok(format!("{:08x}", crc32fast::hash(&fs::read(path).map_err(TrainError::io(path))?)))
}

/// Writes tensors as safetensors; `step` is stored in the file's metadata.
///
/// # Errors
/// When the file cannot be written.
pub fn write_tensors(path: &Path, tensors: &[Tensor], step: u64) -> Result<(), TrainError> {
    let problem = |e: String| TrainError::Checkpoint { path: path.into(), problem: e };
    let encode = |t: &Tensor| match t.integer {
        true => t.values.iter().flat_map(|&v| (v as i64).to_le_bytes()).collect(),
        false => t.values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    };
    let bytes: Vec<Vec<u8>> = tensors.iter().map(encode).collect();
    let mut views = Vec::new();
    for (tensor, bytes) in tensors.iter().zip(&bytes) {
        let dtype = if tensor.integer { Dtype::I64 } else { Dtype::F32 };
        let view = TensorView::new(dtype, tensor.shape.clone(), bytes).map_err(|e| problem(e.to_string()))?;
        views.push((tensor.key.clone(), view));
    }
    let metadata = [("step".to_string(), step.to_string())].into();
    let file = safetensors::serialize(views, Some(metadata)).map_err(|e| problem(e.to_string()))?;
    write_atomic(path, &file)
}

/// Writes the tensors of the safetensors file `from` to `to` with matrices as f16, about half as large; vectors, which
/// hold statistics and scales, stay f32. Returns the bytes written.
///
/// # Errors
/// When a file cannot be read or written, or a value is too large for f16.
pub fn write_half(from: &Path, to: &Path) -> Result<u64, TrainError> {
    let (tensors, step) = read_tensors(from)?;
    let problem = |e: String| TrainError::Checkpoint { path: from.into(), problem: e };
    let mut encoded = Vec::new();
    for (key, (shape, values)) in tensors {
        let (dtype, bytes): (_, Vec<u8>) = if shape.len() < 2 {
            (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
        } else {
            let halves: Vec<half::f16> = values.iter().map(|&v| half::f16::from_f32(v)).collect();
            if halves.iter().any(|v| !v.is_finite()) {
                return Err(problem(format!("`{key}` holds values beyond f16; export without --half")));
            }
            (Dtype::F16, halves.iter().flat_map(|v| v.to_le_bytes()).collect())
        };
        encoded.push((key, shape, dtype, bytes));
    }
    let mut views = Vec::new();
    for (key, shape, dtype, bytes) in &encoded {
        let view = TensorView::new(*dtype, shape.clone(), bytes).map_err(|e| problem(e.to_string()))?;
        views.push((key.clone(), view));
    }
    let metadata = [("step".to_string(), step.to_string())].into();
    let file = safetensors::serialize(views, Some(metadata)).map_err(|e| problem(e.to_string()))?;
    write_atomic(to, &file)?;
    Ok(file.len() as u64)
}

/// Reads a safetensors file of f32 (f16 and i64 are converted) tensors and the step it was written at.
///
/// # Errors
/// When it cannot be read or is damaged.
pub fn read_tensors(path: &Path) -> Result<(Tensors, u64), TrainError> {
    let bytes = fs::read(path).map_err(TrainError::io(path))?;
    let problem = |e: String| TrainError::Checkpoint {
        path: path.into(),
        problem: format!("{e}; the file is damaged or no safetensors file: export or train it again"),
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| problem(e.to_string()))?;
    let step =
        header.metadata().as_ref().and_then(|m| m.get("step")).and_then(|s| s.parse().ok()).unwrap_or(0);
    let file = SafeTensors::deserialize(&bytes).map_err(|e| problem(e.to_string()))?;
    let mut tensors = Tensors::new();
    for (key, view) in file.tensors() {
        let values = match view.dtype() {
            Dtype::F32 => view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::F16 => {
                view.data().as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()
            }
            Dtype::I64 => {
                view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect()
            }
            other => return Err(problem(format!("`{key}` is {other:?}, not F32 or F16"))),
        };
        tensors.insert(key, (view.shape().to_vec(), values));
    }
    Ok((tensors, step))
}

/// Takes `wanted` (key, shape) out of `tensors` into `put`, strictly: every key must be there in its shape and no
/// other may be. Returns a line such as `31/31 tensors`.
///
/// # Errors
/// Names every missing, unexpected and misshapen key.
pub fn assign(
    path: &Path,
    mut tensors: Tensors,
    wanted: &[(String, Vec<usize>)],
    mut put: impl FnMut(usize, Vec<f32>),
) -> Result<String, TrainError> {
    let mut wrong = Vec::new();
    let mut found = Vec::new();
    for (key, shape) in wanted {
        match tensors.remove(key) {
            None => wrong.push(format!("`{key}` is missing")),
            Some((other, _)) if other != *shape => {
                wrong.push(format!("`{key}` is {other:?}, the model has {shape:?}"))
            }
            Some((_, values)) => found.push(values),
        }
    }
    wrong.extend(tensors.keys().map(|key| format!("`{key}` is unknown to the model")));
    if !wrong.is_empty() {
        let problem = format!(
            "{}/{} tensors fit; {}; the configuration does not belong to these weights",
            found.len(),
            wanted.len(),
            wrong.join(", ")
        );
        return Err(TrainError::Checkpoint { path: path.into(), problem });
    }
    let report = format!("{0}/{0} tensors", wanted.len());
    found.into_iter().enumerate().for_each(|(i, values)| put(i, values));
    Ok(report)
}
