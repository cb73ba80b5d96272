//! Safetensors files: strict loading by key, atomic saving.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::{Error, Kind, Params};

/// One tensor of a file, widened to f64 (exact for every stored type but large `i64`).
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub values: Vec<f64>,
}

impl Array {
    /// The values as f32.
    #[must_use]
    pub fn f32(&self) -> Vec<f32> {
        self.values.iter().map(|&v| v as f32).collect()
    }
}

/// A whole file in memory, by key.
pub type Arrays = BTreeMap<String, Array>;

/// Reads every tensor of a safetensors file.
///
/// # Errors
/// The file cannot be read, is damaged, or holds an unsupported type.
pub fn read(path: &Path) -> Result<Arrays, Error> {
    let bytes = std::fs::read(path).map_err(|e| fail(path, e))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| fail(path, e))?;
    let convert = |(key, view): (String, TensorView)| {
        let values = widen(view.dtype(), view.data())
            .ok_or_else(|| fail(path, format!("tensor `{key}` has unsupported type {:?}", view.dtype())))?;
        Ok((key, Array { shape: view.shape().to_vec(), values }))
    };
    file.tensors().into_iter().map(convert).collect()
}

fn widen(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f64>> {
    fn each<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.as_chunks::<N>().0.iter().map(|&c| read(c)).collect()
    }
    Some(match dtype {
        Dtype::F64 => each(bytes, f64::from_le_bytes),
        Dtype::F32 => each(bytes, |b| f64::from(f32::from_le_bytes(b))),
        Dtype::BF16 => each(bytes, |b| f64::from(f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16))),
        Dtype::I64 => each(bytes, |b| i64::from_le_bytes(b) as f64),
        Dtype::I32 => each(bytes, |b| f64::from(i32::from_le_bytes(b))),
        Dtype::U8 | Dtype::BOOL => bytes.iter().map(|&b| f64::from(b)).collect(),
        _ => return None,
    })
}

/// Loads the tensors of `path` into `params`, for the keys that `wanted` accepts. Strict: every such key must be
/// there in the right shape, and the file may hold no other key. Returns a line such as `303/303 tensors`.
///
/// # Errors
/// The file cannot be read, or it does not fit; every missing, unexpected and misshapen key is named.
pub fn load(path: &Path, params: &mut Params, wanted: impl Fn(&str) -> bool) -> Result<String, Error> {
    let arrays = read(path)?;
    load_arrays(path, &arrays, params, wanted)
}

/// [`load`] from tensors already read; `path` only names the source in errors.
///
/// # Errors
/// As [`load`].
pub fn load_arrays(
    path: &Path,
    arrays: &Arrays,
    params: &mut Params,
    wanted: impl Fn(&str) -> bool,
) -> Result<String, Error> {
    let entries: Vec<_> = params.entries().iter().filter(|e| wanted(&e.key)).cloned().collect();
    let mut problems = Vec::new();
    for entry in &entries {
        let scalar: &[usize] = if entry.kind == Kind::Counter { &[] } else { &entry.shape };
        match arrays.get(&entry.key) {
            None => problems.push(format!("missing `{}` {:?}", entry.key, entry.shape)),
            Some(a) if a.shape != entry.shape && a.shape != scalar => problems.push(format!(
                "shape of `{}` is {:?}, the model needs {:?}",
                entry.key, a.shape, entry.shape
            )),
            Some(a) => {
                if let Some(target) = params.get_mut(&entry.key) {
                    target.iter_mut().zip(&a.values).for_each(|(t, &v)| *t = v as f32);
                }
            }
        }
    }
    let fitted = entries.len() - problems.len();
    for key in arrays.keys().filter(|key| !entries.iter().any(|e| &e.key == *key)) {
        problems.push(format!("unexpected `{key}`"));
    }
    let report = format!("{fitted}/{} tensors", entries.len());
    if problems.is_empty() {
        Ok(report)
    } else {
        Err(fail(path, format!("{report}; {}", problems.join("; "))))
    }
}

/// Writes the tensors of `params` whose key `wanted` accepts, with `metadata` in the header. The file appears
/// under its name only when complete.
///
/// # Errors
/// The file cannot be written.
pub fn save(
    path: &Path,
    params: &Params,
    wanted: impl Fn(&str) -> bool,
    metadata: HashMap<String, String>,
) -> Result<(), Error> {
    let mut tensors = Vec::new();
    for entry in params.entries().iter().filter(|e| wanted(&e.key)) {
        let values = params.get(&entry.key).unwrap_or_default();
        let (dtype, shape, bytes) = if entry.kind == Kind::Counter {
            (Dtype::I64, vec![], values.iter().flat_map(|&v| (v as i64).to_le_bytes()).collect::<Vec<u8>>())
        } else {
            (Dtype::F32, entry.shape.clone(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
        };
        tensors.push((entry.key.clone(), dtype, shape, bytes));
    }
    let views: Result<Vec<_>, _> = tensors
        .iter()
        .map(|(key, dtype, shape, bytes)| Ok((key, TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect();
    let views = views.map_err(|e: safetensors::SafeTensorError| fail(path, e))?;
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| fail(path, e))?;
    let partial = path.with_extension("partial");
    std::fs::write(&partial, bytes).map_err(|e| fail(&partial, e))?;
    std::fs::rename(&partial, path).map_err(|e| fail(path, e))
}

fn fail(path: &Path, problem: impl std::fmt::Display) -> Error {
    Error::Weights { path: path.display().to_string(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Init, Scope};

    fn build(scope: &mut Scope) {
        scope.param("a.weight", [2, 2], Init::Normal(1.0));
        scope.buffer("a.running_mean", [2], 0.25);
        scope.counter("a.num_batches_tracked");
        scope.param("idm.bias", [2], Init::Constant(1.0));
    }

    #[test]
    fn files_round_trip_and_misfits_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights.safetensors");
        let mut params = Params::init(1, build);
        params.get_mut("a.num_batches_tracked").unwrap()[0] = 7.0;
        save(&path, &params, |k| !k.starts_with("idm."), HashMap::new()).unwrap();
        let mut loaded = Params::init(2, build);
        assert_eq!(load(&path, &mut loaded, |k| !k.starts_with("idm.")).unwrap(), "3/3 tensors");
        assert_eq!(loaded, params);
        let error = load(&path, &mut loaded, |_| true).unwrap_err().to_string();
        assert!(error.contains("3/4 tensors") && error.contains("missing `idm.bias`"), "{error}");
        let error = load(&path, &mut loaded, |k| k.contains("running")).unwrap_err().to_string();
        assert!(error.contains("unexpected `a.weight`"), "{error}");
    }
}
