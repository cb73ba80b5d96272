//! Checkpoint directories.
//!
//! `model.safetensors` and `config.toml` are all that evaluation needs; what a run needs to go on is added by
//! [`crate::resume`]. Every file is written under a temporary name, synced and renamed.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write as _;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};

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

/// Writes tensors as safetensors; `step` and a checksum are stored in the file's metadata.
///
/// # Errors
/// When the file cannot be written.
pub fn write_tensors(path: &Path, tensors: &[Tensor], step: u64) -> Result<(), TrainError> {
    let encode = |t: &Tensor| {
        let (dtype, bytes) = match t.integer {
            true => (Dtype::I64, t.values.iter().flat_map(|&v| (v as i64).to_le_bytes()).collect()),
            false => (Dtype::F32, t.values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        };
        (t.key.clone(), (t.shape.clone(), dtype, bytes))
    };
    write_encoded(path, &tensors.iter().map(encode).collect(), step).map(|_| ())
}

/// Writes the tensors of the safetensors file `from` to `to` with matrices as f16, about half as large; vectors, which
/// hold statistics and scales, stay f32. A file that holds them already is left as it is, since scores are of its very
/// bytes. Returns its length.
///
/// # Errors
/// When a file cannot be read or written, or a value is too large for f16.
pub fn write_half(from: &Path, to: &Path) -> Result<u64, TrainError> {
    let (tensors, step) = read_tensors(from)?;
    let mut encoded = Encoded::new();
    for (key, (shape, values)) in tensors {
        let (dtype, bytes): (_, Vec<u8>) = if shape.len() < 2 {
            (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
        } else {
            let halves: Vec<half::f16> = values.iter().map(|&v| half::f16::from_f32(v)).collect();
            if halves.iter().any(|v| !v.is_finite()) {
                let problem = format!("`{key}` holds values beyond f16; export without --half");
                return Err(TrainError::Checkpoint { path: from.into(), problem });
            }
            (Dtype::F16, halves.iter().flat_map(|v| v.to_le_bytes()).collect())
        };
        encoded.insert(key, (shape, dtype, bytes));
    }
    match fs::read(to) {
        Ok(bytes) if holds(&bytes, &encoded) => Ok(bytes.len() as u64),
        _ => write_encoded(to, &encoded, step),
    }
}

/// Whether the file `bytes` holds these tensors and no others.
fn holds(bytes: &[u8], tensors: &Encoded) -> bool {
    SafeTensors::deserialize(bytes).is_ok_and(|file| {
        let same = |(key, (shape, dtype, bytes)): (&String, &(Vec<usize>, Dtype, Vec<u8>))| {
            file.tensor(key).is_ok_and(|view| {
                (view.shape(), view.dtype(), view.data()) == (shape.as_slice(), *dtype, bytes.as_slice())
            })
        };
        file.len() == tensors.len() && tensors.iter().all(same)
    })
}

/// Tensors as they stand in a file: key to (shape, type, bytes).
type Encoded = BTreeMap<String, (Vec<usize>, Dtype, Vec<u8>)>;

/// Key of the metadata. One entry: the crate writes several in random order, and equal weights must be equal files.
const STAMP: &str = "worldbench";

fn write_encoded(path: &Path, tensors: &Encoded, step: u64) -> Result<u64, TrainError> {
    let problem = |e: SafeTensorError| TrainError::Checkpoint { path: path.into(), problem: e.to_string() };
    let views = tensors.iter().map(|(key, (shape, dtype, bytes))| {
        Ok((key, TensorView::new(*dtype, shape.clone(), bytes).map_err(problem)?))
    });
    let views = views.collect::<Result<Vec<_>, TrainError>>()?;
    let checksum = checksum(tensors.iter().map(|(key, (_, _, bytes))| (key.as_str(), bytes.as_slice())));
    let stamp = (STAMP.to_string(), format!("step={step} crc32={checksum:08x}"));
    let file = safetensors::serialize(views, Some([stamp].into())).map_err(problem)?;
    write_atomic(path, &file)?;
    Ok(file.len() as u64)
}

/// Over keys and bytes, in the order of the keys.
fn checksum<'a>(tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    tensors.for_each(|(key, bytes)| {
        hasher.update(key.as_bytes());
        hasher.update(bytes);
    });
    hasher.finalize()
}

/// Step and checksum of a file's metadata; 0 and none where they were not written.
fn stamp(metadata: Option<&HashMap<String, String>>) -> (u64, Option<u32>) {
    let entry = |key: &str| metadata.and_then(|entries| entries.get(key));
    let parts = entry(STAMP).and_then(|text| text.strip_prefix("step=")?.split_once(" crc32="));
    match parts {
        Some((step, crc)) => (step.parse().unwrap_or(0), u32::from_str_radix(crc, 16).ok()),
        // Files of earlier versions.
        None => (entry("step").and_then(|step| step.parse().ok()).unwrap_or(0), None),
    }
}

/// Reads a safetensors file of f32 (f16 and i64 are converted) tensors and the step it was written at.
///
/// # Errors
/// When it cannot be read, is damaged, or holds values that are not finite.
pub fn read_tensors(path: &Path) -> Result<(Tensors, u64), TrainError> {
    let bytes = fs::read(path).map_err(TrainError::io(path))?;
    let problem = |e: String| TrainError::Checkpoint {
        path: path.into(),
        problem: format!("{e}; the file is damaged or no safetensors file: export or train it again"),
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| problem(e.to_string()))?;
    let (step, written) = stamp(header.metadata().as_ref());
    let file = SafeTensors::deserialize(&bytes).map_err(|e| problem(e.to_string()))?;
    let views: BTreeMap<String, TensorView> = file.tensors().into_iter().collect();
    let found = checksum(views.iter().map(|(key, view)| (key.as_str(), view.data())));
    if written.is_some_and(|written| written != found) {
        return Err(problem("it fails its checksum".into()));
    }
    let mut tensors = Tensors::new();
    for (key, view) in views {
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::F16 => {
                view.data().as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()
            }
            Dtype::I64 => {
                view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect()
            }
            other => return Err(problem(format!("`{key}` is {other:?}, not F32 or F16"))),
        };
        if values.iter().any(|value| !value.is_finite()) {
            return Err(problem(format!("`{key}` holds values that are not finite")));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_and_values_that_are_not_finite_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let write = |values: &[f32]| {
            let tensor = |key: &str, integer| Tensor { key: key.into(), shape: vec![2], values, integer };
            write_tensors(&path, &[tensor("b", false), tensor("a", true)], 7).unwrap();
        };
        write(&[1.0, 2.0]);
        let bytes = fs::read(&path).unwrap();
        let (tensors, step) = read_tensors(&path).unwrap();
        assert_eq!((step, &tensors["b"].1[..], &tensors["a"].1[..]), (7, &[1.0, 2.0][..], &[1.0, 2.0][..]));
        write(&[1.0, 2.0]);
        assert_eq!(fs::read(&path).unwrap(), bytes);

        // Equal weights under another header, as earlier versions wrote it, keep their bytes.
        let half = dir.path().join("half.safetensors");
        write_half(&path, &half).unwrap();
        let values: Vec<u8> = [1.0f32, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = || TensorView::new(Dtype::F32, vec![2], &values).unwrap();
        let older = safetensors::serialize([("a", view()), ("b", view())], None).unwrap();
        fs::write(&half, &older).unwrap();
        write_half(&path, &half).unwrap();
        assert_eq!(fs::read(&half).unwrap(), older);
        write(&[1.0, 3.0]);
        write_half(&path, &half).unwrap();
        assert_ne!(fs::read(&half).unwrap(), older);

        let mut flipped = bytes.clone();
        *flipped.last_mut().unwrap() ^= 1;
        fs::write(&path, flipped).unwrap();
        assert!(read_tensors(&path).unwrap_err().to_string().contains("checksum"));
        write(&[1.0, f32::NAN]);
        assert!(
            read_tensors(&path).unwrap_err().to_string().contains("`b` holds values that are not finite")
        );
    }
}
